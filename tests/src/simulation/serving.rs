//! Where streams are kept: what nodes are sent and answered, and what is true of what they tell their clients.
//!
//! **Lives here:** the feed with its faults, answers with theirs.
//! **Called by:** the world.
//! **Must not know:** what nodes make of it.

use carillon_broker::{RecoverError, Stored};
use carillon_model::Since;
use carillon_session::Recovered;

use super::{
    agenda::{Agenda, Claim, Event, Here, MS, NodeEvent, SECOND, ServerEvent, TailAnswer},
    world::World,
};

impl World {
    /// Sends a message that was stored to every node that listens.
    pub(super) fn republish(&mut self, stream: usize, stored: &Stored) {
        let Self { agenda, feeds, nodes, .. } = self;
        for feed in feeds.iter_mut().filter(|feed| feed.stream == stream) {
            let node = nodes.get(feed.here.node).and_then(Option::as_ref);
            let Some(link) = node.filter(|node| node.here == feed.here).map(|node| node.link) else {
                continue;
            };
            if !link.up {
                continue;
            }
            let send = |at: u64, agenda: &mut Agenda| {
                let stored = Box::new(stored.clone());
                let event = NodeEvent::Feed { stream, feed: feed.number, link: link.generation, stored };
                agenda.on(at, Event::Node(feed.here, event));
            };
            let (lose, double, late) =
                (agenda.plan.faults.lose, agenda.plan.faults.double, agenda.plan.faults.late);
            let delay = agenda.draw(agenda.plan.faults.feed_delay);
            let at = feed.arrives.max(feed.stalled_until).max(agenda.now + delay);
            if agenda.now < feed.faithful_until {
                feed.arrives = at;
                send(at, agenda);
                continue;
            }
            if agenda.chance(lose) {
                continue;
            }
            if agenda.chance(double) {
                let again = at + agenda.draw(SECOND);
                send(again, agenda);
            }
            if agenda.chance(late) {
                let late = at + agenda.draw(2 * SECOND);
                send(late, agenda);
            } else {
                feed.arrives = at;
                send(at, agenda);
            }
        }
    }

    /// Answers a node, if it is linked.
    pub(super) fn serve(&mut self, here: Here, question: ServerEvent) {
        let silence = self.agenda.plan.faults.silence;
        let linked = self.at(here).is_some_and(|(node, _)| node.link.up);
        let silent = !linked || self.agenda.chance(silence);
        let slow = self.agenda.chance(silence);
        let delay = self.agenda.draw(if slow { 1500 * MS } else { 5 * MS });
        let now = self.agenda.now;
        for stream in &mut self.streams {
            stream.trim(now);
        }
        let answer = match question {
            ServerEvent::Read { key, number, channel, since, head } => {
                let stream = &self.streams[self.agenda.plan.channels[channel].stream];
                let read = stream.read(channel, since, head, self.agenda.plan.replay);
                let answer = Box::new(if silent { Err(RecoverError::Unavailable) } else { read });
                NodeEvent::Read { key, number, answer }
            }
            ServerEvent::Tail { .. } | ServerEvent::Fetch { .. } if silent => return,
            ServerEvent::Fetch { stream, ask, from, to } => {
                let last = self.streams[stream].last();
                let has = last.saturating_sub(self.behind());
                let answer = self.streams[stream].fetch(from.get(), to.get(), has);
                NodeEvent::Fetched { stream, ask, answer }
            }
            ServerEvent::Tail { stream, ask, hear, renew, proven, witnesses } => {
                if let Some(number) = hear {
                    self.listen(here, stream, number);
                }
                if let Some(seen) = renew
                    && self.streams[stream].renew(seen, now)
                {
                    let (epoch, life) = (self.streams[stream].epoch(), self.streams[stream].life);
                    self.agenda.note(|| format!("stream {stream} is renewed to {epoch}"));
                    self.truth.claim(epoch, life);
                }
                let leader = self.streams[stream].leader;
                // The leader may not be ready yet.
                let behind = self.behind();
                let tail = self.streams[stream].tail(&witnesses, proven == Some(leader), behind);
                NodeEvent::Tail { stream, ask, answer: Some(TailAnswer { tail, leader, feed: hear }) }
            }
        };
        self.agenda.later(delay, Event::Node(here, answer));
    }

    /// Draws by how much an answer is behind.
    fn behind(&mut self) -> u64 {
        let lag = self.agenda.plan.faults.lag;
        if self.agenda.chance(lag) { 1 + self.agenda.dice.below(4) } else { 0 }
    }

    /// Compares what a client is about to be told with what is true.
    pub(super) fn check_claim(&mut self, claim: &Claim) {
        let Claim { channel, since, position, recovered } = *claim;
        let stream = &self.streams[self.agenda.plan.channels[channel].stream];
        let epoch = stream.epoch();
        let certain = position.epoch == epoch && self.truth.life_of(epoch) == Some(stream.life);
        let Recovered::All { replayed } = recovered else { return };
        if !certain {
            return;
        }
        let before = position.offset.get();
        let wrong = match since {
            Since::Now => None,
            Since::After(after) if after.offset.get() > stream.last() => {
                Some("the stream never got there".to_owned())
            }
            Since::After(_) => None,
            Since::Oldest => {
                let older = stream.count(channel, |place, _| place <= before);
                (older > 0).then(|| format!("{older} older ones are kept"))
            }
            Since::Last(count) => {
                let older = stream.count(channel, |place, _| place <= before);
                (replayed > count || (replayed < count && older > 0))
                    .then(|| format!("{older} more are kept"))
            }
            Since::Time(time) => {
                let older = stream.count(channel, |place, at| place <= before && at >= time);
                (older > 0).then(|| format!("{older} more of that time are kept"))
            }
        };
        if let Some(what) = wrong {
            self.agenda.wrong(|| format!("channel {channel} is replayed by {claim:?}, but {what}"));
        }
    }
}
