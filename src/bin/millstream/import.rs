//! `millstream import`: JSON lines become records.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use millstream::{Clock, HashKey, MAX_RECORD_BYTES, PutRecord, Stream};
use serde_json::{Map, Value, json};

use crate::failure::{Failure, Result};
use crate::output;
use crate::record_format::data_from_base64;

/// A byte may be written with six letters (`\u0000`), and there are other members.
const MAX_LINE_BYTES: u64 = 6 * MAX_RECORD_BYTES as u64 + (64 << 10);

/// Puts the records of JSON lines, as `export` writes them.
///
/// Each line is an object with data or data_base64, and may have partition_key, explicit_hash_key
/// (a decimal number in a string) and arrival_ms; other members are ignored. A record without a
/// partition key goes to the shards in turn, one without arrival_ms arrives now. Records of one
/// shard stay in order in whatever shard they come to.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  millstream create data/copy --shards 8
  millstream export data/orders | millstream import data/copy
  millstream import data/copy orders.jsonl

The first line that cannot be put ends it: the error names the line, those before it are kept. A
summary is on standard error at the end. Nobody else may have the stream open for putting.")]
pub(crate) struct Args {
    /// The directory of the stream, which must exist.
    dir: PathBuf,
    /// The file to read; standard input if there is none, or it is -.
    file: Option<PathBuf>,
    /// Write the summary as a JSON object.
    #[arg(long)]
    json: bool,
}

/// When the record that is being put arrived.
#[derive(Clone, Default)]
struct Arrival(Arc<AtomicU64>);

impl Clock for Arrival {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let file = args.file.as_deref().filter(|path| path.as_os_str() != "-");
    let (name, input): (_, Box<dyn Read>) = match file {
        Some(path) => (path.display().to_string(), Box::new(open(path)?)),
        None => ("standard input".to_owned(), Box::new(io::stdin())),
    };
    let arrival = Arrival::default();
    let stream = Stream::builder(&args.dir).clock(arrival.clone()).open_existing()?;
    let mut count = 0;
    let done = import(&stream, &arrival, input, &name, &mut count);
    let closed = stream.close().map_err(Failure::from);
    output::note(&match args.json {
        true => format!("{}\n", json!({ "records": count })),
        false => format!("imported {}\n", output::count(count, "record")),
    });
    done.and(closed)
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| Failure::file("read", path, &e))
}

fn import(
    stream: &Stream,
    arrival: &Arrival,
    input: impl Read,
    name: &str,
    count: &mut u64,
) -> Result<()> {
    let mut input = BufReader::with_capacity(256 << 10, input);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = input.by_ref().take(MAX_LINE_BYTES);
        let read = bounded.read_until(b'\n', &mut line);
        let read = read.map_err(|e| Failure::error(format!("cannot read {name}: {e}")))?;
        if read == 0 {
            return Ok(());
        }
        let put = if read as u64 == MAX_LINE_BYTES {
            Err(Failure::error("it is longer than any record"))
        } else {
            put_line(stream, arrival, &line)
        };
        put.map_err(|failure| failure.at(format!("line {} of {name}", *count + 1)))?;
        *count += 1;
    }
}

fn put_line(stream: &Stream, arrival: &Arrival, line: &[u8]) -> Result<()> {
    let wrong = |what: &str| Failure::error(what.to_owned());
    let line: Map<String, Value> =
        serde_json::from_slice(line).map_err(|e| wrong(&format!("no JSON object: {e}")))?;
    let text = |name: &str| match line.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(wrong(&format!("{name} is no string"))),
    };
    let data = match (text("data")?, text("data_base64")?) {
        (Some(data), None) => data.as_bytes().to_vec(),
        (None, Some(data)) => {
            data_from_base64(data).ok_or_else(|| wrong("data_base64 is no base64"))?
        }
        _ => return Err(wrong("it has not one of data and data_base64")),
    };
    let now_ms = match line.get("arrival_ms") {
        None | Some(Value::Null) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            now.as_millis() as u64
        }
        Some(ms) => ms.as_u64().ok_or_else(|| wrong("arrival_ms is no count of milliseconds"))?,
    };
    arrival.0.store(now_ms, Ordering::Relaxed);
    let explicit_hash_key = text("explicit_hash_key")?.map(str::parse::<HashKey>).transpose()?;
    match text("partition_key")? {
        None => stream.put_any(data)?,
        Some(key) => {
            let record = PutRecord::new(key, &data);
            stream.put_record(match explicit_hash_key {
                Some(hash_key) => record.explicit_hash_key(hash_key),
                None => record,
            })?
        }
    };
    Ok(())
}
