//! A queue in which there is mostly one at a time: its first has a place of its own.
//!
//! ```text
//!   push_back ─▶ first?  ── free ──▶ first ─▶ pop_front
//!                 └── taken ─▶ rest ──┘ moves up when the first is taken
//! ```
//!
//! Whoever goes through alone meets neither the ends of a ring nor its memory.

use std::collections::VecDeque;

/// The queue: nothing lies in the rest unless there is a first.
#[derive(Debug)]
pub(crate) struct Line<T> {
    first: Option<T>,
    rest: VecDeque<T>,
}

impl<T> Default for Line<T> {
    fn default() -> Line<T> {
        Line { first: None, rest: VecDeque::new() }
    }
}

impl<T> Line<T> {
    /// True without anything.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// How many there are.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    /// What has waited longest.
    #[inline(always)]
    pub(crate) fn front(&self) -> Option<&T> {
        self.first.as_ref()
    }

    /// The same, to be changed.
    #[inline(always)]
    pub(crate) fn front_mut(&mut self) -> Option<&mut T> {
        self.first.as_mut()
    }

    /// Puts `item` at the end.
    #[inline(always)]
    pub(crate) fn push_back(&mut self, item: T) {
        if self.first.is_none() {
            self.first = Some(item);
        } else {
            self.push_behind(item);
        }
    }

    #[inline(never)]
    fn push_behind(&mut self, item: T) {
        self.rest.push_back(item);
    }

    /// Takes what has waited longest, of what is not [`Copy`].
    #[inline(always)]
    pub(crate) fn take_front(&mut self) -> Option<T> {
        let first = self.first.take()?;
        if !self.rest.is_empty() {
            self.move_up();
        }
        Some(first)
    }

    #[inline(never)]
    fn move_up(&mut self) {
        self.first = self.rest.pop_front();
    }
}

impl<T: Copy> Line<T> {
    /// Takes what has waited longest. The place is read and marked as free: to move out of it would
    /// write what nobody reads.
    #[inline(always)]
    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let first = self.first?;
        self.first = None;
        if !self.rest.is_empty() {
            self.move_up();
        }
        Some(first)
    }
}

impl<T> Extend<T> for Line<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        for item in items {
            self.push_back(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// It is a queue, whatever lies where.
        #[test]
        fn what_goes_in_first_comes_out_first(
            steps in proptest::collection::vec(any::<bool>(), 0..200), copied: bool,
        ) {
            let (mut line, mut model) = (Line::default(), VecDeque::new());
            for (number, push) in steps.into_iter().enumerate() {
                if push {
                    line.push_back(number);
                    model.push_back(number);
                } else {
                    let front = if copied { line.pop_front() } else { line.take_front() };
                    prop_assert_eq!(front, model.pop_front());
                }
                prop_assert_eq!(line.front(), model.front());
                prop_assert_eq!(line.front_mut(), model.front_mut());
                prop_assert_eq!((line.len(), line.is_empty()), (model.len(), model.is_empty()));
            }
            line.extend([7, 8]);
            model.extend([7, 8]);
            let left: Vec<_> = std::iter::from_fn(|| line.pop_front()).collect();
            prop_assert_eq!(left, Vec::from(model));
        }
    }
}
