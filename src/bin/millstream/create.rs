//! `millstream create`: a new stream.

use std::path::PathBuf;

use millstream::Stream;
use serde_json::json;

use crate::failure::Result;
use crate::output;

/// Creates a stream in a directory that is missing or empty.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  millstream create data/orders --shards 4

A directory that has something in it is refused and left as it is.")]
pub(crate) struct Args {
    /// Where the stream is to be.
    dir: PathBuf,
    /// How many shards the hash keys are divided among, evenly.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    shards: u32,
    /// Say what was created as a JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let shards = Stream::builder(&args.dir).shards(args.shards).create()?.shards();
    let dir = args.dir.display();
    if args.json {
        let ids: Vec<String> = shards.iter().map(|shard| shard.id.to_string()).collect();
        output::print_json(&json!({ "path": dir.to_string(), "shards": ids }))
    } else {
        let shards = shards.len();
        let plural = if shards == 1 { "" } else { "s" };
        output::print(&format!("created {dir} with {shards} shard{plural}\n"))
    }
}
