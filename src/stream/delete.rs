//! Deleting a stream: it is renamed away first, then removed, so that at no moment there is half a
//! stream under its name.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::format::names::{
    APPLICATIONS, DEAD_LETTERS, MANIFEST, OWNER, QUARANTINE, QUEUE, SHARDS,
};
use crate::os::fs::{self, DirectoryLock, SoleUse};
use crate::stream::Stream;
use crate::stream::builder::must_be_stream;

/// All that lies directly in the directory of a stream, but for files in the making.
const NAMES: [&str; 5] = [MANIFEST, OWNER, SHARDS, APPLICATIONS, QUARANTINE];

/// Nobody else has the stream as long as this is there.
struct Claimed {
    _locks: Vec<DirectoryLock>,
    _readers: SoleUse,
}

impl Stream {
    /// Deletes the stream in the directory `path` with everything in it: records, checkpoints,
    /// dead letters, what was put aside by a repair. A deletion that was cut off is completed when
    /// it is repeated.
    ///
    /// # Errors
    /// [`Error::Locked`] if somebody has it open for putting or reading, or a pool works on it (a
    /// reader that has not looked since the shape or retention last changed is not noticed);
    /// [`Error::NotAStream`], also if there is something else in the directory;
    /// [`Error::StreamNotFound`]; [`Error::Io`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("clicks");
    /// use millstream::{Error, Stream};
    ///
    /// let stream = Stream::builder(&path).create()?;
    /// assert!(matches!(Stream::delete(&path), Err(Error::Locked { .. })));
    /// stream.close()?;
    /// Stream::delete(&path)?;
    /// assert!(matches!(Stream::delete(&path), Err(Error::StreamNotFound { .. })));
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn delete(path: impl AsRef<Path>) -> Result<()> {
        delete(path.as_ref(), |path| {
            let mut names = fs::list(path)?.into_iter();
            if names.any(|name| !NAMES.contains(&name.as_str()) && name != "MANIFEST.new") {
                let found = "a stream with other files beside its own";
                return Err(Error::NotAStream { path: path.to_owned(), found });
            }
            claim(path).map(Some)
        })
    }

    /// Deletes the stream in the directory `path` whoever uses it, and whatever else is in the
    /// directory. Puts of those who have it open fail when they need a new segment, and readers are
    /// told that it is gone; pages that they hold stay readable.
    ///
    /// # Errors
    /// [`Error::NotAStream`]; [`Error::StreamNotFound`]; [`Error::Io`].
    pub fn force_delete(path: impl AsRef<Path>) -> Result<()> {
        delete(path.as_ref(), |_| Ok(None))
    }
}

fn delete(path: &Path, claim: impl Fn(&Path) -> Result<Option<Claimed>>) -> Result<()> {
    let path = fs::absolute(path)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::InvalidArgument(format!("{} cannot be deleted", path.display())));
    };
    let prefix = format!(".{}.deleted-", name.to_string_lossy());
    let left = left_behind(parent, &prefix)?;
    left.iter().try_for_each(|path| fs::remove_tree(path))?;
    match must_be_stream(&path) {
        // Another one got as far as the renaming.
        Err(Error::StreamNotFound { .. }) if !left.is_empty() => return Ok(()),
        found => found?,
    }
    fs::must_not_be_link(&path)?;
    let claimed = claim(&path)?;
    let away = parent.join(format!("{prefix}{:016x}", crate::os::random()));
    fs::rename(&path, &away)?;
    fs::sync_directory(parent)?;
    let removed = fs::remove_tree(&away);
    drop(claimed);
    removed
}

/// What deletions that were cut off have left.
fn left_behind(parent: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let is_left = |name: &String| {
        let digits = name.strip_prefix(prefix).unwrap_or_default();
        digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let names = fs::list(parent)?.into_iter().filter(is_left);
    Ok(names.map(|name| parent.join(name)).collect())
}

/// Takes all that others could have of the stream.
fn claim(path: &Path) -> Result<Claimed> {
    let mut locks = vec![DirectoryLock::take(path)?];
    let applications = path.join(APPLICATIONS);
    for name in fs::list(&applications)? {
        let application = applications.join(&name);
        for directory in ["", DEAD_LETTERS, QUEUE].map(|inner| application.join(inner)) {
            match DirectoryLock::take(&directory) {
                Err(error) if error.is_not_found() => {}
                lock => locks.push(lock?),
            }
        }
    }
    Ok(Claimed { _locks: locks, _readers: SoleUse::take(&path.join(MANIFEST))? })
}
