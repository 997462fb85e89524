//! What the threads share about routes to other servers, and how those are dialed.
//!
//! One worker has all routes ([`crate::broker::routes`]) and says whom to dial; the control thread does it, because names have to be resolved
//! and servers may be slow to answer, and hands the worker the socket or the reason why there is none. Whoever changes what this
//! server wants wakes that worker.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::shared::Shared;
use crate::base::system_error;
use crate::broker::ClientUrls;
use crate::cluster::{Dial, DialId};
use crate::subject::interest::Watch;

/// Time to reach another server.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// See the head of this file.
pub struct RouteDesk {
    /// The worker that has the routes.
    pub worker: usize,
    /// Clients are told of the other servers.
    pub advertises: bool,
    /// Told when other servers have to be told something.
    pub watch: Arc<Watch>,
    /// To whoever dials. Bounded by the number of dialers, each of which waits for an outcome.
    dials: mpsc::UnboundedSender<Dial>,
    /// Number of routes.
    pub count: AtomicUsize,
    /// Where clients of the other servers connect.
    urls: Mutex<Arc<ClientUrls>>,
    /// How often that has changed.
    pub urls_version: AtomicU64,
    outcomes: Mutex<Vec<Outcome>>,
    has_outcomes: AtomicBool,
}

/// What came of an attempt to dial.
#[derive(Debug)]
pub struct Outcome {
    /// Names the dialer.
    pub id: DialId,
    /// The socket and the other server's address, or why there is none.
    pub result: Result<(OwnedFd, SocketAddr), String>,
}

impl fmt::Debug for RouteDesk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RouteDesk(worker {})", self.worker)
    }
}

impl RouteDesk {
    /// A desk for the routes of `worker`. What is to be dialed comes out of the second part.
    pub fn new(
        worker: usize,
        watch: Arc<Watch>,
        advertises: bool,
    ) -> (RouteDesk, mpsc::UnboundedReceiver<Dial>) {
        let (dials, to_dial) = mpsc::unbounded_channel();
        let desk = RouteDesk {
            worker,
            advertises,
            watch,
            dials,
            count: AtomicUsize::new(0),
            urls: Mutex::default(),
            urls_version: AtomicU64::new(0),
            outcomes: Mutex::new(Vec::new()),
            has_outcomes: AtomicBool::new(false),
        };
        (desk, to_dial)
    }

    /// Has another server dialed.
    pub fn dial(&self, dial: Dial) {
        // At the end of the server nobody dials any more.
        let _ = self.dials.send(dial);
    }

    /// Notes what has become of the cluster, for the other workers and the monitoring.
    pub fn publish(&self, count: usize, urls: ClientUrls) {
        self.count.store(count, Ordering::Relaxed);
        let mut current = self.urls.lock();
        if **current != urls {
            *current = Arc::new(urls);
            self.urls_version.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Where clients of the other servers connect.
    pub fn urls(&self) -> Arc<ClientUrls> {
        self.urls.lock().clone()
    }

    /// Whether there are outcomes.
    pub fn has_outcomes(&self) -> bool {
        self.has_outcomes.load(Ordering::Acquire)
    }

    /// The outcomes since the last call.
    pub fn take_outcomes(&self) -> Vec<Outcome> {
        if !self.has_outcomes() {
            return Vec::new();
        }
        let mut outcomes = self.outcomes.lock();
        self.has_outcomes.store(false, Ordering::Release);
        std::mem::take(&mut *outcomes)
    }

    fn put(&self, outcome: Outcome) {
        self.outcomes.lock().push(outcome);
        self.has_outcomes.store(true, Ordering::Release);
    }
}

impl Shared {
    /// Wakes the worker that has the routes if other servers have to be told something.
    #[inline]
    pub fn knock_for_routes(&self) {
        if let Some(desk) = &self.routes
            && desk.watch.is_due()
        {
            self.doors[desk.worker].knock();
        }
    }
}

/// Dials what is to be dialed, until the server ends.
pub async fn dial_routes(shared: Arc<Shared>, mut dials: mpsc::UnboundedReceiver<Dial>) {
    while let Some(dial) = dials.recv().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let Some(desk) = &shared.routes else { return };
            let result = connect(&dial).await;
            desk.put(Outcome { id: dial.id, result });
            shared.doors[desk.worker].knock();
        });
    }
}

async fn connect(dial: &Dial) -> Result<(OwnedFd, SocketAddr), String> {
    let host = dial.url.host.clone();
    let failed = |addr: &dyn fmt::Display, error: &std::io::Error| {
        format!("dial tcp {addr}: connect: {}", system_error::text(error))
    };
    let addrs = tokio::net::lookup_host((host.as_str(), dial.url.port)).await;
    let addrs: Vec<SocketAddr> =
        addrs.map_err(|_| format!("lookup for host {host:?}: lookup {host}: no such host"))?.collect();
    // As in the reference any of them, so that a name that stands for several servers leads to all in time.
    let addr = match addrs.len() {
        0 => return Err(format!("lookup for host {host:?}: no address")),
        count => addrs[fastrand::usize(..count)],
    };
    let stream = match tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(addr)).await {
        Err(_) => return Err(format!("dial tcp {addr}: i/o timeout")),
        Ok(result) => result.map_err(|error| failed(&addr, &error))?,
    };
    let prepared = stream.set_nodelay(true).and_then(|()| stream.into_std());
    let stream = prepared
        .and_then(|stream| stream.set_nonblocking(false).map(|()| stream))
        .map_err(|error| failed(&addr, &error))?;
    Ok((stream.into(), addr))
}
