//! The configuration read again, on SIGHUP: everything is read and compared first; only if all of it may change is
//! anything done. The texts are the reference's.

use super::log::Log;
use super::run::{Advertised, Files, ServerOptions};
use super::shared::{LiveSettings, Shared};
use crate::base::system_error;
use crate::broker::install_services;
use crate::config::{self, Startup};
use crate::subject::interest::InterestAccess as _;

/// Reads the configuration again and goes by it, or says in the log why not. `options` are what the server runs with.
///
/// # Errors
///
/// Why not.
pub async fn reload(
    options: &mut ServerOptions,
    advertised: &Advertised,
    shared: &Shared,
    files: &mut Files,
    log: &Log,
) -> Result<(), String> {
    let reloaded = try_reload(options, advertised, shared, files, log).await;
    if let Err(error) = &reloaded {
        log.error(format!("Failed to reload server configuration: {error}"));
    }
    reloaded
}

async fn try_reload(
    options: &mut ServerOptions,
    advertised: &Advertised,
    shared: &Shared,
    files: &mut Files,
    log: &Log,
) -> Result<(), String> {
    let (new, lines) = read(options)?;
    if new.log != options.log
        && let Err(error) = log.reconfigure(new.log.clone())
    {
        let file = new.configured.log_file.unwrap_or_default();
        let (file, error) = (file.display(), system_error::text(&error));
        return Err(format!("error opening file: open {file}: {error}"));
    }
    for warning in new.warnings.iter().filter(|warning| !options.warnings.contains(warning)) {
        log.warning(warning.clone());
    }
    let mut interests = shared.live.lock().interests.clone();
    interests.resize_with(new.settings.directory.accounts().slots(), Default::default);
    if let Some(desk) = &shared.routes {
        for interest in &interests {
            interest.write(|interest| interest.set_watch(desk.watch.clone()));
        }
    }
    install_services(new.settings.directory.accounts(), &interests);
    let live = LiveSettings {
        settings: new.settings.clone(),
        info: advertised.info(&new),
        acceptor: new.acceptor.clone(),
        web_entrance: new.web_entrance.clone(),
        interests,
    };
    let closed = shared.change_settings(live, new.connections_max).await;
    if closed > 0 {
        log.info(format!("Closed {closed} connections to fall within max_connections"));
    }
    files.change(options, &new, log);
    for line in lines {
        log.info(line);
    }
    let digest = new.configured.config_digest.clone().unwrap_or_default();
    *options = new;
    log.info(format!("Reloaded server configuration ({digest})"));
    Ok(())
}

/// The options as they are configured now, and a line for each that has changed.
fn read(running: &ServerOptions) -> Result<(ServerOptions, Vec<String>), String> {
    if running.configured.config_file.is_none() {
        return Err("can only reload config when a file is provided using -c or --config".to_owned());
    }
    let startup = config::load(std::env::args_os().skip(1)).map_err(|error| error.to_string())?;
    let Startup::Run(configured, warnings) = startup else {
        unreachable!("the same command line started the server");
    };
    let lines = config::compare(&running.configured, &configured).map_err(|error| error.to_string())?;
    configured.monitoring().map_err(|error| error.to_string())?;
    let new = running.successor(*configured, &warnings).map_err(|error| error.to_string())?;
    Ok((new, lines))
}
