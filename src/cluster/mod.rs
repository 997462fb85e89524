//! Who belongs to the cluster: which servers there are routes to, and which are to be dialed.
//!
//! * [`membership`]: the servers, the connections to them, and when to dial whom.
//!
//! Sans-IO: introductions, ends of connections and the time come in; decisions and addresses to dial come out. The protocol's bytes are
//! [`crate::wire::route`]'s business, what goes over a route that of [`crate::broker`].

pub mod membership;

pub use membership::{Dial, DialId, Failure, Join, Membership};
