//! What flags do, against the real nats-server: what a client sees of a server that was started with one, what the log
//! shows, and that the help names them all. How a command line is read is `tests/config.rs`'s.

mod peer;
mod server_process;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use peer::{PATIENCE, Peer};
use server_process::{ServerProcess, announce, candidate, reference, wait_until};

/// Arguments, and what INFO then says differently where a feature is missing: that is not compared.
const EFFECTS: &[(&[&str], &[&str])] = &[
    (&[], &[]),
    (&["-n", "somebody"], &[]),
    (&["--name=somebody"], &[]),
    (&["--server_name", "somebody"], &[]),
    (&["--client_advertise", "example.org:5222"], &[]),
    (&["--client_advertise", "example.org"], &[]),
    (&["--user", "a", "--pass", "b"], &[]),
    (&["--user", "a"], &[]),
    (&["--auth", "t"], &[]),
    (&["-D"], &[]),
    (&["-V"], &[]),
    (&["-DV"], &[]),
    (&["-VV"], &[]),
    (&["-DVV"], &[]),
    (&["-T=false"], &[]),
    (&["--logtime_utc"], &[]),
    (&["--max_traced_msg_len", "5"], &[]),
    (&["-P", "server.pid"], &[]),
    (&["--ports_file_dir", "."], &[]),
    (&["-m", "-1"], &[]),
    (&["--profile", "-1"], &[]),
    (&["-sd", "store"], &[]),
    (&["-js", "-sd", "store"], &["jetstream", "api_lvl"]),
    (&["--cluster", "nats://127.0.0.1:-1", "--cluster_name", "c"], &["cluster"]),
    (&["--cluster_listen", "nats://127.0.0.1:-1"], &["cluster"]),
    (&["--cluster_name", "c"], &["cluster"]),
    (&["--no_advertise"], &[]),
    (&["--connect_retries", "5"], &[]),
    (&["--cluster_advertise", "example.org:1"], &[]),
    (&["-s=false"], &[]),
    (&["--log_size_limit", "5"], &[]),
];

#[test]
fn clients_see_the_same_of_both_servers() {
    let Some(reference) = reference() else { return announce("SKIPPED: no nats-server here") };
    for (flags, missing) in EFFECTS {
        let mut arguments = vec!["-a", "127.0.0.1", "-p", "-1"];
        arguments.extend(*flags);
        let seen = |binary: &Path| {
            let server = ServerProcess::start_with(binary, "", &arguments);
            let server = server.unwrap_or_else(|error| panic!("{flags:?}: {error}"));
            let mut info = info(server.address);
            missing.iter().for_each(|key| drop(info.remove(*key)));
            info
        };
        assert_eq!(seen(&candidate()), seen(&reference), "{flags:?}");
    }
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
