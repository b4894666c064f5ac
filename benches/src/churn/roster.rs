//! The roster as clients see it: one who watches from the beginning, and one who comes at the end.
//!
//! **Lives here:** a watcher's own list, whoever asks until an answer is true.
//! **Called by:** `churn`.
//! **Must not know:** why users move.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use carillon_tasks::clock;
use carillon_tests::{gateway::PATIENCE, pusher::Socket};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::CHANNEL;

/// The user that all are who only look: one more connection of it changes no roster.
pub(super) const VISITOR: &str = "visitor";
/// Between two questions. Each is a join and a leave, so not for nothing.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// A watcher's list.
#[derive(Debug)]
pub(super) struct Roster {
    users: BTreeSet<String>,
    /// Who came and was there, or went and was not.
    pub(super) faults: u64,
}

/// Joins, and keeps a list of what is told from then on.
pub(super) async fn watch(mut socket: Socket, tasks: &mut JoinSet<()>) -> watch::Receiver<Roster> {
    let users = join(&mut socket).await;
    let (tell, roster) = watch::channel(Roster { users, faults: 0 });
    tasks.spawn(async move {
        loop {
            let frame = socket.next().await;
            let user = || text(&frame.json()["user_id"]);
            let change: &dyn Fn(&mut Roster) -> bool = match frame.event.as_str() {
                "pusher_internal:member_added" => &|roster| roster.users.insert(user()),
                "pusher_internal:member_removed" => &|roster| roster.users.remove(&user()),
                _ => continue,
            };
            tell.send_modify(|roster| {
                if !change(roster) {
                    roster.faults += 1;
                }
            });
        }
    });
    roster
}

/// Waits until a watcher's list has exactly these users, and returns when that was seen.
///
/// # Errors
///
/// When it has not in 30 s.
pub(super) async fn agrees(
    roster: &mut watch::Receiver<Roster>,
    expected: &BTreeSet<String>,
) -> Result<Instant> {
    let agreed = timeout(PATIENCE, roster.wait_for(|roster| roster.users == *expected)).await;
    agreed.context("a watcher was not told of everything")?.context("a watcher has ended")?;
    Ok(clock::now())
}

/// Joins until the answer has exactly these users. Returns when that was, and how many times it joined and left.
///
/// # Errors
///
/// When it has not in 30 s.
pub(super) async fn ask_until(mut socket: Socket, expected: &BTreeSet<String>) -> Result<(Instant, u64)> {
    let asking = async {
        let mut changes = 1;
        while join(&mut socket).await != *expected {
            socket.unsubscribe(CHANNEL).await;
            sleep(ASK_AGAIN).await;
            changes += 2;
        }
        (clock::now(), changes)
    };
    timeout(PATIENCE, asking).await.context("who joins is told another roster")
}

/// Joins, past what was told of an earlier visit, and returns who is there.
async fn join(socket: &mut Socket) -> BTreeSet<String> {
    socket.ask_as(CHANNEL, &json!({"user_id": VISITOR}).to_string()).await;
    let answer = socket.until("pusher_internal:subscription_succeeded", CHANNEL).await.json();
    answer["presence"]["ids"].as_array().into_iter().flatten().map(text).collect()
}

fn text(id: &Value) -> String {
    id.as_str().unwrap_or_default().to_owned()
}
