//! Who may join what.
//!
//! **Lives here:** the channel's rule, a client's grants, an application's signatures; what a first request must name.
//! **Called by:** the worker, for a session's wish to join and before a stream begins.
//! **Must not know:** seats, positions.

use carillon_auth::{channel_text, socket_id};
use carillon_model::{
    Access, ChannelKind, ChannelName, ChannelRule, ErrorCode, Form, IdKind, Keeping, Member, Overflow,
    Refusal,
};
use carillon_session::{Identity, Wanted, may_subscribe};
use carillon_tasks::clock;

use crate::{Node, Opening, Place, connection::Connection, worker::Worker};

/// What a client may have of a channel.
#[derive(Debug)]
pub(super) struct Permit {
    pub(super) overflow: Overflow,
    pub(super) keeping: Keeping,
    /// As whom it joins, when it becomes a member.
    pub(super) member: Option<Member>,
}

impl Worker {
    /// Decides whether a connection may join a channel, and as what.
    pub(super) fn permit(&self, connection: &Connection, wanted: &Wanted) -> Result<Permit, Refusal> {
        let (channel, identity) = (&wanted.channel, connection.session.identity());
        if let Some(user) = channel.user() {
            // No rule is about a user's own channel.
            if identity.is_none_or(|identity| identity.user.as_str() != user) {
                let message = format!("Sign in as user {user} before subscribing to the user's own channel");
                return Err(Refusal::new(ErrorCode::Unauthorized, message));
            }
            return Ok(Permit { overflow: Overflow::Close, keeping: Keeping::Live, member: None });
        }
        let rules = self.node.router().rules();
        let rule = rules.find(channel);
        let (rule, member) = match connection.link.form() {
            Form::PusherWebSocket | Form::PusherLine => by_signature(&self.node, connection, wanted, rule)?,
            Form::NativeWebSocket
            | Form::NativeSse
            | Form::NativeSseBare
            | Form::NativeSseRaw
            | Form::NativeLine
            | Form::NativePoll => {
                let rule = may_subscribe(channel, rule, identity)?;
                (rule, if wanted.presence { Some(by_token(channel, identity)?) } else { None })
            }
        };
        let keeping = rules.keeping(channel).unwrap_or(&rule.keeping).clone();
        Ok(Permit { overflow: rule.overflow, keeping, member })
    }

    /// Decides on a first request that is answered by a status: what a WebSocket is told in the conversation. Only what
    /// no channel of it can be had for is refused; the rest is told in the stream.
    ///
    /// # Errors
    /// The refusal; `unavailable` when the same request may succeed on another node, or later.
    pub fn screen(&self, opening: &Opening, place: &Place) -> Result<(), Refusal> {
        let now = clock::now();
        if place.is_over_capacity() || self.draining.get().is_some() {
            let message = "this node takes no more clients; connect again";
            return Err(Refusal::new(ErrorCode::Unavailable, message).retry_after(self.come_back()));
        }
        let app = self.node.app_of(&opening.whose)?;
        let identity = match &opening.token {
            Some(token) => Some(self.node.identify(token, &app, now)?),
            None => None,
        };
        let mut first = None;
        for wanted in &opening.wanted {
            match wanted {
                Ok(wanted) => match self.may_join(&wanted.channel.within(&app.space), identity.as_ref()) {
                    Ok(()) => return Ok(()),
                    Err(refusal) => first = first.or(Some(refusal)),
                },
                Err((_, refusal)) => first = first.or_else(|| Some(refusal.clone())),
            }
        }
        let none = || {
            Refusal::new(
                ErrorCode::BadRequest,
                "name at least one channel: `?channel=news`, and `channel=` again for each other; in a body `{\"channels\":[\"news\"]}`",
            )
        };
        Err(first.unwrap_or_else(none))
    }

    fn may_join(&self, channel: &ChannelName, identity: Option<&Identity>) -> Result<(), Refusal> {
        may_subscribe(channel, self.node.router().rules().find(channel), identity).map(|_rule| ())
    }
}

/// Returns the member that a bearer of a token becomes.
fn by_token(channel: &ChannelName, identity: Option<&Identity>) -> Result<Member, Refusal> {
    if !ChannelKind::of(channel).presence {
        let message = "only channels whose names begin with `presence-` have members";
        return Err(Refusal::new(ErrorCode::BadRequest, message));
    }
    let Some(identity) = identity else {
        let message = "members are known by their token; connect with one or send `authenticate` first";
        return Err(Refusal::new(ErrorCode::Unauthorized, message));
    };
    Ok(Member { user: identity.user.clone(), kind: IdKind::Text, info: identity.info.clone() })
}

/// Decides by what the application has signed. The texts are those that Pusher's clients show.
fn by_signature<'a>(
    node: &Node,
    connection: &Connection,
    wanted: &Wanted,
    rule: Option<&'a ChannelRule>,
) -> Result<(&'a ChannelRule, Option<Member>), Refusal> {
    let (app, channel) = (&connection.app, &wanted.channel);
    let refuse = |code, message: String| Err(Refusal::new(code, message));
    if channel.as_str().len() > app.limits.channel_name_bytes {
        let message =
            format!("Invalid channel name: it has more than {} characters", app.limits.channel_name_bytes);
        return refuse(ErrorCode::BadRequest, message);
    }
    let Some(rule) = rule else {
        return refuse(ErrorCode::NotFound, format!("No channel rule of the server covers {channel}"));
    };
    let kind = ChannelKind::of(channel);
    if !kind.guarded {
        return match rule.access {
            Access::Public => Ok((rule, None)),
            Access::Token => refuse(
                ErrorCode::Forbidden,
                format!("The server lets only bearers of a token join {channel}; use a private- channel"),
            ),
        };
    }
    let proof = wanted.proof.as_deref().cloned().unwrap_or_default();
    let signed = channel_text(&socket_id(connection.session.id()), channel.as_str(), proof.data.as_deref());
    node.check_signature(app, &proof.auth, &signed)?;
    if !kind.presence {
        return Ok((rule, None));
    }
    if proof.data.as_ref().is_some_and(|data| data.len() > app.limits.presence_member_bytes) {
        let message =
            format!("Invalid channel_data: it has more than {} bytes", app.limits.presence_member_bytes);
        return refuse(ErrorCode::TooLarge, message);
    }
    let signed_in = || {
        let identity = connection.session.identity()?;
        Some(Member { user: identity.user.clone(), kind: IdKind::Text, info: identity.info.clone() })
    };
    match proof.member.or_else(signed_in) {
        Some(member) => Ok((rule, Some(member))),
        None => {
            let message = "Missing parameter: data.channel_data, which a presence channel needs unless the connection is signed in";
            refuse(ErrorCode::BadRequest, message.to_owned())
        }
    }
}
