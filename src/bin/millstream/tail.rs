//! `millstream tail`: records become lines.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use millstream::{Scan, ShardFilter, ShardId, ShardIterator, StartingPosition, Stream};

use crate::failure::{Exit, Failure, Result};
use crate::offset::Offset;
use crate::output;
use crate::record_format::{FormatArgs, RecordFormat};

const OUTPUT_BUFFER_BYTES: usize = 256 << 10;
/// How often one who waits for records looks whether anybody still wants them.
const READER_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Writes records to standard output, one a line: their data, and more if asked for.
///
/// Records of one shard are in order, a shard that was split or merged comes before its children
/// (so records of one key are in order too), and shards beside each other are mixed by arrival.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream tail data/orders                          # all that there is
  millstream tail data/orders -f -o latest -K' '       # key and data, as they arrive
  millstream tail data/orders -o -10                   # the last ten of each open shard
  millstream tail data/orders -o -10 --format '%T %p %o %k %s\\n'
  millstream tail data/orders -o @2025-01-01T12:00:00Z --json

It needs no lock: it reads beside the process that writes. Without -f it ends at the records that
were the newest ones when it began, with -f when the directory is removed. A reader that closes the
pipe ends it with code 141.")]
pub(crate) struct Args {
    /// The directory of the stream.
    dir: PathBuf,
    /// Wait for records to come, for ever.
    #[arg(short, long)]
    follow: bool,
    /// Where to begin: horizon, the oldest record; latest, behind the newest; NUMBER, at this
    /// sequence number of one shard; -N, with the last N records of each open shard; @TIME, with
    /// those that arrived then or later, as ms since 1970 or like 2025-01-01T12:00:00Z.
    #[arg(
        short,
        long,
        value_name = "OFFSET",
        default_value = "horizon",
        allow_hyphen_values = true
    )]
    offset: Offset,
    /// Write the first COUNT records from there on, and end.
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,
    /// Read this shard only, given as shardId-000000000007 or 7.
    #[arg(long, value_name = "SHARD")]
    shard: Option<ShardId>,
    /// Write only the records of this partition key, and read only the shards that it went to (or
    /// the one that is given). Records that were put with an explicit hash key may be elsewhere.
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    format: FormatArgs,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let stream = Stream::open_read_only(&args.dir)?;
    let is_number = matches!(args.offset, Offset::Number(_));
    if is_number && args.shard.is_none() && stream.shards().len() > 1 {
        return Err(Failure::new(
            Exit::Usage,
            "a sequence number is a place in one shard; say which, with --shard",
        ));
    }
    let scan = stream.scan_from(iterators(&stream, args)?)?;
    let scan = match (args.follow, args.shard) {
        (false, _) => scan,
        (true, Some(_)) => scan.follow(),
        (true, None) => scan.follow_lineage(),
    };
    let out = BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, output::stdout()?);
    let (format, key) = (args.format.format(), args.key.clone());
    let mut tail = Tail { out, format, key, written: 0 };
    let done = tail.copy(scan, args.count.unwrap_or(u64::MAX));
    // What was read before an error is written all the same.
    let flushed = tail.out.flush().map_err(|e| Failure::stdout(&e));
    let _ = tail.out.into_parts(); // not flushed a second time
    done.and(flushed)
}

/// Where to begin, in each of the shards that are to be read.
fn iterators(stream: &Stream, args: &Args) -> Result<Vec<ShardIterator>> {
    let shards = match (args.shard, args.offset) {
        (Some(shard), _) => vec![stream.describe_shard(shard)?.info],
        // Near the end of the stream, closed shards have nothing to say.
        (_, Offset::Latest | Offset::FromEnd(_)) => stream.shards_with(ShardFilter::AtLatest),
        _ => stream.shards(),
    };
    let key = args.key.as_deref().filter(|_| args.shard.is_none());
    let hash_key = key.map(|key| stream.hash_algorithm().hash(key));
    let mut iterators = Vec::new();
    for shard in shards {
        if hash_key.is_none_or(|key| shard.hash_key_range.contains(key)) {
            let from = |position| stream.shard_iterator(shard.id, position);
            iterators.push(match args.offset {
                Offset::Horizon => from(StartingPosition::TrimHorizon)?,
                Offset::Latest => from(StartingPosition::Latest)?,
                Offset::Number(number) => from(StartingPosition::AtSequenceNumber(number))?,
                Offset::TimestampMs(ms) => from(StartingPosition::AtTimestampMs(ms))?,
                Offset::FromEnd(count) => stream.tail(shard.id, count)?,
            });
        }
    }
    Ok(iterators)
}

struct Tail {
    out: BufWriter<File>,
    format: RecordFormat,
    key: Option<String>,
    written: u64,
}

impl Tail {
    fn copy(&mut self, mut scan: Scan, count: u64) -> Result<()> {
        while self.written < count {
            let Some(scanned) = scan.next().transpose()? else {
                if scan.is_finished() {
                    break;
                }
                self.out.flush().map_err(|e| Failure::stdout(&e))?;
                if output::is_pipe_closed(self.out.get_ref()) {
                    return Err(Failure::stdout(&std::io::ErrorKind::BrokenPipe.into()));
                }
                scan.wait(READER_CHECK_INTERVAL)?;
                continue;
            };
            if let Some(gap) = scanned.gap() {
                let records =
                    gap.records.map_or("records".to_owned(), |n| output::count(n, "record"));
                output::note(&format!("{records} of {} were trimmed before\n", scanned.shard()));
            }
            let record = scanned.record();
            if self.key.as_deref().is_none_or(|key| record.partition_key() == key) {
                let written = self.format.write(&mut self.out, scanned.shard(), &record);
                written.map_err(|e| Failure::stdout(&e))?;
                self.written += 1;
            }
        }
        Ok(())
    }
}
