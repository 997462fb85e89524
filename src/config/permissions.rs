//! The permissions of a user, from the configuration. The texts are the reference's.

use std::fmt;
use std::time::Duration;

use super::decode::{Outcome, boolean, in_order, integer, map, shown, string};
use super::duration::parse_duration_ns;
use super::error::{Problem, ProblemAt};
use super::lang::{Node, Value};
use super::shape::expected;
use crate::subject::name::{PATTERN_BYTES_MAX, is_valid_subject};

const NOT_A_SUBJECT: &str = "Subject in permissions array cannot be cast to string";

/// What a user may publish and subscribe to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Permissions {
    /// `publish`. `None`: everything; empty: nothing.
    pub publish_allow: Option<Vec<String>>,
    /// `publish.deny`.
    pub publish_deny: Vec<String>,
    /// `subscribe`. Empty: everything.
    pub subscribe_allow: Vec<QueueSubject>,
    /// `subscribe.deny`.
    pub subscribe_deny: Vec<QueueSubject>,
    /// `allow_responses`.
    pub responses: Option<Responses>,
}

/// A subject, perhaps of one queue group only; both valid, perhaps with wildcards.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueueSubject {
    /// The subject.
    pub subject: String,
    /// The queue group.
    pub queue: Option<String>,
}

impl fmt::Display for QueueSubject {
    /// As in a file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.queue {
            Some(queue) => write!(f, "{} {queue}", self.subject),
            None => f.write_str(&self.subject),
        }
    }
}

/// `allow_responses`: replies that were received may be published to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Responses {
    /// How often; `None` (negative): as often as one likes.
    pub max: Option<u32>,
    /// For how long; `None` (negative): for ever.
    pub expires: Option<Duration>,
}

impl Default for Responses {
    fn default() -> Responses {
        Responses { max: Some(1), expires: Some(Duration::from_secs(120)) }
    }
}

/// Reads a map of permissions. What is wrong inside goes to `problems`.
pub(super) fn permissions(node: &Node, problems: &mut Vec<ProblemAt>) -> Outcome<Permissions> {
    let Value::Map(entries) = &node.value else {
        return Err(expected("Expected permissions to be a map/struct", shown(&node.value)));
    };
    let mut permissions = Permissions::default();
    for (name, entry) in in_order(entries) {
        let result = match name.to_lowercase().as_str() {
            "pub" | "publish" | "import" => rules(entry, problems, subject_alone).map(|(allow, deny)| {
                permissions.publish_allow = (!allow.is_empty()).then_some(allow);
                permissions.publish_deny = deny;
            }),
            "sub" | "subscribe" | "export" => {
                rules(entry, problems, subject_and_queue).map(|(allow, deny)| {
                    permissions.subscribe_allow = allow;
                    permissions.subscribe_deny = deny;
                })
            }
            "publish_allow_responses" | "allow_responses" => match boolean(entry) {
                Ok(allowed) => {
                    permissions.responses = allowed.then(Responses::default);
                    Ok(())
                }
                Err(_) => responses(entry, problems).map(|responses| permissions.responses = Some(responses)),
            },
            _ => not_a_variable(entry, Problem::UnknownPermission(name.clone())),
        };
        note(problems, entry, result);
    }
    if permissions.responses.is_some() {
        // Without a list of its own a user that may respond may do nothing else. In the reference a deny list alone may
        // undo that, or not: it reads the keys in no order.
        permissions.publish_allow.get_or_insert_default();
    }
    Ok(permissions)
}

fn note(problems: &mut Vec<ProblemAt>, node: &Node, result: Outcome) {
    if let Err(problem) = result {
        problems.push(ProblemAt { at: node.at.clone(), problem });
    }
}

fn not_a_variable(node: &Node, problem: Problem) -> Outcome {
    if node.is_variable { Ok(()) } else { Err(problem) }
}

/// Allowed and denied: a subject, an array of them, or a map of the two.
fn rules<T>(
    node: &Node,
    problems: &mut Vec<ProblemAt>,
    read: fn(&str) -> Outcome<T>,
) -> Outcome<(Vec<T>, Vec<T>)> {
    let Value::Map(entries) = &node.value else {
        return Ok((subjects(node, read)?, Vec::new()));
    };
    let (mut allow, mut deny) = (Vec::new(), Vec::new());
    for (name, entry) in in_order(entries) {
        let result = match name.to_lowercase().as_str() {
            "allow" => subjects(entry, read).map(|subjects| allow = subjects),
            "deny" => subjects(entry, read).map(|subjects| deny = subjects),
            _ => not_a_variable(entry, Problem::UnknownSubjectPermission(name.clone())),
        };
        note(problems, entry, result);
    }
    Ok((allow, deny))
}

/// A subject, or an array of them.
pub(super) fn subjects<T>(node: &Node, read: fn(&str) -> Outcome<T>) -> Outcome<Vec<T>> {
    match &node.value {
        Value::String(subject) => Ok(vec![read(subject)?]),
        Value::Array(entries) => entries
            .iter()
            .map(|entry| read(string(entry).map_err(|_| Problem::NotHere(NOT_A_SUBJECT))?))
            .collect(),
        other => Err(expected(
            "Expected subject permissions to be a subject, or array of subjects",
            other.type_name(),
        )),
    }
}

/// A subject without queue group.
pub(super) fn subject_alone(text: &str) -> Outcome<String> {
    if is_valid_subject(text.as_bytes()) && text.len() <= PATTERN_BYTES_MAX {
        Ok(text.to_owned())
    } else {
        Err(Problem::InvalidSubject(text.to_owned()))
    }
}

fn subject_and_queue(text: &str) -> Outcome<QueueSubject> {
    if let Ok(subject) = subject_alone(text) {
        return Ok(QueueSubject { subject, queue: None });
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let [subject, queue] = words[..] else { return Err(Problem::InvalidSubject(text.to_owned())) };
    let subject = subject_alone(subject)?;
    if !is_valid_subject(queue.as_bytes()) {
        return Err(Problem::InvalidQueue(queue.to_owned()));
    }
    Ok(QueueSubject { subject, queue: Some(queue.to_owned()) })
}

fn responses(node: &Node, problems: &mut Vec<ProblemAt>) -> Outcome<Responses> {
    let entries = map(node)
        .map_err(|_| Problem::NotHere("error parsing response permissions, expected a boolean or a map"))?;
    let mut responses = Responses::default();
    for (name, entry) in in_order(entries) {
        let result = match name.to_lowercase().as_str() {
            "max" | "max_msgs" | "max_messages" | "max_responses" => integer(entry).map(|max| {
                if max != 0 {
                    responses.max = (max > 0).then(|| u32::try_from(max).unwrap_or(u32::MAX));
                }
            }),
            "expires" | "expiration" | "ttl" => expiry(entry).map(|ns| {
                if ns != 0 {
                    responses.expires = u64::try_from(ns).ok().map(Duration::from_nanos);
                }
            }),
            _ => not_a_variable(entry, Problem::UnknownPermission(name.clone())),
        };
        note(problems, entry, result);
    }
    Ok(responses)
}

/// Nanoseconds.
fn expiry(node: &Node) -> Outcome<i64> {
    let text = string(node).map_err(|_| Problem::NotHere("error parsing expires, not a duration string"))?;
    parse_duration_ns(text).map_err(Problem::ResponsesExpire)
}
