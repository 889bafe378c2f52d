//! The newest records of a shard, found from its end.

mod common;

use common::files::{killed, segments};
use common::{Fixture, S0, put};
use millstream::{Limit, Stream};

fn newest(stream: &Stream, count: usize) -> Vec<String> {
    let at = stream.tail(S0, count).unwrap();
    let page = stream.get_records(&at, Limit::records(usize::MAX)).unwrap();
    page.records.iter().map(|record| String::from_utf8(record.data().to_vec()).unwrap()).collect()
}

#[test]
fn the_newest_records_are_found_across_segments_and_openings() {
    let mut fixture = Fixture::with(|b| b.max_segment_bytes(64 << 10).max_record_bytes(1 << 20));
    let mut all = Vec::new();
    for round in 0..3 {
        for n in 0..1500 {
            let data = format!("{round}/{n}");
            put(&fixture.stream, &data);
            all.push(data);
        }
        // One has a segment of its own.
        all.push("x".repeat(100_000));
        fixture.stream.put("large", all.last().unwrap()).unwrap();
        let reader = Stream::open_read_only(fixture.directory.path()).unwrap();
        let copy = killed(fixture.directory.path());
        let recovered = Stream::builder(copy.path()).open_existing().unwrap();
        for stream in [&fixture.stream, &reader, &recovered] {
            for count in [1, 2, 3, 1000, 2000, all.len(), all.len() + 1, usize::MAX] {
                let expected = &all[all.len().saturating_sub(count)..];
                assert!(newest(stream, count) == expected, "{count} of round {round}");
            }
            assert!(newest(stream, 0).is_empty());
        }
        fixture = fixture.reopened();
    }
}

#[test]
fn of_an_empty_shard_the_newest_records_are_those_to_come() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let at = stream.tail(S0, 5).unwrap();
    put(stream, "x");
    assert_eq!(stream.get_records(&at, Limit::default()).unwrap().records.len(), 1);
}

#[test]
fn what_was_given_up_is_no_record() {
    let Fixture { stream, .. } = &Fixture::new(1);
    put(stream, "a");
    let given_up = || stream.put_with("void", 300, |_| std::panic::resume_unwind(Box::new(())));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(given_up)).is_err());
    put(stream, "b");
    assert_eq!(newest(stream, 2), ["a", "b"]);
    assert_eq!(newest(stream, 1), ["b"]);
}

#[test]
fn records_that_look_like_others_are_not_taken_for_them() {
    let Fixture { directory, stream } = &Fixture::new(1);
    put(stream, "a");
    // What stands in the file where it now puts the next ones.
    let bytes = std::fs::read(&segments(directory.path(), S0)[0]).unwrap();
    for at in (4096..4096 + 256).step_by(32) {
        stream.put("copy", &bytes[at..at + 256]).unwrap();
    }
    let at = stream.tail(S0, 8).unwrap();
    assert_eq!(stream.get_records(&at, Limit::default()).unwrap().records.len(), 8);
}
