//! What operators do to a server, and what they see: signals by `--signal`, files that cannot be written, lame duck
//! mode, what a service manager is told. Where nothing else is said, the texts are the real nats-server's, and the same tests hold for it.

mod peer;
mod server_process;

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use peer::{Event, PATIENCE, Peer};
use server_process::{ServerProcess, announce, candidate, raise_open_files_limit, reference, wait_until};

/// Flags with a path that cannot be used, whether the server runs all the same, and what it says.
const UNUSABLE_PATHS: &[(&str, &str, bool, &str)] = &[
    ("-l", "/nonexistent/log", false, "error opening file: open /nonexistent/log: no such file or directory"),
    ("-l", "/", false, "error opening file: open /: is a directory"),
    (
        "-P",
        "/nonexistent/pid",
        false,
        "Could not write pidfile: open /nonexistent/pid: no such file or directory",
    ),
    ("-P", "/", false, "Could not write pidfile: open /: is a directory"),
    ("-c", "/nonexistent", false, "nats-server: open /nonexistent: no such file or directory"),
    ("-c", "/", false, "nats-server: read /: is a directory"),
    (
        "-a",
        "host.invalid",
        false,
        "[FTL] Error listening on port: host.invalid:0, \"listen tcp: lookup host.invalid",
    ),
    ("--ports_file_dir", "/nonexistent", true, "[ERR] Error writing ports file (/nonexistent/"),
];

#[test]
fn a_path_that_cannot_be_used_is_named_with_the_cause_in_one_line() {
    on_both(|binary| {
        for (flag, path, runs, text) in UNUSABLE_PATHS {
            if *runs {
                let arguments = ["-a", "127.0.0.1", "-p", "-1", flag, path];
                let server = ServerProcess::start_with(binary, "", &arguments).expect("it runs all the same");
                wait_until(text, PATIENCE, || server.log().contains(text));
                continue;
            }
            let output = run(binary, &["-p", "-1", flag, path]);
            let stderr = String::from_utf8_lossy(&output.stderr);
            let complaints: Vec<&str> = stderr.lines().filter(|line| !line.contains("[INF]")).collect();
            assert!(matches!(complaints[..], [line] if line.contains(text)), "{flag} {path}: {stderr}");
            assert_eq!(output.status.code(), Some(1), "{flag} {path}");
        }
    });
}

#[test]
fn a_host_for_the_monitoring_that_nobody_knows_is_named() {
    on_both(|binary| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("server.conf");
        std::fs::write(&path, "http: \"host.invalid:-1\"\n").expect("a file");
        let config = path.to_str().expect("a plain path");
        let output = run(binary, &["-a", "127.0.0.1", "-p", "-1", "-c", config]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let text =
            "[FTL] Can't start monitoring: can't listen to the monitor port: listen tcp: lookup host.invalid";
        assert!(stderr.contains(text), "{stderr}");
        assert_eq!(output.status.code(), Some(1));
    });
}

#[test]
fn the_pid_file_is_there_when_the_port_is_taken() {
    // A supervisor that waits for the file learns of the process that fails, and not of one before it.
    on_both(|binary| {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = taken.local_addr().expect("bound").port().to_string();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("pid");
        let output =
            run(binary, &["-a", "127.0.0.1", "-p", &port, "-P", path.to_str().expect("a plain path")]);
        assert_eq!(output.status.code(), Some(1));
        let pid: u32 = std::fs::read_to_string(&path).expect("the file").parse().expect("a number");
        assert!(pid > 0);
    });
}

/// Words of `--signal`, and what the log says of the signal; nothing where the process just ends.
const SIGNALS: &[(&str, &str)] = &[
    ("reopen", "Trapped \"user defined signal 1\" signal"),
    ("reload", "Trapped \"hangup\" signal"),
    ("ldm", "Trapped \"user defined signal 2\" signal"),
    ("term", "Trapped \"terminated\" signal"),
    ("quit", "Trapped \"interrupt\" signal"),
    ("stop", ""),
];

#[test]
fn each_signal_reaches_a_process_by_its_number_and_by_its_pid_file() {
    on_both(|binary| {
        for (word, line) in SIGNALS {
            for by_file in [false, true] {
                let arguments = ["-a", "127.0.0.1", "-p", "-1", "-P", "server.pid"];
                let mut server = ServerProcess::start_with(binary, "", &arguments).expect("a server");
                let target = if by_file {
                    server.path("server.pid").display().to_string()
                } else {
                    server.pid().to_string()
                };
                let output = run(binary, &["--signal", &format!("{word}={target}")]);
                assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]), "{word}");
                if line.is_empty() {
                    wait_until("the end of the process", PATIENCE, || server.ended().is_some());
                } else {
                    wait_until(line, PATIENCE, || server.log().contains(line));
                }
            }
        }
    });
}

#[test]
fn a_signal_that_cannot_be_sent_is_explained() {
    on_both(|binary| {
        for (request, text) in [
            ("stop=/nonexistent/pid", "nats-server: invalid pid: /nonexistent/pid"),
            ("stop=1=2", "nats-server: invalid signal parameters: [2]"),
            ("foo=999999999", "nats-server: unknown signal \"foo\""),
            // The reference says it on a second line.
            ("stop=999999999", "signal \"stop\" 999999999: no such process"),
        ] {
            let output = run(binary, &["-sl", request]);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(stderr.contains(text), "{request}: {stderr}");
            assert_eq!(output.status.code(), Some(1), "{request}");
        }
    });
}

/// Ringmain only: the reference would find other servers of this machine.
#[test]
fn without_a_number_the_only_process_of_that_name_gets_the_signal() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let binary = under_a_name_of_its_own(directory.path());
    let name = binary.file_name().expect("a name").to_string_lossy().into_owned();
    let signal = |request: &str| {
        let output = run(&binary, &["-sl", request]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).trim_end().to_owned())
    };
    let trapped = |server: &ServerProcess| server.log().matches("Trapped \"user defined signal 1\"").count();

    let nobody = format!("nats-server: no {name} processes running");
    for request in ["reopen", "reopen=", "reopen=*"] {
        assert_eq!(signal(request), (Some(1), nobody.clone()), "{request}");
    }
    let one = ServerProcess::start(&binary, "").expect("a server");
    assert_eq!(signal("reopen"), (Some(0), String::new()));
    wait_until("the signal", PATIENCE, || trapped(&one) == 1);

    let other = ServerProcess::start(&binary, "").expect("a server");
    let (code, text) = signal("reopen");
    let mut pids = [one.pid(), other.pid()];
    pids.sort_unstable();
    let expected = format!("nats-server: multiple {name} processes running:\n{}\n{}", pids[0], pids[1]);
    assert_eq!((code, text), (Some(1), expected));

    assert_eq!(signal(&format!("reopen={}*", other.pid())), (Some(0), String::new()));
    wait_until("the signal", PATIENCE, || trapped(&other) == 1);
    assert_eq!(signal("reopen=*"), (Some(0), String::new()));
    wait_until("the signal", PATIENCE, || trapped(&one) == 2 && trapped(&other) == 2);
}

#[test]
fn in_lame_duck_mode_the_signal_to_terminate_is_passed_over_and_an_interrupt_is_not() {
    on_both(|binary| {
        let mut server = ServerProcess::start(binary, "").expect("a server");
        let mut peer = Peer::open(server.address);
        peer.round_trip();
        for (signal, line) in [
            (libc::SIGUSR2, "Entering lame duck mode, stop accepting new clients"),
            (libc::SIGTERM, "Trapped \"terminated\" signal"),
        ] {
            server.signal(signal);
            wait_until(line, PATIENCE, || server.log().contains(line));
            peer.round_trip();
        }
        server.signal(libc::SIGINT);
        assert_eq!(peer.next(), Event::Closed);
        let mut status = None;
        wait_until("the end of the process", PATIENCE, || {
            status = server.ended();
            status.is_some()
        });
        assert_eq!(status.and_then(|status| status.code()), Some(0));
    });
}

/// Takes half a minute, the least that a configuration may ask for: `LAME_DUCK_CLIENTS=5000` runs it.
#[test]
fn lame_duck_mode_closes_very_many_connections_in_the_time_that_it_has() {
    let Ok(count) = std::env::var("LAME_DUCK_CLIENTS") else {
        return announce("SKIPPED lame_duck_mode_closes…: LAME_DUCK_CLIENTS=5000 runs it for half a minute");
    };
    let count: usize = count.parse().expect("a number of clients");
    raise_open_files_limit();
    let config = "lame_duck_duration: \"30s\", lame_duck_grace_period: \"2s\"\n";
    let mut server = ServerProcess::start(&candidate(), config).expect("a server");
    let mut peers: Vec<Peer> = (0..count).map(|_| Peer::open(server.address)).collect();
    peers.iter_mut().for_each(Peer::round_trip);
    let started = Instant::now();
    server.signal(libc::SIGUSR2);
    let mut closed_per_second = vec![0; 60];
    let mut waiting = peers;
    while !waiting.is_empty() {
        std::thread::sleep(Duration::from_millis(100));
        let second = started.elapsed().as_secs() as usize;
        waiting.retain_mut(|peer| {
            let closed = is_closed(peer);
            closed_per_second[second] += usize::from(closed);
            !closed
        });
        assert!(second < 45, "{} connections are left of {count}", waiting.len());
    }
    announce(&format!("lame duck mode: closed per second: {closed_per_second:?}"));
    assert_eq!(closed_per_second[..2].iter().sum::<usize>(), 0, "in the grace period");
    wait_until("the end of the process", PATIENCE, || server.ended().is_some());
}

/// Reads what there is.
fn is_closed(peer: &mut Peer) -> bool {
    let stream = peer.stream.get_ref();
    stream.set_nonblocking(true).expect("non-blocking");
    let mut buffer = [0; 4096];
    loop {
        match peer.stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

/// systemd's protocol: a datagram for each step. The reference does not speak it.
#[test]
fn a_service_manager_is_told_of_start_reload_lame_duck_mode_and_stop() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("notify");
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let config = directory.path().join("server.conf");
    std::fs::write(&config, "debug: false\n").expect("a file");
    let mut child = Command::new(candidate())
        .args(["-a", "127.0.0.1", "-p", "-1", "-l", "log", "-c"])
        .arg(&config)
        .current_dir(directory.path())
        .env("NOTIFY_SOCKET", &socket)
        .spawn()
        .expect("the candidate starts");
    let told = || {
        let mut buffer = [0; 200];
        let len = manager.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..len].to_vec()).expect("a text")
    };
    let signal = |signal| {
        let pid = i32::try_from(child.id()).expect("a pid fits");
        // SAFETY: kill takes no pointers, and the pid is that of a child not yet waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    };
    assert_eq!(told(), "READY=1");
    // One that changes something, and one that fails.
    for text in ["debug: true\n", "debug: maybe\n"] {
        std::fs::write(&config, text).expect("a file");
        signal(libc::SIGHUP);
        let reloading = told();
        let at = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("a reload");
        assert!(at.parse::<u64>().is_ok_and(|at| at > 0), "{reloading}");
        assert_eq!(told(), "READY=1");
    }
    signal(libc::SIGUSR2);
    assert_eq!(told(), "STATUS=Lame duck mode");
    assert_eq!(told(), "STOPPING=1");
    assert!(child.wait().expect("own child").success());
}

#[test]
fn a_service_manager_that_is_not_there_is_a_warning() {
    let mut child = Command::new(candidate())
        .args(["-a", "127.0.0.1", "-p", "-1"])
        .env("NOTIFY_SOCKET", "/nonexistent/notify")
        .stderr(Stdio::piped())
        .spawn()
        .expect("the candidate starts");
    let stderr = BufReader::new(child.stderr.take().expect("piped"));
    let line = stderr.lines().map_while(Result::ok).find(|line| line.contains("[WRN]"));
    assert!(line.is_some_and(|line| line.contains("NOTIFY_SOCKET")), "a warning");
    let _ = child.kill();
    let _ = child.wait();
}

/// The candidate under a name that no other process has.
fn under_a_name_of_its_own(directory: &Path) -> PathBuf {
    let binary = directory.join(format!("ring{}", std::process::id()));
    std::os::unix::fs::symlink(candidate(), &binary).expect("a link");
    binary
}

/// Runs `test` against Ringmain and, if it is there, the real nats-server.
fn on_both(test: impl Fn(&Path)) {
    test(&candidate());
    match reference() {
        Some(reference) => test(&reference),
        None => announce("SKIPPED for the reference: no nats-server here"),
    }
}

fn run(binary: &Path, arguments: &[&str]) -> Output {
    Command::new(binary).args(arguments).stdin(Stdio::null()).output().expect("it runs")
}
