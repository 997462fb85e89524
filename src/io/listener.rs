//! The listening sockets: that for clients, one for WebSocket clients and one for other servers where there are any.
//!
//! They are never handed to an io_uring. The kernel ends the io_uring of a killed process only milliseconds after the
//! process is gone, and would keep the port for so long, with connections still going to it. So the ring watches an
//! epoll that watches the listeners: an epoll does not keep open what it watches, and the port dies with the process.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Which way a connection has come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// The port for clients.
    Client,
    /// The one for WebSocket clients.
    WebSocket,
    /// The one for other servers of the cluster.
    Route,
}

/// The listening sockets; dropping them closes them.
#[derive(Debug)]
pub struct Listener {
    /// That for clients is the first.
    sockets: Vec<(Socket, Entrance)>,
    /// Where to look first.
    next: Cell<usize>,
    watch: OwnedFd,
}

impl Listener {
    /// Listens on `host:port`; port 0 picks a free one. Accepted sockets inherit `TCP_NODELAY`.
    ///
    /// # Errors
    ///
    /// The host cannot be resolved, or the address cannot be bound.
    pub fn new(host: &str, port: u16) -> io::Result<Listener> {
        let client = listen(host, port)?;
        let watch = new_watch()?;
        add_to(&watch, &client)?;
        Ok(Listener { sockets: vec![(client, Entrance::Client)], next: Cell::new(0), watch })
    }

    /// Listens for others too, as in [`Listener::new`]. Returns the port.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn add(&mut self, entrance: Entrance, host: &str, port: u16) -> io::Result<u16> {
        let socket = listen(host, port)?;
        let addr = socket.local_addr()?.as_socket();
        add_to(&self.watch, &socket)?;
        self.sockets.push((socket, entrance));
        addr.map(|addr| addr.port()).ok_or_else(|| io::Error::other("not an internet socket"))
    }

    /// The address that clients connect to.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.sockets[0].0.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an internet socket"))
    }

    /// What is readable while connections wait.
    pub fn watch_fd(&self) -> RawFd {
        self.watch.as_raw_fd()
    }

    /// The next connection that waits, and which way it comes; `None` if there is none.
    ///
    /// # Errors
    ///
    /// No descriptors left, or the like. Connections that are gone already are passed over.
    pub fn accept(&self) -> io::Result<Option<(OwnedFd, Entrance)>> {
        // In turn, so that none keeps the others waiting.
        let (count, first) = (self.sockets.len(), self.next.get());
        for at in (0..count).map(|step| (first + step) % count) {
            let (socket, entrance) = &self.sockets[at];
            if let Some(fd) = accept(socket)? {
                self.next.set((at + 1) % count);
                return Ok(Some((fd, *entrance)));
            }
        }
        Ok(None)
    }
}

fn accept(socket: &Socket) -> io::Result<Option<OwnedFd>> {
    loop {
        let flags = libc::SOCK_CLOEXEC;
        // SAFETY: the peer's address is not asked for; the result is checked.
        let fd =
            unsafe { libc::accept4(socket.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) };
        if fd >= 0 {
            // SAFETY: `fd` was just opened and belongs to nobody else.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN) => return Ok(None),
            Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO) => {}
            _ => return Err(error),
        }
    }
}

/// An epoll that watches nothing yet.
fn new_watch() -> io::Result<OwnedFd> {
    // SAFETY: a plain call; the result is checked.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn add_to(watch: &OwnedFd, socket: &Socket) -> io::Result<()> {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
    // SAFETY: both descriptors are open, and the event is live for the call.
    if unsafe { libc::epoll_ctl(watch.as_raw_fd(), libc::EPOLL_CTL_ADD, socket.as_raw_fd(), &raw mut event) }
        != 0
    {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A listening socket that does not block.
///
/// # Errors
///
/// The host cannot be resolved, or the address cannot be bound.
pub fn listen(host: &str, port: u16) -> io::Result<Socket> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addr = resolve(host, port)?;
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// The reference's default `0.0.0.0` takes IPv6 clients too, as Go's listener does; so the unspecified IPv4 address
/// is listened on as the unspecified IPv6 one where the system has IPv6.
fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    if host == "0.0.0.0" || host.is_empty() {
        let any: SocketAddr = (std::net::Ipv6Addr::UNSPECIFIED, port).into();
        let supported = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))
            .and_then(|socket| socket.set_only_v6(false))
            .is_ok();
        return Ok(if supported { any } else { (std::net::Ipv4Addr::UNSPECIFIED, port).into() });
    }
    (host, port)
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such host"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn connections_come_in_order_and_none_after_the_listener_is_gone() {
        let listener = Listener::new("127.0.0.1", 0).unwrap();
        let addr = listener.local_addr().unwrap();
        assert!(listener.accept().unwrap().is_none());
        let clients = [TcpStream::connect(addr).unwrap(), TcpStream::connect(addr).unwrap()];
        for client in &clients {
            let (accepted, entrance) = listener.accept().unwrap().expect("a client waits");
            assert_eq!(entrance, Entrance::Client);
            let accepted = Socket::from(accepted);
            assert_eq!(accepted.peer_addr().unwrap().as_socket(), client.local_addr().ok());
            assert!(accepted.tcp_nodelay().unwrap());
        }
        assert!(listener.accept().unwrap().is_none());
        let mut listener = listener;
        let port = listener.add(Entrance::WebSocket, "127.0.0.1", 0).unwrap();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (accepted, entrance) = listener.accept().unwrap().expect("a client waits");
        assert_eq!(entrance, Entrance::WebSocket);
        assert_eq!(Socket::from(accepted).peer_addr().unwrap().as_socket(), client.local_addr().ok());
        drop(listener);
        assert_eq!(
            TcpStream::connect(("127.0.0.1", port)).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
