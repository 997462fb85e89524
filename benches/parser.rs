//! The cost of decoding client commands: bytes of a read to [`Command`]s.
//!
//! Every figure stands beside that of a straightforward parser: a line end, the line as text, its words in a list. It
//! checks less and cannot go on after a cut, so its frames come whole.
//!
//! Throughput is in commands. A stream is 64 KiB, as a full read buffer may be, and stays in the caches. Not a benchmark
//! of receiving.
//!
//! Goal: 15 ns for `PUB subject 16`. `cargo bench --bench parser`: about half a minute.

#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmain::wire::{Command, Decoder, Limits};

const LIMITS: Limits = Limits { control_line_max: 4096, payload_max: 1024 * 1024, headers: true };

const STREAM_LEN: usize = 64 * 1024;

/// Where the streams are cut in the benchmarks named so: once per so many bytes.
const CUT_LEN: usize = 1000;

/// Reads every frame of a stream; the sum keeps the compiler from skipping them.
fn decode(decoder: &mut Decoder, bytes: &[u8]) -> usize {
    let mut input = bytes;
    let mut sum = 0;
    while let Some(command) = decoder.next(&mut input, &LIMITS).expect("the stream is valid") {
        sum += match command {
            Command::Publish(publish) => publish.subject.len() + publish.payload.with_crlf().len(),
            Command::Subscribe { subject, sid, .. } => subject.len() + sid.len(),
            _ => 1,
        };
    }
    sum
}

/// The baseline.
fn parse_by_line(mut bytes: &[u8]) -> usize {
    let mut sum = 0;
    while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
        let line = std::str::from_utf8(&bytes[..end]).expect("the stream is ASCII");
        bytes = &bytes[end + 1..];
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[0] {
            "PUB" | "HPUB" => {
                let size: usize = words[words.len() - 1].parse().expect("a size");
                sum += words[1].len() + size + 2;
                bytes = &bytes[size + 2..];
            }
            "SUB" => sum += words[1].len() + words[words.len() - 1].len(),
            _ => sum += 1,
        }
    }
    sum
}

/// Frames one behind the other, the n-th as `frame` gives it, and their number.
fn stream(frame: impl Fn(usize) -> String) -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    let mut count = 0;
    loop {
        let next = frame(count);
        if bytes.len() + next.len() > STREAM_LEN {
            return (bytes, count);
        }
        bytes.extend_from_slice(next.as_bytes());
        count += 1;
    }
}

fn publish(size: usize, reply: &str) -> String {
    format!("PUB orders.eu.created {reply}{size}\r\n{}\r\n", "x".repeat(size))
}

fn publish_with_header(size: usize) -> String {
    let header = "NATS/1.0\r\nTrace: 0123456789\r\n\r\n";
    let total = header.len() + size;
    format!("HPUB orders.eu.created {} {total}\r\n{header}{}\r\n", header.len(), "x".repeat(size))
}

fn subscribe(n: usize) -> String {
    format!("SUB _INBOX.abcdefghijklmnopqrstuv.{n} {n}\r\n")
}

fn parser(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parser");
    group
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000))
        .sample_size(20);
    let streams = [
        ("PUB 16 B", stream(|_| publish(16, ""))),
        ("PUB 128 B with reply", stream(|_| publish(128, "_INBOX.abcdefghijklmnopqrstuv.1 "))),
        ("HPUB 128 B", stream(|_| publish_with_header(128))),
        ("SUB", stream(subscribe)),
        (
            "mixed",
            stream(|n| match n % 8 {
                0 => subscribe(n),
                1 => format!("UNSUB {n} 1\r\n"),
                2 => publish_with_header(128),
                3 => "PING\r\n".to_owned(),
                _ => publish(16 << (n % 4), ""),
            }),
        ),
    ];
    for (what, (bytes, count)) in &streams {
        group.throughput(Throughput::Elements(*count as u64));
        group.bench_function(BenchmarkId::new(*what, "decoder"), |bencher| {
            let mut decoder = Decoder::default();
            bencher.iter(|| decode(&mut decoder, black_box(bytes)))
        });
        group.bench_function(BenchmarkId::new(*what, "decoder, cut"), |bencher| {
            let mut decoder = Decoder::default();
            bencher.iter(|| {
                let sum =
                    bytes.chunks(CUT_LEN).map(|piece| decode(&mut decoder, black_box(piece))).sum::<usize>();
                decoder.release_spent();
                sum
            })
        });
        group.bench_function(BenchmarkId::new(*what, "by line"), |bencher| {
            bencher.iter(|| parse_by_line(black_box(bytes)))
        });
        assert_eq!(decode(&mut Decoder::default(), bytes), parse_by_line(bytes));
    }
    group.finish();
}

criterion_group!(benches, parser);
criterion_main!(benches);
