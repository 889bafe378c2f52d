//! A small file that processes read and write in place, through memory that they share: no system
//! call is needed but for the lock, which keeps those who write apart.
//!
//! All its words are accessed as atomics, in no order. So whoever reads while another one writes
//! may see a part of what is written, and has to be able to tell; under the lock everybody sees
//! what the one before has written.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::os::fs;
use crate::os::lock::{BriefLock, lock_briefly};
use crate::os::mmap::Map;

const WORD: usize = 4;

/// A file of a fixed length.
#[derive(Debug)]
pub(crate) struct SharedFile {
    path: PathBuf,
    file: File,
    map: Map,
}

impl SharedFile {
    /// Opens a file; one that is shorter gets zeros.
    pub(crate) fn open(path: &Path, len: usize) -> Result<Self> {
        let file = fs::open_write(path)?;
        let metadata = file.metadata().map_err(|e| Error::io("look at", path, e))?;
        // One that was copied may have holes, and a full disk would be found by touching them.
        if metadata.len().min(metadata.blocks() * 512) < len as u64 {
            fs::allocate(&file, path, len as u64)?;
        }
        let map = Map::writable(&file, len).map_err(|e| Error::io("map", path, e))?;
        Ok(Self { path: path.to_owned(), file, map })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps those who have opened the file elsewhere from locking it, for a moment.
    pub(crate) fn lock(&self) -> Result<BriefLock<'_>> {
        lock_briefly(&self.file, &self.path)
    }

    /// What is in the file; torn if somebody is just writing.
    pub(crate) fn read<const LEN: usize>(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        for (index, word) in bytes.as_chunks_mut::<WORD>().0.iter_mut().enumerate() {
            *word = self.map.word(index * WORD).load(Ordering::Relaxed).to_ne_bytes();
        }
        bytes
    }

    /// Writes whole words, under the lock.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        fs::step();
        let (words, rest) = bytes.as_chunks::<WORD>();
        assert!(rest.is_empty(), "the file is written by words");
        for (index, word) in words.iter().enumerate() {
            let word = u32::from_ne_bytes(*word);
            self.map.word(at + index * WORD).store(word, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_writes_everybody_reads_and_so_it_is_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shared");
        std::fs::write(&path, [1; 16]).unwrap();
        let [one, two] = [(); 2].map(|()| SharedFile::open(&path, 16).unwrap());
        one.write(8, &[2; 8]);
        assert_eq!(two.read::<16>(), [[1; 8], [2; 8]].as_flattened());
        assert_eq!(std::fs::read(&path).unwrap(), two.read::<16>());
    }

    #[test]
    fn a_file_that_is_too_short_or_has_holes_gets_all_its_blocks() {
        let directory = tempfile::tempdir().unwrap();
        for (name, before) in [("empty", &b""[..]), ("short", b"abc"), ("sparse", &[0; 8])] {
            let path = directory.path().join(name);
            std::fs::write(&path, before).unwrap();
            if name == "sparse" {
                File::options().write(true).open(&path).unwrap().set_len(8192).unwrap();
            }
            let file = SharedFile::open(&path, 8192).unwrap();
            file.write(8188, &[7; 4]);
            let metadata = std::fs::metadata(&path).unwrap();
            assert_eq!(metadata.len(), 8192);
            assert!(metadata.blocks() * 512 >= 8192, "{name}: {} blocks", metadata.blocks());
            let bytes = std::fs::read(&path).unwrap();
            assert!(bytes.starts_with(before) && bytes.ends_with(&[0, 7, 7, 7, 7]), "{name}");
        }
    }
}
