//! `/streamz`: the streams of all accounts in one list, in any order and searched, with what the reference's `/jsz` does not tell: errors
//! of the store, how much of its limits a stream uses, what its consumers have delivered. Ringmain's own.

use std::cmp::Reverse;

use serde::Serialize;

use super::answer::Answer;
use super::clock::Timestamp;
use super::jetstream::{JetStreamReading, StreamReading};
use super::parameters::Parameters;
use super::readings::Snapshot;
use crate::broker::inspect::SearchText;
use crate::io::process::DiskSpace;
use crate::stream::source::OriginReport;
use crate::stream::time;

/// Rows in an answer unless the request says otherwise.
pub(super) const LIMIT_DEFAULT: usize = 1024;

/// Subjects of a stream that are told. There may be any number of them.
const SUBJECTS_MAX: usize = 16;

/// Sources of a stream that are told.
const SOURCES_MAX: usize = 64;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    account: Option<String>,
    stream: Option<String>,
    text: Option<SearchText>,
    order: Order,
    page: Page,
}

/// Which rows of a list are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) offset: usize,
    pub(super) limit: usize,
}

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Name,
    Messages,
    Bytes,
    Consumers,
    Used,
    Errors,
}

impl Page {
    /// Reads the parameters.
    pub(super) fn parse(parameters: &Parameters) -> Result<Page, Answer> {
        let offset = usize::try_from(parameters.integer("offset")?).unwrap_or(0);
        let limit = usize::try_from(parameters.integer("limit")?).ok().filter(|limit| *limit > 0);
        Ok(Page { offset, limit: limit.unwrap_or(LIMIT_DEFAULT) })
    }

    /// Those rows of all.
    pub(super) fn of<T>(self, rows: &[T]) -> &[T] {
        let from = self.offset.min(rows.len());
        &rows[from..from.saturating_add(self.limit).min(rows.len())]
    }
}

impl Query {
    /// Reads the parameters.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn parse(parameters: &Parameters) -> Result<Query, Answer> {
        let sort = parameters.text("sort");
        let order = match sort {
            "" | "name" => Order::Name,
            "messages" => Order::Messages,
            "bytes" => Order::Bytes,
            "consumers" => Order::Consumers,
            "used" => Order::Used,
            "errors" => Order::Errors,
            _ => return Err(Answer::bad_request(format!("invalid sorting option: {sort}"))),
        };
        Ok(Query {
            account: parameters.filter("acc"),
            stream: parameters.filter("stream"),
            text: SearchText::new(parameters.text("find")),
            order,
            page: Page::parse(parameters)?,
        })
    }

    /// The answer. Without JetStream there are no streams.
    pub fn answer(
        &self,
        snapshot: &Snapshot<'_>,
        reading: Option<&JetStreamReading>,
        disk: Option<DiskSpace>,
    ) -> Answer {
        let accounts = reading.map_or(&[][..], |reading| &reading.accounts);
        let all = || {
            let streams = accounts.iter().map(|account| (&*account.name, &account.streams));
            streams.flat_map(|(account, streams)| streams.iter().map(move |stream| (account, stream)))
        };
        let mut found: Vec<(&str, &StreamReading)> =
            all().filter(|(account, stream)| self.takes(account, stream)).collect();
        match self.order {
            // They come by account and name.
            Order::Name => {}
            Order::Messages => found.sort_by_key(|(_, stream)| Reverse(stream.report.state.messages)),
            Order::Bytes => found.sort_by_key(|(_, stream)| Reverse(stream.report.state.bytes)),
            Order::Consumers => found.sort_by_key(|(_, stream)| Reverse(stream.report.state.consumer_count)),
            Order::Used => found.sort_by(|(_, a), (_, b)| b.used_share().total_cmp(&a.used_share())),
            Order::Errors => {
                found.sort_by_key(|(_, stream)| Reverse((stream.write_error.is_some(), stream.store_errors)));
            }
        }
        Answer::json(&Streamz {
            server_id: &snapshot.identity.server_id,
            now: snapshot.now,
            disabled: reading.is_none(),
            disk,
            total: all().count(),
            consumers: all().map(|(_, stream)| stream.report.state.consumer_count).sum(),
            read_only: all().filter(|(_, stream)| stream.write_error.is_some()).count(),
            store_errors: all().map(|(_, stream)| stream.store_errors).sum(),
            unopened: reading.map_or(0, |reading| reading.unopened.len()),
            found: found.len(),
            offset: self.page.offset,
            limit: self.page.limit,
            streams: self.page.of(&found).iter().map(|(account, stream)| row(account, stream)).collect(),
        })
    }

    fn takes(&self, account: &str, stream: &StreamReading) -> bool {
        let config = &stream.report.config;
        self.account.as_ref().is_none_or(|wanted| wanted == account)
            && self.stream.as_ref().is_none_or(|wanted| *wanted == config.name)
            && self.text.as_ref().is_none_or(|text| {
                let texts = [account, &config.name, &config.description];
                texts
                    .into_iter()
                    .chain(config.subjects.iter().map(String::as_str))
                    .any(|told| text.is_in(told))
            })
    }
}

impl StreamReading {
    /// Consumers that were not read, where consumers were asked for.
    pub fn unread(&self) -> u64 {
        self.report.consumers_total.saturating_sub(self.consumers.len() as u64)
    }

    /// How much of its limits on messages and bytes it uses: the larger share of the two, 0 without limits.
    pub fn used_share(&self) -> f64 {
        let (state, config) = (&self.report.state, &self.report.config);
        let share = |used: u64, max: i64| if max > 0 { used as f64 / max as f64 } else { 0.0 };
        share(state.messages, config.max_msgs).max(share(state.bytes, config.max_bytes))
    }
}

#[derive(Debug, Serialize)]
struct Streamz<'a> {
    server_id: &'a str,
    now: Timestamp,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<DiskSpace>,
    total: usize,
    consumers: u64,
    read_only: usize,
    store_errors: u64,
    unopened: usize,
    found: usize,
    offset: usize,
    limit: usize,
    streams: Vec<StreamRow<'a>>,
}

#[derive(Debug, Serialize)]
struct StreamRow<'a> {
    account: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    subjects: &'a [String],
    num_subject_filters: usize,
    storage: &'static str,
    retention: &'static str,
    created: String,
    messages: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_ts: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_ts: Option<String>,
    num_subjects: u64,
    num_deleted: u64,
    consumer_count: u64,
    deliveries: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mirror: Option<OriginRow<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sources: Vec<OriginRow<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    num_sources: usize,
    max_msgs: i64,
    max_bytes: i64,
    max_age: i64,
    used: f64,
    store_errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_error: Option<&'a str>,
}

fn row<'a>(account: &'a str, stream: &'a StreamReading) -> StreamRow<'a> {
    let (state, config) = (&stream.report.state, &stream.report.config);
    StreamRow {
        account,
        name: &config.name,
        description: &config.description,
        subjects: &config.subjects[..config.subjects.len().min(SUBJECTS_MAX)],
        num_subject_filters: config.subjects.len(),
        storage: config.storage.word(),
        retention: config.retention.word(),
        created: time_text(stream.report.created_ns),
        messages: state.messages,
        bytes: state.bytes,
        first_seq: state.first_seq,
        last_seq: state.last_seq,
        first_ts: state.first_time_ns.map(time_text),
        last_ts: state.last_time_ns.map(time_text),
        num_subjects: state.num_subjects,
        num_deleted: state.num_deleted,
        consumer_count: state.consumer_count,
        deliveries: stream.deliveries,
        mirror: stream.report.mirror.as_ref().map(origin),
        sources: stream.report.sources.iter().take(SOURCES_MAX).map(origin).collect(),
        num_sources: stream.report.sources.len(),
        max_msgs: config.max_msgs,
        max_bytes: config.max_bytes,
        max_age: config.max_age.0,
        used: stream.used_share(),
        store_errors: stream.store_errors,
        write_error: stream.write_error.as_deref(),
    }
}

/// A stream that another one copies from.
#[derive(Debug, Serialize)]
struct OriginRow<'a> {
    name: &'a str,
    lag: u64,
    /// When it was last heard of.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_heard: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn origin(report: &OriginReport) -> OriginRow<'_> {
    OriginRow {
        name: &report.name,
        lag: report.lag,
        last_heard: report.heard_ns.map(time_text),
        error: report.error.as_ref().map(|error| error.description.to_string()),
    }
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

/// A time as the API writes it.
pub(super) fn time_text(at_ns: i64) -> String {
    let mut text = Vec::new();
    time::write(&mut text, at_ns);
    String::from_utf8_lossy(&text).into_owned()
}
