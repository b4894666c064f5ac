//! Times as NATS writes them.
//!
//! **Lives here:** reading RFC 3339 in UTC, to the millisecond.
//! **Called by:** `past`, to see how old the oldest message is.
//! **Must not know:** clocks: two times of one server are compared.

use carillon_model::UnixMillis;

/// Reads a time such as `2026-11-21T12:30:00.123456789Z`.
pub(crate) fn read(text: &str) -> Option<UnixMillis> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-')?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hours, minutes, seconds] = numbers(clock, ':')?;
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let digits: String = fraction.chars().chain("00".chars()).take(3).collect();
    let millis: u64 = digits.parse().ok()?;
    let seconds = days_since_1970(year, month, day) * 86_400 + hours * 3600 + minutes * 60 + seconds;
    Some(UnixMillis::new(seconds * 1000 + millis))
}

fn numbers(text: &str, between: char) -> Option<[u64; 3]> {
    let mut parts = text.split(between).map(|part| part.parse::<u32>().ok().map(u64::from));
    let three = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(three)
}

/// Counts days in the proleptic Gregorian calendar, with years that begin in March so that the leap day is the last.
const fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    // From 1 March of the year 0 to 1 January 1970.
    days - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_the_calendar_has_them() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-03-01T00:00:01.5Z", 5_097_601_500),
            ("2000-02-29T23:59:59.999999999Z", 951_868_799_999),
            ("2026-11-21T12:30:00.123456789Z", 1_795_264_200_123),
        ] {
            assert_eq!(read(text), Some(UnixMillis::new(millis)), "{text}");
        }
        for bad in
            ["", "0001-01-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-11-21T12:30:00+01:00", "2026-11-21"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
