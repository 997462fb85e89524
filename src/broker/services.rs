//! Requests to services of other accounts, and their answers on the way back.
//!
//! A request is published in the importer's account. Where its fan-out list names a service ([`Links::services`]), it is
//! published once more in the exporter's account, under the exporter's subject, with a header that says where it comes
//! from, and with a reply that leads back: `_R_.`, six characters that tell the worker which keeps the response, a dot,
//! and six that tell the response. Whoever answers publishes to that reply in the exporter's account; the worker that
//! keeps the response publishes the answer to the requester's own reply, in the requester's account. A service may be
//! imported from an account that imports it itself; then there is a response for each step.
//!
//! Nothing of this is shared between workers: a response is in the table ([`super::responses`]) of the worker that has taken the
//! request, wherever requester and responder are, and whether they move. An answer from another worker comes in a batch.
//!
//! The rules are those of nats-server 2.15.1. What has come into an account as a request or an answer is shown to no
//! account that imports it as a stream. A response ends with its answer, or, where the service answers in several pieces,
//! with an empty one; otherwise when nothing has come for its time.
//!
//! Bounds: the table's; [`CHAIN_MAX`] steps, [`ASKED_MAX`] services for one message, [`ANSWER_BATCHES_MAX`].

use std::sync::Arc;

use super::batch::{Message, To};
use super::client_info::{self, ClientInfo};
use super::core::Broker;
use super::latency::{Measurement, Status};
use super::log_lines::Level;
use super::publish::{Sending, TARGET_COST_BYTES, is_lone};
use super::responses::{ReplyCodes, Response};
use crate::auth::Accounts;
use crate::subject::import::{ResponseType, ServiceImport};
use crate::subject::interest::{InterestAccess, Matches, WorkerId};
use crate::wire::{Payload, Publish, Widths, header};

/// Services through which one request may go.
pub const CHAIN_MAX: usize = 32;

/// Services that one message asks in all, where they fan out.
pub const ASKED_MAX: usize = 1024;

/// Full batches that may wait for another worker before answers that come from a third one are dropped. Whoever publishes such
/// answers cannot be held back: its worker does not see where they go.
pub const ANSWER_BATCHES_MAX: usize = 256;

/// Acknowledgements of JetStream find their way by themselves.
const ACK_PREFIX: &[u8] = b"$JS.ACK.";

/// The header that tells a responder where a request comes from.
const REQUEST_INFO: &[u8] = b"Nats-Request-Info";

/// A request that nobody has got after all, as its requester knows it.
pub(super) struct Unanswered {
    pub subject: Box<[u8]>,
    pub reply: Box<[u8]>,
}

/// What became of a message in another account.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reached {
    pub delivered: bool,
    pub congested_on: Option<(WorkerId, u32)>,
}

/// Where a request comes from.
#[derive(Debug, Default)]
pub(super) struct Origin {
    /// The connection at this worker that published it: slot and cid.
    pub publisher: Option<(u32, u64)>,
    /// Who wants to know if nobody is there after all.
    pub requester: Option<(u32, u64)>,
    /// The connection that does not get it.
    pub silent: Option<u32>,
    /// What the last service on the way was told.
    info: Option<ClientInfo>,
    /// Services that have been asked so far.
    asked: usize,
}

impl Origin {
    /// Of a message that a connection of this worker has published.
    pub fn of(publisher: (u32, u64), requester: Option<(u32, u64)>, silent: Option<u32>) -> Origin {
        Origin { publisher: Some(publisher), requester, silent, ..Origin::default() }
    }
}

impl<A: InterestAccess> Broker<A> {
    /// Publishes a request to services of other accounts.
    pub(super) fn ask_services(
        &mut self,
        services: &[Arc<ServiceImport>],
        publish: &Publish<'_>,
        origin: &mut Origin,
    ) -> Reached {
        self.ask_each(services, publish, &mut Vec::new(), origin)
    }

    fn ask_each(
        &mut self,
        services: &[Arc<ServiceImport>],
        publish: &Publish<'_>,
        chain: &mut Vec<Arc<ServiceImport>>,
        origin: &mut Origin,
    ) -> Reached {
        let mut reached = Reached::default();
        for service in services {
            reached.add(self.ask(service, publish, chain, origin));
        }
        reached
    }

    fn ask(
        &mut self,
        service: &Arc<ServiceImport>,
        publish: &Publish<'_>,
        chain: &mut Vec<Arc<ServiceImport>>,
        origin: &mut Origin,
    ) -> Reached {
        let is_circle = chain.iter().any(|earlier| earlier.is_same_service(service));
        // While a reload is under way, the index knows of accounts that this worker does not yet.
        let is_known = usize::from(service.exporter) < self.settings.directory.accounts().slots();
        if is_circle || !is_known || chain.len() >= CHAIN_MAX || origin.asked >= ASKED_MAX {
            return Reached::default();
        }
        origin.asked += 1;
        let mut to = Vec::new();
        service.change().apply(publish.subject, &mut to);
        let to = self.mapped_in(service.exporter, to);
        let measurement = self.measurement(service, publish, origin.publisher);
        let (mut key, mut unanswerable) = (None, None);
        let reply = match publish.reply {
            Some(reply) if reply.starts_with(ACK_PREFIX) => Some(reply.to_vec()),
            Some(reply) => {
                let (asked, asking) = (service.exporter, service.importer);
                let new = self.expect(asked, asking, reply, publish.subject, service.clone(), measurement);
                key = Some(new);
                Some(self.responses.reply(new))
            }
            None => {
                unanswerable = measurement;
                None
            }
        };
        let mut info = self.request_info(service, chain.last(), origin);
        if let Some(reply) = publish.reply.filter(|reply| info.reply.is_empty() && reply.ends_with(b".$FI")) {
            info.reply = String::from_utf8_lossy(reply).into_owned();
        }
        let json = client_info::json(&info);
        let mut content = Vec::new();
        let header_len = header::write_with(
            &mut content,
            publish.header_len,
            publish.payload.with_crlf(),
            REQUEST_INFO,
            &json,
        );
        // Written anew for every service, whoever gets it.
        self.local.turn_bytes += TARGET_COST_BYTES + content.len();
        let request = Publish {
            args: b"",
            subject: &to,
            reply: reply.as_deref(),
            header_len: Some(header_len),
            payload: Payload::Borrowed(&content),
            widths: Widths::default(),
        };
        chain.push(service.clone());
        let told_before = origin.info.replace(info);
        let reached = self.route(service.exporter, &request, None, true, chain, origin);
        origin.info = told_before;
        chain.pop();
        if let Some(measurement) = unanswerable {
            self.tell_latency(service, &measurement, Status::BadRequest, None);
        }
        if !reached.delivered
            && let Some(response) = key.and_then(|key| self.responses.remove(key))
        {
            self.tell_unanswered(&response, Status::NobodyThere);
        }
        reached
    }

    /// What mappings of an account make of a subject that comes into it.
    fn mapped_in(&mut self, account: u16, subject: Vec<u8>) -> Vec<u8> {
        let accounts = self.settings.directory.accounts();
        let mut mapped = Vec::new();
        let is_mapped = usize::from(account) < accounts.slots()
            && accounts.get(account).mappings.apply(&subject, &mut self.random, &mut mapped);
        if is_mapped { mapped } else { subject }
    }

    fn expect(
        &mut self,
        account: u16,
        to_account: u16,
        reply: &[u8],
        subject: &[u8],
        service: Arc<ServiceImport>,
        measurement: Option<Box<Measurement>>,
    ) -> u64 {
        let response = Response {
            account,
            to_account,
            reply: reply.into(),
            subject: subject.into(),
            deadline_ms: self.local.now_ms + service.terms.threshold_ms,
            service,
            measurement,
        };
        self.responses.insert(response, &mut self.random)
    }

    /// Publishes a message of the server's own in an account.
    pub(super) fn publish_own(&mut self, account: u16, publish: &Publish<'_>) {
        self.route(account, publish, None, false, &mut Vec::new(), &mut Origin::default());
    }

    /// Publishes a message in an account. `shown`: the subject by which they get it, if that is another one; `stays`: it has
    /// come into it by a service.
    pub(super) fn route(
        &mut self,
        account: u16,
        publish: &Publish<'_>,
        shown: Option<&[u8]>,
        stays: bool,
        chain: &mut Vec<Arc<ServiceImport>>,
        origin: &mut Origin,
    ) -> Reached {
        let Some(place) = self.accounts.get_mut(usize::from(account)) else { return Reached::default() };
        let fanout = place.cache.find(publish.subject, &mut self.route_memo, &place.interest);
        let mut sending = Sending {
            worker: self.worker,
            account,
            local: &mut self.local,
            outgoing: &mut self.outgoing,
            crowded: &mut self.crowded,
            relocations: &self.relocations,
            congested_peers: &self.congested_peers,
            random: &mut self.random,
            publish,
            shown,
            stays,
            internal: self.workers,
            publisher: origin.publisher,
            requester: origin.requester.filter(|_| is_lone(fanout)),
            silent: origin.silent,
            delivered: false,
            congested_on: None,
        };
        sending.send_to_plain(&fanout.local, &fanout.remote, shown);
        match fanout.links.as_deref() {
            None => sending.send_to_groups(fanout),
            Some(links) => {
                sending.send_to_linked_groups(fanout, links);
                if !stays {
                    sending.send_to_imports(links);
                }
            }
        }
        let mut reached = Reached { delivered: sending.delivered, congested_on: sending.congested_on };
        let services = fanout.links.as_deref().map(|links| links.services.clone()).unwrap_or_default();
        if !services.is_empty() {
            // Only one who is the only one to get it decides whether anybody does.
            let requester = origin.requester;
            origin.requester = requester.filter(|_| services.len() == 1 && !reached.delivered);
            reached.add(self.ask_each(&services, publish, chain, origin));
            origin.requester = requester;
        }
        reached.add(self.answer(account, publish, chain, origin.publisher));
        reached
    }

    /// Passes on what is published to a reply that leads into another account, if it does.
    pub(super) fn answer(
        &mut self,
        account: u16,
        publish: &Publish<'_>,
        chain: &mut Vec<Arc<ServiceImport>>,
        publisher: Option<(u32, u64)>,
    ) -> Reached {
        let Some(codes) = ReplyCodes::read(publish.subject) else { return Reached::default() };
        if codes.worker == self.responses.code() {
            let responder = publisher.filter(|_| codes.is_measured);
            let responder = responder.map(|(conn, _)| self.client_info(conn, true));
            return self.answer_here(account, codes.key, publish, chain, publisher, responder);
        }
        let worker = codes.worker();
        if worker == usize::from(self.worker) || worker >= self.workers {
            return Reached::default();
        }
        // That worker has to say who has answered, and does not know.
        let responder = publisher.filter(|_| codes.is_measured);
        let responder = responder.map(|(conn, _)| client_info::json(&self.client_info(conn, true)));
        let responder = responder.as_deref().map(str::as_bytes);
        let outgoing = &mut self.outgoing[worker];
        outgoing.current.push_message(account, publish, responder, true, To::Answer, None);
        self.crowded |= outgoing.rotate();
        Reached { delivered: true, congested_on: None }
    }

    /// Passes on an answer that another worker has taken.
    pub(super) fn handle_answer(&mut self, message: &Message<'_>) {
        let Some(codes) = ReplyCodes::read(message.subject) else { return };
        if codes.worker != self.responses.code() {
            return;
        }
        let others = &self.outgoing[..self.workers];
        if others.iter().any(|outgoing| outgoing.full.len() >= ANSWER_BATCHES_MAX) {
            self.dropped_answers += 1;
            return;
        }
        let responder = message.shown.and_then(|responder| serde_json::from_slice(responder).ok());
        let publish = message.publish();
        self.answer_here(message.account, codes.key, &publish, &mut Vec::new(), None, responder);
    }

    fn answer_here(
        &mut self,
        account: u16,
        key: u64,
        publish: &Publish<'_>,
        chain: &mut Vec<Arc<ServiceImport>>,
        publisher: Option<(u32, u64)>,
        responder: Option<ClientInfo>,
    ) -> Reached {
        let now_ms = self.local.now_ms;
        let Some(response) = self.responses.get_mut(key) else { return Reached::default() };
        if response.account != account || response.deadline_ms <= now_ms || chain.len() >= CHAIN_MAX {
            return Reached::default();
        }
        let (to_account, service) = (response.to_account, response.service.clone());
        if chain.iter().any(|earlier| earlier.is_same_service(&service)) {
            return Reached::default();
        }
        let to = response.reply.to_vec();
        if let Some(measurement) = response.measurement.take() {
            self.tell_latency(&service, &measurement, Status::Answered, responder.as_ref());
        }
        let to = self.mapped_in(to_account, to);
        // An answer may ask in its turn.
        let mut next = None;
        let reply = publish.reply.map(|reply| {
            let new = self.expect(to_account, account, reply, publish.subject, service.clone(), None);
            next = Some(new);
            self.responses.reply(new)
        });
        let is_empty = publish.payload.content().is_empty();
        let answer = Publish { reply: reply.as_deref(), ..publish.with_subject(&to) };
        let is_last = service.terms.response == ResponseType::Singleton || is_empty;
        let threshold_ms = service.terms.threshold_ms;
        chain.push(service);
        let mut origin = Origin { publisher, ..Origin::default() };
        let reached = self.route(to_account, &answer, None, true, chain, &mut origin);
        chain.pop();
        if let Some(next) = next
            && !reached.delivered
        {
            self.responses.remove(next);
        }
        if is_last || !reached.delivered {
            self.responses.remove(key);
        } else if let Some(response) = self.responses.get_mut(key) {
            response.deadline_ms = now_ms + threshold_ms;
        }
        reached
    }

    /// What a request that nobody has got after all was published to, and its reply, where `reply` is one of this worker's.
    /// It is not waited for any more.
    pub(super) fn take_unanswered(&mut self, reply: &[u8]) -> Option<Unanswered> {
        let mut found = None;
        let mut reply: Box<[u8]> = reply.into();
        while let Some(codes) = ReplyCodes::read(&reply)
            && codes.worker == self.responses.code()
            && let Some(response) = self.responses.remove(codes.key)
        {
            self.tell_unanswered(&response, Status::NobodyThere);
            reply = response.reply.clone();
            found = Some(Unanswered { subject: response.subject, reply: response.reply });
        }
        found
    }

    /// Forgets the responses whose time is over.
    pub(super) fn expire_responses(&mut self) {
        for response in self.responses.take_expired(self.local.now_ms) {
            if response.measurement.is_some() {
                let mut matches = Matches::default();
                let interest = &self.accounts[usize::from(response.to_account)].interest;
                interest.read(|interest| interest.collect(&response.reply, &mut matches));
                let is_gone = matches.plain.is_empty() && matches.groups.is_empty();
                let status = if is_gone { Status::RequesterGone } else { Status::TooLate };
                self.tell_unanswered(&response, status);
            }
        }
        if self.dropped_answers > 0 {
            let dropped = std::mem::take(&mut self.dropped_answers);
            let text = format!("{dropped} answers from other accounts were too many and have been dropped");
            self.local.log.push(Level::Warning, text);
        }
    }

    /// When to look for responses whose time is over.
    pub(super) fn next_response_ms(&self) -> Option<u64> {
        self.responses.look_ms()
    }

    /// After a reload: forgets the responses to what is not imported any more.
    pub(super) fn review_responses(&mut self) {
        let accounts = self.settings.directory.accounts();
        self.responses.retain(|response| {
            let importer = response.service.importer;
            usize::from(importer) < accounts.slots()
                && accounts.get(importer).services.contains(&response.service)
        });
    }

    /// What the header of a request says.
    fn request_info(
        &self,
        service: &ServiceImport,
        earlier: Option<&Arc<ServiceImport>>,
        origin: &Origin,
    ) -> ClientInfo {
        let accounts = self.settings.directory.accounts();
        let shares = earlier.map_or(service.shares, |earlier| earlier.shares);
        let is_system = accounts.get(service.exporter).is_system;
        let mut info = match (&origin.info, earlier) {
            (Some(info), Some(_)) => {
                let mut info = info.clone();
                info.svc.clone_from(&accounts.get(service.importer).name);
                info
            }
            _ => { origin.publisher }.map(|(conn, _)| self.client_info(conn, shares)).unwrap_or_default(),
        };
        if !shares && (is_system || earlier.is_some() && service.shares) {
            info.server.clone_from(&self.info.server_name);
        }
        info
    }
}

impl Reached {
    pub fn add(&mut self, other: Reached) {
        self.delivered |= other.delivered;
        self.congested_on = other.congested_on.or(self.congested_on);
    }
}

/// Makes the services that accounts import entries of their indexes; both are in the order of slots.
pub fn install_services<A: InterestAccess>(accounts: &Accounts, interests: &[A]) {
    for (slot, interest) in interests.iter().enumerate().take(accounts.slots()) {
        let wanted = &accounts.get(slot as u16).services;
        interest.write(|interest| interest.set_services(wanted));
    }
}
