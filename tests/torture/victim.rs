//! The process that is attacked: it puts, works and reshards as fast as it can, and says each thing
//! that has happened in a line of its own, which gets through as a whole or not at all.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millstream::{
    Batch, Checkpoint, CheckpointPolicy, Checkpointer, Durability, Error, HashKey, Initialization,
    Limit, ProcessorError, PutRecord, RecordProcessor, ShardId, Stream, WorkerPool,
};

use crate::common::event::{Event, data, number, partition_key};
use crate::random::Random;

/// Each producer has so many keys of its own.
pub(crate) const KEYS: u32 = 3;
/// The application that consumes.
pub(crate) const APPLICATION: &str = "torture";
/// A line with so many numbers is still written at once.
const MAX_BATCH: usize = 100;

/// What a victim does.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    pub(crate) seed: u64,
    /// Without any, it only works, beside the one that has some.
    pub(crate) producers: u32,
    pub(crate) shards: u32,
    /// How many of a hundred puts are synced.
    pub(crate) sync: u64,
    pub(crate) works: bool,
    pub(crate) reshards: bool,
    /// After so many puts of each producer it ends by itself.
    pub(crate) puts: u64,
    /// Which process it is among those that share the stream; 0 if there is no other one.
    pub(crate) process: u32,
    /// For each key, the record that comes next.
    pub(crate) next: Vec<u64>,
}

impl Orders {
    /// The orders as the arguments of a process.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Self { seed, producers, shards, sync, works, reshards, puts, process, next } = self;
        let (works, reshards) = (u64::from(*works), u64::from(*reshards));
        let (producers, shards) = (u64::from(*producers), u64::from(*shards));
        let process = u64::from(*process);
        let numbers = [*seed, producers, shards, *sync, works, reshards, *puts, process];
        numbers.iter().chain(next).map(u64::to_string).collect()
    }

    fn parse(arguments: impl Iterator<Item = String>) -> Self {
        let mut numbers = arguments.map(|number| number.parse::<u64>().unwrap());
        let mut next = || numbers.next().unwrap();
        Self {
            seed: next(),
            producers: next() as u32,
            shards: next() as u32,
            sync: next(),
            works: next() == 1,
            reshards: next() == 1,
            puts: next(),
            process: next() as u32,
            next: numbers.collect(),
        }
    }
}

/// Says what has happened.
#[derive(Debug)]
pub(crate) struct Witness {
    file: File,
    /// Begins each line.
    who: String,
}

impl Witness {
    fn new(process: u32) -> Self {
        let file = std::io::stdout().as_fd().try_clone_to_owned().unwrap().into();
        let who = if process == 0 { String::new() } else { format!("@{process} ") };
        Self { file, who }
    }

    fn say(&self, events: &[Event]) {
        let line = |event: &Event| format!("{}{}\n", self.who, event.line());
        let lines: String = events.iter().map(line).collect();
        // Nobody listens: whoever has started this is gone.
        if (&self.file).write_all(lines.as_bytes()).is_err() {
            std::process::exit(1);
        }
    }
}

pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let directory = arguments.next().unwrap();
    let orders = Orders::parse(arguments);
    match live(Path::new(&directory), &orders) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn live(directory: &Path, orders: &Orders) -> Result<(), Error> {
    let witness = Arc::new(Witness::new(orders.process));
    if orders.producers == 0 {
        return consume(directory, orders, &witness);
    }
    let stream = Stream::builder(directory)
        .shards(orders.shards)
        // As small as they get, so that it rolls all the time.
        .max_segment_bytes(64 << 10)
        .open()?;
    witness.say(&[Event::Opened]);
    let pool = if orders.works { Some(work(&stream, orders, &witness)?) } else { None };
    let is_over = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        let resharding =
            (orders.reshards).then(|| scope.spawn(|| reshard(&stream, orders, &witness, &is_over)));
        let producers: Vec<_> = (0..orders.producers)
            .map(|producer| {
                let (stream, witness) = (&stream, &witness);
                scope.spawn(move || produce(stream, orders, producer, witness))
            })
            .collect();
        let puts: Vec<_> = producers.into_iter().map(|it| it.join().unwrap()).collect();
        is_over.store(true, Ordering::Relaxed);
        let reshards = resharding.map_or(Ok(()), |thread| thread.join().unwrap());
        puts.into_iter().chain([reshards]).collect::<Result<(), Error>>()
    });
    if let Some(pool) = pool {
        let _ = pool.wait_until_idle(Duration::from_secs(5));
        pool.shutdown(Duration::from_secs(5));
    }
    outcome.and(stream.close())
}

/// Works beside the process that puts, until it is killed.
fn consume(directory: &Path, orders: &Orders, witness: &Arc<Witness>) -> Result<(), Error> {
    let stream = loop {
        match Stream::open_read_only(directory) {
            // The other one has just begun.
            Err(Error::StreamNotFound { .. } | Error::NotAStream { .. }) => {
                std::thread::yield_now();
            }
            stream => break stream?,
        }
    };
    let _pool = work(&stream, orders, witness)?;
    loop {
        std::thread::park();
    }
}

/// Puts, one record or a few at a time. What is refused ends it.
fn produce(
    stream: &Stream,
    orders: &Orders,
    producer: u32,
    witness: &Witness,
) -> Result<(), Error> {
    let mut random = Random::new(orders.seed ^ u64::from(producer) << 32);
    let mut next: Vec<u64> =
        (0..KEYS).map(|key| orders.next[(producer * KEYS + key) as usize]).collect();
    let mut outcome = Ok(());
    for _ in 0..orders.puts {
        let is_durable = random.percent(orders.sync);
        let durability = if is_durable { Durability::Sync } else { Durability::Os };
        let count = if random.percent(20) { 1 + random.below(8) } else { 1 };
        let records: Vec<_> = (0..count)
            .map(|_| {
                let which = random.below(u64::from(KEYS)) as usize;
                let (key, n) = (producer * KEYS + which as u32, next[which]);
                next[which] += 1;
                (key, n, partition_key(key), data(key, n))
            })
            .collect();
        let puts: Vec<_> =
            records.iter().map(|(key, n, ..)| Event::Put { key: *key, n: *n }).collect();
        witness.say(&puts);
        let records_to_put = records
            .iter()
            .map(|(_, _, key, data)| PutRecord::new(key, data).durability(durability));
        let results = if count == 1 {
            records_to_put.map(|record| stream.put_record(record)).collect()
        } else {
            stream.put_batch(records_to_put)
        };
        let mut events = Vec::new();
        for ((key, n, ..), result) in records.iter().zip(results) {
            match result {
                Ok(receipt) => events.push(Event::Acknowledged {
                    key: *key,
                    n: *n,
                    shard: receipt.shard,
                    number: number(receipt.sequence_number),
                    is_durable,
                }),
                Err(error) => {
                    if let Error::Poisoned { shard, .. } = error {
                        events.push(Event::Poisoned { key: *key, shard });
                    }
                    // What comes is tried all the same: nothing that fails may be acknowledged.
                    outcome = Err(error);
                }
            }
        }
        witness.say(&events);
    }
    outcome
}

/// Splits and merges, as long as others are at work.
fn reshard(
    stream: &Stream,
    orders: &Orders,
    witness: &Witness,
    is_over: &AtomicBool,
) -> Result<(), Error> {
    let mut random = Random::new(orders.seed ^ 0x5eed);
    let mut outcome = Ok(());
    while !is_over.load(Ordering::Relaxed) {
        let pause = Instant::now() + Duration::from_micros(500 + random.below(10_000));
        while Instant::now() < pause {
            std::thread::yield_now();
        }
        let mut open: Vec<_> = stream.shards().into_iter().filter(|it| it.is_open()).collect();
        open.sort_by_key(|shard| shard.hash_key_range.start);
        let at = random.below(open.len() as u64) as usize;
        let children = if open.len() < 5 && random.percent(50) {
            let range = open[at].hash_key_range;
            let half = (range.end.get() - range.start.get()) / 2;
            let middle = HashKey::new(range.start.get() + half);
            stream.split_shard(open[at].id, middle).map(|children| children.to_vec())
        } else if at + 1 < open.len() {
            stream.merge_shards(open[at].id, open[at + 1].id).map(|child| vec![child])
        } else {
            continue;
        };
        match children {
            Ok(children) => {
                let event = |child: &ShardId| Event::Reshaped { child: *child };
                witness.say(&children.iter().map(event).collect::<Vec<_>>());
            }
            Err(error) => outcome = Err(error),
        }
    }
    outcome
}

/// Consumes as the application does, with one policy or the other.
pub(crate) fn work(
    stream: &Stream,
    orders: &Orders,
    witness: &Arc<Witness>,
) -> Result<WorkerPool, Error> {
    let by_hand = orders.seed.is_multiple_of(2);
    let policy = if by_hand { CheckpointPolicy::Manual } else { CheckpointPolicy::AfterBatch };
    let (witness, seed) = (Arc::clone(witness), orders.seed);
    WorkerPool::builder(APPLICATION, stream)
        .threads(2)
        .limit(Limit::records(MAX_BATCH))
        .checkpoints(policy)
        .retry_delay(Duration::from_micros(100), Duration::from_millis(1))
        // Those that share see at once who is gone; who is there has all the time it needs.
        .look_interval(Duration::from_millis(if orders.process == 0 { 1000 } else { 2 }))
        .hand_over(Duration::from_secs(60))
        .start(move |shard| Processor {
            shard: shard.id,
            by_hand,
            random: Random::new(seed ^ u64::from(shard.id.index())),
            witness: Arc::clone(&witness),
        })
}

struct Processor {
    shard: ShardId,
    /// Whether it moves the checkpoint itself.
    by_hand: bool,
    random: Random,
    witness: Arc<Witness>,
}

impl RecordProcessor for Processor {
    fn initialize(&mut self, initialization: &Initialization) {
        let after = match initialization.checkpoint {
            Checkpoint::AfterSequenceNumber(after) => Some(number(after)),
            _ => None,
        };
        // What failed before had another random course.
        self.random = Random::new(self.random.next() ^ u64::from(initialization.attempt));
        self.witness.say(&[Event::Started { shard: self.shard, after }]);
    }

    fn process_records(
        &mut self,
        batch: &Batch,
        checkpointer: &mut Checkpointer<'_>,
    ) -> Result<(), ProcessorError> {
        let shard = self.shard;
        let numbers: Vec<_> = batch.iter().map(|record| number(record.sequence_number())).collect();
        let last = *numbers.last().unwrap();
        self.witness.say(&[Event::Got { shard, numbers }]);
        if self.random.percent(5) {
            self.witness.say(&[Event::Failed { shard }]);
            return Err("as ordered".into());
        }
        self.witness.say(&[Event::Processed { shard }]);
        if self.by_hand && self.random.percent(70) {
            checkpointer.checkpoint()?;
            self.witness.say(&[Event::Checkpointed { shard, number: last }]);
        }
        Ok(())
    }

    fn shard_ended(&mut self) -> Result<(), ProcessorError> {
        self.witness.say(&[Event::Ended { shard: self.shard }]);
        Ok(())
    }
}
