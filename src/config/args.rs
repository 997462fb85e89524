//! The command line: flags in the syntax of Go's `flag` package, which no Rust argument parser speaks.
//!
//! One or two dashes mean the same; a value follows as the next word (also one with a dash: `-p -1`) or after `=`;
//! switches take a value only after `=`; flags end at the first word that is none, or at `--`.
//!
//! [`parse_args`] knows names and types. What the values mean together with a file is [`crate::config::load`]'s.

use thiserror::Error;

/// A command line, taken apart. `None` where a flag was not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the flags' documentation is the help text")]
pub struct Args {
    pub help: Option<bool>,
    pub help_tls: Option<bool>,
    pub version: Option<bool>,
    pub test: Option<bool>,
    pub signal: Option<String>,
    pub config: Option<String>,
    pub host: Option<String>,
    pub port: Option<i64>,
    pub server_name: Option<String>,
    pub workers: Option<i64>,
    pub io: Option<String>,
    pub pid_file: Option<String>,
    pub client_advertise: Option<String>,
    pub ports_file_dir: Option<String>,
    pub log_file: Option<String>,
    pub syslog: Option<bool>,
    pub remote_syslog: Option<String>,
    pub log_size_limit: Option<i64>,
    pub log_max_num: Option<i64>,
    pub logtime: Option<bool>,
    pub logtime_utc: Option<bool>,
    pub debug: Option<bool>,
    pub trace: Option<bool>,
    pub trace_verbose: Option<bool>,
    pub max_traced_msg_len: Option<i64>,
    pub http_port: Option<i64>,
    /// `-ms`, `--https_port`.
    pub https_port: Option<i64>,
    pub user: Option<String>,
    pub pass: Option<String>,
    pub auth: Option<String>,
    pub tls: Option<bool>,
    pub tls_verify: Option<bool>,
    pub tls_cert: Option<String>,
    pub tls_key: Option<String>,
    pub tls_ca_cert: Option<String>,
    pub jetstream: Option<bool>,
    pub store_dir: Option<String>,
    /// `--routes`.
    pub routes: Option<String>,
    /// `--cluster`, `--cluster_listen`.
    pub cluster: Option<String>,
    pub cluster_name: Option<String>,
    pub connect_retries: Option<i64>,
    pub cluster_advertise: Option<String>,
    pub no_advertise: Option<bool>,
    /// Flags of the reference that do nothing here yet, as written (`-profile`).
    pub not_supported: Vec<String>,
    /// What follows the flags.
    pub words: Vec<String>,
}

/// Why a command line cannot be read; the texts are those of Go's `flag`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the display of each is its documentation")]
pub enum ArgsError {
    #[error("flag provided but not defined: -{0}")]
    NotDefined(String),
    #[error("flag needs an argument: -{0}")]
    NeedsArgument(String),
    #[error("bad flag syntax: {0}")]
    BadSyntax(String),
    #[error("invalid boolean value {value:?} for -{name}: parse error")]
    Bool { name: String, value: String },
    #[error("invalid value {value:?} for flag -{name}: {reason}")]
    Integer { name: String, value: String, reason: &'static str },
}

/// Where the value of a flag goes.
#[derive(Clone, Copy)]
enum Target {
    Text(fn(&mut Args) -> &mut Option<String>),
    Integer(fn(&mut Args) -> &mut Option<i64>),
    Bool(fn(&mut Args) -> &mut Option<bool>),
    /// A switch that stands for several.
    Switches(fn(&mut Args, bool)),
    /// An integer that does nothing yet.
    NotYet,
}

/// Every flag of the reference, hidden ones too, and Ringmain's own.
const FLAGS: &[(&[&str], Target)] = &[
    (&["h", "help"], Target::Bool(|args| &mut args.help)),
    (&["help_tls"], Target::Bool(|args| &mut args.help_tls)),
    (&["v", "version"], Target::Bool(|args| &mut args.version)),
    (&["t"], Target::Bool(|args| &mut args.test)),
    (&["sl", "signal"], Target::Text(|args| &mut args.signal)),
    (&["c", "config"], Target::Text(|args| &mut args.config)),
    (&["a", "addr", "net"], Target::Text(|args| &mut args.host)),
    (&["p", "port"], Target::Integer(|args| &mut args.port)),
    (&["n", "name", "server_name"], Target::Text(|args| &mut args.server_name)),
    (&["workers"], Target::Integer(|args| &mut args.workers)),
    (&["io"], Target::Text(|args| &mut args.io)),
    (&["P", "pid"], Target::Text(|args| &mut args.pid_file)),
    (&["client_advertise"], Target::Text(|args| &mut args.client_advertise)),
    (&["ports_file_dir"], Target::Text(|args| &mut args.ports_file_dir)),
    (&["l", "log"], Target::Text(|args| &mut args.log_file)),
    (&["s", "syslog"], Target::Bool(|args| &mut args.syslog)),
    (&["r", "remote_syslog"], Target::Text(|args| &mut args.remote_syslog)),
    (&["log_size_limit"], Target::Integer(|args| &mut args.log_size_limit)),
    (&["log_max_num"], Target::Integer(|args| &mut args.log_max_num)),
    (&["T", "logtime"], Target::Bool(|args| &mut args.logtime)),
    (&["logtime_utc"], Target::Bool(|args| &mut args.logtime_utc)),
    (&["D", "debug"], Target::Bool(|args| &mut args.debug)),
    (&["V", "trace"], Target::Bool(|args| &mut args.trace)),
    (&["VV"], Target::Switches(|args, on| (args.trace, args.trace_verbose) = (Some(on), Some(on)))),
    (&["DV"], Target::Switches(|args, on| (args.debug, args.trace) = (Some(on), Some(on)))),
    (
        &["DVV"],
        Target::Switches(|args, on| {
            (args.debug, args.trace, args.trace_verbose) = (Some(on), Some(on), Some(on))
        }),
    ),
    (&["max_traced_msg_len"], Target::Integer(|args| &mut args.max_traced_msg_len)),
    (&["m", "http_port"], Target::Integer(|args| &mut args.http_port)),
    (&["ms", "https_port"], Target::Integer(|args| &mut args.https_port)),
    (&["user"], Target::Text(|args| &mut args.user)),
    (&["pass"], Target::Text(|args| &mut args.pass)),
    (&["auth"], Target::Text(|args| &mut args.auth)),
    (&["js", "jetstream"], Target::Bool(|args| &mut args.jetstream)),
    (&["sd", "store_dir"], Target::Text(|args| &mut args.store_dir)),
    (&["routes"], Target::Text(|args| &mut args.routes)),
    (&["cluster", "cluster_listen"], Target::Text(|args| &mut args.cluster)),
    (&["cluster_name"], Target::Text(|args| &mut args.cluster_name)),
    (&["no_advertise"], Target::Bool(|args| &mut args.no_advertise)),
    (&["cluster_advertise"], Target::Text(|args| &mut args.cluster_advertise)),
    (&["connect_retries"], Target::Integer(|args| &mut args.connect_retries)),
    (&["profile"], Target::NotYet),
    (&["tls"], Target::Bool(|args| &mut args.tls)),
    (&["tlsverify"], Target::Bool(|args| &mut args.tls_verify)),
    (&["tlscert"], Target::Text(|args| &mut args.tls_cert)),
    (&["tlskey"], Target::Text(|args| &mut args.tls_key)),
    (&["tlscacert"], Target::Text(|args| &mut args.tls_ca_cert)),
];

/// Takes apart the words after the program's name.
pub fn parse_args(words: &[String]) -> Result<Args, ArgsError> {
    let mut args = Args::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            args.words.push(word.clone());
            break;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        if flag.is_empty() {
            break;
        }
        if flag.starts_with(['-', '=']) {
            return Err(ArgsError::BadSyntax(word.clone()));
        }
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        let target = FLAGS.iter().find(|(names, _)| names.contains(&name)).map(|(_, target)| *target);
        let target = target.ok_or_else(|| ArgsError::NotDefined(name.to_owned()))?;
        let as_written = &word[..word.len() - value.map_or(0, |value| value.len() + 1)];
        let mut next_value = || match value {
            Some(value) => Ok(value.to_owned()),
            None => words.next().cloned().ok_or_else(|| ArgsError::NeedsArgument(name.to_owned())),
        };
        let switch = || value.map_or(Ok(true), |value| boolean(name, value));
        match target {
            Target::Text(field) => *field(&mut args) = Some(next_value()?),
            Target::Integer(field) => *field(&mut args) = Some(integer(name, &next_value()?)?),
            Target::Bool(field) => *field(&mut args) = Some(switch()?),
            Target::Switches(set) => set(&mut args, switch()?),
            Target::NotYet => {
                if integer(name, &next_value()?)? != 0 {
                    args.not_supported.push(as_written.to_owned());
                }
            }
        }
    }
    args.words.extend(words.cloned());
    Ok(args)
}

/// For the test that the help is complete.
#[cfg(test)]
pub(super) fn flag_names() -> impl Iterator<Item = &'static str> {
    FLAGS.iter().flat_map(|(names, _)| names.iter().copied())
}

fn boolean(name: &str, value: &str) -> Result<bool, ArgsError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ArgsError::Bool { name: name.to_owned(), value: value.to_owned() }),
    }
}

fn integer(name: &str, value: &str) -> Result<i64, ArgsError> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    value.parse().map_err(|error: std::num::ParseIntError| ArgsError::Integer {
        name: name.to_owned(),
        value: value.to_owned(),
        reason: match error.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "parse error",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, ArgsError> {
        parse_args(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn names_stand_once() {
        let names: Vec<&str> = flag_names().collect();
        for (index, name) in names.iter().enumerate() {
            assert!(!names[index + 1..].contains(name), "{name} stands twice");
        }
    }

    #[test]
    fn one_dash_two_dashes_and_equal_signs_mean_the_same() {
        let expected = Args { port: Some(4333), host: Some("::1".into()), ..Args::default() };
        for line in ["-p 4333 -a ::1", "--port 4333 --addr ::1", "-port=4333 -net=::1", "--p=4333 --net ::1"]
        {
            assert_eq!(parse(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn a_value_may_begin_with_a_dash() {
        assert_eq!(parse("-p -1").unwrap().port, Some(-1));
        assert_eq!(parse("--port -1 -D").unwrap().debug, Some(true));
        assert_eq!(
            parse("-a -p 3").unwrap(),
            Args { host: Some("-p".into()), words: vec!["3".into()], ..Args::default() }
        );
    }

    #[test]
    fn switches_take_a_value_only_after_an_equal_sign() {
        assert_eq!(
            parse("-D=false -T=0").unwrap(),
            Args { debug: Some(false), logtime: Some(false), ..Args::default() }
        );
        assert_eq!(parse("-T false").unwrap().words, ["false"]);
        let all = parse("-DVV").unwrap();
        assert_eq!((all.debug, all.trace, all.trace_verbose), (Some(true), Some(true), Some(true)));
    }

    #[test]
    fn flags_end_at_the_first_word() {
        assert_eq!(parse("-D help -x").unwrap().words, ["help", "-x"]);
        assert_eq!(parse("-- -D").unwrap(), Args { words: vec!["-D".into()], ..Args::default() });
        assert_eq!(parse("-").unwrap().words, ["-"]);
    }

    #[test]
    fn flags_without_implementation_are_kept_as_written() {
        let args = parse("--profile=8222 --tls --tlscert c -ms 0").unwrap();
        assert_eq!(args.not_supported, ["--profile"]);
        assert_eq!((args.tls, args.tls_cert.as_deref()), (Some(true), Some("c")));
    }

    /// Texts seen on nats-server 2.15.1.
    #[test]
    fn errors_are_worded_as_the_reference_words_them() {
        for (line, error) in [
            ("-x", "flag provided but not defined: -x"),
            ("--x=3", "flag provided but not defined: -x"),
            ("-p", "flag needs an argument: -p"),
            ("-p abc", "invalid value \"abc\" for flag -p: parse error"),
            (
                "-p 99999999999999999999",
                "invalid value \"99999999999999999999\" for flag -p: value out of range",
            ),
            ("-D=maybe", "invalid boolean value \"maybe\" for -D: parse error"),
            ("---x", "bad flag syntax: ---x"),
            ("-=3", "bad flag syntax: -=3"),
        ] {
            assert_eq!(parse(line).unwrap_err().to_string(), error, "{line}");
        }
    }
}
