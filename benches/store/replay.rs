//! How fast 256 subscriptions are read back, beside just reading the file they are in.

use std::fs::File;
use std::hint::black_box;
use std::io::Read as _;
use std::path::Path;

use fieldgate::proto::device::PendingAcks;
use fieldgate::proto::record::Record;
use fieldgate::store::Store;
use fieldgate::store::file::FileFlash;
use fieldgate::store::log::{Capacity, Log};
use tokio::time::Instant;

use crate::scene::Scene;
use crate::table::{Row, Table, median};

const ROUNDS: usize = 21;
const SUBSCRIPTION_COUNT: usize = 256;

/// Makes a state with 256 subscriptions and reads it.
pub fn measure(table: &mut Table) {
    let folder = tempfile::tempdir().expect("a folder");
    make(folder.path());
    let (mut read, mut opened, mut replayed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        read.push(timed(|| read_whole(folder.path())));
        opened.push(timed(|| drop(Store::open(folder.path()).expect("it opens"))));
        replayed.push(timed(|| replay(folder.path())));
    }
    let (read, opened, replayed) = (median(&read), median(&opened), median(&replayed));
    table.row(Row::new("reading both files, 1 MiB", "us", read));
    table.row(Row::new("opening the store, the thread and its end included", "us", opened).peer(Some(read)));
    table.row(Row::new("the same, all 256 subscriptions as records", "us", replayed).peer(Some(read)));
}

fn make(folder: &Path) {
    let mut scene = Scene::serving(SUBSCRIPTION_COUNT / 4, 4, PendingAcks::Auto);
    let flash = FileFlash::open(folder).expect("a folder of our own");
    let (mut log, _) = Log::open(flash, Capacity::default()).expect("it opens");
    for submission in scene.take_written() {
        log.append(submission).expect("there is room");
        log.sync().expect("the disk works");
    }
}

fn read_whole(folder: &Path) {
    for name in ["log.a", "log.b"] {
        let mut octets = Vec::new();
        File::open(folder.join(name)).and_then(|mut file| file.read_to_end(&mut octets)).expect("it is there");
        black_box(octets);
    }
}

/// As the gateway starts.
fn replay(folder: &Path) {
    let (_store, replay) = Store::open(folder).expect("it opens");
    let records = replay.records.iter().filter_map(|(key, value)| Record::decode(key, value).ok());
    let count = records.filter(|record| matches!(record, Record::Subscription(_))).count();
    assert_eq!(count, SUBSCRIPTION_COUNT, "all are there");
}

/// Microseconds.
fn timed(what: impl FnOnce()) -> f64 {
    let start = Instant::now();
    what();
    start.elapsed().as_secs_f64() * 1e6
}
