//! Bodies of requests: a JSON object with options, read as Go's `encoding/json` reads it into a struct: names in any
//! case, what is not known passed over, and a mistake has the text that it would write.

use serde_json::Value;

/// What an option may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// On or off.
    Bool,
    /// A number.
    Int,
    /// A number that is not negative.
    Uint64,
    /// A text.
    Text,
    /// A list of texts.
    Texts,
    /// Bytes, as base64.
    Bytes,
    /// A number that stands for a state of connections.
    State,
    /// A text that names an order.
    Sort,
    /// Nanoseconds.
    Duration,
}

impl Kind {
    /// The name of the type that the reference has for it.
    fn go_name(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Uint64 => "uint64",
            Kind::Text => "string",
            Kind::Texts => "[]string",
            Kind::Bytes => "[]uint8",
            Kind::State => "server.ConnState",
            Kind::Sort => "server.SortOpt",
            Kind::Duration => "time.Duration",
        }
    }
}

/// An option that a request knows.
pub type Field = (&'static str, Kind);

/// Which servers are to answer: every request knows these too.
const FILTERS: [Field; 6] = [
    ("server_name", Kind::Text),
    ("cluster", Kind::Text),
    ("host", Kind::Text),
    ("exact_match", Kind::Bool),
    ("tags", Kind::Texts),
    ("domain", Kind::Text),
];

/// The options of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OptionsRead(Vec<(&'static str, Value)>);

/// What the filters of requests are held against.
#[derive(Debug, Clone, Copy)]
pub struct ServerFacts<'a> {
    /// The server's name.
    pub name: &'a str,
    /// The host that clients are told.
    pub host: &'a str,
    /// The domain of its JetStream, empty without one.
    pub domain: &'a str,
    /// The server's tags.
    pub tags: &'a [String],
}

impl OptionsRead {
    /// Reads a body. `name` is that of the reference's struct for it, `fields` are those that the request knows beside the
    /// filters.
    ///
    /// # Errors
    ///
    /// The text that the reference answers with.
    pub fn read(body: &[u8], name: &str, fields: &[Field]) -> Result<OptionsRead, String> {
        if body.is_empty() {
            return Ok(OptionsRead::default());
        }
        let value: Value = serde_json::from_slice(body).map_err(|_| syntax_error(body))?;
        let object = match value {
            Value::Object(object) => object,
            Value::Null => return Ok(OptionsRead::default()),
            other => {
                let what = go_kind(&other);
                return Err(format!("json: cannot unmarshal {what} into Go value of type server.{name}"));
            }
        };
        let mut read = OptionsRead::default();
        for (key, value) in object {
            let mut known = fields.iter().chain(&FILTERS);
            let Some((field, kind)) = known.find(|(field, _)| field.eq_ignore_ascii_case(&key)) else {
                continue;
            };
            if value.is_null() {
                continue;
            }
            check(&value, *kind).map_err(|(what, kind)| {
                format!("json: cannot unmarshal {what} into Go struct field {name}.{field} of type {kind}")
            })?;
            read.0.retain(|(other, _)| other != field);
            read.0.push((field, value));
        }
        Ok(read)
    }

    fn get(&self, field: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| *name == field).map(|(_, value)| value)
    }

    /// A text; empty if it is not there.
    pub fn text(&self, field: &str) -> &str {
        self.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// A switch; off if it is not there.
    pub fn is_on(&self, field: &str) -> bool {
        self.get(field).and_then(Value::as_bool).unwrap_or_default()
    }

    /// A number that is not negative; 0 if it is not there.
    pub fn unsigned(&self, field: &str) -> u64 {
        self.get(field).and_then(Value::as_u64).unwrap_or_default()
    }

    /// A list of texts; empty if it is not there.
    pub fn texts(&self, field: &str) -> impl Iterator<Item = &str> {
        self.get(field)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|text| text.as_str().unwrap_or_default())
    }

    /// What is there, as the parameters of a request over HTTP would have it.
    pub fn shown(&self, field: &str) -> Option<String> {
        match self.get(field)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// Whether the request is for this server.
    pub fn are_for(&self, server: ServerFacts<'_>) -> bool {
        let exactly = self.is_on("exact_match");
        let fits = |field: &str, own: &str| {
            let wanted = self.text(field);
            wanted.is_empty() || if exactly { own == wanted } else { own.contains(wanted) }
        };
        // Tags are kept in lower case, and asked for in any.
        let has_tag = |tag: &str| server.tags.iter().any(|own| own.eq_ignore_ascii_case(tag.trim()));
        fits("server_name", server.name)
            && fits("host", server.host)
            && fits("domain", server.domain)
            // There is no cluster here.
            && self.text("cluster").is_empty()
            && self.texts("tags").all(has_tag)
    }
}

/// Whether a value is of a kind; otherwise what it is, and what it was to be.
fn check(value: &Value, kind: Kind) -> Result<(), (String, &'static str)> {
    let fits = match kind {
        Kind::Bool => value.is_boolean(),
        Kind::Int | Kind::State | Kind::Duration => value.is_i64(),
        Kind::Uint64 => value.is_u64(),
        Kind::Text | Kind::Sort | Kind::Bytes => value.is_string(),
        Kind::Texts => {
            let Some(list) = value.as_array() else { return Err((go_kind(value), kind.go_name())) };
            return match list.iter().find(|entry| !entry.is_string() && !entry.is_null()) {
                Some(entry) => Err((go_kind(entry), "string")),
                None => Ok(()),
            };
        }
    };
    if fits {
        return Ok(());
    }
    let wants_number = matches!(kind, Kind::Int | Kind::State | Kind::Duration | Kind::Uint64);
    let what = match value {
        Value::Number(number) if wants_number => format!("number {number}"),
        other => go_kind(other),
    };
    Err((what, kind.go_name()))
}

fn go_kind(value: &Value) -> String {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
    .to_owned()
}

/// Where in an object or a list a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    Value,
    /// A value, or the end of the list.
    ValueOrEnd,
    Key,
    /// A key, or the end of the object.
    KeyOrEnd,
    Colon,
    /// A comma or the end.
    More,
}

/// What is wrong with a text that is not JSON, in the words of Go.
fn syntax_error(text: &[u8]) -> String {
    const EARLY_END: &str = "unexpected end of JSON input";
    let mut nesting: Vec<u8> = Vec::new();
    let mut expects = Expects::Value;
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            at += 1;
            continue;
        }
        let inner = nesting.last().copied();
        match (expects, byte) {
            (Expects::Value | Expects::ValueOrEnd, b'{') => {
                nesting.push(b'{');
                expects = Expects::KeyOrEnd;
            }
            (Expects::Value | Expects::ValueOrEnd, b'[') => {
                nesting.push(b'[');
                expects = Expects::ValueOrEnd;
            }
            (Expects::ValueOrEnd, b']') | (Expects::KeyOrEnd, b'}') => {
                nesting.pop();
                expects = Expects::More;
            }
            (Expects::More, b']') if inner == Some(b'[') => drop(nesting.pop()),
            (Expects::More, b'}') if inner == Some(b'{') => drop(nesting.pop()),
            (Expects::More, b',') if inner.is_some() => {
                expects = if inner == Some(b'{') { Expects::Key } else { Expects::Value };
            }
            (Expects::Colon, b':') => expects = Expects::Value,
            (Expects::Key | Expects::KeyOrEnd, b'"') => {
                let Some(end) = string_end(text, at) else { return EARLY_END.to_owned() };
                at = end;
                expects = Expects::Colon;
                continue;
            }
            (Expects::Value | Expects::ValueOrEnd, b'"') => {
                let Some(end) = string_end(text, at) else { return EARLY_END.to_owned() };
                at = end;
                expects = Expects::More;
                continue;
            }
            (Expects::Value | Expects::ValueOrEnd, b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
                let end = at + text[at..].iter().take_while(is_part).count();
                if serde_json::from_slice::<Value>(&text[at..end]).is_err() {
                    let is_start = |word: &&str| word.as_bytes().starts_with(&text[at..end]);
                    let is_cut = end == text.len() && ["true", "false", "null", "-"].iter().any(is_start);
                    return if is_cut {
                        EARLY_END.to_owned()
                    } else {
                        invalid(byte, "looking for beginning of value")
                    };
                }
                at = end;
                expects = Expects::More;
                continue;
            }
            (Expects::Value | Expects::ValueOrEnd, _) => {
                return invalid(byte, "looking for beginning of value");
            }
            (Expects::Key | Expects::KeyOrEnd, _) => {
                return invalid(byte, "looking for beginning of object key string");
            }
            (Expects::Colon, _) => return invalid(byte, "after object key"),
            (Expects::More, _) => {
                return invalid(
                    byte,
                    match inner {
                        Some(b'{') => "after object key:value pair",
                        Some(_) => "after array element",
                        None => "after top-level value",
                    },
                );
            }
        }
        at += 1;
    }
    EARLY_END.to_owned()
}

/// Where a string that begins at `from` ends.
fn string_end(text: &[u8], from: usize) -> Option<usize> {
    let mut escaped = false;
    for (at, &byte) in text.iter().enumerate().skip(from + 1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn invalid(byte: u8, place: &str) -> String {
    match byte {
        b'\'' => format!("invalid character '\\'' {place}"),
        byte if byte.is_ascii_graphic() => format!("invalid character '{}' {place}", char::from(byte)),
        byte => format!("invalid character '\\x{byte:02x}' {place}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [Field; 5] = [
        ("limit", Kind::Int),
        ("cid", Kind::Uint64),
        ("auth", Kind::Bool),
        ("user", Kind::Text),
        ("accounts", Kind::Texts),
    ];

    fn read(body: &str) -> Result<OptionsRead, String> {
        OptionsRead::read(body.as_bytes(), "XOptions", &FIELDS)
    }

    #[test]
    fn options_are_found_by_names_in_any_case_and_what_is_unknown_is_passed_over() {
        let options =
            read(r#"{"LIMIT":5,"cid":7,"auth":true,"user":"u","accounts":["A",null],"other":[1],"a":null}"#);
        let options = options.unwrap();
        assert_eq!((options.shown("limit").as_deref(), options.unsigned("cid")), (Some("5"), 7));
        assert!(options.is_on("auth") && !options.is_on("exact_match"));
        assert_eq!((options.text("user"), options.text("domain")), ("u", ""));
        assert_eq!(options.texts("accounts").collect::<Vec<_>>(), ["A", ""]);
        assert_eq!([read(""), read("null"), read("{}")], [(); 3].map(|()| Ok(OptionsRead::default())));
    }

    #[test]
    fn mistakes_have_the_words_of_go() {
        for (body, text) in [
            ("{", "unexpected end of JSON input"),
            (" ", "unexpected end of JSON input"),
            ("{\"a\"", "unexpected end of JSON input"),
            ("{\"a\":\"", "unexpected end of JSON input"),
            ("tru", "unexpected end of JSON input"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{x", "invalid character 'x' looking for beginning of object key string"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 2}", "invalid character '2' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("[]", "json: cannot unmarshal array into Go value of type server.XOptions"),
            ("5", "json: cannot unmarshal number into Go value of type server.XOptions"),
            (
                r#"{"limit":"x"}"#,
                "json: cannot unmarshal string into Go struct field XOptions.limit of type int",
            ),
            (
                r#"{"limit":1.5}"#,
                "json: cannot unmarshal number 1.5 into Go struct field XOptions.limit of type int",
            ),
            (
                r#"{"cid":-1}"#,
                "json: cannot unmarshal number -1 into Go struct field XOptions.cid of type uint64",
            ),
            (
                r#"{"user":1}"#,
                "json: cannot unmarshal number into Go struct field XOptions.user of type string",
            ),
            (
                r#"{"tags":{}}"#,
                "json: cannot unmarshal object into Go struct field XOptions.tags of type []string",
            ),
            (
                r#"{"tags":[true]}"#,
                "json: cannot unmarshal bool into Go struct field XOptions.tags of type string",
            ),
        ] {
            assert_eq!(read(body), Err(text.to_owned()), "{body}");
        }
    }

    #[test]
    fn a_server_answers_if_all_filters_fit() {
        let tags = ["cloud:aws".to_owned(), "b".to_owned()];
        let server = ServerFacts { name: "server-1", host: "0.0.0.0", domain: "", tags: &tags };
        let fits = |body: &str| read(body).unwrap().are_for(server);
        for body in [
            "{}",
            r#"{"server_name":"ver-"}"#,
            r#"{"server_name":"server-1","exact_match":true}"#,
            r#"{"host":"0.0"}"#,
            r#"{"tags":["b","Cloud:AWS"]}"#,
        ] {
            assert!(fits(body), "{body}");
        }
        for body in [
            r#"{"server_name":"ver-","exact_match":true}"#,
            r#"{"server_name":"server-2"}"#,
            r#"{"cluster":"c"}"#,
            r#"{"domain":"d"}"#,
            r#"{"tags":["b","c"]}"#,
            r#"{"host":"1.1.1.1"}"#,
        ] {
            assert!(!fits(body), "{body}");
        }
    }
}
