//! TLS of client connections on rustls, without sockets: bytes in, bytes and plaintext out.
//!
//! An [`Acceptor`] is made of the configuration. A connection begins as a [`Handshake`], which is given what arrives and
//! advanced. That takes the public-key operations of TLS: it is work for a thread that may take its time, so a handshake can be sent there and back. Once it is done there is a [`Channel`], which opens
//! and seals records where they lie: cheap enough for the thread that moves the messages.
//!
//! rustls decides all that is TLS; what stands here is which bytes it sees when, how large records are, and the
//! reference's words for what goes wrong. But for the randomness that rustls takes everything is deterministic.
//!
//! * [`acceptor`]: from options to what handshakes need.
//! * [`handshake`]: up to the first plaintext.
//! * [`channel`]: from then on.
//! * [`words`]: what the log says when a handshake fails.

pub mod acceptor;
pub mod channel;
pub mod handshake;
pub mod words;

pub use acceptor::{Acceptor, AcceptorError};
pub use channel::{Channel, SealedBuffer};
pub use handshake::{Facts, Handshake, HandshakeError, Progress};
