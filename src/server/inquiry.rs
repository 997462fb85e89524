//! Questions that the control thread puts to a worker, and how a worker answers them: a bounded look per turn, so that
//! no question holds up messages, however much there is to look at.
//!
//! The place for questions at a worker's door holds one. There is one asker at a time (`server/http.rs` sees to that);
//! whoever asks while an older question is there knows that its asker has gone, and takes its place.

use tokio::sync::oneshot;

use crate::broker::inspect::{
    BEHIND_MAX, ConnectionFilter, ConnectionRow, ConnectionTally, FanOutPlace, FoundConnections, KnownUser,
    Measure, ROWS_PER_LOOK_MAX, ResponseRow, SubscriptionFilter, SubscriptionRow, Window,
};
use crate::broker::{Broker, CloseReason, RouteRow};
use crate::monitor::connz::Candidate;
use crate::subject::fanout::FanOutTally;
use crate::subject::interest::InterestAccess;

/// A question, and how far its answer has come.
#[derive(Debug)]
pub enum Question {
    /// Which open connections there are.
    Keys(Inquiry<(ConnectionFilter, Measure), FoundConnections>),
    /// What these connections are, by slot and number. Those that have gone are missing.
    Rows(Inquiry<Vec<(u32, u64)>, Vec<ConnectionRow>>),
    /// Which subscriptions there are.
    Subscriptions(Inquiry<SubscriptionFilter, FoundSubscriptions>),
    /// What there is in all. Of cached subjects only those of one account, if that is asked for, by slot.
    Tally(Inquiry<Option<u16>, Tally>),
    /// Who a connection is, by slot and number.
    User(Inquiry<(u32, u64), Option<KnownUser>>),
    /// Something is to be done to the connection with this number.
    Act(Inquiry<(Action, u64), Acted>),
    /// Which routes to other servers there are; with what those want, if that is asked for.
    Routes(Inquiry<bool, Vec<RouteRow>>),
    /// Which answers to other accounts the account in this slot still owes.
    Responses(Inquiry<u16, Vec<ResponseRow>>),
}

/// What can be done to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is closed.
    Kick,
    /// It is told to go elsewhere.
    TellToLeave,
}

/// What has become of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acted {
    /// It is not there.
    NotFound,
    /// It does not understand.
    Refused,
    /// It has been done.
    Done,
}

/// One kind of question.
#[derive(Debug)]
pub struct Inquiry<Q, A> {
    what: Q,
    from: usize,
    answer: A,
    reply: oneshot::Sender<A>,
}

/// Subscriptions in a window.
#[derive(Debug)]
pub struct FoundSubscriptions {
    /// Those in the window.
    pub rows: Vec<SubscriptionRow>,
    /// The window, with the number of those that were found.
    pub window: Window,
}

/// What there is in all.
#[derive(Debug, Default)]
pub struct Tally {
    /// Connections.
    pub connections: ConnectionTally,
    /// What the cached subjects reach.
    pub fan_out: FanOutTally,
    /// The connections that are furthest behind at all workers, the worst first.
    pub behind: Vec<Candidate>,
    /// Connections are through: where to look among the fan-out lists.
    fan_out_from: Option<FanOutPlace>,
}

impl Tally {
    /// Adds what a worker has.
    pub fn add(&mut self, worker: usize, tally: Tally) {
        self.connections.add(&tally.connections);
        self.fan_out.add(tally.fan_out);
        let behind = tally.connections.behind.into_iter();
        self.behind.extend(behind.map(|key| Candidate::Open { worker, key }));
        self.behind.sort_by_key(|candidate| std::cmp::Reverse(candidate.measure(Measure::PendingBytes)));
        self.behind.truncate(BEHIND_MAX);
    }
}

impl<Q, A> Inquiry<Q, A> {
    /// A new one, with an answer that is yet to be filled, and the end where it arrives.
    pub fn new(what: Q, answer: A) -> (Inquiry<Q, A>, oneshot::Receiver<A>) {
        let (reply, answered) = oneshot::channel();
        (Inquiry { what, from: 0, answer, reply }, answered)
    }

    /// Goes on at `next`, or answers if there is nothing more.
    fn go_on(mut self, next: Option<usize>) -> Option<Inquiry<Q, A>> {
        match next {
            Some(from) => {
                self.from = from;
                Some(self)
            }
            None => {
                // Whoever asked may have gone.
                let _ = self.reply.send(self.answer);
                None
            }
        }
    }
}

impl Question {
    /// Takes one look. Returns the question if it is not answered yet.
    pub fn look<A: InterestAccess>(self, broker: &mut Broker<A>) -> Option<Question> {
        if self.is_dropped() {
            return None;
        }
        match self {
            Question::Keys(mut inquiry) => {
                let (filter, measure) = &inquiry.what;
                let next = broker.connection_keys(inquiry.from, filter, *measure, &mut inquiry.answer);
                inquiry.go_on(next).map(Question::Keys)
            }
            Question::Rows(mut inquiry) => {
                let to = (inquiry.from + ROWS_PER_LOOK_MAX).min(inquiry.what.len());
                let wanted = &inquiry.what[inquiry.from..to];
                inquiry
                    .answer
                    .extend(wanted.iter().filter_map(|(conn, cid)| broker.connection_row(*conn, *cid)));
                let next = (to < inquiry.what.len()).then_some(to);
                inquiry.go_on(next).map(Question::Rows)
            }
            Question::Subscriptions(mut inquiry) => {
                let FoundSubscriptions { rows, window } = &mut inquiry.answer;
                let next = broker.subscription_rows(inquiry.from, &inquiry.what, window, rows);
                inquiry.go_on(next).map(Question::Subscriptions)
            }
            Question::Tally(mut inquiry) => {
                let tally = &mut inquiry.answer;
                let next = match tally.fan_out_from {
                    Some(from) => {
                        let next = broker.fan_out_tally(from, inquiry.what, &mut tally.fan_out);
                        tally.fan_out_from = next;
                        next.map(|_| 0)
                    }
                    None => {
                        let next = broker.connection_tally(inquiry.from, &mut tally.connections);
                        tally.fan_out_from = next.is_none().then(FanOutPlace::default);
                        next.or(Some(0))
                    }
                };
                inquiry.go_on(next).map(Question::Tally)
            }
            Question::User(mut inquiry) => {
                let (conn, cid) = inquiry.what;
                inquiry.answer = broker.user_of(conn, cid);
                inquiry.go_on(None).map(Question::User)
            }
            Question::Act(mut inquiry) => {
                let (action, cid) = inquiry.what;
                let filter = ConnectionFilter { cid: Some(cid), ..ConnectionFilter::default() };
                let mut found = FoundConnections::default();
                let next = broker.connection_keys(inquiry.from, &filter, Measure::Cid, &mut found);
                let Some(key) = found.keys.first() else { return inquiry.go_on(next).map(Question::Act) };
                inquiry.answer = action.carry_out(broker, key.conn);
                inquiry.go_on(None).map(Question::Act)
            }
            Question::Routes(mut inquiry) => {
                inquiry.answer = broker.route_rows(inquiry.what);
                inquiry.go_on(None).map(Question::Routes)
            }
            Question::Responses(mut inquiry) => {
                inquiry.answer = broker.response_rows(inquiry.what);
                inquiry.go_on(None).map(Question::Responses)
            }
        }
    }

    fn is_dropped(&self) -> bool {
        match self {
            Question::Keys(inquiry) => inquiry.reply.is_closed(),
            Question::Rows(inquiry) => inquiry.reply.is_closed(),
            Question::Subscriptions(inquiry) => inquiry.reply.is_closed(),
            Question::Tally(inquiry) => inquiry.reply.is_closed(),
            Question::User(inquiry) => inquiry.reply.is_closed(),
            Question::Act(inquiry) => inquiry.reply.is_closed(),
            Question::Routes(inquiry) => inquiry.reply.is_closed(),
            Question::Responses(inquiry) => inquiry.reply.is_closed(),
        }
    }
}

impl Action {
    fn carry_out<A: InterestAccess>(self, broker: &mut Broker<A>, conn: u32) -> Acted {
        match self {
            Action::Kick => {
                broker.close(conn, CloseReason::Kicked);
                Acted::Done
            }
            Action::TellToLeave if broker.tell_to_leave(conn) => Acted::Done,
            Action::TellToLeave => Acted::Refused,
        }
    }
}
