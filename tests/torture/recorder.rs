//! A disk that notes what is written to it: a file of a FUSE file system, which a loop device makes
//! a disk. From its notes come the disks that a power cut might have left.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, FileAttr, FileType, Filesystem, MountOption, ReplyAttr, ReplyData,
    ReplyEmpty, ReplyEntry, ReplyWrite, Request,
};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::common::files::scratch;
use crate::random::Random;

/// A disk writes at least this much as a whole.
const SECTOR: usize = 512;
const SUPERBLOCK_END: u64 = 2048;
const ROOT: u64 = 1;
const IMAGE: u64 = 2;
const NAME: &str = "image";
/// Nothing changes behind the kernel's back.
const TTL: Duration = Duration::from_secs(3600);
/// `FOPEN_DIRECT_IO`: what the loop device writes comes here at once.
const DIRECT: u32 = 1;

/// Which of the writes since the last flush have reached the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reached {
    None,
    All,
    /// Each with this chance in a hundred.
    Writes(u64),
    /// Each sector of them with this chance in a hundred.
    Sectors(u64),
}

/// What has been written, until the power fails.
struct Notes {
    /// The disk as the file system sees it.
    now: File,
    /// The disk as it was at the last flush.
    flushed: File,
    /// Where was written what since then.
    writes: Vec<(u64, Vec<u8>)>,
    doomed: Option<(Pid, Doom)>,
    is_cut: bool,
}

/// When the power fails: with an operation on the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doom {
    /// After so many others.
    pub(crate) operations: u64,
    /// When there are so many writes since the last flush.
    pub(crate) writes: usize,
}

impl Notes {
    /// Whether an operation is noted: not if it comes too late.
    fn comes_in_time(&mut self) -> bool {
        if let Some((victim, doom)) = &mut self.doomed {
            if doom.operations == 0 && doom.writes <= self.writes.len() {
                self.is_cut = true;
                // Before it is told how this operation ended, so it says nothing of what it did.
                let _ = kill_process(*victim, Signal::KILL);
                self.doomed = None;
            } else {
                doom.operations = doom.operations.saturating_sub(1);
            }
        }
        !self.is_cut
    }

    fn write(&mut self, at: u64, data: &[u8]) -> std::io::Result<()> {
        if self.comes_in_time() {
            self.writes.push((at, data.to_vec()));
        }
        self.now.write_all_at(data, at)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.comes_in_time() {
            for (at, data) in self.writes.drain(..) {
                self.flushed.write_all_at(&data, at)?;
            }
        }
        Ok(())
    }
}

/// The disk, as long as it is there.
pub(crate) struct Recorder {
    notes: Arc<Mutex<Notes>>,
    mount: TempDir,
    files: TempDir,
    _session: BackgroundSession,
}

/// What is left of it when the power has failed.
pub(crate) struct Recording {
    files: TempDir,
    writes: Vec<(u64, Vec<u8>)>,
}

impl Recorder {
    /// A disk with this content.
    pub(crate) fn new(content: &Path) -> Result<Self, String> {
        let (files, mount) = (scratch(), scratch());
        let open = |name: &str| {
            let path = files.path().join(name);
            copy_image(content, &path);
            OpenOptions::new().read(true).write(true).open(path).unwrap()
        };
        let (now, flushed) = (open("now"), open("flushed"));
        let notes = Notes { now, flushed, writes: Vec::new(), doomed: None, is_cut: false };
        let notes = Arc::new(Mutex::new(notes));
        let options = [MountOption::FSName("millstream".into())];
        let served = Served { notes: Arc::clone(&notes) };
        let session = fuser::spawn_mount2(served, mount.path(), &options);
        let session = session.map_err(|error| format!("fuse: {error}"))?;
        Ok(Self { notes, mount, files, _session: session })
    }

    /// The file that is the disk.
    pub(crate) fn image(&self) -> PathBuf {
        self.mount.path().join(NAME)
    }

    /// Has the power fail, and this process die of it.
    pub(crate) fn doom(&self, victim: u32, doom: Doom) {
        let victim = Pid::from_raw(victim as i32).unwrap();
        self.notes.lock().unwrap().doomed = Some((victim, doom));
    }

    /// Has the power fail now, if it has not yet; what still comes is not noted.
    pub(crate) fn cut(&self) {
        self.notes.lock().unwrap().is_cut = true;
    }

    /// What was noted. Nobody has the disk mounted any more.
    pub(crate) fn finish(self) -> Recording {
        let writes = std::mem::take(&mut self.notes.lock().unwrap().writes);
        Recording { files: self.files, writes }
    }
}

impl Recording {
    /// How many writes came after the last flush.
    pub(crate) fn writes(&self) -> usize {
        self.writes.len()
    }

    /// Makes the disk that is left if so much has reached it.
    pub(crate) fn build(&self, image: &Path, reached: Reached, random: &mut Random) {
        copy_image(&self.files.path().join("flushed"), image);
        let image = OpenOptions::new().write(true).open(image).unwrap();
        for (at, data) in &self.writes {
            let (piece, percent) = match reached {
                Reached::None => continue,
                // ext4 takes it for granted that its superblock is not torn.
                Reached::Sectors(percent) if *at < SUPERBLOCK_END => (data.len(), percent),
                Reached::All => (data.len(), 100),
                Reached::Writes(percent) => (data.len(), percent),
                Reached::Sectors(percent) => (SECTOR, percent),
            };
            for (n, piece_data) in data.chunks(piece).enumerate() {
                if random.percent(percent) {
                    image.write_all_at(piece_data, at + (n * piece) as u64).unwrap();
                }
            }
        }
    }
}

/// Copies a disk, most of which is empty.
fn copy_image(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--sparse=always").arg(from).arg(to).status();
    assert!(copied.unwrap().success(), "{} is copied", from.display());
}

/// The file system: a directory with one file.
struct Served {
    notes: Arc<Mutex<Notes>>,
}

impl Served {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }

    fn attributes(&self, inode: u64) -> FileAttr {
        let (size, kind, perm) = match inode {
            ROOT => (0, FileType::Directory, 0o700),
            _ => (self.notes().now.metadata().unwrap().len(), FileType::RegularFile, 0o600),
        };
        FileAttr {
            ino: inode,
            size,
            blocks: size / SECTOR as u64,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }
}

/// The system's number for an error.
fn code(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(Errno::IO.raw_os_error())
}

impl Filesystem for Served {
    fn lookup(&mut self, _: &Request<'_>, _parent: u64, name: &OsStr, reply: ReplyEntry) {
        match name.to_str() {
            Some(NAME) => reply.entry(&TTL, &self.attributes(IMAGE), 0),
            _ => reply.error(Errno::NOENT.raw_os_error()),
        }
    }

    fn getattr(&mut self, _: &Request<'_>, inode: u64, _: Option<u64>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(inode));
    }

    fn open(&mut self, _: &Request<'_>, _: u64, _flags: i32, reply: fuser::ReplyOpen) {
        reply.opened(0, DIRECT);
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        _inode: u64,
        _handle: u64,
        offset: i64,
        size: u32,
        _flags: i32,
        _owner: Option<u64>,
        reply: ReplyData,
    ) {
        let mut data = vec![0; size as usize];
        match self.notes().now.read_at(&mut data, offset as u64) {
            Ok(len) => reply.data(&data[..len]),
            Err(error) => reply.error(code(&error)),
        }
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        _inode: u64,
        _handle: u64,
        offset: i64,
        data: &[u8],
        _write_flags: u32,
        _flags: i32,
        _owner: Option<u64>,
        reply: ReplyWrite,
    ) {
        match self.notes().write(offset as u64, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(code(&error)),
        }
    }

    fn fsync(&mut self, _: &Request<'_>, _: u64, _: u64, _datasync: bool, reply: ReplyEmpty) {
        match self.notes().flush() {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(code(&error)),
        }
    }
}

/// Whether there is what this needs, and why not.
pub(crate) fn is_possible() -> Result<(), String> {
    let found = fs::metadata("/dev/fuse").map_err(|error| format!("/dev/fuse: {error}"));
    found.and(crate::disk::run("fusermount3", &["--version"]))
}
