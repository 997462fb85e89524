//! Consumers in backups: what they are and what they have delivered, as the reference writes it.
//!
//! In archives a consumer is an object with its configuration and its state; before, it was three files, of which `o.dat` is the
//! state: numbers of Go, sequences counted from the floor of acknowledgements.
//!
//! The reference counts how often a message was delivered *again*; what is counted there and not pending was delivered as often as it may be.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::consumer::ConsumerConfig;
use super::super::consumer::state::{SequencePair, State};
use super::super::json::{self, Object, Strictness};
use super::super::time;
use super::{BackupError, NumberError, Numbers};

/// A consumer to be backed up.
#[derive(Debug, Clone)]
pub struct BackedUp {
    /// Its name.
    pub name: Box<str>,
    /// What it was asked to be.
    pub config: Box<ConsumerConfig>,
    /// What it has delivered, as [`State::encode`] writes it: a few bytes for what is pending.
    pub state: Vec<u8>,
}

impl BackedUp {
    /// The object of an archive. Nothing in it is beyond `last_seq`, where the backup of the stream ends.
    pub fn write(&self, last_seq: u64) -> Vec<u8> {
        let state = State::decode(&self.state).expect("it was encoded here");
        let mut out = Vec::with_capacity(512 + state.pending.len() * 64);
        let mut object = Object::begin(&mut out);
        self.config.write(object.member("config"), None);
        let mut written = Object::begin(object.member("state"));
        for (name, pair) in [("delivered", state.delivered), ("ack_floor", state.ack_floor)] {
            let mut inner = Object::begin(written.member(name));
            inner.uint("consumer_seq", pair.consumer);
            inner.uint("stream_seq", pair.stream.min(last_seq));
            inner.end();
        }
        let pending: Vec<_> = state.pending.iter().filter(|entry| entry.stream_seq <= last_seq).collect();
        if !pending.is_empty() {
            let mut all = Object::begin(written.member("pending"));
            for entry in &pending {
                let mut inner = Object::begin(all.member(&entry.stream_seq.to_string()));
                inner.uint("Sequence", entry.consumer_seq);
                inner.int("Timestamp", entry.since_ns);
                inner.end();
            }
            all.end();
        }
        let mut again: BTreeMap<u64, u32> =
            state.exceeded.range(..=last_seq).map(|(seq, n)| (*seq, *n)).collect();
        again.extend(
            pending
                .iter()
                .filter(|entry| entry.deliveries > 1)
                .map(|entry| (entry.stream_seq, entry.deliveries - 1)),
        );
        if !again.is_empty() {
            let mut all = Object::begin(written.member("redelivered"));
            for (seq, times) in again {
                all.keyed_uint(&seq.to_string(), times.into());
            }
            all.end();
        }
        written.end();
        object.end();
        out
    }
}

/// A consumer from a backup.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// When it was created, if that is told.
    pub created_ns: Option<i64>,
    /// What it was asked to be.
    pub config: ConsumerConfig,
    /// What it has delivered; `None`: nothing yet.
    pub state: Option<State>,
}

#[derive(Deserialize)]
struct InArchive {
    config: Option<Box<RawValue>>,
    state: Option<ToldState>,
}

#[derive(Deserialize, Default)]
struct ToldState {
    #[serde(default)]
    delivered: ToldPair,
    #[serde(default)]
    ack_floor: ToldPair,
    #[serde(default)]
    pending: Option<BTreeMap<u64, ToldPending>>,
    #[serde(default)]
    redelivered: Option<BTreeMap<u64, u64>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ToldPair {
    consumer_seq: u64,
    stream_seq: u64,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct ToldPending {
    sequence: u64,
    timestamp: i64,
}

/// Reads the object of an archive.
///
/// # Errors
///
/// It is none.
pub fn read(name: &str, bytes: &[u8]) -> Result<Found, BackupError> {
    let told: InArchive = serde_json::from_slice(bytes)
        .map_err(|error| BackupError::Wrong(format!("failed to decode consumer {name:?} state: {error}")))?;
    let config =
        told.config.ok_or_else(|| BackupError::Wrong(format!("consumer {name:?} is missing config")))?;
    let state =
        told.state.ok_or_else(|| BackupError::Wrong(format!("consumer {name:?} is missing state")))?;
    let pending = state.pending.unwrap_or_default();
    let pending = pending.into_iter().map(|(seq, entry)| (seq, entry.sequence, entry.timestamp));
    let state = state_of(
        SequencePair { consumer: state.delivered.consumer_seq, stream: state.delivered.stream_seq },
        SequencePair { consumer: state.ack_floor.consumer_seq, stream: state.ack_floor.stream_seq },
        pending.collect(),
        state.redelivered.unwrap_or_default(),
    );
    Ok(Found {
        name: name.to_owned(),
        created_ns: None,
        config: config_of(name, config.get().as_bytes())?,
        state: Some(state),
    })
}

/// Reads the file with a consumer's metadata, which say nothing of its state.
///
/// # Errors
///
/// It is none.
pub fn read_metadata(name: &str, bytes: &[u8]) -> Result<Found, BackupError> {
    let created_ns = read_created(bytes)
        .map_err(|error| BackupError::Wrong(format!("error restoring consumer [{name:?}]: {error}")))?;
    Ok(Found { name: name.to_owned(), created_ns, config: config_of(name, bytes)?, state: None })
}

/// When what has this metadata was created, if that is told.
pub fn read_created(bytes: &[u8]) -> Result<Option<i64>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Created {
        #[serde(rename = "Created")]
        created: Option<String>,
    }
    let told: Created = serde_json::from_slice(bytes)?;
    let created = told.created.and_then(|text| time::parse(&text).ok());
    Ok(created.filter(|ns| *ns != time::ZERO))
}

fn config_of(name: &str, bytes: &[u8]) -> Result<ConsumerConfig, BackupError> {
    let mut config: ConsumerConfig = json::read_one(bytes, Strictness::Lenient)
        .map_err(|error| BackupError::Wrong(format!("failed to decode consumer {name:?} state: {error}")))?;
    if config.name.is_empty() {
        name.clone_into(&mut config.name);
    }
    Ok(config)
}

/// Reads the file with a consumer's state.
///
/// # Errors
///
/// It is none.
pub fn read_state(bytes: &[u8]) -> Result<State, BackupError> {
    const MAGIC: u8 = 22;
    let wrong = |_: NumberError| BackupError::wrong("corrupt state file");
    match bytes {
        [MAGIC, version @ (1 | 2), rest @ ..] => read_state_of(*version, rest).map_err(wrong),
        _ => Err(wrong(NumberError::Cut)),
    }
}

fn read_state_of(version: u8, bytes: &[u8]) -> Result<State, NumberError> {
    const SECOND: i64 = 1_000_000_000;
    let mut numbers = Numbers { bytes, at: 0 };
    let ack_floor = SequencePair { consumer: numbers.unsigned()?, stream: numbers.unsigned()? };
    let mut delivered = SequencePair { consumer: numbers.unsigned()?, stream: numbers.unsigned()? };
    if version == 1 {
        // It told the next ones, counted from the floor.
        delivered.consumer = delivered.consumer.wrapping_add(ack_floor.consumer.saturating_sub(1));
        delivered.stream = delivered.stream.wrapping_add(ack_floor.stream.saturating_sub(1));
    }
    if ack_floor.stream >> 63 != 0 || delivered.stream >> 63 != 0 {
        return Err(NumberError::TooLong);
    }
    let mut pending = Vec::new();
    let count = numbers.unsigned()?;
    if count > 0 {
        let base_s = numbers.signed()?;
        for _ in 0..count {
            let stream = numbers.unsigned()?.wrapping_add(ack_floor.stream);
            let consumer = match version {
                1 => 0,
                _ => numbers.unsigned()?.wrapping_add(ack_floor.consumer),
            };
            let step_s = numbers.signed()?;
            let at_s = if version == 1 { base_s.wrapping_add(step_s) } else { base_s.wrapping_sub(step_s) };
            pending.push((stream, consumer, at_s.saturating_mul(SECOND)));
        }
    }
    let mut again = BTreeMap::new();
    for _ in 0..numbers.unsigned()? {
        let (stream, times) = (numbers.unsigned()?, numbers.unsigned()?);
        if stream > 0 && times > 0 {
            again.insert(stream.wrapping_add(ack_floor.stream), times);
        }
    }
    Ok(state_of(delivered, ack_floor, pending, again))
}

/// A state from what the reference says. What does not fit together gives way to what is sure: what may not have been handled is delivered again.
fn state_of(
    mut delivered: SequencePair,
    mut ack_floor: SequencePair,
    mut pending: Vec<(u64, u64, i64)>,
    again: BTreeMap<u64, u64>,
) -> State {
    // Nobody gets so far, and sums stay sums.
    const SEQ_MAX: u64 = u64::MAX / 2;
    delivered.consumer = delivered.consumer.min(SEQ_MAX);
    delivered.stream = delivered.stream.min(SEQ_MAX);
    ack_floor.consumer = ack_floor.consumer.min(delivered.consumer);
    ack_floor.stream = ack_floor.stream.min(delivered.stream);
    pending.sort_unstable();
    pending.dedup_by_key(|(stream, _, _)| *stream);
    let times = |seq: u64| again.get(&seq).map_or(0, |times| u32::try_from(*times).unwrap_or(u32::MAX - 1));
    let mut state = State { delivered, ack_floor, ..State::default() };
    let mut last = ack_floor.consumer;
    for (stream, consumer, since_ns) in pending {
        if stream > ack_floor.stream && stream <= delivered.stream {
            last = consumer.min(SEQ_MAX).max(last + 1);
            state.pending.push(stream, last, since_ns, times(stream).saturating_add(1));
        }
    }
    state.delivered.consumer = delivered.consumer.max(last);
    for seq in again.keys().filter(|seq| **seq <= delivered.stream) {
        if state.pending.get(*seq).is_none() {
            state.exceeded.insert(*seq, times(*seq).max(1));
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(consumer: u64, stream: u64) -> SequencePair {
        SequencePair { consumer, stream }
    }

    fn state() -> State {
        let mut state = State { delivered: pair(9, 20), ack_floor: pair(3, 7), ..State::default() };
        state.pending.push(8, 4, 5_000_000_000, 1);
        state.pending.push(12, 6, 6_000_000_000, 3);
        state.exceeded.insert(10, 5);
        state
    }

    fn backed_up(state: &State) -> BackedUp {
        let config =
            ConsumerConfig { name: "C".into(), durable_name: "C".into(), ..ConsumerConfig::default() };
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        BackedUp { name: "C".into(), config: Box::new(config), state: bytes }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let state = state();
        let consumer = backed_up(&state);
        let found = read("C", &consumer.write(100)).unwrap();
        assert_eq!(found.state, Some(state));
        assert_eq!((&*found.name, &found.config), ("C", &*consumer.config));
    }

    #[test]
    fn nothing_is_told_of_what_is_beyond_the_backup() {
        let text = String::from_utf8(backed_up(&state()).write(9)).unwrap();
        assert!(text.ends_with(
            r#""state":{"delivered":{"consumer_seq":9,"stream_seq":9},"ack_floor":{"consumer_seq":3,"stream_seq":7},"pending":{"8":{"Sequence":4,"Timestamp":5000000000}}}}"#
        ), "{text}");
    }

    #[test]
    fn states_that_do_not_fit_together_are_made_to() {
        // Of pending ones below the floor, beyond the last, with numbers that do not ascend.
        let state = state_of(
            pair(5, 10),
            pair(7, 3),
            vec![(9, 1, 0), (4, 9, 0), (3, 1, 0), (11, 1, 0), (4, 9, 1)],
            BTreeMap::from([(2, 1), (400, 1)]),
        );
        assert_eq!(state.ack_floor, pair(5, 3));
        let pending: Vec<_> =
            state.pending.iter().map(|entry| (entry.stream_seq, entry.consumer_seq)).collect();
        assert_eq!(pending, [(4, 9), (9, 10)]);
        assert_eq!(state.delivered, pair(10, 10));
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        assert_eq!(State::decode(&bytes), Some(state));
    }

    #[test]
    fn files_of_states_are_read_in_both_versions() {
        // Floor 3/7, delivered 9/20, pending: 8 as 4 at 5 s, 12 as 6 at 6 s; 12 again twice, 10 five times.
        let second = [22, 2, 3, 7, 9, 20, 2, 12, 1, 1, 2, 5, 3, 0, 2, 5, 2, 3, 5];
        assert_eq!(read_state(&second), Ok(state()));
        let first = [22, 1, 3, 7, 7, 14, 1, 10, 1, 2, 0];
        let read = read_state(&first).unwrap();
        assert_eq!((read.delivered, read.ack_floor), (pair(9, 20), pair(3, 7)));
        assert_eq!(read.pending.iter().map(|entry| entry.since_ns).collect::<Vec<_>>(), [6_000_000_000]);
        for cut in 0..second.len() {
            assert!(read_state(&second[..cut]).is_err(), "{cut}");
        }
        assert!(read_state(&[22, 3, 0, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn what_is_missing_is_named() {
        let said = |text: &str| read("C", text.as_bytes()).unwrap_err().to_string();
        assert_eq!(said("{}"), "consumer \"C\" is missing config");
        assert_eq!(said("{\"config\":{}}"), "consumer \"C\" is missing state");
        assert!(said("[").starts_with("failed to decode consumer \"C\" state: "));
    }
}
