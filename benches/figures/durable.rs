//! Putting with `Durability::Sync`: acknowledged when it is on the disk.

use std::time::Instant;

use millstream::{Durability, Stream};

use crate::limits::Synced;
use crate::{contestant, directory, per_record, row};

const COUNT: usize = 1000;
const BYTES: usize = 1024;

fn stream(directory: &tempfile::TempDir) -> Stream {
    Stream::builder(directory.path()).durability(Durability::Sync).open().unwrap()
}

/// Puts from so many threads, in ns per record all together.
fn put(stream: &Stream, threads: usize) -> f64 {
    let data = [7; BYTES];
    let count = COUNT * threads.min(8);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..count / threads {
                    stream.put("key-0001", data).unwrap();
                }
            });
        }
    });
    start.elapsed().as_nanos() as f64 / count as f64
}

/// One producer against a bare loop, and many that share syncs.
pub fn durable() {
    let ours = tempfile::tempdir_in(directory()).unwrap();
    let ours = stream(&ours);
    let mut bare = Synced::new(&directory()).unwrap();
    let data = [7; BYTES];
    row(
        "put 1 KiB, Sync",
        7,
        vec![
            contestant("limit: pwrite and fdatasync", || {
                per_record(COUNT, || bare.put(&data).unwrap())
            }),
            contestant("put, 1 producer", || put(&ours, 1)),
            contestant("put, 32 producers", || put(&ours, 32)),
        ],
    );
}
