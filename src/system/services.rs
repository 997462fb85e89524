//! The subjects on which the server answers.

/// What is served on a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The server in brief.
    Statsz,
    /// Who the server is.
    Idz,
    /// What the monitoring tells.
    Zed(Zed),
    /// What the monitoring tells of the account that the subject names.
    OfAccount(OfAccount),
    /// Connections of the account that asks, from any account.
    OwnConnections,
    /// Traffic of the account that asks, from any account.
    OwnTraffic,
    /// Traffic of all accounts.
    AllTraffic,
    /// Who it is that asks, from any account.
    UserInfo,
    /// How many subscribers there are for a subject of the system account.
    Subscribers,
    /// How many subscribers there are for a subject of any account.
    SubscribersOf,
    /// The configuration is to be read again.
    Reload,
    /// A connection is to be closed.
    Kick,
    /// A connection is to be told to go elsewhere.
    LameDuck,
}

/// Answers of the monitoring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the request of that name")]
pub enum Zed {
    Varz,
    Subsz,
    Connz,
    Routez,
    Gatewayz,
    Leafz,
    Accountz,
    Jsz,
    Healthz,
    Profilez,
    Expvarz,
    Ipqueuesz,
    Raftz,
}

/// Answers of the monitoring about one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the request of that name")]
pub enum OfAccount {
    Subsz,
    Connz,
    Leafz,
    Jsz,
    Info,
    Statz,
    Conns,
}

const OF_SERVERS: [(&str, Service); 15] = [
    ("IDZ", Service::Idz),
    ("STATSZ", Service::Statsz),
    ("VARZ", Service::Zed(Zed::Varz)),
    ("SUBSZ", Service::Zed(Zed::Subsz)),
    ("CONNZ", Service::Zed(Zed::Connz)),
    ("ROUTEZ", Service::Zed(Zed::Routez)),
    ("GATEWAYZ", Service::Zed(Zed::Gatewayz)),
    ("LEAFZ", Service::Zed(Zed::Leafz)),
    ("ACCOUNTZ", Service::Zed(Zed::Accountz)),
    ("JSZ", Service::Zed(Zed::Jsz)),
    ("HEALTHZ", Service::Zed(Zed::Healthz)),
    ("PROFILEZ", Service::Zed(Zed::Profilez)),
    ("EXPVARZ", Service::Zed(Zed::Expvarz)),
    ("IPQUEUESZ", Service::Zed(Zed::Ipqueuesz)),
    ("RAFTZ", Service::Zed(Zed::Raftz)),
];

const OF_ONE_SERVER: [(&str, Service); 3] =
    [("RELOAD", Service::Reload), ("KICK", Service::Kick), ("LDM", Service::LameDuck)];

const OF_ACCOUNTS: [(&str, OfAccount); 7] = [
    ("SUBSZ", OfAccount::Subsz),
    ("CONNZ", OfAccount::Connz),
    ("LEAFZ", OfAccount::Leafz),
    ("JSZ", OfAccount::Jsz),
    ("INFO", OfAccount::Info),
    ("STATZ", OfAccount::Statz),
    ("CONNS", OfAccount::Conns),
];

/// Those in the system account.
pub fn of_the_system_account(server_id: &str) -> Vec<(String, Service)> {
    let ping = OF_SERVERS.iter().map(|(name, service)| (format!("$SYS.REQ.SERVER.PING.{name}"), *service));
    let directly = OF_SERVERS
        .iter()
        .chain(&OF_ONE_SERVER)
        .map(|(name, service)| (format!("$SYS.REQ.SERVER.{server_id}.{name}"), *service));
    let of_accounts = OF_ACCOUNTS
        .iter()
        .map(|(name, service)| (format!("$SYS.REQ.ACCOUNT.*.{name}"), Service::OfAccount(*service)));
    let others = [
        ("$SYS.REQ.SERVER.PING", Service::Statsz),
        ("$SYS.REQ.ACCOUNT.PING.STATZ", Service::AllTraffic),
        ("$SYS.REQ.ACCOUNT.NSUBS", Service::SubscribersOf),
        ("$SYS.REQ.USER.INFO", Service::UserInfo),
        ("$SYS.DEBUG.SUBSCRIBERS", Service::Subscribers),
    ];
    let others = others.into_iter().map(|(subject, service)| (subject.to_owned(), service));
    others.chain(ping).chain(directly).chain(of_accounts).collect()
}

/// Those in every other account. The reference has them as imports from the system account.
pub const OF_OTHER_ACCOUNTS: [(&str, Service); 4] = [
    ("$SYS.REQ.ACCOUNT.PING.CONNZ", Service::OwnConnections),
    ("$SYS.REQ.SERVER.PING.CONNZ", Service::OwnConnections),
    ("$SYS.REQ.ACCOUNT.PING.STATZ", Service::OwnTraffic),
    ("$SYS.REQ.USER.INFO", Service::UserInfo),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::name::Pattern;

    #[test]
    fn every_subject_can_be_subscribed_to_and_stands_once() {
        let mut subjects: Vec<String> =
            of_the_system_account("NAME").into_iter().map(|(subject, _)| subject).collect();
        assert!(subjects.iter().all(|subject| Pattern::parse(subject.as_bytes()).is_ok()));
        let count = subjects.len();
        subjects.sort_unstable();
        subjects.dedup();
        assert_eq!((subjects.len(), count), (45, 45));
    }
}
