//! The users of a server, and the decision whether a client is one of them.
//!
//! A refusal never tells why. Where some password is a bcrypt hash, every failure takes one comparison with such a hash,
//! whatever was wrong, so that time does not tell either.

use std::collections::HashMap;
use std::sync::Arc;

use super::accounts::{Account, Accounts, TooManyAccounts};
use super::certificate::ClientCertificate;
use super::credentials::Credentials;
use super::distinguished_name::DistinguishedName;
use super::nkey::{NonceKey, is_signed};
use super::permissions::Permissions;
use super::secret::{HashCheck, Secret, digest, same};
use crate::config::{self, ConnectionType, ConnectionTypes, Login, Options};

/// Who may connect. Does not change; a reload makes another one.
#[derive(Debug, PartialEq)]
pub struct Directory {
    demand: Demand,
    /// Who a client without credentials is.
    no_auth_user: Option<Arc<User>>,
    /// Who everybody is where nothing is demanded, or a token.
    nobody: Arc<User>,
    /// What failures are held against where some secret is a hash.
    decoy: Option<Arc<str>>,
    accounts: Accounts,
    /// Users by the distinguished names that they are called by; `None` where certificates do not say who a client is.
    certified: Option<Vec<(DistinguishedName, Arc<User>)>>,
    nonce_key: NonceKey,
}

/// Somebody who may connect.
#[derive(Debug, PartialEq)]
pub struct User {
    /// Name or public key; empty for nobody in particular.
    pub name: String,
    /// `None` for a key, which has none.
    secret: Option<Secret>,
    connections: ConnectionTypes,
    /// What it may do; `None`: everything.
    pub permissions: Option<Arc<Permissions>>,
    /// Where it belongs.
    pub account: Arc<Account>,
}

/// What a client has to show.
#[derive(Debug, PartialEq)]
enum Demand {
    Nothing,
    Token(Secret),
    /// One user for all.
    Single(Arc<User>),
    Users {
        named: HashMap<String, Arc<User>>,
        keys: HashMap<String, Arc<User>>,
    },
}

/// What is decided about a client.
#[derive(Debug)]
pub enum Decision {
    /// It may connect, as this user.
    Granted(Arc<User>),
    /// It may not.
    Refused,
    /// It depends on a comparison that takes long. If that succeeds it may connect as this user; `None`: it may not
    /// in any case.
    Checking(HashCheck, Option<Arc<User>>),
}

/// Whom a certificate belongs to, and by which of its names.
#[derive(Debug, PartialEq, Eq)]
pub enum CertificateMatch<'a> {
    /// An e-mail address.
    Email(&'a str),
    /// The name of a host.
    Host(&'a str),
    /// A URI.
    Uri(&'a str),
    /// The subject, which the user writes so.
    Subject(&'a str),
    /// Nobody.
    None,
}

impl Directory {
    /// Compiles the configuration. `nonce_key` is the server's.
    ///
    /// # Errors
    ///
    /// There are too many accounts.
    pub fn new(options: &Options, nonce_key: NonceKey) -> Result<Directory, TooManyAccounts> {
        Ok(Directory::with_accounts(options, nonce_key, Accounts::new(options, None)?))
    }

    /// Compiles what is configured after a reload.
    ///
    /// # Errors
    ///
    /// There are too many accounts.
    pub fn successor(&self, options: &Options) -> Result<Directory, TooManyAccounts> {
        let accounts = Accounts::new(options, Some(&self.accounts))?;
        Ok(Directory::with_accounts(options, self.nonce_key, accounts))
    }

    /// What it is for WebSocket clients, who may have to show something else. `None`: the same.
    pub fn for_websocket(&self, options: &Options) -> Option<Directory> {
        let websocket = options.websocket.as_ref()?;
        let maps = |tls: &Option<config::TlsOptions>| tls.as_ref().is_some_and(|tls| tls.map);
        if !websocket.overrides_authorization() && maps(&options.tls) == maps(&websocket.tls) {
            return None;
        }
        let mut options = options.clone();
        options.tls.clone_from(&websocket.tls);
        if websocket.overrides_authorization() {
            options.no_auth_user.clone_from(&websocket.no_auth_user);
            if options.users().next().is_none() {
                options.authorization.credentials = websocket.credentials.clone();
            }
        }
        Some(Directory::with_accounts(&options, self.nonce_key, self.accounts.clone()))
    }

    fn with_accounts(options: &Options, nonce_key: NonceKey, accounts: Accounts) -> Directory {
        let nobody = Arc::new(User {
            name: String::new(),
            secret: None,
            connections: ConnectionTypes::ALL,
            permissions: None,
            account: accounts.global().clone(),
        });
        let (mut named, mut keys) = (HashMap::new(), HashMap::new());
        let mut permissions = PermissionSets::default();
        for (account, user) in options.users() {
            let (name, secret, map) = match &user.login {
                Login::Password { user, password } => (user, Some(Secret::new(password)), &mut named),
                Login::Nkey(key) => (key, None, &mut keys),
            };
            let user = Arc::new(User {
                name: name.clone(),
                secret,
                connections: user.connection_types,
                permissions: user.permissions.as_ref().map(|configured| permissions.get(configured)),
                account: accounts.named(account).unwrap_or(accounts.global()).clone(),
            });
            map.insert(name.clone(), user);
        }
        let demand = match &options.authorization.credentials {
            config::Credentials::Token(token) => Demand::Token(Secret::new(token)),
            config::Credentials::UserPassword { user, password } => Demand::Single(Arc::new(User {
                name: user.clone(),
                secret: Some(Secret::new(password)),
                connections: ConnectionTypes::ALL,
                permissions: None,
                account: accounts.global().clone(),
            })),
            config::Credentials::None | config::Credentials::Users(_) => {
                if named.is_empty() && keys.is_empty() {
                    Demand::Nothing
                } else {
                    Demand::Users { named, keys }
                }
            }
        };
        let no_auth_user = match (&demand, &options.no_auth_user) {
            // A key comes before a name, as in the reference; both cannot be.
            (Demand::Users { named, keys }, Some(name)) => {
                keys.get(name).or_else(|| named.get(name)).cloned()
            }
            _ => None,
        };
        let decoy = demand.hashes().max_by_key(|hash| cost(hash)).cloned();
        let certified = match (&demand, &options.tls) {
            (Demand::Users { named, .. }, Some(tls)) if tls.map => {
                let parse =
                    |user: &Arc<User>| DistinguishedName::parse(&user.name).map(|name| (name, user.clone()));
                let mut certified: Vec<_> = named.values().filter_map(parse).collect();
                certified.sort_by(|(_, one), (_, other)| one.name.cmp(&other.name));
                Some(certified)
            }
            _ => None,
        };
        Directory { demand, no_auth_user, nobody, decoy, accounts, certified, nonce_key }
    }

    /// A directory that lets everybody in.
    pub fn open() -> Directory {
        let options = Options { no_system_account: true, ..Options::default() };
        Directory::new(&options, NonceKey([0; 32])).expect("one account is not too many")
    }

    /// The accounts.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Whether credentials are demanded. Even then `no_auth_user` may stand in for them.
    pub fn demands_credentials(&self) -> bool {
        self.demand != Demand::Nothing
    }

    /// Whether a client that shows nothing is somebody all the same.
    pub fn has_no_auth_user(&self) -> bool {
        self.no_auth_user.is_some()
    }

    /// Who a client is that does not even begin with `CONNECT`, if that is enough. A key does not do, in the reference.
    pub fn without_credentials(&self, connection: ConnectionType) -> Option<&Arc<User>> {
        match &self.no_auth_user {
            _ if self.demand == Demand::Nothing => Some(&self.nobody),
            Some(user) if user.secret.is_some() && user.may_come_without(connection) => Some(user),
            _ => None,
        }
    }

    /// Who a connection is until it has shown something.
    pub fn nobody(&self) -> &Arc<User> {
        &self.nobody
    }

    /// What connection `cid` is to sign; `None` if there are no keys.
    pub fn nonce(&self, cid: u64) -> Option<String> {
        let Demand::Users { keys, .. } = &self.demand else { return None };
        (!keys.is_empty()).then(|| String::from_utf8_lossy(&self.nonce_key.nonce(cid)).into_owned())
    }

    /// Whether some password or token is not hashed, which deserves a warning.
    pub fn has_plain_secrets(&self) -> bool {
        let is_plain =
            |secret: &Secret| matches!(secret, Secret::Plain(digest) if *digest != super::secret::digest(""));
        match &self.demand {
            Demand::Nothing => false,
            Demand::Token(secret) => is_plain(secret),
            Demand::Single(user) => user.secret.as_ref().is_some_and(is_plain),
            Demand::Users { named, .. } => {
                named.values().any(|user| user.secret.as_ref().is_some_and(is_plain))
            }
        }
    }

    /// Whom a client's certificate belongs to; `None` where that is not asked. The name then stands for whatever user the
    /// client calls itself; its password still counts.
    pub fn owner_of<'a>(
        &'a self,
        certificate: &'a ClientCertificate,
        connection: ConnectionType,
    ) -> Option<CertificateMatch<'a>> {
        let (Some(certified), Demand::Users { named, .. }) = (&self.certified, &self.demand) else {
            return None;
        };
        let may = |user: &Arc<User>| user.connections.contains(connection);
        let is_user = |name: &&String| named.get(*name).is_some_and(may);
        let find = |names: &'a [String]| names.iter().find(is_user);
        if let Some(name) = find(&certificate.emails) {
            return Some(CertificateMatch::Email(name));
        }
        if let Some(name) = find(&certificate.hosts) {
            return Some(CertificateMatch::Host(name));
        }
        if let Some(name) = find(&certificate.uris) {
            return Some(CertificateMatch::Uri(name));
        }
        let same = |(name, user): &&(DistinguishedName, Arc<User>)| {
            Some(name) == certificate.name.as_ref() && may(user)
        };
        let by_parts = certified.iter().find(same).map(|(_, user)| user);
        let user = by_parts.or_else(|| named.get(&certificate.subject).filter(|user| may(user)));
        Some(user.map_or(CertificateMatch::None, |user| CertificateMatch::Subject(&user.name)))
    }

    /// Whether a client that shows this key, or none, is who its certificate says.
    pub fn asks_for_certificate(&self, nkey: &str) -> bool {
        let Demand::Users { keys, .. } = &self.demand else { return false };
        self.certified.is_some() && (nkey.is_empty() || keys.is_empty())
    }

    /// Whether a client that shows this may connect.
    pub fn decide(&self, shown: &Credentials<'_>) -> Decision {
        match &self.demand {
            Demand::Nothing => Decision::Granted(self.nobody.clone()),
            Demand::Token(secret) => self.compare(secret, shown.token, Some(&self.nobody)),
            Demand::Single(user) => {
                let is_named = user.name == shown.user;
                self.compare_user(user, shown.password, is_named)
            }
            Demand::Users { named, keys } => {
                if shown.is_empty()
                    && self.certified.is_none()
                    && let Some(user) = &self.no_auth_user
                {
                    return self.admit_without(user, shown);
                }
                if !shown.nkey.is_empty() && !keys.is_empty() {
                    // The key need not be known for its signature to be looked at: both take the same time.
                    let is_signed = is_signed(shown.nkey, shown.nonce, shown.signature);
                    let is_asked_nothing = |user: &Arc<User>| {
                        self.no_auth_user.as_ref().is_some_and(|other| Arc::ptr_eq(user, other))
                    };
                    return match keys.get(shown.nkey) {
                        Some(user)
                            if (is_signed || is_asked_nothing(user))
                                && user.connections.contains(shown.connection) =>
                        {
                            Decision::Granted(user.clone())
                        }
                        _ => self.refuse(shown.password),
                    };
                }
                match named.get(shown.user) {
                    Some(user) => {
                        let may = user.connections.contains(shown.connection);
                        self.compare_user(user, shown.password, may)
                    }
                    None => self.refuse(shown.password),
                }
            }
        }
    }

    /// Whether `user`, who was let in by an earlier directory, may stay by this one without being asked again: it is
    /// there and has the same secret.
    pub fn still_admits(&self, user: &User, connection: ConnectionType) -> Option<&Arc<User>> {
        let found = match &self.demand {
            Demand::Nothing | Demand::Token(_) => return None,
            Demand::Single(single) => Some(single),
            Demand::Users { named, keys } => match user.secret {
                Some(_) => named.get(&user.name),
                None => keys.get(&user.name),
            },
        };
        found.filter(|found| {
            found.name == user.name
                && !user.name.is_empty()
                && found.secret == user.secret
                && found.connections.contains(connection)
        })
    }

    fn admit_without(&self, user: &Arc<User>, shown: &Credentials<'_>) -> Decision {
        if user.may_come_without(shown.connection) {
            Decision::Granted(user.clone())
        } else {
            self.refuse(shown.password)
        }
    }

    fn compare_user(&self, user: &Arc<User>, password: &str, may: bool) -> Decision {
        match &user.secret {
            Some(secret) => self.compare(secret, password, may.then_some(user)),
            None => self.refuse(password),
        }
    }

    /// `user` is who it is if the secret is right; `None` if it is nobody in any case.
    fn compare(&self, secret: &Secret, shown: &str, user: Option<&Arc<User>>) -> Decision {
        match (secret, user) {
            (Secret::Plain(expected), Some(user)) if same(expected, &digest(shown)) => {
                Decision::Granted(user.clone())
            }
            (Secret::Plain(_), _) => self.refuse(shown),
            (Secret::Bcrypt(hash), user) => {
                let check = HashCheck { hash: hash.clone(), password: shown.to_owned() };
                Decision::Checking(check, user.cloned())
            }
        }
    }

    fn refuse(&self, shown: &str) -> Decision {
        match &self.decoy {
            None => Decision::Refused,
            Some(hash) => {
                Decision::Checking(HashCheck { hash: hash.clone(), password: shown.to_owned() }, None)
            }
        }
    }
}

/// Permissions by what was configured: users that may do the same share them, and the answers in caches.
#[derive(Default)]
struct PermissionSets<'a>(HashMap<&'a config::Permissions, Arc<Permissions>>);

impl<'a> PermissionSets<'a> {
    fn get(&mut self, configured: &'a config::Permissions) -> Arc<Permissions> {
        let id = self.0.len() as u32 + 1;
        self.0.entry(configured).or_insert_with(|| Arc::new(Permissions::new(id, configured))).clone()
    }
}

impl User {
    /// How log lines name it.
    pub fn label(&self) -> String {
        let kind = if self.secret.is_some() { "user" } else { "nkey" };
        format!("{kind}:{}", self.name)
    }

    /// How log lines name it apart from a connection; `None` for nobody in particular.
    pub fn shown(&self) -> Option<String> {
        let kind = if self.secret.is_some() { "User" } else { "Nkey" };
        (!self.name.is_empty()).then(|| format!("{kind} {:?}", self.name))
    }

    /// Whether it may be had without credentials, as `no_auth_user`. With a hashed password it lets nobody in, as in
    /// the reference.
    fn may_come_without(&self, connection: ConnectionType) -> bool {
        let has_hash = self.secret.as_ref().is_some_and(|secret| secret.hash().is_some());
        !has_hash && self.connections.contains(connection)
    }
}

impl Demand {
    fn hashes(&self) -> impl Iterator<Item = &Arc<str>> {
        let (single, users) = match self {
            Demand::Nothing => (None, None),
            Demand::Token(secret) => (Some(secret), None),
            Demand::Single(user) => (user.secret.as_ref(), None),
            Demand::Users { named, .. } => (None, Some(named.values())),
        };
        let users = users.into_iter().flatten().filter_map(|user| user.secret.as_ref());
        single.into_iter().chain(users).filter_map(Secret::hash)
    }
}

/// The two digits of a bcrypt hash that say how long it takes.
fn cost(hash: &str) -> u8 {
    hash.get(4..6).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Password;

    const HASH: &str = "$2a$04$.OC/.OC/.OC/.OC/.OC/.OhBAjqkJvp/E/NWAjQEaL1Z6bXG3uS3W";

    fn directory(users: &[(&str, &str)]) -> Directory {
        let user = |(name, password): &(&str, &str)| config::User {
            login: Login::Password {
                user: (*name).to_owned(),
                password: Password::new((*password).to_owned()),
            },
            connection_types: ConnectionTypes::ALL,
            permissions: None,
        };
        let mut options = Options::default();
        options.authorization.credentials = config::Credentials::Users(users.iter().map(user).collect());
        Directory::new(&options, NonceKey([0; 32])).unwrap()
    }

    fn decide(directory: &Directory, user: &str, password: &str) -> Decision {
        directory.decide(&Credentials {
            user,
            password,
            token: "",
            nkey: "",
            signature: "",
            nonce: b"",
            connection: ConnectionType::Standard,
        })
    }

    fn is_granted(decision: &Decision, name: &str) -> bool {
        matches!(decision, Decision::Granted(user) if user.name == name)
    }

    #[test]
    fn a_plain_password_is_decided_at_once() {
        let directory = directory(&[("a", "x"), ("b", "y")]);
        assert!(is_granted(&decide(&directory, "b", "y"), "b"));
        for (user, password) in [("a", "y"), ("c", "x"), ("", "x"), ("a", "")] {
            assert!(matches!(decide(&directory, user, password), Decision::Refused), "{user}");
        }
    }

    #[test]
    fn with_a_hash_somewhere_every_failure_costs_a_comparison() {
        let directory = directory(&[("a", "x"), ("h", HASH)]);
        assert!(is_granted(&decide(&directory, "a", "x"), "a"));
        for (user, password) in [("a", "y"), ("c", "x"), ("", "")] {
            let decision = decide(&directory, user, password);
            assert!(matches!(&decision, Decision::Checking(_, None)), "{user}: {decision:?}");
        }
        let Decision::Checking(check, Some(user)) = decide(&directory, "h", "secret") else { panic!() };
        assert!(check.verify() && user.name == "h");
        // A right password does not help a name that is not there.
        let Decision::Checking(check, None) = decide(&directory, "c", "secret") else { panic!() };
        assert!(check.verify());
    }

    #[test]
    fn after_a_change_those_stay_whose_secret_is_the_same() {
        let before = directory(&[("a", "x"), ("b", "y")]);
        let after = directory(&[("a", "x"), ("b", "z")]);
        let Decision::Granted(a) = decide(&before, "a", "x") else { panic!() };
        let Decision::Granted(b) = decide(&before, "b", "y") else { panic!() };
        assert!(after.still_admits(&a, ConnectionType::Standard).is_some());
        assert!(after.still_admits(&b, ConnectionType::Standard).is_none());
        assert!(after.still_admits(before.nobody(), ConnectionType::Standard).is_none());
        assert!(Directory::open().still_admits(&a, ConnectionType::Standard).is_none());
    }
}
