//! `/` for clients other than browsers, and `/links`: a page of links to everything else.

use super::answer::{Answer, Kind};
use crate::wire::info::{REFERENCE_VERSION, RINGMAIN_VERSION};

/// What the page links to, in its order.
const LINKS: [(&str, &str); 16] = [
    ("Dashboard", "/dashboard"),
    ("General", "/varz"),
    ("JetStream", "/jsz"),
    ("Streams", "/streamz"),
    ("Consumers", "/consumerz"),
    ("Connections", "/connz"),
    ("Accounts", "/accountz"),
    ("Account Stats", "/accstatz"),
    ("Subscriptions", "/subsz"),
    ("Routes", "/routez"),
    ("LeafNodes", "/leafz"),
    ("Gateways", "/gatewayz"),
    ("Raft Groups", "/raftz"),
    ("Health Probe", "/healthz"),
    ("Expvar", "/debug/vars"),
    ("Prometheus", "/metrics"),
];

/// The answer to `/`. Links are relative, as a proxy may have put the server below another path; `base` is the part of
/// them that the reader's path to here ends in.
pub fn answer(base: &str) -> Answer {
    let links: String = LINKS
        .iter()
        .map(|(title, path)| format!("<li><a href=\".{base}{path}\">{title}</a> <code>{path}</code></li>\n"))
        .collect();
    let body = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Ringmain</title>\n<style>\n\
         :root {{ color-scheme: light dark }}\n\
         body {{ font: 18px/1.6 system-ui, sans-serif; margin: 2rem }}\n\
         ul {{ list-style: none; padding: 0 }}\n\
         code {{ opacity: .6 }}\n\
         </style>\n</head>\n<body>\n<h1>Ringmain</h1>\n\
         <p>Version {RINGMAIN_VERSION}, in the place of nats-server {REFERENCE_VERSION}</p>\n\
         <ul>\n{links}</ul>\n\
         <p><a href=\"https://docs.nats.io/running-a-nats-service/nats_admin/monitoring\">Help</a></p>\n\
         </body>\n</html>\n"
    );
    Answer { status: 200, kind: Kind::Html, body: body.into_bytes() }
}
