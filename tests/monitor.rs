//! Monitoring beside the real nats-server: the same traffic, the same questions over HTTP, the same answers.
//!
//! The expectation is never written by hand. `tests/monitor/*.golden` holds what nats-server 2.15.1 answered to the
//! scripts beside it, and both servers must answer so: status, kind of content, and the JSON line by line, the order of
//! keys and the indentation included. What has to differ (times, ports, ids, memory, the numbers of caches) is replaced
//! by its type. Both run with `no_system_account`: the number of its own subscriptions with which either answers in the system
//! account shows in all numbers. With one they are compared by `tests/system.rs`, and here where there is JetStream, whose
//! answers are compared without that number.
//!
//! ```text
//! MONITOR_CASE=text    plays only the cases whose title contains the text
//! MONITOR_RECORD=1     writes the recordings anew from the real server
//! RINGMAIN_BIN=…       judges that binary instead of the one just built
//! NATS_SERVER=…        the real server
//! ```
//!
//! A script, one step a line:
//!
//! ```text
//! === title                a case begins, with a server of its own
//! config: max_payload: 1   a line of the server's configuration file; STORE is a directory of the case's own
//! A> bytes                 connection A (opened when first named) writes; \r \n as usual
//! A pong                   waits for a PONG
//! A answered               waits for a message
//! A shut                   closes its writing half and waits for the end
//! A closed                 waits for the server to close it
//! GET /varz                asks, again and again until the answer is the recorded one
//! ONCE /varz               asks once
//! HEAD /varz, POST /varz   the same with another method
//! ```

mod peer;
mod server_process;
mod web;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use peer::{PATIENCE, Peer};
use serde_json::Value;
use server_process::{ServerProcess, announce, candidate, reference, wait_until};
use web::{Page, get, request};

/// While recording, the server is left alone for so long after traffic.
const SETTLES_WITHIN: Duration = Duration::from_millis(200);

/// An answer may become the recorded one within this.
const ANSWERS_WITHIN: Duration = Duration::from_secs(6);

#[test]
fn ringmain_answers_as_recorded() {
    play_all(&candidate());
}

#[test]
fn the_real_server_answers_as_recorded() {
    let Some(binary) = reference() else {
        announce("SKIPPED the_real_server_answers_as_recorded: no nats-server");
        return;
    };
    if std::env::var_os("MONITOR_RECORD").is_some() {
        record_all(&binary);
    } else {
        play_all(&binary);
    }
}

#[test]
fn there_are_recordings_of_at_least_sixty_questions() {
    let mut questions = 0;
    for file in scripts() {
        let recorded = read_recording(&file);
        for case in read_script(&file) {
            let asked = case.steps.iter().filter(|step| step.is_question()).count();
            let answers = recorded.get(&case.title).map_or(0, Vec::len);
            assert_eq!(answers, asked, "{}: MONITOR_RECORD=1 cargo test --test monitor", case.title);
            questions += asked;
        }
    }
    assert!(questions >= 60, "only {questions}");
    announce(&format!("monitor: {questions} questions"));
}

/// In the system account, and for it in all others, the server has subscriptions of its own.
const CONFIG: &str = "no_system_account: true\n";

fn scripts() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/monitor");
    let entries =
        fs::read_dir(directory).expect("tests/monitor").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "txt")).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn play_all(binary: &Path) {
    if std::env::var_os("MONITOR_RECORD").is_some() {
        return announce("SKIPPED: recording from the real server");
    }
    let filter = std::env::var("MONITOR_CASE").unwrap_or_default();
    let (mut asked, mut failures) = (0, Vec::new());
    for file in scripts() {
        let recorded = read_recording(&file);
        for case in read_script(&file).iter().filter(|case| case.title.contains(&filter)) {
            let expected = recorded.get(&case.title).map_or(&[][..], Vec::as_slice);
            for (answer, expected) in play(case, binary, Some(expected)).iter().zip(expected) {
                asked += 1;
                if answer != expected {
                    failures.push(difference(&case.title, expected, answer));
                }
            }
        }
    }
    announce(&format!("monitor: {} of {asked} answers as recorded", asked - failures.len()));
    assert!(failures.is_empty(), "{} of {asked} differ:\n\n{}", failures.len(), failures.join("\n"));
}

fn record_all(binary: &Path) {
    for file in scripts() {
        let mut text = String::new();
        for case in read_script(&file) {
            text.push_str(&format!("=== {}\n", case.title));
            for answer in play(&case, binary, None) {
                text.push_str(&answer.question);
                text.push('\n');
                answer.lines.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
            }
            text.push('\n');
        }
        let golden = file.with_extension("golden");
        fs::write(&golden, text).unwrap_or_else(|error| panic!("{}: {error}", golden.display()));
    }
}

fn difference(title: &str, expected: &Answer, got: &Answer) -> String {
    let at = expected.lines.iter().zip(&got.lines).take_while(|(a, b)| a == b).count();
    let line = |answer: &Answer| answer.lines.get(at).cloned().unwrap_or_else(|| "(the end)".to_owned());
    format!(
        "{title}: {}\n  line {}: {:?} instead of {:?}\n  replay: MONITOR_CASE='{title}' cargo test --test monitor\n",
        got.question,
        at + 1,
        line(got),
        line(expected)
    )
}

struct Case {
    title: String,
    config: String,
    steps: Vec<Step>,
}

enum Step {
    Write { to: String, bytes: String },
    AwaitPong { on: String },
    AwaitMessage { on: String },
    Shut { on: String },
    AwaitClose { on: String },
    Ask { text: String, method: &'static str, path: String, once: bool },
}

impl Step {
    fn is_question(&self) -> bool {
        matches!(self, Step::Ask { .. })
    }
}

/// An answer in lines.
#[derive(Debug, Clone, PartialEq)]
struct Answer {
    question: String,
    lines: Vec<String>,
}

fn read_script(file: &Path) -> Vec<Case> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(title) = line.strip_prefix("=== ") {
            cases.push(Case { title: title.to_owned(), config: String::new(), steps: Vec::new() });
            continue;
        }
        let case = cases.last_mut().unwrap_or_else(|| panic!("{line:?} before the first title"));
        if let Some(config) = line.strip_prefix("config: ") {
            case.config.push_str(config);
            case.config.push('\n');
        } else {
            case.steps.push(parse_step(line).unwrap_or_else(|| panic!("{}: {line:?}", case.title)));
        }
    }
    cases
}

fn parse_step(line: &str) -> Option<Step> {
    if let Some((to, bytes)) = line.split_once("> ").filter(|(to, _)| to.len() == 1) {
        let bytes = bytes.replace("\\r", "\r").replace("\\n", "\n");
        return Some(Step::Write { to: to.to_owned(), bytes });
    }
    let (word, rest) = line.split_once(' ')?;
    let ask = |method, once| Some(Step::Ask { text: line.to_owned(), method, path: rest.to_owned(), once });
    let on = word.to_owned();
    match (word, rest) {
        ("GET", _) => ask("GET", false),
        ("ONCE", _) => ask("GET", true),
        ("HEAD", _) => ask("HEAD", true),
        ("POST", _) => ask("POST", true),
        (_, "pong") => Some(Step::AwaitPong { on }),
        (_, "answered") => Some(Step::AwaitMessage { on }),
        (_, "shut") => Some(Step::Shut { on }),
        (_, "closed") => Some(Step::AwaitClose { on }),
        _ => None,
    }
}

fn read_recording(script: &Path) -> BTreeMap<String, Vec<Answer>> {
    let text = fs::read_to_string(script.with_extension("golden")).unwrap_or_default();
    let mut recordings: BTreeMap<String, Vec<Answer>> = BTreeMap::new();
    let mut title = String::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(new) = line.strip_prefix("=== ") {
            title = new.to_owned();
            recordings.insert(title.clone(), Vec::new());
            continue;
        }
        let answers = recordings.get_mut(&title).expect("a title comes first");
        match line.strip_prefix("    ") {
            Some(content) => {
                answers.last_mut().expect("a question comes first").lines.push(content.to_owned())
            }
            None => answers.push(Answer { question: line.to_owned(), lines: Vec::new() }),
        }
    }
    recordings
}

/// Plays a case on a server of its own. `expected` tells what to wait for.
fn play(case: &Case, binary: &Path, expected: Option<&[Answer]>) -> Vec<Answer> {
    let store = tempfile::tempdir().expect("a directory");
    let own = case.config.replace("STORE", &format!("{:?}", store.path()));
    // JetStream always has a system account in the reference.
    let system = if own.contains("jetstream") { "" } else { CONFIG };
    let config = format!("server_name: s\nhttp: \"127.0.0.1:-1\"\n{system}{own}");
    let server =
        ServerProcess::start(binary, &config).unwrap_or_else(|error| panic!("{}: {error}", case.title));
    let mut player = Player { address: server.address, lines: BTreeMap::new(), first_cid: None };
    let monitoring = server.monitoring();
    let mut answers = Vec::new();
    let mut is_settled = true;
    // Where an answer is waited for, how often was asked is chance.
    let counts = case.steps.iter().all(Step::is_question);
    for step in &case.steps {
        let Step::Ask { text, method, path, once } = step else {
            player.step(&case.title, step);
            is_settled = false;
            continue;
        };
        if expected.is_none() && !is_settled {
            thread::sleep(SETTLES_WITHIN);
        }
        is_settled = true;
        let wanted = expected.and_then(|expected| expected.get(answers.len()));
        let give_up = Instant::now() + ANSWERS_WITHIN;
        loop {
            let page = request(monitoring, method, path);
            let mut lines = render(&page, path, player.first_cid.unwrap_or(0), counts);
            if case.config.contains("jetstream") {
                // Both subscribe to the API, in their own ways.
                lines.retain(|line| !line.trim_start().starts_with("\"subscriptions\":"));
            }
            let answer = Answer { question: text.clone(), lines };
            if *once || wanted.is_none_or(|wanted| *wanted == answer) || Instant::now() > give_up {
                answers.push(answer);
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    answers
}

struct Player {
    address: SocketAddr,
    lines: BTreeMap<String, BufReader<TcpStream>>,
    /// The number of the first connection, by which the others are told.
    first_cid: Option<u64>,
}

impl Player {
    fn step(&mut self, title: &str, step: &Step) {
        match step {
            Step::Write { to, bytes } => {
                self.connection(to).get_mut().write_all(bytes.as_bytes()).expect("write");
            }
            Step::AwaitPong { on } => self.read_lines(title, on, |line| line.starts_with("PONG")),
            Step::AwaitMessage { on } => {
                self.read_lines(title, on, |line| line.starts_with("MSG ") || line.starts_with("HMSG "));
                // What is waited for has one line; an empty one is no end here.
                let mut payload = String::new();
                self.connection(on).read_line(&mut payload).expect("a payload");
            }
            Step::Shut { on } => {
                self.connection(on).get_mut().shutdown(Shutdown::Write).expect("shutdown");
                self.read_lines(title, on, str::is_empty);
            }
            Step::AwaitClose { on } => self.read_lines(title, on, str::is_empty),
            Step::Ask { .. } => unreachable!("asked elsewhere"),
        }
    }

    fn connection(&mut self, name: &str) -> &mut BufReader<TcpStream> {
        if !self.lines.contains_key(name) {
            let stream = TcpStream::connect(self.address).expect("connect");
            stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
            let mut reader = BufReader::new(stream);
            let mut info = String::new();
            reader.read_line(&mut info).expect("INFO");
            // A connection that is one too many gets no INFO in the reference.
            if let Some(json) = info.strip_prefix("INFO ") {
                let info: Value = serde_json::from_str(json).expect("JSON");
                self.first_cid = self.first_cid.or(info["client_id"].as_u64());
            }
            self.lines.insert(name.to_owned(), reader);
        }
        self.lines.get_mut(name).expect("just made")
    }

    /// Reads until a line is `last`; an empty one is the end.
    fn read_lines(&mut self, title: &str, name: &str, last: impl Fn(&str) -> bool) {
        let reader = self.connection(name);
        loop {
            let mut line = String::new();
            // A connection may be reset by its server; that is its end too.
            let len = reader.read_line(&mut line).unwrap_or(0);
            if last(&line) {
                return;
            }
            assert!(len > 0, "{title}: {name} was closed");
        }
    }
}

/// An answer in lines, with everything that has to differ replaced by its type.
fn render(page: &Page, path: &str, first_cid: u64, counts: bool) -> Vec<String> {
    let mut lines = vec![format!("{} {}", page.status, page.header("content-type").unwrap_or("-"))];
    for name in ["access-control-allow-origin", "x-content-type-options", "location"] {
        lines.extend(page.header(name).map(|value| format!("{name}: {value}")));
    }
    let is_json = page.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
    if page.status == 200 && path.contains("/debug/vars") {
        let names: Vec<String> = match page.json() {
            Value::Object(map) => map.keys().cloned().collect(),
            other => panic!("{other}"),
        };
        lines.push(format!("keys: {}", names.join(" ")));
    } else if is_json {
        if !page.body.is_empty() {
            page.json();
        }
        lines.extend(page.body.lines().filter_map(|line| render_line(line, first_cid, counts)));
        sort_subscriptions(&mut lines);
    } else if page.body.starts_with("<html") || page.body.starts_with("<!DOCTYPE html") {
        lines.push("(a page)".to_owned());
    } else {
        lines.extend(page.body.lines().map(str::to_owned));
    }
    lines
}

/// The reference tells the subscriptions of a connection, and of all, in random order.
fn sort_subscriptions(lines: &mut [String]) {
    let mut from = 0;
    while let Some(at) = lines[from..].iter().position(|line| {
        line.ends_with("\"subscriptions_list\": [") || line.ends_with("\"subscriptions_list_detail\": [")
    }) {
        let first = from + at + 1;
        let indent = lines[first - 1].len() - lines[first - 1].trim_start().len();
        let end = format!("{}]", " ".repeat(indent));
        let len = lines[first..].iter().position(|line| *line == end).expect("the list ends");
        let ends_entry =
            |line: &String| line.len() - line.trim_start().len() == indent + 2 && !line.ends_with('{');
        let mut entries: Vec<Vec<String>> =
            lines[first..first + len].split_inclusive(ends_entry).map(<[String]>::to_vec).collect();
        entries.sort();
        for (line, sorted) in lines[first..].iter_mut().zip(entries.into_iter().flatten()) {
            *line = sorted;
        }
        from = first + len;
    }
}

/// A line of indented JSON; `None` for those that only one of the servers has.
fn render_line(line: &str, first_cid: u64, counts: bool) -> Option<String> {
    let line = line.strip_suffix(',').unwrap_or(line);
    let indent = &line[..line.len() - line.trim_start().len()];
    let Some((key, value)) = line.trim_start().strip_prefix('"').and_then(|rest| rest.split_once("\": "))
    else {
        return Some(line.to_owned());
    };
    // That consumers are at most a thousand per stream is the reference's alone.
    if matches!(key, "git_commit" | "ringmain" | "default_max_consumers") {
        return None;
    }
    let mut shown = value.to_owned();
    if key == "cid" {
        let cid: u64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        shown = format!("<{}>", cid + 1 - first_cid);
    } else if (MASKED.contains(&key) || !counts && key.starts_with('/')) && value != "\"\"" && value != "{" {
        shown = kind_of(value).to_owned();
    }
    Some(format!("{indent}\"{key}\": {shown}"))
}

/// Keys whose values depend on the machine, the moment, or how a server is built.
const MASKED: [&str; 31] = [
    "server_id",
    "store_dir",
    "created",
    "first_ts",
    "last_ts",
    "last_active",
    "ts",
    "go",
    "port",
    "http_port",
    "start",
    "now",
    "uptime",
    "mem",
    "cpu",
    "config_load_time",
    "config_digest",
    "update_time",
    "last_activity",
    "stop",
    "rtt",
    "idle",
    "num_cache",
    "num_matches",
    "cache_hit_rate",
    "max_fanout",
    "avg_fanout",
    "cores",
    "gomaxprocs",
    "pending_bytes",
    "stalls",
];

fn kind_of(value: &str) -> &'static str {
    match serde_json::from_str(value) {
        Ok(Value::Number(_)) => "<number>",
        Ok(Value::String(text)) if is_time(&text) => "<time>",
        Ok(Value::String(text)) if is_duration(&text) => "<duration>",
        Ok(Value::String(_)) => "<text>",
        other => panic!("{value}: {other:?}"),
    }
}

/// RFC 3339 in UTC.
fn is_time(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let Some(rest) = shape.strip_prefix("0000-00-00T00:00:00") else { return false };
    rest == "Z" || (rest.starts_with('.') && rest.ends_with('Z') && (3..=11).contains(&rest.len()))
}

/// `1h2m3s`, `1.5ms`, `170µs`.
fn is_duration(text: &str) -> bool {
    let units = text.replace(|c: char| c.is_ascii_digit() || c == '.', "");
    text.starts_with(|c: char| c.is_ascii_digit())
        && ["ydhms", "dhms", "hms", "ms", "s", "µs", "ns"].contains(&units.as_str())
}

// ---- what no recording shows ----

/// Ringmain with a monitoring port and these options.
#[track_caller]
fn start(config: &str) -> ServerProcess {
    ServerProcess::start(&candidate(), &format!("http: \"127.0.0.1:-1\"\n{config}")).expect("a server")
}

#[test]
fn a_port_in_use_is_one_clear_error() {
    let server = start("");
    let taken = server.monitoring().port().to_string();
    let output = Command::new(candidate())
        .args(["-a", "127.0.0.1", "-p", "-1", "-m", &taken])
        .output()
        .expect("ringmain runs");
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let fatal: Vec<&str> = log.lines().filter(|line| line.contains("[FTL]")).collect();
    let expected = format!(
        "Can't start monitoring: can't listen to the monitor port: listen tcp 127.0.0.1:{taken}: bind: address \
         already in use"
    );
    assert!(fatal.len() == 1 && fatal[0].ends_with(&expected), "{log}");
}

#[test]
fn the_ports_file_names_the_monitoring() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(&format!("ports_file_dir: {:?}\n", directory.path()));
    let file = || {
        fs::read_dir(directory.path())
            .ok()?
            .flatten()
            .find(|file| file.path().extension().is_some_and(|e| e == "ports"))
    };
    wait_until("the ports file", PATIENCE, || file().is_some());
    let text = fs::read_to_string(file().expect("it is there").path()).expect("it can be read");
    let expected = format!(
        "{{\"nats\":[\"nats://{}\"],\"monitoring\":[\"http://{}\"]}}",
        server.address,
        server.monitoring()
    );
    assert_eq!(text, expected);
}

#[test]
fn a_reload_shows_in_varz() {
    let mut server = start("max_payload: 1000\n");
    let before = get(server.monitoring(), "/varz").json();
    let config = fs::read_to_string(server.path("server.conf")).expect("the configuration");
    fs::write(server.path("server.conf"), config.replace("1000", "2000")).expect("write");
    server.signal(libc::SIGHUP);
    wait_until("the new limit", PATIENCE, || get(server.monitoring(), "/varz").json()["max_payload"] == 2000);
    let after = get(server.monitoring(), "/varz").json();
    for key in ["config_load_time", "config_digest"] {
        assert_ne!(before[key], after[key], "{key}");
    }
    assert_eq!(before["start"], after["start"]);
    assert!(server.ended().is_none());
}

#[test]
fn pages_of_connections_have_each_of_them_once() {
    let server = start("");
    let peers: Vec<Peer> = (0..300)
        .map(|i| {
            let mut peer = Peer::open(server.address);
            peer.send(&format!("SUB page.{i} 1\r\n"));
            peer.round_trip();
            peer
        })
        .collect();
    let page = |path: &str| -> Vec<(u64, u64)> {
        let page = get(server.monitoring(), path).json();
        assert_eq!(page["total"], 300);
        let connections = page["connections"].as_array().expect("a list");
        assert_eq!(page["num_connections"], connections.len());
        connections
            .iter()
            .map(|row| {
                (
                    row["cid"].as_u64().expect("a number"),
                    row["subscriptions_list"].as_array().map_or(0, Vec::len) as u64,
                )
            })
            .collect()
    };
    for sort in ["cid", "subs", "uptime", "msgs_to"] {
        let mut seen: Vec<(u64, u64)> = (0..5)
            .flat_map(|i| page(&format!("/connz?sort={sort}&subs=1&limit=70&offset={}", i * 70)))
            .collect();
        assert_eq!(seen.len(), 300);
        assert!(seen.iter().all(|(_, subscriptions)| *subscriptions == 1));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 300);
    }
    drop(peers);
}

#[test]
fn a_hundred_thousand_subscriptions_are_paged() {
    const COUNT: usize = 100_000;
    let server = start(CONFIG);
    let mut peer = Peer::open(server.address);
    let mut lines = String::new();
    for i in 0..COUNT {
        lines.push_str(&format!("SUB many.{i} {}\r\n", i + 1));
    }
    peer.send(&lines);
    peer.round_trip();
    let other = Peer::open(server.address);
    let page = get(server.monitoring(), "/subsz?subs=1&limit=3&offset=99990").json();
    assert_eq!(
        (page["total"].as_u64(), page["num_subscriptions"].as_u64()),
        (Some(COUNT as u64), Some(COUNT as u64))
    );
    assert_eq!(page["subscriptions_list"].as_array().map(Vec::len), Some(3));
    let page = get(server.monitoring(), "/subsz?subs=1&test=many.777").json();
    assert_eq!(
        (page["total"].as_u64(), page["subscriptions_list"][0]["sid"].as_str()),
        (Some(1), Some("778"))
    );
    let page = get(server.monitoring(), "/connz?subs=detail&sort=subs").json();
    let list = page["connections"][0]["subscriptions_list_detail"].as_array().expect("a list");
    assert_eq!(list.len(), COUNT);
    assert!(list.iter().enumerate().all(|(i, row)| row["sid"].as_str() == Some(&(i + 1).to_string())));
    drop(other);
}

#[test]
fn a_slow_consumer_is_named_before_and_counted_after_it_is_cut_off() {
    let server = start("max_pending: 20MB\nwrite_deadline: \"2s\"\n");
    let mut lazy = Peer::open_with(server.address, "CONNECT {\"verbose\":false,\"name\":\"lazy\"}\r\n");
    lazy.send("SUB flood 1\r\n");
    lazy.round_trip();
    let mut talker = Peer::open(server.address);
    let payload = vec![b'x'; 500_000];
    // It does not read: what the kernel does not take waits in the server.
    for _ in 0..24 {
        talker.publish("flood", &payload);
    }
    talker.round_trip();
    let metrics = || get(server.monitoring(), "/metrics").body;
    wait_until("the one that is behind", PATIENCE, || {
        let text = metrics();
        let is_named = text.lines().any(|line| {
            line.starts_with("ringmain_slow_connection_pending_bytes{") && line.contains("name=\"lazy\"")
        });
        is_named || text.contains("gnatsd_varz_slow_consumers 1")
    });
    wait_until("the end of the slow consumer", PATIENCE, || {
        get(server.monitoring(), "/varz").json()["slow_consumers"] == 1
    });
    wait_until("its place among the closed", PATIENCE, || {
        let page = get(server.monitoring(), "/connz?state=closed").json();
        page["connections"][0]["reason"].as_str().is_some_and(|reason| reason.starts_with("Slow Consumer"))
    });
    assert_eq!(get(server.monitoring(), "/varz").json()["slow_consumer_stats"]["clients"], 1);
}

#[test]
fn questions_are_answered_while_messages_flow() {
    let server = start(CONFIG);
    let mut subscriber = Peer::open(server.address);
    subscriber.send("SUB flow 1\r\n");
    subscriber.round_trip();
    let monitoring = server.monitoring();
    let asker = thread::spawn(move || {
        for i in 0..60 {
            let path = ["/varz", "/connz?subs=1", "/metrics", "/subsz?subs=1"][i % 4];
            assert_eq!(get(monitoring, path).status, 200);
        }
    });
    let mut publisher = Peer::open(server.address);
    let mut sent = 0;
    while !asker.is_finished() {
        for _ in 0..100 {
            publisher.publish("flow", b"1234");
        }
        publisher.round_trip();
        sent += 100;
        (0..100).for_each(|_| subscriber.expect_message("flow", b"1234"));
    }
    asker.join().expect("every question was answered");
    let varz = get(monitoring, "/varz").json();
    let number = |key: &str| varz[key].as_u64().expect("a number");
    assert_eq!((number("in_msgs"), number("out_msgs")), (sent, sent));
    assert_eq!((number("in_bytes"), number("out_bytes")), (4 * sent, 4 * sent));
    assert_eq!((number("connections"), number("total_connections"), number("subscriptions")), (2, 2, 1));
}

#[test]
fn jetstream_shows_in_accounts_and_metrics() {
    let store = tempfile::tempdir().expect("a directory");
    let server = start(&format!(
        "{CONFIG}no_auth_user: a\njetstream {{ store_dir: {:?} }}\naccounts {{\n\
         A {{ jetstream: enabled, users: [ {{user: a, password: x}} ] }}\n\
         C {{ users: [ {{user: c, password: x}} ] }}\n}}\n",
        store.path()
    ));
    let ask = |path: &str| get(server.monitoring(), path).json();
    let mut peer = Peer::open(server.address);
    let mut request = |subject: &str, body: &str| {
        peer.send(&format!("PUB {subject} answers {}\r\n{body}\r\n", body.len()));
        peer.round_trip();
    };
    request("$JS.API.STREAM.CREATE.S", r#"{"name":"S","subjects":["s"],"max_msgs":77}"#);
    wait_until("the stream", PATIENCE, || ask("/jsz")["streams"] == 1);
    request("s", "hello");
    wait_until("the message", PATIENCE, || ask("/jsz")["messages"] == 1);
    let consumer =
        r#"{"stream_name":"S","config":{"durable_name":"c","ack_policy":"explicit","description":"d"}}"#;
    request("$JS.API.CONSUMER.DURABLE.CREATE.S.c", consumer);
    wait_until("the consumer", PATIENCE, || ask("/jsz")["consumers"] == 1);
    // A request counts when it has been answered.
    wait_until("both requests", PATIENCE, || ask("/jsz")["api"]["total"] == 2);
    for (account, enabled) in [("A", true), ("C", false)] {
        let detail = ask(&format!("/accountz?acc={account}"));
        assert_eq!(detail["account_detail"]["jetstream_enabled"], enabled, "{account}");
    }
    let text = get(server.monitoring(), "/metrics").body;
    let sample = |name: &str, labels: &[&str]| {
        let is_it = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
                && labels.iter().all(|label| line.contains(label))
        };
        let found: Vec<&str> = text.lines().filter(is_it).collect();
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        found[0].rsplit(' ').next().expect("a number").to_owned()
    };
    assert_eq!(sample("jetstream_server_total_streams", &[]), "1");
    assert_eq!(sample("jetstream_server_total_messages", &[]), "1");
    assert_eq!(sample("gnatsd_varz_jetstream_stats_api_total", &[]), "2");
    let stream = ["account_name=\"A\"", "stream_name=\"S\"", "is_stream_leader=\"true\""];
    assert_eq!(sample("jetstream_stream_total_messages", &stream), "1");
    assert_eq!(sample("jetstream_stream_limit_messages", &stream), "77");
    let consumer = [&stream[..], &["consumer_name=\"c\"", "consumer_desc=\"d\""]].concat();
    assert_eq!(sample("jetstream_consumer_num_pending", &consumer), "1");
    assert_eq!(
        sample("jetstream_account_storage_used", &["account=\"A\""]),
        ask("/jsz")["storage"].to_string()
    );
}

#[test]
fn a_head_that_is_too_large_or_no_http_hurts_nobody() {
    let server = start("");
    for bytes in [format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(200_000)), "nonsense\r\n\r\n".to_owned()] {
        let mut stream = TcpStream::connect(server.monitoring()).expect("connect");
        let _ = stream.write_all(bytes.as_bytes());
        let mut line = String::new();
        let _ = BufReader::new(stream).read_line(&mut line);
        assert!(line.is_empty() || line.starts_with("HTTP/1.1 4"), "{line}");
    }
    assert_eq!(get(server.monitoring(), "/healthz").body, "{\"status\":\"ok\"}");
}
