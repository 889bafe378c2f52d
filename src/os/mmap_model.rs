//! Maps for models: the interface of `mmap.rs` over memory that loom can see. (Shuttle has no
//! watched cells: under it, only what the threads see of each other is checked.)
//!
//! Words are loom's atomics. Bytes are plain memory, next to a cell for each range that loom
//! watches: it fails a model in which one thread writes bytes while another reads or writes them,
//! that is, without everything in between that orders the two. So the rules W, P and L are not
//! believed here, but checked:
//!
//! - a range that is written by two claims, or a word in it, is a race (W);
//! - bytes that are read before their word was acquired, or written after, are a race (P);
//! - a window that is used after its map was given up fails (L).
//!
//! What lies in the first page is not modelled: no thread looks for another one's writes there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

#[cfg(loom)]
use loom::cell::UnsafeCell;

use crate::os::sync::atomic::{AtomicU32, AtomicUsize};

const PAGE: usize = 4096;
/// Words are looked for at multiples of this.
const UNIT: usize = 32;

thread_local! {
    /// What is in the files of a model, by their inodes. All its threads are one for the system.
    static FILES: RefCell<BTreeMap<u64, Arc<Memory>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Forgets what is in the files; so begins each execution of a model.
#[cfg(test)]
pub(crate) fn forget_files() {
    FILES.take();
}

/// A cell that nobody watches.
#[cfg(shuttle)]
#[derive(Debug)]
struct UnsafeCell<T>(T);

#[cfg(shuttle)]
impl<T> UnsafeCell<T> {
    fn new(value: T) -> Self {
        Self(value)
    }

    fn with(&self, access: impl FnOnce(&T)) {
        access(&self.0);
    }

    fn with_mut(&self, access: impl FnOnce(&T)) {
        access(&self.0);
    }
}

/// A file in memory.
#[derive(Debug)]
pub(crate) struct Map {
    memory: Arc<Memory>,
    given_up: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Memory {
    len: usize,
    words: Vec<AtomicU32>,
    /// This lock is not seen by the model, and held only between two of its steps.
    bytes: Mutex<Bytes>,
    /// What was lent to readers.
    lent: Lent,
}

#[derive(Debug)]
struct Bytes {
    content: Vec<u8>,
    /// For each unit: its word, and the rest of it.
    watched: Vec<[UnsafeCell<()>; 2]>,
    /// Which units are on the disk.
    synced: Vec<bool>,
}

/// A list that only grows, so that what is in it can be borrowed.
#[derive(Debug, Default)]
struct Lent(OnceLock<Box<(Vec<u8>, Lent)>>);

impl Lent {
    fn keep(&self, bytes: Vec<u8>) -> &[u8] {
        let mut last = self;
        while let Some(kept) = last.0.get() {
            last = &kept.1;
        }
        &last.0.get_or_init(|| Box::new((bytes, Self::default()))).0
    }
}

impl Bytes {
    /// Tells loom of an access to a range of bytes.
    fn access(&self, range: Range<usize>, access: impl Fn(&UnsafeCell<()>)) {
        for (unit, [word, rest]) in self.watched.iter().enumerate() {
            let at = PAGE + unit * UNIT;
            if range.start < at + 4 && at < range.end {
                access(word);
            }
            if range.start < at + UNIT && at + 4 < range.end {
                access(rest);
            }
        }
    }
}

impl Memory {
    fn new(len: usize) -> Self {
        let units = (len - PAGE) / UNIT;
        let watched = (0..units).map(|_| [UnsafeCell::new(()), UnsafeCell::new(())]).collect();
        Self {
            len,
            words: (0..units).map(|_| AtomicU32::new(0)).collect(),
            bytes: Mutex::new(Bytes { content: vec![0; len], watched, synced: vec![false; units] }),
            lent: Lent::default(),
        }
    }

    fn bytes(&self) -> MutexGuard<'_, Bytes> {
        self.bytes.lock().expect("nobody panics with it")
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(UNIT) && at + 4 <= self.len, "a word lies in its map");
        // An atomic access is no race with another one, but with one to the bytes there.
        self.bytes().access(at..at + 4, |cell| cell.with(|_| ()));
        &self.words[(at - PAGE) / UNIT]
    }

    fn write<T>(&self, at: usize, len: usize, with: impl FnOnce(&mut [u8]) -> T) -> T {
        assert!(at <= self.len && len <= self.len - at, "bytes lie in their map");
        let mut writing = Writing { memory: self, at, copy: Vec::new() };
        let bytes = self.bytes();
        bytes.access(at..at + len, |cell| cell.with_mut(|_| ()));
        writing.copy.extend_from_slice(&bytes.content[at..at + len]);
        drop(bytes);
        with(&mut writing.copy)
    }
}

/// Bytes that are being written; what was written is there even if the writer panics.
struct Writing<'a> {
    memory: &'a Memory,
    at: usize,
    copy: Vec<u8>,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let range = self.at..self.at + self.copy.len();
        let mut bytes = self.memory.bytes();
        bytes.access(range.clone(), |cell| cell.with_mut(|_| ()));
        bytes.content[range].copy_from_slice(&self.copy);
    }
}

impl Map {
    /// There is no cache in a model.
    pub(crate) fn prefetch(&self, _at: usize, _end: usize) {}

    /// Nor are there pages.
    pub(crate) fn forget_pages(&self) {}

    pub(crate) fn writable(file: &File, len: usize) -> io::Result<Self> {
        let inode = file.metadata()?.ino();
        let memory = FILES.with_borrow_mut(|files| {
            Arc::clone(files.entry(inode).or_insert_with(|| Arc::new(Memory::new(len))))
        });
        assert_eq!(memory.len, len, "a file is mapped as a whole");
        Ok(Self { memory, given_up: Arc::default() })
    }

    pub(crate) fn read_only(file: &File, len: usize) -> io::Result<Self> {
        Self::writable(file, len)
    }

    /// What nobody writes to any more is the same as a copy.
    pub(crate) fn copied(file: &File, len: usize) -> io::Result<Self> {
        Self::writable(file, len)
    }

    pub(crate) fn len(&self) -> usize {
        self.memory.len
    }

    pub(crate) fn window(&self) -> Window {
        Window { memory: Arc::clone(&self.memory), given_up: Arc::clone(&self.given_up) }
    }

    pub(crate) fn word(&self, at: usize) -> &AtomicU32 {
        self.memory.word(at)
    }

    /// The bytes, but for their words, which are zeros here.
    pub(crate) fn bytes(&self, start: usize, len: usize) -> &[u8] {
        let range = start..start + len;
        let bytes = self.memory.bytes();
        bytes.access(range.clone(), |cell| cell.with(|_| ()));
        self.memory.lent.keep(bytes.content[range].to_vec())
    }

    pub(crate) fn store(&self, at: usize, bytes: &[u8]) {
        self.window().copy_in(at, bytes);
    }

    pub(crate) fn populate(&self, _range: Range<usize>) {}

    pub(crate) fn sync(&self, range: Range<usize>) -> io::Result<()> {
        let mut bytes = self.memory.bytes();
        // The disk is a reader.
        bytes.access(range.clone(), |cell| cell.with(|_| ()));
        for at in range.step_by(UNIT).filter(|at| *at >= PAGE) {
            bytes.synced[(at - PAGE) / UNIT] = true;
        }
        Ok(())
    }

    /// Whether all behind the first page and before `at` is on the disk.
    #[cfg(test)]
    pub(crate) fn is_synced_to(&self, at: usize) -> bool {
        self.memory.bytes().synced[..(at - PAGE) / UNIT].iter().all(|synced| *synced)
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

/// A map as the holders of claims see it.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    memory: Arc<Memory>,
    given_up: Arc<AtomicBool>,
}

impl Window {
    /// There is no cache in a model.
    pub(crate) fn prefetch(&self, _at: usize, _end: usize) {}

    fn memory(&self) -> &Memory {
        assert!(!self.given_up.load(Ordering::Relaxed), "the map is alive");
        &self.memory
    }

    pub(crate) fn word(&self, at: usize) -> &AtomicU32 {
        self.memory().word(at)
    }

    pub(crate) fn copy_in(&self, at: usize, bytes: &[u8]) {
        self.with_bytes(at, bytes.len(), |place| place.copy_from_slice(bytes));
    }

    pub(crate) fn with_bytes<T>(
        &self,
        at: usize,
        len: usize,
        with: impl FnOnce(&mut [u8]) -> T,
    ) -> T {
        self.memory().write(at, len, with)
    }
}

/// Where producers find the map of the segment they write to.
#[derive(Debug, Default)]
pub(crate) struct WindowCell {
    /// Which of the windows it shows, counted from one. Relaxed as the pointer that it stands for:
    /// a producer whose claim does not order it gets an old one.
    shown: AtomicUsize,
    windows: Mutex<Vec<Window>>,
}

impl WindowCell {
    pub(crate) fn set(&self, window: Window) {
        let count = {
            let mut windows = self.windows.lock().expect("nobody panics with it");
            windows.push(window);
            windows.len()
        };
        self.shown.store(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Window {
        let shown = self.shown.load(Ordering::Relaxed);
        let windows = self.windows.lock().expect("nobody panics with it");
        windows[shown - 1].clone()
    }
}
