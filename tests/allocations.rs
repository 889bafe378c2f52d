//! What is done for every record allocates nothing: putting, reading, processing, counting.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millstream::{
    Batch, CheckpointPolicy, Checkpointer, Limit, ShardId, StartingPosition, Stream, WorkerPool,
};
use parking_lot::Mutex;

/// Counts what is asked of the system's.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on as it is, so that the contract is the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller has promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller has promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller has promised.
        unsafe { System.realloc(pointer, layout, len) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The tests of this file take turns: all of the process is counted.
static TURN: Mutex<()> = Mutex::new(());

const LONG: Duration = Duration::from_secs(60);
const RECORDS: u64 = 50_000;
const BATCH: u64 = 1000;
/// Some for each batch, far less than one for each record.
const FEW: u64 = 40 * RECORDS / BATCH;

fn allocations(run: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    run();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

fn put(stream: &Stream, count: u64) {
    const KEYS: [&str; 4] = ["key-1", "key-2", "key-3", "key-4"];
    for number in 0..count {
        stream.put(KEYS[number as usize % KEYS.len()], number.to_le_bytes()).unwrap();
    }
}

#[test]
fn putting_allocates_nothing_for_a_record() {
    let _turn = TURN.lock();
    let directory = tempfile::tempdir().unwrap();
    let stream = Stream::builder(directory.path()).open().unwrap();
    put(&stream, 1);
    let counted = allocations(|| put(&stream, RECORDS));
    assert!(counted < FEW, "{counted} allocations for {RECORDS} records");
}

#[test]
fn reading_allocates_nothing_for_a_record() {
    let _turn = TURN.lock();
    let directory = tempfile::tempdir().unwrap();
    let stream = Stream::builder(directory.path()).open().unwrap();
    put(&stream, RECORDS);
    let mut read = 0;
    let counted = allocations(|| {
        let start = StartingPosition::TrimHorizon;
        let mut at = stream.shard_iterator(ShardId::new(0), start).unwrap();
        while read < RECORDS {
            let page = stream.get_records(&at, Limit::records(BATCH as usize)).unwrap();
            read += page.records.iter().map(|record| record.data().len() as u64 / 8).sum::<u64>();
            at = page.next_shard_iterator.unwrap();
        }
    });
    assert!(counted < FEW, "{counted} allocations for {read} records");
}

/// How much a pool with so many lanes allocates until it has processed so many records; whether it
/// checkpoints each of them by hand.
fn of_a_pool(lanes: usize, is_manual: bool, records: u64) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let stream = Stream::builder(directory.path()).open().unwrap();
    put(&stream, records);
    let policy = if is_manual { CheckpointPolicy::Manual } else { CheckpointPolicy::AfterBatch };
    let process = move |batch: &Batch, checkpointer: &mut Checkpointer<'_>| {
        for record in batch.iter().filter(|_| is_manual) {
            checkpointer.checkpoint_at(&record)?;
        }
        Ok(())
    };
    let mut processed = 0;
    let counted = allocations(|| {
        let pool = WorkerPool::builder("billing", &stream)
            .threads(lanes)
            .lanes(lanes)
            .checkpoints(policy)
            .limit(Limit::records(BATCH as usize))
            .start(move |_| process)
            .unwrap();
        assert!(pool.wait_until_idle(LONG));
        processed = pool.metrics().shards[0].counts.records_processed;
        pool.shutdown(LONG);
    });
    assert_eq!(processed, records);
    counted
}

#[test]
fn processing_checkpointing_and_counting_allocate_nothing_for_a_record() {
    let _turn = TURN.lock();
    for (lanes, is_manual) in [(1, false), (1, true), (4, false)] {
        let counted = of_a_pool(lanes, is_manual, RECORDS);
        let own = counted.saturating_sub(of_a_pool(lanes, is_manual, 1));
        // Each lane reads all of it.
        let few = FEW * lanes as u64;
        assert!(own < few, "{lanes} lanes: {own} allocations for {RECORDS} records");
    }
}
