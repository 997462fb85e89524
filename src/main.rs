//! The `ringmain` server: arguments and configuration in, a running server out.

use std::process::ExitCode;

use ringmain::config::{self, ConfigError, Startup};
use ringmain::server::run::{self, ServerOptions};
use ringmain::server::signal;

fn main() -> ExitCode {
    // A worker that dies would leave the others waiting for it: better to end, and be restarted. (The profile of releases says so too;
    // that of development does not, so that its tests and its programs share one library.)
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    match config::load(std::env::args_os().skip(1)) {
        Ok(Startup::Run(options, warnings)) => {
            let options =
                run::new_nonce_key().and_then(|key| Ok(ServerOptions::new(*options, &warnings, key)?));
            match options.and_then(run::run) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    // The log has it already if there is one.
                    if !error.is_logged() {
                        eprintln!("nats-server: {error}");
                    }
                    ExitCode::FAILURE
                }
            }
        }
        Ok(Startup::PrintAndExit { stdout, stderr, code }) => {
            eprint!("{stderr}");
            print!("{stdout}");
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        Ok(Startup::Signal(signal, target)) => match signal::send(signal, &target) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("nats-server: {error}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("nats-server: {error}");
            ExitCode::from(u8::try_from(ConfigError::EXIT_CODE).unwrap_or(1))
        }
    }
}
