//! What has arrived in sequence and was not read yet.

use std::collections::VecDeque;

use barewire_driver::PacketSlice;

use super::slices::Slices;

/// Packet memory that may be pinned for each byte of the receive buffer. A slice of one byte keeps
/// a whole slot from being freed, so bytes alone bound nothing: a peer that sends single bytes
/// would pin 2,048 times the buffer. Full segments in 2 KiB slots pin 1.4 times their length, in
/// 4 KiB slots 2.8 times.
pub(crate) const PINNED_PER_BUFFER_BYTE: u64 = 4;

/// Packet memory that every connection may pin, however small its buffer.
pub(crate) const PINNED_MIN_BYTES: u64 = 256 * 1024;

/// A slice of at most this many bytes is copied behind the one before it, where there is room, once
/// the queue pins [`COMPACT_FROM_BYTES`].
const COMPACT_MAX_BYTES: usize = 512;

/// Packet memory that a queue pins before it spends copies on pinning less. A reader that keeps up
/// never gets there.
const COMPACT_FROM_BYTES: u64 = 32 * 1024;

/// True if a queue that pins so much may pin more: less than [`pinned_max`], which is seldom worked
/// out.
#[inline(always)]
pub(crate) fn may_pin_more(pinned: u64, buffer_bytes: u32) -> bool {
    pinned < PINNED_MIN_BYTES || pinned < pinned_max(buffer_bytes)
}

/// The bound on pinned packet memory for a receive buffer, once for data in sequence and once for
/// data out of it.
pub(crate) fn pinned_max(buffer_bytes: u32) -> u64 {
    (u64::from(buffer_bytes) * PINNED_PER_BUFFER_BYTE).max(PINNED_MIN_BYTES)
}

#[derive(Debug, Default)]
pub(crate) struct ReceiveQueue {
    slices: Slices,
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

    /// Appends a slice; says how many bytes it copied for that.
    #[inline(always)]
    pub(crate) fn push(&mut self, slice: PacketSlice) -> usize {
        let small = slice.len() <= COMPACT_MAX_BYTES;
        if small && (self.pinned >= COMPACT_FROM_BYTES || slice.is_empty()) {
            return self.push_compactly(slice);
        }
        self.len += slice.len() as u32;
        self.pinned += slice.slot_len() as u64;
        self.slices.push_back(slice);
        0
    }

    #[inline(never)]
    fn push_compactly(&mut self, slice: PacketSlice) -> usize {
        let len = slice.len();
        if len == 0 {
            return 0;
        }
        self.len += len as u32;
        if self.slices.back_mut().is_some_and(|last| last.try_append(&slice)) {
            return len;
        }
        self.pinned += slice.slot_len() as u64;
        self.slices.push_back(slice);
        0
    }

    /// Copies from the front without taking.
    pub(crate) fn peek(&self, out: &mut [u8]) -> usize {
        let mut filled = 0;
        for slice in self.slices.iter() {
            if filled == out.len() {
                break;
            }
            let n = slice.len().min(out.len() - filled);
            out[filled..filled + n].copy_from_slice(&slice[..n]);
            filled += n;
        }
        filled
    }

    /// Copies all that there is, if it is one slice and fits.
    #[inline(always)]
    pub(crate) fn read_only(&mut self, out: &mut [u8]) -> Option<usize> {
        let bytes: &[u8] = self.slices.only()?;
        let len = bytes.len();
        out.get_mut(..len)?.copy_from_slice(bytes);
        self.slices.pop_front();
        (self.len, self.pinned) = (0, 0);
        Some(len)
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

    /// Takes everything.
    pub(crate) fn take_all(&mut self, out: &mut VecDeque<PacketSlice>) {
        self.slices.move_to(out);
        (self.len, self.pinned) = (0, 0);
    }

    fn pop_front(&mut self) -> Option<PacketSlice> {
        let slice = self.slices.pop_front()?;
        self.pinned -= slice.slot_len() as u64;
        Some(slice)
    }

    /// Drops everything. What memory a short conversation needs stays.
    pub(crate) fn clear(&mut self) {
        let ReceiveQueue { slices, len, pinned } = self;
        slices.clear();
        (*len, *pinned) = (0, 0);
    }

    /// True if [`ReceiveQueue::trim`] would free memory.
    pub(crate) fn has_slack(&self) -> bool {
        self.slices.is_empty() && self.slices.capacity() > 0
    }

    /// Gives back the memory of an empty deque.
    pub(crate) fn trim(&mut self) {
        if self.has_slack() {
            *self = ReceiveQueue::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use barewire_driver::{Pool, PoolConfig};

    use super::*;

    fn slice(pool: &Pool, bytes: &[u8]) -> PacketSlice {
        pool.copy_from(bytes).unwrap().freeze()
    }

    #[test]
    fn many_small_slices_share_slots_once_they_would_pin_much() {
        let config = PoolConfig { slots: 64, slot_len: 2048, cells: 2, try_huge: false };
        let pool = Pool::new(config).unwrap();
        let mut queue = ReceiveQueue::default();
        let stream: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
        let copied: usize = stream.chunks(7).map(|part| queue.push(slice(&pool, part))).sum();
        let free_of_copies = COMPACT_FROM_BYTES as usize / 2048 * 7;
        // A new slot is begun where the last one is full: its first slice is not copied either.
        let slots = pool.total_slots() - pool.free_slots();
        assert!(slots <= 16 + 20_000 / 2040 + 1, "{slots} slots");
        assert!(copied > 20_000 - free_of_copies - 7 * slots, "{copied} bytes copied");
        assert_eq!(queue.pinned(), 2048 * slots as u64);
        let mut read = vec![0; 30_000];
        assert_eq!(queue.read(&mut read), stream.len());
        assert_eq!(read[..stream.len()], stream);
        assert_eq!((queue.pinned(), queue.len()), (0, 0));
        assert!(pool.audit().all_free());
    }

    #[test]
    fn slices_are_taken_whole_or_in_part() {
        let config = PoolConfig { slots: 4, slot_len: 2048, cells: 2, try_huge: false };
        let pool = Pool::new(config).unwrap();
        let mut queue = ReceiveQueue::default();
        queue.push(slice(&pool, b"one slice"));
        queue.push(slice(&pool, b"another"));
        assert_eq!(&queue.take(3).unwrap()[..], b"one");
        assert_eq!((queue.len(), queue.pinned()), (13, 4096));
        assert_eq!(&queue.take(6).unwrap()[..], b" slice");
        assert_eq!((queue.len(), queue.pinned()), (7, 2048));
        assert_eq!(&queue.take(100).unwrap()[..], b"another");
        assert_eq!((queue.len(), queue.pinned()), (0, 0));
        assert!(queue.take(1).is_none());
        for part in ["and", "all", "others"] {
            queue.push(slice(&pool, part.as_bytes()));
        }
        let mut out = VecDeque::from([slice(&pool, b"before")]);
        queue.take_all(&mut out);
        assert_eq!((queue.len(), queue.pinned()), (0, 0));
        let bytes: Vec<u8> = out.iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(bytes, b"beforeandallothers");
        assert!(queue.take(1).is_none());
    }

    #[test]
    fn large_slices_and_few_small_ones_are_never_copied() {
        let config = PoolConfig { slots: 64, slot_len: 2048, cells: 2, try_huge: false };
        let pool = Pool::new(config).unwrap();
        let mut queue = ReceiveQueue::default();
        let few = COMPACT_FROM_BYTES as usize / 2048;
        let copied: usize = (0..few).map(|_| queue.push(slice(&pool, b"small"))).sum();
        assert_eq!(copied, 0);
        assert_eq!(queue.push(slice(&pool, &[1; COMPACT_MAX_BYTES + 1])), 0);
        assert_eq!(queue.push(slice(&pool, b"small")), 5);
    }
}
