//! Lines for the log that one turn of a worker produced, in one piece of memory: under a protocol trace there are
//! thousands of them, and one allocation and one hand-over each would cost more than the messages.

use std::fmt::{Display, Write};

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Level {
    Fatal,
    Error,
    Warning,
    Info,
    Debug,
    Trace,
}

/// Log lines in the order of writing, each without its time, level and line end.
#[derive(Debug, Default)]
pub struct LogLines {
    text: String,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    level: Level,
    /// Where it ends in the text.
    end: usize,
}

impl LogLines {
    /// Adds a line.
    pub fn push(&mut self, level: Level, text: impl Display) {
        write!(self.text, "{text}").expect("writing to memory does not fail");
        self.lines.push(Line { level, end: self.text.len() });
    }

    /// Whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The number of lines.
    pub fn count(&self) -> usize {
        self.lines.len()
    }

    /// The memory that the lines take.
    pub fn bytes(&self) -> usize {
        self.text.len() + self.lines.len() * size_of::<Line>()
    }

    /// The lines, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Level, &str)> {
        let starts = std::iter::once(0).chain(self.lines.iter().map(|line| line.end));
        self.lines.iter().zip(starts).map(|(line, start)| (line.level, &self.text[start..line.end]))
    }

    /// The memory that is there for lines.
    pub fn capacity_bytes(&self) -> usize {
        self.text.capacity() + self.lines.capacity() * size_of::<Line>()
    }

    /// Forgets the lines and keeps their memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.lines.clear();
    }

    /// Takes the lines out. What follows goes into `spare`, which should have memory and no lines.
    pub fn take(&mut self, spare: LogLines) -> LogLines {
        debug_assert!(spare.is_empty());
        std::mem::replace(self, spare)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_as_they_went_in() {
        let mut lines = LogLines::default();
        assert!(lines.is_empty() && lines.iter().next().is_none());
        lines.push(Level::Info, "one");
        lines.push(Level::Trace, "");
        lines.push(Level::Error, format_args!("{}", 3));
        assert_eq!(lines.count(), 3);
        let mut spare = LogLines::default();
        spare.push(Level::Fatal, "old");
        spare.clear();
        assert!(spare.is_empty() && spare.capacity_bytes() >= 3);
        let taken = lines.take(spare);
        assert!(lines.is_empty());
        lines.push(Level::Debug, "four");
        let expected = [(Level::Info, "one"), (Level::Trace, ""), (Level::Error, "3")];
        assert_eq!(taken.iter().collect::<Vec<_>>(), expected);
        assert_eq!(lines.iter().collect::<Vec<_>>(), [(Level::Debug, "four")]);
    }
}
