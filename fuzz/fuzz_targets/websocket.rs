//! Whatever a WebSocket client sends: requests, and frames behind them.
//!
//! Finds: panics, a stream that depends on where reads cut it, more plaintext than may come out, anything behind the end of
//! a connection, and a server whose own frames its own decoder does not take.

#![no_main]

use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use ringmain::websocket::{
    Answer, Channel, Deflater, Inflater, Negotiated, SealMemory, Upgrade, UpgradeTerms, allowed_origin,
};

/// A decompressed message may be so long.
const PAYLOAD_MAX: usize = 10_000;

/// More is not inflated at a time, but for a message that was begun.
const INFLATED_MAX: usize = 256 * 1024 + PAYLOAD_MAX;

fuzz_target!(|data: &[u8]| {
    let [flags, cut, rest @ ..] = data else { return };
    if flags & 0x80 != 0 {
        return request(*cut, rest);
    }
    let negotiated = Negotiated {
        compression: flags & 1 != 0,
        masking: flags & 2 == 0,
        browser: flags & 4 != 0,
        whole_compressed: flags & 8 != 0,
    };
    let (whole, end) = receive(negotiated, rest, usize::MAX);
    let (parts, parts_end) = receive(negotiated, rest, usize::from(*cut).max(1));
    assert_eq!((&whole, end), (&parts, parts_end));
    // What the server would send of it comes back.
    let mut server = Channel::new(negotiated);
    let mut client = Vec::new();
    let mut left = &whole[..];
    let mut deflater = negotiated.compression.then(Deflater::default);
    while !left.is_empty() {
        let mut memory = SealMemory::default();
        let slices = left.chunks(usize::from(*cut) + 1);
        let sealed = server.seal(slices, 100_000, deflater.as_mut(), &mut memory);
        assert!(sealed.plain_len > 0);
        sealed.pieces().for_each(|piece| client.extend_from_slice(piece));
        left = &left[sealed.plain_len..];
    }
    let unmasked = Negotiated { masking: false, ..negotiated };
    let mut channel = Channel::new(unmasked);
    assert_eq!(take(&mut channel, &client, 1 << 20), (whole, None));
});

fn receive(negotiated: Negotiated, bytes: &[u8], cut: usize) -> (Vec<u8>, Option<String>) {
    let mut channel = Channel::new(negotiated);
    let mut stream = Vec::new();
    for read in bytes.chunks(cut.min(bytes.len().max(1))) {
        let (more, end) = take(&mut channel, read, PAYLOAD_MAX);
        stream.extend(more);
        if end.is_some() {
            assert_eq!(take(&mut channel, b"\x82\x80\0\0\0\0", PAYLOAD_MAX), (Vec::new(), None));
            return (stream, end);
        }
    }
    (stream, None)
}

/// All that comes of one read.
fn take(channel: &mut Channel, read: &[u8], payload_max: usize) -> (Vec<u8>, Option<String>) {
    let (mut bytes, mut stream) = (read.to_vec(), Vec::new());
    let mut inflater = channel.is_compressing().then(Inflater::default);
    loop {
        let mut inflated = Vec::new();
        let received = channel.receive(&mut bytes, payload_max, inflater.as_mut(), &mut inflated);
        assert!(inflated.len() <= INFLATED_MAX.max(payload_max + 256 * 1024) + read.len());
        stream.extend_from_slice(if inflated.is_empty() { &bytes[received.plain] } else { &inflated });
        bytes.drain(..received.taken);
        if received.end.is_some() || bytes.is_empty() {
            return (stream, received.end.map(|end| end.to_string()));
        }
        assert!(received.taken > 0);
    }
}

fn request(flags: u8, bytes: &[u8]) {
    let terms = UpgradeTerms {
        same_origin: flags & 1 != 0,
        allowed_origins: if flags & 2 != 0 { vec![allowed_origin("https://a.b").unwrap()] } else { Vec::new() },
        compression: flags & 4 != 0,
        ..UpgradeTerms::default()
    };
    let answers = |cut: usize| {
        let (mut upgrade, mut answers) = (Upgrade::default(), Vec::new());
        for mut read in bytes.chunks(cut.max(1)) {
            loop {
                match upgrade.receive(std::mem::take(&mut read), &terms, SystemTime::UNIX_EPOCH) {
                    Answer::Incomplete => break,
                    Answer::Refused { closes: false, response, reason } => answers.push((response, reason)),
                    _ => return answers,
                }
            }
        }
        answers
    };
    // What was refused before does not depend on how it came.
    let (whole, cut) = (answers(bytes.len()), answers(usize::from(flags)));
    assert!(whole.starts_with(&cut) || cut.starts_with(&whole));
}
