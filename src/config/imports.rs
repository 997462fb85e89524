//! `exports`, `imports` and `mappings` of accounts: what they may say, who may import what, and that nothing goes in
//! circles. The rules and the texts are those of nats-server 2.15.1.
//!
//! What an entry says is read while its account is. Whether it goes together with the others is known only when all
//! accounts are there, and is looked at only when nothing else is wrong, as in the reference.

use std::collections::{HashMap, HashSet};

use super::decode::{Decoder, Outcome, boolean, in_order, integer, map, shown, string, unknown};
use super::duration::parse_duration_ns;
use super::error::Problem;
use super::lang::{Map, Node, Value};
use super::options::{Account, Options};
use crate::subject::import::{
    Latency, ResponseType, ServiceImport as ServiceLink, ServiceTerms, StreamImport as StreamLink,
};
use crate::subject::mapping::{Destination, Mapping, MappingError, Mappings, is_subset};
use crate::subject::name::{collide, has_wildcard, is_valid_subject};
use crate::subject::transform::{TransformError, without_placeholders};

/// Who may import something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The accounts that may; empty: all, unless there is a token.
    pub accounts: Vec<String>,
    /// `account_token_position`: which token of the subject, from 1, has to be the importer's name. 0: none.
    pub token_position: usize,
}

/// An entry of `exports` that is a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamExport {
    /// The subject.
    pub subject: String,
    /// Who may import it.
    pub access: Access,
}

/// An entry of `exports` that is a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceExport {
    /// The subject.
    pub subject: String,
    /// Who may import it.
    pub access: Access,
    /// `response_type`.
    pub response: ResponseType,
    /// `response_threshold` in nanoseconds; 0: the default.
    pub threshold_ns: i64,
    /// `latency`.
    pub latency: Option<Latency>,
    /// `allow_trace`.
    pub allow_trace: bool,
}

/// An entry of `imports` that is a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamImport {
    /// The account that it comes from.
    pub account: String,
    /// The subject there.
    pub subject: String,
    /// The subject here, with the prefix.
    pub to: String,
    /// `allow_trace`.
    pub allow_trace: bool,
}

/// An entry of `imports` that is a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceImport {
    /// The account that answers.
    pub account: String,
    /// The subject there.
    pub subject: String,
    /// The subject here.
    pub to: String,
    /// `share`.
    pub share: bool,
}

/// What an account shares with others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sharing {
    /// `exports`, each subject once.
    pub stream_exports: Vec<StreamExport>,
    /// `exports`, each subject once.
    pub service_exports: Vec<ServiceExport>,
    /// `imports`.
    pub stream_imports: Vec<StreamImport>,
    /// `imports`.
    pub service_imports: Vec<ServiceImport>,
}

/// How long an answer is waited for where nothing else is said.
const THRESHOLD_MS_DEFAULT: u64 = 120_000;

impl Sharing {
    /// The export that answers requests to `subject`: the one of this very subject, or the first that covers it.
    pub fn service_export(&self, subject: &str) -> Option<&ServiceExport> {
        let exports = &self.service_exports;
        let covers = |export: &&ServiceExport| is_subset(subject.as_bytes(), export.subject.as_bytes());
        exports.iter().find(|export| export.subject == subject).or_else(|| exports.iter().find(covers))
    }
}

impl ServiceExport {
    /// How long an answer is waited for.
    pub fn threshold_ms(&self) -> u64 {
        match self.threshold_ns {
            0 => THRESHOLD_MS_DEFAULT,
            ns => (u64::try_from(ns).unwrap_or_default() / 1_000_000).max(1),
        }
    }
}

/// What can be wrong with exports, imports and mappings. The texts are the reference's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the display of each is its documentation")]
pub enum ImportError {
    #[error("{list} should be an array, got {found}")]
    NotAnArray { list: &'static str, found: &'static str },
    #[error("{list} Items should be a map with type entry, got {found}")]
    NotAMap { list: &'static str, found: &'static str },
    #[error("Detected stream {0:?} but already saw a service")]
    StreamAfterService(String),
    #[error("Detected service {0:?} but already saw a stream")]
    ServiceAfterStream(String),
    #[error("Detected {0} directive on non-service")]
    OnNonService(&'static str),
    #[error("Expected {what} name to be string, got {found}")]
    Name { what: &'static str, found: &'static str },
    #[error("Duplicate response type definition")]
    DuplicateResponse,
    #[error("Expected response type to be string, got {0}")]
    ResponseKind(&'static str),
    #[error("Unknown response type: {0:?}")]
    UnknownResponse(String),
    #[error("Duplicate response threshold detected")]
    DuplicateThreshold,
    #[error("Expected response threshold to be a parseable time duration, got {0}")]
    Threshold(String),
    #[error("Expected latency entry to be a map/struct or string, got {0}")]
    Latency(&'static str),
    #[error("Failed to parse latency sample: strconv.Atoi: parsing {0:?}: invalid syntax")]
    SampleText(String),
    #[error("Expected latency sample to be a string or map/struct, got {0}")]
    SampleType(&'static str),
    #[error("bad sampling percentage, should be 1-100")]
    Sampling,
    #[error("Latency subject required, but missing")]
    LatencySubjectMissing,
    #[error("Expected latency subject to be a string, got string")]
    LatencySubjectType,
    #[error("Detected stream but already saw a service")]
    ImportStreamAfterService,
    #[error("Detected service but already saw a stream")]
    ImportServiceAfterStream,
    #[error("Detected allow_trace directive on a non-stream")]
    TraceOnNonStream,
    #[error("{what} entry should be an account map, got {found}")]
    AccountMap { what: &'static str, found: &'static str },
    #[error("Expect an account name and a subject")]
    AccountAndSubject,
    #[error("Stream import can not have a 'prefix' and a 'to' property")]
    PrefixAndTo,
    #[error(
        "Duplicate service import subject {to:?}, previously used in import for account {account:?}, subject {subject:?}"
    )]
    DuplicateService { to: String, account: String, subject: String },
    #[error("{account:?} account not defined for {what}")]
    AccountUnknown { account: String, what: &'static str },
    #[error("Error adding {what} {subject:?}: {reason}")]
    Adding { what: &'static str, subject: String, reason: String },
    #[error("Error adding service latency sampling for {service:?} on subject {subject:?}: {reason}")]
    Tracking { service: String, subject: String, reason: &'static str },
    #[error("Subject {0:?} is not a valid subject")]
    MappedSubject(String),
    #[error("Expected an entry for the mapping destination")]
    Destination,
    #[error("Invalid weight {0} for mapping destination")]
    Weight(String),
    #[error("Unknown entry type for weight of {0}\n")]
    WeightType(String),
    #[error("Unknown field {0:?} for mapping destination")]
    DestinationField(String),
    #[error("Missing weight for mapping destination {0:?}")]
    WeightMissing(String),
    #[error("Error adding mapping for {subject:?} to {to:?} : {reason}")]
    AddingMapping { subject: String, to: String, reason: MappingError },
    #[error("Error adding mapping for {subject:?} : {reason}")]
    AddingMappings { subject: String, reason: MappingError },
}

/// The longest chain of accounts that is followed when looking for circles.
const CYCLE_SEARCH_DEPTH_MAX: usize = 1024;

/// The most imports of one sort that lead out of one account: targets in its index name them by 16 bits.
pub const IMPORTS_MAX: usize = u16::MAX as usize - 1;

/// What an account's entries say, before they are held against those of the others.
#[derive(Debug, Default)]
pub(super) struct Entries {
    stream_exports: Vec<StreamExport>,
    service_exports: Vec<ServiceExport>,
    stream_imports: Vec<(StreamImport, Option<String>)>,
    service_imports: Vec<ServiceImport>,
}

enum Export {
    Stream(StreamExport),
    Service(ServiceExport),
}

impl Decoder {
    pub(super) fn exports(&mut self, node: &Node, entries: &mut Entries) -> Outcome {
        for item in items(node, "Exports")? {
            let result = self.export(item).map(|export| match export {
                Some(Export::Stream(export)) => entries.stream_exports.push(export),
                Some(Export::Service(export)) => entries.service_exports.push(export),
                None => {}
            });
            self.note(&item.at, result);
        }
        Ok(())
    }

    /// One export. Its parts may come in any order.
    fn export(&mut self, node: &Node) -> Outcome<Option<Export>> {
        let Value::Map(item) = &node.value else {
            return Err(ImportError::NotAMap { list: "Export", found: node.value.type_name() }.into());
        };
        let mut kind = None::<Export>;
        let mut accounts = Vec::new();
        let (mut response, mut response_at) = (None, None);
        let (mut threshold, mut latency, mut latency_at) = (None, None, None);
        let (mut allow_trace, mut trace_at, mut token_position) = (false, None, 0);
        for (name, entry) in in_order(item) {
            let at = entry.at.clone();
            let is_stream = matches!(kind, Some(Export::Stream(_)));
            let mut problem = None;
            match name.to_lowercase().as_str() {
                "stream" => {
                    if matches!(kind, Some(Export::Service(_))) {
                        problem = Some((at, ImportError::StreamAfterService(shown(&entry.value))));
                    } else if let Some(at) = response_at.clone() {
                        problem = Some((at, ImportError::OnNonService("response")));
                    } else if let Some(at) = latency_at.clone() {
                        problem = Some((at, ImportError::OnNonService("latency")));
                    } else if let Some(at) = trace_at.clone() {
                        problem = Some((at, ImportError::OnNonService("allow_trace")));
                    } else {
                        match string(entry) {
                            Ok(subject) => {
                                let subject = subject.to_owned();
                                kind =
                                    Some(Export::Stream(StreamExport { subject, ..StreamExport::default() }));
                            }
                            Err(_) => {
                                let found = entry.value.type_name();
                                problem = Some((at, ImportError::Name { what: "stream", found }));
                            }
                        }
                    }
                }
                "service" => {
                    if is_stream {
                        problem = Some((at, ImportError::ServiceAfterStream(shown(&entry.value))));
                    } else {
                        match string(entry) {
                            Ok(subject) => {
                                let subject = subject.to_owned();
                                kind = Some(Export::Service(ServiceExport {
                                    subject,
                                    ..ServiceExport::default()
                                }));
                            }
                            Err(_) => {
                                let found = entry.value.type_name();
                                problem = Some((at, ImportError::Name { what: "service", found }));
                            }
                        }
                    }
                }
                "response" | "response_type" => {
                    if response_at.is_some() {
                        problem = Some((at, ImportError::DuplicateResponse));
                    } else {
                        response_at = Some(at.clone());
                        match response_type(entry) {
                            Ok(read) => {
                                response = Some(read);
                                if is_stream {
                                    problem = Some((at, ImportError::OnNonService("response")));
                                }
                            }
                            Err(error) => problem = Some((at, error)),
                        }
                    }
                }
                "threshold" | "response_threshold" | "response_max_time" | "response_time" => {
                    if threshold.is_some() {
                        problem = Some((at, ImportError::DuplicateThreshold));
                    } else {
                        threshold = Some(0);
                        match threshold_ns(entry) {
                            Ok(read) => {
                                threshold = Some(read);
                                if is_stream {
                                    problem = Some((at, ImportError::OnNonService("response")));
                                }
                            }
                            Err(error) => problem = Some((at, error)),
                        }
                    }
                }
                "accounts" => {
                    let Value::Array(names) = &entry.value else {
                        let wrong = super::decode::wrong_type(entry, "[]interface {}");
                        self.note(&entry.at, Err(wrong));
                        return Ok(None);
                    };
                    for entry in names {
                        match string(entry) {
                            Ok(name) => accounts.push(name.to_owned()),
                            Err(wrong) => {
                                self.note(&entry.at, Err(wrong));
                                return Ok(None);
                            }
                        }
                    }
                }
                "latency" => {
                    latency_at = Some(at.clone());
                    match latency_of(entry) {
                        Ok(_) if is_stream => problem = Some((at, ImportError::OnNonService("latency"))),
                        Ok(read) => latency = Some(read),
                        Err((wrong_at, wrong)) => self.note(&wrong_at, Err(wrong)),
                    }
                }
                "account_token_position" => match integer(entry) {
                    // As in Go, a negative one is a very large one.
                    Ok(position) => token_position = position as usize,
                    Err(wrong) => {
                        self.note(&entry.at, Err(wrong));
                        return Ok(None);
                    }
                },
                "allow_trace" => {
                    trace_at = Some(at.clone());
                    match boolean(entry) {
                        Ok(_) if is_stream => problem = Some((at, ImportError::OnNonService("allow_trace"))),
                        Ok(read) => allow_trace = read,
                        Err(wrong) => {
                            self.note(&entry.at, Err(wrong));
                            return Ok(None);
                        }
                    }
                }
                _ => {
                    let result = unknown(name, entry);
                    self.note(&entry.at, result);
                }
            }
            if let Some((at, error)) = problem {
                self.note(&at, Err(error.into()));
            }
        }
        let access = Access { accounts, token_position };
        match &mut kind {
            Some(Export::Stream(export)) => export.access = access,
            Some(Export::Service(export)) => {
                export.access = access;
                export.response = response.unwrap_or_default();
                export.threshold_ns = threshold.unwrap_or_default();
                (export.latency, export.allow_trace) = (latency, allow_trace);
            }
            None => {}
        }
        Ok(kind)
    }

    pub(super) fn imports(&mut self, node: &Node, entries: &mut Entries) -> Outcome {
        for item in items(node, "Imports")? {
            let result = self.import(item, entries);
            self.note(&item.at, result);
        }
        Ok(())
    }

    fn import(&mut self, node: &Node, entries: &mut Entries) -> Outcome {
        let Value::Map(item) = &node.value else {
            return Err(ImportError::NotAMap { list: "Import", found: node.value.type_name() }.into());
        };
        let (mut stream, mut service) = (None::<(String, String)>, None::<(String, String)>);
        let (mut prefix, mut to) = (String::new(), String::new());
        let (mut share, mut allow_trace, mut trace_at) = (false, false, None);
        for (name, entry) in in_order(item) {
            let at = entry.at.clone();
            let mut problem = None;
            let lower = name.to_lowercase();
            let wrong = match lower.as_str() {
                "stream" if service.is_some() => {
                    problem = Some((at, ImportError::ImportStreamAfterService));
                    Ok(())
                }
                "service" if stream.is_some() => {
                    problem = Some((at, ImportError::ImportServiceAfterStream));
                    Ok(())
                }
                "service" if trace_at.is_some() => {
                    problem = Some((trace_at.clone().unwrap_or(at), ImportError::TraceOnNonStream));
                    Ok(())
                }
                "stream" | "service" => {
                    match self
                        .account_and_subject(entry, if lower == "stream" { "Stream" } else { "Service" })
                    {
                        Ok(read) if lower == "stream" => stream = Some(read),
                        Ok(read) => service = Some(read),
                        Err(problem) => self.note(&at, Err(problem)),
                    }
                    Ok(())
                }
                "prefix" => string(entry).map(|text| prefix = text.to_owned()),
                "to" => string(entry).map(|text| {
                    to = text.to_owned();
                    if stream.is_some() && !prefix.is_empty() {
                        problem = Some((at, ImportError::PrefixAndTo));
                    }
                }),
                "share" => boolean(entry).map(|truth| share = truth),
                "allow_trace" if service.is_some() => {
                    problem = Some((at, ImportError::TraceOnNonStream));
                    Ok(())
                }
                "allow_trace" => boolean(entry).map(|truth| {
                    allow_trace = truth;
                    trace_at = Some(at);
                }),
                _ => unknown(name, entry),
            };
            if let Some((at, error)) = problem {
                self.note(&at, Err(error.into()));
            }
            if let Err(problem) = wrong {
                let ends = matches!(problem, Problem::WrongType { .. });
                self.note(&entry.at, Err(problem));
                if ends {
                    return Ok(());
                }
            }
        }
        if let Some((account, subject)) = service {
            let to = if to.is_empty() { subject.clone() } else { to.clone() };
            let known = entries.service_imports.iter();
            if let Some(known) = { known }.find(|known| known.to == to && known.account == account) {
                let (account, subject) = (known.account.clone(), known.subject.clone());
                return Err(ImportError::DuplicateService { to, account, subject }.into());
            }
            entries.service_imports.push(ServiceImport { account, subject, to, share });
        }
        if let Some((account, subject)) = stream {
            let prefix = (!prefix.is_empty()).then_some(prefix);
            entries.stream_imports.push((StreamImport { account, subject, to, allow_trace }, prefix));
        }
        Ok(())
    }

    fn account_and_subject(&mut self, node: &Node, what: &'static str) -> Outcome<(String, String)> {
        let Value::Map(fields) = &node.value else {
            return Err(ImportError::AccountMap { what, found: node.value.type_name() }.into());
        };
        let (mut account, mut subject) = (String::new(), String::new());
        for (name, entry) in in_order(fields) {
            let result = match name.to_lowercase().as_str() {
                "account" => string(entry).map(|text| account = text.to_owned()),
                "subject" => string(entry).map(|text| subject = text.to_owned()),
                _ => unknown(name, entry),
            };
            self.note(&entry.at, result);
        }
        if account.is_empty() || subject.is_empty() {
            return Err(ImportError::AccountAndSubject.into());
        }
        Ok((account, subject))
    }

    /// `mappings`: a map of subjects.
    pub(super) fn mappings(&mut self, node: &Node) -> Outcome<Mappings> {
        let mut mappings = Mappings::default();
        for (subject, entry) in in_order(map(node)?) {
            if !is_valid_subject(subject.as_bytes()) {
                self.note(&node.at, Err(ImportError::MappedSubject(subject.clone()).into()));
                continue;
            }
            match &entry.value {
                Value::String(to) => {
                    let only = Destination { subject: to.clone(), weight: 100, cluster: String::new() };
                    match Mapping::new(subject, vec![only]) {
                        Ok(mapping) => mappings.add(mapping),
                        Err(reason) => {
                            let (subject, to) = (subject.clone(), to.clone());
                            let error = ImportError::AddingMapping { subject, to, reason };
                            self.note(&entry.at, Err(error.into()));
                        }
                    }
                }
                value => {
                    let one = [entry.clone()];
                    let (nodes, is_one) = match value {
                        Value::Array(nodes) => (&nodes[..], false),
                        _ => (&one[..], true),
                    };
                    let mut destinations = Vec::new();
                    for node in nodes {
                        match destination(node) {
                            Ok(destination) => destinations.push(destination),
                            Err((at, problem)) => {
                                let ends = matches!(problem, Problem::WrongType { .. });
                                self.note(&at, Err(problem));
                                if ends {
                                    return Ok(mappings);
                                }
                            }
                        }
                    }
                    if is_one && destinations.is_empty() {
                        continue;
                    }
                    match Mapping::new(subject, destinations) {
                        Ok(mapping) => mappings.add(mapping),
                        Err(reason) => {
                            let subject = subject.clone();
                            let error = ImportError::AddingMappings { subject, reason };
                            self.note(&entry.at, Err(error.into()));
                        }
                    }
                }
            }
        }
        Ok(mappings)
    }

    /// Holds the entries of all accounts, in their order, against each other.
    pub(super) fn share(&mut self, node: &Node, all: Vec<Entries>) {
        if !self.problems.is_empty() {
            return;
        }
        let mut circle = Circle::of(&mut self.options, all);
        circle.add_all();
        for problem in circle.problems {
            self.note(&node.at, Err(problem.into()));
        }
    }
}

fn items<'a>(node: &'a Node, list: &'static str) -> Outcome<&'a [Node]> {
    match &node.value {
        Value::Array(items) => Ok(items),
        other => Err(ImportError::NotAnArray { list, found: other.type_name() }.into()),
    }
}

fn response_type(node: &Node) -> Result<ResponseType, ImportError> {
    let Value::String(text) = &node.value else {
        return Err(ImportError::ResponseKind(node.value.type_name()));
    };
    match text.to_lowercase().as_str() {
        "single" | "singleton" => Ok(ResponseType::Singleton),
        "stream" => Ok(ResponseType::Stream),
        "chunk" | "chunked" => Ok(ResponseType::Chunked),
        _ => Err(ImportError::UnknownResponse(text.clone())),
    }
}

fn threshold_ns(node: &Node) -> Result<i64, ImportError> {
    match &node.value {
        Value::String(text) => {
            parse_duration_ns(text).map_err(|_| ImportError::Threshold(format!("{text:?}")))
        }
        other => Err(ImportError::Threshold(other.type_name().to_owned())),
    }
}

/// Samples of all requests where nothing else is said.
const SAMPLING_DEFAULT: u8 = 100;

fn latency_of(node: &Node) -> Result<Latency, (super::lang::Position, Problem)> {
    let here = |error: ImportError| (node.at.clone(), error.into());
    let fields: &Map = match &node.value {
        Value::String(subject) => {
            return Ok(Latency { sampling: SAMPLING_DEFAULT, subject: subject.clone() });
        }
        Value::Map(fields) => fields,
        other => return Err(here(ImportError::Latency(other.type_name()))),
    };
    let mut sampling = i64::from(SAMPLING_DEFAULT);
    if let Some(entry) = fields.get("sampling") {
        let there = |error: ImportError| (entry.at.clone(), error.into());
        let mut by_headers = false;
        match &entry.value {
            Value::Integer(number) => sampling = *number,
            Value::String(text) if text.trim().eq_ignore_ascii_case("headers") => {
                (by_headers, sampling) = (true, 0)
            }
            Value::String(text) => {
                let digits = text.strip_suffix('%').unwrap_or(text);
                sampling = digits.parse().map_err(|_| there(ImportError::SampleText(digits.to_owned())))?;
            }
            other => return Err(there(ImportError::SampleType(other.type_name()))),
        }
        if !by_headers && !(1..=100).contains(&sampling) {
            return Err(there(ImportError::Sampling));
        }
    }
    let Some(entry) = fields.get("subject") else { return Err(here(ImportError::LatencySubjectMissing)) };
    let Value::String(subject) = &entry.value else {
        return Err((entry.at.clone(), ImportError::LatencySubjectType.into()));
    };
    Ok(Latency { sampling: sampling as u8, subject: subject.clone() })
}

fn destination(node: &Node) -> Result<Destination, (super::lang::Position, Problem)> {
    let Value::Map(fields) = &node.value else {
        return Err((node.at.clone(), ImportError::Destination.into()));
    };
    let (mut subject, mut weight, mut cluster) = (String::new(), None, String::new());
    for (name, entry) in in_order(fields) {
        let read = match name.to_lowercase().as_str() {
            "dest" | "destination" => string(entry).map(|text| subject = text.to_owned()),
            "cluster" => string(entry).map(|text| cluster = text.to_owned()),
            "weight" => weight_of(entry).map(|read| weight = Some(read)).map_err(Problem::from),
            _ => Err(ImportError::DestinationField(name.clone()).into()),
        };
        read.map_err(|problem| match problem {
            // The reference knows no better place for these.
            Problem::WrongType { .. } => (node.at.clone(), problem),
            _ => (entry.at.clone(), problem),
        })?;
    }
    match weight {
        Some(weight) => Ok(Destination { subject, weight, cluster }),
        None => Err((node.at.clone(), ImportError::WeightMissing(subject).into())),
    }
}

fn weight_of(node: &Node) -> Result<u8, ImportError> {
    let number = match &node.value {
        Value::Integer(number) => *number,
        Value::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or(text);
            digits.parse().map_err(|_| ImportError::Weight(format!("{digits:?}")))?
        }
        other => return Err(ImportError::WeightType(shown(other))),
    };
    if (0..=100).contains(&number) { Ok(number as u8) } else { Err(ImportError::Weight(number.to_string())) }
}

/// Accounts while their entries are held against each other.
struct Circle<'a> {
    accounts: &'a mut [Account],
    by_name: HashMap<String, usize>,
    entries: Vec<Entries>,
    has_no_system_account: bool,
    problems: Vec<ImportError>,
}

impl Circle<'_> {
    fn of(options: &mut Options, entries: Vec<Entries>) -> Circle<'_> {
        let accounts = &mut options.accounts[..];
        let by_name = accounts.iter().enumerate().map(|(at, account)| (account.name.clone(), at)).collect();
        Circle {
            accounts,
            by_name,
            entries,
            has_no_system_account: options.no_system_account,
            problems: Vec::new(),
        }
    }

    fn add_all(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        for (at, entries) in entries.iter().enumerate() {
            for export in &entries.stream_exports {
                self.add_stream_export(at, export);
            }
        }
        for (at, entries) in entries.iter().enumerate() {
            for export in &entries.service_exports {
                self.add_service_export(at, export);
            }
        }
        for (at, entries) in entries.iter().enumerate() {
            for (import, prefix) in &entries.stream_imports {
                let account = import.account.clone();
                let Some(exporter) = self.by_name.get(&account).copied() else {
                    self.problems.push(ImportError::AccountUnknown { account, what: "stream import" });
                    continue;
                };
                if let Err(reason) = self.add_stream_import(at, exporter, import, prefix.as_deref()) {
                    let subject = import.subject.clone();
                    self.problems.push(ImportError::Adding { what: "stream import", subject, reason });
                }
            }
        }
        for (at, entries) in entries.iter().enumerate() {
            for import in &entries.service_imports {
                let account = import.account.clone();
                let Some(exporter) = self.by_name.get(&account).copied() else {
                    self.problems.push(ImportError::AccountUnknown { account, what: "service import" });
                    continue;
                };
                if let Err(reason) = self.add_service_import(at, exporter, import) {
                    let subject = import.subject.clone();
                    self.problems.push(ImportError::Adding { what: "service import", subject, reason });
                }
            }
        }
    }

    /// The accounts of a list that there are; the others are noted.
    fn known(&mut self, access: &Access, what: &'static str) -> Access {
        let mut accounts = Vec::new();
        for account in &access.accounts {
            if self.by_name.contains_key(account) {
                accounts.push(account.clone());
            } else {
                self.problems.push(ImportError::AccountUnknown { account: account.clone(), what });
            }
        }
        Access { accounts, token_position: access.token_position }
    }

    fn add_stream_export(&mut self, at: usize, export: &StreamExport) {
        let access = self.known(&export.access, "stream export");
        let subject = export.subject.clone();
        if !has_token(&subject, access.token_position) {
            let reason = INVALID_SUBJECT.to_owned();
            return self.problems.push(ImportError::Adding { what: "stream export", subject, reason });
        }
        let exports = &mut self.accounts[at].sharing.stream_exports;
        match exports.iter_mut().find(|known| known.subject == subject) {
            Some(known) => known.access.merge(access),
            None => exports.push(StreamExport { subject, access }),
        }
    }

    fn add_service_export(&mut self, at: usize, export: &ServiceExport) {
        let access = self.known(&export.access, "service export");
        let subject = export.subject.clone();
        if !has_token(&subject, access.token_position) {
            let reason = INVALID_SUBJECT.to_owned();
            return self.problems.push(ImportError::Adding { what: "service export", subject, reason });
        }
        let exports = &mut self.accounts[at].sharing.service_exports;
        let place = match exports.iter().position(|known| known.subject == subject) {
            Some(place) => place,
            None => {
                exports.push(ServiceExport { subject: subject.clone(), ..ServiceExport::default() });
                exports.len() - 1
            }
        };
        let known = &mut exports[place];
        known.access.merge(access);
        if export.response != ResponseType::Singleton {
            known.response = export.response;
        }
        known.threshold_ns = export.threshold_ns;
        known.allow_trace |= export.allow_trace;
        let Some(latency) = &export.latency else { return };
        let sampled = known.response == ResponseType::Singleton;
        if self.has_no_system_account {
            let reason = "system account not setup".to_owned();
            let what = "service latency sampling for";
            return self.problems.push(ImportError::Adding { what, subject, reason });
        }
        let exports = &self.accounts[at].sharing.service_exports;
        let loops =
            exports.iter().any(|export| is_subset(latency.subject.as_bytes(), export.subject.as_bytes()));
        let results = latency.subject.as_bytes();
        let reason = if !is_valid_subject(results) || has_wildcard(results) || loops {
            Some("invalid publish subject")
        } else if !sampled {
            Some("bad service response type")
        } else {
            None
        };
        match reason {
            Some(reason) => {
                let (service, subject) = (subject, latency.subject.clone());
                self.problems.push(ImportError::Tracking { service, subject, reason });
            }
            None => self.accounts[at].sharing.service_exports[place].latency = Some(latency.clone()),
        }
    }

    fn add_stream_import(
        &mut self,
        at: usize,
        exporter: usize,
        import: &StreamImport,
        prefix: Option<&str>,
    ) -> Result<(), String> {
        let from = &import.subject;
        let exports = &self.accounts[exporter].sharing.stream_exports;
        let grants = exports.iter().map(|export| (export.subject.as_str(), &export.access));
        if !is_granted(grants, from, &self.accounts[at].name) {
            return Err("stream import not authorized".to_owned());
        }
        let to = match prefix {
            Some(prefix) if has_wildcard(prefix.as_bytes()) => {
                return Err("stream import prefix can not contain wildcard tokens".to_owned());
            }
            Some(prefix) => {
                let dot = if prefix.ends_with('.') { "" } else { "." };
                format!("{prefix}{dot}{from}")
            }
            None if import.to.is_empty() => from.clone(),
            None => import.to.clone(),
        };
        for subject in [&to, from] {
            let mut visited = HashSet::from([at]);
            self.check_streams(exporter, subject, &mut visited)?;
        }
        StreamLink::new(0, from, &to).map_err(|error| not_mapped("stream", from, &to, &error))?;
        let imports = &mut self.accounts[at].sharing.stream_imports;
        if imports.iter().any(|known| known.account == import.account && known.subject == *from) {
            return Err("stream import already exists".to_owned());
        }
        if imports.len() == IMPORTS_MAX {
            return Err(format!("more than {IMPORTS_MAX} stream imports"));
        }
        imports.push(StreamImport { to, ..import.clone() });
        Ok(())
    }

    fn check_streams(&self, at: usize, to: &str, visited: &mut HashSet<usize>) -> Result<(), String> {
        if visited.len() >= CYCLE_SEARCH_DEPTH_MAX {
            return Err("search cycle depth exhausted".to_owned());
        }
        let sharing = &self.accounts[at].sharing;
        if !sharing.stream_exports.iter().any(|export| is_subset(to.as_bytes(), export.subject.as_bytes())) {
            return Ok(());
        }
        for import in &sharing.stream_imports {
            let shown = without_placeholders(&import.to).0;
            if !collide(to.as_bytes(), shown.as_bytes()) {
                continue;
            }
            let exporter = self.by_name[&import.account];
            if visited.contains(&exporter) {
                return Err("import forms a cycle".to_owned());
            }
            visited.insert(at);
            let narrower = if is_subset(shown.as_bytes(), to.as_bytes()) { &shown } else { to };
            self.check_streams(exporter, narrower, visited)?;
        }
        Ok(())
    }

    fn add_service_import(
        &mut self,
        at: usize,
        exporter: usize,
        import: &ServiceImport,
    ) -> Result<(), String> {
        let (from, to) = (&import.to, &import.subject);
        if !is_valid_subject(from.as_bytes()) || !is_valid_subject(to.as_bytes()) {
            return Err(INVALID_SUBJECT.to_owned());
        }
        let exports = &self.accounts[exporter].sharing.service_exports;
        let grants = exports.iter().map(|export| (export.subject.as_str(), &export.access));
        if !is_granted(grants, to, &self.accounts[at].name) {
            return Err("service import not authorized".to_owned());
        }
        let searched = if has_wildcard(to.as_bytes()) { without_placeholders(from).0 } else { from.clone() };
        let mut visited = HashSet::from([at]);
        self.check_services(exporter, &searched, &mut visited)?;
        let terms = ServiceTerms {
            subject: "".into(),
            response: ResponseType::default(),
            threshold_ms: 0,
            latency: None,
        };
        let link = ServiceLink::new(0, 0, from, to, terms.into(), false)
            .map_err(|error| not_mapped("service", from, to, &error))?;
        let imports = &mut self.accounts[at].sharing.service_imports;
        if let Some(known) = imports
            .iter()
            .find(|known| known.account == import.account && local_subject(known) == link.from())
        {
            return Err(format!(
                "duplicate service import subject {from:?}, previously used in import for account {:?}, subject {:?}",
                known.account, known.subject
            ));
        }
        if imports.len() == IMPORTS_MAX {
            return Err(format!("more than {IMPORTS_MAX} service imports"));
        }
        imports.push(import.clone());
        Ok(())
    }

    fn check_services(&self, at: usize, from: &str, visited: &mut HashSet<usize>) -> Result<(), String> {
        if visited.len() >= CYCLE_SEARCH_DEPTH_MAX {
            return Err("search cycle depth exhausted".to_owned());
        }
        for import in &self.accounts[at].sharing.service_imports {
            if !collide(from.as_bytes(), import.subject.as_bytes()) {
                continue;
            }
            let exporter = self.by_name[&import.account];
            if visited.contains(&exporter) {
                return Err("import forms a cycle".to_owned());
            }
            visited.insert(at);
            let local = local_subject(import);
            let narrower = if is_subset(local.as_bytes(), from.as_bytes()) { &local } else { from };
            self.check_services(exporter, narrower, visited)?;
        }
        Ok(())
    }
}

/// The words of the reference.
const INVALID_SUBJECT: &str = "sublist: invalid subject";

/// The importer's subject, with wildcards where it has some.
fn local_subject(import: &ServiceImport) -> String {
    if has_wildcard(import.subject.as_bytes()) && import.subject != import.to {
        without_placeholders(&import.to).0
    } else {
        import.to.clone()
    }
}

fn not_mapped(what: &str, from: &str, to: &str, error: &TransformError) -> String {
    format!("failed to create mapping transform for {what} import subject from {from:?} to {to:?}: {error}")
}

/// Whether the token at `position`, from 1, is a wildcard. 0 asks for none.
fn has_token(subject: &str, position: usize) -> bool {
    position == 0 || subject.split('.').nth(position - 1) == Some("*")
}

impl Access {
    fn merge(&mut self, other: Access) {
        if other.accounts.is_empty() && other.token_position == 0 {
            return;
        }
        self.token_position = other.token_position;
        self.accounts.extend(other.accounts);
    }

    fn grants(&self, importer: &str, tokens: &[&str]) -> bool {
        if self.token_position > 0 {
            return tokens.get(self.token_position - 1) == Some(&importer);
        }
        self.accounts.is_empty() || self.accounts.iter().any(|account| account == importer)
    }
}

/// Whether one of the exports, the one of this very subject first, lets `importer` have `subject`.
fn is_granted<'a>(
    exports: impl Iterator<Item = (&'a str, &'a Access)> + Clone,
    subject: &str,
    importer: &str,
) -> bool {
    if !is_valid_subject(subject.as_bytes()) {
        return false;
    }
    if let Some((_, access)) = exports.clone().find(|(exported, _)| *exported == subject) {
        return access.grants(importer, &[]);
    }
    let tokens: Vec<&str> = subject.split('.').collect();
    let covering = { exports }.find(|(exported, _)| is_subset(subject.as_bytes(), exported.as_bytes()));
    covering.is_some_and(|(_, access)| access.grants(importer, &tokens))
}
