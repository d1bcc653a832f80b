//! The store on real files, and its thread on a medium that the test holds in its hands.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex, mpsc};

use fieldgate::limits::{STORE_BLOCK_BYTES, STORE_QUEUE_COUNT};
use fieldgate::store::flash::{Flash, FlashError, Region};
use fieldgate::store::log::Capacity;
use fieldgate::store::{Change, Full, LogError, Persisted, Store, StoreError, Wear, Written};

use crate::flash::{Fault, MemoryFlash};

/// A-UA-49: what was reported safe is there after the process is gone, whether it closed or not.
#[tokio::test]
async fn facts_outlive_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut store, replay) = Store::open(folder.path()).expect("a new store");
    assert!(replay.records.is_empty() && replay.damage.is_none());
    store.submit(vec![Change::put(b"\x01a", b"1"), Change::put(b"\x01b", b"2")], 7).expect("there is room");
    let written =
        Written { kind: 1, facts: Wear { bytes: STORE_BLOCK_BYTES as u64, syncs: 1 }, compaction: Wear::default() };
    assert_eq!(store.next().await, Persisted { ticket: 7, result: Ok(()), written });
    store.submit(vec![Change::remove(b"\x01a")], 8).expect("there is room");
    drop(store);
    let (store, replay) = Store::open(folder.path()).expect("the lock is free again");
    assert_eq!(replay.records, [(b"\x01b".to_vec(), b"2".to_vec().into())]);
    store.close().expect("nothing to wait for");
}

/// A-UA-43: the folder is 0700, each file in it 0600.
#[test]
fn the_state_is_for_its_owner_alone() {
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("deep/state");
    drop(Store::open(&folder).expect("a new store"));
    assert_eq!(mode(&folder), 0o700);
    let log = folder.join("log.a");
    fs::set_permissions(&log, fs::Permissions::from_mode(0o644)).expect("it is ours");
    drop(Store::open(&folder).expect("it opens"));
    let modes: BTreeSet<u32> =
        fs::read_dir(&folder).expect("readable").map(|entry| mode(&entry.expect("readable").path())).collect();
    assert_eq!(modes, BTreeSet::from([0o600]));
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
    drop(Store::open(&folder).expect("it opens"));
    assert_eq!(mode(&folder), 0o700);
}

/// A-UA-43: a folder that others use is neither used nor closed to them.
#[test]
fn a_folder_with_other_things_in_it_must_be_closed_by_a_person() {
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("shared");
    fs::create_dir(&folder).expect("it is ours");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o750)).expect("it is ours");
    fs::write(folder.join("other"), "").expect("it is ours");
    let refused = Store::open(&folder).map(|_| ()).expect_err("others may enter");
    assert_eq!(refused, StoreError::Exposed { folder: folder.clone(), mode: 0o750 });
    assert!(refused.to_string().contains("chmod 700"));
}

#[test]
fn a_folder_in_use_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_store, _) = Store::open(folder.path()).expect("a new store");
    let refused = Store::open(folder.path()).map(|_| ()).expect_err("it is in use");
    assert_eq!(refused, StoreError::InUse { folder: folder.path().to_owned() });
    assert!(refused.to_string().contains(&folder.path().display().to_string()));
}

#[test]
fn a_folder_that_is_a_file_is_refused_by_name() {
    let parent = tempfile::tempdir().expect("a folder");
    let path = parent.path().join("state");
    fs::write(&path, "").expect("it is ours");
    let refused = Store::open(&path).map(|_| ()).expect_err("no folder");
    assert!(refused.to_string().contains(&path.display().to_string()), "{refused}");
}

#[test]
fn damage_in_a_file_leaves_a_copy_beside_it() {
    let folder = tempfile::tempdir().expect("a folder");
    for key in [b"a", b"b"] {
        let (mut store, _) = Store::open(folder.path()).expect("it opens");
        store.submit(vec![Change::put(key, b"value")], 1).expect("there is room");
    }
    let path = folder.path().join("log.a");
    let mut octets = fs::read(&path).expect("readable");
    octets[4096 + 30] ^= 1;
    fs::write(&path, &octets).expect("writable");
    let (store, replay) = Store::open(folder.path()).expect("the rest is used");
    assert_eq!(replay.records, [(b"b".to_vec(), b"value".to_vec().into())]);
    assert!(replay.damage.is_some_and(|damage| damage.was_set_aside && damage.was_repaired));
    let copy = folder.path().join("log.a.damaged");
    assert!(fs::read(&copy).expect("it is there") == octets && mode(&copy) == 0o600);
    drop(store);
    let (_store, replay) = Store::open(folder.path()).expect("it opens");
    assert_eq!(replay.damage, None);
}

#[test]
fn a_full_queue_refuses_until_an_outcome_is_taken() {
    let (mut store, _) = Store::open_on(MemoryFlash::new(), Capacity::default()).expect("a new store");
    for ticket in 0..STORE_QUEUE_COUNT as u64 {
        assert_eq!(store.submit(vec![Change::put(b"k", b"v")], ticket), Ok(()));
    }
    assert_eq!(store.submit(vec![Change::put(b"k", b"v")], 99), Err(Full));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    assert_eq!(runtime.block_on(store.next()).ticket, 0);
    assert_eq!(store.submit(vec![Change::put(b"k", b"v")], 99), Ok(()));
}

#[tokio::test]
async fn what_waits_during_a_sync_becomes_one_commit() {
    let (medium, permits, waits) = HandHeldFlash::new();
    let (mut store, _) = Store::open_on(medium.clone(), Capacity::default()).expect("a new store");
    medium.hold();
    let before = medium.inspect(|flash| flash.sync_count);
    store.submit(vec![Change::put(b"first", b"1")], 0).expect("there is room");
    waits.recv().expect("the thread is in its sync");
    for ticket in 1..STORE_QUEUE_COUNT as u64 {
        store.submit(vec![Change::put(&[ticket as u8], b"2")], ticket).expect("there is room");
    }
    permits.send(()).expect("the thread waits");
    waits.recv().expect("the thread is in its next sync");
    permits.send(()).expect("the thread waits");
    for ticket in 0..STORE_QUEUE_COUNT as u64 {
        let Persisted { ticket: next, result, written } = store.next().await;
        assert_eq!((next, result), (ticket, Ok(())), "in the order of submission");
        // Two commits of a block each: what waited cost what its first cost.
        let (kind, blocks) = match ticket {
            0 => (b'f', 1),
            1 => (1, 1),
            _ => (ticket as u8, 0),
        };
        let facts = Wear { bytes: blocks * STORE_BLOCK_BYTES as u64, syncs: blocks };
        assert_eq!(written, Written { kind, facts, compaction: Wear::default() });
    }
    assert_eq!(medium.inspect(|flash| flash.sync_count) - before, 2);
}

#[tokio::test]
async fn errors_are_reported_and_the_store_works_on() {
    let (medium, _permits, _waits) = HandHeldFlash::new();
    let (mut store, _) = Store::open_on(medium.clone(), Capacity::default()).expect("a new store");
    for (fault, error) in [
        (Fault::Writes(FlashError::NoSpace), FlashError::NoSpace),
        (Fault::Writes(FlashError::ReadOnly), FlashError::ReadOnly),
    ] {
        medium.inspect(|flash| flash.fault = fault);
        store.submit(vec![Change::put(b"k", b"lost")], 1).expect("there is room");
        let refused = StoreError::Log(LogError::Flash(error));
        let Persisted { ticket, result, written } = store.next().await;
        assert_eq!((ticket, result), (1, Err(refused.clone())));
        assert!(written.facts.bytes > 0, "a write that fails wears as well");
        assert!(refused.is_retryable());
        medium.inspect(|flash| flash.fault = Fault::None);
        store.submit(vec![Change::put(b"k", b"kept")], 2).expect("there is room");
        let Persisted { ticket, result, .. } = store.next().await;
        assert_eq!((ticket, result), (2, Ok(())));
    }
    store.submit(vec![Change::put(b"", b"no key")], 3).expect("there is room");
    assert_eq!(store.next().await.result, Err(StoreError::Log(LogError::TooLarge)));
    drop(store);
    let (_store, replay) =
        Store::open_on(medium.inspect(|flash| flash.restarted()), Capacity::default()).expect("it opens");
    assert_eq!(replay.records, [(b"k".to_vec(), b"kept".to_vec().into())]);
}

#[tokio::test]
async fn a_cancelled_wait_loses_no_outcome() {
    let (mut store, _) = Store::open_on(MemoryFlash::new(), Capacity::default()).expect("a new store");
    let nothing_to_wait_for = async {
        tokio::select! {
            biased;
            persisted = store.next() => panic!("nothing was submitted: {persisted:?}"),
            () = std::future::ready(()) => {}
        }
    };
    nothing_to_wait_for.await;
    store.submit(vec![Change::put(b"k", b"v")], 5).expect("there is room");
    for _ in 0..3 {
        tokio::select! {
            biased;
            () = std::future::ready(()) => {}
            persisted = store.next() => panic!("the other branch comes first: {persisted:?}"),
        }
    }
    assert_eq!(store.next().await.ticket, 5);
}

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

/// A medium in memory that several hold, and that syncs only by permission once it is held.
#[derive(Clone)]
struct HandHeldFlash {
    flash: Arc<Mutex<(MemoryFlash, bool)>>,
    permits: Arc<Mutex<mpsc::Receiver<()>>>,
    waits: mpsc::SyncSender<()>,
}

impl HandHeldFlash {
    fn new() -> (Self, mpsc::SyncSender<()>, mpsc::Receiver<()>) {
        let (permit, permits) = mpsc::sync_channel(4);
        let (waits, waiting) = mpsc::sync_channel(4);
        let flash = Arc::new(Mutex::new((MemoryFlash::new(), false)));
        (Self { flash, permits: Arc::new(Mutex::new(permits)), waits }, permit, waiting)
    }

    fn hold(&self) {
        self.flash.lock().expect("no test panicked").1 = true;
    }

    fn inspect<T>(&self, look: impl FnOnce(&mut MemoryFlash) -> T) -> T {
        look(&mut self.flash.lock().expect("no test panicked").0)
    }
}

impl Flash for HandHeldFlash {
    fn size(&mut self, region: Region) -> Result<usize, FlashError> {
        self.inspect(|flash| flash.size(region))
    }

    fn read(&mut self, region: Region, offset: usize, into: &mut [u8]) -> Result<(), FlashError> {
        self.inspect(|flash| flash.read(region, offset, into))
    }

    fn write(&mut self, region: Region, offset: usize, octets: &[u8]) -> Result<(), FlashError> {
        self.inspect(|flash| flash.write(region, offset, octets))
    }

    fn grow(&mut self, region: Region, bytes: usize) -> Result<(), FlashError> {
        self.inspect(|flash| flash.grow(region, bytes))
    }

    fn sync(&mut self, region: Region) -> Result<(), FlashError> {
        let is_held = self.flash.lock().expect("no test panicked").1;
        if is_held {
            self.waits.send(()).expect("the test waits");
            self.permits.lock().expect("no test panicked").recv().expect("the test permits");
        }
        self.inspect(|flash| flash.sync(region))
    }

    fn set_aside(&mut self, region: Region) -> Result<(), FlashError> {
        self.inspect(|flash| flash.set_aside(region))
    }
}
