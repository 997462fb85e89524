//! What leads from one account's subject space into another's: imports of streams and of services.
//!
//! An imported stream is a window: whoever subscribes in the importing account to something that the window shows is
//! entered into the *exporter's* index too, under the exporter's subjects ([`StreamImport::shadow`]). A message is then
//! found by the exporter's index alone, and delivered under the subject that the window shows it by
//! ([`Change::apply`]), which is made once, when the fan-out list is built.
//!
//! An imported service is a pattern in the *importer's* index that belongs to nobody. What is published to it is published again
//! in the exporter's account ([`ServiceImport::change`]), by `broker/services.rs`.
//!
//! The rules, the odd ones too, are those of nats-server 2.15.1. Neither sort knows who may import what: the
//! configuration has seen to that.

use std::sync::Arc;

use super::mapping::is_subset;
use super::name::{Pattern, has_wildcard};
use super::transform::{Transform, TransformError, with_placeholders, without_placeholders};

/// What becomes of a subject on its way into the other account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It stays.
    Keep,
    /// It is always this one.
    To(Box<str>),
    /// It depends on what the wildcards stand for.
    Transform(Box<Transform>),
}

impl Change {
    /// Appends what becomes of `subject`.
    pub fn apply(&self, subject: &[u8], out: &mut Vec<u8>) {
        match self {
            Change::Keep => out.extend_from_slice(subject),
            Change::To(to) => out.extend_from_slice(to.as_bytes()),
            // Reversible ones have nothing random.
            Change::Transform(transform) => transform.apply(subject, &mut fastrand::Rng::with_seed(0), out),
        }
    }
}

/// A stream that an account imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamImport {
    /// Slot of the account that it comes from.
    pub exporter: u16,
    /// The exporter's subjects.
    from: Box<str>,
    /// The importer's, with wildcards where they have some.
    to: Box<str>,
    /// From there to here.
    change: Change,
    /// From here to there.
    back: Option<Transform>,
}

impl StreamImport {
    /// A window on `from`, which shows it as `to`.
    ///
    /// # Errors
    ///
    /// `to` cannot be made from `from`.
    pub fn new(exporter: u16, from: &str, to: &str) -> Result<StreamImport, TransformError> {
        let (change, shown, back) = if !has_wildcard(from.as_bytes()) {
            (Change::To(to.into()), to.to_owned(), None)
        } else if from == to {
            (Change::Keep, to.to_owned(), None)
        } else {
            let transform = Transform::reversible(from, &with_placeholders(to))?;
            let back = transform.reverse();
            (Change::Transform(Box::new(transform)), without_placeholders(to).0, back)
        };
        Ok(StreamImport { exporter, from: from.into(), to: shown.into(), change, back })
    }

    /// The exporter's subjects.
    pub fn from(&self) -> &str {
        &self.from
    }

    /// The importer's.
    pub fn to(&self) -> &str {
        &self.to
    }

    /// What becomes of the exporter's subjects.
    pub fn change(&self) -> &Change {
        &self.change
    }

    /// What a subscription of the importer to `pattern` subscribes to in the exporter's account, if the window shows
    /// something of it.
    pub fn shadow(&self, pattern: Pattern<'_>) -> Option<Box<[u8]>> {
        let pattern = pattern.as_bytes();
        let to = self.to.as_bytes();
        let seen = if pattern == to {
            None
        } else if is_subset(pattern, to) {
            Some(pattern.to_vec())
        } else if !has_wildcard(pattern) {
            return None;
        } else if is_subset(to, pattern) {
            None
        } else {
            Some(overlap(pattern, to)?)
        };
        let from = || Box::from(self.from.as_bytes());
        let shadow: Box<[u8]> = match (seen, &self.change, &self.back) {
            (Some(seen), Change::Transform(_), Some(back)) => {
                let mut subject = Vec::new();
                back.apply(&seen, &mut fastrand::Rng::with_seed(0), &mut subject);
                subject.into()
            }
            (Some(seen), Change::Keep, _) => seen.into(),
            _ => from(),
        };
        Pattern::parse(&shadow).is_ok().then_some(shadow)
    }
}

/// What both `pattern` and `other` match, where neither matches all of the other and the first has wildcards.
fn overlap(pattern: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let other_tokens: Vec<&[u8]> = other.split(|byte| *byte == b'.').collect();
    let mut tokens: Vec<&[u8]> = pattern.split(|byte| *byte == b'.').collect();
    for (token, other) in tokens.iter_mut().zip(&other_tokens) {
        if *token == b"*" && *other != b">" {
            *token = other;
        }
    }
    let last = tokens.len() - 1;
    if tokens[last] == b">" && other_tokens.len() >= tokens.len() {
        tokens[last] = other_tokens[last];
        tokens.extend_from_slice(&other_tokens[last + 1..]);
    }
    let both = tokens.join(&b'.');
    is_subset(&both, other).then_some(both)
}

/// How often a service answers one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ResponseType {
    /// Once.
    #[default]
    Singleton,
    /// Until nothing has come for some time.
    Stream,
    /// Until an empty answer.
    Chunked,
}

/// Which requests to a service are measured, and where that is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latency {
    /// Of a hundred requests; 0: those whose headers ask for it.
    pub sampling: u8,
    /// Where the measurements are published.
    pub subject: String,
}

/// What the exporter of a service has laid down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceTerms {
    /// The export's subject, which with its account tells services apart.
    pub subject: Box<str>,
    /// How often it answers.
    pub response: ResponseType,
    /// How long an answer is waited for.
    pub threshold_ms: u64,
    /// What is measured.
    pub latency: Option<Latency>,
}

/// A service that an account imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceImport {
    /// Slot of the account whose requests go there.
    pub importer: u16,
    /// Slot of the account that answers.
    pub exporter: u16,
    /// The importer's subjects, with wildcards where they have some.
    from: Box<str>,
    /// The exporter's.
    to: Box<str>,
    change: Change,
    /// What its export says.
    pub terms: Arc<ServiceTerms>,
    /// The exporter is told who asks.
    pub shares: bool,
}

impl ServiceImport {
    /// Requests to `from` go to `to`.
    ///
    /// # Errors
    ///
    /// `to` cannot be made from `from`.
    pub fn new(
        importer: u16,
        exporter: u16,
        from: &str,
        to: &str,
        terms: Arc<ServiceTerms>,
        shares: bool,
    ) -> Result<ServiceImport, TransformError> {
        let (from, to, change) = if !has_wildcard(to.as_bytes()) {
            (from.to_owned(), to.to_owned(), Change::To(to.into()))
        } else if from == to {
            (from.to_owned(), to.to_owned(), Change::Keep)
        } else {
            let to = without_placeholders(to).0;
            let back = Transform::reversible(&to, &with_placeholders(from))?;
            let change = match back.reverse() {
                Some(transform) => Change::Transform(Box::new(transform)),
                None => Change::To(to.as_str().into()),
            };
            (without_placeholders(from).0, to, change)
        };
        Ok(ServiceImport { importer, exporter, from: from.into(), to: to.into(), change, terms, shares })
    }

    /// The importer's subjects.
    pub fn from(&self) -> &str {
        &self.from
    }

    /// The exporter's.
    pub fn to(&self) -> &str {
        &self.to
    }

    /// What becomes of a request's subject.
    pub fn change(&self) -> &Change {
        &self.change
    }

    /// Whether it leads to the same export as another.
    pub fn is_same_service(&self, other: &ServiceImport) -> bool {
        self.exporter == other.exporter && self.terms.subject == other.terms.subject
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shadow(from: &str, to: &str, pattern: &str) -> Option<String> {
        let import = StreamImport::new(1, from, to).unwrap();
        let pattern = Pattern::parse(pattern.as_bytes()).unwrap();
        import.shadow(pattern).map(|shadow| String::from_utf8(shadow.into()).unwrap())
    }

    fn shown(from: &str, to: &str, subject: &str) -> String {
        let mut out = Vec::new();
        StreamImport::new(1, from, to).unwrap().change().apply(subject.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_subscription_reaches_what_it_and_the_import_have_in_common() {
        for (from, to, pattern, expected) in [
            ("a.b", "a.b", "a.b", Some("a.b")),
            ("a.b", "x", "x", Some("a.b")),
            ("a.b", "x", ">", Some("a.b")),
            ("a.b", "x", "y", None),
            ("a.>", "a.>", "a.b.c", Some("a.b.c")),
            ("a.>", "a.>", "*.b", Some("a.b")),
            ("a.>", "a.>", ">", Some("a.>")),
            ("a.*", "a.*", "a.>", Some("a.*")),
            ("a.*.c", "a.*.c", "*.b.*", Some("a.b.c")),
            ("a.*.c", "a.*.c", "*.b.>", Some("a.b.c")),
            ("a.>", "in.a.>", "in.>", Some("a.>")),
            ("a.>", "in.a.>", "in.a.b", Some("a.b")),
            ("a.>", "in.a.>", "*.a.b", Some("a.b")),
            ("a.*.*", "x.$2.$1", "x.1.2", Some("a.2.1")),
            ("a.*.*", "x.$2.$1", "x.1.*", Some("a.*.1")),
            ("a.*.*", "x.$2.$1", "x.>", Some("a.*.*")),
            ("a.*.*", "x.$2.$1", "a.1.2", None),
        ] {
            assert_eq!(shadow(from, to, pattern).as_deref(), expected, "{from} as {to}: {pattern}");
        }
    }

    #[test]
    fn messages_are_shown_under_the_importers_subject() {
        assert_eq!(shown("a.b", "x", "a.b"), "x");
        assert_eq!(shown("a.>", "a.>", "a.b.c"), "a.b.c");
        assert_eq!(shown("a.>", "in.a.>", "a.b.c"), "in.a.b.c");
        assert_eq!(shown("a.*.*", "x.$2.$1", "a.1.2"), "x.2.1");
    }

    #[test]
    fn a_request_goes_to_the_exporters_subject() {
        let terms = Arc::new(ServiceTerms {
            subject: "s".into(),
            response: ResponseType::Singleton,
            threshold_ms: 1,
            latency: None,
        });
        let changed = |from: &str, to: &str, subject: &str| {
            let import = ServiceImport::new(1, 2, from, to, terms.clone(), false).unwrap();
            let mut out = Vec::new();
            import.change().apply(subject.as_bytes(), &mut out);
            (import.from().to_owned(), String::from_utf8(out).unwrap())
        };
        assert_eq!(changed("local", "req", "local"), ("local".to_owned(), "req".to_owned()));
        assert_eq!(changed("req.*", "req.*", "req.x"), ("req.*".to_owned(), "req.x".to_owned()));
        assert_eq!(changed("my.$2.$1", "req.*.*", "my.a.b"), ("my.*.*".to_owned(), "req.b.a".to_owned()));
        assert_eq!(changed("my.*", "req.*", "my.a"), ("my.*".to_owned(), "req.a".to_owned()));
        assert!(ServiceImport::new(1, 2, "my", "req.*", terms.clone(), false).is_err());
    }
}
