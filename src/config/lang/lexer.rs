//! Characters with their positions, and the scanning of one scalar value.
//!
//! What a scalar is depends only on its own text: quotes, a block, a sign, a digit or anything else decide on the
//! first character. Where scalars may stand is the parser's business.
//!
//! Numbers are optimistic: `10`, `10k`, `10.5` and `10.0.0.1:80` are told apart on the way, and what began as a number
//! and turns out to be none (`2s`, `127abc`) is an unquoted string. The reference does the same, so durations need no
//! quotes, with the well-known trap that `2m` is two million.

use std::sync::Arc;

use super::value::{Datetime, Position};
use super::{LangError, Met, SyntaxError, Value};

/// A value without structure.
#[derive(Debug)]
pub(super) enum Scalar {
    Value(Value),
    /// `$NAME`, to be resolved by the parser.
    Variable(String),
}

/// The key of an assignment.
#[derive(Debug)]
pub(super) struct Key<'a> {
    pub(super) at: Position,
    pub(super) text: &'a str,
    pub(super) is_quoted: bool,
}

/// A place in the text, moving forward.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'a> {
    file: Arc<str>,
    text: &'a str,
    offset: usize,
    line: u32,
    /// The offset of the last newline, 0 on the first line.
    line_base: usize,
}

pub(super) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

pub(super) fn is_newline(c: char) -> bool {
    matches!(c, '\n' | '\r')
}

pub(super) fn is_key_separator(c: char) -> bool {
    matches!(c, ':' | '=')
}

impl<'a> Lexer<'a> {
    pub(super) fn new(file: Arc<str>, text: &'a str) -> Self {
        Lexer { file, text, offset: 0, line: 1, line_base: 0 }
    }

    pub(super) fn file(&self) -> &Arc<str> {
        &self.file
    }

    pub(super) fn position(&self) -> Position {
        Position { file: self.file.clone(), line: self.line, column: (self.offset - self.line_base) as u32 }
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.text[self.offset..].chars().next()
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.offset..]
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        if c == '\n' {
            self.line += 1;
            self.line_base = self.offset;
        }
        self.offset += c.len_utf8();
        Some(c)
    }

    pub(super) fn skip_while(&mut self, accept: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&accept) {
            self.next();
        }
    }

    /// Steps over `#…` or `//…` up to the newline; false where neither starts here.
    pub(super) fn skip_comment(&mut self) -> bool {
        if self.peek() != Some('#') && !self.rest().starts_with("//") {
            return false;
        }
        self.skip_while(|c| !is_newline(c));
        true
    }

    /// An error at the current character; its line is the one after a newline that was met, as in the reference.
    pub(super) fn error_at_next(&mut self, reason: impl FnOnce(Met) -> SyntaxError) -> LangError {
        let met = Met(self.next());
        LangError::Syntax { at: self.position(), reason: reason(met) }
    }

    pub(super) fn error(&self, reason: SyntaxError) -> LangError {
        LangError::Syntax { at: self.position(), reason }
    }

    /// A key: quoted (no escapes), or bare up to white space or a separator. `None` where the text ends in a bare key
    /// or before the closing quote.
    pub(super) fn key(&mut self) -> Option<Key<'a>> {
        let quote = self.peek().filter(|c| matches!(c, '"' | '\''));
        if quote.is_some() {
            self.next();
        }
        let at = self.position();
        let start = self.offset;
        match quote {
            Some(quote) => {
                self.skip_while(|c| c != quote);
                let text = &self.text[start..self.offset];
                self.next().map(|_| Key { at, text, is_quoted: true })
            }
            None => {
                // The first character belongs to the key whatever it is: the caller has seen it.
                self.next()?;
                self.skip_while(|c| !c.is_whitespace() && !is_key_separator(c));
                Some(Key { at, text: &self.text[start..self.offset], is_quoted: false })
            }
        }
    }

    /// The path after `include`.
    pub(super) fn include_path(&mut self) -> Result<String, LangError> {
        self.skip_while(is_blank);
        let found = match self.peek() {
            Some(quote @ ('"' | '\'')) => {
                self.next();
                let start = self.offset;
                self.skip_while(|c| c != quote);
                let path = &self.text[start..self.offset];
                return match self.next() {
                    Some(_) => Ok(path.to_owned()),
                    None => Err(self.error(SyntaxError::EndOfText)),
                };
            }
            Some('[') => "start of an array",
            Some('{') => "start of a map",
            Some('(') => "start of a block",
            Some(c) if c.is_ascii_digit() || c == '-' => "start of a number",
            Some('\\') => "escape sequence",
            Some(c) if is_newline(c) => "new line",
            _ => "",
        };
        if !found.is_empty() {
            return Err(self.error_at_next(|_| SyntaxError::IncludeValue(found)));
        }
        let start = self.offset;
        self.skip_while(|c| !is_newline(c) && !is_blank(c) && !matches!(c, ';' | '}'));
        Ok(self.text[start..self.offset].to_owned())
    }

    /// One value that is neither map nor array. The caller has skipped blanks and looked at the first character.
    pub(super) fn scalar(&mut self) -> Result<Scalar, LangError> {
        let start = self.offset;
        match self.peek() {
            Some('\'') => self.single_quoted(),
            Some('"') => self.double_quoted(),
            Some('(') => self.block(),
            Some('-') => self.negative_number(),
            Some('.') => Err(self.error_at_next(|_| SyntaxError::FloatStart)),
            Some(c) if c.is_ascii_digit() => self.number_or_date_or_string(),
            Some(c) if is_newline(c) => Err(self.error_at_next(|_| SyntaxError::ValueNewLine)),
            _ => self.bare_string(start),
        }
    }

    fn single_quoted(&mut self) -> Result<Scalar, LangError> {
        self.next();
        let start = self.offset;
        self.skip_while(|c| c != '\'');
        let text = &self.text[start..self.offset];
        match self.next() {
            Some(_) => Ok(string(text)),
            None => Err(self.error(SyntaxError::EndOfText)),
        }
    }

    fn double_quoted(&mut self) -> Result<Scalar, LangError> {
        self.next();
        let at = self.position();
        let mut bytes = Vec::new();
        loop {
            match self.next() {
                Some('"') => break,
                Some('\\') => bytes.push(self.escape()?),
                Some(c) => push(&mut bytes, c),
                None => return Err(self.error(SyntaxError::EndOfText)),
            }
        }
        from_bytes(bytes, at)
    }

    /// `( … )` up to a closing parenthesis that has its line to itself. Its text includes the newline before that line.
    fn block(&mut self) -> Result<Scalar, LangError> {
        self.next();
        let start = self.offset;
        loop {
            match self.next() {
                Some('\n') => {
                    let after = self.rest().strip_prefix(')');
                    if after.is_some_and(|rest| {
                        rest.is_empty() || rest.starts_with('\n') || rest.starts_with("\r\n")
                    }) {
                        let text = &self.text[start..self.offset];
                        self.next();
                        return Ok(string(text));
                    }
                }
                Some(_) => {}
                None => return Err(self.error(SyntaxError::EndInBlock)),
            }
        }
    }

    fn negative_number(&mut self) -> Result<Scalar, LangError> {
        let (start, at) = (self.offset, self.position());
        self.next();
        if !self.peek().is_some_and(|c| c.is_ascii_digit()) {
            return Err(self.error_at_next(SyntaxError::Digit));
        }
        self.skip_while(|c| c.is_ascii_digit());
        match self.peek() {
            Some('.') => self.float_or_address(start, at),
            Some(c) if is_size_suffix(c) => self.size_or_string(start, at),
            _ => self.integer(start, at),
        }
    }

    fn number_or_date_or_string(&mut self) -> Result<Scalar, LangError> {
        let (start, at) = (self.offset, self.position());
        self.skip_while(|c| c.is_ascii_digit());
        match self.peek() {
            Some('-') => self.datetime(start, at),
            Some('.') => self.float_or_address(start, at),
            Some(c) if is_size_suffix(c) => self.size_or_string(start, at),
            c if ends_number(c) => self.integer(start, at),
            _ => {
                // The character that makes it a string is part of it, even where it would end an unquoted string.
                self.next();
                self.bare_string(start)
            }
        }
    }

    fn size_or_string(&mut self, start: usize, at: Position) -> Result<Scalar, LangError> {
        self.next();
        self.skip_while(|c| matches!(c, 'b' | 'B' | 'i' | 'I'));
        // Before a closing bracket, a number with a suffix is a string: that is how `[10ms, 5m]` keeps its minutes.
        if ends_number(self.peek()) && self.peek() != Some(']') {
            self.integer(start, at)
        } else {
            self.bare_string(start)
        }
    }

    fn integer(&mut self, start: usize, at: Position) -> Result<Scalar, LangError> {
        let text = &self.text[start..self.offset];
        let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
        let (digits, suffix) = text.split_at(digits_end);
        let factor: i64 = match suffix.to_ascii_lowercase().as_str() {
            "" => 1,
            "k" => 1000,
            "m" => 1000_i64.pow(2),
            "g" => 1000_i64.pow(3),
            "t" => 1000_i64.pow(4),
            "p" => 1000_i64.pow(5),
            "e" => 1000_i64.pow(6),
            "kb" | "ki" | "kib" => 1 << 10,
            "mb" | "mi" | "mib" => 1 << 20,
            "gb" | "gi" | "gib" => 1 << 30,
            "tb" | "ti" | "tib" => 1 << 40,
            "pb" | "pi" | "pib" => 1 << 50,
            "eb" | "ei" | "eib" => 1 << 60,
            // The reference drops such an assignment without a word.
            _ => return Err(LangError::NotAnInteger { at, text: text.to_owned() }),
        };
        // The reference lets the product wrap around, so that `10e` is negative there.
        match digits.parse::<i64>().ok().and_then(|number| number.checked_mul(factor)) {
            Some(number) => Ok(Scalar::Value(Value::Integer(number))),
            None => Err(LangError::IntegerOutOfRange { at, text: text.to_owned() }),
        }
    }

    /// Digits were read and a dot follows: `1.5`, or an address as soon as there is a second dot.
    fn float_or_address(&mut self, start: usize, at: Position) -> Result<Scalar, LangError> {
        self.next();
        if !self.peek().is_some_and(|c| c.is_ascii_digit()) {
            return Err(self.error_at_next(SyntaxError::FloatDigit));
        }
        self.skip_while(|c| c.is_ascii_digit());
        if self.peek() == Some('.') {
            self.skip_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':' | '-'));
            return Ok(string(&self.text[start..self.offset]));
        }
        let text = &self.text[start..self.offset];
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Scalar::Value(Value::Float(number))),
            _ => Err(LangError::IntegerOutOfRange { at, text: text.to_owned() }),
        }
    }

    /// Digits were read and a minus sign follows.
    fn datetime(&mut self, start: usize, at: Position) -> Result<Scalar, LangError> {
        const FORM: &str = "0000-00-00T00:00:00Z";
        let year_digits = self.offset - start;
        if year_digits != 4 {
            return Err(self.error_at_next(|_| SyntaxError::DateForm));
        }
        for expected in FORM[year_digits..].chars() {
            let met = self.peek();
            if expected == '0' && !met.is_some_and(|c| c.is_ascii_digit()) {
                return Err(self.error_at_next(SyntaxError::DateDigit));
            } else if expected != '0' && met != Some(expected) {
                return Err(self.error_at_next(|met| SyntaxError::DateChar(met, expected)));
            }
            self.next();
        }
        let text = &self.text[start..self.offset];
        match Datetime::parse(text) {
            Some(datetime) => Ok(Scalar::Value(Value::Datetime(datetime))),
            None => Err(LangError::NotADatetime { at, text: text.to_owned() }),
        }
    }

    /// An unquoted string from `start`, of which the caller may have read a part.
    fn bare_string(&mut self, start: usize) -> Result<Scalar, LangError> {
        let at = self.position();
        let mut escaped: Option<Vec<u8>> = None;
        loop {
            match self.peek() {
                Some('\\') => {
                    let bytes =
                        escaped.get_or_insert_with(|| self.text.as_bytes()[start..self.offset].to_vec());
                    self.next();
                    bytes.push(self.escape()?);
                }
                // The reference ends an unquoted string at a single quote and swallows the quote.
                Some('\'') => {
                    let text = &self.text[start..self.offset];
                    self.next();
                    return match escaped {
                        Some(bytes) => from_bytes(bytes, at),
                        None => Ok(string(text)),
                    };
                }
                Some(c) if !is_newline(c) && !is_blank(c) && !matches!(c, ';' | ',' | ']' | '}') => {
                    if let Some(bytes) = &mut escaped {
                        push(bytes, c);
                    }
                    self.next();
                }
                _ => break,
            }
        }
        if let Some(bytes) = escaped {
            return from_bytes(bytes, at);
        }
        let text = &self.text[start..self.offset];
        if let Some(truth) = boolean(text) {
            return Ok(Scalar::Value(Value::Bool(truth)));
        }
        match text.strip_prefix('$') {
            // A bcrypt hash, by far the most common text that starts with a dollar sign and is no variable.
            Some(name) if !name.starts_with("2a$") => Ok(Scalar::Variable(name.to_owned())),
            _ => Ok(string(text)),
        }
    }

    /// The byte that an escape stands for; the backslash has been read.
    fn escape(&mut self) -> Result<u8, LangError> {
        match self.peek() {
            Some('x') => {
                self.next();
                let start = self.offset;
                for _ in 0..2 {
                    if self.peek().is_none_or(is_newline) {
                        return Err(self.error_at_next(|_| SyntaxError::EscapeLineEnd));
                    }
                    self.next();
                }
                let digits = &self.text[start..self.offset];
                let is_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
                u8::from_str_radix(digits, 16)
                    .ok()
                    .filter(|_| is_hex)
                    .ok_or_else(|| self.error(SyntaxError::EscapeHex(digits.to_owned())))
            }
            Some(c @ ('t' | 'n' | 'r' | '"' | '\\')) => {
                self.next();
                Ok(match c {
                    't' => b'\t',
                    'n' => b'\n',
                    'r' => b'\r',
                    other => other as u8,
                })
            }
            _ => Err(self.error_at_next(SyntaxError::Escape)),
        }
    }
}

/// `true`, `yes`, `on` and their opposites in any case.
fn boolean(text: &str) -> Option<bool> {
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    if is("true") || is("yes") || is("on") {
        Some(true)
    } else if is("false") || is("no") || is("off") {
        Some(false)
    } else {
        None
    }
}

fn is_size_suffix(c: char) -> bool {
    matches!(c.to_ascii_lowercase(), 'k' | 'm' | 'g' | 't' | 'p' | 'e')
}

/// What may follow a number. The reference forgot the closing bracket of an array: `[1,2]` is an error there.
fn ends_number(c: Option<char>) -> bool {
    c.is_none_or(|c| is_newline(c) || is_blank(c) || matches!(c, '}' | ';' | ',' | ']'))
}

fn string(text: &str) -> Scalar {
    Scalar::Value(Value::String(text.to_owned()))
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

fn from_bytes(bytes: Vec<u8>, at: Position) -> Result<Scalar, LangError> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Scalar::Value(Value::String(text))),
        Err(_) => Err(LangError::NotUtf8 { at }),
    }
}
