//! Asking the processor for memory ahead of its use.
//!
//! What a receive has copied into a read buffer is often not in the near caches: large copies go around them, and a
//! worker may have moved to another core since. Walking such a buffer frame by frame then waits for memory once per
//! frame; asking for the bytes a little ahead hides that. Measured by `make compare`, row 1 → 1.

/// Length of a cache line in bytes.
const LINE: usize = 64;

/// Asks for the lines of `bytes[from..from + len]`, as far as they exist. Never reads them.
#[inline(always)]
pub fn prefetch(bytes: &[u8], from: usize, len: usize) {
    let end = bytes.len().min(from + len);
    let mut at = from;
    while at < end {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the address is inside `bytes`, and a prefetch has no effect but on the caches.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().add(at).cast());
        }
        at += LINE;
    }
}
