//! The log of the gateway beside redb and SQLite: the same facts, in the same commits, on the same disk.
//!
//! `run` gives it a file system of its own on a block device whose counters nobody else moves.

mod disk;
mod keepers;
#[allow(dead_code, reason = "the bench of the facts uses more of it")]
#[path = "../../scene.rs"]
mod scene;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use fieldgate::proto::device::PendingAcks;
use fieldgate::store::Change;
use fieldgate::time::Duration;

use disk::Disk;
use keepers::{Keeper, Ours, Redb, Sqlite};
use scene::{Scene, Submission};

const DEVICES: usize = 64;
const CHANNELS: u16 = 4;
/// Subscriptions that come one at a time, after all others.
const ALONE: usize = 32;
const OPENINGS: usize = 11;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, device] = &arguments[..] else {
        eprintln!("which folder, and which block device is it on? benches/store/peers/run gives both");
        return ExitCode::from(2);
    };
    let disk = Disk::new(folder.into(), device);
    let mut scene = Scene::serving(DEVICES, CHANNELS, PendingAcks::Auto);
    let many = scene.take_written();
    let alone = alone();
    println!("256 subscriptions: {} commits, {} octets of facts", many.len(), octets(&many));
    println!("one alone: {} commits, {} octets of facts", alone.len() / ALONE, octets(&alone) / ALONE as u64);
    println!(
        "{:<8} {:>10} {:>9} {:>8} {:>8} {:>9} {:>7} {:>10} {:>10} {:>8} {:>8}",
        "",
        "alone: B",
        "as much",
        "flushes",
        "256: B",
        "as much",
        "flushes",
        "commit p50",
        "p99, us",
        "disk: B",
        "open, us"
    );
    let folder = |name: &str| PathBuf::from(&arguments[0]).join(name);
    measure::<Ours>("ours", &folder("ours"), &disk, &many, &alone);
    measure::<Redb>("redb", &folder("redb"), &disk, &many, &alone);
    measure::<Sqlite>("sqlite", &folder("sqlite"), &disk, &many, &alone);
    ExitCode::SUCCESS
}

/// What a gateway writes for subscriptions that come one at a time.
fn alone() -> Vec<Submission> {
    let mut scene = Scene::serving(1, 1, PendingAcks::Auto);
    scene.take_written();
    for number in 1..=ALONE {
        scene.add(number, 1, PendingAcks::Auto);
        scene.pass(Duration::from_secs(60));
    }
    scene.take_written().into_iter().filter(|submission| !is_time(submission)).collect()
}

/// The last known time has a key of its kind alone.
fn is_time(submission: &Submission) -> bool {
    submission.iter().any(|change| matches!(change, Change::Put { key, .. } if key == &[11]))
}

fn measure<K: Keeper>(name: &str, folder: &Path, disk: &Disk, many: &[Submission], alone: &[Submission]) {
    std::fs::create_dir(folder).expect("a folder of our own");
    let mut keeper = K::open(folder);
    disk.settle();
    let mut times = Vec::new();
    let before = disk.written();
    commit(&mut keeper, many, &mut times);
    drop(keeper);
    disk.settle();
    let all = disk.written().since(before);
    let mut openings: Vec<f64> = (0..OPENINGS).map(|_| opening::<K>(folder)).collect();
    let mut keeper = K::open(folder);
    disk.settle();
    let before = disk.written();
    commit(&mut keeper, alone, &mut times);
    disk.settle();
    let one = disk.written().since(before);
    drop(keeper);
    println!(
        "{name:<8} {:>10} {:>8.1}x {:>8.1} {:>8} {:>8.1}x {:>7} {:>10.0} {:>10.0} {:>8} {:>8.0}",
        one.octets / ALONE as u64,
        one.octets as f64 / octets(alone) as f64,
        one.flushes as f64 / ALONE as f64,
        all.octets,
        all.octets as f64 / octets(many) as f64,
        all.flushes,
        percentile(&mut times, 50),
        percentile(&mut times, 99),
        disk::size(folder),
        percentile(&mut openings, 50),
    );
}

fn commit<K: Keeper>(keeper: &mut K, submissions: &[Submission], times: &mut Vec<f64>) {
    for submission in submissions {
        times.push(timed(|| keeper.commit(submission)));
    }
}

/// Opens a store and reads all that is in it.
fn opening<K: Keeper>(folder: &Path) -> f64 {
    let mut count = 0;
    let time = timed(|| count = K::open(folder).count());
    assert!(count > DEVICES * usize::from(CHANNELS), "all are there");
    time
}

/// Octets of keys and values.
fn octets(submissions: &[Submission]) -> u64 {
    let octets = submissions.iter().flatten().map(|change| match change {
        Change::Put { key, value } => key.len() + value.len(),
        Change::Remove { key } => key.len(),
    });
    octets.sum::<usize>() as u64
}

/// Microseconds.
fn timed(what: impl FnOnce()) -> f64 {
    let start = Instant::now();
    what();
    start.elapsed().as_secs_f64() * 1e6
}

fn percentile(figures: &mut [f64], percent: usize) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() * percent / 100]
}
