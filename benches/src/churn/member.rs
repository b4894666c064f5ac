//! A user who comes and goes.
//!
//! **Lives here:** when to, and what is sent for it.
//! **Called by:** `churn`.
//! **Must not know:** who else is there.

use std::time::{Duration, Instant};

use carillon_tasks::clock;
use carillon_tests::pusher::{FIRST, Socket};
use serde_json::json;
use tokio::time::interval_at;

use super::CHANNEL;

/// When everybody moves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    first: Instant,
    /// From one move of a user to the next.
    gap: Duration,
    /// From the first move of a user to the first of the next one.
    step: Duration,
    end: Instant,
}

impl Pace {
    /// Spreads `rate` moves a second evenly over `members` users.
    pub(super) fn new(rate: f64, members: usize, start: Instant, time: Duration) -> Self {
        let step = Duration::from_secs_f64(1.0 / rate);
        Self { first: start, gap: step.mul_f64(members as f64), step, end: start + time }
    }

    /// Returns that of the user with a number.
    pub(super) fn of(self, number: usize) -> Self {
        Self { first: self.first + self.step.mul_f64(number as f64), ..self }
    }
}

/// A user with one connection.
#[derive(Debug)]
pub(super) struct Member {
    socket: Socket,
    pub(super) user: String,
    subscribe: String,
    unsubscribe: String,
    /// Whether it is a member, and has been told so.
    pub(super) is_here: bool,
    /// How many times it has come or gone.
    pub(super) changes: u64,
    /// When it last sent something.
    pub(super) last: Instant,
}

impl Member {
    pub(super) fn new(socket: Socket, user: String) -> Self {
        let description =
            json!({"user_id": user, "user_info": {"name": format!("Name of {user}")}}).to_string();
        let auth = FIRST.auth(socket.id(), CHANNEL, Some(&description));
        let subscribe = json!({
            "event": "pusher:subscribe",
            "data": {"channel": CHANNEL, "auth": auth, "channel_data": description}
        });
        let unsubscribe = json!({"event": "pusher:unsubscribe", "data": {"channel": CHANNEL}});
        Self {
            socket,
            user,
            subscribe: subscribe.to_string(),
            unsubscribe: unsubscribe.to_string(),
            is_here: false,
            changes: 0,
            last: clock::now(),
        }
    }

    /// Comes and goes until the end, and then stays as it is. Who has come waits for the answer before it goes.
    pub(super) async fn come_and_go(mut self, pace: Pace) -> Self {
        let mut moves = interval_at(pace.first.into(), pace.gap);
        let mut comes = false;
        while clock::now() < pace.end || comes {
            tokio::select! {
                _ = moves.tick(), if !comes => {
                    comes = !self.is_here;
                    self.is_here = false;
                    let text = if comes { &self.subscribe } else { &self.unsubscribe };
                    self.last = clock::now();
                    self.changes += 1;
                    self.socket.say_text(text).await;
                }
                text = self.socket.text() => {
                    if text.starts_with(r#"{"event":"pusher_internal:subscription_succeeded""#) {
                        self.is_here = true;
                        comes = false;
                    }
                }
            }
        }
        self
    }
}
