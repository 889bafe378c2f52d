//! An hour of virtual time with pools that join, leave, die and hang, processors that fail and
//! panic, and shards that are split and merged, of one stream or of several: every step is decided
//! by a seed, and everything that a processor is given, and every checkpoint, is checked as it
//! happens.
//!
//! `MILLSTREAM_SIMULATIONS` says how many seeds are tried; a failure names its seed, and
//! `MILLSTREAM_SIMULATION_SEED` runs that one alone.

mod checked;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Weak;
use std::sync::atomic::Ordering;

use super::remote_table::{Database, RemoteTable};
use super::*;
use crate::os::clock::Ticker;
use crate::worker::life::Stage;
use crate::worker::source::Source;
use crate::worker::status::Board;
use crate::worker::supervisor::Supervisor;
use checked::Checked;

const HOUR: Duration = Duration::from_secs(3600);
const MAX_POOLS: u64 = 4;
const MAX_OPEN_SHARDS: usize = 8;
/// How many callbacks may hang in each other.
const MAX_DEPTH: usize = 3;

/// The shards of the n-th stream have indices from n times this on.
const INDICES: u32 = 1_000_000;

/// A stream, and what the application keeps beside it.
struct Simulated {
    source: Arc<Script>,
    database: Arc<Database>,
    open: Mutex<Vec<ShardId>>,
}

/// A pool without threads: whoever drives it gives it its turns.
struct Pool {
    common: Common<Arc<Script>>,
    /// Those of the streams.
    boards: Vec<Arc<Board>>,
    /// Those of the streams that it still consumes; none while they take a step.
    supervisors: Mutex<Option<Vec<Supervisor<Arc<Script>>>>>,
    /// How many of its callbacks are running.
    busy: Mutex<usize>,
}

/// What a processor has been given; each has a number.
struct Instance {
    shard: ShardId,
    lane: usize,
    epoch: u64,
    /// Behind the last record that it has processed.
    position: u64,
}

#[derive(Default)]
struct History {
    put: BTreeMap<ShardId, Vec<u64>>,
    processed: BTreeMap<ShardId, BTreeSet<u64>>,
    /// How many of the first records are processed.
    done: BTreeMap<ShardId, usize>,
    instances: Vec<Instance>,
    /// The last checkpoint of each shard, and its epoch.
    checkpoints: BTreeMap<ShardId, (u64, Checkpoint)>,
    /// The version of the rows that were checked last.
    version: u64,
    /// What must not be. Processors cannot panic for it: that is a failure like others.
    violations: Vec<String>,
    /// How often everything has happened that makes a run worth it.
    counts: BTreeMap<&'static str, u64>,
}

impl History {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn process(&mut self, shard: ShardId, numbers: &[u64]) {
        let processed = self.processed.entry(shard).or_default();
        processed.extend(numbers);
        let done = self.done.entry(shard).or_default();
        let put = &self.put[&shard];
        while put.get(*done).is_some_and(|number| processed.contains(number)) {
            *done += 1;
        }
    }

    fn is_processed(&self, shard: ShardId, up_to: u64) -> bool {
        let put = self.put.get(&shard).map_or(0, |put| put.partition_point(|n| *n <= up_to));
        put <= self.done.get(&shard).copied().unwrap_or(0)
    }

    fn must(&mut self, is_so: bool, what: impl FnOnce() -> String) {
        if !is_so {
            self.violations.push(what());
        }
    }
}

struct World {
    /// The state of the generator of random numbers.
    random: Mutex<u64>,
    ticker: Ticker,
    streams: Vec<Simulated>,
    pools: Mutex<Vec<Arc<Pool>>>,
    history: Mutex<History>,
    is_calm: Mutex<bool>,
    depth: Mutex<usize>,
    policy: CheckpointPolicy,
    /// The most lanes that a pool has.
    max_lanes: u64,
}

impl Simulated {
    /// The n-th one, with three shards.
    fn new(index: u32) -> Self {
        let source = Script::beginning_at(index * INDICES);
        source.has_keys.store(true, Ordering::SeqCst);
        let open = (0..3).map(|_| source.add_shard(&[])).collect();
        Self { source: Arc::new(source), database: Arc::default(), open: Mutex::new(open) }
    }
}

impl World {
    fn new(seed: u64, max_lanes: u64, streams: u32) -> Arc<Self> {
        let policy = match seed % 3 {
            0 => CheckpointPolicy::AfterBatch,
            1 => CheckpointPolicy::Every { records: 5, interval: Duration::from_secs(3) },
            _ => CheckpointPolicy::Manual,
        };
        let world = Self {
            random: Mutex::new(seed),
            ticker: Ticker::given(),
            streams: (0..streams).map(Simulated::new).collect(),
            pools: Mutex::default(),
            history: Mutex::default(),
            is_calm: Mutex::new(false),
            depth: Mutex::new(0),
            policy,
            max_lanes,
        };
        Arc::new(world)
    }

    /// The stream that has the shard.
    fn stream(&self, shard: ShardId) -> &Simulated {
        &self.streams[(shard.index() / INDICES) as usize]
    }

    /// A number below `end`: splitmix64.
    fn below(&self, end: u64) -> u64 {
        let mut state = self.random.lock();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn any<T: Clone>(&self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len() as u64) as usize].clone())
    }

    fn count(&self, what: &'static str) {
        self.history.lock().count(what);
    }

    fn start_pool(self: &Arc<Self>) {
        let lanes = if self.max_lanes > 1 { 1 + self.below(self.max_lanes) as usize } else { 1 };
        let options = Options {
            threads: 2,
            limit: Limit::records(1 + self.below(7) as usize),
            checkpoints: self.policy,
            retry_delay: RetryDelay::exactly(Duration::from_millis(100), Duration::from_secs(5)),
            attempts: 1 + self.below(3) as u32,
            lanes,
            ticker: self.ticker.clone(),
            ..Options::default()
        };
        let world = Arc::downgrade(self);
        let pool = Arc::new_cyclic(|pool: &Weak<Pool>| {
            let common = Common::new();
            let shared = |(index, stream): (usize, &Simulated)| {
                let (world, pool) = (Weak::clone(&world), Weak::clone(pool));
                let factory = Box::new(move |shard: &ShardInfo| -> Box<dyn RecordProcessor> {
                    let (world, pool) = (world.upgrade().unwrap(), pool.upgrade().unwrap());
                    Box::new(Checked { world, pool, shard: shard.clone(), lanes, instance: None })
                });
                let expiry = Duration::from_secs(10);
                let table = RemoteTable::connect(&stream.database, &self.ticker, expiry);
                let (source, options) = (Arc::clone(&stream.source), options.clone());
                let path = PathBuf::from(format!("/nowhere/{index}/applications/billing"));
                Shared::new(source, Arc::new(table), &path, options, factory, &common)
            };
            let shared = self.streams.iter().enumerate().map(shared).map(Arc::new);
            let shared: Vec<_> = shared.collect();
            let boards = shared.iter().map(|shared| Arc::clone(&shared.board)).collect();
            let supervisor = |shared| Supervisor::new(shared, &common.queue).unwrap();
            let supervisors = Mutex::new(Some(shared.into_iter().map(supervisor).collect()));
            Pool { common, boards, supervisors, busy: Mutex::new(0) }
        });
        self.pools.lock().push(pool);
        self.count("pool started");
    }

    fn remove(&self, pool: &Arc<Pool>) {
        self.pools.lock().retain(|other| !Arc::ptr_eq(other, pool));
    }

    fn step_supervisors(&self, pool: &Arc<Pool>) {
        let Some(mut supervisors) = pool.supervisors.lock().take() else { return };
        supervisors.retain_mut(|supervisor| supervisor.step().is_some());
        if supervisors.is_empty() {
            self.remove(pool);
            self.count("pool left");
        }
        *pool.supervisors.lock() = Some(supervisors);
    }

    /// The pool consumes one of its streams no more.
    fn remove_stream(&self, pool: &Arc<Pool>) {
        let consumed = |board: &&Arc<Board>| board.stage() == Stage::Consuming;
        let consumed: Vec<_> = pool.boards.iter().filter(consumed).collect();
        if let (2.., Some(board)) = (consumed.len(), self.any(&consumed)) {
            board.enter(Stage::Stopping);
            self.count("stream removed");
        }
    }

    fn any_stream(&self) -> &Simulated {
        &self.streams[self.below(self.streams.len() as u64) as usize]
    }

    fn reshard(&self) {
        let Simulated { source, database, open } = self.any_stream();
        let mut open = open.lock();
        let index = self.below(open.len() as u64) as usize;
        let parents = if open.len() < MAX_OPEN_SHARDS && self.below(2) == 0 {
            vec![open.swap_remove(index)]
        } else if open.len() > 1 {
            let one = open.swap_remove(index);
            vec![one, open.pop().unwrap()]
        } else {
            return;
        };
        open.push(source.close(&parents));
        if parents.len() == 1 {
            open.push(source.add_shard(&parents));
        }
        self.count("reshard");
        // Of what is processed, something expires.
        let rows = database.rows();
        if let Some((shard, _)) = rows.iter().find(|(_, row)| row.checkpoint.is_none()) {
            source.expire(*shard);
        }
    }

    fn put(&self) {
        let Simulated { source, open, .. } = self.any_stream();
        let Some(shard) = self.any(&open.lock()) else { return };
        for _ in 0..=self.below(10) {
            let number = source.put(shard);
            self.history.lock().put.entry(shard).or_default().push(number);
        }
    }

    /// Something happens.
    fn step(self: &Arc<Self>) {
        let pools = self.pools.lock().clone();
        let is_calm = *self.is_calm.lock();
        match self.below(1000) {
            0..400 => {
                if let Some(pool) = self.any(&pools) {
                    pool.common.queue.run_once();
                }
            }
            400..800 => {
                if let Some(pool) = self.any(&pools) {
                    self.step_supervisors(&pool);
                }
            }
            800..950 => self.ticker.advance(Duration::from_millis(self.below(1500))),
            _ if is_calm => {}
            950..985 => self.put(),
            985..991 => self.reshard(),
            991..995 if (pools.len() as u64) < MAX_POOLS => self.start_pool(),
            995..997 => {
                if let Some(pool) = self.any(&pools) {
                    pool.common.life.enter(Stage::Stopping);
                }
            }
            997 => {
                // Killed: none of its threads does anything any more.
                if let Some(pool) = self.any(&pools).filter(|pool| *pool.busy.lock() == 0) {
                    self.remove(&pool);
                    self.count("pool killed");
                }
            }
            998 => {
                if let Some(pool) = self.any(&pools) {
                    self.remove_stream(&pool);
                }
            }
            _ => {}
        }
        self.check_checkpoints();
    }

    /// No checkpoint is ahead of what was processed, or goes back, or is moved by an old owner.
    fn check_checkpoints(&self) {
        let mut history = self.history.lock();
        assert_eq!(history.violations, Vec::<String>::new());
        let version = self.streams.iter().map(|stream| stream.database.version()).sum();
        if mem::replace(&mut history.version, version) == version {
            return;
        }
        let rows = self.streams.iter().flat_map(|stream| stream.database.rows());
        for (shard, row) in rows {
            assert_eq!(row.lineage, Some((&self.stream(shard).source.info(shard)).into()));
            let checkpoint = Checkpoint::at(row.checkpoint);
            let last = history.checkpoints.insert(shard, (row.epoch, checkpoint));
            if last == Some((row.epoch, checkpoint)) {
                continue;
            }
            let number = |checkpoint: Checkpoint| match checkpoint {
                Checkpoint::ShardEnd => u64::MAX,
                other => other.number().and_then(SequenceNumber::address).unwrap_or(0),
            };
            assert!(history.is_processed(shard, number(checkpoint)), "{shard}: ahead");
            if let Some((epoch, before)) = last {
                assert!(
                    epoch <= row.epoch && number(before) <= number(checkpoint),
                    "{shard}: back"
                );
            }
        }
    }

    /// Whether there is a pool for each stream.
    fn is_consumed(&self) -> bool {
        let pools = self.pools.lock();
        let is_at =
            |index: usize| move |pool: &Arc<Pool>| pool.boards[index].stage() == Stage::Consuming;
        (0..self.streams.len()).all(|index| pools.iter().any(is_at(index)))
    }

    fn is_finished(&self) -> bool {
        let history = self.history.lock();
        history.put.keys().all(|shard| history.is_processed(*shard, u64::MAX))
    }
}

/// How often everything has happened.
fn simulate(
    seed: u64,
    max_lanes: u64,
    streams: u32,
    time: Duration,
) -> BTreeMap<&'static str, u64> {
    let world = World::new(seed, max_lanes, streams);
    let start = world.ticker.now();
    while world.ticker.now().duration_since(start) < time {
        world.step();
    }
    // Nothing goes wrong any more: everything is finished, and soon.
    *world.is_calm.lock() = true;
    let calm = world.ticker.now();
    while !world.is_finished() {
        world.step();
        if !world.is_consumed() {
            world.start_pool();
        }
        let waited = world.ticker.now().duration_since(calm);
        assert!(waited < HOUR, "not finished: {:?}", world.history.lock().counts);
    }
    for Simulated { source, database, .. } in &world.streams {
        let shards = source.shards().unwrap().len();
        assert!(shards > 3 && database.rows().len() < shards, "rows of expired shards go");
    }
    world.pools.lock().clear();
    mem::take(&mut world.history.lock().counts)
}

/// An hour for each seed, with pools that have so many lanes at the most and consume so many
/// streams.
fn simulate_all(max_lanes: u64, streams: u32) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("MILLSTREAM_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MILLSTREAM_SIMULATIONS").unwrap_or(1),
    };
    for seed in seeds {
        let run = || simulate(seed, max_lanes, streams, HOUR);
        let counts = std::panic::catch_unwind(run).unwrap_or_else(|error| {
            panic!("seed {seed}: {:?}", error.downcast_ref::<String>());
        });
        for what in ["error", "panic", "hang", "reshard", "pool killed", "pool left", "lease lost"]
        {
            assert!(counts.contains_key(what), "seed {seed}: no {what}: {counts:?}");
        }
        assert!(streams == 1 || counts.contains_key("stream removed"), "{counts:?}");
    }
}

#[test]
fn an_hour_of_failures_loses_nothing_and_gives_no_shard_two_owners() {
    simulate_all(1, 1);
}

#[test]
fn an_hour_of_failures_loses_nothing_with_lanes_that_come_and_go() {
    simulate_all(3, 1);
}

#[test]
fn an_hour_of_failures_loses_nothing_in_pools_of_several_streams() {
    simulate_all(2, 3);
}

#[test]
fn a_seed_decides_everything() {
    let run = || simulate(7, 1, 2, HOUR / 10);
    assert_eq!(run(), run());
}
