//! What has been written and not yet acknowledged.
//!
//! ```text
//!             snd.una                 snd.nxt                      written
//!   chunks    ├──────────┬──────┬─────────┼────────┬──────────┬───────┤
//!                      ▲ again            ▲ cursor               open slot, still filling
//!   records   ├─────────────┬─────────────┤
//!               one a transmission: see `records`
//! ```
//!
//! *Chunks* hold the bytes; a cursor stands where the next new byte leaves, and another where bytes
//! were last sent again, so that neither walks the queue. *Records* remember transmissions: loss
//! detection by selective acknowledgments or by time needs what is in them and nothing else.

use std::collections::VecDeque;

use barewire_driver::mem::{CELL_LEN, HEADROOM};
use barewire_driver::{PacketBuf, PacketSlice, Pool};

use super::Cut;
use super::records::Records;
use super::slices::Slices;
use crate::hint::rarely;
use crate::time::Instant;
use crate::wire::front::{Front, SMALL_AT};
use crate::wire::headroom;
use crate::wire::tcp::PlainTcp;

/// A connection may always hold this many chunks, and one more for every
/// [`BYTES_PER_CHUNK_MIN`] of its send buffer: a bound on queues of tiny owned slices.
pub(crate) const CHUNKS_MIN: usize = 1024;

/// See [`CHUNKS_MIN`].
pub(crate) const BYTES_PER_CHUNK_MIN: usize = 256;

/// Entries that a queue of a connection that is over keeps memory for: the next connection may have
/// it.
pub(crate) const KEPT_ENTRIES: usize = 8;

/// The longest message that has a cell of its own. It lies in it behind room for all headers, which
/// are written there when it leaves, so that the cell is the frame.
pub(crate) const SMALL_MAX: usize = CELL_LEN - SMALL_AT;

/// One cell in this many at least is left to headers: what waits for its ACK may take long.
const CELLS_LEFT_PART: usize = 2;

/// A place in the chunks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    chunk: usize,
    offset: usize,
}

/// A chunk, and how many bytes lie before it: where to begin looking for what is sent again.
#[derive(Clone, Copy, Debug, Default)]
struct Again {
    chunk: usize,
    before: u32,
}

/// A slot, or a cell, that `write` is still filling; what is filled of it is not a chunk yet, so that
/// small writes leave as one piece.
#[derive(Debug)]
struct OpenSlot {
    buf: PacketBuf,
    /// Where the bytes begin: 0 in a slot, [`SMALL_AT`] in a cell, [`HEADROOM`] in a slot for one
    /// segment, which ends where that does.
    start: u32,
    /// Bytes behind that. Whole words, both: two halves of one would be read together, and what was
    /// written last apart.
    filled: u32,
}

impl OpenSlot {
    /// A new slot: all of it, or one for a segment of so many bytes.
    fn new(pool: &Pool, segment: Option<usize>) -> Option<OpenSlot> {
        let mut buf = pool.alloc()?;
        let Some(len) = segment else { return Some(OpenSlot { buf, start: 0, filled: 0 }) };
        buf.truncate(HEADROOM + len);
        Some(OpenSlot { buf, start: HEADROOM as u32, filled: 0 })
    }

    /// True if it is the cell of a small message.
    #[inline(always)]
    fn is_cell(&self) -> bool {
        self.start == SMALL_AT as u32
    }

    /// Bytes that it has room for.
    fn room(&self) -> usize {
        self.buf.len() - (self.start + self.filled) as usize
    }

    /// Copies in as much of `data` as there is room for, and sums it for a segment's headers if
    /// `summed`; says how much.
    #[inline]
    fn append(&mut self, data: &[u8], summed: bool) -> usize {
        let n = data.len().min(self.room());
        if self.start == HEADROOM as u32 {
            headroom::append(&mut self.buf, self.filled as usize, &data[..n], summed);
        } else {
            let at = (self.start + self.filled) as usize;
            self.buf[at..at + n].copy_from_slice(&data[..n]);
        }
        self.filled += n as u32;
        n
    }
}

/// What is filled of a slot, to be sent.
#[inline]
fn piece_of(front: PacketBuf, start: u32) -> PacketSlice {
    if start == HEADROOM as u32 {
        return front.freeze_behind_headroom();
    }
    let mut piece = front.freeze();
    piece.advance(start as usize);
    piece
}

#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    chunks: Slices,
    open: Option<OpenSlot>,
    cursor: Cursor,
    /// Bytes held, sent or not.
    len: u32,
    /// Bytes between snd.una and snd.nxt.
    sent: u32,
    pub(crate) records: Records,
    again: Again,
}

/// The segments that what is written will leave in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Payload bytes of each.
    pub(crate) mss: u32,
    /// Who cuts them.
    pub(crate) cut: Cut,
}

impl Shape {
    /// The bytes of a segment, if each is to have a slot for itself: where software cuts, and no slot
    /// could hold two of them.
    #[inline]
    fn slot_each(self, pool: &Pool) -> Option<usize> {
        let (mss, slot_len) = (self.mss as usize, pool.slot_len());
        let fits = HEADROOM + mss <= slot_len && slot_len < 2 * mss;
        (self.cut != Cut::Device && fits).then_some(mss)
    }

    /// True if software sums their payload.
    fn summed(self) -> bool {
        self.cut == Cut::SoftwareSums
    }
}

impl SendQueue {
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn sent(&self) -> u32 {
        self.sent
    }

    pub(crate) fn unsent(&self) -> u32 {
        self.len - self.sent
    }

    pub(crate) fn chunks(&self) -> usize {
        self.chunks.len() + usize::from(self.open.is_some())
    }

    /// Copies as much of `data` as slots can be had for. A small message has a cell if it is `alone`:
    /// nothing waits before it, and it waits for nothing behind it.
    pub(crate) fn copy_in(&mut self, pool: &Pool, data: &[u8], alone: bool, shape: Shape) -> usize {
        let small = alone && self.open.is_none() && self.len == self.sent;
        if small && data.len() <= SMALL_MAX && self.copy_small(pool, data) {
            return data.len();
        }
        let segment = shape.slot_each(pool);
        self.leave_open(pool, data.len(), segment, shape.summed());
        let mut left = data;
        while !left.is_empty() {
            if self.open.is_none()
                && let Some((whole, more)) = segment.and_then(|len| left.split_at_checked(len))
            {
                let Some(mut slot) = pool.alloc() else { break };
                slot.truncate(HEADROOM + whole.len());
                headroom::append(&mut slot, 0, whole, shape.summed());
                self.chunks.push_back(slot.freeze_behind_headroom());
                self.len += whole.len() as u32;
                left = more;
                continue;
            }
            let mut slot = match self.open.take() {
                Some(open) => open,
                None => match OpenSlot::new(pool, segment) {
                    Some(open) => open,
                    None => break,
                },
            };
            let n = slot.append(left, shape.summed());
            left = &left[n..];
            self.len += n as u32;
            if slot.room() == 0 {
                self.chunks.push_back(piece_of(slot.buf, slot.start));
            } else {
                self.open = Some(slot);
            }
        }
        let copied = data.len() - left.len();
        pool.count_copied(copied);
        copied
    }

    /// Where more has come than there is room for, leaves the cell of a message, which is to leave in
    /// one piece with what follows, and the rest of a slot, behind which segments would lie across
    /// slots.
    fn leave_open(&mut self, pool: &Pool, more: usize, segment: Option<usize>, summed: bool) {
        let Some(open) = &mut self.open else { return };
        if more <= open.room() {
            return;
        }
        if open.is_cell()
            && let Some(mut slot) = OpenSlot::new(pool, segment)
        {
            let (at, end) = (open.start as usize, (open.start + open.filled) as usize);
            slot.append(&open.buf[at..end], summed);
            pool.count_copied(end - at);
            self.open = Some(slot);
        } else if segment.is_some() && open.start == 0 && open.filled == 0 {
            self.open = None;
        }
    }

    /// Copies a small message into a cell, if there are many left. Nothing is open or waits.
    #[inline(always)]
    pub(crate) fn copy_small(&mut self, pool: &Pool, data: &[u8]) -> bool {
        if pool.free_cells() <= pool.total_cells() / CELLS_LEFT_PART {
            return false;
        }
        let Some(mut buf) = pool.alloc_cell() else { return false };
        let Some(room) = buf.get_mut(SMALL_AT..SMALL_AT + data.len()) else { return false };
        room.copy_from_slice(data);
        let open = OpenSlot { buf, start: SMALL_AT as u32, filled: data.len() as u32 };
        debug_assert!(self.open.is_none(), "a cell is for what comes alone");
        // Nothing is dropped: that costs a call only to find it out.
        std::mem::forget(self.open.replace(open));
        self.len += data.len() as u32;
        pool.count_copied(data.len());
        true
    }

    /// Appends a slice without a copy.
    pub(crate) fn push(&mut self, data: PacketSlice) {
        // Headroom that another queue has left has another payload's sum in it.
        drop(data.with_headers(|_| 0));
        self.freeze_open();
        self.len += data.len() as u32;
        self.chunks.push_back(data);
    }

    /// Makes what is filled of the open slot a chunk. The rest of a slot stays open; that of a cell
    /// is not worth it.
    fn freeze_open(&mut self) {
        // In place: taken out and put back, it would be read wider than it was just written, which
        // the processor's store buffer cannot serve.
        let Some(open) = &mut self.open else { return };
        let cell = open.is_cell();
        if open.filled > 0 {
            let front = open.buf.split_to((open.start + open.filled) as usize);
            self.chunks.push_back(piece_of(front, open.start));
            (open.start, open.filled) = (0, 0);
        }
        if cell || open.buf.is_empty() {
            self.open = None;
        }
    }

    /// Appends up to `want` unsent bytes to `out` in at most `pieces_max` pieces, as `fit` cuts
    /// them, and counts them as sent. Returns how many.
    pub(crate) fn take_unsent(
        &mut self,
        want: u32,
        pieces_max: u16,
        mss: u32,
        out: &mut Vec<PacketSlice>,
    ) -> u32 {
        self.freeze_open();
        let want = want.min(self.unsent());
        let n = self.fit(self.cursor, want, pieces_max, mss);
        self.cursor = self.gather(self.cursor, n, out);
        self.sent += n;
        n
    }

    /// How many bytes are unsent, if they are a small message in its cell.
    #[inline(always)]
    pub(crate) fn small_len(&self) -> Option<u32> {
        let unsent = self.unsent();
        let open = self.open.as_ref()?;
        // Nothing of a cell is sent before the rest: if no more is unsent, the chunks have left.
        let small = open.is_cell() && open.filled == unsent;
        debug_assert!(!small || unsent > 0, "a cell is open while there is something in it");
        debug_assert!(!small || self.cursor.chunk == self.chunks.len());
        small.then_some(unsent)
    }

    /// Counts the small message as sent and gives its frame, with headers like those that are kept in
    /// `front`.
    #[inline(always)]
    pub(crate) fn send_small(
        &mut self,
        front: &Front,
        header: &PlainTcp,
        offload: bool,
    ) -> Option<PacketSlice> {
        let open = self.open.as_mut()?;
        let len = open.filled as usize;
        front.write(open.buf.first_chunk_mut()?, len, header, offload);
        let OpenSlot { buf, .. } = self.open.take()?;
        let at = SMALL_AT - front.len();
        let (frame, kept) = buf.freeze_with_tail(at, SMALL_AT, SMALL_AT + len);
        self.chunks.push_back(kept);
        self.cursor = Cursor { chunk: self.chunks.len(), offset: 0 };
        self.sent = self.len;
        Some(frame)
    }

    /// Lets go of all bytes, for all have been sent, once and in one transmission, and are
    /// acknowledged; gives when they were sent, and how many bytes were delivered since. `None`, and
    /// nothing is done, if it was otherwise.
    #[inline(always)]
    pub(crate) fn settle_only(&mut self, bytes: u32) -> Option<(Instant, u32)> {
        if self.sent != self.len {
            return None;
        }
        let settled = self.records.settle_only(bytes)?;
        if self.chunks.only().is_some() {
            drop(self.chunks.pop_front());
        } else {
            self.chunks.clear();
        }
        if self.open.is_some() {
            self.open = None;
        }
        (self.cursor, self.again) = (Cursor::default(), Again::default());
        (self.len, self.sent) = (0, 0);
        Some(settled)
    }

    /// True if all unsent bytes lie in one piece.
    pub(crate) fn has_unsent_piece(&self) -> bool {
        match &self.open {
            Some(open) if open.filled > 0 => self.cursor.chunk == self.chunks.len(),
            Some(_) | None => self.cursor.chunk + 1 == self.chunks.len(),
        }
    }

    /// Counts all unsent bytes, which lie in one piece, as sent; gives their place.
    pub(crate) fn skip_unsent_piece(&mut self) -> Cursor {
        self.freeze_open();
        let at = self.cursor;
        self.sent = self.len;
        self.cursor = Cursor { chunk: self.chunks.len(), offset: 0 };
        at
    }

    /// The bytes of the piece at `at`, which [`SendQueue::skip_unsent_piece`] gave.
    pub(crate) fn sent_piece(&self, at: Cursor) -> &[u8] {
        self.chunks.get(at.chunk).map_or(&[], |chunk| &chunk[at.offset..])
    }

    /// Appends the first `n` unsent bytes, not counted as sent.
    pub(crate) fn peek_unsent(&mut self, n: u32, out: &mut Vec<PacketSlice>) {
        self.freeze_open();
        let _ = self.gather(self.cursor, n.min(self.unsent()), out);
    }

    /// The peer took `n` bytes that were only peeked at: counts them as sent.
    pub(crate) fn skip_unsent(&mut self, n: u32) {
        self.freeze_open();
        let n = n.min(self.unsent());
        self.cursor = self.gather(self.cursor, n, &mut Vec::new());
        self.sent += n;
    }

    /// Appends up to `want` bytes from `offset` behind snd.una on. Returns how many. Walks from where
    /// the last call ended: repairs go through the window in its order.
    pub(crate) fn again(
        &mut self,
        offset: u32,
        want: u32,
        pieces_max: u16,
        mss: u32,
        out: &mut Vec<PacketSlice>,
    ) -> u32 {
        let mut at = self.again;
        while at.chunk > 0 && at.before > offset {
            at.chunk -= 1;
            at.before -= self.chunks.get(at.chunk).map_or(0, |c| c.len() as u32);
        }
        while let Some(chunk) = self.chunks.get(at.chunk)
            && at.before + chunk.len() as u32 <= offset
        {
            at = Again { chunk: at.chunk + 1, before: at.before + chunk.len() as u32 };
        }
        self.again = at;
        let at = Cursor { chunk: at.chunk, offset: (offset - at.before) as usize };
        let n = self.fit(at, want.min(self.sent.saturating_sub(offset)), pieces_max, mss);
        let _ = self.gather(at, n, out);
        n
    }

    /// How many of `want` bytes fit in `pieces_max` pieces; whole segments if not all of them do.
    fn fit(&self, at: Cursor, want: u32, pieces_max: u16, mss: u32) -> u32 {
        let (mut n, mut skip) = (0, at.offset);
        for chunk in self.chunks.iter_from(at.chunk).take(usize::from(pieces_max)) {
            n += (chunk.len() - skip) as u32;
            if n >= want {
                return want;
            }
            skip = 0;
        }
        if n >= mss { n - n % mss } else { n }
    }

    fn gather(&self, mut at: Cursor, n: u32, out: &mut Vec<PacketSlice>) -> Cursor {
        let mut left = n as usize;
        while left > 0
            && let Some(chunk) = self.chunks.get(at.chunk)
        {
            let have = chunk.len() - at.offset;
            if have > left {
                out.push(chunk.slice(at.offset..at.offset + left));
                at.offset += left;
                break;
            }
            let mut rest = chunk.clone();
            rest.advance(at.offset);
            out.push(rest);
            left -= have;
            at = Cursor { chunk: at.chunk + 1, offset: 0 };
        }
        at
    }

    /// Lets go of `bytes` sent bytes that were acknowledged.
    pub(crate) fn ack_bytes(&mut self, bytes: u32) {
        debug_assert!(bytes <= self.sent, "acknowledged bytes were sent");
        let bytes = bytes.min(self.sent);
        self.sent -= bytes;
        self.len -= bytes;
        // Bytes before a chunk that is gone are none.
        self.again.before = self.again.before.saturating_sub(bytes);
        let mut left = bytes as usize;
        while left > 0
            && let Some(front) = self.chunks.front_mut()
        {
            if front.len() <= left {
                left -= front.len();
                self.chunks.pop_front();
                self.cursor.chunk = self.cursor.chunk.saturating_sub(1);
                self.again.chunk = self.again.chunk.saturating_sub(1);
            } else {
                front.advance(left);
                if self.cursor.chunk == 0 {
                    self.cursor.offset = self.cursor.offset.saturating_sub(left);
                }
                left = 0;
            }
        }
        if self.len == 0 {
            // The rest of the open slot would pin 2 KiB for each connection that waits.
            if rarely(self.open.is_some()) {
                self.open = None;
            }
        }
    }

    /// Drops everything: nothing of it will be sent. What memory a short conversation needs stays.
    pub(crate) fn clear(&mut self) {
        let SendQueue { chunks, open, cursor, len, sent, records, again } = self;
        chunks.clear();
        if rarely(open.is_some()) {
            *open = None;
        }
        (*cursor, *again) = (Cursor::default(), Again::default());
        (*len, *sent) = (0, 0);
        records.clear();
    }

    /// True if nothing is in it, nor is anything remembered of what was sent.
    #[inline]
    pub(crate) fn is_cleared(&self) -> bool {
        self.len == 0 && self.open.is_none() && self.records.is_empty()
    }

    /// Nothing is in it, not even memory for what was.
    pub(crate) fn is_spotless(&self) -> bool {
        self.is_cleared() && !self.has_slack()
    }

    /// True if [`SendQueue::trim`] would free memory.
    pub(crate) fn has_slack(&self) -> bool {
        self.len == 0
            && self.records.is_empty()
            && self.chunks.capacity().max(self.records.capacity()) > 0
    }

    /// Gives back the memory of empty deques.
    pub(crate) fn trim(&mut self) {
        if self.has_slack() {
            let records = self.records.trimmed();
            *self = SendQueue { records, ..SendQueue::default() };
        }
    }
}

/// Drops what is in a deque, and its memory if that is much.
#[inline]
pub(super) fn empty<T>(deque: &mut VecDeque<T>) {
    if rarely(deque.capacity() > KEPT_ENTRIES) {
        *deque = VecDeque::new();
    } else if rarely(!deque.is_empty()) {
        deque.clear();
    }
}

#[cfg(test)]
#[path = "tests/sendq.rs"]
mod tests;
