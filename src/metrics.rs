//! What worker pools count and measure, and how it is told to those who collect such things.
//!
//! One table, [`FAMILIES`], has every metric with its name, its meaning and where its value is; all
//! that publish go by it. The names are those of the KCL where it has one, in the spelling of
//! Prometheus.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::position::ShardId;
use crate::record::Lag;
#[cfg(feature = "serde")]
use crate::serialization::{as_ms, option_as_ms};

/// What a pool has done and how it is, shard by shard, at one moment; see
/// [`WorkerPool::metrics`](crate::WorkerPool::metrics).
///
/// Displayed, it is text for Prometheus, to be served as `text/plain; version=0.0.4`, with the
/// labels `application`, `stream` and `shard`. Several pools in one process make one text: extend
/// the shards of one snapshot by those of the others. With the feature `metrics` the pool tells the
/// same, under the same names, to the recorder of the `metrics` crate, each time that it looks at
/// its leases ([`look_interval`](crate::WorkerPoolBuilder::look_interval)).
///
/// | metric, behind `millstream_` | in the KCL | is |
/// |---|---|---|
/// | `records_processed_total` | RecordsProcessed | records, also those that came again |
/// | `data_bytes_processed_total` | DataBytesProcessed | their data, in bytes |
/// | `batches_processed_total` | | batches |
/// | `process_records_millis_total` | processRecords.Time | time in it |
/// | `failures_total` | | attempts that have failed |
/// | `dead_letters_total` | | records put aside |
/// | `leases_taken_total` | TakenLeases | times the pool has taken the shard |
/// | `leases_lost_total` | LostLeases | times another one has taken it |
/// | `leases_handed_over_total` | | times it was given to one who asked |
/// | `stalls_total` | | callbacks that ran longer than `stall_limit` |
/// | `current_leases` | CurrentLeases | 1 if the pool has the shard, else 0 |
/// | `failed_attempts` | | failures since the worker last got on |
/// | `stalled` | | 1 if a callback runs longer than `stall_limit`, else 0 |
/// | `callback_running_millis` | | how long a callback has been running |
/// | `millis_behind_latest` | MillisBehindLatest | age of the oldest record to come |
/// | `records_behind_latest` | | records to come |
/// | `bytes_behind_latest` | | what they take in the log |
///
/// What ends in `total` rises as long as the pool lives, the rest is as it is now. What is to come
/// in a shard that another pool has, that one tells.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// # use std::time::Duration;
/// use millstream::{Batch, Checkpointer, WorkerPool};
///
/// let pool = WorkerPool::builder("billing", &stream)
///     .start(|_| |_: &Batch, _: &mut Checkpointer<'_>| Ok(()))?;
/// stream.put("customer-7", "clicked")?;
/// assert!(pool.wait_until_idle(Duration::from_secs(10)));
/// let metrics = pool.metrics();
/// assert_eq!(metrics.shards[0].counts.records_processed, 1);
/// assert!(metrics.to_string().contains("# TYPE millstream_millis_behind_latest gauge\n"));
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// The shards, by id.
    pub shards: Vec<ShardMetrics>,
}

/// One shard of a [`Snapshot`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::WorkerPool;
///
/// let pool = WorkerPool::builder("billing", &stream).for_each_batch(|_| Ok(()))?;
/// for shard in pool.metrics().shards {
///     let behind = shard.lag.map_or(0, |lag| lag.records);
///     println!("{} of {}: {behind} records behind", shard.shard, shard.application);
/// }
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ShardMetrics {
    /// Who processes it.
    pub application: Arc<str>,
    /// The directory of its stream.
    pub stream: Arc<str>,
    /// The shard.
    pub shard: ShardId,
    /// What the pool has done in it.
    pub counts: ShardCounts,
    /// Whether the pool has it.
    pub is_leased: bool,
    /// What it has behind the last record that was processed; none if that is not known, or another
    /// pool has the shard.
    pub lag: Option<Lag>,
    /// How many attempts have failed since the worker last got on.
    pub failed_attempts: u32,
    /// How long the callback that is running has been running.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "callback_running_for_ms", serialize_with = "option_as_ms")
    )]
    pub callback_running_for: Option<Duration>,
    /// Whether that is too long.
    pub is_stalled: bool,
}

/// What a pool has done in a shard since it was started.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// # use std::time::Duration;
/// use millstream::WorkerPool;
///
/// stream.put("customer-7", "clicked")?;
/// let pool = WorkerPool::builder("billing", &stream).for_each_batch(|_| Ok(()))?;
/// assert!(pool.wait_until_idle(Duration::from_secs(10)));
/// let counts = pool.metrics().shards[0].counts;
/// assert_eq!((counts.records_processed, counts.data_bytes_processed, counts.failures), (1, 7, 0));
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ShardCounts {
    /// Records, counting those that came again.
    pub records_processed: u64,
    /// The data of these records, in bytes.
    pub data_bytes_processed: u64,
    /// The batches that they came in.
    pub batches_processed: u64,
    /// How long `process_records` took, whether it succeeded or failed.
    #[cfg_attr(feature = "serde", serde(rename = "process_records_ms", serialize_with = "as_ms"))]
    pub process_records_time: Duration,
    /// Attempts that have failed.
    pub failures: u64,
    /// Records that were put aside as dead letters.
    pub dead_letters: u64,
    /// How often the pool has taken the shard.
    pub leases_taken: u64,
    /// How often another one has taken it from this pool.
    pub leases_lost: u64,
    /// How often this pool has given it to one who asked.
    pub leases_handed_over: u64,
    /// Callbacks that ran longer than the pool's limit.
    pub stalls: u64,
}

impl ShardCounts {
    /// What two workers of a shard have done, which share its lease.
    pub(crate) fn with(self, other: Self) -> Self {
        Self {
            records_processed: self.records_processed + other.records_processed,
            data_bytes_processed: self.data_bytes_processed + other.data_bytes_processed,
            batches_processed: self.batches_processed + other.batches_processed,
            process_records_time: self.process_records_time + other.process_records_time,
            failures: self.failures + other.failures,
            dead_letters: self.dead_letters + other.dead_letters,
            leases_taken: self.leases_taken.max(other.leases_taken),
            leases_lost: self.leases_lost.max(other.leases_lost),
            leases_handed_over: self.leases_handed_over.max(other.leases_handed_over),
            stalls: self.stalls + other.stalls,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It only rises.
    Counter,
    Gauge,
}

/// A metric: what it is called, what it is, and where its value is, if there is one.
struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    value: fn(&ShardMetrics) -> Option<u64>,
}

const fn counter(
    name: &'static str,
    help: &'static str,
    value: fn(&ShardMetrics) -> Option<u64>,
) -> Family {
    Family { name, kind: Kind::Counter, help, value }
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    value: fn(&ShardMetrics) -> Option<u64>,
) -> Family {
    Family { name, kind: Kind::Gauge, help, value }
}

const FAMILIES: [Family; 17] = [
    counter(
        "millstream_records_processed_total",
        "Records that were processed, those that came again too.",
        |shard| Some(shard.counts.records_processed),
    ),
    counter(
        "millstream_data_bytes_processed_total",
        "Data of the records that were processed, in bytes.",
        |shard| Some(shard.counts.data_bytes_processed),
    ),
    counter("millstream_batches_processed_total", "Batches that were processed.", |shard| {
        Some(shard.counts.batches_processed)
    }),
    counter(
        "millstream_process_records_millis_total",
        "Time in process_records, in milliseconds.",
        |shard| Some(millis(shard.counts.process_records_time)),
    ),
    counter("millstream_failures_total", "Attempts that have failed.", |shard| {
        Some(shard.counts.failures)
    }),
    counter("millstream_dead_letters_total", "Records that were put aside.", |shard| {
        Some(shard.counts.dead_letters)
    }),
    counter("millstream_leases_taken_total", "How often the pool has taken the shard.", |shard| {
        Some(shard.counts.leases_taken)
    }),
    counter(
        "millstream_leases_lost_total",
        "How often another pool has taken the shard from this one.",
        |shard| Some(shard.counts.leases_lost),
    ),
    counter(
        "millstream_leases_handed_over_total",
        "How often the pool has given the shard to one that asked.",
        |shard| Some(shard.counts.leases_handed_over),
    ),
    counter(
        "millstream_stalls_total",
        "Callbacks that ran longer than the limit of the pool.",
        |shard| Some(shard.counts.stalls),
    ),
    gauge("millstream_current_leases", "1 if the pool has the shard.", |shard| {
        Some(shard.is_leased.into())
    }),
    gauge(
        "millstream_failed_attempts",
        "Attempts that have failed since the worker last got on.",
        |shard| Some(shard.failed_attempts.into()),
    ),
    gauge("millstream_stalled", "1 if a callback runs longer than the limit.", |shard| {
        Some(shard.is_stalled.into())
    }),
    gauge(
        "millstream_callback_running_millis",
        "How long the callback that is running has been running, in milliseconds.",
        |shard| Some(millis(shard.callback_running_for.unwrap_or_default())),
    ),
    gauge(
        "millstream_millis_behind_latest",
        "Age of the oldest record that is not processed, in milliseconds.",
        |shard| shard.lag.map(|lag| lag.millis),
    ),
    gauge("millstream_records_behind_latest", "Records that are not processed.", |shard| {
        shard.lag.map(|lag| lag.records)
    }),
    gauge(
        "millstream_bytes_behind_latest",
        "What the records that are not processed take in the log, in bytes.",
        |shard| shard.lag.map(|lag| lag.bytes),
    ),
];

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The text exposition format of Prometheus, version 0.0.4.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Family { name, kind, help, value } in &FAMILIES {
            let kind = if *kind == Kind::Counter { "counter" } else { "gauge" };
            write!(f, "# HELP {name} {help}\n# TYPE {name} {kind}\n")?;
            for metrics in &self.shards {
                let Some(value) = value(metrics) else { continue };
                let ShardMetrics { application, stream, shard, .. } = metrics;
                let (application, stream) = (Label(application), Label(stream));
                let labels = format_args!(
                    r#"application="{application}",stream="{stream}",shard="{shard}""#
                );
                writeln!(f, "{name}{{{labels}}} {value}")?;
            }
        }
        Ok(())
    }
}

/// What a label says, as it is written between quotes.
struct Label<'a>(&'a str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str(r"\\"),
            '"' => f.write_str(r#"\""#),
            '\n' => f.write_str(r"\n"),
            c => write!(f, "{c}"),
        })
    }
}

#[cfg(feature = "metrics")]
impl Snapshot {
    /// Tells all of it to the recorder of the `metrics` crate, if one is installed. Pools do it by
    /// themselves.
    pub fn publish(&self) {
        for Family { name, kind, help, value } in &FAMILIES {
            match kind {
                Kind::Counter => ::metrics::describe_counter!(*name, *help),
                Kind::Gauge => ::metrics::describe_gauge!(*name, *help),
            }
            for shard in &self.shards {
                let Some(value) = value(shard) else { continue };
                let labels = [
                    ("application", shard.application.to_string()),
                    ("stream", shard.stream.to_string()),
                    ("shard", shard.shard.to_string()),
                ];
                match kind {
                    Kind::Counter => ::metrics::counter!(*name, &labels).absolute(value),
                    Kind::Gauge => ::metrics::gauge!(*name, &labels).set(value as f64),
                }
            }
        }
    }
}
