//! The header block of a message, as streams look at it: what a publisher asks for, and what is added, replaced and taken away.
//!
//! A block is `NATS/1.0\r\n`, a line `Key: value\r\n` each, and `\r\n`. Names are compared exactly; of several lines with one
//! name the first counts. Blanks before a value do not belong to it. All of this is how nats-server 2.15.1 looks at blocks.

/// What begins a block.
pub const FIRST_LINE: &[u8] = b"NATS/1.0\r\n";

/// Ends a line.
const LINE_END: &[u8] = b"\r\n";

macro_rules! published {
    ($($(#[$doc:meta])* $field:ident $name:literal,)*) => {
        /// The headers that change what becomes of a published message. What is empty is not there.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Published<'a> {
            $($(#[$doc])* pub $field: &'a [u8],)*
        }

        impl<'a> Published<'a> {
            /// Looks through a block once.
            pub fn of(header: &'a [u8]) -> Published<'a> {
                let mut published = Published::default();
                for (name, value) in lines(header) {
                    // Everything that is looked for begins like this; most of what others set does not.
                    let Some(name) = name.strip_prefix(b"Nats-") else { continue };
                    match name {
                        $($name if published.$field.is_empty() => published.$field = value,)*
                        _ => {}
                    }
                }
                published
            }
        }
    };
}

published! {
    /// `Nats-Msg-Id`
    msg_id b"Msg-Id",
    /// `Nats-Expected-Stream`
    expected_stream b"Expected-Stream",
    /// `Nats-Expected-Last-Sequence`
    expected_last_seq b"Expected-Last-Sequence",
    /// `Nats-Expected-Last-Subject-Sequence`
    expected_last_subject_seq b"Expected-Last-Subject-Sequence",
    /// `Nats-Expected-Last-Subject-Sequence-Subject`
    expected_last_subject_seq_subject b"Expected-Last-Subject-Sequence-Subject",
    /// `Nats-Expected-Last-Msg-Id`
    expected_last_msg_id b"Expected-Last-Msg-Id",
    /// `Nats-Rollup`
    rollup b"Rollup",
    /// `Nats-TTL`
    ttl b"TTL",
    /// `Nats-Incr`
    incr b"Incr",
    /// `Nats-Batch-Id`
    batch_id b"Batch-Id",
    /// `Nats-Batch-Sequence`
    batch_sequence b"Batch-Sequence",
    /// `Nats-Schedule`
    schedule b"Schedule",
    /// `Nats-Schedule-Target`
    schedule_target b"Schedule-Target",
    /// `Nats-Schedule-Source`
    schedule_source b"Schedule-Source",
    /// `Nats-Schedule-TTL`
    schedule_ttl b"Schedule-TTL",
    /// `Nats-Schedule-Rollup`
    schedule_rollup b"Schedule-Rollup",
    /// `Nats-Schedule-Time-Zone`
    schedule_time_zone b"Schedule-Time-Zone",
    /// `Nats-Schedule-Next`
    schedule_next b"Schedule-Next",
    /// `Nats-Scheduler`
    scheduler b"Scheduler",
    /// `Nats-Stream-Source`
    stream_source b"Stream-Source",
    /// `Nats-Request-Info`
    request_info b"Request-Info",
}

/// The lines of a block behind its first: names and values.
fn lines(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest =
        header.get(memchr::memchr(b'\n', header).map_or(header.len(), |end| end + 1)..).unwrap_or_default();
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let line = match memchr::memchr_iter(b'\n', rest).find(|end| rest[..*end].ends_with(b"\r")) {
                Some(end) => {
                    let line = &rest[..end - 1];
                    rest = &rest[end + 1..];
                    line
                }
                None => std::mem::take(&mut rest),
            };
            if let Some(colon) = memchr::memchr(b':', line) {
                let value = &line[colon + 1..];
                let blanks = value.iter().take_while(|byte| **byte == b' ').count();
                return Some((&line[..colon], &value[blanks..]));
            }
        }
    })
}

/// The value of a header; `None` if there is no line of that name.
pub fn get<'a>(header: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    lines(header).find(|(other, _)| *other == name).map(|(_, value)| value)
}

/// Takes every line of that name away. A block without lines becomes no block.
pub fn remove(header: &[u8], name: &[u8]) -> Vec<u8> {
    without(header, |line| line.starts_with(name) && line.get(name.len()) == Some(&b':'))
}

/// Takes every line away whose name begins with one of these. A block without lines becomes no block.
pub fn remove_beginning(header: &[u8], beginnings: &[&[u8]]) -> Vec<u8> {
    without(header, |line| beginnings.iter().any(|beginning| line.starts_with(beginning)))
}

fn without(header: &[u8], goes: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(header.len());
    let mut rest = header;
    while !rest.is_empty() {
        let end = memchr::memmem::find(rest, LINE_END).map_or(rest.len(), |end| end + LINE_END.len());
        let (line, behind) = rest.split_at(end);
        if !goes(line) {
            out.extend_from_slice(line);
        }
        rest = behind;
    }
    if out.len() <= FIRST_LINE.len() + LINE_END.len() {
        out.clear();
    }
    out
}

/// Adds a line at the end; begins a block if there is none.
pub fn add(header: &mut Vec<u8>, name: &str, value: impl AsRef<[u8]>) {
    if header.len() > LINE_END.len() {
        header.truncate(header.len() - LINE_END.len());
    } else {
        header.clear();
        header.extend_from_slice(FIRST_LINE);
    }
    header.extend_from_slice(name.as_bytes());
    header.extend_from_slice(b": ");
    header.extend_from_slice(value.as_ref());
    header.extend_from_slice(LINE_END);
    header.extend_from_slice(LINE_END);
}

/// Gives a line another value where it stands, or adds it.
pub fn set(header: &[u8], name: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    let Some(before) = get(header, name.as_bytes()) else {
        let mut out = header.to_vec();
        add(&mut out, name, value);
        return out;
    };
    let from = before.as_ptr() as usize - header.as_ptr() as usize;
    [&header[..from], value.as_ref(), &header[from + before.len()..]].concat()
}

/// The block without the status in its first line; nothing if nothing is left then. `None` if there is none.
pub fn without_status(header: &[u8]) -> Option<Vec<u8>> {
    const MAGIC: &[u8] = b"NATS/1.0";
    let end = memchr::memchr(b'\r', header)?;
    if !header.starts_with(MAGIC) || end <= MAGIC.len() {
        return None;
    }
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&header[end..]);
    if out.len() == FIRST_LINE.len() + LINE_END.len() {
        out.clear();
    }
    Some(out)
}

/// A number in decimal as the reference reads it from a header: -1 for anything that is none.
pub fn number(text: &[u8]) -> i64 {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return -1;
    }
    text.iter().fold(0_i64, |number, digit| number.wrapping_mul(10).wrapping_add(i64::from(digit - b'0')))
}

/// Whether a request needs a newer level of the API than this server has.
pub fn needs_newer_level(header: &[u8]) -> bool {
    match get(header, b"Nats-Required-Api-Level") {
        None | Some([]) => false,
        Some(level) => std::str::from_utf8(level)
            .ok()
            .and_then(|level| level.parse::<i64>().ok())
            .is_none_or(|level| level > i64::from(super::API_LEVEL)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &[u8] = b"NATS/1.0\r\nA: 1\r\nNats-Msg-Id:  x y\r\nNats-Msg-Id: z\r\nNats-TTL:5s\r\n\r\n";

    #[test]
    fn the_first_line_of_a_name_counts_and_blanks_before_the_value_do_not() {
        let published = Published::of(BLOCK);
        assert_eq!(published.msg_id, b"x y");
        assert_eq!(published.ttl, b"5s");
        assert_eq!(published.rollup, b"");
        assert_eq!(get(BLOCK, b"A"), Some(&b"1"[..]));
        assert_eq!(get(BLOCK, b"a"), None);
    }

    #[test]
    fn lines_are_removed_and_added_and_an_empty_block_is_none() {
        let mut block = remove(BLOCK, b"Nats-Msg-Id");
        assert_eq!(block, b"NATS/1.0\r\nA: 1\r\nNats-TTL:5s\r\n\r\n");
        block = remove(&remove(&block, b"A"), b"Nats-TTL");
        assert_eq!(block, b"");
        add(&mut block, "B", "2");
        assert_eq!(block, b"NATS/1.0\r\nB: 2\r\n\r\n");
    }

    #[test]
    fn a_value_is_exchanged_where_it_stands() {
        let block = set(BLOCK, "A", "other");
        assert_eq!(
            block,
            b"NATS/1.0\r\nA: other\r\nNats-Msg-Id:  x y\r\nNats-Msg-Id: z\r\nNats-TTL:5s\r\n\r\n"
        );
        assert_eq!(set(b"", "A", "b"), b"NATS/1.0\r\nA: b\r\n\r\n");
    }

    #[test]
    fn broken_blocks_hurt_nobody() {
        for block in [
            &b""[..],
            b"x",
            b"\n",
            b"\r\n",
            b"NATS/1.0\r\nNats-Msg-Id",
            b"NATS/1.0\r\nNats-Msg-Id:",
            b"NATS/1.0\r\n:\r\n\r\n",
        ] {
            assert_eq!(Published::of(block).msg_id, b"", "{block:?}");
            remove(block, b"A");
            without_status(block);
        }
    }

    #[test]
    fn a_status_is_taken_out_of_the_first_line() {
        assert_eq!(without_status(b"NATS/1.0 503 No\r\n\r\n"), Some(vec![]));
        assert_eq!(
            without_status(b"NATS/1.0 503\r\nA: b\r\n\r\n"),
            Some(b"NATS/1.0\r\nA: b\r\n\r\n".to_vec())
        );
        assert_eq!(without_status(BLOCK), None);
    }

    #[test]
    fn what_is_no_number_is_minus_one() {
        assert_eq!(number(b"12"), 12);
        assert_eq!(number(b"-1"), -1);
        assert_eq!(number(b""), -1);
        assert_eq!(number(b"1 "), -1);
    }
}
