//! What `packaging/` offers works with this server: the command lines of the unit and of the image, their
//! configurations, and the paths that the documentation names. systemd checks the unit itself where it is at hand.

mod peer;
mod server_process;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use peer::{PATIENCE, Peer};
use server_process::{ServerProcess, announce, candidate, wait_until};

/// Where the unit and the image have the program and its configuration.
const INSTALLED_PROGRAM: &str = "/usr/bin/ringmain";
const INSTALLED_CONFIG: &str = "/etc/ringmain/ringmain.conf";

/// The calls without which there is no io_uring.
const IO_URING: [&str; 3] = ["io_uring_setup", "io_uring_enter", "io_uring_register"];

#[test]
fn the_unit_starts_and_reloads_the_server() {
    let unit = read("systemd/ringmain.service");
    let command = |key: &str| -> Vec<String> {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let words = line.unwrap_or_else(|| panic!("{key} is in the unit")).split(' ');
        words.map(str::to_owned).collect()
    };
    let start = command("ExecStart");
    let server = start_as(&start[0], &start[1..], "ringmain.conf");
    let [program, arguments @ ..] = &command("ExecReload")[..] else { panic!("a command") };
    assert_eq!(program, INSTALLED_PROGRAM);
    let pid = server.pid().to_string();
    let output = run(&arguments.iter().map(|word| word.replace("$MAINPID", &pid)).collect::<Vec<_>>());
    assert!(output.status.success(), "{output:?}");
    let reloaded = "Reloaded server configuration";
    wait_until(reloaded, PATIENCE, || server.log().contains(reloaded));
}

#[test]
fn the_image_starts_the_server() {
    let dockerfile = read("container/Dockerfile");
    let words = |instruction: &str| -> Vec<String> {
        let list = dockerfile.lines().find_map(|line| line.strip_prefix(instruction));
        serde_json::from_str(list.expect("an instruction")).expect("a list of words")
    };
    let entry = words("ENTRYPOINT ");
    let server = start_as(&entry[0], &words("CMD "), "container/ringmain.conf");
    Peer::open(server.address).round_trip();
    let exposed = dockerfile.lines().find_map(|line| line.strip_prefix("EXPOSE ")).expect("ports");
    for option in ["listen", "http"] {
        let config = read("container/ringmain.conf");
        let line = config.lines().find_map(|line| line.strip_prefix(option)).expect("an address");
        let (_, port) = line.trim_matches([' ', ':', '"']).rsplit_once(':').expect("a port");
        assert!(exposed.split(' ').any(|exposed| exposed == port), "{option}: {port}");
    }
}

#[test]
fn the_configurations_are_complete_and_ask_for_nothing_that_is_missing() {
    for config in ["ringmain.conf", "container/ringmain.conf"] {
        let path = packaging().join(config);
        let path = path.to_str().expect("a plain path");
        let output = run(&["-t".to_owned(), "-c".to_owned(), path.to_owned()]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        let expected = format!("nats-server: configuration file {path} is valid (sha256:");
        assert!(matches!(stderr.lines().collect::<Vec<_>>()[..], [line] if line.starts_with(&expected)));
    }
}

#[test]
fn systemd_has_nothing_against_the_unit_and_its_filter_lets_io_uring_through() {
    let systemd = |arguments: &[&str]| Command::new("systemd-analyze").args(arguments).output();
    if systemd(&["--version"]).is_err() {
        return announce("SKIPPED what systemd says of the unit: no systemd-analyze here");
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let program = candidate().display().to_string();
    let unit = read("systemd/ringmain.service").replace(INSTALLED_PROGRAM, &program);
    let path = directory.path().join("ringmain.service");
    std::fs::write(&path, &unit).expect("a file");
    let output = systemd(&["verify", path.to_str().expect("a plain path")]).expect("it runs");
    let complaints = String::from_utf8_lossy(&output.stderr);
    // It also speaks of units of this machine.
    let complaints: Vec<&str> = complaints.lines().filter(|line| line.contains("ringmain")).collect();
    assert!(output.status.success() && complaints.is_empty(), "{complaints:?}");

    let allowed = unit.lines().find_map(|line| line.strip_prefix("SystemCallFilter=@")).expect("a filter");
    for set in format!("@{allowed}").split(' ') {
        let output = systemd(&["syscall-filter", set]).expect("it runs");
        let names = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && !names.is_empty(), "{set}");
        if IO_URING.iter().all(|call| names.lines().any(|name| name.trim() == *call)) {
            return;
        }
    }
    panic!("no set of {allowed} has the calls of io_uring");
}

#[test]
fn the_seccomp_rule_allows_the_three_calls_of_io_uring() {
    let rule: serde_json::Value =
        serde_json::from_str(&read("container/seccomp-io-uring.json")).expect("JSON");
    assert_eq!(rule["names"], serde_json::json!(IO_URING));
    assert_eq!(rule["action"], "SCMP_ACT_ALLOW");
}

#[test]
fn the_documentation_names_files_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/operations.md")).expect("the page");
    let names = page.split(|c: char| c.is_whitespace() || matches!(c, '`' | '\'' | '"' | ')' | ':' | ','));
    let named: Vec<&str> = names.filter(|word| word.starts_with("packaging/")).collect();
    assert!(named.len() > 5, "{named:?}");
    for name in named {
        assert!(root.join(name.trim_end_matches('.')).is_file(), "{name}");
    }
}

/// Starts the server as `program` with `arguments` would start it once installed, but on free ports of this machine.
fn start_as(program: &str, arguments: &[String], config: &str) -> ServerProcess {
    assert_eq!(program, INSTALLED_PROGRAM);
    let config = packaging().join(config).display().to_string();
    let mut words: Vec<String> =
        arguments.iter().map(|word| word.replace(INSTALLED_CONFIG, &config)).collect();
    assert!(words.contains(&config), "{words:?}");
    words.extend(["-a", "127.0.0.1", "-p", "-1", "-m", "-1"].map(str::to_owned));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    ServerProcess::start_with(&candidate(), "", &words).expect("a server")
}

fn run(arguments: &[String]) -> Output {
    Command::new(candidate()).args(arguments).stdin(Stdio::null()).output().expect("it runs")
}

fn read(name: &str) -> String {
    let path = packaging().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}
