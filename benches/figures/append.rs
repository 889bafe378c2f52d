//! Putting without waiting for the disk.

use std::time::Instant;

use crate::limits::{Limits, buffered};
use crate::{Ours, catch_up, contestant, directory, per_record, row};

pub fn sustained(size: usize) {
    let data = vec![7; size];
    let bytes = 256 << 20;
    let (mut cold, mut ready) =
        (Limits::new(&directory()).unwrap(), Limits::new(&directory()).unwrap());
    let ours = Ours::grown();
    let file = tempfile::NamedTempFile::new_in(directory()).unwrap();
    row(
        &format!("put {size} B, sustained"),
        8,
        vec![
            contestant("limit: cold map, crc", || cold.fill(&data, bytes, false).unwrap()),
            contestant("limit: pre-faulted map, crc", || ready.fill(&data, bytes, true).unwrap()),
            contestant("BufWriter of 64 KiB", || buffered(file.path(), &data, bytes).unwrap()),
            contestant("put", || ours.put(&data, bytes)),
        ],
    );
}

pub fn prepared(size: usize) {
    let data = vec![7; size];
    let bytes = 4 << 20;
    let mut ready = Limits::new(&directory()).unwrap();
    let ours = Ours::grown();
    row(
        &format!("put {size} B, within what is prepared"),
        60,
        vec![
            contestant("limit: pre-faulted map, crc", || {
                ready.fill(&data, 64 << 20, true).unwrap()
            }),
            contestant("put", || {
                catch_up();
                ours.put(&data, bytes)
            }),
        ],
    );
}

pub fn producers() {
    let data = [7; 100];
    let total = 64 << 20;
    let rounds = |threads: usize| {
        let ours = Ours::grown();
        let data = &data;
        move || {
            let start = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| ours.put(data, total / threads));
                }
            });
            start.elapsed().as_nanos() as f64 / (total / 160) as f64
        }
    };
    row(
        "producers on one shard, 100 B",
        9,
        vec![
            contestant("1 producer", rounds(1)),
            contestant("2 producers", rounds(2)),
            contestant("4 producers", rounds(4)),
        ],
    );
}

pub fn batches() {
    let data = [7u8; 100];
    let (single, batched) = (Ours::grown(), Ours::grown());
    let batch: Vec<_> = (0..100).map(|_| ("key-0001", &data[..])).collect();
    let bytes = 4 << 20;
    row(
        "put_batch of 100 x 100 B, within what is prepared",
        60,
        vec![
            contestant("put", || {
                catch_up();
                single.put(&data, bytes)
            }),
            contestant("put_batch", || {
                catch_up();
                per_record(bytes / 16_000, || {
                    let results = batched.stream.put_batch(batch.iter().copied());
                    assert!(results.iter().all(Result::is_ok));
                }) / 100.0
            }),
        ],
    );
}
