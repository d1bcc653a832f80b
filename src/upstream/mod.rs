//! HTTP/2 connections to the push service, one in the normal case: performs outputs, reports inputs, decides nothing.
//!
//! A connection that is replaced stays until the machine closes it. Each request, each monitor and each body is a task;
//! all report through one bounded channel, with the number of their connection. A monitor is never cancelled on a
//! connection that is kept: a promise that crosses the reset would end the whole connection.

mod date;
mod http2;
mod push;
mod request;
mod route;
mod wire;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{PushPromise, SendRequest};
use http::HeaderValue;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use self::date::Dates;
pub use self::http2::{Http2, Session};
use self::route::Route;
pub use self::wire::Octets;
use self::wire::Sightings;
use crate::limits::{CLOSE_WAIT_MS_MAX, UPSTREAM_EVENT_COUNT};
use crate::proto::connection::{ConnectionId, Trouble};
use crate::proto::upstream::Context;
use crate::proto::{Input, Output, PromiseId};
use crate::transport::clock::WallClock;
use crate::transport::credential::Credential;
use crate::transport::endpoint::RemoteEndpoint;
use crate::transport::preconnection::{CandidateError, EstablishmentError, Peer, Preconnection};
use crate::transport::stack::tcp_tls::{StackError, TcpTls};
use crate::webpush::alt_svc::Alternative;
use crate::webpush::exchange::{Dialect, Pushed, Target};
use crate::webpush::resource::PushServiceUri;

/// A push service of the configuration.
pub struct Service {
    /// Where subscriptions are asked for.
    pub uri: PushServiceUri,
    /// How it is connected to, and verified.
    pub stack: TcpTls,
    /// What it wants to see; no other sees it.
    pub credential: Option<Credential>,
}

/// The connections to push services.
pub struct Upstream {
    services: Vec<Service>,
    /// The stacks of connections that share nothing with others.
    isolated: Vec<(Context, TcpTls)>,
    dialect: Dialect,
    clock: WallClock,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    /// The one in use, one that it replaces, and an attempt at most.
    connections: BTreeMap<ConnectionId, Connection>,
    promises: BTreeMap<PromiseId, (ConnectionId, PushPromise)>,
    next_promise: u64,
    last_error: Option<String>,
    /// Octets of connections that are over.
    octets: Octets,
}

/// A connection, or an attempt at one. Dropped, it ends with everything on it.
struct Connection {
    route: Rc<Route>,
    context: Context,
    requests: Option<SendRequest<Bytes>>,
    /// Monitors and bodies.
    tasks: JoinSet<()>,
    /// Requests with one answer.
    requesting: JoinSet<()>,
    /// What drives the connection, or makes one.
    driver: JoinSet<()>,
    /// Asks for a test.
    ping: Rc<Notify>,
    /// Asks to end in order.
    closing: Rc<Notify>,
    remote: Option<SocketAddr>,
    sightings: Rc<Sightings>,
    dates: Rc<Dates>,
}

/// What a task reports.
struct Event {
    connection: ConnectionId,
    report: Report,
}

enum Report {
    Connected(Session, Peer),
    Failed(EstablishmentError),
    Closed(String),
    GoingAway,
    Promised(Target, PushPromise),
    Input(Input),
}

/// How a task of one connection reports.
#[derive(Clone)]
struct Reporter {
    connection: ConnectionId,
    sender: mpsc::Sender<Event>,
}

/// What a task needs to send requests.
#[derive(Clone)]
struct Requester {
    reporter: Reporter,
    route: Rc<Route>,
    requests: SendRequest<Bytes>,
    dialect: Dialect,
    clock: WallClock,
    dates: Rc<Dates>,
}

impl Reporter {
    async fn report(&self, report: Report) {
        // The receiver outlives every task: they are aborted with it.
        if self.sender.send(Event { connection: self.connection, report }).await.is_err() {
            debug!("a report came after the end");
        }
    }
}

impl Connection {
    fn new(route: Rc<Route>, context: Context) -> Self {
        Self {
            route,
            context,
            requests: None,
            tasks: JoinSet::new(),
            requesting: JoinSet::new(),
            driver: JoinSet::new(),
            ping: Rc::default(),
            closing: Rc::default(),
            remote: None,
            sightings: Rc::default(),
            dates: Rc::default(),
        }
    }

    fn reap(&mut self) {
        for tasks in [&mut self.tasks, &mut self.requesting, &mut self.driver] {
            while tasks.try_join_next().is_some() {}
        }
    }
}

impl Upstream {
    /// An unconnected upstream.
    pub fn new(services: Vec<Service>, clock: WallClock) -> Self {
        let (sender, events) = mpsc::channel(UPSTREAM_EVENT_COUNT);
        Self {
            services,
            isolated: Vec::new(),
            dialect: Dialect::Rfc8030,
            clock,
            events,
            sender,
            connections: BTreeMap::new(),
            promises: BTreeMap::new(),
            next_promise: 0,
            last_error: None,
            octets: Octets::default(),
        }
    }

    /// The addresses of the service that are connected to.
    pub fn remotes(&self) -> impl Iterator<Item = SocketAddr> {
        self.connections.values().filter_map(|connection| connection.remote)
    }

    /// Why the last connection failed or ended.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// What was sent and received since the start, by cause.
    pub fn octets(&self) -> Octets {
        self.connections.values().fold(self.octets, |sum, connection| sum + connection.sightings.octets())
    }

    /// Waits for what happens next.
    ///
    /// Cancel safety: nothing is lost, a report is taken and turned into an input in one step.
    pub async fn next(&mut self) -> Input {
        loop {
            let event = self.events.recv().await.expect("this holds a sender itself");
            // What comes of a connection that was let go of is of no interest.
            if self.connections.contains_key(&event.connection)
                && let Some(input) = self.take(event.connection, event.report)
            {
                return input;
            }
        }
    }

    fn take(&mut self, connection: ConnectionId, report: Report) -> Option<Input> {
        match report {
            Report::Connected(session, peer) => {
                info!(remote = %peer.address, "connected to the push service");
                let streams_max = session.requests.current_max_send_streams();
                if streams_max < 2 {
                    warn!("the push service allows {streams_max} requests at once: none is left to acknowledge with");
                }
                self.adopt(connection, session, peer);
                Some(Input::ConnectionReady { connection, streams_max })
            }
            Report::Failed(error) => {
                let place = self.connections.get(&connection).and_then(|it| it.route.alternative.as_ref());
                let what = if place.is_some() { "an alternative of the push service" } else { "the push service" };
                warn!("no connection to {what}: {error}");
                let trouble = trouble(&error);
                Some(self.ended(connection, error.to_string(), trouble))
            }
            Report::Closed(reason) => {
                info!("a connection to the push service ended: {reason}");
                Some(self.ended(connection, reason, Trouble::Ended))
            }
            Report::GoingAway => {
                info!("the push service lets the connection go; a new one takes its place");
                Some(Input::GoingAway { connection })
            }
            Report::Promised(target, promise) => self.promised(connection, target, promise),
            Report::Input(input) => Some(input),
        }
    }

    fn ended(&mut self, connection: ConnectionId, reason: String, trouble: Trouble) -> Input {
        self.let_go(connection);
        // The end of a connection that was replaced is no trouble.
        if self.remotes().next().is_none() {
            self.last_error = Some(reason);
        }
        Input::ConnectionClosed { connection, trouble }
    }

    /// Parks a promise until the gateway has decided; one that is not of our origin is reset at once.
    fn promised(&mut self, connection: ConnectionId, target: Target, promise: PushPromise) -> Option<Input> {
        let service = &self.connections.get(&connection)?.route.service;
        match self.dialect.classify(service, promise.request()) {
            Pushed::Message { message, send } => {
                let id = PromiseId(self.next_promise);
                self.next_promise += 1;
                self.promises.insert(id, (connection, promise));
                Some(Input::Promised { connection, promise: id, target, message, send })
            }
            Pushed::Unwanted(reason) => {
                warn!("a promise was reset: {reason}");
                None
            }
        }
    }

    /// Does what the gateway decided, as far as it concerns the push service.
    pub fn perform(&mut self, output: Output) {
        self.connections.values_mut().for_each(Connection::reap);
        match output {
            Output::Connect { connection, service, context, alternative } => {
                self.connect(connection, Route::new(service, alternative), context);
            }
            Output::Ping { connection } => self.notify(connection, |it| &it.ping),
            Output::Close { connection } => self.end_in_order(connection),
            Output::Drop { connection } => {
                warn!("the push service no longer answers");
                self.last_error = Some("it no longer answered".to_owned());
                self.let_go(connection);
            }
            Output::Refuse { promise } => drop(self.promises.remove(&promise)),
            Output::Admit { promise, slot, unrouted } => {
                if let Some((connection, promise)) = self.promises.remove(&promise) {
                    self.spawn(connection, |context| push::receive(context, promise, slot, unrouted));
                }
            }
            Output::Monitor { connection, monitor, target, urgency } => {
                let request = self.dialect.monitor_request(&target, None, urgency);
                let ended = move |next| Input::MonitorEnded { connection, monitor, next };
                self.spawn(connection, |context| push::monitor(context, request, target, ended));
            }
            Output::Fetch { connection, subscription, read, urgency } => {
                let target = Target::Subscription(read.clone());
                let request = self.dialect.monitor_request(&target, Some(0), urgency);
                let ended = move |next| Input::FetchEnded { connection, subscription, read, next };
                self.spawn(connection, |context| push::monitor(context, request, target, ended));
            }
            Output::Acknowledge { connection, message } => {
                let request = self.dialect.acknowledge_request(&message);
                let answer = move |outcome| Input::Acknowledged { connection, message, outcome };
                self.spawn_request(connection, |context| request::delete(context, request, answer));
            }
            Output::Unsubscribe { connection, subscription, read } => {
                let request = self.dialect.unsubscribe_request(&read);
                let answer = move |outcome| Input::Unsubscribed { connection, subscription, outcome };
                self.spawn_request(connection, |context| request::delete(context, request, answer));
            }
            Output::UnsubscribeSet { connection, set } => {
                let request = self.dialect.unsubscribe_set_request(&set);
                let answer = move |outcome| Input::SetUnsubscribed { connection, set, outcome };
                self.spawn_request(connection, |context| request::delete(context, request, answer));
            }
            Output::Subscribe { connection, subscription, service, set, restricted_to } => {
                let credential = self.credential(connection, &service);
                let asked = request::Asked { service, set, credential, restricted_to };
                self.spawn_request(connection, |context| request::subscribe(context, asked, subscription));
            }
            Output::Decode { .. }
            | Output::Deliver { .. }
            | Output::Reply { .. }
            | Output::Announce { .. }
            | Output::Persist { .. } => {
                debug_assert!(false, "not an output for the push service");
            }
        }
    }

    fn spawn<F: Future<Output = ()> + 'static>(&mut self, id: ConnectionId, task: impl FnOnce(Requester) -> F) {
        // Without a connection the gateway hears of its end anyway, and asks again on the next one.
        if let Some(context) = self.context(id)
            && let Some(connection) = self.connections.get_mut(&id)
        {
            connection.tasks.spawn_local(task(context));
        }
    }

    fn spawn_request<F: Future<Output = ()> + 'static>(&mut self, id: ConnectionId, task: impl FnOnce(Requester) -> F) {
        if let Some(context) = self.context(id)
            && let Some(connection) = self.connections.get_mut(&id)
        {
            connection.requesting.spawn_local(task(context));
        }
    }

    fn reporter(&self, connection: ConnectionId) -> Reporter {
        Reporter { connection, sender: self.sender.clone() }
    }

    fn context(&self, id: ConnectionId) -> Option<Requester> {
        let connection = self.connections.get(&id)?;
        let (requests, route) = (connection.requests.clone()?, Rc::clone(&connection.route));
        let (reporter, clock) = (self.reporter(id), self.clock.clone());
        Some(Requester { reporter, route, requests, dialect: self.dialect, clock, dates: Rc::clone(&connection.dates) })
    }

    fn notify(&self, id: ConnectionId, which: impl Fn(&Connection) -> &Rc<Notify>) {
        if let Some(connection) = self.connections.get(&id) {
            which(connection).notify_one();
        }
    }

    /// What a service wants to see; nothing for one that its requests were sent on to.
    fn credential(&self, connection: ConnectionId, service: &PushServiceUri) -> Option<HeaderValue> {
        let context = &self.connections.get(&connection)?.context;
        let configured = self.services.get(context.service_index)?;
        let is_its_own = service.authority() == configured.uri.authority();
        configured.credential.as_ref().filter(|_| is_its_own).map(Credential::field)
    }

    /// The stack for a connection; one that is isolated shares no session with others.
    fn stack(&mut self, context: &Context) -> Option<TcpTls> {
        let stack = &self.services.get(context.service_index)?.stack;
        if context.isolated.is_none() {
            return Some(stack.clone());
        }
        if let Some((_, known)) = self.isolated.iter().find(|(of, _)| of == context) {
            return Some(known.clone());
        }
        let isolated = stack.isolated();
        // A device that is gone needs its sessions no more.
        self.isolated.retain(|(of, _)| self.connections.values().any(|connection| connection.context == *of));
        self.isolated.push((context.clone(), isolated.clone()));
        Some(isolated)
    }

    fn connect(&mut self, id: ConnectionId, route: Route, context: Context) {
        let remote = RemoteEndpoint::of_authority(route.service.authority());
        let preconnection = remote.zip(self.stack(&context)).map(|(remote, stack)| {
            let preconnection = Preconnection::new(remote, stack, Http2::new(route.service.clone()));
            match route.alternative.clone() {
                Some(Alternative { host, port }) => preconnection.at(RemoteEndpoint { host, port }),
                None => preconnection,
            }
        });
        let reporter = self.reporter(id);
        let mut connection = Connection::new(Rc::new(route), context);
        connection.driver.spawn_local(async move {
            let report = match preconnection {
                Some(preconnection) => match preconnection.initiate().await {
                    Ok((session, peer)) => Report::Connected(session, peer),
                    Err(error) => Report::Failed(error),
                },
                None => Report::Closed("it has no usable host".to_owned()),
            };
            reporter.report(report).await;
        });
        self.connections.insert(id, connection);
    }

    fn adopt(&mut self, id: ConnectionId, session: Session, peer: Peer) {
        let (reporter, clock) = (self.reporter(id), self.clock.clone());
        self.last_error = None;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Session { requests, connection: driver, ping, sightings } = session;
        (connection.requests, connection.remote) = (Some(requests.clone()), Some(peer.address));
        connection.sightings = Rc::clone(&sightings);
        connection.dates = Rc::new(Dates::of(peer.validity));
        connection.tasks.spawn_local(date::verified(reporter.clone(), Rc::clone(&connection.dates), clock));
        connection.driver.spawn_local(http2::drive(reporter.clone(), driver, Rc::clone(&connection.closing)));
        connection.tasks.spawn_local(http2::test(reporter.clone(), ping, Rc::clone(&connection.ping)));
        connection.tasks.spawn_local(http2::watch(reporter, requests, sightings));
    }

    /// Nothing new on a connection, GOAWAY, close; its end is reported.
    fn end_in_order(&mut self, id: ConnectionId) {
        self.promises.retain(|_, (connection, _)| *connection != id);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.requests = None;
            connection.tasks.abort_all();
            connection.requesting.abort_all();
            connection.closing.notify_one();
        }
    }

    /// Lets go of a connection with everything on it.
    fn let_go(&mut self, id: ConnectionId) {
        self.promises.retain(|_, (connection, _)| *connection != id);
        if let Some(connection) = self.connections.remove(&id) {
            self.octets = self.octets + connection.sightings.octets();
        }
    }

    /// Ends all connections in order: nothing new, requests under way are answered, GOAWAY, close.
    pub async fn close(mut self) {
        self.promises.clear();
        for connection in self.connections.values_mut() {
            connection.requests = None;
            connection.tasks.abort_all();
        }
        let ended = async {
            for connection in self.connections.values_mut() {
                while connection.tasks.join_next().await.is_some() {}
                while connection.requesting.join_next().await.is_some() {}
                // Without a handle of any stream the driver says GOAWAY and ends.
                while connection.driver.join_next().await.is_some() {}
            }
        };
        if timeout(Duration::from_millis(CLOSE_WAIT_MS_MAX), ended).await.is_err() {
            debug!("a connection to the push service did not end in order");
        }
    }
}

/// What a person has to know of a failed attempt.
fn trouble(error: &EstablishmentError) -> Trouble {
    match error {
        // The library gives the resolver's words only; others mean that no resolver was reached.
        EstablishmentError::Resolution(_, error) if error.to_string().contains("not known") => Trouble::Name,
        EstablishmentError::Resolution(..) => Trouble::Network,
        EstablishmentError::NoAddress(_) => Trouble::Name,
        EstablishmentError::Candidate(_, CandidateError::Stack(StackError::Tls(error))) if is_distrust(error) => {
            Trouble::Certificate
        }
        EstablishmentError::Candidate(_, CandidateError::Stack(StackError::Name(_))) => Trouble::Name,
        EstablishmentError::Candidate(_, CandidateError::Stack(StackError::Tcp(_)) | CandidateError::Timeout) => {
            Trouble::Network
        }
        EstablishmentError::Candidate(..) => Trouble::Protocol,
    }
}

fn is_distrust(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::InvalidCertRevocationList(_)))
}
