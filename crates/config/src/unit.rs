//! Durations and sizes as an operator writes them: a whole number and its unit.
//!
//! **Lives here:** `"25s"` and `"64KiB"`, both ways.
//! **Called by:** `reader` reads, `table` and `faults` write.
//! **Must not know:** which keys have which bounds.

use std::time::Duration;

const DURATIONS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Reads a duration.
///
/// # Errors
/// What is expected instead.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let what = What { name: "duration", units: "ms, s, m, h or d", example: "25s", table: DURATIONS };
    quantity(text, &what).map(Duration::from_millis)
}

/// Reads a size in bytes.
///
/// # Errors
/// What is expected instead.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    quantity(text, &What { name: "size", units: "B, KiB, MiB or GiB", example: "64KiB", table: SIZES })
}

/// Writes a duration in the largest unit that needs no fraction. Parts of milliseconds are not shown.
pub(crate) fn show_duration(duration: Duration) -> String {
    show(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), DURATIONS, "0s")
}

/// Writes a size in the largest unit that needs no fraction.
pub(crate) fn show_size(bytes: u64) -> String {
    show(bytes, SIZES, "0B")
}

struct What {
    name: &'static str,
    units: &'static str,
    example: &'static str,
    table: &'static [(&'static str, u64)],
}

fn quantity(text: &str, what: &What) -> Result<u64, String> {
    let What { name, units, example, table } = what;
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!("a {name} is a whole number and a unit, such as \"{example}\""));
    }
    if unit.is_empty() {
        return Err(format!("a {name} needs a unit, such as \"{example}\""));
    }
    let Some((_, factor)) = table.iter().find(|(known, _)| *known == unit) else {
        return Err(format!("a {name} is a whole number and one of {units}, such as \"{example}\""));
    };
    let number: Option<u64> = number.parse().ok();
    number.and_then(|number| number.checked_mul(*factor)).ok_or_else(|| format!("this {name} is too large"))
}

fn show(amount: u64, table: &[(&str, u64)], zero: &str) -> String {
    if amount == 0 {
        return zero.to_owned();
    }
    let fits = table.iter().rev().find(|(_, factor)| amount.is_multiple_of(*factor));
    fits.map_or_else(|| amount.to_string(), |(unit, factor)| format!("{}{unit}", amount / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (text, millis) in [("0s", 0), ("5ms", 5), ("25s", 25_000), ("10m", 600_000), ("24h", 86_400_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
            assert_eq!(
                duration(&show_duration(Duration::from_millis(millis))),
                Ok(Duration::from_millis(millis))
            );
        }
        for (text, bytes) in
            [("0B", 0), ("64KiB", 65_536), ("1MiB", 1 << 20), ("2GiB", 2 << 30), ("1500B", 1500)]
        {
            assert_eq!(size(text), Ok(bytes));
            assert_eq!(show_size(bytes), text);
        }
        assert_eq!(show_duration(Duration::from_secs(90)), "90s");
        assert_eq!(show_duration(Duration::from_hours(24)), "1d");
    }

    #[test]
    fn what_cannot_be_read_is_explained() {
        for (text, why) in [
            ("25", "a duration needs a unit, such as \"25s\""),
            ("", "a duration is a whole number and a unit, such as \"25s\""),
            ("-25s", "a duration is a whole number and a unit, such as \"25s\""),
            ("1.5s", "a duration is a whole number and one of ms, s, m, h or d, such as \"25s\""),
            ("25 s", "a duration is a whole number and one of ms, s, m, h or d, such as \"25s\""),
            ("1h30m", "a duration is a whole number and one of ms, s, m, h or d, such as \"25s\""),
            ("25S", "a duration is a whole number and one of ms, s, m, h or d, such as \"25s\""),
            ("99999999999999999999s", "this duration is too large"),
            ("18446744073709551615d", "this duration is too large"),
            ("∞", "a duration is a whole number and a unit, such as \"25s\""),
            ("٣s", "a duration is a whole number and a unit, such as \"25s\""),
        ] {
            assert_eq!(duration(text), Err(why.to_owned()), "{text:?}");
        }
        assert_eq!(size("64"), Err("a size needs a unit, such as \"64KiB\"".to_owned()));
        let units = "a size is a whole number and one of B, KiB, MiB or GiB, such as \"64KiB\"";
        assert_eq!(size("64KB"), Err(units.to_owned()));
        assert_eq!(size("18446744073709551615GiB"), Err("this size is too large".to_owned()));
    }
}
