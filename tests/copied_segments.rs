//! Segments that are read through copies: what happens to their files is an error at the most.

mod common;

use std::fs::File;
use std::path::{Path, PathBuf};

use common::S0;
use millstream::{Error, Limit, StartingPosition, Stream};

/// A stream with several finished segments, each with the same records.
fn stream(path: &Path) -> Vec<PathBuf> {
    let stream = Stream::builder(path).max_segment_bytes(64 << 10).open().unwrap();
    for _ in 0..100 {
        stream.put("key", vec![7; 4000]).unwrap();
    }
    stream.close().unwrap();
    let shard = path.join("shards").join(S0.to_string());
    let files = std::fs::read_dir(shard).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

fn truncate(path: &Path) {
    File::options().write(true).open(path).unwrap().set_len(0).unwrap();
}

#[test]
fn a_segment_that_is_truncated_while_it_is_read_is_read_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let files = stream(directory.path());
    let reader = Stream::builder(directory.path()).copied().open_read_only().unwrap();
    let start = reader.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    let page = reader.get_records(&start, Limit::records(1)).unwrap();
    truncate(&files[0]);
    let next = page.next_shard_iterator.unwrap();
    // A map would end this process now.
    let rest = reader.get_records(&next, Limit::records(10)).unwrap().records;
    assert_eq!(rest.len(), 10);
    assert!(rest.iter().all(|record| record.data() == [7; 4000]));
}

#[test]
fn a_segment_that_was_truncated_is_an_error_that_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let files = stream(directory.path());
    let reader = Stream::builder(directory.path()).copied().open_read_only().unwrap();
    truncate(&files[1]);
    let mut iterator = reader.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    let error = loop {
        match reader.get_records(&iterator, Limit::default()) {
            Ok(page) => iterator = page.next_shard_iterator.unwrap(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Corrupt { path, .. } if path == files[1]));
}
