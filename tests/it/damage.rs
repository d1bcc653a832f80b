//! Flash that rots, with the real binary: what is lost is made anew and told, and everything else stays as it was.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use fieldgate::limits::STORE_BLOCK_BYTES;
use fieldgate::webpush::subscription::PushSubscription;
use serde_json::Value;

use crate::process::{Process, Site, await_true};

const LOGS: [&str; 2] = ["gateway/log.a", "gateway/log.b"];
/// The keys of facts of device `d2`: its subscription for channel 1, and itself.
const SUBSCRIPTION: &[u8] = b"\x01\0\x01d2";
const DEVICE: &[u8] = b"\x04d2";

/// A gateway that has stopped; each of its devices has a subscription in blocks of its own.
struct Stopped {
    site: Site,
    _service: Process,
    _devices: Vec<Process>,
}

impl Stopped {
    fn with(configured: &[&str]) -> Self {
        let (site, service) = Site::with_service();
        for count in 1..=configured.len() {
            configure(&site, &configured[..count]);
            let mut gateway = site.start_gateway();
            site.subscription(configured[count - 1]);
            await_announced(&site, count);
            gateway.terminate();
        }
        let devices = configured.iter().map(|id| site.start_device(id, &[])).collect();
        Self { site, _service: service, _devices: devices }
    }
}

fn configure(site: &Site, ids: &[&str]) {
    let devices: Vec<_> = ids.iter().map(|id| (*id, site.device_link(id))).collect();
    site.configure(&devices);
    let config = site.path("fieldgate.toml");
    let text = fs::read_to_string(&config).expect("readable");
    let announce = format!("[announce]\nfolder = \"{}\"\n", site.path("announced"));
    fs::write(config, format!("{text}{announce}")).expect("written");
}

fn await_announced(site: &Site, count: usize) {
    await_true("all is announced", || {
        let announced = &site.status()["announcements"];
        announced["accepted"] == count && announced["due"] == 0
    });
}

/// What the application server has of a device.
fn announced(site: &Site, id: &str) -> PushSubscription {
    let text = fs::read_to_string(site.path(&format!("announced/{id}.json"))).expect("announced");
    let documents: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    PushSubscription::from_json(&documents[0].to_string()).expect("a subscription")
}

/// Damages the blocks that hold a fact of this key and none of the others; the number of damaged blocks.
fn damage(site: &Site, key: &[u8], others: &[&[u8]]) -> usize {
    let holds = |block: &[u8], key: &[u8]| block.windows(key.len()).any(|octets| octets == key);
    let mut count = 0;
    for log in LOGS {
        let mut octets = fs::read(site.path(log)).expect("readable");
        for block in octets.chunks_mut(STORE_BLOCK_BYTES).filter(|block| holds(block, key)) {
            assert!(!others.iter().any(|other| holds(block, other)), "they share a block");
            block[STORE_BLOCK_BYTES / 64] ^= 1;
            count += 1;
        }
        fs::write(site.path(log), octets).expect("written");
    }
    count
}

fn copies(site: &Site) -> Vec<String> {
    let copies = LOGS.map(|log| site.path(&format!("{log}.damaged")));
    copies.into_iter().filter(|copy| fs::exists(copy).expect("readable")).collect()
}

fn state_warning(site: &Site) -> String {
    await_true("an answer", || site.status().is_object());
    site.status()["state_warning"].as_str().unwrap_or_default().to_owned()
}

fn flows(site: &Site, id: &str, text: &str) {
    site.send(&site.subscription(id), text);
    site.await_received(id, text);
}

/// A-UA-49, A-UA-08: a subscription that rots is made anew, and the application server hears of it; the others are as they
/// were. A person is told until the copy is gone, over restarts.
#[test]
fn a_lost_subscription_is_made_anew_and_announced() {
    let stopped = Stopped::with(&["d1", "d2", "d3"]);
    let site = &stopped.site;
    let before = ["d1", "d2", "d3"].map(|id| announced(site, id));
    assert_eq!(damage(site, SUBSCRIPTION, &[b"\x01\0\x01d1", b"\x01\0\x01d3"]), 1);
    let found = fs::read(site.path("gateway/log.a")).expect("readable");

    let mut gateway = site.start_gateway();
    let warning = state_warning(site);
    let copy = site.path("gateway/log.a.damaged");
    assert!(warning.contains("a block of the state is unreadable") && warning.contains(&copy), "{warning}");
    assert!(site.lines("gateway.err").iter().any(|line| line.contains("ERROR") && line.contains("state was damaged")));
    let shown = String::from_utf8_lossy(&site.command(&["status"]).stdout).into_owned();
    assert!(shown.lines().any(|line| line.starts_with("state         a block of the state")), "{shown}");
    assert_eq!(copies(site), [copy.clone()]);
    assert_eq!(fs::read(&copy).expect("readable"), found, "as it was found");
    assert_eq!(fs::metadata(&copy).expect("there").permissions().mode() & 0o777, 0o600);

    let anew = site.subscription("d2");
    assert_ne!(anew, before[1]);
    await_true("the application server hears of it", || announced(site, "d2") == anew);
    for (id, before) in [("d1", &before[0]), ("d3", &before[2])] {
        assert_eq!((&site.subscription(id), &announced(site, id)), (before, before));
    }
    for id in ["d1", "d2", "d3"] {
        flows(site, id, "after the damage");
    }
    await_announced(site, 3);
    gateway.terminate();

    let mut gateway = site.start_gateway();
    let warning = state_warning(site);
    assert!(warning.contains("an earlier start found damage") && warning.contains(&copy), "{warning}");
    assert_eq!(site.subscription("d2"), anew);
    gateway.terminate();
    fs::remove_file(&copy).expect("it is ours");
    let _gateway = site.start_gateway();
    assert_eq!(state_warning(site), "");
    flows(site, "d2", "after the next starts");
}

/// A-UA-49: a device that was added by command and rots takes its subscription with it only when a person says so: added
/// again, it has the one that application servers know.
#[test]
fn a_lost_device_keeps_its_subscription() {
    let stopped = Stopped::with(&["d1"]);
    let site = &stopped.site;
    let link = site.device_link("d2");
    let add = || {
        await_true("an answer", || site.status().is_object());
        assert!(site.command(&["device", "add", "d2", "--link", &link]).status.success());
    };
    let mut gateway = site.start_gateway();
    add();
    let before = site.subscription("d2");
    await_announced(site, 2);
    gateway.terminate();
    let _device = site.start_device("d2", &[]);
    assert_eq!(damage(site, DEVICE, &[SUBSCRIPTION]), 1);

    let mut gateway = site.start_gateway();
    flows(site, "d1", "without the other one");
    assert!(site.status()["devices"].as_array().is_some_and(|devices| devices.len() == 1));
    gateway.terminate();
    let _gateway = site.start_gateway();
    add();
    assert_eq!((&site.subscription("d2"), &announced(site, "d2")), (&before, &before));
    flows(site, "d2", "it is back");
}

/// A-UA-49: whichever block rots, the gateway starts, and all its devices get their messages.
#[test]
fn whichever_block_rots_messages_flow() {
    let stopped = Stopped::with(&["d1", "d2"]);
    let site = &stopped.site;
    // Who is told remembers as much as the flash does.
    let files = [LOGS[0], LOGS[1], "announced/d1.json", "announced/d2.json"];
    let kept = files.map(|file| fs::read(site.path(file)).expect("readable"));
    let used = kept[0].chunks(STORE_BLOCK_BYTES).take_while(|block| block.iter().any(|&octet| octet != 0)).count();
    assert!(used > 5, "{used}");
    for block in 0..used {
        for (file, octets) in files.iter().zip(&kept) {
            fs::write(site.path(file), octets).expect("written");
        }
        copies(site).iter().for_each(|copy| fs::remove_file(copy).expect("it is ours"));
        let mut octets = kept[0].clone();
        octets[block * STORE_BLOCK_BYTES + 15] ^= 0x40;
        fs::write(site.path(LOGS[0]), octets).expect("written");
        let mut gateway = site.start_gateway();
        // The header is made anew from the blocks, and the newest commit looks like a torn one.
        let is_noticed = !state_warning(site).is_empty();
        assert_eq!(is_noticed, (1..used - 1).contains(&block), "block {block} of {used}");
        for id in ["d1", "d2"] {
            flows(site, id, &format!("without block {block}"));
            await_true("all is announced", || announced(site, id) == site.subscription(id));
        }
        gateway.terminate();
    }
}
