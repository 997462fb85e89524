//! `/healthz`: whether the server can be used. Without JetStream it can as soon as it answers at all, so that only a
//! request which contradicts itself gets anything else.

use serde::Serialize;

use super::answer::{Answer, Kind};
use super::json;
use super::parameters::Parameters;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    account: String,
    stream: String,
    consumer: String,
    details: bool,
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
        // Those three narrow down what is looked at in JetStream. They have to be right even where there is none.
        for name in ["js-enabled-only", "js-server-only", "js-meta-only"] {
            parameters.boolean(name)?;
        }
        Ok(Query {
            details: parameters.boolean("details")?,
            account: parameters.text("account").to_owned(),
            stream: parameters.text("stream").to_owned(),
            consumer: parameters.text("consumer").to_owned(),
            is_deprecated,
            shows_code: false,
        })
    }

    /// The answer, and what the log is to say of it.
    pub fn answer(&self) -> (Answer, Option<String>) {
        let code = |code| self.shows_code.then_some(code);
        let missing = if self.account.is_empty() && !self.stream.is_empty() {
            Some(("account", "stream"))
        } else if self.stream.is_empty() && !self.consumer.is_empty() {
            Some(("stream", "consumer"))
        } else {
            None
        };
        let Some((what, whose)) = missing else {
            let health = Health { status: "ok", status_code: code(200), error: None, errors: None };
            return (Answer { status: 200, kind: Kind::Json, body: json::compact(&health) }, None);
        };
        let error = format!("\"{what}\" must not be empty when checking {whose} health");
        let (health, log) = if self.details {
            let errors = vec![HealthError { r#type: "BAD_REQUEST", error }];
            let log = format!("Healthcheck failed: {} errors", errors.len());
            (Health { status: "error", status_code: code(400), error: None, errors: Some(errors) }, log)
        } else {
            let log = format!("Healthcheck failed: {error:?}");
            (Health { status: "error", status_code: code(400), error: Some(error), errors: None }, log)
        };
        (Answer { status: 400, kind: Kind::Json, body: json::compact(&health) }, Some(log))
    }
}

#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<HealthError>>,
}

#[derive(Debug, Serialize)]
struct HealthError {
    r#type: &'static str,
    error: String,
}
