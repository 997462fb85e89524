//! Subjects and patterns: what a name may be, and which subscriptions a published subject reaches.
//!
//! - [`name`]: the rules for names, the [`Pattern`] and [`Subject`] types that can only hold valid ones,
//!   and the plain matcher that everything faster is tested against.
//! - [`pattern_set`]: a few patterns that are only asked, for permissions.
//! - [`tree`]: the index of all patterns of an account, a compressed radix tree.
//! - [`transform`]: one subject made from another; [`mapping`]: what a published subject becomes.
//! - [`import`]: what leads from one account's subject space into another's.
//!
//! Sans-IO like every core: bytes in, decisions out. No clock, no locks, no `unsafe`.

pub mod fanout;
pub mod import;
pub mod interest;
pub mod mapping;
pub mod name;
pub mod pattern_set;
pub mod transform;
pub mod tree;

pub use name::{Pattern, Subject, SubjectError};
pub use tree::Tree;
