//! The base room: knows nothing of NATS.
//!
//! * [`buffer_slab`]: the read buffers that the kernel writes into, and the leases on them.
//! * [`output`]: one connection's bytes on their way out, in chunks from a shared pool.
//! * [`handover`]: bounded queues of batches between workers, one wake-up per batch.
//! * [`prefetch`]: memory asked for ahead of its use.
//! * [`system_error`]: what errors of the system read like.
//! * [`timer_wheel`]: deadlines in constant time.

pub mod buffer_slab;
pub mod handover;
pub mod output;
pub mod prefetch;
pub mod system_error;
pub mod timer_wheel;
