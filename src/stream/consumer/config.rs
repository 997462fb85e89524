//! The configuration of a consumer: reading, defaults, checks, what an update may change, and how it is written.
//!
//! Texts, codes and the order of the checks are those of nats-server 2.15.1: a configuration with two mistakes is told
//! the same one. What is checked against other consumers of the stream (names, overlaps in work queues, how many there
//! may be) is in [`super::set`]. Rule: `jetstream-consumers.md` 1 of the reference, `answers.txt` beside this file.

use std::collections::BTreeMap;

pub use super::super::config::Retention;
use super::super::config::{METADATA_LEVEL, METADATA_REQUIRED_LEVEL, METADATA_VERSION, StreamConfig};
use super::super::error::{ApiError, ErrorId};
use super::super::json::{
    DurationNs, FromJson, Int, JsonError, Node, Object, Path, Value, from_json, go_quoted, write_array,
};
use super::super::limits::AccountLimits;
use super::super::{API_LEVEL, time};
use crate::subject::name;

/// Longest name of a consumer.
pub const NAME_LEN_MAX: usize = 255;
/// Longest description.
pub const DESCRIPTION_LEN_MAX: usize = 4 * 1024;
/// Most bytes of keys and values in the metadata.
pub const METADATA_LEN_MAX: usize = 128 * 1024;
/// How many pull requests wait, if nothing is configured.
pub const WAITING_DEFAULT: i64 = 512;
/// How many messages may be unacknowledged, if nothing is configured.
pub const ACK_PENDING_DEFAULT: i64 = 1000;
/// How long a message waits for its acknowledgement, if nothing is configured.
pub const ACK_WAIT_DEFAULT_NS: i64 = 30 * SECOND;
/// How long an ephemeral consumer stays without interest, if nothing is configured.
pub const INACTIVE_THRESHOLD_DEFAULT_NS: i64 = 5 * SECOND;
/// How long a pinned client may be silent, if nothing is configured.
pub const PRIORITY_TIMEOUT_DEFAULT_NS: i64 = 120 * SECOND;
/// The heartbeat of consumers that are acknowledged by flow control.
pub const FLOW_CONTROL_HEARTBEAT_NS: i64 = SECOND;

const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $go:literal, $bad:expr, { $($(#[$attribute:meta])? $variant:ident = $word:literal, $what:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub enum $name {
            $(#[doc = $what] $(#[$attribute])? $variant,)*
        }

        impl $name {
            /// The word on the wire.
            pub fn word(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                }
            }
        }

        impl FromJson for $name {
            fn type_name() -> String {
                $go.to_owned()
            }

            fn read_from(&mut self, node: &Node<'_>, _: &mut Path) -> Result<(), JsonError> {
                let bad: fn(&str) -> String = $bad;
                *self = match &node.value {
                    $(Value::String(word) if word == $word => $name::$variant,)*
                    _ => return Err(JsonError(bad(&String::from_utf8_lossy(node.raw)))),
                };
                Ok(())
            }
        }
    };
}

fn cannot_unmarshal(raw: &str) -> String {
    format!("can not unmarshal {}", go_quoted(raw))
}

words! {
    /// Where a consumer begins.
    DeliverPolicy, "server.DeliverPolicy", cannot_unmarshal, {
        #[default] All = "all", "With the first message there is.";
        Last = "last", "With the last message that matches.";
        New = "new", "With what is stored from now on.";
        ByStartSequence = "by_start_sequence", "With a sequence.";
        ByStartTime = "by_start_time", "With the first message stored at or after a time.";
        LastPerSubject = "last_per_subject", "With the last message of each subject that matches.";
    }
}

words! {
    /// What counts as handled.
    AckPolicy, "server.AckPolicy", cannot_unmarshal, {
        #[default] None = "none", "What is delivered.";
        All = "all", "What is acknowledged, and everything before it.";
        Explicit = "explicit", "What is acknowledged.";
        FlowControl = "flow_control", "What a flow control response names, and everything before it.";
    }
}

words! {
    /// How fast stored messages are delivered.
    ReplayPolicy, "server.ReplayPolicy", cannot_unmarshal, {
        #[default] Instant = "instant", "At once.";
        Original = "original", "With the pauses in which they were stored.";
    }
}

words! {
    /// Which pull request is served first.
    PriorityPolicy, "server.PriorityPolicy", |raw| format!("unknown priority policy: {raw}"), {
        #[default] None = "none", "The one that waited longest.";
        Overflow = "overflow", "Only those whose thresholds are exceeded.";
        PinnedClient = "pinned_client", "Those of one client.";
        Prioritized = "prioritized", "Those with the lowest number.";
    }
}

words! {
    /// What a create request wants.
    Action, "server.ConsumerAction", |raw| format!("unknown consumer action: {raw}"), {
        #[default] CreateOrUpdate = "", "A consumer with this configuration, new or not.";
        Update = "update", "To change one that is there.";
        Create = "create", "A new one.";
    }
}

/// A time as a client wrote it: which moment, and the offset of the zone, which is written back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZonedTime {
    /// Nanoseconds since 1970, or [`time::ZERO`].
    pub ns: i64,
    /// Seconds east of UTC.
    pub offset_s: i32,
}

impl Default for ZonedTime {
    fn default() -> ZonedTime {
        ZonedTime::utc(time::ZERO)
    }
}

impl ZonedTime {
    /// A time in UTC.
    pub fn utc(ns: i64) -> ZonedTime {
        ZonedTime { ns, offset_s: 0 }
    }

    /// Whether it is the reference's zero time.
    pub fn is_zero(self) -> bool {
        self.ns == time::ZERO
    }

    /// Writes it in quotes.
    pub fn write(self, out: &mut Vec<u8>) {
        out.push(b'"');
        if self.offset_s == 0 || self.is_zero() {
            time::write(out, self.ns);
        } else {
            time::write(out, self.ns.saturating_add(i64::from(self.offset_s) * SECOND));
            out.pop();
            let minutes = self.offset_s.unsigned_abs() / 60;
            let sign = if self.offset_s < 0 { '-' } else { '+' };
            out.extend_from_slice(format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60).as_bytes());
        }
        out.push(b'"');
    }
}

impl FromJson for ZonedTime {
    fn type_name() -> String {
        "time.Time".to_owned()
    }

    fn read_from(&mut self, node: &Node<'_>, _: &mut Path) -> Result<(), JsonError> {
        let text = match &node.value {
            Value::Null => return Ok(()),
            Value::String(text) => text,
            _ => return Err(JsonError("Time.UnmarshalJSON: input is not a JSON string".to_owned())),
        };
        let ns = time::parse(text).map_err(JsonError)?;
        let offset_s = match text.as_bytes() {
            [.., sign @ (b'+' | b'-'), a, b, b':', c, d] => {
                let two = |tens: &u8, ones: &u8| i32::from(tens - b'0') * 10 + i32::from(ones - b'0');
                let seconds = two(a, b) * 3600 + two(c, d) * 60;
                if *sign == b'-' { -seconds } else { seconds }
            }
            _ => 0,
        };
        *self = ZonedTime { ns, offset_s };
        Ok(())
    }
}

/// What a consumer is asked to be. The fields are those of the API, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsumerConfig {
    /// The name of a consumer that stays without interest.
    pub durable_name: String,
    /// The name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Where it begins.
    pub deliver_policy: DeliverPolicy,
    /// The sequence of [`DeliverPolicy::ByStartSequence`].
    pub opt_start_seq: u64,
    /// The time of [`DeliverPolicy::ByStartTime`].
    pub opt_start_time: Option<ZonedTime>,
    /// What counts as handled.
    pub ack_policy: AckPolicy,
    /// How long a delivered message waits for its acknowledgement.
    pub ack_wait: DurationNs,
    /// How often a message is delivered at most; -1 without limit.
    pub max_deliver: Int,
    /// How long the n-th delivery waits, instead of `ack_wait`.
    pub backoff: Vec<DurationNs>,
    /// Which subjects.
    pub filter_subject: String,
    /// Which subjects, if more than one.
    pub filter_subjects: Vec<String>,
    /// How fast.
    pub replay_policy: ReplayPolicy,
    /// Bits a second; 0 without limit.
    pub rate_limit_bps: u64,
    /// Of how many acknowledgements in a hundred a metric is published.
    pub sample_freq: String,
    /// How many pull requests may wait.
    pub max_waiting: Int,
    /// How many messages may be unacknowledged; 0 or less without limit.
    pub max_ack_pending: Int,
    /// Whether the client of a push consumer is asked whether it keeps up.
    pub flow_control: bool,
    /// Whether payloads are left out.
    pub headers_only: bool,
    /// How many messages a pull request may ask for.
    pub max_batch: Int,
    /// How long a pull request may wait.
    pub max_expires: DurationNs,
    /// How many bytes a pull request may ask for.
    pub max_bytes: Int,
    /// Where a push consumer delivers to. Empty: a pull consumer.
    pub deliver_subject: String,
    /// The queue group that a push consumer delivers to.
    pub deliver_group: String,
    /// How often a push consumer that has nothing to deliver says so.
    pub idle_heartbeat: DurationNs,
    /// How long it stays without interest.
    pub inactive_threshold: DurationNs,
    /// How many replicas; 0: as the stream.
    pub num_replicas: Int,
    /// Whether its state is kept in memory only.
    pub mem_storage: bool,
    /// A consumer of a mirror or source: not listed, without state.
    pub direct: bool,
    /// A consumer of a mirror or source.
    pub sourcing: bool,
    /// For people and tools.
    pub metadata: BTreeMap<String, String>,
    /// Until when nothing is delivered.
    pub pause_until: Option<ZonedTime>,
    /// The groups of pull requests.
    pub priority_groups: Vec<String>,
    /// Which pull request is served first.
    pub priority_policy: PriorityPolicy,
    /// How long a pinned client may be silent.
    pub priority_timeout: DurationNs,
}

from_json!(ConsumerConfig, "server.ConsumerConfig", {
    "durable_name" => durable_name,
    "name" => name,
    "description" => description,
    "deliver_policy" => deliver_policy,
    "opt_start_seq" => opt_start_seq,
    "opt_start_time" => opt_start_time,
    "ack_policy" => ack_policy,
    "ack_wait" => ack_wait,
    "max_deliver" => max_deliver,
    "backoff" => backoff,
    "filter_subject" => filter_subject,
    "filter_subjects" => filter_subjects,
    "replay_policy" => replay_policy,
    "rate_limit_bps" => rate_limit_bps,
    "sample_freq" => sample_freq,
    "max_waiting" => max_waiting,
    "max_ack_pending" => max_ack_pending,
    "flow_control" => flow_control,
    "headers_only" => headers_only,
    "max_batch" => max_batch,
    "max_expires" => max_expires,
    "max_bytes" => max_bytes,
    "deliver_subject" => deliver_subject,
    "deliver_group" => deliver_group,
    "idle_heartbeat" => idle_heartbeat,
    "inactive_threshold" => inactive_threshold,
    "num_replicas" => num_replicas,
    "mem_storage" => mem_storage,
    "direct" => direct,
    "sourcing" => sourcing,
    "metadata" => metadata,
    "pause_until" => pause_until,
    "priority_groups" => priority_groups,
    "priority_policy" => priority_policy,
    "priority_timeout" => priority_timeout,
});

/// What the configuration of the stream says to its consumers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamFacts {
    /// The stream's name.
    pub name: String,
    /// Its subjects.
    pub subjects: Vec<String>,
    /// How it keeps messages.
    pub retention: Retention,
    /// How many replicas it has.
    pub replicas: i64,
    /// How many consumers it may have; 0 or less: no limit.
    pub max_consumers: i64,
    /// The largest message it takes; 0 or less: no limit.
    pub max_msg_size: i64,
    /// How many messages of a subject it keeps; 0 or less: all.
    pub max_msgs_per_subject: i64,
    /// `consumer_limits.inactive_threshold`.
    pub inactive_threshold_max_ns: i64,
    /// `consumer_limits.max_ack_pending`.
    pub max_ack_pending: i64,
    /// Whether its placement names a preferred server.
    pub has_preferred_server: bool,
}

impl StreamFacts {
    /// Those of a stream with this configuration.
    pub fn of(stream: &StreamConfig) -> StreamFacts {
        StreamFacts {
            name: stream.name.clone(),
            subjects: stream.subjects.clone(),
            retention: stream.retention,
            replicas: stream.num_replicas.0,
            max_consumers: stream.max_consumers.0,
            max_msg_size: stream.max_msg_size.into(),
            max_msgs_per_subject: stream.max_msgs_per_subject,
            inactive_threshold_max_ns: stream.consumer_limits.inactive_threshold.0,
            max_ack_pending: stream.consumer_limits.max_ack_pending.0,
            has_preferred_server: stream.placement.as_ref().is_some_and(|place| !place.preferred.is_empty()),
        }
    }
}

/// What the server and the account allow. 0 or less stands for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// `jetstream.limits.max_ack_pending`.
    pub server_max_ack_pending: i64,
    /// `jetstream.limits.max_request_batch`.
    pub server_max_request_batch: i64,
    /// The account's `max_ack_pending`.
    pub account_max_ack_pending: i64,
    /// The account's `max_consumers`.
    pub account_max_consumers: i64,
    /// `jetstream.limits.default_max_consumers`: of a stream, where neither it nor its account has a limit.
    pub server_default_max_consumers: i64,
}

impl Limits {
    /// These of the server, with those of an account.
    pub fn in_account(&self, account: &AccountLimits) -> Limits {
        Limits {
            account_max_ack_pending: account.max_ack_pending,
            account_max_consumers: account.max_consumers,
            ..*self
        }
    }
}

impl ConsumerConfig {
    /// Whether it stays without interest.
    pub fn is_durable(&self) -> bool {
        !self.durable_name.is_empty()
    }

    /// Whether it delivers by itself.
    pub fn is_push(&self) -> bool {
        !self.deliver_subject.is_empty()
    }

    /// Whether clients acknowledge by publishing to the subject that a delivery names.
    pub fn takes_acks(&self) -> bool {
        matches!(self.ack_policy, AckPolicy::All | AckPolicy::Explicit)
    }

    /// Whether `now_ns` is within a pause.
    pub fn is_paused(&self, now_ns: i64) -> bool {
        self.pause_until.is_some_and(|until| !until.is_zero() && now_ns < until.ns)
    }

    /// The subjects that it filters by. None: all.
    pub fn filters(&self) -> impl Iterator<Item = &str> {
        let single = (!self.filter_subject.is_empty()).then_some(self.filter_subject.as_str());
        let several = if single.is_some() { &[][..] } else { &self.filter_subjects[..] };
        single.into_iter().chain(several.iter().map(String::as_str))
    }

    /// `sample_freq` as a number.
    pub fn sample_percent(&self) -> i64 {
        self.sample_freq.strip_suffix('%').unwrap_or(&self.sample_freq).parse().unwrap_or(0)
    }

    /// Fills in what is not said.
    ///
    /// # Errors
    ///
    /// In pedantic mode: what would have been corrected.
    pub fn set_defaults(
        &mut self,
        stream: &StreamFacts,
        limits: &Limits,
        pedantic: bool,
    ) -> Result<(), ApiError> {
        let corrected = |wrong: bool, text: &str| {
            if pedantic && wrong { Err(ApiError::with(ErrorId::Pedantic, text)) } else { Ok(wrong) }
        };
        if self.max_deliver.0 == 0 || corrected(self.max_deliver.0 < -1, "max_deliver must be set to -1")? {
            self.max_deliver.0 = -1;
        }
        if corrected(self.max_waiting.0 < 0, "max_waiting must not be negative")? {
            self.max_waiting.0 = 0;
        }
        if corrected(self.max_ack_pending.0 < -1, "max_ack_pending must be set to -1")? {
            self.max_ack_pending.0 = -1;
        }
        if corrected(self.max_batch.0 < 0, "max_batch must not be negative")? {
            self.max_batch.0 = 0;
        }
        if corrected(self.max_expires.0 < 0, "max_expires must not be negative")? {
            self.max_expires.0 = 0;
        }
        if corrected(self.max_bytes.0 < 0, "max_bytes must not be negative")? {
            self.max_bytes.0 = 0;
        }
        if corrected(self.idle_heartbeat.0 < 0, "idle_heartbeat must not be negative")? {
            self.idle_heartbeat.0 = 0;
        }
        if corrected(self.inactive_threshold.0 < 0, "inactive_threshold must not be negative")? {
            self.inactive_threshold.0 = 0;
        }
        if corrected(self.priority_timeout.0 < 0, "priority_timeout must not be negative")? {
            self.priority_timeout.0 = 0;
        }
        if !self.is_push() && self.max_waiting.0 == 0 {
            self.max_waiting.0 = WAITING_DEFAULT;
        }
        if self.ack_wait.0 == 0 && self.takes_acks() {
            self.ack_wait.0 = ACK_WAIT_DEFAULT_NS;
        }
        if let Some(first) = self.backoff.first().copied() {
            corrected(self.ack_wait != first, "first backoff value has to equal batch AckWait")?;
            self.ack_wait = first;
        }
        if self.max_ack_pending.0 == 0 {
            let text = "max_ack_pending must be set if it's configured in stream limits";
            corrected(stream.max_ack_pending > 0, text)?;
            self.max_ack_pending.0 = stream.max_ack_pending;
        }
        if self.inactive_threshold.0 == 0 {
            let text = "inactive_threshold must be set if it's configured in stream limits";
            corrected(stream.inactive_threshold_max_ns > 0, text)?;
            self.inactive_threshold.0 = stream.inactive_threshold_max_ns;
        }
        if self.max_ack_pending.0 == 0 && self.ack_policy != AckPolicy::None {
            let limits = [limits.server_max_ack_pending, limits.account_max_ack_pending];
            let lowest = limits.into_iter().filter(|limit| *limit > 0).min().unwrap_or(ACK_PENDING_DEFAULT);
            self.max_ack_pending.0 = lowest.min(ACK_PENDING_DEFAULT);
        }
        if !self.is_push() && self.max_batch.0 == 0 && limits.server_max_request_batch > 0 {
            corrected(true, "max_request_batch must be set if it's JetStream limits are set")?;
            self.max_batch.0 = limits.server_max_request_batch;
        }
        if self.priority_policy == PriorityPolicy::PinnedClient && self.priority_timeout.0 == 0 {
            self.priority_timeout.0 = PRIORITY_TIMEOUT_DEFAULT_NS;
        }
        if self.ack_policy == AckPolicy::FlowControl && !pedantic {
            self.flow_control = true;
            self.idle_heartbeat.0 = FLOW_CONTROL_HEARTBEAT_NS;
        }
        Ok(())
    }

    /// Whether it can be, on this stream.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, in the reference's order.
    pub fn check(&self, stream: &StreamFacts, limits: &Limits) -> Result<(), ApiError> {
        if !self.name.is_empty() && !is_valid_name(&self.name) {
            return Err(ApiError::invalid_config("consumer name can not contain '.', '*', '>', '\\', '/'"));
        }
        if !self.durable_name.is_empty() && !is_valid_name(&self.durable_name) {
            return Err(ApiError::invalid_config(
                "consumer durable name can not contain '.', '*', '>', '\\', '/'",
            ));
        }
        let replicas = self.num_replicas.0;
        refuse(replicas > 0 && replicas > stream.replicas, ErrorId::ConsumerReplicasExceedsStream)?;
        refuse(replicas < 0, ErrorId::ReplicasCountCannotBeNegative)?;
        if stream.retention != Retention::Limits {
            let differs = replicas != 0 && replicas != stream.replicas;
            refuse(differs, ErrorId::ConsumerReplicasShouldMatchStream)?;
        }
        refuse(self.backoff.iter().any(|wait| wait.0 < 0), ErrorId::ConsumerBackOffNegative)?;
        refuse(self.ack_wait.0 < 0, ErrorId::ConsumerAckWaitNegative)?;
        if self.ack_policy == AckPolicy::FlowControl {
            refuse(!self.is_push(), ErrorId::ConsumerAckFlowControlRequiresPush)?;
            refuse(!self.flow_control, ErrorId::ConsumerAckFlowControlRequiresFlowControl)?;
            if self.idle_heartbeat.0 != FLOW_CONTROL_HEARTBEAT_NS {
                return Err(ApiError::invalid_config("flow control ack policy heartbeat needs to be 1s"));
            }
            refuse(self.max_ack_pending.0 <= 0, ErrorId::ConsumerAckFlowControlRequiresMaxAckPending)?;
            let waits = self.ack_wait.0 != 0 || !self.backoff.is_empty();
            refuse(waits, ErrorId::ConsumerAckFlowControlRequiresNoAckWait)?;
            refuse(self.max_deliver.0 > 0, ErrorId::ConsumerAckFlowControlRequiresNoMaxDeliver)?;
        }
        self.check_backoff()?;
        if self.description.len() > DESCRIPTION_LEN_MAX {
            return Err(ApiError::with(ErrorId::ConsumerDescriptionTooLong, DESCRIPTION_LEN_MAX));
        }
        self.check_mode(stream, limits)?;
        for limit in [limits.server_max_ack_pending, limits.account_max_ack_pending, stream.max_ack_pending] {
            if limit > 0 && self.max_ack_pending.0 > limit {
                return Err(ApiError::with(ErrorId::ConsumerMaxPendingAckExcess, limit));
            }
        }
        let threshold_max = stream.inactive_threshold_max_ns;
        if threshold_max > 0 && self.inactive_threshold.0 > threshold_max {
            let shown = time::duration_text(threshold_max);
            return Err(ApiError::with(ErrorId::ConsumerInactiveThresholdExcess, shown));
        }
        if self.direct {
            refuse(!self.is_push(), ErrorId::ConsumerDirectRequiresPush)?;
            refuse(self.is_durable(), ErrorId::ConsumerDirectRequiresEphemeral)?;
        }
        self.check_filters()?;
        self.check_start()?;
        self.check_sampling()?;
        let silent = self.flow_control && self.idle_heartbeat.0 == 0;
        refuse(silent, ErrorId::ConsumerWithFlowControlNeedsHeartbeats)?;
        let two_names = self.is_durable() && !self.name.is_empty() && self.name != self.durable_name;
        refuse(two_names, ErrorId::ConsumerCreateDurableAndNameMismatch)?;
        let metadata_len: usize = self.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        if metadata_len > METADATA_LEN_MAX {
            let shown = format!("{}KB", METADATA_LEN_MAX / 1024);
            return Err(ApiError::with(ErrorId::ConsumerMetadataLength, shown));
        }
        self.check_priority()?;
        if stream.has_preferred_server {
            return Err(ApiError::invalid_config("preferred server not permitted in placement"));
        }
        Ok(())
    }

    fn check_backoff(&self) -> Result<(), ApiError> {
        let len = self.backoff.len() as i64;
        let short = len > 0 && self.max_deliver.0 != -1 && len > self.max_deliver.0;
        refuse(short, ErrorId::ConsumerMaxDeliverBackoff)
    }

    /// What only push consumers and only pull consumers may have.
    fn check_mode(&self, stream: &StreamFacts, limits: &Limits) -> Result<(), ApiError> {
        if self.is_push() {
            let deliver = self.deliver_subject.as_bytes();
            refuse(name::has_wildcard(deliver), ErrorId::ConsumerDeliverToWildcards)?;
            refuse(!name::is_valid_subject(deliver), ErrorId::ConsumerInvalidDeliverSubject)?;
            let cycle = stream.subjects.iter().any(|subject| name::is_within(deliver, subject.as_bytes()));
            refuse(cycle, ErrorId::ConsumerDeliverCycle)?;
            refuse(self.max_waiting.0 != 0, ErrorId::ConsumerPushMaxWaiting)?;
            let limited = self.max_ack_pending.0 > 0 && self.ack_policy == AckPolicy::None;
            refuse(limited, ErrorId::ConsumerMaxPendingAckPolicyRequired)?;
            let heartbeat = self.idle_heartbeat.0;
            return refuse(heartbeat > 0 && heartbeat < 100 * MILLISECOND, ErrorId::ConsumerSmallHeartbeat);
        }
        let unacknowledged = self.ack_policy == AckPolicy::None && stream.retention == Retention::WorkQueue;
        refuse(unacknowledged, ErrorId::ConsumerPullRequiresAck)?;
        refuse(self.rate_limit_bps > 0, ErrorId::ConsumerPullWithRateLimit)?;
        refuse(self.max_waiting.0 < 0, ErrorId::ConsumerMaxWaitingNegative)?;
        refuse(self.idle_heartbeat.0 > 0, ErrorId::ConsumerHeartbeatRequiresPush)?;
        refuse(self.flow_control, ErrorId::ConsumerFlowControlRequiresPush)?;
        refuse(self.max_batch.0 < 0, ErrorId::ConsumerMaxRequestBatchNegative)?;
        let expires = self.max_expires.0;
        refuse(expires != 0 && expires < MILLISECOND, ErrorId::ConsumerMaxRequestExpiresTooSmall)?;
        let batch_max = limits.server_max_request_batch;
        if batch_max > 0 && self.max_batch.0 > batch_max {
            return Err(ApiError::with(ErrorId::ConsumerMaxRequestBatchExceeded, batch_max));
        }
        Ok(())
    }

    fn check_filters(&self) -> Result<(), ApiError> {
        let both = !self.filter_subject.is_empty() && !self.filter_subjects.is_empty();
        refuse(both, ErrorId::ConsumerDuplicateFilterSubjects)?;
        refuse(self.filter_subjects.iter().any(String::is_empty), ErrorId::ConsumerEmptyFilter)?;
        for (at, filter) in self.filters().enumerate() {
            if !name::is_valid_subject(filter.as_bytes()) {
                return Err(ApiError::invalid_config("invalid subject"));
            }
            for (other_at, other) in self.filters().enumerate() {
                let overlap = at != other_at && name::is_within(filter.as_bytes(), other.as_bytes());
                refuse(overlap, ErrorId::ConsumerOverlappingSubjectFilters)?;
            }
        }
        Ok(())
    }

    /// A start position only with its policy.
    fn check_start(&self) -> Result<(), ApiError> {
        let policy = match self.deliver_policy {
            DeliverPolicy::All => "all",
            DeliverPolicy::Last => "last",
            DeliverPolicy::LastPerSubject => "last per subject",
            DeliverPolicy::New => "new",
            DeliverPolicy::ByStartSequence => "by start sequence",
            DeliverPolicy::ByStartTime => "by start time",
        };
        let bad_start = |start: &str| {
            let text = format!(
                "consumer delivery policy is deliver {policy}, but optional start {start} is also set"
            );
            Err(ApiError::with(ErrorId::ConsumerInvalidPolicy, text))
        };
        let not_set = |missing: &str| {
            let text =
                format!("consumer delivery policy is deliver {policy}, but optional {missing} is not set");
            Err(ApiError::with(ErrorId::ConsumerInvalidPolicy, text))
        };
        let (has_seq, has_time) = (self.opt_start_seq > 0, self.opt_start_time.is_some());
        match self.deliver_policy {
            DeliverPolicy::ByStartSequence if !has_seq => not_set("start sequence"),
            DeliverPolicy::ByStartSequence if has_time => bad_start("time"),
            DeliverPolicy::ByStartSequence => Ok(()),
            DeliverPolicy::ByStartTime if !has_time => not_set("start time"),
            // The reference's words: "start start sequence".
            DeliverPolicy::ByStartTime if has_seq => bad_start("start sequence"),
            DeliverPolicy::ByStartTime => Ok(()),
            _ if has_seq => bad_start("sequence"),
            _ if has_time => bad_start("time"),
            DeliverPolicy::LastPerSubject if self.filters().next().is_none() => not_set("filter subject"),
            _ => Ok(()),
        }
    }

    fn check_sampling(&self) -> Result<(), ApiError> {
        if self.sample_freq.is_empty() {
            return Ok(());
        }
        let number = self.sample_freq.strip_suffix('%').unwrap_or(&self.sample_freq);
        let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
        let why = if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            format!("strconv.Atoi: parsing {}: invalid syntax", go_quoted(number))
        } else {
            match number.parse::<i64>() {
                Ok(percent) if percent >= 0 => return Ok(()),
                // The reference prints the error that is not there.
                Ok(_) => "<nil>".to_owned(),
                Err(_) => format!("strconv.Atoi: parsing {}: value out of range", go_quoted(number)),
            }
        };
        Err(ApiError::with(ErrorId::ConsumerInvalidSampling, why))
    }

    fn check_priority(&self) -> Result<(), ApiError> {
        if self.priority_policy == PriorityPolicy::None {
            refuse(!self.priority_groups.is_empty(), ErrorId::ConsumerPriorityGroupWithPolicyNone)?;
            return refuse(self.priority_timeout.0 > 0, ErrorId::ConsumerPinnedTtlWithoutPriorityPolicyNone);
        }
        refuse(self.is_push(), ErrorId::ConsumerPushWithPriorityGroup)?;
        refuse(self.priority_groups.is_empty(), ErrorId::ConsumerPriorityPolicyWithoutGroup)?;
        for group in &self.priority_groups {
            refuse(group.is_empty(), ErrorId::ConsumerEmptyGroupName)?;
            refuse(!is_valid_group_name(group), ErrorId::ConsumerInvalidGroupName)?;
        }
        Ok(())
    }

    /// Whether `new` may take this one's place. `bound` says whether somebody listens on this one's deliver subject.
    ///
    /// # Errors
    ///
    /// What may not change.
    pub fn check_update(&self, new: &ConsumerConfig, bound: bool) -> Result<(), ApiError> {
        if self == new {
            return Ok(());
        }
        let fixed = [
            (self.deliver_policy != new.deliver_policy, "deliver policy can not be updated"),
            (self.mem_storage != new.mem_storage, "storage type can not be updated"),
            (self.direct != new.direct, "direct can not be updated"),
            (self.sourcing != new.sourcing, "sourcing can not be updated"),
            (self.opt_start_seq != new.opt_start_seq, "start sequence can not be updated"),
            (
                self.opt_start_time.map(|at| at.ns) != new.opt_start_time.map(|at| at.ns),
                "start time can not be updated",
            ),
            (self.ack_policy != new.ack_policy, "ack policy can not be updated"),
            (self.replay_policy != new.replay_policy, "replay policy can not be updated"),
            (self.idle_heartbeat != new.idle_heartbeat, "heart beats can not be updated"),
            (self.flow_control != new.flow_control, "flow control can not be updated"),
            (!self.is_push() && new.is_push(), "can not update pull consumer to push based"),
            (self.is_push() && !new.is_push(), "can not update push consumer to pull based"),
        ];
        if let Some((_, text)) = fixed.into_iter().find(|(changed, _)| *changed) {
            return Err(ApiError::with(ErrorId::ConsumerCreate, text));
        }
        refuse(self.deliver_subject != new.deliver_subject && bound, ErrorId::ConsumerNameExist)?;
        if self.max_waiting != new.max_waiting {
            return Err(ApiError::with(ErrorId::ConsumerCreate, "max waiting can not be updated"));
        }
        new.check_backoff()
    }

    /// Notes in the metadata what a server has to know to run it, and drops what only answers carry.
    pub fn set_static_metadata(&mut self) {
        self.remove_dynamic_metadata();
        let paused = self.pause_until.is_some_and(|until| !until.is_zero());
        let grouped = self.priority_policy != PriorityPolicy::None
            || self.priority_timeout.0 != 0
            || !self.priority_groups.is_empty();
        let level = match self.ack_policy {
            AckPolicy::FlowControl => "4",
            _ if paused || grouped => "1",
            _ => "0",
        };
        self.metadata.insert(METADATA_REQUIRED_LEVEL.to_owned(), level.to_owned());
    }

    /// Takes over what the server notes in the metadata, for a comparison without it.
    pub fn copy_static_metadata(&mut self, from: &ConsumerConfig) {
        self.remove_dynamic_metadata();
        match from.metadata.get(METADATA_REQUIRED_LEVEL) {
            Some(level) => self.metadata.insert(METADATA_REQUIRED_LEVEL.to_owned(), level.clone()),
            None => self.metadata.remove(METADATA_REQUIRED_LEVEL),
        };
    }

    fn remove_dynamic_metadata(&mut self) {
        self.metadata.remove(METADATA_VERSION);
        self.metadata.remove(METADATA_LEVEL);
    }

    /// Writes it as the API does. `version`: with the server's version and level in the metadata, as in answers to
    /// whoever asks for one consumer.
    pub fn write(&self, out: &mut Vec<u8>, version: Option<&str>) {
        let mut object = Object::begin(out);
        object.string_unless_empty("durable_name", &self.durable_name);
        object.string_unless_empty("name", &self.name);
        object.string_unless_empty("description", &self.description);
        object.string("deliver_policy", self.deliver_policy.word());
        object.uint_unless_zero("opt_start_seq", self.opt_start_seq);
        if let Some(at) = self.opt_start_time {
            at.write(object.member("opt_start_time"));
        }
        object.string("ack_policy", self.ack_policy.word());
        object.int_unless_zero("ack_wait", self.ack_wait.0);
        object.int_unless_zero("max_deliver", self.max_deliver.0);
        if !self.backoff.is_empty() {
            write_array(object.member("backoff"), &self.backoff, |out, wait| {
                out.extend_from_slice(wait.0.to_string().as_bytes());
            });
        }
        object.string_unless_empty("filter_subject", &self.filter_subject);
        object.strings_unless_empty("filter_subjects", &self.filter_subjects);
        object.string("replay_policy", self.replay_policy.word());
        object.uint_unless_zero("rate_limit_bps", self.rate_limit_bps);
        object.string_unless_empty("sample_freq", &self.sample_freq);
        object.int_unless_zero("max_waiting", self.max_waiting.0);
        object.int_unless_zero("max_ack_pending", self.max_ack_pending.0);
        object.bool_if_set("flow_control", self.flow_control);
        object.bool_if_set("headers_only", self.headers_only);
        object.int_unless_zero("max_batch", self.max_batch.0);
        object.int_unless_zero("max_expires", self.max_expires.0);
        object.int_unless_zero("max_bytes", self.max_bytes.0);
        object.string_unless_empty("deliver_subject", &self.deliver_subject);
        object.string_unless_empty("deliver_group", &self.deliver_group);
        object.int_unless_zero("idle_heartbeat", self.idle_heartbeat.0);
        object.int_unless_zero("inactive_threshold", self.inactive_threshold.0);
        object.int("num_replicas", self.num_replicas.0);
        object.bool_if_set("mem_storage", self.mem_storage);
        object.bool_if_set("direct", self.direct);
        object.bool_if_set("sourcing", self.sourcing);
        match version {
            None => object.map_unless_empty("metadata", &self.metadata),
            Some(version) => {
                let mut metadata = self.metadata.clone();
                metadata.insert(METADATA_VERSION.to_owned(), version.to_owned());
                metadata.insert(METADATA_LEVEL.to_owned(), API_LEVEL.to_string());
                object.map_unless_empty("metadata", &metadata);
            }
        }
        if let Some(until) = self.pause_until {
            until.write(object.member("pause_until"));
        }
        object.strings_unless_empty("priority_groups", &self.priority_groups);
        if self.priority_policy != PriorityPolicy::None {
            object.string("priority_policy", self.priority_policy.word());
        }
        object.int_unless_zero("priority_timeout", self.priority_timeout.0);
        object.end();
    }
}

/// Whether a name can be a token of subjects and a name of a directory.
pub fn is_valid_name(name: &str) -> bool {
    !name.is_empty() && !name.contains([' ', '\t', '\r', '\n', '\x0c', '.', '*', '>', '\\', '/'])
}

/// Whether a name can be that of a priority group.
pub fn is_valid_group_name(name: &str) -> bool {
    (1..=16).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'=' | b'-'))
}

fn refuse(wrong: bool, id: ErrorId) -> Result<(), ApiError> {
    if wrong { Err(ApiError::new(id)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::super::json::{Strictness, read};
    use super::*;

    fn parse(text: &str) -> ConsumerConfig {
        read(text.as_bytes(), Strictness::Strict).unwrap()
    }

    #[test]
    fn a_configuration_survives_being_written_and_read() {
        let text = concat!(
            r#"{"durable_name":"d","name":"d","description":"a\u0026b","deliver_policy":"by_start_time","#,
            r#""opt_start_time":"2026-01-01T00:00:00.5+02:00","ack_policy":"explicit","ack_wait":1,"max_deliver":5,"#,
            r#""backoff":[1,2],"filter_subjects":["a","b.*"],"replay_policy":"original","rate_limit_bps":8,"#,
            r#""sample_freq":"50%","max_waiting":1,"max_ack_pending":2,"flow_control":true,"headers_only":true,"#,
            r#""max_batch":1,"max_expires":2,"max_bytes":3,"deliver_subject":"x","deliver_group":"g","#,
            r#""idle_heartbeat":1,"inactive_threshold":2,"num_replicas":0,"mem_storage":true,"direct":true,"#,
            r#""sourcing":true,"metadata":{"a":"b"},"pause_until":"2026-01-01T00:00:00Z","priority_groups":["A"],"#,
            r#""priority_policy":"pinned_client","priority_timeout":3}"#,
        );
        let config = parse(text);
        let mut written = Vec::new();
        config.write(&mut written, None);
        assert_eq!(String::from_utf8(written).unwrap(), text);
    }

    #[test]
    fn what_the_server_or_account_allows_bounds_the_default_of_unacknowledged_messages() {
        let stream = StreamFacts { replicas: 1, ..StreamFacts::default() };
        let default_with = |server, account| {
            let limits = Limits {
                server_max_ack_pending: server,
                account_max_ack_pending: account,
                ..Limits::default()
            };
            let mut config = parse(r#"{"ack_policy":"explicit"}"#);
            config.set_defaults(&stream, &limits, false).unwrap();
            config.max_ack_pending.0
        };
        assert_eq!([default_with(0, 0), default_with(50, 0), default_with(50, 20)], [1000, 50, 20]);
        assert_eq!(default_with(5000, 0), 1000);
    }

    #[test]
    fn an_update_may_change_only_what_is_allowed() {
        let old = parse(r#"{"ack_policy":"explicit","max_waiting":512}"#);
        for (change, allowed) in [
            (r#"{"ack_policy":"explicit","max_waiting":512,"description":"x","max_deliver":4}"#, true),
            (r#"{"ack_policy":"explicit","max_waiting":512,"filter_subject":"a","headers_only":true}"#, true),
            (r#"{"ack_policy":"all","max_waiting":512}"#, false),
            (r#"{"ack_policy":"explicit","max_waiting":512,"replay_policy":"original"}"#, false),
            (r#"{"ack_policy":"explicit","max_waiting":5}"#, false),
            (r#"{"ack_policy":"explicit","max_waiting":512,"opt_start_seq":5}"#, false),
            (r#"{"ack_policy":"explicit","max_waiting":512,"idle_heartbeat":5}"#, false),
        ] {
            assert_eq!(old.check_update(&parse(change), false).is_ok(), allowed, "{change}");
        }
    }
}
