//! Wire dialogues: the scripts of `tests/wire/*.txt`, played to a server, byte for byte.
//!
//! The expectation is never written by hand. `*.golden` holds what the real nats-server answered, step by step
//! and connection by connection; Ringmain must answer the same, and so must the real server when it is installed
//! (which keeps the recordings honest). Only what has to differ between two servers is normalised: identity,
//! port and counters inside INFO.
//!
//! ```text
//! WIRE_CASE=text    plays only the cases whose `file: title` contains the text
//! WIRE_RECORD=1     writes the recordings anew from the real server; with WIRE_CASE those of files with such a case
//! RINGMAIN_BIN=…    judges that binary instead of the one just built
//! RINGMAIN_IO=…     what drives its sockets: uring, epoll, or epoll because io_uring is refused
//! NATS_SERVER=…     the real server
//! ```
//!
//! The script language, one step a line:
//!
//! ```text
//! === title                  a case begins
//! config: max_payload: 1024  a line of the server's configuration file; cases of one file and configuration
//!                            share a server
//! awaits: accounts           a feature that Ringmain does not have yet: the case is skipped for it, by name
//! fresh: yes                 a server of its own (for limits that count connections)
//! show: info                 the first INFO of each connection is part of the transcript
//! unordered: yes             frames that arrive in one step are compared as a sorted list
//! mask: sid                  subscription ids in MSG and HMSG are not compared
//! A> bytes                   connection A (opened when first named) writes
//! A>*100 bytes               the same 100 times in one write, {i} counting from 1
//! A>/7 bytes                 the same in pieces of 7 bytes, each sent before the next
//! A< bytes                   waits for these bytes; what came up to their end is this step's transcript
//! A?                         waits until nothing more comes
//! A+B?                       the same over several connections, frames sorted together
//! A ping                     a PING and the wait for a PONG
//! A open, A shut, A gone     connects; closes the writing half; closes all without reading
//! A closed                   waits for the server to close the connection
//! ```
//!
//! In bytes: `\r \n \t \0 \\ \xNN`, `\{unit*N}` for N times the unit, and `\(SEED)` for the signature of the connection's
//! nonce by that nkey, in URL-safe base64 without padding; `\(SEED=)` in standard base64; `\(reply)` for the reply into another
//! account (`_R_.…`) that the connection has been shown last. At the end of a case every connection is read until quiet, and then proves that it still works: two PINGs and their answers, half-close, the end.

mod server_process;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use server_process::{ServerProcess, announce, candidate, reference};
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// While recording, a connection counts as quiet after this long without a byte.
const QUIET_RECORDING: Duration = Duration::from_millis(150);
/// While checking a step that should bring nothing, this is how long a stray byte has to show up
/// (a later one still spoils the next step or the end of the case).
const QUIET_CHECKING: Duration = Duration::from_millis(40);
/// An answer that differs from the recorded one is final after this long without a byte; shorter than the two
/// seconds after which a server sends its first PING, which would only confuse the report.
const QUIET_DIFFERING: Duration = Duration::from_millis(1500);
/// Expected bytes and closes must come within this.
const ARRIVES_WITHIN: Duration = Duration::from_secs(6);
/// Between the pieces of a split write, so that they arrive as several reads.
const PIECE_PAUSE: Duration = Duration::from_micros(300);
const FULL_REPORTS_MAX: usize = 12;

#[test]
fn ringmain_answers_as_recorded() {
    if std::env::var_os("WIRE_RECORD").is_some() {
        announce("SKIPPED ringmain_answers_as_recorded: recording from the real server");
        return;
    }
    play_all(&candidate(), RINGMAIN, ServerProcess::start);
}

#[test]
fn ringmain_answers_as_recorded_where_io_uring_is_refused() {
    if std::env::var_os("WIRE_RECORD").is_some() {
        announce("SKIPPED ringmain_answers_as_recorded_where_io_uring_is_refused: recording");
        return;
    }
    play_all(&candidate(), RINGMAIN_ON_EPOLL, ServerProcess::start_without_io_uring);
}

#[test]
fn the_real_server_answers_as_recorded() {
    let Some(binary) = reference() else {
        announce(
            "SKIPPED the_real_server_answers_as_recorded: no nats-server (NATS_SERVER or .deps/py/bin/nats-server)",
        );
        return;
    };
    if std::env::var_os("WIRE_RECORD").is_some() {
        record_all(&binary);
    } else {
        play_all(&binary, "the real server", ServerProcess::start);
    }
}

#[test]
fn scripts_have_distinct_titles_and_no_recording_without_a_script() {
    let mut seen = HashMap::new();
    let mut cases = 0;
    for file in script_files() {
        let scripted = read_script(&file);
        let recorded = read_recording(&file);
        for case in &scripted {
            cases += 1;
            if let Some(other) = seen.insert(case.title.clone(), case.file.clone()) {
                panic!("{:?} is in {other} and in {}", case.title, case.file);
            }
            assert!(
                recorded.contains_key(&case.title),
                "{} has no recording: WIRE_RECORD=1 cargo test --test wire",
                case.name()
            );
        }
        for title in recorded.keys() {
            assert!(
                scripted.iter().any(|case| case.title == *title),
                "{}: recording without a script: {title}",
                file.display()
            );
        }
    }
    assert!(cases >= 130, "only {cases} cases");
}

/// The candidate's names in reports.
const RINGMAIN: &str = "ringmain";
const RINGMAIN_ON_EPOLL: &str = "ringmain without io_uring";

/// How a server is started, from its binary and its configuration.
type Start = fn(&Path, &str) -> Result<ServerProcess, String>;

fn play_all(binary: &Path, whom: &str, start: Start) {
    let filter = std::env::var("WIRE_CASE").unwrap_or_default();
    let (mut played, mut failures) = (0, Vec::new());
    for file in script_files() {
        let recorded = read_recording(&file);
        let mut servers = Servers::new(binary, start);
        for case in read_script(&file).iter().filter(|case| case.name().contains(&filter)) {
            if let (Some(feature), true) = (&case.awaits, whom.starts_with(RINGMAIN)) {
                announce(&format!("SKIPPED {}: awaits {feature}", case.name()));
                continue;
            }
            played += 1;
            let expected = recorded.get(&case.title).map_or(&[][..], Vec::as_slice);
            let outcome = servers.play(case, Some(expected));
            match outcome {
                Ok(transcript) if transcript == expected => {}
                Ok(transcript) => {
                    failures.push((case.name(), differences(case, expected, &transcript, whom)))
                }
                Err(error) => failures.push((case.name(), format!("{}: {error}", case.name()))),
            }
        }
    }
    announce(&format!("wire: {whom}: {} of {played} dialogues as recorded", played - failures.len()));
    if failures.is_empty() {
        return;
    }
    for (name, report) in failures.iter().take(FULL_REPORTS_MAX) {
        println!("{report}\nreplay: WIRE_CASE='{name}' cargo test --test wire -- --nocapture\n");
    }
    for (name, _) in failures.iter().skip(FULL_REPORTS_MAX) {
        println!("also: {name}");
    }
    panic!("{} of {played} dialogues differ from the recordings", failures.len());
}

fn record_all(binary: &Path) {
    let filter = std::env::var("WIRE_CASE").unwrap_or_default();
    for file in script_files() {
        if !read_script(&file).iter().any(|case| case.name().contains(&filter)) {
            continue;
        }
        let mut servers = Servers::new(binary, ServerProcess::start);
        let mut text = String::new();
        for case in &read_script(&file) {
            let transcript =
                servers.play(case, None).unwrap_or_else(|error| panic!("{}: {error}", case.name()));
            text.push_str(&format!("=== {}\n", case.title));
            transcript.iter().for_each(|block| text.push_str(&block.to_string()));
            text.push('\n');
        }
        let golden = file.with_extension("golden");
        fs::write(&golden, text).unwrap_or_else(|e| panic!("{}: {e}", golden.display()));
    }
}

/// What one step brought: the step itself, and what was received during it.
#[derive(Debug, Clone, PartialEq)]
struct Block {
    step: String,
    lines: Vec<String>,
}

impl Block {
    fn closes(&self) -> bool {
        self.lines.iter().any(|line| line == "(closed)")
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.step)?;
        self.lines.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

struct Case {
    file: String,
    title: String,
    source: String,
    config: String,
    fresh: bool,
    awaits: Option<String>,
    rendering: Rendering,
    steps: Vec<(String, Step)>,
}

impl Case {
    fn name(&self) -> String {
        format!("{}: {}", self.file, self.title)
    }
}

#[derive(Default, Clone, Copy)]
struct Rendering {
    shows_first_info: bool,
    unordered: bool,
    masks_sid: bool,
}

enum Step {
    Write { to: String, text: String, repeat: usize, piece: usize },
    AwaitBytes { from: String, bytes: Vec<u8> },
    AwaitQuiet { from: Vec<String> },
    Ping { on: String },
    Open { name: String },
    HalfClose { name: String },
    Abandon { name: String },
    AwaitClose { name: String },
}

/// The servers of one script file, one for each configuration in it.
struct Servers<'a> {
    binary: &'a Path,
    start: Start,
    by_config: HashMap<String, ServerProcess>,
}

impl<'a> Servers<'a> {
    fn new(binary: &'a Path, start: Start) -> Self {
        Self { binary, start, by_config: HashMap::new() }
    }

    /// Plays one case. `expected` is only used to know for how long waiting makes sense.
    fn play(&mut self, case: &Case, expected: Option<&[Block]>) -> Result<Vec<Block>, String> {
        if case.fresh || !self.by_config.contains_key(&case.config) {
            let server = (self.start)(self.binary, &case.config)?;
            self.by_config.insert(case.config.clone(), server);
        }
        let server = self.by_config.get_mut(&case.config).expect("just inserted");
        let mut player = Player {
            server,
            rendering: case.rendering,
            expected,
            connections: Vec::new(),
            transcript: Vec::new(),
        };
        let result = player.play(case);
        let transcript = player.transcript;
        if let Some(status) = server.ended() {
            let log = server.log();
            self.by_config.remove(&case.config);
            return Err(format!("the server ended ({status}) during this case:\n{log}"));
        }
        if case.fresh {
            self.by_config.remove(&case.config);
        }
        result.map(|()| transcript)
    }
}

struct Player<'a> {
    server: &'a ServerProcess,
    rendering: Rendering,
    expected: Option<&'a [Block]>,
    connections: Vec<Connection>,
    transcript: Vec<Block>,
}

struct Connection {
    name: String,
    stream: TcpStream,
    unread: Vec<u8>,
    /// What the server wants to have signed.
    nonce: Vec<u8>,
    /// The last reply into another account.
    reply: String,
    closed: bool,
    /// The script is done with it: nothing to check at the end.
    finished: bool,
}

impl Player<'_> {
    fn play(&mut self, case: &Case) -> Result<(), String> {
        for (text, step) in &case.steps {
            let lines = self.step(text, step).map_err(|error| format!("{text}\n  {error}"))?;
            self.transcript.push(Block { step: text.clone(), lines });
        }
        let open: Vec<usize> =
            (0..self.connections.len()).filter(|&i| !self.connections[i].finished).collect();
        for &i in &open {
            let step = format!("{} at the end", self.connections[i].name);
            let mut lines = self.read_until_quiet(&[i], &step);
            lines.extend(self.connections[i].closed.then(|| "(closed)".to_owned()));
            self.transcript.push(Block { step, lines });
        }
        for &i in &open {
            if self.connections[i].closed {
                continue;
            }
            let step = format!("{} pings twice", self.connections[i].name);
            let _ = self.connections[i].stream.write_all(b"PING\r\nPING\r\n");
            let lines = self.read_until_quiet(&[i], &step);
            self.transcript.push(Block { step, lines });
            let connection = &mut self.connections[i];
            let _ = connection.stream.shutdown(Shutdown::Write);
            connection.read_until(ARRIVES_WITHIN, |_| false);
            let mut lines = render(&connection.take_all(), self.rendering);
            lines.push(if connection.closed { "(closed)" } else { "(still open)" }.to_owned());
            self.transcript.push(Block { step: format!("{} half-closes", connection.name), lines });
        }
        Ok(())
    }

    fn step(&mut self, text: &str, step: &Step) -> Result<Vec<String>, String> {
        let mut lines = Vec::new();
        match step {
            Step::Open { name } => {
                self.connection(name, &mut lines)?;
            }
            Step::Write { to, text, repeat, piece } => {
                let i = self.connection(to, &mut lines)?;
                let text = text.replace("\\(reply)", &self.connections[i].reply);
                let bytes = bytes_to_write(&text, *repeat, &self.connections[i].nonce)?;
                self.connections[i].write_in_pieces(&bytes, *piece);
            }
            Step::AwaitBytes { from, bytes } => {
                let i = self.connection(from, &mut lines)?;
                lines.extend(self.await_bytes(i, bytes));
            }
            Step::Ping { on } => {
                let i = self.connection(on, &mut lines)?;
                self.connections[i].write_in_pieces(b"PING\r\n", usize::MAX);
                lines.extend(self.await_bytes(i, b"PONG\r\n"));
            }
            Step::AwaitQuiet { from } => {
                let indices: Result<Vec<usize>, String> =
                    from.iter().map(|name| self.connection(name, &mut lines)).collect();
                lines.extend(self.read_until_quiet(&indices?, text));
            }
            Step::HalfClose { name } => {
                let i = self.connection(name, &mut lines)?;
                let _ = self.connections[i].stream.shutdown(Shutdown::Write);
            }
            Step::Abandon { name } => {
                let i = self.connection(name, &mut lines)?;
                let _ = self.connections[i].stream.shutdown(Shutdown::Both);
                self.connections[i].finished = true;
                self.connections[i].name.push_str(" (gone)");
            }
            Step::AwaitClose { name } => {
                let i = self.connection(name, &mut lines)?;
                let connection = &mut self.connections[i];
                connection.read_until(ARRIVES_WITHIN, |_| false);
                lines.extend(render(&connection.take_all(), self.rendering));
                lines.push(if connection.closed { "(closed)" } else { "(still open)" }.to_owned());
                connection.finished = connection.closed;
            }
        }
        Ok(lines)
    }

    /// The connection of that name, opened now if the script has not named it before.
    fn connection(&mut self, name: &str, lines: &mut Vec<String>) -> Result<usize, String> {
        if let Some(i) = self.connections.iter().position(|connection| connection.name == name) {
            return Ok(i);
        }
        let stream = TcpStream::connect(self.server.address).map_err(|e| format!("connect: {e}"))?;
        stream.set_nodelay(true).map_err(|e| format!("nodelay: {e}"))?;
        stream.set_write_timeout(Some(ARRIVES_WITHIN)).map_err(|e| format!("write timeout: {e}"))?;
        let mut connection = Connection {
            name: name.to_owned(),
            stream,
            unread: Vec::new(),
            nonce: Vec::new(),
            reply: String::new(),
            closed: false,
            finished: false,
        };
        connection.read_until(ARRIVES_WITHIN, |unread| unread.contains(&b'\n'));
        let end = connection.unread.iter().position(|&byte| byte == b'\n');
        let info = connection.take(end.map_or(0, |at| at + 1));
        connection.nonce = nonce_of(&info);
        if !info.starts_with(b"INFO {") {
            lines.push("(no INFO)".to_owned());
        } else if self.rendering.shows_first_info {
            lines.extend(render(&info, self.rendering));
        }
        self.connections.push(connection);
        Ok(self.connections.len() - 1)
    }

    fn await_bytes(&mut self, i: usize, bytes: &[u8]) -> Vec<String> {
        let connection = &mut self.connections[i];
        connection.read_until(ARRIVES_WITHIN, |unread| find(unread, bytes).is_some());
        let found = find(&connection.unread, bytes);
        let received = connection.take(found.map_or(usize::MAX, |at| at + bytes.len()));
        let mut lines = render(&received, self.rendering);
        if found.is_none() {
            lines.push(if connection.closed { "(closed)" } else { "(did not come)" }.to_owned());
        }
        lines
    }

    /// Reads until nothing more comes: while recording, for a while; while checking, until the recorded
    /// answer is there in full, or long enough for its absence to be a difference.
    fn read_until_quiet(&mut self, indices: &[usize], step: &str) -> Vec<String> {
        let expected = self.expected.and_then(|blocks| {
            let block = blocks.get(self.transcript.len()).filter(|block| block.step == step)?;
            Some(block.lines.iter().filter(|line| *line != "(closed)").cloned().collect::<Vec<_>>())
        });
        let closes =
            self.expected.and_then(|blocks| blocks.get(self.transcript.len())).is_some_and(Block::closes);
        let quiet = match &expected {
            Some(_) if closes => ARRIVES_WITHIN,
            None => QUIET_RECORDING,
            Some(lines) if lines.is_empty() => QUIET_CHECKING,
            Some(_) => QUIET_DIFFERING,
        };
        let mut last_byte = Instant::now();
        let mut rendered = Vec::new();
        let mut changed = true;
        loop {
            let mut received = Vec::new();
            for &i in indices {
                let connection = &mut self.connections[i];
                let before = connection.unread.len();
                connection.read_once(Duration::from_millis(if indices.len() > 1 { 2 } else { 10 }));
                if connection.unread.len() > before {
                    last_byte = Instant::now();
                    changed = true;
                }
                received.extend_from_slice(&connection.unread);
            }
            if std::mem::take(&mut changed) {
                let sorted =
                    Rendering { unordered: self.rendering.unordered || indices.len() > 1, ..self.rendering };
                rendered = render(&received, sorted);
            }
            let all_closed = indices.iter().all(|&i| self.connections[i].closed);
            let complete = expected.as_ref().is_some_and(|lines| !lines.is_empty() && *lines == rendered);
            if all_closed || complete || last_byte.elapsed() >= quiet {
                indices.iter().for_each(|&i| drop(self.connections[i].take_all()));
                return rendered;
            }
        }
    }
}

impl Connection {
    /// A failed write is no error of the script: the server may have closed, which reading will show.
    fn write_in_pieces(&mut self, bytes: &[u8], piece: usize) {
        for chunk in bytes.chunks(piece) {
            if self.stream.write_all(chunk).is_err() {
                return;
            }
            if piece < bytes.len() {
                std::thread::sleep(PIECE_PAUSE);
            }
        }
    }

    fn read_once(&mut self, patience: Duration) {
        if self.closed {
            return;
        }
        let mut buffer = [0; 65536];
        self.stream.set_read_timeout(Some(patience)).expect("patience is not zero");
        match self.stream.read(&mut buffer) {
            Ok(0) => self.closed = true,
            Ok(length) => self.unread.extend_from_slice(&buffer[..length]),
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(_) => self.closed = true,
        }
    }

    fn read_until(&mut self, limit: Duration, done: impl Fn(&[u8]) -> bool) {
        let give_up = Instant::now() + limit;
        while !done(&self.unread) && !self.closed && Instant::now() < give_up {
            self.read_once(Duration::from_millis(20));
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let length = length.min(self.unread.len());
        let taken: Vec<u8> = self.unread.drain(..length).collect();
        self.note_reply(&taken);
        taken
    }

    fn note_reply(&mut self, received: &[u8]) {
        let Some(at) = memchr::memmem::rfind(received, b"_R_.") else { return };
        let word = received[at..].split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
        self.reply = String::from_utf8_lossy(word).into_owned();
    }

    fn take_all(&mut self) -> Vec<u8> {
        let taken = std::mem::take(&mut self.unread);
        self.note_reply(&taken);
        taken
    }
}

/// Received bytes as transcript lines: one frame line or payload line each, escaped, long runs folded.
fn render(bytes: &[u8], rendering: Rendering) -> Vec<String> {
    let mut frames = split_frames(bytes);
    if rendering.masks_sid {
        frames.iter_mut().for_each(mask_sid);
    }
    frames.iter_mut().for_each(mask_crossing);
    if rendering.unordered {
        frames.sort();
    }
    let lines_of = |frame: &Vec<u8>| -> Vec<String> {
        let lines = frame.split_inclusive(|&byte| byte == b'\n');
        let texts =
            lines.map(|line| if line.starts_with(b"INFO ") { normalise_info(line) } else { escape(line) });
        fold(texts.map(|text| vec![text]).collect(), "lines")
    };
    fold(frames.iter().map(lines_of).collect(), "times")
}

/// Writes equal neighbours once, with their number before the first line.
fn fold(items: Vec<Vec<String>>, unit: &str) -> Vec<String> {
    let mut folded: Vec<(Vec<String>, usize)> = Vec::new();
    for item in items {
        match folded.last_mut() {
            Some((last, times)) if *last == item => *times += 1,
            _ => folded.push((item, 1)),
        }
    }
    for (lines, times) in folded.iter_mut().filter(|(_, times)| *times > 1) {
        lines[0] = format!("({times} {unit}) {}", lines[0]);
    }
    folded.into_iter().flat_map(|(lines, _)| lines).collect()
}

/// Frames with their payloads; what does not look like one is cut at line ends.
fn split_frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let line = bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |at| at + 1);
        let head = String::from_utf8_lossy(&bytes[..line]);
        let words: Vec<&str> = head.split_ascii_whitespace().collect();
        let payload = match words.as_slice() {
            ["MSG" | "HMSG", .., size] => size.parse::<usize>().map_or(0, |size| size + 2),
            _ => 0,
        };
        let end = (line + payload).min(bytes.len());
        frames.push(bytes[..end].to_vec());
        bytes = &bytes[end..];
    }
    frames
}

/// `MSG subject SID …` → `MSG subject * …`
fn mask_sid(frame: &mut Vec<u8>) {
    if !frame.starts_with(b"MSG ") && !frame.starts_with(b"HMSG ") {
        return;
    }
    let spaces: Vec<usize> =
        frame.iter().enumerate().filter(|(_, byte)| **byte == b' ').map(|(at, _)| at).take(3).collect();
    if let [_, before, after] = spaces[..] {
        frame.splice(before + 1..after, *b"*");
    }
}

/// The type of the message that tells how long a service took.
const LATENCY_EVENT: &str = "io.nats.server.metric.v1.service_latency";

/// Masks the number or the string behind each `key` of a JSON text.
fn mask_value(text: &mut String, key: &str) {
    let mut at = 0;
    while let Some(found) = text[at..].find(key) {
        let from = at + found + key.len();
        let is_string = text[from..].starts_with('"');
        let from = from + usize::from(is_string);
        let stops = |c: char| if is_string { c == '"' } else { c == ',' || c == '}' };
        let len = text[from..].find(stops).unwrap_or_default();
        text.replace_range(from..from + len, "*");
        at = from;
    }
}

/// What has crossed accounts names the crossing and tells of a connection: `_R_.*.*`, and of the header that does so times, ids and
/// names, and with them the sizes.
fn mask_crossing(frame: &mut Vec<u8>) {
    let marks = [b"_R_.".as_slice(), b"Nats-Request-Info", LATENCY_EVENT.as_bytes()];
    if marks.iter().all(|mark| find(frame, mark).is_none()) {
        return;
    }
    let mut text = String::from_utf8_lossy(frame).into_owned();
    let mut at = 0;
    while let Some(found) = text[at..].find("_R_.") {
        let from = at + found + 4;
        let len =
            text[from..].find(|c: char| c != '.' && !c.is_ascii_alphanumeric()).unwrap_or(text.len() - from);
        // What a script itself writes behind that prefix is shorter.
        let parts: Vec<&str> = text[from..from + len].split('.').collect();
        if parts.len() >= 2 && parts[..2].iter().all(|part| part.len() >= 6) {
            text.replace_range(from..from + len, "*.*");
        }
        at = from;
    }
    if let Some((head, rest)) = text.split_once("\r\n")
        && (rest.contains("Nats-Request-Info: {") || rest.contains(LATENCY_EVENT))
    {
        let sizes = if head.starts_with("HMSG") { 2 } else { 1 };
        // The server's own messages have a space more in the reference.
        let words: Vec<&str> = head.split(' ').filter(|word| !word.is_empty()).collect();
        let mut head = words[..words.len() - sizes].join(" ");
        head.push_str(&" *".repeat(sizes));
        head.push_str("\r\n");
        let mut rest = rest.to_owned();
        for key in ["start", "server", "timestamp", "rtt", "id", "service", "system", "total"] {
            mask_value(&mut rest, &format!("\"{key}\":"));
        }
        text = head + &rest;
    }
    *frame = text.into_bytes();
}

/// Runs of a byte are folded; what is still too long to read is cut and carries its checksum.
fn escape(bytes: &[u8]) -> String {
    const FOLD_FROM: usize = 24;
    const LONG_FROM: usize = 2000;
    const LONG_SHOWN: usize = 60;
    let mut text = String::new();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        let run = bytes[at..].iter().take_while(|&&other| other == byte).count();
        let unit = match byte {
            b'\r' => "\\r".to_owned(),
            b'\n' => "\\n".to_owned(),
            b'\t' => "\\t".to_owned(),
            b'\\' => "\\\\".to_owned(),
            0x20..0x7f => char::from(byte).to_string(),
            _ => format!("\\x{byte:02x}"),
        };
        if run >= FOLD_FROM {
            text.push_str(&format!("\\{{{unit}*{run}}}"));
            at += run;
        } else {
            text.push_str(&unit);
            at += 1;
        }
    }
    if text.len() >= LONG_FROM {
        let fnv1a = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        let checksum = bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv1a);
        text.truncate(LONG_SHOWN);
        text.push_str(&format!(" ({} bytes in all, FNV-1a {checksum:016x})", bytes.len()));
    }
    text
}

/// An INFO line with its keys in the order of the wire and every value that a client may rely on; identity,
/// ports and counters become placeholders, and what names the build is left out.
fn normalise_info(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let Some(json) = text.strip_prefix("INFO ").and_then(|rest| rest.strip_suffix(" \r\n")) else {
        return format!("(not of the form `INFO {{json}} CR LF`) {}", escape(line));
    };
    let fields = match serde_json::from_str::<OrderedObject>(json) {
        Ok(fields) => fields.0,
        Err(error) => return format!("(bad JSON: {error}) {}", escape(line)),
    };
    let compact = |value: &Value| serde_json::to_string(value).expect("a value");
    let joined: Vec<String> =
        fields.iter().map(|(key, value)| format!("\"{key}\":{}", compact(value))).collect();
    if format!("{{{}}}", joined.join(",")) != json {
        return format!("(JSON is not compact) {}", escape(line));
    }
    let kept = fields.iter().filter(|(key, _)| !matches!(key.as_str(), "git_commit" | "ringmain"));
    let normal: Vec<String> = kept
        .map(|(key, value)| match (key.as_str(), value) {
            ("server_id" | "xkey" | "nonce" | "cluster", Value::String(text)) => {
                format!("{key}:<{} characters>", text.len())
            }
            ("server_name" | "go", Value::String(_)) => format!("{key}:<text>"),
            ("port" | "client_id", Value::Number(_)) => format!("{key}:<number>"),
            ("connect_urls", Value::Array(urls)) => format!("{key}:<{} addresses>", urls.len()),
            _ => format!("{key}:{}", compact(value)),
        })
        .collect();
    format!("INFO {{{}}} \\r\\n", normal.join(", "))
}

/// A JSON object that remembers the order of its keys.
struct OrderedObject(Vec<(String, Value)>);

impl<'de> serde::Deserialize<'de> for OrderedObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = OrderedObject;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OrderedObject, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(OrderedObject(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

fn differences(case: &Case, expected: &[Block], got: &[Block], whom: &str) -> String {
    let mut report = format!(
        "--- {}\n{}\n--- the recording, and (marked !) where {whom} differs\n",
        case.name(),
        case.source.trim_end()
    );
    for i in 0..expected.len().max(got.len()) {
        match (expected.get(i), got.get(i)) {
            (Some(expected), Some(got)) if expected == got => report.push_str(&expected.to_string()),
            (expected, got) => {
                let text =
                    |block: Option<&Block>| block.map_or("(no such step)\n".to_owned(), ToString::to_string);
                report.push_str(&format!("{}!   instead of this:\n", text(expected)));
                text(got).lines().skip(1).for_each(|line| report.push_str(&format!("! {line}\n")));
            }
        }
    }
    report
}

fn script_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire");
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files
}

fn read_script(path: &Path) -> Vec<Case> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = path.file_stem().expect("a named file").to_string_lossy().into_owned();
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(title) = line.strip_prefix("=== ") {
            let title = title.trim().to_owned();
            let rendering = Rendering::default();
            let (source, config) = (String::new(), String::new());
            cases.push(Case {
                file: file.clone(),
                title,
                source,
                config,
                fresh: false,
                awaits: None,
                rendering,
                steps: Vec::new(),
            });
        } else if !line.trim().is_empty() && !line.starts_with('#') {
            let place = format!("{}:{}", path.display(), number + 1);
            let case = cases.last_mut().unwrap_or_else(|| panic!("{place}: before the first case"));
            read_line(case, line).unwrap_or_else(|error| panic!("{place}: {error}"));
        }
        if let Some(case) = cases.last_mut() {
            case.source.push_str(&format!("{line}\n"));
        }
    }
    cases
}

fn read_line(case: &mut Case, line: &str) -> Result<(), String> {
    if let Some(config) = line.strip_prefix("config: ") {
        case.config.push_str(&format!("{config}\n"));
        return Ok(());
    }
    match line.trim_end() {
        "fresh: yes" => case.fresh = true,
        _ if line.starts_with("awaits: ") => case.awaits = Some(line["awaits: ".len()..].to_owned()),
        "show: info" => case.rendering.shows_first_info = true,
        "unordered: yes" => case.rendering.unordered = true,
        "mask: sid" => case.rendering.masks_sid = true,
        _ => case.steps.push((line.to_owned(), read_step(line)?)),
    }
    Ok(())
}

fn read_step(line: &str) -> Result<Step, String> {
    let named = line.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'+').count();
    let (names, rest) = line.split_at(named);
    let name = names.to_owned();
    match rest.trim_end() {
        _ if names.is_empty() => return Err(format!("no connection named: {line}")),
        "?" => {
            return Ok(Step::AwaitQuiet { from: names.split('+').map(str::to_owned).collect() });
        }
        " ping" => return Ok(Step::Ping { on: name }),
        " open" => return Ok(Step::Open { name }),
        " shut" => return Ok(Step::HalfClose { name }),
        " gone" => return Ok(Step::Abandon { name }),
        " closed" => return Ok(Step::AwaitClose { name }),
        _ => {}
    }
    if let Some(text) = rest.strip_prefix("< ") {
        return Ok(Step::AwaitBytes { from: name, bytes: unescape(text)? });
    }
    let (options, text) = rest.strip_prefix('>').and_then(|rest| rest.split_once(' ')).ok_or("not a step")?;
    let number = |text: &str| text.parse::<usize>().map_err(|e| format!("{text}: {e}"));
    let (repeat, piece) = match (options.strip_prefix('*'), options.strip_prefix('/')) {
        (Some(repeat), _) => (number(repeat)?, usize::MAX),
        (_, Some(piece)) => (1, number(piece)?),
        _ if options.is_empty() => (1, usize::MAX),
        _ => return Err(format!("unknown option {options}")),
    };
    bytes_to_write(text, 1, b"")?;
    Ok(Step::Write { to: name, text: text.to_owned(), repeat, piece })
}

fn bytes_to_write(text: &str, repeat: usize, nonce: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for i in 1..=repeat {
        let text = if repeat > 1 { text.replace("{i}", &i.to_string()) } else { text.to_owned() };
        bytes.extend(unescape_signing(&text, nonce)?);
    }
    Ok(bytes)
}

/// The nonce of an INFO line, if it has one.
fn nonce_of(info: &[u8]) -> Vec<u8> {
    let json = info.strip_prefix(b"INFO ").unwrap_or_default();
    let fields: Value = serde_json::from_slice(json).unwrap_or_default();
    fields["nonce"].as_str().unwrap_or_default().as_bytes().to_vec()
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    unescape_signing(text, b"")
}

fn unescape_signing(text: &str, nonce: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let (kind, after) = rest[at + 1..].split_at_checked(1).ok_or("a lone backslash")?;
        rest = after;
        match kind {
            "r" => bytes.push(b'\r'),
            "n" => bytes.push(b'\n'),
            "t" => bytes.push(b'\t'),
            "0" => bytes.push(0),
            "\\" => bytes.push(b'\\'),
            "x" => {
                let (digits, after) = rest.split_at_checked(2).ok_or("\\x needs two digits")?;
                bytes.push(u8::from_str_radix(digits, 16).map_err(|e| format!("\\x{digits}: {e}"))?);
                rest = after;
            }
            "{" => {
                let (run, after) = rest.split_once('}').ok_or("a run without its }")?;
                let (unit, times) = run.rsplit_once('*').ok_or("a run without *")?;
                let times = times.parse().map_err(|e| format!("{times}: {e}"))?;
                bytes.extend(unescape(unit)?.repeat(times));
                rest = after;
            }
            "(" if rest.starts_with("reply)") => {
                // Not known while the script is read.
                rest = &rest["reply)".len()..];
            }
            "(" => {
                let (seed, after) = rest.split_once(')').ok_or("a seed without its )")?;
                let (seed, encoding) = match seed.strip_suffix('=') {
                    Some(seed) => (seed, data_encoding::BASE64),
                    None => (seed, data_encoding::BASE64URL_NOPAD),
                };
                let key = nkeys::KeyPair::from_seed(seed).map_err(|e| format!("{seed}: {e}"))?;
                let signature = key.sign(nonce).map_err(|e| format!("{seed}: {e}"))?;
                bytes.extend(encoding.encode(&signature).into_bytes());
                rest = after;
            }
            _ => return Err(format!("unknown escape \\{kind}")),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

fn read_recording(script: &Path) -> HashMap<String, Vec<Block>> {
    let text = fs::read_to_string(script.with_extension("golden")).unwrap_or_default();
    let mut recordings: HashMap<String, Vec<Block>> = HashMap::new();
    let mut title = String::new();
    for line in text.lines() {
        if let Some(new) = line.strip_prefix("=== ") {
            title = new.to_owned();
            recordings.insert(title.clone(), Vec::new());
        } else if let Some(blocks) = recordings.get_mut(&title) {
            match line.strip_prefix("    ") {
                Some(received) => {
                    blocks.last_mut().expect("a step comes first").lines.push(received.to_owned())
                }
                None if line.is_empty() => {}
                None => blocks.push(Block { step: line.to_owned(), lines: Vec::new() }),
            }
        }
    }
    recordings
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}
