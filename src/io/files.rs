//! Files that a worker writes and reads without waiting for them.
//!
//! A job is a number of steps in the files of one directory, carried out in order, or one read. It is given to
//! [`FileRoom::submit`] with a number of the caller's, and what came of it is taken with [`FileRoom::take_done`]; whoever sleeps
//! meanwhile is woken. With io_uring the steps are operations of the worker's tokio-uring runtime; without it, one of the
//! plain runtime's blocking threads carries them out. Jobs in one directory may overlap: that those that must not do not is the
//! caller's business.
//!
//! After a step that failed the rest of its job is not done. Nothing is tried again here: a failed sync says nothing about
//! what is on the disk, and a second one may lie.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use super::socket_driver::Driver;
use super::wake::{Sleep, Waker};

/// Open files that a directory keeps for later jobs. Two are in use at a time: the one that is written, and the one before.
const OPEN_FILES_MAX: usize = 4;

/// One step of a job.
#[derive(Debug)]
pub enum FileStep {
    /// A new file; one that is there is emptied.
    Create {
        /// Its name.
        name: String,
    },
    /// A file has disk space for a range, and reaches to its end at least. Where file systems cannot do that it is only made
    /// longer.
    Allocate {
        /// Its name.
        name: String,
        /// Where.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Bytes into a file that is there.
    Write {
        /// Its name.
        name: String,
        /// Where.
        offset: u64,
        /// What, one behind the other.
        buffers: Vec<Bytes>,
    },
    /// What has been written to a file is to be on the disk before the next step.
    SyncData {
        /// Its name.
        name: String,
    },
    /// What has been created, renamed and removed is to be on the disk before the next step.
    SyncDirectory,
    /// A file gets this length.
    Truncate {
        /// Its name.
        name: String,
        /// Bytes.
        len: u64,
    },
    /// The disk space of a range of a file is given back; it reads as zeros from then on.
    PunchHole {
        /// Its name.
        name: String,
        /// Where.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// A file gets another name, and takes the place of what has it.
    Rename {
        /// Its name.
        from: String,
        /// Its new name.
        to: String,
    },
    /// A file goes, if it is there.
    Remove {
        /// Its name.
        name: String,
    },
}

/// What is to be done.
#[derive(Debug)]
pub enum FileJob {
    /// These, in order.
    Steps(Vec<FileStep>),
    /// Bytes are read. Fewer come only at the end of the file.
    Read {
        /// The file.
        name: String,
        /// Where.
        offset: u64,
        /// How many.
        len: usize,
    },
}

/// What came of a job.
#[derive(Debug)]
pub enum FileOutcome {
    /// All steps have been done, or one failed; and how long they took.
    Steps(Result<(), StepError>, StepTimes),
    /// Bytes that were read.
    Read(io::Result<Vec<u8>>),
}

/// How long the steps of a job took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepTimes {
    began: Instant,
    /// All of them, in microseconds.
    pub total_us: u64,
    /// Each sync of a file.
    pub syncs_us: Vec<u64>,
}

impl StepTimes {
    fn begin() -> StepTimes {
        StepTimes { began: Instant::now(), total_us: 0, syncs_us: Vec::new() }
    }

    fn step_done(&mut self, is_sync: bool) {
        let now_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        if is_sync {
            self.syncs_us.push(now_us - self.total_us);
        }
        self.total_us = now_us;
    }
}

/// A step that failed. Those before it have been done, those behind it have not.
#[derive(Debug)]
pub struct StepError {
    /// Which of them.
    pub step: usize,
    /// Why.
    pub error: io::Error,
}

/// See the head of this file.
pub struct FileRoom {
    driver: Driver,
    done: Arc<Mutex<Vec<(u64, FileOutcome)>>>,
    in_flight: usize,
    wake: Arc<dyn Fn() + Send + Sync>,
    prod: Option<(Waker, Sleep)>,
}

impl fmt::Debug for FileRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileRoom").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

/// A directory, as one worker uses it.
#[derive(Clone)]
pub struct Directory {
    path: Arc<Path>,
    files: Files,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("path", &self.path).finish_non_exhaustive()
    }
}

#[derive(Clone)]
enum Files {
    Uring(Rc<RefCell<Open<Rc<tokio_uring::fs::File>>>>),
    Blocking(Arc<Mutex<Open<Arc<std::fs::File>>>>),
}

/// Open files by name, and when each was used last.
struct Open<F> {
    files: HashMap<String, (F, u64)>,
    uses: u64,
}

impl<F> Default for Open<F> {
    fn default() -> Open<F> {
        Open { files: HashMap::new(), uses: 0 }
    }
}

impl<F: Clone> Open<F> {
    fn get(&mut self, name: &str) -> Option<F> {
        self.uses += 1;
        let (file, used) = self.files.get_mut(name)?;
        *used = self.uses;
        Some(file.clone())
    }

    fn put(&mut self, name: &str, file: F) {
        self.uses += 1;
        self.files.insert(name.to_owned(), (file, self.uses));
        while self.files.len() > OPEN_FILES_MAX {
            let oldest = self.files.iter().min_by_key(|(_, (_, used))| *used).map(|(name, _)| name.clone());
            let Some(oldest) = oldest else { return };
            self.files.remove(&oldest);
        }
    }

    fn forget(&mut self, name: &str) {
        self.files.remove(name);
    }
}

impl FileRoom {
    /// A room for the runtime of `driver`. `wake` is called when something is done.
    pub fn new(driver: Driver, wake: impl Fn() + Send + Sync + 'static) -> FileRoom {
        FileRoom { driver, done: Arc::default(), in_flight: 0, wake: Arc::new(wake), prod: None }
    }

    /// Makes a directory usable, which is there.
    pub fn directory(&self, path: PathBuf) -> Directory {
        let files = match self.driver {
            Driver::Uring => Files::Uring(Rc::default()),
            Driver::Epoll => Files::Blocking(Arc::default()),
        };
        Directory { path: path.into(), files }
    }

    /// Begins a job. Its number comes back with what came of it.
    pub fn submit(&mut self, directory: &Directory, number: u64, job: FileJob) {
        self.in_flight += 1;
        let (done, wake) = (self.done.clone(), self.wake.clone());
        let tell = move |outcome| {
            done.lock().push((number, outcome));
            wake();
        };
        let path = directory.path.clone();
        match &directory.files {
            Files::Uring(open) => {
                let open = open.clone();
                tokio_uring::spawn(async move { tell(uring(&path, &open, job).await) });
            }
            Files::Blocking(open) => {
                let open = open.clone();
                tokio::task::spawn_blocking(move || tell(blocking(&path, &open, job)));
            }
        }
    }

    /// What is done, in the order in which it ended.
    pub fn take_done(&mut self) -> Vec<(u64, FileOutcome)> {
        if self.in_flight == 0 {
            return Vec::new();
        }
        let done = std::mem::take(&mut *self.done.lock());
        self.in_flight -= done.len();
        done
    }

    /// Whether something is done.
    pub fn has_done(&self) -> bool {
        self.in_flight > 0 && !self.done.lock().is_empty()
    }

    /// Has the runtime look after jobs that have begun. A worker that does not sleep calls this once per turn as long as there are any.
    ///
    /// # Errors
    ///
    /// There is no descriptor left for that.
    pub async fn look_after(&mut self) -> io::Result<()> {
        if self.driver != Driver::Uring {
            return Ok(());
        }
        // tokio-uring submits operations when its runtime is about to wait for something, and at no other time: so it is made to wait for
        // something that has happened already.
        if self.prod.is_none() {
            let waker = Waker::new()?;
            let sleep = waker.sleeper()?;
            self.prod = Some((waker, sleep));
        }
        if let Some((waker, sleep)) = &self.prod {
            waker.wake();
            sleep.wait().await;
        }
        Ok(())
    }

    /// Jobs that have begun and whose outcome has not been taken.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }
}

async fn uring(path: &Path, open: &RefCell<Open<Rc<tokio_uring::fs::File>>>, job: FileJob) -> FileOutcome {
    match job {
        FileJob::Read { name, offset, len } => {
            FileOutcome::Read(uring_read(path, open, &name, offset, len).await)
        }
        FileJob::Steps(steps) => {
            let mut times = StepTimes::begin();
            for (at, step) in steps.into_iter().enumerate() {
                let is_sync = matches!(step, FileStep::SyncData { .. });
                let done = uring_step(path, open, step).await;
                times.step_done(is_sync);
                if let Err(error) = done {
                    return FileOutcome::Steps(Err(StepError { step: at, error }), times);
                }
            }
            FileOutcome::Steps(Ok(()), times)
        }
    }
}

async fn uring_file(
    path: &Path,
    open: &RefCell<Open<Rc<tokio_uring::fs::File>>>,
    name: &str,
) -> io::Result<Rc<tokio_uring::fs::File>> {
    if let Some(file) = open.borrow_mut().get(name) {
        return Ok(file);
    }
    let opened = tokio_uring::fs::OpenOptions::new().read(true).write(true).open(path.join(name)).await?;
    let file = Rc::new(opened);
    open.borrow_mut().put(name, file.clone());
    Ok(file)
}

async fn uring_read(
    path: &Path,
    open: &RefCell<Open<Rc<tokio_uring::fs::File>>>,
    name: &str,
    offset: u64,
    len: usize,
) -> io::Result<Vec<u8>> {
    let file = uring_file(path, open, name).await?;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let (read, chunk) =
            file.read_at(Vec::with_capacity(len - bytes.len()), offset + bytes.len() as u64).await;
        match read? {
            0 => break,
            _ if bytes.is_empty() => bytes = chunk,
            _ => bytes.extend_from_slice(&chunk),
        }
    }
    Ok(bytes)
}

async fn uring_step(
    path: &Path,
    open: &RefCell<Open<Rc<tokio_uring::fs::File>>>,
    step: FileStep,
) -> io::Result<()> {
    match step {
        FileStep::Create { name } => {
            let mut options = tokio_uring::fs::OpenOptions::new();
            options.read(true).write(true).create(true).truncate(true);
            let file = Rc::new(options.open(path.join(&name)).await?);
            open.borrow_mut().put(&name, file);
        }
        FileStep::Allocate { name, offset, len } => {
            let file = uring_file(path, open, &name).await?;
            if !is_supported(file.fallocate(offset, len, 0).await)? {
                let path = path.join(name);
                blocking_call(move || lengthen(&OpenOptions::new().write(true).open(path)?, offset + len))
                    .await?;
            }
        }
        FileStep::Write { name, mut offset, buffers } => {
            let file = uring_file(path, open, &name).await?;
            for group in groups(buffers) {
                let len: u64 = group.iter().map(|buffer| buffer.0.len() as u64).sum();
                let (written, _) = file.writev_at_all(group, Some(offset)).await;
                written?;
                offset += len;
            }
        }
        FileStep::SyncData { name } => uring_file(path, open, &name).await?.sync_data().await?,
        FileStep::SyncDirectory => tokio_uring::fs::File::open(path).await?.sync_all().await?,
        FileStep::Rename { from, to } => {
            forget_both(&mut open.borrow_mut(), &from, &to);
            tokio_uring::fs::rename(path.join(from), path.join(to)).await?;
        }
        FileStep::Remove { name } => {
            open.borrow_mut().forget(&name);
            is_not_there(tokio_uring::fs::remove_file(path.join(name)).await)?;
        }
        FileStep::PunchHole { name, offset, len } => {
            let file = uring_file(path, open, &name).await?;
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            is_supported(file.fallocate(offset, len, mode).await)?;
        }
        FileStep::Truncate { name, len } => {
            // There is no operation for it before Linux 6.9.
            let path = path.join(name);
            blocking_call(move || OpenOptions::new().write(true).open(path)?.set_len(len)).await?;
        }
    }
    Ok(())
}

async fn blocking_call(call: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(call).await.map_err(io::Error::other)?
}

/// So many at a time as one call takes.
fn groups(buffers: Vec<Bytes>) -> impl Iterator<Item = Vec<Written>> {
    const BUFFERS_MAX: usize = 1024;
    let mut buffers: Vec<Written> =
        buffers.into_iter().filter(|buffer| !buffer.is_empty()).map(Written).collect();
    std::iter::from_fn(move || {
        if buffers.is_empty() {
            return None;
        }
        let rest = buffers.split_off(buffers.len().min(BUFFERS_MAX));
        Some(std::mem::replace(&mut buffers, rest))
    })
}

/// Bytes that the kernel reads while an operation is under way.
struct Written(Bytes);

// SAFETY: the bytes stay where they are, whoever holds the handle, for as long as it lives, and all of them are initialised.
unsafe impl tokio_uring::buf::IoBuf for Written {
    fn stable_ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.0.len()
    }

    fn bytes_total(&self) -> usize {
        self.0.len()
    }
}

/// Whether the file system can do it at all.
fn is_supported(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        result => result.map(|()| true),
    }
}

fn is_not_there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn lengthen(file: &std::fs::File, len: u64) -> io::Result<()> {
    if file.metadata()?.len() < len { file.set_len(len) } else { Ok(()) }
}

fn forget_both<F: Clone>(open: &mut Open<F>, from: &str, to: &str) {
    open.forget(from);
    open.forget(to);
}

/// Carries out a job and waits for it.
fn blocking(path: &Path, open: &Mutex<Open<Arc<std::fs::File>>>, job: FileJob) -> FileOutcome {
    match job {
        FileJob::Read { name, offset, len } => {
            FileOutcome::Read(blocking_read(path, open, &name, offset, len))
        }
        FileJob::Steps(steps) => {
            let mut times = StepTimes::begin();
            for (at, step) in steps.into_iter().enumerate() {
                let is_sync = matches!(step, FileStep::SyncData { .. });
                let done = blocking_step(path, open, step);
                times.step_done(is_sync);
                if let Err(error) = done {
                    return FileOutcome::Steps(Err(StepError { step: at, error }), times);
                }
            }
            FileOutcome::Steps(Ok(()), times)
        }
    }
}

fn blocking_file(
    path: &Path,
    open: &Mutex<Open<Arc<std::fs::File>>>,
    name: &str,
) -> io::Result<Arc<std::fs::File>> {
    if let Some(file) = open.lock().get(name) {
        return Ok(file);
    }
    let file = Arc::new(OpenOptions::new().read(true).write(true).open(path.join(name))?);
    open.lock().put(name, file.clone());
    Ok(file)
}

fn blocking_read(
    path: &Path,
    open: &Mutex<Open<Arc<std::fs::File>>>,
    name: &str,
    offset: u64,
    len: usize,
) -> io::Result<Vec<u8>> {
    let file = blocking_file(path, open, name)?;
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn blocking_step(path: &Path, open: &Mutex<Open<Arc<std::fs::File>>>, step: FileStep) -> io::Result<()> {
    match step {
        FileStep::Create { name } => {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(true);
            let file = Arc::new(options.open(path.join(&name))?);
            open.lock().put(&name, file);
        }
        FileStep::Allocate { name, offset, len } => {
            let file = blocking_file(path, open, &name)?;
            if !is_supported(allocate(&file, offset, len, 0))? {
                lengthen(&file, offset + len)?;
            }
        }
        FileStep::Write { name, mut offset, buffers } => {
            let file = blocking_file(path, open, &name)?;
            for buffer in buffers {
                file.write_all_at(&buffer, offset)?;
                offset += buffer.len() as u64;
            }
        }
        FileStep::SyncData { name } => blocking_file(path, open, &name)?.sync_data()?,
        FileStep::SyncDirectory => std::fs::File::open(path)?.sync_all()?,
        FileStep::Truncate { name, len } => blocking_file(path, open, &name)?.set_len(len)?,
        FileStep::PunchHole { name, offset, len } => {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            is_supported(allocate(&*blocking_file(path, open, &name)?, offset, len, mode))?;
        }
        FileStep::Rename { from, to } => {
            forget_both(&mut open.lock(), &from, &to);
            std::fs::rename(path.join(from), path.join(to))?;
        }
        FileStep::Remove { name } => {
            open.lock().forget(&name);
            is_not_there(std::fs::remove_file(path.join(name)))?;
        }
    }
    Ok(())
}

fn allocate(file: &std::fs::File, offset: u64, len: u64, mode: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as the file is borrowed, and the call uses no memory of ours.
    let result =
        unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as libc::off_t, len as libc::off_t) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Carries out steps in a directory before there are workers, or beside them.
///
/// # Errors
///
/// A step failed; those behind it have not been done.
pub fn carry_out(path: &Path, steps: Vec<FileStep>) -> io::Result<()> {
    let open = Mutex::default();
    steps.into_iter().try_for_each(|step| blocking_step(path, &open, step))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn steps() -> Vec<FileStep> {
        let name = || "a".to_owned();
        vec![
            FileStep::Create { name: name() },
            FileStep::Allocate { name: name(), offset: 0, len: 1 << 16 },
            FileStep::Write {
                name: name(),
                offset: 0,
                buffers: vec!["hello ".into(), Bytes::new(), "world".into()],
            },
            FileStep::SyncData { name: name() },
            FileStep::SyncDirectory,
            FileStep::Write { name: name(), offset: 11, buffers: vec![vec![b'x'; 8192].into(); 3] },
            FileStep::PunchHole { name: name(), offset: 4096, len: 4096 },
            FileStep::Truncate { name: name(), len: 8192 },
            FileStep::Rename { from: name(), to: "b".to_owned() },
            FileStep::Create { name: name() },
            FileStep::Remove { name: name() },
            FileStep::Remove { name: name() },
        ]
    }

    fn check(path: &Path) {
        let bytes = std::fs::read(path.join("b")).unwrap();
        assert_eq!(bytes.len(), 8192);
        assert_eq!(&bytes[..12], b"hello worldx");
        assert!(bytes[4096..].iter().all(|byte| *byte == 0));
        assert!(!path.join("a").exists());
    }

    async fn play(driver: Driver) {
        let place = tempfile::tempdir().unwrap();
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = woken.clone();
        let mut room = FileRoom::new(driver, move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        let directory = room.directory(place.path().into());
        room.submit(&directory, 7, FileJob::Steps(steps()));
        let mut done = Vec::new();
        while room.in_flight() > 0 {
            room.look_after().await.unwrap();
            done.extend(room.take_done());
        }
        let [(7, FileOutcome::Steps(Ok(()), times))] = &done[..] else { panic!("{done:?}") };
        assert!(times.syncs_us.len() == 1 && times.total_us >= times.syncs_us[0], "{times:?}");
        check(place.path());
        room.submit(&directory, 8, FileJob::Read { name: "b".to_owned(), offset: 6, len: 5 });
        room.submit(&directory, 9, FileJob::Read { name: "b".to_owned(), offset: 8190, len: 100 });
        room.submit(&directory, 10, FileJob::Read { name: "none".to_owned(), offset: 0, len: 1 });
        let failing =
            vec![FileStep::SyncData { name: "none".to_owned() }, FileStep::Remove { name: "b".to_owned() }];
        room.submit(&directory, 11, FileJob::Steps(failing));
        while room.in_flight() > 0 {
            room.look_after().await.unwrap();
            done.extend(room.take_done());
        }
        done.sort_by_key(|(number, _)| *number);
        assert!(matches!(&done[1], (8, FileOutcome::Read(Ok(bytes))) if bytes == b"world"), "{done:?}");
        assert!(matches!(&done[2], (9, FileOutcome::Read(Ok(bytes))) if bytes.len() == 2), "{done:?}");
        assert!(matches!(&done[3], (10, FileOutcome::Read(Err(_)))), "{done:?}");
        assert!(matches!(&done[4], (11, FileOutcome::Steps(Err(_), _))), "{done:?}");
        assert!(place.path().join("b").exists(), "behind a step that failed nothing is done");
        assert_eq!(woken.load(Ordering::SeqCst), 5);
    }

    #[test]
    fn steps_are_done_in_order_with_io_uring() {
        // Where io_uring is refused the other test says the same.
        if io_uring::IoUring::new(2).is_ok() {
            tokio_uring::start(play(Driver::Uring));
        }
    }

    #[test]
    fn steps_are_done_in_order_by_threads() {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(play(Driver::Epoll));
    }

    #[test]
    fn steps_are_done_before_there_are_workers() {
        let place = tempfile::tempdir().unwrap();
        carry_out(place.path(), steps()).unwrap();
        check(place.path());
    }
}
