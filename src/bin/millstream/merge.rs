//! `millstream merge`: two shards become one.

use std::path::PathBuf;

use millstream::ShardId;

use crate::failure::Result;
use crate::reshard::reshape;

/// Merges two open shards that have adjacent hash keys, given in either order.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  millstream merge data/orders 1 2

Nobody else may have the stream open for putting.")]
pub(crate) struct Args {
    /// The directory of the stream.
    dir: PathBuf,
    /// A shard, given as shardId-000000000007 or 7.
    shard: ShardId,
    /// The one before it or behind it on the ring.
    adjacent: ShardId,
    /// Write the shards that were closed and opened as a JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    reshape(&args.dir, args.json, |stream| stream.merge_shards(args.shard, args.adjacent).map(drop))
}
