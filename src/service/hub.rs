//! What all connections share: the retention machine, the store, the clock, and whom to wake.
//!
//! Everything runs on one thread, so each call into the machine is one undivided step; no borrow is held across a wait.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{ALT_SVC, DATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode, request};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::limits::SERVICE_STORE_RETRY_MS;
use crate::random::Random;
use crate::time::{Duration, Instant, UnixTime};
use crate::webpush::headers::{Urgency, http_date};
use crate::webpush::vapid::ApplicationServerKey;

use super::ExpireError;
use super::clock::Clock;
use super::gate::{Claim, Client, Gate, Rules};
use super::guesses::Guesses;
use super::identification::{Identifier, Presented};
use super::retention::{
    ConnectionId, DeliveryId, Input, Kind, MonitorId, Output, Record, Reply, Request, Retention, Room,
};
use super::routes::{self, PushSupport, Route};
use super::store::{NotStored, Permit, Store};
use super::token::Token;

/// Why the content of a request is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// More than a message may have.
    TooLarge,
    /// Not within the time a request has.
    TooSlow,
    /// The client broke off; nobody waits for an answer.
    Broken,
}

pub(super) struct Hub {
    retention: RefCell<Retention>,
    random: RefCell<Box<dyn Random>>,
    clock: Rc<Clock>,
    store: Store,
    gate: Gate,
    guesses: RefCell<Guesses>,
    identifier: RefCell<Identifier>,
    wakes: RefCell<BTreeMap<ConnectionId, Rc<Notify>>>,
    /// Wakes the timer task when there is something earlier to do.
    earlier: Notify,
    timer_at: Cell<Option<Instant>>,
    /// Whether the disk refused something, and was not seen to take anything since.
    refused: Cell<bool>,
    next_connection: Cell<u64>,
    date: RefCell<(UnixTime, HeaderValue)>,
    /// What responses say of where else the service listens.
    alternative: Option<HeaderValue>,
}

impl Hub {
    pub(super) fn new(
        retention: Retention,
        random: Box<dyn Random>,
        clock: Rc<Clock>,
        store: Store,
        gate: Gate,
        identifier: Identifier,
        alternative: Option<HeaderValue>,
    ) -> Self {
        Self {
            retention: RefCell::new(retention),
            random: RefCell::new(random),
            clock,
            store,
            gate,
            guesses: RefCell::default(),
            identifier: RefCell::new(identifier),
            wakes: RefCell::default(),
            earlier: Notify::new(),
            timer_at: Cell::new(None),
            refused: Cell::new(false),
            next_connection: Cell::new(0),
            date: RefCell::new((UnixTime(0), HeaderValue::from_static(""))),
            alternative,
        }
    }

    /// A new connection, and what wakes it when it has something to do.
    pub(super) fn connect(&self) -> (ConnectionId, Rc<Notify>) {
        self.next_connection.set(self.next_connection.get() + 1);
        let (id, wake) = (ConnectionId(self.next_connection.get()), Rc::new(Notify::new()));
        self.wakes.borrow_mut().insert(id, Rc::clone(&wake));
        (id, wake)
    }

    /// A connection is gone.
    pub(super) fn disconnect(&self, connection: ConnectionId) {
        self.wakes.borrow_mut().remove(&connection);
        self.input(Input::ConnectionClosed(connection));
    }

    pub(super) fn rules(&self) -> &Rules {
        self.gate.rules()
    }

    /// Decides what to do with a request of a client; the claim is kept when it was answered with success.
    pub(super) fn route(&self, head: &request::Parts, push: PushSupport, client: &Client) -> (Route, Claim) {
        self.gate.route(head, push, client, |token| self.kind(token))
    }

    /// Waits before an answer to a request for what is not there, if its peer made very many of them.
    pub(super) async fn slow_down(&self, response: &Response<Bytes>, peer: IpAddr) {
        if response.status() == StatusCode::NOT_FOUND {
            let wait = self.guesses.borrow_mut().wrong(peer, self.clock.now().instant);
            sleep(wait).await;
        }
    }

    fn kind(&self, token: Token) -> Option<Kind> {
        self.retention.borrow().kind(token)
    }

    pub(super) fn input(&self, input: Input) {
        self.retention.borrow_mut().handle_input(input, self.clock.now(), &mut **self.random.borrow_mut());
        self.settle();
    }

    /// Opens a monitoring request; nothing of it is stored.
    pub(super) fn monitor(&self, resource: Token, monitor: MonitorId, wait_s: Option<u64>, urgency: Urgency) -> Reply {
        let reply = self.apply(Request::Monitor { resource, monitor, wait_s, urgency });
        self.settle();
        reply
    }

    pub(super) fn poll_output(&self, connection: ConnectionId, room: Room) -> Option<Output> {
        let output = self.retention.borrow_mut().poll_output(connection, room, self.clock.now());
        self.settle();
        output
    }

    pub(super) fn is_live(&self, delivery: DeliveryId) -> bool {
        self.retention.borrow().is_live(delivery, self.clock.now())
    }

    /// Carries out any route but [`Route::Monitor`]; `read` yields the content if it is wanted.
    ///
    /// None if the client broke off.
    pub(super) async fn perform(
        self: &Rc<Self>,
        route: Route,
        read: impl Future<Output = Result<Bytes, BodyError>>,
    ) -> Option<Response<Bytes>> {
        let request = match route {
            Route::Answer(response) => return Some(response),
            Route::Subscribe { set, has_options: false } => Request::Subscribe { set, restricted: None },
            Route::Subscribe { set, has_options: true } => match read.await {
                Ok(body) => match ApplicationServerKey::from_options(&body) {
                    Ok(restricted) => Request::Subscribe { set, restricted },
                    Err(invalid) => return Some(routes::invalid_options(invalid)),
                },
                Err(error) => return unread(error, routes::options_too_large),
            },
            Route::Send { mut posted, sender } => {
                if let Some(refused) = self.refused(posted.push, sender.as_ref()) {
                    return Some(refused);
                }
                match read.await {
                    Ok(body) => posted.content.body = body,
                    Err(error) => return unread(error, || routes::too_large(self.rules().message_bytes_max)),
                }
                if sender.is_some_and(|sender| routes::has_same_key(&sender, &posted.content)) {
                    return Some(routes::same_key());
                }
                Request::Send(posted)
            }
            Route::Read { message } => Request::Read { message },
            Route::Remove { resource } => Request::Remove { resource },
            Route::Monitor { .. } => return None,
        };
        match self.request(request).await {
            Ok(Reply::Subscribed { subscription, push, .. }) if !self.rules().offer_sets => {
                Some(routes::subscribed(subscription, push, None))
            }
            Ok(reply) => routes::answer(reply),
            Err(NotStored) => Some(routes::not_stored()),
        }
    }

    /// The answer to a message if it is not taken from its sender.
    fn refused(&self, push: Token, sender: Option<&Presented>) -> Option<Response<Bytes>> {
        let (retention, now) = (self.retention.borrow(), self.clock.now());
        let admitted = self.identifier.borrow_mut().admit(sender, retention.restriction(push), now);
        admitted.err().map(|refusal| routes::refused(refusal, now))
    }

    /// Lets the machine fulfil a request, and waits until what it says is on the disk.
    async fn request(self: &Rc<Self>, request: Request) -> Result<Reply, NotStored> {
        if matches!(request, Request::Read { .. }) {
            return Ok(self.apply(request));
        }
        let permit = self.store.permit().await?;
        // Only now: the disk may have refused while this waited for its turn.
        if self.store.refuses() {
            return Err(NotStored);
        }
        let reply = self.apply(request);
        let (records, numbers) = self.take_records();
        self.settle();
        if records.is_empty() {
            return Ok(reply);
        }
        let made = made(&reply, &records);
        self.write(permit, (records, numbers), made).await.map(|()| reply)
    }

    /// Stores records and tells the machine of the outcome, which it learns also if whoever asked for this is gone by then:
    /// what was `made` is there only if it is stored.
    fn write(
        self: &Rc<Self>,
        permit: Permit,
        (records, numbers): (Vec<Record>, Range<u64>),
        made: Vec<Token>,
    ) -> impl Future<Output = Result<(), NotStored>> {
        let (hub, written) = (Rc::clone(self), permit.write(records));
        let told = spawn_local(async move {
            let outcome = written.await;
            hub.refused.set(outcome.is_err());
            match outcome {
                Ok(()) => hub.input(Input::Stored(numbers)),
                Err(NotStored) => {
                    made.into_iter().for_each(|resource| hub.input(Input::NotStored(resource)));
                    hub.earlier.notify_one();
                }
            }
            outcome
        });
        async { told.await.unwrap_or(Err(NotStored)) }
    }

    /// Ends a resource as if it had expired, and waits until that is on the disk.
    pub(super) async fn expire(self: &Rc<Self>, path: &str) -> Result<(), ExpireError> {
        let permit = self.store.permit().await.map_err(|NotStored| ExpireError::NotStored)?;
        let token = Token::from_path(path).ok_or(ExpireError::Unknown)?;
        match self.kind(token) {
            None => return Err(ExpireError::Unknown),
            Some(Kind::Push) => return Err(ExpireError::IsPush),
            Some(_) => {}
        }
        self.retention.borrow_mut().handle_input(
            Input::Expire(token),
            self.clock.now(),
            &mut **self.random.borrow_mut(),
        );
        let (records, numbers) = self.take_records();
        self.settle();
        self.write(permit, (records, numbers), vec![]).await.map_err(|NotStored| ExpireError::NotStored)
    }

    fn apply(&self, request: Request) -> Reply {
        let now = self.clock.now();
        self.retention.borrow_mut().handle_request(request, now, &mut **self.random.borrow_mut())
    }

    /// What is to be stored, and the numbers of these records.
    fn take_records(&self) -> (Vec<Record>, Range<u64>) {
        let mut retention = self.retention.borrow_mut();
        let first = retention.next_record();
        let records = std::iter::from_fn(|| retention.poll_record()).collect();
        (records, first..retention.next_record())
    }

    /// Passes on what the last step changed: whom to wake, and when the timer is due.
    fn settle(&self) {
        let mut retention = self.retention.borrow_mut();
        let wakes = self.wakes.borrow();
        while let Some(connection) = retention.poll_wake() {
            if let Some(wake) = wakes.get(&connection) {
                wake.notify_one();
            }
        }
        let (due, set) = (retention.poll_timeout(), self.timer_at.get());
        let is_earlier = due.is_some_and(|due| set.is_none_or(|set| due < set));
        if is_earlier || retention.has_records() {
            self.earlier.notify_one();
        }
    }

    /// Ends what is due, for ever. Also stores records that no request waits for.
    ///
    /// After the disk refused it writes until the disk takes something: what ended in the meantime is stored then as well.
    pub(super) async fn run_timers(self: &Rc<Self>) {
        loop {
            let due = self.retention.borrow().poll_timeout();
            self.timer_at.set(due);
            tokio::select! {
                () = self.clock.wait_until(due) => {}
                () = self.earlier.notified() => {}
                () = sleep(Duration::from_millis(SERVICE_STORE_RETRY_MS)), if self.refused.get() => {}
            }
            let Ok(permit) = self.store.permit().await else { return };
            self.retention.borrow_mut().handle_timeout(self.clock.now());
            let (records, numbers) = self.take_records();
            self.settle();
            if records.is_empty() && !self.refused.get() {
                continue;
            }
            // Of an error the store has told; it writes what is owed as soon as it can.
            self.write(permit, (records, numbers), vec![]).await.ok();
        }
    }

    /// Adds the fields of every response to a request.
    pub(super) fn sign(&self, headers: &mut HeaderMap) {
        headers.insert(DATE, self.date());
        if let Some(alternative) = &self.alternative {
            headers.insert(ALT_SVC, alternative.clone());
        }
    }

    /// The value of `Date` now, formatted once a second.
    pub(super) fn date(&self) -> HeaderValue {
        let now = self.clock.now().wall;
        let mut date = self.date.borrow_mut();
        if date.0 != now {
            *date = (now, HeaderValue::from_str(&http_date(now)).expect("dates are visible ASCII"));
        }
        date.1.clone()
    }
}

/// The answer to a request whose content is not there.
fn unread(error: BodyError, too_large: impl FnOnce() -> Response<Bytes>) -> Option<Response<Bytes>> {
    match error {
        BodyError::TooLarge => Some(too_large()),
        BodyError::TooSlow => Some(routes::too_slow()),
        BodyError::Broken => None,
    }
}

/// The resources that were made for a reply.
fn made(reply: &Reply, records: &[Record]) -> Vec<Token> {
    let named = match reply {
        Reply::Subscribed { subscription, .. } => Some(*subscription),
        Reply::Accepted { message, .. } => Some(*message),
        // What was removed is only asked for again after a restart.
        _ => None,
    };
    let receipts = records.iter().filter_map(|record| match record {
        Record::Receipts { token, .. } => Some(*token),
        _ => None,
    });
    named.into_iter().chain(receipts).collect()
}

#[cfg(test)]
mod tests;
