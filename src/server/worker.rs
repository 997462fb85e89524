//! One worker's loop: a task in a tokio-uring or, on epoll, a plain tokio runtime that drives the worker's sockets and its broker. It is generic over
//! what drives the sockets (`io::socket_driver`).
//!
//! A turn:
//!
//! 1. submit what the last turn queued and reap what has completed;
//! 2. take connections and batches that others have put at the door;
//! 3. hand the bytes that arrived to the broker;
//! 4. hand batches to other workers, one wake-up each;
//! 5. queue one send for every connection with output.
//!
//! The order of 1, 2 and 3 keeps a promise that clients rely on. A `PONG` tells a publisher that what it published
//! before has been routed: whatever another client does after it has heard of that must come after those messages. Its
//! publisher's worker has put them at the other worker's door (4) before the `PONG` went out (5, submitted in the next
//! 1). The other client's bytes can thus only be reaped (1) when the messages are at the door already, and they are
//! taken (2) before the bytes are handled (3). For the same reason nothing is read while a door is too full to take
//! what the reading may produce. A turn takes only so much from its door; then the bytes of that reap wait until all
//! that was there has been taken (`owed`), and what is reaped meanwhile waits behind them (`arrived`). While the log is
//! far behind, nothing is taken and nothing handled; what is to be sent goes out all the same.
//!
//! Connections move between workers when that pays: [`super::placement`] says when, [`moving`] is the worker's part.
//!
//! With nothing to do the worker sleeps in the runtime until its eventfd is written or a deadline comes.

mod framed;
mod latency;
mod links;
pub mod moving;
mod routes;
mod secured;
mod streams;
mod turn_clock;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub use self::framed::WebEntrance;
use self::latency::LatencyNotes;
use self::links::{Layer, Links};
use self::moving::Moving;
use self::streams::Streams;
use self::turn_clock::TurnClock;
use super::closing_schedule::ClosingSchedule;
use super::log::{Log, LogPace};
use super::monitored::{Monitored, TurnEnd};
use super::shared::{Accepted, CheckedPassword, Refusal, Shared, SharedInterest};
use crate::base::buffer_slab::Lease;
use crate::base::handover::{Receiver, Sender};
use crate::broker::session::Session;
use crate::broker::{Batch, Broker, CloseReason, Input, Verdict};
use crate::io::files::FileRoom;
use crate::io::listener::{Entrance, Listener};
use crate::io::socket_driver::{Completion, Driver, SEND_SLICES_MAX, SocketDriver};
use crate::io::socket_poll::SocketPoll;
use crate::io::socket_ring::{self, RingError};
use crate::io::wake::Waker;
use crate::tls::Acceptor;

/// Room that every door must have before input is handled. A turn fills at most two batches for each.
const ROOM_MIN: usize = 4;

/// Full batches that wait for the server's own client to have room for them. Beyond, the oldest are dropped.
const INTERNAL_BATCHES_MAX: usize = 256;

/// Reads of one connection that may wait before no more are asked for.
const WAITING_READS_MAX: usize = 2;

/// Bytes of waiting reads that are copied out of the read buffers. Beyond, they keep their buffers, and the worker reads
/// no more until some are free.
const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How often sends are checked against the write deadline, at least.
const SEND_CHECK_MS: u64 = 100;

/// How long a worker that stops waits for the others to have nothing more for it.
const STOP_PATIENCE_MS: u64 = 1_000;

/// How long a closing connection may take to send what is queued for it.
const LINGER_MS: u64 = 2_000;

/// Pause after accepting failed, mostly for lack of descriptors.
const ACCEPT_PAUSE_MS: u64 = 100;

/// A connection that leaves so many unsent bytes behind has its memory given back to the system.
const FREED_BYTES_WORTH_TELLING: usize = 4 * 1024 * 1024;

/// Turns with nothing to do before the worker sleeps, some 15 µs in all. In between it offers its core to whoever else
/// wants it. Sleeping and being woken costs the two sides more than that, above all in a virtual machine, where the
/// wake-up is an interrupt to another core: at one request at a time this is 63 µs of CPU per request instead of 109,
/// and a third of the latency. 120 turns gain nothing more; 10 are too few.
const IDLE_TURNS: u32 = 40;

/// Turns without a pause after which the runtime gets a chance to run its other tasks.
const TURNS_PER_YIELD: u32 = 32;

/// What a worker is made of.
pub struct WorkerParts {
    /// Its number.
    pub worker: usize,
    /// Its core.
    pub broker: Broker<SharedInterest>,
    /// Queues to the other workers, `None` at its own place; behind the last that to the server's own client.
    pub outboxes: Vec<Option<Sender<Batch>>>,
    /// Queues from the same.
    pub inboxes: Vec<Option<Receiver<Batch>>>,
    /// The doors of all.
    pub shared: Arc<Shared>,
    /// The listener, at the worker that accepts.
    pub listener: Option<Listener>,
    /// What encrypted connections are accepted with.
    pub acceptor: Option<Arc<Acceptor>>,
    /// What WebSocket connections are accepted with.
    pub web_entrance: Option<Arc<WebEntrance>>,
    /// Time that one send may take.
    pub write_deadline_ms: u64,
    /// The log.
    pub log: Log,
}

/// Bytes that arrived and have not been handled to the end.
struct Read {
    conn: u32,
    bytes: ReadBytes,
    taken: usize,
    /// When they were reaped, in microseconds since the server's start.
    reaped_us: u64,
    /// How far they have come, on a connection with a link.
    layer: Layer,
}

enum ReadBytes {
    /// In the buffer that the kernel filled.
    Leased(Lease),
    /// Copied out of it, because it has to wait and buffers are scarce.
    Kept(Vec<u8>),
}

/// A connection on its way out.
struct Closing {
    conn: u32,
    reason: CloseReason,
    /// What is queued for it is to be sent until then.
    flush_until_ms: Option<u64>,
}

struct Worker<D> {
    parts: WorkerParts,
    ring: D,
    started: Instant,
    /// When the turn began, since the server started.
    now_us: u64,
    now_ms: u64,
    clock: TurnClock,
    latency: LatencyNotes,
    moving: Moving,
    links: Links,
    streams: Streams,
    completions: Vec<Completion>,
    /// Bytes to be handled.
    reads: VecDeque<Read>,
    /// Bytes that came while batches are owed from before them.
    arrived: VecDeque<Read>,
    kept_bytes: usize,
    /// Batches to be taken from each worker before `reads` may be handled.
    owed: Vec<usize>,
    /// Connections at their end, to be closed when their reads are through.
    ended: Vec<(u32, CloseReason)>,
    /// Connections that do not receive although they should, for lack of buffers or because input waits.
    unarmed: VecDeque<u32>,
    closing: Vec<Closing>,
    sends_checked_ms: u64,
    /// Whether the log is so far behind that no input is handled.
    held_by_log: bool,
    log_pace: LogPace,
    accept_at_ms: Option<u64>,
    settings_version: u64,
    /// Which addresses of other servers clients have been told.
    urls_version: u64,
    stopping: bool,
    /// As the server stops: nothing more comes from here.
    quiet: bool,
    /// As the server stops: when connections are closed whatever the others do.
    stop_by_ms: u64,
    /// Lame duck mode has begun: when the next connections are closed.
    lame_duck_next_ms: Option<u64>,
    /// Made when the first is closed.
    closing_schedule: Option<ClosingSchedule>,
    monitored: Monitored,
    /// The server's own client has got something in this turn.
    knocks_internal: bool,
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No io_uring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// No runtime, or no epoll.
    #[error("a worker cannot be set up: {0}")]
    System(#[from] std::io::Error),
}

/// How a worker starts: it sets up a driver, tells whether it could, and waits for what is to follow. So all workers take
/// the same driver, and none takes connections before all can.
pub struct Start {
    /// Tells whether the driver could be set up.
    pub set_up: mpsc::Sender<Result<(), WorkerError>>,
    /// Answers that. A worker that gets no answer ends.
    pub next: mpsc::Receiver<Next>,
}

/// What follows when the drivers of all workers have been set up, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// They all run.
    Run,
    /// They all try another one.
    Try(Driver),
}

/// Runs a worker to its end, with `driver` unless it is told to try another one.
pub fn run(mut driver: Driver, parts: WorkerParts, start: &Start) {
    loop {
        let waker = &parts.shared.doors[parts.worker].waker;
        let next = match driver {
            Driver::Uring => match start.agree(socket_ring::set_up(waker).map_err(WorkerError::from)) {
                Ok((runtime, ring)) => return runtime.block_on(Worker::new(parts, ring, driver).run()),
                Err(next) => next,
            },
            Driver::Epoll => match start.agree(set_up_epoll(waker)) {
                Ok((runtime, poll)) => return runtime.block_on(Worker::new(parts, poll, driver).run()),
                Err(next) => next,
            },
        };
        match next {
            Some(other) => driver = other,
            None => return,
        }
    }
}

fn set_up_epoll(waker: &Waker) -> Result<(tokio::runtime::Runtime, SocketPoll), WorkerError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok((runtime, SocketPoll::new(waker)?))
}

impl Start {
    /// What was set up, if all workers run with it; otherwise it is dropped, and the result is what to try instead, or
    /// nothing.
    fn agree<T>(&self, set_up: Result<T, WorkerError>) -> Result<T, Option<Driver>> {
        let (told, driven) = match set_up {
            Ok(driven) => (Ok(()), Some(driven)),
            Err(error) => (Err(error), None),
        };
        self.set_up.send(told).map_err(|_| None)?;
        match (self.next.recv(), driven) {
            (Ok(Next::Run), Some(driven)) => Ok(driven),
            (Ok(Next::Try(driver)), _) => Err(Some(driver)),
            (Ok(Next::Run), None) | (Err(mpsc::RecvError), _) => Err(None),
        }
    }
}

impl<D: SocketDriver> Worker<D> {
    fn new(mut parts: WorkerParts, ring: D, driver: Driver) -> Worker<D> {
        let owed = vec![0; parts.inboxes.len()];
        let links = Links::new(parts.acceptor.take(), parts.web_entrance.take());
        let (shared, worker) = (parts.shared.clone(), parts.worker);
        let files = FileRoom::new(driver, move || shared.doors[worker].knock());
        // The same for all workers: connections take their times with them when they move.
        let started = parts.shared.started;
        Worker {
            ring,
            started,
            monitored: Monitored::new(parts.worker),
            parts,
            now_ms: 0,
            now_us: 0,
            clock: TurnClock::new(started),
            latency: LatencyNotes::default(),
            moving: Moving::default(),
            links,
            streams: Streams::new(files),
            completions: Vec::new(),
            reads: VecDeque::new(),
            arrived: VecDeque::new(),
            kept_bytes: 0,
            owed,
            ended: Vec::new(),
            unarmed: VecDeque::new(),
            closing: Vec::new(),
            sends_checked_ms: 0,
            held_by_log: false,
            log_pace: LogPace::default(),
            accept_at_ms: None,
            settings_version: 0,
            urls_version: 0,
            stopping: false,
            quiet: false,
            stop_by_ms: 0,
            lame_duck_next_ms: None,
            closing_schedule: None,
            knocks_internal: false,
        }
    }

    async fn run(mut self) {
        let sleep = match self.ring.sleeper() {
            Ok(sleep) => sleep,
            Err(error) => panic!("the runtime cannot watch what wakes the worker: {error}"),
        };
        let mut turns = 0u32;
        let mut idle_turns = 0u32;
        let mut busy = false;
        loop {
            busy = self.turn(busy);
            if self.streams.waits_for_files()
                && let Err(error) = self.streams.look_after_files().await
            {
                panic!("files cannot be written: {error}");
            }
            if self.quiet && self.parts.broker.connection_count() == 0 && self.parts.shared.moves.are_none() {
                return;
            }
            if busy {
                turns += 1;
                idle_turns = 0;
                if turns.is_multiple_of(TURNS_PER_YIELD) {
                    tokio::task::yield_now().await;
                }
                continue;
            }
            idle_turns += 1;
            // A disk takes longer than it pays to look for.
            if idle_turns <= IDLE_TURNS && !self.streams.waits_for_files() {
                std::thread::yield_now();
                continue;
            }
            if self.may_sleep() {
                let deadline_ms = self.next_deadline_ms();
                match deadline_ms {
                    Some(at_ms) => {
                        let pause = Duration::from_millis(at_ms.saturating_sub(self.elapsed_ms()).max(1));
                        let _ = tokio::time::timeout(pause, sleep.wait()).await;
                    }
                    None => sleep.wait().await,
                }
            }
            self.parts.shared.doors[self.parts.worker].sleeper.awake();
            self.ring.wake_up();
        }
    }

    fn elapsed_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// One turn; whether it is likely that the next one has something to do.
    fn turn(&mut self, was_busy: bool) -> bool {
        let now = Instant::now();
        self.clock.begin_turn(now, was_busy, self.held_by_log);
        let now = now.duration_since(self.started);
        self.now_us = now.as_micros() as u64;
        self.now_ms = self.now_us / 1000;
        self.parts.broker.begin_turn(now);
        if let Err(error) = self.ring.turn(&mut self.completions) {
            panic!("the socket ring is broken: {error}");
        }
        let mut busy = !self.completions.is_empty();
        self.handle_completions();
        busy |= self.take_accepted();
        busy |= self.take_verdicts();
        busy |= self.take_handshakes();
        self.held_by_log = self.parts.log.holds_back(&mut self.log_pace, self.now_ms);
        if !self.held_by_log {
            busy |= self.take_batches();
            self.take_moved();
            if self.owes_nothing() && !self.stopping {
                busy |= self.handle_reads();
            }
        }
        busy |= self.streams.turn(
            &mut self.parts.broker,
            &self.parts.shared.doors[self.parts.worker].orders,
            &self.parts.log,
        );
        if let Some(times) = self.streams.take_new_times() {
            self.parts.shared.doors[self.parts.worker].stream_times.publish(times);
        }
        busy |= self.look_after_routes();
        self.end_connections();
        self.check_sends();
        self.check_settings();
        self.begin_accepting();
        self.submit_password_checks();
        self.check_stopping();
        self.check_lame_duck();
        self.resume_accepting();
        self.send_batches();
        self.observe_loads();
        self.take_order();
        if !self.moving.is_empty() && self.depart_connections() {
            busy = true;
            self.send_batches();
        }
        self.close_connections();
        let sent_us = if busy { self.started.elapsed().as_micros() as u64 } else { self.now_us };
        self.latency.end_turn(sent_us);
        busy |= self.publish();
        if std::mem::take(&mut self.knocks_internal) {
            self.parts.shared.internal.knock();
        }
        self.start_sends(sent_us);
        busy |= self.rearm();
        self.write_log();
        busy
    }

    fn handle_completions(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            match completion {
                Completion::Received { conn, lease } => {
                    let bytes = ReadBytes::Leased(lease);
                    self.arrived.push_back(Read {
                        conn,
                        bytes,
                        taken: 0,
                        reaped_us: self.now_us,
                        layer: Layer::Socket,
                    });
                }
                Completion::Sent { conn, result } => self.handle_sent(conn, result),
                Completion::Ended { conn, error } => {
                    let reason = match error {
                        None => CloseReason::ClientClosed,
                        Some(_) => CloseReason::ReadError,
                    };
                    // What arrived before the end is handled first, in its turn.
                    self.ended.push((conn, reason));
                }
                Completion::Stopped { conn } => self.unarmed.push_back(conn),
                Completion::Accepted { fd, entrance } => self.place(fd, entrance),
                Completion::AcceptStopped { error } => {
                    self.parts.log.error(format!("Temporary Client Accept Error ({error}), sleeping"));
                    self.accept_at_ms = Some(self.now_ms + ACCEPT_PAUSE_MS);
                }
            }
        }
        self.completions = completions;
    }

    fn handle_sent(&mut self, conn: u32, result: std::io::Result<usize>) {
        match result {
            Ok(mut len) if len > 0 => {
                let has_link = self.links.has(conn);
                if has_link {
                    len = self.end_link_send(conn, len);
                }
                self.parts.broker.handle_sent(conn, len);
                self.latency.send_ends(conn, self.now_us, self.parts.broker.pending_bytes(conn) == 0);
                if self.parts.broker.pending_bytes(conn) > 0 || has_link && self.links.has_control(conn) {
                    self.start_send(conn);
                }
            }
            _ => self.parts.broker.close(conn, CloseReason::WriteError),
        }
    }

    /// Gives a new connection to the worker that has the fewest.
    fn place(&mut self, fd: std::os::fd::OwnedFd, entrance: Entrance) {
        let shared = &self.parts.shared;
        let socket = socket2::SockRef::from(&fd);
        // A connection that is gone already has no address.
        let Some(addr) = socket.peer_addr().ok().and_then(|addr| addr.as_socket()) else { return };
        let addr = std::net::SocketAddr::new(addr.ip().to_canonical(), addr.port());
        let per_second = self.parts.broker.settings().tls.map_or(0, |terms| terms.connections_per_second);
        match entrance {
            Entrance::WebSocket => return self.place_guest(fd, addr),
            Entrance::Route => return self.place_route(fd, addr),
            Entrance::Client => {}
        }
        let refusal = if shared.connections() as i64 >= shared.connections_max.load(Ordering::Relaxed) {
            Some(Refusal::TooMany)
        } else if !self.links.tls.may_accept(self.now_ms, per_second) {
            Some(Refusal::TooFast)
        } else {
            None
        };
        let worker = shared.least_loaded();
        let door = &shared.doors[worker];
        door.connections.fetch_add(1, Ordering::Relaxed);
        let cid = shared.next_cid.fetch_add(1, Ordering::Relaxed);
        door.accepted.lock().push(Accepted { cid, fd, addr, entrance, refusal });
        door.has_accepted.store(true, Ordering::Release);
        if worker != self.parts.worker {
            door.knock();
        }
    }

    fn take_accepted(&mut self) -> bool {
        let door = &self.parts.shared.doors[self.parts.worker];
        if !door.has_accepted.load(Ordering::Acquire) {
            return false;
        }
        let accepted = {
            let mut waiting = door.accepted.lock();
            door.has_accepted.store(false, Ordering::Release);
            std::mem::take(&mut *waiting)
        };
        for Accepted { cid, fd, addr, entrance, refusal } in accepted {
            match entrance {
                Entrance::WebSocket => {
                    self.take_guest(cid, fd, addr);
                    continue;
                }
                Entrance::Route => {
                    self.take_route(cid, fd, addr, None);
                    continue;
                }
                Entrance::Client => {}
            }
            let secured = self.open_secured(cid, addr, &fd);
            let conn = secured.unwrap_or_else(|| self.parts.broker.open(cid, addr));
            self.ring.add(conn, fd);
            self.ring.arm(conn);
            match refusal {
                Some(Refusal::TooMany) => self.parts.broker.refuse(conn),
                Some(Refusal::TooFast) => self.parts.broker.throttle(conn),
                None if self.stopping => self.parts.broker.close(conn, CloseReason::ServerShutdown),
                None if secured.is_some() => self.parts.broker.await_handshake(conn),
                None => {}
            }
        }
        true
    }

    /// Goes on with connections whose passwords have been checked. What they sent meanwhile comes before anything that
    /// is to be handled.
    fn take_verdicts(&mut self) -> bool {
        let verdicts = self.parts.shared.doors[self.parts.worker].take_verdicts();
        for CheckedPassword { conn, serial, verdict } in &verdicts {
            if let Some(input) = self.parts.broker.handle_verdict(*conn, *serial, *verdict) {
                self.kept_bytes += input.len();
                let bytes = ReadBytes::Kept(input);
                self.reads.push_front(Read {
                    conn: *conn,
                    bytes,
                    taken: 0,
                    reaped_us: self.now_us,
                    layer: Layer::Protocol,
                });
            }
        }
        !verdicts.is_empty()
    }

    /// Has the passwords checked that the turn's logins came with.
    fn submit_password_checks(&mut self) {
        while let Some(check) = self.parts.broker.poll_password_check() {
            let (conn, serial) = (check.conn, check.serial);
            let patience = Duration::from_millis(self.parts.broker.settings().auth_timeout_ms);
            let checks = self.parts.shared.password_checks.get().expect("set before there are workers");
            if !checks.submit(self.parts.worker, check, patience) {
                self.parts.broker.handle_verdict(conn, serial, Verdict::TooLate);
            }
        }
    }

    /// Takes batches, as many as the turn has room for, at least one from each worker that has some.
    fn take_batches(&mut self) -> bool {
        if self.owes_nothing() {
            // What is at the door now has to come before what this reap brought; what is added later does not.
            for (owed, inbox) in self.owed.iter_mut().zip(&self.parts.inboxes) {
                *owed = inbox.as_ref().map_or(0, Receiver::waiting);
            }
            self.reads.append(&mut self.arrived);
        }
        let mut any = false;
        // The server's own client comes first, and all that it has: it is looked into last, and knows nothing of
        // connections that move (see `broker::internal`).
        let internal = self.internal();
        for from in std::iter::once(internal).chain(0..internal) {
            let mut first = true;
            while self.owed[from] > 0 && (first || from == internal || !self.parts.broker.turn_is_full()) {
                let Some(mut batch) = self.parts.inboxes[from].as_mut().and_then(Receiver::receive) else {
                    unreachable!("it was there, and nobody else takes it");
                };
                self.owed[from] -= 1;
                (first, any) = (false, true);
                self.monitored.batches_received += 1;
                // A connection that has moved may belong to an account that its old worker has heard of already.
                self.check_settings();
                let before = self.parts.broker.stats().handed_over;
                self.parts.broker.handle_batch(from as u16, &batch);
                self.latency.handed_over(batch.given_us, self.parts.broker.stats().handed_over - before);
                batch.clear();
                if let Some(inbox) = &mut self.parts.inboxes[from] {
                    inbox.give_back(batch);
                }
            }
        }
        any
    }

    /// The place of the server's own client among the queues.
    fn internal(&self) -> usize {
        self.parts.shared.doors.len()
    }

    fn owes_nothing(&self) -> bool {
        self.owed.iter().all(|owed| *owed == 0)
    }

    /// Handles the reads that wait. Those of a connection stay in order; a connection that has to wait goes behind the
    /// others, so that each gets its turn.
    fn handle_reads(&mut self) -> bool {
        if self.reads.is_empty() {
            return false;
        }
        if !self.has_room() {
            // The other worker is behind; it works, so this ends.
            std::thread::yield_now();
            return true;
        }
        let mut busy = false;
        let mut left = VecDeque::new();
        let mut stuck: HashSet<u32> = HashSet::new();
        while let Some(mut read) = self.reads.pop_front() {
            let must_wait = self.parts.broker.is_held(read.conn) || self.links.is_away(read.conn);
            if must_wait || (!stuck.is_empty() && stuck.contains(&read.conn)) {
                stuck.insert(read.conn);
                left.push_back(read);
                continue;
            }
            match self.handle_read(&mut read) {
                Input::Taken | Input::Closed => {
                    self.drop_read(read);
                    busy = true;
                }
                Input::Yielded(_) => {
                    stuck.insert(read.conn);
                    // A hold ends by an event or its deadline; anything else goes on in the next turn.
                    busy |= !self.parts.broker.is_held(read.conn);
                    left.push_back(read);
                    if self.parts.broker.wants_turn_to_end() || !self.has_room() {
                        break;
                    }
                }
            }
        }
        if !stuck.is_empty() {
            let (behind, mut first): (VecDeque<Read>, VecDeque<Read>) =
                std::mem::take(&mut self.reads).into_iter().partition(|read| stuck.contains(&read.conn));
            first.append(&mut left);
            first.extend(behind);
            self.reads = first;
            for conn in stuck {
                // One read that waits is soon through; stopping and asking again would cost more.
                if self.reads.iter().filter(|read| read.conn == conn).count() >= WAITING_READS_MAX {
                    self.ring.stop(conn);
                }
            }
            self.spare_buffers();
        }
        busy
    }

    /// Copies waiting bytes out of the read buffers when those become scarce, so that connections that have to wait
    /// do not keep others from being read.
    fn spare_buffers(&mut self) {
        if self.ring.leased_count() * 2 <= self.ring.buffer_count() {
            return;
        }
        for read in &mut self.reads {
            let ReadBytes::Leased(lease) = &read.bytes else { continue };
            if self.kept_bytes >= KEPT_BYTES_MAX {
                return;
            }
            let kept = self.ring.bytes(lease)[read.taken..].to_vec();
            self.kept_bytes += kept.len();
            read.taken = 0;
            if let ReadBytes::Leased(lease) = std::mem::replace(&mut read.bytes, ReadBytes::Kept(kept)) {
                self.ring.recycle(lease);
            }
        }
    }

    fn drop_read(&mut self, read: Read) {
        match read.bytes {
            ReadBytes::Leased(lease) => self.ring.recycle(lease),
            ReadBytes::Kept(kept) => self.kept_bytes -= kept.len(),
        }
    }

    /// Whether bytes of a connection wait to be handled.
    fn has_reads_of(&self, conn: u32) -> bool {
        self.reads.iter().chain(&self.arrived).any(|read| read.conn == conn)
    }

    /// Closes the connections that are at their end and have nothing more to say.
    fn end_connections(&mut self) {
        let mut at = 0;
        while at < self.ended.len() {
            let (conn, reason) = self.ended[at];
            let is_checking = self.parts.broker.session(conn).is_some_and(Session::is_checking);
            if is_checking || self.has_reads_of(conn) || self.links.is_away(conn) {
                at += 1;
            } else {
                self.ended.swap_remove(at);
                self.parts.broker.end(conn, reason);
            }
        }
    }

    /// Hands a read to the broker, and batches that it fills to the other workers at once.
    fn handle_read(&mut self, read: &mut Read) -> Input {
        if read.layer != Layer::Protocol && self.links.has(read.conn) && !self.open_read(read) {
            return Input::Taken;
        }
        loop {
            let bytes = match &read.bytes {
                ReadBytes::Leased(lease) => self.ring.bytes(lease),
                ReadBytes::Kept(kept) => kept,
            };
            let before = self.parts.broker.stats().messages.count;
            let input = self.parts.broker.handle_bytes(read.conn, &bytes[read.taken..]);
            self.latency.routed(read.reaped_us, self.parts.broker.stats().messages.count - before);
            let Input::Yielded(taken) = input else { return input };
            read.taken += taken;
            if !self.parts.broker.has_full_batch() || self.parts.broker.is_held(read.conn) {
                return input;
            }
            self.send_batches();
            if !self.has_room() || self.parts.broker.wants_turn_to_end() {
                return input;
            }
        }
    }

    /// Whether every other worker can take what handling a read may produce.
    fn has_room(&self) -> bool {
        // What the server's own client has no room for waits, up to a bound, and holds up nobody.
        self.parts.outboxes[..self.internal()].iter().flatten().all(|outbox| outbox.room() >= ROOM_MIN)
    }

    /// Drops the reads of a connection that is closed.
    fn drop_reads_of(&mut self, conn: u32) {
        if !self.has_reads_of(conn) {
            return;
        }
        for of_arrived in [false, true] {
            let queue = if of_arrived { &mut self.arrived } else { &mut self.reads };
            let (dropped, left): (VecDeque<Read>, VecDeque<Read>) =
                std::mem::take(queue).into_iter().partition(|read| read.conn == conn);
            *queue = left;
            dropped.into_iter().for_each(|read| self.drop_read(read));
        }
    }

    fn check_sends(&mut self) {
        if self.ring.sends_in_flight() == 0 || self.now_ms < self.sends_checked_ms + SEND_CHECK_MS {
            return;
        }
        self.sends_checked_ms = self.now_ms;
        let Some(before_ms) = self.now_ms.checked_sub(self.parts.write_deadline_ms) else { return };
        for conn in self.ring.sending_since_before(before_ms) {
            if self.parts.broker.is_guest(conn) && !self.parts.broker.is_route(conn) {
                self.parts.broker.close(conn, CloseReason::WriteError);
            } else {
                self.parts.broker.handle_write_deadline(conn);
            }
        }
    }

    /// Goes by the settings of a reload from here on.
    fn check_settings(&mut self) {
        if self.parts.shared.settings_version.load(Ordering::Relaxed) == self.settings_version {
            return;
        }
        let shared = self.parts.shared.clone();
        let (version, live) = {
            let live = shared.live.lock();
            (shared.settings_version.load(Ordering::SeqCst), live.clone())
        };
        self.settings_version = version;
        self.parts.write_deadline_ms = live.settings.write_deadline_ms;
        for interest in live.interests.into_iter().skip(self.parts.broker.account_count()) {
            self.parts.broker.add_account(interest);
        }
        self.links.tls.set_acceptor(live.acceptor);
        self.links.web.set_entrance(live.web_entrance);
        self.parts.broker.apply_settings(live.settings, live.info);
        // Which connections are too many is nobody's merit: the reference takes any.
        for conn in self.parts.broker.open_connections() {
            if self.parts.broker.is_guest(conn) {
                continue;
            }
            if shared.connections_surplus.fetch_sub(1, Ordering::Relaxed) <= 0 {
                shared.connections_surplus.fetch_add(1, Ordering::Relaxed);
                break;
            }
            self.parts.broker.refuse(conn);
        }
        shared.doors[self.parts.worker].settings_version.store(version, Ordering::Release);
        shared.settings_taken.notify_one();
    }

    /// The end: first nothing more is read anywhere, then what was read is delivered everywhere, and only then connections
    /// are closed. So whoever got a `PONG` knows that what it published before gets out.
    fn check_stopping(&mut self) {
        let shared = self.parts.shared.clone();
        if !self.stopping {
            if !shared.stopping.load(Ordering::Relaxed) {
                return;
            }
            self.stopping = true;
            self.stop_by_ms = self.now_ms + STOP_PATIENCE_MS;
            self.streams.shut_down(&mut self.parts.broker);
            self.ring.stop_accepting();
        }
        let streams_settled = self.streams.is_settled() || self.now_ms >= self.stop_by_ms;
        if !self.quiet && streams_settled && !self.has_unsent_batches_among(self.internal(), None) {
            self.quiet = true;
            shared.quiet.fetch_add(1, Ordering::SeqCst);
        }
        let all_quiet = shared.quiet.load(Ordering::SeqCst) == shared.doors.len() && shared.moves.are_none();
        let nothing_waits =
            self.owes_nothing() && !self.parts.inboxes.iter().flatten().any(Receiver::has_batch);
        if all_quiet && nothing_waits || self.now_ms >= self.stop_by_ms {
            for conn in self.parts.broker.open_connections() {
                self.parts.broker.close(conn, CloseReason::ServerShutdown);
            }
        }
    }

    /// Lame duck mode: clients are told once, and after the grace period closed on schedule.
    fn check_lame_duck(&mut self) {
        let Some(&(close_from, close_until)) = self.parts.shared.lame_duck.get() else { return };
        if self.stopping {
            return;
        }
        let millis = |at: Instant| at.saturating_duration_since(self.started).as_millis() as u64;
        let (from_ms, until_ms) = (millis(close_from), millis(close_until));
        let Some(next_ms) = self.lame_duck_next_ms else {
            self.ring.stop_accepting();
            self.parts.broker.announce_lame_duck();
            self.lame_duck_next_ms = Some(from_ms);
            return;
        };
        if self.now_ms < next_ms {
            return;
        }
        let open = self.parts.broker.open_clients();
        let schedule = self
            .closing_schedule
            .get_or_insert_with(|| ClosingSchedule::new(open.len(), from_ms.max(self.now_ms), until_ms));
        let due = schedule.due(open.len(), self.now_ms);
        self.lame_duck_next_ms = Some(schedule.next_look_ms(open.len() - due, self.now_ms));
        for &conn in &open[..due] {
            self.parts.broker.close(conn, CloseReason::ServerShutdown);
        }
    }

    /// Accepts connections from the moment on when the server is open.
    fn begin_accepting(&mut self) {
        if self.parts.listener.is_some()
            && self.parts.shared.is_open.load(Ordering::SeqCst)
            && let Some(listener) = self.parts.listener.take()
        {
            self.ring.accept_on(listener);
        }
    }

    fn resume_accepting(&mut self) {
        if self.accept_at_ms.is_some_and(|at_ms| self.now_ms >= at_ms) {
            self.accept_at_ms = None;
            self.ring.resume_accepting();
        }
    }

    fn send_batches(&mut self) {
        for (to, outbox) in self.parts.outboxes.iter_mut().enumerate() {
            let Some(outbox) = outbox else { continue };
            while let Some(spent) = outbox.take_spent() {
                self.parts.broker.give_spare(to as u16, spent);
            }
            let mut sent = false;
            while outbox.room() > 0 {
                let Some(mut batch) = self.parts.broker.poll_batch(to as u16) else { break };
                batch.given_us = self.now_us;
                if outbox.send(batch).is_err() {
                    unreachable!("there was room, and nobody else sends");
                }
                sent = true;
                self.monitored.batches_sent += 1;
            }
            if sent {
                match self.parts.shared.doors.get(to) {
                    Some(door) => door.knock(),
                    // It is told when the turn's counters are published.
                    None => self.knocks_internal = true,
                }
            }
        }
        let dropped = self.parts.broker.shed_internal(INTERNAL_BATCHES_MAX);
        if dropped > 0 {
            self.parts.shared.internal.count_dropped(dropped);
        }
    }

    fn close_connections(&mut self) {
        while let Some((conn, reason)) = self.parts.broker.poll_closing() {
            self.monitored.remember(&self.parts.broker, &self.parts.shared, conn);
            // Its place is free from now on, before the client can see that it is closed.
            let door = &self.parts.shared.doors[self.parts.worker];
            let count = if self.parts.broker.is_guest(conn) { &door.guests } else { &door.connections };
            count.fetch_sub(1, Ordering::Relaxed);
            let flushes = reason.flushes() || self.links.is_broken(conn) || self.is_told_why(conn);
            let flush_until_ms = flushes.then_some(self.now_ms + LINGER_MS);
            self.closing.push(Closing { conn, reason, flush_until_ms });
        }
        let mut at = 0;
        while at < self.closing.len() {
            if self.close_one(at) {
                self.closing.swap_remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// Moves one closing connection on; whether it is gone.
    fn close_one(&mut self, at: usize) -> bool {
        let Closing { conn, reason, flush_until_ms } = self.closing[at];
        if let Some(until_ms) = flush_until_ms
            && self.now_ms < until_ms
            && !self.ring.is_ended(conn)
            && (self.has_unsent(conn) || self.links.has(conn) && self.is_saying_goodbye(conn, reason))
        {
            return false;
        }
        self.ring.shut_down(conn);
        if !self.ring.is_quiet(conn) || !self.parts.broker.is_torn_down(conn) {
            return false;
        }
        // Reads that still wait are of no interest any more.
        self.drop_reads_of(conn);
        self.ended.retain(|(other, _)| *other != conn);
        self.unarmed.retain(|other| *other != conn);
        self.moving.forget(conn);
        self.links.take(conn);
        self.latency.forget(conn);
        self.ring.remove(conn);
        let freed_bytes = self.parts.broker.pending_bytes(conn);
        self.parts.broker.remove(conn);
        if freed_bytes > FREED_BYTES_WORTH_TELLING {
            self.parts.shared.memory_freed.notify_one();
        }
        true
    }

    /// Whether output waits that can be sent.
    fn has_unsent(&self, conn: u32) -> bool {
        self.parts.broker.pending_bytes(conn) > 0 && !self.links.is_broken(conn)
    }

    fn start_sends(&mut self, now_us: u64) {
        while let Some(conn) = self.parts.broker.poll_dirty() {
            self.latency.output_waits(conn, now_us);
            if !self.ring.is_sending(conn) && self.parts.broker.pending_bytes(conn) > 0 {
                self.start_send(conn);
            }
        }
    }

    fn start_send(&mut self, conn: u32) {
        if self.ring.is_shut(conn) || self.moving.is_leaving(conn) {
            return;
        }
        self.latency.send_begins(conn);
        if self.links.has(conn) {
            return self.start_link_send(conn);
        }
        self.parts.broker.handle_send_started(conn);
        self.ring.send(conn, self.parts.broker.unsent(conn, SEND_SLICES_MAX), self.now_ms);
    }

    /// Asks for more bytes where that had stopped and nothing stands against it any more: for as many connections as
    /// there are free buffers, the longest waiting first. Whether there are more of them.
    fn rearm(&mut self) -> bool {
        let mut free = self.ring.buffer_count() - self.ring.leased_count();
        for _ in 0..self.unarmed.len() {
            if free == 0 {
                return self.ring.leased_count() < self.ring.buffer_count();
            }
            let Some(conn) = self.unarmed.pop_front() else { break };
            if self.has_reads_of(conn) || self.moving.is_leaving(conn) {
                self.unarmed.push_back(conn);
            } else {
                free -= 1;
                self.ring.arm(conn);
            }
        }
        false
    }

    /// What monitoring asks of a turn. Whether there is more of that to do.
    fn publish(&mut self) -> bool {
        let end = TurnEnd {
            turn_times: self.clock.times(),
            latencies: *self.latency.latencies(),
            batches_waiting: self.owed.iter().sum(),
            buffers: self.ring.buffer_count(),
            buffers_leased: self.ring.leased_count(),
            reads_waiting: self.reads.len() + self.arrived.len(),
            kept_bytes: self.kept_bytes,
        };
        self.monitored.publish(&mut self.parts.broker, &self.parts.shared, end)
    }

    fn write_log(&mut self) {
        if self.parts.broker.has_log() {
            let spare = self.parts.log.spare_lines();
            self.parts.log.write_lines(self.parts.broker.take_log(spare));
        }
    }

    /// The last look before sleeping: whether really nothing is there.
    fn may_sleep(&mut self) -> bool {
        let door = &self.parts.shared.doors[self.parts.worker];
        door.sleeper.about_to_sleep();
        let inboxes_empty = !self.parts.inboxes.iter().flatten().any(Receiver::has_batch);
        (inboxes_empty || self.held_by_log)
            && !door.has_accepted.load(Ordering::Acquire)
            && !door.has_verdicts.load(Ordering::Acquire)
            && !door.has_handshakes.load(Ordering::Acquire)
            && !door.load.has_order()
            && !door.has_question.load(Ordering::Acquire)
            && !self.streams.has_work(&door.orders)
            && self.has_no_route_work()
            && self.parts.shared.settings_version.load(Ordering::SeqCst) == self.settings_version
            && (self.parts.listener.is_none() || !self.parts.shared.is_open.load(Ordering::SeqCst))
            && (self.stopping || !self.parts.shared.stopping.load(Ordering::SeqCst))
            && (self.lame_duck_next_ms.is_some() || self.parts.shared.lame_duck.get().is_none())
            && self.ring.prepare_to_sleep()
    }

    /// Whether a door was too full for what there is for it. Its worker does not say when it has room again.
    fn has_unsent_batches(&self) -> bool {
        self.has_unsent_batches_among(self.parts.outboxes.len(), None)
    }

    fn has_unsent_batches_except(&self, except: usize) -> bool {
        self.has_unsent_batches_among(self.parts.outboxes.len(), Some(except))
    }

    fn has_unsent_batches_among(&self, count: usize, except: Option<usize>) -> bool {
        let others = self.parts.outboxes[..count].iter().enumerate().filter(|(_, outbox)| outbox.is_some());
        let mut wanted = others.filter(|(to, _)| Some(*to) != except);
        wanted.any(|(to, _)| self.parts.broker.has_batch_for(to as u16))
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        let soon = |condition: bool, after_ms: u64| condition.then_some(self.now_ms + after_ms);
        [
            self.parts.broker.next_deadline_ms(),
            soon(self.ring.sends_in_flight() > 0, SEND_CHECK_MS),
            soon(!self.reads.is_empty() || !self.arrived.is_empty() || !self.ended.is_empty(), 1),
            soon(self.has_unsent_batches() || !self.moving.is_empty(), 1),
            soon(self.held_by_log, 1),
            // Whoever ends the last move does not say so.
            soon(self.stopping, 1),
            soon(!self.closing.is_empty(), 10),
            self.streams.next_deadline_in_ms().map(|after_ms| self.now_ms + after_ms),
            self.accept_at_ms,
            self.lame_duck_next_ms,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// Names a worker's thread.
pub fn thread_name(worker: usize) -> String {
    format!("worker-{worker}")
}
