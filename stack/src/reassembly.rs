//! Fragments: joining those that arrive, planning those to send (RFC 791 §3.2, RFC 815,
//! RFC 1122 §3.3.2 and §3.3.3).
//!
//! ```text
//!   fragment ─▶ insert ─▶ datagram of (src, dst, protocol, ident) ─▶ its payload, when whole
//!                              │ overlap, two ends, too many           in pieces, nothing copied
//!                              ▼
//!                         poisoned: what still comes is dropped until the timeout
//! ```
//!
//! Fragments are where hosts were attacked most often, so there is no leniency. A fragment that
//! overlaps another poisons its datagram (RFC 5722 §4 for IPv6, RFC 1858 for why); exact repetitions
//! alone are ignored. What waits pins packet memory, so datagrams, fragments and pinned bytes are
//! bounded, and the oldest datagram gives way to a new one.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use barewire_driver::PacketSlice;

use crate::time::Instant;
use crate::wire::ipv4::{self, Ecn, Ipv4Header};

/// Largest IPv4 datagram, header included.
const MAX_DATAGRAM: u32 = 65_535;

/// Settings of a [`Reassembler`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReassemblyLimits {
    /// Datagrams that may be incomplete at once; each arriving fragment searches them all.
    pub max_datagrams: usize,
    /// Packet memory that may be pinned, whole slots counted: 512 slots of 2 KiB.
    pub max_pinned_bytes: usize,
    /// Fragments of one datagram. The largest datagram over a link of 576 bytes has 119.
    pub max_fragments: usize,
    /// Time for a datagram to become whole, from its first fragment on. RFC 1122 §3.3.2 recommends
    /// 60 to 120 s; this is 30 s, for at today's speeds the 16-bit identification repeats much
    /// sooner (RFC 4963) and each waiting fragment holds a slot.
    pub timeout: Duration,
}

impl Default for ReassemblyLimits {
    fn default() -> Self {
        ReassemblyLimits {
            max_datagrams: 64,
            max_pinned_bytes: 1 << 20,
            max_fragments: 128,
            timeout: Duration::from_secs(30),
        }
    }
}

/// What has happened in a [`Reassembler`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReassemblyCounters {
    /// Fragments that arrived.
    pub fragments: u64,
    /// Datagrams that became whole.
    pub reassembled: u64,
    /// Datagrams that did not in time.
    pub timed_out: u64,
    /// Datagrams given up for newer ones, at the limit of datagrams or of pinned memory.
    pub evicted: u64,
    /// Datagrams poisoned by a fragment that overlaps another or contradicts it on the end.
    pub overlapping: u64,
    /// Datagrams poisoned by a fragment that lies beyond 65,535 bytes.
    pub too_large: u64,
    /// Datagrams poisoned by too many fragments.
    pub too_many_fragments: u64,
    /// Datagrams poisoned because one fragment was marked and another could not have been.
    pub contradictory_marks: u64,
    /// Fragments dropped because they were there already.
    pub duplicates: u64,
    /// Fragments dropped because they are empty, or not the last and no multiple of 8 bytes.
    pub malformed: u64,
    /// Fragments dropped because their datagram is poisoned.
    pub of_poisoned: u64,
}

/// A datagram that has become whole.
#[derive(Debug)]
pub struct Whole {
    /// As if it had never been cut: the header of its first fragment, marked if one of them was
    /// (RFC 3168 §5.3).
    pub header: Ipv4Header,
    /// Its payload, in order.
    pub payload: Vec<PacketSlice>,
}

/// A datagram that did not become whole in time although its first fragment came: about this one,
/// and no other, ICMP "time exceeded" is sent (RFC 1122 §3.3.2).
#[derive(Debug)]
pub struct Expired {
    /// Header of the first fragment.
    pub header: Ipv4Header,
    /// Payload of the first fragment, as far as it lies in one piece: what the message quotes.
    pub payload: PacketSlice,
}

/// What the fragments of a datagram have in common (RFC 791 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    src: Ipv4Addr,
    dst: Ipv4Addr,
    ident: u16,
    protocol: u8,
}

#[derive(Debug)]
struct Fragment {
    start: u32,
    end: u32,
    pieces: Vec<PacketSlice>,
}

#[derive(Debug)]
struct Datagram {
    key: Key,
    deadline: Instant,
    /// In order, without overlap. Empty if the datagram is poisoned.
    fragments: Vec<Fragment>,
    /// Header of the fragment at offset zero.
    first: Option<Ipv4Header>,
    /// Where the last fragment ends.
    end: Option<u32>,
    received: u32,
    pinned_bytes: usize,
    poisoned: bool,
    /// A fragment has met congestion.
    marked: bool,
    /// A fragment's sender does not take part in ECN.
    not_capable: bool,
}

/// Why a fragment poisons its datagram.
enum Poison {
    Overlap,
    TooMany,
    Marks,
}

/// Datagrams that are becoming whole.
#[derive(Debug)]
pub struct Reassembler {
    limits: ReassemblyLimits,
    /// In the order of their first arrival, and so of their deadlines.
    datagrams: VecDeque<Datagram>,
    pinned_bytes: usize,
    counters: ReassemblyCounters,
}

impl Reassembler {
    /// An empty reassembler.
    pub fn new(limits: ReassemblyLimits) -> Reassembler {
        Reassembler {
            limits,
            datagrams: VecDeque::new(),
            pinned_bytes: 0,
            counters: ReassemblyCounters::default(),
        }
    }

    /// What has happened.
    pub fn counters(&self) -> ReassemblyCounters {
        self.counters
    }

    /// Datagrams that are incomplete, poisoned ones included.
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Packet memory that is pinned, whole slots counted.
    pub fn pinned_bytes(&self) -> usize {
        self.pinned_bytes
    }

    /// Takes a fragment: its header, and its payload without the padding of the link. Gives the
    /// whole datagram if this was what it lacked.
    pub fn insert(
        &mut self,
        now: Instant,
        header: &Ipv4Header,
        payload: Vec<PacketSlice>,
    ) -> Option<Whole> {
        self.counters.fragments += 1;
        let start = u32::from(header.fragment_offset);
        let len: usize = payload.iter().map(|piece| piece.len()).sum();
        // RFC 791 §3.2: all fragments but the last are multiples of 8 bytes; an empty one adds
        // nothing but work.
        if len == 0 || header.more_fragments && !len.is_multiple_of(8) {
            self.counters.malformed += 1;
            return None;
        }
        let index = self.find_or_start(now, header)?;
        if self.datagrams[index].poisoned {
            self.counters.of_poisoned += 1;
            return None;
        }
        let end = start.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        if end.saturating_add(u32::from(header.header_len)) > MAX_DATAGRAM {
            self.counters.too_large += 1;
            self.poison(index);
            return None;
        }
        let pinned_bytes: usize = payload.iter().map(PacketSlice::slot_len).sum();
        let fragment = Fragment { start, end, pieces: payload };
        match self.datagrams[index].add(header, fragment, self.limits.max_fragments) {
            Ok(true) => {}
            Ok(false) => {
                self.counters.duplicates += 1;
                return None;
            }
            Err(poison) => {
                match poison {
                    Poison::Overlap => self.counters.overlapping += 1,
                    Poison::TooMany => self.counters.too_many_fragments += 1,
                    Poison::Marks => self.counters.contradictory_marks += 1,
                }
                self.poison(index);
                return None;
            }
        }
        self.datagrams[index].pinned_bytes += pinned_bytes;
        self.pinned_bytes += pinned_bytes;
        if self.datagrams[index].is_whole() {
            self.counters.reassembled += 1;
            return self.remove(index)?.into_whole();
        }
        self.unpin();
        None
    }

    /// Lets time pass. Of the datagrams that did not become whole in time, those whose first
    /// fragment came are appended to `expired`.
    pub fn handle_timeout(&mut self, now: Instant, expired: &mut Vec<Expired>) {
        while self.datagrams.front().is_some_and(|datagram| datagram.deadline <= now) {
            let Some(datagram) = self.remove(0) else { return };
            if datagram.poisoned {
                continue;
            }
            self.counters.timed_out += 1;
            let first = datagram.fragments.into_iter().next();
            let payload = first.and_then(|fragment| fragment.pieces.into_iter().next());
            if let (Some(header), Some(payload)) = (datagram.first, payload) {
                expired.push(Expired { header, payload });
            }
        }
    }

    /// When to call [`Reassembler::handle_timeout`] next.
    pub fn poll_at(&self) -> Option<Instant> {
        self.datagrams.front().map(|datagram| datagram.deadline)
    }

    /// The place of the datagram that a fragment belongs to, new if need be. `None` only if the
    /// limits allow no datagram at all.
    fn find_or_start(&mut self, now: Instant, header: &Ipv4Header) -> Option<usize> {
        let key = Key {
            src: header.src,
            dst: header.dst,
            ident: header.ident,
            protocol: header.protocol,
        };
        // From the back, for fragments arrive together.
        if let Some(index) = self.datagrams.iter().rposition(|datagram| datagram.key == key) {
            return Some(index);
        }
        if self.datagrams.len() >= self.limits.max_datagrams {
            self.counters.evicted += 1;
            self.remove(0)?;
        }
        self.datagrams.push_back(Datagram {
            key,
            deadline: now + self.limits.timeout,
            fragments: Vec::new(),
            first: None,
            end: None,
            received: 0,
            pinned_bytes: 0,
            poisoned: false,
            marked: false,
            not_capable: false,
        });
        Some(self.datagrams.len() - 1)
    }

    /// Gives up the oldest datagrams until the pinned memory is within its limit.
    fn unpin(&mut self) {
        while self.pinned_bytes > self.limits.max_pinned_bytes {
            self.counters.evicted += 1;
            if self.remove(0).is_none() {
                return;
            }
        }
    }

    /// Drops what a datagram holds and will still get (RFC 5722 §4). Its place stays taken until
    /// the timeout, so that the rest of it does not begin a datagram of its own.
    fn poison(&mut self, index: usize) {
        let datagram = &mut self.datagrams[index];
        datagram.poisoned = true;
        datagram.fragments = Vec::new();
        self.pinned_bytes -= std::mem::take(&mut datagram.pinned_bytes);
    }

    fn remove(&mut self, index: usize) -> Option<Datagram> {
        let datagram = self.datagrams.remove(index)?;
        self.pinned_bytes -= datagram.pinned_bytes;
        Some(datagram)
    }
}

impl Datagram {
    /// Puts a fragment in its place. False if it is there already.
    fn add(
        &mut self,
        header: &Ipv4Header,
        fragment: Fragment,
        max_fragments: usize,
    ) -> Result<bool, Poison> {
        let Fragment { start, end, .. } = fragment;
        let at = self.fragments.partition_point(|other| other.start < start);
        let next = self.fragments.get(at);
        if next.is_some_and(|next| (next.start, next.end) == (start, end))
            && header.more_fragments != (self.end == Some(end))
        {
            return Ok(false);
        }
        let overlaps_next = next.is_some_and(|next| next.start < end);
        let overlaps_last = at > 0 && self.fragments[at - 1].end > start;
        let last_end = self.fragments.last().map_or(0, |last| last.end);
        let contradicts = match (header.more_fragments, self.end) {
            // A second end, or an end before what is there.
            (false, Some(known)) => known != end,
            (false, None) => last_end > end,
            // Something at or behind the end, which only the last fragment may reach.
            (true, Some(known)) => end >= known,
            (true, None) => false,
        };
        if overlaps_next || overlaps_last || contradicts {
            return Err(Poison::Overlap);
        }
        if self.fragments.len() >= max_fragments {
            return Err(Poison::TooMany);
        }
        // RFC 3168 §5.3: a mark must not get lost, nor be set where a fragment is not ECN-capable.
        match Ecn::of_tos(header.tos) {
            Ecn::Ce => self.marked = true,
            Ecn::NotEct => self.not_capable = true,
            Ecn::Ect0 | Ecn::Ect1 => {}
        }
        if self.marked && self.not_capable {
            return Err(Poison::Marks);
        }
        if !header.more_fragments {
            self.end = Some(end);
        }
        if start == 0 {
            self.first = Some(*header);
        }
        self.received += end - start;
        self.fragments.insert(at, fragment);
        Ok(true)
    }

    /// Without overlaps, as many bytes as the end says are all of them.
    fn is_whole(&self) -> bool {
        self.end == Some(self.received)
    }

    fn into_whole(self) -> Option<Whole> {
        let mut header = self.first?;
        let len = u32::from(header.header_len) + self.received;
        (header.fragment_offset, header.more_fragments) = (0, false);
        header.total_len = u16::try_from(len).unwrap_or(u16::MAX);
        if self.marked {
            header.tos = Ecn::Ce.in_tos(header.tos);
        }
        let payload = self.fragments.into_iter().flat_map(|f| f.pieces).collect();
        Some(Whole { header, payload })
    }
}

/// A fragment to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where in the payload it begins: a multiple of 8.
    pub offset: u16,
    /// Bytes of it.
    pub len: u16,
    /// Others follow.
    pub more: bool,
}

/// How to send a payload of `payload_len` bytes behind headers of 20 bytes over a link of `mtu`
/// bytes: the fragments in order (RFC 791 §3.2), just one where the payload fits.
///
/// An MTU below 28, which no link may have (RFC 791 §3.2 wants 68), is taken for 28.
pub fn fragment(payload_len: u16, mtu: u16) -> impl Iterator<Item = Piece> {
    let room = usize::from(mtu.max(ipv4::LEN as u16 + 8)) - ipv4::LEN;
    let room = room as u16;
    let block = room & !7;
    let mut next = Some(0u16);
    std::iter::from_fn(move || {
        let offset = next?;
        let rest = payload_len - offset;
        let more = rest > room;
        let len = if more { block } else { rest };
        next = more.then(|| offset + len);
        Some(Piece { offset, len, more })
    })
}

#[cfg(test)]
#[path = "reassembly_tests.rs"]
mod tests;
