//! What a user may publish and subscribe to. The rules are the reference's:
//!
//! * without an allow list everything is allowed; a deny list takes away from that;
//! * a subscription must lie, as the text that it is, within an allowed pattern, and must not lie within a denied one.
//!   One with wildcards that merely overlaps a denied pattern is accepted, and what is denied is left out when its
//!   messages are delivered ([`Permissions::delivery_denies`]);
//! * an entry for subscriptions may name queue groups. Where such an entry matches, it alone decides about groups.
//!
//! Asking takes a walk through a tree, so that the broker asks once per subject and remembers the answer with the
//! fan-out list.

use std::sync::Arc;

use crate::config;
use crate::subject::name::tokens;
use crate::subject::pattern_set::PatternSet;
use crate::subject::{Pattern, Tree};

/// The permissions of one or more users.
#[derive(Debug)]
pub struct Permissions {
    /// Names them in caches, within one directory; never 0.
    pub id: u32,
    configured: config::Permissions,
    publish_allow: Option<PatternSet>,
    publish_deny: PatternSet,
    subscribe_allow: Option<QueuePatterns>,
    subscribe_deny: QueuePatterns,
    /// Denied to plain subscriptions.
    deliver_deny: Arc<PatternSet>,
    /// Set if replies may be answered that could otherwise not be published to.
    pub responses: Option<Responses>,
}

/// How often and for how long a reply may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Responses {
    /// `None`: as often as one likes.
    pub max: Option<u32>,
    /// From the delivery on; `None`: for ever.
    pub expires_us: Option<u64>,
}

impl Permissions {
    /// Compiles configured ones.
    pub fn new(id: u32, configured: &config::Permissions) -> Permissions {
        let patterns = |subjects: &[String]| -> PatternSet {
            subjects.iter().filter_map(|subject| Pattern::parse(subject.as_bytes()).ok()).collect()
        };
        let plain = configured.subscribe_deny.iter().filter(|entry| entry.queue.is_none());
        let plain = plain.filter_map(|entry| Pattern::parse(entry.subject.as_bytes()).ok());
        Permissions {
            id,
            publish_allow: configured.publish_allow.as_deref().map(patterns),
            publish_deny: patterns(&configured.publish_deny),
            subscribe_allow: (!configured.subscribe_allow.is_empty())
                .then(|| QueuePatterns::new(&configured.subscribe_allow)),
            subscribe_deny: QueuePatterns::new(&configured.subscribe_deny),
            deliver_deny: Arc::new(plain.collect()),
            responses: configured.responses.map(|responses| Responses {
                max: responses.max,
                expires_us: responses.expires.map(|expires| expires.as_micros() as u64),
            }),
            configured: configured.clone(),
        }
    }

    /// What they were made of.
    pub fn configured(&self) -> &config::Permissions {
        &self.configured
    }

    /// Whether there is a rule for publishing.
    pub fn restrict_publishing(&self) -> bool {
        self.publish_allow.is_some() || !self.publish_deny.is_empty()
    }

    /// Whether a subject, of any bytes, may be published to. Replies that may be answered are not looked at.
    pub fn may_publish(&self, subject: &[u8]) -> bool {
        self.publish_allow.as_ref().is_none_or(|allow| allow.matches(subject))
            && !self.publish_deny.matches(subject)
    }

    /// Whether a subject, of any bytes, may be subscribed to, by a queue group perhaps.
    pub fn may_subscribe(&self, subject: &[u8], queue: Option<&[u8]>) -> bool {
        let is_allowed = self.subscribe_allow.as_ref().is_none_or(|allow| {
            let (is_plain, is_queue) = allow.look_up(subject, queue);
            is_queue.unwrap_or(is_plain)
        });
        if !is_allowed {
            return false;
        }
        let (is_plain, is_queue) = self.subscribe_deny.look_up(subject, queue);
        !is_plain && !is_queue.unwrap_or(false)
    }

    /// What is to be left out of the deliveries to a subscription that is accepted; `None`: nothing.
    pub fn delivery_denies(&self, pattern: Pattern<'_>, queue: Option<&[u8]>) -> Option<Arc<PatternSet>> {
        let Some(queue) = queue else {
            let has_some = pattern.has_wildcard() && self.deliver_deny.overlaps(pattern);
            return has_some.then(|| self.deliver_deny.clone());
        };
        let denied =
            self.configured.subscribe_deny.iter().filter(|entry| {
                entry.queue.as_ref().is_none_or(|denied| names_queue(denied.as_bytes(), queue))
            });
        let denied: PatternSet =
            denied.filter_map(|entry| Pattern::parse(entry.subject.as_bytes()).ok()).collect();
        denied.overlaps(pattern).then(|| Arc::new(denied))
    }
}

impl PartialEq for Permissions {
    fn eq(&self, other: &Permissions) -> bool {
        self.configured == other.configured
    }
}

/// Patterns, each for plain subscriptions or for the queue groups that it names.
#[derive(Default)]
struct QueuePatterns {
    tree: Tree<Entry>,
}

#[derive(Default)]
struct Entry {
    is_plain: bool,
    queues: Vec<Box<[u8]>>,
}

impl QueuePatterns {
    fn new(entries: &[config::QueueSubject]) -> QueuePatterns {
        let mut patterns = QueuePatterns::default();
        for entry in entries {
            let Ok(pattern) = Pattern::parse(entry.subject.as_bytes()) else { continue };
            let leaf = patterns.tree.entry(pattern);
            match &entry.queue {
                None => leaf.is_plain = true,
                Some(queue) => leaf.queues.push(queue.as_bytes().into()),
            }
        }
        patterns
    }

    /// Whether an entry without a queue group matches; and, for a subscription of a queue group that some entry with one
    /// matches, whether one of those names the group.
    fn look_up(&self, subject: &[u8], queue: Option<&[u8]>) -> (bool, Option<bool>) {
        let (mut is_plain, mut is_queue) = (false, None);
        self.tree.for_each_match(subject, |entry| {
            is_plain |= entry.is_plain;
            if let Some(queue) = queue
                && !entry.queues.is_empty()
            {
                let names = entry.queues.iter().any(|known| names_queue(known, queue));
                is_queue = Some(is_queue.unwrap_or(false) | names);
            }
        });
        (is_plain, is_queue)
    }
}

impl std::fmt::Debug for QueuePatterns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QueuePatterns(…)")
    }
}

/// Whether `known`, which may have wildcards, stands for `queue`: as text, or as a pattern.
fn names_queue(known: &[u8], queue: &[u8]) -> bool {
    if known == queue {
        return true;
    }
    let mut wanted = tokens(known);
    let mut given = tokens(queue);
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(b">"), Some(_)) => return true,
            (Some(b"*"), Some(token)) if token != b">" => {}
            (Some(token), Some(other)) if token == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::QueueSubject;
    use crate::subject::name::subject_matches_pattern;

    fn entries(texts: &[&str]) -> Vec<QueueSubject> {
        let entry = |text: &&str| match text.split_once(' ') {
            Some((subject, queue)) => {
                QueueSubject { subject: subject.to_owned(), queue: Some(queue.to_owned()) }
            }
            None => QueueSubject { subject: (*text).to_owned(), queue: None },
        };
        texts.iter().map(entry).collect()
    }

    fn subscribing(allow: &[&str], deny: &[&str]) -> Permissions {
        let configured = config::Permissions {
            subscribe_allow: entries(allow),
            subscribe_deny: entries(deny),
            ..config::Permissions::default()
        };
        Permissions::new(1, &configured)
    }

    #[test]
    fn an_entry_with_a_queue_decides_about_groups_alone() {
        let permissions = subscribing(&["foo", "foo v1", "bar v.*"], &[]);
        let may = |subject: &str, queue: &str| {
            let queue = (!queue.is_empty()).then_some(queue.as_bytes());
            permissions.may_subscribe(subject.as_bytes(), queue)
        };
        assert!(may("foo", "") && may("foo", "v1") && !may("foo", "v2"));
        assert!(!may("bar", "") && may("bar", "v.2") && may("bar", "v.*") && !may("bar", "v"));
    }

    #[test]
    fn a_subscription_that_overlaps_a_denied_subject_is_accepted_and_filtered() {
        let permissions = subscribing(&[], &["a.b", "q w"]);
        let denies = |pattern: &str, queue: Option<&str>| {
            let pattern = Pattern::parse(pattern.as_bytes()).unwrap();
            permissions.delivery_denies(pattern, queue.map(str::as_bytes))
        };
        assert!(permissions.may_subscribe(b"a.*", None) && !permissions.may_subscribe(b"a.b", None));
        assert!(denies("a.*", None).is_some_and(|denied| denied.matches(b"a.b") && !denied.matches(b"a.c")));
        assert!(denies("b.*", None).is_none() && denies("q", Some("x")).is_none());
        assert!(denies("*", Some("w")).is_some_and(|denied| denied.matches(b"q")));
    }

    fn patterns() -> impl Strategy<Value = Vec<String>> {
        let pattern = proptest::collection::vec("[ab*]", 1..4).prop_map(|tokens| tokens.join("."));
        let open = pattern.clone().prop_map(|pattern| pattern + ".>");
        proptest::collection::vec(prop_oneof![pattern, open, Just(">".to_owned())], 0..5)
    }

    fn queue_entries() -> impl Strategy<Value = Vec<QueueSubject>> {
        let subject = prop_oneof!["[ab*]([.][ab*]){0,2}", "[ab*]([.][ab*])?[.]>", Just(">".to_owned())];
        let queue = proptest::option::of(prop_oneof!["[vw*]([.][vw*])?", "[vw*][.]>", Just(">".to_owned())]);
        let entry = (subject, queue).prop_map(|(subject, queue)| QueueSubject { subject, queue });
        proptest::collection::vec(entry, 0..6)
    }

    fn is_in(subject: &str, pattern: &str) -> bool {
        subject_matches_pattern(subject.as_bytes(), Pattern::parse(pattern.as_bytes()).unwrap())
    }

    /// Entries without a queue group that a subject lies in, and for each one with a group whether it names `queue`.
    fn naive(entries: &[QueueSubject], subject: &str, queue: Option<&str>) -> (bool, Vec<bool>) {
        let within = || entries.iter().filter(|entry| is_in(subject, &entry.subject));
        let is_plain = within().any(|entry| entry.queue.is_none());
        let Some(queue) = queue else { return (is_plain, Vec::new()) };
        (is_plain, within().filter_map(|entry| Some(is_in(queue, entry.queue.as_deref()?))).collect())
    }

    proptest! {
        #[test]
        fn subscribing_is_as_the_rule_says(
            allow in queue_entries(),
            deny in queue_entries(),
            subject in "[ab]([.][ab*]){0,2}([.]>)?",
            queue in proptest::option::of("[vw]([.][vw]){0,2}"),
        ) {
            let configured = config::Permissions {
                subscribe_allow: allow.clone(),
                subscribe_deny: deny.clone(),
                ..config::Permissions::default()
            };
            let permissions = Permissions::new(1, &configured);
            let (plain, groups) = naive(&allow, &subject, queue.as_deref());
            // Where an entry with a group matches, those alone decide about groups.
            let allowed = allow.is_empty() || if groups.is_empty() { plain } else { groups.contains(&true) };
            let (plain, groups) = naive(&deny, &subject, queue.as_deref());
            let expected = allowed && !plain && !groups.contains(&true);
            let queue = queue.as_deref().map(str::as_bytes);
            prop_assert_eq!(permissions.may_subscribe(subject.as_bytes(), queue), expected);
        }

        #[test]
        fn deliveries_leave_out_what_is_denied_and_nothing_else(
            deny in queue_entries(),
            pattern in prop_oneof!["[ab*]([.][ab*]){0,2}", "[ab*]([.][ab*])?[.]>"],
            queue in proptest::option::of("[vw]([.][vw]){0,2}"),
        ) {
            let configured =
                config::Permissions { subscribe_deny: deny.clone(), ..config::Permissions::default() };
            let permissions = Permissions::new(1, &configured);
            let bytes = queue.as_deref().map(str::as_bytes);
            if !permissions.may_subscribe(pattern.as_bytes(), bytes) {
                return Ok(());
            }
            let left_out = permissions.delivery_denies(Pattern::parse(pattern.as_bytes()).unwrap(), bytes);
            let tokens = ["a", "b"];
            let two = tokens.iter().flat_map(|first| tokens.map(|second| format!("{first}.{second}")));
            let two: Vec<String> = two.collect();
            let three = two.iter().flat_map(|start| tokens.map(|last| format!("{start}.{last}")));
            let one = tokens.iter().map(|token| (*token).to_owned());
            for subject in one.chain(three).chain(two.iter().cloned()) {
                if !is_in(&subject, &pattern) {
                    continue;
                }
                let (plain, groups) = naive(&deny, &subject, queue.as_deref());
                let expected = plain || groups.contains(&true);
                let is_left_out = left_out.as_ref().is_some_and(|denied| denied.matches(subject.as_bytes()));
                prop_assert_eq!(is_left_out, expected, "{} for {}", subject, pattern);
            }
        }

        #[test]
        fn publishing_is_as_the_rule_says(
            allow in proptest::option::of(patterns()),
            deny in patterns(),
            subject in "[ab]([.][ab*>]){0,3}",
        ) {
            let configured = config::Permissions {
                publish_allow: allow.clone(),
                publish_deny: deny.clone(),
                ..config::Permissions::default()
            };
            let permissions = Permissions::new(1, &configured);
            let one_of = |patterns: &[String]| patterns.iter().any(|pattern| {
                subject_matches_pattern(subject.as_bytes(), Pattern::parse(pattern.as_bytes()).unwrap())
            });
            let expected = allow.as_deref().is_none_or(one_of) && !one_of(&deny);
            prop_assert_eq!(permissions.may_publish(subject.as_bytes()), expected);
        }
    }
}
