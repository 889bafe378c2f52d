//! What was put, for the summary.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

use indicatif::{HumanBytes, HumanCount};
use millstream::ShardId;
use serde_json::{Value, json};

use crate::output;

/// Records and bytes of keys and data.
#[derive(Clone, Copy, Default)]
struct Amount {
    records: u64,
    bytes: u64,
}

/// What was acknowledged, by shard.
pub(super) struct Tally {
    started: Instant,
    shards: BTreeMap<ShardId, Amount>,
}

impl Default for Tally {
    fn default() -> Self {
        Self { started: Instant::now(), shards: BTreeMap::new() }
    }
}

impl Tally {
    /// A record was acknowledged.
    pub(super) fn add(&mut self, shard: ShardId, bytes: usize) {
        let amount = self.shards.entry(shard).or_default();
        amount.records += 1;
        amount.bytes += bytes as u64;
    }

    pub(super) fn records(&self) -> u64 {
        self.shards.values().map(|amount| amount.records).sum()
    }

    fn bytes(&self) -> u64 {
        self.shards.values().map(|amount| amount.bytes).sum()
    }

    /// Records in a second, so far.
    fn rate(&self, seconds: f64) -> u64 {
        (self.records() as f64 / seconds.max(0.001)) as u64
    }

    /// For people: a line for all, and a line for each shard.
    pub(super) fn summary(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let mut text = format!(
            "put {}, {}, in {seconds:.2} s ({} records/s)\n",
            output::count(self.records(), "record"),
            HumanBytes(self.bytes()),
            HumanCount(self.rate(seconds)),
        );
        for (shard, amount) in &self.shards {
            let records = output::count(amount.records, "record");
            let bytes = HumanBytes(amount.bytes).to_string();
            let _ = writeln!(text, "  {shard}  {records:>21}  {bytes:>11}");
        }
        text
    }

    /// For machines: an object in a line.
    pub(super) fn json(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let shard = |(id, amount): (&ShardId, &Amount)| -> Value {
            json!({ "shard": id.to_string(), "records": amount.records, "bytes": amount.bytes })
        };
        let summary = json!({
            "records": self.records(),
            "bytes": self.bytes(),
            "seconds": seconds,
            "records_per_second": self.rate(seconds),
            "shards": self.shards.iter().map(shard).collect::<Vec<_>>(),
        });
        format!("{summary}\n")
    }
}
