//! An application server that is fast: bodies are encrypted beforehand, and posted over one HTTP/2 connection.

use std::path::Path;

use bytes::Bytes;
use fieldgate::random::SystemRandom;
use fieldgate::transport::clock::WallClock;
use fieldgate::transport::endpoint::RemoteEndpoint;
use fieldgate::transport::preconnection::Preconnection;
use fieldgate::transport::properties::{SecurityParameters, Trust};
use fieldgate::transport::stack::tcp_tls::TcpTls;
use fieldgate::transport::{Application, HandshakeError, describe};
use fieldgate::webpush::ece;
use fieldgate::webpush::exchange::Dialect;
use fieldgate::webpush::headers::{Ttl, Urgency};
use fieldgate::webpush::subscription::PushSubscription;
use h2::client::{Builder, SendRequest};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{JoinHandle, JoinSet};

/// Requests that wait for their answer at once.
const CONCURRENCY: usize = 64;

/// A message for one subscription, encrypted.
#[derive(Clone)]
pub struct Parcel {
    endpoint: fieldgate::webpush::resource::PushUri,
    pub body: Bytes,
}

/// The connection of an application server.
pub struct Poster(SendRequest<Bytes>);

impl Parcel {
    pub fn new(subscription: &PushSubscription, octets: usize) -> Self {
        let plaintext = vec![b'x'; octets];
        let mut random = SystemRandom::default();
        let body = ece::encode(&subscription.public, &subscription.auth, &plaintext, 0, &mut random);
        Self { endpoint: subscription.endpoint.clone(), body: body.expect("it fits").into() }
    }
}

impl Poster {
    pub async fn connect(authority: &str, ca: &Path) -> Self {
        let security =
            SecurityParameters { trust: Trust::File(ca.to_owned()), revocations: None, protocols: vec!["h2"] };
        let stack = TcpTls::new(&security, WallClock::default()).expect("the authority is there");
        let remote = RemoteEndpoint::of_authority(authority).expect("an authority");
        let (requests, _) = Preconnection::new(remote, stack, Client).initiate().await.expect("the service is there");
        Self(requests)
    }

    /// Posts a message; done when it is accepted.
    pub async fn post(&self, parcel: &Parcel, ttl: Ttl) {
        let request = Dialect::Rfc8030.post_request(&parcel.endpoint, ttl, Urgency::Normal, parcel.body.len());
        answered(self.0.clone(), request, parcel.body.clone()).await;
    }

    /// Posts `count` messages as fast as they are accepted, one parcel after the other, round and round.
    pub async fn post_all(&self, parcels: &[Parcel], count: usize) {
        let mut waiting = JoinSet::new();
        for parcel in parcels.iter().cycle().take(count) {
            if waiting.len() == CONCURRENCY {
                waiting.join_next().await.expect("some wait").expect("no task fails");
            }
            let ttl = Ttl::from_secs(3_600);
            let request = Dialect::Rfc8030.post_request(&parcel.endpoint, ttl, Urgency::Normal, parcel.body.len());
            waiting.spawn_local(answered(self.0.clone(), request, parcel.body.clone()));
        }
        while let Some(ended) = waiting.join_next().await {
            ended.expect("no task fails");
        }
    }
}

async fn answered(requests: SendRequest<Bytes>, request: Request<()>, body: Bytes) {
    let mut requests = requests.ready().await.expect("the connection is there");
    let (response, mut stream) = requests.send_request(request, false).expect("the connection is there");
    stream.send_data(body, true).expect("the connection is there");
    let status = response.await.expect("the connection is there").status();
    assert_eq!(status, 201, "the service accepts what the bench sends");
}

struct Client;

impl Application for Client {
    type Session = SendRequest<Bytes>;

    async fn establish<S>(&self, stream: S, _: Option<&[u8]>) -> Result<Self::Session, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let mut builder = Builder::new();
        let failed = |error: h2::Error| HandshakeError(describe(&error));
        let (requests, connection) = builder.enable_push(false).handshake::<_, Bytes>(stream).await.map_err(failed)?;
        // How the connection ends is seen by the requests on it.
        let _driver: JoinHandle<Result<(), h2::Error>> = tokio::task::spawn_local(connection);
        Ok(requests)
    }
}
