//! Subscriptions that come and go by the wish of a person, over real sockets and TLS.

use std::time::Duration;

use fieldgate::control::Request;
use fieldgate::proto::device::{Isolation, Options};
use fieldgate::transport::clock::WallClock;
use fieldgate::transport::properties::{SecurityParameters, Trust};
use fieldgate::transport::stack::tcp_tls::TcpTls;
use fieldgate::wire::{ToDevice, ToGateway};
use rustls::HandshakeKind;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::process::{Site, await_true};
use crate::push_service::{PushService, Script};
use crate::rig::{self, Rig};

/// D-8292-10: a device that names the key of its application server has it in the content of its subscribe request; another
/// device has no content at all.
#[tokio::test(flavor = "local")]
async fn d_8292_10_a_restricted_subscription_is_asked_for_with_the_key() {
    const KEY: &str = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";
    let service = PushService::start(Script::default()).await;
    let mut rig = Rig::with_foreign(&service).await;
    let plain = rig.device("d2");
    rig.config.devices[0].options.application_server_key = Some(KEY.parse().expect("a key"));
    rig.config.devices.push(plain);
    rig.start_gateway();
    rig.subscription_of("d2", 1).await;
    let content = format!("CONTENT application/webpush-options+json {{\"vapid\":\"{KEY}\"}}");
    assert_eq!((service.count("POST /subscribe"), service.count("CONTENT"), service.count(&content)), (2, 1, 1));
}

/// A-UA-41: other URIs and keys by command; the old URI works on for a while.
#[tokio::test(flavor = "local")]
async fn a_rotated_device_gets_messages_by_both_uris() {
    let mut rig = Rig::start().await;
    let before = rig.subscription(1).await;
    let mut device = rig.attach(7).await;
    rig.ask(&Request::DeviceRotate { id: "d1".to_owned(), channel: Some(9) }).await.expect_err("no such channel");
    rig.ask(&Request::DeviceRotate { id: "d1".to_owned(), channel: None }).await.expect("it may be asked");
    let mut after = rig.subscription(1).await;
    while after == before {
        after = device.tend(rig.subscription(1)).await;
    }
    assert_eq!(device.hear_subscribed(1).await, after.endpoint.as_str());
    assert!(after.endpoint != before.endpoint && after.public != before.public && after.auth != before.auth);
    for (subscription, text) in [(&before, "by the old one"), (&after, "by the new one")] {
        let message = rig.send(subscription, text).await;
        let heard = device.hear().await;
        let ToDevice::Push { message: id, body, .. } = heard.message() else { panic!("{heard:?}") };
        assert_eq!(body, text.as_bytes());
        device.say(&ToGateway::Ack { message: id }).await;
        device.tend(rig.await_gone(&message)).await;
    }
    assert_eq!(rig.ask(&Request::Status).await.expect("it runs")["counters"]["connections"], 1);
}

/// A-UA-10, C-47: of three devices one is on a connection of its own, and gets its messages there.
#[tokio::test(flavor = "local")]
async fn an_isolated_device_is_served_on_its_own_connection() {
    let service = PushService::start(Script::default()).await;
    let mut rig = Rig::with_foreign(&service).await;
    let options = Options { isolated: Isolation::Connection, ..Options::default() };
    let (shared, mut apart) = (rig.device("d2"), rig.device("d3"));
    apart.options = options;
    rig.config.devices.extend([shared, apart]);
    rig.start_gateway();
    for id in ["d1", "d2", "d3"] {
        rig.subscription_of(id, 1).await;
    }
    rig::await_true(|| service.count("GET /t/0") == 2).await;
    assert_eq!((service.count("CONNECTED"), service.count("POST")), (2, 3));
    let status = rig.await_status(|status| status["others"][0]["uplink"] == "connected").await;
    assert_eq!((&status["others"][0]["isolated"], &status["uplink"]), (&"d3".into(), &"connected".into()));
}

/// C-69: what is isolated resumes no session of others, nor they one of it.
#[tokio::test(flavor = "local")]
async fn c_69_an_isolated_connection_shares_no_tls_session() {
    let rig = Rig::start().await;
    let security = SecurityParameters { trust: Trust::File(rig.ca_file()), revocations: None, protocols: vec!["h2"] };
    let shared = TcpTls::new(&security, WallClock::default()).expect("the authority is there");
    let address = rig.config.push_service.url.authority().expect("an authority").as_str().parse().expect("an address");
    let apart = shared.isolated();
    let mut kinds = Vec::new();
    for stack in [&shared, &shared, &apart, &apart, &shared] {
        let mut stream = stack.connect("127.0.0.1", address).await.expect("it connects");
        kinds.push(stream.get_ref().1.handshake_kind().expect("it is done"));
        // The ticket comes with the first octets of the other side.
        timeout(Duration::from_secs(10), stream.read_u8()).await.expect("in time").expect("it speaks first");
    }
    use HandshakeKind::{Full, Resumed};
    assert_eq!(kinds, [Full, Resumed, Full, Resumed, Resumed]);
}

/// A-UA-36: the set is removed with one request, and none of its members alone; then the flash is empty and the gateway
/// ends.
#[tokio::test(flavor = "local")]
async fn a_ua_36_a_reset_is_one_request() {
    let service = PushService::start(Script::default()).await;
    let mut rig = Rig::with_foreign(&service).await;
    let second = rig.device("d2");
    rig.config.devices.push(second);
    rig.start_gateway();
    rig.subscription_of("d1", 1).await;
    rig.subscription_of("d2", 1).await;
    while rig.ask(&Request::Reset).await.expect("it answers")["left"] != 0 {
        tokio::task::yield_now().await;
    }
    rig.ended_gateway().await;
    assert_eq!((service.count("DELETE"), service.count("DELETE /t/0")), (1, 1));
    let (_, replay) = fieldgate::store::Store::open(&rig.config.state).expect("nobody else has it");
    assert_eq!(replay.records, []);
}

/// With the real binary: a running gateway, then without one; a person has to say yes.
#[test]
fn a_reset_works_with_and_without_a_running_gateway() {
    let (site, _service) = Site::with_service();
    site.configure(&[("d1", site.device_link("d1"))]);
    for is_running in [true, false] {
        let mut gateway = site.start_gateway();
        let subscription = site.subscription("d1");
        let refused = site.command(&["reset"]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("--yes"));
        if !is_running {
            gateway.terminate();
        }
        let reset = site.command(&["reset", "--yes"]);
        assert!(reset.status.success(), "{}", String::from_utf8_lossy(&reset.stderr));
        if is_running {
            assert_eq!(gateway.exit_code(), Some(0));
        }
        await_true("the old one is dead", || {
            let sent = site.try_send(&subscription, "to nobody");
            String::from_utf8_lossy(&sent.stderr).contains("gone")
        });
    }
}

/// A reset that is interrupted does not say that it is done; the next one goes on with what is left.
#[test]
fn a_reset_that_is_interrupted_is_not_done() {
    let (site, mut service) = Site::with_service();
    site.configure(&[("d1", site.device_link("d1"))]);
    let mut gateway = site.start_gateway();
    let subscription = site.subscription("d1");
    gateway.terminate();
    service.terminate();
    let mut reset = site.spawn("reset", &["reset", "--yes", "--config", &site.path("fieldgate.toml")]);
    await_true("it tries", || site.status()["uplink"].is_string());
    reset.signal("INT");
    assert_eq!(reset.exit_code(), Some(1));
    let told = site.line_of("reset.err", "fieldgate: ");
    assert!(told.contains("interrupted") && told.contains(&site.path("gateway")), "{told}");
    assert!(site.lines("reset.out").is_empty());

    let _service = site.restart_service();
    site.await_listening();
    assert!(site.command(&["reset", "--yes"]).status.success());
    let sent = site.try_send(&subscription, "to nobody");
    assert!(String::from_utf8_lossy(&sent.stderr).contains("gone"));
}

/// A-GAP-06: a second gateway with a copy of the state of the first: both are told, and leave each other alone.
#[test]
fn a_gap_06_two_gateways_of_one_identity_are_told() {
    let (site, _service) = Site::with_service();
    site.configure(&[("d1", site.device_link("d1"))]);
    let mut gateway = site.start_gateway();
    site.subscription("d1");
    gateway.terminate();
    let copy = std::process::Command::new("cp").args(["-a", &site.path("gateway"), &site.path("copy")]).status();
    assert!(copy.expect("it runs").success());
    let text = std::fs::read_to_string(site.path("fieldgate.toml")).expect("readable");
    let text = text.replace(&site.path("gateway"), &site.path("copy")).replace("d1.tty", "d2.tty");
    std::fs::write(site.path("copy.toml"), text).expect("written");
    let _gateway = site.start_gateway();
    let _copy = site.spawn("copy", &["run", "--config", &site.path("copy.toml")]);
    await_true("one yields", || {
        let log = |name: &str| std::fs::read_to_string(site.path(name)).unwrap_or_default();
        [log("gateway.err"), log("copy.err")].concat().contains("another gateway has the identity")
    });
}
