//! The mappings of an account: what a published subject becomes before anybody is looked for.
//!
//! A mapping has a pattern and weighted destinations. Of a hundred messages, a destination with weight 30 gets thirty on
//! the average; what the weights leave of a hundred stays as it was published, unless the pattern itself is one of the
//! destinations: then it is lost, which is how losses are simulated.
//!
//! Destinations for the servers of one cluster are checked and have no effect: there is no cluster here.
//!
//! Of several mappings that match, one without wildcards comes first, then the first of the configuration; nats-server takes them
//! in no order. The texts are those of nats-server 2.15.1.

use super::name::{has_wildcard, is_valid_subject, tokens};
use super::transform::{Transform, TransformError, check_destination, with_placeholders};

/// One destination, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// What the subject becomes.
    pub subject: String,
    /// Of a hundred messages.
    pub weight: u8,
    /// The cluster whose servers it is for; empty for all.
    pub cluster: String,
}

/// Why there is no such mapping. The texts are the reference's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text says it")]
pub enum MappingError {
    #[error("duplicate entry for {0:?}")]
    Duplicate(String),
    #[error("total weight needs to be <= 100")]
    Weight,
    #[error(transparent)]
    Transform(#[from] TransformError),
}

/// Where the messages of one pattern go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    source: Box<str>,
    is_literal: bool,
    /// With the sum of the weights up to each.
    destinations: Vec<(u8, Transform)>,
}

impl Mapping {
    /// Compiles a mapping of a valid subject.
    ///
    /// # Errors
    ///
    /// See [`MappingError`].
    pub fn new(source: &str, destinations: Vec<Destination>) -> Result<Mapping, MappingError> {
        debug_assert!(is_valid_subject(source.as_bytes()));
        let mut totals: Vec<(&str, u32)> = Vec::new();
        let mut compiled = Vec::new();
        for (i, destination) in destinations.iter().enumerate() {
            let Destination { subject, weight, cluster } = destination;
            if destinations[..i].iter().any(|earlier| earlier.subject == *subject) {
                return Err(MappingError::Duplicate(subject.clone()));
            }
            let at = totals.iter().position(|(other, _)| other == cluster).unwrap_or_else(|| {
                totals.push((cluster, 0));
                totals.len() - 1
            });
            totals[at].1 += u32::from(*weight);
            if totals[at].1 > 100 {
                return Err(MappingError::Weight);
            }
            if subject.is_empty() {
                // Taken by the reference, which ends when a message comes. Here it reaches nobody.
                compiled.push((cluster, *weight, None));
                continue;
            }
            check_destination(subject)?;
            compiled.push((cluster, *weight, Some(Transform::new(source, subject)?)));
        }
        let keeps_source = destinations.iter().any(|destination| destination.subject == source);
        let mut chosen: Vec<(u8, Option<Transform>)> = compiled
            .into_iter()
            .filter(|(cluster, ..)| cluster.is_empty())
            .map(|(_, weight, transform)| (weight, transform))
            .collect();
        let total: u8 = chosen.iter().map(|(weight, _)| weight).sum();
        if total != 100 && !keeps_source {
            chosen.push((100 - total, Some(Transform::new(source, &with_placeholders(source))?)));
        }
        chosen.sort_by_key(|(weight, _)| *weight);
        let mut sum = 0;
        let mut destinations_by_sum = Vec::new();
        for (weight, transform) in chosen {
            sum += weight;
            if let Some(transform) = transform {
                destinations_by_sum.push((sum, transform));
            }
        }
        Ok(Mapping {
            source: source.into(),
            is_literal: !has_wildcard(source.as_bytes()),
            destinations: destinations_by_sum,
        })
    }

    /// The pattern.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The destinations, what the weights leave included, by rising weight; each with the sum of the weights up to it.
    pub fn destinations(&self) -> impl Iterator<Item = (u8, &str)> {
        self.destinations.iter().map(|(sum, transform)| (*sum, transform.destination()))
    }

    /// Appends what `subject` becomes this time; nothing if the message is to be lost.
    fn apply(&self, subject: &[u8], random: &mut fastrand::Rng, out: &mut Vec<u8>) {
        let chosen = match &self.destinations[..] {
            [(100, only)] => Some(only),
            several => {
                let roll = random.u8(..100);
                several.iter().find(|(sum, _)| roll < *sum).map(|(_, transform)| transform)
            }
        };
        if let Some(transform) = chosen {
            transform.apply(subject, random, out);
        }
    }
}

/// All mappings of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mappings {
    list: Vec<Mapping>,
}

impl Mappings {
    /// Adds a mapping, in the place of one with the same pattern.
    pub fn add(&mut self, mapping: Mapping) {
        match self.list.iter_mut().find(|other| other.source == mapping.source) {
            Some(other) => *other = mapping,
            None => {
                let at = if mapping.is_literal {
                    self.list.iter().position(|other| !other.is_literal).unwrap_or(self.list.len())
                } else {
                    self.list.len()
                };
                self.list.insert(at, mapping);
            }
        }
    }

    /// Adds a mapping unless there is one with the same pattern.
    pub fn add_if_new(&mut self, mapping: Mapping) {
        if self.list.iter().all(|other| other.source != mapping.source) {
            self.add(mapping);
        }
    }

    /// Adds all of `others`, as [`Mappings::add`].
    pub fn add_all(&mut self, others: Mappings) {
        others.list.into_iter().for_each(|mapping| self.add(mapping));
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.list.iter()
    }

    /// Whether some mapping is for `subject`; then what it becomes is appended to `out`, which is nothing for a message that
    /// is to be lost.
    pub fn apply(&self, subject: &[u8], random: &mut fastrand::Rng, out: &mut Vec<u8>) -> bool {
        let is_for = |mapping: &&Mapping| {
            if mapping.is_literal {
                mapping.source.as_bytes() == subject
            } else {
                let source = mapping.source.as_bytes();
                // Most subjects begin otherwise than most patterns.
                let may_be = matches!(source[0], b'*' | b'>') || subject.first() == source.first();
                may_be && is_subset(subject, source)
            }
        };
        let found = self.list.iter().find(is_for);
        if let Some(mapping) = found {
            mapping.apply(subject, random, out);
        }
        found.is_some()
    }
}

/// Whether everything that `subject` stands for, which may have wildcards, is matched by `pattern`.
pub fn is_subset(subject: &[u8], pattern: &[u8]) -> bool {
    let mut left = tokens(subject);
    for wanted in tokens(pattern) {
        let Some(token) = left.next() else { return false };
        if wanted == b">" {
            return true;
        }
        if token.is_empty() || token == b">" || token == b"*" && wanted != b"*" {
            return false;
        }
        // As in the reference, a longer token that begins with a wildcard's sign is one here.
        if wanted.first() != Some(&b'*') && token != wanted {
            return false;
        }
    }
    left.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::super::name::{Pattern, subject_matches_pattern};
    use super::*;

    fn to(subject: &str, weight: u8) -> Destination {
        Destination { subject: subject.to_owned(), weight, cluster: String::new() }
    }

    /// How often each subject comes out of 10,000.
    fn outcomes(mapping: Mapping, subject: &str) -> Vec<(String, usize)> {
        let mut mappings = Mappings::default();
        mappings.add(mapping);
        let mut random = fastrand::Rng::with_seed(3);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..10_000 {
            let mut out = Vec::new();
            assert!(mappings.apply(subject.as_bytes(), &mut random, &mut out));
            *counts.entry(String::from_utf8(out).unwrap()).or_default() += 1;
        }
        counts.into_iter().collect()
    }

    #[test]
    fn weights_are_shares_and_what_they_leave_stays_as_it_was() {
        let mapping = Mapping::new("a.*", vec![to("b.$1", 20), to("c.$1", 30)]).unwrap();
        let found = outcomes(mapping, "a.x");
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.x", "b.x", "c.x"]);
        for ((_, count), expected) in found.iter().zip([5000, 2000, 3000]) {
            assert!(count.abs_diff(expected) < 300, "{found:?}");
        }
    }

    #[test]
    fn a_pattern_that_is_its_own_destination_loses_the_rest() {
        let found = outcomes(Mapping::new("a", vec![to("a", 40)]).unwrap(), "a");
        assert_eq!(found.len(), 2);
        assert!(found[0].0.is_empty() && found[0].1.abs_diff(6000) < 300);
    }

    #[test]
    fn a_literal_comes_before_a_wildcard_and_a_second_one_replaces_the_first() {
        let mut mappings = Mappings::default();
        for (source, destination) in [("a.*", "wild"), ("a.b", "first"), ("a.b", "second")] {
            mappings.add(Mapping::new(source, vec![to(destination, 100)]).unwrap());
        }
        let mut random = fastrand::Rng::with_seed(1);
        let mut mapped = |subject: &str| {
            let mut out = Vec::new();
            mappings.apply(subject.as_bytes(), &mut random, &mut out).then(|| String::from_utf8(out).unwrap())
        };
        assert_eq!(mapped("a.b").as_deref(), Some("second"));
        assert_eq!(mapped("a.c").as_deref(), Some("wild"));
        assert_eq!(mapped("b"), None);
    }

    #[test]
    fn destinations_of_other_clusters_are_checked_and_have_no_effect() {
        let elsewhere = Destination { cluster: "east".to_owned(), ..to("east.a", 100) };
        let found = outcomes(Mapping::new("a", vec![to("b", 100), elsewhere.clone()]).unwrap(), "a");
        assert_eq!(found, [("b".to_owned(), 10_000)]);
        let too_much =
            Mapping::new("a", vec![elsewhere, Destination { cluster: "east".to_owned(), ..to("c", 1) }]);
        assert_eq!(too_much, Err(MappingError::Weight));
    }

    #[test]
    fn mistakes_are_told_in_the_references_words() {
        let wrong = |destinations| Mapping::new("a.*", destinations).unwrap_err().to_string();
        assert_eq!(wrong(vec![to("b", 50), to("b", 50)]), "duplicate entry for \"b\"");
        assert_eq!(wrong(vec![to("b", 60), to("c", 50)]), "total weight needs to be <= 100");
        assert_eq!(wrong(vec![to("b.*", 100)]), "invalid subject");
        assert_eq!(wrong(vec![to("b..c", 100)]), "invalid mapping destination: invalid transform");
        assert_eq!(
            wrong(vec![to("b.{{lift(1,2)}}", 100)]),
            "invalid mapping destination: unknown function in {{lift(1,2)}}"
        );
    }

    #[test]
    fn a_literal_is_a_subset_of_what_matches_it() {
        for subject in ["a", "a.b", "a.b.c", "b", "*a", "a..b"] {
            for pattern in ["a", "a.b", "a.*", "a.>", ">", "*.b", "*", "*.*"] {
                let matches =
                    subject_matches_pattern(subject.as_bytes(), Pattern::parse(pattern.as_bytes()).unwrap());
                assert!(!matches || is_subset(subject.as_bytes(), pattern.as_bytes()), "{subject} {pattern}");
            }
        }
        assert!(is_subset(b"a.*", b"a.>") && is_subset(b"a.*", b"*.*") && !is_subset(b"a.>", b"a.*"));
        assert!(!is_subset(b"a.*", b"a.b") && is_subset(b"a.>", b">") && !is_subset(b">", b"a.>"));
    }
}
