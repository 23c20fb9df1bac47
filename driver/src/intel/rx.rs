//! The receive ring: slots posted to the device, completed by DD, in any descriptor format.
//!
//! ```text
//!            next                          fill = RDT
//!   ─────────┼──────────────────────────────┼─────────── descriptors, one always empty
//!   finished │ posted: the device's         │ ours
//!            └─ DD? fence, take the slot    └─ post, write; one RDT a burst
//! ```

use std::marker::PhantomData;

use arrayvec::ArrayVec;

use super::format::{self, Format, RxMask};
use crate::barrier;
use crate::bus::Iova;
use crate::device::{Features, QueueCounters, RxBurst, RxChecksum};
use crate::mem::{PacketSlice, Pool, PostedSlots, prefetch_read};
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
    posted: PostedSlots,
    pool_iova: u64,
    /// Bytes that the device may write into a slot: a whole number of KiB, without headroom.
    buffer_len: usize,
    mask: RxMask,
    /// Next descriptor that the device finishes.
    next: u16,
    /// Next descriptor to give to the device.
    fill: u16,
    /// Segments of a frame of which the last descriptor is not finished yet.
    partial: ArrayVec<PacketSlice, MAX_SEGMENTS>,
    /// The frame that goes on here has been given up: wait for its end.
    skipping: bool,
    /// One of the two: `next` is not where a frame begins.
    amid: bool,
    /// The last attempt to fill the ring found the pool empty.
    starved: bool,
    format: PhantomData<F>,
}

impl<F: Format> RxRing<F> {
    pub(crate) fn new(ring: Descriptors, pool: &Pool, pool_iova: Iova, granted: Features) -> Self {
        RxRing {
            posted: PostedSlots::new(pool, ring.len()),
            ring,
            pool_iova: pool_iova.0,
            buffer_len: pool.slot_len(),
            mask: RxMask::of(granted),
            next: 0,
            fill: 0,
            partial: ArrayVec::new(),
            skipping: false,
            amid: false,
            starved: false,
            format: PhantomData,
        }
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

    /// Appends at most `max` frames to the burst. Looks at no more descriptors than the device
    /// owns, however many malformed frames they hold.
    pub(crate) fn receive(
        &mut self,
        burst: &mut RxBurst,
        max: usize,
        counters: &mut QueueCounters,
    ) -> usize {
        let (mut received, mut bytes, mut verdicts) = (0, 0, Verdicts::default());
        while received < max && self.next != self.fill {
            let index = self.next;
            if !format::rx_done(self.ring.status(index)) {
                break;
            }
            // Orders the load of DD above before the loads of the descriptor and the packet: the
            // device wrote DD last (82576 §7.1.5).
            barrier::acquire_descriptor();
            let descriptor = self.ring.read(index);
            self.next = index.wrapping_add(1);
            let len = format::rx_len(descriptor);
            let Some(segment) = self.posted.complete(index, len) else {
                // Every descriptor between `next` and `fill` has a slot.
                debug_assert!(false, "a descriptor without a slot");
                continue;
            };
            let fits = (ETHERNET_LEN..=self.buffer_len).contains(&len);
            if self.amid || !fits || !format::rx_whole(descriptor) {
                match self.join(segment, descriptor, burst, counters) {
                    Some(earlier) => bytes += earlier,
                    None => continue,
                }
            } else {
                prefetch_read(&segment);
                burst.push_segment(segment);
            }
            let meta = format::rx_meta(descriptor, self.mask);
            burst.finish_frame(meta);
            received += 1;
            bytes += len;
            verdicts.add(meta.checksum);
        }
        counters.rx_frames += received as u64;
        counters.rx_bytes += bytes as u64;
        counters.rx_checksum_good += verdicts.good;
        counters.rx_checksum_bad += verdicts.bad;
        received
    }

    /// Takes a segment that is not a whole, sound frame by itself. If it ends a frame, the burst
    /// has all of its segments then; gives the bytes of those before.
    #[cold]
    fn join(
        &mut self,
        segment: PacketSlice,
        descriptor: [u64; 2],
        burst: &mut RxBurst,
        counters: &mut QueueCounters,
    ) -> Option<usize> {
        let (len, ends) = (format::rx_len(descriptor), format::rx_ends(descriptor));
        let bogus = len == 0 || len > self.buffer_len || format::rx_damaged(descriptor);
        let runt = ends && self.partial.is_empty() && len < ETHERNET_LEN;
        let full = !ends && self.partial.is_full();
        if self.skipping || bogus || runt || full {
            self.give_up(ends, counters);
            return None;
        }
        self.amid = !ends;
        if !ends {
            self.partial.push(segment);
            return None;
        }
        let mut earlier_bytes = 0;
        for earlier in self.partial.drain(..) {
            earlier_bytes += earlier.len();
            burst.push_segment(earlier);
        }
        burst.push_segment(segment);
        Some(earlier_bytes)
    }

    /// Drops the frame that the descriptor belongs to, once, up to its end.
    fn give_up(&mut self, ends: bool, counters: &mut QueueCounters) {
        if !self.skipping {
            counters.rx_malformed += 1;
            self.partial.clear();
        }
        self.skipping = !ends;
        self.amid = !ends;
    }

    /// Posts slots if a batch of descriptors is free; gives the new tail if there is one. A pool
    /// without slots leaves descriptors empty, and is counted.
    pub(crate) fn refill(&mut self, counters: &mut QueueCounters) -> Option<u16> {
        // One descriptor stays empty: with RDT = RDH the ring is empty, not full (82576 §7.1.9).
        let free = self.ring.len() - 1 - self.owned();
        if free < REFILL_BATCH.min(self.ring.len() / 2) && !self.starved || free == 0 {
            return None;
        }
        let (ring, pool_iova) = (&self.ring, self.pool_iova);
        let posted = self.posted.post(self.fill, free, |index, offset| {
            ring.write(index, F::rx_free(pool_iova + offset as u64));
        });
        self.starved = posted < free;
        counters.rx_no_buffer += u64::from(self.starved);
        self.fill = self.fill.wrapping_add(posted);
        (posted > 0).then(|| self.fill & (self.ring.len() - 1))
    }

    /// Takes every slot back. Only when the device has been stopped.
    pub(crate) fn abandon(&mut self) {
        self.posted.abandon();
        self.partial.clear();
        self.next = self.fill;
    }
}

/// Verdicts of the device on the frames of one burst.
#[derive(Default)]
struct Verdicts {
    good: u64,
    bad: u64,
}

impl Verdicts {
    #[inline]
    fn add(&mut self, checksum: RxChecksum) {
        match checksum {
            RxChecksum::Unknown => {}
            RxChecksum::Good => self.good += 1,
            RxChecksum::Bad => self.bad += 1,
        }
    }
}
