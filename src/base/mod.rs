//! The base room: knows nothing of NATS.
//!
//! * [`buffer_slab`]: the read buffers that the kernel writes into, and the leases on them.
//! * [`histogram`]: how many times or sizes there were up to each bound.
//! * [`nuid`]: ids of events.
//! * [`output`]: one connection's bytes on their way out, in chunks from a shared pool.
//! * [`handover`]: bounded queues of batches between workers, one wake-up per batch.
//! * [`prefetch`]: memory asked for ahead of its use.
//! * [`system_error`]: what errors of the system read like.
//! * [`timer_wheel`]: deadlines in constant time.
//! * [`wall_clock`]: the time of day.

pub mod buffer_slab;
pub mod handover;
pub mod histogram;
pub mod nuid;
pub mod output;
pub mod prefetch;
pub mod system_error;
pub mod timer_wheel;
pub mod wall_clock;
