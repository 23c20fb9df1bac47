//! The receive ring: slots posted to the device, completed by DD, in any descriptor format.
//!
//! ```text
//!            next                          fill = RDT
//!   ─────────┼──────────────────────────────┼─────────── descriptors, one always empty
//!   finished │ posted: the device's         │ ours
//!            └─ DD? fence, take the slot    └─ post, write; one RDT a burst
//! ```

use std::hint::cold_path;
use std::marker::PhantomData;

use arrayvec::ArrayVec;

use super::format::{self, Format, RxMask};
use super::nic::Quiet;
use crate::barrier;
use crate::bus::Iova;
use crate::device::{Features, QueueCounters, RxBurst, RxChecksum};
use crate::mem::{PacketSlice, Pool, PostedSlots};
use crate::ring::{Descriptor, Descriptors, Run};

/// Free descriptors from which on a ring is filled again, if it is long enough: a tail write is
/// worth a burst.
const REFILL_BATCH: u16 = 32;

/// Most descriptors that one frame may span: 9,234 bytes (the largest frame of these families) in
/// slots of 2 KiB take five.
const MAX_SEGMENTS: usize = 8;

/// Shortest frame with a whole Ethernet header.
const ETHERNET_LEN: u16 = 14;

/// One receive ring. Indices run freely and are masked where they are used.
#[derive(Debug)]
pub(crate) struct RxRing<F> {
    ring: Descriptors,
    posted: PostedSlots,
    pool_iova: u64,
    /// Bytes that the device may write into a slot: a whole number of KiB, without headroom.
    buffer_len: u16,
    mask: RxMask,
    /// Next descriptor that the device finishes.
    next: u16,
    /// Segments of a frame of which the last descriptor is not finished yet.
    partial: ArrayVec<PacketSlice, MAX_SEGMENTS>,
    /// The frame that goes on here has been given up: wait for its end.
    skipping: bool,
    /// One of the two: `next` is not where a frame begins.
    amid: bool,
    /// Free descriptors from which on the ring is filled again.
    refill_from: usize,
    /// The last attempt to fill the ring found the pool empty.
    starved: bool,
    format: PhantomData<F>,
}

impl<F: Format> RxRing<F> {
    pub(crate) fn new(ring: Descriptors, pool: &Pool, pool_iova: Iova, granted: Features) -> Self {
        RxRing {
            posted: PostedSlots::new(pool, ring.len()),
            refill_from: usize::from(REFILL_BATCH.min(ring.len() / 2)),
            ring,
            pool_iova: pool_iova.0,
            buffer_len: pool.slot_len() as u16,
            mask: RxMask::of(granted),
            next: 0,
            partial: ArrayVec::new(),
            skipping: false,
            amid: false,
            starved: false,
            format: PhantomData,
        }
    }

    /// True while too few slots were free to fill the ring.
    pub(crate) fn starved(&self) -> bool {
        self.starved
    }

    /// True if a descriptor has been finished.
    pub(crate) fn ready(&self) -> bool {
        !self.posted.is_empty() && format::rx_done(self.ring.status(self.next))
    }

    /// Appends at most `max` frames to the burst. Looks at no more descriptors than the device
    /// owns, however many malformed frames they hold.
    pub(crate) fn receive(
        &mut self,
        burst: &mut RxBurst,
        max: usize,
        counters: &mut QueueCounters,
    ) -> usize {
        let before = burst.len();
        if max > 0 && !self.amid {
            self.receive_run(burst, max, counters);
        }
        if burst.len() - before < max && self.ready() {
            self.receive_rest(burst, before + max, counters);
        }
        let received = burst.len() - before;
        counters.rx_frames += received as u64;
        received
    }

    /// Goes on behind a run that something else ended than the last finished descriptor: the ring's
    /// end, or a descriptor that is not a frame by itself. At most up to `full` frames in the burst.
    #[inline(never)]
    fn receive_rest(&mut self, burst: &mut RxBurst, full: usize, counters: &mut QueueCounters) {
        while burst.len() < full && self.ready() {
            let before = self.next;
            if !self.amid {
                self.receive_run(burst, full - burst.len(), counters);
            }
            if self.next == before {
                self.receive_part(burst, counters);
            }
        }
    }

    /// Takes descriptors that are each a sound frame, as long as the next one is, up to the ring's
    /// end.
    #[inline]
    fn receive_run(&mut self, burst: &mut RxBurst, most: usize, counters: &mut QueueCounters) {
        let descriptors = self.ring.run(self.next, most);
        let (lens, mask) = (ETHERNET_LEN..=self.buffer_len, self.mask);
        let mut all_plain = true;
        let filled = |descriptor: Descriptor<'_>| {
            // DD and the length are in the same word, which is loaded once: an aligned word is
            // written and read as a whole, so that no barrier is due between the two.
            let difference = mask.difference(descriptor.status());
            if !mask.is_plain(difference) {
                cold_path();
                if !RxMask::is_whole(difference) {
                    return None;
                }
                all_plain = false;
            }
            Some(format::rx_len(difference))
        };
        // SAFETY: a plain or whole descriptor has DD set, by which the device says that it has finished
        // with the slot; the run begins with the descriptor of the oldest slot.
        let run = unsafe { self.posted.complete(descriptors, lens, burst.segments_mut(), filled) };
        // The device stores packet and descriptor first and DD last (82576 §7.1.5): orders the loads
        // of DD above, all of them, before the loads of the first words below and of the packets.
        barrier::acquire_descriptor();
        // What is read here decides about nothing but itself: the lengths are settled.
        let descriptors = self.ring.run(self.next, run);
        // Each verdict has a loop of its own, in which it is a constant as the other fields are.
        let bytes = match mask.plain_verdict() {
            _ if !all_plain => Self::describe_mixed(burst, descriptors, &mask, counters),
            RxChecksum::Good => {
                counters.rx_checksum_good += run as u64;
                burst.finish_singles(descriptors, |descriptor| {
                    mask.plain_meta(RxChecksum::Good, descriptor.first())
                })
            }
            RxChecksum::Unknown | RxChecksum::Bad => burst
                .finish_singles(descriptors, |descriptor| {
                    mask.plain_meta(RxChecksum::Unknown, descriptor.first())
                }),
        };
        counters.rx_bytes += bytes;
        self.next = self.next.wrapping_add(run as u16);
    }

    /// Ends the frames that have been taken from these descriptors, one each, not all of them plain;
    /// gives their bytes.
    #[inline(never)]
    fn describe_mixed(
        burst: &mut RxBurst,
        descriptors: Run<'_>,
        mask: &RxMask,
        counters: &mut QueueCounters,
    ) -> u64 {
        burst.finish_singles(descriptors, |descriptor| {
            let meta = format::rx_meta([descriptor.first(), descriptor.status()], mask);
            count_verdict(meta.checksum, counters);
            meta
        })
    }

    /// Takes one finished descriptor that is not a whole, sound frame by itself.
    #[cold]
    fn receive_part(&mut self, burst: &mut RxBurst, counters: &mut QueueCounters) {
        let status = self.ring.status(self.next);
        // As in `receive_run`.
        barrier::acquire_descriptor();
        let descriptor = [self.ring.read(self.next)[0], status];
        self.next = self.next.wrapping_add(1);
        let (len, ends) = (format::rx_len(status), format::rx_ends(status));
        let mut segment = Vec::with_capacity(1);
        // A length that is a lie is cut to the buffer before the frame is given up.
        let cut = len.min(self.buffer_len);
        // SAFETY: `ready` has seen DD in the descriptor of the oldest slot.
        unsafe {
            self.posted.complete(0..1, 0..=self.buffer_len, &mut segment, |_| Some(cut));
        }
        // `ready` has seen that there is a slot.
        let Some(segment) = segment.pop() else { return };
        let bogus = len == 0 || len > self.buffer_len || format::rx_damaged(status);
        let runt = ends && self.partial.is_empty() && len < ETHERNET_LEN;
        // Room for the last one is kept.
        let full = !ends && self.partial.len() + 1 == MAX_SEGMENTS;
        if self.skipping || bogus || runt || full {
            return self.give_up(ends, counters);
        }
        self.amid = !ends;
        if !ends {
            self.partial.push(segment);
            return;
        }
        self.partial.push(segment);
        for segment in self.partial.drain(..) {
            counters.rx_bytes += segment.len() as u64;
            burst.push_segment(segment);
        }
        let meta = format::rx_meta(descriptor, &self.mask);
        count_verdict(meta.checksum, counters);
        burst.finish_frame(meta);
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
    #[inline]
    pub(crate) fn refill(&mut self, counters: &mut QueueCounters) -> Option<u16> {
        // One descriptor stays empty: with RDT = RDH the ring is empty, not full (82576 §7.1.9).
        let free = usize::from(self.ring.len()) - 1 - self.posted.len();
        if free < self.refill_from && (!self.starved || free == 0) {
            return None;
        }
        self.fill(free, counters)
    }

    /// Posts slots for all of the free descriptors.
    #[inline(never)]
    fn fill(&mut self, free: usize, counters: &mut QueueCounters) -> Option<u16> {
        let tail = self.next.wrapping_add(self.posted.len() as u16);
        let straight = self.ring.run(tail, free).len();
        let mut posted = self.fill_run(tail, straight);
        if posted == straight && posted < free {
            // Behind the ring's end it goes on at its beginning.
            posted += self.fill_run(tail.wrapping_add(posted as u16), free - posted);
        }
        self.starved = posted < free;
        counters.rx_no_buffer += u64::from(self.starved);
        (posted > 0).then(|| tail.wrapping_add(posted as u16) & (self.ring.len() - 1))
    }

    /// Posts slots for at most `most` descriptors from `at` on, up to the ring's end.
    #[inline]
    fn fill_run(&mut self, at: u16, most: usize) -> usize {
        let pool_iova = self.pool_iova;
        self.posted.post(self.ring.run(at, most), |descriptor, offset| {
            // SAFETY: from `at` on the descriptors are ours, the tail being there; the slot has just
            // been posted for this one.
            unsafe { descriptor.write(F::rx_free(pool_iova + offset as u64)) };
        })
    }

    /// Takes every slot back, and begins anew at the ring's first descriptor.
    pub(crate) fn abandon(&mut self, _quiet: &Quiet) {
        // SAFETY: there is a `Quiet` only after the queue has been stopped, or its device cut off.
        unsafe { self.posted.abandon() };
        self.partial.clear();
        (self.next, self.skipping, self.amid, self.starved) = (0, false, false, false);
    }
}

fn count_verdict(verdict: RxChecksum, counters: &mut QueueCounters) {
    match verdict {
        RxChecksum::Good => counters.rx_checksum_good += 1,
        RxChecksum::Bad => counters.rx_checksum_bad += 1,
        RxChecksum::Unknown => {}
    }
}
