//! The store as the event loop sees it: submissions go in, tickets come out when their changes are safe.
//!
//! One named thread owns the log, since a sync may take seconds on a worn card and must hold up neither the runtime's
//! thread nor anything that waits for the blocking pool.

use std::path::Path;
use std::sync::mpsc as sync;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;

use super::file::FileFlash;
use super::flash::Flash;
use super::log::{Capacity, Change, Damage, Log, LogError, Wear};
use super::{Fact, Replay, StoreError};
use crate::limits::{STORE_CLOSE_MS_MAX, STORE_QUEUE_COUNT};

const CLOSE_WAIT_MAX: Duration = Duration::from_millis(STORE_CLOSE_MS_MAX);

/// As many submissions wait as may; the caller decides what to do, nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// How a submission went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persisted {
    /// The ticket given with the submission.
    pub ticket: u64,
    /// `Ok` when all its changes are safe from power loss. After an error none of them counts, but after a restart
    /// they may be there nevertheless, unless a later submission succeeded.
    pub result: Result<(), StoreError>,
    /// What it cost.
    pub written: Written,
}

/// What a submission cost the medium. Those that were synced with an earlier one cost nothing more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The kind of the first fact that it changed: the first octet of the key.
    pub kind: u8,
    /// For the facts themselves.
    pub facts: Wear,
    /// For room, of which there was none left.
    pub compaction: Wear,
}

struct Submission {
    changes: Vec<Change>,
    ticket: u64,
}

/// The store of a gateway.
///
/// Dropping it waits for what was submitted, [`STORE_CLOSE_MS_MAX`] at most.
#[derive(Debug)]
pub struct Store {
    submissions: Option<sync::SyncSender<Submission>>,
    outcomes: mpsc::Receiver<Persisted>,
    /// Hangs up when the thread has written its last octet.
    ended: sync::Receiver<()>,
    /// Submitted, and not yet returned by [`Store::next`].
    waiting_count: usize,
}

impl Store {
    /// Opens the store in a folder, which is made if missing, and reads what it holds.
    ///
    /// # Errors
    /// Another process uses the folder, others may read it, another version wrote it, or the file system says no.
    pub fn open(folder: &Path) -> Result<(Self, Replay), StoreError> {
        let flash = FileFlash::open(folder)?;
        let takes_no_writes = flash.takes_no_writes();
        let (store, replay) = Self::open_on(flash, Capacity::default())?;
        Ok((store, Replay { takes_no_writes, ..replay }))
    }

    /// Opens the store on any medium.
    ///
    /// # Errors
    /// Another version wrote it, or the medium failed.
    pub fn open_on(flash: impl Flash + Send + 'static, capacity: Capacity) -> Result<(Self, Replay), StoreError> {
        let (log, damage) = Log::open(flash, capacity)?;
        let replay = replay(&log, damage);
        let (submissions, submitted) = sync::sync_channel(STORE_QUEUE_COUNT);
        let (report, outcomes) = mpsc::channel(STORE_QUEUE_COUNT);
        let (alive, ended) = sync::sync_channel(0);
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                write(log, &submitted, &report);
                drop(alive);
            })
            .map_err(|error| StoreError::Thread(error.kind()))?;
        Ok((Self { submissions: Some(submissions), outcomes, ended, waiting_count: 0 }, replay))
    }

    /// Hands over changes that belong together: all of them become safe, or none.
    ///
    /// # Errors
    /// [`Full`] when `STORE_QUEUE_COUNT` submissions wait for [`Store::next`].
    pub fn submit(&mut self, changes: Vec<Change>, ticket: u64) -> Result<(), Full> {
        if self.waiting_count == STORE_QUEUE_COUNT {
            return Err(Full);
        }
        let submissions = self.submissions.as_ref().expect("it is taken only when the store is dropped");
        submissions.try_send(Submission { changes, ticket }).map_err(|_| Full)?;
        self.waiting_count += 1;
        Ok(())
    }

    /// Waits until a submission is safe or has failed; forever when there is none.
    ///
    /// Cancel safe: dropping the future loses no outcome.
    pub async fn next(&mut self) -> Persisted {
        let persisted = self.outcomes.recv().await.expect("the store thread ends after the store does");
        self.waiting_count -= 1;
        persisted
    }

    /// Closes the store: everything submitted is written first.
    ///
    /// # Errors
    /// [`StoreError::Slow`] when that took longer than [`STORE_CLOSE_MS_MAX`]; the thread is then left to itself.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.finish(CLOSE_WAIT_MAX)
    }

    /// Waits for the thread, once: the second time there is nothing to wait for.
    fn finish(&mut self, wait: Duration) -> Result<(), StoreError> {
        if self.submissions.take().is_none() {
            return Ok(());
        }
        match self.ended.recv_timeout(wait) {
            Err(sync::RecvTimeoutError::Timeout) => Err(StoreError::Slow),
            Ok(()) | Err(sync::RecvTimeoutError::Disconnected) => Ok(()),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.finish(CLOSE_WAIT_MAX) {
            tracing::error!(%error, "the state was not closed");
        }
    }
}

fn replay<F: Flash>(log: &Log<F>, damage: Option<Damage>) -> Replay {
    let records = log.facts().map(|(key, value)| -> Fact { (key.to_vec(), value.to_vec().into()) }).collect();
    Replay { records, damage, takes_no_writes: None, wear: log.wear().0 }
}

/// Takes what waits, makes it safe with one sync, reports it; until the store is dropped.
fn write<F: Flash>(mut log: Log<F>, submitted: &sync::Receiver<Submission>, report: &mpsc::Sender<Persisted>) {
    while let Ok(first) = submitted.recv() {
        let before = log.wear();
        let mut group: Vec<(u64, u8, Result<(), LogError>)> = Vec::with_capacity(STORE_QUEUE_COUNT);
        for submission in std::iter::once(first).chain(submitted.try_iter().take(STORE_QUEUE_COUNT - 1)) {
            let kind = kind(&submission.changes);
            group.push((submission.ticket, kind, log.append(submission.changes)));
        }
        let synced = log.sync();
        let mut cost = cost(before, log.wear());
        for (ticket, kind, appended) in group {
            let result = appended.and(synced).map_err(StoreError::from);
            // The first made the sync necessary; the others went along.
            let (facts, compaction) = std::mem::take(&mut cost);
            let persisted = Persisted { ticket, result, written: Written { kind, facts, compaction } };
            // The queue has room for all that may wait. Without a store there is nobody to tell, but still work to do.
            if report.try_send(persisted).is_err() && !report.is_closed() {
                tracing::error!(ticket, "no room to report");
            }
        }
    }
}

/// The kind of the first fact that changes; 0 where there is none.
fn kind(changes: &[Change]) -> u8 {
    changes.first().and_then(|change| change.parts().0.first().copied()).unwrap_or_default()
}

/// What came between two counts, for facts and for compaction.
fn cost((before, compaction_before): (Wear, Wear), (after, compaction_after): (Wear, Wear)) -> (Wear, Wear) {
    let compaction = compaction_after.since(compaction_before);
    (after.since(before).since(compaction), compaction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::flash::{FlashError, Region};

    /// A medium whose first sync after the start never returns until the test ends.
    struct StuckFlash {
        regions: [Vec<u8>; 2],
        syncs_left: usize,
        test_ended: sync::Receiver<()>,
    }

    impl Flash for StuckFlash {
        fn size(&mut self, region: Region) -> Result<usize, FlashError> {
            Ok(self.regions[region as usize].len())
        }

        fn read(&mut self, region: Region, offset: usize, into: &mut [u8]) -> Result<(), FlashError> {
            into.copy_from_slice(&self.regions[region as usize][offset..offset + into.len()]);
            Ok(())
        }

        fn write(&mut self, region: Region, offset: usize, octets: &[u8]) -> Result<(), FlashError> {
            self.regions[region as usize][offset..offset + octets.len()].copy_from_slice(octets);
            Ok(())
        }

        fn grow(&mut self, region: Region, bytes: usize) -> Result<(), FlashError> {
            self.regions[region as usize].resize(bytes, 0);
            Ok(())
        }

        fn sync(&mut self, _region: Region) -> Result<(), FlashError> {
            match self.syncs_left.checked_sub(1) {
                Some(left) => self.syncs_left = left,
                None => assert!(self.test_ended.recv().is_err()),
            }
            Ok(())
        }

        fn set_aside(&mut self, _region: Region) -> Result<(), FlashError> {
            Ok(())
        }
    }

    #[test]
    fn a_sync_that_never_returns_does_not_hold_up_closing_for_ever() {
        let (_test, test_ended) = sync::sync_channel(1);
        // A new log takes four syncs.
        let flash = StuckFlash { regions: [Vec::new(), Vec::new()], syncs_left: 4, test_ended };
        let (mut store, _) = Store::open_on(flash, Capacity::default()).expect("it opens");
        store.submit(vec![Change::put(b"k", b"v")], 1).expect("there is room");
        assert_eq!(store.finish(Duration::from_millis(20)), Err(StoreError::Slow));
    }
}
