//! The monitoring over HTTPS, held against the real nats-server with the same certificates; and what is Ringmain's own:
//! certificates that clients have to show.

mod certificates;
mod server_process;
mod web;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use certificates::{CERTIFICATES, Offer};
use rustls::StreamOwned;
use server_process::{ServerProcess, announce, candidate, reference, wait_until};
use web::{Page, connect, exchange};

const WITHIN: Duration = Duration::from_secs(20);

/// The candidate, and the reference where it is installed.
fn servers() -> Vec<PathBuf> {
    let reference = reference();
    if reference.is_none() {
        announce("SKIPPED the comparison with nats-server: it is not installed");
    }
    [Some(candidate()), reference].into_iter().flatten().collect()
}

fn start(binary: &Path, config: &str) -> ServerProcess {
    ServerProcess::start(binary, &CERTIFICATES.fill(config)).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn get(server: &ServerProcess, offer: Offer, path: &str) -> Page {
    let stream = StreamOwned::new(offer.connection(), connect(server.monitoring()));
    exchange(stream, "GET", path, &[("Host", "localhost")])
}

/// What becomes of a connection that is encrypted as `offer` says: the first error, or nothing.
fn fault(server: &ServerProcess, offer: Offer) -> Option<String> {
    let mut stream = StreamOwned::new(offer.connection(), connect(server.monitoring()));
    let written = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let read = written.and_then(|()| stream.read(&mut [0; 16]));
    read.err().map(|error| error.to_string())
}

#[test]
fn the_endpoints_are_those_of_http() {
    for binary in servers() {
        let server = start(&binary, "https: \"127.0.0.1:-1\", tls { <PAIR>, <CA>, verify: true }");
        let offer = Offer::default();
        assert_eq!(get(&server, offer, "/healthz").json()["status"], "ok");
        let varz = get(&server, offer, "/varz").json();
        let shown =
            ["http_host", "http_port", "https_port", "tls_required", "tls_verify"].map(|key| &varz[key]);
        assert_eq!(shown.map(ToString::to_string).join(" "), "\"127.0.0.1\" 0 -1 true true");
        assert_eq!(get(&server, offer, "/nope").status, 404);
        assert_eq!(get(&server, Offer { only_1_2: true, ..offer }, "/varz").status, 200);
    }
}

#[test]
fn flags_are_enough_and_the_ports_file_says_https() {
    for binary in servers() {
        let file = |name: &str| CERTIFICATES.path(name).display().to_string();
        let (certificate, key) = (file("server.pem"), file("server-key.pem"));
        let arguments = ["-a", "127.0.0.1", "-p", "-1", "-ms", "-1", "--ports_file_dir", ".", "--tls"];
        let arguments = [&arguments[..], &["--tlscert", &certificate, "--tlskey", &key]].concat();
        let server = ServerProcess::start_with(&binary, "", &arguments).expect("a server");
        assert_eq!(get(&server, Offer::default(), "/varz").status, 200);
        let name = binary.file_name().expect("a name").to_string_lossy().into_owned();
        let ports = server.path(&format!("{name}_{}.ports", server.pid()));
        let shown = || std::fs::read_to_string(&ports).unwrap_or_default();
        let expected = format!("\"monitoring\":[\"https://{}\"]", server.monitoring());
        wait_until("the ports file", WITHIN, || shown().contains(&expected));
    }
}

#[test]
fn whoever_does_not_encrypt_is_told_so() {
    for binary in servers() {
        let server = start(&binary, "https: \"127.0.0.1:-1\", tls { <PAIR> }");
        let mut stream = connect(server.monitoring());
        let from = stream.local_addr().expect("an address");
        stream.write_all(b"GET /varz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("write");
        let mut answer = String::new();
        // The request is not read, so the end of the connection may be a reset.
        let _ = stream.read_to_string(&mut answer);
        let expected = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        assert_eq!(answer, expected);
        let line = format!(
            "[ERR] monitoring: TLS handshake error from {from}: client sent an HTTP request to an HTTPS server\n"
        );
        wait_until("a line in the log", WITHIN, || server.log().contains(&line));
        let stream = connect(server.monitoring());
        let line = format!("TLS handshake error from {}: EOF\n", stream.local_addr().expect("an address"));
        drop(stream);
        wait_until("a line in the log", WITHIN, || server.log().contains(&line));
        assert_eq!(get(&server, Offer::default(), "/varz").status, 200);
    }
}

#[test]
fn what_cannot_be_is_said_at_the_start() {
    for (config, fault) in [
        ("https_port: -1", "TLS cert and key required for HTTPS"),
        ("http_port: 1, https_port: 2", "can't specify both HTTP (1) and HTTPs (2) ports"),
        (
            "http_port: -1, https_port: -1, tls { <PAIR> }",
            "can't specify both HTTP (-1) and HTTPs (-1) ports",
        ),
    ] {
        for binary in servers() {
            assert_refused(&binary, config, fault);
        }
    }
    let fault = "monitor.verify needs https_port: clients show certificates in TLS only";
    assert_refused(&candidate(), "http_port: -1, monitor { verify: true }", fault);
    assert_refused(&candidate(), "monitor { verify: true }", fault);
}

#[track_caller]
fn assert_refused(binary: &Path, config: &str, fault: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("server.conf");
    std::fs::write(&file, CERTIFICATES.fill(config)).expect("a file");
    let output = Command::new(binary).args(["-p", "-1", "-c"]).arg(&file).output().expect("a process");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains(&format!("[FTL] Can't start monitoring: {fault}\n")), "{}: {log}", binary.display());
    assert_eq!(output.status.code(), Some(1), "{}: {config}", binary.display());
    let tested = Command::new(binary).arg("-t").arg("-c").arg(&file).output().expect("a process");
    assert_eq!(tested.status.code(), Some(0), "{}: -t of {config}", binary.display());
}

#[test]
fn clients_have_to_show_a_certificate_where_the_monitoring_verifies() {
    let config = |monitor: &str| {
        CERTIFICATES
            .fill(&format!("https: \"127.0.0.1:-1\", tls {{ <PAIR>, <CA> }}\nmonitor {{ {monitor} }}\n"))
    };
    let server = start(&candidate(), &config("verify: true, authorization { token: secret }"));
    let shows = |certificate| Offer { certificate: Some(certificate), ..Offer::default() };
    let refused = fault(&server, Offer::default()).expect("a refusal");
    assert!(refused.contains("CertificateRequired"), "{refused}");
    let refused = fault(&server, shows("stranger")).expect("a refusal");
    assert!(refused.contains("UnknownCA"), "{refused}");
    for line in ["tls: client didn't provide a certificate\n", "certificate signed by unknown authority\n"] {
        wait_until(line, WITHIN, || server.log().contains(line));
    }
    // The certificate does not spare the token.
    assert_eq!(get(&server, shows("client"), "/varz").status, 401);
    std::fs::write(server.path("server.conf"), config("verify: true")).expect("a file");
    server.signal(libc::SIGHUP);
    wait_until("a reload", WITHIN, || server.log().contains("Reloaded server configuration"));
    assert_eq!(get(&server, shows("client"), "/varz").status, 200);
    assert!(fault(&server, Offer::default()).is_some());
    std::fs::write(server.path("server.conf"), config("")).expect("a file");
    server.signal(libc::SIGHUP);
    wait_until("a reload", WITHIN, || server.log().contains("Reloaded: monitor verify = false"));
    wait_until("the end of it", WITHIN, || fault(&server, Offer::default()).is_none());
}

#[test]
fn a_reload_takes_the_new_certificate_and_refuses_to_do_without() {
    let server = start(&candidate(), "https: \"127.0.0.1:-1\", tls { <PAIR> }");
    let shown = || {
        let mut stream = StreamOwned::new(Offer::default().connection(), connect(server.monitoring()));
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").expect("write");
        stream.flush().expect("flush");
        let _ = stream.read(&mut [0; 16]).expect("read");
        stream.conn.peer_certificates().expect("a certificate")[0].to_vec()
    };
    let before = shown();
    let other =
        CERTIFICATES.fill("https: \"127.0.0.1:-1\", tls { <PAIR> }").replace("server", "other-server");
    std::fs::write(server.path("server.conf"), other).expect("a file");
    server.signal(libc::SIGHUP);
    wait_until("the other certificate", WITHIN, || shown() != before);
    std::fs::write(server.path("server.conf"), "https: \"127.0.0.1:-1\"").expect("a file");
    server.signal(libc::SIGHUP);
    let line = "Failed to reload server configuration: TLS cert and key required for HTTPS";
    wait_until("a refusal", WITHIN, || server.log().contains(line));
    assert_ne!(shown(), before);
}
