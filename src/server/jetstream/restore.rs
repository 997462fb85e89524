//! Streams from backups: where the pieces come, and where the stream is made of them.
//!
//! The client sends pieces to a subject of their own and waits for the answer to each. They come to the control thread's subscription in
//! order and wait in a queue; a task takes them out and has them written on a thread that may wait for the disk. The stream is made in a directory
//! that nobody sees, and is there with the answer to the last, empty piece, or not at all. As in the reference an error is told in that
//! answer: pieces before are taken, and nothing is made of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::super::system::TakenRequest;
use super::disk::{HalfMade, StreamFiles};
use super::{JetStream, StreamTerms, blocking, human, stream_file};
use crate::base::nuid::nuid;
use crate::base::system_error;
use crate::base::wall_clock::now_ns;
use crate::broker::internal::{InternalMessage, SubscriptionId};
use crate::store::{Commit, CommitError, Committed, FileStore, Files, MemoryStore, Step, Store};
use crate::stream::api::{self, BackupEvent, StreamAction, StreamReport, Verb};
use crate::stream::backup::BackupError;
use crate::stream::backup::restore::{Progress, Restoration, RestoreSettings, restore_consumers};
use crate::stream::config::Storage;
use crate::stream::consumer::{Consumers, StreamFacts};
use crate::stream::stream::{Answer, Command};
use crate::stream::{ApiError, ErrorId, Stream, StreamConfig};

/// Streams that are restored at a time.
const RESTORES_MAX: usize = 64;
/// Bytes of one backup that wait to be written. Who waits for answers, as clients do, never has as many on the way.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// How long no piece may come.
const STALL_AFTER: Duration = Duration::from_secs(5);
/// Bytes of messages that are written at once.
const COMMIT_BYTES: usize = 8 << 20;

/// Backups that are on their way here, by the subscriptions that they come to.
#[derive(Default)]
pub(super) struct Restores {
    inboxes: Mutex<HashMap<SubscriptionId, Inbox>>,
}

struct Inbox {
    pieces: mpsc::UnboundedSender<Piece>,
    waiting_bytes: Arc<AtomicUsize>,
}

enum Piece {
    Came {
        reply: Option<Vec<u8>>,
        payload: Vec<u8>,
    },
    /// So much came that no answer can have been waited for.
    TooMuch,
}

/// What is known of a restoration beside its pieces.
struct Case {
    account: u16,
    account_name: String,
    config: StreamConfig,
    started_ns: i64,
    started: Instant,
}

impl Case {
    /// As the log names it.
    fn title(&self) -> String {
        format!("'{} > {}'", self.account_name, self.config.name)
    }
}

impl Restores {
    /// Takes a piece, if the request is one.
    pub(super) fn take(&self, request: TakenRequest) -> Option<TakenRequest> {
        let mut inboxes = self.inboxes.lock();
        let Some(inbox) = inboxes.get(&request.subscription) else { return Some(request) };
        let len = request.payload.len();
        let waiting = inbox.waiting_bytes.fetch_add(len, Ordering::Relaxed) + len;
        let piece = if waiting > WAITING_BYTES_MAX {
            Piece::TooMuch
        } else {
            Piece::Came { reply: request.reply, payload: request.payload }
        };
        let is_over = matches!(piece, Piece::TooMuch);
        // The task may have ended just now.
        let _ = inbox.pieces.send(piece);
        if is_over {
            inboxes.remove(&request.subscription);
        }
        None
    }
}

impl JetStream {
    /// Takes a backup from now on. Where it is to be sent.
    pub(super) fn begin_restore(
        self: &Arc<JetStream>,
        account: u16,
        account_name: &str,
        config: StreamConfig,
        bytes_max: u64,
    ) -> Result<String, ApiError> {
        let mut inboxes = self.restores.inboxes.lock();
        if inboxes.len() >= RESTORES_MAX {
            return Err(ApiError::with(ErrorId::StreamRestore, "too many streams are being restored"));
        }
        let case = Case {
            account,
            account_name: account_name.to_owned(),
            config,
            started_ns: now_ns(),
            started: Instant::now(),
        };
        self.log.info(format!("Starting restore for stream {}", case.title()));
        self.tell_backup(account, BackupEvent::RestoreCreate, &case.config.name);
        let id = nuid(&mut fastrand::Rng::new());
        let subject = format!("$JS.SNAPSHOT.RESTORE.{}.{id}", case.config.name);
        let subscription =
            self.shared.internal.with_client(|client| client.subscribe(account, subject.as_bytes(), None));
        self.subscriptions.lock().insert(subscription);
        let (pieces, inbox) = mpsc::unbounded_channel();
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        inboxes.insert(subscription, Inbox { pieces, waiting_bytes: waiting_bytes.clone() });
        let jetstream = self.clone();
        tokio::spawn(async move {
            jetstream.restore(&case, bytes_max, inbox, &waiting_bytes).await;
            jetstream.restores.inboxes.lock().remove(&subscription);
            jetstream.subscriptions.lock().remove(&subscription);
            jetstream.shared.internal.with_client(|client| client.unsubscribe(subscription));
        });
        Ok(subject)
    }

    async fn restore(
        &self,
        case: &Case,
        bytes_max: u64,
        mut pieces: mpsc::UnboundedReceiver<Piece>,
        waiting_bytes: &AtomicUsize,
    ) {
        let mut job = self.begin_job(case, bytes_max).await;
        let mut total = 0;
        let reply = loop {
            let Ok(piece) = tokio::time::timeout(STALL_AFTER, pieces.recv()).await else {
                self.log.warning(format!("restore for stream {} is stalled", case.title()));
                return;
            };
            let (reply, payload) = match piece {
                Some(Piece::Came { reply: Some(reply), payload }) => (reply, payload),
                Some(Piece::Came { reply: None, .. }) => {
                    let text =
                        format!("restore for stream {} requires reply subject for each chunk", case.title());
                    self.log.warning(text.clone());
                    job = Err(BackupError::Wrong(text));
                    break None;
                }
                Some(Piece::TooMuch) | None => {
                    let text = format!(
                        "restore for stream {}: chunks come without waiting for answers",
                        case.title()
                    );
                    self.log.warning(text.clone());
                    job = Err(BackupError::Wrong(text));
                    break None;
                }
            };
            if payload.is_empty() {
                break Some(reply);
            }
            let len = payload.len();
            total += len as u64;
            job = match job {
                Ok(mut going) => {
                    let done =
                        tokio::task::spawn_blocking(move || going.push(&payload).map(|()| going)).await;
                    done.unwrap_or_else(|error| Err(BackupError::Wrong(error.to_string())))
                }
                Err(error) => Err(error),
            };
            waiting_bytes.fetch_sub(len, Ordering::Relaxed);
            self.publish(InternalMessage::new(case.account, reply, b""));
        };
        let restored = match job {
            Ok(job) => self.finish_restore(case, job).await,
            Err(error) => Err(error),
        };
        let event = BackupEvent::RestoreComplete { start_ns: case.started_ns, bytes: total };
        self.tell_backup(case.account, event, &case.config.name);
        let (title, took, size) = (case.title(), case.started.elapsed(), human(total));
        let answer = match restored {
            Ok(report) => {
                self.log.info(format!("Completed restore of {size} for stream {title} in {took:.0?}"));
                api::stream_restored(&report, self.frame())
            }
            Err(error) => {
                self.log
                    .warning(format!("Restore failed for {size} for stream {title} in {took:.0?}: {error}"));
                let error = match error {
                    BackupError::Api(error) => error,
                    error => ApiError::with(ErrorId::StreamRestore, error),
                };
                api::failure(&Verb::StreamCreate(&case.config.name), &error)
            }
        };
        if let Some(reply) = reply {
            self.publish(InternalMessage::new(case.account, reply, &answer));
        }
    }

    async fn begin_job(&self, case: &Case, bytes_max: u64) -> Result<Job, BackupError> {
        let (store, steps) = match case.config.storage {
            Storage::Memory => (Store::from(MemoryStore::new()), None),
            Storage::File => {
                let settings = self.terms.store_settings(&case.config, &self.store);
                let settings = settings.map_err(|error| BackupError::Wrong(error.to_string()))?;
                let (store, steps) = FileStore::create(settings);
                (Store::from(store), Some(steps))
            }
        };
        let mut directory = None;
        if let Some(steps) = steps {
            let (at, account, name) =
                (self.store.clone(), case.account_name.clone(), case.config.name.clone());
            let made = blocking(move || {
                let made = at.begin(&account, &name)?;
                made.carry_out(&steps)?;
                Ok(made)
            });
            directory = Some(made.await.map_err(|error| BackupError::Wrong(system_error::text(&error)))?);
        }
        let settings = RestoreSettings {
            config: case.config.clone(),
            account: case.account_name.clone(),
            payload_max: self.shared.live.lock().settings.payload_max as u64,
            bytes_max,
        };
        Ok(Job { restoration: Restoration::new(settings, store), directory, written: 0 })
    }

    /// Makes the stream of what has come, and gives it to a worker.
    async fn finish_restore(&self, case: &Case, job: Job) -> Result<StreamReport, BackupError> {
        let consumers = {
            let accounts = self.accounts.lock().await;
            let account = accounts.get(&case.account).ok_or(ErrorId::NotEnabledForAccount);
            let account = account.map_err(|id| BackupError::Api(id.into()))?;
            self.new_consumers(account, StreamFacts::of(&case.config))
        };
        let (config, account_name) = (case.config.clone(), case.account_name.clone());
        let terms = self.terms.clone();
        let made =
            tokio::task::spawn_blocking(move || job.finish(config, &account_name, &terms, consumers)).await;
        let Made { mut stream, consumers, directory } =
            made.unwrap_or_else(|error| Err(BackupError::Wrong(error.to_string())))?;
        let mut accounts = self.accounts.lock().await;
        let account = accounts.get_mut(&case.account).ok_or(ErrorId::NotEnabledForAccount);
        let account = account.map_err(|id| BackupError::Api(id.into()))?;
        account.registry.check_restored(&case.config).map_err(|error| {
            if error.is(ErrorId::StreamNameExistRestoreFailed) {
                BackupError::Api(error)
            } else {
                BackupError::Stream(error)
            }
        })?;
        let created_ns = stream.created_ns();
        let place = match directory {
            None => None,
            Some(directory) => {
                let file = stream_file(&case.config, created_ns);
                let finished = blocking(move || directory.finish(&file)).await;
                Some(finished.map_err(|error| BackupError::Wrong(system_error::text(&error)))?)
            }
        };
        self.enlist(account, &mut stream);
        let place = self.give(case.account, stream, consumers, place).await;
        account.registry.insert(case.config.clone(), created_ns, place.clone());
        drop(accounts);
        self.tell(case.account, StreamAction::Created, &case.config.name);
        match self.ask(&place, Command::info()).await {
            Ok(Answer::Report(report)) => Ok(*report),
            Ok(_) => unreachable!("a question for a report is answered with one"),
            Err(error) => Err(BackupError::Api(error)),
        }
    }

    pub(super) fn tell_backup(&self, account: u16, event: BackupEvent<'_>, stream: &str) {
        let (subject, body) =
            api::backup_event(event, stream, &self.terms.domain, &mut fastrand::Rng::new(), now_ns());
        self.publish(InternalMessage::new(account, subject, &body));
    }
}

/// A restoration and its directory; all that it does may wait for the disk.
struct Job {
    restoration: Restoration,
    directory: Option<HalfMade>,
    /// Bytes that were pushed since the last commit.
    written: usize,
}

/// A stream that is there as a whole, but for its file.
struct Made {
    stream: Stream,
    consumers: Consumers,
    directory: Option<HalfMade>,
}

impl Job {
    fn push(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.restoration.push(bytes);
        self.written += bytes.len();
        self.step()?;
        if self.written > COMMIT_BYTES {
            self.commit()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), BackupError> {
        while self.restoration.step(now_ns())? == Progress::More {
            self.commit()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), BackupError> {
        self.written = 0;
        let store = self.restoration.store_mut();
        while let Some(commit) = store.take_commit() {
            let result = carry_out(self.directory.as_ref(), &commit);
            committed(store.finish_commit(result))?;
        }
        Ok(())
    }

    fn finish(
        mut self,
        config: StreamConfig,
        account: &str,
        terms: &StreamTerms,
        mut consumers: Consumers,
    ) -> Result<Made, BackupError> {
        self.restoration.end();
        self.step()?;
        self.commit()?;
        let Job { restoration, directory, .. } = self;
        let (store, found, created_ns) = restoration.into_parts();
        let now = now_ns();
        let mut files = directory.as_ref().map(|directory| StreamFiles::new(directory.path()));
        let sync_interval = terms.sync_interval(&config);
        let settings = terms.settings(config, created_ns.unwrap_or(now), account);
        let mut stream = Stream::open(settings, store, now, |plan| {
            let mut bytes = vec![0; plan.length as usize];
            let read = files.as_mut()?.read_at(plan.file, plan.offset, &mut bytes).ok()?;
            bytes.truncate(read);
            let messages = plan.decode(&bytes.into()).ok()?;
            messages.into_iter().find(|message| message.seq == plan.first_seq)
        });
        drop(files);
        stream.set_sync_interval(sync_interval);
        restore_consumers(&mut consumers, found, stream.store_mut(), now)?;
        while let Some(commit) = stream.take_commit() {
            let result = carry_out(directory.as_ref(), &commit);
            committed(stream.finish_commit(result))?;
        }
        Ok(Made { stream, consumers, directory })
    }
}

/// One step after the other, so that it is known which one failed.
fn carry_out(directory: Option<&HalfMade>, commit: &Commit) -> Result<(), CommitError> {
    let Some(directory) = directory else { return Ok(()) };
    for (at, step) in commit.steps.iter().enumerate() {
        let done = directory.carry_out(std::slice::from_ref::<Step>(step));
        done.map_err(|error| super::disk::step_error(at, &error))?;
    }
    Ok(())
}

fn committed(committed: Committed) -> Result<(), BackupError> {
    match committed {
        Committed::Done => Ok(()),
        Committed::RolledBack { .. } => Err(BackupError::Wrong("no space left on device".to_owned())),
        Committed::Poisoned { text } => Err(BackupError::Wrong(text)),
    }
}
