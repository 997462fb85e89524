//! One connection to a server: TCP, perhaps WebSocket on it, INFO, CONNECT, and PING/PONG as a barrier. What is encrypted
//! goes through [`crate::tls_relay`]. Not a client library: what is subscribed and published is the caller's bytes.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde::Deserialize;
use socket2::{Domain, Socket, Type};

use crate::args::Options;
use crate::error::BenchError;
use crate::inbox::{Event, Inbox};
use crate::tls_relay;
use crate::websocket::{self, ServerFrames};

/// How long a server may take for an answer before the measurement is given up.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Source addresses to try when the ports of one are used up; each has about 28,000.
const LOOPBACK_SOURCES_MAX: u8 = 8;

/// What the tool needs to know from INFO.
#[derive(Debug, Clone, Deserialize, Default)]
pub struct ServerInfo {
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub max_payload: i64,
    #[serde(default)]
    tls_required: bool,
}

/// Where to connect and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    address: SocketAddr,
    connect: Vec<u8>,
    name: String,
    is_encrypted: bool,
    websocket: bool,
}

impl Target {
    pub fn new(options: &Options) -> Result<Target, BenchError> {
        let name = &options.server;
        let address = name
            .to_socket_addrs()
            .and_then(|mut all| all.next().ok_or_else(|| io::Error::other("no address")))
            .map_err(BenchError::io(format!("looking up {name}")))?;
        let address = if options.tls { tls_relay::start(address)? } else { address };
        // Protocol 0: the server then never sends INFO on its own, which would break counting by arithmetic.
        let mut connect = serde_json::json!({
            "verbose": false, "pedantic": false, "protocol": 0, "headers": true, "no_responders": false,
            "name": "ringmain-bench", "lang": "rust", "version": env!("CARGO_PKG_VERSION"),
        });
        for (key, value) in [("user", &options.user), ("pass", &options.pass), ("auth_token", &options.token)]
        {
            if let Some(value) = value {
                connect[key] = value.as_str().into();
            }
        }
        Ok(Target {
            address,
            connect: format!("CONNECT {connect}\r\n").into_bytes(),
            name: name.clone(),
            is_encrypted: options.tls,
            websocket: options.websocket,
        })
    }

    /// A TCP connection, nothing said yet.
    pub fn dial(&self) -> Result<TcpStream, BenchError> {
        let failed = || BenchError::io(format!("connecting to {}", self.name));
        let domain = Domain::for_address(self.address);
        let mut source = 1;
        loop {
            let socket = Socket::new(domain, Type::STREAM, None).map_err(failed())?;
            if source > 1 {
                let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, source)), 0);
                socket.bind(&address.into()).map_err(failed())?;
            }
            match socket.connect_timeout(&self.address.into(), ANSWER_TIMEOUT) {
                Ok(()) => {
                    socket.set_tcp_nodelay(true).map_err(failed())?;
                    return Ok(socket.into());
                }
                // The ports of one source address are used up; on loopback there are more addresses.
                Err(error)
                    if error.kind() == io::ErrorKind::AddrNotAvailable
                        && self.address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST)
                        && source < LOOPBACK_SOURCES_MAX =>
                {
                    source += 1;
                }
                Err(error) => return Err(failed()(error)),
            }
        }
    }

    /// The bytes of CONNECT.
    pub fn connect_line(&self) -> &[u8] {
        &self.connect
    }
}

/// A connection that is past the handshake, with blocking calls.
pub struct Connection {
    pub stream: TcpStream,
    pub inbox: Inbox,
    pub info: ServerInfo,
    /// Of a WebSocket.
    pub frames: Option<ServerFrames>,
}

impl Connection {
    /// Connects, authenticates, and waits until the server has accepted it.
    pub fn open(target: &Target) -> Result<Connection, BenchError> {
        let stream = target.dial()?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(BenchError::io("setting a timeout"))?;
        // A server that no longer reads is an error too, not a measurement without an end.
        stream.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(BenchError::io("setting a timeout"))?;
        let frames = target.websocket.then(ServerFrames::default);
        if frames.is_some() {
            websocket::shake_hands(&stream, &target.name)?;
        }
        let mut connection =
            Connection { stream, inbox: Inbox::default(), info: ServerInfo::default(), frames };
        connection.read_info()?;
        if connection.info.tls_required && !target.is_encrypted {
            return Err(BenchError::Unsupported("the server requires TLS: --server tls://...".to_owned()));
        }
        connection.send(target.connect_line())?;
        connection.flush()?;
        Ok(connection)
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<(), BenchError> {
        if let Err(error) = self.write(bytes) {
            // A server that closes has usually said why.
            let _ = self.stream.set_read_timeout(Some(Duration::from_millis(100)));
            while self.inbox.fill(&self.stream).is_ok_and(|got| got > 0) {}
            while self.inbox.next_event()?.is_some() {}
            return Err(BenchError::io("sending to the server")(error));
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.frames {
            None => self.stream.write_all(bytes),
            Some(_) => websocket::send(&self.stream, bytes),
        }
    }

    /// PING, and waits for the PONG: whatever was sent before has been processed by then.
    pub fn flush(&mut self) -> Result<(), BenchError> {
        self.send(b"PING\r\n")?;
        loop {
            while let Some(event) = self.inbox.next_event()? {
                match event {
                    Event::Pong => return Ok(()),
                    Event::Ping => self.write(b"PONG\r\n").map_err(BenchError::io("answering PING"))?,
                    Event::Info(_) => {}
                    Event::Message { subject, .. } => return Err(BenchError::unexpected(subject)),
                }
            }
            self.fill("before its PONG")?;
        }
    }

    /// One blocking read; the end of the stream is an error.
    pub fn fill(&mut self, when: &'static str) -> Result<(), BenchError> {
        let got = match &mut self.frames {
            None => self.inbox.fill(&self.stream),
            Some(frames) => {
                let mut bytes = [0; 4096];
                let got = io::Read::read(&mut &self.stream, &mut bytes);
                if let Ok(len) = got {
                    let inbox = &mut self.inbox;
                    frames.take(&bytes[..len], |piece| {
                        // Memory is never at its end.
                        inbox.fill_all(piece);
                        Ok(())
                    })?;
                }
                got
            }
        };
        match got {
            Ok(0) => Err(BenchError::Closed(when)),
            Ok(_) => Ok(()),
            Err(error) => Err(BenchError::io(format!("reading from the server, {when}"))(error)),
        }
    }

    /// Reads without waiting, answers PING, reports an -ERR: for connections that mostly send.
    pub fn answer_pings(&mut self) -> Result<(), BenchError> {
        let mut word = [std::mem::MaybeUninit::uninit(); 1];
        let socket = socket2::SockRef::from(&self.stream);
        match socket.recv_with_flags(&mut word, libc::MSG_PEEK | libc::MSG_DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(BenchError::io("reading from the server")(error)),
            Ok(_) => self.fill("while publishing")?,
        }
        while let Some(event) = self.inbox.next_event()? {
            if event == Event::Ping {
                self.write(b"PONG\r\n").map_err(BenchError::io("answering PING"))?;
            }
        }
        Ok(())
    }

    /// A payload that the server would refuse is better refused here, with a reason.
    pub fn check_size(&self, size: usize) -> Result<(), BenchError> {
        if self.info.max_payload > 0 && size as i64 > self.info.max_payload {
            let limit = self.info.max_payload;
            return Err(BenchError::Unsupported(format!(
                "--size {size} is more than the server's max_payload, {limit}"
            )));
        }
        Ok(())
    }

    fn read_info(&mut self) -> Result<(), BenchError> {
        loop {
            if let Some(event) = self.inbox.next_event()? {
                let Event::Info(json) = event else {
                    return Err(BenchError::Unexpected("something before INFO".to_owned()));
                };
                self.info = serde_json::from_slice(json).map_err(|_| BenchError::unexpected(json))?;
                return Ok(());
            }
            self.fill("before INFO")?;
        }
    }
}
