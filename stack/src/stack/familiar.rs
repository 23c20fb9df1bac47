//! The shortest way in: the next frame of a flow that one came of before.
//!
//! ```text
//!   frame ─▶ addresses, type, ports: like an earlier one? ─▶ length, sums ─▶ socket, at once
//!               └── no, or anything unusual: as it came, on the way of the others (`expected`) ──▶
//! ```
//!
//! What was asked of the earlier frame, and would be answered the same again, is not asked of this one:
//! whether the interface, both addresses and the kind of packet are such as may be taken in, and which
//! socket the flow is of. A connection is known by its handle, which no other ever has; as long as it is
//! calm, or in the flow table, the flow is its own. A datagram socket has its port to itself as long as
//! none has been bound, connected or closed.

use std::net::Ipv4Addr;

use barewire_driver::mem::Checksum;
use barewire_driver::{PacketSlice, RxBurst, RxChecksum, RxFrame};

use super::expected::{Found, deliver_whole};
use super::settle::follow_up_held;
use super::{Socket, Stack, memory};
use crate::interface::IfaceId;
use crate::socket::SocketId;
use crate::tcp::Memory;
use crate::wire::envelope::{self, Envelope, Head};
use crate::wire::ipv4::Ecn;
use crate::wire::tcp::PlainTcp;
use crate::wire::{ethernet, protocol, udp};

/// Where the transport's header begins in a frame.
const TRANSPORT_AT: usize = ethernet::LEN + crate::wire::ipv4::LEN;

/// A flow that a frame came of.
#[derive(Clone, Copy, Debug)]
struct Flow {
    envelope: Envelope,
    iface: IfaceId,
    /// How often datagram sockets had changed.
    changes: u32,
    socket: SocketId,
}

/// The flows of the last frames, at places that a multiplication gives.
#[derive(Debug)]
pub(super) struct Familiar {
    flows: Box<[Flow; envelope::PLACES]>,
    changes: u32,
}

impl Default for Familiar {
    fn default() -> Familiar {
        let (envelope, socket) = (Envelope::NOBODYS, SocketId { index: u32::MAX, generation: 0 });
        let nobody = Flow { envelope, iface: IfaceId(0), changes: 0, socket };
        Familiar { flows: Box::new([nobody; envelope::PLACES]), changes: 0 }
    }
}

impl Familiar {
    /// The next frame like this one, which came in on `iface`, is for the same socket. Nothing has to
    /// be asked about it that its envelope tells.
    #[inline(never)]
    pub(super) fn remember(&mut self, iface: IfaceId, frame: &[u8], socket: SocketId) {
        if let Some(head) = frame.first_chunk() {
            let (envelope, changes) = (Envelope::of(head), self.changes);
            self.flows[envelope::place(head)] = Flow { envelope, iface, changes, socket };
        }
    }

    /// Datagrams may be other sockets' from now on.
    pub(super) fn change_datagrams(&mut self) {
        self.changes = self.changes.wrapping_add(1);
    }

    #[inline(always)]
    fn flow(&self, head: &Head) -> &Flow {
        &self.flows[envelope::place(head)]
    }
}

/// Where a frame in one piece lies until it is taken.
pub(super) trait Source {
    /// The frame, if there is one.
    fn look(&self) -> Option<(&RxFrame, &PacketSlice)>;
    /// Takes it.
    fn take(&mut self) -> Option<PacketSlice>;
}

impl Source for RxBurst {
    #[inline(always)]
    fn look(&self) -> Option<(&RxFrame, &PacketSlice)> {
        self.only()
    }

    #[inline(always)]
    fn take(&mut self) -> Option<PacketSlice> {
        self.take_only()
    }
}

/// A frame that has been taken out of a burst with others.
pub(super) struct Single<'a> {
    pub(super) meta: &'a RxFrame,
    pub(super) piece: Option<PacketSlice>,
}

impl Source for Single<'_> {
    #[inline(always)]
    fn look(&self) -> Option<(&RxFrame, &PacketSlice)> {
        self.piece.as_ref().map(|piece| (self.meta, piece))
    }

    #[inline(always)]
    fn take(&mut self) -> Option<PacketSlice> {
        self.piece.take()
    }
}

impl Stack {
    /// Takes in a frame in one piece.
    #[inline(always)]
    pub(super) fn input_single(&mut self, iface: IfaceId, source: &mut impl Source) {
        if !self.input_familiar(iface, source)
            && let Some((&meta, _)) = source.look()
            && let Some(piece) = source.take()
        {
            self.input_unfamiliar(iface, piece, &meta);
        }
    }

    /// Takes the frame in if it is the next of a familiar flow, and right; otherwise leaves it and says
    /// so.
    #[inline(always)]
    fn input_familiar(&mut self, iface: IfaceId, source: &mut impl Source) -> bool {
        let Some((meta, piece)) = source.look() else { return false };
        let frame: &[u8] = piece;
        let Some(head) = frame.first_chunk() else { return false };
        let flow = self.familiar.flow(head);
        let known = flow.envelope.is_of(head) && flow.iface == iface && meta.gso_bytes == 0;
        if !known || !flow.envelope.is_summed_right(head) {
            return false;
        }
        let end = ethernet::LEN + envelope::packet_len(head);
        let Some(bytes) = frame.get(TRANSPORT_AT..end) else { return false };
        let (socket, addresses) = (flow.socket, envelope::addresses(head));
        if envelope::protocol(head) == protocol::UDP {
            let Some(checksum) = udp_checksum(bytes) else { return false };
            if flow.changes != self.familiar.changes {
                return false;
            }
            // RFC 768: zero means that the sender computed none.
            let summed = checksum != [0; 2];
            if summed && !is_right(addresses, protocol::UDP, bytes, meta.checksum) {
                return false;
            }
            let from = (source_of(addresses), envelope::source_port(head));
            let Some(piece) = source.take() else { return false };
            self.take_datagram(iface, socket, from, piece, end);
        } else {
            // Of all else only segments are ever remembered.
            let ecn = Ecn::of_tos(envelope::tos(head));
            if !is_right(addresses, protocol::TCP, bytes, meta.checksum) {
                return false;
            }
            let Some(piece) = source.take() else { return false };
            self.take_segment(iface, socket, piece, end, ecn);
        }
        true
    }

    /// Queues a datagram that is right, and ends at `end` of its frame, at its socket.
    #[inline(always)]
    fn take_datagram(
        &mut self,
        iface: IfaceId,
        id: SocketId,
        from: (Ipv4Addr, u16),
        piece: PacketSlice,
        end: usize,
    ) {
        match self.sockets.get_held_mut(id.index, id.generation) {
            Some(Socket::Datagram(socket)) => {
                let bytes = TRANSPORT_AT + udp::LEN..end;
                deliver_whole(&mut self.egress, &mut self.events, id, socket, from, piece, bytes);
            }
            Some(Socket::Fresh(_) | Socket::Listener(_) | Socket::Connection(_)) | None => {
                self.input_verified(iface, piece);
            }
        }
    }

    /// Gives a segment that is right, and ends at `end` of its frame, to its connection.
    #[inline(always)]
    fn take_segment(
        &mut self,
        iface: IfaceId,
        id: SocketId,
        piece: PacketSlice,
        end: usize,
        ecn: Ecn,
    ) {
        let Some(Socket::Connection(connection)) =
            self.sockets.get_held_mut(id.index, id.generation)
        else {
            return self.input_verified(iface, piece);
        };
        let Some(tcb) = connection.tcb.whole_calm() else {
            return self.input_verified(iface, piece);
        };
        // Where it is scarce, the long way chooses what to keep.
        if memory(&self.egress.pool) != Memory::Plenty {
            return self.input_verified(iface, piece);
        }
        let mut piece = Some(piece);
        if !tcb.take_next(self.egress.now, &mut piece, TRANSPORT_AT..end, ecn) {
            return self.take_other(iface, id, piece, end, ecn);
        }
        self.egress.counters.rx_frames += 1;
        self.egress.counters.tcp_segments_received += 1;
        let (list, wheel, pacing) = (&mut self.tx_list, &mut self.wheel, &mut self.pacing);
        if follow_up_held(list, wheel, pacing, &mut self.events, id, connection) {
            self.release_held_back(id.index);
        }
    }

    /// The same with a segment that the connection does not expect.
    #[inline(never)]
    fn take_other(
        &mut self,
        iface: IfaceId,
        id: SocketId,
        piece: Option<PacketSlice>,
        end: usize,
        ecn: Ecn,
    ) {
        let Some(piece) = piece else { return };
        let bytes = &piece[TRANSPORT_AT..end];
        // One that is over may be held while its flow is another's already.
        let linked = self.connection(id.index).is_some_and(|connection| connection.linked);
        let left = match PlainTcp::parse(bytes, bytes.len()) {
            Some((header, header_len)) if linked => {
                let (to, len) = (Found::Connection(id.index), (bytes.len() - header_len) as u32);
                self.deliver_unexpected(to, header, (len, ecn), piece, end)
            }
            Some(_) | None => Err(piece),
        };
        if let Err(piece) = left {
            self.input_verified(iface, piece);
        }
    }

    /// Takes in a frame whose transport checksum has been found right.
    #[inline(never)]
    fn input_verified(&mut self, iface: IfaceId, piece: PacketSlice) {
        let (len, checksum) = (piece.len() as u32, RxChecksum::Good);
        let meta = RxFrame { count: 1, len, checksum, ..RxFrame::default() };
        self.input_unfamiliar(iface, piece, &meta);
    }
}

/// The checksum of a datagram of these bytes, unless its header says another length.
#[inline(always)]
fn udp_checksum(bytes: &[u8]) -> Option<[u8; 2]> {
    let &[_, _, _, _, a, b, c, d] = bytes.first_chunk()?;
    (usize::from(u16::from_be_bytes([a, b])) == bytes.len()).then_some([c, d])
}

/// True if the transport checksum is right, or was found right before.
#[inline(always)]
fn is_right(addresses: [u8; 8], protocol: u8, bytes: &[u8], checksum: RxChecksum) -> bool {
    if checksum != RxChecksum::Unknown {
        return checksum == RxChecksum::Good;
    }
    let mut sum = Checksum::new();
    sum.add_header(&addresses);
    sum.add_u32(u32::from(protocol) << 16 | bytes.len() as u32 & 0xffff);
    sum.add(bytes);
    sum.is_right()
}

#[inline(always)]
fn source_of(addresses: [u8; 8]) -> Ipv4Addr {
    let [a, b, c, d, ..] = addresses;
    Ipv4Addr::new(a, b, c, d)
}
