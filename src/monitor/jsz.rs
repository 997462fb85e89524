//! `/jsz`: JetStream. Without it the answer is that of a reference server whose JetStream is off.
//!
//! Accounts, streams and consumers are told by name; the reference tells streams and consumers in random order.

use std::ops::Range;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::value::RawValue;

use super::answer::Answer;
use super::clock::Timestamp;
use super::jetstream::{AccountStreams, Config, JetStreamReading, Limits, Stats, StreamReading, Wanted};
use super::parameters::Parameters;
use super::readings::Snapshot;
use crate::stream::consumer::{Description, Detail};
use crate::stream::time;

/// Accounts in an answer unless it is said how many.
const LIMIT_DEFAULT: i64 = 1024;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    account: String,
    accounts: bool,
    streams: bool,
    /// Streams were asked for, and not only what implies them.
    names_streams: bool,
    consumers: bool,
    direct_consumers: bool,
    config: bool,
    offset: i64,
    limit: i64,
    leader_only: bool,
    raft: bool,
}

impl Query {
    /// Reads the parameters.
    ///
    /// # Errors
    ///
    /// A switch is neither on nor off, or a number is none.
    pub fn parse(parameters: &Parameters) -> Result<Query, Answer> {
        // In the order in which the reference looks at them, for the first mistake is the answer.
        let accounts = parameters.boolean("accounts")?;
        let streams = parameters.boolean("streams")?;
        let consumers = parameters.boolean("consumers")?;
        let direct_consumers = parameters.boolean("direct-consumers")?;
        let config = parameters.boolean("config")?;
        let offset = parameters.integer("offset")?;
        let limit = parameters.integer("limit")?;
        let leader_only = parameters.boolean("leader-only")?;
        let raft = parameters.boolean("raft")?;
        // The server leads every stream that it has.
        parameters.boolean("stream-leader-only")?;
        let account = parameters.text("acc").to_owned();
        let (names_streams, streams) = (streams, streams || consumers);
        Ok(Query {
            accounts: accounts || streams && account.is_empty(),
            account,
            streams,
            names_streams,
            consumers,
            direct_consumers,
            config,
            offset,
            limit: if limit == 0 { LIMIT_DEFAULT } else { limit },
            leader_only,
            raft,
        })
    }

    /// The same, of this account. Consumers do not imply streams then, as in the reference.
    pub fn of_account(self, account: String) -> Query {
        Query { account, streams: self.names_streams, ..self }
    }

    /// The account that is asked for, empty if there is none.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Which accounts are shown, of all by name.
    pub fn shown(&self, names: &[String]) -> Range<usize> {
        if let Some(at) = names.iter().position(|name| *name == self.account) {
            return at..at + 1;
        }
        if !self.accounts {
            return 0..0;
        }
        if self.limit < 0 {
            return 0..names.len();
        }
        let offset = usize::try_from(self.offset).unwrap_or(0).min(names.len());
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        offset..offset.saturating_add(limit).min(names.len())
    }

    /// Which consumers have to be read. `shown` is [`Query::shown`].
    pub fn wanted<'a>(&self, shown: &'a (dyn Fn(&[String]) -> Range<usize> + Sync)) -> Wanted<'a> {
        if !self.consumers {
            return Wanted::None;
        }
        let detail = if self.config { Detail::InfoWithConfig } else { Detail::Info };
        Wanted::OfAccounts { accounts: shown, stream: None, max: usize::MAX, detail }
    }

    /// The answer.
    pub fn answer(&self, snapshot: &Snapshot<'_>, reading: Option<&JetStreamReading>) -> Answer {
        let options = snapshot.options.jetstream.as_ref();
        let Some((options, reading)) = options.zip(reading) else { return self.answer_disabled(snapshot) };
        let usage = reading.usage();
        let streams = reading.accounts.iter().flat_map(|account| &account.streams);
        let (messages, bytes) = streams.fold((0, 0), |(messages, bytes), stream| {
            (messages + stream.report.state.messages, bytes + stream.report.state.bytes)
        });
        let names: Vec<String> = reading.accounts.iter().map(|account| account.name.clone()).collect();
        let shown = &reading.accounts[self.shown(&names)];
        let leads = |count: u64| if self.raft { count } else { 0 };
        Answer::json_with_raw(&Jsz {
            stats: Stats::of_server(reading),
            server_id: &snapshot.identity.server_id,
            now: snapshot.now,
            disabled: false,
            config: Config::of(options, reading),
            limits: Some(Limits::of(options)),
            streams: usage.streams,
            streams_leader: leads(usage.streams),
            consumers: usage.consumers,
            consumers_leader: leads(usage.consumers),
            messages,
            bytes,
            account_details: shown.iter().map(|account| self.detail(account, snapshot)).collect(),
            total: reading.accounts.len(),
        })
    }

    /// What is told of one account alone.
    ///
    /// # Errors
    ///
    /// It has no JetStream, or does not exist.
    pub fn answer_account(
        &self,
        snapshot: &Snapshot<'_>,
        reading: Option<&JetStreamReading>,
    ) -> Result<Answer, String> {
        let reading = reading.ok_or("jetstream not enabled")?;
        if snapshot.account(&self.account).is_none() {
            return Err(format!("account {:?} not found", self.account));
        }
        let account = reading.account(&self.account);
        let account = account.ok_or_else(|| format!("account {:?} not jetstream enabled", self.account))?;
        Ok(Answer::json_with_raw(&self.detail(account, snapshot)))
    }

    fn answer_disabled(&self, snapshot: &Snapshot<'_>) -> Answer {
        if self.leader_only {
            return Answer::bad_request("filtered response: not leader");
        }
        Answer::json(&Jsz {
            stats: Stats::default(),
            server_id: &snapshot.identity.server_id,
            now: snapshot.now,
            disabled: true,
            config: Config::default(),
            limits: None,
            streams: 0,
            streams_leader: 0,
            consumers: 0,
            consumers_leader: 0,
            messages: 0,
            bytes: 0,
            account_details: Vec::new(),
            total: 0,
        })
    }

    fn detail<'a>(&self, account: &'a AccountStreams, snapshot: &'a Snapshot<'_>) -> AccountDetail<'a> {
        let leader = &snapshot.identity.server_name;
        let streams = account.streams.iter().filter(|_| self.streams);
        AccountDetail {
            name: &account.name,
            id: &account.name,
            stats: Stats::of_account(account),
            stream_detail: streams.map(|stream| self.stream_detail(stream, leader, snapshot.now)).collect(),
        }
    }

    fn stream_detail<'a>(
        &self,
        stream: &'a StreamReading,
        leader: &'a str,
        now: Timestamp,
    ) -> StreamDetail<'a> {
        let now_ns = now.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as i64;
        let StreamReading { report, consumers, .. } = stream;
        let of_kind = |is_direct: bool| {
            let consumers = consumers.iter().filter(|consumer| consumer.is_direct == is_direct);
            consumers.map(|Description { info, .. }| raw(|out| out.extend_from_slice(info))).collect()
        };
        StreamDetail {
            name: &report.config.name,
            created: raw(|out| {
                out.push(b'"');
                time::write(out, report.created_ns);
                out.push(b'"');
            }),
            cluster: Cluster { leader },
            config: self.config.then(|| raw(|out| report.config.write(out))),
            state: raw(|out| report.state.write(out)),
            consumer_detail: of_kind(false),
            direct_consumer_detail: if self.direct_consumers { of_kind(true) } else { Vec::new() },
            mirror: report.mirror.as_ref().map(|mirror| raw(|out| mirror.write(out, now_ns))),
            sources: report.sources.iter().map(|source| raw(|out| source.write(out, now_ns))).collect(),
        }
    }
}

/// What the cores write, as it is.
fn raw(write: impl FnOnce(&mut Vec<u8>)) -> Box<RawValue> {
    let mut text = Vec::new();
    write(&mut text);
    let text = String::from_utf8(text).expect("JSON is text");
    RawValue::from_string(text).expect("the cores write JSON")
}

#[derive(Debug, Serialize)]
struct Jsz<'a> {
    #[serde(flatten)]
    stats: Stats,
    server_id: &'a str,
    now: Timestamp,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disabled: bool,
    config: Config<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
    streams: u64,
    #[serde(skip_serializing_if = "is_zero")]
    streams_leader: u64,
    consumers: u64,
    #[serde(skip_serializing_if = "is_zero")]
    consumers_leader: u64,
    messages: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    account_details: Vec<AccountDetail<'a>>,
    total: usize,
}

#[derive(Debug, Serialize)]
struct AccountDetail<'a> {
    name: &'a str,
    id: &'a str,
    #[serde(flatten)]
    stats: Stats,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stream_detail: Vec<StreamDetail<'a>>,
}

#[derive(Debug, Serialize)]
struct StreamDetail<'a> {
    name: &'a str,
    created: Box<RawValue>,
    cluster: Cluster<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Box<RawValue>>,
    state: Box<RawValue>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    consumer_detail: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    direct_consumer_detail: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mirror: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sources: Vec<Box<RawValue>>,
}

#[derive(Debug, Serialize)]
struct Cluster<'a> {
    leader: &'a str,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}
