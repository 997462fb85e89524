//! The accounts of a server, from the configuration. The texts are the reference's.

use std::collections::HashSet;

use super::decode::{Decoder, Outcome, in_order, integer, shown, string, unknown};
use super::error::Problem;
use super::imports::Entries;
use super::keys::{self, Status};
use super::lang::{Node, Value};
use super::options::{Account, AccountLimits, KeyAt, Login};
use super::permissions::permissions as permissions_of;
use super::shape::expected;
use crate::subject::mapping::Mappings;

/// The account of everybody who is in no other one.
pub const GLOBAL_ACCOUNT: &str = "$G";

/// The system's own account where no other one is named.
pub const SYSTEM_ACCOUNT: &str = "$SYS";

impl Decoder {
    /// `accounts`: a map of maps, or an array of names. Anything else is no account, as in the reference.
    pub(super) fn accounts(&mut self, node: &Node) -> Outcome {
        self.options.accounts.clear();
        self.account_names.clear();
        self.account_logins.clear();
        match &node.value {
            Value::Array(names) => {
                for entry in names {
                    let result = string(entry).and_then(|name| self.add_account(name).map(drop));
                    self.note(&entry.at, result);
                }
            }
            Value::Map(entries) => {
                let mut all = Vec::new();
                for (name, entry) in in_order(entries) {
                    let result = self.account(name, entry).map(|entries| all.push(entries));
                    self.note(&entry.at, result);
                }
                self.share(node, all);
            }
            _ => {}
        }
        Ok(())
    }

    fn add_account(&mut self, name: &str) -> Outcome<&mut Account> {
        if name == GLOBAL_ACCOUNT {
            return Err(Problem::ReservedAccount(name.to_owned()));
        }
        if !self.account_names.insert(name.to_owned()) {
            return Err(Problem::DuplicateAccount(name.to_owned()));
        }
        let accounts = &mut self.options.accounts;
        accounts.push(Account { name: name.to_owned(), ..Account::default() });
        Ok(accounts.last_mut().expect("just added"))
    }

    fn account(&mut self, account: &str, node: &Node) -> Outcome<Entries> {
        let Value::Map(entries) = &node.value else {
            return Err(Problem::NotHere("Expected map entries for accounts"));
        };
        self.add_account(account)?;
        let (mut users, mut default_permissions) = (Vec::new(), None);
        let mut limits = AccountLimits::default();
        let (mut mappings, mut shared) = (Mappings::default(), Entries::default());
        let mut jetstream = None;
        for (name, entry) in in_order(entries) {
            let lower = name.to_lowercase();
            let result = match keys::status(keys::ACCOUNT, &lower) {
                None => unknown(name, entry),
                Some(Status::Supported) => match lower.as_str() {
                    "users" => self.users(entry, "accounts.users").and_then(|list| {
                        users = list;
                        let logins = users.iter().map(|user| &user.login);
                        first_known(logins, &mut self.account_logins).map_or(Ok(()), Err)
                    }),
                    "limits" => self.account_limits(entry).map(|read| limits = read),
                    "default_permissions" => {
                        permissions_of(entry, &mut self.problems).map(|read| default_permissions = Some(read))
                    }
                    "mappings" | "maps" => self.mappings(entry).map(|read| mappings.add_all(read)),
                    "jetstream" => self.account_jetstream(name, entry).map(|read| jetstream = read),
                    "exports" => self.exports(entry, &mut shared),
                    "imports" => self.imports(entry, &mut shared),
                    _ => unreachable!("{lower} is in the table as supported"),
                },
                Some(Status::NoEffect(shape)) => self.check(&shape, name, entry),
                Some(Status::NotYet(shape)) => {
                    if asks_for_something(&entry.value) {
                        let name = format!("accounts.{account}.{name}");
                        self.options.not_supported.push(KeyAt { name, at: Some(entry.at.clone()) });
                    }
                    self.check(&shape, name, entry)
                }
                Some(Status::Refused) => unreachable!("no option of an account is refused"),
            };
            self.note(&entry.at, result);
        }
        for user in users.iter_mut().filter(|user| user.permissions.is_none()) {
            user.permissions.clone_from(&default_permissions);
        }
        let added = self.options.accounts.last_mut().expect("added above");
        (added.users, added.limits, added.mappings) = (users, limits, mappings);
        added.jetstream = jetstream;
        Ok(shared)
    }

    fn account_limits(&mut self, node: &Node) -> Outcome<AccountLimits> {
        let Value::Map(entries) = &node.value else {
            return Err(expected("Expected account limits to be a map/struct", shown(&node.value)));
        };
        let mut limits = AccountLimits::default();
        for (name, entry) in in_order(entries) {
            let result = match name.to_lowercase().as_str() {
                "max_connections" | "max_conn" => limit(name, entry).map(|max| limits.connections = max),
                "max_subscriptions" | "max_subs" => limit(name, entry).map(|max| limits.subscriptions = max),
                "max_payload" | "max_pay" => limit(name, entry).map(|max| limits.payload = max),
                // There are no leafnodes to count.
                "max_leafnodes" | "max_leafs" => limit(name, entry).map(drop),
                _ if entry.is_variable => Ok(()),
                _ => Err(Problem::UnknownAccountLimit(name.clone())),
            };
            self.note(&entry.at, result);
        }
        Ok(limits)
    }
}

/// What is wrong with the first of `logins` whose name or key is in `known`, where all before it are added.
pub(super) fn first_known<'a>(
    mut logins: impl Iterator<Item = &'a Login>,
    known: &mut HashSet<String>,
) -> Option<Problem> {
    logins.find(|login| !known.insert(login.name().to_owned())).map(|login| match login {
        Login::Password { user, .. } => Problem::DuplicateUser(user.clone()),
        Login::Nkey(key) => Problem::DuplicateNkey(key.clone()),
    })
}

/// -1: none.
fn limit(name: &str, node: &Node) -> Outcome<Option<u32>> {
    match integer(node)? {
        -1 => Ok(None),
        number if number < 0 => Err(Problem::Negative(name.to_owned())),
        number => u32::try_from(number).map(Some).map_err(|_| Problem::TooBig(name.to_owned())),
    }
}

fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Map(entries) => !entries.is_empty(),
        Value::Array(entries) => !entries.is_empty(),
        Value::Bool(wanted) => *wanted,
        Value::String(text) => {
            !text.eq_ignore_ascii_case("disabled") && !text.eq_ignore_ascii_case("disable")
        }
        _ => true,
    }
}

/// The name of a system account.
pub(super) fn system_account(node: &Node) -> Outcome<String> {
    string(node).map(str::to_owned).map_err(|_| Problem::NotHere("system account name must be a string"))
}
