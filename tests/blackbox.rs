//! Ringmain from outside: real sockets, real processes, what an operator and a badly behaved client see.
//!
//! Every test holds for the real nats-server too (`RINGMAIN_BIN=.deps/py/bin/nats-server` proves it). Waits are for
//! conditions, bounded by [`PATIENCE`], which only a failure uses up. Random tests print the seed that replays them.
//!
//! ```text
//! RINGMAIN_BIN=…         judges that binary instead of the one just built
//! RINGMAIN_IO=…          what drives its sockets: uring, epoll, or epoll because io_uring is refused
//! SEED=n                 the seed of the random tests
//! MALFORMED_FRAMES=n     how many broken frames (default 20,000)
//! ```

mod peer;
mod server_process;

use peer::{Event, PATIENCE, Peer};
use server_process::{ServerProcess, announce, candidate, raise_open_files_limit, refuse, wait_until};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

// ---- connections ----

#[test]
fn thousands_of_connections_leave_no_open_files_behind() {
    raise_open_files_limit();
    let server = start("");
    let open_and_close = |count: usize| {
        let mut peers: Vec<Peer> = (0..count).map(|_| Peer::open(server.address)).collect();
        for (i, peer) in peers.iter_mut().enumerate() {
            peer.send(&format!("SUB many.{i} 1\r\nPING\r\n"));
        }
        peers.iter_mut().for_each(Peer::expect_pong);
    };
    // One connection stays, so that whatever the first one brings about is counted in.
    let mut witness = Peer::open(server.address);
    witness.round_trip();
    let before = server.open_files();
    for _ in 0..3 {
        open_and_close(2000);
        wait_until("the files of two thousand connections", PATIENCE, || server.open_files() <= before);
    }
    witness.round_trip();
}

#[test]
fn connections_cut_in_the_middle_of_a_frame_leave_no_open_files_behind() {
    raise_open_files_limit();
    let server = start("");
    let mut witness = Peer::open(server.address);
    witness.round_trip();
    let before = server.open_files();
    for frame in ["PUB foo 100\r\nhalf", "SUB fo", "CONNECT {\"verb", "HPUB foo 12 50\r\nNATS/1.0\r\n", ""] {
        for _ in 0..100 {
            let mut stream = TcpStream::connect(server.address).expect("connect");
            let _ = stream.write_all(frame.as_bytes());
        }
    }
    wait_until("the files of the cut connections", PATIENCE, || server.open_files() <= before);
    witness.round_trip();
}

#[test]
fn a_thousand_silent_connections_do_not_delay_a_pair() {
    raise_open_files_limit();
    let server = start("");
    let silent: Vec<TcpStream> =
        (0..1000).map(|_| TcpStream::connect(server.address).expect("connect")).collect();
    let (mut asker, mut answerer) = (Peer::open(server.address), Peer::open(server.address));
    answerer.send("SUB question 1\r\n");
    answerer.round_trip();
    asker.send("SUB answer 1\r\n");
    asker.round_trip();
    let mut slowest = Duration::ZERO;
    for i in 0..500 {
        let asked = Instant::now();
        asker.publish("question", i.to_string().as_bytes());
        answerer.expect_message("question", i.to_string().as_bytes());
        answerer.publish("answer", i.to_string().as_bytes());
        asker.expect_message("answer", i.to_string().as_bytes());
        slowest = slowest.max(asked.elapsed());
    }
    // A machine under load may pause anything for a while; a server that polls its idle connections takes longer.
    assert!(slowest < Duration::from_secs(2), "a request took {slowest:?}");
    drop(silent);
}

#[test]
fn a_client_that_sends_one_byte_at_a_time_is_served() {
    let server = start("");
    let mut peer = Peer::open(server.address);
    let dialogue =
        "sub a.* 7\r\nPUB a.b reply 5\r\nhello\r\nHPUB a.c 17 19\r\nNATS/1.0\r\nA:b\r\n\r\nhi\r\nPING\r\n";
    for byte in dialogue.bytes() {
        peer.send_bytes(&[byte]);
    }
    peer.expect_message("a.b", b"hello");
    peer.expect_message("a.c", b"NATS/1.0\r\nA:b\r\n\r\nhi");
    peer.expect_pong();
}

#[test]
fn a_dialogue_split_at_any_byte_gets_the_same_answer() {
    let server = start("");
    let dialogue = "CONNECT {\"verbose\":true,\"headers\":true}\r\nSUB a.* q 1\r\nPUB a.b  reply\t12\r\nhello\r\nworld\r\n\
        HPUB a.c 17 19\r\nNATS/1.0\r\nA:b\r\n\r\nhi\r\nUNSUB 1 3\nPUB a.d 0\r\n\r\nPING abc\r\nPUB a.e 1\r\nx\r\nfoo\r\n"
        .as_bytes();
    let answer = |split: usize| {
        let mut stream = TcpStream::connect(server.address).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
        let mut reader = BufReader::new(stream.try_clone().expect("clone"));
        reader.read_line(&mut String::new()).expect("INFO");
        stream.write_all(&dialogue[..split]).expect("write");
        // Long enough for the server to read the first part alone, nearly always.
        thread::sleep(Duration::from_millis(1));
        stream.write_all(&dialogue[split..]).expect("write");
        let mut answer = Vec::new();
        // The dialogue ends in nonsense, so that the server closes.
        reader.read_to_end(&mut answer).unwrap_or_else(|e| panic!("split at {split}: {e}"));
        String::from_utf8_lossy(&answer).into_owned()
    };
    let whole = answer(0);
    assert!(whole.ends_with("PONG\r\n+OK\r\n-ERR 'Unknown Protocol Operation'\r\n"), "{whole}");
    for split in 1..dialogue.len() {
        assert_eq!(answer(split), whole, "split at {split}");
    }
}

#[test]
fn a_subscriber_that_stops_reading_is_cut_off_and_nobody_else() {
    let server = start("max_payload: 65536\nmax_pending: 1MB\nwrite_deadline: \"1s\"\n");
    let (mut stuck, mut healthy, mut publisher) =
        (Peer::open(server.address), Peer::open(server.address), Peer::open(server.address));
    for subscriber in [&mut stuck, &mut healthy] {
        subscriber.send("SUB flood 1\r\n");
        subscriber.round_trip();
    }
    let payload = vec![b'x'; 65536];
    let give_up = Instant::now() + PATIENCE;
    let mut published = 0;
    while !server.log().contains("Slow Consumer Detected") {
        assert!(
            Instant::now() < give_up,
            "not cut off after {published} messages of 64 KB:\n{}",
            server.log()
        );
        // In step with the healthy subscriber, which therefore never has much pending.
        publisher.publish("flood", &payload);
        healthy.expect_message("flood", &payload);
        published += 1;
    }
    publisher.publish("flood", b"afterwards");
    healthy.expect_message("flood", b"afterwards");
    publisher.round_trip();
    healthy.round_trip();
    // What was buffered in the kernel still comes, then the end.
    let mut received = 0;
    while let Event::Message { .. } = stuck.next() {
        received += 1;
    }
    assert!(received < published, "the stuck subscriber got all {published} messages");
}

// ---- logins ----

/// `secret`, at a cost that makes a comparison take tens of milliseconds at least.
const SLOW_HASH: &str = "$2a$10$/OSD/OSD/OSD/OSD/OSD/O2cvnn5KyZhTKfom/r7a/wqgf69q38xu";

#[test]
fn a_flood_of_logins_against_a_hash_stalls_nobody() {
    const LOGINS: usize = 100;
    let users = format!("users: [{{user: a, password: {SLOW_HASH:?}}}, {{user: b, password: y}}]");
    let server = start(&format!("authorization {{ {users} }}"));
    let hello = |user: &str, password: &str| {
        format!("CONNECT {{\"verbose\":false,\"user\":{user:?},\"pass\":{password:?}}}\r\n")
    };
    let mut witness = Peer::open_with(server.address, &hello("b", "y"));
    witness.send("SUB s 1\r\n");
    let mut flood: Vec<Peer> = (0..LOGINS)
        .map(|i| Peer::open_with(server.address, &(hello(["a", "z"][i % 2], "wrong") + "PUB s 1\r\nx\r\n")))
        .collect();
    for i in 0..1000 {
        witness.publish("s", i.to_string().as_bytes());
        witness.expect_message("s", i.to_string().as_bytes());
    }
    for peer in &mut flood {
        // Those that would have to wait too long are told so.
        match peer.next() {
            Event::Error(text) if text.contains("Authorization Violation") => {}
            Event::Error(text) if text.contains("Authentication Timeout") => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(peer.next(), Event::Closed);
    }
    witness.round_trip();
    let mut late = Peer::open_with(server.address, &hello("a", "secret"));
    late.round_trip();
}

#[test]
fn a_client_that_closes_its_side_while_its_password_is_checked_still_gets_its_answers() {
    let server = start(&format!("authorization {{ token: {SLOW_HASH:?} }}"));
    let mut peer = Peer::open_with(
        server.address,
        "CONNECT {\"verbose\":false,\"auth_token\":\"secret\"}\r\nSUB s 1\r\nPUB s 1\r\nx\r\nPING\r\n",
    );
    peer.stream.get_mut().shutdown(std::net::Shutdown::Write).expect("half-close");
    peer.expect_message("s", b"x");
    peer.expect_pong();
    assert_eq!(peer.next(), Event::Closed);
}

#[test]
fn the_log_names_who_is_refused_and_who_is_in() {
    let server = start("debug: true, authorization { users: [{user: a, password: x}] }");
    let waits_for = |text: &str| wait_until(text, PATIENCE, || server.log().contains(text));
    waits_for("Plaintext passwords detected, use nkeys or bcrypt");
    for (shown, text) in [
        (r#""user":"z","pass":"x""#, r#"- authentication error - User "z""#),
        (r#""auth_token":"x""#, r#"- authentication error - Token "[REDACTED]""#),
        (r#""nkey":"U","user":"z""#, r#"- authentication error - Nkey "U""#),
        (r#""name":"n""#, "- authentication error\n"),
    ] {
        let mut peer = Peer::open_with(server.address, &format!("CONNECT {{{shown}}}\r\n"));
        assert_eq!(peer.next(), Event::Error("-ERR 'Authorization Violation'".to_owned()));
        waits_for(text);
    }
    let hello = r#"CONNECT {"verbose":false,"user":"a","pass":"x","name":"n","lang":"l","version":"1"}"#;
    let mut peer = Peer::open_with(server.address, &format!("{hello}\r\n"));
    peer.round_trip();
    drop(peer);
    waits_for(r#"- "v1:l:n" - "$G/user:a" - Client connection closed: Client Closed"#);
}

// ---- the process ----

#[test]
fn version_is_printed_as_the_reference_does() {
    let output = run(&["--version"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.lines().next(), Some("nats-server: v2.15.1"));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn an_unknown_flag_is_named_on_stderr_and_the_usage_printed() {
    // Exit status 0 is what the reference does, surprising as it is.
    let output = run(&["--nonsense"]);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(stderr.lines().next(), Some("flag provided but not defined: -nonsense"));
    assert!(stdout.trim_start().starts_with("Usage: "), "{stdout}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn flags_with_bad_values_are_explained() {
    for (arguments, complaint) in [
        (&["-p"][..], "flag needs an argument: -p"),
        (&["-p", "abc"][..], "invalid value \"abc\" for flag -p: parse error"),
    ] {
        let output = run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(stderr.lines().next(), Some(complaint), "{arguments:?}");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn an_unexpected_word_and_a_missing_configuration_file_end_with_status_1() {
    for (arguments, complaint) in [
        (&["extra"][..], "nats-server: unrecognized command: \"extra\""),
        (&["-c", "/nonexistent"][..], "nats-server: open /nonexistent: no such file or directory"),
    ] {
        let output = run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(stderr.lines().next(), Some(complaint), "{arguments:?}");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    }
}

#[test]
fn a_port_in_use_is_named_with_the_cause_and_ends_with_status_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let output = run(&["-a", "127.0.0.1", "-p", &address.port().to_string()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let complaint = format!(
        "[FTL] Error listening on port: {address}, \"listen tcp {address}: bind: address already in use\""
    );
    assert!(stderr.contains(&complaint), "no {complaint:?} in:\n{stderr}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_refused_io_uring_that_was_asked_for_is_one_clear_error() {
    if judges_another_server("a_refused_io_uring_that_was_asked_for_is_one_clear_error") {
        return;
    }
    let mut command = Command::new(candidate());
    command.args(["-a", "127.0.0.1", "-p", "-1", "--io", "uring"]);
    refuse(libc::SYS_io_uring_setup, &mut command);
    let output = command.output().expect("the candidate starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<&str> = stderr.lines().filter(|line| !line.contains("[INF]")).collect();
    assert_eq!(complaints.len(), 1, "{stderr}");
    for part in ["[FTL] io_uring is refused", "kernel.io_uring_disabled", "seccomp"] {
        assert!(complaints[0].contains(part), "no {part:?} in {stderr}");
    }
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn where_io_uring_is_refused_one_warning_names_cause_and_remedy_and_epoll_serves() {
    if judges_another_server("where_io_uring_is_refused…") {
        return;
    }
    // Profiles that refuse only what comes after the set-up exist too.
    for call in [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register] {
        let server = ServerProcess::start_refusing(call, &candidate(), "workers: 2\n");
        let server = server.unwrap_or_else(|e| panic!("{e}"));
        let log = server.log();
        assert!(log.contains("[INF] Using epoll for sockets\n"), "{log}");
        let complaints: Vec<&str> = log.lines().filter(|line| !line.contains("[INF]")).collect();
        assert_eq!(complaints.len(), 1, "{log}");
        for part in ["[WRN] io_uring is refused", "kernel.io_uring_disabled", "seccomp", "epoll"] {
            assert!(complaints[0].contains(part), "no {part:?} in {log}");
        }
        serve_an_application(&server);
    }
}

/// Some kernels count the memory of an io_uring as locked: where little may be locked, they refuse it to the first worker or
/// to a later one. Others do not count it, and then there is nothing to refuse.
#[test]
fn where_a_worker_gets_no_memory_for_io_uring_all_take_epoll() {
    if judges_another_server("where_a_worker_gets_no_memory_for_io_uring…") {
        return;
    }
    for limit_bytes in [0, 1 << 20, 3 << 20] {
        let server = ServerProcess::start_with_locked_memory(limit_bytes, &candidate(), "workers: 4\n");
        let server = server.unwrap_or_else(|e| panic!("{e}"));
        let log = server.log();
        let complaints: Vec<&str> = log.lines().filter(|line| !line.contains("[INF]")).collect();
        if log.contains("[INF] Using io_uring for sockets\n") {
            assert!(complaints.is_empty(), "{log}");
            announce(&format!("this kernel gives four workers their rings with {limit_bytes} bytes to lock"));
        } else {
            assert!(log.contains("[INF] Using epoll for sockets\n"), "{log}");
            assert_eq!(complaints.len(), 1, "{log}");
            for part in ["[WRN] io_uring is refused its memory", "LimitMEMLOCK=", "epoll"] {
                assert!(complaints[0].contains(part), "no {part:?} in {log}");
            }
        }
        serve_an_application(&server);
    }
}

#[test]
fn epoll_that_was_asked_for_draws_no_warning() {
    if judges_another_server("epoll_that_was_asked_for_draws_no_warning") {
        return;
    }
    let arguments = ["-a", "127.0.0.1", "-p", "-1", "--io", "epoll"];
    let server = ServerProcess::start_with(&candidate(), "workers: 2\nio: uring\n", &arguments);
    let server = server.unwrap_or_else(|e| panic!("{e}"));
    let log = server.log();
    assert!(log.contains("[INF] Using epoll for sockets\n") && !log.contains("[WRN]"), "{log}");
    serve_an_application(&server);
}

fn judges_another_server(test: &str) -> bool {
    let another = std::env::var_os("RINGMAIN_BIN").is_some();
    if another {
        announce(&format!("SKIPPED {test}: another server is judged, which may know no io_uring"));
    }
    another
}

/// Orders are published to all and to a group, large ones too, and a service answers requests: over more connections
/// than there are workers.
fn serve_an_application(server: &ServerProcess) {
    const ORDERS: usize = 500;
    let mut auditors: Vec<Peer> = (0..3).map(|_| Peer::open(server.address)).collect();
    for auditor in &mut auditors {
        auditor.send("SUB orders.> audit\r\n");
        auditor.round_trip();
    }
    let mut packers: Vec<Peer> = (0..3).map(|_| Peer::open(server.address)).collect();
    for packer in &mut packers {
        packer.send("SUB orders.* packers pack\r\nSUB done done\r\n");
        packer.round_trip();
    }
    let mut service = Peer::open(server.address);
    service.send("SUB price.* 1\r\n");
    service.round_trip();
    let mut shop = Peer::open(server.address);
    shop.send("SUB inbox.* 1\r\n");
    shop.round_trip();
    // Every tenth is larger than what a socket holds.
    let order = |i: usize| vec![b'a' + (i % 26) as u8; if i % 10 == 9 { 700_000 } else { 10 + i }];
    let packed: usize = thread::scope(|scope| {
        for auditor in &mut auditors {
            scope.spawn(move || {
                for i in 0..ORDERS {
                    auditor.expect_message(&format!("orders.{i}"), &order(i));
                }
            });
        }
        let packing: Vec<_> = packers
            .iter_mut()
            .map(|packer| {
                scope.spawn(move || {
                    let mut count = 0;
                    loop {
                        match packer.next() {
                            Event::Message { sid, .. } if sid == "pack" => count += 1,
                            Event::Message { .. } => return count,
                            other => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            for i in 0..ORDERS {
                service.expect_message(&format!("price.{i}"), b"?");
                service.publish(&format!("inbox.{i}"), i.to_string().as_bytes());
            }
        });
        for i in 0..ORDERS {
            shop.send(&format!("PUB price.{i} inbox.{i} 1\r\n?\r\n"));
            shop.expect_message(&format!("inbox.{i}"), i.to_string().as_bytes());
            shop.publish(&format!("orders.{i}"), &order(i));
        }
        shop.publish("done", b"");
        shop.round_trip();
        packing.into_iter().map(|packer| packer.join().expect("a packer")).sum()
    });
    assert_eq!(packed, ORDERS);
}

#[test]
fn port_minus_one_takes_a_free_port_and_says_so_before_it_is_ready() {
    let (one, other) = (start(""), start(""));
    assert_ne!(one.address.port(), other.address.port());
    assert_ne!(one.address.port(), 0);
    let log = one.log();
    let listening = log.find("Listening for client connections on 127.0.0.1:").expect("a listening line");
    let ready = log.find("Server is ready").expect("a ready line");
    assert!(listening < ready, "{log}");
    for line in log.lines() {
        assert!(line.starts_with(&format!("[{}] 20", one.pid())), "not a log line: {line}");
        assert!(["[INF] ", "[WRN] "].iter().any(|level| line.contains(level)), "not a log line: {line}");
    }
    Peer::open(one.address).round_trip();
}

#[test]
fn the_flag_wins_over_the_port_in_the_configuration_file() {
    let server = ServerProcess::start_with(&candidate(), "listen: 127.0.0.1:1\n", &["-p", "-1"]);
    let server = server.unwrap_or_else(|e| panic!("{e}"));
    assert_ne!(server.address.port(), 1);
    Peer::open(server.address).round_trip();
}

#[test]
fn the_pid_file_holds_the_number_and_no_line_end() {
    let arguments = ["-a", "127.0.0.1", "-p", "-1", "-P", "server.pid"];
    let server = ServerProcess::start_with(&candidate(), "", &arguments).unwrap_or_else(|e| panic!("{e}"));
    let text = std::fs::read_to_string(server.path("server.pid")).expect("a pid file");
    assert_eq!(text, server.pid().to_string());
}

#[test]
fn a_log_file_is_written_instead_of_stderr() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("server.log");
    let mut command = Command::new(candidate());
    let mut child = command.args(["-a", "127.0.0.1", "-p", "-1", "-l"]).arg(&log).spawn().expect("start");
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_until("Server is ready in the log file", PATIENCE, || text().contains("[INF] Server is ready"));
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn signals_are_named_in_the_log_and_a_log_file_is_reopened() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (log, moved) = (dir.path().join("server.log"), dir.path().join("server.log.1"));
    let path = log.to_str().expect("a plain path");
    let arguments = ["-a", "127.0.0.1", "-p", "-1"];
    let has =
        |path: &std::path::Path, line: &str| std::fs::read_to_string(path).unwrap_or_default().contains(line);
    let mut child =
        Command::new(candidate()).args(arguments).args(["-l", path]).spawn().expect("the candidate starts");
    wait_until("ready", PATIENCE, || has(&log, "Server is ready"));
    std::fs::rename(&log, &moved).expect("moved away");
    let pid = i32::try_from(child.id()).expect("a pid fits");
    // SAFETY: kill takes no pointers, and the pid is that of a child not yet waited for.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGUSR1) }, 0);
    wait_until("a new log file", PATIENCE, || has(&log, "[INF] File log re-opened"));
    assert!(has(&moved, "[INF] Trapped \"user defined signal 1\" signal"));
    let _ = child.kill();
    let _ = child.wait();

    let server = start("");
    for (signal, lines) in [
        (
            libc::SIGUSR1,
            &["Trapped \"user defined signal 1\" signal", "File log re-open ignored, not a file logger"][..],
        ),
        (libc::SIGHUP, &["Trapped \"hangup\" signal"][..]),
        (libc::SIGUSR2, &["Trapped \"user defined signal 2\" signal", "Entering lame duck mode"][..]),
    ] {
        server.signal(signal);
        for line in lines {
            wait_until(line, PATIENCE, || server.log().contains(&format!("[INF] {line}")));
        }
    }
}

#[test]
fn terminate_and_interrupt_flush_close_and_exit_with_status_0() {
    for (signal, name) in [(libc::SIGTERM, "terminated"), (libc::SIGINT, "interrupt")] {
        let mut server = start("");
        let (mut subscriber, mut publisher) = (Peer::open(server.address), Peer::open(server.address));
        subscriber.send("SUB last.words 1\r\n");
        subscriber.round_trip();
        for i in 0..1000 {
            publisher.publish("last.words", i.to_string().as_bytes());
        }
        publisher.round_trip();
        server.signal(signal);
        for i in 0..1000 {
            subscriber.expect_message("last.words", i.to_string().as_bytes());
        }
        assert_eq!(subscriber.next(), Event::Closed);
        assert_eq!(publisher.next(), Event::Closed);
        let mut status = None;
        wait_until("the process ended", PATIENCE, || {
            status = server.ended();
            status.is_some()
        });
        assert_eq!(status.and_then(|status| status.code()), Some(0), "after signal {name}");
        let log = server.log();
        for line in [&format!("Trapped \"{name}\" signal"), "Initiating Shutdown...", "Server Exiting.."] {
            assert!(log.contains(line), "no {line:?} in:\n{log}");
        }
    }
}

#[test]
fn killed_and_started_again_at_once_it_listens_on_the_same_port() {
    let mut server = start("");
    let port = server.address.port().to_string();
    for round in 1..=20 {
        // Connections, silent and busy ones, are what holds a port after the process has gone.
        let mut peers: Vec<Peer> = (0..20).map(|_| Peer::open(server.address)).collect();
        peers.iter_mut().skip(10).for_each(|peer| {
            peer.send("SUB > 1\r\n");
            peer.round_trip();
        });
        server.signal(libc::SIGKILL);
        wait_until("the process ended", PATIENCE, || server.ended().is_some());
        let refused = TcpStream::connect(server.address).expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "round {round}");
        server = ServerProcess::start_with(&candidate(), "", &["-a", "127.0.0.1", "-p", &port])
            .unwrap_or_else(|e| panic!("restart {round}: {e}"));
    }
    Peer::open(server.address).round_trip();
}

#[test]
fn lame_duck_mode_refuses_new_connections_and_serves_the_others() {
    let server = start("");
    let mut peer = Peer::open(server.address);
    peer.round_trip();
    server.signal(libc::SIGUSR2);
    wait_until("new connections are refused", PATIENCE, || {
        TcpStream::connect(server.address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    peer.send("SUB still.here 1\r\n");
    peer.publish("still.here", b"yes");
    peer.expect_message("still.here", b"yes");
}

// ---- streams ----

#[test]
fn a_stream_under_change_stores_each_message_once() {
    const PUBLISHERS: usize = 4;
    const MESSAGES: usize = 2000;
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().to_str().expect("a name");
    let arguments = ["-a", "127.0.0.1", "-p", "-1", "-js", "-sd", store];
    let server = ServerProcess::start_with(&candidate(), "", &arguments).unwrap_or_else(|e| panic!("{e}"));
    let with_inbox =
        |name: &str| Peer::open_with(server.address, &format!("{}SUB {name}.* 1\r\n", peer::HELLO));
    let ask = |peer: &mut Peer, verb: &str, body: &str| {
        peer.send(&format!("PUB $JS.API.STREAM.{verb}.S ask.1 {}\r\n{body}\r\n", body.len()));
        let Event::Message { payload, .. } = peer.next() else { panic!("no answer to {verb}") };
        String::from_utf8(payload).expect("text")
    };
    let mut changer = with_inbox("ask");
    let narrow = r#"{"name":"S","subjects":["s.>"]}"#;
    let wide = r#"{"name":"S","subjects":["s.>","t.>"]}"#;
    let answer = ask(&mut changer, "CREATE", narrow);
    assert!(answer.contains("did_create"), "{answer}");

    // Connections are spread over the workers, so that most of them are not with the stream's own.
    let publish = |name: String| {
        let mut peer = with_inbox(&name);
        let mut seqs = HashSet::new();
        for first in (0..MESSAGES).step_by(100) {
            let frames: String =
                (first..first + 100).map(|n| format!("PUB s.{n} {name}.{n} 1\r\nx\r\n")).collect();
            peer.send(&frames);
            for _ in 0..100 {
                let Event::Message { payload, .. } = peer.next() else { panic!("no acknowledgement") };
                let answer = String::from_utf8(payload).expect("text");
                let seq = answer.split("\"seq\":").nth(1).unwrap_or_else(|| panic!("{answer}"));
                let seq = seq.trim_end_matches(|last: char| !last.is_ascii_digit());
                assert!(seqs.insert(seq.to_owned()), "{seq} was acknowledged twice");
            }
        }
        seqs
    };
    let mut changes = 0;
    let acknowledged: HashSet<String> = thread::scope(|scope| {
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|number| {
                let publish = &publish;
                scope.spawn(move || publish(format!("p{number}")))
            })
            .collect();
        while !publishers.iter().all(|publisher| publisher.is_finished()) {
            for body in [wide, narrow] {
                let answer = ask(&mut changer, "UPDATE", body);
                assert!(answer.contains("\"config\""), "{answer}");
                changes += 1;
            }
        }
        publishers.into_iter().flat_map(|publisher| publisher.join().expect("a publisher")).collect()
    });
    assert!(changes > 0);
    let all = PUBLISHERS * MESSAGES;
    assert_eq!(acknowledged.len(), all);
    let info = ask(&mut changer, "INFO", "");
    assert!(info.contains(&format!("\"messages\":{all},")), "{info}");
}

// ---- delivery ----

#[test]
fn malformed_frames_disturb_nobody_else() {
    let frames: usize = setting("MALFORMED_FRAMES", 20_000);
    let seed = seed("malformed_frames_disturb_nobody_else");
    let mut random = fastrand::Rng::with_seed(seed);
    // The talker only writes; a long run must not find it stale for not answering pings.
    let server = start("ping_interval: \"1h\"\n");
    let mut listener = Peer::open(server.address);
    listener.send("SUB bystander 1\r\n");
    listener.round_trip();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let talker = scope.spawn(|| {
            let mut peer = Peer::open(server.address);
            let mut sent = 0usize;
            while !stop.load(Ordering::Relaxed) {
                peer.publish("bystander", sent.to_string().as_bytes());
                sent += 1;
                // Slow enough to leave the machine to the torture.
                thread::sleep(Duration::from_micros(200));
            }
            peer.publish("bystander", b"end");
            peer.round_trip();
            sent
        });
        let listening = scope.spawn(|| {
            let mut received = 0usize;
            loop {
                match listener.next() {
                    Event::Message { payload, .. } if payload == b"end" => return received,
                    Event::Message { payload, .. } => {
                        assert_eq!(
                            payload,
                            received.to_string().as_bytes(),
                            "lost or out of order, SEED={seed}"
                        );
                        received += 1;
                    }
                    other => panic!("{other:?} on the bystander's connection, SEED={seed}"),
                }
            }
        });
        for _ in 0..frames {
            let frame = malformed_frame(&mut random);
            let Ok(mut stream) = TcpStream::connect(server.address) else {
                panic!("the server takes no connections any more, SEED={seed}:\n{}", server.log());
            };
            let _ = stream.write_all(&frame);
            if random.u8(..8) == 0 {
                // Most vanish at once; some stay to see what comes.
                let _ = stream.set_read_timeout(Some(Duration::from_millis(2)));
                let mut answer = [0; 4096];
                while matches!(stream.read(&mut answer), Ok(length) if length > 0) {}
            }
        }
        stop.store(true, Ordering::Relaxed);
        let sent = talker.join().expect("the talker");
        assert_eq!(listening.join().expect("the listener"), sent, "SEED={seed}");
    });
    Peer::open(server.address).round_trip();
}

#[test]
fn order_is_kept_from_each_publisher_to_each_subscriber() {
    const PUBLISHERS: usize = 8;
    const SUBSCRIBERS: usize = 8;
    const EACH: usize = 3000;
    let server = start("");
    let subscribers: Vec<Peer> = (0..SUBSCRIBERS)
        .map(|_| {
            let mut peer = Peer::open(server.address);
            peer.send("SUB order.* 1\r\n");
            peer.round_trip();
            peer
        })
        .collect();
    thread::scope(|scope| {
        for mut subscriber in subscribers {
            scope.spawn(move || {
                let mut next = [0; PUBLISHERS];
                for _ in 0..PUBLISHERS * EACH {
                    let Event::Message { subject, payload, .. } = subscriber.next() else {
                        panic!("the subscription ended at {next:?}");
                    };
                    let publisher: usize = subject["order.".len()..].parse().expect("a number");
                    assert_eq!(payload, next[publisher].to_string().as_bytes(), "from publisher {publisher}");
                    next[publisher] += 1;
                }
                assert_eq!(next, [EACH; PUBLISHERS]);
            });
        }
        for publisher in 0..PUBLISHERS {
            let address = server.address;
            scope.spawn(move || {
                let mut peer = Peer::open(address);
                for i in 0..EACH {
                    peer.publish(&format!("order.{publisher}"), i.to_string().as_bytes());
                }
                peer.round_trip();
            });
        }
    });
}

/// The same subjects in all accounts at the same time, from connections that are spread over the workers.
#[test]
fn accounts_hear_everything_of_their_own_and_nothing_of_each_other() {
    const ACCOUNTS: usize = 6;
    const MEMBERS: usize = 4;
    const ROUNDS: usize = 100;
    let account = |account: usize| format!("A{account}: {{ users: [ {{user: u{account}, password: x}} ] }}");
    let accounts: Vec<String> = (0..ACCOUNTS).map(account).collect();
    let server = start(&format!("accounts {{ {} }}\n", accounts.join(", ")));
    let mut peers: Vec<Peer> = (0..ACCOUNTS * MEMBERS)
        .map(|i| {
            let user = format!("u{}", i % ACCOUNTS);
            let hello = format!("CONNECT {{\"verbose\":false,\"user\":\"{user}\",\"pass\":\"x\"}}\r\n");
            let mut peer = Peer::open_with(server.address, &hello);
            peer.send("SUB load.> 1\r\nSUB load.* group 2\r\n");
            peer.round_trip();
            peer
        })
        .collect();
    for round in 0..ROUNDS {
        for (i, peer) in peers.iter_mut().enumerate() {
            peer.publish(&format!("load.{}", round % 7), format!("A{}", i % ACCOUNTS).as_bytes());
        }
    }
    let mut of_groups = [0; ACCOUNTS];
    for (i, peer) in peers.iter_mut().enumerate() {
        let account = i % ACCOUNTS;
        let mut plain = 0;
        // A member of the group does not know how much it gets, so that the end is what comes behind a marker.
        peer.send("PING\r\n");
        let mut pongs = 0;
        while plain < MEMBERS * ROUNDS || pongs == 0 {
            match peer.next() {
                Event::Message { sid, payload, .. } => {
                    assert_eq!(payload, format!("A{account}").as_bytes());
                    if sid == "1" {
                        plain += 1;
                    } else {
                        of_groups[account] += 1;
                    }
                }
                Event::Pong => pongs += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(plain, MEMBERS * ROUNDS);
    }
    // What still comes is of groups only.
    for (i, peer) in peers.iter_mut().enumerate() {
        peer.send("UNSUB 1\r\nUNSUB 2\r\nPING\r\n");
        loop {
            match peer.next() {
                Event::Message { sid, payload, .. } if sid == "2" => {
                    assert_eq!(payload, format!("A{}", i % ACCOUNTS).as_bytes());
                    of_groups[i % ACCOUNTS] += 1;
                }
                Event::Pong => break,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(of_groups, [MEMBERS * ROUNDS; ACCOUNTS]);
}

#[test]
fn a_queue_group_whose_members_come_and_go_gets_every_message_once() {
    const MEMBERS: usize = 6;
    const MESSAGES: usize = 20_000;
    let seed = seed("a_queue_group_whose_members_come_and_go_gets_every_message_once");
    let server = start("");
    let (ready, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let received: Vec<usize> = thread::scope(|scope| {
        let members: Vec<_> = (0..MEMBERS)
            .map(|member| {
                let (server, ready, done) = (&server, &ready, &done);
                let mut random = fastrand::Rng::with_seed(seed.wrapping_add(member as u64));
                scope.spawn(move || {
                    let mut peer = Peer::open(server.address);
                    let mut numbers = Vec::new();
                    let mut sid = 1;
                    peer.send("SUB jobs workers 1\r\nSUB done x\r\n");
                    peer.round_trip();
                    ready.fetch_add(1, Ordering::SeqCst);
                    loop {
                        // The first member always stays, so that there is one for every message.
                        let stay = if member == 0 { usize::MAX } else { random.usize(1..200) };
                        let mut here = 0;
                        while here < stay {
                            match peer.next() {
                                Event::Message { sid: from, payload, .. } if from == sid.to_string() => {
                                    numbers.push(number(&payload));
                                    here += 1;
                                }
                                Event::Message { sid: from, .. } if from == "x" => return numbers,
                                other => panic!("{other:?} while subscribed as {sid}, SEED={seed}"),
                            }
                        }
                        // What comes before the PONG was for a live subscription; afterwards nothing may come.
                        peer.send(&format!("UNSUB {sid}\r\nPING\r\n"));
                        loop {
                            match peer.next() {
                                Event::Message { sid: from, payload, .. } if from == sid.to_string() => {
                                    numbers.push(number(&payload));
                                }
                                Event::Pong => break,
                                Event::Message { sid: from, .. } if from == "x" => {
                                    peer.expect_pong();
                                    return numbers;
                                }
                                other => panic!("{other:?} while leaving as {sid}, SEED={seed}"),
                            }
                        }
                        if done.load(Ordering::SeqCst) {
                            return numbers;
                        }
                        sid += 1;
                        peer.send(&format!("SUB jobs workers {sid}\r\n"));
                    }
                })
            })
            .collect();
        wait_until("all members subscribed", PATIENCE, || ready.load(Ordering::SeqCst) == MEMBERS);
        let mut publisher = Peer::open(server.address);
        for i in 0..MESSAGES {
            publisher.publish("jobs", i.to_string().as_bytes());
            if i % 64 == 0 {
                publisher.round_trip();
            }
        }
        publisher.round_trip();
        done.store(true, Ordering::SeqCst);
        publisher.publish("done", b"");
        publisher.round_trip();
        members.into_iter().flat_map(|member| member.join().expect("a member")).collect()
    });
    let distinct: HashSet<usize> = received.iter().copied().collect();
    assert_eq!(distinct.len(), MESSAGES, "lost {} messages, SEED={seed}", MESSAGES - distinct.len());
    assert_eq!(received.len(), MESSAGES, "messages came twice, SEED={seed}");
}

/// A frame that is wrong somewhere: noise, a good dialogue with a few bytes changed, bad sizes, cut ends.
fn malformed_frame(random: &mut fastrand::Rng) -> Vec<u8> {
    const VERBS: [&str; 14] = [
        "PUB", "HPUB", "SUB", "UNSUB", "CONNECT", "PING", "PONG", "INFO", "+OK", "-ERR", "MSG", "RS+", "LS-",
        "A+",
    ];
    const SIZES: [&str; 10] =
        ["-1", "+5", "999999999", "9999999999", "18446744073709551615", "0x10", "5 5", "", "5a", "1048577"];
    const GOOD: &str = "CONNECT {\"verbose\":false,\"headers\":true,\"protocol\":1}\r\nSUB torture.* group 1\r\n\
        HPUB torture.a reply.to 22 27\r\nNATS/1.0\r\nKey:value\r\n\r\nhello\r\nUNSUB 1 5\r\n\
        PUB torture.b 11\r\nhello\0world\r\nPING\r\n";
    let noise = |random: &mut fastrand::Rng, most: usize| -> Vec<u8> {
        let length = random.usize(1..most);
        (0..length).map(|_| random.u8(..)).collect()
    };
    let mut frame = Vec::new();
    match random.u8(..6) {
        0 => frame = noise(random, 300),
        1 => {
            frame.extend_from_slice(GOOD.as_bytes());
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..frame.len());
                match random.u8(..3) {
                    0 => frame[at] = random.u8(..),
                    1 => drop(frame.remove(at)),
                    _ => frame.insert(at, random.u8(..)),
                }
            }
        }
        2 => frame.extend_from_slice(&GOOD.as_bytes()[..random.usize(1..GOOD.len())]),
        3 => {
            let verb =
                ["PUB torture", "HPUB torture 12", "PUB torture reply", "HPUB torture"][random.usize(..4)];
            let size = SIZES[random.usize(..SIZES.len())];
            frame = format!("{verb} {size}\r\nNATS/1.0\r\n\r\nhello\r\n").into_bytes();
        }
        4 => {
            let verb = VERBS[random.usize(..VERBS.len())];
            frame.extend_from_slice(verb.as_bytes());
            frame.push(b' ');
            frame.extend(noise(random, 100));
            frame.extend_from_slice(b"\r\n");
        }
        _ => {
            let verb = VERBS[random.usize(..VERBS.len())];
            frame = format!("{verb} {}\r\n", "a ".repeat(random.usize(..4000))).into_bytes();
        }
    }
    frame
}

#[track_caller]
fn start(config: &str) -> ServerProcess {
    ServerProcess::start(&candidate(), config).unwrap_or_else(|e| panic!("{e}"))
}

/// Runs the candidate with arguments that make it end at once.
fn run(arguments: &[&str]) -> Output {
    Command::new(candidate()).args(arguments).output().expect("the candidate starts")
}

fn number(payload: &[u8]) -> usize {
    std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok()).expect("a number")
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn seed(test: &str) -> u64 {
    let seed = setting("SEED", fastrand::u64(..));
    println!("replay: SEED={seed} cargo test --test blackbox {test}");
    seed
}
