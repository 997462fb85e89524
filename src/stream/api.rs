//! The JetStream API: its subjects, what is asked in requests, and the answers byte for byte.
//!
//! An answer is an object with a `type`, perhaps an `error`, and the fields of its kind in the reference's order; some of those stand
//! there even beside an error. What is done about a request is [`super::control`]'s.

use std::time::Duration;

use super::config::{StreamConfig, StreamConfigRequest, Time};
use super::error::ApiError;
use super::json::{FromJson, Int, JsonError, Node, Object, Path, from_json, write_array};
use super::limits::AccountLimits;
use super::source::OriginReport;
use super::time;
use crate::base::nuid::nuid;

/// The prefix of all subjects of the API.
pub const PREFIX: &str = "$JS.API.";
/// Names in one answer to STREAM.NAMES.
pub const NAMES_LIMIT: usize = 1024;
/// Streams in one answer to STREAM.LIST.
pub const LIST_LIMIT: usize = 256;
/// Subjects in one answer to STREAM.INFO.
pub const SUBJECTS_LIMIT: usize = 100_000;

/// What a request asks for, by its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the API's words")]
pub enum Verb<'a> {
    AccountInfo,
    StreamCreate(&'a str),
    StreamUpdate(&'a str),
    StreamNames,
    StreamList,
    StreamInfo(&'a str),
    StreamDelete(&'a str),
    StreamPurge(&'a str),
    StreamSnapshot(&'a str),
    StreamRestore(&'a str),
    StreamPeerRemove(&'a str),
    StreamPeerEvacuate(&'a str),
    StreamCancelMove(&'a str),
    StreamLeaderStepdown(&'a str),
    MessageGet(&'a str),
    MessageDelete(&'a str),
    /// With the subject whose last message is wanted, if it is part of the subject.
    DirectGet {
        stream: &'a str,
        subject: Option<&'a str>,
    },
    ConsumerCreate {
        stream: &'a str,
        consumer: Option<&'a str>,
        filter: Option<&'a str>,
    },
    ConsumerDurableCreate {
        stream: &'a str,
        consumer: &'a str,
    },
    ConsumerNames(&'a str),
    ConsumerList(&'a str),
    ConsumerInfo {
        stream: &'a str,
        consumer: &'a str,
    },
    ConsumerDelete {
        stream: &'a str,
        consumer: &'a str,
    },
    ConsumerPause {
        stream: &'a str,
        consumer: &'a str,
    },
    ConsumerReset {
        stream: &'a str,
        consumer: &'a str,
    },
    ConsumerUnpin {
        stream: &'a str,
        consumer: &'a str,
    },
    ConsumerLeaderStepdown {
        stream: &'a str,
        consumer: &'a str,
    },
    ConsumerNext {
        stream: &'a str,
        consumer: &'a str,
    },
}

impl<'a> Verb<'a> {
    /// Reads a subject. `None` for one that the API does not have: it gets no answer at all.
    pub fn parse(subject: &'a str) -> Option<Verb<'a>> {
        let subject = subject.strip_prefix(PREFIX)?;
        let (area, rest) = subject.split_once('.').unwrap_or((subject, ""));
        let verb = match area {
            "INFO" if rest.is_empty() => Verb::AccountInfo,
            "STREAM" => {
                let tokens: Vec<&str> = rest.split('.').collect();
                match tokens[..] {
                    ["CREATE", stream] => Verb::StreamCreate(stream),
                    ["UPDATE", stream] => Verb::StreamUpdate(stream),
                    ["NAMES"] => Verb::StreamNames,
                    ["LIST"] => Verb::StreamList,
                    ["INFO", stream] => Verb::StreamInfo(stream),
                    ["DELETE", stream] => Verb::StreamDelete(stream),
                    ["PURGE", stream] => Verb::StreamPurge(stream),
                    ["SNAPSHOT", stream] => Verb::StreamSnapshot(stream),
                    ["RESTORE", stream] => Verb::StreamRestore(stream),
                    ["PEER", "REMOVE", stream] => Verb::StreamPeerRemove(stream),
                    ["PEER", "EVACUATE", stream] => Verb::StreamPeerEvacuate(stream),
                    ["CANCEL_MOVE", stream] => Verb::StreamCancelMove(stream),
                    ["LEADER", "STEPDOWN", stream] => Verb::StreamLeaderStepdown(stream),
                    ["MSG", "GET", stream] => Verb::MessageGet(stream),
                    ["MSG", "DELETE", stream] => Verb::MessageDelete(stream),
                    _ => return None,
                }
            }
            "DIRECT" => {
                let rest = rest.strip_prefix("GET.")?;
                match rest.split_once('.') {
                    Some((stream, subject)) => Verb::DirectGet { stream, subject: Some(subject) },
                    None => Verb::DirectGet { stream: rest, subject: None },
                }
            }
            "CONSUMER" => consumer_verb(rest)?,
            _ => return None,
        };
        Some(verb)
    }

    /// What stands in the type of the answer, between the prefix of all types and `_response`.
    fn kind(&self) -> &'static str {
        match self {
            Verb::AccountInfo => "account_info",
            Verb::StreamCreate(_) => "stream_create",
            Verb::StreamUpdate(_) => "stream_update",
            Verb::StreamNames => "stream_names",
            Verb::StreamList => "stream_list",
            Verb::StreamInfo(_) => "stream_info",
            Verb::StreamDelete(_) => "stream_delete",
            Verb::StreamPurge(_) => "stream_purge",
            Verb::StreamSnapshot(_) => "stream_snapshot",
            Verb::StreamRestore(_) => "stream_restore",
            Verb::StreamPeerRemove(_) => "stream_remove_peer",
            Verb::StreamPeerEvacuate(_) => "stream_evacuate_peer",
            Verb::StreamCancelMove(_) => "stream_cancel_move",
            Verb::StreamLeaderStepdown(_) => "stream_leader_stepdown",
            Verb::MessageGet(_) => "stream_msg_get",
            Verb::MessageDelete(_) => "stream_msg_delete",
            Verb::ConsumerCreate { .. } | Verb::ConsumerDurableCreate { .. } => "consumer_create",
            Verb::ConsumerNames(_) => "consumer_names",
            Verb::ConsumerList(_) => "consumer_list",
            Verb::ConsumerInfo { .. } => "consumer_info",
            Verb::ConsumerDelete { .. } => "consumer_delete",
            Verb::ConsumerPause { .. } => "consumer_pause",
            Verb::ConsumerReset { .. } => "consumer_reset",
            Verb::ConsumerUnpin { .. } => "consumer_unpin",
            Verb::ConsumerLeaderStepdown { .. } => "consumer_leader_stepdown",
            // These answer with messages, not with objects.
            Verb::DirectGet { .. } | Verb::ConsumerNext { .. } => "",
        }
    }
}

fn consumer_verb(rest: &str) -> Option<Verb<'_>> {
    if let Some(rest) = rest.strip_prefix("CREATE.") {
        let mut parts = rest.splitn(3, '.');
        let stream = parts.next()?;
        return Some(Verb::ConsumerCreate { stream, consumer: parts.next(), filter: parts.next() });
    }
    let tokens: Vec<&str> = rest.split('.').collect();
    Some(match tokens[..] {
        ["DURABLE", "CREATE", stream, consumer] => Verb::ConsumerDurableCreate { stream, consumer },
        ["NAMES", stream] => Verb::ConsumerNames(stream),
        ["LIST", stream] => Verb::ConsumerList(stream),
        ["INFO", stream, consumer] => Verb::ConsumerInfo { stream, consumer },
        ["DELETE", stream, consumer] => Verb::ConsumerDelete { stream, consumer },
        ["PAUSE", stream, consumer] => Verb::ConsumerPause { stream, consumer },
        ["RESET", stream, consumer] => Verb::ConsumerReset { stream, consumer },
        ["UNPIN", stream, consumer] => Verb::ConsumerUnpin { stream, consumer },
        ["LEADER", "STEPDOWN", stream, consumer] => Verb::ConsumerLeaderStepdown { stream, consumer },
        ["MSG", "NEXT", stream, consumer] => Verb::ConsumerNext { stream, consumer },
        _ => return None,
    })
}

/// The body of STREAM.NAMES.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the API's words")]
pub struct NamesRequest {
    pub offset: Int,
    pub subject: String,
}

/// The body of STREAM.LIST.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the API's words")]
pub struct ListRequest {
    pub offset: Int,
    pub subject: String,
}

/// The body of STREAM.INFO.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the API's words")]
pub struct InfoRequest {
    pub offset: Int,
    pub deleted_details: bool,
    pub subjects_filter: String,
}

/// The body of STREAM.PURGE.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the API's words")]
pub struct PurgeRequest {
    pub seq: u64,
    pub filter: String,
    pub keep: u64,
}

/// The body of STREAM.MSG.DELETE.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the API's words")]
pub struct DeleteRequest {
    pub seq: u64,
    pub no_erase: bool,
}

/// The body of STREAM.MSG.GET and of DIRECT.GET.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the API's words")]
pub struct GetRequest {
    pub seq: u64,
    pub last_by_subj: String,
    pub next_by_subj: String,
    pub batch: Int,
    pub max_bytes: Int,
    pub start_time: Option<Time>,
    pub multi_last: Vec<String>,
    pub up_to_seq: u64,
    pub up_to_time: Option<Time>,
    pub no_hdr: bool,
}

/// The body of STREAM.SNAPSHOT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the API's words")]
pub struct SnapshotRequest {
    pub deliver_subject: String,
    pub no_consumers: bool,
    pub chunk_size: Int,
    pub window_size: Int,
    pub jsck: bool,
}

/// The body of STREAM.RESTORE. What it says of the stream's state is read, and nothing is made of it: the backup says that itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the API's words")]
pub struct RestoreRequest {
    pub config: StreamConfigRequest,
    pub state: ToldState,
}

/// A stream's state in a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the API's words")]
pub struct ToldState {
    pub messages: u64,
    pub bytes: u64,
    pub first_seq: u64,
    pub first_ts: Option<Time>,
    pub last_seq: u64,
    pub last_ts: Option<Time>,
    pub num_subjects: Int,
    pub subjects: Anything,
    pub num_deleted: Int,
    pub deleted: Vec<u64>,
    pub lost: Anything,
    pub consumer_count: Int,
}

/// A value that nothing is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Anything;

impl FromJson for Anything {
    fn type_name() -> String {
        "interface {}".to_owned()
    }

    fn read_from(&mut self, _: &Node<'_>, _: &mut Path) -> Result<(), JsonError> {
        Ok(())
    }
}

from_json!(SnapshotRequest, "server.JSApiStreamSnapshotRequest", {
    "deliver_subject" => deliver_subject,
    "no_consumers" => no_consumers,
    "chunk_size" => chunk_size,
    "window_size" => window_size,
    "jsck" => jsck,
});
from_json!(RestoreRequest, "server.JSApiStreamRestoreRequest", { "config" => config, "state" => state });
from_json!(ToldState, "server.StreamState", {
    "messages" => messages,
    "bytes" => bytes,
    "first_seq" => first_seq,
    "first_ts" => first_ts,
    "last_seq" => last_seq,
    "last_ts" => last_ts,
    "num_subjects" => num_subjects,
    "subjects" => subjects,
    "num_deleted" => num_deleted,
    "deleted" => deleted,
    "lost" => lost,
    "consumer_count" => consumer_count,
});
from_json!(NamesRequest, "server.JSApiStreamNamesRequest", { "offset" => offset, "subject" => subject });
from_json!(ListRequest, "server.JSApiStreamListRequest", { "offset" => offset, "subject" => subject });
from_json!(InfoRequest, "server.JSApiStreamInfoRequest", {
    "offset" => offset,
    "deleted_details" => deleted_details,
    "subjects_filter" => subjects_filter,
});
from_json!(PurgeRequest, "server.JSApiStreamPurgeRequest", { "seq" => seq, "filter" => filter, "keep" => keep });
from_json!(DeleteRequest, "server.JSApiMsgDeleteRequest", { "seq" => seq, "no_erase" => no_erase });
from_json!(GetRequest, "server.JSApiMsgGetRequest", {
    "seq" => seq,
    "last_by_subj" => last_by_subj,
    "next_by_subj" => next_by_subj,
    "batch" => batch,
    "max_bytes" => max_bytes,
    "start_time" => start_time,
    "multi_last" => multi_last,
    "up_to_seq" => up_to_seq,
    "up_to_time" => up_to_time,
    "no_hdr" => no_hdr,
});

/// What a stream says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamReport {
    /// Its configuration.
    pub config: StreamConfig,
    /// When it was created, in nanoseconds since 1970.
    pub created_ns: i64,
    /// What it holds.
    pub state: StreamState,
    /// How many subjects match what was asked, if subjects were asked for.
    pub subjects_total: usize,
    /// Consumers, with those of other streams that copy from it, which its state does not count.
    pub consumers_total: u64,
    /// The stream that it mirrors.
    pub mirror: Option<OriginReport>,
    /// The streams that it has for sources.
    pub sources: Vec<OriginReport>,
    /// How often what it acknowledges is synced to the disk; `None`: before it is acknowledged.
    pub sync_interval: Option<Duration>,
}

/// What a stream holds, as answers tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamState {
    /// Messages.
    pub messages: u64,
    /// What they count for.
    pub bytes: u64,
    /// The oldest message.
    pub first_seq: u64,
    /// Its time; `None` without messages.
    pub first_time_ns: Option<i64>,
    /// The last sequence that was given.
    pub last_seq: u64,
    /// When; `None` if never.
    pub last_time_ns: Option<i64>,
    /// Distinct subjects.
    pub num_subjects: u64,
    /// Subjects and their messages, if they were asked for.
    pub subjects: Vec<(String, u64)>,
    /// Sequences that are missing between the first and the last.
    pub num_deleted: u64,
    /// Which, if they were asked for.
    pub deleted: Vec<u64>,
    /// Consumers.
    pub consumer_count: u64,
}

impl StreamState {
    /// Writes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        object.uint("messages", self.messages);
        object.uint("bytes", self.bytes);
        object.uint("first_seq", self.first_seq);
        object.time("first_ts", self.first_time_ns.unwrap_or(time::ZERO));
        object.uint("last_seq", self.last_seq);
        object.time("last_ts", self.last_time_ns.unwrap_or(time::ZERO));
        object.uint_unless_zero("num_subjects", self.num_subjects);
        if !self.subjects.is_empty() {
            let mut subjects = Object::begin(object.member("subjects"));
            for (subject, messages) in &self.subjects {
                subjects.keyed_uint(subject, *messages);
            }
            subjects.end();
        }
        object.uint_unless_zero("num_deleted", self.num_deleted);
        if !self.deleted.is_empty() {
            write_array(object.member("deleted"), &self.deleted, |out, seq| {
                super::json::write_uint(out, *seq)
            });
        }
        object.uint("consumer_count", self.consumer_count);
        object.end();
    }
}

/// What an account uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the API's words")]
pub struct AccountUsage {
    pub memory: u64,
    pub storage: u64,
    pub reserved_memory: u64,
    pub reserved_storage: u64,
    pub streams: u64,
    pub consumers: u64,
    /// Requests, this one not included.
    pub api_total: u64,
    /// Requests that were answered with an error.
    pub api_errors: u64,
    /// Requests that are being worked on.
    pub api_inflight: u64,
}

/// A message as STREAM.MSG.GET answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the API's words")]
pub struct FoundMessage {
    pub subject: Vec<u8>,
    pub seq: u64,
    pub header: Vec<u8>,
    pub payload: Vec<u8>,
    pub time_ns: i64,
}

/// What answers say of the server, and when.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The name of the server, which is the leader of every stream that it has.
    pub server_name: &'a str,
    /// The domain, empty without one.
    pub domain: &'a str,
    /// Now, in nanoseconds since 1970.
    pub now_ns: i64,
}

/// Which answers a description of a stream stands in: they differ in what they tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the verbs")]
pub enum Description {
    Created,
    Updated,
    Info,
    Listed,
}

/// An answer that says what went wrong.
pub fn failure(verb: &Verb<'_>, error: &ApiError) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut object = begin(&mut out, verb);
    error.write(object.member("error"));
    match verb {
        Verb::StreamInfo(_) => page(&mut object, 0, 0, 0),
        Verb::StreamNames => {
            page(&mut object, 0, 0, 0);
            object.member("streams").extend_from_slice(b"null");
        }
        Verb::StreamList => {
            page(&mut object, 0, 0, 0);
            object.member("streams").extend_from_slice(b"[]");
        }
        Verb::StreamPurge(_) => object.uint("purged", 0),
        Verb::StreamRestore(_) => object.string("deliver_subject", ""),
        Verb::ConsumerNames(_) | Verb::ConsumerList(_) => {
            page(&mut object, 0, 0, 0);
            object.member("consumers").extend_from_slice(b"[]");
        }
        Verb::ConsumerPause { .. } => {
            object.bool("paused", false);
            object.time("pause_until", time::ZERO);
        }
        _ => {}
    }
    object.end();
    out
}

/// The answer to INFO.
pub fn account_info(usage: &AccountUsage, limits: &AccountLimits, domain: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let mut object = begin(&mut out, &Verb::AccountInfo);
    object.uint("memory", usage.memory);
    object.uint("storage", usage.storage);
    object.uint("reserved_memory", usage.reserved_memory);
    object.uint("reserved_storage", usage.reserved_storage);
    object.uint("streams", usage.streams);
    object.uint("consumers", usage.consumers);
    limits.write(object.member("limits"));
    object.string_unless_empty("domain", domain);
    let mut api = Object::begin(object.member("api"));
    api.uint("level", super::API_LEVEL.into());
    api.uint("total", usage.api_total);
    api.uint("errors", usage.api_errors);
    api.uint_unless_zero("inflight", usage.api_inflight);
    api.end();
    object.end();
    out
}

/// The answer to the system account, which has asked that all streams of an account be deleted.
pub fn account_purged(done: &Result<(), ApiError>) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let mut object = Object::begin(&mut out);
    object.string("type", "io.nats.jetstream.api.v1.account_purge_response");
    match done {
        Ok(()) => object.bool("initiated", true),
        Err(error) => error.write(object.member("error")),
    }
    object.end();
    out
}

/// The answer to STREAM.CREATE.
pub fn stream_created(report: &StreamReport, frame: Frame<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let mut object = begin(&mut out, &Verb::StreamCreate(""));
    describe(&mut object, report, frame, Description::Created);
    object.bool("did_create", true);
    object.end();
    out
}

/// The answer to STREAM.UPDATE.
pub fn stream_updated(report: &StreamReport, frame: Frame<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let mut object = begin(&mut out, &Verb::StreamUpdate(""));
    describe(&mut object, report, frame, Description::Updated);
    object.end();
    out
}

/// The answer to STREAM.SNAPSHOT, before anything else comes.
pub fn stream_snapshot(report: &StreamReport) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let mut object = begin(&mut out, &Verb::StreamSnapshot(""));
    report.config.write(object.member("config"));
    report.state.write(object.member("state"));
    object.end();
    out
}

/// The answer to STREAM.RESTORE: where the backup is to go.
pub fn stream_restore(deliver_subject: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut object = begin(&mut out, &Verb::StreamRestore(""));
    object.string("deliver_subject", deliver_subject);
    object.end();
    out
}

/// The answer to the end of a backup: the stream that has come of it.
pub fn stream_restored(report: &StreamReport, frame: Frame<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let mut object = begin(&mut out, &Verb::StreamCreate(""));
    describe(&mut object, report, frame, Description::Created);
    object.end();
    out
}

/// What is told of backups.
#[derive(Debug, Clone, Copy)]
pub enum BackupEvent<'a> {
    /// A stream begins to go to a client, in this state.
    SnapshotCreate(&'a StreamState),
    /// It has gone, or not.
    SnapshotComplete {
        /// When it began.
        start_ns: i64,
        /// What went wrong.
        error: Option<&'a str>,
    },
    /// A stream begins to come from a client.
    RestoreCreate,
    /// It has come, or not.
    RestoreComplete {
        /// When it began.
        start_ns: i64,
        /// How much has come.
        bytes: u64,
    },
}

/// The advisory about a backup: its subject and its body. Which client it is about is not told.
pub fn backup_event(
    event: BackupEvent<'_>,
    stream: &str,
    domain: &str,
    random: &mut fastrand::Rng,
    now_ns: i64,
) -> (String, Vec<u8>) {
    let kind = match event {
        BackupEvent::SnapshotCreate(_) => "snapshot_create",
        BackupEvent::SnapshotComplete { .. } => "snapshot_complete",
        BackupEvent::RestoreCreate => "restore_create",
        BackupEvent::RestoreComplete { .. } => "restore_complete",
    };
    let mut body = Vec::with_capacity(512);
    let mut object = begin_advisory(&mut body, kind, random, now_ns);
    object.string("stream", stream);
    match event {
        BackupEvent::SnapshotCreate(state) => state.write(object.member("state")),
        BackupEvent::SnapshotComplete { start_ns, .. } | BackupEvent::RestoreComplete { start_ns, .. } => {
            object.time("start", start_ns);
            object.time("end", now_ns);
        }
        BackupEvent::RestoreCreate => {}
    }
    if let BackupEvent::RestoreComplete { bytes, .. } = event {
        object.uint("bytes", bytes);
    }
    object.member("client").extend_from_slice(b"null");
    object.string_unless_empty("domain", domain);
    if let BackupEvent::SnapshotComplete { error: Some(error), .. } = event {
        object.string("error", error);
    }
    object.end();
    (format!("$JS.EVENT.ADVISORY.STREAM.{}.{stream}", kind.to_uppercase()), body)
}

/// The answer to STREAM.INFO. `offset` is the one that was asked for; it is only told with subjects.
pub fn stream_info(report: &StreamReport, offset: usize, frame: Frame<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let mut object = begin(&mut out, &Verb::StreamInfo(""));
    match report.subjects_total {
        0 => page(&mut object, 0, 0, 0),
        total => page(&mut object, total, offset, SUBJECTS_LIMIT),
    }
    describe(&mut object, report, frame, Description::Info);
    object.end();
    out
}

/// The answer to STREAM.NAMES.
pub fn stream_names(names: &[&str], total: usize, offset: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut object = begin(&mut out, &Verb::StreamNames);
    page(&mut object, total, offset, NAMES_LIMIT);
    if names.is_empty() {
        object.member("streams").extend_from_slice(b"null");
    } else {
        object.strings("streams", names);
    }
    object.end();
    out
}

/// The answer to STREAM.LIST.
pub fn stream_list(reports: &[StreamReport], total: usize, offset: usize, frame: Frame<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + 1024 * reports.len());
    let mut object = begin(&mut out, &Verb::StreamList);
    page(&mut object, total, offset, LIST_LIMIT);
    write_array(object.member("streams"), reports, |out, report| {
        let mut object = Object::begin(out);
        describe(&mut object, report, frame, Description::Listed);
        object.end();
    });
    object.end();
    out
}

/// The answer to STREAM.DELETE and STREAM.MSG.DELETE.
pub fn success(verb: &Verb<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let mut object = begin(&mut out, verb);
    object.bool("success", true);
    object.end();
    out
}

/// The answer to STREAM.PURGE.
pub fn stream_purged(purged: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let mut object = begin(&mut out, &Verb::StreamPurge(""));
    object.bool("success", true);
    object.uint("purged", purged);
    object.end();
    out
}

/// The answer to STREAM.MSG.GET.
pub fn message(message: &FoundMessage) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + (message.payload.len() + message.header.len()) * 4 / 3);
    let mut object = begin(&mut out, &Verb::MessageGet(""));
    let mut inner = Object::begin(object.member("message"));
    inner.string("subject", &String::from_utf8_lossy(&message.subject));
    inner.uint("seq", message.seq);
    inner.base64_unless_empty("hdrs", &message.header);
    inner.base64_unless_empty("data", &message.payload);
    inner.time("time", message.time_ns);
    inner.end();
    object.end();
    out
}

/// Begins an advisory: an object with its type, an id of its own and the time.
pub fn begin_advisory<'a>(
    out: &'a mut Vec<u8>,
    kind: &str,
    random: &mut fastrand::Rng,
    now_ns: i64,
) -> Object<'a> {
    let mut object = Object::begin(out);
    object.string("type", &format!("io.nats.jetstream.advisory.v1.{kind}"));
    object.string("id", &nuid(random));
    object.time("timestamp", now_ns);
    object
}

/// What has become of a stream, as an advisory tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain words")]
pub enum StreamAction {
    Created,
    Updated,
    Deleted,
}

/// The advisory that a stream was created, changed or deleted: its subject and its body.
pub fn stream_action(
    action: StreamAction,
    stream: &str,
    domain: &str,
    random: &mut fastrand::Rng,
    now_ns: i64,
) -> (String, Vec<u8>) {
    let (token, word) = match action {
        StreamAction::Created => ("CREATED", "create"),
        StreamAction::Updated => ("UPDATED", "modify"),
        StreamAction::Deleted => ("DELETED", "delete"),
    };
    let mut body = Vec::with_capacity(256);
    let mut object = begin_advisory(&mut body, "stream_action", random, now_ns);
    object.string("stream", stream);
    object.string("action", word);
    object.string_unless_empty("domain", domain);
    object.end();
    (format!("$JS.EVENT.ADVISORY.STREAM.{token}.{stream}"), body)
}

/// Where the advisory goes that tells of a request.
pub const AUDIT_SUBJECT: &str = "$JS.EVENT.ADVISORY.API";
/// Where the advisory goes that requests were too many.
pub const LIMIT_REACHED_SUBJECT: &str = "$JS.EVENT.ADVISORY.API.LIMIT_REACHED";

/// A request to the API, as an advisory tells it.
#[derive(Debug, Clone, Copy)]
pub struct Audit<'a> {
    /// Who has asked, as JSON; `None` if it is not known.
    pub client: Option<&'a str>,
    /// The subject of the request.
    pub subject: &'a str,
    /// Its body.
    pub request: &'a [u8],
    /// What was answered.
    pub response: &'a [u8],
}

impl Audit<'_> {
    /// The body of the advisory.
    pub fn write(&self, frame: Frame<'_>, random: &mut fastrand::Rng) -> Vec<u8> {
        let mut body = Vec::with_capacity(512 + self.request.len() + self.response.len() * 5 / 4);
        let mut object = begin_advisory(&mut body, "api_audit", random, frame.now_ns);
        object.string("server", frame.server_name);
        object.member("client").extend_from_slice(self.client.unwrap_or("null").as_bytes());
        object.string("subject", self.subject);
        object.string_unless_empty("request", &String::from_utf8_lossy(self.request));
        object.string("response", &String::from_utf8_lossy(self.response));
        object.string_unless_empty("domain", frame.domain);
        object.end();
        body
    }
}

/// The advisory that requests were too many and get no answer.
pub fn limit_reached(dropped: u64, frame: Frame<'_>, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut body = Vec::with_capacity(256);
    let mut object = begin_advisory(&mut body, "api_limit_reached", random, frame.now_ns);
    object.string("server", frame.server_name);
    object.string_unless_empty("domain", frame.domain);
    object.uint("dropped", dropped);
    object.end();
    body
}

fn begin<'a>(out: &'a mut Vec<u8>, verb: &Verb<'_>) -> Object<'a> {
    let mut object = Object::begin(out);
    object.string("type", &format!("io.nats.jetstream.api.v1.{}_response", verb.kind()));
    object
}

fn page(object: &mut Object<'_>, total: usize, offset: usize, limit: usize) {
    object.uint("total", total as u64);
    object.uint("offset", offset as u64);
    object.uint("limit", limit as u64);
}

fn describe(object: &mut Object<'_>, report: &StreamReport, frame: Frame<'_>, description: Description) {
    if description == Description::Listed {
        report.config.write(object.member("config"));
    } else {
        report.config.write_with_versions(object.member("config"), report.sync_interval);
    }
    object.time("created", report.created_ns);
    report.state.write(object.member("state"));
    // The answer to a creation says neither the domain nor the leader.
    if description != Description::Created {
        object.string_unless_empty("domain", frame.domain);
    }
    if description == Description::Info {
        let mut cluster = Object::begin(object.member("cluster"));
        cluster.string_unless_empty("leader", frame.server_name);
        cluster.end();
    }
    if let Some(mirror) = &report.mirror {
        mirror.write(object.member("mirror"), frame.now_ns);
    }
    if !report.sources.is_empty() {
        let out = object.member("sources");
        write_array(out, &report.sources, |out, source| source.write(out, frame.now_ns));
    }
    object.time("ts", frame.now_ns);
}
