//! `/metrics`: the numbers in the text format of Prometheus, so that no exporter is needed.
//!
//! Names that begin with `gnatsd_` are those of the official exporter (prometheus-nats-exporter) and come about by its
//! rules: it flattens the JSON of an endpoint, so [`flatten`] does the same with ours, and existing dashboards go on
//! working. `process_` are the names that Prometheus's own client libraries use. `ringmain_` are Ringmain's.
//!
//! The number of series is bounded: by the number of workers, for connections by
//! [`crate::broker::inspect::BEHIND_MAX`], for streams by [`STREAMS_MAX`], for consumers by [`CONSUMERS_MAX`], for those with a
//! histogram by [`ACK_HISTOGRAMS_MAX`]. How many are left out by that stands in metrics of its own.

mod streams;

use std::fmt::Write as _;
use std::ops::Range;

use serde::Serialize;
use serde_json::Value;

use super::answer::{Answer, Kind};
use super::healthz;
use super::jetstream::{JetStreamReading, Wanted};
use super::readings::{AccountReading, Latencies, Snapshot, TURN_BOUNDS_US, WorkerReading};
use super::subsz::IndexStats;
use super::varz::Varz;
use crate::base::histogram::{Histogram, LATENCY_BOUNDS_US, SIZE_BOUNDS_BYTES};
use crate::broker::core::Traffic;
use crate::broker::inspect::{ConnectionRow, ConnectionTally};
use crate::io::process::DiskSpace;
use crate::stream::consumer::Detail;
use crate::wire::info::{GO_VERSION, REFERENCE_VERSION, RINGMAIN_VERSION};

/// Streams with series of their own, the first by account and name. The totals are those of all.
pub const STREAMS_MAX: usize = 1_000;

/// Consumers with series of their own, the first by account, stream and name.
pub const CONSUMERS_MAX: usize = 2_000;

/// Mirrors with series of their own, and so many sources, the first by account and stream.
pub const ORIGINS_MAX: usize = 1_000;

/// Consumers with a histogram of how long their acknowledgements take, the first of those that have any.
pub const ACK_HISTOGRAMS_MAX: usize = 100;

/// What the exporter leaves out of `/varz`.
const LEFT_OUT: [&str; 9] = [
    "leaf",
    "trusted_operators_claim",
    "cluster_tls_timeout",
    "cluster_cluster_port",
    "cluster_auth_timeout",
    "gateway_port",
    "gateway_auth_timeout",
    "gateway_tls_timeout",
    "gateway_connect_retries",
];

/// The texts that the exporter shows, as labels or as times.
const TEXTS: [&str; 8] =
    ["server_id", "server_name", "version", "domain", "leader", "name", "start", "config_load_time"];

/// The answer. `behind` are the connections that `tally` names, as far as they are still there.
pub fn answer(
    snapshot: &Snapshot<'_>,
    index: IndexStats,
    tally: &ConnectionTally,
    behind: &[ConnectionRow],
    jetstream: Option<(&JetStreamReading, Option<DiskSpace>)>,
) -> Answer {
    let reading = jetstream.map(|(reading, _)| reading);
    let mut text = Text::default();
    let server = [("server_id", snapshot.identity.server_id.as_str())];
    exported(&mut text, "gnatsd_varz", &Varz::of(snapshot, reading), &server);
    let server_id = &snapshot.identity.server_id;
    exported(
        &mut text,
        "gnatsd_subsz",
        &Subsz { server_id, index, total: 0, offset: 0, limit: LIMIT },
        &server,
    );
    connections(&mut text, tally, &server);
    accounts(&mut text, snapshot, tally);
    text.family("gnatsd_healthz_status", "0 if the server is healthy.", "gauge");
    let is_well = reading.is_none_or(healthz::is_well);
    text.sample("gnatsd_healthz_status", &server, if is_well { 0.0 } else { 1.0 });
    text.family("gnatsd_healthz_status_value", "1 with the health in a label.", "gauge");
    let health = ("value", if is_well { "ok" } else { "unavailable" });
    text.sample("gnatsd_healthz_status_value", &[server[0], health], 1.0);
    let routez =
        Routez { server_id, server_name: &snapshot.identity.server_name, num_routes: snapshot.routes };
    exported(&mut text, "gnatsd_routez", &routez, &server);
    text.family("gnatsd_leafz_conn_nodes_total", "Leafnode connections.", "gauge");
    text.sample("gnatsd_leafz_conn_nodes_total", &server, 0.0);
    if let Some((reading, disk)) = jetstream {
        streams::write(&mut text, snapshot, reading, disk);
    }
    process(&mut text, snapshot);
    text.family("ringmain_build_info", "1, with what runs in the labels.", "gauge");
    let versions =
        [("version", RINGMAIN_VERSION), ("reference", REFERENCE_VERSION), ("toolchain", GO_VERSION)];
    text.sample("ringmain_build_info", &versions, 1.0);
    workers(&mut text, &snapshot.workers);
    turn_lengths(&mut text, &snapshot.workers);
    latencies(&mut text, &snapshot.workers);
    slow_connections(&mut text, snapshot, behind);
    Answer { status: 200, kind: Kind::Metrics, body: text.0.into_bytes() }
}

/// Which consumers have to be read: of all accounts, which `all` chooses.
pub fn wanted(all: &(dyn Fn(&[String]) -> Range<usize> + Sync)) -> Wanted<'_> {
    Wanted::OfAccounts { accounts: all, stream: None, max: CONSUMERS_MAX, detail: Detail::Standing }
}

/// What the exporter asks `/connz` and `/subsz` for, which it shows too.
const LIMIT: u64 = 1024;

/// `/subsz` as the exporter asks for it, without the subscriptions.
#[derive(Debug, Serialize)]
struct Subsz<'a> {
    server_id: &'a str,
    #[serde(flatten)]
    index: IndexStats,
    total: u64,
    offset: u64,
    limit: u64,
}

#[derive(Debug, Serialize)]
struct Routez<'a> {
    server_id: &'a str,
    server_name: &'a str,
    num_routes: u64,
}

/// What the exporter makes of the JSON of an endpoint.
fn exported(text: &mut Text, prefix: &str, object: &impl Serialize, server: &[(&str, &str); 1]) {
    let object = serde_json::to_value(object).expect("the answers of monitoring always serialise");
    for Metric { name, number, label } in flatten(prefix, &object) {
        text.family(&name, "As in prometheus-nats-exporter.", "gauge");
        match label {
            None => text.sample(&name, server, number),
            Some(label) => text.sample(&name, &[server[0], ("value", &label)], number),
        }
    }
}

/// A metric of the exporter: a number, or a 1 with a text as its label.
#[derive(Debug, PartialEq)]
struct Metric {
    name: String,
    number: f64,
    label: Option<String>,
}

/// Numbers at any depth, and some texts, under the names of the keys that lead to them.
fn flatten(prefix: &str, object: &Value) -> Vec<Metric> {
    let mut metrics = Vec::new();
    flatten_into(&mut metrics, prefix, "", object);
    metrics
}

fn flatten_into(metrics: &mut Vec<Metric>, prefix: &str, path: &str, object: &Value) {
    let Value::Object(entries) = object else { return };
    for (key, value) in entries {
        // Paths of requests are keys too.
        let joined = format!("{path}_{key}").replace('/', "_");
        let words: Vec<&str> = joined.split('_').filter(|word| !word.is_empty()).collect();
        let path = words.join("_");
        if LEFT_OUT.contains(&path.as_str()) {
            continue;
        }
        let name = format!("{prefix}_{path}");
        match value {
            Value::Number(number) => {
                metrics.push(Metric { name, number: number.as_f64().unwrap_or(f64::NAN), label: None });
            }
            Value::String(text) if TEXTS.contains(&key.as_str()) => {
                metrics.push(match text.parse::<jiff::Timestamp>() {
                    Ok(at) => Metric { name, number: at.as_millisecond() as f64, label: None },
                    Err(_) => Metric { name, number: 1.0, label: Some(text.clone()) },
                });
            }
            Value::Object(_) => flatten_into(metrics, prefix, &path, value),
            _ => {}
        }
    }
}

fn connections(text: &mut Text, tally: &ConnectionTally, server: &[(&str, &str); 1]) {
    let ConnectionTally { count, subscriptions, pending_bytes, counters, .. } = tally;
    for (name, help, number) in [
        ("offset", "The offset that the exporter asks with.", 0),
        ("limit", "The limit that the exporter asks with; the numbers here are of all connections.", LIMIT),
        ("num_connections", "Open connections.", *count),
        ("total", "Open connections.", *count),
        ("pending_bytes", "Bytes queued for open connections.", *pending_bytes),
        ("subscriptions", "Subscriptions of open connections.", *subscriptions),
        ("in_msgs", "Messages from the connections that are open.", counters.in_msgs),
        ("in_bytes", "Bytes from the connections that are open.", counters.in_bytes),
        ("out_msgs", "Messages to the connections that are open.", counters.out_msgs),
        ("out_bytes", "Bytes to the connections that are open.", counters.out_bytes),
    ] {
        let name = format!("gnatsd_connz_{name}");
        text.family(&name, help, "gauge");
        text.sample(&name, server, number as f64);
    }
}

/// A number of an account: its name, what it is, and how to get it.
type AccountMetric = (&'static str, &'static str, fn(&AccountReading, &Traffic) -> u64);

const ACCOUNT_METRICS: [AccountMetric; 9] = [
    ("current_connections", "Connections of the account.", |account, _| account.connections),
    ("total_connections", "Connections of the account.", |account, _| account.connections),
    ("subscriptions", "Subscriptions of the account.", |account, _| account.subscriptions),
    ("leaf_nodes", "Leafnode connections of the account.", |_, _| 0),
    ("sent_messages", "Messages to the account's connections.", |_, traffic| traffic.counters.out_msgs),
    ("sent_bytes", "Bytes to the account's connections.", |_, traffic| traffic.counters.out_bytes),
    ("received_messages", "Messages from the account's connections.", |_, traffic| traffic.counters.in_msgs),
    ("received_bytes", "Bytes from the account's connections.", |_, traffic| traffic.counters.in_bytes),
    ("slow_consumers", "Slow consumers of the account.", |_, traffic| traffic.slow_consumers),
];

fn accounts(text: &mut Text, snapshot: &Snapshot<'_>, connections: &ConnectionTally) {
    for (name, help, number) in ACCOUNT_METRICS {
        let family = format!("gnatsd_accstatz_{name}");
        text.family(&family, help, "gauge");
        for account in &snapshot.accounts {
            let labels = [
                ("server_id", snapshot.identity.server_id.as_str()),
                ("account", account.name.as_str()),
                ("account_id", account.name.as_str()),
                ("account_name", account.name.as_str()),
            ];
            let traffic = connections.traffic(account.slot);
            text.sample(&family, &labels, number(account, &traffic) as f64);
        }
    }
}

fn process(text: &mut Text, snapshot: &Snapshot<'_>) {
    let process = snapshot.process;
    for (name, help, kind, number) in [
        ("cpu_seconds_total", "Processor time.", "counter", process.cpu_time.as_secs_f64()),
        ("resident_memory_bytes", "Resident memory.", "gauge", process.memory_bytes as f64),
        ("open_fds", "Open files.", "gauge", process.open_files as f64),
        (
            "start_time_seconds",
            "When the process started, since 1970.",
            "gauge",
            snapshot.identity.started.epoch_seconds(),
        ),
    ] {
        let name = format!("process_{name}");
        text.family(&name, help, kind);
        text.sample(&name, &[], number);
    }
}

/// A number of each worker: its name, what it is, of which kind, and how to get it.
type WorkerMetric = (&'static str, &'static str, &'static str, fn(&WorkerReading) -> f64);

const WORKER_METRICS: [WorkerMetric; 23] = [
    ("connections", "Connections.", "gauge", |worker| worker.connections as f64),
    ("subscriptions", "Subscriptions.", "gauge", |worker| worker.stats.subscriptions as f64),
    ("received_messages_total", "Messages from clients.", "counter", |worker| {
        worker.stats.messages.count as f64
    }),
    ("received_bytes_total", "Headers and payloads from clients.", "counter", |worker| {
        worker.stats.messages.bytes as f64
    }),
    ("delivered_messages_total", "Messages to clients.", "counter", |worker| {
        worker.stats.deliveries.count as f64
    }),
    ("delivered_bytes_total", "Headers and payloads to clients.", "counter", |worker| {
        worker.stats.deliveries.bytes as f64
    }),
    ("slow_consumers_total", "Connections cut off because they did not read.", "counter", |worker| {
        worker.stats.slow_consumers as f64
    }),
    ("stale_connections_total", "Connections closed because they answered no pings.", "counter", |worker| {
        worker.stats.stale_connections as f64
    }),
    ("producer_holds_total", "Times that a publisher was held back.", "counter", |worker| {
        worker.stats.holds as f64
    }),
    ("subscribed_total", "Subscriptions ever made.", "counter", |worker| worker.stats.subscribed as f64),
    ("cached_subjects", "Subjects whose fan-out lists are cached.", "gauge", |worker| {
        worker.cached_subjects as f64
    }),
    ("index_reads_total", "Fan-out lists that had to be asked for.", "counter", |worker| {
        worker.index_reads as f64
    }),
    ("turns_total", "Turns that had something to do.", "counter", |worker| worker.turn_times.turns() as f64),
    ("busy_seconds_total", "Time spent in those turns.", "counter", |worker| {
        worker.turn_times.busy_ns as f64 / 1e9
    }),
    (
        "log_held_seconds_total",
        "Time in which clients were left alone for a log that was behind.",
        "counter",
        |worker| worker.turn_times.held_ns as f64 / 1e9,
    ),
    ("batches_sent_total", "Batches handed to other workers.", "counter", |worker| {
        worker.batches_sent as f64
    }),
    ("batches_received_total", "Batches taken from other workers.", "counter", |worker| {
        worker.batches_received as f64
    }),
    ("handed_over_total", "Messages taken from other workers.", "counter", |worker| {
        worker.stats.handed_over as f64
    }),
    ("batches_waiting", "Batches that other workers have put at the door.", "gauge", |worker| {
        worker.batches_waiting as f64
    }),
    ("read_buffers", "Read buffers.", "gauge", |worker| worker.buffers as f64),
    ("read_buffers_leased", "Read buffers in use.", "gauge", |worker| worker.buffers_leased as f64),
    ("reads_waiting", "Reads that wait for their turn.", "gauge", |worker| worker.reads_waiting as f64),
    ("kept_bytes", "Bytes of waiting reads that were copied out of their buffers.", "gauge", |worker| {
        worker.kept_bytes as f64
    }),
];

fn workers(text: &mut Text, workers: &[WorkerReading]) {
    for (name, help, kind, number) in WORKER_METRICS {
        let name = format!("ringmain_worker_{name}");
        text.family(&name, help, kind);
        for (at, worker) in workers.iter().enumerate() {
            text.sample(&name, &[("worker", &at.to_string())], number(worker));
        }
    }
}

/// How long turns take: a worker that is stopped by something is late for all of its clients.
fn turn_lengths(text: &mut Text, workers: &[WorkerReading]) {
    let name = "ringmain_worker_turn_seconds";
    text.family(name, "Length of the turns that had something to do.", "histogram");
    for (at, worker) in workers.iter().enumerate() {
        let times = worker.turn_times;
        let (sum_seconds, at) = (times.busy_ns as f64 / 1e9, at.to_string());
        text.histogram(name, &[("worker", &at)], &TURN_BOUNDS_US, 1e6, &times.lengths, sum_seconds);
    }
}

type Part = fn(&Latencies) -> &Histogram;

/// How long messages take between the sockets, at all workers together.
fn latencies(text: &mut Text, workers: &[WorkerReading]) {
    let parts: [(&str, &str, Part); 3] = [
        (
            "route",
            "Of messages, from the turn that reaped their bytes to the end of the one that handled them.",
            |latencies| &latencies.route,
        ),
        (
            "handover",
            "Of messages, from the turn that gave them to another worker to the end of the one that handled them there.",
            |latencies| &latencies.hand_over,
        ),
        (
            "send",
            "Of pieces of output, from the turn in which it came to be to the kernel's having it.",
            |latencies| &latencies.send,
        ),
    ];
    for (name, help, part) in parts {
        let name = format!("ringmain_{name}_seconds");
        text.family(&name, help, "histogram");
        let mut sum = Histogram::default();
        workers.iter().for_each(|worker| sum.add(part(&worker.latencies)));
        text.times(&name, &[], &sum);
    }
}

/// Who has fallen behind: the question that an operator has when messages are late.
fn slow_connections(text: &mut Text, snapshot: &Snapshot<'_>, behind: &[ConnectionRow]) {
    let pending = "ringmain_slow_connection_pending_bytes";
    let (stuck, behind_for) =
        ("ringmain_slow_connection_stuck_seconds", "ringmain_slow_connection_behind_seconds");
    let labelled: Vec<[(&str, String); 5]> = behind
        .iter()
        .map(|row| {
            [
                ("cid", row.cid.to_string()),
                ("account", row.account.clone()),
                ("user", row.user.clone()),
                ("name", row.name.clone()),
                ("addr", row.addr.to_string()),
            ]
        })
        .collect();
    let seconds_since = |at_ms: u64| (snapshot.now_us / 1000).saturating_sub(at_ms) as f64 / 1e3;
    text.family(pending, "Bytes queued for the connections that are furthest behind.", "gauge");
    for (row, labels) in behind.iter().zip(&labelled) {
        text.sample(pending, &borrowed(labels), row.pending_bytes as f64);
    }
    text.family(stuck, "For how long those have taken nothing.", "gauge");
    for (row, labels) in behind.iter().zip(&labelled) {
        text.sample(stuck, &borrowed(labels), seconds_since(row.progress_ms));
    }
    text.family(behind_for, "For how long so much has been queued for those.", "gauge");
    for (row, labels) in behind.iter().zip(&labelled) {
        text.sample(behind_for, &borrowed(labels), row.behind_since_ms.map_or(0.0, seconds_since));
    }
}

fn borrowed<'a>(labels: &'a [(&'a str, String); 5]) -> Vec<(&'a str, &'a str)> {
    labels.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// A page in the text format, version 0.0.4.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], number: f64) {
        self.labelled_sample(name, &labelled(labels), number);
    }

    /// With labels that have been [written](labelled).
    fn labelled_sample(&mut self, name: &str, labels: &str, number: f64) {
        let _ = if labels.is_empty() {
            writeln!(self.0, "{name} {number}")
        } else {
            writeln!(self.0, "{name}{{{labels}}} {number}")
        };
    }

    fn times(&mut self, name: &str, labels: &[(&str, &str)], times: &Histogram) {
        self.histogram(name, labels, &LATENCY_BOUNDS_US, 1e6, &times.classes, times.sum as f64 / 1e6);
    }

    fn sizes(&mut self, name: &str, labels: &[(&str, &str)], sizes: &Histogram) {
        self.histogram(name, labels, &SIZE_BOUNDS_BYTES, 1.0, &sizes.classes, sizes.sum as f64);
    }

    /// `classes` are the counts up to each bound, and of what is beyond the last. `per_unit`: how much of what bounds are
    /// given in makes one of what is shown.
    fn histogram(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        bounds: &[u64],
        per_unit: f64,
        classes: &[u64],
        sum: f64,
    ) {
        let mut count = 0;
        for (class, times) in classes.iter().enumerate() {
            count += times;
            let bound = bounds.get(class).map(|bound| (*bound as f64 / per_unit).to_string());
            let bound = bound.unwrap_or_else(|| "+Inf".to_owned());
            self.sample(&format!("{name}_bucket"), &[labels, &[("le", &bound)]].concat(), count as f64);
        }
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, count as f64);
    }
}

/// Labels as they stand between braces.
fn labelled(labels: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (label, value) in labels {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{label}=\"{}\"", escaped(value));
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_becomes_metrics_by_the_exporters_rules() {
        let object = serde_json::json!({
            "server_name": "x", "host": "h", "cpu": 1.5, "tls": true, "urls": ["a"], "leaf": {"port": 1},
            "http_req_stats": {"/": 1, "/varz": 2}, "start": "1970-01-01T00:00:02Z", "cluster": {"name": "c"},
        });
        let metric = |name: &str, number, label: Option<&str>| Metric {
            name: name.into(),
            number,
            label: label.map(Into::into),
        };
        assert_eq!(
            flatten("p", &object),
            [
                metric("p_cluster_name", 1.0, Some("c")),
                metric("p_cpu", 1.5, None),
                metric("p_http_req_stats", 1.0, None),
                metric("p_http_req_stats_varz", 2.0, None),
                metric("p_server_name", 1.0, Some("x")),
                metric("p_start", 2000.0, None),
            ]
        );
    }

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.sample("m", &[("a", "x\"y\\\n"), ("b", "")], 3.0);
        text.sample("m", &[], 0.5);
        assert_eq!(text.0, "m{a=\"x\\\"y\\\\\\n\",b=\"\"} 3\nm 0.5\n");
    }
}
