//! The streams of one account: which there are, which subjects they have, what they reserve.
//!
//! This decides whether a stream may be created or changed, before a worker or the disk is asked, and finds streams by name
//! and by subject. It holds no messages. `P` is whatever whoever owns the registry needs to reach a stream: it is kept and given back.

use std::collections::BTreeMap;

use super::check::{self, Neighbours, Surroundings};
use super::config::{Storage, StreamConfig, StreamConfigRequest};
use super::error::{ApiError, ErrorId};
use super::limits::{AccountLimits, ServerLimits};
use crate::subject::name::collide;

/// The streams of an account.
#[derive(Debug)]
pub struct Registry<P> {
    streams: BTreeMap<String, Entry<P>>,
    limits: AccountLimits,
}

/// A stream.
#[derive(Debug)]
pub struct Entry<P> {
    /// Its configuration, with all defaults.
    pub config: StreamConfig,
    /// When it was created, in nanoseconds since 1970.
    pub created_ns: i64,
    /// Where it is.
    pub place: P,
}

/// What a request to create a stream comes to.
#[derive(Debug)]
pub enum Creation<'a, P> {
    /// There is none of that name yet: it is to be created with this configuration, and then [inserted](Registry::insert).
    New(Box<StreamConfig>),
    /// The same stream is there already: the answer is the same as if it had been created.
    Existing(&'a Entry<P>),
}

impl<P> Registry<P> {
    /// No streams yet.
    pub fn new(limits: AccountLimits) -> Registry<P> {
        Registry { streams: BTreeMap::new(), limits }
    }

    /// What the account may use.
    pub fn limits(&self) -> &AccountLimits {
        &self.limits
    }

    /// Changes what the account may use. Streams that are there stay.
    pub fn set_limits(&mut self, limits: AccountLimits) {
        self.limits = limits;
    }

    /// Decides about a request to create the stream `name`.
    ///
    /// # Errors
    ///
    /// What the reference finds wrong with it first.
    pub fn create(
        &self,
        name: &str,
        request: StreamConfigRequest,
        server: &ServerLimits,
    ) -> Result<Creation<'_, P>, ApiError> {
        let StreamConfigRequest { mut config, pedantic } = request;
        config.set_static_metadata();
        if name != config.name {
            return Err(ErrorId::StreamMismatch.into());
        }
        if name.contains(['\\', '/']) {
            return Err(ErrorId::StreamNameContainsPathSeparators.into());
        }
        if config.sealed {
            return Err(ApiError::invalid_config("stream configuration for create can not be sealed"));
        }
        if config.mirror_direct && config.mirror.is_none() {
            return Err(ApiError::invalid_config("stream has no mirror but does have mirror direct"));
        }
        let others = self.streams.keys().filter(|other| *other != name).count() as i64;
        if self.limits.max_streams > 0 && others >= self.limits.max_streams {
            return Err(ErrorId::MaximumStreamsLimit.into());
        }
        self.check_room(&config, config.max_bytes, config.max_bytes, server)?;
        let mut config = check::check(&config, self.around(server), pedantic)?;
        if config.num_replicas.0 > 1 {
            return Err(ErrorId::StreamReplicasNotSupported.into());
        }
        if let Some(existing) = self.streams.get(name) {
            config.remove_dynamic_metadata();
            return if config == existing.config {
                Ok(Creation::Existing(existing))
            } else {
                Err(ErrorId::StreamNameExist.into())
            };
        }
        self.check_room(&config, config.max_bytes, config.max_bytes, server)?;
        if self.overlaps(&config.subjects, None) {
            return Err(ErrorId::StreamSubjectOverlap.into());
        }
        refuse_missing(&config)?;
        Ok(Creation::New(Box::new(config)))
    }

    /// Decides about a request to change the stream `name`: what it is to become. When the stream has taken it, it is to be
    /// [set](Registry::set_config).
    ///
    /// # Errors
    ///
    /// What the reference finds wrong with it first.
    pub fn update(
        &self,
        name: &str,
        request: &StreamConfigRequest,
        server: &ServerLimits,
    ) -> Result<(&Entry<P>, StreamConfig), ApiError> {
        let mut config = check::check(&request.config, self.around(server), request.pedantic)?;
        if name != config.name {
            return Err(ErrorId::StreamMismatch.into());
        }
        let entry = self.streams.get(name).ok_or(ErrorId::StreamNotFound)?;
        config.set_static_metadata();
        let config = check::check_update(&entry.config, &config, self.around(server), request.pedantic)?;
        let more = config.max_bytes.max(0) - entry.config.max_bytes.max(0);
        self.check_room(&config, config.max_bytes.max(0), more.max(0), server)?;
        if self.overlaps(&config.subjects, Some(name)) {
            return Err(ErrorId::StreamSubjectOverlap.into());
        }
        refuse_missing(&config)?;
        Ok((entry, config))
    }

    /// Decides about a request to restore the stream `name`: what it is to be. When its backup is there it is looked at
    /// [again](Registry::check_restored).
    ///
    /// # Errors
    ///
    /// What the reference finds wrong with it first.
    pub fn restore(
        &self,
        name: &str,
        config: &StreamConfig,
        server: &ServerLimits,
    ) -> Result<StreamConfig, ApiError> {
        if name != config.name {
            return Err(ErrorId::StreamMismatch.into());
        }
        if name.contains(['\\', '/']) {
            return Err(ErrorId::StreamNameContainsPathSeparators.into());
        }
        let config = check::check(config, self.around(server), false)?;
        self.check_room(&config, config.max_bytes, config.max_bytes, server)?;
        if self.limits.max_streams > 0 && self.streams.len() as i64 >= self.limits.max_streams {
            return Err(ErrorId::MaximumStreamsLimit.into());
        }
        if self.streams.contains_key(name) {
            return Err(ErrorId::StreamNameExistRestoreFailed.into());
        }
        refuse_missing(&config)?;
        Ok(config)
    }

    /// Whether a stream may be there, when its backup is.
    ///
    /// # Errors
    ///
    /// What came in between, and what the reference does not look at before.
    pub fn check_restored(&self, config: &StreamConfig) -> Result<(), ApiError> {
        if self.streams.contains_key(&config.name) {
            return Err(ErrorId::StreamNameExistRestoreFailed.into());
        }
        if config.num_replicas.0 > 1 {
            return Err(ErrorId::StreamReplicasNotSupported.into());
        }
        if self.overlaps(&config.subjects, None) {
            return Err(ErrorId::StreamSubjectOverlap.into());
        }
        Ok(())
    }

    /// What the messages of one more stream may count for, as far as other streams have reserved no room.
    pub fn room_bytes(&self, config: &StreamConfig, server: &ServerLimits) -> u64 {
        let (account_max, server_max, server_reserved) = match config.storage {
            Storage::Memory => {
                (self.limits.max_memory, server.max_memory_bytes, server.reserved_memory_bytes)
            }
            Storage::File => {
                (self.limits.max_storage, server.max_storage_bytes, server.reserved_storage_bytes)
            }
        };
        let account_max = if account_max < 0 { i64::MAX } else { account_max };
        let reserved = self.reserved_by_others(&config.name, config.storage);
        let room = account_max.saturating_sub(reserved).min(server_max.saturating_sub(server_reserved));
        u64::try_from(room).unwrap_or(0)
    }

    /// Enters a stream that was created or opened.
    pub fn insert(&mut self, config: StreamConfig, created_ns: i64, place: P) {
        self.streams.insert(config.name.clone(), Entry { config, created_ns, place });
    }

    /// Notes what a stream has become.
    pub fn set_config(&mut self, config: StreamConfig) {
        if let Some(entry) = self.streams.get_mut(&config.name) {
            entry.config = config;
        }
    }

    /// Takes a stream out.
    pub fn remove(&mut self, name: &str) -> Option<Entry<P>> {
        self.streams.remove(name)
    }

    /// The stream of that name.
    pub fn get(&self, name: &str) -> Option<&Entry<P>> {
        self.streams.get(name)
    }

    /// The stream of that name, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Entry<P>> {
        self.streams.get_mut(name)
    }

    /// The stream of that name, or the error that there is none.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn find(&self, name: &str) -> Result<&Entry<P>, ApiError> {
        self.get(name).ok_or_else(|| ErrorId::StreamNotFound.into())
    }

    /// How many streams there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// All streams, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Entry<P>> {
        self.streams.values()
    }

    /// The streams that have a subject in common with `filter`, by name; all if it is empty.
    pub fn filtered(&self, filter: &str) -> impl Iterator<Item = &Entry<P>> {
        self.iter().filter(move |entry| {
            filter.is_empty()
                || entry.config.subjects.iter().any(|subject| collide(filter.as_bytes(), subject.as_bytes()))
        })
    }

    /// The stream that a subject without wildcards belongs to.
    pub fn of_subject(&self, subject: &str) -> Option<&Entry<P>> {
        self.filtered(subject).next()
    }

    /// Bytes that the streams reserve, in memory and on disk.
    pub fn reserved_bytes(&self) -> (u64, u64) {
        (
            self.reserved_by_others("", Storage::Memory) as u64,
            self.reserved_by_others("", Storage::File) as u64,
        )
    }

    fn around<'a>(&'a self, server: &'a ServerLimits) -> Surroundings<'a>
    where
        Registry<P>: Neighbours,
    {
        Surroundings { neighbours: self, server, account: &self.limits }
    }

    fn overlaps(&self, subjects: &[String], except: Option<&str>) -> bool {
        self.iter().filter(|entry| Some(entry.config.name.as_str()) != except).any(|entry| {
            entry
                .config
                .subjects
                .iter()
                .any(|subject| subjects.iter().any(|other| collide(other.as_bytes(), subject.as_bytes())))
        })
    }

    /// Whether the account has room for a stream of `all` bytes beside its others, and the server for `more` bytes.
    fn check_room(
        &self,
        config: &StreamConfig,
        all: i64,
        more: i64,
        server: &ServerLimits,
    ) -> Result<(), ApiError> {
        if config.max_consumers.0 > 0
            && self.limits.max_consumers > 0
            && config.max_consumers.0 > self.limits.max_consumers
        {
            return Err(ErrorId::MaximumConsumersLimit.into());
        }
        // No limit asks for at least one byte.
        let at_least_one = |bytes: i64| if bytes < 0 { 1 } else { bytes };
        let (all, more) = (at_least_one(all), at_least_one(more));
        let (account_max, server_max, server_reserved, error) = match config.storage {
            Storage::Memory => (
                self.limits.max_memory,
                server.max_memory_bytes,
                server.reserved_memory_bytes,
                ErrorId::MemoryResourcesExceeded,
            ),
            Storage::File => (
                self.limits.max_storage,
                server.max_storage_bytes,
                server.reserved_storage_bytes,
                ErrorId::StorageResourcesExceeded,
            ),
        };
        let reserved = self.reserved_by_others(&config.name, config.storage);
        let replicas = config.num_replicas.0.max(1);
        if account_max >= 0 && all.saturating_mul(replicas).saturating_add(reserved) > account_max {
            return Err(error.into());
        }
        if more.saturating_add(server_reserved) > server_max {
            return Err(error.into());
        }
        Ok(())
    }

    fn reserved_by_others(&self, name: &str, storage: Storage) -> i64 {
        self.iter()
            .map(|entry| &entry.config)
            .filter(|config| config.name != name && config.storage == storage && config.max_bytes > 0)
            .fold(0_i64, |sum, config| sum.saturating_add(config.max_bytes))
    }
}

impl<P> Neighbours for Registry<P> {
    fn config(&self, name: &str) -> Option<&StreamConfig> {
        self.get(name).map(|entry| &entry.config)
    }
}

/// Refuses what is right by the reference's rules and not there yet.
fn refuse_missing(config: &StreamConfig) -> Result<(), ApiError> {
    match check::not_supported_yet(config) {
        Some(what) => Err(ApiError::with(
            ErrorId::StreamCreate,
            format_args!("this server does not support {what} yet"),
        )),
        None => Ok(()),
    }
}
