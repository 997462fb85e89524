//! Configurations and what becomes of them: `tests/config/cases.txt`, readable and extended by hand.
//!
//! A case has a configuration, perhaps files to include and variables of the environment, and two outcomes of `-t`:
//! Ringmain's, and what nats-server 2.15.1 printed for the same files (`same`, or its own text). A valid outcome shows
//! the digest, so equal digests prove equal trees.
//!
//! `tests/config/keys.txt` has a line for every key of the reference with a right value, and with wrong ones and what is
//! said of them; its head explains it.
//!
//! `tests/config/flags.txt` has command lines with every flag that the reference's `--help` names, and how they end.
//!
//! * `CONFIG_RECORD=1 NATS_SERVER=/path/to/nats-server cargo test --test config` writes both outcomes anew: look at the
//!   difference before you commit it;
//! * `NATS_SERVER=…` alone holds the written outcomes of nats-server against the real one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use proptest::prelude::*;
use ringmain::config::lang::{self, Environment, Files, ReadError, Value};
use ringmain::config::{Options, RELOADS, Startup, compare, load_from};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/cases.txt");
const FLAGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/flags.txt");
const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/keys.txt");
const MAIN: &str = "server.conf";

#[derive(Default, Clone)]
struct Case {
    name: String,
    /// By name; the configuration itself is [`MAIN`].
    files: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    ringmain: String,
    reference: String,
}

impl Files for Case {
    fn read(&self, path: &str) -> Result<String, ReadError> {
        let reason = "no such file or directory".to_owned();
        let missing = || ReadError { call: "open", path: path.to_owned(), reason };
        self.files.get(path).cloned().ok_or_else(missing)
    }
}

impl Environment for Case {
    fn variable(&self, name: &str) -> Option<String> {
        self.environment.get(name).cloned()
    }
}

/// A value other than the default for every option that is there.
const OTHER_VALUES: &[(&str, &str)] = &[
    ("allow_non_tls", "true"),
    ("accounts", "{ A: {} }"),
    ("authorization", "{ token: t }"),
    ("client_advertise", "\"a:1\""),
    ("cluster", "{ port: 5, name: c }"),
    ("debug", "true"),
    ("host", "\"127.0.0.1\""),
    ("http", "5"),
    ("http_base_path", "\"b\""),
    ("http_port", "5"),
    ("io", "epoll"),
    ("lame_duck_duration", "\"50s\""),
    ("lame_duck_grace_period", "\"5s\""),
    ("log_file", "\"l\""),
    ("log_max_num", "5"),
    ("log_size_limit", "1MB"),
    ("logtime", "false"),
    ("logtime_utc", "true"),
    ("mappings", "{ a: b }"),
    ("max_closed_clients", "5"),
    ("max_connections", "5"),
    ("max_control_line", "5"),
    ("max_payload", "5"),
    ("max_pending", "50MB"),
    ("max_subscription_tokens", "5"),
    ("max_subscriptions", "5"),
    ("max_traced_msg_len", "5"),
    ("monitor", "{ authorization { token: t } }"),
    ("no_fast_producer_stall", "true"),
    ("no_header_support", "true"),
    ("no_system_account", "true"),
    ("pid_file", "\"p\""),
    ("ping_interval", "\"5s\""),
    ("ping_max", "5"),
    ("port", "5"),
    ("ports_file_dir", "\"d\""),
    ("remote_syslog", "\"udp://localhost:514\""),
    ("server_metadata", "{ a: b }"),
    ("server_name", "s"),
    ("server_tags", "t"),
    ("syslog", "true"),
    ("system_account", "\"$G\""),
    ("tls", "{ timeout: 5 }"),
    ("trace", "true"),
    ("trace_headers", "true"),
    ("trace_verbose", "true"),
    ("websocket", "{ port: 5, no_tls: true }"),
    ("workers", "5"),
    ("write_deadline", "\"5s\""),
];

#[test]
fn an_option_is_reloaded_or_refused_as_the_documentation_says() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md")).unwrap();
    let (_, table) = page.split_once("| changes while the server runs |").expect("the table of reloads");
    let (table, _) = table.split_once("\n\n").expect("its end");
    let first_cells = table.lines().skip(2).filter_map(|line| line.split('|').nth(1));
    let mut documented: Vec<&str> =
        first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).collect::<Vec<_>>()).collect();
    documented.sort_unstable();
    assert_eq!(documented, RELOADS);
    for (key, value) in OTHER_VALUES {
        let mut case = Case::default();
        case.files.insert(MAIN.to_owned(), format!("{key}: {value}"));
        let started = load_from(["-c", MAIN].map(Into::into), &case, &case);
        let Ok(Startup::Run(new, _)) = started else { panic!("{key}: {started:?}") };
        let changes = compare(&Options::default(), &new);
        assert_eq!(changes.is_ok(), RELOADS.contains(key), "{key}: {changes:?}");
        assert!(changes.is_err() || !changes.unwrap().is_empty(), "{key} makes a difference");
    }
    assert!(RELOADS.iter().all(|key| OTHER_VALUES.iter().any(|(other, _)| other == key)));
}

#[test]
fn every_case_ends_as_written() {
    let text = std::fs::read_to_string(CASES).expect("the cases are there");
    let (head, cases) = read_cases(&text);
    assert!(cases.len() > 100, "the file of cases was read");
    let reference = std::env::var_os("NATS_SERVER");
    if std::env::var_os("CONFIG_RECORD").is_some() {
        let reference = reference.expect("recording needs NATS_SERVER");
        let recorded = cases.into_iter().map(|case| record(case, &reference)).collect::<Vec<_>>();
        std::fs::write(CASES, write_cases(&head, &recorded)).expect("the cases can be written");
        return;
    }
    let mut wrong = String::new();
    for case in &cases {
        let outcome = ringmain(case);
        if outcome != case.ringmain {
            let _ = writeln!(wrong, "{}: expected\n{}got\n{outcome}", case.name, case.ringmain);
        }
        if let Some(reference) = &reference {
            let outcome = asked_until(
                || same_or(&case.ringmain, &nats_server(case, reference)),
                |outcome| sorted(outcome) == sorted(&case.reference),
            );
            if sorted(&outcome) != sorted(&case.reference) {
                let _ = writeln!(wrong, "{}: nats-server now says\n{outcome}", case.name);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_key_is_accepted_or_refused_as_by_the_reference() {
    let text = std::fs::read_to_string(KEYS).expect("the keys are there");
    let reference = std::env::var_os("NATS_SERVER");
    let is_recording = std::env::var_os("CONFIG_RECORD").is_some();
    let mut recorded = String::new();
    let mut wrong = String::new();
    let mut count = 0;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let _ = writeln!(recorded, "{line}");
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        count += 1;
        let mut expected = String::new();
        while let Some(line) = lines.next_if(|line| line.starts_with("  ")) {
            let _ = writeln!(expected, "{}", line.trim_start());
        }
        let case = Case { files: [(MAIN.to_owned(), config_with(line))].into(), ..Case::default() };
        let ringmain = without_not_supported(&ringmain(&case));
        let (ringmain_words, _) = told_apart(&ringmain);
        let mut outcome = expected.clone();
        if let Some(reference) = &reference {
            let ask = || {
                let reference = nats_server(&case, reference);
                let lines = sorted(told_apart(&reference).0).into_iter();
                let mut outcome: String = lines.map(|line| format!("{line}\n")).collect();
                if sorted(&ringmain) != sorted(&reference) {
                    outcome.push_str("Ringmain:\n");
                    outcome.push_str(ringmain_words);
                }
                outcome
            };
            outcome = asked_until(ask, |outcome| is_recording || outcome == expected);
        }
        if is_recording {
            outcome.lines().for_each(|line| recorded += &format!("  {line}\n"));
            continue;
        }
        if outcome != expected {
            let _ = writeln!(wrong, "{line}\nexpected\n{expected}got\n{outcome}");
        }
        let expected_words = expected.split_once("Ringmain:\n").map_or(&*expected, |(_, words)| words);
        if sorted(ringmain_words) != sorted(expected_words) {
            let _ = writeln!(wrong, "{line}\nexpected\n{expected_words}got\n{ringmain_words}");
        }
    }
    if is_recording {
        std::fs::write(KEYS, recorded).expect("the keys can be written");
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count > 300, "the file of keys was read");
}

/// Asks nats-server until it gives the answer that is written. It goes over maps in random order, and of several mistakes
/// in a map it names now the one and now the other.
fn asked_until(ask: impl Fn() -> String, is_written: impl Fn(&str) -> bool) -> String {
    const ASKED_MAX: usize = 40;
    let mut outcome = ask();
    for _ in 1..ASKED_MAX {
        if is_written(&outcome) {
            break;
        }
        outcome = ask();
    }
    outcome
}

/// What may follow a flag.
const FLAG_TAILS: &[&str] = &["", " x", " 5", " -1", "=", "=x", "=5", "=true", "=F", "=99999999999999999999"];

/// Flags that its help does not name.
const FLAGS_HIDDEN: &[&str] = &["-help", "-trace", "-debug", "-jetstream", "-http_port", "-auth", "-profile"];

#[test]
fn every_flag_is_read_as_the_reference_reads_it() {
    let reference = std::env::var_os("NATS_SERVER");
    let text = std::fs::read_to_string(FLAGS).unwrap_or_default();
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (words, outcome) = line.split_once(" => ").expect("WORDS => OUTCOME");
        expected.insert(words.to_owned(), outcome.to_owned());
    }
    if let Some(reference) = &reference {
        let recorded: BTreeMap<String, String> =
            flag_lines(reference).map(|line| (line.clone(), reference_outcome(reference, &line))).collect();
        if std::env::var_os("CONFIG_RECORD").is_some() {
            let head = "# Command lines => exit status, and the first line of what is printed. tests/config.rs explains how to record.\n";
            let lines = recorded.iter().map(|(words, outcome)| format!("{words} => {outcome}\n"));
            std::fs::write(FLAGS, head.to_owned() + &lines.collect::<String>())
                .expect("the file can be written");
            expected = recorded;
        } else {
            assert_eq!(recorded, expected, "nats-server's outcomes have changed");
        }
    }
    assert!(expected.len() > 500, "the file of flags was read");
    for (line, expected) in &expected {
        let words = line.split(' ').map(Into::into);
        let empty = Case::default();
        let (code, text) = match load_from(words, &empty, &empty) {
            Ok(Startup::PrintAndExit { stdout, stderr, code }) => {
                (code, first_line(&stderr).or(first_line(&stdout)).unwrap_or_default())
            }
            Err(error) => (1, format!("nats-server: {error}")),
            Ok(other) => panic!("{line} leads to {other:?}"),
        };
        assert_eq!(&format!("{code} {text}"), expected, "{line}");
    }
}

/// All flags of the help and hidden ones, spelt with one dash and with two, each with every tail. The `-v` before it makes
/// a server print its version and leave where all is right.
fn flag_lines(reference: &std::ffi::OsStr) -> impl Iterator<Item = String> {
    let help = Command::new(reference).arg("--help").output().expect("nats-server runs").stdout;
    let help = String::from_utf8(help).expect("a text");
    let mut names: Vec<String> = Vec::new();
    for line in help.lines().map(str::trim).filter(|line| line.starts_with('-')) {
        // The columns of flags and words are two spaces apart.
        let flags = line.split("  ").next().unwrap_or_default();
        let flags = flags.split([',', ' ']).filter(|word| word.starts_with('-'));
        names.extend(flags.map(|flag| flag.trim_start_matches('-').to_owned()));
    }
    names.extend(FLAGS_HIDDEN.iter().map(|flag| flag.trim_start_matches('-').to_owned()));
    assert!(names.len() > 50, "{names:?}");
    names.into_iter().flat_map(|name| {
        let with_tails = FLAG_TAILS.iter().map(|tail| format!("-v -{name}{tail}")).collect::<Vec<_>>();
        // That would take back what keeps a server from running.
        let runs = |line: &String| matches!(line.as_str(), "-v -v=F" | "-v -version=F");
        with_tails.into_iter().filter(move |line| !runs(line)).chain([
            format!("-v --{name}"),
            format!("-v ---{name}"),
            format!("-v -{name}x"),
        ])
    })
}

fn reference_outcome(reference: &std::ffi::OsStr, line: &str) -> String {
    let output = Command::new(reference).args(line.split(' ')).output().expect("nats-server runs");
    let text = |bytes: &[u8]| first_line(&String::from_utf8_lossy(bytes));
    let text = text(&output.stderr).or(text(&output.stdout)).unwrap_or_default();
    format!("{} {text}", output.status.code().unwrap_or(-1))
}

/// The first line that is not empty, with the name of the reference.
fn first_line(text: &str) -> Option<String> {
    let first = text.lines().find(|line| !line.is_empty())?;
    Some(first.replace("Usage: ringmain", "Usage: nats-server"))
}

/// `a.b: 1` as a configuration; `a[].b: 1` puts the map into an array.
fn config_with(line: &str) -> String {
    let (path, value) = line.split_once(": ").expect("KEY: VALUE");
    let mut text = String::new();
    let mut closing = String::new();
    for part in path.split('.') {
        if !text.is_empty() {
            text.push_str("{\n");
            closing.insert_str(0, "}\n");
        }
        match part.strip_suffix("[]") {
            Some(name) => {
                let _ = write!(text, "{name}: [ ");
                closing.insert_str(0, "]\n");
            }
            None => {
                let _ = write!(text, "{part} ");
            }
        }
    }
    let text = text.trim_end();
    format!("{text}: {value}\n{closing}")
}

/// What is said of a wrong configuration; and of a right one, which is its digest.
fn told_apart(outcome: &str) -> (&str, &str) {
    if outcome.contains(" is valid (sha256:") { ("", outcome) } else { (outcome, "") }
}

/// Ringmain says more than the reference of a valid configuration: what of it has no effect yet.
fn without_not_supported(outcome: &str) -> String {
    outcome.lines().filter(|line| !line.starts_with("not supported yet: ")).fold(
        String::new(),
        |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        },
    )
}

fn record(case: Case, reference: &std::ffi::OsStr) -> Case {
    let ringmain = ringmain(&case);
    let reference = same_or(&ringmain, &nats_server(&case, reference));
    Case { ringmain, reference, ..case }
}

fn ringmain(case: &Case) -> String {
    let args = ["-t", "-c", MAIN].map(Into::into);
    let text = match load_from(args, case, case) {
        Ok(Startup::PrintAndExit { stderr, .. }) => stderr,
        Ok(other) => panic!("-t never leads to {other:?}"),
        Err(error) => format!("nats-server: {error}"),
    };
    normal(&text)
}

fn nats_server(case: &Case, reference: &std::ffi::OsStr) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in &case.files {
        std::fs::write(directory.path().join(name), text).expect("a file in it");
    }
    let output = Command::new(reference)
        .args(["-t", "-c", MAIN])
        .env_clear()
        .envs(&case.environment)
        .current_dir(directory.path())
        .output()
        .expect("nats-server runs");
    let text = normal(&String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.success(), text.contains(" is valid (sha256:"), "{}: {text}", case.name);
    text
}

/// Without the prefix, empty lines, and NUL for the end of the text.
fn normal(text: &str) -> String {
    let text = text.replace("nats-server: ", "").replace('\0', "EOF");
    // After some mistakes the reference goes on without what it was reading, and reports where that brought it down too.
    let counts = |line: &&str| {
        !line.is_empty()
            && !line.ends_with(": runtime error: invalid memory address or nil pointer dereference")
    };
    text.lines().filter(counts).fold(String::new(), |all, line| all + line + "\n")
}

/// The reference reports several problems in random order.
fn same_or(ringmain: &str, reference: &str) -> String {
    if sorted(&without_not_supported(ringmain)) == sorted(reference) {
        "same\n".to_owned()
    } else {
        sorted(reference).join("\n") + "\n"
    }
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// `=== name`, then sections `--- config`, `--- file NAME`, `--- env NAME=VALUE`, `--- ringmain`, `--- nats-server`.
/// In a configuration, `␍` stands for a carriage return and `⏎` at the end for no newline there.
fn read_cases(text: &str) -> (String, Vec<Case>) {
    let mut parts = text.split("=== ");
    let head = parts.next().unwrap_or_default().to_owned();
    let cases = parts.map(|part| {
        let (name, rest) = part.split_once('\n').expect("a case has lines");
        let mut case = Case { name: name.to_owned(), ..Case::default() };
        for section in rest.split("--- ").skip(1) {
            let (title, body) = section.split_once('\n').expect("a section has a line");
            let body_unescaped = || body.replace('␍', "\r").replace("⏎\n", "");
            match title.split_once(' ').unwrap_or((title, "")) {
                ("config", _) => drop(case.files.insert(MAIN.to_owned(), body_unescaped())),
                ("file", name) => drop(case.files.insert(name.to_owned(), body_unescaped())),
                ("env", variable) => {
                    let (name, value) = variable.split_once('=').expect("--- env NAME=VALUE");
                    case.environment.insert(name.to_owned(), value.to_owned());
                }
                ("ringmain", _) => case.ringmain = body.to_owned(),
                ("nats-server", _) => case.reference = body.to_owned(),
                _ => panic!("{name}: no such section: {title}"),
            }
        }
        case
    });
    (head, cases.collect())
}

fn write_cases(head: &str, cases: &[Case]) -> String {
    let mut text = head.to_owned();
    for case in cases {
        let _ = writeln!(text, "=== {}", case.name);
        for (name, value) in &case.environment {
            let _ = writeln!(text, "--- env {name}={value}");
        }
        for (name, body) in &case.files {
            let title = if name == MAIN { "config".to_owned() } else { format!("file {name}") };
            let end = if body.is_empty() || body.ends_with('\n') { "" } else { "⏎\n" };
            let _ = write!(text, "--- {title}\n{}{end}", body.replace('\r', "␍"));
        }
        let _ = write!(text, "--- ringmain\n{}--- nats-server\n{}", case.ringmain, case.reference);
    }
    text
}

/// Text that is mostly made of what the language is made of.
fn any_text() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "a",
        "b",
        " ",
        "\n",
        "\r\n",
        ":",
        "=",
        ",",
        ";",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "'",
        "(\n",
        "\n)\n",
        "#",
        "//",
        "$a",
        "$ENV",
        "$RING",
        "include ",
        "include a.conf\n",
        "1",
        "-",
        ".",
        "5k",
        "2MB",
        "10s",
        "1.5",
        "127.0.0.1:80",
        "2026-11-22T18:58:16Z",
        "true",
        "\\",
        "\\x41",
        "\\xff",
        "é",
        "\0",
        "a: 1\n",
        "a: [",
        "a: {",
        "port: ",
        "authorization {",
        "users: [",
        "user: x",
    ]);
    prop_oneof![
        prop::collection::vec(words, 0..40).prop_map(|words| words.concat()),
        any::<String>(),
        // Brackets without end.
        (0_usize..5000, prop::sample::select(vec!["{", "a{", "a: [", "[", "a: {", "(", "a: ["]))
            .prop_map(|(n, s)| s.repeat(n)),
    ]
}

/// A value of the language, and one way to write it down.
fn any_value() -> impl Strategy<Value = (Value, String)> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|number| (Value::Integer(number), number.to_string())),
        any::<bool>().prop_map(|truth| (Value::Bool(truth), truth.to_string())),
        (-1e9..1e9).prop_map(|number: f64| {
            let text = format!("{number:.6}");
            (Value::Float(text.parse().expect("a float")), text)
        }),
        any::<String>().prop_map(|text| (Value::String(text.clone()), quoted(&text))),
        "[a-zA-Z_*>][a-zA-Z0-9_*>./:-]{0,12}x".prop_map(|text| (Value::String(text.clone()), text)),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let separator = prop::sample::select(vec![", ", "\n", " , # x\n", "\n\n // y\n "]);
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..6), separator.clone()).prop_map(
                |(elements, separator)| {
                    let (values, texts): (Vec<_>, Vec<_>) = elements.into_iter().unzip();
                    (
                        Value::Array(values.into_iter().map(node).collect()),
                        format!("[{}]", texts.join(separator)),
                    )
                }
            ),
            (prop::collection::btree_map("[a-z][a-z_]{0,8}q", inner, 0..6), separator).prop_map(
                |(entries, separator)| {
                    let texts: Vec<String> =
                        entries.iter().map(|(key, (_, text))| format!("{key}: {text}")).collect();
                    let map = entries.into_iter().map(|(key, (value, _))| (key, node(value))).collect();
                    (Value::Map(map), format!("{{{}}}", texts.join(separator)))
                }
            ),
        ]
    })
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' => quoted.push_str("\\\""),
            b'\\' => quoted.push_str("\\\\"),
            b'\n' => quoted.push_str("\\n"),
            b' '..=b'~' => quoted.push(byte as char),
            _ => quoted.push_str(&format!("\\x{byte:02x}")),
        }
    }
    quoted + "\""
}

fn node(value: Value) -> lang::Node {
    let at = lang::Position { file: "".into(), line: 0, column: 0 };
    lang::Node { at, value, is_variable: false }
}

/// Without positions, which a generated value does not have.
fn bare(value: Value) -> Value {
    match value {
        Value::Array(elements) => {
            Value::Array(elements.into_iter().map(|element| node(bare(element.value))).collect())
        }
        Value::Map(map) => {
            Value::Map(map.into_iter().map(|(key, child)| (key, node(bare(child.value)))).collect())
        }
        leaf => leaf,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(main in any_text(), included in any_text(), variable in any_text()) {
        let case = Case {
            files: [(MAIN.to_owned(), main), ("a.conf".to_owned(), included)].into(),
            environment: [("ENV".to_owned(), variable), ("RING".to_owned(), "$RING".to_owned())].into(),
            ..Case::default()
        };
        let _ = load_from(["-c".into(), MAIN.into()], &case, &case);
    }

    #[test]
    fn values_survive_being_written_and_read((value, text) in any_value()) {
        let empty = Case::default();
        let map = lang::parse(MAIN, &format!("key: {text}\n"), &empty, &empty);
        let map = map.map_err(|error| TestCaseError::fail(format!("{error} in {text}")))?;
        prop_assert_eq!(bare(map["key"].value.clone()), bare(value), "{}", text);
    }
}

#[test]
fn includes_that_include_themselves_are_an_error() {
    let files = [(MAIN.to_owned(), "include server.conf\n".to_owned())].into();
    let case = Case { files, ..Case::default() };
    let outcome = ringmain(&case);
    assert!(outcome.contains("includes are nested deeper than"), "{outcome}");
}

#[test]
fn variables_of_the_environment_that_branch_end_soon() {
    let names: Vec<String> = (0..15).map(|index| format!("$V{index}")).collect();
    let value = format!("[ {} ]", names.join(" , "));
    let environment = (0..15).map(|index| (format!("V{index}"), value.clone())).collect();
    let files = [(MAIN.to_owned(), "a: $V0\n".to_owned())].into();
    let outcome = ringmain(&Case { files, environment, ..Case::default() });
    assert!(outcome.contains("cycle") || outcome.contains("too much"), "{outcome}");
}

#[test]
fn variables_that_double_their_value_again_and_again_are_an_error() {
    let mut text = "v0 { a: 1, b: 2 }\n".to_owned();
    for level in 0..40 {
        let _ = writeln!(text, "v{} {{ a: $v{level}, b: $v{level} }}", level + 1);
    }
    let case = Case { files: [(MAIN.to_owned(), text)].into(), ..Case::default() };
    let outcome = ringmain(&case);
    assert!(outcome.contains("variables repeat too much"), "{outcome}");
}
