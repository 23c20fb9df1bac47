//! The short way in: a whole frame, whose headers lie in its first piece, for a connection or a UDP
//! socket.
//!
//! ```text
//!   burst ─▶ plain? ─┬─▶ TCP header ─▶ flow table ─▶ checksum ─▶ Tcb
//!              │     └─▶ UDP header ─▶ checksum ─▶ port ─▶ socket
//!              └───────────┴──────────────┴─────────┴──▶ the long way, from the beginning
//! ```
//!
//! Nothing is counted, moved or answered before the last check has passed, so that the long way
//! (`input`) sees every other frame as it came. What it asks about the addresses of a segment needs
//! no asking here: a flow is in the table only with a local address that is ours and a peer that may
//! be answered.

use std::net::SocketAddr;
use std::ops::Range;

use barewire_driver::device::Segments;
use barewire_driver::mem::Checksum;
use barewire_driver::{PacketSlice, RxBurst, RxChecksum, RxFrame};

use super::input::wire_segments;
use super::{Socket, Stack};
use crate::interface::{IfaceId, Interface, Medium};
use crate::socket::demux::{FlowKey, Tag};
use crate::socket::{SocketId, SocketKind, udp};
use crate::tcp::{Memory, Outcome, Segment};
use crate::time::Instant;
use crate::wire::ipv4::Ecn;
use crate::wire::plain::{self, PlainIpv4};
use crate::wire::tcp::{TcpFlags, TcpHeader};
use crate::wire::udp::UdpHeader;
use crate::wire::{ethernet, protocol};

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

    /// Takes the frame in if it is an expected one; otherwise leaves it as it is and says so.
    #[inline]
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
        // Only a frame in one piece may have padding: there is nothing behind its first piece.
        if packet_len - PlainIpv4::LEN != ip.payload_len && !others.is_empty() {
            return false;
        }
        let at = link_len + PlainIpv4::LEN;
        let bytes = &frame[at..frame.len().min(at + ip.payload_len)];
        let packet = Plain { ip, bytes, others, checksum: meta.checksum };
        match ip.protocol {
            protocol::TCP => {
                let mut header = TcpHeader::default();
                let end = at + bytes.len();
                let Some(found) = self.find_expected(id, &packet, &mut header) else {
                    return false;
                };
                take_payload(segments, at + found.header_len, end, &mut self.scratch);
                match found.flow {
                    Flow::Connection(index) => {
                        self.deliver_expected(index, &found, &header, meta.gso_bytes);
                    }
                    Flow::Other(key) => self.deliver_other(key, &found, &header, meta.gso_bytes),
                }
            }
            protocol::UDP => {
                let payload = at + UdpHeader::LEN..at + bytes.len();
                let Some((socket, from)) = self.find_receiver(iface, &packet) else { return false };
                self.deliver_datagram(socket, from, segments, payload);
            }
            _ => return false,
        }
        true
    }

    /// What a segment is for.
    #[inline]
    fn find_expected(
        &mut self,
        iface: IfaceId,
        packet: &Plain<'_>,
        header: &mut TcpHeader,
    ) -> Option<Found> {
        let header_len = header.read(packet.bytes, packet.ip.payload_len).ok()?;
        let key = packet.key(header.dst_port, header.src_port);
        let opens = header.flags & (TcpFlags::SYN | TcpFlags::ACK) == TcpFlags::SYN;
        let flow = match self.flows.find(&key) {
            // A SYN may be a new connection's, for which an old one makes room.
            Some(Tag::Connection(index)) if !opens => Flow::Connection(index),
            Some(_) | None if self.is_usual(iface, &key) => Flow::Other(key),
            Some(_) | None => return None,
        };
        let memory = self.memory();
        if memory == Memory::Exhausted {
            // The long way chooses what to keep.
            return None;
        }
        if !packet.is_right() {
            return None;
        }
        let payload_len = (packet.ip.payload_len - header_len) as u32;
        let ecn = Ecn::of_tos(packet.ip.tos);
        Some(Found { flow, header_len, payload_len, ecn, memory })
    }

    /// A segment of a flow that may have no connection is between addresses that may talk, and this
    /// engine's.
    fn is_usual(&self, iface: IfaceId, key: &FlowKey) -> bool {
        self.egress.owner_of(key.local).is_some()
            && !self.egress.iface(iface).is_none_or(|iface| iface.is_bad_source(key.remote))
            && (self.share.engines == 1 || self.owner(key) == self.share.engine)
    }

    /// Gives a segment, whose payload is in `scratch`, to whatever is there of its flow: that opens
    /// and ends connections.
    fn deliver_other(&mut self, key: FlowKey, found: &Found, header: &TcpHeader, gso_bytes: u16) {
        let &Found { payload_len, ecn, memory, .. } = found;
        let wire_segments = wire_segments(payload_len, gso_bytes);
        self.egress.counters.rx_frames += 1;
        self.egress.counters.tcp_segments_received += 1;
        let mut payload = std::mem::take(&mut self.scratch);
        let segment =
            Segment { header, payload: &mut payload, payload_len, wire_segments, ecn, memory };
        self.deliver_tcp(key, segment);
        payload.clear();
        self.scratch = payload;
    }

    /// Gives a connection a segment whose payload is in `scratch`.
    fn deliver_expected(&mut self, index: u32, found: &Found, header: &TcpHeader, gso_bytes: u16) {
        let &Found { payload_len, ecn, memory, .. } = found;
        let wire_segments = wire_segments(payload_len, gso_bytes);
        self.egress.counters.rx_frames += 1;
        self.egress.counters.tcp_segments_received += 1;
        let Some(Socket::Connection(connection)) = self.sockets.get_mut(index) else {
            return self.scratch.clear();
        };
        let payload = &mut self.scratch;
        let segment = Segment { header, payload, payload_len, wire_segments, ecn, memory };
        let tcb = connection.tcb.wake();
        let outcome = tcb.handle_segment(self.egress.now, segment);
        if let Some(reason) = tcb.take_drop() {
            self.egress.counters.tcp_dropped(reason);
        }
        self.scratch.clear();
        match outcome {
            Outcome::Continue => self.follow_up(index),
            Outcome::Reset(_) | Outcome::Closed | Outcome::TimeWait => self.settle(index, outcome),
        }
    }

    /// The UDP socket that a datagram in one piece is for, and its sender.
    fn find_receiver(
        &self,
        iface: &Interface,
        packet: &Plain<'_>,
    ) -> Option<(SocketId, SocketAddr)> {
        let header = UdpHeader::parse(packet.bytes, packet.ip.payload_len).ok()?;
        let key = packet.key(header.dst_port, header.src_port);
        let usual = packet.others.is_empty()
            && usize::from(header.len) == packet.ip.payload_len
            && self.egress.owner_of(key.local).is_some()
            && !iface.is_bad_source(key.remote)
            && (self.share.engines == 1 || self.owner(&key) == self.share.engine);
        // RFC 768: zero means that the sender computed none.
        if !usual || header.checksum != 0 && !packet.is_right() {
            return None;
        }
        let (to, from) = ((key.local, key.local_port), (key.remote, key.remote_port));
        let id = self.find_datagram_socket(SocketKind::Udp, to, from)?;
        Some((id, key.remote_addr()))
    }

    /// Queues the bytes of a frame in one piece at a socket.
    fn deliver_datagram(
        &mut self,
        id: SocketId,
        from: SocketAddr,
        segments: &mut Segments<'_, '_>,
        bytes: Range<usize>,
    ) {
        self.egress.counters.rx_frames += 1;
        self.egress.counters.udp_datagrams_received += 1;
        let (Some(mut piece), Some(Socket::Datagram(socket))) =
            (segments.next(), self.sockets.get_held_mut(id.index, id.generation))
        else {
            return;
        };
        piece.truncate(bytes.end);
        piece.advance(bytes.start);
        if socket.deliver(udp::Datagram::whole(from, piece)).is_err() {
            self.egress.counters.udp_queue_full += 1;
        } else if !std::mem::replace(&mut socket.in_event_list, true) {
            self.events.push_back(id);
        }
    }
}

/// A frame whose headers below the transport's are plain.
struct Plain<'a> {
    ip: PlainIpv4,
    /// Transport header and payload, as far as they lie in the first piece.
    bytes: &'a [u8],
    others: &'a [PacketSlice],
    checksum: RxChecksum,
}

/// What a segment is for.
enum Flow {
    /// A connection, which it does not open.
    Connection(u32),
    /// Anything else: a listener, or a connection that begins or has ended.
    Other(FlowKey),
}

/// What a segment is found to be.
struct Found {
    flow: Flow,
    header_len: usize,
    payload_len: u32,
    ecn: Ecn,
    memory: Memory,
}

impl Plain<'_> {
    #[inline]
    fn key(&self, local_port: u16, remote_port: u16) -> FlowKey {
        FlowKey { local: self.ip.dst, remote: self.ip.src, local_port, remote_port }
    }

    /// True if the transport checksum is right, or was found right before.
    #[inline]
    fn is_right(&self) -> bool {
        match self.checksum {
            RxChecksum::Good => true,
            RxChecksum::Bad => false,
            RxChecksum::Unknown => {
                let mut sum = Checksum::new();
                self.ip.add_pseudo_header(&mut sum);
                sum.add(self.bytes);
                for piece in self.others {
                    sum.add(piece);
                }
                sum.finish() == 0
            }
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
