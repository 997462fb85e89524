//! What the threads of the server share: the index of each account behind its lock, and each worker's door.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::handshakes::Handshakes;
use super::inquiry::Question;
use super::internal::Internal;
use super::jetstream::orders::OrderBox;
use super::moves::Moves;
use super::password_checks::PasswordChecks;
use super::placement::Placement;
use super::readings::{PublishedReading, PublishedStreamTimes};
use super::routes::RouteDesk;
use super::worker::WebEntrance;
use super::worker::moving::LoadBoard;
use crate::auth::Account;
use crate::base::handover::Sleeper;
use crate::broker::{Settings, Verdict};
use crate::io::listener::Entrance;
use crate::io::wake::Waker;
use crate::monitor::closed::ClosedRing;
use crate::monitor::readings::{AccountReading, StreamTimes, WorkerReading};
use crate::subject::interest::{Generations, Interest, InterestAccess};
use crate::tls::{Acceptor, Progress};
use crate::wire::info::Info;

/// An account's index behind a lock. It is taken for changes and for subjects that no cache holds, never for a message
/// whose fan-out list is cached.
#[derive(Clone)]
pub struct SharedInterest {
    interest: Arc<RwLock<Interest>>,
    generations: Arc<Generations>,
}

impl Default for SharedInterest {
    fn default() -> SharedInterest {
        let interest = Interest::default();
        let generations = interest.generations().clone();
        SharedInterest { interest: Arc::new(RwLock::new(interest)), generations }
    }
}

impl fmt::Debug for SharedInterest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedInterest(…)")
    }
}

impl InterestAccess for SharedInterest {
    fn read<R>(&self, look: impl FnOnce(&Interest) -> R) -> R {
        look(&self.interest.read())
    }

    fn write<R>(&self, change: impl FnOnce(&mut Interest) -> R) -> R {
        change(&mut self.interest.write())
    }

    fn generations(&self) -> &Generations {
        &self.generations
    }
}

/// A connection on its way from the accepting worker to its own.
#[derive(Debug)]
pub struct Accepted {
    /// Its number.
    pub cid: u64,
    /// Its socket.
    pub fd: OwnedFd,
    /// Its remote address.
    pub addr: SocketAddr,
    /// Which way it has come.
    pub entrance: Entrance,
    /// Why it is refused.
    pub refusal: Option<Refusal>,
}

/// Why a connection is refused before it has said anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There are as many as may be.
    TooMany,
    /// There were more within a second than may be.
    TooFast,
}

/// A handshake that a thread has taken a step further.
#[derive(Debug)]
pub struct AdvancedHandshake {
    /// The connection's slot.
    pub conn: u32,
    /// Its number.
    pub cid: u64,
    /// What came of it.
    pub progress: Progress,
}

/// What became of a password that a worker wanted to have checked.
#[derive(Debug)]
pub struct CheckedPassword {
    /// The connection's slot.
    pub conn: u32,
    /// Names the check.
    pub serial: u32,
    /// The answer.
    pub verdict: Verdict,
}

/// The number of the first connection. Those below are the reference's internal clients.
pub const FIRST_CID: u64 = 5;

/// How others reach one worker.
#[derive(Debug)]
pub struct Door {
    /// Wakes it.
    pub waker: Waker,
    /// Whether it needs to be woken.
    pub sleeper: Sleeper,
    /// Connections it is to take.
    pub accepted: Mutex<Vec<Accepted>>,
    /// Whether `accepted` has something, readable without its lock.
    pub has_accepted: AtomicBool,
    /// Passwords that have been checked for it.
    pub verdicts: Mutex<Vec<CheckedPassword>>,
    /// Whether `verdicts` has something, readable without its lock.
    pub has_verdicts: AtomicBool,
    /// Handshakes that have been carried on for it.
    pub handshakes: Mutex<Vec<AdvancedHandshake>>,
    /// Whether `handshakes` has something, readable without its lock.
    pub has_handshakes: AtomicBool,
    /// Connections it has or is to take, without those that it is closing.
    pub connections: AtomicUsize,
    /// WebSocket connections before the end of their handshakes, and connections of other servers.
    pub guests: AtomicUsize,
    /// The version of the settings that it goes by.
    pub settings_version: AtomicU64,
    /// What it has to do, and what it is told about that.
    pub load: LoadBoard,
    /// Its counters.
    pub reading: PublishedReading,
    /// What its streams do.
    pub stream_times: PublishedStreamTimes,
    /// What it is asked.
    pub question: Mutex<Option<Question>>,
    /// Whether it is asked something, readable without that lock.
    pub has_question: AtomicBool,
    /// What is to be done with its streams.
    pub orders: OrderBox,
}

/// What a reload changes for the workers.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    /// What the brokers enforce.
    pub settings: Arc<Settings>,
    /// What all `INFO` lines share.
    pub info: Info,
    /// The index of each account, by slot.
    pub interests: Vec<SharedInterest>,
    /// What encrypted connections are accepted with.
    pub acceptor: Option<Arc<Acceptor>>,
    /// What WebSocket connections are accepted with.
    pub web_entrance: Option<Arc<WebEntrance>>,
}

impl Door {
    /// A door that `waker` opens.
    pub fn new(waker: Waker) -> Door {
        Door {
            waker,
            sleeper: Sleeper::default(),
            accepted: Mutex::new(Vec::new()),
            has_accepted: AtomicBool::new(false),
            verdicts: Mutex::new(Vec::new()),
            has_verdicts: AtomicBool::new(false),
            handshakes: Mutex::new(Vec::new()),
            has_handshakes: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            guests: AtomicUsize::new(0),
            settings_version: AtomicU64::new(0),
            load: LoadBoard::default(),
            reading: PublishedReading::default(),
            stream_times: PublishedStreamTimes::default(),
            question: Mutex::new(None),
            has_question: AtomicBool::new(false),
            orders: OrderBox::default(),
        }
    }

    /// Tells the worker about a password.
    pub fn put_verdict(&self, verdict: CheckedPassword) {
        self.verdicts.lock().push(verdict);
        self.has_verdicts.store(true, Ordering::Release);
        self.knock();
    }

    /// The passwords that have been checked since the last call.
    pub fn take_verdicts(&self) -> Vec<CheckedPassword> {
        if !self.has_verdicts.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut verdicts = self.verdicts.lock();
        self.has_verdicts.store(false, Ordering::Release);
        std::mem::take(&mut *verdicts)
    }

    /// Tells the worker about a handshake.
    pub fn put_handshake(&self, handshake: AdvancedHandshake) {
        self.handshakes.lock().push(handshake);
        self.has_handshakes.store(true, Ordering::Release);
        self.knock();
    }

    /// The handshakes that have been carried on since the last call.
    pub fn take_handshakes(&self) -> Vec<AdvancedHandshake> {
        if !self.has_handshakes.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut handshakes = self.handshakes.lock();
        self.has_handshakes.store(false, Ordering::Release);
        std::mem::take(&mut *handshakes)
    }

    /// Asks the worker, in the place of whoever asked before and has not been answered.
    pub fn ask(&self, question: Question) {
        *self.question.lock() = Some(question);
        self.has_question.store(true, Ordering::Release);
        self.knock();
    }

    /// Wakes the worker if it sleeps.
    pub fn knock(&self) {
        if self.sleeper.must_wake() {
            self.waker.wake();
        }
    }
}

/// The state of the whole server.
#[derive(Debug)]
pub struct Shared {
    /// The moment that the brokers' clock counts from.
    pub started: Instant,
    /// Whether counters are published: as soon as somebody may ask for them.
    pub is_monitored: AtomicBool,
    /// Whether closed connections are remembered.
    pub remembers_closed: AtomicBool,
    /// The server's own client.
    pub internal: Internal,
    /// What there is about routes to other servers; `None`: there is no cluster.
    pub routes: Option<RouteDesk>,
    /// The connections that were closed lately.
    pub closed: Mutex<ClosedRing>,
    /// One door per worker.
    pub doors: Vec<Door>,
    /// The next connection's number.
    pub next_cid: AtomicU64,
    /// The next guest's.
    pub next_guest: AtomicU64,
    /// Connections allowed; 0 or less refuses everybody.
    pub connections_max: AtomicI64,
    /// Connections that are to be closed because a reload allows fewer.
    pub connections_surplus: AtomicI64,
    /// The settings that workers are to go by, and which they are.
    pub live: Mutex<LiveSettings>,
    /// Counts the changes of `live`; readable without its lock.
    pub settings_version: AtomicU64,
    /// Told when a worker has taken settings over.
    pub settings_taken: Notify,
    /// Set when everything is there that clients may ask for: connections are accepted.
    pub is_open: AtomicBool,
    /// Set when the server is to stop.
    pub stopping: AtomicBool,
    /// Where passwords are held against hashes.
    pub password_checks: OnceLock<PasswordChecks>,
    /// Where handshakes are carried on.
    pub handshakes: OnceLock<Handshakes>,
    /// Where connections should be.
    pub placement: Mutex<Placement>,
    /// Connections on their way from one worker to another.
    pub moves: Moves,
    /// Workers that, as the server stops, have nothing more for the others.
    pub quiet: AtomicUsize,
    /// Told when a lot of memory was freed at once.
    pub memory_freed: Notify,
    /// Set when the server is in lame duck mode: when connections are closed, from and until.
    pub lame_duck: OnceLock<(Instant, Instant)>,
}

impl Shared {
    /// Connections of all workers.
    pub fn connections(&self) -> usize {
        self.doors.iter().map(|door| door.connections.load(Ordering::Relaxed)).sum()
    }

    /// Connections ever accepted.
    pub fn total_connections(&self) -> u64 {
        self.next_cid.load(Ordering::Relaxed) - FIRST_CID
    }

    /// The counters of all workers, as published last.
    pub fn readings(&self) -> Vec<WorkerReading> {
        let read = |door: &Door| WorkerReading {
            connections: door.connections.load(Ordering::Relaxed) as u64,
            ..door.reading.read()
        };
        self.doors.iter().map(read).collect()
    }

    /// What streams do at all workers.
    pub fn stream_times(&self) -> StreamTimes {
        let mut total = StreamTimes::default();
        self.doors.iter().for_each(|door| total.add(&door.stream_times.read()));
        total
    }

    /// The accounts.
    pub fn account_readings(&self) -> Vec<AccountReading> {
        let LiveSettings { settings, interests, .. } = self.live.lock().clone();
        let reading = |account: &Arc<Account>| {
            let (subscriptions, subscribed, internal) =
                interests[usize::from(account.slot)].read(|interest| {
                    (interest.len() as u64, interest.subscribed(), interest.internal_len() as u64)
                });
            AccountReading {
                slot: account.slot,
                name: account.name.clone(),
                is_system: account.is_system,
                connections: u64::from(account.connections()),
                subscriptions,
                subscribed,
                internal,
                account: account.clone(),
            }
        };
        settings.directory.accounts().iter().map(reading).collect()
    }

    /// The worker with the fewest connections; of several the first.
    pub fn least_loaded(&self) -> usize {
        let loads = self
            .doors
            .iter()
            .map(|door| door.connections.load(Ordering::Relaxed) + door.guests.load(Ordering::Relaxed));
        loads.enumerate().min_by_key(|(_, load)| *load).map_or(0, |(worker, _)| worker)
    }

    /// Makes all workers go by other settings, and waits until they do. `connections_max` may have fallen below what
    /// is connected; returns how many connections are closed for that.
    pub async fn change_settings(&self, live: LiveSettings, connections_max: i64) -> i64 {
        self.connections_max.store(connections_max, Ordering::Relaxed);
        let surplus = (self.connections() as i64 - connections_max.max(0)).max(0);
        self.connections_surplus.store(surplus, Ordering::Relaxed);
        let version = {
            let mut current = self.live.lock();
            *current = live;
            self.settings_version.fetch_add(1, Ordering::SeqCst) + 1
        };
        for door in &self.doors {
            door.waker.wake();
        }
        while self.doors.iter().any(|door| door.settings_version.load(Ordering::Acquire) < version) {
            self.settings_taken.notified().await;
        }
        surplus - self.connections_surplus.swap(0, Ordering::Relaxed)
    }

    /// Has connections accepted.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
        for door in &self.doors {
            door.waker.wake();
        }
    }

    /// Tells all workers to take no more connections, and when to close the ones they have.
    pub fn enter_lame_duck(&self, close_from: Instant, close_until: Instant) {
        let _ = self.lame_duck.set((close_from, close_until));
        for door in &self.doors {
            door.waker.wake();
        }
    }

    /// Tells all workers to stop.
    pub fn stop(&self) {
        self.moves.bar_for_good();
        self.stopping.store(true, Ordering::SeqCst);
        for door in &self.doors {
            door.waker.wake();
        }
    }
}
