//! Super-segments cut into wire segments, where the device does not do it.
//!
//! ```text
//!   super-segment   [mss][mss][mss]…[mss][rest]
//!                     │    └────┬─────┘    └─ PSH and FIN: made by itself
//!                     │         └─ one pattern of headers; only numbers and sums differ
//!                     └─ CWR, if it is set: made by itself
//! ```

use std::net::IpAddr;

use arrayvec::ArrayVec;
use barewire_driver::device::{Features, TxChecksum};
use barewire_driver::mem::{Checksum, HEADROOM};
use barewire_driver::{MacAddr, PacketBuf, PacketSlice, TxFrame};

use super::segment::{Payload, WIRE_PIECES};
use super::{Egress, INLINE_PAYLOAD_BYTES, TcpPath, link};
use crate::tcp::Transmit;
use crate::wire::ethernet::ethertype;
use crate::wire::headroom;
use crate::wire::ipv4::Ipv4Header;
use crate::wire::tcp::{self, TcpFlags, TcpHeader};
use crate::wire::{self, protocol, put_u16, put_u32};

/// Flags that only the last segment has.
const AT_THE_END: TcpFlags = TcpFlags::FIN.union(TcpFlags::PSH);

/// Ethernet's, IPv4's and TCP's headers with all options, and what rounds that up to vectors.
const MOST_HEADERS: usize = 96;

/// The headers that the segments in the middle have in common.
struct Pattern {
    /// They end where it does.
    bytes: [u8; MOST_HEADERS],
    /// Bytes of them.
    len: usize,
    /// Where TCP's header begins in `bytes`.
    tcp_at: usize,
    /// The sum of TCP's pseudo-header and header without the sequence number, if the device does
    /// not complete the checksum.
    sum: Option<u16>,
    /// What a device has to know of a frame with these headers.
    meta: TxFrame,
}

impl Pattern {
    /// Writes the headers to the end of `room`, before a payload with this sum; gives their length.
    #[inline]
    fn write(&self, room: &mut [u8; HEADROOM], seq: u32, payload: impl FnOnce() -> u16) -> usize {
        let Some(room) = room.last_chunk_mut() else { unreachable!("headroom for all headers") };
        *room = self.bytes;
        put_u32(room, self.tcp_at + tcp::SEQ_OFFSET, seq);
        if let Some(common) = self.sum {
            let mut sum = Checksum::new();
            sum.add_u16(common);
            sum.add_u32(seq);
            sum.add_u16(payload());
            put_u16(room, self.tcp_at + tcp::CHECKSUM_OFFSET, sum.finish());
        }
        self.len
    }

    /// A cell with these headers.
    #[inline]
    fn write_alone(&self, cell: &mut PacketBuf, seq: u32, payload: impl FnOnce() -> u16) {
        if let Some(room) = cell.first_chunk_mut() {
            self.write(room, seq, payload);
        }
        cell.truncate(HEADROOM);
        cell.advance(HEADROOM - self.len);
    }
}

impl Egress {
    /// Cuts a super-segment into wire segments: sequence numbers advance, FIN and PSH stay with
    /// the last, CWR with the first (RFC 3168 §6.1.2).
    pub(super) fn emit_cut(
        &mut self,
        path: &TcpPath,
        mut header: TcpHeader,
        segment: &Transmit,
        pieces: &[PacketSlice],
    ) {
        let (mss, last_flags) = (u32::from(segment.mss), header.flags & AT_THE_END);
        let mut left = segment.payload_len;
        let mut payload = Payload::new(pieces, left);
        header.flags -= AT_THE_END;
        if header.flags.contains(TcpFlags::CWR) && left > mss {
            self.emit_one(path, &header, &mut payload, mss, 0);
            header.flags -= TcpFlags::CWR;
            header.seq = header.seq.wrapping_add(mss);
            left -= mss;
        }
        // What is small enough is copied behind its headers.
        if let Some(mac) = path.mac
            && mss as usize > INLINE_PAYLOAD_BYTES
        {
            let last = u32::from(!last_flags.is_empty());
            let common = left.saturating_sub(last) / mss;
            if common > 0 {
                let pattern = self.pattern(path, mac, &header, mss);
                for _ in 0..common {
                    self.emit_patterned(path, &pattern, header.seq, &mut payload, mss);
                    header.seq = header.seq.wrapping_add(mss);
                }
                left -= common * mss;
            }
        }
        while left > 0 {
            let len = left.min(mss);
            left -= len;
            if left == 0 {
                header.flags |= last_flags;
            }
            self.emit_one(path, &header, &mut payload, len, 0);
            header.seq = header.seq.wrapping_add(len);
        }
    }

    /// The headers of segments like this one, with `len` bytes of payload.
    fn pattern(&self, path: &TcpPath, mac: MacAddr, header: &TcpHeader, len: u32) -> Pattern {
        let mut bytes = [0; MOST_HEADERS];
        let iface = self.iface(path.hop.iface());
        let link_len =
            iface.map_or(0, |iface| link::write(&iface.config, mac, ethertype::IPV4, &mut bytes));
        let tcp_at = link_len + Ipv4Header::LEN;
        let tcp_len = TcpHeader { seq: 0, ..*header }.emit(&mut bytes[tcp_at..]);
        let segment_len = tcp_len as u32 + len;
        self.write_ip(path, &mut bytes[link_len..], segment_len as u16);
        let (src, dst) = (IpAddr::V4(path.key.local), IpAddr::V4(path.key.remote));
        let mut sum = wire::pseudo_header(src, dst, protocol::TCP, segment_len);
        let offload = |features: Features| features.contains(Features::TX_CHECKSUM);
        let sum = if iface.is_some_and(|iface| offload(iface.config.features)) {
            put_u16(&mut bytes, tcp_at + tcp::CHECKSUM_OFFSET, sum.partial());
            None
        } else {
            sum.add(&bytes[tcp_at..tcp_at + tcp_len]);
            Some(sum.partial())
        };
        let len = tcp_at + tcp_len;
        bytes.rotate_right(MOST_HEADERS - len);
        let checksum = match sum {
            Some(_) => TxChecksum::Complete,
            None => {
                let offset = tcp::CHECKSUM_OFFSET as u16;
                TxChecksum::Partial { start: tcp_at as u16, offset }
            }
        };
        let meta = TxFrame { checksum, header_len: len as u16, ..TxFrame::default() };
        Pattern { bytes, len, tcp_at: MOST_HEADERS - tcp_len, sum, meta }
    }

    /// Writes one frame with the next `len` bytes of `payload`: in one piece where they lie behind
    /// headroom, otherwise with its headers in a cell.
    fn emit_patterned(
        &mut self,
        path: &TcpPath,
        pattern: &Pattern,
        seq: u32,
        payload: &mut Payload<'_>,
        len: u32,
    ) {
        let iface = path.hop.iface();
        let whole = payload.next_whole(len).and_then(|piece| {
            piece.with_headers(|room| {
                let noted = headroom::sum(room, piece.len());
                pattern.write(room, seq, || noted.unwrap_or_else(|| sum_of([piece])))
            })
        });
        if let Some(frame) = whole {
            payload.skip(len);
            return self.push_whole(iface, frame, pattern.meta);
        }
        let Some(mut cell) = self.data_cell() else { return payload.skip(len) };
        if let Some(piece) = payload.take_within(len) {
            pattern.write_alone(&mut cell, seq, || sum_of([&piece]));
            return self.push_pair(iface, cell.freeze(), piece, pattern.meta);
        }
        let mut parts: ArrayVec<PacketSlice, WIRE_PIECES> = ArrayVec::new();
        if !payload.take(len, true, &mut parts) && !self.join(payload, len, &mut parts) {
            return;
        }
        pattern.write_alone(&mut cell, seq, || sum_of(&parts));
        self.counters.tcp_segments_sent += 1;
        self.push_written(iface, cell, parts, pattern.meta);
    }
}

/// The sum of a segment's payload.
fn sum_of<'a>(pieces: impl IntoIterator<Item = &'a PacketSlice>) -> u16 {
    let mut sum = Checksum::new();
    pieces.into_iter().for_each(|piece| sum.add(piece));
    sum.partial()
}
