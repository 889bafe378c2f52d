//! `millstream delete`: removes a stream.

use std::path::PathBuf;

use millstream::Stream;
use serde_json::json;

use crate::failure::Result;
use crate::output;

/// Deletes a stream with all its records and checkpoints.
///
/// It is renamed away first, so that at no moment there is half a stream. What was left behind by
/// a deletion that was cut off is removed when it is repeated.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  millstream delete data/orders

A stream that somebody puts to, reads or works on is not deleted, nor one with other files in its
directory, unless it is forced.")]
pub(crate) struct Args {
    /// The directory of the stream.
    dir: PathBuf,
    /// Delete it whoever uses it, and whatever else is in the directory.
    #[arg(long)]
    force: bool,
    /// Say what was deleted as a JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.force {
        Stream::force_delete(&args.dir)?
    } else {
        Stream::delete(&args.dir)?
    }
    let dir = args.dir.display();
    if args.json {
        return output::print_json(&json!({ "path": dir.to_string(), "deleted": true }));
    }
    output::print(&format!("deleted {dir}\n"))
}
