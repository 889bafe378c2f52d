//! Reading what was put before.

use std::hint::black_box;
use std::time::Instant;

use millstream::{Limit, ShardId, StartingPosition};

use crate::limits::Image;
use crate::{Ours, contestant, directory, row};

pub fn replay(size: usize) {
    let data = vec![7; size];
    let ours = Ours::new();
    let bytes = 256 << 20;
    ours.put(&data, bytes);
    let image = Image::new(&directory(), bytes).unwrap();
    row(
        &format!("replay {size} B, warm, verified"),
        9,
        vec![
            contestant("limit: crc over a warm map", || image.sum(size)),
            contestant("get_records", || {
                let start = Instant::now();
                let from = StartingPosition::TrimHorizon;
                let mut iterator = ours.stream.shard_iterator(ShardId::new(0), from).unwrap();
                let limit = Limit { max_records: 10_000, max_bytes: 1 << 20 };
                let mut records = 0;
                loop {
                    let page = ours.stream.get_records(&iterator, limit).unwrap();
                    for record in &page.records {
                        black_box(record.data());
                    }
                    records += page.records.len();
                    if page.records.is_empty() {
                        return start.elapsed().as_nanos() as f64 / records as f64;
                    }
                    iterator = page.next_shard_iterator.unwrap();
                }
            }),
        ],
    );
}
