//! The cost of handing messages to another worker: into a batch, through the queue, out of the batch into the
//! receivers' output.
//!
//! The two brokers run in turns on one thread, so the figures are the work of both and none of the waiting; "queue" is
//! the bare queue between two threads, which do nothing else, full batches of nothing.
//!
//! `cargo bench --bench handover`: about half a minute.

#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmain::base::handover::queue;
use ringmain::broker::batch::To;
use ringmain::broker::{Batch, Broker, Input, Settings};
use ringmain::subject::fanout::TargetList;
use ringmain::subject::interest::{LocalInterest, Target};
use ringmain::wire::info::Info;
use ringmain::wire::{Payload, Publish, Widths};

const READ_LEN: usize = 64 * 1024;

fn broker(worker: u16, index: &LocalInterest) -> Broker<LocalInterest> {
    let info = Info::new("ID".into(), "bench".into(), "0.0.0.0".into(), 4222);
    Broker::new(worker, 2, Arc::new(Settings::default()), info, vec![index.clone()], 1)
}

fn open(broker: &mut Broker<LocalInterest>, cid: u64) -> u32 {
    let conn = broker.open(cid, "127.0.0.1:1".parse().expect("an address"));
    let connect = b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";
    assert_eq!(broker.handle_bytes(conn, connect), Input::Taken);
    conn
}

fn take_output(broker: &mut Broker<LocalInterest>) -> usize {
    let mut taken = 0;
    while let Some(conn) = broker.poll_dirty() {
        while broker.pending_bytes(conn) > 0 {
            broker.handle_send_started(conn);
            let len = broker.unsent(conn, 64).map(|slice| black_box(slice).len()).sum();
            broker.handle_sent(conn, len);
            taken += len;
        }
    }
    taken
}

fn brokers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handover");
    group
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .sample_size(20);
    for (size, name) in [(16, "16 B"), (128, "128 B")] {
        let index = LocalInterest::default();
        let (mut one, mut other) = (broker(0, &index), broker(1, &index));
        let publisher = open(&mut one, 1);
        let subscriber = open(&mut other, 2);
        assert_eq!(other.handle_bytes(subscriber, b"SUB orders.eu.created 1\r\n"), Input::Taken);
        take_output(&mut one);
        take_output(&mut other);
        let frame = format!("PUB orders.eu.created {size}\r\n{}\r\n", "x".repeat(size));
        let count = READ_LEN / frame.len();
        let bytes = frame.repeat(count).into_bytes();
        group.throughput(Throughput::Elements(count as u64));

        let mut turn = || {
            one.begin_turn(Duration::from_millis(1));
            other.begin_turn(Duration::from_millis(1));
            let mut taken = 0;
            loop {
                // A full batch goes out before more is read.
                let input = one.handle_bytes(publisher, &bytes[taken..]);
                while let Some(mut batch) = one.poll_batch(1) {
                    other.handle_batch(0, &batch);
                    batch.clear();
                    one.give_spare(1, batch);
                }
                match input {
                    Input::Taken => break,
                    Input::Yielded(more) => taken += more,
                    Input::Closed => unreachable!("nothing is wrong with the input"),
                }
            }
            take_output(&mut other)
        };
        assert!(turn() > count * size);
        group.bench_function(BenchmarkId::new("broker to broker", name), |bencher| bencher.iter(&mut turn));

        // The two halves of it that only a handover has.
        let content = [vec![b'x'; size], b"\r\n".to_vec()].concat();
        let publish = Publish {
            args: b"",
            subject: b"orders.eu.created",
            reply: None,
            header_len: None,
            payload: Payload::Borrowed(&content),
            widths: Widths::default(),
        };
        let target = Target { worker: 1, import: 0, conn: subscriber, sub: 0, generation: 1 };
        let targets = TargetList::Short(vec![target]);
        let mut batch = Batch::default();
        group.bench_function(BenchmarkId::new("push_message", name), |bencher| {
            bencher.iter(|| {
                batch.clear();
                for _ in 0..count {
                    batch.push_message(0, black_box(&publish), None, false, To::Plain(&targets), None);
                }
            })
        });
        group.bench_function(BenchmarkId::new("handle_batch", name), |bencher| {
            bencher.iter(|| {
                other.begin_turn(Duration::from_millis(1));
                other.handle_batch(0, black_box(&batch));
                let taken = take_output(&mut other);
                assert!(taken > count * size);
                taken
            })
        });
    }
    group.finish();
}

fn bare_queue(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue");
    group
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .sample_size(10);
    group.throughput(Throughput::Elements(1));
    group.bench_function("two threads, per batch", |bencher| {
        bencher.iter_custom(|count| {
            let (mut sender, mut receiver) = queue::<Batch>();
            let consumer = std::thread::spawn(move || {
                let mut received = 0;
                while received < count {
                    match receiver.receive() {
                        Some(batch) => {
                            receiver.give_back(batch);
                            received += 1;
                        }
                        // The machine may have one core to spare only.
                        None => std::thread::yield_now(),
                    }
                }
            });
            let started = Instant::now();
            for _ in 0..count {
                let mut batch = sender.take_spent().unwrap_or_default();
                while let Err(back) = sender.send(batch) {
                    batch = back;
                    std::thread::yield_now();
                }
            }
            consumer.join().expect("the consumer ends");
            started.elapsed()
        })
    });
    group.bench_function("one thread, per batch", |bencher| {
        let (mut sender, mut receiver) = queue::<Batch>();
        bencher.iter(|| {
            let batch = sender.take_spent().unwrap_or_default();
            sender.send(batch).expect("there is room");
            let batch = receiver.receive().expect("it was just sent");
            receiver.give_back(batch);
        })
    });
    group.finish();
}

criterion_group!(benches, brokers, bare_queue);
criterion_main!(benches);
