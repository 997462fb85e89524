//! JetStream in `/metrics`: what prometheus-nats-exporter shows under `jetstream_` when it is asked for everything.

use serde::Deserialize;

use super::{STREAMS_MAX, Text, labelled};
use crate::monitor::jetstream::{AccountStreams, JetStreamReading, StreamReading};
use crate::monitor::readings::Snapshot;

/// A number of an account: its name, what it is, and how to get it.
type AccountMetric = (&'static str, &'static str, fn(&AccountStreams) -> f64);

const ACCOUNT_METRICS: [AccountMetric; 4] = [
    // No limit shows as in `/jsz`.
    ("max_storage", "Bytes that the account's streams on disk may take.", |account| {
        account.storage_max.cast_unsigned() as f64
    }),
    ("max_memory", "Bytes that the account's streams in memory may take.", |account| {
        account.memory_max.cast_unsigned() as f64
    }),
    ("storage_used", "Bytes that the account's streams on disk take.", |account| {
        account.usage().storage as f64
    }),
    ("memory_used", "Bytes that the account's streams in memory take.", |account| {
        account.usage().memory as f64
    }),
];

/// A number of a stream: its name, what it is, and how to get it.
type StreamMetric = (&'static str, &'static str, fn(&StreamReading) -> f64);

const STREAM_METRICS: [StreamMetric; 8] = [
    ("total_messages", "Messages in the stream.", |stream| stream.report.state.messages as f64),
    ("total_bytes", "Bytes of the stream.", |stream| stream.report.state.bytes as f64),
    ("first_seq", "Sequence of its first message.", |stream| stream.report.state.first_seq as f64),
    ("last_seq", "Sequence of its last message.", |stream| stream.report.state.last_seq as f64),
    ("consumer_count", "Its consumers.", |stream| stream.report.state.consumer_count as f64),
    ("subject_count", "Its subjects.", |stream| stream.report.state.num_subjects as f64),
    ("limit_bytes", "Bytes that it may have; -1: no limit.", |stream| stream.report.config.max_bytes as f64),
    ("limit_messages", "Messages that it may have; -1: no limit.", |stream| {
        stream.report.config.max_msgs as f64
    }),
];

/// A number of a consumer: its name, what it is, and how to get it, if there is it.
type ConsumerMetric = (&'static str, &'static str, fn(&ConsumerNumbers) -> Option<f64>);

const CONSUMER_METRICS: [ConsumerMetric; 10] = [
    ("delivered_consumer_seq", "Deliveries.", |consumer| Some(consumer.delivered.consumer_seq as f64)),
    ("delivered_stream_seq", "Sequence of the last message that was delivered.", |consumer| {
        Some(consumer.delivered.stream_seq as f64)
    }),
    ("last_delivery_seconds", "Seconds since the last delivery.", |consumer| {
        consumer.seconds_since(&consumer.delivered.last_active)
    }),
    ("last_ack_seconds", "Seconds since the last acknowledgement.", |consumer| {
        consumer.seconds_since(&consumer.ack_floor.last_active)
    }),
    ("num_ack_pending", "Messages that wait for their acknowledgement.", |consumer| {
        Some(consumer.num_ack_pending as f64)
    }),
    ("num_redelivered", "Messages that were delivered again.", |consumer| {
        Some(consumer.num_redelivered as f64)
    }),
    ("num_waiting", "Requests of pull consumers that wait.", |consumer| Some(consumer.num_waiting as f64)),
    ("num_pending", "Messages that have not been delivered.", |consumer| Some(consumer.num_pending as f64)),
    ("ack_floor_stream_seq", "Sequence up to which all is acknowledged.", |consumer| {
        Some(consumer.ack_floor.stream_seq as f64)
    }),
    ("ack_floor_consumer_seq", "Delivery up to which all is acknowledged.", |consumer| {
        Some(consumer.ack_floor.consumer_seq as f64)
    }),
];

/// What the exporter takes of a consumer's info.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConsumerNumbers {
    delivered: Sequences,
    ack_floor: Sequences,
    num_ack_pending: u64,
    num_redelivered: u64,
    num_waiting: u64,
    num_pending: u64,
    ts: String,
    config: ConsumerTexts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConsumerTexts {
    description: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sequences {
    consumer_seq: u64,
    stream_seq: u64,
    last_active: String,
}

impl ConsumerNumbers {
    /// `None` if it was never.
    fn seconds_since(&self, at: &str) -> Option<f64> {
        let (now, at): (jiff::Timestamp, jiff::Timestamp) = (self.ts.parse().ok()?, at.parse().ok()?);
        Some(now.duration_since(at).as_secs_f64())
    }
}

/// Writes all of it; of streams and consumers the first by name, so many that the text stays bounded.
pub(super) fn write(text: &mut Text, snapshot: &Snapshot<'_>, reading: &JetStreamReading) {
    let identity = snapshot.identity;
    let server = [
        ("server_id", identity.server_id.as_str()),
        ("server_name", &identity.server_name),
        ("cluster", ""),
        ("domain", ""),
        ("meta_leader", ""),
        ("is_meta_leader", "true"),
    ];
    let all = || {
        reading
            .accounts
            .iter()
            .flat_map(|account| account.streams.iter().map(move |stream| (account, stream)))
    };
    let sum = |number: fn(&StreamReading) -> u64| all().map(|(_, stream)| number(stream)).sum::<u64>();
    let usage = reading.usage();
    for (name, help, number) in [
        ("jetstream_disabled", "1 without JetStream.", 0),
        ("max_memory", "Bytes that streams in memory may take.", reading.memory_max),
        ("max_storage", "Bytes that streams on disk may take.", reading.file_max),
        ("total_streams", "Streams.", usage.streams),
        ("total_consumers", "Consumers.", usage.consumers),
        ("total_messages", "Messages in all streams.", sum(|stream| stream.report.state.messages)),
        ("total_message_bytes", "Bytes of all streams.", sum(|stream| stream.report.state.bytes)),
    ] {
        let name = format!("jetstream_server_{name}");
        text.family(&name, help, "gauge");
        text.sample(&name, &server, number as f64);
    }
    let of_account = |account: &AccountStreams| {
        let name = &*account.name;
        [labelled(&server), labelled(&[("account", name), ("account_name", name), ("account_id", name)])]
            .join(",")
    };
    for (name, help, number) in ACCOUNT_METRICS {
        let name = format!("jetstream_account_{name}");
        text.family(&name, help, "gauge");
        for account in &reading.accounts {
            text.labelled_sample(&name, &of_account(account), number(account));
        }
    }
    let of_stream = |account: &AccountStreams, stream: &StreamReading| {
        let own = [
            ("stream_name", &*stream.report.config.name),
            ("stream_leader", &identity.server_name),
            ("is_stream_leader", "true"),
            ("stream_raft_group", ""),
        ];
        [of_account(account), labelled(&own)].join(",")
    };
    let shown = all().take(STREAMS_MAX).map(|(account, stream)| (of_stream(account, stream), stream));
    let shown: Vec<(String, &StreamReading)> = shown.collect();
    for (name, help, number) in STREAM_METRICS {
        let name = format!("jetstream_stream_{name}");
        text.family(&name, help, "gauge");
        for (labels, stream) in &shown {
            text.labelled_sample(&name, labels, number(stream));
        }
    }
    let mut consumers: Vec<(String, ConsumerNumbers)> = Vec::new();
    for (account, stream) in all() {
        for consumer in stream.consumers.iter().filter(|consumer| !consumer.is_direct) {
            let numbers: ConsumerNumbers = serde_json::from_slice(&consumer.info).unwrap_or_default();
            let own = [
                ("consumer_name", &*consumer.name),
                // In a server alone the reference names the leader of a stream, and not that of a consumer.
                ("consumer_leader", ""),
                ("is_consumer_leader", "true"),
                ("consumer_desc", &numbers.config.description),
            ];
            consumers.push(([of_stream(account, stream), labelled(&own)].join(","), numbers));
        }
    }
    for (name, help, number) in CONSUMER_METRICS {
        let name = format!("jetstream_consumer_{name}");
        text.family(&name, help, "gauge");
        for (labels, numbers) in &consumers {
            if let Some(number) = number(numbers) {
                text.labelled_sample(&name, labels, number);
            }
        }
    }
}
