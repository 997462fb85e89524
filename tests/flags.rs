//! What flags do, against the real nats-server: what a client and the monitoring see of a server that was started with
//! one, what the log shows, and that the help names them all. How a command line is read is `tests/config.rs`'s.

mod peer;
mod server_process;
mod web;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use peer::{PATIENCE, Peer};
use server_process::{ServerProcess, announce, candidate, reference, wait_until};

/// Arguments, and what `INFO` and `/varz` then say differently where a feature is missing: that is not compared. `PORT` is
/// a free port, `FILE` a configuration.
const EFFECTS: &[(&[&str], &[&str], &[&str])] = &[
    (&[], &[], &[]),
    (&["-a", "127.0.0.2"], &[], &[]),
    (&["--addr", "127.0.0.2"], &[], &[]),
    (&["--net=127.0.0.2"], &[], &[]),
    (&["-p", "PORT"], &[], &[]),
    (&["--port", "PORT"], &[], &[]),
    (&["-n", "somebody"], &[], &[]),
    (&["--name=somebody"], &[], &[]),
    (&["--server_name", "somebody"], &[], &[]),
    (&["-P", "server.pid"], &[], &[]),
    (&["--pid", "server.pid"], &[], &[]),
    (&["-m", "PORT"], &[], &[]),
    (&["--http_port", "PORT"], &[], &[]),
    (&["-c", "FILE"], &[], &[]),
    (&["--config", "FILE"], &[], &[]),
    (&["--config", "FILE", "-n", "somebody"], &[], &[]),
    (&["--client_advertise", "example.org:5222"], &[], &[]),
    (&["--client_advertise", "example.org"], &[], &[]),
    (&["--client_advertise", "example.org:0"], &[], &[]),
    (&["--client_advertise", "[::1]:5222"], &[], &[]),
    (&["--client_advertise", "[::1]"], &[], &[]),
    (&["--client_advertise", ":5222"], &[], &[]),
    (&["--ports_file_dir", "."], &[], &[]),
    (&["-l", "log"], &[], &[]),
    (&["--log", "log"], &[], &[]),
    (&["-T=false"], &[], &[]),
    (&["--logtime"], &[], &[]),
    (&["--logtime_utc"], &[], &[]),
    (&["-s=false"], &[], &[]),
    (&["--syslog=false"], &[], &[]),
    (&["-D"], &[], &[]),
    (&["--debug"], &[], &[]),
    (&["-V"], &[], &[]),
    (&["--trace"], &[], &[]),
    (&["-VV"], &[], &[]),
    (&["-DV"], &[], &[]),
    (&["-DVV"], &[], &[]),
    (&["--log_size_limit", "5"], &[], &[]),
    (&["--max_traced_msg_len", "5"], &[], &[]),
    (&["-js", "-sd", "store"], &["jetstream", "api_lvl"], &["jetstream"]),
    (&["--jetstream", "--store_dir", "store"], &["jetstream", "api_lvl"], &["jetstream"]),
    (&["-sd", "store"], &[], &[]),
    (&["--user", "a", "--pass", "b"], &[], &[]),
    (&["--user", "a"], &[], &[]),
    (&["--auth", "t"], &[], &[]),
    (&["--routes", "nats://127.0.0.1:1", "--cluster", "nats://127.0.0.1:-1"], &["cluster"], &["cluster"]),
    (&["--cluster", "nats://127.0.0.1:-1", "--cluster_name", "c"], &["cluster"], &["cluster"]),
    (&["--cluster_listen", "nats://127.0.0.1:-1"], &["cluster"], &["cluster"]),
    (&["--cluster_name", "c"], &["cluster"], &["cluster"]),
    (&["--no_advertise"], &[], &[]),
    (&["--connect_retries", "5"], &[], &[]),
    (&["--cluster_advertise", "example.org:1"], &[], &[]),
    (&["--profile", "-1"], &[], &[]),
];

/// Flags of the reference's help whose effect is something else, and the test of that.
const ELSEWHERE: &[(&str, &str)] = &[
    ("-t", "tests/config.rs"),
    ("-sl", "tests/operations.rs"),
    ("--signal", "tests/operations.rs"),
    ("-r", "tests/log.rs"),
    ("--remote_syslog", "tests/log.rs"),
    ("-h", "below"),
    ("--help", "below"),
    ("-v", "tests/config.rs"),
    ("--version", "tests/config.rs"),
    ("--help_tls", "tests/config.rs"),
    ("-ms", "tests/https.rs"),
    ("--https_port", "tests/https.rs"),
    ("--tls", "tests/tls.rs"),
    ("--tlscert", "tests/tls.rs"),
    ("--tlskey", "tests/tls.rs"),
    ("--tlsverify", "tests/tls.rs"),
    ("--tlscacert", "tests/tls.rs"),
];

#[test]
fn clients_and_monitoring_see_the_same_of_both_servers() {
    let Some(reference) = reference() else { return announce("SKIPPED: no nats-server here") };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("flags.conf");
    std::fs::write(&file, "server_name: filed\nmax_payload: 1000\nping_interval: \"7s\"\n").expect("a file");
    for (flags, missing_in_info, missing_in_varz) in EFFECTS {
        let port = free_port().to_string();
        let mut arguments = vec!["-a", "127.0.0.1", "-p", "-1", "-m", "-1"];
        arguments.extend(flags.iter().map(|word| match *word {
            "PORT" => port.as_str(),
            "FILE" => file.to_str().expect("a plain path"),
            word => word,
        }));
        let seen = |binary: &Path| {
            let server = ServerProcess::start_with(binary, "", &arguments);
            let server = server.unwrap_or_else(|error| panic!("{flags:?}: {error}"));
            let mut info = info(server.address);
            missing_in_info.iter().for_each(|key| drop(info.remove(*key)));
            let mut varz = varz(&server);
            missing_in_varz.iter().for_each(|key| drop(varz.remove(*key)));
            (info, varz)
        };
        let (own, theirs) = (seen(&candidate()), seen(&reference));
        assert_eq!(own.0, theirs.0, "INFO with {flags:?}");
        assert_eq!(own.1, theirs.1, "/varz with {flags:?}");
    }
}

#[test]
fn every_flag_of_the_references_help_has_its_effect_tested() {
    let Some(reference) = reference() else { return announce("SKIPPED: no nats-server here") };
    let words = EFFECTS.iter().flat_map(|(flags, ..)| flags.iter().copied());
    let tested: Vec<&str> = words
        .map(|word| word.split_once('=').map_or(word, |(flag, _)| flag))
        .chain(ELSEWHERE.iter().map(|(flag, _)| *flag))
        .collect();
    let flags = flags_in(&run(&reference, &["--help"]).0);
    let left: Vec<&String> = flags.iter().filter(|flag| !tested.contains(&flag.as_str())).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_help_names_every_flag_of_the_references_help_and_our_own() {
    let Some(reference) = reference() else { return announce("SKIPPED: no nats-server here") };
    let theirs = flags_in(&run(&reference, &["--help"]).0);
    assert!(theirs.len() > 50, "the flags of the help: {theirs:?}");
    let ours = run(&candidate(), &["--help"]).0;
    for flag in theirs.iter().map(String::as_str).chain(["--workers", "--io"]) {
        assert!(ours.split([' ', ',', '\n']).any(|word| word == flag), "{flag} is not in the help");
    }
    assert_eq!(run(&candidate(), &["help"]).0, ours);
}

#[test]
fn the_documentation_names_every_flag_of_the_help() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md"))
        .expect("the page");
    // A flag may stand there with its value.
    let missing =
        |flag: &String| !page.contains(&format!("`{flag}`")) && !page.contains(&format!("`{flag} "));
    let flags = flags_in(&run(&candidate(), &["--help"]).0);
    assert!(flags.len() > 50, "the flags of the help: {flags:?}");
    let missing: Vec<&String> = flags.iter().filter(|flag| missing(flag)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_the_flags_of_the_log_show() {
    for binary in [Some(candidate()), reference()].into_iter().flatten() {
        for (flag, debug, trace, time) in [
            ("-D", true, false, true),
            ("-V", false, true, true),
            ("-DV", true, true, true),
            ("-DVV", true, true, true),
            ("-T=false", false, false, false),
            ("--logtime_utc", false, false, true),
        ] {
            let server = ServerProcess::start_with(&binary, "", &["-a", "127.0.0.1", "-p", "-1", flag])
                .unwrap_or_else(|error| panic!("{flag}: {error}"));
            let mut peer = Peer::open(server.address);
            peer.round_trip();
            drop(peer);
            if debug {
                wait_until("a line of debugging", PATIENCE, || server.log().contains("[DBG]"));
            }
            if trace {
                wait_until("a line of tracing", PATIENCE, || server.log().contains("[TRC]"));
            }
            let log = server.log();
            assert_eq!((log.contains("[DBG]"), log.contains("[TRC]")), (debug, trace), "{flag}");
            let first = log.lines().next().unwrap_or_default();
            assert_eq!(first.contains('/') && first.contains(':'), time, "{flag}: {first}");
        }
    }
}

/// Everything in a help text that looks like a flag.
fn flags_in(help: &str) -> Vec<String> {
    let lines = help.lines().filter(|line| line.trim_start().starts_with('-'));
    let mut flags: Vec<String> = lines
        .flat_map(|line| {
            // Where the columns are close together, a comma stands between flags and no space.
            let (names, _) = line.trim().split_once("  ").unwrap_or((line.trim(), ""));
            names
                .split([',', ' '])
                .filter(|word| word.starts_with('-'))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    flags.dedup();
    flags
}

fn run(binary: &Path, arguments: &[&str]) -> (String, String) {
    let output = Command::new(binary).args(arguments).stdin(Stdio::null()).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Free a moment ago, which has to do for a port that two servers use one after the other.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// What a server says of itself in `/varz`, without what names it and its build, and without what differs from moment to
/// moment or from one machine to the next.
fn varz(server: &ServerProcess) -> BTreeMap<String, String> {
    let mut varz: BTreeMap<String, serde_json::Value> =
        serde_json::from_value(web::get(server.monitoring(), "/varz").json()).expect("an object");
    let id = varz.remove("server_id");
    if varz.get("server_name") == id.as_ref() {
        varz.remove("server_name");
    }
    if varz.get("port").and_then(serde_json::Value::as_u64) == Some(server.address.port().into()) {
        varz.remove("port");
    }
    if varz.get("http_port").and_then(serde_json::Value::as_u64) == Some(server.monitoring().port().into()) {
        varz.remove("http_port");
    }
    for key in ["git_commit", "go", "ringmain", "start", "now", "uptime", "config_load_time"] {
        varz.remove(key);
    }
    // The reference has clients inside itself, and a system account.
    for key in ["mem", "cpu", "cores", "gomaxprocs", "connections", "subscriptions", "system_account"] {
        varz.remove(key);
    }
    varz.into_iter().map(|(key, value)| (key, value.to_string())).collect()
}

/// What a server says first, without what names it, its build or its port.
fn info(address: SocketAddr) -> BTreeMap<String, String> {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a line");
    let json = line.strip_prefix("INFO ").expect("INFO");
    let mut info: BTreeMap<String, serde_json::Value> = serde_json::from_str(json).expect("JSON");
    let id = info.remove("server_id");
    if info.get("server_name") == id.as_ref() {
        info.remove("server_name");
    }
    if info.get("port").and_then(serde_json::Value::as_u64) == Some(address.port().into()) {
        info.remove("port");
    }
    for key in ["git_commit", "go", "ringmain", "xkey", "client_id", "nonce"] {
        info.remove(key);
    }
    info.into_iter().map(|(key, value)| (key, value.to_string())).collect()
}
