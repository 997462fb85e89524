//! What the server asks of the system for the whole process, once at start.

use std::io;

/// Blocks of this many bytes and more are mapped on their own, so that freeing one gives its memory back to the
/// system at once. Left to itself the allocator raises this bound after the first such block.
const MAPPED_MIN: libc::c_int = 128 * 1024;

/// Raises the limit on open files to the hard limit. Returns the limit in force.
///
/// # Errors
///
/// What the system says.
pub fn raise_open_files_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live structure of the right type.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: as above.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// Makes the allocator give large blocks back when they are freed, and keeps it from spreading small ones over many
/// arenas.
pub fn configure_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: plain calls that set parameters; made before other threads exist.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_MIN);
        libc::mallopt(libc::M_TRIM_THRESHOLD, MAPPED_MIN);
    }
}

/// The processors that this process may use.
pub fn available_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
