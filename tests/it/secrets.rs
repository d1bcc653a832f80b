//! What the processes write, at every level, holds no capability, key or message.

use std::collections::BTreeSet;
use std::fs;
use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::process::Site;

/// Everything, of the libraries below as well.
const LOUD: &[(&str, &str)] =
    &[("FIELDGATE_LOG", "trace,h2=trace,rustls=trace,tokio=trace,hyper=trace,mio=trace"), ("RUST_BACKTRACE", "1")];
const TEXT: &str = "the-secret-text-of-a-message";
/// Characters of a token: 128 random bits.
const TOKEN_CHARACTERS: usize = 22;

/// A-ALL-04, A-ALL-05, A-UA-43, A-UA-04: processes that are asked to say all they can, while what can go wrong does.
#[test]
fn a_all_04_nothing_that_is_written_holds_a_secret() {
    let (site, mut service) = Site::with_service_in(LOUD);
    site.configure(&[("d1", site.device_link("d1")), ("d2", site.device_link("d2"))]);
    let mut gateway = site.start_gateway();
    let devices = [site.start_device("d1", &[]), site.start_device("d2", &[])];
    let subscriptions = ["d1", "d2"].map(|id| site.subscription(id));
    let mut outputs = Vec::new();
    for subscription in &subscriptions {
        outputs.push(site.try_send(subscription, TEXT));
    }
    site.await_received("d1", TEXT);
    for command in
        [&["status"][..], &["status", "--json"], &["connections"], &["device", "list"], &["device", "list", "--json"]]
    {
        outputs.push(site.command(command));
    }
    let mut secrets = secrets_in(&site);
    for subscription in &subscriptions {
        secrets.insert(subscription.endpoint.as_str().to_owned());
        secrets.insert(URL_SAFE_NO_PAD.encode(subscription.auth));
    }
    secrets.insert(TEXT.to_owned());
    assert!(secrets.len() >= 10, "read, send and auth of each, the set, the text: {}", secrets.len());

    // A dead service, a dead gateway, subscriptions that are gone, and messages for them.
    service.kill();
    outputs.push(site.try_send(&subscriptions[0], TEXT));
    let mut service = site.restart_service();
    gateway.kill();
    gateway = site.start_gateway();
    site.subscription("d2");
    outputs.push(site.command(&["device", "remove", "d1"]));
    fs::remove_file(site.path("gateway/log.a")).expect("it was there");
    drop(devices);
    service.terminate();
    gateway.terminate();
    for (name, text) in written(&site, &outputs) {
        for secret in &secrets {
            assert!(!text.contains(secret), "{name} holds a secret");
        }
    }
}

/// Tokens and private parts of what the gateway has stored.
fn secrets_in(site: &Site) -> BTreeSet<String> {
    let log = fs::read(site.path("gateway/log.a")).expect("the state");
    let text = String::from_utf8_lossy(&log);
    let origin = format!("https://{}/", site.authority());
    let tokens = text.split(&origin).skip(1);
    tokens.filter_map(|rest| rest.get(..TOKEN_CHARACTERS)).map(str::to_owned).collect()
}

/// What was written by anyone, but for what devices give their applications.
fn written(site: &Site, outputs: &[Output]) -> Vec<(String, String)> {
    let files = ["service.out", "service.err", "gateway.out", "gateway.err", "device-d1.err", "device-d2.err"];
    let read = |name: &str| fs::read_to_string(site.path(name)).expect("it was started");
    let mut written: Vec<(String, String)> = files.iter().map(|name| ((*name).to_owned(), read(name))).collect();
    assert!(written.iter().any(|(_, text)| text.contains("DEBUG")), "they were loud");
    for (number, output) in outputs.iter().enumerate() {
        for stream in [&output.stdout, &output.stderr] {
            written.push((format!("output {number}"), String::from_utf8_lossy(stream).into_owned()));
        }
    }
    written
}
