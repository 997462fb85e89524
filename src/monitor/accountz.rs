//! `/accountz` and `/accstatz`: the accounts. There is one, `$G`, until accounts can be configured.

use serde::Serialize;

use super::answer::Answer;
use super::clock::Timestamp;
use super::parameters::Parameters;
use super::readings::Snapshot;
use super::subsz::IndexStats;
use crate::broker::core::{Counts, GLOBAL_ACCOUNT};

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// The account to be described; `None` for the list.
    pub account: Option<String>,
}

impl Query {
    /// Reads the parameters.
    pub fn parse(parameters: &Parameters) -> Query {
        Query { account: parameters.filter("acc") }
    }

    /// The answer to `/accountz`. `index` is what is known of the index of the account.
    pub fn answer(&self, snapshot: &Snapshot<'_>, index: IndexStats) -> Answer {
        let list = Accountz {
            server_id: &snapshot.identity.server_id,
            now: snapshot.now,
            accounts: None,
            account_detail: None,
        };
        match self.account.as_deref() {
            None => Answer::json(&Accountz { accounts: Some(vec![GLOBAL_ACCOUNT]), ..list }),
            Some(GLOBAL_ACCOUNT) => {
                let total = snapshot.total();
                Answer::json(&Accountz {
                    account_detail: Some(AccountDetail {
                        account_name: GLOBAL_ACCOUNT,
                        update_time: snapshot.configured,
                        expired: false,
                        complete: true,
                        jetstream_enabled: false,
                        leafnode_connections: 0,
                        client_connections: total.connections,
                        subscriptions: total.stats.subscriptions,
                        name_tag: GLOBAL_ACCOUNT,
                        sublist_stats: index,
                    }),
                    ..list
                })
            }
            Some(name) => Answer::bad_request(format!("Account {name} does not exist")),
        }
    }
}

/// The answer to `/accstatz`; accounts without a connection only if `unused` ones are asked for.
pub fn statz(snapshot: &Snapshot<'_>, unused: bool) -> Answer {
    let total = snapshot.total();
    let global = AccountStat {
        acc: GLOBAL_ACCOUNT,
        name: GLOBAL_ACCOUNT,
        conns: total.connections,
        leafnodes: 0,
        total_conns: total.connections,
        num_subscriptions: total.stats.subscriptions,
        sent: Traffic::of(total.stats.deliveries),
        received: Traffic::of(total.stats.messages),
        slow_consumers: total.stats.slow_consumers,
    };
    let is_shown = unused || total.connections > 0;
    Answer::json(&Accstatz {
        server_id: &snapshot.identity.server_id,
        now: snapshot.now,
        account_statz: is_shown.then_some(global).into_iter().collect(),
    })
}

#[derive(Debug, Serialize)]
struct Accountz<'a> {
    server_id: &'a str,
    now: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    accounts: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_detail: Option<AccountDetail>,
}

#[derive(Debug, Serialize)]
struct AccountDetail {
    account_name: &'static str,
    update_time: Timestamp,
    expired: bool,
    complete: bool,
    jetstream_enabled: bool,
    leafnode_connections: u64,
    client_connections: u64,
    subscriptions: u64,
    name_tag: &'static str,
    sublist_stats: IndexStats,
}

#[derive(Debug, Serialize)]
struct Accstatz<'a> {
    server_id: &'a str,
    now: Timestamp,
    account_statz: Vec<AccountStat>,
}

#[derive(Debug, Serialize)]
struct AccountStat {
    acc: &'static str,
    name: &'static str,
    conns: u64,
    leafnodes: u64,
    total_conns: u64,
    num_subscriptions: u64,
    sent: Traffic,
    received: Traffic,
    slow_consumers: u64,
}

/// Messages and bytes, in all and by the kinds of connection that are no clients.
#[derive(Debug, Serialize)]
struct Traffic {
    msgs: u64,
    bytes: u64,
    gateways: MsgsBytes,
    routes: MsgsBytes,
    leafs: MsgsBytes,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct MsgsBytes {
    msgs: u64,
    bytes: u64,
}

impl Traffic {
    fn of(counts: Counts) -> Traffic {
        let none = MsgsBytes::default();
        Traffic { msgs: counts.count, bytes: counts.bytes, gateways: none, routes: none, leafs: none }
    }
}
