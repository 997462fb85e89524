//! `compare`: two servers, the same work, in turn, in one run. Medians over the rounds go to a page.
//!
//! Every measurement gets a freshly started server, so that no row inherits another's memory, and the order
//! of the two changes with every round. A measurement that fails does not end the run: the page says so.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use crate::args::Options;
use crate::churn::median;
use crate::error::BenchError;
use crate::page;
use crate::report::{self, Outcome};
use crate::rows::{self, Row, Scale};
use crate::server_usage;
use crate::spawned::{self, Server, Setting, StoreDirectory};

/// Which of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Reference,
    Candidate,
}

/// One measurement of one row.
#[derive(Debug, Serialize)]
pub struct Sample {
    pub row: &'static str,
    pub round: usize,
    pub side: Side,
    /// Share of the machine's CPU that neither the server nor this tool used.
    pub others_percent: f64,
    #[serde(flatten)]
    pub result: SampleResult,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleResult {
    Outcome(Box<Outcome>),
    Error(String),
}

/// All measurements of a run and what they were made with.
pub struct Comparison {
    pub versions: HashMap<Side, String>,
    pub rounds: usize,
    /// Where the streams were: the directory's file system.
    pub storage: String,
    pub scale: Scale,
    pub rows: Vec<&'static Row>,
    pub samples: Vec<Sample>,
}

impl Comparison {
    /// The values of one figure, one per round that succeeded.
    pub fn values(&self, row: &Row, side: Side, value: fn(&Outcome) -> Option<f64>) -> Vec<f64> {
        self.of(row, side)
            .filter_map(|sample| match &sample.result {
                SampleResult::Outcome(outcome) => value(outcome),
                SampleResult::Error(_) => None,
            })
            .collect()
    }

    pub fn median(&self, row: &Row, side: Side, value: fn(&Outcome) -> Option<f64>) -> Option<f64> {
        let values = self.values(row, side, value);
        (!values.is_empty()).then(|| median(values))
    }

    /// Share of the machine that other processes had while a row was measured.
    pub fn others_percent(&self, row: &Row, side: Side) -> f64 {
        median(self.of(row, side).map(|sample| sample.others_percent).collect())
    }

    /// The first error of a row, if it had any.
    pub fn error(&self, row: &Row, side: Side) -> Option<&str> {
        self.of(row, side).find_map(|sample| match &sample.result {
            SampleResult::Error(text) => Some(text.as_str()),
            SampleResult::Outcome(_) => None,
        })
    }

    fn of(&self, row: &Row, side: Side) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.row == row.key && sample.side == side)
    }
}

pub fn run(options: &Options) -> Result<(), BenchError> {
    let path_of = |path: &Option<PathBuf>| path.clone().expect("checked with the command line");
    let (reference, candidate) = (path_of(&options.reference), path_of(&options.candidate));
    let scale = if options.quick { Scale::Quick } else { Scale::Full };
    let rounds = if options.quick { 1 } else { options.rounds };
    let rows = chosen(&options.only)?;
    let versions = HashMap::from([
        (Side::Reference, spawned::version_of(&reference)?),
        (Side::Candidate, spawned::version_of(&candidate)?),
    ]);

    spawned::remove_abandoned(&options.store);
    let storage = spawned::file_system_of(&options.store);
    let mut comparison =
        Comparison { versions, rounds, storage, scale, rows: rows.clone(), samples: Vec::new() };
    for round in 0..rounds {
        for row in rows.iter().filter(|row| round < row.rounds_max) {
            let mut sides = [(Side::Reference, &reference), (Side::Candidate, &candidate)];
            if round % 2 == 1 {
                sides.reverse();
            }
            for (side, program) in sides {
                let (result, others_percent) = measure(row, program, scale, options);
                if !options.quiet {
                    eprintln!(
                        "{}/{rounds} {:<17} {:<9} {}, others {others_percent:.0} %",
                        round + 1,
                        row.key,
                        name(side),
                        brief(row, &result)
                    );
                }
                comparison.samples.push(Sample { row: row.key, round, side, others_percent, result });
            }
        }
    }

    if let Some(path) = &options.json_out {
        let text = serde_json::to_string_pretty(&comparison.samples).expect("samples are plain data");
        write(path, &text)?;
    }
    let text = page::markdown(&comparison);
    match &options.out {
        Some(path) => write(path, &text)?,
        None => print!("{text}"),
    }
    let failed =
        comparison.samples.iter().filter(|sample| matches!(sample.result, SampleResult::Error(_))).count();
    if failed > 0 { Err(BenchError::Rows(failed)) } else { Ok(()) }
}

fn chosen(only: &[String]) -> Result<Vec<&'static Row>, BenchError> {
    if let Some(unknown) = only.iter().find(|word| !rows::all().any(|row| row.is_called(word))) {
        let known = [&rows::GROUPS[..], &rows::keys()[..]].concat().join(", ");
        return Err(BenchError::Unsupported(format!("--only: there is no row '{unknown}', only {known}")));
    }
    Ok(rows::all().filter(|row| only.is_empty() || only.iter().any(|word| row.is_called(word))).collect())
}

/// One measurement with a server of its own, and the share of the machine that others had meanwhile.
fn measure(row: &Row, program: &Path, scale: Scale, all: &Options) -> (SampleResult, f64) {
    let options = Options {
        program: Some(program.to_owned()),
        store: all.store.clone(),
        quiet: true,
        ..row.options(scale)
    };
    if row.setting == Setting::StartsItself {
        let result = match crate::run(&options) {
            Ok(outcome) => SampleResult::Outcome(Box::new(outcome)),
            Err(error) => SampleResult::Error(error.to_string()),
        };
        return (result, 0.0);
    }
    let started = match row.setting {
        Setting::Core => Server::start(program, row.setting, None).map(|server| (server, None)),
        _ => StoreDirectory::make(&options.store).and_then(|directory| {
            Server::start(program, row.setting, Some(&directory)).map(|server| (server, Some(directory)))
        }),
    };
    // The directory goes after the server.
    let (mut server, _directory) = match started {
        Ok((server, directory)) => (server, directory),
        Err(error) => return (SampleResult::Error(error.to_string()), 0.0),
    };
    let options = Options { server: server.address.clone(), server_pid: Some(server.pid()), ..options };
    let watch = Disturbance::start(server.pid());
    let result = match crate::run(&options) {
        Ok(outcome) => SampleResult::Outcome(Box::new(outcome)),
        Err(error) => SampleResult::Error(match server.ended() {
            Some(status) => format!("the server ended ({status}) during the measurement: {error}"),
            None => error.to_string(),
        }),
    };
    (result, watch.others_percent(server.pid()))
}

/// Watches how much CPU is used by anything but the server and this tool: figures from a busy machine are
/// still comparable with each other, but the page must say that it was busy.
struct Disturbance {
    started: Instant,
    machine_ns: u64,
    ours_ns: u64,
}

impl Disturbance {
    fn start(pid: u32) -> Disturbance {
        Disturbance {
            started: Instant::now(),
            machine_ns: server_usage::machine_busy_ns(),
            ours_ns: ours_ns(pid),
        }
    }

    fn others_percent(&self, pid: u32) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let machine = server_usage::machine_busy_ns().saturating_sub(self.machine_ns);
        let others = machine.saturating_sub(ours_ns(pid).saturating_sub(self.ours_ns));
        others as f64 / (self.started.elapsed().as_nanos() as f64 * cores) * 100.0
    }
}

fn ours_ns(pid: u32) -> u64 {
    server_usage::own_cpu_ns() + server_usage::cpu_ns(pid).unwrap_or(0)
}

fn name(side: Side) -> &'static str {
    match side {
        Side::Reference => "reference",
        Side::Candidate => "candidate",
    }
}

fn brief(row: &Row, result: &SampleResult) -> String {
    match result {
        SampleResult::Error(text) => format!("FAILED: {text}"),
        SampleResult::Outcome(outcome) => {
            let figures: Vec<String> = row
                .metrics
                .iter()
                .filter_map(|metric| {
                    Some(format!("{} {}", metric.name, page::shown(metric.show, (metric.value)(outcome)?)))
                })
                .collect();
            format!("{}; tool CPU {}", figures.join(", "), report::time(outcome.client_cpu_ns_per_msg))
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), BenchError> {
    let failed = || BenchError::io(format!("writing {}", path.display()));
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(failed())?;
    }
    fs::write(path, text).map_err(failed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_rows_are_named_with_the_known_ones() {
        let error = chosen(&["publish".to_owned(), "fly".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("'fly'") && error.contains("request-50"), "{error}");
        assert_eq!(chosen(&["churn".to_owned()]).unwrap().len(), 1);
        assert_eq!(chosen(&[]).unwrap().len(), rows::keys().len());
        let groups = rows::GROUPS.map(|group| chosen(&[group.to_owned()]).unwrap().len());
        assert!(groups.iter().all(|count| *count > 0) && groups.iter().sum::<usize>() == rows::keys().len());
    }
}
