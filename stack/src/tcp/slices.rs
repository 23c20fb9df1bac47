//! A queue of slices of packet memory, of which most have one at a time: that needs no memory of its
//! own.

use std::collections::VecDeque;

use barewire_driver::PacketSlice;

use super::sendq::empty;

/// Slices, first in, first out.
#[derive(Debug, Default)]
pub(crate) struct Slices {
    /// The front; without it there is nothing.
    first: Option<PacketSlice>,
    rest: VecDeque<PacketSlice>,
}

impl Slices {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        if self.first.is_some() { 1 + self.rest.len() } else { 0 }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The only slice, if there is no other.
    #[inline(always)]
    pub(crate) fn only(&self) -> Option<&PacketSlice> {
        self.first.as_ref().filter(|_| self.rest.is_empty())
    }

    #[inline(always)]
    pub(crate) fn push_back(&mut self, slice: PacketSlice) {
        if self.first.is_some() {
            self.rest.push_back(slice);
        } else {
            self.first = Some(slice);
        }
    }

    #[inline(always)]
    pub(crate) fn pop_front(&mut self) -> Option<PacketSlice> {
        let first = self.first.take();
        if !self.rest.is_empty() {
            self.first = self.rest.pop_front();
        }
        first
    }

    /// Appends all to `out`; the memory stays.
    pub(crate) fn move_to(&mut self, out: &mut VecDeque<PacketSlice>) {
        out.extend(self.first.take());
        out.append(&mut self.rest);
    }

    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<&PacketSlice> {
        match at {
            0 => self.first.as_ref(),
            _ => self.rest.get(at - 1),
        }
    }

    #[inline]
    pub(crate) fn front_mut(&mut self) -> Option<&mut PacketSlice> {
        self.first.as_mut()
    }

    #[inline]
    pub(crate) fn back_mut(&mut self) -> Option<&mut PacketSlice> {
        match self.rest.back_mut() {
            Some(back) => Some(back),
            None => self.first.as_mut(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PacketSlice> {
        self.first.iter().chain(&self.rest)
    }

    /// Those from the one at `at` on.
    #[inline]
    pub(crate) fn iter_from(&self, at: usize) -> impl Iterator<Item = &PacketSlice> {
        let first = if at == 0 { self.first.as_ref() } else { None };
        let rest = at.saturating_sub(1).min(self.rest.len());
        let (front, back) = self.rest.as_slices();
        let (front, back) = match front.get(rest..) {
            Some(front) => (front, back),
            None => (&[][..], &back[rest - front.len()..]),
        };
        first.into_iter().chain(front).chain(back)
    }

    /// Slices that there is memory for beyond the first.
    pub(crate) fn capacity(&self) -> usize {
        self.rest.capacity()
    }

    /// Drops all, and the memory if that is much.
    #[inline]
    pub(crate) fn clear(&mut self) {
        // Most are empty: what was written has been acknowledged, and what came has been read.
        if self.first.is_some() || self.rest.capacity() > 0 {
            self.clear_any();
        }
    }

    #[inline(never)]
    fn clear_any(&mut self) {
        self.first = None;
        empty(&mut self.rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use barewire_driver::{Pool, PoolConfig};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_queue(pushes in proptest::collection::vec(any::<bool>(), 1..60)) {
            let config = PoolConfig { slots: 64, slot_len: 2048, cells: 2, try_huge: false };
            let pool = Pool::new(config).unwrap();
            let (mut slices, mut model) = (Slices::default(), VecDeque::new());
            for (n, push) in pushes.into_iter().enumerate() {
                if push {
                    slices.push_back(pool.copy_from(&[n as u8]).unwrap().freeze());
                    model.push_back(n as u8);
                } else {
                    prop_assert_eq!(slices.pop_front().map(|slice| slice[0]), model.pop_front());
                }
                prop_assert_eq!((slices.len(), slices.is_empty()), (model.len(), model.is_empty()));
                let from = usize::from(n as u8) % (model.len() + 2);
                let tail: Vec<u8> = slices.iter_from(from).map(|slice| slice[0]).collect();
                prop_assert_eq!(tail, model.iter().skip(from).copied().collect::<Vec<u8>>());
                let all: Vec<u8> = slices.iter().map(|slice| slice[0]).collect();
                prop_assert_eq!(&all, &Vec::from(model.clone()));
                for at in 0..=model.len() {
                    prop_assert_eq!(slices.get(at).map(|slice| slice[0]), model.get(at).copied());
                }
                prop_assert_eq!(slices.front_mut().map(|slice| slice[0]), model.front().copied());
                prop_assert_eq!(slices.back_mut().map(|slice| slice[0]), model.back().copied());
                prop_assert_eq!(slices.only().is_some(), model.len() == 1);
            }
            let mut moved = VecDeque::new();
            slices.move_to(&mut moved);
            prop_assert!(slices.is_empty());
            let bytes: Vec<u8> = moved.drain(..).map(|slice| slice[0]).collect();
            prop_assert_eq!(bytes, Vec::from(model));
            slices.push_back(pool.copy_from(&[0]).unwrap().freeze());
            slices.clear();
            prop_assert!(slices.is_empty() && pool.audit().all_free());
        }
    }
}
