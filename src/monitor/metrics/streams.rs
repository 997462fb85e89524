//! JetStream in `/metrics`: what prometheus-nats-exporter shows under `jetstream_` when it is asked for everything, and what operators ask
//! beyond that: lag in time, what keeps consumers from delivering, how long disk and clients take.

use std::time::SystemTime;

use super::{ACK_HISTOGRAMS_MAX, ORIGINS_MAX, STREAMS_MAX, Text, labelled};
use crate::io::process::DiskSpace;
use crate::monitor::jetstream::{AccountStreams, JetStreamReading, StreamReading};
use crate::monitor::readings::{Snapshot, StreamTimes};
use crate::stream::consumer::{Obstacle, Standing};
use crate::stream::source::OriginReport;

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

/// The same that the exporter does not have, with its kind.
type OwnStreamMetric = (&'static str, &'static str, &'static str, fn(&StreamReading) -> f64);

const OWN_STREAM_METRICS: [OwnStreamMetric; 4] = [
    ("read_only", "1 if the stream cannot be written any more.", "gauge", |stream| {
        f64::from(u8::from(stream.write_error.is_some()))
    }),
    ("store_errors_total", "Times that something of it could not be written or read.", "counter", |stream| {
        stream.store_errors as f64
    }),
    ("deliveries_total", "Messages that its consumers delivered.", "counter", |stream| {
        stream.deliveries as f64
    }),
    (
        "used_ratio",
        "The share of its limits on messages or bytes that it uses, the larger of the two.",
        "gauge",
        |stream| stream.used_share(),
    ),
];

/// A number of a consumer: its name, what it is, and how to get it, if there is it.
type ConsumerMetric = (&'static str, &'static str, fn(&Standing) -> Option<f64>);

const CONSUMER_METRICS: [ConsumerMetric; 10] = [
    ("delivered_consumer_seq", "Deliveries.", |consumer| Some(consumer.delivered.consumer as f64)),
    ("delivered_stream_seq", "Sequence of the last message that was delivered.", |consumer| {
        Some(consumer.delivered.stream as f64)
    }),
    ("last_delivery_seconds", "Seconds since the last delivery.", |consumer| {
        consumer.last_delivered_ns.map(|at_ns| consumer.seconds_since(at_ns))
    }),
    ("last_ack_seconds", "Seconds since the last acknowledgement.", |consumer| {
        consumer.last_acked_ns.map(|at_ns| consumer.seconds_since(at_ns))
    }),
    ("num_ack_pending", "Messages that wait for their acknowledgement.", |consumer| {
        Some(consumer.unacknowledged as f64)
    }),
    ("num_redelivered", "Messages that were delivered again.", |consumer| Some(consumer.redelivered as f64)),
    ("num_waiting", "Requests of pull consumers that wait.", |consumer| Some(consumer.waiting as f64)),
    ("num_pending", "Messages that have not been delivered.", |consumer| Some(consumer.undelivered as f64)),
    ("ack_floor_stream_seq", "Sequence up to which all is acknowledged.", |consumer| {
        Some(consumer.ack_floor.stream as f64)
    }),
    ("ack_floor_consumer_seq", "Delivery up to which all is acknowledged.", |consumer| {
        Some(consumer.ack_floor.consumer as f64)
    }),
];

/// The same that the exporter does not have, with its kind.
type OwnConsumerMetric = (&'static str, &'static str, &'static str, fn(&Standing) -> f64);

const OWN_CONSUMER_METRICS: [OwnConsumerMetric; 5] = [
    ("undelivered_seconds", "Age of the first message that was not delivered.", "gauge", |consumer| {
        consumer.undelivered_seconds()
    }),
    ("unacknowledged_seconds", "Age of the first message that is not acknowledged.", "gauge", |consumer| {
        consumer.unacknowledged_seconds()
    }),
    ("redeliveries_total", "Deliveries of messages that had been delivered before.", "counter", |consumer| {
        consumer.redeliveries as f64
    }),
    ("given_up_messages", "Messages that were delivered as often as they may be.", "gauge", |consumer| {
        consumer.given_up as f64
    }),
    ("paused", "1 if the consumer is paused.", "gauge", |consumer| f64::from(u8::from(consumer.is_paused))),
];

/// Writes all of it; of streams and consumers the first by name, so many that the text stays bounded.
pub(super) fn write(
    text: &mut Text,
    snapshot: &Snapshot<'_>,
    reading: &JetStreamReading,
    disk: Option<DiskSpace>,
) {
    let identity = snapshot.identity;
    let domain = snapshot.options.jetstream.as_ref().map_or("", |found| &found.domain);
    let server = [
        ("server_id", identity.server_id.as_str()),
        ("server_name", &identity.server_name),
        ("cluster", ""),
        ("domain", domain),
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
    origins(text, &shown, now_ns(snapshot));
    let mut consumers: Vec<(String, &Standing)> = Vec::new();
    for (account, stream) in all() {
        for consumer in stream.consumers.iter().filter(|consumer| !consumer.is_direct) {
            let Some(standing) = consumer.standing.as_deref() else { continue };
            let own = [
                ("consumer_name", &*consumer.name),
                // In a server alone the reference names the leader of a stream, and not that of a consumer.
                ("consumer_leader", ""),
                ("is_consumer_leader", "true"),
                ("consumer_desc", &standing.description),
            ];
            consumers.push(([of_stream(account, stream), labelled(&own)].join(","), standing));
        }
    }
    for (name, help, number) in CONSUMER_METRICS {
        let name = format!("jetstream_consumer_{name}");
        text.family(&name, help, "gauge");
        for (labels, standing) in &consumers {
            if let Some(number) = number(standing) {
                text.labelled_sample(&name, labels, number);
            }
        }
    }
    own_of_streams(text, reading);
    own_of_consumers(text, reading);
    own_of_server(text, &snapshot.stream_times, disk);
}

fn now_ns(snapshot: &Snapshot<'_>) -> i64 {
    let since_1970 = snapshot.now.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX)
}

/// The streams that streams copy from: how far the copies are behind, and how long ago the origins were heard of.
fn origins(text: &mut Text, streams: &[(String, &StreamReading)], now_ns: i64) {
    let mut left_out = 0_u32;
    for kind in ["source", "mirror"] {
        let mut rows: Vec<(String, &OriginReport)> = Vec::new();
        for (labels, stream) in streams {
            let report = &stream.report;
            let of_kind = if kind == "source" { &report.sources[..] } else { report.mirror.as_slice() };
            for origin in of_kind {
                if rows.len() == ORIGINS_MAX {
                    left_out += 1;
                    continue;
                }
                let (api, deliver) = origin
                    .external
                    .as_ref()
                    .map_or(("", ""), |external| (external.api.as_str(), external.deliver.as_str()));
                let names = ["name", "api", "deliver"].map(|name| format!("{kind}_{name}"));
                let own = [(&*names[0], &*origin.name), (&*names[1], api), (&*names[2], deliver)];
                rows.push(([labels.clone(), labelled(&own)].join(","), origin));
            }
        }
        let name = format!("jetstream_stream_{kind}_lag");
        text.family(&name, "Messages that are to follow from the stream that this one copies.", "gauge");
        for (labels, origin) in &rows {
            text.labelled_sample(&name, labels, origin.lag as f64);
        }
        let name = format!("jetstream_stream_{kind}_active_duration_ns");
        text.family(&name, "Nanoseconds since that stream was last heard of; -1: never.", "gauge");
        for (labels, origin) in &rows {
            let since_ns = origin.heard_ns.map_or(-1, |heard_ns| now_ns.saturating_sub(heard_ns).max(0));
            text.labelled_sample(&name, labels, since_ns as f64);
        }
    }
    let name = "ringmain_jetstream_origins_left_out";
    text.family(name, "Mirrors and sources without series of their own, for there are too many.", "gauge");
    text.sample(name, &[], f64::from(left_out));
}

/// What Ringmain tells of streams beyond the exporter.
fn own_of_streams(text: &mut Text, reading: &JetStreamReading) {
    let all = || {
        let accounts = reading.accounts.iter();
        accounts.flat_map(|account| account.streams.iter().map(move |stream| (&*account.name, stream)))
    };
    for (name, help, kind, number) in OWN_STREAM_METRICS {
        let name = format!("ringmain_stream_{name}");
        text.family(&name, help, kind);
        for (account, stream) in all().take(STREAMS_MAX) {
            let labels = [("account", account), ("stream_name", &stream.report.config.name)];
            text.sample(&name, &labels, number(stream));
        }
    }
    let name = "ringmain_jetstream_streams_left_out";
    text.family(name, "Streams without series of their own, for there are too many.", "gauge");
    text.sample(name, &[], all().count().saturating_sub(STREAMS_MAX) as f64);
    let name = "ringmain_jetstream_streams_unopened";
    text.family(name, "Streams that are on disk and could not be opened.", "gauge");
    text.sample(name, &[], reading.unopened.len() as f64);
}

/// What Ringmain tells of consumers beyond the exporter.
fn own_of_consumers(text: &mut Text, reading: &JetStreamReading) {
    let consumers: Vec<([(&str, &str); 3], &Standing)> = reading
        .accounts
        .iter()
        .flat_map(|account| account.streams.iter().map(move |stream| (&*account.name, stream)))
        .flat_map(|(account, stream)| {
            let names = [("account", account), ("stream_name", &*stream.report.config.name)];
            // As in lists, those that copy for other streams are not shown: how far they are is told of the copies.
            stream.consumers.iter().filter(|consumer| !consumer.is_direct).filter_map(move |consumer| {
                let labels = [names[0], names[1], ("consumer_name", &*consumer.name)];
                Some((labels, consumer.standing.as_deref()?))
            })
        })
        .collect();
    for (name, help, kind, number) in OWN_CONSUMER_METRICS {
        let name = format!("ringmain_consumer_{name}");
        text.family(&name, help, kind);
        for (labels, standing) in &consumers {
            text.sample(&name, labels, number(standing));
        }
    }
    let name = "ringmain_consumer_stalled_seconds";
    text.family(
        name,
        "For how long it has had something to deliver and has delivered nothing, and why.",
        "gauge",
    );
    for (labels, standing) in consumers.iter().filter(|(_, standing)| standing.stalled_since_ns.is_some()) {
        let reason = ("reason", standing.obstacle.map_or("none", Obstacle::word));
        text.sample(name, &[&labels[..], &[reason]].concat(), standing.stalled_seconds());
    }
    let timed =
        || consumers.iter().filter_map(|(labels, standing)| Some((labels, standing.ack_times.as_ref()?)));
    let name = "ringmain_consumer_ack_seconds";
    text.family(name, "Of messages, from their delivery to their acknowledgement.", "histogram");
    for (labels, times) in timed().take(ACK_HISTOGRAMS_MAX) {
        text.times(name, labels, times);
    }
    let name = "ringmain_jetstream_ack_histograms_left_out";
    text.family(name, "Consumers without a histogram of their own, for there are too many.", "gauge");
    text.sample(name, &[], timed().count().saturating_sub(ACK_HISTOGRAMS_MAX) as f64);
    let name = "ringmain_jetstream_consumers_left_out";
    text.family(name, "Consumers without series of their own, for there are too many.", "gauge");
    let left_out = reading.accounts.iter().flat_map(|account| &account.streams).map(StreamReading::unread);
    text.sample(name, &[], left_out.sum::<u64>() as f64);
}

/// The disk, and how long it and clients take.
fn own_of_server(text: &mut Text, times: &StreamTimes, disk: Option<DiskSpace>) {
    if let Some(disk) = disk {
        for (name, help, number) in [
            ("free_bytes", "Bytes that may still be written where streams are.", disk.free_bytes),
            ("size_bytes", "Bytes of the disk where streams are.", disk.size_bytes),
        ] {
            let name = format!("ringmain_disk_{name}");
            text.family(&name, help, "gauge");
            text.sample(&name, &[], number as f64);
        }
    }
    for (name, help, times) in [
        ("ringmain_sync_seconds", "Of syncs of streams' files, how long each takes.", &times.sync),
        ("ringmain_commit_seconds", "Of commits of streams: writes and syncs.", &times.commit),
        (
            "ringmain_ack_seconds",
            "Of messages of all consumers, from delivery to acknowledgement.",
            &times.ack,
        ),
    ] {
        text.family(name, help, "histogram");
        text.times(name, &[], times);
    }
    let name = "ringmain_commit_bytes";
    text.family(name, "Of commits of streams, how much each writes.", "histogram");
    text.sizes(name, &[], &times.commit_bytes);
}

#[cfg(test)]
mod tests {
    use super::super::CONSUMERS_MAX;
    use super::*;
    use crate::base::histogram::Histogram;
    use crate::stream::api::{StreamReport, StreamState};
    use crate::stream::config::StreamConfig;
    use crate::stream::consumer::AckPolicy;
    use crate::stream::consumer::Description;
    use crate::stream::consumer::state::SequencePair;

    fn standing(ack_times: Option<Histogram>) -> Standing {
        let nowhere = SequencePair::default();
        Standing {
            now_ns: 0,
            created_ns: 0,
            description: String::new(),
            is_push: false,
            is_paused: false,
            is_bound: false,
            ack_policy: AckPolicy::Explicit,
            ack_wait_ns: 0,
            ack_pending_max: 0,
            delivered: nowhere,
            ack_floor: nowhere,
            last_delivered_ns: None,
            last_acked_ns: None,
            undelivered: 0,
            undelivered_since_ns: None,
            unacknowledged: 0,
            unacknowledged_since_ns: None,
            redelivered: 0,
            given_up: 0,
            redeliveries: 0,
            waiting: 0,
            obstacle: None,
            stalled_since_ns: None,
            ack_times: ack_times.map(Box::new),
        }
    }

    fn stream(name: String, consumer_count: u64, consumers: Vec<Description>) -> StreamReading {
        let config = StreamConfig { name, max_msgs: -1, max_bytes: -1, ..StreamConfig::default() };
        let state = StreamState { consumer_count, ..StreamState::default() };
        StreamReading {
            report: StreamReport {
                config,
                created_ns: 0,
                state,
                subjects_total: 0,
                consumers_total: consumer_count,
                mirror: None,
                sources: Vec::new(),
                sync_interval: None,
            },
            write_error: None,
            store_errors: 0,
            deliveries: 0,
            consumers,
        }
    }

    fn reading(streams: Vec<StreamReading>) -> JetStreamReading {
        JetStreamReading {
            memory_max: 0,
            file_max: 0,
            store_dir: String::new(),
            accounts: vec![AccountStreams {
                name: "A".to_owned(),
                memory_max: -1,
                storage_max: -1,
                requests: 0,
                errors: 0,
                streams,
            }],
            unopened: Vec::new(),
        }
    }

    fn count(text: &Text, line: &str) -> usize {
        text.0.lines().filter(|found| found.starts_with(line)).count()
    }

    #[test]
    fn streams_beyond_the_bound_are_left_out_and_counted() {
        let streams = (0..STREAMS_MAX + 3).map(|at| stream(format!("S{at}"), 0, Vec::new())).collect();
        let mut text = Text::default();
        own_of_streams(&mut text, &reading(streams));
        assert_eq!(count(&text, "ringmain_stream_read_only{"), STREAMS_MAX);
        assert!(text.0.contains("\nringmain_jetstream_streams_left_out 3\n"));
    }

    fn origin(at: usize) -> OriginReport {
        OriginReport {
            name: format!("O{at}"),
            external: None,
            lag: at as u64,
            seq: 0,
            heard_ns: (at > 0).then_some(5_000),
            error: None,
            filter_subject: String::new(),
            subject_transforms: Vec::new(),
        }
    }

    #[test]
    fn copies_are_told_with_their_lag_and_those_beyond_the_bound_are_counted() {
        let mut copy = stream("COPY".to_owned(), 0, Vec::new());
        copy.report.sources = (0..ORIGINS_MAX + 2).map(origin).collect();
        let mut mirror = stream("MIRROR".to_owned(), 0, Vec::new());
        mirror.report.mirror = Some(origin(7));
        let mut text = Text::default();
        let labels = |name: &str| labelled(&[("stream_name", name)]);
        origins(&mut text, &[(labels("COPY"), &copy), (labels("MIRROR"), &mirror)], 7_000);
        let lines = |start: &str| text.0.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(lines("jetstream_stream_source_lag{"), ORIGINS_MAX);
        for line in [
            r#"jetstream_stream_source_active_duration_ns{stream_name="COPY",source_name="O0",source_api="",source_deliver=""} -1"#,
            r#"jetstream_stream_mirror_lag{stream_name="MIRROR",mirror_name="O7",mirror_api="",mirror_deliver=""} 7"#,
            r#"jetstream_stream_mirror_active_duration_ns{stream_name="MIRROR",mirror_name="O7",mirror_api="",mirror_deliver=""} 2000"#,
            "ringmain_jetstream_origins_left_out 2",
        ] {
            assert_eq!(lines(line), 1, "{line}");
        }
    }

    #[test]
    fn consumers_and_histograms_beyond_their_bounds_are_left_out_and_counted() {
        let mut acks = Histogram::default();
        acks.record(700, 2);
        let timed = ACK_HISTOGRAMS_MAX + 5;
        let describe = |at: usize| Description {
            name: format!("c{at}"),
            is_direct: false,
            info: Vec::new(),
            standing: Some(Box::new(standing((at < timed).then_some(acks)))),
        };
        // So many are read at most.
        let consumers = (0..CONSUMERS_MAX).map(describe).collect();
        let mut text = Text::default();
        own_of_consumers(
            &mut text,
            &reading(vec![stream("S".to_owned(), CONSUMERS_MAX as u64 + 7, consumers)]),
        );
        assert_eq!(count(&text, "ringmain_consumer_undelivered_seconds{"), CONSUMERS_MAX);
        assert_eq!(count(&text, "ringmain_consumer_stalled_seconds{"), 0, "none has anything to deliver");
        assert_eq!(count(&text, "ringmain_consumer_ack_seconds_count{"), ACK_HISTOGRAMS_MAX);
        assert!(text.0.contains("\nringmain_jetstream_consumers_left_out 7\n"));
        assert!(text.0.contains("\nringmain_jetstream_ack_histograms_left_out 5\n"));
        let first = r#"account="A",stream_name="S",consumer_name="c0""#;
        assert!(
            text.0.contains(&format!("ringmain_consumer_ack_seconds_sum{{{first}}} 0.0014\n")),
            "microseconds"
        );
    }
}
