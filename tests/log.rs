//! The log from outside: rotation, reopening and what a protocol trace shows, under load where it matters. What holds
//! for both servers runs against the real nats-server too, where it is at hand.

mod peer;
mod server_process;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use peer::{Event, PATIENCE, Peer};
use server_process::{ServerProcess, announce, candidate, reference, wait_until};

/// Traced clients and what each of them publishes.
const CLIENTS: usize = 4;
const MESSAGES: usize = 50_000;

#[test]
fn rotation_under_a_trace_at_full_load_keeps_every_line_exactly_once() {
    on_both(|binary| {
        let limit = 1024 * 1024;
        let server = start(binary, &format!("trace: true, log_size_limit: {limit}"));
        let started = Instant::now();
        publish_from_all(&server);
        let took = started.elapsed();
        let files = stop_and_collect(server);
        assert_every_line_is_there(&files);
        let bytes: usize = files.iter().map(|(_, text)| text.len()).sum();
        assert!(files.len() > bytes / limit / 2, "{} files for {bytes} bytes", files.len());
        for (path, text) in &files[..files.len() - 1] {
            assert!(text.len() > limit && text.len() < limit + 1000, "{}: {}", path.display(), text.len());
        }
        for ((path, _), (_, next)) in files.iter().zip(&files[1..]) {
            let name = path.file_name().expect("a name").to_str().expect("plain");
            let first = next.lines().next().expect("a line");
            assert!(first.ends_with(&format!("[INF] Rotated log, backup saved as \"{name}\"")), "{first}");
        }
        announce(&format!("{} files, {} MB in {took:?}", files.len(), bytes >> 20));
    });
}

#[test]
fn reopening_under_load_loses_nothing() {
    on_both(|binary| {
        let server = start(binary, "trace: true");
        let stop = AtomicBool::new(false);
        let mut moved = 0;
        thread::scope(|scope| {
            let load = scope.spawn(|| {
                publish_from_all(&server);
                stop.store(true, Ordering::Relaxed);
            });
            while !stop.load(Ordering::Relaxed) {
                fs::rename(server.path("log"), server.path(&format!("log.{moved:04}"))).expect("moved away");
                server.signal(libc::SIGUSR1);
                wait_until("a new file", PATIENCE, || server.log().contains("[INF] File log re-opened"));
                moved += 1;
            }
            load.join().expect("the load");
        });
        let files = stop_and_collect(server);
        assert_eq!(files.len(), moved + 1);
        assert_every_line_is_there(&files);
        announce(&format!("{moved} files moved away"));
    });
}

#[test]
fn only_so_many_files_are_kept() {
    on_both(|binary| {
        let server = start(binary, "trace: true, log_size_limit: 4KB, log_max_num: 3");
        let mut peer = Peer::open(server.address);
        for i in 0..500 {
            peer.publish("a", format!("c0-{i:06}").as_bytes());
            peer.round_trip();
        }
        let files = stop_and_collect(server);
        assert_eq!(files.len(), 3, "{:?}", files.iter().map(|(path, _)| path).collect::<Vec<_>>());
        let text: String = files.iter().map(|(_, text)| text.as_str()).collect();
        assert!(text.contains("c0-000499") && !text.contains("c0-000000"));
        assert!(text.contains("[INF] Purged log file \"log.20"), "{text}");
    });
}

#[test]
fn size_and_number_of_files_change_with_a_reload() {
    // The reference refuses it.
    let server = start(&candidate(), "");
    let reload = |config: &str| {
        fs::write(server.path("server.conf"), format!("log_file: log, {config}\n")).expect("the file");
        server.signal(libc::SIGHUP);
    };
    let files = || fs::read_dir(server.path("")).expect("a directory").count();
    let before = files();
    reload("log_size_limit: 2000, log_max_num: 2");
    wait_until("the reload", PATIENCE, || server.log().contains("Reloaded: log_max_num = 2"));
    assert!(server.log().contains("[INF] Reloaded: log_size_limit = 2000"));
    // Each is refused, with lines for the log.
    reload("max_subs: 7");
    wait_until("many more lines", PATIENCE, || {
        server.signal(libc::SIGHUP);
        server.log().contains("Purged log file")
    });
    assert_eq!(files(), before + 1);
}

/// What a trace shows, on both servers: for each connection everything behind its label.
#[test]
fn a_trace_shows_what_the_reference_shows() {
    const SECRETIVE: &str = "CONNECT { \"verbose\": false,\"headers\":true, \"no_responders\":true,\"pass\": \"p\", \
         \"auth_token\":\"t\",\"sig\":\"s\",\"nkey\":\"n\",\"user\":\"u\"}\r\n";
    const VERBOSE: &str = "CONNECT {\"verbose\":true}\r\n";
    const DIALOGUE: &str = "SUB x 9\r\nUNSUB 9\r\nSUB a 1\r\nSUB b q 2\r\nUNSUB 2 5\r\nPUB a 5\r\nhello\r\n\
         PUB a r 0\r\n\r\nHPUB a 12 16\r\nNATS/1.0\r\n\r\n\"\\\t\x01\r\nPUB nobody 11\r\n0123456789x\r\nHPUB a 18 20\r\nNATS/1.0\r\nB: c\r\n\r\nhi\r\nSUB once 3\r\n\
         UNSUB 3 1\r\nPUB once 0\r\n\r\nSUB inbox 4\r\nPUB nobody inbox 0\r\n\r\nSUB a..b 5\r\nINFO {}\r\n+OK\r\n\
         UNSUB 1\r\nPING\r\nPONG\r\n";
    for config in [
        "trace: true",
        "trace: true, max_traced_msg_len: 10",
        "trace_headers: true",
        "trace_headers: true, max_traced_msg_len: 10",
    ] {
        let shown = |binary: &Path| {
            let server = start(binary, config);
            let mut plain = Peer::open_with(server.address, "CONNECT {\"verbose\":false}\r\nSUB a 1\r\n");
            plain.round_trip();
            let mut peer = Peer::open_with(server.address, SECRETIVE);
            peer.send(DIALOGUE);
            wait_until("the trace", PATIENCE, || server.log().contains("<<- [PONG]"));
            let mut verbose = Peer::open_with(server.address, VERBOSE);
            verbose.send("SUB a 1\r\n+OK\r\nPUB no 0\r\n\r\nPONG\r\n");
            wait_until("the trace", PATIENCE, || server.log().matches("<<- [PONG]").count() == 2);
            for _ in 0..4 {
                plain.next();
            }
            plain.round_trip();
            wait_until("the trace", PATIENCE, || server.log().matches("->> [PONG]").count() == 3);
            let mut lines = BTreeMap::<String, Vec<String>>::new();
            for line in server.log().lines().filter(|line| line.contains("[TRC]")) {
                let arrows = [" <<- ", " ->> ", " <-> "];
                let at = arrows.iter().filter_map(|arrow| line.find(arrow)).min();
                let (label, text) = line.split_at(at.unwrap_or_else(|| panic!("no direction: {line}")));
                let connection = &label[label.find("cid:").expect("a connection number")..];
                let connection = connection.split(' ').next().unwrap_or_default();
                lines.entry(connection.to_owned()).or_default().push(text.to_owned());
            }
            lines
        };
        let own = shown(&candidate());
        assert_eq!(own.keys().collect::<Vec<_>>(), ["cid:5", "cid:6", "cid:7"]);
        match reference() {
            Some(reference) => assert_eq!(own, shown(&reference), "{config}"),
            None => announce("SKIPPED for the reference: no nats-server here"),
        }
    }
}

/// What `trace_verbose` adds to that, on both servers: the server itself in the system account.
#[test]
fn a_verbose_trace_shows_what_the_server_itself_says() {
    const ADMIN: &str = "CONNECT {\"verbose\":false,\"user\":\"admin\",\"pass\":\"x\"}\r\n";
    let config = |trace: &str| {
        format!(
            "server_name: s, max_traced_msg_len: 15, {trace}: true\n\
             accounts {{ $SYS {{ users: [ {{ user: admin, password: x }} ] }} }}\n"
        )
    };
    let ask = |server: &ServerProcess, inbox: &str| {
        let mut admin = Peer::open_with(server.address, ADMIN);
        admin.send(&format!("SUB {inbox} 1\r\n"));
        admin.send(&format!("PUB $SYS.REQ.SERVER.PING.IDZ {inbox} 0\r\n\r\n"));
        assert!(matches!(admin.next(), Event::Message { .. }));
    };
    let shown = |binary: &Path| {
        let server = start(binary, &config("trace_verbose"));
        ask(&server, "inbox");
        let delivered = || server.log().contains("->> [MSG inbox 1");
        wait_until("the answer in the trace", PATIENCE, delivered);
        let log = server.log();
        let mut own = log.lines().filter_map(|line| line.split_once("[TRC] SYSTEM - ")).map(|(_, text)| text);
        // Behind the subject there is a number of the server's own.
        let subscribed = own.by_ref().find(|text| text.starts_with("<<- [SUB $SYS.REQ.SERVER.PING.IDZ "));
        let number = subscribed.and_then(|text| text.strip_prefix("<<- [SUB $SYS.REQ.SERVER.PING.IDZ  "));
        let number = number.and_then(|rest| rest.strip_suffix(']')).expect("a subscription");
        assert!(number.parse::<u32>().is_ok(), "{number}");
        let published = own.by_ref().find(|text| text.starts_with("<<- [PUB inbox "));
        let payload = own.next().map(str::to_owned);
        (published.map(str::to_owned), payload)
    };
    let own = shown(&candidate());
    let payload = "<<- MSG_PAYLOAD: [\"{\\\"name\\\":\\\"s\\\",\\\"ho...\"]";
    assert_eq!(own.1.as_deref(), Some(payload));
    match reference() {
        Some(reference) => assert_eq!(own, shown(&reference)),
        None => announce("SKIPPED for the reference: no nats-server here"),
    }

    on_both(|binary| {
        let server = start(binary, &config("trace"));
        ask(&server, "first");
        fs::write(server.path("server.conf"), format!("log_file: log, {}", config("trace_verbose")))
            .expect("the file");
        server.signal(libc::SIGHUP);
        wait_until("a reload", PATIENCE, || server.log().contains("Reloaded server configuration"));
        ask(&server, "second");
        wait_until("the trace", PATIENCE, || server.log().contains("SYSTEM - <<- [PUB second "));
        assert!(!server.log().contains("SYSTEM - <<- [PUB first "));
    });
}

/// Prints what a client beside a traced load has to wait for an answer, and without the trace. Both depend on the
/// machine, so nothing is asserted about them.
#[test]
fn a_client_beside_a_traced_load_is_answered() {
    for config in ["trace: true, log_size_limit: 10MB", "trace: false"] {
        let server = start(&candidate(), config);
        let loaded = AtomicBool::new(true);
        let mut waits = thread::scope(|scope| {
            scope.spawn(|| {
                publish_from_all(&server);
                loaded.store(false, Ordering::Relaxed);
            });
            // One for every worker that there may be.
            let probes: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut probe = Peer::open(server.address);
                        let mut waits = Vec::new();
                        while loaded.load(Ordering::Relaxed) {
                            let sent = Instant::now();
                            probe.round_trip();
                            waits.push(sent.elapsed());
                            thread::sleep(Duration::from_millis(1));
                        }
                        waits
                    })
                })
                .collect();
            probes.into_iter().flat_map(|probe| probe.join().expect("a probe")).collect::<Vec<_>>()
        });
        waits.sort_unstable();
        let at = |share: usize| waits[(waits.len() - 1) * share / 1000];
        let (p50, p99, max) = (at(500), at(990), at(1000));
        announce(&format!("{config}: {} answers, p50 {p50:?}, p99 {p99:?}, max {max:?}", waits.len()));
        assert!(!stop_and_collect(server).iter().any(|(_, text)| text.contains("log lines were lost")));
    }
}

/// A message of a syslog: priority, what stands before the text, and the text.
fn message(bytes: &[u8]) -> (String, String, String) {
    let text = std::str::from_utf8(bytes).expect("text").strip_suffix('\n').expect("a line end");
    let (priority, rest) = text.split_once('>').expect("a priority");
    let (head, text) = rest.split_once("]: ").expect("a tag");
    (priority.to_owned(), head.to_owned(), text.to_owned())
}

#[test]
fn a_syslog_gets_what_the_reference_sends() {
    let forms = |binary: &Path, network: &str| {
        let dir = tempfile::tempdir().expect("a directory");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        udp.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let path = dir.path().join("syslog");
        let unix = UnixListener::bind(&path).expect("a socket");
        let target = match network {
            "udp" => format!("udp://{}", udp.local_addr().expect("an address")),
            "tcp" => format!("tcp://{}", tcp.local_addr().expect("an address")),
            _ => format!("unix://{}", path.display()),
        };
        let mut server = Silent::start(binary, &["-DV", "-r", &target]);
        let mut peer = Peer::open(server.address());
        peer.publish("a", b"traced");
        peer.round_trip();
        server.signal(libc::SIGHUP);
        let mut stream: Option<Box<dyn BufRead>> = match network {
            "udp" => None,
            "tcp" => Some(Box::new(BufReader::new(tcp.accept().expect("a connection").0))),
            _ => Some(Box::new(BufReader::new(unix.accept().expect("a connection").0))),
        };
        let mut next = || match &mut stream {
            None => {
                let mut datagram = [0; 4096];
                let len = udp.recv(&mut datagram).expect("a datagram");
                datagram[..len].to_vec()
            }
            Some(stream) => {
                let mut line = Vec::new();
                stream.read_until(b'\n', &mut line).expect("a line");
                line
            }
        };
        let mut forms = Vec::new();
        loop {
            let (priority, head, text) = message(&next());
            // Digits and names differ: 2026-11-25T03:59:52Z host TAG[123.
            let head = head.replace("nats-server", "TAG").replace("ringmain", "TAG");
            let head: String =
                head.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
            let head = head.split_at(head.rfind('[').expect("a process number")).0.to_owned();
            let ends = text.starts_with("Failed to reload server configuration");
            let wanted =
                ["Server is ready", "Trapped", "Failed to reload", "Client connection created", "<<- "];
            if wanted.iter().any(|wanted| text.contains(wanted)) {
                let text = text.split_once(" cid:").map_or(text.as_str(), |(_, rest)| rest);
                forms.push(format!("{priority}>{head}: {text}"));
            }
            if ends {
                return forms;
            }
        }
    };
    for network in ["udp", "tcp", "unix"] {
        let own = forms(&candidate(), network);
        assert!(own.iter().any(|line| line.starts_with("<5>") && line.ends_with("[\"traced\"]")), "{own:#?}");
        match reference() {
            Some(reference) => assert_eq!(own, forms(&reference, network), "{network}"),
            None => announce("SKIPPED for the reference: no nats-server here"),
        }
    }
}

#[test]
fn a_syslog_that_goes_and_comes_stops_nobody() {
    // Nobody is there at first. The reference does not start then.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let addr = listener.local_addr().expect("an address");
    drop(listener);
    let server = Silent::start(&candidate(), &["-DV", "-r", &format!("tcp://{addr}")]);
    let mut peer = Peer::open(server.address());
    let mut number = 0;
    let mut talk = |peer: &mut Peer| {
        peer.publish("a", format!("number-{number:06}").as_bytes());
        peer.round_trip();
        number += 1;
    };
    (0..100).for_each(|_| talk(&mut peer));
    for round in 0..2 {
        let listener = TcpListener::bind(addr).expect("the same port");
        listener.set_nonblocking(true).expect("non-blocking");
        let mut stream = None;
        wait_until("a connection", PATIENCE, || {
            talk(&mut peer);
            stream = listener.accept().ok();
            stream.is_some()
        });
        let (stream, _) = stream.expect("a connection");
        stream.set_nonblocking(false).expect("blocking");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut lines = BufReader::new(stream).split(b'\n').map(|line| {
            let mut line = line.expect("a line");
            line.push(b'\n');
            message(&line).2
        });
        talk(&mut peer);
        let lost = lines
            .find(|line| line.ends_with("log lines were lost: the log was too slow or could not be written"));
        assert!(lost.is_some(), "round {round}");
        talk(&mut peer);
        assert!(lines.any(|line| line.contains("number-")));
        // Gone without a word, with the listener.
        drop(lines);
        drop(listener);
        (0..100).for_each(|_| talk(&mut peer));
        wait_until("lines are lost", PATIENCE, || {
            talk(&mut peer);
            server.stderr().matches("log lines are lost until it is there again").count() == round + 2
        });
    }
}

/// A server that says nothing on standard error; its port stands in the ports file.
struct Silent {
    child: Child,
    dir: tempfile::TempDir,
}

impl Silent {
    fn start(binary: &Path, arguments: &[&str]) -> Silent {
        let dir = tempfile::tempdir().expect("a directory");
        let stderr = fs::File::create(dir.path().join("stderr")).expect("a file");
        let mut command = Command::new(binary);
        command.args(["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir"]).arg(dir.path()).args(arguments);
        let child = command.stderr(stderr).spawn().expect("a server");
        Silent { child, dir }
    }

    fn address(&self) -> SocketAddr {
        let mut address = None;
        wait_until("the ports file", PATIENCE, || {
            let entries = fs::read_dir(self.dir.path()).expect("a directory");
            let mut paths = entries.map(|entry| entry.expect("an entry").path());
            let Some(path) = paths.find(|path| path.extension().is_some_and(|end| end == "ports")) else {
                return false;
            };
            let text = fs::read_to_string(path).unwrap_or_default();
            let url = text.split("nats://").nth(1).and_then(|rest| rest.split('"').next());
            address = url.and_then(|url| url.parse().ok());
            address.is_some()
        });
        address.expect("an address")
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).expect("a file")
    }

    fn signal(&mut self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a pid fits");
        // SAFETY: kill takes no pointers, and the pid is that of a child not yet waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every client publishes its numbers as fast as it can, half of them to a subscriber.
fn publish_from_all(server: &ServerProcess) {
    let mut subscriber = Peer::open(server.address);
    subscriber.send("SUB load.0 1\r\nSUB load.1 2\r\n");
    subscriber.round_trip();
    thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..2 * MESSAGES {
                subscriber.next();
            }
        });
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut peer = Peer::open(server.address);
                for chunk in (0..MESSAGES).collect::<Vec<_>>().chunks(100) {
                    let mut frames = Vec::new();
                    for i in chunk {
                        let payload = format!("c{client}-{i:06}");
                        write!(frames, "PUB load.{client} {}\r\n{payload}\r\n", payload.len())
                            .expect("memory");
                    }
                    peer.send_bytes(&frames);
                }
                peer.round_trip();
            });
        }
    });
}

/// Every number once, and every line whole.
fn assert_every_line_is_there(files: &[(PathBuf, String)]) {
    let mut payloads = BTreeMap::<&str, usize>::new();
    let mut deliveries = 0;
    let pid = files[0].1.split(' ').next().expect("a process id");
    for (path, text) in files {
        assert!(text.ends_with('\n'), "{}", path.display());
        for line in text.lines() {
            assert!(line.starts_with(pid) && line.matches(pid).count() == 1, "torn: {line:?}");
            assert!(!line.contains("lost"), "{line}");
            if let Some((_, rest)) = line.split_once("<<- MSG_PAYLOAD: [\"") {
                let payload = rest.strip_suffix("\"]").unwrap_or_else(|| panic!("torn: {line:?}"));
                *payloads.entry(payload).or_default() += 1;
            }
            deliveries += usize::from(line.contains(" ->> [MSG load.") && line.ends_with(" 9]"));
        }
    }
    assert_eq!(payloads.len(), CLIENTS * MESSAGES);
    for client in 0..CLIENTS {
        for i in 0..MESSAGES {
            let payload = format!("c{client}-{i:06}");
            assert_eq!(payloads.get(payload.as_str()), Some(&1), "{payload}");
        }
    }
    assert_eq!(deliveries, 2 * MESSAGES);
}

/// Ends the server, and returns its log files with their contents, oldest first. The file that is written is `log`.
fn stop_and_collect(mut server: ServerProcess) -> Vec<(PathBuf, String)> {
    server.signal(libc::SIGTERM);
    wait_until("the end", PATIENCE, || server.ended().is_some());
    let entries = fs::read_dir(server.path("")).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"log")))
        .collect();
    paths.sort_by_key(|path| (path.ends_with("log"), path.clone()));
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).expect("a log"))).collect()
}

/// Runs `test` against Ringmain and, if it is there, the real nats-server.
fn on_both(test: impl Fn(&Path)) {
    test(&candidate());
    match reference() {
        Some(reference) => test(&reference),
        None => announce("SKIPPED for the reference: no nats-server here"),
    }
}

/// A server that logs to the file `log` in its directory.
fn start(binary: &Path, config: &str) -> ServerProcess {
    ServerProcess::start(binary, &format!("log_file: log, {config}\n")).expect("a server")
}
