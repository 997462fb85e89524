//! `--signal`: tells running servers to stop, reopen their log, and so on. The messages are the reference's, except that
//! the name in them is that of this executable: servers are found by it.

use std::io;
use std::path::Path;

use crate::base::system_error;
use crate::config::{Signal, SignalTarget};
use crate::io::process;

/// Why a signal was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// The pid file does not hold a process id.
    #[error("invalid pid: {0}")]
    InvalidPid(String),
    /// Nobody to send it to.
    #[error("no {0} processes running")]
    NoProcess(String),
    /// Too many, and which.
    #[error("multiple {name} processes running:\n{}", lines(pids))]
    ManyProcesses {
        /// What they are called.
        name: String,
        /// Their ids.
        pids: Vec<i32>,
    },
    /// The system refused it for some.
    #[error("{}", lines(refusals))]
    Refused {
        /// For which, and why.
        refusals: Vec<Refusal>,
    },
}

/// One process that did not get the signal.
#[derive(Debug, thiserror::Error)]
#[error("signal {name:?} {pid}: {}", system_error::text(cause))]
pub struct Refusal {
    /// The signal's name on the command line.
    name: &'static str,
    pid: i32,
    cause: io::Error,
}

fn lines<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Sends `signal` to `target`.
///
/// # Errors
///
/// See [`SignalError`].
pub fn send(signal: Signal, target: &SignalTarget) -> Result<(), SignalError> {
    let pids = match target {
        SignalTarget::Pid(pid) => vec![*pid],
        SignalTarget::PidFile(path) => vec![pid_in(path)?],
        SignalTarget::OnlyProcess => {
            let (name, pids) = servers();
            if pids.len() > 1 {
                return Err(SignalError::ManyProcesses { name, pids });
            }
            some(name, pids)?
        }
        SignalTarget::Prefix(prefix) => {
            let (name, mut pids) = servers();
            pids.retain(|pid| pid.to_string().starts_with(prefix));
            some(name, pids)?
        }
    };
    let (number, name) = match signal {
        Signal::Stop => (libc::SIGKILL, "stop"),
        Signal::Quit => (libc::SIGINT, "quit"),
        Signal::Term => (libc::SIGTERM, "term"),
        Signal::Reopen => (libc::SIGUSR1, "reopen"),
        Signal::Reload => (libc::SIGHUP, "reload"),
        Signal::LameDuck => (libc::SIGUSR2, "ldm"),
    };
    let send_one = |pid| process::send_signal(pid, number).err().map(|cause| Refusal { name, pid, cause });
    let refusals: Vec<Refusal> = pids.into_iter().filter_map(send_one).collect();
    if refusals.is_empty() { Ok(()) } else { Err(SignalError::Refused { refusals }) }
}

fn pid_in(path: &Path) -> Result<i32, SignalError> {
    let invalid = || SignalError::InvalidPid(path.display().to_string());
    let text = std::fs::read_to_string(path).map_err(|_| invalid())?;
    text.trim().parse().ok().filter(|pid| *pid > 0).ok_or_else(invalid)
}

/// The name of this executable, and the other processes that have it, in ascending order.
fn servers() -> (String, Vec<i32>) {
    let own = std::process::id() as i32;
    let name = process::name_of(own);
    let mut pids: Vec<i32> =
        process::ids().filter(|pid| *pid != own && process::name_of(*pid) == name).collect();
    pids.sort_unstable();
    (name, pids)
}

fn some(name: String, pids: Vec<i32>) -> Result<Vec<i32>, SignalError> {
    if pids.is_empty() { Err(SignalError::NoProcess(name)) } else { Ok(pids) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_must_hold_a_process_id() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        for (text, expected) in
            [("123", Some(123)), ("123\n", Some(123)), ("", None), ("x", None), ("-1", None)]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(pid_in(&path).ok(), expected, "{text:?}");
        }
        assert!(matches!(pid_in(Path::new("/nonexistent/pid")), Err(SignalError::InvalidPid(_))));
    }
}
