//! Who a client is and what it may do: decisions only.
//!
//! A client shows [`Credentials`]; the [`Directory`], compiled from the configuration, decides. Nothing here knows of
//! sockets, time or threads. One comparison is too slow for a worker: that with a bcrypt hash. It comes out as a
//! [`HashCheck`], for a thread that may take its time.
//!
//! * [`accounts`]: the subject spaces that users belong to, and their limits.
//! * [`credentials`]: everything that a client can show, as one value.
//! * [`certificate`], [`distinguished_name`]: what a client's certificate says of it.
//! * [`secret`]: passwords and tokens, compared without telling by the time it takes where they differ.
//! * [`nkey`]: the challenge of a connection, and signatures of it.
//! * [`permissions`]: what a user may publish and subscribe to.
//! * [`directory`]: the users, and the decision.

pub mod accounts;
pub mod certificate;
pub mod credentials;
pub mod directory;
pub mod distinguished_name;
pub mod nkey;
pub mod permissions;
pub mod secret;

pub use accounts::{Account, Accounts, TooManyAccounts};
pub use certificate::ClientCertificate;
pub use credentials::Credentials;
pub use directory::{CertificateMatch, Decision, Directory, User};
pub use permissions::Permissions;
pub use secret::HashCheck;
