//! The deadlines of a connection, on a paused clock and without a network.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::Context;

use h2::client;
use tokio::io::{AsyncReadExt as _, DuplexStream, ReadBuf};
use tokio::task::{JoinHandle, spawn_local};

use super::*;
use crate::limits::{
    SERVICE_GUESS_COUNT_MAX, SERVICE_GUESS_DELAY_MS, SERVICE_RECEIPTS_TOLD_MAX, SERVICE_STREAM_COUNT_MAX, TTL_S_MAX,
};
use crate::random::{Random, SeededRandom};
use crate::service::clock::Clock;
use crate::service::gate::Gate;
use crate::service::identification::Identifier;
use crate::service::retention::{Content, Moment, Policy, Posted, ReceiptWish, Reply, Request as Asked, Retention};
use crate::service::store::Store;
use crate::webpush::headers::{Ttl, Urgency};

/// A byte stream that counts the writes that reach it.
struct Counting(DuplexStream, Rc<Cell<usize>>);

impl AsyncRead for Counting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.1.set(self.1.get() + 1);
        Pin::new(&mut self.0).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

struct Rig {
    /// Writes of the session so far: each is a TLS record where there is TLS.
    writes: Rc<Cell<usize>>,
    session: JoinHandle<()>,
    io: Option<DuplexStream>,
    subscriptions: Vec<String>,
    push: String,
    _stop: watch::Sender<bool>,
    _folder: tempfile::TempDir,
}

/// A session with one subscription, one message of which waits.
fn rig() -> Rig {
    rig_with(1, 100, 1 << 16)
}

/// A session with one subscription, for which messages wait, and a pipe that holds `pipe_bytes`.
fn rig_with(message_count: usize, message_bytes: usize, pipe_bytes: usize) -> Rig {
    rig_of(1, message_count, message_bytes, pipe_bytes)
}

/// The same with several subscriptions, for each of which so many messages wait.
fn rig_of(subscription_count: usize, message_count: usize, message_bytes: usize, pipe_bytes: usize) -> Rig {
    let folder = tempfile::tempdir().expect("a folder");
    let mut random = SeededRandom::new(3);
    let mut retention = Retention::new(Policy::default());
    let mut ask = |asked| retention.handle_request(asked, Moment::default(), &mut random as &mut dyn Random);
    let mut made = Vec::new();
    for _ in 0..subscription_count {
        let Reply::Subscribed { subscription, push, .. } = ask(Asked::Subscribe { set: None, restricted: None }) else {
            panic!("made")
        };
        for _ in 0..message_count {
            let content = Content { body: vec![1; message_bytes].into(), ..Content::default() };
            let (ttl, urgency, receipts) = (Ttl::from_secs(TTL_S_MAX), Urgency::Normal, ReceiptWish::None);
            ask(Asked::Send(Posted { push, ttl, urgency, topic: None, receipts, content }));
        }
        made.push((subscription.path(), push.path()));
    }
    let (store, _closed) = Store::open(&folder.path().join("s.redb"), |_| {}).expect("a store");
    let (clock, identifier) = (Rc::new(Clock::default()), Identifier::new(vec![]));
    let hub = Rc::new(Hub::new(retention, Box::new(random), clock, store, Gate::default(), identifier, None));
    let (stop, stopping) = watch::channel(false);
    let (near, far) = tokio::io::duplex(pipe_bytes);
    let writes = Rc::new(Cell::new(0));
    let session = spawn_local(serve(Counting(near, Rc::clone(&writes)), IpAddr::from([192, 0, 2, 1]), hub, stopping));
    Rig {
        writes,
        session,
        io: Some(far),
        push: made[0].1.clone(),
        subscriptions: made.into_iter().map(|(subscription, _)| subscription).collect(),
        _stop: stop,
        _folder: folder,
    }
}

type Client = client::SendRequest<Bytes>;

async fn connect(rig: &mut Rig, window: u32) -> (Client, client::Connection<DuplexStream, Bytes>) {
    let io = rig.io.take().expect("connected once");
    client::Builder::new().initial_window_size(window).handshake(io).await.expect("HTTP/2")
}

fn request(method: &str, path: &str) -> Request<()> {
    let request = Request::builder().method(method).uri(format!("https://push.example{path}")).header("ttl", "9");
    request.body(()).expect("a request")
}

async fn ends_after(rig: Rig, ms: u64) {
    let start = Instant::now();
    timeout(Duration::from_millis(ms + 1_000), rig.session).await.expect("in time").expect("it ends");
    let passed = u64::try_from(start.elapsed().as_millis()).expect("short");
    assert!((ms..ms + 1_000).contains(&passed), "{passed} ms");
}

/// A-ALL-10: after a thousand wrong guesses answers to more of them wait; what is there is answered at once.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_all_10_wrong_guesses_are_slowed_down() {
    let mut rig = rig();
    let (client, connection) = connect(&mut rig, 1 << 16).await;
    let driving = spawn_local(connection);
    let ask = async |path: &str| {
        let mut client = client.clone().ready().await.expect("it serves");
        let (answer, _) = client.send_request(request("GET", path), true).expect("it is sent");
        answer.await.expect("an answer").status()
    };
    let start = Instant::now();
    for _ in 0..SERVICE_GUESS_COUNT_MAX {
        assert_eq!(ask("/AAAAAAAAAAAAAAAAAAAAAA").await, 404);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(ask("/AAAAAAAAAAAAAAAAAAAAAA").await, 404);
    let slowed = start.elapsed();
    assert!(slowed >= Duration::from_millis(SERVICE_GUESS_DELAY_MS), "{slowed:?}");
    assert_eq!(ask(&rig.push).await, 405);
    assert_eq!(start.elapsed(), slowed);
    driving.abort();
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_peer_that_says_nothing_is_dropped_after_the_handshake_time() {
    ends_after(rig(), SERVICE_HANDSHAKE_MS_MAX).await;
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_unused_connection_is_closed_after_the_idle_time() {
    let mut rig = rig();
    let (_client, connection) = connect(&mut rig, 65_535).await;
    let connection = spawn_local(connection);
    ends_after(rig, SERVICE_IDLE_MS).await;
    connection.await.expect("no panic").expect("it was said goodbye to");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn questions_alone_do_not_keep_a_connection() {
    let mut rig = rig();
    let (mut client, mut connection) = connect(&mut rig, 65_535).await;
    let mut ping = connection.ping_pong().expect("nobody took it before");
    spawn_local(connection);
    let half = Duration::from_millis(SERVICE_IDLE_MS / 2);
    tokio::time::sleep(half).await;
    // A request does, even one that is answered at once.
    let (response, _) = client.send_request(request("GET", "/"), true).expect("sent");
    assert_eq!(response.await.expect("an answer").status(), StatusCode::NOT_FOUND);
    spawn_local(async move {
        while ping.ping(Ping::opaque()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(SERVICE_IDLE_MS / 10)).await;
        }
    });
    ends_after(rig, SERVICE_IDLE_MS).await;
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_peer_that_takes_nothing_is_dropped_with_what_is_promised() {
    // Eight messages are promised; the session's own buffer and the pipe hold about half of them.
    let mut rig = rig_with(8, 4_096, 1_024);
    let mut io = rig.io.take().expect("connected once");
    request_monitor(&mut io, &rig.subscriptions[0]).await;
    ends_after(rig, SERVICE_PUSH_MS_MAX).await;
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_peer_that_takes_little_at_a_time_is_kept() {
    let mut rig = rig_with(8, 4_096, 1_024);
    let mut io = rig.io.take().expect("connected once");
    request_monitor(&mut io, &rig.subscriptions[0]).await;
    let mut bytes = 0;
    while bytes < 8 * 4_096 {
        tokio::time::sleep(Duration::from_millis(SERVICE_PUSH_MS_MAX / 4)).await;
        let read = io.read(&mut [0; 1_024]).await.expect("open");
        assert_ne!(read, 0, "after {bytes} octets");
        bytes += read;
    }
}

/// Asks for messages by hand, and reads nothing.
async fn request_monitor(io: &mut DuplexStream, path: &str) {
    use tokio::io::AsyncWriteExt as _;
    let mut octets = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    octets.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    octets.extend(monitor_request(1, path));
    io.write_all(&octets).await.expect("written");
}

/// The frame of a monitoring request.
fn monitor_request(stream: u8, path: &str) -> Vec<u8> {
    monitor_request_to("push.example", stream, path)
}

fn monitor_request_to(authority: &str, stream: u8, path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", path)] {
        for text in [name, value] {
            // Literals without indexing; a name follows a zero.
            block.extend((text == name).then_some(0));
            block.push(u8::try_from(text.len()).expect("short"));
            block.extend(text.bytes());
        }
    }
    let head = [0, 0, u8::try_from(block.len()).expect("short"), 1, 5, 0, 0, 0, stream];
    [&head[..], &block].concat()
}

/// Resets the first request, and monitors something on the next stream.
async fn monitor_instead(io: &mut DuplexStream, path: &str) {
    use tokio::io::AsyncWriteExt as _;
    let reset = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];
    io.write_all(&[&reset[..], &monitor_request(3, path)].concat()).await.expect("written");
}

/// What was promised on a request that was reset before it could be written holds up no other request.
#[tokio::test(flavor = "local", start_paused = true)]
async fn promises_that_are_never_written_hold_up_nothing() {
    let mut rig = rig_of(2, 8, 4_000, 256);
    let mut io = rig.io.take().expect("connected once");
    request_monitor(&mut io, &rig.subscriptions[0]).await;
    // Eight messages are promised; the session's own buffer and the pipe hold about half of them.
    tokio::time::sleep(Duration::from_millis(1)).await;
    monitor_instead(&mut io, &rig.subscriptions[1]).await;
    let mut promised = [0, 0];
    while promised[1] < 8 {
        let mut head = [0; 9];
        let read = timeout(Duration::from_secs(1), io.read_exact(&mut head)).await;
        read.expect("no stop").expect("open");
        let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
        io.read_exact(&mut payload).await.expect("open");
        promised[usize::from(head[8] == 3)] += usize::from(head[3] == 5);
    }
    assert!(promised[0] < 8, "there was something that was not written: {promised:?}");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_open_monitor_keeps_its_connection_and_silence_is_asked_about() {
    let mut rig = rig();
    let (mut client, connection) = connect(&mut rig, 65_535).await;
    let connection = spawn_local(connection);
    let (_response, _) = client.send_request(request("GET", &rig.subscriptions[0]), true).expect("sent");
    tokio::time::sleep(Duration::from_millis(10 * SERVICE_PING_MS)).await;
    assert!(!rig.session.is_finished());
    connection.abort();
    connection.await.expect_err("cancelled");
    rig.session.await.expect("it notices the end");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_monitoring_peer_that_does_not_answer_is_dropped() {
    let mut rig = rig();
    let (mut client, connection) = connect(&mut rig, 65_535).await;
    let mut connection = Box::pin(connection);
    let (_response, _) = client.send_request(request("GET", &rig.subscriptions[0]), true).expect("sent");
    // Long enough to send the request; afterwards nobody reads.
    timeout(Duration::from_millis(10), connection.as_mut()).await.expect_err("it goes on");
    ends_after(rig, SERVICE_PING_MS + SERVICE_PONG_MS - 10).await;
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn content_that_does_not_come_is_408() {
    let mut rig = rig();
    let (mut client, connection) = connect(&mut rig, 65_535).await;
    spawn_local(connection);
    let start = Instant::now();
    let (response, _body) = client.send_request(request("POST", &rig.push), false).expect("sent");
    let response = response.await.expect("an answer");
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    assert!(start.elapsed() >= Duration::from_millis(SERVICE_BODY_MS_MAX));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn promise_head_and_message_leave_in_one_write() {
    let mut rig = rig();
    let (mut client, connection) = connect(&mut rig, 65_535).await;
    spawn_local(connection);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let before = rig.writes.get();
    let (mut response, _) = client.send_request(request("GET", &rig.subscriptions[0]), true).expect("sent");
    let promise = response.push_promises().push_promise().await.expect("open").expect("a promise");
    let mut body = promise.into_parts().1.await.expect("a head").into_body();
    assert_eq!(body.data().await.expect("a message").expect("whole").len(), 100);
    assert!(body.is_end_stream());
    assert_eq!(rig.writes.get() - before, 1);
}

/// What is ready together leaves together: eight messages cost one TLS record.
#[tokio::test(flavor = "local", start_paused = true)]
async fn messages_that_wait_leave_in_one_write() {
    let mut rig = rig_with(8, 303, 1 << 16);
    let (mut client, connection) = connect(&mut rig, 65_535).await;
    spawn_local(connection);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let before = rig.writes.get();
    let (mut response, _) = client.send_request(request("GET", &rig.subscriptions[0]), true).expect("sent");
    let mut promises = response.push_promises();
    for _ in 0..8 {
        let promise = promises.push_promise().await.expect("open").expect("a promise");
        let mut body = promise.into_parts().1.await.expect("a head").into_body();
        assert_eq!(body.data().await.expect("a message").expect("whole").len(), 303);
    }
    assert_eq!(rig.writes.get() - before, 1);
}

/// RFC 9113 §5.1.1: streams begin in the order of their numbers, whichever requests they are promised on.
#[tokio::test(flavor = "local", start_paused = true)]
async fn promises_on_several_requests_come_in_the_order_of_their_streams() {
    // More than the session's own buffer and the pipe hold: promises wait for their way out.
    let mut rig = rig_of(3, 8, 4_000, 256);
    let (mut client, connection) = connect(&mut rig, 65_535).await;
    let mut connection = spawn_local(connection);
    let mut receiving = JoinSet::new();
    for subscription in &rig.subscriptions {
        let (mut response, _) = client.send_request(request("GET", subscription), true).expect("sent");
        receiving.spawn_local(async move {
            let mut promises = response.push_promises();
            for _ in 0..8 {
                let promise = promises.push_promise().await.expect("open").expect("a promise");
                let mut body = promise.into_parts().1.await.expect("a head").into_body();
                while let Some(octets) = body.data().await {
                    let bytes = octets.expect("a message").len();
                    body.flow_control().release_capacity(bytes).expect("it was received");
                }
            }
        });
    }
    while !receiving.is_empty() {
        tokio::select! {
            ended = &mut connection => panic!("the connection ended: {ended:?}"),
            Some(received) = receiving.join_next() => received.expect("all messages"),
        }
    }
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_message_that_finds_no_window_is_given_up() {
    let mut rig = rig();
    let (mut client, connection) = connect(&mut rig, 0).await;
    spawn_local(connection);
    let (mut response, _) = client.send_request(request("GET", &rig.subscriptions[0]), true).expect("sent");
    let promise = response.push_promises().push_promise().await.expect("open").expect("a promise");
    let start = Instant::now();
    let mut body = promise.into_parts().1.await.expect("a head").into_body();
    let error = body.data().await.expect("not the end").expect_err("given up");
    assert_eq!(error.reason(), Some(Reason::CANCEL));
    assert_eq!(start.elapsed().as_millis() / 1_000, u128::from(SERVICE_PUSH_MS_MAX / 1_000));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn requests_beyond_the_limit_of_streams_are_refused() {
    let mut rig = rig();
    let (mut client, connection) = connect(&mut rig, 65_535).await;
    spawn_local(connection);
    let open: Vec<_> = (0..SERVICE_STREAM_COUNT_MAX)
        .map(|_| client.send_request(request("POST", &rig.push), false).expect("sent"))
        .collect();
    // The client library knows the limit, and holds the next one back.
    let (beyond, _) = client.send_request(request("GET", "/"), true).expect("queued");
    timeout(Duration::from_secs(1), beyond).await.expect_err("held back");
    assert_eq!(open.len(), 100);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn octets_that_are_no_http_2_end_the_connection() {
    use tokio::io::AsyncWriteExt as _;
    let mut rig = rig();
    let mut io = rig.io.take().expect("connected once");
    io.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    io.read_to_end(&mut answer).await.expect("closed");
    assert!(!answer.starts_with(b"HTTP/1"));
    rig.session.await.expect("it ends");
}

/// A session with receipt subscriptions, for each of which so many receipts wait.
fn rig_with_receipts(subscription_count: usize, receipt_count: usize, pipe_bytes: usize) -> Rig {
    let folder = tempfile::tempdir().expect("a folder");
    let mut random = SeededRandom::new(3);
    let mut retention = Retention::new(Policy::default());
    let mut ask = |asked| retention.handle_request(asked, Moment::default(), &mut random as &mut dyn Random);
    let Reply::Subscribed { push, .. } = ask(Asked::Subscribe { set: None, restricted: None }) else { panic!("made") };
    let (mut wish, mut subscriptions) = (ReceiptWish::New, Vec::new());
    for index in 0..subscription_count * receipt_count {
        wish = if index % receipt_count == 0 { ReceiptWish::New } else { wish };
        let (ttl, urgency, content) = (Ttl::from_secs(TTL_S_MAX), Urgency::Normal, Content::default());
        let reply = ask(Asked::Send(Posted { push, ttl, urgency, topic: None, receipts: wish, content }));
        let Reply::Accepted { message, receipts: Some(receipts), .. } = reply else { panic!("accepted") };
        wish = ReceiptWish::In(receipts);
        subscriptions.push(receipts.path());
        assert_eq!(ask(Asked::Remove { resource: message }), Reply::Removed);
    }
    subscriptions.dedup();
    while retention.poll_record().is_some() {}
    let stored = Input::Stored(0..retention.next_record());
    retention.handle_input(stored, Moment::default(), &mut random as &mut dyn Random);
    let (store, _closed) = Store::open(&folder.path().join("s.redb"), |_| {}).expect("a store");
    let (clock, identifier) = (Rc::new(Clock::default()), Identifier::new(vec![]));
    let hub = Rc::new(Hub::new(retention, Box::new(random), clock, store, Gate::default(), identifier, None));
    let (stop, stopping) = watch::channel(false);
    let (near, far) = tokio::io::duplex(pipe_bytes);
    let writes = Rc::new(Cell::new(0));
    let session = spawn_local(serve(Counting(near, Rc::clone(&writes)), IpAddr::from([192, 0, 2, 1]), hub, stopping));
    Rig { writes, session, io: Some(far), subscriptions, push: push.path(), _stop: stop, _folder: folder }
}

/// Reads one frame: its type, its stream, and its payload.
async fn frame(io: &mut DuplexStream) -> (u8, u32, Vec<u8>) {
    let mut head = [0; 9];
    timeout(Duration::from_secs(1), io.read_exact(&mut head)).await.expect("no stop").expect("open");
    let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
    io.read_exact(&mut payload).await.expect("open");
    (head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload)
}

/// The answer to a question about receipts says that they have arrived: so the question comes after them.
#[tokio::test(flavor = "local", start_paused = true)]
async fn the_peer_is_asked_after_the_receipts_and_not_before() {
    let mut rig = rig_with_receipts(1, 3, 1 << 16);
    let mut io = rig.io.take().expect("connected once");
    request_monitor(&mut io, &rig.subscriptions[0]).await;
    let mut receipts = 0;
    loop {
        match frame(&mut io).await {
            (1, stream, _) if stream.is_multiple_of(2) => receipts += 1,
            (6, ..) => break,
            _ => {}
        }
    }
    assert_eq!(receipts, 3);
}

/// Receipts that were not written when their request was reset come on the next one.
#[tokio::test(flavor = "local", start_paused = true)]
async fn receipts_that_were_never_written_come_on_the_next_request() {
    use tokio::io::AsyncWriteExt as _;
    const COUNT: usize = 250;
    // Long fields, never compressed: the library, the session and the pipe hold the promises in part.
    let host = "a".repeat(120);
    let mut rig = rig_with_receipts(1, COUNT, 256);
    let mut io = rig.io.take().expect("connected once");
    let mut octets = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    octets.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    octets.extend(monitor_request_to(&host, 1, &rig.subscriptions[0]));
    io.write_all(&octets).await.expect("written");
    tokio::time::sleep(Duration::from_millis(1)).await;
    let reset = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];
    octets = [&reset[..], &monitor_request_to(&host, 3, &rig.subscriptions[0])].concat();
    io.write_all(&octets).await.expect("written");
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut promised = std::collections::BTreeSet::new();
    while promised.len() < COUNT {
        match frame(&mut io).await {
            (5, _, promise) => drop(promised.insert(promise[4..].to_vec())),
            (6, _, opaque) => {
                io.write_all(&[&[0, 0, 8, 6, 1, 0, 0, 0, 0][..], &opaque].concat()).await.expect("written")
            }
            _ => {}
        }
    }
}

/// A peer that takes receipts and never answers gets so many and no more.
#[tokio::test(flavor = "local", start_paused = true)]
async fn unconfirmed_receipts_of_a_connection_are_bounded() {
    use tokio::io::AsyncWriteExt as _;
    let mut rig = rig_with_receipts(5, 250, 1 << 16);
    let mut io = rig.io.take().expect("connected once");
    request_monitor(&mut io, &rig.subscriptions[0]).await;
    for (stream, path) in [3, 5, 7, 9].into_iter().zip(&rig.subscriptions[1..]) {
        io.write_all(&monitor_request(stream, path)).await.expect("written");
    }
    let mut heads = 0;
    while let Ok((kind, stream, _)) = timeout(Duration::from_millis(500), frame(&mut io)).await {
        heads += usize::from(kind == 1 && stream.is_multiple_of(2));
    }
    assert_eq!(heads, SERVICE_RECEIPTS_TOLD_MAX);
}

/// Messages whose promise was not written when their request was reset come on the next one, on a connection that stays.
#[tokio::test(flavor = "local", start_paused = true)]
async fn messages_that_were_never_promised_come_on_the_next_request() {
    let mut rig = rig_of(1, 8, 4_000, 256);
    let mut io = rig.io.take().expect("connected once");
    request_monitor(&mut io, &rig.subscriptions[0]).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    monitor_instead(&mut io, &rig.subscriptions[0]).await;
    let mut whole = 0;
    while whole < 8 {
        let (kind, stream, payload) = frame(&mut io).await;
        whole += usize::from(kind == 0 && stream.is_multiple_of(2) && !payload.is_empty());
    }
}
