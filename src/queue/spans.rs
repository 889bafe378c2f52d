//! What a journal says of a shard, as ranges of numbers.
//!
//! A range ends where the next record begins, as far as that is known; so what is done side by side
//! becomes one range, however it was said.

use std::collections::BTreeMap;

use crate::format::queue_entry::{Change, Known, Until};

/// Nothing has happened to these records.
const FRESH: Known = Known::Held { receives: 0, until: Until::Delayed(0) };

/// Ranges that do not overlap, by their beginnings.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans {
    /// Where each ends, and how it stands with its records.
    ranges: BTreeMap<u64, (u64, Known)>,
}

impl Spans {
    /// How it stands with a record, if anything was said of it.
    pub(super) fn get(&self, address: u64) -> Option<Known> {
        let (_, &(to, known)) = self.ranges.range(..=address).next_back()?;
        (address < to).then_some(known)
    }

    /// How many ranges there are.
    pub(super) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The ranges.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64, Known)> {
        self.ranges.iter().map(|(&from, &(to, known))| (from, to, known))
    }

    /// Behind the last record that anybody has received.
    pub(super) fn received_to(&self) -> u64 {
        let is_received = |known: &Known| !matches!(known, Known::Held { receives: 0, .. });
        let received = self.ranges.values().rev().find(|(_, known)| is_received(known));
        received.map_or(0, |(to, _)| *to)
    }

    /// How many records nobody has received that were put to be received later, and the times.
    pub(super) fn put_with_delay(&self) -> impl Iterator<Item = u64> {
        self.ranges.values().filter_map(|(_, known)| match known {
            Known::Held { receives: 0, until: Until::Delayed(ms) } => Some(*ms),
            _ => None,
        })
    }

    /// Everything below this number is done.
    pub(super) fn forget_below(&mut self, address: u64) {
        self.split(address);
        self.ranges = self.ranges.split_off(&address);
    }

    /// This is so of these records.
    pub(super) fn set(&mut self, from: u64, to: u64, known: Known) {
        self.change(from, to, |_| known);
    }

    /// This happens to these records.
    pub(super) fn apply(&mut self, from: u64, to: u64, change: Change) {
        self.change(from, to, |known| after(known, change));
    }

    fn change(&mut self, from: u64, to: u64, change: impl Fn(Known) -> Known) {
        self.split(from);
        self.split(to);
        let mut at = from;
        let mut changed = Vec::new();
        for (&start, &(end, known)) in self.ranges.range(from..to) {
            if at < start {
                changed.push((at, start, change(FRESH)));
            }
            changed.push((start, end, change(known)));
            at = end;
        }
        if at < to {
            changed.push((at, to, change(FRESH)));
        }
        for (start, end, known) in changed {
            self.ranges.insert(start, (end, known));
            self.join(start);
        }
        self.join(to);
    }

    /// Has a range begin here, if one lies across.
    fn split(&mut self, at: u64) {
        let Some((_, across)) = self.ranges.range_mut(..at).next_back() else { return };
        let (to, known) = *across;
        if at < to {
            across.0 = at;
            self.ranges.insert(at, (to, known));
        }
    }

    /// Makes one of the range that begins here and the one before, if they say the same. Those of
    /// which nobody has received anything stay apart: each is one record.
    fn join(&mut self, at: u64) {
        let Some(&(to, known)) = self.ranges.get(&at) else { return };
        let is_one_record = matches!(known, Known::Held { receives: 0, .. });
        if let Some((_, before)) = self.ranges.range_mut(..at).next_back()
            && *before == (at, known)
            && !is_one_record
        {
            before.0 = to;
            self.ranges.remove(&at);
        }
    }
}

/// How it stands with a record after this has happened.
pub(super) fn after(known: Known, change: Change) -> Known {
    let Known::Held { receives, .. } = known else { return Known::Done };
    let (receives, until) = match change {
        Change::Received { until_ms } => (receives.saturating_add(1), Until::InFlight(until_ms)),
        Change::Extended { until_ms } => (receives, Until::InFlight(until_ms)),
        Change::Delayed { until_ms } => (receives, Until::Delayed(until_ms)),
        Change::Done => return Known::Done,
    };
    Known::Held { receives, until }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(receives: u16, until: Until) -> Known {
        Known::Held { receives, until }
    }

    fn all(spans: &Spans) -> Vec<(u64, u64, Known)> {
        spans.iter().collect()
    }

    #[test]
    fn what_is_done_side_by_side_becomes_one_range() {
        let mut spans = Spans::default();
        for (from, to) in [(64, 96), (128, 160), (96, 128), (32, 64)] {
            spans.apply(from, to, Change::Done);
        }
        assert_eq!(all(&spans), [(32, 160, Known::Done)]);
        assert_eq!((spans.get(31), spans.get(32)), (None, Some(Known::Done)));
        assert_eq!((spans.get(159), spans.get(160)), (Some(Known::Done), None));
    }

    #[test]
    fn a_change_concerns_its_records_and_no_others() {
        let mut spans = Spans::default();
        spans.apply(0, 320, Change::Received { until_ms: 5 });
        spans.apply(96, 128, Change::Done);
        spans.apply(64, 160, Change::Received { until_ms: 9 });
        let (once, twice) = (held(1, Until::InFlight(5)), held(2, Until::InFlight(9)));
        let ranges = [(0, 64, once), (64, 96, twice), (96, 128, Known::Done), (128, 160, twice)];
        assert_eq!(all(&spans)[..4], ranges);
        assert_eq!(all(&spans)[4..], [(160, 320, once)]);
        assert_eq!(spans.received_to(), 320);
    }

    #[test]
    fn records_that_were_put_with_a_delay_are_told_apart() {
        let mut spans = Spans::default();
        for at in [0, 32] {
            spans.apply(at, at + 32, Change::Delayed { until_ms: 5 });
        }
        assert_eq!(spans.put_with_delay().collect::<Vec<_>>(), [5, 5]);
        assert_eq!(spans.received_to(), 0);
    }

    #[test]
    fn what_lies_below_is_forgotten_to_the_number() {
        let mut spans = Spans::default();
        spans.apply(0, 320, Change::Done);
        spans.forget_below(96);
        assert_eq!(all(&spans), [(96, 320, Known::Done)]);
    }
}
