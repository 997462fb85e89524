//! The decoder of client commands: any bytes, cut anywhere, mean what they mean in one piece.
//!
//! Finds: panics, commands that depend on where the input was cut, input that is left behind, memory beyond the bound
//! that `wire::command` states. Not speed, and not whether the reference reads a line the same way.
//!
//! An input is text that a person can write: the first byte chooses the limits, then comes what the client sends.
//! `0xff` cuts the stream there; `0xfe n` stands for 97 times `n` letters, so that a few bytes make a large payload.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmain::wire::command::SHARED_PAYLOAD_MIN;
use ringmain::wire::{Command, Decoder, Limits};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, text)) = input.split_first() else { return };
    let headers = choice & 2 == 0;
    let limits = if choice & 1 == 0 {
        Limits { control_line_max: 4096, payload_max: 1024 * 1024, headers }
    } else {
        Limits { control_line_max: 32, payload_max: 48, headers }
    };
    let pieces = expand(text);
    let whole = pieces.concat();
    let expected = transcript(&[&whole], &limits);
    let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    assert_eq!(transcript(&pieces, &limits), expected, "cut as the input says");
    if whole.len() <= 512 {
        let single: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(transcript(&single, &limits), expected, "cut everywhere");
    }
});

fn expand(text: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = vec![Vec::new()];
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            0xff => pieces.push(Vec::new()),
            0xfe => {
                let count = bytes.next().map_or(0, |&count| usize::from(count) * 97);
                let piece = pieces.last_mut().expect("there is always one");
                piece.resize(piece.len() + count, b'x');
            }
            byte => pieces.last_mut().expect("there is always one").push(byte),
        }
    }
    pieces
}

/// What a decoder says of `pieces`. Of an error only the kind: its text quotes what had arrived.
fn transcript(pieces: &[&[u8]], limits: &Limits) -> Vec<String> {
    let mut decoder = Decoder::default();
    let mut lines = Vec::new();
    // A buffer that grows as bytes come has up to twice their room.
    let longest = pieces.iter().map(|piece| piece.len()).max().unwrap_or(0);
    let line_max = limits.control_line_max + 16;
    let held_max =
        2 * (line_max + SHARED_PAYLOAD_MIN.min(longest)) + SHARED_PAYLOAD_MIN + limits.payload_max + 64;
    for piece in pieces {
        let mut input = *piece;
        loop {
            let line = match decoder.next(&mut input, limits) {
                Ok(Some(Command::Publish(publish))) => {
                    let body = publish.payload.with_crlf();
                    assert!(body.ends_with(b"\r\n") && body.len() <= limits.payload_max + 2);
                    assert!(publish.header_len.is_none_or(|len| len <= publish.payload.content().len()));
                    assert!(publish.args.len() <= limits.control_line_max);
                    format!(
                        "PUB {:?} {:?} {:?} {:?} {:?} {:?}",
                        publish.args,
                        publish.subject,
                        publish.reply,
                        publish.header_len,
                        publish.widths,
                        body
                    )
                }
                Ok(Some(command)) => format!("{command:?}"),
                Ok(None) => break,
                Err(error) => {
                    lines.push(format!("{:?}", std::mem::discriminant(&error)));
                    return lines;
                }
            };
            lines.push(line);
            assert!(decoder.held_bytes() <= held_max, "{} of {held_max}", decoder.held_bytes());
        }
        assert!(input.is_empty(), "{} bytes left behind", input.len());
        assert!(decoder.held_bytes() <= held_max, "{} of {held_max}", decoder.held_bytes());
        decoder.release_spent();
    }
    lines
}
