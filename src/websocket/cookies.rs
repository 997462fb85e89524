//! The cookies of a handshake, read as Go's `net/http` reads them.

/// Which cookies stand in for what a `CONNECT` leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CookieNames {
    /// `user_cookie`.
    pub user: Option<String>,
    /// `pass_cookie`.
    pub pass: Option<String>,
    /// `token_cookie`.
    pub token: Option<String>,
}

/// The cookies of the `Cookie` headers: names and values, without those that are none.
pub fn cookies<'a>(headers: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = (&'a str, &'a str)> {
    headers.flat_map(|header| header.split(|byte| *byte == b';')).filter_map(|part| {
        let part = std::str::from_utf8(part).ok()?.trim_matches([' ', '\t']);
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let name = name.trim_matches([' ', '\t']);
        let is_name = !name.is_empty() && name.bytes().all(is_token_byte);
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        let is_value = value.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"\";\\".contains(&byte));
        (is_name && is_value).then_some((name, value))
    })
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_split_and_what_is_none_is_passed_over() {
        let lines = [&b"a=1; b = 2 ;c=\"x y\"; bad name=3; =4; d; e=\"x"[..], b"f=a=b; g=\x01; a=5"];
        let found: Vec<(&str, &str)> = cookies(lines.into_iter()).collect();
        assert_eq!(found, [("a", "1"), ("b", " 2"), ("c", "x y"), ("d", ""), ("f", "a=b"), ("a", "5")]);
    }
}
