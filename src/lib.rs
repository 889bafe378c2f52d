//! Kinesis and its client library in your process: sharded, ordered, replayable streams on
//! memory-mapped files, and workers that never skip a record. No server, no broker.
//!
//! A [`Stream`] is a directory. [`put`](Stream::put) appends a record to one of its shards, chosen
//! by the hash of the record's partition key. A [`WorkerPool`] consumes all shards, each in order,
//! and keeps checkpoints in files, so that it resumes where it stopped, whatever stopped it.
//!
//! ```
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("clicks");
//! use std::time::Duration;
//! use millstream::{Stream, WorkerPool};
//!
//! let stream = Stream::builder(&path).shards(4).open()?;
//! stream.put("customer-7", "clicked")?;
//!
//! let pool = WorkerPool::builder("billing", &stream).for_each_batch(|batch| {
//!     for record in batch {
//!         println!("{}: {} bytes", record.partition_key(), record.data().len());
//!     }
//!     Ok(()) // Checkpointed. After an error or a panic the same records come again.
//! })?;
//! assert!(pool.wait_until_idle(Duration::from_secs(10)));
//! pool.shutdown(Duration::from_secs(10));
//! # Ok::<(), millstream::Error>(())
//! ```
//!
//! # The map
//!
//! | to | see |
//! |---|---|
//! | create or open a stream | [`Stream::builder`], [`Stream::open_read_only`] |
//! | put records | [`Stream::put`], [`Stream::put_batch`], [`Stream::put_with`] |
//! | put only if nobody else did | [`Stream::put_if`], [`Stream::put_after`] |
//! | choose what an acknowledgement promises | [`Durability`] |
//! | consume all shards | [`WorkerPool`], [`RecordProcessor`], [`Checkpointer`] |
//! | watch a pool | [`WorkerPool::status`], [`WorkerPool::metrics`] |
//! | set records aside that cannot be processed | [`OnPoison`], [`DeadLetters`] |
//! | have consumers compete for records, and acknowledge each | [`Queue`], [`QueueWorkers`] |
//! | send records elsewhere in bundles | [`Emitter`], [`JsonLines`] |
//! | read all shards as one, or one key | [`Stream::scan`], [`Stream::scan_key`] |
//! | see how far an application is, move it back or forward | [`Application`] |
//! | read a shard yourself | [`Stream::shard_iterator`], [`Stream::get_records`] |
//! | change the number of shards | [`Stream::reshard_to`], [`split_shard`](Stream::split_shard) |
//! | see what a stream has | [`Stream::describe`], [`Stream::shards_with`], [`Stream::children`] |
//! | decide how long records are kept | [`Retention`], [`Stream::trim`] |
//! | look for damage in a stream's files | [`verify()`] |
//! | see the bytes of a segment explained | [`inspect_segment`] |
//! | set damage aside and go on | [`repair()`] |
//! | know what can go wrong | [`Error`] |
//! | be shown around, find a recipe | [`manual::tour`], [`manual::howto`] |
//! | know what you may rely on | [guarantees](manual::guarantees), [defaults](manual::defaults) |
//! | make it faster | [`manual::tuning`] |
//! | use the command line in scripts | [`manual::command_line`] |
//! | come from AWS Kinesis, from the KCL | [`manual::kinesis`], [`manual::workers`] |
//! | look inside | [architecture](manual::architecture), [format](manual::format) |
//! | know how it is tested | [`manual::testing`] |

// In tests an unwrap is an assertion.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod batch;
mod error;
mod format;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod hash_key;
mod lineage;
pub mod manual;
mod metrics;
mod os;
mod position;
mod queue;
mod record;
#[cfg(feature = "bytes")]
mod record_bytes;
mod repair;
mod retention;
mod seeded;
#[cfg(feature = "serde")]
mod serialization;
mod shard;
mod stream;
mod verify;
mod wait_strategy;
mod worker;

pub use batch::{Batch, Iter};
pub use error::{Error, Result};
pub use hash_key::{HashAlgorithm, HashKey, HashKeyRange};
pub use lineage::{ShardFilter, ShardInfo};
pub use metrics::{ShardCounts, ShardMetrics, Snapshot};
pub use os::clock::Clock;
pub use position::{AwsSequenceNumber, SequenceNumber, ShardId, StartingPosition};
pub use queue::{
    Depth, Message, OldestMessage, Queue, QueueBuilder, QueueWorkers, QueueWorkersBuilder,
    QueueWorkersStatus, ReceiptHandle,
};
pub use record::{
    DEFAULT_MAX_RECORD_BYTES, Durability, Gap, Lag, Limit, MAX_OPEN_SHARDS,
    MAX_PARTITION_KEY_CHARS, MAX_RECORD_BYTES, PutRecord, Receipt, Record,
};
pub use repair::{Remedy, Repair, Repaired, plan_repair, repair};
pub use retention::{Retention, WhenFull};
#[cfg(feature = "async")]
pub use stream::AsyncScan;
pub use stream::{
    Page, Scan, ScannedRecord, ShardDescription, ShardIterator, Storage, Stream, StreamBuilder,
    StreamDescription,
};
pub use verify::{
    Finding, FindingKind, SegmentPart, SegmentPartKind, Verification, VerifyProgress,
    inspect_segment, verify, verify_with_progress,
};
pub use wait_strategy::WaitStrategy;
pub use worker::{
    Application, ApplicationShard, Checkpoint, CheckpointPolicy, Checkpointer, DeadLetter,
    DeadLetters, EmitBuffer, Emitter, Initialization, JsonLine, JsonLines, OnPoison, Outcome,
    PendingCheckpoint, Prepared, ProcessorError, RecordProcessor, ShardOutcome, ShardState,
    ShardStatus, WorkerPool, WorkerPoolBuilder,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
