//! The logs and queues.

use std::path::Path;
use std::sync::Mutex;

use crate::{Peer, Result};

/// Those that one thread at a time appends to.
type Alone<T> = Mutex<T>;

pub fn millstream(dir: &Path) -> Result<Box<dyn Peer>> {
    Ok(Box::new(Millstream(millstream::Stream::builder(dir).open()?)))
}

struct Millstream(millstream::Stream);

impl Peer for Millstream {
    fn append(&self, records: &[&[u8]], sync: bool) -> Result<bool> {
        use millstream::{Durability, PutRecord};
        let durability = if sync { Durability::Sync } else { Durability::Os };
        let record = |data| PutRecord::new("key-0001", data).durability(durability);
        if let [data] = records {
            self.0.put_record(record(*data))?;
            return Ok(true);
        }
        let put = self.0.put_batch(records.iter().map(|data| record(*data)));
        put.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(true)
    }

    fn replay(&self) -> Result<Option<usize>> {
        use millstream::{Limit, ShardId, StartingPosition};
        let from = StartingPosition::TrimHorizon;
        let mut iterator = Some(self.0.shard_iterator(ShardId::new(0), from)?);
        let mut read = 0;
        while let Some(at) = iterator {
            let page = self.0.get_records(&at, Limit::bytes(1 << 20))?;
            read += page.records.iter().filter(|record| !record.data().is_empty()).count();
            iterator = page.next_shard_iterator.filter(|_| !page.records.is_empty());
        }
        Ok(Some(read))
    }
}

pub fn commitlog(dir: &Path) -> Result<Box<dyn Peer>> {
    let options = commitlog::LogOptions::new(dir.join("log"));
    Ok(Box::new(Commitlog(Mutex::new(commitlog::CommitLog::new(options)?))))
}

struct Commitlog(Alone<commitlog::CommitLog>);

impl Peer for Commitlog {
    fn append(&self, records: &[&[u8]], sync: bool) -> Result<bool> {
        // Its flush does not sync.
        if sync {
            return Ok(false);
        }
        let mut batch = commitlog::message::MessageBuf::default();
        for data in records {
            batch.push(data).map_err(|e| format!("{e:?}"))?;
        }
        self.0.lock().unwrap().append(&mut batch)?;
        Ok(true)
    }

    fn replay(&self) -> Result<Option<usize>> {
        use commitlog::message::MessageSet;
        let (log, mut next, mut read) = (self.0.lock().unwrap(), 0, 0);
        loop {
            let messages = log.read(next, commitlog::ReadLimit::max_bytes(1 << 20))?;
            if messages.is_empty() {
                return Ok(Some(read));
            }
            for message in messages.iter() {
                assert!(message.verify_hash());
                (next, read) = (message.offset() + 1, read + 1);
            }
        }
    }
}

pub fn yaque(dir: &Path) -> Result<Box<dyn Peer>> {
    let (sender, receiver) = yaque::channel(dir.join("queue"))?;
    Ok(Box::new(Yaque(Mutex::new(sender), Mutex::new(receiver))))
}

struct Yaque(Alone<yaque::Sender>, Alone<yaque::Receiver>);

impl Peer for Yaque {
    fn append(&self, records: &[&[u8]], sync: bool) -> Result<bool> {
        // It has no sync.
        if sync {
            return Ok(false);
        }
        let sent = self.0.lock().unwrap().try_send_batch(records);
        sent.map_err(|_| "the queue is full")?;
        Ok(true)
    }

    fn replay(&self) -> Result<Option<usize>> {
        let (mut receiver, mut read) = (self.1.lock().unwrap(), 0);
        loop {
            let batch = receiver.try_recv_batch_up_to(1000);
            let Ok(batch) = batch else { return Ok(Some(read)) };
            if batch.is_empty() {
                return Ok(Some(read));
            }
            read += batch.len();
            batch.commit()?;
        }
    }
}

pub fn okaywal(dir: &Path) -> Result<Box<dyn Peer>> {
    let log = okaywal::WriteAheadLog::recover(dir.join("log"), okaywal::LogVoid)?;
    Ok(Box::new(Okaywal(log)))
}

struct Okaywal(okaywal::WriteAheadLog);

impl Peer for Okaywal {
    fn append(&self, records: &[&[u8]], sync: bool) -> Result<bool> {
        // A commit always syncs.
        if !sync {
            return Ok(false);
        }
        let mut entry = self.0.begin_entry()?;
        for data in records {
            entry.write_chunk(data)?;
        }
        entry.commit()?;
        Ok(true)
    }

    fn replay(&self) -> Result<Option<usize>> {
        // Only when it is opened.
        Ok(None)
    }
}

pub fn walrus(_: &Path) -> Result<Box<dyn Peer>> {
    use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};
    static OPENED: Mutex<usize> = Mutex::new(0);
    let mut opened = OPENED.lock().unwrap();
    *opened += 1;
    let keys = ["plain", "synced"].map(|name| format!("{name}-{opened}"));
    let open = |key: &str, schedule| {
        let consistency = ReadConsistency::AtLeastOnce { persist_every: 1000 };
        Walrus::with_consistency_and_schedule_for_key(key, consistency, schedule)
    };
    // Whether an append is synced is a property of the log.
    let plain = open(&keys[0], FsyncSchedule::NoFsync)?;
    let synced = open(&keys[1], FsyncSchedule::SyncEach)?;
    Ok(Box::new(Walruses { plain, synced, keys }))
}

struct Walruses {
    plain: walrus_rust::Walrus,
    synced: walrus_rust::Walrus,
    keys: [String; 2],
}

impl Drop for Walruses {
    fn drop(&mut self) {
        for key in &self.keys {
            let _ = std::fs::remove_dir_all(Path::new("wal_files").join(key));
        }
    }
}

impl Peer for Walruses {
    fn append(&self, records: &[&[u8]], sync: bool) -> Result<bool> {
        let log = if sync { &self.synced } else { &self.plain };
        match records {
            [data] => log.append_for_topic("topic", data)?,
            _ => log.batch_append_for_topic("topic", records)?,
        }
        Ok(true)
    }

    fn replay(&self) -> Result<Option<usize>> {
        let mut read = 0;
        loop {
            let batch = self.plain.batch_read_for_topic("topic", 1 << 20, true)?;
            if batch.is_empty() {
                return Ok(Some(read));
            }
            read += batch.len();
        }
    }
}

pub fn raft_engine(dir: &Path) -> Result<Box<dyn Peer>> {
    let dir = dir.join("log").to_str().ok_or("the directory is not UTF-8")?.to_owned();
    let config = raft_engine::Config { dir, ..Default::default() };
    Ok(Box::new(RaftEngine(raft_engine::Engine::open(config)?, Default::default())))
}

/// By its keys and values: its entries are those of Raft.
struct RaftEngine(raft_engine::Engine, std::sync::atomic::AtomicU64);

impl Peer for RaftEngine {
    fn append(&self, records: &[&[u8]], sync: bool) -> Result<bool> {
        let mut batch = raft_engine::LogBatch::default();
        for data in records {
            let key = self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            batch.put(1, key.to_be_bytes().to_vec(), data.to_vec())?;
        }
        self.0.write(&mut batch, sync)?;
        Ok(true)
    }

    fn replay(&self) -> Result<Option<usize>> {
        let mut read = 0;
        self.0.scan_raw_messages(1, None, None, false, |_, value| {
            read += usize::from(!value.is_empty());
            true
        })?;
        Ok(Some(read))
    }
}
