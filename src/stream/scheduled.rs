//! Publishing what was scheduled: when the time of a schedule comes, the stream stores a message that the schedule describes.
//!
//! A schedule is a stored message like any other. What it publishes has its payload and headers, or those of the last message of another
//! subject, without what was meant for the schedule itself. It says by which schedule it was made and when the next one comes; when none comes,
//! the schedule is purged in the same step. So the stream's messages alone say what is to come, and opening a stream finds it there.

use super::headers::{self, Published};
use super::publish::{Asked, Rollup, parse_ttl};
use super::schedule;
use super::stream::Stream;
use super::time;
use crate::store::{Read, ReadPlan, StoredMessage};

/// Schedules that are carried out in one tick, so that a turn stays short.
const FIRED_PER_TICK_MAX: usize = 256;

/// How long a schedule whose message could not be stored waits.
const RETRY_NS: i64 = 1_000_000_000;

/// Headers that are the schedule's own, or would keep its messages from being stored.
const NOT_PASSED_ON: &[&[u8]] =
    &[b"Nats-Schedule", b"Nats-Expected-", b"Nats-Msg-Id:", b"Nats-TTL:", b"Nats-Rollup:"];

/// A schedule whose time has come, and that waits for a message to be read: then [`Stream::resume_schedule`].
#[derive(Debug)]
#[must_use]
pub struct PendingSchedule {
    /// Where the message is.
    pub plan: ReadPlan,
    subject: Box<[u8]>,
    seq: u64,
    time_ns: i64,
    /// The schedule, if what is read is the message whose content it takes.
    schedule: Option<StoredMessage>,
}

impl Stream {
    /// What has to be read so that schedules can go on.
    pub fn take_read(&mut self) -> Option<PendingSchedule> {
        self.to_read.pop_front()
    }

    /// Goes on with a schedule when a message was read, or could not be. There may be another one to be read then.
    pub fn resume_schedule(&mut self, pending: PendingSchedule, message: Option<StoredMessage>, now_ns: i64) {
        let PendingSchedule { subject, seq, time_ns, schedule, .. } = pending;
        match (schedule, message) {
            (Some(schedule), content) => {
                self.fire_with(&subject, time_ns, &schedule, content.as_ref().unwrap_or(&schedule), now_ns);
            }
            (None, Some(schedule)) => self.fire(subject, time_ns, schedule, now_ns),
            (None, None) => self.retry(&subject, seq, now_ns),
        }
    }

    /// Carries out schedules whose time has come.
    pub(super) fn fire_schedules(&mut self, now_ns: i64) {
        for _ in 0..FIRED_PER_TICK_MAX {
            let Some((subject, seq, time_ns)) = self.schedules.take_due(now_ns) else { return };
            match self.store.read(seq) {
                Read::Found(schedule) => self.fire(subject, time_ns, schedule, now_ns),
                Read::OnDisk(plan) => {
                    self.to_read.push_back(PendingSchedule { plan, subject, seq, time_ns, schedule: None });
                }
                Read::Missing => self.schedules.remove(&subject),
            }
        }
    }

    /// Notes what a stored message has to do with schedules.
    pub(super) fn note_schedule(&mut self, subject: &[u8], seq: u64, time_ns: i64, header: &[u8]) {
        let published = Published::of(header);
        let due = match published.schedule {
            b"" => None,
            // It is first due as it was when it was stored, even if that has passed meanwhile: then it is made up for.
            pattern => schedule::next(pattern, published.schedule_time_zone, time_ns, time_ns).ok(),
        };
        match due {
            Some(due) if due.time_ns != time::ZERO => self.schedules.insert(subject, seq, due.time_ns),
            _ if published.scheduler.is_empty() => self.schedules.remove(subject),
            _ => {}
        }
        if let Ok(next) = std::str::from_utf8(published.schedule_next)
            && let Ok(next_ns) = time::parse(next)
        {
            self.schedules.update(published.scheduler, next_ns);
        }
    }

    fn fire(&mut self, subject: Box<[u8]>, time_ns: i64, schedule: StoredMessage, now_ns: i64) {
        // It may have been replaced while it was read.
        if self.schedules.seq(&subject) != Some(schedule.seq) {
            return;
        }
        let source = Published::of(schedule.header()).schedule_source;
        let content = match self.store.last_of(source).filter(|_| !source.is_empty()) {
            None => None,
            Some(last) => match self.store.read(last) {
                Read::Found(content) => Some(content),
                Read::Missing => None,
                Read::OnDisk(plan) => {
                    let (seq, schedule) = (schedule.seq, Some(schedule));
                    self.to_read.push_back(PendingSchedule { plan, subject, seq, time_ns, schedule });
                    return;
                }
            },
        };
        self.fire_with(&subject, time_ns, &schedule, content.as_ref().unwrap_or(&schedule), now_ns);
    }

    fn fire_with(
        &mut self,
        subject: &[u8],
        time_ns: i64,
        schedule: &StoredMessage,
        content: &StoredMessage,
        now_ns: i64,
    ) {
        let asked = Published::of(schedule.header());
        let due = schedule::next(asked.schedule, asked.schedule_time_zone, time_ns, now_ns);
        let (Ok(due), Ok(ttl_s), false) =
            (due, parse_ttl(asked.schedule_ttl), asked.schedule_target.is_empty())
        else {
            return self.schedules.remove(subject);
        };
        let mut header = headers::remove_beginning(content.header(), NOT_PASSED_ON);
        headers::add(&mut header, "Nats-Scheduler", subject);
        headers::add(&mut header, "Nats-Schedule-Next", if due.repeats { &due.text } else { "purge" });
        if !asked.schedule_ttl.is_empty() {
            headers::add(&mut header, "Nats-TTL", asked.schedule_ttl);
        }
        if !asked.schedule_rollup.is_empty() {
            headers::add(&mut header, "Nats-Rollup", asked.schedule_rollup);
        }
        let transformed = self.transformed(asked.schedule_target);
        let target = transformed.as_deref().unwrap_or(asked.schedule_target);
        let asked = Asked {
            rollup: (asked.schedule_rollup == b"sub").then_some(Rollup::Subject),
            ttl_s,
            purged_schedule: if due.repeats { b"" } else { subject },
            ..Asked::default()
        };
        if self.store_message(target, &header, content.payload(), asked, now_ns).is_err() {
            return self.retry(subject, schedule.seq, now_ns);
        }
        if due.repeats {
            self.schedules.insert(subject, schedule.seq, due.time_ns);
        } else {
            self.schedules.remove(subject);
        }
    }

    fn retry(&mut self, subject: &[u8], seq: u64, now_ns: i64) {
        self.schedules.insert(subject, seq, now_ns.saturating_add(RETRY_NS));
    }
}
