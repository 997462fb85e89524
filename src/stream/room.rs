//! How many bytes streams hold, over all workers, against what their account and the server allow.
//!
//! A stream has a [`Share`] of two counters, that of its account and that of the server ([`Room`]). It takes more when it has to and gives back what
//! it does not hold at the end of its turn, so that counting costs a turn, not a message, an atomic addition or two. As long as there is much room a
//! stream takes more than it needs at once; near a limit it takes what it needs, to the byte: nobody is refused for what others do not hold.
//!
//! An account's limit is never passed. The server's is by one message, as in the reference: who was below it may store one more.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// What a stream takes at once, in bytes, where there is much room.
const LEASE_BYTES: u64 = 1024 * 1024;

/// Where less than this is left a stream takes what it needs. It is more than all workers store in a turn.
const NEAR_BYTES: u64 = 256 * 1024 * 1024;

/// How often the log tells that there is no room.
const TELL_NS: i64 = 10_000_000_000;

/// What the streams of an account, or of all accounts, hold in memory or on disk.
#[derive(Debug)]
pub struct Room {
    taken: AtomicU64,
    max: AtomicU64,
    told_ns: AtomicI64,
}

impl Room {
    /// Nothing is taken, and everything may be.
    pub fn new() -> Room {
        Room { taken: AtomicU64::new(0), max: AtomicU64::new(u64::MAX), told_ns: AtomicI64::new(i64::MIN) }
    }

    /// From now on this many bytes may be taken; `None`: as many as there are. What is taken stays so.
    pub fn set_max(&self, max: Option<u64>) {
        self.max.store(max.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What is taken, in bytes.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether it is time to tell that there is no room.
    pub fn is_worth_telling(&self, now_ns: i64) -> bool {
        let told_ns = self.told_ns.load(Ordering::Relaxed);
        now_ns >= told_ns.saturating_add(TELL_NS)
            && self.told_ns.compare_exchange(told_ns, now_ns, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn left(&self) -> u64 {
        self.max.load(Ordering::Relaxed).saturating_sub(self.taken())
    }

    fn is_exceeded(&self) -> bool {
        self.taken() > self.max.load(Ordering::Relaxed)
    }

    /// Takes at least `wanted` bytes, if there are so many. How many it were.
    fn take(&self, wanted: u64, is_exact: bool) -> Option<u64> {
        let max = self.max.load(Ordering::Relaxed);
        let mut granted = 0;
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            let left = max.saturating_sub(taken);
            granted = if is_exact || left <= NEAR_BYTES { wanted } else { wanted.max(LEASE_BYTES) };
            (left >= wanted).then(|| taken.saturating_add(granted))
        });
        taken.is_ok().then_some(granted)
    }

    fn add(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Default for Room {
    fn default() -> Room {
        Room::new()
    }
}

/// The rooms of an account or a server.
#[derive(Debug, Clone, Default)]
pub struct Rooms {
    /// For what is in memory.
    pub memory: Arc<Room>,
    /// For what is on disk.
    pub storage: Arc<Room>,
}

impl Rooms {
    /// The one for this kind of storage.
    pub fn of(&self, storage: super::config::Storage) -> &Arc<Room> {
        match storage {
            super::config::Storage::Memory => &self.memory,
            super::config::Storage::File => &self.storage,
        }
    }
}

/// Who has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The account.
    Account,
    /// The server.
    Server,
}

/// What a stream has of the rooms of its account and of the server. Gives it back when it ends.
#[derive(Debug)]
pub struct Share {
    /// The account's and the server's; `None`: nobody counts.
    rooms: Option<(Arc<Room>, Arc<Room>)>,
    taken: u64,
    refused: Option<Full>,
}

impl Default for Share {
    fn default() -> Share {
        Share { rooms: None, taken: u64::MAX, refused: None }
    }
}

impl Share {
    /// That of a stream which holds this many bytes already.
    pub fn new(account: Arc<Room>, server: Arc<Room>, held: u64) -> Share {
        account.add(held);
        server.add(held);
        Share { rooms: Some((account, server)), taken: held, refused: None }
    }

    /// Whether the stream may hold so many bytes without asking.
    pub(super) fn covers(&self, bytes: u64) -> bool {
        bytes <= self.taken
    }

    /// Whether the server has less room than it needs.
    pub(super) fn is_server_exceeded(&mut self) -> bool {
        let is_exceeded = self.rooms.as_ref().is_some_and(|(_, server)| server.is_exceeded());
        if is_exceeded {
            self.refused = Some(Full::Server);
        }
        is_exceeded
    }

    /// Whether the account has room for the stream to hold so many bytes.
    pub(super) fn has_room(&mut self, bytes: u64) -> bool {
        let wanted = bytes.saturating_sub(self.taken);
        let fits = self.rooms.as_ref().is_none_or(|(account, _)| account.left() >= wanted);
        if !fits {
            self.refused = Some(Full::Account);
        }
        fits
    }

    /// Takes what the stream needs to hold so many bytes; `false` if the account has no room for that.
    pub(super) fn take(&mut self, bytes: u64) -> bool {
        let wanted = bytes.saturating_sub(self.taken);
        let Some((account, server)) = self.rooms.as_ref().filter(|_| wanted > 0) else { return true };
        let Some(granted) = account.take(wanted, server.left() <= NEAR_BYTES) else {
            self.refused = Some(Full::Account);
            return false;
        };
        server.add(granted);
        self.taken += granted;
        true
    }

    /// The stream holds so many bytes, and takes and gives back what is different.
    pub(super) fn settle(&mut self, held: u64) {
        let Some((account, server)) = self.rooms.as_ref().filter(|_| self.taken != held) else { return };
        for room in [account, server] {
            if held > self.taken {
                room.add(held - self.taken);
            } else {
                room.give_back(self.taken - held);
            }
        }
        self.taken = held;
    }

    /// Who had no room since the last call, and whether that is worth a line in the log.
    pub(super) fn take_refused(&mut self, now_ns: i64) -> Option<Full> {
        let full = self.refused.take()?;
        let (account, server) = self.rooms.as_ref()?;
        let room = if full == Full::Account { account } else { server };
        room.is_worth_telling(now_ns).then_some(full)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.settle(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(max: u64) -> Arc<Room> {
        let room = Room::new();
        room.set_max(Some(max));
        Arc::new(room)
    }

    #[test]
    fn an_account_takes_to_the_byte_what_it_may() {
        let (account, server) = (room(100), room(1000));
        let mut share = Share::new(account.clone(), server.clone(), 10);
        assert!(share.covers(10) && !share.covers(11));
        assert!(share.take(100));
        assert!(!share.take(101));
        assert_eq!((account.taken(), server.taken()), (100, 100));
        share.settle(60);
        let mut other = Share::new(account.clone(), server.clone(), 0);
        assert!(!other.has_room(41) && other.has_room(40) && other.take(40));
        assert_eq!(other.take_refused(0), Some(Full::Account));
        drop(share);
        assert_eq!((account.taken(), server.taken()), (40, 40));
    }

    #[test]
    fn a_server_is_exceeded_by_the_message_that_passes_its_limit() {
        let (account, server) = (Arc::new(Room::new()), room(100));
        let mut share = Share::new(account, server, 0);
        assert!(!share.is_server_exceeded() && share.take(100));
        assert!(!share.is_server_exceeded() && share.take(150));
        assert!(share.is_server_exceeded());
        assert_eq!((share.take_refused(0), share.take_refused(0)), (Some(Full::Server), None));
    }

    #[test]
    fn where_there_is_much_room_a_stream_asks_rarely() {
        let (account, server) = (Arc::new(Room::new()), Arc::new(Room::new()));
        let mut share = Share::new(account.clone(), server.clone(), 0);
        assert!(share.take(1) && share.covers(LEASE_BYTES) && !share.covers(LEASE_BYTES + 1));
        share.settle(1);
        assert_eq!((account.taken(), server.taken()), (1, 1));
    }

    #[test]
    fn workers_fill_an_account_together_and_exactly() {
        const MAX: u64 = 1_000_003;
        let (account, server) = (room(MAX), Arc::new(Room::new()));
        let held: u64 = std::thread::scope(|scope| {
            let streams = (0..4).map(|stream| {
                let (account, server) = (account.clone(), server.clone());
                scope.spawn(move || {
                    let mut share = Share::new(account, server, 0);
                    let mut held = 0;
                    // The last bytes are too few for some messages and enough for others.
                    for size in [977, 100 + stream, 1] {
                        while share.take(held + size) {
                            held += size;
                            if held % 7 == 0 {
                                share.settle(held);
                            }
                        }
                    }
                    std::mem::forget(share);
                    held
                })
            });
            streams.collect::<Vec<_>>().into_iter().map(|stream| stream.join().unwrap()).sum()
        });
        assert_eq!((held, account.taken()), (MAX, MAX));
    }
}
