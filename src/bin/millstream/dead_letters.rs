//! `millstream dead-letters`: the records that an application could not process.

use std::path::Path;

use clap::Subcommand;
use millstream::{DeadLetter, DeadLetters, SequenceNumber, Stream};
use serde_json::{Value, json};

use crate::apps::{Place, existing};
use crate::failure::{Failure, Result};
use crate::output;
use crate::record_format::data_as_json;

/// Shows, puts again or removes the records that an application could not process.
///
/// A worker pool puts a record aside, if it is told to, when it fails time after time alone; its
/// shard goes on. The record waits here, with where it came from and what the last failure said.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream dead-letters list data/orders --app load
  millstream dead-letters list data/orders --app load --json | jq -r .cause | sort | uniq -c
  millstream dead-letters redrive data/orders --app load --all
  millstream dead-letters drop data/orders --app load 4096 4192

All of them can run beside the application's workers.")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List them, oldest first: id, shard, number, attempts, key, and what the failure said.
    #[command(after_help = "\
Example:
  millstream dead-letters list data/orders --app load")]
    List(Place),
    /// Put records to the stream again, behind all others, for every application; remove the
    /// letters.
    #[command(after_help = "\
Example:
  millstream dead-letters redrive data/orders --app load --all

It needs the stream for itself: exit code 3 if another process puts to it.")]
    Redrive(Choice),
    /// Remove letters, for good.
    #[command(after_help = "\
Example:
  millstream dead-letters drop data/orders --app load 4096")]
    Drop(Choice),
}

#[derive(clap::Args)]
struct Choice {
    #[command(flatten)]
    place: Place,
    /// Which ones, as `list` names them.
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<SequenceNumber>,
    /// All of them.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

impl Choice {
    /// Those that were chosen; all of them must be there.
    fn letters(&self, letters: &DeadLetters) -> Result<Vec<DeadLetter>> {
        let all = letters.list()?;
        if self.all {
            return Ok(all);
        }
        let find = |id: &SequenceNumber| {
            let letter = all.iter().find(|letter| letter.id == *id).cloned();
            let app = &self.place.app;
            let missing = || Failure::error(format!("{app} has no dead letter {id}"));
            letter.ok_or_else(|| missing().so("nothing was changed"))
        };
        self.ids.iter().map(find).collect()
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.verb {
        Verb::List(place) => list(place),
        Verb::Redrive(choice) => redrive(choice),
        Verb::Drop(choice) => remove(choice),
    }
}

fn open(dir: &Path, app: &str) -> Result<DeadLetters> {
    let stream = Stream::open_read_only(dir)?;
    existing(dir, &stream, app)?;
    Ok(DeadLetters::of(app, &stream)?)
}

fn list(place: &Place) -> Result<()> {
    let mut text = String::new();
    for letter in open(&place.dir, &place.app)?.list()? {
        text += &if place.json {
            format!("{}\n", as_json(&letter))
        } else {
            let cause = letter.cause.lines().next().unwrap_or_default();
            let DeadLetter { id, shard, sequence_number: number, attempts, .. } = &letter;
            format!("{id} {shard} {number} {attempts} {} {cause}\n", letter.partition_key())
        };
    }
    output::print(&text)
}

fn as_json(letter: &DeadLetter) -> Value {
    let mut value = json!({
        "id": letter.id.to_string(),
        "shard": letter.shard.to_string(),
        "sequence_number": letter.sequence_number.to_string(),
        "arrival_ms": letter.arrival_ms,
        "put_aside_ms": letter.put_aside_ms,
        "attempts": letter.attempts,
        "cause": letter.cause,
        "partition_key": letter.partition_key(),
    });
    let (name, data) = data_as_json(letter.data());
    value[name] = data.into();
    value
}

fn redrive(choice: &Choice) -> Result<()> {
    let place = &choice.place;
    let letters = open(&place.dir, &place.app)?;
    let chosen = choice.letters(&letters)?;
    let stream = Stream::builder(&place.dir).open_existing()?;
    for letter in &chosen {
        let receipt = letters.redrive(letter, &stream)?;
        let (id, shard, number) = (letter.id, receipt.shard, receipt.sequence_number);
        if place.json {
            output::print_json(&json!({
                "id": id.to_string(), "shard": shard.to_string(),
                "sequence_number": number.to_string(),
            }))?;
        } else {
            output::print(&format!("{id} is {number} of {shard} now\n"))?;
        }
    }
    Ok(stream.close()?)
}

fn remove(choice: &Choice) -> Result<()> {
    let place = &choice.place;
    let letters = open(&place.dir, &place.app)?;
    for letter in choice.letters(&letters)? {
        letters.remove(letter.id)?;
        if place.json {
            output::print_json(&json!({ "id": letter.id.to_string() }))?;
        } else {
            output::print(&format!("{} is removed\n", letter.id))?;
        }
    }
    Ok(())
}
