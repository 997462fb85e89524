//! When messages are to be published by the stream itself: the patterns of `Nats-Schedule`, and which messages wait for their time.
//!
//! A pattern is a time (`@at 2026-11-22T19:06:28Z`), an interval (`@every 5m`), a name (`@daily`), or six fields in the manner of
//! cron: second, minute, hour, day of the month, month, day of the week, in a time zone if one is named. A repetition that was missed is made up
//! for once, however often it was missed.
//!
//! Time zones come from the system's database, which jiff keeps in memory once it has been asked for a zone.

use std::collections::{BTreeSet, HashMap};

use jiff::civil::{Date, date};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan as _};

use super::time;

const NS_PER_SECOND: i64 = 1_000_000_000;

/// How many years a pattern is looked ahead for its next time.
const YEARS_AHEAD: i16 = 5;

/// When a pattern is next due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    /// In nanoseconds since 1970.
    pub(super) time_ns: i64,
    /// How the time is told: in the zone of the pattern.
    pub(super) text: String,
    /// Whether it is due again after that.
    pub(super) repeats: bool,
}

/// What is wrong with a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScheduleError {
    Pattern,
    TimeZone,
}

/// When a pattern is next due after `after_ns`, seen from `now_ns`. Zones are only for patterns in the manner of cron.
pub(super) fn next(pattern: &[u8], zone: &[u8], after_ns: i64, now_ns: i64) -> Result<Due, ScheduleError> {
    let zone = match zone {
        b"" => None,
        name => {
            let name = std::str::from_utf8(name).map_err(|_| ScheduleError::TimeZone)?;
            Some(TimeZone::get(name).map_err(|_| ScheduleError::TimeZone)?)
        }
    };
    let pattern = std::str::from_utf8(pattern).map_err(|_| ScheduleError::Pattern)?;
    next_of(pattern, zone, after_ns, now_ns).ok_or(ScheduleError::Pattern)
}

fn next_of(pattern: &str, zone: Option<TimeZone>, after_ns: i64, now_ns: i64) -> Option<Due> {
    let told_in_utc = |time_ns: i64, repeats: bool| {
        let mut text = Vec::new();
        time::write(&mut text, time_ns);
        Due { time_ns, text: String::from_utf8_lossy(&text).into_owned(), repeats }
    };
    if let Some(at) = pattern.strip_prefix("@at ") {
        return if zone.is_some() { None } else { Some(told_in_utc(time::parse(at).ok()?, false)) };
    }
    if let Some(interval) = pattern.strip_prefix("@every ") {
        let interval_ns = time::parse_duration(interval).filter(|ns| *ns >= NS_PER_SECOND)?;
        if zone.is_some() {
            return None;
        }
        let mut time_ns = rounded(after_ns).checked_add(interval_ns)?;
        if time_ns < now_ns {
            time_ns = rounded(now_ns).checked_add(interval_ns)?;
        }
        return Some(told_in_utc(time_ns, true));
    }
    let fields = match pattern {
        "@yearly" | "@annually" => "0 0 0 1 1 *",
        "@monthly" => "0 0 0 1 * *",
        "@weekly" => "0 0 0 * * 0",
        "@daily" | "@midnight" => "0 0 0 * * *",
        "@hourly" => "0 0 * * * *",
        other => other,
    };
    let cron = Cron::parse(fields)?;
    let zone = zone.unwrap_or(TimeZone::UTC);
    let mut at = cron.next(&zone, after_ns)?;
    if at.as_nanosecond() < i128::from(now_ns) {
        at = cron.next(&zone, rounded(now_ns))?;
    }
    Some(Due { time_ns: i64::try_from(at.as_nanosecond()).ok()?, text: told_in(&zone, at), repeats: true })
}

fn rounded(time_ns: i64) -> i64 {
    time_ns.saturating_add(NS_PER_SECOND / 2).div_euclid(NS_PER_SECOND) * NS_PER_SECOND
}

/// A time of whole seconds as it is told in a zone: with the offset behind it, or `Z` if there is none.
fn told_in(zone: &TimeZone, at: Timestamp) -> String {
    let offset = zone.to_offset(at).seconds();
    let offset_text = match offset {
        0 => "Z".to_owned(),
        _ => {
            let sign = if offset < 0 { '-' } else { '+' };
            format!("{sign}{:02}:{:02}", offset.abs() / 3600, offset.abs() / 60 % 60)
        }
    };
    format!("{}{offset_text}", zone.to_datetime(at).strftime("%Y-%m-%dT%H:%M:%S"))
}

/// A pattern of six fields: for each, a bit for every value that it takes.
#[derive(Debug, PartialEq, Eq)]
struct Cron {
    second: u64,
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    /// One of the two kinds of days was left open: then both have to match, and otherwise one is enough.
    one_kind_of_day: bool,
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Cron {
    fn parse(pattern: &str) -> Option<Cron> {
        let fields: Vec<&str> = pattern.split_whitespace().collect();
        let [second, minute, hour, day, month, weekday] = fields[..] else { return None };
        let (day, any_day) = field(day, 1, 31, &[])?;
        let (weekday, any_weekday) = field(weekday, 0, 6, WEEKDAYS)?;
        Some(Cron {
            second: field(second, 0, 59, &[])?.0,
            minute: field(minute, 0, 59, &[])?.0,
            hour: field(hour, 0, 23, &[])?.0,
            day,
            month: field(month, 1, 12, MONTHS)?.0,
            weekday,
            one_kind_of_day: any_day || any_weekday,
        })
    }

    /// The first time after `after_ns`.
    fn next(&self, zone: &TimeZone, after_ns: i64) -> Option<Timestamp> {
        let after = Timestamp::from_nanosecond(i128::from(after_ns)).ok()?;
        let begin = zone.to_datetime(after);
        let last_year = begin.year() + YEARS_AHEAD;
        let mut day = begin.date();
        while day.year() <= last_year {
            if self.takes_day(day)
                && let Some(found) = self.next_on(zone, day, after)
            {
                return Some(found);
            }
            day = day.checked_add(1.day()).ok()?;
        }
        None
    }

    fn takes_day(&self, day: Date) -> bool {
        let of_month = has(self.day, day.day().unsigned_abs().into());
        let of_week = has(self.weekday, day.weekday().to_sunday_zero_offset().unsigned_abs().into());
        has(self.month, day.month().unsigned_abs().into())
            && if self.one_kind_of_day { of_month && of_week } else { of_month || of_week }
    }

    fn next_on(&self, zone: &TimeZone, day: Date, after: Timestamp) -> Option<Timestamp> {
        let mut found: Option<Timestamp> = None;
        for hour in values(self.hour) {
            for minute in values(self.minute) {
                for second in values(self.second) {
                    let there = date(day.year(), day.month(), day.day()).at(hour, minute, second, 0);
                    let ambiguous = zone.to_ambiguous_timestamp(there);
                    let times = match ambiguous.offset() {
                        // The clock jumps over it.
                        AmbiguousOffset::Gap { .. } => [None, None],
                        AmbiguousOffset::Unambiguous { .. } => [ambiguous.compatible().ok(), None],
                        AmbiguousOffset::Fold { .. } => [ambiguous.earlier().ok(), ambiguous.later().ok()],
                    };
                    let later = times.into_iter().flatten().find(|time| *time > after);
                    if let Some(later) = later {
                        found = Some(found.map_or(later, |found| found.min(later)));
                    }
                    // Within an hour times grow with minutes and seconds.
                    if found.is_some() {
                        break;
                    }
                }
                if found.is_some() {
                    break;
                }
            }
            if found.is_some() {
                return found;
            }
        }
        found
    }
}

fn has(bits: u64, value: u32) -> bool {
    bits & 1 << value != 0
}

fn values(bits: u64) -> impl Iterator<Item = i8> {
    (0..60).filter(move |value| bits & 1 << value != 0)
}

/// The bits of a field, and whether it is open: `*` or `?` without steps.
fn field(text: &str, min: u32, max: u32, names: &[&str]) -> Option<(u64, bool)> {
    let (mut bits, mut open) = (0, false);
    for range in text.split(',').filter(|range| !range.is_empty()) {
        let (more, is_open) = range_bits(range, min, max, names)?;
        bits |= more;
        open |= is_open;
    }
    Some((bits, open))
}

fn range_bits(text: &str, min: u32, max: u32, names: &[&str]) -> Option<(u64, bool)> {
    let mut parts = text.split('/');
    let (range, step) = (parts.next()?, parts.next());
    if parts.next().is_some() {
        return None;
    }
    let ends: Vec<&str> = range.split('-').collect();
    let mut open = ends[0] == "*" || ends[0] == "?";
    let (begin, mut end) = if open {
        (min, max)
    } else {
        let begin = value(ends[0], min, names)?;
        match ends[..] {
            [_] => (begin, begin),
            [_, end] => (begin, value(end, min, names)?),
            _ => return None,
        }
    };
    let step = match step {
        None => 1,
        Some(step) => {
            let step: u32 = step.parse().ok()?;
            if ends.len() == 1 {
                end = max;
            }
            open &= step <= 1;
            step
        }
    };
    if begin < min || end > max || begin > end || step == 0 {
        return None;
    }
    let bits = (begin..=end).step_by(step as usize).fold(0, |bits, value| bits | 1_u64 << value);
    Some((bits, open))
}

fn value(text: &str, min: u32, names: &[&str]) -> Option<u32> {
    match names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        Some(at) => Some(at as u32 + min),
        None => text.parse().ok(),
    }
}

/// The messages of a stream that wait for their time: one per subject.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    /// Sequence and time, by subject.
    by_subject: HashMap<Box<[u8]>, (u64, i64)>,
    /// Time, sequence and subject.
    queue: BTreeSet<(i64, u64, Box<[u8]>)>,
}

impl Schedules {
    /// A message waits for `time_ns`, and no other of its subject does.
    pub(super) fn insert(&mut self, subject: &[u8], seq: u64, time_ns: i64) {
        self.remove(subject);
        self.by_subject.insert(subject.into(), (seq, time_ns));
        self.queue.insert((time_ns, seq, subject.into()));
    }

    /// The message of a subject waits for another time.
    pub(super) fn update(&mut self, subject: &[u8], time_ns: i64) {
        if let Some((seq, _)) = self.by_subject.get(subject) {
            self.insert(subject, *seq, time_ns);
        }
    }

    /// No message of a subject waits.
    pub(super) fn remove(&mut self, subject: &[u8]) {
        if let Some((seq, time_ns)) = self.by_subject.remove(subject) {
            self.queue.remove(&(time_ns, seq, subject.into()));
        }
    }

    /// The message of a subject that waits.
    pub(super) fn seq(&self, subject: &[u8]) -> Option<u64> {
        self.by_subject.get(subject).map(|(seq, _)| *seq)
    }

    /// Takes out a message whose time has come: subject, sequence and time. It comes again only if it is put in again.
    pub(super) fn take_due(&mut self, now_ns: i64) -> Option<(Box<[u8]>, u64, i64)> {
        if self.next_ns()? > now_ns {
            return None;
        }
        let (time_ns, seq, subject) = self.queue.pop_first()?;
        Some((subject, seq, time_ns))
    }

    /// When the next message's time comes.
    pub(super) fn next_ns(&self) -> Option<i64> {
        self.queue.first().map(|(time_ns, ..)| *time_ns)
    }

    /// Forgets messages from a sequence on: they were not stored after all.
    pub(super) fn forget_from(&mut self, seq: u64) {
        let gone: Vec<Box<[u8]>> = self
            .by_subject
            .iter()
            .filter(|(_, (other, _))| *other >= seq)
            .map(|(subject, _)| subject.clone())
            .collect();
        for subject in gone {
            self.remove(&subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(pattern: &str, zone: &str, after: &str) -> Option<String> {
        let after_ns = time::parse(after).unwrap();
        next(pattern.as_bytes(), zone.as_bytes(), after_ns, after_ns).ok().map(|due| due.text)
    }

    #[test]
    fn patterns_are_due_when_they_say() {
        for (pattern, after, wanted) in [
            ("@at 2100-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2100-01-01T00:00:00Z"),
            ("@every 90s", "2026-01-01T00:00:00.6Z", "2026-01-01T00:01:31Z"),
            ("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
            ("@daily", "2026-02-28T10:00:00Z", "2026-03-01T00:00:00Z"),
            ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("@monthly", "2026-01-31T00:00:00Z", "2026-02-01T00:00:00Z"),
            ("@yearly", "2026-01-31T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("*/10 * * * * *", "2026-01-01T00:00:10.5Z", "2026-01-01T00:00:20Z"),
            ("0 30 8-10/2 * * MON-fri", "2026-01-03T00:00:00Z", "2026-01-05T08:30:00Z"),
            ("0 0 0 13 * fri", "2026-01-03T00:00:00Z", "2026-01-09T00:00:00Z"),
            ("5,7 0 0 29 feb ?", "2026-01-03T00:00:00Z", "2028-02-29T00:00:05Z"),
            ("0 0 0 1/15 * *", "2026-01-03T00:00:00Z", "2026-01-16T00:00:00Z"),
        ] {
            assert_eq!(due(pattern, "", after).as_deref(), Some(wanted), "{pattern}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in [
            "",
            "x",
            "@at x",
            "@every x",
            "@every 10ms",
            "@never",
            "* * * * *",
            "60 * * * * *",
            "* * * 0 * *",
            "* * * * 13 *",
            "* * * * * 7",
            "5-3 * * * * *",
            "1-2-3 * * * * *",
            "*/0 * * * * *",
            "*/1/2 * * * * *",
            "-1 * * * * *",
            "0 0 0 31 feb *",
        ] {
            assert_eq!(due(pattern, "", "2026-01-01T00:00:00Z"), None, "{pattern}");
        }
    }

    #[test]
    fn what_was_missed_is_made_up_for_once() {
        let (long_ago, now) = (0, time::parse("2026-01-01T00:00:30Z").unwrap());
        let text = |pattern: &[u8]| next(pattern, b"", long_ago, now).unwrap().text;
        assert_eq!(text(b"@every 1m"), "2026-01-01T00:01:30Z");
        assert_eq!(text(b"0 * * * * *"), "2026-01-01T00:01:00Z");
    }

    #[test]
    fn zones_tell_their_own_time() {
        if TimeZone::get("Europe/Berlin").is_err() {
            return;
        }
        let berlin = |after| due("0 30 2 * * *", "Europe/Berlin", after).unwrap();
        assert_eq!(berlin("2026-01-01T00:00:00Z"), "2026-01-01T02:30:00+01:00");
        // There is no half past two on the 29th of March, and two of them on the 25th of October.
        assert_eq!(berlin("2026-03-28T12:00:00Z"), "2026-03-30T02:30:00+02:00");
        assert_eq!(berlin("2026-10-24T12:00:00Z"), "2026-10-25T02:30:00+02:00");
        assert_eq!(berlin("2026-10-25T00:30:00Z"), "2026-10-25T02:30:00+01:00");
        assert_eq!(next(b"@hourly", b"Nowhere/Else", 0, 0), Err(ScheduleError::TimeZone));
        assert_eq!(next(b"@every 5s", b"Europe/Berlin", 0, 0), Err(ScheduleError::Pattern));
    }
}
