//! `/debug/vars`: in the reference Go's `expvar`, the command line and the numbers of Go's allocator. Of the latter there
//! is one that means something here, the memory that the system has given. Passwords of the command line are not shown.

use serde::Serialize;

use super::answer::{Answer, Kind};
use super::json;
use super::readings::Snapshot;

/// Flags whose value nobody else is to see.
const SECRET_FLAGS: [&str; 2] = ["pass", "auth"];

/// The answer.
pub fn answer(snapshot: &Snapshot<'_>) -> Answer {
    let memory = Memory { sys: snapshot.process.memory_bytes };
    let mut body = b"{\n\"cmdline\": ".to_vec();
    body.extend(json::compact(&without_secrets(&snapshot.identity.command_line)));
    body.extend_from_slice(b",\n\"memstats\": ");
    body.extend(json::compact(&memory));
    body.extend_from_slice(b"\n}\n");
    Answer { status: 200, kind: Kind::Vars, body }
}

#[derive(Debug, Serialize)]
struct Memory {
    #[serde(rename = "Sys")]
    sys: u64,
}

fn without_secrets(words: &[String]) -> Vec<String> {
    let mut follows = false;
    let hide = |word: &String| {
        if std::mem::take(&mut follows) {
            return "[REDACTED]".to_owned();
        }
        let Some(flag) = word.strip_prefix('-') else { return word.clone() };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        match flag.split_once('=') {
            Some((name, _)) if SECRET_FLAGS.contains(&name) => {
                format!("{}=[REDACTED]", word.split('=').next().unwrap_or_default())
            }
            Some(_) => word.clone(),
            None => {
                follows = SECRET_FLAGS.contains(&flag);
                word.clone()
            }
        }
    };
    words.iter().map(hide).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_tokens_of_the_command_line_are_hidden() {
        let words =
            ["ringmain", "--user", "u", "--pass", "p", "-auth=t", "-p", "-1", "--pass=q"].map(String::from);
        assert_eq!(
            without_secrets(&words),
            [
                "ringmain",
                "--user",
                "u",
                "--pass",
                "[REDACTED]",
                "-auth=[REDACTED]",
                "-p",
                "-1",
                "--pass=[REDACTED]"
            ]
        );
    }
}
