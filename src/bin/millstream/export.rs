//! `millstream export`: records become JSON lines that `millstream import` reads.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use millstream::Stream;
use serde_json::{Map, json};

use crate::failure::{Failure, Result};
use crate::output;
use crate::record_format::data_as_json;

/// Writes all records as JSON objects, one a line, for `import` and for other programs.
///
/// A line has shard, sequence_number, arrival_ms, partition_key (if there is one), data, or
/// data_base64 if it is not UTF-8, and explicit_hash_key where the partition key alone would lead
/// to another shard: the first one of the shard's, since a stream does not keep the one it was put
/// with. Records of a shard are in order, parents come before children, and shards beside each
/// other are mixed by arrival.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  millstream export data/orders > orders.jsonl
  millstream export data/orders | millstream import data/copy

It needs no lock. It ends at the records that were the newest ones when it began.")]
pub(crate) struct Args {
    /// The directory of the stream.
    dir: PathBuf,
    /// Accepted for the sake of uniformity: it is JSON anyway.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let _always = args.json;
    let stream = Stream::open_read_only(&args.dir)?;
    let mut out = BufWriter::with_capacity(256 << 10, output::stdout()?);
    let done = copy(&stream, &mut out);
    // What was read before an error is written all the same.
    let flushed = out.flush().map_err(|e| Failure::stdout(&e));
    let _ = out.into_parts(); // not flushed a second time
    done.and(flushed)
}

fn copy(stream: &Stream, out: &mut impl Write) -> Result<()> {
    let (hash, shards) = (stream.hash_algorithm(), stream.shards());
    for scanned in stream.scan(..)? {
        let scanned = scanned?;
        let record = scanned.record();
        let mut line = Map::new();
        line.insert("shard".into(), json!(scanned.shard().to_string()));
        line.insert("sequence_number".into(), json!(record.sequence_number().to_string()));
        line.insert("arrival_ms".into(), json!(record.arrival_ms()));
        let key = record.partition_key();
        if !key.is_empty() {
            line.insert("partition_key".into(), json!(key));
            let shard = shards.iter().find(|shard| shard.id == scanned.shard());
            let range = shard.map(|shard| shard.hash_key_range);
            if let Some(range) = range.filter(|range| !range.contains(hash.hash(key))) {
                line.insert("explicit_hash_key".into(), json!(range.start.to_string()));
            }
        }
        let (name, data) = data_as_json(record.data());
        line.insert(name.into(), json!(data));
        serde_json::to_writer(&mut *out, &line).map_err(|e| Failure::stdout(&e.into()))?;
        out.write_all(b"\n").map_err(|e| Failure::stdout(&e))?;
    }
    Ok(())
}
