//! One connection's bytes on their way out.
//!
//! An [`Output`] is a queue of segments: chunks that small frames are copied into one behind the other, and shared
//! payloads that are sent from where they lie. Chunks come from a [`ChunkPool`] that all connections of a worker
//! share, so an idle connection holds none; the first, and the first behind a shared payload, is small, the next are
//! large, so that ten thousand connections with one line each cost little and a busy one is sent in few calls.
//!
//! A chunk never reallocates while it is in an output: its first bytes may be in the hands of the kernel while more
//! are appended behind them. That is the invariant of this file (see `append`).

use std::collections::VecDeque;

use bytes::Bytes;

/// Size of an output's first chunk, in bytes.
pub const SMALL_CHUNK_LEN: usize = 4 * 1024;

/// Size of the following ones. Large enough to be mapped, and so given back to the system, each on its own.
pub const LARGE_CHUNK_LEN: usize = 128 * 1024;

/// Free chunks kept per worker and size. What is above goes back to the system.
const SMALL_CHUNKS_KEPT_MAX: usize = 512;
const LARGE_CHUNKS_KEPT_MAX: usize = 32;

/// Free chunks of one worker.
#[derive(Debug, Default)]
pub struct ChunkPool {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

impl ChunkPool {
    fn take_small(&mut self) -> Vec<u8> {
        self.small.pop().unwrap_or_else(|| Vec::with_capacity(SMALL_CHUNK_LEN))
    }

    fn take_large(&mut self) -> Vec<u8> {
        self.large.pop().unwrap_or_else(|| Vec::with_capacity(LARGE_CHUNK_LEN))
    }

    fn give_back(&mut self, mut chunk: Vec<u8>) {
        chunk.clear();
        let (kept, max) = match chunk.capacity() {
            SMALL_CHUNK_LEN => (&mut self.small, SMALL_CHUNKS_KEPT_MAX),
            LARGE_CHUNK_LEN => (&mut self.large, LARGE_CHUNKS_KEPT_MAX),
            _ => return,
        };
        if kept.len() < max {
            kept.push(chunk);
        }
    }
}

#[derive(Debug)]
enum Segment {
    Chunk(Vec<u8>),
    Shared(Bytes),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Segment::Chunk(chunk) => chunk,
            Segment::Shared(bytes) => bytes,
        }
    }
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub struct Output {
    segments: VecDeque<Segment>,
    /// Bytes of the first segment that have been sent.
    sent: usize,
    pending: usize,
}

impl Output {
    /// Bytes queued and not yet sent.
    #[inline]
    pub fn pending_bytes(&self) -> usize {
        self.pending
    }

    /// A chunk with room for at least `len` bytes more. The caller appends at most that much and reports it with
    /// [`Output::appended`].
    #[inline]
    pub fn append(&mut self, len: usize, pool: &mut ChunkPool) -> &mut Vec<u8> {
        let fits = match self.segments.back() {
            Some(Segment::Chunk(chunk)) => chunk.capacity() - chunk.len() >= len,
            _ => false,
        };
        if !fits {
            self.add_chunk(len, pool);
        }
        match self.segments.back_mut() {
            Some(Segment::Chunk(chunk)) => chunk,
            _ => unreachable!("a chunk was just found or added"),
        }
    }

    #[inline(never)]
    fn add_chunk(&mut self, len: usize, pool: &mut ChunkPool) {
        // Between shared payloads stand control lines only: a large chunk for each would be mapped and given back per
        // message (1.4 µs instead of 0.1, `benches/delivery.rs`).
        let starts = matches!(self.segments.back(), None | Some(Segment::Shared(_)));
        let chunk = match len {
            0..=SMALL_CHUNK_LEN if starts => pool.take_small(),
            0..=LARGE_CHUNK_LEN => pool.take_large(),
            // A control line as long as a generous `max_control_line` allows. The pool does not keep such a chunk.
            _ => Vec::with_capacity(len),
        };
        self.segments.push_back(Segment::Chunk(chunk));
    }

    /// Accounts for `len` bytes that were written into the chunk from [`Output::append`].
    #[inline]
    pub fn appended(&mut self, len: usize) {
        self.pending += len;
    }

    /// Copies `bytes` to the end of the queue, whatever their length.
    pub fn extend(&mut self, bytes: &[u8], pool: &mut ChunkPool) {
        for piece in bytes.chunks(LARGE_CHUNK_LEN) {
            self.append(piece.len(), pool).extend_from_slice(piece);
            self.appended(piece.len());
        }
    }

    /// Queues `bytes` without copying them.
    pub fn share(&mut self, bytes: Bytes) {
        self.pending += bytes.len();
        self.segments.push_back(Segment::Shared(bytes));
    }

    /// Puts everything that `later` holds behind what is here.
    ///
    /// # Panics
    ///
    /// If a part of `later` has been sent.
    pub fn join(&mut self, later: Output) {
        assert!(later.sent == 0);
        self.pending += later.pending;
        self.segments.extend(later.segments);
    }

    /// The unsent bytes in order, as slices to be sent together, at most `max`. They stay valid and in place until
    /// [`Output::sent`] reports them, whatever is appended meanwhile.
    pub fn slices(&self, max: usize) -> impl Iterator<Item = &[u8]> {
        self.segments
            .iter()
            .take(max)
            .enumerate()
            .map(|(i, segment)| if i == 0 { &segment.bytes()[self.sent..] } else { segment.bytes() })
    }

    /// Number of segments with unsent bytes.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Drops the first `len` unsent bytes.
    ///
    /// # Panics
    ///
    /// If more were sent than queued.
    pub fn sent(&mut self, len: usize, pool: &mut ChunkPool) {
        assert!(len <= self.pending);
        self.pending -= len;
        self.sent += len;
        while let Some(first) = self.segments.front() {
            let first_len = first.bytes().len();
            if self.sent < first_len {
                break;
            }
            // A fully sent last chunk is given back too: an idle connection holds nothing.
            self.sent -= first_len;
            if let Some(Segment::Chunk(chunk)) = self.segments.pop_front() {
                pool.give_back(chunk);
            }
        }
        debug_assert!(self.pending > 0 || self.segments.is_empty());
        if self.segments.is_empty() && self.segments.capacity() > 8 {
            self.segments = VecDeque::new();
        }
    }

    /// Drops everything. Only when the kernel holds none of it.
    pub fn clear(&mut self, pool: &mut ChunkPool) {
        let pending = self.pending;
        self.sent(pending, pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unsent(output: &Output) -> Vec<u8> {
        output.slices(usize::MAX).flatten().copied().collect()
    }

    #[test]
    fn an_empty_output_holds_no_chunk() {
        let mut pool = ChunkPool::default();
        let mut output = Output::default();
        output.extend(b"PING\r\n", &mut pool);
        output.sent(6, &mut pool);
        assert_eq!((output.segment_count(), output.pending_bytes()), (0, 0));
        assert_eq!(pool.small.len(), 1);
    }

    #[test]
    fn bytes_in_the_kernels_hands_do_not_move_when_more_are_appended() {
        let mut pool = ChunkPool::default();
        let mut output = Output::default();
        output.extend(b"first", &mut pool);
        let before = output.slices(1).next().unwrap().as_ptr();
        for _ in 0..10_000 {
            output.extend(b"0123456789", &mut pool);
        }
        assert_eq!(output.slices(1).next().unwrap().as_ptr(), before);
    }

    #[test]
    fn lines_between_shared_payloads_are_in_small_chunks() {
        let mut pool = ChunkPool::default();
        let mut output = Output::default();
        for _ in 0..10 {
            output.extend(b"MSG a 1 10000\r\n", &mut pool);
            output.share(Bytes::from_static(&[b'x'; 10_002]));
        }
        output.clear(&mut pool);
        assert_eq!((pool.small.len(), pool.large.len()), (10, 0));
    }

    #[test]
    fn more_than_a_chunk_at_once_gets_a_chunk_of_its_own() {
        let mut pool = ChunkPool::default();
        let mut output = Output::default();
        let len = 2 * LARGE_CHUNK_LEN;
        let chunk = output.append(len, &mut pool);
        chunk.resize(len, b'x');
        output.appended(len);
        assert_eq!((output.segment_count(), output.pending_bytes()), (1, len));
        output.sent(len, &mut pool);
        assert!(pool.small.is_empty() && pool.large.is_empty());
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(
            steps in proptest::collection::vec((0usize..3, 0usize..200_000), 1..40)
        ) {
            let mut pool = ChunkPool::default();
            let mut output = Output::default();
            let mut expected: VecDeque<u8> = VecDeque::new();
            let mut next = 0u8;
            for (kind, len) in steps {
                let bytes: Vec<u8> = (0..len).map(|_| { next = next.wrapping_add(1); next }).collect();
                match kind {
                    0 => { output.extend(&bytes, &mut pool); expected.extend(&bytes); }
                    1 if len > 0 => { expected.extend(&bytes); output.share(Bytes::from(bytes)); }
                    _ => {
                        let taken = len.min(output.pending_bytes());
                        output.sent(taken, &mut pool);
                        expected.drain(..taken);
                    }
                }
                prop_assert_eq!(output.pending_bytes(), expected.len());
            }
            prop_assert_eq!(unsent(&output), Vec::from(expected));
            output.clear(&mut pool);
            prop_assert_eq!(output.segment_count(), 0);
        }
    }
}
