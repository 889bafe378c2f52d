//! Random histories of a stream against a plain model of it in memory.

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::files::{copy_all, scratch, small_segments};
use common::{START_MS, TestClock};
use millstream::{
    Batch, Checkpointer, Error, HashKey, HashKeyRange, Limit, ProcessorError, PutRecord, Receipt,
    SequenceNumber, ShardFilter, ShardId, ShardInfo, ShardIterator, StartingPosition, Stream,
    WorkerPool,
};
use proptest::prelude::*;
use tempfile::TempDir;

/// What is done to the stream. Numbers choose among what there is at that moment.
#[derive(Clone, Debug)]
enum Step {
    Put { key: u8, len: u16 },
    PutExplicit(u128),
    PutAny,
    PutIf { shard: u8, is_stale: bool },
    PutMany(Vec<u8>),
    Fill { key: u8, len: u16 },
    GiveUp(u8),
    Split(u8, u128),
    Merge(u8),
    ReshardTo(u8),
    Clock(i64),
    Reopen,
    Kill,
    Read { shard: u8, from: u8, at: u64, limit: u8 },
    Tail { shard: u8, count: u8 },
    Scan { from: i64, len: u16 },
    Work,
}

fn steps() -> impl Strategy<Value = Step> {
    let clock = prop_oneof![0..500i64, -400_000_000_000..400_000_000_000i64];
    prop_oneof![
        8 => (any::<u8>(), 0..3000u16).prop_map(|(key, len)| Step::Put { key, len }),
        2 => any::<u128>().prop_map(Step::PutExplicit),
        2 => Just(Step::PutAny),
        2 => (any::<u8>(), any::<bool>())
            .prop_map(|(shard, is_stale)| Step::PutIf { shard, is_stale }),
        3 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Step::PutMany),
        1 => (any::<u8>(), 0..3000u16).prop_map(|(key, len)| Step::Fill { key, len }),
        1 => any::<u8>().prop_map(Step::GiveUp),
        1 => (any::<u8>(), any::<u128>()).prop_map(|(shard, key)| Step::Split(shard, key)),
        1 => any::<u8>().prop_map(Step::Merge),
        1 => (0..12u8).prop_map(Step::ReshardTo),
        2 => clock.prop_map(Step::Clock),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
        6 => (any::<u8>(), 0..5u8, any::<u64>(), 1..50u8)
            .prop_map(|(shard, from, at, limit)| Step::Read { shard, from, at, limit }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(shard, count)| Step::Tail { shard, count }),
        1 => (-1000..1000i64, any::<u16>()).prop_map(|(from, len)| Step::Scan { from, len }),
        1 => Just(Step::Work),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Known {
    number: SequenceNumber,
    key: String,
    data: Vec<u8>,
    arrival_ms: u64,
}

/// The stream, and what has to be in it.
struct Twin {
    directory: TempDir,
    clock: TestClock,
    now_ms: u64,
    stream: Stream,
    shards: BTreeMap<ShardId, (ShardInfo, Vec<Known>)>,
    /// How many records of each shard the application has processed.
    processed: BTreeMap<ShardId, usize>,
    puts: u64,
}

impl Twin {
    fn new(shards: u32) -> Self {
        let (directory, clock) = (scratch(), TestClock::new());
        let builder = small_segments(directory.path()).shards(shards);
        let stream = builder.clock(clock.clone()).create().unwrap();
        let infos = stream.shards().into_iter().map(|info| (info.id, (info, Vec::new())));
        let (shards, processed) = (infos.collect(), BTreeMap::new());
        Self { directory, clock, now_ms: 0, shards, processed, stream, puts: 0 }
    }

    /// The open shards in the order of their ranges.
    fn open(&self) -> Vec<ShardInfo> {
        let infos = self.shards.values().map(|(info, _)| info.clone());
        let mut open: Vec<_> = infos.filter(ShardInfo::is_open).collect();
        open.sort_unstable_by_key(|shard| shard.hash_key_range);
        open
    }

    /// Another content each time.
    fn data(&mut self, len: usize) -> Vec<u8> {
        self.puts += 1;
        self.puts.to_le_bytes().into_iter().cycle().take(len).collect()
    }

    /// A record was put: to the right shard, with a number above all there are.
    fn put(&mut self, key: &str, data: Vec<u8>, owner: Option<HashKey>, receipt: Receipt) {
        let (info, records) = self.shards.get_mut(&receipt.shard).unwrap();
        assert!(info.is_open());
        assert!(owner.is_none_or(|owner| info.hash_key_range.contains(owner)));
        let number = receipt.sequence_number;
        assert!(number > info.starting_sequence_number);
        assert!(records.last().is_none_or(|last| last.number < number));
        assert_eq!(receipt.arrival_ms, START_MS + self.now_ms);
        records.push(Known { number, key: key.to_owned(), data, arrival_ms: receipt.arrival_ms });
    }

    fn do_put(&mut self, step: &Step) {
        let hash = self.stream.hash_algorithm();
        match step {
            Step::Put { key, len } => {
                let (key, data) = (format!("key-{key}"), self.data((*len).into()));
                let receipt = self.stream.put(&key, &data).unwrap();
                self.put(&key, data, Some(hash.hash(&key)), receipt);
            }
            Step::PutExplicit(at) => {
                let (at, data) = (HashKey::new(*at), self.data(20));
                let record = PutRecord::new("explicit", &data).explicit_hash_key(at);
                let receipt = self.stream.put_record(record).unwrap();
                self.put("explicit", data, Some(at), receipt);
            }
            Step::PutAny => {
                let data = self.data(10);
                let receipt = self.stream.put_any(&data).unwrap();
                self.put("", data, None, receipt);
            }
            Step::PutIf { shard, is_stale } => {
                let open = self.open();
                let info = &open[usize::from(*shard) % open.len()];
                let at = info.hash_key_range.start;
                let latest = self.stream.shard_iterator(info.id, StartingPosition::Latest).unwrap();
                let data = self.data(30);
                let record = PutRecord::new("if", &data).explicit_hash_key(at);
                if *is_stale {
                    let receipt = self.stream.put_record(record).unwrap();
                    self.put("if", data.clone(), Some(at), receipt);
                }
                match self.stream.put_if(record, latest.sequence_number()) {
                    Ok(receipt) if !is_stale => self.put("if", data, Some(at), receipt),
                    Err(Error::Stale { .. }) if *is_stale => {}
                    other => panic!("{other:?}"),
                }
            }
            Step::PutMany(keys) => {
                let keys: Vec<_> = keys.iter().map(|key| format!("key-{key}")).collect();
                let data: Vec<_> = keys.iter().map(|key| self.data(key.len())).collect();
                let results = self.stream.put_batch(keys.iter().zip(&data));
                for ((key, data), result) in keys.iter().zip(&data).zip(results) {
                    self.put(key, data.clone(), Some(hash.hash(key)), result.unwrap());
                }
            }
            Step::Fill { key, len } => {
                let (key, data) = (format!("key-{key}"), self.data((*len).into()));
                let fill = |place: &mut [u8]| place.copy_from_slice(&data);
                let receipt = self.stream.put_with(&key, data.len(), fill).unwrap();
                self.put(&key, data, Some(hash.hash(&key)), receipt);
            }
            Step::GiveUp(key) => {
                let give_up = || {
                    self.stream.put_with(&format!("key-{key}"), 100, |_| {
                        std::panic::resume_unwind(Box::new(()));
                    })
                };
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(give_up)).unwrap_err();
            }
            other => unreachable!("{other:?} puts nothing"),
        }
    }

    /// Changes the shape, which the stream then says; that it may be so, other tests check.
    fn do_reshape(&mut self, step: &Step) {
        let open = self.open();
        match *step {
            Step::Split(shard, key) => {
                let HashKeyRange { start, end } =
                    open[usize::from(shard) % open.len()].hash_key_range;
                let key = start.get() + key % (end.get() - start.get());
                let legal = key > start.get() + 1 && key < end.get();
                let id = open[usize::from(shard) % open.len()].id;
                let split = self.stream.split_shard(id, HashKey::new(key));
                assert_eq!(split.is_ok(), legal);
            }
            Step::Merge(shard) => {
                let at = usize::from(shard) % open.len();
                if let Some(next) = open.get(at + 1) {
                    self.stream.merge_shards(open[at].id, next.id).unwrap();
                }
            }
            Step::ReshardTo(0) => assert!(self.stream.reshard_to(0).is_err()),
            Step::ReshardTo(count) => {
                assert_eq!(self.stream.reshard_to(count.into()).unwrap().len(), usize::from(count));
            }
            ref other => unreachable!("{other:?} reshapes nothing"),
        }
        for info in self.stream.shards() {
            let (known, records) = self.shards.entry(info.id).or_insert((info.clone(), Vec::new()));
            if let (Some(end), Some(last)) = (info.ending_sequence_number, records.last()) {
                assert!(last.number <= end);
            }
            *known = info;
        }
        assert_eq!(self.shards.len(), self.stream.shards().len());
        let touches = |pair: &[ShardInfo]| {
            pair[0].hash_key_range.end.get() + 1 == pair[1].hash_key_range.start.get()
        };
        assert!(self.open().windows(2).all(touches));
    }

    fn reopen(&mut self, is_killed: bool) {
        let mut directory = scratch();
        if is_killed {
            copy_all(self.directory.path(), directory.path());
        } else {
            std::mem::swap(&mut directory, &mut self.directory);
        }
        // The builder does not know where it is until it is settled.
        let other = small_segments(scratch().path()).create().unwrap();
        let old = std::mem::replace(&mut self.stream, other);
        old.close().unwrap();
        self.directory = directory;
        let builder = small_segments(self.directory.path());
        self.stream = builder.clock(self.clock.clone()).open_existing().unwrap();
        let infos: Vec<_> = self.shards.values().map(|(info, _)| info.clone()).collect();
        assert_eq!(self.stream.shards(), infos);
    }

    /// Reads a page at a position and checks it; `from` says which kind.
    fn read(&self, shard: u8, from: u8, at: u64, limit: u8) {
        let (id, (info, records)) =
            self.shards.iter().nth(usize::from(shard) % self.shards.len()).unwrap();
        let some = (at as usize) % (records.len() + 1);
        let start: u64 = info.starting_sequence_number.to_string().parse().unwrap();
        let number = records.get(some).map_or(start + at % 5000, |record| {
            let number: u64 = record.number.to_string().parse().unwrap();
            number + at % 3 * 17
        });
        let number = SequenceNumber::from(number);
        let time = records.get(some).map_or(START_MS + at % 1000, |record| record.arrival_ms);
        let (from, first) = match from {
            0 => (StartingPosition::TrimHorizon, 0),
            1 => (StartingPosition::Latest, records.len()),
            2 => {
                let at = StartingPosition::AtSequenceNumber(number);
                (at, records.partition_point(|record| record.number < number))
            }
            3 => {
                let after = StartingPosition::AfterSequenceNumber(number);
                (after, records.partition_point(|record| record.number <= number))
            }
            _ => {
                let first = records.iter().position(|record| record.arrival_ms >= time);
                (StartingPosition::AtTimestampMs(time), first.unwrap_or(records.len()))
            }
        };
        let is_outside = info.ending_sequence_number.is_some_and(|end| number > end);
        let iterator = match self.stream.shard_iterator(*id, from) {
            Err(Error::WrongShard { .. }) if is_outside => return,
            iterator => iterator.unwrap(),
        };
        let text: ShardIterator = iterator.to_string().parse().unwrap();
        for iterator in [iterator, text] {
            self.check_page(info, &records[first..], &iterator, limit.into());
        }
    }

    fn check_page(&self, info: &ShardInfo, expected: &[Known], at: &ShardIterator, limit: usize) {
        let page = self.stream.get_records(at, Limit::records(limit)).unwrap();
        let found = page.records.iter().map(|record| Known {
            number: record.sequence_number(),
            key: record.partition_key().to_owned(),
            data: record.data().to_vec(),
            arrival_ms: record.arrival_ms(),
        });
        let found: Vec<_> = found.collect();
        assert!(found == expected[..expected.len().min(limit)], "{found:?}");
        let is_end = expected.len() <= limit && !info.is_open();
        assert_eq!(page.next_shard_iterator.is_none(), is_end, "of {info:?}");
        assert_eq!(page.child_shards.is_empty(), !is_end);
    }

    /// Has the application process all there is: what came since it did last, in order, once, and
    /// no child before its parents.
    fn work(&mut self) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let given = Arc::clone(&seen);
        let pool = WorkerPool::builder("billing", &self.stream).start(move |shard| {
            let (id, given) = (shard.id, Arc::clone(&given));
            move |batch: &Batch, _: &mut Checkpointer<'_>| -> Result<(), ProcessorError> {
                let numbers = batch.iter().map(|record| (id, record.sequence_number()));
                given.lock().unwrap().extend(numbers);
                Ok(())
            }
        });
        let pool = pool.unwrap();
        assert!(pool.wait_until_idle(Duration::from_secs(60)), "{:?}", pool.status());
        pool.shutdown(Duration::from_secs(60));
        let seen = seen.lock().unwrap();
        for (id, (info, records)) in &self.shards {
            let at = |shard: ShardId| move |(other, _): &(ShardId, _)| *other == shard;
            let numbers: Vec<_> =
                seen.iter().filter(|it| at(*id)(it)).map(|(_, number)| *number).collect();
            let before = self.processed.insert(*id, records.len()).unwrap_or(0);
            let expected: Vec<_> = records[before..].iter().map(|record| record.number).collect();
            assert_eq!(numbers, expected, "of {id}");
            let first = seen.iter().position(at(*id)).unwrap_or(seen.len());
            let is_late = |parent| seen.iter().rposition(at(parent)).is_some_and(|it| it > first);
            assert!(!info.parents().any(is_late), "{id} before its parents");
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Clock(ms) => {
                self.now_ms = self.now_ms.saturating_add_signed(ms);
                self.clock.set(self.now_ms);
            }
            Step::Reopen => self.reopen(false),
            Step::Kill => self.reopen(true),
            Step::Read { shard, from, at, limit } => self.read(shard, from, at, limit),
            Step::Tail { shard, count } => {
                let nth = usize::from(shard) % self.shards.len();
                let (id, (info, records)) = self.shards.iter().nth(nth).unwrap();
                let at = self.stream.tail(*id, count.into()).unwrap();
                let first = records.len().saturating_sub(count.into());
                self.check_page(info, &records[first..], &at, usize::from(count) + 1);
            }
            Step::Scan { from, len } => {
                let from = (START_MS + self.now_ms).saturating_add_signed(from);
                let range = from..from + u64::from(len);
                let all = self.shards.values().flat_map(|(_, records)| records);
                let wanted = all.filter(|record| range.contains(&record.arrival_ms)).count();
                assert_eq!(self.stream.scan(range).unwrap().count(), wanted);
            }
            Step::Work => self.work(),
            Step::Split(..) | Step::Merge(_) | Step::ReshardTo(_) => self.do_reshape(step),
            _ => self.do_put(step),
        }
    }
}

/// As many histories as `PROPTEST_CASES` says; a failing one is printed, with its seed.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").map_or(60, |cases| cases.parse().unwrap());
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn a_stream_is_what_a_plain_model_of_it_is(
        shards in 1..5u32,
        history in prop::collection::vec(steps(), 1..80),
    ) {
        let mut twin = Twin::new(shards);
        for step in &history {
            twin.take(step);
        }
        // In the end, everything there is.
        for (id, (info, records)) in &twin.shards {
            let at = twin.stream.shard_iterator(*id, StartingPosition::TrimHorizon).unwrap();
            twin.check_page(info, records, &at, usize::MAX);
            let description = twin.stream.describe_shard(*id).unwrap();
            let newest = records.last().map(|record| record.number);
            prop_assert_eq!(description.last_sequence_number, newest);
        }
        let open: Vec<_> = twin.stream.shards_with(ShardFilter::AtLatest);
        prop_assert_eq!(open.len(), twin.open().len());
        drop(twin.stream);
        let damage = millstream::verify(twin.directory.path()).unwrap();
        prop_assert_eq!(damage.damage().count(), 0);
    }
}
