//! What the descriptors of a ring hold: slots that a device may write, and slots that it reads.
//!
//! ```text
//!   Pool ── post ──▶ PostedSlots ── complete ──▶ PacketSlice        receive
//!   PacketSlice ── put ──▶ QueuedSlots ── release ──▶ Pool          transmit
//! ```
//!
//! A device finishes the descriptors of a ring in order, and so a table is a queue. It belongs to
//! one pool, and so its entries are bare slot numbers: four bytes a descriptor, and nothing to be
//! checked when one comes back. Everything goes by runs of slots: what a run has in common is looked
//! up once.

use std::hint::cold_path;
use std::ops::RangeInclusive;

use super::buf::PacketSlice;
use super::pool::Pool;
use super::row::{Row, by_fours};

/// The lengths of slices that a table takes: `least`, and up to `span` more.
#[derive(Clone, Copy)]
struct Lens {
    least: u16,
    span: u16,
}

impl Lens {
    #[inline]
    fn of(lens: RangeInclusive<u16>) -> Lens {
        assert!(lens.start() <= lens.end(), "no length at all");
        Lens { least: *lens.start(), span: lens.end() - lens.start() }
    }

    #[inline]
    fn hold(self, len: u16) -> bool {
        len.wrapping_sub(self.least) <= self.span
    }
}

/// Slot numbers in a ring; `head` and `tail` run freely.
#[derive(Debug)]
struct Fifo {
    slots: Box<[u32]>,
    head: usize,
    tail: usize,
}

impl Fifo {
    fn new(len: u16) -> Fifo {
        assert!(len.is_power_of_two(), "a table of {len} slots");
        Fifo { slots: vec![0; usize::from(len)].into_boxed_slice(), head: 0, tail: 0 }
    }

    #[inline]
    fn mask(&self) -> usize {
        self.slots.len() - 1
    }

    #[inline]
    fn len(&self) -> usize {
        self.tail.wrapping_sub(self.head)
    }

    #[inline]
    fn room(&self) -> usize {
        self.slots.len() - self.len()
    }

    /// The oldest entries, at most `most`, up to the table's end, behind which it goes on at its
    /// beginning: none only if there is none.
    #[inline]
    fn front(&self, most: usize) -> &[u32] {
        let straight = &self.slots[self.head & self.mask()..];
        &straight[..most.min(self.len()).min(straight.len())]
    }

    /// The same of the free entries behind the newest.
    #[inline]
    fn behind(&mut self, most: usize) -> &mut [u32] {
        let (most, at) = (most.min(self.room()), self.tail & self.mask());
        let straight = &mut self.slots[at..];
        let count = most.min(straight.len());
        &mut straight[..count]
    }
}

/// Slots that a device may write, in the order of their descriptors: nobody holds their bytes until
/// [`PostedSlots::complete`].
///
/// Dropping the table strands the slots in it, for the device may still write to them; the pool's
/// audit shows that. [`PostedSlots::abandon`] takes them back when it is known not to.
#[derive(Debug)]
pub struct PostedSlots {
    pool: Pool,
    fifo: Fifo,
}

impl PostedSlots {
    /// An empty table for `len` slots of `pool`.
    ///
    /// # Panics
    /// If `len` is not a power of two.
    pub fn new(pool: &Pool, len: u16) -> PostedSlots {
        PostedSlots { pool: pool.clone(), fifo: Fifo::new(len) }
    }

    /// Slots that the device has.
    #[inline]
    pub fn len(&self) -> usize {
        self.fifo.len()
    }

    /// True if it has none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Posts a free slot for each place of the row, or for as many as there is room for, and tells
    /// `give` the place and where in the pool's region the slot begins. Gives how many it posted:
    /// fewer if the pool has no more, which the pool counts.
    #[inline]
    pub fn post<R: Row>(&mut self, row: R, mut give: impl FnMut(R::Place, usize)) -> usize {
        let wanted = row.len().min(self.fifo.room());
        let (mut posted, mut collected) = (self.post_run(&row, wanted, &mut give), false);
        while posted < wanted {
            // The table's end, or a pool that has run out.
            cold_path();
            let given = self.post_run(&row.skip_places(posted), wanted - posted, &mut give);
            posted += given;
            if given == 0 && collected {
                self.pool.count_exhausted();
                break;
            }
            if given == 0 {
                self.pool.collect_returns();
                collected = true;
            }
        }
        posted
    }

    /// Posts a free slot for each of the row's first `most` places, as far as the pool has them and
    /// up to the table's end; gives how many.
    #[inline]
    fn post_run<R: Row>(
        &mut self,
        row: &R,
        most: usize,
        give: &mut impl FnMut(R::Place, usize),
    ) -> usize {
        let inner = self.pool.inner();
        let run = self.fifo.behind(most.min(row.len()));
        let given = inner.take_posted(run);
        let (view, mut n) = (inner.view(), 0);
        by_fours(&run[..given], |slot| {
            // SAFETY: `n` is below the length of the run, which is not longer than the row.
            give(unsafe { row.at(n) }, view.slot_offset(*slot));
            n += 1;
        });
        self.fifo.tail = self.fifo.tail.wrapping_add(given);
        given
    }

    /// Takes slots back from the device, the oldest first, as long as `filled` gives the number of
    /// bytes in the slot of the row's next place and that is one of `lens`; they are appended to
    /// `into`. Gives how many came back: fewer, too, where the table's end is reached, behind which
    /// it goes on at its beginning.
    ///
    /// # Safety
    /// `filled` gives a number only for a place whose slot the device has finished, and does not write
    /// to again before it is posted anew: from here on the bytes are what they are for every reader.
    ///
    /// # Panics
    /// If `lens` is empty or reaches beyond a slot.
    #[inline]
    pub unsafe fn complete<R: Row>(
        &mut self,
        row: R,
        lens: RangeInclusive<u16>,
        into: &mut Vec<PacketSlice>,
        mut filled: impl FnMut(R::Place) -> Option<u16>,
    ) -> usize {
        let run = self.fifo.front(row.len());
        into.reserve(run.len());
        let (inner, pool) = (self.pool.inner(), self.pool.pointer());
        assert!(usize::from(*lens.end()) <= inner.slot_len(), "lengths beyond a slot");
        let (view, lens) = (inner.view(), Lens::of(lens));
        let mut completed = 0;
        for (&slot, place) in run.iter().zip(into.spare_capacity_mut()) {
            // SAFETY: the run is not longer than the row.
            let Some(len) = filled(unsafe { row.at(completed) }) else { break };
            if !lens.hold(len) {
                break;
            }
            view.complete(slot);
            place.write(PacketSlice::from_parts(pool, slot, len));
            view.prefetch(slot);
            completed += 1;
        }
        // SAFETY: the first `completed` places behind the end were written.
        unsafe { into.set_len(into.len() + completed) };
        self.fifo.head = self.fifo.head.wrapping_add(completed);
        inner.count_completed(completed);
        completed
    }

    /// Frees every slot in the table.
    ///
    /// # Safety
    /// The device does not write to any of them any more: it has been stopped, or cut off from memory.
    pub unsafe fn abandon(&mut self) {
        while !self.is_empty() {
            let run = self.fifo.front(usize::MAX);
            self.pool.inner().free_posted(run);
            self.fifo.head = self.fifo.head.wrapping_add(run.len());
        }
    }
}

/// Slots that a device is reading, in the order of their descriptors: [`Pool::audit`] counts them
/// as queued until [`QueuedSlots::release_to`], when the device has completed the transmission.
#[derive(Debug)]
pub struct QueuedSlots {
    pool: Pool,
    fifo: Fifo,
}

impl QueuedSlots {
    /// An empty table for `len` slots of `pool`.
    ///
    /// # Panics
    /// If `len` is not a power of two.
    pub fn new(pool: &Pool, len: u16) -> QueuedSlots {
        QueuedSlots { pool: pool.clone(), fifo: Fifo::new(len) }
    }

    /// The pool that all slices have to lie in.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Where the next slice will be, counted since the table was made.
    #[inline]
    pub fn end(&self) -> usize {
        self.fifo.tail
    }

    /// Keeps slices that have a length in `lens`, and tells `give` where in the pool's region each
    /// begins, which added to the region's address for a device is the address that a descriptor
    /// holds, and its length. What does not fit is dropped, and so is a slice of another pool: in
    /// this one's region the same offset is someone else's packet. Gives how many are kept.
    #[inline]
    pub fn put(
        &mut self,
        slices: impl Iterator<Item = PacketSlice>,
        lens: RangeInclusive<u16>,
        mut give: impl FnMut(usize, u16),
    ) -> usize {
        let (view, pool, lens) = (self.pool.inner().view(), self.pool.pointer(), Lens::of(lens));
        let fifo = &mut self.fifo;
        let before = fifo.tail;
        slices.for_each(|slice| match fifo.behind(1) {
            [entry] if lens.hold(slice.len() as u16) && slice.is_in(pool) => {
                let ((slot, off), len) = (slice.place(), slice.len() as u16);
                view.claim(slot);
                *entry = slice.into_claim();
                fifo.tail = fifo.tail.wrapping_add(1);
                give(view.offset(slot) + off, len);
            }
            _ => refuse(slice),
        });
        fifo.tail.wrapping_sub(before)
    }

    /// The same with the first slices of a vector, one for each place of the row, which are removed
    /// from it; `give` is told the place of each that is kept.
    ///
    /// # Panics
    /// If it has fewer, or if `lens` is empty.
    #[inline]
    pub fn put_front<R: Row>(
        &mut self,
        slices: &mut Vec<PacketSlice>,
        mut row: R,
        lens: RangeInclusive<u16>,
        mut give: impl FnMut(R::Place, usize, u64),
    ) -> usize {
        let (len, count, lens) = (slices.len(), row.len(), Lens::of(lens));
        assert!(count <= len, "more slices than there are");
        let first = slices.as_mut_ptr();
        // SAFETY: zero does not exceed the capacity. If something below panics, slices are leaked
        // and none is dropped twice.
        unsafe { slices.set_len(0) };
        let (mut taken, mut kept) = (0, 0);
        while taken < count {
            // SAFETY: from `taken` up to `count`, which does not exceed the old length, lie
            // initialised slices, which the vector has given up.
            let rest = unsafe { std::slice::from_raw_parts(first.add(taken), count - taken) };
            // SAFETY: what is kept is not touched again, for `taken` moves past it; and the row, which
            // moves past what is kept, has a place left for each slice.
            let run = unsafe { self.keep_run(rest, &row, lens, &mut give) };
            (taken, kept, row) = (taken + run, kept + run, row.skip_places(run));
            if run == 0 {
                // SAFETY: as above; each slice is read once.
                refuse(unsafe { first.add(taken).read() });
                taken += 1;
            }
        }
        let left = len - count;
        if left > 0 {
            // SAFETY: both ranges lie in the vector's memory, which has not been touched since.
            unsafe { std::ptr::copy(first.add(count), first, left) };
        }
        // SAFETY: the slices from `count` on, moved to the front, are initialised and nobody else's.
        unsafe { slices.set_len(left) };
        kept
    }

    /// Keeps slices as long as they fit, up to the table's end; gives how many. Where it is none the
    /// first one is to be refused.
    ///
    /// # Safety
    /// The caller gives up those that are kept, and the row has a place for each slice.
    #[inline]
    unsafe fn keep_run<R: Row>(
        &mut self,
        slices: &[PacketSlice],
        row: &R,
        lens: Lens,
        give: &mut impl FnMut(R::Place, usize, u64),
    ) -> usize {
        debug_assert!(slices.len() <= row.len());
        let (view, pool) = (self.pool.inner().view(), self.pool.pointer());
        let mut kept = 0;
        for (entry, slice) in self.fifo.behind(slices.len()).iter_mut().zip(slices) {
            let len = slice.len() as u16;
            if !lens.hold(len) || !slice.is_in(pool) {
                cold_path();
                break;
            }
            let (slot, off) = slice.place();
            view.claim(slot);
            *entry = slot;
            // SAFETY: `kept` is below the number of slices, so that the row has this place.
            give(unsafe { row.at(kept) }, view.offset(slot) + off, u64::from(len));
            kept += 1;
        }
        self.fifo.tail = self.fifo.tail.wrapping_add(kept);
        kept
    }

    /// Lets go of the oldest slices, up to what was [`QueuedSlots::end`] once.
    #[inline]
    pub fn release_to(&mut self, end: usize) {
        let mut left = end.wrapping_sub(self.fifo.head).min(self.fifo.len());
        // Twice if the table's end lies between.
        while left > 0 {
            let run = self.fifo.front(left);
            self.pool.inner().release_claimed(run);
            left -= run.len();
            self.fifo.head = self.fifo.head.wrapping_add(run.len());
        }
    }

    /// Lets go of everything. Only when the device cannot read it any more.
    pub fn abandon(&mut self) {
        self.release_to(self.fifo.tail);
    }
}

/// Lets go of a slice that was not kept.
#[cold]
#[inline(never)]
fn refuse(slice: PacketSlice) {
    drop(slice);
}

impl Drop for QueuedSlots {
    /// A device that goes on reading a slot reads what is there later, and writes nothing.
    fn drop(&mut self) {
        self.abandon();
    }
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
