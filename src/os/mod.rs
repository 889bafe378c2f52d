//! What the kernel gives: files, maps, time, and sleep until something happens.

#[cfg(feature = "async")]
pub(crate) mod alarm;
pub(crate) mod clock;
pub(crate) mod fs;
pub(crate) mod lock;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(not(loom))]
pub(crate) mod mmap;
#[cfg(loom)]
pub(crate) mod mmap_model;
pub(crate) mod shared_file;
pub(crate) mod signal;
#[cfg(test)]
pub(crate) mod steps;
pub(crate) mod sync;
#[cfg(loom)]
pub(crate) mod sync_model;

#[cfg(loom)]
pub(crate) use self::mmap_model as mmap;

/// A number that nobody can know before.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library's hash maps get their random keys from the system.
    RandomState::new().hash_one(std::process::id())
}
