//! Which pools of an application there are: each has a file that it keeps locked, so that the
//! others see at once, and without any clock, when it is gone, however it went.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::format::control_row::MemberId;
use crate::format::names::{LEAVING, MEMBERS};
use crate::os::fs;
use crate::os::lock::LifeLine;
use crate::seeded::bug;
use crate::worker::lease_table::Members;

/// The file of one pool, and where those of the others are. The file stays when it goes.
#[derive(Debug)]
pub(super) struct Member {
    directory: PathBuf,
    id: MemberId,
    _line: LifeLine,
}

impl Member {
    /// Joins the members of the application in this directory; as the one with this id, which the
    /// pool has in other streams, if nobody else has it here.
    pub(super) fn join(application: &Path, preferred: Option<MemberId>) -> Result<Self> {
        let directory = application.join(MEMBERS);
        fs::must_not_be_link(&directory)?;
        fs::create_directory(&directory)?;
        let line = |id| {
            let path = directory.join(name(id));
            let line = LifeLine::hold(&path).ok().flatten();
            line.or_else(|| LifeLine::hold_first(&path).ok()).map(|line| (id, line))
        };
        let (id, line) = match preferred.and_then(line) {
            Some(held) => held,
            None => Self::any(&directory)?,
        };
        let member = Self { directory, id, _line: line };
        fs::remove(&member.leaving())?;
        Ok(member)
    }

    /// One with whatever id.
    fn any(directory: &Path) -> Result<(MemberId, LifeLine)> {
        // One that is left from a pool that is gone will do, also on a full disk. Whatever rows
        // say of its id, this pool has no leases yet.
        for name in fs::list(directory)? {
            let Some(id) = id_of(&name) else { continue };
            if let Some(line) = LifeLine::hold(&directory.join(name))? {
                return Ok((id, line));
            }
        }
        loop {
            let Some(id) = MemberId::new(crate::os::random()) else { continue };
            match LifeLine::hold_new(&directory.join(name(id))) {
                // Somebody looked whether it was held, before it was.
                Err(Error::Io { action: "lock", .. }) => {}
                line => return Ok((id, line?)),
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

impl Drop for Member {
    fn drop(&mut self) {
        // The next one with this id removes it, too.
        let _ = fs::remove(&self.leaving());
    }
}

/// All that are there, this one included.
pub(super) fn all(application: &Path, me: Option<MemberId>) -> Result<Members> {
    let directory = application.join(MEMBERS);
    let names = fs::list(&directory)?;
    let mut members = Members::new();
    for other in &names {
        let Some(id) = id_of(other) else { continue };
        let is_there = || {
            let is_held = LifeLine::is_held(&directory.join(other));
            is_held.map(|is_held| is_held && !bug("living_taken_for_gone"))
        };
        if Some(id) == me || is_there()? {
            members.insert(id, !names.contains(&format!("{other}{LEAVING}")));
        }
    }
    match me.filter(|me| !members.contains_key(me)) {
        None => Ok(members),
        // Somebody has removed the application, or the whole stream.
        Some(me) => Err(Error::io("find", &directory.join(name(me)), ErrorKind::NotFound.into())),
    }
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
        let one = Member::join(directory.path(), None).unwrap();
        let two = Member::join(directory.path(), None).unwrap();
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
    fn a_member_that_goes_leaves_its_file_to_the_next_one_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let one = Member::join(directory.path(), None).unwrap();
        let id = one.id;
        one.leave().unwrap();
        drop(one);
        let two = Member::join(directory.path(), None).unwrap();
        assert_eq!(two.id, id);
        assert_eq!(fs::list(&two.directory).unwrap(), [name(id)]);
    }

    #[test]
    fn a_pool_has_the_id_that_it_asks_for_unless_somebody_else_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let id = MemberId::new(7);
        let one = Member::join(directory.path(), id).unwrap();
        let two = Member::join(directory.path(), id).unwrap();
        assert!(Some(one.id) == id && Some(two.id) != id);
        assert_eq!(fs::list(&one.directory).unwrap().len(), 2, "nothing else is left");
        drop(one);
        assert_eq!(Some(Member::join(directory.path(), id).unwrap().id), id);
    }

    #[test]
    fn of_many_who_ask_for_an_id_at_the_same_time_one_gets_it() {
        let directory = tempfile::tempdir().unwrap();
        let go = std::sync::Barrier::new(8);
        let mut ids: Vec<MemberId> = std::thread::scope(|scope| {
            let join = || {
                go.wait();
                let member = Member::join(directory.path(), MemberId::new(7)).unwrap();
                go.wait();
                member.id
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(join)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 8);
    }

    #[test]
    fn the_file_of_a_dead_member_is_no_member_and_is_taken_by_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let one = Member::join(directory.path(), None).unwrap();
        let dead = "00000000000000ff";
        for name in [dead, "00000000000000ff.leaving", "00000000000000fd.new"] {
            std::fs::write(one.directory.join(name), "process 1").unwrap();
        }
        let members = || all(directory.path(), Some(one.id)).unwrap();
        assert_eq!(members(), Members::from([(one.id, true)]));
        let two = Member::join(directory.path(), None).unwrap();
        assert_eq!(name(two.id), dead);
        assert_eq!(members(), Members::from([(one.id, true), (two.id, true)]));
    }
}
