//! One HTTP/2 connection: requests in, answers and pushes out.
//!
//! It holds no decisions. [`Hub::poll_output`] says what to push and which monitor to end; this module turns it into
//! promises and answers within the client's limits, and reports what became of each push:
//!
//! ```text
//! poll_output -> PUSH_PROMISE, HEADERS -> window? -> DATA with END_STREAM -> written: Delivered
//!                        |                   |                                     |
//!                        +----- reset by the client: Refused ----------------------+
//! ```
//!
//! Rules that the HTTP/2 library leaves to its user: the handle of a monitoring request is kept until it is answered;
//! nothing is promised on it afterwards; promises name their scheme and authority; no more promises are un-ended than
//! the client allows, a client that states no limit included. Nothing is promised on one request while promises on
//! another wait to be written: the library would mix them, and streams have to begin in the order of their numbers.
//!
//! Source: RFC 9113 §5.1.1, §8.4, RFC 8030 §6.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::{Connection, SendPushedResponse, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::uri::Authority;
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::limits::{
    SERVICE_BODY_MS_MAX, SERVICE_DATA_FRAME_BUDGET_BYTES, SERVICE_DRAIN_BYTES_MAX, SERVICE_ERROR_RESETS_MAX,
    SERVICE_GOODBYE_MS, SERVICE_HANDSHAKE_MS_MAX, SERVICE_HEADER_LIST_BYTES_MAX, SERVICE_IDLE_MS,
    SERVICE_LATE_REFUSALS_COUNT, SERVICE_PING_MS, SERVICE_PONG_MS, SERVICE_PROMISES_UNENDED_MAX, SERVICE_PUSH_MS_MAX,
    SERVICE_RECEIPTS_TOLD_MAX, SERVICE_RESETS_UNSEEN_MAX,
};
use crate::time::Duration;
use crate::webpush::headers::Urgency;

use super::gate::{Client, Rules};
use super::hub::{BodyError, Hub};
use super::parcel::{Parcel, Written};
use super::retention::{ConnectionId, DeliveryId, Ending, Input, MonitorId, Output, Push, Receipt, ReceiptId, Room};
use super::routes::{self, PushSupport, Route};
use super::token::Token;
use super::wire::{Sightings, Wire};

/// Serves one connection until it ends.
pub(super) async fn serve<T>(io: T, peer: IpAddr, hub: Rc<Hub>, stop: watch::Receiver<bool>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let sightings = Rc::new(Sightings::default());
    let handshake = builder(hub.rules()).handshake::<_, Parcel>(Wire::new(io, Rc::clone(&sightings)));
    match timeout(Duration::from_millis(SERVICE_HANDSHAKE_MS_MAX), handshake).await {
        Ok(Ok(mut connection)) => {
            let ping = connection.ping_pong().expect("nobody took it before");
            Session::new(hub, peer, sightings, ping).run(connection, stop).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP/2 handshake failed"),
        Err(_) => tracing::debug!("an HTTP/2 handshake took too long"),
    }
}

/// The library's bounds against floods, each set knowingly.
fn builder(rules: &Rules) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(rules.stream_count_max())
        .max_header_list_size(SERVICE_HEADER_LIST_BYTES_MAX)
        .initial_connection_window_size(1 << 20)
        .max_concurrent_reset_streams(SERVICE_RESETS_UNSEEN_MAX)
        .max_pending_accept_reset_streams(SERVICE_RESETS_UNSEEN_MAX)
        .max_local_error_reset_streams(Some(SERVICE_ERROR_RESETS_MAX))
        .data_frame_budget(SERVICE_DATA_FRAME_BUDGET_BYTES);
    builder
}

struct Session {
    hub: Rc<Hub>,
    peer: IpAddr,
    id: ConnectionId,
    wake: Rc<Notify>,
    /// What it has had.
    client: Client,
    sightings: Rc<Sightings>,
    written: Written,
    /// Open monitoring requests by stream, with the authority they named: promises name the same.
    monitors: BTreeMap<u32, (SendResponse<Parcel>, Authority)>,
    /// Promises that are not ended, by promised stream.
    sending: BTreeMap<u32, Sending>,
    /// The latest promises that are ended: their refusal may still come.
    ended: VecDeque<(u32, DeliveryId)>,
    requests: JoinSet<()>,
    /// The last promise: the stream of the request it was made on, and its own.
    promising: Option<(u32, u32)>,
    /// Whether other requests wait until that promise is written.
    is_narrow: bool,
    /// Since when no request is open, one that was answered at once included; none while there is one.
    idle_since: Option<Instant>,
    /// Asks the peer whether it is there, or has got so far.
    ping: PingPong,
    /// When the peer was last asked, and did not answer since.
    pinged: Option<Instant>,
    /// Receipts promised, and not written before it was asked.
    told: Vec<Told>,
    /// Receipts written before it was asked.
    asked: Vec<ReceiptId>,
    /// When the connection was said goodbye to, for want of use.
    closing: Option<Instant>,
}

/// A receipt on its way.
struct Told {
    receipt: ReceiptId,
    /// The request it is promised on.
    monitor: u32,
    /// Its own stream.
    stream: u32,
}

struct Sending {
    delivery: DeliveryId,
    /// The request it is promised on.
    monitor: u32,
    /// Dropped before its promise is written, the promise would never end.
    _promise: SendPushedResponse<Parcel>,
    stream: SendStream<Parcel>,
    /// What the client's window had no room for yet; empty when all is handed over.
    rest: Bytes,
    /// Until when the rest may wait for the window, and what is handed over for its way out.
    deadline: Instant,
}

/// The connection cannot be used any more.
struct Broken;

/// What a deadline asks for.
enum Overdue {
    Nothing,
    /// Nothing is open here: say goodbye.
    Close,
    /// The peer does not answer.
    Gone,
}

const PUSH: Duration = Duration::from_millis(SERVICE_PUSH_MS_MAX);
const IDLE: Duration = Duration::from_millis(SERVICE_IDLE_MS);
const PING: Duration = Duration::from_millis(SERVICE_PING_MS);
const GOODBYE: Duration = Duration::from_millis(SERVICE_GOODBYE_MS);
const PONG: Duration = Duration::from_millis(SERVICE_PONG_MS);

impl Session {
    fn new(hub: Rc<Hub>, peer: IpAddr, sightings: Rc<Sightings>, ping: PingPong) -> Self {
        let (id, wake) = hub.connect();
        Self {
            hub,
            peer,
            id,
            wake,
            client: Client::default(),
            sightings,
            written: Written::default(),
            monitors: BTreeMap::new(),
            sending: BTreeMap::new(),
            ended: VecDeque::new(),
            requests: JoinSet::new(),
            promising: None,
            is_narrow: false,
            idle_since: None,
            ping,
            pinged: None,
            told: Vec::new(),
            asked: Vec::new(),
            closing: None,
        }
    }

    async fn run<T>(mut self, mut connection: Connection<Wire<T>, Parcel>, mut stop: watch::Receiver<bool>)
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let mut is_stopping = false;
        loop {
            if self.pump(&connection).is_err() {
                connection.abrupt_shutdown(Reason::INTERNAL_ERROR);
            }
            if self.sightings.is_flooded() {
                tracing::debug!("an HTTP/2 connection is flooded with questions");
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                // Who reads nothing does not hear why.
                timeout(GOODBYE, poll_fn(|cx| connection.poll_closed(cx))).await.ok();
                return;
            }
            self.idle_since = self.is_idle().then(|| self.idle_since.unwrap_or_else(Instant::now));
            let (wake, deadline) = (Rc::clone(&self.wake), self.deadline());
            // The connection comes first: it reads and writes for everyone else, and what it saw is looked at next.
            tokio::select! { biased;
                accepted = connection.accept() => match accepted {
                    Some(Ok((request, respond))) => self.accept(request, respond),
                    Some(Err(error)) => {
                        tracing::debug!(%error, "an HTTP/2 connection failed");
                        return;
                    }
                    None => return,
                },
                () = self.news() => {}
                () = wake.notified() => {}
                _ = stop.wait_for(|stop| *stop), if !is_stopping => {
                    is_stopping = true;
                    // The machine was told; monitors are answered before the connection says goodbye.
                    if self.pump(&connection).is_ok() {
                        connection.graceful_shutdown();
                    }
                }
                () = sleep_until(deadline) => match self.overdue() {
                    Overdue::Nothing => {}
                    Overdue::Close => connection.graceful_shutdown(),
                    Overdue::Gone => return tracing::debug!("an HTTP/2 connection is silent"),
                },
            }
        }
    }

    fn accept(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Parcel>) {
        self.idle_since = None;
        let (head, mut body) = request.into_parts();
        let push = match self.sightings.push_disabled() {
            true => PushSupport::Disabled,
            false => PushSupport::Available,
        };
        let (route, claim) = self.hub.route(&head, push, &self.client);
        match route {
            Route::Monitor { resource, wait_s, urgency } => {
                self.monitor(resource, (wait_s, urgency), routes::authority(&head), respond);
            }
            Route::Answer(response) if body.is_end_stream() && response.status() != StatusCode::NOT_FOUND => {
                send(&mut respond, response, &self.hub);
            }
            route => {
                let (hub, peer) = (Rc::clone(&self.hub), self.peer);
                self.requests.spawn_local(async move {
                    match hub.perform(route, read(&mut body, hub.rules().message_bytes_max)).await {
                        Some(response) => {
                            if response.status().is_success() {
                                claim.keep();
                            }
                            drain(&mut body).await;
                            hub.slow_down(&response, peer).await;
                            send(&mut respond, response, &hub);
                        }
                        None => respond.send_reset(Reason::CANCEL),
                    }
                });
            }
        }
    }

    fn monitor(
        &mut self,
        resource: Token,
        (wait_s, urgency): (Option<u64>, Urgency),
        authority: Option<Authority>,
        mut respond: SendResponse<Parcel>,
    ) {
        let stream = respond.stream_id().as_u32();
        let Some(authority) = authority else {
            let mut response = Response::new(Bytes::from_static(b"the request names no host"));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return send(&mut respond, response, &self.hub);
        };
        let monitor = MonitorId { connection: self.id, stream };
        match routes::answer(self.hub.monitor(resource, monitor, wait_s, urgency)) {
            None => drop(self.monitors.insert(stream, (respond, authority))),
            Some(response) => send(&mut respond, response, &self.hub),
        }
    }

    /// Resolves when a request's task has ended, or something was seen that [`pump`](Self::pump) should look at.
    ///
    /// Cancel safety: it only looks, and forgets tasks that have ended.
    async fn news(&mut self) {
        poll_fn(|cx| {
            let mut has_news = self.sightings.has_resets() || !self.written.borrow().is_empty();
            has_news |= !self.poll_resets(cx).is_empty() || self.has_monitors_to_refuse();
            has_news |= self.is_narrow && self.promising_on().is_none();
            has_news |= self.sightings.is_flooded() || self.has_to_ask();
            has_news |= self.poll_answer(cx) || self.sightings.has_settings();
            for sending in self.sending.values_mut().filter(|sending| !sending.rest.is_empty()) {
                // A stream that is over has no capacity at once and for ever; it is no news here.
                has_news |= matches!(sending.stream.poll_capacity(cx), Poll::Ready(Some(Ok(_))));
            }
            while let Poll::Ready(Some(ended)) = self.requests.poll_join_next(cx) {
                has_news = true;
                if let Err(error) = ended {
                    tracing::error!(%error, "a request's task failed");
                }
            }
            if has_news { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Whether the peer has answered that it is there; if so, it has got all that was written before it was asked.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> bool {
        let is_answered = self.pinged.is_some() && matches!(self.ping.poll_pong(cx), Poll::Ready(Ok(_)));
        if is_answered {
            self.pinged = None;
            self.asked.drain(..).for_each(|receipt| self.hub.input(Input::Received(receipt)));
        }
        is_answered
    }

    /// Whether there are written receipts that the peer was not asked about.
    fn has_to_ask(&self) -> bool {
        self.pinged.is_none() && self.told.first().is_some_and(|told| self.sightings.has_head(told.stream))
    }

    /// Asks the peer to answer, which it does in the order of what it got. The question overtakes what is not yet written.
    fn ask(&mut self) {
        if self.pinged.is_none() && self.ping.send_ping(Ping::opaque()).is_ok() {
            self.pinged = Some(Instant::now());
            let written = self.told.extract_if(.., |told| self.sightings.has_head(told.stream));
            self.asked.extend(written.map(|told| told.receipt));
        }
    }

    /// The streams in use that were reset: by the client, or by the library for an error of the client.
    fn poll_resets(&mut self, cx: &mut Context<'_>) -> Vec<u32> {
        let mut over = Vec::new();
        let mut look = |stream: &u32, polled: Poll<Result<Reason, h2::Error>>| {
            if let Poll::Ready(Ok(_)) = polled {
                over.push(*stream);
            }
        };
        self.sending.iter_mut().for_each(|(stream, sending)| look(stream, sending.stream.poll_reset(cx)));
        self.monitors.iter_mut().for_each(|(stream, (respond, _))| look(stream, respond.poll_reset(cx)));
        over
    }

    /// Reports what happened, goes on with what waits, and takes new outputs while there is room.
    fn pump<T>(&mut self, connection: &Connection<Wire<T>, Parcel>) -> Result<(), Broken>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        for stream in self.written.take() {
            if let Some(sending) = self.sending.remove(&stream) {
                self.delivered(stream, sending.delivery);
            }
        }
        for stream in self.sightings.take_resets() {
            self.reset(stream);
        }
        // Asked here as well, for a request that is taken comes before news. Nobody needs waking: news are next.
        for stream in self.poll_resets(&mut Context::from_waker(Waker::noop())) {
            self.sightings.unwatch(stream);
            self.reset(stream);
        }
        if self.has_monitors_to_refuse() {
            self.refuse_monitors();
        }
        for stream in self.sending.keys().copied().collect::<Vec<_>>() {
            self.progress(stream)?;
        }
        self.sightings.took_settings();
        let limit = connection.max_concurrent_send_streams().min(SERVICE_PROMISES_UNENDED_MAX);
        loop {
            let room = self.room(limit);
            self.is_narrow = matches!(room, Room::On(_));
            match self.hub.poll_output(self.id, room) {
                Some(Output::Push(push)) => self.push(*push)?,
                Some(Output::Receipt(receipt)) => self.tell(receipt)?,
                Some(Output::End(monitor, ending)) => self.end(monitor, ending)?,
                None => break,
            }
        }
        if self.has_to_ask() {
            self.ask();
        }
        Ok(())
    }

    fn room(&self, limit: usize) -> Room {
        let has_told_enough = self.told.len() + self.asked.len() >= SERVICE_RECEIPTS_TOLD_MAX;
        match self.promising_on() {
            _ if self.sending.len() >= limit || has_told_enough => Room::None,
            Some(monitor) => Room::On(monitor),
            None => Room::Any,
        }
    }

    /// The request with promises that are not yet written.
    fn promising_on(&self) -> Option<u32> {
        self.promising.filter(|(_, promised)| *promised > self.sightings.promised()).map(|(monitor, _)| monitor)
    }

    fn has_monitors_to_refuse(&self) -> bool {
        self.sightings.push_disabled() && !self.monitors.is_empty()
    }

    /// The client switched server push off while it had requests open.
    fn refuse_monitors(&mut self) {
        for (stream, (mut respond, _)) in std::mem::take(&mut self.monitors) {
            send(&mut respond, routes::push_disabled(), &self.hub);
            self.hub.input(Input::MonitorClosed(MonitorId { connection: self.id, stream }));
        }
    }

    fn push(&mut self, push: Push) -> Result<(), Broken> {
        let (monitor, authority) = self.monitors.get_mut(&push.monitor.stream).ok_or(Broken)?;
        let request = routes::promise(&push, authority);
        let mut promise = monitor.push_request(request).map_err(|_| Broken)?;
        let mut head = routes::pushed(&push);
        head.headers_mut().insert(http::header::DATE, self.hub.date());

        let stream = promise.stream_id().as_u32();
        self.promising = Some((push.monitor.stream, stream));
        self.sightings.watch(stream);
        let rest = push.content.body;
        let mut body = promise.send_response(head, rest.is_empty()).map_err(|_| Broken)?;
        if rest.is_empty() {
            // There is no frame whose writing could be noticed; the next flush takes it.
            self.delivered(stream, push.delivery);
            return Ok(());
        }
        body.reserve_capacity(rest.len());
        let deadline = Instant::now() + PUSH;
        let (delivery, monitor) = (push.delivery, push.monitor.stream);
        let sending = Sending { delivery, monitor, _promise: promise, stream: body, rest, deadline };
        self.sending.insert(stream, sending);
        self.progress(stream)
    }

    fn tell(&mut self, receipt: Receipt) -> Result<(), Broken> {
        let (monitor, authority) = self.monitors.get_mut(&receipt.monitor.stream).ok_or(Broken)?;
        let request = routes::receipt_promise(&receipt, authority);
        let mut promise = monitor.push_request(request).map_err(|_| Broken)?;
        let mut head = routes::receipt(&receipt);
        head.headers_mut().insert(http::header::DATE, self.hub.date());
        let (monitor, stream) = (receipt.monitor.stream, promise.stream_id().as_u32());
        self.promising = Some((monitor, stream));
        promise.send_response(head, true).map_err(|_| Broken)?;
        self.sightings.expect_head(stream);
        self.told.push(Told { receipt: receipt.id, monitor, stream });
        Ok(())
    }

    /// Sends as much of a message as the client's window takes: all of it in one frame, unless the window is small.
    fn progress(&mut self, stream: u32) -> Result<(), Broken> {
        let Some(sending) = self.sending.get_mut(&stream).filter(|sending| !sending.rest.is_empty()) else {
            return Ok(());
        };
        let is_late = Instant::now() >= sending.deadline;
        if is_late || !self.hub.is_live(sending.delivery) {
            let delivery = sending.delivery;
            sending.stream.send_reset(Reason::CANCEL);
            self.sending.remove(&stream);
            self.sightings.unwatch(stream);
            // A receiver that opens no window is as good as one that refuses.
            self.hub.input(if is_late { Input::Refused(delivery) } else { Input::Dropped(delivery) });
            return Ok(());
        }
        let taken = sending.stream.capacity().min(sending.rest.len());
        if taken == 0 {
            return Ok(());
        }
        sending.deadline = if taken == sending.rest.len() { Instant::now() + PUSH } else { sending.deadline };
        let octets = sending.rest.split_to(taken);
        let is_last = sending.rest.is_empty();
        let parcel = if is_last { Parcel::last_of(octets, &self.written, stream) } else { Parcel::plain(octets) };
        sending.stream.send_data(parcel, is_last).map_err(|_| Broken)?;
        sending.stream.reserve_capacity(sending.rest.len());
        Ok(())
    }

    fn delivered(&mut self, stream: u32, delivery: DeliveryId) {
        self.ended.push_back((stream, delivery));
        if self.ended.len() > SERVICE_LATE_REFUSALS_COUNT
            && let Some((forgotten, _)) = self.ended.pop_front()
        {
            self.sightings.unwatch(forgotten);
        }
        self.hub.input(Input::Delivered(delivery));
    }

    fn reset(&mut self, stream: u32) {
        if let Some(sending) = self.sending.remove(&stream) {
            self.hub.input(Input::Refused(sending.delivery));
        } else if let Some(index) = self.ended.iter().position(|(ended, _)| *ended == stream) {
            if let Some((_, delivery)) = self.ended.remove(index) {
                self.hub.input(Input::Refused(delivery));
            }
        } else if self.monitors.remove(&stream).is_some() {
            self.take_back_promises(stream);
            self.hub.input(Input::MonitorClosed(MonitorId { connection: self.id, stream }));
        }
    }

    /// The promises of a request that was reset which are not written never will be.
    fn take_back_promises(&mut self, monitor: u32) {
        let promised = self.sightings.promised();
        self.promising = self.promising.filter(|(on, _)| *on != monitor);
        for told in self.told.extract_if(.., |told| told.monitor == monitor && told.stream > promised) {
            self.sightings.saw_head(told.stream);
            self.hub.input(Input::Unsent(told.receipt));
        }
        let unpromised = |(stream, it): &(&u32, &Sending)| it.monitor == monitor && **stream > promised;
        for stream in self.sending.iter().filter(unpromised).map(|(stream, _)| *stream).collect::<Vec<_>>() {
            if let Some(sending) = self.sending.remove(&stream) {
                self.sightings.unwatch(stream);
                self.hub.input(Input::Dropped(sending.delivery));
            }
        }
    }

    fn end(&mut self, monitor: MonitorId, ending: Ending) -> Result<(), Broken> {
        let (mut respond, _) = self.monitors.remove(&monitor.stream).ok_or(Broken)?;
        let mut response = routes::ended(ending);
        self.hub.sign(response.headers_mut());
        respond.send_response(response, true).map(drop).map_err(|_| Broken)
    }

    /// When something is overdue unless anything happens before.
    fn deadline(&self) -> Instant {
        let heard = self.sightings.heard();
        let liveness = match (self.closing, self.idle_since, self.pinged) {
            (Some(closing), ..) => closing + PONG,
            (None, Some(since), _) => since + IDLE,
            (None, None, Some(pinged)) => pinged.max(heard) + PONG,
            (None, None, None) => heard + PING,
        };
        self.sending.values().map(|sending| self.given_up_at(sending)).fold(liveness, Instant::min)
    }

    /// Octets that are handed over wait for the socket; a slow one that takes any is given time.
    fn given_up_at(&self, sending: &Sending) -> Instant {
        let is_handed_over = sending.rest.is_empty();
        if is_handed_over { sending.deadline.max(self.sightings.sent() + PUSH) } else { sending.deadline }
    }

    /// Decides what to do at the deadline: close a connection that is of no use, ask a silent peer whether it is there.
    fn overdue(&mut self) -> Overdue {
        let (now, heard) = (Instant::now(), self.sightings.heard());
        let is_stuck = |sending: &Sending| sending.rest.is_empty() && now >= self.given_up_at(sending);
        if self.sending.values().any(is_stuck) {
            return Overdue::Gone;
        }
        match (self.closing, self.pinged) {
            (Some(closing), _) if now >= closing + PONG => return Overdue::Gone,
            (Some(_), _) => {}
            (None, _) if self.idle_since.is_some_and(|since| now >= since + IDLE) => {
                self.closing = Some(now);
                return Overdue::Close;
            }
            (None, Some(pinged)) if now >= pinged.max(heard) + PONG => return Overdue::Gone,
            (None, None) if now >= heard + PING => self.ask(),
            // Something else was due: a message that waited too long.
            (None, _) => {}
        }
        Overdue::Nothing
    }

    /// Whether no request is open. A connection with an open monitor is never idle.
    fn is_idle(&self) -> bool {
        self.monitors.is_empty() && self.requests.is_empty() && self.sending.is_empty()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.hub.disconnect(self.id);
    }
}

/// Answers a request. A client that is gone gets nothing.
fn send(respond: &mut SendResponse<Parcel>, response: Response<Bytes>, hub: &Hub) {
    let (mut head, body) = response.into_parts();
    hub.sign(&mut head.headers);
    let is_empty = body.is_empty();
    let sent = respond
        .send_response(Response::from_parts(head, ()), is_empty)
        .and_then(|mut stream| if is_empty { Ok(()) } else { stream.send_data(Parcel::plain(body), true) });
    if let Err(error) = sent {
        tracing::debug!(%error, "a client did not wait for its answer");
    }
}

/// Reads the content of a request, at most `bytes_max` octets of it.
async fn read(body: &mut RecvStream, bytes_max: usize) -> Result<Bytes, BodyError> {
    let whole = async {
        let mut octets = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(|_| BodyError::Broken)?;
            body.flow_control().release_capacity(chunk.len()).map_err(|_| BodyError::Broken)?;
            if octets.len() + chunk.len() > bytes_max {
                return Err(BodyError::TooLarge);
            }
            octets.extend_from_slice(&chunk);
        }
        Ok(Bytes::from(octets))
    };
    timeout(Duration::from_millis(SERVICE_BODY_MS_MAX), whole).await.unwrap_or(Err(BodyError::TooSlow))
}

#[cfg(test)]
mod tests;

/// Takes what is left of a request before it is answered, within bounds: common clients lose an answer that comes before
/// they have sent all (RFC 9113 §8.1 allows it, and they forget).
async fn drain(body: &mut RecvStream) {
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(chunk)) = body.data().await {
            bytes += chunk.len();
            if bytes > SERVICE_DRAIN_BYTES_MAX || body.flow_control().release_capacity(chunk.len()).is_err() {
                return;
            }
        }
    };
    if timeout(Duration::from_millis(SERVICE_BODY_MS_MAX), rest).await.is_err() {
        tracing::debug!("a request that is refused goes on too long");
    }
}
