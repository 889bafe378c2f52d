//! The protocol of the log in every interleaving of a few threads. What runs is the code that runs
//! otherwise, from a shard's `append` and `read` down to the words of its map; only the map, the
//! atomics and the locks are models. Segments have room for a few records, so that they end.

mod end;
mod group_commit;
#[cfg(shuttle)]
mod many;
mod one_segment;
mod roll;
mod void;

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::format::segment_header::SEGMENT_HEADER_LEN;
use crate::os::explore::{explore, explore_some};
use crate::os::sync_model::engine::thread::{JoinHandle, spawn};
use crate::position::ShardId;
use crate::record::{Key, Limit};
use crate::shard::cursor::{Place, Reading};
use crate::shard::horizon::Horizon;
use crate::shard::index::Index;
use crate::shard::segment::Segment;
use crate::shard::writer::Writer;
use crate::shard::{Appended, Log, Shard, Side};

/// The bytes of a record's frame.
const FRAME: u64 = 64;

/// The files of a model: real, but nothing is looked for in them, so that all its executions can
/// use the same ones.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let memory = TempDir::new_in("/dev/shm");
        Self(memory.or_else(|_| TempDir::new()).unwrap())
    }

    /// A shard whose segments have room for this many bytes of frames, with one record in it.
    fn shard(&self, room: u64) -> Arc<Shard> {
        let log = Log {
            shard: ShardId::new(0),
            stream: 1,
            directory: PathBuf::from(self.0.path()),
            start: 0,
            max_segment_bytes: u64::from(SEGMENT_HEADER_LEN) + room,
            room: Arc::default(),
            horizon: Horizon::default(),
            index: Index::default(),
        };
        let writer = Writer::open(&log, &mut []).unwrap();
        let shard = Arc::new(Shard::new(log, Side::Writer(Box::new(writer))));
        assert_eq!(put(&shard, FIRST).unwrap().address, u64::from(SEGMENT_HEADER_LEN));
        shard
    }
}

/// A record by its number in the model.
type Record = u8;
/// The one that is in a shard at the beginning.
const FIRST: Record = 0;

fn put(shard: &Shard, record: Record) -> Result<Appended> {
    shard.append(Key::new("k"), &[record, !record], u64::from(record))
}

/// A producer of these records: where they went, until one was refused because the shard is closed.
fn producer<const N: usize>(
    shard: &Arc<Shard>,
    records: [Record; N],
) -> JoinHandle<Vec<(u64, Record)>> {
    let shard = Arc::clone(shard);
    spawn(move || {
        let mut placed = Vec::new();
        for record in records {
            match put(&shard, record) {
                Ok(appended) => placed.push((appended.address, record)),
                Err(Error::ShardClosed { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        placed
    })
}

/// Reads on from a place; what was read is added to `seen`.
fn read_on(shard: &Shard, place: Place, seen: &mut Vec<(u64, Record)>) -> Reading {
    let reading = shard.read(&place, Limit::default()).unwrap();
    for record in reading.records.iter() {
        let [number, inverse] = *record.data() else { panic!("a record is whole") };
        assert_eq!((record.partition_key(), inverse), ("k", !number), "a record is whole");
        assert_eq!(record.arrival_ms(), u64::from(number));
        seen.push((record.sequence_number().address().unwrap(), number));
    }
    reading
}

fn start() -> Place {
    Place { address: 0, segment: None }
}

/// All that can be read, when nobody writes any more.
fn all(shard: &Shard) -> Vec<(u64, Record)> {
    let mut seen = Vec::new();
    read_on(shard, start(), &mut seen);
    seen
}

/// What must hold when all producers are done: `placed` is what they were told, by producer.
fn check(shard: &Shard, placed: &[Vec<(u64, Record)>], seen_before: &[(u64, Record)]) {
    let seen = all(shard);
    assert!(
        seen.is_sorted_by(|a, b| a.0 + FRAME <= b.0),
        "places rise and do not overlap: {seen:?}"
    );
    assert!(seen.starts_with(seen_before), "a reader sees a prefix: {seen_before:?} of {seen:?}");
    for placed in placed {
        assert!(placed.is_sorted(), "the numbers of a producer rise: {placed:?}");
    }
    let mut expected = placed.concat();
    expected.push((u64::from(SEGMENT_HEADER_LEN), FIRST));
    expected.sort_unstable();
    assert_eq!(seen, expected, "what was acknowledged is what is there");
}

/// The segment that has an address.
fn segment(shard: &Shard, address: u64) -> Arc<Segment> {
    shard.log.index.at_or_above(address).unwrap().unwrap()
}
