//! Cached fan-out lists: for a subject, the subscriptions it reaches, grouped by worker.
//!
//! A worker keeps one cache per account. An entry holds as long as the sum of its subject's [`Generations`] is what it
//! was when the entry was filled; that is three loads, and no lock. A publisher keeps the slot of its last subject (a
//! [`Memo`]), so that publishing to the same subject again does not even hash it.
//!
//! Subjects are cached on their second sight. Replies go to inboxes that are used once; they are matched into a
//! scratch list and never push anything out. `seen` remembers first sights by a small fingerprint.
//!
//! Bounds: `ENTRIES_MAX` entries and `UNITS_MAX` units of memory per cache. Beyond, the clock hand evicts.
//!
//! Budget: 5 ns for a hit by memo, 25 ns by hash, measured by `benches/fanout.rs`.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxSeededState;
use slab::Slab;

use super::import::ServiceImport;
use super::interest::{
    Generations, Group, InterestAccess, Matches, RouteGroup, Shards, Target, WorkerId, shown_as,
};

/// Cached subjects per account and worker.
const ENTRIES_MAX: usize = 128 * 1024;

/// Units of 16 bytes, the size of a target, in all entries of an account and worker: 64 MiB.
const UNITS_MAX: usize = 4 * 1024 * 1024;

/// What an entry costs beside its targets and its subject, in the same units.
const ENTRY_UNITS: usize = 12;

/// Remote lists longer than this are shared with their records instead of being copied into each.
const COPIED_TARGETS_MAX: usize = 24;

/// Sets of permissions whose verdict on a subject is remembered with it. When more publish to it in turn they are asked
/// anew.
const VERDICTS: usize = 4;

/// Fingerprints of subjects seen once, a power of two.
const SEEN_SLOTS: usize = 16 * 1024;

impl FanOutTally {
    /// Adds those of another cache.
    pub fn add(&mut self, other: FanOutTally) {
        self.subjects += other.subjects;
        self.reached += other.reached;
        self.reached_max = self.reached_max.max(other.reached_max);
        self.index_reads += other.index_reads;
    }
}

/// Where a subject's message goes.
#[derive(Debug, Default)]
pub struct FanOut {
    /// Plain subscriptions of this worker.
    pub local: Vec<Target>,
    /// Plain subscriptions of other workers.
    pub remote: Vec<RemoteTargets>,
    /// Queue groups over all workers.
    pub groups: Vec<Group>,
    /// What leads into other accounts and to other servers; `None` in nearly all lists without a cluster.
    pub links: Option<Box<Links>>,
}

/// What a message reaches in other accounts, with its subjects there, and at other servers.
#[derive(Debug, Default)]
pub struct Links {
    /// Plain subscriptions of importers, by the subject by which they get it.
    pub imports: Vec<Imported>,
    /// The subjects by which members of queue groups get it, by the numbers of their imports.
    pub shown: Vec<(u16, Box<[u8]>)>,
    /// Services of other accounts that are asked.
    pub services: Arc<[Arc<ServiceImport>]>,
    /// Routes to other servers of the cluster.
    pub routes: Vec<Target>,
    /// Queue groups that have members at other servers: routes, and how many.
    pub route_groups: Vec<RouteGroup>,
}

impl Links {
    /// Whether another server gets it.
    pub fn has_routes(&self) -> bool {
        !self.routes.is_empty() || !self.route_groups.is_empty()
    }
}

/// Plain subscriptions that get a message through one import.
#[derive(Debug, Default)]
pub struct Imported {
    /// The subject by which they get it.
    pub subject: Box<[u8]>,
    /// Those of this worker.
    pub local: Vec<Target>,
    /// Those of other workers.
    pub remote: Vec<RemoteTargets>,
}

/// Plain subscriptions of one other worker.
#[derive(Debug)]
pub struct RemoteTargets {
    /// That worker.
    pub worker: WorkerId,
    /// The subscriptions.
    pub targets: TargetList,
}

/// A list of targets, copied or shared depending on its length.
#[derive(Debug, Clone)]
pub enum TargetList {
    /// Short enough to be copied.
    Short(Vec<Target>),
    /// Long: shared by reference.
    Long(Arc<[Target]>),
}

impl TargetList {
    /// The targets.
    pub fn as_slice(&self) -> &[Target] {
        match self {
            TargetList::Short(targets) => targets,
            TargetList::Long(targets) => targets,
        }
    }
}

impl FanOut {
    /// Whether nobody is reached.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.local.is_empty() && self.remote.is_empty() && self.groups.is_empty() && self.links.is_none()
    }

    /// The subject by which a member of a queue group gets what was published to `subject`, where it is another one.
    #[inline]
    pub fn shown_to(&self, member: Target) -> Option<&[u8]> {
        if member.import == 0 {
            return None;
        }
        shown_as(&self.links.as_deref()?.shown, member.import)
    }

    fn target_count(&self) -> usize {
        self.local.len()
            + self.remote.iter().map(|remote| remote.targets.as_slice().len()).sum::<usize>()
            + self.groups.iter().map(|group| group.members.len()).sum::<usize>()
            + self.links.as_deref().map_or(0, Links::units)
    }

    fn fill(&mut self, matches: &mut Matches, worker: WorkerId) {
        self.local.clear();
        self.remote.clear();
        // A list that was long once does not keep its memory for ever.
        if self.local.capacity() > COPIED_TARGETS_MAX {
            self.local = Vec::new();
        }
        std::mem::swap(&mut self.groups, &mut matches.groups);
        self.links = None;
        let is_routed = !matches.routes.is_empty() || !matches.route_groups.is_empty();
        if !matches.shown.is_empty() || !matches.services.is_empty() || is_routed {
            self.links = Some(Box::new(Links::take(matches, worker)));
        }
        // By worker, then by connection, so that what is written together lies together.
        if matches.plain.len() > 1 {
            matches.plain.sort_unstable();
        }
        divide(&matches.plain, worker, &mut self.local, &mut self.remote);
    }
}

impl Links {
    /// Takes out of `matches` what leads into other accounts.
    #[inline(never)]
    fn take(matches: &mut Matches, worker: WorkerId) -> Links {
        let mut links = Links {
            services: std::mem::take(&mut matches.services).into(),
            routes: std::mem::take(&mut matches.routes),
            route_groups: std::mem::take(&mut matches.route_groups),
            ..Links::default()
        };
        matches.plain.sort_unstable_by_key(|target| (target.import, *target));
        let own = matches.plain.partition_point(|target| target.import == 0);
        for run in matches.plain[own..].chunk_by(|a, b| a.import == b.import) {
            let subject = shown_as(&matches.shown, run[0].import).expect("shown for every import").into();
            let mut imported = Imported { subject, ..Imported::default() };
            divide(run, worker, &mut imported.local, &mut imported.remote);
            links.imports.push(imported);
        }
        matches.plain.truncate(own);
        links.shown = std::mem::take(&mut matches.shown);
        links
    }

    /// What it counts against the bound.
    fn units(&self) -> usize {
        let targets = |imported: &Imported| {
            imported.local.len()
                + imported.remote.iter().map(|remote| remote.targets.as_slice().len()).sum::<usize>()
        };
        let subjects = self.shown.iter().map(|(_, subject)| 2 * subject.len() / size_of::<Target>() + 4);
        ENTRY_UNITS
            + self.imports.iter().map(targets).sum::<usize>()
            + subjects.sum::<usize>()
            + self.services.len()
            + self.routes.len()
            + self.route_groups.iter().map(|group| 4 + group.routes.len()).sum::<usize>()
    }
}

/// Divides sorted targets into those of `worker` and those of others.
fn divide(targets: &[Target], worker: WorkerId, local: &mut Vec<Target>, remote: &mut Vec<RemoteTargets>) {
    for run in targets.chunk_by(|a, b| a.worker == b.worker) {
        if run[0].worker == worker {
            local.extend_from_slice(run);
        } else {
            let targets = if run.len() <= COPIED_TARGETS_MAX {
                TargetList::Short(run.to_vec())
            } else {
                TargetList::Long(run.into())
            };
            remote.push(RemoteTargets { worker: run[0].worker, targets });
        }
    }
}

/// A publisher's note of where its last subject's list is cached.
#[derive(Debug, Clone, Copy)]
pub struct Memo(u32);

impl Default for Memo {
    fn default() -> Memo {
        Memo(u32::MAX)
    }
}

#[derive(Debug)]
struct Entry {
    subject: Box<[u8]>,
    shards: Shards,
    sum: u64,
    /// Units, as counted against the bound.
    counted: usize,
    /// Set by a use, cleared by the clock hand.
    used: bool,
    fanout: FanOut,
    /// What permissions say of publishing to it, see [`verdict`]. 0 is none.
    verdicts: [u32; VERDICTS],
    next_verdict: u8,
}

/// The cache of one account at one worker.
pub struct FanOutCache {
    worker: WorkerId,
    entries: Slab<Entry>,
    index: HashTable<u32>,
    hasher: FxSeededState,
    seen: Box<[u16]>,
    scratch: FanOut,
    matches: Matches,
    targets: usize,
    hand: usize,
    entries_max: usize,
    index_reads: u64,
}

/// How many subscriptions the cached subjects reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FanOutTally {
    /// Cached subjects looked at.
    pub subjects: u64,
    /// Subscriptions and queue groups that they reach.
    pub reached: u64,
    /// The most that one of them reaches.
    pub reached_max: u64,
    /// Times that the index had to be asked, for all subjects ever.
    pub index_reads: u64,
}

impl FanOutCache {
    /// An empty cache. `seed` keeps clients from choosing subjects that collide.
    pub fn new(worker: WorkerId, seed: u64) -> FanOutCache {
        FanOutCache {
            worker,
            entries: Slab::new(),
            index: HashTable::new(),
            hasher: FxSeededState::with_seed(seed as usize),
            seen: Box::default(),
            scratch: FanOut::default(),
            matches: Matches::default(),
            targets: 0,
            hand: 0,
            entries_max: ENTRIES_MAX,
            index_reads: 0,
        }
    }

    /// Number of cached subjects.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Times that a list was not in the cache or did not hold, so that the index had to be asked.
    pub fn index_reads(&self) -> u64 {
        self.index_reads
    }

    /// Adds up to `count` places of the cache, from `from` on, to `tally`. Returns where to go on, or `None` at the end.
    pub fn tally(&self, from: usize, count: usize, tally: &mut FanOutTally) -> Option<usize> {
        if from == 0 {
            tally.index_reads += self.index_reads;
        }
        let end = self.entries.capacity();
        let to = from.saturating_add(count).min(end);
        for entry in (from..to).filter_map(|slot| self.entries.get(slot)) {
            let FanOut { local, remote, groups, links } = &entry.fanout;
            let count = |remote: &[RemoteTargets]| -> usize {
                remote.iter().map(|remote| remote.targets.as_slice().len()).sum()
            };
            let mut reached = (local.len() + count(remote) + groups.len()) as u64;
            if let Some(links) = links {
                reached += (links.routes.len() + links.route_groups.len()) as u64;
                let imports = links.imports.iter();
                reached += imports.map(|to| (to.local.len() + count(&to.remote)) as u64).sum::<u64>();
            }
            tally.subjects += 1;
            tally.reached += reached;
            tally.reached_max = tally.reached_max.max(reached);
        }
        (to < end).then_some(to)
    }

    /// The list of `subject`, from the cache if it holds, else from the index.
    #[inline]
    pub fn find(&mut self, subject: &[u8], memo: &mut Memo, interest: &impl InterestAccess) -> &FanOut {
        if let Some(entry) = self.entries.get(memo.0 as usize)
            && *entry.subject == *subject
            && interest.generations().sum(entry.shards) == entry.sum
        {
            // Looked up again: the borrow checker does not let a conditional return keep the first look.
            return &self.entries[memo.0 as usize].fanout;
        }
        self.find_by_hash(subject, memo, interest)
    }

    #[inline(never)]
    fn find_by_hash(&mut self, subject: &[u8], memo: &mut Memo, interest: &impl InterestAccess) -> &FanOut {
        let hash = self.hash(subject);
        let found = self.index.find(hash, |slot| *self.entries[*slot as usize].subject == *subject).copied();
        if let Some(slot) = found {
            *memo = Memo(slot);
            let entry = &mut self.entries[slot as usize];
            entry.used = true;
            if interest.generations().sum(entry.shards) != entry.sum {
                self.targets -= entry.counted;
                self.index_reads += 1;
                entry.sum = read(interest, subject, entry.shards, &mut self.matches);
                entry.fanout.fill(&mut self.matches, self.worker);
                entry.counted = cost_units(&entry.subject, &entry.fanout);
                self.targets += entry.counted;
                self.evict_beyond_bounds(slot);
            }
            return &self.entries[slot as usize].fanout;
        }
        if !self.second_sight(hash) {
            let shards = Shards::of(subject);
            self.index_reads += 1;
            read(interest, subject, shards, &mut self.matches);
            self.scratch.fill(&mut self.matches, self.worker);
            return &self.scratch;
        }
        let slot = self.insert(hash, subject, interest);
        *memo = Memo(slot);
        &self.entries[slot as usize].fanout
    }

    /// Whether `memo` is the place of `subject`, and the permissions `set` are known to let it be published to: then
    /// [`find_again`](FanOutCache::find_again) finds its list.
    #[inline]
    pub fn permits_again(&self, subject: &[u8], memo: Memo, set: u32) -> bool {
        self.entries
            .get(memo.0 as usize)
            .is_some_and(|entry| *entry.subject == *subject && entry.verdicts.contains(&verdict(set, true)))
    }

    /// The list of `subject`, whose place is known to be `memo`.
    #[inline]
    pub fn find_again(&mut self, subject: &[u8], memo: &mut Memo, interest: &impl InterestAccess) -> &FanOut {
        let entry = &self.entries[memo.0 as usize];
        if interest.generations().sum(entry.shards) == entry.sum {
            return &self.entries[memo.0 as usize].fanout;
        }
        self.find_by_hash(subject, memo, interest)
    }

    /// Whether the permissions `set` (not 0) let `subject` be published to. They are asked with `decide` unless the answer
    /// is remembered; it is, as long as the subject is cached. Sets `memo` to the subject's place.
    #[inline]
    pub fn permits(
        &mut self,
        subject: &[u8],
        memo: &mut Memo,
        set: u32,
        decide: impl FnOnce() -> bool,
    ) -> bool {
        let slot = match self.entries.get(memo.0 as usize) {
            Some(entry) if *entry.subject == *subject => memo.0,
            _ => {
                let hash = self.hash(subject);
                let found = self.index.find(hash, |slot| *self.entries[*slot as usize].subject == *subject);
                let Some(&slot) = found else { return decide() };
                *memo = Memo(slot);
                slot
            }
        };
        let entry = &mut self.entries[slot as usize];
        entry.used = true;
        if let Some(known) = entry.verdicts.iter().find(|known| **known >> 1 == set) {
            return known & 1 == 1;
        }
        let permitted = decide();
        entry.verdicts[usize::from(entry.next_verdict) % VERDICTS] = verdict(set, permitted);
        entry.next_verdict = entry.next_verdict.wrapping_add(1);
        permitted
    }

    /// Forgets what permissions said: their ids name others from now on.
    pub fn forget_verdicts(&mut self) {
        self.entries.iter_mut().for_each(|(_, entry)| entry.verdicts = [0; VERDICTS]);
    }

    fn insert(&mut self, hash: u64, subject: &[u8], interest: &impl InterestAccess) -> u32 {
        let shards = Shards::of(subject);
        self.index_reads += 1;
        let sum = read(interest, subject, shards, &mut self.matches);
        let mut fanout = FanOut::default();
        fanout.fill(&mut self.matches, self.worker);
        fanout.local.shrink_to_fit();
        fanout.groups.shrink_to_fit();
        let counted = cost_units(subject, &fanout);
        let entry = Entry {
            subject: subject.into(),
            shards,
            sum,
            counted,
            used: true,
            fanout,
            verdicts: [0; VERDICTS],
            next_verdict: 0,
        };
        let slot = self.entries.insert(entry) as u32;
        self.targets += counted;
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.index.insert_unique(hash, slot, |slot| hash_of(hasher, &entries[*slot as usize].subject));
        self.evict_beyond_bounds(slot);
        slot
    }

    /// Moves the clock hand until the bounds hold; `kept` stays.
    fn evict_beyond_bounds(&mut self, kept: u32) {
        while self.entries.len() > 1 && (self.entries.len() > self.entries_max || self.targets > UNITS_MAX) {
            self.hand = (self.hand + 1) % self.entries.capacity();
            if self.hand == kept as usize {
                continue;
            }
            match self.entries.get_mut(self.hand) {
                None => {}
                Some(entry) if entry.used => entry.used = false,
                Some(_) => {
                    let entry = self.entries.remove(self.hand);
                    self.targets -= entry.counted;
                    let hash = self.hash(&entry.subject);
                    let hand = self.hand as u32;
                    match self.index.find_entry(hash, |slot| *slot == hand) {
                        Ok(found) => drop(found.remove()),
                        Err(_) => unreachable!("every entry is in the index"),
                    }
                }
            }
        }
    }

    /// Whether the subject with this hash was seen before; remembers it.
    fn second_sight(&mut self, hash: u64) -> bool {
        if self.seen.is_empty() {
            // Only for accounts that are in use at this worker.
            self.seen = vec![0; SEEN_SLOTS].into_boxed_slice();
        }
        let slot = &mut self.seen[hash as usize & (SEEN_SLOTS - 1)];
        let fingerprint = (hash >> 48) as u16 | 1;
        let seen = *slot == fingerprint;
        *slot = fingerprint;
        seen
    }

    fn hash(&self, subject: &[u8]) -> u64 {
        hash_of(&self.hasher, subject)
    }
}

/// What permissions have answered, as it is remembered.
fn verdict(set: u32, permitted: bool) -> u32 {
    set << 1 | u32::from(permitted)
}

fn cost_units(subject: &[u8], fanout: &FanOut) -> usize {
    fanout.target_count() + subject.len() / size_of::<Target>() + ENTRY_UNITS
}

fn hash_of(hasher: &FxSeededState, subject: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(subject);
    hasher.finish()
}

/// Matches `subject` and returns the sum that the result belongs to. Writers count inside the write, so reading the
/// sum inside the read makes the two agree.
fn read(interest: &impl InterestAccess, subject: &[u8], shards: Shards, matches: &mut Matches) -> u64 {
    let generations: &Generations = interest.generations();
    interest.read(|interest| {
        interest.collect(subject, matches);
        generations.sum(shards)
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::super::interest::Interest;
    use super::super::name::Pattern;
    use super::*;

    /// An index without a lock.
    struct Local {
        interest: RefCell<Interest>,
        generations: Arc<Generations>,
    }

    impl Local {
        fn new() -> Local {
            let interest = Interest::default();
            Local { generations: interest.generations().clone(), interest: RefCell::new(interest) }
        }

        fn subscribe(&self, pattern: &str, target: Target) {
            let pattern = Pattern::parse(pattern.as_bytes()).unwrap();
            self.write(|interest| interest.subscribe(pattern, None, target));
        }

        fn unsubscribe(&self, pattern: &str, target: Target) {
            let pattern = Pattern::parse(pattern.as_bytes()).unwrap();
            assert!(self.write(|interest| interest.unsubscribe(pattern, None, target)));
        }
    }

    impl InterestAccess for Local {
        fn read<R>(&self, look: impl FnOnce(&Interest) -> R) -> R {
            look(&self.interest.borrow())
        }

        fn write<R>(&self, change: impl FnOnce(&mut Interest) -> R) -> R {
            change(&mut self.interest.borrow_mut())
        }

        fn generations(&self) -> &Generations {
            &self.generations
        }
    }

    fn target(worker: WorkerId, sub: u32) -> Target {
        Target { worker, import: 0, conn: 0, sub, generation: 0 }
    }

    fn all(fanout: &FanOut) -> Vec<Target> {
        let mut targets = fanout.local.clone();
        for remote in &fanout.remote {
            targets.extend_from_slice(remote.targets.as_slice());
        }
        targets.sort_unstable();
        targets
    }

    #[test]
    fn a_subject_is_cached_on_its_second_sight() {
        let interest = Local::new();
        let mut cache = FanOutCache::new(0, 1);
        cache.find(b"once", &mut Memo::default(), &interest);
        assert_eq!(cache.len(), 0);
        cache.find(b"once", &mut Memo::default(), &interest);
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn targets_are_grouped_by_worker_with_the_own_ones_apart() {
        let interest = Local::new();
        for (worker, sub) in [(1, 1), (0, 2), (2, 3), (0, 4), (1, 5)] {
            interest.subscribe("a", target(worker, sub));
        }
        let mut cache = FanOutCache::new(0, 1);
        let fanout = cache.find(b"a", &mut Memo::default(), &interest);
        assert_eq!(fanout.local.len(), 2);
        assert_eq!(fanout.remote.iter().map(|remote| remote.worker).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_verdict_is_asked_for_once_per_set_and_forgotten_when_ids_change() {
        let interest = Local::new();
        let mut cache = FanOutCache::new(0, 1);
        let mut memo = Memo::default();
        for _ in 0..2 {
            cache.find(b"a", &mut memo, &interest);
        }
        assert!(cache.permits(b"a", &mut memo, 1, || true) && cache.permits(b"a", &mut memo, 1, || panic!()));
        assert!(!cache.permits(b"a", &mut Memo::default(), 2, || false));
        assert!(
            !cache.permits(b"a", &mut memo, 2, || panic!()) && cache.permits(b"a", &mut memo, 1, || panic!())
        );
        for set in 3..=6 {
            assert!(cache.permits(b"a", &mut memo, set, || true));
        }
        assert!(!cache.permits(b"a", &mut memo, 1, || false), "pushed out, so asked again");
        cache.forget_verdicts();
        assert!(cache.permits(b"a", &mut memo, 1, || true));
        // What is not cached is asked about every time.
        assert!(cache.permits(b"b", &mut memo, 1, || true) && !cache.permits(b"b", &mut memo, 1, || false));
    }

    #[test]
    fn the_bound_on_entries_holds_and_what_is_used_stays() {
        let interest = Local::new();
        let mut cache = FanOutCache::new(0, 1);
        cache.entries_max = 100;
        for round in 0..20 {
            for i in 0..500 {
                let subject = format!("s.{i}");
                cache.find(subject.as_bytes(), &mut Memo::default(), &interest);
                cache.find(b"hot", &mut Memo::default(), &interest);
                assert!(cache.len() <= 100, "round {round}");
            }
        }
        assert!(cache.entries.iter().any(|(_, entry)| *entry.subject == *b"hot"));
        assert_eq!(cache.index.len(), cache.len());
    }

    proptest! {
        #[test]
        fn a_cached_list_is_always_what_the_index_says(
            steps in proptest::collection::vec((0usize..4, 0usize..8, 0u32..6, 0u16..3), 1..200)
        ) {
            const PATTERNS: [&str; 8] = ["a", "a.b", "a.*", "a.>", ">", "*.b", "b.c", "a.b.c"];
            const SUBJECTS: [&str; 8] = ["a", "a.b", "a.b.c", "b.c", "b", "c.b", "a.c", "x.y.z"];
            let interest = Local::new();
            let mut cache = FanOutCache::new(1, 7);
            let mut memos = [Memo::default(); 3];
            let mut live: Vec<(&str, Target)> = Vec::new();
            for (kind, which, sub, worker) in steps {
                match kind {
                    0 => {
                        let entry = (PATTERNS[which], target(worker, sub));
                        if !live.contains(&entry) {
                            interest.subscribe(entry.0, entry.1);
                            live.push(entry);
                        }
                    }
                    1 if !live.is_empty() => {
                        let entry = live.swap_remove(sub as usize % live.len());
                        interest.unsubscribe(entry.0, entry.1);
                    }
                    _ => {
                        let subject = SUBJECTS[which].as_bytes();
                        let found = all(cache.find(subject, &mut memos[worker as usize], &interest));
                        let mut expected: Vec<Target> = live
                            .iter()
                            .filter(|(pattern, _)| super::super::name::subject_matches_pattern(
                                subject, Pattern::parse(pattern.as_bytes()).unwrap()))
                            .map(|(_, target)| *target)
                            .collect();
                        expected.sort_unstable();
                        prop_assert_eq!(found, expected);
                    }
                }
            }
        }
    }
}
