//! Where streams are on the disk: the directories of a server, of accounts and of streams, and what is done with them while
//! nothing else uses them. All of it blocks, and belongs into threads that may.
//!
//! ```text
//! STORE_DIR/jetstream/ringmain                      the format, and the lock of the server that uses it
//! STORE_DIR/jetstream/ACCOUNT/streams/STREAM/       one directory per stream
//!     stream.json                                   its configuration
//!     000000000001-0.seg …                          its messages (`store`)
//! ```
//!
//! A new stream's directory is made beside its place, as `.new.NUMBER`, and renamed when everything in it is on the disk; a
//! stream that is deleted is renamed to `.deleted.NUMBER` before that is answered, and then removed. (No stream's name has
//! a dot in it, and it may be as long as names of files can be.) So whatever happens in between, a stream is there with all that belongs to it, or not at all. What a crash has left
//! behind of the two is removed at the next start, and nothing else is ever.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

use crate::base::system_error;
use crate::io::files::{FileStep, StepError, carry_out};
use crate::io::process;
use crate::store::{CommitError, CommitErrorKind, FileId, Files, Step};

/// The first line of the file `ringmain`.
const FORMAT: &str = "ringmain jetstream 1\n";

const FORMAT_FILE: &str = "ringmain";
const STREAM_FILE: &str = "stream.json";
const STREAMS: &str = "streams";
const NEW: &str = ".new.";
const DELETED: &str = ".deleted.";

/// The directory of all streams of a server, which nobody else uses.
#[derive(Debug)]
pub struct StoreDirectory {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

/// Why the directory cannot be used. Nothing in it has been touched.
#[derive(Debug, thiserror::Error)]
pub enum StoreDirectoryError {
    /// It cannot be made or written to.
    #[error("could not create storage directory - {path}: {reason}")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another process uses it.
    #[error("the store directory {0} is used by another server")]
    InUse(PathBuf),
    /// It is nats-server's.
    #[error(
        "the store directory {0} was written by nats-server, in a format of its own: take another store_dir, and move the streams with \
         `nats stream backup` and `nats stream restore`"
    )]
    Foreign(PathBuf),
    /// It is that of a newer server.
    #[error("the store directory {0} has a format that this server does not know: {1:?}")]
    Unknown(PathBuf, String),
}

/// A stream that was found.
#[derive(Debug)]
pub struct FoundStream {
    /// Its account.
    pub account: String,
    /// Its name.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
}

/// What `stream.json` says.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct StreamFile {
    /// When the stream was created, in nanoseconds since 1970.
    pub created_ns: i64,
    /// Its configuration, as the API writes it.
    pub config: Box<RawValue>,
}

impl StoreDirectory {
    /// Makes the directory of the streams below `store_dir` this server's.
    ///
    /// # Errors
    ///
    /// See [`StoreDirectoryError`].
    pub fn open(store_dir: &Path) -> Result<StoreDirectory, StoreDirectoryError> {
        let path = store_dir.join("jetstream");
        let unusable = |error: io::Error| StoreDirectoryError::Unusable {
            path: path.clone(),
            reason: system_error::text(&error),
        };
        fs::create_dir_all(&path).map_err(unusable)?;
        let marker = path.join(FORMAT_FILE);
        if !marker.exists() && holds_streams_of_the_reference(&path).map_err(unusable)? {
            return Err(StoreDirectoryError::Foreign(path));
        }
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&marker);
        let file = file.map_err(unusable)?;
        if !process::lock_file(&file).map_err(unusable)? {
            return Err(StoreDirectoryError::InUse(path));
        }
        let found = fs::read_to_string(&marker).map_err(unusable)?;
        if found.is_empty() {
            file.write_all_at(FORMAT.as_bytes(), 0).and_then(|()| file.sync_all()).map_err(unusable)?;
            sync(&path).and_then(|()| sync(store_dir)).map_err(unusable)?;
        } else if found != FORMAT {
            return Err(StoreDirectoryError::Unknown(path, found.trim_end().to_owned()));
        }
        Ok(StoreDirectory { path, _lock: file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The streams that are there, by account and name. What a crash has left half-made or half-removed goes.
    ///
    /// # Errors
    ///
    /// A directory cannot be read.
    pub fn find(&self) -> io::Result<Vec<FoundStream>> {
        let mut found = Vec::new();
        for account in directories(&self.path)? {
            let Some(name) = unescape(&account) else { continue };
            let streams = self.path.join(&account).join(STREAMS);
            if !streams.is_dir() {
                continue;
            }
            for stream in directories(&streams)? {
                let path = streams.join(&stream);
                if is_half_made(&stream) || is_half_removed(&stream) {
                    fs::remove_dir_all(path)?;
                } else if path.join(STREAM_FILE).exists() {
                    found.push(FoundStream { account: name.clone(), name: stream, path });
                }
            }
        }
        found.sort_by(|a, b| (&a.account, &a.name).cmp(&(&b.account, &b.name)));
        Ok(found)
    }

    /// Where a stream belongs.
    pub fn place_of(&self, account: &str, stream: &str) -> PathBuf {
        self.path.join(escape(account)).join(STREAMS).join(stream)
    }

    /// Makes the directory of a new stream, with all that `steps` put into it.
    ///
    /// # Errors
    ///
    /// It cannot be made; then it is not there.
    pub fn create(
        &self,
        account: &str,
        name: &str,
        file: &StreamFile,
        steps: &[Step],
    ) -> io::Result<PathBuf> {
        let made = self.begin(account, name)?;
        made.carry_out(steps)?;
        made.finish(file)
    }

    /// Begins the directory of a new stream, which is nobody's until it is finished.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn begin(&self, account: &str, name: &str) -> io::Result<HalfMade> {
        let place = self.place_of(account, name);
        let streams = place.parent().expect("it stands below the account's");
        if !streams.is_dir() {
            fs::create_dir_all(streams)?;
            sync(&self.path)?;
            sync(streams.parent().expect("it has just been made"))?;
        }
        let beside = unused(streams, NEW);
        fs::create_dir(&beside)?;
        Ok(HalfMade { path: beside, place, is_finished: false })
    }

    /// Makes a stream's directory one that is deleted: when this returns no start brings it back. What it is called then.
    ///
    /// # Errors
    ///
    /// It cannot be renamed.
    pub fn delete(place: &Path) -> io::Result<PathBuf> {
        let streams = place.parent().expect("it stands below the account's");
        let gone = unused(streams, DELETED);
        fs::rename(place, &gone)?;
        sync(streams)?;
        Ok(gone)
    }
}

/// The directory of a stream that is not there yet. It goes, with all that is in it, unless it is finished.
#[derive(Debug)]
pub struct HalfMade {
    path: PathBuf,
    place: PathBuf,
    is_finished: bool,
}

impl HalfMade {
    /// Where it is until it is finished.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Carries out steps of the store in it.
    ///
    /// # Errors
    ///
    /// One of them failed; those behind it have not been done.
    pub fn carry_out(&self, steps: &[Step]) -> io::Result<()> {
        carry_out(&self.path, steps.iter().cloned().map(file_step).collect())
    }

    /// Makes it the stream's directory. All in it is synced but the file of the stream, which this writes.
    ///
    /// # Errors
    ///
    /// It cannot be; then it is not there.
    pub fn finish(mut self, file: &StreamFile) -> io::Result<PathBuf> {
        let streams = self.place.parent().expect("it stands below the account's");
        write_stream_file(&self.path, file)?;
        sync(&self.path)?;
        fs::rename(&self.path, &self.place)?;
        self.is_finished = true;
        sync(streams)?;
        Ok(self.place.clone())
    }
}

impl Drop for HalfMade {
    fn drop(&mut self) {
        if !self.is_finished {
            // What is left of it goes with the next start.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// What the file of a stream says.
///
/// # Errors
///
/// It cannot be read.
pub fn read_stream_file(place: &Path) -> io::Result<StreamFile> {
    let text = fs::read(place.join(STREAM_FILE))?;
    serde_json::from_slice(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Replaces the file of a stream: after a crash it is the old one or the new one.
///
/// # Errors
///
/// It cannot be written.
pub fn write_stream_file(place: &Path, file: &StreamFile) -> io::Result<()> {
    let beside = place.join(format!("{STREAM_FILE}.new"));
    let mut written = File::create(&beside)?;
    written.write_all(&serde_json::to_vec(file)?)?;
    written.sync_all()?;
    fs::rename(&beside, place.join(STREAM_FILE))?;
    sync(place)
}

/// A path for a directory on its way in or out, that nothing has.
fn unused(streams: &Path, prefix: &str) -> PathBuf {
    let paths = std::iter::repeat_with(|| streams.join(format!("{prefix}{}", fastrand::u64(..))));
    paths.into_iter().find(|path| !path.exists()).expect("they never end")
}

fn is_half_made(name: &str) -> bool {
    name.starts_with(NEW)
}

fn is_half_removed(name: &str) -> bool {
    name.starts_with(DELETED)
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn directories(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Whether nats-server has kept streams here: it has a `meta.inf` in the directory of each.
fn holds_streams_of_the_reference(path: &Path) -> io::Result<bool> {
    for account in directories(path)? {
        let streams = path.join(account).join(STREAMS);
        if !streams.is_dir() {
            continue;
        }
        for stream in directories(&streams)? {
            if streams.join(stream).join("meta.inf").exists() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Names of accounts may hold anything: what is more than letters, digits, `$`, `-` and `_` is written as `%` and two digits.
fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'$' | b'-' | b'_') {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

fn unescape(escaped: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok().filter(|name| escape(name) == escaped)
}

/// A step of the store as one of the files.
pub fn file_step(step: Step) -> FileStep {
    match step {
        Step::Create { file } => FileStep::Create { name: file.to_string() },
        Step::Allocate { file, offset, length } => {
            FileStep::Allocate { name: file.to_string(), offset, len: length }
        }
        Step::Write { file, offset, buffers } => FileStep::Write { name: file.to_string(), offset, buffers },
        Step::SyncData { file } => FileStep::SyncData { name: file.to_string() },
        Step::SyncDirectory => FileStep::SyncDirectory,
        Step::Truncate { file, length } => FileStep::Truncate { name: file.to_string(), len: length },
        Step::PunchHole { file, offset, length } => {
            FileStep::PunchHole { name: file.to_string(), offset, len: length }
        }
        Step::Rename { from, to } => FileStep::Rename { from: from.to_string(), to: to.to_string() },
        Step::Remove { file } => FileStep::Remove { name: file.to_string() },
    }
}

/// What the store is told of a step that failed.
pub fn commit_error(failed: &StepError) -> CommitError {
    step_error(failed.step, &failed.error)
}

/// The same of a step by itself.
pub fn step_error(step: usize, error: &io::Error) -> CommitError {
    let kind = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => CommitErrorKind::NoSpace,
        _ => CommitErrorKind::Other,
    };
    CommitError { step, kind, text: system_error::text(error) }
}

/// The directory of a stream that is being opened.
#[derive(Debug)]
pub struct StreamFiles<'a> {
    path: &'a Path,
    /// What was read last, for it is read in many pieces.
    open: Option<(FileId, File)>,
}

impl<'a> StreamFiles<'a> {
    /// Of the stream in this directory.
    pub fn new(path: &'a Path) -> StreamFiles<'a> {
        StreamFiles { path, open: None }
    }

    fn at(&self, file: FileId) -> PathBuf {
        self.path.join(file.to_string())
    }
}

impl Files for StreamFiles<'_> {
    fn list(&mut self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(self.path)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn len(&mut self, file: FileId) -> io::Result<u64> {
        Ok(fs::metadata(self.at(file))?.len())
    }

    fn read_at(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let opened = match self.open.take() {
            Some((id, opened)) if id == file => opened,
            _ => File::open(self.at(file))?,
        };
        let (_, file) = self.open.insert((file, opened));
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn perform(&mut self, step: &Step) -> io::Result<()> {
        // What is open may have another name from now on.
        self.open = None;
        carry_out(self.path, vec![file_step(step.clone())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> StreamFile {
        StreamFile { created_ns: 7, config: RawValue::from_string("{\"name\":\"S\"}".to_owned()).unwrap() }
    }

    fn names(directory: &StoreDirectory) -> Vec<String> {
        directory
            .find()
            .unwrap()
            .into_iter()
            .map(|found| format!("{} {}", found.account, found.name))
            .collect()
    }

    #[test]
    fn streams_are_there_with_all_that_belongs_to_them_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let directory = StoreDirectory::open(place.path()).unwrap();
        let segment = FileId::new(1);
        let steps = [
            Step::Create { file: segment },
            Step::Write { file: segment, offset: 0, buffers: vec!["data".into()] },
            Step::SyncData { file: segment },
        ];
        let stream = directory.create("$G", "S", &file(), &steps).unwrap();
        assert_eq!(fs::read(stream.join(segment.to_string())).unwrap(), b"data");
        directory.create("a/b c", "T", &file(), &[]).unwrap();
        assert_eq!(names(&directory), ["$G S", "a/b c T"]);
        // As a crash leaves them.
        let streams = stream.parent().unwrap();
        fs::create_dir(streams.join(".new.1")).unwrap();
        fs::create_dir(streams.join(".deleted.1")).unwrap();
        fs::write(streams.join(".deleted.1").join("x"), "x").unwrap();
        // Not ours to judge.
        fs::create_dir(streams.join("unknown")).unwrap();
        assert_eq!(names(&directory), ["$G S", "a/b c T"]);
        assert!(!streams.join(".new.1").exists() && !streams.join(".deleted.1").exists());
        assert!(streams.join("unknown").exists());
        let gone = StoreDirectory::delete(&stream).unwrap();
        assert!(gone.exists());
        assert_eq!(names(&directory), ["a/b c T"]);
    }

    #[test]
    fn the_file_of_a_stream_is_replaced_as_a_whole() {
        let place = tempfile::tempdir().unwrap();
        write_stream_file(place.path(), &file()).unwrap();
        let other = StreamFile { created_ns: 8, ..file() };
        write_stream_file(place.path(), &other).unwrap();
        let read = read_stream_file(place.path()).unwrap();
        assert_eq!((read.created_ns, read.config.get()), (8, "{\"name\":\"S\"}"));
        fs::write(place.path().join(STREAM_FILE), "{").unwrap();
        assert_eq!(read_stream_file(place.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_directory_is_used_by_one_server_and_in_a_format_that_it_knows() {
        let place = tempfile::tempdir().unwrap();
        let first = StoreDirectory::open(place.path()).unwrap();
        assert!(matches!(StoreDirectory::open(place.path()), Err(StoreDirectoryError::InUse(_))));
        drop(first);
        drop(StoreDirectory::open(place.path()).unwrap());
        fs::write(place.path().join("jetstream").join(FORMAT_FILE), "ringmain jetstream 9\n").unwrap();
        let error = StoreDirectory::open(place.path()).unwrap_err();
        assert!(error.to_string().contains("ringmain jetstream 9"), "{error}");
    }

    #[test]
    fn a_directory_of_the_reference_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let stream = place.path().join("jetstream/$G/streams/S");
        fs::create_dir_all(&stream).unwrap();
        fs::write(stream.join("meta.inf"), "{}").unwrap();
        assert!(matches!(StoreDirectory::open(place.path()), Err(StoreDirectoryError::Foreign(_))));
        assert!(!place.path().join("jetstream").join(FORMAT_FILE).exists());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("file"), "").unwrap();
        let error = StoreDirectory::open(&place.path().join("file")).unwrap_err();
        assert!(matches!(error, StoreDirectoryError::Unusable { .. }), "{error}");
    }
}
