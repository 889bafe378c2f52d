//! `millstream checkpoint`: how far an application is, and setting it back or forward.

use clap::Subcommand;
use millstream::{Application, Checkpoint, SequenceNumber, ShardId, StartingPosition, Stream};
use serde_json::json;

use crate::apps::{Place, existing};
use crate::failure::{Exit, Failure, Result};
use crate::offset::Offset;
use crate::output;

/// Shows or moves the checkpoints of an application.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream checkpoint show data/orders --app load
  millstream checkpoint seek data/orders horizon --app load --reason 'prices were wrong'
  millstream checkpoint seek data/orders @2026-11-24T09:00:00Z --app load --reason rewind
  millstream checkpoint seek data/orders 4096 --app load --shard 2 --reason 'skip a bad batch'
  millstream checkpoint set data/orders 4096 --app load --shard 2 --reason 'loaded by hand'
  millstream checkpoint reset data/orders --app load --reason 'the table was dropped'
  millstream checkpoint retry data/orders --app load --shard 2

All of them can run beside the application's workers.")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// A line for each shard: its checkpoint, and how many records are behind it.
    #[command(after_help = "\
Example:
  millstream checkpoint show data/orders --app load")]
    Show(Place),
    /// Has all shards, or one, processed from POSITION on: horizon, latest, @TIME, and with --shard
    /// NUMBER too.
    ///
    /// Workers that run go on there; the batches that they are at are not checkpointed. The shards
    /// that came from one that is set back wait until it is at its end again. The reason is kept in
    /// the file SEEKS of the application.
    #[command(after_help = "\
Example:
  millstream checkpoint seek data/orders horizon --app load --reason 'prices were wrong'")]
    Seek(Seek),
    /// Has a shard count as processed up to and with the record NUMBER, and no further.
    ///
    /// As `seek`, to the place behind a record.
    #[command(after_help = "\
Example:
  millstream checkpoint set data/orders 4096 --app load --shard 2 --reason 'loaded by hand'")]
    Set(Set),
    /// Has everything that the stream has processed again, or one shard: `seek` to the horizon.
    #[command(after_help = "\
Example:
  millstream checkpoint reset data/orders --app load --reason 'the table was dropped'")]
    Reset(Reset),
    /// Has a shard tried again that is parked, because a record of it cannot be processed.
    ///
    /// The workers that have it begin anew at its checkpoint. To leave the record out, `seek`
    /// behind it instead.
    #[command(after_help = "\
Example:
  millstream checkpoint retry data/orders --app load --shard 2")]
    Retry(Retry),
}

#[derive(clap::Args)]
struct Seek {
    #[command(flatten)]
    place: Place,
    /// Where to go on.
    #[arg(value_name = "POSITION", value_parser = parse_position)]
    position: StartingPosition,
    /// Only in this shard: its id, or its index.
    #[arg(long, value_name = "SHARD", value_parser = parse_shard)]
    shard: Option<ShardId>,
    /// Why; kept with the application.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(clap::Args)]
struct Set {
    #[command(flatten)]
    place: Place,
    /// The last record that counts as processed.
    #[arg(value_name = "NUMBER")]
    number: SequenceNumber,
    /// The shard: its id, or its index.
    #[arg(long, value_name = "SHARD", value_parser = parse_shard)]
    shard: ShardId,
    /// Why; kept with the application.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(clap::Args)]
struct Reset {
    #[command(flatten)]
    place: Place,
    /// Only this shard: its id, or its index.
    #[arg(long, value_name = "SHARD", value_parser = parse_shard)]
    shard: Option<ShardId>,
    /// Why; kept with the application.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(clap::Args)]
struct Retry {
    #[command(flatten)]
    place: Place,
    /// The shard: its id, or its index.
    #[arg(long, value_name = "SHARD", value_parser = parse_shard)]
    shard: ShardId,
}

fn parse_position(text: &str) -> Result<StartingPosition, String> {
    match text.parse()? {
        Offset::Horizon => Ok(StartingPosition::TrimHorizon),
        Offset::Latest => Ok(StartingPosition::Latest),
        Offset::TimestampMs(ms) => Ok(StartingPosition::AtTimestampMs(ms)),
        Offset::Number(number) => Ok(StartingPosition::AtSequenceNumber(number)),
        Offset::FromEnd(_) => Err("one of horizon, latest, NUMBER and @TIME is expected".into()),
    }
}

fn parse_shard(text: &str) -> Result<ShardId, String> {
    match text.parse() {
        Ok(index) => Ok(ShardId::new(index)),
        Err(_) => text.parse().map_err(|error: millstream::Error| error.to_string()),
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.verb {
        Verb::Show(place) => show(place, &open(place)?),
        Verb::Seek(seek) => {
            let application = open(&seek.place)?;
            match (seek.shard, seek.position) {
                (Some(shard), position) => {
                    application.seek_shard(shard, position, &seek.reason)?;
                }
                (None, StartingPosition::AtSequenceNumber(_)) => {
                    let what = "a number belongs to one shard: say which with --shard";
                    return Err(Failure::new(Exit::Usage, what));
                }
                (None, position) => application.seek(position, &seek.reason)?,
            }
            show(&seek.place, &application)
        }
        Verb::Set(set) => {
            let application = open(&set.place)?;
            let position = StartingPosition::AfterSequenceNumber(set.number);
            application.seek_shard(set.shard, position, &set.reason)?;
            show(&set.place, &application)
        }
        Verb::Reset(reset) => {
            let application = open(&reset.place)?;
            let horizon = StartingPosition::TrimHorizon;
            match reset.shard {
                Some(shard) => application.seek_shard(shard, horizon, &reset.reason)?,
                None => application.seek(horizon, &reset.reason)?,
            }
            show(&reset.place, &application)
        }
        Verb::Retry(retry) => {
            let application = open(&retry.place)?;
            application.retry_shard(retry.shard)?;
            show(&retry.place, &application)
        }
    }
}

fn open(place: &Place) -> Result<Application> {
    existing(&place.dir, &Stream::open_read_only(&place.dir)?, &place.app)
}

fn ids(shards: &[ShardId]) -> Vec<String> {
    shards.iter().map(ShardId::to_string).collect()
}

fn show(place: &Place, application: &Application) -> Result<()> {
    let mut text = String::new();
    for shard in application.shards()? {
        let (id, checkpoint, lag) = (shard.shard, shard.checkpoint, shard.lag.records);
        text += &if place.json {
            let number = match checkpoint {
                Checkpoint::AtSequenceNumber(number) | Checkpoint::AfterSequenceNumber(number) => {
                    Some(number.to_string())
                }
                _ => None,
            };
            let kind = match checkpoint {
                Checkpoint::TrimHorizon => "TRIM_HORIZON",
                Checkpoint::AtSequenceNumber(_) => "AT_SEQUENCE_NUMBER",
                Checkpoint::AfterSequenceNumber(_) => "AFTER_SEQUENCE_NUMBER",
                _ => "SHARD_END",
            };
            let value = json!({
                "shard": id.to_string(), "checkpoint": kind, "sequence_number": number,
                "lag_records": lag, "is_owned": shard.is_owned, "owners": shard.owners,
                "parents": ids(&shard.parents), "children": ids(&shard.children),
                "starting_hash_key": shard.hash_key_range.start.to_string(),
                "ending_hash_key": shard.hash_key_range.end.to_string(),
            });
            format!("{value}\n")
        } else {
            format!("{id}: {checkpoint}, {} behind\n", output::count(lag, "record"))
        };
    }
    output::print(&text)
}
