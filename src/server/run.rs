//! Start, signals, shutdown: what the control thread does. Everything slow happens here, never in a worker.

use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc;
use std::thread::JoinHandle;

use socket2::Socket;
use tokio::signal::unix::{SignalKind, signal};

use super::log::{Log, LogSettings, LogThread};
use super::shared::{Door, Shared, SharedInterest};
use super::worker::{self, WorkerParts};
use crate::base::handover;
use crate::broker::{Broker, Settings};
use crate::io::socket_ring::RingError;
use crate::io::wake::Waker;
use crate::io::{listener, process};
use crate::wire::info::{Info, REFERENCE_VERSION, RINGMAIN_VERSION};

/// Payload limits above this are warned about, as in the reference.
const PAYLOAD_WARNING_BYTES: usize = 8 * 1024 * 1024;

/// Everything that the server needs to know to start.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Host to listen on.
    pub host: String,
    /// Port to listen on; 0 picks a free one.
    pub port: u16,
    /// The server's name; its id if empty.
    pub server_name: String,
    /// Worker threads; 0 for one per core.
    pub workers: usize,
    /// Connections allowed.
    pub connections_max: i64,
    /// Written with the process's number, and nothing else.
    pub pid_file: Option<PathBuf>,
    /// What the brokers enforce.
    pub settings: Settings,
    /// The log.
    pub log: LogSettings,
    /// Said as warnings once the log is open.
    pub warnings: Vec<String>,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("Error listening on port: {addr}, \"listen tcp {addr}: {cause}\"")]
    Listen {
        /// The address as configured.
        addr: String,
        /// Why.
        cause: String,
    },
    /// No io_uring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The log file.
    #[error("cannot open the log file {0:?}: {1}")]
    LogFile(PathBuf, io::Error),
    /// Anything else that the system refuses.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

/// Runs the server until it is told to stop. An error has been written to the log as its last line.
///
/// # Errors
///
/// Why it did not start.
pub fn run(options: ServerOptions) -> Result<(), StartError> {
    process::configure_allocator();
    let (log, log_thread) = Log::start(options.log.clone())
        .map_err(|error| StartError::LogFile(options.log.file.clone().unwrap_or_default(), error))?;
    let result = run_logged(&options, &log);
    log_thread_stop(log_thread);
    result
}

fn log_thread_stop(thread: LogThread) {
    thread.stop();
}

fn run_logged(options: &ServerOptions, log: &Log) -> Result<(), StartError> {
    let server_id = nkeys::KeyPair::new_server().public_key();
    let server_name =
        if options.server_name.is_empty() { server_id.clone() } else { options.server_name.clone() };
    log.info("Starting ringmain");
    log.info(format!("  Version:  {REFERENCE_VERSION} (ringmain {RINGMAIN_VERSION})"));
    log.info(format!("  Name:     {server_name}"));
    log.info(format!("  ID:       {server_id}"));
    for warning in &options.warnings {
        log.warning(warning.clone());
    }
    if options.settings.payload_max > PAYLOAD_WARNING_BYTES {
        log.warning(format!(
            "Maximum payloads over {PAYLOAD_WARNING_BYTES} bytes are generally discouraged and could lead to poor \
             performance"
        ));
    }
    if let Err(error) = process::raise_open_files_limit() {
        log.warning(format!("the limit on open files cannot be raised: {error}"));
    }
    let socket = listen(options)?;
    let addr = listener::local_addr(&socket).map_err(|error| StartError::System("listener", error))?;
    let mut info = Info::new(server_id, server_name, options.host.clone(), addr.port());
    info.headers = options.settings.headers;
    info.auth_required = options.settings.credentials.required();
    info.max_payload = options.settings.payload_max as i64;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::System("control runtime", error))?;
    runtime.block_on(async {
        // Before the workers, so that a signal meant for us never ends the process.
        let mut signals = Signals::new().map_err(|error| StartError::System("signal handlers", error))?;
        let workers = Workers::start(options, &info, &socket, log)?;
        if let Some(path) = &options.pid_file
            && let Err(error) = std::fs::write(path, std::process::id().to_string())
        {
            log.error(format!("Could not write pidfile {path:?}: {error}"));
        }
        log.info(format!("Listening for client connections on {}", host_port(&options.host, addr.port())));
        log.info("Server is ready");
        loop {
            match signals.next().await {
                Signal::Stop(name) => {
                    log.info(format!("Trapped {name:?} signal"));
                    break;
                }
                Signal::Reopen => log.reopen(),
                Signal::Unsupported(name) => {
                    log.warning(format!("not supported yet: {name}"));
                }
            }
        }
        log.info("Initiating Shutdown...");
        workers.stop();
        log.info("Server Exiting..");
        Ok(())
    })
}

fn listen(options: &ServerOptions) -> Result<Socket, StartError> {
    listener::listen(&options.host, options.port).map_err(|error| {
        let cause = match error.kind() {
            io::ErrorKind::AddrInUse => "bind: address already in use".to_owned(),
            io::ErrorKind::PermissionDenied => "bind: permission denied".to_owned(),
            io::ErrorKind::AddrNotAvailable => "bind: cannot assign requested address".to_owned(),
            _ => error.to_string(),
        };
        StartError::Listen { addr: host_port(&options.host, options.port), cause }
    })
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The running workers.
struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    fn start(options: &ServerOptions, info: &Info, socket: &Socket, log: &Log) -> Result<Workers, StartError> {
        let count = match options.workers {
            0 => process::available_cores(),
            count => count,
        };
        let doors = (0..count)
            .map(|_| Waker::new().map(Door::new))
            .collect::<io::Result<Vec<Door>>>()
            .map_err(|error| StartError::System("eventfd", error))?;
        let shared = Arc::new(Shared {
            doors,
            next_cid: AtomicU64::new(FIRST_CID),
            connections_max: options.connections_max,
            stopping: AtomicBool::new(false),
        });
        let settings = Arc::new(options.settings.clone());
        let interest = SharedInterest::default();
        let mut outboxes: Vec<Vec<_>> = (0..count).map(|_| (0..count).map(|_| None).collect()).collect();
        let mut inboxes: Vec<Vec<_>> = (0..count).map(|_| (0..count).map(|_| None).collect()).collect();
        for (from, outboxes) in outboxes.iter_mut().enumerate() {
            for (to, outbox) in outboxes.iter_mut().enumerate().filter(|(to, _)| *to != from) {
                let (sender, receiver) = handover::queue();
                *outbox = Some(sender);
                inboxes[to][from] = Some(receiver);
            }
        }
        let (ready_in, ready_out) = mpsc::channel();
        let mut threads = Vec::with_capacity(count);
        for (worker, (outboxes, inboxes)) in outboxes.into_iter().zip(inboxes).enumerate() {
            let broker = Broker::new(
                worker as u16,
                count,
                settings.clone(),
                info.clone(),
                vec![interest.clone()],
                fastrand::u64(..),
            );
            let parts = WorkerParts {
                worker,
                broker,
                outboxes,
                inboxes,
                shared: shared.clone(),
                listener: (worker == 0).then(|| socket.as_raw_fd()),
                write_deadline_ms: options.settings.write_deadline_ms,
                log: log.clone(),
            };
            let ready = ready_in.clone();
            let thread = std::thread::Builder::new()
                .name(worker::thread_name(worker))
                .spawn(move || {
                    worker::run(parts, |result| {
                        let _ = ready.send(result);
                    });
                })
                .map_err(|error| StartError::System("worker thread", error))?;
            threads.push(thread);
        }
        let workers = Workers { shared, threads };
        for _ in 0..count {
            match ready_out.recv() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    workers.stop();
                    return Err(error.into());
                }
                Err(mpsc::RecvError) => {
                    return Err(StartError::System("worker thread", io::Error::other("it died at start")));
                }
            }
        }
        Ok(workers)
    }

    /// Closes all connections and waits for the workers to end.
    fn stop(self) {
        self.shared.stop();
        for thread in self.threads {
            // A worker that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

/// Numbers below are the reference's internal clients.
const FIRST_CID: u64 = 5;

enum Signal {
    Stop(&'static str),
    Reopen,
    Unsupported(&'static str),
}

struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    user1: tokio::signal::unix::Signal,
    user2: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Stop("interrupt"),
            _ = self.terminate.recv() => Signal::Stop("terminated"),
            _ = self.user1.recv() => Signal::Reopen,
            _ = self.user2.recv() => Signal::Unsupported("lame duck mode (SIGUSR2)"),
            _ = self.hangup.recv() => Signal::Unsupported("configuration reload (SIGHUP)"),
        }
    }
}
