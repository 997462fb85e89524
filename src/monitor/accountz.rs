//! `/accountz` and `/accstatz`: the accounts.

use serde::Serialize;

use super::answer::Answer;
use super::clock::Timestamp;
use super::parameters::Parameters;
use super::readings::{AccountReading, Snapshot};
use super::subsz::IndexStats;
use crate::broker::core::Traffic;
use crate::broker::inspect::ConnectionTally;

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

    /// The answer to `/accountz`. `index` is what is known of the index of the account that is asked for, if there is one.
    pub fn answer(&self, snapshot: &Snapshot<'_>, index: IndexStats) -> Answer {
        let list = Accountz {
            server_id: &snapshot.identity.server_id,
            now: snapshot.now,
            system_account: snapshot.system_account(),
            accounts: None,
            account_detail: None,
        };
        let Some(name) = &self.account else {
            let names = snapshot.accounts.iter().map(|account| account.name.as_str()).collect();
            return Answer::json(&Accountz { accounts: Some(names), ..list });
        };
        match AccountDetail::of(snapshot, name, index) {
            Ok(detail) => Answer::json(&Accountz { account_detail: Some(detail), ..list }),
            Err(answer) => answer,
        }
    }

    /// What is told of the account alone.
    pub fn answer_detail(&self, snapshot: &Snapshot<'_>, index: IndexStats) -> Answer {
        let name = self.account.as_deref().unwrap_or_default();
        match AccountDetail::of(snapshot, name, index) {
            Ok(detail) => Answer::json(&detail),
            Err(answer) => answer,
        }
    }
}

/// Whose traffic is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// That of these accounts; `None`: of all.
    pub only: Option<Vec<String>>,
    /// That of accounts without a connection too.
    pub unused: bool,
}

impl Selection {
    /// Reads the parameters.
    ///
    /// # Errors
    ///
    /// `unused` is neither on nor off.
    pub fn parse(parameters: &Parameters) -> Result<Selection, Answer> {
        Ok(Selection { only: None, unused: parameters.boolean("unused")? })
    }

    /// The traffic that is asked for. `connections` tells what has been done in each account.
    pub fn stats<'a>(
        &self,
        snapshot: &'a Snapshot<'_>,
        connections: &ConnectionTally,
    ) -> Vec<AccountStat<'a>> {
        let is_selected = |name: &String| self.only.as_ref().is_none_or(|only| only.contains(name));
        let shown = snapshot.accounts.iter().filter(|account| self.unused || account.connections > 0);
        let shown = shown.filter(|account| is_selected(&account.name));
        shown.map(|account| AccountStat::of(account, connections.traffic(account.slot))).collect()
    }

    /// The answer to `/accstatz`.
    pub fn answer(&self, snapshot: &Snapshot<'_>, connections: &ConnectionTally) -> Answer {
        Answer::json(&Accstatz {
            server_id: &snapshot.identity.server_id,
            now: snapshot.now,
            account_statz: self.stats(snapshot, connections),
        })
    }
}

impl<'a> AccountDetail<'a> {
    fn of(snapshot: &'a Snapshot<'_>, name: &str, index: IndexStats) -> Result<AccountDetail<'a>, Answer> {
        let Some(account) = snapshot.account(name) else {
            return Err(Answer::bad_request(format!("Account {name} does not exist")));
        };
        Ok(AccountDetail {
            account_name: &account.name,
            update_time: snapshot.configured,
            is_system: account.is_system,
            expired: false,
            complete: true,
            jetstream_enabled: snapshot.options.jetstream_of(&account.name).is_some(),
            leafnode_connections: 0,
            client_connections: account.connections,
            subscriptions: account.subscriptions,
            name_tag: &account.name,
            sublist_stats: index,
        })
    }
}

impl<'a> AccountStat<'a> {
    /// Made of what is known of an account, and of what has been done in it.
    pub fn of(account: &'a AccountReading, traffic: Traffic) -> AccountStat<'a> {
        let Traffic { counters, slow_consumers } = traffic;
        AccountStat {
            acc: &account.name,
            name: &account.name,
            conns: account.connections,
            leafnodes: 0,
            total_conns: account.connections,
            num_subscriptions: account.subscriptions,
            sent: ByKind::clients(counters.out_msgs, counters.out_bytes),
            received: ByKind::clients(counters.in_msgs, counters.in_bytes),
            slow_consumers,
        }
    }
}

#[derive(Debug, Serialize)]
struct Accountz<'a> {
    server_id: &'a str,
    now: Timestamp,
    #[serde(skip_serializing_if = "str::is_empty")]
    system_account: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    accounts: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_detail: Option<AccountDetail<'a>>,
}

#[derive(Debug, Serialize)]
struct AccountDetail<'a> {
    account_name: &'a str,
    update_time: Timestamp,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_system: bool,
    expired: bool,
    complete: bool,
    jetstream_enabled: bool,
    leafnode_connections: u64,
    client_connections: u64,
    subscriptions: u64,
    name_tag: &'a str,
    sublist_stats: IndexStats,
}

#[derive(Debug, Serialize)]
struct Accstatz<'a> {
    server_id: &'a str,
    now: Timestamp,
    account_statz: Vec<AccountStat<'a>>,
}

/// The traffic of one account.
#[derive(Debug, Serialize)]
pub struct AccountStat<'a> {
    acc: &'a str,
    name: &'a str,
    conns: u64,
    leafnodes: u64,
    total_conns: u64,
    num_subscriptions: u64,
    sent: ByKind,
    received: ByKind,
    slow_consumers: u64,
}

/// Messages and bytes, in all and by the kinds of connection that are no clients.
#[derive(Debug, Serialize)]
struct ByKind {
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

impl ByKind {
    fn clients(msgs: u64, bytes: u64) -> ByKind {
        let none = MsgsBytes::default();
        ByKind { msgs, bytes, gateways: none, routes: none, leafs: none }
    }
}
