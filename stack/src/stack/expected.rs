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

use std::net::Ipv4Addr;
use std::ops::Range;

use barewire_driver::device::Segments;
use barewire_driver::mem::Checksum;
use barewire_driver::{PacketSlice, RxBurst, RxChecksum, RxFrame};

use super::familiar::Single;
use super::input::wire_segments;
use super::settle::follow_up_held;
use super::{Socket, Stack};
use crate::interface::{Egress, IfaceId, Interface, Medium};
use crate::socket::conn::Holder;
use crate::socket::demux::{FlowKey, Tag};
use crate::socket::line::Line;
use crate::socket::udp::DatagramSocket;
use crate::socket::{SocketId, SocketKind};
use crate::tcp::{Memory, Text};
use crate::time::Instant;
use crate::wire::ipv4::Ecn;
use crate::wire::plain::{self, PlainIpv4};
use crate::wire::tcp::{PlainTcp, TcpHeader};
use crate::wire::udp::UdpHeader;
use crate::wire::{ethernet, protocol};

impl Stack {
    /// Takes received frames in and empties the burst.
    pub fn handle_burst(&mut self, now: Instant, iface: IfaceId, burst: &mut RxBurst) {
        self.move_clock(now);
        if burst.only().is_some() {
            self.input_single(iface, burst);
        } else {
            self.look_into(iface, burst);
            self.input_many(iface, burst);
        }
        self.drain_loopback();
    }

    /// Takes in a frame in one piece.
    #[inline(always)]
    pub(super) fn input_piece(&mut self, iface: IfaceId, piece: PacketSlice, meta: &RxFrame) {
        self.input_single(iface, &mut Single { meta, piece: Some(piece) });
    }

    /// Takes in a frame in one piece of a flow that is not familiar, or with anything unusual.
    #[inline(never)]
    pub(super) fn input_unfamiliar(&mut self, iface: IfaceId, piece: PacketSlice, meta: &RxFrame) {
        if let Err(piece) = self.input_calm(iface, piece, meta) {
            self.input_pieces(iface, &mut Pieces::One(Some(piece)), meta);
        }
    }

    /// Gives the next segment to a connection on which nothing unusual goes on, and a datagram to the
    /// socket that has its port to itself; gives back what is anything else.
    #[inline(always)]
    fn input_calm(
        &mut self,
        id: IfaceId,
        piece: PacketSlice,
        meta: &RxFrame,
    ) -> Result<(), PacketSlice> {
        let frame: &[u8] = &piece;
        let Some(iface) = self.egress.iface(id) else { return Err(piece) };
        if iface.config.medium != Medium::Ethernet || meta.gso_bytes != 0 {
            return Err(piece);
        }
        let Some((ip, bytes)) = plain::packet_for(frame, iface.config.mac) else {
            return Err(piece);
        };
        let packet = Plain { ip, bytes, others: &[], checksum: meta.checksum };
        let start = ethernet::LEN + PlainIpv4::LEN;
        let end = start + bytes.len();
        if ip.protocol == protocol::UDP {
            let Some((sole, from)) = self.find_sole_receiver(id, iface, &packet) else {
                return Err(piece);
            };
            let Some(Socket::Datagram(socket)) =
                self.sockets.get_held_mut(sole.index, sole.generation)
            else {
                return Err(piece);
            };
            let usual = socket.score(packet.ip.dst, from).is_some()
                && (socket.is_bound_to(packet.ip.dst)
                    || self.egress.owner_of(packet.ip.dst).is_some());
            if !usual {
                return Err(piece);
            }
            self.familiar.remember(id, &piece, sole);
            let bytes = start + UdpHeader::LEN..end;
            deliver_whole(&mut self.egress, &mut self.events, sole, socket, from, piece, bytes);
            return Ok(());
        }
        if ip.protocol != protocol::TCP {
            return Err(piece);
        }
        let Some((found, header, header_len)) = self.find_flow(&packet) else {
            return self.input_other(id, piece, (ip.src, ip.dst), (ip.tos, end), meta.checksum);
        };
        let text = Text {
            len: (bytes.len() - header_len) as u32,
            wire_segments: 1,
            ecn: Ecn::of_tos(ip.tos),
            memory: self.memory(),
        };
        if !packet.is_right() {
            return Err(piece);
        }
        match found {
            Found::Connection(index) => self.deliver_calm(id, index, (&header, &text), piece, end),
            Found::HalfOpen(index) => {
                let to = Found::HalfOpen(index);
                self.deliver_unexpected(to, header, (text.len, text.ecn), piece, end)
            }
        }
    }

    /// The same once the connection is found, and the segment is right: it ends at `end`.
    #[inline(always)]
    fn deliver_calm(
        &mut self,
        on: IfaceId,
        index: u32,
        (header, text): (&PlainTcp, &Text),
        mut piece: PacketSlice,
        end: usize,
    ) -> Result<(), PacketSlice> {
        let Some((generation, Socket::Connection(connection))) = self.sockets.entry_mut(index)
        else {
            return Err(piece);
        };
        let Some(tcb) = connection.tcb.whole_calm() else { return Err(piece) };
        if !tcb.expects(header, text) {
            let to = Found::Connection(index);
            return self.deliver_unexpected(to, *header, (text.len, text.ecn), piece, end);
        }
        let id = SocketId { index, generation };
        self.familiar.remember(on, &piece, id);
        self.egress.counters.rx_frames += 1;
        self.egress.counters.tcp_segments_received += 1;
        piece.truncate(end);
        piece.advance(end - text.len as usize);
        tcb.take_expected(self.egress.now, header, text, Some(piece));
        let (list, wheel, pacing) = (&mut self.tx_list, &mut self.wheel, &mut self.pacing);
        if follow_up_held(list, wheel, pacing, &mut self.events, id, connection) {
            self.release_held_back(index);
        }
        Ok(())
    }

    /// As [`Stack::find_receiver`], for a socket that has its port to itself, if it was that of the
    /// last datagram. Whether the socket takes the datagram is not asked yet.
    #[inline(always)]
    fn find_sole_receiver(
        &self,
        on: IfaceId,
        iface: &Interface,
        packet: &Plain<'_>,
    ) -> Option<(SocketId, (Ipv4Addr, u16))> {
        let header = UdpHeader::parse(packet.bytes, packet.ip.payload_len).ok()?;
        let SoleReceiver { port, socket: id, iface: known, peer } = self.sole_receiver?;
        if port != header.dst_port || usize::from(header.len) != packet.ip.payload_len {
            return None;
        }
        let from = (packet.ip.src, header.src_port);
        let usual = self.share.engines == 1
            && ((known, peer) == (on, from.0) || !iface.is_bad_source(from.0))
            && (header.checksum == 0 || packet.is_right());
        usual.then_some((id, from))
    }

    /// Takes any other frame in.
    #[inline(never)]
    pub(super) fn input_pieces(
        &mut self,
        iface: IfaceId,
        pieces: &mut Pieces<'_, '_>,
        meta: &RxFrame,
    ) {
        if !self.input_expected(iface, pieces, meta) {
            self.input_frame(iface, pieces.as_slice(), meta);
        }
    }

    /// Takes the frame in if it is an expected one; otherwise leaves it as it is and says so.
    #[inline]
    fn input_expected(
        &mut self,
        id: IfaceId,
        segments: &mut Pieces<'_, '_>,
        meta: &RxFrame,
    ) -> bool {
        let Some((packet, at)) = self.plain(id, segments.as_slice(), meta) else { return false };
        let (ip, bytes) = (packet.ip, packet.bytes);
        match ip.protocol {
            protocol::TCP => {
                let (gso_bytes, end) = (meta.gso_bytes, at + bytes.len());
                if let Some((found, header, header_len)) = self.find_flow(&packet) {
                    let text = self.admit(&packet, header_len, gso_bytes);
                    let Some(text) = text else { return false };
                    let pieces = payload(segments, at + header_len..end);
                    match found {
                        Found::Connection(index) => {
                            self.deliver_expected(index, &header, &text, pieces);
                        }
                        Found::HalfOpen(index) => {
                            self.deliver_half_open(index, &header, &text, pieces);
                        }
                    }
                } else {
                    // By reference: the header is large enough for its copies to be seen in
                    // profiles.
                    let mut header = TcpHeader::default();
                    let found = self.find_other(id, &packet, &mut header);
                    let Some((key, header_len)) = found else { return false };
                    let text = self.admit(&packet, header_len, gso_bytes);
                    let Some(text) = text else { return false };
                    let pieces = payload(segments, at + header_len..end);
                    self.deliver_other(key, &header, &text, pieces);
                }
            }
            protocol::UDP => {
                let payload = at + UdpHeader::LEN..at + bytes.len();
                let Some(iface) = self.egress.iface(id) else { return false };
                let (found, peer) = (self.find_receiver(iface, &packet), ip.src);
                let Some((socket, from)) = found else { return false };
                let Some(piece) = segments.next() else { return false };
                self.remember_receiver(socket, id, peer);
                let id = socket;
                if let Some(Socket::Datagram(socket)) =
                    self.sockets.get_held_mut(id.index, id.generation)
                {
                    let (egress, events) = (&mut self.egress, &mut self.events);
                    deliver_whole(egress, events, id, socket, from, piece, payload);
                }
            }
            _ => return false,
        }
        true
    }

    /// The frame, if its headers below the transport's are plain, and where the transport's begins.
    #[inline(always)]
    pub(super) fn plain<'a>(
        &self,
        id: IfaceId,
        segments: &'a [PacketSlice],
        meta: &RxFrame,
    ) -> Option<(Plain<'a>, usize)> {
        let (iface, [first, others @ ..]) = (self.egress.iface(id)?, segments) else {
            return None;
        };
        let frame: &[u8] = first;
        let link_len = match iface.config.medium {
            Medium::Ip => 0,
            Medium::Ethernet if plain::is_ipv4_for(frame, iface.config.mac) => ethernet::LEN,
            Medium::Ethernet => return None,
        };
        let packet_len = (meta.len as usize).saturating_sub(link_len);
        let ip = PlainIpv4::parse(&frame[link_len..], packet_len)?;
        // Only a frame in one piece may have padding: there is nothing behind its first piece.
        if packet_len - PlainIpv4::LEN != ip.payload_len && !others.is_empty() {
            return None;
        }
        let at = link_len + PlainIpv4::LEN;
        let bytes = &frame[at..frame.len().min(at + ip.payload_len)];
        Some((Plain { ip, bytes, others, checksum: meta.checksum }, at))
    }

    /// The connection, half open or not, that a segment is for, its header and the length of that.
    #[inline(always)]
    pub(super) fn find_flow(&mut self, packet: &Plain<'_>) -> Option<(Found, PlainTcp, usize)> {
        // A SYN, which is not plain, may be a new connection's for which an old one makes room.
        let (header, header_len) = PlainTcp::parse(packet.bytes, packet.ip.payload_len)?;
        let key = packet.key(header.dst_port, header.src_port);
        let found = match self.flows.find(&key) {
            Some(Tag::Connection(index)) => Found::Connection(index),
            Some(Tag::HalfOpen(index)) => Found::HalfOpen(index),
            Some(Tag::TimeWait(_)) | None => return None,
        };
        Some((found, header, header_len))
    }

    /// The flow of a segment that opens or ends a connection, or has options that are not usual, and
    /// the length of its header, if it is between addresses that may talk, and this engine's.
    #[inline(always)]
    pub(super) fn find_other(
        &self,
        iface: IfaceId,
        packet: &Plain<'_>,
        header: &mut TcpHeader,
    ) -> Option<(FlowKey, usize)> {
        let header_len = header.read(packet.bytes, packet.ip.payload_len).ok()?;
        // From where they came: as they were just written, one by one, they cannot be read at once
        // without waiting for the store buffer.
        let &[a, b, c, d] = packet.bytes.first_chunk()?;
        let key = packet.key(u16::from_be_bytes([c, d]), u16::from_be_bytes([a, b]));
        let usual = self.egress.owner_of(key.local).is_some()
            && !self.egress.iface(iface).is_none_or(|iface| iface.is_bad_source(key.remote))
            && (self.share.engines == 1 || self.owner(&key) == self.share.engine);
        usual.then_some((key, header_len))
    }

    /// Gives a half-open connection its segment.
    #[inline(always)]
    pub(super) fn deliver_half_open(
        &mut self,
        index: u32,
        header: &PlainTcp,
        text: &Text,
        pieces: impl Iterator<Item = PacketSlice>,
    ) {
        let header = TcpHeader::from(*header);
        self.with_payload(text, pieces, |stack, payload| {
            stack.handle_half_open(index, text.segment(&header, payload));
        });
    }

    /// Gives a segment to whatever is there of its flow: that opens and ends connections.
    #[inline(always)]
    pub(super) fn deliver_other(
        &mut self,
        key: FlowKey,
        header: &TcpHeader,
        text: &Text,
        pieces: impl Iterator<Item = PacketSlice>,
    ) {
        self.with_payload(text, pieces, |stack, payload| {
            stack.deliver_tcp(key, text.segment(header, payload));
        });
    }

    /// Lends the pieces of a segment's text to `f`, in a vector that is used again.
    #[inline]
    fn with_payload(
        &mut self,
        text: &Text,
        pieces: impl Iterator<Item = PacketSlice>,
        f: impl FnOnce(&mut Stack, &mut Vec<PacketSlice>),
    ) {
        if text.len == 0 {
            let mut nothing = Vec::new();
            f(self, &mut nothing);
            if nothing.capacity() == 0 {
                // Spares the call that dropping it is.
                std::mem::forget(nothing);
            }
            return;
        }
        let mut payload = std::mem::take(&mut self.scratch);
        payload.clear();
        payload.extend(pieces);
        f(self, &mut payload);
        payload.clear();
        self.scratch = payload;
    }

    /// The last checks, of checksum and memory: then the segment is counted, and taken.
    #[inline(always)]
    pub(super) fn admit(
        &mut self,
        packet: &Plain<'_>,
        header_len: usize,
        gso_bytes: u16,
    ) -> Option<Text> {
        if !packet.is_right() {
            return None;
        }
        let len = (packet.ip.payload_len - header_len) as u32;
        self.admit_right(len, wire_segments(len, gso_bytes), Ecn::of_tos(packet.ip.tos))
    }

    /// As [`Stack::admit`], for a segment that is right.
    #[inline]
    pub(super) fn admit_right(&mut self, len: u32, wire_segments: u16, ecn: Ecn) -> Option<Text> {
        let memory = self.memory();
        // Where it is exhausted, the long way chooses what to keep.
        if memory == Memory::Exhausted {
            return None;
        }
        self.egress.counters.rx_frames += 1;
        self.egress.counters.tcp_segments_received += 1;
        Some(Text { len, wire_segments, ecn, memory })
    }

    /// Gives a connection its segment.
    #[inline]
    pub(super) fn deliver_expected(
        &mut self,
        index: u32,
        header: &PlainTcp,
        text: &Text,
        pieces: impl Iterator<Item = PacketSlice>,
    ) {
        let now = self.egress.now;
        let Some((generation, Socket::Connection(connection))) = self.sockets.entry_mut(index)
        else {
            return;
        };
        let tcb = connection.tcb.wake_calm();
        if tcb.expects(header, text) {
            tcb.take_expected(now, header, text, pieces);
            debug_assert_ne!(connection.holder, Holder::Nobody, "an orphan expects nothing");
            let id = SocketId { index, generation };
            let (list, wheel, pacing) = (&mut self.tx_list, &mut self.wheel, &mut self.pacing);
            if follow_up_held(list, wheel, pacing, &mut self.events, id, connection) {
                self.release_held_back(index);
            }
            return;
        }
        self.take_unexpected(index, header, text, pieces);
    }

    /// The UDP socket that a datagram in one piece is for, and its sender.
    fn find_receiver(
        &self,
        iface: &Interface,
        packet: &Plain<'_>,
    ) -> Option<(SocketId, (Ipv4Addr, u16))> {
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
        Some((id, from))
    }

    /// The next datagram to the socket's port finds it at once, if no other socket has the port.
    fn remember_receiver(&mut self, id: SocketId, iface: IfaceId, peer: Ipv4Addr) {
        if let Some(Socket::Datagram(socket)) = self.sockets.get_held(id.index, id.generation)
            && let Some(bound) = &socket.bound
        {
            let port = bound.lease.port();
            let sockets = self.datagrams.get(&(SocketKind::Udp, port));
            let sole = sockets.is_some_and(|sockets| sockets[..] == [id]);
            self.sole_receiver = sole.then_some(SoleReceiver { port, socket: id, iface, peer });
        }
    }
}

/// Queues the bytes of a frame in one piece at a socket.
#[inline(always)]
pub(super) fn deliver_whole(
    egress: &mut Egress,
    events: &mut Line<SocketId>,
    id: SocketId,
    socket: &mut DatagramSocket,
    from: (Ipv4Addr, u16),
    mut piece: PacketSlice,
    bytes: Range<usize>,
) {
    egress.counters.rx_frames += 1;
    egress.counters.udp_datagrams_received += 1;
    piece.narrow(bytes);
    if !socket.deliver_whole(from, piece) {
        egress.counters.udp_queue_full += 1;
    } else if !std::mem::replace(&mut socket.in_event_list, true) {
        events.push_back(id);
    }
}

/// The last UDP port that a datagram came to and that a single socket is bound to.
#[derive(Clone, Copy, Debug)]
pub(super) struct SoleReceiver {
    port: u16,
    socket: SocketId,
    /// Where the datagram came from: an address that may be answered on that interface.
    iface: IfaceId,
    peer: Ipv4Addr,
}

/// What a plain segment is for.
pub(super) enum Found {
    Connection(u32),
    HalfOpen(u32),
}

/// A frame whose headers below the transport's are plain.
pub(super) struct Plain<'a> {
    pub(super) ip: PlainIpv4,
    /// Transport header and payload, as far as they lie in the first piece.
    pub(super) bytes: &'a [u8],
    pub(super) others: &'a [PacketSlice],
    pub(super) checksum: RxChecksum,
}

impl Plain<'_> {
    #[inline]
    pub(super) fn key(&self, local_port: u16, remote_port: u16) -> FlowKey {
        FlowKey { local: self.ip.dst, remote: self.ip.src, local_port, remote_port }
    }

    /// True if the transport checksum is right, or was found right before.
    #[inline(always)]
    pub(super) fn is_right(&self) -> bool {
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

/// The pieces of a frame that have not been taken yet.
pub(super) enum Pieces<'a, 'b> {
    One(Option<PacketSlice>),
    Many(Segments<'a, 'b>),
}

impl Pieces<'_, '_> {
    #[inline]
    pub(super) fn as_slice(&self) -> &[PacketSlice] {
        match self {
            Pieces::One(piece) => piece.as_slice(),
            Pieces::Many(segments) => segments.as_slice(),
        }
    }
}

/// Moves bytes `range` of a frame's first piece, unless there are none, and its others, to the end
/// of `out`.
#[inline]
pub(super) fn take_text(
    pieces: &mut impl Iterator<Item = PacketSlice>,
    range: Range<usize>,
    out: &mut Vec<PacketSlice>,
) {
    if let Some(mut first) = pieces.next() {
        first.truncate(range.end);
        first.advance(range.start);
        if !first.is_empty() {
            out.push(first);
        }
    }
    out.extend(pieces);
}

impl Iterator for Pieces<'_, '_> {
    type Item = PacketSlice;

    #[inline]
    fn next(&mut self) -> Option<PacketSlice> {
        match self {
            Pieces::One(piece) => piece.take(),
            Pieces::Many(segments) => segments.next(),
        }
    }
}

/// Moves a frame's payload out of a burst: bytes `range` of its first piece, and the others.
#[inline]
fn payload(
    segments: &mut Pieces<'_, '_>,
    range: Range<usize>,
) -> impl Iterator<Item = PacketSlice> {
    let first = segments.next().map(|mut first| {
        first.truncate(range.end);
        first.advance(range.start);
        first
    });
    first.into_iter().chain(segments).filter(|piece| !piece.is_empty())
}
