//! What threads meet at: atomics, locks, and giving way. Whoever takes part in the protocol of the
//! log takes them from here: under `cfg(loom)` they are models, in which every interleaving of a
//! few threads and every value that the memory model allows is tried; under `cfg(shuttle)` they are
//! models, too, in which some of the interleavings of more threads are tried.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::{sync::atomic, thread::yield_now};

#[cfg(any(loom, shuttle))]
pub(crate) use crate::os::sync_model::engine::{sync::atomic, thread::yield_now};
#[cfg(any(loom, shuttle))]
pub(crate) use crate::os::sync_model::{Condvar, Mutex, MutexGuard};
