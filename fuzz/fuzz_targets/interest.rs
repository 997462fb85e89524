//! The subscription index and the fan-out caches of several workers against a list of subscriptions, under churn.
//!
//! Finds: panics, cached lists that do not follow a change, targets at the wrong worker, groups that are split or lose
//! members. Not the bounds of the cache, which take more subjects than an input has.
//!
//! Names are spelled from a few tokens, so that the fuzzer spends its time on what reaches what.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringmain::subject::Pattern;
use ringmain::subject::fanout::{FanOut, FanOutCache, Memo};
use ringmain::subject::interest::{InterestAccess, LocalInterest, Target};
use ringmain::subject::name::subject_matches_pattern;

const WORKERS: u16 = 3;
const MEMOS: usize = 2;

/// A run of the cache's long lists needs more targets than steps of their own would make.
const CROWD: u32 = 30;

#[derive(Debug, Arbitrary)]
enum Step {
    Subscribe(Vec<Piece>, Queue, u16),
    /// Many plain subscriptions of one worker at once, enough for a list that is shared instead of copied.
    SubscribeCrowd(Vec<Piece>, u16),
    /// Removes the subscription at this position, modulo their number.
    Unsubscribe(u8),
    /// Removes one that is not there.
    UnsubscribeUnknown(Vec<Piece>, Queue),
    /// Looks a subject up at a worker, by one of its publishers, so many times.
    Find(Vec<Piece>, u16, u8, u8),
}

#[derive(Debug, Arbitrary, Clone, Copy)]
enum Queue {
    None,
    A,
    B,
}

impl Queue {
    fn name(self) -> Option<&'static [u8]> {
        match self {
            Queue::None => None,
            Queue::A => Some(b"qa"),
            Queue::B => Some(b"qb"),
        }
    }
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

struct Subscription {
    pattern: Vec<u8>,
    queue: Option<&'static [u8]>,
    target: Target,
}

fuzz_target!(|steps: Vec<Step>| {
    let index = LocalInterest::default();
    let mut caches: Vec<FanOutCache> = (0..WORKERS).map(|worker| FanOutCache::new(worker, 7)).collect();
    let mut memos = [[Memo::default(); MEMOS]; WORKERS as usize];
    let mut live: Vec<Subscription> = Vec::new();
    let mut next = 0u32;
    let mut subscribe = |live: &mut Vec<Subscription>, name: &[u8], queue: Queue, worker: u16| {
        let Ok(pattern) = Pattern::parse(name) else { return };
        next += 1;
        let target = Target { worker: worker % WORKERS, import: 0, conn: next % 5, sub: next, generation: next };
        index.write(|interest| interest.subscribe(pattern, queue.name(), target));
        live.push(Subscription { pattern: name.to_vec(), queue: queue.name(), target });
    };
    for step in steps {
        match step {
            Step::Subscribe(pieces, queue, worker) => {
                subscribe(&mut live, &spell(&pieces), queue, worker);
            }
            Step::SubscribeCrowd(pieces, worker) => {
                for _ in 0..CROWD {
                    subscribe(&mut live, &spell(&pieces), Queue::None, worker);
                }
            }
            Step::Unsubscribe(position) => {
                if live.is_empty() {
                    continue;
                }
                let gone = live.swap_remove(usize::from(position) % live.len());
                unsubscribe(&index, &gone);
            }
            Step::UnsubscribeUnknown(pieces, queue) => {
                let name = spell(&pieces);
                let Ok(pattern) = Pattern::parse(&name) else { continue };
                let target = Target { worker: 0, import: 0, conn: 0, sub: 0, generation: 0 };
                assert!(!index.write(|interest| interest.unsubscribe(pattern, queue.name(), target)));
            }
            Step::Find(pieces, worker, memo, times) => {
                let subject = spell(&pieces);
                let worker = worker % WORKERS;
                // The second look admits the subject to the cache, the third finds it by the memo.
                for _ in 0..times % 3 + 1 {
                    let memo = &mut memos[usize::from(worker)][usize::from(memo) % MEMOS];
                    let found = caches[usize::from(worker)].find(&subject, memo, &index);
                    check(found, worker, &subject, &live);
                }
            }
        }
        assert_eq!(index.read(|interest| interest.len()), live.len());
    }
    while let Some(gone) = live.pop() {
        unsubscribe(&index, &gone);
    }
    assert!(index.read(|interest| interest.is_empty()));
});

fn unsubscribe(index: &LocalInterest, gone: &Subscription) {
    let pattern = Pattern::parse(&gone.pattern).expect("it was subscribed");
    assert!(index.write(|interest| interest.unsubscribe(pattern, gone.queue, gone.target)));
    assert!(!index.write(|interest| interest.unsubscribe(pattern, gone.queue, gone.target)));
}

fn check(found: &FanOut, worker: u16, subject: &[u8], live: &[Subscription]) {
    let expected = |queue: Option<&[u8]>| {
        let mut targets: Vec<Target> = live
            .iter()
            .filter(|entry| entry.queue == queue)
            .filter(|entry| subject_matches_pattern(subject, Pattern::parse(&entry.pattern).unwrap()))
            .map(|entry| entry.target)
            .collect();
        targets.sort_unstable();
        targets
    };
    assert!(found.local.iter().all(|target| target.worker == worker));
    let mut plain = found.local.clone();
    for remote in &found.remote {
        let targets = remote.targets.as_slice();
        assert!(remote.worker != worker && !targets.is_empty());
        assert!(targets.iter().all(|target| target.worker == remote.worker));
        plain.extend_from_slice(targets);
    }
    plain.sort_unstable();
    assert_eq!(plain, expected(None), "{}", subject.escape_ascii());
    let mut members_of_all = 0;
    for queue in [Queue::A, Queue::B] {
        let name = queue.name().expect("these two have one");
        let mut members = Vec::new();
        let groups: Vec<_> = found.groups.iter().filter(|group| *group.name == *name).collect();
        assert!(groups.len() <= 1, "one group of a name");
        groups.iter().for_each(|group| members.extend_from_slice(&group.members));
        members.sort_unstable();
        assert_eq!(members, expected(Some(name)), "{}", subject.escape_ascii());
        members_of_all += members.len();
    }
    assert_eq!(found.groups.iter().map(|group| group.members.len()).sum::<usize>(), members_of_all);
    assert_eq!(found.is_empty(), plain.is_empty() && members_of_all == 0);
}
