//! Records of TLS through a session: an honest client whose bytes are cut anywhere and spoilt somewhere, and bytes that no
//! client would send.
//!
//! Finds: panics, plaintext that the client has not said or not in this order, plaintext lost although nothing was spoilt,
//! a session out of bytes that are none, output that the client cannot open.

#![no_main]

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringmain::config::{Certificate, HandshakeFirst, TlsOptions};
use ringmain::tls::{Acceptor, Channel, Progress, SealedBuffer};
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

#[derive(Arbitrary, Debug)]
enum Input {
    /// What stands in place of a client's bytes, in pieces.
    Noise {
        begins_as_tls: bool,
        pieces: Vec<Vec<u8>>,
    },
    Session(Session),
}

#[derive(Arbitrary, Debug)]
struct Session {
    only_1_2: bool,
    /// Lengths of reads, used in turn.
    cuts: Vec<u16>,
    steps: Vec<Step>,
    /// Which byte of all that the client sends is changed, and how.
    spoilt: Option<(u16, u8)>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Says(u16),
    /// Bytes in several slices, of which only so many are to be sealed.
    Hears(Vec<u16>, u32),
    NewKeys,
    Closes,
}

/// Enough for a few records in each direction.
const STEPS_MAX: usize = 12;

/// Of the server, which its clients believe for itself.
static PAIR: LazyLock<Certificate> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    Certificate { chain: vec![made.cert.der().clone()], key: Arc::new(key) }
});

static ACCEPTOR: LazyLock<Arc<Acceptor>> = LazyLock::new(|| {
    let options = TlsOptions {
        certificates: vec![PAIR.clone()],
        authorities: None,
        verify: false,
        map: false,
        timeout: Duration::from_secs(2),
        first: HandshakeFirst::No,
        cipher_suites: None,
        curves: None,
        only_1_3: false,
        pinned: None,
        connections_per_second: None,
    };
    Arc::new(Acceptor::new(&options).expect("usable options"))
});

static CLIENTS: LazyLock<[Arc<ClientConfig>; 2]> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add(PAIR.chain[0].clone()).expect("a certificate");
    [rustls::ALL_VERSIONS, &[&rustls::version::TLS12]].map(|versions| {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions");
        Arc::new(builder.with_root_certificates(roots.clone()).with_no_client_auth())
    })
});

fuzz_target!(|input: Input| match input {
    Input::Noise { begins_as_tls, pieces } => noise(begins_as_tls, &pieces),
    Input::Session(session) => drop(play(&session)),
});

fn noise(begins_as_tls: bool, pieces: &[Vec<u8>]) {
    let mut handshake = Box::new(ACCEPTOR.begin());
    let header: &[u8] = if begins_as_tls { &[0x16, 3, 1] } else { &[] };
    for piece in std::iter::once(header).chain(pieces.iter().map(Vec::as_slice)) {
        match handshake.receive(piece) {
            Err(_) => return,
            Ok(false) => continue,
            Ok(true) => {}
        }
        handshake = match handshake.advance() {
            Progress::Waiting { handshake, .. } => handshake,
            Progress::Failed { .. } => return,
            Progress::Done { .. } => panic!("keys agreed on with nobody"),
        };
    }
}

/// The wire from the client: cut, and perhaps spoilt.
struct Wire<'a> {
    session: &'a Session,
    sent: usize,
    cut: usize,
}

impl Wire<'_> {
    /// What the client has to send, in reads.
    fn reads(&mut self, client: &mut ClientConnection) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).expect("a vector");
        }
        if let Some((at, change)) = self.session.spoilt
            && let Some(byte) = usize::from(at).checked_sub(self.sent).and_then(|at| bytes.get_mut(at))
        {
            *byte ^= change;
        }
        self.sent += bytes.len();
        let (mut reads, mut rest) = (Vec::new(), &bytes[..]);
        while !rest.is_empty() {
            let cuts = &self.session.cuts;
            let len = cuts.get(self.cut % cuts.len().max(1)).map_or(rest.len(), |len| usize::from(*len));
            self.cut += 1;
            let (read, after) = rest.split_at(len.clamp(1, rest.len()));
            reads.push(read.to_vec());
            rest = after;
        }
        reads
    }
}

/// `None` where the session ends early, which only what is spoilt may do.
fn play(session: &Session) -> Option<()> {
    let is_spoilt = session.spoilt.is_some_and(|(_, change)| change != 0);
    let give_up = || assert!(is_spoilt, "nothing was spoilt");
    let name = ServerName::try_from("localhost").expect("a name");
    let config = CLIENTS[usize::from(session.only_1_2)].clone();
    let mut client = ClientConnection::new(config, name).expect("a connection");
    client.set_buffer_limit(None);
    let mut wire = Wire { session, sent: 0, cut: 0 };

    let mut heard = Vec::new();
    let mut handshake = Some(Box::new(ACCEPTOR.begin()));
    let mut channel: Option<Box<Channel>> = None;
    while channel.is_none() {
        let reads = wire.reads(&mut client);
        if reads.is_empty() {
            give_up();
            return None;
        }
        for mut read in reads {
            if let Some(channel) = &mut channel {
                channel.open(&mut read, &mut heard).map_err(|_| give_up()).ok()?;
                continue;
            }
            let mut going = handshake.take().expect("not done yet");
            if !going.receive(&read).map_err(|_| give_up()).ok()? {
                handshake = Some(going);
                continue;
            }
            let output = match going.advance() {
                Progress::Waiting { handshake: next, output } => {
                    handshake = Some(next);
                    output
                }
                Progress::Done { channel: done, output, plaintext, .. } => {
                    heard.extend(plaintext);
                    channel = Some(done);
                    output
                }
                Progress::Failed { .. } => {
                    give_up();
                    return None;
                }
            };
            read_all(&mut client, &output).map_err(|_| give_up()).ok()?;
        }
    }
    let mut channel = channel.expect("the loop ends with it");

    let (mut said, mut told) = (Vec::new(), Vec::new());
    let mut is_closed = false;
    for step in session.steps.iter().take(STEPS_MAX) {
        match step {
            Step::Says(len) if !is_closed => {
                let bytes: Vec<u8> = (0..*len).map(|at| (said.len() + usize::from(at)) as u8).collect();
                client.writer().write_all(&bytes).expect("a buffer");
                said.extend(bytes);
            }
            Step::Hears(lens, max) => {
                let all: Vec<Vec<u8>> =
                    lens.iter().take(4).map(|len| vec![*len as u8; usize::from(*len)]).collect();
                let (mut gathered, mut sealed) = (Vec::new(), SealedBuffer::default());
                let slices = all.iter().map(Vec::as_slice);
                let taken = channel
                    .seal(slices, *max as usize, &mut gathered, &mut sealed)
                    .map_err(|_| give_up())
                    .ok()?;
                let whole = all.concat();
                assert_eq!(taken, whole.len().min(*max as usize));
                let opened = read_all(&mut client, sealed.bytes()).map_err(|_| give_up()).ok()?;
                assert_eq!(opened, whole[..taken], "what was sealed");
                told.extend(opened);
            }
            Step::NewKeys if !is_closed && !session.only_1_2 => {
                client.refresh_traffic_keys().expect("TLS 1.3 renews its keys");
            }
            Step::Closes if !is_closed => {
                client.send_close_notify();
                is_closed = true;
            }
            Step::Says(_) | Step::NewKeys | Step::Closes => {}
        }
        for mut read in wire.reads(&mut client) {
            let opened = channel.open(&mut read, &mut heard);
            assert!(said.starts_with(&heard), "plaintext that nobody has said");
            opened.map_err(|_| give_up()).ok()?;
        }
        if channel.has_control() {
            let mut sealed = SealedBuffer::default();
            channel.take_control(&mut sealed);
            let opened = read_all(&mut client, sealed.bytes()).map_err(|_| give_up()).ok()?;
            assert!(opened.is_empty(), "TLS's own words are no plaintext");
        }
    }
    if !is_spoilt {
        assert_eq!(heard, said);
        assert_eq!(channel.is_closed_by_peer(), is_closed);
    }
    Some(())
}

/// Gives bytes to the client; what it reads.
fn read_all(client: &mut ClientConnection, mut bytes: &[u8]) -> Result<Vec<u8>, rustls::Error> {
    let mut opened = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).expect("a slice");
        let state = client.process_new_packets()?;
        let at = opened.len();
        opened.resize(at + state.plaintext_bytes_to_read(), 0);
        client.reader().read_exact(&mut opened[at..]).expect("as many as it says");
    }
    Ok(opened)
}
