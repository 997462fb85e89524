//! What the server does in the system account: answers requests, and tells what happens.
//!
//! All of it in the control thread's runtime. Messages come in through the server's own client ([`super::internal`]);
//! each request is answered in a task of its own, so that one that waits for workers holds up none of the others, and
//! [`REQUESTS_MAX`] of them at a time. Whoever asks for more gets no answer, and the log says so.
//!
//! An event is made only if somebody listens for it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::http::{Configured, Monitor, NoAnswer};
use super::inquiry::{Acted, Action};
use super::jetstream::JetStream;
use super::log::Log;
use super::shared::Shared;
use crate::auth::Directory;
use crate::base::nuid::nuid;
use crate::broker::inspect::{ConnectionTally, KnownUser, SubscriptionFilter};
use crate::broker::internal::{Arrival, InternalMessage, Publisher, Received, SubscriptionId};
use crate::broker::notice::Notice;
use crate::monitor::Answer;
use crate::monitor::accountz::AccountStat;
use crate::monitor::clock::Timestamp;
use crate::monitor::jetstream::Wanted;
use crate::monitor::json;
use crate::subject::name::has_wildcard;
use crate::system::envelope::{self, Data, Encoding, Failure, ServerInfo};
use crate::system::events::{self, Heading};
use crate::system::options::ServerFacts;
use crate::system::request::{Asked, Message, Subscribers, Task, failed, understand};
use crate::system::services::{self, Service};
use crate::system::{statsz, user_info};

/// Requests that are answered at a time.
pub const REQUESTS_MAX: usize = 1_024;

/// How often the server in brief is told: at first so, then half as often each time, down to that.
const STATSZ_FIRST: Duration = Duration::from_millis(250);
const STATSZ_INTERVAL: Duration = Duration::from_secs(10);

/// How often the number of an account's connections is told although it does not change.
const ACCOUNT_INTERVAL: Duration = Duration::from_secs(30);

/// When workers had no room for something, how soon it is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(1);

/// How often the log says that something was dropped, at most.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(1);

/// How long the server's end waits until the workers have the word of it.
const SHUTDOWN_PATIENCE: Duration = Duration::from_millis(500);

/// What has to be done by whoever holds the configuration.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Tells whoever asks what became of it.
    pub done: oneshot::Sender<Result<(), String>>,
}

/// The server in the system account.
pub struct System {
    monitor: Arc<Monitor>,
    shared: Arc<Shared>,
    jetstream: Option<Arc<JetStream>>,
    log: Log,
    reloads: mpsc::Sender<ReloadRequest>,
    is_monitored_over_http: bool,
    served: Mutex<Served>,
    /// Numbers of the messages that say who tells.
    seq: AtomicU64,
    answering: AtomicUsize,
    /// Requests that were too many since the log said so.
    refused: AtomicU64,
    accounts: Mutex<AccountNews>,
}

/// What is subscribed to.
#[derive(Default)]
struct Served {
    services: HashMap<SubscriptionId, Service>,
    /// In which accounts, by slot, and which of them is the system's.
    accounts: HashMap<u16, bool>,
}

/// Accounts whose connections changed, or are told of again.
#[derive(Default)]
struct AccountNews {
    changed: HashSet<u16>,
    /// Somebody tells of them just now.
    telling: bool,
    /// When they are told of again.
    due: HashMap<u16, Instant>,
}

impl System {
    /// The server in the system account, if there is one. It has to be run.
    pub fn new(
        monitor: Arc<Monitor>,
        shared: Arc<Shared>,
        jetstream: Option<Arc<JetStream>>,
        log: Log,
        reloads: mpsc::Sender<ReloadRequest>,
    ) -> Arc<System> {
        let is_monitored_over_http = shared.is_monitored.load(Ordering::Relaxed);
        let system = Arc::new(System {
            monitor,
            shared,
            jetstream,
            log,
            reloads,
            is_monitored_over_http,
            served: Mutex::default(),
            seq: AtomicU64::new(0),
            answering: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            accounts: Mutex::default(),
        });
        system.go_by_settings();
        system
    }

    fn directory(&self) -> Arc<Directory> {
        self.shared.live.lock().settings.directory.clone()
    }

    /// The slot of the system account.
    fn account(&self) -> Option<u16> {
        let directory = self.directory();
        directory.accounts().iter().find(|account| account.is_system).map(|account| account.slot)
    }

    /// Subscribes in the accounts that there are now, and nowhere else.
    pub fn go_by_settings(&self) {
        let live = self.shared.live.lock().clone();
        let accounts = live.settings.directory.accounts();
        let has_system = accounts.iter().any(|account| account.is_system);
        let wanted: HashMap<u16, bool> =
            accounts.iter().filter(|_| has_system).map(|account| (account.slot, account.is_system)).collect();
        let remembers = has_system || self.is_monitored_over_http;
        self.shared.remembers_closed.store(remembers, Ordering::Relaxed);
        let mut served = self.served.lock();
        self.shared.internal.with_client(|client| {
            client.apply_settings(&live.settings);
            for interest in live.interests.into_iter().skip(client.account_count()) {
                client.add_account(interest);
            }
            let stays = |slot: &u16, is_system: &bool| wanted.get(slot) == Some(is_system);
            let Served { services, accounts } = &mut *served;
            services.retain(|id, _| {
                let account = client.subscription(*id).map(|subscription| subscription.account);
                let stays =
                    account.is_some_and(|slot| accounts.get(&slot).is_some_and(|known| stays(&slot, known)));
                if !stays {
                    client.unsubscribe(*id);
                }
                stays
            });
            accounts.retain(|slot, is_system| stays(slot, is_system));
            let mut slots: Vec<(&u16, &bool)> = wanted.iter().collect();
            slots.sort_unstable();
            for (&slot, &is_system) in slots {
                if accounts.insert(slot, is_system).is_some() {
                    continue;
                }
                if is_system {
                    for (subject, service) in
                        services::of_the_system_account(&self.monitor.identity().server_id)
                    {
                        services.insert(client.subscribe(slot, subject.as_bytes(), None), service);
                    }
                } else {
                    for (subject, service) in services::OF_OTHER_ACCOUNTS {
                        // Every server answers its own clients.
                        services.insert(client.subscribe_here(slot, subject.as_bytes()), service);
                    }
                }
            }
        });
        self.write_log();
    }

    /// What the server's own client has for the log.
    fn write_log(&self) {
        if let Some(lines) = self.shared.internal.with_client(|client| client.take_log()) {
            self.log.write_lines(lines);
        }
    }

    /// Answers and tells until the runtime ends.
    pub async fn run(self: Arc<System>) {
        let mut statsz_interval = STATSZ_FIRST;
        let mut statsz_at = Instant::now() + statsz_interval;
        let mut complain_from = Instant::now();
        loop {
            let mut taken = Vec::new();
            let more = self.shared.internal.take(|arrival| taken.push(Taken::of(arrival)));
            for taken in taken {
                match taken {
                    Taken::Request(request) => self.take_request(request),
                    Taken::Notice(notice) => self.tell(*notice),
                }
            }
            let left = self.shared.internal.hand_over(&self.shared);
            let now = Instant::now();
            if now >= statsz_at {
                statsz_interval = (statsz_interval * 2).min(STATSZ_INTERVAL);
                statsz_at = now + statsz_interval;
                self.clone().tell_statsz();
            }
            self.clone().tell_accounts_again(now);
            if now >= complain_from && self.complain() {
                complain_from = now + COMPLAINT_PAUSE;
            }
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            let account_at = self.accounts.lock().due.values().min().copied();
            let retry_at = left.then_some(now + RETRY_AFTER);
            let wake_at = [Some(statsz_at), account_at, retry_at].into_iter().flatten().min().unwrap_or(now);
            tokio::select! {
                () = self.shared.internal.woken() => {}
                () = tokio::time::sleep_until(wake_at.into()) => {}
            }
        }
    }

    /// Says in the log what was dropped. Whether something was.
    fn complain(&self) -> bool {
        let dropped = self.shared.internal.take_dropped();
        if dropped > 0 {
            self.log
                .warning(format!("System account: {dropped} messages were too many and have been dropped"));
        }
        let refused = self.refused.swap(0, Ordering::Relaxed);
        if refused > 0 {
            self.log.warning(format!("System account: {refused} requests were too many and get no answer"));
        }
        let unanswered = self.jetstream.as_ref().map_or(0, |jetstream| jetstream.take_refused());
        if unanswered > 0 {
            self.log.warning(format!("JetStream: {unanswered} API requests were too many and get no answer"));
            if let Some(jetstream) = &self.jetstream {
                jetstream.tell_of_refused(unanswered);
            }
        }
        dropped + refused + unanswered > 0
    }

    fn take_request(self: &Arc<System>, request: TakenRequest) {
        if let Some(jetstream) = self.jetstream.as_ref().filter(|found| found.serves(request.subscription)) {
            return jetstream.take_request(request);
        }
        let Some(service) = self.served.lock().services.get(&request.subscription).copied() else { return };
        if self.answering.fetch_add(1, Ordering::Relaxed) >= REQUESTS_MAX {
            self.answering.fetch_sub(1, Ordering::Relaxed);
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let system = self.clone();
        tokio::spawn(async move {
            system.answer(service, request).await;
            system.answering.fetch_sub(1, Ordering::Relaxed);
        });
    }

    async fn answer(self: &Arc<System>, service: Service, request: TakenRequest) {
        let configured = self.monitor.configured();
        let account = self.directory().accounts().get(request.account).name.clone();
        let message =
            Message { service, subject: &request.subject, account: &account, body: &request.payload };
        let task = match understand(message, self.facts(&configured)) {
            Asked::Silence => return,
            Asked::Complaint(text) => return self.log.error(text),
            Asked::Failure(failure) => return self.respond(&request, &configured, &Err(failure)),
            Asked::Task(task) => *task,
        };
        if request.reply.is_none() && !matches!(task, Task::Statsz) {
            return;
        }
        match task {
            Task::Statsz => self.answer_statsz(&request).await,
            Task::Idz => {
                let identity = self.monitor.identity();
                let id = Id { name: &identity.server_name, host: &configured.host, id: &identity.server_id };
                self.publish_reply(&request, Vec::new(), json::compact(&id));
            }
            Task::AccountConnections(name) => self.answer_account_connections(&request, &name).await,
            Task::Subscribers(subscribers) => {
                if let Ok(count) = self.count(subscribers).await {
                    self.publish_reply(&request, Vec::new(), count.to_string().into_bytes());
                }
            }
            task => {
                let outcome = match self.carry_out(task, &request).await {
                    Ok(outcome) => outcome,
                    Err(NoAnswer) => Err(Failure::not_done(NoAnswer.to_string())),
                };
                if let Some(outcome) = outcome.transpose() {
                    self.respond(&request, &configured, &outcome);
                }
            }
        }
    }

    /// What is answered in an envelope; `None`: nothing.
    async fn carry_out(
        &self,
        task: Task,
        request: &TakenRequest,
    ) -> Result<Result<Option<Data>, Failure>, NoAnswer> {
        let told = |answer: Answer| match answer.status {
            // The code of a check that failed stands in the answer.
            200 => Ok(Some(Data::Json(answer.body))),
            _ if answer.body.starts_with(b"{") => Ok(Some(Data::Json(answer.body))),
            _ => match failed(&answer) {
                Asked::Failure(failure) => Err(failure),
                _ => Ok(None),
            },
        };
        Ok(match task {
            Task::Monitor(asked) => told(self.monitor.ask(asked).await?),
            Task::Known(data) => Ok(Some(data)),
            Task::AccountInfo(name) => told(self.monitor.account_detail(&name).await?),
            Task::StreamsOfAccount(query) => match self.monitor.streams_of_account(&query).await? {
                Ok(answer) => told(answer),
                Err(error) => Err(Failure::no_data(error)),
            },
            Task::AccountTraffic(selection) => {
                let traffic = self.monitor.traffic().await?;
                self.monitor.look(|snapshot| {
                    let is_empty = selection.stats(snapshot, &traffic).is_empty();
                    let is_told = !is_empty || selection.unused;
                    Ok(is_told.then(|| Data::Json(selection.answer(snapshot, &traffic).body)))
                })
            }
            Task::UserInfo => match request.publisher {
                None => Err(Failure { code: 400, description: String::new(), data_is_null: false }),
                Some(publisher) => match self.monitor.user_of(publisher).await? {
                    // Nobody waits for an answer any more.
                    None => Ok(None),
                    Some(KnownUser { shown, user }) => Ok(Some(Data::Json(user_info::answer(&shown, &user)))),
                },
            },
            Task::Reload => {
                let (done, is_done) = oneshot::channel();
                // Without anybody to do it the server is ending.
                if self.reloads.try_send(ReloadRequest { done }).is_err() {
                    return Err(NoAnswer);
                }
                match is_done.await.map_err(|_| NoAnswer)? {
                    Ok(()) => Ok(Some(Data::None)),
                    Err(error) => Err(Failure::not_done(error)),
                }
            }
            Task::Kick(cid) => match self.monitor.act(Action::Kick, cid).await? {
                Acted::Done => Ok(Some(Data::None)),
                Acted::NotFound | Acted::Refused => Err(Failure::not_done("no such client or leafnode id")),
            },
            Task::LameDuck(cid) => match self.monitor.act(Action::TellToLeave, cid).await? {
                Acted::Done => Ok(Some(Data::None)),
                Acted::NotFound => Err(Failure::not_done("no such client id")),
                Acted::Refused => Err(Failure::not_done(
                    "client does not support Lame Duck Mode or is not ready to receive the notification",
                )),
            },
            Task::Statsz | Task::Idz | Task::AccountConnections(_) | Task::Subscribers(_) => {
                unreachable!("those have no envelope")
            }
        })
    }

    async fn answer_statsz(&self, request: &TakenRequest) {
        if self.monitor.count().await.is_err() {
            return;
        }
        let identity = self.monitor.identity();
        // Without a reply it is told to everybody.
        let (account, subject) = match &request.reply {
            Some(reply) => (request.account, reply.clone()),
            None => (request.account, statsz::subject(&identity.server_id).into_bytes()),
        };
        if let Ok(message) = self.statsz().await {
            self.publish(InternalMessage::new(account, subject, &message));
        }
    }

    async fn statsz(&self) -> Result<Vec<u8>, NoAnswer> {
        let reading = self.monitor.read_jetstream(Wanted::None).await?;
        let configured = self.monitor.configured();
        let server = self.server_info(&configured);
        Ok(self.monitor.look(|snapshot| statsz::message(&server, snapshot, reading.as_ref())))
    }

    async fn answer_account_connections(&self, request: &TakenRequest, name: &str) {
        let slot =
            self.directory().accounts().named(name).map(|account| (account.slot, account.connections()));
        let Some((slot, 1..)) = slot else { return };
        if let Ok(traffic) = self.monitor.traffic().await
            && let Some((_, body)) = self.account_event(slot, &traffic)
        {
            self.publish_reply(request, Vec::new(), body);
        }
    }

    async fn count(&self, subscribers: Subscribers) -> Result<usize, NoAnswer> {
        let Subscribers { account, subject, queue } = subscribers;
        let directory = self.directory();
        let accounts = directory.accounts();
        let account = match &account {
            Some(name) => accounts.named(name),
            None => accounts.iter().find(|account| account.is_system),
        };
        let Some(account) = account.filter(|_| !subject.is_empty()) else { return Ok(0) };
        let (reached_by, within) =
            if has_wildcard(&subject) { (None, Some(subject)) } else { (Some(subject), None) };
        let filter = SubscriptionFilter {
            account: Some(account.name.clone()),
            reached_by,
            within,
            queue,
            ..SubscriptionFilter::default()
        };
        self.monitor.count_subscriptions(&filter).await
    }

    fn respond(&self, request: &TakenRequest, configured: &Configured, outcome: &Result<Data, Failure>) {
        let encoding = if outcome.is_ok() { Encoding::accepted(&request.header) } else { Encoding::Plain };
        let body = envelope::response(&self.server_info(configured), outcome);
        let (header, body) = encoding.encode(body);
        self.publish_reply(request, header, body);
    }

    fn publish_reply(&self, request: &TakenRequest, header: Vec<u8>, body: Vec<u8>) {
        if let Some(reply) = &request.reply {
            self.publish(InternalMessage::with_header(request.account, reply.clone(), &header, &body));
        }
    }

    fn publish(&self, message: InternalMessage) {
        self.shared.internal.with_client(|client| client.publish(message));
        // Before what becomes of it.
        self.write_log();
        self.shared.internal.send(&self.shared);
    }

    fn facts<'a>(&'a self, configured: &'a Configured) -> ServerFacts<'a> {
        ServerFacts {
            name: &self.monitor.identity().server_name,
            host: &configured.host,
            domain: configured.options.jetstream.as_ref().map_or("", |found| &found.domain),
            tags: &configured.options.server_tags,
        }
    }

    fn server_info<'a>(&'a self, configured: &'a Configured) -> ServerInfo<'a> {
        let identity = self.monitor.identity();
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        let (name, id) = (&identity.server_name, &identity.server_id);
        ServerInfo::new(name, &configured.host, id, &configured.options, seq, now())
    }

    /// Publishes an event in the system account if somebody listens.
    fn tell_if_heard(&self, subject: String, body: impl FnOnce(Heading<'_>) -> Vec<u8>) {
        if let Some(account) = self.account() {
            self.tell_if_heard_in(account, subject, body);
        }
    }

    fn tell_if_heard_in(&self, account: u16, subject: String, body: impl FnOnce(Heading<'_>) -> Vec<u8>) {
        if !self.shared.internal.with_client(|client| client.has_listener(account, subject.as_bytes())) {
            return;
        }
        let configured = self.monitor.configured();
        let server = self.server_info(&configured);
        let id = nuid(&mut fastrand::Rng::new());
        let heading = Heading { server: &server, id: &id, at: now(), epoch: self.monitor.identity().epoch };
        self.publish(InternalMessage::new(account, subject, &body(heading)));
    }

    fn tell(self: &Arc<System>, notice: Notice) {
        match notice {
            Notice::Connected(row) => {
                self.tell_if_heard(events::connect_subject(&row.account), |heading| {
                    events::connect(heading, &row)
                });
            }
            Notice::Disconnected(parting) => {
                let subject = events::disconnect_subject(&parting.row.account);
                self.tell_if_heard(subject, |heading| events::disconnect(heading, &parting));
            }
            Notice::Unauthorized(parting) => {
                let in_account = events::UNAUTHORIZED_IN_ACCOUNT.to_owned();
                self.tell_if_heard_in(parting.account, in_account, |heading| {
                    events::disconnect(heading, &parting)
                });
                let subject = events::unauthorized_subject(&self.monitor.identity().server_id);
                self.tell_if_heard(subject, |heading| events::disconnect(heading, &parting));
            }
            // Nobody is told of the global account, as in the reference.
            Notice::AccountChanged(0) => {}
            Notice::AccountChanged(slot) => self.note_account(slot),
        }
    }

    /// Has the number of an account's connections be told. What changes while that is done is told once more after.
    fn note_account(self: &Arc<System>, slot: u16) {
        let mut news = self.accounts.lock();
        news.changed.insert(slot);
        if std::mem::replace(&mut news.telling, true) {
            return;
        }
        drop(news);
        let system = self.clone();
        tokio::spawn(async move {
            loop {
                let changed = {
                    let mut news = system.accounts.lock();
                    if news.changed.is_empty() {
                        news.telling = false;
                        return;
                    }
                    std::mem::take(&mut news.changed)
                };
                system.tell_accounts(changed).await;
            }
        });
    }

    async fn tell_accounts(&self, slots: HashSet<u16>) {
        let Some(system) = self.account() else { return };
        let directory = self.directory();
        let name = |slot: u16| directory.accounts().get(slot).name.clone();
        let is_heard = |slot: &u16| {
            let subjects = events::account_subjects(&name(*slot));
            self.shared.internal.with_client(|client| {
                subjects.iter().any(|subject| client.has_listener(system, subject.as_bytes()))
            })
        };
        let heard: Vec<u16> = slots.into_iter().filter(is_heard).collect();
        if heard.is_empty() {
            return;
        }
        let Ok(traffic) = self.monitor.traffic().await else { return };
        for slot in heard {
            let Some((connections, body)) = self.account_event(slot, &traffic) else { continue };
            for subject in events::account_subjects(&name(slot)) {
                self.publish(InternalMessage::new(system, subject, &body));
            }
            let mut news = self.accounts.lock();
            match connections {
                0 => drop(news.due.remove(&slot)),
                _ => drop(news.due.insert(slot, Instant::now() + ACCOUNT_INTERVAL)),
            }
        }
    }

    /// The number of an account's connections, and the event that tells it.
    fn account_event(&self, slot: u16, connections: &ConnectionTally) -> Option<(u64, Vec<u8>)> {
        let configured = self.monitor.configured();
        let server = self.server_info(&configured);
        let id = nuid(&mut fastrand::Rng::new());
        self.monitor.look(|snapshot| {
            let account = snapshot.accounts.iter().find(|account| account.slot == slot)?;
            let stat = AccountStat::of(account, connections.traffic(slot));
            let heading =
                Heading { server: &server, id: &id, at: snapshot.now, epoch: snapshot.identity.epoch };
            Some((account.connections, events::account_connections(heading, &stat)))
        })
    }

    fn tell_accounts_again(self: &Arc<System>, at: Instant) {
        let due: Vec<u16> = {
            let mut news = self.accounts.lock();
            let due = news.due.iter().filter(|(_, due)| **due <= at).map(|(slot, _)| *slot).collect();
            news.due.retain(|_, due| *due > at);
            due
        };
        due.into_iter().for_each(|slot| self.note_account(slot));
    }

    fn tell_statsz(self: Arc<System>) {
        let subject = statsz::subject(&self.monitor.identity().server_id);
        let Some(account) = self.account() else { return };
        if !self.shared.internal.with_client(|client| client.has_listener(account, subject.as_bytes())) {
            return;
        }
        tokio::spawn(async move {
            if self.monitor.count().await.is_ok()
                && let Ok(message) = self.statsz().await
            {
                self.publish(InternalMessage::new(account, subject, &message));
            }
        });
    }

    /// Tells that the server is in lame duck mode.
    pub fn tell_lame_duck(&self) {
        let subject = events::lame_duck_subject(&self.monitor.identity().server_id);
        self.tell_if_heard(subject, |heading| json::compact(heading.server));
    }

    /// Tells that the server ends, and waits until the workers have the word.
    pub async fn tell_shutdown(&self) {
        let subject = events::shutdown_subject(&self.monitor.identity().server_id);
        self.tell_if_heard(subject, |heading| json::compact(heading.server));
        let give_up = Instant::now() + SHUTDOWN_PATIENCE;
        while self.shared.internal.hand_over(&self.shared) && Instant::now() < give_up {
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

/// Who the server is, without an envelope.
#[derive(serde::Serialize)]
struct Id<'a> {
    name: &'a str,
    host: &'a str,
    id: &'a str,
}

fn now() -> Timestamp {
    Timestamp(SystemTime::now())
}

/// What has come, taken out of the batch that it came in.
enum Taken {
    Request(TakenRequest),
    Notice(Box<Notice>),
}

/// A message for the server.
pub struct TakenRequest {
    /// Of the server's own client.
    pub subscription: SubscriptionId,
    /// Slot of the account.
    pub account: u16,
    /// Its subject.
    pub subject: Vec<u8>,
    /// Where to answer.
    pub reply: Option<Vec<u8>>,
    /// Its header block, empty without one.
    pub header: Vec<u8>,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Who has published it.
    pub publisher: Option<Publisher>,
}

impl Taken {
    fn of(arrival: Arrival<'_>) -> Taken {
        match arrival {
            Arrival::Notice(notice) => Taken::Notice(notice),
            Arrival::Message(Received {
                subscription,
                account,
                subject,
                reply,
                header,
                payload,
                publisher,
            }) => Taken::Request(TakenRequest {
                subscription,
                account,
                subject: subject.to_vec(),
                reply: reply.map(<[u8]>::to_vec),
                header: header.to_vec(),
                payload: payload.to_vec(),
                publisher,
            }),
        }
    }
}
