//! `millstream put`: lines become records.

mod acks;
mod sink;
mod tally;

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use millstream::{Durability, Stream};

use crate::failure::{Exit, Failure, Result};
use crate::keys::{Keys, check_key, without_line_end};
use crate::lines::LineReader;
use crate::output;
use crate::record_format::Delimiter;
use crate::signals::Interrupt;
use acks::Acks;
use sink::{Line, Sink, Stop};

/// Puts each line of the FILES, or of standard input, as a record.
///
/// The record's data is the line without its line end; it may be any bytes, and nothing. The
/// partition key decides upon the shard, and keeps records in order; it has 1 to 256 characters
/// of UTF-8. Without -K and --key a line's key is its place in the input (1, 2, 3, ...), which
/// spreads the lines over all shards.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream put data/orders -K: < orders.txt       # 'customer-7:shipped': key customer-7
  tail -f access.log | millstream put data/log -K' '
  millstream put data/orders -K '\\t' FILE           # key, TAB, data
  millstream put data/orders --key all --acks --sync FILE

Lines are put as soon as they are read, so a slow pipe is followed line by line. The first line
that cannot be put ends it: the error names the line, those before it are kept. So do Ctrl-C and
SIGTERM, with code 130, when the lines at hand are put; the second one ends it at once. A summary is
on standard error at the end.")]
pub(crate) struct Args {
    /// The directory of the stream, which must exist.
    dir: PathBuf,
    /// Files to read one after the other; - is standard input.
    files: Vec<PathBuf>,
    /// The key is what stands before the first DELIM of the line, the data what stands behind it.
    /// A line without DELIM is an error. DELIM may have \t, \0, \\, \n, \r and \xHH in it.
    #[arg(short = 'K', value_name = "DELIM", conflicts_with = "key",
          value_parser = parse_delimiter)]
    key_delimiter: Option<Delimiter>,
    /// The key of every line.
    #[arg(long, value_parser = parse_key)]
    key: Option<String>,
    /// Write a line for each acknowledged record to standard output as it is acknowledged:
    /// shard, TAB, sequence number, TAB, key.
    #[arg(long)]
    acks: bool,
    /// Acknowledge when the record survives a power cut: every batch of lines that is read at
    /// once is synced to the disk.
    #[arg(long)]
    sync: bool,
    /// Write acknowledgements and summary as JSON objects, each in a line of its own.
    #[arg(long)]
    json: bool,
}

fn parse_delimiter(text: &str) -> Result<Delimiter, String> {
    if text.is_empty() {
        return Err("the delimiter is empty".to_owned());
    }
    text.parse()
}

fn parse_key(key: &str) -> Result<String, String> {
    check_key(key).map(|()| key.to_owned())
}

pub(crate) fn run(args: &Args) -> Result<()> {
    check_files(&args.files)?;
    let stream = Stream::builder(&args.dir).open_existing()?;
    let keys = match (&args.key_delimiter, &args.key) {
        (Some(Delimiter(delimiter)), _) => Keys::Before(delimiter.clone()),
        (None, Some(key)) => Keys::Always(key.clone()),
        (None, None) => Keys::Count,
    };
    let durability = if args.sync { Durability::Sync } else { Durability::Os };
    let acks = if args.acks { Some(Acks::new(args.json)?) } else { None };
    let sink = Sink::new(stream, durability, acks);
    let interrupt = Rc::new(Interrupt::listen(|| ())?);
    let mut put = Put { keys, sink, interrupt, bar: progress_bar(args), lines: 0 };
    let done = put.put_files(&args.files);
    put.bar.finish_and_clear();
    output::note(&put.sink.summary(args.json));
    done
}

/// Finds out that a file cannot be read before any is put.
fn check_files(files: &[PathBuf]) -> Result<()> {
    for path in files.iter().filter(|path| !is_stdin(path)) {
        let file = File::open(path).map_err(|e| Failure::file("read", path, &e))?;
        if file.metadata().is_ok_and(|file| file.is_dir()) {
            return Err(Failure::error(format!("cannot read {}: a directory", path.display())));
        }
    }
    Ok(())
}

/// Standard input without a buffer, which `poll` would know nothing of.
fn stdin() -> Result<File> {
    let fd = io::stdin().as_fd().try_clone_to_owned();
    Ok(File::from(fd.map_err(|e| Failure::error(format!("cannot read standard input: {e}")))?))
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A bar if the end is known, else a counter; hidden unless standard error is a terminal, and
/// where it would mix with what is typed or written there.
fn progress_bar(args: &Args) -> ProgressBar {
    let reads_stdin = args.files.is_empty() || args.files.iter().any(|path| is_stdin(path));
    let is_crowded =
        reads_stdin && io::stdin().is_terminal() || args.acks && io::stdout().is_terminal();
    if is_crowded {
        return ProgressBar::hidden();
    }
    let len = |path: &PathBuf| path.metadata().map_or(0, |file| file.len());
    let (bar, template) = if reads_stdin {
        (ProgressBar::no_length(), "{spinner} {bytes}  {bytes_per_sec}  {msg}")
    } else {
        let total = args.files.iter().map(len).sum();
        (ProgressBar::new(total), "[{bar:40}] {bytes} of {total_bytes}  {bytes_per_sec}  {msg}")
    };
    bar.set_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Reads lines and gives each its key.
struct Put {
    keys: Keys,
    sink: Sink,
    interrupt: Rc<Interrupt>,
    bar: ProgressBar,
    /// Lines read so far, of all the inputs.
    lines: u64,
}

impl Put {
    fn put_files(&mut self, files: &[PathBuf]) -> Result<()> {
        if files.is_empty() {
            return self.put_input(stdin()?, "standard input");
        }
        for path in files {
            if is_stdin(path) {
                self.put_input(stdin()?, "standard input")?;
            } else {
                let file = File::open(path).map_err(|e| Failure::file("read", path, &e))?;
                self.put_input(file, &path.display().to_string())?;
            }
        }
        Ok(())
    }

    fn put_input(&mut self, input: File, name: &str) -> Result<()> {
        let lines_before = self.lines;
        let unreadable = |e: io::Error| match e.kind() {
            INTERRUPTED => {
                Failure::new(Exit::Interrupted, "interrupted; what came in whole lines is put")
            }
            _ => Failure::error(format!("cannot read {name}: {e}")),
        };
        let mut reader =
            LineReader::new(Interruptible { input, interrupt: Rc::clone(&self.interrupt) });
        while let Some(lines) = reader.next_lines().map_err(unreadable)? {
            self.put_lines(lines).map_err(|stop| match stop {
                Stop::AtLine(line, failure) => {
                    failure.at(format!("line {} of {name}", line - lines_before))
                }
                Stop::Output(failure) => failure,
            })?;
            self.bar.inc(lines.len() as u64);
            self.bar.set_message(format!("{} records", HumanCount(self.sink.records())));
        }
        Ok(())
    }

    /// Puts lines that were read at once, up to the first that cannot be put.
    fn put_lines(&mut self, lines: &[u8]) -> Result<(), Stop> {
        let lines: Vec<&[u8]> =
            lines.split_inclusive(|byte| *byte == b'\n').map(without_line_end).collect();
        let numbers = self.lines + 1..=self.lines + lines.len() as u64;
        self.lines = *numbers.end();
        let counts: Vec<String> = match self.keys {
            Keys::Count => numbers.clone().map(|number| number.to_string()).collect(),
            _ => Vec::new(),
        };
        let mut records = Vec::with_capacity(lines.len());
        let mut refused = Ok(());
        for (index, (number, line)) in numbers.zip(lines).enumerate() {
            match self.keys.split(line, counts.get(index)) {
                Ok((key, data)) => records.push(Line { number, key, data }),
                Err(why) => {
                    refused = Err(Stop::AtLine(number, Failure::error(why)));
                    break;
                }
            }
        }
        self.sink.put(&records)?;
        refused
    }
}

/// What a read fails with when there was a signal. The system's own of this kind never comes: it
/// is asked only when there is something to read. `Interrupted` would mean to try again.
const INTERRUPTED: io::ErrorKind = io::ErrorKind::WouldBlock;

/// An input that a signal ends. That is an error: a line that has begun is no line yet.
struct Interruptible {
    input: File,
    interrupt: Rc<Interrupt>,
}

impl Read for Interruptible {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.interrupt.may_read(&self.input) {
            true => self.input.read(buffer),
            false => Err(INTERRUPTED.into()),
        }
    }
}
