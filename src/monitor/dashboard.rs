//! The dashboard: one page, embedded, that shows in a browser what the other answers say.
//!
//! It stands at `/` for browsers, which say that they take HTML, and at `/dashboard` for whoever asks. Everything else
//! that asks for `/` (curl, probes, scripts written for nats-server) gets the links of [`super::page`].
//!
//! The page is built from `src/monitor/dashboard/` by `make dashboard` and committed, so that a build of the server
//! needs nothing but Rust; `build.rs` compresses it. Scripts and styles are inside it, because the server may be below a
//! path that it does not know (`http_base_path`, a proxy). Its policy allows those, by their hashes, and requests to this
//! server; nothing else may be loaded, run or sent anywhere.

use std::sync::LazyLock;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::answer::{Answer, Kind};

/// The page.
const PAGE: &[u8] = include_bytes!("dashboard/dist/index.html");

/// The same, compressed.
const PAGE_GZIP: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dashboard.html.gz"));

/// What the page may do.
pub const POLICY: &str = include_str!("dashboard/dist/policy.txt").trim_ascii();

/// What names this version of the page.
static TAG: LazyLock<String> = LazyLock::new(|| HEXLOWER.encode(&Sha256::digest(PAGE)[..16]));

/// What a client says of the answers that it takes: headers of its request, empty if they are not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preferences {
    /// `Accept`.
    pub accept: String,
    /// `Accept-Encoding`.
    pub accept_encoding: String,
    /// `If-None-Match`.
    pub if_none_match: String,
}

impl Preferences {
    /// Whether it is a browser that shows a page to somebody.
    pub fn wants_html(&self) -> bool {
        accepts(&self.accept, "text/html") || accepts(&self.accept, "application/xhtml+xml")
    }

    /// Whether it has the version of that name already.
    fn has(&self, tag: &str) -> bool {
        let known = self.if_none_match.split(',').map(str::trim);
        known.map(|known| known.strip_prefix("W/").unwrap_or(known)).any(|known| known == "*" || known == tag)
    }
}

/// The answer.
pub fn answer(preferences: &Preferences) -> Answer {
    let gzip = accepts(&preferences.accept_encoding, "gzip");
    let tag = format!("\"{}{}\"", *TAG, if gzip { "-gzip" } else { "" });
    let (status, body) = match preferences.has(&tag) {
        true => (304, &[][..]),
        false if gzip => (200, PAGE_GZIP),
        false => (200, PAGE),
    };
    Answer { status, kind: Kind::Dashboard { tag, gzip }, body: body.to_vec() }
}

/// Whether a header lists `name` by that name, and not to refuse it.
fn accepts(header: &str, name: &str) -> bool {
    header.split(',').any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let is_named = parts.next().is_some_and(|listed| listed.eq_ignore_ascii_case(name));
        let refuses = |part: &str| {
            part.strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok()).is_some_and(|q| q <= 0.0)
        };
        is_named && !parts.any(refuses)
    })
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;

    use super::*;

    fn accepting(accept: &str) -> Preferences {
        Preferences { accept: accept.into(), ..Preferences::default() }
    }

    #[test]
    fn browsers_are_told_by_the_html_that_they_ask_for() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        for accept in [browser, "text/html", "application/json, TEXT/HTML ; q=0.5", "application/xhtml+xml"] {
            assert!(accepting(accept).wants_html(), "{accept}");
        }
        for accept in ["", "*/*", "application/json", "text/*", "text/html;q=0", "text/htmlx"] {
            assert!(!accepting(accept).wants_html(), "{accept}");
        }
    }

    #[test]
    fn the_page_is_sent_once_in_each_encoding() {
        let mut preferences =
            Preferences { accept_encoding: "br, gzip;q=1.0".into(), ..Preferences::default() };
        let answer_gzip = answer(&preferences);
        assert_eq!((answer_gzip.status, answer_gzip.body.as_slice()), (200, PAGE_GZIP));
        preferences.accept_encoding = "gzip;q=0, deflate".into();
        let answer_plain = answer(&preferences);
        assert_eq!((answer_plain.status, answer_plain.body.as_slice()), (200, PAGE));
        let Kind::Dashboard { tag, gzip: false } = answer_plain.kind else {
            panic!("{:?}", answer_plain.kind)
        };
        for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".into()] {
            preferences.if_none_match = known.clone();
            let again = answer(&preferences);
            assert_eq!((again.status, again.body.len()), (304, 0), "{known}");
        }
        preferences.accept_encoding = "gzip".into();
        preferences.if_none_match = tag;
        assert_eq!(answer(&preferences).status, 200, "the other encoding is another version");
    }

    #[test]
    fn the_policy_names_every_script_and_style_of_the_page() {
        let page = str::from_utf8(PAGE).unwrap();
        for (element, directive) in [("script", "script-src"), ("style", "style-src")] {
            let (open, close) = (format!("<{element}>"), format!("</{element}>"));
            let contents: Vec<&str> =
                page.split(&open).skip(1).map(|rest| rest.split(&close).next().unwrap()).collect();
            assert!(!contents.is_empty(), "{element}");
            assert_eq!(
                page.matches(&format!("<{element}")).count(),
                contents.len(),
                "{element} with attributes"
            );
            let hashes: Vec<String> = contents
                .iter()
                .map(|content| format!("'sha256-{}'", BASE64.encode(&Sha256::digest(content))))
                .collect();
            assert!(POLICY.contains(&format!("{directive} {};", hashes.join(" "))), "{POLICY}\n{hashes:?}");
        }
    }

    #[test]
    fn the_page_is_small_and_loads_nothing_from_elsewhere() {
        assert!(PAGE.len() < 200 * 1024, "{}", PAGE.len());
        let page = str::from_utf8(PAGE).unwrap();
        for loader in [" src=\"", "src='", "@import", "url(http", "href=\"http"] {
            assert!(!page.contains(loader), "{loader}");
        }
    }
}
