//! `/healthz`: whether the server can be used. Without JetStream it can as soon as it answers at all, so that only a
//! request which contradicts itself gets anything else. With it, every stream on disk has to be open and writable. As in the
//! reference, streams in memory are not looked at, and not found.

use serde::Serialize;

use super::answer::{Answer, Kind};
use super::jetstream::{JetStreamReading, Wanted};
use super::json;
use super::parameters::Parameters;
use crate::stream::config::Storage;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    account: String,
    stream: String,
    consumer: String,
    details: bool,
    /// Streams are not looked at: it is enough that there is JetStream, or the server.
    skips_streams: bool,
    /// The old name of `js-enabled-only` was used, which deserves a warning in the log.
    pub is_deprecated: bool,
    /// The code of the answer stands in the answer too. Over HTTP it does not.
    shows_code: bool,
}

impl Query {
    /// The same, with the code in the answer.
    pub fn with_code(self) -> Query {
        Query { shows_code: true, ..self }
    }

    /// Reads the parameters.
    ///
    /// # Errors
    ///
    /// One of the switches is neither on nor off.
    pub fn parse(parameters: &Parameters) -> Result<Query, Answer> {
        let is_deprecated = parameters.boolean("js-enabled")?;
        // These narrow down what is looked at in JetStream. They have to be right even where there is none.
        let enabled_only = parameters.boolean("js-enabled-only")?;
        let server_only = parameters.boolean("js-server-only")?;
        // There is no meta layer in a server alone.
        parameters.boolean("js-meta-only")?;
        Ok(Query {
            details: parameters.boolean("details")?,
            account: parameters.text("account").to_owned(),
            stream: parameters.text("stream").to_owned(),
            consumer: parameters.text("consumer").to_owned(),
            skips_streams: is_deprecated || enabled_only || server_only,
            is_deprecated,
            shows_code: false,
        })
    }

    /// What has to be read of JetStream; `None`: nothing.
    pub fn wanted(&self) -> Option<Wanted<'_>> {
        let (account, stream, consumer) = (&*self.account, &*self.stream, &*self.consumer);
        (!self.skips_streams && self.contradiction().is_none()).then_some(match consumer {
            "" => Wanted::None,
            consumer => Wanted::One { account, stream, consumer },
        })
    }

    /// What is missing, and whose health is asked for without it.
    fn contradiction(&self) -> Option<(&'static str, &'static str)> {
        if self.account.is_empty() && !self.stream.is_empty() {
            Some(("account", "stream"))
        } else if self.stream.is_empty() && !self.consumer.is_empty() {
            Some(("stream", "consumer"))
        } else {
            None
        }
    }

    /// The answer, and what the log is to say of it. `reading` is what was [wanted](Query::wanted).
    pub fn answer(&self, reading: Option<&JetStreamReading>) -> (Answer, Option<String>) {
        if let Some((what, whose)) = self.contradiction() {
            let error = format!("\"{what}\" must not be empty when checking {whose} health");
            return self.failed(400, "error", vec![Fault { kind: "BAD_REQUEST", error, ..Fault::default() }]);
        }
        let (status, faults) = reading.map_or((200, Vec::new()), |reading| self.look_at(reading));
        if faults.is_empty() {
            let health = Health { status: "ok", status_code: self.code(200), error: None, errors: None };
            return (Answer { status: 200, kind: Kind::Json, body: json::compact(&health) }, None);
        }
        self.failed(status, "unavailable", faults)
    }

    fn code(&self, code: u16) -> Option<u16> {
        self.shows_code.then_some(code)
    }

    /// What is wrong with streams, and the status for that.
    fn look_at<'a>(&'a self, reading: &'a JetStreamReading) -> (u16, Vec<Fault<'a>>) {
        let (account, stream, consumer) = (&*self.account, &*self.stream, &*self.consumer);
        let is_asked = |(of, name): &(&str, &str)| {
            (account.is_empty() || *of == account) && (stream.is_empty() || *name == stream)
        };
        let unopened = reading.unopened.iter().map(|(account, stream)| (account.as_str(), stream.as_str()));
        let on_disk = || {
            reading.accounts.iter().flat_map(|account| {
                let streams = account.streams.iter();
                let streams = streams.filter(|stream| stream.report.config.storage == Storage::File);
                streams.map(|stream| (account.name.as_str(), stream))
            })
        };
        let names = || {
            let opened = on_disk().map(|(account, stream)| (account, stream.report.config.name.as_str()));
            opened.chain(unopened.clone())
        };
        let not_found = |kind, error| {
            let part = |shown: bool, name: &'a str| if shown { name } else { "" };
            let fault = Fault {
                kind,
                account,
                stream: part(kind != "ACCOUNT", stream),
                consumer: part(kind == "CONSUMER", consumer),
                error,
            };
            (404, vec![fault])
        };
        if !account.is_empty() && !names().any(|(of, _)| of == account) {
            return not_found("ACCOUNT", format!("JetStream account {account:?} not found"));
        }
        if !stream.is_empty() && !names().any(|named| is_asked(&named)) {
            let error = format!("JetStream stream {stream:?} not found on account {account:?}");
            return not_found("STREAM", error);
        }
        let fault = |(account, stream): (&'a str, &'a str), what: &str| {
            let error = format!("JetStream stream '{account} > {stream}' {what}");
            Fault { kind: "STREAM", account, stream, consumer: "", error }
        };
        let mut faults: Vec<Fault<'a>> =
            unopened.clone().filter(is_asked).map(|named| fault(named, "could not be recovered")).collect();
        for (account, stream) in on_disk() {
            let named = (account, stream.report.config.name.as_str());
            if let Some(error) = stream.write_error.as_ref().filter(|_| is_asked(&named)) {
                faults.push(fault(named, &format!("write error: {error}")));
            }
        }
        if !faults.is_empty() {
            return (503, faults);
        }
        let has_consumer =
            || on_disk().any(|(_, stream)| stream.consumers.iter().any(|found| found.name == consumer));
        if !consumer.is_empty() && !has_consumer() {
            let error = format!(
                "JetStream consumer {consumer:?} not found for stream {stream:?} on account {account:?}"
            );
            return not_found("CONSUMER", error);
        }
        (200, faults)
    }

    /// The answer with what is wrong: the first of it, or with details all.
    fn failed(&self, code: u16, status: &'static str, faults: Vec<Fault<'_>>) -> (Answer, Option<String>) {
        let status_code = self.code(code);
        let (health, log) = if self.details {
            let log = format!("Healthcheck failed: {} errors", faults.len());
            (Health { status: "error", status_code, error: None, errors: Some(&faults) }, log)
        } else {
            let error = faults.first().map(|fault| fault.error.as_str());
            let log = format!("Healthcheck failed: {:?}", error.unwrap_or_default());
            (Health { status, status_code, error, errors: None }, log)
        };
        (Answer { status: code, kind: Kind::Json, body: json::compact(&health) }, Some(log))
    }
}

/// Whether every stream on disk is open and can be written.
pub fn is_well(reading: &JetStreamReading) -> bool {
    Query::default().look_at(reading).1.is_empty()
}

#[derive(Debug, Serialize)]
struct Health<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<&'a [Fault<'a>]>,
}

/// Something that is wrong.
#[derive(Debug, Default, Serialize)]
struct Fault<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    account: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    stream: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    consumer: &'a str,
    error: String,
}
