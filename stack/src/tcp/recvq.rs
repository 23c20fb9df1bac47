//! What has arrived in sequence and was not read yet.

use std::collections::VecDeque;

use barewire_driver::PacketSlice;

/// Packet memory that may be pinned for each byte of the receive buffer. A slice of one byte keeps
/// a whole slot from being freed, so bytes alone bound nothing: a peer that sends single bytes
/// would pin 2,048 times the buffer. Full segments in 2 KiB slots pin 1.4 times their length, in
/// 4 KiB slots 2.8 times.
pub(crate) const PINNED_PER_BUFFER_BYTE: u64 = 4;

/// Packet memory that every connection may pin, however small its buffer.
pub(crate) const PINNED_MIN_BYTES: u64 = 256 * 1024;

/// The bound on pinned packet memory for a receive buffer, once for data in sequence and once for
/// data out of it.
pub(crate) fn pinned_max(buffer_bytes: u32) -> u64 {
    (u64::from(buffer_bytes) * PINNED_PER_BUFFER_BYTE).max(PINNED_MIN_BYTES)
}

#[derive(Debug, Default)]
pub(crate) struct ReceiveQueue {
    slices: VecDeque<PacketSlice>,
    len: u32,
    /// Sum of the slots that the slices keep from being freed; a slot with several slices in it
    /// counts several times.
    pinned: u64,
}

impl ReceiveQueue {
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Packet memory that the queue keeps from being freed.
    pub(crate) fn pinned(&self) -> u64 {
        self.pinned
    }

    pub(crate) fn push(&mut self, slice: PacketSlice) {
        if slice.is_empty() {
            return;
        }
        self.len += slice.len() as u32;
        self.pinned += slice.slot_len() as u64;
        self.slices.push_back(slice);
    }

    /// Copies from the front without taking.
    pub(crate) fn peek(&self, out: &mut [u8]) -> usize {
        let mut filled = 0;
        for slice in &self.slices {
            if filled == out.len() {
                break;
            }
            let n = slice.len().min(out.len() - filled);
            out[filled..filled + n].copy_from_slice(&slice[..n]);
            filled += n;
        }
        filled
    }

    /// Copies from the front and lets go of what was copied.
    pub(crate) fn read(&mut self, out: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < out.len()
            && let Some(front) = self.slices.front_mut()
        {
            let n = front.len().min(out.len() - filled);
            out[filled..filled + n].copy_from_slice(&front[..n]);
            filled += n;
            self.len -= n as u32;
            if n == front.len() {
                self.pop_front();
            } else {
                front.advance(n);
            }
        }
        filled
    }

    /// Takes the front slice, or its first `max` bytes.
    pub(crate) fn take(&mut self, max: usize) -> Option<PacketSlice> {
        let front = self.slices.front_mut()?;
        let taken = if front.len() <= max { self.pop_front()? } else { front.split_to(max) };
        self.len -= taken.len() as u32;
        Some(taken)
    }

    fn pop_front(&mut self) -> Option<PacketSlice> {
        let slice = self.slices.pop_front()?;
        self.pinned -= slice.slot_len() as u64;
        Some(slice)
    }

    pub(crate) fn clear(&mut self) {
        *self = ReceiveQueue::default();
    }

    /// True if [`ReceiveQueue::trim`] would free memory.
    pub(crate) fn has_slack(&self) -> bool {
        self.slices.is_empty() && self.slices.capacity() > 0
    }

    /// Gives back the memory of an empty deque.
    pub(crate) fn trim(&mut self) {
        if self.has_slack() {
            self.clear();
        }
    }
}
