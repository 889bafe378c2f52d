//! `millstream trim`: takes the oldest records of a shard away.

use std::path::PathBuf;

use millstream::{SequenceNumber, ShardId, Stream};
use serde_json::json;

use crate::failure::{Exit, Failure, Result};
use crate::output;

/// Trims the oldest records of a shard, whether they were processed or not.
///
/// They are gone for good. Readers that were about to read them are told of the gap.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream trim data/orders --shard 2 --up-to 1048576
  millstream trim data/orders --shard 2 --all

It needs the stream for itself: nobody may have it open for putting. `millstream info` has the
numbers, `millstream retention` trims by itself.")]
pub(crate) struct Args {
    /// The directory of the stream.
    dir: PathBuf,
    /// The shard, given as shardId-000000000007 or 7; needed unless there is only one.
    #[arg(long, value_name = "SHARD")]
    shard: Option<ShardId>,
    /// The number of the last record that goes.
    #[arg(long, value_name = "NUMBER", required_unless_present = "all", conflicts_with = "all")]
    up_to: Option<SequenceNumber>,
    /// Trim all records that the shard has.
    #[arg(long)]
    all: bool,
    /// Write what was done as a JSON object; sequence numbers are strings.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let stream = Stream::builder(&args.dir).open_existing()?;
    let shard = match (args.shard, &stream.shards()[..]) {
        (Some(shard), _) => shard,
        (None, [only]) => only.id,
        _ => {
            let what = "a sequence number is a place in one shard; say which, with --shard";
            return Err(Failure::new(Exit::Usage, what));
        }
    };
    let before = stream.describe_shard(shard)?;
    // If there is no record, there is nothing to do.
    if let Some(up_to) = args.up_to.or(before.last_sequence_number) {
        stream.trim(shard, up_to)?;
    }
    let after = stream.describe_shard(shard)?;
    stream.close()?;
    let trimmed = after.trimmed_records - before.trimmed_records;
    if args.json {
        return output::print_json(&json!({
            "path": args.dir.display().to_string(), "shard": shard.to_string(),
            "records": trimmed, "horizon": after.horizon.to_string(),
        }));
    }
    let trimmed = output::count(trimmed, "record");
    output::print(&format!("trimmed {trimmed} of {shard}; it begins at {} now\n", after.horizon))
}
