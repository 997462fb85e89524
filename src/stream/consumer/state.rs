//! What a consumer must not forget: what it has delivered, what is acknowledged, and the changes between two states.
//!
//! Every change is a [`StateChange`], made by [`State::apply`] and by nothing else: while the consumer runs, when its
//! records are read after a restart, and one day on replicas. So the same changes always give the same state. A change
//! says what happened, not what follows: floors are computed here. [`ChangeWriter`] packs changes into a few bytes each
//! ([`read_changes`] reads them), [`State::encode`] a whole state. Both begin with the version of the format; numbers are
//! LEB128, differences to the change before where they are small that way.
//!
//! Invariants: `ack_floor` never passes `delivered`, in either sequence; nothing pending is at or below the floor.

use std::collections::BTreeMap;

use super::pending::Pending;

/// First byte of an encoded state, and of encoded changes.
const VERSION: u8 = 1;

/// A place in the stream and in the consumer's own numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SequencePair {
    /// The number of the delivery.
    pub consumer: u64,
    /// The sequence in the stream.
    pub stream: u64,
}

/// See the file's header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The last delivery, and the highest sequence delivered.
    pub delivered: SequencePair,
    /// Everything up to here is handled.
    pub ack_floor: SequencePair,
    /// What is delivered and not acknowledged.
    pub pending: Pending,
    /// What was delivered as often as it may be, and how often. It is not pending, and on streams that remove what is
    /// acknowledged it stays.
    pub exceeded: BTreeMap<u64, u32>,
}

/// What happened to a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateChange {
    /// It begins with this sequence, as if new.
    Restarted {
        /// The next sequence to look at.
        next: u64,
    },
    /// A message was delivered for the first time and awaits its acknowledgement.
    Delivered {
        /// The number of the delivery.
        consumer_seq: u64,
        /// Which message.
        stream_seq: u64,
        /// When.
        at_ns: i64,
    },
    /// A message was delivered; nothing is awaited.
    Passed {
        /// The number of the delivery.
        consumer_seq: u64,
        /// Which message.
        stream_seq: u64,
    },
    /// A message was delivered again.
    Redelivered {
        /// The number of the delivery.
        consumer_seq: u64,
        /// Which message.
        stream_seq: u64,
        /// How often now.
        deliveries: u32,
        /// When.
        at_ns: i64,
    },
    /// The clock of a message's acknowledgement was set.
    Postponed {
        /// Which message.
        stream_seq: u64,
        /// From when the wait is counted.
        since_ns: i64,
    },
    /// A message is handled: acknowledged, terminated, or gone.
    Acked {
        /// Which message.
        stream_seq: u64,
    },
    /// A message and everything before it is handled.
    AckedThrough {
        /// The number of the delivery, as the acknowledgement says.
        consumer_seq: u64,
        /// Which message.
        stream_seq: u64,
    },
    /// A message was delivered as often as it may be.
    Exceeded {
        /// Which message.
        stream_seq: u64,
        /// How often.
        deliveries: u32,
    },
    /// The stream begins with this sequence; whatever was before is gone.
    Purged {
        /// The first sequence that there is or will be.
        first: u64,
    },
}

impl State {
    /// A consumer that begins with this sequence.
    pub fn starting_with(next: u64) -> State {
        let mut state = State::default();
        state.apply(&StateChange::Restarted { next });
        state
    }

    /// How many messages were delivered more than once and are not handled.
    pub fn redelivered(&self) -> usize {
        self.pending.redelivered() + self.exceeded.len()
    }

    /// Makes a change. Changes that do not fit (an acknowledgement of what is not pending) change nothing.
    pub fn apply(&mut self, change: &StateChange) {
        match *change {
            StateChange::Restarted { next } => {
                let before = SequencePair { consumer: 0, stream: next.saturating_sub(1) };
                *self = State { delivered: before, ack_floor: before, ..State::default() };
            }
            StateChange::Delivered { consumer_seq, stream_seq, at_ns } => {
                if stream_seq > self.delivered.stream {
                    self.pending.push(stream_seq, consumer_seq, at_ns, 1);
                    self.delivered.consumer = self.delivered.consumer.max(consumer_seq);
                    self.delivered.stream = stream_seq;
                }
            }
            StateChange::Passed { consumer_seq, stream_seq } => {
                self.delivered.consumer = self.delivered.consumer.max(consumer_seq);
                self.delivered.stream = self.delivered.stream.max(stream_seq);
                if self.pending.is_empty() {
                    self.ack_floor = self.delivered;
                }
            }
            StateChange::Redelivered { consumer_seq, stream_seq, deliveries, at_ns } => {
                self.delivered.consumer = self.delivered.consumer.max(consumer_seq);
                self.pending.update(stream_seq, |entry| {
                    entry.deliveries = deliveries;
                    entry.since_ns = at_ns;
                    entry.queued = false;
                });
            }
            StateChange::Postponed { stream_seq, since_ns } => {
                self.pending.update(stream_seq, |entry| entry.since_ns = since_ns);
            }
            StateChange::Acked { stream_seq } => {
                self.exceeded.remove(&stream_seq);
                self.settle(stream_seq);
            }
            StateChange::AckedThrough { consumer_seq, stream_seq } => {
                if consumer_seq > self.ack_floor.consumer && stream_seq > self.ack_floor.stream {
                    self.ack_floor.consumer = consumer_seq.min(self.delivered.consumer);
                    self.ack_floor.stream = stream_seq.min(self.delivered.stream);
                    self.pending.remove_through(stream_seq);
                    self.exceeded = self.exceeded.split_off(&stream_seq.saturating_add(1));
                }
            }
            StateChange::Exceeded { stream_seq, deliveries } => {
                // The floor stays: nobody has handled the message. It moves with the next acknowledgement that may.
                if self.pending.remove(stream_seq).is_some() {
                    self.exceeded.insert(stream_seq, deliveries);
                }
            }
            StateChange::Purged { first } => {
                let last_gone = first.saturating_sub(1);
                self.exceeded = self.exceeded.split_off(&first);
                if self.ack_floor.stream < last_gone {
                    self.pending.remove_through(last_gone);
                    self.delivered.stream = self.delivered.stream.max(last_gone);
                    match self.pending.first() {
                        None => self.ack_floor = self.delivered,
                        Some(first) => {
                            let consumer = first.consumer_seq.saturating_sub(1);
                            self.ack_floor.consumer = self.ack_floor.consumer.max(consumer);
                            self.ack_floor.stream = last_gone;
                        }
                    }
                }
            }
        }
        debug_assert!(self.ack_floor.stream <= self.delivered.stream);
        debug_assert!(self.ack_floor.consumer <= self.delivered.consumer);
    }

    /// Takes a message out of what is pending, and moves the floor up to the next one that is.
    fn settle(&mut self, stream_seq: u64) {
        let Some(entry) = self.pending.remove(stream_seq) else {
            return;
        };
        if self.pending.is_empty() {
            self.ack_floor = self.delivered;
        } else if let Some(first) = self.pending.first()
            && entry.consumer_seq == self.ack_floor.consumer.saturating_add(1)
        {
            self.ack_floor =
                SequencePair { consumer: first.consumer_seq.saturating_sub(1), stream: first.stream_seq - 1 };
        }
    }

    /// Writes all of it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        for number in
            [self.delivered.consumer, self.delivered.stream, self.ack_floor.consumer, self.ack_floor.stream]
        {
            write_number(out, number);
        }
        write_number(out, self.pending.len() as u64);
        let (mut stream_seq, mut consumer_seq, mut since_ns) = (0, 0, 0_i64);
        for entry in self.pending.iter() {
            write_number(out, entry.stream_seq - stream_seq);
            write_number(out, entry.consumer_seq - consumer_seq);
            write_signed(out, entry.since_ns.wrapping_sub(since_ns));
            write_number(out, entry.deliveries.into());
            (stream_seq, consumer_seq, since_ns) = (entry.stream_seq, entry.consumer_seq, entry.since_ns);
        }
        write_number(out, self.exceeded.len() as u64);
        for (stream_seq, deliveries) in &self.exceeded {
            write_number(out, *stream_seq);
            write_number(out, (*deliveries).into());
        }
    }

    /// Reads what [`State::encode`] wrote. `None`: it is not that.
    pub fn decode(bytes: &[u8]) -> Option<State> {
        let mut reader = Reader::begin(bytes)?;
        let mut state = State {
            delivered: SequencePair { consumer: reader.number()?, stream: reader.number()? },
            ack_floor: SequencePair { consumer: reader.number()?, stream: reader.number()? },
            ..State::default()
        };
        let (mut stream_seq, mut consumer_seq, mut since_ns) = (0_u64, 0_u64, 0_i64);
        for _ in 0..reader.number()? {
            let (stream_step, consumer_step) = (reader.number()?, reader.number()?);
            stream_seq = stream_seq.checked_add(stream_step)?;
            consumer_seq = consumer_seq.checked_add(consumer_step)?;
            since_ns = since_ns.wrapping_add(reader.signed()?);
            let deliveries = u32::try_from(reader.number()?).ok()?;
            let in_order = stream_step > 0 && consumer_step > 0 && deliveries > 0;
            if !in_order || stream_seq > state.delivered.stream || consumer_seq > state.delivered.consumer {
                return None;
            }
            state.pending.push(stream_seq, consumer_seq, since_ns, deliveries);
        }
        for _ in 0..reader.number()? {
            let stream_seq = reader.number()?;
            state.exceeded.insert(stream_seq, u32::try_from(reader.number()?).ok()?);
        }
        let floors = state.ack_floor.stream <= state.delivered.stream
            && state.ack_floor.consumer <= state.delivered.consumer
            && state.pending.first().is_none_or(|first| first.consumer_seq > state.ack_floor.consumer);
        (reader.is_at_end() && floors).then_some(state)
    }
}

/// Packs changes, one behind the other.
#[derive(Debug, Clone, Default)]
pub struct ChangeWriter {
    bytes: Vec<u8>,
    before: Before,
}

/// What differences are counted from.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    stream_seq: u64,
    consumer_seq: u64,
    at_ns: i64,
}

const RESTARTED: u8 = 0;
const DELIVERED: u8 = 1;
const PASSED: u8 = 2;
const REDELIVERED: u8 = 3;
const POSTPONED: u8 = 4;
const ACKED: u8 = 5;
const ACKED_THROUGH: u8 = 6;
const EXCEEDED: u8 = 7;
const PURGED: u8 = 8;

impl ChangeWriter {
    /// Adds a change.
    pub fn push(&mut self, change: &StateChange) {
        if self.bytes.is_empty() {
            self.bytes.push(VERSION);
            self.before = Before::default();
        }
        match *change {
            StateChange::Restarted { next } => {
                self.bytes.push(RESTARTED);
                write_number(&mut self.bytes, next);
            }
            StateChange::Delivered { consumer_seq, stream_seq, at_ns } => {
                self.bytes.push(DELIVERED);
                self.consumer_seq(consumer_seq);
                self.stream_seq(stream_seq);
                self.at(at_ns);
            }
            StateChange::Passed { consumer_seq, stream_seq } => {
                self.bytes.push(PASSED);
                self.consumer_seq(consumer_seq);
                self.stream_seq(stream_seq);
            }
            StateChange::Redelivered { consumer_seq, stream_seq, deliveries, at_ns } => {
                self.bytes.push(REDELIVERED);
                self.consumer_seq(consumer_seq);
                self.stream_seq(stream_seq);
                write_number(&mut self.bytes, deliveries.into());
                self.at(at_ns);
            }
            StateChange::Postponed { stream_seq, since_ns } => {
                self.bytes.push(POSTPONED);
                self.stream_seq(stream_seq);
                self.at(since_ns);
            }
            StateChange::Acked { stream_seq } => {
                self.bytes.push(ACKED);
                self.stream_seq(stream_seq);
            }
            StateChange::AckedThrough { consumer_seq, stream_seq } => {
                self.bytes.push(ACKED_THROUGH);
                self.consumer_seq(consumer_seq);
                self.stream_seq(stream_seq);
            }
            StateChange::Exceeded { stream_seq, deliveries } => {
                self.bytes.push(EXCEEDED);
                self.stream_seq(stream_seq);
                write_number(&mut self.bytes, deliveries.into());
            }
            StateChange::Purged { first } => {
                self.bytes.push(PURGED);
                write_number(&mut self.bytes, first);
            }
        }
    }

    /// What was packed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Begins anew. A large buffer is given back.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(16 * 1024);
    }

    /// Gives all memory back.
    pub fn shrink(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }

    fn stream_seq(&mut self, stream_seq: u64) {
        write_signed(&mut self.bytes, stream_seq.wrapping_sub(self.before.stream_seq).cast_signed());
        self.before.stream_seq = stream_seq;
    }

    fn consumer_seq(&mut self, consumer_seq: u64) {
        write_signed(&mut self.bytes, consumer_seq.wrapping_sub(self.before.consumer_seq).cast_signed());
        self.before.consumer_seq = consumer_seq;
    }

    fn at(&mut self, at_ns: i64) {
        write_signed(&mut self.bytes, at_ns.wrapping_sub(self.before.at_ns));
        self.before.at_ns = at_ns;
    }
}

/// Reads packed changes, each into `apply`. `None`: they are not that; what was read before is applied.
pub fn read_changes(bytes: &[u8], mut apply: impl FnMut(&StateChange)) -> Option<()> {
    let mut reader = Reader::begin(bytes)?;
    let mut before = Before::default();
    while !reader.is_at_end() {
        let change = match reader.byte()? {
            RESTARTED => StateChange::Restarted { next: reader.number()? },
            DELIVERED => StateChange::Delivered {
                consumer_seq: reader.step(&mut before.consumer_seq)?,
                stream_seq: reader.step(&mut before.stream_seq)?,
                at_ns: reader.time(&mut before)?,
            },
            PASSED => StateChange::Passed {
                consumer_seq: reader.step(&mut before.consumer_seq)?,
                stream_seq: reader.step(&mut before.stream_seq)?,
            },
            REDELIVERED => StateChange::Redelivered {
                consumer_seq: reader.step(&mut before.consumer_seq)?,
                stream_seq: reader.step(&mut before.stream_seq)?,
                deliveries: u32::try_from(reader.number()?).ok()?,
                at_ns: reader.time(&mut before)?,
            },
            POSTPONED => StateChange::Postponed {
                stream_seq: reader.step(&mut before.stream_seq)?,
                since_ns: reader.time(&mut before)?,
            },
            ACKED => StateChange::Acked { stream_seq: reader.step(&mut before.stream_seq)? },
            ACKED_THROUGH => StateChange::AckedThrough {
                consumer_seq: reader.step(&mut before.consumer_seq)?,
                stream_seq: reader.step(&mut before.stream_seq)?,
            },
            EXCEEDED => StateChange::Exceeded {
                stream_seq: reader.step(&mut before.stream_seq)?,
                deliveries: u32::try_from(reader.number()?).ok()?,
            },
            PURGED => StateChange::Purged { first: reader.number()? },
            _ => return None,
        };
        apply(&change);
    }
    Some(())
}

fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn write_signed(out: &mut Vec<u8>, number: i64) {
    write_number(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn begin(bytes: &'a [u8]) -> Option<Reader<'a>> {
        let (version, rest) = bytes.split_first()?;
        (*version == VERSION).then_some(Reader { rest })
    }

    fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return None;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    fn step(&mut self, before: &mut u64) -> Option<u64> {
        *before = before.wrapping_add(self.signed()?.cast_unsigned());
        Some(*before)
    }

    fn time(&mut self, before: &mut Before) -> Option<i64> {
        before.at_ns = before.at_ns.wrapping_add(self.signed()?);
        Some(before.at_ns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delivered(consumer_seq: u64, stream_seq: u64) -> StateChange {
        StateChange::Delivered { consumer_seq, stream_seq, at_ns: 1_000 + consumer_seq.cast_signed() }
    }

    fn after(changes: &[StateChange]) -> State {
        let mut state = State::starting_with(1);
        changes.iter().for_each(|change| state.apply(change));
        state
    }

    fn floor(changes: &[StateChange]) -> (u64, u64) {
        let state = after(changes);
        (state.ack_floor.consumer, state.ack_floor.stream)
    }

    #[test]
    fn the_floor_moves_to_just_before_the_next_pending_message() {
        let three = [delivered(1, 1), delivered(2, 5), delivered(3, 9)];
        let acked = |seqs: &[u64]| {
            let acks = seqs.iter().map(|stream_seq| StateChange::Acked { stream_seq: *stream_seq });
            floor(&three.into_iter().chain(acks).collect::<Vec<_>>())
        };
        assert_eq!(acked(&[]), (0, 0));
        assert_eq!(acked(&[1]), (1, 4));
        assert_eq!(acked(&[5]), (0, 0));
        assert_eq!(acked(&[5, 1]), (2, 8));
        assert_eq!(acked(&[9, 5, 1]), (3, 9));
        assert_eq!(acked(&[1, 1, 7]), (1, 4));
    }

    #[test]
    fn what_was_delivered_too_often_is_no_longer_pending_but_known() {
        let state = after(&[delivered(1, 1), StateChange::Exceeded { stream_seq: 1, deliveries: 2 }]);
        assert_eq!((state.pending.len(), state.redelivered(), state.ack_floor.stream), (0, 1, 0));
        let late = after(&[
            delivered(1, 1),
            StateChange::Exceeded { stream_seq: 1, deliveries: 2 },
            StateChange::Acked { stream_seq: 1 },
        ]);
        assert_eq!(late.redelivered(), 0);
    }

    #[test]
    fn a_purge_settles_what_is_gone_and_leaves_the_rest() {
        let state =
            after(&[delivered(1, 1), delivered(2, 2), delivered(3, 7), StateChange::Purged { first: 5 }]);
        assert_eq!(state.pending.iter().map(|entry| entry.stream_seq).collect::<Vec<_>>(), [7]);
        assert_eq!(state.ack_floor, SequencePair { consumer: 2, stream: 4 });
        let beyond = after(&[delivered(1, 1), StateChange::Purged { first: 50 }]);
        assert_eq!(
            (beyond.ack_floor.stream, beyond.delivered.stream, beyond.delivered.consumer),
            (49, 49, 1)
        );
    }

    fn any_change() -> impl Strategy<Value = StateChange> {
        let seq = 0_u64..50;
        prop_oneof![
            seq.clone().prop_map(|next| StateChange::Restarted { next }),
            (seq.clone(), seq.clone())
                .prop_map(|(consumer_seq, stream_seq)| StateChange::Passed { consumer_seq, stream_seq }),
            (seq.clone(), seq.clone(), any::<i64>()).prop_map(|(consumer_seq, stream_seq, at_ns)| {
                StateChange::Redelivered { consumer_seq, stream_seq, deliveries: 3, at_ns }
            }),
            (seq.clone(), any::<i64>())
                .prop_map(|(stream_seq, since_ns)| StateChange::Postponed { stream_seq, since_ns }),
            seq.clone().prop_map(|stream_seq| StateChange::Acked { stream_seq }),
            (any::<u64>(), 0..u64::MAX).prop_map(|(consumer_seq, stream_seq)| StateChange::AckedThrough {
                consumer_seq,
                stream_seq
            }),
            seq.clone().prop_map(|stream_seq| StateChange::Exceeded { stream_seq, deliveries: 9 }),
            seq.prop_map(|first| StateChange::Purged { first }),
        ]
    }

    proptest! {
        #[test]
        fn states_and_changes_survive_being_written(changes in prop::collection::vec(any_change(), 0..60)) {
            let mut state = State::starting_with(1);
            let mut writer = ChangeWriter::default();
            let mut done = Vec::new();
            for change in changes {
                // A delivery in between, with the numbers that follow.
                let next = delivered(state.delivered.consumer + 1, state.delivered.stream + 1);
                for change in [next, change] {
                    state.apply(&change);
                    writer.push(&change);
                    done.push(change);
                }
            }
            let mut bytes = Vec::new();
            state.encode(&mut bytes);
            prop_assert_eq!(State::decode(&bytes), Some(state.clone()));
            let mut read = Vec::new();
            if !writer.is_empty() {
                prop_assert!(read_changes(writer.bytes(), |change| read.push(*change)).is_some());
            }
            prop_assert_eq!(read, done);
        }

        #[test]
        fn damaged_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut versioned = vec![VERSION];
            versioned.extend_from_slice(&bytes);
            let _ = State::decode(&versioned);
            let mut state = State::default();
            let _ = read_changes(&versioned, |change| state.apply(change));
        }
    }
}
