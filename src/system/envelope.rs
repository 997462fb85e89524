//! How answers are written down: who answers, and what it has to say or why it has not.

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::config::Options;
use crate::monitor::clock::Timestamp;
use crate::monitor::json;
use crate::monitor::varz::FeatureFlags;
use crate::stream::headers;
use crate::wire::info::REFERENCE_VERSION;

/// `flags` of a server with JetStream: that it has it, and two abilities among servers that all of 2.15.1 have.
const JETSTREAM_FLAGS: u64 = 0b111;

/// Who answers or tells. Stands in every message but the answer to `IDZ`.
#[derive(Debug, Clone, Serialize)]
pub struct ServerInfo<'a> {
    /// The server's name.
    pub name: &'a str,
    /// The host that clients are told.
    pub host: &'a str,
    /// The server's id.
    pub id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    domain: &'a str,
    ver: &'static str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    tags: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: &'a BTreeMap<String, String>,
    feature_flags: FeatureFlags,
    jetstream: bool,
    flags: u64,
    seq: u64,
    time: Timestamp,
}

impl<'a> ServerInfo<'a> {
    /// Of the message with number `seq`, at this time.
    pub fn new(
        name: &'a str,
        host: &'a str,
        id: &'a str,
        options: &'a Options,
        seq: u64,
        time: Timestamp,
    ) -> ServerInfo<'a> {
        ServerInfo {
            name,
            host,
            id,
            domain: options.jetstream.as_ref().map_or("", |found| &found.domain),
            ver: REFERENCE_VERSION,
            tags: &options.server_tags,
            metadata: &options.server_metadata,
            feature_flags: FeatureFlags::default(),
            jetstream: options.jetstream.is_some(),
            flags: if options.jetstream.is_some() { JETSTREAM_FLAGS } else { 0 },
            seq,
            time,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// 400: the request cannot be read; 500: it cannot be answered.
    pub code: u16,
    /// What is wrong.
    pub description: String,
    /// Whether the answer says that there is no data; it does where there might have been some.
    #[serde(skip)]
    pub data_is_null: bool,
}

impl Failure {
    /// The request cannot be read.
    pub fn unreadable(description: String) -> Failure {
        Failure { code: 400, description, data_is_null: false }
    }

    /// What is asked for is not to be had.
    pub fn no_data(description: impl Into<String>) -> Failure {
        Failure { code: 500, description: description.into(), data_is_null: true }
    }

    /// What is asked for cannot be done.
    pub fn not_done(description: impl Into<String>) -> Failure {
        Failure { code: 500, description: description.into(), data_is_null: false }
    }
}

/// What there is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Nothing: it has been done.
    None,
    /// JSON.
    Json(Vec<u8>),
}

#[derive(Serialize)]
struct Response<'a> {
    server: &'a ServerInfo<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Failure>,
}

/// An answer in its envelope.
pub fn response(server: &ServerInfo<'_>, outcome: &Result<Data, Failure>) -> Vec<u8> {
    let (data, error) = match outcome {
        Ok(Data::None) => (None, None),
        Ok(Data::Json(json)) => (Some(raw(json)), None),
        Err(failure) => (failure.data_is_null.then(|| raw(b"null")), Some(failure)),
    };
    json::compact(&Response { server, data: data.as_deref(), error })
}

fn raw(json: &[u8]) -> Box<RawValue> {
    let text = String::from_utf8(json::compacted(json)).expect("JSON is text");
    RawValue::from_string(text).expect("what was written as JSON is JSON")
}

/// How an answer may be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Nothing was said about that.
    Plain,
    /// `gzip`.
    Gzip,
    /// Snappy's framed format.
    Snappy,
    /// Something else was asked for, so that the answer says what it is.
    Identity,
}

impl Encoding {
    /// What a request's header block asks for. Snappy comes before gzip, as in the reference.
    pub fn accepted(header: &[u8]) -> Encoding {
        let Some(accepted) = headers::get(header, b"Accept-Encoding") else { return Encoding::Plain };
        let accepted = String::from_utf8_lossy(accepted).trim().to_ascii_lowercase();
        if accepted.is_empty() {
            Encoding::Plain
        } else if accepted.contains("snappy") || accepted.contains("s2") {
            Encoding::Snappy
        } else if accepted.contains("gzip") {
            Encoding::Gzip
        } else {
            Encoding::Identity
        }
    }

    /// The header block and the content of an answer.
    pub fn encode(self, body: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
        let (name, body) = match self {
            Encoding::Plain => return (Vec::new(), body),
            Encoding::Identity => ("identity", body),
            Encoding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(&body).expect("memory takes everything");
                ("gzip", encoder.finish().expect("memory takes everything"))
            }
            Encoding::Snappy => {
                let mut encoder = snap::write::FrameEncoder::new(Vec::new());
                encoder.write_all(&body).expect("memory takes everything");
                let body = encoder.into_inner().map_err(|error| error.to_string());
                ("snappy", body.expect("memory takes everything"))
            }
        };
        (format!("NATS/1.0\r\nContent-Encoding: {name}\r\n\r\n").into_bytes(), body)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::SystemTime;

    use super::*;

    fn text(outcome: &Result<Data, Failure>) -> String {
        let options = Options { server_tags: vec!["a".to_owned()], ..Options::default() };
        let time = Timestamp(SystemTime::UNIX_EPOCH);
        let server = ServerInfo::new("n", "h", "i", &options, 7, time);
        String::from_utf8(response(&server, outcome)).unwrap()
    }

    #[test]
    fn an_answer_says_who_answers_and_what() {
        let flags = r#""feature_flags":{"js_ack_fc_v2":false,"js_api_reply_v2":false,"js_raft_delete_range":true,"js_snapshot_sources":false}"#;
        let server = format!(
            r#""server":{{"name":"n","host":"h","id":"i","ver":"{REFERENCE_VERSION}","tags":["a"],{flags},"jetstream":false,"flags":0,"seq":7,"time":"1970-01-01T00:00:00Z"}}"#
        );
        assert_eq!(text(&Ok(Data::None)), format!("{{{server}}}"));
        let data = Data::Json(b"{\n  \"a\": \"x  \\\" y\"\n}".to_vec());
        assert_eq!(text(&Ok(data)), format!(r#"{{{server},"data":{{"a":"x  \" y"}}}}"#));
        assert_eq!(
            text(&Err(Failure::no_data("no"))),
            format!(r#"{{{server},"data":null,"error":{{"code":500,"description":"no"}}}}"#)
        );
        assert_eq!(
            text(&Err(Failure::unreadable("what".to_owned()))),
            format!(r#"{{{server},"error":{{"code":400,"description":"what"}}}}"#)
        );
    }

    #[test]
    fn answers_are_compressed_as_they_are_asked_to_be() {
        let accept = |value: &str| {
            Encoding::accepted(format!("NATS/1.0\r\nA: b\r\nAccept-Encoding: {value}\r\n\r\n").as_bytes())
        };
        assert_eq!(Encoding::accepted(b""), Encoding::Plain);
        assert_eq!(
            [accept(""), accept("GZIP"), accept("gzip, s2"), accept("br")],
            [Encoding::Plain, Encoding::Gzip, Encoding::Snappy, Encoding::Identity]
        );
        let body = b"to be compressed ".repeat(100);
        let (header, packed) = Encoding::Gzip.encode(body.clone());
        assert_eq!(header, b"NATS/1.0\r\nContent-Encoding: gzip\r\n\r\n");
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
        assert!(unpacked == body && packed.len() < body.len());
        let (_, packed) = Encoding::Snappy.encode(body.clone());
        let mut unpacked = Vec::new();
        snap::read::FrameDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
        assert!(unpacked == body && packed.len() < body.len());
        assert_eq!(Encoding::Identity.encode(b"x".to_vec()).1, b"x");
    }
}
