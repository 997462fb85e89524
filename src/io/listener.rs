//! The listening socket.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Listens on `host:port`; port 0 picks a free one. Accepted sockets inherit `TCP_NODELAY`.
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
    bind(&socket, addr)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A server that was killed a moment ago may still hold the port: the kernel takes a few milliseconds to end an
/// io_uring and with it the listener. Clients' tools restart servers like that, so it is waited for.
fn bind(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    let mut pauses = 0;
    loop {
        match socket.bind(&addr.into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && pauses < BIND_PAUSES_MAX => {
                pauses += 1;
                std::thread::sleep(BIND_PAUSE);
            }
            result => return result,
        }
    }
}

/// How often and after which pause a port in use is tried again: for a quarter of a second.
const BIND_PAUSES_MAX: u32 = 50;
const BIND_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

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

/// The address a socket is bound to.
///
/// # Errors
///
/// What the system says.
pub fn local_addr(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an internet socket"))
}
