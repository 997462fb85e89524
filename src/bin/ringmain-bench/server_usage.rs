//! What a process used: CPU time and resident memory, of the server by its pid and of this tool.
//!
//! CPU comes from the process's CPU clock, which is the same account as utime + stime in
//! `/proc/PID/stat` but in nanoseconds instead of 10 ms ticks, and includes threads that have ended.

use std::fs;
use std::io;

use crate::error::BenchError;

/// `/proc/stat` counts in USER_HZ, which is 100 wherever Linux runs today.
const NS_PER_TICK: u64 = 10_000_000;

/// One reading of a process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub cpu_ns: u64,
    pub rss_bytes: u64,
}

/// Reads CPU and memory of the process `pid`.
pub fn of_process(pid: u32) -> Result<Usage, BenchError> {
    let gone = || BenchError::io(format!("reading the usage of process {pid}"));
    Ok(Usage { cpu_ns: cpu_ns_of(pid).map_err(gone())?, rss_bytes: rss_bytes_of(pid).map_err(gone())? })
}

/// CPU time of the process `pid`, without the cost of reading its memory.
pub fn cpu_ns(pid: u32) -> Result<u64, BenchError> {
    cpu_ns_of(pid).map_err(BenchError::io(format!("reading the CPU time of process {pid}")))
}

/// CPU time of this process, all threads.
pub fn own_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID).unwrap_or(0)
}

/// CPU time that the whole machine has spent on anything, in ticks of 10 ms, and taken away by its host.
pub fn machine_busy_ns() -> u64 {
    fs::read_to_string("/proc/stat").ok().and_then(|text| busy_ticks(&text)).unwrap_or(0) * NS_PER_TICK
}

/// Lets this process, and the servers that it starts, open as many sockets as the system allows.
pub fn raise_open_files_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for both calls; a failure leaves the old limit, which is harmless.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Makes short sleeps of the calling thread end when asked, not up to 50 µs later (the kernel's default slack).
pub fn sleep_precisely() {
    // SAFETY: PR_SET_TIMERSLACK takes an integer and changes only the calling thread's timers.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong);
    }
}

fn cpu_ns_of(pid: u32) -> io::Result<u64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: writes one clockid_t through a pointer that lives through the call.
    let result = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    clock_ns(clock)
}

fn clock_ns(clock: libc::clockid_t) -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec through a pointer that lives through the call.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

fn rss_bytes_of(pid: u32) -> io::Result<u64> {
    // smaps_rollup walks the pages and is exact; VmRSS in `status` may lag by some pages per core.
    let exact = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    let (text, key) = match exact {
        Ok(text) => (text, "Rss:"),
        Err(_) => (fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:"),
    };
    field_kib(&text, key)
        .map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no resident size in /proc"))
}

/// user, nice, system, irq, softirq and steal of the first line; guest time is part of user already.
fn busy_ticks(stat: &str) -> Option<u64> {
    let fields: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    [0, 1, 2, 5, 6, 7].iter().map(|index| fields.get(*index).copied()).sum()
}

fn field_kib(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_size_is_found_in_both_formats() {
        assert_eq!(field_kib("00400000-7fff rollup\nRss:                1234 kB\n", "Rss:"), Some(1234));
        assert_eq!(field_kib("Name:\tx\nVmRSS:\t     77 kB\n", "VmRSS:"), Some(77));
        assert_eq!(field_kib("nothing", "Rss:"), None);
    }

    #[test]
    fn busy_time_leaves_out_idle_and_waiting() {
        assert_eq!(busy_ticks("cpu  1 2 4 1000 2000 8 16 32 5 5\ncpu0 9 9\n"), Some(63));
        assert_eq!(busy_ticks("intr 1"), None);
    }

    #[test]
    fn own_process_has_used_cpu_and_memory() {
        let usage = of_process(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 0);
        assert!(own_cpu_ns() > 0);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        assert!(of_process(u32::MAX >> 1).is_err());
    }
}
