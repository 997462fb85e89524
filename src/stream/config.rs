//! What a stream is configured to be: the type, how it is read from a request, how it is written into an answer and into the store.
//!
//! Names, order and omissions are those of nats-server 2.15.1. What makes sense together is not asked here: [`super::check`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::json::{
    DurationNs, FromJson, Int, JsonError, Node, Object, Path, Value, from_json, go_quoted, write_array,
};
use super::time;

/// Which messages stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retention {
    /// Until a limit is exceeded.
    #[default]
    Limits,
    /// Until every consumer that is interested has acknowledged them.
    Interest,
    /// Until a consumer has acknowledged them.
    WorkQueue,
}

/// What happens to a message that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Discard {
    /// It is stored, and the oldest go.
    #[default]
    Old,
    /// It is refused.
    New,
}

/// Where messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "plain words")]
pub enum Storage {
    #[default]
    File,
    Memory,
}

/// How messages are compressed on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "plain words")]
pub enum Compression {
    #[default]
    None,
    S2,
}

/// When a message is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PersistMode {
    /// When it is stored as safely as the server's configuration says.
    #[default]
    Default,
    /// When it is written, before it is synced.
    Async,
}

/// On which servers a stream is placed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the API's words")]
pub struct Placement {
    pub cluster: String,
    pub tags: Vec<String>,
    pub preferred: String,
}

/// A change of subjects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the API's words")]
pub struct SubjectTransform {
    pub src: String,
    pub dest: String,
}

/// What is published again once it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the API's words")]
pub struct Republish {
    pub src: String,
    pub dest: String,
    pub headers_only: bool,
}

/// Limits and defaults for the consumers of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the API's words")]
pub struct ConsumerLimits {
    pub inactive_threshold: DurationNs,
    pub max_ack_pending: Int,
}

/// The stream that a mirror or a source copies from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the API's words")]
pub struct StreamSource {
    pub name: String,
    pub opt_start_seq: u64,
    pub opt_start_time: Option<Time>,
    pub filter_subject: String,
    pub subject_transforms: Vec<SubjectTransform>,
    pub external: Option<ExternalStream>,
    pub consumer: Option<StreamConsumerSource>,
}

/// Where a stream of another account or domain is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the API's words")]
pub struct ExternalStream {
    pub api: String,
    pub deliver: String,
}

/// A consumer that was made beforehand for a mirror or a source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the API's words")]
pub struct StreamConsumerSource {
    pub name: String,
    pub deliver_subject: String,
}

/// A time in a request, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub i64);

impl Default for Time {
    fn default() -> Time {
        Time(time::ZERO)
    }
}

/// The configuration of a stream. As a client gives it, 0 stands for "not said"; [`super::check`] puts the defaults in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the API's words")]
pub struct StreamConfig {
    pub name: String,
    pub description: String,
    pub subjects: Vec<String>,
    pub retention: Retention,
    pub max_consumers: Int,
    pub max_msgs: i64,
    pub max_bytes: i64,
    pub max_age: DurationNs,
    pub max_msgs_per_subject: i64,
    pub max_msg_size: i32,
    pub discard: Discard,
    pub storage: Storage,
    pub num_replicas: Int,
    pub no_ack: bool,
    pub duplicate_window: DurationNs,
    pub placement: Option<Placement>,
    pub mirror: Option<StreamSource>,
    pub sources: Vec<StreamSource>,
    pub compression: Compression,
    pub first_seq: u64,
    pub subject_transform: Option<SubjectTransform>,
    pub republish: Option<Republish>,
    pub allow_direct: bool,
    pub mirror_direct: bool,
    pub discard_new_per_subject: bool,
    pub sealed: bool,
    pub deny_delete: bool,
    pub deny_purge: bool,
    pub allow_rollup_hdrs: bool,
    pub consumer_limits: ConsumerLimits,
    pub allow_msg_ttl: bool,
    pub subject_delete_marker_ttl: DurationNs,
    pub allow_msg_counter: bool,
    pub allow_atomic: bool,
    pub allow_msg_schedules: bool,
    pub persist_mode: PersistMode,
    pub allow_batched: bool,
    pub metadata: BTreeMap<String, String>,
}

/// The body of a request to create or to update a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamConfigRequest {
    /// The configuration.
    pub config: StreamConfig,
    /// Nothing is put right silently.
    pub pedantic: bool,
}

from_json!(StreamConfigRequest, "server.StreamConfigRequest", {
    "name" => config.name,
    "description" => config.description,
    "subjects" => config.subjects,
    "retention" => config.retention,
    "max_consumers" => config.max_consumers,
    "max_msgs" => config.max_msgs,
    "max_bytes" => config.max_bytes,
    "max_age" => config.max_age,
    "max_msgs_per_subject" => config.max_msgs_per_subject,
    "max_msg_size" => config.max_msg_size,
    "discard" => config.discard,
    "storage" => config.storage,
    "num_replicas" => config.num_replicas,
    "no_ack" => config.no_ack,
    "duplicate_window" => config.duplicate_window,
    "placement" => config.placement,
    "mirror" => config.mirror,
    "sources" => config.sources,
    "compression" => config.compression,
    "first_seq" => config.first_seq,
    "subject_transform" => config.subject_transform,
    "republish" => config.republish,
    "allow_direct" => config.allow_direct,
    "mirror_direct" => config.mirror_direct,
    "discard_new_per_subject" => config.discard_new_per_subject,
    "sealed" => config.sealed,
    "deny_delete" => config.deny_delete,
    "deny_purge" => config.deny_purge,
    "allow_rollup_hdrs" => config.allow_rollup_hdrs,
    "consumer_limits" => config.consumer_limits,
    "allow_msg_ttl" => config.allow_msg_ttl,
    "subject_delete_marker_ttl" => config.subject_delete_marker_ttl,
    "allow_msg_counter" => config.allow_msg_counter,
    "allow_atomic" => config.allow_atomic,
    "allow_msg_schedules" => config.allow_msg_schedules,
    "persist_mode" => config.persist_mode,
    "allow_batched" => config.allow_batched,
    "metadata" => config.metadata,
    "pedantic" => pedantic,
});

from_json!(Placement, "server.Placement", { "cluster" => cluster, "tags" => tags, "preferred" => preferred });
from_json!(SubjectTransform, "server.SubjectTransformConfig", { "src" => src, "dest" => dest });
from_json!(Republish, "server.RePublish", { "src" => src, "dest" => dest, "headers_only" => headers_only });
from_json!(ConsumerLimits, "server.StreamConsumerLimits", {
    "inactive_threshold" => inactive_threshold,
    "max_ack_pending" => max_ack_pending,
});
from_json!(StreamSource, "server.StreamSource" in lists "*server.StreamSource", {
    "name" => name,
    "opt_start_seq" => opt_start_seq,
    "opt_start_time" => opt_start_time,
    "filter_subject" => filter_subject,
    "subject_transforms" => subject_transforms,
    "external" => external,
    "consumer" => consumer,
});
from_json!(ExternalStream, "server.ExternalStream", { "api" => api, "deliver" => deliver });
from_json!(StreamConsumerSource, "server.StreamConsumerSource", { "name" => name, "deliver_subject" => deliver_subject });

impl FromJson for Time {
    fn type_name() -> String {
        "time.Time".to_owned()
    }

    fn read_from(&mut self, node: &Node<'_>, path: &mut Path) -> Result<(), JsonError> {
        match &node.value {
            Value::Null => {}
            Value::String(text) => self.0 = time::parse(text).map_err(JsonError)?,
            _ => return Err(path.mismatch(node, "time.Time")),
        }
        Ok(())
    }
}

/// The reference reads these words itself, and says the same of each that it does not know.
macro_rules! words {
    ($type:ty, $go:literal, { $($word:literal => $value:expr),* $(,)? }, $unknown:expr) => {
        impl FromJson for $type {
            fn type_name() -> String {
                $go.to_owned()
            }

            fn read_from(&mut self, node: &Node<'_>, _path: &mut Path) -> Result<(), JsonError> {
                let unknown: fn(&Node<'_>) -> String = $unknown;
                *self = match &node.value {
                    $(Value::String(word) if word == $word => $value,)*
                    _ => return Err(JsonError(unknown(node))),
                };
                Ok(())
            }
        }

        impl $type {
            /// The word for it in the API.
            pub fn word(self) -> &'static str {
                $(if self == $value {
                    return $word;
                })*
                ""
            }
        }
    };
}

fn can_not_unmarshal(node: &Node<'_>) -> String {
    format!("can not unmarshal {}", go_quoted(&String::from_utf8_lossy(node.raw)))
}

/// This word alone is read as a string first.
fn unknown_compression(node: &Node<'_>) -> String {
    let kind = match node.value {
        Value::Null | Value::String(_) => return "unknown compression algorithm".to_owned(),
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {kind} into Go value of type string")
}

words!(Retention, "server.RetentionPolicy", {
    "limits" => Retention::Limits,
    "interest" => Retention::Interest,
    "workqueue" => Retention::WorkQueue,
}, can_not_unmarshal);
words!(Discard, "server.DiscardPolicy", { "old" => Discard::Old, "new" => Discard::New }, can_not_unmarshal);
words!(Storage, "server.StorageType", { "file" => Storage::File, "memory" => Storage::Memory }, can_not_unmarshal);
words!(Compression, "server.StoreCompression", { "none" => Compression::None, "s2" => Compression::S2 }, unknown_compression);
words!(PersistMode, "server.PersistModeType", {
    "default" => PersistMode::Default,
    "async" => PersistMode::Async,
}, can_not_unmarshal);

impl StreamConfig {
    /// Writes the configuration as it stands in answers.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.write_with(out, &self.metadata);
    }

    /// Writes the configuration with what the server adds to its metadata in answers about one stream.
    pub fn write_with_versions(&self, out: &mut Vec<u8>, sync_interval: Option<Duration>) {
        let mut metadata = self.metadata.clone();
        if let Some(interval) = sync_interval {
            let ns = i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX);
            metadata.insert(METADATA_SYNC_INTERVAL.to_owned(), time::duration_text(ns));
        }
        metadata.insert(METADATA_VERSION.to_owned(), super::SERVER_VERSION.to_owned());
        metadata.insert(METADATA_LEVEL.to_owned(), super::API_LEVEL.to_string());
        self.write_with(out, &metadata);
    }

    fn write_with(&self, out: &mut Vec<u8>, metadata: &BTreeMap<String, String>) {
        let mut object = Object::begin(out);
        object.string("name", &self.name);
        object.string_unless_empty("description", &self.description);
        object.strings_unless_empty("subjects", &self.subjects);
        object.string("retention", self.retention.word());
        object.int("max_consumers", self.max_consumers.0);
        object.int("max_msgs", self.max_msgs);
        object.int("max_bytes", self.max_bytes);
        object.int("max_age", self.max_age.0);
        object.int("max_msgs_per_subject", self.max_msgs_per_subject);
        object.int_unless_zero("max_msg_size", self.max_msg_size.into());
        object.string("discard", self.discard.word());
        object.string("storage", self.storage.word());
        object.int("num_replicas", self.num_replicas.0);
        object.bool_if_set("no_ack", self.no_ack);
        object.int_unless_zero("duplicate_window", self.duplicate_window.0);
        if let Some(placement) = &self.placement {
            let mut inner = Object::begin(object.member("placement"));
            inner.string_unless_empty("cluster", &placement.cluster);
            inner.strings_unless_empty("tags", &placement.tags);
            inner.string_unless_empty("preferred", &placement.preferred);
            inner.end();
        }
        if let Some(mirror) = &self.mirror {
            mirror.write(object.member("mirror"));
        }
        if !self.sources.is_empty() {
            write_array(object.member("sources"), &self.sources, |out, source| source.write(out));
        }
        object.string("compression", self.compression.word());
        object.uint_unless_zero("first_seq", self.first_seq);
        if let Some(transform) = &self.subject_transform {
            transform.write(object.member("subject_transform"));
        }
        if let Some(republish) = &self.republish {
            let mut inner = Object::begin(object.member("republish"));
            inner.string_unless_empty("src", &republish.src);
            inner.string("dest", &republish.dest);
            inner.bool_if_set("headers_only", republish.headers_only);
            inner.end();
        }
        object.bool("allow_direct", self.allow_direct);
        object.bool("mirror_direct", self.mirror_direct);
        object.bool_if_set("discard_new_per_subject", self.discard_new_per_subject);
        object.bool("sealed", self.sealed);
        object.bool("deny_delete", self.deny_delete);
        object.bool("deny_purge", self.deny_purge);
        object.bool("allow_rollup_hdrs", self.allow_rollup_hdrs);
        let mut limits = Object::begin(object.member("consumer_limits"));
        limits.int_unless_zero("inactive_threshold", self.consumer_limits.inactive_threshold.0);
        limits.int_unless_zero("max_ack_pending", self.consumer_limits.max_ack_pending.0);
        limits.end();
        object.bool("allow_msg_ttl", self.allow_msg_ttl);
        object.int_unless_zero("subject_delete_marker_ttl", self.subject_delete_marker_ttl.0);
        object.bool_if_set("allow_msg_counter", self.allow_msg_counter);
        object.bool_if_set("allow_atomic", self.allow_atomic);
        object.bool_if_set("allow_msg_schedules", self.allow_msg_schedules);
        if self.persist_mode != PersistMode::Default {
            object.string("persist_mode", self.persist_mode.word());
        }
        object.bool_if_set("allow_batched", self.allow_batched);
        object.map_unless_empty("metadata", metadata);
        object.end();
    }

    /// Takes what the server adds in answers out of the metadata, and puts in the level of the API that the configuration needs.
    pub fn set_static_metadata(&mut self) {
        self.remove_dynamic_metadata();
        self.metadata.insert(METADATA_REQUIRED_LEVEL.to_owned(), self.required_level().to_string());
    }

    /// Takes what the server adds in answers out of the metadata.
    pub fn remove_dynamic_metadata(&mut self) {
        self.metadata.remove(METADATA_VERSION);
        self.metadata.remove(METADATA_LEVEL);
        self.metadata.remove(METADATA_SYNC_INTERVAL);
    }

    /// The level of the API that a server must have for this stream.
    pub fn required_level(&self) -> u32 {
        if self.allow_batched {
            4
        } else if self.allow_msg_counter
            || self.allow_atomic
            || self.allow_msg_schedules
            || self.persist_mode == PersistMode::Async
        {
            2
        } else {
            u32::from(self.allow_msg_ttl || self.subject_delete_marker_ttl.0 > 0)
        }
    }
}

/// The level of the API that an asset needs; stored with it.
pub const METADATA_REQUIRED_LEVEL: &str = "_nats.req.level";
/// The version of the server, in answers.
pub const METADATA_VERSION: &str = "_nats.ver";
/// How often a stream is synced whose acknowledgements do not wait for that, in answers.
pub const METADATA_SYNC_INTERVAL: &str = "_ringmain.sync_interval";
/// The level of the API of the server, in answers.
pub const METADATA_LEVEL: &str = "_nats.level";

impl StreamSource {
    /// Writes it as it stands in a configuration.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        object.string("name", &self.name);
        object.uint_unless_zero("opt_start_seq", self.opt_start_seq);
        if let Some(start) = self.opt_start_time {
            object.time("opt_start_time", start.0);
        }
        object.string_unless_empty("filter_subject", &self.filter_subject);
        if !self.subject_transforms.is_empty() {
            write_array(object.member("subject_transforms"), &self.subject_transforms, |out, transform| {
                transform.write(out);
            });
        }
        if let Some(external) = &self.external {
            external.write(object.member("external"));
        }
        if let Some(consumer) = &self.consumer {
            let mut inner = Object::begin(object.member("consumer"));
            inner.string_unless_empty("name", &consumer.name);
            inner.string_unless_empty("deliver_subject", &consumer.deliver_subject);
            inner.end();
        }
        object.end();
    }
}

impl ExternalStream {
    /// Writes it as it stands in a configuration.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        object.string("api", &self.api);
        object.string("deliver", &self.deliver);
        object.end();
    }
}

impl SubjectTransform {
    /// Writes it as it stands in a configuration.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        object.string("src", &self.src);
        object.string("dest", &self.dest);
        object.end();
    }
}
