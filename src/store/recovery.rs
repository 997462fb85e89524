//! Opening a file store: what is in the directory, whatever happened to it.
//!
//! Sealed segments are known from the index at their end; the last one is read record by record, as is one whose index is
//! missing or damaged. The rules:
//!
//! * A commit that a crash cut off ends with its first record that is not whole: it was never acknowledged, and what
//!   came later in it may rest on what is lost.
//! * Whatever is wrong before the last commit is damage: the range is left out and reported, everything around it stays.
//! * Nothing is deleted because something else is missing. What cannot be used stays where it is and is reported.
//! * A version that is not known opens nothing and touches nothing.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use bytes::Bytes;

use super::cipher::{Cipher, Codec};
use super::file::{FileStore, Hold, Note, Segment, Settings, dropped_key, dropped_ranges};
use super::plan::{FileId, Files, Step};
use super::segment::{
    HEADER_BYTES, Header, HeaderError, Kind, Record, TRAILER_BYTES, Trailer, VERSION, belongs, find_record,
};
use super::segment_index::Summary;

/// How many bytes are summed up in vain, as a multiple of the file's length, to find records behind damage.
const SEARCH_FACTOR: usize = 64;
/// How many places a report names; the rest is counted.
const REPORTED_MAX: usize = 1000;

/// Why a store was not opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the texts name")]
pub enum OpenError {
    /// A file or the directory cannot be read or prepared.
    #[error("{file}: {source}")]
    Io { file: String, source: std::io::Error },
    /// Encrypted, and there is no key.
    #[error("{0} is encrypted, and no key is configured")]
    Encrypted(FileId),
    /// Not encrypted, and there is a key: what nobody has encrypted is not believed.
    #[error("{0} is not encrypted, and a key is configured")]
    Plain(FileId),
    /// Written by a later version.
    #[error(
        "{file} has format version {version}, this is version {VERSION}: open it with the version that wrote it"
    )]
    UnknownVersion { file: FileId, version: u32 },
}

/// What opening a store found that is not as it should be. Empty after every orderly stop.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments in use.
    pub segments: usize,
    /// Segments that were read record by record; the last one always is if it was not sealed.
    pub scanned: Vec<FileId>,
    /// The end of a commit that a crash cut off, never acknowledged: file and range.
    pub torn: Vec<(FileId, Range<u64>)>,
    /// Ranges of files that cannot be read.
    pub damaged: Vec<(FileId, Range<u64>)>,
    /// Sequences that lie in damaged ranges or missing files and were not deleted otherwise, as far as that is known.
    pub lost: Vec<RangeInclusive<u64>>,
    /// Files that cannot be used and stay where they are, with the reason.
    pub quarantined: Vec<(FileId, String)>,
    /// Segments that should be there, by number.
    pub missing: Vec<RangeInclusive<u64>>,
    /// Files whose writing was never finished, kept under names of their own: nothing in them was ever acknowledged.
    pub left_over: Vec<FileId>,
    /// Names in the directory that are not the store's.
    pub unknown: Vec<String>,
    /// There was no segment at all: the store is as new.
    pub was_empty: bool,
    /// How much more there would be to name.
    pub unnamed: usize,
}

impl RecoveryReport {
    /// Whether something that was stored may be lost.
    pub fn is_damaged(&self) -> bool {
        !(self.damaged.is_empty()
            && self.lost.is_empty()
            && self.quarantined.is_empty()
            && self.missing.is_empty()
            && !self.was_empty)
    }
}

/// A segment file that can be used.
struct Found {
    file: FileId,
    header: Header,
    len: u64,
    /// Both copies of the header are damaged: what it said about other segments is not known.
    is_salvaged: bool,
    /// How its records are read.
    codec: Codec,
}

/// A range of a file.
type Extent = (FileId, Range<u64>);

/// What is known on the way.
#[derive(Default)]
struct Findings {
    report: RecoveryReport,
    /// Every message below is gone for a reason.
    first_seq: u64,
    /// Damage since the last message: file and range.
    fresh: Vec<Extent>,
    /// Damage, and the sequences that are missing around it, if any.
    damage: Vec<(Vec<Extent>, Option<RangeInclusive<u64>>)>,
    /// Messages that records remove though they were not found, once there is damage: they are no loss.
    removed: Vec<(u64, u64)>,
    /// Sequences that were in segments which are not there: between which numbers, and which.
    gaps: Vec<(Range<u64>, RangeInclusive<u64>)>,
}

impl Findings {
    fn damaged(&mut self, file: FileId, range: Range<usize>) {
        self.fresh.push((file, range.start as u64..range.end as u64));
    }

    /// The next sequence that is found is `found`, where `known` would have followed.
    fn resume(&mut self, known: u64, found: u64) {
        if !self.fresh.is_empty() && known.max(1) < found {
            let fresh = std::mem::take(&mut self.fresh);
            self.damage.push((fresh, Some(known.max(1)..=found - 1)));
        }
    }

    /// Damage so far has nothing to do with what follows.
    fn end_damage(&mut self) {
        if !self.fresh.is_empty() {
            self.damage.push((std::mem::take(&mut self.fresh), None));
        }
    }

    fn removed_unknown(&mut self, first: u64, last: u64) {
        if !(self.fresh.is_empty() && self.damage.is_empty() && self.gaps.is_empty()) {
            self.removed.push((first, last));
        }
    }

    /// The report. What was removed as well is not lost: the overwriting of a removed message may have been cut off.
    fn finish(mut self) -> RecoveryReport {
        self.end_damage();
        self.removed.push((0, self.first_seq.max(1) - 1));
        self.removed.sort_unstable();
        for (places, missing) in std::mem::take(&mut self.damage) {
            let lost = missing.clone().map_or(Vec::new(), |missing| subtract(missing, &self.removed));
            if missing.is_some() && lost.is_empty() {
                continue;
            }
            for place in places {
                push_reported(&mut self.report.damaged, place, &mut self.report.unnamed);
            }
            for range in lost {
                push_reported(&mut self.report.lost, range, &mut self.report.unnamed);
            }
        }
        for range in std::mem::take(&mut self.report.lost) {
            for range in subtract(range, &self.removed) {
                push_reported(&mut self.report.lost, range, &mut self.report.unnamed);
            }
        }
        self.report.lost.sort_unstable_by_key(|range| *range.start());
        self.report
    }
}

/// What is left of a range without others, which are sorted.
fn subtract(range: RangeInclusive<u64>, others: &[(u64, u64)]) -> Vec<RangeInclusive<u64>> {
    let (mut from, end) = range.into_inner();
    let mut left = Vec::new();
    for &(first, last) in others {
        if last < from || first > end {
            continue;
        }
        if first > from {
            left.push(from..=first - 1);
        }
        from = from.max(last.saturating_add(1));
    }
    if from <= end {
        left.push(from..=end);
    }
    left
}

impl FileStore {
    /// Opens what is in the directory. `settings.stream_salt` is used only where nothing else tells it.
    pub fn open(
        files: &mut impl Files,
        settings: Settings,
    ) -> Result<(FileStore, RecoveryReport), OpenError> {
        let mut findings = Findings::default();
        let FoundSegments { found, last_number, superseded } =
            find_segments(files, &settings, &mut findings.report)?;
        let mut store = FileStore::empty(settings);
        if let Some(first) = found.first() {
            store.settings.stream_salt = first.header.stream_salt;
        }
        let mut open_end = None;
        let mut previous = None;
        for (at, segment) in found.iter().enumerate() {
            store.enter_segment(segment, previous, &mut findings);
            open_end = store.recover_segment(files, segment, found.get(at + 1), &mut findings)?;
            previous = Some(segment.header.segment);
        }
        report_missing(&store, &found, &mut findings);
        store.forget_superfluous_notes();
        if let Some(last) = found.last() {
            // What was found may not be synced yet, and later commits will say that it is.
            perform(files, &Step::SyncData { file: last.file })?;
            perform(files, &Step::SyncDirectory)?;
        }
        match (open_end, found.last()) {
            (Some(end), Some(last)) if last.file.segment == last_number && !last.is_salvaged => {
                heal_header(files, last)?;
                store.continue_segment(last.file.segment, end);
            }
            _ => {
                // The open segment is sealed, ends in something torn, or cannot be used.
                findings.report.was_empty = found.is_empty() && findings.report.quarantined.is_empty();
                if open_end.is_some() {
                    store.seal_recovered();
                }
                store.begin_segment(last_number + 1);
                let commit = store.take_commit().expect("a new segment has a header to write");
                for step in &commit.steps {
                    perform(files, step)?;
                }
                let _ = store.finish_commit(Ok(()));
            }
        }
        // A crash came between a rewritten segment and the removal of the file before.
        store.doomed.extend(superseded.into_iter().map(|file| (0, file)));
        for segment in store.emptied.clone() {
            store.consider_emptied(segment);
        }
        findings.report.segments = store.segments.len();
        store.mark_recovered();
        Ok((store, findings.finish()))
    }

    /// The segment begins: what its header says about everything before.
    fn enter_segment(&mut self, segment: &Found, previous: Option<u64>, findings: &mut Findings) {
        let header = &segment.header;
        let known = self.index.next_seq();
        // A file between is missing or cannot be used, or the end of the one before is damaged.
        if previous.unwrap_or(0) != header.previous && known.max(1) < header.next_seq {
            let numbers = previous.map_or(0..1, |previous| previous + 1..header.segment);
            findings.gaps.push((numbers, known.max(1)..=header.next_seq - 1));
        }
        findings.resume(known, header.next_seq);
        findings.end_damage();
        if segment.is_salvaged {
            findings.damaged(segment.file, 0..HEADER_BYTES);
        }
        self.recover_state(header.first_seq, header.next_seq, header.last_time_ns, findings);
        self.open_segment = header.segment;
        self.end = HEADER_BYTES as u32;
        self.segments.insert(
            header.segment,
            Segment {
                file: segment.file,
                end: self.end,
                allocated: segment.len,
                base_seq: header.next_seq.max(known),
                removed: Vec::new(),
                holds: BTreeMap::new(),
                holes: 0,
                is_empty: false,
                has_index: false,
                cipher: header.cipher,
            },
        );
    }

    fn recover_state(&mut self, first_seq: u64, next_seq: u64, last_time_ns: i64, findings: &mut Findings) {
        if first_seq > 0 {
            self.index.remove_up_to(first_seq);
            findings.first_seq = findings.first_seq.max(first_seq);
        }
        if next_seq < u64::MAX {
            self.index.skip_to(next_seq);
        }
        if last_time_ns != 0 {
            self.index.set_last_time_ns(last_time_ns);
        }
    }

    /// Nothing is added to the segment that was read last.
    fn seal_recovered(&mut self) {
        if self.index.seal(self.open_segment).is_none() {
            self.emptied.push(self.open_segment);
        }
    }

    /// Takes a segment's content into the indexes. `Some`: it is not sealed, and records can follow at that place.
    fn recover_segment(
        &mut self,
        files: &mut impl Files,
        segment: &Found,
        next: Option<&Found>,
        findings: &mut Findings,
    ) -> Result<Option<u32>, OpenError> {
        // Only what the next segment knows to be complete: without one, the index may have reached the disk and records
        // before it not; and where a crash cut records off, the index behind them counts them still.
        let records_end = next.filter(|next| next.header.previous == segment.header.segment);
        let records_end = records_end.filter(|next| !next.is_salvaged).map(|next| next.header.previous_end);
        // One that was rewritten has another length, and had all of it on the disk when it got its name.
        let records_end = records_end.filter(|_| segment.file.generation == 0);
        if next.is_some() && self.load_sealed(files, segment, records_end, findings)? {
            return Ok(None);
        }
        push_reported(&mut findings.report.scanned, segment.file, &mut findings.report.unnamed);
        let limit = records_end.map(|end| end as usize);
        let end = self.scan_segment(files, segment, limit, next.is_some(), findings)?;
        if end.is_none() || next.is_some() {
            self.seal_recovered();
            return Ok(None);
        }
        Ok(end)
    }

    /// A sealed segment from its index. False if there is none that is believed; nothing of it is taken in then.
    fn load_sealed(
        &mut self,
        files: &mut impl Files,
        segment: &Found,
        records_end: Option<u32>,
        findings: &mut Findings,
    ) -> Result<bool, OpenError> {
        let Found { file, header, len, codec, .. } = segment;
        let mut scratch = Vec::new();
        let Some(trailer_at) = len.checked_sub(TRAILER_BYTES as u64) else { return Ok(false) };
        let trailer = read(files, *file, trailer_at, TRAILER_BYTES)?;
        let Some(trailer) = Trailer::decode(header.salt(), &trailer, *len) else { return Ok(false) };
        if records_end.is_some_and(|end| end != trailer.index_offset) {
            return Ok(false);
        }
        let bytes = read(files, *file, u64::from(trailer.index_offset), trailer.index_len as usize)?;
        let Some((record, _)) = codec.decode(&bytes, &mut scratch) else { return Ok(false) };
        if record.kind != Kind::Index {
            return Ok(false);
        }
        let Some((summary, messages)) = Summary::read(record.payload) else { return Ok(false) };
        let number = header.segment;
        let Some(removed) = summary.apply(number, messages, &mut self.index) else { return Ok(false) };
        let holds: BTreeMap<u64, Hold> = removed
            .into_iter()
            .filter_map(|(segment, count)| {
                let generation = self.segments.get(&segment)?.file.generation;
                Some((segment, Hold { generation, count }))
            })
            .collect();
        findings.first_seq = findings.first_seq.max(summary.first_seq);
        findings.end_damage();
        for (first, last) in &summary.removed {
            findings.removed_unknown(*first, *last);
        }
        for (key, value) in &summary.notes {
            self.take_note(key, *value, number);
        }
        let known = self.segments.get_mut(&number).expect("the segment was entered");
        known.holds = holds;
        known.has_index = true;
        known.is_empty = messages.is_none();
        known.end = trailer.index_offset;
        self.end = trailer.index_offset;
        if messages.is_none() {
            self.emptied.push(number);
        }
        Ok(true)
    }

    /// Reads a segment record by record. `Some`: records may follow there; `None`: nothing is to be added to it.
    ///
    /// `limit` is where its records ended when the next segment was begun, if that is known; `has_next`: there is one, so
    /// that all of this one was synced.
    fn scan_segment(
        &mut self,
        files: &mut impl Files,
        segment: &Found,
        limit: Option<usize>,
        has_next: bool,
        findings: &mut Findings,
    ) -> Result<Option<u32>, OpenError> {
        let (file, salt, codec) = (segment.file, segment.codec.salt, &segment.codec);
        let mut scratch = Vec::new();
        let mut bytes = read(files, file, 0, usize::try_from(segment.len).unwrap_or(usize::MAX))?;
        bytes.truncate(limit.unwrap_or(bytes.len()).min(u32::MAX as usize));
        let mut budget = bytes.len().saturating_mul(SEARCH_FACTOR);
        bytes.resize(bytes.len().max(HEADER_BYTES), 0);
        let mut at = HEADER_BYTES;
        loop {
            let mut is_index = false;
            while let Some((record, len)) = codec.decode(&bytes[at..], &mut scratch)
                && !is_index
            {
                is_index = record.kind == Kind::Index;
                if !is_index {
                    self.apply_record(segment, at, &record, len, findings);
                    at += len;
                }
            }
            self.end = at as u32;
            self.segments.get_mut(&segment.header.segment).expect("the segment was entered").end = at as u32;
            if is_index {
                return Ok(None);
            }
            if is_zero(&bytes[at..]) && limit.is_none_or(|limit| at >= limit) {
                return Ok((!has_next).then_some(at as u32));
            }
            match find_record(salt, &bytes, at + 1, &mut budget) {
                Some(next) if has_next || is_synced_before(salt, &bytes, next, at, &mut budget) => {
                    findings.damaged(file, at..next);
                    at = next;
                }
                // Only damage is left of what was synced before there was a next segment.
                _ if has_next => {
                    findings.damaged(file, at..limit.unwrap_or(bytes.len()));
                    return Ok(None);
                }
                _ => {
                    findings.report.torn.push((file, at as u64..segment.len));
                    cut_torn_tail(files, file, &bytes, at)?;
                    self.segments
                        .get_mut(&segment.header.segment)
                        .expect("the segment was entered")
                        .allocated = at as u64;
                    return Ok(Some(at as u32));
                }
            }
        }
    }

    fn apply_record(
        &mut self,
        segment: &Found,
        at: usize,
        record: &Record<'_>,
        len: usize,
        findings: &mut Findings,
    ) {
        let number = segment.header.segment;
        match record.kind {
            Kind::Message => {
                // A sequence that was given before is not believed, nor one message more than a segment has.
                let known = self.index.next_seq();
                if record.seq < known.max(1) || record.seq == u64::MAX || self.index.is_open_full() {
                    return findings.damaged(segment.file, at..at + len);
                }
                findings.resume(known, record.seq);
                let size = len as u32 - segment.codec.more();
                self.index.append(record.seq, record.time_ns, record.subject, at as u32, size);
            }
            Kind::Remove => {
                let holder = self.holder_of(record.seq);
                if self.index.remove(record.seq).is_none() {
                    findings.removed_unknown(record.seq, record.seq);
                    if record.seq < u64::MAX {
                        findings.resume(self.index.next_seq(), record.seq + 1);
                        self.index.skip_to(record.seq + 1);
                    }
                }
                self.segments
                    .get_mut(&number)
                    .expect("the segment was entered")
                    .record_removed(record.seq, holder);
            }
            Kind::State => {
                let next_seq = record.payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                findings.resume(self.index.next_seq(), next_seq);
                self.recover_state(record.seq, next_seq, record.time_ns, findings);
            }
            Kind::Note => self.take_note(record.subject, Some(record.payload), number),
            Kind::Forget => self.take_note(record.subject, None, number),
            Kind::Erased => {
                findings.resume(self.index.next_seq(), record.seq);
                if record.seq < u64::MAX && self.index.skip_to(record.seq + 1) {
                    self.index.set_last_time_ns(record.time_ns);
                }
            }
            Kind::Index | Kind::Sealed => {}
        }
    }

    fn take_note(&mut self, key: &[u8], value: Option<&[u8]>, segment: u64) {
        self.notes.insert(key.into(), Note { value: value.map(Box::from), segment, position: 0 });
    }

    /// Notes that say something about segments older than all there are.
    fn forget_superfluous_notes(&mut self) {
        let Some(first) = self.segments.keys().next().copied() else { return };
        let end = dropped_key(first);
        let ranges: BTreeMap<u64, u64> = dropped_ranges(&self.notes).into_iter().collect();
        let is_superfluous = |key: &[u8]| {
            key.len() == end.len()
                && key[0] == end[0]
                && key[1..].first_chunk().is_none_or(|number| {
                    ranges.get(&u64::from_be_bytes(*number)).is_some_and(|last| *last < first)
                })
        };
        self.notes.retain(|key, note| (note.value.is_some() || note.segment > first) && !is_superfluous(key));
    }
}

/// The segment files of a directory.
struct FoundSegments {
    /// Those that can be used, in order.
    found: Vec<Found>,
    /// The highest number that any file has.
    last_number: u64,
    /// Files that were rewritten.
    superseded: Vec<FileId>,
}

fn find_segments(
    files: &mut impl Files,
    settings: &Settings,
    report: &mut RecoveryReport,
) -> Result<FoundSegments, OpenError> {
    let names = files.list().map_err(|source| OpenError::Io { file: "directory".into(), source })?;
    let mut ids = Vec::new();
    for name in names {
        match FileId::parse(&name) {
            Some(id) if id.segment < u64::MAX => ids.push(id),
            _ => push_reported(&mut report.unknown, name, &mut report.unnamed),
        }
    }
    ids.sort_unstable();
    report.unknown.sort_unstable();
    let mut headers = Vec::with_capacity(ids.len());
    for file in ids {
        let len = files.len(file).map_err(|source| OpenError::Io { file: file.to_string(), source })?;
        let header = Header::decode(&read(files, file, 0, HEADER_BYTES)?);
        match header {
            Err(HeaderError::UnknownVersion(version)) => {
                return Err(OpenError::UnknownVersion { file, version });
            }
            Ok(header) if header.cipher.is_some() && settings.encryption.is_none() => {
                return Err(OpenError::Encrypted(file));
            }
            Ok(header) if header.cipher.is_none() && settings.encryption.is_some() => {
                return Err(OpenError::Plain(file));
            }
            _ => {}
        }
        headers.push((file, len, header));
    }
    let right =
        headers.iter().find_map(|(file, _, header)| header.ok().filter(|header| belongs(header, *file)));
    let stream_salt = right.map_or(settings.stream_salt, |header| header.stream_salt);
    let cipher = settings.encryption.as_ref().map(|encryption| encryption.cipher);
    let mut found: Vec<Found> = Vec::new();
    let mut last_number = 0;
    let mut superseded = Vec::new();
    for (at, &(file, len, header)) in headers.iter().enumerate() {
        // A segment that was being rewritten: the file before is in use, and has all that is in this one.
        let has_other = |other: &FileId| other.segment == file.segment && !other.unfinished;
        if file.unfinished && file.generation > 0 && headers.iter().any(|(other, ..)| has_other(other)) {
            perform(files, &Step::Remove { file })?;
            perform(files, &Step::SyncDirectory)?;
            continue;
        }
        if file.unfinished {
            push_reported(&mut report.left_over, file, &mut report.unnamed);
            continue;
        }
        let header = match header {
            Ok(header) if !belongs(&header, file) => Err("it is a copy of another segment"),
            Ok(header) if header.stream_salt != stream_salt => Err("it is of another stream"),
            Ok(header) => Ok((header, false)),
            Err(_) => {
                // The next one's header says whether this one belonged to the stream.
                let later = headers[at + 1..].iter().filter(|(file, _, _)| !file.unfinished);
                let next = later.filter_map(|(_, _, header)| header.ok()).next();
                let was_synced = next.map(|next| next.previous >= file.segment);
                match salvage_header(files, file, len, (stream_salt, cipher), was_synced)? {
                    Salvage::Header(header) => Ok((header, true)),
                    Salvage::Unfinished { is_empty } => {
                        // Kept under another name: this one is given again, and must not come back.
                        if !is_empty {
                            report.torn.push((file, 0..len));
                            perform(
                                files,
                                &Step::Rename { from: file, to: FileId { unfinished: true, ..file } },
                            )?;
                            perform(files, &Step::SyncDirectory)?;
                        }
                        continue;
                    }
                    Salvage::Nothing => Err("its header is damaged, and no record was found"),
                }
            }
        };
        last_number = file.segment;
        match header {
            Ok((header, is_salvaged)) => {
                // The one that was rewritten later holds.
                let before = found.pop_if(|before| before.file.segment == file.segment);
                superseded.extend(before.filter(|_| !is_salvaged).map(|before| before.file));
                let codec = Codec::of(stream_salt, file, header.cipher, settings.encryption.as_ref());
                let codec = codec.expect("it was looked at whether there is a secret");
                found.push(Found { file, header, len, is_salvaged, codec });
            }
            Err(reason) => quarantine(file, reason, report),
        }
    }
    Ok(FoundSegments { found, last_number, superseded })
}

/// Makes both copies of a header whole again. The good one is overwritten with what it is.
fn heal_header(files: &mut impl Files, segment: &Found) -> Result<(), OpenError> {
    let header = segment.header.encode();
    if read(files, segment.file, 0, HEADER_BYTES)? != header {
        perform(files, &Step::Write { file: segment.file, offset: 0, buffers: vec![header.into()] })?;
        perform(files, &Step::SyncData { file: segment.file })?;
    }
    Ok(())
}

enum Salvage {
    /// The file was in use: what its header would be as far as that matters to its records.
    Header(Header),
    /// The machine stopped before the first sync of the segment: nothing of it was acknowledged. Without a record in it
    /// the file can be used again.
    Unfinished {
        is_empty: bool,
    },
    Nothing,
}

/// What can be made of a file that has no header (any more). `was_synced`: whether a later segment continues it; `None`:
/// there is no later segment.
fn salvage_header(
    files: &mut impl Files,
    file: FileId,
    len: u64,
    (stream_salt, cipher): (u64, Option<Cipher>),
    was_synced: Option<bool>,
) -> Result<Salvage, OpenError> {
    let header = Header {
        segment: file.segment,
        generation: file.generation,
        stream_salt,
        next_seq: 0,
        first_seq: 0,
        last_time_ns: 0,
        previous: 0,
        previous_end: 0,
        cipher,
    };
    let bytes = read(files, file, 0, usize::try_from(len).unwrap_or(usize::MAX))?;
    let mut budget = bytes.len().saturating_mul(SEARCH_FACTOR);
    let salt = header.salt();
    let first = find_record(salt, &bytes, HEADER_BYTES.min(bytes.len()), &mut budget);
    Ok(match (first, was_synced) {
        (Some(_), Some(true)) => Salvage::Header(header),
        (None, Some(true)) => Salvage::Nothing,
        (_, Some(false)) => Salvage::Nothing,
        (Some(first), None) if is_synced_before(salt, &bytes, first, 0, &mut budget) => {
            Salvage::Header(header)
        }
        (first, None) => Salvage::Unfinished { is_empty: first.is_none() },
    })
}

/// Whether a whole record at or after `next` says that what lies at `at` had been synced when it was written.
fn is_synced_before(salt: u32, bytes: &[u8], next: usize, at: usize, budget: &mut usize) -> bool {
    let mut next = Some(next);
    while let Some(mut from) = next {
        while let Some((record, len)) = Record::decode(salt, &bytes[from..]) {
            if record.batch as usize > at
                && record.batch as usize >= HEADER_BYTES
                && record.batch as usize <= from
            {
                return true;
            }
            from += len;
        }
        next = find_record(salt, bytes, from + 1, budget);
    }
    false
}

fn quarantine(file: FileId, reason: &str, report: &mut RecoveryReport) {
    push_reported(&mut report.quarantined, (file, reason.into()), &mut report.unnamed);
}

fn push_reported<T>(list: &mut Vec<T>, item: T, unnamed: &mut usize) {
    if list.len() < REPORTED_MAX { list.push(item) } else { *unnamed += 1 }
}

/// Segments between others that are not there though nothing says that they were removed.
fn report_missing(store: &FileStore, found: &[Found], findings: &mut Findings) {
    let dropped = dropped_ranges(&store.notes);
    let was_dropped = |number: u64| dropped.iter().any(|(first, last)| (*first..=*last).contains(&number));
    let report = &mut findings.report;
    for (before, segment) in found.iter().zip(found.iter().skip(1)) {
        if segment.header.next_seq <= findings.first_seq {
            // Whatever was before is gone; of several files removed at once, some may be back.
            continue;
        }
        // What its header does not know never was part of the stream.
        for missing in (before.file.segment + 1..=segment.header.previous).take(REPORTED_MAX) {
            let is_quarantined = report.quarantined.iter().any(|(file, _)| file.segment == missing);
            if !was_dropped(missing) && !is_quarantined {
                push_reported(&mut report.missing, missing..=missing, &mut report.unnamed);
            }
        }
    }
    for (numbers, lost) in std::mem::take(&mut findings.gaps) {
        if !numbers.take(REPORTED_MAX).all(was_dropped) {
            push_reported(&mut report.lost, lost, &mut report.unnamed);
        }
    }
}

/// Takes the rest of a commit that was cut off out of the segment, so that it ends with its last whole record. What was
/// there is kept in a file of its own: should it be the last commit of a stream that was damaged at rest, somebody can
/// still look at it.
fn cut_torn_tail(files: &mut impl Files, file: FileId, bytes: &[u8], at: usize) -> Result<(), OpenError> {
    let copy = FileId { unfinished: true, ..file };
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(at, |last| last + 1);
    perform(files, &Step::Create { file: copy })?;
    let tail = Bytes::copy_from_slice(&bytes[at..end]);
    perform(files, &Step::Write { file: copy, offset: at as u64, buffers: vec![tail] })?;
    perform(files, &Step::SyncData { file: copy })?;
    perform(files, &Step::SyncDirectory)?;
    perform(files, &Step::Truncate { file, length: at as u64 })?;
    perform(files, &Step::SyncData { file })
}

fn is_zero(bytes: &[u8]) -> bool {
    // Compared in blocks: that is compiled to a few vector instructions each.
    bytes.chunks(4096).all(|block| *block == [0; 4096][..block.len()])
}

fn read(files: &mut impl Files, file: FileId, offset: u64, len: usize) -> Result<Vec<u8>, OpenError> {
    let io = |source| OpenError::Io { file: file.to_string(), source };
    let rest = files.len(file).map_err(io)?.saturating_sub(offset);
    let mut bytes = vec![0; len.min(usize::try_from(rest).unwrap_or(usize::MAX))];
    let count = files.read_at(file, offset, &mut bytes).map_err(io)?;
    bytes.truncate(count);
    Ok(bytes)
}

fn perform(files: &mut impl Files, step: &Step) -> Result<(), OpenError> {
    files.perform(step).map_err(|source| OpenError::Io { file: format!("{step:?}"), source })
}
