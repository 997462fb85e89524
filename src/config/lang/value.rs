//! The tree that the parser builds: values, and where each was written.
//!
//! Maps are sorted by key. Order of writing has no meaning in the language (a later key replaces an earlier one), and
//! a sorted map makes the digest and every report of errors the same on each run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A place in a file. Its display, `file:line:col`, starts every error about an option.
///
/// Lines count from 1. Columns count as the reference counts them, because people compare the two: bytes from the
/// newline before (so from 1), but from 0 on the first line, which has no newline before it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The path as it was given to the parser.
    pub file: Arc<str>,
    /// From 1.
    pub line: u32,
    /// In bytes; from 0 on the first line, from 1 on all others.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A value and its place: for the value of a key that is where the key starts, in an array where the value starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The place.
    pub at: Position,
    /// The value.
    pub value: Value,
    /// Some `$NAME` referred to this key. Such a key may have any name: it counts as the definition of a variable.
    pub is_variable: bool,
}

/// The entries of a map by their keys, exactly as written (option names are compared without regard to case later).
pub type Map = BTreeMap<String, Node>;

/// What a key or an array element can be.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Datetime(Datetime),
    Array(Vec<Node>),
    Map(Map),
}

impl Value {
    /// The type's name in the reference's error messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::String(_) => "string",
            Value::Integer(_) => "int64",
            Value::Float(_) => "float64",
            Value::Bool(_) => "bool",
            Value::Datetime(_) => "time.Time",
            Value::Array(_) => "[]interface {}",
            Value::Map(_) => "map[string]interface {}",
        }
    }
}

/// A moment in UTC, to the second: `2026-11-22T18:58:16Z`. Every field was checked against the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datetime {
    year: u16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl Datetime {
    /// Reads exactly `YYYY-MM-DDTHH:MM:SSZ`; `None` for any other form and for days that no calendar has.
    pub fn parse(text: &str) -> Option<Datetime> {
        let bytes = text.as_bytes();
        if bytes.len() != 20 {
            return None;
        }
        for (index, separator) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')] {
            if bytes[index] != separator {
                return None;
            }
        }
        let number = |from: usize, to: usize| -> Option<u16> {
            let digits = &bytes[from..to];
            if !digits.iter().all(u8::is_ascii_digit) {
                return None;
            }
            Some(digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
        };
        let year = number(0, 4)?;
        let [month, day, hour, minute, second] =
            [number(5, 7)?, number(8, 10)?, number(11, 13)?, number(14, 16)?, number(17, 19)?]
                .map(|part| part as u8);
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let days = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            _ => return None,
        };
        let valid = (1..=days).contains(&day) && hour < 24 && minute < 60 && second < 60;
        valid.then_some(Datetime { year, month, day, hour, minute, second })
    }
}

impl fmt::Display for Datetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Datetime { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datetimes_are_checked_against_the_calendar() {
        for good in ["2024-02-29T00:00:00Z", "0000-01-01T23:59:59Z", "2000-02-29T00:00:00Z"] {
            assert_eq!(Datetime::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "2023-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2024-04-31T00:00:00Z",
            "2024-04-30T24:00:00Z",
            "2024-04-30T00:60:00Z",
            "2024-04-30T00:00:60Z",
            "2024-04-30 00:00:00Z",
            "2024-04-30T00:00:00+",
            "2024-4-30T00:00:000Z",
            "",
        ] {
            assert_eq!(Datetime::parse(bad), None, "{bad}");
        }
    }
}
