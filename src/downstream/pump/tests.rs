//! One pump at a time, on a clock that stands, with a device or a driver at its line.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};

use super::*;
use crate::link::device::{Device, Received};
use crate::link::memory::DeviceMemory;
use crate::transport::stack::{ByteStream, memory};
use crate::wire::MessageId;
use crate::wire::message::Age;

const OCTETS_PER_MS: u64 = 11;

/// What was written to a port: when last, and until when a line of [`OCTETS_PER_MS`] is busy with it.
struct Written {
    at: tokio::time::Instant,
    busy_until: tokio::time::Instant,
}

/// A port with a large buffer, and what its driver says of how long the line is busy.
struct Port {
    stream: DuplexStream,
    written: Written,
    driver: Box<dyn Fn(&Written) -> Duration>,
}

impl Port {
    fn boxed(stream: DuplexStream, driver: impl Fn(&Written) -> Duration + 'static) -> LinkConnection {
        let now = tokio::time::Instant::now();
        Box::new(Self { stream, written: Written { at: now, busy_until: now }, driver: Box::new(driver) })
    }
}

impl ByteStream for Port {
    fn busy_for(&self) -> Duration {
        (self.driver)(&self.written)
    }
}

impl AsyncRead for Port {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, out)
    }
}

impl AsyncWrite for Port {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<std::io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, octets);
        if let Poll::Ready(Ok(bytes)) = &wrote {
            let now = tokio::time::Instant::now();
            let from = self.written.busy_until.max(now);
            let busy_until = from + Duration::from_micros(*bytes as u64 * 1_000 / OCTETS_PER_MS);
            self.written = Written { at: now, busy_until };
        }
        wrote
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

type Meter = Device<DeviceMemory<256, 4_098, 4_098, 512>, 16>;

/// The device at the far end of the line, and how many octets came.
struct Far {
    device: Meter,
    stream: DuplexStream,
    bytes: u64,
    start: tokio::time::Instant,
}

impl Far {
    /// A millisecond passes; returns the lengths of the messages that came.
    async fn pass(&mut self) -> Vec<usize> {
        let (mut octets, mut came) = ([0; 256], Vec::new());
        let until = tokio::time::Instant::now() + Duration::from_millis(1);
        loop {
            let now = Instant::ZERO + self.start.elapsed();
            while let Some(bytes) = self.device.poll_transmit(now, &mut octets) {
                self.stream.write_all(&octets[..bytes]).await.expect("it is open");
            }
            let Ok(read) = tokio::time::timeout_at(until, self.stream.read(&mut octets)).await else { return came };
            let bytes = read.expect("it is open");
            self.bytes += bytes as u64;
            let mut rest = &octets[..bytes];
            while !rest.is_empty() {
                let (fed, _) = self.device.feed(rest, now);
                rest = &rest[fed..];
                while let Some(Received::New(message)) = self.device.poll_message() {
                    let ToDevice::Push { body, .. } = message else { continue };
                    came.push(body.len());
                }
            }
        }
    }
}

fn push(queue: &Queue, stream: Stream, session: u32, bytes: usize) {
    let (message, body) = (MessageId([bytes as u8; 8]), &vec![7; bytes][..]);
    let push = ToDevice::Push { message, channel: ChannelId(1), age: Age::UNKNOWN, body };
    let mut octets = [0; LINK_MESSAGE_BYTES_MAX];
    let bytes = push.emit(&mut octets).expect("it fits");
    queue.push(stream, Queued { session, octets: octets[..bytes].into(), until: None }).expect("room");
}

/// A pump whose time begins now.
fn pump(report: mpsc::Sender<Event>) -> (Pump, Rc<Queue>) {
    let queue = Rc::<Queue>::default();
    let pump = Pump {
        device: "meter".parse().expect("an id"),
        mtu: 256,
        listener: Listener::memory(memory::pair().1),
        queue: Rc::clone(&queue),
        input: Rc::new(RefCell::new([0; READ_BYTES])),
        report,
        session: Rc::default(),
        session_count: Rc::default(),
        start: tokio::time::Instant::now(),
    };
    (pump, queue)
}

/// A pump at a port, and the device at its far end, in a session.
async fn at_port(port: impl FnOnce(DuplexStream) -> LinkConnection) -> (Rc<Queue>, Far, u32, mpsc::Receiver<Event>) {
    let (near, stream) = tokio::io::duplex(65_536);
    let (report, mut events) = mpsc::channel(8);
    let (mut pump, queue) = pump(report);
    let (id, start) = (pump.device.clone(), pump.start);
    let port = port(near);
    tokio::task::spawn_local(async move { Carrier::new(&mut pump, port).carry(&mut Retry::new()).await });
    let config = Config { role: Role::Device, boot_id: 7, mtu: 256 };
    let mut far = Far { device: Meter::new(id, config, Instant::ZERO), stream, bytes: 0, start };
    loop {
        far.pass().await;
        if let Ok(Event::Up { session, .. }) = events.try_recv() {
            return (queue, far, session, events);
        }
    }
}

/// C-33: what the driver holds cannot be overtaken, so it never holds more than what keeps the line busy.
#[tokio::test(flavor = "local", start_paused = true)]
async fn c_33_an_urgent_message_waits_for_milliseconds_of_others() {
    let honest = |written: &Written| written.busy_until.saturating_duration_since(tokio::time::Instant::now());
    let (queue, mut far, session, _events) = at_port(|stream| Port::boxed(stream, honest)).await;
    push(&queue, Stream::Ordered, session, 3_900);
    let before = far.bytes;
    for _ in 0..100 {
        assert_eq!(far.pass().await, [0; 0]);
    }
    let sent = far.bytes - before;
    assert!(sent <= (100 + LINE_AHEAD_MS) * OCTETS_PER_MS + 2 * 256, "{sent} octets in 100 ms");
    assert!(sent >= 95 * OCTETS_PER_MS, "the line is busy throughout: {sent} octets in 100 ms");
    push(&queue, Stream::Urgent, session, 20);
    let mut waited_ms = 0;
    while far.pass().await != [20] {
        waited_ms += 1;
        assert!(waited_ms <= LINE_AHEAD_MS + 2 * 256 / OCTETS_PER_MS, "it waits for {waited_ms} ms");
    }
}

struct Bench {
    plug: memory::Plug,
    events: mpsc::Receiver<Event>,
    queue: Rc<Queue>,
    start: tokio::time::Instant,
}

fn bench() -> Bench {
    let start = tokio::time::Instant::now();
    let (report, events) = mpsc::channel(64);
    let (queue, id) = (Rc::<Queue>::default(), "meter".parse::<DeviceId>().expect("an id"));
    let (plug, socket) = memory::pair();
    let mut pump = Pump {
        device: id,
        mtu: 256,
        listener: Listener::memory(socket),
        queue: Rc::clone(&queue),
        input: Rc::new(RefCell::new([0; READ_BYTES])),
        report,
        session: Rc::default(),
        session_count: Rc::default(),
        start,
    };
    tokio::task::spawn_local(async move { pump.run().await });
    Bench { plug, events, queue, start }
}

fn far(bench: &Bench, boot_id: u32) -> Far {
    let config = Config { role: Role::Device, boot_id, mtu: 256 };
    let device = Meter::new("meter".parse().expect("an id"), config, Instant::ZERO);
    let stream = bench.plug.connect(65_536).expect("it listens");
    Far { device, stream, bytes: 0, start: bench.start }
}

async fn session_of(bench: &mut Bench, far: &mut Far) -> u32 {
    for _ in 0..5_000 {
        far.pass().await;
        if let Ok(Event::Up { session, .. }) = bench.events.try_recv() {
            return session;
        }
    }
    panic!("no session")
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn the_newer_connection_takes_over_when_the_older_one_ends() {
    let mut bench = bench();
    let mut first = far(&bench, 7);
    session_of(&mut bench, &mut first).await;
    let mut second = far(&bench, 8);
    // Neither says anything for 100 ms, and then the older one is gone.
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(first);
    let mut octets = [0; 256];
    let read = tokio::time::timeout(Duration::from_secs(5), second.stream.read(&mut octets)).await;
    assert!(!matches!(read, Ok(Ok(0))), "the newer connection was closed, and no other one is there");
}

/// The device is there and answers each message, but the one PROBE frame was lost, or overtaken before it was
/// answered (which the specification allows).
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_device_that_acknowledges_messages_is_not_replaced() {
    let mut bench = bench();
    let mut first = far(&bench, 7);
    let session = session_of(&mut bench, &mut first).await;
    let _second = far(&bench, 8);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut acks = 0;
    for number in 1..400 {
        // A message each 10 ms; the device looks at its port each 10 ms.
        push(&bench.queue, Stream::Ordered, session, 20 + number % 50);
        tokio::time::sleep(Duration::from_millis(10)).await;
        let ended = tokio::time::timeout(Duration::ZERO, first.pass_and_accept()).await;
        while let Ok(event) = bench.events.try_recv() {
            acks += usize::from(matches!(event, Event::Message { message: ToGateway::Ack { .. }, .. }));
            assert!(!matches!(event, Event::Down { .. }), "after {acks} messages acknowledged: {event:?}");
        }
        assert!(!matches!(ended, Ok(Err(_))), "closed after {acks} messages acknowledged");
    }
    assert!(acks > 300);
}

/// A channel that is urgent by configuration, and a device without an urgent stream.
#[tokio::test(flavor = "local", start_paused = true)]
async fn an_urgent_message_that_does_not_fit_the_urgent_stream_waits_for_room_in_the_other() {
    let mut bench = bench();
    let config = Config { role: Role::Device, boot_id: 7, mtu: 256 };
    type Plain = Device<DeviceMemory<256, 4_098, 0, 512>, 16>;
    let mut device = Plain::new("meter".parse().expect("an id"), config, Instant::ZERO);
    let mut stream = bench.plug.connect(65_536).expect("it listens");
    let (mut octets, mut came, mut session, mut is_pushed) = ([0; 256], Vec::new(), None, false);
    for _ in 0..2_000 {
        let now = Instant::ZERO + bench.start.elapsed();
        while let Some(bytes) = device.poll_transmit(now, &mut octets) {
            stream.write_all(&octets[..bytes]).await.expect("it is open");
        }
        if let Ok(Ok(bytes)) = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut octets)).await {
            let mut rest = &octets[..bytes];
            while !rest.is_empty() {
                let (fed, _) = device.feed(rest, now);
                rest = &rest[fed..];
                while let Some(Received::New(message)) = device.poll_message() {
                    if let ToDevice::Push { body, .. } = message {
                        came.push(body.len());
                    }
                }
            }
        }
        if let Ok(Event::Up { session: number, .. }) = bench.events.try_recv() {
            session = Some(number);
        }
        if let (Some(session), false) = (session, is_pushed) {
            is_pushed = true;
            push(&bench.queue, Stream::Ordered, session, 3_900);
            push(&bench.queue, Stream::Ordered, session, 3_901);
            // It comes a moment later, as it does when another channel is busy.
            tokio::time::sleep(Duration::from_millis(1)).await;
            push(&bench.queue, Stream::Urgent, session, 1_000);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    came.sort_unstable();
    assert_eq!(came, [1_000, 3_900, 3_901]);
}

impl Far {
    /// Reads all that is there, feeds it, and only then sends: a loop that is not always at its port.
    async fn pass_and_accept(&mut self) -> std::io::Result<()> {
        let mut octets = [0; 4096];
        let now = Instant::ZERO + self.start.elapsed();
        let read = tokio::time::timeout(Duration::from_millis(1), self.stream.read(&mut octets)).await;
        if let Ok(Ok(bytes)) = read {
            let mut rest = &octets[..bytes];
            while !rest.is_empty() {
                let (fed, _) = self.device.feed(rest, now);
                rest = &rest[fed..];
                let mut ids = Vec::new();
                while let Some(received) = self.device.poll_message() {
                    if let Received::New(ToDevice::Push { message, .. }) = received {
                        ids.push(message);
                    }
                }
                ids.into_iter().for_each(|id| self.device.accept(id));
            }
        }
        while let Some(bytes) = self.device.poll_transmit(now, &mut octets) {
            self.stream.write_all(&octets[..bytes]).await?;
        }
        Ok(())
    }
}

/// The driver of USB CDC-ACM devices (Linux, cdc-acm.c): a write is gone within a millisecond, and until then
/// TIOCOUTQ says 20 packets of 64 octets, "inaccurate (overcounts), but it works".
async fn acm_ms(held: u64) -> u128 {
    let overcounts = move |written: &Written| {
        let is_busy = written.at.elapsed() < Duration::from_millis(1);
        Duration::from_micros(if is_busy { held * 10_000_000 / 115_200 } else { 0 })
    };
    let (queue, mut far, session, _events) = at_port(|stream| Port::boxed(stream, overcounts)).await;
    push(&queue, Stream::Ordered, session, 3_900);
    let from = tokio::time::Instant::now();
    while far.pass().await != [3_900] {}
    from.elapsed().as_millis()
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_usb_device_is_not_slowed_down_by_a_driver_that_overcounts() {
    let good = acm_ms(0).await;
    let full_speed = acm_ms(20 * 64).await;
    let high_speed = acm_ms(20 * 512).await;
    assert!(
        full_speed <= 400 && high_speed <= 400,
        "3900 octets in {full_speed} ms at full speed, {high_speed} ms at high speed; {good} ms if the driver counts; \
         a real line of 115200 baud takes 340 ms"
    );
}

/// A device that hangs: its driver holds 104 octets for ever, 9 ms of the line.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_port_that_stands_still_costs_little() {
    let (near, _far) = tokio::io::duplex(65_536);
    let (report, _events) = mpsc::channel(8);
    let (mut pump, _queue) = pump(report);
    let looks = Rc::new(Cell::new(0));
    let counted = Rc::clone(&looks);
    let port = Port::boxed(near, move |_| {
        counted.set(counted.get() + 1);
        Duration::from_millis(9)
    });
    tokio::task::spawn_local(async move { Carrier::new(&mut pump, port).carry(&mut Retry::new()).await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(looks.get() < 600, "{} looks in a minute", looks.get());
}

/// A device acknowledges its last push and sleeps, in one go. The gateway's machine answers the Ack with Status 0, as
/// "one with 0 follows as soon as nothing waits" says, and Awake with a Status of that moment.
#[tokio::test(flavor = "local", start_paused = true)]
async fn what_a_device_hears_first_when_it_wakes_is_not_hours_old() {
    use crate::wire::message::Uplink;
    let mut bench = bench();
    let mut far = far(&bench, 7);
    let session = session_of(&mut bench, &mut far).await;
    let say = |waiting, time| {
        let status = ToDevice::Status { uplink: Uplink::Connected, waiting, time };
        let mut octets = [0; 32];
        let bytes = status.emit(&mut octets).expect("it fits");
        Queued { session, octets: octets[..bytes].into(), until: None }
    };
    far.device.send(&ToGateway::Ack { message: MessageId([1; 8]) }).expect("room");
    far.device.send(&ToGateway::Sleep { seconds: 3_600 }).expect("room");
    for _ in 0..20 {
        far.pass().await;
        if let Ok(Event::Message { message: ToGateway::Ack { .. }, .. }) = bench.events.try_recv() {
            bench.queue.push(Stream::Ordered, say(0, 1_800_000_000_000)).expect("room");
        }
    }
    assert!(far.device.is_idle(), "the device may switch off");
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    far.device.send(&ToGateway::Awake).expect("room");
    let mut octets = [0; 256];
    let mut heard = Vec::new();
    for _ in 0..50 {
        let now = Instant::ZERO + bench.start.elapsed();
        while let Some(bytes) = far.device.poll_transmit(now, &mut octets) {
            far.stream.write_all(&octets[..bytes]).await.expect("it is open");
        }
        if let Ok(Ok(bytes)) = tokio::time::timeout(Duration::from_millis(1), far.stream.read(&mut octets)).await {
            let mut rest = &octets[..bytes];
            while !rest.is_empty() {
                let (fed, _) = far.device.feed(rest, now);
                rest = &rest[fed..];
                while let Some(Received::New(message)) = far.device.poll_message() {
                    if let ToDevice::Status { waiting, time, .. } = message {
                        heard.push((waiting, time));
                    }
                }
            }
        }
        if let Ok(Event::Message { message: ToGateway::Awake, .. }) = bench.events.try_recv() {
            bench.queue.push(Stream::Ordered, say(2, 1_800_003_600_000)).expect("room");
        }
    }
    assert_eq!(heard.first(), Some(&(2, 1_800_003_600_000)), "all it heard: {heard:?}");
}

/// A push is handed over in the moment in which its device falls asleep, and is of use for five seconds more.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_push_that_expired_while_its_device_slept_does_not_reach_it() {
    let mut bench = bench();
    let mut far = far(&bench, 7);
    let session = session_of(&mut bench, &mut far).await;
    far.device.send(&ToGateway::Sleep { seconds: 3_600 }).expect("room");
    for _ in 0..20 {
        far.pass().await;
        if let Ok(Event::Message { message: ToGateway::Sleep { .. }, .. }) = bench.events.try_recv() {
            let push = ToDevice::Push {
                message: MessageId([9; 8]),
                channel: ChannelId(1),
                age: Age::UNKNOWN,
                body: b"open the door",
            };
            let mut octets = [0; 64];
            let bytes = push.emit(&mut octets).expect("it fits");
            let until = Some(Instant::ZERO + bench.start.elapsed() + Duration::from_secs(5));
            bench.queue.push(Stream::Ordered, Queued { session, octets: octets[..bytes].into(), until }).expect("room");
        }
    }
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    far.device.send(&ToGateway::Awake).expect("room");
    for _ in 0..50 {
        assert_eq!(far.pass().await, [0; 0], "an hour late");
    }
}
