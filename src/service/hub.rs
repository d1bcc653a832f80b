//! What all connections share: the retention machine, the store, the clock, and whom to wake.
//!
//! Everything runs on one thread, so each call into the machine is one undivided step; no borrow is held across a wait.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{ALT_SVC, DATE};
use http::{HeaderMap, HeaderValue, Response};
use tokio::sync::Notify;

use crate::random::Random;
use crate::time::{Instant, UnixTime};
use crate::webpush::headers::{Urgency, http_date};
use crate::webpush::vapid::ApplicationServerKey;

use super::clock::Clock;
use super::identification::{Identifier, Presented};
use super::retention::{
    ConnectionId, DeliveryId, Input, Kind, MonitorId, Output, Record, Reply, Request, Retention, Room,
};
use super::routes::{self, Route};
use super::store::{NotStored, Store};
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
    identifier: RefCell<Identifier>,
    wakes: RefCell<BTreeMap<ConnectionId, Rc<Notify>>>,
    /// Wakes the timer task when there is something earlier to do.
    earlier: Notify,
    timer_at: Cell<Option<Instant>>,
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
        identifier: Identifier,
        alternative: Option<HeaderValue>,
    ) -> Self {
        Self {
            retention: RefCell::new(retention),
            random: RefCell::new(random),
            clock,
            store,
            identifier: RefCell::new(identifier),
            wakes: RefCell::default(),
            earlier: Notify::new(),
            timer_at: Cell::new(None),
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

    pub(super) fn kind(&self, token: Token) -> Option<Kind> {
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
        &self,
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
            Route::Send { push, ttl, urgency, mut content, sender } => {
                if let Some(refused) = self.refused(push, sender.as_ref()) {
                    return Some(refused);
                }
                match read.await {
                    Ok(body) => content.body = body,
                    Err(error) => return unread(error, routes::too_large),
                }
                if sender.is_some_and(|sender| routes::has_same_key(&sender, &content)) {
                    return Some(routes::same_key());
                }
                Request::Send { push, ttl, urgency, content }
            }
            Route::Read { message } => Request::Read { message },
            Route::Remove { resource } => Request::Remove { resource },
            Route::Monitor { .. } => return None,
        };
        match self.request(request).await {
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
    async fn request(&self, request: Request) -> Result<Reply, NotStored> {
        if matches!(request, Request::Read { .. }) {
            return Ok(self.apply(request));
        }
        let permit = self.store.permit().await?;
        // Only now: the disk may have refused while this waited for its turn.
        if self.store.refuses() {
            return Err(NotStored);
        }
        let reply = self.apply(request);
        let records = self.take_records();
        self.settle();
        if records.is_empty() {
            return Ok(reply);
        }
        match permit.write(records).await {
            Ok(()) => Ok(reply),
            Err(NotStored) => {
                match reply {
                    Reply::Subscribed { subscription, .. } => self.input(Input::NotStored(subscription)),
                    Reply::Accepted { message, .. } => self.input(Input::NotStored(message)),
                    // What was removed here is only asked for again after a restart.
                    _ => {}
                }
                Err(NotStored)
            }
        }
    }

    fn apply(&self, request: Request) -> Reply {
        let now = self.clock.now();
        self.retention.borrow_mut().handle_request(request, now, &mut **self.random.borrow_mut())
    }

    fn take_records(&self) -> Vec<Record> {
        let mut retention = self.retention.borrow_mut();
        std::iter::from_fn(|| retention.poll_record()).collect()
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
    pub(super) async fn run_timers(&self) {
        loop {
            let due = self.retention.borrow().poll_timeout();
            self.timer_at.set(due);
            tokio::select! {
                () = self.clock.wait_until(due) => {}
                () = self.earlier.notified() => {}
            }
            let Ok(permit) = self.store.permit().await else { return };
            self.retention.borrow_mut().handle_timeout(self.clock.now());
            let records = self.take_records();
            self.settle();
            if !records.is_empty() && permit.write(records).await.is_err() {
                // The store has logged it. What could not be ended there ends when it is next opened.
                continue;
            }
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
fn unread(error: BodyError, too_large: fn() -> Response<Bytes>) -> Option<Response<Bytes>> {
    match error {
        BodyError::TooLarge => Some(too_large()),
        BodyError::TooSlow => Some(routes::too_slow()),
        BodyError::Broken => None,
    }
}
