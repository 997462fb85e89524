//! Connections move between the workers of a running server, and their clients cannot tell: every message arrives once
//! and in order, requests are answered, and monitoring sees each connection once, all the time. Some of the clients come by
//! WebSocket, with compression and without.

mod peer;
mod server_process;
mod web;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use peer::websocket::WebSocketStream;
use peer::{Event, HELLO, Peer};
use server_process::{ServerProcess, candidate};
use web::get;

const PAIRS: usize = 12;
const REQUESTERS: usize = 6;

/// Publishers say nothing for so long, so that load comes and goes and workers are packed more than once.
const PAUSE: Duration = Duration::from_millis(400);

/// With so many moves the test has seen enough.
const MOVES_ENOUGH: usize = 3 * PAIRS;

/// How long it looks for them. On a loaded machine moving gains little, so there it is done seldom.
const LOOKS_FOR: Duration = Duration::from_secs(60);

/// How many messages a publisher may be ahead of its subscriber.
const AHEAD_MAX: usize = 2_000;

#[test]
fn clients_cannot_tell_that_they_move() {
    let config = "http: \"127.0.0.1:-1\"\nworkers: 3\ndebug: true\n\
        websocket { listen: \"127.0.0.1:-1\", no_tls: true, compression: true }\n";
    let server = ServerProcess::start(&candidate(), config).expect("a server");
    let (address, web, monitoring) = (server.address, server.websocket(), server.monitoring());
    let ending = AtomicBool::new(false);
    let is_ending = || ending.load(Ordering::Relaxed);
    let got: Vec<AtomicUsize> = (0..PAIRS).map(|_| AtomicUsize::new(0)).collect();

    // Either side by either way, and by WebSocket every other one with compression.
    let client = |pair: usize, by_websocket: bool| match by_websocket {
        true => AnyPeer::over(Box::new(WebSocketStream::open(web, pair.is_multiple_of(2))), HELLO),
        false => AnyPeer::over(Box::new(connected(address)), HELLO),
    };
    let subscribers: Vec<AnyPeer> =
        (0..PAIRS).map(|pair| subscribed(client(pair, pair % 3 != 0), pair)).collect();
    let publishers: Vec<AnyPeer> = (0..PAIRS).map(|pair| client(pair, pair % 4 == 2)).collect();
    let mut responder = Peer::open(address);
    responder.send("SUB ask 1\r\n");
    responder.round_trip();
    let requesters: Vec<Peer> = (0..REQUESTERS).map(|_| Peer::open(address)).collect();
    let connections = 2 * PAIRS + REQUESTERS + 1;

    thread::scope(|scope| {
        for (pair, mut subscriber) in subscribers.into_iter().enumerate() {
            let got = &got[pair];
            scope.spawn(move || {
                loop {
                    let next = got.load(Ordering::Relaxed);
                    match subscriber.next() {
                        Event::Message { payload, .. } if payload == b"end" => return,
                        Event::Message { payload, .. } => {
                            assert_eq!(String::from_utf8_lossy(&payload), next.to_string(), "pair {pair}");
                            got.store(next + 1, Ordering::Relaxed);
                        }
                        event => panic!("pair {pair}: {event:?} instead of message {next}"),
                    }
                }
            });
        }
        for (pair, mut publisher) in publishers.into_iter().enumerate() {
            let got = &got[pair];
            scope.spawn(move || {
                let subject = format!("pair.{pair}");
                let mut sent = 0;
                while !is_ending() {
                    let burst_ends = Instant::now() + PAUSE;
                    while Instant::now() < burst_ends {
                        if sent - got.load(Ordering::Relaxed) < AHEAD_MAX {
                            for _ in 0..20 {
                                publisher.publish(&subject, sent.to_string().as_bytes());
                                sent += 1;
                            }
                        }
                        // Enough that the workers are worth a look, not so much that a small machine is full.
                        thread::sleep(Duration::from_millis(2));
                    }
                    publisher.round_trip();
                    thread::sleep(PAUSE);
                }
                publisher.publish(&subject, b"end");
                publisher.round_trip();
                assert!(sent > 0);
            });
        }
        scope.spawn(move || {
            // The first word of a request says where its answer is to go.
            loop {
                let Event::Message { payload, .. } = responder.next() else { panic!("not a request") };
                let request = String::from_utf8(payload).expect("text");
                let (inbox, body) = request.split_once(' ').expect("an inbox and a number");
                responder.publish(inbox, body.as_bytes());
                if body == "end" {
                    responder.round_trip();
                    return;
                }
            }
        });
        let asking: Vec<_> = requesters
            .into_iter()
            .enumerate()
            .map(|(number, mut requester)| {
                scope.spawn(move || {
                    let inbox = format!("inbox.{number}");
                    requester.send(&format!("SUB {inbox} 1\r\n"));
                    for request in 0.. {
                        if is_ending() {
                            return;
                        }
                        let body = request.to_string();
                        requester.publish("ask", format!("{inbox} {body}").as_bytes());
                        requester.expect_message(&inbox, body.as_bytes());
                        thread::sleep(Duration::from_micros(300));
                    }
                })
            })
            .collect();

        let give_up = Instant::now() + LOOKS_FOR;
        let mut looks = 0;
        let mut moved = 0;
        // By number: at which workers a connection by WebSocket has been seen.
        let mut seen = BTreeMap::<u64, BTreeSet<u64>>::new();
        let web_has_moved = |seen: &BTreeMap<u64, BTreeSet<u64>>| seen.values().any(|at| at.len() > 1);
        while (moved < MOVES_ENOUGH || !web_has_moved(&seen)) && Instant::now() < give_up {
            let page = get(monitoring, "/connz?ringmain=1").json();
            let listed = page["connections"].as_array().expect("a list");
            let cids: BTreeSet<u64> = listed.iter().filter_map(|row| row["cid"].as_u64()).collect();
            for row in listed.iter().filter(|row| row["type"] == "websocket") {
                let worker = row["ringmain"]["worker"].as_u64().expect("a worker");
                seen.entry(row["cid"].as_u64().expect("a number")).or_default().insert(worker);
            }
            assert_eq!(
                (page["num_connections"].as_u64(), cids.len()),
                (Some(connections as u64), connections)
            );
            looks += 1;
            moved = connections_moved(&server.log());
            thread::sleep(Duration::from_millis(20));
        }
        ending.store(true, Ordering::Relaxed);
        for requester in asking {
            requester.join().expect("a requester");
        }
        let mut last = Peer::open(address);
        last.send("SUB last 1\r\n");
        last.publish("ask", b"last end");
        last.expect_message("last", b"end");
        assert!(looks > 0);
        assert!(moved > 0, "no connection moved:\n{}", server.log());
        assert!(moved < MOVES_ENOUGH || web_has_moved(&seen), "none by WebSocket moved: {seen:?}");
    });
}

/// A connection of either kind.
type AnyPeer = Peer<Box<dyn Stream>>;

trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

fn connected(address: SocketAddr) -> TcpStream {
    Peer::open_with(address, "").stream.into_inner()
}

fn subscribed(mut subscriber: AnyPeer, pair: usize) -> AnyPeer {
    subscriber.send(&format!("SUB pair.{pair} 1\r\n"));
    subscriber.round_trip();
    subscriber
}

/// How many connections have been told to move, by the lines of the debug log.
fn connections_moved(log: &str) -> usize {
    log.lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(" gives ")?;
            rest.split_once(" active connections to worker ")?.0.parse::<usize>().ok()
        })
        .sum()
}
