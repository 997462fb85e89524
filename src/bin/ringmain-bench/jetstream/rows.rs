//! The rows of a comparison that measure JetStream, and what Ringmain must reach. Its acknowledgements mean that a message is on
//! the disk, in all of them; nats-server has that in the rows that say `sync_interval: always`, and syncs every two
//! minutes in the others.

use std::time::Duration;

use crate::args::{Command, KvOperation, Options};
use crate::report::Outcome;
use crate::rows::{Better, Goal, Metric, Row, Scale, Show, cpu, latency, more, p50, p99, rate};
use crate::spawned::Setting;

fn figure(name: &'static str) -> impl Fn(&Outcome) -> Option<f64> {
    move |outcome| outcome.more.get(name).copied()
}

const fn lost(goal: Goal) -> Metric {
    more("rate lost", Show::Percent, Better::Less, |outcome| figure("loss_percent")(outcome), goal)
}

const fn time(name: &'static str, value: fn(&Outcome) -> Option<f64>, goal: Goal) -> Metric {
    more(name, Show::Nanoseconds, Better::Less, value, goal)
}

fn in_memory(options: &mut Options) {
    options.storage = "memory".to_owned();
}

fn fifty_publishers(options: &mut Options) {
    (options.publishers, options.unacked) = (50, 1);
}

fn kv(options: &mut Options, operation: KvOperation, connections: usize) {
    (options.operation, options.connections) = (operation, connections);
}

const KV_ONE: &[Metric] = &[
    latency("p50", p50, Goal::None),
    latency("p99", p99, Goal::Times(1.0)),
    rate(Goal::None),
    cpu(Goal::None),
];
const KV_FIFTY: &[Metric] = &[rate(Goal::Times(3.0)), cpu(Goal::None), latency("p99", p99, Goal::None)];

const ROW: Row = Row {
    key: "",
    title: "",
    command: Command::JsPublish,
    options: |_, _| {},
    setting: Setting::JetStream,
    rounds_max: usize::MAX,
    metrics: &[],
};

/// In the order of the page.
pub const ROWS: &[Row] = &[
    Row {
        key: "js-file",
        title: "JetStream file, 128 B, 1,000 in flight",
        metrics: &[rate(Goal::Times(1.5)), cpu(Goal::Times(3.0))],
        ..ROW
    },
    Row {
        key: "js-file-always",
        title: "the same, nats-server with `sync_interval: always`",
        setting: Setting::JetStreamAlways,
        metrics: &[rate(Goal::Times(100.0)), cpu(Goal::None)],
        ..ROW
    },
    Row {
        key: "js-file-50",
        title: "JetStream file, 50 publishers, one in flight each",
        options: |options, _| fifty_publishers(options),
        metrics: &[rate(Goal::None), cpu(Goal::None), latency("p99", p99, Goal::None)],
        ..ROW
    },
    Row {
        key: "js-file-50-always",
        title: "the same, nats-server with `sync_interval: always`",
        setting: Setting::JetStreamAlways,
        options: |options, _| fifty_publishers(options),
        metrics: &[rate(Goal::Times(10.0)), cpu(Goal::None), latency("p99", p99, Goal::None)],
        ..ROW
    },
    Row {
        key: "js-memory",
        title: "JetStream memory, 128 B, 1,000 in flight",
        options: |options, _| in_memory(options),
        metrics: &[rate(Goal::Times(3.0)), cpu(Goal::None)],
        ..ROW
    },
    Row {
        key: "js-subjects",
        title: "100,000 subjects in a stream beside one",
        command: Command::JsSubjects,
        metrics: &[lost(Goal::AtMost(20.0)), rate(Goal::None)],
        ..ROW
    },
    Row {
        key: "js-streams",
        title: "1,000 streams written at once",
        options: |options, _| {
            (options.streams, options.subjects) = (1_000, 1_000);
            (options.publishers, options.unacked) = (10, 10_000);
        },
        rounds_max: 2,
        metrics: &[rate(Goal::Times(2.0)), cpu(Goal::None)],
        ..ROW
    },
    Row {
        key: "js-restart",
        title: "restart with 10 M messages of 128 B",
        command: Command::JsRestart,
        setting: Setting::StartsItself,
        rounds_max: 1,
        options: |options, scale| {
            if scale == Scale::Quick {
                options.messages = Some(1_000_000);
            }
        },
        metrics: &[
            time("time", |outcome| Some(figure("restart_ms")(outcome)? * 1e6), Goal::AtMost(1e9)),
            time(
                "with a tenth of it",
                |outcome| Some(figure("restart_tenth_ms")(outcome)? * 1e6),
                Goal::None,
            ),
            more(
                "slowest over fastest of 1, 4, 10 M",
                Show::Plain,
                Better::Less,
                |outcome| figure("slowest_over_fastest")(outcome),
                Goal::AtMost(2.0),
            ),
            time(
                "after kill -9",
                |outcome| Some(figure("restart_after_kill_ms")(outcome)? * 1e6),
                Goal::None,
            ),
            more(
                "memory after it",
                Show::Bytes,
                Better::Less,
                |outcome| outcome.server_rss_bytes.map(|bytes| bytes as f64),
                Goal::AtMost(150e6),
            ),
        ],
    },
    Row {
        key: "js-consume",
        title: "pull consume, explicit acks, batches of 500",
        command: Command::JsConsume,
        metrics: &[rate(Goal::Times(4.0)), cpu(Goal::Times(5.0))],
        ..ROW
    },
    Row {
        key: "js-replay",
        title: "ordered replay of 1 M messages",
        command: Command::JsReplay,
        metrics: &[rate(Goal::Times(4.0)), cpu(Goal::None)],
        ..ROW
    },
    Row {
        key: "js-filtered",
        title: "a consumer of 1 in 100,000 of 5 M messages",
        command: Command::JsFiltered,
        rounds_max: 1,
        options: |options, scale| {
            if scale == Scale::Quick {
                options.messages = Some(1_000_000);
            }
        },
        metrics: &[
            time(
                "first message, slowest of 20",
                |outcome| Some(figure("first_message_slowest_ms")(outcome)? * 1e6),
                Goal::AtMost(10e6),
            ),
            latency("p50", p50, Goal::None),
            time(
                "all its messages",
                |outcome| Some(figure("all_messages_p50_ms")(outcome)? * 1e6),
                Goal::None,
            ),
        ],
        ..ROW
    },
    Row {
        key: "js-consumers",
        title: "10,000 idle pull consumers on a stream",
        command: Command::JsConsumers,
        rounds_max: 2,
        options: |options, _| options.duration = Duration::from_secs(3),
        metrics: &[
            more(
                "memory each",
                Show::Bytes,
                Better::Less,
                |outcome| figure("rss_bytes_per_consumer")(outcome),
                Goal::AtMost(2_000.0),
            ),
            more(
                "more with a request waiting",
                Show::Bytes,
                Better::Less,
                |outcome| figure("rss_bytes_per_waiting_pull")(outcome),
                Goal::None,
            ),
            more(
                "CPU of all",
                Show::Percent,
                Better::Less,
                |outcome| figure("idle_cpu_percent")(outcome),
                Goal::AtMost(1.0),
            ),
            more("created", Show::PerSecond, Better::More, |outcome| Some(outcome.rate_per_s), Goal::None),
        ],
        ..ROW
    },
    Row {
        key: "js-kv-put",
        title: "key-value put, one in flight",
        command: Command::JsKv,
        options: |options, _| kv(options, KvOperation::Put, 1),
        metrics: KV_ONE,
        ..ROW
    },
    Row {
        key: "js-kv-get",
        title: "key-value get, one in flight",
        command: Command::JsKv,
        options: |options, _| kv(options, KvOperation::Get, 1),
        metrics: KV_ONE,
        ..ROW
    },
    Row {
        key: "js-kv-put-50",
        title: "key-value put, 50 clients",
        command: Command::JsKv,
        options: |options, _| kv(options, KvOperation::Put, 50),
        metrics: KV_FIFTY,
        ..ROW
    },
    Row {
        key: "js-kv-get-50",
        title: "key-value get, 50 clients",
        command: Command::JsKv,
        options: |options, _| kv(options, KvOperation::Get, 50),
        metrics: KV_FIFTY,
        ..ROW
    },
    Row {
        key: "js-keys",
        title: "100,000 keys listed",
        command: Command::JsKeys,
        metrics: &[rate(Goal::Times(4.0)), cpu(Goal::None)],
        ..ROW
    },
    Row {
        key: "js-work",
        title: "work queue, 20 workers of whom 5 die",
        command: Command::JsWork,
        metrics: &[
            more(
                "jobs done",
                Show::Count,
                Better::More,
                |outcome| Some(outcome.count as f64),
                Goal::AtLeast(200_000.0),
            ),
            rate(Goal::None),
            cpu(Goal::None),
        ],
        ..ROW
    },
];
