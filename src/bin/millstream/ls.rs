//! `millstream ls`: the streams in a directory.

use std::path::{Path, PathBuf};

use indicatif::{HumanBytes, HumanCount};
use millstream::{Stream, StreamDescription};
use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::output;

/// Lists the streams in a directory.
///
/// SHARDS are the open ones. BYTES are what the records take in the logs, with their headers.
/// NEWEST is when the newest record arrived, in UTC.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  millstream ls data
  millstream ls data --json | jq -r '.streams[].path'

It needs no lock. A stream that cannot be read is named on standard error, and ends it with the code
for that.")]
pub(crate) struct Args {
    /// The directory that the streams are in.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Write it all as a JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut failed = None;
    let mut streams = Vec::new();
    for path in Stream::list(&args.dir)? {
        match Stream::open_read_only(&path).and_then(|stream| stream.describe()) {
            Ok(description) => streams.push((path, description)),
            Err(error) => {
                // The last one is told at the end.
                if let Some(before) = failed.replace(Failure::from(error).at(path.display())) {
                    output::note(&format!("millstream: {before}\n"));
                }
            }
        }
    }
    if args.json {
        let streams = streams.iter().map(|(path, it)| as_json(path, it)).collect::<Vec<_>>();
        output::print_json(&json!({ "path": args.dir.display().to_string(), "streams": streams }))?;
    } else {
        output::print(&table(&streams))?;
    }
    failed.map_or(Ok(()), Err)
}

fn newest_ms(stream: &StreamDescription) -> Option<u64> {
    stream.shards.iter().filter_map(|shard| shard.last_arrival_ms).max()
}

fn table(streams: &[(PathBuf, StreamDescription)]) -> String {
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let width = streams.iter().map(|(path, _)| name(path).chars().count()).max().unwrap_or(0);
    let width = width.max("STREAM".len());
    let mut text = format!(
        "{:<width$}  {:>6}  {:>13}  {:>10}  {:>16}\n",
        "STREAM", "SHARDS", "RECORDS", "BYTES", "NEWEST"
    );
    for (path, stream) in streams {
        text += &format!(
            "{:<width$}  {:>6}  {:>13}  {:>10}  {:>16}\n",
            name(path),
            stream.open_shards,
            HumanCount(stream.records).to_string(),
            HumanBytes(stream.bytes).to_string(),
            newest_ms(stream).map_or("-".to_owned(), output::time),
        );
    }
    text
}

fn as_json(path: &Path, stream: &StreamDescription) -> Value {
    json!({
        "path": path.display().to_string(),
        "shards": stream.shards.len(),
        "open_shards": stream.open_shards,
        "records": stream.records,
        "bytes": stream.bytes,
        "created_ms": stream.created_ms,
        "newest_arrival_ms": newest_ms(stream),
        "tags": stream.tags,
    })
}
