//! The dashboard over HTTP: who gets it, in which form, and with which rules for the browser; and what `/connz` and
//! `/subsz` tell for it beyond the reference. What it does in a browser is in `tests/dashboard/`.

mod peer;
mod server_process;
mod web;

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use flate2::read::GzDecoder;
use peer::{Event, Peer};
use serde_json::Value;
use server_process::{ServerProcess, candidate, wait_until};
use web::{Page, get, request_with};

/// What Firefox sends.
const BROWSER: (&str, &str) = ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");

const PATIENCE: Duration = Duration::from_secs(20);

fn start(config: &str) -> ServerProcess {
    let config = format!("http: \"127.0.0.1:-1\"\n{config}");
    ServerProcess::start(&candidate(), &config).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn assert_is_dashboard(page: &Page) {
    assert_eq!(page.status, 200);
    assert!(page.body.starts_with("<!doctype html>"), "{:.100}", page.body);
    assert!(page.body.contains("id=\"dashboard\""));
}

#[track_caller]
fn assert_is_links(page: &Page, link: &str) {
    assert_eq!(page.status, 200);
    assert!(page.body.contains(&format!("href=\"{link}\"")), "{}", page.body);
}

#[test]
fn browsers_get_the_dashboard_and_others_the_links() {
    let server = start("");
    let at = server.monitoring();
    assert_is_dashboard(&request_with(at, "GET", "/", &[BROWSER]));
    assert_is_dashboard(&get(at, "/dashboard"));
    assert_is_links(&get(at, "/"), "./varz");
    assert_is_links(&request_with(at, "GET", "/", &[("Accept", "*/*")]), "./varz");
    assert_is_links(&request_with(at, "GET", "/links", &[BROWSER]), "./varz");
    for path in ["/", "/dashboard"] {
        assert_eq!(request_with(at, "GET", path, &[BROWSER]).header("vary"), Some("Accept, Accept-Encoding"));
    }
    assert_eq!(get(at, "/").header("vary"), Some("Accept"));
}

#[test]
fn a_base_path_is_the_dashboards_too() {
    let server = start("http_base_path: \"/nats\"\n");
    let at = server.monitoring();
    assert_is_dashboard(&request_with(at, "GET", "/nats", &[BROWSER]));
    assert_is_dashboard(&get(at, "/nats/dashboard"));
    assert_is_links(&get(at, "/nats"), "./nats/varz");
    assert_is_links(&get(at, "/nats/links"), "./varz");
    for path in ["/", "/dashboard", "/links"] {
        assert_eq!(request_with(at, "GET", path, &[BROWSER]).status, 404, "{path}");
    }
}

#[test]
fn the_dashboard_is_sent_compressed_and_only_when_it_is_new() {
    let server = start("");
    let at = server.monitoring();
    let plain = request_with(at, "GET", "/", &[BROWSER]);
    let gzip = request_with(at, "GET", "/", &[BROWSER, ("Accept-Encoding", "gzip, deflate")]);
    assert_eq!((plain.header("content-encoding"), gzip.header("content-encoding")), (None, Some("gzip")));
    let mut unpacked = String::new();
    GzDecoder::new(gzip.bytes.as_slice()).read_to_string(&mut unpacked).expect("gzip");
    assert_eq!(unpacked, plain.body);
    assert!(gzip.bytes.len() * 2 < plain.bytes.len(), "{} of {}", gzip.bytes.len(), plain.bytes.len());

    let tag = plain.header("etag").expect("a name of this version");
    assert_ne!(Some(tag), gzip.header("etag"));
    for known in [tag.to_owned(), format!("\"other\", W/{tag}")] {
        let again = request_with(at, "GET", "/", &[BROWSER, ("If-None-Match", &known)]);
        assert_eq!((again.status, again.bytes.len()), (304, 0), "{known}");
        assert_eq!(again.header("etag"), Some(tag));
    }
    assert_eq!(request_with(at, "GET", "/", &[BROWSER, ("If-None-Match", "\"other\"")]).status, 200);
}

#[test]
fn a_head_request_gets_the_same_head_and_no_page() {
    let server = start("");
    let at = server.monitoring();
    let (get, head) = (request_with(at, "GET", "/", &[BROWSER]), request_with(at, "HEAD", "/", &[BROWSER]));
    assert_eq!((head.status, head.bytes.len()), (200, 0));
    for name in ["content-type", "content-length", "etag", "content-security-policy"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
        assert!(get.header(name).is_some(), "{name}");
    }
}

#[test]
fn the_browser_is_told_to_run_and_load_nothing_else() {
    let server = start("");
    let page = request_with(server.monitoring(), "GET", "/", &[BROWSER]);
    let policy = page.header("content-security-policy").expect("a policy");
    for rule in ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.split("; ").any(|stated| stated == rule), "{rule}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(page.header("cache-control"), Some("no-cache"));
}

fn connections(at: SocketAddr, query: &str) -> Vec<Value> {
    let answer = get(at, &format!("/connz?{query}")).json();
    answer["connections"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
}

#[test]
fn connections_are_found_by_a_text_in_what_they_are() {
    let server = start("");
    let at = server.monitoring();
    let mut billing = Peer::open_with(
        server.address,
        "CONNECT {\"verbose\":false,\"name\":\"Billing-7\",\"lang\":\"go\",\"version\":\"1.2.3\"}\r\n",
    );
    billing.round_trip();
    let mut other = Peer::open_with(server.address, "CONNECT {\"verbose\":false,\"name\":\"orders\"}\r\n");
    other.round_trip();
    let cid = connections(at, "")[0]["cid"].as_u64().expect("a number");
    for text in ["billing", "ING-7", "1.2.3", &format!("{cid}")] {
        let found = connections(at, &format!("find={text}&ringmain=1"));
        assert!(found.iter().any(|row| row["name"] == "Billing-7"), "{text}: {found:?}");
    }
    let page = get(at, "/connz?find=billing&ringmain=1").json();
    assert_eq!((&page["ringmain"]["found"], &page["total"]), (&1.into(), &2.into()));
    assert!(connections(at, "find=nobody").is_empty());
    drop(billing);
    wait_until("it is found among the closed", PATIENCE, || {
        let found = connections(at, "state=closed&find=client%20closed");
        found.len() == 1 && found[0]["name"] == "Billing-7"
    });
    assert!(connections(at, "state=closed&find=slow").is_empty());
}

#[test]
fn what_the_reference_does_not_tell_is_told_on_request_only() {
    let server = start("");
    let at = server.monitoring();
    let mut peer = Peer::open_with(server.address, "CONNECT {\"verbose\":false}\r\n");
    peer.round_trip();
    let page = get(at, "/connz").json();
    assert!(page.get("ringmain").is_none() && page["connections"][0].get("ringmain").is_none(), "{page}");
    let page = get(at, "/connz?ringmain=1").json();
    assert!(page["connections"][0]["ringmain"]["worker"].is_u64(), "{page}");
    assert!(page["connections"][0]["ringmain"].get("waiting_since").is_none(), "{page}");
    let refused = get(at, "/connz?ringmain=x");
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("'ringmain'"), "{}", refused.body);
}

#[test]
fn subscriptions_are_found_by_a_text_and_by_their_connection() {
    // The system account has subscriptions of the server itself.
    let server = start("no_system_account: true\n");
    let at = server.monitoring();
    let mut peer = Peer::open_with(
        server.address,
        "CONNECT {\"verbose\":false}\r\nSUB orders.new 1\r\nSUB jobs workers 2\r\n",
    );
    peer.round_trip();
    let mut other = Peer::open_with(server.address, "CONNECT {\"verbose\":false}\r\nSUB other 1\r\n");
    other.round_trip();
    let cid = connections(at, "sort=subs")[0]["cid"].as_u64().expect("a number");
    let total = |query: &str| get(at, &format!("/subsz?subs=1&{query}")).json()["total"].clone();
    assert_eq!(total(""), 3);
    assert_eq!(total("find=ORDERS"), 1);
    assert_eq!(total("find=worker"), 1);
    assert_eq!(total("find=nothing"), 0);
    assert_eq!(total(&format!("cid={cid}")), 2);
    assert_eq!(total(&format!("cid={cid}&find=jobs&limit=1")), 1);
    assert_eq!(get(at, "/subsz?subs=1&cid=x").status, 400);
}

#[test]
fn a_slow_consumer_tells_since_when_also_after_it_was_cut_off() {
    let server = start("write_deadline: \"3s\"\n");
    let at = server.monitoring();
    let mut slow =
        Peer::open_with(server.address, "CONNECT {\"verbose\":false,\"name\":\"slow\"}\r\nSUB flood 1\r\n");
    slow.round_trip();
    let mut publisher = Peer::open(server.address);
    let payload = vec![b'x'; 64 * 1024];
    for _ in 0..200 {
        publisher.publish("flood", &payload);
    }
    wait_until("it is behind", PATIENCE, || {
        connections(at, "sort=pending&ringmain=1").first().is_some_and(|row| {
            row["name"] == "slow"
                && row["ringmain"]["behind_since"].is_string()
                && row["ringmain"]["waiting_since"].is_string()
        })
    });
    let metrics = get(at, "/metrics").body;
    for name in ["pending_bytes", "stuck_seconds", "behind_seconds"] {
        let start = format!("ringmain_slow_connection_{name}{{cid=");
        let line = metrics.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{name}"));
        assert!(line.contains("account=\"$G\"") && line.contains("name=\"slow\""), "{line}");
    }
    wait_until("it is cut off", PATIENCE, || {
        connections(at, "state=closed&find=slow%20consumer&ringmain=1").first().is_some_and(|row| {
            row["reason"] == "Slow Consumer (Write Deadline)"
                && row["pending_bytes"].as_u64() > Some(1 << 20)
                && row["ringmain"]["behind_since"].is_string()
                && row["ringmain"]["waiting_since"].is_string()
        })
    });
}

/// One request, one answer, which is not an error.
#[track_caller]
fn ask(peer: &mut Peer, subject: &str, body: &str) {
    peer.send(&format!("PUB {subject} _I.a {}\r\n{body}\r\n", body.len()));
    match peer.next() {
        Event::Message { payload, .. } => {
            let answer = String::from_utf8(payload).expect("text");
            assert!(!answer.contains("\"error\""), "{subject}: {answer}");
        }
        other => panic!("{other:?} instead of an answer to {subject}"),
    }
}

fn names(page: &Page, list: &str) -> Vec<String> {
    let rows = page.json()[list].as_array().expect("a list").clone();
    rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn streams_and_consumers_are_listed_in_any_order_searched_and_a_page_at_a_time() {
    let store = tempfile::tempdir().expect("a directory");
    let server = start(&format!("jetstream {{ store_dir: {:?} }}\n", store.path()));
    let at = server.monitoring();
    let mut peer = Peer::open(server.address);
    peer.send("SUB _I.> 1\r\n");
    peer.round_trip();
    for (name, more) in
        [("ORDERS", r#","max_msgs":4"#), ("EVENTS", ""), ("AUDIT", r#","description":"who did what""#)]
    {
        let subject = name.to_lowercase();
        ask(
            &mut peer,
            &format!("$JS.API.STREAM.CREATE.{name}"),
            &format!(r#"{{"name":"{name}","subjects":["{subject}.>"]{more}}}"#),
        );
    }
    for (subject, messages) in [("orders.new", 2), ("events.x", 5)] {
        for _ in 0..messages {
            ask(&mut peer, subject, "hello");
        }
    }
    for (stream, name) in [("ORDERS", "billing"), ("ORDERS", "shipping"), ("EVENTS", "alarms")] {
        let body = format!(
            r#"{{"stream_name":"{stream}","config":{{"durable_name":"{name}","ack_policy":"explicit"}}}}"#
        );
        ask(&mut peer, &format!("$JS.API.CONSUMER.CREATE.{stream}.{name}"), &body);
    }
    let streams = |query: &str| names(&get(at, &format!("/streamz?{query}")), "streams");
    assert_eq!(streams(""), ["AUDIT", "EVENTS", "ORDERS"]);
    assert_eq!(streams("sort=messages"), ["EVENTS", "ORDERS", "AUDIT"]);
    assert_eq!(streams("sort=used&limit=1"), ["ORDERS"]);
    assert_eq!(streams("sort=consumers&limit=1&offset=1"), ["EVENTS"]);
    assert_eq!(streams("find=WHO"), ["AUDIT"]);
    assert_eq!(streams("find=orders.%3E"), ["ORDERS"]);
    assert_eq!(streams("acc=other"), [""; 0]);
    assert_eq!(streams("stream=EVENTS"), ["EVENTS"]);
    let page = get(at, "/streamz?limit=1&find=e").json();
    assert_eq!((&page["total"], &page["found"], &page["consumers"]), (&3.into(), &2.into(), &3.into()));
    assert_eq!(
        (&page["read_only"], &page["store_errors"], &page["unopened"]),
        (&0.into(), &0.into(), &0.into())
    );
    assert!(page["disk"]["free_bytes"].as_u64() > Some(0));
    let orders = &get(at, "/streamz?stream=ORDERS").json()["streams"][0];
    assert_eq!(
        (&orders["used"], &orders["max_msgs"], &orders["subjects"][0]),
        (&0.5.into(), &4.into(), &"orders.>".into())
    );

    let consumers = |query: &str| names(&get(at, &format!("/consumerz?{query}")), "consumers");
    assert_eq!(consumers("sort=name"), ["alarms", "billing", "shipping"]);
    assert_eq!(consumers("sort=pending&limit=1"), ["alarms"]);
    assert_eq!(consumers("stream=ORDERS&sort=name"), ["billing", "shipping"]);
    assert_eq!(consumers("find=SHIP"), ["shipping"]);
    assert_eq!(consumers("acc=other"), [""; 0]);
    // The oldest message is the first that was published.
    assert_eq!(consumers("sort=lag")[2], "alarms");
    let page = get(at, "/consumerz?stream=EVENTS").json();
    assert_eq!((&page["total"], &page["found"], &page["left_out"]), (&1.into(), &1.into(), &0.into()));
    let alarms = &page["consumers"][0];
    assert_eq!((&alarms["num_pending"], &alarms["obstacle"]), (&5.into(), &"no_request".into()));
    assert!(
        alarms["undelivered_seconds"].as_f64() > Some(0.0) && alarms["stalled_seconds"].as_f64() > Some(0.0)
    );
    for path in ["/streamz?sort=x", "/streamz?limit=x", "/consumerz?sort=bytes", "/consumerz?offset=x"] {
        assert_eq!(get(at, path).status, 400, "{path}");
    }
}

#[test]
fn without_jetstream_there_are_no_streams_and_no_consumers() {
    let server = start("");
    let at = server.monitoring();
    for (path, list) in [("/streamz", "streams"), ("/consumerz", "consumers")] {
        let page = get(at, path);
        assert_eq!(page.json()["disabled"], true, "{path}");
        assert_eq!(names(&page, list), [""; 0], "{path}");
    }
    assert!(!get(at, "/metrics").body.contains("ringmain_consumer_"));
}
