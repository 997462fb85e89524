//! Restoring a stream from any bytes: compressed ones as they come, and archives and tar files that are compressed here.
//!
//! Finds: panics, hangs, unbounded memory, a stream that has more than its backup says. Checksums are not looked at when fuzzing, so that
//! what is behind them gets its share.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run restore`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmain::store::{MemoryStore, Store};
use ringmain::stream::StreamConfig;
use ringmain::stream::backup::restore::{Progress, Restoration, RestoreSettings, restore_consumers};
use ringmain::stream::backup::s2::Encoder;
use ringmain::stream::consumer::{Consumers, Limits, Site, StreamFacts};

const NOW_NS: i64 = 1_800_000_000_000_000_000;
const BYTES_MAX: u64 = 16 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((&how, data)) = data.split_first() else { return };
    let step = [1, 7, 100, 4096][usize::from(how & 3)];
    let mut bytes = data.to_vec();
    if how & 4 != 0 {
        let mut encoder = Encoder::default();
        encoder.push(data);
        encoder.flush();
        bytes = std::mem::take(encoder.frames());
    }
    let config = StreamConfig { name: "S".to_owned(), max_msg_size: -1, ..StreamConfig::default() };
    let facts = StreamFacts::of(&config);
    let settings =
        RestoreSettings { config, account: "$G".to_owned(), payload_max: 1 << 20, bytes_max: BYTES_MAX };
    let mut restoration = Restoration::new(settings, Store::from(MemoryStore::new()));
    for part in bytes.chunks(step) {
        restoration.push(part);
        loop {
            match restoration.step(NOW_NS) {
                Ok(Progress::More) => {}
                Ok(_) => break,
                Err(_) => return,
            }
        }
    }
    restoration.end();
    loop {
        match restoration.step(NOW_NS) {
            Ok(Progress::More) => {}
            Ok(Progress::Done) => break,
            Ok(Progress::Starved) => panic!("it waits for more, and there is none"),
            Err(_) => return,
        }
    }
    let (mut store, found, _) = restoration.into_parts();
    let state = store.state();
    assert!(state.bytes <= BYTES_MAX && state.last_seq <= u64::MAX / 2);
    let mut consumers = Consumers::new(Site::default(), facts, Limits::default(), 1);
    let _ = restore_consumers(&mut consumers, found, &mut store, NOW_NS);
    for consumer in consumers.for_backup() {
        consumer.write(state.last_seq);
    }
});
