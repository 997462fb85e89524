//! The command line: one table of commands, one of flags, and the help text made from both.
//! Knows nothing of what the commands do.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Publish,
    Fanout,
    Pairs,
    Request,
    Idle,
    Subs,
    Churn,
    Latency,
    JsPublish,
    JsSubjects,
    JsConsume,
    JsReplay,
    JsFiltered,
    JsConsumers,
    JsKv,
    JsKeys,
    JsWork,
    JsRestart,
    Compare,
}

/// What is done with a key-value bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvOperation {
    Put,
    Get,
}

/// Every setting of every command, with that command's defaults.
#[derive(Debug, Clone)]
pub struct Options {
    pub command: Command,
    pub server: String,
    /// Encrypt the connections to it.
    pub tls: bool,
    pub server_pid: Option<u32>,
    pub user: Option<String>,
    pub pass: Option<String>,
    pub token: Option<String>,
    pub subscriber_user: Option<String>,
    pub size: usize,
    pub publishers: usize,
    pub subscribers: usize,
    pub pairs: usize,
    pub subjects: usize,
    pub exact: bool,
    pub websocket: bool,
    pub connections: usize,
    pub responders: usize,
    pub duration: Duration,
    pub messages: Option<u64>,
    pub warmup: Duration,
    pub settle: Duration,
    pub rate: Option<f64>,
    pub burst: Option<u64>,
    pub batch: usize,
    pub in_flight: u64,
    pub unacked: usize,
    pub streams: usize,
    pub storage: String,
    pub fetch: usize,
    pub every: u64,
    pub consumers: usize,
    pub workers: usize,
    pub dying: usize,
    pub operation: KvOperation,
    /// What `js-restart` starts.
    pub program: Option<PathBuf>,
    /// Where servers that this tool starts keep their streams.
    pub store: PathBuf,
    pub json: bool,
    pub quiet: bool,
    pub reference: Option<PathBuf>,
    pub candidate: Option<PathBuf>,
    pub rounds: usize,
    pub out: Option<PathBuf>,
    pub json_out: Option<PathBuf>,
    pub quick: bool,
    pub only: Vec<String>,
}

impl Options {
    pub fn for_command(command: Command) -> Options {
        Options {
            command,
            server: "127.0.0.1:4222".to_owned(),
            tls: false,
            server_pid: None,
            user: None,
            pass: None,
            token: None,
            subscriber_user: None,
            size: if matches!(command, Command::Publish | Command::Request) { 16 } else { 128 },
            publishers: 1,
            subscribers: if command == Command::Fanout { 10 } else { 1 },
            pairs: 4,
            subjects: match command {
                Command::Pairs => 1_000,
                Command::Subs | Command::JsSubjects | Command::JsKeys => 100_000,
                Command::JsKv => 1_000,
                _ => 1,
            },
            exact: false,
            websocket: false,
            connections: match command {
                Command::Idle => 5_000,
                Command::JsKv => 1,
                _ => 50,
            },
            responders: 1,
            duration: Duration::from_secs(5),
            messages: None,
            warmup: Duration::from_millis(300),
            settle: Duration::from_secs(1),
            rate: match command {
                Command::Churn => Some(100_000.0),
                Command::Latency => Some(100_000.0),
                _ => None,
            },
            burst: None,
            batch: 128 * 1024,
            in_flight: 32 * 1024 * 1024,
            unacked: if command == Command::JsKv { 1 } else { 1_000 },
            streams: 1,
            storage: "file".to_owned(),
            fetch: if command == Command::JsWork { 50 } else { 500 },
            every: 100_000,
            consumers: 10_000,
            workers: 20,
            dying: 5,
            operation: KvOperation::Get,
            program: None,
            store: std::env::temp_dir(),
            json: false,
            quiet: false,
            reference: None,
            candidate: None,
            rounds: 3,
            out: None,
            json_out: None,
            quick: false,
            only: Vec::new(),
        }
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    Run(Box<Options>),
    Print(String),
}

const COMMANDS: &[(&str, Command, &str, &str)] = &[
    (
        "publish",
        Command::Publish,
        "publish to subjects that nobody listens to",
        "server server-pid user pass token ws size publishers subjects duration messages warmup rate batch json quiet",
    ),
    (
        "fanout",
        Command::Fanout,
        "one publisher, N subscribers (1 to N); figures are per delivery",
        "server server-pid user pass token ws subscriber-user size subscribers subjects exact duration messages warmup rate batch in-flight json quiet",
    ),
    (
        "pairs",
        Command::Pairs,
        "N publishers, each with its own subscriber, over many subjects",
        "server server-pid user pass token ws size pairs subjects exact duration messages warmup rate batch in-flight json quiet",
    ),
    (
        "request",
        Command::Request,
        "request/reply from N connections, one request in flight on each",
        "server server-pid user pass token size connections responders duration messages warmup rate json quiet",
    ),
    (
        "idle",
        Command::Idle,
        "open N connections with one subscription each, ping them all, report memory",
        "server server-pid user pass token connections settle json quiet",
    ),
    (
        "subs",
        Command::Subs,
        "many subscriptions on one connection: memory and time of each",
        "server server-pid user pass token subjects settle json quiet",
    ),
    (
        "churn",
        Command::Churn,
        "what SUB and UNSUB of inboxes on one connection cost an unrelated pair",
        "server server-pid user pass token size duration warmup rate batch in-flight json quiet",
    ),
    (
        "latency",
        Command::Latency,
        "latency at a fixed rate (open loop), corrected for coordinated omission",
        "server server-pid user pass token size subscribers duration warmup rate burst json quiet",
    ),
    (
        "js-publish",
        Command::JsPublish,
        "JetStream: publish with acknowledgements, N unacknowledged at a time per publisher",
        "server server-pid user pass token size publishers unacked streams subjects storage duration messages warmup json quiet",
    ),
    (
        "js-subjects",
        Command::JsSubjects,
        "JetStream: what many subjects in a stream cost a publisher, beside one",
        "server server-pid user pass token size publishers unacked subjects storage duration warmup json quiet",
    ),
    (
        "js-consume",
        Command::JsConsume,
        "JetStream: pull a stream in batches, acknowledging every message (500k messages)",
        "server server-pid user pass token size fetch storage messages json quiet",
    ),
    (
        "js-replay",
        Command::JsReplay,
        "JetStream: read a stream with an ordered consumer (1M messages)",
        "server server-pid user pass token size storage messages json quiet",
    ),
    (
        "js-filtered",
        Command::JsFiltered,
        "JetStream: time to the first message of a consumer that few messages match (of 5M)",
        "server server-pid user pass token size every storage messages json quiet",
    ),
    (
        "js-consumers",
        Command::JsConsumers,
        "JetStream: memory and CPU of many idle pull consumers on a stream",
        "server server-pid user pass token consumers storage duration settle json quiet",
    ),
    (
        "js-kv",
        Command::JsKv,
        "JetStream: put or get values of a key-value bucket",
        "server server-pid user pass token size op connections unacked subjects storage duration messages warmup json quiet",
    ),
    (
        "js-keys",
        Command::JsKeys,
        "JetStream: list the keys of a key-value bucket",
        "server server-pid user pass token size subjects storage json quiet",
    ),
    (
        "js-work",
        Command::JsWork,
        "JetStream: a work queue whose workers die, until every job is done (200k jobs)",
        "server server-pid user pass token size fetch workers dying storage messages json quiet",
    ),
    (
        "js-restart",
        Command::JsRestart,
        "JetStream: start a server, fill a stream, measure restarts (10M messages)",
        "program store size messages json quiet",
    ),
    (
        "compare",
        Command::Compare,
        "start two servers, measure them in turn, write a page with both",
        "reference candidate rounds store out json-out quick only quiet",
    ),
];

/// Name, value (empty: a switch), text.
const FLAGS: &[(&str, &str, &str)] = &[
    ("server", "HOST:PORT", "server to load; nats:// or tls://user:pass@host:port too (127.0.0.1:4222)"),
    ("server-pid", "PID", "also report this process's CPU per message and its memory"),
    ("user", "NAME", "user to connect as"),
    ("pass", "TEXT", "password of that user"),
    ("token", "TEXT", "token to connect with"),
    (
        "subscriber-user",
        "NAME",
        "user that subscribers connect as, with the same password: of another account, say",
    ),
    ("size", "BYTES", "payload size (128; publish and request: 16)"),
    ("publishers", "N", "publishing connections (1)"),
    ("subscribers", "N", "subscribing connections (1; fanout: 10)"),
    ("pairs", "N", "publisher and subscriber pairs (4)"),
    ("subjects", "N", "subjects or keys in all (1; pairs, js-kv: 1000; subs, js-subjects, js-keys: 100000)"),
    ("exact", "", "a subscription for every subject instead of one with a wildcard"),
    ("ws", "", "connect to the server's port for WebSocket"),
    ("connections", "N", "connections (50; idle: 5000; js-kv: 1)"),
    ("responders", "N", "answering connections, in one queue group if several (1)"),
    ("duration", "TIME", "how long to measure: 5s, 500ms, 2m (5s); churn: with and without, each"),
    ("messages", "N", "how many messages or requests to send in all, instead of a duration"),
    ("warmup", "TIME", "load before the measurement (300ms)"),
    ("settle", "TIME", "wait before memory is read (1s)"),
    ("rate", "PER_S", "open loop: this many in all per second (latency and churn: 100000)"),
    ("burst", "N", "messages that are due at the same moment (as many as make 5,000 moments a second)"),
    ("batch", "BYTES", "bytes of encoded frames in one write (128KiB)"),
    ("in-flight", "BYTES", "a publisher waits while a subscriber is this far behind (32MiB)"),
    ("unacked", "N", "requests of a connection that may be unanswered (1000; js-kv: 1)"),
    ("streams", "N", "streams that are written in turn (1)"),
    ("storage", "KIND", "file or memory (file)"),
    ("fetch", "N", "messages per request of a consumer (500; js-work: 50)"),
    ("every", "N", "one in so many messages matches (100000)"),
    ("consumers", "N", "consumers (10000)"),
    ("workers", "N", "connections that work (20)"),
    ("dying", "N", "how many of them end with jobs in their hands (5)"),
    ("op", "NAME", "put or get (get)"),
    ("program", "PATH", "the server to start: ringmain or nats-server"),
    (
        "store",
        "DIR",
        "where servers keep their streams, on the disk that is to be measured (the system's temporary directory)",
    ),
    ("json", "", "print the result as JSON"),
    ("quiet", "", "no progress line"),
    ("reference", "PATH", "program to compare with: a nats-server"),
    ("candidate", "PATH", "program to compare: a ringmain"),
    ("rounds", "N", "measure everything this often and take medians (3)"),
    ("out", "FILE", "write the page here (standard output)"),
    ("json-out", "FILE", "also write every single result here"),
    ("quick", "", "one short round: for a look, not for a claim"),
    ("only", "ROW[,ROW]", "only these rows, or `core` or `jetstream`"),
];

/// Reads the arguments after the program's name. The error is text for the user.
pub fn parse(arguments: &[String]) -> Result<Invocation, String> {
    let Some(name) = arguments.first() else {
        return Err(format!("which command?\n\n{}", help()));
    };
    match name.as_str() {
        "-h" | "--help" | "help" => return Ok(Invocation::Print(help())),
        "-V" | "--version" => {
            return Ok(Invocation::Print(format!("ringmain-bench: v{}\n", env!("CARGO_PKG_VERSION"))));
        }
        _ => {}
    }
    let Some((name, command, _, allowed)) = COMMANDS.iter().find(|(known, ..)| known == name) else {
        return Err(format!("there is no command '{name}'; see ringmain-bench --help"));
    };
    let see_help = format!("see ringmain-bench {name} --help");
    let mut options = Options::for_command(*command);
    let mut rest = arguments[1..].iter();
    while let Some(argument) = rest.next() {
        if argument == "-h" || argument == "--help" {
            return Ok(Invocation::Print(help_for(name)));
        }
        let Some(flag) = argument.strip_prefix("--") else {
            return Err(format!("'{argument}' is not a flag; {see_help}"));
        };
        let (flag, inline) = match flag.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (flag, None),
        };
        let known =
            FLAGS.iter().find(|(known, ..)| *known == flag && allowed.split(' ').any(|one| one == flag));
        let Some((_, value_name, _)) = known else {
            return Err(format!("'{name}' has no flag --{flag}; {see_help}"));
        };
        let value = if value_name.is_empty() {
            if inline.is_some() {
                return Err(format!("--{flag} takes no value; {see_help}"));
            }
            String::new()
        } else {
            inline
                .or_else(|| rest.next().cloned())
                .ok_or_else(|| format!("--{flag} needs a value ({value_name}); {see_help}"))?
        };
        set(&mut options, flag, &value).map_err(|problem| format!("--{flag}: {problem}; {see_help}"))?;
    }
    check(&options).map_err(|problem| format!("{problem}; {see_help}"))?;
    Ok(Invocation::Run(Box::new(options)))
}

fn set(options: &mut Options, flag: &str, value: &str) -> Result<(), String> {
    match flag {
        "server" => set_server(options, value)?,
        "server-pid" => {
            options.server_pid = Some(value.parse().map_err(|_| format!("'{value}' is not a process id"))?)
        }
        "subscriber-user" => options.subscriber_user = Some(value.to_owned()),
        "user" => options.user = Some(value.to_owned()),
        "pass" => options.pass = Some(value.to_owned()),
        "token" => options.token = Some(value.to_owned()),
        "size" => options.size = number(value)? as usize,
        "publishers" => options.publishers = positive(value)? as usize,
        "subscribers" => options.subscribers = positive(value)? as usize,
        "pairs" => options.pairs = positive(value)? as usize,
        "subjects" => options.subjects = positive(value)? as usize,
        "exact" => options.exact = true,
        "ws" => options.websocket = true,
        "connections" => options.connections = positive(value)? as usize,
        "responders" => options.responders = positive(value)? as usize,
        "duration" => options.duration = duration(value)?,
        "messages" => options.messages = Some(positive(value)?),
        "warmup" => options.warmup = duration(value)?,
        "settle" => options.settle = duration(value)?,
        "rate" => options.rate = Some(positive(value)? as f64),
        "burst" => options.burst = Some(positive(value)?),
        "batch" => options.batch = positive(value)? as usize,
        "unacked" => options.unacked = positive(value)? as usize,
        "streams" => options.streams = positive(value)? as usize,
        "storage" => match value {
            "file" | "memory" => options.storage = value.to_owned(),
            _ => return Err(format!("'{value}' is neither file nor memory")),
        },
        "fetch" => options.fetch = positive(value)? as usize,
        "every" => options.every = positive(value)?.max(2),
        "consumers" => options.consumers = positive(value)? as usize,
        "workers" => options.workers = positive(value)? as usize,
        "dying" => options.dying = number(value)? as usize,
        "op" => match value {
            "put" => options.operation = KvOperation::Put,
            "get" => options.operation = KvOperation::Get,
            _ => return Err(format!("'{value}' is neither put nor get")),
        },
        "program" => options.program = Some(value.into()),
        "store" => options.store = value.into(),
        "in-flight" => options.in_flight = positive(value)?,
        "json" => options.json = true,
        "quiet" => options.quiet = true,
        "reference" => options.reference = Some(value.into()),
        "candidate" => options.candidate = Some(value.into()),
        "rounds" => options.rounds = positive(value)? as usize,
        "out" => options.out = Some(value.into()),
        "json-out" => options.json_out = Some(value.into()),
        "quick" => options.quick = true,
        "only" => options.only = value.split(',').map(|row| row.trim().to_owned()).collect(),
        _ => unreachable!("every flag of the table is set here"),
    }
    Ok(())
}

/// What no single flag can know.
fn check(options: &Options) -> Result<(), String> {
    if options.command == Command::Compare && (options.reference.is_none() || options.candidate.is_none()) {
        return Err("compare needs --reference and --candidate".to_owned());
    }
    if options.command == Command::Latency && options.size < 8 {
        return Err("--size: latency carries a time stamp in the payload, so 8 bytes at least".to_owned());
    }
    if options.command == Command::JsRestart && options.program.is_none() {
        return Err("js-restart needs --program".to_owned());
    }
    if options.command == Command::JsWork && options.dying >= options.workers {
        return Err("--dying: one worker must stay".to_owned());
    }
    if options.command == Command::JsFiltered && options.messages.is_some_and(|all| all < options.every) {
        return Err("--every: not one of the --messages would match".to_owned());
    }
    if options.pairs > options.subjects && options.command == Command::Pairs {
        return Err("--subjects: every pair needs one of its own".to_owned());
    }
    Ok(())
}

/// `HOST:PORT`, or a nats:// or tls:// URL with or without credentials.
fn set_server(options: &mut Options, value: &str) -> Result<(), String> {
    let (scheme, rest) = value.split_once("://").unwrap_or(("nats", value));
    if !matches!(scheme, "nats" | "tls") {
        return Err(format!("{scheme}:// is not supported, only nats:// and tls://"));
    }
    options.tls = scheme == "tls";
    let rest = rest.trim_end_matches('/');
    let address = match rest.rsplit_once('@') {
        Some((credentials, address)) => {
            match credentials.split_once(':') {
                Some((user, pass)) => {
                    options.user = Some(user.to_owned());
                    options.pass = Some(pass.to_owned());
                }
                None => options.token = Some(credentials.to_owned()),
            }
            address
        }
        None => rest,
    };
    if address.is_empty() {
        return Err("no host in it".to_owned());
    }
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    options.server = if has_port { address.to_owned() } else { format!("{address}:4222") };
    Ok(())
}

/// `500`, `100k`, `1.5M`, `16KiB`, `1_000`.
fn number(text: &str) -> Result<u64, String> {
    let unknown = || format!("'{text}' is not a number (examples: 500, 100k, 16KiB)");
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        _ => return Err(unknown()),
    };
    let value: f64 = digits.replace('_', "").parse().map_err(|_| unknown())?;
    if !(value.is_finite() && value >= 0.0) {
        return Err(unknown());
    }
    Ok((value * factor as f64).round() as u64)
}

fn positive(text: &str) -> Result<u64, String> {
    match number(text)? {
        0 => Err("must be more than 0".to_owned()),
        value => Ok(value),
    }
}

/// `5s`, `500ms`, `2m`, `5`.
fn duration(text: &str) -> Result<Duration, String> {
    let unknown = || format!("'{text}' is not a time (examples: 5s, 500ms, 2m)");
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let seconds = match unit {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "m" => 60.0,
        _ => return Err(unknown()),
    };
    let value: f64 = digits.parse().map_err(|_| unknown())?;
    Duration::try_from_secs_f64(value * seconds).map_err(|_| unknown())
}

fn help() -> String {
    let mut text = String::from(
        "ringmain-bench: load for any server that speaks NATS\n\nusage: ringmain-bench COMMAND [FLAGS]\n\ncommands:\n",
    );
    for (name, _, summary, _) in COMMANDS {
        writeln!(text, "  {name:<13} {summary}").expect("a String accepts everything");
    }
    text.push_str("\nringmain-bench COMMAND --help shows its flags.\n");
    text.push_str(
        "\nexample: ringmain-bench fanout --subscribers 10 --size 128 --server-pid $(pidof nats-server)\n",
    );
    text
}

fn help_for(name: &str) -> String {
    let (_, command, summary, allowed) =
        COMMANDS.iter().find(|(known, ..)| *known == name).expect("called with a name of the table");
    let mut text =
        format!("ringmain-bench {name}: {summary}\n\nusage: ringmain-bench {name} [FLAGS]\n\nflags:\n");
    for (flag, value, about) in FLAGS.iter().filter(|(flag, ..)| allowed.split(' ').any(|one| one == *flag)) {
        let left = format!("--{flag} {value}");
        writeln!(text, "  {left:<24} {about}").expect("a String accepts everything");
    }
    if *command == Command::Compare {
        writeln!(text, "\nrows: {}", crate::rows::keys().join(", ")).expect("a String accepts everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Options {
        match parse(&words(line)).unwrap() {
            Invocation::Run(options) => *options,
            Invocation::Print(text) => panic!("printed {text}"),
        }
    }

    fn problem(line: &str) -> String {
        parse(&words(line)).unwrap_err()
    }

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn flags_set_what_they_say() {
        let options = options(
            "fanout --server 10.0.0.1:5222 --size 16KiB --subscribers=4 --duration 500ms --rate 100k --messages 2M --json",
        );
        assert_eq!(options.command, Command::Fanout);
        assert_eq!(options.server, "10.0.0.1:5222");
        assert_eq!((options.size, options.subscribers), (16 * 1024, 4));
        assert_eq!(options.duration, Duration::from_millis(500));
        assert_eq!((options.rate, options.messages), (Some(100_000.0), Some(2_000_000)));
        assert!(options.json && !options.quiet);
    }

    #[test]
    fn defaults_belong_to_the_command() {
        assert_eq!(options("publish").size, 16);
        assert_eq!(options("fanout").subscribers, 10);
        assert_eq!(options("idle").connections, 5_000);
        assert_eq!(options("latency").rate, Some(100_000.0));
        assert_eq!(options("request").rate, None);
    }

    #[test]
    fn servers_are_addresses_or_urls() {
        assert_eq!(options("publish --server host").server, "host:4222");
        let with_user = options("publish --server nats://me:secret@host:1/");
        assert_eq!((with_user.server.as_str(), with_user.user.as_deref()), ("host:1", Some("me")));
        assert_eq!(with_user.pass.as_deref(), Some("secret"));
        assert_eq!(options("publish --server nats://tok@host").token.as_deref(), Some("tok"));
        let encrypted = options("publish --server tls://host:1");
        assert!(encrypted.tls && encrypted.server == "host:1" && !with_user.tls);
        assert!(problem("publish --server ws://host").contains("only nats://"));
    }

    #[test]
    fn mistakes_are_explained_and_point_to_the_help() {
        for (line, expected) in [
            ("", "which command?"),
            ("fly", "there is no command 'fly'"),
            ("publish --pairs 2", "'publish' has no flag --pairs"),
            ("publish --size", "--size needs a value (BYTES)"),
            ("publish --size big", "--size: 'big' is not a number"),
            ("publish --duration 3x", "'3x' is not a time"),
            ("publish --rate 0", "must be more than 0"),
            ("publish extra", "'extra' is not a flag"),
            ("publish --json=yes", "takes no value"),
            ("latency --size 4", "8 bytes at least"),
            ("pairs --pairs 4 --subjects 2", "every pair needs one"),
            ("compare", "needs --reference and --candidate"),
            ("js-publish --storage tape", "'tape' is neither file nor memory"),
            ("js-kv --op cut", "'cut' is neither put nor get"),
            ("js-restart", "needs --program"),
            ("js-work --workers 5", "one worker must stay"),
        ] {
            let text = problem(line);
            assert!(text.contains(expected), "{line}: {text}");
            assert!(text.contains("--help"), "{line}: {text}");
        }
    }

    #[test]
    fn every_command_shows_its_own_flags_only() {
        for (name, _, summary, allowed) in COMMANDS {
            let Invocation::Print(text) = parse(&words(&format!("{name} --help"))).unwrap() else {
                panic!("ran {name}")
            };
            assert!(text.contains(summary));
            for (flag, ..) in FLAGS {
                let shown = text.contains(&format!("--{flag} "));
                assert_eq!(shown, allowed.split(' ').any(|one| one == *flag), "{name} --{flag}");
            }
            // Every name in the lists exists, and `set` knows it.
            for flag in allowed.split(' ') {
                assert!(FLAGS.iter().any(|(known, ..)| *known == flag), "{flag}");
                let _ = set(&mut Options::for_command(Command::Publish), flag, "1");
            }
        }
    }
}
