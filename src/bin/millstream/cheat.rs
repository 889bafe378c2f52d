//! `millstream cheat`: the commands that people need.

use crate::failure::Result;
use crate::output;
use crate::style::{BOLD, Style};

/// What each command is for, and the command.
const CARDS: [(&str, &str); 11] = [
    ("make a stream", "millstream create data/orders --shards 4"),
    ("put lines, the key before the first blank", "millstream put data/orders -K' ' < lines.txt"),
    ("see what there is", "millstream info data/orders"),
    ("watch all streams and who reads them", "millstream top data"),
    ("the last ten records of each shard", "millstream tail data/orders -o -10 -K' '"),
    ("records as they come, as JSON", "millstream tail data/orders -f -o latest --json"),
    ("process, with checkpoints", "millstream work data/orders --app load --exec ./load"),
    ("receive a message, as a queue", "millstream queue receive data/orders --app draw"),
    (
        "process it all again",
        "millstream checkpoint seek data/orders horizon --app load --reason why",
    ),
    ("keep a week, at most 10 GiB", "millstream retention data/orders --age 7d --bytes 10GiB"),
    ("check every byte", "millstream verify data/orders"),
];

/// Shows the eleven commands that people need.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  millstream cheat
  millstream cheat --json | jq -r '.commands[].command'")]
pub(crate) struct Args {
    /// Write them as a JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.json {
        let card = |(what, command)| serde_json::json!({ "for": what, "command": command });
        let commands = CARDS.map(card);
        return output::print_json(&serde_json::json!({ "commands": commands }));
    }
    let style = Style::of_stdout();
    let mut text = String::new();
    for (what, command) in CARDS {
        text += &format!("{}\n  {command}\n", style.paint(BOLD, what));
    }
    output::print(&(text + "\nEvery command has --help, with more.\n"))
}
