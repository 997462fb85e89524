//! What the answers are made of: numbers that have been taken elsewhere and are only read here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::clock::{Epoch, Timestamp};
use crate::auth::Account;
pub use crate::base::histogram::{Histogram, LATENCY_BOUNDS_US};
use crate::broker::core::{Counts, Stats};
use crate::config::Options;

/// One worker's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerReading {
    /// What its broker has done.
    pub stats: Stats,
    /// Connections that it has or is to take.
    pub connections: u64,
    /// Subjects whose fan-out lists it has cached.
    pub cached_subjects: u64,
    /// Times that a fan-out list was not cached or did not hold any more.
    pub index_reads: u64,
    /// How long its turns took.
    pub turn_times: TurnTimes,
    /// How long messages took.
    pub latencies: Latencies,
    /// Batches handed to other workers.
    pub batches_sent: u64,
    /// Batches taken from other workers.
    pub batches_received: u64,
    /// Batches at its door.
    pub batches_waiting: u64,
    /// Read buffers.
    pub buffers: u64,
    /// Of those, how many are in use.
    pub buffers_leased: u64,
    /// Reads that wait because their sender is held back, or for the next turn.
    pub reads_waiting: u64,
    /// Bytes of those that were copied out of their read buffers.
    pub kept_bytes: u64,
}

/// Upper bounds of the classes that turns are counted in, in microseconds; what is longer is in a class of its own.
pub const TURN_BOUNDS_US: [u64; 7] = [100, 500, 1_000, 5_000, 20_000, 100_000, 1_000_000];

/// How long a worker's turns took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TurnTimes {
    /// Turns that found something to do, by their length.
    pub lengths: [u64; TURN_BOUNDS_US.len() + 1],
    /// Time that those took.
    pub busy_ns: u64,
    /// Time in which it left alone what clients had sent because the log was behind.
    pub held_ns: u64,
}

impl TurnTimes {
    /// Turns that found something to do.
    pub fn turns(&self) -> u64 {
        self.lengths.iter().sum()
    }
}

/// How long messages take between the sockets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Of a message, from the arrival of its bytes until it is in the outputs of subscribers and in batches for other
    /// workers.
    pub route: Histogram,
    /// Of a message, from its being given to another worker until it is in the outputs there.
    pub hand_over: Histogram,
    /// Of a send, from its oldest output's coming to be until the kernel has it.
    pub send: Histogram,
}

/// What streams take of the disk, and how long consumers' clients take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamTimes {
    /// Of a sync: how long until what was written is on the disk.
    pub sync: Histogram,
    /// Of a commit: how long from its first write to the end of its last sync.
    pub commit: Histogram,
    /// Of a commit: bytes that it wrote.
    pub commit_bytes: Histogram,
    /// Of a message of a consumer: from its delivery to its acknowledgement.
    pub ack: Histogram,
}

impl StreamTimes {
    /// Adds what another worker has.
    pub fn add(&mut self, other: &StreamTimes) {
        self.sync.add(&other.sync);
        self.commit.add(&other.commit);
        self.commit_bytes.add(&other.commit_bytes);
        self.ack.add(&other.ack);
    }
}

/// What the process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessReading {
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// Per cent of one core, lately.
    pub cpu_percent: f64,
    /// Processor time since the start.
    pub cpu_time: Duration,
    /// Open files.
    pub open_files: u64,
    /// Cores of the machine.
    pub cores: usize,
}

/// One account.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountReading {
    /// Its slot at the workers.
    pub slot: u16,
    /// Its name.
    pub name: String,
    /// It is the system's own.
    pub is_system: bool,
    /// Connections.
    pub connections: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Subscriptions ever made.
    pub subscribed: u64,
    /// Of the subscriptions, those of the server itself.
    pub internal: u64,
    /// Its exports, imports and mappings.
    pub account: Arc<Account>,
}

/// Who the server is. Does not change while it runs.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its id.
    pub server_id: String,
    /// Its name.
    pub server_name: String,
    /// The moment that the brokers' clock counts from.
    pub epoch: Epoch,
    /// When it was started.
    pub started: Timestamp,
    /// Its command line.
    pub command_line: Vec<String>,
}

/// Everything that can be read at once, without asking a worker.
#[derive(Debug, Clone)]
pub struct Snapshot<'a> {
    /// Who the server is.
    pub identity: &'a Identity,
    /// The host that clients are told.
    pub host: String,
    /// The port that clients are told.
    pub port: u16,
    /// The port for WebSocket clients.
    pub websocket_port: Option<u16>,
    /// What it runs with.
    pub options: &'a Options,
    /// When that was read.
    pub configured: Timestamp,
    /// When this was taken.
    pub now: Timestamp,
    /// The same moment on the brokers' clock.
    pub now_us: u64,
    /// What the process uses.
    pub process: ProcessReading,
    /// The workers' counters.
    pub workers: Vec<WorkerReading>,
    /// What streams do at all workers together.
    pub stream_times: StreamTimes,
    /// The accounts, the global one first.
    pub accounts: Vec<AccountReading>,
    /// Connections ever accepted.
    pub total_connections: u64,
    /// Routes to other servers.
    pub routes: u64,
    /// The name of the cluster; empty without one.
    pub cluster_name: String,
    /// The port that is listened on for other servers.
    pub route_port: Option<u16>,
    /// Requests per path.
    pub requests: &'a RequestCounts,
}

/// Requests per path since the start.
pub type RequestCounts = BTreeMap<&'static str, u64>;

impl Snapshot<'_> {
    /// All workers together.
    pub fn total(&self) -> WorkerReading {
        let mut total = WorkerReading::default();
        for worker in &self.workers {
            let Stats {
                messages,
                deliveries,
                slow_consumers,
                stale_connections,
                holds,
                subscriptions,
                subscribed,
                handed_over,
            } = worker.stats;
            add(&mut total.stats.messages, messages);
            add(&mut total.stats.deliveries, deliveries);
            total.stats.slow_consumers += slow_consumers;
            total.stats.stale_connections += stale_connections;
            total.stats.holds += holds;
            total.stats.subscriptions += subscriptions;
            total.stats.subscribed += subscribed;
            total.stats.handed_over += handed_over;
            total.connections += worker.connections;
            total.cached_subjects += worker.cached_subjects;
            total.index_reads += worker.index_reads;
        }
        total
    }

    /// All subscriptions, those of the server itself included.
    pub fn subscriptions(&self) -> u64 {
        self.total().stats.subscriptions + self.internal_subscriptions()
    }

    /// Subscriptions of the server itself.
    pub fn internal_subscriptions(&self) -> u64 {
        self.accounts.iter().map(|account| account.internal).sum()
    }

    /// The account with this name.
    pub fn account(&self, name: &str) -> Option<&AccountReading> {
        self.accounts.iter().find(|account| account.name == name)
    }

    /// The name of the system's own account; empty without one.
    pub fn system_account(&self) -> &str {
        self.accounts.iter().find(|account| account.is_system).map_or("", |account| &account.name)
    }

    /// How long the server has been running.
    pub fn uptime(&self) -> Duration {
        self.now.0.duration_since(self.identity.started.0).unwrap_or_default()
    }
}

fn add(total: &mut Counts, counts: Counts) {
    total.count += counts.count;
    total.bytes += counts.bytes;
}
