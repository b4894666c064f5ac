//! The audit of a whole run.
//!
//! **Lives here:** going through every client and channel, counting what is found.
//! **Called by:** `chaos`, tests of the checker.
//! **Must not know:** the rules of one subscription.

use super::{Fault, Past, Reason, Run, Seen, Verdict, Violation, publications::Publications, walk::Walk};

/// Violations of one kind that are kept; the others are counted.
const KEPT: u64 = 5;

/// Audits a run.
#[must_use]
pub fn audit(run: &Run) -> Verdict {
    let mut verdict = Verdict::default();
    let publications = Publications::gather(run, &mut |violation| verdict.add(violation));
    verdict.stale = publications.stale;
    for (client, story) in run.clients.iter().enumerate() {
        for channel in &story.channels {
            let Some(facts) = run.channels.get(usize::from(*channel)) else { continue };
            let mut walk = Walk::new(&publications, *channel);
            let mut wrong = |place, (fault, text): (Fault, String)| {
                let place = Some((client, place));
                verdict.add(Violation { fault, place, channel: *channel, text });
            };
            for (place, event) in story.events.iter().enumerate() {
                if event.seen.channel().is_none_or(|of| of == *channel) {
                    walk.step(place, &event.seen, &mut wrong);
                }
            }
            walk.end(facts.last, story.events.len().saturating_sub(1), &mut wrong);
        }
        for (place, event) in story.events.iter().enumerate() {
            verdict.look(run, (client, place), &event.seen);
        }
    }
    verdict
}

impl Verdict {
    fn add(&mut self, violation: Violation) {
        let count = self.counts.entry(violation.fault).or_default();
        *count += 1;
        if *count <= KEPT {
            self.first.push(violation);
        }
    }

    /// What can be said of an event by itself.
    fn look(&mut self, run: &Run, place: (usize, usize), seen: &Seen) {
        let (client, _) = place;
        match seen {
            Seen::Message { what, .. } => {
                self.deliveries += 1;
                if !run.clients.get(client).is_some_and(|story| story.channels.contains(&what.channel)) {
                    self.add(Violation {
                        fault: Fault::NotSubscribed,
                        place: Some(place),
                        channel: what.channel,
                        text: "a message of a channel that was never asked for".to_owned(),
                    });
                }
            }
            Seen::Gap { channel, .. } => self.told(run, place, *channel, Reason::Gap),
            Seen::Subscribed { channel, past: Past::Lost(reason), .. } => {
                self.told(run, place, *channel, *reason);
            }
            Seen::Subscribed { past: Past::Recovered(replayed), .. } => {
                self.recovered.0 += 1;
                self.recovered.1 += u64::from(*replayed);
            }
            Seen::Nonsense => self.add(Violation {
                fault: Fault::FalseAnswer,
                place: Some(place),
                channel: u16::MAX,
                text: "something that is not in the protocol".to_owned(),
            }),
            Seen::Subscribed { past: Past::NotAsked, .. }
            | Seen::Connected
            | Seen::Unsubscribed { .. }
            | Seen::Disconnected => {}
        }
    }

    fn told(&mut self, run: &Run, place: (usize, usize), channel: u16, reason: Reason) {
        let may_lose = run.channels.get(usize::from(channel)).is_some_and(|channel| channel.may_lose);
        *self.told.entry((may_lose, reason)).or_default() += 1;
        if !may_lose && reason.needs_a_deletion() {
            let text = format!("told of a loss ({reason}), and nothing was deleted");
            self.add(Violation { fault: Fault::NeedlessLoss, place: Some(place), channel, text });
        }
    }
}
