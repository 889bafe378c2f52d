//! `millstream repair`: sets damage aside, so that reading goes on.

use std::path::PathBuf;

use millstream::{Repair, Repaired, plan_repair, repair};
use serde_json::{Value, json};

use crate::failure::{Exit, Failure, Result};
use crate::output;
use crate::verify::finding_as_json;

/// Sets aside what is damaged, so that readers and workers go on with the rest.
///
/// The damaged bytes go to DIR/quarantine; nothing is deleted. Each repair is a line: what was
/// lost, in which file, and where the bytes are now.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  millstream repair data/orders --dry-run
  millstream repair data/orders

Nobody may have the stream open for putting. If it is interrupted, run it again. A damaged MANIFEST
and damaged checkpoints are not repaired: put them back from a backup. Exit code 4 says that damage
is left.")]
pub(crate) struct Args {
    /// The directory of the stream.
    dir: PathBuf,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Write it all as a JSON object; sequence numbers are strings.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let done = if args.dry_run { plan_repair(&args.dir)? } else { repair(&args.dir)? };
    let dir = args.dir.display().to_string();
    if args.json {
        output::print_json(&as_json(&dir, &done))?;
    } else {
        output::print(&as_text(&dir, &done, args.dry_run))?;
    }
    if done.left.is_empty() {
        return Ok(());
    }
    let left = done.left.len();
    Err(Failure::new(Exit::Damaged, format!("{dir} stays damaged in {left}"))
        .so("what stood there is not known; put the files back from a backup"))
}

fn as_text(dir: &str, done: &Repair, dry_run: bool) -> String {
    let mut text = String::new();
    for Repaired { finding, remedy, quarantined, .. } in &done.repaired {
        text += &format!("{finding}: {remedy}");
        if let Some(quarantined) = quarantined {
            text += &format!("; the damaged bytes are in {}", quarantined.display());
        }
        text.push('\n');
    }
    for finding in &done.left {
        text += &format!("{finding}: left as it is\n");
    }
    let (records, bytes) = lost(done);
    let count = done.repaired.len();
    text += &match (count, dry_run) {
        (0, _) => format!("{dir}: nothing to repair\n"),
        (_, true) => format!("{dir}: {count} to repair; {records} records, {bytes} bytes lost\n"),
        (_, false) => format!("{dir}: {count} repaired; {records} records, {bytes} bytes lost\n"),
    };
    text
}

/// How many records and bytes are lost, as far as that is known.
fn lost(done: &Repair) -> (u64, u64) {
    let findings = || done.repaired.iter().map(|repaired| &repaired.finding);
    (findings().filter_map(|f| f.records).sum(), findings().map(|f| f.len).sum())
}

fn as_json(dir: &str, done: &Repair) -> Value {
    let repaired: Vec<_> = done.repaired.iter().map(repaired_as_json).collect();
    let left: Vec<_> = done.left.iter().map(finding_as_json).collect();
    let (records, bytes) = lost(done);
    json!({
        "path": dir, "repaired": repaired, "left": left,
        "records_lost": records, "bytes_lost": bytes,
    })
}

fn repaired_as_json(repaired: &Repaired) -> Value {
    json!({
        "finding": finding_as_json(&repaired.finding),
        "remedy": repaired.remedy.to_string(),
        "quarantined": repaired.quarantined.as_ref().map(|path| path.display().to_string()),
    })
}
