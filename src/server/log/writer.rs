//! The thread that writes the log.

use std::io::{self, IsTerminal, Stderr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::SystemTime;

use super::file::LogFile;
use super::line::Form;
use super::output::Output;
use super::queue::{Gauge, Message};
use super::spares::Spares;
use super::syslog::Syslog;
use super::{LogSettings, LogTarget};
use crate::broker::{Level, LogLines};

/// Where lines end up.
#[derive(Debug)]
pub(super) enum Sink {
    StandardError(Output<Stderr>),
    File(LogFile),
    Syslog(Syslog),
}

impl Sink {
    /// Opens what the settings name.
    pub fn open(target: &LogTarget, gauge: &Arc<Gauge>) -> io::Result<Sink> {
        Ok(match target {
            LogTarget::StandardError => Sink::StandardError(Output::new(io::stderr(), gauge.clone())),
            LogTarget::Syslog { remote } => Sink::Syslog(Syslog::new(remote.clone(), gauge)),
            LogTarget::File { path, rotation } => Sink::File(LogFile::open(path, *rotation, gauge)?),
        })
    }

    fn line(&mut self, form: &mut Form, at: SystemTime, level: Level, text: &str) {
        match self {
            Sink::StandardError(output) => {
                form.write(output.collect(), at, level, text);
                output.collect().push(b'\n');
                output.added();
            }
            Sink::File(file) => file.line(form, at, level, text),
            Sink::Syslog(syslog) => syslog.line(at, level, text),
        }
    }

    fn is_working(&mut self) -> bool {
        match self {
            Sink::StandardError(output) => output.is_working(),
            Sink::File(file) => file.is_working(),
            Sink::Syslog(syslog) => syslog.is_working(),
        }
    }

    fn flush(&mut self) {
        match self {
            Sink::StandardError(output) => output.flush(),
            Sink::File(file) => file.flush(),
            Sink::Syslog(syslog) => syslog.flush(),
        }
    }
}

/// The state of the thread.
pub(super) struct Writer {
    settings: LogSettings,
    form: Form,
    sink: Sink,
    gauge: Arc<Gauge>,
    spares: Arc<Spares>,
}

impl Writer {
    /// Writes into `sink`.
    pub fn new(settings: LogSettings, sink: Sink, gauge: Arc<Gauge>, spares: Arc<Spares>) -> Writer {
        let form = form(&settings);
        gauge.set_never_behind(matches!(sink, Sink::Syslog(_)));
        Writer { settings, form, sink, gauge, spares }
    }

    /// Writes until it is told to stop. What is collected goes out when nothing more waits.
    pub fn run(mut self, queue: &Receiver<Message>) {
        self.begin();
        loop {
            let message = match queue.try_recv() {
                Ok(message) => message,
                Err(TryRecvError::Empty) => {
                    self.sink.flush();
                    match queue.recv() {
                        Ok(message) => message,
                        Err(_) => return,
                    }
                }
                Err(TryRecvError::Disconnected) => break,
            };
            match message {
                Message::Lines(at, lines) => {
                    self.write(at, &lines);
                    self.spares.give_back(lines);
                }
                Message::Reopen => self.reopen(),
                Message::Settings(new) => self.reconfigure(new.0, new.1),
                Message::Stop => break,
            }
        }
        self.sink.flush();
    }

    fn reconfigure(&mut self, settings: LogSettings, sink: Sink) {
        self.sink.flush();
        self.form = form(&settings);
        match (&mut self.sink, sink) {
            // The same file: what was opened meanwhile may be one that has been put aside since.
            (Sink::File(file), Sink::File(new)) if file.path() == new.path() => {
                file.change_rotation(new.rotation())
            }
            (old, new) => *old = new,
        }
        if !settings.trace {
            self.spares.clear();
        }
        self.settings = settings;
        self.begin();
    }

    fn begin(&mut self) {
        self.gauge.set_never_behind(matches!(self.sink, Sink::Syslog(_)));
        if let Sink::File(file) = &mut self.sink {
            file.begin(&mut self.form);
        }
    }

    fn write(&mut self, at: SystemTime, lines: &LogLines) {
        let lost = if self.sink.is_working() { self.gauge.take_lost() } else { 0 };
        if lost > 0 {
            let text = format!("{lost} log lines were lost: the log was too slow or could not be written");
            self.say(Level::Warning, &text);
        }
        for (level, text) in lines.iter() {
            let wanted = match level {
                Level::Debug => self.settings.debug,
                Level::Trace => self.settings.trace,
                Level::Fatal | Level::Error | Level::Warning | Level::Info => true,
            };
            if wanted {
                self.sink.line(&mut self.form, at, level, text);
            }
        }
        self.gauge.note_taken(lines.bytes());
    }

    fn reopen(&mut self) {
        let Sink::File(file) = &mut self.sink else {
            return self.say(Level::Info, "File log re-open ignored, not a file logger");
        };
        match file.reopen(&mut self.form) {
            Ok(()) => self.say(Level::Info, "File log re-opened"),
            Err(error) => self.say(Level::Error, &format!("Cannot reopen the log file: {error}")),
        }
    }

    fn say(&mut self, level: Level, text: &str) {
        self.sink.line(&mut self.form, SystemTime::now(), level, text);
    }
}

fn form(settings: &LogSettings) -> Form {
    let coloured = settings.target == LogTarget::StandardError && io::stderr().is_terminal();
    Form::new(settings, coloured)
}
