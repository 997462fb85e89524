//! `$SYS.REQ.USER.INFO`: who it is that asks, and what it may do. Everybody may ask that.

use serde::Serialize;

use crate::auth::User;
use crate::config;
use crate::monitor::json;

/// The answer, for somebody whom the monitoring calls `shown_user`.
pub fn answer(shown_user: &str, user: &User) -> Vec<u8> {
    json::compact(&UserInfo {
        user: shown_user,
        account: &user.account.name,
        account_name: &user.account.name,
        permissions: user.permissions.as_deref().map(|permissions| Permissions::of(permissions.configured())),
    })
}

#[derive(Debug, Serialize)]
struct UserInfo<'a> {
    user: &'a str,
    account: &'a str,
    account_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions: Option<Permissions>,
}

#[derive(Debug, Serialize)]
struct Permissions {
    publish: Subjects,
    subscribe: Subjects,
    #[serde(skip_serializing_if = "Option::is_none")]
    responses: Option<Responses>,
}

#[derive(Debug, Serialize)]
struct Subjects {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Responses {
    max: i64,
    ttl: i64,
}

impl Permissions {
    fn of(configured: &config::Permissions) -> Permissions {
        let with_queues = |entries: &[config::QueueSubject]| {
            let shown = |entry: &config::QueueSubject| match &entry.queue {
                Some(queue) => format!("{} {queue}", entry.subject),
                None => entry.subject.clone(),
            };
            entries.iter().map(shown).collect()
        };
        Permissions {
            publish: Subjects {
                allow: configured.publish_allow.clone().unwrap_or_default(),
                deny: configured.publish_deny.clone(),
            },
            subscribe: Subjects {
                allow: with_queues(&configured.subscribe_allow),
                deny: with_queues(&configured.subscribe_deny),
            },
            responses: configured.responses.map(|responses| Responses {
                max: responses.max.map_or(-1, i64::from),
                ttl: responses.expires.map_or(-1, |ttl| i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX)),
            }),
        }
    }
}
