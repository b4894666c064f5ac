//! The checker: was anything lost, doubled, reordered or made up, by what publishers and clients wrote down.
//!
//! **Lives here:** the words of a run, and what can be wrong with it.
//! **Called by:** `chaos`, and tests with runs that are wrong on purpose.
//! **Must not know:** how a run came about. It reads no clock, and finds the same in the same run.
//!
//! A client's obligation towards a channel begins with its first `subscribed` and ends with the run: through every
//! reconnect it must see each message after the place where it stands, in order, once, or be told that it cannot.

mod audit;
mod publications;
mod walk;

use std::{collections::BTreeMap, fmt};

use carillon_model::Position;

pub use audit::audit;

/// All that was written down.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// The channels; everything else names them by their place in this list.
    pub channels: Vec<Channel>,
    /// What was published, in any order, one for each counter of a publisher on a channel.
    pub publications: Vec<Published>,
    /// What clients saw.
    pub clients: Vec<Story>,
}

/// A channel.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// Whether something was done to what is kept of it, so that it may be told to have lost messages.
    pub may_lose: bool,
    /// Where its last publication stands, which every client must reach.
    pub last: Option<Position>,
}

/// One publication and what its publisher knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Who, on which channel, which one of theirs.
    pub what: Name,
    /// A hash of the data, as it was published.
    pub content: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What its data says a publication is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Place of the channel in the run's list.
    pub channel: u16,
    /// Number of the publisher.
    pub publisher: u16,
    /// Which one of theirs on this channel. A publisher goes on to the next only after the outcome of the one before.
    pub counter: u32,
}

/// What a publisher was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored, here.
    Stored(Position),
    /// It was refused for good.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// What one client saw, in order.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// What to call it.
    pub name: String,
    /// The channels it wants.
    pub channels: Vec<u16>,
    /// What it saw.
    pub events: Vec<Event>,
}

/// Something that a client saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Milliseconds since the beginning of the run; for readers, not for the audit.
    pub at_ms: u32,
    /// What it was.
    pub seen: Seen,
}

/// What a client can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A connection began.
    Connected,
    /// The server says where the client stands in a channel, and what of the past follows.
    Subscribed {
        /// Place of the channel in the run's list.
        channel: u16,
        /// Where it stands before whatever follows.
        position: Position,
        /// What follows.
        past: Past,
    },
    /// A message.
    Message {
        /// What it says it is.
        what: Name,
        /// Where it stands.
        position: Position,
        /// A hash of its data, as it came.
        content: u64,
    },
    /// The channel is said to have lost messages.
    Gap {
        /// Place of the channel in the run's list.
        channel: u16,
        /// Where the client stands now; `None` when it was not told.
        position: Option<Position>,
    },
    /// The subscription ended, and the connection did not.
    Unsubscribed {
        /// Place of the channel in the run's list.
        channel: u16,
    },
    /// The connection ended.
    Disconnected,
    /// Something that cannot be read as any of these.
    Nonsense,
}

/// What a client is told of its past when it subscribes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// It did not ask.
    NotAsked,
    /// All that it missed: so many messages.
    Recovered(u32),
    /// It cannot be brought.
    Lost(Reason),
}

/// Why the past, or a part of it, cannot be brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// `gap`, while the client was connected.
    Gap,
    /// The stream is another one.
    Epoch,
    /// It is no longer kept.
    Expired,
    /// It is too much.
    Limit,
    /// It could not be read now.
    Unavailable,
}

impl Reason {
    /// Says whether it tells of a loss that nothing but a deletion explains.
    #[must_use]
    pub const fn needs_a_deletion(self) -> bool {
        match self {
            Self::Gap | Self::Epoch | Self::Expired => true,
            Self::Limit | Self::Unavailable => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gap => "gap",
            Self::Epoch => "epoch",
            Self::Expired => "expired",
            Self::Limit => "limit",
            Self::Unavailable => "unavailable",
        })
    }
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// I1: a client never saw a message that was acknowledged, and was not told.
    AckedLost,
    /// Messages are missing between two that a client saw, or after its last, and it was not told.
    SilentGap,
    /// I2: a client saw a message twice.
    Duplicate,
    /// I2: a publication was stored twice.
    StoredTwice,
    /// I3: a client saw a message after a later one.
    Reordered,
    /// I3: publications of one publisher were stored in another order than they were acknowledged.
    OutOfTurn,
    /// I3: a client was led from one epoch into another without being told.
    ForeignEpoch,
    /// I4: two clients saw different messages under one id.
    Disagreement,
    /// I5: nobody published it, or it was refused.
    Phantom,
    /// I5: what arrived is not what was published.
    WrongContent,
    /// I6: a message of a channel that the client was not subscribed to.
    NotSubscribed,
    /// I9: an answer that is not true.
    FalseAnswer,
    /// A loss that was told where nothing was deleted.
    NeedlessLoss,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What kind of thing.
    pub fault: Fault,
    /// Place of the client in the run's list, and of the event in its story.
    pub place: Option<(usize, usize)>,
    /// The channel.
    pub channel: u16,
    /// For people.
    pub text: String,
}

/// What an audit found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// How often each thing was wrong.
    pub counts: BTreeMap<Fault, u64>,
    /// The first of each.
    pub first: Vec<Violation>,
    /// Messages that clients saw.
    pub deliveries: u64,
    /// Losses that clients were told of, by reason, on channels that may not lose and on those that may.
    pub told: BTreeMap<(bool, Reason), u64>,
    /// Acknowledgements on channels that may lose which name the stream before: NATS says under which number it stored a
    /// message, and not in which life of the stream. Such an id recovers nothing, and says so.
    pub stale: u64,
    /// Reconnects after which all that was missed was brought, and how many messages that were.
    pub recovered: (u64, u64),
}

impl Verdict {
    /// Says whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    /// Returns how often something was wrong.
    #[must_use]
    pub fn count(&self, fault: Fault) -> u64 {
        self.counts.get(&fault).copied().unwrap_or(0)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (channels, clients) = (self.channels.len(), self.clients.len());
        write!(f, "{channels} channels, {} publications, {clients} clients", self.publications.len())
    }
}

impl Run {
    /// Shows a violation with what its client saw of the channel around it.
    #[must_use]
    pub fn show(&self, violation: &Violation) -> String {
        const AROUND: usize = 6;
        let channel = self.channels.get(usize::from(violation.channel));
        let channel = channel.map_or("?", |channel| channel.name.as_str());
        let mut text = format!("{:?} on {channel}: {}\n", violation.fault, violation.text);
        let Some((story, place)) =
            violation.place.and_then(|(client, place)| Some((self.clients.get(client)?, place)))
        else {
            return text;
        };
        text.push_str(&format!("  {} saw\n", story.name));
        let of_it =
            |(_, event): &(usize, &Event)| event.seen.channel().is_none_or(|of| of == violation.channel);
        let events: Vec<_> = story.events.iter().enumerate().filter(of_it).collect();
        let middle = events.partition_point(|(number, _)| *number < place);
        let shown = events.iter().skip(middle.saturating_sub(AROUND)).take(2 * AROUND);
        for (number, event) in shown {
            let mark = if *number == place { ">" } else { " " };
            text.push_str(&format!("  {mark} {:>7} ms  {}\n", event.at_ms, event.seen));
        }
        text
    }
}

impl Seen {
    /// Returns the channel that it is about; `None` when it is about all.
    #[must_use]
    pub const fn channel(&self) -> Option<u16> {
        match self {
            Self::Subscribed { channel, .. } | Self::Gap { channel, .. } | Self::Unsubscribed { channel } => {
                Some(*channel)
            }
            Self::Message { what, .. } => Some(what.channel),
            Self::Connected | Self::Disconnected | Self::Nonsense => None,
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Subscribed { position, past, .. } => write!(f, "subscribed at {position}, {past:?}"),
            Self::Message { what, position, .. } => {
                write!(f, "message {position}: publisher {}, number {}", what.publisher, what.counter)
            }
            Self::Gap { position: Some(position), .. } => write!(f, "gap, now at {position}"),
            Self::Gap { position: None, .. } => f.write_str("gap"),
            Self::Unsubscribed { .. } => f.write_str("unsubscribed"),
            Self::Disconnected => f.write_str("disconnected"),
            Self::Nonsense => f.write_str("something that cannot be read"),
        }
    }
}
