//! The buffer pool of one core, and the account of every slot in it.

use std::ptr::NonNull;
use std::sync::Arc;

use thiserror::Error;

use super::buf::PacketBuf;
use super::inner::{FreeList, Inner, Place};
use super::region::{PageKind, Region, RegionError};
use super::remote::RemoteBuf;

/// Bytes in a header cell: room for Ethernet, IPv6 and TCP headers with all options, and for a
/// small payload behind them.
pub const CELL_LEN: usize = 256;

/// What a slot may have, in bytes: the second for frames of 9,000 bytes in few pieces or much TSO, the
/// third for such frames in one piece, with room for headers in front.
pub const SLOT_LENS: [u32; 3] = [2048, 4096, 9216];

/// Most slots plus cells in one pool: 16 Mi (64 GiB of 4 KiB slots).
pub const MAX_SLOTS: u32 = 1 << 24;

/// How large a [`Pool`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Number of packet slots.
    pub slots: u32,
    /// Bytes in a slot: one of [`SLOT_LENS`].
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
    #[error("a pool slot has 2048, 4096 or 9216 bytes, not {0}")]
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

/// The buffer pool of one core. Cloning it clones a handle; neither handles nor buffers are `Send`.
///
/// The memory lives until the last handle, buffer and [`RemoteBuf`] is gone, in whatever order they
/// go. An empty pool answers `None` and counts; it never panics and never grows.
pub struct Pool(NonNull<Inner>);

impl Pool {
    /// Maps the region and puts every slot and cell on its free list.
    ///
    /// # Errors
    /// [`PoolError`] for a slot length other than [`SLOT_LENS`], for counts out of range, and when
    /// the kernel has no memory.
    pub fn new(config: PoolConfig) -> Result<Pool, PoolError> {
        let PoolConfig { slots, slot_len, cells, try_huge } = config;
        if !SLOT_LENS.contains(&slot_len) {
            return Err(PoolError::SlotLen(slot_len));
        }
        let total = u64::from(slots) + u64::from(cells);
        if slots == 0 || cells == 0 || total > u64::from(MAX_SLOTS) {
            return Err(PoolError::Slots(total));
        }
        let bytes = slots as usize * slot_len as usize + cells as usize * CELL_LEN;
        let region = Arc::new(Region::new(bytes, try_huge)?);
        Ok(Pool(Inner::new(&config, region)))
    }

    #[inline]
    pub(super) fn inner(&self) -> &Inner {
        // SAFETY: this handle is counted, so `Inner` is alive; it is only reached from this thread
        // because no type that points to it is `Send`.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(super) fn is(&self, inner: NonNull<Inner>) -> bool {
        self.0 == inner
    }

    #[inline]
    pub(super) fn pointer(&self) -> NonNull<Inner> {
        self.0
    }

    /// A whole slot, writable, or `None` (counted) if none is free. Its bytes are whatever was
    /// there before.
    #[inline]
    pub fn alloc(&self) -> Option<PacketBuf> {
        let inner = self.inner();
        let slot = match inner.take_live(&inner.free_slots) {
            Some(slot) => slot,
            None => self.take_returned(&inner.free_slots, |c| &mut c.slots_exhausted)?,
        };
        Some(PacketBuf::from_parts(self.0, slot, 0, inner.slot_len() as u16))
    }

    /// A 256-byte header cell, or `None` (counted) if none is free.
    #[inline(always)]
    pub fn alloc_cell(&self) -> Option<PacketBuf> {
        let inner = self.inner();
        let cell = match inner.take_live(&inner.free_cells) {
            Some(cell) => cell,
            None => self.take_returned(&inner.free_cells, |c| &mut c.cells_exhausted)?,
        };
        Some(PacketBuf::from_parts(self.0, cell, 0, CELL_LEN as u16))
    }

    /// Looks for a slot among those that other threads have dropped; counts if there is none.
    #[cold]
    fn take_returned(
        &self,
        list: &FreeList,
        exhausted: fn(&mut PoolCounters) -> &mut u64,
    ) -> Option<u32> {
        self.collect_returns();
        let slot = self.inner().take_live(list);
        if slot.is_none() {
            self.count(|counters| *exhausted(counters) += 1);
        }
        slot
    }

    /// Counts a slot for receiving that there was not.
    #[cold]
    pub(super) fn count_exhausted(&self) {
        self.count(|counters| counters.slots_exhausted += 1);
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

    /// Takes home the slots that other threads have dropped. `alloc` does so when it runs out; an
    /// engine does so once a loop. Returns how many came home.
    pub fn collect_returns(&self) -> usize {
        self.inner().collect_returns()
    }

    /// The memory that all slots and cells lie in: what a device is given to reach, once.
    pub fn region(&self) -> &Arc<Region> {
        &self.inner().shared.region
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
        inner.adopt(slot);
        Ok(PacketBuf::from_parts(self.0, slot, off, len))
    }

    /// Walks the pool and counts where every slot is. Not for the hot path.
    pub fn audit(&self) -> Audit {
        self.collect_returns();
        let inner = self.inner();
        let mut audit = Audit { total: inner.total() as u32, ..Audit::default() };
        for place in inner.census() {
            match place {
                Place::Idle => {}
                Place::Remote => audit.remote += 1,
                Place::Held => audit.held += 1,
                Place::Queued => audit.queued += 1,
            }
        }
        // Counted where they are, not from the states: a slot lost between them unbalances the sum.
        audit.posted = inner.posted() as u32;
        audit.free = (inner.free_slots.len() + inner.free_cells.len()) as u32;
        audit
    }

    /// Bytes in a slot.
    #[inline]
    pub fn slot_len(&self) -> usize {
        self.inner().slot_len()
    }

    /// Slots (without cells) that are free now.
    pub fn free_slots(&self) -> usize {
        self.inner().free_slots.len()
    }

    /// All slots (without cells), free or not.
    pub fn total_slots(&self) -> usize {
        self.inner().slots()
    }

    /// All header cells, free or not.
    pub fn total_cells(&self) -> usize {
        self.inner().total() - self.inner().slots()
    }

    /// Header cells that are free now.
    pub fn free_cells(&self) -> usize {
        self.inner().free_cells.len()
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
    #[inline]
    pub fn count_copied(&self, bytes: usize) {
        self.count(|c| c.bytes_copied += bytes as u64);
    }

    #[inline]
    fn count(&self, f: impl FnOnce(&mut PoolCounters)) {
        let mut counters = self.inner().counters.get();
        f(&mut counters);
        self.inner().counters.set(counters);
    }
}

impl Clone for Pool {
    fn clone(&self) -> Self {
        self.inner().add_handle();
        Pool(self.0)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: this handle was counted and is given up here, once.
        unsafe { Inner::release_handle(self.0) };
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

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
