//! The stream of a client that comes by WebSocket: what is written goes out as one message, and what is read is what the
//! messages of the server hold, as far as it has come. Pings of WebSocket are answered.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use ringmain::websocket::{Deflater, Inflater, unmask};

use super::PATIENCE;

const KEY: [u8; 4] = [0x11, 0x80, 0x5A, 0xFF];

/// See the head of this file.
pub struct WebSocketStream {
    stream: TcpStream,
    is_compressed: bool,
    /// Frames that have been received and not looked at.
    received: Vec<u8>,
    /// A message whose end is to come: whether it is compressed, and what there is of it.
    message: (bool, Vec<u8>),
    /// What has come and has not been read.
    content: Vec<u8>,
    taken: usize,
    /// The frame that ended it, if there was one.
    pub goodbye: Option<Vec<u8>>,
}

impl WebSocketStream {
    /// Connects, with compression if the server is to have it too.
    pub fn open(address: SocketAddr, compression: bool) -> WebSocketStream {
        let mut stream = TcpStream::connect(address).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("write timeout");
        let offer = match compression {
            true => "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n",
            false => "",
        };
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n"
        );
        stream.write_all(request.as_bytes()).expect("write");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            head.extend(byte);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert_eq!(head.contains("permessage-deflate"), compression, "{head}");
        WebSocketStream {
            stream,
            is_compressed: compression,
            received: Vec::new(),
            message: (false, Vec::new()),
            content: Vec::new(),
            taken: 0,
            goodbye: None,
        }
    }

    fn send_frame(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..=125 => frame.push(0x80 | len as u8),
            len @ 126..=0xFFFF => {
                frame.push(0xFE);
                frame.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                frame.push(0xFF);
                frame.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&KEY);
        let at = frame.len();
        frame.extend_from_slice(payload);
        unmask(&mut frame[at..], KEY, 0);
        self.stream.write_all(&frame)
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second, ..] = self.received[..] else { return None };
        assert_eq!(second & 0x80, 0, "a server does not mask");
        let (at, len) = match second {
            126 => (4, usize::from(u16::from_be_bytes(self.received.get(2..4)?.try_into().expect("two")))),
            127 => (10, u64::from_be_bytes(self.received.get(2..10)?.try_into().expect("eight")) as usize),
            len => (2, usize::from(len)),
        };
        let payload = self.received.get(at..at + len)?.to_vec();
        self.received.drain(..at + len);
        Some((first, payload))
    }

    fn handle_frame(&mut self, first: u8, payload: Vec<u8>) -> io::Result<()> {
        match first & 0xF {
            opcode @ 0..=2 => {
                if opcode != 0 {
                    self.message.0 = first & 0x40 != 0;
                }
                self.message.1.extend(payload);
                if first & 0x80 == 0 && self.message.0 {
                    return Ok(());
                }
                let message = std::mem::take(&mut self.message.1);
                if self.message.0 {
                    let inflated = Inflater::default().inflate(&message, 1 << 26, &mut self.content);
                    inflated.expect("a compressed message");
                } else {
                    self.content.extend(message);
                }
                Ok(())
            }
            8 => {
                self.goodbye = Some(payload);
                Ok(())
            }
            9 => self.send_frame(0x8A, &payload),
            _ => Ok(()),
        }
    }
}

impl Read for WebSocketStream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.content.len() {
            self.content.clear();
            self.taken = 0;
            if let Some((first, payload)) = self.take_frame() {
                self.handle_frame(first, payload)?;
                continue;
            }
            let mut more = [0; 16 * 1024];
            match self.stream.read(&mut more) {
                Ok(0) => return Ok(0),
                Ok(len) => self.received.extend_from_slice(&more[..len]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let len = bytes.len().min(self.content.len() - self.taken);
        bytes[..len].copy_from_slice(&self.content[self.taken..self.taken + len]);
        self.taken += len;
        Ok(len)
    }
}

impl Write for WebSocketStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_compressed {
            let mut message = Vec::new();
            Deflater::default().deflate(std::iter::once(bytes), bytes.len(), &mut message);
            self.send_frame(0xC2, &message)?;
        } else {
            self.send_frame(0x82, bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
