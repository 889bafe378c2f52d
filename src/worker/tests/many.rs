//! More shards than threads.

use std::collections::BTreeMap;
use std::sync::mpsc;

use super::remote_table::{Database, RemoteTable};
use super::*;
use crate::worker::Outcome;

const SHARDS: u32 = 1000;
const RECORDS: usize = 20;

#[test]
fn a_pool_over_a_thousand_shards_is_fair_on_four_threads() {
    let mut fixture = Fixture::new(SHARDS);
    fixture.options.threads = 4;
    for shard in (0..SHARDS).map(ShardId::new) {
        fixture.source.put_many(shard, RECORDS);
    }
    let recorder = fixture.recorder();
    let factory = Box::new(move |shard: &ShardInfo| -> Box<dyn RecordProcessor> {
        Box::new(Recorder { shard: shard.id, ..recorder.clone() })
    });
    let (database, options) = (Arc::new(Database::default()), fixture.options.clone());
    let table = RemoteTable::connect(&database, &options.ticker, LONG);
    let (source, path) = (Arc::clone(&fixture.source), fixture.directory.path());
    let common = Common::new();
    let shared = Shared::new(source, Arc::new(table), path, options, factory, &common);
    let pool = start(shared, &common).unwrap();
    assert!(pool.wait_until_idle(LONG));
    let outcomes = shut_down(pool, LONG);
    assert_eq!(outcomes.len(), SHARDS as usize);
    assert!(outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Stopped));
    // Whenever a shard has come to its end, every other one is half-way at least, but for those
    // that a thread has in hand which the system lets wait.
    let mut counts: BTreeMap<ShardId, usize> = BTreeMap::new();
    for call in fixture.log.calls() {
        let Call::Record(shard, _) = call else { continue };
        let count = counts.entry(shard).or_default();
        *count += 1;
        if *count == RECORDS {
            let waiting = SHARDS as usize - counts.len();
            assert!(waiting <= fixture.options.threads, "{shard} is finished before others begin");
            let slow = counts.values().filter(|count| **count * 2 < RECORDS).count();
            assert!(slow <= fixture.options.threads, "{slow} are not half-way");
        }
    }
    assert!(counts.values().all(|count| *count == RECORDS));
}

#[test]
fn a_shard_that_hangs_starves_nobody_and_nothing_is_kept_for_it() {
    let fixture = Fixture::new(4);
    let slow = ShardId::new(0);
    for shard in (0..4).map(ShardId::new) {
        fixture.source.put_many(shard, 100);
    }
    let (go_on, wait) = mpsc::channel::<()>();
    let (wait, source) = (Mutex::new(wait), Arc::clone(&fixture.source));
    // One with each thread, and one with the supervisor, which looks for news.
    let most = fixture.options.threads + 1;
    let pool = fixture.start(fixture.recorder().on_batch(move |batch, _| {
        assert!(source.batches() <= most, "{} batches at once", source.batches());
        if batch.shard() == slow {
            // Until nobody is there who would wake it.
            let _ = wait.lock().recv();
        }
        Ok(())
    }));
    for shard in (1..4).map(ShardId::new) {
        wait_for_state(&pool, shard, ShardState::Idle);
        assert_eq!(fixture.log.records(shard).len(), 100);
    }
    fixture.source.put_many(slow, 1000);
    assert_eq!(fixture.log.records(slow), []);
    drop(go_on);
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(fixture.log.records(slow).len(), 1100);
    assert!(pool.status().iter().all(|status| status.last_error.is_none()), "{:?}", pool.status());
}
