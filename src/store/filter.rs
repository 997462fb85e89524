//! Which messages of a stream are meant: all, those of one subject, or those that one of several patterns matches.

use std::cell::Cell;

use crate::subject::name::{has_wildcard, matches};

/// A filter over subjects, made once and asked often, of one store only: it remembers where that has no match.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    patterns: Vec<Box<[u8]>>,
    /// No match has a sequence from the second to before the third, in the epoch that is the first: what is appended is
    /// behind them, what is removed changes nothing.
    known_empty: Cell<(u64, u64, u64)>,
}

impl Filters {
    /// Every message.
    pub fn all() -> Filters {
        Filters::default()
    }

    /// Messages whose subject one of the patterns matches; every message if there is no pattern, or if one is `>`.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a [u8]>) -> Filters {
        let patterns: Vec<Box<[u8]>> = patterns.into_iter().map(Box::from).collect();
        if patterns.iter().any(|pattern| &**pattern == b">") {
            Filters::all()
        } else {
            Filters { patterns, ..Filters::default() }
        }
    }

    /// Messages whose subject this pattern matches.
    pub fn one(pattern: &[u8]) -> Filters {
        Filters::new([pattern])
    }

    /// Whether every message is meant.
    pub fn is_all(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The patterns; none if every message is meant.
    pub fn patterns(&self) -> impl Iterator<Item = &[u8]> {
        self.patterns.iter().map(|pattern| &**pattern)
    }

    /// Whether messages of this subject are meant.
    pub fn matches(&self, subject: &[u8]) -> bool {
        self.is_all() || self.patterns().any(|pattern| matches(subject, pattern))
    }

    /// The subject, if exactly one without wildcards is meant.
    pub fn literal(&self) -> Option<&[u8]> {
        match &self.patterns[..] {
            [pattern] if !has_wildcard(pattern) => Some(pattern),
            _ => None,
        }
    }

    /// From where a search that begins at `seq` has to look.
    pub(super) fn skip_known_empty(&self, epoch: u64, seq: u64) -> u64 {
        let (known_epoch, from, to) = self.known_empty.get();
        if epoch == known_epoch && (from..to).contains(&seq) { to } else { seq }
    }

    pub(super) fn remember_empty(&self, epoch: u64, from: u64, to: u64) {
        let (known_epoch, known_from, known_to) = self.known_empty.get();
        let from = if epoch == known_epoch && from == known_to { known_from } else { from };
        self.known_empty.set((epoch, from, to));
    }
}

impl PartialEq for Filters {
    fn eq(&self, other: &Filters) -> bool {
        self.patterns == other.patterns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pattern_and_the_full_wildcard_mean_every_message() {
        assert!(Filters::new([]).is_all());
        assert!(Filters::new([&b"a"[..], b">"]).is_all());
        assert_eq!(Filters::one(b"a.b").literal(), Some(&b"a.b"[..]));
        assert_eq!(Filters::one(b"a.*").literal(), None);
    }
}
