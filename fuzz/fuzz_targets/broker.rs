//! Two brokers over one index, driven as the server drives them: any bytes of eight clients, turns, batches that wait,
//! sends that end in pieces, connections that end at any time.
//!
//! Finds: panics, output that a client could not read, bytes that move while the kernel sends them, more waiting than
//! `pending_max` and one message, subscriptions that outlive their connection, messages that run in circles between the
//! workers. Not what is delivered to whom: `interest` and the tests do that.
//!
//! An input is a script that a person can write. The first byte chooses the settings, see `settings`; then come steps
//! of a letter, a client's digit (it begins at the worker of the digit modulo two) and what the letter needs:
//!
//! | step | meaning |
//! | --- | --- |
//! | `h` client text `0xff` | the client sends the text; `0xfe n` in it stands for 97 times `n` letters |
//! | `i` client digit | its worker has a turn after so much time, see `STEPS_MS`; from 8 on it leaves batches waiting |
//! | `j` client byte | its send ends, after the square of so many bytes at most; `0xff` for all |
//! | `k` client digit | it ends: closes, fails to be written to, misses the write deadline |
//! | `l` client | both workers have turns until nothing moves |
//! | `m` client | its worker enters lame duck mode |
//! | `n` client | if it is not connected, it is refused |
//! | `o` client byte text `0xff` | as `h`, so many times over |
//! | `p` client | it moves to the other worker as soon as it can |

#![no_main]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use ringmain::auth::Directory;
use ringmain::auth::nkey::NonceKey;
use ringmain::broker::{Batch, Broker, CloseReason, Input, Settings, Verdict};
use ringmain::config::{
    Account, AccountLimits, ConnectionTypes, Credentials, Login, Options, Password, Permissions, QueueSubject, Responses, User,
};
use ringmain::subject::interest::{InterestAccess, LocalInterest};
use ringmain::wire::info::Info;

/// Somebody's public key.
const KEY: &str = "UCFIRY65OQE7DFP5KLNS2PF2LVZMUZYJX4OZIEQ36N2IQANUB5XVZ45L";

const WORKERS: usize = 2;
const CLIENTS: usize = 8;
const STEPS_MS: [u64; 8] = [0, 1, 10, 100, 1000, 10_000, 60_000, 150_000];

/// Bytes that a client may have sent without having been read, so that a short script cannot ask for gigabytes.
const UNREAD_MAX: usize = 256 * 1024;

/// Batches between two workers, as `base::handover` bounds them.
const BATCHES_MAX: usize = 64;

/// Turns of both workers after which everything must have come to rest.
const ROUNDS_MAX: usize = 500;

fuzz_target!(|script: &[u8]| {
    let mut script = Script(script);
    let Some(choice) = script.byte() else { return };
    let mut world = World::new(settings(choice));
    while let Some(step) = script.byte() {
        let client = usize::from(script.byte().unwrap_or(0)) % CLIENTS;
        match step {
            b'p' => world.want_move(client),
            _ => match step % 8 {
                0 => world.input(client, &script.text()),
                1 => {
                    let digit = usize::from(script.byte().unwrap_or(0));
                    world.now_ms += STEPS_MS[digit % STEPS_MS.len()];
                    world.turn(client % WORKERS, digit % 16 < STEPS_MS.len());
                }
                2 => {
                    world.complete_send(client, script.byte().map_or(0, send_len));
                }
                3 => world.end(client, script.byte().unwrap_or(0)),
                4 => world.settle(false),
                5 => world.workers[client % WORKERS].broker.announce_lame_duck(),
                6 => {
                    if world.clients[client].is_none() {
                        let conn = world.open(client);
                        world.workers[client % WORKERS].broker.refuse(conn);
                    }
                }
                _ => {
                    let times = usize::from(script.byte().unwrap_or(0));
                    let text = script.text();
                    world.input(client, &text.repeat(times.min(UNREAD_MAX / text.len().max(1))));
                }
            },
        }
        world.check();
    }
    world.close_all();
});

fn settings(choice: u8) -> Settings {
    let (control_line_max, payload_max, pending_max) = match choice & 3 {
        0 | 3 => (4096, 64 * 1024, 256 * 1024),
        1 => (256, 256, 2048),
        // Enough to hold producers back before a consumer is cut off.
        _ => (1024, 1024 * 1024, 4 * 1024 * 1024),
    };
    let limited = choice & 16 != 0;
    Settings {
        control_line_max,
        payload_max,
        pending_max,
        no_fast_producer_stall: choice & 3 == 3,
        directory: Arc::new(directory(choice & 4 != 0)),
        trace: choice & 8 != 0,
        debug: choice & 8 != 0,
        traced_len_max: 16,
        subscriptions_max: if limited { 3 } else { 0 },
        subscription_tokens_max: if limited { 4 } else { 0 },
        headers: choice & 32 == 0,
        ..Settings::default()
    }
}

/// Nobody in particular; or a plain password, a hash and a key, an account with limits and two users, one of them with
/// permissions, and another account.
fn directory(demands_credentials: bool) -> Directory {
    let mut options = Options { no_system_account: true, ..Options::default() };
    if demands_credentials {
        let login = |user: &str, password: &str| Login::Password {
            user: user.into(),
            password: Password::new(password.into()),
        };
        let logins = [login("u", "p"), login("h", "$2a$04$short"), Login::Nkey(KEY.into())];
        let entry = |subject: &str, queue: Option<&str>| QueueSubject {
            subject: subject.into(),
            queue: queue.map(Into::into),
        };
        let permissions = Permissions {
            publish_allow: Some(vec!["a".into(), "b.*".into(), "c.>".into()]),
            publish_deny: vec!["b.b".into()],
            subscribe_allow: vec![entry(">", None), entry("a", Some("q"))],
            subscribe_deny: vec![entry("b", None), entry("*.c", None), entry("a.*", Some("*"))],
            responses: Some(Responses::default()),
        };
        let user = |login| User { login, connection_types: ConnectionTypes::ALL, permissions: None };
        options.accounts = vec![
            Account {
                name: "A".into(),
                users: vec![
                    User { permissions: Some(permissions), ..user(login("r", "p")) },
                    user(login("s", "p")),
                ],
                limits: AccountLimits { connections: Some(3), subscriptions: Some(5), payload: Some(100) },
                ..Account::default()
            },
            Account { name: "B".into(), users: vec![user(login("t", "p"))], ..Account::default() },
        ];
        options.authorization.credentials = Credentials::Users(logins.map(user).into());
    }
    Directory::new(&options, NonceKey([1; 32])).expect("few accounts")
}

fn send_len(byte: u8) -> usize {
    if byte == 0xff { usize::MAX } else { usize::from(byte).pow(2) }
}

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn text(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        while let Some(byte) = self.byte() {
            match byte {
                0xff => break,
                0xfe => text.resize(text.len() + 97 * usize::from(self.byte().unwrap_or(0)), b'x'),
                byte => text.push(byte),
            }
        }
        text
    }
}

struct World {
    settings: Arc<Settings>,
    /// Of each account.
    indexes: Vec<LocalInterest>,
    workers: Vec<Worker>,
    clients: [Option<Client>; CLIENTS],
    now_ms: u64,
    next_cid: u64,
}

struct Worker {
    broker: Broker<LocalInterest>,
    /// Batches from the other worker.
    inbox: VecDeque<Batch>,
    /// Passwords to be checked: slot and serial.
    checks: Vec<(u32, u32)>,
}

struct Client {
    cid: u64,
    /// The worker that it belongs to.
    at: usize,
    /// Its slot there; meaningless while it moves.
    conn: u32,
    /// It is to move to the other worker.
    wants_move: bool,
    /// It is between workers, or has not settled yet.
    moving: bool,
    unread: Vec<u8>,
    /// What the kernel holds: where each slice lies, and what was in it.
    sending: Vec<(*const u8, Vec<u8>)>,
    /// What the client has got and not yet read as whole frames.
    got: Vec<u8>,
    /// Set when it is being closed: whether it still gets what is queued.
    closing: Option<bool>,
}

impl World {
    fn new(settings: Settings) -> World {
        let settings = Arc::new(settings);
        let slots = settings.directory.accounts().slots();
        let indexes: Vec<LocalInterest> = (0..slots).map(|_| LocalInterest::default()).collect();
        let worker = |worker: usize| {
            let info = Info::new("ID".into(), "fuzz".into(), "0.0.0.0".into(), 4222);
            let accounts = indexes.clone();
            let broker = Broker::new(worker as u16, WORKERS, settings.clone(), info, accounts, 1);
            Worker { broker, inbox: VecDeque::new(), checks: Vec::new() }
        };
        let workers = (0..WORKERS).map(worker).collect();
        World { settings, indexes, workers, clients: [const { None }; CLIENTS], now_ms: 0, next_cid: 1 }
    }

    fn open(&mut self, client: usize) -> u32 {
        let addr = "127.0.0.1:1".parse().expect("an address");
        let (cid, at) = (self.next_cid, client % WORKERS);
        let conn = self.workers[at].broker.open(cid, addr);
        self.next_cid += 1;
        self.clients[client] = Some(Client {
            cid,
            at,
            conn,
            wants_move: false,
            moving: false,
            unread: Vec::new(),
            sending: Vec::new(),
            got: Vec::new(),
            closing: None,
        });
        conn
    }

    fn input(&mut self, client: usize, text: &[u8]) {
        if self.clients[client].is_none() {
            self.open(client);
        }
        let unread = &mut self.clients[client].as_mut().expect("just opened").unread;
        if unread.len() + text.len() <= UNREAD_MAX {
            unread.extend_from_slice(text);
        }
    }

    /// Whether anything happened.
    fn turn(&mut self, at: usize, takes_batches: bool) -> bool {
        let worker = &mut self.workers[at];
        let mut moved = false;
        worker.broker.begin_turn(Duration::from_millis(self.now_ms));
        for (conn, serial) in std::mem::take(&mut worker.checks) {
            moved = true;
            let verdict = [Verdict::Right, Verdict::Wrong, Verdict::TooLate][serial as usize % 3];
            if let Some(mut input) = worker.broker.handle_verdict(conn, serial, verdict) {
                let mut clients = self.clients.iter_mut().skip(at).step_by(WORKERS).flatten();
                let client = clients.find(|client| client.conn == conn).expect("checked and connected");
                input.append(&mut client.unread);
                client.unread = input;
            }
        }
        if takes_batches {
            for batch in std::mem::take(&mut worker.inbox) {
                moved = true;
                worker.broker.handle_batch(1 - at as u16, &batch);
            }
        }
        while let Some((conn, cid)) = worker.broker.poll_arrived() {
            let client =
                self.clients.iter_mut().flatten().find(|client| client.cid == cid).expect("it moves");
            (client.at, client.conn) = (at, conn);
        }
        while let Some(conn) = worker.broker.poll_settled() {
            let mut clients = self.clients.iter_mut().flatten();
            let client = clients.find(|client| client.at == at && client.conn == conn).expect("it moved");
            assert!(std::mem::replace(&mut client.moving, false));
        }
        let room = self.workers[1 - at].inbox.len() < BATCHES_MAX;
        let broker = &mut self.workers[at].broker;
        for client in self.clients.iter_mut().flatten().filter(|client| client.at == at) {
            if client.moving || !room || client.unread.is_empty() || broker.is_held(client.conn) {
                continue;
            }
            moved = true;
            match broker.handle_bytes(client.conn, &client.unread) {
                Input::Taken | Input::Closed => client.unread.clear(),
                Input::Yielded(taken) => {
                    assert!(taken > 0, "a yield without progress would never end");
                    client.unread.drain(..taken);
                }
            }
        }
        while let Some(check) = self.workers[at].broker.poll_password_check() {
            moved = true;
            self.workers[at].checks.push((check.conn, check.serial));
        }
        while self.workers[1 - at].inbox.len() < BATCHES_MAX {
            let Some(batch) = self.workers[at].broker.poll_batch(1 - at as u16) else {
                break;
            };
            moved = true;
            self.workers[1 - at].inbox.push_back(batch);
        }
        moved |= self.depart(at);
        moved |= self.close_connections(at);
        let broker = &mut self.workers[at].broker;
        while let Some(conn) = broker.poll_dirty() {
            let mut clients = self.clients.iter_mut().flatten();
            let client = clients.find(|client| client.at == at && client.conn == conn);
            let client = client.expect("dirty and connected");
            assert!(!client.moving);
            if client.sending.is_empty() {
                client.start_send(broker);
            }
        }
        drop(broker.take_log(Default::default()));
        moved
    }

    fn want_move(&mut self, client: usize) {
        if let Some(client) = &mut self.clients[client] {
            client.wants_move = true;
        }
    }

    /// Sends away the clients that are to move and can.
    fn depart(&mut self, at: usize) -> bool {
        let mut any = false;
        for client in self.clients.iter_mut().flatten() {
            let may_depart = client.at == at
                && client.wants_move
                && !client.moving
                && client.sending.is_empty()
                && self.workers[1 - at].inbox.len() < BATCHES_MAX
                && self.workers[at].broker.may_depart(client.conn);
            if !may_depart {
                continue;
            }
            (client.wants_move, client.moving, any) = (false, true, true);
            self.workers[at].broker.depart(client.conn, 1 - at as u16);
            // Nobody's slot until it has arrived.
            client.conn = u32::MAX;
        }
        // All that leave in a turn leave before what waits for the other worker goes.
        while any && let Some(batch) = self.workers[at].broker.poll_batch(1 - at as u16) {
            self.workers[1 - at].inbox.push_back(batch);
        }
        any
    }

    fn close_connections(&mut self, at: usize) -> bool {
        let mut moved = false;
        let broker = &mut self.workers[at].broker;
        while let Some((conn, reason)) = broker.poll_closing() {
            moved = true;
            let mut clients = self.clients.iter_mut().flatten();
            let client = clients.find(|client| client.at == at && client.conn == conn);
            let client = client.expect("closing and connected");
            assert_eq!(client.closing.replace(reason.flushes()), None, "closed twice");
        }
        for slot in &mut self.clients {
            let Some(client) = slot else { continue };
            if client.at != at {
                continue;
            }
            let Some(flushes) = client.closing else { continue };
            if flushes && broker.pending_bytes(client.conn) > 0 {
                continue;
            }
            // The socket is shut, and the kernel lets go of what it held.
            client.closing = Some(false);
            client.sending.clear();
            if broker.is_torn_down(client.conn) {
                assert_eq!(broker.handle_bytes(client.conn, &client.unread), Input::Closed);
                broker.remove(client.conn);
                *slot = None;
                moved = true;
            }
        }
        moved
    }

    fn complete_send(&mut self, client: usize, len: usize) -> bool {
        let Some(client) = &mut self.clients[client] else { return false };
        let broker = &mut self.workers[client.at].broker;
        client.complete_send(broker, len, &self.settings)
    }

    fn end(&mut self, client: usize, how: u8) {
        let Some(client) = &mut self.clients[client] else { return };
        if client.conn == u32::MAX {
            return;
        }
        let broker = &mut self.workers[client.at].broker;
        match how % 3 {
            0 => {
                // What arrived before the end is handled first, held or not.
                let mut unread = std::mem::take(&mut client.unread);
                while let Input::Yielded(taken) = broker.handle_bytes(client.conn, &unread) {
                    assert!(taken > 0);
                    unread.drain(..taken);
                }
                broker.close(client.conn, CloseReason::ClientClosed);
            }
            1 => broker.close(client.conn, CloseReason::WriteError),
            _ => broker.handle_write_deadline(client.conn),
        }
    }

    /// Lets both workers run until nothing moves; with `drained`, everybody reads all the time.
    fn settle(&mut self, drained: bool) {
        for _ in 0..ROUNDS_MAX {
            let mut moved = false;
            for at in 0..WORKERS {
                moved |= self.turn(at, true);
            }
            for client in 0..CLIENTS {
                moved |= drained && self.complete_send(client, usize::MAX);
            }
            if !moved {
                return;
            }
            self.now_ms += 11;
            self.check();
        }
        // Only the clients' own input may take longer.
        assert!(self.clients.iter().flatten().any(|client| !client.unread.is_empty()), "it goes in circles");
    }

    fn check(&self) {
        let settings = &self.settings;
        let message_max = settings.payload_max + 16 * settings.control_line_max + 1024;
        for client in self.clients.iter().flatten().filter(|client| client.conn != u32::MAX) {
            let pending = self.workers[client.at].broker.pending_bytes(client.conn);
            assert!(pending <= settings.pending_max + message_max, "{pending} bytes wait");
        }
        let subscriptions: u64 = self.workers.iter().map(|worker| worker.broker.stats().subscriptions).sum();
        // Those of a connection between two workers are in no broker.
        let in_index = self.indexes.iter().map(|index| index.read(|interest| interest.len()) as u64).sum();
        assert!(subscriptions <= in_index);
        if self.clients.iter().flatten().all(|client| client.conn != u32::MAX) {
            assert_eq!(subscriptions, in_index);
        }
    }

    fn close_all(&mut self) {
        self.settle(true);
        for client in self.clients.iter_mut().flatten() {
            client.unread.clear();
        }
        for client in &self.clients {
            if let Some(client) = client {
                assert!(client.conn != u32::MAX, "it never arrived");
                self.workers[client.at].broker.close(client.conn, CloseReason::ServerShutdown);
            }
        }
        self.settle(true);
        assert!(self.indexes.iter().all(|index| index.read(|interest| interest.is_empty())));
        assert!(self.settings.directory.accounts().iter().all(|account| account.connections() == 0));
        for (at, worker) in self.workers.iter().enumerate() {
            assert_eq!((worker.broker.connection_count(), worker.inbox.len()), (0, 0));
            assert_eq!(worker.broker.stats().subscriptions, 0);
            assert!(!worker.broker.has_batch_for(1 - at as u16));
        }
    }
}

impl Client {
    fn start_send(&mut self, broker: &mut Broker<LocalInterest>) {
        if self.closing == Some(false) || broker.pending_bytes(self.conn) == 0 {
            return;
        }
        broker.handle_send_started(self.conn);
        self.sending = broker.unsent(self.conn, 16).map(|slice| (slice.as_ptr(), slice.to_vec())).collect();
    }

    fn complete_send(&mut self, broker: &mut Broker<LocalInterest>, len: usize, settings: &Settings) -> bool {
        if self.sending.is_empty() {
            return false;
        }
        let held: Vec<(*const u8, Vec<u8>)> = std::mem::take(&mut self.sending);
        for ((address, bytes), now) in held.iter().zip(broker.unsent(self.conn, held.len())) {
            assert!(*address == now.as_ptr() && now.starts_with(bytes), "moved while the kernel had it");
        }
        let bytes = held.into_iter().flat_map(|(_, bytes)| bytes).take(len.max(1)).collect::<Vec<u8>>();
        broker.handle_sent(self.conn, bytes.len());
        self.got.extend_from_slice(&bytes);
        self.read_frames(settings);
        self.start_send(broker);
        true
    }

    /// Reads what a client library would read.
    fn read_frames(&mut self, settings: &Settings) {
        let mut rest = &self.got[..];
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let line = rest[..end].strip_suffix(b"\r").expect("a line of the server ends in CR LF");
            let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
            let body_len = match (words[0], words.len()) {
                (b"MSG", 4 | 5) => Some(size(words[words.len() - 1])),
                (b"HMSG", 5 | 6) => {
                    let (header, total) = (size(words[words.len() - 2]), size(words[words.len() - 1]));
                    assert!(header <= total && settings.headers);
                    Some(total)
                }
                (b"PING" | b"PONG" | b"+OK", 1) | (b"INFO" | b"-ERR", _) => None,
                _ => panic!("not a frame: {}", line.escape_ascii()),
            };
            let mut frame_len = end + 1;
            if let Some(body_len) = body_len {
                assert!(body_len <= settings.payload_max + settings.control_line_max + 64);
                frame_len += body_len + 2;
                if rest.len() < frame_len {
                    break;
                }
                assert!(rest[..frame_len].ends_with(b"\r\n"), "content of another length than announced");
            }
            rest = &rest[frame_len..];
        }
        self.got = rest.to_vec();
    }
}

fn size(digits: &[u8]) -> usize {
    std::str::from_utf8(digits).expect("digits").parse().expect("a size")
}
