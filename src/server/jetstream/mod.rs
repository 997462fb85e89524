//! JetStream, as the control thread sees it: which streams there are, what the API asks, and where streams are kept.
//!
//! A request to the API comes through the server's own client ([`super::internal`]). What it asks for is decided from the
//! registry of its account ([`crate::stream::control`]); then the worker that owns the stream is asked, through the orders at its
//! door ([`orders`]). Streams are made, opened and removed here ([`disk`]), on threads that may wait for the disk. Requests that
//! change which streams there are come one after the other; all others wait for nothing but their stream.
//!
//! Messages of streams never come here: they go to the worker that owns the stream, and their acknowledgements from there
//! (`worker/streams.rs`).

pub mod disk;
pub mod orders;
mod restore;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use self::disk::{FoundStream, StoreDirectory, StoreDirectoryError, StreamFile, StreamFiles};
use self::orders::{
    ConsumerAnswer, ConsumerRequest, LOOK_CONSUMERS_MAX, LOOK_STREAMS_MAX, Opening, SnapshotOrder,
    StreamLook, StreamNumber, StreamOrder,
};
use self::restore::Restores;
use super::http::NoAnswer;
use super::log::Log;
use super::shared::Shared;
use super::system::TakenRequest;
use crate::base::system_error;
use crate::base::wall_clock::now_ns;
use crate::broker::internal::{InternalMessage, Publisher, SubscriptionId};
use crate::config::{
    GLOBAL_ACCOUNT, JetStreamAccountLimits, JetStreamLimits, JetStreamOptions, Options, SYNC_INTERVAL,
};
use crate::io::process::{self, DiskSpace};
use crate::monitor::jetstream::{AccountStreams, JetStreamReading, StreamReading, Wanted};
use crate::store::{FileStore, MemoryStore, RecoveryReport, Settings as StoreSettings, Step, Store};
use crate::stream::api::{self, Audit, Frame, StreamAction, StreamReport, Verb};
use crate::stream::batch::{BatchLimits, BatchTotals};
use crate::stream::config::{PersistMode, Storage, StreamConfigRequest};
use crate::stream::consumer::{self, Consumers, Description, Detail, Site, StreamFacts};
use crate::stream::control::{self, Plan, Situation};
use crate::stream::headers;
use crate::stream::json::{self, Strictness};
use crate::stream::limits::{AccountLimits, ServerLimits};
use crate::stream::registry::Registry;
use crate::stream::room::Rooms;
use crate::stream::stream::{Answer, Command, Stream, StreamSettings};
use crate::stream::{ApiError, ErrorId, StreamConfig};
use crate::subject::mapping::is_subset;

/// Requests that are answered at a time.
pub const REQUESTS_MAX: usize = 10_000;

/// How long a worker may take for a look at some of its streams. It needs milliseconds; this is for a machine that has stopped.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The subjects of the API whose requests come to the control thread.
const SUBJECTS: &[&str] = &[
    "$JS.API.INFO",
    "$JS.API.STREAM.>",
    "$JS.API.CONSUMER.CREATE.>",
    "$JS.API.CONSUMER.DURABLE.>",
    "$JS.API.CONSUMER.NAMES.*",
    "$JS.API.CONSUMER.LIST.*",
    "$JS.API.CONSUMER.INFO.>",
    "$JS.API.CONSUMER.DELETE.>",
    "$JS.API.CONSUMER.PAUSE.>",
    "$JS.API.CONSUMER.RESET.>",
    "$JS.API.CONSUMER.UNPIN.>",
    "$JS.API.CONSUMER.LEADER.>",
];

/// What the system account may ask, with the name of an account behind it: that all its streams be deleted.
const ACCOUNT_PURGE: &str = "$JS.API.ACCOUNT.PURGE.";
const SYSTEM_SUBJECTS: &[&str] = &["$JS.API.ACCOUNT.PURGE.*"];

/// The part of the machine's memory, and of the free disk, that streams may take unless it is said how much: as in the reference.
const SHARE_NUMERATOR: u64 = 3;
const SHARE_DENOMINATOR: u64 = 4;

/// See the head of this file.
pub struct JetStream {
    shared: Arc<Shared>,
    log: Log,
    server_name: String,
    strictness: Strictness,
    limits: ServerLimits,
    /// What the streams of all accounts hold.
    rooms: Rooms,
    /// What consumers may take, without what their account says.
    consumer_limits: consumer::Limits,
    terms: StreamTerms,
    store: Arc<StoreDirectory>,
    /// The streams of each account that may have some, by slot. Held while it is decided and done what changes which there are.
    accounts: tokio::sync::Mutex<BTreeMap<u16, StreamsOfAccount>>,
    subscriptions: Mutex<HashSet<SubscriptionId>>,
    subscribed: Mutex<BTreeMap<u16, Vec<SubscriptionId>>>,
    next_number: AtomicU64,
    /// Streams per worker.
    streams: Vec<AtomicUsize>,
    answering: AtomicUsize,
    /// Streams that are on disk and could not be opened: their accounts and names.
    unopened: Mutex<Vec<(String, String)>>,
    refused: AtomicU64,
    restores: Restores,
}

/// The streams of one account.
struct StreamsOfAccount {
    name: String,
    registry: Registry<Place>,
    /// What its streams hold.
    rooms: Rooms,
    requests: u64,
    errors: u64,
}

/// Where a stream is.
#[derive(Debug, Clone)]
struct Place {
    worker: usize,
    number: StreamNumber,
    directory: Option<PathBuf>,
}

/// Why JetStream cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum JetStreamError {
    /// The directory.
    #[error(transparent)]
    Directory(#[from] StoreDirectoryError),
    /// The limits of accounts are more than the server has.
    #[error("Error enabling jetstream on configured accounts: {0}")]
    Accounts(ApiError),
    /// It cannot be read.
    #[error("the streams in {0} cannot be read: {1}")]
    Read(PathBuf, String),
}

impl JetStream {
    /// Opens the directory of the streams. They are opened with [`JetStream::open_streams`].
    ///
    /// # Errors
    ///
    /// See [`JetStreamError`].
    pub fn new(
        options: &JetStreamOptions,
        store_dir: Option<&Path>,
        server_name: &str,
        shared: Arc<Shared>,
        log: Log,
    ) -> Result<Arc<JetStream>, JetStreamError> {
        let temporary = std::env::temp_dir().join("nats");
        if store_dir.is_none() {
            let shown = temporary.join("jetstream");
            log.warning(format!(
                "Temporary storage directory used, data could be lost on system reboot: {}",
                shown.display()
            ));
        }
        let store = StoreDirectory::open(store_dir.unwrap_or(&temporary), options.encryption.as_ref())?;
        let share = |bytes: u64| bytes / SHARE_DENOMINATOR * SHARE_NUMERATOR;
        let memory_max = options.memory_max.unwrap_or_else(|| share(process::memory_bytes()));
        let disk = process::disk_space(store.path());
        let file_max =
            options.file_max.unwrap_or_else(|| disk.map_or(1 << 40, |disk| share(disk.free_bytes)));
        log.info("Starting JetStream");
        log.info(format!("  Max Memory:      {}", human(memory_max)));
        log.info(format!("  Max Storage:     {}", human(file_max)));
        log.info(format!("  Store Directory: \"{}\"", store.path().display()));
        if !options.domain.is_empty() {
            log.info(format!("  Domain:          {}", options.domain));
        }
        log.info(match options.sync_interval {
            None => "  Sync:            before every acknowledgement".to_owned(),
            Some(interval) => format!("  Sync:            every {interval:?}, after acknowledgements"),
        });
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let rooms = Rooms::default();
        rooms.memory.set_max(Some(memory_max));
        rooms.storage.set_max(Some(file_max));
        Ok(Arc::new(JetStream {
            rooms,
            server_name: server_name.to_owned(),
            strictness: if options.strict { Strictness::Strict } else { Strictness::Lenient },
            limits: ServerLimits {
                duplicate_window_ns: options
                    .limits
                    .duplicate_window
                    .map_or(0, |window| i64::try_from(window.as_nanos()).unwrap_or(i64::MAX)),
                max_memory_bytes: signed(memory_max),
                max_storage_bytes: signed(file_max),
                ..ServerLimits::default()
            },
            consumer_limits: consumer::Limits {
                server_max_ack_pending: options.limits.ack_pending_max.map_or(0, signed),
                server_max_request_batch: options.limits.request_batch_max.map_or(0, signed),
                server_default_max_consumers: options.limits.consumers_of_a_stream(),
                ..consumer::Limits::default()
            },
            terms: StreamTerms {
                domain: options.domain.clone(),
                batch_limits: batch_limits(&options.limits),
                sync_interval: options.sync_interval,
            },
            store: Arc::new(store),
            accounts: tokio::sync::Mutex::default(),
            subscriptions: Mutex::default(),
            subscribed: Mutex::default(),
            next_number: AtomicU64::new(1),
            streams: shared.doors.iter().map(|_| AtomicUsize::new(0)).collect(),
            answering: AtomicUsize::new(0),
            unopened: Mutex::default(),
            refused: AtomicU64::new(0),
            restores: Restores::default(),
            shared,
            log,
        }))
    }

    /// Opens the streams that are there, and takes requests in the accounts that may have some.
    ///
    /// # Errors
    ///
    /// Their directories cannot be read. A stream that cannot be opened is left alone, with a line in the log.
    pub async fn open_streams(&self, options: &Options) -> Result<(), JetStreamError> {
        self.check_accounts(options).map_err(JetStreamError::Accounts)?;
        self.go_by_settings(options).await;
        let started = Instant::now();
        let found = self
            .store
            .find()
            .map_err(|error| JetStreamError::Read(self.store.path().into(), system_error::text(&error)))?;
        let mut opened = 0;
        for stream in found {
            match self.open(&stream).await {
                Ok(true) => opened += 1,
                Ok(false) => self.log.warning(format!(
                    "JetStream: stream {} stays closed: its account {:?} has no JetStream",
                    stream.path.display(),
                    stream.account
                )),
                Err(error) => {
                    self.unopened.lock().push((stream.account.clone(), stream.name.clone()));
                    self.log.error(format!(
                        "JetStream: stream {} cannot be opened, and is left as it is: {error}",
                        stream.path.display()
                    ));
                }
            }
        }
        if opened > 0 {
            let elapsed = started.elapsed().as_secs_f64() * 1e3;
            self.log.info(format!("  Restored {opened} streams in {elapsed:.1} ms"));
        }
        Ok(())
    }

    /// Whether the server has what it promises its accounts.
    fn check_accounts(&self, options: &Options) -> Result<(), ApiError> {
        let (mut memory, mut storage) = (0_u64, 0_u64);
        for limits in options.accounts.iter().filter_map(|account| account.jetstream.as_ref()) {
            memory = memory.saturating_add(limits.memory_max.unwrap_or(0));
            storage = storage.saturating_add(limits.file_max.unwrap_or(0));
        }
        if memory > self.limits.max_memory_bytes.max(0).unsigned_abs() {
            return Err(ErrorId::MemoryResourcesExceeded.into());
        }
        if storage > self.limits.max_storage_bytes.max(0).unsigned_abs() {
            return Err(ErrorId::StorageResourcesExceeded.into());
        }
        Ok(())
    }

    /// Goes by the accounts of the configuration. Streams of an account that is gone stay as they are, out of reach.
    pub async fn go_by_settings(&self, options: &Options) {
        let directory = self.shared.live.lock().settings.directory.clone();
        let wanted: BTreeMap<u16, (String, Option<AccountLimits>)> = directory
            .accounts()
            .iter()
            .filter(|account| !account.is_system && account.exists)
            .map(|account| (account.slot, (account.name.clone(), limits_of(&account.name, options))))
            .collect();
        let mut accounts = self.accounts.lock().await;
        for (slot, (name, limits)) in &wanted {
            let Some(limits) = limits else { continue };
            let account = accounts.entry(*slot).or_insert_with(|| StreamsOfAccount {
                name: name.clone(),
                registry: Registry::new(limits.clone()),
                rooms: Rooms::default(),
                requests: 0,
                errors: 0,
            });
            // Negative is no limit.
            account.rooms.memory.set_max(u64::try_from(limits.max_memory).ok());
            account.rooms.storage.set_max(u64::try_from(limits.max_storage).ok());
            account.registry.set_limits(limits.clone());
        }
        // An account without streams that imports the API of another one is answered by that one alone, as in the reference.
        let imports_the_api = |slot: u16| {
            let account = directory.accounts().iter().find(|account| account.slot == slot);
            account.is_some_and(|account| {
                let mut imports = account.sharing.service_imports.iter();
                imports.any(|import| {
                    ["$JS.API.>", "$JS.API.INFO"]
                        .iter()
                        .any(|subject| is_subset(subject.as_bytes(), import.to.as_bytes()))
                })
            })
        };
        let served: BTreeSet<u16> = wanted
            .iter()
            .filter(|(slot, (_, limits))| limits.is_some() || !imports_the_api(**slot))
            .map(|(slot, _)| *slot)
            .collect();
        let system = directory.accounts().iter().find(|account| account.is_system && account.exists);
        let system = system.map(|account| account.slot);
        let mut subscribed = self.subscribed.lock();
        let mut subscriptions = self.subscriptions.lock();
        self.shared.internal.with_client(|client| {
            subscribed.retain(|slot, ids| {
                let stays = served.contains(slot) || system == Some(*slot);
                for id in ids.iter().filter(|_| !stays) {
                    subscriptions.remove(id);
                    client.unsubscribe(*id);
                }
                stays
            });
            for slot in served.iter().chain(&system) {
                let subjects = if system == Some(*slot) { SYSTEM_SUBJECTS } else { SUBJECTS };
                subscribed.entry(*slot).or_insert_with(|| {
                    let ids: Vec<SubscriptionId> = subjects
                        .iter()
                        .map(|subject| client.subscribe(*slot, subject.as_bytes(), None))
                        .collect();
                    subscriptions.extend(&ids);
                    ids
                });
            }
        });
    }

    /// Whether a subscription of the server's own client is one of the API's.
    pub fn serves(&self, subscription: SubscriptionId) -> bool {
        self.subscriptions.lock().contains(&subscription)
    }

    /// Requests that were too many since the last call.
    pub fn take_refused(&self) -> u64 {
        self.refused.swap(0, Ordering::Relaxed)
    }

    /// Answers a request, in a task of its own.
    pub fn take_request(self: &Arc<JetStream>, request: TakenRequest) {
        // Pieces of backups have an order, which tasks have not.
        let Some(request) = self.restores.take(request) else { return };
        if self.answering.fetch_add(1, Ordering::Relaxed) >= REQUESTS_MAX {
            self.answering.fetch_sub(1, Ordering::Relaxed);
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let jetstream = self.clone();
        tokio::spawn(async move {
            jetstream.answer(&request).await;
            jetstream.answering.fetch_sub(1, Ordering::Relaxed);
        });
    }

    async fn answer(self: &Arc<JetStream>, request: &TakenRequest) {
        let Ok(subject) = std::str::from_utf8(&request.subject) else { return };
        if let Some(name) = subject.strip_prefix(ACCOUNT_PURGE) {
            let Some(reply) = &request.reply else { return };
            let answer = api::account_purged(&self.purge_account(name).await);
            return self.publish(InternalMessage::new(request.account, reply.clone(), &answer));
        }
        let Some(verb) = Verb::parse(subject) else { return };
        let is_audited = self
            .shared
            .internal
            .with_client(|internal| internal.has_listener(request.account, api::AUDIT_SUBJECT.as_bytes()));
        // Before anything is done: who has asked may be gone then.
        let client = if is_audited { self.client_of(request).await } else { None };
        let (answer, is_error) = self.carry_out(&verb, request).await;
        if let Some(account) = self.accounts.lock().await.get_mut(&request.account) {
            account.requests += 1;
            account.errors += u64::from(is_error);
        }
        let Some((header, answer)) = answer else { return };
        if let Some(reply) = &request.reply {
            self.publish(InternalMessage::with_header(request.account, reply.clone(), &header, &answer));
        }
        if is_audited {
            let (client, request_body) = (client.as_deref(), &request.payload);
            let audit = Audit { client, subject, request: request_body, response: &answer };
            let body = audit.write(self.frame(), &mut fastrand::Rng::new());
            self.publish(InternalMessage::new(request.account, api::AUDIT_SUBJECT, &body));
        }
    }

    /// Who has sent a request, as JSON.
    async fn client_of(&self, request: &TakenRequest) -> Option<String> {
        // A request from another account says so itself.
        if let Some(info) = headers::get(&request.header, b"Nats-Request-Info") {
            let info = std::str::from_utf8(info).ok()?;
            return serde_json::from_str::<&RawValue>(info).ok().map(|info| info.get().to_owned());
        }
        let Publisher { worker, conn, cid } = request.publisher?;
        let first = usize::from(worker);
        let others = (0..self.shared.doors.len()).filter(|other| *other != first);
        for worker in std::iter::once(first).chain(others) {
            let (reply, said) = oneshot::channel();
            self.order(worker, StreamOrder::ShowClient { conn, cid, reply });
            if let Ok(Ok(Some(client))) = within(said).await {
                return Some(client);
            }
        }
        None
    }

    /// Tells in the system account that requests were too many.
    pub fn tell_of_refused(&self, dropped: u64) {
        let directory = self.shared.live.lock().settings.directory.clone();
        let system =
            directory.accounts().iter().find(|account| account.is_system).map(|account| account.slot);
        if let Some(slot) = system {
            let body = api::limit_reached(dropped, self.frame(), &mut fastrand::Rng::new());
            self.publish(InternalMessage::new(slot, api::LIMIT_REACHED_SUBJECT, &body));
        }
    }

    /// Does what a request asks for. What to answer, if anything, and whether that is an error.
    async fn carry_out(
        self: &Arc<JetStream>,
        verb: &Verb<'_>,
        request: &TakenRequest,
    ) -> (Option<ConsumerAnswer>, bool) {
        let plain = |answer: Vec<u8>| Some((Vec::new(), answer));
        let mut accounts = self.accounts.lock().await;
        let server = match verb {
            Verb::StreamCreate(_) | Verb::StreamUpdate(_) | Verb::StreamRestore(_) => {
                self.limits_now(&accounts)
            }
            _ => self.limits.clone(),
        };
        let Some(account) = accounts.get_mut(&request.account) else {
            return (plain(control::not_enabled(verb)), true);
        };
        let situation = Situation { server: &server, strictness: self.strictness };
        let plan = control::plan(&account.registry, verb, &request.header, &request.payload, situation);
        let (answer, is_error) = match plan {
            Plan::Answer(answer) => (answer, false),
            Plan::Failure(answer) => (answer, true),
            Plan::AccountInfo => {
                let places: Vec<Place> = account.registry.iter().map(|entry| entry.place.clone()).collect();
                let (limits, total, errors) =
                    (account.registry.limits().clone(), account.requests, account.errors);
                drop(accounts);
                let reports = self.reports(places).await;
                let mut usage = control::usage(&reports);
                (usage.api_total, usage.api_errors) = (total, errors);
                (api::account_info(&usage, &limits, &self.terms.domain), false)
            }
            Plan::List { entries, total, offset } => {
                let places = entries.into_iter().map(|entry| entry.place.clone()).collect();
                drop(accounts);
                let reports = self.reports(places).await;
                (api::stream_list(&reports, total, offset, self.frame()), false)
            }
            Plan::Ask { entry, command, offset } => {
                let place = entry.place.clone();
                drop(accounts);
                let said = self.ask(&place, command).await;
                let is_error = said.is_err();
                (control::answer(verb, offset, said, self.frame()), is_error)
            }
            Plan::Create(config) => match self.create(account, request.account, *config).await {
                Ok(report) => {
                    self.tell(request.account, StreamAction::Created, &report.config.name);
                    (api::stream_created(&report, self.frame()), false)
                }
                Err(error) => (api::failure(verb, &error), true),
            },
            Plan::Update { entry, config } => {
                let (place, created_ns) = (entry.place.clone(), entry.created_ns);
                let said = self.update(account, &place, created_ns, *config).await;
                let is_error = said.is_err();
                if let Ok(Answer::Report(report)) = &said {
                    self.tell(request.account, StreamAction::Updated, &report.config.name);
                }
                (control::answer(verb, 0, said, self.frame()), is_error)
            }
            Plan::Delete(entry) => {
                let (name, place) = (entry.config.name.clone(), entry.place.clone());
                match self.delete(account, &name, &place).await {
                    Ok(()) => {
                        self.tell(request.account, StreamAction::Deleted, &name);
                        (api::success(verb), false)
                    }
                    Err(error) => (api::failure(verb, &error), true),
                }
            }
            Plan::Snapshot { entry, request: asked } => {
                let (place, account) = (entry.place.clone(), account.name.clone());
                drop(accounts);
                let (done, is_done) = oneshot::channel();
                let reply = request.reply.clone().unwrap_or_default();
                let order = SnapshotOrder { stream: place.number, request: asked, reply, account, done };
                self.order(place.worker, StreamOrder::Snapshot(Box::new(order)));
                // The worker answers itself, so that nothing comes before the answer.
                return match is_done.await {
                    Ok(Ok(())) => (None, false),
                    Ok(Err(error)) => (plain(api::failure(verb, &error)), true),
                    Err(_) => (plain(api::failure(verb, &ErrorId::StreamNotFound.into())), true),
                };
            }
            Plan::Restore(config) => {
                let bytes_max = account.registry.room_bytes(&config, &self.limits);
                match self.begin_restore(request.account, &account.name, *config, bytes_max) {
                    Ok(subject) => (api::stream_restore(&subject), false),
                    Err(error) => (api::failure(verb, &error), true),
                }
            }
            Plan::Elsewhere => {
                let Some(asked) = consumer::address(verb) else { return (None, false) };
                let place = match account.registry.find(asked.stream) {
                    Ok(entry) => entry.place.clone(),
                    Err(error) => return (plain(api::failure(verb, &error)), true),
                };
                drop(accounts);
                let (reply, said) = oneshot::channel();
                let request = ConsumerRequest {
                    subject: String::from_utf8_lossy(&request.subject).into_owned(),
                    header: request.header.clone(),
                    body: request.payload.clone(),
                    strictness: self.strictness,
                    reply,
                };
                self.order(place.worker, StreamOrder::AskConsumers { stream: place.number, request });
                let answer = said.await.ok().flatten();
                let is_error = answer.as_ref().is_some_and(|(_, body)| is_failure(body));
                return (answer, is_error);
            }
        };
        (plain(answer), is_error)
    }

    /// What the server allows, with what the streams of all accounts reserve.
    fn limits_now(&self, accounts: &BTreeMap<u16, StreamsOfAccount>) -> ServerLimits {
        let mut limits = self.limits.clone();
        for account in accounts.values() {
            let (memory, storage) = account.registry.reserved_bytes();
            limits.reserved_memory_bytes = limits.reserved_memory_bytes.saturating_add_unsigned(memory);
            limits.reserved_storage_bytes = limits.reserved_storage_bytes.saturating_add_unsigned(storage);
        }
        limits
    }

    /// Makes a stream and gives it to a worker.
    async fn create(
        &self,
        account: &mut StreamsOfAccount,
        slot: u16,
        config: StreamConfig,
    ) -> Result<StreamReport, ApiError> {
        let created_ns = now_ns();
        let (store, directory) = match config.storage {
            Storage::Memory => (Store::from(MemoryStore::new()), None),
            Storage::File => {
                let settings = self.terms.store_settings(&config, &self.store).map_err(random_failed)?;
                let (store, steps) = FileStore::create(settings);
                let file = stream_file(&config, created_ns);
                let place = self.make_directory(&account.name, &config.name, file, steps).await?;
                (Store::from(store), Some(place))
            }
        };
        let mut stream = Stream::new(self.terms.settings(config.clone(), created_ns, &account.name), store);
        stream.set_sync_interval(self.terms.sync_interval(&config));
        let report = stream.report(false, "", 0);
        let consumers = self.new_consumers(account, StreamFacts::of(stream.config()));
        self.enlist(account, &mut stream);
        let place = self.give(slot, stream, consumers, directory).await;
        account.registry.insert(config, created_ns, place);
        Ok(report)
    }

    async fn make_directory(
        &self,
        account: &str,
        name: &str,
        file: StreamFile,
        steps: Vec<Step>,
    ) -> Result<PathBuf, ApiError> {
        let (store, account, name) = (self.store.clone(), account.to_owned(), name.to_owned());
        let made = blocking(move || store.create(&account, &name, &file, &steps)).await;
        made.map_err(|error| ApiError::with(ErrorId::StreamStoreFailed, system_error::text(&error)))
    }

    /// Changes a stream: first what a restart would find, then what the worker has.
    async fn update(
        &self,
        account: &mut StreamsOfAccount,
        place: &Place,
        created_ns: i64,
        config: StreamConfig,
    ) -> Result<Answer, ApiError> {
        let before = account.registry.find(&config.name)?;
        if config.consumer_limits != before.config.consumer_limits {
            let (reply, checked) = oneshot::channel();
            let limits = config.consumer_limits.clone();
            self.order(place.worker, StreamOrder::CheckConsumers { stream: place.number, limits, reply });
            // Without an answer the server ends.
            checked.await.unwrap_or_else(|_| Err(ErrorId::StreamNotFound.into()))?;
        }
        if let Some(directory) = place.directory.clone() {
            let file = stream_file(&config, created_ns);
            let store = self.store.clone();
            let written =
                blocking(move || disk::write_stream_file(&directory, &file, store.encryption())).await;
            written.map_err(|error| ApiError::with(ErrorId::StreamUpdate, system_error::text(&error)))?;
        }
        account.registry.set_config(config.clone());
        self.ask(place, Command::Update(Box::new(config))).await
    }

    /// Deletes all streams of an account, on behalf of the system account. One that has none, or is not there, is done with.
    async fn purge_account(&self, name: &str) -> Result<(), ApiError> {
        if name.contains(['/', '\\']) {
            let text = "account name can not contain path separators";
            return Err(ApiError::with(ErrorId::StreamGeneralError, text));
        }
        let mut accounts = self.accounts.lock().await;
        let Some((&slot, account)) = accounts.iter_mut().find(|(_, account)| account.name == name) else {
            return Ok(());
        };
        let streams: Vec<(String, Place)> =
            account.registry.iter().map(|entry| (entry.config.name.clone(), entry.place.clone())).collect();
        self.log.info(format!("Purge request for account {name} (streams: {})", streams.len()));
        for (stream, place) in streams {
            self.delete(account, &stream, &place).await?;
            self.tell(slot, StreamAction::Deleted, &stream);
        }
        Ok(())
    }

    /// Removes a stream. When that is answered no start brings it back.
    async fn delete(
        &self,
        account: &mut StreamsOfAccount,
        name: &str,
        place: &Place,
    ) -> Result<(), ApiError> {
        let (done, is_done) = oneshot::channel();
        self.order(place.worker, StreamOrder::Close { stream: place.number, done });
        // A worker that has ended writes nothing either.
        let _ = is_done.await;
        self.streams[place.worker].fetch_sub(1, Ordering::Relaxed);
        account.registry.remove(name);
        let Some(directory) = place.directory.clone() else { return Ok(()) };
        let gone = blocking(move || StoreDirectory::delete(&directory)).await;
        let gone = gone.map_err(|error| ApiError::with(ErrorId::StreamDelete, system_error::text(&error)))?;
        let log = self.log.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = std::fs::remove_dir_all(&gone) {
                log.warning(format!(
                    "JetStream: {} cannot be removed: {}",
                    gone.display(),
                    system_error::text(&error)
                ));
            }
        });
        Ok(())
    }

    /// Opens a stream that was found; `false` if its account may have none.
    async fn open(&self, found: &FoundStream) -> Result<bool, String> {
        let mut accounts = self.accounts.lock().await;
        let account = accounts.iter_mut().find(|(_, account)| account.name == found.account);
        let Some((&slot, account)) = account else { return Ok(false) };
        let (path, log) = (found.path.clone(), self.log.clone());
        let (name, store, terms) = (account.name.clone(), self.store.clone(), self.terms.clone());
        let opened =
            tokio::task::spawn_blocking(move || open_stream(&path, &name, &store, &terms, &log)).await;
        let (mut stream, config, created_ns) = opened.map_err(|error| error.to_string())??;
        if config.name != found.name {
            return Err(format!("its file is that of stream {}", config.name));
        }
        let consumers = self.new_consumers(account, StreamFacts::of(stream.config()));
        self.enlist(account, &mut stream);
        let place = self.give(slot, stream, consumers, Some(found.path.clone())).await;
        account.registry.insert(config, created_ns, place);
        Ok(true)
    }

    /// Gives a stream to the worker that has the fewest, and waits until messages come to it.
    async fn give(
        &self,
        slot: u16,
        stream: Stream,
        consumers: Consumers,
        directory: Option<PathBuf>,
    ) -> Place {
        let counts = self.streams.iter().enumerate();
        let worker =
            counts.min_by_key(|(_, count)| count.load(Ordering::Relaxed)).map_or(0, |(worker, _)| worker);
        self.streams[worker].fetch_add(1, Ordering::Relaxed);
        let number = StreamNumber(self.next_number.fetch_add(1, Ordering::Relaxed));
        let (done, is_done) = oneshot::channel();
        let place = Place { worker, number, directory: directory.clone() };
        let opening = Opening { number, account: slot, stream, consumers, directory, done };
        self.order(worker, StreamOrder::Open(Box::new(opening)));
        // A worker that has ended takes no messages.
        let _ = is_done.await;
        place
    }

    /// Nobody yet, for a stream of an account.
    fn new_consumers(&self, account: &StreamsOfAccount, stream: StreamFacts) -> Consumers {
        let site = Site {
            account: account.name.clone(),
            version: crate::stream::SERVER_VERSION,
            domain: self.terms.domain.clone(),
            max_payload: self.shared.live.lock().settings.payload_max as i64,
            ..Site::default()
        };
        let limits = self.consumer_limits.in_account(account.registry.limits());
        Consumers::new(site, stream, limits, fastrand::u64(..))
    }

    /// Counts a stream with the others of its account, and says in the log what is special about it.
    fn enlist(&self, account: &StreamsOfAccount, stream: &mut Stream) {
        stream.count_in(&account.rooms, &self.rooms);
        if let (PersistMode::Async, Some(interval)) = (stream.config().persist_mode, stream.sync_interval()) {
            let (account, stream) = (&account.name, &stream.config().name);
            self.log.info(format!(
                "JetStream: stream {account} > {stream} acknowledges before it syncs, which is every {interval:?}"
            ));
        }
    }

    fn order(&self, worker: usize, order: StreamOrder) {
        let door = &self.shared.doors[worker];
        door.orders.put(order);
        door.knock();
    }

    async fn ask(&self, place: &Place, command: Command) -> Result<Answer, ApiError> {
        let (reply, said) = oneshot::channel();
        self.order(place.worker, StreamOrder::Ask { stream: place.number, command, reply });
        // Without an answer the server ends.
        said.await.unwrap_or_else(|_| Err(ErrorId::StreamNotFound.into()))
    }

    async fn reports(&self, places: Vec<Place>) -> Vec<StreamReport> {
        let mut asked = Vec::with_capacity(places.len());
        for place in places {
            let (reply, said) = oneshot::channel();
            let command = Command::info();
            self.order(place.worker, StreamOrder::Ask { stream: place.number, command, reply });
            asked.push(said);
        }
        let mut reports = Vec::with_capacity(asked.len());
        for said in asked {
            if let Ok(Ok(Answer::Report(report))) = said.await {
                reports.push(*report);
            }
        }
        reports
    }

    /// Reads everything for monitoring: a few streams and consumers per turn of a worker, so that none of them is held up.
    ///
    /// # Errors
    ///
    /// The workers do not answer.
    pub async fn read(&self, wanted: Wanted<'_>) -> Result<JetStreamReading, NoAnswer> {
        let mut found: Vec<(AccountStreams, Vec<Place>)> = within(self.accounts.lock())
            .await?
            .values()
            .map(|account| {
                let limits = account.registry.limits();
                let streams = AccountStreams {
                    name: account.name.clone(),
                    memory_max: limits.max_memory,
                    storage_max: limits.max_storage,
                    requests: account.requests,
                    errors: account.errors,
                    streams: Vec::new(),
                };
                (streams, account.registry.iter().map(|entry| entry.place.clone()).collect())
            })
            .collect();
        found.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        let places: Vec<&Place> = found.iter().flat_map(|(_, places)| places).collect();
        let mut looks = Vec::with_capacity(places.len());
        for places in places.chunks(LOOK_STREAMS_MAX) {
            looks.extend(self.look(places).await?);
        }
        let mut looks = looks.into_iter();
        let mut placed: Vec<(AccountStreams, Vec<Place>)> = Vec::with_capacity(found.len());
        for (mut account, places) in found {
            let seen = places.into_iter().zip(looks.by_ref());
            // Those that have gone meanwhile are left out.
            let (places, streams) = seen.filter_map(|(place, look)| Some((place, look?))).unzip();
            account.streams = streams;
            placed.push((account, places));
        }
        self.read_consumers(&mut placed, wanted).await?;
        let signed = |bytes: i64| bytes.max(0).unsigned_abs();
        Ok(JetStreamReading {
            memory_max: signed(self.limits.max_memory_bytes),
            file_max: signed(self.limits.max_storage_bytes),
            store_dir: self.store.path().display().to_string(),
            accounts: placed.into_iter().map(|(account, _)| account).collect(),
            unopened: self.unopened.lock().clone(),
        })
    }

    /// How much room there is on the disk; `None` if that is not known. A disk that hangs does not hold up the thread that asks.
    pub async fn disk_space(&self) -> Option<DiskSpace> {
        let store = self.store.clone();
        let looked = tokio::task::spawn_blocking(move || process::disk_space(store.path()));
        within(looked).await.ok()?.ok()?
    }

    /// What some streams say of themselves, in their order.
    async fn look(&self, places: &[&Place]) -> Result<Vec<Option<StreamReading>>, NoAnswer> {
        let mut by_worker: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, place) in places.iter().enumerate() {
            by_worker.entry(place.worker).or_default().push(at);
        }
        let mut asked = Vec::with_capacity(by_worker.len());
        for (worker, at) in by_worker {
            let (reply, said) = oneshot::channel();
            let streams = at.iter().map(|at| places[*at].number).collect();
            self.order(worker, StreamOrder::Look { streams, reply });
            asked.push((at, said));
        }
        let mut looks: Vec<Option<StreamReading>> = places.iter().map(|_| None).collect();
        for (at, said) in asked {
            let said = within(said).await?.map_err(|_| NoAnswer)?;
            for (at, look) in at.into_iter().zip(said) {
                looks[at] = look.map(|StreamLook { report, write_error, store_errors, deliveries }| {
                    StreamReading { report, write_error, store_errors, deliveries, consumers: Vec::new() }
                });
            }
        }
        Ok(looks)
    }

    async fn read_consumers(
        &self,
        accounts: &mut [(AccountStreams, Vec<Place>)],
        wanted: Wanted<'_>,
    ) -> Result<(), NoAnswer> {
        match wanted {
            Wanted::None => {}
            Wanted::One { account, stream, consumer } => {
                let found = accounts.iter_mut().find(|(found, _)| found.name == account);
                let Some((account, places)) = found else { return Ok(()) };
                let mut streams = account.streams.iter_mut().zip(places);
                if let Some((stream, place)) = streams.find(|(found, _)| found.report.config.name == stream) {
                    let from = Bound::Included(consumer.to_owned());
                    let mut found = self.look_at_consumers(place, from, 1, Detail::Info).await?;
                    found.retain(|found| found.name == consumer);
                    stream.consumers = found;
                }
            }
            Wanted::OfAccounts { accounts: choose, stream: only, mut max, detail } => {
                let names: Vec<String> = accounts.iter().map(|(account, _)| account.name.clone()).collect();
                for (account, places) in &mut accounts[choose(&names)] {
                    for (stream, place) in account.streams.iter_mut().zip(places) {
                        if only.is_some_and(|only| stream.report.config.name != only) {
                            continue;
                        }
                        let mut from = Bound::Unbounded;
                        // One without consumers has to tell nothing.
                        while stream.report.consumers_total > 0 && max > 0 {
                            let some = max.min(LOOK_CONSUMERS_MAX);
                            let found = self.look_at_consumers(place, from, some, detail).await?;
                            let Some(last) = found.last() else { break };
                            from = Bound::Excluded(last.name.clone());
                            max -= found.len();
                            let is_last = found.len() < some;
                            stream.consumers.extend(found);
                            if is_last {
                                break;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn look_at_consumers(
        &self,
        place: &Place,
        from: Bound<String>,
        max: usize,
        detail: Detail,
    ) -> Result<Vec<Description>, NoAnswer> {
        let (reply, said) = oneshot::channel();
        let stream = place.number;
        self.order(place.worker, StreamOrder::LookAtConsumers { stream, from, max, detail, reply });
        within(said).await?.map_err(|_| NoAnswer)
    }

    /// Tells what has become of a stream.
    fn tell(&self, account: u16, action: StreamAction, stream: &str) {
        let (subject, body) =
            api::stream_action(action, stream, &self.terms.domain, &mut fastrand::Rng::new(), now_ns());
        self.publish(InternalMessage::new(account, subject, &body));
    }

    fn publish(&self, message: InternalMessage) {
        self.shared.internal.with_client(|client| client.publish(message));
        self.shared.internal.send(&self.shared);
    }

    fn frame(&self) -> Frame<'_> {
        Frame { server_name: &self.server_name, domain: &self.terms.domain, now_ns: now_ns() }
    }
}

/// What an account may use; `None` if it has no JetStream.
fn limits_of(name: &str, options: &Options) -> Option<AccountLimits> {
    options.jetstream_of(name).as_ref().map(account_limits)
}

/// Waits for something that takes milliseconds, on a machine that has not stopped.
async fn within<T>(future: impl Future<Output = T>) -> Result<T, NoAnswer> {
    tokio::time::timeout(ANSWER_TIMEOUT, future).await.map_err(|_| NoAnswer)
}

fn account_limits(limits: &JetStreamAccountLimits) -> AccountLimits {
    let or_none = |max: Option<u64>| max.map_or(-1, |max| i64::try_from(max).unwrap_or(i64::MAX));
    AccountLimits {
        max_memory: or_none(limits.memory_max),
        max_storage: or_none(limits.file_max),
        max_streams: or_none(limits.streams_max),
        max_consumers: or_none(limits.consumers_max),
        max_ack_pending: or_none(limits.ack_pending_max),
        memory_max_stream_bytes: or_none(limits.memory_stream_max),
        storage_max_stream_bytes: or_none(limits.file_stream_max),
        max_bytes_required: limits.max_bytes_required,
    }
}

/// Opens the stream in a directory.
fn open_stream(
    path: &Path,
    account: &str,
    directory: &StoreDirectory,
    terms: &StreamTerms,
    log: &Log,
) -> Result<(Stream, StreamConfig, i64), String> {
    let file = disk::read_stream_file(path, directory.encryption()).map_err(|error| error.to_string())?;
    let request: StreamConfigRequest =
        json::read(file.config.get().as_bytes(), Strictness::Lenient).map_err(|error| error.to_string())?;
    let config = request.config;
    let mut files = StreamFiles::new(path);
    let settings_of_store = terms.store_settings(&config, directory).map_err(|error| error.to_string())?;
    let (store, report) =
        FileStore::open(&mut files, settings_of_store).map_err(|error| error.to_string())?;
    tell_damage(&config.name, &report, log);
    let mut stream = Stream::open(
        terms.settings(config.clone(), file.created_ns, account),
        Store::from(store),
        now_ns(),
        |plan| {
            let mut bytes = vec![0; plan.length as usize];
            let read = crate::store::Files::read_at(&mut files, plan.file, plan.offset, &mut bytes).ok()?;
            bytes.truncate(read);
            let messages = plan.decode(&bytes.into()).ok()?;
            messages.into_iter().find(|message| message.seq == plan.first_seq)
        },
    );
    stream.set_sync_interval(terms.sync_interval(&config));
    Ok((stream, config, file.created_ns))
}

/// Says in the log what recovery found.
fn tell_damage(name: &str, report: &RecoveryReport, log: &Log) {
    let warn = |text: String| log.warning(format!("JetStream: stream {name}: {text}"));
    for (file, range) in &report.torn {
        warn(format!(
            "{file}: bytes {} to {} were cut off while they were written, and never acknowledged",
            range.start, range.end
        ));
    }
    for (file, range) in &report.damaged {
        warn(format!("{file}: bytes {} to {} are damaged", range.start, range.end));
    }
    for lost in &report.lost {
        warn(format!("messages {} to {} are lost", lost.start(), lost.end()));
    }
    for (file, reason) in &report.quarantined {
        warn(format!("{file} cannot be used, and stays where it is: {reason}"));
    }
    for missing in &report.missing {
        warn(format!("segments {} to {} are missing", missing.start(), missing.end()));
    }
    if report.was_empty {
        warn("there is no file with messages at all".to_owned());
    }
    if report.unnamed > 0 {
        warn(format!("and {} more", report.unnamed));
    }
}

/// The limits of batches that the configuration asks for.
fn batch_limits(limits: &JetStreamLimits) -> BatchLimits {
    let default = BatchLimits::default();
    let or = |asked: Option<u64>, default: usize| asked.map_or(default, |asked| asked as usize);
    let (atomic, fast) = (BatchTotals::ATOMIC_MAX, BatchTotals::FAST_MAX);
    BatchLimits {
        messages: limits.batch_messages.unwrap_or(default.messages),
        open: or(limits.batch_inflight_per_stream, default.open),
        fast_open: or(limits.batch_inflight_per_stream, default.fast_open),
        timeout_ns: limits
            .batch_timeout
            .map_or(default.timeout_ns, |timeout| i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX)),
        totals: Arc::new(BatchTotals::new(
            or(limits.batch_inflight_total, atomic),
            or(limits.batch_inflight_total, fast),
        )),
        ..default
    }
}

/// What all streams are made with.
#[derive(Debug, Clone)]
struct StreamTerms {
    /// `jetstream.domain`, empty without one.
    domain: String,
    batch_limits: BatchLimits,
    /// `jetstream.sync_interval`; `None`: before anything is acknowledged.
    sync_interval: Option<Duration>,
}

impl StreamTerms {
    /// How often a stream is synced; `None`: before anything is acknowledged.
    fn sync_interval(&self, config: &StreamConfig) -> Option<Duration> {
        match (config.storage, config.persist_mode) {
            (Storage::Memory, _) => None,
            (Storage::File, PersistMode::Default) => self.sync_interval,
            (Storage::File, PersistMode::Async) => Some(self.sync_interval.unwrap_or(SYNC_INTERVAL)),
        }
    }

    /// What a store is opened with, once.
    fn store_settings(
        &self,
        config: &StreamConfig,
        directory: &StoreDirectory,
    ) -> std::io::Result<StoreSettings> {
        let mut settings = StoreSettings::new(fastrand::u64(..));
        settings.syncs_commits = self.sync_interval(config).is_none();
        if let Some(encryption) = directory.encryption() {
            settings.encryption = Some(encryption.clone());
            // Numbers for encryption begin where none has begun before, and so do streams.
            settings.nonce_start = u128::from_le_bytes(disk::random()?);
            settings.stream_salt = u64::from_le_bytes(disk::random()?);
        }
        Ok(settings)
    }

    fn settings(&self, config: StreamConfig, created_ns: i64, account: &str) -> StreamSettings {
        StreamSettings {
            config,
            created_ns,
            domain: self.domain.clone(),
            // The reference does not name the global one.
            account: if account == GLOBAL_ACCOUNT { String::new() } else { account.to_owned() },
            batch_limits: self.batch_limits.clone(),
            seed: fastrand::u64(..),
        }
    }
}

fn random_failed(error: std::io::Error) -> ApiError {
    ApiError::with(ErrorId::StreamStoreFailed, system_error::text(&error))
}

fn stream_file(config: &StreamConfig, created_ns: i64) -> StreamFile {
    let mut written = Vec::new();
    config.write(&mut written);
    let text = String::from_utf8(written).expect("JSON is text");
    StreamFile { created_ns, config: RawValue::from_string(text).expect("it has just been written") }
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(call).await.map_err(std::io::Error::other)?
}

/// Whether an answer about consumers is an error: it stands behind the type.
fn is_failure(answer: &[u8]) -> bool {
    let behind_type = memchr::memchr(b',', answer).map_or(&b""[..], |at| &answer[at..]);
    behind_type.starts_with(b",\"error\":")
}

/// Bytes as the reference writes them into its log.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.2} {}", UNITS[unit]) }
}
