//! `millstream apps`: who consumes a stream, and how far behind they are.

use std::path::{Path, PathBuf};

use millstream::{Application, DeadLetters, Stream};
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::output;

/// Lists the applications of a stream: pools that run, records behind, records put aside.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  millstream apps data/orders
  millstream apps data/orders --json | jq -r 'select(.lag_records > 1000) | .app'

It needs no lock: it reads beside the workers and the process that writes.")]
pub(crate) struct Args {
    /// The directory of the stream.
    dir: PathBuf,
    /// Write a JSON object a line.
    #[arg(long)]
    json: bool,
}

// One application of a stream. (Not a doc comment: it would be the help of each verb.)
#[derive(clap::Args)]
pub(crate) struct Place {
    /// The directory of the stream.
    pub(crate) dir: PathBuf,
    /// The application.
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub(crate) app: String,
    /// Write a JSON object a line; the numbers of records are strings.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let stream = Stream::open_read_only(&args.dir)?;
    let mut text = String::new();
    for app in Application::list(&stream)? {
        let application = Application::of(&app, &stream)?;
        let pools = application.pools()?;
        let lag: u64 = application.shards()?.iter().map(|shard| shard.lag.records).sum();
        let letters = DeadLetters::of(&app, &stream)?.list()?.len();
        text += &if args.json {
            let value = json!({
                "app": app, "pools": pools, "lag_records": lag, "dead_letters": letters,
            });
            format!("{value}\n")
        } else {
            let pools = output::count(pools as u64, "pool");
            let letters = output::count(letters as u64, "dead letter");
            format!("{app}: {pools}, {} behind, {letters}\n", output::count(lag, "record"))
        };
    }
    output::print(&text)
}

/// An application that must be there.
pub(crate) fn existing(dir: &Path, stream: &Stream, app: &str) -> Result<Application> {
    if !Application::list(stream)?.iter().any(|name| name == app) {
        let dir = dir.display();
        let failure = Failure::error(format!("{dir} has no application {app}"));
        return Err(failure.so(format!("see `millstream apps {dir}`")));
    }
    Ok(Application::of(app, stream)?)
}

/// The name of an application, as the library has it.
pub(crate) fn parse_name(name: &str) -> Result<String, String> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let is_name =
        (1..=128).contains(&name.len()) && name.bytes().all(is_plain) && !name.starts_with('.');
    is_name.then(|| name.to_owned()).ok_or_else(|| {
        "an application's name is 1 to 128 of a-z A-Z 0-9 _ . - without a dot in front".to_owned()
    })
}
