//! A source in memory: records are numbers, which are the time as well.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::batch::{Batch, Entry, Pages};
use crate::error::{Error, Result};
use crate::lineage::ShardInfo;
use crate::os::signal::{Bell, Event};
use crate::position::{SequenceNumber, ShardId, StartingPosition};
use crate::record::{Lag, Limit};
use crate::worker::source::Source;

#[derive(Default)]
pub(super) struct Script {
    /// The index of the first shard.
    first: u32,
    shards: Mutex<BTreeMap<ShardId, Shard>>,
    news: Bell,
    /// Whether it cannot tell of news.
    pub(super) is_mute: AtomicBool,
    /// Whether reading fails.
    pub(super) is_broken: AtomicBool,
    /// How long ago the oldest record behind a cursor arrived.
    pub(super) waited_ms: AtomicU64,
    /// Whether records have different keys.
    pub(super) has_keys: AtomicBool,
    pages: Arc<Keys>,
}

struct Shard {
    info: ShardInfo,
    numbers: Vec<u64>,
    is_expired: bool,
}

/// The keys that records have, in turn; they have no data.
const KEYS: &str = "keyke1ke2ke3ke4ke5ke6ke7";
const KEY_LEN: u16 = 3;

/// Where the keys are.
#[derive(Default)]
struct Keys;

impl Pages for Keys {
    fn bytes(&self, start: u32, len: u32) -> &[u8] {
        &KEYS.as_bytes()[start as usize..(start + len) as usize]
    }
}

impl Script {
    /// With shards that are numbered from here on.
    pub(super) fn beginning_at(first: u32) -> Self {
        Self { first, ..Self::default() }
    }

    pub(super) fn add_shard(&self, parents: &[ShardId]) -> ShardId {
        let mut shards = self.shards.lock();
        let id = ShardId::new(self.first + shards.len() as u32);
        let info = ShardInfo {
            parent: parents.first().copied(),
            adjacent_parent: parents.get(1).copied(),
            starting_sequence_number: next_number(&shards).into(),
            ..super::info(id)
        };
        shards.insert(id, Shard { info, numbers: Vec::new(), is_expired: false });
        drop(shards);
        self.news.ring(|| ());
        id
    }

    pub(super) fn info(&self, shard: ShardId) -> ShardInfo {
        self.shards.lock()[&shard].info.clone()
    }

    /// Adds a record with a number above all there are.
    pub(super) fn put(&self, shard: ShardId) -> u64 {
        let mut shards = self.shards.lock();
        let number = next_number(&shards);
        let shard = shards.get_mut(&shard).unwrap();
        assert!(shard.info.is_open());
        shard.numbers.push(number);
        drop(shards);
        self.news.ring(|| ());
        number
    }

    pub(super) fn put_many(&self, shard: ShardId, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.put(shard)).collect()
    }

    /// Closes the shards and gives them a common child.
    pub(super) fn close(&self, parents: &[ShardId]) -> ShardId {
        let mut shards = self.shards.lock();
        let end = SequenceNumber::from(next_number(&shards) - 1);
        for parent in parents {
            shards.get_mut(parent).unwrap().info.ending_sequence_number = Some(end);
        }
        drop(shards);
        self.add_shard(parents)
    }

    /// Where the key of a record begins.
    fn key_at(&self, number: u64) -> usize {
        match self.has_keys.load(Ordering::SeqCst) {
            true => (usize::from(KEY_LEN) * number as usize) % KEYS.len(),
            false => 0,
        }
    }

    /// The key of a record.
    pub(super) fn key(&self, number: u64) -> &'static str {
        let start = self.key_at(number);
        &KEYS[start..start + usize::from(KEY_LEN)]
    }

    /// How many batches there are at this moment, in whosever hands.
    pub(super) fn batches(&self) -> usize {
        Arc::strong_count(&self.pages) - 1
    }

    /// Retention has removed all that was in a closed shard.
    pub(super) fn expire(&self, shard: ShardId) {
        let mut shards = self.shards.lock();
        let shard = shards.get_mut(&shard).unwrap();
        assert!(!shard.info.is_open());
        shard.is_expired = true;
    }

    fn fail_if_broken(&self) -> Result<()> {
        match self.is_broken.load(Ordering::SeqCst) {
            true => Err(Error::ReadOnly),
            false => Ok(()),
        }
    }
}

/// Numbers rise through all shards.
fn next_number(shards: &BTreeMap<ShardId, Shard>) -> u64 {
    shards.values().filter_map(|shard| shard.numbers.last()).max().map_or(1, |last| last + 1)
}

impl Source for Arc<Script> {
    /// The shard, and the lowest number to read.
    type Cursor = (ShardId, u64);

    fn shards(&self) -> Result<Vec<ShardInfo>> {
        Ok(self.shards.lock().values().map(|shard| shard.info.clone()).collect())
    }

    fn is_expired(&self, shard: &ShardInfo) -> bool {
        self.shards.lock()[&shard.id].is_expired
    }

    fn cursor(&self, shard: ShardId, from: StartingPosition) -> Result<Self::Cursor> {
        let from = match from {
            StartingPosition::TrimHorizon => 0,
            StartingPosition::Latest => next_number(&self.shards.lock()),
            StartingPosition::AtSequenceNumber(number) => number.address().unwrap(),
            StartingPosition::AfterSequenceNumber(number) => number.address().unwrap() + 1,
            StartingPosition::AtTimestampMs(time) => time,
        };
        Ok((shard, from))
    }

    fn position(&self, cursor: &Self::Cursor) -> StartingPosition {
        StartingPosition::AtSequenceNumber(cursor.1.into())
    }

    fn read(&self, cursor: &Self::Cursor, limit: Limit) -> Result<(Batch, Option<Self::Cursor>)> {
        self.fail_if_broken()?;
        let shards = self.shards.lock();
        let shard = &shards[&cursor.0];
        let numbers = if shard.is_expired { &[] } else { &*shard.numbers };
        let rest = &numbers[numbers.partition_point(|&number| number < cursor.1)..];
        let mut batch = Batch::new(cursor.0);
        batch.push_pages(Arc::clone(&self.pages) as Arc<dyn Pages>);
        for &address in rest.iter().take(limit.max_records) {
            let start = self.key_at(address) as u32;
            batch.push(Entry {
                address,
                arrival_ms: address,
                start,
                data_len: 0,
                key_len: KEY_LEN,
                pages: 0,
            });
        }
        let is_end = !shard.info.is_open() && batch.len() == rest.len();
        let last = batch.last_sequence_number().and_then(SequenceNumber::address);
        let next = (cursor.0, last.map_or(cursor.1, |last| last + 1));
        Ok((batch, (!is_end).then_some(next)))
    }

    fn lag(&self, cursor: &Self::Cursor) -> Result<Lag> {
        let shards = self.shards.lock();
        let shard = &shards[&cursor.0];
        let is_left = |number: &&u64| **number >= cursor.1 && !shard.is_expired;
        let rest = shard.numbers.iter().filter(is_left);
        let millis = self.waited_ms.load(Ordering::SeqCst);
        Ok(Lag { records: rest.count() as u64, bytes: 0, millis })
    }

    fn notify(&self, cursor: &Self::Cursor, event: &Arc<Event>) -> Result<bool> {
        if self.is_mute.load(Ordering::SeqCst) {
            return Ok(false);
        }
        self.news.listen(event, || ());
        let (batch, next) = self.read(cursor, Limit::records(1))?;
        if !batch.is_empty() || next.is_none() {
            event.notify();
        }
        Ok(true)
    }
}
