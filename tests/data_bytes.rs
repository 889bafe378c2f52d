//! Data that outlives its batch without being copied.

mod common;

use common::{Fixture, S0, put};
use millstream::{Batch, Limit, StartingPosition, Stream};

fn batch(stream: &Stream) -> Batch {
    let iterator = stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    stream.get_records(&iterator, Limit::default()).unwrap().records
}

#[test]
fn the_bytes_are_where_the_record_is() {
    let Fixture { stream, .. } = &Fixture::new(1);
    for key in ["a", "b", "c"] {
        put(stream, key);
    }
    let batch = batch(stream);
    for record in &batch {
        let bytes = batch.data_bytes(&record);
        assert_eq!(bytes.as_ptr(), record.data().as_ptr());
        assert_eq!(bytes, record.data());
    }
}

#[test]
fn they_outlive_batch_stream_and_files() {
    let Fixture { stream, directory } = Fixture::new(1);
    put(&stream, "kept");
    let bytes = {
        let batch = batch(&stream);
        batch.data_bytes(&batch.get(0).unwrap())
    };
    drop(stream);
    directory.close().unwrap();
    let elsewhere = std::thread::spawn(move || bytes.slice(1..)).join().unwrap();
    assert_eq!(elsewhere, "ept");
}

#[test]
fn they_are_told_apart_in_a_batch_over_many_segments() {
    let Fixture { stream, .. } = &Fixture::with(|builder| builder.max_segment_bytes(64 << 10));
    let data = |n: u8| vec![n; 10_000];
    for n in 0..50 {
        stream.put("key", data(n)).unwrap();
    }
    let batch = batch(stream);
    assert_eq!(batch.len(), 50);
    for (n, record) in (0..).zip(&batch) {
        assert_eq!(batch.data_bytes(&record), data(n));
    }
}

#[test]
fn empty_data_are_empty_bytes() {
    let Fixture { stream, .. } = &Fixture::new(1);
    stream.put("key", "").unwrap();
    let batch = batch(stream);
    assert!(batch.data_bytes(&batch.get(0).unwrap()).is_empty());
}

#[test]
fn a_scanned_record_gives_its_bytes_away() {
    let Fixture { stream, .. } = &Fixture::new(1);
    put(stream, "a");
    let bytes: Vec<_> = stream.scan(..).unwrap().map(|it| it.unwrap().data_bytes()).collect();
    assert_eq!(bytes, ["a"]);
}

#[test]
#[should_panic(expected = "one of this batch")]
fn the_record_of_another_batch_is_refused() {
    let Fixture { stream, .. } = &Fixture::new(1);
    put(stream, "a");
    let other = batch(stream);
    // The same record, but from another map of the segment.
    let reader = Stream::open_read_only(stream.path()).unwrap();
    batch(&reader).data_bytes(&other.get(0).unwrap());
}
