//! Server push: what user agents see, as messages and as frames.

use std::time::Duration;

use bytes::Bytes;
use fieldgate::limits::{SERVICE_PROMISES_UNENDED_MAX, SERVICE_RETRY_MS_MIN};
use fieldgate::webpush::link;

use crate::raw_user_agent::{
    DATA, ENABLE_PUSH, END_STREAM, Frame, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, PRIORITY,
    PUSH_PROMISE, RST_STREAM, RawUserAgent, SETTINGS, STATUS_200, STATUS_400, STATUS_404, WINDOW_UPDATE, frame,
};
use crate::service::{PATIENCE, Rig};

const CANCEL: u32 = 8;
const REFUSED_STREAM: u32 = 7;

/// A-PS-47, A-PS-48, A-PS-51, D-9113-04: the push is promised on the open request and comes whole on an even stream.
#[tokio::test(flavor = "local")]
async fn a_ps_47_a_push_is_promised_on_the_monitoring_stream() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let mut agent = RawUserAgent::connect(&rig, &[]).await;
    agent.request(1, "GET", &made.set, &[]).await;
    assert_eq!(agent.barrier().await, []);
    rig.running.clock.skip(Duration::from_secs(3_600));
    assert_eq!(agent.barrier().await, [], "it stays open, without an answer");

    client.message(&made.push, "60", &[9; 300]).await;
    let promise = agent.expect(PUSH_PROMISE, 1).await;
    let stream = promise.promised();
    assert_eq!(stream % 2, 0);
    let head = agent.expect(HEADERS, stream).await;
    assert_eq!((head.payload[0], head.ends_stream()), (STATUS_200, false));
    let message = agent.expect(DATA, stream).await;
    assert_eq!((message.payload.len(), message.flags), (300, END_STREAM), "message and END_STREAM in one frame");
    assert_eq!(agent.barrier().await, []);
}

/// A-PS-32, A-PS-33, A-PS-35: a monitor gets what matters as much as it says, one that says nothing gets everything, and how
/// much a message matters is nobody else's business.
#[tokio::test(flavor = "local")]
async fn a_ps_33_a_message_that_says_nothing_is_normal() {
    for (wanted, expected) in [
        (Some("high"), &["high"][..]),
        (Some("normal"), &["nothing", "normal", "high"]),
        (Some("very-low"), &["nothing", "very-low", "low", "normal", "high"]),
        (None, &["nothing", "very-low", "low", "normal", "high"]),
    ] {
        let rig = Rig::start().await;
        let mut client = rig.client().await;
        let made = client.subscribe(None).await;
        let fields: Vec<(&str, &str)> = wanted.iter().map(|wanted| ("urgency", *wanted)).collect();
        let mut monitor = client.monitor_with(&made.set, &fields);
        for level in ["nothing", "very-low", "low", "normal", "high"] {
            let fields = [("ttl", "60"), ("urgency", level)];
            let fields = if level == "nothing" { &fields[..1] } else { &fields[..] };
            assert_eq!(client.request("POST", &made.push, fields, level.as_bytes()).await.status, 201);
        }
        let mut got = Vec::new();
        for _ in expected {
            let pushed = monitor.next().await;
            assert!(!pushed.promise.headers().contains_key("urgency") && !pushed.answer.fields.contains_key("urgency"));
            got.push(pushed.text());
        }
        assert_eq!(got, expected, "{wanted:?}");
        let stored = client.monitor(&made.set, Some("wait=0")).finish().await.1.len();
        assert_eq!(stored, 5, "the rest is kept, and what was not acknowledged comes again");
    }
}

/// A-PS-34: a message is pushed exactly when it matters as much as the monitor says, on a subscription as on a set; what is
/// withheld comes to a later monitor that asks for everything.
#[tokio::test(flavor = "local")]
async fn a_ps_34_nothing_below_the_level_of_a_monitor_is_pushed() {
    const LEVELS: [&str; 4] = ["very-low", "low", "normal", "high"];
    for (wanted, level) in LEVELS.iter().enumerate() {
        for on_set in [false, true] {
            let rig = Rig::start().await;
            let mut client = rig.client().await;
            let made = client.subscribe(None).await;
            let path = if on_set { &made.set } else { &made.subscription };
            let mut monitor = client.monitor_with(path, &[("urgency", *level)]);
            for level in LEVELS {
                let fields = [("ttl", "60"), ("urgency", level)];
                assert_eq!(client.request("POST", &made.push, &fields, level.as_bytes()).await.status, 201);
            }
            for expected in &LEVELS[wanted..] {
                let pushed = monitor.next().await;
                assert_eq!(pushed.text(), *expected);
                assert_eq!(client.acknowledge(pushed.path()).await, 204);
            }
            // On the same request they would come before its end.
            let rest = client.monitor(path, Some("wait=0")).finish().await.1;
            let rest: Vec<String> = rest.iter().map(|pushed| pushed.text()).collect();
            assert_eq!(rest, LEVELS[..wanted]);
            assert!(monitor.finish().await.1.is_empty());
        }
    }
}

/// A-PS-48, A-PS-49, A-PS-50, A-GAP-19: the promise names the whole request and its push resource, and so does the head.
#[tokio::test(flavor = "local")]
async fn a_ps_50_the_promise_itself_carries_the_push_link() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let one = client.subscribe(None).await;
    let two = client.subscribe(Some(&one.set)).await;
    let mut monitor = client.monitor(&one.set, None);
    for made in [&one, &two] {
        let message = client.message(&made.push, "60", b"m").await;
        let pushed = monitor.next().await;
        assert_eq!(pushed.promise.method(), "GET");
        assert_eq!(pushed.promise.uri().to_string(), format!("{}{message}", client.origin));
        for fields in [pushed.promise.headers(), &pushed.answer.fields] {
            let target = link::find(fields, link::PUSH, pushed.promise.uri()).expect("a link").expect("a good one");
            assert_eq!(target.to_string(), format!("{}{}", client.origin, made.push));
        }
    }
}

/// A-PS-51, A-PS-32, A-PS-45, A-PS-98: the content is the sender's, octet for octet, and of its fields two.
#[tokio::test(flavor = "local")]
async fn a_ps_51_content_is_unchanged_and_other_fields_stay_behind() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let mut monitor = client.monitor(&made.subscription, None);
    for length in [0, 1, 1_024, 4_096] {
        let content: Vec<u8> = (0..length).map(|octet: u32| octet.to_le_bytes()[0] ^ 0xa5).collect();
        let fields = [
            ("ttl", "60"),
            ("urgency", "high"),
            ("topic", "upd"),
            ("authorization", "Bearer x"),
            ("prefer", "x"),
            ("content-type", "application/x-thing"),
            ("content-encoding", "aes128gcm"),
        ];
        assert_eq!(client.request("POST", &made.push, &fields, &content).await.status, 201);
        let pushed = monitor.next().await;
        assert_eq!(pushed.answer.body, content);
        let mut names: Vec<&str> = pushed.answer.fields.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["cache-control", "content-encoding", "content-type", "date", "link"]);
        assert_eq!(pushed.answer.field("content-type"), "application/x-thing");
        // A second may end between acceptance and push.
        assert!(["private, max-age=60", "private, max-age=59"].contains(&pushed.answer.field("cache-control")));
    }
}

/// A-PS-52, A-PS-54, D-9113-04: five promises, then 200 with END_STREAM and nothing after it.
#[tokio::test(flavor = "local")]
async fn a_ps_52_wait_zero_ends_after_the_last_promise() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    for _ in 0..5 {
        client.message(&made.push, "60", b"m").await;
    }
    let mut agent = RawUserAgent::connect(&rig, &[]).await;
    agent.request(1, "GET", &made.set, &[("prefer", "x, wait=\"0\"")]).await;
    let mut promises = 0;
    loop {
        let frame = agent.next().await.expect("open");
        promises += usize::from(frame.kind == PUSH_PROMISE);
        if frame.stream == 1 && frame.kind == HEADERS {
            assert_eq!((frame.payload[0], frame.ends_stream(), promises), (STATUS_200, true, 5));
            break;
        }
    }
    client.message(&made.push, "60", b"after the end").await;
    assert!(agent.barrier().await.iter().all(|frame| frame.kind != PUSH_PROMISE));
}

/// A-PS-66, A-PS-67, A-PS-68, D-9110-04: stored messages come oldest first, with the time they were accepted.
#[tokio::test(flavor = "local")]
async fn a_ps_67_stored_messages_carry_last_modified() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    for body in ["1", "2", "3"] {
        client.message(&made.push, "600", body.as_bytes()).await;
    }
    rig.running.clock.skip(Duration::from_secs(300));
    let mut monitor = client.monitor(&made.set, None);
    for body in ["1", "2", "3"] {
        let pushed = monitor.next().await;
        assert_eq!(pushed.text(), body);
        let time = |name| httpdate::parse_http_date(pushed.answer.field(name)).expect("IMF-fixdate");
        let waited = time("date").duration_since(time("last-modified")).expect("in this order").as_secs();
        assert!((300..330).contains(&waited), "{waited}");
    }
    let fresh = client.message(&made.push, "600", b"fresh").await;
    let pushed = monitor.next().await;
    assert_eq!(pushed.path(), fresh);
    assert!(!pushed.answer.fields.contains_key("last-modified"));

    rig.running.clock.skip(Duration::from_secs(601));
    assert_eq!(client.monitor(&made.set, Some("wait=0")).end().await, 204);
    // A-GAP-06: the newer request displaced the older one.
    assert_eq!(monitor.end().await, 200);
}

/// A-PS-56, A-PS-58: what is not acknowledged comes again, what is does not.
#[tokio::test(flavor = "local")]
async fn a_ps_58_unacknowledged_messages_come_again() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let mut monitor = client.monitor(&made.set, None);
    let one = client.message(&made.push, "600", b"one").await;
    let two = client.message(&made.push, "600", b"two").await;
    assert_eq!((monitor.next().await.path(), monitor.next().await.path()), (&*one, &*two));
    assert_eq!(client.acknowledge(&one).await, 204);
    rig.running.clock.skip(Duration::from_millis(SERVICE_RETRY_MS_MIN * 5 / 4 + 1));
    assert_eq!(monitor.next().await.path(), two);

    // On a new connection at once, whether the old one said goodbye or not.
    drop((monitor, client));
    let mut client = rig.client().await;
    let mut monitor = client.monitor(&made.set, None);
    assert_eq!(monitor.next().await.path(), two);
    assert_eq!(client.acknowledge(&two).await, 204);
    assert_eq!(client.monitor(&made.subscription, Some("wait=0")).end().await, 204);
}

/// A-GAP-08, D-9113-08: a push reset before or after its end is refused; its subscription pauses until asked again.
#[tokio::test(flavor = "local")]
async fn a_gap_08_a_refused_push_pauses_its_subscription() {
    for (window, code) in [(0, CANCEL), (65_535, REFUSED_STREAM)] {
        let rig = Rig::start().await;
        let mut client = rig.client().await;
        let made = client.subscribe(None).await;
        let mut agent = RawUserAgent::connect(&rig, &[(INITIAL_WINDOW_SIZE, window)]).await;
        agent.request(1, "GET", &made.set, &[]).await;
        let message = client.message(&made.push, "60000", b"no").await;
        let stream = agent.expect(PUSH_PROMISE, 1).await.promised();
        agent.expect(HEADERS, stream).await;
        if window > 0 {
            agent.expect(DATA, stream).await;
        }
        agent.reset(stream, code).await;
        agent.barrier().await;
        client.message(&made.push, "60000", b"not yet").await;
        assert_eq!(agent.barrier().await, []);
        rig.running.clock.skip(Duration::from_secs(600));
        assert_eq!(agent.barrier().await, []);

        let mut monitor = client.monitor(&made.subscription, Some("wait=0"));
        assert_eq!(monitor.next().await.path(), message);
        assert_eq!(monitor.next().await.text(), "not yet");
        assert_eq!(monitor.end().await, 200);
    }
}

/// A-PS-74, A-PS-80, A-PS-81, A-GAP-16: removal answers the open requests with 404; the connection goes on.
#[tokio::test(flavor = "local")]
async fn a_ps_74_removal_answers_open_requests_with_404() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let one = client.subscribe(None).await;
    let two = client.subscribe(Some(&one.set)).await;
    let mut agent = RawUserAgent::connect(&rig, &[]).await;
    agent.request(1, "GET", &one.set, &[]).await;
    agent.request(3, "GET", &two.subscription, &[]).await;
    agent.barrier().await;

    assert_eq!(client.request("DELETE", &two.subscription, &[], b"").await.status, 204);
    let answer = agent.expect(HEADERS, 3).await;
    assert_eq!((answer.payload[0], answer.ends_stream()), (STATUS_404, true));
    // A-PS-82: the set goes on without it.
    client.message(&one.push, "60", b"m").await;
    agent.expect(PUSH_PROMISE, 1).await;

    assert_eq!(client.request("DELETE", &one.set, &[], b"").await.status, 204);
    let answer = loop {
        let frame = agent.next().await.expect("open");
        if frame.stream == 1 {
            break frame;
        }
    };
    assert_eq!((answer.payload[0], answer.ends_stream()), (STATUS_404, true));
    assert_eq!(agent.barrier().await, []);
    for gone in [&one.push, &two.push] {
        assert_eq!(client.request("POST", gone, &[("ttl", "5")], b"").await.status, 404);
    }
}

/// A-GAP-11, D-9113-03: a client without server push gets 400 and never a promise; the service does not offer pushes
/// to itself.
#[tokio::test(flavor = "local")]
async fn d_9113_03_no_promise_to_a_client_that_disabled_push() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let mut agent = RawUserAgent::connect(&rig, &[(ENABLE_PUSH, 0)]).await;
    assert!(agent.settings.iter().all(|(id, value)| *id != ENABLE_PUSH || *value == 0), "{:?}", agent.settings);
    agent.request(1, "GET", &made.set, &[]).await;
    let answer = agent.expect(HEADERS, 1).await;
    assert_eq!(answer.payload[0], STATUS_400);
    client.message(&made.push, "60", b"m").await;
    assert!(agent.barrier().await.iter().all(|frame| frame.kind == DATA && frame.stream == 1));
}

/// D-9113-09, D-9113-10: un-ended promises stay within the client's limit, and within ours if it states none.
#[tokio::test(flavor = "local")]
async fn d_9113_09_unended_promises_are_bounded() {
    for (limit, expected) in [(Some(1), 1), (Some(3), 3), (None, SERVICE_PROMISES_UNENDED_MAX)] {
        let rig = Rig::start().await;
        let mut client = rig.client().await;
        let first = client.subscribe(None).await;
        for number in 0..6 {
            let made = client.subscribe(Some(&first.set)).await;
            for _ in 0..8 {
                client.message(&made.push, "60", format!("{number}").as_bytes()).await;
            }
        }
        let mut settings: Vec<(u16, u32)> = limit.map(|limit| (MAX_CONCURRENT_STREAMS, limit)).into_iter().collect();
        settings.push((INITIAL_WINDOW_SIZE, 0));
        let mut agent = RawUserAgent::connect(&rig, &settings).await;
        agent.request(1, "GET", &first.set, &[]).await;
        let promises = |frames: &[Frame]| {
            let promised = frames.iter().filter(|frame| frame.kind == PUSH_PROMISE).map(Frame::promised);
            promised.collect::<Vec<u32>>()
        };
        let mut open = promises(&agent.barrier().await);
        let mut served = open.len();
        assert_eq!(served, expected);
        while let Some(stream) = open.pop() {
            agent.open_window(stream, 100).await;
            let new = promises(&agent.barrier().await);
            served += new.len();
            open.extend(new);
            assert!(open.len() <= expected, "{}", open.len());
        }
        assert_eq!(served, 48);
    }
}

/// D-9113-09: a client that lets more be promised than before gets it at once.
#[tokio::test(flavor = "local")]
async fn d_9113_09_a_raised_limit_is_used_at_once() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let mut agent = RawUserAgent::connect(&rig, &[(MAX_CONCURRENT_STREAMS, 0), (INITIAL_WINDOW_SIZE, 0)]).await;
    agent.request(1, "GET", &made.set, &[]).await;
    for _ in 0..4 {
        client.message(&made.push, "60", b"m").await;
    }
    assert_eq!(agent.barrier().await, []);
    for (limit, new) in [(1, 1), (3, 2)] {
        let limit: u32 = limit;
        agent.send(SETTINGS, 0, 0, &[&MAX_CONCURRENT_STREAMS.to_be_bytes()[..], &limit.to_be_bytes()].concat()).await;
        let promises = agent.barrier().await.iter().filter(|frame| frame.kind == PUSH_PROMISE).count();
        assert_eq!(promises, new, "up to {limit}");
    }
}

/// D-9113-11: a receiver whose window is small gets its message in pieces, and is not in the way of others.
#[tokio::test(flavor = "local")]
async fn d_9113_11_flow_control_is_obeyed() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let mut agent = RawUserAgent::connect(&rig, &[(INITIAL_WINDOW_SIZE, 1_000)]).await;
    agent.request(1, "GET", &made.subscription, &[]).await;
    client.message(&made.push, "60", &[3; 2_500]).await;
    let stream = agent.expect(PUSH_PROMISE, 1).await.promised();
    agent.expect(HEADERS, stream).await;
    for (octets, flags) in [(1_000, 0), (1_000, 0), (500, END_STREAM)] {
        let piece = agent.expect(DATA, stream).await;
        assert_eq!((piece.payload.len(), piece.flags), (octets, flags));
        agent.open_window(stream, 1_000).await;
    }
    // The window of the one is shut; the other does not notice.
    let other = client.subscribe(None).await;
    let mut monitor = client.monitor(&other.subscription, None);
    client.message(&made.push, "60", &[3; 1_500]).await;
    for _ in 0..20 {
        let message = client.message(&other.push, "60", b"m").await;
        assert_eq!(monitor.next().await.path(), message);
        client.acknowledge(&message).await;
    }
}

/// A-PS-28: a message that expires while it waits for the receiver's window is reset, not sent late.
#[tokio::test(flavor = "local")]
async fn a_ps_28_a_message_that_expires_while_it_waits_is_reset() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let mut agent = RawUserAgent::connect(&rig, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    agent.request(1, "GET", &made.subscription, &[]).await;
    client.message(&made.push, "10", b"m").await;
    let stream = agent.expect(PUSH_PROMISE, 1).await.promised();
    agent.expect(HEADERS, stream).await;
    rig.running.clock.skip(Duration::from_secs(11));
    assert_eq!(agent.expect(RST_STREAM, stream).await.code(), CANCEL);
    // The next one is not held up by it.
    client.message(&made.push, "10", b"").await;
    let stream = agent.expect(PUSH_PROMISE, 1).await.promised();
    assert!(agent.expect(HEADERS, stream).await.ends_stream());
}

/// A-PS-29, A-PS-30, A-PS-31: a lifetime of zero reaches who is there, once.
#[tokio::test(flavor = "local")]
async fn a_ps_29_ttl_zero_is_for_who_is_there() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    client.message(&made.push, "0", b"nobody").await;
    assert_eq!(client.monitor(&made.set, Some("wait=0")).end().await, 204);
    let mut monitor = client.monitor(&made.set, None);
    let message = client.message(&made.push, "0", b"somebody").await;
    assert_eq!(monitor.next().await.path(), message);
    assert!([204, 404].contains(&client.acknowledge(&message).await.as_u16()));
    drop((monitor, client));
    let mut client = rig.client().await;
    assert_eq!(client.monitor(&made.set, Some("wait=0")).end().await, 204);
}

/// A-PS-54, D-9113-13, D-9113-14: stopping ends monitors with 200, says goodbye in two steps, and closes.
#[tokio::test(flavor = "local")]
async fn d_9113_14_stopping_is_graceful() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let mut agent = RawUserAgent::connect(&rig, &[]).await;
    agent.request(1, "GET", &made.set, &[]).await;
    agent.barrier().await;
    let Rig { running, folder: _folder } = rig;
    let stopping = tokio::task::spawn_local(running.stop());
    let mut last_streams = Vec::new();
    let mut answer = None;
    while let Some(frame) = agent.next().await {
        match frame.kind {
            HEADERS if frame.stream == 1 => answer = Some((frame.payload[0], frame.ends_stream())),
            GOAWAY => last_streams.push((frame.number(0), frame.code())),
            _ => panic!("{frame:?}"),
        }
    }
    assert_eq!(answer, Some((STATUS_200, true)));
    assert_eq!(last_streams, [(0x7fff_ffff, 0), (1, 0)]);
    stopping.await.expect("it stops");
}

/// D-9113-07, D-9113-20: a promise from a client ends the connection; unknown frames and settings do nothing.
#[tokio::test(flavor = "local")]
async fn d_9113_07_a_promise_from_a_client_is_a_connection_error() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let mut agent = RawUserAgent::connect(&rig, &[(0xfafa, 1)]).await;
    agent.request(1, "GET", &made.set, &[]).await;
    for stream in [0, 1] {
        agent.send(0xfa, 0xff, stream, b"whatever").await;
    }
    client.message(&made.push, "60", b"m").await;
    let stream = agent.expect(PUSH_PROMISE, 1).await.promised();
    agent.expect(HEADERS, stream).await;
    agent.expect(DATA, stream).await;

    agent.send(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2, 0x82]).await;
    let goodbye = agent.expect(GOAWAY, 0).await;
    assert_eq!(goodbye.code(), 1, "PROTOCOL_ERROR");
    assert_eq!(agent.next().await, None);
}

/// D-9113-04: requests that end while messages come in: no promise after the end, and every message arrives.
#[tokio::test(flavor = "local")]
async fn d_9113_04_no_promise_after_the_end_of_a_monitor() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let mut sender = rig.client().await;
    let made = client.subscribe(None).await;
    let mut received = 0;
    for round in 0..200_u32 {
        let monitor = client.monitor(&made.set, Some("wait=0"));
        let body = round.to_be_bytes();
        // The library would end the connection if a promise came after the end.
        let ((status, pushes), _) = tokio::join!(monitor.finish(), sender.message(&made.push, "60", &body));
        assert_eq!(status == 200, !pushes.is_empty());
        for pushed in pushes {
            assert_eq!(client.acknowledge(pushed.path()).await, 204);
            received += 1;
        }
    }
    received += client.monitor(&made.set, Some("wait=0")).finish().await.1.len();
    assert_eq!(received, 200);
}

/// A-PS-52, A-GAP-08: two hundred stored messages for a receiver that takes eight at a time: each is promised once.
#[tokio::test(flavor = "local")]
async fn a_gap_08_a_long_queue_is_pushed_once() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    for number in 0..200 {
        client.message(&made.push, "600", format!("{number}").as_bytes()).await;
    }
    let mut monitor = client.monitor(&made.subscription, None);
    for number in 0..200 {
        let pushed = monitor.next().await;
        assert_eq!(pushed.text(), format!("{number}"));
        assert_eq!(client.acknowledge(pushed.path()).await, 204);
    }
    assert_eq!(client.monitor(&made.set, Some("wait=0")).end().await, 204);
}

/// Many receivers at once: everyone gets what is theirs.
#[tokio::test(flavor = "local")]
async fn a_burst_over_many_members_arrives_whole() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let first = client.subscribe(None).await;
    let mut members = vec![first.clone()];
    for _ in 1..64 {
        members.push(client.subscribe(Some(&first.set)).await);
    }
    let mut monitor = client.monitor(&first.set, None);
    let mut expected = Vec::new();
    for (number, member) in members.iter().enumerate() {
        let content = vec![u8::try_from(number).expect("small"); 1 + 64 * number];
        expected.push((client.message(&member.push, "60", &content).await, Bytes::from(content)));
    }
    for _ in 0..expected.len() {
        let pushed = monitor.next().await;
        let index = expected.iter().position(|(path, _)| path == pushed.path()).expect("it was sent, and came once");
        assert_eq!(expected.swap_remove(index).1, pushed.answer.body);
    }
}

/// D-9113-08, D-9113-11: a stream error on a promised stream costs that push and nothing else.
#[tokio::test(flavor = "local")]
async fn d_9113_11_a_stream_error_on_a_promise_refuses_it() {
    let overflow = |stream| {
        let increment = frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
        [increment.clone(), increment]
    };
    let depends_on_itself = |stream: u32| {
        let [s0, s1, s2, s3] = stream.to_be_bytes();
        [frame(PRIORITY, 0, stream, &[s0, s1, s2, s3, 5]), vec![]]
    };
    for error in [&overflow as &dyn Fn(u32) -> [Vec<u8>; 2], &depends_on_itself] {
        let rig = Rig::start().await;
        let mut client = rig.client().await;
        let made = client.subscribe(None).await;
        let mut agent = RawUserAgent::connect(&rig, &[(INITIAL_WINDOW_SIZE, 0)]).await;
        agent.request(1, "GET", &made.set, &[]).await;
        let message = client.message(&made.push, "600", &[1; 4_000]).await;
        let stream = agent.expect(PUSH_PROMISE, 1).await.promised();
        agent.expect(HEADERS, stream).await;
        let start = tokio::time::Instant::now();
        agent.send_together(&error(stream)).await;
        while agent.next().await.expect("open").kind != RST_STREAM {}
        // A service that is busy with itself would keep this thread.
        assert!(start.elapsed() < PATIENCE);
        // Both connections go on, and the message comes to who asks next.
        agent.barrier().await;
        let mut monitor = client.monitor(&made.subscription, Some("wait=0"));
        assert_eq!(monitor.next().await.path(), message);
    }
}

/// D-9113-04: a monitor that is reset as soon as it is there, by whichever side, is promised nothing.
#[tokio::test(flavor = "local")]
async fn d_9113_04_no_promise_on_a_monitor_that_is_reset_at_once() {
    let reset = frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes());
    let depends_on_itself = frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 5]);
    for end in [reset, depends_on_itself] {
        let rig = Rig::start().await;
        let mut client = rig.client().await;
        let made = client.subscribe(None).await;
        client.message(&made.push, "600", b"stored").await;
        let mut agent = RawUserAgent::connect(&rig, &[]).await;
        let request = agent.request_frame(1, "GET", &made.set, &[]);
        agent.send_together(&[request, end]).await;
        client.message(&made.push, "600", b"new").await;
        let seen = agent.barrier().await;
        assert!(seen.iter().all(|frame| frame.kind == RST_STREAM), "{seen:?}");
        agent.request(3, "GET", &made.set, &[]).await;
        let stream = agent.expect(PUSH_PROMISE, 3).await.promised();
        agent.expect(HEADERS, stream).await;
    }
}

/// A-GAP-11, D-9113-03: a client that switches server push off is told on its open requests, and the connection goes on.
#[tokio::test(flavor = "local")]
async fn d_9113_03_switching_push_off_ends_monitors() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let mut agent = RawUserAgent::connect(&rig, &[]).await;
    agent.request(1, "GET", &made.set, &[]).await;
    assert_eq!(agent.barrier().await, []);
    agent.send(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 0]).await;
    assert_eq!(agent.expect(HEADERS, 1).await.payload[0], STATUS_400);
    assert!(agent.expect(DATA, 1).await.ends_stream());
    client.message(&made.push, "60", b"m").await;
    assert_eq!(agent.barrier().await, []);
}
