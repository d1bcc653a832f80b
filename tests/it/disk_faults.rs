//! Disks that are full, cut files and files of another version, with the real binary: a clear line, nothing lost.

use std::fs;
use std::path::Path;

use crate::process::{Process, Site, await_true};

/// Too few octets for any of our stores; enough for what a process logs here.
const FULL_BYTES: u64 = 4_096;

/// A-UA-49: a gateway whose disk refuses delivers on, says so, and stores what it owes as soon as it can.
#[test]
fn a_full_disk_stops_no_gateway() {
    let (site, _service) = Site::with_service();
    site.configure(&[("d1", site.device_link("d1"))]);
    let _devices = [site.start_device("d1", &[]), site.start_device("d2", &[])];
    let mut gateway = site.start_gateway();
    let first = site.subscription("d1");
    if !fill(&gateway) {
        return;
    }
    let added = site.command(&["device", "add", "d2", "--link", &site.device_link("d2")]);
    let told = String::from_utf8_lossy(&added.stderr).into_owned();
    assert!(added.status.code() == Some(1) && told.contains("d2 is served, but that is not on flash"), "{told}");
    await_true("a warning", || site.status()["state_warning"].as_str().is_some_and(|it| it.contains("not written")));
    site.send(&first, "in spite of the disk");
    site.await_received("d1", "in spite of the disk");
    assert_eq!(
        site.status()["devices"][1]["channels"][0]["state"],
        "wanted",
        "nothing is asked for that cannot be stored"
    );
    assert!(gateway.limit_files(None));
    await_true("no warning", || site.status()["state_warning"].is_null());
    let second = site.subscription("d2");
    gateway.kill();

    let _gateway = site.start_gateway();
    for (id, subscription) in [("d1", first), ("d2", second)] {
        assert_eq!(site.subscription(id), subscription);
        site.send(&subscription, "after all");
        site.await_received(id, "after all");
    }
}

/// A-GAP-10: a service whose disk refuses accepts nothing, serves what it has, and accepts again when it can.
#[test]
fn a_full_disk_stops_no_service() {
    let (site, mut service) = Site::with_service();
    site.configure(&[("d1", site.device_link("d1"))]);
    let mut gateway = site.start_gateway();
    let subscription = site.subscription("d1");
    site.send(&subscription, "stored before");
    if !fill(&service) {
        return;
    }
    for _ in 0..2 {
        let refused = site.try_send(&subscription, "refused");
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && told.contains("it may be sent again"), "{told}");
    }
    let _device = site.start_device("d1", &[]);
    site.await_received("d1", "stored before");
    assert!(service.is_running() && gateway.is_running());
    assert!(service.limit_files(None));
    await_true("the service accepts again", || site.try_send(&subscription, "accepted again").status.success());
    site.await_received("d1", "accepted again");
    assert_eq!(site.status()["counters"]["connections"], 1, "the gateway's connection was kept");
    await_true("the acknowledgements", || site.status()["counters"]["acknowledged"].as_u64() >= Some(2));

    gateway.terminate();
    service.kill();
    let _service = site.restart_service();
    site.await_listening();
    let _gateway = site.start_gateway();
    site.send(&subscription, "last");
    site.await_received("d1", "last");
    let texts = site.received("d1");
    assert_eq!(texts.iter().filter(|text| *text == "stored before").count(), 1, "what was acknowledged stays gone");
    assert!(!texts.contains(&"refused".to_owned()), "a refusal is a refusal");
}

/// A full disk is no damage: nobody may be told to move the state away because of it.
#[test]
fn a_start_on_a_full_disk_says_so_and_harms_nothing() {
    let (site, mut service) = Site::with_service();
    service.terminate();
    let database = fs::read(site.path("service/service.redb")).expect("readable");
    let line = refused_on_full_disk(&["service", "--listen", "127.0.0.1:0", "--state", &site.path("service")]);
    assert!(line.contains("service.redb") && line.contains("check the disk, the room on it"), "{line}");
    assert!(!line.contains("damaged"), "{line}");
    assert!(fs::read(site.path("service/service.redb")).expect("readable").len() >= database.len());
    site.configure(&[]);
    let config = site.path("fieldgate.toml");
    let line = refused_on_full_disk(&["run", "--config", &config]);
    assert!(line.starts_with(&format!("fieldgate: {config}:1: state: the medium failed: ")), "{line}");

    let _service = site.restart_service();
    let _gateway = site.start_gateway();
    await_true("the gateway", || site.status()["uplink"] == "idle");
}

#[test]
fn a_state_of_another_version_is_refused_and_left_alone() {
    let (site, mut service) = Site::with_service();
    site.configure(&[]);
    let mut gateway = site.start_gateway();
    await_true("the gateway", || site.command(&["status"]).status.success());
    gateway.terminate();
    service.terminate();
    // "fieldlog", version 2, generation 1, and the checksum of these.
    let mut header = b"fieldlog\x02\0\0\0\x01\0\0\0".to_vec();
    header.extend(crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(&header).to_le_bytes());
    let log = site.path("gateway/log.a");
    let mut octets = fs::read(&log).expect("readable");
    octets[..header.len()].copy_from_slice(&header);
    let table = redb::TableDefinition::<&str, u64>::new("meta");
    let database = redb::Database::open(site.path("service/service.redb")).expect("it is a database");
    let change = database.begin_write().expect("it is ours");
    change.open_table(table).expect("it has versions").insert("version", 3).expect("written");
    change.commit().expect("written");
    drop(database);
    fs::write(&log, &octets).expect("written");

    let config = site.path("fieldgate.toml");
    assert_eq!(site.spawn("refused", &["run", "--config", &config]).exit_code(), Some(1));
    let line = site.line_of("refused.err", "fieldgate: ");
    assert!(line.contains(&format!("{config}:1: state: ")) && line.contains("format 2"), "{line}");
    assert_eq!(fs::read(&log).expect("readable"), octets);
    let arguments = ["service", "--listen", "127.0.0.1:0", "--state", &site.path("service")];
    assert_eq!(site.spawn("refused-service", &arguments).exit_code(), Some(1));
    let line = site.line_of("refused-service.err", "fieldgate: ");
    assert!(line.contains("service.redb") && line.contains("version 3"), "{line}");
}

/// A-UA-49: a log that lost its newest octets costs what was being written, and never the start.
#[test]
fn a_cut_log_costs_no_more_than_its_end() {
    let (site, _service) = Site::with_service();
    site.configure(&[("d1", site.device_link("d1"))]);
    let _device = site.start_device("d1", &[]);
    let mut gateway = site.start_gateway();
    let subscription = site.subscription("d1");
    gateway.terminate();
    for log in ["gateway/log.a", "gateway/log.b"] {
        let path = site.path(log);
        let end = end_of_content(Path::new(&path));
        // In the middle of a block, and right behind the last one that counts.
        fs::File::options().write(true).open(&path).and_then(|file| file.set_len(end as u64 + 100)).expect("cut");
    }
    let mut gateway = site.start_gateway();
    assert_eq!(site.subscription("d1"), subscription);
    site.send(&subscription, "after the cut");
    site.await_received("d1", "after the cut");
    gateway.terminate();

    let log = site.path("gateway/log.a");
    let end = end_of_content(Path::new(&log)).max(200);
    fs::File::options().write(true).open(&log).and_then(|file| file.set_len(end as u64 - 100)).expect("cut");
    let mut gateway = site.start_gateway();
    let subscription = site.subscription("d1");
    site.send(&subscription, "after the second cut");
    site.await_received("d1", "after the second cut");
    assert!(gateway.is_running());
}

/// Where the zeros begin.
fn end_of_content(path: &Path) -> usize {
    let octets = fs::read(path).expect("readable");
    octets.len() - octets.iter().rev().take_while(|&&octet| octet == 0).count()
}

/// False where this machine cannot do it; then there is nothing to test.
fn fill(process: &Process) -> bool {
    let is_full = process.limit_files(Some(FULL_BYTES));
    if !is_full {
        println!("skipped: prlimit is not there");
    }
    is_full
}

/// Runs a command that cannot write, and returns the line in which it says so.
fn refused_on_full_disk(arguments: &[&str]) -> String {
    // 8 blocks of 512 octets.
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";
    let mut command = std::process::Command::new("sh");
    let ran = command.args(["-c", script, env!("CARGO_BIN_EXE_fieldgate")]).args(arguments).output().expect("it runs");
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(1), "{told}");
    told.lines().last().expect("it says why").to_owned()
}
