//! How far an application is in the shards of a stream, for one who consumes them in a way of its
//! own. Its rows are those of the control table, so that retention and whoever looks at the
//! application from outside see how far it is, as if it had pools.

use std::sync::Arc;

use crate::error::Result;
use crate::format::names::APPLICATIONS;
use crate::lineage::ShardInfo;
use crate::position::{ShardId, StartingPosition};
use crate::stream::Stream;
use crate::worker::control_table::ControlTable;
use crate::worker::lease::{self, Lease};
use crate::worker::lease_table::LeaseTable;

/// The control table of an application that has no pools.
pub(crate) struct Progress {
    stream: Stream,
    table: Arc<ControlTable>,
    start: StartingPosition,
}

impl Progress {
    /// That of the application with this name, which begins at this position if it is new.
    pub(crate) fn join(
        application: &str,
        stream: &Stream,
        start: StartingPosition,
    ) -> Result<Self> {
        let table = ControlTable::join(&stream.path().join(APPLICATIONS), application, None)?;
        Ok(Self { stream: stream.clone(), table: Arc::new(table), start })
    }

    /// Takes the shards that are not processed to the end, but for those that it has already.
    pub(crate) fn take(&self, has: impl Fn(ShardId) -> bool) -> Result<Vec<(ShardInfo, Lease)>> {
        let shards = self.stream.shards();
        let with_row = lease::make_rows(&*self.table, &self.stream, &shards, self.start)?;
        let mut taken = Vec::new();
        for info in shards.into_iter().filter(|info| with_row.contains(&info.id) && !has(info.id)) {
            let row = self.table.read(info.id)?;
            if let Some(lease) = Lease::take(Arc::clone(&self.table) as _, &info, &row)? {
                taken.push((info, lease));
            }
        }
        Ok(taken)
    }
}
