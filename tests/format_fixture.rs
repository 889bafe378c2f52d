//! Streams of format version 1, as they are committed: every later version has to open them.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::files::{copy_all, files, make_small_stream, process_all, scratch};
use millstream::{
    Application, ApplicationShard, FindingKind, Limit, StartingPosition, Stream, verify,
};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1")
}

/// A copy of the committed stream, since opening it for putting writes to it.
fn copy() -> tempfile::TempDir {
    let copy = scratch();
    copy_all(&fixture().join("stream"), copy.path());
    copy
}

/// Every record of a stream in a line.
fn listing(stream: &Stream) -> String {
    let mut text = String::new();
    for info in stream.shards() {
        let at = stream.shard_iterator(info.id, StartingPosition::TrimHorizon).unwrap();
        let page = stream.get_records(&at, Limit::records(1000)).unwrap();
        for record in &page.records {
            text += &format!(
                "{} {} {} {} {} {:08x}\n",
                info.id,
                record.sequence_number(),
                record.arrival_ms(),
                record.partition_key(),
                record.data().len(),
                crc32fast::hash(record.data()),
            );
        }
    }
    text
}

fn expected() -> String {
    fs::read_to_string(fixture().join("records.txt")).unwrap()
}

#[test]
fn version_1_is_read_as_it_was_written() {
    let copy = copy();
    assert_eq!(listing(&Stream::open_read_only(copy.path()).unwrap()), expected());
    assert_eq!(verify(copy.path()).unwrap().findings, []);
}

#[test]
fn version_1_is_gone_on_with() {
    let copy = copy();
    let stream = Stream::builder(copy.path()).open_existing().unwrap();
    assert_eq!(listing(&stream), expected());
    stream.put("new", "record").unwrap();
    stream.close().unwrap();
    let stream = Stream::open_read_only(copy.path()).unwrap();
    assert_eq!(listing(&stream).lines().count(), expected().lines().count() + 1);
    assert_eq!(verify(copy.path()).unwrap().findings, []);
}

#[test]
fn checkpoints_of_version_1_are_kept() {
    let copy = copy();
    let stream = Stream::builder(copy.path()).open_existing().unwrap();
    stream.put("new", "record").unwrap();
    assert_eq!(process_all(&stream, "billing"), 1, "what was processed does not come again");
}

#[test]
fn rows_of_version_1_become_those_of_version_2_when_a_pool_takes_the_shard() {
    let copy = copy();
    let rows = || files(&copy.path().join("applications/billing"));
    // The version of each slot.
    let versions = || -> Vec<[u8; 2]> {
        let row = |path: &PathBuf| path.extension().is_some_and(|it| it == "row");
        let of = |path: PathBuf| fs::read(path).map(|bytes| [bytes[8], bytes[512 + 8]]).unwrap();
        rows().into_iter().filter(row).map(of).collect()
    };
    assert!(versions().concat().iter().all(|version| *version == 1));
    let stream = Stream::builder(copy.path()).open_existing().unwrap();
    let relatives = || {
        let shards = Application::of("billing", &stream).unwrap().shards().unwrap();
        let of = |it: ApplicationShard| (it.shard, it.parents, it.children, it.hash_key_range);
        shards.into_iter().map(of).collect::<Vec<_>>()
    };
    let before = relatives();
    assert!(before.iter().any(|(_, parents, ..)| !parents.is_empty()));
    process_all(&stream, "billing");
    assert_eq!(relatives(), before);
    assert!(versions().concat().contains(&2), "{:?}", versions());
    assert_eq!(verify(copy.path()).unwrap().findings, []);
}

#[test]
fn a_segment_of_a_later_version_is_refused_and_named() {
    let copy = copy();
    let path = files(&copy.path().join("shards")).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    fs::write(&path, bytes).unwrap();
    let error = Stream::open_read_only(copy.path()).unwrap_err().to_string();
    assert!(error.contains("version") && error.contains(path.to_str().unwrap()), "{error}");
    let found = verify(copy.path()).unwrap();
    assert_eq!(found.findings[0].kind, FindingKind::SegmentHeader);
}

#[test]
#[ignore = "makes the fixture; a committed one is never made again"]
fn make_the_fixture() {
    let stream = fixture().join("stream");
    assert!(!stream.try_exists().unwrap(), "the one that is there has to stay as it is");
    fs::create_dir_all(&stream).unwrap();
    make_small_stream(&stream);
    let listing = listing(&Stream::open_read_only(&stream).unwrap());
    fs::write(fixture().join("records.txt"), listing).unwrap();
}
