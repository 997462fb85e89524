//! What the configuration of a stream may be: defaults, what goes together, and what an update may change.
//!
//! The order of the checks is the reference's (nats-server 2.15.1), because a request with two mistakes is told of the first. What
//! depends on other streams of the account is asked through [`Neighbours`]; overlap of subjects between streams and the room
//! that is left are [`super::registry`]'s.

use std::collections::HashSet;

use super::config::{
    Compression, Discard, Placement, Retention, Storage, StreamConfig, StreamSource, SubjectTransform,
};
use super::error::{ApiError, ErrorId};
use super::json::go_quoted;
use super::limits::{AccountLimits, ServerLimits};
use super::time::duration_text;
use crate::subject::name::{collide, has_wildcard, is_valid_subject, is_within};
use crate::subject::transform::{Transform, TransformError, check_destination};

/// The longest name of a stream or consumer, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest description, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 4 * 1024;
/// The most that all keys and values of the metadata may have together, in bytes.
pub const METADATA_BYTES_MAX: usize = 128 * 1024;
/// The most replicas that a stream can have.
pub const REPLICAS_MAX: i64 = 5;
/// How long ids of messages are remembered if nothing is said.
pub const DUPLICATE_WINDOW_DEFAULT_NS: i64 = 120 * NS_PER_SECOND;

const NS_PER_SECOND: i64 = 1_000_000_000;
const NS_PER_MS: i64 = 1_000_000;
const API_PREFIX: &str = "$JS.API";

/// The other streams of an account.
pub trait Neighbours {
    /// The configuration of the stream of that name.
    fn config(&self, name: &str) -> Option<&StreamConfig>;
}

/// What a check knows besides the configuration.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The other streams.
    pub neighbours: &'a dyn Neighbours,
    /// What the server allows.
    pub server: &'a ServerLimits,
    /// What the account may use.
    pub account: &'a AccountLimits,
}

/// Whether a stream, a consumer or the like may have this name. Its length is another question.
pub fn is_valid_asset_name(name: &str) -> bool {
    !name.is_empty() && !name.contains([' ', '\t', '\r', '\n', '\x0c', '.', '*', '>', '\\', '/'])
}

/// Checks a configuration and puts in the defaults.
///
/// # Errors
///
/// What the reference finds wrong with it first.
pub fn check(
    config: &StreamConfig,
    around: Surroundings<'_>,
    pedantic: bool,
) -> Result<StreamConfig, ApiError> {
    let mut config = config.clone();
    check_name_and_texts(&config)?;
    set_numbers(&mut config, pedantic)?;
    set_times(&mut config, around.server, pedantic)?;
    check_features(&mut config, pedantic)?;
    check_mirror(&mut config, around, pedantic)?;
    check_sources(&config, around)?;
    check_external(&config, around)?;
    check_cycles(&config, around)?;
    check_subjects(&mut config)?;
    check_max_bytes(&config, around.account)?;
    check_transforms(&mut config, pedantic)?;
    if config.placement.as_ref().is_some_and(|placement| *placement == Placement::default()) {
        config.placement = None;
    }
    if config.placement.as_ref().is_some_and(|placement| !placement.preferred.is_empty()) {
        return Err(ApiError::invalid_config("preferred server not permitted in placement"));
    }
    Ok(config)
}

/// Checks what a stream is to become, and returns it with the defaults and with what follows from it.
///
/// # Errors
///
/// It could not be created like that, or a stream cannot be changed so.
pub fn check_update(
    old: &StreamConfig,
    new: &StreamConfig,
    around: Surroundings<'_>,
    pedantic: bool,
) -> Result<StreamConfig, ApiError> {
    let mut config = check(new, around, pedantic)?;
    let refuse = |text: &str| Err(ApiError::invalid_config(text));
    if config.name != old.name {
        return refuse("stream configuration name must match original");
    }
    if config.num_replicas.0 > 1 {
        return Err(ErrorId::StreamReplicasNotSupported.into());
    }
    if config.storage != old.storage {
        return refuse("stream configuration update can not change storage type");
    }
    if config.retention != old.retention && [config.retention, old.retention].contains(&Retention::WorkQueue)
    {
        return refuse("stream configuration update can not change retention policy to/from workqueue");
    }
    if old.sealed && !config.sealed {
        return refuse("stream configuration update can not unseal a sealed stream");
    }
    if old.deny_delete && !config.deny_delete {
        return refuse("stream configuration update can not cancel deny message deletes");
    }
    if old.deny_purge && !config.deny_purge {
        return refuse("stream configuration update can not cancel deny purge");
    }
    if config.mirror.is_some() && config.mirror != old.mirror {
        return Err(ErrorId::StreamMirrorNotUpdatable.into());
    }
    if old.allow_msg_ttl && !config.allow_msg_ttl {
        return refuse("message TTL status can not be disabled");
    }
    if config.allow_msg_counter != old.allow_msg_counter {
        return refuse("stream configuration update can not change message counter setting");
    }
    if old.allow_msg_schedules && !config.allow_msg_schedules {
        return refuse("message schedules can not be disabled");
    }
    if old.persist_mode != config.persist_mode {
        return refuse("stream configuration update can not change persist mode");
    }
    if config.sealed {
        config.max_age.0 = 0;
        config.discard = Discard::New;
        config.deny_delete = true;
        config.deny_purge = true;
        config.allow_rollup_hdrs = false;
    }
    Ok(config)
}

fn check_name_and_texts(config: &StreamConfig) -> Result<(), ApiError> {
    if !is_valid_asset_name(&config.name) {
        return Err(ApiError::invalid_config(
            r"stream name is required and can not contain '.', '*', '>', '\', '/'",
        ));
    }
    if config.name.len() > NAME_BYTES_MAX {
        return Err(ApiError::invalid_config(format_args!(
            "stream name is too long, maximum allowed is {NAME_BYTES_MAX}"
        )));
    }
    if config.description.len() > DESCRIPTION_BYTES_MAX {
        return Err(ApiError::invalid_config(format_args!(
            "stream description is too long, maximum allowed is {DESCRIPTION_BYTES_MAX}"
        )));
    }
    let metadata_bytes: usize = config.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    if metadata_bytes > METADATA_BYTES_MAX {
        return Err(ApiError::invalid_config(format_args!(
            "stream metadata exceeds maximum size of {METADATA_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

fn set_numbers(config: &mut StreamConfig, pedantic: bool) -> Result<(), ApiError> {
    if config.num_replicas.0 == 0 {
        config.num_replicas.0 = 1;
    }
    if config.num_replicas.0 > REPLICAS_MAX {
        return Err(ApiError::invalid_config(format_args!("maximum replicas is {REPLICAS_MAX}")));
    }
    if config.num_replicas.0 < 0 {
        return Err(ErrorId::ReplicasCountCannotBeNegative.into());
    }
    let unlimited = |value: i64, name: &str| match value {
        ..-1 if pedantic => Err(ApiError::with(ErrorId::Pedantic, format_args!("{name} must be set to -1"))),
        ..=0 => Ok(-1),
        _ => Ok(value),
    };
    config.max_msgs = unlimited(config.max_msgs, "max_msgs")?;
    config.max_msgs_per_subject = unlimited(config.max_msgs_per_subject, "max_msgs_per_subject")?;
    config.max_bytes = unlimited(config.max_bytes, "max_bytes")?;
    config.max_msg_size = unlimited(config.max_msg_size.into(), "max_msg_size")? as i32;
    config.max_consumers.0 = unlimited(config.max_consumers.0, "max_consumers")?;
    Ok(())
}

fn set_times(config: &mut StreamConfig, server: &ServerLimits, pedantic: bool) -> Result<(), ApiError> {
    let refuse = |text: &str| Err(ApiError::invalid_config(text));
    let pedantry = |text: &str| Err(ApiError::with(ErrorId::Pedantic, text));
    let max_age = config.max_age.0;
    if max_age < 0 {
        return refuse("max age can not be negative");
    }
    if max_age != 0 && max_age < 100 * NS_PER_MS {
        return refuse("max age needs to be >= 100ms");
    }
    if config.duplicate_window.0 == 0 && config.mirror.is_none() && config.sources.is_empty() {
        let mut window = DUPLICATE_WINDOW_DEFAULT_NS;
        if server.duplicate_window_ns > 0 && window > server.duplicate_window_ns {
            if pedantic {
                return pedantry("duplicate window limits are higher than current limits");
            }
            window = server.duplicate_window_ns;
        }
        if max_age != 0 && max_age < window {
            if pedantic {
                return pedantry("duplicate window cannot be bigger than max age");
            }
            window = max_age;
        }
        config.duplicate_window.0 = window;
    }
    let window = config.duplicate_window.0;
    if window < 0 {
        return refuse("duplicates window can not be negative");
    }
    if max_age != 0 && window > max_age {
        return refuse("duplicates window can not be larger then max age");
    }
    if server.duplicate_window_ns > 0 && window > server.duplicate_window_ns {
        return Err(ApiError::invalid_config(format_args!(
            "duplicates window can not be larger then server limit of {}",
            duration_text(server.duplicate_window_ns)
        )));
    }
    if window > 0 && window < 100 * NS_PER_MS {
        return refuse("duplicates window needs to be >= 100ms");
    }
    Ok(())
}

fn check_features(config: &mut StreamConfig, pedantic: bool) -> Result<(), ApiError> {
    let refuse = |text: &str| Err(ApiError::invalid_config(text));
    if config.deny_purge && config.allow_rollup_hdrs {
        return refuse("roll-ups require the purge permission");
    }
    if config.allow_msg_counter {
        if config.discard == Discard::New {
            return refuse("counter stream cannot use discard new");
        }
        if config.allow_msg_ttl {
            return refuse("counter stream cannot use message TTLs");
        }
        if config.allow_msg_schedules {
            return refuse("counter stream cannot use message schedules");
        }
        if config.retention != Retention::Limits {
            return refuse("counter stream can only use limits retention");
        }
    }
    if config.discard_new_per_subject {
        if config.discard != Discard::New {
            return refuse("discard new per subject requires discard new policy to be set");
        }
        if config.max_msgs_per_subject <= 0 {
            return refuse("discard new per subject requires max msgs per subject > 0");
        }
    }
    let marker_ttl = config.subject_delete_marker_ttl.0;
    if marker_ttl > 0 {
        if marker_ttl < NS_PER_SECOND {
            return refuse("subject delete marker TTL must be at least 1 second");
        }
        if !config.allow_msg_ttl {
            if pedantic {
                return refuse("subject delete marker cannot be set if message TTLs are disabled");
            }
            config.allow_msg_ttl = true;
        }
        if !config.allow_rollup_hdrs {
            if pedantic {
                return refuse("subject delete marker cannot be set if roll-ups are disabled");
            }
            config.allow_rollup_hdrs = true;
            config.deny_purge = false;
        }
    } else if marker_ttl < 0 {
        return refuse("subject delete marker TTL must not be negative");
    }
    if config.allow_msg_schedules {
        if config.discard == Discard::New {
            return refuse("message scheduling cannot use discard new");
        }
        if !config.allow_rollup_hdrs {
            if pedantic {
                return refuse("message scheduling cannot be set if roll-ups are disabled");
            }
            config.allow_rollup_hdrs = true;
            config.deny_purge = false;
        }
    }
    if config.persist_mode == super::config::PersistMode::Async {
        if config.storage != Storage::File {
            return refuse("async persist mode is only supported on file storage");
        }
        if config.num_replicas.0 > 1 {
            return refuse("async persist mode is not supported on replicated streams");
        }
        if config.allow_atomic {
            return refuse("async persist mode is not supported with atomic batch publish");
        }
    }
    Ok(())
}

fn check_mirror(config: &mut StreamConfig, around: Surroundings<'_>, pedantic: bool) -> Result<(), ApiError> {
    let Some(mirror) = &config.mirror else { return Ok(()) };
    let refuse = |id: ErrorId| Err(ApiError::new(id));
    if config.first_seq > 0 {
        return refuse(ErrorId::MirrorWithFirstSeq);
    }
    if !config.subjects.is_empty() {
        return refuse(ErrorId::MirrorWithSubjects);
    }
    if !config.sources.is_empty() {
        return refuse(ErrorId::MirrorWithSources);
    }
    if config.allow_msg_counter {
        return refuse(ErrorId::MirrorWithCounters);
    }
    if config.allow_atomic {
        return refuse(ErrorId::MirrorWithAtomicPublish);
    }
    if config.allow_batched {
        return refuse(ErrorId::MirrorWithBatchPublish);
    }
    if config.allow_msg_schedules {
        return refuse(ErrorId::MirrorWithMsgSchedules);
    }
    if !is_consumer_right(mirror) {
        return refuse(ErrorId::MirrorDurableConsumerConfigInvalid);
    }
    if !mirror.filter_subject.is_empty() && !mirror.subject_transforms.is_empty() {
        return refuse(ErrorId::MirrorMultipleFiltersNotAllowed);
    }
    if config.subject_delete_marker_ttl.0 > 0 {
        return Err(ApiError::invalid_config("subject delete markers forbidden on mirrors"));
    }
    for (index, transform) in mirror.subject_transforms.iter().enumerate() {
        check_source_subject(&transform.src, ErrorId::MirrorInvalidSubjectFilter)?;
        validate_mapping(&transform.src, &transform.dest)
            .map_err(|error| ApiError::with(ErrorId::MirrorInvalidTransformDestination, error))?;
        let collides = |(other, inner): (usize, &SubjectTransform)| {
            other != index && collide(inner.src.as_bytes(), transform.src.as_bytes())
        };
        if mirror.subject_transforms.iter().enumerate().any(collides) {
            return refuse(ErrorId::MirrorOverlappingSubjectFilters);
        }
    }
    if mirror.external.is_some() {
        return Ok(());
    }
    if !is_valid_asset_name(&mirror.name) {
        return refuse(ErrorId::MirrorInvalidStreamName);
    }
    if let Some(origin) = around.neighbours.config(&mirror.name) {
        if config.max_msg_size > 0 && origin.max_msg_size > 0 && config.max_msg_size < origin.max_msg_size {
            return refuse(ErrorId::MirrorMaxMessageSizeTooBig);
        }
        if pedantic && config.mirror_direct != origin.allow_direct {
            return Err(ApiError::with(
                ErrorId::Pedantic,
                "origin stream has direct get set, mirror has it disabled",
            ));
        }
        config.mirror_direct = origin.allow_direct;
    }
    Ok(())
}

/// Whether the consumer that a mirror or source is to use is named in full, and nothing contradicts it.
fn is_consumer_right(source: &StreamSource) -> bool {
    let Some(consumer) = &source.consumer else { return true };
    is_valid_asset_name(&consumer.name)
        && is_valid_publish_subject(&consumer.deliver_subject)
        && source.opt_start_seq == 0
        && source.opt_start_time.is_none()
        && source.filter_subject.is_empty()
}

fn check_sources(config: &StreamConfig, around: Surroundings<'_>) -> Result<(), ApiError> {
    let refuse = |id: ErrorId| Err(ApiError::new(id));
    if !config.sources.is_empty() && config.allow_msg_schedules {
        return refuse(ErrorId::SourceWithMsgSchedules);
    }
    let mut origins = HashSet::new();
    let mut consumers = HashSet::new();
    for source in &config.sources {
        if !is_valid_asset_name(&source.name) {
            return refuse(ErrorId::SourceInvalidStreamName);
        }
        let api = source.external.as_ref().map(|external| external.api.as_str()).unwrap_or_default();
        let transforms: Vec<_> =
            source.subject_transforms.iter().map(|transform| (&transform.src, &transform.dest)).collect();
        if !origins.insert((&source.name, api, &source.filter_subject, transforms)) {
            return refuse(ErrorId::SourceDuplicateDetected);
        }
        if !source.filter_subject.is_empty() && !source.subject_transforms.is_empty() {
            return refuse(ErrorId::SourceMultipleFiltersNotAllowed);
        }
        for transform in &source.subject_transforms {
            check_source_subject(&transform.src, ErrorId::SourceInvalidSubjectFilter)?;
            validate_mapping(&transform.src, &transform.dest)
                .map_err(|error| ApiError::with(ErrorId::SourceInvalidTransformDestination, error))?;
        }
        for (index, outer) in source.subject_transforms.iter().enumerate() {
            let within = |(other, inner): (usize, &SubjectTransform)| {
                other != index && is_within(outer.src.as_bytes(), inner.src.as_bytes())
            };
            if source.subject_transforms.iter().enumerate().any(within) {
                return refuse(ErrorId::SourceOverlappingSubjectFilters);
            }
        }
        if !is_consumer_right(source) {
            return refuse(ErrorId::SourceDurableConsumerConfigInvalid);
        }
        if let Some(consumer) = &source.consumer
            && !consumers.insert((&source.name, api, &consumer.name))
        {
            return refuse(ErrorId::SourceDurableConsumerDuplicateDetected);
        }
        if source.external.is_none()
            && let Some(origin) = around.neighbours.config(&source.name)
            && config.max_msg_size > 0
            && origin.max_msg_size > 0
            && config.max_msg_size < origin.max_msg_size
        {
            return refuse(ErrorId::SourceMaxMessageSizeTooBig);
        }
    }
    Ok(())
}

/// Prefixes of other accounts and domains must not lead back here.
fn check_external(config: &StreamConfig, around: Surroundings<'_>) -> Result<(), ApiError> {
    let origins = || config.mirror.iter().chain(&config.sources);
    let seen: Vec<&String> = origins()
        .filter(|origin| origin.external.is_none())
        .filter_map(|origin| around.neighbours.config(&origin.name))
        .flat_map(|origin| &origin.subjects)
        .collect();
    for prefix in origins().filter_map(|origin| Some(&origin.external.as_ref()?.deliver)) {
        if prefix.is_empty() {
            continue;
        }
        if !is_valid_publish_subject(prefix) {
            return Err(ApiError::with(ErrorId::StreamInvalidExternalDeliverySubj, prefix));
        }
        for subject in &seen {
            if collide(subject.as_bytes(), format!("{prefix}.{subject}").as_bytes()) {
                return Err(ApiError::with_two(ErrorId::StreamExternalDelPrefixOverlaps, prefix, subject));
            }
        }
    }
    for prefix in origins().filter_map(|origin| Some(&origin.external.as_ref()?.api)) {
        if prefix.is_empty() {
            continue;
        }
        if !is_valid_publish_subject(prefix) {
            return Err(ApiError::invalid_config(format_args!(
                "stream external api prefix {} must be a valid subject without wildcards",
                go_quoted(prefix)
            )));
        }
        if prefix == API_PREFIX {
            return Err(ApiError::with_two(ErrorId::StreamExternalApiOverlap, prefix, API_PREFIX));
        }
    }
    Ok(())
}

/// Streams that copy from each other in a circle would fill up.
fn check_cycles(config: &StreamConfig, around: Surroundings<'_>) -> Result<(), ApiError> {
    let mut to_visit = vec![config];
    let mut visited = HashSet::new();
    while let Some(config) = to_visit.pop() {
        visited.insert(&config.name);
        for source in config.sources.iter().filter(|source| source.external.is_none()) {
            if visited.contains(&source.name) {
                let filter = source.filter_subject.as_bytes();
                if filter.is_empty()
                    || config.subjects.iter().any(|subject| collide(subject.as_bytes(), filter))
                {
                    return Err(ApiError::invalid_config("detected cycle"));
                }
            } else {
                to_visit.extend(around.neighbours.config(&source.name));
            }
        }
        if let Some(mirror) = config.mirror.as_ref().filter(|mirror| mirror.external.is_none()) {
            if visited.contains(&mirror.name) {
                return Err(ApiError::invalid_config("detected cycle"));
            }
            to_visit.extend(around.neighbours.config(&mirror.name));
        }
    }
    Ok(())
}

fn check_subjects(config: &mut StreamConfig) -> Result<(), ApiError> {
    let refuse = |text: &str| Err(ApiError::invalid_config(text));
    if config.subjects.is_empty() {
        if config.mirror.is_none() && config.sources.is_empty() {
            config.subjects.push(config.name.clone());
        }
        return Ok(());
    }
    for (index, subject) in config.subjects.iter().enumerate() {
        let bytes = subject.as_bytes();
        if !is_valid_subject(bytes) {
            return refuse("invalid subject");
        }
        if config.subjects[..index].contains(subject) {
            return refuse("duplicate subjects detected");
        }
        if subject == ">" {
            if !config.no_ack {
                return refuse("capturing all subjects requires no-ack to be true");
            }
            if config.num_replicas.0 != 1 {
                return refuse("capturing all subjects requires replicas of 1");
            }
        }
        if !config.no_ack {
            for namespace in ["$JS.>", "$JSC.>", "$NRG.>"] {
                if collide(bytes, namespace.as_bytes()) && !is_within(bytes, b"$JS.EVENT.>") {
                    return refuse("subjects that overlap with jetstream api require no-ack to be true");
                }
            }
            if collide(bytes, b"$SYS.>") && !is_within(bytes, b"$SYS.ACCOUNT.>") {
                return refuse("subjects that overlap with system api require no-ack to be true");
            }
        }
        for other in &config.subjects[index + 1..] {
            // The same subject once more is told as a duplicate when its turn comes; the reference finds the overlap first.
            if collide(other.as_bytes(), bytes) {
                return Err(ApiError::invalid_config(format_args!(
                    "subject {} overlaps with {}",
                    go_quoted(subject),
                    go_quoted(other)
                )));
            }
        }
    }
    Ok(())
}

fn check_max_bytes(config: &StreamConfig, account: &AccountLimits) -> Result<(), ApiError> {
    let limit = match config.storage {
        Storage::File => account.storage_max_stream_bytes,
        Storage::Memory => account.memory_max_stream_bytes,
    };
    if account.max_bytes_required && config.max_bytes <= 0 {
        return Err(ErrorId::StreamMaxBytesRequired.into());
    }
    if limit > 0 && config.max_bytes > limit {
        return Err(ErrorId::StreamMaxStreamBytesExceeded.into());
    }
    Ok(())
}

fn check_transforms(config: &mut StreamConfig, pedantic: bool) -> Result<(), ApiError> {
    if let Some(transform) = &config.subject_transform {
        check_source_subject(&transform.src, ErrorId::StreamTransformInvalidSource)?;
        validate_mapping(&transform.src, &transform.dest)
            .map_err(|error| ApiError::with(ErrorId::StreamTransformInvalidDestination, error))?;
    }
    let Some(republish) = &mut config.republish else { return Ok(()) };
    if republish.src.is_empty() {
        if pedantic {
            return Err(ApiError::with(ErrorId::Pedantic, "republish source can not be empty"));
        }
        republish.src = ">".to_owned();
    }
    // From everything to everything is a circle, unless what is stored has other subjects than what is published.
    if republish.src == ">"
        && republish.dest == ">"
        && let Some(transform) = &config.subject_transform
        && config.subjects.len() == 1
        && transform.src == config.subjects[0]
    {
        if pedantic {
            return Err(ApiError::with(ErrorId::Pedantic, "implicit republish based on subject transform"));
        }
        republish.src.clone_from(&transform.dest);
        republish.dest.clone_from(&transform.dest);
    }
    if config.subjects.iter().any(|subject| collide(republish.dest.as_bytes(), subject.as_bytes())) {
        return Err(ApiError::invalid_config("stream configuration for republish destination forms a cycle"));
    }
    if let Err(_error) = transform(&republish.src, &republish.dest) {
        return Err(ApiError::invalid_config(format_args!(
            "stream configuration for republish with transform from '{}' to '{}' not valid",
            republish.src, republish.dest
        )));
    }
    Ok(())
}

fn check_source_subject(subject: &str, id: ErrorId) -> Result<(), ApiError> {
    if subject.is_empty() || is_valid_subject(subject.as_bytes()) {
        return Ok(());
    }
    Err(ApiError::with(id, format_args!("invalid subject {subject}")))
}

fn validate_mapping(source: &str, destination: &str) -> Result<(), TransformError> {
    if destination.is_empty() {
        return Ok(());
    }
    check_destination(destination)?;
    transform(source, destination).map(|_| ())
}

/// The transform of a configuration: nothing as the source means everything, nothing as the destination no transform at all.
///
/// # Errors
///
/// The two do not go together.
pub fn transform(source: &str, destination: &str) -> Result<Option<Transform>, TransformError> {
    if destination.is_empty() {
        return Ok(None);
    }
    Transform::new(if source.is_empty() { ">" } else { source }, destination).map(Some)
}

/// Whether something can be published to this subject and reach somebody.
pub fn is_valid_publish_subject(subject: &str) -> bool {
    is_valid_subject(subject.as_bytes()) && !has_wildcard(subject.as_bytes())
}

/// Whether a configuration asks for something that this server does not do yet, and what.
pub fn not_supported_yet(config: &StreamConfig) -> Option<&'static str> {
    let missing = [(config.compression == Compression::S2, "compression")];
    missing.into_iter().find_map(|(asked, what)| asked.then_some(what))
}
