//! The header block of a message: `NATS/1.0[ status[ description]]`, one `Key: value` line each, an empty line.
//!
//! The core path never looks inside a client's header block; this is for the blocks that the server writes itself.

/// Status for a request that found no subscriber.
const NO_RESPONDERS: &[u8] = b"NATS/1.0 503\r\nNats-Subject: ";

/// Writes the header block that answers a request without a subscriber; it has no payload behind it.
pub fn write_no_responders(out: &mut Vec<u8>, subject: &[u8]) {
    out.extend_from_slice(NO_RESPONDERS);
    out.extend_from_slice(subject);
    out.extend_from_slice(b"\r\n\r\n");
}

/// Writes a message's header block with one value for `key`, in the place of those that it has, and the rest of the message
/// behind it. Returns the length of the block. `header_len` is that of the block at the start of `content`.
pub fn write_with(
    out: &mut Vec<u8>,
    header_len: Option<usize>,
    content: &[u8],
    key: &[u8],
    value: &str,
) -> usize {
    let before = out.len();
    let (block, rest) = content.split_at(header_len.unwrap_or_default());
    // Clients do not all read blocks alike: whatever one of them might take for a line with this key is left out.
    let is_key = |line: &[u8]| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(key)
    };
    let mut lines = block.split(|byte| matches!(byte, b'\r' | b'\n'));
    let first = lines.next().filter(|line| !line.is_empty()).unwrap_or(b"NATS/1.0");
    for line in std::iter::once(first).chain(lines.filter(|line| !line.is_empty() && !is_key(line))) {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(key);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    let written = out.len() - before;
    out.extend_from_slice(rest);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_added_or_takes_the_place_of_the_one_that_was_there() {
        let with = |header_len, content: &[u8]| {
            let mut out = Vec::new();
            let len = write_with(&mut out, header_len, content, b"K", "new");
            let (block, rest) = out.split_at(len);
            (String::from_utf8(block.to_vec()).unwrap(), rest.to_vec())
        };
        assert_eq!(with(None, b"hi\r\n"), ("NATS/1.0\r\nK: new\r\n\r\n".to_owned(), b"hi\r\n".to_vec()));
        let content = b"NATS/1.0\r\nA: 1\r\nK: old\r\nKK: 2\r\n\r\nhi\r\n";
        let block = "NATS/1.0\r\nA: 1\r\nKK: 2\r\nK: new\r\n\r\n";
        assert_eq!(with(Some(content.len() - 4), content), (block.to_owned(), b"hi\r\n".to_vec()));
        // Nothing that a client writes is taken for it, and a block that has no end gets one.
        let content = b"NATS/1.0\nk: old\n K : old\r\rK:\r\nA: 1hi\r\n";
        let block = "NATS/1.0\r\nA: 1\r\nK: new\r\n\r\n";
        assert_eq!(with(Some(content.len() - 4), content), (block.to_owned(), b"hi\r\n".to_vec()));
    }

    #[test]
    fn the_no_responders_block_is_thirty_two_bytes_and_the_subject() {
        let mut block = Vec::new();
        write_no_responders(&mut block, b"nobody");
        assert_eq!(block, b"NATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n");
        assert_eq!(block.len(), 32 + 6);
    }
}
