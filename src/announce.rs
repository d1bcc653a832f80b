//! Tells an application server where to post to the devices: by HTTPS, or in files of one folder.
//!
//! A capability leaves the gateway only over a connection whose server was verified, or into a file that nobody but its
//! owner may read. What was told and what is due is known elsewhere; here one announcement is made and its outcome reported.
//!
//! Source: RFC 8030 §4, §8.3 (the push resource is told confidentially to whom it is for); RFC 8291 §2.1.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use h2::client::Builder;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant as TokioInstant, timeout_at};
use tracing::{info, warn};

use crate::limits::{ANNOUNCE_HEAD_BYTES_MAX, ANNOUNCE_WAIT_MS_MAX, HEADER_LIST_BYTES_MAX};
use crate::proto::announcement::Outcome;
use crate::transport::credential::Credential;
use crate::transport::endpoint::RemoteEndpoint;
use crate::transport::preconnection::Preconnection;
use crate::transport::stack::tcp_tls::{TcpTls, WallClock};
use crate::transport::{Application, HandshakeError, describe};
use crate::webpush::headers::retry_after;

/// Where announcements go.
pub enum Target {
    /// To an application server.
    Post {
        /// Its resource; only `https`.
        url: Uri,
        /// How it is connected to, and verified.
        stack: TcpTls,
        /// What it wants to see.
        credential: Option<Credential>,
    },
    /// Into one file for each device.
    Folder(PathBuf),
}

/// Makes announcements, one at a time.
pub struct Announcer {
    target: Target,
    clock: WallClock,
    reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    tasks: JoinSet<()>,
    last_error: Option<String>,
}

impl Target {
    /// What tells it from others: an announcement at another one is another announcement.
    pub fn name(&self) -> String {
        match self {
            Self::Post { url, .. } => url.to_string(),
            Self::Folder(folder) => folder.display().to_string(),
        }
    }
}

impl Announcer {
    /// An announcer that has announced nothing.
    pub fn new(target: Target, clock: WallClock) -> Self {
        // One announcement is made at a time.
        let (reporter, reports) = mpsc::channel(1);
        Self { target, clock, reports, reporter, tasks: JoinSet::new(), last_error: None }
    }

    /// Where it announces.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Why the last one of those that were not accepted was not.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Makes an announcement; `all` are the documents of all channels of the device.
    pub fn announce(&mut self, number: u64, device: &str, document: String, all: Vec<String>) {
        while self.tasks.try_join_next().is_some() {}
        let reporter = self.reporter.clone();
        match &self.target {
            Target::Post { url, stack, credential } => {
                let request = request(url, credential.as_ref(), document.len());
                let post = Post { request, content: document.into(), clock: self.clock.clone() };
                let remote = url.authority().and_then(|authority| RemoteEndpoint::of_authority(authority.as_str()));
                let preconnection = remote.map(|remote| Preconnection::new(remote, stack.clone(), Verified));
                self.tasks.spawn_local(async move {
                    let done = match preconnection {
                        Some(preconnection) => post.at(preconnection).await,
                        None => Err(unavailable("the URL has no usable host")),
                    };
                    report(&reporter, number, done).await;
                });
            }
            Target::Folder(folder) => {
                let path = folder.join(format!("{device}.json"));
                self.tasks.spawn_local(async move {
                    // A sync may take seconds on a worn card.
                    let written = spawn_blocking(move || write(&path, &all)).await;
                    let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
                    report(&reporter, number, written.map_err(unavailable)).await;
                });
            }
        }
    }

    /// Waits for the outcome of an announcement.
    ///
    /// Cancel safety: no outcome is lost.
    pub async fn next(&mut self) -> (u64, Outcome) {
        let (number, done) = self.reports.recv().await.expect("this holds a sender itself");
        let Err(NotAccepted { outcome, reason }) = done else {
            info!("an application server was told of a subscription");
            return (number, Outcome::Accepted);
        };
        match outcome {
            Outcome::Rejected => warn!("an announcement is not wanted: {reason}"),
            _ => info!("an announcement was not accepted: {reason}"),
        }
        self.last_error = Some(reason);
        (number, outcome)
    }
}

/// The number of an announcement, and what became of it.
type Report = (u64, Result<(), NotAccepted>);

/// Why an announcement was not accepted.
struct NotAccepted {
    outcome: Outcome,
    reason: String,
}

fn unavailable(reason: impl fmt::Display) -> NotAccepted {
    NotAccepted { outcome: Outcome::Unavailable(None), reason: reason.to_string() }
}

async fn report(reporter: &mpsc::Sender<Report>, number: u64, done: Result<(), NotAccepted>) {
    if reporter.send((number, done)).await.is_err() {
        warn!("an outcome came after the end");
    }
}

fn request(url: &Uri, credential: Option<&Credential>, bytes: usize) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.clone();
    let fields = request.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert(header::CONTENT_LENGTH, bytes.into());
    if let Some(credential) = credential {
        fields.insert(header::AUTHORIZATION, credential.field());
    }
    request
}

/// A connection that is not used before its server is verified, whatever HTTP is spoken on it.
#[derive(Debug)]
struct Verified;

/// The octets of such a connection.
trait Octets: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Octets for S {}

impl Application for Verified {
    type Session = (Box<dyn Octets>, Http);

    async fn establish<S>(&self, stream: S, protocol: Option<&[u8]>) -> Result<Self::Session, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        // A server that selects none speaks what all did before there was a choice.
        let http = if protocol == Some(b"h2") { Http::Two } else { Http::One };
        Ok((Box::new(stream), http))
    }
}

/// The version of HTTP that was negotiated.
enum Http {
    One,
    Two,
}

/// One exchange, which is all that a connection is for.
struct Post {
    request: Request<()>,
    content: Bytes,
    clock: WallClock,
}

impl Post {
    /// Connects and does the exchange, once: an answer that is lost is no reason to try another address.
    async fn at(&self, preconnection: Preconnection<Verified>) -> Result<(), NotAccepted> {
        let end = TokioInstant::now() + Duration::from_millis(ANNOUNCE_WAIT_MS_MAX);
        let connected = timeout_at(end, preconnection.initiate()).await;
        let connected = connected.map_err(|_| unavailable("no connection in time"))?;
        let ((stream, http), _) = connected.map_err(unavailable)?;
        let exchange = async {
            match http {
                Http::Two => self.by_http_2(stream).await,
                Http::One => self.by_http_1(stream).await,
            }
        };
        let answer = timeout_at(end, exchange).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let (status, headers) = answer.map_err(|reason| NotAccepted { outcome: Outcome::Failed(None), reason })?;
        let asked = || retry_after(&headers, self.clock.now());
        let outcome = match status {
            200..=299 => return Ok(()),
            // What is said of the server or of this gateway holds for the next one as well (RFC 6585 §4, RFC 9110 §15.6.4).
            429 | 503 => Outcome::Unavailable(asked()),
            408 | 425 | 500.. => Outcome::Failed(asked()),
            // A redirect would take a capability to somebody who was not named.
            _ => Outcome::Rejected,
        };
        Err(NotAccepted { outcome, reason: format!("the answer was {status}") })
    }

    async fn by_http_2(&self, stream: impl Octets) -> Result<(u16, HeaderMap), String> {
        let failed = |error: h2::Error| format!("HTTP/2 failed: {}", describe(&error));
        let mut builder = Builder::new();
        builder.enable_push(false).max_header_list_size(HEADER_LIST_BYTES_MAX);
        let (requests, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(failed)?;
        let exchange = async move {
            let (response, mut content) = requests.ready().await?.send_request(self.request.clone(), false)?;
            content.send_data(self.content.clone(), true)?;
            let (head, _) = response.await?.into_parts();
            Ok((head.status.as_u16(), head.headers))
        };
        tokio::pin!(connection, exchange);
        tokio::select! {
            answer = &mut exchange => answer.map_err(failed),
            ended = &mut connection => {
                ended.map_err(failed)?;
                exchange.await.map_err(failed)
            }
        }
    }

    /// Source: RFC 9112 §3, §6.3, §9.6 (one exchange, then the connection closes).
    async fn by_http_1(&self, mut stream: impl Octets) -> Result<(u16, HeaderMap), String> {
        let failed = |error: io::Error| format!("HTTP/1.1 failed: {error}");
        let octets = [self.head().as_slice(), &self.content].concat();
        stream.write_all(&octets).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        let mut answer = Vec::new();
        let mut piece = [0; 1_024];
        loop {
            match head(&answer)? {
                // What comes before the answer says nothing yet.
                Some((100..=199, _, end)) => {
                    answer.drain(..end);
                    continue;
                }
                Some((status, headers, _)) => return Ok((status, headers)),
                None if answer.len() > ANNOUNCE_HEAD_BYTES_MAX => {
                    return Err("HTTP/1.1 failed: the answer has too many fields".to_owned());
                }
                None => {}
            }
            match stream.read(&mut piece).await.map_err(failed)? {
                0 => return Err("HTTP/1.1 failed: closed before the answer".to_owned()),
                bytes => answer.extend_from_slice(&piece[..bytes]),
            }
        }
    }

    fn head(&self) -> Vec<u8> {
        let uri = self.request.uri();
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let mut head = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n").into_bytes();
        for (name, value) in self.request.headers() {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

/// Reads the head of an answer: status, fields, and where it ends; none while it is not whole.
fn head(octets: &[u8]) -> Result<Option<(u16, HeaderMap, usize)>, String> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let end = match response.parse(octets) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("HTTP/1.1 failed: {error}")),
    };
    let mut headers = HeaderMap::new();
    for field in response.headers.iter() {
        if let (Ok(name), Ok(value)) = (field.name.parse::<HeaderName>(), HeaderValue::from_bytes(field.value)) {
            headers.append(name, value);
        }
    }
    Ok(Some((response.code.unwrap_or_default(), headers, end)))
}

/// Writes the documents of a device as one JSON array, whole or not at all; without any the file goes.
fn write(path: &Path, documents: &[String]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    if documents.is_empty() {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => File::open(folder)?.sync_all(),
        };
    }
    let temporary = path.with_extension("json.new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nobody else may read it, from its first moment on.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(format!("[{}]\n", documents.join(",")).as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

/// What a task of one announcement is, for those who only pass it on.
impl fmt::Debug for Announcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Announcer(..)")
    }
}

/// Waits for an outcome; for ever where nothing is announced.
pub async fn next(announcer: &mut Option<Announcer>) -> (u64, Outcome) {
    match announcer {
        Some(announcer) => announcer.next().await,
        None => std::future::pending().await,
    }
}
