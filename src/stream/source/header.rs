//! The names that a copy and its origin agree on: the header of copied messages, the identity of a stream, the subject by which a
//! consumer's delivery is acknowledged.
//!
//! All of it is as nats-server 2.15.1 writes it, so that clients that read the header, and stores that came from elsewhere, are understood.

use sha2::{Digest as _, Sha256};

use super::super::config::StreamSource;
use super::super::time;

/// The header of a message that was copied from a source.
pub const STREAM_SOURCE: &str = "Nats-Stream-Source";

/// The header by which a stream is known from another one of the same name.
pub const STREAM_IDENTITY: &str = "Nats-Stream-Identity";

/// What the consumer of a copy says when it is deleted, with its stream or by itself.
pub const CONSUMER_DELETED: &[u8] = b"NATS/1.0 409 Consumer Deleted\r\n\r\n";

/// Stands between filters, and between destinations, of which there may be several.
const SEPARATOR: &str = "\x0c";

/// Eight letters and digits that a text always has.
pub fn hash(text: &str) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let digest = Sha256::digest(text.as_bytes());
    digest[..8].iter().map(|byte| char::from(DIGITS[usize::from(*byte) % DIGITS.len()])).collect()
}

/// What a stream is known by that was created at this time.
pub fn identity(created_ns: i64) -> String {
    let mut text = Vec::with_capacity(32);
    time::write(&mut text, created_ns);
    hash(&String::from_utf8_lossy(&text))
}

/// The name of a source among those of its stream: from where, and what of it.
pub fn index_name(source: &StreamSource) -> String {
    let mut name = source.name.clone();
    if let Some(external) = &source.external {
        name.push(':');
        name.push_str(&hash(&external.api));
    }
    if let Some(consumer) = &source.consumer {
        name.push_str(":C=");
        name.push_str(&hash(&consumer.name));
    }
    let or_all = |subject: &str| if subject.is_empty() { ">" } else { subject }.to_owned();
    let (filters, destinations) = match &source.subject_transforms[..] {
        [] => (or_all(&source.filter_subject), ">".to_owned()),
        transforms => {
            let filters: Vec<String> = transforms.iter().map(|transform| or_all(&transform.src)).collect();
            let destinations: Vec<String> =
                transforms.iter().map(|transform| or_all(&transform.dest)).collect();
            (filters.join(SEPARATOR), destinations.join(SEPARATOR))
        }
    };
    format!("{name} {filters} {destinations}")
}

/// The value of [`STREAM_SOURCE`]: the parts of the index name with the sequence between them, the subject in the origin, and its identity.
pub fn source_value(index_name: &str, seq: u64, subject: &[u8], identity: &str) -> Vec<u8> {
    let (name, rest) = index_name.split_once(' ').unwrap_or((index_name, ""));
    let mut value = format!("{name} {seq} {rest} ").into_bytes();
    value.extend_from_slice(subject);
    if !identity.is_empty() {
        value.push(b' ');
        value.extend_from_slice(identity.as_bytes());
    }
    value
}

/// What the header of a copied message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceOf {
    /// The source; `None` in headers from before 2.10, which only name the stream.
    pub index_name: Option<String>,
    /// The stream, with the hash of its prefix behind a colon if it has one.
    pub stream: String,
    /// The sequence there.
    pub seq: u64,
    /// The identity of the stream, empty if it is not told.
    pub identity: String,
}

impl SourceOf {
    /// Reads the value of [`STREAM_SOURCE`]: of today's form, of the one with two fields, or an acknowledgement's subject.
    pub fn parse(value: &[u8]) -> Option<SourceOf> {
        let text = std::str::from_utf8(value).ok()?;
        if text.starts_with("$JS.ACK.") {
            let reply = AckReply::parse(value)?;
            let stream = String::from_utf8_lossy(reply.stream).into_owned();
            let (seq, identity) = (reply.stream_seq, String::new());
            return Some(SourceOf { index_name: None, stream, seq, identity });
        }
        let fields: Vec<&str> = text.split(' ').collect();
        let (stream, seq) = ((*fields.first()?).to_owned(), fields.get(1)?.parse().unwrap_or(0));
        match fields.len() {
            2 => Some(SourceOf { index_name: None, stream, seq, identity: String::new() }),
            4.. => Some(SourceOf {
                index_name: Some(format!("{} {} {}", fields[0], fields[2], fields[3])),
                stream,
                seq,
                identity: fields.get(5).copied().unwrap_or_default().to_owned(),
            }),
            _ => None,
        }
    }
}

/// What the subject says that would acknowledge a delivery: which message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckReply<'a> {
    /// The stream.
    pub stream: &'a [u8],
    /// The consumer.
    pub consumer: &'a [u8],
    /// How often it was delivered.
    pub deliveries: u64,
    /// Its sequence in the stream.
    pub stream_seq: u64,
    /// Its number among the consumer's deliveries.
    pub consumer_seq: u64,
    /// When it was stored.
    pub time_ns: i64,
    /// How many are to follow.
    pub pending: u64,
}

impl<'a> AckReply<'a> {
    /// Reads `$JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>`, or the longer form with domain and
    /// account in front of the stream.
    pub fn parse(subject: &'a [u8]) -> Option<AckReply<'a>> {
        let rest = subject.strip_prefix(b"$JS.ACK.")?;
        let count = memchr::memchr_iter(b'.', rest).count() + 1;
        let mut tokens = rest.split(|byte| *byte == b'.');
        match count {
            7 => {}
            9.. => {
                tokens.nth(1)?;
            }
            _ => return None,
        }
        let (stream, consumer) = (tokens.next()?, tokens.next()?);
        let mut number =
            || -> Option<u64> { std::str::from_utf8(tokens.next()?).ok().and_then(|text| text.parse().ok()) };
        Some(AckReply {
            stream,
            consumer,
            deliveries: number()?,
            stream_seq: number()?,
            consumer_seq: number()?,
            time_ns: i64::try_from(number()?).ok()?,
            pending: number()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::config::{ExternalStream, StreamConsumerSource, SubjectTransform};
    use super::*;

    // Names and headers in these tests were seen from nats-server 2.15.1.
    #[test]
    fn hashes_are_those_of_the_reference() {
        assert_eq!(hash("M $G"), "ih8eMwqr");
        assert_eq!(identity(1_795_833_011_169_462_079), "S1KRr7Go");
    }

    #[test]
    fn a_source_is_named_by_where_it_comes_from_and_what_of_it() {
        let mut source = StreamSource { name: "O".into(), ..StreamSource::default() };
        assert_eq!(index_name(&source), "O > >");
        source.filter_subject = "o.2".into();
        assert_eq!(index_name(&source), "O o.2 >");
        source.filter_subject.clear();
        let transform = |src: &str, dest: &str| SubjectTransform { src: src.into(), dest: dest.into() };
        source.subject_transforms = vec![transform("o.1", "t.1"), transform("o.3", "")];
        assert_eq!(index_name(&source), "O o.1\x0co.3 t.1\x0c>");
        source.external = Some(ExternalStream { api: "A.API".into(), deliver: String::new() });
        source.consumer = Some(StreamConsumerSource { name: "C".into(), deliver_subject: "d".into() });
        let (api, consumer) = (hash("A.API"), hash("C"));
        assert_eq!(index_name(&source), format!("O:{api}:C={consumer} o.1\x0co.3 t.1\x0c>"));
    }

    #[test]
    fn the_header_is_read_as_it_is_written() {
        let value = source_value("O o.1\x0co.3 t.1\x0c>", 3, b"o.3", "S1KRr7Go");
        assert_eq!(value, b"O 3 o.1\x0co.3 t.1\x0c> o.3 S1KRr7Go");
        let read = SourceOf::parse(&value).unwrap();
        assert_eq!(read.index_name.as_deref(), Some("O o.1\x0co.3 t.1\x0c>"));
        assert_eq!((read.stream.as_str(), read.seq, read.identity.as_str()), ("O", 3, "S1KRr7Go"));
        let read = SourceOf::parse(&source_value("O > >", 9, b"o.2", "")).unwrap();
        assert_eq!((read.seq, read.identity.as_str()), (9, ""));
    }

    #[test]
    fn older_headers_are_read_and_broken_ones_are_not() {
        let old =
            |value: &str| SourceOf::parse(value.as_bytes()).map(|of| (of.index_name, of.stream, of.seq));
        assert_eq!(old("O 5"), Some((None, "O".into(), 5)));
        assert_eq!(old("O 5 > >"), Some((Some("O > >".into()), "O".into(), 5)));
        assert_eq!(old("$JS.ACK.O.C.1.7.2.3.0"), Some((None, "O".into(), 7)));
        assert_eq!(old("$JS.ACK._.HASH.O.C.1.7.2.3.0.x"), Some((None, "O".into(), 7)));
        for broken in ["", "O", "O 1 >", "$JS.ACK.O"] {
            assert_eq!(old(broken), None, "{broken}");
        }
    }
}
