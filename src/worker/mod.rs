//! Workers: consume shards, checkpoint, restart, never skip a record.
//!
//! - `builder.rs`, `pool.rs`: what users hold in their hands
//! - `processor.rs`, `checkpoint.rs`: what users write, and what it is lent
//! - `shard_worker.rs`: one shard's worker: a batch, the callback, the checkpoint
//! - `supervisor.rs`: who works when; catching a panic
//! - `poison.rs`, `dead_letter.rs`: the record that fails always: finding it, putting it aside
//! - `lease.rs`, `control_table.rs`: who has a shard, and how far it is, on disk
//! - `status.rs`: what is going on
//! - `source.rs`: where records come from
//!
//! A worker is a value that is always in one place: in the queue of those that are ready, with the
//! thread that has taken it from there, or with the supervisor, which keeps those that have
//! nothing to do now. So no two threads ever work on one shard, and no lock says so.

mod builder;
mod checkpoint;
mod control_table;
mod dead_letter;
mod lease;
mod poison;
mod pool;
mod processor;
mod shard_worker;
mod source;
mod status;
mod supervisor;
#[cfg(test)]
mod tests;

pub use builder::WorkerPoolBuilder;
pub use checkpoint::{Checkpoint, CheckpointPolicy, Checkpointer};
pub use dead_letter::{DeadLetter, DeadLetters};
pub use poison::OnPoison;
pub use pool::WorkerPool;
pub use processor::{Initialization, ProcessorError, RecordProcessor};
pub use status::{Outcome, ShardState, ShardStatus};
