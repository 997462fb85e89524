//! The cost of the subscription tree: matching, and subscriptions that come and go.
//!
//! Every figure stands beside that of a [`TokenTrie`], the straightforward structure: a hash map per token, as in the
//! reference, without its result cache. Subjects are drawn at random from all that are subscribed to, so that at a
//! million the caches do not help; the loop reads each matched value, as a delivery would.
//!
//! Not a benchmark of the broker: no fan-out lists, no queue groups, one thread.
//!
//! Goals (at a million subscriptions, 2-core VM): literal match 200 ns, insert and remove of an inbox 600 ns together.
//! `cargo bench --bench matcher`: about a minute.

#![allow(missing_docs)]

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use ringmain::subject::name::tokens;
use ringmain::subject::{Pattern, Tree};

const SIZES: [(usize, &str); 3] = [(10, "10"), (10_000, "10k"), (1_000_000, "1M")];

/// How many different subjects a benchmark walks through: enough that their paths do not stay in the caches.
const DRAWN: usize = 1 << 16;

trait Matcher: Default {
    fn insert(&mut self, pattern: &[u8], value: u64);
    fn remove(&mut self, pattern: &[u8]);
    /// The sum of the values that match.
    fn sum(&self, subject: &[u8]) -> u64;
}

impl Matcher for Tree<u64> {
    fn insert(&mut self, pattern: &[u8], value: u64) {
        *self.entry(Pattern::parse(pattern).unwrap()) = value;
    }

    fn remove(&mut self, pattern: &[u8]) {
        self.remove(Pattern::parse(pattern).unwrap());
    }

    fn sum(&self, subject: &[u8]) -> u64 {
        let mut sum = 0;
        self.for_each_match(subject, |&value| sum += value);
        sum
    }
}

/// The baseline.
#[derive(Default)]
struct TokenTrie {
    value: Option<u64>,
    next: HashMap<Box<[u8]>, TokenTrie, rustc_hash::FxBuildHasher>,
    any: Option<Box<TokenTrie>>,
    rest: Option<u64>,
}

impl Matcher for TokenTrie {
    fn insert(&mut self, pattern: &[u8], value: u64) {
        let mut level = self;
        for token in tokens(pattern) {
            match token {
                b">" => {
                    level.rest = Some(value);
                    return;
                }
                b"*" => level = level.any.get_or_insert_default(),
                _ => level = level.next.entry(token.into()).or_default(),
            }
        }
        level.value = Some(value);
    }

    fn remove(&mut self, pattern: &[u8]) {
        fn prune<'a>(level: &mut TokenTrie, mut rest: impl Iterator<Item = &'a [u8]>) -> bool {
            match rest.next() {
                None => level.value = None,
                Some(b">") => level.rest = None,
                Some(b"*") => {
                    if level.any.as_mut().is_some_and(|next| prune(next, rest)) {
                        level.any = None;
                    }
                }
                Some(token) => {
                    if level.next.get_mut(token).is_some_and(|next| prune(next, rest)) {
                        level.next.remove(token);
                    }
                }
            }
            level.value.is_none() && level.rest.is_none() && level.any.is_none() && level.next.is_empty()
        }
        prune(self, tokens(pattern));
    }

    fn sum(&self, subject: &[u8]) -> u64 {
        fn walk(level: &TokenTrie, tokens: &[&[u8]]) -> u64 {
            let Some((token, behind)) = tokens.split_first() else { return level.value.unwrap_or(0) };
            level.rest.unwrap_or(0)
                + level.any.as_ref().map_or(0, |next| walk(next, behind))
                + level.next.get(*token).map_or(0, |next| walk(next, behind))
        }
        let mut split = [&b""[..]; 32];
        let mut count = 0;
        for token in tokens(subject) {
            split[count] = token;
            count += 1;
        }
        walk(self, &split[..count])
    }
}

fn inbox(random: &mut fastrand::Rng) -> String {
    "_INBOX.".chars().chain((0..22).map(|_| random.alphanumeric())).collect()
}

fn inboxes(count: usize) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(1);
    (0..count).map(|_| inbox(&mut random)).collect()
}

fn dense(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("sub.{n:06}")).collect()
}

fn filled<M: Matcher>(names: &[String], wildcards: &[&str]) -> M {
    let mut matcher = M::default();
    let patterns = names.iter().map(String::as_str).chain(wildcards.iter().copied());
    for (pattern, value) in patterns.zip(1..) {
        matcher.insert(pattern.as_bytes(), value);
    }
    matcher
}

fn drawn(names: &[String]) -> Vec<Box<[u8]>> {
    let mut random = fastrand::Rng::with_seed(2);
    (0..DRAWN).map(|_| names[random.usize(..names.len())].as_bytes().into()).collect()
}

fn bench_match<M: Matcher>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    what: &str,
    size: &str,
    names: &[String],
    wildcards: &[&str],
) {
    let matcher: M = filled(names, wildcards);
    let subjects = drawn(names);
    let mut next = 0;
    group.bench_function(BenchmarkId::new(what, size), |bencher| {
        bencher.iter(|| {
            next = (next + 1) % DRAWN;
            black_box(matcher.sum(&subjects[next]))
        })
    });
}

fn bench_churn<M: Matcher>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    what: &str,
    size: &str,
    names: &[String],
) {
    let mut matcher: M = filled(names, &[]);
    let mut random = fastrand::Rng::with_seed(3);
    let coming: Vec<String> = (0..DRAWN).map(|_| inbox(&mut random)).collect();
    let mut next = 0;
    group.bench_function(BenchmarkId::new(what, size), |bencher| {
        bencher.iter(|| {
            next = (next + 1) % DRAWN;
            let name = coming[next].as_bytes();
            matcher.insert(name, 1);
            matcher.remove(name);
        })
    });
}

const WILDCARDS: &[&str] =
    &[">", "_INBOX.>", "_INBOX.*", "*.*", "sub.*", "sub.>", "*.000001", "other.*.x", "sub.*.x"];

fn matcher(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("matcher");
    group
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(900))
        .sample_size(20);
    for (count, size) in SIZES {
        let (dense, inboxes) = (dense(count), inboxes(count));
        bench_match::<Tree<u64>>(&mut group, "match dense, tree", size, &dense, &[]);
        bench_match::<TokenTrie>(&mut group, "match dense, baseline", size, &dense, &[]);
        bench_match::<Tree<u64>>(&mut group, "match inbox, tree", size, &inboxes, &[]);
        bench_match::<TokenTrie>(&mut group, "match inbox, baseline", size, &inboxes, &[]);
        bench_match::<Tree<u64>>(&mut group, "match dense with wildcards, tree", size, &dense, WILDCARDS);
        bench_match::<TokenTrie>(&mut group, "match dense with wildcards, baseline", size, &dense, WILDCARDS);
        bench_churn::<Tree<u64>>(&mut group, "insert and remove inbox, tree", size, &inboxes);
        bench_churn::<TokenTrie>(&mut group, "insert and remove inbox, baseline", size, &inboxes);
    }
    group.finish();
}

criterion_group!(benches, matcher);
criterion_main!(benches);
