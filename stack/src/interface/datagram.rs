//! UDP and ICMP packets on their way into a burst, fragmented where they are too long.

use std::net::{IpAddr, Ipv4Addr};

use barewire_driver::device::{Features, TxChecksum};
use barewire_driver::{PacketSlice, TxFrame};

use super::{Egress, Hop};
use crate::error::SocketError;
use crate::reassembly;
use crate::wire;
use crate::wire::icmpv4::Icmpv4Message;
use crate::wire::ipv4::{DEFAULT_TTL, Ipv4Header};
use crate::wire::protocol;
use crate::wire::udp::{self, UdpHeader};

/// Bytes of a UDP header, and of the fixed part of the ICMP messages that are sent.
const TRANSPORT_LEN: usize = 8;

/// A UDP datagram or ICMP message to send: eight bytes of header, then the payload.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) src: Ipv4Addr,
    pub(crate) dst: Ipv4Addr,
    pub(crate) protocol: u8,
    /// The transport header with a zero checksum.
    pub(crate) header: [u8; TRANSPORT_LEN],
    pub(crate) payload: Vec<PacketSlice>,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    pub(crate) dont_fragment: bool,
}

impl Datagram {
    /// A UDP datagram with default IP options.
    pub(crate) fn udp(
        (src, src_port): (Ipv4Addr, u16),
        (dst, dst_port): (Ipv4Addr, u16),
        payload: Vec<PacketSlice>,
    ) -> Datagram {
        let len = (TRANSPORT_LEN + payload.iter().map(|p| p.len()).sum::<usize>()) as u16;
        let mut header = [0; TRANSPORT_LEN];
        UdpHeader { src_port, dst_port, len, checksum: 0 }.emit(&mut header);
        Datagram::new(src, dst, protocol::UDP, header, payload)
    }

    /// An ICMP message with default IP options.
    pub(crate) fn icmp(
        src: Ipv4Addr,
        dst: Ipv4Addr,
        message: &Icmpv4Message,
        payload: Vec<PacketSlice>,
    ) -> Datagram {
        let mut header = [0; TRANSPORT_LEN];
        message.emit(payload.iter().map(|p| &p[..]), &mut header);
        Datagram::new(src, dst, protocol::ICMP, header, payload)
    }

    fn new(
        src: Ipv4Addr,
        dst: Ipv4Addr,
        protocol: u8,
        header: [u8; TRANSPORT_LEN],
        payload: Vec<PacketSlice>,
    ) -> Datagram {
        let (ttl, tos) = (DEFAULT_TTL, 0);
        Datagram { src, dst, protocol, header, payload, ttl, tos, dont_fragment: false }
    }

    fn payload_len(&self) -> usize {
        self.payload.iter().map(|p| p.len()).sum()
    }

    /// The checksum of UDP over everything, in software.
    fn udp_checksum(&self) -> u16 {
        let (src, dst) = (IpAddr::V4(self.src), IpAddr::V4(self.dst));
        let len = (TRANSPORT_LEN + self.payload_len()) as u32;
        let mut sum = wire::pseudo_header(src, dst, protocol::UDP, len);
        sum.add(&self.header);
        for piece in &self.payload {
            sum.add(piece);
        }
        UdpHeader::checksum_of(&sum)
    }

    /// Fills in the checksum that the device leaves to software. ICMP's is there already.
    fn seal(&mut self, offload: bool, start: usize) -> TxChecksum {
        if self.protocol != protocol::UDP {
            return TxChecksum::Complete;
        }
        let (sum, rest) = if offload {
            let (src, dst) = (IpAddr::V4(self.src), IpAddr::V4(self.dst));
            let len = (TRANSPORT_LEN + self.payload_len()) as u32;
            let offset = udp::CHECKSUM_OFFSET as u16;
            let pseudo = wire::pseudo_header(src, dst, protocol::UDP, len).partial();
            (pseudo, TxChecksum::Partial { start: start as u16, offset })
        } else {
            (self.udp_checksum(), TxChecksum::Complete)
        };
        let field = udp::CHECKSUM_OFFSET;
        self.header[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        rest
    }
}

impl Egress {
    /// Sends a datagram, in fragments if it is longer than the interface's MTU.
    ///
    /// # Errors
    /// [`SocketError::MessageTooLong`] if it is too long for IP, or for the MTU with
    /// `dont_fragment`; [`SocketError::NetworkUnreachable`] without a route.
    pub(crate) fn emit_datagram(&mut self, mut datagram: Datagram) -> Result<(), SocketError> {
        let Some(hop) = self.route(datagram.dst) else {
            self.counters.tx_no_route += 1;
            return Err(SocketError::NetworkUnreachable);
        };
        let len = TRANSPORT_LEN + datagram.payload_len();
        let room = usize::from(self.mtu(hop)) - Ipv4Header::LEN;
        if len > usize::from(u16::MAX) - Ipv4Header::LEN {
            return Err(SocketError::MessageTooLong);
        }
        if len <= room {
            self.emit_whole(hop, datagram, len);
            return Ok(());
        }
        if datagram.dont_fragment {
            return Err(SocketError::MessageTooLong);
        }
        datagram.seal(false, 0);
        self.emit_fragments(hop, datagram, len, room);
        Ok(())
    }

    fn emit_whole(&mut self, hop: Hop, mut datagram: Datagram, len: usize) {
        let Some(mut cell) = self.data_cell() else { return };
        let Some(iface) = self.iface(hop.iface()) else { return };
        let link_len = iface.link_len();
        let offload = iface.config.features.contains(Features::TX_CHECKSUM)
            && !matches!(hop, Hop::Local { .. });
        let start = link_len + Ipv4Header::LEN;
        let checksum = datagram.seal(offload, start);
        let mut ip = self.datagram_ip(&datagram);
        ip.total_len = (Ipv4Header::LEN + len) as u16;
        ip.emit(&mut cell[link_len..]);
        cell[start..start + TRANSPORT_LEN].copy_from_slice(&datagram.header);
        cell.truncate(start + TRANSPORT_LEN);
        let meta = TxFrame { checksum, ..TxFrame::default() };
        self.dispatch(hop, cell, datagram.payload, meta);
    }

    fn emit_fragments(&mut self, hop: Hop, datagram: Datagram, len: usize, room: usize) {
        let Some(link_len) = self.iface(hop.iface()).map(|i| i.link_len()) else { return };
        let mut ip = self.datagram_ip(&datagram);
        ip.ident = self.rng.next_u32() as u16;
        let mut payload = datagram.payload.into_iter().collect::<std::collections::VecDeque<_>>();
        for fragment in reassembly::fragment(len as u16, (room + Ipv4Header::LEN) as u16) {
            let Some(mut cell) = self.data_cell() else { return };
            let header = link_len + Ipv4Header::LEN;
            let own = if fragment.offset == 0 { TRANSPORT_LEN } else { 0 };
            ip.fragment_offset = fragment.offset;
            ip.more_fragments = fragment.more;
            ip.total_len = Ipv4Header::LEN as u16 + fragment.len;
            ip.emit(&mut cell[link_len..]);
            cell[header..header + own].copy_from_slice(&datagram.header[..own]);
            cell.truncate(header + own);
            let pieces = take_front(&mut payload, usize::from(fragment.len) - own);
            self.counters.fragments_sent += 1;
            self.dispatch(hop, cell, pieces, TxFrame::default());
        }
    }

    fn datagram_ip(&self, datagram: &Datagram) -> Ipv4Header {
        let mut ip = Ipv4Header::new(datagram.src, datagram.dst, datagram.protocol, 0);
        ip.ttl = datagram.ttl;
        ip.tos = datagram.tos;
        ip.dont_fragment = datagram.dont_fragment;
        ip
    }
}

/// Splits `len` bytes off the front of `pieces`.
fn take_front(
    pieces: &mut std::collections::VecDeque<PacketSlice>,
    mut len: usize,
) -> Vec<PacketSlice> {
    let mut taken = Vec::new();
    while len > 0 {
        let Some(mut piece) = pieces.pop_front() else { break };
        if piece.len() > len {
            taken.push(piece.split_to(len));
            pieces.push_front(piece);
            break;
        }
        len -= piece.len();
        taken.push(piece);
    }
    taken
}
