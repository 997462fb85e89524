//! The protocol between servers: any bytes, cut anywhere, to the decoder and to a broker that has a route.
//!
//! What must hold: no panic, cuts change nothing, and whatever a route has brought into the index is gone when it is closed.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use ringmain::broker::{Broker, ClusterTerms, Input, Settings};
use ringmain::cluster::Membership;
use ringmain::subject::interest::{InterestAccess as _, LocalInterest, Watch};
use ringmain::wire::info::Info;
use ringmain::wire::route::{RouteDecoder, RouteLimits};
use ringmain::wire::route_handshake::RouteInfo;

const LIMITS: RouteLimits = RouteLimits { control_line_max: 4096, payload_max: 20_000 };

const GREETING: &[u8] = b"CONNECT {\"cluster\":\"C\"}\r\nINFO {\"server_id\":\"NX\",\"cluster\":\"C\"}\r\n";

/// What comes out of pieces that end where `cut` says.
fn decoded(bytes: &[u8], cut: usize) -> Vec<String> {
    let mut decoder = RouteDecoder::default();
    let mut seen = Vec::new();
    for mut piece in bytes.chunks(cut.max(1)) {
        loop {
            match decoder.next(&mut piece, &LIMITS) {
                // Whether a payload is shared depends on the cuts, and nobody sees it.
                Ok(Some(command)) => seen.push(format!("{command:?}").replace("Shared(b", "Borrowed(")),
                Ok(None) => break,
                Err(_) => {
                    seen.push("error".to_owned());
                    return seen;
                }
            }
        }
        decoder.release_spent();
    }
    seen
}

fuzz_target!(|data: (u8, &[u8])| {
    let (cut, bytes) = data;
    let whole = decoded(bytes, usize::MAX);
    let pieces = decoded(bytes, usize::from(cut) + 1);
    assert_eq!(whole.len(), pieces.len());

    let index = LocalInterest::default();
    let settings = Settings {
        headers: true,
        payload_max: LIMITS.payload_max,
        cluster: Some(ClusterTerms {
            credentials: None,
            auth_timeout_ms: 1_000,
            ping_interval_ms: 1_000,
            pings_out_max: 2,
            write_deadline_ms: 1_000,
        }),
        ..Settings::default()
    };
    let info = Info::new("ID".into(), "test".into(), "0.0.0.0".into(), 4222);
    let mut broker = Broker::new(0, 1, Arc::new(settings), info, vec![index.clone()], 1);
    let about = RouteInfo { cluster: "C".into(), headers: true, ..RouteInfo::new("ID".into(), "test".into()) };
    let membership = Membership::new("ID".into(), &[], 0, false, 1);
    broker.lead_cluster(membership, about, Arc::new(Watch::default()), Vec::new());
    let client = broker.open(1, "127.0.0.1:1".parse().expect("an address"));
    broker.handle_bytes(client, b"CONNECT {\"verbose\":false}\r\nSUB > 1\r\nSUB a q 2\r\n");
    let before = index.read(|interest| interest.len());
    let route = broker.open_route(2, "127.0.0.1:2".parse().expect("an address"), None).expect("there is a cluster");
    assert_eq!(broker.handle_bytes(route, GREETING), Input::Taken);
    for piece in bytes.chunks(usize::from(cut) + 1) {
        let mut rest = piece;
        while let Input::Yielded(taken) = broker.handle_bytes(route, rest) {
            rest = &rest[taken..];
            broker.begin_turn(std::time::Duration::ZERO);
        }
        broker.handle_bytes(client, b"PUB a.b r 2\r\nhi\r\nPUB a 2\r\nhi\r\n");
    }
    broker.close(route, ringmain::broker::CloseReason::ClientClosed);
    while broker.poll_closing().is_some() {}
    while !broker.is_torn_down(route) {
        broker.begin_turn(std::time::Duration::from_millis(1));
    }
    assert_eq!(index.read(|interest| (interest.len(), interest.routed_len())), (before, 0));
});
