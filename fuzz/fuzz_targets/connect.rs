//! The JSON of `CONNECT` against a straightforward reading: entries in order, each value by `serde_json::Value`.
//!
//! Finds: panics, fields that are read or skipped where the rule says otherwise, a second `CONNECT` that changes what
//! it does not name. An input is one or more JSON texts, separated by line ends, merged one after the other.

#![no_main]

use std::fmt;

use libfuzzer_sys::fuzz_target;
use ringmain::wire::connect::Connect;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let mut connect = Connect::default();
    let mut expected = Connect::default();
    for json in input.split(|&byte| byte == b'\n') {
        let merged = connect.merge(json);
        let text = String::from_utf8_lossy(json);
        let read = match serde_json::from_str::<Option<Entries>>(&text) {
            Ok(entries) => apply(&mut expected, entries.unwrap_or_default()),
            Err(_) => None,
        };
        assert_eq!(merged.is_ok(), read.is_some(), "{text:?}: {merged:?}");
        if merged.is_err() {
            // The connection is closed.
            return;
        }
        assert_eq!(connect, expected, "{text:?}");
    }
});

/// The entries of an object in their order, repeated keys included. Values of unknown keys are not looked at, for a
/// `Value` refuses some that are JSON (`1e999`).
#[derive(Default)]
struct Entries(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    let key = key.to_ascii_lowercase();
                    if KNOWN.contains(&key.as_str()) {
                        entries.push((key, map.next_value()?));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}

const KNOWN: [&str; 17] = [
    "verbose",
    "pedantic",
    "echo",
    "headers",
    "no_responders",
    "protocol",
    "auth_token",
    "user",
    "pass",
    "nkey",
    "sig",
    "jwt",
    "name",
    "lang",
    "version",
    "account",
    "new_account",
];

fn apply(connect: &mut Connect, entries: Entries) -> Option<()> {
    for (key, value) in entries.0 {
        if value.is_null() {
            continue;
        }
        match key.as_str() {
            "verbose" => connect.verbose = value.as_bool()?,
            "pedantic" => connect.pedantic = value.as_bool()?,
            "echo" => connect.echo = value.as_bool()?,
            "headers" => connect.headers = value.as_bool()?,
            "no_responders" => connect.no_responders = value.as_bool()?,
            "new_account" => connect.new_account = value.as_bool()?,
            "protocol" => connect.protocol = value.as_i64()?,
            "auth_token" => connect.auth_token = value.as_str()?.to_owned(),
            "user" => connect.user = value.as_str()?.to_owned(),
            "pass" => connect.pass = value.as_str()?.to_owned(),
            "nkey" => connect.nkey = value.as_str()?.to_owned(),
            "sig" => connect.sig = value.as_str()?.to_owned(),
            "jwt" => connect.jwt = value.as_str()?.to_owned(),
            "name" => connect.name = value.as_str()?.to_owned(),
            "lang" => connect.lang = value.as_str()?.to_owned(),
            "version" => connect.version = value.as_str()?.to_owned(),
            "account" => connect.account = value.as_str()?.to_owned(),
            other => unreachable!("{other} is not in the list"),
        }
    }
    Some(())
}
