//! JetStream as monitoring reads it, and the parts of it that stand in more than one answer.

use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

use crate::config::{JetStreamOptions, SYNC_INTERVAL};
use crate::stream::API_LEVEL;
use crate::stream::api::{AccountUsage, StreamReport};
use crate::stream::consumer::{Description, Detail};
use crate::stream::control;

/// JetStream, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JetStreamReading {
    /// Bytes that streams in memory may take.
    pub memory_max: u64,
    /// Bytes that streams on disk may take.
    pub file_max: u64,
    /// Where those are.
    pub store_dir: String,
    /// The accounts that may have streams, by name.
    pub accounts: Vec<AccountStreams>,
    /// Streams that are on disk and could not be opened: their accounts and names.
    pub unopened: Vec<(String, String)>,
}

/// An account that may have streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountStreams {
    /// Its name.
    pub name: String,
    /// Bytes that its streams in memory may take; -1: no limit.
    pub memory_max: i64,
    /// Bytes that its streams on disk may take; -1: no limit.
    pub storage_max: i64,
    /// Requests to the API.
    pub requests: u64,
    /// Of those, how many were answered with an error.
    pub errors: u64,
    /// Its streams, by name.
    pub streams: Vec<StreamReading>,
}

/// A stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamReading {
    /// What it says of itself.
    pub report: StreamReport,
    /// Why it cannot be written any more.
    pub write_error: Option<String>,
    /// Times that something of it could not be written or read, since the server's start.
    pub store_errors: u64,
    /// Messages that its consumers delivered, since the server's start.
    pub deliveries: u64,
    /// Its consumers by name, as far as they were asked for.
    pub consumers: Vec<Description>,
}

/// Which consumers are to be read.
#[derive(Clone, Copy)]
pub enum Wanted<'a> {
    /// None.
    None,
    /// Those of these accounts, of all accounts by name.
    OfAccounts {
        /// Which accounts.
        accounts: &'a (dyn Fn(&[String]) -> Range<usize> + Sync),
        /// Of the streams of this name alone.
        stream: Option<&'a str>,
        /// How many consumers at most.
        max: usize,
        /// What of them.
        detail: Detail,
    },
    /// This one.
    One {
        /// The account.
        account: &'a str,
        /// The stream.
        stream: &'a str,
        /// The consumer.
        consumer: &'a str,
    },
}

impl AccountStreams {
    /// What it uses. Consumers of mirrors and sources are not counted, unlike in answers of the API.
    pub fn usage(&self) -> AccountUsage {
        let reports = || self.streams.iter().map(|stream| &stream.report);
        let consumers = reports().map(|report| report.state.consumer_count).sum();
        AccountUsage {
            api_total: self.requests,
            api_errors: self.errors,
            consumers,
            ..control::usage(reports())
        }
    }
}

impl JetStreamReading {
    /// What all accounts use.
    pub fn usage(&self) -> AccountUsage {
        let mut total = AccountUsage::default();
        for account in &self.accounts {
            let usage = account.usage();
            total.memory += usage.memory;
            total.storage += usage.storage;
            total.reserved_memory += usage.reserved_memory;
            total.reserved_storage += usage.reserved_storage;
            total.streams += usage.streams;
            total.consumers += usage.consumers;
            total.api_total += usage.api_total;
            total.api_errors += usage.api_errors;
        }
        total
    }

    /// The account of that name.
    pub fn account(&self, name: &str) -> Option<&AccountStreams> {
        self.accounts.iter().find(|account| account.name == name)
    }
}

/// `jetstream` in `/varz` and in the server in brief; empty without it.
#[derive(Debug, Default, Serialize)]
pub struct Part<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Config<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<Stats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
}

impl<'a> Part<'a> {
    /// With the directory, which is not told to other servers.
    pub fn of(options: Option<&'a JetStreamOptions>, reading: Option<&'a JetStreamReading>) -> Part<'a> {
        let Some((options, reading)) = options.zip(reading) else { return Part::default() };
        Part {
            config: Some(Config::of(options, reading)),
            stats: Some(Stats::of_server(reading)),
            limits: Some(Limits::of(options)),
        }
    }

    /// Without the directory.
    pub fn in_brief(
        options: Option<&'a JetStreamOptions>,
        reading: Option<&'a JetStreamReading>,
    ) -> Option<Part<'a>> {
        let part = Part::of(options, reading);
        let config = Config { store_dir: "", ..part.config? };
        Some(Part { config: Some(config), ..part })
    }
}

/// What the server's JetStream runs with.
#[derive(Debug, Default, Serialize)]
pub struct Config<'a> {
    max_memory: u64,
    max_storage: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    store_dir: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    sync_interval: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    sync_always: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    domain: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    compress_ok: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    unique_tag: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    strict: bool,
}

impl<'a> Config<'a> {
    /// That of a server.
    pub fn of(options: &'a JetStreamOptions, reading: &'a JetStreamReading) -> Config<'a> {
        let is_positive = |bytes: Option<u64>| bytes.is_some_and(|bytes| bytes > 0);
        Config {
            max_memory: reading.memory_max,
            max_storage: reading.file_max,
            store_dir: &reading.store_dir,
            // Where everything is synced before it is acknowledged it means nothing, here as there.
            sync_interval: nanos(options.sync_interval.unwrap_or(SYNC_INTERVAL)),
            sync_always: options.sync_interval.is_none(),
            domain: &options.domain,
            // As in the reference, which leaves it out where it finds out itself what it may take.
            compress_ok: is_positive(options.memory_max) && is_positive(options.file_max),
            unique_tag: &options.unique_tag,
            strict: options.strict,
        }
    }
}

/// What a server or an account uses.
#[derive(Debug, Default, Serialize)]
pub struct Stats {
    memory: u64,
    storage: u64,
    reserved_memory: u64,
    reserved_storage: u64,
    accounts: usize,
    ha_assets: u64,
    api: Api,
}

#[derive(Debug, Default, Serialize)]
struct Api {
    level: u32,
    total: u64,
    errors: u64,
}

impl Stats {
    /// Of all accounts.
    pub fn of_server(reading: &JetStreamReading) -> Stats {
        let usage = reading.usage();
        Stats {
            memory: usage.memory,
            storage: usage.storage,
            reserved_memory: usage.reserved_memory,
            reserved_storage: usage.reserved_storage,
            accounts: reading.accounts.len(),
            ha_assets: 0,
            api: Api { level: API_LEVEL, total: usage.api_total, errors: usage.api_errors },
        }
    }

    /// Of one account. What is reserved is what it may take; the reference shows no limit as the number that -1 has without
    /// its sign.
    pub fn of_account(account: &AccountStreams) -> Stats {
        let usage = account.usage();
        Stats {
            memory: usage.memory,
            storage: usage.storage,
            reserved_memory: account.memory_max.cast_unsigned(),
            reserved_storage: account.storage_max.cast_unsigned(),
            accounts: 0,
            ha_assets: 0,
            api: Api { level: 0, total: usage.api_total, errors: usage.api_errors },
        }
    }
}

/// The `limits` of the server's block.
#[derive(Debug, Default, Serialize)]
pub struct Limits {
    #[serde(skip_serializing_if = "is_zero")]
    max_request_batch: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max_ack_pending: u64,
    #[serde(skip_serializing_if = "is_none")]
    max_ha_assets: i64,
    #[serde(skip_serializing_if = "is_zero")]
    max_duplicate_window: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max_batch_inflight_per_stream: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max_batch_inflight_total: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max_batch_size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max_batch_timeout: u64,
    #[serde(skip_serializing_if = "is_none")]
    default_max_consumers: i64,
}

impl Limits {
    /// Those of a server.
    pub fn of(options: &JetStreamOptions) -> Limits {
        let limits = &options.limits;
        Limits {
            max_request_batch: limits.request_batch_max.unwrap_or(0),
            max_ack_pending: limits.ack_pending_max.unwrap_or(0),
            max_ha_assets: limits.ha_assets_max,
            max_duplicate_window: limits.duplicate_window.map_or(0, nanos),
            max_batch_inflight_per_stream: limits.batch_inflight_per_stream.unwrap_or(0),
            max_batch_inflight_total: limits.batch_inflight_total.unwrap_or(0),
            max_batch_size: limits.batch_messages.unwrap_or(0),
            max_batch_timeout: limits.batch_timeout.map_or(0, nanos),
            default_max_consumers: limits.consumers_of_a_stream(),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_none(value: &i64) -> bool {
    *value == 0
}
