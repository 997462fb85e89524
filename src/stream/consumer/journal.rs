//! How the state of a consumer is kept in the log of its stream.
//!
//! Notes of the store: a key, and its newest value. A consumer has three kinds, all under `c.<name>.`:
//!
//! * `c.<name>.c`: its configuration, as an object `{"created":…,"config":{…}}`.
//! * `c.<name>.s`: a whole state, behind its number.
//! * `c.<name>.d<n>`: the changes of a turn, behind the number of the state that they follow.
//!
//! Each turn that changes something writes the next `d`. When they have grown larger than a state the state is written
//! anew with the next number; older `d`s are then void by their number and are written over. So an acknowledgement
//! costs a few bytes, and recovery reads one state and a bounded number of changes.

use super::state::{ChangeWriter, State, StateChange, read_changes};
use crate::store::{Store, StoreError};

/// How many turns may follow a state.
const TURNS_MAX: u8 = 64;
/// How many bytes of changes may follow a state at least.
const CHANGES_LEN_MAX: usize = 16 * 1024;

/// See the file's header.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal {
    changes: ChangeWriter,
    /// The number of the last state that was written.
    number: u32,
    /// How many turns follow it.
    turns: u8,
    /// How many slots are used in the store.
    slots: u8,
    /// How many bytes follow it.
    len: usize,
    state_len: usize,
    /// Whether the next thing to write is a state.
    needs_state: bool,
}

impl Journal {
    /// One for a consumer that is new.
    pub(super) fn new() -> Journal {
        Journal { needs_state: true, ..Journal::default() }
    }

    pub(super) fn push(&mut self, change: &StateChange) {
        if !self.needs_state {
            self.changes.push(change);
        }
    }

    /// Whether something has to be written.
    pub(super) fn is_dirty(&self) -> bool {
        self.needs_state || !self.changes.is_empty()
    }

    /// What was written is lost: the next thing to write is a whole state.
    pub(super) fn rewrite(&mut self) {
        self.needs_state = true;
        self.changes.clear();
    }

    /// Writes what is new.
    pub(super) fn flush(&mut self, name: &str, state: &State, store: &mut Store) -> Result<(), StoreError> {
        let full = self.turns >= TURNS_MAX || self.len > CHANGES_LEN_MAX.max(self.state_len * 2);
        if self.needs_state || full {
            let mut value = (self.number + 1).to_be_bytes().to_vec();
            state.encode(&mut value);
            store.note(format!("c.{name}.s").as_bytes(), Some(&value))?;
            self.number += 1;
            self.state_len = value.len();
            (self.turns, self.len, self.needs_state) = (0, 0, false);
        } else if !self.changes.is_empty() {
            let mut value = self.number.to_be_bytes().to_vec();
            value.extend_from_slice(self.changes.bytes());
            store.note(slot_key(name, self.turns).as_bytes(), Some(&value))?;
            self.turns += 1;
            self.slots = self.slots.max(self.turns);
            self.len += value.len();
        }
        self.changes.clear();
        Ok(())
    }

    /// Gives memory back, here and in the store, of a consumer that rests.
    pub(super) fn rest(&mut self, name: &str, state: &State, store: &mut Store) -> Result<(), StoreError> {
        if self.slots > 0 {
            self.needs_state = true;
            self.flush(name, state, store)?;
            for slot in 0..self.slots {
                store.note(slot_key(name, slot).as_bytes(), None)?;
            }
            self.slots = 0;
        }
        self.changes.shrink();
        Ok(())
    }

    /// Forgets everything of a consumer.
    pub(super) fn erase(&mut self, name: &str, store: &mut Store) -> Result<(), StoreError> {
        for slot in 0..self.slots {
            store.note(slot_key(name, slot).as_bytes(), None)?;
        }
        store.note(format!("c.{name}.s").as_bytes(), None)?;
        store.note(config_key(name).as_bytes(), None)
    }
}

pub(super) fn config_key(name: &str) -> String {
    format!("c.{name}.c")
}

fn slot_key(name: &str, slot: u8) -> String {
    format!("c.{name}.d{slot:02}")
}

/// What the notes of a store say of one consumer.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// The value of `c.<name>.c`.
    pub(super) config: Vec<u8>,
    state: Option<(u32, State)>,
    changes: Vec<(u32, u8, Vec<u8>)>,
}

impl Recovered {
    /// All consumers of a store, in the order of their names.
    pub(super) fn all(store: &Store) -> Vec<(String, Recovered)> {
        let mut all: Vec<(String, Recovered)> = Vec::new();
        for (key, value) in store.notes() {
            let Some((name, part)) = std::str::from_utf8(key)
                .ok()
                .and_then(|key| key.strip_prefix("c."))
                .and_then(|key| key.rsplit_once('.'))
            else {
                continue;
            };
            if all.last().is_none_or(|(last, _)| last != name) {
                all.push((name.to_owned(), Recovered::default()));
            }
            let Some((_, recovered)) = all.last_mut() else { continue };
            let number = value.first_chunk::<4>().map(|number| u32::from_be_bytes(*number));
            match (part, part.strip_prefix('d').and_then(|slot| slot.parse().ok()), number) {
                ("c", ..) => recovered.config = value.to_vec(),
                ("s", _, Some(number)) => {
                    recovered.state = State::decode(&value[4..]).map(|state| (number, state));
                }
                (_, Some(slot), Some(number)) => recovered.changes.push((number, slot, value[4..].to_vec())),
                _ => {}
            }
        }
        all
    }

    /// The state, and a journal that goes on behind it. `None` if there is none that can be read.
    pub(super) fn finish(mut self) -> Option<(State, Journal)> {
        let (number, mut state) = self.state.take()?;
        self.changes.sort_by_key(|(_, slot, _)| *slot);
        let slots = self.changes.last().map_or(0, |(_, slot, _)| slot + 1);
        let (mut turns, mut len) = (0, 0);
        for (follows, slot, changes) in &self.changes {
            // A gap means that what follows was written over since: then it is not of this state.
            if *follows == number && *slot == turns {
                read_changes(changes, |change| state.apply(change))?;
                turns += 1;
                len += changes.len();
            }
        }
        let journal = Journal { number, turns, slots, len, ..Journal::default() };
        Some((state, journal))
    }
}
