//! The accounts of a server: each a subject space of its own, with a slot by which workers find what belongs to it.
//!
//! A slot never comes to mean another account while the server runs. A reload adds accounts behind those that are
//! there, and an account that it removes keeps its slot, in case it comes back: what is on its way between workers
//! names accounts by slot.
//!
//! How many connections an account has is counted here, over all workers, because that is what may be limited.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::config::{self, AccountLimits, GLOBAL_ACCOUNT, JetStreamOptions, Options, Sharing};
use crate::subject::import::{ServiceImport, ServiceTerms, StreamImport};
use crate::subject::mapping::Mappings;

/// An account.
#[derive(Debug)]
pub struct Account {
    /// Where workers keep what belongs to it.
    pub slot: u16,
    /// Its name.
    pub name: String,
    /// What its connections may take.
    pub limits: AccountLimits,
    /// It is the system's own.
    pub is_system: bool,
    /// It is configured. Otherwise it was, before a reload.
    pub exists: bool,
    /// What subjects become that are published in it.
    pub mappings: Mappings,
    /// The streams that it imports.
    pub streams: Vec<Arc<StreamImport>>,
    /// The services that it imports.
    pub services: Vec<Arc<ServiceImport>>,
    /// Its exports and imports as configured.
    pub sharing: Sharing,
    connections: Arc<AtomicU32>,
}

impl Account {
    /// How many connections it has.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts one more connection, if there may be one.
    pub fn join(&self) -> bool {
        let max = self.limits.connections.unwrap_or(u32::MAX);
        let more = |count| (count < max).then_some(count + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Counts one less.
    pub fn leave(&self) {
        let before = self.connections.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "whoever leaves has joined");
    }

    /// Counts one less, if there are more than may be. Whether there were.
    pub fn leave_if_too_many(&self) -> bool {
        let max = self.limits.connections.unwrap_or(u32::MAX);
        let fewer = |count| (count > max).then(|| count - 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok()
    }
}

/// How many connections there are is no part of what an account is.
impl PartialEq for Account {
    fn eq(&self, other: &Account) -> bool {
        (self.slot, &self.name, self.limits, self.is_system, self.exists)
            == (other.slot, &other.name, other.limits, other.is_system, other.exists)
            && self.mappings == other.mappings
            && self.streams == other.streams
            && self.services == other.services
            && self.sharing == other.sharing
    }
}

/// All accounts, by slot. The first one is the global one.
#[derive(Debug, Clone, PartialEq)]
pub struct Accounts {
    list: Vec<Arc<Account>>,
    slots: HashMap<String, u16>,
}

/// Accounts that a server can have seen since it started.
pub const ACCOUNTS_MAX: usize = u16::MAX as usize - 1;

impl Accounts {
    /// Those that are configured. `earlier` are those of the configuration before.
    ///
    /// # Errors
    ///
    /// There are more than [`ACCOUNTS_MAX`], those included that are not configured any more.
    pub fn new(options: &Options, earlier: Option<&Accounts>) -> Result<Accounts, TooManyAccounts> {
        let unlimited = AccountLimits::default();
        let mut wanted = vec![(GLOBAL_ACCOUNT, unlimited)];
        wanted.extend(options.accounts.iter().map(|account| (account.name.as_str(), account.limits)));
        let system = options.system_account();
        if let Some(name) = system
            && !wanted.iter().any(|(other, _)| *other == name)
        {
            wanted.push((name, unlimited));
        }
        let mut slots: HashMap<String, u16> = HashMap::new();
        let mut names: Vec<(&str, Arc<AtomicU32>)> = Vec::new();
        for known in earlier.iter().flat_map(|earlier| &earlier.list) {
            slots.insert(known.name.clone(), known.slot);
            names.push((&known.name, known.connections.clone()));
        }
        for (name, _) in &wanted {
            if !slots.contains_key(*name) {
                if slots.len() == ACCOUNTS_MAX {
                    return Err(TooManyAccounts);
                }
                slots.insert((*name).to_owned(), slots.len() as u16);
                names.push((name, Arc::default()));
            }
        }
        let limits: HashMap<&str, AccountLimits> = wanted.into_iter().collect();
        let configured: HashMap<&str, &config::Account> =
            options.accounts.iter().map(|account| (account.name.as_str(), account)).collect();
        let account = |(name, connections): (&str, Arc<AtomicU32>)| {
            let slot = slots[name];
            let account = configured.get(name).copied();
            let mut mappings = match account {
                _ if slot == 0 => options.mappings.clone(),
                account => account.map(|account| account.mappings.clone()).unwrap_or_default(),
            };
            if options.jetstream_of(name).is_some() {
                for mapping in options.jetstream.iter().flat_map(JetStreamOptions::domain_mappings) {
                    mappings.add_if_new(mapping);
                }
            }
            let sharing = account.map(|account| account.sharing.clone()).unwrap_or_default();
            Arc::new(Account {
                slot,
                name: name.to_owned(),
                limits: limits.get(name).copied().unwrap_or_default(),
                is_system: system == Some(name),
                exists: limits.contains_key(name),
                mappings,
                streams: stream_imports(&sharing, &slots),
                services: service_imports(slot, &sharing, &slots, &configured),
                sharing,
                connections,
            })
        };
        let list = names.into_iter().map(account).collect();
        Ok(Accounts { list, slots })
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.list.len()
    }

    /// The account in a slot.
    pub fn get(&self, slot: u16) -> &Arc<Account> {
        &self.list[usize::from(slot)]
    }

    /// The one that everybody belongs to who is in no other one.
    pub fn global(&self) -> &Arc<Account> {
        &self.list[0]
    }

    /// Those that are configured.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.list.iter().filter(|account| account.exists)
    }

    /// The configured one with this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Account>> {
        let slot = self.slots.get(name)?;
        Some(self.get(*slot)).filter(|account| account.exists)
    }
}

fn stream_imports(sharing: &Sharing, slots: &HashMap<String, u16>) -> Vec<Arc<StreamImport>> {
    let imports = sharing.stream_imports.iter().map(|import| {
        let import = StreamImport::new(slots[&import.account], &import.subject, &import.to);
        Arc::new(import.expect("the configuration has been checked"))
    });
    imports.collect()
}

fn service_imports(
    slot: u16,
    sharing: &Sharing,
    slots: &HashMap<String, u16>,
    configured: &HashMap<&str, &config::Account>,
) -> Vec<Arc<ServiceImport>> {
    let imports = sharing.service_imports.iter().map(|import| {
        let exporter = configured[import.account.as_str()];
        let export =
            exporter.sharing.service_export(&import.subject).expect("the configuration has been checked");
        let terms = Arc::new(ServiceTerms {
            subject: export.subject.as_str().into(),
            response: export.response,
            threshold_ms: export.threshold_ms(),
            latency: export.latency.clone(),
        });
        let exporter = slots[&import.account];
        let import = ServiceImport::new(slot, exporter, &import.to, &import.subject, terms, import.share);
        Arc::new(import.expect("the configuration has been checked"))
    });
    imports.collect()
}

/// There are more accounts than slots for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {ACCOUNTS_MAX} accounts, those that were removed since the start included")]
pub struct TooManyAccounts;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn options(accounts: &[(&str, Option<u32>)]) -> Options {
        let account = |(name, connections): &(&str, Option<u32>)| config::Account {
            name: (*name).to_owned(),
            limits: AccountLimits { connections: *connections, ..AccountLimits::default() },
            ..config::Account::default()
        };
        Options { accounts: accounts.iter().map(account).collect(), ..Options::default() }
    }

    fn names(accounts: &Accounts) -> Vec<&str> {
        accounts.iter().map(|account| account.name.as_str()).collect()
    }

    #[test]
    fn a_slot_means_one_account_for_ever() {
        let first = Accounts::new(&options(&[("A", None), ("B", None)]), None).unwrap();
        assert_eq!(names(&first), ["$G", "A", "B", "$SYS"]);
        let second = Accounts::new(&options(&[("C", None), ("B", None)]), Some(&first)).unwrap();
        assert_eq!(names(&second), ["$G", "B", "$SYS", "C"]);
        assert_eq!(second.named("B").unwrap().slot, first.named("B").unwrap().slot);
        assert!(second.named("A").is_none() && !second.get(1).exists);
        let third = Accounts::new(&options(&[("A", None)]), Some(&second)).unwrap();
        assert_eq!(third.named("A").unwrap().slot, first.named("A").unwrap().slot);
    }

    #[test]
    fn the_system_account_is_the_named_one_or_its_own_or_none() {
        let mut options = options(&[("A", None)]);
        options.system_account = Some("A".to_owned());
        let accounts = Accounts::new(&options, None).unwrap();
        assert_eq!(names(&accounts), ["$G", "A"]);
        assert!(accounts.named("A").unwrap().is_system && !accounts.global().is_system);
        options.no_system_account = true;
        let accounts = Accounts::new(&options, None).unwrap();
        assert!(accounts.iter().all(|account| !account.is_system));
    }

    #[test]
    fn connections_are_counted_up_to_the_limit_and_over_a_reload() {
        let before = Accounts::new(&options(&[("A", Some(2))]), None).unwrap();
        let a = before.named("A").unwrap();
        assert_eq!([a.join(), a.join(), a.join()], [true, true, false]);
        let after = Accounts::new(&options(&[("A", Some(1))]), Some(&before)).unwrap();
        let a = after.named("A").unwrap();
        assert_eq!(a.connections(), 2);
        assert_eq!([a.leave_if_too_many(), a.leave_if_too_many()], [true, false]);
        a.leave();
        assert!(a.join() && !a.join());
    }

    #[test]
    fn there_are_not_more_accounts_than_slots() {
        let many: Vec<String> = (0..=ACCOUNTS_MAX).map(|i| i.to_string()).collect();
        let many: Vec<(&str, Option<u32>)> = many.iter().map(|name| (name.as_str(), None)).collect();
        assert_eq!(Accounts::new(&options(&many), None), Err(TooManyAccounts));
    }
}
