//! Which shard owns a hash key.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::hash_key::{HashKey, HashKeyRange};
use crate::shard::Shard;

/// The open shards at one moment; immutable.
#[derive(Debug)]
pub(super) struct Picture {
    /// The first hash key of each range, rising from 0.
    starts: Box<[HashKey]>,
    shards: Box<[Arc<Shard>]>,
}

/// The owners of all hash keys. Routing takes no lock; a reshard shows a new picture.
#[derive(Debug)]
pub(super) struct Router {
    pictures: Latest<Picture>,
}

impl Router {
    /// Routes to these shards, whose ranges are the whole ring.
    pub(super) fn new(shards: Vec<(HashKeyRange, Arc<Shard>)>) -> Self {
        let router = Self { pictures: Latest::new() };
        router.show(shards);
        router
    }

    /// Routes to these shards from now on.
    pub(super) fn show(&self, mut shards: Vec<(HashKeyRange, Arc<Shard>)>) {
        shards.sort_unstable_by_key(|(range, _)| range.start);
        let (starts, shards): (Vec<_>, Vec<_>) =
            shards.into_iter().map(|(range, shard)| (range.start, shard)).unzip();
        assert_eq!(starts.first(), Some(&HashKey::MIN), "every hash key has an owner");
        self.pictures.show(Picture { starts: starts.into(), shards: shards.into() });
    }

    /// The open shard whose turn it is, in the order of their ranges.
    pub(super) fn in_turn(&self, turn: usize) -> &Arc<Shard> {
        let shards = &self.pictures.get().shards;
        &shards[turn % shards.len()]
    }

    /// The open shard that owns `key`.
    #[inline]
    pub(super) fn route(&self, key: HashKey) -> &Arc<Shard> {
        let picture = self.picture();
        picture.shard(picture.owner(key))
    }

    /// The owners of all keys at this moment.
    #[inline]
    pub(super) fn picture(&self) -> &Picture {
        self.pictures.get()
    }
}

impl Picture {
    /// Which of the open shards owns `key`.
    #[inline]
    pub(super) fn owner(&self, key: HashKey) -> usize {
        self.starts.partition_point(|start| *start <= key) - 1
    }

    /// The open shard with this place in the order of their ranges.
    #[inline]
    pub(super) fn shard(&self, owner: usize) -> &Arc<Shard> {
        &self.shards[owner]
    }
}

/// Counts the turns of a handle of a stream.
#[derive(Debug)]
pub(super) struct Turns {
    /// Raised by every keyless put through the handle; it only has to differ, so relaxed order
    /// suffices.
    next: AtomicUsize,
    /// How many handles there were, so that not all begin with the same shard. The same holds.
    handles: Arc<AtomicUsize>,
}

impl Turns {
    /// Those of the first handle.
    pub(super) fn new() -> Self {
        Self { next: AtomicUsize::new(0), handles: Arc::new(AtomicUsize::new(1)) }
    }

    pub(super) fn next(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// Those of another handle.
impl Clone for Turns {
    fn clone(&self) -> Self {
        let next = AtomicUsize::new(self.handles.fetch_add(1, Ordering::Relaxed));
        Self { next, handles: Arc::clone(&self.handles) }
    }
}

/// The latest of a row of values, all of which are kept: readers take no lock, and what they got
/// stays theirs. Meant for values that change seldom and are small.
#[derive(Debug)]
struct Latest<T> {
    /// The value with number `n` (from 1 on) is in the bucket `ilog2(n)`, which has room for
    /// `2^ilog2(n)` of them, at `n - 2^ilog2(n)`. Buckets never move.
    buckets: [OnceLock<Box<[OnceLock<T>]>>; 32],
    /// The number of the latest value. Stored with release by `show`, after the value; loaded with
    /// acquire by readers.
    latest: AtomicUsize,
    showing: Mutex<()>,
}

impl<T> Latest<T> {
    fn new() -> Self {
        Self {
            buckets: std::array::from_fn(|_| OnceLock::new()),
            latest: AtomicUsize::new(0),
            showing: Mutex::new(()),
        }
    }

    fn show(&self, value: T) {
        let _one_at_a_time = self.showing.lock();
        let number = self.latest.load(Ordering::Relaxed) + 1;
        let (bucket, at) = Self::place(number);
        let bucket = self.buckets[bucket]
            .get_or_init(|| (0..1 << bucket).map(|_| OnceLock::new()).collect());
        assert!(bucket[at].set(value).is_ok(), "a number is shown once");
        self.latest.store(number, Ordering::Release);
    }

    #[inline]
    fn get(&self) -> &T {
        let (bucket, at) = Self::place(self.latest.load(Ordering::Acquire));
        let bucket = self.buckets[bucket].get().expect("it was made before the number");
        bucket[at].get().expect("it was set before the number")
    }

    #[inline]
    fn place(number: usize) -> (usize, usize) {
        let bucket = number.ilog2();
        (bucket as usize, number - (1 << bucket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_value_is_the_last_one_shown_and_the_others_stay() {
        let latest = Latest::new();
        latest.show(0);
        let first = latest.get();
        for value in 1..1000 {
            latest.show(value);
            assert_eq!(*latest.get(), value);
        }
        assert_eq!(*first, 0);
    }
}
