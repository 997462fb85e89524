//! JSON as Go's `encoding/json` writes it, which is what tools around nats-server have been fed with for years: two
//! spaces of indentation, `<`, `>` and `&` as `\u003c` and so on, whole floats without a fraction.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// A value over several lines, each level indented by `indent`.
pub fn indented(value: &impl Serialize, indent: &str) -> Vec<u8> {
    write(value, PrettyFormatter::with_indent(indent.as_bytes()))
}

/// A value on one line.
pub fn compact(value: &impl Serialize) -> Vec<u8> {
    write(value, CompactFormatter)
}

/// JSON without the white space between its parts.
pub fn compacted(json: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b' ' | b'\n' | b'\r' | b'\t' if !in_string => continue,
            _ => {}
        }
        text.push(byte);
    }
    text
}

/// JSON that stands on one line over several, each level indented by `indent`.
pub fn spread(json: &[u8], indent: &str) -> Vec<u8> {
    let mut text = Vec::with_capacity(2 * json.len());
    let (mut in_string, mut escaped, mut depth) = (false, false, 0);
    let new_line = |text: &mut Vec<u8>, depth: usize| {
        text.push(b'\n');
        (0..depth).for_each(|_| text.extend_from_slice(indent.as_bytes()));
    };
    for (at, &byte) in json.iter().enumerate() {
        if in_string {
            text.push(byte);
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'{' | b'[' => {
                text.push(byte);
                // What is empty stays on its line.
                if !matches!(json.get(at + 1), Some(b'}' | b']')) {
                    depth += 1;
                    new_line(&mut text, depth);
                }
            }
            b'}' | b']' => {
                if !matches!(json[at - 1], b'{' | b'[') {
                    depth -= 1;
                    new_line(&mut text, depth);
                }
                text.push(byte);
            }
            b',' => {
                text.push(byte);
                new_line(&mut text, depth);
            }
            b':' => text.extend_from_slice(b": "),
            _ => {
                in_string = byte == b'"';
                text.push(byte);
            }
        }
    }
    text
}

fn write(value: &impl Serialize, layout: impl Formatter) -> Vec<u8> {
    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, AsGo(layout));
    value
        .serialize(&mut serializer)
        .expect("strings, numbers, lists and maps with text keys always serialise");
    text
}

/// The layout of another formatter, the spelling of Go.
struct AsGo<F>(F);

/// Passes calls on to the formatter that lays out.
macro_rules! as_laid_out {
    ($($name:ident($($argument:ident: $kind:ty),*)),* $(,)?) => {
        $(fn $name<W: ?Sized + Write>(&mut self, writer: &mut W $(, $argument: $kind)*) -> io::Result<()> {
            self.0.$name(writer $(, $argument)*)
        })*
    };
}

impl<F: Formatter> Formatter for AsGo<F> {
    as_laid_out!(
        begin_array(),
        end_array(),
        begin_array_value(first: bool),
        end_array_value(),
        begin_object(),
        end_object(),
        begin_object_key(first: bool),
        end_object_key(),
        begin_object_value(),
        end_object_value(),
    );

    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        // The shortest digits that read back as the same number, as in Go; no exponent in the range that is used here.
        write!(writer, "{value}")
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (before, from) = rest.split_at(at);
            let special = from.chars().next().unwrap_or_default();
            write!(writer, "{before}\\u{:04x}", u32::from(special))?;
            rest = &from[special.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Sample {
        text: &'static str,
        whole: f64,
        part: f64,
        empty: Vec<u8>,
        list: [u8; 2],
    }

    const SAMPLE: Sample =
        Sample { text: "foo.> & \u{2028}\"\\", whole: 2.0, part: 2.0 / 3.0, empty: Vec::new(), list: [1, 2] };

    #[test]
    fn lines_and_escapes_are_those_of_go() {
        let text = String::from_utf8(indented(&SAMPLE, "  ")).unwrap();
        let expected = r#"{
  "text": "foo.\u003e \u0026 \u2028\"\\",
  "whole": 2,
  "part": 0.6666666666666666,
  "empty": [],
  "list": [
    1,
    2
  ]
}"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_compacted_is_what_would_have_been_written_on_one_line() {
        assert_eq!(compacted(&indented(&SAMPLE, "  ")), compact(&SAMPLE));
    }

    #[test]
    fn what_is_spread_is_what_would_have_been_written_over_several_lines() {
        assert_eq!(spread(&compact(&SAMPLE), "  "), indented(&SAMPLE, "  "));
        let text = br#"{"a":{},"b":[{"c":"}\\\",[{"}],"d":[]}"#;
        let value: serde_json::Value = serde_json::from_slice(text).unwrap();
        assert_eq!(spread(text, "  "), indented(&value, "  "));
    }

    #[test]
    fn on_one_line_there_are_no_spaces() {
        let text = String::from_utf8(compact(&[true, false])).unwrap();
        assert_eq!(text, "[true,false]");
    }
}
