//! What the kernel gives: files, maps, time, and sleep until something happens.

#[cfg(feature = "async")]
pub(crate) mod alarm;
pub(crate) mod clock;
#[cfg(all(test, any(loom, shuttle)))]
pub(crate) mod explore;
pub(crate) mod fs;
#[cfg(all(test, any(loom, shuttle)))]
mod interleavings;
pub(crate) mod lock;
#[cfg(not(any(loom, shuttle)))]
pub(crate) mod mmap;
#[cfg(any(loom, shuttle))]
pub(crate) mod mmap_model;
pub(crate) mod shared_file;
pub(crate) mod signal;
#[cfg(test)]
pub(crate) mod steps;
pub(crate) mod sync;
#[cfg(any(loom, shuttle))]
pub(crate) mod sync_model;

#[cfg(any(loom, shuttle))]
pub(crate) use self::mmap_model as mmap;

/// A number that nobody can know before.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library's hash maps get their random keys from the system.
    RandomState::new().hash_one(std::process::id())
}
