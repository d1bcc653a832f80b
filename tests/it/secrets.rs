//! What the processes write, at every level, holds no capability, key or message.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::process::{Site, await_true};

/// Everything, of the libraries below as well.
const LOUD: &[(&str, &str)] =
    &[("FIELDGATE_LOG", "trace,h2=trace,rustls=trace,tokio=trace,hyper=trace,mio=trace"), ("RUST_BACKTRACE", "1")];
const APP_PATH: &str = "the-secret-path-of-an-application-server";
const APP_TOKEN: &str = "the-secret-token-of-an-application-server";
const TEXT: &str = "the-secret-text-of-a-message";
/// How every token of a sender begins.
const SENDER_TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.";
/// Characters of a token: 128 random bits.
const TOKEN_CHARACTERS: usize = 22;
/// Of the store of the service.
const PAGE_BYTES: usize = 4_096;

/// A-ALL-04, A-UA-43, A-UA-04, D-8292-14: processes that are asked to say all they can, and the libraries below them as well, while
/// what can go wrong does, up to a panic amid the secrets.
#[test]
fn a_all_04_nothing_that_is_written_holds_a_secret() {
    let (site, mut service) = Site::with_service_in(LOUD);
    site.configure(&[("d1", site.device_link("d1")), ("d2", site.device_link("d2"))]);
    announce_to_the_service(&site);
    let mut gateway = site.start_gateway();
    let devices = [site.start_device("d1", &[]), site.start_device("d2", &[])];
    let subscriptions = ["d1", "d2"].map(|id| site.subscription(id));
    let mut outputs = Vec::new();
    let key_file = site.path("vapid.pem");
    assert!(site.command_alone(&["vapid", "--new", &key_file]).status.success());
    for subscription in &subscriptions {
        outputs.push(site.send_with(subscription, TEXT, &["--vapid", &key_file]));
    }
    site.await_received("d1", TEXT);
    await_true("both are announced, in vain", || site.status()["announcements"]["rejected"] == 2);
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
    secrets.extend([TEXT, APP_PATH, APP_TOKEN, SENDER_TOKEN].map(str::to_owned));
    let key = fs::read_to_string(&key_file).expect("it was made");
    secrets.extend(key.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned));
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
    damage_the_store(&site);
    assert_eq!(site.restart_service().exit_code(), Some(101), "it panics");
    assert!(site.lines("service.err").iter().any(|line| line.contains("panic")));
    for (name, text) in written(&site, &outputs) {
        for secret in &secrets {
            assert!(!text.contains(secret), "{name} holds a secret");
        }
    }
}

/// Has the gateway announce at a server that takes the whole request and does not want it: the push service.
fn announce_to_the_service(site: &Site) {
    let (config, token) = (site.path("fieldgate.toml"), site.path("app-token"));
    fs::write(&token, APP_TOKEN).expect("written");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let (authority, ca) = (site.authority(), site.ca.display());
    let announce =
        format!("url = \"https://{authority}/{APP_PATH}\"\ncredential_file = \"{token}\"\nca_file = \"{ca}\"\n");
    let text = fs::read_to_string(&config).expect("readable");
    fs::write(&config, format!("{text}[announce]\n{announce}")).expect("written");
}

/// The store of the service, with all that it holds, but for the octets in each page that say what the page is.
fn damage_the_store(site: &Site) {
    let path = site.path("service/service.redb");
    let mut octets = fs::read(&path).expect("the store");
    // What says that it is a store, and of which version, stays.
    octets.chunks_mut(PAGE_BYTES).skip(1).for_each(|page| page[..4].fill(0xff));
    fs::write(&path, octets).expect("written");
}

/// A-ALL-05: at the level that there is without asking, the service says nothing of what subscriptions do: its log relates
/// none to another. No line of the gateway's names two of them.
#[test]
fn a_all_05_no_line_relates_two_subscriptions() {
    let (site, mut service) = Site::with_service();
    site.await_listening();
    let before = site.lines("service.err");
    site.configure(&[("d1", site.device_link("d1")), ("d2", site.device_link("d2"))]);
    let mut gateway = site.start_gateway();
    let _devices = [site.start_device("d1", &[]), site.start_device("d2", &[])];
    for id in ["d1", "d2"] {
        site.send(&site.subscription(id), TEXT);
        site.await_received(id, TEXT);
    }
    let listed = site.command(&["device", "list", "--json"]).stdout;
    let listed: serde_json::Value = serde_json::from_slice(&listed).expect("JSON");
    let fingerprints: Vec<String> = ["/0", "/1"]
        .iter()
        .map(|device| listed.pointer(&format!("{device}/channels/0/push")).and_then(|push| push.as_str()))
        .map(|push| push.expect("a fingerprint").to_owned())
        .collect();
    assert_ne!(fingerprints[0], fingerprints[1]);
    assert!(!before.is_empty() && site.lines("service.err") == before, "the service was silent meanwhile");
    gateway.terminate();
    service.terminate();
    for line in site.lines("service.err").iter().chain(&site.lines("gateway.err")) {
        assert!(!fingerprints.iter().all(|fingerprint| line.contains(fingerprint)), "{line}");
    }
}

/// A-ALL-06: logs go to standard error and nowhere else: who collects them bounds how long they are kept and who may read
/// them. What the processes keep themselves is not for others, and holds no line of a log.
#[test]
fn a_all_06_no_log_is_kept() {
    let (site, mut service) = Site::with_service_in(LOUD);
    site.configure(&[("d1", site.device_link("d1"))]);
    let mut gateway = site.start_gateway();
    let _device = site.start_device("d1", &[]);
    site.send(&site.subscription("d1"), TEXT);
    site.await_received("d1", TEXT);
    gateway.terminate();
    service.terminate();
    assert!(site.lines("gateway.err").iter().any(|line| line.contains("DEBUG fieldgate::")), "it had much to say");
    for folder in ["gateway", "service"] {
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode(Path::new(&site.path(folder))), 0o700);
        let files: Vec<_> =
            fs::read_dir(site.path(folder)).expect("a folder").map(|it| it.expect("a file").path()).collect();
        assert!(files.len() >= 2, "{files:?}");
        for file in files {
            let octets = fs::read(&file).expect("it is ours");
            assert!(!octets.windows(11).any(|octets| octets == b"fieldgate::"), "{} holds a log", file.display());
            // The certificate is for everybody, and in a folder that is not.
            assert!(mode(&file) == 0o600 || file.ends_with("ca.pem"), "{}", file.display());
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
