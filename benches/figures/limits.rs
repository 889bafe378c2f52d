//! What ours is measured against: the same bytes in a map, without a log around them.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use memmap2::{MmapOptions, MmapRaw};

use crate::directory;

/// The limit: the same bytes copied into a fresh map of a file with all its blocks, and checksummed.
pub struct Limits {
    directory: tempfile::TempDir,
    files: usize,
}

const LIMIT_FILE_BYTES: usize = 64 << 20;

impl Limits {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir_in(directory()).unwrap(), files: 0 }
    }

    fn map(&mut self, populate: bool) -> MmapRaw {
        self.files += 1;
        let path = self.directory.path().join(self.files.to_string());
        let file = File::options().create_new(true).read(true).write(true).open(path).unwrap();
        let flags = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&file, flags, 0, LIMIT_FILE_BYTES as u64).unwrap();
        let map = MmapOptions::new().len(LIMIT_FILE_BYTES).map_raw(&file).unwrap();
        if populate {
            map.advise(memmap2::Advice::PopulateWrite).unwrap();
        }
        map
    }

    /// Copies and checksums records until so many bytes are full.
    pub fn fill(&mut self, data: &[u8], bytes: usize, populate: bool) -> f64 {
        let step = (32 + data.len()).next_multiple_of(32);
        let (mut records, mut nanos) = (0, 0);
        for _ in 0..bytes.div_ceil(LIMIT_FILE_BYTES) {
            let map = self.map(populate);
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
        nanos as f64 / records as f64
    }
}

/// As many bytes as a stream has, in a warm map of a file.
pub fn image_of(len: usize) -> memmap2::Mmap {
    let mut file = tempfile::tempfile_in(directory()).unwrap();
    let data = vec![7; 1 << 20];
    for _ in 0..len >> 20 {
        file.write_all(&data).unwrap();
    }
    // SAFETY: nobody else has the file.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    map.advise(memmap2::Advice::PopulateRead).unwrap();
    map
}
