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
const ASK_PATIENCE: Duration = Duration::from_millis(500);
const ASK_TRIES: u32 = 10;

/// How often a node is told that a request still receives.
const REFRESH: Duration = Duration::from_secs(4);

/// After the link came up, for how long others may not be known yet.
const YOUNG: Duration = Duration::from_secs(5);

/// Sessions of other nodes whose node is remembered. Past that, all are forgotten, and asked for again.
const KNOWN_MAX: usize = 16 * 1024;

/// Sessions that something was lost of: the last ones, in one word.
const LOST_MAX: usize = 1024;

/// Words that wait for one request: more than one answer is awaited of nobody but by who finds.
const ANSWERS_MAX: usize = 64;

/// A request that awaits answers.
#[derive(Debug)]
pub(crate) struct Asking {
    fallback: Arc<Fallback>,
    number: u64,
    answers: mpsc::Receiver<(NodeId, Word)>,
}

/// Where a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    At(NodeId),
    /// No other node has it.
    Nowhere,
    /// Not all have answered.
    Unknown,
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

    /// Asks which node has a session.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn find(mut self, name: &str) -> Found {
        let fallback = Arc::clone(&self.fallback);
        // It is alone, or none can be asked yet.
        let Some(up_since) = *lock(&fallback.up_since) else { return Found::Nowhere };
        if let Some(node) = lock(&fallback.known).get(name) {
            return Found::At(*node);
        }
        let word = Word::new(What::Find, name, self.number);
        let mut lack = BTreeSet::new();
        for _try in 0..FIND_TRIES {
            let others = fallback.neighbours.others();
            let all_known = clock::now().saturating_duration_since(up_since) >= YOUNG;
            if all_known && others.iter().all(|node| lack.contains(node)) {
                return Found::Nowhere;
            }
            word.say(&fallback.neighbours, None);
            let until = after(FIND_PATIENCE);
            while let Some((from, answer)) = self.next(until).await {
                if answer.what() == What::Have {
                    fallback.learn(name, from);
                    return Found::At(from);
                }
                lack.insert(from);
                if all_known && others.iter().all(|node| lack.contains(node)) {
                    return Found::Nowhere;
                }
            }
        }
        Found::Unknown
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
            let is_answer = |answer: &Word| {
                is_piece(answer) || answer.what() == What::Wait && answer.sequence == sequence
            };
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
            if answer.what() == What::Wait {
                if until <= clock::now() {
                    return Taken::Nothing;
                }
                continue;
            }
            if answer.what() == What::Lack {
                return Taken::Over;
            }
            lines.extend_from_slice(&answer.bytes);
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
    /// Notes that something which a client said is lost. It is not told so by the answer, which pusher-js does not look
    /// at, but by the end of its session, as soon as the node that has it can be told.
    pub(crate) fn lose(&self, name: &Arc<str>) {
        let mut lost = lock(&self.lost);
        if lost.len() >= LOST_MAX {
            lost.pop_front();
        }
        lost.push_back(Arc::clone(name));
        drop(lost);
        self.say_lost(vec![(**name).to_owned()], None);
    }

    /// Names the sessions that something was lost of.
    pub(crate) fn tell_lost(&self, to: Option<NodeId>) {
        let names: Vec<String> = lock(&self.lost).iter().map(|name| (**name).to_owned()).collect();
        if !names.is_empty() {
            self.say_lost(names, to);
        }
    }

    fn say_lost(&self, texts: Vec<String>, to: Option<NodeId>) {
        Word { texts, ..Word::new(What::Lost, "", 0) }.say(&self.neighbours, to);
    }

    /// Learns that words come and go from now on: of those said before, some were not heard.
    pub(crate) fn link_is_up(&self) {
        *lock(&self.up_since) = Some(clock::now());
        self.tell_lost(None);
        Word::new(What::Recall, "", 0).say(&self.neighbours, None);
    }

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

#[cfg(test)]
mod tests;
