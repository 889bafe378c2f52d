//! `millstream dump`: the bytes of segments, and what they mean.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use millstream::{SegmentPart, SegmentPartKind, Stream, inspect_segment};
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::output;

/// Shows what is in the segment files of a stream: headers, seals, frames, in words and in hex.
///
/// Each part is a line: where in the file it begins, what it is, what it says; below it are its
/// first bytes. A part that is `not-whole` has no checksum that holds; whether it should, `verify`
/// says. The format is in the manual, byte by byte.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  millstream dump data/orders
  millstream dump data/orders/shards/shardId-000000000000/00000000000000000000.seg --bytes 0
  millstream dump data/orders --json | jq -r 'select(.kind == \"not-whole\") | .path'

It only reads and needs no lock: it can run beside the process that writes.")]
pub(crate) struct Args {
    /// The directory of a stream, or a segment file.
    path: PathBuf,
    /// How many bytes of each part are shown in hex.
    #[arg(long, value_name = "N", default_value_t = 64)]
    bytes: usize,
    /// Leave out what is unused.
    #[arg(long)]
    used: bool,
    /// Write each part as a JSON object in a line of its own.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut out = BufWriter::new(output::stdout()?);
    let done = segments(&args.path)?.iter().try_for_each(|path| dump(args, path, &mut out));
    // What was read before an error is written all the same.
    let flushed = out.flush().map_err(|e| Failure::stdout(&e));
    let _ = out.into_parts(); // not flushed a second time
    done.and(flushed)
}

/// The segment files that are meant, in order.
fn segments(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for shard in Stream::open_read_only(path)?.shards() {
        let directory = path.join("shards").join(shard.id.to_string());
        // A shard without records has none.
        let Ok(entries) = directory.read_dir() else { continue };
        let paths = entries.flatten().map(|entry| entry.path());
        found.extend(paths.filter(|path| path.extension().is_some_and(|it| it == "seg")));
    }
    found.sort();
    Ok(found)
}

fn dump(args: &Args, path: &Path, out: &mut impl Write) -> Result<()> {
    let mut written = Ok(());
    if !args.json {
        written = writeln!(out, "{}", path.display());
    }
    let inspected = inspect_segment(path, |part| {
        if written.is_ok() && !(args.used && part.kind == SegmentPartKind::Unused) {
            written = match args.json {
                true => writeln!(out, "{}", as_json(args, path, &part)),
                false => write_part(args, &part, out),
            };
        }
    });
    written.map_err(|e| Failure::stdout(&e))?;
    Ok(inspected?)
}

fn as_json(args: &Args, path: &Path, part: &SegmentPart<'_>) -> serde_json::Value {
    let hex: String =
        part.bytes.iter().take(args.bytes).map(|byte| format!("{byte:02x}")).collect();
    json!({
        "path": path.display().to_string(), "offset": part.offset, "len": part.bytes.len(),
        "kind": part.kind.name(), "says": part.says, "hex": hex,
    })
}

fn write_part(args: &Args, part: &SegmentPart<'_>, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "{:08x}  {:<9}  {}", part.offset, part.kind.name(), part.says)?;
    if part.kind == SegmentPartKind::Unused {
        return Ok(());
    }
    let shown = &part.bytes[..part.bytes.len().min(args.bytes)];
    for (row, bytes) in shown.chunks(16).enumerate() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
        let text: String = bytes
            .iter()
            .map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' })
            .collect();
        writeln!(out, "{:08x}    {hex:<48} |{text}|", part.offset + row as u64 * 16)?;
    }
    Ok(())
}
