//! How many maps a process holds: few, however many segments a stream has and whoever reads them.

mod common;

use std::fs;
use std::path::Path;

use common::{Fixture, S0};
use millstream::{Limit, Retention, StartingPosition};

/// A writer's segments that are in use, or wait to be durable, and the next one.
const WRITTEN: usize = 17;

/// How many segments of a stream this process has mapped.
fn maps(directory: &Path) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let directory = directory.to_str().unwrap();
    maps.lines().filter(|line| line.contains(directory) && line.contains(".seg")).count()
}

/// Fills about so many segments.
fn fill(fixture: &Fixture, segments: usize) {
    for _ in 0..segments {
        fixture.stream.put("key", vec![7; 40_000]).unwrap();
    }
}

#[test]
fn a_reader_who_goes_through_many_segments_has_one_of_them_mapped() {
    let fixture = Fixture::with(|builder| builder.max_segment_bytes(64 << 10));
    fill(&fixture, 80);
    let fixture = fixture.reopened();
    let start = fixture.stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    let (mut next, mut read) = (start, 0);
    while read < 80 {
        let page = fixture.stream.get_records(&next, Limit::records(1)).unwrap();
        read += page.records.len();
        next = page.next_shard_iterator.unwrap();
        // The one that it leaves, too, for as long as there are records of it.
        assert!(maps(fixture.directory.path()) <= 2);
    }
}

#[test]
fn a_slow_reader_keeps_what_retention_removes_mapped_only_as_far_as_he_holds_it() {
    let retention = Retention::default().bytes(256 << 10);
    let fixture = Fixture::with(|builder| builder.max_segment_bytes(64 << 10).retention(retention));
    fill(&fixture, 10);
    let stream = &fixture.stream;
    let start = stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    let slow = stream.get_records(&start, Limit::records(1)).unwrap();
    fill(&fixture, 80);
    assert!(maps(fixture.directory.path()) <= WRITTEN + 1);
    assert!(slow.records.iter().all(|record| record.data() == [7; 40_000]));
    // What was removed is told when he reads on.
    let next = slow.next_shard_iterator.unwrap();
    assert!(stream.get_records(&next, Limit::records(1)).unwrap().gap.is_some());
}
