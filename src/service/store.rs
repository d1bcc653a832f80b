//! The service's memory on disk: one database file, one thread that writes it.
//!
//! A write is a list of records. Writes that wait are committed together (group commit), in the order they were handed
//! over, and each learns the outcome; so an answer that waits for its write promises what is on the disk.
//!
//! A disk that refuses (full, read-only, failing) stops no more than the writing: nothing new is accepted, what is stored
//! is served on, and the file is opened anew until it takes a commit again. What ended in the meantime is committed then.
//!
//! Layout of `service.redb`, version 2 (integers little-endian, tokens 16 octets):
//!
//! ```text
//! meta           "version"                  -> 2
//! sets           set                        -> token
//! subscriptions  subscription               -> set u64, token, token of the push resource,
//!                                              octet: 0 until somebody asks for its messages, then 1;
//!                                              if one application server alone may send to it the 65 octets of its
//!                                              key
//! messages       (subscription, sequence)   -> token, accepted u64 (see below), word u64 (see below),
//!                                              receipt subscription u64 if bit 40 of the word is set,
//!                                              length u16 and octets of Topic if bit 41 of the word is set,
//!                                              length u16 and octets of Content-Type, the same of Content-Encoding,
//!                                              content
//! receipt subscriptions  receipts           -> token
//! receipts       (receipts, number)         -> token of the message, status u16: 204 or 410
//! ```
//!
//! The word has the time to live in seconds in its lowest 32 bits, then the urgency in four: 0 normal, 1 very low, 2 low, 3
//! high. A length of 65535 stands for an absent field. Version 1 had neither topics nor receipts, and subscriptions ended
//! with the push resource (they count as asked for); it is read, and is version 2 from then on. When a message was accepted
//! is in seconds since 1970 if the clock was synchronised; otherwise bit 63 is set, 23 bits below tell the boot from others
//! (0: not known), and the rest are seconds since that boot.

mod record;

use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, Table, TableDefinition};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::limits::{
    SERVICE_STORE_CACHE_BYTES, SERVICE_STORE_GATHER_MS_MAX, SERVICE_STORE_GATHER_PART, SERVICE_STORE_QUEUE_COUNT,
    SERVICE_STORE_RETRY_MS, SERVICE_STORE_SLOW_MS,
};

use super::retention::{ReceiptId, ReceiptsId, Record, SetId, StoredMessage, SubscriptionId};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const SETS: TableDefinition<u64, &[u8]> = TableDefinition::new("sets");
const SUBSCRIPTIONS: TableDefinition<u64, &[u8]> = TableDefinition::new("subscriptions");
const MESSAGES: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("messages");
const RECEIPT_SUBSCRIPTIONS: TableDefinition<u64, &[u8]> = TableDefinition::new("receipt subscriptions");
const RECEIPTS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("receipts");
const VERSION: u64 = 2;
/// All that it has is as in this version, and it lacks some.
const VERSION_READ: u64 = 1;

/// Why a store cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has it open.
    InUse,
    /// Another version of the program wrote it.
    Version(u64),
    /// What is in it cannot be read.
    Damaged(String),
    /// The operating system refused.
    Io(io::Error),
}

/// The records could not be written. What they say did not happen, as far as the disk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotStored;

/// The handle that requests hold.
#[derive(Debug)]
pub(super) struct Store {
    writes: mpsc::Sender<Write>,
    refuses: Arc<AtomicBool>,
}

/// Resolves when the store's file is closed.
pub(super) type Closed = oneshot::Receiver<()>;

/// A reserved place in the queue of writes.
pub(super) struct Permit(mpsc::OwnedPermit<Write>);

struct Write {
    records: Vec<Record>,
    done: oneshot::Sender<Result<(), NotStored>>,
}

impl Store {
    /// Opens or creates the store, hands every record in it to `restore`, and starts the writing thread.
    ///
    /// # Errors
    /// [`OpenError`] says why it cannot be used; nothing in it was changed then.
    pub(super) fn open(path: &Path, restore: impl FnMut(Record)) -> Result<(Self, Closed), OpenError> {
        // Created by us so that only its owner may read it.
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(OpenError::Io)?;
        file.set_permissions(Permissions::from_mode(0o600)).map_err(OpenError::Io)?;
        let database = open_database(path)?;
        load(&database, restore)?;

        let (writes, queue) = mpsc::channel(SERVICE_STORE_QUEUE_COUNT);
        let (closing, closed) = oneshot::channel();
        let refuses = Arc::new(AtomicBool::new(false));
        let writer = Writer { path: path.to_owned(), queue, refuses: Arc::clone(&refuses), owed: Vec::new() };
        thread::Builder::new()
            .name("service-store".to_owned())
            .spawn(move || {
                writer.run(database);
                // Nobody may be waiting any more.
                closing.send(()).ok();
            })
            .map_err(OpenError::Io)?;
        Ok((Self { writes, refuses }, closed))
    }

    /// Whether the disk refused the last commit: whoever asks for another had better be told to come back later.
    pub(super) fn refuses(&self) -> bool {
        self.refuses.load(Ordering::Relaxed)
    }

    /// Waits for a place in the queue.
    ///
    /// Cancel safety: a place that was waited for in vain is nobody's.
    pub(super) async fn permit(&self) -> Result<Permit, NotStored> {
        self.writes.clone().reserve_owned().await.map(Permit).map_err(|_| NotStored)
    }
}

impl Permit {
    /// Hands records over; the result resolves once they are on the disk.
    pub(super) fn write(self, records: Vec<Record>) -> impl Future<Output = Result<(), NotStored>> {
        let (done, outcome) = oneshot::channel();
        self.0.send(Write { records, done });
        async { outcome.await.unwrap_or(Err(NotStored)) }
    }
}

/// The thread's side of the store.
struct Writer {
    path: PathBuf,
    queue: mpsc::Receiver<Write>,
    refuses: Arc<AtomicBool>,
    /// What ended while the disk refused. Nothing new is accepted then, so it is never more than was there.
    owed: Vec<Record>,
}

impl Writer {
    /// Commits what waits, as much as there is, until every [`Store`] and [`Permit`] is gone.
    fn run(mut self, mut database: Database) {
        let mut batch = Vec::new();
        while self.queue.blocking_recv_many(&mut batch, SERVICE_STORE_QUEUE_COUNT) > 0 {
            let (start, writes) = (Instant::now(), batch.len());
            let outcome = commit(&database, batch.iter().flat_map(|write| &write.records));
            let took = start.elapsed();
            let stored = outcome.as_ref().map(drop).map_err(|_| NotStored);
            if let Err(error) = outcome {
                tracing::error!(%error, "the service's store cannot be written; nothing is accepted until it can be");
                self.refuses.store(true, Ordering::Relaxed);
            }
            for write in batch.drain(..) {
                self.answer(write, stored);
            }
            if stored.is_err() {
                // After an error the database refuses everything; it has to be opened anew.
                drop(database);
                match self.recover() {
                    Some(recovered) => database = recovered,
                    None => return,
                }
            } else {
                thread::park_timeout(gathering(took, writes));
            }
        }
    }

    /// Tells how a write went. What ended is gone from memory whether that was stored or not.
    fn answer(&mut self, write: Write, stored: Result<(), NotStored>) {
        if stored.is_err() {
            self.owed.extend(write.records.into_iter().filter(Record::is_owed));
        }
        // Whoever asked may have gone away.
        write.done.send(stored).ok();
    }

    /// Opens the database until it takes what is owed; none if everybody is gone before. Refuses writes meanwhile.
    fn recover(&mut self) -> Option<Database> {
        loop {
            thread::park_timeout(Duration::from_millis(SERVICE_STORE_RETRY_MS));
            let mut is_closed = false;
            for _ in 0..SERVICE_STORE_QUEUE_COUNT {
                match self.queue.try_recv() {
                    Ok(write) => self.answer(write, Err(NotStored)),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        is_closed = true;
                        break;
                    }
                }
            }
            match self.try_recover() {
                Ok(database) => return Some(database),
                Err(error) if is_closed => {
                    tracing::error!(?error, count = self.owed.len(), "what ended since the disk refused comes again");
                    return None;
                }
                Err(error) => tracing::debug!(?error, "the service's store still cannot be written"),
            }
        }
    }

    fn try_recover(&mut self) -> Result<Database, OpenError> {
        let database = open_database(&self.path)?;
        commit(&database, self.owed.iter()).map_err(|error| unusable(*error))?;
        self.owed.clear();
        self.refuses.store(false, Ordering::Relaxed);
        tracing::info!("the service's store is written again");
        Ok(database)
    }
}

/// How long to wait after a commit for more to take along. Whoever was answered together comes again together: without a
/// pause they and those who came meanwhile take turns, and a slow disk syncs twice as often as it needs to. One who comes
/// alone waits for nobody.
fn gathering(took: Duration, writes: usize) -> Duration {
    if writes < 2 || took < Duration::from_millis(SERVICE_STORE_SLOW_MS) {
        return Duration::ZERO;
    }
    (took / SERVICE_STORE_GATHER_PART).min(Duration::from_millis(SERVICE_STORE_GATHER_MS_MAX))
}

/// Opens or creates the database and makes sure that it is of this version.
fn open_database(path: &Path) -> Result<Database, OpenError> {
    let mut builder = Database::builder();
    builder.set_cache_size(SERVICE_STORE_CACHE_BYTES);
    let database = builder.create(path).map_err(open_error)?;
    prepare(&database)?;
    Ok(database)
}

fn commit<'a>(database: &Database, records: impl Iterator<Item = &'a Record>) -> Result<(), Box<redb::Error>> {
    let transaction = database.begin_write().map_err(boxed)?;
    {
        let mut sets = transaction.open_table(SETS).map_err(boxed)?;
        let mut subscriptions = transaction.open_table(SUBSCRIPTIONS).map_err(boxed)?;
        let mut messages = transaction.open_table(MESSAGES).map_err(boxed)?;
        let mut receipt_subscriptions = transaction.open_table(RECEIPT_SUBSCRIPTIONS).map_err(boxed)?;
        let mut receipts = transaction.open_table(RECEIPTS).map_err(boxed)?;
        for record in records {
            match record {
                Record::Set { id, token } => {
                    sets.insert(id.0, token.as_bytes().as_slice()).map_err(boxed)?;
                }
                Record::SetEnded(id) => drop(sets.remove(id.0).map_err(boxed)?),
                Record::Subscription { id, set, token, push, was_monitored, restricted } => {
                    let value = record::subscription(*set, (*token, *push), *was_monitored, restricted.as_ref());
                    subscriptions.insert(id.0, value.as_slice()).map_err(boxed)?;
                }
                Record::SubscriptionEnded(id) => {
                    subscriptions.remove(id.0).map_err(boxed)?;
                    messages.retain_in((id.0, 0)..=(id.0, u64::MAX), |_, _| false).map_err(boxed)?;
                }
                Record::Message(message) => put_message(&mut messages, message)?,
                Record::Replacement { message, replaced } => {
                    messages.remove((message.subscription.0, *replaced)).map_err(boxed)?;
                    put_message(&mut messages, message)?;
                }
                Record::MessageEnded { subscription, sequence } => {
                    messages.remove((subscription.0, *sequence)).map_err(boxed)?;
                }
                Record::Receipts { id, token } => {
                    receipt_subscriptions.insert(id.0, token.as_bytes().as_slice()).map_err(boxed)?;
                }
                Record::ReceiptsEnded(id) => {
                    receipt_subscriptions.remove(id.0).map_err(boxed)?;
                    receipts.retain_in((id.0, 0)..=(id.0, u64::MAX), |_, _| false).map_err(boxed)?;
                }
                Record::Receipt { id, message, outcome } => {
                    receipts.insert(id.key(), record::receipt(*message, *outcome).as_slice()).map_err(boxed)?;
                }
                Record::ReceiptEnded(id) => drop(receipts.remove(id.key()).map_err(boxed)?),
            }
        }
    }
    transaction.commit().map_err(boxed)
}

fn put_message(messages: &mut Table<'_, (u64, u64), &[u8]>, message: &StoredMessage) -> Result<(), Box<redb::Error>> {
    let key = (message.subscription.0, message.sequence);
    messages.insert(key, record::message(message).as_slice()).map_err(boxed)?;
    Ok(())
}

/// Makes sure that the tables exist and are of this version.
fn prepare(database: &Database) -> Result<(), OpenError> {
    let transaction = database.begin_write().map_err(unusable)?;
    let version = {
        let mut meta = transaction.open_table(META).map_err(unusable)?;
        let found = meta.get("version").map_err(unusable)?.map(|version| version.value());
        if found.is_none_or(|version| version == VERSION_READ) {
            meta.insert("version", VERSION).map_err(unusable)?;
        }
        found.filter(|version| *version != VERSION_READ).unwrap_or(VERSION)
    };
    if version != VERSION {
        transaction.abort().map_err(unusable)?;
        return Err(OpenError::Version(version));
    }
    transaction.open_table(SETS).map_err(unusable)?;
    transaction.open_table(SUBSCRIPTIONS).map_err(unusable)?;
    transaction.open_table(MESSAGES).map_err(unusable)?;
    transaction.open_table(RECEIPT_SUBSCRIPTIONS).map_err(unusable)?;
    transaction.open_table(RECEIPTS).map_err(unusable)?;
    transaction.commit().map_err(unusable)
}

fn load(database: &Database, mut restore: impl FnMut(Record)) -> Result<(), OpenError> {
    let transaction = database.begin_read().map_err(unusable)?;
    for entry in transaction.open_table(SETS).map_err(unusable)?.iter().map_err(unusable)? {
        let (id, value) = entry.map_err(unusable)?;
        restore(record::read_set(SetId(id.value()), value.value()).ok_or_else(malformed)?);
    }
    for entry in transaction.open_table(RECEIPT_SUBSCRIPTIONS).map_err(unusable)?.iter().map_err(unusable)? {
        let (id, value) = entry.map_err(unusable)?;
        restore(record::read_receipts(ReceiptsId(id.value()), value.value()).ok_or_else(malformed)?);
    }
    for entry in transaction.open_table(RECEIPTS).map_err(unusable)?.iter().map_err(unusable)? {
        let (key, value) = entry.map_err(unusable)?;
        restore(record::read_receipt(ReceiptId::from_key(key.value()), value.value()).ok_or_else(malformed)?);
    }
    for entry in transaction.open_table(SUBSCRIPTIONS).map_err(unusable)?.iter().map_err(unusable)? {
        let (id, value) = entry.map_err(unusable)?;
        restore(record::read_subscription(SubscriptionId(id.value()), value.value()).ok_or_else(malformed)?);
    }
    for entry in transaction.open_table(MESSAGES).map_err(unusable)?.iter().map_err(unusable)? {
        let (key, value) = entry.map_err(unusable)?;
        let (subscription, sequence) = key.value();
        restore(record::read_message(SubscriptionId(subscription), sequence, value.value()).ok_or_else(malformed)?);
    }
    Ok(())
}

fn open_error(error: redb::DatabaseError) -> OpenError {
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen | redb::DatabaseError::LockProtocolMismatch => OpenError::InUse,
        redb::DatabaseError::Storage(redb::StorageError::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
            OpenError::Io(error)
        }
        // A newer file format, a failed repair, a damaged page: none can be mended from here.
        error => OpenError::Damaged(error.to_string()),
    }
}

/// A disk that refuses is no damage: whoever moves the file away because of it loses everything in it.
fn unusable(error: impl Into<redb::Error>) -> OpenError {
    match error.into() {
        redb::Error::Io(error) => OpenError::Io(error),
        error => OpenError::Damaged(error.to_string()),
    }
}

fn malformed() -> OpenError {
    OpenError::Damaged("a record has the wrong length".to_owned())
}

fn boxed(error: impl Into<redb::Error>) -> Box<redb::Error> {
    Box::new(error.into())
}

/// The other end of a store whose writes a test answers itself.
#[cfg(test)]
pub(super) struct ByHand {
    queue: mpsc::Receiver<Write>,
    refuses: Arc<AtomicBool>,
}

#[cfg(test)]
impl ByHand {
    pub(super) fn new() -> (Store, Self) {
        let (writes, queue) = mpsc::channel(SERVICE_STORE_QUEUE_COUNT);
        let refuses = Arc::new(AtomicBool::new(false));
        (Store { writes, refuses: Arc::clone(&refuses) }, Self { queue, refuses })
    }

    /// Lets requests in again.
    pub(super) fn takes_writes(&self) {
        self.refuses.store(false, Ordering::Relaxed);
    }

    /// Answers the next write, and says what was to be written.
    pub(super) async fn answer(&mut self, outcome: Result<(), NotStored>) -> Vec<Record> {
        let write = self.queue.recv().await.expect("the store is held");
        self.refuses.fetch_or(outcome.is_err(), Ordering::Relaxed);
        // Whoever asked may have gone away.
        write.done.send(outcome).ok();
        write.records
    }
}

#[cfg(test)]
mod tests;
