//! Who wants what in one account: the radix tree with the subscriptions of all workers at its leaves.
//!
//! One index per account is shared by all workers. Changes go through one writer; readers match against it only when
//! their cached fan-out list ([`super::fanout`]) does not hold any more. Whether it holds is told by
//! [`Generations`], which are read without entering the index at all.
//!
//! A subscription to something that its account imports stands in the exporter's index too, with the number of the import
//! ([`Target::import`]): a message is found by the index of the account that it is published in, and by no other. That an
//! account imports a service is an entry of its own index that no worker owns ([`SERVICE`]).
//!
//! What other servers of the cluster want stands here too, as targets that are routes ([`ROUTE`]): one for each pattern, and one for each
//! queue group of it, however many subscriptions there are. They are kept apart from the others, so that a message crosses a route once
//! ([`Matches::routes`]) and of a queue group with members at several servers ([`Matches::route_groups`]) each member can be picked as often as any other. In the other direction
//! a [`Watch`] notes what other servers have to be told: which patterns somebody here wants, and how many members queue groups have.
//!
//! The generations are sharded by the start of the subject space, so that a client that subscribes and unsubscribes
//! an inbox per request does not void the cached lists of unrelated subjects. `benches/fanout.rs` holds that to
//! numbers.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hasher as _;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustc_hash::{FxBuildHasher, FxHasher};

use super::import::{ServiceImport, StreamImport};
use super::name::Pattern;
use super::pattern_set::PatternSet;
use super::tree::Tree;

/// Number of a worker.
pub type WorkerId = u16;

/// In the place of a worker: what is published to the pattern is a request for an imported service, which
/// [`Target::sub`] names.
pub const SERVICE: WorkerId = WorkerId::MAX;

/// In the place of a connection: a subscription of the server itself of which other servers are not told.
pub const HERE_ONLY: u32 = u32::MAX - 1;

/// In the place of an import: what matches goes to another server. [`Target::conn`] is the route, [`Target::sub`] how many members
/// the queue group has there.
pub const ROUTE: u16 = u16::MAX;

/// One subscription as the index knows it: where its owner finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The worker that owns the connection, or [`SERVICE`].
    pub worker: WorkerId,
    /// The import through which a subscription of another account is here, by [`Interest::subscribe_imported`]; 0 for those
    /// of the account itself.
    pub import: u16,
    /// The connection's slot at that worker.
    pub conn: u32,
    /// The subscription's slot at that worker.
    pub sub: u32,
    /// Tells the subscription from earlier ones in the same slot.
    pub generation: u32,
}

impl Target {
    /// Whether other servers are told of it.
    fn is_told(self) -> bool {
        self.import != ROUTE && self.worker != SERVICE && self.conn != HERE_ONLY
    }
}

/// Members of one queue group that match one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The queue group's name.
    pub name: Box<[u8]>,
    /// Its members, over all patterns that match.
    pub members: Vec<Target>,
}

/// Members of one queue group at other servers that match one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteGroup {
    /// The queue group's name.
    pub name: Box<[u8]>,
    /// Routes to the servers that have members; [`Target::sub`] says how many.
    pub routes: Vec<Target>,
    /// How many members this server has.
    pub own: usize,
}

/// What hangs at one pattern. Most patterns have one plain subscriber, so that case is kept small.
#[derive(Debug, Default)]
enum Leaf {
    #[default]
    Empty,
    One(Target),
    Many(Box<Members>),
}

#[derive(Debug, Default)]
struct Members {
    plain: TargetSet,
    groups: Vec<(Box<[u8]>, TargetSet)>,
    /// Routes, with the queue group for which they are here.
    routes: Vec<(Option<Box<[u8]>>, Target)>,
}

/// Targets in no order, with removal in constant time however many there are.
#[derive(Debug, Default)]
struct TargetSet {
    list: Vec<Target>,
    /// Where each is in `list`; kept only for long lists.
    positions: Option<HashMap<Target, u32, FxBuildHasher>>,
}

/// Lists from this length on know where their targets are.
const POSITIONS_FROM: usize = 64;

impl TargetSet {
    fn insert(&mut self, target: Target) {
        if let Some(positions) = &mut self.positions {
            positions.insert(target, self.list.len() as u32);
        }
        self.list.push(target);
        if self.positions.is_none() && self.list.len() >= POSITIONS_FROM {
            self.positions = Some((0..).zip(&self.list).map(|(at, target)| (*target, at)).collect());
        }
    }

    fn remove(&mut self, target: Target) -> bool {
        let at = match &mut self.positions {
            Some(positions) => positions.remove(&target).map(|at| at as usize),
            None => self.list.iter().rposition(|other| *other == target),
        };
        let Some(at) = at else { return false };
        self.list.swap_remove(at);
        if let (Some(positions), Some(moved)) = (&mut self.positions, self.list.get(at)) {
            positions.insert(*moved, at as u32);
        }
        if self.list.len() < POSITIONS_FROM / 2 && self.positions.is_some() {
            self.positions = None;
            self.list.shrink_to_fit();
        }
        true
    }

    fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl Leaf {
    fn members(&mut self) -> &mut Members {
        if !matches!(self, Leaf::Many(_)) {
            let mut members = Box::<Members>::default();
            match self {
                Leaf::One(target) if target.import == ROUTE => members.routes.push((None, *target)),
                Leaf::One(target) => members.plain.insert(*target),
                Leaf::Empty | Leaf::Many(_) => {}
            }
            *self = Leaf::Many(members);
        }
        match self {
            Leaf::Many(members) => members,
            Leaf::Empty | Leaf::One(_) => unreachable!("just made so"),
        }
    }

    fn add(&mut self, queue: Option<&[u8]>, target: Target) {
        match (queue, &mut *self) {
            (None, Leaf::Empty) => *self = Leaf::One(target),
            _ if target.import == ROUTE => self.members().routes.push((queue.map(Into::into), target)),
            (None, _) => self.members().plain.insert(target),
            (Some(name), _) => {
                let groups = &mut self.members().groups;
                match groups.iter_mut().find(|(group, _)| **group == *name) {
                    Some((_, members)) => members.insert(target),
                    None => {
                        let mut members = TargetSet::default();
                        members.insert(target);
                        groups.push((name.into(), members));
                    }
                }
            }
        }
    }

    fn remove(&mut self, queue: Option<&[u8]>, target: Target) -> bool {
        match (queue, &mut *self) {
            (_, Leaf::Empty) | (Some(_), Leaf::One(_)) => false,
            (None, Leaf::One(only)) => {
                let found = *only == target;
                if found {
                    *self = Leaf::Empty;
                }
                found
            }
            (_, Leaf::Many(members)) if target.import == ROUTE => {
                let is_it = |(group, other): &(Option<Box<[u8]>>, Target)| {
                    *other == target && group.as_deref() == queue
                };
                let at = members.routes.iter().position(is_it);
                at.map(|at| members.routes.swap_remove(at)).is_some()
            }
            (None, Leaf::Many(members)) => members.plain.remove(target),
            (Some(name), Leaf::Many(members)) => {
                let Some(at) = members.groups.iter().position(|(group, _)| **group == *name) else {
                    return false;
                };
                let found = members.groups[at].1.remove(target);
                if members.groups[at].1.is_empty() {
                    members.groups.swap_remove(at);
                }
                found
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Leaf::Empty => true,
            Leaf::One(_) => false,
            Leaf::Many(members) => {
                members.plain.is_empty() && members.groups.is_empty() && members.routes.is_empty()
            }
        }
    }

    /// How many of this server want what hangs here, plainly or as members of a queue group.
    fn count(&self, queue: Option<&[u8]>) -> usize {
        match (self, queue) {
            (Leaf::One(target), None) => usize::from(target.is_told()),
            (Leaf::Empty | Leaf::One(_), _) => 0,
            (Leaf::Many(members), None) => {
                let list = &members.plain.list;
                // Those of which others are not told are few; a long list is not walked for them.
                list.len() - list.iter().take(POSITIONS_FROM).filter(|target| !target.is_told()).count()
            }
            (Leaf::Many(members), Some(name)) => {
                let group = members.groups.iter().find(|(group, _)| **group == *name);
                group.map_or(0, |(_, members)| members.list.len())
            }
        }
    }
}

/// Whether other servers have to be told of changes, and of which.
#[derive(Debug, Default)]
pub struct Watch {
    changed: AtomicBool,
}

impl Watch {
    /// Whether some index has changed since the last call in a way that other servers have to be told.
    pub fn take(&self) -> bool {
        self.changed.load(Ordering::Acquire) && self.changed.swap(false, Ordering::AcqRel)
    }

    /// Whether [`Watch::take`] would say so.
    pub fn is_due(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }
}

/// A change that other servers have to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterestChange {
    /// The pattern.
    pub subject: Box<[u8]>,
    /// The queue group.
    pub queue: Option<Box<[u8]>>,
    /// How many of this server want it now; without queue group no more is said than whether anybody does.
    pub count: u32,
}

/// Everything that matches one subject.
#[derive(Debug, Default)]
pub struct Matches {
    /// Subscriptions that all get the message.
    pub plain: Vec<Target>,
    /// Queue groups, of each of which one member gets it.
    pub groups: Vec<Group>,
    /// The subjects by which subscriptions of other accounts get it, by the numbers of the imports. Of no import twice.
    pub shown: Vec<(u16, Box<[u8]>)>,
    /// Services of other accounts that are asked.
    pub services: Vec<Arc<ServiceImport>>,
    /// Routes to servers that want it, each once.
    pub routes: Vec<Target>,
    /// Queue groups that have members at other servers: a route for each pattern, with how many.
    pub route_groups: Vec<RouteGroup>,
}

impl Matches {
    fn clear(&mut self) {
        self.plain.clear();
        self.routes.clear();
        self.route_groups.clear();
        self.groups.clear();
        self.shown.clear();
        self.services.clear();
    }
}

impl Matches {
    fn add_route(&mut self, queue: Option<&[u8]>, target: Target) {
        let Some(name) = queue else { return self.routes.push(target) };
        match self.route_groups.iter_mut().find(|group| *group.name == *name) {
            Some(group) => group.routes.push(target),
            None => self.route_groups.push(RouteGroup { name: name.into(), routes: vec![target], own: 0 }),
        }
    }

    /// Counts the members that queue groups of other servers have here, and leaves out routes that are there by several patterns.
    #[inline(never)]
    fn settle_routes(&mut self) {
        let Matches { groups, route_groups, routes, .. } = self;
        for group in route_groups {
            let own = groups.iter().find(|own| own.name == group.name);
            group.own = own.map_or(0, |own| own.members.len());
        }
        if routes.len() > 1 {
            routes.sort_unstable();
            routes.dedup();
        }
    }
}

/// The subject by which an import shows a message; `None` for the account itself.
pub fn shown_as(shown: &[(u16, Box<[u8]>)], import: u16) -> Option<&[u8]> {
    if import == 0 {
        return None;
    }
    shown.iter().find(|(other, _)| *other == import).map(|(_, subject)| &**subject)
}

/// The index of one account.
#[derive(Default)]
pub struct Interest {
    tree: Tree<Leaf>,
    generations: Arc<Generations>,
    subscriptions: usize,
    subscribed: u64,
    /// Of the subscriptions, those of the server itself.
    internal: usize,
    /// What is not for some of the subscriptions, although they match it.
    denied: HashMap<Target, Arc<PatternSet>, FxBuildHasher>,
    /// The imports by which subscriptions of other accounts are here; the first has number 1. They stay for good: messages
    /// on their way name them.
    imports: Vec<Arc<StreamImport>>,
    /// The imported services that are asked here.
    services: HashMap<u32, Arc<ServiceImport>, FxBuildHasher>,
    next_service: u32,
    /// Set in a cluster.
    watch: Option<Arc<Watch>>,
    /// What other servers have not been told yet.
    changes: Vec<InterestChange>,
    /// Of the subscriptions, those that are routes.
    routed: usize,
}

impl Interest {
    /// Number of subscriptions.
    pub fn len(&self) -> usize {
        self.subscriptions
    }

    /// Number of subscriptions that there have ever been.
    pub fn subscribed(&self) -> u64 {
        self.subscribed
    }

    /// Number of subscriptions that the server itself has.
    pub fn internal_len(&self) -> usize {
        self.internal
    }

    /// Number of the subscriptions that are routes.
    pub fn routed_len(&self) -> usize {
        self.routed
    }

    /// Notes from now on what other servers have to be told, and says so to `watch`.
    pub fn set_watch(&mut self, watch: Arc<Watch>) {
        self.watch = Some(watch);
    }

    /// What other servers have to be told since the last call, in order.
    pub fn take_changes(&mut self) -> Vec<InterestChange> {
        self.generations.has_changes.store(false, Ordering::Relaxed);
        std::mem::take(&mut self.changes)
    }

    /// Everything that this server wants, for a server that has been told nothing yet: pattern, queue group, and how many. Walks
    /// the whole index.
    pub fn for_each_wanted(&self, mut each: impl FnMut(&[u8], Option<&[u8]>, u32)) {
        for (pattern, leaf) in &self.tree {
            if leaf.count(None) > 0 {
                each(&pattern, None, 1);
            }
            if let Leaf::Many(members) = leaf {
                for (name, members) in &members.groups {
                    each(&pattern, Some(name), members.list.len() as u32);
                }
            }
        }
    }

    /// Notes a change of what `target` is one of.
    #[inline]
    fn note_change(&mut self, pattern: Pattern<'_>, queue: Option<&[u8]>, target: Target, added: bool) {
        if target.import == ROUTE {
            self.routed = if added { self.routed + 1 } else { self.routed - 1 };
        } else if self.watch.is_some() && target.is_told() {
            self.note_wanted(pattern, queue, added);
        }
    }

    #[inline(never)]
    fn note_wanted(&mut self, pattern: Pattern<'_>, queue: Option<&[u8]>, added: bool) {
        let Some(watch) = &self.watch else { return };
        let count = self.tree.get(pattern).map_or(0, |leaf| leaf.count(queue));
        if queue.is_none() && count != usize::from(added) {
            return;
        }
        let (subject, queue) = (pattern.as_bytes().into(), queue.map(Into::into));
        self.changes.push(InterestChange { subject, queue, count: count as u32 });
        self.generations.has_changes.store(true, Ordering::Relaxed);
        watch.changed.store(true, Ordering::Release);
    }

    /// Whether anybody but the server itself subscribes to anything.
    pub fn has_clients(&self) -> bool {
        self.subscriptions > self.internal
    }

    /// Whether nobody subscribes to anything.
    pub fn is_empty(&self) -> bool {
        self.subscriptions == 0
    }

    /// The counters by which caches know whether they still hold.
    pub fn generations(&self) -> &Arc<Generations> {
        &self.generations
    }

    /// Adds a subscription. The caller adds each target once.
    pub fn subscribe(&mut self, pattern: Pattern<'_>, queue: Option<&[u8]>, target: Target) {
        self.tree.entry(pattern).add(queue, target);
        self.subscriptions += 1;
        self.subscribed += 1;
        self.generations.touch(pattern);
        self.note_change(pattern, queue, target, true);
    }

    /// Adds a subscription of the server itself.
    pub fn subscribe_internal(&mut self, pattern: Pattern<'_>, queue: Option<&[u8]>, target: Target) {
        self.subscribe(pattern, queue, target);
        self.internal += 1;
    }

    /// Removes a subscription of the server itself; `false` when it was not there.
    pub fn unsubscribe_internal(
        &mut self,
        pattern: Pattern<'_>,
        queue: Option<&[u8]>,
        target: Target,
    ) -> bool {
        let found = self.unsubscribe(pattern, queue, target);
        self.internal -= usize::from(found);
        found
    }

    /// Adds a subscription that does not get what `denied` matches.
    pub fn subscribe_filtered(
        &mut self,
        pattern: Pattern<'_>,
        queue: Option<&[u8]>,
        target: Target,
        denied: Option<Arc<PatternSet>>,
    ) {
        if let Some(denied) = denied {
            self.denied.insert(target, denied);
        }
        self.subscribe(pattern, queue, target);
    }

    /// The number of an import by which subscriptions of another account come here. `None` if there have been too many.
    pub fn import_number(&mut self, import: &Arc<StreamImport>) -> Option<u16> {
        let at = match self.imports.iter().position(|known| Arc::ptr_eq(known, import) || known == import) {
            Some(at) => at,
            None => {
                self.imports.push(import.clone());
                self.imports.len() - 1
            }
        };
        // The last number is that of routes.
        u16::try_from(at + 1).ok().filter(|number| *number != ROUTE)
    }

    /// Replaces the imported services that are asked when something is published here.
    pub fn set_services(&mut self, wanted: &[Arc<ServiceImport>]) {
        let gone: Vec<u32> =
            self.services.iter().filter(|(_, known)| !wanted.contains(known)).map(|(id, _)| *id).collect();
        for id in gone {
            let service = self.services.remove(&id).expect("just seen");
            let pattern = Pattern::parse(service.from().as_bytes()).expect("was valid when it was set");
            let found = self.unsubscribe(pattern, None, service_target(id));
            assert!(found, "the index has every service");
        }
        for service in wanted {
            let is_known = self.services.values().any(|known| known == service);
            let Ok(pattern) = Pattern::parse(service.from().as_bytes()) else { continue };
            if !is_known {
                self.next_service += 1;
                self.services.insert(self.next_service, service.clone());
                self.subscribe(pattern, None, service_target(self.next_service));
            }
        }
    }

    /// Changes what a subscription does not get.
    pub fn set_denied(&mut self, pattern: Pattern<'_>, target: Target, denied: Option<Arc<PatternSet>>) {
        let has_some = denied.is_some();
        let earlier = match denied {
            Some(denied) => self.denied.insert(target, denied),
            None => self.denied.remove(&target),
        };
        if has_some || earlier.is_some() {
            self.generations.touch(pattern);
        }
    }

    /// Removes a subscription; `false` when it was not there.
    pub fn unsubscribe(&mut self, pattern: Pattern<'_>, queue: Option<&[u8]>, target: Target) -> bool {
        let Some(leaf) = self.tree.get_mut(pattern) else { return false };
        let found = leaf.remove(queue, target);
        if leaf.is_empty() {
            self.tree.remove(pattern);
        }
        if found {
            self.subscriptions -= 1;
            if !self.denied.is_empty() {
                self.denied.remove(&target);
            }
            self.generations.touch(pattern);
            self.note_change(pattern, queue, target, false);
        }
        found
    }

    /// Puts one target in the place of another; `false` when that was not there. What is not for the old one is not for
    /// the new one.
    pub fn exchange(&mut self, pattern: Pattern<'_>, queue: Option<&[u8]>, old: Target, new: Target) -> bool {
        let denied = self.denied.get(&old).cloned();
        // Nothing changes for other servers.
        let watch = self.watch.take();
        let found = self.unsubscribe(pattern, queue, old);
        if found {
            self.subscribe_filtered(pattern, queue, new, denied);
            // It is the same one at another place.
            self.subscribed -= 1;
        }
        self.watch = watch;
        found
    }

    /// Whether somebody subscribes to exactly this, and not only to a pattern that matches it.
    pub fn has_exact(&self, pattern: Pattern<'_>) -> bool {
        self.tree.get(pattern).is_some()
    }

    /// Collects everything that `subject` reaches into `matches`, which is emptied first.
    pub fn collect(&self, subject: &[u8], matches: &mut Matches) {
        self.collect_unfiltered(subject, matches);
        if !self.services.is_empty() {
            self.take_out_services(matches);
        }
        if !self.imports.is_empty() {
            self.show(subject, matches);
        }
        if !self.denied.is_empty() {
            self.leave_out_denied(subject, matches);
        }
        if self.routed > 0 {
            matches.settle_routes();
        }
    }

    #[inline(never)]
    fn take_out_services(&self, matches: &mut Matches) {
        let Matches { plain, services, .. } = matches;
        plain.retain(|target| {
            if target.worker == SERVICE {
                services.extend(self.services.get(&target.sub).cloned());
            }
            target.worker != SERVICE
        });
    }

    /// Makes the subjects by which imports show `subject`.
    #[inline(never)]
    fn show(&self, subject: &[u8], matches: &mut Matches) {
        let Matches { plain, groups, shown, .. } = matches;
        let members = groups.iter().flat_map(|group| &group.members);
        for target in plain.iter().chain(members) {
            if target.import == 0 || shown.iter().any(|(import, _)| *import == target.import) {
                continue;
            }
            let mut made = Vec::new();
            self.imports[usize::from(target.import) - 1].change().apply(subject, &mut made);
            shown.push((target.import, made.into()));
        }
    }

    /// Collects also those who are denied `subject`, and services as targets.
    pub fn collect_unfiltered(&self, subject: &[u8], matches: &mut Matches) {
        matches.clear();
        self.tree.for_each_match(subject, |leaf| match leaf {
            Leaf::Empty => {}
            Leaf::One(target) if target.import == ROUTE => matches.routes.push(*target),
            Leaf::One(target) => matches.plain.push(*target),
            Leaf::Many(members) => {
                for (group, target) in &members.routes {
                    matches.add_route(group.as_deref(), *target);
                }
                matches.plain.extend_from_slice(&members.plain.list);
                // Names differ within a leaf; only groups of another leaf can be the same ones.
                let earlier = matches.groups.len();
                for (name, members) in &members.groups {
                    match matches.groups[..earlier].iter_mut().find(|found| found.name == *name) {
                        Some(found) => found.members.extend_from_slice(&members.list),
                        None => {
                            matches.groups.push(Group { name: name.clone(), members: members.list.clone() });
                        }
                    }
                }
            }
        });
    }

    #[inline(never)]
    fn leave_out_denied(&self, subject: &[u8], matches: &mut Matches) {
        let Matches { plain, groups, shown, .. } = matches;
        // Connections of one user share a set: asked once for all of them that come in a row.
        let mut last: Option<(*const PatternSet, u16, bool)> = None;
        let mut is_for = |target: &Target| {
            let Some(denied) = self.denied.get(target) else { return true };
            let set = Arc::as_ptr(denied);
            match last {
                Some((known, import, is_denied)) if known == set && import == target.import => !is_denied,
                _ => {
                    let is_denied = denied.matches(shown_as(shown, target.import).unwrap_or(subject));
                    last = Some((set, target.import, is_denied));
                    !is_denied
                }
            }
        };
        plain.retain(&mut is_for);
        for group in groups.iter_mut() {
            group.members.retain(&mut is_for);
        }
        groups.retain(|group| !group.members.is_empty());
    }
}

fn service_target(id: u32) -> Target {
    Target { worker: SERVICE, import: 0, conn: 0, sub: id, generation: 0 }
}

/// How the cores reach an account's index. The server puts it behind a lock; tests and simulations need none.
pub trait InterestAccess {
    /// Looks into the index.
    fn read<R>(&self, look: impl FnOnce(&Interest) -> R) -> R;
    /// Changes the index.
    fn write<R>(&self, change: impl FnOnce(&mut Interest) -> R) -> R;
    /// The counters, without entering the index.
    fn generations(&self) -> &Generations;
}

/// An index that only one thread knows, behind no lock: for simulations, tests and benches of several brokers.
#[derive(Clone)]
pub struct LocalInterest {
    interest: Rc<RefCell<Interest>>,
    generations: Arc<Generations>,
}

impl Default for LocalInterest {
    fn default() -> LocalInterest {
        let interest = Interest::default();
        LocalInterest {
            generations: interest.generations().clone(),
            interest: Rc::new(RefCell::new(interest)),
        }
    }
}

impl InterestAccess for LocalInterest {
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

const FIRST_SHARDS: usize = 256;
const SECOND_SHARDS: usize = 2048;

/// Change counters of an index, by the start of the subject space.
///
/// A pattern whose first two tokens are literal (or whose only token is) counts in a shard chosen by both; one with a
/// literal first token only, in a shard chosen by that; any other in `root`. A subject can be reached only by patterns
/// that count in its three counters, and as counters only grow, their sum tells whether any of them has.
#[derive(Debug)]
pub struct Generations {
    root: AtomicU64,
    first: Box<[AtomicU64]>,
    second: Box<[AtomicU64]>,
    /// Whether there is something that other servers have to be told.
    has_changes: AtomicBool,
}

impl Default for Generations {
    fn default() -> Generations {
        let counters = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Generations {
            root: AtomicU64::new(0),
            first: counters(FIRST_SHARDS),
            second: counters(SECOND_SHARDS),
            has_changes: AtomicBool::new(false),
        }
    }
}

/// The shards of one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shards {
    first: u16,
    second: u16,
}

impl Shards {
    /// Where changes that matter to `subject` are counted.
    pub fn of(subject: &[u8]) -> Shards {
        let first = first_token(subject);
        Shards { first: first_shard(first), second: second_shard(first, second_token(subject)) }
    }
}

impl Generations {
    /// Whether [`Interest::take_changes`] has something.
    #[inline]
    pub fn has_changes(&self) -> bool {
        self.has_changes.load(Ordering::Relaxed)
    }

    /// The sum of the counters of `shards`. Equal sums mean that nothing changed in between.
    #[inline]
    pub fn sum(&self, shards: Shards) -> u64 {
        self.root.load(Ordering::Acquire)
            + self.first[shards.first as usize].load(Ordering::Acquire)
            + self.second[shards.second as usize].load(Ordering::Acquire)
    }

    fn touch(&self, pattern: Pattern<'_>) {
        let bytes = pattern.as_bytes();
        let first = first_token(bytes);
        let second = second_token(bytes);
        let counter = if matches!(first, b"*" | b">") {
            &self.root
        } else if matches!(second, Some(b"*" | b">")) {
            &self.first[first_shard(first) as usize]
        } else {
            &self.second[second_shard(first, second) as usize]
        };
        counter.fetch_add(1, Ordering::Release);
    }
}

fn first_token(subject: &[u8]) -> &[u8] {
    subject.split(|byte| *byte == b'.').next().unwrap_or_default()
}

fn second_token(subject: &[u8]) -> Option<&[u8]> {
    subject.split(|byte| *byte == b'.').nth(1)
}

fn first_shard(token: &[u8]) -> u16 {
    let mut hasher = FxHasher::default();
    hasher.write(token);
    (hasher.finish() % FIRST_SHARDS as u64) as u16
}

fn second_shard(first: &[u8], second: Option<&[u8]>) -> u16 {
    let mut hasher = FxHasher::default();
    hasher.write(first);
    hasher.write_u8(b'.');
    hasher.write(second.unwrap_or_default());
    (hasher.finish() % SECOND_SHARDS as u64) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(sub: u32) -> Target {
        Target { worker: 0, import: 0, conn: sub, sub, generation: 1 }
    }

    fn pattern(text: &str) -> Pattern<'_> {
        Pattern::parse(text.as_bytes()).expect(text)
    }

    fn plain(interest: &Interest, subject: &str) -> Vec<u32> {
        let mut matches = Matches::default();
        interest.collect(subject.as_bytes(), &mut matches);
        let mut subs: Vec<u32> = matches.plain.iter().map(|target| target.sub).collect();
        subs.sort_unstable();
        subs
    }

    #[test]
    fn overlapping_subscriptions_each_match() {
        let mut interest = Interest::default();
        for (i, text) in ["a.b", "a.*", "a.>", ">", "a.c"].into_iter().enumerate() {
            interest.subscribe(pattern(text), None, target(i as u32));
        }
        interest.subscribe(pattern("a.b"), None, target(9));
        assert_eq!(plain(&interest, "a.b"), [0, 1, 2, 3, 9]);
        assert!(interest.unsubscribe(pattern("a.b"), None, target(0)));
        assert!(!interest.unsubscribe(pattern("a.b"), None, target(0)));
        assert_eq!(plain(&interest, "a.b"), [1, 2, 3, 9]);
        assert_eq!(interest.len(), 5);
    }

    #[test]
    fn members_of_a_group_are_gathered_over_all_patterns() {
        let mut interest = Interest::default();
        interest.subscribe(pattern("a.b"), Some(b"q"), target(1));
        interest.subscribe(pattern("a.*"), Some(b"q"), target(2));
        interest.subscribe(pattern("a.*"), Some(b"r"), target(3));
        let mut matches = Matches::default();
        interest.collect(b"a.b", &mut matches);
        let mut groups: Vec<(String, usize)> = matches
            .groups
            .iter()
            .map(|group| (String::from_utf8_lossy(&group.name).into_owned(), group.members.len()))
            .collect();
        groups.sort();
        assert_eq!(groups, [("q".to_owned(), 2), ("r".to_owned(), 1)]);
        assert!(interest.unsubscribe(pattern("a.*"), Some(b"r"), target(3)));
        interest.collect(b"a.b", &mut matches);
        assert_eq!(matches.groups.len(), 1);
    }

    #[test]
    fn what_is_denied_to_a_subscription_is_left_out_wherever_it_is_until_it_is_denied_no_more() {
        let denied = |text: &str| Some(Arc::new([pattern(text)].into_iter().collect::<PatternSet>()));
        let mut interest = Interest::default();
        interest.subscribe(pattern("a.*"), None, target(1));
        interest.subscribe_filtered(pattern("a.*"), None, target(2), denied("a.x"));
        interest.subscribe_filtered(pattern("a.*"), Some(b"q"), target(3), denied("*.x"));
        let groups = |interest: &Interest, subject: &str| {
            let mut matches = Matches::default();
            interest.collect(subject.as_bytes(), &mut matches);
            matches.groups.len()
        };
        assert_eq!((plain(&interest, "a.x"), groups(&interest, "a.x")), (vec![1], 0));
        assert_eq!((plain(&interest, "a.y"), groups(&interest, "a.y")), (vec![1, 2], 1));
        assert!(interest.exchange(pattern("a.*"), None, target(2), target(5)));
        assert_eq!(plain(&interest, "a.x"), [1]);
        assert_eq!((interest.len(), interest.subscribed()), (3, 3));
        let shards = Shards::of(b"a.x");
        let before = interest.generations().sum(shards);
        interest.set_denied(pattern("a.*"), target(5), None);
        assert!(interest.generations().sum(shards) != before, "cached lists do not hold any more");
        assert_eq!(plain(&interest, "a.x"), [1, 5]);
        assert!(interest.unsubscribe(pattern("a.*"), Some(b"q"), target(3)));
        interest.subscribe(pattern("a.*"), Some(b"q"), target(3));
        assert_eq!(groups(&interest, "a.x"), 1);
    }

    #[test]
    fn a_change_shows_in_the_sum_of_every_subject_that_it_can_reach() {
        let patterns = ["a", "a.b", "a.b.c", "a.*", "a.>", "*", ">", "*.b", "b.c.*", "a.b.>"];
        let subjects = ["a", "a.b", "a.b.c", "b", "b.c", "b.c.d", "a.c", "x.b"];
        for text in patterns {
            for subject in subjects {
                let mut interest = Interest::default();
                let shards = Shards::of(subject.as_bytes());
                let before = interest.generations().sum(shards);
                interest.subscribe(pattern(text), None, target(1));
                let reached = !plain(&interest, subject).is_empty();
                let changed = interest.generations().sum(shards) != before;
                assert!(changed || !reached, "{text} reaches {subject} without a trace");
            }
        }
    }

    fn route(conn: u32, weight: u32) -> Target {
        Target { worker: 1, import: ROUTE, conn, sub: weight, generation: 1 }
    }

    #[test]
    fn a_route_stands_once_in_what_matches_and_apart_from_the_members_that_are_here() {
        let mut interest = Interest::default();
        for text in ["a.b", "a.*"] {
            interest.subscribe(pattern(text), None, route(7, 0));
            interest.subscribe(pattern(text), Some(b"q"), route(7, 2));
            interest.subscribe(pattern(text), Some(b"r"), route(8, 1));
        }
        interest.subscribe(pattern("a.b"), None, target(1));
        interest.subscribe(pattern("a.>"), Some(b"r"), target(2));
        let mut matches = Matches::default();
        interest.collect(b"a.b", &mut matches);
        assert_eq!((&matches.plain[..], &matches.routes[..]), (&[target(1)][..], &[route(7, 0)][..]));
        assert_eq!((matches.groups.len(), matches.route_groups.len()), (1, 2));
        let [q, r] = &matches.route_groups[..] else { panic!("two groups") };
        assert_eq!((&q.routes[..], q.own), (&[route(7, 2), route(7, 2)][..], 0));
        assert_eq!((&r.routes[..], r.own), (&[route(8, 1), route(8, 1)][..], 1));
        for text in ["a.b", "a.*"] {
            assert!(interest.unsubscribe(pattern(text), None, route(7, 0)));
            assert!(interest.unsubscribe(pattern(text), Some(b"q"), route(7, 2)));
            assert!(!interest.unsubscribe(pattern(text), Some(b"r"), route(8, 2)));
            assert!(interest.unsubscribe(pattern(text), Some(b"r"), route(8, 1)));
        }
        interest.collect(b"a.b", &mut matches);
        assert!(matches.routes.is_empty() && matches.route_groups.is_empty() && interest.routed_len() == 0);
        assert_eq!(plain(&interest, "a.b"), [1]);
    }

    #[test]
    fn other_servers_are_told_of_the_first_and_the_last_and_of_every_member_of_a_queue_group() {
        let mut interest = Interest::default();
        let watch = Arc::new(Watch::default());
        interest.set_watch(watch.clone());
        let mut told = Vec::new();
        let mut step = |interest: &mut Interest| {
            told.extend(interest.take_changes().into_iter().map(|change| {
                let queue = change.queue.map(|queue| String::from_utf8(queue.into()).unwrap());
                format!("{} {queue:?} {}", change.subject.escape_ascii(), change.count)
            }));
        };
        interest.subscribe(pattern("a"), None, target(1));
        assert!(watch.take() && !watch.take());
        interest.subscribe(pattern("a"), None, target(2));
        interest.subscribe(pattern("a"), None, route(7, 0));
        interest.subscribe(pattern("a"), Some(b"q"), target(3));
        interest.subscribe(pattern("a"), Some(b"q"), target(4));
        interest.subscribe(pattern("b"), None, route(7, 0));
        step(&mut interest);
        let mut wanted = Vec::new();
        interest
            .for_each_wanted(|subject, queue, count| wanted.push((subject.to_vec(), queue.is_some(), count)));
        assert_eq!(wanted, [(b"a".to_vec(), false, 1), (b"a".to_vec(), true, 2)]);
        assert!(interest.exchange(pattern("a"), None, target(1), target(9)));
        for (queue, sub) in [(None, 2), (None, 9), (Some(&b"q"[..]), 3), (Some(b"q"), 4)] {
            assert!(interest.unsubscribe(pattern("a"), queue, target(sub)));
        }
        step(&mut interest);
        assert_eq!(
            told,
            [
                "a None 1",
                "a Some(\"q\") 1",
                "a Some(\"q\") 2",
                "a None 0",
                "a Some(\"q\") 1",
                "a Some(\"q\") 0"
            ]
        );
    }

    #[test]
    fn a_long_list_loses_its_members_in_any_order() {
        let mut interest = Interest::default();
        for sub in 0..1000 {
            interest.subscribe(pattern("a"), None, target(sub));
        }
        let mut left: Vec<u32> = (0..1000).collect();
        let mut random = fastrand::Rng::with_seed(7);
        while let Some(last) = left.len().checked_sub(1) {
            let sub = left.swap_remove(random.usize(..=last));
            assert!(interest.unsubscribe(pattern("a"), None, target(sub)));
            assert!(!interest.unsubscribe(pattern("a"), None, target(sub)));
            if left.len().is_multiple_of(97) {
                left.sort_unstable();
                assert_eq!(plain(&interest, "a"), left);
            }
        }
        assert!(interest.is_empty());
    }

    #[test]
    fn churn_of_inboxes_leaves_other_subjects_alone() {
        let mut interest = Interest::default();
        let shards = Shards::of(b"orders.eu.created");
        let before = interest.generations().sum(shards);
        for i in 0..1000 {
            let text = format!("_INBOX.{i:022}");
            interest.subscribe(pattern(&text), None, target(i));
            interest.unsubscribe(pattern(&text), None, target(i));
        }
        // Two counts each in 2,048 shards: a few may fall into ours, most must not.
        assert!(interest.generations().sum(shards) - before < 40);
    }
}
