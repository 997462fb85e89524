//! JSON as the reference reads and writes it: the same texts for the same mistakes, the same bytes for the same values.
//!
//! Clients compare, log and test what the API says of a bad request, so that errors are worded as the reference's decoder
//! words them: `json: unknown field "x"`, `json: cannot unmarshal string into Go struct field R.a.b of type int64`. A request
//! is read once into a tree of [`Node`]s that borrow it, and then into the types that implement [`FromJson`]; the first mistake
//! in the order of the text is the one that is told. Like the reference it takes names without regard to case, `null` for "not said",
//! and several values one behind the other, later ones on top of earlier ones.
//!
//! [`Object`] writes. `<`, `>` and `&` are escaped, as the reference does.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// Nesting beyond which a request is refused. What is asked never needs more than six levels.
const DEPTH_MAX: usize = 64;

/// Why a request is not what it should be. The text is the reference's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(pub String);

/// How strictly a request is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strictness {
    /// Names that are not known are a mistake: what the reference does unless told otherwise.
    #[default]
    Strict,
    /// Names that are not known are passed over.
    Lenient,
}

/// Reads a whole request. An empty one leaves everything at its default.
///
/// # Errors
///
/// It is not JSON, has a name that is not known (if `strictness` says so), or a value of another type.
pub fn read<T: FromJson + Default>(request: &[u8], strictness: Strictness) -> Result<T, JsonError> {
    let mut value = T::default();
    let mut parser = Parser { text: request, at: 0 };
    let mut path = Path { root: T::type_name(), parts: Vec::new(), at_element: false, strictness };
    loop {
        parser.skip_blanks();
        if parser.at == request.len() {
            return Ok(value);
        }
        let node = parser.value(0).map_err(|error| error.into_text(request))?;
        value.read_from(&node, &mut path)?;
    }
}

/// Reads a request that is one value, and nothing behind it.
///
/// # Errors
///
/// As [`read`], and where there is no value or more than one.
pub fn read_one<T: FromJson + Default>(request: &[u8], strictness: Strictness) -> Result<T, JsonError> {
    let mut value = T::default();
    let mut parser = Parser { text: request, at: 0 };
    let node = parser.value(0).map_err(|error| error.into_text(request))?;
    parser.skip_blanks();
    if parser.at != request.len() {
        return Err(
            SyntaxError::Character { at: parser.at, wanted: "after top-level value" }.into_text(request)
        );
    }
    let mut path = Path { root: T::type_name(), parts: Vec::new(), at_element: false, strictness };
    value.read_from(&node, &mut path)?;
    Ok(value)
}

/// Whether the first byte behind blanks begins an object or an array. Handlers that may be asked without a body take anything else as no body.
pub fn is_object_or_array(request: &[u8]) -> bool {
    matches!(request.iter().find(|byte| !is_blank(**byte)), Some(b'{' | b'['))
}

/// Whether there is nothing in a request: no bytes, or an object without members.
pub fn is_empty_request(request: &[u8]) -> bool {
    if request.is_empty() {
        return true;
    }
    let mut parser = Parser { text: request, at: 0 };
    parser.skip_blanks();
    let empty =
        matches!(parser.value(0), Ok(Node { value: Value::Object(members), .. }) if members.is_empty());
    parser.skip_blanks();
    empty && parser.at == request.len()
}

/// A value of a request, with the bytes that it stands in.
#[derive(Debug, Clone, PartialEq)]
pub struct Node<'a> {
    /// The bytes of the request.
    pub raw: &'a [u8],
    /// What they are.
    pub value: Value<'a>,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "JSON's own words")]
pub enum Value<'a> {
    Null,
    Bool(bool),
    /// As it is written.
    Number(&'a str),
    String(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

/// Where in a request a value stands: for the text of errors.
#[derive(Debug)]
pub struct Path {
    root: String,
    parts: Vec<String>,
    /// The last part is the number of an element.
    at_element: bool,
    strictness: Strictness,
}

impl Path {
    /// The error that a value is not of the type that belongs here.
    pub fn mismatch(&self, node: &Node<'_>, type_name: &str) -> JsonError {
        let kind = match &node.value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        self.cannot(kind, type_name)
    }

    fn cannot(&self, what: &str, type_name: &str) -> JsonError {
        JsonError(if self.parts.is_empty() {
            format!("json: cannot unmarshal {what} into Go value of type {type_name}")
        } else {
            let root = self.root.rsplit('.').next().unwrap_or_default();
            let field = self.parts.join(".");
            // The reference names an element of a list without saying what it is of.
            let of = if self.at_element { "" } else { "Go struct field " };
            format!("json: cannot unmarshal {what} into {of}{root}.{field} of type {type_name}")
        })
    }

    /// Reads a member of an object.
    ///
    /// # Errors
    ///
    /// Its value is not of the type of `into`.
    pub fn member<T: FromJson>(
        &mut self,
        name: &str,
        node: &Node<'_>,
        into: &mut T,
    ) -> Result<(), JsonError> {
        self.part(name.to_owned(), false, node, into)
    }

    fn part<T: FromJson>(
        &mut self,
        part: String,
        is_element: bool,
        node: &Node<'_>,
        into: &mut T,
    ) -> Result<(), JsonError> {
        self.parts.push(part);
        self.at_element = is_element;
        into.read_from(node, self)?;
        self.at_element = false;
        self.parts.pop();
        Ok(())
    }

    /// What to do about a member of an object that is not known.
    ///
    /// # Errors
    ///
    /// The request is read strictly.
    pub fn unknown(&self, name: &str) -> Result<(), JsonError> {
        match self.strictness {
            Strictness::Strict => Err(JsonError(format!("json: unknown field {}", go_quoted(name)))),
            Strictness::Lenient => Ok(()),
        }
    }
}

/// What can be read from a request.
pub trait FromJson {
    /// The name that the reference's errors have for the type.
    fn type_name() -> String;

    /// The name as that of a list's elements.
    fn element_name() -> String {
        Self::type_name()
    }

    /// Takes the value of a node. `null` changes nothing.
    ///
    /// # Errors
    ///
    /// The node is of another type, or something in it is.
    fn read_from(&mut self, node: &Node<'_>, path: &mut Path) -> Result<(), JsonError>;
}

/// Implements [`FromJson`] for a struct: the name of its type in errors, and its members.
macro_rules! from_json {
    ($type:ty, $go:literal $(in lists $element:literal)?, { $($name:literal => $($field:ident).+),* $(,)? }) => {
        impl $crate::stream::json::FromJson for $type {
            fn type_name() -> String {
                $go.to_owned()
            }

            $(fn element_name() -> String {
                $element.to_owned()
            })?

            fn read_from(
                &mut self,
                node: &$crate::stream::json::Node<'_>,
                path: &mut $crate::stream::json::Path,
            ) -> Result<(), $crate::stream::json::JsonError> {
                use $crate::stream::json::Value;
                const NAMES: &[&str] = &[$($name),*];
                let members = match &node.value {
                    Value::Object(members) => members,
                    Value::Null => return Ok(()),
                    _ => return Err(path.mismatch(node, $go)),
                };
                for (given, member) in members {
                    let given: &str = given;
                    let name = NAMES
                        .iter()
                        .find(|name| **name == given)
                        .or_else(|| NAMES.iter().find(|name| name.eq_ignore_ascii_case(given)));
                    match name.copied() {
                        $(Some($name) => path.member($name, member, &mut self.$($field).+)?,)*
                        _ => path.unknown(given)?,
                    }
                }
                Ok(())
            }
        }
    };
}
pub(crate) use from_json;

macro_rules! integers_from_json {
    ($($type:ty, $go:literal;)*) => {$(
        impl FromJson for $type {
            fn type_name() -> String {
                $go.to_owned()
            }

            fn read_from(&mut self, node: &Node<'_>, path: &mut Path) -> Result<(), JsonError> {
                match &node.value {
                    Value::Null => {}
                    Value::Number(text) => {
                        *self = text.parse().map_err(|_| path.cannot(&format!("number {text}"), $go))?;
                    }
                    _ => return Err(path.mismatch(node, $go)),
                }
                Ok(())
            }
        }
    )*};
}

integers_from_json! {
    i64, "int64";
    i32, "int32";
    u64, "uint64";
    u16, "uint16";
}

/// The reference's `int`, which is 64 bits wide but has a name of its own in errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Int(pub i64);

impl FromJson for Int {
    fn type_name() -> String {
        "int".to_owned()
    }

    fn read_from(&mut self, node: &Node<'_>, path: &mut Path) -> Result<(), JsonError> {
        match &node.value {
            Value::Null => {}
            Value::Number(text) => {
                self.0 = text.parse().map_err(|_| path.cannot(&format!("number {text}"), "int"))?;
            }
            _ => return Err(path.mismatch(node, "int")),
        }
        Ok(())
    }
}

/// A duration, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct DurationNs(pub i64);

impl FromJson for DurationNs {
    fn type_name() -> String {
        "time.Duration".to_owned()
    }

    fn read_from(&mut self, node: &Node<'_>, path: &mut Path) -> Result<(), JsonError> {
        match &node.value {
            Value::Null => {}
            Value::Number(text) => {
                self.0 = text.parse().map_err(|_| path.cannot(&format!("number {text}"), "time.Duration"))?;
            }
            _ => return Err(path.mismatch(node, "time.Duration")),
        }
        Ok(())
    }
}

impl FromJson for bool {
    fn type_name() -> String {
        "bool".to_owned()
    }

    fn read_from(&mut self, node: &Node<'_>, path: &mut Path) -> Result<(), JsonError> {
        match &node.value {
            Value::Null => {}
            Value::Bool(value) => *self = *value,
            _ => return Err(path.mismatch(node, "bool")),
        }
        Ok(())
    }
}

impl FromJson for String {
    fn type_name() -> String {
        "string".to_owned()
    }

    fn read_from(&mut self, node: &Node<'_>, path: &mut Path) -> Result<(), JsonError> {
        match &node.value {
            Value::Null => {}
            Value::String(value) => *self = value.clone().into_owned(),
            _ => return Err(path.mismatch(node, "string")),
        }
        Ok(())
    }
}

impl<T: FromJson + Default> FromJson for Option<T> {
    fn type_name() -> String {
        T::type_name()
    }

    fn read_from(&mut self, node: &Node<'_>, path: &mut Path) -> Result<(), JsonError> {
        if node.value == Value::Null {
            *self = None;
            return Ok(());
        }
        self.get_or_insert_default().read_from(node, path)
    }
}

impl<T: FromJson + Default> FromJson for Vec<T> {
    fn type_name() -> String {
        format!("[]{}", T::element_name())
    }

    fn read_from(&mut self, node: &Node<'_>, path: &mut Path) -> Result<(), JsonError> {
        match &node.value {
            Value::Null => self.clear(),
            Value::Array(nodes) => {
                self.clear();
                for (index, node) in nodes.iter().enumerate() {
                    let mut value = T::default();
                    path.part(index.to_string(), true, node, &mut value)?;
                    self.push(value);
                }
            }
            _ => return Err(path.mismatch(node, &Self::type_name())),
        }
        Ok(())
    }
}

impl FromJson for BTreeMap<String, String> {
    fn type_name() -> String {
        "map[string]string".to_owned()
    }

    fn read_from(&mut self, node: &Node<'_>, path: &mut Path) -> Result<(), JsonError> {
        match &node.value {
            Value::Null => self.clear(),
            Value::Object(members) => {
                for (name, node) in members {
                    let mut value = String::new();
                    path.member(name, node, &mut value)?;
                    self.insert(name.clone().into_owned(), value);
                }
            }
            _ => return Err(path.mismatch(node, &Self::type_name())),
        }
        Ok(())
    }
}

/// A string in the quotes of the reference's `%q`.
pub fn go_quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            '\0'..'\u{20}' | '\u{7f}' => quoted.push_str(&format!("\\x{:02x}", character as u32)),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

enum SyntaxError {
    /// The text ends too early.
    End,
    /// A character that does not belong where it stands, and what was looked for.
    Character {
        at: usize,
        wanted: &'static str,
    },
    /// An escape that is none, from its backslash to the byte behind it.
    Escape {
        from: usize,
        to: usize,
    },
    TooDeep,
}

impl SyntaxError {
    fn into_text(self, text: &[u8]) -> JsonError {
        JsonError(match self {
            SyntaxError::End => "unexpected EOF".to_owned(),
            SyntaxError::Character { at, wanted } => {
                let rest = &text[at..text.len().min(at + 4)];
                let lossy = String::from_utf8_lossy(rest);
                let character = match lossy.chars().next().unwrap_or_default() {
                    '\'' => r"'\''".to_owned(),
                    '"' => "'\"'".to_owned(),
                    other => {
                        let quoted = go_quoted(&other.to_string());
                        format!("'{}'", &quoted[1..quoted.len() - 1])
                    }
                };
                format!("invalid character {character} {wanted} at offset {}", at + 1)
            }
            SyntaxError::Escape { from, to } => {
                let escape = String::from_utf8_lossy(&text[from..to]);
                format!("invalid escape sequence `{escape}` in string at offset {to}")
            }
            SyntaxError::TooDeep => "exceeded max depth".to_owned(),
        })
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    fn skip_blanks(&mut self) {
        while self.text.get(self.at).is_some_and(|byte| is_blank(*byte)) {
            self.at += 1;
        }
    }

    /// The next byte behind blanks, which is not taken.
    fn peek(&mut self) -> Result<u8, SyntaxError> {
        self.skip_blanks();
        self.text.get(self.at).copied().ok_or(SyntaxError::End)
    }

    fn unexpected<T>(&self, wanted: &'static str) -> Result<T, SyntaxError> {
        Err(SyntaxError::Character { at: self.at, wanted })
    }

    fn value(&mut self, depth: usize) -> Result<Node<'a>, SyntaxError> {
        if depth > DEPTH_MAX {
            return Err(SyntaxError::TooDeep);
        }
        let first = self.peek()?;
        let from = self.at;
        let value = match first {
            b'{' => self.object(depth)?,
            b'[' => self.array(depth)?,
            b'"' => Value::String(self.string()?),
            b'-' | b'0'..=b'9' => self.number()?,
            b't' => self.literal("true", Value::Bool(true))?,
            b'f' => self.literal("false", Value::Bool(false))?,
            b'n' => self.literal("null", Value::Null)?,
            _ => return self.unexpected("looking for beginning of value"),
        };
        Ok(Node { raw: &self.text[from..self.at], value })
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, SyntaxError> {
        let mut members = Vec::new();
        self.at += 1;
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(Value::Object(members));
        }
        loop {
            if self.peek()? != b'"' {
                return self.unexpected("looking for beginning of object key string");
            }
            let name = self.string()?;
            if self.peek()? != b':' {
                return self.unexpected("after object key");
            }
            self.at += 1;
            members.push((name, self.value(depth + 1)?));
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(Value::Object(members));
                }
                _ => return self.unexpected("after object key:value pair"),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value<'a>, SyntaxError> {
        let mut nodes = Vec::new();
        self.at += 1;
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(Value::Array(nodes));
        }
        loop {
            nodes.push(self.value(depth + 1)?);
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(Value::Array(nodes));
                }
                _ => return self.unexpected("after array element"),
            }
        }
    }

    fn literal(&mut self, word: &'static str, value: Value<'a>) -> Result<Value<'a>, SyntaxError> {
        for (index, wanted) in word.bytes().enumerate() {
            match self.text.get(self.at) {
                None => return Err(SyntaxError::End),
                Some(byte) if *byte == wanted => self.at += 1,
                Some(_) => {
                    return self.unexpected(match (word, index) {
                        ("true", 1) => "in literal true (expecting 'r')",
                        ("true", 2) => "in literal true (expecting 'u')",
                        ("true", _) => "in literal true (expecting 'e')",
                        ("false", 1) => "in literal false (expecting 'a')",
                        ("false", 2) => "in literal false (expecting 'l')",
                        ("false", 3) => "in literal false (expecting 's')",
                        ("false", _) => "in literal false (expecting 'e')",
                        (_, 1) => "in literal null (expecting 'u')",
                        _ => "in literal null (expecting 'l')",
                    });
                }
            }
        }
        Ok(value)
    }

    fn number(&mut self) -> Result<Value<'a>, SyntaxError> {
        let from = self.at;
        if self.text[self.at] == b'-' {
            self.at += 1;
        }
        match self.text.get(self.at) {
            None => return Err(SyntaxError::End),
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            Some(_) => return self.unexpected("in numeric literal"),
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.some_digits("in numeric literal")?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits("in numeric literal")?;
        }
        // Only ASCII was taken.
        Ok(Value::Number(std::str::from_utf8(&self.text[from..self.at]).unwrap_or_default()))
    }

    fn some_digits(&mut self, wanted: &'static str) -> Result<(), SyntaxError> {
        match self.text.get(self.at) {
            None => Err(SyntaxError::End),
            Some(byte) if byte.is_ascii_digit() => {
                self.digits();
                Ok(())
            }
            Some(_) => self.unexpected(wanted),
        }
    }

    fn digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, SyntaxError> {
        self.at += 1;
        let from = self.at;
        let mut made: Option<Vec<u8>> = None;
        let mut copied_to = from;
        loop {
            let byte = *self.text.get(self.at).ok_or(SyntaxError::End)?;
            match byte {
                b'"' => {
                    let end = self.at;
                    self.at += 1;
                    return Ok(match made {
                        None => String::from_utf8_lossy(&self.text[from..end]),
                        Some(mut made) => {
                            made.extend_from_slice(&self.text[copied_to..end]);
                            Cow::Owned(String::from_utf8_lossy(&made).into_owned())
                        }
                    });
                }
                b'\\' => {
                    let made = made.get_or_insert_default();
                    made.extend_from_slice(&self.text[copied_to..self.at]);
                    self.escape(made)?;
                    copied_to = self.at;
                }
                0..0x20 => return self.unexpected("in string"),
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), SyntaxError> {
        let from = self.at;
        let letter = *self.text.get(from + 1).ok_or(SyntaxError::End)?;
        self.at += 2;
        out.push(match letter {
            b'"' | b'\\' | b'/' => letter,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let unit = self.unit(from)?;
                let mut character = char::from_u32(unit.into());
                if (0xd800..0xdc00).contains(&unit) && self.text[self.at..].starts_with(b"\\u") {
                    let (second_from, after_first) = (self.at, self.at);
                    self.at += 2;
                    let second = self.unit(second_from)?;
                    character = char::decode_utf16([unit, second]).next().and_then(Result::ok);
                    if character.is_none() {
                        self.at = after_first;
                    }
                }
                let mut buffer = [0; 4];
                out.extend_from_slice(
                    character.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut buffer).as_bytes(),
                );
                return Ok(());
            }
            _ => return Err(SyntaxError::Escape { from, to: self.at }),
        });
        Ok(())
    }

    /// The four digits behind `\u`, whose backslash is at `from`.
    fn unit(&mut self, from: usize) -> Result<u16, SyntaxError> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(SyntaxError::End)?;
        self.at += 4;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(SyntaxError::Escape { from, to: self.at });
        }
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        Ok(u16::from_str_radix(digits, 16).unwrap_or_default())
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Writes an object, member by member.
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    /// Opens it.
    pub fn begin(out: &'a mut Vec<u8>) -> Object<'a> {
        out.push(b'{');
        Object { out, empty: true }
    }

    /// Closes it.
    pub fn end(self) {
        self.out.push(b'}');
    }

    /// A member whose value the caller writes.
    pub fn member(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// A string.
    pub fn string(&mut self, name: &str, value: &str) {
        write_string(self.member(name), value);
    }

    /// A string, unless it is empty.
    pub fn string_unless_empty(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.string(name, value);
        }
    }

    /// Bytes in base64, unless there are none.
    pub fn base64_unless_empty(&mut self, name: &str, value: &[u8]) {
        if !value.is_empty() {
            let out = self.member(name);
            out.push(b'"');
            out.extend_from_slice(data_encoding::BASE64.encode(value).as_bytes());
            out.push(b'"');
        }
    }

    /// A number.
    pub fn uint(&mut self, name: &str, value: u64) {
        write_uint(self.member(name), value);
    }

    /// A member whose name comes from outside, and whose value the caller writes.
    pub fn keyed(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        write_string(self.out, name);
        self.out.push(b':');
        self.out
    }

    /// A number behind a name that comes from outside.
    pub fn keyed_uint(&mut self, name: &str, value: u64) {
        write_uint(self.keyed(name), value);
    }

    /// A number, unless it is zero.
    pub fn uint_unless_zero(&mut self, name: &str, value: u64) {
        if value != 0 {
            self.uint(name, value);
        }
    }

    /// A number with a sign.
    pub fn int(&mut self, name: &str, value: i64) {
        let out = self.member(name);
        if value < 0 {
            out.push(b'-');
        }
        write_uint(out, value.unsigned_abs());
    }

    /// A number with a sign, unless it is zero.
    pub fn int_unless_zero(&mut self, name: &str, value: i64) {
        if value != 0 {
            self.int(name, value);
        }
    }

    /// `true` or `false`.
    pub fn bool(&mut self, name: &str, value: bool) {
        self.member(name).extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// `true`, or nothing.
    pub fn bool_if_set(&mut self, name: &str, value: bool) {
        if value {
            self.bool(name, true);
        }
    }

    /// A list of strings.
    pub fn strings<S: AsRef<str>>(&mut self, name: &str, values: &[S]) {
        let out = self.member(name);
        write_array(out, values, |out, value| write_string(out, value.as_ref()));
    }

    /// A list of strings, unless it is empty.
    pub fn strings_unless_empty<S: AsRef<str>>(&mut self, name: &str, values: &[S]) {
        if !values.is_empty() {
            self.strings(name, values);
        }
    }

    /// A map of strings, unless it is empty.
    pub fn map_unless_empty(&mut self, name: &str, values: &BTreeMap<String, String>) {
        if values.is_empty() {
            return;
        }
        let out = self.member(name);
        for (index, (key, value)) in values.iter().enumerate() {
            out.push(if index == 0 { b'{' } else { b',' });
            write_string(out, key);
            out.push(b':');
            write_string(out, value);
        }
        out.push(b'}');
    }

    /// A time in nanoseconds since 1970.
    pub fn time(&mut self, name: &str, time_ns: i64) {
        let out = self.member(name);
        out.push(b'"');
        super::time::write(out, time_ns);
        out.push(b'"');
    }
}

/// Writes a list.
pub fn write_array<T>(out: &mut Vec<u8>, values: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, value);
    }
    out.push(b']');
}

/// Writes a number in decimal.
pub fn write_uint(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes a string in quotes.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut done = 0;
    for (at, byte) in bytes.iter().copied().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            8 => b"\\b",
            12 => b"\\f",
            b'<' | b'>' | b'&' | 0..0x20 => {
                out.extend_from_slice(&bytes[done..at]);
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
                done = at + 1;
                continue;
            }
            // The two separators of lines that JavaScript does not take in a string: E2 80 A8 and E2 80 A9.
            0xa8 | 0xa9 if bytes[..at].ends_with(b"\xe2\x80") => {
                out.extend_from_slice(&bytes[done..at - 2]);
                out.extend_from_slice(if byte == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                done = at + 1;
                continue;
            }
            _ => continue,
        };
        out.extend_from_slice(&bytes[done..at]);
        out.extend_from_slice(escape);
        done = at + 1;
    }
    out.extend_from_slice(&bytes[done..]);
    out.push(b'"');
}
