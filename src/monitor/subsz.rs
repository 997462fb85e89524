//! `/subsz` and `/subscriptionsz`: the index of subscriptions, and the subscriptions one by one.
//!
//! The numbers of the index are Ringmain's own under the reference's names. Each worker has a cache of its own, and a
//! subject is cached when it is seen for the second time; every message counts as a match, and as a hit unless the
//! index had to be asked. The parameters `find`, a text to look for, and `cid`, whose they are, are
//! Ringmain's own.

use serde::Serialize;

use super::answer::Answer;
use super::clock::Timestamp;
use super::parameters::Parameters;
use super::readings::{AccountReading, Snapshot};
use crate::broker::core::Traffic;
use crate::broker::inspect::{SearchText, SubscriptionFilter, SubscriptionRow};
use crate::subject::fanout::FanOutTally;
use crate::subject::name::is_valid_literal_subject;

/// Subscriptions in an answer unless the request says otherwise.
const LIMIT_DEFAULT: usize = 1024;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Whether the subscriptions themselves are wanted.
    pub lists: bool,
    /// So many are passed over.
    pub offset: usize,
    /// So many at most.
    pub limit: usize,
    account: Option<String>,
    test: Option<String>,
    text: Option<SearchText>,
    cid: Option<u64>,
}

impl Query {
    /// Reads the parameters.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn parse(parameters: &Parameters) -> Result<Query, Answer> {
        let lists = parameters.boolean("subs")?;
        let offset = usize::try_from(parameters.integer("offset")?).unwrap_or(0);
        let limit = usize::try_from(parameters.integer("limit")?).ok().filter(|limit| *limit > 0);
        let test = parameters.filter("test");
        let cid = Some(parameters.unsigned("cid")?).filter(|cid| *cid > 0);
        if let Some(test) = &test
            && !is_valid_literal_subject(test.as_bytes())
        {
            let text = format!("invalid test subject, must be valid publish subject: {test}");
            return Err(Answer::bad_request(text));
        }
        let account = parameters.filter("acc");
        Ok(Query {
            lists,
            offset,
            limit: limit.unwrap_or(LIMIT_DEFAULT),
            account,
            test,
            text: SearchText::new(parameters.text("find")),
            cid,
        })
    }

    /// Which subscriptions are meant.
    pub fn filter(&self) -> SubscriptionFilter {
        SubscriptionFilter {
            reached_by: self.test.as_ref().map(|test| test.clone().into_bytes()),
            account: self.account.clone(),
            text: self.text.clone(),
            cid: self.cid,
            ..SubscriptionFilter::default()
        }
    }

    /// The account that is asked about.
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// The answer: the rows from `offset` on, of `found` that there are.
    pub fn answer(
        &self,
        snapshot: &Snapshot<'_>,
        index: IndexStats,
        rows: &[SubscriptionRow],
        found: usize,
    ) -> Answer {
        Answer::json(&Subsz {
            server_id: &snapshot.identity.server_id,
            now: snapshot.now,
            index,
            total: found,
            offset: self.offset,
            limit: self.limit,
            subscriptions_list: rows.iter().map(|row| SubscriptionDetail::of(row, true)).collect(),
        })
    }
}

#[derive(Debug, Serialize)]
struct Subsz<'a> {
    server_id: &'a str,
    now: Timestamp,
    #[serde(flatten)]
    index: IndexStats,
    total: usize,
    offset: usize,
    limit: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list: Vec<SubscriptionDetail<'a>>,
}

/// What the index has done.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct IndexStats {
    num_subscriptions: u64,
    num_cache: u64,
    num_inserts: u64,
    num_removes: u64,
    num_matches: u64,
    cache_hit_rate: f64,
    max_fanout: u64,
    avg_fanout: f64,
}

impl IndexStats {
    /// Of all accounts, put together from the workers' counters and a look at their caches.
    pub fn of(snapshot: &Snapshot<'_>, tally: FanOutTally) -> IndexStats {
        let stats = snapshot.total().stats;
        let internal = snapshot.internal_subscriptions();
        let (subscriptions, subscribed) = (stats.subscriptions + internal, stats.subscribed + internal);
        IndexStats::new(subscriptions, subscribed, stats.messages.count, tally)
    }

    /// Of one account. `tally` is of its cached subjects only.
    pub fn of_account(account: &AccountReading, traffic: Traffic, tally: FanOutTally) -> IndexStats {
        IndexStats::new(account.subscriptions, account.subscribed, traffic.counters.in_msgs, tally)
    }

    fn new(subscriptions: u64, subscribed: u64, matches: u64, tally: FanOutTally) -> IndexStats {
        let hits = matches.saturating_sub(tally.index_reads);
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        IndexStats {
            num_subscriptions: subscriptions,
            num_cache: tally.subjects,
            num_inserts: subscribed,
            num_removes: subscribed.saturating_sub(subscriptions),
            num_matches: matches,
            cache_hit_rate: share(hits, matches),
            max_fanout: tally.reached_max,
            avg_fanout: share(tally.reached, tally.subjects),
        }
    }
}

/// A subscription in full.
#[derive(Debug, Serialize)]
pub struct SubscriptionDetail<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    account: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    account_tag: &'a str,
    subject: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    qgroup: &'a str,
    sid: &'a str,
    msgs: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    cid: u64,
}

impl<'a> SubscriptionDetail<'a> {
    /// Made of a row, with its account or without.
    pub fn of(row: &'a SubscriptionRow, with_account: bool) -> SubscriptionDetail<'a> {
        let account = if with_account { &row.account } else { "" };
        SubscriptionDetail {
            account,
            account_tag: account,
            subject: &row.subject,
            qgroup: &row.queue,
            sid: &row.sid,
            msgs: row.delivered,
            max: row.delivered_max,
            cid: row.cid,
        }
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}
