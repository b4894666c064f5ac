//! Questions to every node, and one answer made of all of theirs.
//!
//! **Lives here:** how many of how many have answered, for how long an answer is good, how each node asks its workers.
//! **Called by:** the API through `node`; `neighbours` for the questions of others. Never when somebody joins.
//! **Must not know:** how workers know what they answer.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use carillon_broker::Audience;
use carillon_model::{AppSpace, ChannelName, Findings, NodeId, Question, UserId};
use carillon_tasks::clock;
use prost::Message as _;
use tokio::{
    sync::{OnceCell, OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout_at,
};

use crate::{
    Router,
    crowd::Crowd,
    mailbox::Mail,
    neighbours::{Kind, Voice},
};

/// For how long the slowest node, or worker, is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// For how long an answer is good.
const FRESH: Duration = Duration::from_secs(1);

/// Answers that are kept.
const KEPT_MAX: usize = 64;

/// Questions of other nodes that are worked on at a time; past that they get no answer.
const AT_ONCE: usize = 1024;

/// Parts of answers that wait to be added up.
const PARTS_MAX: usize = 1024;

/// Channels of one word.
const CHANNELS_AT_ONCE: usize = 1000;

/// What some workers know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    pub(crate) channels: BTreeMap<String, u64>,
    pub(crate) total: u64,
}

/// A question between nodes. Numbers of fields are a contract: never reused.
#[derive(Clone, PartialEq, prost::Message)]
struct Asked {
    #[prost(fixed64, tag = "1")]
    number: u64,
    #[prost(uint32, tag = "2")]
    what: u32,
    #[prost(string, tag = "3")]
    app: String,
    #[prost(string, tag = "4")]
    text: String,
    #[prost(string, repeated, tag = "5")]
    channels: Vec<String>,
}

/// A part of an answer.
#[derive(Clone, PartialEq, prost::Message)]
struct Answered {
    #[prost(fixed64, tag = "1")]
    number: u64,
    #[prost(string, repeated, tag = "2")]
    channels: Vec<String>,
    #[prost(uint64, repeated, tag = "3")]
    counts: Vec<u64>,
    #[prost(uint64, tag = "4")]
    total: u64,
    /// In the last part: how many there are.
    #[prost(uint32, tag = "5")]
    parts: u32,
}

/// When a question was asked, and the answer, once it is there: those who ask the same meanwhile wait for it.
type Kept = (Instant, Arc<OnceCell<Arc<Findings>>>);

/// The questions that are open, and the answers that are still good.
pub(crate) struct Surveys {
    router: Arc<Router>,
    crowd: Arc<Crowd>,
    voice: Voice,
    number: AtomicU64,
    open: Mutex<HashMap<u64, mpsc::Sender<(NodeId, Answered)>>>,
    kept: Mutex<BTreeMap<Question, Kept>>,
    answering: Arc<Semaphore>,
}

impl Surveys {
    pub(crate) fn new(router: Arc<Router>, crowd: Arc<Crowd>, voice: Voice) -> Self {
        Self {
            router,
            crowd,
            voice,
            number: AtomicU64::new(0),
            open: Mutex::default(),
            kept: Mutex::default(),
            answering: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Asks every node, or returns what they said within the last second.
    ///
    /// # Cancel safety
    /// Safe, but what a question ends may have ended.
    pub(crate) async fn ask(&self, question: Question, deadline: Instant) -> Arc<Findings> {
        let now = clock::now();
        let asks = async || Arc::new(self.ask_all(&question, deadline, now).await);
        let Some(answer) = self.kept_answer(&question, now) else { return asks().await };
        let findings = Arc::clone(answer.get_or_init(asks).await);
        if findings.answered < findings.of {
            lock(&self.kept).retain(|_, (_, kept)| !Arc::ptr_eq(kept, &answer));
        }
        findings
    }

    /// Returns the place of a question's answer; none where answers are not kept.
    fn kept_answer(&self, question: &Question, now: Instant) -> Option<Arc<OnceCell<Arc<Findings>>>> {
        if matches!(question, Question::Terminate(..)) {
            return None;
        }
        let mut kept = lock(&self.kept);
        kept.retain(|_, (since, _)| now.saturating_duration_since(*since) < FRESH);
        if let Some((_, answer)) = kept.get(question) {
            return Some(Arc::clone(answer));
        }
        if kept.len() >= KEPT_MAX {
            return None;
        }
        let answer = Arc::new(OnceCell::new());
        kept.insert(question.clone(), (now, Arc::clone(&answer)));
        Some(answer)
    }

    async fn ask_all(&self, question: &Question, deadline: Instant, now: Instant) -> Findings {
        let patience = now.checked_add(PATIENCE).unwrap_or(now).min(deadline);
        let nodes = self.crowd.nodes();
        let others = nodes.len().saturating_sub(1);
        let (answers, mut answered) = mpsc::channel(PARTS_MAX);
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let _until_then = Open { surveys: self, number };
        lock(&self.open).insert(number, answers);
        // Also where no other is known: one may have been there for less time than a heartbeat takes to come.
        self.voice.say(Audience::All, Kind::Question, &Asked::new(number, question).encode_to_vec());
        let elsewhere = async {
            let mut whole = Part::default();
            // Parts of each node that came, and how many there are.
            let mut nodes: BTreeMap<NodeId, (u32, Option<u32>)> = BTreeMap::new();
            let mut done = 0;
            while done < others {
                let Ok(Some((node, part))) = timeout_at(patience.into(), answered.recv()).await else {
                    break;
                };
                whole.add(Part {
                    channels: part.channels.into_iter().zip(part.counts).collect(),
                    total: part.total,
                });
                let (came, parts) = nodes.entry(node).or_default();
                *came = came.saturating_add(1);
                *parts = parts.or((part.parts > 0).then_some(part.parts));
                done += usize::from(*parts == Some(*came));
            }
            (whole, done)
        };
        let (mut whole, (there, done)) = tokio::join!(self.ask_workers(question, patience), elsewhere);
        whole.add(there);
        Findings { channels: whole.channels, total: whole.total, answered: done + 1, of: others + 1 }
    }

    async fn ask_workers(&self, question: &Question, deadline: Instant) -> Part {
        let question = Arc::new(question.clone());
        let workers = self.router.mailboxes.len();
        let (parts, mut answered) = mpsc::channel(workers);
        for mailbox in &self.router.mailboxes {
            mailbox.put(Mail::Asked(Arc::clone(&question), parts.clone()));
        }
        drop(parts);
        let mut whole = Part::default();
        while let Ok(Some(part)) = timeout_at(deadline.into(), answered.recv()).await {
            whole.add(part);
        }
        whole
    }

    /// Lets the question of another node in, unless too many are being answered.
    pub(crate) fn admit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.answering).try_acquire_owned().ok()
    }

    /// Answers the question of another node.
    pub(crate) async fn answer(&self, from: NodeId, word: &[u8], _admitted: OwnedSemaphorePermit) {
        let Ok(asked) = Asked::decode(word) else { return };
        // One of a newer version: it is not answered.
        let Some(question) = asked.question() else { return };
        let now = clock::now();
        let part = self.ask_workers(&question, now.checked_add(PATIENCE).unwrap_or(now)).await;
        let say = |answer: &Answered| {
            self.voice.say(Audience::Node(from), Kind::Answer, &answer.encode_to_vec());
        };
        let mut answer = Answered { number: asked.number, ..Answered::default() };
        let mut parts = 1_u32;
        for (channel, count) in part.channels {
            answer.channels.push(channel);
            answer.counts.push(count);
            if answer.channels.len() == CHANNELS_AT_ONCE {
                say(&answer);
                answer.channels.clear();
                answer.counts.clear();
                parts = parts.saturating_add(1);
            }
        }
        (answer.total, answer.parts) = (part.total, parts);
        say(&answer);
    }

    /// Takes a part of an answer. What nobody waits for any more, or has no room, is dropped: then a node counts as
    /// silent.
    pub(crate) fn take(&self, from: NodeId, word: &[u8]) {
        let Ok(answer) = Answered::decode(word) else { return };
        if let Some(waiting) = lock(&self.open).get(&answer.number) {
            let _silent = waiting.try_send((from, answer)).is_err();
        }
    }
}

impl Asked {
    fn new(number: u64, question: &Question) -> Self {
        let (what, app, text) = match question {
            Question::Counts { app, prefix } => (1, app.as_str(), prefix.as_str()),
            Question::Count(channel) => (2, channel.app(), channel.as_str()),
            Question::Connections(app) => (3, app.as_str(), ""),
            Question::Terminate(app, user) => (4, app.as_str(), user.as_str()),
            Question::Each(app, _) => (5, app.as_str(), ""),
        };
        let channels = match question {
            Question::Each(_, channels) => {
                channels.iter().map(|channel| channel.as_str().to_owned()).collect()
            }
            Question::Counts { .. }
            | Question::Count(_)
            | Question::Connections(_)
            | Question::Terminate(..) => Vec::new(),
        };
        Self { number, what, app: app.to_owned(), text: text.to_owned(), channels }
    }

    fn question(&self) -> Option<Question> {
        let app = if self.app.is_empty() { AppSpace::default() } else { AppSpace::new(&self.app).ok()? };
        match self.what {
            1 => Some(Question::Counts { app, prefix: self.text.clone() }),
            2 => Some(Question::Count(ChannelName::any(&self.text).ok()?.within(&app))),
            3 => Some(Question::Connections(app)),
            4 => Some(Question::Terminate(app, UserId::new(&self.text).ok()?)),
            5 => {
                let names = self.channels.iter().map(|name| Some(ChannelName::any(name).ok()?.within(&app)));
                let channels = names.collect::<Option<Vec<_>>>()?;
                Some(Question::Each(app, channels))
            }
            _ => None,
        }
    }
}

impl Part {
    fn add(&mut self, other: Self) {
        self.total = self.total.saturating_add(other.total);
        for (channel, count) in other.channels {
            let sum = self.channels.entry(channel).or_default();
            *sum = sum.saturating_add(count);
        }
    }
}

/// Closes a question when whoever asked it has what it wants, or has gone.
struct Open<'a> {
    surveys: &'a Surveys,
    number: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        lock(&self.surveys.open).remove(&self.number);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Surveys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surveys").finish_non_exhaustive()
    }
}
