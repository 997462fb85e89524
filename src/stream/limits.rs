//! What a server and an account may use.

use super::json::Object;

/// What the server allows to everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLimits {
    /// The longest time for which ids of messages are remembered; 0 is no limit.
    pub duplicate_window_ns: i64,
    /// Bytes that all memory streams together may reserve.
    pub max_memory_bytes: i64,
    /// Bytes that all file streams together may reserve.
    pub max_storage_bytes: i64,
    /// Bytes that the memory streams of all accounts reserve already.
    pub reserved_memory_bytes: i64,
    /// Bytes that the file streams of all accounts reserve already.
    pub reserved_storage_bytes: i64,
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        ServerLimits {
            duplicate_window_ns: 0,
            max_memory_bytes: i64::MAX,
            max_storage_bytes: i64::MAX,
            reserved_memory_bytes: 0,
            reserved_storage_bytes: 0,
        }
    }
}

/// What an account may use. -1 is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the API's words")]
pub struct AccountLimits {
    pub max_memory: i64,
    pub max_storage: i64,
    pub max_streams: i64,
    pub max_consumers: i64,
    pub max_ack_pending: i64,
    pub memory_max_stream_bytes: i64,
    pub storage_max_stream_bytes: i64,
    pub max_bytes_required: bool,
}

impl Default for AccountLimits {
    fn default() -> AccountLimits {
        AccountLimits {
            max_memory: -1,
            max_storage: -1,
            max_streams: -1,
            max_consumers: -1,
            max_ack_pending: -1,
            memory_max_stream_bytes: -1,
            storage_max_stream_bytes: -1,
            max_bytes_required: false,
        }
    }
}

impl AccountLimits {
    /// Writes the limits as they stand in the answer about an account.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        object.int("max_memory", self.max_memory);
        object.int("max_storage", self.max_storage);
        object.int("max_streams", self.max_streams);
        object.int("max_consumers", self.max_consumers);
        object.int("max_ack_pending", self.max_ack_pending);
        object.int("memory_max_stream_bytes", self.memory_max_stream_bytes);
        object.int("storage_max_stream_bytes", self.storage_max_stream_bytes);
        object.bool("max_bytes_required", self.max_bytes_required);
        object.end();
    }
}
