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
use barewire_driver::mem::Checksum;
use barewire_driver::{MacAddr, PacketSlice, TxFrame};

use super::segment::{Payload, WIRE_PIECES, add_pieces};
use super::{Egress, INLINE_PAYLOAD_BYTES, TcpPath, link};
use crate::tcp::Transmit;
use crate::wire::ethernet::ethertype;
use crate::wire::ipv4::Ipv4Header;
use crate::wire::tcp::{self, TcpFlags, TcpHeader};
use crate::wire::{self, protocol, put_u16, put_u32};

/// Room for the largest headers: Ethernet's, IPv4's and TCP's with all options.
const PATTERN_LEN: usize = 96;

/// The headers that the segments in the middle have in common.
struct Pattern {
    bytes: [u8; PATTERN_LEN],
    /// Bytes of them.
    len: usize,
    tcp_at: usize,
    /// The sum of TCP's pseudo-header and header without the sequence number, if the device does
    /// not complete the checksum.
    sum: Option<u16>,
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
        let flags = header.flags;
        let mss = u32::from(segment.mss);
        let mut left = segment.payload_len;
        let mut payload = Payload::new(pieces, left);
        let mut pattern = None;
        while left > 0 {
            let len = left.min(mss);
            left -= len;
            header.flags = flags;
            if left > 0 {
                header.flags.remove(TcpFlags::FIN | TcpFlags::PSH);
            }
            if header.seq != segment.header.seq {
                header.flags.remove(TcpFlags::CWR);
            }
            // What is small enough is copied behind its headers.
            let usual = left > 0
                && !header.flags.contains(TcpFlags::CWR)
                && len as usize > INLINE_PAYLOAD_BYTES;
            match path.mac.filter(|_| usual) {
                Some(mac) => {
                    let pattern =
                        pattern.get_or_insert_with(|| self.pattern(path, mac, &header, len));
                    self.emit_patterned(path, pattern, header.seq, &mut payload, len);
                }
                None => self.emit_one(path, &header, &mut payload, len, 0),
            }
            header.seq = header.seq.wrapping_add(len);
        }
    }

    /// The headers of segments like this one, with `len` bytes of payload.
    fn pattern(&self, path: &TcpPath, mac: MacAddr, header: &TcpHeader, len: u32) -> Pattern {
        let mut bytes = [0; PATTERN_LEN];
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
        Pattern { bytes, len: tcp_at + tcp_len, tcp_at, sum }
    }

    /// Writes one frame with the next `len` bytes of `payload`.
    fn emit_patterned(
        &mut self,
        path: &TcpPath,
        pattern: &Pattern,
        seq: u32,
        payload: &mut Payload<'_>,
        len: u32,
    ) {
        let Some(mut cell) = self.data_cell() else { return payload.skip(len) };
        let mut parts: ArrayVec<PacketSlice, WIRE_PIECES> = ArrayVec::new();
        if !payload.take(len, true, &mut parts) && !self.join(payload, len, &mut parts) {
            return;
        }
        if let Some(bytes) = cell.first_chunk_mut() {
            *bytes = pattern.bytes;
        }
        cell.truncate(pattern.len);
        put_u32(&mut cell, pattern.tcp_at + tcp::SEQ_OFFSET, seq);
        let offset = tcp::CHECKSUM_OFFSET;
        let checksum = match pattern.sum {
            None => TxChecksum::Partial { start: pattern.tcp_at as u16, offset: offset as u16 },
            Some(common) => {
                let mut sum = Checksum::new();
                sum.add_u16(common);
                sum.add_u32(seq);
                add_pieces(&mut sum, &parts);
                put_u16(&mut cell, pattern.tcp_at + offset, sum.finish());
                TxChecksum::Complete
            }
        };
        let meta = TxFrame { checksum, header_len: pattern.len as u16, ..TxFrame::default() };
        self.counters.tcp_segments_sent += 1;
        self.push_written(path.hop.iface(), cell, parts, meta);
    }
}
