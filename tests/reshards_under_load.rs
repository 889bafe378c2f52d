//! Eight producers that never pause, two hundred reshards, and readers that follow the lineage.

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::files::{scratch, small_segments};
use millstream::{
    HashKey, PutRecord, Receipt, Scan, SequenceNumber, ShardFilter, ShardInfo, Stream, verify,
};

const PRODUCERS: usize = 8;
const KEYS: usize = 25;
const RESHARDS: usize = 200;
/// Numbers that look random and follow from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// The seed given with `MILLSTREAM_SEED`, or another one each time; it is printed.
#[expect(clippy::print_stdout, reason = "shown when the test fails")]
fn seed() -> u64 {
    let given = std::env::var("MILLSTREAM_SEED").ok().map(|seed| seed.parse().unwrap());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = given.unwrap_or_else(now);
    println!("MILLSTREAM_SEED={seed}");
    seed
}

fn open_shards(stream: &Stream) -> Vec<ShardInfo> {
    let mut open = stream.shards_with(ShardFilter::AtLatest);
    open.sort_unstable_by_key(|shard| shard.hash_key_range);
    open
}

/// Splits, merges or reshards the stream by chance, to no more than twenty shards.
fn reshape(stream: &Stream, random: &mut Random) {
    let open = open_shards(stream);
    let at = random.below(open.len());
    let range = open[at].hash_key_range;
    let width = range.end.get() - range.start.get();
    match random.below(10) {
        0 => drop(stream.reshard_to(random.below(12) as u32 + 1).unwrap()),
        1..4 if at + 1 < open.len() => {
            stream.merge_shards(open[at].id, open[at + 1].id).unwrap();
        }
        // Shards that are split again and again become too narrow for it.
        _ if open.len() > 20 || width < 1000 => drop(stream.reshard_to(3).unwrap()),
        4..7 => drop(stream.split_mid(open[at].id).unwrap()),
        7 => drop(stream.split_at_fraction(open[at].id, 0.3).unwrap()),
        _ => {
            let key = range.start.get() + width / 100 * (1 + random.below(98) as u128);
            stream.split_shard(open[at].id, HashKey::new(key)).unwrap();
        }
    }
}

/// Puts the next records of its keys again and again, in every way: how many of each key.
fn produce(stream: &Stream, producer: usize, rounds: &AtomicUsize, done: &AtomicBool) -> usize {
    let keys: Vec<String> = (0..KEYS).map(|key| format!("{producer}/{key}")).collect();
    let mut last = vec![SequenceNumber::from(0); KEYS];
    let mut check = |key: usize, receipt: Receipt| {
        assert!(last[key] < receipt.sequence_number, "the numbers of a key rise");
        last[key] = receipt.sequence_number;
    };
    let mut round = 0;
    while !done.load(Ordering::Relaxed) {
        let data = round.to_string();
        if round % 3 == 0 {
            let batch = keys.iter().map(|key| PutRecord::new(key, &data));
            let results = stream.put_batch(batch);
            results.into_iter().enumerate().for_each(|(key, result)| check(key, result.unwrap()));
        } else if round % 3 == 1 {
            for (at, key) in keys.iter().enumerate() {
                let fill = |place: &mut [u8]| place.copy_from_slice(data.as_bytes());
                check(at, stream.put_with(key, data.len(), fill).unwrap());
            }
        } else {
            for (at, key) in keys.iter().enumerate() {
                check(at, stream.put(key, &data).unwrap());
            }
        }
        round += 1;
        rounds.fetch_add(1, Ordering::Relaxed);
        // Two cores have to do for all.
        std::thread::yield_now();
    }
    round
}

/// Follows a stream until it has `total` records (once that is known): each key's are those that
/// were put, in order and once.
fn follow(mut scan: Scan, total: &AtomicUsize) -> HashMap<String, usize> {
    let mut next: HashMap<String, usize> = HashMap::new();
    let mut count = 0;
    while count < total.load(Ordering::Acquire) {
        for scanned in scan.by_ref() {
            let scanned = scanned.unwrap();
            let (record, shard) = (scanned.record(), scanned.shard());
            let next = next.entry(record.partition_key().to_owned()).or_default();
            let found: usize = std::str::from_utf8(record.data()).unwrap().parse().unwrap();
            assert_eq!(found, *next, "{} in {shard}", record.partition_key());
            *next += 1;
            count += 1;
        }
        scan.wait(Duration::from_millis(10)).unwrap();
    }
    next
}

/// Lets all threads come to their end, also when one of them has failed.
struct LetGo<'a>([&'a AtomicBool; 2], &'a AtomicUsize);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|flag| flag.store(true, Ordering::Relaxed));
        self.1.store(0, Ordering::Relaxed);
    }
}

#[test]
fn every_acknowledged_record_is_read_once_and_in_the_order_of_its_key_through_200_reshards() {
    let seed = seed();
    let directory = scratch();
    let stream = &small_segments(directory.path()).shards(4).create().unwrap();
    let reader = &Stream::open_read_only(directory.path()).unwrap();
    let (done, finished) = (&AtomicBool::new(false), &AtomicBool::new(false));
    let (rounds, total) = (&AtomicUsize::new(0), &AtomicUsize::new(usize::MAX));
    std::thread::scope(|scope| {
        let _let_go = LetGo([done, finished], total);
        let followers: Vec<_> = [stream, reader]
            .map(|stream| stream.scan(..).unwrap().follow_lineage())
            .map(|scan| scope.spawn(move || follow(scan, total)))
            .into();
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| scope.spawn(move || produce(stream, producer, rounds, done)))
            .collect();
        let watcher = scope.spawn(move || {
            while !finished.load(Ordering::Relaxed) {
                for stream in [stream, reader] {
                    let open = open_shards(stream);
                    let touches = |pair: &[ShardInfo]| {
                        let [one, next] = [0, 1].map(|at| pair[at].hash_key_range);
                        one.end.get() + 1 == next.start.get()
                    };
                    assert!(open.windows(2).all(touches), "{open:?}");
                    assert_eq!(open[0].hash_key_range.start, HashKey::MIN);
                    assert_eq!(open[open.len() - 1].hash_key_range.end, HashKey::MAX);
                    std::thread::yield_now();
                }
            }
        });
        let mut random = Random(seed);
        for n in 0..RESHARDS {
            // About two rounds of each producer.
            while rounds.load(Ordering::Relaxed) < n * 2 * PRODUCERS {
                std::thread::yield_now();
            }
            reshape(stream, &mut random);
        }
        done.store(true, Ordering::Relaxed);
        let rounds: Vec<usize> = producers.into_iter().map(|it| it.join().unwrap()).collect();
        total.store(rounds.iter().sum::<usize>() * KEYS, Ordering::Release);
        let keys = rounds.iter().enumerate().flat_map(|(producer, rounds)| {
            (0..KEYS).map(move |key| (format!("{producer}/{key}"), *rounds))
        });
        let put: HashMap<_, _> = keys.filter(|(_, rounds)| *rounds > 0).collect();
        for follower in followers {
            assert_eq!(follower.join().unwrap(), put);
        }
        finished.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
    });
    assert_eq!(verify(directory.path()).unwrap().damage().count(), 0);
}
