//! A client: what it asks, how it reads, and what it makes of every line.
//!
//! It holds what it is sent against what is true: from the first `subscribed` on, every message after the place where
//! it stands, in order, once, or word in that place that it cannot be had. Where more than one life of a stream
//! claims an epoch, nobody can say what is missing; that epoch is soon over, and every client must be told so.
//!
//! **Lives here:** one client's view, and the verdict on each line.
//! **Called by:** the world, when a client connects, reads, acts, loses its connection.
//! **Must not know:** nodes.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use carillon_model::{Epoch, Offset, Overflow, Position, Since, UnixMillis};
use carillon_session::Recovered;

use super::{
    agenda::{Agenda, Here, MS},
    connection::Socket,
    frame::{self, Line},
    truth::Truth,
};

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) number: usize,
    /// The connection, while there is one.
    pub(super) wire: Option<Wire>,
    pub(super) tracks: Vec<Track>,
    /// It reads so many bytes at a time, and so often.
    pub(super) bite: usize,
    pub(super) pause: u64,
    pub(super) mute_until: u64,
    /// When its last word arrives: words do not overtake each other.
    pub(super) said_at: u64,
    /// A line that has not come whole yet.
    text: Vec<u8>,
}

/// Where it is connected.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) here: Here,
    pub(super) socket: Rc<RefCell<Socket>>,
}

/// What a client knows of one channel.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// What it asked on this connection and was not answered.
    asked: VecDeque<Asked>,
    /// It wants to be subscribed, or not.
    pub(super) wanted: bool,
    /// It is, as far as it knows.
    on: bool,
    /// Everything of the channel up to here it was sent, or told of.
    pub(super) stand: Option<Position>,
    /// Messages of the replay that are yet to come.
    replays: u32,
}

/// A question about one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Subscribe(Since),
    Unsubscribe,
}

impl Client {
    pub(super) fn new(number: usize, agenda: &mut Agenda) -> Self {
        let slow = agenda.dice.once_in(4);
        Self {
            number,
            wire: None,
            tracks: (0..agenda.plan.channels.len())
                .map(|channel| Track { wanted: channel == 0 || agenda.dice.once_in(2), ..Track::default() })
                .collect(),
            bite: if slow { 10 + agenda.dice.place(300) } else { 1 << 16 },
            pause: if slow { 100 * MS + agenda.draw(600 * MS) } else { 20 * MS + agenda.draw(40 * MS) },
            mute_until: 0,
            said_at: 0,
            text: Vec::new(),
        }
    }

    /// Chooses from where on it wants a channel, and remembers that it asked.
    pub(super) fn subscribe(&mut self, channel: usize, agenda: &mut Agenda) -> Since {
        let stand = self.tracks[channel].stand;
        let strange = agenda.dice.once_in(if agenda.calm { 1 << 40 } else { 8 });
        let since = match stand {
            Some(stand) if !strange => Since::After(stand),
            Some(stand) if agenda.dice.once_in(2) => Since::After(tampered(stand, agenda)),
            Some(_) | None => match agenda.dice.below(5) {
                0 => Since::Oldest,
                1 => Since::Last(u32::try_from(agenda.dice.below(6)).unwrap_or(0)),
                2 => Since::Time(UnixMillis::new((agenda.now / MS).saturating_sub(agenda.dice.below(8000)))),
                _ => Since::Now,
            },
        };
        self.tracks[channel].asked.push_back(Asked::Subscribe(since));
        since
    }

    pub(super) fn unsubscribe(&mut self, channel: usize) {
        self.tracks[channel].asked.push_back(Asked::Unsubscribe);
    }

    /// Forgets what the connection was about.
    pub(super) fn disconnect(&mut self) {
        self.wire = None;
        self.text.clear();
        for track in &mut self.tracks {
            track.asked.clear();
            track.on = false;
            track.replays = 0;
        }
    }

    /// Reads what came, and says whether the server has ended the connection.
    pub(super) fn read(
        &mut self,
        bytes: impl Iterator<Item = u8>,
        truth: &Truth,
        agenda: &mut Agenda,
    ) -> bool {
        for byte in bytes {
            if byte != b'\n' {
                self.text.push(byte);
                continue;
            }
            let text = String::from_utf8_lossy(&std::mem::take(&mut self.text)).into_owned();
            agenda.note(|| format!("client {} reads {}", self.number, text.trim_end_matches('.')));
            let Some(line) = frame::read(&text) else {
                agenda.wrong(|| format!("client {} was sent {text:?}", self.number));
                return true;
            };
            match line {
                Line::Close => return true,
                Line::Goodbye | Line::Other => {}
                Line::Message { channel, position, number } => {
                    self.judge(channel, agenda, |track, agenda| {
                        track.message(channel, position, number, truth, agenda)
                    });
                }
                Line::Subscribed { channel, position, recovered } => {
                    self.judge(channel, agenda, |track, agenda| {
                        track.subscribed(channel, position, recovered, truth, agenda)
                    });
                }
                Line::Gap { channel, position } => {
                    let overflow = agenda.plan.channels[channel].overflow;
                    self.judge(channel, agenda, |track, agenda| track.gap(position, overflow, agenda));
                }
                Line::Unsubscribed { channel } => {
                    self.judge(channel, agenda, |track, _| track.unsubscribed());
                }
            }
        }
        false
    }

    fn judge(
        &mut self,
        channel: usize,
        agenda: &mut Agenda,
        verdict: impl FnOnce(&mut Track, &mut Agenda) -> Result<(), String>,
    ) {
        if let Err(what) = verdict(&mut self.tracks[channel], agenda) {
            agenda.wrong(|| format!("client {} on channel {channel}: {what}", self.number));
        }
    }

    /// Says what it lacks in the end, if anything.
    pub(super) fn lacks(&self, channel: usize, life: usize, epoch: Epoch, truth: &Truth) -> Option<String> {
        let track = &self.tracks[channel];
        if !track.wanted {
            return None;
        }
        let lack = match track.stand {
            _ if !track.on => "is not subscribed".to_owned(),
            _ if track.replays > 0 => format!("waits for {} of its replay", track.replays),
            None => "stands nowhere".to_owned(),
            Some(stand) if stand.epoch != epoch => format!("stands at {stand}, and the epoch is {epoch}"),
            Some(stand) => {
                let last = truth.between(life, channel, stand.offset.get(), u64::MAX)?;
                format!("stands at {stand}, and the channel at {last}")
            }
        };
        Some(format!("client {} on channel {channel} {lack}", self.number))
    }
}

/// Changes a position to one that was never given.
fn tampered(stand: Position, agenda: &mut Agenda) -> Position {
    if agenda.dice.once_in(2) {
        Position { epoch: Epoch::from_bits(agenda.dice.draw()), ..stand }
    } else {
        Position { offset: Offset::new(stand.offset.get() + 1 + agenda.dice.below(50)), ..stand }
    }
}

impl Track {
    pub(super) fn wants_other(&self) -> bool {
        self.asked.is_empty() && self.wanted != self.on
    }

    fn message(
        &mut self,
        channel: usize,
        position: Position,
        number: u64,
        truth: &Truth,
        agenda: &mut Agenda,
    ) -> Result<(), String> {
        let Some(place) = truth.place(number, channel, position.offset.get(), position.epoch) else {
            return Err(format!("message {number} was never stored at {position}"));
        };
        let stand = self
            .stand
            .filter(|_| self.on)
            .ok_or_else(|| format!("{position} comes without a subscription"))?;
        if stand.epoch != position.epoch {
            return Err(format!("{position} comes after {stand} without word"));
        }
        if position.offset <= stand.offset {
            return Err(format!("{position} comes after {stand}"));
        }
        if truth.life_of(position.epoch) == Some(place.life)
            && let Some(missing) = truth.between(place.life, channel, stand.offset.get(), place.offset)
        {
            return Err(format!("{position} comes after {stand}, and {missing} is missing"));
        }
        agenda.tally.delivered += 1;
        self.stand = Some(position);
        self.replays = self.replays.saturating_sub(1);
        Ok(())
    }

    fn subscribed(
        &mut self,
        channel: usize,
        position: Position,
        recovered: Option<Recovered>,
        truth: &Truth,
        agenda: &mut Agenda,
    ) -> Result<(), String> {
        let Some(Asked::Subscribe(since)) = self.asked.pop_front() else {
            return Err(format!("it is subscribed at {position}, which it did not ask for"));
        };
        if recovered.is_none() != (since == Since::Now) {
            return Err(format!("it asked for {since:?} and was told {recovered:?}"));
        }
        self.on = true;
        self.stand = Some(position);
        match recovered {
            None => {}
            Some(Recovered::No(_)) => agenda.tally.unrecovered += 1,
            Some(Recovered::All { replayed }) => {
                agenda.tally.recovered += 1;
                self.replays = replayed;
                if let Since::After(after) = since {
                    let stays = position.epoch == after.epoch
                        && (position == after || (replayed == 0 && position.offset > after.offset));
                    if !stays {
                        return Err(format!("it asked for what follows {after} and stands at {position}"));
                    }
                    if !truth.is_known(after.epoch) {
                        return Err(format!("{after} is of no epoch that was, and was trusted"));
                    }
                    let end = position.offset.get() + 1;
                    if let Some(life) = truth.life_of(after.epoch)
                        && let Some(missing) = truth.between(life, channel, after.offset.get(), end)
                    {
                        return Err(format!(
                            "it is brought from {after} to {position}, and {missing} is missing"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    fn gap(&mut self, position: Position, overflow: Overflow, agenda: &mut Agenda) -> Result<(), String> {
        agenda.tally.gaps += 1;
        let stand = self.stand.filter(|_| self.on).ok_or("it is told of a gap without a subscription")?;
        if stand.epoch == position.epoch && position.offset < stand.offset {
            return Err(format!("it is told of a gap up to {position} after {stand}"));
        }
        if overflow != Overflow::Close {
            // Of its replay, too, some may have been dropped.
            self.replays = 0;
        }
        if self.replays > 0 {
            return Err(format!(
                "it is told of a gap up to {position} with {} of its replay to come",
                self.replays
            ));
        }
        self.stand = Some(position);
        Ok(())
    }

    fn unsubscribed(&mut self) -> Result<(), String> {
        self.on = false;
        self.replays = 0;
        while let Some(asked) = self.asked.pop_front() {
            if asked == Asked::Unsubscribe {
                return Ok(());
            }
        }
        Err("it is unsubscribed, which it did not ask for".to_owned())
    }
}
