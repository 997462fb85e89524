//! A load of publishers and subscribers, measured in windows: what `publish`, `fanout`, `pairs` and `churn` share.
//!
//! A window begins with a quiet server and ends when every message has been processed (PONG) and every
//! delivery has arrived; CPU and time are taken over exactly that. Totals are checked at the end of each
//! window and, to the byte, when the flow is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::args::Options;
use crate::client::{ANSWER_TIMEOUT, Connection, ServerInfo, Target};
use crate::error::BenchError;
use crate::frames;
use crate::progress::Progress;
use crate::reader::{self, Counters, Subscriber};
use crate::report::Outcome;
use crate::schedule::Schedule;
use crate::server_usage;
use crate::tally::{FrameShape, Tally};

/// How long a publisher waits for a subscriber that is too far behind, or for the end of deliveries.
const WAIT_STEP: Duration = Duration::from_micros(100);

/// Which subjects a publisher sends to. All subjects of a flow have one length.
pub struct PublisherPlan {
    pub subjects: Vec<String>,
}

/// What a subscriber subscribes to, and the publisher whose messages it gets, all of them.
pub struct SubscriberPlan {
    pub subscriptions: Vec<String>,
    pub publisher: usize,
}

/// A load that can be measured.
pub struct Flow {
    publishers: Vec<Publisher>,
    /// The publisher of each subscriber.
    sources: Vec<usize>,
    counters: Arc<Counters>,
    reader: Option<JoinHandle<Result<Vec<Subscriber>, BenchError>>>,
    info: ServerInfo,
    options: Options,
}

/// What happened in one window.
#[derive(Debug, Clone, Copy, Default)]
pub struct Window {
    pub messages: u64,
    pub deliveries: u64,
    pub elapsed: Duration,
    pub server_cpu_ns: Option<u64>,
    pub client_cpu_ns: u64,
    pub server_rss_bytes: Option<u64>,
}

/// How long a window lasts.
#[derive(Debug, Clone, Copy)]
enum Limit {
    Time(Duration),
    Messages(u64),
}

struct Publisher {
    connection: Connection,
    /// Encoded frames, sent round and round.
    ring: Vec<u8>,
    frame_len: usize,
    batch_frames: usize,
    /// The next frame of the ring to send.
    next_frame: usize,
    /// Shared only so that progress can be shown while the publisher runs.
    sent: Arc<AtomicU64>,
    subscribers: Vec<usize>,
    /// Messages that a subscriber may be behind.
    behind_max: u64,
    rate: Option<f64>,
}

impl Flow {
    /// Connects everybody; returns when the server knows all subscriptions.
    pub fn open(
        options: &Options,
        publishers: Vec<PublisherPlan>,
        subscribers: Vec<SubscriberPlan>,
    ) -> Result<Flow, BenchError> {
        let target = Target::new(options)?;
        let subscribing = match &options.subscriber_user {
            Some(user) => Target::new(&Options { user: Some(user.clone()), ..options.clone() })?,
            None => target.clone(),
        };
        let counters = Arc::new(Counters::new(subscribers.len()));
        let mut info = ServerInfo::default();
        let sources: Vec<usize> = subscribers.iter().map(|plan| plan.publisher).collect();

        let mut readers = Vec::with_capacity(subscribers.len());
        for plan in &subscribers {
            let subjects = &publishers[plan.publisher].subjects;
            readers.push(open_subscriber(&subscribing, plan, subjects, options.size)?);
        }
        let rate = options.rate.map(|rate| rate / publishers.len() as f64);
        let mut senders = Vec::with_capacity(publishers.len());
        for (index, plan) in publishers.iter().enumerate() {
            let connection = Connection::open(&target)?;
            connection.check_size(options.size)?;
            info = connection.info.clone();
            let mine = (0..sources.len()).filter(|subscriber| sources[*subscriber] == index).collect();
            senders.push(Publisher::new(connection, &plan.subjects, mine, rate, options));
        }

        let reader = (!readers.is_empty()).then(|| {
            let counters = Arc::clone(&counters);
            std::thread::spawn(move || reader::run(readers, &counters))
        });
        Ok(Flow { publishers: senders, sources, counters, reader, info, options: options.clone() })
    }

    /// Load that is not measured: connections, caches and buffers reach their working size.
    pub fn warm_up(&mut self) -> Result<(), BenchError> {
        if !self.options.warmup.is_zero() {
            self.run(Limit::Time(self.options.warmup), "warm-up")?;
        }
        Ok(())
    }

    /// Loads as long as the options say and measures it.
    pub fn measure(&mut self) -> Result<Window, BenchError> {
        let limit = match self.options.messages {
            Some(messages) => Limit::Messages(messages / self.publishers.len() as u64),
            None => Limit::Time(self.options.duration),
        };
        self.run(limit, "messages")
    }

    /// Loads for `duration` and measures it.
    pub fn measure_for(&mut self, duration: Duration) -> Result<Window, BenchError> {
        self.run(Limit::Time(duration), "messages")
    }

    /// Ends the load and checks every total to the byte.
    pub fn close(mut self) -> Result<(), BenchError> {
        let Some(reader) = self.reader.take() else { return Ok(()) };
        self.counters.stop.store(true, Ordering::Release);
        let mut subscribers = reader.join().expect("the reader does not panic")?;
        for (subscriber, source) in subscribers.iter_mut().zip(&self.sources) {
            subscriber.settle(self.publishers[*source].sent.load(Ordering::Acquire))?;
        }
        Ok(())
    }

    fn run(&mut self, limit: Limit, label: &str) -> Result<Window, BenchError> {
        let sent_before = self.sent();
        let delivered_before = self.counters.total();
        let before = self.server_usage()?;
        let client_before = server_usage::own_cpu_ns();
        let started = Instant::now();

        let published = self.publish(limit, label);
        // A reader that failed knows why; the publishers only see that they should stop.
        if self.counters.failed.load(Ordering::Acquire)
            && let Some(reader) = self.reader.take()
        {
            reader.join().expect("the reader does not panic")?;
        }
        let processed = published?;
        self.wait_for_deliveries()?;

        let delivered = self.counters.last_delivery();
        let elapsed = processed.max(delivered) - started;
        // Before the server's usage: walking its memory map is this process's CPU time.
        let client_cpu_ns = server_usage::own_cpu_ns() - client_before;
        let after = self.server_usage()?;
        Ok(Window {
            messages: self.sent() - sent_before,
            deliveries: self.counters.total() - delivered_before,
            elapsed,
            server_cpu_ns: before.zip(after).map(|(before, after)| after.cpu_ns - before.cpu_ns),
            client_cpu_ns,
            server_rss_bytes: after.map(|usage| usage.rss_bytes),
        })
    }

    /// Runs all publishers; returns when the last of them got its PONG.
    fn publish(&mut self, limit: Limit, label: &str) -> Result<Instant, BenchError> {
        let mut progress = Progress::new(label, self.options.quiet || self.options.json);
        let counters = &*self.counters;
        let sent: Vec<_> = self.publishers.iter().map(|publisher| Arc::clone(&publisher.sent)).collect();
        let nobody_listens = self.sources.is_empty();
        std::thread::scope(|scope| {
            let running: Vec<_> = self
                .publishers
                .iter_mut()
                .map(|publisher| scope.spawn(move || publisher.run(limit, counters)))
                .collect();
            while running.iter().any(|thread| !thread.is_finished()) {
                std::thread::sleep(Duration::from_millis(2));
                progress.show(if nobody_listens {
                    sent.iter().map(|count| count.load(Ordering::Relaxed)).sum()
                } else {
                    counters.total()
                });
            }
            let mut last = None;
            for thread in running {
                last = last.max(Some(thread.join().expect("a publisher does not panic")?));
            }
            Ok(last.expect("there is at least one publisher"))
        })
    }

    fn wait_for_deliveries(&mut self) -> Result<(), BenchError> {
        let expected: u64 =
            self.sources.iter().map(|source| self.publishers[*source].sent.load(Ordering::Acquire)).sum();
        let mut last_progress = (Instant::now(), self.counters.total());
        loop {
            let total = self.counters.total();
            if total >= expected {
                return Ok(());
            }
            if self.counters.failed.load(Ordering::Acquire)
                && let Some(reader) = self.reader.take()
            {
                reader.join().expect("the reader does not panic")?;
            }
            if total > last_progress.1 {
                last_progress = (Instant::now(), total);
            } else if last_progress.0.elapsed() > ANSWER_TIMEOUT / 4 {
                return Err(BenchError::Missing { what: "deliveries", got: total, expected });
            }
            std::thread::sleep(WAIT_STEP);
        }
    }

    fn sent(&self) -> u64 {
        self.publishers.iter().map(|publisher| publisher.sent.load(Ordering::Acquire)).sum()
    }

    fn server_usage(&self) -> Result<Option<server_usage::Usage>, BenchError> {
        self.options.server_pid.map(server_usage::of_process).transpose()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.counters.stop.store(true, Ordering::Release);
    }
}

impl Window {
    /// The outcome with figures per delivery, or per message if nobody listens.
    pub fn outcome(&self, command: &'static str, what: String, flow: &Flow) -> Outcome {
        let per_delivery = !flow.sources.is_empty();
        let count = if per_delivery { self.deliveries } else { self.messages };
        let seconds = self.elapsed.as_secs_f64();
        let rate = count as f64 / seconds;
        Outcome {
            command,
            what,
            server: flow.options.server.clone(),
            server_version: flow.info.version.clone(),
            unit: if flow.sources.len() > flow.publishers.len() { "delivery" } else { "message" },
            count,
            elapsed_s: seconds,
            rate_per_s: rate,
            payload_bytes_per_s: Some(rate * flow.options.size as f64),
            server_cpu_ns_per_msg: self.server_cpu_ns.map(|cpu| cpu as f64 / count as f64),
            client_cpu_ns_per_msg: self.client_cpu_ns as f64 / count as f64,
            server_rss_bytes: self.server_rss_bytes,
            latency: None,
            more: Default::default(),
        }
    }
}

impl Publisher {
    fn new(
        connection: Connection,
        subjects: &[String],
        subscribers: Vec<usize>,
        rate: Option<f64>,
        options: &Options,
    ) -> Publisher {
        let payload = frames::payload(options.size);
        let mut ring = Vec::new();
        for subject in subjects {
            frames::push_publish(&mut ring, subject, None, &payload);
        }
        let frame_len = ring.len() / subjects.len();
        // No more than a batch if the subjects allow it: what is sent again and again should stay in the cache.
        while ring.len() + frame_len * subjects.len() <= options.batch {
            ring.extend_from_within(..frame_len * subjects.len());
        }
        Publisher {
            connection,
            frame_len,
            batch_frames: (options.batch / frame_len).max(1),
            next_frame: 0,
            sent: Arc::new(AtomicU64::new(0)),
            subscribers,
            behind_max: (options.in_flight / frame_len as u64).max(1),
            rate,
            ring,
        }
    }

    /// Publishes up to the limit, then waits until the server has processed it all.
    fn run(&mut self, limit: Limit, counters: &Counters) -> Result<Instant, BenchError> {
        match self.rate {
            Some(rate) => self.run_paced(limit, rate, counters)?,
            None => self.run_flat_out(limit, counters)?,
        }
        self.connection.flush()?;
        Ok(Instant::now())
    }

    fn run_flat_out(&mut self, limit: Limit, counters: &Counters) -> Result<(), BenchError> {
        let started = Instant::now();
        let mut left = match limit {
            Limit::Messages(messages) => messages,
            Limit::Time(_) => u64::MAX,
        };
        while left > 0 && !counters.failed.load(Ordering::Relaxed) {
            if matches!(limit, Limit::Time(duration) if started.elapsed() >= duration) {
                break;
            }
            if self.is_too_far_ahead(counters) {
                std::thread::sleep(WAIT_STEP);
                continue;
            }
            left -= self.send_batch(left)?;
            self.connection.answer_pings()?;
        }
        Ok(())
    }

    fn run_paced(&mut self, limit: Limit, rate: f64, counters: &Counters) -> Result<(), BenchError> {
        server_usage::sleep_precisely();
        let schedule = Schedule::new(rate, None);
        let total = match limit {
            Limit::Messages(messages) => messages,
            Limit::Time(duration) => (duration.as_secs_f64() * rate) as u64,
        };
        let started = Instant::now();
        let mut sent = 0;
        while sent < total && !counters.failed.load(Ordering::Relaxed) {
            let bursts = schedule.bursts_due(started.elapsed());
            let due = (bursts * schedule.burst()).min(total);
            while sent < due {
                sent += self.send_batch(due - sent)?;
            }
            self.connection.answer_pings()?;
            std::thread::sleep(schedule.due(bursts).saturating_sub(started.elapsed()));
        }
        Ok(())
    }

    /// One write of at most `max` messages.
    fn send_batch(&mut self, max: u64) -> Result<u64, BenchError> {
        let frames_in_ring = self.ring.len() / self.frame_len;
        let count = self.batch_frames.min(frames_in_ring - self.next_frame).min(max as usize);
        let from = self.next_frame * self.frame_len;
        // Counted first: a delivery must never be seen before the message that caused it.
        self.sent.fetch_add(count as u64, Ordering::AcqRel);
        self.connection.send(&self.ring[from..from + count * self.frame_len])?;
        self.next_frame = (self.next_frame + count) % frames_in_ring;
        Ok(count as u64)
    }

    /// A server closes a subscriber that falls too far behind; that would end the measurement.
    fn is_too_far_ahead(&self, counters: &Counters) -> bool {
        let sent = self.sent.load(Ordering::Relaxed);
        self.subscribers.iter().any(|subscriber| {
            sent.saturating_sub(counters.delivered[*subscriber].load(Ordering::Relaxed)) > self.behind_max
        })
    }
}

fn open_subscriber(
    target: &Target,
    plan: &SubscriberPlan,
    subjects: &[String],
    size: usize,
) -> Result<Subscriber, BenchError> {
    let mut connection = Connection::open(target)?;
    let sid_len = frames::decimal_digits(plan.subscriptions.len());
    let mut lines = Vec::new();
    for (index, subject) in plan.subscriptions.iter().enumerate() {
        frames::push_subscribe(&mut lines, subject, None, &format!("{:0sid_len$}", index + 1));
    }
    connection.send(&lines)?;
    connection.flush()?;

    let common = common_prefix(subjects);
    let mut prefix = b"MSG ".to_vec();
    prefix.extend_from_slice(&subjects[0].as_bytes()[..common]);
    let shape = FrameShape {
        prefix,
        len: frames::message_len(subjects[0].len(), sid_len, None, size),
        payload: size,
    };
    Ok(Subscriber::new(connection.stream, connection.frames, Tally::new(shape)))
}

/// Length of what the first and every other subject have in common.
fn common_prefix(subjects: &[String]) -> usize {
    let first = subjects[0].as_bytes();
    subjects
        .iter()
        .map(|subject| first.iter().zip(subject.as_bytes()).take_while(|(a, b)| a == b).count())
        .min()
        .unwrap_or(0)
}

/// `count` subjects below `prefix`, all of one length, in an order that no cache likes.
pub fn numbered_subjects(prefix: &str, count: usize) -> Vec<String> {
    let width = frames::decimal_digits(count.saturating_sub(1));
    let mut subjects: Vec<String> = (0..count).map(|index| format!("{prefix}.{index:0width$}")).collect();
    fastrand::shuffle(&mut subjects);
    subjects
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_have_one_length_and_are_all_different() {
        let mut subjects = numbered_subjects("a.b", 101);
        assert!(subjects.iter().all(|subject| subject.len() == "a.b.100".len()));
        subjects.sort();
        subjects.dedup();
        assert_eq!(subjects.len(), 101);
        assert_eq!(numbered_subjects("a", 1), ["a.0"]);
    }

    #[test]
    fn common_prefix_ends_where_subjects_differ() {
        let subjects = |all: &[&str]| all.iter().map(|one| one.to_string()).collect::<Vec<_>>();
        assert_eq!(common_prefix(&subjects(&["a.10", "a.11", "a.19"])), 3);
        assert_eq!(common_prefix(&subjects(&["a.10"])), 4);
    }
}
