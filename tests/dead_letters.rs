//! Records that an application could not process: put aside with their origin, read, put again,
//! removed.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Fixture, S0, START_MS, TestClock};
use millstream::{
    Batch, Checkpointer, DeadLetters, Error, HashKey, MAX_RECORD_BYTES, OnPoison, ProcessorError,
    Stream, WorkerPool, verify,
};

/// Longer than any test takes that passes.
const LONG: Duration = Duration::from_secs(30);

/// Runs a pool until nothing is left; records whose key begins with `bad` cannot be processed.
/// Returns the keys that were.
fn process(stream: &Stream, application: &str) -> Vec<String> {
    let keys = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&keys);
    let pool = WorkerPool::builder(application, stream)
        .attempts(2)
        .retry_delay(Duration::ZERO, Duration::from_millis(1))
        .on_poison(OnPoison::DeadLetter)
        .start(move |_| {
            let log = Arc::clone(&log);
            move |batch: &Batch, _: &mut Checkpointer<'_>| -> Result<(), ProcessorError> {
                let is_bad = |key: &str| key.starts_with("bad");
                if let Some(bad) = batch.iter().find(|record| is_bad(record.partition_key())) {
                    return Err(format!("{} cannot be\nprocessed", bad.partition_key()).into());
                }
                let keys = batch.iter().map(|record| record.partition_key().to_owned());
                log.lock().unwrap().extend(keys);
                Ok(())
            }
        })
        .unwrap();
    assert!(pool.wait_until_idle(LONG), "{:?}", pool.status());
    pool.shutdown(LONG);
    keys.lock().unwrap().clone()
}

#[test]
fn a_letter_says_where_the_record_came_from_and_why_it_is_there() {
    let clock = TestClock::new();
    clock.set(500);
    let Fixture { stream, directory } = Fixture::with(|builder| builder.clock(clock));
    stream.put("good", "1").unwrap();
    let receipt = stream.put("bad-1", "2").unwrap();
    stream.put("good", "3").unwrap();
    assert_eq!(process(&stream, "billing"), ["good", "good"]);
    let letters = DeadLetters::of("billing", &stream).unwrap().list().unwrap();
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((letter.shard, letter.sequence_number), (S0, receipt.sequence_number));
    assert_eq!((letter.partition_key(), letter.data()), ("bad-1", &b"2"[..]));
    assert_eq!((letter.arrival_ms, letter.attempts), (START_MS + 500, 2));
    assert_eq!(letter.cause, "bad-1 cannot be\nprocessed");
    assert!(letter.put_aside_ms > letter.arrival_ms);
    let letters = directory.path().join("applications/billing/dead-letters");
    assert_eq!(verify(letters).unwrap().findings, []);
    assert_eq!(verify(directory.path()).unwrap().findings, []);
}

#[test]
fn an_application_without_dead_letters_has_none_and_makes_no_files() {
    let Fixture { stream, directory } = Fixture::new(1);
    let letters = DeadLetters::of("billing", &stream).unwrap();
    assert_eq!(letters.list().unwrap().len(), 0);
    letters.remove(7.into()).unwrap();
    assert!(!directory.path().join("applications").try_exists().unwrap());
    assert!(matches!(DeadLetters::of("../x", &stream), Err(Error::InvalidArgument(_))));
}

#[test]
fn applications_have_dead_letters_of_their_own() {
    let Fixture { stream, directory: _directory } = Fixture::new(1);
    stream.put("bad", "data").unwrap();
    process(&stream, "billing");
    let count = |name| DeadLetters::of(name, &stream).unwrap().list().unwrap().len();
    assert_eq!((count("billing"), count("audit")), (1, 0));
}

#[test]
fn a_letter_that_was_removed_does_not_come_back() {
    let fixture = Fixture::new(1);
    for key in ["bad-1", "bad-2", "bad-3"] {
        fixture.stream.put(key, key).unwrap();
    }
    process(&fixture.stream, "billing");
    let keys = |stream: &Stream| -> Vec<String> {
        let letters = DeadLetters::of("billing", stream).unwrap().list().unwrap();
        letters.iter().map(|letter| letter.partition_key().to_owned()).collect()
    };
    assert_eq!(keys(&fixture.stream), ["bad-1", "bad-2", "bad-3"]);
    let letters = DeadLetters::of("billing", &fixture.stream).unwrap();
    let second = letters.list().unwrap()[1].id;
    letters.remove(second).unwrap();
    letters.remove(second).unwrap();
    let fixture = fixture.reopened();
    assert_eq!(keys(&fixture.stream), ["bad-1", "bad-3"]);
    assert_eq!(process(&fixture.stream, "billing"), Vec::<String>::new());
    assert_eq!(keys(&fixture.stream), ["bad-1", "bad-3"]);
}

#[test]
fn a_redriven_record_comes_again_behind_all_others() {
    let Fixture { stream, directory: _directory } = Fixture::new(2);
    let first = stream.put("bad", "data").unwrap();
    process(&stream, "billing");
    let letters = DeadLetters::of("billing", &stream).unwrap();
    let receipt = letters.redrive(&letters.list().unwrap()[0], &stream).unwrap();
    assert_eq!(receipt.shard, first.shard);
    assert!(receipt.sequence_number > first.sequence_number);
    assert_eq!(letters.list().unwrap().len(), 0);
    // It is as bad as before.
    process(&stream, "billing");
    assert_eq!(letters.list().unwrap()[0].sequence_number, receipt.sequence_number);
}

#[test]
fn a_letter_that_cannot_be_redriven_stays() {
    let Fixture { stream, directory } = Fixture::new(1);
    stream.put("bad", "data").unwrap();
    process(&stream, "billing");
    let reader = Stream::open_read_only(directory.path()).unwrap();
    let letters = DeadLetters::of("billing", &reader).unwrap();
    let letter = letters.list().unwrap().remove(0);
    assert!(matches!(letters.redrive(&letter, &reader), Err(Error::ReadOnly)));
    assert_eq!(letters.list().unwrap().len(), 1);
}

#[test]
fn the_largest_record_can_be_put_aside() {
    let Fixture { stream, directory: _directory } =
        Fixture::with(|builder| builder.max_record_bytes(MAX_RECORD_BYTES));
    let data = vec![7; MAX_RECORD_BYTES - "bad".len()];
    stream.put("bad", &data).unwrap();
    process(&stream, "billing");
    let letters = DeadLetters::of("billing", &stream).unwrap().list().unwrap();
    assert_eq!(letters[0].data(), data);
}

#[test]
fn every_bad_record_of_a_stream_that_is_split_is_put_aside_once() {
    let Fixture { stream, directory: _directory } = Fixture::new(1);
    let mut expected = Vec::new();
    for n in 0..40 {
        if n == 20 {
            stream.split_shard(S0, HashKey::new(1 << 127)).unwrap();
        }
        let key = format!("{}-{n}", if n % 8 == 3 { "bad" } else { "good" });
        let receipt = stream.put(&key, "data").unwrap();
        if key.starts_with("bad") {
            expected.push((receipt.shard, receipt.sequence_number));
        }
    }
    assert_eq!(process(&stream, "billing").len(), 35);
    let letters = DeadLetters::of("billing", &stream).unwrap().list().unwrap();
    let mut found: Vec<_> = letters.iter().map(|l| (l.shard, l.sequence_number)).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}
