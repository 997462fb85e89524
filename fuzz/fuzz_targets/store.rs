//! Opening a store whose files hold anything: raw bytes, or a real store that was changed somewhere.
//!
//! Finds: panics, hangs, unbounded memory, a store that cannot be used or opened again after it was opened once. Checksums
//! are not looked at when fuzzing, so that every decoder behind them gets its share.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run store`.

#![no_main]

use std::collections::BTreeMap;
use std::io;

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ringmain::store::{Commit, FileId, FileStore, Files, Filters, Message, Read, Settings, Step, Store};

#[derive(Debug, Arbitrary)]
struct Input {
    /// What is done to a store before its files are changed.
    acts: Vec<Act>,
    changes: Vec<Change>,
    /// Files beside those of the store, or in place of them.
    files: Vec<(u8, Vec<u8>)>,
}

#[derive(Debug, Arbitrary)]
enum Act {
    Append { gap: u8, subject: u8, header: bool, len: u8 },
    Remove { back: u8, erase: bool },
    RemoveUpTo { back: u8 },
    SkipTo { ahead: u8 },
    Note { key: u8, value: Option<u8> },
    Commit,
}

#[derive(Debug, Arbitrary)]
enum Change {
    Set { file: u8, from_end: bool, at: u16, value: u8 },
    Fill { file: u8, at: u16, len: u16, value: u8 },
    Cut { file: u8, by: u16 },
    Remove { file: u8 },
    Copy { from: u8, to: u8 },
}

#[derive(Default)]
struct Disk(BTreeMap<String, Vec<u8>>);

impl Disk {
    fn nth(&mut self, number: u8) -> Option<&mut Vec<u8>> {
        let count = self.0.len().max(1);
        self.0.values_mut().nth(usize::from(number) % count)
    }

    fn carry_out(&mut self, commit: &Commit) {
        commit.steps.iter().for_each(|step| self.perform(step).unwrap());
    }
}

impl Files for Disk {
    fn list(&mut self) -> io::Result<Vec<String>> {
        Ok(self.0.keys().cloned().collect())
    }

    fn len(&mut self, file: FileId) -> io::Result<u64> {
        Ok(self.0.get(&file.to_string()).ok_or(io::ErrorKind::NotFound)?.len() as u64)
    }

    fn read_at(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.get(&file.to_string()).ok_or(io::ErrorKind::NotFound)?;
        let from = bytes.get(offset as usize..).unwrap_or_default();
        let len = from.len().min(buffer.len());
        buffer[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }

    fn perform(&mut self, step: &Step) -> io::Result<()> {
        let mut write = |file: &FileId, offset: u64, bytes: &[u8]| {
            let file = self.0.entry(file.to_string()).or_default();
            let end = offset as usize + bytes.len();
            file.resize(file.len().max(end), 0);
            file[offset as usize..end].copy_from_slice(bytes);
        };
        match step {
            Step::Create { file } => _ = self.0.insert(file.to_string(), Vec::new()),
            Step::Write { file, offset, buffers } => write(file, *offset, &buffers.concat()),
            Step::PunchHole { file, offset, length } => write(file, *offset, &vec![0; *length as usize]),
            Step::Truncate { file, length } => self.0.entry(file.to_string()).or_default().resize(*length as usize, 0),
            Step::Rename { from, to } => {
                let bytes = self.0.remove(&from.to_string()).ok_or(io::ErrorKind::NotFound)?;
                self.0.insert(to.to_string(), bytes);
            }
            Step::Remove { file } => _ = self.0.remove(&file.to_string()),
            // Files here grow when they are written.
            Step::Allocate { .. } | Step::SyncData { .. } | Step::SyncDirectory => {}
        }
        Ok(())
    }
}

fn settings() -> Settings {
    Settings { segment_bytes_max: 4096 + 500, cache_bytes_max: 300, ..Settings::new(7) }
}

fn act(store: &mut Store, disk: &mut Disk, act: &Act) {
    let state = store.state();
    match act {
        Act::Append { gap, subject, header, len } => {
            let seq = state.last_seq + 1 + u64::from(*gap / 200);
            let subject = [b's', b'.', b'a' + subject % 5];
            let header: &[u8] = if *header { b"NATS/1.0\r\n\r\n" } else { b"" };
            let payload = vec![*len; usize::from(*len)];
            let message = Message { seq, time_ns: seq as i64, subject: &subject, header, payload: &payload };
            store.append(&message).unwrap();
        }
        Act::Remove { back, erase } => _ = store.remove(state.last_seq.saturating_sub(u64::from(*back)), *erase),
        Act::RemoveUpTo { back } => _ = store.remove_up_to(state.last_seq.saturating_sub(u64::from(*back))),
        Act::SkipTo { ahead } => store.skip_to(state.last_seq + u64::from(*ahead)),
        Act::Note { key, value } => {
            store.note(&[b'k', key % 4], value.map(|value| [value]).as_ref().map(|value| &value[..])).unwrap();
        }
        Act::Commit => commit(store, disk),
    }
}

fn commit(store: &mut Store, disk: &mut Disk) {
    while let Some(commit) = store.take_commit() {
        disk.carry_out(&commit);
        let _ = store.finish_commit(Ok(()));
    }
}

/// Every question is answered, every message read or told to be damaged.
fn look(store: &Store, disk: &mut Disk) {
    let state = store.state();
    let filters = [Filters::all(), Filters::one(b"s.a"), Filters::one(b"s.*"), Filters::new([&b"*.b"[..], b"s.c"])];
    let (mut from, mut count) = (0, 0);
    while let Some(seq) = store.next(from) {
        let message = match store.read(seq) {
            Read::Found(message) => Some(message),
            Read::Missing => panic!("{seq} is known and missing"),
            Read::OnDisk(plan) => {
                let mut bytes = vec![0; plan.length.min(1 << 20) as usize];
                let len = disk.read_at(plan.file, plan.offset, &mut bytes).unwrap_or(0);
                bytes.truncate(len);
                plan.decode(&Bytes::from(bytes)).ok().map(|messages| messages[0].clone())
            }
        };
        assert!(message.is_none_or(|message| message.seq == seq));
        assert!(store.subject_of(seq).is_some() && store.time_of(seq).is_some());
        (from, count) = (seq + 1, count + 1);
    }
    assert_eq!(count, state.messages);
    assert_eq!(store.count_matching(&filters[0], 0), count);
    for filters in &filters {
        let middle = state.first_seq / 2 + state.last_seq / 2;
        let next = store.next_matching(filters, middle);
        assert_eq!(next.is_some(), store.count_matching(filters, middle) > 0);
    }
    let subjects = store.subjects_matching(b">", None, usize::MAX);
    assert_eq!(subjects.iter().map(|(_, subject)| subject.messages).sum::<u64>(), count);
    assert!(store.deleted().take(1000).all(|range| range.start() <= range.end()));
}

fuzz_target!(|input: Input| {
    let mut disk = Disk::default();
    let (store, steps) = FileStore::create(settings());
    steps.iter().for_each(|step| disk.perform(step).unwrap());
    let mut store = Store::from(store);
    for what in input.acts.iter().take(200) {
        act(&mut store, &mut disk, what);
    }
    commit(&mut store, &mut disk);
    for (number, bytes) in &input.files {
        disk.0.insert(FileId::new(u64::from(*number)).to_string(), bytes.clone());
    }
    for change in &input.changes {
        match *change {
            Change::Set { file, from_end, at, value } => {
                let Some(bytes) = disk.nth(file) else { continue };
                let at = if from_end { bytes.len().checked_sub(usize::from(at)) } else { Some(usize::from(at)) };
                if let Some(byte) = at.and_then(|at| bytes.get_mut(at)) {
                    *byte = value;
                }
            }
            Change::Fill { file, at, len, value } => {
                let Some(bytes) = disk.nth(file) else { continue };
                let (start, len) = (usize::from(at).min(bytes.len()), usize::from(len));
                bytes[start..].iter_mut().take(len).for_each(|byte| *byte = value);
            }
            Change::Cut { file, by } => {
                let Some(bytes) = disk.nth(file) else { continue };
                bytes.truncate(bytes.len().saturating_sub(usize::from(by)));
            }
            Change::Remove { file } => {
                let count = disk.0.len().max(1);
                let name = disk.0.keys().nth(usize::from(file) % count).cloned();
                name.map(|name| disk.0.remove(&name));
            }
            Change::Copy { from, to } => {
                let Some(bytes) = disk.nth(from).cloned() else { continue };
                disk.nth(to).map(|to| *to = bytes);
            }
        }
    }
    let Ok((store, _)) = FileStore::open(&mut disk, settings()) else { return };
    let mut store = Store::from(store);
    look(&store, &mut disk);
    if store.state().last_seq > u64::MAX / 2 {
        return;
    }
    for what in input.acts.iter().take(50) {
        act(&mut store, &mut disk, what);
    }
    commit(&mut store, &mut disk);
    look(&store, &mut disk);
    let (again, _) = FileStore::open(&mut disk, settings()).expect("it was opened before");
    look(&again.into(), &mut disk);
});
