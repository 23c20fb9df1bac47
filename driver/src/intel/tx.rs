//! The transmit ring: slices handed to the device, let go of when it reports, in any format.
//!
//! ```text
//!            clean              next = TDT
//!   ─────────┼──────────────────┼──────────────── descriptors, one always empty
//!     ours   │ the device's     │ ours
//!            └─ marks: the descriptors with RS, where the device reports by DD
//! ```
//!
//! Reports are asked for every 32 descriptors and at the end of every burst, so that a quiet
//! sender's memory comes back, too. A device finishes descriptors in order: a report also speaks
//! for all before it, and so one that got lost is made good by the next.

use std::collections::VecDeque;
use std::marker::PhantomData;

use super::format::{Format, MIN_TX_FRAME, Offload, tx};
use crate::barrier;
use crate::bus::Iova;
use crate::device::{Features, QueueCounters, TxBurst, TxFrame};
use crate::mem::{PacketSlice, Pool, QueuedSlice};
use crate::ring::{Descriptors, HeaderArea};

/// Most segments in one sent frame.
pub(crate) const MAX_SEGMENTS: u16 = 40;

/// Descriptors from one report to the next.
const REPORT_EVERY: u16 = 32;

/// Descriptors that a frame takes beyond one for each segment: its context, and the headers of a
/// frame that is cut up.
const EXTRA_DESCRIPTORS: u16 = 2;

/// A descriptor with RS.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// The index behind it.
    end: u16,
    /// Frames that it speaks for.
    frames: u32,
}

/// One transmit ring. Indices run freely and are masked where they are used.
#[derive(Debug)]
pub(crate) struct TxRing<F> {
    ring: Descriptors,
    headers: HeaderArea,
    headers_iova: u64,
    queued: Box<[Option<QueuedSlice>]>,
    pool: Pool,
    pool_iova: u64,
    granted: Features,
    /// Most bytes of a frame that is not cut up, and of one that is.
    max_frame: u32,
    max_tso: u32,
    /// Which of the device's contexts is this queue's.
    context_index: u8,
    /// What the device's context holds.
    context: Option<[u64; 2]>,
    /// Next descriptor to write.
    next: u16,
    /// Oldest descriptor that the device has not reported.
    clean: u16,
    /// Reports that are awaited. Never more than there are descriptors, so it never grows.
    marks: VecDeque<Mark>,
    /// Frames and descriptors since the last mark.
    unmarked_frames: u32,
    unmarked: u16,
    /// Frames that the device has not reported.
    pending: usize,
    format: PhantomData<F>,
}

/// Where a transmit ring's memory is for the device, and what it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TxLimits {
    pub(crate) max_frame: u32,
    pub(crate) max_tso: u32,
    pub(crate) context_index: u8,
}

/// Why a frame was not put on the ring.
enum NotSent {
    Full,
    Refused,
}

impl<F: Format> TxRing<F> {
    pub(crate) fn new(
        ring: Descriptors,
        headers: (HeaderArea, Iova),
        pool: (&Pool, Iova),
        granted: Features,
        limits: TxLimits,
    ) -> Self {
        let (headers, base) = headers;
        let headers_iova = base.0 + headers.offset_of(0) as u64;
        TxRing {
            headers_iova,
            headers,
            queued: (0..ring.len()).map(|_| None).collect(),
            marks: VecDeque::with_capacity(usize::from(ring.len())),
            ring,
            pool: pool.0.clone(),
            pool_iova: pool.1.0,
            granted,
            max_frame: limits.max_frame,
            max_tso: limits.max_tso,
            context_index: limits.context_index,
            context: None,
            next: 0,
            clean: 0,
            unmarked_frames: 0,
            unmarked: 0,
            pending: 0,
            format: PhantomData,
        }
    }

    fn at(&self, index: u16) -> usize {
        usize::from(index) & (self.queued.len() - 1)
    }

    /// Free descriptors.
    fn free(&self) -> u16 {
        self.ring.len() - 1 - self.next.wrapping_sub(self.clean)
    }

    /// Frames of one segment that would fit now.
    pub(crate) fn room(&self) -> usize {
        usize::from(self.free() / (1 + EXTRA_DESCRIPTORS))
    }

    /// Frames not yet reported.
    pub(crate) fn pending(&self) -> usize {
        self.pending
    }

    /// Puts frames on the ring until it is full; gives their number and the new tail, if it moved.
    pub(crate) fn send(
        &mut self,
        burst: &mut TxBurst,
        counters: &mut QueueCounters,
    ) -> (usize, Option<u16>) {
        let before = self.next;
        let mut sent = 0;
        while let Some((frame, segments)) = burst.front() {
            match self.send_frame(frame, segments) {
                Ok(()) => {
                    sent += 1;
                    counters.tx_frames += 1;
                    counters.tx_bytes += u64::from(frame.len);
                }
                Err(NotSent::Refused) => counters.tx_errors += 1,
                Err(NotSent::Full) if self.reclaim() > 0 => continue,
                Err(NotSent::Full) => {
                    counters.tx_full += 1;
                    break;
                }
            }
            burst.take_front();
        }
        burst.clear_taken();
        if self.next == before {
            return (sent, None);
        }
        if self.unmarked > 0 {
            self.mark();
        }
        (sent, Some(self.next & (self.ring.len() - 1)))
    }

    fn send_frame(&mut self, frame: &TxFrame, segments: &[PacketSlice]) -> Result<(), NotSent> {
        let Some(first) = segments.first() else { return Err(NotSent::Refused) };
        let limit = if frame.tso_mss > 0 { self.max_tso } else { self.max_frame };
        let foreign = segments.iter().any(|segment| !segment.is_of(&self.pool));
        if frame.len < MIN_TX_FRAME || frame.len > limit || frame.count > MAX_SEGMENTS || foreign {
            return Err(NotSent::Refused);
        }
        let offload = Offload::of(frame, first, self.granted).map_err(|_| NotSent::Refused)?;
        if self.free() < frame.count + EXTRA_DESCRIPTORS {
            return Err(NotSent::Full);
        }
        let start = self.next;
        if let Some(context) = F::context(&offload, self.context_index)
            && self.context != Some(context)
        {
            self.ring.write(self.next, context);
            self.context = Some(context);
            self.next = self.next.wrapping_add(1);
        }
        let template = F::template(&offload, frame.len, self.context_index);
        let mut skip = 0;
        if offload.mss > 0 {
            let (headers, len) = offload.segment_headers(first);
            self.headers.write(self.next, &headers[..len]);
            let place = self.headers.offset_of(self.next) - self.headers.offset_of(0);
            self.ring.write(self.next, [self.headers_iova + place as u64, template | len as u64]);
            self.next = self.next.wrapping_add(1);
            skip = len;
        }
        for segment in segments {
            self.put(segment, std::mem::take(&mut skip), template);
        }
        self.end_frame(start);
        Ok(())
    }

    /// Gives the device one segment, without its first `skip` bytes.
    #[inline]
    fn put(&mut self, segment: &PacketSlice, skip: usize, template: u64) {
        let len = segment.len() - skip;
        // A descriptor without bytes is an error to some devices (82576 §7.2.2.3.2).
        if len == 0 {
            return;
        }
        let iova = self.pool_iova + (segment.region_offset() + skip) as u64;
        self.ring.write(self.next, [iova, template | len as u64]);
        let at = self.at(self.next);
        self.queued[at] = Some(segment.clone().into_queued());
        self.next = self.next.wrapping_add(1);
    }

    /// Marks the last descriptor written as the frame's end.
    #[inline]
    fn end_frame(&mut self, start: u16) {
        self.set_in_last(tx::EOP);
        self.unmarked = self.unmarked.wrapping_add(self.next.wrapping_sub(start));
        self.unmarked_frames += 1;
        self.pending += 1;
        if self.unmarked >= REPORT_EVERY {
            self.mark();
        }
    }

    /// The device does not own the descriptor yet: the tail has not moved.
    fn set_in_last(&mut self, bits: u64) {
        let last = self.next.wrapping_sub(1);
        let [address, command] = self.ring.read(last);
        self.ring.write(last, [address, command | bits]);
    }

    /// Asks for a report at the last descriptor written, the end of a frame.
    fn mark(&mut self) {
        self.set_in_last(tx::RS);
        self.marks.push_back(Mark { end: self.next, frames: self.unmarked_frames });
        (self.unmarked, self.unmarked_frames) = (0, 0);
    }

    fn reported(&self, mark: usize) -> bool {
        let last = self.marks.get(mark).map(|mark| mark.end.wrapping_sub(1));
        last.is_some_and(|last| self.ring.status(last) & tx::DD != 0)
    }

    /// Lets go of what the device has reported; gives the number of frames.
    pub(crate) fn reclaim(&mut self) -> usize {
        let before = self.pending;
        // A report speaks for all before it, so that one that got lost does not stop the ring.
        while self.reported(0) || self.reported(1) {
            let Some(mark) = self.marks.pop_front() else { break };
            // Orders the load of DD before the reuse of what it speaks for.
            barrier::acquire_descriptor();
            self.release_to(mark.end);
            self.pending -= mark.frames as usize;
        }
        before - self.pending
    }

    fn release_to(&mut self, end: u16) {
        while self.clean != end {
            let at = self.at(self.clean);
            self.queued[at] = None;
            self.clean = self.clean.wrapping_add(1);
        }
    }

    /// Lets go of everything. Only when the device has been stopped.
    pub(crate) fn abandon(&mut self) {
        self.release_to(self.next);
        self.marks.clear();
        (self.unmarked, self.unmarked_frames, self.pending) = (0, 0, 0);
    }
}
