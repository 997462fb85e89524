//! Answers from other accounts that a worker waits for, and the replies that lead to them.
//!
//! A reply into another account is `_R_.`, six characters that tell the worker, a dot, and six that tell the response. That of a
//! request that is measured goes on with eight characters and `.T`, so that whoever takes the answer knows.
//! This table belongs to one worker; what a response is for is [`super::services`]'s to know.
//!
//! A response is over when it is taken out, or when its time is. Its time is looked at whenever an answer comes, so that none is
//! too late; that it is forgotten may take a little longer. Streams of answers prolong it.
//!
//! Bounds: [`BYTES_MAX`], and for one account that asks a quarter of it, so that an account whose requests nobody answers
//! loses its own responses and not those of others. The oldest are forgotten.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

use super::latency::Measurement;
use crate::subject::import::ServiceImport;
use crate::subject::interest::WorkerId;

/// Memory for the responses of one worker, where each counts [`COST_BYTES`] beside its subjects.
pub const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Of it, that for requests from one account.
pub const ACCOUNT_BYTES_MAX: usize = BYTES_MAX / 4;

/// What a response counts beside its subjects.
pub const COST_BYTES: usize = 256;

/// What subjects begin with that lead back to a requester.
pub const REPLY_PREFIX: &[u8] = b"_R_.";

/// The time between looks for what is over.
const LOOK_MS: u64 = 100;

/// Responses that one look takes out.
const LOOK_MAX: usize = 4096;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const CODE_LEN: usize = 6;
/// Of a measured request's reply: eight characters between dots, and a letter.
const TAIL_LEN: usize = 11;
const CODES: u64 = 62u64.pow(CODE_LEN as u32);

/// More than there are workers.
const WORKER_CODES: u64 = 1024;

/// An answer that is waited for.
#[derive(Debug)]
pub(super) struct Response {
    /// Slot of the account that answers.
    pub account: u16,
    /// Slot of the account that asked.
    pub to_account: u16,
    /// The reply in that account.
    pub reply: Box<[u8]>,
    /// What the request was published to there.
    pub subject: Box<[u8]>,
    /// What was asked.
    pub service: Arc<ServiceImport>,
    /// Until when an answer is passed on.
    pub deadline_ms: u64,
    /// How long it takes is to be told.
    pub measurement: Option<Box<Measurement>>,
}

impl Response {
    fn cost(&self) -> usize {
        COST_BYTES + self.reply.len() + self.subject.len()
    }

    fn line(&self) -> (u16, u64) {
        (self.to_account, self.service.terms.threshold_ms)
    }
}

/// A response's reply, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReplyCodes {
    /// Of the worker, and of the run of the server.
    pub worker: u64,
    /// Of the response.
    pub key: u64,
    /// The request is measured.
    pub is_measured: bool,
}

impl ReplyCodes {
    /// Those of a subject, if it is such a reply.
    pub fn read(subject: &[u8]) -> Option<ReplyCodes> {
        let (codes, tail) = subject.strip_prefix(REPLY_PREFIX)?.split_at_checked(2 * CODE_LEN + 1)?;
        let is_tail = tail.is_empty() || tail.len() == TAIL_LEN && tail[0] == b'.' && tail.ends_with(b".T");
        if codes[CODE_LEN] != b'.' || !is_tail {
            return None;
        }
        Some(ReplyCodes {
            worker: read_code(&codes[..CODE_LEN])?,
            key: read_code(&codes[CODE_LEN + 1..])?,
            is_measured: !tail.is_empty(),
        })
    }

    /// The worker that keeps the response, if it is of this run.
    pub fn worker(self) -> usize {
        (self.worker % WORKER_CODES) as usize
    }
}

fn read_code(digits: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| DIGITS.iter().position(|digit| digit == byte).map(|at| at as u64);
    digits.iter().rev().try_fold(0, |code, byte| Some(code * 62 + digit(byte)?))
}

fn write_code(out: &mut Vec<u8>, mut code: u64) {
    for _ in 0..CODE_LEN {
        out.push(DIGITS[(code % 62) as usize]);
        code /= 62;
    }
}

/// Responses of one account that asks, for one time, from the oldest on; also such as are over.
#[derive(Debug, Default)]
struct Line {
    /// With the time of the next look, which rises.
    keys: VecDeque<(u64, u64)>,
    /// Of them, those that are not over.
    waiting: usize,
}

/// The responses that a worker waits for.
#[derive(Debug)]
pub(super) struct Responses {
    /// What its replies begin with.
    code: u64,
    waiting: HashMap<u64, Response, FxBuildHasher>,
    lines: HashMap<(u16, u64), Line, FxBuildHasher>,
    bytes: usize,
    /// By the account that asks.
    bytes_of: HashMap<u16, usize, FxBuildHasher>,
    /// When to look for what is over.
    look_ms: Option<u64>,
}

impl Responses {
    pub fn new(worker: WorkerId, random: &mut fastrand::Rng) -> Responses {
        assert!(u64::from(worker) < WORKER_CODES, "replies have no room for more workers");
        Responses {
            code: random.u64(..CODES / WORKER_CODES) * WORKER_CODES + u64::from(worker),
            waiting: HashMap::default(),
            lines: HashMap::default(),
            bytes: 0,
            bytes_of: HashMap::default(),
            look_ms: None,
        }
    }

    /// What its replies begin with.
    pub fn code(&self) -> u64 {
        self.code
    }

    /// What the replies that lead here begin with.
    pub fn reply_prefix(&self) -> Vec<u8> {
        let mut prefix = REPLY_PREFIX.to_vec();
        write_code(&mut prefix, self.code);
        prefix.push(b'.');
        prefix
    }

    /// Every response with its key, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Response)> {
        self.waiting.iter().map(|(key, response)| (*key, response))
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn get(&self, key: u64) -> Option<&Response> {
        self.waiting.get(&key)
    }

    pub fn get_mut(&mut self, key: u64) -> Option<&mut Response> {
        self.waiting.get_mut(&key)
    }

    /// The reply that leads to a response, if it is there.
    pub fn reply(&self, key: u64) -> Vec<u8> {
        let mut reply = Vec::with_capacity(REPLY_PREFIX.len() + 2 * CODE_LEN + 1 + TAIL_LEN);
        reply.extend_from_slice(REPLY_PREFIX);
        write_code(&mut reply, self.code);
        reply.push(b'.');
        write_code(&mut reply, key);
        if self.get(key).is_some_and(|response| response.measurement.is_some()) {
            // In the reference these name a server of a cluster.
            let from = reply.len();
            reply.push(b'.');
            write_code(&mut reply, self.code);
            reply.extend_from_slice(b"00.T");
            debug_assert_eq!(reply.len() - from, TAIL_LEN);
        }
        reply
    }

    /// Waits for a response. Returns its key.
    pub fn insert(&mut self, response: Response, random: &mut fastrand::Rng) -> u64 {
        let cost = response.cost();
        while self.bytes_of.get(&response.to_account).is_some_and(|bytes| bytes + cost > ACCOUNT_BYTES_MAX) {
            self.forget_oldest_of(response.to_account);
        }
        while self.bytes + cost > BYTES_MAX {
            let most = self.bytes_of.iter().max_by_key(|(_, bytes)| **bytes);
            let (account, _) = most.expect("somebody has what there is");
            self.forget_oldest_of(*account);
        }
        let key = loop {
            let key = random.u64(..CODES);
            if !self.waiting.contains_key(&key) {
                break key;
            }
        };
        self.bytes += cost;
        *self.bytes_of.entry(response.to_account).or_default() += cost;
        self.look_ms = Some(self.look_ms.map_or(response.deadline_ms, |at| at.min(response.deadline_ms)));
        let line = self.lines.entry(response.line()).or_default();
        while line.keys.front().is_some_and(|(oldest, _)| !self.waiting.contains_key(oldest)) {
            line.keys.pop_front();
        }
        line.keys.push_back((key, response.deadline_ms));
        line.waiting += 1;
        self.waiting.insert(key, response);
        if line.keys.len() > 2 * line.waiting + 1024 {
            line.keys.retain(|(key, _)| self.waiting.contains_key(key));
        }
        key
    }

    pub fn remove(&mut self, key: u64) -> Option<Response> {
        let response = self.waiting.remove(&key)?;
        self.bytes -= response.cost();
        let bytes = self.bytes_of.get_mut(&response.to_account).expect("counted when it came");
        *bytes -= response.cost();
        if *bytes == 0 {
            self.bytes_of.remove(&response.to_account);
        }
        let line = self.lines.get_mut(&response.line()).expect("it stands in one");
        line.waiting -= 1;
        if line.waiting == 0 {
            // What is left in it is over. Most accounts ask one thing at a time: then this keeps its memory.
            line.keys.clear();
        }
        Some(response)
    }

    /// Forgets those for which `keeps` says no.
    pub fn retain(&mut self, mut keeps: impl FnMut(&Response) -> bool) {
        let gone: Vec<u64> =
            self.waiting.iter().filter(|(_, response)| !keeps(response)).map(|(key, _)| *key).collect();
        for key in gone {
            self.remove(key);
        }
    }

    fn forget_oldest_of(&mut self, account: u16) {
        let Responses { lines, waiting, .. } = self;
        let mut oldest = None;
        for ((_, threshold_ms), line) in lines.iter_mut().filter(|((of, _), _)| *of == account) {
            while line.keys.front().is_some_and(|(key, _)| !waiting.contains_key(key)) {
                line.keys.pop_front();
            }
            if let Some((key, look_ms)) = line.keys.front() {
                let since_ms = look_ms.saturating_sub(*threshold_ms);
                oldest = oldest.min(Some((since_ms, *key))).or(Some((since_ms, *key)));
            }
        }
        let (_, key) = oldest.expect("it has some");
        self.remove(key);
    }

    /// When to call [`Responses::take_expired`], if ever.
    pub fn look_ms(&self) -> Option<u64> {
        self.look_ms
    }

    /// Takes out those whose time is over, of many the first ones.
    pub fn take_expired(&mut self, now_ms: u64) -> Vec<Response> {
        if self.look_ms.is_none_or(|at_ms| at_ms > now_ms) {
            return Vec::new();
        }
        let mut expired = Vec::new();
        let mut next_ms: Option<u64> = None;
        for ((_, threshold_ms), line) in &mut self.lines {
            while let Some((key, look_ms)) = line.keys.front().copied() {
                let response = self.waiting.get(&key);
                if response.is_some() && (look_ms > now_ms || expired.len() == LOOK_MAX) {
                    next_ms = Some(next_ms.map_or(look_ms, |next_ms| next_ms.min(look_ms)));
                    break;
                }
                line.keys.pop_front();
                match response {
                    Some(response) if response.deadline_ms > now_ms => {
                        // Prolonged. Behind the others, so that the times rise: it may be seen late, by its own time at most.
                        line.keys.push_back((key, now_ms + *threshold_ms));
                    }
                    Some(_) => expired.push(key),
                    None => {}
                }
            }
        }
        let is_full = expired.len() == LOOK_MAX;
        let expired = expired.into_iter().filter_map(|key| self.remove(key)).collect();
        self.lines.retain(|_, line| line.waiting > 0);
        self.look_ms = next_ms.map(|next_ms| if is_full { now_ms } else { next_ms.max(now_ms + LOOK_MS) });
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::import::{ResponseType, ServiceTerms};

    fn response(account: u16, threshold_ms: u64, now_ms: u64) -> Response {
        let terms =
            ServiceTerms { subject: "s".into(), response: ResponseType::Stream, threshold_ms, latency: None };
        let service = ServiceImport::new(account, 9, "s", "s", terms.into(), false).unwrap();
        Response {
            account: 9,
            to_account: account,
            reply: b"r".as_slice().into(),
            subject: b"s".as_slice().into(),
            service: Arc::new(service),
            deadline_ms: now_ms + threshold_ms,
            measurement: None,
        }
    }

    fn responses() -> (Responses, fastrand::Rng) {
        let mut random = fastrand::Rng::with_seed(1);
        (Responses::new(0, &mut random), random)
    }

    #[test]
    fn a_reply_tells_its_worker_and_its_response() {
        let mut random = fastrand::Rng::with_seed(1);
        for worker in [0, 1, 17, 1023] {
            let responses = Responses::new(worker, &mut random);
            for key in [0, 1, 61, 62, CODES - 1] {
                let reply = responses.reply(key);
                assert_eq!(reply.len(), 17);
                let codes = ReplyCodes::read(&reply).unwrap();
                assert_eq!(codes, ReplyCodes { worker: responses.code(), key, is_measured: false });
                assert_eq!(codes.worker(), usize::from(worker));
            }
        }
        for other in
            ["_R_.", "_R_.AAAAAA.AAAAA", "_R_.AAAAAA.AAAAA-", "_R_.AAAAAAAAAAAAA", "_R_.AAAAAA.AAAAAA.x"]
        {
            assert_eq!(ReplyCodes::read(other.as_bytes()), None, "{other}");
        }
        let codes = ReplyCodes::read(b"_R_.100000.200000.12345678.T").unwrap();
        assert_eq!(codes, ReplyCodes { worker: 1, key: 2, is_measured: true });
        assert_eq!(ReplyCodes::read(b"_R_.100000.200000.12345678.X"), None);
    }

    #[test]
    fn responses_are_forgotten_when_their_time_is_over_and_not_before() {
        let (mut responses, mut random) = responses();
        let first = responses.insert(response(1, 100, 0), &mut random);
        let second = responses.insert(response(1, 100, 10), &mut random);
        let short = responses.insert(response(2, 50, 20), &mut random);
        assert_eq!(responses.look_ms(), Some(70));
        responses.get_mut(first).unwrap().deadline_ms = 180;
        assert!(responses.take_expired(69).is_empty());
        assert_eq!(responses.take_expired(70).len(), 1);
        assert!(responses.get(short).is_none() && responses.look_ms() == Some(70 + LOOK_MS));
        assert_eq!(responses.take_expired(170).len(), 1);
        assert!(responses.get(second).is_none() && responses.get(first).is_some());
        assert_eq!(responses.look_ms(), Some(270), "prolonged");
        assert_eq!(responses.take_expired(270).len(), 1);
        assert!(responses.waiting.is_empty() && responses.lines.is_empty() && responses.look_ms().is_none());
        assert!(responses.bytes == 0 && responses.bytes_of.is_empty());
    }

    #[test]
    fn one_look_takes_out_so_many_and_the_next_follows_at_once() {
        let (mut responses, mut random) = responses();
        for _ in 0..LOOK_MAX + 1 {
            responses.insert(response(1, 100, 0), &mut random);
        }
        assert_eq!(responses.take_expired(500).len(), LOOK_MAX);
        assert_eq!(responses.look_ms(), Some(500));
        assert_eq!(responses.take_expired(500).len(), 1);
        assert_eq!(responses.look_ms(), None);
    }

    #[test]
    fn an_account_with_too_many_loses_its_own_oldest() {
        let (mut responses, mut random) = responses();
        let other = responses.insert(response(2, 100, 0), &mut random);
        let first = responses.insert(response(1, 100, 0), &mut random);
        let second = responses.insert(response(1, 50, 5), &mut random);
        let most = ACCOUNT_BYTES_MAX / response(1, 100, 0).cost();
        for _ in 2..most {
            responses.insert(response(1, 100, 9), &mut random);
        }
        assert!(responses.get(first).is_some());
        responses.insert(response(1, 100, 9), &mut random);
        assert!(responses.get(first).is_none() && responses.get(second).is_some());
        responses.insert(response(1, 100, 9), &mut random);
        assert!(responses.get(second).is_none() && responses.get(other).is_some());
        assert_eq!(responses.waiting.len(), most + 1);
    }

    #[test]
    fn all_accounts_together_have_a_bound_too() {
        let (mut responses, mut random) = responses();
        let other = responses.insert(response(9, 100, 0), &mut random);
        let most = ACCOUNT_BYTES_MAX / response(1, 100, 0).cost();
        for account in 1..=5 {
            for _ in 0..most {
                responses.insert(response(account, 100, 0), &mut random);
            }
        }
        assert!(responses.bytes <= BYTES_MAX && responses.bytes > BYTES_MAX - 1024);
        assert!(responses.get(other).is_some(), "those with the most lose some");
    }

    #[test]
    fn what_is_over_leaves_nothing() {
        let (mut responses, mut random) = responses();
        let stays = responses.insert(response(1, 100, 0), &mut random);
        for _ in 0..10_000 {
            let key = responses.insert(response(1, 100, 0), &mut random);
            assert!(responses.remove(key).is_some() && responses.remove(key).is_none());
        }
        assert!(responses.lines[&(1, 100)].keys.len() <= 2 + 1024);
        responses.retain(|_| false);
        assert!(responses.get(stays).is_none() && responses.bytes == 0);
    }
}
