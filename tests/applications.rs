//! Applications from outside of their pools: how far they are, and seeks, stopped and live.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Fixture, S0, S1, TestClock, put};
use millstream::{
    Application, Batch, Checkpoint, Checkpointer, Error, HashKey, HashKeyRange, Limit, PutRecord,
    Retention, StartingPosition, Stream, WorkerPool, verify,
};

/// Longer than any test takes that passes.
const LONG: Duration = Duration::from_secs(30);
const HORIZON: StartingPosition = StartingPosition::TrimHorizon;

/// What was processed, as text.
type Log = Arc<Mutex<Vec<String>>>;

fn start(stream: &Stream, log: &Log) -> WorkerPool {
    let log = Arc::clone(log);
    WorkerPool::builder("billing", stream)
        .limit(Limit::records(2))
        .look_interval(Duration::from_millis(2))
        .start(move |_| {
            let log = Arc::clone(&log);
            move |batch: &Batch, _: &mut Checkpointer<'_>| {
                let data = batch.iter().map(|r| String::from_utf8_lossy(r.data()).into_owned());
                log.lock().unwrap().extend(data);
                Ok(())
            }
        })
        .unwrap()
}

/// Runs a pool until nothing is left; returns what was processed.
fn process(stream: &Stream) -> Vec<String> {
    let log = Log::default();
    let pool = start(stream, &log);
    assert!(pool.wait_until_idle(LONG));
    pool.shutdown(LONG);
    log.lock().unwrap().clone()
}

fn billing(stream: &Stream) -> Application {
    Application::of("billing", stream).unwrap()
}

#[test]
fn rows_say_where_shards_come_from_and_what_they_own() {
    let Fixture { stream, directory: _directory } = Fixture::new(1);
    process(&stream);
    let [low, high] = stream.split_mid(S0).unwrap();
    let children = || {
        let shards = billing(&stream).shards().unwrap();
        shards.into_iter().map(|shard| (shard.shard, shard.children)).collect::<Vec<_>>()
    };
    assert_eq!(children(), [(S0, vec![])], "it has not seen them yet");
    process(&stream);
    let merged = stream.merge_shards(low, high).unwrap();
    process(&stream);
    assert_eq!(
        children(),
        [(S0, vec![low, high]), (low, vec![merged]), (high, vec![merged]), (merged, vec![])]
    );
    let shards = billing(&stream).shards().unwrap();
    assert_eq!(shards[3].parents, [low, high]);
    assert_eq!(shards[3].hash_key_range, HashKeyRange::FULL);
    for (row, info) in shards.iter().zip(stream.shards()) {
        assert_eq!(row.parents, info.parents().collect::<Vec<_>>());
        assert_eq!(row.hash_key_range, info.hash_key_range);
    }
}

#[test]
fn the_owners_that_a_shard_has_had_are_counted() {
    let Fixture { stream, directory: _directory } = Fixture::new(1);
    put(&stream, "a");
    for owners in 1..4 {
        process(&stream);
        assert_eq!(billing(&stream).shards().unwrap()[0].owners, owners);
    }
    billing(&stream).seek(HORIZON, "again").unwrap();
    assert_eq!(billing(&stream).shards().unwrap()[0].owners, 4);
}

#[test]
fn an_application_tells_how_far_it_is_and_who_is_there() {
    let Fixture { stream, directory: _directory } = Fixture::new(1);
    assert_eq!(Application::list(&stream).unwrap(), Vec::<String>::new());
    assert_eq!(billing(&stream).shards().unwrap().len(), 0);
    assert_eq!(billing(&stream).pools().unwrap(), 0);
    let number = put(&stream, "a").sequence_number;
    let pool = start(&stream, &Log::default());
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(billing(&stream).pools().unwrap(), 1);
    assert!(billing(&stream).shards().unwrap()[0].is_owned);
    pool.shutdown(LONG);
    put(&stream, "b");
    let shards = billing(&stream).shards().unwrap();
    assert_eq!(shards[0].checkpoint, Checkpoint::AfterSequenceNumber(number));
    assert_eq!((shards[0].lag.records, shards[0].is_owned), (1, false));
    assert_eq!(Application::list(&stream).unwrap(), ["billing"]);
    assert_eq!(billing(&stream).pools().unwrap(), 0);
}

#[test]
fn a_stopped_application_goes_on_where_it_was_sought_to() {
    let Fixture { stream, directory } = Fixture::new(1);
    let numbers = ["a", "b", "c"].map(|key| put(&stream, key).sequence_number);
    assert_eq!(process(&stream), ["a", "b", "c"]);
    billing(&stream).seek(HORIZON, "all again").unwrap();
    assert_eq!(process(&stream), ["a", "b", "c"]);
    let at = StartingPosition::AtSequenceNumber(numbers[1]);
    billing(&stream).seek_shard(S0, at, "from the second\non").unwrap();
    assert_eq!(process(&stream), ["b", "c"]);
    put(&stream, "d");
    billing(&stream).seek(StartingPosition::Latest, "d is not wanted").unwrap();
    assert_eq!(process(&stream), Vec::<String>::new());
    let seeks = directory.path().join("applications/billing/SEEKS");
    let seeks = std::fs::read_to_string(seeks).unwrap();
    let reasons: Vec<_> = seeks.lines().map(|line| line.rsplit(": ").next().unwrap()).collect();
    assert_eq!(reasons, ["all again", "from the second on", "d is not wanted"]);
    assert_eq!(verify(directory.path()).unwrap().findings, []);
}

#[test]
fn a_pool_that_runs_goes_on_at_the_new_place() {
    let Fixture { stream, directory: _directory } = Fixture::new(2);
    for n in 0..20 {
        put(&stream, &format!("key-{n}"));
    }
    let log = Log::default();
    let pool = start(&stream, &log);
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(log.lock().unwrap().len(), 20);
    billing(&stream).seek(HORIZON, "all again").unwrap();
    while log.lock().unwrap().len() < 40 {
        std::thread::yield_now();
    }
    assert!(pool.wait_until_idle(LONG));
    pool.shutdown(LONG);
    let mut all = log.lock().unwrap().clone();
    all.sort_unstable();
    all.chunks(2).for_each(|twice| assert_eq!(twice[0], twice[1]));
    assert_eq!(all.len(), 40);
}

#[test]
fn after_a_seek_parents_come_before_their_children_again() {
    let Fixture { stream, directory: _directory } = Fixture::new(1);
    let parent: Vec<_> = (0..6).map(|n| format!("parent-{n}")).collect();
    for key in &parent {
        put(&stream, key);
    }
    stream.split_shard(S0, HashKey::new(1 << 127)).unwrap();
    for n in 0..6 {
        put(&stream, &format!("child-{n}"));
    }
    let log = Log::default();
    let pool = start(&stream, &log);
    assert!(pool.wait_until_idle(LONG));
    log.lock().unwrap().clear();
    billing(&stream).seek(HORIZON, "all again").unwrap();
    while log.lock().unwrap().len() < 12 {
        std::thread::yield_now();
    }
    assert_eq!(log.lock().unwrap()[..6], parent);
    // The children pause for a parent that is set back alone, and stay where they are.
    log.lock().unwrap().clear();
    billing(&stream).seek_shard(S0, HORIZON, "the parent again").unwrap();
    let key =
        (0..).map(|n| format!("new-{n}")).find(|key| stream.put(key, key).unwrap().shard == S1);
    let key = key.unwrap();
    while !log.lock().unwrap().contains(&key) {
        std::thread::yield_now();
    }
    assert_eq!(log.lock().unwrap()[..6], parent);
    assert!(!log.lock().unwrap().iter().any(|data| data.starts_with("child")));
}

#[test]
fn a_seek_that_cannot_be_changes_nothing() {
    let Fixture { stream, directory } = Fixture::new(1);
    let error = billing(&stream).seek(HORIZON, "typo").unwrap_err();
    assert!(error.to_string().contains("no application \"billing\""), "{error}");
    assert!(!directory.path().join("applications").try_exists().unwrap());
    put(&stream, "a");
    process(&stream);
    let number = StartingPosition::AtSequenceNumber(0.into());
    assert!(matches!(billing(&stream).seek(number, ""), Err(Error::InvalidArgument(_))));
    let unknown = billing(&stream).seek_shard(S1, HORIZON, "");
    assert!(matches!(unknown, Err(Error::ShardNotFound { shard: S1 })));
    assert_eq!(process(&stream), Vec::<String>::new());
}

#[test]
fn rows_of_shards_that_retention_has_emptied_go_and_the_application_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let hour = Duration::from_secs(3600);
    let stream = Stream::builder(directory.path())
        .clock(clock.clone())
        .retention(Retention::default().age(hour));
    let stream = stream.open().unwrap();
    put(&stream, "a");
    let [low, high] = stream.split_mid(S0).unwrap();
    for child in [low, high] {
        let place = stream.shards()[child.index() as usize].hash_key_range.start;
        stream.put_record(PutRecord::new("key", "b").explicit_hash_key(place)).unwrap();
    }
    assert_eq!(process(&stream), ["a", "b", "b"]);
    clock.set(2 * 3_600_000);
    stream.set_retention(Retention::default().age(hour)).unwrap();
    assert_eq!(process(&stream), [""; 0]);
    let shards = || billing(&stream).shards().unwrap().into_iter().map(|shard| shard.shard);
    assert!(shards().eq([low, high]));
    assert_eq!(stream.shards().len(), 3, "the lineage stays");
    put(&stream, "c");
    assert_eq!(process(&stream), ["c"]);
    billing(&stream).seek(HORIZON, "again").unwrap();
    assert_eq!(process(&stream), ["c"], "what has expired is not waited for");
    let error = billing(&stream).seek_shard(S0, HORIZON, "too late").unwrap_err();
    assert!(error.to_string().contains("has expired"), "{error}");
    assert!(shards().eq([low, high]));
}
