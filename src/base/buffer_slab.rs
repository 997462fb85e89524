//! The slab of read buffers: one block of memory, cut into buffers of one size, addressed by index.
//!
//! The kernel picks a buffer when bytes arrive (a *provided buffer ring*, see `io::socket_ring`), so an idle
//! connection holds none. Whoever processes the bytes holds a [`Lease`]; as long as it lives the buffer belongs to
//! that holder and not to the kernel. There is no reference counting: a lease is given back by value, to the slab it
//! came from, and the slab checks that every buffer has exactly one owner.
//!
//! Invariant: buffer `i` is either with the kernel or leased, never both; `leased` holds which.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Alignment of the block: a page, so that buffers do not share one.
const ALIGN: usize = 4096;

/// The buffers. One per worker; it never leaves its thread.
#[derive(Debug)]
pub struct BufferSlab {
    block: NonNull<u8>,
    layout: Layout,
    buffer_len: usize,
    leased: Vec<bool>,
    leased_count: usize,
}

/// The right to read one filled buffer.
#[derive(Debug)]
#[must_use = "a lease that is dropped without being given back loses its buffer"]
pub struct Lease {
    index: u16,
    len: usize,
}

impl Lease {
    /// Bytes that arrived in the buffer.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a receive of nothing is an end of stream, never a lease"
    )]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Leaves only the first `len` bytes of it.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl BufferSlab {
    /// `count` buffers of `buffer_len` bytes, all with the kernel at first. The memory is touched only when used.
    ///
    /// # Panics
    ///
    /// If `count` exceeds 32,768 (the kernel's bound for a buffer ring) or the size is not a multiple of a page.
    pub fn new(count: usize, buffer_len: usize) -> BufferSlab {
        assert!(count <= 1 << 15 && count > 0 && buffer_len.is_multiple_of(ALIGN) && buffer_len > 0);
        let layout = Layout::from_size_align(count * buffer_len, ALIGN).expect("sizes were checked");
        // SAFETY: the layout has a size above zero.
        let block = unsafe { alloc_zeroed(layout) };
        let Some(block) = NonNull::new(block) else { handle_alloc_error(layout) };
        BufferSlab { block, layout, buffer_len, leased: vec![false; count], leased_count: 0 }
    }

    /// Number of buffers.
    pub fn count(&self) -> usize {
        self.leased.len()
    }

    /// Size of each buffer in bytes.
    pub fn buffer_len(&self) -> usize {
        self.buffer_len
    }

    /// Buffers that are not with the kernel.
    pub fn leased_count(&self) -> usize {
        self.leased_count
    }

    /// Address of a buffer, to register with the kernel.
    pub fn address(&self, index: u16) -> *mut u8 {
        assert!((index as usize) < self.leased.len());
        // SAFETY: the index is in range, so the offset stays inside the block.
        unsafe { self.block.as_ptr().add(index as usize * self.buffer_len) }
    }

    /// Takes over a buffer that the kernel reported as filled with `len` bytes.
    ///
    /// # Panics
    ///
    /// If the buffer is leased already or `len` exceeds its size: the kernel broke its word.
    pub fn lease(&mut self, index: u16, len: usize) -> Lease {
        assert!(len <= self.buffer_len);
        let leased = &mut self.leased[index as usize];
        assert!(!*leased, "buffer {index} was filled twice");
        *leased = true;
        self.leased_count += 1;
        Lease { index, len }
    }

    /// The bytes that arrived.
    pub fn bytes<'a>(&'a self, lease: &'a Lease) -> &'a [u8] {
        debug_assert!(self.leased[lease.index as usize]);
        // SAFETY: the range lies inside the block (both bounds were checked when the lease was made), and while the
        // lease lives the kernel does not write there.
        unsafe { std::slice::from_raw_parts(self.address(lease.index), lease.len) }
    }

    /// The bytes that arrived, to be changed in place.
    pub fn bytes_mut<'a>(&'a mut self, lease: &'a mut Lease) -> &'a mut [u8] {
        debug_assert!(self.leased[lease.index as usize]);
        // SAFETY: as in `bytes`; and nobody else reads it, for both the slab and the lease are borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.address(lease.index), lease.len) }
    }

    /// Gives a buffer up; the caller hands it back to the kernel.
    pub fn release(&mut self, lease: Lease) -> u16 {
        let leased = &mut self.leased[lease.index as usize];
        assert!(*leased, "buffer {} was given back twice", lease.index);
        *leased = false;
        self.leased_count -= 1;
        lease.index
    }
}

impl Drop for BufferSlab {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`, freed once.
        unsafe { dealloc(self.block.as_ptr(), self.layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_reads_what_was_written_to_its_buffer() {
        let mut slab = BufferSlab::new(4, 4096);
        // SAFETY: buffer 2 is inside the slab and not leased.
        unsafe { slab.address(2).copy_from_nonoverlapping(b"hello".as_ptr(), 5) };
        let lease = slab.lease(2, 5);
        assert_eq!(slab.bytes(&lease), b"hello");
        assert_eq!(slab.leased_count(), 1);
        assert_eq!(slab.release(lease), 2);
        assert_eq!(slab.leased_count(), 0);
    }

    #[test]
    #[should_panic(expected = "filled twice")]
    fn a_buffer_has_one_owner() {
        let mut slab = BufferSlab::new(1, 4096);
        let _first = slab.lease(0, 1);
        let _second = slab.lease(0, 1);
    }
}
