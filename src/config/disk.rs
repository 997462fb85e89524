//! The one place where this room touches the world: files of the disk and variables of the process.

use std::fs::File;
use std::io::Read as _;

use super::lang::{Environment, Files, ReadError};
use crate::base::system_error;

/// A configuration larger than this is a mistake, such as the path of a device.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// Reads files from disk.
#[derive(Debug, Clone, Copy)]
pub struct DiskFiles;

impl Files for DiskFiles {
    fn read(&self, path: &str) -> Result<String, ReadError> {
        let failed = |call, reason: String| ReadError { call, path: path.to_owned(), reason };
        let file = File::open(path).map_err(|error| failed("open", system_error::text(&error)))?;
        let mut bytes = Vec::new();
        // A directory can be opened, and not read.
        let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| failed("read", system_error::text(&error)))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(failed("read", format!("larger than {FILE_BYTES_MAX} bytes")));
        }
        String::from_utf8(bytes).map_err(|error| {
            failed("read", format!("not valid UTF-8 after {} bytes", error.utf8_error().valid_up_to()))
        })
    }
}

/// The variables of this process.
#[derive(Debug, Clone, Copy)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        // Such names cannot exist, and asking for them panics on some platforms.
        if name.is_empty() || name.contains(['=', '\0']) {
            return None;
        }
        std::env::var(name).ok()
    }
}
