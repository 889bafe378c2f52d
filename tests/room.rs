//! What happens when a stream has reached its limit of bytes: records that are held for
//! applications, and the choice of the owner between dropping, rejecting and waiting.

mod common;

use std::time::{Duration, Instant};

use common::files::{process_all, scratch};
use common::{Fixture, S0, put};
use millstream::{
    Batch, Checkpointer, Error, HashKey, Limit, ProcessorError, Retention, StartingPosition,
    Stream, WhenFull, WorkerPool,
};

const MIB: u64 = 1 << 20;

/// A stream of 1 MiB in small segments.
fn one_mib(directory: &tempfile::TempDir, retention: Retention) -> Stream {
    let builder = Stream::builder(directory.path()).max_segment_bytes(64 << 10);
    builder.retention(retention.bytes(MIB)).create().unwrap()
}

/// Puts records of 1,000 bytes until one is refused: how many there are.
fn fill(stream: &Stream) -> u64 {
    for count in 0..100_000 {
        match stream.put("k", [7; 1000]) {
            Ok(_) => {}
            Err(Error::StreamFull { taken, needed, limit }) => {
                assert!(taken + needed > limit && limit == MIB, "{taken} + {needed} of {limit}");
                return count;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it is never full");
}

fn trimmed(stream: &Stream) -> u64 {
    stream.describe_shard(S0).unwrap().trimmed_records
}

#[test]
fn what_an_application_has_not_processed_is_held() {
    let directory = scratch();
    let retention = Retention::default().age(Duration::ZERO).records(1).hold_for(["billing"]);
    let stream = one_mib(&directory, retention.when_full(WhenFull::Reject));
    for n in 0..200 {
        put(&stream, &n.to_string());
    }
    stream.apply_retention().unwrap();
    assert_eq!(trimmed(&stream), 0, "it has never run");
    assert_eq!(process_all(&stream, "audit"), 200);
    stream.apply_retention().unwrap();
    assert_eq!(trimmed(&stream), 0, "another one has");
    assert_eq!(process_all(&stream, "billing"), 200);
    while trimmed(&stream) < 200 {
        // The clock has to be a millisecond further.
        stream.apply_retention().unwrap();
    }
    put(&stream, "next");
    assert_eq!(process_all(&stream, "billing"), 1);
    assert_eq!(stream.storage().unwrap().dropped_unprocessed, 0);
}

#[test]
fn only_what_all_applications_have_processed_goes() {
    let directory = scratch();
    let retention = Retention::default().age(Duration::ZERO).hold_for(["a", "b"]);
    let stream = one_mib(&directory, retention);
    put(&stream, "1");
    put(&stream, "2");
    assert_eq!(process_all(&stream, "a"), 2);
    put(&stream, "3");
    assert_eq!(process_all(&stream, "b"), 3);
    while trimmed(&stream) < 2 {
        stream.apply_retention().unwrap();
    }
    stream.apply_retention().unwrap();
    assert_eq!(trimmed(&stream), 2);
}

#[test]
fn a_full_stream_rejects_until_an_application_has_processed_something() {
    let directory = scratch();
    let retention = Retention::default().hold_for(["billing"]).when_full(WhenFull::Reject);
    let stream = one_mib(&directory, retention);
    let count = fill(&stream);
    assert!(count > 900, "{count}");
    assert_eq!(trimmed(&stream), 0);
    // In another process.
    let reader = Stream::open_read_only(directory.path()).unwrap();
    assert_eq!(process_all(&reader, "billing") as u64, count);
    let more = fill(&stream);
    assert!(more > 800, "{more}");
    assert!(trimmed(&stream) > 800);
    assert_eq!(process_all(&stream, "billing") as u64, more, "none was dropped before");
    assert_eq!(stream.storage().unwrap().dropped_unprocessed, 0);
}

#[test]
fn a_full_stream_without_applications_rejects_until_it_is_trimmed() {
    let directory = scratch();
    let stream = one_mib(&directory, Retention::default().when_full(WhenFull::Reject));
    let count = fill(&stream);
    stream.apply_retention().unwrap();
    assert!(matches!(stream.put("k", [7; 1000]), Err(Error::StreamFull { .. })));
    assert_eq!(trimmed(&stream), 0);
    let results = stream.put_batch([("k", "batch"), ("k", "batch")]);
    assert!(results.iter().all(|result| matches!(result, Err(Error::StreamFull { .. }))));
    let last = stream.describe_shard(S0).unwrap().last_sequence_number.unwrap();
    stream.trim(S0, last).unwrap();
    assert!(stream.put_batch([("k", "batch")])[0].is_ok());
    assert_eq!(trimmed(&stream), count);
    // Keeping more makes room, too.
    fill(&stream);
    stream.set_retention(stream.retention().bytes(2 * MIB)).unwrap();
    put(&stream, "there is room");
}

#[test]
fn a_full_stream_that_blocks_gives_up_at_the_deadline() {
    let directory = scratch();
    let time = Duration::from_millis(50);
    let retention = Retention::default().hold_for(["billing"]).when_full(WhenFull::Block(time));
    let stream = one_mib(&directory, retention);
    fill(&stream);
    let started = Instant::now();
    assert!(matches!(stream.put("k", [7; 1000]), Err(Error::StreamFull { .. })));
    assert!(started.elapsed() >= time, "{:?}", started.elapsed());
}

#[test]
fn a_full_stream_that_blocks_goes_on_when_a_pool_makes_room() {
    let directory = scratch();
    let time = Duration::from_secs(600);
    let retention = Retention::default().hold_for(["billing"]).when_full(WhenFull::Block(time));
    let stream = one_mib(&directory, retention);
    let pool = WorkerPool::builder("billing", &stream)
        .limit(Limit::records(100))
        .start(|_| |_: &Batch, _: &mut Checkpointer<'_>| -> Result<(), ProcessorError> { Ok(()) });
    let pool = pool.unwrap();
    for _ in 0..10_000 {
        stream.put("k", [7; 1000]).unwrap();
    }
    assert!(pool.wait_until_idle(Duration::from_secs(60)));
    let processed: u64 = pool.status().iter().map(|status| status.records_processed).sum();
    assert_eq!(processed, 10_000);
    pool.shutdown(Duration::from_secs(60));
    assert_eq!(stream.storage().unwrap().dropped_unprocessed, 0);
    assert!(stream.storage().unwrap().bytes <= MIB + (64 << 10));
}

#[test]
fn what_is_dropped_though_it_was_held_is_counted_and_told() {
    let directory = scratch();
    let stream = one_mib(&directory, Retention::default().hold_for(["billing"]));
    for _ in 0..100 {
        stream.put("k", [7; 1000]).unwrap();
    }
    assert_eq!(process_all(&stream, "billing"), 100);
    let start = stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    for _ in 0..5000 {
        stream.put("k", [7; 1000]).unwrap();
    }
    let dropped = stream.storage().unwrap().dropped_unprocessed;
    assert_eq!(dropped, trimmed(&stream) - 100, "the first 100 were processed");
    assert!(dropped > 3500, "{dropped}");
    let gap = stream.get_records(&start, Limit::default()).unwrap().gap.unwrap();
    assert_eq!(gap.records, Some(dropped + 100));
    assert_eq!(process_all(&stream, "billing") as u64, 5000 - dropped);
}

#[test]
fn every_shard_of_many_can_go_on_in_little_room() {
    let directory = scratch();
    let builder = Stream::builder(directory.path()).max_segment_bytes(64 << 10).shards(64);
    let stream = builder.retention(Retention::default().bytes(256 << 10)).create().unwrap();
    std::thread::scope(|scope| {
        for producer in 0..4 {
            let stream = &stream;
            scope.spawn(move || {
                for n in 0..5000 {
                    stream.put(&format!("{producer}-{n}"), [7; 3000]).unwrap();
                }
            });
        }
    });
    let bytes = stream.storage().unwrap().bytes;
    assert!(bytes <= (256 << 10) + 64 * (64 << 10), "{bytes}");
}

#[test]
fn a_reshard_and_a_trim_at_the_same_time_lose_neither() {
    let Fixture { stream, .. } = &Fixture::with(|b| {
        b.retention(Retention::default().bytes(512 << 10)).max_segment_bytes(64 << 10)
    });
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            for n in 0..5000 {
                stream.put(&n.to_string(), [7; 1000]).unwrap();
            }
        });
        let mut shift = 127;
        while !producer.is_finished() && shift > 100 {
            let shards = stream.shards();
            let low = shards.iter().find(|s| s.is_open() && s.hash_key_range.start == HashKey::MIN);
            stream.split_shard(low.unwrap().id, HashKey::new(1 << shift)).unwrap();
            shift -= 1;
        }
    });
    let ids = stream.shards().into_iter().map(|shard| shard.id);
    let all = ids.map(|id| stream.describe_shard(id).unwrap());
    assert_eq!(all.map(|shard| shard.records + shard.trimmed_records).sum::<u64>(), 5000);
}
