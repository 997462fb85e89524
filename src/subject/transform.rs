//! One subject made from another: the language of mappings and of imports.
//!
//! A transform has a source, which is a pattern, and a destination, whose tokens are literal or functions of what the
//! source's wildcards stand for: `$1` and `{{wildcard(1)}}`, `{{partition(n,1,2)}}`, `{{split(1,-)}}`,
//! `{{splitFromLeft(1,3)}}`, `{{sliceFromRight(1,2)}}`, `{{left(1,3)}}`, `{{random(10)}}` and their like. It is compiled once; what is
//! wrong with it is found then, in the reference's words. Applying it appends to a buffer of the caller.
//!
//! The rules and the results are those of nats-server 2.15.1, whose documentation calls this "subject mapping and
//! partitioning". `RESULTS` in the tests is a table of what the real server made of subjects.
//!
//! It does not know what a transform is for: [`super::mapping`] chooses between several, [`super::import`] turns them
//! around.

use std::hash::Hasher as _;

use super::name::{has_empty_token, tokens};

/// Why there is no such transform. The texts are the reference's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text says it")]
pub enum TransformError {
    #[error("invalid subject")]
    Subject,
    #[error("invalid mapping destination: invalid transform{}", in_token(.0))]
    Invalid(String),
    #[error("invalid mapping destination: unknown function{}", in_token(.0))]
    UnknownFunction(String),
    #[error("invalid mapping destination: wildcard index out of range{}", in_token(.0))]
    IndexOutOfRange(String),
    #[error("invalid mapping destination: not enough arguments passed to the function{}", in_token(.0))]
    NotEnoughArguments(String),
    #[error("invalid mapping destination: too many arguments passed to the function{}", in_token(.0))]
    TooManyArguments(String),
    #[error("invalid mapping destination: function argument is invalid or in the wrong format{}", in_token(.0))]
    Argument(String),
    #[error("invalid mapping destination: not using all of the token wildcard(s){}", in_token(.0))]
    WildcardsUnused(String),
    #[error("invalid mapping destination: the only mapping function allowed for import transforms is {{{{Wildcard()}}}}{}", in_token(.0))]
    NotForImports(String),
}

fn in_token(token: &str) -> String {
    if token.is_empty() { String::new() } else { format!(" in {token}") }
}

/// A compiled transform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transform {
    source: Box<str>,
    destination: Box<str>,
    parts: Box<[Part]>,
    /// Where the rest that `>` stands for begins, if the destination ends with it.
    rest_from: Option<usize>,
}

/// What one token of the destination becomes. Indexes are those of the subject's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Wildcard(usize),
    /// The bucket of a hash of these tokens, or of the whole subject if there is none.
    Partition(u32, Box<[usize]>),
    SplitFromLeft(usize, i32),
    SplitFromRight(usize, i32),
    SliceFromLeft(usize, i32),
    SliceFromRight(usize, i32),
    Split(usize, Box<str>),
    Left(usize, i32),
    Right(usize, i32),
    Random(i32),
}

/// A destination's token before the source is known: indexes are those of wildcards, from 1.
#[derive(Debug, PartialEq, Eq)]
enum Function {
    Literal,
    Wildcard(i64),
    Partition(i32, Vec<i64>),
    Indexed(IndexedFunction, i64, i32),
    Split(i64, Box<str>),
    Random(i32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IndexedFunction {
    SplitFromLeft,
    SplitFromRight,
    SliceFromLeft,
    SliceFromRight,
    Left,
    Right,
}

impl Transform {
    /// Compiles a transform.
    ///
    /// # Errors
    ///
    /// The two do not go together, or one of them is nothing at all.
    pub fn new(source: &str, destination: &str) -> Result<Transform, TransformError> {
        Transform::compile(source, destination, false)
    }

    /// Compiles a transform that can be turned around: every wildcard is used, and nothing else is done with them.
    ///
    /// # Errors
    ///
    /// As [`Transform::new`], and where it could not be turned around.
    pub fn reversible(source: &str, destination: &str) -> Result<Transform, TransformError> {
        Transform::compile(source, destination, true)
    }

    fn compile(source: &str, destination: &str, reversible: bool) -> Result<Transform, TransformError> {
        let source_info = SubjectInfo::of(source).ok_or(TransformError::Subject)?;
        let destination_info = SubjectInfo::of(destination).ok_or(TransformError::Subject)?;
        if !destination_info.wildcards.is_empty() || source_info.has_rest != destination_info.has_rest {
            return Err(TransformError::Subject);
        }
        let wildcards = &source_info.wildcards;
        let has_wildcards = !wildcards.is_empty() || source_info.has_rest;
        let mut placeholders = 0;
        let mut parts = Vec::new();
        for token in destination.split('.') {
            let function = Function::parse(token)?;
            if !has_wildcards {
                parts.push(match function {
                    Function::Literal => Part::Literal(token.into()),
                    Function::Random(max) => Part::Random(max),
                    Function::Partition(buckets, _) => Part::Partition(buckets as u32, Box::default()),
                    _ => return Err(TransformError::IndexOutOfRange(token.to_owned())),
                });
                continue;
            }
            if reversible && !matches!(function, Function::Literal | Function::Wildcard(_)) {
                return Err(TransformError::NotForImports(token.to_owned()));
            }
            let position = |index: i64| {
                if index > wildcards.len() as i64 {
                    return Err(TransformError::IndexOutOfRange(format!("{token}: [{index}]")));
                }
                // As in the reference, what is no number of a wildcard is the first token.
                Ok(usize::try_from(index - 1).ok().map_or(0, |at| wildcards[at]))
            };
            parts.push(match function {
                Function::Literal => Part::Literal(token.into()),
                Function::Random(max) => Part::Random(max),
                Function::Wildcard(index) => {
                    placeholders += 1;
                    Part::Wildcard(position(index)?)
                }
                Function::Partition(buckets, indexes) => {
                    placeholders += indexes.len();
                    let positions = indexes.into_iter().map(position).collect::<Result<_, _>>()?;
                    Part::Partition(buckets as u32, positions)
                }
                Function::Split(index, delimiter) => {
                    placeholders += 1;
                    Part::Split(position(index)?, delimiter)
                }
                Function::Indexed(function, index, number) => {
                    placeholders += 1;
                    let at = position(index)?;
                    match function {
                        IndexedFunction::SplitFromLeft => Part::SplitFromLeft(at, number),
                        IndexedFunction::SplitFromRight => Part::SplitFromRight(at, number),
                        IndexedFunction::SliceFromLeft => Part::SliceFromLeft(at, number),
                        IndexedFunction::SliceFromRight => Part::SliceFromRight(at, number),
                        IndexedFunction::Left => Part::Left(at, number),
                        IndexedFunction::Right => Part::Right(at, number),
                    }
                }
            });
        }
        if reversible && placeholders < wildcards.len() {
            return Err(TransformError::WildcardsUnused(destination.to_owned()));
        }
        let rest_from = destination_info.has_rest.then(|| {
            parts.pop();
            source.split('.').count() - 1
        });
        Ok(Transform {
            source: source.into(),
            destination: destination.into(),
            parts: parts.into(),
            rest_from,
        })
    }

    /// The pattern of the subjects that it is for.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The destination as written.
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// Appends what becomes of `subject`, which the source matches.
    pub fn apply(&self, subject: &[u8], random: &mut fastrand::Rng, out: &mut Vec<u8>) {
        let found: Vec<&[u8]> = tokens(subject).collect();
        self.apply_to(subject, &found, random, out);
    }

    /// As [`Transform::apply`], where the tokens of the subject are known.
    pub fn apply_to(&self, subject: &[u8], tokens: &[&[u8]], random: &mut fastrand::Rng, out: &mut Vec<u8>) {
        let token = |at: usize| tokens.get(at).copied().unwrap_or_default();
        for (i, part) in self.parts.iter().enumerate() {
            if i > 0 {
                out.push(b'.');
            }
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Wildcard(at) => out.extend_from_slice(token(*at)),
                Part::Partition(buckets, positions) => {
                    let mut hash = Fnv32a::default();
                    if positions.is_empty() {
                        hash.write(subject);
                    }
                    positions.iter().for_each(|at| hash.write(token(*at)));
                    let bucket = (hash.finish() as u32).checked_rem(*buckets).unwrap_or_default();
                    out.extend_from_slice(bucket.to_string().as_bytes());
                }
                Part::SplitFromLeft(at, len) => {
                    let (left, right) = cut(token(*at), *len, Side::Left);
                    write_two(out, left, right);
                }
                Part::SplitFromRight(at, len) => {
                    let (left, right) = cut(token(*at), *len, Side::Right);
                    write_two(out, left, right);
                }
                Part::SliceFromLeft(at, len) => write_slices(out, token(*at), *len, Side::Left),
                Part::SliceFromRight(at, len) => write_slices(out, token(*at), *len, Side::Right),
                Part::Split(at, delimiter) => write_split(out, token(*at), delimiter.as_bytes()),
                Part::Left(at, len) => out.extend_from_slice(cut(token(*at), *len, Side::Left).0),
                Part::Right(at, len) => match cut(token(*at), *len, Side::Right) {
                    (all, []) => out.extend_from_slice(all),
                    (_, right) => out.extend_from_slice(right),
                },
                Part::Random(max) => {
                    let max = max.unsigned_abs();
                    let number = if max == 0 { 0 } else { random.u32(..max) };
                    out.extend_from_slice(number.to_string().as_bytes());
                }
            }
        }
        if let Some(from) = self.rest_from {
            for (i, token) in tokens.iter().enumerate().skip(from) {
                if i > from || !self.parts.is_empty() {
                    out.push(b'.');
                }
                out.extend_from_slice(token);
            }
        }
    }

    /// The transform that leads back, if there is one. Its source has a wildcard for every placeholder.
    pub fn reverse(&self) -> Option<Transform> {
        let (source, placeholders) = without_placeholders(&self.destination);
        let mut placeholders = placeholders.into_iter();
        let mut destination = Vec::new();
        for token in self.source.split('.') {
            destination.push(if token == "*" { placeholders.next()? } else { token.to_owned() });
        }
        Transform::reversible(&source, &destination.join(".")).ok()
    }
}

/// A subject with a placeholder for every `*`: `a.*.*` is `a.$1.$2`.
pub fn with_placeholders(subject: &str) -> String {
    let mut next = 0;
    let token = |token: &str| {
        if token != "*" {
            return token.to_owned();
        }
        next += 1;
        format!("${next}")
    };
    subject.split('.').map(token).collect::<Vec<_>>().join(".")
}

/// A destination with a `*` for every placeholder, and the placeholders: `a.$2.{{wildcard(1)}}` is `a.*.*`.
pub fn without_placeholders(destination: &str) -> (String, Vec<String>) {
    let mut placeholders = Vec::new();
    let token = |token: &str| {
        let bytes = token.as_bytes();
        let is_placeholder = bytes.len() > 1 && bytes[0] == b'$' && matches!(bytes[1], b'1'..=b'9')
            || matches!(call(token), Some((Some("wildcard"), arguments)) if arguments.len() == 1 && !arguments[0].is_empty());
        if !is_placeholder {
            return token.to_owned();
        }
        placeholders.push(token.to_owned());
        "*".to_owned()
    };
    let subject = destination.split('.').map(token).collect::<Vec<_>>().join(".");
    (subject, placeholders)
}

/// What the reference finds wrong with the destination of a mapping before it compiles it.
pub fn check_destination(destination: &str) -> Result<(), TransformError> {
    let mut ended = false;
    for token in destination.split('.') {
        if token.is_empty() || ended {
            return Err(TransformError::Invalid(token.to_owned()));
        }
        if is_mustache(token) {
            if call(token).and_then(|(name, _)| name).is_none() {
                return Err(TransformError::UnknownFunction(token.to_owned()));
            }
        } else if token == ">" {
            ended = true;
        } else if token.contains(['\t', '\n', '\x0c', '\r', ' ']) {
            return Err(TransformError::Invalid(String::new()));
        }
    }
    Ok(())
}

struct SubjectInfo {
    /// Where the `*` are.
    wildcards: Vec<usize>,
    /// It ends with `>`.
    has_rest: bool,
}

impl SubjectInfo {
    fn of(subject: &str) -> Option<SubjectInfo> {
        if subject.is_empty() || has_empty_token(subject.as_bytes()) {
            return None;
        }
        let all: Vec<&str> = subject.split('.').collect();
        let rest_at = all.iter().position(|token| *token == ">");
        if rest_at.is_some_and(|at| at + 1 < all.len()) {
            return None;
        }
        let wildcards = (0..all.len()).filter(|at| all[*at] == "*").collect();
        Some(SubjectInfo { wildcards, has_rest: rest_at.is_some() })
    }
}

fn is_mustache(token: &str) -> bool {
    token.len() > 4 && token.starts_with("{{") && token.ends_with("}}")
}

/// The functions, in the spelling that their names are compared in: only the first letters of words may be of either
/// case.
const FUNCTIONS: &[(&str, &str)] = &[
    ("wildcard", "Wildcard"),
    ("partition", "Partition"),
    ("splitFromLeft", "SplitFromLeft"),
    ("splitFromRight", "SplitFromRight"),
    ("sliceFromLeft", "SliceFromLeft"),
    ("sliceFromRight", "SliceFromRight"),
    ("right", "Right"),
    ("left", "Left"),
    ("split", "Split"),
    ("random", "Random"),
];

/// A function's name, if it is one, and its arguments.
fn call(token: &str) -> Option<(Option<&'static str>, Vec<&str>)> {
    let inner = token.strip_prefix("{{")?.strip_suffix("}}")?.trim();
    let (name, rest) = inner.split_once('(')?;
    let arguments = rest.strip_suffix(')')?;
    let name = name.trim_end();
    let mut folded = name.to_owned();
    for word in ["from", "left", "right"] {
        let capital = format!("{}{}", word[..1].to_uppercase(), &word[1..]);
        if folded.len() > word.len() {
            folded = folded.replace(word, &capital);
        }
    }
    let known = FUNCTIONS.iter().find(|(lower, upper)| folded == *lower || folded == *upper);
    let mut split = Vec::new();
    for (i, argument) in arguments.split(',').enumerate() {
        split.push(if i == 0 {
            argument
        } else {
            argument.trim_start_matches([' ', '\t', '\n', '\x0c', '\r'])
        });
    }
    Some((known.map(|(name, _)| *name), split))
}

impl Function {
    fn parse(token: &str) -> Result<Function, TransformError> {
        if let Some(number) = token.strip_prefix('$')
            && !number.is_empty()
        {
            // Other names begin with $ too.
            return Ok(number.parse().map_or(Function::Literal, Function::Wildcard));
        }
        if !is_mustache(token) {
            return Ok(Function::Literal);
        }
        let unknown = || TransformError::UnknownFunction(token.to_owned());
        let invalid = || TransformError::Argument(token.to_owned());
        let too_few = || TransformError::NotEnoughArguments(token.to_owned());
        let too_many = || TransformError::TooManyArguments(token.to_owned());
        let (Some(name), arguments) = call(token).ok_or_else(unknown)? else { return Err(unknown()) };
        let number = |text: &str| text.trim_matches(' ').parse::<i64>().map_err(|_| invalid());
        let small = |text: &str| match number(text)? {
            number if number > i64::from(i32::MAX) => Err(invalid()),
            number => Ok(number as i32),
        };
        let function = match name {
            "splitFromLeft" => IndexedFunction::SplitFromLeft,
            "splitFromRight" => IndexedFunction::SplitFromRight,
            "sliceFromLeft" => IndexedFunction::SliceFromLeft,
            "sliceFromRight" => IndexedFunction::SliceFromRight,
            "left" => IndexedFunction::Left,
            "right" => IndexedFunction::Right,
            "wildcard" => {
                return match arguments[..] {
                    [""] => Err(too_few()),
                    [index] => Ok(Function::Wildcard(number(index)?)),
                    _ => Err(too_many()),
                };
            }
            "partition" => {
                let buckets = small(arguments[0])?;
                let indexes = arguments[1..].iter().map(|index| number(index)).collect::<Result<_, _>>()?;
                return Ok(Function::Partition(buckets, indexes));
            }
            "split" => {
                return match arguments[..] {
                    [_] => Err(too_few()),
                    [index, delimiter] => {
                        let index = number(index)?;
                        if delimiter.contains([' ', '.']) {
                            return Err(invalid());
                        }
                        Ok(Function::Split(index, delimiter.into()))
                    }
                    _ => Err(too_many()),
                };
            }
            "random" => {
                return match arguments[..] {
                    [max] => Ok(Function::Random(small(max)?)),
                    _ => Err(too_few()),
                };
            }
            _ => unreachable!("all functions are named above"),
        };
        match arguments[..] {
            [_] => Err(too_few()),
            [index, length] => {
                let index = number(index)?;
                let length = i32::try_from(number(length)?).map_err(|_| invalid())?;
                Ok(Function::Indexed(function, index, length))
            }
            _ => Err(too_many()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// Two pieces, the one at `side` of `len` bytes; everything and nothing where it is too short for that.
fn cut(token: &[u8], len: i32, side: Side) -> (&[u8], &[u8]) {
    let len = usize::try_from(len).unwrap_or_default();
    if len == 0 || len >= token.len() {
        return (token, b"");
    }
    token.split_at(if side == Side::Left { len } else { token.len() - len })
}

fn write_two(out: &mut Vec<u8>, left: &[u8], right: &[u8]) {
    out.extend_from_slice(left);
    if !right.is_empty() {
        out.push(b'.');
        out.extend_from_slice(right);
    }
}

/// Pieces of `len` bytes; what is left over stands at the other side.
fn write_slices(out: &mut Vec<u8>, token: &[u8], len: i32, side: Side) {
    let len = usize::try_from(len).unwrap_or_default();
    if len == 0 || len >= token.len() {
        return out.extend_from_slice(token);
    }
    let (first, rest) = match side {
        Side::Left => token.split_at(0),
        Side::Right => token.split_at(token.len() % len),
    };
    out.extend_from_slice(first);
    for (i, slice) in rest.chunks(len).enumerate() {
        if i > 0 || !first.is_empty() {
            out.push(b'.');
        }
        out.extend_from_slice(slice);
    }
}

/// The pieces between delimiters, without those that are empty.
fn write_split(out: &mut Vec<u8>, token: &[u8], delimiter: &[u8]) {
    let pieces: Vec<&[u8]> = if delimiter.is_empty() {
        characters(token)
    } else {
        let mut pieces = Vec::new();
        let mut from = 0;
        for at in memchr::memmem::find_iter(token, delimiter) {
            pieces.push(&token[from..at]);
            from = at + delimiter.len();
        }
        pieces.push(&token[from..]);
        pieces
    };
    for (i, piece) in pieces.iter().enumerate() {
        out.extend_from_slice(piece);
        // As in the reference: a dot before every piece that is not empty, but for a second one behind an empty first.
        let next_is_some = pieces.get(i + 1).is_some_and(|next| !next.is_empty());
        if next_is_some && !(i == 0 && piece.is_empty()) {
            out.push(b'.');
        }
    }
}

fn characters(token: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    for chunk in token.utf8_chunks() {
        pieces.extend(
            chunk.valid().char_indices().map(|(at, c)| &chunk.valid().as_bytes()[at..at + c.len_utf8()]),
        );
        pieces.extend(chunk.invalid().chunks(1));
    }
    pieces
}

/// FNV-1a with 32 bits, by which the reference chooses partitions.
struct Fnv32a(u32);

impl Default for Fnv32a {
    fn default() -> Fnv32a {
        Fnv32a(0x811c_9dc5)
    }
}

impl std::hash::Hasher for Fnv32a {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }

    fn finish(&self) -> u64 {
        u64::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(source: &str, destination: &str, subject: &str) -> String {
        let transform =
            Transform::new(source, destination).unwrap_or_else(|error| panic!("{destination}: {error}"));
        let mut out = Vec::new();
        transform.apply(subject.as_bytes(), &mut fastrand::Rng::with_seed(1), &mut out);
        String::from_utf8(out).unwrap()
    }

    /// Source, destination, subject, and where nats-server 2.15.1 delivered what was published to that
    /// (`tests/wire/mappings.txt` asks it again).
    const RESULTS: &[(&str, &str, &str, &str)] = &[
        ("a", "b", "a", "b"),
        ("a.*", "b.$1", "a.x", "b.x"),
        ("a.*.*", "b.$2.$1", "a.x.y", "b.y.x"),
        ("a.*.*", "b.{{wildcard(2)}}.{{ Wildcard( 1 ) }}", "a.x.y", "b.y.x"),
        ("a.>", "b.c.>", "a.x.y", "b.c.x.y"),
        ("a.*.>", "b.$1.z.>", "a.x.y.w", "b.x.z.y.w"),
        (">", "in.>", "a.b", "in.a.b"),
        ("a.*", "b.{{partition(10,1)}}.$1", "a.foo", "b.3.foo"),
        ("a.*.*", "b.{{partition(5,1,2)}}", "a.foo.bar", "b.0"),
        ("a.*", "b.{{split(1,-)}}", "a.-x-y--z-", "b.x.y.z"),
        ("a.*", "b.{{splitFromLeft(1,3)}}", "a.abcde", "b.abc.de"),
        ("a.*", "b.{{SplitFromLeft(1,5)}}", "a.abcde", "b.abcde"),
        ("a.*", "b.{{splitfromright(1,3)}}", "a.abcde", "b.ab.cde"),
        ("a.*", "b.{{sliceFromLeft(1,2)}}", "a.abcde", "b.ab.cd.e"),
        ("a.*", "b.{{sliceFromRight(1,2)}}", "a.abcde", "b.a.bc.de"),
        ("a.*", "b.{{random(1)}}", "a.x", "b.0"),
        ("a.*", "$0.$1", "a.x", "a.x"),
        ("a.*", "b.$x.$", "a.x", "b.$x.$"),
    ];

    #[test]
    fn subjects_become_what_nats_server_made_of_them() {
        for (source, destination, subject, expected) in RESULTS {
            assert_eq!(applied(source, destination, subject), *expected, "{source} {destination}");
        }
    }

    #[test]
    fn ends_of_tokens_are_taken_as_the_reference_documents_it() {
        assert_eq!(applied("a.*", "b.{{left(1,3)}}", "a.abcde"), "b.abc");
        assert_eq!(applied("a.*", "b.{{Right(1,3)}}", "a.abcde"), "b.cde");
        assert_eq!(applied("a.*", "b.{{left(1,9)}}.{{right(1,9)}}", "a.abc"), "b.abc.abc");
        assert_eq!(applied("a.*", "b.{{left(1,-1)}}.{{right(1,0)}}", "a.abc"), "b.abc.abc");
        assert_eq!(applied("a.*", "b.{{split(1,)}}", "a.xyz"), "b.x.y.z");
        assert_eq!(applied("a.*", "b.{{sliceFromRight(1,2)}}", "a.abcd"), "b.ab.cd");
        assert_eq!(applied("a.*", "b.{{partition(0,1)}}.{{random(0)}}", "a.x"), "b.0.0");
    }

    #[test]
    fn what_is_no_transform_is_told_in_the_references_words() {
        let wrong = |source: &str, destination: &str| {
            Transform::new(source, destination).expect_err(destination).to_string()
        };
        let prefix = "invalid mapping destination: ";
        for (source, destination, text) in [
            ("a..b", "b", "invalid subject".to_owned()),
            ("a", "", "invalid subject".to_owned()),
            ("a.*", "b.*", "invalid subject".to_owned()),
            ("a.>", "b", "invalid subject".to_owned()),
            ("a.*", "b.$2", format!("{prefix}wildcard index out of range in $2: [2]")),
            ("a", "b.$1", format!("{prefix}wildcard index out of range in $1")),
            (
                "a.*",
                "b.{{wildcard()}}",
                format!("{prefix}not enough arguments passed to the function in {{{{wildcard()}}}}"),
            ),
            (
                "a.*",
                "b.{{wildcard(1,2)}}",
                format!("{prefix}too many arguments passed to the function in {{{{wildcard(1,2)}}}}"),
            ),
            (
                "a.*",
                "b.{{wildcard(x)}}",
                format!("{prefix}function argument is invalid or in the wrong format in {{{{wildcard(x)}}}}"),
            ),
            ("a.*", "b.{{wIldcard(1)}}", format!("{prefix}unknown function in {{{{wIldcard(1)}}}}")),
            (
                "a.*",
                "b.{{split(1)}}",
                format!("{prefix}not enough arguments passed to the function in {{{{split(1)}}}}"),
            ),
            (
                "a.*",
                "b.{{split(1,a b)}}",
                format!(
                    "{prefix}function argument is invalid or in the wrong format in {{{{split(1,a b)}}}}"
                ),
            ),
            (
                "a.*",
                "b.{{left(1)}}",
                format!("{prefix}not enough arguments passed to the function in {{{{left(1)}}}}"),
            ),
            (
                "a.*",
                "b.{{partition(9999999999)}}",
                format!(
                    "{prefix}function argument is invalid or in the wrong format in {{{{partition(9999999999)}}}}"
                ),
            ),
        ] {
            assert_eq!(wrong(source, destination), text, "{source} {destination}");
        }
        let strict = |source: &str, destination: &str| {
            Transform::reversible(source, destination).expect_err(destination).to_string()
        };
        assert_eq!(
            strict("a.*.*", "b.$1"),
            format!("{prefix}not using all of the token wildcard(s) in b.$1")
        );
        assert_eq!(
            strict("a.*", "b.{{left(1,2)}}"),
            format!(
                "{prefix}the only mapping function allowed for import transforms is {{{{Wildcard()}}}} in {{{{left(1,2)}}}}"
            )
        );
    }

    #[test]
    fn a_transform_turned_around_leads_back() {
        for (source, destination, subject) in [
            ("a.*.*", "b.$2.$1", "a.x.y"),
            ("a.*.>", "b.{{wildcard(1)}}.>", "a.x.y.z"),
            ("a.*", "$1", "a.x"),
            (">", "in.>", "x.y"),
        ] {
            let there = applied(source, destination, subject);
            let back = Transform::reversible(source, destination).unwrap().reverse().unwrap();
            let mut out = Vec::new();
            back.apply(there.as_bytes(), &mut fastrand::Rng::with_seed(1), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), subject, "{source} {destination}");
        }
    }

    #[test]
    fn placeholders_come_and_go() {
        assert_eq!(with_placeholders("a.*.b.*.>"), "a.$1.b.$2.>");
        let (subject, placeholders) = without_placeholders("a.$2.{{wildcard(1)}}.$x.$0");
        assert_eq!((subject.as_str(), placeholders.len()), ("a.*.*.$x.$0", 2));
    }
}
