//! Buffers of one slot: writable and unique, or shared and immutable.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::HEADROOM;
use super::inner::Inner;
use super::pool::Pool;
use super::remote::RemoteBuf;

/// A range of one slot: what both kinds of buffer are. 16 bytes.
struct Range {
    pool: NonNull<Inner>,
    slot: u32,
    off: u16,
    len: u16,
}

impl Range {
    #[inline]
    fn inner(&self) -> &Inner {
        // SAFETY: a range is a counted reference to a live slot, and live slots keep `Inner` alive.
        unsafe { self.pool.as_ref() }
    }

    #[inline]
    fn ptr(&self) -> *mut u8 {
        // SAFETY: `off + len` never exceeds the slot's length: ranges are made whole by the pool
        // and only ever cut.
        unsafe { self.inner().address(self.slot).add(self.off as usize) }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: the range lies in its slot, in memory that was zeroed when it was mapped. While
        // it exists no device owns the slot, and no writable range overlaps it.
        unsafe { std::slice::from_raw_parts(self.ptr(), self.len as usize) }
    }

    /// A second reference to the same slot, to be given a range of its own.
    #[inline]
    fn another(&self) -> Range {
        self.inner().retain(self.slot);
        Range { pool: self.pool, slot: self.slot, off: self.off, len: self.len }
    }

    #[inline]
    fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.len as usize, "advance past the end of a buffer");
        self.off += bytes as u16;
        self.len -= bytes as u16;
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(u16::try_from(len).unwrap_or(u16::MAX));
    }

    #[inline]
    fn split_to(&mut self, at: usize) -> Range {
        let mut front = self.another();
        self.advance(at);
        front.truncate(at);
        front
    }

    /// Gives up the reference without dropping it.
    #[inline]
    fn into_parts(self) -> (NonNull<Inner>, u32, u16, u16) {
        let this = ManuallyDrop::new(self);
        (this.pool, this.slot, this.off, this.len)
    }

    fn into_remote(self) -> Result<RemoteBuf, Range> {
        if self.inner().refs(self.slot) != 1 {
            return Err(self);
        }
        let (pool, slot, off, len) = self.into_parts();
        // SAFETY: the range was the only reference to its slot and has just been given up.
        let shared = unsafe { Inner::make_remote(pool, slot) };
        Ok(RemoteBuf::from_parts(shared, slot, off, len))
    }
}

impl Drop for Range {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this range was counted when it was made and is given up here, once.
        unsafe { Inner::release(self.pool, self.slot) };
    }
}

/// A unique, writable range of one slot. 16 bytes, not `Send`.
///
/// It derefs to its bytes. Fill the front, cut it off with [`PacketBuf::split_to`], freeze it into
/// a [`PacketSlice`], and go on filling the rest while the front is in flight.
pub struct PacketBuf(Range);

impl PacketBuf {
    #[inline]
    pub(super) fn from_parts(pool: NonNull<Inner>, slot: u32, off: u16, len: u16) -> PacketBuf {
        PacketBuf(Range { pool, slot, off, len })
    }

    /// True if no other buffer or slice refers to the slot.
    #[inline]
    pub fn is_unique(&self) -> bool {
        self.0.inner().refs(self.0.slot) == 1
    }

    /// Cuts the buffer to its first `len` bytes; does nothing if it is not longer.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Cuts `bytes` off the front.
    ///
    /// # Panics
    /// If the buffer has fewer.
    #[inline]
    pub fn advance(&mut self, bytes: usize) {
        self.0.advance(bytes);
    }

    /// Splits off and returns the first `at` bytes; `self` keeps the rest. Both stay writable,
    /// for they do not overlap.
    ///
    /// # Panics
    /// If the buffer has fewer than `at` bytes.
    #[inline]
    pub fn split_to(&mut self, at: usize) -> PacketBuf {
        PacketBuf(self.0.split_to(at))
    }

    /// Makes the buffer immutable and sharable, without a copy.
    #[inline]
    pub fn freeze(self) -> PacketSlice {
        PacketSlice(self.0)
    }

    /// Makes bytes `at..end` immutable, and gives those from `tail_at` on a second time: a frame, and
    /// the payload in it.
    ///
    /// # Panics
    /// If the three places are not in this order, or beyond the buffer.
    #[inline(always)]
    pub fn freeze_with_tail(
        self,
        at: usize,
        tail_at: usize,
        end: usize,
    ) -> (PacketSlice, PacketSlice) {
        assert!(at <= tail_at && tail_at <= end && end <= self.len(), "not within the buffer");
        let mut tail = self.0.another();
        let mut frame = self.0;
        let off = frame.off;
        (frame.off, frame.len) = (off + at as u16, (end - at) as u16);
        (tail.off, tail.len) = (off + tail_at as u16, (end - tail_at) as u16);
        (PacketSlice(frame), PacketSlice(tail))
    }

    /// As [`PacketBuf::freeze`] without the first [`HEADROOM`] bytes, which wait for headers: see
    /// [`PacketSlice::with_headers`].
    ///
    /// # Panics
    /// If the buffer does not begin where its slot does, or is shorter.
    #[inline]
    pub fn freeze_behind_headroom(self) -> PacketSlice {
        assert!(self.0.off == 0 && self.len() >= HEADROOM, "no headroom");
        let mut body = self.0;
        body.advance(HEADROOM);
        // They were this buffer's alone.
        body.inner().leave_headroom(body.slot);
        PacketSlice(body)
    }

    /// Hands the buffer to another thread.
    ///
    /// # Errors
    /// It comes back if something else refers to its slot.
    pub fn into_remote(self) -> Result<RemoteBuf, PacketBuf> {
        self.0.into_remote().map_err(PacketBuf)
    }
}

impl Deref for PacketBuf {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl DerefMut for PacketBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `Range::bytes`; and the range is unique: `PacketBuf` is not `Clone`, and
        // splitting makes disjoint ranges.
        unsafe { std::slice::from_raw_parts_mut(self.0.ptr(), self.0.len as usize) }
    }
}

impl fmt::Debug for PacketBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketBuf(slot {}, {}+{})", self.0.slot, self.0.off, self.0.len)
    }
}

/// A shared, immutable range of one slot. 16 bytes, not `Send`; cloning counts, without atomics.
pub struct PacketSlice(Range);

impl PacketSlice {
    /// Cuts the slice to its first `len` bytes; does nothing if it is not longer.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Cuts `bytes` off the front.
    ///
    /// # Panics
    /// If the slice has fewer.
    #[inline]
    pub fn advance(&mut self, bytes: usize) {
        self.0.advance(bytes);
    }

    /// Cuts the slice to its bytes `range`.
    ///
    /// # Panics
    /// If it has not all of them.
    #[inline(always)]
    pub fn narrow(&mut self, range: std::ops::Range<usize>) {
        let inside = range.start <= range.end && range.end <= self.len();
        assert!(inside, "a range beyond the slice");
        self.0.off += range.start as u16;
        self.0.len = (range.end - range.start) as u16;
    }

    /// Splits off and returns the first `at` bytes; `self` keeps the rest.
    ///
    /// # Panics
    /// If the slice has fewer than `at` bytes.
    #[inline]
    pub fn split_to(&mut self, at: usize) -> PacketSlice {
        PacketSlice(self.0.split_to(at))
    }

    /// A slice of `range`, which must lie within this one.
    ///
    /// # Panics
    /// If it does not.
    #[inline]
    pub fn slice(&self, range: std::ops::Range<usize>) -> PacketSlice {
        assert!(range.end <= self.len(), "a range beyond the slice");
        let mut part = self.clone();
        part.truncate(range.end);
        part.advance(range.start);
        part
    }

    /// Writes headers into the headroom before the slice, and gives both in one slice. `write` is lent
    /// the headroom, with what was in it, and says how many of its last bytes are headers.
    ///
    /// `None`, and nothing is written, if there is no headroom before the slice that was [left
    /// there](PacketBuf::freeze_behind_headroom), or if that has been used already.
    #[inline]
    pub fn with_headers(
        &self,
        write: impl FnOnce(&mut [u8; HEADROOM]) -> usize,
    ) -> Option<PacketSlice> {
        if usize::from(self.0.off) != HEADROOM || !self.0.inner().take_headroom(self.0.slot) {
            return None;
        }
        // SAFETY: the slice begins `HEADROOM` bytes into its slot, so they lie in it. They were left
        // by the only range that covered them, and taken just now, once: no other range covers them
        // before the one that is made below, when the borrow has ended.
        let room = unsafe { &mut *self.0.ptr().sub(HEADROOM).cast::<[u8; HEADROOM]>() };
        let len = write(room).min(HEADROOM);
        let mut whole = self.0.another();
        whole.off -= len as u16;
        whole.len += len as u16;
        Some(PacketSlice(whole))
    }

    /// True if no other buffer or slice refers to the slot.
    #[inline]
    pub fn is_unique(&self) -> bool {
        self.0.inner().refs(self.0.slot) == 1
    }

    /// Copies `bytes` behind the slice, into the part of its slot that nothing uses, and makes them
    /// part of it. False, and nothing is copied, if there is no room for all of them or if something
    /// else refers to the slot.
    ///
    /// Small slices keep large slots from being freed; where many of them wait, joining them costs
    /// a copy and gives the slots back.
    pub fn try_append(&mut self, bytes: &[u8]) -> bool {
        let end = self.0.off as usize + self.0.len as usize;
        let room = self.slot_len() - end;
        if bytes.len() > room || !self.is_unique() {
            return false;
        }
        // What is left for headers is this slice's now, should it begin before them.
        let _was_there = self.0.inner().take_headroom(self.0.slot);
        // SAFETY: `end + bytes.len()` is within the slot, so source and destination are both valid
        // for `bytes.len()` bytes. This slice is the only reference to its slot: no other range
        // covers what is written, no device reads it (`QueuedSlice` would be a reference), and
        // `bytes`, a live borrow, cannot lie in the slot because `self` is borrowed mutably.
        unsafe {
            let behind = self.0.ptr().add(self.0.len as usize);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), behind, bytes.len());
        }
        self.0.len += bytes.len() as u16;
        true
    }

    /// Hands the slice to another thread, writable there.
    ///
    /// # Errors
    /// It comes back if something else refers to its slot.
    pub fn into_remote(self) -> Result<RemoteBuf, PacketSlice> {
        self.0.into_remote().map_err(PacketSlice)
    }

    /// Bytes of the slot that this slice keeps from being freed: what a small slice really costs.
    #[inline]
    pub fn slot_len(&self) -> usize {
        self.0.inner().capacity_of(self.0.slot)
    }

    #[inline]
    pub(super) fn is_in(&self, pool: NonNull<Inner>) -> bool {
        self.0.pool == pool
    }

    /// The slot, and where in it the slice begins.
    #[inline]
    pub(super) fn place(&self) -> (u32, usize) {
        (self.0.slot, usize::from(self.0.off))
    }

    /// Gives up the slice but not its reference, which whoever keeps the slot goes on to own.
    #[inline]
    pub(super) fn into_claim(self) -> u32 {
        self.0.into_parts().1
    }

    #[inline]
    pub(super) fn from_parts(pool: NonNull<Inner>, slot: u32, len: u16) -> PacketSlice {
        PacketSlice(Range { pool, slot, off: 0, len })
    }

    /// True if the slice lies in `pool`: in another pool's region the same offset is someone
    /// else's packet.
    #[inline]
    pub fn is_of(&self, pool: &Pool) -> bool {
        pool.is(self.0.pool)
    }
}

impl Clone for PacketSlice {
    #[inline]
    fn clone(&self) -> Self {
        PacketSlice(self.0.another())
    }
}

impl Deref for PacketSlice {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl AsRef<[u8]> for PacketSlice {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for PacketSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketSlice(slot {}, {}+{})", self.0.slot, self.0.off, self.0.len)
    }
}
