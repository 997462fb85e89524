//! `/metrics` for Prometheus: the text by its grammar, the names that dashboards know, the numbers of `/varz`.
//!
//! The parser here takes nothing that Prometheus would not take, and is stricter where it is lenient: families in one
//! piece, each with its help and type before its samples, no series twice.

mod peer;
mod server_process;
mod web;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Read};

use peer::{Event, PATIENCE, Peer};
use server_process::{ServerProcess, candidate, wait_until};
use web::get;

/// What prometheus-nats-exporter 0.17 shows of a server without JetStream and without other servers, but for what
/// `git_commit` and request counts would add.
const EXPORTED: &[&str] = &[
    "gnatsd_varz_auth_timeout",
    "gnatsd_varz_config_load_time",
    "gnatsd_varz_connections",
    "gnatsd_varz_cores",
    "gnatsd_varz_cpu",
    "gnatsd_varz_disk_io_wait_stats_max_wait_time",
    "gnatsd_varz_disk_io_wait_stats_wait_time",
    "gnatsd_varz_disk_io_wait_stats_waiters",
    "gnatsd_varz_disk_io_wait_stats_waits",
    "gnatsd_varz_gomaxprocs",
    "gnatsd_varz_http_port",
    "gnatsd_varz_https_port",
    "gnatsd_varz_in_bytes",
    "gnatsd_varz_in_client_bytes",
    "gnatsd_varz_in_client_msgs",
    "gnatsd_varz_in_msgs",
    "gnatsd_varz_leafnodes",
    "gnatsd_varz_max_connections",
    "gnatsd_varz_max_control_line",
    "gnatsd_varz_max_payload",
    "gnatsd_varz_max_pending",
    "gnatsd_varz_mem",
    "gnatsd_varz_out_bytes",
    "gnatsd_varz_out_client_bytes",
    "gnatsd_varz_out_client_msgs",
    "gnatsd_varz_out_msgs",
    "gnatsd_varz_ping_interval",
    "gnatsd_varz_ping_max",
    "gnatsd_varz_port",
    "gnatsd_varz_proto",
    "gnatsd_varz_remotes",
    "gnatsd_varz_routes",
    "gnatsd_varz_server_id",
    "gnatsd_varz_server_name",
    "gnatsd_varz_slow_consumer_stats_clients",
    "gnatsd_varz_slow_consumer_stats_gateways",
    "gnatsd_varz_slow_consumer_stats_leafs",
    "gnatsd_varz_slow_consumer_stats_routes",
    "gnatsd_varz_slow_consumers",
    "gnatsd_varz_stale_connection_stats_clients",
    "gnatsd_varz_stale_connection_stats_gateways",
    "gnatsd_varz_stale_connection_stats_leafs",
    "gnatsd_varz_stale_connection_stats_routes",
    "gnatsd_varz_stale_connections",
    "gnatsd_varz_stalled_clients",
    "gnatsd_varz_start",
    "gnatsd_varz_subscriptions",
    "gnatsd_varz_tls_timeout",
    "gnatsd_varz_total_connections",
    "gnatsd_varz_version",
    "gnatsd_varz_write_deadline",
    "gnatsd_connz_in_bytes",
    "gnatsd_connz_in_msgs",
    "gnatsd_connz_limit",
    "gnatsd_connz_num_connections",
    "gnatsd_connz_offset",
    "gnatsd_connz_out_bytes",
    "gnatsd_connz_out_msgs",
    "gnatsd_connz_pending_bytes",
    "gnatsd_connz_subscriptions",
    "gnatsd_connz_total",
    "gnatsd_subsz_avg_fanout",
    "gnatsd_subsz_cache_hit_rate",
    "gnatsd_subsz_limit",
    "gnatsd_subsz_max_fanout",
    "gnatsd_subsz_num_cache",
    "gnatsd_subsz_num_inserts",
    "gnatsd_subsz_num_matches",
    "gnatsd_subsz_num_removes",
    "gnatsd_subsz_num_subscriptions",
    "gnatsd_subsz_offset",
    "gnatsd_subsz_server_id",
    "gnatsd_subsz_total",
    "gnatsd_routez_num_routes",
    "gnatsd_routez_server_id",
    "gnatsd_routez_server_name",
    "gnatsd_leafz_conn_nodes_total",
    "gnatsd_healthz_status",
    "gnatsd_healthz_status_value",
    "gnatsd_accstatz_current_connections",
    "gnatsd_accstatz_leaf_nodes",
    "gnatsd_accstatz_received_bytes",
    "gnatsd_accstatz_received_messages",
    "gnatsd_accstatz_sent_bytes",
    "gnatsd_accstatz_sent_messages",
    "gnatsd_accstatz_slow_consumers",
    "gnatsd_accstatz_subscriptions",
    "gnatsd_accstatz_total_connections",
];

#[test]
fn the_text_is_by_the_grammar_and_has_the_exporters_names() {
    let server = ServerProcess::start(&candidate(), "http: \"127.0.0.1:-1\"\n").expect("a server");
    let page = get(server.monitoring(), "/metrics");
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let families = parse(&page.body);
    let missing: Vec<&&str> = EXPORTED.iter().filter(|name| !families.contains_key(**name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/monitoring.md"))
        .expect("the page");
    for name in families.keys().filter(|name| !name.starts_with("gnatsd_")) {
        assert!(documented.contains(&format!("`{name}`")), "{name} is not documented");
    }
}

#[test]
fn the_numbers_are_those_of_varz_and_of_the_workers_together() {
    let config = "http: \"127.0.0.1:-1\"\nworkers: 3\nserver_name: \"a\\\"b\"\nno_system_account: true\n";
    let server = ServerProcess::start(&candidate(), config).expect("a server");
    let mut peers: Vec<Peer> = (0..6).map(|_| Peer::open(server.address)).collect();
    for peer in &mut peers {
        peer.send("SUB m 1\r\n");
        peer.round_trip();
    }
    peers[0].publish("m", b"12345");
    peers[0].send("PING\r\n");
    for peer in &mut peers {
        peer.expect_message("m", b"12345");
    }
    let families = parse(&get(server.monitoring(), "/metrics").body);
    let sum = |name: &str| families[name].samples.values().sum::<f64>();
    for (name, expected) in [
        ("gnatsd_varz_connections", 6.0),
        ("gnatsd_connz_total", 6.0),
        ("gnatsd_varz_in_msgs", 1.0),
        ("gnatsd_varz_out_msgs", 6.0),
        ("gnatsd_varz_out_bytes", 30.0),
        ("gnatsd_connz_out_bytes", 30.0),
        ("gnatsd_accstatz_subscriptions", 6.0),
        ("ringmain_worker_connections", 6.0),
        ("ringmain_worker_received_messages_total", 1.0),
        ("ringmain_worker_delivered_messages_total", 6.0),
        ("ringmain_worker_delivered_bytes_total", 30.0),
        ("ringmain_worker_subscriptions", 6.0),
        ("ringmain_worker_slow_consumers_total", 0.0),
    ] {
        assert_eq!(sum(name), expected, "{name}");
    }
    assert_eq!(families["ringmain_worker_connections"].samples.len(), 3);
    let turns = &families["ringmain_worker_turn_seconds"].samples;
    let counted: f64 = turns
        .iter()
        .filter(|(labels, _)| labels.contains(&("__name__".to_owned(), "_count".to_owned())))
        .map(|(_, count)| count)
        .sum();
    assert!(counted > 0.0 && counted == sum("ringmain_worker_turns_total"));
    let count = |name: &str| {
        let of_count = |(labels, value): (&Labels, &f64)| {
            labels.contains(&("__name__".to_owned(), "_count".to_owned())).then_some(*value)
        };
        families[name].samples.iter().find_map(of_count).expect("a count")
    };
    assert_eq!(count("ringmain_route_seconds"), 1.0, "one message was published");
    assert_eq!(count("ringmain_handover_seconds"), 2.0, "two other workers had subscribers");
    assert!(count("ringmain_send_seconds") >= 6.0);
    assert!(sum("ringmain_worker_batches_sent_total") >= 2.0, "two other workers were told");
    assert!(sum("process_resident_memory_bytes") > 1e6 && sum("process_open_fds") > 6.0);
    let labels = families["gnatsd_varz_server_name"].samples.keys().next().expect("one");
    assert!(labels.contains(&("value".to_owned(), "a\"b".to_owned())), "{labels:?}");
}

/// What prometheus-nats-exporter 0.17 shows under `jetstream_` for `-jsz=all`.
const EXPORTED_OF_JETSTREAM: &[&str] = &[
    "jetstream_server_jetstream_disabled",
    "jetstream_server_max_memory",
    "jetstream_server_max_storage",
    "jetstream_server_total_consumers",
    "jetstream_server_total_message_bytes",
    "jetstream_server_total_messages",
    "jetstream_server_total_streams",
    "jetstream_account_max_memory",
    "jetstream_account_max_storage",
    "jetstream_account_memory_used",
    "jetstream_account_storage_used",
    "jetstream_stream_consumer_count",
    "jetstream_stream_first_seq",
    "jetstream_stream_last_seq",
    "jetstream_stream_limit_bytes",
    "jetstream_stream_limit_messages",
    "jetstream_stream_mirror_active_duration_ns",
    "jetstream_stream_mirror_lag",
    "jetstream_stream_source_active_duration_ns",
    "jetstream_stream_source_lag",
    "jetstream_stream_subject_count",
    "jetstream_stream_total_bytes",
    "jetstream_stream_total_messages",
    "jetstream_consumer_ack_floor_consumer_seq",
    "jetstream_consumer_ack_floor_stream_seq",
    "jetstream_consumer_delivered_consumer_seq",
    "jetstream_consumer_delivered_stream_seq",
    "jetstream_consumer_num_ack_pending",
    "jetstream_consumer_num_pending",
    "jetstream_consumer_num_redelivered",
    "jetstream_consumer_num_waiting",
];

/// A server with JetStream, and a client of it with an inbox. The directory lasts as long as it is kept.
fn jetstream() -> (ServerProcess, Peer, tempfile::TempDir) {
    let store = tempfile::tempdir().expect("a directory");
    let config = format!(
        "http: \"127.0.0.1:-1\"\njetstream {{ store_dir: {:?}, max_mem: 16M, max_file: 64M }}\n",
        store.path()
    );
    let server = ServerProcess::start(&candidate(), &config).expect("a server");
    let mut peer = Peer::open(server.address);
    peer.send("SUB _I.> 1\r\n");
    peer.round_trip();
    (server, peer, store)
}

/// One request, one answer.
fn ask(peer: &mut Peer, subject: &str, body: &str) -> String {
    peer.send(&format!("PUB {subject} _I.a {}\r\n{body}\r\n", body.len()));
    match peer.next() {
        Event::Message { payload, .. } => String::from_utf8(payload).expect("text"),
        other => panic!("{other:?} instead of an answer to {subject}"),
    }
}

#[track_caller]
fn ask_well(peer: &mut Peer, subject: &str, body: &str) {
    let answer = ask(peer, subject, body);
    assert!(!answer.contains("\"error\""), "{subject}: {answer}");
}

fn create_consumer(peer: &mut Peer, stream: &str, name: &str, more: &str) {
    let config = format!(r#"{{"durable_name":"{name}","ack_policy":"explicit"{more}}}"#);
    let body = format!(r#"{{"stream_name":"{stream}","config":{config}}}"#);
    ask_well(peer, &format!("$JS.API.CONSUMER.CREATE.{stream}.{name}"), &body);
}

/// The only sample with all of these labels.
#[track_caller]
fn value(families: &BTreeMap<String, Family>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let family = families.get(name).unwrap_or_else(|| panic!("no {name}"));
    let has = |found: &Labels| {
        labels.iter().all(|(label, value)| found.contains(&((*label).to_owned(), (*value).to_owned())))
    };
    let found: Vec<f64> =
        family.samples.iter().filter(|(found, _)| has(found)).map(|(_, value)| *value).collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}");
    found[0]
}

#[test]
fn streams_and_consumers_are_told_with_their_lag_in_messages_and_in_time() {
    let (server, mut peer, _store) = jetstream();
    ask_well(&mut peer, "$JS.API.STREAM.CREATE.S", r#"{"name":"S","subjects":["s.>"],"max_msgs":10}"#);
    create_consumer(&mut peer, "S", "works", "");
    create_consumer(&mut peer, "S", "redelivers", r#","ack_wait":100000000"#);
    create_consumer(&mut peer, "S", "paused", r#","pause_until":"2999-01-01T00:00:00Z""#);
    for at in 0..3 {
        ask_well(&mut peer, &format!("s.{at}"), "hello");
    }
    let mut acks = Vec::new();
    for _ in 0..2 {
        let reply = pull(&mut peer, "S", "works");
        acks.push(reply);
    }
    // A confirmation is asked for, so that it is known to be counted.
    peer.send(&format!("PUB {} _I.b 4\r\n+ACK\r\n", acks[0]));
    assert!(matches!(peer.next(), Event::Message { .. }), "the confirmation");
    for _ in 0..2 {
        pull(&mut peer, "S", "redelivers");
        wait_until("the message is due again", PATIENCE, || {
            let info = ask(&mut peer, "$JS.API.CONSUMER.INFO.S.redelivers", "");
            let delivered: serde_json::Value = serde_json::from_str(&info).expect("JSON");
            let last = delivered["delivered"]["last_active"].as_str().expect("a time");
            let now = delivered["ts"].as_str().expect("a time");
            let at = |text: &str| text.parse::<jiff::Timestamp>().expect("a time").as_millisecond();
            at(now) - at(last) > 200
        });
    }
    let families = parse(&get(server.monitoring(), "/metrics").body);
    let missing: Vec<_> =
        EXPORTED_OF_JETSTREAM.iter().filter(|name| !families.contains_key(**name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/monitoring.md"))
        .expect("the page");
    for name in families.keys().filter(|name| name.starts_with("ringmain_")) {
        assert!(documented.contains(&format!("`{name}`")), "{name} is not documented");
    }
    let of = |name: &str, consumer: &str| value(&families, name, &[("consumer_name", consumer)]);
    assert_eq!(of("jetstream_consumer_num_pending", "works"), 1.0);
    assert_eq!(of("jetstream_consumer_num_ack_pending", "works"), 1.0);
    assert_eq!(of("jetstream_consumer_num_pending", "paused"), 3.0);
    for (name, consumer) in [
        ("ringmain_consumer_undelivered_seconds", "works"),
        ("ringmain_consumer_unacknowledged_seconds", "works"),
        ("ringmain_consumer_undelivered_seconds", "paused"),
        ("ringmain_consumer_unacknowledged_seconds", "redelivers"),
    ] {
        let age = of(name, consumer);
        assert!(age > 0.0 && age < 600.0, "{name} of {consumer}: {age}");
    }
    assert_eq!(of("ringmain_consumer_unacknowledged_seconds", "paused"), 0.0);
    assert_eq!(of("ringmain_consumer_redeliveries_total", "redelivers"), 1.0);
    assert_eq!(of("ringmain_consumer_redeliveries_total", "works"), 0.0);
    assert_eq!(
        (of("ringmain_consumer_paused", "paused"), of("ringmain_consumer_paused", "works")),
        (1.0, 0.0)
    );
    let paused = [("consumer_name", "paused"), ("reason", "paused")];
    assert!(value(&families, "ringmain_consumer_stalled_seconds", &paused) > 0.0);
    let counted = [("consumer_name", "works"), ("__name__", "_count")];
    assert_eq!(value(&families, "ringmain_consumer_ack_seconds", &counted), 1.0);
    let count = |name: &str| value(&families, name, &[("__name__", "_count")]);
    assert_eq!(count("ringmain_ack_seconds"), 1.0);
    assert!(count("ringmain_sync_seconds") >= 3.0, "each message was synced before its acknowledgement");
    assert_eq!(count("ringmain_commit_seconds"), count("ringmain_commit_bytes"));
    let of_stream = |name: &str| value(&families, name, &[("stream_name", "S")]);
    assert_eq!(of_stream("ringmain_stream_deliveries_total"), 4.0);
    assert_eq!(of_stream("ringmain_stream_used_ratio"), 0.3);
    assert_eq!(of_stream("ringmain_stream_read_only") + of_stream("ringmain_stream_store_errors_total"), 0.0);
    for part in [
        "streams_left_out",
        "origins_left_out",
        "consumers_left_out",
        "ack_histograms_left_out",
        "streams_unopened",
    ] {
        assert_eq!(value(&families, &format!("ringmain_jetstream_{part}"), &[]), 0.0, "{part}");
    }
    let [free, size] =
        ["free", "size"].map(|what| value(&families, &format!("ringmain_disk_{what}_bytes"), &[]));
    assert!(0.0 < free && free <= size);
}

/// Asks for a message; the subject that acknowledges it.
fn pull(peer: &mut Peer, stream: &str, consumer: &str) -> String {
    peer.send(&format!("PUB $JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer} _I.p 1\r\n1\r\n"));
    // The frame has it between the number of the subscription and the size.
    let mut line = String::new();
    peer.stream.read_line(&mut line).expect("a message");
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, _, _, reply, size] = words[..] else { panic!("{line}") };
    let mut payload = vec![0; size.parse::<usize>().expect("a size") + 2];
    peer.stream.read_exact(&mut payload).expect("its payload");
    reply.to_owned()
}

/// Issue 5: whoever is stuck has to be found by what is told, and why it is.
#[test]
fn a_stuck_consumer_is_found_in_metrics_alone() {
    let (server, mut peer, _store) = jetstream();
    ask_well(&mut peer, "$JS.API.STREAM.CREATE.S", r#"{"name":"S","subjects":["s"]}"#);
    for name in ["nobody_asks", "keeps_up"] {
        create_consumer(&mut peer, "S", name, "");
    }
    create_consumer(&mut peer, "S", "nobody_listens", r#","deliver_subject":"gone""#);
    create_consumer(&mut peer, "S", "nobody_acknowledges", r#","max_ack_pending":1"#);
    for _ in 0..2 {
        ask_well(&mut peer, "s", "x");
    }
    pull(&mut peer, "S", "nobody_acknowledges");
    for _ in 0..2 {
        let reply = pull(&mut peer, "S", "keeps_up");
        peer.send(&format!("PUB {reply} _I.b 4\r\n+ACK\r\n"));
        assert!(matches!(peer.next(), Event::Message { .. }), "the confirmation");
    }
    // The alert in packaging/ fires for what is longer; here it is to be seen that it is told, and grows.
    wait_until("those that are stuck are told, for two seconds by now", PATIENCE, || {
        let families = parse(&get(server.monitoring(), "/metrics").body);
        let stalled: BTreeMap<String, (String, f64)> = families["ringmain_consumer_stalled_seconds"]
            .samples
            .iter()
            .map(|(labels, seconds)| {
                let label = |name: &str| {
                    let found = labels.iter().find(|(label, _)| label == name);
                    found.map(|(_, value)| value.clone()).expect("a label")
                };
                (label("consumer_name"), (label("reason"), *seconds))
            })
            .collect();
        let reasons: Vec<(&str, &str)> =
            stalled.iter().map(|(name, (reason, _))| (name.as_str(), reason.as_str())).collect();
        assert_eq!(
            reasons,
            [
                ("nobody_acknowledges", "unacknowledged"),
                ("nobody_asks", "no_request"),
                ("nobody_listens", "no_listener")
            ]
        );
        stalled.values().all(|(_, seconds)| *seconds >= 2.0)
    });
}

/// A stream whose file can take nothing more is a stream whose disk has failed, as far as the server can see.
#[test]
fn a_stream_that_cannot_be_written_is_told() {
    // What would end a process that writes beyond the limit below. It is inherited.
    // SAFETY: a plain call; nobody here waits for this signal.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let (server, mut peer, _store) = jetstream();
    ask_well(&mut peer, "$JS.API.STREAM.CREATE.S", r#"{"name":"S","subjects":["s"]}"#);
    ask_well(&mut peer, "s", "x");
    let at = server.monitoring();
    let told = || {
        let families = parse(&get(at, "/metrics").body);
        let of = |name: &str| value(&families, name, &[("stream_name", "S")]);
        let health = families["gnatsd_healthz_status"].samples.values().sum::<f64>();
        (of("ringmain_stream_read_only"), of("ringmain_stream_store_errors_total"), health)
    };
    assert_eq!(told(), (0.0, 0.0, 0.0));
    let none = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
    // SAFETY: the limit is read while the call lasts, and nothing is written.
    let limited =
        unsafe { libc::prlimit(server.pid().cast_signed(), libc::RLIMIT_FSIZE, &none, std::ptr::null_mut()) };
    assert_eq!(limited, 0, "{}", std::io::Error::last_os_error());
    let answer = ask(&mut peer, "s", "y");
    assert!(answer.contains("\"error\""), "{answer}");
    assert_eq!(told(), (1.0, 1.0, 1.0));
    let streams = get(at, "/streamz").json();
    assert_eq!((&streams["read_only"], &streams["store_errors"]), (&1.into(), &1.into()));
    assert!(streams["streams"][0]["write_error"].is_string(), "{streams}");
    assert_eq!(get(at, "/healthz").status, 503);
}

#[test]
fn every_metric_that_the_packaged_dashboard_and_alerts_name_is_there() {
    let (server, mut peer, _store) = jetstream();
    // Some are there only where there is a stream and a consumer.
    ask_well(&mut peer, "$JS.API.STREAM.CREATE.S", r#"{"name":"S","subjects":["s"]}"#);
    create_consumer(&mut peer, "S", "c", "");
    let families = parse(&get(server.monitoring(), "/metrics").body);
    let is_there = |name: &str| {
        families.contains_key(name)
            || ["_bucket", "_sum", "_count"].iter().any(|part| {
                let family = name.strip_suffix(part).and_then(|name| families.get(name));
                family.is_some_and(|family| family.is_histogram)
            })
    };
    let packaging = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging");
    for (file, at_least) in [("grafana/ringmain.json", 15), ("prometheus-alerts.yml", 4)] {
        let text = std::fs::read_to_string(format!("{packaging}/{file}")).expect("the file");
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let named: BTreeSet<&str> = words
            .filter(|word| {
                ["ringmain_", "gnatsd_", "jetstream_", "process_"].iter().any(|start| word.starts_with(start))
            })
            .collect();
        assert!(named.len() >= at_least, "{file}: {named:?}");
        let missing: Vec<&&str> = named.iter().filter(|name| !is_there(name)).collect();
        assert!(missing.is_empty(), "{file}: {missing:?}");
    }
    let text = std::fs::read_to_string(format!("{packaging}/grafana/ringmain.json")).expect("the dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has a number of its own");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().unwrap_or_else(|| panic!("{panel}"));
        assert!(targets.iter().all(|target| target["expr"].is_string()), "{panel}");
    }
}

type Labels = BTreeSet<(String, String)>;

struct Family {
    is_histogram: bool,
    /// Of a histogram, what is behind the family's name is a label, `__name__`.
    samples: BTreeMap<Labels, f64>,
}

/// Takes a page apart; panics at the first line that is not by the grammar.
fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line ends");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut helped = String::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(!help.is_empty() && !families.contains_key(name), "{line}");
            helped = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(name, helped, "help comes first: {line}");
            assert!(matches!(kind, "gauge" | "counter" | "histogram"), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total") && kind != "gauge", "{line}");
            let is_histogram = kind == "histogram";
            families.insert(name.to_owned(), Family { is_histogram, samples: BTreeMap::new() });
            current = name.to_owned();
        } else {
            let (name, mut labels, value) = sample(line);
            let family = families.get_mut(&current).expect("a type comes first");
            let part = name.strip_prefix(&current).unwrap_or_else(|| panic!("not of its family: {line}"));
            if family.is_histogram {
                assert!(matches!(part, "_bucket" | "_sum" | "_count"), "{line}");
                labels.insert(("__name__".to_owned(), part.to_owned()));
            } else {
                assert_eq!(part, "", "samples follow their family: {line}");
            }
            assert!(family.samples.insert(labels, value).is_none(), "twice: {line}");
        }
    }
    families.values().filter(|family| family.is_histogram).for_each(check_histogram);
    families
}

/// Each series counts up to its bounds, the last of which is infinite, where it has counted everything.
fn check_histogram(family: &Family) {
    let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    let mut counts: BTreeMap<Labels, f64> = BTreeMap::new();
    for (labels, value) in &family.samples {
        let label =
            |name: &str| labels.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let series: Labels =
            labels.iter().filter(|(name, _)| name != "le" && name != "__name__").cloned().collect();
        match (label("__name__"), label("le")) {
            (Some("_bucket"), Some(bound)) => {
                let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a bound") };
                buckets.entry(series).or_default().push((bound, *value));
            }
            (Some("_count"), None) => drop(counts.insert(series, *value)),
            (Some("_sum"), None) => assert!(*value >= 0.0),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(buckets.keys().collect::<Vec<_>>(), counts.keys().collect::<Vec<_>>());
    for (series, mut buckets) in buckets {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{series:?}: {buckets:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, counts[&series])), "{series:?}");
    }
}

fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name, true), "{line}");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            assert!(is_name(label, false), "{line}");
            let (value, after) = label_value(after).unwrap_or_else(|| panic!("no end of a label: {line}"));
            assert!(!labels.iter().any(|(known, _)| known == label), "{label} twice: {line}");
            labels.insert((label.to_owned(), value));
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None => {
                    rest = after.strip_prefix('}').unwrap_or_else(|| panic!("no end of the labels: {line}"));
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no space: {line}"));
    (name.to_owned(), labels, value.parse().unwrap_or_else(|error| panic!("{error}: {line}")))
}

fn label_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('"' | '\\') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

fn is_name(text: &str, colons: bool) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':'))
}
