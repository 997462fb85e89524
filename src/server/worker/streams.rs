//! The streams of a worker: what comes to them, what they have to say, and what of theirs is written and read.
//!
//! Part of a turn, behind the bytes that arrived and before batches and sends go out:
//!
//! 1. take what the control thread has ordered;
//! 2. take what has been written and read since the last turn: acknowledgements become due;
//! 3. give each stream the messages that came to its sinks ([`crate::broker::capture`]);
//! 4. let time pass where something waits for it;
//! 5. let consumers deliver, publish what is due, and begin to write what is not written, one commit at a time per stream. What comes
//!    while it is under way goes into the next one.
//!
//! A worker without streams does one look at three counters per turn.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::RangeInclusive;

use bytes::Bytes;
use slab::Slab;
use tokio::sync::oneshot;

use crate::base::nuid::nuid;
use crate::base::system_error;
use crate::base::wall_clock::now_ns;
use crate::broker::Broker;
use crate::broker::batch::Content;
use crate::broker::capture::{Captured, CapturedMessage, Issued, SinkId};
use crate::io::files::{Directory, FileJob, FileOutcome, FileRoom};
use crate::monitor::readings::StreamTimes;
use crate::server::jetstream::disk::{commit_error, file_step};
use crate::server::jetstream::orders::{
    ConsumerAnswer, ConsumerRequest, Opening, OrderBox, SnapshotOrder, StreamLook, StreamNumber, StreamOrder,
};
use crate::server::log::Log;
use crate::store::{Committed, Filters, Read, ReadPlan, StoredMessage};
use crate::stream::api::{self, BackupEvent, GetRequest};
use crate::stream::backup::snapshot::{Snapshot, SnapshotPlan, Work};
use crate::stream::config::Storage;
use crate::stream::consumer::{ConsumerIndex, Consumers, Delivery, Drive, Outlet, StreamFacts, address};
use crate::stream::get::{DirectGet, PendingGet};
use crate::stream::headers;
use crate::stream::publish::{Incoming, PendingPublish};
use crate::stream::room::Full;
use crate::stream::scheduled::PendingSchedule;
use crate::stream::source::header::identity;
use crate::stream::source::{Copied, CopyRequest, CopySubject, PendingCopy};
use crate::stream::stream::{Answer, Command, Handled, Stream};
use crate::stream::{ApiError, ErrorId};
use crate::subject::interest::InterestAccess;

const DIRECT_GET: &str = "$JS.API.DIRECT.GET.";
const DIRECT_GET_GROUP: &[u8] = b"_zz_";
const NEXT: &str = "$JS.API.CONSUMER.MSG.NEXT.";
const ACK: &str = "$JS.ACK.";
const FLOW: &str = "$JS.FC.";

/// Bytes of messages beyond which a batch of direct gets ends if the request does not say.
const DIRECT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How often it is looked at most, and at least, whether somebody listens to what push consumers deliver. Clients subscribe
/// when they have made the consumer: after something has changed it is looked soon, and then less and less often, so that
/// who comes waits no longer than it took to come.
const LISTENER_CHECKS_NS: RangeInclusive<i64> = 1_000_000..=100_000_000;

/// How many clients may be sent a stream at a time.
const SNAPSHOTS_MAX: usize = 8;

/// How many bytes a second are read to rewrite segments, for all streams of a worker together.
const REWRITE_BYTES_PER_SECOND: i64 = 64 << 20;

/// Numbers of jobs: those of commits are streams' places, with this bit those of reads.
const READ_JOB: u64 = 1 << 63;

/// With this bit and the place of a stream: that of a sync beside its commits.
const SYNC_JOB: u64 = 1 << 62;

/// See the head of this file.
pub(super) struct Streams {
    owned: Slab<Owned>,
    numbers: HashMap<StreamNumber, usize>,
    /// By slots, which are used again.
    sinks: Vec<Option<Sink>>,
    /// Streams that have to be looked at, each once.
    touched: Vec<usize>,
    /// The memory for the next ones while those are looked at.
    spare_touched: Vec<usize>,
    files: FileRoom,
    /// What files are read for, by the number of the job.
    reads: HashMap<u64, PendingRead>,
    next_read: u64,
    captured: Captured,
    content: Vec<u8>,
    /// When segments may be rewritten again.
    rewrite_after_ns: i64,
    /// When streams want to be looked at, by [`Owned::deadline_ns`].
    deadlines: BTreeSet<(i64, usize)>,
    times: StreamTimes,
    /// Whether those have changed since they were published.
    has_new_times: bool,
}

/// A stream of this worker.
struct Owned {
    number: StreamNumber,
    account: u16,
    stream: Stream,
    consumers: Consumers,
    /// What its configuration asks for.
    sinks: BTreeMap<(String, SinkUse), SinkId>,
    /// By consumers' names: where requests for their messages come, which those that push refuse.
    consumer_sinks: BTreeMap<Box<str>, SinkId>,
    /// When it was looked last whether somebody listens to what push consumers deliver, and how long after that it is to be
    /// looked again.
    listeners_checked_ns: i64,
    listener_pause_ns: i64,
    directory: Option<Directory>,
    is_touched: bool,
    is_committing: bool,
    is_syncing: bool,
    /// When what was written without a sync is synced.
    sync_due_ns: Option<i64>,
    reading: usize,
    /// Times that something could not be written or read.
    store_errors: u64,
    /// Answers that are due when the store has committed up to a position, in their order.
    answers: VecDeque<(u64, DueAnswer)>,
    /// Answers whose changes are not with the store yet.
    unflushed: Vec<DueAnswer>,
    /// The last sequence that consumers have been told of.
    visible_seq: u64,
    /// Messages and the last sequence at the end of the last look.
    seen: (u64, u64),
    consumers_changed: bool,
    deadline_ns: Option<i64>,
    /// When a segment may be rewritten, if one should be.
    rewrite_ns: Option<i64>,
    /// It is given up when nothing of it is under way any more.
    closing: Option<oneshot::Sender<()>>,
    /// Clients that are being sent it.
    snapshots: Vec<SnapshotJob>,
}

/// A client that is being sent a stream.
struct SnapshotJob {
    /// Where its acknowledgements come.
    sink: SinkId,
    snapshot: Snapshot,
    /// As the log names the stream.
    title: String,
    started_ns: i64,
    /// What is sent first, when the store has committed up to a position.
    answer: Option<(u64, SnapshotAnswer)>,
}

struct SnapshotAnswer {
    report: api::StreamReport,
    reply: Vec<u8>,
    done: oneshot::Sender<Result<(), ApiError>>,
}

type Reply = oneshot::Sender<Result<Answer, ApiError>>;

enum DueAnswer {
    Stream(Result<Answer, ApiError>, Reply),
    Consumer(Option<ConsumerAnswer>, oneshot::Sender<Option<ConsumerAnswer>>),
}

impl DueAnswer {
    /// Gives it to whoever asked, who may have gone. `error`: what it tells is not on the disk, and never will be.
    fn give(self, error: Option<ApiError>) {
        match self {
            DueAnswer::Stream(answer, reply) => drop(reply.send(error.map_or(answer, Err))),
            DueAnswer::Consumer(answer, reply) => {
                drop(reply.send(if error.is_some() { None } else { answer }))
            }
        }
    }
}

/// What a file is read for.
struct PendingRead {
    stream: usize,
    plan: ReadPlan,
    purpose: Purpose,
}

enum Purpose {
    Get(GetRequest, Reply),
    DirectGet(PendingGet),
    Publish(PendingPublish),
    Consumer(ConsumerIndex),
    Schedule(PendingSchedule),
    /// For the one with this sink.
    Snapshot(SinkId),
    Rewrite,
    Copy(PendingCopy),
}

/// What comes to a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SinkUse {
    /// Messages to be stored.
    Store,
    /// Requests for messages.
    DirectGet,
    /// Requests for a consumer's messages.
    Next,
    /// Acknowledgements.
    Ack,
    /// Responses to flow control.
    Flow,
    /// Acknowledgements of whoever is sent the stream.
    Snapshot,
    /// Requests for messages of the stream that this one mirrors.
    DirectGetForOrigin,
    /// Answers and messages of the streams that this one copies from.
    Origin(CopySubject),
}

impl SinkUse {
    /// The queue group of which one member is to get a message.
    fn group(self) -> Option<&'static [u8]> {
        match self {
            // A stream and those that mirror it share the requests for its messages.
            SinkUse::DirectGet | SinkUse::DirectGetForOrigin => Some(DIRECT_GET_GROUP),
            _ => None,
        }
    }
}

/// Whose a sink is, and for what.
#[derive(Debug, Clone, Copy)]
struct Sink {
    id: SinkId,
    stream: usize,
    sink_use: SinkUse,
}

/// Opens and closes the sinks of a stream.
struct Sinks<'a, A> {
    of: &'a mut Vec<Option<Sink>>,
    key: usize,
    account: u16,
    broker: &'a mut Broker<A>,
}

impl<A: InterestAccess> Sinks<'_, A> {
    fn open(&mut self, subject: &str, sink_use: SinkUse) -> SinkId {
        let id = self.broker.open_sink(self.account, subject.as_bytes(), sink_use.group());
        let slot = id.slot as usize;
        if self.of.len() <= slot {
            self.of.resize(slot + 1, None);
        }
        self.of[slot] = Some(Sink { id, stream: self.key, sink_use });
        id
    }

    fn close(&mut self, sink: SinkId) {
        self.of[sink.slot as usize] = None;
        self.broker.close_sink(sink);
    }
}

/// Where what a stream's consumers have to say goes.
struct Publisher<'a, A> {
    broker: &'a mut Broker<A>,
    account: u16,
    content: &'a mut Vec<u8>,
}

impl<A: InterestAccess> Publisher<'_, A> {
    fn issue(
        &mut self,
        to: &[u8],
        shown: Option<&[u8]>,
        reply: &[u8],
        header: &[u8],
        payload: &[u8],
    ) -> bool {
        self.content.clear();
        self.content.extend_from_slice(header);
        self.content.extend_from_slice(payload);
        self.content.extend_from_slice(b"\r\n");
        self.broker.issue(&Issued {
            account: self.account,
            to,
            shown,
            reply: (!reply.is_empty()).then_some(reply),
            header_len: (!header.is_empty()).then_some(header.len()),
            content: Content::Borrowed(self.content),
        })
    }
}

impl<A: InterestAccess> Publisher<'_, A> {
    fn tell_backup(&mut self, event: BackupEvent<'_>, stream: &Stream, now_ns: i64) {
        let (name, domain) = (&stream.config().name, stream.domain());
        let (subject, body) = api::backup_event(event, name, domain, &mut fastrand::Rng::new(), now_ns);
        self.issue(subject.as_bytes(), None, b"", b"", &body);
    }
}

impl<A: InterestAccess> Outlet for Publisher<'_, A> {
    fn has_interest(&mut self, subject: &[u8], group: &[u8]) -> bool {
        self.broker.has_interest(self.account, subject, group)
    }

    fn deliver(&mut self, delivery: &Delivery<'_>) -> bool {
        let Delivery { to, subject, reply, header, payload } = *delivery;
        self.issue(to, (to != subject).then_some(subject), reply, header, payload)
    }

    fn publish(&mut self, subject: &[u8], reply: &[u8], header: &[u8], payload: &[u8]) {
        self.issue(subject, None, reply, header, payload);
    }
}

/// Borrows what consumers of a stream are driven with.
macro_rules! drive {
    ($streams:ident, $owned:ident, $broker:ident, $now_ns:expr) => {
        Drive {
            now_ns: $now_ns,
            store: $owned.stream.store(),
            outlet: &mut Publisher {
                broker: $broker,
                account: $owned.account,
                content: &mut $streams.content,
            },
        }
    };
}

impl Streams {
    /// No streams yet.
    pub fn new(files: FileRoom) -> Streams {
        Streams {
            owned: Slab::new(),
            numbers: HashMap::new(),
            sinks: Vec::new(),
            touched: Vec::new(),
            spare_touched: Vec::new(),
            files,
            reads: HashMap::new(),
            next_read: 0,
            captured: Captured::default(),
            content: Vec::new(),
            rewrite_after_ns: 0,
            deadlines: BTreeSet::new(),
            times: StreamTimes::default(),
            has_new_times: false,
        }
    }

    /// What is to be published of how long things take, if that has changed.
    pub fn take_new_times(&mut self) -> Option<&StreamTimes> {
        std::mem::take(&mut self.has_new_times).then_some(&self.times)
    }

    /// Whether files are being written or read: then the runtime has to get its turn.
    pub fn waits_for_files(&self) -> bool {
        self.files.in_flight() > 0
    }

    /// Has the runtime look after files that are being written or read.
    ///
    /// # Errors
    ///
    /// It cannot.
    pub async fn look_after_files(&mut self) -> std::io::Result<()> {
        self.files.look_after().await
    }

    /// Whether everything that came to streams is written, and what is due has been published.
    pub fn is_settled(&self) -> bool {
        !self.waits_for_files() && self.touched.is_empty()
    }

    /// Whether there is something to do at once.
    pub fn has_work(&self, orders: &OrderBox) -> bool {
        orders.has_orders() || self.files.has_done() || !self.touched.is_empty()
    }

    /// In how many milliseconds something is to be done although nothing comes.
    pub fn next_deadline_in_ms(&self) -> Option<u64> {
        let ns = self.deadlines.first()?.0.saturating_sub(now_ns());
        Some(u64::try_from(ns).unwrap_or(0).div_ceil(1_000_000))
    }

    /// One turn. Whether there was something to do.
    pub fn turn<A: InterestAccess>(&mut self, broker: &mut Broker<A>, orders: &OrderBox, log: &Log) -> bool {
        let has_captured = broker.has_captured();
        let has_work = has_captured || self.has_work(orders);
        if !has_work && self.deadlines.is_empty() {
            return false;
        }
        let now_ns = now_ns();
        let is_due = self.deadlines.first().is_some_and(|&(at, _)| at <= now_ns);
        if !has_work && !is_due {
            return false;
        }
        if orders.has_orders() {
            for order in orders.take() {
                self.carry_out(order, broker, now_ns, log);
            }
        }
        for (job, outcome) in self.files.take_done() {
            self.file_job_done(job, outcome, now_ns, log);
        }
        if has_captured {
            let captured = broker.take_captured(std::mem::take(&mut self.captured));
            for message in captured.iter() {
                self.take_message(&message, broker, now_ns);
            }
            self.captured = captured;
            self.captured.clear();
        }
        if is_due {
            self.pass_time(broker, now_ns);
        }
        let spare = std::mem::take(&mut self.spare_touched);
        let mut touched = std::mem::replace(&mut self.touched, spare);
        for key in touched.drain(..) {
            self.look_after(key, broker, now_ns, log);
        }
        self.spare_touched = touched;
        true
    }

    /// The server ends: whoever waits for messages hears of it.
    pub fn shut_down<A: InterestAccess>(&mut self, broker: &mut Broker<A>) {
        let now_ns = now_ns();
        for (_, owned) in &mut self.owned {
            owned.consumers.shut_down(drive!(self, owned, broker, now_ns));
        }
        // What is written goes to the disk before the end.
        let written = self.owned.iter().filter(|(_, owned)| owned.stream.store().is_sync_due());
        for key in written.map(|(key, _)| key).collect::<Vec<_>>() {
            self.owned[key].sync_due_ns = Some(now_ns);
            self.touch(key);
        }
    }

    fn carry_out<A: InterestAccess>(
        &mut self,
        order: StreamOrder,
        broker: &mut Broker<A>,
        now_ns: i64,
        log: &Log,
    ) {
        match order {
            StreamOrder::Open(opening) => self.open(*opening, broker, now_ns, log),
            StreamOrder::Ask { stream, command, reply } => match self.numbers.get(&stream) {
                Some(&key) => self.ask(key, command, reply, broker, now_ns),
                // It was given up meanwhile.
                None => drop(reply.send(Err(ErrorId::StreamNotFound.into()))),
            },
            StreamOrder::AskConsumers { stream, request } => match self.numbers.get(&stream) {
                Some(&key) => self.ask_consumers(key, request, broker, now_ns),
                None => drop(request.reply.send(None)),
            },
            StreamOrder::CheckConsumers { stream, limits, reply } => {
                let checked = self
                    .numbers
                    .get(&stream)
                    .map_or(Ok(()), |&key| self.owned[key].consumers.check_limits(&limits));
                let _ = reply.send(checked);
            }
            StreamOrder::Look { streams, reply } => {
                let looks = streams.iter().map(|number| Some(self.owned[*self.numbers.get(number)?].look()));
                // Whoever asked may have gone.
                let _ = reply.send(looks.collect());
            }
            StreamOrder::LookAtConsumers { stream, from, max, detail, reply } => {
                let mut found = Vec::new();
                if let Some(&key) = self.numbers.get(&stream) {
                    let owned = &mut self.owned[key];
                    let from = from.as_ref().map(String::as_str);
                    let drive = drive!(self, owned, broker, now_ns);
                    found = owned.consumers.describe(from, max, detail, drive);
                    self.touch(key);
                }
                let _ = reply.send(found);
            }
            StreamOrder::Snapshot(order) => match self.numbers.get(&order.stream) {
                Some(&key) => self.begin_snapshot(key, *order, broker, now_ns),
                None => drop(order.done.send(Err(ErrorId::StreamNotFound.into()))),
            },
            StreamOrder::ShowClient { conn, cid, reply } => drop(reply.send(broker.client_shown(conn, cid))),
            StreamOrder::Close { stream, done } => match self.numbers.get(&stream) {
                Some(&key) => self.close(key, done, broker, now_ns, log),
                None => drop(done.send(())),
            },
        }
    }

    fn open<A: InterestAccess>(&mut self, opening: Opening, broker: &mut Broker<A>, now_ns: i64, log: &Log) {
        let Opening { number, account, stream, consumers, directory, done } = opening;
        let directory = directory.map(|path| self.files.directory(path));
        let state = stream.store().state();
        let key = self.owned.insert(Owned {
            number,
            account,
            stream,
            consumers,
            sinks: BTreeMap::new(),
            consumer_sinks: BTreeMap::new(),
            listeners_checked_ns: 0,
            listener_pause_ns: *LISTENER_CHECKS_NS.end(),
            directory,
            is_touched: false,
            is_committing: false,
            is_syncing: false,
            sync_due_ns: None,
            reading: 0,
            store_errors: 0,
            answers: VecDeque::new(),
            unflushed: Vec::new(),
            visible_seq: state.last_seq,
            seen: (state.messages, state.last_seq),
            consumers_changed: true,
            deadline_ns: None,
            rewrite_ns: None,
            closing: None,
            snapshots: Vec::new(),
        });
        self.numbers.insert(number, key);
        let owned = &mut self.owned[key];
        // Those of a stream that was restored are there already.
        if owned.consumers.is_empty() {
            for name in owned.consumers.recover(drive!(self, owned, broker, now_ns)) {
                let stream = &owned.stream.config().name;
                log.error(format!(
                    "JetStream: consumer {name} of stream {stream} cannot be read, and is left as it is"
                ));
            }
        }
        self.listen(key, broker);
        self.touch(key);
        // Whoever asked for it may have gone.
        let _ = done.send(());
    }

    fn close<A: InterestAccess>(
        &mut self,
        key: usize,
        done: oneshot::Sender<()>,
        broker: &mut Broker<A>,
        now_ns: i64,
        log: &Log,
    ) {
        for mut job in std::mem::take(&mut self.owned[key].snapshots) {
            if job.answer.is_none() {
                let (account, content) = (self.owned[key].account, &mut self.content);
                let _ = job.snapshot.abort(&mut Publisher { broker, account, content });
            }
            self.end_snapshot(key, job, Some("stream closed"), broker, now_ns, log);
        }
        let owned = &mut self.owned[key];
        owned.consumers.delete_all(drive!(self, owned, broker, now_ns));
        owned.stream.stop_copying();
        owned.closing = Some(done);
        self.listen(key, broker);
        self.listen_for_consumers(key, broker);
        self.touch(key);
    }

    /// Begins to send a stream to a client, with what it has now.
    fn begin_snapshot<A: InterestAccess>(
        &mut self,
        key: usize,
        order: SnapshotOrder,
        broker: &mut Broker<A>,
        now_ns: i64,
    ) {
        let SnapshotOrder { request, reply, account, done, .. } = order;
        let owned = &mut self.owned[key];
        let refused = if owned.closing.is_some() {
            Some(ErrorId::StreamNotFound.into())
        } else if owned.snapshots.len() >= SNAPSHOTS_MAX {
            Some(ApiError::with(ErrorId::StreamSnapshot, "too many snapshots of the stream are under way"))
        } else {
            None
        };
        if let Some(error) = refused {
            return drop(done.send(Err(error)));
        }
        let consumers = if request.no_consumers { Vec::new() } else { owned.consumers.for_backup() };
        let report = owned.stream.report(false, "", 0);
        let name = &report.config.name;
        let title = format!("'{account} > {name}'");
        let ack_prefix = format!("$JS.SNAPSHOT.ACK.{name}.{}", nuid(&mut fastrand::Rng::new()));
        let mut sinks = Sinks { of: &mut self.sinks, key, account: owned.account, broker };
        let sink = sinks.open(&format!("{ack_prefix}.>"), SinkUse::Snapshot);
        let mut state = Vec::new();
        api::StreamState { consumer_count: consumers.len() as u64, ..report.state.clone() }.write(&mut state);
        let snapshot = Snapshot::new(SnapshotPlan {
            deliver: request.deliver_subject.into_bytes(),
            chunk_bytes: request.chunk_size.0,
            window_bytes: request.window_size.0,
            state,
            seqs: (report.state.first_seq, report.state.last_seq),
            consumers,
            ack_prefix,
        });
        let position = owned.stream.store().position();
        let answer = Some((position, SnapshotAnswer { report, reply, done }));
        owned.snapshots.push(SnapshotJob { sink, snapshot, title, started_ns: now_ns, answer });
        self.touch(key);
    }

    /// Sends what can be sent of a stream to those who get it. Whether there is more to do at once.
    fn run_snapshots<A: InterestAccess>(
        &mut self,
        key: usize,
        broker: &mut Broker<A>,
        now_ns: i64,
        log: &Log,
    ) -> bool {
        let mut more = false;
        let mut jobs = std::mem::take(&mut self.owned[key].snapshots);
        for mut job in jobs.drain(..) {
            let owned = &self.owned[key];
            let (account, store) = (owned.account, owned.stream.store());
            let has_interest = broker.has_exact_interest(account, job.snapshot.deliver_subject());
            let mut outlet = Publisher { broker, account, content: &mut self.content };
            if let Some((position, answer)) = job.answer.take() {
                if position > store.committed() {
                    // What it tells may never be on the disk.
                    if store.refusal().is_some() {
                        drop(answer.done.send(Err(not_written(&owned.stream))));
                        Sinks { of: &mut self.sinks, key, account, broker }.close(job.sink);
                    } else {
                        job.answer = Some((position, answer));
                        self.owned[key].snapshots.push(job);
                    }
                    continue;
                }
                log.info(format!("Starting snapshot for stream {}", job.title));
                let SnapshotAnswer { report, reply, done } = answer;
                outlet.issue(&reply, None, b"", b"", &api::stream_snapshot(&report));
                let event = BackupEvent::SnapshotCreate(&report.state);
                outlet.tell_backup(event, &owned.stream, now_ns);
                let _ = done.send(Ok(()));
            }
            match job.snapshot.run(store, has_interest, now_ns, &mut outlet) {
                Work::Over(error) => {
                    self.end_snapshot(key, job, error.as_deref(), broker, now_ns, log);
                    continue;
                }
                Work::Read(plan) => {
                    let purpose = Purpose::Snapshot(job.sink);
                    self.read(key, plan, purpose);
                }
                Work::More => more = true,
                Work::Wait => {}
            }
            self.owned[key].snapshots.push(job);
        }
        more
    }

    /// Nothing more is sent to a client.
    fn end_snapshot<A: InterestAccess>(
        &mut self,
        key: usize,
        job: SnapshotJob,
        error: Option<&str>,
        broker: &mut Broker<A>,
        now_ns: i64,
        log: &Log,
    ) {
        let owned = &self.owned[key];
        let account = owned.account;
        Sinks { of: &mut self.sinks, key, account, broker }.close(job.sink);
        if let Some((_, answer)) = job.answer {
            // It has not begun.
            return drop(answer.done.send(Err(ErrorId::StreamNotFound.into())));
        }
        let event = BackupEvent::SnapshotComplete { start_ns: job.started_ns, error };
        let mut outlet = Publisher { broker, account, content: &mut self.content };
        outlet.tell_backup(event, &owned.stream, now_ns);
        let took =
            std::time::Duration::from_nanos(now_ns.saturating_sub(job.started_ns).max(0).unsigned_abs());
        match error {
            None => log.info(format!("Completed snapshot for stream {} in {took:.0?}", job.title)),
            Some(error) => {
                log.warning(format!("Snapshot for stream {} failed after {took:.0?}: {error}", job.title));
            }
        }
    }

    /// Makes the sinks of a stream those that its configuration asks for. What stays is not touched: a subject that is
    /// listened to before and after has one sink throughout, and what is published to it meanwhile comes once.
    fn listen<A: InterestAccess>(&mut self, key: usize, broker: &mut Broker<A>) {
        let owned = &mut self.owned[key];
        let wanted = owned.wanted_sinks();
        let mut sinks = Sinks { of: &mut self.sinks, key, account: owned.account, broker };
        owned.sinks.retain(|listened, sink| {
            let stays = wanted.contains(listened);
            if !stays {
                sinks.close(*sink);
            }
            stays
        });
        for listened in wanted {
            owned
                .sinks
                .entry(listened)
                .or_insert_with_key(|(subject, sink_use)| sinks.open(subject, *sink_use));
        }
    }

    /// Tells a stream of its consumers, and makes their sinks those that there are.
    fn listen_for_consumers<A: InterestAccess>(&mut self, key: usize, broker: &mut Broker<A>) {
        let owned = &mut self.owned[key];
        owned.consumers_changed = false;
        let interest: Vec<Filters> = owned.consumers.filters().cloned().collect();
        let (listed, total) = (owned.consumers.len(true) as u64, owned.consumers.len(false) as u64);
        owned.stream.set_consumers(listed, total, interest);
        let mut sinks = Sinks { of: &mut self.sinks, key, account: owned.account, broker };
        let is_open = owned.closing.is_none();
        owned.consumer_sinks.retain(|name, sink| {
            let stays = is_open && owned.consumers.get(name).is_some();
            if !stays {
                sinks.close(*sink);
            }
            stays
        });
        let stream = &owned.stream.config().name;
        for consumer in owned.consumers.iter() {
            if is_open && !owned.consumer_sinks.contains_key(consumer.name()) {
                let sink = sinks.open(&format!("{NEXT}{stream}.{}", consumer.name()), SinkUse::Next);
                owned.consumer_sinks.insert(consumer.name().into(), sink);
            }
        }
    }

    fn ask<A: InterestAccess>(
        &mut self,
        key: usize,
        command: Command,
        reply: Reply,
        broker: &mut Broker<A>,
        now_ns: i64,
    ) {
        let is_update = matches!(command, Command::Update(_));
        let handled = self.owned[key].stream.handle(command, now_ns);
        self.handled(key, handled, reply);
        if is_update {
            let owned = &mut self.owned[key];
            owned.consumers.set_stream(StreamFacts::of(owned.stream.config()));
            self.listen(key, broker);
        }
    }

    /// Goes on with what a stream says to a command.
    fn handled(&mut self, key: usize, handled: Handled, reply: Reply) {
        match handled {
            Handled::Done { answer, position } => {
                self.owned[key].answers.push_back((position, DueAnswer::Stream(answer, reply)));
            }
            Handled::Read(plan, request) => self.read(key, plan, Purpose::Get(request, reply)),
        }
        self.touch(key);
    }

    fn ask_consumers<A: InterestAccess>(
        &mut self,
        key: usize,
        request: ConsumerRequest,
        broker: &mut Broker<A>,
        now_ns: i64,
    ) {
        let ConsumerRequest { subject, header, body, strictness, reply } = request;
        let owned = &mut self.owned[key];
        let asked = api::Verb::parse(&subject).as_ref().and_then(address);
        let identity = identity(owned.stream.created_ns());
        let answer = asked.and_then(|asked| {
            let drive = drive!(self, owned, broker, now_ns);
            owned.consumers.answer_identified(asked, &header, &body, &identity, strictness, drive)
        });
        owned.unflushed.push(DueAnswer::Consumer(answer, reply));
        owned.consumers_changed = true;
        self.touch(key);
    }

    fn take_message<A: InterestAccess>(
        &mut self,
        message: &CapturedMessage<'_>,
        broker: &mut Broker<A>,
        now_ns: i64,
    ) {
        // What was on its way to a sink that has ended goes nowhere.
        let Some(&Some(Sink { id, stream: key, sink_use })) = self.sinks.get(message.sink.slot as usize)
        else {
            return;
        };
        if id != message.sink {
            return;
        }
        let CapturedMessage { subject, header, payload, .. } = *message;
        let reply = message.reply.unwrap_or_default();
        let owned = &mut self.owned[key];
        match sink_use {
            SinkUse::Store => {
                let incoming = Incoming { subject, reply, header, payload };
                if let Some(pending) = owned.stream.publish(incoming, now_ns) {
                    self.read(key, pending.plan.clone(), Purpose::Publish(pending));
                }
            }
            SinkUse::Ack => owned.consumers.ack(subject, payload, reply, drive!(self, owned, broker, now_ns)),
            SinkUse::Next => {
                let name = &subject[NEXT.len() + owned.stream.config().name.len() + 1..];
                if headers::needs_newer_level(header) {
                    let (account, content) = (owned.account, &mut self.content);
                    let status = b"NATS/1.0 412 Required Api Level\r\n\r\n";
                    Publisher { broker, account, content }.issue(reply, None, b"", status, b"");
                } else if let Ok(name) = std::str::from_utf8(name) {
                    owned.consumers.pull(name, payload, reply, drive!(self, owned, broker, now_ns));
                }
            }
            SinkUse::Flow => {
                let number = |name: &[u8]| {
                    headers::get(header, name)
                        .map(headers::number)
                        .and_then(|number| u64::try_from(number).ok())
                };
                let last = number(b"Nats-Last-Consumer").zip(number(b"Nats-Last-Stream"));
                owned.consumers.flow_response(subject, last, drive!(self, owned, broker, now_ns));
            }
            SinkUse::Snapshot => {
                if let Some(job) = owned.snapshots.iter_mut().find(|job| job.sink == id) {
                    job.snapshot.acked();
                }
            }
            SinkUse::Origin(CopySubject::Answer(origin)) => {
                if let Some(pending) = owned.stream.take_copy_answer(origin, header, payload, now_ns) {
                    self.read(key, pending.plan.clone(), Purpose::Copy(pending));
                }
            }
            SinkUse::Origin(CopySubject::Messages(origin)) => {
                let copied = Copied { subject, reply, header, payload };
                if let Some(pending) = owned.stream.take_copied(origin, copied, now_ns) {
                    self.read(key, pending.plan.clone(), Purpose::Copy(pending));
                }
            }
            SinkUse::DirectGet | SinkUse::DirectGetForOrigin => {
                let config = owned.stream.config();
                let name = match (sink_use, &config.mirror) {
                    (SinkUse::DirectGetForOrigin, Some(mirror)) => &mirror.name,
                    _ => &config.name,
                };
                // `$JS.API.DIRECT.GET.STREAM`, and perhaps a subject behind it.
                let asked = subject.get(DIRECT_GET.len() + name.len() + 1..);
                let get =
                    DirectGet { subject: asked, reply, header, body: payload, max_bytes: DIRECT_BYTES_MAX };
                if let Some(pending) = owned.stream.direct_get(get) {
                    self.read(key, pending.plan.clone(), Purpose::DirectGet(pending));
                }
            }
        }
        self.touch(key);
    }

    fn read(&mut self, key: usize, plan: ReadPlan, purpose: Purpose) {
        let owned = &mut self.owned[key];
        let Some(directory) = &owned.directory else { unreachable!("only what has files is read from them") };
        let job = READ_JOB | self.next_read;
        self.next_read += 1;
        owned.reading += 1;
        let (name, offset, len) = (plan.file.to_string(), plan.offset, plan.length as usize);
        self.files.submit(directory, job, FileJob::Read { name, offset, len });
        self.reads.insert(job, PendingRead { stream: key, plan, purpose });
    }

    fn file_job_done(&mut self, job: u64, outcome: FileOutcome, now_ns: i64, log: &Log) {
        let key = match outcome {
            FileOutcome::Steps(result, took) => {
                let key = (job & !SYNC_JOB) as usize;
                let owned = &mut self.owned[key];
                owned.store_errors += u64::from(result.is_err());
                took.syncs_us.iter().for_each(|sync_us| self.times.sync.record(*sync_us, 1));
                self.has_new_times = true;
                let result = result.map_err(|failed| commit_error(&failed));
                let committed = if job & SYNC_JOB != 0 {
                    owned.is_syncing = false;
                    owned.stream.finish_sync(result)
                } else {
                    owned.is_committing = false;
                    self.times.commit.record(took.total_us, 1);
                    owned.stream.finish_commit(result)
                };
                match committed {
                    Committed::Done => {}
                    Committed::RolledBack { messages } => {
                        owned.consumers.rolled_back();
                        owned.fail_answers();
                        log.error(format!(
                            "JetStream: no space for stream {}: {messages} messages were refused",
                            owned.stream.config().name
                        ));
                    }
                    Committed::Poisoned { text } => {
                        owned.fail_answers();
                        log.error(format!(
                            "JetStream: stream {} cannot be written any more, and is read only: {text}",
                            owned.stream.config().name
                        ));
                    }
                }
                for warning in owned.stream.store_mut().take_warnings() {
                    let name = &owned.stream.config().name;
                    log.warning(format!("JetStream: stream {name}: files cannot be cleaned up: {warning}"));
                }
                key
            }
            FileOutcome::Read(result) => {
                let PendingRead { stream: key, plan, purpose } =
                    self.reads.remove(&job).expect("it was begun");
                let owned = &mut self.owned[key];
                owned.reading -= 1;
                if let Purpose::Rewrite = purpose {
                    owned.stream.store_mut().rewrite_bytes(result.ok().map(Bytes::from).as_ref());
                    self.touch(key);
                    return;
                }
                let messages = match messages_of(&plan, result) {
                    Ok(messages) => messages,
                    Err(error) => match owned.stream.store().read(plan.first_seq) {
                        // Its segment was rewritten meanwhile.
                        Read::OnDisk(new) if new.file != plan.file => {
                            self.read(key, new, purpose);
                            return;
                        }
                        _ => {
                            owned.store_errors += 1;
                            log.error(format!("JetStream: stream {}: {error}", owned.stream.config().name));
                            Vec::new()
                        }
                    },
                };
                let first = |messages: Vec<StoredMessage>| {
                    messages.into_iter().find(|message| message.seq == plan.first_seq)
                };
                match purpose {
                    Purpose::Get(request, reply) => {
                        let handled = owned.stream.found(&request, first(messages));
                        self.handled(key, handled, reply);
                    }
                    Purpose::DirectGet(pending) => {
                        if let Some(pending) = owned.stream.resume(pending, first(messages)) {
                            self.read(key, pending.plan.clone(), Purpose::DirectGet(pending));
                        }
                    }
                    Purpose::Publish(pending) => {
                        let pending = owned.stream.resume_publish(pending, first(messages), now_ns);
                        if let Some(pending) = pending {
                            self.read(key, pending.plan.clone(), Purpose::Publish(pending));
                        }
                    }
                    Purpose::Consumer(index) => owned.consumers.fetched(index, messages),
                    Purpose::Rewrite => unreachable!("it is done"),
                    Purpose::Snapshot(sink) => {
                        if let Some(job) = owned.snapshots.iter_mut().find(|job| job.sink == sink) {
                            job.snapshot.fetched(messages);
                        }
                    }
                    Purpose::Schedule(pending) => {
                        owned.stream.resume_schedule(pending, first(messages), now_ns);
                    }
                    Purpose::Copy(pending) => {
                        let read = first(messages);
                        let pending = owned.stream.resume_copy(&pending, read.as_ref(), now_ns);
                        if let Some(pending) = pending {
                            self.read(key, pending.plan.clone(), Purpose::Copy(pending));
                        }
                    }
                }
                key
            }
        };
        self.touch(key);
    }

    fn pass_time<A: InterestAccess>(&mut self, broker: &mut Broker<A>, now_ns: i64) {
        let due: Vec<usize> = self.deadlines.range(..=(now_ns, usize::MAX)).map(|&(_, key)| key).collect();
        for key in due {
            let owned = &mut self.owned[key];
            owned.stream.tick(now_ns);
            let before = owned.consumers.len(false);
            owned.consumers.tick(drive!(self, owned, broker, now_ns));
            owned.consumers_changed |= owned.consumers.len(false) != before;
            self.touch(key);
        }
    }

    fn touch(&mut self, key: usize) {
        if !std::mem::replace(&mut self.owned[key].is_touched, true) {
            self.touched.push(key);
        }
    }

    /// Lets consumers deliver, publishes what a stream has to say, and has written and read what it wants.
    fn look_after<A: InterestAccess>(&mut self, key: usize, broker: &mut Broker<A>, now_ns: i64, log: &Log) {
        let owned = &mut self.owned[key];
        owned.is_touched = false;
        let account = owned.account;
        let content = &mut self.content;
        owned.stream.take_due(|out| {
            Publisher { broker, account, content }.issue(out.subject, None, b"", out.header, out.payload);
        });
        if owned.stream.take_copy_change() {
            self.copy(key, broker, now_ns, log);
        }
        let owned = &mut self.owned[key];
        let mut more = false;
        let mut reads = Vec::new();
        if !owned.consumers.is_empty() || owned.consumers_changed || owned.consumers.has_unconfirmed() {
            self.check_listeners(key, broker, now_ns);
            let owned = &mut self.owned[key];
            owned.tell_consumers_of_messages();
            if owned.has_lost_messages() {
                owned.consumers.purged(drive!(self, owned, broker, now_ns));
            }
            let work = owned.consumers.run(drive!(self, owned, broker, now_ns));
            (more, reads) = (work.more, work.reads);
            match owned.consumers.flush(owned.stream.store_mut()) {
                Ok(removed) => {
                    for (seq, subject) in removed {
                        owned.consumers.removed(seq, &subject, drive!(self, owned, broker, now_ns));
                    }
                }
                // It is tried again when something happens.
                Err(error) => log.error(format!(
                    "JetStream: consumers of stream {} cannot be written: {error}",
                    owned.stream.config().name
                )),
            }
            self.has_new_times |= owned.consumers.take_ack_times(&mut self.times.ack);
            let committed = owned.stream.store().committed();
            let content = &mut self.content;
            owned.consumers.committed(committed, &mut Publisher { broker, account, content });
            if owned.consumers_changed {
                self.listen_for_consumers(key, broker);
            }
        }
        for (index, plan) in reads {
            self.read(key, plan, Purpose::Consumer(index));
        }
        while let Some(pending) = self.owned[key].stream.take_read() {
            self.read(key, pending.plan.clone(), Purpose::Schedule(pending));
        }
        if !self.owned[key].snapshots.is_empty() {
            more |= self.run_snapshots(key, broker, now_ns, log);
        }
        self.rewrite(key, now_ns);
        let owned = &mut self.owned[key];
        owned.give_answers();
        if let Some(full) = owned.stream.settle_room(now_ns) {
            owned.tell_full(full, log);
        }
        let state = owned.stream.store().state();
        owned.seen = (state.messages, state.last_seq);
        if let Some(directory) = &owned.directory
            && !owned.is_committing
            && let Some(commit) = owned.stream.take_commit()
        {
            owned.is_committing = true;
            self.times.commit_bytes.record_size(commit.bytes());
            let steps = commit.steps.into_iter().map(file_step).collect();
            self.files.submit(directory, key as u64, FileJob::Steps(steps));
        }
        self.sync_if_due(key, now_ns);
        let owned = &mut self.owned[key];
        let is_under_way = owned.is_committing || owned.is_syncing || owned.reading > 0;
        let is_over = owned.closing.is_some() && !is_under_way;
        let deadline_ns = owned.next_deadline_ns().filter(|_| !is_over);
        let before_ns = std::mem::replace(&mut owned.deadline_ns, deadline_ns);
        if deadline_ns != before_ns {
            before_ns.map(|at| self.deadlines.remove(&(at, key)));
            self.deadlines.extend(deadline_ns.map(|at| (at, key)));
        }
        if is_over {
            let owned = self.owned.remove(key);
            self.numbers.remove(&owned.number);
            if let Some(done) = owned.closing {
                let _ = done.send(());
            }
            return;
        }
        if more {
            self.touch(key);
        }
    }

    /// Reads what a segment is rewritten from, slowly enough that nobody else waits for it.
    fn rewrite(&mut self, key: usize, now_ns: i64) {
        let owned = &mut self.owned[key];
        owned.rewrite_ns = None;
        if owned.directory.is_none() || owned.closing.is_some() || !owned.stream.store().wants_rewrite() {
            return;
        }
        if now_ns < self.rewrite_after_ns {
            owned.rewrite_ns = Some(self.rewrite_after_ns);
        } else if let Some(plan) = owned.stream.store_mut().rewrite_read() {
            let pause_ns = i64::from(plan.length) * 1_000_000_000 / REWRITE_BYTES_PER_SECOND;
            self.rewrite_after_ns = now_ns + pause_ns;
            self.read(key, plan, Purpose::Rewrite);
        }
    }

    /// Listens where a stream's origins answer and deliver now, and sends what it has to ask.
    fn copy<A: InterestAccess>(&mut self, key: usize, broker: &mut Broker<A>, now_ns: i64, log: &Log) {
        self.listen(key, broker);
        let owned = &mut self.owned[key];
        for warning in owned.stream.take_copy_warnings() {
            log.warning(format!("JetStream: stream {}: {warning}", owned.stream.config().name));
        }
        while let Some(request) = owned.stream.take_copy_request() {
            let (account, content) = (owned.account, &mut self.content);
            let CopyRequest { origin, subject, reply, header, body } = request;
            let mut publisher = Publisher { broker, account, content };
            if !publisher.issue(subject.as_bytes(), None, reply.as_bytes(), &header, &body) {
                owned.stream.copy_request_unanswered(origin, now_ns);
            }
        }
    }

    /// Syncs what was written without, when it is time.
    fn sync_if_due(&mut self, key: usize, now_ns: i64) {
        let owned = &mut self.owned[key];
        let Some(interval) = owned.stream.sync_interval() else { return };
        if owned.is_syncing || !owned.stream.store().is_sync_due() {
            owned.sync_due_ns = None;
            return;
        }
        let interval_ns = i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX);
        let due_ns = *owned.sync_due_ns.get_or_insert(now_ns.saturating_add(interval_ns));
        if due_ns > now_ns {
            return;
        }
        if let (Some(directory), Some(sync)) = (&owned.directory, owned.stream.store_mut().take_sync()) {
            owned.is_syncing = true;
            let steps = sync.steps.into_iter().map(file_step).collect();
            self.files.submit(directory, key as u64 | SYNC_JOB, FileJob::Steps(steps));
        }
        owned.sync_due_ns = None;
    }

    /// Looks whether somebody listens to what push consumers deliver.
    fn check_listeners<A: InterestAccess>(&mut self, key: usize, broker: &mut Broker<A>, now_ns: i64) {
        let owned = &mut self.owned[key];
        let is_due = now_ns >= owned.listeners_checked_ns + owned.listener_pause_ns;
        if owned.has_listeners() && (owned.consumers_changed || is_due) {
            owned.listeners_checked_ns = now_ns;
            let has_changed = owned.consumers.check_listeners(drive!(self, owned, broker, now_ns));
            owned.listener_pause_ns = if owned.consumers_changed || has_changed {
                *LISTENER_CHECKS_NS.start()
            } else {
                (2 * owned.listener_pause_ns).min(*LISTENER_CHECKS_NS.end())
            };
        }
    }
}

impl Owned {
    /// What its configuration asks to listen to; nothing once it closes.
    fn wanted_sinks(&self) -> BTreeSet<(String, SinkUse)> {
        if self.closing.is_some() {
            return BTreeSet::new();
        }
        let config = self.stream.config();
        let name = &config.name;
        let mut wanted: BTreeSet<(String, SinkUse)> =
            config.subjects.iter().map(|subject| (subject.clone(), SinkUse::Store)).collect();
        if config.allow_direct {
            wanted.insert((format!("{DIRECT_GET}{name}"), SinkUse::DirectGet));
            wanted.insert((format!("{DIRECT_GET}{name}.>"), SinkUse::DirectGet));
        }
        if let Some(origin) = config.mirror.as_ref().filter(|_| self.stream.answers_for_origin()) {
            let origin = &origin.name;
            wanted.insert((format!("{DIRECT_GET}{origin}"), SinkUse::DirectGetForOrigin));
            wanted.insert((format!("{DIRECT_GET}{origin}.>"), SinkUse::DirectGetForOrigin));
        }
        let origins = self.stream.copy_subjects();
        wanted.extend(origins.map(|(what, subject)| (subject.to_owned(), SinkUse::Origin(what))));
        wanted.insert((format!("{ACK}{name}.>"), SinkUse::Ack));
        wanted.insert((format!("{FLOW}{name}.>"), SinkUse::Flow));
        wanted
    }

    /// Whether there are push consumers, to which somebody may listen.
    fn has_listeners(&self) -> bool {
        self.consumers.deliver_subjects().next().is_some()
    }

    /// What monitoring sees of it.
    fn look(&self) -> StreamLook {
        StreamLook {
            report: self.stream.report(false, "", 0),
            write_error: self.stream.store().refusal().map(|error| error.to_string()),
            store_errors: self.store_errors,
            deliveries: self.consumers.deliveries(),
        }
    }

    /// Tells consumers of messages that have become visible: those that are on the disk.
    fn tell_consumers_of_messages(&mut self) {
        let committed_seq = self.stream.store().committed_seq();
        if committed_seq > self.visible_seq {
            self.visible_seq = committed_seq;
            self.consumers.stored();
        }
    }

    /// Whether messages have gone since the last look, other than by acknowledgement.
    fn has_lost_messages(&self) -> bool {
        let (messages, last_seq) = self.seen;
        let state = self.stream.store().state();
        state.messages < messages + state.last_seq.saturating_sub(last_seq)
    }

    /// Gives the answers whose changes are on the disk; all, with an error, if the store can write nothing more.
    fn give_answers(&mut self) {
        let store = self.stream.store();
        let (position, committed) = (store.position(), store.committed());
        self.answers.extend(self.unflushed.drain(..).map(|answer| (position, answer)));
        let is_poisoned = store.refusal().is_some();
        while self.answers.front().is_some_and(|(position, _)| *position <= committed || is_poisoned) {
            let Some((due, answer)) = self.answers.pop_front() else { break };
            answer.give((due > committed).then(|| not_written(&self.stream)));
        }
    }

    /// What was not written never will be as it was: whoever waits for it is told at once.
    fn fail_answers(&mut self) {
        let committed = self.stream.store().committed();
        let due = self.answers.partition_point(|(position, _)| *position <= committed);
        for (_, answer) in self.answers.drain(due..) {
            answer.give(Some(not_written(&self.stream)));
        }
    }

    /// Says in the log that there is no room.
    fn tell_full(&self, full: Full, log: &Log) {
        let kind = match self.stream.config().storage {
            Storage::Memory => "memory",
            Storage::File => "file",
        };
        match full {
            Full::Account => log.warning(format!(
                "JetStream {kind} resource limits exceeded for account: {:?}",
                self.stream.account_name()
            )),
            Full::Server => log.error(format!("JetStream {kind} resource limits exceeded for server")),
        }
    }

    fn next_deadline_ns(&self) -> Option<i64> {
        let listeners = self.has_listeners().then(|| self.listeners_checked_ns + self.listener_pause_ns);
        let snapshots = self.snapshots.iter().filter_map(|job| job.snapshot.deadline_ns()).min();
        let deadlines = [
            self.stream.next_deadline_ns(),
            self.consumers.next_deadline_ns(),
            listeners,
            snapshots,
            self.rewrite_ns,
            self.sync_due_ns,
        ];
        deadlines.into_iter().flatten().min()
    }
}

/// The messages that a plan is for, from what was read.
fn messages_of(plan: &ReadPlan, read: std::io::Result<Vec<u8>>) -> Result<Vec<StoredMessage>, String> {
    match read {
        Ok(bytes) => plan.decode(&bytes.into()).map_err(|damaged| damaged.to_string()),
        Err(error) => {
            Err(format!("message {} cannot be read: {}", plan.first_seq, system_error::text(&error)))
        }
    }
}

fn not_written(stream: &Stream) -> ApiError {
    match stream.store().refusal() {
        Some(error) => ApiError::with(ErrorId::StreamStoreFailed, error),
        None => ErrorId::StreamStoreFailed.into(),
    }
}
