//! What the descriptors of a ring hold: slots that a device may write, and slots that it reads.
//!
//! ```text
//!   Pool ── post ──▶ PostedSlots[index] ── complete ──▶ PacketSlice        receive
//!   PacketSlice ── put ──▶ QueuedSlots[index] ── release ──▶ Pool          transmit
//! ```
//!
//! A table belongs to one pool, and so its entries are bare slot numbers: four bytes a descriptor,
//! and nothing to be checked when one comes back. Indices run freely and are masked, as those of
//! the ring beside it ([`crate::ring`]): a table's length is a power of two, and no index reaches
//! outside of it.

use super::buf::PacketSlice;
use super::pool::Pool;

/// An entry without a slot: more than any pool has.
const NONE: u32 = u32::MAX;

/// One slot number an index, or [`NONE`].
#[derive(Debug)]
struct Table {
    /// As many as a power of two, and one at least.
    slots: Box<[u32]>,
    mask: usize,
}

impl Table {
    fn new(len: u16) -> Table {
        assert!(len.is_power_of_two(), "a table of {len} slots");
        let len = usize::from(len);
        Table { slots: vec![NONE; len].into_boxed_slice(), mask: len - 1 }
    }

    #[inline]
    fn entry(&mut self, index: u16) -> &mut u32 {
        // SAFETY: the mask is the length less one, so that a masked index is below the length.
        unsafe { self.slots.get_unchecked_mut(usize::from(index) & self.mask) }
    }

    /// The slot at `index`, which is empty afterwards.
    #[inline]
    fn take(&mut self, index: u16) -> Option<u32> {
        let slot = std::mem::replace(self.entry(index), NONE);
        (slot != NONE).then_some(slot)
    }

    fn take_all(&mut self) -> impl Iterator<Item = u32> {
        self.slots.iter_mut().map(|slot| std::mem::replace(slot, NONE)).filter(|slot| *slot != NONE)
    }
}

/// Slots that a device may write, by descriptor: nobody holds their bytes until
/// [`PostedSlots::complete`].
///
/// Dropping the table strands the slots in it, for the device may still write to them; the pool's
/// audit shows that. [`PostedSlots::abandon`] takes them back when it is known not to.
#[derive(Debug)]
pub struct PostedSlots {
    pool: Pool,
    table: Table,
}

impl PostedSlots {
    /// An empty table for slots of `pool`.
    ///
    /// # Panics
    /// If `len` is not a power of two.
    pub fn new(pool: &Pool, len: u16) -> PostedSlots {
        PostedSlots { pool: pool.clone(), table: Table::new(len) }
    }

    /// Posts `count` free slots at the indices from `first` on, which are empty, and tells `give`
    /// each index and where in the pool's region its slot begins. Gives how many it posted: fewer
    /// if the pool has no more, which the pool counts.
    #[inline]
    pub fn post(&mut self, first: u16, count: u16, mut give: impl FnMut(u16, usize)) -> u16 {
        let inner = self.pool.inner();
        for posted in 0..count {
            let slot = match inner.take_posted() {
                Some(slot) => slot,
                None => match self.pool.post_returned() {
                    Some(slot) => slot,
                    None => return posted,
                },
            };
            let index = first.wrapping_add(posted);
            let entry = self.table.entry(index);
            debug_assert_eq!(*entry, NONE, "a slot is posted here already");
            *entry = slot;
            give(index, inner.offset(slot));
        }
        count
    }

    /// Takes the slot at `index` back from the device, `len` bytes of it filled from its start. A
    /// length beyond the slot (a device's lie) is cut to the slot. `None` if no slot is posted
    /// there.
    #[inline]
    pub fn complete(&mut self, index: u16, len: usize) -> Option<PacketSlice> {
        let slot = self.table.take(index)?;
        let inner = self.pool.inner();
        inner.complete(slot);
        let len = len.min(inner.slot_len()) as u16;
        Some(PacketSlice::from_parts(self.pool.pointer(), slot, len))
    }

    /// Frees every slot in the table. Only when the device cannot write to them any more.
    pub fn abandon(&mut self) {
        let inner = self.pool.inner();
        self.table.take_all().for_each(|slot| inner.free_posted(slot));
    }
}

/// Slots that a device is reading, by descriptor: [`Pool::audit`] counts them as queued until
/// [`QueuedSlots::release`], when the device has completed the transmission.
#[derive(Debug)]
pub struct QueuedSlots {
    pool: Pool,
    table: Table,
}

impl QueuedSlots {
    /// An empty table for slots of `pool`.
    ///
    /// # Panics
    /// If `len` is not a power of two.
    pub fn new(pool: &Pool, len: u16) -> QueuedSlots {
        QueuedSlots { pool: pool.clone(), table: Table::new(len) }
    }

    /// The pool that all slices have to lie in.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Keeps a slice at `index`, which is empty, and gives where in the pool's region it begins:
    /// added to the region's address for a device, it is the address that a descriptor holds.
    ///
    /// # Errors
    /// The slice comes back if it is of another pool: in this one's region the same offset is
    /// someone else's packet.
    #[inline]
    pub fn put(&mut self, index: u16, slice: PacketSlice) -> Result<usize, PacketSlice> {
        if !slice.is_of(&self.pool) {
            return Err(slice);
        }
        let (slot, offset) = slice.into_claim();
        self.pool.inner().claim(slot);
        let entry = self.table.entry(index);
        debug_assert_eq!(*entry, NONE, "a slice is queued here already");
        *entry = slot;
        Ok(offset)
    }

    /// Lets go of what is kept at the indices from `first` to before `end`.
    #[inline]
    pub fn release(&mut self, first: u16, end: u16) {
        let inner = self.pool.inner();
        let mut index = first;
        while index != end {
            if let Some(slot) = self.table.take(index) {
                inner.release_claimed(slot);
            }
            index = index.wrapping_add(1);
        }
    }

    /// Lets go of everything. Only when the device cannot read it any more.
    pub fn abandon(&mut self) {
        let inner = self.pool.inner();
        self.table.take_all().for_each(|slot| inner.release_claimed(slot));
    }
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

    fn small() -> Pool {
        Pool::new(PoolConfig { slots: 4, slot_len: 2048, cells: 2, try_huge: false }).unwrap()
    }

    #[test]
    fn a_posted_slot_is_accounted_for_until_it_is_completed() {
        let pool = small();
        let mut posted = PostedSlots::new(&pool, 2);
        let mut offset = None;
        assert_eq!(posted.post(7, 1, |index, at| offset = Some((index, at))), 1);
        assert_eq!(pool.audit(), Audit { total: 6, free: 5, posted: 1, ..Audit::default() });
        assert!(posted.complete(0, 9).is_none(), "the slot is at the other index");
        let slice = posted.complete(7, 5000).unwrap();
        assert_eq!(slice.len(), 2048, "a device's length is cut to the slot");
        assert_eq!(offset, Some((7, slice.as_ptr() as usize - pool.region().base() as usize)));
        assert!(posted.complete(7, 9).is_none(), "a slot comes back once");
        drop(slice);
        assert!(pool.audit().all_free());
    }

    #[test]
    fn an_empty_pool_posts_what_it_has() {
        let pool = small();
        let held = pool.alloc().unwrap();
        let mut posted = PostedSlots::new(&pool, 8);
        assert_eq!((posted.post(6, 8, |_, _| {}), pool.counters().slots_exhausted), (3, 1));
        assert_eq!(pool.audit().posted, 3);
        posted.abandon();
        assert_eq!((pool.audit().posted, pool.audit().free), (0, 5));
        let remote = held.into_remote().unwrap();
        drop(remote);
        assert_eq!(posted.post(0, 8, |_, _| {}), 4, "what other threads dropped is posted, too");
        posted.abandon();
        assert!(pool.audit().all_free());
    }

    #[test]
    fn a_forgotten_table_shows_in_the_audit() {
        let pool = small();
        let mut posted = PostedSlots::new(&pool, 4);
        posted.post(0, 2, |_, _| {});
        drop(posted);
        assert_eq!((pool.audit().posted, pool.audit().balanced()), (2, true));
    }

    #[test]
    fn a_queued_slot_is_seen_until_the_device_is_done() {
        let pool = small();
        let slice = pool.copy_from(b"head and tail").unwrap().freeze();
        let mut queued = QueuedSlots::new(&pool, 4);
        let at = queued.put(3, slice.slice(9..13)).unwrap();
        assert_eq!(at, slice.as_ptr() as usize + 9 - pool.region().base() as usize);
        queued.put(4, slice.clone()).unwrap();
        assert_eq!(pool.audit().queued, 1);
        queued.release(2, 4);
        assert_eq!(pool.audit().queued, 1, "the other descriptor reads the same slot");
        queued.release(4, 5);
        assert_eq!((pool.audit().queued, pool.audit().held), (0, 1));
        drop(slice);
        assert!(pool.audit().all_free());
    }

    #[test]
    fn the_last_reference_may_be_the_devices() {
        let pool = small();
        let mut queued = QueuedSlots::new(&pool, 4);
        queued.put(0, pool.copy_from(b"given away").unwrap().freeze()).unwrap();
        queued.put(1, pool.alloc_cell().unwrap().freeze()).unwrap();
        assert_eq!((pool.audit().queued, pool.audit().held), (2, 0));
        queued.release(0, 1);
        assert_eq!(pool.audit().queued, 1);
        drop(queued);
        assert!(pool.audit().all_free());
    }

    #[test]
    fn a_slice_of_another_pool_comes_back() {
        let (a, b) = (small(), small());
        let mut queued = QueuedSlots::new(&a, 4);
        let slice = queued.put(0, b.copy_from(b"stranger").unwrap().freeze()).unwrap_err();
        assert_eq!((&slice[..], a.audit().all_free()), (&b"stranger"[..], true));
    }
}
