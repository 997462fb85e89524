//! A stream from a backup: bytes in, messages into a store that nobody sees until all of it is there.
//!
//! Whoever drives it pushes what comes, carries out the commits of the store after each step, and at the end has the store,
//! the consumers and the time of creation. What the backup says of messages is checked as messages of clients are: it comes from a client.

use super::classic::Index;
use super::consumers::Found;
use super::reader::{Item, Outline, Reader, SEQ_MAX};
use super::{BackupError, PART_BYTES_MAX};
use crate::store::{Message, Store};
use crate::stream::config::{Storage, StreamConfig};
use crate::stream::consumer::{Consumers, Delivery, Drive, Outlet};
use crate::stream::headers::Published;
use crate::stream::publish::parse_ttl;
use crate::stream::{ApiError, ErrorId};
use crate::subject::name::is_valid_literal_subject;

/// Bytes of messages in one step, after which they are written.
const STEP_BYTES: usize = 4 << 20;
/// What all consumers of a backup may take while they wait for the messages.
const CONSUMERS_BYTES_MAX: usize = 16 * PART_BYTES_MAX;

/// What may be restored.
#[derive(Debug, Clone)]
pub struct RestoreSettings {
    /// What the stream is to be, with all defaults.
    pub config: StreamConfig,
    /// The account's name.
    pub account: String,
    /// The largest message that clients may publish.
    pub payload_max: u64,
    /// What the stream's messages may count for.
    pub bytes_max: u64,
}

/// How far a step came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do with what was pushed, after what the store has to write is written.
    More,
    /// More bytes are needed.
    Starved,
    /// All of it is there, once the store has written everything.
    Done,
}

/// See the head of this file.
pub struct Restoration {
    reader: Reader,
    settings: RestoreSettings,
    store: Store,
    outline: Option<Outline>,
    created_ns: Option<i64>,
    consumers: Vec<Found>,
    consumers_bytes: usize,
    is_done: bool,
}

impl Restoration {
    /// Into an empty store.
    pub fn new(settings: RestoreSettings, store: Store) -> Restoration {
        let RestoreSettings { config, account, payload_max, .. } = &settings;
        let message_max = u64::try_from(config.max_msg_size).ok();
        Restoration {
            reader: Reader::new(&config.name, account, *payload_max, message_max),
            store,
            outline: None,
            created_ns: None,
            consumers: Vec::new(),
            consumers_bytes: 0,
            is_done: false,
            settings,
        }
    }

    /// More of the backup.
    pub fn push(&mut self, bytes: &[u8]) {
        self.reader.push(bytes);
    }

    /// There is no more of it.
    pub fn end(&mut self) {
        self.reader.end();
    }

    /// The store, for its commits.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// What was restored: the store, the consumers, and when the stream was created if the backup says that.
    pub fn into_parts(self) -> (Store, Vec<Found>, Option<i64>) {
        (self.store, self.consumers, self.created_ns)
    }

    /// Goes on with what was pushed.
    ///
    /// # Errors
    ///
    /// The backup cannot be restored.
    pub fn step(&mut self, now_ns: i64) -> Result<Progress, BackupError> {
        let mut bytes = 0;
        while bytes < STEP_BYTES {
            if self.is_done {
                return Ok(Progress::Done);
            }
            let Some(item) = self.reader.next_item()? else { return Ok(Progress::Starved) };
            match item {
                Item::Outline(outline) => {
                    if outline.bytes > self.settings.bytes_max {
                        return Err(no_room(&self.settings.config));
                    }
                    self.store.skip_to(outline.first_seq);
                    self.outline = Some(outline);
                }
                Item::Created(created_ns) => self.created_ns = Some(created_ns),
                Item::Consumer(found) => {
                    let pending = found.state.as_ref().map_or(0, |state| state.pending.len());
                    self.consumers_bytes += size_of::<Found>() + pending * 64;
                    if self.consumers_bytes > CONSUMERS_BYTES_MAX {
                        return Err(BackupError::TooLarge("the state of consumers".to_owned()));
                    }
                    self.consumers.push(*found);
                }
                Item::Message(message) => {
                    bytes += message.subject.len() + message.header.len() + message.payload.len();
                    take_message(&mut self.store, &self.settings, self.outline.as_ref(), &message, now_ns)?;
                }
                Item::Removed(seq) => {
                    self.store.remove(seq, false);
                    bytes += 32;
                }
                Item::Index(index) => take_index(&mut self.store, &index),
                Item::End => {
                    if let Some(outline) = &self.outline {
                        // Sequences of messages that are gone are not given again.
                        self.store.skip_to(outline.last_seq + 1);
                    }
                    self.is_done = true;
                }
            }
        }
        Ok(Progress::More)
    }
}

/// Takes out what the stream no longer had.
fn take_index(store: &mut Store, index: &Index) {
    store.remove_up_to(index.first_seq);
    for range in &index.deleted {
        let mut next = store.next(*range.start());
        while let Some(seq) = next.filter(|seq| range.contains(seq)) {
            store.remove(seq, false);
            next = store.next(seq + 1);
        }
    }
    store.skip_to(index.last_seq + 1);
}

/// Stores a message as it was. Older backups have no outline: what is in them twice, or after its time to live, is the stream's to see to.
fn take_message(
    store: &mut Store,
    settings: &RestoreSettings,
    outline: Option<&Outline>,
    message: &Message<'_>,
    now_ns: i64,
) -> Result<(), BackupError> {
    let seq = message.seq;
    let next = store.state().last_seq + 1;
    if seq < next || seq > SEQ_MAX {
        return match outline {
            Some(_) => Err(BackupError::Wrong(format!("message sequence {seq} out of order"))),
            None => Ok(()),
        };
    }
    if !is_valid_literal_subject(message.subject) {
        return Err(BackupError::Wrong(format!("message sequence {seq} has no valid subject")));
    }
    if outline.is_some() {
        let ttl_s = parse_ttl(Published::of(message.header).ttl)
            .map_err(|()| BackupError::wrong("failed to parse message TTL: invalid per-message TTL"))?;
        if ttl_s > 0 && now_ns > message.time_ns.saturating_add(ttl_s.saturating_mul(1_000_000_000)) {
            store.skip_to(seq + 1);
            return Ok(());
        }
    }
    store.append(message).map_err(|error| BackupError::Store { seq, error })?;
    if store.state().bytes > settings.bytes_max {
        return Err(no_room(&settings.config));
    }
    Ok(())
}

fn no_room(config: &StreamConfig) -> BackupError {
    BackupError::Api(ApiError::new(match config.storage {
        Storage::Memory => ErrorId::MemoryResourcesExceeded,
        Storage::File => ErrorId::StorageResourcesExceeded,
    }))
}

/// Makes the consumers of a backup, on the store with all of its messages, and notes them there.
///
/// # Errors
///
/// One of them cannot be as it is told.
pub fn restore_consumers(
    consumers: &mut Consumers,
    found: Vec<Found>,
    store: &mut Store,
    now_ns: i64,
) -> Result<(), BackupError> {
    for Found { name, created_ns, config, state } in found {
        let drive = Drive { now_ns, store, outlet: &mut Nobody };
        consumers
            .restore(&name, created_ns.unwrap_or(now_ns), config, state, drive)
            .map_err(|error| BackupError::Consumer { name, error })?;
    }
    consumers.restored(store);
    let removed = consumers.flush(store).map_err(|error| BackupError::Store { seq: 0, error })?;
    for (seq, subject) in removed {
        consumers.removed(seq, &subject, Drive { now_ns, store, outlet: &mut Nobody });
    }
    Ok(())
}

/// Nobody listens to a stream that is not there yet.
struct Nobody;

impl Outlet for Nobody {
    fn has_interest(&mut self, _: &[u8], _: &[u8]) -> bool {
        false
    }

    fn deliver(&mut self, _: &Delivery<'_>) -> bool {
        false
    }

    fn publish(&mut self, _: &[u8], _: &[u8], _: &[u8], _: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use super::super::archive::{self, Entry};
    use super::super::s2::Encoder;
    use super::*;
    use crate::store::MemoryStore;

    fn settings(name: &str) -> RestoreSettings {
        let config = StreamConfig { name: name.to_owned(), max_msg_size: -1, ..StreamConfig::default() };
        RestoreSettings { config, account: "$G".to_owned(), payload_max: 1 << 20, bytes_max: 1 << 30 }
    }

    fn restore(
        settings: RestoreSettings,
        bytes: &[u8],
    ) -> Result<(Store, Vec<Found>, Option<i64>), BackupError> {
        let mut restoration = Restoration::new(settings, MemoryStore::new().into());
        for part in bytes.chunks(1000) {
            restoration.push(part);
            while restoration.step(0)? == Progress::More {}
        }
        restoration.end();
        while restoration.step(0)? != Progress::Done {}
        Ok(restoration.into_parts())
    }

    /// An archive of messages with these sequences and headers.
    fn backup(outline: &str, messages: &[(u64, &str, &[u8])]) -> Vec<u8> {
        let mut data = archive::MAGIC.to_vec();
        let mut put = |name: &str, seq, header: &[u8], payload: &[u8]| {
            let (header_len, payload_len) = (header.len() as u64, payload.len() as u64);
            Entry { name: name.as_bytes(), time_ns: 5, seq, header_len, payload_len }.write(&mut data);
            data.extend_from_slice(header);
            data.extend_from_slice(payload);
        };
        put(archive::STATE, 0, b"", outline.as_bytes());
        for (seq, subject, header) in messages {
            put(subject, *seq, header, b"payload");
        }
        Entry::default().write(&mut data);
        let mut encoder = Encoder::default();
        encoder.push(&data);
        encoder.flush();
        std::mem::take(encoder.frames())
    }

    #[test]
    fn backups_of_all_formats_give_the_same_stream() {
        let backups: [&[u8]; 3] = [
            include_bytes!("fixtures/2.15.1.backup"),
            include_bytes!("fixtures/2.14.0.backup"),
            include_bytes!("fixtures/2.10.25.backup"),
        ];
        for backup in backups {
            let (store, consumers, _) = restore(settings("S"), backup).unwrap();
            let state = store.state();
            assert_eq!((state.messages, state.first_seq, state.last_seq), (190, 4, 200));
            let deleted: Vec<_> = store.deleted().collect();
            assert_eq!(deleted, [50..=52, 77..=77, 120..=120, 199..=200]);
            assert_eq!(store.subject_of(198), Some(&b"s.1"[..]));
            let names: Vec<_> = consumers.iter().map(|found| found.name.as_str()).collect();
            assert_eq!(names, ["D", "F"]);
        }
    }

    #[test]
    fn sequences_that_are_gone_stay_so() {
        let bytes = backup(r#"{"first_seq":5,"last_seq":20}"#, &[(7, "a", b""), (9, "b", b"")]);
        let (store, ..) = restore(settings("S"), &bytes).unwrap();
        let state = store.state();
        assert_eq!((state.messages, state.first_seq, state.last_seq), (2, 7, 20));
        let (store, ..) = restore(settings("S"), &backup(r#"{"first_seq":31,"last_seq":30}"#, &[])).unwrap();
        assert_eq!((store.state().first_seq, store.state().last_seq), (31, 30));
    }

    #[test]
    fn messages_whose_time_is_over_are_left_out() {
        let header = |ttl: &str| format!("NATS/1.0\r\nNats-TTL: {ttl}\r\n\r\n").into_bytes();
        let outline = r#"{"first_seq":1,"last_seq":3}"#;
        let messages: [Vec<u8>; 3] = [header("1s"), header("never"), header("10s")];
        let messages: Vec<_> = (1..).zip(&messages).map(|(seq, header)| (seq, "a", &header[..])).collect();
        let mut restoration = Restoration::new(settings("S"), MemoryStore::new().into());
        restoration.push(&backup(outline, &messages));
        while restoration.step(2_000_000_000).unwrap() != Progress::Done {}
        let (store, ..) = restoration.into_parts();
        assert_eq!((store.next(1), store.next(3)), (Some(2), Some(3)));
        let wrong = backup(outline, &[(1, "a", &header("soon"))]);
        assert_eq!(
            restore(settings("S"), &wrong).err().unwrap().to_string(),
            "failed to parse message TTL: invalid per-message TTL"
        );
    }

    #[test]
    fn what_a_client_could_not_publish_cannot_be_restored() {
        let outline = r#"{"first_seq":1,"last_seq":9}"#;
        let said = |settings: RestoreSettings, messages: &[(u64, &str, &[u8])]| {
            restore(settings, &backup(outline, messages)).err().unwrap().to_string()
        };
        assert_eq!(said(settings("S"), &[(2, "a", b""), (2, "a", b"")]), "message sequence 2 out of order");
        assert_eq!(said(settings("S"), &[(0, "a", b"")]), "expected message sequence");
        assert_eq!(said(settings("S"), &[(1, "a.*", b"")]), "message sequence 1 has no valid subject");
        let small = RestoreSettings { payload_max: 6, ..settings("S") };
        assert_eq!(said(small, &[(1, "a", b"")]), "message sequence 1 exceeds maximum payload size");
        let mut narrow = settings("S");
        narrow.config.max_msg_size = 6;
        assert_eq!(said(narrow, &[(1, "a", b"")]), "message sequence 1 exceeds maximum message size");
        let full = RestoreSettings { bytes_max: 10, ..settings("S") };
        assert_eq!(said(full, &[(1, "a", b"")]), "insufficient storage resources available");
    }
}
