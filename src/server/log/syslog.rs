//! The log as syslog messages, in the forms of the reference: `<29>Nov 25 03:59:56 TAG[PID]: text` for the local syslog
//! and for a stream socket by path, `<5>2026-11-25T03:59:56Z HOST TAG[PID]: text` over the network.
//!
//! A syslog may be slow, may stall and may go away; nothing but the log thread ever waits for it, and that never for
//! longer than [`PATIENCE`] (names are looked up by the system's resolver, which has its own patience). Lines that it
//! does not take are counted as lost, and when it takes lines again it is told how many. Messages go into a socket one by
//! one or, where it is a stream, together; what a stream has not taken as a whole is sent again over the next one.

use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::queue::Gauge;
use crate::broker::Level;
use crate::config::RemoteSyslog;

/// Where the system's own syslog listens.
const LOCAL_PATHS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

/// How long connecting and sending may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between attempts to connect.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A datagram is cut here: sockets refuse larger ones, and a syslog takes far less.
const DATAGRAM_BYTES_MAX: usize = 60 * 1024;

/// Collected messages for a stream from which they are sent.
const COLLECTED_BYTES: usize = 64 * 1024;

/// The facilities of the reference: local messages come from a daemon, others from what nothing was said about.
const FACILITY_LOCAL: u8 = 3 << 3;
const FACILITY_REMOTE: u8 = 0;

/// Messages on their way to a syslog.
#[derive(Debug)]
pub(super) struct Syslog {
    link: Link,
    head: Head,
    /// Messages for a stream, whole ones.
    collected: Vec<u8>,
    message: Vec<u8>,
    gauge: Arc<Gauge>,
}

/// The way to a syslog.
#[derive(Debug)]
struct Link {
    /// `None` for the local one.
    remote: Option<RemoteSyslog>,
    connection: Option<Connection>,
    /// No attempt to connect before then.
    retry_at: Option<Instant>,
}

#[derive(Debug)]
enum Connection {
    Udp(UdpSocket),
    Tcp(TcpStream),
    UnixDatagram(UnixDatagram),
    UnixStream(UnixStream),
}

impl Syslog {
    /// The local syslog, or a remote one. It is connected to with the first line.
    pub fn new(remote: Option<RemoteSyslog>, gauge: &Arc<Gauge>) -> Syslog {
        let head =
            Head::new(matches!(remote, Some(RemoteSyslog::Udp(_) | RemoteSyslog::Tcp(_))), remote.is_none());
        let link = Link { remote, connection: None, retry_at: None };
        Syslog { link, head, collected: Vec::new(), message: Vec::new(), gauge: gauge.clone() }
    }

    /// Whether it can take lines, as far as is known. Connects if that is due.
    pub fn is_working(&mut self) -> bool {
        self.link.connected().is_some()
    }

    /// Sends a line, or collects it for a stream.
    pub fn line(&mut self, at: SystemTime, level: Level, text: &str) {
        let Some(connection) = self.link.connected() else { return self.gauge.note_lost(1) };
        let is_stream = connection.is_stream();
        self.message.clear();
        self.head.write(&mut self.message, at, level);
        let room = if is_stream { usize::MAX } else { DATAGRAM_BYTES_MAX - self.message.len() - 1 };
        let end = (0..=room.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        self.message.extend_from_slice(&text.as_bytes()[..end]);
        self.message.push(b'\n');
        if !is_stream {
            return self.send_datagram();
        }
        self.collected.extend_from_slice(&self.message);
        if self.collected.len() >= COLLECTED_BYTES {
            self.flush();
        }
    }

    /// Sends what is collected.
    pub fn flush(&mut self) {
        if self.collected.is_empty() {
            return;
        }
        let mut sent = 0;
        // A stream that has been closed meanwhile shows only now: a second one gets what the first has not taken.
        for _ in 0..2 {
            let Some(connection) = self.link.connected().filter(|connection| connection.is_stream()) else {
                break;
            };
            match connection.write_stream(&self.collected[sent..]) {
                Ok(()) => {
                    self.gauge.note_written(self.collected.len());
                    return self.collected.clear();
                }
                Err((taken, error)) => {
                    // The message in the middle of which it broke off is sent again as a whole.
                    let taken = &self.collected[sent..sent + taken];
                    sent += taken.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                    let stalled = is_timeout(&error);
                    self.link.disconnect(&error, stalled);
                    if stalled {
                        break;
                    }
                }
            }
        }
        let lost = self.collected[sent..].iter().filter(|byte| **byte == b'\n').count();
        self.gauge.note_lost(lost as u64);
        self.collected.clear();
    }

    fn send_datagram(&mut self) {
        for attempt in 0..2 {
            let Some(connection) = self.link.connected().filter(|connection| !connection.is_stream()) else {
                break;
            };
            let Err(error) = connection.send_datagram(&self.message) else {
                return self.gauge.note_written(self.message.len());
            };
            if attempt == 1 || is_timeout(&error) {
                self.link.disconnect(&error, true);
            } else if matches!(self.link.connection, Some(Connection::UnixDatagram(_))) {
                // It may be there again, behind a new socket. Over UDP the error is about the datagram before.
                self.link.connection = None;
            }
        }
        self.gauge.note_lost(1);
    }
}

impl Link {
    /// The connection, made anew if that is due.
    fn connected(&mut self) -> Option<&mut Connection> {
        if self.connection.is_none() && self.retry_at.is_none_or(|at| Instant::now() >= at) {
            match Connection::open(self.remote.as_ref()) {
                Ok(connection) => (self.connection, self.retry_at) = (Some(connection), None),
                Err(error) => {
                    // Said once, where else there would be nothing.
                    if self.retry_at.is_none() {
                        complain(self.remote.as_ref(), &error);
                    }
                    self.retry_at = Some(Instant::now() + RETRY_AFTER);
                }
            }
        }
        self.connection.as_mut()
    }

    /// Gives the connection up. `pause`: for a while, because it is no use to connect again at once.
    fn disconnect(&mut self, error: &io::Error, pause: bool) {
        self.connection = None;
        if pause {
            complain(self.remote.as_ref(), error);
            self.retry_at = Some(Instant::now() + RETRY_AFTER);
        }
    }
}

impl Connection {
    fn open(remote: Option<&RemoteSyslog>) -> io::Result<Connection> {
        match remote {
            None => {
                let datagrams =
                    || LOCAL_PATHS.iter().find_map(|path| open_unix(Path::new(path), Type::DGRAM).ok());
                if let Some(socket) = datagrams() {
                    return Ok(Connection::UnixDatagram(socket.into()));
                }
                let streams =
                    || LOCAL_PATHS.iter().find_map(|path| open_unix(Path::new(path), Type::STREAM).ok());
                let none = || io::Error::new(io::ErrorKind::NotFound, "nothing listens on /dev/log");
                Ok(Connection::UnixStream(streams().ok_or_else(none)?.into()))
            }
            Some(RemoteSyslog::Unix(path)) => {
                Ok(Connection::UnixStream(open_unix(path, Type::STREAM)?.into()))
            }
            Some(RemoteSyslog::Udp(addr)) => first_that_works(addr, |addr| {
                let any = if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.set_write_timeout(Some(PATIENCE))?;
                socket.connect(addr)?;
                Ok(Connection::Udp(socket))
            }),
            Some(RemoteSyslog::Tcp(addr)) => first_that_works(addr, |addr| {
                let stream = TcpStream::connect_timeout(addr, PATIENCE)?;
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                Ok(Connection::Tcp(stream))
            }),
        }
    }

    fn is_stream(&self) -> bool {
        matches!(self, Connection::Tcp(_) | Connection::UnixStream(_))
    }

    /// Sends all, or says how much was taken before it broke off.
    fn write_stream(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        // A socket takes bytes for some time after the other side has gone.
        if self.is_closed() {
            return Err((0, io::ErrorKind::BrokenPipe.into()));
        }
        let mut taken = 0;
        while taken < bytes.len() {
            let result = match self {
                Connection::Tcp(stream) => stream.write(&bytes[taken..]),
                Connection::UnixStream(stream) => stream.write(&bytes[taken..]),
                Connection::Udp(_) | Connection::UnixDatagram(_) => unreachable!("no stream"),
            };
            match result {
                Ok(0) => return Err((taken, io::ErrorKind::WriteZero.into())),
                Ok(len) => taken += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((taken, error)),
            }
        }
        Ok(())
    }

    fn is_closed(&self) -> bool {
        let socket = match self {
            Connection::Tcp(stream) => SockRef::from(stream),
            Connection::UnixStream(stream) => SockRef::from(stream),
            Connection::Udp(_) | Connection::UnixDatagram(_) => return false,
        };
        let mut byte = [MaybeUninit::uninit()];
        let read = socket.recv_with_flags(&mut byte, libc::MSG_PEEK | libc::MSG_DONTWAIT);
        read.is_ok_and(|len| len == 0)
    }

    fn send_datagram(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Connection::Udp(socket) => socket.send(message).map(drop),
            Connection::UnixDatagram(socket) => socket.send(message).map(drop),
            Connection::Tcp(_) | Connection::UnixStream(_) => unreachable!("a stream"),
        }
    }
}

/// The timeout is set first: it bounds connecting too, where the other side's queue is full.
fn open_unix(path: &Path, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

fn first_that_works<T>(addr: &str, open: impl Fn(&SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for addr in addr.to_socket_addrs()? {
        match open(&addr) {
            Ok(opened) => return Ok(opened),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn complain(remote: Option<&RemoteSyslog>, error: &io::Error) {
    let name = remote.map_or_else(|| "local".to_owned(), RemoteSyslog::to_string);
    let _ = writeln!(
        io::stderr(),
        "ringmain: syslog ({name}): {error}; log lines are lost until it is there again"
    );
}

/// What stands before the text of a message.
#[derive(Debug)]
struct Head {
    is_remote: bool,
    facility: u8,
    /// `HOST TAG[PID]: ` or `TAG[PID]: `.
    origin: String,
    zone: TimeZone,
    /// The second that was last put into words, and the words.
    second: Option<u64>,
    words: String,
}

impl Head {
    /// Always with local times, as in the reference.
    fn new(is_remote: bool, is_local: bool) -> Head {
        let tag = tag();
        let pid = std::process::id();
        let host = || {
            std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "localhost".to_owned())
        };
        let origin =
            if is_remote { format!("{} {tag}[{pid}]: ", host().trim()) } else { format!("{tag}[{pid}]: ") };
        let facility = if is_local { FACILITY_LOCAL } else { FACILITY_REMOTE };
        Head { is_remote, facility, origin, zone: TimeZone::system(), second: None, words: String::new() }
    }

    fn write(&mut self, to: &mut Vec<u8>, at: SystemTime, level: Level) {
        let second = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.second != Some(second) {
            self.second = Some(second);
            let stamp =
                Timestamp::from_second(i64::try_from(second).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX);
            self.words = time_words(stamp, &self.zone, self.is_remote);
        }
        let _ = write!(to, "<{}>{} {}", self.facility | severity(level), self.words, self.origin);
    }
}

/// RFC 3339 for a remote syslog, the form of RFC 3164 for the local one.
fn time_words(stamp: Timestamp, zone: &TimeZone, is_remote: bool) -> String {
    if !is_remote {
        return zone.to_datetime(stamp).strftime("%b %e %H:%M:%S").to_string();
    }
    let offset = zone.to_offset(stamp);
    match offset.seconds() {
        0 => zone.to_datetime(stamp).strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        _ => stamp.display_with_offset(offset).to_string(),
    }
}

/// A trace has the weight of a notice, in the reference.
fn severity(level: Level) -> u8 {
    match level {
        Level::Fatal => 2,
        Level::Error => 3,
        Level::Warning => 4,
        Level::Info | Level::Trace => 5,
        Level::Debug => 7,
    }
}

/// What the server was started as, which may be a link.
fn tag() -> String {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name.is_empty() { "ringmain".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_look_as_the_reference_writes_them() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_770_033_600);
        let head = |remote, local, zone| {
            let mut head = Head { zone, ..Head::new(remote, local) };
            let mut message = Vec::new();
            head.write(&mut message, at, Level::Trace);
            String::from_utf8(message).unwrap()
        };
        let utc = || TimeZone::UTC;
        let east = || TimeZone::fixed(jiff::tz::Offset::from_seconds(5400).unwrap());
        let origin = format!("{}[{}]: ", tag(), std::process::id());
        assert_eq!(head(false, true, utc()), format!("<29>Feb  2 12:00:00 {origin}"));
        assert_eq!(head(false, false, east()), format!("<5>Feb  2 13:30:00 {origin}"));
        let remote = head(true, false, utc());
        assert!(remote.starts_with("<5>2026-02-02T12:00:00Z ") && remote.ends_with(&origin), "{remote}");
        let remote = head(true, false, east());
        assert!(remote.starts_with("<5>2026-02-02T13:30:00+01:30 "), "{remote}");
    }

    #[test]
    fn a_long_datagram_is_cut_between_characters() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let remote = RemoteSyslog::Udp(receiver.local_addr().unwrap().to_string());
        let mut syslog = Syslog::new(Some(remote), &Arc::default());
        syslog.line(SystemTime::now(), Level::Info, &"\u{20ac}".repeat(100_000));
        let mut datagram = vec![0; 100_000];
        let len = receiver.recv(&mut datagram).unwrap();
        assert!((DATAGRAM_BYTES_MAX - 4..=DATAGRAM_BYTES_MAX).contains(&len), "{len}");
        assert!(String::from_utf8(datagram[..len].to_vec()).unwrap().ends_with("\u{20ac}\n"));
    }
}
