//! A fixed set of patterns: does one of them match a subject, does one of them have a subject in common with a pattern.
//!
//! This is what permissions are made of. The set is built once and then only asked.

use super::name::{Pattern, collide};
use super::tree::Tree;

/// See the file's header.
#[derive(Default)]
pub struct PatternSet {
    tree: Tree<()>,
    patterns: Vec<Box<[u8]>>,
}

impl PatternSet {
    /// Whether a subject, of any bytes, is matched by one of the patterns.
    pub fn matches(&self, subject: &[u8]) -> bool {
        let mut found = false;
        self.tree.for_each_match(subject, |()| found = true);
        found
    }

    /// Whether some subject is matched both by one of the patterns and by `pattern`.
    pub fn overlaps(&self, pattern: Pattern<'_>) -> bool {
        self.patterns.iter().any(|other| collide(other, pattern.as_bytes()))
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
}

impl<'a> FromIterator<Pattern<'a>> for PatternSet {
    fn from_iter<I: IntoIterator<Item = Pattern<'a>>>(patterns: I) -> PatternSet {
        let mut set = PatternSet::default();
        for pattern in patterns {
            *set.tree.entry(pattern) = ();
            set.patterns.push(pattern.as_bytes().into());
        }
        set
    }
}

impl std::fmt::Debug for PatternSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.patterns.iter().map(|pattern| pattern.escape_ascii().to_string()))
            .finish()
    }
}

impl PartialEq for PatternSet {
    fn eq(&self, other: &PatternSet) -> bool {
        self.patterns == other.patterns
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::name::subject_matches_pattern;
    use super::*;

    fn pattern() -> impl Strategy<Value = String> {
        proptest::collection::vec("[ab*]", 1..4)
            .prop_flat_map(|tokens| (Just(tokens.join(".")), any::<bool>()))
            .prop_map(|(pattern, open)| if open { pattern + ".>" } else { pattern })
    }

    /// Every subject of up to five tokens over a small alphabet.
    fn subjects() -> Vec<String> {
        let mut all = vec![String::new()];
        let mut subjects = Vec::new();
        for _ in 0..5 {
            all = all
                .iter()
                .flat_map(|start| ["a", "b", "c"].map(|token| format!("{start}.{token}")))
                .map(|subject| subject.trim_start_matches('.').to_owned())
                .collect();
            subjects.extend(all.iter().cloned());
        }
        subjects
    }

    proptest! {
        #[test]
        fn a_set_matches_what_one_of_its_patterns_matches(
            patterns in proptest::collection::vec(pattern(), 0..6)
        ) {
            let parsed = || patterns.iter().map(|pattern| Pattern::parse(pattern.as_bytes()).unwrap());
            let set: PatternSet = parsed().collect();
            for subject in subjects() {
                let expected = parsed().any(|pattern| subject_matches_pattern(subject.as_bytes(), pattern));
                prop_assert_eq!(set.matches(subject.as_bytes()), expected, "{}", subject);
            }
        }

        #[test]
        fn patterns_overlap_when_a_subject_is_in_both(a in pattern(), b in pattern()) {
            let (a, b) = (Pattern::parse(a.as_bytes()).unwrap(), Pattern::parse(b.as_bytes()).unwrap());
            let set: PatternSet = [a].into_iter().collect();
            let expected = subjects().iter().any(|subject| {
                subject_matches_pattern(subject.as_bytes(), a) && subject_matches_pattern(subject.as_bytes(), b)
            });
            prop_assert_eq!(set.overlaps(b), expected, "{:?} {:?}", a, b);
        }
    }
}
