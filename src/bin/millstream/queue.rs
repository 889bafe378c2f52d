//! `millstream queue`: a stream as a queue of messages.

use std::io;
use std::time::Duration;

use clap::Subcommand;
use millstream::{Message, Queue, QueueBuilder, ReceiptHandle, Stream};
use serde_json::json;

use crate::apps::Place;
use crate::failure::{Failure, Result};
use crate::keys::{Keys, without_line_end};
use crate::lines::LineReader;
use crate::output;
use crate::quantity;
use crate::record_format::{Delimiter, data_as_json};

/// Puts, receives and acknowledges messages: consumers compete for the records of a stream.
///
/// A queue is an application of the stream. Each message is given to one consumer, who has to
/// acknowledge it in time, or it comes again.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream queue put data/jobs --app draw --delay 10m < later.txt
  millstream queue receive data/jobs --app draw --max 10 --wait 20s
  millstream queue ack data/jobs --app draw shardId-000000000000:4096:1
  millstream queue depth data/jobs --app draw

All but depth need the stream for themselves: exit code 3 if another process puts to it.")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Put(Put),
    Receive(Receive),
    Ack(Ack),
    /// Tell how many messages are ready, in flight, delayed, and put aside as dead letters.
    #[command(after_help = "\
Example:
  millstream queue depth data/jobs --app draw --json | jq .ready

It needs no lock: it looks beside the process that has the queue.")]
    Depth(Place),
    /// Take everything for done that the stream has now, for this queue.
    #[command(after_help = "\
Example:
  millstream queue purge data/jobs --app draw")]
    Purge(Place),
}

/// Put each line of standard input as a message, which this queue gives to nobody before a delay
/// is over.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  echo 'customer-7 your trial ends' | millstream queue put data/jobs --app mail -K' ' --delay 7d

Without a delay it is as `millstream put`.")]
struct Put {
    #[command(flatten)]
    place: Place,
    /// How long nobody gets it, as in 90s, 30m, 12h or 7d; at most 365d.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_time)]
    delay: Duration,
    /// The key is what stands before the first DELIM of the line, the data what stands behind it.
    /// Without this, a line's key is its place in the input.
    #[arg(short = 'K', value_name = "DELIM")]
    key_delimiter: Option<Delimiter>,
}

/// Receive messages: the receipt handle, the key and the data of each, with a TAB in between.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream queue receive data/jobs --app draw --max 10 --wait 20s --json
  millstream queue receive data/jobs --app draw --ack | while read -r line; do ...; done

What is received is to be acknowledged by its handle before the visibility timeout is over.")]
struct Receive {
    #[command(flatten)]
    place: Place,
    /// How many at the most.
    #[arg(long, value_name = "N", default_value_t = 1)]
    max: usize,
    /// How long to wait if there is none, as in 500ms, 20s or 1h.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_time)]
    wait: Duration,
    /// How long nobody else gets them, at most 12h.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    visibility: Duration,
    /// Puts those aside as dead letters that were received so often.
    #[arg(long, value_name = "N")]
    max_receives: Option<u16>,
    /// Gives a message only when all earlier ones of its key are done.
    #[arg(long)]
    ordered: bool,
    /// Acknowledges them when they are written.
    #[arg(long)]
    ack: bool,
}

/// Acknowledge messages by their receipt handles: they never come again.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  millstream queue ack data/jobs --app draw shardId-000000000000:4096:1

One whose receipt has expired is an error; those before it are acknowledged.")]
struct Ack {
    #[command(flatten)]
    place: Place,
    /// As `receive` writes them.
    #[arg(value_name = "HANDLE", required = true)]
    handles: Vec<ReceiptHandle>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.verb {
        Verb::Put(args) => put(args),
        Verb::Receive(args) => receive(args),
        Verb::Ack(args) => ack(args),
        Verb::Depth(place) => depth(place),
        Verb::Purge(place) => purge(place),
    }
}

/// Does something with a queue, and leaves others what they have in flight.
fn with_queue(
    Place { dir, app, .. }: &Place,
    settings: impl FnOnce(QueueBuilder) -> QueueBuilder,
    run: impl FnOnce(&Queue) -> Result<()>,
) -> Result<()> {
    let stream = Stream::builder(dir).open_existing()?;
    let queue = settings(Queue::builder(app, &stream).keep_in_flight()).open()?;
    let done = run(&queue);
    let closed = queue.close().and_then(|()| stream.close());
    done.and_then(|()| Ok(closed?))
}

fn put(args: &Put) -> Result<()> {
    with_queue(&args.place, |builder| builder, |queue| put_lines(args, queue))
}

fn put_lines(args: &Put, queue: &Queue) -> Result<()> {
    let keys = match &args.key_delimiter {
        Some(Delimiter(delimiter)) => Keys::Before(delimiter.clone()),
        None => Keys::Count,
    };
    let mut reader = LineReader::new(io::stdin());
    let mut number = 0;
    let unreadable = |e| Failure::error(format!("cannot read standard input: {e}"));
    while let Some(lines) = reader.next_lines().map_err(unreadable)? {
        for line in lines.split_inclusive(|byte| *byte == b'\n').map(without_line_end) {
            number += 1;
            let count = number.to_string();
            let record = keys.split(line, Some(&count)).map_err(Failure::error);
            let put = record.and_then(|record| put_one(args, queue, record));
            put.map_err(|failure| failure.at(format!("line {number}")))?;
        }
    }
    if !args.place.json {
        output::note(&format!("{} put\n", output::count(number, "message")));
    }
    Ok(())
}

fn put_one(args: &Put, queue: &Queue, (key, data): (&str, &[u8])) -> Result<()> {
    let receipt = queue.put_delayed((key, data), args.delay)?;
    if !args.place.json {
        return Ok(());
    }
    output::print_json(&json!({
        "shard": receipt.shard.to_string(),
        "sequence_number": receipt.sequence_number.to_string(),
        "partition_key": key,
        "delay_ms": args.delay.as_millis() as u64,
    }))
}

fn receive(args: &Receive) -> Result<()> {
    let settings = |mut builder: QueueBuilder| {
        builder = builder.visibility_timeout(args.visibility);
        if let Some(count) = args.max_receives {
            builder = builder.max_receives(count);
        }
        if args.ordered { builder.ordered_by_key() } else { builder }
    };
    with_queue(&args.place, settings, |queue| {
        for message in queue.receive(args.max, args.wait)? {
            // What cannot be written is given back.
            write(&message, args.place.json)?;
            if args.ack {
                message.ack()?;
            } else {
                message.keep();
            }
        }
        Ok(())
    })
}

fn write(message: &Message, is_json: bool) -> Result<()> {
    let handle = message.handle();
    if !is_json {
        let data = String::from_utf8_lossy(message.data());
        return output::print(&format!("{handle}\t{}\t{data}\n", message.partition_key()));
    }
    let mut value = json!({
        "receipt_handle": handle.to_string(),
        "shard": message.shard().to_string(),
        "sequence_number": message.sequence_number().to_string(),
        "partition_key": message.partition_key(),
        "arrival_ms": message.arrival_ms(),
        "receive_count": message.receive_count(),
    });
    let (name, data) = data_as_json(message.data());
    value[name] = data.into();
    output::print_json(&value)
}

fn ack(args: &Ack) -> Result<()> {
    with_queue(
        &args.place,
        |builder| builder,
        |queue| {
            for handle in &args.handles {
                queue.ack(*handle)?;
                if args.place.json {
                    output::print_json(&json!({ "receipt_handle": handle.to_string() }))?;
                } else {
                    output::print(&format!("{handle} is done\n"))?;
                }
            }
            Ok(())
        },
    )
}

fn depth(Place { dir, app, json }: &Place) -> Result<()> {
    let depth = Queue::depth_of(app, &Stream::open_read_only(dir)?)?;
    if *json {
        return output::print_json(&json!({
            "app": app, "ready": depth.ready, "in_flight": depth.in_flight,
            "delayed": depth.delayed, "dead": depth.dead,
        }));
    }
    let (ready, in_flight) = (output::count(depth.ready, "message"), depth.in_flight);
    let (delayed, dead) = (depth.delayed, output::count(depth.dead, "dead letter"));
    output::print(&format!("{ready} ready, {in_flight} in flight, {delayed} delayed, {dead}\n"))
}

fn purge(place: &Place) -> Result<()> {
    with_queue(
        place,
        |builder| builder,
        |queue| {
            let purged = queue.purge()?;
            if place.json {
                return output::print_json(&json!({ "app": place.app, "purged": purged }));
            }
            output::print(&format!("{} purged\n", output::count(purged, "message")))
        },
    )
}

fn parse_time(text: &str) -> Result<Duration, String> {
    quantity::duration(text).ok_or_else(|| "a time is expected, as in 500ms, 20s or 12h".to_owned())
}
