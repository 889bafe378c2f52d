//! From one thread to another: a producer and a reader at the tip.

use std::time::{Duration, Instant};

use millstream::{Limit, ShardId, StartingPosition, Stream, WaitStrategy};

use crate::{Ours, catch_up, contestant, percentiles, row};

/// A producer flat out and a reader that keeps up, against a channel of boxed records.
pub fn throughput() {
    hand_over("hand-over of 100 B, flat out", 9, 1_000_000);
    hand_over("hand-over of 100 B, within what is prepared", 60, 4 * (1 << 20) / 160);
}

fn hand_over(name: &str, rounds: usize, count: usize) {
    let data = [7u8; 100];
    let ours = Ours::grown();
    let stream = &ours.stream;
    row(
        name,
        rounds,
        vec![
            contestant("crossbeam-channel, bounded, boxed", || {
                let (sender, receiver) = crossbeam_channel::bounded::<Box<[u8]>>(1024);
                let start = Instant::now();
                std::thread::scope(|scope| {
                    scope.spawn(move || {
                        for _ in 0..count {
                            sender.send(Box::from(&data[..])).unwrap();
                        }
                    });
                    assert_eq!(receiver.iter().count(), count);
                });
                start.elapsed().as_nanos() as f64 / count as f64
            }),
            contestant("put and get_records", || {
                catch_up();
                let start = Instant::now();
                std::thread::scope(|scope| {
                    let latest = StartingPosition::Latest;
                    let iterator = stream.shard_iterator(ShardId::new(0), latest).unwrap();
                    scope.spawn(|| {
                        for _ in 0..count {
                            stream.put("key-0001", data).unwrap();
                        }
                    });
                    read(stream, iterator, count, WaitStrategy::Yield, |_| {});
                });
                start.elapsed().as_nanos() as f64 / count as f64
            }),
        ],
    );
}

/// Reads so many records as they come, and tells of the data of each.
fn read(
    stream: &Stream,
    mut iterator: millstream::ShardIterator,
    count: usize,
    strategy: WaitStrategy,
    mut seen: impl FnMut(&[u8]),
) {
    let mut read = 0;
    while read < count {
        let page = stream.get_records(&iterator, Limit::default()).unwrap();
        page.records.iter().for_each(|record| seen(record.data()));
        read += page.records.len();
        iterator = page.next_shard_iterator.unwrap();
        if page.records.is_empty() {
            stream.wait_with(&iterator, Duration::MAX, strategy).unwrap();
        }
    }
}

/// How long after its put a record is seen, when one is put every 10 microseconds.
pub fn latency() {
    const PACED: usize = 50_000;
    let ours = Ours::grown();
    let stream = &ours.stream;
    let start = Instant::now();
    let now = || start.elapsed().as_nanos() as u64;
    let pace = |mut put: Box<dyn FnMut(u64) + Send>| {
        let mut next = now();
        for _ in 0..PACED {
            while now() < next {
                std::hint::spin_loop();
            }
            put(now());
            next += 10_000;
        }
    };
    let ours_in = |strategy| {
        let (pace, now) = (&pace, &now);
        move || {
            let latest = StartingPosition::Latest;
            let iterator = stream.shard_iterator(ShardId::new(0), latest).unwrap();
            let mut times = Vec::with_capacity(PACED);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    pace(Box::new(|at| {
                        stream.put("key-0001", at.to_le_bytes()).unwrap();
                    }));
                });
                read(stream, iterator, PACED, strategy, |data| {
                    times.push(now() - u64::from_le_bytes(data.try_into().unwrap()));
                });
            });
            percentiles(times)
        }
    };
    row(
        "put to seen, one in 10 us (median of the medians)",
        5,
        vec![
            contestant("crossbeam-channel, blocking", || {
                let (sender, receiver) = crossbeam_channel::bounded::<Box<[u8]>>(1024);
                let mut times = Vec::with_capacity(PACED);
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        pace(Box::new(move |at| {
                            sender.send(Box::from(&at.to_le_bytes()[..])).unwrap();
                        }));
                    });
                    for data in &receiver {
                        let at = u64::from_le_bytes(data[..].try_into().unwrap());
                        times.push(now() - at);
                    }
                });
                percentiles(times)
            }),
            contestant("put and get_records, Park", ours_in(WaitStrategy::Park)),
            contestant("put and get_records, Spin", ours_in(WaitStrategy::Spin)),
        ],
    );
}

/// How long a put takes, over many segments and with syncs behind its back.
pub fn put_latency() {
    let data = [7; 100];
    row(
        "put 100 B, 10 M records (median of the medians, clock included)",
        1,
        vec![contestant("put", || {
            let ours = Ours::new();
            let mut times = Vec::with_capacity(10_000_000);
            for _ in 0..10_000_000 {
                let start = Instant::now();
                ours.stream.put("key-0001", data).unwrap();
                times.push(start.elapsed().as_nanos() as u64);
            }
            times.sort_unstable();
            let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
            println!(
                "    p50 {} ns, p99 {} ns, p99.9 {} ns, p99.99 {} ns, max {} ns",
                at(0.5),
                at(0.99),
                at(0.999),
                at(0.9999),
                at(1.0),
            );
            at(0.5) as f64
        })],
    );
}
