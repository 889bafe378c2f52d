//! What threads meet at: atomics, locks, and giving way. Whoever takes part in the protocol of the
//! log takes them from here: under `cfg(loom)` they are models, in which every interleaving of a
//! few threads and every value that the memory model allows is tried.

#[cfg(not(loom))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use std::{sync::atomic, thread::yield_now};

#[cfg(loom)]
pub(crate) use crate::os::sync_model::{Condvar, Mutex, MutexGuard};
#[cfg(loom)]
pub(crate) use loom::{sync::atomic, thread::yield_now};
