//! The `jetstream` blocks, of the server and of accounts: what they say.

use std::path::PathBuf;
use std::time::Duration;

use super::blocks::{self, JETSTREAM_ACCOUNT, storage_size};
use super::decode::{self, Decoder, Outcome, in_order, integer, non_empty, string};
use super::duration::parse_duration_ns;
use super::error::Problem;
use super::lang::{Map, Node, Value};
use super::options::KeyAt;
use super::shape::{Shape, expected};
use crate::store::Cipher;
use crate::subject::mapping::{Destination, Mapping};
use crate::subject::name::is_valid_subject;

/// What the `jetstream` block of a server asks for, where JetStream is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JetStreamOptions {
    /// `max_memory_store` and its aliases: bytes of all streams in memory. `None` (negative): three quarters of the machine's.
    pub memory_max: Option<u64>,
    /// `max_file_store` and its aliases: bytes of all streams on disk. `None` (negative): three quarters of what is free.
    pub file_max: Option<u64>,
    /// `domain`: a name by which the API of this server is told from those of others; empty without one.
    pub domain: String,
    /// `unique_tag`: shown. Among the servers of a cluster it says where replicas are to be.
    pub unique_tag: String,
    /// `strict`. Requests with fields that are not known are refused.
    pub strict: bool,
    /// `sync_interval`, `sync`: how often what has been acknowledged is synced to the disk. `None` (`always`): before it is
    /// acknowledged.
    pub sync_interval: Option<Duration>,
    /// `limits`.
    pub limits: JetStreamLimits,
    /// `key` and what belongs to it: streams are encrypted on the disk.
    pub encryption: Option<EncryptionOptions>,
}

/// How streams are encrypted on the disk.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptionOptions {
    /// `key`.
    pub key: String,
    /// `prev_key`: what was the key until now.
    pub previous: Option<String>,
    /// `cipher`; ChaCha20-Poly1305 if it is not said.
    pub cipher: Cipher,
}

/// Keys are not for logs.
impl std::fmt::Debug for EncryptionOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncryptionOptions").field("cipher", &self.cipher).finish_non_exhaustive()
    }
}

/// The `limits` of the server's `jetstream` block. `None`: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JetStreamLimits {
    /// `duplicate_window`: the longest that a stream may have.
    pub duplicate_window: Option<Duration>,
    /// `max_ack_pending` of consumers.
    pub ack_pending_max: Option<u64>,
    /// `max_request_batch` of pull requests.
    pub request_batch_max: Option<u64>,
    /// `max_ha_assets`: shown. There is nothing here that has more than one replica.
    pub ha_assets_max: i64,
    /// `default_max_consumers` of a stream, where neither it nor its account says how many. 0: not said; negative: no limit.
    pub consumers_default: i64,
    /// `batch { max_inflight_per_stream }`: batches of a stream that are open.
    pub batch_inflight_per_stream: Option<u64>,
    /// `batch { max_inflight_total }`: of all streams.
    pub batch_inflight_total: Option<u64>,
    /// `batch { max_msgs }`: messages of an atomic batch.
    pub batch_messages: Option<u64>,
    /// `batch { timeout }`: how long a batch waits for its next message.
    pub batch_timeout: Option<Duration>,
}

/// Consumers of a stream where nothing says how many.
const CONSUMERS_OF_A_STREAM: i64 = 1000;

impl JetStreamLimits {
    /// How many consumers a stream has at most where neither it nor its account says so; negative: no limit.
    pub fn consumers_of_a_stream(&self) -> i64 {
        if self.consumers_default == 0 { CONSUMERS_OF_A_STREAM } else { self.consumers_default }
    }
}

/// What the streams and consumers of an account may take. `None`: no limit but the server's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JetStreamAccountLimits {
    /// `max_memory` and its aliases, in bytes.
    pub memory_max: Option<u64>,
    /// `max_store` and its aliases, in bytes.
    pub file_max: Option<u64>,
    /// `max_streams`, `streams`.
    pub streams_max: Option<u64>,
    /// `max_consumers`, `consumers`.
    pub consumers_max: Option<u64>,
    /// `max_ack_pending` of a consumer.
    pub ack_pending_max: Option<u64>,
    /// `mem_max_stream_bytes`, `memory_max_stream_bytes`: of one stream in memory.
    pub memory_stream_max: Option<u64>,
    /// `disk_max_stream_bytes`, `store_max_stream_bytes`: of one stream on disk.
    pub file_stream_max: Option<u64>,
    /// `max_bytes_required`, `max_stream_bytes`, `max_bytes`: streams must have `max_bytes`.
    pub max_bytes_required: bool,
}

impl Default for JetStreamOptions {
    fn default() -> JetStreamOptions {
        JetStreamOptions {
            memory_max: None,
            file_max: None,
            domain: String::new(),
            unique_tag: String::new(),
            strict: true,
            sync_interval: None,
            limits: JetStreamLimits::default(),
            encryption: None,
        }
    }
}

/// What of the API and beside it is reached by the domain too: `$JS.DOMAIN.API.` and the first, which becomes the second.
const OF_A_DOMAIN: &[(&str, &str)] = &[
    ("INFO", "$JS.API.INFO"),
    ("STREAM.>", "$JS.API.STREAM.>"),
    ("CONSUMER.>", "$JS.API.CONSUMER.>"),
    ("DIRECT.>", "$JS.API.DIRECT.>"),
    ("META.>", "$JS.API.META.>"),
    ("SERVER.>", "$JS.API.SERVER.>"),
    ("ACCOUNT.>", "$JS.API.ACCOUNT.>"),
    ("$KV.>", "$KV.>"),
    ("$OBJ.>", "$OBJ.>"),
];

impl JetStreamOptions {
    /// What maps the subjects of the domain to those of the API; nothing without a domain.
    pub fn domain_mappings(&self) -> Vec<Mapping> {
        if self.domain.is_empty() {
            return Vec::new();
        }
        let mapping = |(from, to): &(&str, &str)| {
            let to = Destination { subject: (*to).to_owned(), weight: 100, cluster: String::new() };
            Mapping::new(&format!("$JS.{}.API.{from}", self.domain), vec![to]).ok()
        };
        OF_A_DOMAIN.iter().filter_map(mapping).collect()
    }

    /// What is wrong with the domain.
    pub(super) fn check_domain(&self) -> Result<(), Problem> {
        let derived = format!("$JS.{}.API.>", self.domain);
        if self.domain.is_empty() {
            return Ok(());
        }
        if !is_valid_subject(derived.as_bytes()) {
            return Err(Problem::DomainSubject(derived));
        }
        if self.domain.contains(['.', '*', '>']) {
            return Err(Problem::DomainName);
        }
        Ok(())
    }
}

/// Keys of the server's block that are checked and have no effect yet.
const NOT_YET: &[&str] =
    &["request_queue_limit", "info_queue_limit", "max_buffered_msgs", "max_buffered_size"];

/// How often streams are synced that do not sync before they acknowledge, where nothing else is said.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(120);

/// Keys without which the server would guard less than the file asks for.
const REFUSED: &[&str] = &["tpm"];

impl Decoder {
    /// The server's `jetstream` block.
    pub(super) fn jetstream(&mut self, name: &str, node: &Node) -> Outcome {
        let known = self.problems.len();
        self.check(&Shape::Checked(blocks::jetstream), name, node)?;
        if self.problems.len() > known {
            return Ok(());
        }
        self.options.jetstream = None;
        match &node.value {
            Value::Bool(true) => self.options.jetstream = Some(JetStreamOptions::default()),
            Value::String(text) if text.to_lowercase().starts_with("enable") => {
                self.options.jetstream = Some(JetStreamOptions::default());
            }
            Value::Map(entries) => self.jetstream_map(entries)?,
            _ => {}
        }
        Ok(())
    }

    fn jetstream_map(&mut self, entries: &Map) -> Outcome {
        let mut read = JetStreamOptions::default();
        let mut enabled = true;
        let (mut key, mut previous, mut cipher) = (None, None, Cipher::ChaCha20Poly1305);
        for (name, node) in in_order(entries) {
            let lower = name.to_lowercase();
            if NOT_YET.contains(&lower.as_str()) {
                let name = format!("jetstream.{name}");
                self.options.not_supported.push(KeyAt { name, at: Some(node.at.clone()) });
            }
            let result = match lower.as_str() {
                "enable" | "enabled" => decode::boolean(node).map(|on| enabled = on),
                "store" | "store_dir" | "storedir" => {
                    string(node).map(|path| self.options.store_dir = non_empty(path).map(PathBuf::from))
                }
                "max_memory_store" | "max_mem_store" | "max_mem" => {
                    bytes("max_mem_store", node).map(|max| read.memory_max = max)
                }
                "max_file_store" | "max_file" => bytes("max_file_store", node).map(|max| read.file_max = max),
                "sync" | "sync_interval" => {
                    sync_interval(name, node).map(|interval| read.sync_interval = interval)
                }
                "domain" => string(node).map(|domain| read.domain = domain.to_owned()),
                "unique_tag" => string(node).map(|tag| read.unique_tag = tag.to_owned()),
                "strict" => decode::boolean(node).map(|strict| read.strict = strict),
                "limits" => self.jetstream_limits(node).map(|limits| read.limits = limits),
                "key" | "ek" | "encryption_key" => string(node).map(|text| key = non_empty(text)),
                "prev_key" | "prev_ek" | "prev_encryption_key" => {
                    string(node).map(|text| previous = non_empty(text))
                }
                "cipher" => string(node).map(|name| {
                    if name.eq_ignore_ascii_case("aes") {
                        cipher = Cipher::Aes256Gcm;
                    }
                }),
                refused if REFUSED.contains(&refused) => {
                    Err(Problem::Refused(format!("jetstream.{refused}")))
                }
                // Of clusters, of how the reference's files are written, or a variable.
                _ => Ok(()),
            };
            self.note(&node.at, result);
        }
        read.encryption = key.map(|key| EncryptionOptions { key, previous, cipher });
        self.options.jetstream = enabled.then_some(read);
        Ok(())
    }

    fn jetstream_limits(&mut self, node: &Node) -> Outcome<JetStreamLimits> {
        let mut limits = JetStreamLimits::default();
        for (name, node) in in_order(decode::map(node)?) {
            match name.to_lowercase().as_str() {
                "duplicate_window" => limits.duplicate_window = positive_duration(name, node)?,
                "max_ack_pending" => limits.ack_pending_max = positive(integer(node)?),
                "max_request_batch" => limits.request_batch_max = positive(integer(node)?),
                "max_ha_assets" => limits.ha_assets_max = integer(node)?,
                "default_max_consumers" => limits.consumers_default = integer(node)?,
                "batch" => {
                    for (name, node) in in_order(decode::map(node)?) {
                        match name.to_lowercase().as_str() {
                            "max_inflight_per_stream" => {
                                limits.batch_inflight_per_stream = positive(integer(node)?);
                            }
                            "max_inflight_total" => limits.batch_inflight_total = positive(integer(node)?),
                            "max_msgs" => limits.batch_messages = positive(integer(node)?),
                            "timeout" => limits.batch_timeout = positive_duration(name, node)?,
                            // A variable.
                            _ => {}
                        }
                    }
                }
                // A variable.
                _ => {}
            }
        }
        Ok(limits)
    }

    /// The `jetstream` block of an account: what it may take, if it may.
    pub(super) fn account_jetstream(
        &mut self,
        name: &str,
        node: &Node,
    ) -> Outcome<Option<JetStreamAccountLimits>> {
        let mut limits = JetStreamAccountLimits::default();
        match &node.value {
            Value::Bool(on) => return Ok(on.then_some(limits)),
            Value::String(text) => {
                return match text.to_lowercase().as_str() {
                    "enabled" | "enable" => Ok(Some(limits)),
                    "disabled" | "disable" => Ok(None),
                    _ => {
                        let wanted = "Expected 'enabled' or 'disabled' for string value";
                        Err(expected(wanted, format!("'{text}'")))
                    }
                };
            }
            Value::Map(_) => {}
            other => {
                let wanted = "Expected map, bool or string to define JetStream";
                return Err(expected(wanted, other.type_name()));
            }
        }
        let known = self.problems.len();
        self.check(&Shape::Map(&JETSTREAM_ACCOUNT), name, node)?;
        if self.problems.len() > known {
            return Ok(None);
        }
        for (name, node) in in_order(decode::map(node)?) {
            let max = |field: &mut Option<u64>| integer(node).map(|max| *field = unsigned(max));
            let result = match name.to_lowercase().as_str() {
                "max_memory" | "max_mem" | "mem" | "memory" => max(&mut limits.memory_max),
                "max_store" | "max_file" | "max_disk" | "store" | "disk" => max(&mut limits.file_max),
                "max_streams" | "streams" => max(&mut limits.streams_max),
                "max_consumers" | "consumers" => max(&mut limits.consumers_max),
                "max_ack_pending" => max(&mut limits.ack_pending_max),
                "mem_max_stream_bytes" | "memory_max_stream_bytes" => max(&mut limits.memory_stream_max),
                "disk_max_stream_bytes" | "store_max_stream_bytes" => max(&mut limits.file_stream_max),
                "max_bytes_required" | "max_stream_bytes" | "max_bytes" => {
                    decode::boolean(node).map(|required| limits.max_bytes_required = required)
                }
                // Of clusters, or a variable.
                _ => Ok(()),
            };
            self.note(&node.at, result);
        }
        Ok(Some(limits))
    }
}

/// `None` for `always`. Nothing is the usual interval, as in the reference; a plain number counts seconds.
fn sync_interval(name: &str, node: &Node) -> Outcome<Option<Duration>> {
    if let Value::Integer(seconds) = node.value {
        let interval = unsigned(seconds).filter(|seconds| *seconds > 0).map(Duration::from_secs);
        return Ok(Some(interval.unwrap_or(SYNC_INTERVAL)));
    }
    if string(node)?.eq_ignore_ascii_case("always") {
        return Ok(None);
    }
    positive_duration(name, node).map(|interval| Some(interval.unwrap_or(SYNC_INTERVAL)))
}

fn bytes(name: &str, node: &Node) -> Outcome<Option<u64>> {
    storage_size(name, node).map(unsigned)
}

fn positive_duration(name: &str, node: &Node) -> Outcome<Option<Duration>> {
    let ns = parse_duration_ns(string(node)?)
        .map_err(|source| Problem::Duration { field: name.to_owned(), source })?;
    Ok(positive(ns).map(Duration::from_nanos))
}

/// Negative numbers are no limit.
fn unsigned(number: i64) -> Option<u64> {
    u64::try_from(number).ok()
}

/// Neither is 0.
fn positive(number: i64) -> Option<u64> {
    unsigned(number).filter(|number| *number > 0)
}
