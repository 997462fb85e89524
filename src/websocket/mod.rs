//! WebSocket as the reference speaks it: the handshake over HTTP, frames in and out, compression, the words of a close.
//!
//! 1. [`Upgrade`] answers the requests of a connection that has not been upgraded: `request` takes their heads apart,
//!    `origin` knows which web pages may connect, `cookies` what they bring along.
//! 2. [`Channel`] carries a connection from then on: `decoder` takes the frames of a client apart where they lie,
//!    `mask` takes their mask off, `deflate` is permessage-deflate, `frame` writes what goes out.
//!
//! NATS is a stream of bytes here as over TCP: frames may cut it anywhere.
//!
//! Nothing here has a socket or a clock. The rules are RFC 6455 and RFC 7692; what they leave open, and what is sent and
//! logged when a client breaks them, is the reference's (`server/websocket.go`).

mod channel;
mod cookies;
mod decoder;
mod deflate;
mod frame;
mod mask;
mod origin;
mod request;
mod upgrade;

pub use channel::{Channel, ChannelEnd, Received, SEND_SLICES_MAX, SealMemory, Sealed};
pub use cookies::CookieNames;
pub use decoder::{Decoder, FrameError, Piece};
pub use deflate::{Deflater, InflateError, Inflater};
pub use frame::{CLOSE_TEXT_LEN_MAX, CloseStatus, close_frame};
pub use mask::unmask;
pub use origin::{AllowedOrigin, OriginError, allowed_origin};
pub use request::REQUEST_BYTES_MAX;
pub use upgrade::{Answer, Negotiated, Upgrade, UpgradeTerms, Visitor};
