//! TCP segments on their way into a burst: TSO where the device has it, [cutting](super::cut) where
//! it has not.

use std::hint::cold_path;

use std::net::{IpAddr, Ipv4Addr};

use arrayvec::ArrayVec;
use barewire_driver::device::{BURST_FRAMES, Features, TxChecksum};
use barewire_driver::mem::CELL_LEN;
use barewire_driver::{MacAddr, PacketBuf, PacketSlice, TxFrame};

use super::{Egress, Hop, INLINE_PAYLOAD_BYTES};
use crate::socket::demux::FlowKey;
use crate::tcp::{Cut, Transmit, TxLimits};
use crate::wire::ipv4::{DEFAULT_TTL, Ecn, Ipv4Header};
use crate::wire::tcp::{self, TcpFlags, TcpHeader};
use crate::wire::{self, protocol, put_u16};

/// Most bytes of a super-segment where software cuts it: enough to amortise the way down, little
/// enough that one connection does not fill the burst, unless it is the only one that sends.
const SOFTWARE_TSO_BYTES: u32 = 32 << 10;
const SOFTWARE_TSO_ALONE_BYTES: u32 = 64 << 10;

/// Headers of IPv4 and TCP with the options of usual data segments, and more than that of others.
const USUAL_HEADERS: u32 = 60;

/// Most payload pieces of a super-segment.
const MAX_PIECES: u16 = 64;

/// Most pieces of one wire segment; more are copied together.
pub(super) const WIRE_PIECES: usize = 16;

/// What a segment needs besides its header and payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpPath {
    pub(crate) key: FlowKey,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    pub(crate) hop: Hop,
    /// The neighbour's link address, if the caller has resolved it.
    pub(crate) mac: Option<MacAddr>,
}

impl Egress {
    /// What one transmission towards `hop` may be, of a connection that sends `alone` or beside
    /// others, in segments of up to `mss` bytes.
    pub(crate) fn tcp_limits(&self, hop: Hop, alone: bool, mss: u32) -> TxLimits {
        let most = if alone { SOFTWARE_TSO_ALONE_BYTES } else { SOFTWARE_TSO_BYTES };
        let Some(iface) = self.iface(hop.iface()) else {
            return TxLimits { max_bytes: most, max_pieces: MAX_PIECES, cut: Cut::Software };
        };
        if iface.config.features.contains(Features::TSO4) && !matches!(hop, Hop::Local { .. }) {
            let max_pieces = iface.config.tx_max_segs.saturating_sub(1).clamp(1, MAX_PIECES);
            return TxLimits {
                max_bytes: iface.config.tso_max_bytes,
                max_pieces,
                cut: Cut::Device,
            };
        }
        // No more than fills the burst: a peer that asks for small segments would have all header
        // cells of one connection otherwise.
        let room = BURST_FRAMES.saturating_sub(iface.burst.len()).max(1) as u32;
        let payload = u32::from(iface.config.mtu).saturating_sub(USUAL_HEADERS).max(1);
        let max_bytes = most.min(room * mss.min(payload));
        let offload = iface.config.features.contains(Features::TX_CHECKSUM);
        let cut = if offload { Cut::Software } else { Cut::SoftwareSums };
        TxLimits { max_bytes, max_pieces: MAX_PIECES, cut }
    }

    /// Writes one super-segment's frames. `pieces` holds exactly its payload and is drained.
    /// Frames for which memory runs out are lost as on a wire, and counted; TCP sends them again.
    pub(crate) fn emit_tcp(
        &mut self,
        path: &TcpPath,
        segment: &Transmit,
        pieces: &mut Vec<PacketSlice>,
    ) {
        let path = &TcpPath { tos: segment.ecn.in_tos(path.tos), ..*path };
        if let (0, Some(mac)) = (segment.payload_len, path.mac) {
            return self.emit_bare_tcp(path, mac, &segment.header);
        }
        self.emit_payload(path, segment, pieces);
    }

    #[inline(never)]
    fn emit_payload(&mut self, path: &TcpPath, segment: &Transmit, pieces: &mut Vec<PacketSlice>) {
        let mut header = segment.header;
        header.src_port = path.key.local_port;
        header.dst_port = path.key.remote_port;
        let features =
            self.iface(path.hop.iface()).map_or(Features::empty(), |i| i.config.features);
        let local = matches!(path.hop, Hop::Local { .. });
        let cut = segment.payload_len > u32::from(segment.mss);
        if !cut || features.contains(Features::TSO4) && !local {
            let tso_mss = if cut { segment.mss } else { 0 };
            let mut payload = Payload::new(pieces, segment.payload_len);
            self.emit_one(path, &header, &mut payload, segment.payload_len, tso_mss);
        } else {
            self.emit_cut(path, header, segment, pieces);
        }
        pieces.clear();
    }

    /// Writes one frame with the next `len` bytes of `payload`.
    pub(super) fn emit_one(
        &mut self,
        path: &TcpPath,
        header: &TcpHeader,
        payload: &mut Payload<'_>,
        len: u32,
        tso_mss: u16,
    ) {
        let cell = if len == 0 { self.header_cell() } else { self.data_cell() };
        let Some(mut cell) = cell else { return payload.skip(len) };
        let Some(iface) = self.iface(path.hop.iface()) else { return };
        let link_len = iface.link_len();
        let offload = iface.config.features.contains(Features::TX_CHECKSUM);
        let tcp_at = link_len + Ipv4Header::LEN;
        let tcp_len = header.emit(&mut cell[tcp_at..]);
        let headers = tcp_at + tcp_len;
        let inline = len as usize <= INLINE_PAYLOAD_BYTES.min(CELL_LEN - headers);
        let mut parts: ArrayVec<PacketSlice, { MAX_PIECES as usize }> = ArrayVec::new();
        if inline {
            payload.copy_to(&mut cell[headers..headers + len as usize]);
            self.pool.count_copied(len as usize);
            cell.truncate(headers + len as usize);
        } else {
            // More pieces than a frame should have are copied together, counted.
            if !payload.take(len, tso_mss == 0, &mut parts) && !self.join(payload, len, &mut parts)
            {
                return;
            }
            cell.truncate(headers);
        }
        let segment_len = tcp_len as u32 + len;
        self.write_ip(path, &mut cell[link_len..], segment_len as u16);
        let checksum = self.write_checksum(path, &mut cell, tcp_at, segment_len, &parts, offload);
        let meta = TxFrame { checksum, tso_mss, header_len: headers as u16, ..TxFrame::default() };
        self.push_segment(path, cell, &mut parts, meta);
    }

    pub(super) fn write_ip(&self, path: &TcpPath, at: &mut [u8], segment_len: u16) {
        let mut ip = Ipv4Header::new(path.key.local, path.key.remote, protocol::TCP, 0);
        ip.dont_fragment = true;
        ip.ttl = path.ttl;
        ip.tos = path.tos;
        ip.total_len = Ipv4Header::LEN as u16 + segment_len;
        ip.emit(at);
    }

    /// Fills in the checksum, or the pseudo-header's sum for the device to go on from. With TSO
    /// that sum is over the whole super-segment's length, as virtio and Linux have it.
    fn write_checksum(
        &self,
        path: &TcpPath,
        cell: &mut PacketBuf,
        tcp_at: usize,
        segment_len: u32,
        parts: &[PacketSlice],
        offload: bool,
    ) -> TxChecksum {
        let (src, dst) = (IpAddr::V4(path.key.local), IpAddr::V4(path.key.remote));
        let mut sum = wire::pseudo_header(src, dst, protocol::TCP, segment_len);
        let field = tcp_at + tcp::CHECKSUM_OFFSET;
        let local = matches!(path.hop, Hop::Local { .. });
        if offload || local {
            put_u16(cell, field, sum.partial());
            let offset = tcp::CHECKSUM_OFFSET as u16;
            return TxChecksum::Partial { start: tcp_at as u16, offset };
        }
        sum.add(&cell[tcp_at..]);
        parts.iter().for_each(|part| sum.add(part));
        put_u16(cell, field, sum.finish());
        TxChecksum::Complete
    }

    fn push_segment(
        &mut self,
        path: &TcpPath,
        cell: PacketBuf,
        parts: &mut ArrayVec<PacketSlice, { MAX_PIECES as usize }>,
        meta: TxFrame,
    ) {
        self.counters.tcp_segments_sent += 1;
        let parts = parts.drain(..);
        match path.mac {
            Some(mac) => self.push_frame(path.hop.iface(), mac, cell, parts, meta),
            None => self.dispatch(path.hop, cell, parts.collect(), meta),
        }
    }

    /// Copies the next `len` bytes together, into as few slots as hold them; false, and nothing in
    /// `parts`, if the pool has not so many.
    pub(super) fn join<const N: usize>(
        &mut self,
        payload: &mut Payload<'_>,
        len: u32,
        parts: &mut ArrayVec<PacketSlice, N>,
    ) -> bool {
        let mut left = len as usize;
        while left > 0 {
            let Some(mut slot) = self.pool.alloc().filter(|_| !parts.is_full()) else {
                self.counters.tx_no_buffer += 1;
                payload.skip(left as u32);
                parts.clear();
                return false;
            };
            slot.truncate(left);
            payload.copy_to(&mut slot);
            left -= slot.len();
            parts.push(slot.freeze());
        }
        self.pool.count_copied(len as usize);
        self.counters.tx_joined += 1;
        true
    }
}

/// A position in a super-segment's payload.
pub(super) struct Payload<'a> {
    pieces: &'a [PacketSlice],
    /// Bytes of the first piece that are gone.
    offset: usize,
}

impl<'a> Payload<'a> {
    pub(super) fn new(pieces: &'a [PacketSlice], len: u32) -> Payload<'a> {
        debug_assert_eq!(pieces.iter().map(|p| p.len()).sum::<usize>(), len as usize);
        Payload { pieces, offset: 0 }
    }

    /// Calls `f` with each piece's next bytes, `len` in all, and moves on.
    fn advance(&mut self, len: u32, mut f: impl FnMut(&PacketSlice, std::ops::Range<usize>)) {
        let mut left = len as usize;
        while left > 0 {
            let Some(piece) = self.pieces.first() else { return };
            let take = left.min(piece.len() - self.offset);
            f(piece, self.offset..self.offset + take);
            left -= take;
            self.offset += take;
            if self.offset == piece.len() {
                self.pieces = &self.pieces[1..];
                self.offset = 0;
            }
        }
    }

    /// The piece of which the next `len` bytes are all, if there is one.
    #[inline]
    pub(super) fn next_whole(&self, len: u32) -> Option<&'a PacketSlice> {
        self.pieces.first().filter(|piece| self.offset == 0 && piece.len() == len as usize)
    }

    /// The next `len` bytes, if they lie in one piece.
    #[inline]
    pub(super) fn take_within(&mut self, len: u32) -> Option<PacketSlice> {
        let piece = self.pieces.first()?;
        let end = self.offset + len as usize;
        if end > piece.len() {
            return None;
        }
        let part = piece.slice(self.offset..end);
        self.offset = end;
        if end == piece.len() {
            self.pieces = &self.pieces[1..];
            self.offset = 0;
        }
        Some(part)
    }

    pub(super) fn skip(&mut self, len: u32) {
        self.advance(len, |_, _| {});
    }

    fn copy_to(&mut self, out: &mut [u8]) {
        let mut at = 0;
        self.advance(out.len() as u32, |piece, range| {
            out[at..at + range.len()].copy_from_slice(&piece[range.clone()]);
            at += range.len();
        });
    }

    /// References to the next `len` bytes, or false (and nothing taken) if they lie in too many
    /// pieces.
    pub(super) fn take<const N: usize>(
        &mut self,
        len: u32,
        one_frame: bool,
        parts: &mut ArrayVec<PacketSlice, N>,
    ) -> bool {
        let most = if one_frame { WIRE_PIECES.min(N) } else { N };
        let mut ahead = Payload { pieces: self.pieces, offset: self.offset };
        let mut fits = true;
        ahead.advance(len, |piece, range| {
            if parts.len() < most {
                parts.push(piece.slice(range));
            } else {
                fits = false;
            }
        });
        if fits {
            *self = ahead;
        } else {
            parts.clear();
        }
        fits
    }
}

impl Egress {
    /// Sends a control segment (no payload) of a connection that has no `Tcb`.
    pub(crate) fn emit_control(&mut self, key: FlowKey, header: TcpHeader) {
        self.emit_control_as(key, header, DEFAULT_TTL, 0);
    }

    /// As [`Egress::emit_control`], with the settings of a socket.
    pub(crate) fn emit_control_as(&mut self, key: FlowKey, header: TcpHeader, ttl: u8, tos: u8) {
        if header.flags.contains(TcpFlags::SYN) && self.answer_syn(&key, &header, (ttl, tos)) {
            return;
        }
        let Some((hop, mac)) = self.route_recent(key.remote) else {
            cold_path();
            self.counters.tx_no_route += 1;
            return;
        };
        if !self.has_reply_room(hop.iface()) {
            return;
        }
        let ecn = Ecn::NotEct;
        let path = TcpPath { key, ttl, tos: ecn.in_tos(tos), hop, mac };
        match mac {
            Some(mac) => self.emit_bare_tcp(&path, mac, &header),
            None => {
                cold_path();
                let segment = Transmit { header, payload_len: 0, mss: u16::MAX, ecn };
                self.emit_tcp(&path, &segment, &mut Vec::new());
            }
        }
    }

    /// The most payload that a TCP segment without options may have towards `remote`: what the MSS
    /// option announces (RFC 9293 §3.7.1).
    pub(crate) fn tcp_mss(&mut self, remote: Ipv4Addr) -> u16 {
        let mtu = self.hop_recent(remote).map_or(576, |hop| self.mtu(hop));
        mtu.saturating_sub(40).max(64)
    }
}
