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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_no_responders_block_is_thirty_two_bytes_and_the_subject() {
        let mut block = Vec::new();
        write_no_responders(&mut block, b"nobody");
        assert_eq!(block, b"NATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n");
        assert_eq!(block.len(), 32 + 6);
    }
}
