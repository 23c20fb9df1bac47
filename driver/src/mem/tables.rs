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
use std::ptr::NonNull;

use super::buf::PacketSlice;
use super::inner::{Inner, View};
use super::pool::Pool;

/// What goes with each slot of a run: a ring's descriptors. Whoever takes as many as there are need
/// not ask each time whether there is one more.
///
/// # Safety
/// [`Row::step`] may be called [`Row::len`] times.
pub unsafe trait Row {
    /// What goes with one slot.
    type Place;

    /// How many are left.
    fn len(&self) -> usize;

    /// True if none is left.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next one.
    ///
    /// # Safety
    /// One is left.
    unsafe fn step(&mut self) -> Self::Place;
}

// SAFETY: a step is one addition, which may be made any number of times.
unsafe impl Row for std::ops::Range<usize> {
    type Place = usize;

    fn len(&self) -> usize {
        ExactSizeIterator::len(self)
    }

    unsafe fn step(&mut self) -> usize {
        let place = self.start;
        self.start = place.wrapping_add(1);
        place
    }
}

/// Appends to `into` what `make` gives for each slice and its place in the row, as far as there are
/// both.
#[inline]
pub(crate) fn describe<R: Row, T>(
    slices: &[PacketSlice],
    mut row: R,
    into: &mut Vec<T>,
    mut make: impl FnMut(&PacketSlice, R::Place) -> T,
) {
    let count = slices.len().min(row.len());
    into.reserve(count);
    for (place, slice) in into.spare_capacity_mut().iter_mut().zip(&slices[..count]) {
        // SAFETY: `count` does not exceed the row's length.
        place.write(make(slice, unsafe { row.step() }));
    }
    // SAFETY: `reserve` made room for so many, which were written.
    unsafe { into.set_len(into.len() + count) };
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

    /// The `count` entries from `at` on, in two runs around the end.
    #[inline]
    fn runs(&self, at: usize, count: usize) -> [&[u32]; 2] {
        let (wrapped, straight) = self.slots.split_at(at & self.mask());
        let first = count.min(straight.len());
        [&straight[..first], &wrapped[..count - first]]
    }

    /// The same, to be written.
    fn runs_mut(&mut self, at: usize, count: usize) -> [&mut [u32]; 2] {
        let (wrapped, straight) = self.slots.split_at_mut(at & (self.slots.len() - 1));
        let first = count.min(straight.len());
        [&mut straight[..first], &mut wrapped[..count - first]]
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
    pub fn post<R: Row>(&mut self, mut row: R, mut give: impl FnMut(R::Place, usize)) -> usize {
        let wanted = row.len().min(self.fifo.room());
        let first = self.fifo.tail;
        let mut posted = self.take(wanted);
        if posted < wanted {
            self.pool.collect_returns();
            posted += self.take(wanted - posted);
            if posted < wanted {
                self.pool.count_exhausted();
            }
        }
        let view = self.pool.inner().view();
        for run in self.fifo.runs(first, posted) {
            for slot in run {
                // SAFETY: the runs have `posted` entries, which is not more than the row's length.
                give(unsafe { row.step() }, view.slot_offset(*slot));
            }
        }
        posted
    }

    fn take(&mut self, count: usize) -> usize {
        let inner = self.pool.inner();
        let taken = self.fifo.runs_mut(self.fifo.tail, count).map(|run| inner.take_posted(run));
        let taken = taken[0] + taken[1];
        self.fifo.tail = self.fifo.tail.wrapping_add(taken);
        taken
    }

    /// Takes slots back from the device, the oldest first, as long as `filled` gives the number of
    /// bytes in the slot of the row's next place and that is one of `lens`; they are appended to
    /// `into`. Gives how many came back: fewer, too, where the table's end is reached, behind which
    /// it goes on at its beginning.
    ///
    /// # Panics
    /// If `lens` reaches beyond a slot.
    #[inline]
    pub fn complete<R: Row>(
        &mut self,
        mut row: R,
        lens: RangeInclusive<u16>,
        into: &mut Vec<PacketSlice>,
        mut filled: impl FnMut(R::Place) -> Option<u16>,
    ) -> usize {
        let [run, _] = self.fifo.runs(self.fifo.head, row.len().min(self.fifo.len()));
        into.reserve(run.len());
        let (inner, pool) = (self.pool.inner(), self.pool.pointer());
        assert!(usize::from(*lens.end()) <= inner.slot_len(), "lengths beyond a slot");
        let (view, least, span) = (inner.view(), *lens.start(), lens.end() - lens.start());
        let mut completed = 0;
        for (&slot, place) in run.iter().zip(into.spare_capacity_mut()) {
            // SAFETY: the run is not longer than the row.
            let Some(len) = filled(unsafe { row.step() }) else { break };
            if len.wrapping_sub(least) > span {
                break;
            }
            view.complete(slot);
            view.prefetch(slot);
            place.write(PacketSlice::from_parts(pool, slot, len));
            completed += 1;
        }
        // SAFETY: the first `completed` places behind the end were written.
        unsafe { into.set_len(into.len() + completed) };
        self.fifo.head = self.fifo.head.wrapping_add(completed);
        inner.count_completed(completed);
        completed
    }

    /// Frees every slot in the table. Only when the device cannot write to them any more.
    pub fn abandon(&mut self) {
        let inner = self.pool.inner();
        let runs = self.fifo.runs(self.fifo.head, self.fifo.len());
        runs.iter().for_each(|run| inner.free_posted(run));
        self.fifo.head = self.fifo.tail;
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
        let mut keeper = Keeper::new(self, lens);
        slices.for_each(|slice| match keeper.straight() > 0 && keeper.fits(&slice) {
            true => {
                let (entry, (offset, len)) = (keeper.next & keeper.mask, keeper.claim(&slice));
                keeper.entries[entry] = slice.into_claim();
                keeper.next = keeper.next.wrapping_add(1);
                give(offset, len);
            }
            false => refuse(slice),
        });
        keeper.end()
    }

    /// The same with the first slices of a vector, one for each place of the row, which are removed
    /// from it; `give` is told the place of each that is kept.
    ///
    /// # Panics
    /// If it has fewer.
    #[inline]
    pub fn put_front<R: Row>(
        &mut self,
        slices: &mut Vec<PacketSlice>,
        mut row: R,
        lens: RangeInclusive<u16>,
        mut give: impl FnMut(R::Place, usize, u64),
    ) -> usize {
        let (len, count) = (slices.len(), row.len());
        assert!(count <= len, "more slices than there are");
        let mut keeper = Keeper::new(self, lens);
        let first = slices.as_mut_ptr();
        // SAFETY: zero does not exceed the capacity. If something below panics, slices are leaked
        // and none is dropped twice.
        unsafe { slices.set_len(0) };
        let mut taken = 0;
        while taken < count {
            // SAFETY: `taken` is below the old length, so that these are initialised slices, which
            // the vector has given up; so many places are left in the row.
            taken +=
                unsafe { keeper.keep_run(first.add(taken), count - taken, &mut row, &mut give) };
            if taken < count {
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
        keeper.end()
    }

    /// Lets go of the oldest slices, up to what was [`QueuedSlots::end`] once.
    #[inline]
    pub fn release_to(&mut self, end: usize) {
        let count = end.wrapping_sub(self.fifo.head).min(self.fifo.len());
        let inner = self.pool.inner();
        self.fifo.runs(self.fifo.head, count).iter().for_each(|run| inner.release_claimed(run));
        self.fifo.head = self.fifo.head.wrapping_add(count);
    }

    /// Lets go of everything. Only when the device cannot read it any more.
    pub fn abandon(&mut self) {
        self.release_to(self.fifo.tail);
    }
}

/// Slices on their way into a [`QueuedSlots`]; what they have in common is looked up once.
struct Keeper<'a> {
    view: View<'a>,
    pool: NonNull<Inner>,
    entries: &'a mut [u32],
    mask: usize,
    /// Lengths that are kept: `least` and up to `span` more.
    least: u16,
    span: u16,
    before: usize,
    tail: &'a mut usize,
    next: usize,
    full: usize,
}

impl<'a> Keeper<'a> {
    #[inline]
    fn new(queued: &'a mut QueuedSlots, lens: RangeInclusive<u16>) -> Keeper<'a> {
        let QueuedSlots { pool, fifo } = queued;
        let (before, full) = (fifo.tail, fifo.tail.wrapping_add(fifo.room()));
        Keeper {
            view: pool.inner().view(),
            pool: pool.pointer(),
            mask: fifo.mask(),
            entries: &mut fifo.slots,
            least: *lens.start(),
            span: lens.end().saturating_sub(*lens.start()),
            before,
            tail: &mut fifo.tail,
            next: before,
            full,
        }
    }

    #[inline]
    fn fits(&self, slice: &PacketSlice) -> bool {
        (slice.len() as u16).wrapping_sub(self.least) <= self.span && slice.is_in(self.pool)
    }

    /// Entries that are free from the next one on, up to the table's end.
    #[inline]
    fn straight(&self) -> usize {
        let to_end = self.entries.len() - (self.next & self.mask);
        to_end.min(self.full.wrapping_sub(self.next))
    }

    /// Counts the device's claim on a slice; gives where in the region it begins, and its length.
    #[inline]
    fn claim(&self, slice: &PacketSlice) -> (usize, u16) {
        let (slot, off) = slice.place();
        self.view.claim(slot);
        (self.view.offset(slot) + off, slice.len() as u16)
    }

    /// Keeps slices as long as they fit, at most `most`; gives how many. Where it gives fewer the
    /// next one is to be refused.
    ///
    /// # Safety
    /// At `first` lie so many slices, of which the caller gives up those that are kept, and the row
    /// has so many places left.
    #[inline]
    unsafe fn keep_run<R: Row>(
        &mut self,
        first: *const PacketSlice,
        most: usize,
        row: &mut R,
        give: &mut impl FnMut(R::Place, usize, u64),
    ) -> usize {
        let mut kept = 0;
        // Two runs if the table's end lies between.
        while kept < most && self.next != self.full {
            let run = self.straight().min(most - kept);
            let entries = &mut self.entries[self.next & self.mask..][..run];
            // SAFETY: `kept + run` does not exceed `most`, and the caller gives these slices up.
            let slices = unsafe { std::slice::from_raw_parts(first.add(kept), run) };
            let (view, pool) = (self.view, self.pool);
            let (least, span) = (usize::from(self.least), usize::from(self.span));
            let mut fitting = run;
            for (n, (entry, slice)) in entries.iter_mut().zip(slices).enumerate() {
                let len = slice.len();
                if len.wrapping_sub(least) > span || !slice.is_in(pool) {
                    cold_path();
                    fitting = n;
                    break;
                }
                let (slot, off) = slice.place();
                view.claim(slot);
                *entry = slot;
                // SAFETY: the row has as many places as there are slices.
                give(unsafe { row.step() }, view.offset(slot) + off, len as u64);
            }
            self.next = self.next.wrapping_add(fitting);
            kept += fitting;
            if fitting < run {
                break;
            }
        }
        kept
    }

    /// How many have been kept.
    #[inline]
    fn end(self) -> usize {
        *self.tail = self.next;
        self.next.wrapping_sub(self.before)
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
mod tests {
    use super::*;
    use crate::mem::{Audit, PoolConfig};

    const ANY: RangeInclusive<u16> = 1..=2048;

    fn small() -> Pool {
        Pool::new(PoolConfig { slots: 4, slot_len: 2048, cells: 2, try_huge: false }).unwrap()
    }

    fn queue(queued: &mut QueuedSlots, slice: PacketSlice) -> Option<usize> {
        let mut at = None;
        queued.put([slice].into_iter(), ANY, |offset, _| at = Some(offset));
        at
    }

    #[test]
    fn a_posted_slot_is_accounted_for_until_it_is_completed() {
        let pool = small();
        let (mut posted, mut slices) = (PostedSlots::new(&pool, 2), Vec::new());
        let mut offsets = Vec::new();
        assert_eq!(posted.post(0..3, |_, at| offsets.push(at)), 2, "the table is full");
        assert_eq!(pool.audit(), Audit { total: 6, free: 4, posted: 2, ..Audit::default() });
        let lens = 14..=2048;
        assert_eq!(posted.complete(0..1, lens.clone(), &mut slices, |_| Some(2049)), 0, "a lie");
        assert_eq!(posted.complete(0..1, lens.clone(), &mut slices, |_| Some(13)), 0, "too little");
        assert_eq!(posted.complete(0..1, lens.clone(), &mut slices, |_| Some(2048)), 1);
        assert_eq!(
            pool.audit(),
            Audit { total: 6, free: 4, posted: 1, held: 1, ..Audit::default() }
        );
        let mut given = [60].into_iter();
        assert_eq!(posted.complete(0..8, lens.clone(), &mut slices, |_| given.next()), 1);
        assert_eq!(
            posted.complete(0..8, lens, &mut slices, |_| Some(60)),
            0,
            "a slot comes back once"
        );
        let base = pool.region().base() as usize;
        let places: Vec<_> = slices.iter().map(|slice| slice.as_ptr() as usize - base).collect();
        assert_eq!((places, slices[1].len()), (offsets, 60));
        drop(slices);
        assert!(pool.audit().all_free());
    }

    #[test]
    fn a_table_goes_round_without_losing_a_slot() {
        let pool = small();
        let (mut posted, mut queued) = (PostedSlots::new(&pool, 4), QueuedSlots::new(&pool, 4));
        for round in 0..50 {
            let count = round % 4 + 1;
            assert_eq!(posted.post(0..count, |_, _| {}), count);
            let mut slices = Vec::new();
            while slices.len() < count {
                assert!(posted.complete(0..count, 0..=2048, &mut slices, |_| Some(60)) > 0);
            }
            assert_eq!(queued.put(slices.into_iter(), ANY, |_, _| {}), count);
            assert_eq!(pool.audit().queued as usize, count, "round {round}");
            queued.release_to(queued.end());
            assert!(pool.audit().all_free(), "round {round}");
        }
    }

    #[test]
    fn an_empty_pool_posts_what_it_has() {
        let pool = small();
        let held = pool.alloc().unwrap();
        let mut posted = PostedSlots::new(&pool, 8);
        assert_eq!((posted.post(0..8, |_, _| {}), pool.counters().slots_exhausted), (3, 1));
        assert_eq!(pool.audit().posted, 3);
        posted.abandon();
        assert_eq!((pool.audit().posted, pool.audit().free), (0, 5));
        let remote = held.into_remote().unwrap();
        drop(remote);
        assert_eq!(posted.post(0..8, |_, _| {}), 4, "what other threads dropped is posted, too");
        posted.abandon();
        assert!(pool.audit().all_free() && posted.is_empty());
    }

    #[test]
    fn a_forgotten_table_shows_in_the_audit() {
        let pool = small();
        let mut posted = PostedSlots::new(&pool, 4);
        posted.post(0..2, |_, _| {});
        drop(posted);
        assert_eq!((pool.audit().posted, pool.audit().balanced()), (2, true));
    }

    #[test]
    fn a_queued_slot_is_seen_until_the_device_is_done() {
        let pool = small();
        let slice = pool.copy_from(b"head and tail").unwrap().freeze();
        let mut queued = QueuedSlots::new(&pool, 4);
        let at = queue(&mut queued, slice.slice(9..13));
        assert_eq!(at, Some(slice.as_ptr() as usize + 9 - pool.region().base() as usize));
        let first = queued.end();
        queue(&mut queued, slice.clone());
        assert_eq!(pool.audit().queued, 1);
        queued.release_to(first);
        assert_eq!(pool.audit().queued, 1, "the other descriptor reads the same slot");
        queued.abandon();
        assert_eq!((pool.audit().queued, pool.audit().held), (0, 1));
        drop(slice);
        assert!(pool.audit().all_free());
    }

    #[test]
    fn the_last_reference_may_be_the_devices() {
        let pool = small();
        let mut queued = QueuedSlots::new(&pool, 4);
        queue(&mut queued, pool.copy_from(b"given away").unwrap().freeze()).unwrap();
        let cell = pool.alloc_cell().unwrap();
        let at = cell.as_ptr() as usize - pool.region().base() as usize;
        assert_eq!(queue(&mut queued, cell.freeze()), Some(at));
        assert_eq!((pool.audit().queued, pool.audit().held), (2, 0));
        queued.release_to(queued.end() - 1);
        assert_eq!(pool.audit().queued, 1);
        drop(queued);
        assert!(pool.audit().all_free());
    }

    #[test]
    fn what_the_device_must_not_read_is_dropped() {
        let (a, b) = (small(), small());
        let mut queued = QueuedSlots::new(&a, 2);
        assert_eq!(queue(&mut queued, b.copy_from(b"stranger").unwrap().freeze()), None);
        assert_eq!(queue(&mut queued, a.copy_from(b"").unwrap().freeze()), None);
        assert!(a.audit().all_free() && b.audit().all_free());
        let mut many: Vec<_> = (0..4).map(|_| a.copy_from(b"x").unwrap().freeze()).collect();
        assert_eq!(queued.put_front(&mut many, 0..1, ANY, |_, _, _| {}), 1);
        assert_eq!((many.len(), a.audit().held, a.audit().queued), (3, 3, 1));
        assert_eq!(queued.put(many.into_iter(), ANY, |_, _| {}), 1, "the table is full");
        queued.abandon();
        assert!(a.audit().all_free());
    }
}
