//! `/accountz` and `/accstatz`: the accounts.

use std::collections::BTreeMap;

use serde::Serialize;

use super::answer::Answer;
use super::clock::Timestamp;
use super::parameters::Parameters;
use super::readings::{AccountReading, Snapshot};
use super::subsz::IndexStats;
use crate::auth::Account;
use crate::broker::core::Traffic;
use crate::broker::inspect::{ConnectionTally, ResponseRow};
use crate::config::Sharing;
use crate::subject::import::{self, ResponseType};

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
    /// `responses` are the answers that it owes to other accounts.
    pub fn answer(&self, snapshot: &Snapshot<'_>, index: IndexStats, responses: &[ResponseRow]) -> Answer {
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
        match AccountDetail::of(snapshot, name, index, responses) {
            Ok(detail) => Answer::json(&Accountz { account_detail: Some(detail), ..list }),
            Err(answer) => answer,
        }
    }

    /// What is told of the account alone.
    pub fn answer_detail(
        &self,
        snapshot: &Snapshot<'_>,
        index: IndexStats,
        responses: &[ResponseRow],
    ) -> Answer {
        let name = self.account.as_deref().unwrap_or_default();
        match AccountDetail::of(snapshot, name, index, responses) {
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
    fn of(
        snapshot: &'a Snapshot<'_>,
        name: &str,
        index: IndexStats,
        responses: &'a [ResponseRow],
    ) -> Result<AccountDetail<'a>, Answer> {
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
            mappings: mappings(&account.account),
            exports: exports(&account.account),
            imports: imports(&account.account),
            name_tag: &account.name,
            sublist_stats: index,
            responses: responses.iter().map(|row| (row.subject.as_str(), Import::of_response(row))).collect(),
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
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    mappings: BTreeMap<&'a str, Vec<Destination<'a>>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exports: Vec<Export<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    imports: Vec<Import<'a>>,
    name_tag: &'a str,
    sublist_stats: IndexStats,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    responses: BTreeMap<&'a str, Import<'a>>,
}

#[derive(Debug, Serialize)]
struct Destination<'a> {
    subject: &'a str,
    /// Of all destinations up to this one, as in the reference.
    weight: u8,
}

#[derive(Debug, Default, Serialize)]
struct Export<'a> {
    subject: &'a str,
    r#type: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    response_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_latency: Option<Latency<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    approved_accounts: &'a [String],
}

#[derive(Debug, Serialize)]
struct Latency<'a> {
    sampling: serde_json::Value,
    results: &'a str,
}

#[derive(Debug, Default, Serialize)]
struct Import<'a> {
    subject: &'a str,
    account: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
    local_subject: &'a str,
    r#type: &'a str,
    invalid: bool,
    share: bool,
    tracking: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<Latency<'a>>,
}

impl<'a> Import<'a> {
    /// Answers come back by an import of their own, in the reference's eyes.
    fn of_response(row: &'a ResponseRow) -> Import<'a> {
        Import {
            subject: &row.to,
            account: &row.to_account,
            to: Some(&row.subject),
            local_subject: &row.subject,
            r#type: "service",
            share: row.shares,
            ..Import::default()
        }
    }
}

fn mappings(account: &Account) -> BTreeMap<&str, Vec<Destination<'_>>> {
    let mut found = BTreeMap::new();
    for mapping in account.mappings.iter() {
        let destinations = mapping.destinations().map(|(weight, subject)| Destination { subject, weight });
        found.insert(mapping.source(), destinations.collect());
    }
    found
}

fn latency(latency: &Option<import::Latency>) -> Option<Latency<'_>> {
    let import::Latency { sampling, subject } = latency.as_ref()?;
    let sampling = if *sampling == 0 { "headers".into() } else { (*sampling).into() };
    Some(Latency { sampling, results: subject })
}

/// Services first, as in the reference.
fn exports(account: &Account) -> Vec<Export<'_>> {
    let services = account.sharing.service_exports.iter().map(|export| Export {
        subject: &export.subject,
        r#type: "service",
        response_type: match export.response {
            ResponseType::Singleton => "Singleton",
            ResponseType::Stream => "Streamed",
            ResponseType::Chunked => "Chunked",
        },
        service_latency: latency(&export.latency),
        approved_accounts: &export.access.accounts,
    });
    let streams = account.sharing.stream_exports.iter().map(|export| Export {
        subject: &export.subject,
        r#type: "stream",
        approved_accounts: &export.access.accounts,
        ..Export::default()
    });
    services.chain(streams).collect()
}

/// Streams first, as in the reference.
fn imports(account: &Account) -> Vec<Import<'_>> {
    let Sharing { stream_imports, service_imports, .. } = &account.sharing;
    let streams = stream_imports.iter().zip(&account.streams).map(|(import, link)| Import {
        subject: link.from(),
        account: &import.account,
        local_subject: link.to(),
        r#type: "stream",
        ..Import::default()
    });
    let services = service_imports.iter().zip(&account.services).map(|(import, link)| Import {
        subject: link.to(),
        account: &import.account,
        to: Some(link.from()),
        local_subject: link.from(),
        r#type: "service",
        share: import.share,
        ..Import::default()
    });
    streams.chain(services).collect()
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
