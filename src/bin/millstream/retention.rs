//! `millstream retention`: how long a stream keeps its records.

use std::path::PathBuf;
use std::time::Duration;

use indicatif::HumanBytes;
use millstream::{Retention, Stream, WhenFull};
use serde_json::{Value, json};

use crate::failure::Result;
use crate::output;
use crate::quantity::{Limit, as_duration, bytes, duration};

/// Shows how long a stream keeps its records, or changes it.
///
/// Without options it only shows. Each option that is given changes one limit and leaves the others
/// as they are; `none` takes a limit away. What is beyond the new limits goes at once, and does not
/// come back when they are raised again.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream retention data/orders
  millstream retention data/orders --age 7d --bytes 10GiB
  millstream retention data/orders --bytes 1GiB --hold-for billing --when-full reject
  millstream retention data/orders --forever

Showing needs no lock. Changing needs the stream for itself: a process that has it open for putting
changes it by itself, with Stream::set_retention.")]
pub(crate) struct Args {
    /// The directory of the stream.
    dir: PathBuf,
    /// Keep records for so long: 90s, 30m, 12h, 7d, or none.
    #[arg(long, value_parser = |text: &str| {
        Limit::parse(text, duration, "a time as in 90s, 30m, 12h or 7d")
    })]
    age: Option<Limit<Duration>>,
    /// Let finished segments take so many bytes: 1048576, 512MiB, 10GiB, or none.
    #[arg(long, value_parser = |text: &str| {
        Limit::parse(text, bytes, "a size as in 1048576, 512MiB or 10GiB")
    })]
    bytes: Option<Limit<u64>>,
    /// Let records go when so many newer ones stay, or none.
    #[arg(long, value_name = "COUNT", value_parser = |text: &str| {
        Limit::parse(text, count, "a number of records")
    })]
    records: Option<Limit<u64>>,
    /// Let records go only when this application has processed them; for several, more than once.
    #[arg(long, value_name = "APP")]
    hold_for: Vec<String>,
    /// What to do at the limit of bytes if nothing may go: drop-oldest, reject puts, or let them
    /// wait, as in block:5s.
    #[arg(long, value_name = "WHAT", value_parser = when_full)]
    when_full: Option<WhenFull>,
    /// Take all limits away before the others are set.
    #[arg(long)]
    forever: bool,
    /// Write it as a JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let retention = if args.changes() {
        let stream = Stream::builder(&args.dir).open_existing()?;
        let changed = args.change(stream.retention());
        stream.set_retention(changed.clone())?;
        stream.close()?;
        changed
    } else {
        Stream::open_read_only(&args.dir)?.retention()
    };
    let dir = args.dir.display().to_string();
    if args.json {
        return output::print_json(&json!({ "path": dir, "retention": as_json(&retention) }));
    }
    output::print(&format!("{dir}: {}\n", as_text(&retention)))
}

impl Args {
    fn changes(&self) -> bool {
        let is_limit_set = self.age.is_some() || self.bytes.is_some() || self.records.is_some();
        is_limit_set || !self.hold_for.is_empty() || self.when_full.is_some() || self.forever
    }

    fn change(&self, before: Retention) -> Retention {
        let mut retention = if self.forever { Retention::default() } else { before };
        if let Some(Limit(age)) = self.age {
            retention.age = age;
        }
        if let Some(Limit(bytes)) = self.bytes {
            retention.bytes = bytes;
        }
        if let Some(Limit(records)) = self.records {
            retention.records = records;
        }
        if !self.hold_for.is_empty() {
            retention = retention.hold_for(&self.hold_for);
        }
        if let Some(when_full) = self.when_full {
            retention.when_full = when_full;
        }
        retention
    }
}

fn count(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn when_full(text: &str) -> Result<WhenFull, String> {
    let block = |text: &str| duration(text.strip_prefix("block:")?).map(WhenFull::Block);
    match text {
        "drop-oldest" => Ok(WhenFull::DropOldest),
        "reject" => Ok(WhenFull::Reject),
        _ => block(text).ok_or_else(|| "drop-oldest, reject or block:5s is expected".into()),
    }
}

/// A retention in a line.
pub(crate) fn as_text(retention: &Retention) -> String {
    let mut parts = Vec::new();
    parts.extend(retention.age.map(|age| format!("{} old", as_duration(age))));
    parts.extend(retention.bytes.map(|bytes| format!("{} in all", HumanBytes(bytes))));
    parts
        .extend(retention.records.map(|count| format!("{} newer", output::count(count, "record"))));
    if parts.is_empty() {
        return "records are kept for ever".into();
    }
    let mut text = format!("records are kept until {}", parts.join(" or "));
    if !retention.hold_for.is_empty() {
        text += &format!(", but not before {} processed", retention.hold_for.join(" and "));
    }
    if retention.bytes.is_some() {
        text += match retention.when_full {
            WhenFull::Reject => "; when full, puts are rejected",
            WhenFull::Block(_) => "; when full, puts wait",
            _ => "; when full, the oldest go",
        };
    }
    text
}

/// A retention as `retention` and `info` write it.
pub(crate) fn as_json(retention: &Retention) -> Value {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (when_full, block_ms) = match retention.when_full {
        WhenFull::Reject => ("reject", None),
        WhenFull::Block(time) => ("block", Some(millis(time))),
        _ => ("drop-oldest", None),
    };
    json!({
        "age_ms": retention.age.map(millis), "bytes": retention.bytes,
        "records": retention.records, "hold_for": retention.hold_for,
        "when_full": when_full, "block_ms": block_ms,
    })
}
