//! What can go wrong in a measurement, by cause. A wrong command line is not here: see `args`.

use std::io;

/// Why a measurement has no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("{what}: {source}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("the server answered: -ERR {0}")]
    Refused(String),
    #[error("the server closed the connection ({0})")]
    Closed(&'static str),
    #[error("{0}")]
    Unsupported(String),
    #[error("unexpected bytes from the server: {0}")]
    Unexpected(String),
    #[error("{what}: {got} arrived of {expected} expected")]
    Missing { what: &'static str, got: u64, expected: u64 },
    #[error("{what}: {got} arrived, only {expected} were sent")]
    Surplus { what: &'static str, got: u64, expected: u64 },
    #[error("{0}")]
    Spawn(String),
    #[error("{0} of the measurements failed; the page says which and why")]
    Rows(usize),
}

impl BenchError {
    /// For `map_err`: an I/O error together with what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> BenchError {
        let what = what.into();
        move |source| BenchError::Io { what, source }
    }

    /// For bytes that should not be there: shows the first of them.
    pub fn unexpected(bytes: &[u8]) -> BenchError {
        let shown = &bytes[..bytes.len().min(60)];
        BenchError::Unexpected(shown.escape_ascii().to_string())
    }
}
