//! The way from the threads that have lines to the one that writes them. Nobody waits to put something in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::SystemTime;

use super::LogSettings;
use super::spares::Spares;
use super::writer::Sink;
use crate::broker::LogLines;

/// Bytes of lines that may wait. What a thread hands over at once goes in whole as long as less than this waits, so
/// that a single line may be larger.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// From so many on, workers are asked to hold back. Behind it there is room for what is in their hands already: about
/// a hundred kilobytes each (`broker/publish.rs` bounds what a turn traces).
pub(super) const HOLD_BYTES: usize = 8 * 1024 * 1024;

/// Something for the writing thread.
#[derive(Debug)]
pub(super) enum Message {
    Lines(SystemTime, LogLines),
    Reopen,
    Settings(Box<(LogSettings, Sink)>),
    Stop,
}

/// How far the log is, for everyone to see.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    queued_bytes: AtomicUsize,
    written_bytes: AtomicU64,
    lost_lines: AtomicU64,
    never_behind: AtomicBool,
}

/// The end to put in.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    queue: mpsc::Sender<Message>,
    gauge: Arc<Gauge>,
    spares: Arc<Spares>,
}

/// A queue.
pub(super) fn queue() -> (Sender, mpsc::Receiver<Message>) {
    let (queue, receiver) = mpsc::channel();
    (Sender { queue, gauge: Arc::default(), spares: Arc::default() }, receiver)
}

impl Sender {
    /// Puts lines in, or counts them as lost if too much waits.
    pub fn send_lines(&self, at: SystemTime, lines: LogLines) {
        let (bytes, count) = (lines.bytes(), lines.count() as u64);
        if self.gauge.queued_bytes.load(Ordering::Relaxed) >= QUEUE_BYTES_MAX {
            return self.gauge.note_lost(count);
        }
        self.gauge.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.send(Message::Lines(at, lines));
    }

    /// Puts anything else in. There is little of it.
    pub fn send(&self, message: Message) {
        // Nobody takes it when the log has ended, which it does last of all.
        let _ = self.queue.send(message);
    }

    pub fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    pub fn spares(&self) -> &Arc<Spares> {
        &self.spares
    }
}

impl Gauge {
    /// Whether more waits than should.
    pub fn is_behind(&self) -> bool {
        self.queued_bytes.load(Ordering::Relaxed) > HOLD_BYTES && !self.never_behind.load(Ordering::Relaxed)
    }

    /// Whether nobody is to wait for this log, however much waits.
    pub fn set_never_behind(&self, never: bool) {
        self.never_behind.store(never, Ordering::Relaxed);
    }

    /// Bytes that have been written since the start.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// So much has been written.
    pub fn note_written(&self, bytes: usize) {
        self.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So much of what was in the queue is in the hands of the writing thread.
    pub fn note_taken(&self, bytes: usize) {
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Lines that will not be seen.
    pub fn note_lost(&self, lines: u64) {
        self.lost_lines.fetch_add(lines, Ordering::Relaxed);
    }

    /// Lines lost since the last call.
    pub fn take_lost(&self) -> u64 {
        self.lost_lines.swap(0, Ordering::Relaxed)
    }
}
