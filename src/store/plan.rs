//! What a store wants done with files: plans of owned data that a driver carries out, and the answers it brings back.
//!
//! The store makes no system call. [`Commit`] is what has to be written before anything of it may be acknowledged,
//! [`ReadPlan`] where messages lie that are not in memory. A stream's files are in one directory of its own; the driver
//! knows which, plans name files by [`FileId`] only.

use bytes::Bytes;
use std::fmt;

use super::cipher::Codec;

/// A file of a stream's directory: its segment number, and how often the segment was rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Segments are numbered from 1, without gaps as long as none was removed.
    pub segment: u64,
    /// How often the segment was rewritten.
    pub generation: u32,
    /// A rewritten segment before it takes the place of the old one.
    pub unfinished: bool,
}

impl FileId {
    /// The first file of a segment.
    pub fn new(segment: u64) -> FileId {
        FileId { segment, generation: 0, unfinished: false }
    }

    /// The file that a name stands for; `None` for names that the store did not give.
    pub fn parse(name: &str) -> Option<FileId> {
        let (name, unfinished) = match name.strip_suffix(".new") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let (segment, generation) = name.strip_suffix(".seg")?.split_once('-')?;
        let id = FileId { segment: segment.parse().ok()?, generation: generation.parse().ok()?, unfinished };
        (id.to_string() == if unfinished { format!("{name}.new") } else { name.to_string() }).then_some(id)
    }
}

/// The file's name in the directory of the stream.
impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012}-{}.seg", self.segment, self.generation)?;
        if self.unfinished { write!(f, ".new") } else { Ok(()) }
    }
}

/// What has to be done, in this order, before the messages in it count as stored. One at a time per store.
#[derive(Debug)]
#[must_use]
pub struct Commit {
    /// Each after the one before it succeeded.
    pub steps: Vec<Step>,
}

impl Commit {
    /// How many bytes it writes.
    pub fn bytes(&self) -> u64 {
        let written = self.steps.iter().map(|step| match step {
            Step::Write { buffers, .. } => buffers.iter().map(|buffer| buffer.len() as u64).sum(),
            _ => 0,
        });
        written.sum()
    }
}

/// One operation on the files of a stream. A step that fails ends the commit: [`CommitError`].
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the fields say what the texts of the variants use them for")]
pub enum Step {
    /// Creates the file, empty; an existing one of that name is emptied.
    Create { file: FileId },
    /// Reserves space so that writing there cannot fail for want of it; what was not written reads as zeros and the file
    /// is at least `offset + length` long. On file systems without it (`EOPNOTSUPP`) the driver only extends the file.
    Allocate { file: FileId, offset: u64, length: u64 },
    /// Writes the buffers one after the other, all of them.
    Write { file: FileId, offset: u64, buffers: Vec<Bytes> },
    /// `fdatasync`: when it returns, what was written and the file's length survive a power cut.
    SyncData { file: FileId },
    /// Syncs the directory: when it returns, creations, renames and removals survive a power cut.
    SyncDirectory,
    /// Cuts the file to this length.
    Truncate { file: FileId, length: u64 },
    /// Gives the range's space back; it reads as zeros. Where that is not supported it does nothing.
    PunchHole { file: FileId, offset: u64, length: u64 },
    /// Renames, in place of what had that name.
    Rename { from: FileId, to: FileId },
    /// Removes the file. That it is not there (any more) is no error.
    Remove { file: FileId },
}

/// Why a commit was not carried out, and how far it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitError {
    /// The step that failed; those before it were carried out.
    pub step: usize,
    /// What the store has to know of it.
    pub kind: CommitErrorKind,
    /// What the system said, with the file.
    pub text: String,
}

/// Kinds of failures that a store treats differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitErrorKind {
    /// `ENOSPC` or `EDQUOT`.
    NoSpace,
    /// Everything else.
    Other,
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Committed {
    /// Everything up to [`committed`](super::Store::committed) is stored.
    Done,
    /// There was no space. Messages appended since the last commit are gone, their sequences will be given again:
    /// every publisher whose position is behind `committed()` gets [`StoreError::NoSpace`](super::StoreError::NoSpace).
    RolledBack {
        /// How many.
        messages: u64,
    },
    /// The store is read only from now on. Every publisher whose position is behind `committed()` gets this text.
    Poisoned {
        /// What the system said.
        text: String,
    },
}

/// Where messages are that are not in memory. The driver reads `length` bytes (fewer if the file ends) and asks
/// [`decode`](ReadPlan::decode).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPlan {
    /// In which file.
    pub file: FileId,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes to read.
    pub length: u32,
    /// The messages wanted, both included; others may come along.
    pub first_seq: u64,
    /// The last message wanted.
    pub last_seq: u64,
    pub(super) codec: Codec,
}

/// What a read found damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("message {seq} is damaged: {file} at {offset}")]
pub struct Damaged {
    /// The message.
    pub seq: u64,
    /// In which file.
    pub file: FileId,
    /// Where in the file.
    pub offset: u64,
}

/// The files of one stream's directory, for opening it: synchronous, used before anything else uses the directory.
pub trait Files {
    /// The names in the directory, in any order.
    fn list(&mut self) -> std::io::Result<Vec<String>>;
    /// How long the file is.
    fn len(&mut self, file: FileId) -> std::io::Result<u64>;
    /// Reads until `buffer` is full or the file ends; returns how many bytes.
    fn read_at(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize>;
    /// Carries out one step.
    fn perform(&mut self, step: &Step) -> std::io::Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_read_back_and_no_others() {
        for id in [
            FileId::new(1),
            FileId { segment: 7, generation: 3, unfinished: true },
            FileId { segment: u64::MAX, generation: u32::MAX, unfinished: false },
        ] {
            assert_eq!(FileId::parse(&id.to_string()), Some(id));
        }
        for name in
            ["", "1-0.seg", "000000000001-0.seg.old", "000000000001-00.seg", "+00000000001-0.seg", "meta"]
        {
            assert_eq!(FileId::parse(name), None, "{name}");
        }
    }
}
