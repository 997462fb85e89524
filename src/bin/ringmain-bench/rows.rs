//! The rows of a comparison: what is measured, which figures count, and what Ringmain must reach.
//! Only definitions; `compare` runs them and `page` prints them.

use std::time::Duration;

use crate::args::{Command, Options};
use crate::jetstream;
use crate::report::Outcome;
use crate::spawned::Setting;

/// One kind of work.
#[derive(Debug)]
pub struct Row {
    pub key: &'static str,
    pub title: &'static str,
    pub options: fn(&mut Options, Scale),
    pub command: Command,
    /// How the servers are started.
    pub setting: Setting,
    /// What takes long is measured in so many rounds at most.
    pub rounds_max: usize,
    pub metrics: &'static [Metric],
}

/// How long to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    Full,
    Quick,
}

/// One figure of a row.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub show: Show,
    pub better: Better,
    pub value: fn(&Outcome) -> Option<f64>,
    pub goal: Goal,
}

/// How a figure is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    PerSecond,
    Nanoseconds,
    Bytes,
    Percent,
    Count,
    Plain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
}

/// What Ringmain must reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    None,
    /// So many times better than nats-server.
    Times(f64),
    /// The figure itself, at most.
    AtMost(f64),
    /// The figure itself, at least.
    AtLeast(f64),
}

impl Row {
    /// The options of one measurement of this row.
    pub fn options(&self, scale: Scale) -> Options {
        let mut options = Options::for_command(self.command);
        (options.duration, options.warmup, options.settle) = match scale {
            Scale::Full => (Duration::from_secs(2), Duration::from_millis(300), Duration::from_secs(1)),
            Scale::Quick => {
                (Duration::from_millis(700), Duration::from_millis(200), Duration::from_millis(300))
            }
        };
        (self.options)(&mut options, scale);
        options
    }
}

/// Every row, in the order of the page.
pub fn all() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain(jetstream::rows::ROWS)
}

/// Names of several rows: those of core NATS, those of JetStream.
pub const GROUPS: [&str; 2] = ["core", "jetstream"];

impl Row {
    /// Whether `--only` means it by this word.
    pub fn is_called(&self, word: &str) -> bool {
        let group = GROUPS[usize::from(self.key.starts_with("js-"))];
        word == self.key || word == group
    }
}

pub fn keys() -> Vec<&'static str> {
    all().map(|row| row.key).collect()
}

pub const fn rate(goal: Goal) -> Metric {
    Metric {
        name: "rate",
        show: Show::PerSecond,
        better: Better::More,
        value: |outcome| Some(outcome.rate_per_s),
        goal,
    }
}

pub const fn cpu(goal: Goal) -> Metric {
    Metric {
        name: "server CPU",
        show: Show::Nanoseconds,
        better: Better::Less,
        value: |outcome| outcome.server_cpu_ns_per_msg,
        goal,
    }
}

pub const fn latency(name: &'static str, value: fn(&Outcome) -> Option<f64>, goal: Goal) -> Metric {
    Metric { name, show: Show::Nanoseconds, better: Better::Less, value, goal }
}

pub const fn more(
    name: &'static str,
    show: Show,
    better: Better,
    value: fn(&Outcome) -> Option<f64>,
    goal: Goal,
) -> Metric {
    Metric { name, show, better, value, goal }
}

pub fn p50(outcome: &Outcome) -> Option<f64> {
    outcome.latency.as_ref().map(|latency| latency.p50_ns as f64)
}

pub fn p99(outcome: &Outcome) -> Option<f64> {
    outcome.latency.as_ref().map(|latency| latency.p99_ns as f64)
}

fn p999(outcome: &Outcome) -> Option<f64> {
    outcome.latency.as_ref().map(|latency| latency.p999_ns as f64)
}

/// Those of core NATS, in the order of the page.
const ROWS: &[Row] = &[
    Row {
        key: "publish",
        title: "publish 16 B, nobody listening",
        command: Command::Publish,
        setting: Setting::Core,
        rounds_max: usize::MAX,
        options: |_, _| {},
        metrics: &[rate(Goal::Times(3.0)), cpu(Goal::Times(4.0))],
    },
    Row {
        key: "one-to-one",
        title: "1 → 1, 128 B",
        command: Command::Fanout,
        setting: Setting::Core,
        rounds_max: usize::MAX,
        options: |options, _| options.subscribers = 1,
        metrics: &[rate(Goal::Times(3.0)), cpu(Goal::Times(4.0))],
    },
    Row {
        key: "one-to-ten",
        title: "1 → 10, 128 B (per delivery)",
        command: Command::Fanout,
        setting: Setting::Core,
        rounds_max: usize::MAX,
        options: |options, _| options.subscribers = 10,
        metrics: &[rate(Goal::Times(2.5)), cpu(Goal::Times(3.5))],
    },
    Row {
        key: "pairs-1k",
        title: "4 pairs, 128 B, 1,000 subjects",
        command: Command::Pairs,
        setting: Setting::Core,
        rounds_max: usize::MAX,
        options: |options, _| options.subjects = 1_000,
        metrics: &[rate(Goal::None), cpu(Goal::Times(4.0))],
    },
    Row {
        key: "pairs-100k",
        title: "4 pairs, 128 B, 100,000 subjects",
        command: Command::Pairs,
        setting: Setting::Core,
        rounds_max: usize::MAX,
        options: |options, _| options.subjects = 100_000,
        metrics: &[rate(Goal::None), cpu(Goal::Times(4.0))],
    },
    Row {
        key: "request-50",
        title: "request/reply, 50 connections",
        command: Command::Request,
        setting: Setting::Core,
        rounds_max: usize::MAX,
        options: |options, _| options.connections = 50,
        metrics: &[
            rate(Goal::None),
            cpu(Goal::Times(4.0)),
            latency("p50", p50, Goal::None),
            latency("p99", p99, Goal::Times(3.0)),
            latency("p99.9", p999, Goal::Times(2.0)),
        ],
    },
    Row {
        key: "request-1",
        title: "request/reply, 1 connection",
        command: Command::Request,
        setting: Setting::Core,
        rounds_max: usize::MAX,
        options: |options, _| options.connections = 1,
        metrics: &[
            rate(Goal::None),
            cpu(Goal::Times(2.0)),
            latency("p50", p50, Goal::Times(1.0)),
            latency("p99", p99, Goal::None),
            latency("p99.9", p999, Goal::None),
        ],
    },
    Row {
        key: "large",
        title: "1 → 4, 16 KiB (per delivery)",
        command: Command::Fanout,
        setting: Setting::Core,
        rounds_max: usize::MAX,
        options: |options, _| (options.subscribers, options.size) = (4, 16 * 1024),
        metrics: &[rate(Goal::Times(1.0)), cpu(Goal::Times(1.5))],
    },
    Row {
        key: "idle",
        title: "idle connections with a subscription",
        command: Command::Idle,
        setting: Setting::Core,
        rounds_max: usize::MAX,
        options: |options, scale| options.connections = if scale == Scale::Full { 5_000 } else { 2_000 },
        metrics: &[more(
            "memory each",
            Show::Bytes,
            Better::Less,
            |outcome| outcome.more.get("rss_bytes_per_connection").copied(),
            Goal::AtMost(4_000.0),
        )],
    },
    Row {
        key: "connections",
        title: "15,000 connections",
        command: Command::Idle,
        setting: Setting::Core,
        rounds_max: usize::MAX,
        options: |options, _| options.connections = 15_000,
        metrics: &[
            more(
                "that work",
                Show::Count,
                Better::More,
                |outcome| Some(outcome.count as f64),
                Goal::AtLeast(15_000.0),
            ),
            more("opened", Show::PerSecond, Better::More, |outcome| Some(outcome.rate_per_s), Goal::None),
            cpu(Goal::None),
        ],
    },
    Row {
        key: "subs",
        title: "100,000 subscriptions on a connection",
        command: Command::Subs,
        setting: Setting::Core,
        rounds_max: usize::MAX,
        options: |_, _| {},
        metrics: &[
            more(
                "memory each",
                Show::Bytes,
                Better::Less,
                |outcome| outcome.more.get("rss_bytes_per_subscription").copied(),
                Goal::AtMost(250.0),
            ),
            more(
                "time each",
                Show::Nanoseconds,
                Better::Less,
                |outcome| outcome.more.get("wall_ns_per_subscription").copied(),
                Goal::AtMost(1_000.0),
            ),
            cpu(Goal::AtMost(1_000.0)),
        ],
    },
    Row {
        key: "churn",
        title: "1 → 1 beside 100,000 inboxes a second",
        command: Command::Churn,
        setting: Setting::Core,
        rounds_max: usize::MAX,
        options: |options, scale| {
            if scale == Scale::Full {
                options.duration = Duration::from_millis(2_500);
            }
        },
        metrics: &[
            more(
                "throughput lost",
                Show::Percent,
                Better::Less,
                |outcome| outcome.more.get("loss_percent").copied(),
                Goal::AtMost(20.0),
            ),
            rate(Goal::None),
            more(
                "inboxes",
                Show::PerSecond,
                Better::More,
                |outcome| outcome.more.get("churn_per_s").copied(),
                Goal::None,
            ),
        ],
    },
    Row {
        key: "latency",
        title: "1 → 1, 128 B at 100,000 messages a second",
        command: Command::Latency,
        setting: Setting::Core,
        rounds_max: usize::MAX,
        options: |_, _| {},
        metrics: &[
            cpu(Goal::None),
            latency("p50", p50, Goal::None),
            latency("p99", p99, Goal::None),
            latency("p99.9", p999, Goal::None),
            // How late the publisher woke up is part of the latencies above.
            latency(
                "of it the tool's, p99",
                |outcome| outcome.more.get("tool_late_p99_us").map(|us| us * 1e3),
                Goal::None,
            ),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unique_and_options_belong_to_the_command() {
        let mut keys = keys();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all().count());
        for row in all() {
            assert_eq!(row.options(Scale::Full).command, row.command);
            assert!(row.options(Scale::Quick).duration <= row.options(Scale::Full).duration);
        }
    }
}
