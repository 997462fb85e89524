//! What of a `CONNECT` may stand in a log: everything as it was sent, but no secret.
//!
//! The reference hides the same members (passwords, tokens, signatures, nkeys) with search patterns, which miss a secret
//! with a comma or a quote in it, or one that stands twice, and leave user JWTs, which are secrets where they are bearer
//! tokens. Here the JSON is read: what is not a JSON object does not show at all.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What stands in place of a secret.
const REDACTED: &str = "[REDACTED]";

/// Members whose value is secret, in lower case; and all that begin with `pass`.
const SECRETS: [&str; 5] = ["auth_token", "jwt", "sig", "proxy_sig", "nkey"];

/// The JSON text of a `CONNECT` with every secret replaced.
pub fn redacted(json: &[u8]) -> String {
    let members = str::from_utf8(json).ok().and_then(|text| Some((text, members(text)?)));
    let Some((text, members)) = members else { return REDACTED.to_owned() };
    let mut redacted = String::with_capacity(text.len());
    let mut copied = 0;
    for (name, value) in members {
        let name = name.to_lowercase();
        let shown = if name.starts_with("pass") || SECRETS.contains(&name.as_str()) {
            format!("\"{REDACTED}\"")
        } else if value.starts_with('{') {
            self::redacted(value.as_bytes())
        } else if value.starts_with('[') && value.contains('{') {
            format!("\"{REDACTED}\"")
        } else {
            continue;
        };
        // A value is a piece of the text.
        let start = value.as_ptr().addr() - text.as_ptr().addr();
        redacted.push_str(&text[copied..start]);
        redacted.push_str(&shown);
        copied = start + value.len();
    }
    redacted.push_str(&text[copied..]);
    redacted
}

/// The members of an object and their values as written, in the order of writing.
fn members(text: &str) -> Option<Vec<(String, &str)>> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let members = reader.deserialize_map(Members).ok()?;
    reader.end().ok()?;
    Some(members)
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            members.push((name, value.get()));
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_the_rest_stays_as_it_was_sent() {
        for (sent, shown) in [
            (r#"{}"#, r#"{}"#),
            (
                r#" { "user" : "u","pass": "p" , "b":true}"#,
                r#" { "user" : "u","pass": "[REDACTED]" , "b":true}"#,
            ),
            (r#"{"pass":"a,b\"c","name":"n"}"#, r#"{"pass":"[REDACTED]","name":"n"}"#),
            (r#"{"PassWord":1,"password":"x"}"#, r#"{"PassWord":"[REDACTED]","password":"[REDACTED]"}"#),
            (
                r#"{"auth_token":"t","jwt":"j","sig":"s","proxy_sig":"q","nkey":"N","z":[1]}"#,
                r#"{"auth_token":"[REDACTED]","jwt":"[REDACTED]","sig":"[REDACTED]","proxy_sig":"[REDACTED]","nkey":"[REDACTED]","z":[1]}"#,
            ),
            (r#"{"x":{"pass":"p","y":1},"z":[{}]}"#, r#"{"x":{"pass":"[REDACTED]","y":1},"z":"[REDACTED]"}"#),
            (r#"{"pa\u0073s":"p","ü":"ü"}"#, r#"{"pa\u0073s":"[REDACTED]","ü":"ü"}"#),
        ] {
            assert_eq!(redacted(sent.as_bytes()), shown);
        }
    }

    #[test]
    fn what_cannot_be_read_does_not_show() {
        for sent in [
            &b"{\"pass\":\"secret\""[..],
            b"{\"pass\":\"secret\"} x",
            b"[\"secret\"]",
            b"{\"a\":\"\xff\"}",
            b"",
        ] {
            assert_eq!(redacted(sent), "[REDACTED]");
        }
    }
}
