//! The result of one measurement, as a table for people and as JSON for programs.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::args::Options;

/// Longest latency that is recorded as it is; anything longer counts as this.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// What a measurement found. `unit` says what `count` counts; everything "per msg" is per unit.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    pub command: &'static str,
    pub what: String,
    pub server: String,
    pub server_version: String,
    pub unit: &'static str,
    pub count: u64,
    pub elapsed_s: f64,
    pub rate_per_s: f64,
    pub payload_bytes_per_s: Option<f64>,
    pub server_cpu_ns_per_msg: Option<f64>,
    pub client_cpu_ns_per_msg: f64,
    pub server_rss_bytes: Option<u64>,
    pub latency: Option<Latency>,
    /// Figures that only this kind of measurement has.
    pub more: BTreeMap<&'static str, f64>,
}

/// Percentiles in nanoseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    pub count: u64,
    pub min_ns: u64,
    pub mean_ns: f64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
}

impl Latency {
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        Latency {
            count: histogram.len(),
            min_ns: histogram.min(),
            mean_ns: histogram.mean(),
            p50_ns: histogram.value_at_quantile(0.5),
            p90_ns: histogram.value_at_quantile(0.9),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
        }
    }
}

/// Nanoseconds with three significant digits. Record with `saturating_record`.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are valid")
}

/// Prints the outcome as the options ask.
pub fn print(outcome: &Outcome, options: &Options) {
    if options.json {
        println!("{}", serde_json::to_string_pretty(outcome).expect("an outcome is plain data"));
    } else {
        print!("{}", table(outcome));
    }
}

fn table(outcome: &Outcome) -> String {
    let unit = outcome.unit;
    let units = if unit == "delivery" { "deliveries".to_owned() } else { format!("{unit}s") };
    let mut lines: Vec<(String, String)> = vec![
        ("server".into(), format!("{} ({})", outcome.server, outcome.server_version)),
        (units.clone(), grouped(outcome.count as f64)),
        ("elapsed".into(), format!("{:.3} s", outcome.elapsed_s)),
        ("rate".into(), format!("{} {units}/s", grouped(outcome.rate_per_s))),
    ];
    if let Some(rate) = outcome.payload_bytes_per_s {
        lines.push(("payload".into(), format!("{:.1} MB/s", rate / 1e6)));
    }
    if let Some(cpu) = outcome.server_cpu_ns_per_msg {
        lines.push(("server CPU".into(), format!("{} per {unit}", time(cpu))));
    }
    lines.push(("tool CPU".into(), format!("{} per {unit}", time(outcome.client_cpu_ns_per_msg))));
    if let Some(rss) = outcome.server_rss_bytes {
        lines.push(("server memory".into(), bytes(rss as f64)));
    }
    for (name, value) in &outcome.more {
        lines.push((name.replace('_', " "), grouped_or_small(*value)));
    }
    if let Some(latency) = &outcome.latency {
        for (name, ns) in [
            ("latency p50", latency.p50_ns),
            ("p90", latency.p90_ns),
            ("p99", latency.p99_ns),
            ("p99.9", latency.p999_ns),
            ("max", latency.max_ns),
        ] {
            lines.push((name.into(), time(ns as f64)));
        }
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = format!("{}: {}\n", outcome.command, outcome.what);
    for (name, value) in lines {
        text.push_str(&format!("  {name:<width$}  {value}\n"));
    }
    text
}

/// A duration in the unit that suits it.
pub fn time(ns: f64) -> String {
    match ns {
        _ if ns.abs() < 1_000.0 => format!("{} ns", significant(ns)),
        _ if ns < 1e6 => format!("{} µs", significant(ns / 1e3)),
        _ if ns < 1e9 => format!("{} ms", significant(ns / 1e6)),
        _ => format!("{} s", significant(ns / 1e9)),
    }
}

/// A size in the unit that suits it.
pub fn bytes(count: f64) -> String {
    match count {
        _ if count.abs() < 1e3 => format!("{count:.0} B"),
        _ if count < 1e6 => format!("{} KB", significant(count / 1e3)),
        _ if count < 1e9 => format!("{} MB", significant(count / 1e6)),
        _ => format!("{} GB", significant(count / 1e9)),
    }
}

/// Thousands separated by commas.
pub fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

fn grouped_or_small(value: f64) -> String {
    if value.abs() < 100.0 { significant(value) } else { grouped(value) }
}

/// Three digits are what a measurement like this is worth.
fn significant(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_printed_with_three_digits_and_a_unit() {
        assert_eq!(time(132.4), "132 ns");
        assert_eq!(time(18_900.0), "18.9 µs");
        assert_eq!(time(3_456_000.0), "3.46 ms");
        assert_eq!(bytes(984.0), "984 B");
        assert_eq!(bytes(33_000.0), "33.0 KB");
        assert_eq!(grouped(7_600_000.4), "7,600,000");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(-1_000.0), "-1,000");
    }

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut histogram = new_histogram();
        for value in 1..=10_000u64 {
            histogram.saturating_record(value * 1_000);
        }
        let latency = Latency::of(&histogram);
        let close = |got: u64, wanted: f64| (got as f64 / wanted - 1.0).abs() < 0.002;
        assert!(close(latency.p50_ns, 5e6) && close(latency.p99_ns, 9.9e6) && close(latency.p999_ns, 9.99e6));
        assert_eq!(latency.count, 10_000);
    }
}
