//! A connection whose keys are agreed on: records are opened and sealed.
//!
//! A record that arrives as a whole is opened where it lies; only what is cut by the end of a read is carried over. What
//! goes out fills its records: 16 KiB each but for the last, however it lies in memory, so that a turn's output costs as
//! few records as it can.
//!
//! rustls 0.23 hands plaintext out in memory of its own and encrypts in memory of its own: one copy each beside the work
//! on the record.

use std::fmt;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};

/// What stands before each record: its type, a version and its length.
pub(super) const RECORD_HEADER_LEN: usize = 5;

/// Plaintext of a full record.
pub const RECORD_PLAINTEXT_MAX: usize = 16 * 1024;

/// More than any record is longer than its plaintext.
const RECORD_OVERHEAD_MAX: usize = 64;

/// Bytes of TLS's own that wait to be sent. A client that makes more necessary and does not read is cut off.
const CONTROL_BYTES_MAX: usize = 64 * 1024;

/// Both directions of one connection.
pub struct Channel {
    connection: UnbufferedServerConnection,
    /// The beginning of a record whose end has not arrived.
    carried: Vec<u8>,
    /// What TLS itself has to say: answers to key updates, alerts.
    control: Vec<u8>,
    peer_closed: bool,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (carried, control) = (self.carried.len(), self.control.len());
        f.debug_struct("Channel")
            .field("carried_len", &carried)
            .field("control_len", &control)
            .finish_non_exhaustive()
    }
}

/// Why records cannot be opened or sealed any more.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// What rustls says.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The keys have been used as often as is safe.
    #[error("the keys are used up")]
    Exhausted,
    /// The client makes TLS say more than it reads.
    #[error("the client does not read what TLS answers")]
    TooMuchControl,
}

/// Memory for sealed records. It is initialised once and used again.
#[derive(Debug, Default)]
pub struct SealedBuffer {
    bytes: Vec<u8>,
    len: usize,
}

impl SealedBuffer {
    /// Room for `plaintext_len` bytes in full records.
    pub fn for_plaintext(plaintext_len: usize) -> SealedBuffer {
        let records = plaintext_len / RECORD_PLAINTEXT_MAX + 1;
        SealedBuffer { bytes: vec![0; plaintext_len + records * RECORD_OVERHEAD_MAX], len: 0 }
    }

    /// What has been sealed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// How much memory it is.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Makes it empty.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Whether nothing has been sealed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds bytes that need no sealing.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn room(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() < self.len + len {
            self.bytes.resize(self.len + len, 0);
        }
        &mut self.bytes[self.len..self.len + len]
    }
}

impl Channel {
    pub(super) fn new(connection: UnbufferedServerConnection, carried: Vec<u8>) -> Channel {
        Channel { connection, carried, control: Vec::new(), peer_closed: false }
    }

    /// Opens what has arrived, and adds the plaintext to `plaintext`. What was opened before an error is there too.
    ///
    /// # Errors
    ///
    /// The client does not keep to TLS. [`Channel::take_control`] has what to tell it.
    pub fn open(&mut self, mut bytes: &mut [u8], plaintext: &mut Vec<u8>) -> Result<(), ChannelError> {
        while !self.carried.is_empty() {
            // If all that is there is whole, it is part of a message of TLS that goes on in the next record.
            let missing = match missing_len(&self.carried) {
                0 => RECORD_HEADER_LEN,
                missing => missing,
            };
            let (first, rest) = bytes.split_at_mut(missing.min(bytes.len()));
            self.carried.extend_from_slice(first);
            bytes = rest;
            if first.len() < missing {
                return Ok(());
            }
            if missing_len(&self.carried) > 0 {
                continue;
            }
            let mut carried = std::mem::take(&mut self.carried);
            let used = self.process(&mut carried, plaintext)?;
            carried.drain(..used);
            self.carried = carried;
        }
        let used = self.process(bytes, plaintext)?;
        self.carried.extend_from_slice(&bytes[used..]);
        Ok(())
    }

    /// Whether the client has said that it sends no more.
    pub fn is_closed_by_peer(&self) -> bool {
        self.peer_closed
    }

    /// Seals the first `max` bytes of `slices`, or all, behind what is in `sealed`. Returns how many bytes of them that
    /// are. `gathered` is memory for a record that is put together of several slices.
    ///
    /// # Errors
    ///
    /// The connection is of no use any more.
    pub fn seal<'a>(
        &mut self,
        slices: impl Iterator<Item = &'a [u8]>,
        max: usize,
        gathered: &mut Vec<u8>,
        sealed: &mut SealedBuffer,
    ) -> Result<usize, ChannelError> {
        gathered.clear();
        let mut taken = 0;
        for slice in slices {
            let mut slice = &slice[..slice.len().min(max - taken)];
            taken += slice.len();
            if !gathered.is_empty() {
                let (first, rest) = slice.split_at(slice.len().min(RECORD_PLAINTEXT_MAX - gathered.len()));
                gathered.extend_from_slice(first);
                slice = rest;
                if gathered.len() == RECORD_PLAINTEXT_MAX {
                    self.encrypt(gathered, sealed)?;
                    gathered.clear();
                }
            }
            let (full, rest) = slice.split_at(slice.len() / RECORD_PLAINTEXT_MAX * RECORD_PLAINTEXT_MAX);
            if !full.is_empty() {
                self.encrypt(full, sealed)?;
            }
            gathered.extend_from_slice(rest);
            if taken == max {
                break;
            }
        }
        if !gathered.is_empty() {
            self.encrypt(gathered, sealed)?;
        }
        Ok(taken)
    }

    /// Whether TLS itself has something to say.
    pub fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// Adds what TLS itself has to say to `sealed`.
    pub fn take_control(&mut self, sealed: &mut SealedBuffer) {
        sealed.extend(&std::mem::take(&mut self.control));
    }

    /// Has TLS say that nothing more comes from here.
    pub fn close(&mut self) {
        let status = self.connection.process_tls_records(&mut self.carried);
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state {
            let mut alert = [0; RECORD_OVERHEAD_MAX];
            if let Ok(len) = traffic.queue_close_notify(&mut alert) {
                self.control.extend_from_slice(&alert[..len]);
            }
        }
    }

    /// Opens the records of `bytes`; returns how much of it is done with.
    fn process(&mut self, bytes: &mut [u8], plaintext: &mut Vec<u8>) -> Result<usize, ChannelError> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state, .. } =
                self.connection.process_tls_records(&mut bytes[used..]);
            let is_at_rest = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        plaintext.extend_from_slice(record.payload);
                    }
                    false
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    encode(data, &mut self.control);
                    if self.control.len() > CONTROL_BYTES_MAX {
                        return Err(ChannelError::TooMuchControl);
                    }
                    false
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    false
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.peer_closed = true;
                    false
                }
                Ok(_) => true,
                Err(error) => {
                    encode_alert(&mut self.connection, &mut self.control);
                    return Err(error.into());
                }
            };
            used += discard;
            if is_at_rest {
                return Ok(used);
            }
        }
    }

    fn encrypt(&mut self, plaintext: &[u8], sealed: &mut SealedBuffer) -> Result<(), ChannelError> {
        loop {
            // rustls may have to speak first.
            match self.connection.process_tls_records(&mut self.carried).state? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let records = plaintext.len().div_ceil(RECORD_PLAINTEXT_MAX);
                    let mut room = plaintext.len() + records * RECORD_OVERHEAD_MAX;
                    loop {
                        match traffic.encrypt(plaintext, sealed.room(room)) {
                            Ok(len) => {
                                sealed.len += len;
                                return Ok(());
                            }
                            Err(EncryptError::InsufficientSize(size)) => room = size.required_size,
                            Err(EncryptError::EncryptExhausted) => return Err(ChannelError::Exhausted),
                        }
                    }
                }
                ConnectionState::EncodeTlsData(data) => {
                    let mut control = Vec::new();
                    encode(data, &mut control);
                    sealed.extend(&control);
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                _ => return Err(ChannelError::Exhausted),
            }
        }
    }
}

/// Adds what rustls has to say to the client of an error to `output`. It must not see the bytes again that were wrong.
pub(super) fn encode_alert(connection: &mut UnbufferedServerConnection, output: &mut Vec<u8>) {
    while connection.wants_write() {
        match connection.process_tls_records(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, output),
            _ => return,
        }
    }
}

/// Adds what rustls has to say to `output`.
pub(super) fn encode(mut data: EncodeTlsData<'_, ServerConnectionData>, output: &mut Vec<u8>) {
    let at = output.len();
    match data.encode(&mut []) {
        Ok(_) => {}
        Err(EncodeError::InsufficientSize(size)) => {
            output.resize(at + size.required_size, 0);
            let len = data.encode(&mut output[at..]).expect("it fits now");
            output.truncate(at + len);
        }
        Err(EncodeError::AlreadyEncoded) => unreachable!("it was encoded nowhere else"),
    }
}

/// How many bytes the last record of `bytes` is short of, or its header.
fn missing_len(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    loop {
        let Some([_, _, _, high, low]) = rest.first_chunk() else { return RECORD_HEADER_LEN - rest.len() };
        let len = RECORD_HEADER_LEN + usize::from(u16::from_be_bytes([*high, *low]));
        if rest.len() < len {
            return len - rest.len();
        }
        rest = &rest[len..];
        if rest.is_empty() {
            return 0;
        }
    }
}
