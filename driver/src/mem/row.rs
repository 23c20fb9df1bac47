//! What loops over the slots of a burst have in common: places that need no look whether they are
//! there, and fewer turns than items.
//!
//! A burst passes five such loops on its way through the rings, and at a few instructions a slot in
//! each it shows what a loop itself costs.

use super::buf::PacketSlice;

/// What goes with the slots of a run: a ring's descriptors. Whoever takes no more than there are
/// need not ask at each whether there is one.
///
/// # Safety
/// [`Row::at`] may be called for every index below [`Row::len`], and [`Row::skip_places`] leaves as many
/// fewer as it skips.
pub unsafe trait Row: Sized {
    /// What goes with one slot.
    type Place;

    /// How many there are.
    fn len(&self) -> usize;

    /// True if there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of them, counted from 0.
    ///
    /// # Safety
    /// `index` is below [`Row::len`].
    unsafe fn at(&self, index: usize) -> Self::Place;

    /// Those behind the first `count`, none if there are not more.
    fn skip_places(&self, count: usize) -> Self;
}

// SAFETY: a place is the sum of two numbers, whatever they are; a range begins later by what is
// skipped, and not behind its end.
unsafe impl Row for std::ops::Range<usize> {
    type Place = usize;

    fn len(&self) -> usize {
        ExactSizeIterator::len(self)
    }

    unsafe fn at(&self, index: usize) -> usize {
        self.start.wrapping_add(index)
    }

    fn skip_places(&self, count: usize) -> Self {
        self.start.saturating_add(count).min(self.end)..self.end
    }
}

/// Appends to `into` what `make` gives for each slice and its place in the row, as far as there are
/// both.
#[inline]
pub(crate) fn describe<R: Row, T>(
    slices: &[PacketSlice],
    row: R,
    into: &mut Vec<T>,
    mut make: impl FnMut(&PacketSlice, R::Place) -> T,
) {
    let count = slices.len().min(row.len());
    into.reserve(count);
    let (places, mut n) = (into.spare_capacity_mut().as_mut_ptr(), 0);
    by_fours(&slices[..count], |slice| {
        // SAFETY: `n` is below `count`, which does not exceed the row's length, and `reserve` made
        // room for so many.
        unsafe { (*places.add(n)).write(make(slice, row.at(n))) };
        n += 1;
    });
    // SAFETY: `count` places behind the end were written.
    unsafe { into.set_len(into.len() + count) };
}

/// Calls `each` for all items in order. For loops of a few instructions an item, of which every
/// frame passes several: counting and jumping is done once for four items.
#[inline]
pub(super) fn by_fours<T>(items: &[T], mut each: impl FnMut(&T)) {
    let (fours, rest) = items.as_chunks::<4>();
    for four in fours {
        four.iter().for_each(&mut each);
    }
    rest.iter().for_each(each);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fours_and_the_rest_come_in_order() {
        for len in 0..10 {
            let (items, mut seen): (Vec<_>, _) = ((0..len).collect(), Vec::new());
            by_fours(&items, |item| seen.push(*item));
            assert_eq!(seen, items);
        }
    }

    #[test]
    fn what_is_skipped_is_not_there_any_more() {
        for count in 0..6 {
            let left = (3..7).skip_places(count);
            assert_eq!(Row::len(&left), 4_usize.saturating_sub(count));
        }
    }
}
