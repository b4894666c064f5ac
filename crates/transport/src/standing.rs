//! Where one client stands, for transports whose clients keep one text for all of their channels.
//!
//! **Lives here:** what the client is told to come back with, after each message and each change of place.
//! **Called by:** `stream` for server-sent events, `poll`.
//! **Must not know:** how the text travels.

use carillon_dialect_native::Cursor;
use carillon_model::{ChannelName, Position, Since};
use carillon_session::Wanted;

/// Where a client stands in its channels.
#[derive(Debug)]
pub(crate) enum Standing {
    /// It named one channel: its text is the position itself.
    One(Places<Option<Since>>),
    /// It named several: its text is a cursor.
    Many(Places<Cursor>),
}

#[derive(Debug, Default)]
pub(crate) struct Places<T> {
    /// Where it wants to go on. Who leaves before the answer to that comes back with it.
    asked: T,
    /// Where it stands.
    stands: T,
}

impl Standing {
    /// Begins with what a client asks for.
    pub(crate) fn new(wanted: &[Wanted]) -> Self {
        if let [only] = wanted {
            return Self::One(Places { asked: Some(only.since), stands: None });
        }
        let mut places: Places<Cursor> = Places::default();
        for one in wanted {
            places.asked.want(&one.channel, one.since);
        }
        Self::Many(places)
    }

    /// Notes where the client stands in a channel.
    pub(crate) fn stand(&mut self, channel: &ChannelName, position: Position) {
        match self {
            Self::One(places) => places.stands = Some(Since::After(position)),
            Self::Many(places) => places.stands.stand(channel, position),
        }
    }

    /// Learns that everything was answered: a channel without a place has no history.
    pub(crate) fn settle(&mut self) {
        match self {
            Self::One(places) => places.asked = None,
            Self::Many(places) => places.asked = Cursor::default(),
        }
    }

    /// Returns the text to come back with. `None` where there is no place to name.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::One(Places { asked, stands }) => match stands.or(*asked) {
                Some(Since::After(position)) => Some(position.to_string()),
                Some(Since::Now | Since::Oldest | Since::Last(_) | Since::Time(_)) | None => None,
            },
            Self::Many(Places { asked, stands }) => Some(stands.or(asked).text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use carillon_dialect_native::Place;

    use super::*;

    fn wanted(channel: &str, since: Since) -> Wanted {
        Wanted::new(ChannelName::new(channel).unwrap(), since)
    }

    fn position(text: &str) -> Position {
        text.parse().unwrap()
    }

    #[test]
    fn one_channel_has_its_id() {
        let mut standing = Standing::new(&[wanted("a", Since::After(position("abcdef-7")))]);
        assert_eq!(standing.text().as_deref(), Some("abcdef-7"));
        standing.stand(&ChannelName::new("a").unwrap(), position("abcdef-9"));
        standing.settle();
        assert_eq!(standing.text().as_deref(), Some("abcdef-9"));
        let mut live = Standing::new(&[wanted("a", Since::After(position("abcdef-7")))]);
        live.settle();
        assert_eq!(live.text(), None);
    }

    #[test]
    fn several_channels_have_a_cursor_that_keeps_what_was_not_answered_yet() {
        let asked = [
            wanted("a", Since::After(position("abcdef-7"))),
            wanted("b", Since::After(position("fedcba-3"))),
            wanted("c", Since::Now),
            wanted("d", Since::Oldest),
        ];
        let mut standing = Standing::new(&asked);
        let places = |standing: &Standing| {
            let place = Place::read(&standing.text().unwrap()).unwrap();
            asked.each_ref().map(|one| place.of(&one.channel))
        };
        standing.stand(&asked[0].channel, position("abcdef-8"));
        let (a, b) = (Since::After(position("abcdef-8")), Since::After(position("fedcba-3")));
        assert_eq!(places(&standing), [Some(a), Some(b), None, Some(Since::Oldest)]);
        standing.stand(&asked[2].channel, position("fedcba-9"));
        standing.settle();
        let c = Since::After(position("fedcba-9"));
        assert_eq!(places(&standing), [Some(a), None, Some(c), None]);
    }
}
