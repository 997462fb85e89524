//! What is told of consumers on `$JS.EVENT.…`: advisories, and the metric of sampled acknowledgements.
//!
//! Written only if somebody listens. Types, subjects and the order of fields are the reference's.

use super::super::json::Object;
use super::config::ZonedTime;
use super::turn::{Outlet, Turn};

/// What happened.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event<'a> {
    Created,
    Deleted,
    Paused { until: Option<ZonedTime> },
    Pinned { group: &'a str, id: &'a str },
    Unpinned { group: &'a str, reason: &'a str },
    MaxDeliveries { stream_seq: u64, deliveries: u64 },
    Nak { consumer_seq: u64, stream_seq: u64, deliveries: u64 },
    Terminated { consumer_seq: u64, stream_seq: u64, deliveries: u64, reason: &'a str },
    Ack { consumer_seq: u64, stream_seq: u64, deliveries: u64, ack_time_ns: i64 },
}

impl Event<'_> {
    fn names(&self) -> (&'static str, &'static str) {
        match self {
            Event::Created => ("ADVISORY.CONSUMER.CREATED", "advisory.v1.consumer_action"),
            Event::Deleted => ("ADVISORY.CONSUMER.DELETED", "advisory.v1.consumer_action"),
            Event::Paused { .. } => ("ADVISORY.CONSUMER.PAUSE", "advisory.v1.consumer_pause"),
            Event::Pinned { .. } => ("ADVISORY.CONSUMER.PINNED", "advisory.v1.consumer_group_pinned"),
            Event::Unpinned { .. } => ("ADVISORY.CONSUMER.UNPINNED", "advisory.v1.consumer_group_unpinned"),
            Event::MaxDeliveries { .. } => ("ADVISORY.CONSUMER.MAX_DELIVERIES", "advisory.v1.max_deliver"),
            Event::Nak { .. } => ("ADVISORY.CONSUMER.MSG_NAKED", "advisory.v1.nak"),
            Event::Terminated { .. } => ("ADVISORY.CONSUMER.MSG_TERMINATED", "advisory.v1.terminated"),
            Event::Ack { .. } => ("METRIC.CONSUMER.ACK", "metric.v1.consumer_ack"),
        }
    }
}

/// Publishes an event, if somebody listens.
pub(super) fn publish<O: Outlet>(turn: &mut Turn<'_, O>, stream: &str, consumer: &str, event: Event<'_>) {
    let (subject, kind) = event.names();
    let subject = format!("$JS.EVENT.{subject}.{stream}.{consumer}");
    if !turn.outlet.has_interest(subject.as_bytes(), b"") {
        return;
    }
    let (id, timestamp) = (turn.id(), turn.timestamp());
    let domain = turn.site.domain.as_str();
    let mut body = Vec::with_capacity(256);
    let mut object = Object::begin(&mut body);
    object.string("type", &format!("io.nats.jetstream.{kind}"));
    object.string("id", &id);
    object.string("timestamp", &timestamp);
    if matches!(event, Event::Pinned { .. } | Event::Unpinned { .. }) {
        object.string_unless_empty("account", &turn.site.account);
    }
    object.string("stream", stream);
    object.string("consumer", consumer);
    let mut told = |consumer_seq: Option<u64>, stream_seq: u64| {
        if let Some(consumer_seq) = consumer_seq {
            object.uint("consumer_seq", consumer_seq);
        }
        object.uint("stream_seq", stream_seq);
    };
    match event {
        Event::Created => object.string("action", "create"),
        Event::Deleted => object.string("action", "delete"),
        Event::Paused { until } => {
            object.bool("paused", until.is_some_and(|until| turn.now_ns < until.ns));
            until.unwrap_or_default().write(object.member("pause_until"));
        }
        Event::Pinned { group, id } => {
            object.string_unless_empty("domain", domain);
            object.string("group", group);
            object.string("pinned_id", id);
        }
        Event::Unpinned { group, reason } => {
            object.string_unless_empty("domain", domain);
            object.string("group", group);
            object.string("reason", reason);
        }
        Event::MaxDeliveries { stream_seq, deliveries } => {
            told(None, stream_seq);
            object.uint("deliveries", deliveries);
        }
        Event::Nak { consumer_seq, stream_seq, deliveries } => {
            told(Some(consumer_seq), stream_seq);
            object.uint("deliveries", deliveries);
        }
        Event::Terminated { consumer_seq, stream_seq, deliveries, reason } => {
            told(Some(consumer_seq), stream_seq);
            object.uint("deliveries", deliveries);
            object.string_unless_empty("reason", reason);
        }
        Event::Ack { consumer_seq, stream_seq, deliveries, ack_time_ns } => {
            told(Some(consumer_seq), stream_seq);
            object.int("ack_time", ack_time_ns);
            object.uint("deliveries", deliveries);
        }
    }
    if !matches!(event, Event::Pinned { .. } | Event::Unpinned { .. }) {
        object.string_unless_empty("domain", domain);
    }
    object.end();
    turn.outlet.publish(subject.as_bytes(), b"", b"", &body);
}
