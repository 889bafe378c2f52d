//! `millstream split`: a shard becomes two.

use std::path::PathBuf;

use millstream::{HashKey, ShardId};

use crate::failure::Result;
use crate::reshard::reshape;

/// Splits an open shard in two: in the middle of its hash keys, unless said otherwise.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  millstream split data/orders 0
  millstream split data/orders 1 --at 170141183460469231731687303715884105728
  millstream split data/orders 2 --fraction 0.5    # half of the records, as keys have come so far

Nobody else may have the stream open for putting.")]
pub(crate) struct Args {
    /// The directory of the stream.
    dir: PathBuf,
    /// The shard, given as shardId-000000000007 or 7.
    shard: ShardId,
    /// The first hash key of the upper child, in decimal.
    #[arg(long, value_name = "KEY", conflicts_with = "fraction")]
    at: Option<HashKey>,
    /// Give the lower child this fraction of the records, as the newest 10,000 tell.
    #[arg(long, value_name = "F")]
    fraction: Option<f64>,
    /// Write the shards that were closed and opened as a JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let shard = args.shard;
    reshape(&args.dir, args.json, |stream| {
        match (args.at, args.fraction) {
            (Some(key), _) => stream.split_shard(shard, key),
            (None, Some(fraction)) => stream.split_at_fraction(shard, fraction),
            (None, None) => stream.split_mid(shard),
        }
        .map(drop)
    })
}
