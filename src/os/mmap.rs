//! Maps of segment files and control rows: the one file with `unsafe` in it.
//!
//! A map is shared memory. What keeps access to it free of races is the protocol of the log, and
//! every block below stands on one or more of its rules:
//!
//! - **W (written once).** A range is written by the one who was granted it by the segment's tail,
//!   and by nobody else: ranges of different claims do not overlap.
//! - **P (published for good).** The owner of a range writes to it only before it publishes the
//!   range by a store to its first word with release; readers look only after a load of that word
//!   with acquire. Words themselves are only touched as atomics.
//!   Control rows have no bytes, only words.
//! - **L (live).** The memory stays mapped while it is used: a [`Map`] by borrowing it, a
//!   [`Window`] because the holder has an unpublished claim in it, and a map is given up only when
//!   all claims in it are published.
//! - **F (the file stays).** Files are allocated in full before they are mapped and never
//!   truncated. Somebody else who truncates one while it is mapped gets the process SIGBUS; no
//!   program can guard a map against that, so the directory is for the process's owner alone.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicU32;

use memmap2::{MmapOptions, MmapRaw};
use rustix::mm::Advice;

/// A whole file in memory, shared with every other map of it (or a copy of one).
#[derive(Debug)]
pub(crate) struct Map(MmapRaw);

impl Map {
    /// Maps a file that has all its blocks, for reading and writing.
    pub(crate) fn writable(file: &File, len: usize) -> io::Result<Self> {
        MmapOptions::new().len(len).map_raw(file).map(Self)
    }

    /// Maps a file for reading. Nothing may be written to the map: neither `window` nor `store` is
    /// for it.
    pub(crate) fn read_only(file: &File, len: usize) -> io::Result<Self> {
        MmapOptions::new().len(len).map_raw_read_only(file).map(Self)
    }

    /// Copies a file into memory of its own, for reading, with the same rule as `read_only`. What
    /// the disk cannot read, or somebody has truncated, is an error now and not a signal later.
    pub(crate) fn copied(file: &File, len: usize) -> io::Result<Self> {
        let mut copy = MmapOptions::new().len(len).map_anon()?;
        file.read_exact_at(&mut copy, 0)?;
        Ok(Self(copy.into()))
    }

    /// How many bytes are mapped.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The map as its producers see it.
    pub(crate) fn window(&self) -> Window {
        Window { start: self.0.as_mut_ptr(), len: self.0.len() }
    }

    /// The word at `at`, which is a multiple of 4.
    ///
    /// # Panics
    /// If it lies outside of the map.
    #[inline]
    pub(crate) fn word(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.len(), "a word lies in its map");
        // SAFETY:
        // - in bounds and aligned: asserted; a map begins at a page.
        // - alive: borrowed from `self`.
        // - shared: words are only ever accessed as atomics (P).
        unsafe { AtomicU32::from_ptr(self.0.as_mut_ptr().add(at).cast()) }
    }

    /// Bytes of the map that were published, or that no live writer writes to.
    ///
    /// # Panics
    /// If they lie outside of the map.
    #[inline]
    pub(crate) fn bytes(&self, start: usize, len: usize) -> &[u8] {
        assert!(start <= self.len() && len <= self.len() - start, "bytes lie in their map");
        // SAFETY:
        // - in bounds: asserted; initialised: a mapped file always is.
        // - alive: borrowed from `self`; the file keeps its length (F).
        // - not written meanwhile: what was published never is again (P).
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(start), len) }
    }

    /// Has the cache lines from `at` to `end` brought here for reading, without waiting for them.
    /// What lies outside of the map is left out.
    #[inline]
    pub(crate) fn prefetch(&self, at: usize, end: usize) {
        let (mut line, end) = (at, end.min(self.len()));
        while line < end {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: in bounds; a hint, which reads and writes nothing.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(self.0.as_ptr().add(line).cast());
            }
            line += 64;
        }
    }

    /// Writes bytes that no other thread reads or writes at this moment: a segment's seal.
    ///
    /// # Panics
    /// If they lie outside of the map.
    pub(crate) fn store(&self, at: usize, bytes: &[u8]) {
        self.window().copy_in(at, bytes);
    }

    /// Touches all pages of a range, so that writing to them costs no page fault. Systems that
    /// cannot leave it to the writers.
    pub(crate) fn populate(&self, range: Range<usize>) {
        let range = range.start & !4095..range.end.min(self.len());
        if range.is_empty() {
            return;
        }
        // SAFETY:
        // - in bounds: cut to the map above; begins at a page.
        // - no effect on the bytes: populating for writing changes only page tables.
        let _ = unsafe {
            let start = self.0.as_mut_ptr().add(range.start);
            rustix::mm::madvise(start.cast(), range.len(), Advice::LinuxPopulateWrite)
        };
    }

    /// Forgets where the pages of the map are; whoever needs one finds it in the page cache.
    ///
    /// Syncing a page that is mapped for writing interrupts every core that runs the process, to
    /// take the permission back: page by page, unless nobody has it.
    pub(crate) fn forget_pages(&self) {
        // SAFETY:
        // - in bounds: the whole map, which begins at a page.
        // - no effect on the bytes: the map is shared, so they are in the file.
        let _ = unsafe {
            let start = self.0.as_mut_ptr();
            rustix::mm::madvise(start.cast(), self.len(), Advice::LinuxDontNeed)
        };
    }

    /// Makes a range of the file durable.
    pub(crate) fn sync(&self, range: Range<usize>) -> io::Result<()> {
        self.0.flush_range(range.start, range.len())
    }
}

/// A map as the holders of claims see it: valid as long as a claim in it is unpublished (L).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    start: *mut u8,
    len: usize,
}

// SAFETY: it is an address and a length; whoever uses it holds a claim (L), on whatever thread.
unsafe impl Send for Window {}
// SAFETY: as for Send; the memory is accessed by the rules W and P alone.
unsafe impl Sync for Window {}

impl Window {
    /// The word at `at`, which is a multiple of 4, in a range that was claimed.
    ///
    /// # Panics
    /// If it lies outside of the map.
    #[inline]
    pub(crate) fn word(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.len, "a word lies in its map");
        // SAFETY:
        // - in bounds and aligned: asserted; a map begins at a page.
        // - alive: the caller holds a claim (L), and keeps the reference only as long.
        // - shared: words are only ever accessed as atomics (P).
        unsafe { AtomicU32::from_ptr(self.start.add(at).cast()) }
    }

    /// Has the cache lines from `at` to `end` brought here for writing, without waiting for them.
    /// What lies outside of the map is left out.
    #[inline]
    pub(crate) fn prefetch(&self, at: usize, end: usize) {
        let (mut line, end) = (at, end.min(self.len));
        while line < end {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: in bounds; a hint, which reads and writes nothing.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_ET0>(self.start.add(line).cast_const().cast());
            }
            line += 64;
        }
    }

    /// Copies bytes into a range that was claimed.
    ///
    /// # Panics
    /// If it lies outside of the map.
    #[inline]
    pub(crate) fn copy_in(&self, at: usize, bytes: &[u8]) {
        assert!(at <= self.len && bytes.len() <= self.len - at, "bytes lie in their map");
        // SAFETY:
        // - in bounds: asserted.
        // - alive: the caller holds a claim (L).
        // - exclusive: the range is claimed and not yet published (W, P); the source is a Rust
        //   slice, which cannot lie in such a range.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(at), bytes.len()) }
    }

    /// Lends a range that was claimed to whoever fills it.
    ///
    /// # Panics
    /// If it lies outside of the map.
    #[inline]
    pub(crate) fn with_bytes<T>(
        &self,
        at: usize,
        len: usize,
        with: impl FnOnce(&mut [u8]) -> T,
    ) -> T {
        assert!(at <= self.len && len <= self.len - at, "bytes lie in their map");
        // SAFETY:
        // - in bounds: asserted; initialised: a mapped file always is.
        // - alive: the caller holds a claim (L), and the slice cannot outlive the call.
        // - exclusive: the range is claimed and not yet published (W, P).
        with(unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) })
    }
}

/// Where producers find the map of the segment they write to.
#[derive(Debug, Default)]
pub(crate) struct WindowCell {
    /// Both are stored by the one who binds a segment, before the tail that grants claims in it is
    /// stored with release; and loaded by the holder of a claim, after the claim has acquired that
    /// tail. So relaxed order suffices for them.
    start: std::sync::atomic::AtomicPtr<u8>,
    len: std::sync::atomic::AtomicUsize,
}

impl WindowCell {
    /// Shows this window from now on; the tail that grants claims in it is stored afterwards.
    pub(crate) fn set(&self, window: Window) {
        self.start.store(window.start, std::sync::atomic::Ordering::Relaxed);
        self.len.store(window.len, std::sync::atomic::Ordering::Relaxed);
    }

    /// The window in which the caller holds a claim.
    #[inline]
    pub(crate) fn get(&self) -> Window {
        Window {
            start: self.start.load(std::sync::atomic::Ordering::Relaxed),
            len: self.len.load(std::sync::atomic::Ordering::Relaxed),
        }
    }
}
