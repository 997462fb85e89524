//! `--signal`: tells a running server to stop, reopen its log, and so on. The messages are the reference's.

use std::path::Path;

use crate::config::{Signal, SignalTarget};
use crate::io::process;

/// Why a signal was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// The pid file does not hold a process id.
    #[error("invalid pid: {0}")]
    InvalidPid(String),
    /// Nobody to send it to.
    #[error("no ringmain processes running")]
    NoProcess,
    /// Too many, and which.
    #[error("multiple ringmain processes running:\n{0}")]
    ManyProcesses(String),
    /// The system refused.
    #[error("signal {name:?} {pid}: {cause}")]
    Refused {
        /// The signal's name on the command line.
        name: &'static str,
        /// The process.
        pid: i32,
        /// Why.
        cause: std::io::Error,
    },
}

/// Sends `signal` to `target`.
///
/// # Errors
///
/// See [`SignalError`].
pub fn send(signal: Signal, target: &SignalTarget) -> Result<(), SignalError> {
    let pid = match target {
        SignalTarget::Pid(pid) => *pid,
        SignalTarget::PidFile(path) => pid_in(path)?,
        SignalTarget::OnlyProcess => only_process()?,
    };
    let (number, name) = match signal {
        Signal::Stop => (libc::SIGKILL, "stop"),
        Signal::Quit => (libc::SIGINT, "quit"),
        Signal::Term => (libc::SIGTERM, "term"),
        Signal::Reopen => (libc::SIGUSR1, "reopen"),
        Signal::Reload => (libc::SIGHUP, "reload"),
        Signal::LameDuck => (libc::SIGUSR2, "ldm"),
    };
    process::send_signal(pid, number).map_err(|cause| SignalError::Refused { name, pid, cause })
}

fn pid_in(path: &Path) -> Result<i32, SignalError> {
    let invalid = || SignalError::InvalidPid(path.display().to_string());
    let text = std::fs::read_to_string(path).map_err(|_| invalid())?;
    text.trim().parse().ok().filter(|pid| *pid > 0).ok_or_else(invalid)
}

/// The one other process with this program's name.
fn only_process() -> Result<i32, SignalError> {
    let own = std::process::id() as i32;
    let name = process::name_of(own);
    let mut pids: Vec<i32> = process::ids().filter(|pid| *pid != own && process::name_of(*pid) == name).collect();
    match (pids.pop(), pids.is_empty()) {
        (None, _) => Err(SignalError::NoProcess),
        (Some(pid), true) => Ok(pid),
        (Some(pid), false) => {
            pids.push(pid);
            let list: Vec<String> = pids.iter().map(ToString::to_string).collect();
            Err(SignalError::ManyProcesses(list.join("\n")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_must_hold_a_process_id() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        for (text, expected) in [("123", Some(123)), ("123\n", Some(123)), ("", None), ("x", None), ("-1", None)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(pid_in(&path).ok(), expected, "{text:?}");
        }
        assert!(matches!(pid_in(Path::new("/nonexistent/pid")), Err(SignalError::InvalidPid(_))));
    }
}
