//! `millstream demo`: the whole idea at work, and the proof that it works.

mod access_log;
mod count;
mod place;
mod producers;
mod proof;
mod show;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount};
use millstream::{HashKey, Limit, ShardId, ShardInfo, Stream, WorkerPool};

use crate::failure::{Exit, Failure, Result};
use crate::output;
use access_log::AccessLog;
use count::{Counted, Counter};
use place::Place;
use producers::{PRODUCERS, Positions, Producers};
use proof::Proof;
use show::Show;

const SHARDS: u32 = 4;
const APP: &str = "count-per-client";
/// How long workers and producers may take for what should be done at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts a web access log per client, through a stream, and proves the count right.
///
/// Two producers put a generated log into a stream of four shards, and a pool of workers counts
/// the requests of each client. Meanwhile a worker is made to panic, a shard is split, and
/// everything is stopped and started again. At the end the counts are compared with those of the
/// text itself: every line counted, each client's in order, none lost.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream demo                  # in a temporary directory, which is removed at the end
  millstream demo /tmp/tour        # in this one, which is kept: look around in it afterwards
  millstream demo --rate 0         # as fast as it can

It takes about ten seconds, because the producers are held back so that you can watch. The exit
code is 0 only if the proof holds, and 4 if it does not.")]
pub(crate) struct Args {
    /// Where to do it: a directory that is missing or empty [default: a temporary one].
    dir: Option<PathBuf>,
    /// How many lines the log has.
    #[arg(long, value_name = "N", default_value_t = 240_000,
          value_parser = clap::value_parser!(u64).range(10_000..=10_000_000))]
    lines: u64,
    /// How many lines a second the producers put together; 0 is as many as they can.
    #[arg(long, value_name = "N", default_value_t = 30_000)]
    rate: u64,
    /// Write the result to standard output as a JSON object, and the story to standard error.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let counted = Arc::default();
    let show = Show::new(args.json, &counted)?;
    // Declared before what uses it, so removed after everything in it is closed.
    let place = Place::new(args.dir.as_deref())?;
    // First, because it refuses a directory that is not fit.
    let stream = Stream::builder(place.stream()).shards(SHARDS).create()?;
    let started = Instant::now();
    let log = Arc::new(AccessLog::generate(args.lines));
    show.say(&format!(
        "1. A web access log: {} lines, {}, generated in {:.1} s\n",
        HumanCount(log.len() as u64),
        HumanBytes(log.text().len() as u64),
        started.elapsed().as_secs_f64()
    ))?;
    count::announce_only_other_panics();
    let counter = Counter {
        counted: Arc::clone(&counted),
        panic_next: Arc::new(AtomicBool::new(false)),
        screen: show.screen.clone(),
    };
    let mut demo = Demo { show, log, counter, rate: args.rate };
    let positions = demo.first_run(stream, &place)?;
    let stream = Stream::builder(place.stream()).open_existing()?;
    let in_stream = demo.second_run(stream, positions)?;
    demo.prove(args, &place, &counted.lock(), in_stream)
}

struct Demo {
    show: Show,
    log: Arc<AccessLog>,
    counter: Counter,
    rate: u64,
}

impl Demo {
    /// Up to the stop: where the producers were then.
    fn first_run(&mut self, stream: Stream, place: &Place) -> Result<Positions> {
        self.show.say(&format!(
            "2. A stream of {SHARDS} shards in {place};\n   {PRODUCERS} producers put the lines, \
             keyed by client,\n   {};\n   a pool of workers counts them\n",
            self.speed(),
        ))?;
        let producers = Producers::start(&stream, &self.log, Positions::default(), self.rate);
        let pool = self.start_pool(&stream)?;
        self.watch_until_put(&pool, &producers, 25)?;
        self.show.say("3. One worker is made to panic in the middle of a batch\n")?;
        self.counter.panic_next.store(true, Ordering::Relaxed);
        self.watch_until_put(&pool, &producers, 45)?;
        self.split_busiest_shard(&stream)?;
        self.watch_until_put(&pool, &producers, 70)?;
        self.show.clear();
        let outcomes = pool.shutdown(PATIENCE);
        self.show.say(&format!(
            "5. The pool is shut down ({} workers), the producers put on for a moment,\n   \
             then all is closed\n",
            outcomes.len()
        ))?;
        self.show.pause(Duration::from_millis(300))?;
        Ok(producers.stop()?)
    }

    /// From the stop on; how many records the stream has at the end.
    fn second_run(&mut self, stream: Stream, positions: Positions) -> Result<u64> {
        let records = count_records(&stream)?;
        let behind = records.saturating_sub(self.counter.counted.lock().records);
        self.show.say(&format!(
            "6. Opened again: {} records are there, {} of them not processed;\n   \
             everyone goes on\n",
            HumanCount(records),
            HumanCount(behind),
        ))?;
        let producers = Producers::start(&stream, &self.log, positions, self.rate);
        let pool = self.start_pool(&stream)?;
        self.show.watch(&pool, &producers, || producers.are_finished())?;
        producers.stop()?;
        let deadline = Instant::now() + PATIENCE;
        while !pool.wait_until_idle(Duration::from_millis(100)) {
            self.show.pause(Duration::ZERO)?;
            if Instant::now() > deadline {
                let secs = PATIENCE.as_secs();
                return Err(Failure::error(format!("the workers are not done after {secs} s")));
            }
        }
        self.show.clear();
        pool.shutdown(PATIENCE);
        count_records(&stream)
    }

    fn speed(&self) -> String {
        match self.rate {
            0 => "as fast as they can".to_owned(),
            rate => format!("at {} a second (held back, to be watched)", HumanCount(rate)),
        }
    }

    fn start_pool(&self, stream: &Stream) -> Result<WorkerPool> {
        let counter = self.counter.clone();
        let builder = WorkerPool::builder(APP, stream).threads(2).limit(Limit::records(500));
        Ok(builder.start(move |_| counter.clone())?)
    }

    /// Looks on until so many percent of the lines are put.
    fn watch_until_put(
        &mut self,
        pool: &WorkerPool,
        producers: &Producers,
        percent: u64,
    ) -> Result<()> {
        let enough = self.log.len() as u64 * percent / 100;
        let is_reached = || producers.put() >= enough || producers.are_finished();
        self.show.watch(pool, producers, is_reached)
    }

    fn split_busiest_shard(&self, stream: &Stream) -> Result<()> {
        let mut busiest: Option<(u64, ShardInfo)> = None;
        for shard in stream.shards().into_iter().filter(ShardInfo::is_open) {
            let records = stream.describe_shard(shard.id)?.records;
            if busiest.as_ref().is_none_or(|(most, _)| records > *most) {
                busiest = Some((records, shard));
            }
        }
        let (records, shard) = busiest.expect("a stream always has an open shard");
        let range = shard.hash_key_range;
        let half = (range.end.get() - range.start.get()) / 2 + 1;
        let middle = HashKey::new(range.start.get() + half);
        let [low, high]: [ShardId; 2] = stream.split_shard(shard.id, middle)?;
        self.show.say(&format!(
            "4. {} is split while it is written and read,\n   \
             with {} records; {low} and\n   {high} have its clients from now on\n",
            shard.id,
            HumanCount(records),
        ))
    }

    /// Compares the counts, and says so.
    fn prove(&self, args: &Args, place: &Place, counted: &Counted, in_stream: u64) -> Result<()> {
        let truth = count::count_text(self.log.text());
        let proof = Proof::new(&truth, counted, in_stream);
        self.show.say(&proof.text())?;
        self.show.say(&format!("{:.1} s in all\n", self.show.elapsed().as_secs_f64()))?;
        self.show.say(&place.what_to_look_at(APP))?;
        if args.json {
            output::print_json(&proof.json())?;
        }
        match proof.holds() {
            true => Ok(()),
            false => Err(Failure::new(Exit::Damaged, "the proof does not hold")),
        }
    }
}

fn count_records(stream: &Stream) -> Result<u64> {
    let mut records = 0;
    for shard in stream.shards() {
        records += stream.describe_shard(shard.id)?.records;
    }
    Ok(records)
}
