//! Encryption of a store's files: how the records of each are written and read.
//!
//! Every file has a key of its own, derived from the secret of the server's directory and from what names the file: stream, segment,
//! generation. Every record is encrypted by itself, with AES-256-GCM or ChaCha20-Poly1305, under a number that is used once: they count up from
//! a random one that is drawn each time a store is opened, so that what is written again at the same place has another. A record that
//! was changed, or put into another file, is damage, as is one that is not encrypted; its checksum stays around
//! it, so that recovery sees where a crash has cut without the key.
//!
//! What is not encrypted: headers of segments (sequences, times), lengths, and that a message was overwritten.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ring::aead::{self, Aad, LessSafeKey, UnboundKey};
use ring::hkdf;

use super::message::StoredMessage;
use super::plan::FileId;
use super::segment::{Kind, RECORD_BYTES, RECORD_BYTES_MORE, Record, salt};

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Where the part of a record that is encrypted begins: what stands before is about all records.
const INNER_AT: usize = 12;
/// How much longer a record is when it is encrypted.
const MORE_BYTES: usize = RECORD_BYTES - INNER_AT + TAG_BYTES;

/// With what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names")]
pub enum Cipher {
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Cipher {
    fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Cipher::Aes256Gcm => &aead::AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }
}

/// The secret of all files, and what new ones are encrypted with.
#[derive(Clone, PartialEq, Eq)]
pub struct Encryption {
    /// For new files.
    pub cipher: Cipher,
    secret: Arc<[u8; 32]>,
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption").field("cipher", &self.cipher).finish_non_exhaustive()
    }
}

impl Encryption {
    /// With this secret, which nobody can guess.
    pub fn new(cipher: Cipher, secret: [u8; 32]) -> Encryption {
        Encryption { cipher, secret: Arc::new(secret) }
    }

    /// Encrypts something that stands by itself; `purpose` is what it is. `nonce` has never been used for that purpose.
    pub fn seal(&self, purpose: &[u8], nonce: [u8; NONCE_BYTES], mut data: Vec<u8>) -> Vec<u8> {
        seal(&self.key(self.cipher, &[purpose]), nonce, b"", &mut data);
        let mut sealed = vec![self.cipher as u8];
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&data);
        sealed
    }

    /// Decrypts what [`seal`](Self::seal) made. `None`: it is not that.
    pub fn open(&self, purpose: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (cipher, rest) = sealed.split_first()?;
        let cipher = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305]
            .into_iter()
            .find(|known| *known as u8 == *cipher)?;
        let (nonce, data) = rest.split_first_chunk()?;
        open(&self.key(cipher, &[purpose]), *nonce, b"", data.to_vec())
    }

    fn key(&self, cipher: Cipher, names: &[&[u8]]) -> LessSafeKey {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, b"ringmain store").extract(&*self.secret);
        let algorithm = cipher.algorithm();
        let name = [algorithm_name(cipher)];
        let names: Vec<&[u8]> = name.into_iter().chain(names.iter().copied()).collect();
        let key = secret.expand(&names, algorithm).expect("a key is not too long");
        LessSafeKey::new(UnboundKey::from(key))
    }
}

/// Keys for one cipher are not those for the other.
fn algorithm_name(cipher: Cipher) -> &'static [u8] {
    match cipher {
        Cipher::Aes256Gcm => b"aes",
        Cipher::ChaCha20Poly1305 => b"chacha",
    }
}

fn seal(key: &LessSafeKey, nonce: [u8; NONCE_BYTES], about: &[u8], data: &mut Vec<u8>) {
    let nonce = aead::Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::from(about), data).expect("a record is not too long");
}

fn open(key: &LessSafeKey, nonce: [u8; NONCE_BYTES], about: &[u8], mut data: Vec<u8>) -> Option<Vec<u8>> {
    let nonce = aead::Nonce::assume_unique_for_key(nonce);
    let len = key.open_in_place(nonce, Aad::from(about), &mut data).ok()?.len();
    data.truncate(len);
    Some(data)
}

/// Numbers that are used once.
#[derive(Debug, Clone, Copy)]
pub struct Nonces {
    next: u128,
}

impl Nonces {
    /// From a random number on: two stores, or one that is opened twice, do not meet.
    pub fn new(start: u128) -> Nonces {
        Nonces { next: start }
    }

    fn take(&mut self) -> [u8; NONCE_BYTES] {
        self.next = self.next.wrapping_add(1);
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&self.next.to_le_bytes()[..NONCE_BYTES]);
        nonce
    }
}

/// How the records of one file are written and read.
#[derive(Clone)]
pub struct Codec {
    /// What their checksums begin with.
    pub salt: u32,
    key: Option<Arc<LessSafeKey>>,
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codec").field("salt", &self.salt).finish_non_exhaustive()
    }
}

/// Two of the same salt are of the same file.
impl PartialEq for Codec {
    fn eq(&self, other: &Codec) -> bool {
        self.salt == other.salt
    }
}

impl Eq for Codec {}

impl Codec {
    /// For a file of a stream, which is encrypted with this cipher, or not. `None`: it is, and there is no secret.
    pub fn of(
        stream_salt: u64,
        file: FileId,
        cipher: Option<Cipher>,
        encryption: Option<&Encryption>,
    ) -> Option<Codec> {
        let key = match cipher {
            None => None,
            Some(cipher) => {
                let (segment, generation) = (file.segment.to_le_bytes(), file.generation.to_le_bytes());
                let names: [&[u8]; 4] = [b"file", &stream_salt.to_le_bytes(), &segment, &generation];
                Some(Arc::new(encryption?.key(cipher, &names)))
            }
        };
        Some(Codec { salt: salt(stream_salt, file.segment, file.generation), key })
    }

    /// What a message's record has more than the message counts for in `state.bytes`.
    pub fn more(&self) -> u32 {
        RECORD_BYTES_MORE + if self.key.is_some() { MORE_BYTES as u32 } else { 0 }
    }

    /// How long a record is in the file.
    pub fn len(&self, record: &Record<'_>) -> usize {
        record.len() + if self.key.is_some() { MORE_BYTES } else { 0 }
    }

    /// Appends a record.
    pub fn encode(&self, record: &Record<'_>, nonces: &mut Nonces, out: &mut Vec<u8>) {
        let Some(key) = &self.key else { return record.encode(self.salt, out) };
        let mut plain = Vec::with_capacity(record.len() + TAG_BYTES);
        record.encode(0, &mut plain);
        let mut inner = plain.split_off(INNER_AT);
        let nonce = nonces.take();
        seal(key, nonce, &record.batch.to_le_bytes(), &mut inner);
        let (first, last) = nonce.split_at(8);
        let sealed = Record {
            batch: record.batch,
            time_ns: i64::from(u32::from_le_bytes(last.try_into().expect("4 bytes"))),
            payload: &inner,
            ..Record::of(Kind::Sealed, u64::from_le_bytes(first.try_into().expect("8 bytes")))
        };
        sealed.encode(self.salt, out);
    }

    /// The record that begins `bytes`, and its length in the file; `None` if there is none that is whole and right. `scratch` is
    /// where it is decrypted.
    pub fn decode<'a>(&self, bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<(Record<'a>, usize)> {
        let (record, len) = Record::decode(self.salt, bytes)?;
        match self.decrypt(&record)? {
            Content::AsItIs => Some((record, len)),
            Content::Decrypted(plain) => {
                *scratch = plain;
                let (inner, _) = Record::split(scratch)?;
                Some((inner, len))
            }
        }
    }

    /// The message whose record begins at `at`, and the record's length. Its checksum is not looked at.
    pub fn message(&self, bytes: &Bytes, at: usize) -> Option<(StoredMessage, usize)> {
        let (record, len) = Record::split(&bytes[at..])?;
        match self.decrypt(&record)? {
            Content::AsItIs => Some((stored(bytes, at, &record, len)?, len)),
            Content::Decrypted(plain) => {
                let plain = Bytes::from(plain);
                let (inner, inner_len) = Record::split(&plain)?;
                Some((stored(&plain, 0, &inner, inner_len)?, len))
            }
        }
    }

    /// What a record that was read says; `None`: it is not believed.
    fn decrypt(&self, record: &Record<'_>) -> Option<Content> {
        match (&self.key, record.kind) {
            // What was overwritten says nothing.
            (None, kind) => (kind != Kind::Sealed).then_some(Content::AsItIs),
            (Some(_), Kind::Erased) => Some(Content::AsItIs),
            (Some(key), Kind::Sealed) => {
                let mut nonce = [0; NONCE_BYTES];
                nonce[..8].copy_from_slice(&record.seq.to_le_bytes());
                nonce[8..].copy_from_slice(&u32::try_from(record.time_ns).ok()?.to_le_bytes());
                let inner = open(key, nonce, &record.batch.to_le_bytes(), record.payload.to_vec())?;
                let mut plain = Vec::with_capacity(INNER_AT + inner.len());
                plain.extend_from_slice(&[0; 4]);
                plain.extend_from_slice(&((INNER_AT + inner.len()) as u32).to_le_bytes());
                plain.extend_from_slice(&record.batch.to_le_bytes());
                plain.extend_from_slice(&inner);
                let kind = Record::split(&plain)?.0.kind;
                (kind != Kind::Sealed).then_some(Content::Decrypted(plain))
            }
            (Some(_), _) => None,
        }
    }
}

/// The message whose plain record begins at `at`, and the record's length. Its checksum is not looked at.
pub fn plain_message(bytes: &Bytes, at: usize) -> Option<(StoredMessage, usize)> {
    let (record, len) = Record::split(&bytes[at..])?;
    Some((stored(bytes, at, &record, len)?, len))
}

/// What is in a record.
enum Content {
    AsItIs,
    /// A plain record.
    Decrypted(Vec<u8>),
}

/// A message that shares the bytes of its record.
fn stored(bytes: &Bytes, at: usize, record: &Record<'_>, len: usize) -> Option<StoredMessage> {
    if record.kind != Kind::Message {
        return None;
    }
    let start = at + len - record.subject.len() - record.header.len() - record.payload.len();
    let shared = bytes.slice(start..at + len);
    Some(StoredMessage::new(record.seq, record.time_ns, record.subject.len(), record.header.len(), shared))
}

#[cfg(test)]
mod tests {
    use super::super::message::Message;
    use super::*;

    fn encryption(byte: u8) -> Encryption {
        Encryption::new(Cipher::ChaCha20Poly1305, [byte; 32])
    }

    fn codec(cipher: Cipher, file: FileId) -> Codec {
        Codec::of(7, file, Some(cipher), Some(&encryption(1))).unwrap()
    }

    #[test]
    fn encrypted_records_are_read_back_and_nothing_else_is() {
        let message = Message { seq: 5, time_ns: -3, subject: b"a.b", header: b"", payload: b"hello" };
        for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
            let file = FileId::new(3);
            let codec = codec(cipher, file);
            let record = Record::message(&message, 77);
            let (mut bytes, mut nonces, mut scratch) = (Vec::new(), Nonces::new(9), Vec::new());
            codec.encode(&record, &mut nonces, &mut bytes);
            assert_eq!(bytes.len(), codec.len(&record));
            assert!(!bytes.windows(5).any(|window| window == b"hello"));
            assert_eq!(codec.decode(&bytes, &mut scratch), Some((record, bytes.len())));
            let (found, len) = codec.message(&Bytes::from(bytes.clone()), 0).unwrap();
            assert_eq!((found.as_message(), len), (message, bytes.len()));
            // The same record is never written twice the same.
            let mut again = Vec::new();
            codec.encode(&record, &mut nonces, &mut again);
            assert_ne!(again[32..], bytes[32..]);
            // Under another key, in another file, changed, or plain.
            let other = Codec::of(7, file, Some(cipher), Some(&encryption(2))).unwrap();
            assert_eq!(other.decode(&bytes, &mut scratch), None);
            let moved = self::codec(cipher, FileId { generation: 1, ..file });
            assert!(Codec { salt: codec.salt, ..moved }.decode(&bytes, &mut scratch).is_none());
            for at in 8..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                let crc = crc32c::crc32c_append(codec.salt, &changed[4..]);
                changed[..4].copy_from_slice(&crc.to_le_bytes());
                assert_eq!(codec.decode(&changed, &mut scratch), None, "byte {at}");
            }
            let mut plain = Vec::new();
            record.encode(codec.salt, &mut plain);
            assert_eq!(codec.decode(&plain, &mut scratch), None);
            let without = Codec::of(7, file, None, None).unwrap();
            assert_eq!(without.decode(&bytes, &mut scratch), None);
            assert_eq!(Codec::of(7, file, Some(cipher), None), None);
        }
    }

    #[test]
    fn what_stands_by_itself_is_opened_for_its_purpose_only() {
        let sealed = encryption(1).seal(b"stream", [3; 12], b"secret".to_vec());
        assert_eq!(encryption(1).open(b"stream", &sealed).as_deref(), Some(&b"secret"[..]));
        assert_eq!(encryption(1).open(b"other", &sealed), None);
        assert_eq!(encryption(2).open(b"stream", &sealed), None);
        assert_eq!(encryption(1).open(b"stream", &sealed[..10]), None);
    }
}
