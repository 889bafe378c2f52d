//! Files and directories: whole reads, replacements that are atomic and durable, locks.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::process::{Resource, getrlimit};

use crate::error::{Error, Result};
use crate::seeded::bug;

/// Files are for their owner alone.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// No file is followed through a link, and a FIFO in a file's place does not block the open.
const OPEN_FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);

/// Something on the disk is about to change, or be made durable: tests look at it here.
#[inline]
pub(crate) fn step() {
    #[cfg(test)]
    super::steps::look();
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).mode(FILE_MODE).custom_flags(OPEN_FLAGS.bits().cast_signed());
    options
}

/// Opens a regular file.
fn open(path: &Path, options: &OpenOptions) -> Result<File> {
    let file = options.open(path).map_err(|e| Error::io("open", path, e))?;
    let metadata = file.metadata().map_err(|e| Error::io("examine", path, e))?;
    if !metadata.is_file() {
        return Err(Error::io("open", path, io::Error::other("it is not a regular file")));
    }
    Ok(file)
}

/// Opens a regular file for reading.
pub(crate) fn open_read(path: &Path) -> Result<File> {
    open(path, &options())
}

/// Opens a regular file for reading and writing.
pub(crate) fn open_write(path: &Path) -> Result<File> {
    open(path, options().write(true))
}

/// Creates a file that does not exist yet.
pub(crate) fn create_new(path: &Path) -> Result<File> {
    step();
    open(path, options().write(true).create_new(true))
}

/// Opens a regular file for reading; none if there is no such file.
pub(crate) fn open_if_any(path: &Path) -> Result<Option<File>> {
    match open_read(path) {
        Err(Error::Io { source, .. })
            if source.kind() == io::ErrorKind::NotFound || bug("missing_on_eio") =>
        {
            Ok(None)
        }
        file => file.map(Some),
    }
}

/// The whole of a file of at most `max` bytes, from where it was read last.
pub(crate) fn read(file: &File, path: &Path, max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e))?;
    if bytes.len() as u64 > max {
        return Err(Error::corrupt(path, max, format!("it is longer than {max} bytes")));
    }
    Ok(bytes)
}

/// Whether a file that is open is the one that has this name now. As long as it is open, no other
/// one can get its inode.
pub(crate) fn is_at(file: &File, path: &Path) -> Result<bool> {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let ours = file.metadata().map_err(|e| Error::io("examine", path, e))?;
    let there = fs::symlink_metadata(path).map_err(|e| Error::io("examine", path, e))?;
    Ok(identity(ours) == identity(there))
}

/// Reads up to a buffer's length; the rest of the buffer is what lies behind the file's end.
pub(crate) fn read_at(file: &File, path: &Path, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read", path, e)),
        }
    }
    Ok(filled)
}

/// Writes the whole buffer.
pub(crate) fn write_at(file: &File, path: &Path, bytes: &[u8], offset: u64) -> Result<()> {
    step();
    file.write_all_at(bytes, offset).map_err(|e| Error::io("write", path, e))
}

/// Adds bytes to the end of a file, which is created if there is none.
pub(crate) fn append(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = open(path, options().append(true).create(true))?;
    file.write_all(bytes).map_err(|e| Error::io("write", path, e))
}

/// Makes a file's content and length durable.
pub(crate) fn sync(file: &File, path: &Path) -> Result<()> {
    step();
    file.sync_all().map_err(|e| Error::io("sync", path, e))
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    let directory = File::open(path).map_err(|e| Error::io("open", path, e))?;
    sync(&directory, path)
}

/// Replaces the content of a file, or creates it: after a crash the old content is there or the
/// new, whole.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    step();
    let fresh = path.with_extension("new");
    remove(&fresh)?;
    let mut file = create_new(&fresh)?;
    step();
    let written = file.write_all(bytes).map_err(|e| Error::io("write", &fresh, e));
    if let Err(error) =
        written.and_then(|()| sync(&file, &fresh)).and_then(|()| rename(&fresh, path))
    {
        // What was not renamed is of no use, and may be in the way of the room that is missing.
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    if bug("rename_not_synced") {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        sync_directory(parent)?;
    }
    // XFS may report the directory durable after it has shut down; the file itself tells.
    sync(&file, path)
}

/// Renames a file.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    step();
    fs::rename(from, to).map_err(|e| Error::io("rename", from, e))
}

/// Gives a file a second name, which nothing has yet.
pub(crate) fn link(path: &Path, second: &Path) -> Result<()> {
    step();
    fs::hard_link(path, second).map_err(|e| Error::io("give a second name to", path, e))
}

/// Gives a file a length; what is added reads as zeros.
pub(crate) fn set_len(file: &File, path: &Path, len: u64) -> Result<()> {
    step();
    file.set_len(len).map_err(|e| Error::io("set the length of", path, e))
}

/// Removes a file, if there is one. Whoever has it mapped reads on.
pub(crate) fn remove(path: &Path) -> Result<()> {
    step();
    if bug("cut_under_a_reader") {
        let _ = OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(0));
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Removes a directory if nothing is in it.
pub(crate) fn remove_empty_directory(path: &Path) {
    // What stays does no harm.
    let _ = fs::remove_dir(path);
}

/// Removes a directory and all that is below it. Links are removed, not followed.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    step();
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Creates a directory and those above it, durably; one that exists is fine.
pub(crate) fn create_directory(path: &Path) -> Result<()> {
    match (create_subdirectory(path), path.parent()) {
        (Err(Error::Io { source, .. }), Some(parent))
            if source.kind() == io::ErrorKind::NotFound && !parent.as_os_str().is_empty() =>
        {
            create_directory(parent)?;
            create_subdirectory(path)
        }
        (created, _) => created,
    }
}

/// Creates a directory in one that is there, durably; one that exists is fine.
pub(crate) fn create_subdirectory(path: &Path) -> Result<()> {
    step();
    let existed = match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Ok(()) => false,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => true,
        Err(e) => return Err(Error::io("create", path, e)),
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match sync_directory(parent.unwrap_or(Path::new("."))) {
        // One that existed may have been made by somebody who was killed before it was durable; or
        // by somebody with other rights, who will have seen to that.
        Err(Error::Io { source, .. })
            if existed && source.kind() == io::ErrorKind::PermissionDenied =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// Refuses a link in the place of a directory: what is done to a stream stays in it.
pub(crate) fn must_not_be_link(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => {
            Err(Error::io("open", path, io::Error::other("it is a symbolic link")))
        }
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("examine", path, e)),
        _ => Ok(()),
    }
}

/// The path from the root, which stays the same when the process changes its directory.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::io("find", path, e))
}

/// The names in a directory, sorted; none if there is no such directory.
pub(crate) fn list(path: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| Error::io("list", path, e))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("list", path, e))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Checks that a directory is there.
pub(crate) fn must_be_directory(path: &Path) -> Result<()> {
    fs::read_dir(path).map(drop).map_err(|e| Error::io("list", path, e))
}

/// How many bytes all files below a directory have, as far as they can be seen.
pub(crate) fn size_of_tree(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of_tree(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// Gives a file all its blocks, so that no write into a map of it can find the disk full.
pub(crate) fn allocate(file: &File, path: &Path, len: u64) -> Result<()> {
    step();
    // Beyond the limit of this process the system would kill it with SIGXFSZ.
    if getrlimit(Resource::Fsize).current.is_some_and(|limit| len > limit) {
        return Err(Error::io("allocate", path, rustix::io::Errno::FBIG.into()));
    }
    if bug("sparse_segment") {
        return set_len(file, path, len);
    }
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::io("allocate", path, e.into())),
        }
    }
}

/// Gives back the blocks from `start` on; the file keeps its length and reads as zeros there.
/// File systems that cannot are left as they are.
pub(crate) fn release(file: &File, start: u64, len: u64) {
    step();
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    // Only room is lost when it fails.
    let _ = rustix::fs::fallocate(file, flags, start, len);
}

/// Shows that a file is in use as long as it is open, to whoever wants it for itself alone. It
/// hinders nobody else; where the system cannot do that, nobody notices.
pub(crate) fn show_use(file: &File) {
    let _ = file.try_lock_shared();
}

/// A file that nobody shows to be in use.
#[derive(Debug)]
pub(crate) struct SoleUse(#[expect(dead_code, reason = "the lock ends with the file")] File);

impl SoleUse {
    /// Takes the file for as long as this is there.
    ///
    /// # Errors
    /// [`Error::Locked`] if somebody has it in use.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let file = open_read(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                Err(Error::Locked { path: path.to_owned(), owner: "somebody who reads".into() })
            }
            Err(TryLockError::Error(e)) => Err(Error::io("lock", path, e)),
        }
    }
}

/// Opens a directory.
pub(crate) fn open_directory(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| Error::io("open", path, e))
}

/// Names this process to people, in a line.
pub(crate) fn this_process() -> String {
    let program = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("process {} ({program})\n", std::process::id())
}

/// A directory that this process owns until the lock is dropped (or the process ends, however).
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    // The lock is the directory's own (flock), so no file can be deleted from under it.
    directory: File,
    owner: PathBuf,
}

impl DirectoryLock {
    /// Takes the lock, or says who has it. The file `OWNER` in the directory is for that text
    /// only.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let owner = path.join("OWNER");
        let directory = File::open(path).map_err(|e| Error::io("open", path, e))?;
        match directory.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = open_read(&owner).and_then(|file| read(&file, &owner, 200));
                let owner = text.unwrap_or_default();
                let owner = String::from_utf8_lossy(owner.trim_ascii()).into_owned();
                let owner = if owner.is_empty() { "another process".into() } else { owner };
                return Err(Error::Locked { path: path.to_owned(), owner });
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", path, e)),
        }
        remove(&owner)?;
        match create_new(&owner)
            .and_then(|file| write_at(&file, &owner, this_process().as_bytes(), 0))
        {
            // A comment for which there is no room keeps nobody from reading, or making room.
            Ok(()) | Err(Error::DiskFull { .. }) => Ok(Self { directory, owner }),
            Err(error) => Err(error),
        }
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // A comment that is left behind does no harm.
        let _ = remove(&self.owner);
        // A process that is being started from this one has the descriptor, too, until it runs its
        // own program: closing ours would leave the lock to it for that long.
        let _ = self.directory.unlock();
    }
}
