//! Subscriptions to what other accounts publish: the shadows that a subscription has in the indexes of exporters.
//!
//! Which import shows what of a subscription is [`crate::subject::import`]'s to say; this keeps the entries. A subscription
//! without any costs nothing: they stand in a table of their own. A shadow comes with its subscription, goes with it, moves
//! with its connection, and is made anew where a reload changes what is imported.

use std::sync::Arc;

use super::core::Broker;
use super::subscription::Subscription;
use crate::subject::import::StreamImport;
use crate::subject::interest::{InterestAccess, Target};
use crate::subject::name::Pattern;
use crate::subject::pattern_set::PatternSet;

/// What a subscription has in the index of another account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadow {
    /// Slot of that account.
    account: u16,
    /// The number of the import there.
    import: u16,
    /// What it subscribes to there.
    pattern: Box<[u8]>,
}

impl Shadow {
    fn pattern(&self) -> Pattern<'_> {
        Pattern::parse(&self.pattern).expect("imports make valid patterns")
    }

    fn of(&self, target: Target) -> Target {
        Target { import: self.import, ..target }
    }
}

impl<A: InterestAccess> Broker<A> {
    /// Makes the shadows of a subscription what the imports of its account ask for.
    #[inline(never)]
    pub(super) fn renew_shadows(&mut self, sub: u32) {
        let subscription = &self.local.subscriptions[sub as usize];
        let session = &self.local.sessions[subscription.conn as usize];
        let pattern = Pattern::parse(&subscription.subject).expect("was valid when it was subscribed");
        let queue = subscription.queue.as_deref();
        let target = Target {
            worker: self.worker,
            import: 0,
            conn: subscription.conn,
            sub,
            generation: subscription.generation,
        };
        let imports = session.user.account.streams.clone();
        let permissions = session.user.permissions.as_deref();
        let denied = permissions.and_then(|permissions| permissions.delivery_denies(pattern, queue));
        let (subject, queue) = (subscription.subject.clone(), subscription.queue.clone());
        let pattern = Pattern::parse(&subject).expect("was valid when it was subscribed");
        self.exchange_shadows_of(target, pattern, queue.as_deref(), &imports, denied);
    }

    /// Makes the shadows of what is known by `target.sub` what these imports ask for.
    pub(super) fn exchange_shadows_of(
        &mut self,
        target: Target,
        pattern: Pattern<'_>,
        queue: Option<&[u8]>,
        imports: &[Arc<StreamImport>],
        denied: Option<Arc<PatternSet>>,
    ) {
        let mut wanted = Vec::new();
        for import in imports {
            let Some(shadow) = import.shadow(pattern) else { continue };
            let interest = &self.accounts[usize::from(import.exporter)].interest;
            let Some(number) = interest.write(|interest| interest.import_number(import)) else { continue };
            wanted.push(Shadow { account: import.exporter, import: number, pattern: shadow });
        }
        let earlier = self.local.shadows.remove(&target.sub).unwrap_or_default();
        for shadow in earlier.iter().filter(|shadow| !wanted.contains(shadow)) {
            let interest = &self.accounts[usize::from(shadow.account)].interest;
            let found =
                interest.write(|interest| interest.unsubscribe(shadow.pattern(), queue, shadow.of(target)));
            assert!(found, "the index has every shadow");
        }
        for shadow in wanted.iter().filter(|shadow| !earlier.contains(shadow)) {
            let interest = &self.accounts[usize::from(shadow.account)].interest;
            let denied = denied.clone();
            interest.write(|interest| {
                interest.subscribe_filtered(shadow.pattern(), queue, shadow.of(target), denied);
            });
        }
        if !wanted.is_empty() {
            self.local.shadows.insert(target.sub, wanted.into());
        }
    }

    /// After a reload.
    pub(super) fn renew_all_shadows(&mut self, conn: u32) {
        let session = &self.local.sessions[conn as usize];
        if session.closing.is_some()
            || session.user.account.streams.is_empty() && self.local.shadows.is_empty()
        {
            return;
        }
        for sub in self.local.subscriptions_of(conn) {
            self.renew_shadows(sub);
        }
    }

    #[inline(never)]
    pub(super) fn remove_shadows(&mut self, sub: u32, subscription: &Subscription) {
        let Subscription { conn, generation, .. } = *subscription;
        let target = Target { worker: self.worker, import: 0, conn, sub, generation };
        self.remove_shadows_of(target, subscription.queue.as_deref());
    }

    pub(super) fn remove_shadows_of(&mut self, target: Target, queue: Option<&[u8]>) {
        let Some(shadows) = self.local.shadows.remove(&target.sub) else { return };
        for shadow in &shadows {
            let interest = &self.accounts[usize::from(shadow.account)].interest;
            let found =
                interest.write(|interest| interest.unsubscribe(shadow.pattern(), queue, shadow.of(target)));
            assert!(found, "the index has every shadow");
        }
    }

    /// Puts a subscription that has moved here in the place of the one that it was, in the indexes of other accounts.
    pub(super) fn exchange_shadows(&mut self, old: Target, new: Target, shadows: Box<[Shadow]>) {
        let queue = self.local.subscriptions[new.sub as usize].queue.as_deref();
        for shadow in &shadows {
            let interest = &self.accounts[usize::from(shadow.account)].interest;
            let found = interest
                .write(|interest| interest.exchange(shadow.pattern(), queue, shadow.of(old), shadow.of(new)));
            assert!(found, "the index has every shadow");
        }
        self.local.shadows.insert(new.sub, shadows);
    }

    /// Changes what the shadows of a subscription do not get.
    pub(super) fn set_denied_to_shadows(&mut self, target: Target, denied: &Option<Arc<PatternSet>>) {
        for shadow in self.local.shadows.get(&target.sub).into_iter().flatten() {
            let interest = &self.accounts[usize::from(shadow.account)].interest;
            let denied = denied.clone();
            interest.write(|interest| interest.set_denied(shadow.pattern(), shadow.of(target), denied));
        }
    }
}
