//! Requests of the API, answered as `answers.txt` says that the reference answers them (`scripts/record_consumers.py`).

use super::super::config::ConsumerLimits;
use super::super::json::{DurationNs, Int};
use super::config::Retention;
use super::rig::Rig;

/// Times, durations that remain and the made-up name look different each time.
fn normalised(answer: &str, is_made_up: bool, made_up: &mut Option<String>) -> String {
    let mut out = String::new();
    let mut rest = answer;
    while let Some(at) = rest.find("\"20").or_else(|| rest.find("\"0001-")) {
        let (before, time) = rest.split_at(at);
        let end = time[1..].find('"').unwrap() + 2;
        out.push_str(before);
        let is_time = !before.ends_with('\\') && time.as_bytes().get(11) == Some(&b'T');
        out.push_str(if is_time { "\"T\"" } else { &time[..end] });
        rest = &time[end..];
    }
    out.push_str(rest);
    if let Some((before, behind)) = out.clone().split_once("\"pause_remaining\":") {
        let behind = behind.trim_start_matches(|digit: char| digit.is_ascii_digit());
        out = format!("{before}\"pause_remaining\":N{behind}");
    }
    if is_made_up
        && let Some((_, behind)) =
            out.split_once("consumer_create_response\",\"stream_name\":\"S\",\"name\":\"")
    {
        *made_up = behind.split('"').next().map(str::to_owned);
    }
    match made_up {
        Some(name) => out.replace(name.as_str(), "NAME"),
        None => out,
    }
}

#[test]
fn consumers_that_exceed_what_a_stream_is_to_allow_are_named() {
    let mut rig = Rig::new("S", &["s.>"], Retention::Limits);
    rig.create("B", r#"{"durable_name":"B","ack_policy":"explicit"}"#);
    rig.create("A", r#"{"durable_name":"A","ack_policy":"explicit","max_ack_pending":11}"#);
    rig.create("N", r#"{"name":"N","ack_policy":"none","inactive_threshold":5000000000}"#);
    let checked = |inactive_threshold_ns, max_ack_pending| {
        let limits = ConsumerLimits {
            inactive_threshold: DurationNs(inactive_threshold_ns),
            max_ack_pending: Int(max_ack_pending),
        };
        rig.consumers.check_limits(&limits).map_err(|error| error.description.into_owned())
    };
    let violate = |names: &str| Err(format!("change to limits violates consumers: {names}"));
    assert_eq!(checked(0, 0), Ok(()));
    assert_eq!(checked(5_000_000_000, 1000), Ok(()));
    assert_eq!(checked(0, 10), violate("A, B"));
    assert_eq!(checked(0, 11), violate("B"));
    assert_eq!(checked(4_999_999_999, 0), violate("N"));
}

#[test]
fn requests_are_answered_as_the_reference_answers_them() {
    let mut rigs = [
        Rig::new("S", &["s.>"], Retention::Limits),
        Rig::new("W", &["w.>"], Retention::WorkQueue),
        Rig::new("I", &["i.>"], Retention::Interest),
    ];
    rigs[0].clients.deaf.insert("x".to_owned());
    let (mut made_up, mut compared, mut wrong) = (None, 0, Vec::new());
    let mut lines =
        include_str!("answers.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    while let Some(asked) = lines.next() {
        let expected = lines.next().unwrap();
        let (subject, body) = asked.strip_prefix("> ").unwrap().split_once(' ').unwrap();
        let stream =
            subject.trim_start_matches("$JS.API.CONSUMER.").split('.').find(|token| token.len() == 1);
        let Some(rig) = rigs.iter_mut().find(|rig| Some(rig.facts.name.as_str()) == stream) else {
            // Streams that are not there are told by who looks for them.
            assert!(expected.contains("10059"), "{asked}");
            continue;
        };
        let answer = rig.request(subject, body).unwrap_or_else(|| "(none)".to_owned());
        let is_made_up = asked == r#"> $JS.API.CONSUMER.CREATE.S {"stream_name":"S","config":{}}"#;
        let answer = normalised(&answer, is_made_up, &mut made_up);
        compared += 1;
        if answer != expected {
            wrong.push(format!("{asked}\n  reference: {expected}\n  here:      {answer}"));
        }
    }
    assert!(compared > 100, "{compared}");
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), wrong.join("\n"));
}
