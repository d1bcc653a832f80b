//! A state that a later program wrote, under this one: what is known is served, and nothing is lost of what is not.

use std::path::Path;

use fieldgate::store::file::FileFlash;
use fieldgate::store::log::{Capacity, Change, Log};

use crate::process::{Site, await_true};

/// A version of values that no program has yet.
const LATER: u8 = 4;
/// Of a kind that no program has yet.
const UNKNOWN: (&[u8], &[u8]) = (b"\xc8any", b"\x01what a later program knows");
/// The keys of the subscriptions of `d2` and `d3`, and of the device `d2`.
const SUBSCRIPTION_2: &[u8] = b"\x01\0\x01d2";
const SUBSCRIPTION_3: &[u8] = b"\x01\0\x01d3";
const DEVICE_2: &[u8] = b"\x04d2";

fn open(folder: &str) -> Log<FileFlash> {
    let flash = FileFlash::open(Path::new(folder)).expect("nobody else has it");
    let (log, damage) = Log::open(flash, Capacity::default()).expect("it opens");
    assert_eq!(damage, None);
    log
}

fn value(folder: &str, key: &[u8]) -> Option<Vec<u8>> {
    open(folder).facts().find(|(fact, _)| *fact == key).map(|(_, value)| value.to_vec())
}

fn put(folder: &str, key: &[u8], value: &[u8]) {
    let mut log = open(folder);
    log.append(vec![Change::put(key, value)]).expect("it fits");
    log.sync().expect("it works");
}

/// The same fact as a later program has it.
fn in_later_version(folder: &str, key: &[u8]) -> Vec<u8> {
    let mut octets = value(folder, key).expect("it is there");
    octets[0] = LATER;
    octets.extend(b"and more");
    put(folder, key, &octets);
    octets
}

/// Writes until everything has moved to the other file.
fn compact(folder: &str) {
    let mut log = open(folder);
    let before = log.wear().1;
    for number in 0_u16.. {
        log.append(vec![Change::put(b"\xc9counter", &number.to_be_bytes())]).expect("it fits");
        log.sync().expect("it works");
        if log.wear().1 != before {
            return;
        }
    }
}

/// A subscription is kept whose device only a later program can read, messages for it wait, and it is served when that
/// program is back; a subscription that only that one can read is made anew; what is unknown passes compaction, export and
/// import as it is.
#[test]
fn a_state_of_a_later_program_is_used_and_kept() {
    let (site, _service) = Site::with_service();
    site.configure(&[("d1", site.device_link("d1")), ("d3", site.device_link("d3"))]);
    let folder = site.path("gateway");
    let _devices = ["d1", "d2", "d3"].map(|id| site.start_device(id, &[]));
    let mut gateway = site.start_gateway();
    let first = site.subscription("d1");
    assert!(site.command(&["device", "add", "d2", "--link", &site.device_link("d2")]).status.success());
    let (second, third) = (site.subscription("d2"), site.subscription("d3"));
    gateway.terminate();
    let subscription = value(&folder, SUBSCRIPTION_2).expect("it is there");
    let device = value(&folder, DEVICE_2).expect("it is there");
    put(&folder, UNKNOWN.0, UNKNOWN.1);
    let later_device = in_later_version(&folder, DEVICE_2);
    in_later_version(&folder, SUBSCRIPTION_3);

    for _ in 0..2 {
        let mut gateway = site.start_gateway();
        assert_eq!(site.subscription("d1"), first);
        let anew = site.subscription("d3");
        assert_ne!(anew, third);
        for (id, subscription) in [("d1", &first), ("d3", &anew)] {
            site.send(subscription, "served");
            site.await_received(id, "served");
        }
        site.send(&second, "for a device of later");
        assert_eq!(site.status()["devices"].as_array().map(Vec::len), Some(2));
        gateway.terminate();
        compact(&folder);
        assert_eq!(value(&folder, UNKNOWN.0).as_deref(), Some(UNKNOWN.1));
        assert_eq!(value(&folder, DEVICE_2).as_ref(), Some(&later_device));
        assert_eq!(value(&folder, SUBSCRIPTION_2).as_ref(), Some(&subscription));
        // What had to be written anew is what this version knows.
        assert!(value(&folder, SUBSCRIPTION_3).is_some_and(|value| value[0] < LATER));
    }
    let lines = site.lines("gateway.err");
    assert!(lines.iter().any(|line| line.contains("WARN") && line.contains("a record of a later version is kept")));
    moves_as_it_is(&site, &folder);

    // The later program is back, and reads what it had written.
    put(&folder, DEVICE_2, &device);
    let _gateway = site.start_gateway();
    await_true("an answer", || site.status().is_object());
    assert_eq!(site.subscription("d2"), second);
    site.await_received("d2", "for a device of later");
}

/// Export and import carry what this version cannot read.
fn moves_as_it_is(site: &Site, folder: &str) {
    let facts =
        |folder: &str| open(folder).facts().map(|(key, value)| (key.to_vec(), value.to_vec())).collect::<Vec<_>>();
    let (file, passphrase, other) = (site.path("export"), site.path("passphrase"), site.path("other"));
    std::fs::write(&passphrase, "four random words here").expect("written");
    std::fs::set_permissions(&passphrase, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("it is ours");
    let text = std::fs::read_to_string(site.path("fieldgate.toml")).expect("readable");
    std::fs::write(site.path("other.toml"), text.replace(folder, &other)).expect("written");
    let with = ["--passphrase-file", &passphrase];
    let exported = site.command(&[&["export", "--to", &file], &with[..]].concat());
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let imported = site.command_of("other.toml", &[&["import", "--from", &file], &with[..]].concat());
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    assert_eq!(facts(&other), facts(folder));
}
