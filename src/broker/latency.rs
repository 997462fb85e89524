//! How long services take: what is measured, and the message that tells it in the exporter's account.
//!
//! Which requests are measured is said by the export ([`Latency`]): so many of a hundred, or those whose headers
//! ask for a trace. The reply of such a request ends in `.T`, by which the worker that takes the answer knows that it has to
//! send along who answers. The rules and the words are those of nats-server 2.15.1.
//!
//! Times are those of turns: what happens within one took no time.

use std::collections::BTreeMap;

use serde::Serialize;

use super::client_info::ClientInfo;
use super::core::Broker;
use super::responses::Response;
use crate::base::nuid::nuid;
use crate::subject::import::{Latency, ServiceImport};
use crate::subject::interest::InterestAccess;
use crate::wire::{Payload, Publish, Widths};

const EVENT_TYPE: &str = "io.nats.server.metric.v1.service_latency";

/// Headers by their names, as the reference writes them.
type Headers = BTreeMap<String, Vec<String>>;

/// A request that is measured.
#[derive(Debug)]
pub(super) struct Measurement {
    requestor: Option<ClientInfo>,
    /// Those that asked for it.
    headers: Headers,
    asked_us: u64,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Answered,
    /// Nobody could have answered: it had no reply.
    BadRequest,
    /// Whoever asked has gone.
    RequesterGone,
    NobodyThere,
    TooLate,
}

impl Status {
    fn code(self) -> u16 {
        match self {
            Status::Answered => 200,
            Status::BadRequest => 400,
            Status::RequesterGone => 408,
            Status::NobodyThere => 503,
            Status::TooLate => 504,
        }
    }

    fn description(self) -> &'static str {
        match self {
            Status::Answered => "",
            Status::BadRequest => "Bad Request",
            Status::RequesterGone => "Request Timeout",
            Status::NobodyThere => "Service Unavailable",
            Status::TooLate => "Service Timeout",
        }
    }
}

/// The event, in the reference's words and order. Durations are in nanoseconds.
#[derive(Debug, Serialize)]
struct ServiceLatency<'a> {
    r#type: &'a str,
    id: String,
    timestamp: Option<String>,
    status: u16,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    requestor: Option<&'a ClientInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    responder: Option<&'a ClientInfo>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    header: &'a Headers,
    start: Option<String>,
    service: u64,
    system: u64,
    total: u64,
}

impl<A: InterestAccess> Broker<A> {
    /// What there is to be measured of a request, if it is one that is.
    pub(super) fn measurement(
        &mut self,
        service: &ServiceImport,
        publish: &Publish<'_>,
        publisher: Option<(u32, u64)>,
    ) -> Option<Box<Measurement>> {
        let latency = service.terms.latency.as_ref()?;
        let block = &publish.payload.content()[..publish.header_len.unwrap_or_default()];
        let headers = sample(latency, block, &mut self.random)?;
        if let Some((conn, _)) = publisher {
            self.ask_for_rtt(conn);
        }
        let requestor = publisher.map(|(conn, _)| self.client_info(conn, service.shares));
        Some(Box::new(Measurement { requestor, headers, asked_us: self.local.now_us }))
    }

    /// Tells that a request could not be answered.
    pub(super) fn tell_unanswered(&mut self, response: &Response, status: Status) {
        if let Some(measurement) = &response.measurement {
            self.tell_latency(&response.service, measurement, status, None);
        }
    }

    /// Tells how long a request took, in the exporter's account.
    pub(super) fn tell_latency(
        &mut self,
        service: &ServiceImport,
        measurement: &Measurement,
        status: Status,
        responder: Option<&ClientInfo>,
    ) {
        let Some(latency) = &service.terms.latency else { return };
        let now_us = self.local.now_us;
        let rtt_ns = |info: Option<&ClientInfo>| info.map_or(0, |info| info.rtt_ns);
        let (requestor_ns, responder_ns) = (rtt_ns(measurement.requestor.as_ref()), rtt_ns(responder));
        let taken_ns = now_us.saturating_sub(measurement.asked_us) * 1000;
        let (service_ns, total_ns) = match status {
            Status::Answered => (taken_ns.saturating_sub(responder_ns), taken_ns + requestor_ns),
            _ => (0, 0),
        };
        let start_us = measurement.asked_us.saturating_sub(requestor_ns / 1000);
        let event = ServiceLatency {
            r#type: EVENT_TYPE,
            id: nuid(&mut self.random),
            timestamp: self.local.wall_clock(now_us),
            status: status.code(),
            description: status.description(),
            requestor: measurement.requestor.as_ref(),
            responder,
            header: &measurement.headers,
            start: self.local.wall_clock(start_us),
            service: service_ns,
            system: 0,
            total: total_ns,
        };
        let mut content = super::client_info::json(&event).into_bytes();
        content.extend_from_slice(b"\r\n");
        let publish = Publish {
            args: b"",
            subject: latency.subject.as_bytes(),
            reply: None,
            header_len: None,
            payload: Payload::Borrowed(&content),
            widths: Widths::default(),
        };
        self.publish_own(service.exporter, &publish);
    }
}

/// Whether a request is measured, and the headers that ask for it.
fn sample(latency: &Latency, block: &[u8], random: &mut fastrand::Rng) -> Option<Headers> {
    // One in a hundred more than it says, as in the reference.
    if latency.sampling >= 100 || latency.sampling > 0 && random.u8(..100) <= latency.sampling {
        return Some(Headers::new());
    }
    traced(&parse(block))
}

/// The headers of a block by their canonical names.
fn parse(block: &[u8]) -> Headers {
    let mut headers = Headers::new();
    let text = String::from_utf8_lossy(block);
    for line in text.lines().skip(1) {
        if let Some((name, value)) = line.split_once(':') {
            headers.entry(canonical(name)).or_default().push(value.trim().to_owned());
        }
    }
    headers
}

/// A name with its words in capitals.
fn canonical(name: &str) -> String {
    let mut starts = true;
    let letter = |c: char| {
        let written = if starts { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        starts = c == '-';
        written
    };
    name.chars().map(letter).collect()
}

/// Those of the headers that ask for a trace, if they do.
fn traced(headers: &Headers) -> Option<Headers> {
    let first = |name: &str| headers.get(name).and_then(|values| values.first()).map(String::as_str);
    let with = |wanted: &dyn Fn(&str) -> bool| -> Headers {
        let kept = headers.iter().filter(|(name, _)| wanted(name));
        kept.map(|(name, values)| (name.clone(), values.clone())).collect()
    };
    let b3 =
        |name: &str| matches!(name, "X-B3-Sampled" | "X-B3-Traceid" | "X-B3-Parentspanid" | "X-B3-Spanid");
    if let Some(id) = first("Uber-Trace-Id") {
        let parts: Vec<&str> = id.split(':').collect();
        let flags = (parts.len() == 4 && parts[3].len() <= 2).then(|| u8::from_str_radix(parts[3], 16).ok());
        let is_sampled = flags.flatten().is_some_and(|flags| flags & 1 == 1);
        return is_sampled.then(|| with(&|name| name == "Uber-Trace-Id" || name.starts_with("Uberctx-")));
    }
    match first("X-B3-Sampled") {
        Some("1") => return Some(with(&b3)),
        Some("0") => return None,
        _ => {}
    }
    if headers.contains_key("X-B3-Traceid") {
        return Some(with(&b3));
    }
    if let Some(value) = first("B3") {
        let parts: Vec<&str> = value.split('-').collect();
        let is_denied = parts.get(2) == Some(&"0") || parts == ["0"];
        return (!is_denied).then(|| with(&|name| name == "B3"));
    }
    let parts: Vec<&str> = first("Traceparent")?.split('-').collect();
    // Read as a signed byte there, so that more than 7f is none.
    let flags = (parts.len() == 4 && parts[3].len() == 2).then(|| i8::from_str_radix(parts[3], 16).ok());
    let is_sampled = flags.flatten().is_some_and(|flags| flags & 1 == 1);
    is_sampled.then(|| with(&|name| matches!(name, "Traceparent" | "Tracestate")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_by(block: &str) -> Option<String> {
        let latency = Latency { sampling: 0, subject: "l".into() };
        let block = format!("NATS/1.0\r\n{block}\r\n\r\n");
        let found = sample(&latency, block.as_bytes(), &mut fastrand::Rng::with_seed(1))?;
        Some(serde_json::to_string(&found).unwrap())
    }

    #[test]
    fn headers_of_traces_ask_for_a_measurement() {
        for (block, expected) in [
            ("A: b", None),
            (
                "uber-trace-id: 479fefe9525eddb:5adb976bfc1f95c1:479fefe9525eddb:1\r\nuberctx-X: y",
                Some(
                    r#"{"Uber-Trace-Id":["479fefe9525eddb:5adb976bfc1f95c1:479fefe9525eddb:1"],"Uberctx-X":["y"]}"#,
                ),
            ),
            ("Uber-Trace-Id: 1:2:3:0", None),
            ("Uber-Trace-Id: 1:2:3", None),
            ("X-B3-Sampled: 1\r\nX-B3-SpanId: s", Some(r#"{"X-B3-Sampled":["1"],"X-B3-Spanid":["s"]}"#)),
            ("X-B3-Sampled: 0\r\nX-B3-TraceId: t", None),
            ("X-B3-TraceId: t", Some(r#"{"X-B3-Traceid":["t"]}"#)),
            ("b3: 0", None),
            ("b3: a-b-0-c", None),
            ("b3: a-b-1-c", Some(r#"{"B3":["a-b-1-c"]}"#)),
            (
                "traceparent: 00-4bf9-00f0-01\r\ntracestate: s",
                Some(r#"{"Traceparent":["00-4bf9-00f0-01"],"Tracestate":["s"]}"#),
            ),
            ("traceparent: 00-4bf9-00f0-00", None),
        ] {
            assert_eq!(asked_by(block).as_deref(), expected, "{block}");
        }
    }

    #[test]
    fn so_many_of_a_hundred_are_measured() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut count = |sampling| {
            let latency = Latency { sampling, subject: "l".into() };
            (0..10_000).filter(|_| sample(&latency, b"", &mut random).is_some()).count()
        };
        assert_eq!(count(100), 10_000);
        assert!((4_800..5_500).contains(&count(50)));
        assert_eq!(count(0), 0);
    }
}
