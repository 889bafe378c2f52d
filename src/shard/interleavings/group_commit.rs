//! Durability, and waiting for it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;
use crate::os::sync::atomic::AtomicU64;
use crate::shard::flush::Watermark;

/// A disk that some threads have published things for.
struct Disk {
    watermark: Watermark,
    published: AtomicU64,
    durable: AtomicU64,
    busy: AtomicBool,
    syncs: AtomicU32,
}

impl Disk {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            watermark: Watermark::new(ShardId::new(0), 0),
            published: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            syncs: AtomicU32::new(0),
        })
    }

    /// Publishes a unit more and waits until it is durable.
    fn put(&self, sync_fails: bool) -> Result<()> {
        let end = self.published.fetch_add(1, Ordering::AcqRel) + 1;
        self.watermark.raise_to(end, |from| {
            assert!(!self.busy.swap(true, Ordering::Relaxed), "one syncs at a time");
            assert_eq!(from, self.durable.load(Ordering::Relaxed), "from where the last one came");
            self.syncs.fetch_add(1, Ordering::Relaxed);
            let published = self.published.load(Ordering::Acquire);
            self.durable.store(published, Ordering::Relaxed);
            self.busy.store(false, Ordering::Relaxed);
            if sync_fails { Err(Error::ReadOnly) } else { Ok(published) }
        })?;
        assert!(self.durable.load(Ordering::Relaxed) >= end, "what is acknowledged is durable");
        Ok(())
    }
}

/// So many who wait for what they published.
fn group_commit(waiters: usize, explore: fn(&str, Box<dyn Fn() + Send + Sync>)) {
    let fewest = Arc::new(AtomicU32::new(u32::MAX));
    let found = Arc::clone(&fewest);
    let model = move || {
        let disk = Disk::new();
        let others: Vec<_> = (1..waiters)
            .map(|_| {
                let disk = Arc::clone(&disk);
                spawn(move || disk.put(false).unwrap())
            })
            .collect();
        disk.put(false).unwrap();
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(disk.watermark.get(), waiters as u64);
        found.fetch_min(disk.syncs.load(Ordering::Relaxed), Ordering::Relaxed);
    };
    explore(&format!("{waiters} who wait for a sync"), Box::new(model));
    assert_eq!(fewest.load(Ordering::Relaxed), 1, "one sync may serve all");
}

#[test]
fn one_sync_serves_two_who_wait() {
    group_commit(2, explore);
}

#[test]
fn one_sync_serves_three_who_wait() {
    group_commit(3, explore_some);
}

#[test]
#[ignore = "it takes more than ten minutes"]
fn one_sync_serves_three_who_wait_in_every_interleaving() {
    group_commit(3, explore);
}

#[test]
fn a_sync_that_fails_fails_all_who_wait() {
    explore("two who wait for a sync that fails", || {
        let disk = Disk::new();
        let other = {
            let disk = Arc::clone(&disk);
            spawn(move || disk.put(true))
        };
        let outcomes = [disk.put(true), other.join().unwrap()];
        assert!(outcomes.iter().all(|put| matches!(put, Err(Error::Poisoned { .. }))));
        assert_eq!(disk.syncs.load(Ordering::Relaxed), 1, "nothing is tried again");
    });
}

#[test]
fn what_is_acknowledged_is_on_the_disk_with_all_before_it() {
    let files = Files::new();
    explore("two producers who sync", move || {
        let shard = files.shard(3 * FRAME);
        let producers = [1, 2].map(|record| {
            let shard = Arc::clone(&shard);
            spawn(move || {
                let appended = put(&shard, record).unwrap();
                shard.sync_to(appended.end).unwrap();
                let segment = segment(&shard, 0);
                assert!(segment.map.is_synced_to(appended.end as usize), "the prefix is durable");
                vec![(appended.address, record)]
            })
        });
        check(&shard, &producers.map(|producer| producer.join().unwrap()), &[]);
    });
}

#[test]
fn where_a_segment_ends_is_on_the_disk_before_anything_behind_it() {
    let files = Files::new();
    explore("a sync over a roll with a pad", move || {
        let shard = files.shard(2 * FRAME + 32);
        let first = segment(&shard, 0);
        let producer = producer(&shard, [1]);
        let appended = put(&shard, 2).unwrap();
        shard.sync_to(appended.end).unwrap();
        if appended.address >= first.limit() {
            assert!(first.map.is_synced_to(first.map.len()), "all of it is durable");
        }
        check(&shard, &[producer.join().unwrap(), vec![(appended.address, 2)]], &[]);
    });
}
