//! From a message on one of the server's subjects to what it asks for.

use data_encoding::BASE64;

use super::envelope::{Data, Failure};
use super::options::{Field, Kind, OptionsRead, ServerFacts};
use super::services::{OfAccount, Service, Zed};
use crate::monitor::parameters::{Parameters, Subscriptions};
use crate::monitor::{Answer, Request, accountz, connz, healthz, jsz, subsz};
use crate::subject::name::tokens;

/// What is to be done about a message.
#[derive(Debug)]
pub enum Asked {
    /// To be answered.
    Task(Box<Task>),
    /// To be answered with a mistake.
    Failure(Failure),
    /// It is for other servers, or makes no sense.
    Silence,
    /// The same, and the log says why.
    Complaint(String),
}

/// What is asked for.
#[derive(Debug)]
pub enum Task {
    /// Something that the monitoring tells.
    Monitor(Request),
    /// Something that is known already.
    Known(Data),
    /// The server in brief.
    Statsz,
    /// Who the server is.
    Idz,
    /// An account.
    AccountInfo(String),
    /// The streams of an account.
    StreamsOfAccount(jsz::Query),
    /// The number of connections of an account, if it has any.
    AccountConnections(String),
    /// Traffic of accounts. Without any there is no answer, unless unused ones are asked for.
    AccountTraffic(accountz::Selection),
    /// Who it is that asks.
    UserInfo,
    /// How many subscribers there are.
    Subscribers(Subscribers),
    /// The configuration is to be read again.
    Reload,
    /// The connection with this number is to be closed.
    Kick(u64),
    /// The connection with this number is to be told to go elsewhere.
    LameDuck(u64),
}

/// Which subscribers are to be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribers {
    /// In this account; `None`: in that of the system.
    pub account: Option<String>,
    /// Those that this subject reaches or, if it has wildcards, those whose subjects lie within it.
    pub subject: Vec<u8>,
    /// Only those of this queue group.
    pub queue: Option<Vec<u8>>,
}

/// A message on one of the server's subjects.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// What is served there.
    pub service: Service,
    /// The subject.
    pub subject: &'a [u8],
    /// The name of the account that it was published in.
    pub account: &'a str,
    /// The payload.
    pub body: &'a [u8],
}

const CONNZ: [Field; 12] = [
    ("sort", Kind::Sort),
    ("auth", Kind::Bool),
    ("subscriptions", Kind::Bool),
    ("subscriptions_detail", Kind::Bool),
    ("offset", Kind::Int),
    ("limit", Kind::Int),
    ("cid", Kind::Uint64),
    ("mqtt_client", Kind::Text),
    ("state", Kind::State),
    ("user", Kind::Text),
    ("acc", Kind::Text),
    ("filter_subject", Kind::Text),
];

const SUBSZ: [Field; 5] = [
    ("offset", Kind::Int),
    ("limit", Kind::Int),
    ("subscriptions", Kind::Bool),
    ("account", Kind::Text),
    ("test", Kind::Text),
];

const ROUTEZ: [Field; 2] = [("subscriptions", Kind::Bool), ("subscriptions_detail", Kind::Bool)];

const GATEWAYZ: [Field; 5] = [
    ("name", Kind::Text),
    ("accounts", Kind::Bool),
    ("account_name", Kind::Text),
    ("subscriptions", Kind::Bool),
    ("subscriptions_detail", Kind::Bool),
];

const LEAFZ: [Field; 2] = [("subscriptions", Kind::Bool), ("account", Kind::Text)];

const ACCOUNTZ: [Field; 1] = [("account", Kind::Text)];

const ACCSTATZ: [Field; 2] = [("accounts", Kind::Texts), ("include_unused", Kind::Bool)];

/// Each with the name of the parameter over HTTP.
const JSZ: [(Field, &str); 11] = [
    (("account", Kind::Text), "acc"),
    (("accounts", Kind::Bool), "accounts"),
    (("streams", Kind::Bool), "streams"),
    (("consumer", Kind::Bool), "consumers"),
    (("direct_consumer", Kind::Bool), "direct-consumers"),
    (("config", Kind::Bool), "config"),
    (("leader_only", Kind::Bool), "leader-only"),
    (("offset", Kind::Int), "offset"),
    (("limit", Kind::Int), "limit"),
    (("raft", Kind::Bool), "raft"),
    (("stream_leader_only", Kind::Bool), "stream-leader-only"),
];

const HEALTHZ: [Field; 8] = [
    ("js-enabled", Kind::Bool),
    ("js-enabled-only", Kind::Bool),
    ("js-server-only", Kind::Bool),
    ("js-meta-only", Kind::Bool),
    ("account", Kind::Text),
    ("stream", Kind::Text),
    ("consumer", Kind::Text),
    ("details", Kind::Bool),
];

const PROFILEZ: [Field; 3] = [("name", Kind::Text), ("debug", Kind::Int), ("duration", Kind::Duration)];

const IPQUEUESZ: [Field; 2] = [("all", Kind::Bool), ("filter", Kind::Text)];

const RAFTZ: [Field; 2] = [("account", Kind::Text), ("group", Kind::Text)];

const SUBSCRIBERS: [Field; 3] = [("acc", Kind::Text), ("subject", Kind::Text), ("queue", Kind::Bytes)];

const CID: [Field; 1] = [("cid", Kind::Uint64)];

/// The account of `$SYS.REQ.ACCOUNT.PING.STATZ`, which has an answer of its own.
const PING: &str = "PING";

/// Finds out what is asked for.
pub fn understand(message: Message<'_>, server: ServerFacts<'_>) -> Asked {
    let read = |name: &str, fields: &[Field]| match OptionsRead::read(message.body, name, fields) {
        Err(description) => Err(Asked::Failure(Failure::unreadable(description))),
        Ok(options) if !options.are_for(server) => Err(Asked::Silence),
        Ok(options) => Ok(options),
    };
    let task = match message.service {
        Service::Statsz => read("StatszEventOptions", &[]).map(|_| Ok(Task::Statsz)),
        Service::Idz => Ok(Ok(Task::Idz)),
        Service::Zed(zed) => understand_zed(zed, read),
        Service::OfAccount(what) => understand_of_account(what, message, read),
        Service::OwnConnections => {
            read("ConnzEventOptions", &CONNZ).map(|options| connections(&options, Some(message.account)))
        }
        Service::OwnTraffic => read("AccountStatzEventOptions", &ACCSTATZ)
            .map(|options| Ok(traffic(&options, Some(message.account.to_owned())))),
        Service::AllTraffic => {
            read("AccountStatzEventOptions", &ACCSTATZ).map(|options| Ok(traffic(&options, None)))
        }
        Service::UserInfo => Ok(Ok(Task::UserInfo)),
        Service::Subscribers => Ok(Ok(Task::Subscribers(subscribers(message.body)))),
        Service::SubscribersOf => return subscribers_of(message.body),
        Service::Reload => read("EventFilterOptions", &[]).map(|_| Ok(Task::Reload)),
        Service::Kick | Service::LameDuck => {
            let (name, task): (_, fn(u64) -> Task) = match message.service {
                Service::Kick => ("KickClientReq", Task::Kick),
                _ => ("LDMClientReq", Task::LameDuck),
            };
            // Unlike everywhere else the reference demands a body here, and says only in the log what is wrong with it.
            if message.body.is_empty() {
                return complain("kick client", "unexpected end of JSON input");
            }
            match OptionsRead::read(message.body, name, &CID) {
                Err(error) => return complain("kick client", &error),
                Ok(options) if !options.are_for(server) => return Asked::Silence,
                Ok(options) => Ok(Ok(task(options.unsigned("cid")))),
            }
        }
    };
    match task {
        Ok(Ok(task)) => Asked::Task(Box::new(task)),
        Ok(Err(answer)) => failed(&answer),
        Err(asked) => asked,
    }
}

fn complain(what: &str, error: &str) -> Asked {
    Asked::Complaint(format!("SYSTEM - Error unmarshalling {what} request: {error}"))
}

/// What the monitoring says of a mistake, which over HTTP is the answer.
pub fn failed(answer: &Answer) -> Asked {
    let text = String::from_utf8_lossy(&answer.body);
    // This is no mistake there, but says that another server is to answer.
    if text.starts_with("filtered response") {
        return Asked::Silence;
    }
    Asked::Failure(Failure::no_data(text))
}

fn understand_zed(
    zed: Zed,
    read: impl Fn(&str, &[Field]) -> Result<OptionsRead, Asked>,
) -> Result<Result<Task, Answer>, Asked> {
    let known = |json: &[u8]| Ok(Task::Known(Data::Json(json.to_vec())));
    let monitor = |request| Ok(Task::Monitor(request));
    Ok(match zed {
        Zed::Varz => read("VarzEventOptions", &[]).map(|_| monitor(Request::Varz))?,
        Zed::Subsz => subscriptions(&read("SubszEventOptions", &SUBSZ)?, None),
        Zed::Connz => connections(&read("ConnzEventOptions", &CONNZ)?, None),
        Zed::Routez => {
            let options = read("RoutezEventOptions", &ROUTEZ)?;
            let subscriptions = match (options.is_on("subscriptions_detail"), options.is_on("subscriptions"))
            {
                (true, _) => Subscriptions::Detail,
                (false, true) => Subscriptions::Subjects,
                (false, false) => Subscriptions::No,
            };
            monitor(Request::Routez(subscriptions))
        }
        Zed::Gatewayz => read("GatewayzEventOptions", &GATEWAYZ).map(|_| monitor(Request::Gatewayz))?,
        Zed::Leafz => read("LeafzEventOptions", &LEAFZ).map(|_| monitor(Request::Leafz))?,
        Zed::Accountz => {
            let options = read("AccountzEventOptions", &ACCOUNTZ)?;
            let account = options.text("account");
            let account = (!account.is_empty()).then(|| account.to_owned());
            monitor(Request::Accountz(accountz::Query { account }))
        }
        Zed::Jsz => {
            let options = read("JszEventOptions", &JSZ.map(|(field, _)| field))?;
            let names = JSZ.iter().map(|((field, _), name)| (*field, *name));
            jsz::Query::parse(&parameters(&options, names)).map(|query| Task::Monitor(Request::Jsz(query)))
        }
        Zed::Healthz => {
            let options = read("HealthzEventOptions", &HEALTHZ)?;
            let names = HEALTHZ.iter().map(|(field, _)| (*field, *field));
            healthz::Query::parse(&parameters(&options, names))
                .map(|query| Task::Monitor(Request::Healthz(query.with_code())))
        }
        Zed::Profilez => {
            let options = read("ProfilezEventOptions", &PROFILEZ)?;
            let error = match options.text("name") {
                "" => "Profile name not specified".to_owned(),
                name => format!("Profile {name:?} not found"),
            };
            known(serde_json::json!({ "profile": null, "error": error }).to_string().as_bytes())
        }
        Zed::Expvarz => read("ExpvarzEventOptions", &[]).map(|_| monitor(Request::Vars))?,
        Zed::Ipqueuesz => read("IpqueueszEventOptions", &IPQUEUESZ).map(|_| monitor(Request::Ipqueuesz))?,
        // Over HTTP this is an error.
        Zed::Raftz => read("RaftzEventOptions", &RAFTZ).map(|_| known(b"{}"))?,
    })
}

fn understand_of_account(
    what: OfAccount,
    message: Message<'_>,
    read: impl Fn(&str, &[Field]) -> Result<OptionsRead, Asked>,
) -> Result<Result<Task, Answer>, Asked> {
    let account = tokens(message.subject).nth(3).unwrap_or_default();
    let account = String::from_utf8_lossy(account).into_owned();
    Ok(match what {
        OfAccount::Subsz => subscriptions(&read("SubszEventOptions", &SUBSZ)?, Some(&account)),
        OfAccount::Connz => connections(&read("ConnzEventOptions", &CONNZ)?, Some(&account)),
        OfAccount::Leafz => read("LeafzEventOptions", &LEAFZ).map(|_| Ok(Task::Monitor(Request::Leafz)))?,
        OfAccount::Jsz => {
            let options = read("JszEventOptions", &JSZ.map(|(field, _)| field))?;
            let names = JSZ.iter().map(|((field, _), name)| (*field, *name));
            let query = jsz::Query::parse(&parameters(&options, names));
            query.map(|query| Task::StreamsOfAccount(query.of_account(account)))
        }
        OfAccount::Info => read("AccInfoEventOptions", &[]).map(|_| Ok(Task::AccountInfo(account)))?,
        OfAccount::Statz => {
            let options = read("AccountStatzEventOptions", &ACCSTATZ)?;
            if account == PING {
                return Err(Asked::Silence);
            }
            Ok(traffic(&options, Some(account)))
        }
        OfAccount::Conns => return connections_of(message.body, account),
    })
}

/// What servers ask each other: a body names the account once more.
fn connections_of(body: &[u8], account: String) -> Result<Result<Task, Answer>, Asked> {
    let options = OptionsRead::read(body, "accNumConnsReq", &[("acc", Kind::Text)]).map_err(|error| {
        Asked::Complaint(format!("SYSTEM - Error unmarshalling account connections request message: {error}"))
    })?;
    if !options.text("acc").is_empty() && options.text("acc") != account {
        let text = "SYSTEM - Error unmarshalled account does not match subject";
        return Err(Asked::Complaint(text.to_owned()));
    }
    Ok(Ok(Task::AccountConnections(account)))
}

fn parameters<'a>(options: &OptionsRead, names: impl Iterator<Item = (&'a str, &'a str)>) -> Parameters {
    names.filter_map(|(field, name)| Some((name.to_owned(), options.shown(field)?))).collect()
}

fn connections(options: &OptionsRead, account: Option<&str>) -> Result<Task, Answer> {
    let same = ["sort", "auth", "offset", "limit", "cid", "mqtt_client", "user"].map(|name| (name, name));
    let mut pairs: Vec<(String, String)> =
        same.into_iter().filter_map(|(field, name)| Some((name.to_owned(), options.shown(field)?))).collect();
    let account = account.map_or_else(|| options.text("acc").to_owned(), str::to_owned);
    let subscriptions = if options.is_on("subscriptions_detail") {
        "detail"
    } else if options.is_on("subscriptions") {
        "1"
    } else {
        ""
    };
    let state = match options.shown("state").as_deref() {
        None | Some("0") => "open".to_owned(),
        Some("1") => "closed".to_owned(),
        Some("2") => "all".to_owned(),
        Some(other) => other.to_owned(),
    };
    pairs.push(("acc".to_owned(), account.clone()));
    pairs.push(("subs".to_owned(), subscriptions.to_owned()));
    pairs.push(("state".to_owned(), state));
    let query = connz::Query::parse(&pairs.into_iter().collect())?;
    let reached = options.text("filter_subject");
    let query = match reached {
        "" | ">" => query,
        _ if account.is_empty() => {
            return Err(Answer::bad_request("filter by subject only valid with account filtering"));
        }
        reached => query.subscribed_to(reached.as_bytes()),
    };
    Ok(Task::Monitor(Request::Connz(query)))
}

fn subscriptions(options: &OptionsRead, account: Option<&str>) -> Result<Task, Answer> {
    let lists = account.is_some() || options.is_on("subscriptions");
    let account = account.map_or_else(|| options.text("account").to_owned(), str::to_owned);
    let mut pairs = vec![("subs".to_owned(), lists.to_string()), ("acc".to_owned(), account)];
    for name in ["offset", "limit", "test"] {
        pairs.extend(options.shown(name).map(|value| (name.to_owned(), value)));
    }
    let query = subsz::Query::parse(&pairs.into_iter().collect())?;
    Ok(Task::Monitor(Request::Subsz(query)))
}

fn traffic(options: &OptionsRead, account: Option<String>) -> Task {
    let accounts: Vec<String> = match account {
        Some(account) => vec![account],
        None => options.texts("accounts").map(str::to_owned).collect(),
    };
    let only = (!accounts.is_empty()).then_some(accounts);
    Task::AccountTraffic(accountz::Selection { only, unused: options.is_on("include_unused") })
}

fn subscribers(body: &[u8]) -> Subscribers {
    let mut words = body.trim_ascii().split(|byte| *byte == b' ');
    let subject = words.next().unwrap_or_default().to_vec();
    Subscribers { account: None, subject, queue: words.next().map(<[u8]>::to_vec) }
}

fn subscribers_of(body: &[u8]) -> Asked {
    if body.is_empty() {
        return Asked::Complaint("SYSTEM - request requires a body".to_owned());
    }
    let options = match OptionsRead::read(body, "accNumSubsReq", &SUBSCRIBERS) {
        Ok(options) => options,
        Err(error) => return complain_of_subscribers(&error),
    };
    let queue = match options.shown("queue").map(|queue| BASE64.decode(queue.as_bytes())).transpose() {
        Ok(queue) => queue,
        Err(error) => return complain_of_subscribers(&error.to_string()),
    };
    Asked::Task(Box::new(Task::Subscribers(Subscribers {
        account: Some(options.text("acc").to_owned()),
        subject: options.text("subject").as_bytes().to_vec(),
        queue,
    })))
}

fn complain_of_subscribers(error: &str) -> Asked {
    Asked::Complaint(format!("SYSTEM - Error unmarshalling account nsubs request message: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: ServerFacts<'_> = ServerFacts { name: "s", host: "h", domain: "", tags: &[] };

    fn ask(service: Service, subject: &str, body: &str) -> Asked {
        let message = Message { service, subject: subject.as_bytes(), account: "A", body: body.as_bytes() };
        understand(message, SERVER)
    }

    fn task(service: Service, subject: &str, body: &str) -> Option<Task> {
        match ask(service, subject, body) {
            Asked::Task(task) => Some(*task),
            _ => None,
        }
    }

    fn shown(asked: &Asked) -> String {
        format!("{asked:?}")
    }

    #[test]
    fn filters_silence_and_mistakes_are_answered() {
        let varz = Service::Zed(Zed::Varz);
        assert!(matches!(task(varz, "", ""), Some(Task::Monitor(Request::Varz))));
        assert!(matches!(ask(varz, "", r#"{"server_name":"x"}"#), Asked::Silence));
        let Asked::Failure(failure) = ask(varz, "", "{") else { panic!() };
        assert_eq!(failure, Failure::unreadable("unexpected end of JSON input".to_owned()));
        let Asked::Failure(failure) = ask(Service::Zed(Zed::Connz), "", r#"{"sort":"x"}"#) else { panic!() };
        assert_eq!(failure, Failure::no_data("invalid sorting option: x"));
        assert!(matches!(ask(Service::Zed(Zed::Jsz), "", r#"{"leader_only":true}"#), Asked::Task(_)));
    }

    #[test]
    fn an_account_is_the_one_of_the_subject_or_the_one_that_asks() {
        let subject = "$SYS.REQ.ACCOUNT.B.INFO";
        let asked = task(Service::OfAccount(OfAccount::Info), subject, "");
        assert!(matches!(&asked, Some(Task::AccountInfo(name)) if name == "B"), "{asked:?}");
        let own = shown(&ask(Service::OwnConnections, "x", r#"{"acc":"B","user":"u"}"#));
        assert!(own.contains("account: Some(\"A\")") && own.contains("user: Some(\"u\")"), "{own}");
        let of_another =
            ask(Service::OfAccount(OfAccount::Conns), "$SYS.REQ.ACCOUNT.B.CONNS", r#"{"acc":"C"}"#);
        assert!(matches!(of_another, Asked::Complaint(_)));
        let pinged = ask(Service::OfAccount(OfAccount::Statz), "$SYS.REQ.ACCOUNT.PING.STATZ", "");
        assert!(matches!(pinged, Asked::Silence), "it has another answer");
    }

    #[test]
    fn connections_by_subject_are_told_of_one_account_only() {
        let Asked::Failure(failure) = ask(Service::Zed(Zed::Connz), "", r#"{"filter_subject":"a"}"#) else {
            panic!()
        };
        assert_eq!(failure.description, "filter by subject only valid with account filtering");
        assert!(matches!(ask(Service::OwnConnections, "", r#"{"filter_subject":"a"}"#), Asked::Task(_)));
    }

    #[test]
    fn a_kick_needs_a_body() {
        assert!(matches!(ask(Service::Kick, "", ""), Asked::Complaint(_)));
        assert!(matches!(task(Service::Kick, "", "{\"cid\":5}"), Some(Task::Kick(5))));
        assert!(matches!(task(Service::LameDuck, "", "{\"cid\":6}"), Some(Task::LameDuck(6))));
        assert!(matches!(ask(Service::Kick, "", "{\"cid\":5,\"host\":\"x\"}"), Asked::Silence));
    }

    #[test]
    fn subscribers_are_those_of_a_subject_and_perhaps_a_group() {
        let count = |service, body| match task(service, "", body) {
            Some(Task::Subscribers(subscribers)) => subscribers,
            other => panic!("{other:?}"),
        };
        let plain = count(Service::Subscribers, " a.b ");
        assert_eq!((plain.account, &plain.subject[..], plain.queue), (None, &b"a.b"[..], None));
        assert_eq!(count(Service::Subscribers, "a.b q").queue.as_deref(), Some(&b"q"[..]));
        let of = count(Service::SubscribersOf, r#"{"acc":"A","subject":"a","queue":"cQ=="}"#);
        assert_eq!((of.account.as_deref(), of.queue.as_deref()), (Some("A"), Some(&b"q"[..])));
        assert!(matches!(ask(Service::SubscribersOf, "", ""), Asked::Complaint(_)));
    }
}
