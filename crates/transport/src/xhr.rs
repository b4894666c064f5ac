//! The HTTP fallback of pusher-js: `xhr_streaming`, `xhr` and `xhr_send`, below `/app/{key}`.
//!
//! **Lives here:** the paths, the sessions of this process, which request leads to which session.
//! **Called by:** `visit` for requests, the node for words of other nodes.
//! **Must not know:** what is said in a session.
//!
//! The source is the client (pusher-js, src/core/http): it reads lines, `o` at first, then `a["…"]`, `h` and in the end
//! `c[code,"reason"]`. A session is a connection of the node that got its first request. A request that comes to another
//! node receives and sends through that node: no proxy needs to know sessions. Who knows a session's name may speak for
//! it, as in SockJS: it has 50 random bits, and is never logged.

mod afar;
mod link;
mod session;
mod stream;
mod word;

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt,
    future::poll_fn,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use carillon_dialect_pusher::{Protocol, Refused};
use carillon_model::{ErrorCode, NodeId, Refusal};
use carillon_node::{Guest, Neighbours, Place, Relay, Worker};
use carillon_tasks::{Stop, clock};
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};
use prost::Message as _;
use tokio::{
    sync::mpsc,
    task::spawn_local,
    time::{sleep_until, timeout_at},
};

use self::{
    afar::{Afar, Asking, Found},
    link::XhrLink,
    session::{Put, Saying, Session, TEXTS_BYTES, Taken, Ticket},
    word::{Then, What, Word},
};
use crate::{
    problem::{Answer, problem, with},
    pusher::Caller,
    request::bad,
};

pub(crate) use stream::stream;

/// What the lines are called.
pub(crate) const MEDIA: &str = "application/javascript; charset=UTF-8";

/// After so long without a line a request receives `h`. Most sessions say it sooner: it is their heartbeat, too.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);

/// Longest time that a request takes: finding its session, a silence, and every question asked to the last.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Most texts of one request.
const TEXTS_AT_ONCE: usize = 100;

/// The client connects again at once.
const LOST: &str = "c[4200,\"Session is out of reach; connect again\"]\n";

/// What a request of a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Receives until the client has enough.
    Stream,
    /// Receives what there is.
    Poll,
    Send,
}

/// Where a request leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) purpose: Purpose,
    key: String,
    /// The application's key, and both parts of what the client named its session.
    name: Arc<str>,
}

impl Address {
    /// Reads `…/app/{key}/{server}/{session}/{purpose}`.
    pub(crate) fn at(path: &str) -> Option<Self> {
        let (path, purpose) = path.rsplit_once('/')?;
        let purpose = match purpose {
            "xhr_streaming" => Purpose::Stream,
            "xhr" => Purpose::Poll,
            "xhr_send" => Purpose::Send,
            _ => return None,
        };
        let (path, session) = path.rsplit_once('/')?;
        let (path, server) = path.rsplit_once('/')?;
        let (before, key) = path.rsplit_once('/')?;
        let is_word =
            |text: &str| (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        let is_session = before.ends_with("/app") && key.len() <= 128 && is_word(server) && is_word(session);
        is_session.then(|| Self {
            purpose,
            key: key.to_owned(),
            name: format!("{key}/{server}/{session}").into(),
        })
    }
}

/// The sessions of this process, and the way to those of others.
pub struct Fallback {
    neighbours: Arc<Neighbours>,
    stop: Stop,
    /// As many as there are connections without a socket.
    sessions: Mutex<HashMap<Arc<str>, Arc<Shared>>>,
    /// Requests that await answers of other nodes; at most as many as there are sockets.
    asking: Mutex<HashMap<u64, mpsc::Sender<(NodeId, Word)>>>,
    /// Where sessions of other nodes were found.
    known: Mutex<HashMap<Box<str>, NodeId>>,
    /// Sessions of other nodes that something was lost of while no node could be told.
    lost: Mutex<VecDeque<Arc<str>>>,
    number: AtomicU64,
    /// Words come and go since then.
    up_since: Mutex<Option<Instant>>,
}

/// A session, between its worker and its requests.
#[derive(Debug)]
pub(crate) struct Shared(Mutex<Session>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Session> {
        lock(&self.0)
    }
}

/// Where a request receives.
#[derive(Debug)]
pub(crate) struct Source {
    from: From,
    /// It has said how it ends. Otherwise the client has broken it off.
    left: bool,
    _guest: Guest,
}

#[derive(Debug)]
enum From {
    Here(Arc<Shared>, Ticket),
    Afar(Box<Afar>),
}

impl Fallback {
    /// Makes the fallback of a node. It is alone, unless it is the node's relay. `stop` is the process's.
    #[must_use]
    pub fn new(neighbours: &Arc<Neighbours>, stop: Stop) -> Arc<Self> {
        Arc::new(Self {
            neighbours: Arc::clone(neighbours),
            stop,
            sessions: Mutex::default(),
            asking: Mutex::default(),
            known: Mutex::default(),
            lost: Mutex::default(),
            number: AtomicU64::new(0),
            up_since: Mutex::default(),
        })
    }

    /// Finds the session of a request that receives, here or on another node, or begins it here.
    ///
    /// # Errors
    /// [`Refused`] for who is not let in.
    pub(crate) async fn receive(
        self: &Arc<Self>,
        worker: &Rc<Worker>,
        place: &Place,
        address: &Address,
        version: Option<&str>,
    ) -> Result<Source, Refused> {
        if let Some(session) = self.get(&address.name) {
            return Ok(self.attach(worker, session));
        }
        // For an application that nobody has, nobody is asked.
        if worker.node().apps().by_key(&address.key).is_some()
            && let Found::At(node) = Asking::new(self).find(&address.name).await
        {
            let from = From::Afar(Box::new(Afar::new(self, node, &address.name)));
            return Ok(Source { from, left: false, _guest: worker.guest() });
        }
        let place = worker.node().place_beside(place);
        let caller = Caller::admit(worker.node(), &place, &address.key, version);
        let caller = caller.map_err(|(refused, _protocol): (_, Protocol)| refused)?;
        let session = match lock(&self.sessions).entry(Arc::clone(&address.name)) {
            // Begun by another request meanwhile.
            Entry::Occupied(begun) => return Ok(self.attach(worker, Arc::clone(begun.get()))),
            Entry::Vacant(free) => {
                Arc::clone(free.insert(Arc::new(Shared(Mutex::new(Session::new(clock::now()))))))
            }
        };
        let source = self.attach(worker, Arc::clone(&session));
        let link =
            XhrLink::new(Arc::clone(self), Arc::clone(&address.name), Arc::clone(&session), caller.dialect());
        worker.open(Box::new(link), caller.opening(), place);
        spawn_local(async move {
            while let Some(until) = { session.lock().check(clock::now()) } {
                sleep_until(until.into()).await;
            }
        });
        Ok(source)
    }

    /// Takes what a client says, and answers once its session has it.
    pub(crate) async fn send(
        self: &Arc<Self>,
        worker: &Worker,
        address: &Address,
        body: &[u8],
        frame_max_bytes: usize,
    ) -> Answer {
        let texts = match texts(body, frame_max_bytes) {
            Ok(texts) => texts,
            Err(refusal) => return problem(&refusal),
        };
        let said = if let Some(session) = self.get(&address.name) {
            Some(session.lock().put(texts) == Put::Taken)
        } else if worker.node().apps().by_key(&address.key).is_none() {
            Some(false)
        } else {
            match Asking::new(self).find(&address.name).await {
                Found::At(node) => Asking::new(self).say(node, &address.name, texts).await,
                Found::Nowhere => Some(false),
                Found::Unknown => None,
            }
        };
        let (code, message) = match said {
            Some(true) => {
                let mut answer = Answer::default();
                *answer.status_mut() = StatusCode::NO_CONTENT;
                return answer;
            }
            Some(false) => (ErrorCode::NotFound, "there is no such session, or it ends"),
            None => {
                self.lose(&address.name);
                (ErrorCode::Unavailable, "the node that has the session does not answer")
            }
        };
        problem(&Refusal::new(code, message))
    }

    fn get(&self, name: &str) -> Option<Arc<Shared>> {
        lock(&self.sessions).get(name).map(Arc::clone)
    }

    fn forget(&self, name: &str) {
        lock(&self.sessions).remove(name);
    }

    fn attach(&self, worker: &Rc<Worker>, session: Arc<Shared>) -> Source {
        let ticket = Ticket { node: None, number: self.next_number() };
        let replaced = session.lock().attach(ticket);
        self.say(replaced);
        Source { from: From::Here(session, ticket), left: false, _guest: worker.guest() }
    }

    fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    fn say(&self, sayings: impl IntoIterator<Item = Saying>) {
        for (node, word) in sayings {
            word.say(&self.neighbours, Some(node));
        }
    }
}

impl Relay for Fallback {
    fn hear(&self, from: NodeId, word: &[u8]) {
        let Ok(word) = Word::decode(word) else { return };
        match word.what() {
            What::Find | What::Take | What::Took | What::Say => {
                let answers = match self.get(&word.name) {
                    Some(session) => session.lock().hear(from, &word, clock::now()),
                    None => vec![(from, word.answer(What::Lack))],
                };
                self.say(answers);
            }
            What::Have | What::Lack | What::Lines | What::Wait | What::Noted | What::Said => {
                if let Some(asking) = lock(&self.asking).get(&word.number) {
                    // It is asked for again.
                    let _too_many = asking.try_send((from, word)).is_err();
                }
            }
            What::Lost => {
                for session in word.texts.iter().filter_map(|name| self.get(name)) {
                    session.lock().end();
                }
            }
            What::Recall => self.tell_lost(Some(from)),
            What::Unknown => {}
        }
    }

    fn link_up(&self) {
        self.link_is_up();
    }
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback").finish_non_exhaustive()
    }
}

impl Source {
    /// Waits for lines until then.
    ///
    /// # Cancel safety
    /// Not safe: what was taken is lost.
    pub(crate) async fn take(&mut self, room: u64, until: Instant) -> Taken {
        match &mut self.from {
            From::Here(session, ticket) => {
                let taken = poll_fn(|cx| session.lock().poll_take(*ticket, room, cx));
                timeout_at(until.into(), taken).await.unwrap_or(Taken::Nothing)
            }
            From::Afar(afar) => afar.take(room, until).await,
        }
    }

    /// Says how the request ends.
    pub(crate) fn leave(&mut self, then: Then) {
        if !std::mem::replace(&mut self.left, true) {
            match &self.from {
                From::Here(session, ticket) => session.lock().leave(*ticket, then, clock::now()),
                From::Afar(afar) => afar.leave(then),
            }
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // For pusher-js the connection is broken, too.
        self.leave(Then::End);
    }
}

/// Answers a request that receives what there is.
pub(crate) async fn poll(mut source: Source) -> Answer {
    let now = clock::now();
    let taken = source.take(u64::MAX, now.checked_add(SILENCE).unwrap_or(now)).await;
    source.leave(Then::Leave);
    match taken {
        Taken::Lines { bytes, last: false } => lines(bytes),
        // Where the client comes back, another node may answer.
        Taken::Lines { bytes, last: true } => with(lines(bytes), CONNECTION, "close"),
        Taken::Nothing => lines(Bytes::from_static(b"h\n")),
        Taken::Over => with(lines(Bytes::from_static(LOST.as_bytes())), CONNECTION, "close"),
    }
}

/// Answers a request of who is not let in.
pub(crate) fn turn_away(refused: &Refused) -> Answer {
    lines(Bytes::from(format!("o\n{}", closing(refused.code, &refused.message))))
}

/// Returns the last line.
fn closing(code: u16, message: &str) -> String {
    format!("c{}\n", serde_json::json!([code, message]))
}

fn lines(bytes: Bytes) -> Answer {
    let answer = with(Response::new(Full::new(bytes)), CONTENT_TYPE, MEDIA);
    with(with(answer, CACHE_CONTROL, "no-store"), X_CONTENT_TYPE_OPTIONS, "nosniff")
}

/// Returns how large the body of a request that sends may be: a frame, with quotation marks escaped.
pub(crate) fn body_max_bytes(frame_max_bytes: usize) -> usize {
    frame_max_bytes.saturating_mul(2).saturating_add(4 * 1024).min(TEXTS_BYTES)
}

fn texts(body: &[u8], frame_max_bytes: usize) -> Result<Vec<String>, Refusal> {
    let texts: Vec<String> = serde_json::from_slice(body)
        .map_err(|_fault| bad("the body is a JSON array of frames, each as a string".to_owned()))?;
    if texts.len() > TEXTS_AT_ONCE || texts.iter().any(|text| text.len() > frame_max_bytes) {
        let message = format!(
            "at most {TEXTS_AT_ONCE} frames are sent at once, each of at most {frame_max_bytes} bytes"
        );
        return Err(Refusal::new(ErrorCode::TooLarge, message));
    }
    Ok(texts)
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_found_below_any_path() {
        let at = |path| Address::at(path).map(|address| (address.purpose, address.name.to_string()));
        let named = |purpose| Some((purpose, "key/12/0a1b2c3d".to_owned()));
        for (path, expected) in [
            ("/app/key/12/0a1b2c3d/xhr_streaming", named(Purpose::Stream)),
            ("/pusher/app/key/12/0a1b2c3d/xhr", named(Purpose::Poll)),
            ("/a/b/app/key/12/0a1b2c3d/xhr_send", named(Purpose::Send)),
            ("/app/key/12/0a1b2c3d/xhr_poll", None),
            ("/app/key/12/xhr", None),
            ("/apps/key/12/0a1b2c3d/xhr", None),
            ("/app/key//0a1b2c3d/xhr", None),
            ("/app/key/12/0a1b2c3d/xhr/", None),
            ("/app/key/12/0a1b%2f3d/xhr", None),
            ("/app/key/12/0123456789abcdef0123456789abcdef0/xhr", None),
        ] {
            assert_eq!(at(path), expected, "{path}");
        }
    }

    #[test]
    fn the_last_line_is_json_whatever_it_says() {
        assert_eq!(closing(4001, "App key \"\n\" not here"), "c[4001,\"App key \\\"\\n\\\" not here\"]\n");
    }

    #[test]
    fn only_arrays_of_frames_are_taken() {
        let code = |body: &str| texts(body.as_bytes(), 4).map_err(|refusal| refusal.code);
        assert_eq!(code("[]"), Ok(vec![]));
        assert_eq!(code(r#"["a\u00e4", "1234"]"#), Ok(vec!["aä".to_owned(), "1234".to_owned()]));
        for bad in ["", "{}", "\"a\"", "[1]", "[[\"a\"]]", "[\"a\"", "[\"a\"] x", "[\"\\ud800\"]", "\u{0}"] {
            assert_eq!(code(bad), Err(ErrorCode::BadRequest), "{bad:?}");
        }
        assert_eq!(code(r#"["12345"]"#), Err(ErrorCode::TooLarge));
        let many = serde_json::to_string(&vec![""; TEXTS_AT_ONCE + 1]).expect("it is JSON");
        assert_eq!(code(&many), Err(ErrorCode::TooLarge));
    }
}
