//! What crosses between a thread and its engine in one place of a ring.
//!
//! A buffer changes hands with the cache lines of its bytes, of its pool's accounts and of the ring
//! that gives it back. So what fits [`SMALL_BYTES`] goes inside of the ring itself, in the line that
//! has to change hands anyway.

use std::net::SocketAddr;
use std::ops::Deref;

use arrayvec::ArrayVec;
use barewire_driver::RemoteBuf;

/// Bytes of a stream that need no buffer.
pub(super) const SMALL_BYTES: usize = 64;

/// A piece of a byte stream, or a whole datagram.
#[derive(Debug)]
pub(crate) enum Parcel {
    /// A few bytes of a stream.
    Small(Small),
    /// Bytes in packet memory.
    Buffers(Buffers),
}

/// A few bytes of a stream, of which the front can be taken off.
#[derive(Clone, Debug)]
pub(crate) struct Small {
    bytes: ArrayVec<u8, SMALL_BYTES>,
    taken: u8,
}

/// A piece of a stream in one slot, or a datagram.
#[derive(Debug)]
pub(crate) struct Buffers {
    pub(crate) front: RemoteBuf,
    /// The rest of a datagram that did not fit one slot.
    pub(crate) rest: Vec<RemoteBuf>,
    /// Sender or destination of a datagram.
    pub(crate) address: Option<SocketAddr>,
}

impl Small {
    /// A copy of these bytes, if they are few enough.
    pub(crate) fn copy_of(bytes: &[u8]) -> Option<Small> {
        Some(Small { bytes: bytes.try_into().ok()?, taken: 0 })
    }

    /// Takes bytes off the front.
    pub(crate) fn advance(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.len(), "advance past the end");
        // There are no more than fit.
        self.taken = (usize::from(self.taken) + bytes).min(SMALL_BYTES) as u8;
    }
}

impl Deref for Small {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(usize::from(self.taken)..).unwrap_or(&[])
    }
}

impl Buffers {
    /// A piece of a stream.
    pub(crate) fn piece(front: RemoteBuf) -> Buffers {
        Buffers { front, rest: Vec::new(), address: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.pieces().map(|buf| buf.len()).sum()
    }

    pub(crate) fn pieces(&self) -> impl Iterator<Item = &RemoteBuf> {
        std::iter::once(&self.front).chain(&self.rest)
    }
}

impl Parcel {
    /// Places in a ring that it counts for: a slot each, and the ring's own where it has none.
    pub(crate) fn places(&self) -> usize {
        self.slots().max(1)
    }

    /// Slots of packet memory that it keeps.
    pub(crate) fn slots(&self) -> usize {
        match self {
            Parcel::Small(_) => 0,
            Parcel::Buffers(buffers) => 1 + buffers.rest.len(),
        }
    }

    /// The bytes of a piece of a stream.
    pub(crate) fn text(&self) -> &[u8] {
        match self {
            Parcel::Small(small) => small,
            Parcel::Buffers(buffers) => &buffers.front,
        }
    }

    /// Takes bytes off the front of a piece of a stream.
    pub(crate) fn advance(&mut self, bytes: usize) {
        match self {
            Parcel::Small(small) => small.advance(bytes),
            Parcel::Buffers(buffers) => buffers.front.advance(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_is_what_fits_and_what_is_left_of_it() {
        let text: Vec<u8> = (0..SMALL_BYTES as u8).collect();
        assert!(Small::copy_of(&[0; SMALL_BYTES + 1]).is_none());
        let mut small = Small::copy_of(&text).unwrap();
        assert_eq!(*small, *text);
        small.advance(10);
        assert_eq!(*small, text[10..]);
        small.advance(SMALL_BYTES - 10);
        assert!(small.is_empty());
        let parcel = Parcel::Small(small);
        assert_eq!((parcel.slots(), parcel.places()), (0, 1));
    }

    #[test]
    fn a_parcel_is_little_longer_than_a_small_message() {
        assert!(size_of::<Parcel>() <= SMALL_BYTES + 16, "{}", size_of::<Parcel>());
    }
}
