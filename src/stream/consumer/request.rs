//! What clients ask of consumers: the subjects of the API and their bodies, read into types.
//!
//! What is refused here needs no stream: the request contradicts itself. The order of the checks is the reference's.

use super::super::api;
use super::super::error::{ApiError, ErrorId};
use super::super::json::{self, DurationNs, Int, Strictness, from_json};
use super::config::{Action, ConsumerConfig, ZonedTime};
use super::waiting::GroupOptions;

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `CONSUMER.CREATE.S`, `.CREATE.S.C`, `.CREATE.S.C.filter`, `.DURABLE.CREATE.S.C`.
    Create,
    /// `CONSUMER.INFO.S.C`
    Info,
    /// `CONSUMER.NAMES.S`
    Names,
    /// `CONSUMER.LIST.S`
    List,
    /// `CONSUMER.DELETE.S.C`
    Delete,
    /// `CONSUMER.PAUSE.S.C`
    Pause,
    /// `CONSUMER.UNPIN.S.C`
    Unpin,
    /// `CONSUMER.RESET.S.C`
    Reset,
    /// `CONSUMER.LEADER.STEPDOWN.S.C`
    StepDown,
    /// `CONSUMER.MSG.NEXT.S.C`
    Next,
}

impl Verb {
    /// The `type` of the answer.
    pub fn answer_type(self) -> &'static str {
        match self {
            Verb::Create => "io.nats.jetstream.api.v1.consumer_create_response",
            Verb::Info => "io.nats.jetstream.api.v1.consumer_info_response",
            Verb::Names => "io.nats.jetstream.api.v1.consumer_names_response",
            Verb::List => "io.nats.jetstream.api.v1.consumer_list_response",
            Verb::Delete => "io.nats.jetstream.api.v1.consumer_delete_response",
            Verb::Pause => "io.nats.jetstream.api.v1.consumer_pause_response",
            Verb::Unpin => "io.nats.jetstream.api.v1.consumer_unpin_response",
            Verb::Reset => "io.nats.jetstream.api.v1.consumer_reset_response",
            Verb::StepDown => "io.nats.jetstream.api.v1.consumer_leader_stepdown_response",
            // Answered with messages and statuses.
            Verb::Next => "",
        }
    }
}

/// Where a request goes, by its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address<'a> {
    /// What is asked.
    pub verb: Verb,
    /// The stream.
    pub stream: &'a str,
    /// The consumer, if the subject names one.
    pub consumer: &'a str,
    /// The filter at the end of a create subject.
    pub filter: &'a str,
    /// Whether it is the old subject for durable consumers.
    pub legacy_durable: bool,
}

/// What a request of the API asks of consumers. `None`: it is about something else.
pub fn address<'a>(verb: &api::Verb<'a>) -> Option<Address<'a>> {
    let named =
        |verb, stream, consumer| Address { verb, stream, consumer, filter: "", legacy_durable: false };
    Some(match *verb {
        api::Verb::ConsumerCreate { stream, consumer, filter } => Address {
            filter: filter.unwrap_or_default(),
            ..named(Verb::Create, stream, consumer.unwrap_or_default())
        },
        api::Verb::ConsumerDurableCreate { stream, consumer } => {
            Address { legacy_durable: true, ..named(Verb::Create, stream, consumer) }
        }
        api::Verb::ConsumerNames(stream) => named(Verb::Names, stream, ""),
        api::Verb::ConsumerList(stream) => named(Verb::List, stream, ""),
        api::Verb::ConsumerInfo { stream, consumer } => named(Verb::Info, stream, consumer),
        api::Verb::ConsumerDelete { stream, consumer } => named(Verb::Delete, stream, consumer),
        api::Verb::ConsumerPause { stream, consumer } => named(Verb::Pause, stream, consumer),
        api::Verb::ConsumerReset { stream, consumer } => named(Verb::Reset, stream, consumer),
        api::Verb::ConsumerUnpin { stream, consumer } => named(Verb::Unpin, stream, consumer),
        api::Verb::ConsumerLeaderStepdown { stream, consumer } => named(Verb::StepDown, stream, consumer),
        api::Verb::ConsumerNext { stream, consumer } => named(Verb::Next, stream, consumer),
        _ => return None,
    })
}

/// The body of a create request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreateRequest {
    /// The stream, again.
    pub stream_name: String,
    /// What it shall be.
    pub config: ConsumerConfig,
    /// Whether it may be there already.
    pub action: Action,
    /// Whether values out of range are refused instead of corrected.
    pub pedantic: bool,
}

from_json!(CreateRequest, "server.CreateConsumerRequest", {
    "stream_name" => stream_name,
    "config" => config,
    "action" => action,
    "pedantic" => pedantic,
});

/// Reads a create request and compares it with its subject.
///
/// # Errors
///
/// It is not JSON, or contradicts its subject.
pub fn read_create(at: Address<'_>, body: &[u8], strictness: Strictness) -> Result<CreateRequest, ApiError> {
    let mut request: CreateRequest =
        json::read(body, strictness).map_err(|error| ApiError::with(ErrorId::InvalidJson, error))?;
    let config = &mut request.config;
    let refuse = |wrong: bool, id: ErrorId| if wrong { Err(ApiError::new(id)) } else { Ok(()) };
    refuse(at.stream != request.stream_name, ErrorId::StreamMismatch)?;
    let named = if at.consumer.is_empty() { config.name.as_str() } else { at.consumer };
    refuse(named.contains(['\\', '/']), ErrorId::ConsumerNameContainsPathSeparators)?;
    if at.legacy_durable {
        refuse(!config.is_durable(), ErrorId::ConsumerDurableNameNotSet)?;
    }
    if at.consumer.is_empty() {
        refuse(config.is_durable(), ErrorId::ConsumerEphemeralWithDurableName)?;
    } else {
        let differs = config.is_durable() && config.durable_name != at.consumer;
        refuse(differs, ErrorId::ConsumerDurableNameNotMatchSubject)?;
        at.consumer.clone_into(&mut config.name);
    }
    let filtered = !at.filter.is_empty();
    refuse(filtered && !config.filter_subjects.is_empty(), ErrorId::ConsumerMultipleFiltersNotAllowed)?;
    refuse(filtered && config.filter_subject != at.filter, ErrorId::ConsumerCreateFilterSubjectMismatch)?;
    refuse(config.num_replicas.0 > 1, ErrorId::StreamReplicasNotSupported)?;
    Ok(request)
}

/// The body of names and list requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct PageRequest {
    offset: Int,
}

from_json!(PageRequest, "server.JSApiConsumersRequest", { "offset" => offset });

/// Reads where a page begins.
///
/// # Errors
///
/// The body begins like JSON and is none.
pub fn read_offset(body: &[u8], strictness: Strictness) -> Result<usize, ApiError> {
    if !json::is_object_or_array(body) {
        return Ok(0);
    }
    let page: PageRequest =
        json::read(body, strictness).map_err(|error| ApiError::with(ErrorId::InvalidJson, error))?;
    Ok(usize::try_from(page.offset.0).unwrap_or(0))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct PauseRequest {
    pause_until: ZonedTime,
}

from_json!(PauseRequest, "server.JSApiConsumerPauseRequest", { "pause_until" => pause_until });

/// Reads until when a consumer shall pause. `None`: it shall go on.
///
/// # Errors
///
/// The body begins like JSON and is none.
pub fn read_pause(body: &[u8], strictness: Strictness) -> Result<Option<ZonedTime>, ApiError> {
    if !json::is_object_or_array(body) {
        return Ok(None);
    }
    let pause: PauseRequest =
        json::read(body, strictness).map_err(|error| ApiError::with(ErrorId::InvalidJson, error))?;
    Ok((!pause.pause_until.is_zero()).then(|| ZonedTime::utc(pause.pause_until.ns)))
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct UnpinRequest {
    group: String,
}

from_json!(UnpinRequest, "server.JSApiConsumerUnpinRequest", { "group" => group });

/// Reads which group's client is unpinned.
///
/// # Errors
///
/// There is no group, or its name cannot be one.
pub fn read_unpin(body: &[u8]) -> Result<String, ApiError> {
    let invalid = |text: &str| Err(ApiError::with(ErrorId::InvalidJson, text));
    if body.iter().all(u8::is_ascii_whitespace) {
        return invalid("unexpected end of JSON input");
    }
    let request: UnpinRequest = match json::read(body, Strictness::Lenient) {
        Ok(request) => request,
        Err(error) => return invalid(plain_words(&error.0)),
    };
    if request.group.is_empty() {
        return invalid("consumer group not specified");
    }
    if !super::config::is_valid_group_name(&request.group) {
        return Err(ApiError::new(ErrorId::ConsumerInvalidGroupName));
    }
    Ok(request.group)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct ResetRequest {
    seq: u64,
}

from_json!(ResetRequest, "server.JSApiConsumerResetRequest", { "seq" => seq });

/// Reads the sequence that a consumer goes back to. 0: behind its floor.
///
/// # Errors
///
/// The body is not JSON.
pub fn read_reset(body: &[u8]) -> Result<u64, ApiError> {
    match json::read::<ResetRequest>(body, Strictness::Lenient) {
        Ok(request) => Ok(request.seq),
        Err(error) => Err(ApiError::with(ErrorId::InvalidJson, plain_words(&error.0))),
    }
}

/// What a pull request asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PullOptions {
    /// How long it waits; 0: until it has all.
    pub expires: DurationNs,
    /// How many messages.
    pub batch: Int,
    /// How many bytes at most; 0: no limit.
    pub max_bytes: Int,
    /// Whether it ends when there is nothing.
    pub no_wait: bool,
    /// How often it wants to hear something.
    pub idle_heartbeat: DurationNs,
    group: String,
    min_pending: i64,
    min_ack_pending: i64,
    id: String,
    priority: Int,
    /// Whether it was an object, which may speak of priorities; a number, or nothing, is exempt from the rules for them.
    pub is_object: bool,
}

from_json!(PullOptions, "", {
    "expires" => expires,
    "batch" => batch,
    "max_bytes" => max_bytes,
    "no_wait" => no_wait,
    "idle_heartbeat" => idle_heartbeat,
    "group" => group,
    "min_pending" => min_pending,
    "min_ack_pending" => min_ack_pending,
    "id" => id,
    "priority" => priority,
});

impl PullOptions {
    /// What it says for its priority group, if it may speak of it.
    pub fn group(&self) -> Option<GroupOptions> {
        self.is_object.then(|| GroupOptions {
            group: self.group.clone(),
            min_pending: self.min_pending,
            min_ack_pending: self.min_ack_pending,
            id: self.id.clone(),
            priority: self.priority.0,
        })
    }
}

/// Reads the body of a pull request: nothing, a number, or an object.
///
/// # Errors
///
/// The text of the status 400.
pub fn read_pull(body: &[u8]) -> Result<PullOptions, String> {
    let body = body.trim_ascii();
    let one = PullOptions { batch: Int(1), ..PullOptions::default() };
    match body.first() {
        None => Ok(one),
        Some(b'{') => {
            let mut options: PullOptions =
                json::read(body, Strictness::Lenient).map_err(|error| plain_words(&error.0).to_owned())?;
            options.is_object = true;
            let heartbeat = options.idle_heartbeat.0;
            if heartbeat > 0 && heartbeat.saturating_mul(2) > options.expires.0 {
                return Err("heartbeat value too large".to_owned());
            }
            Ok(options)
        }
        Some(_) => {
            let number = std::str::from_utf8(body).ok().and_then(|text| text.parse().ok());
            Ok(number.map_or(one, |batch| PullOptions { batch: Int(batch), ..PullOptions::default() }))
        }
    }
}

/// The words of the reference's other way of reading JSON, which most requests are not read by: without the place, and
/// with another text for an end that comes too early.
fn plain_words(text: &str) -> &str {
    if text == "unexpected EOF" {
        return "unexpected end of JSON input";
    }
    match text.rsplit_once(" at offset ") {
        Some((text, offset)) if offset.bytes().all(|byte| byte.is_ascii_digit()) => text,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_requests_are_nothing_a_number_or_an_object() {
        let batch = |body: &str| read_pull(body.as_bytes()).map(|options| options.batch.0);
        for (body, wanted) in [("", 1), ("  2 ", 2), ("x", 1), ("[1]", 1), ("null", 1), ("-1", -1), ("{}", 0)]
        {
            assert_eq!(batch(body), Ok(wanted), "{body}");
        }
        assert_eq!(batch(r#"{"batch":5,"foo":2}"#), Ok(5));
        for (body, text) in [
            ("{bad", "invalid character 'b' looking for beginning of object key string"),
            (r#"{"batch":"x"}"#, "json: cannot unmarshal string into Go struct field .batch of type int"),
            (r#"{"batch":1.5}"#, "json: cannot unmarshal number 1.5 into Go struct field .batch of type int"),
            ("{", "unexpected end of JSON input"),
            (r#"{"expires":1000,"idle_heartbeat":600}"#, "heartbeat value too large"),
        ] {
            assert_eq!(batch(body), Err(text.to_owned()), "{body}");
        }
    }
}
