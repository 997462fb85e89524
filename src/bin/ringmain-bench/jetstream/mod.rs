//! JetStream under load: what is published with acknowledgements, consumed, listed and found again after a restart.
//!
//! As everywhere in this tool nothing here is a client library: requests are bytes that were made beforehand, and
//! what a client would look at is looked at and no more. Each measurement makes its own streams and deletes them.
//!
//! * [`api`]: requests to the API, one at a time; [`pipeline`]: many at once, with a window of unanswered ones.
//! * [`publish`]: into one stream or many, [`subjects`]: what many subjects cost, [`kv`]: put and get.
//! * [`consume`]: pulled with acknowledgements, [`work`]: by workers of whom some die, [`replay`]: pushed in order,
//!   [`keys`]: keys listed, [`filtered`]: rare messages found, [`consumers`]: many that do nothing.
//! * [`restart`]: how long until a server has its stream again.
//! * [`rows`]: what of this a comparison measures, and its goals.

mod api;
pub mod consume;
pub mod consumers;
pub mod filtered;
pub mod keys;
pub mod kv;
mod ordered;
mod pipeline;
pub mod publish;
pub mod replay;
pub mod restart;
pub mod rows;
pub mod subjects;
pub mod work;

use std::time::{Duration, Instant};

use crate::args::Options;
use crate::error::BenchError;
use crate::report::Outcome;
use crate::server_usage::{self, Usage};

/// What was used between two moments.
struct Meter {
    started: Instant,
    server: Option<Usage>,
    tool_cpu_ns: u64,
}

impl Meter {
    fn start(options: &Options) -> Result<Meter, BenchError> {
        let server = options.server_pid.map(server_usage::of_process).transpose()?;
        Ok(Meter { started: Instant::now(), server, tool_cpu_ns: server_usage::own_cpu_ns() })
    }

    /// The result for `count` of something, which took `elapsed`, or until now.
    fn stop(
        self,
        command: &'static str,
        unit: &'static str,
        what: String,
        count: u64,
        elapsed: Option<Duration>,
        options: &Options,
    ) -> Result<Outcome, BenchError> {
        let elapsed_s = elapsed.unwrap_or(self.started.elapsed()).as_secs_f64();
        let tool_cpu_ns = server_usage::own_cpu_ns() - self.tool_cpu_ns;
        let server = options.server_pid.map(server_usage::of_process).transpose()?;
        let used = self.server.zip(server).map(|(before, after)| after.cpu_ns - before.cpu_ns);
        Ok(Outcome {
            command,
            what,
            server: options.server.clone(),
            server_version: String::new(),
            unit,
            count,
            elapsed_s,
            rate_per_s: count as f64 / elapsed_s,
            payload_bytes_per_s: None,
            server_cpu_ns_per_msg: used.map(|used| used as f64 / count as f64),
            client_cpu_ns_per_msg: tool_cpu_ns as f64 / count as f64,
            server_rss_bytes: server.map(|server| server.rss_bytes),
            latency: None,
            more: Default::default(),
        })
    }
}
