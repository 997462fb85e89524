//! A server that `compare` starts for one measurement and kills afterwards.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::args::Options;
use crate::client::{Connection, Target};
use crate::error::BenchError;

/// How long a server may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// What a store directory's name begins with; the process id follows.
const STORE_PREFIX: &str = "ringmain-bench-store-";

/// How a server is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// As it is without a configuration.
    Core,
    /// With JetStream, and nothing said of when it syncs.
    JetStream,
    /// With JetStream, and everything on the disk before it is acknowledged.
    JetStreamAlways,
    /// The measurement starts the server itself.
    StartsItself,
}

/// A directory for the streams of one server; it goes when dropped.
pub struct StoreDirectory {
    path: PathBuf,
}

impl StoreDirectory {
    /// Makes one below `parent`.
    pub fn make(parent: &Path) -> Result<StoreDirectory, BenchError> {
        let path = parent.join(format!("{STORE_PREFIX}{}-{:x}", std::process::id(), fastrand::u64(..)));
        std::fs::create_dir_all(&path).map_err(BenchError::io(format!("making {}", path.display())))?;
        Ok(StoreDirectory { path })
    }

    /// Writes the configuration of a server that has its streams here.
    fn configure(&self, setting: Setting) -> Result<PathBuf, BenchError> {
        let file = self.path.join("server.conf");
        let sync = if setting == Setting::JetStreamAlways { "sync_interval: always" } else { "" };
        let text = format!("jetstream {{\n  store_dir: \"{}\"\n  {sync}\n}}\n", self.path.display());
        std::fs::write(&file, text).map_err(BenchError::io(format!("writing {}", file.display())))?;
        Ok(file)
    }
}

impl Drop for StoreDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Removes store directories of runs that were killed.
pub fn remove_abandoned(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(STORE_PREFIX)) else { continue };
        let pid = rest.split('-').next().unwrap_or(rest);
        if !Path::new("/proc").join(pid).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The kind of file system that a directory is on, by the mount that is nearest to it.
pub fn file_system_of(directory: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let place = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (at, kind) = (words.next()?, words.next()?);
            place.starts_with(at).then_some((at.len(), kind))
        })
        .max_by_key(|(len, _)| *len)
        .map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub address: String,
}

impl Server {
    /// Starts `program` on a free port of 127.0.0.1 and waits until it accepts a client.
    pub fn start(
        program: &Path,
        setting: Setting,
        store: Option<&StoreDirectory>,
    ) -> Result<Server, BenchError> {
        let port = free_port()?;
        let mut log = temporary_file()?;
        let config = store.map(|store| store.configure(setting)).transpose()?;
        let mut command = Command::new(program);
        // SAFETY: the closure only makes one system call, which is allowed between fork and exec.
        unsafe { command.pre_exec(end_with_parent) };
        let child = command
            .args(["-a", "127.0.0.1", "-p", &port.to_string()])
            .args(config.iter().flat_map(|file| [Path::new("-c"), file]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.try_clone().map_err(BenchError::io("a log file"))?)
            .spawn()
            .map_err(BenchError::io(format!("starting {}", program.display())))?;
        let mut server = Server { child, address: format!("127.0.0.1:{port}") };
        let options =
            Options { server: server.address.clone(), ..Options::for_command(crate::args::Command::Publish) };
        let target = Target::new(&options)?;
        let started = Instant::now();
        loop {
            let error = match Connection::open(&target) {
                Ok(_) => return Ok(server),
                Err(error) => error,
            };
            let ended = server.child.try_wait().map_err(BenchError::io("waiting for the server"))?;
            if ended.is_some() || started.elapsed() > START_TIMEOUT {
                let reason = ended.map_or(error.to_string(), |status| status.to_string());
                let said = last_lines(&mut log);
                return Err(BenchError::Spawn(format!(
                    "{} did not start ({reason}){said}",
                    program.display()
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Asks the server to end, and waits until it has.
    pub fn stop(&mut self) -> Result<(), BenchError> {
        // SAFETY: kill takes two integers, and the process is a child that has not been waited for.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let asked = Instant::now();
        while self.child.try_wait().map_err(BenchError::io("waiting for the server"))?.is_none() {
            if asked.elapsed() > STOP_TIMEOUT {
                return Err(BenchError::Spawn("the server does not end".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the server ended, if it has: a crash explains a failed measurement better than a closed connection.
    pub fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `program --version` prints, without its own name.
pub fn version_of(program: &Path) -> Result<String, BenchError> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .map_err(BenchError::io(format!("asking {} for its version", program.display())))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or("").trim();
    Ok(line.rsplit(' ').next().unwrap_or(line).to_owned())
}

/// In the child: the kernel kills it when the tool ends in whatever way, so that no server is left behind.
fn end_with_parent() -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and changes only the calling process.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn free_port() -> Result<u16, BenchError> {
    let failed = || BenchError::io("looking for a free port");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed())?;
    Ok(listener.local_addr().map_err(failed())?.port())
}

/// A file without a name: gone when closed, also if this process is killed.
fn temporary_file() -> Result<File, BenchError> {
    let path =
        std::env::temp_dir().join(format!("ringmain-bench-{}-{:x}", std::process::id(), fastrand::u64(..)));
    let failed = || BenchError::io("a log file");
    let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(failed())?;
    std::fs::remove_file(&path).map_err(failed())?;
    Ok(file)
}

fn last_lines(log: &mut File) -> String {
    let mut text = String::new();
    if log.rewind().is_err() || log.read_to_string(&mut text).is_err() || text.trim().is_empty() {
        return String::new();
    }
    let lines: Vec<&str> = text.trim().lines().rev().take(5).collect();
    format!(": {}", lines.into_iter().rev().collect::<Vec<_>>().join(" / "))
}
