//! Reading what was put before.

use std::hint::black_box;
use std::time::Instant;

use millstream::{Limit, ShardId, StartingPosition, Stream};

use crate::limits::Image;
use crate::{Ours, contestant, row};

pub fn replay(size: usize) {
    let data = vec![7; size];
    let bytes = 256 << 20;
    let filled = Ours::new();
    filled.put(&data, bytes);
    let Ours { stream, _directory: files } = filled;
    drop(stream);
    let image = Image::of(files.path()).unwrap();
    row(
        &format!("replay {size} B, reopened, all in the page cache, verified"),
        9,
        vec![
            contestant("limit: the files mapped anew, crc", || image.sum(size, false).unwrap()),
            contestant("limit: with all pages mapped before", || image.sum(size, true).unwrap()),
            contestant("get_records", || {
                let stream = Stream::builder(files.path()).open_existing().unwrap();
                let start = Instant::now();
                let from = StartingPosition::TrimHorizon;
                let mut iterator = stream.shard_iterator(ShardId::new(0), from).unwrap();
                let limit = Limit { max_records: 10_000, max_bytes: 1 << 20 };
                let mut records = 0;
                loop {
                    let page = stream.get_records(&iterator, limit).unwrap();
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
