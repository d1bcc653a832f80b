//! Where the requests of a connection go, and what each response may say of that.

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, HeaderValue, Request, StatusCode};

use super::{Report, Requester};
use crate::proto::Input;
use crate::webpush::alt_svc::{Alternative, Announcement};
use crate::webpush::resource::PushServiceUri;

/// A field of requests that go to an alternative (RFC 7838 §5).
const ALT_USED: &str = "alt-used";

/// The origin of a connection, and the alternative that it is at.
pub(super) struct Route {
    /// Of its origin alone are requests and promises.
    pub service: PushServiceUri,
    /// None: the connection is at the origin itself.
    pub alternative: Option<Alternative>,
    /// What requests say of it.
    alt_used: Option<HeaderValue>,
}

/// What answers does not serve the origin, and has not looked at the request.
pub(super) struct Misdirected;

impl Route {
    pub(super) fn new(service: PushServiceUri, alternative: Option<Alternative>) -> Self {
        let alt_used = alternative.as_ref().map(Alternative::alt_used);
        Self { service, alternative, alt_used }
    }
}

impl Requester {
    /// Sends a request; one that goes to an alternative says so.
    pub(super) fn send(
        &self,
        requests: &mut SendRequest<Bytes>,
        mut request: Request<()>,
        is_whole: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        if let Some(alt_used) = &self.route.alt_used {
            request.headers_mut().insert(ALT_USED, alt_used.clone());
        }
        requests.send_request(request, is_whole)
    }

    /// Reports what the head of a response says of time and of alternatives, whatever it answers.
    ///
    /// # Errors
    /// [`Misdirected`] when an alternative turns out to be none; the request goes on another connection then.
    ///
    /// Source: RFC 7838 §3, §6 (what a 421 says of alternatives is ignored).
    pub(super) async fn read_route(&self, status: StatusCode, headers: &HeaderMap) -> Result<(), Misdirected> {
        self.read_date(headers).await;
        let connection = self.reporter.connection;
        if status == StatusCode::MISDIRECTED_REQUEST {
            if self.route.alternative.is_none() {
                return Ok(());
            }
            self.reporter.report(Report::Input(Input::Misdirected { connection })).await;
            return Err(Misdirected);
        }
        if let Some(announcement) = Announcement::from_headers(headers, &self.route.service) {
            self.reporter.report(Report::Input(Input::Alternatives { connection, announcement })).await;
        }
        Ok(())
    }
}
