//! The one HTTP/2 connection to the push service: performs outputs, reports inputs, decides nothing.
//!
//! Each request, each monitor and each body is a task; all report through one bounded channel, and everything of an
//! earlier connection is dropped there. A monitor is never cancelled on a connection that is kept: a promise that
//! crosses the reset would end the whole connection.

mod http2;
mod push;
mod request;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{PushPromise, SendRequest};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

pub use self::http2::{Http2, Session};
use crate::limits::{CLOSE_WAIT_MS_MAX, UPSTREAM_EVENT_COUNT};
use crate::proto::{Input, Output, PromiseId};
use crate::transport::preconnection::{EstablishmentError, Preconnection};
use crate::transport::stack::tcp_tls::WallClock;
use crate::webpush::exchange::{Dialect, Pushed, Target};
use crate::webpush::resource::PushServiceUri;

/// The connection to one push service.
pub struct Upstream {
    preconnection: Rc<Preconnection<Http2>>,
    service: PushServiceUri,
    dialect: Dialect,
    clock: WallClock,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    /// Number of the connection, so that reports of an earlier one are known as such.
    generation: u64,
    requests: Option<SendRequest<Bytes>>,
    /// Monitors and bodies.
    tasks: JoinSet<()>,
    /// Requests with one answer.
    requesting: JoinSet<()>,
    /// What drives the connection, or makes one.
    driver: JoinSet<()>,
    heard: Rc<Cell<Instant>>,
    promises: BTreeMap<PromiseId, PushPromise>,
    next_promise: u64,
    remote: Option<SocketAddr>,
    last_error: Option<String>,
}

/// What a task reports.
struct Event {
    generation: u64,
    report: Report,
}

enum Report {
    Connected(Session, SocketAddr),
    Failed(EstablishmentError),
    Closed(String),
    Promised(Target, PushPromise),
    Input(Input),
}

/// How a task of one connection reports.
#[derive(Clone)]
struct Reporter {
    generation: u64,
    sender: mpsc::Sender<Event>,
    /// When the service was last heard.
    heard: Rc<Cell<Instant>>,
}

/// What a task needs to send requests.
#[derive(Clone)]
struct Context {
    reporter: Reporter,
    requests: SendRequest<Bytes>,
    dialect: Dialect,
    clock: WallClock,
}

impl Reporter {
    async fn report(&self, report: Report) {
        // The receiver outlives every task: they are aborted with it.
        if self.sender.send(Event { generation: self.generation, report }).await.is_err() {
            debug!("a report came after the end");
        }
    }

    /// Reports something that the service sent.
    async fn heard(&self, report: Report) {
        self.heard.set(now());
        self.report(report).await;
    }
}

#[allow(clippy::disallowed_methods)] // the shell is where the clock is read
fn now() -> Instant {
    Instant::now()
}

impl Upstream {
    /// An unconnected upstream.
    pub fn new(preconnection: Preconnection<Http2>, service: PushServiceUri, clock: WallClock) -> Self {
        let (sender, events) = mpsc::channel(UPSTREAM_EVENT_COUNT);
        Self {
            preconnection: Rc::new(preconnection),
            service,
            dialect: Dialect::Rfc8030,
            clock,
            events,
            sender,
            generation: 0,
            requests: None,
            tasks: JoinSet::new(),
            requesting: JoinSet::new(),
            driver: JoinSet::new(),
            heard: Rc::new(Cell::new(now())),
            promises: BTreeMap::new(),
            next_promise: 0,
            remote: None,
            last_error: None,
        }
    }

    /// The push service.
    pub fn service(&self) -> &PushServiceUri {
        &self.service
    }

    /// The address of the service, while connected.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.remote
    }

    /// Why the last connection failed or ended.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Waits for what happens next.
    ///
    /// Cancel safety: nothing is lost, a report is taken and turned into an input in one step.
    pub async fn next(&mut self) -> Input {
        loop {
            let event = self.events.recv().await.expect("this holds a sender itself");
            if event.generation != self.generation {
                continue;
            }
            if let Some(input) = self.take(event.report) {
                return input;
            }
        }
    }

    fn take(&mut self, report: Report) -> Option<Input> {
        match report {
            Report::Connected(session, remote) => {
                info!(%remote, "connected to the push service");
                let streams_max = session.requests.current_max_send_streams();
                if streams_max < 2 {
                    warn!("the push service allows {streams_max} requests at once: none is left to acknowledge with");
                }
                self.adopt(session, remote);
                Some(Input::ConnectionReady { verified_at: self.clock.now(), streams_max })
            }
            Report::Failed(error) => {
                warn!("no connection to the push service: {error}");
                self.last_error = Some(error.to_string());
                self.drop_connection();
                Some(Input::ConnectionClosed)
            }
            Report::Closed(reason) => {
                warn!("the connection to the push service ended: {reason}");
                self.last_error = Some(reason);
                self.drop_connection();
                Some(Input::ConnectionClosed)
            }
            Report::Promised(target, promise) => self.promised(target, promise),
            Report::Input(input) => Some(input),
        }
    }

    /// Parks a promise until the gateway has decided; one that is not of our origin is reset at once.
    fn promised(&mut self, target: Target, promise: PushPromise) -> Option<Input> {
        match self.dialect.classify(&self.service, promise.request()) {
            Pushed::Message { message, send } => {
                let id = PromiseId(self.next_promise);
                self.next_promise += 1;
                self.promises.insert(id, promise);
                Some(Input::Promised { promise: id, target, message, send })
            }
            Pushed::Unwanted(reason) => {
                warn!("a promise was reset: {reason}");
                None
            }
        }
    }

    /// Does what the gateway decided, as far as it concerns the push service.
    pub fn perform(&mut self, output: Output) {
        for tasks in [&mut self.tasks, &mut self.requesting, &mut self.driver] {
            while tasks.try_join_next().is_some() {}
        }
        match output {
            Output::Connect => self.connect(),
            Output::Refuse { promise } => drop(self.promises.remove(&promise)),
            Output::Admit { promise, slot, unrouted } => {
                if let (Some(promise), Some(context)) = (self.promises.remove(&promise), self.context()) {
                    self.tasks.spawn_local(push::receive(context, promise, slot, unrouted));
                }
            }
            Output::Monitor { monitor, target } => {
                let request = self.dialect.monitor_request(&target, None);
                let ended = move |next| Input::MonitorEnded { monitor, next };
                self.spawn(|context| push::monitor(context, request, target, ended));
            }
            Output::Fetch { subscription, read } => {
                let target = Target::Subscription(read.clone());
                let request = self.dialect.monitor_request(&target, Some(0));
                let ended = move |next| Input::FetchEnded { subscription, read, next };
                self.spawn(|context| push::monitor(context, request, target, ended));
            }
            Output::Acknowledge { message } => {
                let request = self.dialect.acknowledge_request(&message);
                let answer = move |outcome| Input::Acknowledged { message, outcome };
                self.spawn_request(|context| request::delete(context, request, answer));
            }
            Output::Unsubscribe { subscription, read } => {
                let request = self.dialect.unsubscribe_request(&read);
                let answer = move |outcome| Input::Unsubscribed { subscription, outcome };
                self.spawn_request(|context| request::delete(context, request, answer));
            }
            Output::Subscribe { subscription, set } => {
                let service = self.service.clone();
                self.spawn_request(|context| request::subscribe(context, service, set, subscription));
            }
            Output::Decode { .. } | Output::Deliver { .. } | Output::Reply { .. } | Output::Persist { .. } => {
                debug_assert!(false, "not an output for the push service");
            }
        }
    }

    fn spawn<F: Future<Output = ()> + 'static>(&mut self, task: impl FnOnce(Context) -> F) {
        // Without a connection the gateway hears of its end anyway, and asks again on the next one.
        if let Some(context) = self.context() {
            self.tasks.spawn_local(task(context));
        }
    }

    fn spawn_request<F: Future<Output = ()> + 'static>(&mut self, task: impl FnOnce(Context) -> F) {
        if let Some(context) = self.context() {
            self.requesting.spawn_local(task(context));
        }
    }

    fn reporter(&self) -> Reporter {
        Reporter { generation: self.generation, sender: self.sender.clone(), heard: Rc::clone(&self.heard) }
    }

    fn context(&self) -> Option<Context> {
        let requests = self.requests.clone()?;
        Some(Context { reporter: self.reporter(), requests, dialect: self.dialect, clock: self.clock.clone() })
    }

    fn connect(&mut self) {
        self.drop_connection();
        let (reporter, preconnection) = (self.reporter(), Rc::clone(&self.preconnection));
        self.driver.spawn_local(async move {
            let report = match preconnection.initiate().await {
                Ok((session, remote)) => Report::Connected(session, remote),
                Err(error) => Report::Failed(error),
            };
            reporter.report(report).await;
        });
    }

    fn adopt(&mut self, session: Session, remote: SocketAddr) {
        let Session { requests, connection, ping } = session;
        self.requests = Some(requests);
        self.remote = Some(remote);
        self.last_error = None;
        self.heard.set(now());
        self.driver.spawn_local(http2::drive(self.reporter(), connection));
        self.tasks.spawn_local(http2::keep_alive(self.reporter(), ping));
    }

    /// Lets go of a connection with everything on it.
    fn drop_connection(&mut self) {
        self.generation += 1;
        self.requests = None;
        self.remote = None;
        self.promises.clear();
        self.tasks.abort_all();
        self.requesting.abort_all();
        self.driver.abort_all();
    }

    /// Ends the connection in order: nothing new, requests under way are answered, GOAWAY, close.
    pub async fn close(mut self) {
        self.promises.clear();
        self.requests = None;
        self.tasks.abort_all();
        let ended = async {
            while self.tasks.join_next().await.is_some() {}
            while self.requesting.join_next().await.is_some() {}
            // Without a handle of any stream the driver says GOAWAY and ends.
            while self.driver.join_next().await.is_some() {}
        };
        if timeout(Duration::from_millis(CLOSE_WAIT_MS_MAX), ended).await.is_err() {
            debug!("the connection to the push service did not end in order");
        }
    }
}
