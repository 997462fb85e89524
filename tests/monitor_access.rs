//! Who may ask the monitoring: everybody, or who shows the password or the token that is configured, on every path, also
//! after a reload.

mod server_process;
mod web;

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use data_encoding::BASE64;
use server_process::{ServerProcess, candidate, wait_until};
use web::{Page, get, request_with};

const PATIENCE: Duration = Duration::from_secs(20);

/// `secret`, at the lowest cost.
const HASH: &str = "$2a$04$.OC/.OC/.OC/.OC/.OC/.OhBAjqkJvp/E/NWAjQEaL1Z6bXG3uS3W";

fn start(config: &str) -> ServerProcess {
    ServerProcess::start(&candidate(), &with_http(config)).unwrap_or_else(|error| panic!("{error}"))
}

fn with_http(config: &str) -> String {
    format!("http: \"127.0.0.1:-1\"\n{config}\n")
}

fn showing(at: SocketAddr, path: &str, authorization: &str) -> Page {
    request_with(at, "GET", path, &[("Authorization", authorization), ("Accept", "text/html")])
}

fn basic(text: &str) -> String {
    format!("Basic {}", BASE64.encode(text.as_bytes()))
}

#[test]
fn everybody_may_ask_by_default_whatever_they_show() {
    let server = start("");
    assert_eq!(get(server.monitoring(), "/varz").status, 200);
    assert_eq!(showing(server.monitoring(), "/varz", &basic("a:b")).status, 200);
}

#[test]
fn nothing_is_answered_without_the_password() {
    for password in ["secret".to_owned(), format!("\"{HASH}\"")] {
        let server = start(&format!("monitor {{ authorization {{ user: ops, password: {password} }} }}"));
        let at = server.monitoring();
        for path in [
            "/",
            "/dashboard",
            "/links",
            "/varz",
            "/connz",
            "/healthz?details=1",
            "/metrics",
            "/debug/vars",
            "/nope",
        ] {
            let refused = get(at, path);
            assert_eq!((refused.status, refused.body.as_str()), (401, "authorization required\n"), "{path}");
            let challenge = refused.header("www-authenticate").expect("what may be shown");
            assert!(challenge.starts_with("Basic ") && !challenge.contains("Bearer"), "{challenge}");
            assert_eq!(showing(at, path, &basic("ops:wrong")).status, 401, "{path}");
            let wanted = if path == "/nope" { 404 } else { 200 };
            assert_eq!(showing(at, path, &basic("ops:secret")).status, wanted, "{path}");
        }
        for wrong in
            [basic("root:secret"), basic("ops"), "Bearer secret".into(), "Basic ?".into(), String::new()]
        {
            assert_eq!(showing(at, "/varz", &wrong).status, 401, "{wrong}");
        }
        let asked = showing(at, "/varz", &basic("ops:secret")).json();
        assert_eq!(asked["http_req_stats"]["/connz"], 1, "refused requests are not counted");
    }
}

#[test]
fn probes_are_told_whether_the_server_is_well_and_nothing_more() {
    let server = start("monitor { authorization { token: secret } }");
    let at = server.monitoring();
    for path in ["/healthz", "/healthz?js-enabled-only=true", "/healthz?js-server-only=true"] {
        let told = get(at, path);
        assert_eq!((told.status, told.body.as_str()), (200, "{\"status\":\"ok\"}"), "{path}");
        assert_eq!(showing(at, path, "Bearer wrong").status, 200, "{path}");
    }
    assert_eq!(get(at, "/healthz?account=A").status, 401);
    assert_eq!(get(at, "/healthz?js-server-only=maybe").body, "{\"status\":\"error\"}");
    assert_eq!(showing(at, "/varz", "Bearer secret").json()["http_req_stats"]["/healthz"], 7);

    let guarded = "monitor { authorization { token: secret, healthz: true } }";
    fs::write(server.path("server.conf"), with_http(guarded)).expect("the file");
    server.signal(libc::SIGHUP);
    wait_until("it is guarded", PATIENCE, || get(at, "/healthz").status == 401);
    assert_eq!(showing(at, "/healthz", "Bearer secret").status, 200);
    assert!(server.log().contains("Reloaded: monitor authorization healthz = true"), "{}", server.log());
}

#[test]
fn a_token_is_shown_as_such_or_as_a_password() {
    let server = start("monitor { authorization { token: secret } }");
    let at = server.monitoring();
    let challenge = get(at, "/varz");
    assert!(challenge.header("www-authenticate").is_some_and(|schemes| schemes.contains("Bearer")));
    for right in ["Bearer secret".to_owned(), basic("anybody:secret")] {
        assert_eq!(showing(at, "/varz", &right).status, 200, "{right}");
    }
    for wrong in ["Bearer secre".to_owned(), basic("secret:"), "secret".into()] {
        assert_eq!(showing(at, "/varz", &wrong).status, 401, "{wrong}");
    }
}

#[test]
fn a_reload_changes_who_may_ask() {
    let server = start("monitor { authorization { token: one } }");
    let at = server.monitoring();
    assert_eq!(showing(at, "/varz", "Bearer one").status, 200);
    for (config, right, wrong) in [
        (format!("monitor {{ authorization {{ token: \"{HASH}\" }} }}"), "Bearer secret", Some("Bearer one")),
        ("monitor { authorization { token: two } }".to_owned(), "Bearer two", Some("Bearer secret")),
        (String::new(), "Bearer nonsense", None),
    ] {
        fs::write(server.path("server.conf"), with_http(&config)).expect("the file");
        server.signal(libc::SIGHUP);
        wait_until("the new one is right", PATIENCE, || showing(at, "/varz", right).status == 200);
        if let Some(wrong) = wrong {
            assert_eq!(showing(at, "/varz", wrong).status, 401, "{wrong}");
        }
    }
    assert!(server.log().contains("Reloaded: monitor authorization"), "{}", server.log());
}
