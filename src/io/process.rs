//! What the server asks of the system for the whole process: limits, memory, signals, times.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// Blocks of this many bytes and more are mapped on their own, so that freeing one gives its memory back to the
/// system at once. Left to itself the allocator raises this bound after the first such block.
const MAPPED_MIN: libc::c_int = 128 * 1024;

/// Raises the limits on open files and on locked memory to the hard ones.
///
/// # Errors
///
/// What the system says.
pub fn raise_limits() -> io::Result<()> {
    for resource in [libc::RLIMIT_NOFILE, libc::RLIMIT_MEMLOCK] {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointer is to a live structure of the right type.
        if unsafe { libc::getrlimit(resource, &raw mut limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
        if limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            // SAFETY: as above.
            if unsafe { libc::setrlimit(resource, &raw const limit) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
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

/// Gives freed memory back to the system. It may take milliseconds and holds the allocator meanwhile, so it is for the
/// moment after a lot was freed.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a plain call.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The processors that this process may use.
pub fn available_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// As far as a thread can stand back.
pub const LEAST_NICE: i32 = 19;

/// Makes the scheduler prefer every other thread to the calling one.
pub fn yield_to_other_threads() {
    set_nice(LEAST_NICE);
}

/// How far the calling thread stands back behind others: 0 not at all, 19 as far as possible.
pub fn set_nice(nice: i32) {
    // SAFETY: a plain call; 0 names the calling thread. Where it fails the thread stays as it is.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, nice);
    }
}

/// What the process has used and uses.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Processor time of all its threads.
    pub cpu_time: Duration,
    /// Resident memory.
    pub memory_bytes: u64,
}

/// Asks what the process uses.
pub fn usage() -> Usage {
    let mut times = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live structure of the right type.
    let known = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut times) } == 0;
    let cpu_time = if known {
        Duration::new(times.tv_sec.unsigned_abs(), times.tv_nsec.unsigned_abs() as u32)
    } else {
        Duration::ZERO
    };
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    // SAFETY: a plain call.
    let page_bytes = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0);
    Usage { cpu_time, memory_bytes: pages * page_bytes }
}

/// The number of files that the process has open.
pub fn open_files() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64)
}

/// Bytes of memory that the machine has.
pub fn memory_bytes() -> u64 {
    // SAFETY: plain calls that fill no memory of ours.
    let (pages, page) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    u64::try_from(pages).unwrap_or(0) * u64::try_from(page).unwrap_or(0)
}

/// A disk, or what stands for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct DiskSpace {
    /// Bytes that may still be written.
    pub free_bytes: u64,
    /// Bytes that it has.
    pub size_bytes: u64,
}

/// How much room there is where `path` is; `None` if that is not known.
pub fn disk_space(path: &Path) -> Option<DiskSpace> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends in a zero, and there is room for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call has succeeded and filled it.
    let found = unsafe { found.assume_init() };
    Some(DiskSpace {
        free_bytes: found.f_bavail * found.f_frsize,
        size_bytes: found.f_blocks * found.f_frsize,
    })
}

/// Locks a file as long as it is open. Whether it could be: otherwise another process has it locked.
///
/// # Errors
///
/// Files cannot be locked there.
pub fn lock_file(file: &std::fs::File) -> io::Result<bool> {
    // SAFETY: a plain call on a descriptor that is open for as long as the file is borrowed.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        error => Err(error),
    }
}

/// Sends a signal to another process.
///
/// # Errors
///
/// No such process, or no right to.
pub fn send_signal(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: a plain call.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The ids of all processes.
pub fn ids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The name of a process, empty if there is none.
pub fn name_of(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// The addresses of this machine's interfaces that are up.
pub fn interface_addresses() -> Vec<std::net::IpAddr> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the call fills in the pointer; the list is freed below.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Vec::new();
    }
    let mut addresses = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: the list's nodes are valid until it is freed.
        let entry = unsafe { &*next };
        next = entry.ifa_next;
        if entry.ifa_addr.is_null() || entry.ifa_flags & libc::IFF_UP as u32 == 0 {
            continue;
        }
        // SAFETY: not null; every address starts with its family.
        match i32::from(unsafe { (*entry.ifa_addr).sa_family }) {
            libc::AF_INET => {
                // SAFETY: the family says that it is this structure.
                let addr = unsafe { &*entry.ifa_addr.cast::<libc::sockaddr_in>() };
                addresses.push(std::net::IpAddr::from(addr.sin_addr.s_addr.to_ne_bytes()));
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let addr = unsafe { &*entry.ifa_addr.cast::<libc::sockaddr_in6>() };
                addresses.push(std::net::IpAddr::from(addr.sin6_addr.s6_addr));
            }
            _ => {}
        }
    }
    // SAFETY: allocated by `getifaddrs`, freed once.
    unsafe { libc::freeifaddrs(list) };
    addresses
}
/// How long all of the machine's cores together have been idle since it started, in milliseconds; in steps of 10 ms.
pub fn idle_cpu_ms() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    // SAFETY: a plain call.
    let ticks_per_second =
        u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok().filter(|hz| *hz > 0)?;
    Some(idle_ticks(&stat)? * 1000 / ticks_per_second)
}

/// `cpu user nice system idle iowait …`, of which the fourth and fifth count.
fn idle_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().skip(3);
    let (idle, iowait) = (fields.next()?, fields.next()?);
    Some(idle.parse::<u64>().ok()? + iowait.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_read_from_the_first_line_of_proc_stat() {
        let stat = "cpu  30 1 20 400 5 0 7 0 0 0\ncpu0 15 1 10 200 2 0 3 0 0 0\n";
        assert_eq!(idle_ticks(stat), Some(405));
        assert_eq!(idle_ticks("intr 1 2 3 4 5"), None);
        assert!(idle_cpu_ms().is_some());
    }
}
