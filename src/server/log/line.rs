//! What a line looks like: `[PID] 2026/01/31 12:00:00.000000 [INF] text`. The second is put into words once, not for
//! every line.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::LogSettings;
use crate::broker::Level;

/// Puts lines into their form.
#[derive(Debug)]
pub(super) struct Form {
    pid: String,
    with_time: bool,
    zone: TimeZone,
    coloured: bool,
    /// The second that was last put into words, and the words.
    second: Option<u64>,
    words: String,
}

impl Form {
    /// The form that the settings ask for.
    pub fn new(settings: &LogSettings, coloured: bool) -> Form {
        Form {
            pid: format!("[{}] ", std::process::id()),
            with_time: !settings.without_time,
            zone: if settings.utc { TimeZone::UTC } else { TimeZone::system() },
            coloured,
            second: None,
            words: String::new(),
        }
    }

    /// Appends a line without its end.
    pub fn write(&mut self, to: &mut Vec<u8>, at: SystemTime, level: Level, text: &str) {
        to.extend_from_slice(self.pid.as_bytes());
        if self.with_time {
            let since = since_epoch(at);
            if self.second != Some(since.as_secs()) {
                self.second = Some(since.as_secs());
                self.words = civil(since, &self.zone).strftime("%Y/%m/%d %H:%M:%S.").to_string();
            }
            to.extend_from_slice(self.words.as_bytes());
            let _ = write!(to, "{:06} ", since.subsec_micros());
        }
        to.extend_from_slice(label(level, self.coloured).as_bytes());
        to.extend_from_slice(text.as_bytes());
    }
}

/// `2026.01.31.12.00.00.000000000`: the time in the name of a log file that was put aside, always local.
pub(super) fn file_stamp(at: SystemTime) -> String {
    let since = since_epoch(at);
    let second = civil(since, &TimeZone::system()).strftime("%Y.%m.%d.%H.%M.%S").to_string();
    format!("{second}.{:09}", since.subsec_nanos())
}

fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn civil(since_epoch: Duration, zone: &TimeZone) -> DateTime {
    let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX);
    zone.to_datetime(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

fn label(level: Level, coloured: bool) -> &'static str {
    match (level, coloured) {
        (Level::Fatal, false) => "[FTL] ",
        (Level::Error, false) => "[ERR] ",
        (Level::Warning, false) => "[WRN] ",
        (Level::Info, false) => "[INF] ",
        (Level::Debug, false) => "[DBG] ",
        (Level::Trace, false) => "[TRC] ",
        (Level::Fatal, true) => "[\x1b[31mFTL\x1b[0m] ",
        (Level::Error, true) => "[\x1b[31mERR\x1b[0m] ",
        (Level::Warning, true) => "[\x1b[0;93mWRN\x1b[0m] ",
        (Level::Info, true) => "[\x1b[32mINF\x1b[0m] ",
        (Level::Debug, true) => "[\x1b[36mDBG\x1b[0m] ",
        (Level::Trace, true) => "[\x1b[33mTRC\x1b[0m] ",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(settings: &LogSettings, coloured: bool, at: SystemTime) -> String {
        let mut form = Form::new(settings, coloured);
        let mut line = Vec::new();
        form.write(&mut line, at, Level::Warning, "text");
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn time_colour_and_level_stand_where_the_reference_puts_them() {
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_769_860_800, 1_234_999);
        let utc = LogSettings { utc: true, ..LogSettings::default() };
        let pid = std::process::id();
        assert_eq!(line(&utc, false, at), format!("[{pid}] 2026/01/31 12:00:00.001234 [WRN] text"));
        let bare = LogSettings { without_time: true, ..LogSettings::default() };
        assert_eq!(line(&bare, true, at), format!("[{pid}] [\x1b[0;93mWRN\x1b[0m] text"));
    }

    #[test]
    fn the_words_of_a_second_hold_for_that_second_only() {
        let utc = LogSettings { utc: true, ..LogSettings::default() };
        let mut form = Form::new(&utc, false);
        let mut lines = Vec::new();
        for micros in [59_999_999, 60_000_000, 60_000_001, 59_000_000] {
            form.write(&mut lines, SystemTime::UNIX_EPOCH + Duration::from_micros(micros), Level::Info, "\n");
        }
        let lines = String::from_utf8(lines).unwrap();
        let times: Vec<&str> = lines.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
        assert_eq!(times, ["00:00:59.999999", "00:01:00.000000", "00:01:00.000001", "00:00:59.000000"]);
    }

    #[test]
    fn a_file_stamp_sorts_by_time_and_has_nine_digits_at_its_end() {
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_769_860_800, 5);
        let (first, second) = (file_stamp(at), file_stamp(at + Duration::from_secs(1)));
        assert!(first < second);
        assert!(first.starts_with("2026.01.") && first.ends_with(".000000005"), "{first}");
    }
}
