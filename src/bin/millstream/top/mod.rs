//! `millstream top`: what goes on in the streams of a directory, on one screen.

mod look;
mod page;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::failure::{Exit, Failure, Result};
use crate::output;
use crate::quantity;
use crate::screen::{self, Screen};
use crate::signals::Interrupt;
use look::Watched;

/// Watches streams and the applications that read them.
///
/// SHARDS are the open ones, and all there are. RATE is how many records were put in a second since
/// the last look, and below, how many the application has processed; it is behind so many records
/// as it has not processed yet, the oldest of which has been there so long.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream top data
  millstream top data/orders --interval 250ms
  millstream top data --json -n 10 | jq '.streams[] | [.path, .records_per_s]'

It needs no lock: it reads beside the processes that write and work. On a terminal it goes on until
Ctrl-C; elsewhere it writes one look, or as many as -n says.")]
pub(crate) struct Args {
    /// A directory with streams in it, or a stream.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// How long a look waits for the next, as in 250ms or 2s.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = quantity::parse_interval)]
    interval: Duration,
    /// End after so many looks.
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,
    /// Write a JSON object a look.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let interrupt = Interrupt::listen(screen::leave)?;
    let mut watched = Watched::new(&args.dir)?;
    let screen = Screen::enter(!args.json)?;
    let looks = args.count.or((!screen.is_terminal()).then_some(1));
    let mut done = 0;
    // A first look has no rate.
    watched.look()?;
    while looks.is_none_or(|looks| done < looks) {
        if interrupt.wait(args.interval) {
            // Whoever watches has seen enough; a look that is missing is missed.
            return match args.count {
                Some(_) => Err(Failure::new(Exit::Interrupted, "interrupted")),
                None => Ok(()),
            };
        }
        let streams = watched.look()?;
        done += 1;
        if args.json {
            let streams: Vec<_> = streams.iter().map(look::StreamLook::as_json).collect();
            let path = args.dir.display().to_string();
            output::print_json(&json!({ "path": path, "streams": streams }))?;
        } else {
            screen.show(&args.dir, args.interval, streams)?;
        }
    }
    Ok(())
}
