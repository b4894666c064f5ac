//! One long poll (NATIVE_PROTOCOL §6): a listener without a socket, whose answer leaves when there is something in it.
//!
//! **Lives here:** what a poll gathers, how long it waits, its answer.
//! **Called by:** `visit` makes one for each request; a worker drives the link like any other.
//! **Must not know:** HTTP but for the answer's head, what the texts say but for the few that end the wait.
//!
//! Nothing is kept between two polls: the client brings the cursor, and whoever lost an answer asks again.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use carillon_dialect_native::{Cursor, Native};
use carillon_hub::Render as _;
use carillon_model::{ChannelName, ErrorCode, Form, Position, Publication, Refusal, Since};
use carillon_node::{Heard, Lead, Link, Received, Said};
use carillon_session::{Dialect, Wanted};
use carillon_tasks::clock;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ETAG, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};
use tokio::{sync::Notify, time::timeout_at};

use crate::{
    problem::{Answer, problem, with},
    render::Renderer,
    standing::Standing,
};

/// After the first message, for how long others may join it.
const LINGER: Duration = Duration::from_millis(20);

/// For how long a poll waits for the answers to what it asks for, even one that waits for no message.
pub(crate) const SETTLE_PATIENCE: Duration = Duration::from_secs(10);

/// Most bytes of messages in one answer, unless one alone is larger; the next poll brings the rest. What is not taken
/// stays in memory until it is, or the socket is given up.
const ANSWER_MAX_BYTES: usize = 512 * 1024;

/// What a poll asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// How long to wait for a message.
    pub(crate) timeout: Duration,
    /// Most messages in the answer.
    pub(crate) limit: usize,
    /// It names no place to go on from: it wants to know where it is.
    pub(crate) is_first: bool,
    /// An answer without news may be 304.
    pub(crate) conditional: bool,
}

/// What was gathered for one poll, shared by its link and its request.
#[derive(Debug)]
struct Basket {
    gathered: RefCell<Gathered>,
    changed: Notify,
    /// The request is over: so is the link.
    ended: Cell<bool>,
    link: RefCell<Option<Waker>>,
}

#[derive(Debug)]
struct Gathered {
    /// Messages, each with a comma behind it.
    messages: Vec<u8>,
    count: usize,
    limit: usize,
    /// There was more than the limit.
    more: bool,
    /// Control objects, each with a comma behind it.
    control: String,
    standing: Standing,
    /// Channels whose place the client named: it waits for news of those.
    named: Vec<ChannelName>,
    /// Something that the client should know at once.
    urgent: bool,
    course: Course,
}

/// How far a poll is, on the worker's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// Not everything that was asked for was answered.
    Asking,
    /// Everything was.
    Settled,
    /// It was ended after that.
    Over,
    /// It was ended before.
    Cut,
}

/// The worker's side.
#[derive(Debug)]
pub(crate) struct PollLink(Rc<Basket>);

/// The request's side. Whatever becomes of the request, the link ends with it.
#[derive(Debug)]
pub(crate) struct Waiting {
    basket: Rc<Basket>,
    wish: Wish,
}

/// Makes both sides of a poll.
pub(crate) fn poll(wanted: &[Wanted], wish: Wish) -> (PollLink, Waiting) {
    let named = wanted.iter().filter(|one| one.since != Since::Now).map(|one| one.channel.clone());
    let gathered = Gathered {
        messages: Vec::new(),
        count: 0,
        limit: wish.limit,
        more: false,
        control: String::new(),
        standing: Standing::new(wanted),
        named: named.collect(),
        urgent: wish.is_first,
        course: Course::Asking,
    };
    let basket = Rc::new(Basket {
        gathered: RefCell::new(gathered),
        changed: Notify::new(),
        ended: Cell::new(false),
        link: RefCell::default(),
    });
    (PollLink(Rc::clone(&basket)), Waiting { basket, wish })
}

impl Waiting {
    /// Waits until there is something to answer, and answers.
    ///
    /// # Cancel safety
    /// Safe: the link ends, and the same request brings the same messages.
    pub(crate) async fn answer(self) -> Answer {
        let began = clock::now();
        let after = |wait| began.checked_add(wait).unwrap_or(began);
        let (late, unanswered) = (after(self.wish.timeout), after(self.wish.timeout.max(SETTLE_PATIENCE)));
        let mut linger = None;
        loop {
            let now = clock::now();
            let until = match self.next(&mut linger, late, now) {
                Next::Answer => return self.basket.gathered.borrow_mut().answer(self.wish.conditional),
                Next::Never => return unsettled(),
                Next::Settle if unanswered <= now => return unsettled(),
                Next::Settle => unanswered,
                Next::Message(until) => until,
            };
            // Either way it looks again.
            let _late = timeout_at(until.into(), self.basket.changed.notified()).await.is_err();
        }
    }

    fn next(&self, linger: &mut Option<Instant>, late: Instant, now: Instant) -> Next {
        let gathered = self.basket.gathered.borrow();
        match gathered.course {
            // Without all answers, a cursor could forget a channel.
            Course::Asking => return Next::Settle,
            Course::Cut => return Next::Never,
            Course::Over => return Next::Answer,
            Course::Settled => {}
        }
        let until = if gathered.count == 0 {
            late
        } else {
            (*linger.get_or_insert_with(|| now.checked_add(LINGER).unwrap_or(now))).min(late)
        };
        let enough = gathered.urgent || gathered.more || gathered.count >= gathered.limit;
        if enough || until <= now { Next::Answer } else { Next::Message(until) }
    }
}

/// What a poll waits for.
enum Next {
    /// The answers to what it asks for.
    Settle,
    /// A message, or another one, until then.
    Message(Instant),
    /// Nothing: it can be answered.
    Answer,
    /// Nothing: the worker has ended it before it could be answered.
    Never,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.basket.ended.set(true);
        if let Some(link) = self.basket.link.take() {
            link.wake();
        }
    }
}

impl Gathered {
    fn answer(&mut self, conditional: bool) -> Answer {
        // A client without a place comes back with an empty cursor: then it waits.
        let cursor = self.standing.text().unwrap_or_else(|| Cursor::default().text());
        let etag = HeaderValue::try_from(format!("\"{cursor}\""));
        let is_over = self.course == Course::Over;
        let has_news = self.count > 0 || self.urgent || is_over;
        let mut answer = if conditional && !has_news {
            let mut answer = Response::new(Full::default());
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            answer
        } else {
            with(Response::new(Full::new(self.body(&cursor))), CONTENT_TYPE, "application/json")
        };
        // Ids and cursors are plain ASCII.
        if let Ok(etag) = etag {
            answer.headers_mut().insert(ETAG, etag);
        }
        if is_over {
            // Where it comes back, another node may answer.
            answer = with(answer, CONNECTION, "close");
        }
        with(with(answer, CACHE_CONTROL, "no-store"), X_CONTENT_TYPE_OPTIONS, "nosniff")
    }

    fn body(&mut self, cursor: &str) -> Bytes {
        let mut body = Vec::with_capacity(self.messages.len() + self.control.len() + cursor.len() + 64);
        body.extend_from_slice(format!("{{\"cursor\":\"{cursor}\",\"messages\":[").as_bytes());
        let _comma = self.messages.pop();
        body.append(&mut self.messages);
        let _comma = self.control.pop();
        body.extend_from_slice(
            format!("],\"more\":{},\"control\":[{}]}}", self.more, self.control).as_bytes(),
        );
        Bytes::from(body)
    }

    /// Takes something that is said to this client alone.
    fn hear(&mut self, text: &str) {
        if text.starts_with(r#"{"type":"welcome""#) {
            return;
        }
        // Inside a text, quotation marks would be escaped.
        self.urgent |= text.starts_with(r#"{"type":"gap""#) || text.contains(r#","recovered":false"#);
        self.control.push_str(text);
        self.control.push(',');
    }
}

/// What was asked for could not be had in time: the same poll may be answered by another node.
fn unsettled() -> Answer {
    let message = "what was asked for could not be had in time; send the same request again";
    let refusal = Refusal::new(ErrorCode::Unavailable, message).retry_after(Duration::from_secs(1));
    with(problem(&refusal), CONNECTION, "close")
}

impl Link for PollLink {
    fn form(&self) -> Form {
        Form::NativePoll
    }

    fn dialect(&self) -> &'static dyn Dialect {
        &Native
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let course = self.0.gathered.borrow().course;
        if self.0.ended.get() || matches!(course, Course::Over | Course::Cut) {
            return Poll::Ready(Ok(()));
        }
        *self.0.link.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_writable(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn receive(&mut self, _scratch: &mut [u8], _hear: &mut dyn FnMut(Heard)) -> io::Result<Received> {
        // It is only readable at its end.
        Ok(Received::End)
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // They were gathered in the moment in which the place moved past them.
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn wrap(&mut self, said: Said) -> Bytes {
        let mut gathered = self.0.gathered.borrow_mut();
        match said {
            Said::Text(text) | Said::Goodbye(text, _) => gathered.hear(&text),
            Said::Ping => {}
            Said::Close(_) => {
                let settled = gathered.course == Course::Settled;
                gathered.course = if settled { Course::Over } else { Course::Cut };
            }
        }
        self.0.changed.notify_one();
        Bytes::new()
    }

    fn lead(&mut self, publication: &Publication) -> Lead {
        let mut gathered = self.0.gathered.borrow_mut();
        let form = Form::NativePoll;
        let frame = publication.frames.get_or_make(form, || Renderer.frame(form, publication));
        let is_too_much = gathered.count > 0 && gathered.messages.len() + frame.len() > ANSWER_MAX_BYTES;
        self.0.changed.notify_one();
        // After one that was left for the next answer everything is: a smaller one would overtake it.
        if gathered.more || is_too_much || gathered.count >= gathered.limit {
            gathered.more = true;
            return Lead::Enough;
        }
        gathered.messages.extend_from_slice(frame);
        gathered.count += 1;
        if let Some(position) = publication.position {
            gathered.standing.stand(&publication.message.channel, position);
        }
        Lead::Nothing
    }

    fn stand(&mut self, channel: &ChannelName, position: Position) {
        let mut gathered = self.0.gathered.borrow_mut();
        gathered.standing.stand(channel, position);
        // Otherwise the client could not come back to this place.
        gathered.urgent |= !gathered.named.contains(channel);
    }

    fn settle(&mut self) {
        let mut gathered = self.0.gathered.borrow_mut();
        gathered.standing.settle();
        if gathered.course == Course::Asking {
            gathered.course = Course::Settled;
        }
        self.0.changed.notify_one();
    }
}
