//! Who may ask: everybody who can reach the port, as in the reference, or who shows a password or a token
//! (`monitor.authorization`).
//!
//! A token is shown as `Authorization: Bearer TOKEN`, or as the password of any user, for browsers ask people for those and
//! for nothing else. As for clients, a bcrypt hash takes too long to be compared with here: that is work for a thread.
//!
//! Probes of an orchestrator and load balancers have no password: whether the server is well is told to everybody, in one
//! word, unless `monitor.authorization.healthz` says otherwise.

use data_encoding::BASE64;

use super::answer::{Answer, Kind};
use super::json;
use super::parameters::Parameters;
use crate::auth::HashCheck;
use crate::auth::secret::{Comparison, Secret, digest, same};
use crate::config::MonitorAccess;

/// Whether a request may be answered.
#[derive(Debug)]
pub enum Decision {
    /// It may, or not.
    Known(bool),
    /// It may if this succeeds, and if the rest was right: both take equally long, so that the time does not tell which
    /// users there are.
    Takes(HashCheck, bool),
}

/// The rule, compiled from the configuration.
#[derive(Debug)]
pub struct Access(Rule);

#[derive(Debug)]
enum Rule {
    Everybody,
    User { user: [u8; 32], password: Secret },
    Token(Secret),
}

impl Access {
    /// As configured.
    pub fn new(configured: &MonitorAccess) -> Access {
        Access(match configured {
            MonitorAccess::Everybody => Rule::Everybody,
            MonitorAccess::User { user, password } => {
                Rule::User { user: digest(user), password: Secret::new(password) }
            }
            MonitorAccess::Token(token) => Rule::Token(Secret::new(token)),
        })
    }

    /// Whether a request with this `Authorization` may be answered.
    pub fn decide(&self, authorization: Option<&str>) -> Decision {
        let (shown, secret, is_user) = match &self.0 {
            Rule::Everybody => return Decision::Known(true),
            Rule::User { user, password } => match authorization.and_then(basic) {
                Some((named, shown)) => (Some(shown), password, same(user, &digest(&named))),
                None => (None, password, false),
            },
            Rule::Token(token) => {
                let bearer = |text| behind_scheme(text, "Bearer").map(str::to_owned);
                let shown = authorization.and_then(|text| bearer(text).or_else(|| Some(basic(text)?.1)));
                (shown, token, true)
            }
        };
        match shown.map(|shown| secret.compare(shown)) {
            None => Decision::Known(false),
            Some(Comparison::Known(is_secret)) => Decision::Known(is_secret & is_user),
            Some(Comparison::Takes(check)) => Decision::Takes(check, is_user),
        }
    }

    /// The answer to who may not.
    pub fn refusal(&self) -> Answer {
        let challenge = match &self.0 {
            Rule::Token(_) => "Basic realm=\"monitoring\", charset=\"UTF-8\", Bearer realm=\"monitoring\"",
            Rule::Everybody | Rule::User { .. } => "Basic realm=\"monitoring\", charset=\"UTF-8\"",
        };
        Answer {
            status: 401,
            kind: Kind::Unauthorized { challenge },
            body: b"authorization required\n".to_vec(),
        }
    }
}

/// Whether a request asks for nothing but whether the server is well: not how an account, a stream or a consumer is, and
/// not what is wrong.
pub fn asks_for_health_alone(base: &str, path: &str, query: &str) -> bool {
    let parameters = Parameters::parse(query);
    path.strip_prefix(base) == Some("/healthz")
        && ["account", "stream", "consumer", "details"].iter().all(|name| parameters.text(name).is_empty())
}

/// What of an answer about health is for everybody: its status, in one word.
pub fn health_in_a_word(answer: Answer) -> Answer {
    let word = match answer.status {
        200 => "ok",
        503 => "unavailable",
        _ => "error",
    };
    Answer { body: json::compact(&serde_json::json!({ "status": word })), kind: Kind::Json, ..answer }
}

/// User and password of the scheme of that name.
fn basic(authorization: &str) -> Option<(String, String)> {
    let bytes = BASE64.decode(behind_scheme(authorization, "Basic")?.as_bytes()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// What follows the name of a scheme, which may be in any case.
fn behind_scheme<'a>(authorization: &'a str, scheme: &str) -> Option<&'a str> {
    let (named, rest) = authorization.trim().split_once(' ')?;
    named.eq_ignore_ascii_case(scheme).then(|| rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Password;

    /// `secret`, at the lowest cost.
    const HASH: &str = "$2a$04$.OC/.OC/.OC/.OC/.OC/.OhBAjqkJvp/E/NWAjQEaL1Z6bXG3uS3W";

    fn may(access: &MonitorAccess, authorization: Option<&str>) -> bool {
        match Access::new(access).decide(authorization) {
            Decision::Known(is_so) => is_so,
            Decision::Takes(check, rest_is_right) => check.verify() && rest_is_right,
        }
    }

    fn basic_of(text: &str) -> String {
        format!("Basic {}", BASE64.encode(text.as_bytes()))
    }

    #[test]
    fn everybody_may_ask_unless_something_is_configured() {
        for shown in [None, Some("Bearer x"), Some("nonsense")] {
            assert!(may(&MonitorAccess::Everybody, shown));
        }
    }

    #[test]
    fn a_user_shows_name_and_password() {
        for password in ["secret", HASH] {
            let access = MonitorAccess::User { user: "ops".into(), password: Password::new(password.into()) };
            assert!(may(&access, Some(&basic_of("ops:secret"))), "{password}");
            assert!(may(&access, Some(&basic_of("ops:secret").replace("Basic", "bAsIc "))), "{password}");
            for wrong in ["ops:", "ops:secre", "op:secret", ":secret", "ops", "OPS:secret", ""] {
                assert!(!may(&access, Some(&basic_of(wrong))), "{password} {wrong}");
            }
            for wrong in ["Bearer secret", "Basic", "Basic !", "secret", ""] {
                assert!(!may(&access, Some(wrong)), "{password} {wrong}");
            }
            assert!(!may(&access, None));
        }
    }

    #[test]
    fn a_token_is_shown_by_itself_or_as_a_password() {
        for token in ["secret", HASH] {
            let access = MonitorAccess::Token(Password::new(token.into()));
            assert!(may(&access, Some("Bearer secret")) && may(&access, Some(&basic_of("anybody:secret"))));
            assert!(!may(&access, Some("Bearer secre")) && !may(&access, Some("secret")));
            assert!(!may(&access, Some(&basic_of("secret:x"))) && !may(&access, None));
        }
    }

    #[test]
    fn health_alone_names_nothing_that_is_inside() {
        for (base, path, query, is_so) in [
            ("", "/healthz", "", true),
            ("/nats", "/nats/healthz", "js-enabled-only=true&x=1", true),
            ("/nats", "/healthz", "", false),
            ("", "/healthz/", "", false),
            ("", "//healthz", "", false),
            ("", "/varz", "", false),
            ("", "/healthz", "details=1", false),
            ("", "/healthz", "stream=S", false),
            ("", "/healthz", "js-server-only=1&account=A", false),
        ] {
            assert_eq!(asks_for_health_alone(base, path, query), is_so, "{path}?{query}");
        }
        let told = |status| {
            let body = b"{\"status\":\"x\",\"error\":\"stream 'A > S'\"}".to_vec();
            let answer = health_in_a_word(Answer { status, kind: Kind::Text, body });
            (answer.status, String::from_utf8(answer.body).unwrap())
        };
        assert_eq!(told(200), (200, "{\"status\":\"ok\"}".to_owned()));
        assert_eq!(told(503), (503, "{\"status\":\"unavailable\"}".to_owned()));
        assert_eq!(told(400), (400, "{\"status\":\"error\"}".to_owned()));
    }

    #[test]
    fn the_refusal_tells_what_may_be_shown() {
        let challenge = |access: &MonitorAccess| match Access::new(access).refusal().kind {
            Kind::Unauthorized { challenge } => challenge,
            other => panic!("{other:?}"),
        };
        let user = MonitorAccess::User { user: "u".into(), password: Password::new("p".into()) };
        assert!(!challenge(&user).contains("Bearer"));
        assert!(challenge(&MonitorAccess::Token(Password::new("t".into()))).contains("Bearer"));
    }
}
