//! The buffer pool of one core, and the account of every slot in it.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam::queue::ArrayQueue;
use thiserror::Error;

use super::buf::PacketBuf;
use super::region::{PageKind, Region, RegionError};
use super::remote::RemoteBuf;

/// Bytes in a header cell: room for Ethernet, IPv6 and TCP headers with all options, and for a
/// small payload behind them.
pub const CELL_LEN: usize = 256;

/// Most slots plus cells in one pool: 16 Mi (64 GiB of 4 KiB slots).
pub const MAX_SLOTS: u32 = 1 << 24;

/// How large a [`Pool`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Number of packet slots.
    pub slots: u32,
    /// Bytes in a slot: 2,048 or 4,096.
    pub slot_len: u32,
    /// Number of 256-byte header cells.
    pub cells: u32,
    /// Ask for hugepages; ordinary pages are used where there are none.
    pub try_huge: bool,
}

impl Default for PoolConfig {
    /// 16,384 slots of 2 KiB and 16,384 cells: 36 MiB.
    fn default() -> Self {
        PoolConfig { slots: 16_384, slot_len: 2048, cells: 16_384, try_huge: true }
    }
}

/// Why a [`Pool`] could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The slot length is not one that devices can use.
    #[error("a pool slot has 2048 or 4096 bytes, not {0}")]
    SlotLen(u32),
    /// No slots, no cells, or more than [`MAX_SLOTS`].
    #[error("a pool has at least one slot and one cell and at most {MAX_SLOTS} of both, not {0}")]
    Slots(u64),
    /// The memory could not be had.
    #[error(transparent)]
    Region(#[from] RegionError),
}

/// Where every slot of a pool is at this moment; see [`Pool::audit`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Slots and cells in the pool.
    pub total: u32,
    /// On a free list, ready to be allocated.
    pub free: u32,
    /// Owned by a device for receiving.
    pub posted: u32,
    /// Being read by a device for transmitting (and perhaps held as well).
    pub queued: u32,
    /// Held by the stack or the application through [`PacketBuf`] or
    /// [`PacketSlice`](super::PacketSlice).
    pub held: u32,
    /// On another thread as [`RemoteBuf`].
    pub remote: u32,
}

impl Audit {
    /// True if every slot is accounted for: the sum of the states is the total.
    pub fn balanced(&self) -> bool {
        self.free + self.posted + self.queued + self.held + self.remote == self.total
    }

    /// True if every slot is back on a free list.
    pub fn all_free(&self) -> bool {
        self.balanced() && self.free == self.total
    }
}

/// What a pool has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounters {
    /// Requests for a slot that found none free.
    pub slots_exhausted: u64,
    /// Requests for a header cell that found none free.
    pub cells_exhausted: u64,
    /// Payload bytes copied into or out of packet memory by the processor.
    pub bytes_copied: u64,
}

/// Numbers the pools of the process. It wraps after 2^32 of them, over which nobody keeps a slot.
static NEXT_POOL_ID: AtomicU32 = AtomicU32::new(0);

/// A slot that has been given to a device for receiving: no reference to its bytes exists until
/// [`Pool::complete`] takes it back. Dropping one strands the slot, and the audit shows it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a posted slot is only freed through Pool::complete"]
pub struct PostedSlot {
    slot: u32,
    /// Its pool's [`Inner::id`].
    pool: u32,
}

impl PostedSlot {
    /// The slot's index in its pool.
    pub fn index(&self) -> u32 {
        self.slot
    }
}

/// The part of a pool that other threads may touch: the mapping and the way home.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) region: Arc<Region>,
    /// As large as the pool, so that a push cannot fail.
    pub(super) returns: ArrayQueue<u32>,
    slots: u32,
    slot_len: u32,
}

impl Shared {
    pub(super) fn slot_base(&self, slot: u32) -> *mut u8 {
        let offset = self.slot_offset(slot);
        debug_assert!(offset < self.region.len());
        // SAFETY: `slot` is an index below `slots + cells`, handed out by `Pool::new`, which sized
        // the region to hold them all; so the offset lies inside the mapping.
        unsafe { self.region.base().add(offset) }
    }

    /// Where in the region a slot or cell begins.
    pub(super) fn slot_offset(&self, slot: u32) -> usize {
        let (slots, slot_len) = (self.slots as usize, self.slot_len as usize);
        match (slot as usize).checked_sub(slots) {
            None => slot as usize * slot_len,
            Some(cell) => slots * slot_len + cell * CELL_LEN,
        }
    }
}

/// References to one slot. `FREE`, `POSTED` and `REMOTE` mean that no reference to its bytes
/// exists on this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotState {
    Free,
    Posted,
    Remote,
    /// `refs` buffers and slices, of which a device reads `queued`.
    Live {
        refs: u32,
        queued: u32,
    },
}

pub(super) struct Inner {
    /// Tells this pool from every other one of the process.
    id: u32,
    pub(super) shared: Arc<Shared>,
    state: Box<[Cell<SlotState>]>,
    free_slots: RefCell<Vec<u32>>,
    free_cells: RefCell<Vec<u32>>,
    /// Pool handles plus live slots: when it reaches zero, `Inner` is freed.
    owners: Cell<u64>,
    counters: Cell<PoolCounters>,
}

/// The buffer pool of one core. Cloning it clones a handle; neither handles nor buffers are `Send`.
///
/// The memory lives until the last handle, buffer and [`RemoteBuf`] is gone, in whatever order they
/// go. An empty pool answers `None` and counts; it never panics and never grows.
pub struct Pool(NonNull<Inner>);

impl Pool {
    /// Maps the region and puts every slot and cell on its free list.
    ///
    /// # Errors
    /// [`PoolError`] for a slot length other than 2,048 or 4,096, for counts out of range, and when
    /// the kernel has no memory.
    pub fn new(config: PoolConfig) -> Result<Pool, PoolError> {
        let PoolConfig { slots, slot_len, cells, try_huge } = config;
        if slot_len != 2048 && slot_len != 4096 {
            return Err(PoolError::SlotLen(slot_len));
        }
        let total = u64::from(slots) + u64::from(cells);
        if slots == 0 || cells == 0 || total > u64::from(MAX_SLOTS) {
            return Err(PoolError::Slots(total));
        }
        let bytes = slots as usize * slot_len as usize + cells as usize * CELL_LEN;
        let region = Arc::new(Region::new(bytes, try_huge)?);
        let shared =
            Arc::new(Shared { region, returns: ArrayQueue::new(total as usize), slots, slot_len });
        let inner = Inner {
            id: NEXT_POOL_ID.fetch_add(1, Ordering::Relaxed),
            shared,
            state: vec![Cell::new(SlotState::Free); total as usize].into_boxed_slice(),
            // Low indices are handed out first, so that a quiet pool stays in few pages.
            free_slots: RefCell::new((0..slots).rev().collect()),
            free_cells: RefCell::new((slots..slots + cells).rev().collect()),
            owners: Cell::new(1),
            counters: Cell::default(),
        };
        Ok(Pool(NonNull::from(Box::leak(Box::new(inner)))))
    }

    fn inner(&self) -> &Inner {
        // SAFETY: this handle is counted in `owners`, so `Inner` is alive; it is only reached from
        // this thread because no type that points to it is `Send`.
        unsafe { self.0.as_ref() }
    }

    pub(super) fn is(&self, inner: NonNull<Inner>) -> bool {
        self.0 == inner
    }

    /// A whole slot, writable, or `None` (counted) if none is free. Its bytes are whatever was
    /// there before.
    pub fn alloc(&self) -> Option<PacketBuf> {
        let slot = self.take(&self.inner().free_slots);
        if slot.is_none() {
            self.count(|c| c.slots_exhausted += 1);
        }
        slot.map(|slot| self.first_owner(slot, self.slot_len() as u16))
    }

    /// A 256-byte header cell, or `None` (counted) if none is free.
    pub fn alloc_cell(&self) -> Option<PacketBuf> {
        let cell = self.take(&self.inner().free_cells);
        if cell.is_none() {
            self.count(|c| c.cells_exhausted += 1);
        }
        cell.map(|cell| self.first_owner(cell, CELL_LEN as u16))
    }

    /// A slot with a copy of `bytes` in it, cut to their length; counted in `bytes_copied`. `None`
    /// if no slot is free or they do not fit one.
    pub fn copy_from(&self, bytes: &[u8]) -> Option<PacketBuf> {
        if bytes.len() > self.slot_len() {
            return None;
        }
        let mut buf = self.alloc()?;
        buf[..bytes.len()].copy_from_slice(bytes);
        buf.truncate(bytes.len());
        self.count_copied(bytes.len());
        Some(buf)
    }

    fn take(&self, list: &RefCell<Vec<u32>>) -> Option<u32> {
        if let Some(slot) = list.borrow_mut().pop() {
            return Some(slot);
        }
        self.collect_returns();
        list.borrow_mut().pop()
    }

    fn first_owner(&self, slot: u32, len: u16) -> PacketBuf {
        let inner = self.inner();
        debug_assert_eq!(inner.state[slot as usize].get(), SlotState::Free);
        inner.state[slot as usize].set(SlotState::Live { refs: 1, queued: 0 });
        inner.owners.set(inner.owners.get() + 1);
        PacketBuf::from_parts(self.0, slot, 0, len)
    }

    /// Takes home the slots that other threads have dropped. `alloc` does so when it runs out; an
    /// engine does so once a loop. Returns how many came home.
    pub fn collect_returns(&self) -> usize {
        let inner = self.inner();
        let mut count = 0;
        while let Some(slot) = inner.shared.returns.pop() {
            debug_assert_eq!(inner.state[slot as usize].get(), SlotState::Remote);
            inner.put_free(slot);
            count += 1;
        }
        count
    }

    /// Gives a whole, unshared slot to a device for receiving.
    ///
    /// # Errors
    /// The buffer comes back if it is not the only reference to its slot or not from this pool.
    pub fn post(&self, buf: PacketBuf) -> Result<PostedSlot, PacketBuf> {
        if !buf.belongs_to(self.0) || !buf.is_unique() {
            return Err(buf);
        }
        let slot = buf.forget();
        let inner = self.inner();
        inner.state[slot as usize].set(SlotState::Posted);
        // This handle keeps `Inner` alive, so the count cannot reach zero here.
        inner.owners.set(inner.owners.get() - 1);
        Ok(PostedSlot { slot, pool: inner.id })
    }

    /// Takes a slot back from a device, `len` bytes of it filled from its start. A length beyond
    /// the slot (a device's lie) is cut to the slot.
    ///
    /// # Panics
    /// If the slot is another pool's.
    pub fn complete(&self, slot: PostedSlot, len: usize) -> PacketBuf {
        let slot = self.own(&slot);
        let inner = self.inner();
        debug_assert_eq!(inner.state[slot as usize].get(), SlotState::Posted);
        inner.state[slot as usize].set(SlotState::Free);
        let capacity = self.capacity_of(slot);
        self.first_owner(slot, len.min(capacity) as u16)
    }

    /// The index of a posted slot, which must be one of this pool's: it is an offset into its memory.
    fn own(&self, posted: &PostedSlot) -> u32 {
        assert_eq!(posted.pool, self.inner().id, "a posted slot of another pool");
        posted.slot
    }

    /// The address of a posted slot's memory, for the device that owns it.
    ///
    /// # Panics
    /// If the slot is another pool's.
    pub fn posted_addr(&self, slot: &PostedSlot) -> *mut u8 {
        self.inner().shared.slot_base(self.own(slot))
    }

    /// The memory that all slots and cells lie in: what a device is given to reach, once.
    pub fn region(&self) -> &Arc<Region> {
        &self.inner().shared.region
    }

    /// Where in [`Pool::region`] byte `offset` of a slot lies: added to the region's address for a
    /// device, it is the address that a descriptor holds. [`PostedSlot::index`] and
    /// [`PacketSlice::slot_index`](super::PacketSlice::slot_index) name the slot.
    ///
    /// # Panics
    /// If the pool has no such slot, or `offset` is not in it: the address would be a neighbour's.
    pub fn region_offset_of(&self, slot: u32, offset: usize) -> usize {
        let inner = self.inner();
        assert!((slot as usize) < inner.state.len(), "a slot of another pool");
        assert!(offset <= inner.capacity_of(slot), "an offset outside of its slot");
        inner.shared.slot_offset(slot) + offset
    }

    /// Takes a [`RemoteBuf`] of this pool back as a writable buffer, without a copy.
    ///
    /// # Errors
    /// The buffer comes back if it is from another pool.
    pub fn adopt(&self, remote: RemoteBuf) -> Result<PacketBuf, RemoteBuf> {
        let inner = self.inner();
        if !remote.belongs_to(&inner.shared) {
            return Err(remote);
        }
        let (slot, off, len) = remote.forget();
        debug_assert_eq!(inner.state[slot as usize].get(), SlotState::Remote);
        inner.state[slot as usize].set(SlotState::Live { refs: 1, queued: 0 });
        inner.owners.set(inner.owners.get() + 1);
        Ok(PacketBuf::from_parts(self.0, slot, off, len))
    }

    /// Walks the pool and counts where every slot is. Not for the hot path.
    pub fn audit(&self) -> Audit {
        self.collect_returns();
        let inner = self.inner();
        let mut audit = Audit { total: inner.state.len() as u32, ..Audit::default() };
        for state in &inner.state {
            match state.get() {
                SlotState::Free => {}
                SlotState::Posted => audit.posted += 1,
                SlotState::Remote => audit.remote += 1,
                SlotState::Live { queued: 0, .. } => audit.held += 1,
                SlotState::Live { .. } => audit.queued += 1,
            }
        }
        // Counted from the lists, not from the states: a slot lost between them unbalances the sum.
        audit.free = (inner.free_slots.borrow().len() + inner.free_cells.borrow().len()) as u32;
        audit
    }

    /// Bytes in a slot.
    pub fn slot_len(&self) -> usize {
        self.inner().shared.slot_len as usize
    }

    /// Slots (without cells) that are free now.
    pub fn free_slots(&self) -> usize {
        self.inner().free_slots.borrow().len()
    }

    /// All slots (without cells), free or not.
    pub fn total_slots(&self) -> usize {
        self.inner().shared.slots as usize
    }

    /// Header cells that are free now.
    pub fn free_cells(&self) -> usize {
        self.inner().free_cells.borrow().len()
    }

    /// The kind of pages behind the pool.
    pub fn pages(&self) -> PageKind {
        self.inner().shared.region.pages()
    }

    /// What the pool has counted so far.
    pub fn counters(&self) -> PoolCounters {
        self.inner().counters.get()
    }

    /// Adds to `bytes_copied`: called wherever the processor copies payload.
    pub fn count_copied(&self, bytes: usize) {
        self.count(|c| c.bytes_copied += bytes as u64);
    }

    fn count(&self, f: impl FnOnce(&mut PoolCounters)) {
        let mut counters = self.inner().counters.get();
        f(&mut counters);
        self.inner().counters.set(counters);
    }

    fn capacity_of(&self, slot: u32) -> usize {
        self.inner().capacity_of(slot)
    }
}

impl Clone for Pool {
    fn clone(&self) -> Self {
        let inner = self.inner();
        inner.owners.set(inner.owners.get() + 1);
        Pool(self.0)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: this handle was counted and is given up here, once.
        unsafe { Inner::disown(self.0) };
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("slots", &self.total_slots())
            .field("free_slots", &self.free_slots())
            .finish_non_exhaustive()
    }
}

impl Inner {
    pub(super) fn capacity_of(&self, slot: u32) -> usize {
        if slot < self.shared.slots { self.shared.slot_len as usize } else { CELL_LEN }
    }

    fn put_free(&self, slot: u32) {
        self.state[slot as usize].set(SlotState::Free);
        let list = if slot < self.shared.slots { &self.free_slots } else { &self.free_cells };
        list.borrow_mut().push(slot);
    }

    pub(super) fn refs(&self, slot: u32) -> u32 {
        match self.state[slot as usize].get() {
            SlotState::Live { refs, .. } => refs,
            SlotState::Free | SlotState::Posted | SlotState::Remote => 0,
        }
    }

    /// One reference more to a live slot.
    pub(super) fn retain(&self, slot: u32) {
        let state = &self.state[slot as usize];
        let SlotState::Live { refs, queued } = state.get() else { unreachable_slot() };
        let refs = refs.checked_add(1).expect("fewer than 2^32 references to one slot");
        state.set(SlotState::Live { refs, queued });
    }

    /// Adds or removes a device's claim on a live slot.
    pub(super) fn set_queued(&self, slot: u32, queued_now: bool) {
        let state = &self.state[slot as usize];
        let SlotState::Live { refs, queued } = state.get() else { unreachable_slot() };
        let queued = if queued_now { queued + 1 } else { queued - 1 };
        state.set(SlotState::Live { refs, queued });
    }

    /// One reference fewer; the last one frees the slot.
    ///
    /// # Safety
    /// The caller gives up one counted reference to a live slot of `this`.
    pub(super) unsafe fn release(this: NonNull<Inner>, slot: u32) {
        // SAFETY: the caller's reference keeps `this` alive until `disown` below.
        let inner = unsafe { this.as_ref() };
        let state = &inner.state[slot as usize];
        let SlotState::Live { refs, queued } = state.get() else { unreachable_slot() };
        if refs > 1 {
            state.set(SlotState::Live { refs: refs - 1, queued });
            return;
        }
        inner.put_free(slot);
        // SAFETY: the slot was live and is not any more: its claim on `this` ends here.
        unsafe { Self::disown(this) };
    }

    /// Moves a live slot with exactly one reference to another thread's care.
    ///
    /// # Safety
    /// The caller gives up the only reference to a live slot of `this`.
    pub(super) unsafe fn make_remote(this: NonNull<Inner>, slot: u32) -> Arc<Shared> {
        // SAFETY: the caller's reference keeps `this` alive until `disown` below.
        let inner = unsafe { this.as_ref() };
        let shared = Arc::clone(&inner.shared);
        inner.state[slot as usize].set(SlotState::Remote);
        // SAFETY: the slot was live and is not any more: its claim on `this` ends here.
        unsafe { Self::disown(this) };
        shared
    }

    /// # Safety
    /// The caller gives up one claim counted in `owners` and does not use `this` again.
    unsafe fn disown(this: NonNull<Inner>) {
        // SAFETY: the caller's claim keeps `this` alive up to here.
        let inner = unsafe { this.as_ref() };
        let left = inner.owners.get() - 1;
        inner.owners.set(left);
        if left == 0 {
            // SAFETY: `this` came from `Box::leak` in `Pool::new`; no handle and no live slot
            // points to it any more.
            drop(unsafe { Box::from_raw(this.as_ptr()) });
        }
    }
}

#[cold]
#[inline(never)]
fn unreachable_slot() -> ! {
    panic!("a reference exists to a slot that is not live")
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
