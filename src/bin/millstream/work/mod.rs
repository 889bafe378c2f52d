//! `millstream work`: a pool of workers for the records of a stream.

mod processors;
mod progress;
mod read_failures;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::{
    CheckpointPolicy, Limit, OnPoison, Outcome, ShardInfo, ShardOutcome, ShardState, ShardStatus,
    StartingPosition, Stream, WorkerPool,
};
use parking_lot::Mutex;

use crate::bars::ShardBars;
use crate::child::Children;
use crate::failure::{Exit, Failure, Result};
use crate::offset::Offset;
use crate::output;
use crate::record_format::FormatArgs;
use crate::signals::Interrupt;
use processors::{EachBatch, Feeding, Printing};
use progress::{Place, Progress};
use read_failures::ReadFailures;

/// How often the bars are drawn, and the reasons to end looked at.
const TICK: Duration = Duration::from_millis(50);

/// Processes the records of a stream, or of several, with a worker for every shard.
///
/// The workers belong to an application, which remembers a checkpoint for each shard: started
/// again, it goes on where it was. Records come in order, those of a shard that was split or
/// merged before those of its children, and at least once: after a failure or a kill those since
/// the last checkpoint come again. Without --exec they are written to standard output, and
/// checkpointed when they are written. Several streams share the threads; each keeps its own
/// checkpoints, and one that fails stops no other.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream work data/orders --app audit -K' '
  millstream work data/orders --app archive --until-idle --exec 'cat >> out.$MILLSTREAM_SHARD'
  millstream work data/orders --app index --exec ./index --json
  millstream work data/orders --app load --exec ./load --each-batch --on-poison dead-letter
  millstream work data/orders data/returns --app index --exec ./index

With --exec, CMD must read until its input ends. It is run by `sh -c` for each shard that has
records, with MILLSTREAM_SHARD, MILLSTREAM_APP and MILLSTREAM_STREAM in its environment. Records
come as lines on its standard input, which ends at the end of the shard and when the work ends; CMD
must succeed then, else the exit code is 5. That it ends before, with whatever status, is a failure:
what is not checkpointed goes to a new one, after a pause that grows. A batch is checkpointed when
CMD has read the next one too, or has succeeded at the end: let it act upon what it read before it
reads on.

With --each-batch too, CMD is run anew for each batch, which is processed when CMD succeeds. So it
can be found out which record it is that CMD fails for: with --on-poison, a batch that has failed as
often as --attempts says is halved, down to one record. A record that has failed so often alone is
put aside with `dead-letter`, see `millstream dead-letters`; with `park` its shard is left alone,
until `millstream checkpoint retry` or a seek; with `stop` the work ends. If a shard is parked at
the end, or the work ended for a record, the exit code is 5.

An attempt that failed is told on standard error at once; the other shards are worked on. If one
could not be read because it is damaged, the exit code is 4 at the end.

Ctrl-C and SIGTERM end it: workers finish their batch, commands see the end of their input. The
second one ends it at once. Only the directory applications/NAME in the stream is written to.")]
pub(crate) struct Args {
    /// The directories of the streams.
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// The application whose checkpoints are used; new ones are remembered under this name.
    #[arg(long, value_name = "NAME", value_parser = crate::apps::parse_name)]
    app: String,
    /// Feed the records of each shard to a process of this shell command, which must read until its
    /// input ends.
    #[arg(long, value_name = "CMD")]
    exec: Option<String>,
    /// Run CMD anew for each batch; the batch is processed when CMD succeeds.
    #[arg(long, requires = "exec")]
    each_batch: bool,
    /// What becomes of a record for which CMD fails always [default: it is tried for ever].
    #[arg(long, value_name = "POLICY", requires = "each_batch", conflicts_with = "max_attempts")]
    on_poison: Option<Policy>,
    /// How often a batch may fail before it is halved, and a record alone [default: 5].
    #[arg(long, value_name = "N", requires = "on_poison",
          value_parser = clap::value_parser!(u32).range(1..))]
    attempts: Option<u32>,
    /// End when everything there is has been processed.
    #[arg(long)]
    until_idle: bool,
    /// Where a new application begins: horizon, latest, or @TIME as in `tail` [default: horizon].
    #[arg(short, long, value_name = "OFFSET", value_parser = parse_start)]
    offset: Option<StartingPosition>,
    /// The most records in a batch; a checkpoint is taken after each batch.
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// How many shards are worked on at the same time [default: all, at most 64].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Give up after so many failures in a row at the same records [default: 5 with --until-idle,
    /// else never].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: Option<u32>,
    /// How many seconds workers and commands have to finish at the end.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
    #[command(flatten)]
    format: FormatArgs,
}

/// What becomes of a record that cannot be processed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Policy {
    /// It is put aside, and its shard goes on.
    DeadLetter,
    /// Its shard is left alone, and the others go on.
    Park,
    /// The work ends.
    Stop,
}

fn parse_start(text: &str) -> Result<StartingPosition, String> {
    match text.parse()? {
        Offset::Horizon => Ok(StartingPosition::TrimHorizon),
        Offset::Latest => Ok(StartingPosition::Latest),
        Offset::TimestampMs(ms) => Ok(StartingPosition::AtTimestampMs(ms)),
        _ => Err("an application begins at horizon, latest or @TIME".to_owned()),
    }
}

/// Why the work ends.
enum End {
    Idle,
    Interrupted,
    GaveUp(Place, String),
    /// There is nothing to do any more but records that cannot be processed.
    Poison,
    OutputFailed,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let streams = args.dirs.iter().map(Stream::open_read_only);
    let streams = streams.collect::<millstream::Result<Vec<_>>>()?;
    let started = Instant::now();
    // On the terminal that the records are printed to, bars would be in the way.
    let is_crowded = args.exec.is_none() && io::stdout().is_terminal();
    let mut bars = if is_crowded { ShardBars::hidden() } else { ShardBars::default() };
    let gives_up = args.until_idle && args.on_poison.is_none();
    let most_attempts = args.max_attempts.or(gives_up.then_some(5)).unwrap_or(u32::MAX);
    let progress = Arc::new(Progress::new(bars.screen(), most_attempts));
    let mut read_failures = ReadFailures::new(&streams, Limit::records(args.batch as usize));
    let children = Children::new(args.exec.as_deref().unwrap_or_default(), &args.app);
    let interrupt = {
        let children = children.clone();
        Interrupt::listen(move || {
            children.kill_all();
        })?
    };
    let has_begun = |dir: &PathBuf| has_checkpoints(dir, &args.app);
    let is_new = args.offset.is_none() || !args.dirs.iter().any(has_begun);
    let pool = start(args, &streams, &children, &progress)?;
    if !is_new {
        let app = &args.app;
        output::note(&format!(
            "millstream: {app} goes on at its checkpoints; -o is for an application without any\n"
        ));
    }
    let end = watch(args, &pool, &interrupt, &mut bars, &progress, &mut read_failures);
    bars.clear();
    progress.end();
    let last = pool.status();
    let outcomes = pool.shutdown(Duration::from_secs(args.grace));
    let killed = children.kill_all();
    tell_dead_letters(args, &last);
    output::note(&progress.summary(started.elapsed(), args.format.json));
    verdict(args, end, (&progress, &read_failures), &last, &outcomes, killed)
}

/// Says where the records are that were put aside.
fn tell_dead_letters(args: &Args, last: &[ShardStatus]) {
    let put_aside: u64 = last.iter().map(|status| status.dead_letters).sum();
    let with_some = last.iter().find(|status| status.dead_letters > 0);
    if let Some(ShardStatus { stream, .. }) = with_some {
        let records = output::count(put_aside, "record");
        let list = format!("see `millstream dead-letters list {stream} --app {}`", args.app);
        output::note(&format!("millstream: {records} put aside; {list}\n"));
    }
}

/// Whether the application has been at work in this stream before.
fn has_checkpoints(stream: &Path, app: &str) -> bool {
    let rows = stream.join("applications").join(app).read_dir();
    rows.is_ok_and(|mut rows| {
        rows.any(|row| row.is_ok_and(|row| row.path().extension().is_some_and(|e| e == "row")))
    })
}

fn start(
    args: &Args,
    streams: &[Stream],
    children: &Children,
    progress: &Arc<Progress>,
) -> Result<WorkerPool> {
    let shards: usize = streams.iter().map(|stream| stream.shards().len()).sum();
    let threads = args.threads.map_or(shards.clamp(1, 64), usize::from);
    let builder = WorkerPool::builder(&args.app, &streams[0])
        .threads(threads)
        .starting_position(args.offset.unwrap_or(StartingPosition::TrimHorizon))
        .limit(Limit::records(args.batch as usize));
    let mut builder = streams[1..].iter().fold(builder, |builder, stream| builder.stream(stream));
    if let Some(policy) = args.on_poison {
        builder = builder.attempts(args.attempts.unwrap_or(5)).on_poison(match policy {
            Policy::DeadLetter => OnPoison::DeadLetter,
            Policy::Park => OnPoison::Park,
            Policy::Stop => OnPoison::Stop,
        });
    }
    let (format, progress, children) =
        (args.format.format(), Arc::clone(progress), children.clone());
    let has_several = streams.len() > 1;
    let place = move |stream: &Stream, shard: &ShardInfo| {
        let stream = has_several.then(|| stream.path().to_string_lossy().into());
        Place { stream, shard: shard.id }
    };
    // As commands are told it.
    let children = move |stream: &Stream| {
        let directory = stream.path().canonicalize();
        children.of(directory.as_deref().unwrap_or(stream.path()))
    };
    Ok(if args.each_batch {
        builder.start_by_stream(move |stream, shard| EachBatch {
            place: place(stream, shard),
            format: format.clone(),
            children: children(stream),
            progress: Arc::clone(&progress),
        })?
    } else if args.exec.is_some() {
        builder.checkpoints(CheckpointPolicy::Manual).start_by_stream(move |stream, shard| {
            let (place, children) = (place(stream, shard), children(stream));
            Feeding::new(place, format.clone(), children, Arc::clone(&progress))
        })?
    } else {
        let stdout = Arc::new(Mutex::new(output::stdout()?));
        builder.start_by_stream(move |stream, shard| Printing {
            place: place(stream, shard),
            stdout: Arc::clone(&stdout),
            format: format.clone(),
            progress: Arc::clone(&progress),
        })?
    })
}

/// Looks on until there is a reason to end.
fn watch(
    args: &Args,
    pool: &WorkerPool,
    interrupt: &Interrupt,
    bars: &mut ShardBars,
    progress: &Progress,
    read_failures: &mut ReadFailures,
) -> End {
    loop {
        let status = pool.status();
        bars.update(&status);
        if args.exec.is_none() && output::is_pipe_closed(io::stdout()) {
            progress.fail_output(io::ErrorKind::BrokenPipe);
        }
        if progress.output_failure().is_some() {
            return End::OutputFailed;
        }
        read_failures.look(&status, progress);
        if let Some((shard, error)) = progress.gave_up() {
            return End::GaveUp(shard, error);
        }
        if args.until_idle && pool.wait_until_idle(TICK) {
            return End::Idle;
        }
        if is_over(args, &pool.status()) {
            return End::Poison;
        }
        if interrupt.wait(if args.until_idle { Duration::ZERO } else { TICK }) {
            read_failures.look(&pool.status(), progress);
            return End::Interrupted;
        }
    }
}

/// Whether only records are left that cannot be processed, or the pool has stopped for one.
fn is_over(args: &Args, shards: &[ShardStatus]) -> bool {
    let is_at_rest = |status: &ShardStatus| match status.state {
        ShardState::Idle => status.lag.records == 0,
        state => matches!(state, ShardState::Parked | ShardState::Ended | ShardState::Elsewhere),
    };
    match args.on_poison {
        Some(Policy::Stop) => shards.iter().any(|status| status.poison.is_some()),
        Some(Policy::Park) if args.until_idle => {
            shards.iter().all(is_at_rest)
                && shards.iter().any(|status| status.state == ShardState::Parked)
        }
        _ => false,
    }
}

/// Success or failure, the gravest first.
fn verdict(
    args: &Args,
    end: End,
    (progress, read_failures): (&Progress, &ReadFailures),
    last: &[ShardStatus],
    outcomes: &[ShardOutcome],
    killed: usize,
) -> Result<()> {
    if let Some(kind) = progress.output_failure() {
        return Err(Failure::stdout(&kind.into()));
    }
    if let End::GaveUp(shard, error) = end {
        let attempts = output::count(progress.most_attempts().into(), "attempt");
        let so = format!("given up after {attempts}; started again, it goes on there");
        return Err(failure_of(&shard, &error, progress, read_failures, &so));
    }
    let is_unfinished = |shard: &&ShardOutcome| shard.outcome == Outcome::NotFinished;
    if let Some(ShardOutcome { stream, shard, .. }) = outcomes.iter().find(is_unfinished) {
        let grace = args.grace;
        let failure = Failure::error(format!("the worker did not finish within {grace} s"));
        let killed = output::count(killed as u64, "command");
        let place = read_failures.place(stream, *shard);
        return Err(failure.at(place).so(format!("{killed} had to be killed")));
    }
    for ShardOutcome { stream, shard, outcome, .. } in outcomes {
        if let Outcome::Failed { error, .. } = outcome {
            let is_same =
                |status: &&ShardStatus| status.stream == *stream && status.shard == *shard;
            let poison = last.iter().find(is_same).and_then(|status| status.poison);
            let so = match poison {
                Some(number) => {
                    format!("it fails at record {number}; started again, it goes on there")
                }
                None => "stopped before the next attempt; started again, it goes on there".into(),
            };
            let place = read_failures.place(stream, *shard);
            return Err(failure_of(&place, error, progress, read_failures, &so));
        }
    }
    if let Some((shard, error)) = progress.failure_at_end() {
        let failure = Failure::new(Exit::CommandFailed, error);
        return Err(failure.at(shard).so("started again, its last batch comes again"));
    }
    if args.until_idle && matches!(end, End::Interrupted) {
        return Err(Failure::new(Exit::Interrupted, "interrupted before everything was processed"));
    }
    Ok(())
}

/// The last failure of the shard, with the code that it deserves, and what follows from it.
fn failure_of(
    shard: &Place,
    error: &str,
    progress: &Progress,
    read_failures: &ReadFailures,
    so: &str,
) -> Failure {
    let failure = if progress.command_failure(shard).as_deref() == Some(error) {
        Failure::new(Exit::CommandFailed, error)
    } else {
        let last = read_failures.last(shard);
        last.map_or_else(|| Failure::error(error), |last| last.clone().into())
    };
    match failure.exit {
        Exit::Damaged => failure.at(shard).so("nothing behind it in this shard was processed"),
        _ => failure.at(shard).so(so),
    }
}
