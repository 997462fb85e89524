//! `ringmain-bench`: a load tool for any server that speaks the NATS client protocol.
//!
//! It is not a client library and not a test suite: it sends what was encoded beforehand over raw
//! sockets and counts what comes back, so that the server is the limit and not the tool.
//!
//! The map: `args` turns the command line into [`args::Options`]; one file per kind of work
//! (`publish`, `fanout`, `pairs`, `request`, `connections`, `subscriptions`, `churn`, `latency`)
//! runs it and returns a [`report::Outcome`], those of JetStream in `jetstream`; `compare` runs them against two servers in turn.
//! Below them: `flow` (publishers, readers and the measured window), `reader` and `tally`
//! (subscribers that cost next to nothing), `client` (the handshake), `websocket`, `tls_relay` (encryption), `frames`
//! (bytes on the wire),
//! `epoll` and `server_usage` (what the kernel is asked).

mod args;
mod churn;
mod client;
mod compare;
mod connections;
mod epoll;
mod error;
mod fanout;
mod flow;
mod frames;
mod inbox;
mod jetstream;
mod latency;
mod page;
mod pairs;
mod progress;
mod publish;
mod reader;
mod report;
mod request;
mod rows;
mod schedule;
mod server_usage;
mod spawned;
mod subscriptions;
mod tally;
mod tls_relay;
mod websocket;

use std::process::ExitCode;

use args::{Command, Invocation, Options};
use error::BenchError;
use report::Outcome;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = match args::parse(&arguments) {
        Ok(Invocation::Run(options)) => options,
        Ok(Invocation::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("ringmain-bench: {problem}");
            return ExitCode::FAILURE;
        }
    };
    server_usage::raise_open_files_limit();

    let result = match options.command {
        Command::Compare => compare::run(&options),
        _ => run(&options).map(|outcome| report::print(&outcome, &options)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringmain-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One measurement against one server.
fn run(options: &Options) -> Result<Outcome, BenchError> {
    match options.command {
        Command::Publish => publish::run(options),
        Command::Fanout => fanout::run(options),
        Command::Pairs => pairs::run(options),
        Command::Request => request::run(options),
        Command::Idle => connections::run(options),
        Command::Subs => subscriptions::run(options),
        Command::Churn => churn::run(options),
        Command::Latency => latency::run(options),
        Command::JsPublish => jetstream::publish::run(options),
        Command::JsSubjects => jetstream::subjects::run(options),
        Command::JsConsume => jetstream::consume::run(options),
        Command::JsReplay => jetstream::replay::run(options),
        Command::JsFiltered => jetstream::filtered::run(options),
        Command::JsConsumers => jetstream::consumers::run(options),
        Command::JsKv => jetstream::kv::run(options),
        Command::JsKeys => jetstream::keys::run(options),
        Command::JsWork => jetstream::work::run(options),
        Command::JsRestart => jetstream::restart::run(options),
        Command::Compare => unreachable!("compare is not a measurement of one server"),
    }
}
