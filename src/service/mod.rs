//! The push service: subscriptions, messages kept until their time is over, and server push to whoever monitors.
//!
//! [`retention`] decides what is kept and pushed, [`routes`] decides what requests mean and how they are answered; both
//! are pure. The rest carries it out: one task a connection, one for the timers, one thread for the disk.
//!
//! ```text
//!  TCP, TLS -- ALPN h2 --------> session --+                 +--> retention (memory, timers)
//!              ALPN http/1.1 --> http1 ----+-- routes, hub --+
//!                                                            +--> store (disk, group commit)
//! ```
//!
//! A push or subscription URI never appears in a log line; whoever knows one may use it.
//!
//! Source: RFC 8030, RFC 8292 (who may send), RFC 9113 §8.4 (server push), RFC 9325 (TLS).

pub mod alternative;
pub mod certificate;
pub mod clock;
pub mod gate;
pub mod guesses;
mod http1;
mod hub;
pub mod identification;
mod listener;
mod parcel;
mod resumption;
pub mod retention;
pub mod routes;
mod session;
pub mod store;
pub mod token;
mod wire;

use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::limits::{SERVICE_CERTIFICATE_LOOK_S, SERVICE_CONNECTION_COUNT_MAX, SERVICE_STOP_MS_MAX};
use crate::random::SystemRandom;
use crate::telemetry;
use crate::time::Duration;
use crate::transport::credential::{Credential, CredentialError};

use alternative::Alternative;
use certificate::{Authority, CertificateError, CurrentCertificate};
use clock::Clock;
use gate::{Gate, Rules};
use hub::Hub;
use identification::Identifier;
use listener::Listener;
use resumption::Sessions;
use retention::{Input, Policy, Retention};
use routes::SUBSCRIBE_PATH;
use store::{Closed, OpenError, Store};

/// Default port of the service, as for https (RFC 8030 §3).
pub const PORT: u16 = 443;

/// The store in the state folder.
const STORE_FILE: &str = "service.redb";

/// How to run a push service.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// Address and port to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where it listens as well, and tells clients so.
    pub alternative: Option<Alternative>,
    /// Folder of the service's state, created if needed.
    pub state: PathBuf,
    /// Host name under which user agents and application servers reach it; the address listened on if there is none.
    pub name: Option<String>,
    /// What it allows.
    pub policy: Policy,
    /// What it asks of requests.
    pub rules: Rules,
    /// The file with the bearer token without which nobody subscribes; none: everybody may.
    pub subscribe_token_file: Option<PathBuf>,
    /// Connections served at once; more wait in the queue of the operating system.
    pub connection_count_max: usize,
}

impl ServiceOptions {
    /// A service on `listen` with its state in `state`.
    pub fn new(listen: SocketAddr, state: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            alternative: None,
            state: state.into(),
            name: None,
            policy: Policy::default(),
            rules: Rules::default(),
            subscribe_token_file: None,
            connection_count_max: SERVICE_CONNECTION_COUNT_MAX,
        }
    }
}

/// Why a service does not start. Each says what to do.
#[derive(Debug)]
pub enum StartError {
    /// The state folder cannot be made or used.
    Folder(PathBuf, io::Error),
    /// The folder is there, holds something else, and others may enter it.
    Exposed(PathBuf),
    /// The store in the state folder cannot be opened.
    Store(PathBuf, OpenError),
    /// There is no certificate.
    Certificate(CertificateError),
    /// The token for subscribing cannot be used.
    Token(CredentialError),
    /// The address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// The other address cannot be listened on.
    ListenAlternative(SocketAddr, io::Error),
}

/// A way to start a push service.
#[derive(Debug)]
pub struct Service;

impl Service {
    /// Starts a push service on tasks of the current local task set or runtime, ready when this returns.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(options: ServiceOptions) -> Result<Running, StartError> {
        let clock = Rc::new(Clock::default());
        let folder = open_folder(&options.state)?;
        let given: Vec<String> = options.name.iter().cloned().collect();
        let names = certificate::names(&given, options.listen.ip());
        let identifier = Identifier::new(names.clone());
        let authority = Authority::open(&folder, names, clock.now().wall).map_err(StartError::Certificate)?;
        let certificate = CurrentCertificate::new(&authority, clock.now().wall).map_err(StartError::Certificate)?;

        let token = options.subscribe_token_file.as_deref().map(Credential::read);
        let gate = Gate::new(options.rules, token.transpose().map_err(StartError::Token)?);

        let listen_failed = |error| StartError::Listen(options.listen, error);
        let listener = TcpListener::bind(options.listen).await.map_err(listen_failed)?;
        let address = listener.local_addr().map_err(listen_failed)?;

        let other = match options.alternative {
            Some(alternative) => Some(listen_as_well(alternative, address.ip()).await?),
            None => None,
        };

        let (retention, store, closed) = open_store(&folder.join(STORE_FILE), &options.policy, &clock)?;
        let alternative = other.as_ref().map(|other| other.address);
        let announced = options.alternative.zip(alternative).map(|(other, listening)| other.field(listening));
        let random = Box::new(SystemRandom::default());
        let hub = Rc::new(Hub::new(retention, random, Rc::clone(&clock), store, gate, identifier, announced));

        let (stop, stopping) = watch::channel(false);
        let sessions = Arc::new(Sessions::default());
        let config = Arc::new(certificate::server_config(Arc::clone(&certificate), Arc::clone(&sessions)));
        let listeners = std::iter::once(listener).chain(other.map(|other| other.listener)).collect();
        let listener = Listener::new(listeners, config, Rc::clone(&hub), stopping, options.connection_count_max);
        let host = options.name.unwrap_or_else(|| host(address.ip()));
        let url = format!("https://{host}{}{SUBSCRIBE_PATH}", port(address.port()));
        let ca_file = authority.ca_file().to_owned();
        tracing::info!(%address, "push service listens");
        if let Some(address) = alternative {
            tracing::info!(%address, "push service listens here as well");
        }

        let (mut serving, mut helpers) = (JoinSet::new(), JoinSet::new());
        serving.spawn_local(listener.run());
        helpers.spawn_local(run_timers(Rc::clone(&hub)));
        helpers.spawn_local(renew(authority, certificate, sessions, Rc::clone(&clock)));
        let closed = Some(closed);
        Ok(Running { url, address, alternative, ca_file, clock, hub, stop, serving, helpers, closed })
    }
}

/// Opens the store, and with what it holds the machine. A damaged one is set aside, for a person to look at, and a new one
/// begun: half of it is never served, and gateways subscribe again by themselves.
fn open_store(path: &Path, policy: &Policy, clock: &Clock) -> Result<(Retention, Store, Closed), StartError> {
    let failed = |error| StartError::Store(path.to_owned(), error);
    match try_open(path, policy, clock) {
        Err(OpenError::Damaged(what)) => {
            let aside = path.with_extension("redb.damaged");
            if aside.exists() {
                return Err(failed(OpenError::Damaged(what)));
            }
            std::fs::rename(path, &aside).map_err(|error| failed(OpenError::Io(error)))?;
            tracing::error!(
                what,
                aside = %aside.display(),
                "the store was damaged and is set aside; all subscriptions and messages are lost, gateways subscribe again"
            );
            try_open(path, policy, clock).map_err(failed)
        }
        opened => opened.map_err(failed),
    }
}

fn try_open(path: &Path, policy: &Policy, clock: &Clock) -> Result<(Retention, Store, Closed), OpenError> {
    let mut retention = Retention::new(policy.clone());
    let _doing = telemetry::doing(format!(
        "opening {}; if it happens each time the file is damaged: move it aside and start again",
        path.display()
    ));
    let (store, closed) = Store::open(path, |record| retention.restore(record, clock.now()))?;
    Ok((retention, store, closed))
}

/// A push service that runs. Dropping it stops it at once; [`stop`](Self::stop) lets monitors end first.
pub struct Running {
    /// The push service resource, where subscriptions are made.
    pub url: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it listens as well.
    pub alternative: Option<SocketAddr>,
    /// The certificate that clients have to trust.
    pub ca_file: PathBuf,
    /// The service's clock.
    pub clock: Rc<Clock>,
    hub: Rc<Hub>,
    stop: watch::Sender<bool>,
    serving: JoinSet<()>,
    helpers: JoinSet<()>,
    /// None once it was seen.
    closed: Option<Closed>,
}

impl Running {
    /// What an operator may do to it.
    pub fn operator(&self) -> Operator {
        Operator(Rc::clone(&self.hub))
    }

    /// Waits until the store has ended, which it does by itself only in a panic: nothing is accepted any more, and the
    /// service should be dropped and started again.
    ///
    /// Cancel safety: it may be called again.
    pub async fn failed(&mut self) {
        if let Some(closed) = &mut self.closed {
            // A thread that is gone says the same by dropping its end.
            closed.await.unwrap_or(());
            self.closed = None;
        }
    }

    /// Ends every monitoring request with 200, then every connection, and closes the store.
    ///
    /// Units: takes at most [`SERVICE_STOP_MS_MAX`], and what the disk needs for the last commit.
    pub async fn stop(self) {
        let Self { hub, stop, mut serving, mut helpers, closed, .. } = self;
        hub.input(Input::Stop);
        stop.send_replace(true);
        let patience = Duration::from_millis(SERVICE_STOP_MS_MAX);
        if timeout(patience, serving.join_next()).await.is_err() {
            serving.shutdown().await;
        }
        helpers.shutdown().await;
        drop(hub);
        // The store is closed when the last holder is gone, and its thread has written what it was given.
        if let Some(closed) = closed
            && timeout(patience, closed).await.is_err()
        {
            tracing::warn!("the store of the push service is still writing");
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("url", &self.url).field("ca_file", &self.ca_file).finish_non_exhaustive()
    }
}

/// What an operator may do to a running service. It keeps the store open.
pub struct Operator(Rc<Hub>);

impl Operator {
    /// Ends the subscription, set, receipt subscription or message of a path, as if it had expired (RFC 8030 §7.3).
    ///
    /// # Errors
    /// [`ExpireError`]; only in the last case it may have ended all the same.
    pub async fn expire(&self, path: &str) -> Result<(), ExpireError> {
        self.0.expire(path).await
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Operator(..)")
    }
}

/// Why a resource was not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpireError {
    /// There is none, or none any more.
    Unknown,
    /// It is a push resource, which ends with its subscription.
    IsPush,
    /// The disk refuses.
    NotStored,
}

impl fmt::Display for ExpireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the push service has no such resource; it may have ended before",
            Self::IsPush => "this is a push resource, which ends with its subscription; name that one, or its set",
            Self::NotStored => "it may be back after a restart, for the disk refuses; free room on it and ask again",
        })
    }
}

impl std::error::Error for ExpireError {}

/// A second place that listens.
struct Other {
    listener: TcpListener,
    address: SocketAddr,
}

async fn listen_as_well(alternative: Alternative, service: IpAddr) -> Result<Other, StartError> {
    let address = alternative.address(service);
    let failed = |error| StartError::ListenAlternative(address, error);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Other { listener, address })
}

async fn run_timers(hub: Rc<Hub>) {
    hub.run_timers().await;
}

/// Replaces the certificate after two thirds of its life, for ever, and wipes old sessions. It looks at the wall clock
/// often: a board's may jump after the start, and then a certificate may long be out of date.
async fn renew(authority: Authority, certificate: Arc<CurrentCertificate>, sessions: Arc<Sessions>, clock: Rc<Clock>) {
    let mut issued = clock.now().wall;
    loop {
        tokio::time::sleep(Duration::from_secs(SERVICE_CERTIFICATE_LOOK_S)).await;
        sessions.forget_old();
        let now = clock.now().wall;
        if now >= issued && now.0 - issued.0 < Authority::renewal().as_secs() {
            continue;
        }
        match authority.issue(now) {
            Ok(key) => {
                issued = now;
                certificate.replace(key);
                tracing::info!("certificate of the push service renewed");
            }
            Err(error) => tracing::error!(?error, "certificate of the push service cannot be renewed"),
        }
    }
}

/// Makes the state folder if needed, for its owner alone, and returns its absolute path. One that others may enter is
/// closed only if it is empty or was the service's before: any other may be the system's.
fn open_folder(path: &Path) -> Result<PathBuf, StartError> {
    let failed = |error| StartError::Folder(path.to_owned(), error);
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        let is_ours = path.join(STORE_FILE).exists() || std::fs::read_dir(path).map_err(failed)?.next().is_none();
        if !is_ours {
            return Err(StartError::Exposed(path.to_owned()));
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    std::fs::canonicalize(path).map_err(failed)
}

fn host(address: IpAddr) -> String {
    match address {
        address if address.is_unspecified() => "localhost".to_owned(),
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn port(port: u16) -> String {
    if port == PORT { String::new() } else { format!(":{port}") }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path, error) => {
                write!(f, "state folder {}: {error}; choose another with --state or make it writable", path.display())
            }
            Self::Exposed(path) => write!(
                f,
                "state folder {} holds other things and others may enter it; choose another with --state, or run: \
                 chmod 700 {0}",
                path.display()
            ),
            Self::Store(path, OpenError::InUse) => {
                write!(f, "{}: another service uses it; stop that one or give --state another folder", path.display())
            }
            Self::Store(path, OpenError::Version(version)) => write!(
                f,
                "{}: its format has version {version}, this program knows 2; use the program that wrote it",
                path.display()
            ),
            Self::Store(path, OpenError::Damaged(what)) => write!(
                f,
                "{}: damaged ({what}), and an earlier one is set aside beside it already; restore one from a backup, or move \
                 both away to start without subscriptions",
                path.display()
            ),
            Self::Store(path, OpenError::Io(error)) => {
                write!(f, "{}: {error}; check the disk, the room on it, and the owner of the file", path.display())
            }
            Self::Certificate(CertificateError::Io(path, error)) => {
                write!(f, "{}: {error}; check the disk and the owner of the file", path.display())
            }
            Self::Certificate(CertificateError::Damaged(path)) => write!(
                f,
                "{}: damaged or too weak; restore it from a backup, or move it away with ca.pem to found a new \
                 authority, which every gateway and sender must then be given",
                path.display()
            ),
            Self::Certificate(CertificateError::Name(names)) => {
                write!(f, "no certificate can be issued for {names}; give --name a host name in ASCII")
            }
            Self::Certificate(CertificateError::ClockUnset) => {
                f.write_str("the clock is not set; set it, for certificates are valid from a date")
            }
            Self::Token(error) => write!(f, "subscribe_token_file: {error}"),
            Self::Listen(address, error) => {
                write!(f, "cannot listen on {address}: {error}; choose another address or port with --listen")
            }
            Self::ListenAlternative(address, error) => {
                write!(f, "cannot listen on {address}: {error}; choose another address or port with --alternative")
            }
        }
    }
}

impl std::error::Error for StartError {}
