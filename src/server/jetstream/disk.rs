//! Where streams are on the disk: the directories of a server, of accounts and of streams, and what is done with them while
//! nothing else uses them. All of it blocks, and belongs into threads that may.
//!
//! ```text
//! STORE_DIR/jetstream/ringmain                      the format, and the lock of the server that uses it
//! STORE_DIR/jetstream/secret                        what everything is encrypted with, itself encrypted with the configured key
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
use std::num::NonZeroU32;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ring::pbkdf2;
use serde_json::value::RawValue;

use crate::base::system_error;
use crate::config::EncryptionOptions;
use crate::io::files::{FileStep, StepError, carry_out};
use crate::io::process;
use crate::store::{Cipher, CommitError, CommitErrorKind, Encryption, FileId, Files, Step};

/// What the file `ringmain` says.
const FORMAT: &str = "ringmain jetstream 1\n";
/// The same where everything is encrypted.
const ENCRYPTED_FORMAT: &str = "ringmain jetstream 2\n";

const FORMAT_FILE: &str = "ringmain";
const SECRET_FILE: &str = "secret";
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
    /// With what everything in it is encrypted.
    encryption: Option<Encryption>,
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
    /// It is encrypted, and no key is configured.
    #[error("the store directory {0} is encrypted: the key that it was encrypted with has to be configured")]
    Encrypted(PathBuf),
    /// It is encrypted with another key.
    #[error("the store directory {0} cannot be decrypted with the configured key")]
    WrongKey(PathBuf),
    /// A key is configured, and streams are there that are not encrypted.
    #[error(
        "the store directory {0} has streams that are not encrypted: take another store_dir, and move the streams with \
         `nats stream backup` and `nats stream restore`"
    )]
    NotEncrypted(PathBuf),
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
    pub fn open(
        store_dir: &Path,
        wanted: Option<&EncryptionOptions>,
    ) -> Result<StoreDirectory, StoreDirectoryError> {
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
        let write = |format: &str| {
            file.write_all_at(format.as_bytes(), 0).and_then(|()| file.sync_all())?;
            sync(&path).and_then(|()| sync(store_dir))
        };
        let is_new = || match &*found {
            "" => Ok(true),
            _ => Ok(streams_below(&path)?.is_empty()),
        };
        let encryption = match (&*found, wanted) {
            ("", None) => {
                write(FORMAT).map_err(unusable)?;
                None
            }
            (FORMAT, None) => None,
            ("" | FORMAT, Some(wanted)) => {
                if !is_new().map_err(unusable)? {
                    return Err(StoreDirectoryError::NotEncrypted(path));
                }
                // The secret first: without it, what is written afterwards could never be read.
                let secret = Secret::draw().map_err(unusable)?;
                secret.write(&path, wanted).and_then(|()| write(ENCRYPTED_FORMAT)).map_err(unusable)?;
                Some(secret.encryption(wanted))
            }
            (ENCRYPTED_FORMAT, None) => return Err(StoreDirectoryError::Encrypted(path)),
            (ENCRYPTED_FORMAT, Some(wanted)) => {
                let sealed = fs::read(path.join(SECRET_FILE)).map_err(unusable)?;
                let secret = match Secret::open(&sealed, &wanted.key) {
                    Some(secret) => secret,
                    None => {
                        let previous = wanted.previous.as_ref();
                        let secret = previous.and_then(|previous| Secret::open(&sealed, previous));
                        let Some(secret) = secret else { return Err(StoreDirectoryError::WrongKey(path)) };
                        // From now on the new key opens it, and only that.
                        secret.write(&path, wanted).map_err(unusable)?;
                        secret
                    }
                };
                Some(secret.encryption(wanted))
            }
            _ => return Err(StoreDirectoryError::Unknown(path, found.trim_end().to_owned())),
        };
        Ok(StoreDirectory { path, _lock: file, encryption })
    }

    /// With what everything in it is encrypted.
    pub fn encryption(&self) -> Option<&Encryption> {
        self.encryption.as_ref()
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
        for stream in streams_below(&self.path)? {
            if is_half_made(&stream.name) || is_half_removed(&stream.name) {
                fs::remove_dir_all(stream.path)?;
            } else if stream.path.join(STREAM_FILE).exists() {
                found.push(stream);
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
        let encryption = self.encryption.clone();
        Ok(HalfMade { path: beside, place, encryption, is_finished: false })
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
    encryption: Option<Encryption>,
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
        write_stream_file(&self.path, file, self.encryption.as_ref())?;
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
pub fn read_stream_file(place: &Path, encryption: Option<&Encryption>) -> io::Result<StreamFile> {
    let mut text = fs::read(place.join(STREAM_FILE))?;
    if let Some(encryption) = encryption {
        let opened = encryption.open(STREAM_FILE.as_bytes(), &text);
        text = opened.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it cannot be decrypted"))?;
    }
    serde_json::from_slice(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Replaces the file of a stream: after a crash it is the old one or the new one.
///
/// # Errors
///
/// It cannot be written.
pub fn write_stream_file(place: &Path, file: &StreamFile, encryption: Option<&Encryption>) -> io::Result<()> {
    let mut content = serde_json::to_vec(file)?;
    if let Some(encryption) = encryption {
        content = encryption.seal(STREAM_FILE.as_bytes(), random()?, content);
    }
    replace(place, STREAM_FILE, &content)
}

/// Replaces a file: after a crash it is the old one or the new one.
fn replace(place: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let beside = place.join(format!("{name}.new"));
    let mut written = File::create(&beside)?;
    written.write_all(content)?;
    written.sync_all()?;
    fs::rename(&beside, place.join(name))?;
    sync(place)
}

/// What everything is encrypted with. It is drawn once, and kept encrypted with the configured key: another key needs nothing else
/// to be written anew.
struct Secret([u8; 32]);

impl Secret {
    const SALT_BYTES: usize = 16;
    /// How long a key takes to be tried: some 20 ms.
    const ROUNDS: NonZeroU32 = NonZeroU32::new(100_000).expect("it is not 0");

    fn draw() -> io::Result<Secret> {
        random().map(Secret)
    }

    fn open(sealed: &[u8], key: &str) -> Option<Secret> {
        let (salt, sealed) = sealed.split_at_checked(Secret::SALT_BYTES)?;
        let secret = Secret::wrapping(key, salt).open(SECRET_FILE.as_bytes(), sealed)?;
        secret.try_into().ok().map(Secret)
    }

    fn write(&self, path: &Path, wanted: &EncryptionOptions) -> io::Result<()> {
        let salt: [u8; Secret::SALT_BYTES] = random()?;
        let wrapping = Secret::wrapping(&wanted.key, &salt);
        let mut content = salt.to_vec();
        content.extend_from_slice(&wrapping.seal(SECRET_FILE.as_bytes(), random()?, self.0.to_vec()));
        replace(path, SECRET_FILE, &content)
    }

    fn encryption(&self, wanted: &EncryptionOptions) -> Encryption {
        Encryption::new(wanted.cipher, self.0)
    }

    fn wrapping(key: &str, salt: &[u8]) -> Encryption {
        let mut derived = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, Secret::ROUNDS, salt, key.as_bytes(), &mut derived);
        Encryption::new(Cipher::ChaCha20Poly1305, derived)
    }
}

/// Random bytes that nobody can guess.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

/// Everything that lies where streams do.
fn streams_below(path: &Path) -> io::Result<Vec<FoundStream>> {
    let mut found = Vec::new();
    for account in directories(path)? {
        let Some(name) = unescape(&account) else { continue };
        let streams = path.join(&account).join(STREAMS);
        if !streams.is_dir() {
            continue;
        }
        for stream in directories(&streams)? {
            let path = streams.join(&stream);
            found.push(FoundStream { account: name.clone(), name: stream, path });
        }
    }
    Ok(found)
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
        let directory = StoreDirectory::open(place.path(), None).unwrap();
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
        write_stream_file(place.path(), &file(), None).unwrap();
        let other = StreamFile { created_ns: 8, ..file() };
        write_stream_file(place.path(), &other, None).unwrap();
        let read = read_stream_file(place.path(), None).unwrap();
        assert_eq!((read.created_ns, read.config.get()), (8, "{\"name\":\"S\"}"));
        fs::write(place.path().join(STREAM_FILE), "{").unwrap();
        assert_eq!(read_stream_file(place.path(), None).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_directory_is_used_by_one_server_and_in_a_format_that_it_knows() {
        let place = tempfile::tempdir().unwrap();
        let first = StoreDirectory::open(place.path(), None).unwrap();
        assert!(matches!(StoreDirectory::open(place.path(), None), Err(StoreDirectoryError::InUse(_))));
        drop(first);
        drop(StoreDirectory::open(place.path(), None).unwrap());
        fs::write(place.path().join("jetstream").join(FORMAT_FILE), "ringmain jetstream 9\n").unwrap();
        let error = StoreDirectory::open(place.path(), None).unwrap_err();
        assert!(error.to_string().contains("ringmain jetstream 9"), "{error}");
    }

    #[test]
    fn a_directory_of_the_reference_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let stream = place.path().join("jetstream/$G/streams/S");
        fs::create_dir_all(&stream).unwrap();
        fs::write(stream.join("meta.inf"), "{}").unwrap();
        assert!(matches!(StoreDirectory::open(place.path(), None), Err(StoreDirectoryError::Foreign(_))));
        assert!(!place.path().join("jetstream").join(FORMAT_FILE).exists());
    }

    #[test]
    fn an_encrypted_directory_opens_with_its_key_only_and_is_not_touched_otherwise() {
        let key = |key: &str, previous: Option<&str>| EncryptionOptions {
            key: key.to_owned(),
            previous: previous.map(str::to_owned),
            cipher: Cipher::Aes256Gcm,
        };
        let place = tempfile::tempdir().unwrap();
        let open = |options: Option<&EncryptionOptions>| StoreDirectory::open(place.path(), options);
        let secret = || fs::read(place.path().join("jetstream").join(SECRET_FILE)).unwrap();
        let directory = open(Some(&key("one", None))).unwrap();
        let encryption = directory.encryption().cloned();
        let stream = directory.create("$G", "S", &file(), &[]).unwrap();
        assert!(!fs::read(stream.join(STREAM_FILE)).unwrap().windows(4).any(|window| window == b"name"));
        assert_eq!(read_stream_file(&stream, directory.encryption()).unwrap().created_ns, 7);
        drop(directory);
        let before = secret();
        assert!(matches!(open(None), Err(StoreDirectoryError::Encrypted(_))));
        assert!(matches!(open(Some(&key("two", None))), Err(StoreDirectoryError::WrongKey(_))));
        assert!(matches!(open(Some(&key("two", Some("three")))), Err(StoreDirectoryError::WrongKey(_))));
        assert_eq!(secret(), before);
        // Another key: the secret stays.
        assert_eq!(open(Some(&key("two", Some("one")))).unwrap().encryption().cloned(), encryption);
        assert!(matches!(open(Some(&key("one", None))), Err(StoreDirectoryError::WrongKey(_))));
        assert_eq!(open(Some(&key("two", None))).unwrap().encryption().cloned(), encryption);
        // One with plain streams in it is refused, one without becomes encrypted.
        let plain = tempfile::tempdir().unwrap();
        drop(StoreDirectory::open(plain.path(), None).unwrap());
        drop(StoreDirectory::open(plain.path(), Some(&key("one", None))).unwrap());
        assert!(matches!(StoreDirectory::open(plain.path(), None), Err(StoreDirectoryError::Encrypted(_))));
        let plain = tempfile::tempdir().unwrap();
        let directory = StoreDirectory::open(plain.path(), None).unwrap();
        directory.create("$G", "S", &file(), &[]).unwrap();
        drop(directory);
        let refused = StoreDirectory::open(plain.path(), Some(&key("one", None)));
        assert!(matches!(refused, Err(StoreDirectoryError::NotEncrypted(_))));
        StoreDirectory::open(plain.path(), None).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("file"), "").unwrap();
        let error = StoreDirectory::open(&place.path().join("file"), None).unwrap_err();
        assert!(matches!(error, StoreDirectoryError::Unusable { .. }), "{error}");
    }
}
