//! What ours is measured against: the same bytes in a map, without a log around them, and what a
//! program does that has no log. Shared by the benchmarks and `millstream bench`; all times are in ns
//! per record.

#![allow(unreachable_pub, reason = "each of those who share it uses a part")]

use std::fs::File;
use std::hint::black_box;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use memmap2::{Mmap, MmapOptions, MmapRaw};
use tempfile::TempDir;

/// The limit: the same bytes copied into a fresh map of a file with all its blocks, and checksummed.
pub struct Limits {
    directory: TempDir,
    files: usize,
}

const LIMIT_FILE_BYTES: usize = 64 << 20;

impl Limits {
    /// Their files are in this directory, until they are dropped.
    pub fn new(directory: &Path) -> io::Result<Self> {
        Ok(Self { directory: tempfile::tempdir_in(directory)?, files: 0 })
    }

    fn map(&mut self, populate: bool) -> io::Result<MmapRaw> {
        self.files += 1;
        let path = self.directory.path().join(self.files.to_string());
        let file = File::options().create_new(true).read(true).write(true).open(path)?;
        let flags = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&file, flags, 0, LIMIT_FILE_BYTES as u64)?;
        let map = MmapOptions::new().len(LIMIT_FILE_BYTES).map_raw(&file)?;
        if populate {
            map.advise(memmap2::Advice::PopulateWrite)?;
        }
        Ok(map)
    }

    /// Copies and checksums records until so many bytes are full.
    pub fn fill(&mut self, data: &[u8], bytes: usize, populate: bool) -> io::Result<f64> {
        let step = (32 + data.len()).next_multiple_of(32);
        let (mut records, mut nanos) = (0, 0);
        for _ in 0..bytes.div_ceil(LIMIT_FILE_BYTES) {
            let map = self.map(populate)?;
            let start = Instant::now();
            for at in (0..LIMIT_FILE_BYTES - step).step_by(step) {
                // SAFETY: in bounds; this thread alone has the map.
                let copied = unsafe {
                    let place = map.as_mut_ptr().add(at + 32);
                    std::ptr::copy_nonoverlapping(data.as_ptr(), place, data.len());
                    std::slice::from_raw_parts(place, data.len())
                };
                black_box(crc32fast::hash(copied));
                records += 1;
            }
            nanos += start.elapsed().as_nanos();
        }
        Ok(nanos as f64 / records as f64)
    }
}

/// Writes records to a file through a buffer of 64 KiB, until so many bytes are written.
pub fn buffered(path: &Path, data: &[u8], bytes: usize) -> io::Result<f64> {
    let mut writer = BufWriter::with_capacity(64 << 10, File::create(path)?);
    let count = (bytes / data.len()).max(1);
    let start = Instant::now();
    for _ in 0..count {
        writer.write_all(data)?;
    }
    let nanos = start.elapsed().as_nanos() as f64 / count as f64;
    writer.flush()?;
    Ok(nanos)
}

/// A file to which each record is written and synced by itself.
pub struct Synced {
    file: File,
    offset: u64,
}

impl Synced {
    /// A file in this directory.
    pub fn new(directory: &Path) -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile_in(directory)?, offset: 0 })
    }

    /// Writes and syncs a record.
    pub fn put(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, self.offset)?;
        self.offset += data.len() as u64;
        self.file.sync_data()
    }
}

/// The segment files of a stream, as nothing but bytes in the page cache.
pub struct Image(Vec<File>);

impl Image {
    /// Those in this directory and below.
    pub fn of(directory: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                files.append(&mut Self::of(&path)?.0);
            } else if path.extension().is_some_and(|extension| extension == "seg") {
                files.push(File::open(path)?);
            }
        }
        Ok(Self(files))
    }

    /// Checksums all that a reader of records with so many bytes of data has to, in new maps, as
    /// those of a stream that was just opened are. If they are populated, that is not counted.
    pub fn sum(&self, record_bytes: usize, populate: bool) -> io::Result<f64> {
        let step = (40 + record_bytes).next_multiple_of(32);
        let (mut records, mut nanos) = (0, 0);
        for file in &self.0 {
            let mut start = Instant::now();
            // SAFETY: nobody writes to the file.
            let map = unsafe { Mmap::map(file) }?;
            if populate {
                map.advise(memmap2::Advice::PopulateRead)?;
                start = Instant::now();
            }
            for frame in map.chunks_exact(step) {
                black_box(crc32fast::hash(&frame[..record_bytes]));
                records += 1;
            }
            if !populate {
                drop(map);
            }
            nanos += start.elapsed().as_nanos();
        }
        Ok(nanos as f64 / records as f64)
    }
}
