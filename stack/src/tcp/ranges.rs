//! Sets of sequence numbers as sorted ranges: what a receiver holds out of sequence, and what a
//! sender knows its peer to hold.
//!
//! Ranges never touch: those that do become one. Looking up costs a binary search, inserting moves
//! at most half of the ranges, and each range that disappears has been inserted before.

use std::collections::VecDeque;

use super::seq::SeqNum;

/// `[start, end)`, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: SeqNum,
    pub(crate) end: SeqNum,
}

#[derive(Debug, Default)]
pub(crate) struct RangeSet {
    ranges: VecDeque<Range>,
}

impl RangeSet {
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The ranges, the last one first.
    pub(crate) fn iter_down(&self) -> impl Iterator<Item = &Range> {
        self.ranges.iter().rev()
    }

    /// The end of the last range.
    pub(crate) fn highest(&self) -> Option<SeqNum> {
        self.ranges.back().map(|r| r.end)
    }

    /// The range that `seq` lies in.
    pub(crate) fn find(&self, seq: SeqNum) -> Option<Range> {
        let range = *self.ranges.get(self.first_after(seq))?;
        range.start.before_eq(seq).then_some(range)
    }

    /// The first stretch of `[start, end)` that is in no range.
    pub(crate) fn gap(&self, start: SeqNum, end: SeqNum) -> Option<Range> {
        let i = self.first_after(start);
        let (start, next) = match self.ranges.get(i) {
            Some(range) if range.start.before_eq(start) => (range.end, self.ranges.get(i + 1)),
            next => (start, next),
        };
        let end = next.map_or(end, |next| next.start.earlier(end));
        start.before(end).then_some(Range { start, end })
    }

    /// True if adding `[start, end)` would make one range more.
    pub(crate) fn is_apart(&self, start: SeqNum, end: SeqNum) -> bool {
        let first = self.ranges.partition_point(|r| r.end.before(start));
        self.ranges.get(first).is_none_or(|r| r.start.after(end))
    }

    /// Adds `[start, end)`.
    pub(crate) fn insert(&mut self, start: SeqNum, end: SeqNum) {
        let first = match self.ranges.back() {
            // The usual cases: behind everything, or right behind it.
            Some(last) if last.end.before(start) => self.ranges.len(),
            Some(last) if last.start.before_eq(start) => self.ranges.len() - 1,
            _ => self.ranges.partition_point(|r| r.end.before(start)),
        };
        let Some(range) = self.ranges.get_mut(first).filter(|r| r.start.before_eq(end)) else {
            self.ranges.insert(first, Range { start, end });
            return;
        };
        range.start = range.start.earlier(start);
        range.end = range.end.later(end);
        let end = range.end;
        let mut next = first + 1;
        while let Some(range) = self.ranges.get(next).filter(|r| r.start.before_eq(end)) {
            let absorbed = range.end;
            self.ranges[first].end = end.later(absorbed);
            next += 1;
        }
        self.ranges.drain(first + 1..next);
    }

    /// Forgets everything before `seq`.
    pub(crate) fn remove_below(&mut self, seq: SeqNum) {
        while let Some(front) = self.ranges.front_mut() {
            if front.end.after(seq) {
                front.start = front.start.later(seq);
                return;
            }
            self.ranges.pop_front();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
    }

    /// The index of the first range that ends behind `seq`.
    fn first_after(&self, seq: SeqNum) -> usize {
        self.ranges.partition_point(|r| r.end.before_eq(seq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a set of numbers, across the wrap.
        #[test]
        fn ranges_behave_as_a_set(
            base: u32,
            steps in proptest::collection::vec((0u32..200, 1u32..20, any::<bool>()), 1..60),
        ) {
            let seq = |n: u32| SeqNum::new(base) + n;
            let (mut set, mut below) = (RangeSet::default(), 0);
            let mut reference = [false; 256];
            for (at, len, trim) in steps {
                if trim {
                    below = below.max(at / 4);
                    set.remove_below(seq(below));
                    reference[..below as usize].fill(false);
                } else if at >= below {
                    let apart = set.is_apart(seq(at), seq(at + len));
                    let before = set.len();
                    set.insert(seq(at), seq(at + len));
                    prop_assert_eq!(apart, set.len() == before + 1);
                    reference[at as usize..(at + len) as usize].fill(true);
                }
                for n in 0..240u32 {
                    prop_assert_eq!(set.find(seq(n)).is_some(), reference[n as usize], "{}", n);
                }
                let gap = set.gap(seq(50), seq(150)).map(|g| (g.start, g.end));
                let from = (50..150).find(|&n| !reference[n as usize]);
                let to = from.and_then(|f| (f..150).find(|&n| reference[n as usize]));
                prop_assert_eq!(gap, from.map(|f| (seq(f), seq(to.unwrap_or(150)))));
            }
            for (a, b) in set.ranges.iter().zip(set.ranges.iter().skip(1)) {
                prop_assert!(a.start.before(a.end) && a.end.before(b.start));
            }
        }
    }
}
