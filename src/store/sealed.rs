//! What is known of the messages of one sealed segment without reading them: 3 to 8 bytes each, for the most part their
//! time and their subject.
//!
//! Built once, when the segment is sealed or opened; afterwards only the set of removed messages changes. The same
//! content stands at the end of the segment's file, with names in place of subject numbers.

use super::packed::{GROUP, Packed};
use super::segment::RECORD_BYTES_MORE;
use super::subjects::Subjects;

/// How many bytes of messages have to be removed from a sealed segment before its space is looked at; of a small one a
/// quarter.
const SPARSE_BYTES: u64 = if cfg!(test) { 200 } else { 1 << 20 };
/// How many messages a segment has at most: their places within it fit into 16 bits.
pub const SEGMENT_MESSAGES_MAX: usize = 1 << 16;

/// One message as it is given to [`Sealed::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub seq: u64,
    pub time_ns: i64,
    /// Where its record begins in the segment.
    pub offset: u32,
    /// What it counts for in the state's bytes.
    pub size: u32,
    pub subject: u32,
    /// The message before it of the same subject; only the index's open segment uses it.
    pub previous: u32,
}

/// See the file's header.
pub struct Sealed {
    pub segment: u64,
    pub first_seq: u64,
    pub last_seq: u64,
    /// `None`: sequences without gaps.
    seqs: Option<Packed>,
    times: Packed,
    /// Where each record begins, less the length of the records of the messages before it in its group: where nothing lies
    /// between messages that is the same for all of a group.
    starts: Packed,
    sizes: Packed,
    /// For each message the place of its subject in `ids`.
    subjects: Packed,
    /// The numbers of its subjects, ascending.
    ids: Packed,
    /// For each of `ids` its first message here, removed or not.
    firsts: Box<[u16]>,
    /// A bit for each message that was removed.
    dead: Option<Box<[u64]>>,
    pub live: u32,
    pub live_bytes: u64,
    /// What all messages count for, removed or not.
    all_bytes: u64,
    /// Bytes of messages that were removed since [`dead_extents`](Self::dead_extents) was asked last.
    fresh_dead_bytes: u64,
}

impl Sealed {
    /// From messages in the order of their sequences, at least one.
    pub fn new(segment: u64, entries: &[Entry]) -> Sealed {
        assert!(!entries.is_empty() && entries.len() <= SEGMENT_MESSAGES_MAX);
        let (first_seq, last_seq) = (entries[0].seq, entries[entries.len() - 1].seq);
        let is_dense = last_seq - first_seq + 1 == entries.len() as u64;
        let mut ids: Vec<u32> = entries.iter().map(|entry| entry.subject).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut firsts = vec![0u16; ids.len()];
        let mut places = Vec::with_capacity(entries.len());
        if ids.len() > 1 {
            for entry in entries {
                places.push(ids.binary_search(&entry.subject).expect("every subject was collected") as u32);
            }
            for (at, place) in places.iter().enumerate().rev() {
                firsts[*place as usize] = at as u16;
            }
        } else {
            places.resize(entries.len(), 0);
        }
        let all_bytes = entries.iter().map(|entry| u64::from(entry.size)).sum();
        Sealed {
            segment,
            first_seq,
            last_seq,
            seqs: (!is_dense).then(|| Packed::new(entries.iter().map(|entry| entry.seq))),
            times: Packed::new(entries.iter().map(|entry| entry.time_ns as u64)),
            starts: Packed::new(entries.chunks(GROUP).flat_map(starts).collect::<Vec<_>>().into_iter()),
            sizes: Packed::new(entries.iter().map(|entry| u64::from(entry.size))),
            subjects: Packed::new(places.iter().map(|place| u64::from(*place))),
            ids: Packed::new(ids.iter().map(|&id| u64::from(id))),
            firsts: firsts.into(),
            dead: None,
            fresh_dead_bytes: 0,
            live: entries.len() as u32,
            live_bytes: all_bytes,
            all_bytes,
        }
    }

    pub fn len(&self) -> usize {
        self.starts.len()
    }

    pub fn seq(&self, at: usize) -> u64 {
        match &self.seqs {
            None => self.first_seq + at as u64,
            Some(seqs) => seqs.get(at),
        }
    }

    pub fn time_ns(&self, at: usize) -> i64 {
        self.times.get(at) as i64
    }

    pub fn offset(&self, at: usize) -> u32 {
        let group = at / GROUP * GROUP;
        let before = self.sizes.sum_of(group..at) + (at - group) as u64 * u64::from(RECORD_BYTES_MORE);
        self.starts.get(at).wrapping_add(before) as u32
    }

    pub fn size(&self, at: usize) -> u32 {
        self.sizes.get(at) as u32
    }

    pub fn subject(&self, at: usize) -> u32 {
        self.ids.get(self.subjects.get(at) as usize) as u32
    }

    pub fn entry(&self, at: usize) -> Entry {
        Entry {
            seq: self.seq(at),
            time_ns: self.time_ns(at),
            offset: self.offset(at),
            size: self.size(at),
            subject: self.subject(at),
            previous: u32::MAX,
        }
    }

    /// The only subject here, if there is only one.
    pub fn only_subject(&self) -> Option<u32> {
        (self.ids.len() == 1).then(|| self.ids.get(0) as u32)
    }

    /// The place of the first message whose sequence is not below `seq`.
    pub fn lower_bound(&self, seq: u64) -> usize {
        match &self.seqs {
            None => seq.saturating_sub(self.first_seq).min(self.len() as u64) as usize,
            Some(seqs) => seqs.lower_bound(seq),
        }
    }

    /// The place of the message with this sequence, if it is here and was not removed.
    pub fn find(&self, seq: u64) -> Option<usize> {
        let at = self.lower_bound(seq);
        (at < self.len() && self.seq(at) == seq && self.is_live(at)).then_some(at)
    }

    pub fn is_live(&self, at: usize) -> bool {
        self.dead.as_ref().is_none_or(|dead| dead[at / 64] & 1 << (at % 64) == 0)
    }

    pub fn next_live(&self, from: usize) -> Option<usize> {
        let len = self.len();
        let Some(dead) = &self.dead else { return (from < len).then_some(from) };
        let mut at = from;
        while at < len {
            let live = !dead[at / 64] >> (at % 64);
            if live != 0 {
                at += live.trailing_zeros() as usize;
                return (at < len).then_some(at);
            }
            at = at / 64 * 64 + 64;
        }
        None
    }

    pub fn previous_live(&self, from: usize) -> Option<usize> {
        let mut end = (from + 1).min(self.len());
        let Some(dead) = &self.dead else { return end.checked_sub(1) };
        while end > 0 {
            let word = (end - 1) / 64;
            let live = !dead[word] << (63 - (end - 1) % 64);
            if live != 0 {
                return Some(end - 1 - live.leading_zeros() as usize);
            }
            end = word * 64;
        }
        None
    }

    /// Whether nothing between the first and the last was removed or left out.
    pub fn is_whole(&self) -> bool {
        self.seqs.is_none() && self.dead.is_none()
    }

    /// Where a subject stands among those of the segment.
    fn place_of(&self, subject: u32) -> Option<usize> {
        let place = self.ids.lower_bound(u64::from(subject));
        (place < self.ids.len() && self.ids.get(place) == u64::from(subject)).then_some(place)
    }

    pub fn next_of(&self, subject: u32, from: usize) -> Option<usize> {
        let place = self.place_of(subject)?;
        if self.ids.len() == 1 {
            return self.next_live(from);
        }
        let mut at = from.max(usize::from(self.firsts[place]));
        loop {
            at = self.subjects.find(place as u64, at)?;
            if self.is_live(at) {
                return Some(at);
            }
            at += 1;
        }
    }

    pub fn previous_of(&self, subject: u32, from: usize) -> Option<usize> {
        let place = self.place_of(subject)?;
        if self.ids.len() == 1 {
            return self.previous_live(from);
        }
        let first = usize::from(self.firsts[place]);
        let mut at = from;
        while at >= first {
            at = self.subjects.find_back(place as u64, at)?;
            if self.is_live(at) {
                return Some(at);
            }
            at = at.checked_sub(1)?;
        }
        None
    }

    /// The place of the first message that was received at `time_ns` or later.
    pub fn time_lower_bound(&self, time_ns: i64) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.time_ns(middle) < time_ns { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Marks a live message as removed.
    pub fn kill(&mut self, at: usize) {
        debug_assert!(self.is_live(at));
        let len = self.len();
        let dead = self.dead.get_or_insert_with(|| vec![0; len.div_ceil(64)].into());
        dead[at / 64] |= 1 << (at % 64);
        let size = u64::from(self.size(at));
        self.live -= 1;
        self.live_bytes -= size;
        self.fresh_dead_bytes += size;
    }

    /// Whether much was removed since that was last looked at: a quarter, or what is worth a look in any case.
    pub fn is_sparse(&self) -> bool {
        self.fresh_dead_bytes >= SPARSE_BYTES.min(self.all_bytes / 4)
    }

    /// Whether there was a message with this sequence, removed or not.
    pub fn has(&self, seq: u64) -> bool {
        let at = self.lower_bound(seq);
        at < self.len() && self.seq(at) == seq
    }

    /// Where records of removed messages lie side by side, with nothing else between: first and one past the last byte.
    pub fn dead_extents(&mut self, more: u32) -> Vec<(u64, u64)> {
        self.fresh_dead_bytes = 0;
        let mut extents: Vec<(u64, u64)> = Vec::new();
        for at in (0..self.len()).filter(|&at| !self.is_live(at)) {
            let start = u64::from(self.offset(at));
            let end = start + u64::from(self.size(at)) + u64::from(more);
            match extents.last_mut() {
                Some((_, last)) if *last == start => *last = end,
                _ => extents.push((start, end)),
            }
        }
        extents
    }

    /// Writes what [`read`](Self::read) reads. What was removed since sealing does not show in it.
    pub fn write(&self, subjects: &Subjects, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.first_seq.to_le_bytes());
        out.extend_from_slice(&self.last_seq.to_le_bytes());
        out.extend_from_slice(&(self.ids.len() as u32).to_le_bytes());
        for id in self.ids.iter() {
            let name = &*subjects.get(id as u32).name;
            out.extend_from_slice(&(id as u32).to_le_bytes());
            out.extend_from_slice(&(name.len() as u16).to_le_bytes());
            out.extend_from_slice(name);
        }
        out.push(u8::from(self.seqs.is_some()));
        if let Some(seqs) = &self.seqs {
            seqs.write(out);
        }
        for numbers in [&self.times, &self.starts, &self.sizes, &self.subjects, &self.ids] {
            numbers.write(out);
        }
    }

    /// Reads what [`write`](Self::write) wrote, goes on behind it, and counts the messages in at their subjects. `None`, and
    /// nothing counted, if it is not that: nothing in it is trusted because its checksum is right.
    pub fn read(segment: u64, bytes: &mut &[u8], subjects: &mut Subjects) -> Option<Sealed> {
        let (first_seq, last_seq) = (read_u64(bytes)?, read_u64(bytes)?);
        let count = read_u32(bytes)? as usize;
        if count == 0 || count > SEGMENT_MESSAGES_MAX {
            return None;
        }
        let mut names: Vec<(u32, &[u8])> = Vec::with_capacity(count);
        for _ in 0..count {
            let id = read_u32(bytes)?;
            let len = usize::from(u16::from_le_bytes(read_chunk(bytes)?));
            names.push((id, bytes.split_off(..len)?));
        }
        let seqs = match bytes.split_off_first()? {
            0 => None,
            1 => Some(Packed::read(bytes)?),
            _ => return None,
        };
        let (times, starts) = (Packed::read(bytes)?, Packed::read(bytes)?);
        let (sizes, places) = (Packed::read(bytes)?, Packed::read(bytes)?);
        let len = starts.len();
        let is_right = (1..=SEGMENT_MESSAGES_MAX).contains(&len)
            && [&times, &sizes, &places].iter().all(|numbers| numbers.len() == len)
            && last_seq < u64::MAX
            && match &seqs {
                None => last_seq.checked_sub(first_seq) == Some(len as u64 - 1),
                Some(seqs) => {
                    seqs.len() == len
                        && seqs.get(0) == first_seq
                        && seqs.get(len - 1) == last_seq
                        && seqs.iter().zip(seqs.iter().skip(1)).all(|(seq, next)| seq < next)
                }
            }
            && starts.upper_bound() <= u64::from(u32::MAX)
            && sizes.upper_bound() <= u64::from(u32::MAX);
        if !is_right {
            return None;
        }
        let mut counts = vec![0u32; count];
        let mut firsts = vec![0u16; count];
        let mut lasts = vec![0u16; count];
        if count == 1 {
            if places.upper_bound() != 0 {
                return None;
            }
            (counts[0], lasts[0]) = (len as u32, (len - 1) as u16);
        } else {
            for (at, place) in places.iter().enumerate() {
                let place = place as usize;
                let count = counts.get_mut(place)?;
                if *count == 0 {
                    firsts[place] = at as u16;
                }
                *count += 1;
                lasts[place] = at as u16;
            }
        }
        if counts.contains(&0) {
            return None;
        }
        let mut ids: Vec<u32> =
            names.iter().map(|(id, name)| subjects.find_or_insert_at(*id, name)).collect();
        let mut order: Vec<u32> = Vec::new();
        if !ids.is_sorted() {
            order.extend(0..count as u32);
            order.sort_unstable_by_key(|&place| ids[place as usize]);
        }
        let at_rank = |rank: usize| order.get(rank).map_or(ids[rank], |&place| ids[place as usize]);
        if (1..count).any(|rank| at_rank(rank - 1) == at_rank(rank)) {
            // A subject is there twice.
            for id in ids {
                if subjects.get(id).messages == 0 && !subjects.get(id).is_free() {
                    subjects.remove(id);
                }
            }
            return None;
        }
        let seq_at =
            |at: u16| seqs.as_ref().map_or(first_seq + u64::from(at), |seqs| seqs.get(usize::from(at)));
        for (place, id) in ids.iter().enumerate() {
            let subject = subjects.get_mut(*id);
            if subject.messages == 0 {
                subject.first_from.set(seq_at(firsts[place]));
            }
            subject.messages += u64::from(counts[place]);
            subject.last_seq = subject.last_seq.max(seq_at(lasts[place]));
        }
        let mut subjects_of = places;
        if !order.is_empty() {
            // Some numbers are others than when it was written: the places in their new order.
            let mut new_place = vec![0u32; count];
            for (new, &old) in order.iter().enumerate() {
                new_place[old as usize] = new as u32;
            }
            subjects_of = Packed::new(subjects_of.iter().map(|place| u64::from(new_place[place as usize])));
            ids = order.iter().map(|&old| ids[old as usize]).collect();
            firsts = order.iter().map(|&old| firsts[old as usize]).collect();
        }
        Some(Sealed {
            segment,
            first_seq,
            last_seq,
            live: len as u32,
            live_bytes: sizes.sum(),
            all_bytes: sizes.sum(),
            seqs,
            times,
            starts,
            sizes,
            subjects: subjects_of,
            ids: Packed::new(ids.iter().map(|&id| u64::from(id))),
            firsts: firsts.into(),
            dead: None,
            fresh_dead_bytes: 0,
        })
    }
}

/// What [`Sealed::starts`] says of the messages of one group.
fn starts(group: &[Entry]) -> impl Iterator<Item = u64> {
    let mut before = 0;
    group.iter().map(move |entry| {
        // In a memory store there are no offsets.
        let start = u64::from(entry.offset).saturating_sub(before);
        before += u64::from(entry.size + RECORD_BYTES_MORE);
        start
    })
}

pub(super) fn read_chunk<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (chunk, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*chunk)
}

pub(super) fn read_u32(bytes: &mut &[u8]) -> Option<u32> {
    read_chunk(bytes).map(u32::from_le_bytes)
}

pub(super) fn read_u64(bytes: &mut &[u8]) -> Option<u64> {
    read_chunk(bytes).map(u64::from_le_bytes)
}
