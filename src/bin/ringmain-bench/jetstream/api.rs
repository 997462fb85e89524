//! The JetStream API, asked over a connection of its own, one request at a time. An answer with an error is an error.

use serde_json::{Value, json};

use crate::args::Options;
use crate::client::{Connection, Target};
use crate::error::BenchError;
use crate::frames;
use crate::inbox::Event;

/// See the head of this file.
pub struct Api {
    connection: Connection,
    inbox: String,
    asked: u64,
}

impl Api {
    pub fn open(target: &Target) -> Result<Api, BenchError> {
        let mut connection = Connection::open(target)?;
        let inbox = format!("_INBOX.{}{}", frames::run_id(), frames::run_id());
        let mut line = Vec::new();
        frames::push_subscribe(&mut line, &format!("{inbox}.*"), None, "1");
        connection.send(&line)?;
        connection.flush()?;
        Ok(Api { connection, inbox, asked: 0 })
    }

    pub fn version(&self) -> String {
        self.connection.info.version.clone()
    }

    /// Asks `$JS.API.` and `what`.
    pub fn ask(&mut self, what: &str, body: &Value) -> Result<Value, BenchError> {
        self.asked += 1;
        let reply = format!("{}.{}", self.inbox, self.asked);
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let mut request = Vec::new();
        frames::push_publish(&mut request, &format!("$JS.API.{what}"), Some(&reply), &body);
        self.connection.send(&request)?;
        loop {
            while let Some(event) = self.connection.inbox.next_event()? {
                match event {
                    Event::Message { subject, payload, .. } if subject == reply.as_bytes() => {
                        let answer: Value =
                            serde_json::from_slice(payload).map_err(|_| BenchError::unexpected(payload))?;
                        return match answer.get("error") {
                            Some(error) => Err(BenchError::Unsupported(format!("{what}: {error}"))),
                            None => Ok(answer),
                        };
                    }
                    Event::Ping => {
                        use std::io::Write as _;
                        let mut stream = &self.connection.stream;
                        stream.write_all(b"PONG\r\n").map_err(BenchError::io("answering PING"))?;
                    }
                    _ => {}
                }
            }
            self.connection.fill("before its answer")?;
        }
    }

    /// A stream of the options' storage, with what `more` says of it.
    pub fn create_stream(
        &mut self,
        name: &str,
        subjects: &[String],
        more: Value,
        options: &Options,
    ) -> Result<(), BenchError> {
        let config = stream_config(name, subjects, more, options);
        self.ask(&format!("STREAM.CREATE.{name}"), &config).map(drop)
    }

    pub fn delete_stream(&mut self, name: &str) -> Result<(), BenchError> {
        self.ask(&format!("STREAM.DELETE.{name}"), &Value::Null).map(drop)
    }

    /// How many messages a stream has.
    pub fn messages_of(&mut self, stream: &str) -> Result<u64, BenchError> {
        let info = self.ask(&format!("STREAM.INFO.{stream}"), &Value::Null)?;
        info["state"]["messages"].as_u64().ok_or_else(|| BenchError::Unexpected(info.to_string()))
    }

    pub fn create_consumer(&mut self, stream: &str, name: &str, config: Value) -> Result<(), BenchError> {
        let body = consumer_config(stream, name, config);
        self.ask(&format!("CONSUMER.CREATE.{stream}.{name}"), &body).map(drop)
    }

    pub fn delete_consumer(&mut self, stream: &str, name: &str) -> Result<(), BenchError> {
        self.ask(&format!("CONSUMER.DELETE.{stream}.{name}"), &Value::Null).map(drop)
    }

    /// Messages that a consumer has delivered and that are not acknowledged, and those that it has still to deliver.
    pub fn open_of(&mut self, stream: &str, consumer: &str) -> Result<(u64, u64), BenchError> {
        let info = self.ask(&format!("CONSUMER.INFO.{stream}.{consumer}"), &Value::Null)?;
        let number = |key: &str| info[key].as_u64().ok_or_else(|| BenchError::Unexpected(info.to_string()));
        Ok((number("num_ack_pending")?, number("num_pending")?))
    }
}

pub fn stream_config(name: &str, subjects: &[String], more: Value, options: &Options) -> Value {
    let mut config =
        json!({ "name": name, "subjects": subjects, "storage": options.storage, "num_replicas": 1 });
    merge(&mut config, more);
    config
}

pub fn consumer_config(stream: &str, name: &str, more: Value) -> Value {
    let mut config = json!({ "name": name });
    merge(&mut config, more);
    json!({ "stream_name": stream, "config": config, "action": "create" })
}

fn merge(into: &mut Value, more: Value) {
    if let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    }
}
