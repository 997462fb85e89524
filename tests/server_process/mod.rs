//! A server under test: a child process on a free port, killed and its files removed on drop.
//!
//! `RINGMAIN_IO` says what is to drive the candidate's sockets: `uring` and `epoll` are what `--io` takes; with `refused`
//! the candidate is left to choose, on a machine that refuses io_uring as a container's seccomp profile does.
//!
//! Knows nothing of the protocol beyond the log lines that every tool around nats-server scrapes
//! (`Listening for client connections on HOST:PORT`, `Server is ready`). Used by several test binaries,
//! each of which needs a part of it.
#![allow(dead_code)]

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A debug build on a loaded machine may need a while; a healthy server needs a few milliseconds.
const READY_WITHIN: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(2);

/// The server that the tests judge: `RINGMAIN_BIN`, or the `ringmain` that cargo has just built.
pub fn candidate() -> PathBuf {
    match std::env::var_os("RINGMAIN_BIN") {
        Some(path) => path.into(),
        None => env!("CARGO_BIN_EXE_ringmain").into(),
    }
}

/// The real nats-server: `NATS_SERVER`, or the one that the test environment installs; `None` when absent.
pub fn reference() -> Option<PathBuf> {
    let path = match std::env::var_os("NATS_SERVER") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join(".deps/py/bin/nats-server"),
    };
    path.is_file().then_some(path)
}

/// Prints past the test harness's capture: what was skipped must show in a passing run too.
pub fn announce(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A running server.
pub struct ServerProcess {
    child: Child,
    dir: tempfile::TempDir,
    /// Where clients connect.
    pub address: SocketAddr,
}

impl ServerProcess {
    /// Starts `binary` on a free port of 127.0.0.1 with `config` as its configuration file (none if empty).
    pub fn start(binary: &Path, config: &str) -> Result<Self, String> {
        Self::start_with(binary, config, &["-a", "127.0.0.1", "-p", "-1"])
    }

    /// As [`Self::start`], where io_uring is refused.
    pub fn start_without_io_uring(binary: &Path, config: &str) -> Result<Self, String> {
        Self::start_refusing(libc::SYS_io_uring_setup, binary, config)
    }

    /// As [`Self::start`], where a system call is refused.
    pub fn start_refusing(call: libc::c_long, binary: &Path, config: &str) -> Result<Self, String> {
        let mut command = Command::new(binary);
        command.args(["-a", "127.0.0.1", "-p", "-1"]);
        refuse(call, &mut command);
        Self::start_command(command, config)
    }

    /// As [`Self::start`], where only so much memory may be locked.
    pub fn start_with_locked_memory(bytes: u64, binary: &Path, config: &str) -> Result<Self, String> {
        let mut command = Command::new(binary);
        command.args(["-a", "127.0.0.1", "-p", "-1"]);
        limit_locked_memory(bytes, &mut command);
        Self::start_command(command, config)
    }

    /// As [`Self::start`], with all other arguments chosen by the caller. They must make it listen on a port.
    pub fn start_with(binary: &Path, config: &str, arguments: &[&str]) -> Result<Self, String> {
        let mut command = Command::new(binary);
        command.args(arguments);
        match std::env::var("RINGMAIN_IO") {
            Ok(io) if binary == candidate() && io == "refused" => {
                refuse(libc::SYS_io_uring_setup, &mut command)
            }
            Ok(io) if binary == candidate() => drop(command.args(["--io", &io])),
            _ => {}
        }
        Self::start_command(command, config)
    }

    fn start_command(mut command: Command, config: &str) -> Result<Self, String> {
        let binary = command.get_program().to_string_lossy().into_owned();
        let dir = tempfile::tempdir().map_err(|e| format!("temporary directory: {e}"))?;
        let log_path = dir.path().join("log");
        let log = File::create(&log_path).map_err(|e| format!("{}: {e}", log_path.display()))?;
        command.current_dir(dir.path());
        if !config.is_empty() {
            let path = dir.path().join("server.conf");
            fs::write(&path, config).map_err(|e| format!("{}: {e}", path.display()))?;
            command.arg("-c").arg(path);
        }
        let stdout = log.try_clone().map_err(|e| format!("log: {e}"))?;
        command.stdin(Stdio::null()).stdout(stdout).stderr(log);
        let child = command.spawn().map_err(|e| format!("{binary}: {e}"))?;
        let unset = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { child, dir, address: unset };

        let give_up = Instant::now() + READY_WITHIN;
        loop {
            let log = server.log();
            if let (Some(address), true) = (listening_address(&log), log.contains("Server is ready")) {
                server.address = address;
                return Ok(server);
            }
            if let Ok(Some(status)) = server.child.try_wait() {
                return Err(format!("{binary} ended ({status}) before it was ready:\n{}", server.log()));
            }
            if Instant::now() > give_up {
                return Err(format!("{binary} was not ready within {READY_WITHIN:?}:\n{log}"));
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    /// Everything that the server has written to stdout and stderr so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Where the monitoring is, of a server that has been told to have it.
    pub fn monitoring(&self) -> SocketAddr {
        let log = self.log();
        ["http", "https"]
            .iter()
            .find_map(|scheme| address_behind(&log, &format!("Starting {scheme} monitor on ")))
            .expect("a log line that names it")
    }

    /// Where clients connect by WebSocket, of a server that has been told to have them.
    pub fn websocket(&self) -> SocketAddr {
        let log = self.log();
        let (_, rest) =
            log.split_once("Listening for websocket clients on ").expect("a log line that names it");
        let (_, rest) = rest.split_once("://").expect("a scheme");
        rest.lines().next().expect("a line").trim().parse().expect("an address")
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A path inside the server's own temporary directory, which is also its working directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("own child")
    }

    /// Sends a signal to the server.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a pid fits");
        // SAFETY: kill takes no pointers, and the pid is that of a child not yet waited for.
        let result = unsafe { libc::kill(pid, signal) };
        assert_eq!(result, 0, "kill: {}", io::Error::last_os_error());
    }

    /// The entries of `/proc/PID/fd`.
    pub fn open_files(&self) -> usize {
        let listing = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        listing.expect("/proc of a live child").count()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does to the command's process what a container's seccomp profile does: `call` fails with EPERM.
pub fn refuse(call: libc::c_long, command: &mut Command) {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    // SAFETY: between fork and exec only two system calls are made, on memory of this closure.
    unsafe {
        command.pre_exec(move || {
            let mut filter = [
                statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
                statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
                statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
                statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
            ];
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
            {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// Makes the command's process one that may lock only so much memory. The capability to lock more, which root has, is
/// given up.
fn limit_locked_memory(bytes: u64, command: &mut Command) {
    /// Of `linux/capability.h`.
    const CAP_IPC_LOCK: libc::c_ulong = 14;
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: between fork and exec only two system calls are made, on memory of this closure.
    unsafe {
        command.pre_exec(move || {
            // Who may not do this has no such capability.
            libc::prctl(libc::PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0);
            match libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
}

/// Calls `condition` until it holds; panics with `what` when it does not within `limit`.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < give_up, "not within {limit:?}: {what}");
        std::thread::sleep(POLL_EVERY);
    }
}

/// Raises this process's own limit: the connections of a test are its files too.
pub fn raise_open_files_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid pointer to a live rlimit.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
}

fn listening_address(log: &str) -> Option<SocketAddr> {
    address_behind(log, "Listening for client connections on ")
}

fn address_behind(log: &str, text: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once(text)?;
    let (address, _) = rest.split_once('\n')?;
    address.trim().replace("0.0.0.0", "127.0.0.1").parse().ok()
}
