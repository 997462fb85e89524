//! The fingerprint of a configuration: SHA-256 over its tree as JSON.
//!
//! Tools compare it between hosts and with what nats-server prints, so it has to be the reference's bytes: keys sorted,
//! no spaces, `<`, `>` and `&` escaped for HTML, floats as Go writes them, and one newline at the end.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::value::{Map, Node, Value};

/// `sha256:` and 64 hexadecimal digits.
pub fn digest(map: &Map) -> String {
    let mut json = String::new();
    write_map(&mut json, map);
    json.push('\n');
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(json.as_bytes()) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn write_map(json: &mut String, map: &Map) {
    json.push('{');
    for (index, (key, node)) in map.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        write_string(json, key);
        json.push(':');
        write_value(json, node);
    }
    json.push('}');
}

fn write_value(json: &mut String, node: &Node) {
    match &node.value {
        Value::String(text) => write_string(json, text),
        Value::Integer(number) => {
            let _ = write!(json, "{number}");
        }
        Value::Float(number) => write_float(json, *number),
        Value::Bool(truth) => json.push_str(if *truth { "true" } else { "false" }),
        Value::Datetime(datetime) => {
            let _ = write!(json, "\"{datetime}\"");
        }
        Value::Array(elements) => {
            json.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                write_value(json, element);
            }
            json.push(']');
        }
        Value::Map(map) => write_map(json, map),
    }
}

fn write_string(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(json, "\\u{:04x}", c as u32);
            }
            c => json.push(c),
        }
    }
    json.push('"');
}

/// Go's shortest form: plain digits between 1e-6 and 1e21, otherwise an exponent without leading zeros.
fn write_float(json: &mut String, number: f64) {
    let size = number.abs();
    let _ = if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{number:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => write!(json, "{digits}e+{exponent}"),
            _ => write!(json, "{text}"),
        }
    } else {
        write!(json, "{number}")
    };
}
