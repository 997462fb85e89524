//! `/consumerz`: the consumers of all streams, or of one, in one list: how far each lags in messages and in time, for how long it has
//! stalled, and what keeps it from delivering. Ringmain's own.

use std::cmp::Reverse;
use std::ops::Range;

use serde::Serialize;

use super::answer::Answer;
use super::clock::Timestamp;
use super::jetstream::{JetStreamReading, StreamReading, Wanted};
use super::parameters::Parameters;
use super::readings::Snapshot;
use super::streamz::{Page, time_text};
use crate::base::histogram::{Histogram, LATENCY_BOUNDS_US};
use crate::broker::inspect::SearchText;
use crate::stream::consumer::state::SequencePair;
use crate::stream::consumer::{Detail, Obstacle, Standing};

/// Consumers that are looked at for one answer, the first by account, stream and name.
pub const CONSUMERS_MAX: usize = 10_000;

/// A consumer that has delivered nothing for so long although it has something to deliver, and nobody has paused it, is stuck.
pub const STUCK_SECONDS: f64 = 10.0;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    account: Option<String>,
    stream: Option<String>,
    text: Option<SearchText>,
    order: Order,
    page: Page,
}

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Stalled,
    Lag,
    Pending,
    AckPending,
    Redelivered,
    Waiting,
    Name,
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
            "" | "stalled" => Order::Stalled,
            "lag" => Order::Lag,
            "pending" => Order::Pending,
            "ack_pending" => Order::AckPending,
            "redelivered" => Order::Redelivered,
            "waiting" => Order::Waiting,
            "name" => Order::Name,
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

    /// Of which accounts, of all by name.
    pub fn accounts(&self, names: &[String]) -> Range<usize> {
        match &self.account {
            None => 0..names.len(),
            Some(account) => names.iter().position(|name| name == account).map_or(0..0, |at| at..at + 1),
        }
    }

    /// Which consumers have to be read. `accounts` is [`Query::accounts`].
    pub fn wanted<'a>(&'a self, accounts: &'a (dyn Fn(&[String]) -> Range<usize> + Sync)) -> Wanted<'a> {
        let stream = self.stream.as_deref();
        Wanted::OfAccounts { accounts, stream, max: CONSUMERS_MAX, detail: Detail::Standing }
    }

    /// The answer. Without JetStream there are no consumers.
    pub fn answer(&self, snapshot: &Snapshot<'_>, reading: Option<&JetStreamReading>) -> Answer {
        let accounts = reading.map_or(&[][..], |reading| &reading.accounts);
        let streams = || {
            let streams = accounts.iter().map(|account| (&*account.name, &account.streams));
            streams.flat_map(|(account, streams)| streams.iter().map(move |stream| (account, stream))).filter(
                |(account, stream)| {
                    self.account.as_ref().is_none_or(|wanted| wanted == account)
                        && self.stream.as_ref().is_none_or(|wanted| *wanted == stream.report.config.name)
                },
            )
        };
        let rows = || streams().flat_map(|(account, stream)| rows(account, stream));
        let total: u64 = streams().map(|(_, stream)| stream.report.state.consumer_count).sum();
        let mut found: Vec<Row<'_>> = rows().filter(|row| self.takes(row)).collect();
        let by = |found: &mut Vec<Row<'_>>, number: fn(&Standing) -> u64| {
            found.sort_by_key(|row| Reverse(number(row.standing)));
        };
        match self.order {
            // They come by account, stream and name.
            Order::Name => {}
            Order::Stalled => found.sort_by(|a, b| {
                let rank = |row: &Row<'_>| (row.stalled_seconds(), row.lag_seconds());
                let ((stalled, lag), (other_stalled, other_lag)) = (rank(a), rank(b));
                other_stalled.total_cmp(&stalled).then(other_lag.total_cmp(&lag))
            }),
            Order::Lag => found.sort_by(|a, b| b.lag_seconds().total_cmp(&a.lag_seconds())),
            Order::Pending => by(&mut found, |standing| standing.undelivered),
            Order::AckPending => by(&mut found, |standing| standing.unacknowledged),
            Order::Redelivered => by(&mut found, |standing| standing.redelivered),
            Order::Waiting => by(&mut found, |standing| standing.waiting),
        }
        Answer::json(&Consumerz {
            server_id: &snapshot.identity.server_id,
            now: snapshot.now,
            disabled: reading.is_none(),
            total,
            left_out: streams().map(|(_, stream)| stream.unread()).sum(),
            stuck: rows().filter(|row| row.stalled_seconds() >= STUCK_SECONDS).count(),
            found: found.len(),
            offset: self.page.offset,
            limit: self.page.limit,
            consumers: self.page.of(&found).iter().map(told).collect(),
        })
    }

    fn takes(&self, row: &Row<'_>) -> bool {
        let texts = [row.account, row.stream, row.name, &row.standing.description];
        self.text.as_ref().is_none_or(|text| texts.iter().any(|told| text.is_in(told)))
    }
}

/// A consumer that was looked at.
struct Row<'a> {
    account: &'a str,
    stream: &'a str,
    name: &'a str,
    standing: &'a Standing,
}

impl Row<'_> {
    /// For how long it has stalled; one that is paused is meant to.
    fn stalled_seconds(&self) -> f64 {
        match self.standing.obstacle {
            Some(Obstacle::Paused) => 0.0,
            _ => self.standing.stalled_seconds(),
        }
    }

    fn lag_seconds(&self) -> f64 {
        self.standing.undelivered_seconds().max(self.standing.unacknowledged_seconds())
    }
}

fn rows<'a>(account: &'a str, stream: &'a StreamReading) -> impl Iterator<Item = Row<'a>> {
    // As in lists, those that copy for other streams are not shown.
    stream.consumers.iter().filter(|consumer| !consumer.is_direct).filter_map(move |consumer| {
        let standing = consumer.standing.as_deref()?;
        Some(Row { account, stream: &stream.report.config.name, name: &consumer.name, standing })
    })
}

#[derive(Debug, Serialize)]
struct Consumerz<'a> {
    server_id: &'a str,
    now: Timestamp,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disabled: bool,
    total: u64,
    left_out: u64,
    stuck: usize,
    found: usize,
    offset: usize,
    limit: usize,
    consumers: Vec<ConsumerRow<'a>>,
}

#[derive(Debug, Serialize)]
struct ConsumerRow<'a> {
    account: &'a str,
    stream: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    ack_policy: &'static str,
    ack_wait: i64,
    created: String,
    delivered: Pair,
    ack_floor: Pair,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_delivered: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_ack: Option<String>,
    num_pending: u64,
    undelivered_seconds: f64,
    num_ack_pending: u64,
    max_ack_pending: i64,
    unacknowledged_seconds: f64,
    num_redelivered: u64,
    redeliveries: u64,
    given_up: u64,
    num_waiting: u64,
    push_bound: bool,
    paused: bool,
    stuck: bool,
    stalled_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    obstacle: Option<&'static str>,
    acks: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_p50_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_p99_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Pair {
    consumer_seq: u64,
    stream_seq: u64,
}

impl From<SequencePair> for Pair {
    fn from(pair: SequencePair) -> Pair {
        Pair { consumer_seq: pair.consumer, stream_seq: pair.stream }
    }
}

fn told<'a>(row: &Row<'a>) -> ConsumerRow<'a> {
    let Row { account, stream, name, standing } = *row;
    let acks = standing.ack_times.as_deref();
    // What takes longer than the last bound is told as that.
    let longest_us = LATENCY_BOUNDS_US[LATENCY_BOUNDS_US.len() - 1];
    let share = |share: f64| {
        let bound_us = |times: &Histogram| times.bound_of(share, &LATENCY_BOUNDS_US).unwrap_or(longest_us);
        acks.map(|times| bound_us(times) as f64 / 1e6)
    };
    ConsumerRow {
        account,
        stream,
        name,
        description: &standing.description,
        kind: if standing.is_push { "push" } else { "pull" },
        ack_policy: standing.ack_policy.word(),
        ack_wait: standing.ack_wait_ns,
        created: time_text(standing.created_ns),
        delivered: standing.delivered.into(),
        ack_floor: standing.ack_floor.into(),
        last_delivered: standing.last_delivered_ns.map(time_text),
        last_ack: standing.last_acked_ns.map(time_text),
        num_pending: standing.undelivered,
        undelivered_seconds: standing.undelivered_seconds(),
        num_ack_pending: standing.unacknowledged,
        max_ack_pending: standing.ack_pending_max,
        unacknowledged_seconds: standing.unacknowledged_seconds(),
        num_redelivered: standing.redelivered,
        redeliveries: standing.redeliveries,
        given_up: standing.given_up,
        num_waiting: standing.waiting,
        push_bound: standing.is_bound,
        paused: standing.is_paused,
        stuck: row.stalled_seconds() >= STUCK_SECONDS,
        stalled_seconds: standing.stalled_seconds(),
        obstacle: standing.obstacle.map(Obstacle::word),
        acks: acks.map_or(0, Histogram::count),
        ack_p50_seconds: share(0.5),
        ack_p99_seconds: share(0.99),
    }
}
