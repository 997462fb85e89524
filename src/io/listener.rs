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

/// The address a socket is bound to.
///
/// # Errors
///
/// What the system says.
pub fn local_addr(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an internet socket"))
}
