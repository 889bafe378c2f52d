//! `millstream info`: what is in a stream.

use std::fmt::Write;
use std::path::PathBuf;

use indicatif::{HumanBytes, HumanCount};
use millstream::{HashKeyRange, SequenceNumber, ShardDescription, Stream};
use serde_json::{Value, json};

use crate::failure::Result;
use crate::output;

/// Shows the shards of a stream: hash keys, lineage, records, bytes, first and last number.
///
/// KEYS are the first digits of the hash keys that a shard has, in hexadecimal; RING is how much
/// of the ring that is. PARENTS are the shards that it came from by a split or a merge. BYTES are
/// what the records take in the log, with their headers.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  millstream info data/orders
  millstream info data/orders --json | jq '.shards[] | select(.state == \"open\") | .id'

It needs no lock: it reads beside the process that writes.")]
pub(crate) struct Args {
    /// The directory of the stream.
    dir: PathBuf,
    /// Write it all as a JSON object; hash keys and sequence numbers are strings.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let stream = Stream::open_read_only(&args.dir)?;
    let shards = stream
        .shards()
        .iter()
        .map(|shard| stream.describe_shard(shard.id))
        .collect::<millstream::Result<Vec<_>>>()?;
    let dir = args.dir.display().to_string();
    if args.json { output::print_json(&as_json(&dir, &shards)) } else { print(&dir, &shards) }
}

fn totals(shards: &[ShardDescription]) -> (usize, u64, u64) {
    let open = shards.iter().filter(|shard| shard.info.is_open()).count();
    let records = shards.iter().map(|shard| shard.records).sum();
    (open, records, shards.iter().map(|shard| shard.bytes).sum())
}

fn print(dir: &str, shards: &[ShardDescription]) -> Result<()> {
    let (open, records, bytes) = totals(shards);
    let mut text = format!(
        "{dir}: {}, {}, in {} ({open} open)\n\n",
        output::count(records, "record"),
        HumanBytes(bytes),
        output::count(shards.len() as u64, "shard"),
    );
    let digits = key_digits(shards);
    let head = ["SHARD", "STATE", "KEYS", "RING", "PARENTS", "RECORDS", "BYTES", "FIRST", "LAST"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(shards.iter().map(|shard| row(shard, digits)));
    let widths: [usize; 9] =
        std::array::from_fn(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0));
    for row in &rows {
        let mut line = String::new();
        for (i, (cell, width)) in row.iter().zip(widths).enumerate() {
            let gap = if i == 0 { "" } else { "  " };
            // Words to the left, numbers to the right.
            let _ = match i {
                0..=2 | 4 => write!(line, "{gap}{cell:<width$}"),
                _ => write!(line, "{gap}{cell:>width$}"),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    output::print(&text)
}

fn row(shard: &ShardDescription, digits: usize) -> [String; 9] {
    let parents: Vec<String> =
        shard.info.parents().map(|parent| parent.index().to_string()).collect();
    [
        shard.info.id.to_string(),
        state(shard).to_owned(),
        keys(shard.info.hash_key_range, digits),
        format!("{:.1}%", share_of_ring(shard.info.hash_key_range) * 100.0),
        if parents.is_empty() { "-".to_owned() } else { parents.join("+") },
        HumanCount(shard.records).to_string(),
        HumanBytes(shard.bytes).to_string(),
        number_or_dash(shard.first_sequence_number),
        number_or_dash(shard.last_sequence_number),
    ]
}

fn state(shard: &ShardDescription) -> &'static str {
    if shard.info.is_open() { "open" } else { "closed" }
}

/// How many digits of 32 tell all the ranges apart.
fn key_digits(shards: &[ShardDescription]) -> usize {
    let width = |range: HashKeyRange| range.end.get() - range.start.get();
    let narrowest = shards.iter().map(|shard| width(shard.info.hash_key_range)).min();
    let zeros = narrowest.unwrap_or(u128::MAX).leading_zeros() as usize;
    (zeros / 4 + 2).clamp(4, 32)
}

fn keys(range: HashKeyRange, digits: usize) -> String {
    let first_digits = |key: u128| format!("{key:032x}")[..digits].to_owned();
    format!("{}..{}", first_digits(range.start.get()), first_digits(range.end.get()))
}

fn share_of_ring(range: HashKeyRange) -> f64 {
    (range.end.get() - range.start.get()) as f64 / u128::MAX as f64
}

fn number_or_dash(number: Option<SequenceNumber>) -> String {
    number.map_or("-".to_owned(), |number| number.to_string())
}

fn as_json(dir: &str, shards: &[ShardDescription]) -> Value {
    let (open, records, bytes) = totals(shards);
    let shards: Vec<Value> = shards.iter().map(shard_as_json).collect();
    json!({
        "path": dir, "records": records, "bytes": bytes, "open_shards": open, "shards": shards,
    })
}

fn shard_as_json(shard: &ShardDescription) -> Value {
    let text = |number: Option<SequenceNumber>| number.map(|number| number.to_string());
    let info = &shard.info;
    json!({
        "id": info.id.to_string(),
        "state": state(shard),
        "starting_hash_key": info.hash_key_range.start.to_string(),
        "ending_hash_key": info.hash_key_range.end.to_string(),
        "share_of_ring": share_of_ring(info.hash_key_range),
        "parent": info.parent.map(|shard| shard.to_string()),
        "adjacent_parent": info.adjacent_parent.map(|shard| shard.to_string()),
        "starting_sequence_number": info.starting_sequence_number.to_string(),
        "ending_sequence_number": text(info.ending_sequence_number),
        "records": shard.records,
        "bytes": shard.bytes,
        "first_sequence_number": text(shard.first_sequence_number),
        "last_sequence_number": text(shard.last_sequence_number),
    })
}
