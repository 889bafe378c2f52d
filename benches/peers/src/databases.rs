//! The databases, as people use them for a log: a rising key, and the record.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::ReadableDatabase;

use crate::{Peer, Result};

pub fn fjall(dir: &Path) -> Result<Box<dyn Peer>> {
    let database = fjall::Database::builder(dir.join("database")).open()?;
    let log = database.keyspace("log", fjall::KeyspaceCreateOptions::default)?;
    Ok(Box::new(Fjall { database, log, next: AtomicU64::new(0) }))
}

struct Fjall {
    database: fjall::Database,
    log: fjall::Keyspace,
    next: AtomicU64,
}

impl Peer for Fjall {
    fn append(&self, records: &[&[u8]], sync: bool) -> Result<bool> {
        let mut batch = self.database.batch();
        for data in records {
            let key = self.next.fetch_add(1, Ordering::Relaxed);
            if records.len() == 1 {
                self.log.insert(key.to_be_bytes(), *data)?;
            } else {
                batch.insert(&self.log, key.to_be_bytes(), *data);
            }
        }
        batch.commit()?;
        if sync {
            self.database.persist(fjall::PersistMode::SyncAll)?;
        }
        Ok(true)
    }

    fn replay(&self) -> Result<Option<usize>> {
        let mut read = 0;
        for record in self.log.iter() {
            read += usize::from(!record.value()?.is_empty());
        }
        Ok(Some(read))
    }
}

const TABLE: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("log");

pub fn redb(dir: &Path) -> Result<Box<dyn Peer>> {
    let database = redb::Database::create(dir.join("database"))?;
    Ok(Box::new(Redb { database, next: AtomicU64::new(0) }))
}

struct Redb {
    database: redb::Database,
    next: AtomicU64,
}

impl Peer for Redb {
    fn append(&self, records: &[&[u8]], sync: bool) -> Result<bool> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(match sync {
            true => redb::Durability::Immediate,
            false => redb::Durability::None,
        })?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for data in records {
                table.insert(self.next.fetch_add(1, Ordering::Relaxed), *data)?;
            }
        }
        transaction.commit()?;
        Ok(true)
    }

    fn replay(&self) -> Result<Option<usize>> {
        let transaction = self.database.begin_read()?;
        let mut read = 0;
        for row in transaction.open_table(TABLE)?.range::<u64>(..)? {
            read += usize::from(!row?.1.value().is_empty());
        }
        Ok(Some(read))
    }
}

pub fn sqlite(dir: &Path) -> Result<Box<dyn Peer>> {
    let connection = rusqlite::Connection::open(dir.join("database"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.execute("CREATE TABLE log (number INTEGER PRIMARY KEY, data BLOB)", [])?;
    Ok(Box::new(Sqlite(Mutex::new((connection, None)))))
}

/// With the level of durability that was set last.
struct Sqlite(Mutex<(rusqlite::Connection, Option<bool>)>);

impl Peer for Sqlite {
    fn append(&self, records: &[&[u8]], sync: bool) -> Result<bool> {
        let (connection, was_sync) = &mut *self.0.lock().unwrap();
        if was_sync.replace(sync) != Some(sync) {
            let level = if sync { "FULL" } else { "NORMAL" };
            connection.pragma_update(None, "synchronous", level)?;
        }
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO log (data) VALUES (?1)")?;
            for data in records {
                insert.execute([data])?;
            }
        }
        transaction.commit()?;
        Ok(true)
    }

    fn replay(&self) -> Result<Option<usize>> {
        let (connection, _) = &*self.0.lock().unwrap();
        let mut select = connection.prepare("SELECT data FROM log ORDER BY number")?;
        let mut rows = select.query([])?;
        let mut read = 0;
        while let Some(row) = rows.next()? {
            read += usize::from(!row.get_ref(0)?.as_blob()?.is_empty());
        }
        Ok(Some(read))
    }
}
