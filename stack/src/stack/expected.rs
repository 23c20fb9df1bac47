//! The short way in: a whole frame, whose headers lie in its first piece, for a connection.
//!
//! ```text
//!   burst ─▶ plain? ─▶ TCP header ─▶ flow table ─▶ checksum ─▶ Tcb
//!              └───────────┴─────────────┴─────────────┴──▶ the long way, from the beginning
//! ```
//!
//! Nothing is counted, moved or answered before the last check has passed, so that the long way
//! (`input`) sees every other frame as it came. What it asks about addresses needs no asking here:
//! a flow is in the table only with a local address that is ours and a peer that may be answered.

use barewire_driver::device::Segments;
use barewire_driver::{PacketSlice, RxBurst, RxChecksum, RxFrame};

use super::{RECV_RESERVE_PART, Socket, Stack};
use crate::interface::{IfaceId, Medium};
use crate::socket::demux::{FlowKey, Tag};
use crate::tcp::{Outcome, Segment};
use crate::time::Instant;
use crate::wire::plain::{self, PlainIpv4};
use crate::wire::tcp::TcpHeader;
use crate::wire::{ethernet, protocol, pseudo_header};

impl Stack {
    /// Takes received frames in and empties the burst.
    pub fn handle_burst(&mut self, now: Instant, iface: IfaceId, burst: &mut RxBurst) {
        self.move_clock(now);
        burst.drain(|frame, mut segments| {
            if !self.input_expected(iface, &mut segments, frame) {
                self.input_frame(iface, segments.as_slice(), frame);
            }
        });
        self.drain_loopback();
    }

    /// Takes the next frame in if it is an expected one; otherwise leaves it where it is and says
    /// so.
    fn input_expected(
        &mut self,
        id: IfaceId,
        segments: &mut Segments<'_, '_>,
        meta: &RxFrame,
    ) -> bool {
        let (Some(iface), [first, others @ ..]) = (self.egress.iface(id), segments.as_slice())
        else {
            return false;
        };
        let frame: &[u8] = first;
        let link_len = match iface.config.medium {
            Medium::Ip => 0,
            Medium::Ethernet if plain::is_ipv4_for(frame, iface.config.mac) => ethernet::LEN,
            Medium::Ethernet => return false,
        };
        let packet_len = (meta.len as usize).saturating_sub(link_len);
        let Some(ip) = PlainIpv4::parse(&frame[link_len..], packet_len) else { return false };
        let tcp_at = link_len + PlainIpv4::LEN;
        // Only a frame in one piece may have padding: there is nothing behind its first piece.
        let padded = packet_len - PlainIpv4::LEN != ip.payload_len;
        if ip.protocol != protocol::TCP || padded && !others.is_empty() {
            return false;
        }
        let end = frame.len().min(tcp_at + ip.payload_len);
        let parsed = TcpHeader::parse(&frame[tcp_at..end], ip.payload_len);
        let Ok((header, header_len)) = &parsed else { return false };
        let key = FlowKey {
            local: ip.dst,
            remote: ip.src,
            local_port: header.dst_port,
            remote_port: header.src_port,
        };
        let Some(Tag::Connection(index)) = self.flows.find(&key) else { return false };
        let good = match meta.checksum {
            RxChecksum::Good => true,
            RxChecksum::Bad => false,
            RxChecksum::Unknown => is_right(&ip, &frame[tcp_at..end], others),
        };
        let pool = &self.egress.pool;
        // While memory is scarce the long way chooses what to keep.
        if !good || pool.free_slots() < pool.total_slots() / RECV_RESERVE_PART {
            return false;
        }
        let payload_len = (ip.payload_len - header_len) as u32;
        let each = u32::from(meta.gso_bytes);
        let wire_segments = if each == 0 { 1 } else { payload_len.div_ceil(each).max(1) as u16 };
        take_payload(segments, tcp_at + header_len, end, &mut self.scratch);
        self.deliver_expected(index, header, payload_len, wire_segments);
        true
    }

    /// Gives the connection at `index` a segment whose payload is in `scratch`.
    fn deliver_expected(
        &mut self,
        index: u32,
        header: &TcpHeader,
        payload_len: u32,
        wire_segments: u16,
    ) {
        self.egress.counters.rx_frames += 1;
        self.egress.counters.tcp_segments_received += 1;
        let Some(Socket::Connection(connection)) = self.sockets.get_mut(index) else {
            return self.scratch.clear();
        };
        let payload = &mut self.scratch;
        let no_memory = false;
        let segment = Segment { header, payload, payload_len, wire_segments, no_memory };
        let outcome = connection.tcb.handle_segment(self.egress.now, segment);
        if let Some(reason) = connection.tcb.take_drop() {
            self.egress.counters.tcp_dropped(reason);
        }
        self.scratch.clear();
        match outcome {
            Outcome::Continue => self.follow_up(index),
            Outcome::Reset(_) | Outcome::Closed | Outcome::TimeWait => self.settle(index, outcome),
        }
    }
}

/// Moves a frame's payload out of a burst: bytes `from..to` of its first piece, and the others.
#[inline]
fn take_payload(
    segments: &mut Segments<'_, '_>,
    from: usize,
    to: usize,
    out: &mut Vec<PacketSlice>,
) {
    out.clear();
    if let Some(mut first) = segments.next() {
        first.truncate(to);
        first.advance(from);
        if !first.is_empty() {
            out.push(first);
        }
    }
    for piece in segments.filter(|piece| !piece.is_empty()) {
        out.push(piece);
    }
}

/// True if the transport checksum over the first bytes and the other pieces is right.
#[inline]
fn is_right(ip: &PlainIpv4, first: &[u8], others: &[PacketSlice]) -> bool {
    let mut sum = pseudo_header(ip.src.into(), ip.dst.into(), ip.protocol, ip.payload_len as u32);
    sum.add(first);
    for piece in others {
        sum.add(piece);
    }
    sum.finish() == 0
}
