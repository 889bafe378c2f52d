//! The command line: one file per verb, on the public interface of the crate only.

mod apps;
mod bars;
mod bench;
mod cheat;
mod checkpoint;
mod child;
mod create;
mod dead_letters;
mod delete;
mod demo;
mod dump;
mod export;
mod failure;
mod import;
mod info;
mod install;
mod keys;
mod lag;
mod lines;
mod ls;
mod merge;
mod offset;
mod output;
mod put;
mod quantity;
mod queue;
mod record_format;
mod repair;
mod reshard;
mod retention;
mod ring;
mod screen;
mod signals;
mod split;
mod style;
mod tail;
mod top;
mod trim;
mod verify;
mod work;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Exit;
use style::{RED, Style};

/// Sharded, ordered, replayable streams in a directory, as in AWS Kinesis.
///
/// Records go in by partition key and are spread over shards; records of one key stay in order.
/// One process writes to a stream, any number read it at the same time. DIR is the directory of
/// the stream. Every verb has its own --help, with an example.
#[derive(Parser)]
#[command(name = "millstream", version, after_help = failure::EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Create(create::Args),
    Ls(ls::Args),
    Info(info::Args),
    Top(top::Args),
    Put(put::Args),
    Tail(tail::Args),
    Split(split::Args),
    Merge(merge::Args),
    Reshard(reshard::Args),
    Work(work::Args),
    Queue(queue::Args),
    Apps(apps::Args),
    Lag(lag::Args),
    Checkpoint(checkpoint::Args),
    DeadLetters(dead_letters::Args),
    Retention(retention::Args),
    Trim(trim::Args),
    Delete(delete::Args),
    Verify(verify::Args),
    Repair(repair::Args),
    Dump(dump::Args),
    Export(export::Args),
    Import(import::Args),
    Demo(demo::Args),
    Bench(bench::Args),
    Cheat(cheat::Args),
    Completions(install::Completions),
    Man(install::Man),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Create(args) => create::run(&args),
        Verb::Ls(args) => ls::run(&args),
        Verb::Info(args) => info::run(&args),
        Verb::Top(args) => top::run(&args),
        Verb::Put(args) => put::run(&args),
        Verb::Tail(args) => tail::run(&args),
        Verb::Split(args) => split::run(&args),
        Verb::Merge(args) => merge::run(&args),
        Verb::Reshard(args) => reshard::run(&args),
        Verb::Work(args) => work::run(&args),
        Verb::Queue(args) => queue::run(&args),
        Verb::Apps(args) => apps::run(&args),
        Verb::Lag(args) => lag::run(&args),
        Verb::Checkpoint(args) => checkpoint::run(&args),
        Verb::DeadLetters(args) => dead_letters::run(&args),
        Verb::Retention(args) => retention::run(&args),
        Verb::Trim(args) => trim::run(&args),
        Verb::Delete(args) => delete::run(&args),
        Verb::Verify(args) => verify::run(&args),
        Verb::Repair(args) => repair::run(&args),
        Verb::Dump(args) => dump::run(&args),
        Verb::Export(args) => export::run(&args),
        Verb::Import(args) => import::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Cheat(args) => cheat::run(&args),
        Verb::Completions(args) => install::completions(&args),
        Verb::Man(args) => install::man(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Whoever has closed standard output knows it.
            if failure.exit != Exit::OutputClosed {
                let name = Style::of_stderr().paint(RED, "millstream:");
                // If standard error is gone as well, the exit code is all that is left to say it.
                let _ = writeln!(io::stderr(), "{name} {failure}");
            }
            failure.code()
        }
    }
}
