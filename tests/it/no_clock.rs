//! Boards without a clock: they boot in 1970, and shelves are long.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fieldgate::control::Request;
use fieldgate::proto::record::Record;
use fieldgate::store::{Change, Store};
use fieldgate::time::{BootId, ClockReading, UnixTime};
use fieldgate::transport::clock::{BUILT, WallClock};
use fieldgate::wire::ToGateway;
use serde_json::Value;

use crate::process::{Site, await_true};
use crate::push_service::{Identity, PushService, Script};
use crate::rig::Rig;

const DAY_S: u64 = 86_400;
/// A board that has just booted.
const BOOTED_S: u64 = 12;
/// The first second of 2099.
const FAR_S: u64 = 4_070_908_800;
/// When a board that was made when this was built comes off its shelf.
const NOW_S: u64 = BUILT.0 + 730 * DAY_S;

/// The wall clock of a board, in the hands of a test.
#[derive(Clone, Default)]
struct Hands {
    wall_s: Arc<AtomicU64>,
    is_synchronised: Arc<AtomicBool>,
}

impl Hands {
    fn set(&self, wall_s: u64, is_synchronised: bool) {
        self.wall_s.store(wall_s, Ordering::Relaxed);
        self.is_synchronised.store(is_synchronised, Ordering::Relaxed);
    }

    fn clock(&self) -> WallClock {
        let hands = self.clone();
        WallClock::new(move || ClockReading {
            wall_ms: hands.wall_s.load(Ordering::Relaxed) * 1_000,
            is_synchronised: hands.is_synchronised.load(Ordering::Relaxed),
        })
    }
}

async fn service(identity: Identity, date: Option<u64>) -> PushService {
    PushService::start(Script { identity, date, ..Script::default() }).await
}

/// A gateway for a service, on a board whose clock is in these hands.
async fn rig(service: &PushService) -> (Rig, Hands) {
    let (mut rig, hands) = (Rig::with_foreign(service).await, Hands::default());
    hands.set(BOOTED_S, false);
    rig.clock = hands.clock();
    rig.start_gateway();
    (rig, hands)
}

/// The gateway starts anew, with another service.
async fn restart_with(rig: &mut Rig, service: &PushService) {
    rig.stop_gateway().await;
    rig.config.push_service.url = service.url.parse().expect("a URL");
    rig.config.push_service.ca_file = Some(service.ca_file.clone());
    rig.start_gateway();
}

async fn await_connected(rig: &Rig) {
    rig.await_status(|status| status["counters"]["connections"] == 1).await;
}

async fn await_expired(rig: &Rig) {
    let status = rig.await_status(|status| status["needs_person"] == true).await;
    assert!(status["last_error"].to_string().contains("expired"), "{status}");
    assert_eq!(status["counters"]["connections"], 0);
}

async fn await_stored(rig: &Rig, seconds: u64) -> Value {
    rig.await_status(|status| status["time"]["stored"]["unix_s"] == seconds).await["time"].take()
}

/// Shelved for two years, the clock in 1970 or in 2099: the connection comes up, and what the service says of time is known
/// afterwards, also after a restart.
#[tokio::test(flavor = "local")]
async fn a_board_that_was_shelved_connects_and_learns_the_time() {
    let issued_a_month_ago = Identity::Within(NOW_S - 30 * DAY_S, NOW_S + 60 * DAY_S);
    for wall_s in [BOOTED_S, FAR_S] {
        let dated = service(issued_a_month_ago, Some(NOW_S)).await;
        let (mut rig, hands) = rig(&dated).await;
        hands.set(wall_s, false);
        await_connected(&rig).await;
        let time = await_stored(&rig, NOW_S).await;
        assert_eq!((&time["synchronised"], &time["stored_in_this_boot"]), (&false.into(), &true.into()));
        assert_eq!((&time["kernel"]["unix_s"], &time["certificates"]["unix_s"]), (&wall_s.into(), &NOW_S.into()));

        // Of a service that says nothing nothing is learned.
        let silent = service(Identity::Good, None).await;
        restart_with(&mut rig, &silent).await;
        await_connected(&rig).await;
        await_stored(&rig, NOW_S).await;
    }
}

/// What is over at a time that has passed is refused, whatever the clock shows; what a service with a wrong clock has said a
/// person may have forgotten.
#[tokio::test(flavor = "local")]
async fn an_expired_certificate_is_refused_until_the_time_is_reset() {
    let over = service(Identity::Within(BUILT.0 - 90 * DAY_S, BUILT.0 - DAY_S), None).await;
    let (mut rig, _hands) = rig(&over).await;
    await_expired(&rig).await;

    let valid_to = |days| Identity::Within(BUILT.0 - DAY_S, BUILT.0 + days * DAY_S);
    let later = service(valid_to(30), Some(BUILT.0 + 20 * DAY_S)).await;
    restart_with(&mut rig, &later).await;
    await_stored(&rig, BUILT.0 + 20 * DAY_S).await;

    let earlier = service(valid_to(10), None).await;
    restart_with(&mut rig, &earlier).await;
    await_expired(&rig).await;
    let time = rig.ask(&Request::TimeReset).await.expect("it is done");
    assert!(time["stored"].is_null() && time["certificates"]["unix_s"] == BUILT.0, "{time}");
    assert_eq!(rig.ask(&Request::Time).await.expect("an answer")["stored"], Value::Null);
    restart_with(&mut rig, &earlier).await;
    await_connected(&rig).await;
    assert_eq!(rig.ask(&Request::Time).await.expect("an answer")["stored"], Value::Null, "it is gone on flash as well");
}

/// A certificate of another name or authority is refused whatever the clock says.
#[tokio::test(flavor = "local")]
async fn no_clock_makes_a_wrong_certificate_right() {
    for (identity, reason) in [(Identity::OtherName, "not valid for name"), (Identity::Unknown, "UnknownIssuer")] {
        for (wall_s, is_synchronised) in [(BOOTED_S, false), (FAR_S, false), (NOW_S, true)] {
            let service = service(identity, Some(NOW_S)).await;
            let (mut rig, hands) = rig(&service).await;
            rig.stop_gateway().await;
            hands.set(wall_s, is_synchronised);
            rig.start_gateway();
            let status = rig.await_status(|status| status["needs_person"] == true).await;
            assert!(status["last_error"].to_string().contains(reason), "{status}");
            assert_eq!((service.count("CONNECTED"), &status["time"]["stored"]), (0, &Value::Null));
        }
    }
}

/// A clock and a service in 2099 that are corrected: the stored time goes to the end of the certificate and no further, and
/// falls with a synchronised clock; nothing is subscribed anew.
#[tokio::test(flavor = "local")]
async fn a_time_far_ahead_is_bounded_and_corrected() {
    let end = BUILT.0 + 90 * DAY_S;
    let service = service(Identity::Within(BUILT.0 - DAY_S, end), Some(FAR_S)).await;
    let (mut rig, hands) = rig(&service).await;
    hands.set(FAR_S, false);
    let before = rig.subscription(1).await;
    await_stored(&rig, end).await;

    rig.stop_gateway().await;
    hands.set(BUILT.0 + DAY_S, true);
    rig.start_gateway();
    await_connected(&rig).await;
    let time = await_stored(&rig, BUILT.0 + DAY_S).await;
    assert_eq!((&time["synchronised"], &time["certificates"]["unix_s"]), (&true.into(), &(BUILT.0 + DAY_S).into()));
    assert_eq!(rig.subscription(1).await, before);

    // The lower time is on flash: without synchronisation it counts again.
    rig.stop_gateway().await;
    hands.set(BOOTED_S, false);
    rig.start_gateway();
    await_connected(&rig).await;
    await_stored(&rig, BUILT.0 + DAY_S).await;
    assert_eq!((rig.subscription(1).await, service.count("POST")), (before, 1));
}

/// The wall clock jumps both ways while a message is on its way and while it waits: it arrives, once, and the subscription
/// stays what it is.
#[tokio::test(flavor = "local")]
async fn jumps_of_the_wall_clock_cost_nothing() {
    let hands = Hands::default();
    let mut rig = Rig::with_authority(None).await;
    rig.clock = hands.clock();
    hands.set(NOW_S, false);
    rig.start_gateway();
    let subscription = rig.subscription(1).await;
    let mut device = rig.attach(1).await;
    for (number, wall_s) in [FAR_S, BOOTED_S, NOW_S, 0].into_iter().enumerate() {
        hands.set(wall_s, false);
        let text = format!("message {number}");
        let message = rig.send(&subscription, &text).await;
        hands.set(FAR_S - wall_s.min(FAR_S), false);
        let id = device.hear_push(&text).await;
        hands.set(wall_s, false);
        device.say(&ToGateway::Ack { message: id }).await;
        device.tend(rig.await_gone(&message)).await;
    }
    assert_eq!(rig.subscription(1).await, subscription);
    let status = rig.ask(&Request::Status).await.expect("an answer");
    assert_eq!((&status["counters"]["acknowledged"], &status["counters"]["given_up"]), (&4.into(), &0.into()));
}

/// Records of the time that are damaged, or that a later version wrote, are said and ignored; commands show what is known.
#[test]
fn a_record_that_cannot_be_read_is_ignored_with_a_line() {
    let (site, _service) = Site::with_service();
    site.configure(&[]);
    let stopped = site.command(&["time"]);
    let told = String::from_utf8_lossy(&stopped.stderr).into_owned();
    assert!(stopped.status.code() == Some(1) && told.contains("start the gateway with fieldgate run"), "{told}");

    let valid = Record::LastTime(UnixTime(FAR_S), BootId::parse(&"5a".repeat(16)));
    let (key, octets) = (valid.key().encode(), valid.encode().to_vec());
    let later = [&[9], &octets[1..]].concat();
    let cut = octets[..octets.len() - 1].to_vec();
    for (number, (value, line, is_known)) in [
        (cut, Some("a malformed record is ignored"), false),
        (later, Some("a record of a later version is kept"), false),
        (octets, None, true),
    ]
    .into_iter()
    .enumerate()
    {
        put(Path::new(&site.path("gateway")), key.clone(), value);
        let mut gateway = site.start_gateway();
        await_true("an answer", || site.command(&["time"]).status.success());
        let said = site.lines("gateway.err").iter().filter(|logged| logged.contains("record")).count();
        assert_eq!(said, (number + 1).min(2));
        if let Some(line) = line {
            assert!(site.lines("gateway.err").iter().any(|logged| logged.contains(line)));
        }
        let shown = String::from_utf8_lossy(&site.command(&["time"]).stdout).into_owned();
        let stored = shown.lines().find(|line| line.starts_with("stored")).expect("a line").to_owned();
        assert_eq!(stored.contains("Thu, 01 Jan 2099 00:00:00 GMT (learned in an earlier boot)"), is_known, "{shown}");
        let status = String::from_utf8_lossy(&site.command(&["status"]).stdout).into_owned();
        let line = status.lines().find(|line| line.starts_with("clock"));
        let is_synchronised = site.status()["time"]["synchronised"] == true;
        assert_eq!(line.is_none(), is_synchronised, "{status}");
        assert!(line.is_none_or(|line| line.contains("not synchronised: certificates are judged at ")), "{status}");
        if is_known {
            let reset = site.command(&["time", "reset"]);
            assert!(String::from_utf8_lossy(&reset.stdout).contains("stored        not known"));
        }
        gateway.terminate();
    }
    let mut gateway = site.start_gateway();
    await_true("an answer", || site.status()["time"].is_object());
    assert!(site.status()["time"]["stored"].is_null() || site.status()["time"]["stored"]["unix_s"] != FAR_S);
    gateway.terminate();
}

fn put(folder: &Path, key: Vec<u8>, value: Vec<u8>) {
    let (mut store, _) = Store::open(folder).expect("the gateway is not there");
    store.submit(vec![Change::Put { key, value: value.into() }], 1).expect("there is room");
    store.close().expect("it is written");
}
