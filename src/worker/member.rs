//! Which pools of an application there are: each has a file that it keeps locked, so that the
//! others see at once, and without any clock, when it is gone, however it went.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::format::control_row::MemberId;
use crate::format::names::{LEAVING, MEMBERS};
use crate::os::fs;
use crate::os::lock::LifeLine;
use crate::worker::lease_table::Members;

/// The file of one pool, and where those of the others are.
#[derive(Debug)]
pub(super) struct Member {
    directory: PathBuf,
    id: MemberId,
    _line: LifeLine,
}

impl Member {
    /// Joins the members of the application in this directory.
    pub(super) fn join(application: &Path) -> Result<Self> {
        let directory = application.join(MEMBERS);
        fs::must_not_be_link(&directory)?;
        fs::create_directory(&directory)?;
        // One that is left from a pool that is gone will do, also on a full disk. Whatever rows
        // say of its id, this pool has no leases yet.
        for name in fs::list(&directory)? {
            let Some(id) = id_of(&name) else { continue };
            if let Some(line) = LifeLine::hold(&directory.join(name))? {
                let member = Self { directory, id, _line: line };
                fs::remove(&member.leaving())?;
                return Ok(member);
            }
        }
        loop {
            let Some(id) = MemberId::new(crate::os::random()) else { continue };
            match LifeLine::hold_new(&directory.join(name(id))) {
                // Somebody looked whether it was held, before it was.
                Err(Error::Io { action: "lock", .. }) => {}
                line => return Ok(Self { directory, id, _line: line? }),
            }
        }
    }

    pub(super) fn id(&self) -> MemberId {
        self.id
    }

    /// From now on, this one takes no more shards.
    pub(super) fn leave(&self) -> Result<()> {
        fs::create_new(&self.leaving()).map(drop)
    }

    fn leaving(&self) -> PathBuf {
        self.directory.join(format!("{}{LEAVING}", name(self.id)))
    }
}

/// All that are there, this one included.
pub(super) fn all(application: &Path, me: Option<MemberId>) -> Result<Members> {
    let directory = application.join(MEMBERS);
    let names = fs::list(&directory)?;
    let mut members = Members::new();
    for other in &names {
        let Some(id) = id_of(other) else { continue };
        if Some(id) == me || LifeLine::is_held(&directory.join(other))? {
            members.insert(id, !names.contains(&format!("{other}{LEAVING}")));
        }
    }
    Ok(members)
}

/// The id of the member whose file has this name.
fn id_of(name: &str) -> Option<MemberId> {
    let id = u64::from_str_radix(name, 16).ok().filter(|_| name.len() == 16);
    id.and_then(MemberId::new)
}

fn name(id: MemberId) -> String {
    format!("{id:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_see_each_other_come_and_leave_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let one = Member::join(directory.path()).unwrap();
        let two = Member::join(directory.path()).unwrap();
        for member in [&one, &two] {
            assert_eq!(
                all(directory.path(), Some(member.id)).unwrap(),
                Members::from([(one.id, true), (two.id, true)])
            );
        }
        two.leave().unwrap();
        for member in [&one, &two] {
            assert_eq!(
                all(directory.path(), Some(member.id)).unwrap(),
                Members::from([(one.id, true), (two.id, false)])
            );
        }
        drop(two);
        assert_eq!(all(directory.path(), Some(one.id)).unwrap(), Members::from([(one.id, true)]));
    }

    #[test]
    fn the_file_of_a_dead_member_is_no_member_and_is_taken_by_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let one = Member::join(directory.path()).unwrap();
        let dead = "00000000000000ff";
        for name in [dead, "00000000000000ff.leaving", "00000000000000fd.new"] {
            std::fs::write(one.directory.join(name), "process 1").unwrap();
        }
        let members = || all(directory.path(), Some(one.id)).unwrap();
        assert_eq!(members(), Members::from([(one.id, true)]));
        let two = Member::join(directory.path()).unwrap();
        assert_eq!(name(two.id), dead);
        assert_eq!(members(), Members::from([(one.id, true), (two.id, true)]));
    }
}
