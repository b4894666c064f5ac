//! The words of Carillon: names, positions, publications, limits and the table of errors.
//!
//! **Lives here:** types without behaviour of their own, each with one checked constructor.
//! **Called by:** every other crate.
//! **Must not know:** sockets, clocks, tasks, brokers, dialects.

pub mod app;
pub mod channel;
pub mod error;
pub mod form;
pub mod id;
pub mod json;
pub mod kind;
pub mod member;
pub mod position;
pub mod publication;
pub mod rule;
pub mod since;
pub mod survey;
pub mod text;
pub mod time;

pub use app::{App, AppKey, AppLimits, AppSpace, Apps, Webhook, WebhookEvent};
pub use channel::{BadChannel, BadPattern, ChannelName, ChannelPattern};
pub use error::{CloseReason, ErrorCode, Refusal};
pub use form::{Form, Frames};
pub use id::{ConnectionId, NodeId, UserId};
pub use kind::ChannelKind;
pub use member::{IdKind, Member};
pub use position::{Epoch, Offset, Position};
pub use publication::{ClassName, DataKind, Keeping, NewMessage, Publication, RetentionClass, text_bytes};
pub use rule::{Access, ChannelRule, ChannelRules, Overflow};
pub use since::{ReplayLimits, Since, Unrecovered};
pub use survey::{Findings, Question};
pub use text::{BadText, EventName, IdempotencyKey};
pub use time::UnixMillis;
