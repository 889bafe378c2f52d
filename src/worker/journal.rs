//! What happens to the workers of a pool, told once, where it happens: counted on the board and,
//! with the feature `tracing`, told to those who listen.

use std::time::Duration;

use crate::metrics::ShardCounts;
use crate::position::SequenceNumber;
#[cfg(feature = "tracing")]
use crate::position::ShardId;
use crate::worker::status::{Board, WorkerKey};

/// Something that happens to the worker of a shard.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "only the kinds are counted"))]
pub(super) enum Change<'a> {
    /// The pool has taken the shard.
    LeaseTaken {
        epoch: u64,
    },
    /// Another one has it.
    LeaseLost,
    /// It was given to another pool that asked for it.
    LeaseHandedOver,
    /// A processor begins.
    Started {
        attempt: u32,
    },
    /// It has failed.
    Failed {
        attempts: u32,
        error: &'a str,
    },
    /// It is known which record it is that fails.
    Poison {
        number: SequenceNumber,
    },
    DeadLettered {
        number: SequenceNumber,
    },
    Parked,
    /// A callback runs longer than it may.
    Stalled {
        callback: &'static str,
        running_for: Duration,
    },
    /// A callback that had stalled has come back.
    StallOver {
        callback: &'static str,
        ran_for: Duration,
    },
    /// The shard is processed to its end.
    ShardEnded,
    /// The worker is gone, as the pool shuts down.
    Stopped,
}

impl Change<'_> {
    fn count(self, counts: &mut ShardCounts) {
        match self {
            Self::LeaseTaken { .. } => counts.leases_taken += 1,
            Self::LeaseLost => counts.leases_lost += 1,
            Self::LeaseHandedOver => counts.leases_handed_over += 1,
            Self::Failed { .. } => counts.failures += 1,
            Self::DeadLettered { .. } => counts.dead_letters += 1,
            Self::Stalled { .. } => counts.stalls += 1,
            Self::Started { .. }
            | Self::Poison { .. }
            | Self::Parked
            | Self::StallOver { .. }
            | Self::ShardEnded
            | Self::Stopped => {}
        }
    }
}

impl Board {
    /// Tells what happens to a worker. Those who listen may ask the pool how it is.
    pub(super) fn tell(&self, worker: WorkerKey, change: Change<'_>) {
        self.update(worker, |entry| change.count(&mut entry.counts));
        #[cfg(feature = "tracing")]
        self.emit(worker.0, change);
    }

    /// Tells that the pool shuts down.
    pub(super) fn tell_shutdown(&self) {
        #[cfg(feature = "tracing")]
        tracing::info!(application = &*self.application, stream = &*self.stream, "shutting down");
    }

    #[cfg(feature = "tracing")]
    fn emit(&self, shard: ShardId, change: Change<'_>) {
        macro_rules! event {
            ($level:ident, $text:literal $(, $name:ident = $value:expr)*) => {
                tracing::event!(
                    tracing::Level::$level,
                    application = &*self.application,
                    stream = &*self.stream,
                    %shard,
                    $($name = $value,)*
                    $text
                )
            };
        }
        let millis = |time: Duration| time.as_millis() as u64;
        match change {
            Change::LeaseTaken { epoch } => event!(INFO, "lease taken", epoch = epoch),
            Change::LeaseLost => event!(WARN, "lease lost"),
            Change::LeaseHandedOver => event!(INFO, "lease handed over"),
            Change::Started { attempt } => event!(INFO, "worker started", attempt = attempt),
            Change::Failed { attempts, error } => {
                event!(WARN, "worker failed", attempts = attempts, error = error);
            }
            Change::Poison { number } => {
                event!(WARN, "poison", sequence_number = tracing::field::display(number));
            }
            Change::DeadLettered { number } => {
                event!(WARN, "dead-lettered", sequence_number = tracing::field::display(number));
            }
            Change::Parked => event!(ERROR, "parked"),
            Change::Stalled { callback, running_for } => {
                let running_ms = millis(running_for);
                event!(WARN, "stalled", callback = callback, running_ms = running_ms);
            }
            Change::StallOver { callback, ran_for } => {
                event!(INFO, "stall over", callback = callback, ran_ms = millis(ran_for));
            }
            Change::ShardEnded => event!(INFO, "shard ended"),
            Change::Stopped => event!(INFO, "worker stopped"),
        }
    }
}
