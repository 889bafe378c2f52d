//! The control table of an application: a directory with a row for each shard.
//!
//! A row is created durably and whole, and from then on written in place, slot by slot, without
//! sync: a checkpoint survives the process, and a power cut at worst takes the last ones back.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::format::control_row::{self, ControlRow, ROW_LEN, RowDamage, RowKey};
use crate::format::names::{MAX_APPLICATION_NAME_LEN, ROW, is_application_name};
use crate::os::fs::{self, DirectoryLock};
use crate::position::ShardId;
use crate::worker::checkpoint::Checkpoint;

/// The rows of one application, which one pool has at a time.
#[derive(Debug)]
pub(super) struct ControlTable {
    path: PathBuf,
    application: String,
    _lock: DirectoryLock,
}

impl ControlTable {
    /// Takes the table of `application` in the directory of all applications, or creates it.
    pub(super) fn open(applications: &Path, application: &str) -> Result<Self> {
        check_name(application)?;
        let path = applications.join(application);
        fs::must_not_be_link(applications)?;
        fs::must_not_be_link(&path)?;
        fs::create_directory(&path)?;
        let lock = DirectoryLock::take(&path)?;
        Ok(Self { path, application: application.into(), _lock: lock })
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The shards that have a row.
    pub(super) fn shards(&self) -> Result<BTreeSet<ShardId>> {
        let names = fs::list(&self.path)?;
        let shard = |name: &String| -> Option<ShardId> {
            let shard = name.strip_suffix(ROW)?.parse().ok()?;
            (row_name(shard) == *name).then_some(shard)
        };
        Ok(names.iter().filter_map(shard).collect())
    }

    /// Makes the row of a shard that has none; when this returns, it survives a power cut.
    pub(super) fn create(&self, shard: ShardId, checkpoint: Checkpoint) -> Result<()> {
        let key = RowKey::new(&self.application, shard);
        let checkpoint = checkpoint.position();
        // The same in both slots: from the first moment, one bad slot loses nothing.
        let slots = [0, 1].map(|generation| {
            control_row::encode(key, &ControlRow { generation, epoch: 0, checkpoint })
        });
        fs::replace(&self.row_path(shard), slots.as_flattened())
    }

    /// The row of a shard that has one.
    pub(super) fn row(&self, shard: ShardId) -> Result<RowFile> {
        let path = self.row_path(shard);
        let file = fs::open_write(&path)?;
        Ok(RowFile { key: RowKey::new(&self.application, shard), path, file })
    }

    fn row_path(&self, shard: ShardId) -> PathBuf {
        self.path.join(row_name(shard))
    }
}

fn row_name(shard: ShardId) -> String {
    format!("{shard}{ROW}")
}

/// The file of one row.
#[derive(Debug)]
pub(super) struct RowFile {
    key: RowKey,
    path: PathBuf,
    file: File,
}

impl RowFile {
    /// The shard that the row is of.
    pub(super) fn shard(&self) -> ShardId {
        self.key.shard()
    }

    /// What the row says.
    pub(super) fn read(&self) -> Result<ControlRow> {
        let mut bytes = [0; ROW_LEN];
        let len = fs::read_at(&self.file, &self.path, &mut bytes, 0)?;
        control_row::decode(self.key, &bytes[..len]).map_err(|damage| self.error(damage))
    }

    /// Writes the row that comes after `last`, beside it.
    pub(super) fn write_after(
        &self,
        last: &ControlRow,
        epoch: u64,
        checkpoint: Checkpoint,
    ) -> Result<()> {
        let row = ControlRow {
            generation: last.generation + 1,
            epoch,
            checkpoint: checkpoint.position(),
        };
        fs::write_at(&self.file, &self.path, &control_row::encode(self.key, &row), row.offset())
    }

    fn error(&self, damage: RowDamage) -> Error {
        let what = match damage {
            RowDamage::Version(version) => {
                let what = format!("version {version} of control rows");
                return Error::Unsupported { path: self.path.clone(), what };
            }
            RowDamage::Torn => "neither of its slots is whole",
            RowDamage::Foreign => "it was copied from another shard or application",
        };
        let what = format!(
            "{what}; put the right file back, or remove it to let the application start anew in \
             this shard"
        );
        Error::corrupt(&self.path, 0, what)
    }
}

/// Whether the name can be a directory's.
pub(super) fn check_name(application: &str) -> Result<()> {
    if is_application_name(application) {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!(
        "{application:?} cannot be the name of an application: it has 1 to \
         {MAX_APPLICATION_NAME_LEN} letters, digits and _.- of ASCII, and does not begin with a dot"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId::new(3);

    fn table(directory: &Path) -> ControlTable {
        ControlTable::open(directory, "billing").unwrap()
    }

    #[test]
    fn a_name_is_at_most_128_letters_digits_and_marks() {
        let directory = tempfile::tempdir().unwrap();
        let longest = "x".repeat(MAX_APPLICATION_NAME_LEN);
        for good in ["a", "A-b_c.9", &longest] {
            ControlTable::open(directory.path(), good).unwrap();
        }
        let too_long = "x".repeat(MAX_APPLICATION_NAME_LEN + 1);
        for bad in ["", ".", "..", ".hidden", "a/b", "ä", "a b", "a\0", &too_long] {
            let error = ControlTable::open(directory.path(), bad).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument(_)), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_table_has_one_owner_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let first = table(directory.path());
        let second = ControlTable::open(directory.path(), "billing");
        assert!(matches!(second, Err(Error::Locked { .. })));
        ControlTable::open(directory.path(), "audit").unwrap();
        drop(first);
        table(directory.path());
    }

    #[test]
    fn a_row_survives_the_loss_of_either_slot_it_was_created_with() {
        let directory = tempfile::tempdir().unwrap();
        let table = table(directory.path());
        for half in [0, ROW_LEN / 2] {
            table.create(SHARD, Checkpoint::ShardEnd).unwrap();
            let row = table.row(SHARD).unwrap();
            fs::write_at(&row.file, &row.path, &[0xff; ROW_LEN / 2], half as u64).unwrap();
            assert_eq!(row.read().unwrap().checkpoint, None);
        }
    }

    #[test]
    fn a_row_with_two_bad_slots_is_named_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let table = table(directory.path());
        table.create(SHARD, Checkpoint::TrimHorizon).unwrap();
        let row = table.row(SHARD).unwrap();
        fs::write_at(&row.file, &row.path, &[0; ROW_LEN], 0).unwrap();
        let error = row.read().unwrap_err();
        assert!(matches!(&error, Error::Corrupt { path, .. } if *path == row.path));
        assert!(error.to_string().contains("or remove it"), "{error}");
    }

    #[test]
    fn a_row_copied_from_another_shard_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let table = table(directory.path());
        table.create(SHARD, Checkpoint::TrimHorizon).unwrap();
        std::fs::copy(table.row_path(SHARD), table.row_path(ShardId::new(4))).unwrap();
        let error = table.row(ShardId::new(4)).unwrap().read().unwrap_err();
        assert!(error.to_string().contains("copied from another shard"), "{error}");
    }

    #[test]
    fn files_that_are_no_rows_are_not_listed() {
        let directory = tempfile::tempdir().unwrap();
        let table = table(directory.path());
        table.create(SHARD, Checkpoint::TrimHorizon).unwrap();
        std::fs::write(table.path().join("shardId-000000000009.new"), "half a row").unwrap();
        for name in ["notes.row", "9.row"] {
            std::fs::write(table.path().join(name), "not a row of ours").unwrap();
        }
        assert_eq!(table.shards().unwrap(), BTreeSet::from([SHARD]));
    }
}
