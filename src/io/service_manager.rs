//! Tells the service manager how far the server is, in systemd's protocol (`sd_notify(3)`): lines of text in a
//! datagram to the socket that the environment names. Without one there is nobody to tell, and all of this does nothing.
//!
//! The messages are few and small, and the manager reads them at once; still, one that does not is not waited for long.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long a manager that does not read may hold us up.
const SEND_MAX: Duration = Duration::from_secs(1);

/// The manager, if there is one.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
}

impl ServiceManager {
    /// The one that the variable `NOTIFY_SOCKET` names: a path, or `@` and an abstract name.
    ///
    /// # Errors
    ///
    /// There is such a variable, and its socket cannot be reached.
    pub fn from_environment() -> io::Result<ServiceManager> {
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(address) if !address.is_empty() => ServiceManager::at(&address),
            _ => Ok(ServiceManager::default()),
        }
    }

    fn at(address: &OsStr) -> io::Result<ServiceManager> {
        let address = match address.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_write_timeout(Some(SEND_MAX))?;
        Ok(ServiceManager { socket: Some(socket) })
    }

    /// The server is up, or has ended a reload, whichever way.
    ///
    /// # Errors
    ///
    /// As for the others: the manager does not take it.
    pub fn ready(&self) -> io::Result<()> {
        self.send("READY=1")
    }

    /// A reload begins. The manager compares the time with that of its own signal.
    ///
    /// # Errors
    ///
    /// The manager does not take it.
    pub fn reloading(&self) -> io::Result<()> {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_us()))
    }

    /// The server ends.
    ///
    /// # Errors
    ///
    /// The manager does not take it.
    pub fn stopping(&self) -> io::Result<()> {
        self.send("STOPPING=1")
    }

    /// A word for who asks how the service does.
    ///
    /// # Errors
    ///
    /// The manager does not take it.
    pub fn status(&self, text: &str) -> io::Result<()> {
        self.send(&format!("STATUS={text}"))
    }

    fn send(&self, message: &str) -> io::Result<()> {
        match &self.socket {
            Some(socket) => socket.send(message.as_bytes()).map(drop),
            None => Ok(()),
        }
    }
}

/// The system's monotonic clock, which `Instant` does not show.
fn monotonic_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live structure of the right type; this clock exists everywhere.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_reach_a_socket_by_path_and_by_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("ringmain-test-{}", std::process::id());
        let by_path = (UnixDatagram::bind(&path).unwrap(), path.into_os_string());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = (UnixDatagram::bind_addr(&abstract_address).unwrap(), format!("@{name}").into());
        for (socket, address) in [by_path, by_name] {
            let manager = ServiceManager::at(&address).unwrap();
            let mut buffer = [0; 100];
            let mut received = || {
                let len = socket.recv(&mut buffer).unwrap();
                String::from_utf8(buffer[..len].to_vec()).unwrap()
            };
            manager.ready().unwrap();
            assert_eq!(received(), "READY=1");
            let before = monotonic_us();
            manager.reloading().unwrap();
            let text = received();
            let at: u64 = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
            assert!((before..=monotonic_us()).contains(&at));
            manager.status("well").unwrap();
            assert_eq!(received(), "STATUS=well");
            manager.stopping().unwrap();
            assert_eq!(received(), "STOPPING=1");
        }
    }

    #[test]
    fn without_a_manager_nothing_is_sent_and_a_missing_one_is_an_error() {
        ServiceManager::default().ready().unwrap();
        assert!(ServiceManager::at(OsStr::new("/nonexistent/notify")).is_err());
    }
}
