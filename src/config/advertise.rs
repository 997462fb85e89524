//! An address that others are told to connect to: `host` or `host:port`, read as Go's `net.SplitHostPort` reads it, with
//! its words for what is wrong. Nothing is resolved here: the name means something to those who are told it.

use std::fmt;

/// `host` or `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertise {
    /// As it was written.
    text: String,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    /// `None`, also for 0 and -1: the port that is listened on.
    pub port: Option<u16>,
}

impl Advertise {
    /// Reads a text; the error is the reason why it is none.
    pub(super) fn parse(text: &str) -> Result<Advertise, String> {
        let (host, port) = split(text).map_err(|reason| format!("address {text}: {reason}"))?;
        let port = match port.map(str::trim) {
            None => None,
            Some(digits) => match digits.parse::<i64>() {
                Ok(0 | -1) => None,
                Ok(number) => {
                    Some(u16::try_from(number).map_err(|_| format!("port {number} is out of range"))?)
                }
                Err(_) => return Err(format!("strconv.Atoi: parsing {digits:?}: invalid syntax")),
            },
        };
        Ok(Advertise { text: text.to_owned(), host: host.trim().to_owned(), port })
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn split(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("missing ']' in address")?;
            let port = match rest.strip_prefix(':') {
                Some(port) if port.contains(':') => return Err("too many colons in address"),
                Some(port) => Some(port),
                None if rest.is_empty() => None,
                None => return Err("missing port in address"),
            };
            (host, port)
        }
        None => match text.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => return Err("too many colons in address"),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.contains('[') || port.is_some_and(|port| port.contains('[')) {
        return Err("unexpected '[' in address");
    }
    if host.contains(']') || port.is_some_and(|port| port.contains(']')) {
        return Err("unexpected ']' in address");
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_a_port() {
        for (text, host, port) in [
            ("a", "a", None),
            ("a:1", "a", Some(1)),
            (" a :1 ", "a", Some(1)),
            ("a:0", "a", None),
            ("a:-1", "a", None),
            ("[::1]", "::1", None),
            ("[::1]:5222", "::1", Some(5222)),
            (":5222", "", Some(5222)),
        ] {
            let read = Advertise::parse(text).unwrap();
            assert_eq!((read.host.as_str(), read.port, read.to_string().as_str()), (host, port, text));
        }
    }

    /// Texts seen on nats-server 2.15.1, but for the last: it tells clients that port.
    #[test]
    fn what_is_no_address_is_named_with_the_reason() {
        for (text, reason) in [
            ("::1", "address ::1: too many colons in address"),
            ("a:1:2", "address a:1:2: too many colons in address"),
            ("nats://a:1", "address nats://a:1: too many colons in address"),
            ("[::1", "address [::1: missing ']' in address"),
            ("a:abc", "strconv.Atoi: parsing \"abc\": invalid syntax"),
            ("a:", "strconv.Atoi: parsing \"\": invalid syntax"),
            ("a:99999", "port 99999 is out of range"),
        ] {
            assert_eq!(Advertise::parse(text).unwrap_err(), reason);
        }
    }
}
