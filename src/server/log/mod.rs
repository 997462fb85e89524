//! The log: lines in the reference's form, written by a thread of their own so that a slow disk or terminal stops no
//! worker.
//!
//! * `queue`: what threads put lines into, never waiting. A worker hands over what a whole turn produced in one
//!   operation, stamped with one look at the clock. `spares`: the memory of those lines goes round.
//! * `writer`: the thread. `line`: what a line looks like.
//! * `output`, `file`: where lines go, and how a file is rotated. `syslog`: messages to a syslog.
//!
//! The queue is bounded in bytes. Long before the bound, workers are asked to leave alone what clients send
//! ([`Log::holds_back`]), so that a protocol trace at full load slows its clients down instead of losing lines, and
//! memory stays small. They are asked only while the log moves: one that is stuck (a terminal that nobody reads, a disk
//! that hangs) holds nobody for longer than [`STUCK_MS`], and a syslog, which may be anything, nobody at all; then lines beyond the bound are dropped and counted, and the
//! number stands in the log as soon as lines get through again.

mod file;
mod line;
mod output;
mod queue;
mod spares;
mod syslog;
mod writer;

use std::fmt::Display;
use std::io;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use self::queue::{Gauge, Message, Sender};
use self::writer::{Sink, Writer};
use crate::broker::{Level, LogLines};
use crate::config::RemoteSyslog;

/// Where the log goes and how a line looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// Where it goes.
    pub target: LogTarget,
    /// Show debug lines.
    pub debug: bool,
    /// Show trace lines.
    pub trace: bool,
    /// Leave the time out.
    pub without_time: bool,
    /// Times in UTC instead of local time.
    pub utc: bool,
}

/// Where a log goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error, with colours if it is a terminal.
    #[default]
    StandardError,
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// When it is put aside for a new one, and how many are kept.
        rotation: Rotation,
    },
    /// A syslog.
    Syslog {
        /// `None`: the system's own.
        remote: Option<RemoteSyslog>,
    },
}

/// When a log file is put aside for a new one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Behind the line that makes it longer than so many bytes.
    pub size_limit: Option<NonZeroU64>,
    /// Files that are kept, the one being written included; `None`: all.
    pub files_max: Option<NonZeroU32>,
}

/// How long a log that does not move may hold clients back.
pub const STUCK_MS: u64 = 1_000;

/// How long the end of the server waits for a log that does not move.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// A handle to the log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    queue: Sender,
}

/// What a worker remembers to tell a log that is behind from one that is stuck.
#[derive(Debug, Default)]
pub struct LogPace {
    written_bytes: u64,
    since_ms: u64,
}

/// The writing thread; [`LogThread::stop`] writes what is queued.
#[derive(Debug)]
pub struct LogThread {
    log: Log,
    /// Disconnected when the thread is through.
    through: mpsc::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Log {
    /// Opens the log and starts its thread.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn start(settings: LogSettings) -> io::Result<(Log, LogThread)> {
        let (sender, receiver) = queue::queue();
        let gauge = sender.gauge().clone();
        let sink = Sink::open(&settings.target, &gauge)?;
        let writer = Writer::new(settings, sink, gauge, sender.spares().clone());
        let (running, through) = mpsc::channel();
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || {
            let _running = running;
            writer.run(&receiver);
        })?;
        let log = Log { queue: sender };
        Ok((log.clone(), LogThread { log, through, thread }))
    }

    /// Queues a line. It is shown if its level is wanted.
    pub fn write(&self, level: Level, text: impl Display) {
        let mut lines = LogLines::default();
        lines.push(level, text);
        self.write_lines(lines);
    }

    /// Queues lines, as many as there are, in one go.
    pub fn write_lines(&self, lines: LogLines) {
        self.queue.send_lines(SystemTime::now(), lines);
    }

    /// Memory for the lines of a turn, from lines that have been written.
    pub fn spare_lines(&self) -> LogLines {
        self.queue.spares().take()
    }

    /// Whether a worker should leave alone for now what clients send, because more lines wait to be written than
    /// should, and they are being written. `now_ms` is any clock of the caller's.
    pub fn holds_back(&self, pace: &mut LogPace, now_ms: u64) -> bool {
        let gauge: &Arc<Gauge> = self.queue.gauge();
        if !gauge.is_behind() {
            return false;
        }
        let written_bytes = gauge.written_bytes();
        if written_bytes != pace.written_bytes {
            *pace = LogPace { written_bytes, since_ms: now_ms };
        }
        now_ms < pace.since_ms + STUCK_MS
    }

    /// An `[INF]` line.
    pub fn info(&self, text: impl Display) {
        self.write(Level::Info, text);
    }

    /// A `[WRN]` line.
    pub fn warning(&self, text: impl Display) {
        self.write(Level::Warning, text);
    }

    /// An `[ERR]` line.
    pub fn error(&self, text: impl Display) {
        self.write(Level::Error, text);
    }

    /// The `[FTL]` line of a server that does not start.
    pub fn fatal(&self, text: impl Display) {
        self.write(Level::Fatal, text);
    }

    /// Goes on with other settings, after everything that is queued.
    ///
    /// # Errors
    ///
    /// The file cannot be opened; the log goes on as before.
    pub fn reconfigure(&self, settings: LogSettings) -> io::Result<()> {
        let sink = Sink::open(&settings.target, self.queue.gauge())?;
        self.queue.send(Message::Settings(Box::new((settings, sink))));
        Ok(())
    }

    /// Opens the log file anew, after it was moved away.
    pub fn reopen(&self) {
        self.queue.send(Message::Reopen);
    }
}

impl LogThread {
    /// Writes what is queued and ends the thread. A log that is stuck is left behind.
    pub fn stop(self) {
        self.log.queue.send(Message::Stop);
        loop {
            let before = self.log.queue.gauge().written_bytes();
            match self.through.recv_timeout(STOP_PATIENCE) {
                Err(RecvTimeoutError::Timeout) if self.log.queue.gauge().written_bytes() == before => return,
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn to_file(path: &Path) -> LogSettings {
        let target = LogTarget::File { path: path.to_owned(), rotation: Rotation::default() };
        LogSettings { target, ..LogSettings::default() }
    }

    #[test]
    fn lines_have_the_references_form_and_unwanted_levels_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (log, thread) = Log::start(LogSettings { debug: true, ..to_file(&path) }).unwrap();
        log.info("one");
        log.write(Level::Debug, "two");
        log.write(Level::Trace, "three");
        thread.stop();
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        let words: Vec<&str> = lines[0].split(' ').collect();
        assert_eq!(words[0], format!("[{}]", std::process::id()));
        assert_eq!((words[1].len(), words[2].len()), (10, 15));
        assert_eq!(words[3..], ["[INF]", "one"]);
        assert!(lines[1].ends_with("[DBG] two"));
    }

    #[test]
    fn other_settings_hold_from_the_next_line_on() {
        let directory = tempfile::tempdir().unwrap();
        let (before, after) = (directory.path().join("before"), directory.path().join("after"));
        let (log, thread) = Log::start(to_file(&before)).unwrap();
        log.write(Level::Debug, "unwanted");
        log.info("one");
        log.reconfigure(LogSettings { debug: true, without_time: true, ..to_file(&after) }).unwrap();
        log.write(Level::Debug, "two");
        assert!(log.reconfigure(to_file(&directory.path().join("no/file"))).is_err());
        log.write(Level::Debug, "three");
        thread.stop();
        assert!(std::fs::read_to_string(before).unwrap().ends_with("[INF] one\n"));
        let pid = std::process::id();
        let expected = format!("[{pid}] [DBG] two\n[{pid}] [DBG] three\n");
        assert_eq!(std::fs::read_to_string(after).unwrap(), expected);
    }

    #[test]
    fn a_syslog_that_takes_nothing_costs_lines_and_ends() {
        // It accepts and never reads.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = RemoteSyslog::Tcp(listener.local_addr().unwrap().to_string());
        let target = LogTarget::Syslog { remote: Some(remote) };
        let (log, thread) = Log::start(LogSettings { target, ..LogSettings::default() }).unwrap();
        let mut pace = LogPace::default();
        for _ in 0..200 {
            log.info("x".repeat(1024 * 1024));
            assert!(!log.holds_back(&mut pace, 5_000));
        }
        let gauge = log.queue.gauge().clone();
        let started = std::time::Instant::now();
        while gauge.take_lost() == 0 {
            assert!(started.elapsed() < Duration::from_secs(30), "nothing was given up");
            std::thread::sleep(Duration::from_millis(5));
        }
        thread.stop();
    }

    #[test]
    fn a_log_that_is_behind_holds_workers_back_and_one_that_is_stuck_does_not() {
        // A queue that nobody takes from: the log has stopped in the middle of a write.
        let (queue, receiver) = queue::queue();
        let log = Log { queue };
        let mut pace = LogPace::default();
        let lines = || {
            let mut lines = LogLines::default();
            lines.push(Level::Trace, "x".repeat(1024 * 1024));
            lines
        };
        while !log.queue.gauge().is_behind() {
            assert!(!log.holds_back(&mut pace, 5_000));
            log.write_lines(lines());
        }
        log.queue.gauge().note_written(1);
        assert!(log.holds_back(&mut pace, 5_000));
        assert!(log.holds_back(&mut pace, 5_000 + STUCK_MS - 1));
        assert!(!log.holds_back(&mut pace, 5_000 + STUCK_MS));
        log.queue.gauge().note_written(1);
        assert!(log.holds_back(&mut pace, 5_000 + STUCK_MS), "it moves again");

        for _ in 0..1000 {
            log.write_lines(lines());
        }
        let lost = log.queue.gauge().take_lost();
        let queued = std::iter::from_fn(|| receiver.try_recv().ok()).count() as u64;
        assert!(lost > 900 && queued < 100, "{lost} lost, {queued} queued");
    }
}
