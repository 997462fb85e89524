//! Origins of web pages: `scheme://host[:port]`, compared with the port that the scheme has if none is given.

/// One of `allowed_origins`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin {
    scheme: String,
    host: String,
    port: String,
}

/// Why a text is no origin that can be allowed. The texts are the reference's, and Go's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text says it")]
pub enum OriginError {
    #[error("unable to parse allowed origin: {0}")]
    Unreadable(String),
    #[error(
        "unable to parse allowed origin {0:?}: allowed origins must be absolute URLs with http or https scheme"
    )]
    Scheme(String),
    #[error("unable to parse allowed origin {0:?}: host is required")]
    Host(String),
}

/// Reads an entry of `allowed_origins`.
///
/// # Errors
///
/// It is none.
pub fn allowed_origin(text: &str) -> Result<AllowedOrigin, OriginError> {
    let url = Url::parse(text).map_err(OriginError::Unreadable)?;
    if !matches!(url.scheme.as_str(), "http" | "https") {
        return Err(OriginError::Scheme(text.to_owned()));
    }
    if url.authority.is_empty() {
        return Err(OriginError::Host(text.to_owned()));
    }
    let (host, port) =
        host_and_port(url.scheme == "https", &url.authority).map_err(OriginError::Unreadable)?;
    Ok(AllowedOrigin { scheme: url.scheme, host, port })
}

/// Whether a page of `origin` may connect to a server that it calls `host`.
///
/// # Errors
///
/// Why not, in the reference's words.
pub fn check(
    origin: &str,
    host: &str,
    is_encrypted: bool,
    must_be_same: bool,
    allowed: &[AllowedOrigin],
) -> Result<(), String> {
    let url = Url::parse(origin)?;
    let (origin_host, origin_port) = host_and_port(url.scheme == "https", &url.authority)?;
    if must_be_same {
        let (own_host, own_port) = host_and_port(is_encrypted, host)?;
        let own_scheme = if is_encrypted { "https" } else { "http" };
        if origin_host != own_host || origin_port != own_port || url.scheme != own_scheme {
            return Err("not same origin".to_owned());
        }
    }
    let is_allowed = allowed.is_empty()
        || allowed.iter().any(|allowed| {
            (&allowed.scheme, &allowed.host, &allowed.port) == (&url.scheme, &origin_host, &origin_port)
        });
    if is_allowed { Ok(()) } else { Err("not in the allowed list".to_owned()) }
}

struct Url {
    /// In lower case.
    scheme: String,
    /// Host and port.
    authority: String,
}

impl Url {
    /// As Go's `url.ParseRequestURI`, as far as it matters for hosts.
    fn parse(text: &str) -> Result<Url, String> {
        let failed = |reason: &str| Err(format!("parse {text:?}: {reason}"));
        if text.is_empty() {
            return failed("empty url");
        }
        if text.bytes().any(|byte| byte < b' ' || byte == 0x7F) {
            return failed("net/url: invalid control character in URL");
        }
        let (scheme, rest) = match text.find(':') {
            Some(0) => return failed("missing protocol scheme"),
            Some(colon) if is_scheme(&text[..colon]) => (&text[..colon], &text[colon + 1..]),
            _ => ("", text),
        };
        let scheme = scheme.to_ascii_lowercase();
        let rest = rest.split('?').next().unwrap_or_default();
        if !rest.starts_with('/') {
            if scheme.is_empty() {
                return failed("invalid URI for request");
            }
            return Ok(Url { scheme, authority: String::new() });
        }
        let Some(rest) = rest.strip_prefix("//").filter(|_| !scheme.is_empty()) else {
            return Ok(Url { scheme, authority: String::new() });
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if let Some(byte) = authority.bytes().find(|byte| b" \"<>^`{}|\\".contains(byte)) {
            let shown = char::from(byte);
            return failed(&format!("invalid character {:?} in host name", shown.to_string()));
        }
        let port = match authority.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((_, port)) => port,
                None => return failed("missing ']' in host"),
            },
            None => authority.find(':').map_or("", |colon| &authority[colon..]),
        };
        let digits = port.strip_prefix(':');
        let is_port = port.is_empty() || digits.is_some_and(|d| d.bytes().all(|b| b.is_ascii_digit()));
        if !is_port {
            return failed(&format!("invalid port {port:?} after host"));
        }
        Ok(Url { scheme, authority: authority.to_owned() })
    }
}

fn is_scheme(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, byte)| match byte {
        b'a'..=b'z' | b'A'..=b'Z' => true,
        b'0'..=b'9' | b'+' | b'-' | b'.' => at > 0,
        _ => false,
    })
}

/// Host, in lower case and without brackets if there is a port, and port.
fn host_and_port(is_encrypted: bool, text: &str) -> Result<(String, String), String> {
    let colon = match text.rfind(':') {
        Some(colon) if text[colon..].find(']').is_none() => colon,
        _ => {
            let port = if is_encrypted { "443" } else { "80" };
            return Ok((text.to_ascii_lowercase(), port.to_owned()));
        }
    };
    let (host, port) = (&text[..colon], &text[colon + 1..]);
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').unwrap_or(rest),
        None if host.contains(':') => return Err(format!("address {text}: too many colons in address")),
        None => host,
    };
    Ok((host.to_ascii_lowercase(), port.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_with_the_ports_of_their_schemes() {
        let check = |origin: &str, host: &str, is_encrypted: bool| {
            super::check(origin, host, is_encrypted, true, &[])
        };
        assert_eq!(check("http://a.b", "A.b:80", false), Ok(()));
        assert_eq!(check("https://a.b", "a.b", true), Ok(()));
        assert_eq!(check("HTTPS://a.b:8443", "a.b:8443", true), Ok(()));
        assert_eq!(check("http://[::1]:80", "[::1]:80", false), Ok(()));
        for (origin, host, is_encrypted) in [
            ("http://a.b", "a.b", true),
            ("https://a.b", "a.b", false),
            ("http://a.b:81", "a.b", false),
            ("http://a.c", "a.b", false),
        ] {
            assert_eq!(check(origin, host, is_encrypted), Err("not same origin".into()), "{origin}");
        }
        assert_eq!(check("null", "a.b", false), Err("parse \"null\": invalid URI for request".into()));
    }

    #[test]
    fn an_origin_has_to_be_in_the_list_if_there_is_one() {
        let allowed = [allowed_origin("https://a.b").unwrap(), allowed_origin("http://c:8080/").unwrap()];
        let check = |origin: &str| super::check(origin, "", false, false, &allowed);
        for good in ["https://a.b", "https://A.B:443", "http://c:8080"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["http://a.b", "https://a.b:80", "http://c", "https://x.a.b", "/"] {
            assert_eq!(check(bad), Err("not in the allowed list".into()), "{bad}");
        }
    }

    #[test]
    fn what_is_no_origin_cannot_be_allowed() {
        for (text, error) in [
            ("x", "unable to parse allowed origin: parse \"x\": invalid URI for request"),
            (
                "ftp://x",
                "unable to parse allowed origin \"ftp://x\": allowed origins must be absolute URLs with http or https scheme",
            ),
            ("http:///p", "unable to parse allowed origin \"http:///p\": host is required"),
            (
                "http://a:b",
                "unable to parse allowed origin: parse \"http://a:b\": invalid port \":b\" after host",
            ),
        ] {
            assert_eq!(allowed_origin(text).unwrap_err().to_string(), error);
        }
    }
}
