//! One stream at its worker: the state that messages and commands change, and what comes of it.
//!
//! A stream stands on its store, and adds what the store does not know: the rules of the configuration, ids of messages, times to live,
//! acknowledgements. Messages come in through [`publish`](Stream::publish) (`publish.rs`), commands of the API through
//! [`handle`](Stream::handle), direct gets through [`direct_get`](Stream::direct_get) (`get.rs`), the time through [`tick`](Stream::tick).
//! Everything to be published is taken out by [`take_due`](Stream::take_due); what waits for the disk is due when the store has committed it.
//!
//! Nobody sees what a power cut could take back: an answer about the stream carries the position of the store at which it was made, and is
//! due when that is committed.

use super::api::{
    DeleteRequest, FoundMessage, GetRequest, PurgeRequest, SUBJECTS_LIMIT, StreamReport, StreamState,
};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::batch::{BatchLimits, Batches};
use super::check;
use super::config::{Retention, Storage, StreamConfig};
use super::dedup::Dedup;
use super::error::{ApiError, ErrorId};
use super::expiry::Expiry;
use super::headers::{self, Published};
use super::json::write_string;
use super::outbox::{Out, Outbox};
use super::publish::{Counter, parse_ttl};
use super::room::{Full, Rooms, Share};
use super::schedule::Schedules;
use super::scheduled::PendingSchedule;
use super::source::copies::Copying;
use crate::store::{Commit, CommitError, Committed, Filters, Read, ReadPlan, Store, StoredMessage};
use crate::subject::transform::Transform;

/// Messages that are removed for their age in one [`tick`](Stream::tick), so that a turn stays short.
const EXPIRED_PER_TICK_MAX: usize = 1024;

/// Deleted sequences in one answer. The reference has no bound; a list that is longer is cut.
const DELETED_DETAILS_MAX: usize = 1_000_000;

/// See the file's header.
pub struct Stream {
    pub(super) config: StreamConfig,
    pub(super) created_ns: i64,
    pub(super) store: Store,
    pub(super) dedup: Dedup,
    pub(super) expiry: Expiry,
    /// What is due now.
    pub(super) now: Outbox,
    /// What is due when the store has committed it.
    pub(super) later: Outbox,
    /// An acknowledgement up to the sequence: `{"stream":"S","seq":`.
    pub(super) ack_prefix: Vec<u8>,
    /// The last message's id, empty if it had none.
    pub(super) last_msg_id: Vec<u8>,
    pub(super) subject_transform: Option<Transform>,
    pub(super) republish: Option<Transform>,
    pub(super) random: fastrand::Rng,
    /// What consumers are interested in; only asked with interest retention.
    pub(super) interest: Vec<Filters>,
    pub(super) consumer_count: u64,
    /// Consumers, with those of other streams that copy from this one.
    pub(super) consumers_total: u64,
    /// What is copied from where.
    pub(super) copying: Copying,
    /// Everything before this sequence is gone or stays whatever its age.
    aged_up_to: u64,
    /// What it has of the bytes that its account and the server allow.
    pub(super) share: Share,
    sync_interval: Option<Duration>,
    /// When a sequence was last given to a message that nobody wanted.
    pub(super) skipped_ns: i64,
    /// It was purged before it had a message: then its first sequence is told as 1.
    purged_empty: bool,
    pub(super) batches: Batches,
    pub(super) schedules: Schedules,
    /// Schedules whose time has come and whose messages have to be read first.
    pub(super) to_read: VecDeque<PendingSchedule>,
    /// What counters stand at, and the message that says so; `None` if it says nothing.
    pub(super) counters: HashMap<Box<[u8]>, (u64, Option<Counter>)>,
    /// A message without a header needs no other check than those of size and room.
    pub(super) is_plain: bool,
    pub(super) domain: String,
    pub(super) account: String,
}

/// What a stream is made with.
#[derive(Debug, Clone)]
pub struct StreamSettings {
    /// Its configuration, with all defaults.
    pub config: StreamConfig,
    /// When it was created, in nanoseconds since 1970.
    pub created_ns: i64,
    /// The domain of the server, empty without one: acknowledgements name it.
    pub domain: String,
    /// The account, for advisories; empty for the global one, which is not told.
    pub account: String,
    /// Limits of batches.
    pub batch_limits: BatchLimits,
    /// For whatever is random: transforms, and hashes that nobody can foresee.
    pub seed: u64,
}

/// What the API asks of a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// What are you?
    Info {
        /// With the sequences that are missing.
        deleted_details: bool,
        /// With the subjects that this matches, if it is not empty.
        subjects_filter: String,
        /// Where the subjects are to begin.
        offset: usize,
    },
    /// Take this configuration, which was checked.
    Update(Box<StreamConfig>),
    /// Remove messages.
    Purge(PurgeRequest),
    /// Remove one message.
    Delete(DeleteRequest),
    /// Give one message.
    Get(GetRequest),
}

impl Command {
    /// The plain question.
    pub fn info() -> Command {
        Command::Info { deleted_details: false, subjects_filter: String::new(), offset: 0 }
    }
}

/// What a stream says to a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// What it is (now).
    Report(Box<StreamReport>),
    /// How many messages were removed.
    Purged(u64),
    /// The message was removed.
    Deleted,
    /// The message.
    Message(Box<FoundMessage>),
}

/// What became of a command.
#[derive(Debug)]
#[must_use]
pub enum Handled {
    /// It is done. The answer may be given when the store has committed up to `position`; if it never does, the answer is the error.
    Done {
        /// What to say.
        answer: Result<Answer, ApiError>,
        /// When.
        position: u64,
    },
    /// A message has to be read first; then [`Stream::found`].
    Read(ReadPlan, GetRequest),
}

impl Stream {
    /// A new stream, on an empty store.
    pub fn new(settings: StreamSettings, store: Store) -> Stream {
        let StreamSettings { config, created_ns, domain, account, batch_limits, seed } = settings;
        let mut stream = Stream {
            created_ns,
            store,
            dedup: Dedup::new(seed),
            expiry: Expiry::default(),
            now: Outbox::default(),
            later: Outbox::default(),
            ack_prefix: Vec::new(),
            last_msg_id: Vec::new(),
            subject_transform: None,
            republish: None,
            random: fastrand::Rng::with_seed(seed),
            interest: Vec::new(),
            consumer_count: 0,
            consumers_total: 0,
            copying: Copying::default(),
            aged_up_to: 0,
            share: Share::default(),
            sync_interval: None,
            skipped_ns: 0,
            purged_empty: false,
            batches: Batches::new(batch_limits),
            schedules: Schedules::default(),
            to_read: VecDeque::new(),
            counters: HashMap::new(),
            is_plain: false,
            domain,
            account,
            config,
        };
        stream.compile();
        if stream.config.first_seq > 1 {
            stream.store.skip_to(stream.config.first_seq);
        }
        stream.configure_copying(false);
        stream
    }

    /// A stream that was there before, on its store as it was recovered. `read` reads messages that are not in memory.
    ///
    /// Ids of messages and times to live are found in the headers of the messages: ids in those of the window before `now_ns`, times to
    /// live in all, if the stream has any.
    pub fn open(
        settings: StreamSettings,
        store: Store,
        now_ns: i64,
        mut read: impl FnMut(&ReadPlan) -> Option<StoredMessage>,
    ) -> Stream {
        let mut stream = Stream::new(settings, store);
        let window_from = now_ns.saturating_sub(stream.config.duplicate_window.0);
        let last = stream.store.state().last_seq;
        let dedup_from = match stream.config.duplicate_window.0 {
            0 => last,
            _ => stream.store.seq_at_or_after(window_from).unwrap_or(last),
        };
        let all = stream.config.allow_msg_ttl || stream.config.allow_msg_schedules;
        let from = if all { 0 } else { dedup_from };
        let mut at = stream.store.next(from);
        while let Some(seq) = at {
            let message = match stream.store.read(seq) {
                Read::Found(message) => Some(message),
                Read::OnDisk(plan) => read(&plan),
                Read::Missing => None,
            };
            if let Some(message) = message {
                stream.remember(&message, seq >= dedup_from, now_ns);
            }
            at = stream.store.next(seq + 1);
        }
        stream.remove_torn_batch(&mut read);
        stream.begin_copying(&mut read);
        stream.enforce_limits();
        stream
    }

    /// The configuration.
    pub fn config(&self) -> &StreamConfig {
        &self.config
    }

    /// The domain of its server, empty without one.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The name of its account.
    pub fn account_name(&self) -> &str {
        if self.account.is_empty() { "$G" } else { &self.account }
    }

    /// When it was created, in nanoseconds since 1970.
    pub fn created_ns(&self) -> i64 {
        self.created_ns
    }

    /// The messages.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The messages, for consumers, which keep notes there and remove what was acknowledged.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// What has to be written before anything more is due; `None` if there is nothing or it is being written.
    pub fn take_commit(&mut self) -> Option<Commit> {
        self.note_positions();
        self.store.take_commit()
    }

    /// Says what became of the commit that was taken. Then [`take_due`](Stream::take_due).
    pub fn finish_commit(&mut self, result: Result<(), CommitError>) -> Committed {
        let committed = self.store.finish_commit(result);
        self.positions_committed(&committed);
        self.finished(committed)
    }

    /// Says what became of the sync that was taken of the store.
    pub fn finish_sync(&mut self, result: Result<(), CommitError>) -> Committed {
        let committed = self.store.finish_sync(result);
        self.finished(committed)
    }

    fn finished(&mut self, committed: Committed) -> Committed {
        let error = match &committed {
            Committed::Done => return committed,
            Committed::RolledBack { .. } => {
                let next = self.store.state().last_seq + 1;
                self.dedup.forget_from(next);
                self.counters.clear();
                self.schedules.forget_from(next);
                self.expiry.forget_from(next);
                self.last_msg_id.clear();
                "no space left on device".to_owned()
            }
            Committed::Poisoned { text } => text.clone(),
        };
        self.end_fast_batches();
        let body = self.refusal_body(&ApiError::with(ErrorId::StreamStoreFailed, error));
        let now = &mut self.now;
        self.later.fail(self.store.committed(), |reply| {
            now.push(0, super::outbox::Kind::Ack, reply, &[], &[&body]);
        });
        committed
    }

    /// Takes out everything that may be published now.
    pub fn take_due(&mut self, mut take: impl FnMut(Out<'_>)) {
        self.now.take_due(u64::MAX, &mut take);
        self.later.take_due(self.store.committed(), take);
    }

    /// Carries out a command.
    pub fn handle(&mut self, command: Command, now_ns: i64) -> Handled {
        let answer = match command {
            Command::Info { deleted_details, subjects_filter, offset } => {
                Ok(Answer::Report(Box::new(self.report(deleted_details, &subjects_filter, offset))))
            }
            Command::Update(config) => {
                self.update(*config, now_ns);
                Ok(Answer::Report(Box::new(self.report(false, "", 0))))
            }
            Command::Purge(request) => self.purge_asked(&request).map(Answer::Purged),
            Command::Delete(request) => self.delete(&request).map(|()| Answer::Deleted),
            Command::Get(request) => return self.get(request),
        };
        self.done(answer)
    }

    /// What consumers there are, and what they are interested in. `total` counts those of mirrors and sources, too.
    pub fn set_consumers(&mut self, count: u64, total: u64, interest: Vec<Filters>) {
        self.consumer_count = count;
        self.consumers_total = total;
        self.interest = interest;
    }

    /// How often what it acknowledges is synced to the disk; `None`: before it is acknowledged.
    pub fn set_sync_interval(&mut self, interval: Option<Duration>) {
        self.sync_interval = interval;
    }

    /// How often what it acknowledges is synced to the disk; `None`: before it is acknowledged.
    pub fn sync_interval(&self) -> Option<Duration> {
        self.sync_interval
    }

    /// Counts what it holds with that of its account and of the server, which may not have room for more.
    pub fn count_in(&mut self, account: &Rooms, server: &Rooms) {
        let storage = self.config.storage;
        let held = self.store.state().bytes;
        self.share = Share::new(account.of(storage).clone(), server.of(storage).clone(), held);
    }

    /// Gives back what it has of its account's room and does not hold: at the end of a turn. Who had no room since the last
    /// time, if that is worth a line in the log.
    pub fn settle_room(&mut self, now_ns: i64) -> Option<Full> {
        self.share.settle(self.store.state().bytes);
        self.share.take_refused(now_ns)
    }

    /// What the time brings: messages that are too old go. There may be more to do than one call does; then
    /// [`next_deadline_ns`](Stream::next_deadline_ns) is past.
    pub fn tick(&mut self, now_ns: i64) {
        self.expire_batches(now_ns);
        self.expire_fast_batches(now_ns);
        self.fire_schedules(now_ns);
        self.expire_aged(now_ns);
        if let Some(seqs) = self.expiry.take_due(now_ns) {
            for seq in seqs {
                self.expire(seq, now_ns);
            }
        }
        let window = self.config.duplicate_window.0;
        self.dedup.forget_older_than(now_ns.saturating_sub(window));
        self.tick_copying(now_ns);
    }

    /// When [`tick`](Stream::tick) has something to do; `None` if the time brings nothing.
    pub fn next_deadline_ns(&self) -> Option<i64> {
        let aged = (self.config.max_age.0 > 0)
            .then(|| self.next_aging())
            .flatten()
            .map(|(_, time_ns)| time_ns.saturating_add(self.config.max_age.0));
        let others = [
            self.next_batch_deadline_ns(),
            self.next_fast_batch_check_ns(),
            self.schedules.next_ns(),
            self.next_copy_deadline_ns(),
        ];
        [aged, self.expiry.next_ns()].into_iter().chain(others).flatten().min()
    }

    /// What the stream is.
    pub fn report(&self, deleted_details: bool, subjects_filter: &str, offset: usize) -> StreamReport {
        let state = self.store.state();
        let last_time_ns = state.last_time_ns.max(self.skipped_ns);
        let mut told = StreamState {
            messages: state.messages,
            bytes: state.bytes,
            first_seq: state.first_seq.max(u64::from(self.purged_empty)),
            first_time_ns: (state.messages > 0).then_some(state.first_time_ns),
            last_seq: state.last_seq,
            last_time_ns: (last_time_ns != 0).then_some(last_time_ns),
            num_subjects: state.subjects,
            num_deleted: state.deleted,
            consumer_count: self.consumer_count,
            ..StreamState::default()
        };
        if deleted_details {
            told.deleted = self.store.deleted().flatten().take(DELETED_DETAILS_MAX).collect();
        }
        let mut subjects_total = 0;
        if !subjects_filter.is_empty() {
            subjects_total = self.store.count_subjects(subjects_filter.as_bytes()) as usize;
            let matching = self.store.subjects_matching(
                subjects_filter.as_bytes(),
                None,
                offset.saturating_add(SUBJECTS_LIMIT),
            );
            told.subjects = matching
                .into_iter()
                .skip(offset)
                .map(|(subject, state)| (String::from_utf8_lossy(&subject).into_owned(), state.messages))
                .collect();
        }
        let mut report = StreamReport {
            config: self.config.clone(),
            created_ns: self.created_ns,
            state: told,
            subjects_total,
            consumers_total: self.consumers_total,
            mirror: None,
            sources: Vec::new(),
            sync_interval: self.sync_interval,
        };
        self.report_origins(&mut report);
        report
    }

    pub(super) fn done(&self, answer: Result<Answer, ApiError>) -> Handled {
        Handled::Done { answer, position: self.store.position() }
    }

    /// The body of an answer to a publisher that says what went wrong.
    pub(super) fn refusal_body(&self, error: &ApiError) -> Vec<u8> {
        let mut body = b"{\"error\":".to_vec();
        error.write(&mut body);
        body.extend_from_slice(b",\"stream\":");
        write_string(&mut body, &self.config.name);
        body.extend_from_slice(b",\"seq\":0}");
        body
    }

    /// Makes what the configuration implies.
    fn compile(&mut self) {
        self.ack_prefix.clear();
        self.ack_prefix.extend_from_slice(b"{\"stream\":");
        write_string(&mut self.ack_prefix, &self.config.name);
        if !self.domain.is_empty() {
            self.ack_prefix.extend_from_slice(b",\"domain\":");
            write_string(&mut self.ack_prefix, &self.domain);
        }
        self.ack_prefix.extend_from_slice(b",\"seq\":");
        self.is_plain =
            !self.config.sealed && !self.config.allow_msg_counter && self.config.subject_transform.is_none();
        // The transforms were checked with the configuration.
        self.subject_transform = self
            .config
            .subject_transform
            .as_ref()
            .and_then(|transform| check::transform(&transform.src, &transform.dest).ok().flatten());
        self.republish = self
            .config
            .republish
            .as_ref()
            .and_then(|republish| check::transform(&republish.src, &republish.dest).ok().flatten());
    }

    fn update(&mut self, config: StreamConfig, now_ns: i64) {
        self.config = config;
        self.compile();
        self.configure_copying(true);
        if !self.config.allow_atomic {
            self.batches.drop_atomic();
        }
        if !self.config.allow_batched {
            self.end_fast_batches();
        }
        // A shorter or longer age looks at all messages again.
        self.aged_up_to = 0;
        self.enforce_limits();
        self.expire_aged(now_ns);
    }

    /// A power cut may have left the first part of a batch at the end of the stream: nobody was told of it, and it goes.
    fn remove_torn_batch(&mut self, read: &mut impl FnMut(&ReadPlan) -> Option<StoredMessage>) {
        let mut torn: Option<Vec<u8>> = None;
        let mut at = self.store.state().last_seq;
        while self.config.allow_atomic && at > 0 {
            let message = match self.store.read(at) {
                Read::Found(message) => Some(message),
                Read::OnDisk(plan) => read(&plan),
                Read::Missing => None,
            };
            let id = message.as_ref().and_then(|message| Stream::is_torn_batch(message.header()));
            let Some(id) = id.filter(|id| torn.as_deref().is_none_or(|torn| torn == *id)) else { return };
            torn = Some(id.to_vec());
            self.remove(at, false);
            self.dedup.forget_from(at);
            at -= 1;
        }
    }

    /// Notes what the header of a stored message says, when the stream is opened.
    fn remember(&mut self, message: &StoredMessage, in_window: bool, now_ns: i64) {
        let published = Published::of(message.header());
        if in_window {
            self.last_msg_id.clear();
            self.last_msg_id.extend_from_slice(published.msg_id);
            if !published.msg_id.is_empty()
                && now_ns.saturating_sub(message.time_ns) < self.config.duplicate_window.0
            {
                self.dedup.insert(published.msg_id, message.seq, message.time_ns);
            }
        }
        if self.config.allow_msg_ttl {
            let ttl = parse_ttl(published.ttl).unwrap_or(0);
            self.note_expiry(message.seq, message.time_ns, message.header(), ttl);
        }
        if self.config.allow_msg_schedules {
            self.note_schedule(message.subject(), message.seq, message.time_ns, message.header());
        }
    }

    /// Notes when a message goes.
    pub(super) fn note_expiry(&mut self, seq: u64, time_ns: i64, header: &[u8], ttl_s: i64) {
        match ttl_s {
            0 => {}
            ..0 => self.expiry.insert_never(seq),
            _ => self.expiry.insert(seq, time_ns.saturating_add(ttl_s.saturating_mul(1_000_000_000))),
        }
        if self.config.subject_delete_marker_ttl.0 > 0 && is_marker(header) {
            self.expiry.insert_marker(seq);
        }
    }

    /// Brings the stream within its limits: the oldest messages go.
    pub(super) fn enforce_limits(&mut self) {
        if self.config.max_msgs_per_subject > 0 {
            self.enforce_per_subject();
        }
        self.enforce_total();
    }

    /// Brings number and bytes of all messages within the limits.
    pub(super) fn enforce_total(&mut self) {
        let (max_msgs, max_bytes) = (self.config.max_msgs, self.config.max_bytes);
        loop {
            let state = self.store.state();
            let over = max_msgs > 0 && state.messages > max_msgs as u64
                || max_bytes > 0 && state.bytes > max_bytes as u64 && state.messages > 0;
            if !over {
                return;
            }
            self.remove(state.first_seq, false);
        }
    }

    fn enforce_per_subject(&mut self) {
        let max = self.config.max_msgs_per_subject as u64;
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let subjects = self.store.subjects_matching(b">", after.as_deref(), 1024);
            let Some((last, _)) = subjects.last() else { return };
            after = Some(last.clone());
            for (subject, state) in subjects.iter().filter(|(_, state)| state.messages > max) {
                for _ in max..state.messages {
                    if let Some(first) = self.store.first_of(subject) {
                        self.remove(first, false);
                    }
                }
            }
        }
    }

    /// Removes a message and what was noted of it.
    pub(super) fn remove(&mut self, seq: u64, erase: bool) -> bool {
        self.expiry.forget(seq);
        self.store.remove(seq, erase).is_some()
    }

    fn purge_asked(&mut self, request: &PurgeRequest) -> Result<u64, ApiError> {
        if self.config.sealed {
            return Err(ErrorId::StreamSealed.into());
        }
        if self.config.deny_purge {
            return Err(ApiError::with(ErrorId::StreamPurgeFailed, "stream purge not permitted"));
        }
        Ok(self.purge(request.filter.as_bytes(), request.seq, request.keep))
    }

    /// Removes messages: those of `filter` (all if empty), below `seq` (0 for no bound), but for the last `keep`.
    pub(super) fn purge(&mut self, filter: &[u8], seq: u64, keep: u64) -> u64 {
        // Nothing is before the first.
        if seq == 1 {
            return 0;
        }
        let all = filter.is_empty() || filter == b">";
        let state = self.store.state();
        if all && keep == 0 {
            let to = if seq == 0 { state.last_seq + 1 } else { seq };
            let purged = self.store.remove_up_to(to).messages;
            self.purged_empty = true;
            self.expiry.forget_below(to);
            if to > state.last_seq {
                self.store.skip_to(to);
            }
            return purged;
        }
        if all && seq == 0 {
            // Only the last `keep` stay.
            if keep >= state.messages {
                return 0;
            }
            let mut first_kept = state.last_seq + 1;
            for _ in 0..keep {
                first_kept = self.store.previous(first_kept - 1).unwrap_or(first_kept);
            }
            self.expiry.forget_below(first_kept);
            return self.store.remove_up_to(first_kept).messages;
        }
        let filters = if all { Filters::all() } else { Filters::one(filter) };
        let mut left = match keep {
            0 => u64::MAX,
            _ => self.store.count_matching(&filters, 0).saturating_sub(keep),
        };
        let mut purged = 0;
        let mut at = 0;
        while left > 0
            && let Some(next) = self.store.next_matching(&filters, at)
            && (seq == 0 || next < seq)
        {
            if self.remove(next, false) {
                purged += 1;
                left -= 1;
            }
            at = next + 1;
        }
        purged
    }

    fn delete(&mut self, request: &DeleteRequest) -> Result<(), ApiError> {
        if self.config.sealed {
            return Err(ErrorId::StreamSealed.into());
        }
        if self.config.deny_delete {
            return Err(ApiError::with(ErrorId::StreamMsgDeleteFailed, "message delete not permitted"));
        }
        if self.remove(request.seq, !request.no_erase) {
            return Ok(());
        }
        // The reference's two stores differ about what was never there.
        let state = self.store.state();
        let failed = |text: &str| Err(ApiError::with(ErrorId::StreamMsgDeleteFailed, text));
        match self.config.storage {
            Storage::File if request.seq == 0 || request.seq < state.first_seq => failed("no message found"),
            Storage::File if request.seq > state.last_seq => failed("stream store EOF"),
            _ => Err(ApiError::with(ErrorId::SequenceNotFound, request.seq)),
        }
    }

    /// Removes messages that are older than the stream's age, the oldest first.
    fn expire_aged(&mut self, now_ns: i64) {
        let max_age = self.config.max_age.0;
        if max_age <= 0 {
            return;
        }
        let too_old = now_ns.saturating_sub(max_age);
        for _ in 0..EXPIRED_PER_TICK_MAX {
            let Some((seq, time_ns)) = self.next_aging() else { return };
            if time_ns > too_old {
                return;
            }
            self.aged_up_to = seq + 1;
            self.expire(seq, now_ns);
        }
    }

    /// The oldest message that goes by its age, and its time.
    fn next_aging(&self) -> Option<(u64, i64)> {
        let mut at = self.aged_up_to;
        loop {
            let seq = self.store.next(at)?;
            if !self.expiry.is_never(seq) {
                return Some((seq, self.store.time_of(seq)?));
            }
            at = seq + 1;
        }
    }

    /// A message goes because of its age: it is removed, or, if it was the last of its subject and the stream wants to
    /// tell that, a marker takes its place.
    fn expire(&mut self, seq: u64, now_ns: i64) {
        let marker_ttl_ns = self.config.subject_delete_marker_ttl.0;
        if marker_ttl_ns > 0
            && !self.expiry.is_marker(seq)
            && let Some(subject) = self.store.subject_of(seq)
            && self.store.count_of(subject) == 1
        {
            let subject = subject.to_vec();
            self.store_marker(&subject, now_ns);
            return;
        }
        self.remove(seq, false);
    }

    pub(super) fn has_interest(&self, subject: &[u8]) -> bool {
        self.config.retention != Retention::Interest
            || self.interest.iter().any(|filters| filters.matches(subject))
    }
}

/// Whether a header says that its message is the end of a subject.
pub(super) fn is_marker(header: &[u8]) -> bool {
    headers::get(header, b"Nats-Marker-Reason").is_some_and(|reason| !reason.is_empty())
        || headers::get(header, b"KV-Operation") == Some(b"PURGE")
}
