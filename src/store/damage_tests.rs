//! Damage done to files at rest, each kind by name: what is told, and that everything else stays readable.

use super::crash_tests::{read, settings};
use super::plan::Files;
use super::segment::{HEADER_BYTES, TRAILER_BYTES};
use super::simulated_disk::SimulatedDisk;
use super::{
    Commit, CommitError, CommitErrorKind, Committed, FileId, FileStore, Message, OpenError, Read,
    RecoveryReport, Store, StoreError,
};

/// A store with `count` messages, each its own commit, on a disk.
fn filled(count: u64) -> (Store, SimulatedDisk) {
    let mut disk = SimulatedDisk::default();
    let (store, steps) = FileStore::create(settings());
    for step in &steps {
        disk.perform(step).unwrap();
    }
    let mut store = Store::from(store);
    for seq in 1..=count {
        append(&mut store, seq).unwrap();
        commit(&mut store, &mut disk);
    }
    (store, disk)
}

fn append(store: &mut Store, seq: u64) -> Result<(), StoreError> {
    let payload = format!("payload of {seq}").repeat(4);
    let subject = format!("subject.{}", seq % 3);
    let time_ns = seq as i64 * 1_000;
    store.append(&Message {
        seq,
        time_ns,
        subject: subject.as_bytes(),
        header: b"",
        payload: payload.as_bytes(),
    })
}

fn carry_out(commit: &Commit, disk: &mut SimulatedDisk) -> Result<(), CommitError> {
    for (step, what) in commit.steps.iter().enumerate() {
        if let Err(error) = disk.perform(what) {
            return Err(CommitError { step, kind: CommitErrorKind::NoSpace, text: error.to_string() });
        }
    }
    Ok(())
}

fn commit(store: &mut Store, disk: &mut SimulatedDisk) {
    while let Some(commit) = store.take_commit() {
        assert_eq!(store.finish_commit(carry_out(&commit, disk)), Committed::Done);
    }
}

fn open(disk: &mut SimulatedDisk) -> (Store, RecoveryReport) {
    let (store, report) = FileStore::open(disk, settings()).unwrap();
    (store.into(), report)
}

/// Every message but the missing ones is there and right, the sequences go on behind the last, and opening once more
/// changes nothing.
fn check(disk: &mut SimulatedDisk, count: u64, missing: &[u64]) -> RecoveryReport {
    let (store, report) = open(disk);
    for seq in 1..=count {
        let message = read(&store, disk, seq);
        assert_eq!(message.is_none(), missing.contains(&seq), "{seq}: {report:?}");
        if let Some(message) = message {
            assert_eq!(message.payload(), format!("payload of {seq}").repeat(4).as_bytes());
        }
    }
    assert_eq!(store.state().messages, count - missing.len() as u64);
    let names = disk.names();
    let (again, second) = open(disk);
    assert_eq!(again.state(), store.state());
    assert_eq!(disk.names(), names);
    assert_eq!(second.lost, report.lost);
    let mut store = again;
    let next = store.state().last_seq + 1;
    append(&mut store, next).unwrap();
    commit(&mut store, disk);
    assert!(read(&store, disk, next).is_some());
    report
}

/// The file and the offset of a message's record.
fn find(store: &Store, disk: &mut SimulatedDisk, seq: u64) -> (String, usize) {
    let payload = format!("payload of {seq}").repeat(4);
    assert!(read(store, disk, seq).is_some());
    for name in disk.names() {
        let bytes = disk.content(&name);
        if let Some(at) = bytes.windows(payload.len()).position(|window| window == payload.as_bytes()) {
            return (name, at - "subject.0".len() - 32);
        }
    }
    panic!("{seq} is in no file");
}

#[test]
fn a_clean_stop_leaves_nothing_to_report() {
    let (_, mut disk) = filled(50);
    let report = check(&mut disk, 50, &[]);
    assert_eq!(report.scanned.len(), 1, "only the open segment: {report:?}");
    assert!(!report.is_damaged() && report.torn.is_empty() && report.segments > 5);
}

#[test]
fn a_flipped_bit_takes_one_message_wherever_it_is() {
    // Of a sealed segment the index tells everything but the payload: reading finds the damage.
    let (store, mut disk) = filled(50);
    let (name, at) = find(&store, &mut disk, 5);
    disk.content(&name)[at + 60] ^= 4;
    let (store, _) = open(&mut disk);
    let Read::OnDisk(plan) = store.read(5) else { panic!("it is not in memory") };
    let mut bytes = vec![0; plan.length as usize];
    disk.read_at(plan.file, plan.offset, &mut bytes).unwrap();
    assert_eq!(plan.decode(&bytes.into()).unwrap_err().seq, 5);
    assert!((1..=50).filter(|&seq| seq != 5).all(|seq| read(&store, &mut disk, seq).is_some()));
    // In the open segment opening does.
    for byte in [0, 5, 9, 13, 15, 20, 40, 60] {
        let (store, mut disk) = filled(49);
        let (name, at) = find(&store, &mut disk, 48);
        let last = find(&store, &mut disk, 49);
        assert_eq!(name, last.0);
        disk.content(&name)[at + byte] ^= 4;
        let report = check(&mut disk, 49, &[48]);
        assert_eq!(report.lost, [48..=48]);
        assert_eq!(report.damaged.len(), 1);
    }
}

#[test]
fn a_torn_tail_is_cut_and_kept_aside() {
    let (store, disk) = filled(22);
    let (mut store, intact) = (store, disk);
    append(&mut store, 23).unwrap();
    append(&mut store, 24).unwrap();
    let commit = store.take_commit().unwrap();
    let mut disk = intact;
    carry_out(&commit, &mut disk).unwrap();
    let _ = store.finish_commit(Ok(()));
    let (name, at) = find(&store, &mut disk, 23);
    for len in [1, 31, 32, 50] {
        let mut disk = disk.clone();
        disk.content(&name)[at + len..].fill(0);
        let report = check(&mut disk, 22, &[]);
        assert!(!report.is_damaged());
        assert_eq!(report.torn.len(), 1);
        assert!(disk.names().contains(&format!("{name}.new")));
    }
}

#[test]
fn a_truncated_sealed_segment_keeps_what_is_left() {
    let (store, mut disk) = filled(50);
    let (name, at) = find(&store, &mut disk, 5);
    disk.content(&name).truncate(at + 10);
    let (store, report) = open(&mut disk);
    let lost: Vec<u64> = (1..=50).filter(|&seq| read(&store, &mut disk, seq).is_none()).collect();
    assert_eq!(lost[0], 5);
    assert_eq!(report.lost, [5..=*lost.last().unwrap()]);
    check(&mut disk, 50, &lost);
}

#[test]
fn a_missing_or_damaged_index_is_made_up_for_by_the_records() {
    let first = FileId::new(1).to_string();
    for cut in [1, TRAILER_BYTES, TRAILER_BYTES + 40] {
        let (_, mut disk) = filled(50);
        let bytes = disk.content(&first);
        bytes.truncate(bytes.len() - cut);
        let report = check(&mut disk, 50, &[]);
        assert_eq!(report.scanned.len(), 2);
        assert!(!report.is_damaged());
    }
    for at in [1, TRAILER_BYTES - 1, TRAILER_BYTES + 5, TRAILER_BYTES + 60] {
        let (_, mut disk) = filled(50);
        let bytes = disk.content(&first);
        let len = bytes.len();
        bytes[len - at] ^= 1;
        let report = check(&mut disk, 50, &[]);
        assert_eq!(report.scanned.len(), 2);
        assert!(!report.is_damaged());
    }
}

#[test]
fn a_stale_index_is_not_believed() {
    // The whole file of another moment under this name: its records are this stream's, its place is not.
    let (_, mut disk) = filled(50);
    let second = disk.content(&FileId::new(2).to_string()).clone();
    disk.put(&FileId::new(3).to_string(), second);
    let (store, report) = open(&mut disk);
    assert_eq!(report.quarantined.len(), 1, "{report:?}");
    assert!(!report.lost.is_empty());
    assert_eq!(store.state().last_seq, 50);
    assert!(disk.names().contains(&FileId::new(3).to_string()));
}

#[test]
fn a_damaged_header_loses_no_message() {
    for segment in [1, 3] {
        let (_, mut disk) = filled(50);
        disk.content(&FileId::new(segment).to_string())[..HEADER_BYTES].fill(0xa5);
        let report = check(&mut disk, 50, &[]);
        assert!(report.is_damaged() && report.lost.is_empty(), "{report:?}");
    }
}

#[test]
fn a_missing_segment_is_told_and_nothing_else_is_deleted() {
    let (store, mut disk) = filled(50);
    let (name, _) = find(&store, &mut disk, 5);
    let before = disk.names();
    disk.remove(&name);
    let (store, report) = open(&mut disk);
    let lost: Vec<u64> = (1..=50).filter(|&seq| read(&store, &mut disk, seq).is_none()).collect();
    assert!(lost.contains(&5));
    assert_eq!(report.lost, [lost[0]..=*lost.last().unwrap()]);
    assert!(report.is_damaged());
    assert!(before.iter().filter(|other| **other != name).all(|name| disk.names().contains(name)));
    check(&mut disk, 50, &lost);
}

#[test]
fn an_unknown_version_opens_nothing_and_touches_nothing() {
    let (_, mut disk) = filled(50);
    let bytes = disk.content(&FileId::new(2).to_string());
    bytes[8] = 9;
    bytes[2048 + 8] = 9;
    let (names, steps) = (disk.names(), disk.steps);
    match FileStore::open(&mut disk, settings()) {
        Err(OpenError::UnknownVersion { file, version: 9 }) => assert_eq!(file, FileId::new(2)),
        other => panic!("{:?}", other.map(|(_, report)| report)),
    }
    assert_eq!((disk.names(), disk.steps), (names, steps));
}

#[test]
fn files_of_others_are_left_alone() {
    let (_, mut disk) = filled(10);
    disk.put("notes.txt", b"hello".to_vec());
    let report = check(&mut disk, 10, &[]);
    assert_eq!(report.unknown, ["notes.txt"]);
    assert!(disk.names().contains(&"notes.txt".into()));
}

#[test]
fn an_empty_directory_is_told() {
    let mut disk = SimulatedDisk::default();
    let report = check(&mut disk, 0, &[]);
    assert!(report.was_empty && report.is_damaged());
}

#[test]
fn a_failed_write_poisons_and_reading_goes_on() {
    let (mut store, mut disk) = filled(20);
    append(&mut store, 21).unwrap();
    assert!(store.take_commit().is_some());
    append(&mut store, 22).unwrap();
    let text = "input/output error".to_owned();
    let error = CommitError { step: 0, kind: CommitErrorKind::Other, text: text.clone() };
    assert_eq!(store.finish_commit(Err(error)), Committed::Poisoned { text: text.clone() });
    assert_eq!(append(&mut store, 21), Err(StoreError::Poisoned(text)));
    assert_eq!(store.state().last_seq, 20);
    assert!(store.take_commit().is_none());
    assert!((1..=20).all(|seq| read(&store, &mut disk, seq).is_some()));
}

#[test]
fn a_full_disk_refuses_and_resumes_by_itself() {
    let (mut store, mut disk) = filled(20);
    disk.space = Some(0);
    let mut seq = 20;
    // The space that was reserved is used up first.
    let refusal = loop {
        if let Err(error) = append(&mut store, seq + 1) {
            break error;
        }
        seq += 1;
        let commit = store.take_commit().unwrap();
        if let Committed::RolledBack { messages } = store.finish_commit(carry_out(&commit, &mut disk)) {
            assert_eq!(messages, 1);
            seq -= 1;
        }
    };
    assert_eq!(refusal, StoreError::NoSpace);
    assert_eq!(store.state().last_seq, seq);
    // Reading and removing go on.
    assert!(read(&store, &mut disk, 1).is_some());
    assert!(store.remove(3, false).is_some());
    commit(&mut store, &mut disk);
    disk.space = None;
    assert_eq!(append(&mut store, seq + 1), Err(StoreError::NoSpace), "nobody tried yet");
    commit(&mut store, &mut disk);
    append(&mut store, seq + 1).unwrap();
    commit(&mut store, &mut disk);
    let (store, report) = open(&mut disk);
    assert!(!report.is_damaged());
    assert_eq!((store.state().last_seq, read(&store, &mut disk, 3)), (seq + 1, None));
}

#[test]
fn purged_segments_are_removed_and_notes_survive() {
    let (mut store, mut disk) = filled(50);
    store.note(b"consumer", Some(b"state")).unwrap();
    for seq in 51..=60 {
        append(&mut store, seq).unwrap();
    }
    commit(&mut store, &mut disk);
    let before = disk.names().len();
    assert_eq!(store.remove_up_to(u64::MAX).messages, 60);
    assert_eq!((store.state().first_seq, store.state().last_seq), (61, 60));
    commit(&mut store, &mut disk);
    assert!(before > 6 && disk.names().len() == 1, "{:?}", disk.names());
    let (store, report) = open(&mut disk);
    assert!(!report.is_damaged());
    assert_eq!((store.state().first_seq, store.state().last_seq), (61, 60));
    assert_eq!(store.state().last_time_ns, 60_000);
    assert_eq!(store.notes().collect::<Vec<_>>(), [(&b"consumer"[..], &b"state"[..])]);
}

#[test]
fn an_erased_message_is_nowhere_any_more() {
    let (mut store, mut disk) = filled(50);
    for seq in [5, 50] {
        let (name, _) = find(&store, &mut disk, seq);
        assert!(store.remove(seq, true).is_some());
        commit(&mut store, &mut disk);
        commit(&mut store, &mut disk);
        let payload = format!("payload of {seq}payload").into_bytes();
        assert!(!disk.content(&name).windows(payload.len()).any(|window| window == payload));
    }
    let report = check(&mut disk, 49, &[5]);
    assert!(!report.is_damaged());
}

#[test]
fn a_run_of_messages_is_one_read() {
    let (store, mut disk) = filled(50);
    let plan = store.read_ahead(1, 50, 4096).unwrap();
    assert!(plan.last_seq > plan.first_seq);
    let mut bytes = vec![0; plan.length as usize];
    disk.read_at(plan.file, plan.offset, &mut bytes).unwrap();
    let messages = plan.decode(&bytes.into()).unwrap();
    assert!(messages.iter().map(|message| message.seq).eq(1..=plan.last_seq));
    assert_eq!(store.read_ahead(50, 50, 4096), None, "it is in memory");
    assert_eq!(store.read_ahead(1, 50, 1).unwrap().last_seq, 1);
}

#[test]
fn encrypted_and_plain_stores_are_told_apart_and_nothing_is_touched() {
    let key = |byte| Some(super::Encryption::new(super::Cipher::Aes256Gcm, [byte; 32]));
    let (_, mut plain) = filled(30);
    let before = plain.clone();
    let with_key = super::Settings { encryption: key(1), ..settings() };
    assert!(matches!(FileStore::open(&mut plain, with_key.clone()), Err(OpenError::Plain(_))));
    assert!(plain.same_files(&before));
    let mut disk = SimulatedDisk::default();
    let (store, steps) = FileStore::create(with_key.clone());
    steps.iter().for_each(|step| disk.perform(step).unwrap());
    let mut store = Store::from(store);
    for seq in 1..=30 {
        append(&mut store, seq).unwrap();
        commit(&mut store, &mut disk);
    }
    assert!(!disk.holds(b"payload of"));
    let before = disk.clone();
    assert!(matches!(FileStore::open(&mut disk, settings()), Err(OpenError::Encrypted(_))));
    assert!(disk.same_files(&before));
    // With another cipher for new files the old ones are read as they are.
    let other = super::Encryption::new(super::Cipher::ChaCha20Poly1305, [1; 32]);
    let other = super::Settings { encryption: Some(other), nonce_start: 1 << 64, ..settings() };
    let (store, report) = FileStore::open(&mut disk, other).unwrap();
    assert!(!report.is_damaged(), "{report:?}");
    let store = Store::from(store);
    for seq in 1..=30 {
        assert!(read(&store, &mut disk, seq).is_some(), "{seq}");
    }
}
