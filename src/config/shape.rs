//! What a value may look like, for options that Ringmain does not act on yet: they are checked all the same, so that a
//! file that nats-server refuses is refused here too, with the same text, and one that it takes is taken.
//!
//! A [`Shape`] is data; the tables of them, one per block of the reference, stand in `blocks`. When a feature arrives,
//! its options get a decoder and fields in `Options`, and its table here goes.

use super::decode::{self, Outcome, in_order, integer, string, wrong_type};
use super::duration::parse_duration_ns;
use super::error::{Problem, ProblemAt, Warning};
use super::lang::{Node, Position, Value};

/// What a value may look like.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// A string.
    Text,
    /// An integer, with or without a suffix of size.
    Integer,
    /// A boolean.
    Bool,
    /// `host:port` or a port.
    Listen,
    /// A duration, or whole seconds with a warning. Messages call it by this name, or by its key's if that is empty.
    Duration(&'static str),
    /// A string or an array of strings, with what messages call it.
    Texts(&'static str),
    /// A map with these keys.
    Map(&'static MapShape),
    /// An array of such maps.
    Maps(&'static MapShape),
    /// Whatever the function says.
    Checked(fn(&mut Checker<'_>, &Entry<'_>) -> Outcome),
    /// Anything: whoever reads it one day will say.
    Any,
}

/// What a map may hold.
#[derive(Debug)]
pub struct MapShape {
    /// What a message says that was expected instead of a value of another type; empty for the words that all types
    /// have. For [`Shape::Maps`]: instead of the array.
    pub expected: &'static str,
    /// For [`Shape::Maps`]: what was expected instead of an element that is no map.
    pub expected_element: &'static str,
    /// The keys in lower case, with their aliases.
    pub keys: &'static [(&'static [&'static str], Shape)],
    /// What a message says of any other key.
    pub unknown: fn(&str, &Node) -> Outcome,
}

/// A key with its value.
#[derive(Debug)]
pub struct Entry<'a> {
    /// As written.
    pub name: &'a str,
    /// Its value.
    pub node: &'a Node,
}

/// Collects what is wrong.
#[derive(Debug)]
pub struct Checker<'a> {
    pub(super) problems: &'a mut Vec<ProblemAt>,
    pub(super) warnings: &'a mut Vec<Warning>,
    /// Where the reference places values of a wrong type if not at their own key: some of its blocks know only where
    /// they begin.
    pub(super) wrong_types_at: Option<Position>,
}

impl Checker<'_> {
    /// Checks one value. What is wrong inside of it is noted; what is wrong with itself is returned.
    pub(super) fn check(&mut self, shape: &Shape, entry: &Entry<'_>) -> Outcome {
        let node = entry.node;
        match shape {
            Shape::Text => string(node).map(drop),
            Shape::Integer => integer(node).map(drop),
            Shape::Bool => decode::boolean(node).map(drop),
            Shape::Listen => decode::listen(node, decode::port).map(drop),
            Shape::Duration(name) => {
                let name = if name.is_empty() { entry.name } else { name };
                self.duration_or_seconds(name, node).map(drop)
            }
            Shape::Texts(name) => self.texts(name, node),
            Shape::Map(shape) => self.map(shape, node),
            Shape::Maps(shape) => self.maps(shape, node),
            Shape::Checked(check) => check(self, entry),
            Shape::Any => Ok(()),
        }
    }

    /// Nanoseconds of a duration; or of whole seconds, which draw a warning.
    pub(super) fn duration_or_seconds(&mut self, name: &str, node: &Node) -> Outcome<i64> {
        if let Value::String(text) = &node.value {
            return parse_duration_ns(text)
                .map_err(|source| Problem::Duration { field: name.to_owned(), source });
        }
        self.warnings.push(Warning::NotADuration { at: node.at.clone(), field: name.to_owned() });
        Ok(integer(node)?.saturating_mul(1_000_000_000))
    }

    pub(super) fn map(&mut self, shape: &MapShape, node: &Node) -> Outcome {
        let Value::Map(entries) = &node.value else {
            if shape.expected.is_empty() {
                return Err(wrong_type(node, "map[string]interface {}"));
            }
            return Err(expected(shape.expected, node.value.type_name()));
        };
        for (name, node) in in_order(entries) {
            let lower = name.to_lowercase();
            let known = shape.keys.iter().find(|(names, _)| names.contains(&lower.as_str()));
            let result = match known {
                Some((_, shape)) => self.check(shape, &Entry { name, node }),
                None => (shape.unknown)(name, node),
            };
            self.note(&node.at, result);
        }
        Ok(())
    }

    fn maps(&mut self, shape: &MapShape, node: &Node) -> Outcome {
        let Value::Array(elements) = &node.value else {
            return Err(expected(shape.expected, decode::shown(&node.value)));
        };
        for element in elements {
            let result = match &element.value {
                Value::Map(_) => self.map(shape, element),
                other => Err(expected(shape.expected_element, decode::shown(other))),
            };
            self.note(&element.at, result);
        }
        Ok(())
    }

    fn texts(&mut self, name: &'static str, node: &Node) -> Outcome {
        match &node.value {
            Value::String(_) => {}
            Value::Array(elements) => {
                for element in elements {
                    if !matches!(element.value, Value::String(_)) {
                        let what = format!("type in array {}", element.value.type_name());
                        self.note(&element.at, Err(Problem::Unsupported { context: name, what }));
                    }
                }
            }
            other => return Err(unsupported_type(name, other)),
        }
        Ok(())
    }

    pub(super) fn note(&mut self, at: &Position, result: Outcome) {
        let Err(problem) = result else { return };
        let at = match &self.wrong_types_at {
            Some(other) if matches!(problem, Problem::WrongType { .. }) => other,
            _ => at,
        };
        self.problems.push(ProblemAt { at: at.clone(), problem });
    }

    pub(super) fn misuse(&mut self, entry: &Entry<'_>, reason: impl Into<String>) {
        let field = entry.name.to_owned();
        self.warnings.push(Warning::Misuse { at: entry.node.at.clone(), field, reason: reason.into() });
    }
}

pub(super) fn expected(wanted: &'static str, found: impl Into<String>) -> Problem {
    Problem::Expected { wanted: wanted.to_owned(), found: found.into() }
}

pub(super) fn unsupported_type(context: &'static str, value: &Value) -> Problem {
    Problem::Unsupported { context, what: format!("type {}", value.type_name()) }
}
