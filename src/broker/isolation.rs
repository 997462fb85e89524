//! Property test of accounts: what is published in one reaches exactly those whom its exports, the imports of others and
//! permissions let it reach, under the right subject; and the answer to a request reaches who has asked, and nobody else.
//!
//! Every topology is a random configuration, read as an operator's would be; parts that are refused are left out.
//! Three brokers exchange batches, and connections move between them. The model knows nothing of indexes, lists
//! or shadows: it walks all subscriptions for every message.
//!
//! `ISOLATION_TOPOLOGIES=10000 cargo test --lib isolation` plays so many; a failure names its seed, which
//! `ISOLATION_SEED` plays alone.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Batch, Broker, Input, Settings, install_services};
use crate::auth::Directory;
use crate::auth::nkey::NonceKey;
use crate::config::lang::{Environment, Files, ReadError};
use crate::config::{Options, Startup, load_from};
use crate::subject::interest::LocalInterest;
use crate::subject::name::{Pattern, subject_matches_pattern};
use crate::wire::info::Info;

const WORKERS: usize = 3;
const ACCOUNTS: usize = 4;
const TOPOLOGIES: u64 = 250;
const IMPORTS_TRIED: usize = 16;
const INBOX: &str = "inbox";
const SUBJECTS: &[&str] = &["a", "b", "a.b", "a.c", "b.c", "a.b.c", "x", "x.b", "in.a.b", "c.a.b", "a.A1"];
const PATTERNS: &[&str] =
    &["a", "b", "a.b", "a.*", "a.>", "*.b", "*.b.>", "x", "x.*", "x.>", "in.>", "in.*.b", "c.*.*", "a.*.c"];
const EXPORTS: &[&str] = &["a", "b", "a.*", "a.>", "a.b", "*.b", "*.*", "b.c", "x.>"];
const IMPORTS: &[&str] = &["a", "b", "a.*", "a.>", "a.b", "*.b", "*.*", "b.c", "x.>", "a.A1", "x.b"];
const TO: &[&str] = &["", "", "x", "x.$1", "x.*", "in.a.>", "c.$2.$1", "c.a.b", "a", "b.>"];
/// What permissions name.
const RULES: &[&str] = &["a", "a.b", "a.*", "b", "b.>", "*.b", "x.>", "in.>", "c.*.*"];
const MAPPINGS: &[(&str, &str)] = &[("x", "a.b"), ("b", "x.b"), ("a.*", "x.$1"), ("a.b", "b.c")];

struct File(String);

impl Files for File {
    fn read(&self, _: &str) -> Result<String, ReadError> {
        Ok(self.0.clone())
    }
}

impl Environment for File {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

fn pick<'a>(random: &mut fastrand::Rng, of: &[&'a str]) -> &'a str {
    of[random.usize(..of.len())]
}

/// What the user of an account may do, as its permissions say and as the model reads them.
#[derive(Clone, Default)]
struct Rules {
    subscribe_allow: Option<&'static str>,
    subscribe_deny: Option<&'static str>,
    publish_allow: Option<&'static str>,
    publish_deny: Option<&'static str>,
}

impl Rules {
    fn random(random: &mut fastrand::Rng) -> Rules {
        let mut rule = |of: u8| (random.u8(..of) == 0).then(|| pick(random, RULES));
        Rules {
            subscribe_allow: rule(6),
            subscribe_deny: rule(4),
            publish_allow: rule(6),
            publish_deny: rule(4),
        }
    }

    /// Inboxes and answers are always allowed.
    fn text(&self) -> String {
        let list = |allow: Option<&str>, deny: Option<&str>, always: &str| {
            let allow =
                allow.map(|allow| format!("allow: [\"{allow}\", \"{always}\"], ")).unwrap_or_default();
            let deny = deny.map(|deny| format!("deny: \"{deny}\"")).unwrap_or_default();
            format!("{{{allow}{deny}}}")
        };
        let subscribe = list(self.subscribe_allow, self.subscribe_deny, INBOX);
        let publish = list(self.publish_allow, self.publish_deny, "_R_.>");
        format!("permissions: {{subscribe: {subscribe}, publish: {publish}}}")
    }

    fn may_subscribe(&self, pattern: &str) -> bool {
        self.subscribe_allow.is_none_or(|allow| covers(allow, pattern))
            && !self.subscribe_deny.is_some_and(|deny| covers(deny, pattern))
    }

    fn may_get(&self, subject: &str) -> bool {
        !self.subscribe_deny.is_some_and(|deny| matches(subject, deny))
    }

    fn may_publish(&self, subject: &str) -> bool {
        self.publish_allow.is_none_or(|allow| matches(subject, allow))
            && !self.publish_deny.is_some_and(|deny| matches(subject, deny))
    }
}

/// Whether `pattern` lies within `rule` as the text that it is: `a.*` covers `a.>`, although that matches more.
fn covers(rule: &str, pattern: &str) -> bool {
    let mut tokens = pattern.split('.');
    for rule in rule.split('.') {
        match (rule, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (rule, Some(token)) if rule == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// An account as a configuration writes it.
#[derive(Clone, Default)]
struct Sketch {
    exports: Vec<String>,
    imports: Vec<String>,
    mapping: String,
}

fn export(random: &mut fastrand::Rng, kind: &str, subject: &str, response: &str) -> String {
    let access = match random.u8(..8) {
        0 => ", accounts: [A1]",
        1 if subject == "a.*" => ", account_token_position: 2",
        _ => "",
    };
    let response = if kind == "service" { response } else { "" };
    format!("{{{kind}: \"{subject}\"{access}{response}}}")
}

fn import(random: &mut fastrand::Rng, kind: &str, from: usize, subject: &str) -> String {
    let is_literal = !subject.contains(['*', '>']);
    let to = match pick(random, TO) {
        // A subject that looks like a pattern is shown as it is, to whoever subscribes to a part of it.
        to if is_literal && kind == "stream" && to.contains(['*', '>', '$']) => String::new(),
        "" if kind == "stream" && random.u8(..3) == 0 => ", prefix: in".to_owned(),
        "" => String::new(),
        to => format!(", to: \"{to}\""),
    };
    format!("{{{kind}: {{account: A{from}, subject: \"{subject}\"}}{to}}}")
}

fn text(accounts: &[Sketch], rules: &[Rules]) -> String {
    let mut text = "accounts {\n".to_owned();
    for (account, (sketch, rules)) in accounts.iter().zip(rules).enumerate() {
        let (exports, imports) = (sketch.exports.join(", "), sketch.imports.join(", "));
        let (mapping, permissions) = (&sketch.mapping, rules.text());
        text += &format!(
            "A{account} {{ users: [ {{user: u{account}, password: p, {permissions}}} ], exports: [ {exports} ], imports: [ {imports} ]{mapping} }}\n"
        );
    }
    text + "}\n"
}

fn read(text: &str) -> Option<Options> {
    let file = File(text.to_owned());
    match load_from(["-c", "f"].map(Into::into), &file, &file) {
        Ok(Startup::Run(options, _)) => Some(*options),
        _ => None,
    }
}

/// Grows a configuration part by part, without those that are refused, and returns what it says, its permissions and its
/// text. `None`: nothing is imported.
fn configuration(random: &mut fastrand::Rng, response: &str) -> Option<(Options, Vec<Rules>, String)> {
    let rules: Vec<Rules> = (0..ACCOUNTS).map(|_| Rules::random(random)).collect();
    let mut accounts = vec![Sketch::default(); ACCOUNTS];
    let add = |accounts: &mut Vec<Sketch>, part: &dyn Fn(&mut Vec<Sketch>)| {
        let mut grown = accounts.clone();
        part(&mut grown);
        let is_taken = read(&text(&grown, &rules)).is_some();
        if is_taken {
            *accounts = grown;
        }
        is_taken
    };
    let mut exported = Vec::new();
    for account in 0..ACCOUNTS {
        for _ in 0..random.usize(..4) {
            let kind = if random.bool() { "stream" } else { "service" };
            let subject = pick(random, EXPORTS);
            let export = export(random, kind, subject, response);
            if add(&mut accounts, &|accounts| accounts[account].exports.push(export.clone())) {
                exported.push((account, kind, subject));
            }
        }
        if random.u8(..3) == 0 {
            let (from, to) = MAPPINGS[random.usize(..MAPPINGS.len())];
            let mapping = format!(", mappings: {{\"{from}\": \"{to}\"}}");
            add(&mut accounts, &|accounts| accounts[account].mapping.clone_from(&mapping));
        }
    }
    let mut imported = 0;
    for _ in 0..IMPORTS_TRIED {
        let (from, kind, subject) = *exported.get(random.usize(..exported.len().max(1)))?;
        let subject = if random.bool() { subject } else { pick(random, IMPORTS) };
        let import = import(random, kind, from, subject);
        let account = random.usize(..ACCOUNTS);
        imported += u32::from(add(&mut accounts, &|accounts| accounts[account].imports.push(import.clone())));
    }
    let text = text(&accounts, &rules);
    (imported > 0).then(|| (read(&text).expect("has been taken"), rules.clone(), text))
}

/// What the wildcards of `pattern` stand for in `subject`, and the rest.
fn captures<'a>(pattern: &str, subject: &'a str) -> (Vec<&'a str>, Vec<&'a str>) {
    let mut found = Vec::new();
    let mut tokens = subject.split('.');
    for token in pattern.split('.') {
        if token == ">" {
            return (found, tokens.collect());
        }
        let value = tokens.next().unwrap();
        if token == "*" {
            found.push(value);
        }
    }
    (found, Vec::new())
}

fn matches(subject: &str, pattern: &str) -> bool {
    subject_matches_pattern(subject.as_bytes(), Pattern::parse(pattern.as_bytes()).unwrap())
}

/// `subject`, which `from` matches, as `to` shows it.
fn shown(from: &str, to: &str, subject: &str) -> String {
    if !from.contains(['*', '>']) {
        return to.to_owned();
    }
    let (found, rest) = captures(from, subject);
    let mut stars = found.iter();
    let mut tokens = Vec::new();
    for token in to.split('.') {
        match token.strip_prefix('$') {
            Some(number) => tokens.push(found[number.parse::<usize>().unwrap() - 1]),
            None if token == "*" => tokens.push(stars.next().unwrap()),
            None if token == ">" => tokens.extend(&rest),
            None => tokens.push(token),
        }
    }
    tokens.join(".")
}

/// The exporter's subject of a request to `subject`, if the import is asked.
fn asked(local: &str, exported: &str, subject: &str) -> Option<String> {
    let stars = |token: &str| if token.starts_with('$') { "*".to_owned() } else { token.to_owned() };
    let pattern = if local == exported || !exported.contains(['*', '>']) {
        local.to_owned()
    } else {
        local.split('.').map(stars).collect::<Vec<_>>().join(".")
    };
    if !matches(subject, &pattern) {
        return None;
    }
    if local == exported {
        return Some(subject.to_owned());
    }
    if !exported.contains(['*', '>']) {
        return Some(exported.to_owned());
    }
    let (found, rest) = captures(&pattern, subject);
    // The n-th placeholder of the local subject names a wildcard of the exported one.
    let names: Vec<&str> = local.split('.').filter(|token| token.starts_with('$') || *token == "*").collect();
    let value = |number: usize| {
        let at = names.iter().enumerate().position(|(at, name)| match name.strip_prefix('$') {
            Some(name) => name.parse::<usize>().unwrap() == number,
            None => at + 1 == number,
        });
        found[at.unwrap()]
    };
    let mut number = 0;
    let mut tokens = Vec::new();
    for token in exported.split('.') {
        match token {
            "*" => {
                number += 1;
                tokens.push(value(number));
            }
            ">" => tokens.extend(&rest),
            literal => tokens.push(literal),
        }
    }
    Some(tokens.join("."))
}

struct Client {
    at: usize,
    conn: Option<u32>,
    settled: bool,
    account: usize,
    subscriptions: Vec<&'static str>,
    got: Vec<u8>,
}

struct World {
    options: Options,
    /// By account.
    rules: Vec<Rules>,
    /// Services answer more than once.
    streams: bool,
    brokers: Vec<Broker<LocalInterest>>,
    queues: Vec<Vec<VecDeque<Batch>>>,
    clients: Vec<Client>,
    random: fastrand::Rng,
    /// The configuration, and what has been said; printed when it fails.
    story: String,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.story);
        }
    }
}

/// What a message asks in another account.
struct Asked {
    exporter: usize,
    /// The exporter and the subject of its export.
    service: (usize, String),
    subject: String,
}

/// Who gets something: the client, its subscription, the subject, and whether it comes as a request from elsewhere.
type Delivery = (usize, usize, String, bool);

impl World {
    fn new(options: Options, rules: Vec<Rules>, streams: bool, story: String, seed: u64) -> World {
        let directory = Arc::new(Directory::new(&options, NonceKey([0; 32])).unwrap());
        let interests: Vec<LocalInterest> =
            (0..directory.accounts().slots()).map(|_| LocalInterest::default()).collect();
        install_services(directory.accounts(), &interests);
        let settings = Arc::new(Settings { directory, ..Settings::default() });
        let brokers = (0..WORKERS as u16)
            .map(|worker| {
                let info = Info::new("ID".into(), "test".into(), "0.0.0.0".into(), 4222);
                Broker::new(worker, WORKERS, settings.clone(), info, interests.clone(), seed)
            })
            .collect();
        let queues = (0..WORKERS).map(|_| (0..WORKERS).map(|_| VecDeque::new()).collect()).collect();
        let random = fastrand::Rng::with_seed(seed);
        World { options, rules, streams, brokers, queues, clients: Vec::new(), random, story }
    }

    fn connect(&mut self) {
        let account = self.random.usize(..ACCOUNTS);
        let at = self.random.usize(..WORKERS);
        let addr: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let client = self.clients.len();
        let conn = self.brokers[at].open(client as u64, addr);
        self.clients.push(Client {
            at,
            conn: Some(conn),
            settled: true,
            account,
            subscriptions: Vec::new(),
            got: Vec::new(),
        });
        self.say(
            client,
            &format!(
                "CONNECT {{\"verbose\":false,\"user\":\"u{account}\",\"pass\":\"p\",\"headers\":true,\"no_responders\":true}}\r\nSUB {INBOX} 1000\r\n"
            ),
        );
    }

    fn subscribe(&mut self, client: usize) {
        let pattern = pick(&mut self.random, PATTERNS);
        let subscriptions = &mut self.clients[client].subscriptions;
        let sid = subscriptions.len();
        subscriptions.push(pattern);
        let account = self.clients[client].account;
        self.story += &format!("client {client} of A{account}: SUB {pattern} {sid}\n");
        self.say(client, &format!("SUB {pattern} {sid}\r\n"));
    }

    fn say(&mut self, client: usize, text: &str) {
        let Client { at, conn: Some(conn), .. } = self.clients[client] else { panic!("at rest") };
        assert_eq!(self.brokers[at].handle_bytes(conn, text.as_bytes()), Input::Taken);
    }

    fn come_to_rest(&mut self) {
        for _ in 0..1000 {
            for at in 0..WORKERS {
                self.turn(at);
            }
            let waits = self.queues.iter().flatten().any(|queue| !queue.is_empty());
            if !waits && self.clients.iter().all(|client| client.settled) {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn turn(&mut self, at: usize) {
        for from in 0..WORKERS {
            let waiting = self.queues[from][at].len();
            for _ in 0..self.random.usize(0..=waiting) {
                let batch = self.queues[from][at].pop_front().unwrap();
                self.brokers[at].handle_batch(from as u16, &batch);
            }
        }
        while let Some((conn, cid)) = self.brokers[at].poll_arrived() {
            self.clients[cid as usize].conn = Some(conn);
        }
        while let Some(conn) = self.brokers[at].poll_settled() {
            let mut clients = self.clients.iter_mut();
            clients.find(|client| client.at == at && client.conn == Some(conn)).unwrap().settled = true;
        }
        self.send_batches(at);
        while let Some(conn) = self.brokers[at].poll_dirty() {
            let bytes: Vec<u8> = self.brokers[at].unsent(conn, 64).flatten().copied().collect();
            self.brokers[at].handle_sent(conn, bytes.len());
            let mut clients = self.clients.iter_mut();
            let client = clients.find(|client| client.at == at && client.conn == Some(conn)).unwrap();
            client.got.extend_from_slice(&bytes);
        }
    }

    fn send_batches(&mut self, at: usize) {
        for to in (0..WORKERS).filter(|to| *to != at) {
            while let Some(batch) = self.brokers[at].poll_batch(to as u16) {
                self.queues[at][to].push_back(batch);
            }
        }
    }

    /// Starts to move a client, if it can.
    fn relocate(&mut self, client: usize) {
        let to = self.random.usize(..WORKERS);
        let Client { at, conn: Some(conn), settled: true, .. } = self.clients[client] else { return };
        if to == at || !self.brokers[at].may_depart(conn) {
            return;
        }
        self.send_batches(at);
        self.brokers[at].depart(conn, to as u16);
        (self.clients[client].at, self.clients[client].conn) = (to, None);
        self.clients[client].settled = false;
        self.send_batches(at);
    }

    /// Messages of a client since the last call: sid, subject, reply, payload.
    fn take_messages(&mut self, client: usize) -> Vec<(usize, String, Option<String>, String)> {
        let got = String::from_utf8(std::mem::take(&mut self.clients[client].got)).unwrap();
        let mut rest = got.as_str();
        let mut messages = Vec::new();
        while let Some((head, after)) = rest.split_once("\r\n") {
            rest = after;
            let words: Vec<&str> = head.split(' ').collect();
            let (size, header_len) = match words[0] {
                "MSG" => (words[words.len() - 1].parse::<usize>().unwrap(), 0),
                "HMSG" => {
                    let header_len = words[words.len() - 2].parse().unwrap();
                    (words[words.len() - 1].parse().unwrap(), header_len)
                }
                _ => continue,
            };
            let sizes = if header_len > 0 { 2 } else { 1 };
            let reply = (words.len() - sizes == 4).then(|| words[3].to_owned());
            let payload = rest[header_len..size].to_owned();
            messages.push((words[2].parse().unwrap(), words[1].to_owned(), reply, payload));
            rest = &rest[size + 2..];
        }
        messages
    }

    /// Everybody who gets what is published to `subject` in `account`. `asked_of` are the exports that have been asked on the way.
    fn expected(
        &self,
        account: usize,
        subject: &str,
        asked_of: &[(usize, String)],
        found: &mut Vec<Delivery>,
    ) {
        let is_request = !asked_of.is_empty();
        let mut reach = |client: usize, subject: &str| {
            let Client { subscriptions, account, .. } = &self.clients[client];
            let rules = &self.rules[*account];
            for (sid, pattern) in subscriptions.iter().enumerate() {
                if matches(subject, pattern) && rules.may_subscribe(pattern) && rules.may_get(subject) {
                    found.push((client, sid, subject.to_owned(), is_request));
                }
            }
        };
        for (client, _) in self.clients.iter().enumerate().filter(|(_, client)| client.account == account) {
            reach(client, subject);
        }
        for (client, Client { account: importer, .. }) in self.clients.iter().enumerate() {
            for import in &self.account(*importer).sharing.stream_imports {
                let is_from_here = import.account == format!("A{account}");
                if is_from_here && !is_request && matches(subject, &import.subject) {
                    reach(client, &shown(&import.subject, &import.to, subject));
                }
            }
        }
        for asked in self.asked(account, subject, asked_of) {
            let mut asked_of = asked_of.to_vec();
            asked_of.push(asked.service);
            self.expected(asked.exporter, &asked.subject, &asked_of, found);
        }
    }

    /// What is asked in other accounts when something is published to `subject` in `account`.
    fn asked(&self, account: usize, subject: &str, asked_of: &[(usize, String)]) -> Vec<Asked> {
        let imports = self.account(account).sharing.service_imports.iter();
        let asked = imports.filter_map(|import| {
            let to = asked(&import.to, &import.subject, subject)?;
            let exporter: usize = import.account[1..].parse().unwrap();
            let export = self.account(exporter).sharing.service_export(&import.subject).unwrap();
            let service = (exporter, export.subject.clone());
            let subject = self.mapped(exporter, &to);
            (!asked_of.contains(&service)).then_some(Asked { exporter, service, subject })
        });
        asked.collect()
    }

    /// What the mappings of an account make of a subject.
    fn mapped(&self, account: usize, subject: &str) -> String {
        let mut mappings = self.account(account).mappings.iter();
        let Some(mapping) = mappings.find(|mapping| matches(subject, mapping.source())) else {
            return subject.to_owned();
        };
        let (_, to) = MAPPINGS.iter().find(|(from, _)| *from == mapping.source()).unwrap();
        shown(mapping.source(), to, subject)
    }

    fn account(&self, account: usize) -> &crate::config::Account {
        self.options.accounts.iter().find(|found| found.name == format!("A{account}")).unwrap()
    }

    fn publish_and_check(&mut self, client: usize) {
        let subject = pick(&mut self.random, SUBJECTS);
        let account = self.clients[client].account;
        let mut expected = Vec::new();
        // Services that the message itself asks, and that reach somebody.
        let mut answering = 0;
        let mapped = self.mapped(account, subject);
        let may = self.rules[account].may_publish(&mapped);
        if may {
            self.expected(account, &mapped, &[], &mut expected);
            for asked in self.asked(account, &mapped, &[]) {
                let mut reached = Vec::new();
                self.expected(asked.exporter, &asked.subject, &[asked.service], &mut reached);
                answering += usize::from(!reached.is_empty());
            }
        }
        self.story += &format!("client {client} of A{account}: PUB {subject}\n");
        self.say(client, &format!("PUB {subject} {INBOX} 2\r\nhi\r\n"));
        self.come_to_rest();
        let mut found = Vec::new();
        let mut answers = Vec::new();
        let mut told = false;
        for receiver in 0..self.clients.len() {
            for (sid, subject, reply, payload) in self.take_messages(receiver) {
                if sid == 1000 {
                    assert!(receiver == client && payload.is_empty() && !told, "only that nobody responds");
                    told = true;
                    continue;
                }
                assert_eq!(payload, "hi");
                let reply = reply.expect("every message has one");
                let is_request = reply.starts_with("_R_.");
                assert!(is_request || reply == INBOX);
                found.push((receiver, sid, subject, is_request));
                if is_request && !answers.contains(&(receiver, reply.clone())) {
                    answers.push((receiver, reply));
                }
            }
        }
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "published to {subject} by {client}");
        assert_eq!(told, may && expected.is_empty());
        // Of several that answer the same request once, the first one is heard.
        let count = if self.streams { answers.len() } else { answering };
        self.answer_and_check(account, &answers, count);
    }

    /// Everybody answers every request once, and some answer who were not asked. Connections move meanwhile.
    fn answer_and_check(&mut self, account: usize, answers: &[(usize, String)], count: usize) {
        for (_, reply) in answers {
            let stranger = self.random.usize(..self.clients.len());
            let strange = self.clients[stranger].account;
            let may_know =
                answers.iter().any(|(other, of)| of == reply && self.clients[*other].account == strange);
            if !may_know {
                self.say(stranger, &format!("PUB {reply} 2\r\nno\r\n"));
            }
        }
        self.come_to_rest();
        for (receiver, reply) in answers {
            let moving = self.random.usize(..self.clients.len());
            if moving != *receiver && self.random.bool() {
                self.relocate(moving);
            }
            self.say(*receiver, &format!("PUB {reply} 2\r\nok\r\n"));
            if self.random.bool() || moving != *receiver {
                self.come_to_rest();
            }
        }
        self.come_to_rest();
        for receiver in 0..self.clients.len() {
            let messages = self.take_messages(receiver);
            assert!(messages.iter().all(|(sid, subject, reply, payload)| {
                (*sid, subject.as_str(), reply, payload.as_str()) == (1000, INBOX, &None, "ok")
            }));
            // All connections of the account share the inbox.
            let wanted = if self.clients[receiver].account == account { count } else { 0 };
            assert_eq!(messages.len(), wanted, "answers to {receiver}");
        }
        let is_left = self.brokers.iter().any(|broker| broker.responses.len() > 0);
        assert!(self.streams || !is_left, "what has been answered is not waited for");
    }
}

/// Whether the configuration of that seed imports something.
fn play(seed: u64) -> bool {
    let mut random = fastrand::Rng::with_seed(seed);
    let streams = random.bool();
    let response = if streams { ", response: stream" } else { "" };
    let Some((options, rules, text)) = configuration(&mut random, response) else { return false };
    let mut world = World::new(options, rules, streams, text, seed);
    for _ in 0..6 {
        world.connect();
    }
    for step in 0..40 {
        let client = world.random.usize(..world.clients.len());
        match world.random.u8(..6) {
            _ if step < 8 => world.subscribe(client),
            0 => world.subscribe(client),
            1 => {
                world.relocate(client);
                world.come_to_rest();
            }
            2 => {
                // A message meets the connection on its way.
                world.come_to_rest();
                let moving = world.random.usize(..world.clients.len());
                if moving != client {
                    world.relocate(moving);
                }
                world.publish_and_check(client);
            }
            _ => {
                world.come_to_rest();
                world.publish_and_check(client);
            }
        }
    }
    true
}

#[test]
fn what_crosses_accounts_is_what_exports_and_imports_say_and_nothing_else() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    if let Some(seed) = number("ISOLATION_SEED") {
        assert!(play(seed), "no configuration");
        return;
    }
    let topologies = number("ISOLATION_TOPOLOGIES").unwrap_or(TOPOLOGIES);
    let mut played = 0;
    for seed in 0..topologies {
        struct Replay(u64);
        impl Drop for Replay {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    eprintln!("replay: ISOLATION_SEED={} cargo test --lib isolation", self.0);
                }
            }
        }
        let replay = Replay(seed);
        played += u64::from(play(seed));
        drop(replay);
    }
    assert!(played * 10 >= topologies * 9, "only {played} of {topologies} configurations import something");
}
