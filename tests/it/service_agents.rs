//! User agents that move, that say much of themselves, and that flood.

use fieldgate::limits::SERVICE_ASKED_COUNT_MAX;
use fieldgate::webpush::{base64url, from_base64url};

use crate::raw_user_agent::{
    CONTINUATION, DATA, END_HEADERS, Frame, GOAWAY, HEADERS, PING, PUSH_PROMISE, RST_STREAM, RawUserAgent, SETTINGS,
    block, frame,
};
use crate::service::{Client, Rig, Subscribed};

const ENHANCE_YOUR_CALM: u32 = 11;

/// The messages in frames, by their content.
fn contents(frames: &[Frame]) -> Vec<String> {
    let messages = frames.iter().filter(|frame| frame.kind == DATA);
    messages.map(|frame| String::from_utf8_lossy(&frame.payload).into_owned()).collect()
}

/// A-PS-65: a client that moves to another connection loses nothing, and gets nothing again that it has acknowledged.
#[tokio::test(flavor = "local")]
async fn a_ps_65_a_client_may_move() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let mut old = RawUserAgent::connect(&rig, &[]).await;
    old.request(1, "GET", &made.set, &[]).await;
    old.barrier().await;
    let mut messages = Vec::new();
    for number in 1..=4 {
        messages.push(client.message(&made.push, "600", format!("{number}").as_bytes()).await);
    }
    let mut seen = Vec::new();
    while contents(&seen).len() < 4 {
        seen.push(old.next().await.expect("open"));
    }
    let promised: Vec<u32> =
        seen.iter().filter(|frame| frame.kind == PUSH_PROMISE).map(|frame| frame.promised()).collect();

    let mut new = RawUserAgent::connect(&rig, &[]).await;
    new.request(1, "GET", &made.set, &[]).await;
    new.barrier().await;
    for message in &messages[..2] {
        assert_eq!(client.acknowledge(message).await, 204);
    }
    old.send(GOAWAY, 0, 0, &[promised[1].to_be_bytes(), 0_u32.to_be_bytes()].concat()).await;
    let mut seen = Vec::new();
    while contents(&seen).len() < 2 {
        seen.push(new.next().await.expect("open"));
    }
    assert_eq!(contents(&seen), ["3", "4"]);
    assert_eq!(contents(&new.barrier().await), [""; 0]);
    client.message(&made.push, "600", b"5").await;
    while contents(&seen).len() < 3 {
        seen.push(new.next().await.expect("open"));
    }
    assert_eq!(contents(&seen)[2], "5");
}

/// A-PS-86, A-PS-87, A-PS-88: nothing that a client says of itself is in a URI, nor is what reads in what sends.
#[tokio::test(flavor = "local")]
async fn a_ps_87_uris_say_nothing_of_their_user() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let said = [
        ("user-agent", "meter-firmware-7"),
        ("authorization", "Basic YWxpY2U6c2VjcmV0"),
        ("from", "alice@example.net"),
        ("cookie", "device=0123456789"),
        ("x-forwarded-for", "192.0.2.77"),
    ];
    let mut paths = Vec::new();
    for _ in 0..16 {
        let made = client.request("POST", "/subscribe", &said, b"").await;
        let mut these = vec![made.field("location").to_owned()];
        for link in made.fields.get_all("link") {
            these.push(link.to_str().expect("text").split(['<', '>']).nth(1).expect("a target").to_owned());
        }
        let push = these.get(1).expect("the push resource comes first").clone();
        these.push(client.request("POST", &push, &[said[0], ("ttl", "60")], b"m").await.field("location").to_owned());
        paths.extend(these);
    }
    let port = rig.authority().split_once(':').expect("a port").1.to_owned();
    for path in &paths {
        assert_eq!((path.len(), &path[..1]), (23, "/"), "no more than a slash and a token");
        let octets = from_base64url(&path[1..]).expect("a token");
        for word in said.iter().flat_map(|(_, value)| value.split([' ', '=', '@', '.'])).filter(|word| word.len() > 3) {
            let encoded = base64url(word.as_bytes());
            assert!(!path.contains(word) && !path.contains(&encoded), "{word}");
            assert!(!octets.windows(word.len()).any(|at| at.eq_ignore_ascii_case(word.as_bytes())), "{word}");
        }
        assert!(!octets.windows(4).any(|at| at == [127, 0, 0, 1] || at == [192, 0, 2, 77]) && !path.contains(&port));
    }
    // What is shared between any two of them is chance.
    for (index, path) in paths.iter().enumerate() {
        let shares = |other: &String| path.as_bytes()[1..].windows(6).any(|part| other[1..].contains(as_text(part)));
        assert!(!paths[..index].iter().any(shares));
    }
}

fn as_text(part: &[u8]) -> &str {
    std::str::from_utf8(part).expect("a path is ASCII")
}

/// What a client sends that wants to keep the service busy: the octets, and whether its connection ends for it.
fn floods(agent: &RawUserAgent, made: &Subscribed) -> Vec<(&'static str, Vec<u8>, bool)> {
    const COUNT: u32 = 20_000;
    let get = |stream| agent.request_frame(stream, "GET", &made.set, &[]);
    let reset = |stream| [get(stream), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat();
    let field = block(&[("x-field", "value")]);
    let endless = |payload: &[u8], count| {
        let start = frame(HEADERS, 0, 1, &block(&[(":method", "GET")]));
        [start, frame(CONTINUATION, 0, 1, payload).repeat(count)].concat()
    };
    let post = agent.request_frame(1, "POST", &made.push, &[("ttl", "60")]);
    // Without END_STREAM: its content follows.
    let post = [&post[..4], &[END_HEADERS], &post[5..]].concat();
    vec![
        ("resets", (0..COUNT).flat_map(|number| reset(2 * number + 1)).collect(), true),
        ("continuations", endless(&field, COUNT as usize), true),
        ("empty continuations", endless(b"", COUNT as usize), true),
        ("empty content", [post, frame(DATA, 0, 1, b"").repeat(COUNT as usize)].concat(), true),
        ("questions", frame(PING, 0, 0, &[7; 8]).repeat(COUNT as usize), true),
        ("few questions", frame(PING, 0, 0, &[7; 8]).repeat(SERVICE_ASKED_COUNT_MAX as usize - 10), false),
        ("settings", frame(SETTINGS, 0, 0, &[]).repeat(COUNT as usize), true),
    ]
}

async fn works(client: &mut Client, made: &Subscribed) {
    let message = client.message(&made.push, "60", b"m").await;
    let mut monitor = client.monitor(&made.set, None);
    assert_eq!(monitor.next().await.path(), message);
    assert_eq!(client.acknowledge(&message).await, 204);
}

/// A-ALL-11: a flood costs its own connection at most, others go on meanwhile and afterwards.
#[tokio::test(flavor = "local")]
async fn a_flood_is_in_nobody_s_way() {
    for flood in 0..7 {
        let rig = Rig::start().await;
        let mut client = rig.client().await;
        let made = client.subscribe(None).await;
        let mut agent = RawUserAgent::connect(&rig, &[]).await;
        let (name, octets, ends) = floods(&agent, &client.subscribe(None).await).swap_remove(flood);
        let (_, ()) = tokio::join!(agent.flood(&octets), works(&mut client, &made));
        if ends {
            let mut goodbye = None;
            while let Some(frame) = agent.next_or_end().await {
                goodbye = (frame.kind == GOAWAY).then(|| frame.code()).or(goodbye);
            }
            assert!([None, Some(ENHANCE_YOUR_CALM)].contains(&goodbye), "{name}: {goodbye:?}");
        } else {
            agent.barrier().await;
        }
        works(&mut client, &made).await;
    }
}
