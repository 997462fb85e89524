//! What goes back over HTTP: a status, a kind of content, the content. The kinds and texts are those of the reference
//! and of the HTTP server in Go's library.

use serde::Serialize;

use super::json;

/// An answer, not yet in the words of an HTTP library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// What the content is.
    pub kind: Kind,
    /// The content.
    pub body: Vec<u8>,
}

/// Kinds of content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// JSON that pages of any origin may read.
    Json,
    /// JSON in the words of Go's `expvar`.
    Vars,
    /// A page.
    Html,
    /// A text about a mistake of the request.
    Text,
    /// There is nothing of that name.
    NotFound,
    /// The dashboard, by the name of its version, compressed or not.
    Dashboard {
        /// The `ETag`.
        tag: String,
        /// Whether it is compressed.
        gzip: bool,
    },
    /// Whoever asks has to show who that is.
    Unauthorized {
        /// The `WWW-Authenticate`.
        challenge: &'static str,
    },
    /// It is at another place.
    Redirect(String),
    /// The text format of Prometheus.
    Metrics,
}

impl Kind {
    /// The `Content-Type`.
    pub fn content_type(&self) -> &'static str {
        match self {
            Kind::Json => "application/json",
            Kind::Vars => "application/json; charset=utf-8",
            Kind::Html | Kind::Dashboard { .. } | Kind::Redirect(_) => "text/html; charset=utf-8",
            Kind::Text | Kind::NotFound | Kind::Unauthorized { .. } => "text/plain; charset=utf-8",
            Kind::Metrics => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

impl Answer {
    /// A value as JSON, indented by two spaces.
    pub fn json(value: &impl Serialize) -> Answer {
        Answer { status: 200, kind: Kind::Json, body: json::indented(value, "  ") }
    }

    /// The same for a value with parts that have been written already.
    pub fn json_with_raw(value: &impl Serialize) -> Answer {
        let body = json::spread(&json::compact(value), "  ");
        Answer { status: 200, kind: Kind::Json, body }
    }

    /// A mistake of the request.
    pub fn bad_request(text: impl Into<String>) -> Answer {
        Answer { status: 400, kind: Kind::Text, body: text.into().into_bytes() }
    }

    /// There is nothing at this path.
    pub fn not_found() -> Answer {
        Answer { status: 404, kind: Kind::NotFound, body: b"404 page not found\n".to_vec() }
    }

    /// The same thing has a shorter path.
    pub fn redirect(to: String) -> Answer {
        let body = format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", escape_html(&to));
        Answer { status: 307, kind: Kind::Redirect(to), body: body.into_bytes() }
    }
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;")
}
