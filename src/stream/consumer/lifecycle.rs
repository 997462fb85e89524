//! What time does to a consumer, and what an update of its configuration does.
//!
//! [`Consumer::deadline_ns`] says when [`Consumer::tick`] has something to do at the latest. Too early a tick does nothing.

use super::advisory::Event;
use super::config::{ConsumerConfig, StreamFacts};
use super::core::{Consumer, NEVER};
use super::state::StateChange;
use super::turn::{Outlet, Turn};
use crate::store::Filters;

/// What is to be done with a consumer after a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tick {
    /// Run it: it may have something to deliver, or a request to end.
    Run,
    /// Nothing.
    Nothing,
    /// Delete it: nobody has used it for too long.
    Expired,
}

impl Consumer {
    /// When the next tick is due.
    pub(super) fn deadline_ns(&self, now_ns: i64) -> i64 {
        let mut deadline = self.waiting_ns.min(self.overdue_ns);
        if self.held_until_ns > now_ns {
            deadline = deadline.min(self.held_until_ns);
        }
        if let Some(until) = self.config.pause_until
            && !self.pause_announced
            && !until.is_zero()
        {
            deadline = deadline.min(until.ns);
        }
        if let Some(pin) = &self.pin {
            deadline = deadline.min(pin.ends_ns);
        }
        if let Some(push) = &self.push {
            deadline = deadline.min(push.heartbeat_at_ns.unwrap_or(NEVER));
        }
        deadline.min(self.ends_ns())
    }

    /// When it ends if nobody uses it.
    fn ends_ns(&self) -> i64 {
        match &self.push {
            _ if self.inactive_threshold_ns <= 0 => NEVER,
            Some(push) if push.active => NEVER,
            Some(push) => push.inactive_since_ns.saturating_add(self.inactive_threshold_ns),
            None => self.active_ns.saturating_add(self.inactive_threshold_ns),
        }
    }

    pub(super) fn tick<O: Outlet>(&mut self, turn: &mut Turn<'_, O>) -> Tick {
        let now = turn.now_ns;
        if now >= self.ends_ns() && self.is_unused(turn) {
            return Tick::Expired;
        }
        let mut run = self.check_overdue(turn) || now >= self.waiting_ns;
        if self.held_until_ns != i64::MIN && now >= self.held_until_ns {
            run = true;
        }
        if let Some(until) = self.config.pause_until
            && !self.pause_announced
            && now >= until.ns
            && !until.is_zero()
        {
            self.pause_announced = true;
            self.tell(Event::Paused { until: Some(until) }, turn);
            run = true;
        }
        if let Some(pin) = &self.pin
            && now >= pin.ends_ns
        {
            let group = pin.group.clone();
            self.unpin(&group, "timeout", turn);
            run = true;
        }
        if self.push.as_ref().is_some_and(|push| push.heartbeat_at_ns.is_some_and(|at| now >= at)) {
            self.push_heartbeat(turn);
        }
        if run { Tick::Run } else { Tick::Nothing }
    }

    /// Whether really nobody uses it: no request waits, and nobody is still at work on what was delivered.
    fn is_unused<O: Outlet>(&mut self, turn: &mut Turn<'_, O>) -> bool {
        if self.push.is_some() {
            return true;
        }
        self.look_through_waiting(true, true, turn);
        if !self.waiting.is_empty() {
            self.active_ns = turn.now_ns;
            return false;
        }
        let ends = self.state.pending.iter().map(|entry| {
            let wait = self.wait_of(entry.deliveries);
            if wait == NEVER { i64::MIN } else { entry.since_ns.saturating_add(wait) }
        });
        let last = ends.max().unwrap_or(i64::MIN);
        if last > turn.now_ns - self.inactive_threshold_ns {
            self.active_ns = last;
            return false;
        }
        true
    }

    /// Whether somebody listens to a push consumer. Run it afterwards.
    pub(super) fn listener(&mut self, active: bool, now_ns: i64) {
        if !active {
            self.listener_gone(now_ns);
        } else if let Some(push) = &mut self.push {
            push.active = true;
        }
    }

    /// Takes over a configuration that [`ConsumerConfig::check_update`] allows.
    pub(super) fn update<O: Outlet>(
        &mut self,
        new: ConsumerConfig,
        stream: &StreamFacts,
        turn: &mut Turn<'_, O>,
    ) {
        let old = std::mem::replace(&mut *self.config, new);
        if let Some(until) = &mut self.config.pause_until {
            until.offset_s = 0;
        }
        if self.config.deliver_subject != old.deliver_subject {
            self.redeliver_all(turn.now_ns);
            let deliver = self.config.deliver_subject.as_bytes();
            let active = turn.outlet.has_interest(deliver, self.config.deliver_group.as_bytes());
            self.listener(active, turn.now_ns);
        }
        if self.config.rate_limit_bps != old.rate_limit_bps {
            self.set_rate(stream, turn);
        }
        if self.config.inactive_threshold != old.inactive_threshold {
            self.set_threshold(turn);
            self.active_ns = turn.now_ns;
        }
        if self.config.pause_until.map(|at| at.ns) != old.pause_until.map(|at| at.ns) {
            self.pause_announced = !self.config.is_paused(turn.now_ns);
            self.tell(Event::Paused { until: self.config.pause_until }, turn);
        }
        let filters = Filters::new(self.config.filters().map(str::as_bytes));
        if filters != self.filters {
            self.filters = filters;
            self.forget_backlog();
        }
        self.overdue_ns = self.next_overdue();
    }

    /// Everything unacknowledged is delivered again: whoever had it is gone.
    fn redeliver_all(&mut self, now_ns: i64) {
        let mut queued = Vec::new();
        for entry in self.state.pending.iter_mut().filter(|entry| !entry.queued) {
            entry.queued = true;
            queued.push(entry.stream_seq);
        }
        for stream_seq in queued {
            self.redeliver.push_back(stream_seq);
            self.change(StateChange::Postponed { stream_seq, since_ns: now_ns });
        }
    }
}
