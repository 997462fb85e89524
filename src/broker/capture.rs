//! What the server itself does with messages at the worker where they are: takes some, and publishes some.
//!
//! A **sink** is a subscription of the server in an account's index whose target is this worker and none of its
//! connections. What is for a sink is copied into the turn's [`Captured`] messages, which whoever owns the sinks takes at
//! the end of the turn with [`Broker::take_captured`]: streams store, answer and deliver like that. Messages that
//! are for connections meet nothing of it: the number of a sink has the bit [`SINK`], which no subscription has, so that a sink is
//! found where a subscription is missed.
//!
//! Copies are bounded by what a turn may do ([`super::publish::TURN_BYTES_MAX`]), for each counts its bytes.

use super::batch::Content;
use super::core::{Broker, Local};
use super::publish::{Delivered, Outbound};
use super::responses::REPLY_PREFIX;
use super::services::Origin;
use crate::subject::fanout::Memo;
use crate::subject::interest::{InterestAccess, Target};
use crate::subject::name::Pattern;
use crate::wire::{Payload, Publish, Widths};

/// The bit by which the numbers of sinks differ from those of subscriptions.
const SINK: u32 = 1 << 31;

/// What a captured message counts against the bound of a turn beside its bytes.
const CAPTURE_COST_BYTES: usize = 64;

/// In the place of a connection, where there is none.
const NO_CONNECTION: u32 = u32::MAX;

/// Names a sink, and is never that of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SinkId {
    /// Its slot, small numbers that are used again.
    pub slot: u32,
    generation: u32,
}

/// A sink, as the broker knows it.
#[derive(Debug)]
pub(super) struct Sink {
    account: u16,
    subject: Box<[u8]>,
    queue: Option<Box<[u8]>>,
    generation: u32,
}

/// Messages that came to sinks, in the order in which they came.
#[derive(Debug, Default)]
pub struct Captured {
    bytes: Vec<u8>,
    records: Vec<Record>,
}

#[derive(Debug)]
struct Record {
    sink: SinkId,
    /// `bytes` up to here is subject, then reply, then header block, then payload; each record starts where the one before
    /// ended.
    subject_end: u32,
    reply_end: u32,
    header_end: u32,
    payload_end: u32,
}

/// One message that came to a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapturedMessage<'a> {
    /// The sink.
    pub sink: SinkId,
    /// Its subject.
    pub subject: &'a [u8],
    /// Where to answer.
    pub reply: Option<&'a [u8]>,
    /// Its header block, empty if there is none.
    pub header: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
}

/// A message that the server publishes at this worker.
#[derive(Debug, Clone, Copy)]
pub struct Issued<'a> {
    /// Slot of the account.
    pub account: u16,
    /// Whom it reaches.
    pub to: &'a [u8],
    /// The subject by which they get it; `None`: the same.
    pub shown: Option<&'a [u8]>,
    /// Where to answer.
    pub reply: Option<&'a [u8]>,
    /// Length of the header block at the start of `content`.
    pub header_len: Option<usize>,
    /// Header block, payload, CR LF.
    pub content: Content<'a>,
}

impl Captured {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Forgets them, keeping memory unless that has grown beyond reason.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
        self.bytes.shrink_to(2 * super::publish::TURN_BYTES_MAX);
        self.records.shrink_to(2 * super::publish::TURN_BYTES_MAX / CAPTURE_COST_BYTES);
    }

    /// The messages, in order.
    pub fn iter(&self) -> impl Iterator<Item = CapturedMessage<'_>> {
        let mut at = 0;
        self.records.iter().map(move |record| {
            let mut part = |end: u32| {
                let part = &self.bytes[at..end as usize];
                at = end as usize;
                part
            };
            let subject = part(record.subject_end);
            let reply = part(record.reply_end);
            let header = part(record.header_end);
            let payload = part(record.payload_end);
            let reply = (!reply.is_empty()).then_some(reply);
            CapturedMessage { sink: record.sink, subject, reply, header, payload }
        })
    }

    fn push(&mut self, sink: SinkId, message: &Outbound<'_>) {
        let mut part = |bytes: &[u8]| {
            self.bytes.extend_from_slice(bytes);
            self.bytes.len() as u32
        };
        let content = message.content.with_crlf();
        let content = &content[..content.len() - 2];
        let (header, payload) = content.split_at(message.header_len.unwrap_or(0));
        let record = Record {
            sink,
            subject_end: part(message.subject),
            reply_end: part(message.reply.unwrap_or_default()),
            header_end: part(header),
            payload_end: part(payload),
        };
        self.records.push(record);
    }
}

impl<A: InterestAccess> Broker<A> {
    /// Makes a sink for what is published in an account, and what that imports. With `queue`: one that shares with others of that group.
    ///
    /// # Panics
    ///
    /// If the subject is not a pattern.
    pub fn open_sink(&mut self, account: u16, subject: &[u8], queue: Option<&[u8]>) -> SinkId {
        let pattern = Pattern::parse(subject).expect("subjects of sinks have been checked");
        let generation = self.next_generation();
        let sink = Sink { account, subject: subject.into(), queue: queue.map(Box::from), generation };
        let slot = self.local.sinks.insert(sink) as u32;
        let id = SinkId { slot, generation };
        let target = self.sink_target(id);
        self.accounts[usize::from(account)]
            .interest
            .write(|interest| interest.subscribe_internal(pattern, queue, target));
        self.renew_shadows_of_sink(slot);
        id
    }

    /// Makes what a sink has in the indexes of other accounts what the imports of its own ask for.
    fn renew_shadows_of_sink(&mut self, slot: u32) {
        let Some(sink) = self.local.sinks.get(slot as usize) else { return };
        let accounts = self.settings.directory.accounts();
        let imports = match usize::from(sink.account) < accounts.slots() {
            true => &accounts.get(sink.account).streams[..],
            false => &[],
        };
        if imports.is_empty() && !self.local.shadows.contains_key(&(slot | SINK)) {
            return;
        }
        let (imports, subject, queue) = (imports.to_vec(), sink.subject.clone(), sink.queue.clone());
        let target = self.sink_target(SinkId { slot, generation: sink.generation });
        let pattern = Pattern::parse(&subject).expect("was one when it was opened");
        self.exchange_shadows_of(target, pattern, queue.as_deref(), &imports, None);
    }

    /// After a reload.
    pub(super) fn renew_all_shadows_of_sinks(&mut self) {
        let slots: Vec<usize> = self.local.sinks.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.renew_shadows_of_sink(slot as u32);
        }
    }

    /// Ends a sink. What is on its way to it reaches nobody.
    pub fn close_sink(&mut self, id: SinkId) {
        if self.local.sinks.get(id.slot as usize).is_none_or(|sink| sink.generation != id.generation) {
            return;
        }
        let target = self.sink_target(id);
        let sink = self.local.sinks.remove(id.slot as usize);
        let pattern = Pattern::parse(&sink.subject).expect("was one when it was opened");
        let queue = sink.queue.as_deref();
        let found = self.accounts[usize::from(sink.account)]
            .interest
            .write(|interest| interest.unsubscribe_internal(pattern, queue, target));
        assert!(found, "the index has every open sink");
        self.remove_shadows_of(target, queue);
    }

    fn sink_target(&self, id: SinkId) -> Target {
        Target {
            worker: self.worker,
            import: 0,
            conn: NO_CONNECTION,
            sub: id.slot | SINK,
            generation: id.generation,
        }
    }

    /// Whether something has come to sinks.
    pub fn has_captured(&self) -> bool {
        !self.local.captured.is_empty()
    }

    /// What has come to sinks since the last call. The next ones go into `spare`.
    pub fn take_captured(&mut self, spare: Captured) -> Captured {
        debug_assert!(spare.is_empty());
        std::mem::replace(&mut self.local.captured, spare)
    }

    /// Publishes a message of the server. Whether it reaches anybody, as far as is known here.
    pub fn issue(&mut self, issued: &Issued<'_>) -> bool {
        let publish = Publish {
            args: b"",
            subject: issued.to,
            reply: issued.reply,
            header_len: issued.header_len,
            payload: match issued.content {
                Content::Borrowed(bytes) => Payload::Borrowed(bytes),
                Content::Shared(bytes) => Payload::Shared(bytes.clone()),
            },
            widths: Widths::default(),
        };
        let Issued { account, shown, .. } = *issued;
        let reached = self.route(account, &publish, shown, false, &mut Vec::new(), &mut Origin::default());
        if !self.local.exhausted.is_empty() {
            self.remove_exhausted();
        }
        reached.delivered
    }

    /// Whether a message on this subject would reach anybody; with `group` not empty, a member of that queue group.
    pub fn has_interest(&mut self, account: u16, subject: &[u8], group: &[u8]) -> bool {
        if subject.starts_with(REPLY_PREFIX) {
            // Of somebody in another account, of whom the index does not know.
            return true;
        }
        let Some(account) = self.accounts.get_mut(usize::from(account)) else { return false };
        let mut memo = Memo::default();
        let fanout = account.cache.find(subject, &mut memo, &account.interest);
        if group.is_empty() {
            !fanout.is_empty()
        } else {
            let elsewhere = fanout.links.iter().flat_map(|links| &links.route_groups);
            fanout.groups.iter().any(|known| *known.name == *group)
                || elsewhere.into_iter().any(|known| *known.name == *group)
        }
    }

    /// Whether somebody subscribes to exactly this subject of an account: inboxes of whole clients do not count.
    pub fn has_exact_interest(&self, account: u16, subject: &[u8]) -> bool {
        if subject.starts_with(REPLY_PREFIX) {
            return true;
        }
        let Some(account) = self.accounts.get(usize::from(account)) else { return false };
        let Ok(pattern) = Pattern::parse(subject) else { return false };
        account.interest.read(|interest| interest.has_exact(pattern))
    }
}

impl Local {
    /// Takes a message for the sink that `target` names.
    #[inline(never)]
    pub(super) fn capture(&mut self, target: Target, message: &Outbound<'_>) -> Delivered {
        if target.sub & SINK == 0 {
            return Delivered::Gone;
        }
        let id = SinkId { slot: target.sub & !SINK, generation: target.generation };
        if self.sinks.get(id.slot as usize).is_none_or(|sink| sink.generation != id.generation) {
            return Delivered::Gone;
        }
        self.captured.push(id, message);
        self.turn_bytes += CAPTURE_COST_BYTES + message.content.with_crlf().len();
        Delivered::Yes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::{Input, Settings};
    use crate::subject::interest::LocalInterest;
    use crate::wire::info::Info;

    fn broker(worker: u16, index: &LocalInterest) -> (Broker<LocalInterest>, u32) {
        let info = Info::new("ID".into(), "test".into(), "0.0.0.0".into(), 4222);
        let settings = Arc::new(Settings { headers: true, ..Settings::default() });
        let mut broker = Broker::new(worker, 2, settings, info, vec![index.clone()], 1);
        let conn = broker.open(1, "127.0.0.1:1".parse().unwrap());
        let connect =
            b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n";
        assert_eq!(broker.handle_bytes(conn, connect), Input::Taken);
        (broker, conn)
    }

    fn output(broker: &Broker<LocalInterest>, conn: u32) -> String {
        let bytes: Vec<u8> = broker.unsent(conn, 64).flat_map(|slice| slice.to_vec()).collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_sink_gets_what_matches_it_and_is_somebody_for_a_request() {
        let index = LocalInterest::default();
        let (mut broker, conn) = broker(0, &index);
        let sink = broker.open_sink(0, b"orders.>", None);
        broker.handle_bytes(
            conn,
            b"SUB r.* 1\r\nPUB orders.1 r.1 2\r\nhi\r\nPUB other 1\r\nx\r\nHPUB orders.2 12 14\r\nNATS/1.0\r\n\r\nho\r\n",
        );
        let captured = broker.take_captured(Captured::default());
        let expected = [
            CapturedMessage { sink, subject: b"orders.1", reply: Some(b"r.1"), header: b"", payload: b"hi" },
            CapturedMessage {
                sink,
                subject: b"orders.2",
                reply: None,
                header: b"NATS/1.0\r\n\r\n",
                payload: b"ho",
            },
        ];
        assert_eq!(captured.iter().collect::<Vec<_>>(), expected);
        assert!(!output(&broker, conn).contains("503"), "somebody was there");
        broker.close_sink(sink);
        broker.handle_bytes(conn, b"PUB orders.1 r.1 2\r\nhi\r\n");
        assert!(!broker.has_captured());
        assert!(output(&broker, conn).contains("503"), "nobody is there any more");
    }

    #[test]
    fn messages_from_other_workers_come_to_sinks_too_and_go_astray_when_they_have_ended() {
        let index = LocalInterest::default();
        let (mut publisher, conn) = broker(0, &index);
        let (mut owner, _) = broker(1, &index);
        let sink = owner.open_sink(0, b"a", None);
        publisher.handle_bytes(conn, b"SUB r 1\r\nPUB a r 2\r\nhi\r\n");
        owner.handle_batch(0, &publisher.poll_batch(1).unwrap());
        assert_eq!(owner.take_captured(Captured::default()).iter().count(), 1);
        publisher.handle_bytes(conn, b"PUB a r 2\r\nhi\r\n");
        owner.close_sink(sink);
        let reused = owner.open_sink(0, b"b", None);
        assert_eq!(reused.slot, sink.slot);
        owner.handle_batch(0, &publisher.poll_batch(1).unwrap());
        assert!(!owner.has_captured());
        publisher.handle_batch(1, &owner.poll_batch(0).unwrap());
        assert!(output(&publisher, conn).contains("503"));
    }

    #[test]
    fn what_the_server_publishes_is_shown_by_another_subject_where_that_is_wanted() {
        let index = LocalInterest::default();
        let (mut broker, conn) = broker(0, &index);
        broker.handle_bytes(conn, b"SUB inbox.* 7\r\nSUB work q 8\r\n");
        let content = Content::Borrowed(b"hello\r\n");
        let issued =
            Issued { account: 0, to: b"inbox.1", shown: None, reply: None, header_len: None, content };
        assert!(broker.issue(&issued));
        assert!(broker.issue(&Issued { shown: Some(b"orders.1"), reply: Some(b"ack"), ..issued }));
        assert!(broker.issue(&Issued { to: b"work", shown: Some(b"orders.2"), ..issued }));
        assert!(!broker.issue(&Issued { to: b"nobody", ..issued }));
        let output = output(&broker, conn);
        let expected =
            "MSG inbox.1 7 5\r\nhello\r\nMSG orders.1 7 ack 5\r\nhello\r\nMSG orders.2 8 5\r\nhello\r\n";
        assert!(output.ends_with(expected), "{output}");
    }
}
