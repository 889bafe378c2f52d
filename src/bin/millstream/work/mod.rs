//! `millstream work`: a pool of workers for the records of a stream.

mod processors;
mod progress;
mod read_failures;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::{
    CheckpointPolicy, Limit, OnPoison, Outcome, ShardId, StartingPosition, Stream, WorkerPool,
};

use crate::bars::ShardBars;
use crate::child::Children;
use crate::failure::{Exit, Failure, Result};
use crate::offset::Offset;
use crate::output;
use crate::record_format::FormatArgs;
use crate::signals::Interrupt;
use processors::{EachBatch, Feeding, Printing};
use progress::Progress;
use read_failures::ReadFailures;

/// How often the bars are drawn, and the reasons to end looked at.
const TICK: Duration = Duration::from_millis(50);

/// Processes the records of a stream with a worker for every shard.
///
/// The workers belong to an application, which remembers a checkpoint for each shard: started
/// again, it goes on where it was. Records come in order, those of a shard that was split or
/// merged before those of its children, and at least once: after a failure or a kill those since
/// the last checkpoint come again. Without --exec they are written to standard output, and
/// checkpointed when they are written.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream work data/orders --app audit -K' '
  millstream work data/orders --app archive --until-idle --exec 'cat >> out.$MILLSTREAM_SHARD'
  millstream work data/orders --app index --exec ./index --json
  millstream work data/orders --app load --exec ./load --each-batch --dead-letters-after 5

With --exec, CMD must read until its input ends. It is run by `sh -c` for each shard that has
records, with MILLSTREAM_SHARD, MILLSTREAM_APP and MILLSTREAM_STREAM in its environment. Records
come as lines on its standard input, which ends at the end of the shard and when the work ends; CMD
must succeed then, else the exit code is 5. That it ends before, with whatever status, is a failure:
what is not checkpointed goes to a new one, after a pause that grows. A batch is checkpointed when
CMD has read the next one too, or has succeeded at the end: let it act upon what it read before it
reads on.

With --each-batch too, CMD is run anew for each batch, which is processed when CMD succeeds. So it
can be found out which record it is that CMD fails for: with --dead-letters-after N, a batch that
has failed N times is halved, down to one record, and a record that has failed N times alone is put
aside; see `millstream dead-letters`.

An attempt that failed is told on standard error at once; the other shards are worked on. If one
could not be read because it is damaged, the exit code is 4 at the end.

Ctrl-C and SIGTERM end it: workers finish their batch, commands see the end of their input. The
second one ends it at once. Only the directory applications/NAME in the stream is written to.")]
pub(crate) struct Args {
    /// The directory of the stream.
    dir: PathBuf,
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
    /// Put a record aside for which CMD has failed so often alone, and go on with the next one.
    #[arg(long, value_name = "N", requires = "each_batch", conflicts_with = "max_attempts",
          value_parser = clap::value_parser!(u32).range(1..))]
    dead_letters_after: Option<u32>,
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
    GaveUp(ShardId, String),
    OutputFailed,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let stream = Stream::open_read_only(&args.dir)?;
    let started = Instant::now();
    // On the terminal that the records are printed to, bars would be in the way.
    let is_crowded = args.exec.is_none() && io::stdout().is_terminal();
    let mut bars = if is_crowded { ShardBars::hidden() } else { ShardBars::default() };
    let gives_up = args.until_idle && args.dead_letters_after.is_none();
    let most_attempts = args.max_attempts.or(gives_up.then_some(5)).unwrap_or(u32::MAX);
    let progress = Arc::new(Progress::new(bars.screen(), most_attempts));
    let mut read_failures = ReadFailures::new(&stream, Limit::records(args.batch as usize));
    let dir = args.dir.canonicalize().unwrap_or_else(|_| args.dir.clone());
    let children = Children::new(args.exec.as_deref().unwrap_or_default(), &args.app, &dir);
    let interrupt = {
        let children = children.clone();
        Interrupt::listen(move || {
            children.kill_all();
        })?
    };
    let is_new = args.offset.is_none() || !has_checkpoints(&args.dir, &args.app);
    let pool = start(args, &stream, &children, &progress)?;
    if !is_new {
        let app = &args.app;
        output::note(&format!(
            "millstream: {app} goes on at its checkpoints; -o is for an application without any\n"
        ));
    }
    let end = watch(args, &pool, &interrupt, &mut bars, &progress, &mut read_failures);
    bars.clear();
    progress.end();
    let put_aside: u64 = pool.status().iter().map(|status| status.dead_letters).sum();
    let outcomes = pool.shutdown(Duration::from_secs(args.grace));
    let killed = children.kill_all();
    if put_aside > 0 {
        let (records, dir, app) =
            (output::count(put_aside, "record"), args.dir.display(), &args.app);
        let list = format!("see `millstream dead-letters list {dir} --app {app}`");
        output::note(&format!("millstream: {records} put aside; {list}\n"));
    }
    output::note(&progress.summary(started.elapsed(), args.format.json));
    verdict(args, end, (&progress, &read_failures), &outcomes, killed)
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
    stream: &Stream,
    children: &Children,
    progress: &Arc<Progress>,
) -> Result<WorkerPool> {
    let threads = args.threads.map_or(stream.shards().len().clamp(1, 64), usize::from);
    let builder = WorkerPool::builder(&args.app, stream)
        .threads(threads)
        .starting_position(args.offset.unwrap_or(StartingPosition::TrimHorizon))
        .limit(Limit::records(args.batch as usize));
    let format = args.format.format();
    let progress = Arc::clone(progress);
    let builder = match args.dead_letters_after {
        Some(attempts) => builder.attempts(attempts).on_poison(OnPoison::DeadLetter),
        None => builder,
    };
    Ok(if args.each_batch {
        let processor = EachBatch::new(format, children.clone(), progress);
        builder.start(move |_| processor.clone())?
    } else if args.exec.is_some() {
        let children = children.clone();
        builder.checkpoints(CheckpointPolicy::Manual).start(move |shard| {
            Feeding::new(shard.id, format.clone(), children.clone(), Arc::clone(&progress))
        })?
    } else {
        let printing = Printing::new(output::stdout()?, format, progress);
        builder.start(move |_| printing.clone())?
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
        if interrupt.wait(if args.until_idle { Duration::ZERO } else { TICK }) {
            read_failures.look(&pool.status(), progress);
            return End::Interrupted;
        }
    }
}

/// Success or failure, the gravest first.
fn verdict(
    args: &Args,
    end: End,
    (progress, read_failures): (&Progress, &ReadFailures),
    outcomes: &[(ShardId, Outcome)],
    killed: usize,
) -> Result<()> {
    if let Some(kind) = progress.output_failure() {
        return Err(Failure::stdout(&kind.into()));
    }
    if let End::GaveUp(shard, error) = end {
        let attempts = output::count(progress.most_attempts().into(), "attempt");
        let so = format!("given up after {attempts}; started again, it goes on there");
        return Err(failure_of(shard, &error, progress, read_failures, &so));
    }
    if let Some((shard, _)) = outcomes.iter().find(|(_, outcome)| *outcome == Outcome::NotFinished)
    {
        let grace = args.grace;
        let failure = Failure::error(format!("the worker did not finish within {grace} s"));
        let killed = output::count(killed as u64, "command");
        return Err(failure.at(shard).so(format!("{killed} had to be killed")));
    }
    for (shard, outcome) in outcomes {
        if let Outcome::Failed { error, .. } = outcome {
            let so = "stopped before the next attempt; started again, it goes on there";
            return Err(failure_of(*shard, error, progress, read_failures, so));
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
    shard: ShardId,
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
