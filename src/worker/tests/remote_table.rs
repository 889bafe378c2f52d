//! A lease table as a database in the network would be one: rows with conditional updates, and
//! members that are there as long as they are heard of. It shows that the trait suffices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::format::control_row::{ControlRow, MemberId};
use crate::os::clock::Ticker;
use crate::position::ShardId;
use crate::worker::lease_table::{LeaseTable, Members, Missing};

/// What the database holds.
#[derive(Default)]
pub(super) struct Database {
    rows: Mutex<BTreeMap<ShardId, ControlRow>>,
    /// When each member was heard of last, and whether it takes shards.
    members: Mutex<BTreeMap<MemberId, (Instant, bool)>>,
    next_member: Mutex<u64>,
    /// Counts the changes of rows.
    version: Mutex<u64>,
}

impl Database {
    pub(super) fn version(&self) -> u64 {
        *self.version.lock()
    }

    pub(super) fn rows(&self) -> BTreeMap<ShardId, ControlRow> {
        self.rows.lock().clone()
    }
}

/// One pool's connection.
pub(super) struct RemoteTable {
    database: Arc<Database>,
    me: MemberId,
    ticker: Ticker,
    /// Who was not heard of for so long is gone.
    expiry: Duration,
}

impl RemoteTable {
    pub(super) fn connect(database: &Arc<Database>, ticker: &Ticker, expiry: Duration) -> Self {
        let mut next = database.next_member.lock();
        *next += 1;
        let me = MemberId::new(*next).unwrap();
        Self { database: Arc::clone(database), me, ticker: ticker.clone(), expiry }
    }
}

impl LeaseTable for RemoteTable {
    fn me(&self) -> MemberId {
        self.me
    }

    fn attend(&self) -> Result<Members> {
        let now = self.ticker.now();
        let mut members = self.database.members.lock();
        members.entry(self.me).or_insert((now, true)).0 = now;
        members.retain(|_, (heard, _)| now.duration_since(*heard) < self.expiry);
        Ok(members.iter().map(|(member, (_, takes))| (*member, *takes)).collect())
    }

    fn leave(&self) -> Result<()> {
        self.database.members.lock().insert(self.me, (self.ticker.now(), false));
        Ok(())
    }

    fn make_rows(&self, missing: Missing<'_>) -> Result<()> {
        let mut rows = self.database.rows.lock();
        let known: BTreeSet<_> = rows.keys().copied().collect();
        *self.database.version.lock() += 1;
        rows.extend(missing(&known)?);
        Ok(())
    }

    fn remove(&self, shard: ShardId) -> Result<()> {
        self.database.rows.lock().remove(&shard);
        *self.database.version.lock() += 1;
        Ok(())
    }

    fn read(&self, shard: ShardId) -> Result<ControlRow> {
        #[cfg(shuttle)]
        crate::os::sync::yield_now();
        self.database.rows.lock().get(&shard).cloned().ok_or(Error::ShardNotFound { shard })
    }

    fn replace(&self, shard: ShardId, row: &ControlRow) -> Result<bool> {
        #[cfg(shuttle)]
        crate::os::sync::yield_now();
        let mut rows = self.database.rows.lock();
        let seen = rows.get_mut(&shard).ok_or(Error::ShardNotFound { shard })?;
        let is_next = seen.generation + 1 == row.generation;
        if is_next {
            *seen = row.clone();
            *self.database.version.lock() += 1;
        }
        Ok(is_next)
    }
}
