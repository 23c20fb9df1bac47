//! The receive ring: slots posted to the device, completed by DD, in any descriptor format.
//!
//! ```text
//!            next                          fill = RDT
//!   ─────────┼──────────────────────────────┼─────────── descriptors, one always empty
//!   finished │ posted: the device's         │ ours
//!            └─ DD? fence, take the slot    └─ alloc, post, write; one RDT a burst
//! ```

use std::marker::PhantomData;

use arrayvec::ArrayVec;

use super::format::{self, Format};
use crate::barrier;
use crate::bus::Iova;
use crate::device::{Features, QueueCounters, RxBurst, RxChecksum};
use crate::mem::{PacketSlice, Pool, PostedSlot, prefetch_read};
use crate::ring::Descriptors;

/// Free descriptors from which on the ring is filled again: a tail write is worth a burst.
const REFILL_BATCH: u16 = 32;

/// Most descriptors that one frame may span: 9,234 bytes (the largest frame of these families) in
/// slots of 2 KiB take five.
const MAX_SEGMENTS: usize = 8;

/// Shortest frame with a whole Ethernet header.
const ETHERNET_LEN: usize = 14;

/// One receive ring. Indices run freely and are masked where they are used.
#[derive(Debug)]
pub(crate) struct RxRing<F> {
    ring: Descriptors,
    posted: Box<[Option<PostedSlot>]>,
    pool: Pool,
    pool_iova: u64,
    /// Bytes that the device may write into a slot: a whole number of KiB, without headroom.
    buffer_len: usize,
    granted: Features,
    /// Next descriptor that the device finishes.
    next: u16,
    /// Next descriptor to give to the device.
    fill: u16,
    /// Segments of a frame of which the last descriptor is not finished yet.
    partial: ArrayVec<PacketSlice, MAX_SEGMENTS>,
    /// The frame that goes on here has been given up: wait for its end.
    skipping: bool,
    /// The last attempt to fill the ring found the pool empty.
    starved: bool,
    format: PhantomData<F>,
}

impl<F: Format> RxRing<F> {
    pub(crate) fn new(ring: Descriptors, pool: &Pool, pool_iova: Iova, granted: Features) -> Self {
        RxRing {
            posted: (0..ring.len()).map(|_| None).collect(),
            ring,
            pool: pool.clone(),
            pool_iova: pool_iova.0,
            buffer_len: pool.slot_len(),
            granted,
            next: 0,
            fill: 0,
            partial: ArrayVec::new(),
            skipping: false,
            starved: false,
            format: PhantomData,
        }
    }

    fn at(&self, index: u16) -> usize {
        usize::from(index) & (self.posted.len() - 1)
    }

    /// Descriptors that the device owns.
    fn owned(&self) -> u16 {
        self.fill.wrapping_sub(self.next)
    }

    /// True while too few slots were free to fill the ring.
    pub(crate) fn starved(&self) -> bool {
        self.starved
    }

    /// True if a descriptor has been finished.
    pub(crate) fn ready(&self) -> bool {
        self.owned() > 0 && format::rx_done(self.ring.status(self.next))
    }

    /// Appends at most `max` frames to the burst. Looks at no more descriptors than the ring has,
    /// however many malformed frames they hold.
    pub(crate) fn receive(
        &mut self,
        burst: &mut RxBurst,
        max: usize,
        counters: &mut QueueCounters,
    ) -> usize {
        let mut received = 0;
        for _ in 0..self.ring.len() {
            if received == max || !self.ready() {
                break;
            }
            // Orders the load of DD above before the loads of the descriptor and the packet: the
            // device wrote DD last (82576 §7.1.5).
            barrier::acquire_descriptor();
            let descriptor = self.ring.read(self.next);
            let at = self.at(self.next);
            self.next = self.next.wrapping_add(1);
            let Some(slot) = self.posted[at].take() else {
                // Every descriptor between `next` and `fill` has a slot.
                debug_assert!(false, "a descriptor without a slot");
                continue;
            };
            received += usize::from(self.complete(slot, descriptor, burst, counters));
        }
        received
    }

    /// Takes one slot back; true if it ended a frame that is in the burst now.
    #[inline]
    fn complete(
        &mut self,
        slot: PostedSlot,
        descriptor: [u64; 2],
        burst: &mut RxBurst,
        counters: &mut QueueCounters,
    ) -> bool {
        let (len, ends) = (format::rx_len(descriptor), format::rx_ends(descriptor));
        let segment = self.pool.complete(slot, len).freeze();
        let bogus = len == 0 || len > self.buffer_len || format::rx_damaged(descriptor);
        let whole = ends && self.partial.is_empty();
        if self.skipping || bogus || whole && len < ETHERNET_LEN {
            self.give_up(ends, counters);
            return false;
        }
        if !ends {
            if self.partial.try_push(segment).is_err() {
                self.give_up(ends, counters);
            }
            return false;
        }
        prefetch_read(&segment);
        counters.rx_frames += 1;
        counters.rx_bytes += len as u64;
        if !whole {
            for earlier in self.partial.drain(..) {
                counters.rx_bytes += earlier.len() as u64;
                burst.push_segment(earlier);
            }
        }
        burst.push_segment(segment);
        let meta = format::rx_meta(descriptor, self.granted);
        counters.rx_checksum_good += u64::from(meta.checksum == RxChecksum::Good);
        counters.rx_checksum_bad += u64::from(meta.checksum == RxChecksum::Bad);
        burst.finish_frame(meta);
        true
    }

    /// Drops the frame that the descriptor belongs to, once, up to its end.
    #[cold]
    fn give_up(&mut self, ends: bool, counters: &mut QueueCounters) {
        if !self.skipping {
            counters.rx_malformed += 1;
            self.partial.clear();
        }
        self.skipping = !ends;
    }

    /// Posts slots if a batch of descriptors is free; gives the new tail if there is one. A pool
    /// without slots leaves descriptors empty, and is counted.
    pub(crate) fn refill(&mut self, counters: &mut QueueCounters) -> Option<u16> {
        // One descriptor stays empty: with RDT = RDH the ring is empty, not full (82576 §7.1.9).
        let free = self.ring.len() - 1 - self.owned();
        if free < REFILL_BATCH.min(self.ring.len() / 2) && !self.starved || free == 0 {
            return None;
        }
        let before = self.fill;
        self.starved = false;
        for _ in 0..free {
            let Some(slot) = self.pool.alloc().and_then(|slot| self.pool.post(slot).ok()) else {
                self.starved = true;
                counters.rx_no_buffer += 1;
                break;
            };
            let offset = self.pool.region_offset_of(slot.index(), 0);
            self.ring.write(self.fill, F::rx_free(self.pool_iova + offset as u64));
            let at = self.at(self.fill);
            self.posted[at] = Some(slot);
            self.fill = self.fill.wrapping_add(1);
        }
        (self.fill != before).then(|| self.fill & (self.ring.len() - 1))
    }

    /// Takes every slot back. Only when the device has been stopped.
    pub(crate) fn abandon(&mut self) {
        for slot in self.posted.iter_mut().filter_map(Option::take) {
            drop(self.pool.complete(slot, 0));
        }
        self.partial.clear();
        self.next = self.fill;
    }
}
