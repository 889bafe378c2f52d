//! `millstream info`: what is in a stream.

use std::fmt::Write;
use std::path::PathBuf;

use indicatif::{HumanBytes, HumanCount};
use millstream::{
    HashKeyRange, SequenceNumber, ShardDescription, ShardInfo, Stream, StreamDescription,
};
use serde_json::{Value, json};

use crate::failure::Result;
use crate::output;
use crate::retention;
use crate::ring;

/// Shows what a stream is, its shards, and how they came to be.
///
/// KEYS are the first digits of the hash keys that a shard has, in hexadecimal; RING is how much
/// of the ring that is. PARENTS are the shards that it came from. BYTES are what the records take
/// in the log, with their headers. Then the ring is drawn, from the hash key 0 to the last one, as
/// it was after each reshard: the shards below a shard are its children. Shards without a number
/// are too narrow for it.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  millstream info data/orders
  millstream info data/orders --json | jq '.shards[] | select(.state == \"open\") | .id'

It needs no lock: it reads beside the process that writes. --json has more: numbers, times, tags.")]
pub(crate) struct Args {
    /// The directory of the stream.
    dir: PathBuf,
    /// Write it all as a JSON object; hash keys and sequence numbers are strings.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let stream = Stream::open_read_only(&args.dir)?;
    let description = stream.describe()?;
    let dir = args.dir.display().to_string();
    if args.json {
        return output::print_json(&as_json(&dir, &description));
    }
    let shards: Vec<_> = description.shards.iter().map(|shard| shard.info.clone()).collect();
    let text = summary(&dir, &description) + &table(&description.shards) + &ring::history(&shards);
    output::print(&text)
}

fn summary(dir: &str, stream: &StreamDescription) -> String {
    let mut text = format!(
        "{dir}: {}, {}, in {} ({} open)\n",
        output::count(stream.records, "record"),
        HumanBytes(stream.bytes),
        output::count(stream.shards.len() as u64, "shard"),
        stream.open_shards,
    );
    if !stream.retention.is_unlimited() {
        let _ = writeln!(text, "{}", retention::as_text(&stream.retention));
    }
    let trimmed: u64 = stream.shards.iter().map(|shard| shard.trimmed_records).sum();
    if trimmed > 0 {
        let _ = writeln!(text, "{} trimmed", output::count(trimmed, "record"));
    }
    for (key, value) in &stream.tags {
        let _ = writeln!(text, "{key}: {value}");
    }
    text.push('\n');
    text
}

fn table(shards: &[ShardDescription]) -> String {
    let digits = key_digits(shards);
    let head = ["SHARD", "STATE", "KEYS", "RING", "PARENTS", "RECORDS", "BYTES"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(shards.iter().map(|shard| row(shard, digits)));
    let widths: [usize; 7] =
        std::array::from_fn(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0));
    let mut text = String::new();
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
    text
}

fn row(shard: &ShardDescription, digits: usize) -> [String; 7] {
    let parents: Vec<String> =
        shard.info.parents().map(|parent| parent.index().to_string()).collect();
    [
        shard.info.id.to_string(),
        if shard.is_expired { "expired" } else { state(&shard.info) }.to_owned(),
        keys(shard.info.hash_key_range, digits),
        format!("{:.1}%", share_of_ring(shard.info.hash_key_range) * 100.0),
        if parents.is_empty() { "-".to_owned() } else { parents.join("+") },
        HumanCount(shard.records).to_string(),
        HumanBytes(shard.bytes).to_string(),
    ]
}

fn state(shard: &ShardInfo) -> &'static str {
    if shard.is_open() { "open" } else { "closed" }
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

fn as_json(dir: &str, stream: &StreamDescription) -> Value {
    let shards: Vec<Value> = stream.shards.iter().map(description_as_json).collect();
    json!({
        "path": dir, "records": stream.records, "bytes": stream.bytes,
        "open_shards": stream.open_shards, "shards": shards,
        "created_ms": stream.created_ms, "hash_algorithm": stream.hash_algorithm.name(),
        "max_record_bytes": stream.max_record_bytes,
        "max_segment_bytes": stream.max_segment_bytes,
        "max_open_shards": stream.max_open_shards, "tags": stream.tags,
        "retention": retention::as_json(&stream.retention),
    })
}

fn description_as_json(shard: &ShardDescription) -> Value {
    let mut value = shard_as_json(&shard.info);
    if shard.is_expired {
        value["state"] = json!("expired");
    }
    value["trimmed_records"] = json!(shard.trimmed_records);
    value["horizon"] = json!(shard.horizon.to_string());
    value["records"] = json!(shard.records);
    value["bytes"] = json!(shard.bytes);
    value["first_sequence_number"] = text(shard.first_sequence_number);
    value["first_arrival_ms"] = json!(shard.first_arrival_ms);
    value["last_sequence_number"] = text(shard.last_sequence_number);
    value["last_arrival_ms"] = json!(shard.last_arrival_ms);
    value
}

/// A shard, as all verbs write it.
pub(crate) fn shard_as_json(info: &ShardInfo) -> Value {
    json!({
        "id": info.id.to_string(),
        "state": state(info),
        "starting_hash_key": info.hash_key_range.start.to_string(),
        "ending_hash_key": info.hash_key_range.end.to_string(),
        "share_of_ring": share_of_ring(info.hash_key_range),
        "parent": info.parent.map(|shard| shard.to_string()),
        "adjacent_parent": info.adjacent_parent.map(|shard| shard.to_string()),
        "starting_sequence_number": info.starting_sequence_number.to_string(),
        "ending_sequence_number": text(info.ending_sequence_number),
        "opened_ms": info.opened_ms,
        "closed_ms": info.closed_ms,
    })
}

fn text(number: Option<SequenceNumber>) -> Value {
    json!(number.map(|number| number.to_string()))
}
