//! `millstream reshard`: any number of shards; and what all verbs that reshape a stream share.

use std::path::{Path, PathBuf};

use millstream::{ShardInfo, Stream};
use serde_json::json;

use crate::failure::Result;
use crate::info::shard_as_json;
use crate::output;
use crate::ring;

/// Divides the hash keys evenly among COUNT shards, in one step.
///
/// Shards whose hash keys fit stay. Where a new shard takes over from more than two, others lead to
/// it that never have a record.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  millstream reshard data/orders 6

Nobody else may have the stream open for putting.")]
pub(crate) struct Args {
    /// The directory of the stream.
    dir: PathBuf,
    /// How many shards are to be open.
    count: u32,
    /// Write the shards that were closed and opened as a JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    reshape(&args.dir, args.json, |stream| stream.reshard_to(args.count).map(drop))
}

/// Changes the shards of a stream, and writes which were closed and opened.
pub(crate) fn reshape(
    dir: &Path,
    is_json: bool,
    change: impl FnOnce(&Stream) -> millstream::Result<()>,
) -> Result<()> {
    let stream = Stream::builder(dir).open_existing()?;
    let before = stream.shards();
    change(&stream)?;
    let after = stream.shards();
    stream.close()?;
    let was_open = |shard: &&ShardInfo| before.iter().any(|it| it.id == shard.id && it.is_open());
    let closed: Vec<_> = after.iter().filter(was_open).filter(|shard| !shard.is_open()).collect();
    let opened: Vec<_> = after.iter().filter(|shard| shard.is_open() && !was_open(shard)).collect();
    let dir = dir.display();
    if is_json {
        let as_json = |shards: &[&ShardInfo]| {
            shards.iter().map(|shard| shard_as_json(shard)).collect::<Vec<_>>()
        };
        return output::print_json(&json!({
            "path": dir.to_string(), "closed": as_json(&closed), "opened": as_json(&opened),
            "open_shards": after.iter().filter(|shard| shard.is_open()).count(),
        }));
    }
    if opened.is_empty() {
        return output::print(&format!("{dir}: nothing to change\n"));
    }
    output::print(&format!(
        "{dir}: closed {}, opened {}\n{}",
        indices(&closed),
        indices(&opened),
        ring::history(&after)
    ))
}

/// `1, 2 and 7`; of many, how many.
fn indices(shards: &[&ShardInfo]) -> String {
    let indices: Vec<String> = shards.iter().map(|shard| shard.id.index().to_string()).collect();
    match &indices[..] {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [first @ .., last] if shards.len() <= 16 => format!("{} and {last}", first.join(", ")),
        _ => output::count(shards.len() as u64, "shard"),
    }
}
