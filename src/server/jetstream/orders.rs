//! What the control thread has for the streams of a worker: put at the worker's door, and answered from there.

use std::ops::Bound;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::stream::ApiError;
use crate::stream::api::{SnapshotRequest, StreamReport};
use crate::stream::config::ConsumerLimits;
use crate::stream::consumer::{Consumers, Description, Detail};
use crate::stream::json::Strictness;
use crate::stream::stream::{Answer, Command, Stream};

/// Names a stream as long as the server runs; never that of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamNumber(pub u64);

/// Something to be done with a stream.
pub enum StreamOrder {
    /// The worker takes the stream over: from now on messages come to it.
    Open(Box<Opening>),
    /// The stream is asked something.
    Ask {
        /// Which one.
        stream: StreamNumber,
        /// What.
        command: Command,
        /// Where the answer goes, when what it tells is on the disk.
        reply: oneshot::Sender<Result<Answer, ApiError>>,
    },
    /// Its consumers are asked something.
    AskConsumers {
        /// Which one.
        stream: StreamNumber,
        /// What.
        request: ConsumerRequest,
    },
    /// Its consumers are held against limits that the stream is to have for them.
    CheckConsumers {
        /// Which one.
        stream: StreamNumber,
        /// The limits.
        limits: ConsumerLimits,
        /// Where it goes what is wrong.
        reply: oneshot::Sender<Result<(), ApiError>>,
    },
    /// Streams are described as they are now, whether that is on the disk or not. A look at one of them takes the worker little
    /// time, and there are at most [`LOOK_STREAMS_MAX`] of them.
    Look {
        /// Which ones.
        streams: Vec<StreamNumber>,
        /// Where the descriptions go, in the same order; `None` for those that are gone.
        reply: oneshot::Sender<Vec<Option<StreamLook>>>,
    },
    /// Consumers are described, at most [`LOOK_CONSUMERS_MAX`] of them.
    LookAtConsumers {
        /// Those of which stream.
        stream: StreamNumber,
        /// From which name on.
        from: Bound<String>,
        /// How many.
        max: usize,
        /// What is wanted of them.
        detail: Detail,
        /// Where the descriptions go.
        reply: oneshot::Sender<Vec<Description>>,
    },
    /// The stream is sent to a client.
    Snapshot(Box<SnapshotOrder>),
    /// A connection is described, as advisories tell of it.
    ShowClient {
        /// The slot where it should be.
        conn: u32,
        /// Its number.
        cid: u64,
        /// Where the JSON goes; `None`: it is not at this worker.
        reply: oneshot::Sender<Option<String>>,
    },
    /// The worker gives the stream up: no more messages come to it. Answered when nothing is written in its directory any more.
    Close {
        /// Which one.
        stream: StreamNumber,
        /// Answered when it is gone.
        done: oneshot::Sender<()>,
    },
}

/// Streams that are described in one turn of a worker.
pub const LOOK_STREAMS_MAX: usize = 64;

/// Consumers that are described in one turn of a worker.
pub const LOOK_CONSUMERS_MAX: usize = 32;

/// What monitoring sees of a stream.
#[derive(Debug)]
pub struct StreamLook {
    /// What it says of itself.
    pub report: StreamReport,
    /// Why it cannot be written any more.
    pub write_error: Option<String>,
    /// Times that something could not be written or read, since the server's start.
    pub store_errors: u64,
    /// Messages that its consumers delivered, since the server's start.
    pub deliveries: u64,
}

/// A request of the API about consumers.
pub struct ConsumerRequest {
    /// Its subject.
    pub subject: String,
    /// Its header block, or nothing.
    pub header: Vec<u8>,
    /// Its body.
    pub body: Vec<u8>,
    /// How strictly it is read.
    pub strictness: Strictness,
    /// Where the answer goes, when what it tells is on the disk; `None`: nobody answers.
    pub reply: oneshot::Sender<Option<ConsumerAnswer>>,
}

/// The answer to a request about consumers: its header block, which may be empty, and its body.
pub type ConsumerAnswer = (Vec<u8>, Vec<u8>);

/// A client wants to have a stream.
pub struct SnapshotOrder {
    /// Which one.
    pub stream: StreamNumber,
    /// How.
    pub request: SnapshotRequest,
    /// Where the worker answers the request, before anything else goes.
    pub reply: Vec<u8>,
    /// The account's name, for the log.
    pub account: String,
    /// Answered when that is done, or why it is not.
    pub done: oneshot::Sender<Result<(), ApiError>>,
}

/// A stream on its way to its worker.
pub struct Opening {
    /// Its number.
    pub number: StreamNumber,
    /// Slot of its account.
    pub account: u16,
    /// The stream.
    pub stream: Stream,
    /// Its consumers. If there are none, those that the store knows of are read from there.
    pub consumers: Consumers,
    /// Where its files are; `None`: it has none.
    pub directory: Option<PathBuf>,
    /// Answered when messages come to it.
    pub done: oneshot::Sender<()>,
}

/// The place for orders at a worker's door.
#[derive(Default)]
pub struct OrderBox {
    orders: Mutex<Vec<StreamOrder>>,
    has_orders: AtomicBool,
}

impl std::fmt::Debug for OrderBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OrderBox(…)")
    }
}

impl OrderBox {
    /// Adds an order. The worker has to be woken.
    pub fn put(&self, order: StreamOrder) {
        self.orders.lock().push(order);
        self.has_orders.store(true, Ordering::Release);
    }

    /// Whether there are orders; without the lock.
    pub fn has_orders(&self) -> bool {
        self.has_orders.load(Ordering::Acquire)
    }

    /// Takes the orders.
    pub fn take(&self) -> Vec<StreamOrder> {
        let mut orders = self.orders.lock();
        self.has_orders.store(false, Ordering::Release);
        std::mem::take(&mut *orders)
    }
}
