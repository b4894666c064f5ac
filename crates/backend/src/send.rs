//! A lane's sender: takes work, tells it until it is accepted or too old, takes what follows.
//!
//! **Lives here:** the loop, the signature, giving up.
//! **Called by:** `webhooks`, which starts one for each lane.
//! **Must not know:** HTTP, where work is kept.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use carillon_broker::{LEASE, Lane, Work, WorkQueue};
use carillon_model::UnixMillis;
use carillon_tasks::{Phase, Stop, clock};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use tokio::time::{sleep, sleep_until};

use crate::{
    call::{Caller, Letter, Outcome},
    event,
    meters::Meters,
    schedule::Schedule,
};

/// Events of one request, where several may go into one, and how long it waits for them.
const BATCH: usize = 50;
const GATHER: Duration = Duration::from_millis(500);
/// How often work in hand is kept: three times a lease.
const KEEP: Duration = Duration::from_secs(LEASE.as_secs() / 3);
/// For how long work is certainly ours after the queue has said so; it says so a moment before we hear it.
const OURS: Duration = LEASE.saturating_sub(KEEP);
/// How long to wait for a queue that cannot be reached, on average.
const PAUSE: Duration = Duration::from_secs(1);
/// After so many failures in a row it is said that the queue cannot be reached.
const FAILURES_TOLD: u32 = 10;
/// An endpoint that works now and then is not told of more often.
const TROUBLE_QUIET: Duration = Duration::from_mins(1);
/// How often the queue is told that work is done. Then it is told again by whoever takes it next.
const DONE_ATTEMPTS: usize = 10;

/// Who signs, and how.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    pub(crate) key: String,
    pub(crate) secret: String,
}

/// What the log knows of an endpoint; its lanes share it.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// It was told that the endpoint fails, and it has not worked since.
    failing: bool,
    told_at: Option<Instant>,
}

/// One lane's sender.
pub(crate) struct Sender {
    pub(crate) lane: Lane,
    pub(crate) batch: bool,
    pub(crate) signer: Signer,
    /// The application's host, for the log.
    pub(crate) host: String,
    pub(crate) trouble: Arc<Trouble>,
    pub(crate) queue: Arc<dyn WorkQueue>,
    pub(crate) caller: Caller,
    pub(crate) meters: Arc<Meters>,
}

impl Sender {
    /// Tells what is put into the lane, until the process is cut.
    pub(crate) async fn run(mut self, stop: Stop) {
        tokio::select! {
            () = stop.reached(Phase::Cut) => {}
            () = self.tell_all() => {}
        }
    }

    async fn tell_all(&mut self) {
        let at_most = if self.batch { BATCH } else { 1 };
        let mut failures = 0_u32;
        loop {
            match self.queue.take(self.lane, at_most, GATHER).await {
                Ok(Some(work)) => {
                    failures = 0;
                    let count = work.bodies.len() as f64;
                    self.meters.waiting.increment(count);
                    self.tell(&work).await;
                    self.meters.waiting.decrement(count);
                }
                Ok(None) => {
                    failures = 0;
                    self.caller.hang_up();
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    // The broker says itself that its link is down.
                    if failures == FAILURES_TOLD {
                        tracing::warn!(lane = %self.lane, %error, "webhooks cannot be taken from the queue; still trying");
                    }
                    sleep(jittered(PAUSE)).await;
                }
            }
        }
    }

    async fn tell(&mut self, work: &Work) {
        let count = u64::try_from(work.bodies.len()).unwrap_or(u64::MAX);
        let Some((body, happened)) = event::join(&work.bodies) else {
            self.meters.unreadable.increment(count);
            tracing::error!(lane = %self.lane, "the webhooks' queue holds what no node has put there");
            return self.done(work).await;
        };
        let letter = self.signer.sign(body);
        let (queue, mut schedule) = (Arc::clone(&self.queue), Schedule::new());
        let mut kept = Kept { queue: &*queue, work, at: clock::now() };
        loop {
            let begun = clock::now();
            let Some(outcome) = kept.while_doing(self.caller.post(&letter)).await else { return };
            self.meters.called(&outcome, clock::now().duration_since(begun));
            if outcome == Outcome::Accepted {
                self.trouble.ends();
                self.meters.told.increment(count);
                return self.done(work).await;
            }
            let age = now().since(happened);
            let Some(pause) = schedule.pause(age, random()) else {
                self.meters.refused.increment(count);
                tracing::warn!(host = self.host, %outcome, events = count, "webhooks were given up");
                return self.done(work).await;
            };
            if self.trouble.begins(clock::now()) {
                tracing::warn!(host = self.host, %outcome, "webhooks fail; still trying");
            } else {
                tracing::debug!(host = self.host, %outcome, ?pause, "a webhook failed");
            }
            if kept.while_doing(sleep(pause)).await.is_none() {
                return;
            }
            self.meters.retries.increment(1);
        }
    }

    async fn done(&mut self, work: &Work) {
        for _ in 0..DONE_ATTEMPTS {
            match self.queue.done(work).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(lane = %self.lane, %error, "the queue does not know yet that webhooks were sent");
                }
            }
            sleep(jittered(PAUSE)).await;
        }
        tracing::warn!(lane = %self.lane, "the queue was not told that webhooks were sent; they may be sent again");
    }
}

impl Trouble {
    /// Notes that the endpoint failed at `now`. Says whether that is to be told: once until it works, and once in
    /// [`TROUBLE_QUIET`].
    fn begins(&self, now: Instant) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = known.told_at.is_some_and(|then| now.saturating_duration_since(then) < TROUBLE_QUIET);
        let due = !known.failing && !quiet;
        if due {
            *known = Known { failing: true, told_at: Some(now) };
        }
        due
    }

    /// Notes that the endpoint works.
    fn ends(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).failing = false;
    }
}

/// Work that stays ours.
struct Kept<'a> {
    queue: &'a dyn WorkQueue,
    work: &'a Work,
    /// When the queue last said that it is ours.
    at: Instant,
}

impl Kept<'_> {
    /// Does `doing` and keeps the work meanwhile. `None` when it may be somebody else's by now, as the queue could not
    /// be reached or this process stood still: what was sent now could come after what follows it in the lane.
    async fn while_doing<T>(&mut self, doing: impl Future<Output = T>) -> Option<T> {
        let mut doing = std::pin::pin!(doing);
        let mut keep_at = self.at + KEEP;
        while clock::now() < self.at + OURS {
            tokio::select! {
                biased;
                done = &mut doing => return Some(done),
                () = sleep_until(keep_at.into()) => {}
            }
            let begun = clock::now();
            let kept = begun < self.at + OURS && self.queue.keep(self.work).await.is_ok();
            if kept {
                self.at = begun;
            }
            keep_at = if kept { begun + KEEP } else { clock::now() + jittered(PAUSE) };
        }
        tracing::warn!("webhooks are left to another node, as the queue did not answer for too long");
        None
    }
}

impl Signer {
    fn sign(&self, body: Bytes) -> Letter {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).expect("any length is a key");
        mac.update(&body);
        let mut signature = String::with_capacity(64);
        for byte in mac.finalize().into_bytes() {
            write!(signature, "{byte:02x}").expect("writing to a string does not fail");
        }
        Letter { key: self.key.clone(), signature, body }
    }
}

pub(crate) fn now() -> UnixMillis {
    UnixMillis::new(u64::try_from(clock::since_1970().as_millis()).unwrap_or(u64::MAX))
}

/// Returns a number of 0 to 1. Without a source of randomness all that is lost is the spreading.
fn random() -> f64 {
    f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX)
}

/// Returns between half of `average` and half as much again.
pub(crate) fn jittered(average: Duration) -> Duration {
    average.mul_f64(0.5 + random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_fails_is_told_of_once_until_it_works() {
        let (trouble, now) = (Trouble::default(), clock::now());
        assert!(trouble.begins(now));
        assert!(!trouble.begins(now + TROUBLE_QUIET), "it was told");
        trouble.ends();
        assert!(!trouble.begins(now + TROUBLE_QUIET - Duration::from_millis(1)), "so soon");
        assert!(trouble.begins(now + TROUBLE_QUIET));
    }

    #[test]
    fn the_signature_is_that_of_the_protocol() {
        // RFC 4231, case 2.
        let signer = Signer { key: "k".to_owned(), secret: "Jefe".to_owned() };
        let letter = signer.sign(Bytes::from_static(b"what do ya want for nothing?"));
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!((letter.key.as_str(), letter.signature.as_str()), ("k", expected));
    }
}
