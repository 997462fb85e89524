//! The configuration language of NATS: a relaxed superset of JSON.
//!
//! What it is: text in, a tree of values out, each value with the file, line and column it came from. Files for
//! `include` and the variables of the environment are asked for through [`Files`] and [`Environment`], so that this
//! room touches neither disk nor process state.
//!
//! What it is not: it knows no option names. [`crate::config::Options`] gives the tree its meaning.
//!
//! Invariants: no input makes the parser panic; nesting is bounded by [`NESTING_MAX`] and includes by
//! [`INCLUDES_NESTED_MAX`]; what one file can pull in altogether by [`INCLUDES_TOTAL_MAX`].
//!
//! The reference is the lexer and parser of nats-server 2.15; `docs/configuration.md` lists where this one accepts
//! more, or refuses what the reference reads as something nobody meant.
//!
//! * `lexer`: characters, positions, and the scanning of one scalar;
//! * `parser`: maps, arrays, variables, includes;
//! * `value`: the tree;
//! * `digest`: the fingerprint that `-t` and the start-up log print.

mod digest;
mod lexer;
mod parser;
mod value;

pub use digest::digest;
pub use parser::{
    Environment, Files, INCLUDES_NESTED_MAX, INCLUDES_TOTAL_MAX, NESTING_MAX, ReadError, parse,
};
pub use value::{Datetime, Map, Node, Position, Value};

use thiserror::Error;

/// Why a text is not a configuration. The display is the text that the reference prints after `nats-server: `.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LangError {
    /// The text breaks the grammar.
    #[error("Parse error on line {}: '{reason}'", at.line)]
    Syntax {
        /// Where the scanner stood; the reference prints only the line.
        at: Position,
        /// What was wrong there.
        reason: SyntaxError,
    },
    /// A key stands at the end of the file, and no value follows.
    #[error("config is invalid ({at})")]
    KeyWithoutValue {
        /// The end of the text.
        at: Position,
    },
    /// A number that does not fit 64 bits, also after its suffix was applied.
    #[error("integer '{text}' is out of the range")]
    IntegerOutOfRange {
        /// Where the number starts.
        at: Position,
        /// The number as written.
        text: String,
    },
    /// Digits with a suffix that is none, such as `5kbb`.
    #[error("expected integer, but got '{text}'")]
    NotAnInteger {
        /// Where the number starts.
        at: Position,
        /// The number as written.
        text: String,
    },
    /// A date that has the form of one but names no day or time.
    #[error("expected Zulu formatted DateTime, but got '{text}'")]
    NotADatetime {
        /// Where the date starts.
        at: Position,
        /// The date as written.
        text: String,
    },
    /// `$NAME` where neither an enclosing map nor the environment knows the name.
    #[error("variable reference for '{name}' on line {} can not be found", at.line)]
    VariableNotFound {
        /// Where the key stands whose value it was to be.
        at: Position,
        /// The name after the dollar sign.
        name: String,
    },
    /// The environment holds the variable, but its text is no value.
    #[error("variable reference for '{name}' on line {} could not be parsed: {source}", at.line)]
    VariableInvalid {
        /// Where the key stands whose value it was to be.
        at: Position,
        /// The name after the dollar sign.
        name: String,
        /// What is wrong with the text of the variable.
        source: Box<LangError>,
    },
    /// Variables of the environment that refer to each other in a ring.
    #[error("variable reference cycle for '{name}'")]
    VariableCycle {
        /// Where the ring closes.
        at: Position,
        /// The name after the dollar sign.
        name: String,
    },
    /// An included file could not be read.
    #[error("error parsing include file '{path}', {source}")]
    IncludeUnreadable {
        /// Where `include` stands.
        at: Position,
        /// The path as written.
        path: String,
        /// Why it could not be read.
        source: ReadError,
    },
    /// An included file was read and is wrong.
    #[error("error parsing include file '{path}', {source}")]
    IncludeInvalid {
        /// Where `include` stands.
        at: Position,
        /// The path as written.
        path: String,
        /// What is wrong in it.
        source: Box<LangError>,
    },
    /// Files that include each other, or a chain of includes longer than anybody needs.
    #[error("error parsing include file '{path}', includes are nested deeper than {INCLUDES_NESTED_MAX}")]
    IncludesTooDeep {
        /// Where `include` stands.
        at: Position,
        /// The path as written.
        path: String,
    },
    /// More includes in all than [`INCLUDES_TOTAL_MAX`].
    #[error("error parsing include file '{path}', more than {INCLUDES_TOTAL_MAX} files are included")]
    TooManyIncludes {
        /// Where `include` stands.
        at: Position,
        /// The path as written.
        path: String,
    },
    /// Maps and arrays inside each other deeper than [`NESTING_MAX`], or variables that multiply a value without end.
    #[error("{at}: maps and arrays are nested deeper than {NESTING_MAX}, or variables repeat too much")]
    TooDeep {
        /// The bracket or the key that is one too many.
        at: Position,
    },
    /// The `\xHH` escapes of a string make bytes that are not UTF-8.
    #[error("{at}: the string is not valid UTF-8")]
    NotUtf8 {
        /// Where the string starts.
        at: Position,
    },
}

/// What the scanner met, worded as the reference words it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the display of each is its documentation")]
pub enum SyntaxError {
    #[error("Unexpected EOF.")]
    EndOfText,
    #[error("Unexpected EOF processing block.")]
    EndInBlock,
    #[error("Unexpected EOF processing map.")]
    EndInMap,
    #[error("Unexpected EOF processing map key.")]
    EndInMapKey,
    #[error("Unexpected key separator '{0}'{dot}", dot = if *.1 { "." } else { "" })]
    KeySeparator(char, bool),
    #[error("Unexpected array end ']' processing map.")]
    ArrayEndInMap,
    #[error("Unexpected array value terminator ','.")]
    ArrayComma,
    #[error("Expected a top-level value to end with a new line, comment or EOF, but got '{0}' instead.")]
    TopValueEnd(Met),
    #[error("Expected an array value terminator \",\" or an array terminator \"]\", but got '{0}' instead.")]
    ArrayValueEnd(Met),
    #[error("Expected a map value terminator \",\" or a map terminator \"}}\", but got '{0}' instead.")]
    MapValueEnd(Met),
    #[error("Expected value but found new line")]
    ValueNewLine,
    #[error("Expected value but found the end of the map")]
    ValueMapEnd,
    #[error("Floats must start with a digit")]
    FloatStart,
    #[error("Floats must have a digit after the '.', but got '{0}' instead.")]
    FloatDigit(Met),
    #[error("Expected a digit but got '{0}'.")]
    Digit(Met),
    #[error("All ISO8601 dates must be in full Zulu form.")]
    DateForm,
    #[error("Expected digit in ISO8601 datetime, but found '{0}' instead.")]
    DateDigit(Met),
    #[error("Expected '{1}' in ISO8601 datetime, but found '{0}' instead.")]
    DateChar(Met, char),
    #[error(
        "Invalid escape character '{0}'. Only the following escape characters are allowed: \\xXX, \\t, \\n, \\r, \\\", \\\\."
    )]
    Escape(Met),
    #[error("Expected two hexadecimal digits after '\\x', but got '{0}'")]
    EscapeHex(String),
    #[error("Expected two hexadecimal digits after '\\x', but hit end of line")]
    EscapeLineEnd,
    #[error("Expected include value but found {0}")]
    IncludeValue(&'static str),
}

/// A character, or the end of the text, in an error message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Met(pub Option<char>);

impl std::fmt::Display for Met {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            None => f.write_str("EOF"),
            Some('\n') => f.write_str("\\n"),
            Some('\r') => f.write_str("\\r"),
            Some('\t') => f.write_str("\\t"),
            Some(c) => write!(f, "{c}"),
        }
    }
}
