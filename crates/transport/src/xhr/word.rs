//! What nodes say to each other about a session that one of them has.
//!
//! **Lives here:** the words' shape on the wire, a contract between versions that run side by side.
//! **Called by:** `session` for the node that has it, `afar` for the others.
//! **Must not know:** what is done with them.
//!
//! Every word may be lost. Whoever asks asks again, and the same question has the same answer.

use carillon_node::Neighbours;
use prost::Message as _;

use carillon_model::NodeId;

/// Bytes of lines in one word: far below what NATS takes.
pub(crate) const PIECE_BYTES: usize = 32 * 1024;

/// What a word is. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum What {
    /// Of a newer version.
    Unknown = 0,
    /// Asks all: who has the session?
    Find = 1,
    /// Answers: this node.
    Have = 2,
    /// Answers: not this node. Also when somebody else receives by now.
    Lack = 3,
    /// Asks for lines.
    Take = 4,
    /// Answers with a piece of them.
    Lines = 5,
    /// Answers that there are none yet; `Lines` come when there are.
    Wait = 6,
    /// Says that lines have come, and how the receiver goes on.
    Took = 7,
    /// Answers that this was understood.
    Noted = 8,
    /// Brings texts of the client.
    Say = 9,
    /// Answers that the session has taken them.
    Said = 10,
    /// Names sessions whose clients said something that could not be brought: they must end.
    Lost = 11,
    /// Asks all for such sessions: the node may not have heard of them.
    Recall = 12,
}

/// How a receiver goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Then {
    /// It receives.
    Stay = 0,
    /// Its request is over; the client will send another one.
    Leave = 1,
    /// The client has gone.
    End = 2,
}

/// One word. Numbers of fields are never reused.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Word {
    #[prost(enumeration = "What", tag = "1")]
    pub(crate) what: i32,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    /// Which request of its node it is about.
    #[prost(fixed64, tag = "3")]
    pub(crate) number: u64,
    /// Which lines of a request.
    #[prost(uint64, tag = "4")]
    pub(crate) sequence: u64,
    /// Where a piece stands among these lines.
    #[prost(uint64, tag = "5")]
    pub(crate) offset: u64,
    /// The room for lines, in characters as browsers count them.
    #[prost(uint64, tag = "6")]
    pub(crate) room: u64,
    #[prost(bytes = "bytes", tag = "7")]
    pub(crate) bytes: bytes::Bytes,
    /// Bytes of these lines.
    #[prost(uint64, tag = "8")]
    pub(crate) total: u64,
    /// These lines are the last.
    #[prost(bool, tag = "9")]
    pub(crate) last: bool,
    #[prost(string, repeated, tag = "10")]
    pub(crate) texts: Vec<String>,
    #[prost(enumeration = "Then", tag = "11")]
    pub(crate) then: i32,
}

impl Word {
    pub(crate) fn new(what: What, name: &str, number: u64) -> Self {
        Self { what: what.into(), name: name.to_owned(), number, ..Self::default() }
    }

    /// Answers this word.
    pub(crate) fn answer(&self, what: What) -> Self {
        Self { sequence: self.sequence, ..Self::new(what, "", self.number) }
    }

    pub(crate) fn say(&self, neighbours: &Neighbours, to: Option<NodeId>) {
        neighbours.relay(to, &self.encode_to_vec());
    }
}
