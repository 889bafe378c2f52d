//! What applications have processed of a shard, as their rows say. They may run in other processes.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::format::control_row::{self, ROW_LEN, RowKey};
use crate::format::names::{APPLICATIONS, ROW};
use crate::os::fs;
use crate::position::{SequenceNumber, ShardId, StartingPosition};

/// How far all of some applications have processed a shard.
#[derive(Debug)]
pub(super) struct Processed {
    through: u64,
    rows: Vec<(PathBuf, File)>,
}

impl Processed {
    /// Looks into the rows of these applications. One that has none has processed nothing, nor has
    /// one whose row does not hold: whoever opens it is told so.
    pub(super) fn look(stream: &Path, applications: &[String], shard: ShardId) -> Result<Self> {
        let mut processed = Self { through: u64::MAX, rows: Vec::new() };
        for application in applications {
            let path = stream.join(APPLICATIONS).join(application).join(format!("{shard}{ROW}"));
            let Some(file) = fs::open_if_any(&path)? else {
                processed.through = 0;
                continue;
            };
            let mut bytes = [0; ROW_LEN];
            let len = fs::read_at(&file, &path, &mut bytes, 0)?;
            let row = control_row::decode(RowKey::new(application, shard), &bytes[..len]);
            let through = row.map_or(0, |row| through(row.checkpoint));
            processed.through = processed.through.min(through);
            processed.rows.push((path, file));
        }
        Ok(processed)
    }

    /// All of them have processed what there is up to and with this number.
    pub(super) fn through(&self) -> u64 {
        self.through
    }

    /// Makes the checkpoints durable, so that none of them comes back as an older one, of whose
    /// records nothing is left.
    pub(super) fn sync(&self) -> Result<()> {
        self.rows.iter().try_for_each(|(path, file)| fs::sync(file, path))
    }
}

/// The last number that a checkpoint says is processed.
fn through(checkpoint: Option<StartingPosition>) -> u64 {
    let address = |number: SequenceNumber| number.address().unwrap_or(0);
    match checkpoint {
        None => u64::MAX,
        Some(StartingPosition::AtSequenceNumber(number)) => address(number).saturating_sub(1),
        Some(StartingPosition::AfterSequenceNumber(number)) => address(number),
        Some(_) => 0,
    }
}
