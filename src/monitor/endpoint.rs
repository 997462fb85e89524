//! From a path and a query to what is asked for.

use super::answer::Answer;
use super::parameters::{Parameters, Subscriptions};
use super::{accountz, connz, consumerz, healthz, jsz, streamz, subsz};

/// What is asked for, with everything that was said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the path of that name")]
pub enum Request {
    Root,
    Dashboard,
    Links,
    Varz,
    Connz(connz::Query),
    Routez(Subscriptions),
    Gatewayz,
    Leafz,
    Subsz(subsz::Query),
    Accountz(accountz::Query),
    Accstatz(accountz::Selection),
    Jsz(jsz::Query),
    Streamz(streamz::Query),
    Consumerz(consumerz::Query),
    Healthz(healthz::Query),
    Ipqueuesz,
    Raftz,
    Vars,
    Metrics,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    /// The name under which it counts in `http_req_stats`, if it does.
    pub counts_as: Option<&'static str>,
    /// What is asked for, or what is wrong with that.
    pub request: Result<Request, Answer>,
}

/// Finds out what is asked for. `base` is what all paths begin with.
pub fn route(base: &str, path: &str, query: &str) -> Routed {
    let uncounted = |request| Routed { counts_as: None, request };
    let clean = clean(path);
    if clean != path {
        let to = if query.is_empty() { clean } else { format!("{clean}?{query}") };
        return uncounted(Err(Answer::redirect(to)));
    }
    let Some(name) = path.strip_prefix(base) else { return uncounted(Err(Answer::not_found())) };
    let parameters = Parameters::parse(query);
    let counted = |counts_as, request| Routed { counts_as: Some(counts_as), request };
    match name {
        "" if !base.is_empty() => counted("/", Ok(Request::Root)),
        "/" if base.is_empty() => counted("/", Ok(Request::Root)),
        "/dashboard" => uncounted(Ok(Request::Dashboard)),
        "/links" => uncounted(Ok(Request::Links)),
        "/varz" => counted("/varz", Ok(Request::Varz)),
        // These two are counted when their parameters make sense, the others whatever those are; as in the reference.
        "/connz" => match connz::Query::parse(&parameters) {
            Ok(query) => counted("/connz", Ok(Request::Connz(query))),
            Err(answer) => uncounted(Err(answer)),
        },
        "/routez" => match parameters.subscriptions() {
            Ok(subscriptions) => counted("/routez", Ok(Request::Routez(subscriptions))),
            Err(answer) => uncounted(Err(answer)),
        },
        "/gatewayz" => {
            let checked = parameters.subscriptions().and_then(|_| parameters.boolean("accs"));
            counted("/gatewayz", checked.map(|_| Request::Gatewayz))
        }
        "/leafz" => counted("/leafz", parameters.boolean("subs").map(|_| Request::Leafz)),
        "/subsz" | "/subscriptionsz" => {
            counted("/subsz", subsz::Query::parse(&parameters).map(Request::Subsz))
        }
        "/accountz" => counted("/accountz", Ok(Request::Accountz(accountz::Query::parse(&parameters)))),
        "/accstatz" => counted("/accstatz", accountz::Selection::parse(&parameters).map(Request::Accstatz)),
        "/jsz" => counted("/jsz", jsz::Query::parse(&parameters).map(Request::Jsz)),
        "/streamz" => counted("/streamz", streamz::Query::parse(&parameters).map(Request::Streamz)),
        "/consumerz" => counted("/consumerz", consumerz::Query::parse(&parameters).map(Request::Consumerz)),
        "/healthz" => counted("/healthz", healthz::Query::parse(&parameters).map(Request::Healthz)),
        "/ipqueuesz" => uncounted(parameters.boolean("all").map(|_| Request::Ipqueuesz)),
        "/raftz" => uncounted(Ok(Request::Raftz)),
        "/debug/vars" => uncounted(Ok(Request::Vars)),
        "/metrics" => counted("/metrics", Ok(Request::Metrics)),
        _ => uncounted(Err(Answer::not_found())),
    }
}

/// The shortest path to the same thing: no empty parts, no `.`, no `..`.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut clean = format!("/{}", parts.join("/"));
    if clean != "/" && path.ends_with('/') {
        clean.push('/');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(base: &str, path: &str) -> u16 {
        match route(base, path, "").request {
            Ok(_) => 200,
            Err(answer) => answer.status,
        }
    }

    #[test]
    fn paths_lead_somewhere_or_are_not_found() {
        for path in [
            "/",
            "/dashboard",
            "/links",
            "/varz",
            "/subscriptionsz",
            "/streamz",
            "/consumerz",
            "/debug/vars",
            "/metrics",
        ] {
            assert_eq!(status("", path), 200, "{path}");
        }
        for path in ["/varz/", "/nope", "/VARZ", "/debug", "/varzz"] {
            assert_eq!(status("", path), 404, "{path}");
        }
        for (path, expected) in
            [("/foo", 200), ("/foo/", 404), ("/", 404), ("/varz", 404), ("/foo/varz", 200), ("/foovarz", 404)]
        {
            assert_eq!(status("/foo", path), expected, "{path}");
        }
    }

    #[test]
    fn paths_that_could_be_shorter_are_told_so() {
        for (path, short) in [
            ("//varz", "/varz"),
            ("/a/../varz", "/varz"),
            ("/./varz", "/varz"),
            ("//", "/"),
            ("/varz//", "/varz/"),
            ("/../..", "/"),
        ] {
            let answer = route("", path, "a=b").request.unwrap_err();
            assert_eq!(answer, Answer::redirect(format!("{short}?a=b")), "{path}");
        }
    }

    #[test]
    fn a_mistake_in_the_parameters_is_the_answer() {
        let routed = route("", "/connz", "limit=x");
        assert_eq!(routed.counts_as, None);
        assert_eq!(routed.request.unwrap_err().status, 400);
        let routed = route("", "/leafz", "subs=x");
        assert_eq!(routed.counts_as, Some("/leafz"));
        assert_eq!(routed.request.unwrap_err().status, 400);
    }
}
