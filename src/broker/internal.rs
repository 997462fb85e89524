//! The server's own client: what subscribes and publishes in any account from inside the server, beside the workers.
//!
//! To the workers it is one more worker, without connections: its subscriptions stand in the index like all others,
//! so that a request to the server is an ordinary publish, whose record goes into the batch for it. What it publishes
//! is handed to the workers as ordinary records. So nothing of it is seen by messages that are not for it.
//!
//! Sans-IO: batches come in with [`InternalClient::handle_batch`] and go out through [`Outlets`]. Who is to get a
//! message is found and handed over in one hold of the account's index, because of connections that move: a worker
//! looks at the queue of this client before those of the other workers, and so gets what is aimed at a connection's
//! old place before it hears that the connection has arrived at the new one ([`super::relocation`]).
//!
//! What has been published and cannot be handed over yet waits, up to [`WAITING_BYTES_MAX`]; beyond, it is dropped and
//! counted. With `trace_verbose` what it says in the system account, and all that it publishes, is in the log, as of the
//! reference's `SYSTEM` client. It does not get what it publishes itself, and it takes what comes in no particular order among
//! the workers.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::Bytes;
use slab::Slab;

use super::batch::{Batch, Content, Entry, Message, To};
use super::core::Traced;
use super::log_lines::{Level, LogLines};
use super::notice::Notice;
use super::responses::ReplyCodes;
use super::routes::RouteScratch;
use super::settings::Settings;
use crate::subject::fanout::TargetList;
use crate::subject::interest::{Group, HERE_ONLY, InterestAccess, Matches, Target, WorkerId, shown_as};
use crate::subject::name::Pattern;
use crate::wire::Widths;

/// Bytes of messages that wait to be handed to the workers.
pub const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a waiting message counts beside its bytes.
const MESSAGE_COST_BYTES: usize = 256;

/// Contents longer than this are shared by the records for all workers.
const SHARED_FROM_BYTES: usize = 8 * 1024;

/// Batches that a worker's queue must have room for: a message goes into one, and may fill the one before.
const ROOM_MIN: usize = 2;

/// See the head of this file. `A` is how it reaches the index of an account.
pub struct InternalClient<A> {
    /// Its number, behind that of the last worker.
    worker: WorkerId,
    accounts: Vec<A>,
    subscriptions: Slab<InternalSubscription>,
    generation: u32,
    waiting: VecDeque<InternalMessage>,
    waiting_bytes: usize,
    dropped: u64,
    batches: Vec<Batch>,
    matches: Matches,
    random: fastrand::Rng,
    trace: Option<Trace>,
    log: LogLines,
}

/// What of it is in the log.
#[derive(Debug)]
struct Trace {
    /// Slot of the system account.
    system: Option<u16>,
    traced: Traced,
}

/// Names a subscription of this client, and is never that of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubscriptionId {
    slot: u32,
    generation: u32,
}

/// One of its subscriptions.
#[derive(Debug)]
pub struct InternalSubscription {
    /// Slot of the account.
    pub account: u16,
    /// The pattern.
    pub subject: Box<[u8]>,
    /// The queue group.
    pub queue: Option<Box<[u8]>>,
    /// What stands in its target in the place of a connection.
    conn: u32,
    /// Tells it from earlier ones, and in which order they came.
    pub generation: u32,
    /// Messages that came to it.
    pub received: u64,
}

/// A message to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalMessage {
    /// Slot of the account.
    pub account: u16,
    /// Where to.
    pub subject: Vec<u8>,
    /// Where to answer.
    pub reply: Option<Vec<u8>>,
    /// Length of the header block at the start of `content`; `None` if there is none.
    pub header_len: Option<usize>,
    /// Header block, payload, CR LF.
    pub content: Bytes,
}

impl InternalMessage {
    /// A message without header block and reply.
    pub fn new(account: u16, subject: impl Into<Vec<u8>>, payload: &[u8]) -> InternalMessage {
        InternalMessage::with_header(account, subject, b"", payload)
    }

    /// A message with a header block, if `header` is not empty.
    pub fn with_header(
        account: u16,
        subject: impl Into<Vec<u8>>,
        header: &[u8],
        payload: &[u8],
    ) -> InternalMessage {
        let mut content = Vec::with_capacity(header.len() + payload.len() + 2);
        content.extend_from_slice(header);
        content.extend_from_slice(payload);
        content.extend_from_slice(b"\r\n");
        InternalMessage {
            account,
            subject: subject.into(),
            reply: None,
            header_len: (!header.is_empty()).then_some(header.len()),
            content: content.into(),
        }
    }

    fn cost(&self) -> usize {
        self.content.len() + self.subject.len() + MESSAGE_COST_BYTES
    }
}

/// What has come for it.
#[derive(Debug)]
pub enum Arrival<'a> {
    /// A message on one of its subscriptions.
    Message(Received<'a>),
    /// Something has happened.
    Notice(Box<Notice>),
}

/// A message on one of its subscriptions.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Slot of the account in which it was published.
    pub account: u16,
    /// The subject as published.
    pub subject: &'a [u8],
    /// Where to answer.
    pub reply: Option<&'a [u8]>,
    /// The header block, empty if there is none.
    pub header: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    /// Who has published it, if it was a connection.
    pub publisher: Option<Publisher>,
}

/// A connection, where it was when it published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publisher {
    /// Its worker.
    pub worker: WorkerId,
    /// Its slot there.
    pub conn: u32,
    /// Its number.
    pub cid: u64,
}

/// The queues to the workers.
pub trait Outlets {
    /// Batches that worker `to` can be given now.
    fn room(&self, to: WorkerId) -> usize;
    /// An empty batch, one that has come back from worker `to` if there is any.
    fn spare(&mut self, to: WorkerId) -> Batch;
    /// Gives a batch to worker `to`. There is room.
    fn give(&mut self, to: WorkerId, batch: Batch);
}

impl<A: InterestAccess> InternalClient<A> {
    /// The client beside `workers` workers. `accounts` holds the index of each account by slot.
    pub fn new(workers: usize, accounts: Vec<A>, seed: u64) -> InternalClient<A> {
        InternalClient {
            worker: workers as WorkerId,
            accounts,
            subscriptions: Slab::new(),
            generation: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            dropped: 0,
            batches: (0..workers).map(|_| Batch::default()).collect(),
            matches: Matches::default(),
            random: fastrand::Rng::with_seed(seed),
            trace: None,
            log: LogLines::default(),
        }
    }

    /// Goes by settings, for what of it is in the log.
    pub fn apply_settings(&mut self, settings: &Settings) {
        let system = settings.directory.accounts().iter().find(|account| account.is_system);
        self.trace = settings
            .trace_verbose
            .then(|| Trace { system: system.map(|account| account.slot), traced: Traced::new(settings) });
    }

    /// Lines for the log since the last call, if there are any.
    pub fn take_log(&mut self) -> Option<LogLines> {
        (!self.log.is_empty()).then(|| std::mem::take(&mut self.log))
    }

    /// Adds the index of an account that there has not been before.
    pub fn add_account(&mut self, interest: A) {
        self.accounts.push(interest);
    }

    /// Accounts that it knows.
    pub fn account_count(&self) -> usize {
        self.accounts.len()
    }

    /// Subscribes in an account.
    ///
    /// # Panics
    ///
    /// If the subject is not a pattern: they are the server's own.
    pub fn subscribe(&mut self, account: u16, subject: &[u8], queue: Option<&[u8]>) -> SubscriptionId {
        self.subscribe_as(account, subject, queue, 0)
    }

    /// Subscribes in an account for the clients of this server: other servers are not told.
    ///
    /// # Panics
    ///
    /// As there.
    pub fn subscribe_here(&mut self, account: u16, subject: &[u8]) -> SubscriptionId {
        self.subscribe_as(account, subject, None, HERE_ONLY)
    }

    fn subscribe_as(
        &mut self,
        account: u16,
        subject: &[u8],
        queue: Option<&[u8]>,
        conn: u32,
    ) -> SubscriptionId {
        let pattern = Pattern::parse(subject).expect("the server's own subjects are patterns");
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let slot = self.subscriptions.insert(InternalSubscription {
            account,
            subject: subject.into(),
            queue: queue.map(Into::into),
            conn,
            generation,
            received: 0,
        }) as u32;
        let id = SubscriptionId { slot, generation };
        let target = self.target(id);
        self.accounts[usize::from(account)]
            .write(|interest| interest.subscribe_internal(pattern, queue, target));
        if self.trace.as_ref().is_some_and(|trace| trace.system == Some(account)) {
            let (subject, queue) = (text(subject), text(queue.unwrap_or_default()));
            self.log.push(Level::Trace, format_args!("SYSTEM - <<- [SUB {subject} {queue} {generation}]"));
        }
        id
    }

    /// Ends a subscription. What is on its way to it is not seen any more.
    pub fn unsubscribe(&mut self, id: SubscriptionId) {
        if self.subscription(id).is_none() {
            return;
        }
        let target = self.target(id);
        let InternalSubscription { account, subject, queue, .. } =
            self.subscriptions.remove(id.slot as usize);
        let pattern = Pattern::parse(&subject).expect("was one when it was subscribed");
        let found = self.accounts[usize::from(account)]
            .write(|interest| interest.unsubscribe_internal(pattern, queue.as_deref(), target));
        assert!(found, "the index has every live subscription");
    }

    /// A subscription, if it has not been ended.
    pub fn subscription(&self, id: SubscriptionId) -> Option<&InternalSubscription> {
        self.subscriptions.get(id.slot as usize).filter(|found| found.generation == id.generation)
    }

    /// All its subscriptions.
    pub fn subscriptions(&self) -> impl Iterator<Item = &InternalSubscription> {
        self.subscriptions.iter().map(|(_, subscription)| subscription)
    }

    fn target(&self, id: SubscriptionId) -> Target {
        let conn = self.subscriptions[id.slot as usize].conn;
        Target { worker: self.worker, import: 0, conn, sub: id.slot, generation: id.generation }
    }

    /// Whether a message on this subject would reach anybody but this client itself.
    pub fn has_listener(&mut self, account: u16, subject: &[u8]) -> bool {
        let Some(interest) = self.accounts.get(usize::from(account)) else { return false };
        if ReplyCodes::read(subject).is_some() {
            // Whether somebody in another account does is for a worker to say.
            return true;
        }
        let (own, matches) = (self.worker, &mut self.matches);
        interest.read(|interest| {
            interest.has_clients() && {
                interest.collect(subject, matches);
                matches.plain.iter().any(|target| target.worker != own)
                    || matches
                        .groups
                        .iter()
                        .flat_map(|group| &group.members)
                        .any(|target| target.worker != own)
                    || !matches.routes.is_empty()
                    || !matches.route_groups.is_empty()
            }
        })
    }

    /// Publishes a message: it goes out with [`InternalClient::hand_over`]. What is too much is dropped.
    pub fn publish(&mut self, message: InternalMessage) {
        if self.waiting_bytes + message.cost() > WAITING_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        if let Some(trace) = &self.trace {
            trace.show(&message, &mut self.log);
        }
        self.waiting_bytes += message.cost();
        self.waiting.push_back(message);
    }

    /// Messages that were dropped since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Hands what has been published to the workers, as far as all of them have room. Whether something is left.
    pub fn hand_over(&mut self, outlets: &mut impl Outlets) -> bool {
        let InternalClient { worker, accounts, waiting, waiting_bytes, batches, matches, random, .. } = self;
        while let Some(account) = waiting.front().map(|message| message.account) {
            if !has_room(outlets, *worker) {
                return true;
            }
            accounts[usize::from(account)].read(|interest| {
                while has_room(outlets, *worker)
                    && waiting.front().is_some_and(|message| message.account == account)
                    && let Some(message) = waiting.pop_front()
                {
                    *waiting_bytes -= message.cost();
                    interest.collect(&message.subject, matches);
                    message.add_to(batches, matches, *worker, random);
                    for (to, batch) in (0..).zip(batches.iter_mut()).filter(|(_, batch)| batch.is_full()) {
                        give(outlets, to, batch);
                    }
                }
                // Still within the hold: see the head of this file.
                for (to, batch) in (0..).zip(batches.iter_mut()).filter(|(_, batch)| !batch.is_empty()) {
                    give(outlets, to, batch);
                }
            });
        }
        false
    }

    /// Takes a batch from a worker. `each` gets what is in it, in order.
    pub fn handle_batch(&mut self, from: WorkerId, batch: &Batch, mut each: impl FnMut(Arrival<'_>)) {
        batch.for_each(|entry| match entry {
            Entry::Message(message) => {
                for target in message.targets {
                    let id = SubscriptionId { slot: target.sub, generation: target.generation };
                    let found = self.subscriptions.get_mut(target.sub as usize);
                    // One that has ended meanwhile gets nothing; who asks there waits in vain.
                    let Some(found) = found.filter(|found| found.generation == id.generation) else {
                        continue;
                    };
                    found.received += 1;
                    each(Arrival::Message(Received::of(id, from, &message)));
                }
            }
            Entry::Notice(notice) => each(Arrival::Notice(notice)),
            Entry::Congestion { .. } | Entry::Undelivered { .. } | Entry::Parcel(_) | Entry::Move(..) => {
                unreachable!("those are between workers")
            }
        });
    }
}

fn has_room(outlets: &impl Outlets, workers: WorkerId) -> bool {
    (0..workers).all(|to| outlets.room(to) >= ROOM_MIN)
}

fn give(outlets: &mut impl Outlets, to: WorkerId, batch: &mut Batch) {
    let spare = outlets.spare(to);
    outlets.give(to, std::mem::replace(batch, spare));
}

impl InternalMessage {
    /// Puts it into the batches of the workers that have somebody for it.
    fn add_to(
        &self,
        batches: &mut [Batch],
        matches: &mut Matches,
        own: WorkerId,
        random: &mut fastrand::Rng,
    ) {
        let message = Message {
            account: self.account,
            subject: &self.subject,
            shown: None,
            reply: self.reply.as_deref(),
            header_len: self.header_len,
            content: if self.content.len() > SHARED_FROM_BYTES {
                Content::Shared(&self.content)
            } else {
                Content::Borrowed(&self.content)
            },
            widths: Widths::default(),
            targets: &[],
            queue: None,
            forwarded: false,
            stays: false,
            is_answer: false,
            is_route: false,
            requester: None,
        };
        if let Some(codes) = ReplyCodes::read(&self.subject)
            && let Some(batch) = batches.get_mut(codes.worker())
        {
            // The worker knows whom it is for.
            batch.push(message, To::Answer);
        }
        matches.plain.sort_unstable_by_key(|target| (target.worker, target.import, *target));
        let runs = matches.plain.chunk_by(|a, b| (a.worker, a.import) == (b.worker, b.import));
        for run in runs.filter(|run| run[0].worker != own) {
            let message = Message { shown: shown_as(&matches.shown, run[0].import), ..message };
            let batch = &mut batches[usize::from(run[0].worker)];
            match run {
                [target] => batch.push(message, To::One(*target)),
                run => batch.push(message, To::Plain(&TargetList::Long(run.into()))),
            }
        }
        let mut scratch = RouteScratch::default();
        if !matches.routes.is_empty() || !matches.route_groups.is_empty() {
            scratch.assign(&matches.routes, &matches.route_groups, random);
            for (route, names) in scratch.parts() {
                batches[usize::from(route.worker)].push(message, To::Route(names, route));
            }
        }
        let is_here = |group: &&Group| !scratch.serves_elsewhere(&matches.route_groups, &group.name);
        for group in matches.groups.iter().filter(is_here) {
            let others = group.members.iter().filter(|member| member.worker != own);
            let count = others.clone().count();
            let Some(member) =
                (count > 0).then(|| random.usize(..count)).and_then(|at| others.clone().nth(at))
            else {
                continue;
            };
            let message = Message { shown: shown_as(&matches.shown, member.import), ..message };
            batches[usize::from(member.worker)].push(message, To::Member(&group.name, *member));
        }
    }
}

impl<'a> Received<'a> {
    fn of(subscription: SubscriptionId, from: WorkerId, message: &Message<'a>) -> Received<'a> {
        let content = message.content.with_crlf();
        let content = content.strip_suffix(b"\r\n").unwrap_or(content);
        let (header, payload) = content.split_at(message.header_len.unwrap_or(0));
        Received {
            subscription,
            account: message.account,
            subject: message.subject,
            reply: message.reply,
            header,
            payload,
            publisher: message.requester.map(|(conn, cid)| Publisher { worker: from, conn, cid }),
        }
    }
}

impl Trace {
    /// A message that is published, in the reference's words.
    #[cold]
    fn show(&self, message: &InternalMessage, log: &mut LogLines) {
        let InternalMessage { subject, reply, header_len, content, .. } = message;
        let content = &content[..content.len() - 2];
        let (subject, reply) = (text(subject), text(reply.as_deref().unwrap_or_default()));
        log.push(Level::Trace, format_args!("SYSTEM - <<- [PUB {subject} {reply} {}]", content.len()));
        if let Some(shown) = self.traced.shown(*header_len, content) {
            log.push(Level::Trace, format_args!("SYSTEM - <<- MSG_PAYLOAD: [{shown}]"));
        }
    }
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::{Broker, Input, Settings};
    use crate::subject::interest::LocalInterest;
    use crate::wire::info::Info;

    const WORKERS: usize = 2;

    /// Workers, the client beside them, and the queues from it.
    struct World {
        brokers: Vec<Broker<LocalInterest>>,
        client: InternalClient<LocalInterest>,
        queues: Queues,
    }

    struct Queues {
        queued: Vec<VecDeque<Batch>>,
        room: usize,
    }

    impl Outlets for Queues {
        fn room(&self, to: WorkerId) -> usize {
            self.room - self.queued[usize::from(to)].len()
        }

        fn spare(&mut self, _: WorkerId) -> Batch {
            Batch::default()
        }

        fn give(&mut self, to: WorkerId, batch: Batch) {
            assert!(self.room(to) > 0);
            self.queued[usize::from(to)].push_back(batch);
        }
    }

    impl World {
        /// With a connection at each worker, which is asked for its headers.
        fn new() -> World {
            let index = LocalInterest::default();
            let mut brokers: Vec<_> = (0..WORKERS as u16)
                .map(|worker| {
                    let info = Info::new("ID".into(), "test".into(), "0.0.0.0".into(), 4222);
                    Broker::new(worker, WORKERS, Arc::new(Settings::default()), info, vec![index.clone()], 1)
                })
                .collect();
            for (broker, cid) in brokers.iter_mut().zip(1..) {
                let conn = broker.open(cid, "127.0.0.1:1".parse().unwrap());
                assert_eq!(conn, 0);
                let hello = "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n";
                assert_eq!(broker.handle_bytes(0, hello.as_bytes()), Input::Taken);
            }
            let client = InternalClient::new(WORKERS, vec![index], 1);
            let queues = Queues { queued: (0..WORKERS).map(|_| VecDeque::new()).collect(), room: 64 };
            let mut world = World { brokers, client, queues };
            world.output(0);
            world.output(1);
            world
        }

        fn say(&mut self, worker: usize, text: &str) {
            assert_eq!(self.brokers[worker].handle_bytes(0, text.as_bytes()), Input::Taken);
        }

        /// What has come for the client.
        fn arrivals(&mut self) -> Vec<String> {
            let mut seen = Vec::new();
            for worker in 0..WORKERS as u16 {
                while let Some(batch) = self.brokers[usize::from(worker)].poll_batch(WORKERS as u16) {
                    self.client.handle_batch(worker, &batch, |arrival| match arrival {
                        Arrival::Message(message) => {
                            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                            let publisher = message.publisher.map(|publisher| publisher.cid);
                            seen.push(format!(
                                "{} {} {:?} {:?} {publisher:?}",
                                text(message.subject),
                                text(message.reply.unwrap_or_default()),
                                text(message.header),
                                text(message.payload),
                            ));
                        }
                        Arrival::Notice(notice) => seen.push(format!("{notice:?}")),
                    });
                }
            }
            seen
        }

        /// Hands over what the client has published, and has the workers take it. Whether something is left.
        fn hand_over(&mut self) -> bool {
            let left = self.client.hand_over(&mut self.queues);
            for (broker, queue) in self.brokers.iter_mut().zip(&mut self.queues.queued) {
                while let Some(batch) = queue.pop_front() {
                    broker.handle_batch(WORKERS as u16, &batch);
                }
            }
            left
        }

        /// What the connection of a worker gets.
        fn output(&mut self, worker: usize) -> String {
            self.output_of(worker, 0)
        }

        fn output_of(&mut self, worker: usize, conn: u32) -> String {
            let broker = &mut self.brokers[worker];
            let mut output = Vec::new();
            while broker.pending_bytes(conn) > 0 {
                let bytes: Vec<u8> = broker.unsent(conn, usize::MAX).flatten().copied().collect();
                broker.handle_sent(conn, bytes.len());
                output.extend(bytes);
            }
            String::from_utf8(output).unwrap()
        }
    }

    #[test]
    fn what_is_published_to_it_comes_with_who_has_published_it() {
        let mut world = World::new();
        world.client.subscribe(0, b"$SYS.REQ.>", None);
        world.say(
            1,
            "PUB $SYS.REQ.a r 2\r\nhi\r\nHPUB $SYS.REQ.b 12 13\r\nNATS/1.0\r\n\r\nx\r\nPUB other 0\r\n\r\n",
        );
        assert_eq!(
            world.arrivals(),
            ["$SYS.REQ.a r \"\" \"hi\" Some(2)", "$SYS.REQ.b  \"NATS/1.0\\r\\n\\r\\n\" \"x\" Some(2)"]
        );
        assert_eq!(world.client.subscriptions().next().map(|subscription| subscription.received), Some(2));
    }

    #[test]
    fn a_request_is_answered_and_one_that_nobody_answers_fails() {
        let mut world = World::new();
        let id = world.client.subscribe(0, b"service", None);
        world.say(0, "SUB r 1\r\nPUB service r 0\r\n\r\n");
        assert_eq!(world.arrivals().len(), 1);
        world.client.publish(InternalMessage::with_header(0, "r", b"NATS/1.0\r\n\r\n", b"yes"));
        assert!(!world.hand_over());
        assert_eq!(world.output(0), "HMSG r 1 12 15\r\nNATS/1.0\r\n\r\nyes\r\n");
        world.client.unsubscribe(id);
        world.say(0, "PUB service r 0\r\n\r\n");
        assert!(world.arrivals().is_empty());
        assert!(world.output(0).contains("NATS/1.0 503"));
    }

    #[test]
    fn a_message_goes_to_all_subscribers_and_to_one_of_a_group_and_never_back() {
        let mut world = World::new();
        world.client.subscribe(0, b"a.*", None);
        world.client.subscribe(0, b"a.*", Some(b"q"));
        world.say(0, "SUB a.b 1\r\nSUB a.> 2\r\nSUB a.b q 3\r\n");
        world.say(1, "SUB a.b 1\r\nSUB a.b q 3\r\n");
        for _ in 0..20 {
            world.client.publish(InternalMessage::new(0, "a.b", b"x"));
        }
        assert!(!world.hand_over() && world.arrivals().is_empty());
        let got = [world.output(0), world.output(1)];
        let count = |at: usize, sid: &str| got[at].matches(&format!("MSG a.b {sid} 1\r\n")).count();
        assert_eq!([count(0, "1"), count(0, "2"), count(1, "1")], [20, 20, 20]);
        assert_eq!(count(0, "3") + count(1, "3"), 20);
    }

    #[test]
    fn what_the_workers_have_no_room_for_waits_in_order_up_to_a_bound() {
        let mut world = World::new();
        world.say(1, "SUB a 1\r\n");
        world.queues.room = 1;
        let payload = vec![b'x'; 1024 * 1024];
        for _ in 0..WAITING_BYTES_MAX / payload.len() {
            world.client.publish(InternalMessage::new(0, "a", &payload));
        }
        world.client.publish(InternalMessage::new(0, "a", b"last"));
        assert!(world.hand_over());
        assert!(world.client.take_dropped() > 0 && world.client.take_dropped() == 0);
        world.queues.room = ROOM_MIN;
        let (mut left, mut output) = (true, String::new());
        while left {
            left = world.hand_over();
            output = world.output(1);
        }
        assert!(output.ends_with("\r\nlast\r\n"));
    }

    #[test]
    fn it_knows_whether_somebody_else_listens() {
        let mut world = World::new();
        world.client.subscribe(0, b">", None);
        assert!(!world.client.has_listener(0, b"a") && !world.client.has_listener(7, b"a"));
        world.say(0, "SUB b 1\r\n");
        assert!(!world.client.has_listener(0, b"a") && world.client.has_listener(0, b"b"));
        world.say(1, "SUB * q 1\r\n");
        assert!(world.client.has_listener(0, b"a"));
    }

    #[test]
    fn a_subscription_that_took_the_place_of_another_does_not_get_its_messages() {
        let mut world = World::new();
        let first = world.client.subscribe(0, b"a", None);
        world.say(0, "PUB a 0\r\n\r\n");
        world.client.unsubscribe(first);
        let second = world.client.subscribe(0, b"b", None);
        assert!(world.client.subscription(first).is_none() && world.client.subscription(second).is_some());
        assert!(world.arrivals().is_empty());
        world.client.unsubscribe(first);
        assert!(world.client.subscription(second).is_some());
    }
    #[test]
    fn what_is_aimed_at_the_old_place_of_a_connection_that_moves_arrives_and_stays_first() {
        let mut world = World::new();
        world.say(0, "SUB a 1\r\n");
        world.client.publish(InternalMessage::new(0, "a", b"1"));
        assert!(!world.client.hand_over(&mut world.queues));
        world.brokers[0].depart(0, 1);
        let parcel = world.brokers[0].poll_batch(1).expect("the connection");
        world.brokers[1].handle_batch(0, &parcel);
        let arrived = world.brokers[1].poll_batch(0).expect("word of its arrival");
        world.client.publish(InternalMessage::new(0, "a", b"2"));
        // Each worker looks at the queue of this client first: the old one does before it hears of the arrival.
        assert!(!world.hand_over());
        world.brokers[0].handle_batch(1, &arrived);
        let settled =
            world.brokers[0].poll_batch(1).expect("what was sent after it, and that it has settled");
        world.brokers[1].handle_batch(0, &settled);
        let conn = world.brokers[1].poll_settled().expect("it has settled");
        assert_eq!(world.output_of(1, conn), "MSG a 1 1\r\n1\r\nMSG a 1 1\r\n2\r\n");
    }
}
