//! A session that another node has.
//!
//! **Lives here:** finding the node, asking it until it answers, receiving through it.
//! **Called by:** `fallback` for requests whose session is not here.
//! **Must not know:** how the node keeps the session.
//!
//! Lines are taken in two steps: the node keeps what it has sent until it hears that it came, and only what it knows to
//! have come is handed to the client. A word that was lost is asked for again; where no answer comes, the client is told
//! to connect again.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use carillon_model::NodeId;
use carillon_tasks::{Phase, clock};
use tokio::{sync::mpsc, time::timeout_at};

use super::{
    Fallback, lock,
    session::Taken,
    word::{Then, What, Word},
};

/// In which time the others say whether they have a session, and how often they are asked.
const FIND_PATIENCE: Duration = Duration::from_millis(300);
const FIND_TRIES: u32 = 3;

/// In which time a node answers, and how often it is asked.
const ASK_PATIENCE: Duration = Duration::from_secs(1);
const ASK_TRIES: u32 = 5;

/// How often a node is told that a request still receives.
const REFRESH: Duration = Duration::from_secs(4);

/// After the link came up, for how long others may not be known yet.
const YOUNG: Duration = Duration::from_secs(5);

/// Sessions of other nodes whose node is remembered. Past that, all are forgotten, and asked for again.
const KNOWN_MAX: usize = 16 * 1024;

/// Words that wait for one request: more than one answer is awaited of nobody but by who finds.
const ANSWERS_MAX: usize = 64;

/// A request that awaits answers.
#[derive(Debug)]
pub(crate) struct Asking {
    fallback: Arc<Fallback>,
    number: u64,
    answers: mpsc::Receiver<(NodeId, Word)>,
}

/// A request that receives from another node.
#[derive(Debug)]
pub(crate) struct Afar {
    asking: Asking,
    node: NodeId,
    name: Arc<str>,
    /// Lines were taken so often.
    sequence: u64,
}

impl Asking {
    pub(crate) fn new(fallback: &Arc<Fallback>) -> Self {
        let (put, answers) = mpsc::channel(ANSWERS_MAX);
        let number = fallback.next_number();
        lock(&fallback.asking).insert(number, put);
        Self { fallback: Arc::clone(fallback), number, answers }
    }

    /// Returns the node that has a session, if any has.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn find(mut self, name: &str) -> Option<NodeId> {
        let fallback = Arc::clone(&self.fallback);
        let up_since = (*lock(&fallback.up_since))?;
        if let Some(node) = lock(&fallback.known).get(name) {
            return Some(*node);
        }
        let word = Word::new(What::Find, name, self.number);
        let mut lack = BTreeSet::new();
        for _try in 0..FIND_TRIES {
            let others = fallback.neighbours.others();
            let all_known = clock::now().saturating_duration_since(up_since) >= YOUNG;
            if all_known && others.iter().all(|node| lack.contains(node)) {
                return None;
            }
            word.say(&fallback.neighbours, None);
            let until = after(FIND_PATIENCE);
            while let Some((from, answer)) = self.next(until).await {
                if answer.what() == What::Have {
                    fallback.learn(name, from);
                    return Some(from);
                }
                lack.insert(from);
                if all_known && others.iter().all(|node| lack.contains(node)) {
                    return None;
                }
            }
        }
        None
    }

    /// Brings texts of the client to the node that has its session. `Some(false)` where it has it no more, `None` where
    /// no answer comes: then it is not known.
    ///
    /// # Cancel safety
    /// Safe, but the texts may have come.
    pub(crate) async fn say(mut self, node: NodeId, name: &str, texts: Vec<String>) -> Option<bool> {
        let word = Word { texts, ..Word::new(What::Say, name, self.number) };
        let answer = self.ask(node, &word, |answer| answer.what() == What::Said).await;
        let said = answer.map(|answer| answer.what() == What::Said);
        if said != Some(true) {
            lock(&self.fallback.known).remove(name);
        }
        said
    }

    /// Asks until there is an answer that is awaited, or the node says that it has no such session.
    async fn ask(&mut self, node: NodeId, word: &Word, awaited: impl Fn(&Word) -> bool) -> Option<Word> {
        for _try in 0..ASK_TRIES {
            word.say(&self.fallback.neighbours, Some(node));
            let until = after(ASK_PATIENCE);
            while let Some((_from, answer)) = self.next(until).await {
                if awaited(&answer) || answer.what() == What::Lack {
                    return Some(answer);
                }
            }
        }
        None
    }

    async fn next(&mut self, until: Instant) -> Option<(NodeId, Word)> {
        timeout_at(until.into(), self.answers.recv()).await.ok().flatten()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        lock(&self.fallback.asking).remove(&self.number);
    }
}

impl Afar {
    pub(crate) fn new(fallback: &Arc<Fallback>, node: NodeId, name: &Arc<str>) -> Self {
        Self { asking: Asking::new(fallback), node, name: Arc::clone(name), sequence: 0 }
    }

    /// Waits for lines until then.
    ///
    /// # Cancel safety
    /// Not safe: lines that were taken are lost.
    pub(crate) async fn take(&mut self, room: u64, until: Instant) -> Taken {
        let stop = self.asking.fallback.stop.clone();
        let taken = tokio::select! {
            taken = self.take_lines(room, until) => taken,
            // Clients of this node's own are asked to move; those of others are, too.
            () = stop.reached(Phase::Draining) => Taken::Over,
        };
        if taken == Taken::Over {
            lock(&self.asking.fallback.known).remove(&*self.name);
        }
        taken
    }

    async fn take_lines(&mut self, room: u64, until: Instant) -> Taken {
        let mut lines = BytesMut::new();
        loop {
            let sequence = self.sequence;
            let offset = lines.len() as u64;
            let is_piece = move |answer: &Word| {
                answer.what() == What::Lines && answer.sequence == sequence && answer.offset == offset
            };
            let is_answer =
                |answer: &Word| is_piece(answer) || answer.what() == What::Wait && answer.sequence == sequence;
            let word = Word { offset, room, ..self.word(What::Take) };
            let Some(mut answer) = self.asking.ask(self.node, &word, is_answer).await else {
                return Taken::Over;
            };
            let again = after(REFRESH).min(until);
            while answer.what() == What::Wait {
                match self.asking.next(again).await {
                    Some((_, next)) if is_piece(&next) || next.what() == What::Lack => answer = next,
                    Some(_) => {}
                    None => break,
                }
            }
            match answer.what() {
                What::Lines => lines.extend_from_slice(&answer.bytes),
                What::Wait if until <= clock::now() => return Taken::Nothing,
                What::Wait => continue,
                _lack => return Taken::Over,
            }
            if lines.len() as u64 >= answer.total {
                return self.confirm(lines, answer.last).await;
            }
        }
    }

    /// Has the node forget what came.
    async fn confirm(&mut self, lines: BytesMut, last: bool) -> Taken {
        self.sequence = self.sequence.saturating_add(1);
        let word = self.word(What::Took);
        let taken = Taken::Lines { bytes: lines.freeze(), last };
        if last {
            // Nothing follows that could be handed over twice.
            word.say(&self.asking.fallback.neighbours, Some(self.node));
            return taken;
        }
        let sequence = self.sequence;
        let noted = |answer: &Word| answer.what() == What::Noted && answer.sequence == sequence;
        match self.asking.ask(self.node, &word, noted).await {
            Some(answer) if answer.what() == What::Noted => taken,
            Some(_) | None => Taken::Over,
        }
    }

    pub(crate) fn leave(&self, then: Then) {
        let word = Word { then: then.into(), ..self.word(What::Took) };
        word.say(&self.asking.fallback.neighbours, Some(self.node));
    }

    fn word(&self, what: What) -> Word {
        Word { sequence: self.sequence, ..Word::new(what, &self.name, self.asking.number) }
    }
}

impl Fallback {
    fn learn(&self, name: &str, node: NodeId) {
        let mut known = lock(&self.known);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(name.into(), node);
    }
}

fn after(wait: Duration) -> Instant {
    let now = clock::now();
    now.checked_add(wait).unwrap_or(now)
}
