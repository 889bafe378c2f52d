//! Disks that can be cut off from power: file systems in image files.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::common::files::scratch;
use crate::say;

/// Tells this program that it has mounts of its own.
const OWN_MOUNTS: &str = "MILLSTREAM_OWN_MOUNTS";

/// Says that something cannot be done here, which is no failure.
pub(crate) fn skip(what: &str, why: &str) -> bool {
    say(&format!("SKIP {what}: {}", why.trim().replace('\n', "; ")));
    true
}

/// Whether this process may have mounts of its own, and why not.
pub(crate) fn mounts_are_possible() -> Result<(), String> {
    run("unshare", &["-m", "true"])
}

/// Whether this program has mounts of its own.
pub(crate) fn in_own_mounts_now() -> bool {
    std::env::var_os(OWN_MOUNTS).is_some()
}

/// Runs this program again with mounts of its own, which end with it, however it ends: the loop
/// devices with them. The outcome; none if this is that program.
pub(crate) fn in_own_mounts(what: &str) -> Option<bool> {
    if in_own_mounts_now() {
        return None;
    }
    if let Err(why) = mounts_are_possible() {
        return Some(skip(what, &why));
    }
    let again = Command::new("unshare")
        .arg("-m")
        .arg(std::env::current_exe().unwrap())
        .args(std::env::args_os().skip(1))
        .env(OWN_MOUNTS, "1")
        .status();
    Some(again.unwrap().success())
}

/// A mounted file system in a file.
pub(crate) struct Disk {
    /// Where it is mounted, and its image if it is its own.
    directory: TempDir,
    image: PathBuf,
    options: String,
    is_mounted: Cell<bool>,
}

/// What a command said if it failed.
pub(crate) fn run(command: &str, arguments: &[&str]) -> Result<(), String> {
    match Command::new(command).args(arguments).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("{command}: {error}")),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Makes an image of an empty file system of this kind.
pub(crate) fn format(kind: &str, image: &Path) -> Result<(), String> {
    let size = if kind == "xfs" { "300M" } else { "64M" };
    run("truncate", &["-s", size, text(image)])?;
    run(&format!("mkfs.{kind}"), &["-q", text(image)])
}

impl Disk {
    /// A new file system of this kind, mounted with these options.
    pub(crate) fn new(kind: &str, options: &str) -> Result<Self, String> {
        run("xfs_io", &["-V"])?;
        let directory = scratch();
        let image = directory.path().join("image");
        format(kind, &image)?;
        Self::mounted(directory, image, options)
    }

    /// The file system in an image, mounted with these options.
    pub(crate) fn of(image: &Path, options: &str) -> Result<Self, String> {
        Self::mounted(scratch(), image.to_owned(), options)
    }

    fn mounted(directory: TempDir, image: PathBuf, options: &str) -> Result<Self, String> {
        let options = format!("loop,{options}");
        let disk = Self { directory, image, options, is_mounted: Cell::new(false) };
        std::fs::create_dir(disk.path()).unwrap();
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", &self.options, text(&self.image), text(&self.path())])?;
        self.is_mounted.set(true);
        Ok(())
    }

    fn unmount(&self) -> Result<(), String> {
        run("umount", &[text(&self.path())])
    }

    /// Has everything lost that was not synced, and the file system mounted again. Whoever had a
    /// file open on it must be dead by now: it would be told that its syncs succeed.
    pub(crate) fn cut_power(&self) {
        // Without a flush of the log.
        run("xfs_io", &["-x", "-c", "shutdown", text(&self.path())]).unwrap();
        self.unmount().unwrap();
        self.mount().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The loop device goes with the mount.
        if self.is_mounted.get()
            && let Err(error) = self.unmount()
        {
            say(&error);
        }
    }
}
