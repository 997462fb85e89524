//! Durations as Go writes them: `300ms`, `2s`, `1h30m`, `-1.5h`.
//!
//! Everything here counts in nanoseconds and fits 64 bits, so about 292 years.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

/// Why a text is no duration; the texts are Go's, since operators search for them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DurationError {
    /// No number where one should be, or more than 64 bits of nanoseconds.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number at the end without a unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// Letters that are no unit.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The letters.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// Nanoseconds, negative too: a sign in front is part of the syntax, and each option decides whether it has a meaning.
pub fn parse_duration_ns(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (is_negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total_ns: i64 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit_ns: i64 = match unit {
            "" => return Err(DurationError::MissingUnit(text.to_owned())),
            "ns" => 1,
            // The micro sign and the Greek letter look the same and are different characters.
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60 * 1_000_000_000,
            "h" => 3600 * 1_000_000_000,
            _ => return Err(DurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() }),
        };
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        let whole_ns = whole.checked_mul(unit_ns).ok_or_else(invalid)?;
        let fraction_ns = fraction_of(fraction, unit_ns);
        total_ns = total_ns
            .checked_add(whole_ns)
            .and_then(|sum| sum.checked_add(fraction_ns))
            .ok_or_else(invalid)?;
        rest = after;
    }
    Ok(if is_negative { -total_ns } else { total_ns })
}

/// What the digits behind a point make of a unit, computed in doubles as Go does it. Digits that 63 bits have no room for do not
/// count.
fn fraction_of(digits: &str, unit_ns: i64) -> i64 {
    let (mut number, mut scale) = (0_i64, 1.0);
    for digit in digits.bytes() {
        let next = number.checked_mul(10).and_then(|number| number.checked_add(i64::from(digit - b'0')));
        let Some(next) = next else { break };
        number = next;
        scale *= 10.0;
    }
    (number as f64 * (unit_ns as f64 / scale)) as i64
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A duration in Go's form, for messages that the reference prints too: `2m0s`, `1.5s`, `300ms`, `0s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoDuration(pub Duration);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        if ns == 0 {
            return f.write_str("0s");
        }
        for (unit, unit_ns) in [("ns", 1_u128), ("µs", 1_000), ("ms", 1_000_000)] {
            if ns < unit_ns * 1000 {
                return write!(f, "{}{unit}", decimal(ns, unit_ns));
            }
        }
        let (seconds, minutes) = (self.0.as_secs(), self.0.as_secs() / 60);
        if minutes >= 60 {
            write!(f, "{}h", minutes / 60)?;
        }
        if minutes > 0 {
            write!(f, "{}m", minutes % 60)?;
        }
        let seconds_ns = u128::from(seconds % 60) * 1_000_000_000 + u128::from(self.0.subsec_nanos());
        write!(f, "{}s", decimal(seconds_ns, 1_000_000_000))
    }
}

fn decimal(ns: u128, unit_ns: u128) -> String {
    let width = unit_ns.ilog10() as usize;
    let fraction = format!("{:0width$}", ns % unit_ns);
    let fraction = if width == 0 { "" } else { fraction.trim_end_matches('0') };
    let whole = ns / unit_ns;
    if fraction.is_empty() { format!("{whole}") } else { format!("{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_as_go_parses_them() {
        const S: i64 = 1_000_000_000;
        for (text, ns) in [
            ("0", 0),
            ("5s", 5 * S),
            ("-5s", -5 * S),
            ("+1.5h", 5400 * S),
            ("1h5m3.5s", 3903 * S + S / 2),
            (".5s", S / 2),
            ("1.s", S),
            ("300ms", 300_000_000),
            ("1us2µs3μs", 6_000),
            ("7ns", 7),
            ("0.29s", 290_000_000),
            ("1.000000001s", S + 1),
            ("0.3333333333333333333h", 1_200_000_000_000),
        ] {
            assert_eq!(parse_duration_ns(text), Ok(ns), "{text}");
        }
    }

    #[test]
    fn errors_are_worded_as_go_words_them() {
        for (text, error) in [
            ("", "time: invalid duration \"\""),
            ("foo", "time: invalid duration \"foo\""),
            ("-", "time: invalid duration \"-\""),
            (".s", "time: invalid duration \".s\""),
            ("5", "time: missing unit in duration \"5\""),
            ("1h5", "time: missing unit in duration \"1h5\""),
            ("5x", "time: unknown unit \"x\" in duration \"5x\""),
            ("5 s", "time: unknown unit \" s\" in duration \"5 s\""),
            ("99999999999h", "time: invalid duration \"99999999999h\""),
            ("99999999999999999999s", "time: invalid duration \"99999999999999999999s\""),
        ] {
            assert_eq!(parse_duration_ns(text).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        for text in
            ["0s", "1ns", "1.5µs", "300ms", "1s", "1.5s", "2m0s", "1h0m0s", "1h5m3.5s", "10s", "1m0.001s"]
        {
            let duration = Duration::from_nanos(parse_duration_ns(text).unwrap() as u64);
            assert_eq!(GoDuration(duration).to_string(), text);
        }
    }
}
