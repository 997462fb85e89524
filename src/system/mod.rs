//! The system account: what the server is asked on subjects below `$SYS.REQ`, and the events that it publishes.
//!
//! Sans-IO, like the cores: a message in, what is to be done about it out; readings in, subjects and JSON out. The
//! subscriptions and the ways to the workers are the `server` room's ([`crate::server::system`]); what is told of the
//! server is the monitoring's ([`crate::monitor`]). Subjects, fields, order, omissions and texts are those of
//! nats-server 2.15.1, held by `tests/system.rs` beside it.
//!
//! * [`services`]: the subjects that are answered.
//! * [`options`]: bodies of requests, read as the reference reads them.
//! * [`request`]: what a message asks for.
//! * [`envelope`]: how answers are written down.
//! * [`statsz`]: the server in brief, which clusters tell each other.
//! * [`user_info`]: who it is that asks.
//! * [`events`]: connections that come and go, accounts that change, the server's end.

pub mod envelope;
pub mod events;
pub mod options;
pub mod request;
pub mod services;
pub mod statsz;
pub mod user_info;
