//! The subscription tree against a map of patterns and the plain matcher, under inserts, removals and matches.
//!
//! Finds: panics, wrong or repeated matches, broken invariants of the tree. Not speed.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run matcher`. Names are spelled from a few tokens, so that the fuzzer spends its time on
//! the shapes of the tree; any byte can still occur in them.

#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringmain::subject::name::subject_matches_pattern;
use ringmain::subject::{Pattern, Tree};

#[derive(Debug, Arbitrary)]
enum Step {
    Insert(Vec<Piece>),
    Remove(Vec<Piece>),
    /// Removes the pattern at this position (modulo their number), which the fuzzer would seldom spell again.
    RemoveAt(u8),
    Match(Vec<Piece>),
}

#[derive(Debug, Arbitrary)]
enum Piece {
    A,
    B,
    Dot,
    Star,
    Gt,
    DotStar,
    DotGt,
    Byte(u8),
}

fn spell(pieces: &[Piece]) -> Vec<u8> {
    let mut name = Vec::new();
    for piece in pieces {
        match piece {
            Piece::A => name.push(b'a'),
            Piece::B => name.push(b'b'),
            Piece::Dot => name.push(b'.'),
            Piece::Star => name.push(b'*'),
            Piece::Gt => name.push(b'>'),
            Piece::DotStar => name.extend(b".*"),
            Piece::DotGt => name.extend(b".>"),
            Piece::Byte(byte) => name.push(*byte),
        }
    }
    name
}

fuzz_target!(|steps: Vec<Step>| {
    let mut tree = Tree::<usize>::new();
    let mut model = BTreeMap::<Vec<u8>, usize>::new();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Insert(pieces) => {
                let name = spell(&pieces);
                let Ok(pattern) = Pattern::parse(&name) else { continue };
                let value = tree.entry(pattern);
                assert_eq!(*value, model.get(&name).copied().unwrap_or_default());
                *value = number + 1;
                model.insert(name, number + 1);
            }
            Step::Remove(pieces) => {
                let name = spell(&pieces);
                let Ok(pattern) = Pattern::parse(&name) else { continue };
                assert_eq!(tree.remove(pattern), model.remove(&name));
            }
            Step::RemoveAt(position) => {
                let Some(name) = model.keys().nth(usize::from(position) % model.len().max(1)).cloned() else {
                    continue;
                };
                assert_eq!(tree.remove(Pattern::parse(&name).unwrap()), model.remove(&name));
            }
            Step::Match(pieces) => {
                let subject = spell(&pieces);
                let mut found = Vec::new();
                tree.for_each_match(&subject, |&value| found.push(value));
                found.sort_unstable();
                let mut wanted: Vec<usize> = model
                    .iter()
                    .filter(|(name, _)| subject_matches_pattern(&subject, Pattern::parse(name).unwrap()))
                    .map(|(_, &value)| value)
                    .collect();
                wanted.sort_unstable();
                assert_eq!(found, wanted, "{}", subject.escape_ascii());
                continue;
            }
        }
        tree.check();
        assert_eq!(tree.len(), model.len());
    }
    assert!(tree.iter().map(|(name, &value)| (name, value)).eq(model));
});
