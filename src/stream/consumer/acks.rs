//! Acknowledgements: what clients say of what they got, and what happens when they say nothing.
//!
//! Rules: `jetstream-consumers.md` 3. An acknowledgement of a sequence that was not reached yet is ignored and gets no
//! confirmation. One of a message that is not pending changes nothing and is confirmed. What is confirmed is durable: the
//! confirmation waits in [`Effects`](super::turn::Effects) until the turn's changes are.

use super::super::json::{self, DurationNs, Strictness, from_json};
use super::super::time;
use super::advisory::Event;
use super::config::AckPolicy;
use super::core::{Consumer, NEVER};
use super::standing::note_ack;
use super::state::StateChange;
use super::turn::{Outlet, Turn};

/// Why a message was terminated that left the stream before it was acknowledged.
pub(super) const GONE_REASON: &str = "Unacknowledged message was deleted";

/// What the subject of an acknowledgement says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckSubject<'a> {
    /// The stream.
    pub stream: &'a [u8],
    /// The consumer.
    pub consumer: &'a [u8],
    /// How often the message was delivered.
    pub deliveries: u64,
    /// Which message.
    pub stream_seq: u64,
    /// Which delivery.
    pub consumer_seq: u64,
}

/// Reads `$JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<backlog>`, and the newer form with two
/// more tokens before the stream. `None`: neither. Numbers that are none count as the largest there is.
pub fn ack_subject(subject: &[u8]) -> Option<AckSubject<'_>> {
    const TOKENS_MAX: usize = 9;
    let rest = subject.strip_prefix(b"$JS.ACK.")?;
    // Where the tokens end; what is behind the ninth is not looked at.
    let (mut ends, mut count) = ([rest.len(); TOKENS_MAX], 0);
    for (at, byte) in rest.iter().enumerate() {
        if *byte == b'.' {
            if count == TOKENS_MAX {
                break;
            }
            ends[count] = at;
            count += 1;
        }
    }
    let first = match count + 1 {
        7 => 0,
        9.. => 2,
        _ => return None,
    };
    let token = |at: usize| {
        let begin = if at == 0 { 0 } else { ends[at - 1] + 1 };
        &rest[begin..ends[at]]
    };
    Some(AckSubject {
        stream: token(first),
        consumer: token(first + 1),
        deliveries: number(token(first + 2)),
        stream_seq: number(token(first + 3)),
        consumer_seq: number(token(first + 4)),
    })
}

fn number(token: &[u8]) -> u64 {
    // Nineteen digits fit in any case.
    if token.is_empty() || token.len() > 19 || !token.iter().all(u8::is_ascii_digit) {
        return u64::MAX;
    }
    token.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct NakOptions {
    delay: DurationNs,
}

from_json!(NakOptions, "server.ConsumerNakOptions", { "delay" => delay });

/// The delay of a `-NAK`. `Err`: there is one that cannot be read.
fn nak_delay(argument: &[u8]) -> Result<Option<i64>, ()> {
    let argument = argument.trim_ascii();
    match argument.first() {
        None => Ok(None),
        Some(b'{') => json::read::<NakOptions>(argument, Strictness::Lenient)
            .map(|nak| Some(nak.delay.0))
            .map_err(|_| ()),
        Some(_) => std::str::from_utf8(argument).ok().and_then(time::parse_duration).map(Some).ok_or(()),
    }
}

impl Consumer {
    /// A client says what became of a message. Run it afterwards: there may be something to deliver.
    pub(super) fn ack<O: Outlet>(
        &mut self,
        at: &AckSubject<'_>,
        said: &[u8],
        reply: &[u8],
        turn: &mut Turn<'_, O>,
    ) {
        self.active_ns = turn.now_ns;
        let mut confirm = at.stream_seq != 0;
        match said {
            b"" | b"+ACK" | b"+OK" => confirm = self.settle(at, true, turn),
            _ if said.starts_with(b"+NXT") => {
                self.settle(at, true, turn);
                self.pull(&said[4..], reply, turn);
                return;
            }
            _ if said.starts_with(b"-NAK") => self.nak(at, &said[4..], turn),
            b"+WPI" => {
                if let Some(deliveries) = self.state.pending.get(at.stream_seq).map(|entry| entry.deliveries)
                {
                    let overdue_ns = turn.now_ns.saturating_add(self.wait_of(deliveries));
                    self.change(StateChange::Postponed { stream_seq: at.stream_seq, since_ns: turn.now_ns });
                    // It may have been refused until later than that.
                    self.overdue_ns = self.overdue_ns.min(overdue_ns);
                    self.last_delivered_ns = Some(turn.now_ns);
                }
            }
            _ if said.starts_with(b"+TERM") => {
                confirm = self.settle(at, false, turn);
                let reason = String::from_utf8_lossy(said[5..].trim_ascii()).into_owned();
                let event = Event::Terminated {
                    consumer_seq: at.consumer_seq,
                    stream_seq: at.stream_seq,
                    deliveries: at.deliveries,
                    reason: &reason,
                };
                self.tell(event, turn);
            }
            _ => {}
        }
        if confirm && !reply.is_empty() {
            turn.effects.confirmations.push(reply.into());
        }
    }

    /// A message is handled. Returns whether that is to be confirmed.
    fn settle<O: Outlet>(&mut self, at: &AckSubject<'_>, sample: bool, turn: &mut Turn<'_, O>) -> bool {
        if at.stream_seq >= self.next_seq && !self.config.flow_control {
            return false;
        }
        match self.config.ack_policy {
            AckPolicy::None => return turn.removes_settled,
            AckPolicy::Explicit => {
                if sample && let Some(entry) = self.state.pending.get(at.stream_seq) {
                    let waited = turn.now_ns - entry.since_ns;
                    note_ack(&mut self.ack_times, waited, turn.effects);
                    self.sample(at, waited, turn);
                }
                let known = self.state.pending.get(at.stream_seq).is_some()
                    || self.state.exceeded.contains_key(&at.stream_seq);
                if known {
                    self.change(StateChange::Acked { stream_seq: at.stream_seq });
                }
                if turn.removes_settled {
                    turn.effects.settled.push(at.stream_seq);
                }
            }
            AckPolicy::All | AckPolicy::FlowControl => {
                let floor = self.state.ack_floor;
                if at.consumer_seq <= floor.consumer || at.stream_seq <= floor.stream {
                    return true;
                }
                if turn.removes_settled {
                    let through = self.state.pending.iter().map(|entry| entry.stream_seq);
                    turn.effects.settled.extend(through.take_while(|seq| *seq < at.stream_seq));
                    turn.effects.settled.push(at.stream_seq);
                }
                for entry in self.state.pending.iter().take_while(|entry| entry.stream_seq <= at.stream_seq) {
                    note_ack(&mut self.ack_times, turn.now_ns - entry.since_ns, turn.effects);
                }
                self.change(StateChange::AckedThrough {
                    consumer_seq: at.consumer_seq,
                    stream_seq: at.stream_seq,
                });
            }
        }
        self.last_acked_ns = Some(turn.now_ns);
        true
    }

    fn sample<O: Outlet>(&mut self, at: &AckSubject<'_>, ack_time_ns: i64, turn: &mut Turn<'_, O>) {
        if self.config.sample_freq.is_empty() {
            return;
        }
        let percent = self.config.sample_percent();
        if percent <= 0 || percent < 100 && turn.random.i64(0..100) > percent {
            return;
        }
        let event = Event::Ack {
            consumer_seq: at.consumer_seq,
            stream_seq: at.stream_seq,
            deliveries: at.deliveries,
            ack_time_ns,
        };
        self.tell(event, turn);
    }

    fn nak<O: Outlet>(&mut self, at: &AckSubject<'_>, argument: &[u8], turn: &mut Turn<'_, O>) {
        // The reference's bound is the number of the next delivery.
        let next = self.state.delivered.consumer + 1;
        if at.consumer_seq <= self.state.ack_floor.consumer || at.consumer_seq > next {
            return;
        }
        let Some(entry) = self.state.pending.get(at.stream_seq).copied() else { return };
        let event = Event::Nak {
            consumer_seq: at.consumer_seq,
            stream_seq: at.stream_seq,
            deliveries: at.deliveries,
        };
        self.tell(event, turn);
        if let Ok(Some(delay)) = nak_delay(argument) {
            // The wait for the acknowledgement is set so that it ends after the delay.
            let since_ns = turn.now_ns.saturating_sub(self.config.ack_wait.0).saturating_add(delay);
            self.state.pending.update(at.stream_seq, |entry| entry.queued = false);
            self.change(StateChange::Postponed { stream_seq: at.stream_seq, since_ns });
            if let Some(entry) = self.state.pending.get(at.stream_seq) {
                let ends_ns = since_ns.saturating_add(self.wait_of(entry.deliveries));
                self.overdue_ns = self.overdue_ns.min(ends_ns);
            }
        } else if !entry.queued {
            // So that it is overdue after a restart, too.
            let since_ns = turn.now_ns.saturating_sub(self.wait_of(entry.deliveries));
            self.change(StateChange::Postponed { stream_seq: at.stream_seq, since_ns });
            self.queue(at.stream_seq);
        }
    }

    /// Puts a message in the redelivery queue.
    fn queue(&mut self, stream_seq: u64) {
        self.state.pending.update(stream_seq, |entry| entry.queued = true);
        // Entries that were handled meanwhile are passed over when their turn comes; here they are not to pile up.
        if self.redeliver.len() > 64 + 2 * self.state.pending.len() {
            let pending = &self.state.pending;
            self.redeliver.retain(|seq| pending.get(*seq).is_some_and(|entry| entry.queued));
        }
        self.redeliver.push_back(stream_seq);
    }

    /// How long a message waits for its acknowledgement that was delivered so often.
    pub(super) fn wait_of(&self, deliveries: u32) -> i64 {
        let backoff = &self.config.backoff;
        let at = (deliveries.max(1) as usize - 1).min(backoff.len().saturating_sub(1));
        match backoff.get(at).map_or(self.config.ack_wait.0, |wait| wait.0) {
            0 if backoff.is_empty() => NEVER,
            wait => wait,
        }
    }

    /// When the next acknowledgement is overdue.
    pub(super) fn next_overdue(&self) -> i64 {
        let ends = |deliveries: u32, since_ns: i64| since_ns.saturating_add(self.wait_of(deliveries));
        let waiting = self.state.pending.iter().filter(|entry| !entry.queued);
        waiting.map(|entry| ends(entry.deliveries, entry.since_ns)).min().unwrap_or(NEVER)
    }

    /// Finds the messages whose acknowledgement is overdue. Returns whether there are any: then there is something to
    /// deliver again, or room for another message.
    pub(super) fn check_overdue<O: Outlet>(&mut self, turn: &mut Turn<'_, O>) -> bool {
        let now = turn.now_ns;
        if now < self.overdue_ns {
            return false;
        }
        let late: Vec<(u64, u32)> = self
            .state
            .pending
            .iter()
            .filter(|entry| {
                !entry.queued && entry.since_ns.saturating_add(self.wait_of(entry.deliveries)) <= now
            })
            .map(|entry| (entry.stream_seq, entry.deliveries))
            .collect();
        for (seq, deliveries) in &late {
            // Only a limit of one is seen here; others when the message would be delivered again, as in the reference.
            if self.config.max_deliver.0 == 1 && *deliveries == 1 {
                self.give_up(*seq, 1, turn);
            } else {
                self.queue(*seq);
            }
        }
        self.overdue_ns = self.next_overdue();
        !late.is_empty()
    }

    /// A message that was not acknowledged is no longer in the stream.
    pub(super) fn terminate_gone<O: Outlet>(&mut self, seq: u64, reason: &str, turn: &mut Turn<'_, O>) {
        let Some(entry) = self.state.pending.get(seq).copied() else { return };
        let deliveries = u64::from(entry.deliveries.saturating_sub(1).max(1));
        self.change(StateChange::Acked { stream_seq: seq });
        self.last_acked_ns = Some(turn.now_ns);
        let event =
            Event::Terminated { consumer_seq: entry.consumer_seq, stream_seq: seq, deliveries, reason };
        self.tell(event, turn);
    }

    /// A message was removed from the stream. Returns whether it was unacknowledged: then there is room for another one.
    pub(super) fn removed<O: Outlet>(&mut self, seq: u64, subject: &[u8], turn: &mut Turn<'_, O>) -> bool {
        self.adjust_backlog(seq, subject, turn.removals);
        let was_pending = self.state.pending.get(seq).is_some();
        if was_pending {
            self.terminate_gone(seq, GONE_REASON, turn);
        } else if self.state.exceeded.contains_key(&seq) {
            self.change(StateChange::Acked { stream_seq: seq });
        }
        was_pending
    }

    /// Many messages were removed from the stream: forgets what is not there any more.
    pub(super) fn reconcile<O>(&mut self, turn: &mut Turn<'_, O>) {
        let state = turn.store.state();
        let first = state.first_seq.max(1);
        if self.state.ack_floor.stream + 1 < first {
            self.change(StateChange::Purged { first });
        }
        self.next_seq = self.next_seq.max(first);
        let gone = |seq: &u64| turn.store.time_of(*seq).is_none();
        let lost: Vec<u64> = self.state.pending.iter().map(|entry| entry.stream_seq).filter(gone).collect();
        let given_up: Vec<u64> = self.state.exceeded.keys().copied().filter(gone).collect();
        for stream_seq in lost.into_iter().chain(given_up) {
            self.change(StateChange::Acked { stream_seq });
        }
        if let Some(last_messages) = &mut self.last_messages {
            last_messages.seqs.retain(|seq| turn.store.time_of(*seq).is_some());
        }
        self.fetched.clear();
        self.forget_backlog();
        self.overdue_ns = self.next_overdue();
    }

    /// A response to a flow control request, with the numbers that its headers carry.
    pub(super) fn flow_response<O: Outlet>(
        &mut self,
        subject: &[u8],
        last: Option<(u64, u64)>,
        turn: &mut Turn<'_, O>,
    ) {
        let Some(flow) = self.push.as_mut().and_then(|push| push.flow.as_mut()) else { return };
        if !flow.answered(subject) || self.config.ack_policy != AckPolicy::FlowControl {
            return;
        }
        if let Some((consumer_seq, stream_seq)) = last
            && stream_seq > 0
        {
            let at = AckSubject { stream: b"", consumer: b"", deliveries: 1, stream_seq, consumer_seq };
            self.settle(&at, false, turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_ack_subjects_are_read() {
        let at = |subject: &str| {
            ack_subject(subject.as_bytes())
                .map(|at| (at.stream.to_vec(), at.deliveries, at.stream_seq, at.consumer_seq))
        };
        assert_eq!(at("$JS.ACK.S.C.1.2.3.4.5"), Some((b"S".to_vec(), 1, 2, 3)));
        assert_eq!(at("$JS.ACK._.HASH.S.C.1.2.3.4.5"), Some((b"S".to_vec(), 1, 2, 3)));
        assert_eq!(at("$JS.ACK._.HASH.S.C.1.2.3.4.5.random"), Some((b"S".to_vec(), 1, 2, 3)));
        assert_eq!(at("$JS.ACK.S.C.1.x.3.4.5"), Some((b"S".to_vec(), 1, u64::MAX, 3)));
        for bad in ["$JS.ACK.S.C.1.2.3.4", "$JS.ACK.S.C.1.2.3.4.5.6", "$JS.FC.S.C.1.2.3.4.5"] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }

    #[test]
    fn delays_of_naks_are_numbers_in_json_or_durations() {
        assert_eq!(nak_delay(b""), Ok(None));
        assert_eq!(nak_delay(b" {\"delay\": 500}"), Ok(Some(500)));
        assert_eq!(nak_delay(b" 1.5s "), Ok(Some(1_500_000_000)));
        assert_eq!(nak_delay(b" soon"), Err(()));
    }
}
