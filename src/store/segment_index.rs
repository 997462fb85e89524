//! What stands at the end of a sealed segment: all that recovery would learn by reading every record of it.
//!
//! It is a summary and nothing else. Where it is missing or not believed, the records say the same.

use std::collections::BTreeMap;

use super::index::Index;
use super::sealed::{Sealed, read_chunk, read_u32, read_u64};
use super::subjects::Subjects;

/// The summary without the messages themselves, which [`Index::load`] takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary<'a> {
    /// Every message below was gone when the segment was sealed.
    pub first_seq: u64,
    pub next_seq: u64,
    pub last_time_ns: i64,
    /// Messages of earlier segments that records of this one removed: first and last of each range.
    pub removed: Vec<(u64, u64)>,
    /// The newest of each key in this segment; `None`: forgotten.
    pub notes: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

impl<'a> Summary<'a> {
    pub fn write(&self, sealed: Option<&Sealed>, subjects: &Subjects, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.first_seq.to_le_bytes());
        out.extend_from_slice(&self.next_seq.to_le_bytes());
        out.extend_from_slice(&self.last_time_ns.to_le_bytes());
        out.extend_from_slice(&(self.removed.len() as u32).to_le_bytes());
        for (first, last) in &self.removed {
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(&last.to_le_bytes());
        }
        out.extend_from_slice(&(self.notes.len() as u32).to_le_bytes());
        for (key, value) in &self.notes {
            out.extend_from_slice(&(key.len() as u32).to_le_bytes());
            out.extend_from_slice(key);
            out.push(u8::from(value.is_some()));
            let value = value.unwrap_or_default();
            out.extend_from_slice(&(value.len() as u32).to_le_bytes());
            out.extend_from_slice(value);
        }
        out.push(u8::from(sealed.is_some()));
        if let Some(sealed) = sealed {
            sealed.write(subjects, out);
        }
    }

    /// The summary, and what [`Index::load`] takes; `None` if it is not one.
    pub fn read(mut bytes: &'a [u8]) -> Option<(Summary<'a>, Option<&'a [u8]>)> {
        let bytes = &mut bytes;
        let (first_seq, next_seq) = (read_u64(bytes)?, read_u64(bytes)?);
        let last_time_ns = read_u64(bytes)? as i64;
        let mut removed = Vec::new();
        for _ in 0..read_u32(bytes)? {
            let (first, last) = (read_u64(bytes)?, read_u64(bytes)?);
            if first > last || last >= next_seq {
                return None;
            }
            removed.push((first, last));
        }
        let mut notes = Vec::new();
        for _ in 0..read_u32(bytes)? {
            let len = read_u32(bytes)? as usize;
            let key = bytes.split_off(..len)?;
            let has_value = read_chunk::<1>(bytes)? == [1];
            let len = read_u32(bytes)? as usize;
            let value = bytes.split_off(..len)?;
            notes.push((key, has_value.then_some(value)));
        }
        let messages = (read_chunk::<1>(bytes)? == [1]).then_some(*bytes);
        Some((Summary { first_seq, next_seq, last_time_ns, removed, notes }, messages))
    }

    /// What the summary says about the messages before and in the segment, applied in the order of the records it sums up.
    /// How many messages of which earlier segments it removed; `None`, and nothing of the segment's messages in the index, if they
    /// are not believed.
    pub fn apply(
        &self,
        segment: u64,
        messages: Option<&[u8]>,
        index: &mut Index,
    ) -> Option<BTreeMap<u64, u64>> {
        let mut removed = BTreeMap::new();
        for (first, last) in &self.removed {
            let mut from = *first;
            while let Some(seq) = index.next(from).filter(|seq| seq <= last) {
                if let Some(holder) = index.find(seq).and_then(|place| place.segment) {
                    *removed.entry(holder).or_insert(0) += 1;
                }
                index.remove(seq);
                from = seq + 1;
            }
        }
        if let Some(mut messages) = messages
            && !index.load(segment, &mut messages)
        {
            return None;
        }
        if self.first_seq > 0 {
            index.remove_up_to(self.first_seq);
        }
        index.skip_to(self.next_seq);
        index.set_last_time_ns(self.last_time_ns);
        Some(removed)
    }
}
