//! The processor of the simulation.

use super::*;
use crate::worker::lane::lane_of;

/// Checks what it is given, and fails now and then.
pub(super) struct Checked {
    pub(super) world: Arc<World>,
    pub(super) pool: Arc<Pool>,
    pub(super) shard: ShardInfo,
    /// How many lanes the shard has.
    pub(super) lanes: usize,
    /// Its number, as soon as it has one.
    pub(super) instance: Option<usize>,
}

impl Checked {
    fn is_in(&self, lane: usize, number: u64) -> bool {
        lane_of(self.world.stream(self.shard.id).source.key(number), number.into(), self.lanes)
            == lane
    }

    /// The lease is this processor's when a callback begins.
    fn check_lease(&self) {
        let row = &self.world.stream(self.shard.id).database.rows()[&self.shard.id];
        let mut history = self.world.history.lock();
        let epoch = history.instances[self.instance.unwrap()].epoch;
        let is_so = row.epoch == epoch && row.owner.is_some();
        history.must(is_so, || format!("{}: two owners", self.shard.id));
    }

    /// Whatever a processor may do instead of its work.
    fn misbehave(&self) -> Result<(), ProcessorError> {
        if *self.world.is_calm.lock() {
            return Ok(());
        }
        match self.world.below(40) {
            0 | 1 => {
                self.world.count("error");
                Err("as the seed wants it".into())
            }
            2 => {
                self.world.count("panic");
                std::panic::resume_unwind(Box::new("as the seed wants it"))
            }
            3 if *self.world.depth.lock() < MAX_DEPTH => {
                self.world.count("hang");
                *self.pool.busy.lock() += 1;
                *self.world.depth.lock() += 1;
                for _ in 0..self.world.below(600) {
                    self.world.step();
                }
                *self.world.depth.lock() -= 1;
                *self.pool.busy.lock() -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl RecordProcessor for Checked {
    fn initialize(&mut self, initialization: &Initialization) {
        let row = &self.world.stream(self.shard.id).database.rows()[&self.shard.id];
        let mut history = self.world.history.lock();
        for parent in self.shard.parents() {
            let has_ended = history.is_processed(parent, u64::MAX);
            history.must(has_ended, || format!("{} before {parent}", self.shard.id));
        }
        let is_so = Checkpoint::at(row.checkpoint) == initialization.checkpoint || self.lanes > 1;
        history.must(is_so, || format!("{}: another checkpoint", self.shard.id));
        let after = initialization.checkpoint.number().and_then(SequenceNumber::address);
        let (shard, epoch, position) = (self.shard.id, row.epoch, after.unwrap_or(0));
        let lane = initialization.lane;
        let mut own = history.put.get(&shard).into_iter().flatten().take_while(|n| **n <= position);
        let processed = history.processed.get(&shard);
        let is_done = own.all(|number| {
            !self.is_in(lane, *number) || processed.is_some_and(|done| done.contains(number))
        });
        history.must(is_done, || format!("{shard}: lane {lane} is ahead of itself"));
        self.instance = Some(history.instances.len());
        history.instances.push(Instance { shard, lane, epoch, position });
    }

    fn process_records(
        &mut self,
        batch: &Batch,
        checkpointer: &mut Checkpointer<'_>,
    ) -> Result<(), ProcessorError> {
        self.check_lease();
        let given: Vec<u64> = numbers(batch).collect();
        {
            let mut history = self.world.history.lock();
            let Instance { shard, lane, position, .. } = history.instances[self.instance.unwrap()];
            let put = &history.put[&shard];
            let first = put.partition_point(|number| *number <= position);
            let own = put[first..].iter().filter(|number| self.is_in(lane, **number));
            let is_so = own.take(given.len()).eq(&given);
            let what = || format!("{shard}: skipped, repeated or out of order: {given:?}");
            history.must(is_so, what);
        }
        self.misbehave()?;
        {
            let mut history = self.world.history.lock();
            history.process(self.shard.id, &given);
            history.instances[self.instance.unwrap()].position = *given.last().unwrap();
        }
        if self.world.policy == CheckpointPolicy::Manual && self.world.below(2) == 0 {
            checkpointer.checkpoint()?;
        }
        Ok(())
    }

    fn shard_ended(&mut self) -> Result<(), ProcessorError> {
        self.check_lease();
        self.misbehave()
    }

    fn lease_lost(&mut self) {
        self.world.count("lease lost");
    }

    fn shutdown_requested(&mut self, checkpointer: &mut Checkpointer<'_>) {
        self.world.count("handed over or stopped");
        let _ = checkpointer.checkpoint();
    }
}
