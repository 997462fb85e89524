//! JetStream dialogues: requests, published messages and what comes back, held against what nats-server 2.15.1 answered.
//!
//! A script (`jetstream/*.txt`) says what is asked, never what to expect; the recording beside it (`*.golden`) is what the real server said.
//! Scripts are played to the stream room itself, with a clock of its own, and to the real server, if there is one, to see that the
//! recording still holds. One with a configuration beside it (`*.conf`, where `STORE` stands for the directory) is only played to servers. Cases with streams in memory are played a second time with files (`*.file.golden`).
//!
//! A line of a script is
//!
//! * `case TITLE`: begins a case, on a server without streams;
//! * `api SUBJECT BODY`: a request to `$JS.API.SUBJECT`, one answer;
//! * `pub SUBJECT [Key: value; Key: value] BODY`: a message with a reply, one answer; `put` is one without;
//! * `get SUBJECT BODY` and `batch SUBJECT BODY`: a request whose answers are messages: one, or all until the status that ends them;
//! * `fast N SUBJECT PLACE [Key: value] BODY`: a message of a fast batch, whose reply has `PLACE` before `.$FI`, and the next N answers to such;
//! * `sub SUBJECT` and `next`: subscribes, and shows the next message on that subscription;
//! * `wait MS`: lets time pass;
//! * `await TEXT SUBJECT BODY`: a request like `api`, again and again until its answer has the text;
//! * `slow`: the case takes nats-server's patience: it is played to it only to be recorded, or with `JETSTREAM_SLOW=1`;
//! * `restart`: the server is killed and started again; such a case is only played with files;
//! * `times N LINE`: plays a line so often, with the number for `{n}`. `{x*N}` in a line is N times the byte.
//!
//! A script whose first line is `# servers only` is about what streams do with each other; it is not played to the room.
//!
//! Times are masked, and what else differs from server to server. `JETSTREAM_RECORD=1 cargo test --test jetstream` asks the real server and writes the recordings: read the diff.
//! `JETSTREAM_CASE='FILE: TITLE'` plays one case and prints it.

mod peer;
mod server_process;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use peer::{Event, Peer};
use ringmain::store::{
    FileId, FileStore, Files, MemoryStore, ReadPlan, Settings, Step, Store, StoredMessage,
};
use ringmain::stream::api::{self, Frame, Verb};
use ringmain::stream::batch::BatchLimits;
use ringmain::stream::config::Storage;
use ringmain::stream::control::{self, Plan, Situation};
use ringmain::stream::get::DirectGet;
use ringmain::stream::json::Strictness;
use ringmain::stream::limits::{AccountLimits, ServerLimits};
use ringmain::stream::publish::Incoming;
use ringmain::stream::registry::Registry;
use ringmain::stream::stream::{Answer, Command, Handled};
use ringmain::stream::{ApiError, Stream, StreamConfig, StreamSettings};
use server_process::{ServerProcess, announce, candidate, reference};

/// The name that both servers have.
const SERVER_NAME: &str = "N1";

/// How often an answer is asked for that has to become what it should be, every tenth of a second.
const AWAIT_TRIES: u32 = 400;

/// How long the real server may take to answer; only silence uses it up.
const SILENCE: Duration = Duration::from_millis(3000);

#[test]
fn streams_answer_as_recorded() {
    if std::env::var_os("JETSTREAM_RECORD").is_some() {
        return;
    }
    let mut wrong = String::new();
    let mut cases = 0;
    let is_for_stream = |script: &Script| !script.is_for_servers() && script.config().is_none();
    for (script, medium) in scripts().into_iter().filter(|(script, _)| is_for_stream(script)) {
        let golden = std::fs::read_to_string(script.recording(medium)).expect("a recording");
        let recorded = split_cases(&golden);
        for case in script.cases(medium) {
            cases += 1;
            let played = play(&case.lines, &mut Account::default());
            let expected = recorded.get(&case.title).map(String::as_str).unwrap_or("no recording\n");
            show_if_asked(&script, &case, &played);
            if let Some(difference) = difference(&played, expected) {
                let _ = writeln!(wrong, "{}, {}: {}\n{difference}", script.name(), medium.word(), case.title);
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    announce(&format!("{cases} JetStream cases played"));
}

#[test]
fn the_real_server_answers_as_recorded() {
    let Some(binary) = reference() else {
        announce(
            "SKIPPED the_real_server_answers_as_recorded: no nats-server (NATS_SERVER or .deps/py/bin/nats-server)",
        );
        return;
    };
    let recording = std::env::var_os("JETSTREAM_RECORD").is_some();
    play_to_server(binary, recording);
}

#[test]
fn the_server_answers_as_recorded() {
    play_to_server(candidate(), false);
}

/// A stream is copied into another account by what that exports and the other imports, and by nothing else.
#[test]
fn streams_are_copied_across_accounts() {
    let config = r#"
        accounts {
            A { jetstream: enabled, users: [ {user: a, password: p} ], exports: [
                {service: "$JS.API.CONSUMER.>"}, {service: "$JS.FC.>"}, {stream: "deliver.>"} ] }
            B { jetstream: enabled, users: [ {user: b, password: p} ], imports: [
                {service: {account: A, subject: "$JS.API.CONSUMER.>"}, to: "JS.a.API.CONSUMER.>"},
                {service: {account: A, subject: "$JS.FC.>"}},
                {stream: {account: A, subject: "deliver.>"}} ] }
        }"#;
    for binary in [Some(candidate()), reference()].into_iter().flatten() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = directory.path().to_str().expect("a name");
        let arguments = ["-a", "127.0.0.1", "-p", "-1", "-js", "-sd", store];
        let server = ServerProcess::start_with(&binary, config, &arguments).expect("it starts");
        let open = |user: &str| {
            let connect = format!(
                "CONNECT {{\"verbose\":false,\"headers\":true,\"user\":\"{user}\",\"pass\":\"p\"}}\r\nSUB _R 1\r\n"
            );
            Peer::open_with(server.address, &connect)
        };
        let (mut origin, mut copy) = (open("a"), open("b"));
        ask(&mut origin, "$JS.API.STREAM.CREATE.O", r#"{"name":"O","subjects":["o.>"]}"#);
        for number in 1..=3 {
            ask(&mut origin, &format!("o.{number}"), "x");
        }
        let external = |deliver: &str| {
            format!(r#"{{"name":"O","external":{{"api":"JS.a.API","deliver":"{deliver}"}}}}"#)
        };
        for (name, what) in [
            ("M", format!("\"mirror\":{}", external("deliver"))),
            ("S", format!("\"sources\":[{}]", external("deliver"))),
            ("NOT", format!("\"mirror\":{}", external("secret"))),
        ] {
            let created = ask(
                &mut copy,
                &format!("$JS.API.STREAM.CREATE.{name}"),
                &format!("{{\"name\":\"{name}\",{what}}}"),
            );
            assert!(created.contains("\"did_create\":true"), "{created}");
        }
        ask(&mut origin, "o.4", "x");
        for name in ["M", "S"] {
            await_text(&mut copy, &format!("$JS.API.STREAM.INFO.{name}"), "", "\"messages\":4");
            let got = ask(&mut copy, &format!("$JS.API.STREAM.MSG.GET.{name}"), r#"{"seq":4}"#);
            assert!(got.contains("\"subject\":\"o.4\""), "{got}");
        }
        // Where nothing is delivered nothing is copied, whatever the API says.
        let got = ask(&mut copy, "$JS.API.STREAM.MSG.GET.NOT", r#"{"seq":1}"#);
        assert!(got.contains("10037"), "{got}");
    }
}

/// One request, one answer.
fn ask(peer: &mut Peer, subject: &str, body: &str) -> String {
    peer.send(&format!("PUB {subject} _R {}\r\n{body}\r\n", body.len()));
    match peer.next() {
        Event::Message { payload, .. } => String::from_utf8(payload).expect("text"),
        other => panic!("{other:?} instead of an answer to {subject}"),
    }
}

/// Asks until the answer has a text.
fn await_text(peer: &mut Peer, subject: &str, body: &str, text: &str) {
    let begun = std::time::Instant::now();
    loop {
        let answer = ask(peer, subject, body);
        if answer.contains(text) {
            return;
        }
        assert!(begun.elapsed() < peer::PATIENCE, "no {text} in {answer}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Plays all scripts over TCP.
fn play_to_server(binary: PathBuf, recording: bool) {
    let mut client = Client::start(binary.clone(), None);
    let mut wrong = String::new();
    for (script, medium) in scripts() {
        let mut configured = script.config().map(|config| Client::start(binary.clone(), Some(config)));
        let client = configured.as_mut().unwrap_or(&mut client);
        let path = script.recording(medium);
        let recorded = std::fs::read_to_string(&path).unwrap_or_default();
        let recorded = split_cases(&recorded);
        let mut golden = String::new();
        for case in script.cases(medium) {
            let is_slow = case.lines.iter().any(|line| line == "slow") && client.binary != candidate();
            if is_slow && !recording && std::env::var_os("JETSTREAM_SLOW").is_none() {
                continue;
            }
            let mut played = play(&case.lines, client);
            let expected = recorded.get(&case.title).map(String::as_str).unwrap_or("no recording\n");
            // nats-server may still be at the files of the stream before when it is to make the next one of that name.
            for _ in 0..3 {
                if recording || client.binary == candidate() || difference(&played, expected).is_none() {
                    break;
                }
                played = play(&case.lines, client);
            }
            let _ = writeln!(golden, "case {}\n{played}", case.title);
            show_if_asked(&script, &case, &played);
            if let Some(difference) = difference(&played, expected).filter(|_| !recording) {
                let _ = writeln!(wrong, "{}, {}: {}\n{difference}", script.name(), medium.word(), case.title);
            }
        }
        if recording {
            std::fs::write(&path, &golden).expect("the recording is written");
        }
    }
    assert!(wrong.is_empty(), "the server says something else:\n{wrong}");
}

/// Where the streams of a script are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Medium {
    Memory,
    File,
}

impl Medium {
    fn word(self) -> &'static str {
        match self {
            Medium::Memory => "memory",
            Medium::File => "file",
        }
    }
}

/// A script.
struct Script {
    path: PathBuf,
    text: String,
}

struct Case {
    title: String,
    lines: Vec<String>,
}

impl Script {
    fn name(&self) -> String {
        self.path.file_stem().expect("a name").to_string_lossy().into_owned()
    }

    fn is_for_servers(&self) -> bool {
        self.text.starts_with("# servers only\n")
    }

    fn config(&self) -> Option<String> {
        std::fs::read_to_string(self.path.with_extension("conf")).ok()
    }

    fn recording(&self, medium: Medium) -> PathBuf {
        match medium {
            Medium::Memory => self.path.with_extension("golden"),
            Medium::File => self.path.with_extension("file.golden"),
        }
    }

    fn cases(&self, medium: Medium) -> Vec<Case> {
        let wanted = std::env::var("JETSTREAM_CASE").ok();
        let mut cases: Vec<Case> = Vec::new();
        for line in self.text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            match line.strip_prefix("case ") {
                Some(title) => cases.push(Case { title: title.to_owned(), lines: Vec::new() }),
                None => cases.last_mut().expect("a case before the first line").lines.push(line.to_owned()),
            }
        }
        const IN_MEMORY: &str = "\"storage\":\"memory\"";
        match medium {
            Medium::Memory => cases.retain(|case| !case.lines.iter().any(|line| line == "restart")),
            Medium::File => {
                cases.retain(|case| case.lines.iter().any(|line| line.contains(IN_MEMORY)));
                for line in cases.iter_mut().flat_map(|case| &mut case.lines) {
                    *line = line.replace(IN_MEMORY, "\"storage\":\"file\"");
                }
            }
        }
        if let Some(wanted) = wanted {
            cases.retain(|case| format!("{}: {}", self.name(), case.title) == wanted);
        }
        cases
    }
}

fn scripts() -> Vec<(Script, Medium)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jetstream");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
        .expect("the scripts")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    let read = |path: &PathBuf| Script {
        text: std::fs::read_to_string(path).expect("a script"),
        path: path.clone(),
    };
    let of_path = |path: PathBuf| [(read(&path), Medium::Memory), (read(&path), Medium::File)];
    paths.into_iter().flat_map(of_path).collect()
}

fn split_cases(golden: &str) -> BTreeMap<String, String> {
    let mut cases = BTreeMap::new();
    for part in golden.split("case ").skip(1) {
        let (title, played) = part.split_once('\n').unwrap_or((part, ""));
        cases.insert(title.to_owned(), played.trim_end_matches('\n').to_owned() + "\n");
    }
    cases
}

/// The first line that differs, with the line of the script before it.
fn difference(played: &str, expected: &str) -> Option<String> {
    let (played, expected): (Vec<&str>, Vec<&str>) =
        (played.trim_end().lines().collect(), expected.trim_end().lines().collect());
    if played == expected {
        return None;
    }
    let at = (0..).find(|at| played.get(*at) != expected.get(*at)).expect("they differ");
    let question =
        played[..at.min(played.len())].iter().rev().find(|line| line.starts_with('>')).unwrap_or(&"");
    let line = |lines: &[&str]| lines.get(at).map_or("(end)".to_owned(), |line| (*line).to_owned());
    Some(format!("  {question}\n  expected {}\n  got      {}", line(&expected), line(&played)))
}

fn show_if_asked(script: &Script, case: &Case, played: &str) {
    if std::env::var_os("JETSTREAM_CASE").is_some() {
        announce(&format!("{}: {}\n{played}", script.name(), case.title));
    }
}

/// Whom a script is played to.
trait Player {
    fn begin(&mut self);
    fn publish(&mut self, subject: &str, reply: &str, header: &[u8], body: &[u8]);
    fn subscribe(&mut self, subject: &str);
    /// The next message on a subject that begins so; `None` if none comes.
    fn next(&mut self, is_wanted: &dyn Fn(&str) -> bool) -> Option<Delivery>;
    fn wait(&mut self, ms: u64);
    fn restart(&mut self);
}

#[derive(Debug, Clone)]
struct Delivery {
    subject: String,
    header: Vec<u8>,
    body: Vec<u8>,
}

impl Delivery {
    fn is_status(&self) -> bool {
        self.header.get(9).is_some_and(u8::is_ascii_digit)
    }

    fn shown(&self) -> String {
        let mut shown = String::new();
        if !self.header.is_empty() {
            let header = String::from_utf8_lossy(&self.header).trim_end().replace("\r\n", " | ");
            let _ = write!(shown, "{header} || ");
        }
        shown.push_str(&String::from_utf8_lossy(&self.body));
        masked(&shown)
    }
}

/// Puts `T` where a time stands, and an id; takes out what is there or not by the moment, and what the real server does not tell.
fn masked(text: &str) -> String {
    let mut text = text.to_owned();
    for (begin, end) in [("\"rtt\":", ","), (",\"_ringmain.sync_interval\":\"", "\"")] {
        while let Some(from) = text.find(begin) {
            let rest = from + begin.len();
            let to = text[rest..].find(end).map_or(text.len(), |length| rest + length + end.len());
            text.replace_range(from..to, "");
        }
    }
    for (begin, end) in [
        ("\"created\":\"", "\""),
        ("\"ts\":\"", "\""),
        ("\"time\":\"", "\""),
        ("\"timestamp\":\"", "\""),
        ("\"id\":\"", "\""),
        ("\"first_ts\":\"", "\""),
        ("\"last_ts\":\"", "\""),
        ("\"api\":{", "}"),
        ("\"client\":{\"start\":\"", "\""),
        ("\"host\":\"127.0.0.1\",\"id\":", ","),
        ("Nats-Time-Stamp: ", " |"),
    ] {
        let mut at = 0;
        while let Some(found) = text[at..].find(begin) {
            let from = at + found + begin.len();
            let to = text[from..].find(end).map_or(text.len(), |length| from + length);
            if &text[from..to] != "0001-01-01T00:00:00Z" {
                text.replace_range(from..to, "T");
            }
            at = from;
        }
    }
    masked_origins(&text)
}

/// Puts `A` for how long ago an origin was heard of, `I` for identities, `C` for what is random in the names of its consumers, and
/// sources in order: nats-server has them in none.
fn masked_origins(text: &str) -> String {
    let mut text = text.to_owned();
    let mut at = 0;
    while let Some(found) = text[at..].find("\"active\":") {
        let from = at + found + "\"active\":".len();
        let to = from + text[from..].find([',', '}']).unwrap_or(0);
        text.replace_range(from..to, "A");
        at = from;
    }
    if let Some(found) = text.find("\"sources\":[{\"name\":\"").filter(|_| !text.contains("stream_list")) {
        for (from, _) in text.clone().match_indices("\"sources\":[{").skip_while(|(at, _)| *at < found) {
            let from = from + "\"sources\":[".len();
            let mut depth = 0;
            let mut ends = vec![from];
            for (at, byte) in text.bytes().enumerate().skip(from) {
                match byte {
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' if depth > 0 => depth -= 1,
                    b',' | b']' if depth == 0 => ends.push(at),
                    _ => {}
                }
                if byte == b']' && depth == 0 && ends.last() == Some(&at) {
                    break;
                }
            }
            let mut sources: Vec<String> = ends
                .windows(2)
                .map(|pair| text[pair[0]..pair[1]].trim_start_matches(',').to_owned())
                .collect();
            if sources.iter().all(|source| source.contains("\"lag\":")) {
                sources.sort();
                let to = *ends.last().expect("the beginning, at least");
                text.replace_range(from..to, &sources.join(","));
            }
        }
    }
    at = 0;
    while let Some(found) = text[at..].find("Nats-Stream-Source: ") {
        let from = at + found;
        let to = text[from..].find(" |").map_or(text.len(), |length| from + length);
        if let Some((_, identity)) =
            text[from..to].rsplit_once(' ').filter(|_| text[from..to].split(' ').count() == 7)
        {
            let identity = identity.len();
            text.replace_range(to - identity..to, "I");
        }
        at = from + 1;
    }
    for begin in ["JS_MIRROR_", "JS_SRC_"] {
        at = 0;
        while let Some(found) = text[at..].find(begin) {
            // A hash of eight characters, and perhaps eight more behind a dash.
            let from = at + found + begin.len() + 8;
            if text[from.min(text.len())..].starts_with('-') && text.len() >= from + 9 {
                text.replace_range(from + 1..from + 9, "C");
            }
            at = from.min(text.len());
        }
    }
    text
}

/// Replaces `{x*N}` by N times `x`.
fn expanded(line: &str) -> String {
    let mut line = line.to_owned();
    while let Some((from, repeated, to)) = line.find("*").and_then(|star| {
        line.match_indices('*').chain([(star, "*")]).find_map(|(star, _)| {
            let from = star.checked_sub(2).filter(|from| line.as_bytes()[*from] == b'{')?;
            let to = star + line[star..].find('}')?;
            let count: usize = line[star + 1..to].parse().ok()?;
            Some((from, line[from + 1..star].repeat(count), to + 1))
        })
    }) {
        line.replace_range(from..to, &repeated);
    }
    line
}

fn play(lines: &[String], player: &mut dyn Player) -> String {
    let mut out = String::new();
    player.begin();
    let mut replies = 0;
    for line in lines {
        match line.strip_prefix("times ").and_then(|rest| rest.split_once(' ')) {
            Some((count, line)) => {
                for number in 1..=count.parse::<u32>().expect("a count") {
                    play_line(&line.replace("{n}", &number.to_string()), player, &mut replies, &mut out);
                }
            }
            None => play_line(line, player, &mut replies, &mut out),
        }
    }
    out
}

fn play_line(script_line: &str, player: &mut dyn Player, replies: &mut u32, out: &mut String) {
    let line = &expanded(script_line);
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    match verb {
        "wait" => return player.wait(rest.parse().expect("milliseconds")),
        "restart" => return player.restart(),
        "slow" => return,
        "await" => {
            let (wanted, rest) = rest.split_once(' ').expect("a text");
            let (subject, body) = rest.split_once(' ').unwrap_or((rest, ""));
            let mut shown = "no answer".to_owned();
            for _ in 0..AWAIT_TRIES {
                *replies += 1;
                let reply = format!("_R.{replies}");
                player.publish(&format!("$JS.API.{subject}"), &reply, b"", body.as_bytes());
                shown = player.next(&|subject| subject == reply).map_or(shown, |answer| answer.shown());
                if shown.contains(wanted) {
                    break;
                }
                player.wait(100);
            }
            let _ = writeln!(out, "> {script_line}\n< {shown}");
            return;
        }
        "sub" => return player.subscribe(rest),
        "next" => {
            let delivery = player.next(&|subject| !subject.starts_with("_R."));
            let shown = delivery.map_or("nothing".to_owned(), |it| format!("{} {}", it.subject, it.shown()));
            let _ = writeln!(out, "> {script_line}\n< {shown}");
            return;
        }
        _ => {}
    }
    let (count, rest) = match verb {
        "fast" => rest.split_once(' ').expect("a number of answers"),
        _ => ("1", rest),
    };
    let (subject, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let (place, rest) = match verb {
        "fast" => rest.split_once(' ').expect("a place in a batch"),
        _ => ("", rest),
    };
    let has_header = ["pub", "put", "fast"].contains(&verb);
    let (header, body) = match rest.strip_prefix('[').filter(|_| has_header) {
        Some(rest) => {
            let (lines, body) = rest.split_once(']').expect("a ] behind the headers");
            let mut header = b"NATS/1.0\r\n".to_vec();
            for line in lines.split("; ").filter(|line| !line.is_empty()) {
                header.extend_from_slice(line.as_bytes());
                header.extend_from_slice(b"\r\n");
            }
            header.extend_from_slice(b"\r\n");
            (header, body.strip_prefix(' ').unwrap_or(body))
        }
        None => (Vec::new(), rest),
    };
    let subject = if verb == "api" { format!("$JS.API.{subject}") } else { subject.to_owned() };
    let subject =
        if verb == "get" || verb == "batch" { format!("$JS.API.DIRECT.GET.{subject}") } else { subject };
    if verb == "put" {
        return player.publish(&subject, "", &header, body.as_bytes());
    }
    if verb == "fast" {
        player.publish(&subject, &format!("_R.F.{place}.$FI"), &header, body.as_bytes());
        let _ = writeln!(out, "> {script_line}");
        for _ in 0..count.parse::<u32>().expect("a number") {
            let delivery = player.next(&|subject| subject.starts_with("_R.F."));
            let shown =
                delivery.map_or("no answer".to_owned(), |it| format!("{} {}", &it.subject[5..], it.shown()));
            let _ = writeln!(out, "< {shown}");
        }
        return;
    }
    assert!(["api", "pub", "get", "batch"].contains(&verb), "{line}");
    *replies += 1;
    let reply = format!("_R.{replies}");
    player.publish(&subject, &reply, &header, body.as_bytes());
    let _ = writeln!(out, "> {script_line}");
    loop {
        let Some(delivery) = player.next(&|subject| subject == reply) else {
            let _ = writeln!(out, "< no answer");
            return;
        };
        let _ = writeln!(out, "< {}", delivery.shown());
        if verb != "batch" || delivery.is_status() {
            return;
        }
    }
}

/// The real server, and a connection to it.
struct Client {
    binary: PathBuf,
    config: Option<String>,
    directory: tempfile::TempDir,
    server: Option<ServerProcess>,
    stream: BufReader<TcpStream>,
    next_sid: u32,
    subscribed: Vec<u32>,
    received: VecDeque<Delivery>,
    requests: u32,
}

impl Client {
    fn start(binary: PathBuf, config: Option<String>) -> Client {
        let directory = tempfile::tempdir().expect("a directory");
        let (server, stream) = Client::begin_server(&binary, config.as_deref(), directory.path());
        Client {
            binary,
            config,
            directory,
            server: Some(server),
            stream,
            next_sid: 3,
            subscribed: Vec::new(),
            received: VecDeque::new(),
            requests: 0,
        }
    }

    fn begin_server(
        binary: &Path,
        config: Option<&str>,
        directory: &Path,
    ) -> (ServerProcess, BufReader<TcpStream>) {
        let store = directory.to_str().expect("a name");
        let mut arguments = vec!["-a", "127.0.0.1", "-p", "-1", "-n", SERVER_NAME];
        if config.is_none() {
            arguments.extend(["-js", "-sd", store]);
        }
        let config = config.unwrap_or_default().replace("STORE", store);
        let server = ServerProcess::start_with(binary, &config, &arguments).expect("nats-server starts");
        let mut stream = TcpStream::connect(server.address).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(SILENCE)).expect("timeout");
        let hello = b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB _R.> 1\r\nSUB _C.> 2\r\n";
        stream.write_all(hello).expect("send");
        (server, BufReader::new(stream))
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("send");
    }

    /// Reads until a message comes or the server has been silent for long enough.
    fn read(&mut self) -> Option<Delivery> {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).is_err() {
                return None;
            }
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let (header_len, len) = match words[..] {
                ["MSG", .., len] => (0, len.parse().expect("a length")),
                ["HMSG", .., header_len, len] => {
                    (header_len.parse().expect("a length"), len.parse::<usize>().expect("a length"))
                }
                ["PING"] => {
                    self.send(b"PONG\r\n");
                    continue;
                }
                _ => continue,
            };
            let mut bytes = vec![0; len + 2];
            self.stream.read_exact(&mut bytes).expect("a payload");
            let (header, body) = bytes[..len].split_at(header_len);
            return Some(Delivery {
                subject: words[1].to_owned(),
                header: header.to_vec(),
                body: body.to_vec(),
            });
        }
    }

    fn request(&mut self, subject: &str) -> Option<Delivery> {
        self.requests += 1;
        let reply = format!("_C.{}", self.requests);
        self.publish(subject, &reply, b"", b"");
        // A server that has just started may take a while.
        (0..50).find_map(|_| self.next(&|subject| subject == reply))
    }
}

impl Player for Client {
    fn begin(&mut self) {
        // First, so that nothing that is told of what follows comes to the next case.
        for sid in std::mem::take(&mut self.subscribed) {
            self.send(format!("UNSUB {sid}\r\n").as_bytes());
        }
        let names = self.request("$JS.API.STREAM.NAMES").expect("an answer");
        let names: serde_json::Value = serde_json::from_slice(&names.body).expect("JSON");
        let names: Vec<&str> =
            names["streams"].as_array().into_iter().flatten().flat_map(|name| name.as_str()).collect();
        for name in &names {
            self.request(&format!("$JS.API.STREAM.DELETE.{name}"));
        }
        // It removes the files of a stream later, if at all, and a new stream of that name would find them.
        let places = ["$G", "A"]
            .into_iter()
            .flat_map(|account| names.iter().copied().chain(["S"]).map(move |name| (account, name)));
        for (account, name) in places {
            let deleted = self.directory.path().join(format!("jetstream/{account}/streams/{name}"));
            for _ in 0..10 {
                if !deleted.exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
                let _ = std::fs::remove_dir_all(&deleted);
            }
        }
        self.received.clear();
    }

    fn publish(&mut self, subject: &str, reply: &str, header: &[u8], body: &[u8]) {
        let mut frame = Vec::new();
        if header.is_empty() {
            let _ = write!(frame, "PUB {subject} {reply} {}\r\n", body.len());
        } else {
            let _ =
                write!(frame, "HPUB {subject} {reply} {} {}\r\n", header.len(), header.len() + body.len());
        }
        frame.extend_from_slice(header);
        frame.extend_from_slice(body);
        frame.extend_from_slice(b"\r\n");
        self.send(&frame);
    }

    fn subscribe(&mut self, subject: &str) {
        let sid = self.next_sid;
        self.next_sid += 1;
        self.subscribed.push(sid);
        self.send(format!("SUB {subject} {sid}\r\n").as_bytes());
    }

    fn next(&mut self, is_wanted: &dyn Fn(&str) -> bool) -> Option<Delivery> {
        if let Some(at) = self.received.iter().position(|delivery| is_wanted(&delivery.subject)) {
            return self.received.remove(at);
        }
        loop {
            let delivery = self.read()?;
            if is_wanted(&delivery.subject) {
                return Some(delivery);
            }
            self.received.push_back(delivery);
        }
    }

    fn wait(&mut self, ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }

    fn restart(&mut self) {
        self.server = None;
        let (server, stream) =
            Client::begin_server(&self.binary, self.config.as_deref(), self.directory.path());
        (self.server, self.stream) = (Some(server), stream);
        self.subscribed.clear();
        self.request("$JS.API.STREAM.NAMES").expect("an answer");
    }
}

/// An account whose streams live in this process, with a clock that the script moves.
struct Account {
    registry: Registry<()>,
    streams: BTreeMap<String, Stream>,
    disks: BTreeMap<String, Disk>,
    subscriptions: Vec<String>,
    received: VecDeque<Delivery>,
    server: ServerLimits,
    now_ns: i64,
}

impl Default for Account {
    fn default() -> Account {
        Account {
            registry: Registry::new(AccountLimits::default()),
            streams: BTreeMap::new(),
            disks: BTreeMap::new(),
            subscriptions: Vec::new(),
            received: VecDeque::new(),
            server: ServerLimits::default(),
            now_ns: 1_790_000_000_000_000_000,
        }
    }
}

impl Account {
    fn frame(&self) -> Frame<'static> {
        Frame { server_name: SERVER_NAME, domain: "", now_ns: self.now_ns }
    }

    fn ask(&mut self, name: &str, command: Command) -> Result<Answer, ApiError> {
        let stream = self.streams.get_mut(name).expect("the registry's stream");
        let mut handled = stream.handle(command, self.now_ns);
        loop {
            match handled {
                Handled::Done { answer, position } => {
                    self.commit(name);
                    assert!(position <= self.streams[name].store().committed());
                    return answer;
                }
                Handled::Read(plan, request) => {
                    let message = self.disks[name].message(&plan);
                    let stream = self.streams.get_mut(name).expect("the registry's stream");
                    handled = stream.found(&request, message);
                }
            }
        }
    }

    fn settings(&self, config: StreamConfig, created_ns: i64) -> StreamSettings {
        StreamSettings {
            config,
            created_ns,
            domain: String::new(),
            account: String::new(),
            batch_limits: BatchLimits::default(),
            seed: 1,
        }
    }

    fn create(&mut self, config: StreamConfig) -> Result<Answer, ApiError> {
        let settings = self.settings(config.clone(), self.now_ns);
        let name = config.name.clone();
        let mut disk = Disk::default();
        let store = match config.storage {
            Storage::Memory => Store::from(MemoryStore::new()),
            Storage::File => {
                let (store, steps) = FileStore::create(store_settings());
                steps.iter().for_each(|step| disk.perform(step).expect("a step"));
                Store::from(store)
            }
        };
        self.registry.insert(config, self.now_ns, ());
        self.disks.insert(name.clone(), disk);
        self.streams.insert(name.clone(), Stream::new(settings, store));
        self.ask(&name, Command::info())
    }

    /// Writes what a stream wants written.
    fn commit(&mut self, name: &str) {
        let (Some(stream), Some(disk)) = (self.streams.get_mut(name), self.disks.get_mut(name)) else {
            return;
        };
        while let Some(commit) = stream.take_commit() {
            commit.steps.iter().for_each(|step| disk.perform(step).expect("a step"));
            let _ = stream.finish_commit(Ok(()));
        }
    }

    /// The answer of the API; `None` if there is none.
    fn api(&mut self, verb: &Verb<'_>, header: &[u8], body: &[u8]) -> Option<Vec<u8>> {
        let server = self.server.clone();
        let situation = Situation { server: &server, strictness: Strictness::Strict };
        let name = |entry: &ringmain::stream::registry::Entry<()>| entry.config.name.clone();
        let (said, offset) = match control::plan(&self.registry, verb, header, body, situation) {
            Plan::Answer(answer) | Plan::Failure(answer) => return Some(answer),
            Plan::AccountInfo => {
                let reports: Vec<_> =
                    self.streams.values().map(|stream| stream.report(false, "", 0)).collect();
                let usage = control::usage(&reports);
                return Some(api::account_info(&usage, self.registry.limits(), ""));
            }
            Plan::Create(config) => (self.create(*config), 0),
            Plan::Update { entry, config } => {
                let name = name(entry);
                self.registry.set_config((*config).clone());
                (self.ask(&name, Command::Update(config)), 0)
            }
            Plan::Delete(entry) => {
                let name = name(entry);
                self.registry.remove(&name);
                self.streams.remove(&name);
                self.disks.remove(&name);
                return Some(api::success(verb));
            }
            Plan::Ask { entry, command, offset } => {
                let name = name(entry);
                (self.ask(&name, command), offset)
            }
            Plan::List { entries, total, offset } => {
                let reports: Vec<_> = entries
                    .iter()
                    .map(|entry| self.streams[&entry.config.name].report(false, "", 0))
                    .collect();
                return Some(api::stream_list(&reports, total, offset, self.frame()));
            }
            Plan::Elsewhere | Plan::Snapshot { .. } | Plan::Restore(_) => return None,
        };
        Some(control::answer(verb, offset, said, self.frame()))
    }

    fn direct_get(
        &mut self,
        name: &str,
        subject: Option<&str>,
        reply: &str,
        header: &[u8],
        body: &[u8],
    ) -> bool {
        let Some(stream) = self.streams.get_mut(name).filter(|stream| stream.config().allow_direct) else {
            return false;
        };
        let subject = subject.map(str::as_bytes);
        let get = DirectGet { subject, reply: reply.as_bytes(), header, body, max_bytes: 64 << 20 };
        let mut pending = stream.direct_get(get);
        while let Some(waiting) = pending {
            let message = self.disks[name].message(&waiting.plan);
            pending = stream.resume(waiting, message);
        }
        true
    }

    fn deliver(&mut self) {
        let names: Vec<String> = self.streams.keys().cloned().collect();
        for name in names {
            let stream = self.streams.get_mut(&name).expect("it is there");
            while stream.next_deadline_ns().is_some_and(|deadline| deadline <= self.now_ns) {
                stream.tick(self.now_ns);
                while let Some(waiting) = stream.take_read() {
                    let message = self.disks[&name].message(&waiting.plan);
                    stream.resume_schedule(waiting, message, self.now_ns);
                }
            }
            self.commit(&name);
            let stream = self.streams.get_mut(&name).expect("it is there");
            stream.take_due(|out| {
                self.received.push_back(Delivery {
                    subject: String::from_utf8_lossy(out.subject).into_owned(),
                    header: out.header.to_vec(),
                    body: out.payload.to_vec(),
                });
            });
        }
    }
}

/// A disk in memory.
#[derive(Default)]
struct Disk {
    files: BTreeMap<FileId, Vec<u8>>,
}

impl Disk {
    fn message(&self, plan: &ReadPlan) -> Option<StoredMessage> {
        let file = &self.files[&plan.file];
        let from = plan.offset as usize;
        let to = file.len().min(from + plan.length as usize);
        let bytes = bytes::Bytes::copy_from_slice(&file[from..to]);
        plan.decode(&bytes).expect("no damage").into_iter().next()
    }
}

impl Files for Disk {
    fn list(&mut self) -> std::io::Result<Vec<String>> {
        Ok(self.files.keys().map(ToString::to_string).collect())
    }

    fn len(&mut self, file: FileId) -> std::io::Result<u64> {
        Ok(self.files[&file].len() as u64)
    }

    fn read_at(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let rest = self.files[&file].get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn perform(&mut self, step: &Step) -> std::io::Result<()> {
        let extend = |file: &mut Vec<u8>, len: usize| {
            if file.len() < len {
                file.resize(len, 0);
            }
        };
        match step {
            Step::Create { file } => drop(self.files.insert(*file, Vec::new())),
            Step::Allocate { file, offset, length } => {
                extend(self.files.entry(*file).or_default(), (offset + length) as usize);
            }
            Step::Write { file, offset, buffers } => {
                let file = self.files.entry(*file).or_default();
                let mut at = *offset as usize;
                for buffer in buffers {
                    extend(file, at + buffer.len());
                    file[at..at + buffer.len()].copy_from_slice(buffer);
                    at += buffer.len();
                }
            }
            Step::Truncate { file, length } => {
                self.files.entry(*file).or_default().resize(*length as usize, 0)
            }
            Step::PunchHole { file, offset, length } => {
                let file = self.files.entry(*file).or_default();
                let to = file.len().min((offset + length) as usize);
                file[*offset as usize..to].fill(0);
            }
            Step::Rename { from, to } => {
                let content = self.files.remove(from).expect("a file to rename");
                self.files.insert(*to, content);
            }
            Step::Remove { file } => drop(self.files.remove(file)),
            Step::SyncData { .. } | Step::SyncDirectory => {}
        }
        Ok(())
    }
}

/// Hardly anything stays in memory, so that reading from files is played too.
fn store_settings() -> Settings {
    Settings { cache_bytes_max: 64, ..Settings::new(7) }
}

impl Player for Account {
    fn begin(&mut self) {}

    fn publish(&mut self, subject: &str, reply: &str, header: &[u8], body: &[u8]) {
        self.now_ns += 1_000_000;
        self.deliver();
        if let Some(verb) = Verb::parse(subject) {
            let answered = match verb {
                Verb::DirectGet { stream, subject } => self.direct_get(stream, subject, reply, header, body),
                _ => {
                    let answer = self.api(&verb, header, body);
                    self.received.extend(answer.map(|body| Delivery {
                        subject: reply.to_owned(),
                        header: Vec::new(),
                        body,
                    }));
                    true
                }
            };
            if answered {
                return self.deliver();
            }
        } else if subject.starts_with("$JS.API.") {
            return;
        } else if let Some(entry) = self.registry.of_subject(subject) {
            let name = &entry.config.name;
            let stream = self.streams.get_mut(name).expect("the registry's stream");
            let incoming =
                Incoming { subject: subject.as_bytes(), reply: reply.as_bytes(), header, payload: body };
            let mut pending = stream.publish(incoming, self.now_ns);
            while let Some(waiting) = pending {
                let message = self.disks[name].message(&waiting.plan);
                pending = stream.resume_publish(waiting, message, self.now_ns);
            }
            return self.deliver();
        }
        self.received.push_back(Delivery {
            subject: reply.to_owned(),
            header: format!("NATS/1.0 503\r\nNats-Subject: {subject}\r\n\r\n").into_bytes(),
            body: Vec::new(),
        });
    }

    fn subscribe(&mut self, subject: &str) {
        self.subscriptions.push(subject.to_owned());
    }

    fn next(&mut self, is_wanted: &dyn Fn(&str) -> bool) -> Option<Delivery> {
        let at = self.received.iter().position(|delivery| is_wanted(&delivery.subject))?;
        self.received.remove(at)
    }

    fn wait(&mut self, ms: u64) {
        // Step by step, so that what is due comes in its order.
        for _ in 0..ms.div_ceil(50) {
            self.now_ns += 50_000_000;
            self.deliver();
        }
    }

    fn restart(&mut self) {
        self.now_ns += 1_000_000;
        for (name, stream) in std::mem::take(&mut self.streams) {
            let settings = self.settings(stream.config().clone(), stream.created_ns());
            let disk = self.disks.get_mut(&name).expect("the stream's disk");
            let (store, _) = FileStore::open(disk, store_settings()).expect("the store opens");
            let stream = Stream::open(settings, Store::from(store), self.now_ns, |plan| disk.message(plan));
            self.streams.insert(name, stream);
        }
        self.deliver();
    }
}
