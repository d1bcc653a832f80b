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
use tokio::time::timeout;
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
    outcomes: mpsc::Receiver<(u64, Result<Outcome, String>)>,
    sender: mpsc::Sender<(u64, Result<Outcome, String>)>,
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
        let (sender, outcomes) = mpsc::channel(1);
        Self { target, clock, outcomes, sender, tasks: JoinSet::new(), last_error: None }
    }

    /// Where it announces.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Why the last announcement was not accepted.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Makes an announcement; `all` are the documents of all channels of the device.
    pub fn announce(&mut self, number: u64, device: &str, document: String, all: Vec<String>) {
        while self.tasks.try_join_next().is_some() {}
        let sender = self.sender.clone();
        match &self.target {
            Target::Post { url, stack, credential } => {
                let (url, clock) = (url.clone(), self.clock.clone());
                let remote = url.authority().and_then(|authority| RemoteEndpoint::of_authority(authority.as_str()));
                let request = request(&url, credential.as_ref(), document.len());
                let post = Post { request, content: document.into(), clock };
                let preconnection = remote.map(|remote| Preconnection::new(remote, stack.clone(), post));
                self.tasks.spawn_local(async move {
                    let outcome = match preconnection {
                        Some(preconnection) => post_in_time(preconnection).await,
                        None => Err("the URL has no usable host".to_owned()),
                    };
                    report(&sender, number, outcome).await;
                });
            }
            Target::Folder(folder) => {
                let path = folder.join(format!("{device}.json"));
                self.tasks.spawn_local(async move {
                    // A sync may take seconds on a worn card.
                    let written = spawn_blocking(move || write(&path, &all)).await;
                    let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
                    report(&sender, number, written.map(|()| Outcome::Accepted).map_err(|error| error.to_string()))
                        .await;
                });
            }
        }
    }

    /// Waits for the outcome of an announcement.
    ///
    /// Cancel safety: no outcome is lost.
    pub async fn next(&mut self) -> (u64, Outcome) {
        let (number, outcome) = self.outcomes.recv().await.expect("this holds a sender itself");
        match outcome {
            Ok(Outcome::Accepted) => {
                info!("an application server was told of a subscription");
                self.last_error = None;
                (number, Outcome::Accepted)
            }
            Ok(refused) => {
                let reason = if refused == Outcome::Rejected { "it was rejected" } else { "not now" };
                warn!("an announcement was not accepted: {reason}");
                self.last_error = Some(reason.to_owned());
                (number, refused)
            }
            Err(error) => {
                warn!("an announcement was not made: {error}");
                self.last_error = Some(error);
                (number, Outcome::Failed(None))
            }
        }
    }
}

async fn report(sender: &mpsc::Sender<(u64, Result<Outcome, String>)>, number: u64, outcome: Result<Outcome, String>) {
    if sender.send((number, outcome)).await.is_err() {
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

async fn post_in_time(preconnection: Preconnection<Post>) -> Result<Outcome, String> {
    let posted = timeout(Duration::from_millis(ANNOUNCE_WAIT_MS_MAX), preconnection.initiate()).await;
    let (outcome, _) = posted.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
    Ok(outcome)
}

/// One exchange, which is all that a connection is for.
struct Post {
    request: Request<()>,
    content: Bytes,
    clock: WallClock,
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Post(..)")
    }
}

impl Application for Post {
    type Session = Outcome;

    async fn establish<S>(&self, stream: S, protocol: Option<&[u8]>) -> Result<Outcome, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (status, headers) = match protocol {
            Some(b"h2") => self.by_http_2(stream).await?,
            // A server that selects none speaks what all did before there was a choice.
            _ => self.by_http_1(stream).await?,
        };
        Ok(match status {
            200..=299 => Outcome::Accepted,
            408 | 425 | 429 | 500.. => Outcome::Failed(retry_after(&headers, self.clock.now())),
            // A redirect would take a capability to somebody who was not named.
            _ => Outcome::Rejected,
        })
    }
}

impl Post {
    async fn by_http_2<S: AsyncRead + AsyncWrite + Unpin + 'static>(
        &self,
        stream: S,
    ) -> Result<(u16, HeaderMap), HandshakeError> {
        let failed = |error: h2::Error| HandshakeError(format!("HTTP/2 failed: {}", describe(&error)));
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
    async fn by_http_1<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: S,
    ) -> Result<(u16, HeaderMap), HandshakeError> {
        let failed = |error: io::Error| HandshakeError(format!("HTTP/1.1 failed: {error}"));
        let octets = [self.head().as_slice(), &self.content].concat();
        stream.write_all(&octets).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        let mut answer = Vec::new();
        let mut piece = [0; 1_024];
        loop {
            let bytes = stream.read(&mut piece).await.map_err(failed)?;
            answer.extend_from_slice(&piece[..bytes]);
            match head(&answer).map_err(HandshakeError)? {
                // What comes before the answer says nothing yet.
                Some((100..=199, _, end)) => drop(answer.drain(..end)),
                Some((status, headers, _)) => return Ok((status, headers)),
                None if bytes == 0 => {
                    return Err(HandshakeError("HTTP/1.1 failed: closed before the answer".to_owned()));
                }
                None if answer.len() > ANNOUNCE_HEAD_BYTES_MAX => {
                    return Err(HandshakeError("HTTP/1.1 failed: the answer has too many fields".to_owned()));
                }
                None => {}
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
