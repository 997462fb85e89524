//! What is to be done about a request to the API: decided from the account's registry, up to the point where a stream has to be asked.
//!
//! [`plan`] reads and checks a request in the reference's order and says what is next; whoever owns the streams does that, and
//! [`answer`] makes the answer of what a stream said. Requests about consumers and direct gets are not decided here.

use super::api::{self, AccountUsage, Frame, StreamReport, Verb};
use super::config::{StreamConfig, StreamConfigRequest};
use super::error::{ApiError, ErrorId};
use super::headers;
use super::json::{self, FromJson, Strictness, is_empty_request, is_object_or_array};
use super::limits::ServerLimits;
use super::registry::{Creation, Entry, Registry};
use super::stream::{Answer, Command};
use crate::subject::name::is_valid_literal_subject;

/// What a decision needs to know of the server.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// What the server allows.
    pub server: &'a ServerLimits,
    /// How strictly requests are read.
    pub strictness: Strictness,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Plan<'r, P> {
    /// Nothing: this is the answer.
    Answer(Vec<u8>),
    /// Nothing: this is the answer, and an error.
    Failure(Vec<u8>),
    /// The usage of the account is to be summed up, for [`api::account_info`].
    AccountInfo,
    /// The stream is to be created and entered into the registry; its report goes to [`api::stream_created`]. If that fails,
    /// the error goes to [`api::failure`].
    Create(Box<StreamConfig>),
    /// The stream is to take this configuration ([`Command::Update`]), which then is set in the registry. What it says goes to [`answer`].
    Update {
        /// The stream.
        entry: &'r Entry<P>,
        /// What it is to become.
        config: Box<StreamConfig>,
    },
    /// The stream is to be deleted and taken out of the registry; then [`api::success`].
    Delete(&'r Entry<P>),
    /// The stream is to be asked; what it says goes to [`answer`].
    Ask {
        /// The stream.
        entry: &'r Entry<P>,
        /// What.
        command: Command,
        /// Where subjects are to begin, for STREAM.INFO.
        offset: usize,
    },
    /// All these streams are to be asked for [`Command::Info`]; their reports go to [`api::stream_list`].
    List {
        /// The streams of this page.
        entries: Vec<&'r Entry<P>>,
        /// How many there are on all pages.
        total: usize,
        /// Where the page begins.
        offset: usize,
    },
    /// The stream is to be sent to a client, who is answered by whoever has the stream ([`api::stream_snapshot`]).
    Snapshot {
        /// The stream.
        entry: &'r Entry<P>,
        /// How.
        request: api::SnapshotRequest,
    },
    /// A stream is to be made of a backup that the client will send; the answer is [`api::stream_restore`].
    Restore(Box<StreamConfig>),
    /// Not decided here: consumers, direct gets.
    Elsewhere,
}

/// Decides about a request.
pub fn plan<'r, P>(
    registry: &'r Registry<P>,
    verb: &Verb<'_>,
    header: &[u8],
    body: &[u8],
    situation: Situation<'_>,
) -> Plan<'r, P> {
    let decided = if !is_answered_at_a_sink(verb) && headers::needs_newer_level(header) {
        Err(ErrorId::RequiredApiLevel.into())
    } else {
        decide(registry, verb, body, situation)
    };
    decided.unwrap_or_else(|error| Plan::Failure(api::failure(verb, &error)))
}

/// The answer to a request, from what the stream said.
pub fn answer(verb: &Verb<'_>, offset: usize, said: Result<Answer, ApiError>, frame: Frame<'_>) -> Vec<u8> {
    match (verb, said) {
        (_, Err(error)) => api::failure(verb, &error),
        (Verb::StreamCreate(_), Ok(Answer::Report(report))) => api::stream_created(&report, frame),
        (Verb::StreamUpdate(_), Ok(Answer::Report(report))) => api::stream_updated(&report, frame),
        (_, Ok(Answer::Report(report))) => api::stream_info(&report, offset, frame),
        (_, Ok(Answer::Purged(purged))) => api::stream_purged(purged),
        (_, Ok(Answer::Deleted)) => api::success(verb),
        (_, Ok(Answer::Message(message))) => api::message(&message),
    }
}

/// The answer to every request of an account that has no JetStream, on a server that has.
pub fn not_enabled(verb: &Verb<'_>) -> Vec<u8> {
    api::failure(verb, &ErrorId::NotEnabledForAccount.into())
}

/// Sums up what an account uses from what its streams say; requests and consumers are the caller's to add.
pub fn usage<'a>(reports: impl IntoIterator<Item = &'a StreamReport>) -> AccountUsage {
    let mut usage = AccountUsage::default();
    for StreamReport { config, state, consumers_total, .. } in reports {
        let (used, reserved) = match config.storage {
            super::config::Storage::Memory => (&mut usage.memory, &mut usage.reserved_memory),
            super::config::Storage::File => (&mut usage.storage, &mut usage.reserved_storage),
        };
        *used += state.bytes;
        *reserved += config.max_bytes.max(0).unsigned_abs();
        usage.streams += 1;
        usage.consumers += consumers_total;
    }
    usage
}

/// Whether the worker that has the stream answers it at a sink of its own.
fn is_answered_at_a_sink(verb: &Verb<'_>) -> bool {
    matches!(verb, Verb::DirectGet { .. } | Verb::ConsumerNext { .. })
}

fn decide<'r, P>(
    registry: &'r Registry<P>,
    verb: &Verb<'_>,
    body: &[u8],
    situation: Situation<'_>,
) -> Result<Plan<'r, P>, ApiError> {
    let Situation { server, strictness } = situation;
    match *verb {
        Verb::AccountInfo => Ok(Plan::AccountInfo),
        Verb::StreamCreate(name) => {
            let request: StreamConfigRequest = read(body, strictness)?;
            Ok(match registry.create(name, request, server)? {
                Creation::New(config) => Plan::Create(config),
                Creation::Existing(entry) => Plan::Ask { entry, command: Command::info(), offset: 0 },
            })
        }
        Verb::StreamUpdate(name) => {
            let request: StreamConfigRequest = read(body, strictness)?;
            let (entry, config) = registry.update(name, &request, server)?;
            Ok(Plan::Update { entry, config: Box::new(config) })
        }
        Verb::StreamNames => {
            let request: api::NamesRequest = read_if_object(body, strictness)?;
            let names: Vec<&str> =
                registry.filtered(&request.subject).map(|entry| entry.config.name.as_str()).collect();
            let offset = page_offset(request.offset.0, names.len());
            let shown = &names[offset..names.len().min(offset + api::NAMES_LIMIT)];
            Ok(Plan::Answer(api::stream_names(shown, names.len(), offset)))
        }
        Verb::StreamList => {
            let request: api::ListRequest = read_if_object(body, strictness)?;
            let total = registry.filtered(&request.subject).count();
            let offset = page_offset(request.offset.0, total);
            let entries = registry.filtered(&request.subject).skip(offset).take(api::LIST_LIMIT).collect();
            Ok(Plan::List { entries, total, offset })
        }
        Verb::StreamInfo(name) => {
            let request: api::InfoRequest = read_if_object(body, strictness)?;
            let entry = registry.find(name)?;
            let offset = page_offset(request.offset.0, usize::MAX);
            let command = Command::Info {
                deleted_details: request.deleted_details,
                subjects_filter: request.subjects_filter,
                offset,
            };
            Ok(Plan::Ask { entry, command, offset })
        }
        Verb::StreamDelete(name) => {
            if !is_empty_request(body) {
                return Err(ErrorId::NotEmptyRequest.into());
            }
            registry.find(name).map(Plan::Delete)
        }
        Verb::StreamPurge(name) => {
            let request: api::PurgeRequest = read_if_object(body, strictness)?;
            if request.seq > 0 && request.keep > 0 {
                return Err(ErrorId::BadRequest.into());
            }
            let entry = registry.find(name)?;
            Ok(Plan::Ask { entry, command: Command::Purge(request), offset: 0 })
        }
        Verb::MessageDelete(name) => {
            if is_empty_request(body) {
                return Err(ErrorId::BadRequest.into());
            }
            let request: api::DeleteRequest = read(body, strictness)?;
            let entry = registry.find(name)?;
            Ok(Plan::Ask { entry, command: Command::Delete(request), offset: 0 })
        }
        Verb::MessageGet(name) => {
            if is_empty_request(body) {
                return Err(ErrorId::BadRequest.into());
            }
            let request: api::GetRequest = read(body, strictness)?;
            check_get(&request)?;
            let entry = registry.find(name)?;
            Ok(Plan::Ask { entry, command: Command::Get(request), offset: 0 })
        }
        Verb::StreamSnapshot(name) => {
            if is_empty_request(body) {
                return Err(ErrorId::BadRequest.into());
            }
            let entry = registry.find(name)?;
            let request: api::SnapshotRequest = read(body, strictness)?;
            if !is_valid_literal_subject(request.deliver_subject.as_bytes()) {
                return Err(ErrorId::SnapshotDeliverSubjectInvalid.into());
            }
            Ok(Plan::Snapshot { entry, request })
        }
        Verb::StreamRestore(name) => {
            if is_empty_request(body) {
                return Err(ErrorId::BadRequest.into());
            }
            let mut request: api::RestoreRequest = read(body, strictness)?;
            let config = &mut request.config.config;
            if config.name.is_empty() {
                name.clone_into(&mut config.name);
            }
            Ok(Plan::Restore(Box::new(registry.restore(name, config, server)?)))
        }
        Verb::StreamPeerRemove(_)
        | Verb::StreamPeerEvacuate(_)
        | Verb::StreamCancelMove(_)
        | Verb::StreamLeaderStepdown(_)
        | Verb::ConsumerLeaderStepdown { .. } => Err(ErrorId::ClusterRequired.into()),
        _ => Ok(Plan::Elsewhere),
    }
}

/// Sequence, last of a subject and time are ways to begin, of which one can be meant; a filter goes with a sequence or a time.
fn check_get(request: &api::GetRequest) -> Result<(), ApiError> {
    let (seq, last, next) =
        (request.seq > 0, !request.last_by_subj.is_empty(), !request.next_by_subj.is_empty());
    let time = request.start_time.is_some();
    let wrong = request.batch.0 > 0
        || request.max_bytes.0 > 0
        || (seq && last)
        || (!seq && !last && !next && !time)
        || (seq && time)
        || (time && last)
        || (last && next);
    if wrong { Err(ErrorId::BadRequest.into()) } else { Ok(()) }
}

fn read<T: FromJson + Default>(body: &[u8], strictness: Strictness) -> Result<T, ApiError> {
    json::read(body, strictness).map_err(|error| ApiError::with(ErrorId::InvalidJson, error))
}

fn read_if_object<T: FromJson + Default>(body: &[u8], strictness: Strictness) -> Result<T, ApiError> {
    if is_object_or_array(body) { read(body, strictness) } else { Ok(T::default()) }
}

fn page_offset(offset: i64, total: usize) -> usize {
    usize::try_from(offset).unwrap_or(0).min(total)
}
