//! What a worker tells of its channels' members, and what it knows of its own connections.
//!
//! **Lives here:** changes among members on their way to those who are told of them, the worker's part of a survey.
//! **Called by:** the turn.
//! **Must not know:** how members are counted, other workers.

use std::{sync::Arc, time::Duration};

use carillon_hub::{Offered, SessionKey, UNTOLD};
use carillon_model::{ChannelKind, ChannelName, CloseReason, Form, Question};
use carillon_session::Push;
use carillon_tasks::clock;

use crate::{
    connection::Connection,
    crowd::{Change, Changed, Crowd},
    link::Said,
    survey::Part,
    worker::Worker,
};

/// Those who must come back to know who is there leave within this time, so that they do not all come at once.
const SENT_AWAY_WITHIN: Duration = Duration::from_secs(5);

impl Worker {
    pub(super) fn crowd(&self) -> &Crowd {
        &self.node.neighbours().crowd
    }

    /// Has a connection told of what changes after `turn` in a channel that it holds.
    pub(super) fn hear_changes(&self, connection: &Connection, channel: &ChannelName, turn: u64) {
        if let Some(seated) = connection.seats.iter().find(|seated| seated.channel == *channel) {
            self.channels.borrow_mut().tell_after(channel, seated.seat, turn);
        }
    }

    /// Tells those who listen of a change among a channel's members.
    pub(super) fn tell_change(&self, change: &Arc<Change>) {
        let channel = change.channel.clone();
        if matches!(change.what, Changed::Counted(_)) && ChannelKind::of(&channel).presence {
            return; // Its members say more.
        }
        let push = match &change.what {
            Changed::Came(member) => Push::Came { channel, member: member.clone() },
            Changed::Went(member) => Push::Went { channel, member: member.clone() },
            Changed::Counted(count) => Push::Counted { channel, count: *count },
        };
        let mut texts: Vec<(Form, String)> = Vec::new();
        let keys = self.channels.borrow().told_of(&change.channel, change.turn);
        for key in keys {
            let mut connections = self.connections.borrow_mut();
            let Some(connection) = connections.get_mut(key.get()).filter(|one| one.is_open()) else {
                continue;
            };
            let form = connection.link.form();
            let known = texts.iter().find(|(known, _)| *known == form).map(|(_, text)| text.clone());
            let text = known.unwrap_or_else(|| {
                let text = connection.link.dialect().push(&push);
                texts.push((form, text.clone()));
                text
            });
            let said = connection.say(Said::Text(text), self.node.config().outbox_max_bytes);
            drop(connections);
            match said {
                Offered::Queued => self.flush(key),
                Offered::Full => self.close_slow(key),
            }
        }
    }

    /// Sends those away who were not told of changes: what they know of the channel's members is wrong from here on, and
    /// is right again when they come back.
    pub(super) fn send_away(&self, channel: &ChannelName) {
        let now = clock::now();
        let keys = self.channels.borrow().told_of(channel, UNTOLD - 1);
        for key in keys {
            if let Some(connection) = self.connections.borrow_mut().get_mut(key.get()) {
                let at = now.checked_add(self.dice.part_of(SENT_AWAY_WITHIN)).unwrap_or(now);
                connection.session.handle_leave(CloseReason::OverCapacity, at, self.come_back());
                self.arm(key, connection);
            }
        }
    }

    /// Answers a question with what this worker knows.
    pub(super) fn survey(&self, question: &Question) -> Part {
        let mut part = Part::default();
        match question {
            Question::Counts { app, prefix } => {
                let counts = self.channels.borrow().counts(|channel| {
                    channel.app() == app.as_str()
                        && !channel.is_reserved()
                        && channel.as_str().starts_with(prefix.as_str())
                });
                for (channel, count) in counts {
                    part.channels.insert(channel.as_str().to_owned(), count as u64);
                }
            }
            Question::Count(channel) => part.total = self.channels.borrow().count(channel) as u64,
            Question::Each(_, these) => {
                let channels = self.channels.borrow();
                for channel in these {
                    let count = channels.count(channel) as u64;
                    if count > 0 {
                        part.channels.insert(channel.as_str().to_owned(), count);
                    }
                }
            }
            Question::Connections(app) => {
                let connections = self.connections.borrow();
                part.total = connections.iter().filter(|(_, one)| one.app.space == *app).count() as u64;
            }
            Question::Terminate(app, user) => {
                let is_theirs = |one: &Connection| {
                    one.app.space == *app
                        && one.link.form().is_pusher()
                        && one.session.identity().is_some_and(|identity| identity.user == *user)
                };
                let connections = self.connections.borrow();
                let keys: Vec<_> = connections
                    .iter()
                    .filter(|(_, one)| is_theirs(one))
                    .filter_map(|(key, _)| SessionKey::new(key))
                    .collect();
                drop(connections);
                part.total = keys.len() as u64;
                for key in keys {
                    if let Some(connection) = self.connections.borrow_mut().get_mut(key.get()) {
                        connection.session.handle_close(CloseReason::Terminated, None);
                    }
                    self.carry_out(key, clock::now());
                }
            }
        }
        part
    }
}
