//! The JSON of `CONNECT`: what a client says about itself.
//!
//! Read as the reference reads it (Go's `encoding/json`): keys match in any letter case, unknown keys are skipped,
//! `null` leaves a field as it was, a value of the wrong type refuses the whole line. Fields that a second `CONNECT`
//! leaves out keep the value of the first.

use std::fmt;

use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, Visitor};

/// The fields of `CONNECT` that this server acts on or shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// Answer every command with `+OK`.
    pub verbose: bool,
    /// Warn about publish subjects that are not valid literals.
    pub pedantic: bool,
    /// Deliver the client's own messages to it.
    pub echo: bool,
    /// The client understands `HMSG` and may send `HPUB`.
    pub headers: bool,
    /// The client wants a 503 when a request finds nobody.
    pub no_responders: bool,
    /// Protocol level: 0, or 1 for clients that take further `INFO`s.
    pub protocol: i64,
    /// Token credential.
    pub auth_token: String,
    /// User credential.
    pub user: String,
    /// Password credential.
    pub pass: String,
    /// Public key of a user.
    pub nkey: String,
    /// Signature of the nonce by that key.
    pub sig: String,
    /// Token of a user in operator mode.
    pub jwt: String,
    /// The client's name.
    pub name: String,
    /// The client library's language.
    pub lang: String,
    /// The client library's version.
    pub version: String,
    /// Legacy account request; refused.
    pub account: String,
    /// Legacy account request; refused.
    pub new_account: bool,
}

/// What a connection is before its `CONNECT`.
impl Default for Connect {
    fn default() -> Connect {
        Connect {
            verbose: true,
            pedantic: true,
            echo: true,
            headers: false,
            no_responders: false,
            protocol: 0,
            auth_token: String::new(),
            user: String::new(),
            pass: String::new(),
            nkey: String::new(),
            sig: String::new(),
            jwt: String::new(),
            name: String::new(),
            lang: String::new(),
            version: String::new(),
            account: String::new(),
            new_account: false,
        }
    }
}

impl Connect {
    /// Takes over the fields of one `CONNECT` line. On an error some fields may already have changed; the connection
    /// is to be closed.
    ///
    /// # Errors
    ///
    /// Not a JSON object, or a known field of the wrong type.
    pub fn merge(&mut self, json: &[u8]) -> Result<(), serde_json::Error> {
        // Go replaces invalid UTF-8 inside strings where serde_json refuses it.
        let text = String::from_utf8_lossy(json);
        let mut deserializer = serde_json::Deserializer::from_str(&text);
        (&mut deserializer).deserialize_any(MergeVisitor(self))?;
        deserializer.end()
    }
}

struct MergeVisitor<'a>(&'a mut Connect);

impl<'de> Visitor<'de> for MergeVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object with connect options")
    }

    /// `null` changes nothing, as for every field.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let connect = self.0;
        while let Some(mut key) = map.next_key::<String>()? {
            key.make_ascii_lowercase();
            match key.as_str() {
                "verbose" => map.next_value_seed(Field(&mut connect.verbose))?,
                "pedantic" => map.next_value_seed(Field(&mut connect.pedantic))?,
                "echo" => map.next_value_seed(Field(&mut connect.echo))?,
                "headers" => map.next_value_seed(Field(&mut connect.headers))?,
                "no_responders" => map.next_value_seed(Field(&mut connect.no_responders))?,
                "protocol" => map.next_value_seed(Field(&mut connect.protocol))?,
                "auth_token" => map.next_value_seed(Field(&mut connect.auth_token))?,
                "user" => map.next_value_seed(Field(&mut connect.user))?,
                "pass" => map.next_value_seed(Field(&mut connect.pass))?,
                "nkey" => map.next_value_seed(Field(&mut connect.nkey))?,
                "sig" => map.next_value_seed(Field(&mut connect.sig))?,
                "jwt" => map.next_value_seed(Field(&mut connect.jwt))?,
                "name" => map.next_value_seed(Field(&mut connect.name))?,
                "lang" => map.next_value_seed(Field(&mut connect.lang))?,
                "version" => map.next_value_seed(Field(&mut connect.version))?,
                "account" => map.next_value_seed(Field(&mut connect.account))?,
                "new_account" => map.next_value_seed(Field(&mut connect.new_account))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Writes a value into a field unless it is `null`.
struct Field<'a, T>(&'a mut T);

impl<'de, T: serde::Deserialize<'de>> DeserializeSeed<'de> for Field<'_, T> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if let Some(value) = Option::<T>::deserialize(deserializer)? {
            *self.0 = value;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(json: &str) -> Connect {
        let mut connect = Connect::default();
        connect.merge(json.as_bytes()).expect(json);
        connect
    }

    #[test]
    fn absent_fields_keep_their_defaults() {
        assert_eq!(merged("{}"), Connect::default());
    }

    #[test]
    fn keys_match_in_any_case_and_null_changes_nothing() {
        let connect = merged(r#"{"VERBOSE":false,"Echo":null,"unknown":[1,{"a":2}],"protocol":1}"#);
        assert!(!connect.verbose && connect.echo && connect.protocol == 1);
    }

    #[test]
    fn a_second_connect_keeps_what_it_does_not_name() {
        let mut connect = merged(r#"{"name":"one","verbose":false}"#);
        connect.merge(br#"{"lang":"go"}"#).unwrap();
        assert_eq!((connect.name.as_str(), connect.lang.as_str(), connect.verbose), ("one", "go", false));
    }

    #[test]
    fn wrong_types_and_text_behind_the_object_are_refused() {
        for json in [r#"{"verbose":"yes"}"#, r#"{"name":1}"#, "{} {}", "[]", "", "{"] {
            assert!(Connect::default().merge(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn invalid_utf8_in_a_string_is_replaced() {
        let mut connect = Connect::default();
        connect.merge(b"{\"name\":\"a\xffb\"}").unwrap();
        assert_eq!(connect.name, "a\u{fffd}b");
    }
}
