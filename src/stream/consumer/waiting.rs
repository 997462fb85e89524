//! Pull requests that wait, and the order in which they are served.
//!
//! After each message a request that wants more goes behind the others (behind those of its priority, where there are
//! priorities). How many wait is bounded by the consumer's `max_waiting`; checking that is up to who adds.

use std::collections::VecDeque;

use super::config::PriorityPolicy;

/// What a request says for its priority group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupOptions {
    /// The group.
    pub group: String,
    /// Serve it only from so many undelivered messages on.
    pub min_pending: i64,
    /// Serve it only from so many unacknowledged messages on.
    pub min_ack_pending: i64,
    /// The id of the pinned client.
    pub id: String,
    /// 0 to 9; lower is served first.
    pub priority: i64,
}

/// A request that waits for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where messages go.
    pub reply: Box<[u8]>,
    /// How many messages are still wanted.
    pub batch: i64,
    /// How many were delivered.
    pub delivered: u64,
    /// How many bytes are still wanted; 0: no limit.
    pub bytes: i64,
    /// When it ends.
    pub expires_ns: Option<i64>,
    /// When it came.
    pub received_ns: i64,
    /// How often it wants to hear something.
    pub heartbeat_ns: i64,
    /// When it wants to hear something next.
    pub heartbeat_at_ns: Option<i64>,
    /// Whether it ends when there is nothing.
    pub no_wait: bool,
    /// What it says for its priority group.
    pub group: Option<Box<GroupOptions>>,
}

impl Request {
    fn priority(&self) -> i64 {
        self.group.as_ref().map_or(i64::MAX, |group| group.priority)
    }

    /// When something has to be done about it, at the latest.
    pub fn deadline_ns(&self) -> Option<i64> {
        match (self.expires_ns, self.heartbeat_at_ns) {
            (Some(expires), Some(heartbeat)) => Some(expires.min(heartbeat)),
            (one, other) => one.or(other),
        }
    }
}

/// See the file's header.
#[derive(Debug, Clone, Default)]
pub struct Waiting {
    requests: VecDeque<Request>,
}

impl Waiting {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Adds one.
    pub fn add(&mut self, request: Request, policy: PriorityPolicy) {
        if policy == PriorityPolicy::Prioritized {
            let at = self.requests.partition_point(|other| other.priority() <= request.priority());
            self.requests.insert(at, request);
        } else {
            self.requests.push_back(request);
        }
    }

    /// The one that is served next.
    pub fn first(&self) -> Option<&Request> {
        self.requests.front()
    }

    /// The one that is served next.
    pub fn first_mut(&mut self) -> Option<&mut Request> {
        self.requests.front_mut()
    }

    /// Takes the first out.
    pub fn remove_first(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// Puts the first behind all others.
    pub fn cycle(&mut self) {
        if self.requests.len() > 1 {
            self.requests.rotate_left(1);
        }
    }

    /// The first has got a message. One that wants no more is taken out and returned.
    pub fn served_first(&mut self, policy: PriorityPolicy) -> Option<Request> {
        let first = self.requests.front_mut()?;
        first.batch -= 1;
        first.delivered += 1;
        if first.batch <= 0 {
            return self.requests.pop_front();
        }
        if self.requests.len() > 1
            && let Some(first) = self.requests.pop_front()
        {
            self.add(first, policy);
        }
        None
    }

    /// Whether one ends when there is nothing.
    pub fn has_one_shots(&self) -> bool {
        self.requests.iter().any(|request| request.no_wait)
    }

    /// How many messages all of them want.
    pub fn batch_total(&self) -> u64 {
        self.requests.iter().map(|request| request.batch.max(0).unsigned_abs()).sum()
    }

    /// Keeps those for which `keep` says so. It may change them.
    pub fn retain(&mut self, keep: impl FnMut(&mut Request) -> bool) {
        self.requests.retain_mut(keep);
    }

    /// Takes all of them out.
    pub fn drain(&mut self) -> impl Iterator<Item = Request> {
        self.requests.drain(..)
    }

    /// Gives memory back that is not needed.
    pub fn shrink(&mut self) {
        self.requests.shrink_to(self.requests.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str, batch: i64, priority: i64) -> Request {
        Request {
            reply: name.as_bytes().into(),
            batch,
            delivered: 0,
            bytes: 0,
            expires_ns: None,
            received_ns: 0,
            heartbeat_ns: 0,
            heartbeat_at_ns: None,
            no_wait: false,
            group: Some(Box::new(GroupOptions { priority, ..GroupOptions::default() })),
        }
    }

    fn served(policy: PriorityPolicy, requests: &[(&str, i64, i64)]) -> String {
        let mut waiting = Waiting::default();
        for (name, batch, priority) in requests {
            waiting.add(request(name, *batch, *priority), policy);
        }
        let mut order = Vec::new();
        while let Some(first) = waiting.first() {
            order.push(String::from_utf8_lossy(&first.reply).into_owned());
            waiting.served_first(policy);
        }
        order.join(" ")
    }

    #[test]
    fn requests_take_turns() {
        let requests = [("a", 2, 0), ("b", 1, 0), ("c", 3, 0)];
        assert_eq!(served(PriorityPolicy::None, &requests), "a b c a c c");
    }

    #[test]
    fn requests_with_a_lower_priority_come_first_and_take_turns_among_themselves() {
        let requests = [("a", 2, 5), ("b", 2, 1), ("c", 1, 1), ("d", 1, 9)];
        assert_eq!(served(PriorityPolicy::Prioritized, &requests), "b c b a a d");
    }
}
