//! Any text as a configuration file, as an included file and as a variable of the environment: no panic, no hang.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmain::config::lang::{Environment, Files, ReadError};
use ringmain::config::load_from;

struct World<'a>(&'a str);

impl Files for World<'_> {
    fn read(&self, _path: &str) -> Result<String, ReadError> {
        Ok(self.0.to_owned())
    }
}

impl Environment for World<'_> {
    fn variable(&self, _name: &str) -> Option<String> {
        Some(self.0.to_owned())
    }
}

fuzz_target!(|text: &str| {
    let world = World(text);
    let _ = load_from(["-c".into(), "server.conf".into()], &world, &world);
});
