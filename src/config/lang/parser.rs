//! Structure: maps, arrays, variables and includes, by recursive descent.
//!
//! The open maps form a stack of scopes: `$NAME` looks from the innermost map outward at what has been defined so far,
//! then at the environment, whose text is parsed as a value of this same language. An included file is parsed on its
//! own, sees nothing of the scopes around it, and its keys are then set where `include` stands.

use std::sync::Arc;

use thiserror::Error;

use super::lexer::{Key, Lexer, Scalar, is_blank, is_key_separator, is_newline};
use super::value::{Map, Node, Position, Value};
use super::{LangError, SyntaxError};

/// Maps and arrays inside each other. Real files stay below ten; the parser recurses, so there must be an end.
pub const NESTING_MAX: u32 = 64;

/// Files that include files. Each level costs a file and a frame of recursion for every level of its maps.
pub const INCLUDES_NESTED_MAX: u32 = 10;

/// Includes while reading one configuration, so that a small file cannot ask for an exponential number of reads.
pub const INCLUDES_TOTAL_MAX: u32 = 1000;

/// What `$NAME` may copy altogether, in bytes by the measure of [`Extent`]: ten lines of `b { p: $a, q: $a }` double
/// the tree ten times.
const VARIABLE_BYTES_MAX: usize = 64 << 20;

/// How deep the values of environment variables may refer to further variables.
const ENVIRONMENT_NESTED_MAX: usize = 16;

/// Values of the environment parsed altogether: variables that name several others each would branch without end.
const ENVIRONMENT_TOTAL_MAX: u32 = 1000;

/// Where the texts of included files come from.
pub trait Files {
    /// The text of the file at `path`, which is relative to the directory of the first file's own path.
    fn read(&self, path: &str) -> Result<String, ReadError>;
}

/// Where `$NAME` looks when no map defines it.
pub trait Environment {
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;
}

/// Why a file could not be read, worded as the operating system's tools word it: `open a.conf: permission denied`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{call} {path}: {reason}")]
pub struct ReadError {
    /// What failed: `open` or `read`.
    pub call: &'static str,
    /// The path as it was opened.
    pub path: String,
    /// Lower-case reason.
    pub reason: String,
}

/// Parses `text`, which came from `file` (its name appears in positions, its directory is where includes start).
///
/// An empty map is a legal result; whether a configuration without any option is acceptable is the caller's question.
pub fn parse(
    file: &str,
    text: &str,
    files: &dyn Files,
    environment: &dyn Environment,
) -> Result<Map, LangError> {
    let mut session = Session {
        files,
        environment,
        includes_total: 0,
        variable_bytes: 0,
        environment_total: 0,
        environment_open: Vec::new(),
    };
    parse_file(&mut session, file, text, 0, 0)
}

/// What all files and variables of one parse share.
struct Session<'s> {
    files: &'s dyn Files,
    environment: &'s dyn Environment,
    includes_total: u32,
    variable_bytes: usize,
    environment_total: u32,
    /// The environment variables whose values are being parsed, outermost first: a name twice in it is a cycle.
    environment_open: Vec<String>,
}

struct Parser<'a, 's, 'f> {
    session: &'f mut Session<'s>,
    lexer: Lexer<'a>,
    /// The maps that are open, outermost first; never empty.
    scopes: Vec<Map>,
    /// Brackets open around here, those of the including files counted in.
    nesting: u32,
    includes_nested: u32,
}

fn parse_file(
    session: &mut Session<'_>,
    file: &str,
    text: &str,
    nesting: u32,
    includes_nested: u32,
) -> Result<Map, LangError> {
    let lexer = Lexer::new(Arc::from(file), text);
    let mut parser = Parser { session, lexer, scopes: vec![Map::new()], nesting, includes_nested };
    parser.top()?;
    assert_eq!(parser.scopes.len(), 1, "every map that was opened has been closed");
    Ok(parser.scopes.pop().unwrap_or_default())
}

impl Parser<'_, '_, '_> {
    /// The whole file. Braces around all of it (JSON) or around parts carry no meaning; whether they are closed does not
    /// matter, and one closing brace too many at the very end is ignored, all as in the reference.
    fn top(&mut self) -> Result<(), LangError> {
        let mut braces_open: u32 = 0;
        loop {
            match self.lexer.peek() {
                None => return Ok(()),
                Some(c) if c.is_whitespace() => {
                    self.lexer.next();
                }
                Some('{') => {
                    self.lexer.next();
                    braces_open += 1;
                }
                Some('}') if braces_open > 0 || self.lexer.rest()[1..].trim().is_empty() => {
                    self.lexer.next();
                    braces_open = braces_open.saturating_sub(1);
                }
                Some('/') if !self.lexer.rest().starts_with("//") => {
                    return Err(self.lexer.error(SyntaxError::EndOfText));
                }
                Some('#' | '/') => {
                    self.lexer.skip_comment();
                }
                Some(c) if is_key_separator(c) => {
                    return Err(self.lexer.error(SyntaxError::KeySeparator(c, false)));
                }
                Some(_) => {
                    let key = self.lexer.key();
                    let key = key.ok_or_else(|| self.lexer.error(SyntaxError::EndOfText))?;
                    if !self.try_include(&key)? {
                        self.assignment(key)?;
                    }
                    if self.top_value_end()? {
                        braces_open = braces_open.saturating_sub(1);
                    }
                }
            }
        }
    }

    /// True where the value ended with a closing brace.
    fn top_value_end(&mut self) -> Result<bool, LangError> {
        self.lexer.skip_while(is_blank);
        if self.lexer.skip_comment() {
            return Ok(false);
        }
        match self.lexer.peek() {
            None => Ok(false),
            Some(c) if is_newline(c) || matches!(c, ';' | ',' | '}') => {
                self.lexer.next();
                Ok(c == '}')
            }
            Some(_) => Err(self.lexer.error_at_next(SyntaxError::TopValueEnd)),
        }
    }

    /// The rest of a map; its opening brace has been read.
    fn map(&mut self) -> Result<Value, LangError> {
        self.scopes.push(Map::new());
        loop {
            match self.lexer.peek() {
                None => return Err(self.lexer.error(SyntaxError::EndInMap)),
                Some('}') => {
                    self.lexer.next();
                    break;
                }
                Some(']') => return Err(self.lexer.error(SyntaxError::ArrayEndInMap)),
                Some(c) if is_key_separator(c) => {
                    return Err(self.lexer.error(SyntaxError::KeySeparator(c, true)));
                }
                Some(c) if c.is_whitespace() => {
                    self.lexer.next();
                }
                Some(_) if self.lexer.skip_comment() => {}
                Some(_) => {
                    let key = self.lexer.key();
                    let key = key.ok_or_else(|| self.lexer.error(SyntaxError::EndInMapKey))?;
                    if !self.try_include(&key)? {
                        self.assignment(key)?;
                    }
                    if self.map_value_end()? {
                        break;
                    }
                }
            }
        }
        Ok(Value::Map(self.scopes.pop().unwrap_or_default()))
    }

    /// True where the map ended.
    fn map_value_end(&mut self) -> Result<bool, LangError> {
        loop {
            self.lexer.skip_while(is_blank);
            if self.lexer.skip_comment() {
                continue;
            }
            return match self.lexer.peek() {
                Some('}') => {
                    self.lexer.next();
                    Ok(true)
                }
                Some(c) if is_newline(c) || matches!(c, ';' | ',') => {
                    self.lexer.next();
                    Ok(false)
                }
                _ => Err(self.lexer.error_at_next(SyntaxError::MapValueEnd)),
            };
        }
    }

    /// The rest of an array; its opening bracket has been read.
    fn array(&mut self) -> Result<Value, LangError> {
        let mut elements = Vec::new();
        loop {
            match self.lexer.peek() {
                Some(']') => {
                    self.lexer.next();
                    break;
                }
                Some(',') => return Err(self.lexer.error(SyntaxError::ArrayComma)),
                Some(c) if c.is_whitespace() => {
                    self.lexer.next();
                }
                Some(_) if self.lexer.skip_comment() => {}
                None => return Err(self.lexer.error_at_next(SyntaxError::ArrayValueEnd)),
                Some(first) => {
                    let mut at = self.lexer.position();
                    // The place of a quoted string is that of its text.
                    at.column += u32::from(matches!(first, '"' | '\'' | '('));
                    let value = self.value(&at)?;
                    elements.push(Node { at, value, is_variable: false });
                    if self.array_value_end()? {
                        break;
                    }
                }
            }
        }
        Ok(Value::Array(elements))
    }

    /// True where the array ended.
    fn array_value_end(&mut self) -> Result<bool, LangError> {
        loop {
            self.lexer.skip_while(is_blank);
            if self.lexer.skip_comment() {
                continue;
            }
            return match self.lexer.peek() {
                Some(']') => {
                    self.lexer.next();
                    Ok(true)
                }
                Some(c) if is_newline(c) || c == ',' => {
                    self.lexer.next();
                    Ok(false)
                }
                _ => Err(self.lexer.error_at_next(SyntaxError::ArrayValueEnd)),
            };
        }
    }

    /// Separator and value after `key`, and the entry in the innermost scope.
    fn assignment(&mut self, key: Key<'_>) -> Result<(), LangError> {
        let Key { at, text: key, .. } = key;
        self.lexer.skip_while(char::is_whitespace);
        match self.lexer.peek() {
            None => return Err(LangError::KeyWithoutValue { at: self.lexer.position() }),
            Some(c) if is_key_separator(c) => {
                self.lexer.next();
                self.lexer.skip_while(is_blank);
            }
            // `{ key }`: the reference closes the wrong map here.
            Some('}') => return Err(self.lexer.error_at_next(|_| SyntaxError::ValueMapEnd)),
            Some(_) => {}
        }
        let value = self.value(&at)?;
        let scope = self.scopes.last_mut().expect("the outermost scope is never closed");
        scope.insert(key.to_owned(), Node { at, value, is_variable: false });
        Ok(())
    }

    /// A value that belongs to the key or element at `at`.
    fn value(&mut self, at: &Position) -> Result<Value, LangError> {
        match self.lexer.peek() {
            Some(bracket @ ('{' | '[')) => {
                if self.nesting == NESTING_MAX {
                    return Err(LangError::TooDeep { at: self.lexer.position() });
                }
                self.lexer.next();
                self.nesting += 1;
                let value = if bracket == '{' { self.map() } else { self.array() };
                self.nesting -= 1;
                value
            }
            _ => match self.lexer.scalar()? {
                Scalar::Value(value) => Ok(value),
                Scalar::Variable(name) => self.variable(at, &name),
            },
        }
    }

    fn variable(&mut self, at: &Position, name: &str) -> Result<Value, LangError> {
        for scope in self.scopes.iter_mut().rev() {
            if let Some(node) = scope.get_mut(name) {
                node.is_variable = true;
                let extent = Extent::of(&node.value);
                self.session.variable_bytes += extent.bytes;
                if self.nesting + extent.depth > NESTING_MAX
                    || self.session.variable_bytes > VARIABLE_BYTES_MAX
                {
                    return Err(LangError::TooDeep { at: at.clone() });
                }
                return Ok(node.value.clone());
            }
        }
        let open = &self.session.environment_open;
        if open.iter().any(|other| other == name) || open.len() == ENVIRONMENT_NESTED_MAX {
            return Err(LangError::VariableCycle { at: at.clone(), name: name.to_owned() });
        }
        let Some(text) = self.session.environment.variable(name) else {
            return Err(LangError::VariableNotFound { at: at.clone(), name: name.to_owned() });
        };
        self.session.environment_total += 1;
        if self.session.environment_total > ENVIRONMENT_TOTAL_MAX {
            return Err(LangError::TooDeep { at: at.clone() });
        }
        self.session.environment_open.push(name.to_owned());
        let parsed = parse_file(
            self.session,
            self.lexer.file(),
            &format!("{name}={text}"),
            self.nesting,
            // A value of the environment that includes files would be a surprise: no further includes from there.
            INCLUDES_NESTED_MAX,
        );
        self.session.environment_open.pop();
        match parsed {
            Ok(mut map) => match map.remove(name) {
                Some(node) => Ok(node.value),
                None => Err(LangError::VariableNotFound { at: at.clone(), name: name.to_owned() }),
            },
            Err(cycle @ LangError::VariableCycle { .. }) => Err(cycle),
            Err(source) => Err(LangError::VariableInvalid {
                at: at.clone(),
                name: name.to_owned(),
                source: Box::new(source),
            }),
        }
    }

    /// Where `key` is the word `include` followed by white space: reads that file and sets its keys here.
    fn try_include(&mut self, key: &Key<'_>) -> Result<bool, LangError> {
        let at = &key.at;
        let is_spaced = self.lexer.peek().is_some_and(char::is_whitespace);
        if key.is_quoted || !is_spaced || !key.text.eq_ignore_ascii_case("include") {
            return Ok(false);
        }
        let path = self.lexer.include_path()?;
        if self.includes_nested == INCLUDES_NESTED_MAX {
            return Err(LangError::IncludesTooDeep { at: at.clone(), path });
        }
        self.session.includes_total += 1;
        if self.session.includes_total > INCLUDES_TOTAL_MAX {
            return Err(LangError::TooManyIncludes { at: at.clone(), path });
        }
        let full = join(self.lexer.file(), &path);
        let text = match self.session.files.read(&full) {
            Ok(text) => text,
            Err(source) => return Err(LangError::IncludeUnreadable { at: at.clone(), path, source }),
        };
        match parse_file(self.session, &full, &text, self.nesting, self.includes_nested + 1) {
            Ok(entries) => {
                self.scopes.last_mut().expect("the outermost scope is never closed").extend(entries);
                Ok(true)
            }
            Err(source) => Err(LangError::IncludeInvalid { at: at.clone(), path, source: Box::new(source) }),
        }
    }
}

/// The size of a value: what a copy costs, and how many brackets it holds inside each other.
#[derive(Default)]
struct Extent {
    bytes: usize,
    depth: u32,
}

impl Extent {
    /// Recursion is bounded because no value in a scope is nested deeper than [`NESTING_MAX`].
    fn of(value: &Value) -> Extent {
        const NODE_BYTES: usize = 128;
        let mut extent = Extent { bytes: NODE_BYTES, depth: 0 };
        let mut contain = |child: Extent| {
            extent.bytes += child.bytes;
            extent.depth = extent.depth.max(child.depth + 1);
        };
        match value {
            Value::String(text) => extent.bytes += text.len(),
            Value::Array(elements) => {
                contain(Extent::default());
                elements.iter().for_each(|element| contain(Extent::of(&element.value)));
            }
            Value::Map(map) => {
                contain(Extent::default());
                map.iter().for_each(|(key, node)| {
                    contain(Extent { bytes: key.len(), depth: 0 });
                    contain(Extent::of(&node.value));
                });
            }
            Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::Datetime(_) => {}
        }
        extent
    }
}

/// `path` seen from the directory of `file`, without `.`, `..` and doubled slashes where they can go. A leading slash
/// does not make it absolute: the reference joins the two.
fn join(file: &str, path: &str) -> String {
    let directory = file.rsplit_once('/').map_or("", |(directory, _)| directory);
    let is_absolute = file.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in directory.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if is_absolute => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    if is_absolute { format!("/{joined}") } else { joined }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_start_in_the_directory_of_the_including_file() {
        for (file, path, joined) in [
            ("a.conf", "b.conf", "b.conf"),
            ("a.conf", "./b.conf", "b.conf"),
            ("a.conf", "../b.conf", "../b.conf"),
            ("/etc/nats/a.conf", "b.conf", "/etc/nats/b.conf"),
            ("/etc/nats/a.conf", "../b/c.conf", "/etc/b/c.conf"),
            ("/a.conf", "../../b.conf", "/b.conf"),
            ("x/a.conf", "/etc/b.conf", "x/etc/b.conf"),
            ("../x/a.conf", "../../b.conf", "../../b.conf"),
        ] {
            assert_eq!(join(file, path), joined, "{file} {path}");
        }
    }
}
