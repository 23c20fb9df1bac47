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
//! for all before it, and so one that got lost is made good by the next, and several in a row by the
//! first behind them, for which the queue looks when the ring is full and before it sleeps.

use std::collections::VecDeque;
use std::marker::PhantomData;

use super::format::{Format, MIN_TX_FRAME, Offload, Refused, tx};
use super::nic::Quiet;
use crate::barrier;
use crate::bus::Iova;
use crate::device::{Features, QueueCounters, Segments, TxBurst, TxChecksum, TxFrame};
use crate::mem::{PacketSlice, Pool, QueuedSlots};
use crate::ring::{Descriptors, HeaderArea};

/// Shortest frame of one segment.
const SIMPLE_MIN: u16 = MIN_TX_FRAME as u16;

/// Most segments in one sent frame.
const MAX_SEGMENTS: u16 = 40;

/// Descriptors from one report to the next.
const REPORT_EVERY: u16 = 32;

/// Descriptors that a frame takes beyond one for each segment: its context, and the headers of a
/// frame that is cut up.
const EXTRA_DESCRIPTORS: u16 = 2;

/// Most segments in one frame for a ring of `ring_len` descriptors: what fits it when it is empty.
pub(crate) fn max_segments(ring_len: u16) -> u16 {
    MAX_SEGMENTS.min(ring_len - 1 - EXTRA_DESCRIPTORS)
}

/// A descriptor with RS.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// The index behind it.
    end: u16,
    /// Frames and slices up to there, since the ring was made.
    frames: usize,
    slices: usize,
}

/// One transmit ring. Indices run freely and are masked where they are used.
#[derive(Debug)]
pub(crate) struct TxRing<F> {
    ring: Descriptors,
    headers: HeaderArea,
    headers_iova: u64,
    queued: QueuedSlots,
    pool_iova: u64,
    granted: Features,
    /// Most bytes of a frame that is not cut up, and of one that is.
    max_frame: u32,
    max_tso: u32,
    /// The same for a frame of one segment.
    simple_max: u16,
    /// The second word of a descriptor that holds a frame to be sent as it is: without its length,
    /// and what each of its bytes adds.
    simple: [u64; 2],
    /// Which of the device's contexts is this queue's.
    context_index: u8,
    /// No other queue changes it.
    context_lasts: bool,
    /// What the device's context holds, as far as that is known.
    context: Option<[u64; 2]>,
    /// Next descriptor to write.
    next: u16,
    /// Oldest descriptor that the device has not reported.
    clean: u16,
    /// Reports that are awaited. Never more than there are descriptors, so it never grows.
    marks: VecDeque<Mark>,
    /// Where the last mark ends.
    marked: u16,
    /// Frames put on the ring, and frames that the device has reported, since the ring was made.
    sent: usize,
    reported: usize,
    format: PhantomData<F>,
}

/// Where a transmit ring's memory is for the device, and what it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TxLimits {
    pub(crate) max_frame: u32,
    pub(crate) max_tso: u32,
    pub(crate) context_index: u8,
    /// False if queues share the device's context.
    pub(crate) context_lasts: bool,
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
        let plain = F::template(&Offload::default(), 0, limits.context_index);
        TxRing {
            headers_iova,
            headers,
            queued: QueuedSlots::new(pool.0, ring.len()),
            marks: VecDeque::with_capacity(usize::from(ring.len())),
            ring,
            pool_iova: pool.1.0,
            granted,
            max_frame: limits.max_frame,
            max_tso: limits.max_tso,
            simple_max: u16::try_from(limits.max_frame).unwrap_or(u16::MAX),
            simple: [plain | tx::EOP, F::PLAIN_BYTE],
            context_index: limits.context_index,
            context_lasts: limits.context_lasts,
            context: None,
            next: 0,
            clean: 0,
            marked: 0,
            sent: 0,
            reported: 0,
            format: PhantomData,
        }
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
        self.sent.wrapping_sub(self.reported)
    }

    /// Frames reported since the ring was made.
    pub(crate) fn reported(&self) -> usize {
        self.reported
    }

    /// Puts frames on the ring until it is full; gives their number and the new tail, if it moved.
    pub(crate) fn send(
        &mut self,
        burst: &mut TxBurst,
        counters: &mut QueueCounters,
    ) -> (usize, Option<u16>) {
        let (before, sent_before) = (self.next, self.sent);
        let fitting = match self.surely_fits(burst) {
            true => burst.len(),
            false => self.make_room(burst, counters),
        };
        let simple = fitting.min(burst.simple_len());
        let mut bytes = self.send_simple(burst, simple);
        if fitting > simple {
            bytes += self.send_others(burst, fitting - simple);
        }
        let sent = self.sent.wrapping_sub(sent_before);
        counters.tx_frames += sent as u64;
        counters.tx_errors += (fitting - sent) as u64;
        counters.tx_bytes += bytes;
        if self.next == before {
            return (sent, None);
        }
        if self.marked != self.next {
            self.mark();
        }
        (sent, Some(self.next & (self.ring.len() - 1)))
    }

    /// True if the ring has room for the whole burst, whatever its frames need.
    #[inline]
    fn surely_fits(&self, burst: &TxBurst) -> bool {
        let most = burst.segments_len() + burst.len() * usize::from(EXTRA_DESCRIPTORS);
        most <= usize::from(self.free())
    }

    /// How many frames from the front of the burst the ring has room for, once it has let go of what
    /// it can; counts if not all have.
    #[inline(never)]
    fn make_room(&mut self, burst: &TxBurst, counters: &mut QueueCounters) -> usize {
        let mut fitting = self.fitting(burst);
        if fitting < burst.len() && self.reclaim() > 0 {
            fitting = self.fitting(burst);
        }
        counters.tx_full += u64::from(fitting < burst.len());
        fitting
    }

    /// How many frames from the front of the burst the ring has room for now.
    fn fitting(&self, burst: &TxBurst) -> usize {
        let mut free = usize::from(self.free());
        let fits = |(frame, _): &(&TxFrame, &[PacketSlice])| {
            let context = frame.checksum != TxChecksum::Complete || frame.vlan.is_some();
            let extra = usize::from(context) + usize::from(frame.tso_mss > 0);
            // A frame of more segments than the ring takes is refused, not waited for.
            let needed = usize::from(frame.count.min(max_segments(self.ring.len()))) + extra;
            free.checked_sub(needed).map(|left| free = left).is_some()
        };
        burst.iter().take_while(fits).count()
    }

    /// Puts the first `count` frames on the ring, which has room for them, of which each is one
    /// segment, to be sent as it is; gives their bytes.
    #[inline]
    fn send_simple(&mut self, burst: &mut TxBurst, count: usize) -> u64 {
        let (pool_iova, [command, byte]) = (self.pool_iova, self.simple);
        let (mut left, mut bytes) = (count, 0);
        while left > 0 {
            // A run ends where a report is due, and at the ring's end.
            let due = REPORT_EVERY - self.next.wrapping_sub(self.marked);
            let run = self.ring.run(self.next, left.min(usize::from(due)));
            let (segments, lens) = (burst.take_simple(run.len()), SIMPLE_MIN..=self.simple_max);
            let put = self.queued.put_front(segments, run, lens, |descriptor, offset, len| {
                bytes += len;
                // SAFETY: from `next` on the descriptors are ours, the tail being there; the slice is in
                // the table, and slices do not change.
                unsafe { descriptor.write([pool_iova + offset as u64, command + len * byte]) };
            });
            left -= run.len();
            self.next = self.next.wrapping_add(put as u16);
            self.end_frames(put);
        }
        bytes
    }

    /// Puts the first `count` frames of any kind on the ring, which has room for them; gives the
    /// bytes of those that are not refused.
    #[inline(never)]
    fn send_others(&mut self, burst: &mut TxBurst, count: usize) -> u64 {
        let mut bytes = 0;
        burst.drain_front(count, |frame, segments| {
            if self.send_frame(frame, segments).is_ok() {
                bytes += u64::from(frame.len);
            }
        });
        bytes
    }

    /// Puts one frame of any kind on the ring, which has room for it. A refused one leaves the ring
    /// as it was.
    fn send_frame(&mut self, frame: &TxFrame, segments: Segments<'_, '_>) -> Result<(), Refused> {
        let parts = segments.as_slice();
        let first = parts.first().ok_or(Refused)?;
        let limit = if frame.tso_mss > 0 { self.max_tso } else { self.max_frame };
        let foreign = parts.iter().any(|segment| !segment.is_of(self.queued.pool()));
        let scattered = frame.count > max_segments(self.ring.len());
        if !(MIN_TX_FRAME..=limit).contains(&frame.len) || scattered || foreign {
            return Err(Refused);
        }
        let offload = Offload::of(frame, first, self.granted)?;
        if let Some(context) = F::context(&offload, self.context_index)
            && self.context != Some(context)
        {
            // SAFETY: `next` is ours, as there is room for the frame; a context names no memory.
            unsafe { self.ring.write(self.next, context) };
            let lasts = self.context_lasts && F::spares_context(&offload);
            self.context = lasts.then_some(context);
            self.next = self.next.wrapping_add(1);
        }
        let template = F::template(&offload, frame.len, self.context_index);
        let mut skip = 0;
        if offload.mss > 0 {
            let (headers, len) = offload.segment_headers(first);
            self.headers.write(self.next, &headers[..len]);
            let place = self.headers.offset_of(self.next) - self.headers.offset_of(0);
            let descriptor = [self.headers_iova + place as u64, template | len as u64];
            // SAFETY: as above; the header's place is this descriptor's and changes with it only.
            unsafe { self.ring.write(self.next, descriptor) };
            self.next = self.next.wrapping_add(1);
            skip = len;
        }
        // A descriptor without bytes is an error to some devices (82576 §7.2.2.3.2).
        let (ring, pool_iova) = (&self.ring, self.pool_iova);
        let mut next = self.next;
        let pieces = segments.map(|mut segment| {
            segment.advance(std::mem::take(&mut skip));
            segment
        });
        self.queued.put(pieces, 1..=u16::MAX, |offset, len| {
            // SAFETY: as above; the slice is in the table, and slices do not change.
            unsafe { ring.write(next, [pool_iova + offset as u64, template | u64::from(len)]) };
            next = next.wrapping_add(1);
        });
        self.next = next;
        // SAFETY: the descriptor was written just now, and the tail has not passed it.
        unsafe { self.ring.set(self.next.wrapping_sub(1), tx::EOP) };
        self.end_frames(1);
        Ok(())
    }

    /// Counts frames of which the last descriptor has been written.
    #[inline]
    fn end_frames(&mut self, count: usize) {
        self.sent = self.sent.wrapping_add(count);
        if self.next.wrapping_sub(self.marked) >= REPORT_EVERY {
            self.mark();
        }
    }

    /// Asks for a report at the last descriptor written, the end of a frame.
    fn mark(&mut self) {
        // SAFETY: it was written since the last tail, which moves behind it only after this.
        unsafe { self.ring.set(self.next.wrapping_sub(1), tx::RS) };
        self.marks.push_back(Mark { end: self.next, frames: self.sent, slices: self.queued.end() });
        self.marked = self.next;
    }

    fn is_reported(&self, mark: usize) -> bool {
        let last = self.marks.get(mark).map(|mark| mark.end.wrapping_sub(1));
        last.is_some_and(|last| self.ring.status(last) & tx::DD != 0)
    }

    /// Lets go of what the device has reported; gives the number of frames.
    pub(crate) fn reclaim(&mut self) -> usize {
        let mut last = None;
        // A report speaks for all before it, so that one that got lost does not stop the ring; for
        // more in a row there is `reclaim_past_lost`.
        while self.is_reported(0) || self.is_reported(1) {
            last = self.marks.pop_front();
        }
        last.map_or(0, |mark| self.let_go(mark))
    }

    /// The same past any number of lost reports in a row. Looks at every mark that is awaited, up to
    /// the ring's length: for when nothing else goes on, not for every burst.
    #[cold]
    pub(crate) fn reclaim_past_lost(&mut self) -> usize {
        let Some(last) = (0..self.marks.len()).rev().find(|&mark| self.is_reported(mark)) else {
            return 0;
        };
        let mark = self.marks.drain(..=last).next_back();
        mark.map_or(0, |mark| self.let_go(mark))
    }

    /// Lets go of everything up to a mark that the device has reported.
    #[inline]
    fn let_go(&mut self, mark: Mark) -> usize {
        // Orders the loads of DD before the reuse of what they speak for.
        barrier::acquire_descriptor();
        self.queued.release_to(mark.slices);
        let before = std::mem::replace(&mut self.reported, mark.frames);
        self.clean = mark.end;
        mark.frames.wrapping_sub(before)
    }

    /// Lets go of everything, and begins anew at the ring's first descriptor.
    pub(crate) fn abandon(&mut self, _quiet: &Quiet) {
        self.queued.abandon();
        self.marks.clear();
        (self.next, self.clean, self.marked, self.reported) = (0, 0, 0, self.sent);
        self.context = None;
    }
}
