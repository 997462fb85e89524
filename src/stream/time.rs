//! Times as the API writes and reads them: RFC 3339 in UTC, with as many digits behind the point as are needed.
//!
//! A time is a number of nanoseconds since 1970; [`ZERO`] stands for the reference's zero time, which is no time at all.

use std::time::Duration;

use crate::config::{GoDuration, parse_duration_ns};

/// The reference's zero time, the first of January of the year 1.
pub const ZERO: i64 = i64::MIN;

const NS_PER_SECOND: i64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Writes a time: `2026-11-22T19:06:28.776455225Z`.
pub fn write(out: &mut Vec<u8>, time_ns: i64) {
    if time_ns == ZERO {
        out.extend_from_slice(b"0001-01-01T00:00:00Z");
        return;
    }
    let (seconds, ns) = (time_ns.div_euclid(NS_PER_SECOND), time_ns.rem_euclid(NS_PER_SECOND));
    let (days, second) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
    let (year, month, day) = date_of(days);
    digits(out, year, 4);
    out.push(b'-');
    digits(out, month, 2);
    out.push(b'-');
    digits(out, day, 2);
    out.push(b'T');
    digits(out, second / 3600, 2);
    out.push(b':');
    digits(out, second / 60 % 60, 2);
    out.push(b':');
    digits(out, second % 60, 2);
    if ns > 0 {
        out.push(b'.');
        digits(out, ns, 9);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
    out.push(b'Z');
}

/// Reads a time.
///
/// # Errors
///
/// It is none; the text is the reference's.
pub fn parse(text: &str) -> Result<i64, String> {
    let bad = |rest: &str, element: &str| {
        format!(
            "parsing time {} as \"2006-01-02T15:04:05Z07:00\": cannot parse {} as \"{element}\"",
            super::json::go_quoted(text),
            super::json::go_quoted(rest)
        )
    };
    let out_of_range =
        |what: &str| format!("parsing time {}: {what} out of range", super::json::go_quoted(text));
    let mut rest = text;
    let mut take = |count: usize, element: &str, separator: &str| -> Result<i64, String> {
        let number = rest
            .get(..count)
            .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| bad(rest, element))?;
        rest = &rest[count..];
        if !separator.is_empty() {
            rest = rest.strip_prefix(separator).ok_or_else(|| bad(rest, separator))?;
        }
        Ok(number)
    };
    let year = take(4, "2006", "-")?;
    let month = take(2, "01", "-")?;
    let day = take(2, "02", "T")?;
    let hour = take(2, "15", ":")?;
    let minute = take(2, "04", ":")?;
    let second = take(2, "05", "")?;
    let mut ns = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let count = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if count == 0 {
            return Err(bad(rest, "Z07:00"));
        }
        for digit in fraction.bytes().take(count.min(9)) {
            ns = ns * 10 + i64::from(digit - b'0');
        }
        ns *= 10_i64.pow(9 - count.min(9) as u32);
        rest = &fraction[count..];
    }
    let offset = match rest.as_bytes() {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), a, b, b':', c, d]
            if [a, b, c, d].iter().all(|digit| digit.is_ascii_digit()) =>
        {
            let number = |tens: &u8, ones: &u8| i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
            let seconds = number(a, b) * 3600 + number(c, d) * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        [b'Z', ..] => {
            return Err(format!(
                "parsing time {}: extra text: {}",
                super::json::go_quoted(text),
                super::json::go_quoted(&rest[1..])
            ));
        }
        _ => return Err(bad(rest, "Z07:00")),
    };
    if !(1..=12).contains(&month) {
        return Err(out_of_range("month"));
    }
    if day < 1 || day > days_in(year, month) {
        return Err(out_of_range("day"));
    }
    if hour > 23 {
        return Err(out_of_range("hour"));
    }
    if minute > 59 {
        return Err(out_of_range("minute"));
    }
    if second > 59 {
        return Err(out_of_range("second"));
    }
    let seconds = days_of(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset;
    if (year, month, day, seconds.rem_euclid(SECONDS_PER_DAY), ns) == (1, 1, 1, 0, 0) {
        return Ok(ZERO);
    }
    // What lies outside of the years 1678 to 2262 is before or after every message all the same.
    Ok(seconds.saturating_mul(NS_PER_SECOND).saturating_add(ns).max(ZERO + 1))
}

/// Writes a duration as the reference prints it: `1m30s`, `-1.5s`, `100ms`.
pub fn duration_text(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    format!("{sign}{}", GoDuration(Duration::from_nanos(ns.unsigned_abs())))
}

/// Reads a duration as the reference does: `1h30m`, `1.5s`, `-2ms`. `None` if it is none.
pub fn parse_duration(text: &str) -> Option<i64> {
    parse_duration_ns(text).ok()
}

fn digits(out: &mut Vec<u8>, value: i64, width: u32) {
    for place in (0..width).rev() {
        out.push(b'0' + (value / 10_i64.pow(place) % 10) as u8);
    }
}

/// Year, month and day of a number of days since 1970, by the civil calendar.
fn date_of(days: i64) -> (i64, i64, i64) {
    // The year is taken to begin in March, so that the day that leap years add is its last.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(time_ns: i64) -> String {
        let mut out = Vec::new();
        write(&mut out, time_ns);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_have_as_many_digits_as_they_need() {
        assert_eq!(written(ZERO), "0001-01-01T00:00:00Z");
        assert_eq!(written(0), "1970-01-01T00:00:00Z");
        assert_eq!(written(1_500_000_000), "1970-01-01T00:00:01.5Z");
        assert_eq!(written(1_790_000_000_000_000_001), "2026-09-21T14:13:20.000000001Z");
        assert_eq!(written(-1), "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn what_is_no_time_is_told_in_the_words_of_the_reference() {
        assert_eq!(
            parse("zz").unwrap_err(),
            r#"parsing time "zz" as "2006-01-02T15:04:05Z07:00": cannot parse "zz" as "2006""#
        );
        assert_eq!(
            parse("2026-02-30T00:00:00Z").unwrap_err(),
            r#"parsing time "2026-02-30T00:00:00Z": day out of range"#
        );
        assert_eq!(parse("2026-02-03T00:00:00+01:00"), parse("2026-02-02T23:00:00Z"));
        assert_eq!(parse("0001-01-01T00:00:00Z"), Ok(ZERO));
    }

    #[test]
    fn durations_are_read_and_printed_like_the_reference_does() {
        for (text, ns) in [
            ("1m30s", 90_000_000_000),
            ("1.5s", 1_500_000_000),
            ("100ms", 100_000_000),
            ("2m0s", 120_000_000_000),
            ("1h0m0s", 3_600_000_000_000),
            ("250µs", 250_000),
            ("7ns", 7),
        ] {
            assert_eq!(duration_text(ns), text);
            assert_eq!(parse_duration(text), Some(ns), "{text}");
        }
        for text in ["", "1", "s", "1x", "1.2.3s", "never", "-"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_time_that_was_written_reads_as_itself(time_ns in i64::MIN + 1..i64::MAX) {
            prop_assert_eq!(parse(&written(time_ns)), Ok(time_ns));
        }

        #[test]
        fn a_duration_that_was_printed_reads_as_itself(ns in any::<i32>()) {
            prop_assert_eq!(parse_duration(&duration_text(i64::from(ns))), Some(i64::from(ns)));
        }
    }
}
