//! Who is on a link: an id is bound to it, one connection at a time is the device, and the one that is there goes first.

use std::time::Duration;

use fieldgate::control::Request;
use fieldgate::downstream::{DownReason, Downstream, Entry, Event};
use fieldgate::limits::LINK_CLAIM_MS;
use fieldgate::transport::listener::Listener;
use fieldgate::transport::stack::memory::{self, Plug};
use fieldgate::wire::message::Age;
use fieldgate::wire::{ChannelId, DeviceId, MessageId, Refusal, ToDevice, ToGateway};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use crate::clock::StoppedClock;
use crate::device::ScriptedDevice;
use crate::rig::Rig;

const CLAIM: Duration = Duration::from_millis(LINK_CLAIM_MS);
const MOMENT: Duration = Duration::from_millis(1);
/// Octets that a connection within the process holds.
const PIPE_BYTES: usize = 1 << 16;
const STRANGER: ToDevice<'static> = ToDevice::Refused { channel: ChannelId(0), reason: Refusal::UnknownDevice };

/// C-40: the device that is there answers, so who else claims to be it is sent away, however often; the session goes on.
#[tokio::test(flavor = "local", start_paused = true)]
async fn c_40_a_device_that_answers_keeps_its_link() {
    let (mut links, plug) = links();
    let mut first = ScriptedDevice::attached(connect(&plug), 7, "a").await;
    let session = up(&mut links, 7).await;
    for claim in 0..5 {
        let since = Instant::now();
        let mut second = ScriptedDevice::new(connect(&plug), 8, 256);
        let gone = second_is_closed(&mut second);
        first.tend(timeout(CLAIM / 2, gone)).await.expect("well before the time is over");
        assert!(since.elapsed() < CLAIM / 2);
        links.send(&id(), session, &push(claim, b"still the one")).expect("room");
        assert_eq!(first.hear().await.message(), push(claim, b"still the one"));
    }
    assert_nothing_happens(&mut links).await;
}

/// C-40: a device that does not answer gives way to the newer connection when its time is over, and not before.
#[tokio::test(flavor = "local", start_paused = true)]
async fn c_40_a_device_that_does_not_answer_gives_way() {
    let (mut links, plug) = links();
    let first = ScriptedDevice::attached(connect(&plug), 7, "a").await;
    let session = up(&mut links, 7).await;
    let mut second = ScriptedDevice::new(connect(&plug), 8, 256);
    let early = timeout(CLAIM - MOMENT, links.next());
    assert!(second.tend(early).await.is_err(), "it has that long");
    let replaced = second.tend(timeout(2 * MOMENT, links.next())).await.expect("and no longer");
    assert_eq!(replaced, Event::Down { device: id(), session, reason: DownReason::Replaced });
    second.attach("a").await;
    assert!(up(&mut links, 8).await > session);
    let mut rest = Vec::new();
    first.into_stream().read_to_end(&mut rest).await.expect("it was closed");
}

/// A device that was cut off and connects again is there before the gateway has noticed; when it notices, nobody has to wait.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_connection_that_ends_gives_way_to_the_one_that_waits() {
    let (mut links, plug) = links();
    let first = ScriptedDevice::attached(connect(&plug), 7, "a").await;
    let session = up(&mut links, 7).await;
    let mut second = ScriptedDevice::new(connect(&plug), 8, 256);
    let claimed = timeout(CLAIM / 2, links.next());
    assert!(second.tend(claimed).await.is_err(), "the first one has time to answer");
    let since = Instant::now();
    drop(first);
    let ended = second.tend(links.next()).await;
    assert_eq!(ended, Event::Down { device: id(), session, reason: DownReason::Closed });
    second.attach("a").await;
    up(&mut links, 8).await;
    assert!(since.elapsed() < CLAIM / 4, "{:?}", since.elapsed());
}

/// A device may leave the question unanswered when other frames come behind it: what it sends at all shows that it is there.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_device_that_is_busy_with_a_message_keeps_its_link() {
    let (mut links, plug) = links();
    let mut first = ScriptedDevice::new(connect(&plug), 7, 64);
    first.attach("a").await;
    let session = up(&mut links, 7).await;
    let body = [b'x'; 3900];
    // The question is followed by frames before the device reads it.
    let mut second = ScriptedDevice::new(connect(&plug), 8, 256);
    links.send(&id(), session, &push(1, &body)).expect("room");
    tokio::time::sleep(MOMENT).await;
    first.tend(timeout(2 * CLAIM, second_is_closed(&mut second))).await.expect("it was sent away");
    assert_eq!(first.hear().await.message(), push(1, &body));
    assert_nothing_happens(&mut links).await;
}

/// C-40: both outcomes over the sockets that devices connect to.
#[tokio::test(flavor = "local", start_paused = true)]
async fn c_40_it_is_the_same_over_unix_sockets() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("meter.sock");
    let endpoint = format!("unix:{}", path.display());
    both_outcomes(&endpoint, async || UnixStream::connect(&path).await.ok()).await;
}

/// C-40: the same over TCP.
#[tokio::test(flavor = "local", start_paused = true)]
async fn c_40_it_is_the_same_over_tcp() {
    let place = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    both_outcomes(&format!("tcp:{place}"), async || TcpStream::connect(place).await.ok()).await;
}

/// C-40: a device of another name is told so and nothing else: no word of how the gateway is, and no message, though one waits;
/// the right one gets that.
#[tokio::test(flavor = "local")]
async fn c_40_a_stranger_gets_no_message() {
    let mut rig = Rig::start().await;
    let subscription = rig.subscription(1).await;
    let message = rig.send(&subscription, "for d1 alone").await;
    let mut stranger = rig.attach_at("d1", "d2", 7).await;
    assert_eq!(stranger.hear().await.message(), STRANGER);
    for message in [ToGateway::Ask, ToGateway::Subscribe { channel: ChannelId(2) }, ToGateway::Awake] {
        stranger.say(&message).await;
    }
    stranger.tend(rig.send(&subscription, "also")).await;
    assert_eq!(stranger.idle(Duration::from_secs(2)).await, [], "nothing more");
    assert_eq!(stranger.statuses, []);
    let connections = stranger.tend(rig.ask(&Request::Connections)).await.expect("an answer");
    assert_eq!(connections["links"][0]["state"], "refused a device with the id d2", "{connections}");
    let status = stranger.tend(rig.await_status(|_| true)).await;
    assert_eq!((&status["devices"][0]["presence"], &status["counters"]["relayed"]), (&"absent".into(), &0.into()));

    // It is nobody, so the device need not wait for its answer.
    let mut device = rig.attach(8).await;
    for text in ["for d1 alone", "also"] {
        let message = device.hear_push(text).await;
        device.say(&ToGateway::Ack { message }).await;
    }
    device.tend(rig.await_gone(&message)).await;
}

/// C-40, A-UA-25: through the whole gateway, the device that answers gets the messages, and the claimant takes them over only
/// when it does not.
#[tokio::test(flavor = "local")]
async fn c_40_messages_go_to_the_device_that_was_there() {
    let mut rig = Rig::start().await;
    let subscription = rig.subscription(1).await;
    let mut first = rig.attach(7).await;
    rig.await_status(|status| status["devices"][0]["presence"] == "ready").await;
    let mut claimant = ScriptedDevice::new(rig.connect("d1").await, 8, 256);
    first.tend(second_is_closed(&mut claimant)).await;
    let message = first.tend(rig.send(&subscription, "to the first")).await;
    let id = first.hear_push("to the first").await;
    first.say(&ToGateway::Ack { message: id }).await;
    first.tend(rig.await_gone(&message)).await;

    // Now the first one hears nothing any more.
    let mut claimant = ScriptedDevice::new(rig.connect("d1").await, 9, 256);
    claimant.attach("d1").await;
    let message = claimant.tend(rig.send(&subscription, "to the second")).await;
    let id = claimant.hear_push("to the second").await;
    claimant.say(&ToGateway::Ack { message: id }).await;
    claimant.tend(rig.await_gone(&message)).await;
}

async fn both_outcomes<S>(endpoint: &str, connect: impl AsyncFn() -> Option<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut links = Downstream::new(Instant::now());
    let entry = Entry { device: id(), endpoint: endpoint.parse().expect("an endpoint"), mtu: 256 };
    links.attach(entry).expect("room");
    let mut clock = StoppedClock::new();
    let stream = loop {
        match connect().await {
            Some(stream) => break stream,
            None => clock.advance(MOMENT).await,
        }
    };
    let mut first = ScriptedDevice::attached(stream, 7, "a").await;
    let session = up(&mut links, 7).await;
    let mut second = ScriptedDevice::new(connect().await.expect("it listens"), 8, 256);
    first.tend(second_is_closed(&mut second)).await;

    let mut second = ScriptedDevice::new(connect().await.expect("it listens"), 9, 256);
    // Until the gateway has taken the connection, which it does in its own time.
    let said = second.tend(async {
        loop {
            clock.advance(CLAIM).await;
            if let Ok(event) = timeout(Duration::ZERO, links.next()).await {
                return event;
            }
        }
    });
    assert_eq!(said.await, Event::Down { device: id(), session, reason: DownReason::Replaced });
    second.attach("a").await;
    let session = up(&mut links, 9).await;
    links.send(&id(), session, &push(1, b"hello")).expect("room");
    assert_eq!(second.hear().await.message(), push(1, b"hello"));
}

fn links() -> (Downstream, Plug) {
    let mut links = Downstream::new(Instant::now());
    let (plug, socket) = memory::pair();
    links.attach_listener(id(), 256, Listener::memory(socket)).expect("room");
    (links, plug)
}

fn connect(plug: &Plug) -> tokio::io::DuplexStream {
    plug.connect(PIPE_BYTES).expect("plugged")
}

/// Waits until the gateway has closed a connection to which it said nothing.
async fn second_is_closed<S: AsyncRead + AsyncWrite + Unpin>(second: &mut ScriptedDevice<S>) {
    let mut rest = Vec::new();
    second.stream().read_to_end(&mut rest).await.expect("it is closed in order");
    assert!(rest.is_empty(), "nothing was said to it");
}

async fn up(links: &mut Downstream, boot: u32) -> u32 {
    let Event::Up { session, boot_id, .. } = links.next().await else { panic!("up") };
    assert_eq!(boot_id, boot);
    session
}

async fn assert_nothing_happens(links: &mut Downstream) {
    let event = timeout(MOMENT, links.next()).await;
    assert!(event.is_err(), "{event:?}");
}

fn id() -> DeviceId {
    "a".parse().expect("an id")
}

fn push(number: u8, body: &[u8]) -> ToDevice<'_> {
    ToDevice::Push { message: MessageId([number; 8]), channel: ChannelId(1), age: Age::UNKNOWN, body }
}
