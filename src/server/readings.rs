//! A worker's counters where others can read them: published by the worker at the end of a turn that did something,
//! read by whoever likes, without a lock and without the worker noticing.
//!
//! Each number is true by itself. Two of them may be a turn apart, which is all that monitoring needs; what must agree
//! (a message and its bytes) is published before the answer that lets a client know of it goes out.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::broker::core::{Counts, Stats};
use crate::monitor::readings::{
    Histogram, LATENCY_BOUNDS_US, Latencies, StreamTimes, TURN_BOUNDS_US, TurnTimes, WorkerReading,
};

/// One worker's counters. On cache lines of its own, for the worker writes it every turn.
#[derive(Debug)]
#[repr(align(128))]
pub struct PublishedReading {
    fields: [AtomicU64; FIELDS],
}

const FIELDS: usize = LATENCIES_AT + 3 * HISTOGRAM;

/// Where the lengths of turns begin, and how many of those there are.
const LENGTHS_AT: usize = 21;
const LENGTHS: usize = TURN_BOUNDS_US.len() + 1;

/// Where the three histograms begin, and how long each is: its classes and the sum.
const LATENCIES_AT: usize = LENGTHS_AT + LENGTHS;
const HISTOGRAM: usize = LATENCY_BOUNDS_US.len() + 2;

impl Default for PublishedReading {
    fn default() -> PublishedReading {
        PublishedReading { fields: [const { AtomicU64::new(0) }; FIELDS] }
    }
}

impl PublishedReading {
    /// Makes `reading` what others see. Only the worker itself calls it.
    pub fn publish(&self, reading: &WorkerReading) {
        for (field, value) in self.fields.iter().zip(to_fields(reading)) {
            field.store(value, Ordering::Relaxed);
        }
    }

    /// What was published last.
    pub fn read(&self) -> WorkerReading {
        from_fields(std::array::from_fn(|at| self.fields[at].load(Ordering::Relaxed)))
    }
}

fn to_fields(reading: &WorkerReading) -> [u64; FIELDS] {
    let WorkerReading {
        stats,
        connections,
        cached_subjects,
        index_reads,
        turn_times: TurnTimes { lengths, busy_ns, held_ns },
        latencies: Latencies { route, hand_over, send },
        batches_sent,
        batches_received,
        batches_waiting,
        buffers,
        buffers_leased,
        reads_waiting,
        kept_bytes,
    } = *reading;
    let Stats {
        messages,
        deliveries,
        slow_consumers,
        stale_connections,
        holds,
        subscriptions,
        subscribed,
        handed_over,
    } = stats;
    let mut fields = [0; FIELDS];
    fields[..LENGTHS_AT].copy_from_slice(&[
        messages.count,
        messages.bytes,
        deliveries.count,
        deliveries.bytes,
        slow_consumers,
        stale_connections,
        holds,
        subscriptions,
        subscribed,
        connections,
        cached_subjects,
        index_reads,
        busy_ns,
        held_ns,
        batches_sent,
        batches_received,
        batches_waiting,
        (buffers << 32) | buffers_leased,
        reads_waiting,
        kept_bytes,
        handed_over,
    ]);
    fields[LENGTHS_AT..LATENCIES_AT].copy_from_slice(&lengths);
    for (part, histogram) in fields[LATENCIES_AT..].chunks_exact_mut(HISTOGRAM).zip([route, hand_over, send])
    {
        part[..HISTOGRAM - 1].copy_from_slice(&histogram.classes);
        part[HISTOGRAM - 1] = histogram.sum;
    }
    fields
}

fn from_fields(fields: [u64; FIELDS]) -> WorkerReading {
    let histogram = |number: usize| {
        let at = LATENCIES_AT + number * HISTOGRAM;
        Histogram {
            classes: std::array::from_fn(|class| fields[at + class]),
            sum: fields[at + HISTOGRAM - 1],
        }
    };
    WorkerReading {
        stats: Stats {
            messages: Counts { count: fields[0], bytes: fields[1] },
            deliveries: Counts { count: fields[2], bytes: fields[3] },
            slow_consumers: fields[4],
            stale_connections: fields[5],
            holds: fields[6],
            subscriptions: fields[7],
            subscribed: fields[8],
            handed_over: fields[20],
        },
        connections: fields[9],
        cached_subjects: fields[10],
        index_reads: fields[11],
        turn_times: TurnTimes {
            lengths: std::array::from_fn(|at| fields[LENGTHS_AT + at]),
            busy_ns: fields[12],
            held_ns: fields[13],
        },
        latencies: Latencies { route: histogram(0), hand_over: histogram(1), send: histogram(2) },
        batches_sent: fields[14],
        batches_received: fields[15],
        batches_waiting: fields[16],
        buffers: fields[17] >> 32,
        buffers_leased: fields[17] & u64::from(u32::MAX),
        reads_waiting: fields[18],
        kept_bytes: fields[19],
    }
}

/// What a worker's streams do, where others can read it. Apart from the counters, for it changes only where there are streams.
#[derive(Debug)]
#[repr(align(128))]
pub struct PublishedStreamTimes {
    fields: [[AtomicU64; HISTOGRAM]; 4],
}

impl Default for PublishedStreamTimes {
    fn default() -> PublishedStreamTimes {
        PublishedStreamTimes { fields: [const { [const { AtomicU64::new(0) }; HISTOGRAM] }; 4] }
    }
}

impl PublishedStreamTimes {
    /// Makes `times` what others see. Only the worker itself calls it.
    pub fn publish(&self, times: &StreamTimes) {
        let StreamTimes { sync, commit, commit_bytes, ack } = times;
        for (fields, histogram) in self.fields.iter().zip([sync, commit, commit_bytes, ack]) {
            let values = histogram.classes.iter().chain([&histogram.sum]);
            for (field, value) in fields.iter().zip(values) {
                field.store(*value, Ordering::Relaxed);
            }
        }
    }

    /// What was published last.
    pub fn read(&self) -> StreamTimes {
        let histogram = |number: usize| {
            let value = |at: usize| self.fields[number][at].load(Ordering::Relaxed);
            Histogram { classes: std::array::from_fn(value), sum: value(HISTOGRAM - 1) }
        };
        StreamTimes {
            sync: histogram(0),
            commit: histogram(1),
            commit_bytes: histogram(2),
            ack: histogram(3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_streams_come_back_as_they_were_published() {
        let mut times = StreamTimes::default();
        times.sync.record(7, 1);
        times.commit.record(70, 2);
        times.commit_bytes.record_size(4096);
        times.ack.record(20_000_000, 3);
        let published = PublishedStreamTimes::default();
        assert_eq!(published.read(), StreamTimes::default());
        published.publish(&times);
        assert_eq!(published.read(), times);
    }

    #[test]
    fn every_number_comes_back_as_it_was_published() {
        let mut fields: [u64; FIELDS] = std::array::from_fn(|at| at as u64 + 1);
        fields[17] = (7 << 32) | 5;
        let reading = from_fields(fields);
        let published = PublishedReading::default();
        published.publish(&reading);
        assert_eq!(published.read(), reading);
        assert_eq!(to_fields(&reading), fields);
    }
}
