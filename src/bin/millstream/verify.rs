//! `millstream verify`: is every byte as it was written?

use std::path::PathBuf;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use millstream::{Finding, Verification, verify_with_progress};
use serde_json::{Value, json};

use crate::failure::{Exit, Failure, Result};
use crate::output;

/// Checks every byte of every file: checksums, counts, places, and zeros where nothing may stand.
///
/// Each finding is a line. `damage` is what is not as it was written and should be; it makes the
/// exit code 4. A `note` is what a killed process or a power cut leaves behind, which readers know
/// to pass over: it was never acknowledged, or not as durable.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  millstream verify data/orders
  millstream verify data/orders --json | jq -r '.findings[] | select(.damage) | .path'

It only reads and needs no lock: it can run beside the process that writes. What is damaged can be
set aside with `millstream repair`.")]
pub(crate) struct Args {
    /// The directory of the stream.
    dir: PathBuf,
    /// Write it all as a JSON object; sequence numbers are strings.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let bar = ProgressBar::new(0).with_style(style());
    let found = verify_with_progress(&args.dir, |progress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.bytes);
    });
    bar.finish_and_clear();
    let found = found?;
    let dir = args.dir.display().to_string();
    if args.json {
        output::print_json(&as_json(&dir, &found))?;
    } else {
        output::print(&as_text(&dir, &found))?;
    }
    if found.is_intact() {
        return Ok(());
    }
    let damaged = found.damage().count();
    let plural = if damaged == 1 { "place" } else { "places" };
    Err(Failure::new(Exit::Damaged, format!("{dir} is damaged in {damaged} {plural}"))
        .so(format!("see `millstream repair --dry-run {dir}`")))
}

fn style() -> ProgressStyle {
    let template = "verifying [{wide_bar}] {bytes:>10} of {total_bytes} {binary_bytes_per_sec}";
    ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar())
}

fn as_text(dir: &str, found: &Verification) -> String {
    let mut text: String = found.findings.iter().map(|finding| format!("{finding}\n")).collect();
    if found.unlisted > 0 {
        text += &format!("and {} more\n", HumanCount(found.unlisted));
    }
    let damaged = found.damage().count();
    text += &format!(
        "{dir}: {} records in {} segments of {} shards, {} in {} files: {}\n",
        HumanCount(found.records),
        HumanCount(found.segments),
        HumanCount(found.shards),
        HumanBytes(found.bytes),
        HumanCount(found.files),
        if damaged == 0 { "intact".to_owned() } else { format!("damaged in {damaged}") },
    );
    text
}

fn as_json(dir: &str, found: &Verification) -> Value {
    let findings: Vec<_> = found.findings.iter().map(finding_as_json).collect();
    json!({
        "path": dir, "intact": found.is_intact(), "files": found.files, "bytes": found.bytes,
        "shards": found.shards, "segments": found.segments, "records": found.records,
        "findings": findings, "unlisted": found.unlisted,
    })
}

/// A finding, as `verify` and `repair` write it.
pub(crate) fn finding_as_json(finding: &Finding) -> Value {
    let numbers = finding.sequence_numbers.as_ref();
    json!({
        "kind": finding.kind.name(),
        "damage": finding.kind.is_damage(),
        "path": finding.path.display().to_string(),
        "offset": finding.offset,
        "len": finding.len,
        "shard": finding.shard.map(|shard| shard.to_string()),
        "first_sequence_number": numbers.map(|numbers| numbers.start.to_string()),
        "end_sequence_number": numbers.map(|numbers| numbers.end.to_string()),
        "records": finding.records,
        "what": finding.what,
    })
}
