//! The log: lines in the reference's form, written by a thread of their own so that a slow disk or terminal stops no
//! worker.
//!
//! `[PID] 2026/01/31 12:00:00.000000 [INF] text`. The queue to the writing thread is bounded; when it is full lines
//! are dropped, and the next line that gets through is preceded by one that says how many.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use time::OffsetDateTime;
use time::macros::format_description;

use crate::broker::core::Level;

/// Lines that may wait to be written.
const QUEUE_LINES_MAX: usize = 64 * 1024;

/// Where the log goes and how a line looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// A file, or standard error.
    pub file: Option<PathBuf>,
    /// Show debug lines.
    pub debug: bool,
    /// Show trace lines.
    pub trace: bool,
    /// Leave the time out.
    pub without_time: bool,
    /// Times in UTC instead of local time.
    pub utc: bool,
}

/// A handle to the log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
    wanted: Arc<Wanted>,
}

/// The levels that are shown only when asked for.
#[derive(Debug, Default)]
struct Wanted {
    debug: AtomicBool,
    trace: AtomicBool,
}

impl Wanted {
    fn set(&self, settings: &LogSettings) {
        self.debug.store(settings.debug, Ordering::Relaxed);
        self.trace.store(settings.trace, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Message {
    Line { level: Level, text: String },
    Fatal(String),
    Reopen,
    Settings(LogSettings, Sink),
    Stop,
}

/// The writing thread; [`LogThread::stop`] writes what is queued.
#[derive(Debug)]
pub struct LogThread {
    log: Log,
    thread: JoinHandle<()>,
}

impl Log {
    /// Opens the log and starts its thread.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn start(settings: LogSettings) -> io::Result<(Log, LogThread)> {
        let (sender, receiver) = sync_channel(QUEUE_LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let wanted = Arc::<Wanted>::default();
        wanted.set(&settings);
        let log = Log { queue: sender, lost: lost.clone(), wanted };
        let sink = Sink::open(settings.file.as_deref())?;
        // The offset must be asked for while there is one thread only.
        let local_offset = time::UtcOffset::current_local_offset().unwrap_or(time::UtcOffset::UTC);
        let writer = Writer { settings, sink, local_offset, pid: std::process::id(), lost };
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || writer.run(&receiver))?;
        Ok((log.clone(), LogThread { log, thread }))
    }

    /// Queues a line if its level is wanted.
    pub fn write(&self, level: Level, text: String) {
        let wanted = match level {
            Level::Debug => self.wanted.debug.load(Ordering::Relaxed),
            Level::Trace => self.wanted.trace.load(Ordering::Relaxed),
            Level::Error | Level::Warning | Level::Info => true,
        };
        if wanted && self.queue.try_send(Message::Line { level, text }).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An `[INF]` line.
    pub fn info(&self, text: impl Into<String>) {
        self.write(Level::Info, text.into());
    }

    /// A `[WRN]` line.
    pub fn warning(&self, text: impl Into<String>) {
        self.write(Level::Warning, text.into());
    }

    /// An `[ERR]` line.
    pub fn error(&self, text: impl Into<String>) {
        self.write(Level::Error, text.into());
    }

    /// The `[FTL]` line of a server that does not start.
    pub fn fatal(&self, text: String) {
        let _ = self.queue.send(Message::Fatal(text));
    }

    /// Goes on with other settings, after everything that is queued.
    ///
    /// # Errors
    ///
    /// The file cannot be opened; the log goes on as before.
    pub fn reconfigure(&self, settings: LogSettings) -> io::Result<()> {
        let sink = Sink::open(settings.file.as_deref())?;
        self.wanted.set(&settings);
        let _ = self.queue.send(Message::Settings(settings, sink));
        Ok(())
    }

    /// Opens the log file anew, after it was moved away.
    pub fn reopen(&self) {
        let _ = self.queue.send(Message::Reopen);
    }
}

impl LogThread {
    /// Writes what is queued and ends the thread.
    pub fn stop(self) {
        let _ = self.log.queue.send(Message::Stop);
        let _ = self.thread.join();
    }
}

#[derive(Debug)]
enum Sink {
    Stderr,
    File(io::BufWriter<File>),
}

impl Sink {
    fn open(path: Option<&Path>) -> io::Result<Sink> {
        match path {
            None => Ok(Sink::Stderr),
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path)?;
                Ok(Sink::File(io::BufWriter::new(file)))
            }
        }
    }

    fn write(&mut self, line: &str) {
        // A log that cannot be written must not stop the server, and there is nowhere else to say so.
        let _ = match self {
            Sink::Stderr => io::stderr().lock().write_all(line.as_bytes()),
            Sink::File(file) => file.write_all(line.as_bytes()),
        };
    }

    fn flush(&mut self) {
        if let Sink::File(file) = self {
            let _ = file.flush();
        }
    }
}

struct Writer {
    settings: LogSettings,
    sink: Sink,
    local_offset: time::UtcOffset,
    pid: u32,
    lost: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Message>) {
        while let Ok(first) = queue.recv() {
            let mut message = first;
            loop {
                match message {
                    Message::Line { level, text } => self.write(level, &text),
                    Message::Fatal(text) => {
                        let line = self.line("FTL", &text);
                        self.sink.write(&line);
                    }
                    Message::Reopen => self.reopen(),
                    Message::Settings(settings, sink) => {
                        self.sink.flush();
                        (self.settings, self.sink) = (settings, sink);
                    }
                    Message::Stop => {
                        self.sink.flush();
                        return;
                    }
                }
                match queue.try_recv() {
                    Ok(next) => message = next,
                    Err(_) => break,
                }
            }
            self.sink.flush();
        }
    }

    fn reopen(&mut self) {
        if self.settings.file.is_none() {
            return self.write(Level::Info, "File log re-open ignored, not a file logger");
        }
        self.sink.flush();
        match Sink::open(self.settings.file.as_deref()) {
            Ok(sink) => {
                self.sink = sink;
                self.write(Level::Info, "File log re-opened");
            }
            Err(error) => self.write(Level::Error, &format!("Cannot reopen the log file: {error}")),
        }
    }

    fn write(&mut self, level: Level, text: &str) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let line = self.line(
                level_name(Level::Warning),
                &format!("{lost} log lines were lost: the log is too slow"),
            );
            self.sink.write(&line);
        }
        let line = self.line(level_name(level), text);
        self.sink.write(&line);
    }

    fn line(&self, name: &str, text: &str) -> String {
        if self.settings.without_time {
            return format!("[{}] [{name}] {text}\n", self.pid);
        }
        let form = format_description!("[year]/[month]/[day] [hour]:[minute]:[second].[subsecond digits:6]");
        let offset = if self.settings.utc { time::UtcOffset::UTC } else { self.local_offset };
        let now = OffsetDateTime::now_utc().to_offset(offset).format(form).unwrap_or_default();
        format!("[{}] {now} [{name}] {text}\n", self.pid)
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error => "ERR",
        Level::Warning => "WRN",
        Level::Info => "INF",
        Level::Debug => "DBG",
        Level::Trace => "TRC",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_references_form_and_unwanted_levels_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (log, thread) =
            Log::start(LogSettings { file: Some(path.clone()), debug: true, ..LogSettings::default() })
                .unwrap();
        log.info("one");
        log.write(Level::Debug, "two".into());
        log.write(Level::Trace, "three".into());
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
        let settings = LogSettings { file: Some(before.clone()), ..LogSettings::default() };
        let (log, thread) = Log::start(settings).unwrap();
        log.write(Level::Debug, "unwanted".into());
        log.info("one");
        let settings = LogSettings {
            file: Some(after.clone()),
            debug: true,
            without_time: true,
            ..LogSettings::default()
        };
        log.reconfigure(settings).unwrap();
        log.write(Level::Debug, "two".into());
        let missing = LogSettings { file: Some(directory.path().join("no/file")), ..LogSettings::default() };
        assert!(log.reconfigure(missing).is_err());
        log.write(Level::Debug, "three".into());
        thread.stop();
        assert!(std::fs::read_to_string(before).unwrap().ends_with("[INF] one\n"));
        let pid = std::process::id();
        let expected = format!("[{pid}] [DBG] two\n[{pid}] [DBG] three\n");
        assert_eq!(std::fs::read_to_string(after).unwrap(), expected);
    }
}
