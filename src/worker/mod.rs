//! Workers: consume shards, checkpoint, restart, never skip a record.
//!
//! - `builder.rs`, `pool.rs`: what users hold in their hands
//! - `opening.rs`, `shared.rs`: how a stream comes to a pool, and what its parts share
//! - `crew.rs`, `life.rs`: the threads, and how they and the owner come to an end
//! - `processor.rs`, `checkpoint.rs`: what users write, and what it is lent
//! - `shard_worker/`: one shard's worker: a batch, the callback, the checkpoint; failing, leaving
//! - `lane.rs`: several workers in one shard, by keys
//! - `linger.rs`: waiting for a fuller batch
//! - `supervisor.rs`: who works when; catching a panic
//! - `retry_delay.rs`: how long to wait after a failure
//! - `poison.rs`, `dead_letter.rs`: the record that fails always: finding it, putting it aside
//! - `emit/`: records that go elsewhere by the bundle
//! - `lease.rs`: the right to a shard; `lease_table.rs`: what it stands on
//! - `control_table.rs`, `member.rs`: who has a shard and how far it is, and who is there, in files
//! - `coordinator.rs`, `balance.rs`: which shards this pool works on, if there are several pools
//! - `cleanup.rs`: when a row is not needed any more, and what it means that there is none
//! - `application.rs`: an application looked at from outside, and set back or forward
//! - `status.rs`: what is going on; `outcome.rs`: how shards were left
//! - `callback.rs`, `journal.rs`: what takes too long, what happens
//! - `source.rs`: where records come from
//! - `progress.rs`: the control table for one who consumes without a pool
//!
//! A worker is a value that is always in one place: in the queue of those that are ready, with the
//! thread that has taken it from there, or with the supervisor, which keeps those that have
//! nothing to do now. So no two threads ever work on one shard, and no lock says so.

mod application;
mod balance;
mod builder;
mod callback;
mod checkpoint;
mod cleanup;
mod control_table;
mod coordinator;
mod crew;
mod dead_letter;
mod emit;
mod journal;
mod lane;
mod lease;
mod lease_table;
mod life;
mod linger;
mod member;
mod opening;
mod outcome;
mod poison;
mod pool;
mod processor;
mod progress;
mod retry_delay;
mod shard_worker;
mod shared;
mod source;
mod status;
mod supervisor;
#[cfg(test)]
mod tests;

pub(crate) use control_table::check_name;
pub(crate) use lease::Lease;
pub(crate) use progress::Progress;
pub(crate) use retry_delay::RetryDelay;
pub(crate) use supervisor::caught;

pub use application::{Application, ApplicationShard};
pub use builder::WorkerPoolBuilder;
pub use checkpoint::{Checkpoint, CheckpointPolicy, Checkpointer, PendingCheckpoint, Prepared};
pub(crate) use dead_letter::{Aside, shortened};
pub use dead_letter::{DeadLetter, DeadLetters};
pub use emit::{EmitBuffer, Emitter, JsonLine, JsonLines};
pub use outcome::{Outcome, ShardOutcome};
pub use poison::OnPoison;
pub use pool::WorkerPool;
pub use processor::{Initialization, ProcessorError, RecordProcessor};
pub use status::{ShardState, ShardStatus};
