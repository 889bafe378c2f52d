//! How a stream comes to a pool: at its start, or later.

use std::sync::Arc;

use crossbeam_channel::unbounded;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::format::control_row::MemberId;
use crate::format::names::APPLICATIONS;
use crate::lineage::ShardInfo;
use crate::stream::Stream;
use crate::worker::builder::Options;
use crate::worker::control_table::{ControlTable, must_not_be_queue};
use crate::worker::lease_table::LeaseTable;
use crate::worker::pool::{self, Consumed, WorkerPool};
use crate::worker::processor::RecordProcessor;
use crate::worker::shared::{Common, Shared};
use crate::worker::supervisor::Supervisor;

/// Makes a processor for a shard of a stream.
type Factory = dyn Fn(&Stream, &ShardInfo) -> Box<dyn RecordProcessor> + Send + Sync;

/// What every stream of a pool is consumed with.
pub(super) struct Opening {
    application: String,
    options: Options,
    factory: Arc<Factory>,
    common: Common<Stream>,
    /// Who the pool is, in all streams if it can be: so others see what it has in all of them.
    id: Mutex<Option<MemberId>>,
}

impl Opening {
    pub(super) fn new(application: String, options: Options, factory: Arc<Factory>) -> Self {
        Self { application, options, factory, common: Common::new(), id: Mutex::default() }
    }

    /// Begins with a stream.
    fn open(&self, stream: &Stream) -> Result<(Consumed, Supervisor<Stream>)> {
        let mut id = self.id.lock();
        let applications = stream.path().join(APPLICATIONS);
        must_not_be_queue(&applications, &self.application)?;
        let table = ControlTable::join(&applications, &self.application, *id)?;
        id.get_or_insert(table.me());
        let (path, options) = (table.path().to_owned(), self.options.clone());
        let (factory, of) = (Arc::clone(&self.factory), stream.clone());
        let factory = Box::new(move |shard: &ShardInfo| factory(&of, shard));
        let (stream, table) = (stream.clone(), Arc::new(table));
        let shared = Shared::new(stream, table, &path, options, factory, &self.common);
        let consumed = shared.consumed();
        Ok((consumed, Supervisor::new(Arc::new(shared), &self.common.queue)?))
    }
}

/// Starts a pool with these streams.
pub(super) fn start(streams: &[Stream], opening: Opening) -> Result<WorkerPool> {
    let mut opened = (Vec::new(), Vec::new());
    for (index, stream) in streams.iter().enumerate() {
        if streams[..index].iter().any(|other| other.path() == stream.path()) {
            let what = format!("{} is there twice", stream.path().display());
            return Err(Error::InvalidArgument(what));
        }
        opened.extend([opening.open(stream)?]);
    }
    let (add, added) = unbounded();
    let opening = Arc::new(opening);
    let adding = Arc::clone(&opening);
    let add = Box::new(move |stream: &Stream| {
        let (consumed, supervisor) = adding.open(stream)?;
        // If nobody takes it, the pool has just stopped, and it is as if this had come before.
        let _ = add.send(supervisor);
        adding.common.life.supervisors.notify();
        Ok(consumed)
    });
    pool::start(&opening.common, &opening.options, opened, added, add)
}
