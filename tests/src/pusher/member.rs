//! A member of a presence channel that keeps the list of members as clients do.
//!
//! **Lives here:** joining, and learning who comes and goes; news that contradict what is known fail the test.
//! **Called by:** tests of presence over several nodes.
//! **Must not know:** nodes.

use std::collections::BTreeSet;

use serde_json::json;

use super::{FIRST, Frame, Socket};
use crate::gateway::Gateway;

/// One member.
#[derive(Debug)]
pub struct Member {
    /// Its connection.
    pub socket: Socket,
    /// Who is there, as far as it was told.
    pub there: BTreeSet<String>,
    channel: String,
}

impl Member {
    /// Connects to a node and joins as a user.
    ///
    /// # Panics
    /// When it is refused, or the answer contradicts itself.
    pub async fn join(node: &Gateway, channel: &str, user: &str) -> Self {
        let mut socket = Socket::open(node.public, &FIRST).await;
        let members = socket.join(channel, user).await;
        let ids = members["ids"].as_array().expect("a list of ids");
        let there: BTreeSet<_> = ids.iter().map(|id| id.as_str().expect("a text").to_owned()).collect();
        assert_eq!((there.len(), &members["count"]), (ids.len(), &json!(ids.len())), "{members}");
        assert!(there.contains(user), "{members}");
        Self { socket, there, channel: channel.to_owned() }
    }

    /// Waits for the next frame that is not the notice that events may have been lost with NATS: news of members never
    /// are.
    async fn next(&mut self) -> Frame {
        loop {
            let next = self.socket.next().await;
            if !next.is("carillon:gap", &self.channel) {
                return next;
            }
        }
    }

    /// Takes the next news, such as `added` and the user.
    ///
    /// # Panics
    /// When it is none, or what it says is known already.
    pub async fn learns(&mut self) -> (String, String) {
        let next = self.next().await;
        assert_eq!(next.channel.as_ref(), Some(&self.channel), "{next:?}");
        let user = next.json()["user_id"].as_str().expect("a text").to_owned();
        let (what, fits) = match next.event.as_str() {
            "pusher_internal:member_added" => ("added", self.there.insert(user.clone())),
            "pusher_internal:member_removed" => ("removed", self.there.remove(&user)),
            other => panic!("{other} is no news of members: {next:?}"),
        };
        assert!(fits, "told twice: {next:?}");
        (what.to_owned(), user)
    }

    /// Takes news until exactly these are there.
    pub async fn sees(&mut self, users: &[&str]) {
        let expected: BTreeSet<_> = users.iter().map(|user| (*user).to_owned()).collect();
        while self.there != expected {
            let _news = self.learns().await;
        }
    }

    /// Takes the next news, which must be this.
    ///
    /// # Panics
    /// When it is another.
    pub async fn learns_that(&mut self, what: &str, user: &str) {
        assert_eq!(self.learns().await, (what.to_owned(), user.to_owned()));
    }

    /// Makes sure that there are no news.
    ///
    /// # Panics
    /// When there are.
    pub async fn learns_nothing(&mut self) {
        self.socket.say("pusher:ping", &json!({})).await;
        let next = self.next().await;
        assert_eq!(next.event, "pusher:pong", "{next:?}");
    }
}
