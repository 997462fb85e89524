//! Clusters: Ringmain with Ringmain, and mixed with the real nats-server, dialed in either direction.
//!
//! What a client sees must not depend on which server it is connected to. Interest takes its time from server to server, so that every
//! test first waits until it has come through ([`settle`]): both servers tell each other of changes in order, and so of a last one last.
//!
//! `CLUSTER_SEEDS=N` plays N random clusters instead of a few; `CLUSTER_SEED=S` replays one.

mod peer;
mod server_process;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use peer::{Event, PATIENCE, Peer};
use server_process::{ServerProcess, announce, candidate, reference, wait_until};

const HELLO: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"protocol\":1}\r\n";

/// A server of a cluster.
struct Node {
    server: ServerProcess,
    routes_at: SocketAddr,
}

impl Node {
    /// A server `name` in cluster `C` that dials `others`. `more` stands in its `cluster` block.
    fn start(binary: &Path, name: &str, others: &[SocketAddr], more: &str) -> Node {
        Node::start_at(binary, name, "127.0.0.1:-1", others, &format!("name: C, {more}"), "")
    }

    fn start_at(binary: &Path, name: &str, at: &str, others: &[SocketAddr], block: &str, top: &str) -> Node {
        let routes: Vec<String> = others.iter().map(|other| format!("\"nats-route://{other}\"")).collect();
        let config = format!(
            "server_name: {name}\ndebug: true\n{top}\ncluster {{ listen: \"{at}\", routes: [{}], {block} }}\n",
            routes.join(", ")
        );
        let server = ServerProcess::start(binary, &config).expect("a server");
        wait_until("it listens for routes", PATIENCE, || routes_at(&server.log()).is_some());
        let routes_at = routes_at(&server.log()).expect("just seen");
        Node { server, routes_at }
    }

    fn client(&self) -> Peer {
        let mut client = Peer::open_with(self.server.address, HELLO);
        client.round_trip();
        client
    }

    #[track_caller]
    fn wait_for_log(&self, text: &str) {
        wait_until(text, PATIENCE, || self.server.log().contains(text));
    }
}

fn routes_at(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("Listening for route connections on ")?;
    rest.lines().next()?.trim().parse().ok()
}

/// Runs a test with each mix of two servers: who is dialed, and who dials.
fn with_each_mix(test: impl Fn(&Path, &Path)) {
    let own = candidate();
    test(&own, &own);
    match reference() {
        Some(other) if other != own => {
            test(&own, &other);
            test(&other, &own);
        }
        Some(_) => {}
        None => announce("SKIPPED mixed clusters: there is no nats-server"),
    }
}

/// Two servers that have found each other.
fn pair(first: &Path, second: &Path) -> (Node, Node) {
    let a = Node::start(first, "A", &[], "");
    let b = Node::start(second, "B", &[a.routes_at], "");
    (a, b)
}

/// Returns when the server of `from` knows of all that `to` has subscribed and unsubscribed so far, and what `from` had published before has
/// arrived. Messages that `to` gets meanwhile are returned.
#[track_caller]
fn settle(from: &mut Peer, to: &mut Peer) -> Vec<(String, String)> {
    let (subject, reply) = (format!("settle.{}", fastrand::u64(..)), format!("ready.{}", fastrand::u64(..)));
    let mut events = Vec::new();
    to.send(&format!("SUB {subject} settle\r\n"));
    to.round_trip_keeping(&mut events);
    from.send(&format!("SUB {reply} ready\r\n"));
    wait_until("interest has come through", PATIENCE, || {
        from.send(&format!("PUB {subject} {reply} 1\r\n?\r\n"));
        let mut told = Vec::new();
        from.round_trip_keeping(&mut told);
        // As long as nobody is known, the server says so.
        !told.iter().any(|event| matches!(event, Event::Message { subject, .. } if *subject == reply))
    });
    from.send("UNSUB ready\r\n");
    from.publish(&subject, b"end");
    while !events.iter().any(|event| is_end(event, &subject)) {
        events.push(to.next());
    }
    to.send("UNSUB settle\r\n");
    let others = events.into_iter().filter_map(|event| match event {
        Event::Message { subject: at, .. } if at == subject => None,
        Event::Message { subject, sid, payload } => {
            Some((format!("{subject} {sid}"), String::from_utf8_lossy(&payload).into_owned()))
        }
        other => panic!("{other:?} instead of a message"),
    });
    others.collect()
}

fn is_end(event: &Event, at: &str) -> bool {
    matches!(event, Event::Message { subject, payload, .. } if subject == at && payload == b"end")
}

trait RoundTripKeeping {
    fn round_trip_keeping(&mut self, kept: &mut Vec<Event>);
}

impl RoundTripKeeping for Peer {
    /// A round trip; what comes in between is kept.
    #[track_caller]
    fn round_trip_keeping(&mut self, kept: &mut Vec<Event>) {
        self.send("PING\r\n");
        loop {
            match self.next() {
                Event::Pong => return,
                other => kept.push(other),
            }
        }
    }
}

#[track_caller]
fn expect_503(client: &mut Peer, inbox: &str) {
    match client.next() {
        Event::Message { subject, payload, .. } => {
            assert_eq!(subject, inbox);
            assert!(payload.starts_with(b"NATS/1.0 503"), "{}", String::from_utf8_lossy(&payload));
        }
        other => panic!("{other:?} instead of a 503"),
    }
}

#[test]
fn messages_of_every_kind_reach_subscribers_of_the_other_server() {
    with_each_mix(|first, second| {
        let (a, b) = pair(first, second);
        for (here, there) in [(&a, &b), (&b, &a)] {
            let (mut publisher, mut subscriber) = (here.client(), there.client());
            subscriber.send("SUB plain 1\r\nSUB wild.*.x 2\r\nSUB full.> 3\r\nSUB group q 4\r\n");
            settle(&mut publisher, &mut subscriber);
            let large = vec![b'x'; 300_000];
            publisher.publish("plain", b"1");
            publisher.publish("wild.a.x", b"2");
            publisher.publish("wild.a.y", b"not");
            publisher.publish("full.a.b.c", &large);
            publisher.publish("group", b"4");
            publisher.send("HPUB plain 22 24\r\nNATS/1.0\r\nA: b\r\nC:\r\n\r\nhi\r\n");
            publisher.publish("plain", b"");
            subscriber.expect_message("plain", b"1");
            subscriber.expect_message("wild.a.x", b"2");
            subscriber.expect_message("full.a.b.c", &large);
            subscriber.expect_message("group", b"4");
            subscriber.expect_message("plain", b"NATS/1.0\r\nA: b\r\nC:\r\n\r\nhi");
            subscriber.expect_message("plain", b"");
        }
    });
}

#[test]
fn many_subscribers_of_the_other_server_cost_one_crossing_and_each_gets_it_once() {
    with_each_mix(|first, second| {
        let (a, b) = pair(first, second);
        let (mut publisher, mut subscribers) = (a.client(), [b.client(), b.client(), b.client()]);
        for subscriber in &mut subscribers {
            subscriber
                .send("SUB a.b 1\r\nSUB a.* 2\r\nSUB > 3\r\nSUB a.b q 4\r\nSUB a.* q 5\r\nSUB a.> r 6\r\n");
        }
        for subscriber in &mut subscribers {
            settle(&mut publisher, subscriber);
        }
        for number in 0..50 {
            publisher.publish("a.b", number.to_string().as_bytes());
        }
        let mut counts = [0; 7];
        for subscriber in &mut subscribers {
            for (key, _) in settle(&mut publisher, subscriber) {
                let (subject, sid) = key.split_once(' ').expect("both");
                if subject == "a.b" {
                    counts[sid.parse::<usize>().expect("a number")] += 1;
                }
            }
        }
        assert_eq!((counts[1], counts[2], counts[3], counts[6]), (150, 150, 150, 50));
        assert_eq!(counts[4] + counts[5], 50);
    });
}

#[test]
fn members_of_a_queue_group_are_picked_alike_wherever_they_are() {
    with_each_mix(|first, second| {
        let (a, b) = pair(first, second);
        for (here, there) in [(&a, &b), (&b, &a)] {
            let (mut publisher, mut own, mut other) = (here.client(), here.client(), there.client());
            other.send("SUB work q 1\r\nSUB work q 2\r\nSUB * q 3\r\n");
            own.send("SUB work q 1\r\n");
            own.round_trip();
            settle(&mut publisher, &mut other);
            for number in 0..400 {
                publisher.publish("work", number.to_string().as_bytes());
            }
            let (served_here, served_there) =
                (settle(&mut publisher, &mut own).len(), settle(&mut publisher, &mut other).len());
            assert_eq!(served_here + served_there, 400);
            // 100 would be the middle; it is less than 40 or more than 180 once in many millions.
            assert!((40..180).contains(&served_here), "{served_here}");
            own.send("UNSUB 1\r\n");
            own.round_trip();
            publisher.publish("work", b"");
            assert_eq!(
                (settle(&mut publisher, &mut own).len(), settle(&mut publisher, &mut other).len()),
                (0, 1)
            );
        }
    });
}

#[test]
fn requests_are_answered_over_the_cluster_and_fail_at_once_where_nobody_is() {
    with_each_mix(|first, second| {
        let (a, b) = pair(first, second);
        for (here, there) in [(&a, &b), (&b, &a)] {
            let (mut requester, mut responder) = (here.client(), there.client());
            requester.send("SUB inbox 1\r\nPUB ask inbox 0\r\n\r\n");
            expect_503(&mut requester, "inbox");
            responder.send("SUB ask 1\r\n");
            settle(&mut requester, &mut responder);
            for number in 0..200 {
                // The inbox is new each time: whoever is asked has to know of it.
                let inbox = format!("_INBOX.{number}");
                requester.send(&format!("SUB {inbox} r{number}\r\nPUB ask {inbox} 1\r\nx\r\n"));
                responder.expect_message("ask", b"x");
                responder.publish(&inbox, b"answer");
                requester.expect_message(&inbox, b"answer");
                requester.send(&format!("UNSUB r{number}\r\n"));
            }
            responder.send("UNSUB 1\r\n");
            settle(&mut requester, &mut responder);
            requester.send("PUB ask inbox 0\r\n\r\n");
            expect_503(&mut requester, "inbox");
        }
    });
}

#[test]
fn three_servers_of_which_two_know_only_the_third_become_one() {
    let own = candidate();
    let mut mixes = vec![[own.clone(), own.clone(), own.clone()]];
    match reference() {
        Some(other) if other != own => {
            mixes.push([own.clone(), other.clone(), own.clone()]);
            mixes.push([other.clone(), own.clone(), own.clone()]);
            mixes.push([own.clone(), other.clone(), other]);
        }
        Some(_) => {}
        None => announce("SKIPPED mixed clusters: there is no nats-server"),
    }
    for binaries in mixes {
        let hub = Node::start(&binaries[0], "A", &[], "");
        let nodes = [
            Node::start(&binaries[1], "B", &[hub.routes_at], ""),
            Node::start(&binaries[2], "C", &[hub.routes_at], ""),
            hub,
        ];
        let mut clients: Vec<Peer> = nodes.iter().map(Node::client).collect();
        for client in &mut clients {
            client.send("SUB all.* 1\r\n");
        }
        for from in 0..3 {
            for to in (0..3).filter(|to| *to != from) {
                let [publisher, subscriber] = clients.get_disjoint_mut([from, to]).expect("two");
                settle(publisher, subscriber);
            }
        }
        for from in 0..3 {
            for number in 0..10 {
                clients[from].publish(&format!("all.{from}"), number.to_string().as_bytes());
            }
            for to in (0..3).filter(|to| *to != from) {
                let [publisher, subscriber] = clients.get_disjoint_mut([from, to]).expect("two");
                let seen = settle(publisher, subscriber);
                let count = seen.iter().filter(|(key, _)| key.starts_with("all.")).count();
                assert_eq!(count, 10, "{to} gets what {from} has published, once");
            }
        }
    }
}

#[test]
fn a_server_that_ends_takes_its_interest_along_and_is_found_again() {
    with_each_mix(|first, second| {
        let a = Node::start(first, "A", &[], "");
        // A port that is known beforehand, so that the other one finds it again; nobody else is told of it.
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|bound| bound.local_addr()).expect("a port").port();
        let at = format!("127.0.0.1:{port}");
        let b = Node::start_at(second, "B", &at, &[a.routes_at], "name: C", "");
        let c = Node::start(first, "D", &[b.routes_at], "");
        let mut publisher = c.client();
        publisher.send("SUB inbox 1\r\n");
        let mut subscriber = b.client();
        subscriber.send("SUB there 1\r\n");
        settle(&mut publisher, &mut subscriber);
        drop((subscriber, b));
        wait_until("its interest is gone", PATIENCE, || {
            publisher.send("PUB there inbox 0\r\n\r\n");
            let mut events = Vec::new();
            publisher.round_trip_keeping(&mut events);
            !events.is_empty()
        });
        let b = Node::start_at(second, "B", &at, &[a.routes_at], "name: C", "");
        let mut subscriber = b.client();
        subscriber.send("SUB there 1\r\n");
        settle(&mut publisher, &mut subscriber);
        publisher.publish("there", b"again");
        subscriber.expect_message("there", b"again");
    });
}

#[test]
fn servers_whose_cluster_has_no_name_agree_on_one() {
    with_each_mix(|first, second| {
        for names in [["", ""], ["name: NAMED", ""], ["", "name: NAMED"]] {
            let a = Node::start_at(first, "A", "127.0.0.1:-1", &[], names[0], "");
            let b = Node::start_at(second, "B", "127.0.0.1:-1", &[a.routes_at], names[1], "");
            let (mut publisher, mut subscriber) = (a.client(), b.client());
            subscriber.send("SUB x 1\r\n");
            settle(&mut publisher, &mut subscriber);
        }
    });
}

#[test]
fn accounts_are_apart_over_the_cluster_as_they_are_within_a_server() {
    let top = "accounts { X { users: [{user: x, password: x}] }, Y { users: [{user: y, password: y}] } }";
    with_each_mix(|first, second| {
        let a = Node::start_at(first, "A", "127.0.0.1:-1", &[], "name: C", top);
        let b = Node::start_at(second, "B", "127.0.0.1:-1", &[a.routes_at], "name: C", top);
        let login = |node: &Node, user: &str| {
            let hello = HELLO.replace('{', &format!("{{\"user\":\"{user}\",\"pass\":\"{user}\","));
            Peer::open_with(node.server.address, &hello)
        };
        let (mut x, mut y) = (login(&b, "x"), login(&b, "y"));
        let mut publisher = login(&a, "x");
        for client in [&mut x, &mut y] {
            client.send("SUB a 1\r\n");
        }
        settle(&mut publisher, &mut x);
        settle(&mut login(&a, "y"), &mut y);
        publisher.publish("a", b"for x");
        assert_eq!(settle(&mut publisher, &mut x), [("a 1".to_owned(), "for x".to_owned())]);
        assert!(settle(&mut login(&a, "y"), &mut y).is_empty());
    });
}

#[test]
fn whoever_does_not_belong_to_the_cluster_is_told_and_disturbs_nobody() {
    let own = candidate();
    let secured = "authorization { user: r, password: secret, timeout: 1 }";
    let a = Node::start(&own, "A", &[], secured);
    let url = format!("nats-route://r:secret@{}", a.routes_at);
    let block = format!("name: C, {secured}").replace("name: C,", &format!("name: C, routes: [\"{url}\"],"));
    let config = format!("server_name: B\ncluster {{ listen: \"127.0.0.1:-1\", {block} }}\n");
    let server = ServerProcess::start(&own, &config).expect("a server");
    wait_until("it listens for routes", PATIENCE, || routes_at(&server.log()).is_some());
    let routes_at = routes_at(&server.log()).expect("just seen");
    let b = Node { server, routes_at };
    let (mut publisher, mut subscriber) = (a.client(), b.client());
    subscriber.send("SUB x 1\r\n");
    settle(&mut publisher, &mut subscriber);
    let connect = |fields: &str| format!("CONNECT {{\"name\":\"NX\",{fields}}}\r\n");
    let login = "\"user\":\"r\",\"pass\":\"secret\"";
    let greeting = format!(
        "{}INFO {{\"server_id\":\"NX\",\"server_name\":\"X\",\"cluster\":\"C\"}}\r\n",
        connect(&format!("{login},\"cluster\":\"C\""))
    );
    for (sent, answer, logged) in [
        (connect("\"cluster\":\"C\""), "Authorization Violation", "authentication error"),
        (
            connect("\"user\":\"r\",\"pass\":\"wrong\",\"cluster\":\"C\""),
            "Authorization Violation",
            "authentication error",
        ),
        (
            connect(&format!("{login},\"cluster\":\"OTHER\"")),
            "cluster name \"OTHER\" does not match \"C\"",
            "Rejecting connection, cluster name \"OTHER\" does not match \"C\"",
        ),
        (
            connect(&format!("{login},\"lang\":\"go\"")),
            "attempted to connect to route port",
            "attempted to connect to route port",
        ),
        (connect("\"gateway\":\"G\""), "Rejecting connection from gateway", "on the Route port"),
        ("RS+ $G x\r\n".to_owned(), "Authorization Violation", "Authorization Violation"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "Unknown Protocol Operation", "unknown protocol operation"),
        (format!("{greeting}RS+ $G\r\n"), "Unknown Protocol Operation", "RS+ with wrong arguments"),
        (
            format!("{greeting}RMSG $G x 99999999\r\n"),
            "Maximum Payload Violation",
            "maximum payload exceeded",
        ),
        (
            format!("{greeting}RMSG $G x 2\r\nhixx"),
            "Unknown Protocol Operation",
            "unknown protocol operation",
        ),
        (
            format!("{greeting}RS+ $G {}", "a".repeat(70_000)),
            "maximum control line exceeded",
            "maximum control line exceeded",
        ),
        (
            format!("{greeting}RS+ NOBODY x\r\nRS+ $G a..b\r\nNONSENSE\r\n"),
            "Unknown Protocol Operation",
            "Unknown account \"NOBODY\" for remote subject \"x\"",
        ),
        (String::new(), "Authentication Timeout", "Authentication Timeout"),
    ] {
        let before = a.server.log().matches(logged).count();
        let mut stream = TcpStream::connect(a.routes_at).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(sent.as_bytes()).expect("write");
        let mut said = Vec::new();
        // It may be closed with a reset, for what it sent was not all read.
        let _ = stream.read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said);
        assert!(said.starts_with("INFO {"), "{said}");
        assert!(said.contains(answer) || said.matches("\r\n").count() < 2, "{sent:.100}: {said}");
        wait_until(logged, PATIENCE, || a.server.log().matches(logged).count() > before);
        publisher.publish("x", b"still there");
        subscriber.expect_message("x", b"still there");
    }
    // One that is of another cluster and dials is refused by the reason too, and goes on trying.
    let stranger = Node::start_at(&own, "X", "127.0.0.1:-1", &[b.routes_at], "name: OTHER", "");
    stranger.wait_for_log("cluster");
    b.wait_for_log("authentication error");
}

#[test]
fn a_route_that_leads_to_the_server_itself_and_one_that_stands_twice_do_no_harm() {
    with_each_mix(|first, second| {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|bound| bound.local_addr()).expect("a port").port();
        let at = format!("127.0.0.1:{port}");
        let own: SocketAddr = at.parse().expect("an address");
        let a = Node::start_at(first, "A", &at, &[own], "name: C", "");
        let b = Node::start(second, "B", &[own, own], "");
        let c = Node::start(second, "C", &[own, b.routes_at], "");
        let (mut publisher, mut subscriber) = (a.client(), c.client());
        subscriber.send("SUB x 1\r\n");
        settle(&mut publisher, &mut subscriber);
        publisher.publish("x", b"once");
        assert_eq!(settle(&mut publisher, &mut subscriber), [("x 1".to_owned(), "once".to_owned())]);
    });
}

/// What one client of the random test has subscribed.
#[derive(Debug, Clone)]
struct Wanted {
    client: usize,
    sid: usize,
    pattern: &'static str,
    group: Option<&'static str>,
}

fn matches(pattern: &str, subject: &str) -> bool {
    let (mut patterns, mut tokens) = (pattern.split('.'), subject.split('.'));
    loop {
        match (patterns.next(), tokens.next()) {
            (Some(">"), Some(_)) => return true,
            (Some(pattern), Some(token)) if pattern == "*" || pattern == token => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[test]
fn random_clients_of_random_clusters_get_what_a_naive_model_says() {
    const PATTERNS: [&str; 8] = ["r.a", "r.b", "r.*", "r.>", "r.a.b", "*.a", "r.*.b", "r.b.>"];
    const SUBJECTS: [&str; 5] = ["r.a", "r.b", "r.a.b", "r.b.b", "s.a"];
    const GROUPS: [&str; 2] = ["q1", "q2"];
    let count = std::env::var("CLUSTER_SEEDS").ok().map_or(2, |count| count.parse().expect("a number"));
    let first = std::env::var("CLUSTER_SEED").ok().map(|seed| seed.parse::<u64>().expect("a number"));
    let seeds: Vec<u64> = match first {
        Some(seed) => vec![seed],
        None => (0..count).map(|_| fastrand::u64(..)).collect(),
    };
    let own = candidate();
    let other: PathBuf = reference().unwrap_or_else(|| own.clone());
    for seed in seeds {
        announce(&format!("replay: CLUSTER_SEED={seed} cargo test --test cluster random"));
        let mut random = fastrand::Rng::with_seed(seed);
        let binary =
            |random: &mut fastrand::Rng| if random.u8(..3) == 0 { other.clone() } else { own.clone() };
        let a = Node::start(&binary(&mut random), "A", &[], "");
        let b = Node::start(&binary(&mut random), "B", &[a.routes_at], "");
        let c = Node::start(&own, "C", &[a.routes_at, b.routes_at], "");
        let nodes = [a, b, c];
        // Two clients of each server.
        let mut clients: Vec<Peer> = (0..6).map(|at| nodes[at % 3].client()).collect();
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut next_sid = 1;
        for _ in 0..12 {
            for _ in 0..random.usize(1..8) {
                if random.u8(..3) == 0 && !wanted.is_empty() {
                    let gone = wanted.swap_remove(random.usize(..wanted.len()));
                    clients[gone.client].send(&format!("UNSUB {}\r\n", gone.sid));
                    continue;
                }
                let (client, pattern) = (random.usize(..6), PATTERNS[random.usize(..PATTERNS.len())]);
                let group = (random.u8(..2) == 0).then(|| GROUPS[random.usize(..2)]);
                clients[client].send(&format!("SUB {pattern} {} {next_sid}\r\n", group.unwrap_or_default()));
                wanted.push(Wanted { client, sid: next_sid, pattern, group });
                next_sid += 1;
            }
            for from in 0..3 {
                for to in (0..6).filter(|to| *to != from) {
                    let [publisher, subscriber] = clients.get_disjoint_mut([from, to]).expect("two");
                    let seen = settle(publisher, subscriber);
                    assert!(seen.is_empty(), "{to} has got {seen:?}");
                }
            }
            let (publisher, subject) = (random.usize(..3), SUBJECTS[random.usize(..SUBJECTS.len())]);
            // The publisher does not hear itself here, so that reading it is not mixed up with publishing.
            let own_of_publisher = wanted.iter().any(|wanted| wanted.client == publisher);
            if own_of_publisher {
                for gone in wanted.extract_if(.., |wanted| wanted.client == publisher) {
                    clients[publisher].send(&format!("UNSUB {}\r\n", gone.sid));
                }
                clients[publisher].round_trip();
                for from in (0..3).filter(|from| *from != publisher) {
                    let [other, subscriber] = clients.get_disjoint_mut([from, publisher]).expect("two");
                    settle(other, subscriber);
                }
            }
            clients[publisher].publish(subject, b"m");
            let mut got: Vec<usize> = Vec::new();
            for to in (0..6).filter(|to| *to != publisher) {
                let [publisher, subscriber] = clients.get_disjoint_mut([publisher, to]).expect("two");
                for (key, _) in settle(publisher, subscriber) {
                    got.push(key.split_once(' ').expect("a sid").1.parse().expect("a number"));
                }
            }
            let reached: Vec<&Wanted> =
                wanted.iter().filter(|wanted| matches(wanted.pattern, subject)).collect();
            for wanted in reached.iter().filter(|wanted| wanted.group.is_none()) {
                let times = got.iter().filter(|sid| **sid == wanted.sid).count();
                assert_eq!(times, 1, "{subject} from {publisher}: {wanted:?} of {reached:?} in {got:?}");
            }
            for group in GROUPS {
                let members: Vec<&&Wanted> =
                    reached.iter().filter(|wanted| wanted.group == Some(group)).collect();
                let served: Vec<&&&Wanted> =
                    members.iter().filter(|member| got.contains(&member.sid)).collect();
                assert_eq!(
                    served.len(),
                    members.len().min(1),
                    "{subject} from {publisher}: {group} of {reached:?} in {got:?}"
                );
            }
            let expected = reached.iter().filter(|wanted| wanted.group.is_none()).count()
                + GROUPS
                    .iter()
                    .filter(|group| reached.iter().any(|wanted| wanted.group == Some(group)))
                    .count();
            assert_eq!(got.len(), expected, "{subject} from {publisher}: {reached:?} in {got:?}");
        }
    }
}

#[test]
fn a_service_is_asked_at_another_server_and_answers_across_accounts() {
    let top = "accounts {\n  X { users: [{user: x, password: x}], exports: [{service: ask}] }\n  Y { users: [{user: y, password: y}], imports: [{service: {account: X, subject: ask}, to: help}] }\n}";
    with_each_mix(|first, second| {
        let a = Node::start_at(first, "A", "127.0.0.1:-1", &[], "name: C", top);
        let b = Node::start_at(second, "B", "127.0.0.1:-1", &[a.routes_at], "name: C", top);
        let login = |node: &Node, user: &str| {
            let hello = HELLO.replace('{', &format!("{{\"user\":\"{user}\",\"pass\":\"{user}\","));
            Peer::open_with(node.server.address, &hello)
        };
        for (here, there) in [(&a, &b), (&b, &a)] {
            let (mut requester, mut responder) = (login(here, "y"), login(there, "x"));
            responder.send("SUB ask 1\r\n");
            settle(&mut login(here, "x"), &mut responder);
            requester.send("SUB inbox 1\r\n");
            for number in 0..20 {
                requester.send("PUB help inbox 1\r\n?\r\n");
                let reply = request_reply(&mut responder);
                responder.publish(&reply, number.to_string().as_bytes());
                requester.expect_message("inbox", number.to_string().as_bytes());
            }
        }
    });
}

/// Reads a request and returns its reply subject.
#[track_caller]
fn request_reply(responder: &mut Peer) -> String {
    use std::io::{BufRead as _, Read as _};
    loop {
        let mut line = String::new();
        responder.stream.read_line(&mut line).expect("a request");
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["PING"] => responder.send("PONG\r\n"),
            ["INFO", ..] => {}
            ["MSG" | "HMSG", _, _, reply, .., size] => {
                let mut body = vec![0; size.parse::<usize>().expect("a size") + 2];
                responder.stream.read_exact(&mut body).expect("a body");
                return reply.to_owned();
            }
            _ => panic!("{line:?} instead of a request"),
        }
    }
}

#[test]
fn clients_are_told_of_the_other_servers_when_they_come_and_go() {
    use std::io::BufRead as _;
    fn connect_urls(client: &mut Peer) -> Vec<String> {
        loop {
            let mut line = String::new();
            client.stream.read_line(&mut line).expect("a line");
            if let Some(json) = line.strip_prefix("INFO ") {
                let info: serde_json::Value = serde_json::from_str(json).expect("JSON");
                let urls = info["connect_urls"].as_array().cloned().unwrap_or_default();
                return urls.iter().map(|url| url.as_str().expect("a text").to_owned()).collect();
            }
            if line.starts_with("PING") {
                client.send("PONG\r\n");
            }
        }
    }
    with_each_mix(|first, second| {
        let a = Node::start(first, "A", &[], "");
        let mut client = Peer::open_with(a.server.address, HELLO);
        client.send("PING\r\n");
        let own = a.server.address.to_string();
        // The greeting, and the answer to the first PING.
        for _ in 0..2 {
            assert!(connect_urls(&mut client).is_empty());
        }
        let b = Node::start(second, "B", &[a.routes_at], "");
        assert_eq!(connect_urls(&mut client), [own.clone(), b.server.address.to_string()]);
        drop(b);
        assert_eq!(connect_urls(&mut client), std::slice::from_ref(&own));
        let silent = Node::start(second, "B", &[a.routes_at], "no_advertise: true");
        let mut other = silent.client();
        settle(&mut a.client(), &mut other);
        let mut late = Peer::open_with(silent.server.address, HELLO);
        assert!(connect_urls(&mut late).is_empty());
        let mut late = Peer::open_with(a.server.address, HELLO);
        assert!(!connect_urls(&mut late).iter().any(|url| *url == silent.server.address.to_string()));
    });
}

#[test]
fn monitoring_shows_the_routes_as_the_reference_does() {
    fn keys(value: &serde_json::Value) -> Vec<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    }
    let get = |node: &Node, path: &str| -> serde_json::Value {
        let mut stream = TcpStream::connect(node.server.monitoring()).expect("connect");
        let request = format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(body).expect("JSON")
    };
    let mut seen = Vec::new();
    // One connection between two servers, also of the reference.
    let block = "name: C, pool_size: -1";
    for binary in [Some(candidate()), reference()].into_iter().flatten() {
        let a = Node::start_at(&binary, "A", "127.0.0.1:-1", &[], block, "http: \"127.0.0.1:-1\"");
        let b = Node::start_at(&binary, "B", "127.0.0.1:-1", &[a.routes_at], block, "http: \"127.0.0.1:-1\"");
        let (mut publisher, mut subscriber) = (b.client(), a.client());
        subscriber.send("SUB x q 1\r\nSUB y 2\r\n");
        settle(&mut publisher, &mut subscriber);
        publisher.publish("y", b"hi");
        subscriber.expect_message("y", b"hi");
        wait_until("a round trip is known", PATIENCE, || get(&b, "/routez")["routes"][0]["rtt"].is_string());
        let routez = get(&b, "/routez?subs=1");
        let route = &routez["routes"][0];
        assert_eq!((&routez["num_routes"], &route["remote_name"]), (&1.into(), &"A".into()));
        assert_eq!((&route["did_solicit"], &route["is_configured"]), (&true.into(), &true.into()));
        assert_eq!(route["port"], a.routes_at.port());
        let list = route["subscriptions_list"].as_array().expect("a list");
        assert!(list.contains(&"x".into()) && list.contains(&"y".into()));
        let other = get(&a, "/routez");
        assert_eq!(other["routes"][0]["did_solicit"], false);
        let varz = get(&b, "/varz");
        assert_eq!((&varz["routes"], &varz["remotes"]), (&1.into(), &1.into()));
        assert_eq!(varz["cluster"]["name"], "C");
        seen.push((keys(&routez), keys(route), varz["cluster"]["urls"].clone().as_array().map(Vec::len)));
    }
    if let [own, other] = &seen[..] {
        assert_eq!(own, other);
    }
}
