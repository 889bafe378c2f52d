//! When records are due that nobody gets before.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The most that may be left of what is not so any more, beside as much as there is.
const SLACK: usize = 1024;

/// Things and when they are due, in milliseconds since 1970. One that is not due any more is not
/// taken out: whoever looks passes over it, and from time to time all of these go.
#[derive(Debug)]
pub(super) struct Dues<T> {
    heap: BinaryHeap<Reverse<(u64, T)>>,
}

impl<T: Ord + Copy> Dues<T> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new() }
    }

    /// Adds one. `count` are still due, as `is_due` says.
    pub(super) fn push(
        &mut self,
        ms: u64,
        thing: T,
        count: u64,
        mut is_due: impl FnMut(u64, T) -> bool,
    ) {
        if self.heap.len() > 2 * count as usize + SLACK {
            self.heap.retain(|Reverse((ms, thing))| is_due(*ms, *thing));
        }
        self.heap.push(Reverse((ms, thing)));
    }

    /// The first one, if it is due by now.
    pub(super) fn pop(&mut self, now_ms: u64) -> Option<(u64, T)> {
        self.heap.peek().filter(|Reverse((ms, _))| *ms <= now_ms)?;
        self.heap.pop().map(|Reverse(first)| first)
    }

    /// When something is due next, as `is_due` says.
    pub(super) fn next_ms(&mut self, mut is_due: impl FnMut(u64, T) -> bool) -> Option<u64> {
        while let Some(Reverse((ms, thing))) = self.heap.peek() {
            if is_due(*ms, *thing) {
                return Some(*ms);
            }
            self.heap.pop();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_due_any_more_takes_no_more_room_than_what_is() {
        let mut dues = Dues::new();
        for n in 0..100_000 {
            dues.push(n, n, 10, |_, thing| thing + 10 >= n);
        }
        assert!(dues.heap.len() <= 20 + SLACK + 1, "{}", dues.heap.len());
        assert_eq!(dues.next_ms(|_, thing| thing == 99_999), Some(99_999));
        assert_eq!((dues.pop(99_998), dues.pop(99_999)), (None, Some((99_999, 99_999))));
    }
}
