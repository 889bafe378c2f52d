//! `millstream lag`: how far applications are behind, shard by shard.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use millstream::{Application, Checkpoint, Lag, ShardId, Stream};
use serde_json::{Value, json};

use crate::apps::{existing, parse_name};
use crate::failure::{Exit, Failure, Result};
use crate::output;
use crate::quantity;
use crate::screen::{self, Screen, age, cut, rate, short};
use crate::signals::Interrupt;
use crate::style::{BOLD, DIM};

const BAR_COLUMNS: usize = 20;

/// Tells how far applications are behind, with a bar for each shard.
///
/// The bar is full when everything that the shard stores is processed; -- is a shard that no pool
/// has at the moment. RATE is how many records were processed in a second since the last look.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream lag data/orders
  millstream lag data/orders --app load --watch
  millstream lag data/orders --json | jq -r 'select(.lag_ms > 60000) | .shard'

It needs no lock: it reads beside the workers and the process that writes. With --watch it goes on
until Ctrl-C: on a terminal in the same place, elsewhere look by look.")]
pub(crate) struct Args {
    /// The directory of the stream.
    dir: PathBuf,
    /// Only this application.
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    app: Option<String>,
    /// Look again and again.
    #[arg(long)]
    watch: bool,
    /// How long a look waits for the next, as in 250ms or 2s.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = quantity::parse_interval)]
    interval: Duration,
    /// End after so many looks.
    #[arg(short = 'n', long, value_name = "COUNT", requires = "watch")]
    count: Option<u64>,
    /// Write a JSON object for each shard.
    #[arg(long)]
    json: bool,
}

/// How an application is in a shard at a look.
struct ShardLook {
    app: String,
    shard: ShardId,
    lag: Lag,
    /// What the shard stores.
    records: u64,
    /// Records that were ever put to it, also if they were trimmed since.
    ever_put: u64,
    is_ended: bool,
    is_owned: bool,
    /// None at the first look.
    records_per_s: Option<f64>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let stream = Stream::open_read_only(&args.dir)?;
    let looks = args.count.unwrap_or(if args.watch { u64::MAX } else { 1 });
    let interrupt = Interrupt::listen(screen::leave)?;
    let screen = Screen::enter(args.watch && !args.json)?;
    let mut last: Option<(Instant, Vec<ShardLook>)> = None;
    for look in 0..looks {
        if look > 0 && interrupt.wait(args.interval) {
            return match args.count {
                Some(_) => Err(Failure::new(Exit::Interrupted, "interrupted")),
                None => Ok(()),
            };
        }
        let now = Instant::now();
        let mut shards = look_at(args, &stream)?;
        if let Some((then, before)) = &last {
            compare(&mut shards, before, now - *then);
        }
        if args.json {
            let text: String = shards.iter().map(|shard| format!("{}\n", as_json(shard))).collect();
            output::print(&text)?;
        } else {
            let title = format!("{} - {} behind", args.dir.display(), total(&shards));
            let head = "SHARD                 PROCESSED                BEHIND  RECORDS    RATE";
            let head = vec![screen.style.paint(BOLD, &title), screen.style.paint(DIM, head)];
            screen.draw(head, lines(&shards))?;
        }
        last = Some((now, shards));
    }
    Ok(())
}

fn look_at(args: &Args, stream: &Stream) -> Result<Vec<ShardLook>> {
    let apps = match &args.app {
        Some(app) => vec![(app.clone(), existing(&args.dir, stream, app)?)],
        None => {
            let names = Application::list(stream)?.into_iter();
            let open = |app: String| Ok((app.clone(), Application::of(&app, stream)?));
            names.map(open).collect::<Result<Vec<_>>>()?
        }
    };
    let described = stream.describe()?.shards.into_iter();
    let described: BTreeMap<_, _> = described.map(|shard| (shard.info.id, shard)).collect();
    let mut looks = Vec::new();
    for (app, application) in apps {
        for shard in application.shards()? {
            let stored = described.get(&shard.shard);
            let records = stored.map_or(0, |stored| stored.records);
            looks.push(ShardLook {
                app: app.clone(),
                shard: shard.shard,
                lag: shard.lag,
                records,
                ever_put: records + stored.map_or(0, |stored| stored.trimmed_records),
                is_ended: shard.checkpoint == Checkpoint::ShardEnd,
                is_owned: shard.is_owned,
                records_per_s: None,
            });
        }
    }
    Ok(looks)
}

/// What was processed since another look.
fn compare(shards: &mut [ShardLook], before: &[ShardLook], since: Duration) {
    let processed = |look: &ShardLook| look.ever_put.saturating_sub(look.lag.records);
    for look in shards {
        let is_same = |last: &&ShardLook| (&last.app, last.shard) == (&look.app, look.shard);
        let more = before.iter().find(is_same).map(|last| {
            // After a rewind it is less.
            processed(look).saturating_sub(processed(last))
        });
        look.records_per_s = more.map(|more| more as f64 / since.as_secs_f64());
    }
}

fn total(shards: &[ShardLook]) -> String {
    output::count(shards.iter().map(|shard| shard.lag.records).sum(), "record")
}

/// Applications, and below each a line for each of its shards.
fn lines(shards: &[ShardLook]) -> Vec<String> {
    if shards.is_empty() {
        return vec!["no application has been at work here".to_owned()];
    }
    let mut lines = Vec::new();
    for of_app in shards.chunk_by(|one, other| one.app == other.app) {
        lines.push(format!("{}: {} behind", cut(&of_app[0].app, 36).trim_end(), total(of_app)));
        lines.extend(of_app.iter().map(line));
    }
    lines
}

fn line(look: &ShardLook) -> String {
    let processed = look.records.saturating_sub(look.lag.records);
    // Not full while anything is left, not empty when something is done.
    let full = match (processed, look.lag.records) {
        (_, 0) => BAR_COLUMNS,
        (0, _) => 0,
        _ => {
            let share = processed as f64 / look.records as f64 * BAR_COLUMNS as f64;
            (share as usize).clamp(1, BAR_COLUMNS - 1)
        }
    };
    let bar: String = "#".repeat(full) + &".".repeat(BAR_COLUMNS - full);
    let behind = match (look.is_ended, look.lag.records) {
        (true, _) => "ended".to_owned(),
        (false, 0) => "-".to_owned(),
        _ => age(look.lag.millis),
    };
    let mark = if look.is_owned || look.is_ended { "  " } else { "--" };
    let records = short(look.lag.records as f64);
    let rate = look.records_per_s.map(rate).unwrap_or_default();
    format!("{} [{bar}] {mark} {behind:>6} {records:>8} {rate:>9}", look.shard)
}

fn as_json(look: &ShardLook) -> Value {
    json!({
        "app": look.app, "shard": look.shard.to_string(), "records": look.records,
        "lag_records": look.lag.records, "lag_bytes": look.lag.bytes, "lag_ms": look.lag.millis,
        "is_ended": look.is_ended, "is_owned": look.is_owned, "records_per_s": look.records_per_s,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(records: u64, lag: u64) -> ShardLook {
        ShardLook {
            app: "a".repeat(128),
            shard: ShardId::new(7),
            lag: Lag { records: lag, bytes: 0, millis: 59_999 },
            records,
            ever_put: records,
            is_ended: false,
            is_owned: false,
            records_per_s: Some(99_999_999.0),
        }
    }

    #[test]
    fn every_line_fits_a_terminal_whatever_is_in_it() {
        for line in lines(&[look(999_999_999_999, 99_999_999_999), look(0, 0)]) {
            assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        }
    }

    #[test]
    fn a_bar_is_full_when_nothing_is_left_and_empty_when_nothing_is_done() {
        let full = |records, lag| line(&look(records, lag)).matches('#').count();
        for (records, lag, expected) in
            [(0, 0, 20), (9, 0, 20), (9, 9, 0), (1_000_000, 1, 19), (1_000_000, 999_999, 1)]
        {
            assert_eq!(full(records, lag), expected, "{lag} of {records}");
        }
        assert_eq!(full(100, 50), 10);
    }

    #[test]
    fn the_rate_is_what_was_processed_also_if_more_was_put() {
        let mut now = [look(30, 10)];
        compare(&mut now, &[look(20, 15)], Duration::from_secs(3));
        assert_eq!(now[0].records_per_s, Some(5.0));
        compare(&mut now, &[look(30, 0)], Duration::from_secs(3));
        assert_eq!(now[0].records_per_s, Some(0.0), "after a rewind");
    }
}
