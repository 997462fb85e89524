//! Distinguished names: as certificates hold them, as operators write them (RFC 2253), and whether they are the same.
//!
//! Two names are the same if they have the same parts, in whatever order: certificates are issued with the country first
//! and written with it last. Types of attributes are compared without regard to case, values exactly.

use std::fmt::Write as _;

use x509_parser::x509::X509Name;

/// Attribute types that have a short name in RFC 2253 or, the last ones, in what operators write.
const TYPES: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.5", "SERIALNUMBER"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.17", "POSTALCODE"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

/// Those of them that Go prints by their short names.
const PRINTED_TYPES: usize = 9;

/// A name as a set of parts, each a set of attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistinguishedName(Vec<Vec<(String, String)>>);

impl DistinguishedName {
    /// Of a certificate. `None` if a value of it is no text.
    pub fn of(name: &X509Name<'_>) -> Option<DistinguishedName> {
        let mut parts = Vec::new();
        for rdn in name.iter_rdn() {
            let mut part = Vec::new();
            for attribute in rdn.iter() {
                let oid = attribute.attr_type().to_id_string();
                let kind = TYPES.iter().find(|(known, _)| *known == oid).map_or(&*oid, |(_, name)| name);
                part.push((kind.to_uppercase(), attribute.as_str().ok()?.to_owned()));
            }
            part.sort();
            parts.push(part);
        }
        parts.sort();
        Some(DistinguishedName(parts))
    }

    /// Reads what an operator has written, such as `CN=joe,O=Acme,C=US`. `None` if it is no such name.
    pub fn parse(text: &str) -> Option<DistinguishedName> {
        let mut parts = vec![Vec::new()];
        let mut rest = text;
        loop {
            let (kind, after) = rest.split_once('=')?;
            let kind = kind.trim();
            if kind.is_empty() || !kind.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')) {
                return None;
            }
            let (value, end, after) = parse_value(after)?;
            parts.last_mut()?.push((kind.to_uppercase(), value));
            match end {
                None => break,
                Some('+') => {}
                Some(_) => parts.push(Vec::new()),
            }
            rest = after;
        }
        parts.iter_mut().for_each(|part| part.sort());
        parts.sort();
        Some(DistinguishedName(parts))
    }
}

/// A value up to the separator behind it, the separator, and what follows.
fn parse_value(text: &str) -> Option<(String, Option<char>, &str)> {
    let mut value = Vec::new();
    // Spaces around a value do not belong to it, unless they are escaped.
    let mut kept = 0;
    let mut bytes = text.trim_start_matches(' ').bytes().enumerate();
    let text = text.trim_start_matches(' ');
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b',' | b';' | b'+' => {
                value.truncate(value.len() - trailing_spaces(&value[kept..]));
                return Some((String::from_utf8(value).ok()?, Some(char::from(byte)), &text[at + 1..]));
            }
            b'\\' => {
                let (_, first) = bytes.next()?;
                if matches!(first, b' ' | b'"' | b'#' | b'+' | b',' | b';' | b'<' | b'=' | b'>' | b'\\') {
                    value.push(first);
                } else {
                    let (_, second) = bytes.next()?;
                    value.push(data_encoding::HEXLOWER_PERMISSIVE.decode(&[first, second]).ok()?[0]);
                }
                kept = value.len();
            }
            byte => value.push(byte),
        }
    }
    value.truncate(value.len() - trailing_spaces(&value[kept..]));
    Some((String::from_utf8(value).ok()?, None, ""))
}

fn trailing_spaces(bytes: &[u8]) -> usize {
    bytes.iter().rev().take_while(|byte| **byte == b' ').count()
}

/// A certificate's name as Go prints it: the last part first, as RFC 2253 has it.
pub fn text(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for (index, rdn) in parts.iter().rev().enumerate() {
        if index > 0 {
            text.push(',');
        }
        for (index, attribute) in rdn.iter().enumerate() {
            if index > 0 {
                text.push('+');
            }
            let oid = attribute.attr_type().to_id_string();
            let value = attribute.as_str();
            let known = TYPES[..PRINTED_TYPES].iter().find(|(known, _)| *known == oid);
            match (known, value) {
                (Some((_, kind)), Ok(value)) => {
                    let _ = write!(text, "{kind}=");
                    push_escaped(&mut text, value);
                }
                (_, value) => {
                    let bytes = value.map_or(attribute.as_slice(), str::as_bytes);
                    let _ = write!(text, "{oid}=#{}", hex_of_der(bytes));
                }
            }
        }
    }
    text
}

/// A text in DER, in hexadecimal digits: Go encodes it anew, as a printable string if it is one.
fn hex_of_der(bytes: &[u8]) -> String {
    let is_printable = |byte: &u8| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(byte);
    let mut der = vec![if bytes.iter().all(is_printable) { 0x13 } else { 0x0c }];
    match bytes.len() {
        len @ ..0x80 => der.push(len as u8),
        len @ ..0x100 => der.extend([0x81, len as u8]),
        len => der.extend([0x82, (len >> 8) as u8, len as u8]),
    }
    der.extend_from_slice(bytes);
    data_encoding::HEXLOWER.encode(&der)
}

fn push_escaped(text: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (index, c) in value.chars().enumerate() {
        let is_special = match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => true,
            ' ' => index == 0 || index == last,
            '#' => index == 0,
            _ => false,
        };
        if is_special {
            text.push('\\');
        }
        text.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: &str, other: &str) -> bool {
        let (one, other) = (DistinguishedName::parse(one), DistinguishedName::parse(other));
        assert!(one.is_some() && other.is_some());
        one == other
    }

    #[test]
    fn order_spaces_and_case_of_types_do_not_matter() {
        assert!(same("CN=joe,O=Acme,C=US", "c=US, o=Acme, cn=joe"));
        assert!(same("CN=joe+UID=1,O=Acme", "O=Acme;UID=1+CN=joe"));
        assert!(!same("CN=joe,O=Acme", "CN=Joe,O=Acme"));
        assert!(!same("CN=joe,O=Acme", "CN=joe"));
        assert!(!same("CN=joe,O=Acme", "CN=joe+O=Acme"));
    }

    #[test]
    fn escapes_stand_for_characters() {
        assert!(same("CN=a\\,b", "CN=a\\2cb"));
        assert!(same("CN=a\\ ", "CN=a\\20"));
        assert!(!same("CN=a\\ ", "CN=a"));
        assert!(same("CN=gr\\C3\\BCn", "CN=grün"));
    }

    #[test]
    fn what_is_no_name_is_none() {
        for text in ["", "joe", "=x", "CN=a,", "CN=a,b", "CN=\\", "CN=\\z1", "CN=\\ff", "joe@acme.org"] {
            assert_eq!(DistinguishedName::parse(text), None, "{text:?}");
        }
    }
}
