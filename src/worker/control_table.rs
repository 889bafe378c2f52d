//! The control table of an application: a directory with a row for each shard.
//!
//! A row is created durably and whole, and from then on written in place, slot by slot, without
//! sync: a checkpoint survives the process, and a power cut at worst takes the last ones back.
//!
//! It is mapped into the memory of every pool. Who reads it looks there, and who replaces it does
//! so there, under the lock of the file: that is all that a checkpoint asks of the system. Killed
//! in between, he leaves a torn slot, and the other one whole; and the lock is free.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::format::control_row::{self, ControlRow, MemberId, ROW_LEN, RowDamage, RowKey};
use crate::format::names::{MAX_APPLICATION_NAME_LEN, QUEUE, ROW, is_application_name};
use crate::os::fs;
use crate::os::lock::lock_briefly;
use crate::os::shared_file::SharedFile;
use crate::position::ShardId;
use crate::worker::lease_table::{LeaseTable, Members, Missing};
use crate::worker::member::{self, Member};

/// The rows of one application, as one of its pools sees them.
#[derive(Debug)]
pub(super) struct ControlTable {
    path: PathBuf,
    application: String,
    /// None: it is only looked at.
    member: Option<Member>,
    rows: Mutex<BTreeMap<ShardId, Arc<RowFile>>>,
}

impl ControlTable {
    /// Joins the pools of `application` in the directory of all applications, which is created if
    /// there is none; with the id that the pool has in other streams, if it can be had.
    pub(super) fn join(
        applications: &Path,
        application: &str,
        id: Option<MemberId>,
    ) -> Result<Self> {
        check_name(application)?;
        let path = applications.join(application);
        fs::must_not_be_link(applications)?;
        fs::must_not_be_link(&path)?;
        fs::create_directory(&path)?;
        let member = Some(Member::join(&path, id)?);
        Ok(Self { member, ..Self::view(&path, application) })
    }

    /// The table in the directory of an application, for one who takes no shards.
    pub(super) fn view(path: &Path, application: &str) -> Self {
        let (path, application) = (path.to_owned(), application.to_owned());
        Self { path, application, member: None, rows: Mutex::default() }
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
    fn create(&self, shard: ShardId, row: &ControlRow) -> Result<()> {
        let key = RowKey::new(&self.application, shard);
        // The same in both slots: from the first moment, one bad slot loses nothing.
        let slots = [0, 1]
            .map(|generation| control_row::encode(key, &ControlRow { generation, ..row.clone() }));
        fs::replace(&self.path.join(row_name(shard)), slots.as_flattened())
    }

    /// The row of a shard that has one.
    fn row(&self, shard: ShardId) -> Result<Arc<RowFile>> {
        if let Some(row) = self.rows.lock().get(&shard) {
            return Ok(Arc::clone(row));
        }
        let file =
            SharedFile::open(&self.path.join(row_name(shard)), ROW_LEN).map_err(|error| {
                if error.is_not_found() { Error::ShardNotFound { shard } } else { error }
            })?;
        let key = RowKey::new(&self.application, shard);
        let row = Arc::new(RowFile { key, file, writing: Mutex::default() });
        Ok(Arc::clone(self.rows.lock().entry(shard).or_insert(row)))
    }
}

impl LeaseTable for ControlTable {
    fn me(&self) -> MemberId {
        self.member.as_ref().expect("who takes leases is a member").id()
    }

    fn attend(&self) -> Result<Members> {
        member::all(&self.path, self.member.as_ref().map(Member::id))
    }

    fn leave(&self) -> Result<()> {
        self.member.as_ref().map_or(Ok(()), Member::leave)
    }

    fn make_rows(&self, missing: Missing<'_>) -> Result<()> {
        let directory = fs::open_directory(&self.path)?;
        let _lock = lock_briefly(&directory, &self.path)?;
        let rows = missing(&self.shards()?)?;
        rows.iter().try_for_each(|(shard, row)| self.create(*shard, row))
    }

    fn remove(&self, shard: ShardId) -> Result<()> {
        self.rows.lock().remove(&shard);
        fs::remove(&self.path.join(row_name(shard)))
    }

    fn read(&self, shard: ShardId) -> Result<ControlRow> {
        let row = self.row(shard)?;
        // Somebody may just be writing, even to both slots one after the other.
        row.read().or_else(|_| {
            let _writing = row.writing.lock();
            let _lock = row.file.lock()?;
            row.read()
        })
    }

    fn replace(&self, shard: ShardId, row: &ControlRow) -> Result<bool> {
        let at = self.row(shard)?;
        let _writing = at.writing.lock();
        let _lock = at.file.lock()?;
        let is_next = at.read()?.generation.checked_add(1) == Some(row.generation);
        if is_next {
            at.file.write(row.offset(), &control_row::encode(at.key, row));
        }
        Ok(is_next)
    }
}

fn row_name(shard: ShardId) -> String {
    format!("{shard}{ROW}")
}

/// The file of one row.
#[derive(Debug)]
struct RowFile {
    key: RowKey,
    file: SharedFile,
    /// Threads of this pool exclude each other by this lock, other pools by that of the file.
    writing: Mutex<()>,
}

impl RowFile {
    /// What the row says.
    fn read(&self) -> Result<ControlRow> {
        let row = control_row::decode(self.key, &self.file.read::<ROW_LEN>());
        row.map_err(|damage| self.error(damage))
    }

    fn error(&self, damage: RowDamage) -> Error {
        let what = match damage {
            RowDamage::Version(version) => {
                let what = format!("version {version} of control rows");
                return Error::Unsupported { path: self.file.path().to_owned(), what };
            }
            RowDamage::Torn => "neither of its slots is whole",
            RowDamage::Foreign => "it was copied from another shard or application",
        };
        let what = format!(
            "{what}; stop the application's pools and put the right file back, or remove it to let \
             the application start anew in this shard"
        );
        Error::corrupt(self.file.path(), 0, what)
    }
}

/// Refuses an application that is a queue: its checkpoints follow from what was acknowledged.
pub(super) fn must_not_be_queue(applications: &Path, application: &str) -> Result<()> {
    if fs::list(&applications.join(application).join(QUEUE))?.is_empty() {
        return Ok(());
    }
    let what = format!("the application {application:?} is a queue: only a queue moves it on");
    Err(Error::InvalidArgument(what))
}

/// Whether the name can be a directory's.
pub(crate) fn check_name(application: &str) -> Result<()> {
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
    use crate::worker::checkpoint::Checkpoint;

    const SHARD: ShardId = ShardId::new(3);

    fn table(directory: &Path) -> ControlTable {
        ControlTable::join(directory, "billing", None).unwrap()
    }

    /// The row of the shard, made like this.
    fn row(table: &ControlTable, checkpoint: Checkpoint) -> PathBuf {
        table.create(SHARD, &ControlRow::new(checkpoint.position(), None)).unwrap();
        table.row(SHARD).unwrap().file.path().to_owned()
    }

    fn overwrite(path: &Path, bytes: &[u8], offset: u64) {
        fs::write_at(&fs::open_write(path).unwrap(), path, bytes, offset).unwrap();
    }

    #[test]
    fn a_name_is_at_most_128_letters_digits_and_marks() {
        let directory = tempfile::tempdir().unwrap();
        let longest = "x".repeat(MAX_APPLICATION_NAME_LEN);
        for good in ["a", "A-b_c.9", &longest] {
            ControlTable::join(directory.path(), good, None).unwrap();
        }
        let too_long = "x".repeat(MAX_APPLICATION_NAME_LEN + 1);
        for bad in ["", ".", "..", ".hidden", "a/b", "ä", "a b", "a\0", &too_long] {
            let error = ControlTable::join(directory.path(), bad, None).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument(_)), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_row_is_replaced_only_as_it_was_seen() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (table(directory.path()), table(directory.path()));
        row(&one, Checkpoint::TrimHorizon);
        let seen = two.read(SHARD).unwrap();
        let next = |member: &ControlTable| ControlRow {
            generation: seen.generation + 1,
            owner: Some(member.me()),
            ..seen.clone()
        };
        assert!(one.replace(SHARD, &next(&one)).unwrap());
        assert!(!two.replace(SHARD, &next(&two)).unwrap());
        assert_eq!(two.read(SHARD).unwrap(), next(&one));
    }

    #[test]
    fn of_many_who_replace_a_row_at_the_same_time_one_does() {
        let directory = tempfile::tempdir().unwrap();
        let tables: Vec<_> = (0..4).map(|_| table(directory.path())).collect();
        row(&tables[0], Checkpoint::TrimHorizon);
        let replaced = std::thread::scope(|scope| {
            let replace = |table: &ControlTable| {
                (0..100)
                    .filter(|_| {
                        let seen = table.read(SHARD).unwrap();
                        let row = ControlRow { generation: seen.generation + 1, ..seen };
                        table.replace(SHARD, &row).unwrap()
                    })
                    .count()
            };
            let threads: Vec<_> =
                tables.iter().map(|table| scope.spawn(move || replace(table))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(tables[0].read(SHARD).unwrap().generation, 1 + replaced as u64);
    }

    #[test]
    fn rows_are_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (table(directory.path()), table(directory.path()));
        let make = |table: &ControlTable, checkpoint: Checkpoint| {
            table.make_rows(&|known| {
                let row = ControlRow::new(checkpoint.position(), None);
                Ok(if known.is_empty() { vec![(SHARD, row)] } else { Vec::new() })
            })
        };
        make(&one, Checkpoint::ShardEnd).unwrap();
        make(&two, Checkpoint::TrimHorizon).unwrap();
        assert_eq!(one.read(SHARD).unwrap().checkpoint, None);
    }

    #[test]
    fn a_row_survives_the_loss_of_either_slot_it_was_created_with() {
        for half in [0, ROW_LEN / 2] {
            let directory = tempfile::tempdir().unwrap();
            let table = table(directory.path());
            let path = row(&table, Checkpoint::ShardEnd);
            overwrite(&path, &[0xff; ROW_LEN / 2], half as u64);
            assert_eq!(table.read(SHARD).unwrap().checkpoint, None);
        }
    }

    #[test]
    fn a_row_with_two_bad_slots_is_named_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let table = table(directory.path());
        let file = row(&table, Checkpoint::TrimHorizon);
        overwrite(&file, &[0; ROW_LEN], 0);
        let error = table.read(SHARD).unwrap_err();
        assert!(matches!(&error, Error::Corrupt { path, .. } if *path == file));
        assert!(error.to_string().contains("or remove it"), "{error}");
    }

    #[test]
    fn a_row_copied_from_another_shard_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let table = table(directory.path());
        let path = row(&table, Checkpoint::TrimHorizon);
        std::fs::copy(path, table.path().join(row_name(ShardId::new(4)))).unwrap();
        let error = table.read(ShardId::new(4)).unwrap_err();
        assert!(error.to_string().contains("copied from another shard"), "{error}");
    }

    #[test]
    fn files_that_are_no_rows_are_not_listed() {
        let directory = tempfile::tempdir().unwrap();
        let table = table(directory.path());
        row(&table, Checkpoint::TrimHorizon);
        std::fs::write(table.path().join("shardId-000000000009.new"), "half a row").unwrap();
        for name in ["notes.row", "9.row"] {
            std::fs::write(table.path().join(name), "not a row of ours").unwrap();
        }
        assert_eq!(table.shards().unwrap(), BTreeSet::from([SHARD]));
    }
}
