//! A configuration read again while the server runs: what the log says, who stays, who goes. The log lines are the real
//! nats-server's; where it is at hand the same cases run against it too.

mod peer;
mod server_process;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use peer::{Event, PATIENCE, Peer};
use server_process::{ServerProcess, announce, candidate, raise_open_files_limit, reference, wait_until};

/// `secret`, hashed at the lowest cost.
const SECRET: &str = "$2a$04$.OC/.OC/.OC/.OC/.OC/.OhBAjqkJvp/E/NWAjQEaL1Z6bXG3uS3W";

/// Before, after, and what the log says between the signal and the end of the reload.
const CASES: &[(&str, &str, &[&str])] = &[
    ("debug: false", "debug: true", &["Reloaded: debug = true"]),
    ("debug: true", "debug: false", &["Reloaded: debug = false"]),
    ("", "trace_headers: true", &["Reloaded: trace = true", "Reloaded: trace_headers = true"]),
    (
        "",
        "ping_max: 4, ping_interval: \"90s\", max_payload: 100, max_control_line: 500, write_deadline: \"2.5s\"",
        &[
            "Reloaded: ping_interval = 1m30s",
            "Reloaded: ping_max = 4",
            "Reloaded: max_control_line = 500",
            "Reloaded: max_payload = 100",
            "Reloaded: write_deadline = 2.5s",
        ],
    ),
    (
        "server_tags: [A, b]",
        "server_tags: [b, a], server_metadata: {k: v}, max_traced_msg_len: 7",
        &["Reloaded: max_traced_msg_len = 7", "Reloaded: tags", "Reloaded: metadata"],
    ),
    (
        "client_advertise: \"a:1\", no_fast_producer_stall: true, max_traced_msg_len: 5",
        "",
        &[
            "Reload: client_advertise = ",
            "Reloaded: fast producers will be stalled",
            "Reloaded: max_traced_msg_len = 0",
        ],
    ),
    (
        "authorization { user: a, password: b }",
        "authorization { token: t, timeout: 0.5 }",
        &[
            "Reloaded: authorization username",
            "Reloaded: authorization password",
            "Reloaded: authorization token",
            "Reloaded: authorization timeout = 0.5",
        ],
    ),
    ("", "max_connections: 0", &["Reloaded: max_connections = -1"]),
    (
        "authorization { users: [ {user: a, pass: b} ] }",
        "authorization { users: [ {nkey: UCFIRY65OQE7DFP5KLNS2PF2LVZMUZYJX4OZIEQ36N2IQANUB5XVZ45L}, {user: a} ] }",
        &["Reloaded: authorization nkey users"],
    ),
    (
        "authorization { users: [ {user: a}, {user: b} ] }, no_auth_user: a",
        "authorization { users: [ {user: b} ] }",
        &[],
    ),
];

/// Before, after, and why the whole of it is refused.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "",
        "debug: true, max_subs: 3, server_name: q",
        "config reload not supported for ServerName: old=, new=q",
    ),
    ("", "max_pending: 10000000", "config reload not supported for MaxPending: old=67108864, new=10000000"),
    ("", "max_subscriptions: 5", "config reload not supported for MaxSubs: old=0, new=5"),
    ("", "max_sub_tokens: 5", "config reload not supported for MaxSubTokens: old=0, new=5"),
    (
        "",
        "lame_duck_duration: \"40s\"",
        "config reload not supported for LameDuckDuration: old=2m0s, new=40s",
    ),
    ("", "no_header_support: true", "config reload not supported for NoHeaderSupport: old=false, new=true"),
    (
        "authorization { users: [ {user: a}, {user: b} ] }, no_auth_user: a",
        "authorization { users: [ {user: a}, {user: b} ] }, no_auth_user: b",
        "config reload not supported for NoAuthUser: old=a, new=b",
    ),
    (
        "authorization { users: [ {user: a} ] }, no_auth_user: a",
        "authorization { users: [ {user: a} ] }",
        "config reload not supported for NoAuthUser: old=a, new=",
    ),
    (
        "",
        "client_advertise: \"a:b\"",
        "invalid ClientAdvertise value of a:b, err=strconv.Atoi: parsing \"b\": invalid syntax",
    ),
    ("", "max_payload: 100MB", "max_payload (104857600) cannot be higher than max_pending (67108864)"),
    ("", "blah: 1", "server.conf:2:1: unknown field \"blah\""),
];

#[test]
fn what_changes_is_said_as_the_reference_says_it() {
    on_both(|binary| {
        for (before, after, expected) in CASES {
            let server = start(binary, before);
            let lines = reload(&server, after);
            let (last, lines) = lines.split_last().expect("lines");
            assert!(last.starts_with("[INF] Reloaded server configuration (sha256:"), "{after}: {last}");
            let expected: Vec<String> = expected.iter().map(|line| format!("[INF] {line}")).collect();
            assert_eq!(lines, expected, "{before:?} -> {after:?}");
        }
    });
}

#[test]
fn what_cannot_change_is_refused_and_nothing_else_changes_either() {
    on_both(|binary| {
        for (before, after, expected) in REFUSED {
            let server = start(binary, before);
            let mut witness = Peer::open(server.address);
            witness.round_trip();
            let lines = reload(&server, after);
            let [line] = &lines[..] else { panic!("{after:?}: {lines:?}") };
            let text = line.strip_prefix("[ERR] Failed to reload server configuration: ").unwrap_or(line);
            // The reference says the place as it was on the command line, a temporary directory here.
            assert!(text.ends_with(expected), "{after:?}: {line}");
            witness.round_trip();
        }
        let server = ServerProcess::start(binary, "").expect("a server");
        server.signal(libc::SIGHUP);
        let text = "Failed to reload server configuration: can only reload config when a file is provided";
        wait_until(text, PATIENCE, || server.log().contains(text));
    });
}

#[test]
fn a_connection_that_may_not_stay_is_told_and_the_others_stay() {
    // The reference closes some of them without a word, so this is Ringmain's alone.
    let users = |password: &str| {
        format!("authorization {{ users: [{{user: a, password: {password}}}, {{user: b, password: y}}] }}")
    };
    let server = start(&candidate(), &users("x"));
    let mut goes = login(&server, "a", "x");
    let mut stays = login(&server, "b", "y");
    reload(&server, &users("z"));
    assert_eq!(goes.next(), Event::Error("-ERR 'Authorization Violation'".to_owned()));
    assert_eq!(goes.next(), Event::Closed);
    stays.round_trip();
    login(&server, "a", "z");
    // Nobody has to show anything any more; then everybody again, and who has shown enough may stay.
    reload(&server, "");
    let mut nobody = Peer::open(server.address);
    nobody.round_trip();
    reload(&server, &users("w"));
    assert_eq!(nobody.next(), Event::Error("-ERR 'Authorization Violation'".to_owned()));
    stays.round_trip();
}

#[test]
fn hashes_are_held_against_what_connections_have_shown_already() {
    // By the lowest cost: `other`.
    const OTHER: &str = "$2a$04$.eGA.eGA.eGA.eGA.eGA.eCSH/feP/T6zQ.3eMItUwhJB.Ake2agO";
    let users = |a: &str, b: &str| {
        format!("authorization {{ users: [{{user: a, password: {a:?}}}, {{user: b, password: {b:?}}}] }}")
    };
    let server = start(&candidate(), &users("secret", "secret"));
    let mut stays = login(&server, "a", "secret");
    let mut goes = login(&server, "b", "secret");
    stays.send("SUB s 1\r\n");
    stays.round_trip();
    reload(&server, &users(SECRET, OTHER));
    assert_eq!(goes.next(), Event::Error("-ERR 'Authorization Violation'".to_owned()));
    assert_eq!(goes.next(), Event::Closed);
    stays.publish("s", b"x");
    stays.expect_message("s", b"x");
    stays.round_trip();
    login(&server, "b", "other").round_trip();
    // Unchanged hashes are not compared again, so nobody is asked to wait.
    reload(&server, &format!("debug: true, {}", users(SECRET, OTHER)));
    stays.round_trip();
}

#[test]
fn permissions_that_have_changed_hold_for_connections_that_are_there() {
    let users = |permissions: &str| {
        format!(
            "authorization {{ users: [{{user: a, password: x, permissions: {permissions}}}, {{user: b, password: y}}] }}"
        )
    };
    let refused = |peer: &mut Peer, subject: &str| {
        let text = format!("-ERR 'Permissions Violation for Publish to {subject:?}'");
        assert_eq!(peer.next(), Event::Error(text));
    };
    on_both(|binary| {
        let server = start(binary, &users("{subscribe: [\"foo.>\", bar], publish: [foo, svc.>]}"));
        let mut a = login(&server, "a", "x");
        let mut b = login(&server, "b", "y");
        a.send("SUB foo.> 1\r\nSUB bar 2\r\nSUB bar q 3\r\n");
        for _ in 0..3 {
            a.publish("foo", b"x");
        }
        a.publish("baz", b"x");
        refused(&mut a, "baz");
        a.round_trip();
        let lines = reload(&server, &users("{subscribe: {allow: \"foo.>\", deny: foo.b}, publish: [baz]}"));
        let mut removed: Vec<&String> = lines.iter().filter(|line| line.contains("Removed")).collect();
        removed.sort();
        assert_eq!(
            removed,
            [
                "[INF] Removed sub \"bar\" (sid \"2\") for User \"a\" - not authorized",
                "[INF] Removed sub \"bar\" using queue \"q\" (sid \"3\") for User \"a\" - not authorized",
            ]
        );
        let text = "Permissions Violation for Subscription to \"bar\"";
        let mut errors = [a.next(), a.next()];
        errors.sort_by_key(|event| format!("{event:?}").len());
        assert_eq!(errors[0], Event::Error(format!("-ERR '{text} (sid \"2\")'")));
        assert_eq!(errors[1], Event::Error(format!("-ERR '{text} using queue \"q\" (sid \"3\")'")));
        for subject in ["foo.b", "bar", "foo.a"] {
            b.publish(subject, b"x");
        }
        b.round_trip();
        a.expect_message("foo.a", b"x");
        a.publish("foo", b"x");
        refused(&mut a, "foo");
        a.publish("baz", b"x");
        // What is denied no more is delivered again; responses are permitted from now on.
        reload(&server, &users("{subscribe: \"foo.>\", allow_responses: true}"));
        b.send("SUB r 1\r\nPUB foo.b r 1\r\nx\r\n");
        b.round_trip();
        a.expect_message("foo.b", b"x");
        a.publish("r", b"x");
        a.publish("r", b"y");
        refused(&mut a, "r");
        b.expect_message("r", b"x");
        reload(&server, &users("{}"));
        a.publish("r", b"z");
        a.round_trip();
        b.expect_message("r", b"z");
    });
}

#[test]
fn accounts_come_and_go_and_whoever_belongs_elsewhere_connects_again() {
    let config = |accounts: &[(&str, &str)]| {
        let account = |(name, users): &(&str, &str)| {
            let users = users.split_whitespace().map(|user| format!("{{user: {user}, password: x}}"));
            format!("{name}: {{ users: [ {} ] }}", users.collect::<Vec<_>>().join(", "))
        };
        format!("accounts {{ {} }}", accounts.iter().map(account).collect::<Vec<_>>().join(", "))
    };
    on_both(|binary| {
        let server = start(binary, &config(&[("A", "a c"), ("B", "b")]));
        let mut peers = ["a", "c", "b"].map(|user| login(&server, user, "x"));
        for peer in &mut peers {
            peer.send("SUB > 1\r\n");
            peer.round_trip();
        }
        let [mut a, mut c, mut b] = peers;
        reload(&server, &config(&[("B", "b a"), ("A", "c"), ("C", "d")]));
        assert_eq!(a.next(), Event::Closed);
        let mut a = login(&server, "a", "x");
        let mut d = login(&server, "d", "x");
        for (peer, subject) in [(&mut a, "b.1"), (&mut c, "a.1"), (&mut d, "c.1")] {
            peer.publish(subject, b"x");
            peer.send("PING\r\n");
        }
        c.expect_message("a.1", b"x");
        for peer in [&mut a, &mut c, &mut d] {
            peer.expect_pong();
        }
        b.expect_message("b.1", b"x");
        b.round_trip();
        // An account that is gone takes its connections with it; when it comes back it is empty.
        reload(&server, &config(&[("B", "b a"), ("C", "d")]));
        // Ringmain says why; the reference may not.
        match c.next() {
            Event::Closed => {}
            Event::Error(text) if text == "-ERR 'Authorization Violation'" => {
                assert_eq!(c.next(), Event::Closed)
            }
            other => panic!("{other:?}"),
        }
        reload(&server, &config(&[("A", "c"), ("C", "d"), ("B", "b a")]));
        let mut c = login(&server, "c", "x");
        c.send("SUB > 1\r\n");
        a.publish("b.2", b"x");
        d.publish("c.2", b"x");
        for peer in [&mut a, &mut d, &mut c] {
            peer.round_trip();
        }
        b.expect_message("b.2", b"x");
        b.round_trip();
    });
}

#[test]
fn lower_limits_of_an_account_hold_for_connections_that_are_there_already() {
    let config = |limits: &str| {
        format!("accounts {{ A {{ limits {{ {limits} }}, users: [ {{user: a, password: x}} ] }} }}")
    };
    on_both(|binary| {
        let server = start(binary, &config("max_connections: 10"));
        let mut peers: Vec<Peer> = (0..5).map(|_| login(&server, "a", "x")).collect();
        reload(&server, &config("max_connections: 3, max_payload: 3"));
        let left = peers.iter_mut().filter_map(|peer| {
            peer.send("PING\r\n");
            (peer.next() == Event::Pong).then_some(peer)
        });
        let mut left: Vec<&mut Peer> = left.collect();
        assert_eq!(left.len(), 3);
        left[0].publish("s", b"xyz");
        left[0].round_trip();
        left[0].publish("s", b"xyz!");
        assert_eq!(left[0].next(), Event::Error("-ERR 'Maximum Payload Violation'".to_owned()));
        left[1].send("SUB a 1\r\nSUB b 2\r\nSUB c 3\r\n");
        left[1].round_trip();
        reload(&server, &config("max_subscriptions: 2"));
        assert_eq!(left[1].next(), Event::Error("-ERR 'maximum subscriptions exceeded'".to_owned()));
        assert_eq!(left[1].next(), Event::Closed);
        left[2].round_trip();
    });
}

#[test]
fn limits_hold_for_connections_that_are_there_already() {
    on_both(|binary| {
        let server = start(binary, "");
        let mut peers: Vec<Peer> = (0..5).map(|_| Peer::open(server.address)).collect();
        peers.iter_mut().for_each(Peer::round_trip);
        reload(&server, "max_payload: 10, max_connections: 3");
        let left = peers.iter_mut().filter_map(|peer| {
            peer.send("PING\r\n");
            (peer.next() == Event::Pong).then_some(peer)
        });
        let mut left: Vec<&mut Peer> = left.collect();
        assert_eq!(left.len(), 3);
        left[0].publish("a", b"0123456789");
        left[0].round_trip();
        left[0].publish("a", b"0123456789x");
        assert_eq!(left[0].next(), Event::Error("-ERR 'Maximum Payload Violation'".to_owned()));
        left[1].round_trip();
    });
}

/// A thousand connections at four workers, messages all the while, fifty reloads in a row: of limits, of what is logged
/// and where, and of users. Who may stay loses no message; who may not is told, each time.
#[test]
fn fifty_reloads_under_load_lose_nothing() {
    const LISTENERS: usize = 1000;
    const PUBLISHERS: usize = 2;
    const PAIRS: usize = 4;
    const GUESTS: usize = 4;
    const RELOADS: usize = 50;
    raise_open_files_limit();
    let arguments = ["-a", "127.0.0.1", "-p", "-1", "--workers", "4"];
    let server =
        ServerProcess::start_with(&candidate(), &file(&under_load(0)), &arguments).expect("a server");
    let resident = |name: usize| match name % 3 {
        0 => login(&server, "steady", "s"),
        1 => login(&server, "hashed", "secret"),
        _ => login(&server, "other", "o"),
    };
    let mut listeners: Vec<Peer> = (0..LISTENERS).map(resident).collect();
    for (i, listener) in listeners.iter_mut().enumerate() {
        listener.send(&format!("SUB load.{i} 1\r\n"));
        listener.round_trip();
    }
    let stop = AtomicBool::new(false);
    let (rounds, requests) = thread::scope(|scope| {
        // Also when something fails, or the others would never end.
        let stop_in_the_end = SetOnDrop(&stop);
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|number| {
                let mut publisher = resident(number);
                let stop = &stop;
                scope.spawn(move || {
                    let mut rounds = 0usize;
                    while !stop.load(Ordering::Relaxed) {
                        for i in 0..LISTENERS {
                            publisher.publish(&format!("load.{i}"), format!("{number} {rounds}").as_bytes());
                        }
                        publisher.round_trip();
                        rounds += 1;
                    }
                    rounds
                })
            })
            .collect();
        let pairs: Vec<_> = (0..PAIRS)
            .map(|number| {
                let (mut requester, mut responder) = (resident(number), resident(number + 1));
                let stop = &stop;
                responder.send(&format!("SUB ask.{number} 1\r\n"));
                responder.round_trip();
                requester.send(&format!("SUB answer.{number} 1\r\n"));
                scope.spawn(move || {
                    let mut requests = 0usize;
                    while !stop.load(Ordering::Relaxed) {
                        let body = requests.to_string();
                        requester.publish(&format!("ask.{number}"), body.as_bytes());
                        responder.expect_message(&format!("ask.{number}"), body.as_bytes());
                        responder.publish(&format!("answer.{number}"), body.as_bytes());
                        requester.expect_message(&format!("answer.{number}"), body.as_bytes());
                        requests += 1;
                    }
                    requests
                })
            })
            .collect();
        let mut guests: Vec<Peer> = Vec::new();
        for round in 0..RELOADS {
            if round > 0 {
                std::fs::write(server.path("server.conf"), file(&under_load(round))).expect("the file");
                server.signal(libc::SIGHUP);
                wait_until("the reload", PATIENCE, || reloads(&server) == round);
            }
            for mut guest in guests.drain(..) {
                let violation = Event::Error("-ERR 'Authorization Violation'".to_owned());
                assert_eq!(next_but_messages(&mut guest), violation, "round {round}");
                assert_eq!(guest.next(), Event::Closed);
            }
            guests.extend((0..GUESTS).map(|i| {
                let (user, password) = guest(round);
                let mut guest = login(&server, &user, &password);
                guest.send(&format!("SUB load.{i} 1\r\nPING\r\n"));
                assert_eq!(next_but_messages(&mut guest), Event::Pong);
                guest
            }));
        }
        drop(stop_in_the_end);
        let rounds: Vec<usize> =
            publishers.into_iter().map(|publisher| publisher.join().expect("a publisher")).collect();
        let requests: usize = pairs.into_iter().map(|pair| pair.join().expect("a pair")).sum();
        (rounds, requests)
    });
    assert!(rounds.iter().all(|rounds| *rounds > 0) && requests > 0);
    for (i, listener) in listeners.iter_mut().enumerate() {
        let mut next = [0; PUBLISHERS];
        while next[..] != rounds[..] {
            let Event::Message { payload, .. } = listener.next() else { panic!("listener {i} at {next:?}") };
            let text = String::from_utf8(payload).expect("text");
            let (publisher, round) = text.split_once(' ').expect("two numbers");
            let publisher: usize = publisher.parse().expect("a number");
            assert_eq!(round, next[publisher].to_string(), "listener {i}, publisher {publisher}");
            next[publisher] += 1;
        }
        listener.round_trip();
    }
    let log = logs(&server);
    assert!(!log.contains("log lines were lost"));
    announce(&format!(
        "{RELOADS} reloads, {LISTENERS} listeners, {} messages, {requests} requests, {} moves between workers",
        rounds.iter().sum::<usize>() * LISTENERS,
        log.matches("active connections to worker").count(),
    ));
}

/// What changes with every round of [`fifty_reloads_under_load_lose_nothing`].
fn under_load(round: usize) -> String {
    let (guest, password) = guest(round);
    let debug = round % 4 != 3;
    let trace = if round % 10 == 7 { "trace: true, max_traced_msg_len: 3," } else { "" };
    format!(
        "log_file: {}, debug: {debug}, {trace} logtime_utc: {}
         max_payload: {}, max_connections: {}, max_control_line: {}
         ping_max: {}, ping_interval: \"{}s\", write_deadline: \"{}s\"
         authorization {{ timeout: {}, users: [
            {{user: steady, password: s}}, {{user: {guest}, password: {password}}}
            {{user: hashed, password: {SECRET:?}}}, {{user: other, password: o}} ] }}",
        LOGS[round % LOGS.len()],
        round.is_multiple_of(2),
        1000 + round,
        2000 + round,
        600 + round,
        3 + round % 2,
        90 + round,
        10 + round,
        10 + round % 2,
    )
}

/// Who may come only until the next reload: then there is another user, or another password.
fn guest(round: usize) -> (String, String) {
    (format!("guest{}", round / 2), format!("p{round}"))
}

/// The files of the log, in turn.
const LOGS: [&str; 3] = ["log", "log.1", "log.2"];

fn next_but_messages(peer: &mut Peer) -> Event {
    loop {
        match peer.next() {
            Event::Message { .. } => {}
            event => return event,
        }
    }
}

/// Reloads that have ended.
fn reloads(server: &ServerProcess) -> usize {
    let log = logs(server);
    assert!(!log.contains("Failed to reload"), "{log}");
    log.matches("Reloaded server configuration").count()
}

/// What stands in all files of the log.
fn logs(server: &ServerProcess) -> String {
    let texts = LOGS.iter().filter_map(|name| std::fs::read_to_string(server.path(name)).ok());
    texts.collect()
}

/// Tells threads to end when it goes.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `test` against Ringmain and, if it is there, the real nats-server.
fn on_both(test: impl Fn(&Path)) {
    test(&candidate());
    match reference() {
        Some(reference) => test(&reference),
        None => announce("SKIPPED for the reference: no nats-server here"),
    }
}

fn start(binary: &Path, config: &str) -> ServerProcess {
    ServerProcess::start(binary, &file(config)).expect("a server")
}

/// A file without any option draws a warning.
fn file(config: &str) -> String {
    format!("logtime: true\n{config}\n")
}

/// Writes the file, sends the signal, and returns what the log says of it. The two lines that the reference writes in
/// any case are left out, and what it says about connections.
fn reload(server: &ServerProcess, config: &str) -> Vec<String> {
    let before = server.log().len();
    std::fs::write(server.path("server.conf"), file(config)).expect("the file");
    server.signal(libc::SIGHUP);
    wait_until("the reload", PATIENCE, || {
        let log = server.log();
        let new = &log[before..];
        (new.contains("Reloaded server configuration") || new.contains("Failed to reload"))
            && new.ends_with('\n')
    });
    let about_connections = |line: &String| line.contains(" cid:") || line.starts_with("[INF] Closed ");
    let always =
        |line: &String| line.ends_with("authorization users") || line.ends_with("Reloaded: accounts");
    let log = server.log();
    let lines = log[before..].lines().map(text).filter(|line| !line.contains("Trapped"));
    lines.filter(|line| !about_connections(line) && !always(line)).collect()
}

/// A line without process number and time.
fn text(line: &str) -> String {
    let level =
        ["[INF]", "[ERR]", "[WRN]", "[DBG]", "[TRC]"].iter().filter_map(|level| line.find(level)).min();
    line[level.unwrap_or(0)..].to_owned()
}

fn login(server: &ServerProcess, user: &str, password: &str) -> Peer {
    let mut peer = Peer::open_with(
        server.address,
        &format!("CONNECT {{\"verbose\":false,\"user\":\"{user}\",\"pass\":\"{password}\"}}\r\n"),
    );
    peer.round_trip();
    peer
}
