//! Where every slot of a pool is: one word a slot, and the free lists.
//!
//! ```text
//!            alloc             clone, split        drop
//!   IDLE ───────────▶ LIVE(1) ─────────────▶ LIVE(n) ──▶ … ──▶ IDLE
//!                         │ into_remote                       ▲
//!                         └──────────────▶ REMOTE ────────────┘ drop elsewhere, adopt
//! ```
//!
//! An idle slot is on a free list, or posted to a device: a posted slot's state is not touched, only
//! the number of them is kept, since its table owns it.
//!
//! Every packet passes here several times, so that a step is a load, an addition and a store: the
//! references and the device's claims are counted in two parts of one word, and the free lists
//! are as long as the pool, so that a push never grows them.
//!
//! # Safety
//!
//! Nothing here checks slot numbers in a release build. They are only made by [`Inner::new`], which
//! puts each on a free list once, and they are only moved: from a free list into a buffer, a ring's
//! table or a [`RemoteBuf`](super::RemoteBuf), each of which belongs to one pool and says so, and
//! back. So a slot number that reaches an [`Inner`] is one of its own, below `slots + cells`.

use std::cell::Cell;
use std::hint::cold_path;
use std::ptr::NonNull;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use super::pool::{CELL_LEN, PoolConfig, PoolCounters};
use super::prefetch::prefetch_address;
use super::region::Region;
use super::row::by_fours;

/// The part of a pool that other threads may touch: the mapping and the way home.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) region: Arc<Region>,
    /// As large as the pool, so that a push cannot fail.
    pub(super) returns: ArrayQueue<u32>,
    places: Places,
}

impl Shared {
    pub(super) fn slot_base(&self, slot: u32) -> *mut u8 {
        self.places.address(slot)
    }
}

/// Where slots and cells lie in the region: all slots, then all cells.
#[derive(Clone, Copy, Debug)]
struct Places {
    /// Where the region is mapped.
    base: *mut u8,
    slots: usize,
    cells: usize,
    slot_len: usize,
    /// How much farther the cells lie than if there were as many in front of them as there are slots.
    behind_slots: usize,
}

impl Places {
    #[inline]
    fn offset(&self, slot: u32) -> usize {
        let slot = slot as usize;
        debug_assert!(slot < self.slots + self.cells);
        if slot < self.slots {
            return slot * self.slot_len;
        }
        cold_path();
        // The cells begin behind the last slot.
        self.behind_slots + slot * CELL_LEN
    }

    #[inline]
    fn address(&self, slot: u32) -> *mut u8 {
        // SAFETY: `slot` is one of the pool's (see the module's docs), whose region `Inner::new`
        // made large enough for all of them; so the offset lies inside the mapping, which whoever
        // holds `Places` keeps alive beside it.
        unsafe { self.base.add(self.offset(slot)) }
    }
}

/// What a slot's word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On a free list, or a device may write it.
    Idle,
    /// Another thread has it.
    Remote,
    /// Buffers and slices refer to it.
    Held,
    /// The same, and a device reads it.
    Queued,
}

/// References to one slot: the lower 30 bits count buffers and slices, the bits above those of them
/// that a device reads. Lower bits of zero mean that no reference to the slot's bytes exists on this
/// thread, and then no other bit is set but that of [`SlotState::REMOTE`]. A claim lies so low that an
/// instruction can hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SlotState(u64);

impl SlotState {
    const IDLE: SlotState = SlotState(0);
    const REMOTE: SlotState = SlotState(1 << 63);
    /// In a live slot: its first [`HEADROOM`](super::HEADROOM) bytes are in nobody's range.
    const HEADROOM: u64 = 1 << 62;
    /// Live, with one reference.
    const LIVE: SlotState = SlotState(1);
    /// A device's claim.
    const CLAIM: u64 = 1 << 30;
    /// The bits that count references.
    const REFS: u64 = SlotState::CLAIM - 1;

    #[inline]
    fn refs(self) -> u32 {
        (self.0 & SlotState::REFS) as u32
    }

    fn place(self) -> Place {
        match self {
            SlotState::IDLE => Place::Idle,
            SlotState::REMOTE => Place::Remote,
            SlotState(live) if live & !SlotState::HEADROOM < SlotState::CLAIM => Place::Held,
            SlotState(_) => Place::Queued,
        }
    }
}

/// The free slots, or the free cells, of a pool.
pub(super) struct FreeList {
    slots: Box<[Cell<u32>]>,
    len: Cell<usize>,
}

impl FreeList {
    /// A full list, of which the lowest number comes first, so that a quiet pool stays in few pages.
    fn new(slots: std::ops::Range<u32>) -> FreeList {
        let slots: Box<[_]> = slots.rev().map(Cell::new).collect();
        FreeList { len: Cell::new(slots.len()), slots }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len.get()
    }

    #[inline]
    pub(super) fn pop(&self) -> Option<u32> {
        let last = self.len.get().checked_sub(1)?;
        self.len.set(last);
        // SAFETY: `len` never exceeds the list's length: it began as that and `push` says why it
        // does not pass it.
        Some(unsafe { self.slots.get_unchecked(last) }.get())
    }

    /// Fills `into` with slots from the list, which has as many.
    fn pop_all(&self, into: &mut [u32]) {
        let bottom = self.len.get() - into.len();
        for (to, from) in into.iter_mut().zip(&self.slots[bottom..]) {
            *to = from.get();
        }
        self.len.set(bottom);
    }

    #[inline]
    fn push(&self, slot: u32) {
        let mut pushing = self.pushing();
        pushing.push(slot);
        pushing.end();
    }

    /// The way to push many slots, of which the list knows when they are all there.
    #[inline]
    fn pushing(&self) -> Pushing<'_> {
        Pushing { slots: &self.slots, len: self.len.get(), list: &self.len }
    }
}

/// Slots on their way to a free list; see [`FreeList::pushing`].
struct Pushing<'a> {
    slots: &'a [Cell<u32>],
    len: usize,
    list: &'a Cell<usize>,
}

impl Pushing<'_> {
    #[inline]
    fn push(&mut self, slot: u32) {
        debug_assert!(self.len < self.slots.len(), "more free slots than there are");
        // SAFETY: the list has a place for each slot of its kind. A slot is pushed when its last
        // owner gives it up and popped for a single new one, so none is on the list twice, and the
        // one that is pushed is not on it: there is a place left.
        unsafe { self.slots.get_unchecked(self.len) }.set(slot);
        self.len += 1;
    }

    #[inline]
    fn end(self) {
        self.list.set(self.len);
    }
}

/// The states and places of a pool's slots; see [`Inner::view`].
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    states: &'a [Cell<SlotState>],
    places: Places,
}

impl<'a> View<'a> {
    #[inline]
    fn state(&self, slot: u32) -> &'a Cell<SlotState> {
        debug_assert!((slot as usize) < self.states.len());
        // SAFETY: as in `Inner::state`: the slot is one of the pool that the view is of.
        unsafe { self.states.get_unchecked(slot as usize) }
    }

    /// Where in the region the slot begins.
    #[inline]
    pub(super) fn offset(&self, slot: u32) -> usize {
        self.places.offset(slot)
    }

    /// Where in the region a slot that is not a cell begins.
    #[inline]
    pub(super) fn slot_offset(&self, slot: u32) -> usize {
        debug_assert!((slot as usize) < self.places.slots);
        slot as usize * self.places.slot_len
    }

    /// Asks the processor to fetch the first line of a slot that is not a cell.
    #[inline]
    pub(super) fn prefetch(&self, slot: u32) {
        prefetch_address(self.places.base.wrapping_add(self.slot_offset(slot)));
    }

    /// A slot that was posted has one reference now.
    #[inline]
    pub(super) fn complete(&self, slot: u32) {
        debug_assert_eq!(self.state(slot).get(), SlotState::IDLE);
        self.state(slot).set(SlotState::LIVE);
    }

    /// A device reads through one of the references to a live slot.
    #[inline]
    pub(super) fn claim(&self, slot: u32) {
        let state = self.state(slot);
        debug_assert_ne!(state.get().refs(), 0, "a claim on a slot that is not live");
        state.set(SlotState(state.get().0 + SlotState::CLAIM));
    }
}

/// What all handles, buffers and tables of one pool share, on its thread.
pub(super) struct Inner {
    states: Box<[Cell<SlotState>]>,
    places: Places,
    pub(super) free_slots: FreeList,
    pub(super) free_cells: FreeList,
    /// Slots in the tables of [`PostedSlots`](super::PostedSlots).
    posted: Cell<usize>,
    /// Pool handles. While there is one, nobody needs to count what else keeps `Inner` alive.
    handles: Cell<usize>,
    /// Live slots, counted when the last handle goes; with the last of them `Inner` is freed.
    orphans: Cell<usize>,
    pub(super) counters: Cell<PoolCounters>,
    pub(super) shared: Arc<Shared>,
}

impl Inner {
    /// All slots and cells of a pool, free; one handle. The region has room for them.
    pub(super) fn new(config: &PoolConfig, region: Arc<Region>) -> NonNull<Inner> {
        let PoolConfig { slots, slot_len, cells, .. } = *config;
        let total = (slots + cells) as usize;
        let needed = slots as usize * slot_len as usize + cells as usize * CELL_LEN;
        assert!(needed <= region.len(), "a pool larger than its region");
        let places = Places {
            base: region.base(),
            slots: slots as usize,
            cells: cells as usize,
            slot_len: slot_len as usize,
            behind_slots: slots as usize * (slot_len as usize - CELL_LEN),
        };
        let inner = Inner {
            states: vec![Cell::new(SlotState::IDLE); total].into_boxed_slice(),
            places,
            free_slots: FreeList::new(0..slots),
            free_cells: FreeList::new(slots..slots + cells),
            posted: Cell::new(0),
            handles: Cell::new(1),
            orphans: Cell::new(0),
            counters: Cell::default(),
            shared: Arc::new(Shared { region, returns: ArrayQueue::new(total), places }),
        };
        NonNull::from(Box::leak(Box::new(inner)))
    }

    /// Slots and cells.
    pub(super) fn total(&self) -> usize {
        self.states.len()
    }

    pub(super) fn slots(&self) -> usize {
        self.places.slots
    }

    #[inline]
    pub(super) fn slot_len(&self) -> usize {
        self.places.slot_len
    }

    #[inline]
    pub(super) fn capacity_of(&self, slot: u32) -> usize {
        if (slot as usize) < self.places.slots { self.slot_len() } else { CELL_LEN }
    }

    /// Where the slot's bytes are.
    #[inline]
    pub(super) fn address(&self, slot: u32) -> *mut u8 {
        self.places.address(slot)
    }

    /// Where every slot is, in no order.
    pub(super) fn census(&self) -> impl Iterator<Item = Place> {
        self.states.iter().map(|state| state.get().place())
    }

    #[inline]
    fn state(&self, slot: u32) -> &Cell<SlotState> {
        debug_assert!((slot as usize) < self.states.len());
        // SAFETY: `slot` is one of this pool's, which has a state for each; see the module's docs.
        unsafe { self.states.get_unchecked(slot as usize) }
    }

    /// A slot or cell leaves its free list with a first reference.
    #[inline]
    pub(super) fn take_live(&self, list: &FreeList) -> Option<u32> {
        let slot = list.pop()?;
        self.change(slot, SlotState::IDLE, SlotState::LIVE);
        Some(slot)
    }

    /// A slot that was on another thread becomes a buffer.
    pub(super) fn adopt(&self, slot: u32) {
        self.change(slot, SlotState::REMOTE, SlotState::LIVE);
    }

    /// Fills the front of `into` with free slots for a device to write; gives their number.
    pub(super) fn take_posted(&self, into: &mut [u32]) -> usize {
        let count = into.len().min(self.free_slots.len());
        self.free_slots.pop_all(&mut into[..count]);
        self.posted.set(self.posted.get() + count);
        count
    }

    /// Frees posted slots.
    pub(super) fn free_posted(&self, slots: &[u32]) {
        self.posted.set(self.posted.get() - slots.len());
        slots.iter().for_each(|slot| self.free_slots.push(*slot));
    }

    /// As many posted slots have become buffers.
    #[inline]
    pub(super) fn count_completed(&self, count: usize) {
        self.posted.set(self.posted.get() - count);
    }

    /// Slots that devices may write.
    pub(super) fn posted(&self) -> usize {
        self.posted.get()
    }

    /// What a loop over many slots needs, by value: nothing in it has to be loaded again after a
    /// store.
    #[inline]
    pub(super) fn view(&self) -> View<'_> {
        View { states: &self.states, places: self.places }
    }

    /// Takes home what other threads have dropped; gives its number.
    pub(super) fn collect_returns(&self) -> usize {
        let mut count = 0;
        // Looking costs less than a pop that finds nothing, which has a fence in it.
        if self.shared.returns.is_empty() {
            return 0;
        }
        while let Some(slot) = self.shared.returns.pop() {
            self.change(slot, SlotState::REMOTE, SlotState::IDLE);
            self.put_free(slot);
            count += 1;
        }
        count
    }

    #[inline]
    fn change(&self, slot: u32, from: SlotState, to: SlotState) {
        debug_assert_eq!(self.state(slot).get(), from);
        self.state(slot).set(to);
    }

    #[inline]
    fn put_free(&self, slot: u32) {
        let list =
            if (slot as usize) < self.places.slots { &self.free_slots } else { &self.free_cells };
        list.push(slot);
    }

    #[inline]
    pub(super) fn refs(&self, slot: u32) -> u32 {
        self.state(slot).get().refs()
    }

    /// The first [`HEADROOM`](super::HEADROOM) bytes of a live slot are in nobody's range any more.
    #[inline]
    pub(super) fn leave_headroom(&self, slot: u32) {
        let state = self.state(slot);
        debug_assert_ne!(state.get().refs(), 0, "headroom in a slot that is not live");
        state.set(SlotState(state.get().0 | SlotState::HEADROOM));
    }

    /// Whoever is told that it was there has them now.
    #[inline]
    pub(super) fn take_headroom(&self, slot: u32) -> bool {
        let state = self.state(slot);
        let SlotState(now) = state.get();
        state.set(SlotState(now & !SlotState::HEADROOM));
        now & SlotState::HEADROOM != 0
    }

    /// One reference more to a live slot.
    #[inline]
    pub(super) fn retain(&self, slot: u32) {
        let state = self.state(slot);
        let SlotState(now) = state.get();
        debug_assert_ne!(now & SlotState::REFS, 0, "a reference to a slot that is not live");
        if now & SlotState::REFS == SlotState::REFS {
            too_many_references();
        }
        state.set(SlotState(now + 1));
    }

    /// A device's claims end, and a reference with each. For holders of a handle.
    #[inline]
    pub(super) fn release_claimed(&self, slots: &[u32]) {
        let view = self.view();
        let mut free = self.free_slots.pushing();
        by_fours(slots, |&slot| {
            let state = view.state(slot);
            debug_assert_eq!(state.get().place(), Place::Queued);
            let left = SlotState(state.get().0 - SlotState::CLAIM - 1);
            if left.refs() != 0 {
                cold_path();
                return state.set(left);
            }
            state.set(SlotState::IDLE);
            if (slot as usize) < view.places.slots {
                free.push(slot);
            } else {
                cold_path();
                self.free_cells.push(slot);
            }
        });
        free.end();
    }

    /// One reference fewer; the last one frees the slot.
    ///
    /// # Safety
    /// The caller gives up one counted reference to a live slot of `this`.
    #[inline]
    pub(super) unsafe fn release(this: NonNull<Inner>, slot: u32) {
        // SAFETY: the caller's reference keeps `this` alive until `release_orphan` below.
        let inner = unsafe { this.as_ref() };
        let state = inner.state(slot);
        debug_assert_ne!(state.get().refs(), 0, "a reference to a slot that is not live");
        // A claim is one of the references, so that with the last of them no claim is left either.
        let left = SlotState(state.get().0 - 1);
        if left.refs() != 0 {
            state.set(left);
        } else {
            state.set(SlotState::IDLE);
            inner.put_free(slot);
            if inner.handles.get() == 0 {
                // SAFETY: the slot was live and is not any more, and no handle is left.
                unsafe { Self::release_orphan(this) };
            }
        }
    }

    /// Moves a live slot with exactly one reference to another thread's care.
    ///
    /// # Safety
    /// The caller gives up the only reference to a live slot of `this`.
    pub(super) unsafe fn make_remote(this: NonNull<Inner>, slot: u32) -> Arc<Shared> {
        // SAFETY: the caller's reference keeps `this` alive until `release_orphan` below.
        let inner = unsafe { this.as_ref() };
        let shared = Arc::clone(&inner.shared);
        debug_assert_eq!(inner.refs(slot), 1, "the only reference to a live slot");
        inner.state(slot).set(SlotState::REMOTE);
        if inner.handles.get() == 0 {
            // SAFETY: the slot was live and is not any more, and no handle is left.
            unsafe { Self::release_orphan(this) };
        }
        shared
    }

    /// One handle more.
    pub(super) fn add_handle(&self) {
        self.handles.set(self.handles.get() + 1);
    }

    /// # Safety
    /// The caller gives up one handle and does not use `this` again.
    pub(super) unsafe fn release_handle(this: NonNull<Inner>) {
        // SAFETY: the caller's handle keeps `this` alive up to here.
        let inner = unsafe { this.as_ref() };
        inner.handles.set(inner.handles.get() - 1);
        if inner.handles.get() > 0 {
            return;
        }
        // From here on no slot can become live: that takes a handle.
        let live = inner.census().filter(|place| match place {
            Place::Held | Place::Queued => true,
            Place::Idle | Place::Remote => false,
        });
        inner.orphans.set(live.count());
        if inner.orphans.get() == 0 {
            // SAFETY: no handle and no live slot points to `this` any more.
            unsafe { Self::free(this) };
        }
    }

    /// # Safety
    /// No handle is left, and the caller has just made a live slot one that is not.
    #[cold]
    unsafe fn release_orphan(this: NonNull<Inner>) {
        // SAFETY: the slot was counted in `orphans` when the last handle went, and is still.
        let inner = unsafe { this.as_ref() };
        inner.orphans.set(inner.orphans.get() - 1);
        if inner.orphans.get() == 0 {
            // SAFETY: no handle and no live slot points to `this` any more.
            unsafe { Self::free(this) };
        }
    }

    /// # Safety
    /// Nothing points to `this` any more.
    unsafe fn free(this: NonNull<Inner>) {
        // SAFETY: `this` came from `Box::leak` in `new`, and the caller says that it was the last
        // pointer.
        drop(unsafe { Box::from_raw(this.as_ptr()) });
    }
}

#[cold]
#[inline(never)]
fn too_many_references() -> ! {
    panic!("2^30 references to one slot")
}
