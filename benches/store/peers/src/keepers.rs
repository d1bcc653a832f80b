//! Stores that keep keys with values: each commit is safe when it returns.

use std::path::Path;

use fieldgate::store::Change;
use fieldgate::store::file::FileFlash;
use fieldgate::store::log::{Capacity, Log};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use rusqlite::{Connection, params};

const FACTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("facts");

pub trait Keeper {
    fn open(folder: &Path) -> Self;
    fn commit(&mut self, changes: &[Change]);
    /// Reads all facts.
    fn count(&self) -> usize;
}

/// The log of the gateway.
pub struct Ours(Log<FileFlash>);

impl Keeper for Ours {
    fn open(folder: &Path) -> Self {
        let flash = FileFlash::open(folder).expect("a folder of our own");
        Self(Log::open(flash, Capacity::default()).expect("it opens").0)
    }

    fn commit(&mut self, changes: &[Change]) {
        self.0.append(changes.to_vec()).expect("there is room");
        self.0.sync().expect("the disk works");
    }

    fn count(&self) -> usize {
        self.0.facts().count()
    }
}

/// redb as it comes: durability `Immediate`.
pub struct Redb(Database);

impl Keeper for Redb {
    fn open(folder: &Path) -> Self {
        let database = Database::create(folder.join("facts.redb")).expect("it opens");
        let transaction = database.begin_write().expect("nobody else writes");
        transaction.open_table(FACTS).expect("a table");
        transaction.commit().expect("the disk works");
        Self(database)
    }

    fn commit(&mut self, changes: &[Change]) {
        let transaction = self.0.begin_write().expect("nobody else writes");
        {
            let mut table = transaction.open_table(FACTS).expect("a table");
            for change in changes {
                match change {
                    Change::Put { key, value } => table.insert(key.as_slice(), value.as_slice()).expect("it is taken"),
                    Change::Remove { key } => table.remove(key.as_slice()).expect("it is taken"),
                };
            }
        }
        transaction.commit().expect("the disk works");
    }

    fn count(&self) -> usize {
        let table = self.0.begin_read().expect("it is read").open_table(FACTS).expect("a table");
        let facts = table.iter().expect("it is read").map(|fact| fact.expect("a fact"));
        facts.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).collect::<Vec<_>>().len()
    }
}

/// SQLite with a write-ahead log, each commit synced.
pub struct Sqlite(Connection);

impl Keeper for Sqlite {
    fn open(folder: &Path) -> Self {
        let connection = Connection::open(folder.join("facts.sqlite")).expect("it opens");
        let set_up = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
            CREATE TABLE IF NOT EXISTS facts (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;";
        connection.execute_batch(set_up).expect("it is set up");
        Self(connection)
    }

    fn commit(&mut self, changes: &[Change]) {
        let transaction = self.0.transaction().expect("nobody else writes");
        for change in changes {
            match change {
                Change::Put { key, value } => {
                    let put =
                        "INSERT INTO facts VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
                    let mut put = transaction.prepare_cached(put).expect("a statement");
                    put.execute(params![key, value.as_slice()]).expect("it is taken");
                }
                Change::Remove { key } => {
                    let mut remove =
                        transaction.prepare_cached("DELETE FROM facts WHERE key = ?1").expect("a statement");
                    remove.execute(params![key]).expect("it is taken");
                }
            }
        }
        transaction.commit().expect("the disk works");
    }

    fn count(&self) -> usize {
        let mut all = self.0.prepare("SELECT key, value FROM facts ORDER BY key").expect("a statement");
        let facts = all.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?)));
        facts.expect("it is read").map(|fact| fact.expect("a fact")).collect::<Vec<_>>().len()
    }
}
