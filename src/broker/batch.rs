//! Messages on their way to another worker: everything that one turn has for it, in a few flat buffers that are
//! reused from turn to turn.
//!
//! A record refers to its batch's buffers by position, so a message costs one copy of its small parts, no allocation,
//! and none of it is touched again until the receiving worker walks the records in order.

use std::cell::RefCell;

use bytes::Bytes;

use super::notice::Notice;
use super::relocation::{MoveId, MoveStep, Parcel};
use crate::base::prefetch::prefetch;
use crate::subject::fanout::TargetList;
use crate::subject::interest::Target;
use crate::wire::{Payload, Publish, Widths};

/// A batch is sent early when its buffers reach this many bytes.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;

/// What a notice counts.
const NOTICE_COST_BYTES: usize = 1024;

/// How far ahead of the record at hand the bytes are asked for: they lie in another core's cache.
const PREFETCH_AHEAD: usize = 384;

/// What one worker has for another.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    targets: Vec<Target>,
    records: Vec<Record>,
    shared: Vec<Bytes>,
    lists: Vec<TargetList>,
    shared_bytes: usize,
    /// Targets in `lists`.
    listed: usize,
    /// Connections that move.
    parcels: Vec<RefCell<Option<Box<Parcel>>>>,
    /// What the server's own client is to make known.
    notices: Vec<RefCell<Option<Box<Notice>>>>,
    /// When the server gave it to the other worker, in microseconds of its clock. Of no interest to brokers.
    pub given_us: u64,
}

#[derive(Debug)]
enum Record {
    Message(MessageRecord),
    Congestion { conn: u32, congested: bool },
    Undelivered { conn: u32, cid: u64, subject_end: u32, reply_end: u32, account: u16 },
    Parcel { at: u32 },
    Notice { at: u32 },
    Move(MoveStep, MoveId),
}

#[derive(Debug)]
struct MessageRecord {
    /// `bytes` up to here is subject, then the subject that is shown, then reply, then queue name, then content; each
    /// record starts where the one before ended.
    subject_end: u32,
    shown_end: u32,
    reply_end: u32,
    queue_end: u32,
    content_end: u32,
    header_len: Option<u32>,
    widths: Widths,
    targets: TargetsAt,
    /// The content is in `shared`.
    is_shared: bool,
    /// The one target is at another worker, from which it has moved to the receiver.
    forwarded: bool,
    account: u16,
    stays: bool,
    is_answer: bool,
    is_route: bool,
    /// The publisher, who wants to know if nobody is there: slot and cid.
    requester: Option<(u32, u64)>,
}

#[derive(Debug)]
enum TargetsAt {
    End(u32),
    List,
}

/// Which subscriptions a message is for.
#[derive(Debug, Clone, Copy)]
pub enum To<'a> {
    /// All of these.
    Plain(&'a TargetList),
    /// One of these plain targets, without a list.
    One(Target),
    /// This member of a queue group; if it is gone, another one.
    Member(&'a [u8], Target),
    /// A plain target that has moved from the sender to the receiver, named as the sender knew it.
    Moved(Target),
    /// A member of a queue group that has moved so.
    MovedMember(&'a [u8], Target),
    /// Whoever waits for this answer in another account: the receiver knows.
    Answer,
    /// Another server, by a route of the receiver, and the names of queue groups of which it is to serve a member.
    Route(&'a [u8], Target),
}

/// A message from another worker.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Slot of the account.
    pub account: u16,
    /// The subject as published.
    pub subject: &'a [u8],
    /// The subject by which the targets get it, if that is another one.
    pub shown: Option<&'a [u8]>,
    /// The reply subject.
    pub reply: Option<&'a [u8]>,
    /// Length of the header block.
    pub header_len: Option<usize>,
    /// Header block, payload, CR LF.
    pub content: Content<'a>,
    /// Digits of the sizes as published.
    pub widths: Widths,
    /// Who gets it.
    pub targets: &'a [Target],
    /// The queue group whose member the one target is.
    pub queue: Option<&'a [u8]>,
    /// The one target is named by its place at the sender, from where it has moved to the receiver.
    pub forwarded: bool,
    /// It has come into the account as a request for a service, and no import of a stream leads it out.
    pub stays: bool,
    /// It is an answer to a request from another account, which the receiver knows.
    pub is_answer: bool,
    /// The one target is a route; `queue` has the names of the queue groups of which the other server is to serve a member.
    pub is_route: bool,
    /// The publisher, if it wants to know that nobody was there: slot and cid.
    pub requester: Option<(u32, u64)>,
}

impl Message<'_> {
    /// The message as it was published.
    pub fn publish(&self) -> Publish<'_> {
        Publish {
            args: b"",
            subject: self.subject,
            reply: self.reply,
            header_len: self.header_len,
            payload: match self.content {
                Content::Borrowed(bytes) => Payload::Borrowed(bytes),
                Content::Shared(bytes) => Payload::Shared(bytes.clone()),
            },
            widths: self.widths,
        }
    }
}

/// Where a message's content lies.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// To be copied.
    Borrowed(&'a [u8]),
    /// To be shared.
    Shared(&'a Bytes),
}

impl<'a> Content<'a> {
    /// The content of a publish.
    pub fn of(payload: &'a Payload<'_>) -> Content<'a> {
        match payload {
            Payload::Borrowed(bytes) => Content::Borrowed(bytes),
            Payload::Shared(bytes) => Content::Shared(bytes),
        }
    }

    /// Header block, payload, CR LF.
    pub fn with_crlf(&self) -> &'a [u8] {
        match self {
            Content::Borrowed(bytes) => bytes,
            Content::Shared(bytes) => bytes,
        }
    }
}

/// One entry of a batch as its receiver sees it.
#[derive(Debug)]
pub enum Entry<'a> {
    /// A message to deliver.
    Message(Message<'a>),
    /// A consumer of the sending worker fell behind, or caught up.
    Congestion {
        /// Its slot there.
        conn: u32,
        /// Which of the two.
        congested: bool,
    },
    /// A request that was handed over found nobody after all.
    Undelivered {
        /// The requester's slot.
        conn: u32,
        /// The requester's cid.
        cid: u64,
        /// Slot of the account.
        account: u16,
        /// The request's subject.
        subject: &'a [u8],
        /// Its reply subject.
        reply: &'a [u8],
    },
    /// A connection that moves to the receiver.
    Parcel(Box<Parcel>),
    /// Something that has happened, for the server's own client.
    Notice(Box<Notice>),
    /// What the workers tell each other of a move.
    Move(MoveStep, MoveId),
}

impl Batch {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether it should be sent before more is added: what is in it counts, and the work it makes for its receiver.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.bytes.len()
            + (self.targets.len() + self.listed) * size_of::<Target>()
            + self.records.len() * size_of::<Record>()
            + self.shared_bytes
            + self.notices.len() * NOTICE_COST_BYTES
            >= BATCH_BYTES_MAX
    }

    /// Empties it, keeping its memory unless that has grown beyond reason.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.targets.clear();
        self.records.clear();
        self.shared.clear();
        self.lists.clear();
        self.parcels.clear();
        self.notices.clear();
        self.shared_bytes = 0;
        self.listed = 0;
        self.records.shrink_to(4 * BATCH_BYTES_MAX / size_of::<Record>());
        self.bytes.shrink_to(4 * BATCH_BYTES_MAX);
        self.targets.shrink_to(4 * BATCH_BYTES_MAX / size_of::<Target>());
    }

    /// Adds a message.
    #[inline]
    pub fn push_message(
        &mut self,
        account: u16,
        publish: &Publish<'_>,
        shown: Option<&[u8]>,
        stays: bool,
        to: To<'_>,
        requester: Option<(u32, u64)>,
    ) {
        self.push(
            Message {
                account,
                subject: publish.subject,
                shown,
                stays,
                is_answer: false,
                is_route: false,
                reply: publish.reply,
                header_len: publish.header_len,
                content: Content::of(&publish.payload),
                widths: publish.widths,
                targets: &[],
                queue: None,
                forwarded: false,
                requester,
            },
            to,
        );
    }

    /// Adds a message; `to` is who gets it.
    #[inline]
    pub fn push(&mut self, message: Message<'_>, to: To<'_>) {
        let targets = match to {
            To::Plain(TargetList::Long(list)) => {
                self.listed += list.len();
                self.lists.push(TargetList::Long(list.clone()));
                TargetsAt::List
            }
            To::Plain(TargetList::Short(targets)) => {
                self.targets.extend_from_slice(targets);
                TargetsAt::End(self.targets.len() as u32)
            }
            To::Answer => TargetsAt::End(self.targets.len() as u32),
            To::One(target)
            | To::Member(_, target)
            | To::Moved(target)
            | To::MovedMember(_, target)
            | To::Route(_, target) => {
                self.targets.push(target);
                TargetsAt::End(self.targets.len() as u32)
            }
        };
        self.bytes.extend_from_slice(message.subject);
        let subject_end = self.bytes.len() as u32;
        self.bytes.extend_from_slice(message.shown.unwrap_or_default());
        let shown_end = self.bytes.len() as u32;
        self.bytes.extend_from_slice(message.reply.unwrap_or_default());
        let reply_end = self.bytes.len() as u32;
        if let To::Member(name, _) | To::MovedMember(name, _) | To::Route(name, _) = to {
            self.bytes.extend_from_slice(name);
        }
        let queue_end = self.bytes.len() as u32;
        let is_shared = match message.content {
            Content::Borrowed(content) => {
                self.bytes.extend_from_slice(content);
                false
            }
            Content::Shared(content) => {
                self.shared_bytes += content.len();
                self.shared.push(content.clone());
                true
            }
        };
        self.records.push(Record::Message(MessageRecord {
            subject_end,
            shown_end,
            reply_end,
            queue_end,
            content_end: self.bytes.len() as u32,
            header_len: message.header_len.map(|len| len as u32),
            widths: message.widths,
            targets,
            is_shared,
            forwarded: matches!(to, To::Moved(_) | To::MovedMember(..)),
            account: message.account,
            stays: message.stays,
            is_answer: matches!(to, To::Answer),
            is_route: matches!(to, To::Route(..)),
            requester: message.requester,
        }));
    }

    /// Adds a note about one of the sender's consumers.
    pub fn push_congestion(&mut self, conn: u32, congested: bool) {
        self.records.push(Record::Congestion { conn, congested });
    }

    /// Sends a request's failure back to the requester's worker.
    pub fn push_undelivered(&mut self, conn: u32, cid: u64, account: u16, subject: &[u8], reply: &[u8]) {
        self.bytes.extend_from_slice(subject);
        let subject_end = self.bytes.len() as u32;
        self.bytes.extend_from_slice(reply);
        let reply_end = self.bytes.len() as u32;
        self.records.push(Record::Undelivered { conn, cid, subject_end, reply_end, account });
    }

    /// Adds a connection that moves to the receiver.
    pub fn push_parcel(&mut self, parcel: Box<Parcel>) {
        self.records.push(Record::Parcel { at: self.parcels.len() as u32 });
        self.parcels.push(RefCell::new(Some(parcel)));
    }

    /// Adds something that has happened.
    pub fn push_notice(&mut self, notice: Box<Notice>) {
        self.records.push(Record::Notice { at: self.notices.len() as u32 });
        self.notices.push(RefCell::new(Some(notice)));
    }

    /// Tells the receiver something of a move.
    pub fn push_move(&mut self, step: MoveStep, id: MoveId) {
        self.records.push(Record::Move(step, id));
    }

    /// Entries that are messages or notes, for statistics.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Walks the entries in the order in which they were added. Parcels are taken out.
    pub fn for_each<'a>(&'a self, mut each: impl FnMut(Entry<'a>)) {
        let mut at = 0usize;
        let mut target_at = 0usize;
        let mut shared = self.shared.iter();
        let mut lists = self.lists.iter();
        for record in &self.records {
            match record {
                Record::Congestion { conn, congested } => {
                    each(Entry::Congestion { conn: *conn, congested: *congested });
                }
                Record::Undelivered { conn, cid, subject_end, reply_end, account } => {
                    let subject = &self.bytes[at..*subject_end as usize];
                    let reply = &self.bytes[*subject_end as usize..*reply_end as usize];
                    at = *reply_end as usize;
                    each(Entry::Undelivered { conn: *conn, cid: *cid, account: *account, subject, reply });
                }
                Record::Parcel { at } => {
                    if let Some(parcel) = self.parcels[*at as usize].borrow_mut().take() {
                        each(Entry::Parcel(parcel));
                    }
                }
                Record::Notice { at } => {
                    if let Some(notice) = self.notices[*at as usize].borrow_mut().take() {
                        each(Entry::Notice(notice));
                    }
                }
                Record::Move(step, id) => each(Entry::Move(*step, *id)),
                Record::Message(record) => {
                    let subject = &self.bytes[at..record.subject_end as usize];
                    let shown = &self.bytes[record.subject_end as usize..record.shown_end as usize];
                    let reply = &self.bytes[record.shown_end as usize..record.reply_end as usize];
                    let queue = &self.bytes[record.reply_end as usize..record.queue_end as usize];
                    let content = if record.is_shared {
                        Content::Shared(shared.next().expect("one for every shared record"))
                    } else {
                        Content::Borrowed(&self.bytes[record.queue_end as usize..record.content_end as usize])
                    };
                    prefetch(
                        &self.bytes,
                        record.content_end as usize + PREFETCH_AHEAD,
                        record.content_end as usize - at,
                    );
                    at = record.content_end as usize;
                    let targets = match record.targets {
                        TargetsAt::End(end) => {
                            let targets = &self.targets[target_at..end as usize];
                            target_at = end as usize;
                            targets
                        }
                        TargetsAt::List => lists.next().expect("one for every listed record").as_slice(),
                    };
                    each(Entry::Message(Message {
                        account: record.account,
                        subject,
                        shown: (!shown.is_empty()).then_some(shown),
                        stays: record.stays,
                        is_answer: record.is_answer,
                        is_route: record.is_route,
                        reply: (!reply.is_empty()).then_some(reply),
                        header_len: record.header_len.map(|len| len as usize),
                        content,
                        widths: record.widths,
                        targets,
                        queue: (!queue.is_empty()).then_some(queue),
                        forwarded: record.forwarded,
                        requester: record.requester,
                    }));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(sub: u32) -> Target {
        Target { worker: 1, import: 0, conn: 2, sub, generation: 3 }
    }

    #[test]
    fn entries_come_out_as_they_went_in() {
        let mut batch = Batch::default();
        let small = Publish {
            args: b"",
            subject: b"a.b",
            reply: Some(b"r"),
            header_len: None,
            payload: Payload::Borrowed(b"hi\r\n"),
            widths: Widths::default(),
        };
        let large = Publish {
            args: b"",
            subject: b"c",
            reply: None,
            header_len: Some(12),
            payload: Payload::Shared(Bytes::from_static(b"big\r\n")),
            widths: Widths::default(),
        };
        let long = TargetList::Long((0..100).map(target).collect());
        batch.push_message(0, &small, None, false, To::One(target(1)), Some((7, 8)));
        batch.push_congestion(5, true);
        batch.push_message(0, &large, Some(b"shown"), false, To::Plain(&long), None);
        batch.push_undelivered(1, 2, 0, b"s", b"t");
        batch.push_message(0, &small, None, false, To::Member(b"q", target(2)), None);
        let id = MoveId { to: 1, conn: 2, cid: 9 };
        batch.push_move(MoveStep::Fence, id);
        batch.push_message(0, &small, None, false, To::MovedMember(b"q", target(2)), None);
        batch.push_move(MoveStep::Echo, id);
        let mut seen = Vec::new();
        batch.for_each(|entry| {
            seen.push(match entry {
                Entry::Message(message) => format!(
                    "{:?}{} {:?} {:?} {:?} {} {:?} {:?}{}",
                    std::str::from_utf8(message.subject).unwrap(),
                    message.shown.map(|shown| format!(" as {}", shown.escape_ascii())).unwrap_or_default(),
                    message.reply.map(<[u8]>::len),
                    message.header_len,
                    message.content.with_crlf().len(),
                    message.targets.len(),
                    message.queue.map(<[u8]>::len),
                    message.requester,
                    if message.forwarded { " forwarded" } else { "" }
                ),
                Entry::Congestion { conn, congested } => format!("{conn} {congested}"),
                Entry::Move(step, id) => format!("{step:?} {}", id.cid),
                Entry::Parcel(_) | Entry::Notice(_) => unreachable!("none was added"),
                Entry::Undelivered { conn, cid, subject, reply, .. } => {
                    format!("{conn} {cid} {} {}", subject.len(), reply.len())
                }
            });
        });
        assert_eq!(
            seen,
            [
                "\"a.b\" Some(1) None 4 1 None Some((7, 8))",
                "5 true",
                "\"c\" as shown None Some(12) 5 100 None None",
                "1 2 1 1",
                "\"a.b\" Some(1) None 4 1 Some(1) None",
                "Fence 9",
                "\"a.b\" Some(1) None 4 1 Some(1) None forwarded",
                "Echo 9"
            ]
        );
        batch.clear();
        assert!(batch.is_empty());
    }
}
