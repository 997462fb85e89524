//! What a subject may be: validation, the types that hold validated names, and the plain matcher.
//!
//! This is not the index: [`Tree`](super::tree::Tree) answers which of a million patterns match. The functions here
//! look at one name, or at one name and one pattern, in one pass and without allocating.
//!
//! A subject is tokens separated by `.`. A token that is exactly `*` stands for one token, a last token that is
//! exactly `>` for one or more; inside a longer token both are ordinary bytes (`fo*o`, `b>r`). Bytes are not
//! interpreted as text.
//!
//! The reference has three strictnesses. Measured on nats-server 2.15.1 with a raw socket:
//!
//! | input | `SUB` | `PUB`, pedantic | `PUB` |
//! | --- | --- | --- | --- |
//! | `fo*o`, `b>r`, `**`, `>>`, `*a`, NUL, VT, DEL, bytes that are not UTF-8 | accepted | accepted | accepted |
//! | form feed inside a token | accepted | accepted | accepted |
//! | `*`, `a.*`, `a.>`, `*.a.>` | accepted | `Invalid Publish Subject`, yet delivered | accepted |
//! | `a.>.b`, `>.a` | `Invalid Subject` | `Invalid Publish Subject`, yet delivered | accepted |
//! | `a..b`, `a.`, `.a`, `.` | `Invalid Subject` | `Invalid Publish Subject`, reaches nobody | reaches nobody |
//!
//! So the form feed that its own validity function (`IsValidSubject`, applied to names in configuration and in the
//! JetStream API) refuses passes in `SUB`: [`is_valid_subject`] is that function, [`Pattern`] is what `SUB` takes.
//! Space, tab and LF separate the arguments of a protocol line and cannot be part of either; a CR that is not at the
//! end of the line can.

use std::fmt;

/// The longest pattern that a [`Pattern`] holds. Far above any control line (4 KiB by default); it bounds the
/// length fields of the tree.
pub const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Why a name is not a subject or pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// The name is empty, begins or ends with a dot, or has two dots in a row.
    #[error("empty token in subject")]
    EmptyToken,
    /// A `>` token stands before the last token.
    #[error("'>' is not the last token of the subject")]
    FullWildcardNotLast,
    /// A byte that separates protocol arguments or lines.
    #[error("white space in subject")]
    WhiteSpace,
    /// A wildcard token where only a literal subject may stand.
    #[error("wildcard token in literal subject")]
    Wildcard,
    /// Longer than [`PATTERN_BYTES_MAX`].
    #[error("subject is too long")]
    TooLong,
}

/// What a subscription names: a valid subject, possibly with wildcard tokens, of at most [`PATTERN_BYTES_MAX`] bytes.
/// Accepts what `SUB` accepts (see the file's header).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern<'a>(&'a [u8]);

impl<'a> Pattern<'a> {
    /// Checks `bytes` as the reference checks the subject of a `SUB`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, SubjectError> {
        if bytes.len() > PATTERN_BYTES_MAX {
            return Err(SubjectError::TooLong);
        }
        check(bytes, separates_arguments)?;
        Ok(Self(bytes))
    }

    /// The bytes as the client sent them.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Whether a token of the pattern is `*` or `>`: if not, it matches exactly one subject.
    pub fn has_wildcard(&self) -> bool {
        has_wildcard(self.0)
    }
}

impl fmt::Debug for Pattern<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({})", self.0.escape_ascii())
    }
}

/// A literal subject: no empty tokens and no wildcard tokens. What a pedantic `PUB` must name; without pedantic the
/// subject of a `PUB` is just bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject<'a>(&'a [u8]);

impl<'a> Subject<'a> {
    /// Checks `bytes` as [`is_valid_literal_subject`] does and says what is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, SubjectError> {
        check(bytes, separates_arguments)?;
        if has_wildcard(bytes) {
            return Err(SubjectError::Wildcard);
        }
        Ok(Self(bytes))
    }

    /// The bytes as the client sent them.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({})", self.0.escape_ascii())
    }
}

/// The reference's `IsValidSubject`: no empty tokens, `>` only as the last token, no space, tab, CR, LF or form feed.
/// Stricter than [`Pattern`] by CR and form feed.
pub fn is_valid_subject(subject: &[u8]) -> bool {
    check(subject, |byte| separates_arguments(byte) || matches!(byte, b'\r' | b'\x0c')).is_ok()
}

/// The reference's pedantic check of a published subject: no empty tokens and no wildcard tokens. Like the
/// reference it lets a form feed pass.
pub fn is_valid_literal_subject(subject: &[u8]) -> bool {
    Subject::parse(subject).is_ok()
}

/// Whether any token is a wildcard. Says nothing about validity: `a..*` has one.
pub fn has_wildcard(subject: &[u8]) -> bool {
    memchr::memchr2_iter(b'*', b'>', subject).any(|at| is_whole_token(subject, at))
}

/// Whether any token is empty. Such a subject may be published, and reaches nobody.
pub fn has_empty_token(subject: &[u8]) -> bool {
    // Folded, not searched: without an early exit it is compiled to vector instructions.
    let doubled = subject
        .iter()
        .zip(subject.iter().skip(1))
        .fold(false, |found, (&byte, &next)| found | ((byte == b'.') & (next == b'.')));
    doubled
        || !matches!((subject.first(), subject.last()), (Some(first), Some(last)) if *first != b'.' && *last != b'.')
}

/// The tokens between the dots, empty ones included: one empty token for the empty name.
pub fn tokens(subject: &[u8]) -> impl Iterator<Item = &[u8]> {
    subject.split(|&byte| byte == b'.')
}

/// Whether a message published to `subject` (any bytes) reaches a subscription to `pattern`.
///
/// The tokens of the subject stand for themselves, `*` and `>` too. Nothing matches a subject with an empty token,
/// not even `>`. The rule in its plainest form: the tree is tested against this function.
pub fn subject_matches_pattern(subject: &[u8], pattern: Pattern<'_>) -> bool {
    !has_empty_token(subject) && matches(subject, pattern.as_bytes())
}

/// Whether a subject without empty tokens matches a pattern, token by token. The tokens of the subject stand for themselves, and a
/// pattern that is not valid matches what it spells.
pub fn matches(subject: &[u8], pattern: &[u8]) -> bool {
    let (mut subject, mut pattern) = (subject, pattern);
    loop {
        let (token, subject_rest) = split_token(subject);
        let (wanted, pattern_rest) = split_token(pattern);
        if wanted == b">" && pattern_rest.is_none() {
            return true;
        }
        if wanted != b"*" && wanted != token {
            return false;
        }
        match (subject_rest, pattern_rest) {
            (None, None) => return true,
            (Some(subject_rest), Some(pattern_rest)) => (subject, pattern) = (subject_rest, pattern_rest),
            _ => return false,
        }
    }
}

/// The first token, and what stands behind its dot.
fn split_token(name: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'.', name) {
        Some(dot) => (&name[..dot], Some(&name[dot + 1..])),
        None => (name, None),
    }
}

/// Whether every subject that `inner` matches is matched by `outer`.
pub fn is_within(inner: &[u8], outer: &[u8]) -> bool {
    let (mut inner, mut outer) = (tokens(inner), tokens(outer));
    loop {
        match (inner.next(), outer.next()) {
            (None, None) | (Some(_), Some(b">")) => return true,
            (Some(b">"), _) => return false,
            (Some(_), Some(b"*")) => {}
            (Some(token), Some(other)) if token == other => {}
            _ => return false,
        }
    }
}

/// Whether some subject is matched by both patterns.
pub fn collide(a: &[u8], b: &[u8]) -> bool {
    let (mut a, mut b) = (tokens(a), tokens(b));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(b">"), Some(_)) | (Some(_), Some(b">")) => return true,
            (Some(b"*"), Some(_)) | (Some(_), Some(b"*")) => {}
            (Some(token), Some(other)) if token == other => {}
            _ => return false,
        }
    }
}

fn separates_arguments(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n')
}

fn check(subject: &[u8], refused: impl Fn(u8) -> bool) -> Result<(), SubjectError> {
    if has_empty_token(subject) {
        return Err(SubjectError::EmptyToken);
    }
    if subject.iter().fold(false, |found, &byte| found | refused(byte)) {
        return Err(SubjectError::WhiteSpace);
    }
    if memchr::memchr_iter(b'>', subject).any(|at| at + 1 < subject.len() && is_whole_token(subject, at)) {
        return Err(SubjectError::FullWildcardNotLast);
    }
    Ok(())
}

/// Whether the byte at `at` is a token of its own.
fn is_whole_token(subject: &[u8], at: usize) -> bool {
    (at == 0 || subject[at - 1] == b'.') && subject.get(at + 1).is_none_or(|&next| next == b'.')
}

/// The subscriptions under which [`MEASURED`] was taken, sorted by bytes.
#[cfg(test)]
pub(super) const MEASURED_PATTERNS: &[&str] = &[
    "*", "*.*", "*.*.*", "*.*.>", "*.>", "*.foo", ">", "a*", "a.*", "a.*.*", "a.*.>", "a.*.b", "a.>", "a.b>",
    "a>.b", "foo", "foo.*", "foo.*.*", "foo.*.>", "foo.>",
];

/// Which of [`MEASURED_PATTERNS`] nats-server 2.15.1 delivers a subject to, sorted by bytes; each exactly once, and
/// the same from its cache (the second publish) as from its tree (the first).
#[cfg(test)]
pub(super) const MEASURED: &[(&str, &[&str])] = &[
    ("a..b", &[]),
    ("foo.", &[]),
    (".foo", &[]),
    ("*", &["*", ">"]),
    ("foo.*", &["*.*", "*.>", ">", "foo.*", "foo.>"]),
    ("foo.>", &["*.*", "*.>", ">", "foo.*", "foo.>"]),
    (">", &["*", ">"]),
    (".", &[]),
    ("..", &[]),
    ("a.", &[]),
    ("a.*.b", &["*.*.*", "*.*.>", "*.>", ">", "a.*.*", "a.*.>", "a.*.b", "a.>"]),
    ("a.>", &["*.*", "*.>", ">", "a.*", "a.>"]),
    ("a..", &[]),
    ("a*", &["*", ">", "a*"]),
    ("a.b>", &["*.*", "*.>", ">", "a.*", "a.>", "a.b>"]),
    ("*.>", &["*.*", "*.>", ">"]),
    ("foo.>.x", &["*.*.*", "*.*.>", "*.>", ">", "foo.*.*", "foo.*.>", "foo.>"]),
    (">.a", &["*.*", "*.>", ">"]),
    ("*.foo", &["*.*", "*.>", "*.foo", ">"]),
    ("a.b.", &[]),
    ("foo..", &[]),
    ("...", &[]),
];

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPTED_BY_SUB: &[&[u8]] = &[
        b"a",
        b"a.b",
        b"*",
        b">",
        b"a.*",
        b"a.>",
        b"*.a.>",
        b"fo*o",
        b"b>r",
        b"*a",
        b">a",
        b"**",
        b">>",
        b"a.**",
        b"a\x0cb",
        b"a.\x0c",
        b"a\rb",
        b"\x0c",
        b"a\x00b",
        b"a\x0bb",
        b"a\xffb",
        "aé".as_bytes(),
        b"a\x7f",
    ];
    const REFUSED_BY_SUB: &[&[u8]] = &[b"", b".", b"..", b"a.", b".a", b"a..b", b"a.>.b", b">.a"];
    const SEPARATORS: &[&[u8]] = &[b"a b", b" ", b"a\tb", b"\nb", b"a. .b"];

    #[test]
    fn wildcards_stand_for_one_token_or_the_rest() {
        for (subject, pattern, wanted) in [
            ("a", "a", true),
            ("a", ">", true),
            ("a.b", "a.>", true),
            ("a", "a.>", false),
            ("a.b", "a.*", true),
            ("a.b.c", "a.*", false),
            ("a.b.c", "*.b.*", true),
            ("a.b", "a.b.c", false),
            ("a*", "a*", true),
        ] {
            assert_eq!(matches(subject.as_bytes(), pattern.as_bytes()), wanted, "{subject} {pattern}");
        }
    }

    #[test]
    fn a_pattern_is_within_another_if_all_its_subjects_are() {
        for (inner, outer) in
            [("a", "a"), ("a.b", "a.*"), ("a.*", "a.>"), ("a.>", "a.>"), ("a.>", ">"), ("*", "*")]
        {
            assert!(is_within(inner.as_bytes(), outer.as_bytes()), "{inner} {outer}");
        }
        for (inner, outer) in [("a", "b"), ("a.>", "a.*"), ("*", "a"), ("a", "a.>"), ("a.b", "a"), (">", "*")]
        {
            assert!(!is_within(inner.as_bytes(), outer.as_bytes()), "{inner} {outer}");
        }
    }

    #[test]
    fn a_pattern_holds_what_the_reference_accepts_in_sub() {
        for name in ACCEPTED_BY_SUB {
            assert!(Pattern::parse(name).is_ok(), "{}", name.escape_ascii());
        }
        for name in REFUSED_BY_SUB.iter().chain(SEPARATORS) {
            assert!(Pattern::parse(name).is_err(), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn a_valid_subject_is_a_pattern_without_cr_and_form_feed() {
        for name in ACCEPTED_BY_SUB {
            assert_eq!(
                is_valid_subject(name),
                !name.iter().any(|byte| matches!(byte, b'\r' | b'\x0c')),
                "{}",
                name.escape_ascii()
            );
        }
        for name in REFUSED_BY_SUB.iter().chain(SEPARATORS) {
            assert!(!is_valid_subject(name), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn a_literal_subject_is_what_a_pedantic_publish_may_name() {
        for name in
            [&b"a"[..], b"fo*o", b"b>r", b"*a", b">a", b"**", b">>", b"a.**", b"a\x0cb", b"a\x00b", b"a\xffb"]
        {
            assert!(is_valid_literal_subject(name), "{}", name.escape_ascii());
        }
        for name in
            [&b"*"[..], b"a.*", b"a.>", b">", b"*.a.>", b"a.>.b", b">.a", b"a..b", b"a.", b".a", b".", b""]
        {
            assert!(!is_valid_literal_subject(name), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn the_error_names_what_is_wrong() {
        assert_eq!(Pattern::parse(b""), Err(SubjectError::EmptyToken));
        assert_eq!(Pattern::parse(b"a..b"), Err(SubjectError::EmptyToken));
        assert_eq!(Pattern::parse(b"a.>.b"), Err(SubjectError::FullWildcardNotLast));
        assert_eq!(Pattern::parse(b"a b"), Err(SubjectError::WhiteSpace));
        assert_eq!(Pattern::parse(&vec![b'a'; PATTERN_BYTES_MAX + 1]), Err(SubjectError::TooLong));
        assert!(Pattern::parse(&vec![b'a'; PATTERN_BYTES_MAX]).is_ok());
        assert_eq!(Subject::parse(b"a.*"), Err(SubjectError::Wildcard));
        assert_eq!(Subject::parse(b"a.b").map(|subject| subject.as_bytes()), Ok(&b"a.b"[..]));
    }

    #[test]
    fn only_whole_tokens_are_wildcards() {
        for name in [&b"*"[..], b">", b"a.*", b"*.a", b"a.*.b", b"a.>", b"a..*", b">.a"] {
            assert!(has_wildcard(name), "{}", name.escape_ascii());
        }
        for name in [&b""[..], b"a", b"a*", b"*a", b"a.b>", b"a.>b.c", b"**", b"."] {
            assert!(!has_wildcard(name), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn tokens_are_what_stands_between_dots() {
        assert_eq!(tokens(b"a.bc.d").collect::<Vec<_>>(), [&b"a"[..], b"bc", b"d"]);
        assert_eq!(tokens(b".a.").collect::<Vec<_>>(), [&b""[..], b"a", b""]);
        assert_eq!(tokens(b"").collect::<Vec<_>>(), [&b""[..]]);
    }

    /// Every line was read off nats-server 2.15.1: the subject published, the subscriptions that got it, out of
    /// [`MEASURED_PATTERNS`].
    #[test]
    fn unvalidated_subjects_match_as_measured_on_the_reference() {
        for (subject, wanted) in MEASURED {
            let got: Vec<&str> = MEASURED_PATTERNS
                .iter()
                .copied()
                .filter(|pattern| {
                    subject_matches_pattern(subject.as_bytes(), Pattern::parse(pattern.as_bytes()).unwrap())
                })
                .collect();
            assert_eq!(&got, wanted, "{subject}");
        }
    }
}
