//! Configuration: the command line, the language of configuration files, and the options that come out.
//!
//! Everything goes through [`load`]:
//!
//! ```no_run
//! use ringmain::config::{self, ConfigError, Startup};
//!
//! match config::load(std::env::args_os().skip(1)) {
//!     Ok(Startup::Run(options, warnings)) => {
//!         for warning in warnings {
//!             eprintln!("{warning}");
//!         }
//!         if let Some(warning) = options.not_supported_warning() {
//!             eprintln!("{warning}");
//!         }
//!         // server::run(*options)
//!     }
//!     Ok(Startup::PrintAndExit { stdout, stderr, code }) => {
//!         eprint!("{stderr}");
//!         print!("{stdout}");
//!         std::process::exit(code);
//!     }
//!     Ok(Startup::Signal(signal, target)) => {
//!         // find the process, send the signal
//!         let _ = (signal, target);
//!     }
//!     Err(error) => {
//!         eprintln!("nats-server: {error}");
//!         std::process::exit(ConfigError::EXIT_CODE);
//!     }
//! }
//! ```
//!
//! A reload is [`load`] again with the same arguments, so that the command line keeps overriding the file, and then
//! [`compare`], before anything is done.
//!
//! The way of a configuration through the files of this room:
//!
//! 1. `args`: words to flags, in the syntax of Go's `flag`;
//! 2. `disk`: the only file that reads files and the environment; all others take [`lang::Files`] and
//!    [`lang::Environment`];
//! 3. [`lang`]: text to a tree of values with positions;
//! 4. `keys`: which names there are, and what is supported today;
//!    `shape` and `blocks`: what the values of those look like that are not supported yet;
//! 5. `decode`: tree to [`Options`], `duration` for Go's durations, `accounts` and `permissions` for those and for what
//!    users may do, `tls` for the map of that name and its files, `websocket` for the
//!    block of that name, `jetstream` for those of servers and accounts, `advertise` for addresses that clients are told;
//! 6. `load`: flags over file, rules between options;
//! 7. `reload`: what differs between two readings, and whether it may;
//! 8. `error`, `help`: what is printed when it does not work, or was asked for.
//!
//! `docs/configuration.md` is the operator's side of it.

mod accounts;
mod advertise;
mod args;
mod blocks;
mod cluster;
mod decode;
mod disk;
mod duration;
mod error;
mod help;
mod imports;
mod jetstream;
mod keys;
pub mod lang;
mod load;
mod options;
mod permissions;
mod reload;
mod shape;
mod tls;
mod websocket;

pub use accounts::{GLOBAL_ACCOUNT, SYSTEM_ACCOUNT};
pub use advertise::Advertise;
pub use args::{Args, ArgsError, parse_args};
pub use cluster::{ClusterOptions, ROUTE_PING_INTERVAL_MAX, RouteCredentials, RouteUrl};
pub use decode::is_public_user_key;
pub use disk::{DiskFiles, FILE_BYTES_MAX, ProcessEnvironment};
pub use duration::{DurationError, GoDuration, parse_duration_ns};
pub use error::{ConfigError, Problem, ProblemAt, Warning};
pub use imports::{
    Access, IMPORTS_MAX, ImportError, ServiceExport, ServiceImport, Sharing, StreamExport, StreamImport,
};
pub use jetstream::{
    EncryptionOptions, JetStreamAccountLimits, JetStreamLimits, JetStreamOptions, SYNC_INTERVAL,
};
pub use load::{Signal, SignalTarget, Startup, load, load_from};
pub use options::{
    Account, AccountLimits, Authorization, CLOSED_CLIENTS_MAX, ConnectionType, ConnectionTypes, Credentials,
    Io, KeyAt, LAME_DUCK_DURATION_MIN, Login, MAX_PAYLOAD_ADVISED, MonitorAccess, MonitoringFault, Options,
    PORT_DEFAULT, Password, Port, RemoteSyslog, User, WORKERS_MAX,
};
pub use permissions::{Permissions, QueueSubject, Responses};
pub use reload::{NotReloadable, RELOADS, compare};
pub use tls::{
    Certificate, HANDSHAKE_FIRST_AUTO, HandshakeFirst, TLS_TIMEOUT_DEFAULT, TlsError, TlsOptions,
    cipher_suite_name,
};
pub use websocket::{HANDSHAKE_TIMEOUT_DEFAULT, WebSocketOptions};
