//! Lines on their way into a file or a terminal: collected and written in large pieces, whole lines only, and counted
//! as lost where they cannot be written.

use std::io::{ErrorKind, Write};
use std::sync::Arc;

use super::queue::Gauge;

/// Collected bytes from which they are written.
const COLLECTED_BYTES: usize = 256 * 1024;

/// A writer of lines.
#[derive(Debug)]
pub(super) struct Output<W> {
    to: W,
    collected: Vec<u8>,
    /// What was written last is not the end of a line, because the rest could not be written.
    torn: bool,
    /// The last attempt failed.
    failing: bool,
    gauge: Arc<Gauge>,
}

impl<W: Write> Output<W> {
    /// Nothing is collected yet.
    pub fn new(to: W, gauge: Arc<Gauge>) -> Output<W> {
        Output { to, collected: Vec::new(), torn: false, failing: false, gauge }
    }

    /// Where to append a line with its end; [`Output::added`] must follow.
    pub fn collect(&mut self) -> &mut Vec<u8> {
        &mut self.collected
    }

    /// A whole line has been appended.
    pub fn added(&mut self) {
        if self.collected.len() >= COLLECTED_BYTES {
            self.flush();
        }
    }

    /// Writes what is collected. A log that cannot be written must not stop the server, and there is nowhere else to
    /// say so: the lines are counted as lost.
    pub fn flush(&mut self) {
        if self.collected.is_empty() {
            return;
        }
        if self.torn {
            self.collected.insert(0, b'\n');
        }
        self.failing = false;
        let mut written = 0;
        while written < self.collected.len() {
            match self.to.write(&self.collected[written..]) {
                Ok(len) if len > 0 => {
                    written += len;
                    self.torn = self.collected[written - 1] != b'\n';
                    self.gauge.note_written(len);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    let rest = &self.collected[written..];
                    // The end of the torn line before is none of these lines.
                    let lines = rest.iter().filter(|byte| **byte == b'\n').count();
                    self.gauge.note_lost((lines - usize::from(written == 0 && self.torn)) as u64);
                    self.failing = true;
                    break;
                }
            }
        }
        self.collected.clear();
    }

    /// Whether lines get through, as far as is known.
    pub fn is_working(&self) -> bool {
        !self.failing
    }

    /// Writes what is collected, and goes on elsewhere.
    pub fn replace(&mut self, to: W) {
        self.flush();
        (self.to, self.torn, self.failing) = (to, false, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then nothing until more are allowed.
    struct Disk {
        content: Vec<u8>,
        free: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let len = bytes.len().min(self.free);
            if len == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.free -= len;
            self.content.extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn line(output: &mut Output<Disk>, text: &str) {
        output.collect().extend_from_slice(text.as_bytes());
        output.added();
    }

    #[test]
    fn a_full_disk_costs_lines_that_are_counted_and_no_other_line_is_torn() {
        let gauge = Arc::new(Gauge::default());
        let mut output = Output::new(Disk { content: Vec::new(), free: 6 }, gauge.clone());
        line(&mut output, "one\n");
        line(&mut output, "two\n");
        line(&mut output, "three\n");
        output.flush();
        assert_eq!((output.to.content.as_slice(), gauge.take_lost()), (&b"one\ntw"[..], 2));
        line(&mut output, "four\n");
        output.flush();
        assert_eq!(gauge.take_lost(), 1);
        output.to.free = 100;
        line(&mut output, "five\n");
        output.flush();
        assert_eq!((output.to.content.as_slice(), gauge.take_lost()), (&b"one\ntw\nfive\n"[..], 0));
    }
}
