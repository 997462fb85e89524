//! The `ringmain` server: arguments, configuration, run.

use ringmain::broker::Settings;
use ringmain::server::log::LogSettings;
use ringmain::server::run::{self, ServerOptions};

fn main() -> std::process::ExitCode {
    let mut args = std::env::args().skip(1);
    let mut o = ServerOptions {
        host: "0.0.0.0".into(), port: 4222, server_name: String::new(), workers: 0, connections_max: 65536,
        pid_file: None, settings: Settings::default(), log: LogSettings::default(), warnings: vec![],
    };
    while let Some(a) = args.next() {
        match a.as_str() {
            "-p" => { let p: i32 = args.next().unwrap().parse().unwrap(); o.port = if p < 0 { 0 } else { p as u16 } }
            "-a" => o.host = args.next().unwrap(),
            "--workers" => o.workers = args.next().unwrap().parse().unwrap(),
            "-D" => { o.log.debug = true; o.settings.debug = true }
            "-V" => { o.log.trace = true; o.settings.trace = true }
            _ => panic!("{a}"),
        }
    }
    match run::run(o) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => { eprintln!("{error}"); std::process::ExitCode::FAILURE }
    }
}
