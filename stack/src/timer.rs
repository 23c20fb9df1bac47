//! A hierarchical timing wheel: insert, cancel and fire in constant time, however many timers run.
//!
//! ```text
//!   level 0   64 slots of      1 tick      a timer lies on the level of the highest six-bit group
//!   level 1   64 slots of     64 ticks     in which its tick differs from the wheel's; when the
//!   level 2   64 slots of  4,096 ticks     wheel reaches its slot it moves down, at most once a
//!     …                                    level, until its tick is the wheel's and it fires
//!   level 7   64 slots of   64⁷ ticks
//! ```
//!
//! A tick is 2²⁰ ns, about a millisecond. A deadline is rounded up to a tick: a timer **never fires
//! early**, and fires **at most one tick late** if the wheel is advanced in time. Eight levels cover
//! every [`Instant`].
//!
//! Empty slots cost nothing: each level has a bitmap of its occupied ones, so that advancing over
//! days of idleness and finding the next deadline both cost one look a level.
//!
//! G. Varghese and A. Lauck, "Hashed and Hierarchical Timing Wheels", scheme 7.

use std::num::NonZeroU32;

use crate::hint::rarely;
use crate::time::Instant;

/// Bits of nanoseconds that make a tick.
const TICK_SHIFT: u32 = 20;
/// Length of a tick in nanoseconds: how late a timer may fire.
pub const TICK_NS: u64 = 1 << TICK_SHIFT;

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 8;
/// The list of timers whose tick had passed when they were inserted.
const DUE: usize = LEVELS * SLOTS;
const LISTS: usize = DUE + 1;

// Every tick of a 64-bit nanosecond clock finds a level.
const _: () = assert!(LEVELS as u32 * SLOT_BITS + TICK_SHIFT >= u64::BITS);

/// Ticks that a wheel may stand behind the time. A timer that is inserted meanwhile may lie on a
/// higher level than it would have to, and move down once more.
const MOST_BEHIND: u64 = SLOTS as u64;

/// Nodes that the slab grows by.
const CHUNK: usize = 1024;
/// Chunks that a wheel without timers keeps at most.
const SPARE_CHUNKS: usize = 4;
/// No node.
const NIL: u32 = u32::MAX;

/// Names a timer that was inserted. A key whose timer has fired or been cancelled names nothing,
/// also when the memory of the timer is in use again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerKey {
    node: u32,
    generation: NonZeroU32,
}

/// A timer, or a free place for one. 24 bytes.
#[derive(Clone, Copy, Debug)]
struct Node {
    tick: u64,
    token: u32,
    /// Changes when the place is freed, so that old keys do not match.
    generation: NonZeroU32,
    /// The next of the same list, or of the free list.
    next: u32,
    /// The previous of the same list, [`NIL`] at its front. Without meaning in a free node.
    prev: u32,
}

/// A hierarchical timing wheel. See the module.
#[derive(Debug)]
pub struct Wheel {
    /// The tick that the wheel has been advanced to.
    elapsed: u64,
    /// The tick from which on advancing it would do something. Until then it may stand behind the
    /// time, though not by more than [`MOST_BEHIND`].
    next: u64,
    /// The first node of each list: `LEVELS` times `SLOTS`, and [`DUE`].
    heads: Box<[u32; LISTS]>,
    /// A bit for each slot that is not empty.
    occupied: [u64; LEVELS],
    /// Nodes, in chunks that never move.
    chunks: Vec<Box<[Node; CHUNK]>>,
    free: u32,
    len: usize,
    /// What generations begin with: later than all that were handed out.
    generation: NonZeroU32,
}

impl Wheel {
    /// An empty wheel, standing at the origin of time.
    pub fn new() -> Wheel {
        Wheel {
            elapsed: 0,
            next: MOST_BEHIND,
            heads: Box::new([NIL; LISTS]),
            occupied: [0; LEVELS],
            chunks: Vec::new(),
            free: NIL,
            len: 0,
            generation: NonZeroU32::MIN,
        }
    }

    /// Timers that have neither fired nor been cancelled.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Starts a timer that fires, as `token`, at the first [`Wheel::advance`] at or after `at`.
    ///
    /// Memory grows in chunks of 1,024 timers and is bounded by the most that have run at once since
    /// none did; the caller bounds those.
    ///
    /// # Panics
    /// If 2³² - 1 timers run already.
    pub fn insert(&mut self, at: Instant, token: u32) -> TimerKey {
        if rarely(self.free == NIL) {
            self.grow();
        }
        let index = self.free;
        let tick = at.as_nanos().div_ceil(TICK_NS);
        let node = self.node_mut(index);
        let key = TimerKey { node: index, generation: node.generation };
        let next_free = node.next;
        node.token = token;
        self.free = next_free;
        self.len += 1;
        self.link(index, tick);
        key
    }

    /// Stops a timer. False if it has fired or been cancelled before.
    pub fn cancel(&mut self, key: TimerKey) -> bool {
        let Some(node) = self.get(key.node) else { return false };
        // A free node has a generation that was not given out yet.
        if node.generation != key.generation {
            return false;
        }
        self.unlink(key.node);
        self.release(key.node);
        true
    }

    /// Gives a timer another time. False if it has fired or been cancelled before.
    pub fn reschedule(&mut self, key: TimerKey, at: Instant) -> bool {
        let runs = self.get(key.node).is_some_and(|node| node.generation == key.generation);
        if runs {
            self.unlink(key.node);
            self.link(key.node, at.as_nanos().div_ceil(TICK_NS));
        }
        runs
    }

    /// Has a timer fire as another token. False if it has fired or been cancelled before.
    pub fn rename(&mut self, key: TimerKey, token: u32) -> bool {
        let runs = self.get(key.node).is_some_and(|node| node.generation == key.generation);
        if runs {
            self.node_mut(key.node).token = token;
        }
        runs
    }

    /// Moves time on to `now` and appends the tokens of the timers that it brings to fire, in the
    /// order of their ticks. Time does not move back.
    pub fn advance(&mut self, now: Instant, fired: &mut Vec<u32>) {
        if !self.would_move(now) {
            return;
        }
        let target = now.as_nanos() >> TICK_SHIFT;
        self.fire_all(DUE, fired);
        while let Some((level, slot, start)) = self.next_slot() {
            if start > target {
                break;
            }
            self.elapsed = start;
            self.occupied[level] &= !(1 << slot);
            let list = level * SLOTS + slot;
            if level == 0 {
                self.fire_all(list, fired);
            } else {
                self.cascade(list, fired);
            }
        }
        self.elapsed = self.elapsed.max(target);
        let first = self.next_slot().map_or(u64::MAX, |(_, _, start)| start);
        self.next = first.min(self.elapsed + MOST_BEHIND);
    }

    /// Whether [`Wheel::advance`] would do anything: fire a timer, move some down, or catch up with
    /// the time.
    #[inline]
    pub fn would_move(&self, now: Instant) -> bool {
        now.as_nanos() >> TICK_SHIFT >= self.next
    }

    /// When to call [`Wheel::advance`] next, or `None` without timers.
    ///
    /// It is never later than the first deadline, rounded up to a tick. For a deadline more than 64
    /// ticks off it may be earlier: the moment when that timer moves down a level. Advancing there
    /// fires nothing but makes the next answer later, at most seven times a timer.
    pub fn next_deadline(&self) -> Option<Instant> {
        let tick = if self.heads[DUE] == NIL { self.next_slot()?.2 } else { self.elapsed };
        Some(Instant::from_nanos(tick.saturating_mul(TICK_NS)))
    }

    /// The first slot to come that is occupied: its level, its index and the tick it begins at.
    ///
    /// Timers of a level agree with `elapsed` in all higher groups of bits and are ahead of it in
    /// the group of the level, so the occupied slots of a level lie ahead of the current one and
    /// those of a lower level come before those of a higher.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        let shift = level as u32 * SLOT_BITS;
        let above = self.elapsed >> (shift + SLOT_BITS);
        let start = ((above << SLOT_BITS) | slot as u64) << shift;
        debug_assert!(start > self.elapsed, "an occupied slot was passed");
        Some((level, slot, start))
    }

    /// The list that a timer of `tick` belongs to: a function of it and `elapsed` alone. While the
    /// timer waits, `elapsed` moves only below the start of its slot, which leaves the highest
    /// differing group the same; so the answer is the same when the timer is unlinked.
    fn list_of(&self, tick: u64) -> usize {
        if rarely(tick <= self.elapsed) {
            return DUE;
        }
        let level = (u64::BITS - 1 - (tick ^ self.elapsed).leading_zeros()) / SLOT_BITS;
        let slot = (tick >> (level * SLOT_BITS)) as usize % SLOTS;
        level as usize * SLOTS + slot
    }

    /// Puts a node into the list of `tick`.
    fn link(&mut self, index: u32, tick: u64) {
        let list = self.list_of(tick);
        let next = self.heads[list];
        let node = self.node_mut(index);
        node.tick = tick;
        node.next = next;
        node.prev = NIL;
        if next != NIL {
            self.node_mut(next).prev = index;
        }
        self.heads[list] = index;
        if rarely(list == DUE) {
            self.next = 0;
            return;
        }
        let level = list / SLOTS;
        self.occupied[level] |= 1 << (list % SLOTS);
        let shift = level as u32 * SLOT_BITS;
        self.next = self.next.min(tick >> shift << shift);
    }

    fn unlink(&mut self, index: u32) {
        let Node { tick, next, prev, .. } = *self.node(index);
        if next != NIL {
            self.node_mut(next).prev = prev;
        }
        if prev != NIL {
            self.node_mut(prev).next = next;
            return;
        }
        let list = self.list_of(tick);
        debug_assert_eq!(self.heads[list], index, "a timer left its list");
        self.heads[list] = next;
        if next == NIL && list != DUE {
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        }
    }

    /// Fires every timer of a list.
    fn fire_all(&mut self, list: usize, fired: &mut Vec<u32>) {
        let mut index = std::mem::replace(&mut self.heads[list], NIL);
        while index != NIL {
            let Node { token, next, .. } = *self.node(index);
            fired.push(token);
            self.release(index);
            index = next;
        }
    }

    /// Moves the timers of a list whose slot begins now to lower levels, or fires them.
    fn cascade(&mut self, list: usize, fired: &mut Vec<u32>) {
        let mut index = std::mem::replace(&mut self.heads[list], NIL);
        while index != NIL {
            let Node { tick, token, next, .. } = *self.node(index);
            if tick <= self.elapsed {
                fired.push(token);
                self.release(index);
            } else {
                self.link(index, tick);
            }
            index = next;
        }
    }

    fn release(&mut self, index: u32) {
        let free = self.free;
        let node = self.node_mut(index);
        node.generation = node.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        node.next = free;
        self.free = index;
        self.len -= 1;
        if self.len == 0 && self.chunks.len() > SPARE_CHUNKS {
            self.shrink();
        }
    }

    /// Gives the memory of all nodes back, none of which is in use.
    #[cold]
    fn shrink(&mut self) {
        let nodes = self.chunks.iter().flat_map(|chunk| chunk.iter());
        self.generation = nodes.map(|node| node.generation).max().unwrap_or(self.generation);
        self.chunks = Vec::new();
        self.free = NIL;
    }

    #[cold]
    fn grow(&mut self) {
        let base = self.chunks.len() * CHUNK;
        let last = u32::try_from(base + CHUNK - 1).expect("fewer than 2^32 timers");
        assert_ne!(last, NIL, "fewer than 2^32 timers");
        let generation = self.generation;
        let empty = Node { tick: 0, token: 0, generation, next: NIL, prev: NIL };
        let mut chunk = Box::new([empty; CHUNK]);
        for (node, next) in chunk.iter_mut().zip(base as u32 + 1..=last) {
            node.next = next;
        }
        self.chunks.push(chunk);
        self.free = base as u32;
    }

    fn get(&self, index: u32) -> Option<&Node> {
        self.chunks.get(index as usize / CHUNK).map(|chunk| &chunk[index as usize % CHUNK])
    }

    fn node(&self, index: u32) -> &Node {
        &self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    fn node_mut(&mut self, index: u32) -> &mut Node {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}

impl Default for Wheel {
    fn default() -> Self {
        Wheel::new()
    }
}

#[cfg(test)]
#[path = "timer_tests.rs"]
mod tests;
