//! The cost of a message inside one worker: from the publisher's bytes to the receivers' unsent output, and out of it.
//!
//! One turn is one read of up to 64 KiB, as many messages as fit, at least one. After each turn all output is taken as
//! the server would: slices are looked at, then reported as sent. Throughput is in messages published.
//!
//! "copied" and "shared" compare the two ways of a payload at the same size: a decoder shares from
//! [`SHARED_PAYLOAD_MIN`] on, so the way is forced by a batch from another worker, which carries either.
//!
//! Not a benchmark of sockets: a slice more costs more there than here.
//!
//! Goals: 25 ns to find nobody, 60 ns for one receiver of 16 B. `cargo bench --bench delivery`: under a minute.

#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmain::broker::batch::To;
use ringmain::broker::{Batch, Broker, Input, Settings};
use ringmain::subject::fanout::TargetList;
use ringmain::subject::interest::{InterestAccess, LocalInterest, Matches};
use ringmain::wire::command::SHARED_PAYLOAD_MIN;
use ringmain::wire::info::Info;
use ringmain::wire::{Payload, Publish, Widths};

const READ_LEN: usize = 64 * 1024;

/// Slices of one send.
const SLICES_MAX: usize = 64;

fn broker(workers: usize, index: &LocalInterest) -> Broker<LocalInterest> {
    let info = Info::new("ID".into(), "bench".into(), "0.0.0.0".into(), 4222);
    Broker::new(0, workers, Arc::new(Settings::default()), info, vec![index.clone()], 1)
}

const CONNECT: &[u8] = b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";

fn open(broker: &mut Broker<LocalInterest>, cid: u64) -> u32 {
    let conn = broker.open(cid, "127.0.0.1:1".parse().expect("an address"));
    assert_eq!(broker.handle_bytes(conn, CONNECT), Input::Taken);
    conn
}

/// A broker whose subject has so many subscribers, and the publisher's slot.
fn with_subscribers(count: usize) -> (Broker<LocalInterest>, LocalInterest, u32) {
    let index = LocalInterest::default();
    let mut broker = broker(2, &index);
    let publisher = open(&mut broker, 0);
    for cid in 0..count {
        let conn = open(&mut broker, 1 + cid as u64);
        assert_eq!(broker.handle_bytes(conn, b"SUB orders.eu.created 1\r\n"), Input::Taken);
    }
    take_output(&mut broker);
    (broker, index, publisher)
}

/// Takes everything that waits, as sends would.
fn take_output(broker: &mut Broker<LocalInterest>) -> usize {
    let mut taken = 0;
    while let Some(conn) = broker.poll_dirty() {
        while broker.pending_bytes(conn) > 0 {
            broker.handle_send_started(conn);
            let len = broker.unsent(conn, SLICES_MAX).map(|slice| black_box(slice).len()).sum();
            broker.handle_sent(conn, len);
            taken += len;
        }
    }
    taken
}

/// One turn with these bytes of `publisher`; a receiver's output may make it several.
fn turn(broker: &mut Broker<LocalInterest>, publisher: u32, mut bytes: &[u8]) -> usize {
    let mut taken = 0;
    loop {
        broker.begin_turn(Duration::from_millis(1));
        let input = broker.handle_bytes(publisher, bytes);
        taken += take_output(broker);
        match input {
            Input::Taken => return taken,
            Input::Yielded(len) => {
                bytes = &bytes[len..];
                broker.begin_turn(Duration::from_millis(1));
                broker.is_held(publisher);
            }
            Input::Closed => panic!("the bytes are valid"),
        }
    }
}

/// As many messages as one read brings.
fn read_of(size: usize) -> (Vec<u8>, usize) {
    let frame = format!("PUB orders.eu.created {size}\r\n{}\r\n", "x".repeat(size));
    let count = (READ_LEN / frame.len()).max(1);
    (frame.repeat(count).into_bytes(), count)
}

fn delivery(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("delivery");
    group
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000))
        .sample_size(20);
    for subscribers in [0, 1, 10, 100] {
        for (size, name) in
            [(16, "16 B"), (128, "128 B"), (1024, "1 KiB"), (8192, "8 KiB"), (16_384, "16 KiB")]
        {
            if subscribers == 0 && size > 128 {
                continue;
            }
            let (mut broker, _, publisher) = with_subscribers(subscribers);
            let (bytes, count) = read_of(size);
            let taken = turn(&mut broker, publisher, &bytes);
            assert!(taken >= subscribers * count * size && (subscribers > 0 || taken == 0));
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(BenchmarkId::new(format!("to {subscribers}"), name), |bencher| {
                bencher.iter(|| turn(&mut broker, publisher, &bytes))
            });
        }
    }
    group.finish();
}

/// The threshold: the same message copied into each receiver's output, and shared by them.
fn threshold(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("threshold");
    group
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(700))
        .sample_size(20);
    let sizes = [1024, 2048, 4096, SHARED_PAYLOAD_MIN, 2 * SHARED_PAYLOAD_MIN, 4 * SHARED_PAYLOAD_MIN];
    for subscribers in [1, 100] {
        let (mut broker, index, _) = with_subscribers(subscribers);
        let mut matches = Matches::default();
        index.read(|interest| interest.collect(b"orders.eu.created", &mut matches));
        let targets = TargetList::Long(matches.plain.into());
        for size in sizes {
            let content = vec![b'x'; size + 2];
            // A read's worth, collected by the decoder in one buffer each.
            let count = (READ_LEN / size).max(1);
            for (way, payload) in [
                ("copied", Payload::Borrowed(&content)),
                ("shared", Payload::Shared(Bytes::copy_from_slice(&content))),
            ] {
                let publish = Publish {
                    args: b"",
                    subject: b"orders.eu.created",
                    reply: None,
                    header_len: None,
                    payload,
                    widths: Widths::default(),
                };
                let mut batch = Batch::default();
                for _ in 0..count {
                    batch.push_message(0, &publish, None, false, To::Plain(&targets), None);
                }
                group.throughput(Throughput::Elements((count * subscribers) as u64));
                group.bench_function(BenchmarkId::new(format!("{way} to {subscribers}"), size), |bencher| {
                    bencher.iter(|| {
                        broker.begin_turn(Duration::from_millis(1));
                        broker.handle_batch(1, black_box(&batch));
                        take_output(&mut broker)
                    })
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, delivery, threshold);
criterion_main!(benches);
