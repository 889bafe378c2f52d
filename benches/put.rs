//! One put, by size and durability, with criterion's statistics: `cargo bench --bench put`.
//!
//! How it compares, and to what, is in `benches/figures`.

#![allow(missing_docs, reason = "nobody links a benchmark")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use millstream::{Durability, PutRecord, Stream};

fn put(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let stream = Stream::builder(directory.path()).open().expect("a stream");
    let mut group = criterion.benchmark_group("put");
    for size in [0, 100, 1 << 10, 16 << 10] {
        let data = vec![7; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("Os", size), |bencher| {
            bencher.iter(|| stream.put("key-0001", &data));
        });
    }
    let record = PutRecord::new("key-0001", &[7; 1024]).durability(Durability::Sync);
    group.bench_function(BenchmarkId::new("Sync", 1024), |bencher| {
        bencher.iter(|| stream.put_record(record));
    });
}

criterion_group! {
    name = benches;
    // Each put stays on the disk until the end.
    config = Criterion::default().measurement_time(std::time::Duration::from_secs(1));
    targets = put
}
criterion_main!(benches);
