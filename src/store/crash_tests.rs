//! Random runs of a file store on a disk that forgets, cut at every kind of moment, and what must be there afterwards.
//!
//! A run is drawn from a seed: appends, gaps, removals, purges, notes, commits that come back late, full disks, `kill -9`
//! and power cuts between any two steps of a commit. `RINGMAIN_STORE_SEEDS=10000 cargo test --release --lib
//! store::crash` runs that many; a failure names its seed, and `RINGMAIN_STORE_SEED=N` runs just that one.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::model::Model;
use super::plan::{Commit, CommitError, CommitErrorKind, Committed, Files};
use super::simulated_disk::SimulatedDisk;
use super::{
    Cipher, Encryption, FileStore, Filters, Message, Read, Settings, Store, StoreError, StoredMessage,
};

const SUBJECTS: [&str; 6] = ["a", "a.b", "a.c", "b.a", "b.a.c", "c"];
const KEYS: [&str; 3] = ["one", "two", "three"];

pub fn settings() -> Settings {
    // A header, and few records: most runs seal segments.
    Settings { segment_bytes_max: 4096 + 700, cache_bytes_max: 500, ..Settings::new(99) }
}

/// The same, encrypted.
fn encrypted(nonce_start: u128) -> Settings {
    let encryption = Some(Encryption::new(Cipher::ChaCha20Poly1305, [7; 32]));
    Settings { segment_bytes_max: 4096 + 1200, encryption, nonce_start, ..settings() }
}

/// Reads a message wherever it is.
pub fn read(store: &Store, disk: &mut SimulatedDisk, seq: u64) -> Option<StoredMessage> {
    match store.read(seq) {
        Read::Missing => None,
        Read::Found(message) => Some(message),
        Read::OnDisk(plan) => {
            let mut bytes = vec![0; plan.length as usize];
            let len = disk.read_at(plan.file, plan.offset, &mut bytes).unwrap();
            bytes.truncate(len);
            let messages = plan.decode(&Bytes::from(bytes)).unwrap();
            assert_eq!(messages.len(), 1);
            messages.into_iter().next()
        }
    }
}

/// What was done since the last commit that came back.
#[derive(Debug, Clone)]
enum Done {
    Append(StoredMessage),
    /// A removal in the middle, with a record of its own.
    Remove(u64),
    /// A removal from the head, which is recorded at the end of a commit.
    RemoveHead(u64),
    Skip,
    Note(&'static str, Option<Vec<u8>>),
}

struct Run {
    draw: fastrand::Rng,
    disk: SimulatedDisk,
    store: Store,
    model: Model,
    /// Everything not committed, with its position.
    since: Vec<(u64, Done)>,
    /// As of the last commit: live messages, last sequence, notes.
    live: BTreeMap<u64, StoredMessage>,
    last_seq: u64,
    notes: BTreeMap<&'static str, Vec<u8>>,
    time_ns: i64,
    appended: u64,
    /// Reads for segments that are rewritten.
    rewritten: u64,
    is_encrypted: bool,
    /// How often it was opened.
    openings: u128,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut disk = SimulatedDisk::default();
        // Every third one.
        let is_encrypted = seed.is_multiple_of(3);
        let (store, steps) = FileStore::create(if is_encrypted { encrypted(0) } else { settings() });
        for step in &steps {
            disk.perform(step).unwrap();
        }
        Run {
            draw: fastrand::Rng::with_seed(seed),
            disk,
            store: store.into(),
            model: Model::of_files(),
            since: Vec::new(),
            live: BTreeMap::new(),
            last_seq: 0,
            notes: BTreeMap::new(),
            time_ns: 1_000_000,
            appended: 0,
            rewritten: 0,
            is_encrypted,
            openings: 0,
        }
    }

    /// With numbers that were never used.
    fn settings(&mut self) -> Settings {
        self.openings += 1;
        if self.is_encrypted { encrypted(self.openings << 64) } else { settings() }
    }

    fn act(&mut self) {
        let state = self.store.state();
        assert_eq!(state, self.model.state());
        let some_seq =
            state.first_seq + self.draw.u64(..state.last_seq + 2 - state.first_seq.min(state.last_seq));
        match self.draw.u32(..100) {
            0..50 => self.append(),
            50..62 => self.remove(some_seq),
            62..72 => self.remove(state.first_seq),
            72..74 => {
                let all: Vec<u64> =
                    self.model.messages().map(|message| message.seq).filter(|seq| *seq < some_seq).collect();
                let purged = self.store.remove_up_to(some_seq);
                assert_eq!(purged, self.model.remove_up_to(some_seq));
                let position = self.store.position();
                self.since.extend(all.into_iter().map(|seq| (position, Done::RemoveHead(seq))));
            }
            74 => {
                self.store.skip_to(state.last_seq + 4);
                self.model.skip_to(state.last_seq + 4);
                self.since.push((self.store.position(), Done::Skip));
            }
            75..82 => {
                let key = KEYS[self.draw.usize(..KEYS.len())];
                let value = self.draw.bool().then(|| vec![self.draw.u8(..); self.draw.usize(..40)]);
                self.store.note(key.as_bytes(), value.as_deref()).unwrap();
                self.since.push((self.store.position(), Done::Note(key, value)));
            }
            82..88 => self.rewrite(),
            _ => self.commit(),
        }
    }

    /// Reads a part of a segment that is to be rewritten, if there is one.
    fn rewrite(&mut self) {
        let Some(plan) = self.store.rewrite_read() else { return };
        let mut bytes = vec![0; plan.length as usize];
        let len = self.disk.read_at(plan.file, plan.offset, &mut bytes).unwrap();
        bytes.truncate(len);
        self.rewritten += 1;
        self.store.rewrite_bytes(Some(&bytes.into()));
    }

    fn append(&mut self) {
        self.time_ns += self.draw.i64(0..1_000);
        self.appended += 1;
        let gap = if self.draw.u8(..20) == 0 { self.draw.u64(..5) } else { 0 };
        let header = if self.draw.bool() { "" } else { "NATS/1.0\r\nA: b\r\n\r\n" };
        let payload = format!("{}", self.appended).repeat(self.draw.usize(..60));
        let message = Message {
            seq: self.store.state().last_seq + 1 + gap,
            time_ns: self.time_ns,
            subject: SUBJECTS[self.draw.usize(..SUBJECTS.len())].as_bytes(),
            header: header.as_bytes(),
            payload: payload.as_bytes(),
        };
        match self.store.append(&message) {
            Ok(()) => {
                self.model.append(&message).unwrap();
                self.since.push((self.store.position(), Done::Append(StoredMessage::copy_of(&message))));
            }
            Err(error) => {
                assert_eq!(error, StoreError::NoSpace);
                // Somebody makes room now and then.
                if self.draw.u8(..4) == 0 {
                    self.disk.space = None;
                }
            }
        }
    }

    fn remove(&mut self, seq: u64) {
        let is_head = seq == self.store.state().first_seq;
        let erase = self.draw.u8(..4) == 0;
        let removed = self.store.remove(seq, erase).map(|removed| (removed.seq, removed.subject_messages));
        assert_eq!(
            removed,
            self.model.remove(seq, false).map(|removed| (removed.seq, removed.subject_messages))
        );
        if removed.is_some() {
            let done = if is_head { Done::RemoveHead(seq) } else { Done::Remove(seq) };
            self.since.push((self.store.position(), done));
        }
    }

    fn commit(&mut self) {
        if self.draw.u8(..10) == 0 {
            self.disk.space = Some(self.draw.usize(..60_000));
        }
        let Some(commit) = self.store.take_commit() else { return };
        // More is done while it is under way.
        while self.draw.u8(..3) > 0 {
            if self.draw.bool() { self.append() } else { self.remove(self.store.state().first_seq + 1) }
        }
        let cut_before = (self.draw.u8(..6) == 0).then(|| self.draw.usize(..commit.steps.len() + 1));
        self.carry_out(commit, cut_before);
    }

    fn carry_out(&mut self, commit: Commit, cut_before: Option<usize>) {
        let mut result = Ok(());
        for (number, step) in commit.steps.iter().enumerate() {
            if cut_before == Some(number) {
                return self.crash();
            }
            if let Err(error) = self.disk.perform(step) {
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
                let kind = CommitErrorKind::NoSpace;
                result = Err(CommitError { step: number, kind, text: error.to_string() });
                break;
            }
        }
        if cut_before.is_some() {
            return self.crash();
        }
        match self.store.finish_commit(result) {
            Committed::Done => self.note_committed(),
            Committed::RolledBack { .. } => self.roll_back(),
            Committed::Poisoned { text } => panic!("{text}"),
        }
    }

    fn note_committed(&mut self) {
        let committed = self.store.committed();
        let count = self.since.iter().take_while(|(position, _)| *position <= committed).count();
        for (_, done) in self.since.drain(..count) {
            match done {
                Done::Append(message) => {
                    self.last_seq = message.seq;
                    self.live.insert(message.seq, message);
                }
                Done::Remove(seq) | Done::RemoveHead(seq) => _ = self.live.remove(&seq),
                Done::Skip => {}
                Done::Note(key, Some(value)) => _ = self.notes.insert(key, value),
                Done::Note(key, None) => _ = self.notes.remove(key),
            }
        }
        assert!(self.store.committed_seq() >= self.last_seq);
        self.last_seq = self.store.committed_seq();
    }

    /// The disk was full: appends are undone, removals and notes are not.
    fn roll_back(&mut self) {
        self.since.retain(|(_, done)| !matches!(done, Done::Append(_) | Done::Skip));
        assert_eq!(self.store.state().last_seq, self.last_seq);
        let mut live = self.live.clone();
        for (_, done) in &self.since {
            if let Done::Remove(seq) | Done::RemoveHead(seq) = done {
                live.remove(seq);
            }
        }
        self.since.retain(|(_, done)| match done {
            Done::Remove(seq) | Done::RemoveHead(seq) => self.live.contains_key(seq),
            _ => true,
        });
        // They count when the next commit that includes them comes back.
        let position = self.store.position();
        self.since.iter_mut().for_each(|(at, _)| *at = position);
        self.compare_messages(&live);
        self.rebuild_model();
    }

    /// Power cut or `kill -9`, then everything is opened again.
    fn crash(&mut self) {
        if self.draw.u8(..4) > 0 {
            self.disk.cut_power(&mut self.draw);
        }
        self.disk.space = None;
        let state = self.store.state();
        let settings = self.settings();
        let (store, report) = FileStore::open(&mut self.disk, settings).unwrap();
        assert!(!report.is_damaged(), "{report:?}");
        self.store = store.into();
        self.check_recovered(state.last_seq);
        self.since.clear();
        self.adopt();
    }

    fn check_recovered(&mut self, last_seq: u64) {
        let state = self.store.state();
        assert!(
            (self.last_seq..=last_seq).contains(&state.last_seq),
            "{} {state:?} {last_seq}",
            self.last_seq
        );
        let mut found = BTreeMap::new();
        let mut from = 0;
        while let Some(seq) = self.store.next(from) {
            found.insert(seq, read(&self.store, &mut self.disk, seq).unwrap());
            from = seq + 1;
        }
        let mut possible = self.live.clone();
        let mut removals = BTreeMap::new();
        for (number, (_, done)) in self.since.iter().enumerate() {
            match done {
                Done::Append(message) => _ = possible.insert(message.seq, message.clone()),
                Done::Remove(seq) | Done::RemoveHead(seq) => _ = removals.insert(*seq, number),
                _ => {}
            }
        }
        for (seq, message) in &found {
            assert_eq!(possible.get(seq), Some(message), "{seq} is back or changed");
        }
        // Of what was not committed a beginning is there: what was appended, and what was removed, nothing before lost.
        let mut last_effect = 0;
        for (number, (_, done)) in self.since.iter().enumerate() {
            let had_effect = match done {
                Done::Append(message) => found.contains_key(&message.seq),
                Done::Remove(seq) | Done::RemoveHead(seq) => {
                    self.live.contains_key(seq) && !found.contains_key(seq)
                }
                _ => false,
            };
            if had_effect {
                last_effect = number;
            }
        }
        for (number, (_, done)) in self.since.iter().enumerate().take(last_effect) {
            if let Done::Append(message) = done {
                let is_there = found.contains_key(&message.seq) || removals.contains_key(&message.seq);
                assert!(is_there, "{} (action {number}) is missing before action {last_effect}", message.seq);
            }
        }
        for seq in self.live.keys() {
            assert!(found.contains_key(seq) || removals.contains_key(seq), "{seq} is lost");
        }
        for key in KEYS {
            let mut possible = vec![self.notes.get(key).cloned()];
            possible.extend(self.since.iter().filter_map(|(_, done)| match done {
                Done::Note(other, value) if *other == key => Some(value.clone()),
                _ => None,
            }));
            let value = self.store.notes().find(|(other, _)| *other == key.as_bytes());
            assert!(possible.contains(&value.map(|(_, value)| value.to_vec())), "{key}");
        }
    }

    /// The store's state is the truth from now on, and all of it is durable.
    fn adopt(&mut self) {
        self.rebuild_model();
        self.live = self.model.messages().map(|message| (message.seq, message.clone())).collect();
        self.last_seq = self.store.state().last_seq;
        self.notes.clear();
        for (key, value) in self.store.notes() {
            let key = KEYS.into_iter().find(|known| known.as_bytes() == key).expect("a key of this run");
            self.notes.insert(key, value.to_vec());
        }
    }

    fn rebuild_model(&mut self) {
        let mut model = Model::of_files();
        let state = self.store.state();
        let mut from = 0;
        while let Some(seq) = self.store.next(from) {
            let message = read(&self.store, &mut self.disk, seq).unwrap();
            model.append(&message.as_message()).unwrap();
            from = seq + 1;
        }
        model.skip_to(state.last_seq + 1);
        model.set_last_time_ns(state.last_time_ns);
        assert_eq!(self.store.state(), model.state());
        self.model = model;
    }

    fn compare_messages(&mut self, wanted: &BTreeMap<u64, StoredMessage>) {
        let mut from = 0;
        let mut count = 0;
        while let Some(seq) = self.store.next(from) {
            assert_eq!(read(&self.store, &mut self.disk, seq).as_ref(), wanted.get(&seq));
            (from, count) = (seq + 1, count + 1);
        }
        assert_eq!(count, wanted.len());
    }

    fn finish(&mut self) {
        self.disk.space = None;
        super::index::tests::compare(&self.store, &self.model);
        let messages: BTreeMap<u64, StoredMessage> =
            self.model.messages().map(|message| (message.seq, message.clone())).collect();
        self.compare_messages(&messages);
        // One commit that includes all, a stop, and everything is as it was.
        loop {
            self.rewrite();
            match self.store.take_commit() {
                Some(commit) => self.carry_out(commit, None),
                None if self.store.wants_rewrite() => {}
                None => break,
            }
        }
        // A full disk ends rewriting, and nothing else does.
        let warnings = self.store.take_warnings();
        assert!(warnings.iter().all(|warning| !warning.contains("damaged")), "{warnings:?}");
        let settings = self.settings();
        let (store, report) = FileStore::open(&mut self.disk, settings).unwrap();
        assert!(!report.is_damaged(), "{report:?}");
        assert_eq!(store.index().state(), self.store.state());
        assert!(!self.is_encrypted || !self.disk.holds(b"NATS/1.0"), "something is not encrypted");
        self.store = store.into();
        super::index::tests::compare(&self.store, &self.model);
        let messages = self.model.messages().map(|message| (message.seq, message.clone())).collect();
        self.compare_messages(&messages);
        // Files do not pile up: each but the open one has messages, notes or removals of older ones in it.
        let _ = Filters::all();
    }
}

fn run(seed: u64) -> u64 {
    let mut run = Run::new(seed);
    for _ in 0..run.draw.usize(1..400) {
        run.act();
    }
    run.finish();
    run.rewritten
}

#[test]
fn nothing_committed_is_lost_and_nothing_removed_comes_back() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse().ok());
    if let Some(seed) = number("RINGMAIN_STORE_SEED") {
        run(seed);
        return;
    }
    let mut rewritten = 0;
    for seed in 0..number("RINGMAIN_STORE_SEEDS").unwrap_or(300) {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(reads) => rewritten += reads,
            Err(_) => panic!("RINGMAIN_STORE_SEED={seed} cargo test --lib store::crash"),
        }
    }
    assert!(rewritten > 0, "no segment was rewritten");
}

/// A store that is written to without a pause: all that is due is done at once.
struct Busy {
    disk: SimulatedDisk,
    store: Store,
    /// What was written to the disk, and read for rewriting.
    written: usize,
    read: usize,
}

impl Busy {
    fn new() -> Busy {
        let mut disk = SimulatedDisk::default();
        let (store, steps) = FileStore::create(settings());
        steps.iter().for_each(|step| disk.perform(step).unwrap());
        Busy { disk, store: store.into(), written: 0, read: 0 }
    }

    fn append(&mut self, subject: &str, payload: &[u8]) {
        let seq = self.store.state().last_seq + 1;
        let message = Message { seq, time_ns: 1, subject: subject.as_bytes(), header: b"", payload };
        self.store.append(&message).unwrap();
    }

    fn settle(&mut self) {
        loop {
            if let Some(plan) = self.store.rewrite_read() {
                let mut bytes = vec![0; plan.length as usize];
                let len = self.disk.read_at(plan.file, plan.offset, &mut bytes).unwrap();
                bytes.truncate(len);
                self.read += len;
                self.store.rewrite_bytes(Some(&bytes.into()));
            }
            match self.store.take_commit() {
                Some(commit) => {
                    for step in &commit.steps {
                        if let super::Step::Write { buffers, .. } = step {
                            self.written += buffers.iter().map(Bytes::len).sum::<usize>();
                        }
                        self.disk.perform(step).unwrap();
                    }
                    assert_eq!(self.store.finish_commit(Ok(())), Committed::Done);
                }
                None if self.store.wants_rewrite() => {}
                None => break,
            }
        }
    }
}

#[test]
fn one_old_message_does_not_keep_all_that_came_after_it_on_the_disk() {
    // Wherever in its segment it is.
    for place in 0..6 {
        let mut busy = Busy::new();
        let mut largest = 0;
        for number in 0..1_500_u64 {
            if number == place {
                busy.append("old", b"stays");
            }
            // A key-value bucket with a history of one: the new value first, then the old one goes.
            let key = format!("key.{}", number % 5);
            let before = busy.store.last_of(key.as_bytes());
            busy.append(&key, &[7; 60]);
            if let Some(before) = before {
                busy.store.remove(before, false);
            }
            busy.settle();
            largest = largest.max(busy.disk.files_len());
        }
        assert!(largest <= 10, "{largest} files, the old message at {place}");
        assert!(busy.read < busy.written / 2, "{} read, {} written", busy.read, busy.written);
        assert_eq!(busy.store.state().messages, 6);
        let (store, report) = FileStore::open(&mut busy.disk, settings()).unwrap();
        assert!(!report.is_damaged(), "{report:?}");
        assert_eq!(store.index().state(), busy.store.state());
    }
}

#[test]
fn a_queue_that_is_worked_off_in_its_order_is_not_rewritten() {
    let mut busy = Busy::new();
    for _ in 0..2_000 {
        busy.append("a", &[7; 60]);
        let state = busy.store.state();
        if state.messages > 20 {
            busy.store.remove(state.first_seq, false);
        }
        busy.settle();
    }
    assert!(busy.read <= busy.written / 10, "{} read for rewriting, {} written", busy.read, busy.written);
}

/// A store whose commits are written and not synced.
fn store_that_syncs_later(disk: &mut SimulatedDisk) -> Store {
    let (store, steps) = FileStore::create(Settings { syncs_commits: false, ..settings() });
    steps.iter().for_each(|step| disk.perform(step).unwrap());
    store.into()
}

fn append_and_commit(store: &mut Store, disk: &mut SimulatedDisk, payload: &str) {
    let seq = store.state().last_seq + 1;
    let message = Message { seq, time_ns: 1, subject: b"a", header: b"", payload: payload.as_bytes() };
    store.append(&message).unwrap();
    let commit = store.take_commit().unwrap();
    commit.steps.iter().for_each(|step| disk.perform(step).unwrap());
    assert_eq!(store.finish_commit(Ok(())), Committed::Done);
}

#[test]
fn what_was_synced_in_an_interval_survives_a_power_cut_and_the_rest_is_no_damage() {
    for seed in 0..200 {
        let mut draw = fastrand::Rng::with_seed(seed);
        let mut disk = SimulatedDisk::default();
        let mut store = store_that_syncs_later(&mut disk);
        let mut synced = 0;
        for _ in 0..draw.u32(1..60) {
            append_and_commit(&mut store, &mut disk, &"x".repeat(draw.usize(..400)));
            if draw.u8(..4) == 0
                && let Some(sync) = store.take_sync()
            {
                sync.steps.iter().for_each(|step| disk.perform(step).unwrap());
                assert_eq!(store.finish_sync(Ok(())), Committed::Done);
                synced = store.committed_seq();
            }
        }
        assert_eq!(store.is_sync_due(), store.take_sync().is_some());
        disk.cut_power(&mut draw);
        let (store, report) = FileStore::open(&mut disk, settings()).unwrap();
        let last = Store::from(store).state().last_seq;
        assert!(last >= synced, "seed {seed}: {last} of {synced}");
        assert!(report.damaged.is_empty() && report.lost.is_empty(), "seed {seed}: {report:?}");
    }
}

#[test]
fn a_sync_that_failed_ends_writing_whatever_is_under_way() {
    let error = || CommitError { step: 0, kind: CommitErrorKind::Other, text: "broken".to_owned() };
    let poisoned = Committed::Poisoned { text: "broken".to_owned() };
    for is_committing in [false, true] {
        let mut disk = SimulatedDisk::default();
        let mut store = store_that_syncs_later(&mut disk);
        append_and_commit(&mut store, &mut disk, "one");
        let sync = store.take_sync().unwrap();
        assert!(store.take_sync().is_none(), "one at a time");
        assert_eq!(sync.steps.len(), 1);
        let message = Message { seq: 2, time_ns: 1, subject: b"a", header: b"", payload: b"two" };
        store.append(&message).unwrap();
        let commit = is_committing.then(|| store.take_commit().unwrap());
        assert_eq!(store.finish_sync(Err(error())), poisoned);
        if commit.is_some() {
            assert_eq!(store.finish_commit(Ok(())), poisoned);
        }
        assert_eq!(store.state().last_seq, 1, "what was committed can be read, what was not is gone");
        assert!(store.take_commit().is_none() && store.take_sync().is_none());
        assert!(matches!(store.refusal(), Some(StoreError::Poisoned(_))));
    }
}
