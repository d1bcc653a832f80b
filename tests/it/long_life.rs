//! Connections that live long: no counter of the HTTP/2 library ends one, and none grows without end.
//!
//! `FIELDGATE_LONG_PUSHES=200000 cargo test --release --test it long_life` takes its time.

use std::process::Command;
use std::time::Duration;

use fieldgate::limits::{CONNECTION_REFUSALS_MAX, REPLACE_PAUSE_MS};
use fieldgate::webpush::resource::PushUri;
use tokio::time::Instant;

use crate::raw_push_service::{Connection, GOOD_HEAD, Seen, head};
use crate::raw_stage::Stage;
use crate::raw_user_agent::{DATA, RST_STREAM, frame};

const REPLACE_PAUSE: Duration = Duration::from_millis(REPLACE_PAUSE_MS + 1_000);
const CANCEL: u32 = 8;
/// Set in the process that does one test.
const ALONE: &str = "FIELDGATE_LONG_ALONE";
const PUSHES: usize = 6_000;
/// Promises that are answered together; the gateway allows twice as many at once.
const BATCH: usize = 8;
/// Messages that are promised again while they are in flight: fewer than a connection is replaced after.
const IN_FLIGHT: usize = 100;
/// A part of a message.
const PIECE: [u8; 1_000] = [7; 1_000];

/// D-9113-11, D-9113-09: of thousands of pushes all but some are refused in the middle of their content, which goes on after
/// the refusal. Connections are replaced before a budget of the library is used up, new before old; the old ones end in
/// order; what is wanted arrives throughout, and the credit of what was refused comes back.
#[tokio::test(flavor = "local")]
async fn no_connection_ends_by_a_counter() {
    if !is_alone("long_life::no_connection_ends_by_a_counter") {
        return;
    }
    let pushes = std::env::var("FIELDGATE_LONG_PUSHES").ok().and_then(|count| count.parse().ok()).unwrap_or(PUSHES);
    let mut stage = Stage::set().await;
    let origin = stage.service.url.trim_end_matches("/subscribe").to_owned();
    let unknown = PushUri::parse(&format!("{origin}/p/unknown")).expect("a URI");
    let (mut replaced, mut delivered, mut refused, mut replaced_at) = (0, 0, 0, None);
    let before = resident();
    let mut settled = before;
    for batch in 0..pushes / BATCH {
        let needed = (BATCH * 2 * PIECE.len()) as i64;
        stage.device.tend(stage.connection.serve_until(|it| it.credit >= needed)).await;
        stage.connection.credit -= needed;
        for number in 0..BATCH {
            let (stream, promise) = stage.connection.promise(&unknown, &format!("/u/{batch}-{number}"));
            let begun = [promise, head(stream, &GOOD_HEAD, 0), frame(DATA, 0, stream, &PIECE)];
            stage.connection.send(&begun).await;
            refused += 1;
            // It crosses the refusal.
            stage.connection.send(&[frame(DATA, 0, stream, &PIECE)]).await;
        }
        let target = refused;
        stage.device.tend(stage.connection.serve_until(|it| resets(it) >= target)).await;
        if batch % 16 == 0 {
            stage.deliver(&format!("/m/{batch}"), &format!("message {batch}")).await;
            delivered += 1;
        }
        // Not more often than so, however many are refused.
        let is_replaceable = replaced_at.is_none_or(|at: Instant| at.elapsed() > REPLACE_PAUSE);
        if refused >= CONNECTION_REFUSALS_MAX as usize && is_replaceable {
            let next = stage.device.tend(stage.connection.serve(stage.service.accept())).await;
            let mut old = std::mem::replace(&mut stage.connection, next);
            let monitored = stage.connection.serve_until(Connection::is_monitored);
            stage.device.tend(old.serve(monitored)).await;
            let ended = old.serve_until(|it| it.count(Seen::GoAway { code: 0 }) > 0);
            stage.device.tend(stage.connection.serve(ended)).await;
            (replaced, refused, replaced_at) = (replaced + 1, 0, Some(Instant::now()));
            if replaced == 1 {
                settled = resident();
            }
        }
    }
    stage.deliver("/m/last", "the last one").await;
    let is_done = |status: &serde_json::Value| status["counters"]["acknowledged"] == delivered + 1;
    let status = stage.device.tend(stage.connection.serve(stage.rig.await_status(is_done))).await;
    assert_eq!(status["counters"]["connections"], replaced + 1);
    assert!(status["trouble"].is_null() && status["uplink"] == "connected", "{status}");
    assert!(replaced > 0);
    println!("{pushes} refused, {replaced} replaced, resident {before}, {settled} and at last {} pages", resident());
    // Of both ends and the test, in one process: a leak of a stream a push would be many times as much.
    assert!(resident() < settled + 1_000, "{settled} pages have become {}", resident());
}

/// D-9113-11: on one connection most promises are taken back by the service before the gateway has taken them, some are of
/// a message that is in flight, and the rest are delivered: nothing of that adds up to an end of the connection.
#[tokio::test(flavor = "local")]
async fn no_connection_ends_by_what_the_service_takes_back() {
    if !is_alone("long_life::no_connection_ends_by_what_the_service_takes_back") {
        return;
    }
    let pushes = std::env::var("FIELDGATE_LONG_PUSHES").ok().and_then(|count| count.parse().ok()).unwrap_or(PUSHES / 2);
    let mut stage = Stage::set().await;
    let to = stage.subscription.endpoint.clone();
    let (rounds, mut settled) = (pushes / BATCH, 0);
    for round in 0..rounds {
        for number in 0..BATCH - 1 {
            let (stream, promise) = stage.connection.promise(&to, &format!("/t/{round}-{number}"));
            let taken_back = frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
            stage.connection.send(&[promise, head(stream, &GOOD_HEAD, 0), taken_back]).await;
        }
        let (path, text) = (format!("/m/{round}"), format!("message {round}"));
        let body = stage.encrypted(&text);
        stage.connection.push(&to, &path, &GOOD_HEAD, &body).await;
        let message = stage.connection.serve(stage.device.hear_push(&text)).await;
        if round < IN_FLIGHT {
            let (stream, again) = stage.connection.promise(&to, &path);
            stage.connection.send(&[again]).await;
            let refused = Seen::Reset { stream, code: CANCEL };
            stage.device.tend(stage.connection.serve_until(|it| it.count(refused) > 0)).await;
        }
        stage.acknowledge(message).await;
        if round == rounds / 10 {
            settled = resident();
        }
    }
    let is_done = |status: &serde_json::Value| status["counters"]["acknowledged"] == rounds;
    let status = stage.device.tend(stage.connection.serve(stage.rig.await_status(is_done))).await;
    assert_eq!(status["counters"]["connections"], 1, "{status}");
    assert!(status["trouble"].is_null() && status["uplink"] == "connected", "{status}");
    println!("{pushes} promised, {rounds} delivered, resident {settled} and at last {} pages", resident());
    assert!(resident() < settled + 1_000, "{settled} pages have become {}", resident());
}

/// Promises that were reset as unwanted. What crosses that, once the library has forgotten the stream, is answered by another
/// reset.
fn resets(connection: &Connection) -> usize {
    let is_error = |seen: &Seen| matches!(seen, Seen::GoAway { code } if *code != 0);
    assert!(!connection.seen.iter().any(is_error), "the connection ended by an error");
    connection.seen.iter().filter(|seen| matches!(seen, Seen::Reset { code: CANCEL, .. })).count()
}

/// Other tests would use memory as well, so this one is done by a process of its own. True in that one.
fn is_alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut own = Command::new(std::env::current_exe().expect("this is a program"));
    let status = own.args(["--exact", test, "--nocapture"]).env(ALONE, "1").status();
    assert!(status.expect("it starts").success(), "see above");
    false
}

/// Pages of memory that this process holds.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0)
}
