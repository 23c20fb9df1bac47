//! The shortest way in: the next frame of a flow that one came of before.
//!
//! ```text
//!   frame ─▶ addresses, type, ports: like an earlier one? ─▶ length, sums ─▶ socket, at once
//!               └── no, or anything unusual: as it came, on the way of the others (`expected`) ──▶
//! ```
//!
//! What was asked of the earlier frame, and would be answered the same again, is not asked of this one:
//! whether the interface, both addresses and the kind of packet are such as may be taken in, and which
//! socket the flow is of. A connection is known by its handle, which no other ever has. A datagram
//! socket has its port to itself as long as none has been bound, connected or closed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use barewire_driver::mem::Checksum;
use barewire_driver::{PacketSlice, RxChecksum, RxFrame};

use super::expected::{Found, deliver_whole};
use super::settle::follow_up_held;
use super::{Socket, Stack};
use crate::interface::IfaceId;
use crate::socket::SocketId;
use crate::tcp::Text;
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
        let (envelope, socket) = (Envelope::default(), SocketId { index: 0, generation: 0 });
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

impl Stack {
    /// Takes the frame in if it is the next of a familiar flow, and as expected; otherwise leaves it
    /// where it is and says so.
    #[inline(always)]
    pub(super) fn input_familiar(
        &mut self,
        iface: IfaceId,
        piece: &mut Option<PacketSlice>,
        meta: &RxFrame,
    ) -> bool {
        let Some(frame) = piece.as_deref() else { return true };
        let Some(head) = frame.first_chunk() else { return false };
        let flow = self.familiar.flow(head);
        let known = flow.envelope.is_of(head) && flow.iface == iface && meta.gso_bytes == 0;
        if !known || !flow.envelope.is_summed_right(head) {
            return false;
        }
        let end = ethernet::LEN + envelope::packet_len(head);
        let Some(bytes) = frame.get(TRANSPORT_AT..end) else { return false };
        let (socket, addresses) = (flow.socket, envelope::addresses(head));
        let right = || is_right(addresses, envelope::protocol(head), bytes, meta.checksum);
        if envelope::protocol(head) == protocol::UDP {
            let from = (source(addresses), envelope::source_port(head));
            let summed = udp_header(bytes).is_some_and(|is_summed| !is_summed || right());
            return summed
                && flow.changes == self.familiar.changes
                && self.take_datagram(socket, from, piece, end);
        }
        let Some((header, header_len)) = PlainTcp::parse(bytes, bytes.len()) else { return false };
        let text = Text {
            len: (bytes.len() - header_len) as u32,
            wire_segments: 1,
            ecn: Ecn::of_tos(envelope::tos(head)),
            memory: self.memory(),
        };
        right() && self.take_segment(socket, &header, &text, piece, end)
    }

    /// Queues a datagram that is right at its socket, unless that is gone.
    #[inline(always)]
    fn take_datagram(
        &mut self,
        id: SocketId,
        from: (Ipv4Addr, u16),
        piece: &mut Option<PacketSlice>,
        end: usize,
    ) -> bool {
        let Some(Socket::Datagram(socket)) = self.sockets.get_held_mut(id.index, id.generation)
        else {
            return false;
        };
        let Some(piece) = piece.take() else { return false };
        let bytes = TRANSPORT_AT + udp::LEN..end;
        let from = SocketAddr::new(IpAddr::V4(from.0), from.1);
        deliver_whole(&mut self.egress, &mut self.events, id, socket, from, piece, bytes);
        true
    }

    /// Gives a segment that is right, and ends at `end` of its frame, to its connection, unless that
    /// is gone or at rest.
    #[inline(always)]
    fn take_segment(
        &mut self,
        id: SocketId,
        header: &PlainTcp,
        text: &Text,
        piece: &mut Option<PacketSlice>,
        end: usize,
    ) -> bool {
        let Some(Socket::Connection(connection)) =
            self.sockets.get_held_mut(id.index, id.generation)
        else {
            return false;
        };
        let Some(tcb) = connection.tcb.whole_calm() else { return false };
        if !tcb.expects(header, text) {
            return self.take_other(id, header, text, piece, end);
        }
        let Some(mut piece) = piece.take() else { return false };
        self.egress.counters.rx_frames += 1;
        self.egress.counters.tcp_segments_received += 1;
        piece.truncate(end);
        piece.advance(end - text.len as usize);
        tcb.take_expected(self.egress.now, header, text, Some(piece));
        let (list, wheel, pacing) = (&mut self.tx_list, &mut self.wheel, &mut self.pacing);
        if follow_up_held(list, wheel, pacing, &mut self.events, id, connection) {
            self.release_held_back(id.index);
        }
        true
    }

    /// The same with a segment that the connection does not expect.
    #[inline(never)]
    fn take_other(
        &mut self,
        id: SocketId,
        header: &PlainTcp,
        text: &Text,
        piece: &mut Option<PacketSlice>,
        end: usize,
    ) -> bool {
        let Some(taken) = piece.take() else { return false };
        let to = Found::Connection(id.index);
        match self.deliver_unexpected(to, *header, (text.len, text.ecn), taken, end) {
            Ok(()) => true,
            Err(left) => {
                *piece = Some(left);
                false
            }
        }
    }
}

/// Whether a datagram of these bytes has a checksum; `None` if its header says another length.
#[inline(always)]
fn udp_header(bytes: &[u8]) -> Option<bool> {
    let &[_, _, _, _, a, b, c, d] = bytes.first_chunk()?;
    let len = usize::from(u16::from_be_bytes([a, b]));
    // RFC 768: zero means that the sender computed none.
    (len == bytes.len()).then_some([c, d] != [0, 0])
}

/// True if the transport checksum is right, or was found right before.
#[inline(always)]
fn is_right(addresses: [u8; 8], protocol: u8, bytes: &[u8], checksum: RxChecksum) -> bool {
    match checksum {
        RxChecksum::Good => true,
        RxChecksum::Bad => false,
        RxChecksum::Unknown => {
            let mut sum = Checksum::new();
            sum.add_header(&addresses);
            sum.add_u32(u32::from(protocol) << 16 | bytes.len() as u32 & 0xffff);
            sum.add(bytes);
            sum.is_right()
        }
    }
}

#[inline(always)]
fn source(addresses: [u8; 8]) -> Ipv4Addr {
    let [a, b, c, d, ..] = addresses;
    Ipv4Addr::new(a, b, c, d)
}
