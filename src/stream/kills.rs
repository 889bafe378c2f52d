//! Killed in the middle of a change of the shape, at every step: the old shape is there or the new
//! one, with every record, and it goes on.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::hash_key::HashKey;
use crate::lineage::ShardInfo;
use crate::os::steps::{killed_in, scratch};
use crate::position::ShardId;
use crate::stream::{ScannedRecord, Stream, StreamBuilder};

const S0: ShardId = ShardId::new(0);
const S1: ShardId = ShardId::new(1);

fn builder(path: &Path) -> StreamBuilder {
    Stream::builder(path).max_segment_bytes(64 << 10)
}

fn records(stream: &Stream) -> Vec<String> {
    let data = |scanned: Result<ScannedRecord>| {
        String::from_utf8(scanned.unwrap().record().data().to_vec()).unwrap()
    };
    let mut all: Vec<_> = stream.scan(..).unwrap().map(data).collect();
    all.sort_unstable();
    all
}

/// Kills a change of a stream of so many shards, with records, at every step.
fn is_whole_at_every_step(shards: u32, change: impl FnOnce(&Stream) -> Result<()>) {
    let directory = scratch();
    let stream = builder(directory.path()).shards(shards).create().unwrap();
    let expected: Vec<_> = (0..200).map(|n| format!("{n:03}")).collect();
    for data in &expected {
        stream.put(data, data).unwrap();
    }
    let before = (stream.shards(), stream.tags());
    let (images, done) = killed_in(directory.path(), || change(&stream));
    done.unwrap();
    let after = (stream.shards(), stream.tags());
    assert_ne!(before, after);
    assert!(images.len() > 5, "{} steps", images.len());
    let mut is_new = false;
    for (step, image) in images.iter().enumerate() {
        if step % 2 == 1 {
            // The new manifest may be half-written; it counts once it has its name.
            let fresh = image.path().join("MANIFEST.new");
            if let Ok(file) = fs::File::options().write(true).open(fresh) {
                file.set_len(file.metadata().unwrap().len() / 2).unwrap();
            }
        }
        let reader = Stream::open_read_only(image.path()).unwrap();
        let seen = (reader.shards(), reader.tags());
        let opened = builder(image.path()).open_existing().unwrap();
        assert_eq!((opened.shards(), opened.tags()), seen, "step {step}");
        assert!(seen == after || (seen == before && !is_new), "step {step}: {seen:?}");
        is_new = seen == after;
        assert_eq!(records(&opened), expected, "step {step}");
        assert_eq!(records(&reader), expected, "step {step}");
        goes_on(opened, expected.len());
    }
    assert!(is_new);
}

/// Checks that a stream takes records, gives them higher numbers, and can be reshaped.
fn goes_on(stream: Stream, count: usize) {
    let newest = |shard: ShardInfo| {
        let description = stream.describe_shard(shard.id).unwrap();
        (shard.id, description.last_sequence_number)
    };
    let newest: std::collections::BTreeMap<_, _> =
        stream.shards().into_iter().map(newest).collect();
    for n in 0..20 {
        let receipt = stream.put(&n.to_string(), "new").unwrap();
        assert!(Some(receipt.sequence_number) > newest[&receipt.shard]);
    }
    stream.reshard_to(3).unwrap();
    stream.put("k", "new").unwrap();
    assert_eq!(records(&stream).len(), count + 21);
    stream.close().unwrap();
}

#[test]
fn a_split_that_is_killed_at_any_step_is_there_or_not() {
    is_whole_at_every_step(2, |stream| stream.split_shard(S0, HashKey::new(1 << 100)).map(drop));
}

#[test]
fn a_merge_that_is_killed_at_any_step_is_there_or_not() {
    is_whole_at_every_step(2, |stream| stream.merge_shards(S0, S1).map(drop));
}

#[test]
fn a_reshard_that_is_killed_at_any_step_is_there_or_not() {
    is_whole_at_every_step(2, |stream| stream.reshard_to(5).map(drop));
}

#[test]
fn a_reshard_through_shards_without_records_that_is_killed_at_any_step_is_there_or_not() {
    is_whole_at_every_step(7, |stream| stream.reshard_to(1).map(drop));
}

#[test]
fn a_setting_that_is_killed_at_any_step_is_there_or_not() {
    is_whole_at_every_step(2, |stream| stream.set_tag("team", "billing"));
}

#[test]
fn a_creation_that_is_killed_at_any_step_is_there_or_not_and_can_be_made_again() {
    let place = scratch();
    let directory = place.path().join("above/stream");
    let (images, stream) = killed_in(&directory, || builder(&directory).shards(3).create());
    let shards = stream.unwrap().shards();
    assert!(images.len() > 5, "{} steps", images.len());
    let mut was_there = false;
    for (step, image) in images.iter().enumerate() {
        let is_there = image.path().join("MANIFEST").try_exists().unwrap();
        assert!(is_there || !was_there, "step {step}");
        was_there = is_there;
        let opened = builder(image.path()).shards(3).open().unwrap();
        let ranges = |shards: &[ShardInfo]| -> Vec<_> {
            shards.iter().map(|shard| shard.hash_key_range).collect()
        };
        assert_eq!(ranges(&opened.shards()), ranges(&shards), "step {step}");
        // It is the one that was created, or another one.
        assert!(!is_there || opened.shards() == shards, "step {step}");
        goes_on(opened, 0);
    }
    assert!(was_there);
}

#[test]
fn a_trim_that_is_killed_at_any_step_is_there_or_not_and_gives_no_number_again() {
    for gone in [150, 200] {
        let directory = scratch();
        let stream = builder(directory.path()).create().unwrap();
        let data: Vec<_> = (0..200).map(|n| format!("{n:03}{}", "x".repeat(1000))).collect();
        let put = |data: &String| stream.put("k", data).unwrap().sequence_number;
        let numbers: Vec<_> = data.iter().map(put).collect();
        let (images, done) = killed_in(directory.path(), || stream.trim(S0, numbers[gone - 1]));
        done.unwrap();
        assert!(images.len() > 5, "{} steps", images.len());
        let mut is_new = false;
        for (step, image) in images.iter().enumerate() {
            let reader = Stream::open_read_only(image.path()).unwrap();
            let seen = records(&reader);
            let is_trimmed = seen == data[gone..];
            assert!(is_trimmed || (seen == data && !is_new), "step {step}: {} left", seen.len());
            is_new = is_trimmed;
            let opened = builder(image.path()).open_existing().unwrap();
            assert_eq!(records(&opened), seen, "step {step}");
            opened.trim(S0, numbers[gone - 1]).unwrap();
            let described = opened.describe_shard(S0).unwrap();
            assert_eq!(
                (described.records, described.trimmed_records),
                (200 - gone as u64, gone as u64)
            );
            let new = opened.put("k", "new").unwrap().sequence_number;
            assert!(new > numbers[199], "step {step}");
        }
        assert!(is_new);
    }
}

#[test]
fn a_deletion_that_is_killed_at_any_step_is_complete_or_has_not_begun() {
    let place = scratch();
    let path = place.path().join("stream");
    let stream = builder(&path).create().unwrap();
    stream.put("k", "data").unwrap();
    stream.close().unwrap();
    let (images, done) = killed_in(place.path(), || Stream::delete(&path));
    done.unwrap();
    assert!(images.len() > 3, "{} steps", images.len());
    let mut is_gone = false;
    for (step, image) in images.iter().enumerate() {
        let path = image.path().join("stream");
        match Stream::open_read_only(&path) {
            Ok(reader) => assert!(records(&reader) == ["data"] && !is_gone, "step {step}"),
            Err(error) => {
                assert!(matches!(error, Error::StreamNotFound { .. }), "step {step}: {error}");
                is_gone = true;
            }
        }
        let deleted = Stream::delete(&path);
        let was_gone = matches!(deleted, Err(Error::StreamNotFound { .. }));
        assert!(deleted.is_ok() || (is_gone && was_gone), "step {step}: {deleted:?}");
        assert_eq!(fs::read_dir(image.path()).unwrap().count(), 0, "step {step}");
    }
    assert!(is_gone);
}
