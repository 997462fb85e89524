//! What is in a backup: bytes in, one thing after the other out, whichever of the two formats it has.
//!
//! Bytes are pushed as they come and looked at a block of the compression at a time. A thing is given out when it is whole; until
//! then its bytes are kept, within bounds.

use std::ops::Range;

use data_encoding::HEXLOWER;
use serde::Deserialize;

use super::archive::{self, CONSUMERS, Entry, MAGIC, STATE};
use super::classic::{self, Index, Record, Sums};
use super::consumers::{self, Found};
use super::s2;
use super::tar::{self, BLOCK_BYTES, Kind};
use super::{BackupError, PART_BYTES_MAX};
use crate::store::Message;

/// The longest list of properties before a file.
const PROPERTIES_BYTES_MAX: u64 = 64 << 10;
/// The longest text with what went wrong when the backup was made.
const ERRORS_BYTES_MAX: u64 = 64 << 10;
/// Sequences beyond are not believed.
pub const SEQ_MAX: u64 = u64::MAX / 2;

/// What a backup says of its stream's messages before they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Outline {
    /// What they count for.
    pub bytes: u64,
    /// The first sequence.
    pub first_seq: u64,
    /// The last one, whether there is still a message or not.
    pub last_seq: u64,
    /// How many consumers follow.
    pub consumer_count: u64,
}

/// One thing in a backup.
#[derive(Debug, PartialEq)]
pub enum Item<'a> {
    /// What follows.
    Outline(Outline),
    /// When the stream was created.
    Created(i64),
    /// A consumer.
    Consumer(Box<Found>),
    /// A message, after all that were before it in the stream.
    Message(Message<'a>),
    /// A message that came before is gone.
    Removed(u64),
    /// What the stream had known of its messages.
    Index(Index),
    /// There is nothing more.
    End,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Reader {
    stream: String,
    account: String,
    payload_max: u64,
    message_max: Option<u64>,
    compressed: s2::Decoder,
    /// What came out of it.
    data: Vec<u8>,
    /// What of it was read.
    at: usize,
    is_ended: bool,
    format: Format,
}

#[derive(Debug)]
enum Format {
    Unknown,
    /// How many consumers are still to come; `None` before the state.
    Archive(Option<u64>),
    Tar(Box<Tar>),
    Over,
}

#[derive(Debug, Default)]
struct Tar {
    name: Option<Vec<u8>>,
    len: Option<u64>,
    file: Option<File>,
    /// What the checksum has to be that comes next.
    sum: Option<[u8; 8]>,
    /// The consumer whose state has not come.
    consumer: Option<Box<Found>>,
    has_metadata: bool,
}

#[derive(Debug, Clone)]
struct File {
    part: Part,
    /// Bytes that have not been read.
    left: u64,
    padding: u64,
}

/// What a file in a tar is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Metadata,
    Sum,
    Block(u32),
    Index,
    ConsumerMetadata(String),
    ConsumerSum,
    ConsumerState(String),
    Errors,
    Properties,
    LongName,
    /// Nothing that matters here.
    Other,
}

impl Part {
    /// How long it may be; `None`: it is not kept as a whole.
    fn len_max(&self) -> Option<u64> {
        match self {
            Part::Block(_) | Part::Other => None,
            Part::Properties | Part::LongName => Some(PROPERTIES_BYTES_MAX),
            Part::Errors => Some(ERRORS_BYTES_MAX),
            _ => Some(PART_BYTES_MAX as u64),
        }
    }

    fn of(name: &str) -> Option<Part> {
        let parts: Vec<&str> = name.split('/').collect();
        Some(match parts[..] {
            // It would lie outside of the stream's directory.
            _ if parts.iter().any(|part| part.is_empty() || *part == "..") => return None,
            ["meta.inf"] => Part::Metadata,
            ["meta.sum"] => Part::Sum,
            ["errors.txt"] => Part::Errors,
            ["msgs", "index.db"] => Part::Index,
            ["msgs", file] => match file.strip_suffix(".blk").and_then(|number| number.parse().ok()) {
                Some(number) => Part::Block(number),
                None => Part::Other,
            },
            ["obs", consumer, "meta.inf"] => Part::ConsumerMetadata(consumer.to_owned()),
            ["obs", _, "meta.sum"] => Part::ConsumerSum,
            ["obs", consumer, "o.dat"] => Part::ConsumerState(consumer.to_owned()),
            _ => Part::Other,
        })
    }
}

/// What was found, without borrowing.
enum Step {
    Item(Item<'static>),
    /// A message of the format before, which stands at this place.
    Record(Range<usize>, u32),
    /// A message of an archive: its name, header and payload.
    Entry {
        seq: u64,
        time_ns: i64,
        name: Range<usize>,
        header: Range<usize>,
        payload: Range<usize>,
    },
    Again,
    Starved,
}

impl Reader {
    /// Of a backup of this stream, whose messages are no longer than so many bytes, header and payload, by the server's
    /// limit and by the stream's own.
    pub fn new(stream: &str, account: &str, payload_max: u64, message_max: Option<u64>) -> Reader {
        Reader {
            stream: stream.to_owned(),
            account: account.to_owned(),
            payload_max,
            message_max,
            compressed: s2::Decoder::default(),
            data: Vec::new(),
            at: 0,
            is_ended: false,
            format: Format::Unknown,
        }
    }

    /// More of it.
    pub fn push(&mut self, bytes: &[u8]) {
        // What follows the end is no business of ours.
        if !matches!(self.format, Format::Over) {
            self.compressed.push(bytes);
        }
    }

    /// There is no more.
    pub fn end(&mut self) {
        self.is_ended = true;
    }

    /// The next thing in it; `None` if more bytes are needed. After [`Item::End`] there is nothing.
    ///
    /// # Errors
    ///
    /// It is no backup of this stream, or damaged.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, BackupError> {
        let step = loop {
            match self.step()? {
                Step::Again => {}
                Step::Starved => {
                    if self.at > 0 {
                        self.data.drain(..self.at);
                        self.at = 0;
                    }
                    if matches!(self.format, Format::Over) {
                        return Ok(None);
                    }
                    if self.compressed.step(&mut self.data)? {
                        continue;
                    }
                    if !self.is_ended {
                        return Ok(None);
                    }
                    if self.compressed.is_cut() {
                        return Err(s2::S2Error::Corrupt.into());
                    }
                    return Err(self.cut());
                }
                step => break step,
            }
        };
        Ok(Some(match step {
            Step::Item(item) => item,
            Step::Entry { seq, time_ns, name, header, payload } => Item::Message(Message {
                seq,
                time_ns,
                subject: &self.data[name],
                header: &self.data[header],
                payload: &self.data[payload],
            }),
            Step::Record(at, block) => {
                let sums = Sums::of_block(&self.stream, block);
                let record = classic::read_record(&self.data[at.clone()], at.len() as u64, &sums)?;
                match record.expect("it was read before").0 {
                    Record::Message { seq, time_ns, subject, header, payload } => {
                        Item::Message(Message { seq, time_ns, subject, header, payload })
                    }
                    Record::Removed { seq } => Item::Removed(seq),
                    Record::Erased => unreachable!("it is not given out"),
                }
            }
            Step::Again | Step::Starved => unreachable!("it goes on with them"),
        }))
    }

    /// It ended too early.
    fn cut(&self) -> BackupError {
        match &self.format {
            Format::Archive(_) if self.at < self.data.len() => BackupError::Archive,
            _ => BackupError::End,
        }
    }

    fn rest(&self) -> &[u8] {
        &self.data[self.at..]
    }

    fn step(&mut self) -> Result<Step, BackupError> {
        match self.format {
            Format::Unknown => {
                let Some(begin) = self.rest().first_chunk::<{ MAGIC.len() }>() else {
                    return Ok(Step::Starved);
                };
                if begin == MAGIC {
                    self.at += MAGIC.len();
                    self.format = Format::Archive(None);
                } else {
                    self.format = Format::Tar(Box::default());
                }
                Ok(Step::Again)
            }
            Format::Archive(consumers) => self.step_archive(consumers),
            Format::Tar(_) => self.step_tar(),
            Format::Over => Ok(Step::Starved),
        }
    }

    fn step_archive(&mut self, consumers: Option<u64>) -> Result<Step, BackupError> {
        let Some((entry, head_len)) = archive::read(&self.data[self.at..])? else { return Ok(Step::Starved) };
        let is_message = consumers == Some(0) && !entry.is_end();
        if is_message {
            self.check_message(&entry)?;
        } else if entry.content_len() > PART_BYTES_MAX as u64 {
            return Err(BackupError::TooLarge(String::from_utf8_lossy(entry.name).into_owned()));
        }
        let (header_len, content_len) = (entry.header_len as usize, entry.content_len() as usize);
        let Entry { name, time_ns, seq, .. } = entry;
        let start = self.at + head_len;
        let Some(content) = self.data.get(start..start + content_len) else { return Ok(Step::Starved) };
        let step = match consumers {
            None => {
                if name != STATE.as_bytes() {
                    return Err(BackupError::wrong("expected state.json first"));
                }
                let outline: Outline = serde_json::from_slice(content)
                    .map_err(|error| BackupError::Wrong(format!("error in state.json: {error}")))?;
                if outline.first_seq > SEQ_MAX || outline.last_seq > SEQ_MAX {
                    return Err(BackupError::wrong("error in state.json: sequences are too large"));
                }
                self.format = Format::Archive(Some(outline.consumer_count));
                Step::Item(Item::Outline(outline))
            }
            Some(0) if entry.is_end() => {
                self.format = Format::Over;
                Step::Item(Item::End)
            }
            Some(0) => Step::Entry {
                seq,
                time_ns,
                name: start - name.len()..start,
                header: start..start + header_len,
                payload: start + header_len..start + content_len,
            },
            Some(left) => {
                let name = String::from_utf8_lossy(name);
                let consumer = name
                    .strip_prefix(CONSUMERS)
                    .ok_or_else(|| BackupError::Wrong(format!("expected consumer, found {name:?}")))?;
                let found = consumers::read(consumer, content)?;
                self.format = Format::Archive(Some(left - 1));
                Step::Item(Item::Consumer(Box::new(found)))
            }
        };
        self.at = start + content_len;
        Ok(step)
    }

    /// Whether a message may be as large as it says, before it has come.
    fn check_message(&self, entry: &Entry<'_>) -> Result<(), BackupError> {
        let seq = entry.seq;
        if seq == 0 {
            return Err(BackupError::wrong("expected message sequence"));
        }
        if entry.content_len() > self.payload_max {
            return Err(BackupError::Wrong(format!("message sequence {seq} exceeds maximum payload size")));
        }
        if self.message_max.is_some_and(|max| entry.content_len() > max) {
            return Err(BackupError::Wrong(format!("message sequence {seq} exceeds maximum message size")));
        }
        Ok(())
    }

    fn step_tar(&mut self) -> Result<Step, BackupError> {
        let Format::Tar(tar) = &mut self.format else { unreachable!("it is a tar file") };
        match tar.file.clone() {
            None => self.step_header(),
            Some(File { left: 0, padding, .. }) => {
                let skipped = padding.min((self.data.len() - self.at) as u64);
                self.at += skipped as usize;
                if skipped < padding {
                    tar.file = Some(File { part: Part::Other, left: 0, padding: padding - skipped });
                    return Ok(Step::Starved);
                }
                tar.file = None;
                Ok(Step::Again)
            }
            Some(File { part: Part::Other, left, padding }) => {
                let skipped = left.min((self.data.len() - self.at) as u64);
                if skipped == 0 {
                    return Ok(Step::Starved);
                }
                self.at += skipped as usize;
                tar.file = Some(File { part: Part::Other, left: left - skipped, padding });
                Ok(Step::Again)
            }
            Some(File { part: Part::Block(number), left, .. }) => {
                let sums = Sums::of_block(&self.stream, number);
                let Some((record, len)) = classic::read_record(&self.data[self.at..], left, &sums)? else {
                    return Ok(Step::Starved);
                };
                let is_erased = record == Record::Erased;
                if let Some(file) = &mut tar.file {
                    file.left -= len as u64;
                }
                let at = self.at..self.at + len;
                self.at = at.end;
                Ok(if is_erased { Step::Again } else { Step::Record(at, number) })
            }
            Some(File { part, left, padding }) => {
                let end = self.at + left as usize;
                if end > self.data.len() {
                    return Ok(Step::Starved);
                }
                tar.file = Some(File { part: Part::Other, left: 0, padding });
                let step = self.take_part(part, self.at..end)?;
                self.at = end;
                Ok(step)
            }
        }
    }

    fn step_header(&mut self) -> Result<Step, BackupError> {
        let Some(block) = self.data[self.at..].first_chunk::<BLOCK_BYTES>() else { return Ok(Step::Starved) };
        let header = tar::read(block)?;
        self.at += BLOCK_BYTES;
        let Format::Tar(tar) = &mut self.format else { unreachable!("it is a tar file") };
        let Some(header) = header else {
            if !tar.has_metadata {
                return Err(BackupError::wrong("open meta.inf: no such file or directory"));
            }
            // The state of the last consumer did not come.
            if let Some(consumer) = tar.consumer.take() {
                self.at -= BLOCK_BYTES;
                return Ok(Step::Item(Item::Consumer(consumer)));
            }
            self.format = Format::Over;
            return Ok(Step::Item(Item::End));
        };
        let unexpected = || BackupError::Unexpected(self.account.clone());
        let (part, len) = match header.kind {
            Kind::Properties => (Part::Properties, header.len),
            Kind::LongName => (Part::LongName, header.len),
            Kind::Global => (Part::Other, header.len),
            Kind::Other => return Err(unexpected()),
            Kind::File => {
                let name = tar.name.take().unwrap_or(header.name);
                let name = std::str::from_utf8(&name).map_err(|_| unexpected())?;
                (Part::of(name).ok_or_else(unexpected)?, tar.len.take().unwrap_or(header.len))
            }
        };
        if part.len_max().is_some_and(|max| len > max) {
            return Err(BackupError::TooLarge(format!("{part:?}")));
        }
        tar.file = Some(File { part, left: len, padding: tar::padding(len) });
        Ok(Step::Again)
    }

    /// A file that is whole.
    fn take_part(&mut self, part: Part, at: Range<usize>) -> Result<Step, BackupError> {
        let Format::Tar(tar) = &mut self.format else { unreachable!("it is a tar file") };
        let content = &self.data[at];
        Ok(match part {
            Part::Properties => {
                let (name, len) = tar::read_properties(content)?;
                tar.name = name.or(tar.name.take());
                tar.len = len.or(tar.len);
                Step::Again
            }
            Part::LongName => {
                tar.name = Some(tar::until_zero(content).to_vec());
                Step::Again
            }
            Part::Metadata => {
                #[derive(Deserialize)]
                struct Named {
                    #[serde(default)]
                    name: String,
                }
                let wrong = |error| BackupError::Wrong(format!("error in meta.inf: {error}"));
                let named: Named = serde_json::from_slice(content).map_err(wrong)?;
                if named.name != self.stream {
                    return Err(BackupError::OtherStream);
                }
                tar.has_metadata = true;
                tar.sum = Some(Sums::of_stream(&self.stream).sum(&[content]));
                match consumers::read_created(content).map_err(wrong)? {
                    Some(created_ns) => Step::Item(Item::Created(created_ns)),
                    None => Step::Again,
                }
            }
            Part::Sum | Part::ConsumerSum => {
                let sum = tar.sum.take().map(|sum| HEXLOWER.encode(&sum));
                if !cfg!(fuzzing) && sum.is_none_or(|sum| sum.as_bytes() != content) {
                    return Err(BackupError::Checksum("metadata".to_owned()));
                }
                Step::Again
            }
            Part::Index => match classic::read_index(content, &Sums::of_stream(&self.stream))? {
                Some(index) if index.first_seq > SEQ_MAX || index.last_seq > SEQ_MAX => {
                    return Err(BackupError::wrong("the index is damaged"));
                }
                Some(index) => Step::Item(Item::Index(index)),
                None => Step::Again,
            },
            Part::ConsumerMetadata(name) => {
                let found = consumers::read_metadata(&name, content)?;
                tar.sum = Some(Sums::of_consumer(&self.stream, &name).sum(&[content]));
                match tar.consumer.replace(Box::new(found)) {
                    Some(before) => Step::Item(Item::Consumer(before)),
                    None => Step::Again,
                }
            }
            Part::ConsumerState(name) => match tar.consumer.take().filter(|found| found.name == name) {
                Some(mut found) => {
                    found.state = Some(consumers::read_state(content)?);
                    Step::Item(Item::Consumer(found))
                }
                None => {
                    let text = format!("error restoring consumer [{name:?}]: it has no metadata");
                    return Err(BackupError::Wrong(text));
                }
            },
            Part::Errors => {
                let text = String::from_utf8_lossy(content);
                return Err(BackupError::Wrong(format!("the backup is incomplete: {text}")));
            }
            Part::Block(_) | Part::Other => unreachable!("they are not kept"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::s2::Encoder;
    use super::super::tar::tests::file;
    use super::*;

    fn read(stream: &str, bytes: &[u8], step: usize) -> (Vec<String>, Result<(), BackupError>) {
        let mut reader = Reader::new(stream, "$G", 1 << 20, None);
        let mut items = Vec::new();
        let mut parts = bytes.chunks(step);
        loop {
            match reader.next_item() {
                Ok(Some(Item::End)) => return (items, Ok(())),
                Ok(Some(Item::Message(message))) => {
                    items.push(format!("{} {}", message.seq, String::from_utf8_lossy(message.subject)));
                }
                Ok(Some(Item::Consumer(found))) => {
                    let state = found.state.map(|state| (state.delivered.stream, state.pending.len()));
                    items.push(format!("consumer {} {state:?}", found.name));
                }
                Ok(Some(Item::Created(_))) => items.push("created".to_owned()),
                Ok(Some(item)) => items.push(format!("{item:?}")),
                Ok(None) => match parts.next() {
                    Some(part) => reader.push(part),
                    None => reader.end(),
                },
                Err(error) => return (items, Err(error)),
            }
        }
    }

    fn compressed(data: &[u8]) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.push(data);
        encoder.flush();
        std::mem::take(encoder.frames())
    }

    fn error_of(stream: &str, data: &[u8]) -> String {
        read(stream, &compressed(data), 1000).1.unwrap_err().to_string()
    }

    #[test]
    fn backups_of_the_reference_are_read_whatever_pieces_they_come_in() {
        let new = include_bytes!("fixtures/2.15.1.backup");
        let (items, end) = read("S", new, new.len());
        assert_eq!(end, Ok(()));
        assert_eq!(items.len(), 1 + 2 + 190);
        let outline = Outline { bytes: 14367, first_seq: 4, last_seq: 200, consumer_count: 2 };
        assert_eq!(items[0], format!("{:?}", Item::Outline(outline)));
        assert_eq!(items[1..3], ["consumer D Some((26, 16))", "consumer F Some((23, 0))"]);
        assert_eq!((&*items[3], &*items[192]), ("4 s.3", "198 s.1"));
        assert_eq!(read("S", new, 100).0, items);
        let old: [(&[u8], &[u64]); 2] = [
            (include_bytes!("fixtures/2.14.0.backup"), &[1, 2, 3, 50, 51, 52, 77, 120, 199, 200]),
            // It only wrote down the last one.
            (include_bytes!("fixtures/2.10.25.backup"), &[200]),
        ];
        for (old, removed) in old {
            let (items, end) = read("S", old, old.len());
            assert_eq!(end, Ok(()));
            assert_eq!(read("S", old, 77).0, items);
            // All messages come, then what was removed, then what the stream knew of it.
            assert_eq!((&*items[0], items.len()), ("created", 1 + 190 + removed.len() + 1 + 2));
            assert_eq!((&*items[1], &*items[190]), ("4 s.3", "198 s.1"));
            let told: Vec<String> = removed.iter().map(|seq| format!("Removed({seq})")).collect();
            assert_eq!(items[191..191 + removed.len()], told);
            let deleted = vec![50..=52, 77..=77, 120..=120, 199..=200];
            let index = Item::Index(Index { first_seq: 4, last_seq: 200, deleted });
            assert_eq!(items[191 + removed.len()], format!("{index:?}"));
            let consumers = ["consumer D Some((26, 16))", "consumer F Some((23, 0))"];
            assert_eq!(items[192 + removed.len()..], consumers);
        }
    }

    #[test]
    fn what_is_cut_off_is_told_from_what_is_whole() {
        let new = include_bytes!("fixtures/2.15.1.backup");
        for len in (0..new.len()).step_by(97) {
            let (_, end) = read("S", &new[..len], 500);
            let error = end.unwrap_err();
            assert!(
                matches!(error, BackupError::S2(_) | BackupError::End | BackupError::Archive),
                "{len}: {error}"
            );
        }
        let mut whole = Vec::new();
        let mut decoder = s2::Decoder::default();
        decoder.push(new);
        while decoder.step(&mut whole).unwrap() {}
        // Compressed as a whole, but the archive in it is cut off.
        assert!(matches!(read("S", &compressed(&whole[..whole.len() - 5]), 500).1, Err(BackupError::End)));
        assert_eq!(error_of("S", &whole[..whole.len() - 8]), "archive: invalid archive stream");
    }

    #[test]
    fn backups_of_other_streams_and_other_files_are_refused() {
        let old = include_bytes!("fixtures/2.14.0.backup");
        assert_eq!(read("T", old, 1000).1, Err(BackupError::OtherStream));
        assert_eq!(error_of("S", b"something else that is long enough"), "EOF");
        assert_eq!(error_of("S", &[b'x'; 600]), "archive/tar: invalid tar header");
        assert_eq!(error_of("S", &[0; 1024]), "open meta.inf: no such file or directory");
        for name in ["../x", "a/../../x", "/etc/passwd", "msgs//1.blk"] {
            assert_eq!(error_of("S", &file(b'0', name, b"x")), "unexpected content (account=$G)", "{name}");
        }
        assert_eq!(error_of("S", &file(b'2', "link", b"")), "unexpected content (account=$G)");
        let metadata = file(b'0', "meta.inf", b"{\"name\":\"S\"}");
        let wrong_sum = [metadata.clone(), file(b'0', "meta.sum", b"0123456789abcdef")].concat();
        assert_eq!(error_of("S", &wrong_sum), "checksum of metadata does not match");
        let errors = [metadata, file(b'0', "errors.txt", b"no disk")].concat();
        assert_eq!(error_of("S", &errors), "the backup is incomplete: no disk");
        assert_eq!(error_of("S", b"NATSARC1\x01\x00\x00\x00\x00x"), "expected state.json first");
    }

    #[test]
    fn parts_of_any_length_are_passed_over_or_refused_before_they_are_kept() {
        let mut large = file(b'0', "msgs/thw.db", &[7; 100_000]);
        large.extend_from_slice(&file(b'0', "meta.inf", b"{\"name\":\"S\"}"));
        large.extend_from_slice(&[0; 512]);
        assert_eq!(read("S", &compressed(&large), 1000), (vec![], Ok(())));
        let mut index = file(b'0', "msgs/index.db", b"");
        index[124..136].copy_from_slice(b"77777777777\0");
        let sum: u64 = index
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) })
            .sum();
        index[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        assert_eq!(error_of("S", &index), "Index is too large");
        let mut entry = MAGIC.to_vec();
        Entry { name: b"state.json", payload_len: 1 << 40, ..Entry::default() }.write(&mut entry);
        assert_eq!(error_of("S", &entry), "state.json is too large");
    }
}
