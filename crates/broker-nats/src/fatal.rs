//! What no retry can mend.
//!
//! **Lives here:** the causes, each one line that says what to do.
//! **Called by:** `link` and `layout` find them; `gateway` ends the process with them.
//! **Must not know:** how the process ends.

/// Why the process cannot work with this NATS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// The server is older than 2.11.
    #[error(
        "nats-server {version} is too old: it republishes out of order or cannot read in batches; use 2.11 or later"
    )]
    TooOld {
        /// What the server says it is.
        version: String,
    },
    /// The server does not let us in.
    #[error("NATS refuses our credentials ({reason}); check user, password, token or credentials file")]
    Credentials {
        /// What the server said.
        reason: String,
    },
    /// The account may not do what we must.
    #[error("NATS does not permit what is needed: {reason}; extend the account's permissions")]
    Permission {
        /// What the server said: it names the subject.
        reason: String,
    },
    /// JetStream is switched off on the server.
    #[error(
        "JetStream is off on this NATS server: start nats-server with -js (or enable jetstream in its configuration)"
    )]
    NoJetStream,
    /// JetStream is switched off for our account.
    #[error("JetStream is off for this NATS account: enable it for the account")]
    NoJetStreamInAccount,
    /// A stream is there and is not what it should be.
    #[error(
        "the stream {stream} has another layout: {setting} is {found}, expected {expected}; use another prefix or \
         remove the stream"
    )]
    Layout {
        /// The stream.
        stream: String,
        /// The setting that differs.
        setting: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
}
