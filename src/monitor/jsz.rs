//! `/jsz`: JetStream. There is none yet, and this is the answer of a reference server whose JetStream is off.

use serde::Serialize;

use super::answer::Answer;
use super::clock::Timestamp;
use super::parameters::Parameters;
use super::readings::Snapshot;

/// What is asked for, as far as it matters while there is nothing to tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Query {
    leader_only: bool,
}

impl Query {
    /// Reads the parameters.
    ///
    /// # Errors
    ///
    /// A switch is neither on nor off, or a number is none.
    pub fn parse(parameters: &Parameters) -> Result<Query, Answer> {
        // In the order in which the reference looks at them, for the first mistake is the answer.
        for name in ["accounts", "streams", "consumers", "direct-consumers", "config"] {
            parameters.boolean(name)?;
        }
        for name in ["offset", "limit"] {
            parameters.integer(name)?;
        }
        let leader_only = parameters.boolean("leader-only")?;
        for name in ["raft", "stream-leader-only"] {
            parameters.boolean(name)?;
        }
        Ok(Query { leader_only })
    }

    /// The answer.
    pub fn answer(self, snapshot: &Snapshot<'_>) -> Answer {
        if self.leader_only {
            return Answer::bad_request("filtered response: not leader");
        }
        Answer::json(&Jsz {
            memory: 0,
            storage: 0,
            reserved_memory: 0,
            reserved_storage: 0,
            accounts: 0,
            ha_assets: 0,
            api: Api::default(),
            server_id: &snapshot.identity.server_id,
            now: snapshot.now,
            disabled: true,
            config: Limits::default(),
            streams: 0,
            consumers: 0,
            messages: 0,
            bytes: 0,
            total: 0,
        })
    }
}

#[derive(Debug, Serialize)]
struct Jsz<'a> {
    memory: u64,
    storage: u64,
    reserved_memory: u64,
    reserved_storage: u64,
    accounts: u64,
    ha_assets: u64,
    api: Api,
    server_id: &'a str,
    now: Timestamp,
    disabled: bool,
    config: Limits,
    streams: u64,
    consumers: u64,
    messages: u64,
    bytes: u64,
    total: u64,
}

#[derive(Debug, Default, Serialize)]
struct Api {
    level: u64,
    total: u64,
    errors: u64,
}

#[derive(Debug, Default, Serialize)]
struct Limits {
    max_memory: u64,
    max_storage: u64,
}
