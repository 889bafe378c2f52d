//! Locks of files that pools of workers meet at: for moments, and for a life.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::os::fs::{
    create_new, link, open_if_any, open_write, remove, rename, this_process, write_at,
};

/// How long a lock may be waited for that everybody holds for microseconds only.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Locks an open file or directory, which everybody does for moments only, until the guard is
/// dropped. Descriptors that were opened separately exclude each other, in one process too.
pub(crate) fn lock_briefly<'a>(file: &'a File, path: &Path) -> Result<BriefLock<'a>> {
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(BriefLock(file)),
            Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_PATIENCE => {
                std::thread::yield_now();
            }
            Err(TryLockError::WouldBlock) => {
                let owner = "a process that does not go on".into();
                return Err(Error::Locked { path: path.to_owned(), owner });
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", path, e)),
        }
    }
}

/// The lock of a file; see [`lock_briefly`].
#[derive(Debug)]
pub(crate) struct BriefLock<'a>(&'a File);

impl Drop for BriefLock<'_> {
    fn drop(&mut self) {
        // What cannot be unlocked is unlocked when the file is closed.
        let _ = self.0.unlock();
    }
}

/// A file that is kept locked for as long as the process lives, or until this is dropped: others
/// can tell whether it lives. The file stays, for the next one who needs one: there may be no room
/// for another one then.
#[derive(Debug)]
pub(crate) struct LifeLine(File);

impl LifeLine {
    /// Makes a file, which gets its name when it is locked. Nobody else makes one of this name.
    pub(crate) fn hold_new(path: &Path) -> Result<Self> {
        Self::make(path, |fresh| rename(fresh, path))
    }

    /// As `hold_new`, but an error if somebody else was faster to make one of this name.
    pub(crate) fn hold_first(path: &Path) -> Result<Self> {
        Self::make(path, |fresh| link(fresh, path).and_then(|()| remove(fresh)))
    }

    fn make(path: &Path, give_name: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        let fresh = path.with_extension("new");
        let held = Self::lock(create_new(&fresh)?, path)?;
        let error = || Error::io("lock", &fresh, io::Error::other("somebody else was faster"));
        let held = held.ok_or_else(error)?;
        give_name(&fresh).inspect_err(|_| {
            let _ = remove(&fresh);
        })?;
        Ok(held)
    }

    /// Takes a file that is there, if nobody holds it.
    pub(crate) fn hold(path: &Path) -> Result<Option<Self>> {
        Self::lock(open_write(path)?, path)
    }

    fn lock(file: File, path: &Path) -> Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", path, e)),
        }
        match write_at(&file, path, this_process().as_bytes(), 0) {
            // Only people read it.
            Ok(()) | Err(Error::DiskFull { .. }) => Ok(Some(Self(file))),
            Err(error) => Err(error),
        }
    }

    /// Whether somebody holds the file at this path.
    pub(crate) fn is_held(path: &Path) -> Result<bool> {
        let Some(file) = open_if_any(path)? else { return Ok(false) };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", path, e)),
        }
    }
}

impl Drop for LifeLine {
    fn drop(&mut self) {
        // A process that is just being started has a copy of the descriptor, and with it the lock,
        // until it is.
        let _ = self.0.unlock();
    }
}
