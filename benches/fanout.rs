//! The cost of finding a subject's fan-out list: the caches of a worker over the index behind its lock.
//!
//! Subjects are drawn at random, so that a hundred thousand of them do not stay in the processor's caches. Every subject
//! has one subscriber; the lists themselves are walked by `benches/delivery.rs`.
//!
//! One thread: what several workers do to each other shows in whole-server runs only.
//!
//! Goals: 5 ns for a hit by memo, 25 ns by hash. `cargo bench --bench fanout`: about half a minute.

#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use parking_lot::RwLock;
use ringmain::subject::Pattern;
use ringmain::subject::fanout::{FanOutCache, Memo};
use ringmain::subject::interest::{Generations, Interest, InterestAccess, Target};

const DRAWN: usize = 1 << 16;

struct Locked {
    interest: RwLock<Interest>,
    generations: Arc<Generations>,
}

impl Locked {
    fn with(subjects: &[String]) -> Locked {
        let interest = Interest::default();
        let locked = Locked { generations: interest.generations().clone(), interest: RwLock::new(interest) };
        for (subject, sub) in subjects.iter().zip(0..) {
            locked.subscribe(subject.as_bytes(), sub);
        }
        locked
    }

    fn subscribe(&self, subject: &[u8], sub: u32) {
        let pattern = Pattern::parse(subject).expect("a valid subject");
        self.write(|interest| interest.subscribe(pattern, None, target(sub)));
    }

    fn unsubscribe(&self, subject: &[u8], sub: u32) {
        let pattern = Pattern::parse(subject).expect("a valid subject");
        assert!(self.write(|interest| interest.unsubscribe(pattern, None, target(sub))));
    }
}

impl InterestAccess for Locked {
    fn read<R>(&self, look: impl FnOnce(&Interest) -> R) -> R {
        look(&self.interest.read())
    }

    fn write<R>(&self, change: impl FnOnce(&mut Interest) -> R) -> R {
        change(&mut self.interest.write())
    }

    fn generations(&self) -> &Generations {
        &self.generations
    }
}

fn target(sub: u32) -> Target {
    Target { worker: 0, import: 0, conn: sub % 100, sub, generation: 1 }
}

fn subjects(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("orders.{}.{n:06}", n % 50)).collect()
}

fn inboxes(random: &mut fastrand::Rng) -> Vec<Box<[u8]>> {
    let mut inbox = || "_INBOX.".bytes().chain((0..22).map(|_| random.alphanumeric() as u8)).collect();
    (0..DRAWN).map(|_| inbox()).collect()
}

fn fanout(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fanout");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1500))
        .sample_size(20);
    let mut random = fastrand::Rng::with_seed(1);

    let few = subjects(1000);
    let index = Locked::with(&few);
    group.bench_function("hit by memo", |bencher| {
        let mut cache = FanOutCache::new(0, 1);
        let mut memo = Memo::default();
        bencher.iter(|| cache.find(black_box(few[7].as_bytes()), &mut memo, &index).local.len())
    });

    for (count, size) in [(1000, "1k"), (100_000, "100k")] {
        let names = subjects(count);
        let index = Locked::with(&names);
        let drawn: Vec<&[u8]> = (0..DRAWN).map(|_| names[random.usize(..count)].as_bytes()).collect();
        let mut cache = FanOutCache::new(0, 1);
        // The second sight in a row admits a subject, whatever else shares its place among those seen.
        for name in &names {
            for _ in 0..2 {
                cache.find(name.as_bytes(), &mut Memo::default(), &index);
            }
        }
        assert_eq!(cache.len(), count);
        group.bench_function(format!("hit by hash, {size} subjects"), |bencher| {
            let mut memo = Memo::default();
            let mut next = 0;
            bencher.iter(|| {
                next = (next + 1) % DRAWN;
                cache.find(drawn[next], &mut memo, &index).local.len()
            })
        });
    }

    let unique = inboxes(&mut random);
    group.bench_function("miss, unique inboxes", |bencher| {
        let mut cache = FanOutCache::new(0, 1);
        let mut memo = Memo::default();
        let mut next = 0;
        bencher.iter(|| {
            next = (next + 1) % DRAWN;
            cache.find(&unique[next], &mut memo, &index).local.len()
        });
    });
    group.bench_function("miss with admission", |bencher| {
        // Two looks each at names that have not been admitted before: halved, this is what one costs on average.
        let mut cache = FanOutCache::new(0, 1);
        let mut memo = Memo::default();
        let mut name = b"orders.7.0000000000".to_vec();
        let mut next = 0u64;
        bencher.iter(|| {
            next += 1;
            let digits = name.len() - 10;
            name[digits..].copy_from_slice(format!("{next:010}").as_bytes());
            cache.find(&name, &mut memo, &index);
            cache.find(&name, &mut memo, &index).local.len()
        });
    });

    // What a request does to everybody else's lists: an inbox comes and goes between any two looks. The pair alone is
    // measured too, for it is part of the figure.
    group.bench_function("churn alone: subscribe and unsubscribe an inbox", |bencher| {
        let mut next = 0;
        bencher.iter(|| {
            next = (next + 1) % DRAWN;
            index.subscribe(&unique[next], u32::MAX);
            index.unsubscribe(&unique[next], u32::MAX);
        });
    });
    for (what, by_memo) in [("hit by memo under churn", true), ("hit by hash under churn", false)] {
        group.bench_function(what, |bencher| {
            let mut cache = FanOutCache::new(0, 1);
            let mut memo = Memo::default();
            for name in &few {
                for _ in 0..2 {
                    cache.find(name.as_bytes(), &mut memo, &index);
                }
            }
            let mut next = 0;
            bencher.iter(|| {
                next = (next + 1) % DRAWN;
                index.subscribe(&unique[next], u32::MAX);
                index.unsubscribe(&unique[next], u32::MAX);
                let name = if by_memo { &few[7] } else { &few[next % few.len()] };
                cache.find(name.as_bytes(), &mut memo, &index).local.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, fanout);
criterion_main!(benches);
