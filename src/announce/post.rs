//! One announcement over HTTP: a connection to a verified server, a request, the head of its answer.
//!
//! No octet of it leaves before the server is verified; redirects are not followed, and nothing of the answer is kept but
//! its status and the wish how long to wait.
//!
//! Source: RFC 9110 §9.3.3; RFC 9112 §9.6; RFC 9113 §8.1.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use h2::client::Builder;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant as TokioInstant, timeout_at};

use super::{NotAccepted, unavailable};
use crate::limits::{ANNOUNCE_FIELD_COUNT_MAX, ANNOUNCE_HEAD_BYTES_MAX, ANNOUNCE_WAIT_MS_MAX, HEADER_LIST_BYTES_MAX};
use crate::proto::announcement::Outcome;
use crate::transport::clock::WallClock;
use crate::transport::credential::Credential;
use crate::transport::preconnection::Preconnection;
use crate::transport::{Application, HandshakeError, describe};
use crate::webpush::headers::retry_after;

/// A connection that is not used before its server is verified, whatever HTTP is spoken on it.
#[derive(Debug)]
pub(super) struct Verified;

/// The octets of such a connection.
pub(super) trait Octets: AsyncRead + AsyncWrite + Unpin {}

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
pub(super) enum Http {
    One,
    Two,
}

/// One exchange, which is all that a connection is for.
pub(super) struct Post {
    request: Request<()>,
    content: Bytes,
    clock: WallClock,
}

impl Post {
    /// What is said to a server.
    pub fn new(url: &Uri, credential: Option<&Credential>, document: String, clock: WallClock) -> Self {
        Self { request: request(url, credential, document.len()), content: document.into(), clock }
    }

    /// Connects and does the exchange, once: an answer that is lost is no reason to try another address.
    pub async fn at(&self, preconnection: Preconnection<Verified>) -> Result<(), NotAccepted> {
        let end = TokioInstant::now() + Duration::from_millis(ANNOUNCE_WAIT_MS_MAX);
        let connected = timeout_at(end, preconnection.initiate()).await;
        let connected = connected.map_err(|_| unavailable("no connection in time"))?;
        let ((stream, http), _) = connected.map_err(unavailable)?;
        self.over(stream, http, end).await
    }

    async fn over(&self, stream: impl Octets, http: Http, end: TokioInstant) -> Result<(), NotAccepted> {
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
    let mut fields = [httparse::EMPTY_HEADER; ANNOUNCE_FIELD_COUNT_MAX];
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex};

    /// What comes before the answer is skipped, also when the answer follows in the same segment and the connection stays.
    #[tokio::test(start_paused = true)]
    async fn an_answer_behind_another_one_is_found() {
        let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 204 Stored\r\n\r\n";
        let (_server, outcome) = answered(&[answer], false).await;
        assert_eq!(outcome, Ok(()));
        let (_server, outcome) = answered(&[&answer[..40], &answer[40..41], &answer[41..]], false).await;
        assert_eq!(outcome, Ok(()));
    }

    /// An answer may take its time, up to the deadline; then this one has failed, and others may be told.
    #[tokio::test(start_paused = true)]
    async fn an_answer_has_until_the_deadline() {
        for http in [Http::One, Http::Two] {
            let (client, _server) = duplex(65_536);
            let end = TokioInstant::now() + Duration::from_millis(ANNOUNCE_WAIT_MS_MAX);
            let failed = post().over(client, http, end).await.expect_err("no answer");
            assert_eq!((failed.outcome, failed.reason.as_str()), (Outcome::Failed(None), "no answer in time"));
            assert_eq!(TokioInstant::now(), end);
        }
        let (client, mut server) = duplex(65_536);
        let end = TokioInstant::now() + Duration::from_millis(ANNOUNCE_WAIT_MS_MAX);
        let late = async {
            tokio::time::sleep_until(end - Duration::from_millis(1)).await;
            server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("written");
        };
        let post = post();
        let (done, ()) = tokio::join!(post.over(client, Http::One, end), late);
        assert!(done.is_ok());
    }

    /// What an answer means, and how long it asks to wait.
    #[tokio::test(start_paused = true)]
    async fn each_answer_has_its_meaning() {
        let wait = Some(Duration::from_secs(120));
        let expected = [
            (429, Outcome::Unavailable(wait)),
            (503, Outcome::Unavailable(wait)),
            (408, Outcome::Failed(wait)),
            (425, Outcome::Failed(wait)),
            (500, Outcome::Failed(wait)),
            (502, Outcome::Failed(wait)),
            (301, Outcome::Rejected),
            (308, Outcome::Rejected),
            (400, Outcome::Rejected),
            (404, Outcome::Rejected),
        ];
        for (status, outcome) in expected {
            let answer =
                format!("HTTP/1.1 {status} No\r\nRetry-After: 120\r\nLocation: https://other.example/\r\n\r\n");
            let (_server, answered) = answered(&[answer.as_bytes()], true).await;
            assert_eq!(answered, Err((outcome, format!("the answer was {status}"))));
        }
    }

    /// A head is read up to a bound, of octets and of fields; what is no HTTP, or ends too soon, is no answer.
    #[tokio::test(start_paused = true)]
    async fn what_is_no_answer_fails() {
        let head = |bytes: usize| format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "a".repeat(bytes - 24)).into_bytes();
        let fields = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: a\r\n".repeat(count)).into_bytes();
        assert_eq!(answered(&[&head(ANNOUNCE_HEAD_BYTES_MAX)], true).await.1, Ok(()));
        assert_eq!(answered(&[&fields(ANNOUNCE_FIELD_COUNT_MAX)], true).await.1, Ok(()));
        let endless = vec![b'a'; 4 * ANNOUNCE_HEAD_BYTES_MAX];
        let endless = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &endless].concat();
        for (answer, told) in [
            (endless, "too many fields"),
            (fields(ANNOUNCE_FIELD_COUNT_MAX + 1), "too many headers"),
            (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "invalid HTTP version"),
            (b"HTTP/1.1 200 OK\r\nA: a\r\n".to_vec(), "closed before the answer"),
        ] {
            let failed = answered(&[&answer], true).await.1.expect_err(told);
            assert!(failed.0 == Outcome::Failed(None) && failed.1.contains(told), "{failed:?}");
        }
    }

    fn post() -> Post {
        let url = "https://app.example/devices".parse().expect("a URL");
        Post::new(&url, None, "{}".to_owned(), WallClock::default())
    }

    /// What becomes of an announcement that a server answers so, in pieces; and the server, if it stays.
    async fn answered(pieces: &[&[u8]], closes: bool) -> (Option<DuplexStream>, Result<(), (Outcome, String)>) {
        let (client, mut server) = duplex(65_536);
        let end = TokioInstant::now() + Duration::from_millis(ANNOUNCE_WAIT_MS_MAX);
        let answering = async {
            for piece in pieces {
                server.write_all(piece).await.expect("written");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            (!closes).then_some(server)
        };
        let post = post();
        let (done, server) = tokio::join!(post.over(client, Http::One, end), answering);
        (server, done.map_err(|NotAccepted { outcome, reason }| (outcome, reason)))
    }
}
