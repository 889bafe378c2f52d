//! A stream stays where it was opened, whatever becomes of paths meanwhile. One test: a process has
//! one working directory.

mod common;

use std::env;
use std::fs;

use common::{S0, put, read_all};
use millstream::{StartingPosition, Stream};

#[test]
fn a_stream_stays_where_it_was_opened_when_the_process_changes_its_directory() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    env::set_current_dir(here.path()).unwrap();
    let stream = Stream::builder("stream").max_segment_bytes(64 << 10).create().unwrap();
    env::set_current_dir(there.path()).unwrap();
    for _ in 0..1000 {
        put(&stream, "somewhere else");
    }
    stream.close().unwrap();
    assert_eq!(fs::read_dir(there.path()).unwrap().count(), 0);
    let stream = Stream::builder(here.path().join("stream")).open_existing().unwrap();
    assert_eq!(read_all(&stream, S0, StartingPosition::TrimHorizon).len(), 1000);
}
