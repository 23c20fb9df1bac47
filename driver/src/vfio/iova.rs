//! Which addresses behind the IOMMU are used.

use std::collections::BTreeMap;

/// Nothing is placed below: a descriptor that was left zero, or holds a small number, then names no
/// memory and faults instead of overwriting some.
const LOWEST: u64 = 1 << 20;

/// Where x86 takes a write for an interrupt (Intel SDM vol. 3A §12.11.1): never memory, though
/// kernels before 5.4 do not say so.
const MSI_WINDOW: (u64, u64) = (0xfee0_0000, 0xfeef_ffff);

/// The range where the kernel tells none: 39 bits, which the narrowest VT-d units translate.
const UNTOLD: (u64, u64) = (0, (1 << 39) - 1);

/// Unmapped bytes kept free behind each mapping: a device that overruns one faults.
const GUARD: u64 = 4096;

/// Most mappings at a time: each search passes over all of them.
pub(super) const MAX_MAPPINGS: usize = 4096;

/// The addresses of one I/O address space.
#[derive(Debug)]
pub(super) struct IovaSpace {
    /// First and last usable address of each range.
    ranges: Vec<(u64, u64)>,
    /// First address of what is taken → its last.
    taken: BTreeMap<u64, u64>,
}

impl IovaSpace {
    /// A space with these usable ranges (first and last address); none means that they are not
    /// known.
    pub(super) fn new(ranges: Vec<(u64, u64)>) -> IovaSpace {
        let mut space = IovaSpace { ranges: Vec::new(), taken: BTreeMap::from([MSI_WINDOW]) };
        space.allow_only(ranges);
        space
    }

    /// From now on takes from these ranges only; what was taken before stays taken.
    pub(super) fn allow_only(&mut self, mut ranges: Vec<(u64, u64)>) {
        if ranges.is_empty() {
            ranges.push(UNTOLD);
        }
        ranges.sort_unstable();
        self.ranges = ranges;
    }

    /// Takes the lowest free range of `len` bytes whose address is a multiple of `align`, a power
    /// of two. `None` if there is none.
    pub(super) fn take(&mut self, len: u64, align: u64) -> Option<u64> {
        if len == 0 || self.taken.len() > MAX_MAPPINGS {
            return None;
        }
        let start = self.ranges.iter().find_map(|&range| self.fit(range, len, align))?;
        self.taken.insert(start, start + (len - 1));
        Some(start)
    }

    fn fit(&self, (first, end): (u64, u64), len: u64, align: u64) -> Option<u64> {
        let mut start = first.max(LOWEST).checked_next_multiple_of(align)?;
        for (&taken_first, &taken_last) in &self.taken {
            let last = start.checked_add(len - 1)?;
            if last.saturating_add(GUARD) < taken_first {
                break;
            }
            if start <= taken_last.saturating_add(GUARD) {
                start = taken_last.checked_add(1 + GUARD)?.checked_next_multiple_of(align)?;
            }
        }
        (start.checked_add(len - 1)? <= end).then_some(start)
    }

    /// Gives back what [`IovaSpace::take`] took.
    pub(super) fn give_back(&mut self, start: u64) {
        let known = self.taken.remove(&start);
        debug_assert!(known.is_some(), "an address that was taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_interrupt_window_and_the_first_page_are_never_given_out() {
        let mut space = IovaSpace::new(Vec::new());
        assert_eq!(space.take(4096, 4096), Some(LOWEST), "zero is no address");
        // Fills everything below the window, then has to pass over it.
        let below = MSI_WINDOW.0 - LOWEST - 4096 - 2 * GUARD;
        let start = space.take(below, 4096).unwrap();
        assert!(start + below <= MSI_WINDOW.0);
        let above = space.take(1 << 21, 1 << 21).unwrap();
        assert!(above > MSI_WINDOW.1 && above.is_multiple_of(1 << 21), "{above:#x}");
    }

    #[test]
    fn a_full_space_says_so_and_takes_again_what_was_given_back() {
        let mut space = IovaSpace::new(vec![(0x20_0000, 0x20_ffff)]);
        let first = space.take(0x8000, 4096).unwrap();
        assert_eq!(space.take(0x8000, 4096), None, "the guard does not fit");
        let second = space.take(0x7000, 4096).unwrap();
        assert_eq!((first, second), (0x20_0000, 0x20_9000));
        space.give_back(first);
        assert_eq!(space.take(0x8000, 4096), Some(first));
        assert_eq!(space.take(u64::MAX, 4096), None);
        assert_eq!(space.take(0, 4096), None);
    }

    #[test]
    fn the_number_of_mappings_is_bounded() {
        let mut space = IovaSpace::new(Vec::new());
        let count = (0..2 * MAX_MAPPINGS).map_while(|_| space.take(4096, 4096)).count();
        assert_eq!(count, MAX_MAPPINGS);
    }

    proptest! {
        #[test]
        fn ranges_given_out_are_allowed_aligned_and_apart(
            asks in prop::collection::vec((1u64..1 << 24, 12u32..22, any::<bool>()), 1..60),
        ) {
            let ranges = [(0x1000, 0xfedf_ffff), (0xfef0_0000, 0x7f_ffff_ffff)];
            let mut space = IovaSpace::new(ranges.to_vec());
            let mut held: Vec<(u64, u64)> = Vec::new();
            for (len, bits, give_back) in asks {
                let start = space.take(len, 1 << bits).unwrap();
                prop_assert!(start.is_multiple_of(1 << bits));
                prop_assert!(ranges.iter().any(|r| r.0 <= start && start + len - 1 <= r.1));
                for &(other, other_len) in &held {
                    let apart = start >= other + other_len + GUARD || other >= start + len + GUARD;
                    prop_assert!(apart, "{start:#x}+{len:#x} and {other:#x}+{other_len:#x}");
                }
                held.push((start, len));
                if give_back {
                    space.give_back(held.swap_remove(0).0);
                }
            }
        }
    }
}
