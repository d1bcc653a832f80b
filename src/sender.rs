//! The application server's side: encrypts messages and posts them over HTTP/2.
//!
//! One [`Sender`] speaks to one push service on one connection, made when it is needed and made anew when it ended.

pub mod signer;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, timeout};

use crate::limits::{HEADER_LIST_BYTES_MAX, REQUEST_WAIT_MS_MAX};
use crate::random::{Random, SystemRandom};
use crate::transport::clock::WallClock;
use crate::transport::endpoint::RemoteEndpoint;
use crate::transport::preconnection::{EstablishmentError, Preconnection};
use crate::transport::properties::{SecurityParameters, Trust};
use crate::transport::stack::tcp_tls::TcpTls;
use crate::transport::trust::TrustError;
use crate::transport::{Application, HandshakeError, describe};
use crate::webpush::ece::{self, EncodeError};
use crate::webpush::exchange::{Accepted, Dialect, PostError};
use crate::webpush::headers::{Ttl, Urgency};
use crate::webpush::resource::PushMessageUri;
use crate::webpush::subscription::PushSubscription;
use signer::Signer;

/// Sends to the subscriptions of one push service.
pub struct Sender {
    preconnection: Preconnection<Client>,
    authority: String,
    /// Plaintexts are padded to a multiple of it.
    class_bytes: usize,
    urgency: Urgency,
    signer: Option<Signer>,
    connection: Option<Session>,
    clock: WallClock,
    random: Box<dyn Random>,
}

/// A message that the service accepted.
#[derive(Clone, Debug)]
pub struct Sent {
    /// What the service said.
    pub accepted: Accepted,
    /// When the last octet of the request was handed to the connection.
    pub posted_at: Instant,
}

/// Why a message was not sent, or not accepted.
#[derive(Debug)]
pub enum SendError {
    /// The trust anchors cannot be used.
    Trust(TrustError),
    /// The endpoint of the subscription is not on this sender's push service.
    OtherService,
    /// It cannot be encrypted.
    Encode(EncodeError),
    /// No connection.
    Establishment(EstablishmentError),
    /// The connection ended before the answer: the message may have been accepted.
    Connection(h2::Error),
    /// No answer in time: the message may have been accepted.
    Timeout,
    /// The service did not accept it.
    Refused(PostError),
}

impl Sender {
    /// A sender for the push service of a subscription; nothing is opened yet.
    ///
    /// # Errors
    /// [`SendError::Trust`] when the trust anchors cannot be used.
    pub fn new(subscription: &PushSubscription, trust: Trust) -> Result<Self, SendError> {
        Self::with_revocations(subscription, trust, None)
    }

    /// The same, with a file of certificates that are not to be trusted any more.
    ///
    /// # Errors
    /// [`SendError::Trust`] when trust anchors or lists cannot be used.
    pub fn with_revocations(
        subscription: &PushSubscription,
        trust: Trust,
        revocations: Option<PathBuf>,
    ) -> Result<Self, SendError> {
        let authority = subscription.endpoint.authority().to_owned();
        let remote = RemoteEndpoint::of_authority(&authority).expect("an endpoint has a host");
        let clock = WallClock::default();
        let security = SecurityParameters { trust, revocations, protocols: vec!["h2"] };
        let stack = TcpTls::new(&security, clock.clone()).map_err(SendError::Trust)?;
        let preconnection = Preconnection::new(remote, stack, Client);
        let random = Box::new(SystemRandom::default());
        Ok(Self {
            preconnection,
            authority,
            class_bytes: 0,
            urgency: Urgency::default(),
            signer: None,
            connection: None,
            clock,
            random,
        })
    }

    /// Pads the messages to come to a multiple of some octets, so that their lengths say less.
    pub fn pad_to(&mut self, class_bytes: usize) {
        self.class_bytes = class_bytes;
    }

    /// Says of the messages to come how much they matter.
    pub fn set_urgency(&mut self, urgency: Urgency) {
        self.urgency = urgency;
    }

    /// Says with the messages to come who sends them.
    pub fn identify_by(&mut self, signer: Signer) {
        self.signer = Some(signer);
    }

    /// Encrypts a message and posts it. A failure is the end of this attempt; nothing is repeated.
    ///
    /// # Errors
    /// [`SendError`] says whether the message may have been accepted all the same.
    pub async fn send(
        &mut self,
        subscription: &PushSubscription,
        plaintext: &[u8],
        ttl: Ttl,
    ) -> Result<Sent, SendError> {
        if subscription.endpoint.authority() != self.authority {
            return Err(SendError::OtherService);
        }
        let padding = ece::padding(plaintext.len(), self.class_bytes);
        let body = ece::encode(&subscription.public, &subscription.auth, plaintext, padding, &mut *self.random)
            .map_err(SendError::Encode)?;
        let mut request = Dialect::Rfc8030.post_request(&subscription.endpoint, ttl, self.urgency, body.len());
        if let Some(signer) = &mut self.signer {
            request.headers_mut().insert(AUTHORIZATION, signer.field(&self.authority, self.clock.now()));
        }
        let (status, headers, posted_at) = self.exchange(request, body.into()).await?;
        let accepted = Dialect::Rfc8030.parse_accepted(&subscription.endpoint, status, &headers, self.clock.now());
        Ok(Sent { accepted: accepted.map_err(SendError::Refused)?, posted_at })
    }

    /// Whether the service still holds a message.
    ///
    /// # Errors
    /// No answer.
    pub async fn holds(&mut self, message: &PushMessageUri) -> Result<bool, SendError> {
        let mut request = Request::new(());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = message.uri();
        Ok(self.exchange(request, Bytes::new()).await?.0 != 404)
    }

    async fn exchange(&mut self, request: Request<()>, body: Bytes) -> Result<(u16, HeaderMap, Instant), SendError> {
        let mut requests = self.requests().await?;
        let answer = async {
            let (response, mut stream) = requests.send_request(request, body.is_empty())?;
            if !body.is_empty() {
                stream.send_data(body, true)?;
            }
            let posted_at = Instant::now();
            let (head, _) = response.await?.into_parts();
            Ok((head.status.as_u16(), head.headers, posted_at))
        };
        match timeout(Duration::from_millis(REQUEST_WAIT_MS_MAX), answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.connection = None;
                Err(SendError::Connection(error))
            }
            Err(_) => {
                self.connection = None;
                Err(SendError::Timeout)
            }
        }
    }

    /// A connection that can carry a request: the one there is, or a new one.
    async fn requests(&mut self) -> Result<SendRequest<Bytes>, SendError> {
        if let Some(session) = &self.connection
            && let Ok(ready) = session.requests.clone().ready().await
        {
            return Ok(ready);
        }
        let (session, _) = self.preconnection.initiate().await.map_err(SendError::Establishment)?;
        let requests = session.requests.clone();
        self.connection = Some(session);
        requests.ready().await.map_err(SendError::Connection)
    }
}

/// HTTP/2 without server push: nothing is received here but answers.
#[derive(Debug)]
struct Client;

struct Session {
    requests: SendRequest<Bytes>,
    driver: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Application for Client {
    type Session = Session;

    async fn establish<S>(&self, stream: S, _: Option<&[u8]>) -> Result<Session, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let mut builder = Builder::new();
        builder.enable_push(false).max_header_list_size(HEADER_LIST_BYTES_MAX);
        let failed = |error: h2::Error| HandshakeError(format!("HTTP/2 failed: {}", describe(&error)));
        let (requests, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(failed)?;
        // How the connection ends is seen by the requests on it.
        let driver: JoinHandle<Result<(), h2::Error>> = tokio::task::spawn_local(connection);
        Ok(Session { requests, driver: driver.abort_handle() })
    }
}

impl SendError {
    /// Whether the push service could not be verified.
    pub fn is_untrusted(&self) -> bool {
        use crate::transport::preconnection::CandidateError;
        use crate::transport::stack::tcp_tls::StackError;
        let Self::Establishment(EstablishmentError::Candidate(_, CandidateError::Stack(error))) = self else {
            return false;
        };
        matches!(error, StackError::Tls(_))
    }

    /// Whether the file of revocation lists is what is wrong.
    pub fn is_of_revocations(&self) -> bool {
        matches!(self, Self::Trust(error) if error.is_of_revocations())
    }

    /// Whether the same message may be accepted later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Trust(_) | Self::OtherService | Self::Encode(_) => false,
            Self::Establishment(_) | Self::Connection(_) | Self::Timeout => true,
            Self::Refused(error) => match error {
                PostError::Busy(_) => true,
                PostError::Gone | PostError::TooLarge | PostError::NoLocation | PostError::Status(_) => false,
            },
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trust(error) => error.fmt(f),
            Self::OtherService => f.write_str("the endpoint is on another push service"),
            Self::Encode(error) => error.fmt(f),
            Self::Establishment(error) => error.fmt(f),
            Self::Connection(error) => write!(f, "the connection ended before the answer: {}", describe(error)),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SendError {}
