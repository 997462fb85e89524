//! What errors of the system read like in messages that tools compare with the reference's.

use std::io;

/// `No such file or directory (os error 2)` as C and Go say it: `no such file or directory`.
pub fn text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_in_go() {
        for (code, expected) in [
            (libc::ENOENT, "no such file or directory"),
            (libc::EACCES, "permission denied"),
            (libc::EISDIR, "is a directory"),
            (libc::ESRCH, "no such process"),
            (libc::EADDRINUSE, "address already in use"),
        ] {
            assert_eq!(text(&io::Error::from_raw_os_error(code)), expected);
        }
        assert_eq!(text(&io::Error::other("Odd")), "odd");
    }
}
