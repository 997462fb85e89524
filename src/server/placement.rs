//! Which worker should have which connections: decided by measuring what a change brings.
//!
//! A message that crosses from one worker to another costs more than one that stays: it is copied once more, and a
//! worker that sleeps has to be woken, which in a virtual machine takes tens of microseconds. Measured on two cores, one
//! worker needs half the CPU of two for the same messages, as long as one is enough. When one is not enough, two do
//! more. Nothing tells from the outside which of the two it is: that depends on who talks to whom, on how many
//! cores are left by others, on the kernel. So this is found out by trying.
//!
//! Connections are accepted evenly over the workers. From then on, in windows of `WINDOW_MS`, while there is traffic:
//!
//! * **Pack**: the least busy worker gives its active connections to the next one, if both together look like less than
//!   one worker's work, or if much of their work crosses between workers. It is kept if the server does not do less than
//!   before.
//! * **Spread**: a worker that has been busy without a pause gives half of its active connections to one that is not, if
//!   the machine has a core to spare. It is kept if the server does more than before.
//!
//! What was not worth it is undone, and is tried again only after a pause that doubles each time, until the load
//! changes. Idle connections stay where they are: they cost nothing there, and are moved when they become active.
//!
//! This file only decides. It sees counters, and time as a parameter; [`super::worker`] moves the connections.

/// Length of a window in which work is counted, in milliseconds.
pub const WINDOW_MS: u64 = 25;

/// Windows that make up a rate: before a change, and after it.
const WINDOWS: usize = 4;

/// Windows between a change and the first that counts.
const SETTLING_WINDOWS: usize = 2;

/// After a pause of so many windows everything is looked at anew.
const PAUSE_WINDOWS: u64 = 10;

/// From this part of a window on a worker counts as busy without a pause.
const SATURATED: f64 = 0.9;

/// Up to this part of one worker's time, the work of two fits into one without a trial's doubt.
const FITS: f64 = 0.6;

/// Beyond this, two workers are not packed, however much crosses between them.
const HOPELESS: f64 = 1.8;

/// Part of the work that comes from other workers from which packing may pay.
const CROSSING: f64 = 0.1;

/// Cores of the machine that have to be idle before work is spread: without one, two workers only get into each other's
/// way.
const IDLE_CORES_MIN: f64 = 0.5;

/// A worker with less to do per second is not worth moving anything for.
const WORK_PER_SECOND_MIN: f64 = 1000.0;

/// Packing is kept if the server does at least this part of what it did.
const PACKED_KEEPS: f64 = 0.92;

/// Spreading is kept if the server does at least so many times what it did.
const SPREAD_GAINS: f64 = 1.12;

/// The first pause after a change that was not worth it, and the longest.
const PAUSE_MS_MIN: u64 = 500;
const PAUSE_MS_MAX: u64 = 60_000;

/// A load that differs by this factor from the one of a failed trial is another load.
const OTHER_LOAD: f64 = 1.5;

/// What a worker has done since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Time in turns that had something to do, in nanoseconds.
    pub busy_ns: u64,
    /// Messages taken and deliveries made.
    pub work: u64,
    /// Messages that came from other workers.
    pub handed_over: u64,
}

/// Connections to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The worker that has them.
    pub from: usize,
    /// The worker that gets them.
    pub to: usize,
    /// How many of those that are active.
    pub share: Share,
}

/// How many of a worker's active connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Share {
    All,
    Half,
}

/// The state of the search.
#[derive(Debug)]
pub struct Placement {
    window_at_ms: u64,
    before: Vec<Load>,
    /// Work per second in the last windows since the last change.
    rates: Vec<f64>,
    /// Windows in a row in which each worker was saturated.
    saturated: Vec<usize>,
    /// Idle time of all cores so far, and when that was read.
    idle: Option<(u64, u64)>,
    trial: Option<Trial>,
    pack: Pause,
    spread: Pause,
}

/// A change whose worth is not known yet.
#[derive(Debug)]
struct Trial {
    kind: Kind,
    from: usize,
    to: usize,
    rate_before: f64,
    windows_to_skip: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pack,
    Spread,
}

/// When a kind of change may be tried again.
#[derive(Debug)]
struct Pause {
    until_ms: u64,
    next_ms: u64,
    /// The rate at which it was not worth it.
    failed_at: Option<f64>,
}

impl Default for Pause {
    fn default() -> Pause {
        Pause { until_ms: 0, next_ms: PAUSE_MS_MIN, failed_at: None }
    }
}

impl Pause {
    fn fail(&mut self, now_ms: u64, rate: f64) {
        self.until_ms = now_ms + self.next_ms;
        self.next_ms = (self.next_ms * 2).min(PAUSE_MS_MAX);
        self.failed_at = Some(rate);
    }

    fn is_over(&mut self, now_ms: u64, rate: f64) -> bool {
        if self.failed_at.is_some_and(|failed| rate > failed * OTHER_LOAD || rate < failed / OTHER_LOAD) {
            *self = Pause { until_ms: self.until_ms.min(now_ms + PAUSE_MS_MIN), ..Pause::default() };
        }
        now_ms >= self.until_ms
    }
}

/// What one worker did in one window.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// Part of the time that was busy.
    busy: f64,
    /// Per second.
    work: f64,
    handed_over: f64,
}

impl Placement {
    /// For a server that starts.
    pub fn new(workers: usize) -> Placement {
        Placement {
            window_at_ms: 0,
            before: vec![Load::default(); workers],
            rates: Vec::new(),
            saturated: vec![0; workers],
            idle: None,
            trial: None,
            pack: Pause::default(),
            spread: Pause::default(),
        }
    }

    /// Looks at what the workers have done so far. To be called at least once per window while any worker works.
    /// `idle_ms` tells how long the machine's cores have been idle, all together, since some time; it is asked only when
    /// a worker is saturated.
    pub fn observe(
        &mut self,
        now_ms: u64,
        loads: &[Load],
        idle_ms: impl FnOnce() -> Option<u64>,
    ) -> Option<Order> {
        let elapsed_ms = now_ms.saturating_sub(self.window_at_ms);
        if elapsed_ms < WINDOW_MS {
            return None;
        }
        self.window_at_ms = now_ms;
        let before = std::mem::replace(&mut self.before, loads.to_vec());
        if elapsed_ms > PAUSE_WINDOWS * WINDOW_MS {
            // The server slept: what was tried before says nothing about what comes now.
            (self.trial, self.pack, self.spread) = (None, Pause::default(), Pause::default());
            self.start_over();
            return None;
        }
        let seconds = elapsed_ms as f64 / 1e3;
        let windows: Vec<Window> = loads
            .iter()
            .zip(&before)
            .map(|(now, before)| Window {
                busy: ((now.busy_ns - before.busy_ns) as f64 / 1e9 / seconds).min(1.0),
                work: (now.work - before.work) as f64 / seconds,
                handed_over: (now.handed_over - before.handed_over) as f64 / seconds,
            })
            .collect();
        for (saturated, window) in self.saturated.iter_mut().zip(&windows) {
            *saturated = if window.busy >= SATURATED { *saturated + 1 } else { 0 };
        }
        let idle_cores = self.idle_cores(now_ms, idle_ms);
        if let Some(trial) = &mut self.trial
            && trial.windows_to_skip > 0
        {
            trial.windows_to_skip -= 1;
            return None;
        }
        self.rates.push(windows.iter().map(|window| window.work).sum());
        if self.rates.len() < WINDOWS {
            return None;
        }
        if self.rates.len() > WINDOWS {
            self.rates.remove(0);
        }
        let rate = self.rates.iter().sum::<f64>() / WINDOWS as f64;
        match self.trial.take() {
            Some(trial) => self.judge(now_ms, &trial, rate, &windows),
            None => self.try_something(now_ms, rate, &windows, idle_cores),
        }
    }

    /// Cores that were idle, on average over at least as long as a worker has been saturated; `None` if that is not known.
    fn idle_cores(&mut self, now_ms: u64, idle_ms: impl FnOnce() -> Option<u64>) -> Option<f64> {
        let longest = self.saturated.iter().max().copied().unwrap_or(0);
        if longest == 0 {
            self.idle = None;
            return None;
        }
        if self.idle.is_some() && longest < WINDOWS {
            return None;
        }
        let idle_ms = idle_ms()?;
        let (before_ms, read_at_ms) = *self.idle.get_or_insert((idle_ms, now_ms));
        if longest < WINDOWS || now_ms <= read_at_ms {
            return None;
        }
        self.idle = Some((idle_ms, now_ms));
        Some(idle_ms.saturating_sub(before_ms) as f64 / (now_ms - read_at_ms) as f64)
    }

    fn judge(&mut self, now_ms: u64, trial: &Trial, rate: f64, windows: &[Window]) -> Option<Order> {
        self.start_over();
        match trial.kind {
            Kind::Pack => {
                if rate >= trial.rate_before * PACKED_KEEPS {
                    if windows[trial.from].work >= WORK_PER_SECOND_MIN {
                        // Something there cannot move, or new connections came: not again at once.
                        self.pack.fail(now_ms, rate);
                    }
                    return None;
                }
                self.pack.fail(now_ms, trial.rate_before);
                Some(Order { from: trial.to, to: trial.from, share: Share::Half })
            }
            Kind::Spread => {
                if rate >= trial.rate_before * SPREAD_GAINS {
                    // What has just been spread is not packed again at once.
                    self.pack.fail(now_ms, rate);
                    return None;
                }
                self.spread.fail(now_ms, trial.rate_before);
                Some(Order { from: trial.to, to: trial.from, share: Share::All })
            }
        }
    }

    fn try_something(
        &mut self,
        now_ms: u64,
        rate: f64,
        windows: &[Window],
        idle_cores: Option<f64>,
    ) -> Option<Order> {
        let may_spread = idle_cores.is_some_and(|idle| idle >= IDLE_CORES_MIN);
        let (kind, order) = may_spread
            .then(|| self.spread(now_ms, rate, windows))
            .flatten()
            .map(|order| (Kind::Spread, order))
            .or_else(|| self.pack(now_ms, rate, windows).map(|order| (Kind::Pack, order)))?;
        self.trial = Some(Trial {
            kind,
            from: order.from,
            to: order.to,
            rate_before: rate,
            windows_to_skip: SETTLING_WINDOWS,
        });
        self.start_over();
        Some(order)
    }

    fn spread(&mut self, now_ms: u64, rate: f64, windows: &[Window]) -> Option<Order> {
        let from = (0..windows.len()).find(|&worker| self.saturated[worker] >= WINDOWS)?;
        let to = least_busy(windows, |worker| worker != from)?;
        if windows[to].busy > FITS || !self.spread.is_over(now_ms, rate) {
            return None;
        }
        Some(Order { from, to, share: Share::Half })
    }

    fn pack(&mut self, now_ms: u64, rate: f64, windows: &[Window]) -> Option<Order> {
        let works = |worker: usize| windows[worker].work >= WORK_PER_SECOND_MIN;
        let from = least_busy(windows, works)?;
        let to = least_busy(windows, |worker| worker != from && works(worker))?;
        let busy = windows[from].busy + windows[to].busy;
        let crossing = windows[from].handed_over + windows[to].handed_over
            >= CROSSING * (windows[from].work + windows[to].work);
        let pays = busy <= FITS || (crossing && busy <= HOPELESS);
        if !pays || !self.pack.is_over(now_ms, rate) {
            return None;
        }
        Some(Order { from, to, share: Share::All })
    }

    /// Rates from before say nothing about what follows.
    fn start_over(&mut self) {
        self.rates.clear();
        self.saturated.fill(0);
        self.idle = None;
    }
}

/// The least busy of some workers; of several equal ones the last, so that packing ends at the first.
fn least_busy(windows: &[Window], which: impl Fn(usize) -> bool) -> Option<usize> {
    let mut found: Option<usize> = None;
    for worker in (0..windows.len()).filter(|worker| which(*worker)) {
        if found.is_none_or(|found| windows[worker].busy <= windows[found].busy) {
            found = Some(worker);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Workers whose connections all talk to each other. A window's worth of work is offered; what crosses costs double.
    struct World {
        placement: Placement,
        loads: Vec<Load>,
        /// Part of the active connections at each worker.
        shares: Vec<f64>,
        now_ms: u64,
        /// Idle time per window in cores, and so far.
        idle_cores: f64,
        idle_ms: u64,
        orders: Vec<Order>,
    }

    impl World {
        fn new(shares: &[f64]) -> World {
            World {
                placement: Placement::new(shares.len()),
                loads: vec![Load::default(); shares.len()],
                shares: shares.to_vec(),
                now_ms: 0,
                idle_cores: 1.0,
                idle_ms: 0,
                orders: Vec::new(),
            }
        }

        /// One window. `work_ns` is what a unit of work costs where nothing crosses, `crossing_ns` what crossing adds,
        /// `offered` the work per window.
        fn window(&mut self, offered: f64, work_ns: f64, crossing_ns: f64) -> f64 {
            let window_ns = WINDOW_MS as f64 * 1e6;
            let mut done = 0.0;
            for (load, share) in self.loads.iter_mut().zip(&self.shares) {
                let crossing = 1.0 - share;
                let cost_ns = work_ns + crossing * crossing_ns;
                let work = (offered * share).min(window_ns / cost_ns);
                load.busy_ns += (work * cost_ns) as u64;
                load.work += work as u64;
                load.handed_over += (work * crossing) as u64;
                done += work;
            }
            self.now_ms += WINDOW_MS;
            self.idle_ms += (self.idle_cores * WINDOW_MS as f64) as u64;
            if let Some(order) = self.placement.observe(self.now_ms, &self.loads, || Some(self.idle_ms)) {
                let part = match order.share {
                    Share::All => self.shares[order.from],
                    Share::Half => self.shares[order.from] / 2.0,
                };
                self.shares[order.from] -= part;
                self.shares[order.to] += part;
                self.orders.push(order);
            }
            done
        }
    }

    #[test]
    fn little_work_is_packed_onto_one_worker_and_stays_there() {
        let mut world = World::new(&[0.25, 0.25, 0.25, 0.25]);
        for _ in 0..400 {
            world.window(1000.0, 1000.0, 500.0);
        }
        assert_eq!(world.shares.iter().filter(|share| **share > 0.0).count(), 1, "{:?}", world.shares);
        assert_eq!(world.orders.len(), 3);
    }

    #[test]
    fn workers_that_only_talk_to_each_other_are_packed_even_when_both_are_busy() {
        let mut world = World::new(&[0.5, 0.5]);
        // Crossing triples the cost: two workers do less than one.
        for _ in 0..40 {
            world.window(14_000.0, 1000.0, 4000.0);
        }
        assert_eq!(world.shares, [1.0, 0.0]);
    }

    #[test]
    fn more_work_than_one_worker_can_do_is_spread() {
        let mut world = World::new(&[1.0, 0.0]);
        let mut done = 0.0;
        for _ in 0..100 {
            done = world.window(40_000.0, 1000.0, 200.0);
        }
        assert_eq!(world.shares, [0.5, 0.5]);
        assert!(done > 35_000.0);
    }

    #[test]
    fn what_is_not_worth_it_is_undone_and_tried_ever_more_rarely() {
        let mut world = World::new(&[1.0, 0.0]);
        // One worker is saturated, but two gain nothing.
        let mut done = 0.0;
        for _ in 0..(60_000 / WINDOW_MS) {
            done += world.window(40_000.0, 1000.0, 2000.0);
        }
        let trials = world.orders.iter().filter(|order| order.share == Share::Half).count();
        assert!((3..=8).contains(&trials), "{trials}");
        let best = 25_000.0 * 60_000.0 / WINDOW_MS as f64;
        assert!(done > best * 0.97, "{}", done / best);
        assert!(world.shares[0] > 0.9);
    }

    #[test]
    fn a_load_that_grows_is_spread_although_spreading_failed_before() {
        let mut world = World::new(&[1.0, 0.0]);
        for _ in 0..2000 {
            world.window(40_000.0, 2000.0, 4000.0);
        }
        let before = world.orders.len();
        assert!(before > 2);
        // Much more goes through one worker now, and crossing costs little.
        for _ in 0..100 {
            world.window(80_000.0, 500.0, 50.0);
        }
        assert_eq!(world.shares, [0.5, 0.5]);
    }

    #[test]
    fn nothing_is_spread_onto_a_machine_without_an_idle_core() {
        let mut world = World::new(&[1.0, 0.0]);
        world.idle_cores = 0.2;
        for _ in 0..400 {
            world.window(40_000.0, 1000.0, 200.0);
        }
        assert_eq!(world.orders, []);
        world.idle_cores = 1.0;
        for _ in 0..100 {
            world.window(40_000.0, 1000.0, 200.0);
        }
        assert_eq!(world.shares, [0.5, 0.5]);
    }

    #[test]
    fn a_trickle_moves_nothing() {
        let mut world = World::new(&[0.5, 0.5]);
        for _ in 0..200 {
            world.window(10.0, 1000.0, 5000.0);
        }
        assert_eq!(world.orders, []);
    }

    #[test]
    fn independent_work_that_fills_two_workers_stays_spread() {
        let mut world = World::new(&[0.5, 0.5]);
        for _ in 0..200 {
            world.window(48_000.0, 1000.0, 0.0);
        }
        assert_eq!(world.shares, [0.5, 0.5]);
        assert!(world.orders.len() <= 6, "{:?}", world.orders);
    }
}
