//! Bursts: frames on their way between a queue and the stack, many in one call.
//!
//! ```text
//!   rx_burst ─ push ─▶ RxBurst ─ frames, segments: look ─▶ clear
//!                              └ drain: give away ────────▶ stack, or a TxBurst
//!   stack ─ push ─▶ TxBurst ─ drain_front: give away ─────▶ a ring, until the device is done
//!                           └ front, take_front: look ────▶ writev, a copy
//! ```
//!
//! Both are flat arrays that keep their memory: segments, and for each frame how many of them are
//! its own. A slice that moves through is counted neither up nor down.

use std::hint::cold_path;

use crate::device::BURST_FRAMES;
use crate::mem::{PacketSlice, Row, describe};

/// Segments that a new burst has memory for: frames of headers and a payload beside them.
const BURST_SEGMENTS: usize = 2 * BURST_FRAMES;

/// Verdict on the transport checksum of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RxChecksum {
    /// Nobody looked: software has to verify it.
    #[default]
    Unknown,
    /// Verified by the device, or made by a trusted sender that never filled it in.
    Good,
    /// Found wrong by the device.
    Bad,
}

/// One received frame of an [`RxBurst`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxFrame {
    /// Index of its first segment in the burst.
    pub first: u32,
    /// Number of segments.
    pub count: u16,
    /// Verdict on the transport checksum.
    pub checksum: RxChecksum,
    /// Payload bytes of each joined TCP segment, where the device joined several; else 0.
    pub gso_bytes: u16,
    /// Bytes of the whole frame.
    pub len: u32,
    /// The VLAN tag that the device stripped.
    pub vlan: VlanTag,
    /// The device's flow hash.
    pub rss_hash: RssHash,
}

/// A device's flow hash, if it gave one. One word as a descriptor holds it, so that a ring stores
/// it without a look at it: the hash in the upper half, its kind, which is not 0, in the lower.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct RssHash(u64);

impl RssHash {
    /// No hash.
    pub const NONE: RssHash = RssHash(0);

    /// A hash of any kind.
    #[inline]
    pub const fn new(hash: u32) -> RssHash {
        RssHash((hash as u64) << 32 | 1)
    }

    /// From the hash in the upper half and its kind in the lower, 0 if there is none.
    #[inline]
    pub(crate) const fn from_word(word: u64) -> RssHash {
        RssHash(word)
    }

    /// The hash.
    #[inline]
    pub const fn get(self) -> Option<u32> {
        if self.0 as u32 == 0 { None } else { Some((self.0 >> 32) as u32) }
    }
}

impl From<Option<u32>> for RssHash {
    #[inline]
    fn from(hash: Option<u32>) -> RssHash {
        hash.map_or(RssHash::NONE, RssHash::new)
    }
}

impl std::fmt::Debug for RssHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.get().fmt(f)
    }
}

/// A VLAN tag, if there is one: whether there is, and its two bytes. As bytes it needs no place that
/// is aligned, so that a frame's small fields fill one word between them, which is stored at once.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct VlanTag([u8; 3]);

impl VlanTag {
    /// No tag.
    pub const NONE: VlanTag = VlanTag([0; 3]);

    /// Priority and VLAN as the frame had them (IEEE 802.1Q §9.6).
    #[inline]
    pub const fn new(tag: u16) -> VlanTag {
        let [high, low] = tag.to_be_bytes();
        VlanTag([1, high, low])
    }

    /// The tag.
    #[inline]
    pub const fn get(self) -> Option<u16> {
        let VlanTag([there, high, low]) = self;
        if there == 0 { None } else { Some(u16::from_be_bytes([high, low])) }
    }
}

impl From<Option<u16>> for VlanTag {
    #[inline]
    fn from(tag: Option<u16>) -> VlanTag {
        tag.map_or(VlanTag::NONE, VlanTag::new)
    }
}

impl std::fmt::Debug for VlanTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.get().fmt(f)
    }
}

/// Received frames, flat: the segments of all, and where each frame's begin.
///
/// `clear` keeps the memory, so a burst that is reused allocates only while it grows past
/// [`BURST_FRAMES`] frames of two segments each.
#[derive(Debug)]
pub struct RxBurst {
    segments: Vec<PacketSlice>,
    frames: Vec<RxFrame>,
    /// Segments that belong to whole frames.
    whole_segments: usize,
}

impl Default for RxBurst {
    fn default() -> RxBurst {
        RxBurst::new()
    }
}

impl RxBurst {
    /// An empty burst.
    pub fn new() -> RxBurst {
        RxBurst {
            segments: Vec::with_capacity(BURST_SEGMENTS),
            frames: Vec::with_capacity(BURST_FRAMES),
            whole_segments: 0,
        }
    }

    /// Forgets all frames and lets go of their memory.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.frames.clear();
        self.whole_segments = 0;
    }

    /// Adds a segment of the frame that the next [`RxBurst::finish_frame`] ends.
    #[inline]
    pub fn push_segment(&mut self, segment: PacketSlice) {
        self.segments.push(segment);
    }

    /// Ends a frame made of all segments pushed since the last one; `meta`'s `first`, `count` and
    /// `len` are filled in here. Gives its length.
    #[inline]
    pub fn finish_frame(&mut self, meta: RxFrame) -> u32 {
        let (first, count) = (self.whole_segments, self.segments.len() - self.whole_segments);
        let len = frame_len(&self.segments, count);
        self.whole_segments = self.segments.len();
        self.frames.push(RxFrame { first: first as u32, count: count as u16, len, ..meta });
        len
    }

    /// Where a ring appends segments that are each a frame of its own, before it says so with
    /// [`RxBurst::finish_singles`].
    #[inline]
    pub(crate) fn segments_mut(&mut self) -> &mut Vec<PacketSlice> {
        &mut self.segments
    }

    /// Ends as many frames of one segment each as have been appended, with what `meta` gives for
    /// each one's place in the row, which has as many at least; gives their bytes.
    #[inline]
    pub(crate) fn finish_singles<R: Row>(
        &mut self,
        row: R,
        mut meta: impl FnMut(R::Place) -> RxFrame,
    ) -> u64 {
        let (mut first, mut bytes) = (self.whole_segments as u32, 0);
        let segments = &self.segments[self.whole_segments..];
        debug_assert!(segments.len() <= row.len());
        describe(segments, row, &mut self.frames, |segment, place| {
            let len = segment.len() as u32;
            let frame = RxFrame { first, count: 1, len, ..meta(place) };
            first += 1;
            bytes += u64::from(len);
            frame
        });
        self.whole_segments = self.segments.len();
        bytes
    }

    /// Drops the segments pushed since the last whole frame.
    pub fn abandon_frame(&mut self) {
        self.segments.truncate(self.whole_segments);
    }

    /// Keeps only the first `count` frames.
    pub fn truncate_frames(&mut self, count: usize) {
        self.frames.truncate(count);
        self.whole_segments =
            self.frames.last().map_or(0, |last| last.first as usize + usize::from(last.count));
        self.abandon_frame();
    }

    /// Drops the frames from `from` on that `keep` does not want; gives their number and bytes.
    pub fn retain_from(&mut self, from: usize, keep: impl Fn(&RxFrame) -> bool) -> (u64, u64) {
        if self.frames[from..].iter().all(&keep) {
            return (0, 0);
        }
        cold_path();
        let (mut index, mut at, mut count, mut bytes) = (from, 0, 0, 0);
        let (begin, whole) = (self.frames[from].first as usize, self.whole_segments);
        let frames = &self.frames;
        self.segments.retain(|_| {
            let segment = at;
            at += 1;
            if !(begin..whole).contains(&segment) {
                return true;
            }
            while segment >= frames[index].first as usize + usize::from(frames[index].count) {
                index += 1;
            }
            keep(&frames[index])
        });
        let (mut frame, mut first) = (0, begin as u32);
        self.frames.retain_mut(|meta| {
            frame += 1;
            if frame <= from {
                return true;
            }
            if !keep(meta) {
                count += 1;
                bytes += u64::from(meta.len);
                return false;
            }
            meta.first = first;
            first += u32::from(meta.count);
            true
        });
        self.whole_segments = first as usize;
        (count, bytes)
    }

    /// Gives all frames away, in order, each with its segments, and is empty then. A segment that
    /// `take` leaves in its iterator is dropped. Nothing is counted up and down again, as it is
    /// where segments are cloned and the burst cleared.
    #[inline]
    pub fn drain(&mut self, mut take: impl FnMut(&RxFrame, Segments<'_, '_>)) {
        self.abandon_frame();
        self.whole_segments = 0;
        let mut segments = self.segments.drain(..);
        for frame in self.frames.drain(..) {
            take(&frame, Segments { left: usize::from(frame.count), from: &mut segments });
        }
    }

    /// The only frame, if there is one and it is one segment.
    #[inline(always)]
    pub fn only(&self) -> Option<(&RxFrame, &PacketSlice)> {
        match (&self.frames[..], &self.segments[..]) {
            ([frame], [segment]) if self.whole_segments == 1 => Some((frame, segment)),
            _ => None,
        }
    }

    /// Takes the [only](RxBurst::only) frame out: nothing has to be kept of what lies behind it.
    #[inline(always)]
    pub fn take_only(&mut self) -> Option<PacketSlice> {
        self.only()?;
        self.whole_segments = 0;
        self.frames.clear();
        self.segments.pop()
    }

    /// The frames.
    pub fn frames(&self) -> &[RxFrame] {
        &self.frames
    }

    /// Metadata of frame `index`, to be corrected by a middleware.
    pub fn frame_mut(&mut self, index: usize) -> &mut RxFrame {
        &mut self.frames[index]
    }

    /// The segments of a frame of this burst.
    pub fn segments(&self, frame: &RxFrame) -> &[PacketSlice] {
        &self.segments[frame.first as usize..frame.first as usize + frame.count as usize]
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// True without frames.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

/// Bytes of the last `count` segments.
#[inline]
fn frame_len(segments: &[PacketSlice], count: usize) -> u32 {
    match segments {
        [.., only] if count == 1 => only.len() as u32,
        all => all[all.len() - count..].iter().map(|segment| segment.len() as u32).sum(),
    }
}

/// The segments of one frame on their way out of a burst.
#[derive(Debug)]
pub struct Segments<'a, 'b> {
    left: usize,
    from: &'a mut std::vec::Drain<'b, PacketSlice>,
}

impl Segments<'_, '_> {
    /// Those that have not been taken yet.
    #[inline]
    pub fn as_slice(&self) -> &[PacketSlice] {
        &self.from.as_slice()[..self.left]
    }
}

impl Iterator for Segments<'_, '_> {
    type Item = PacketSlice;

    #[inline]
    fn next(&mut self) -> Option<PacketSlice> {
        self.left = self.left.checked_sub(1)?;
        self.from.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl Drop for Segments<'_, '_> {
    /// The next frame begins behind this one, whatever has been taken of it.
    #[inline]
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

/// What is left for the device to do about a transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TxChecksum {
    /// Nothing: the frame is complete.
    #[default]
    Complete,
    /// Sum from byte `start` of the frame to its end and store the result at `start + offset`,
    /// where the pseudo-header's sum stands already.
    Partial {
        /// Offset of the transport header in the frame.
        start: u16,
        /// Offset of the checksum field in the transport header.
        offset: u16,
    },
}

/// One frame to send of a [`TxBurst`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxFrame {
    /// Segments of the frame; the first begins with all headers.
    pub count: u16,
    /// Bytes of the whole frame.
    pub len: u32,
    /// What is left to do about the checksum.
    pub checksum: TxChecksum,
    /// For TSO, payload bytes a wire segment; else 0. With TSO the checksum is `Partial`.
    pub tso_mss: u16,
    /// Bytes of link, network and transport header; needed with TSO.
    pub header_len: u16,
    /// The VLAN tag to insert.
    pub vlan: Option<u16>,
}

impl TxFrame {
    /// True if the frame is to be sent as it is: nothing is left for the device to fill in.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.checksum == TxChecksum::Complete && self.tso_mss == 0 && self.vlan.is_none()
    }
}

/// Frames to send, in order, flat. What a queue did not take stays at the front. Memory is kept as
/// that of a [`RxBurst`].
#[derive(Debug)]
pub struct TxBurst {
    segments: Vec<PacketSlice>,
    frames: Vec<TxFrame>,
    /// Segments and frames at the front that the queue has taken.
    taken_segments: usize,
    taken_frames: usize,
    /// Segments that belong to whole frames.
    whole_segments: usize,
    /// Frames before the first that has several segments or is not [`TxFrame::is_plain`].
    simple_frames: usize,
}

impl Default for TxBurst {
    fn default() -> TxBurst {
        TxBurst::new()
    }
}

impl TxBurst {
    /// An empty burst.
    pub fn new() -> TxBurst {
        TxBurst {
            segments: Vec::with_capacity(BURST_SEGMENTS),
            frames: Vec::with_capacity(BURST_FRAMES),
            taken_segments: 0,
            taken_frames: 0,
            whole_segments: 0,
            simple_frames: 0,
        }
    }

    /// Adds a segment of the frame that the next [`TxBurst::finish_frame`] ends.
    #[inline]
    pub fn push_segment(&mut self, segment: PacketSlice) {
        self.segments.push(segment);
    }

    /// Ends a frame made of all segments pushed since the last one; `meta`'s `count` and `len` are
    /// filled in here.
    #[inline]
    pub fn finish_frame(&mut self, meta: TxFrame) {
        let count = self.segments.len() - self.whole_segments;
        let len = frame_len(&self.segments, count);
        self.whole_segments = self.segments.len();
        if count == 1 && meta.is_plain() && self.simple_frames == self.frames.len() {
            self.simple_frames += 1;
        }
        self.frames.push(TxFrame { count: count as u16, len, ..meta });
    }

    /// Adds a frame of one segment, as [`TxBurst::push_segment`] and [`TxBurst::finish_frame`] do.
    #[inline(always)]
    pub fn push_single(&mut self, segment: PacketSlice, meta: TxFrame) {
        debug_assert_eq!(self.whole_segments, self.segments.len(), "a frame has been begun");
        let len = segment.len() as u32;
        self.segments.push(segment);
        self.whole_segments = self.segments.len();
        if meta.is_plain() && self.simple_frames == self.frames.len() {
            self.simple_frames += 1;
        }
        self.frames.push(TxFrame { count: 1, len, ..meta });
    }

    /// Adds a frame of two segments: headers, and the payload behind them.
    #[inline(always)]
    pub fn push_pair(&mut self, headers: PacketSlice, payload: PacketSlice, meta: TxFrame) {
        debug_assert_eq!(self.whole_segments, self.segments.len(), "a frame has been begun");
        let len = (headers.len() + payload.len()) as u32;
        self.segments.push(headers);
        self.segments.push(payload);
        self.whole_segments = self.segments.len();
        self.frames.push(TxFrame { count: 2, len, ..meta });
    }

    /// Has a VLAN tag inserted into each frame that no queue has taken yet.
    pub fn tag(&mut self, tag: u16) {
        for frame in &mut self.frames[self.taken_frames..] {
            frame.vlan = Some(tag);
        }
        self.simple_frames = self.simple_frames.min(self.taken_frames);
    }

    /// Drops the segments pushed since the last whole frame, when memory for the rest ran out.
    pub fn abandon_frame(&mut self) {
        self.segments.truncate(self.whole_segments);
    }

    /// The first frame that no queue has taken yet, with its segments.
    pub fn front(&self) -> Option<(&TxFrame, &[PacketSlice])> {
        let frame = self.frames.get(self.taken_frames)?;
        let end = self.taken_segments + frame.count as usize;
        Some((frame, &self.segments[self.taken_segments..end]))
    }

    /// Takes the first frame; its segments are dropped with the burst's next compaction. A queue
    /// that keeps them takes them with [`TxBurst::drain_front`].
    pub fn take_front(&mut self) {
        if let Some(frame) = self.frames.get(self.taken_frames) {
            self.taken_segments += frame.count as usize;
            self.taken_frames += 1;
        }
        if self.taken_frames == self.frames.len() {
            self.clear_taken();
        }
    }

    /// Gives the first `count` frames away, in order, each with its segments. A segment that `take`
    /// leaves in its iterator is dropped.
    #[inline]
    pub fn drain_front(&mut self, count: usize, mut take: impl FnMut(&TxFrame, Segments<'_, '_>)) {
        self.clear_taken();
        let whole = self.whole_segments;
        let end = match self.frames.get(..count) {
            Some(front) if count < self.frames.len() => {
                front.iter().map(|frame| usize::from(frame.count)).sum()
            }
            _ => whole,
        };
        self.whole_segments -= end;
        self.simple_frames = self.simple_frames.saturating_sub(count);
        let mut segments = self.segments.drain(..end);
        for frame in self.frames.drain(..count.min(self.frames.len())) {
            take(&frame, Segments { left: usize::from(frame.count), from: &mut segments });
        }
    }

    /// As [`TxBurst::move_to`], of the only frame, if it is one segment, to be sent as it is, of a
    /// length in `fits`, and none has been begun in `to`; gives its length.
    #[inline(always)]
    pub(crate) fn move_only(
        &mut self,
        fits: std::ops::RangeInclusive<u32>,
        to: &mut RxBurst,
    ) -> Option<u32> {
        let [TxFrame { len, .. }] = self.frames[..] else { return None };
        let only = self.simple_frames == 1 && self.taken_frames == 0 && self.segments.len() == 1;
        if !only || !fits.contains(&len) || !to.frames.is_empty() || !to.segments.is_empty() {
            return None;
        }
        std::mem::swap(&mut self.segments, &mut to.segments);
        to.frames.push(RxFrame { count: 1, len, ..RxFrame::default() });
        to.whole_segments = 1;
        self.frames.clear();
        (self.whole_segments, self.simple_frames) = (0, 0);
        Some(len)
    }

    /// Gives all frames away as frames received, for a wire in memory between two hosts of one thread;
    /// `known` says what is known of each: the verdict on its checksum, and [`RxFrame::gso_bytes`]. `to`
    /// is to be empty; the segments change hands in one piece. Gives their bytes; `None`, and all stay,
    /// if nothing is known of one.
    #[inline]
    pub fn move_to(
        &mut self,
        to: &mut RxBurst,
        mut known: impl FnMut(&TxFrame, &[PacketSlice]) -> Option<(RxChecksum, u16)>,
    ) -> Option<u64> {
        self.clear_taken();
        if self.segments.len() > self.whole_segments {
            self.abandon_frame();
        }
        if !to.segments.is_empty() || !to.frames.is_empty() {
            to.clear();
        }
        let (mut first, mut bytes) = (0, 0);
        to.frames.reserve(self.frames.len());
        for frame in &self.frames {
            let TxFrame { count, len, .. } = *frame;
            let segments = self.segments.get(first..first + usize::from(count)).unwrap_or(&[]);
            let Some((checksum, gso_bytes)) = known(frame, segments) else {
                to.frames.clear();
                return None;
            };
            let meta = RxFrame { checksum, gso_bytes, ..RxFrame::default() };
            to.frames.push(RxFrame { first: first as u32, count, len, ..meta });
            first += usize::from(count);
            bytes += u64::from(len);
        }
        std::mem::swap(&mut self.segments, &mut to.segments);
        to.whole_segments = std::mem::take(&mut self.whole_segments);
        self.simple_frames = 0;
        self.frames.clear();
        Some(bytes)
    }

    /// How many frames at the front are one segment each, to be sent as it is.
    #[inline]
    pub(crate) fn simple_len(&self) -> usize {
        self.simple_frames.saturating_sub(self.taken_frames)
    }

    /// Takes the first `count` frames, of which [`TxBurst::simple_len`] says that each is one
    /// segment, and gives the vector that begins with their segments, from which the caller removes
    /// them.
    #[inline]
    pub(crate) fn take_simple(&mut self, count: usize) -> &mut Vec<PacketSlice> {
        self.clear_taken();
        self.simple_frames -= count;
        self.whole_segments -= count;
        if count == self.frames.len() {
            self.frames.clear();
        } else {
            self.frames.drain(..count);
        }
        &mut self.segments
    }

    /// Lets go of everything that has been taken; queues call it once, at the end of a burst.
    #[inline]
    pub fn clear_taken(&mut self) {
        if self.taken_frames > 0 {
            self.compact();
        }
    }

    /// Moves what has not been taken to the front, of which something has been.
    #[inline(never)]
    fn compact(&mut self) {
        if self.taken_segments == self.segments.len() {
            // Nearly always: the queue had room for all of it.
            self.segments.clear();
            self.frames.clear();
        } else {
            self.segments.drain(..self.taken_segments);
            self.frames.drain(..self.taken_frames);
        }
        self.whole_segments -= self.taken_segments;
        self.simple_frames = self.simple_frames.saturating_sub(self.taken_frames);
        (self.taken_segments, self.taken_frames) = (0, 0);
    }

    /// Drops all frames.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.frames.clear();
        (self.taken_segments, self.taken_frames, self.whole_segments) = (0, 0, 0);
        self.simple_frames = 0;
    }

    /// Segments of the frames not yet taken.
    #[inline]
    pub fn segments_len(&self) -> usize {
        self.whole_segments - self.taken_segments
    }

    /// Frames not yet taken.
    #[inline]
    pub fn len(&self) -> usize {
        self.frames.len() - self.taken_frames
    }

    /// True if every frame has been taken.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frames not yet taken, with their segments.
    pub fn iter(&self) -> impl Iterator<Item = (&TxFrame, &[PacketSlice])> {
        let mut at = self.taken_segments;
        self.frames[self.taken_frames..].iter().map(move |frame| {
            let first = at;
            at += frame.count as usize;
            (frame, &self.segments[first..at])
        })
    }
}

#[cfg(test)]
#[path = "burst_tests.rs"]
mod tests;
