//! Times and durations as the reference writes them: RFC 3339 with as many digits as there are, `1d2h3m4s` for how long
//! something has been there, `1.5ms` for round trips.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

/// A moment, written as the reference does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub SystemTime);

impl Timestamp {
    /// Seconds since 1970.
    pub fn epoch_seconds(self) -> f64 {
        self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let at = jiff::Timestamp::try_from(self.0).map_err(serde::ser::Error::custom)?;
        serializer.collect_str(&at)
    }
}

/// The moment that the brokers' clock counts from, on the wall's clock. Both are read once at start, so that what is
/// told of a moment does not change from one answer to the next.
#[derive(Debug, Clone, Copy)]
pub struct Epoch(pub SystemTime);

impl Epoch {
    /// The moment so many microseconds later.
    pub fn plus_us(self, us: u64) -> Timestamp {
        Timestamp(self.0 + Duration::from_micros(us))
    }
}

/// How long something has been there, to the second: `5s`, `1m0s`, `2d3h4m5s`, `1y0d0h0m0s`.
pub fn uptime(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let years = days / 365;
    let (s, m, h) = (seconds % 60, minutes % 60, hours % 24);
    if years > 0 {
        format!("{years}y{}d{h}h{m}m{s}s", days % 365)
    } else if days > 0 {
        format!("{days}d{h}h{m}m{s}s")
    } else if hours > 0 {
        format!("{h}h{m}m{s}s")
    } else if minutes > 0 {
        format!("{m}m{s}s")
    } else {
        format!("{s}s")
    }
}

/// A round trip: `0s`, `170µs`, `3.288ms`, `1.5s`, `1m1.5s`.
pub fn round_trip(us: u64) -> String {
    match us {
        0 => "0s".to_owned(),
        1..1_000 => format!("{us}µs"),
        1_000..1_000_000 => decimal(us, 3, "ms"),
        1_000_000..60_000_000 => decimal(us, 6, "s"),
        _ => format!("{}m{}", us / 60_000_000, decimal(us % 60_000_000, 6, "s")),
    }
}

/// `number / 10^places` without zeros at the end, and its unit.
fn decimal(number: u64, places: u32, unit: &str) -> String {
    let whole = 10u64.pow(places);
    let text = format!("{}.{:0width$}", number / whole, number % whole, width = places as usize);
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_as_many_digits_as_they_need() {
        let text = |ns| {
            let at = Timestamp(SystemTime::UNIX_EPOCH + Duration::from_nanos(ns));
            serde_json::to_string(&at).unwrap()
        };
        assert_eq!(text(0), "\"1970-01-01T00:00:00Z\"");
        assert_eq!(text(1_500_000_000), "\"1970-01-01T00:00:01.5Z\"");
        assert_eq!(text(10), "\"1970-01-01T00:00:00.00000001Z\"");
    }

    #[test]
    fn uptimes_read_as_in_the_reference() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m0s"),
            (3_600, "1h0m0s"),
            (90_061, "1d1h1m1s"),
            (366 * 86_400 + 5, "1y1d0h0m5s"),
        ] {
            assert_eq!(uptime(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn round_trips_read_as_go_writes_durations() {
        for (us, text) in [
            (0, "0s"),
            (7, "7µs"),
            (999, "999µs"),
            (1_000, "1ms"),
            (3_288, "3.288ms"),
            (10_500, "10.5ms"),
            (1_000_000, "1s"),
            (1_500_000, "1.5s"),
            (60_000_000, "1m0s"),
            (61_500_000, "1m1.5s"),
        ] {
            assert_eq!(round_trip(us), text);
        }
    }
}
