//! WebSocket as far as this tool needs it: a handshake, frames out, payloads in.
//!
//! What goes out is masked by zeros, which leaves it as it is: the server unmasks all the same, and the tool is not the limit.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::error::BenchError;

/// Final, binary.
const FIRST_BYTE: u8 = 0x82;

/// Bytes of an answer to the handshake.
const ANSWER_BYTES_MAX: usize = 8 * 1024;

/// The frames of a server.
#[derive(Debug, Default)]
pub struct ServerFrames {
    head: Vec<u8>,
    /// Payload that is to come of the frame under way, and whether it is a message's.
    left: u64,
    is_data: bool,
}

impl ServerFrames {
    /// Calls `payload` with every piece of messages in `bytes`.
    pub fn take(
        &mut self,
        mut bytes: &[u8],
        mut payload: impl FnMut(&[u8]) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let (piece, rest) = bytes.split_at(bytes.len().min(self.left as usize));
                self.left -= piece.len() as u64;
                bytes = rest;
                if self.is_data {
                    payload(piece)?;
                }
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            let Some(len) = head_len(&self.head) else { continue };
            if self.head[0] & 0xF == 8 {
                return Err(BenchError::Closed("by a close frame"));
            }
            self.left = len;
            self.is_data = self.head[0] & 0xF <= 2;
            self.head.clear();
        }
        Ok(())
    }
}

/// The length that a head names; `None` if it is not whole.
fn head_len(head: &[u8]) -> Option<u64> {
    match *head {
        [_, 126, high, low] => Some(u64::from(u16::from_be_bytes([high, low]))),
        [_, 127, ref length @ ..] => length.try_into().ok().map(u64::from_be_bytes),
        [_, 126, ..] => None,
        [_, len] => Some(u64::from(len)),
        _ => None,
    }
}

/// Sends a message.
pub fn send(mut stream: &TcpStream, message: &[u8]) -> io::Result<()> {
    let mut head = vec![FIRST_BYTE];
    match message.len() {
        len @ 0..=125 => head.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            head.push(0xFE);
            head.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            head.push(0xFF);
            head.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    head.extend_from_slice(&[0; 4]);
    let head_len = head.len();
    let sent = stream.write_vectored(&[io::IoSlice::new(&head), io::IoSlice::new(message)])?;
    if sent < head_len {
        stream.write_all(&head[sent..])?;
    }
    stream.write_all(&message[sent.saturating_sub(head_len)..])
}

/// Has the server agree. Nothing behind its answer is read.
pub fn shake_hands(mut stream: &TcpStream, host: &str) -> Result<(), BenchError> {
    let failed = || BenchError::io("the handshake of WebSocket");
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: cmluZ21haW4tYmVuY2gtLQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(failed())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") && answer.len() < ANSWER_BYTES_MAX {
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(failed())?;
        answer.extend_from_slice(&byte);
    }
    if answer.starts_with(b"HTTP/1.1 101 ") { Ok(()) } else { Err(BenchError::unexpected(&answer)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_come_out_whole_wherever_the_bytes_are_cut() {
        let mut bytes = vec![0x82, 2, b'a', b'b', 0x8A, 1, b'x', 0x82, 126, 0, 200];
        bytes.extend_from_slice(&[b'c'; 200]);
        for cut in 1..bytes.len() {
            let (mut frames, mut got) = (ServerFrames::default(), Vec::new());
            for part in bytes.chunks(cut) {
                frames
                    .take(part, |piece| {
                        got.extend_from_slice(piece);
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!(got, [&b"ab"[..], &[b'c'; 200]].concat());
        }
    }
}
