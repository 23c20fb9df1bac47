//! Small packets on their way into a burst: headers and payload in one cell, written once.
//!
//! ```text
//!   cell   link │ IPv4 │ TCP or UDP │ payload
//! ```
//!
//! The sums of the headers are made of the numbers that they are written from. Reading wider than
//! was just written would wait for the processor's store buffer.

use std::net::Ipv4Addr;

use barewire_driver::device::{Features, TxChecksum};
use barewire_driver::mem::Checksum;
use barewire_driver::{MacAddr, TxBurst, TxFrame};

use super::{
    Egress, Hop, INLINE_PAYLOAD_BYTES, IfaceId, Interface, Medium, PathCache, Resolution, TcpPath,
    link,
};
use crate::socket::demux::FlowKey;
use crate::wire::ethernet::{self, ethertype};
use crate::wire::front::{Common, DatagramFront, Front, FrontKey, SMALL_AT, WayState};
use crate::wire::plain::PlainIpv4;
use crate::wire::tcp::{self, PlainTcp, TcpHeader};
use crate::wire::udp::{self, UdpHeader};
use crate::wire::{protocol, put_u16};

impl Egress {
    /// Sends a segment with at most [`INLINE_PAYLOAD_BYTES`] of payload to the neighbour `mac`. If
    /// there is no cell for it, it is lost as on a wire, and counted.
    pub(crate) fn emit_small_tcp(
        &mut self,
        path: &TcpPath,
        mac: MacAddr,
        header: PlainTcp,
        payload: &[u8],
    ) {
        let (src_port, dst_port) = (path.key.local_port, path.key.remote_port);
        let header = PlainTcp { src_port, dst_port, ..header };
        self.emit_small_with(path, mac, payload, |out, sum| header.emit_summed(out, sum));
    }

    /// Sends a segment without payload to the neighbour `mac`, whatever its options are.
    pub(crate) fn emit_bare_tcp(&mut self, path: &TcpPath, mac: MacAddr, header: &TcpHeader) {
        if let Some(plain) = PlainTcp::of(header) {
            return self.emit_small_tcp(path, mac, plain, &[]);
        }
        let (src_port, dst_port) = (path.key.local_port, path.key.remote_port);
        self.emit_small_with(path, mac, &[], |out, sum| {
            if let Some(len) = header.emit_usual_syn((src_port, dst_port), out, sum) {
                return len;
            }
            let len = TcpHeader { src_port, dst_port, ..*header }.emit(out);
            sum.add(&out[..len]);
            len
        });
    }

    /// `write` writes the TCP header, with a checksum of zero, and adds it to the sum.
    #[inline]
    fn emit_small_with(
        &mut self,
        path: &TcpPath,
        mac: MacAddr,
        payload: &[u8],
        write: impl FnOnce(&mut [u8], &mut Checksum) -> usize,
    ) {
        debug_assert!(payload.len() <= INLINE_PAYLOAD_BYTES, "not a small segment");
        let cell = if payload.is_empty() { self.header_cell() } else { self.data_cell() };
        let Some(mut cell) = cell else { return };
        let Some(iface) = self.ifaces.get_mut(usize::from(path.hop.iface().0)) else { return };
        let bytes: &mut [u8] = &mut cell;
        let link_len = link::write(&iface.config, mac, ethertype::IPV4, bytes);
        let tcp_at = link_len + PlainIpv4::LEN;
        let mut sum = Checksum::new();
        let header_len = write(&mut bytes[tcp_at..], &mut sum);
        let payload_at = tcp_at + header_len;
        let end = payload_at + payload.len();
        // Asked because most have none, and an empty copy is a call as well.
        if !payload.is_empty() {
            bytes[payload_at..end].copy_from_slice(payload);
        }
        let ip = PlainIpv4 {
            src: path.key.local,
            dst: path.key.remote,
            protocol: protocol::TCP,
            tos: path.tos,
            payload_len: header_len + payload.len(),
        };
        ip.emit(path.ttl, true, &mut bytes[link_len..]);
        let field = tcp_at + tcp::CHECKSUM_OFFSET;
        let checksum = if iface.config.features.contains(Features::TX_CHECKSUM) {
            let mut pseudo = Checksum::new();
            ip.add_pseudo_header(&mut pseudo);
            put_u16(bytes, field, pseudo.partial());
            TxChecksum::Partial { start: tcp_at as u16, offset: tcp::CHECKSUM_OFFSET as u16 }
        } else {
            ip.add_pseudo_header(&mut sum);
            if !payload.is_empty() {
                sum.add(payload);
            }
            put_u16(bytes, field, sum.finish());
            TxChecksum::Complete
        };
        cell.truncate(end);
        self.counters.tcp_segments_sent += 1;
        self.counters.tx_packets += 1;
        self.pool.count_copied(payload.len());
        let header_len = payload_at as u16;
        let meta = TxFrame { checksum, header_len, ..TxFrame::default() };
        iface.burst.push_single(cell.freeze(), meta);
    }
}

impl Egress {
    /// What kept headers have to be made for, if they leave through `only`; whether the device
    /// completes their checksums, and where frames wait for it to take them.
    #[inline(always)]
    pub(crate) fn way_state(&mut self, only: IfaceId) -> Option<(WayState, bool, &mut TxBurst)> {
        let iface = self.ifaces.get_mut(usize::from(only.0))?;
        let (routing, neighbors) = (self.routing_changes, iface.neighbors.changes());
        let offload = iface.config.features.contains(Features::TX_CHECKSUM);
        Some((WayState { routing, neighbors, iface: only.0 }, offload, &mut iface.burst))
    }

    /// Makes the headers that a connection keeps, if it has found its way before: through that
    /// interface, by Ethernet, to a neighbour whose address is known. Most go the way of the last.
    #[inline(never)]
    pub(crate) fn make_front(
        &mut self,
        front: &mut Front,
        key: FrontKey,
        path: &PathCache,
        flow: &FlowKey,
        stamped: bool,
    ) -> bool {
        let Some((changes, hop @ Hop::Link { iface, next_hop })) = path.hop else { return false };
        if iface.0 != key.state().iface || changes != self.routing_changes {
            return false;
        }
        let Some(interface) = self.ifaces.get(usize::from(iface.0)) else { return false };
        // As long as the key is right, the neighbour need not be looked up again.
        let known = interface.pattern.is_for(&key, next_hop, stamped);
        if !known && !self.make_pattern(key, hop, path.neighbor, stamped) {
            return false;
        }
        let Some(interface) = self.ifaces.get(usize::from(iface.0)) else { return false };
        let (ends, ports) = ((flow.local, flow.remote), (flow.local_port, flow.remote_port));
        front.make(&interface.pattern, ends, ports);
        true
    }

    /// Makes the pattern of the headers that go this way, if its neighbour's address is known.
    #[cold]
    fn make_pattern(&mut self, key: FrontKey, hop: Hop, neighbor: u32, stamped: bool) -> bool {
        let Hop::Link { next_hop, .. } = hop else { return false };
        let mut place = neighbor;
        let Resolution::Ready(dst_mac) = self.resolve_at(hop, &mut place) else { return false };
        let Some(interface) = self.ifaces.get_mut(usize::from(hop.iface().0)) else { return false };
        let Interface { config, pattern, .. } = interface;
        if config.medium != Medium::Ethernet || place != neighbor {
            return false;
        }
        pattern.make(key, next_hop, (config.mac, dst_mac), stamped);
        true
    }

    /// Where frames wait for the interface to take them.
    #[inline(always)]
    pub(crate) fn burst_mut(&mut self, iface: IfaceId) -> Option<&mut TxBurst> {
        self.ifaces.get_mut(usize::from(iface.0)).map(|iface| &mut iface.burst)
    }

    /// Adds a segment without payload to the burst, with the headers that its connection keeps. If
    /// there is no cell for it, it is lost as on a wire, and counted.
    #[inline(never)]
    pub(crate) fn push_bare(
        &mut self,
        only: IfaceId,
        front: &Front,
        header: &PlainTcp,
        offload: bool,
    ) {
        let Some(mut cell) = self.header_cell() else { return };
        if let Some(bytes) = cell.first_chunk_mut() {
            front.write(bytes, 0, header, offload);
        }
        cell.truncate(SMALL_AT);
        cell.advance(SMALL_AT - front.len());
        self.counters.tcp_segments_sent += 1;
        self.counters.tx_packets += 1;
        if let Some(burst) = self.burst_mut(only) {
            burst.push_single(cell.freeze(), front.describe(offload));
        }
    }
}

/// What a small UDP datagram needs besides its payload and its link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UdpPath {
    pub(crate) src: Ipv4Addr,
    pub(crate) src_port: u16,
    pub(crate) dst: Ipv4Addr,
    pub(crate) dst_port: u16,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    pub(crate) dont_fragment: bool,
}

impl UdpPath {
    /// Bytes in front of the payload, from the IP header on.
    pub(crate) const HEADERS_LEN: usize = PlainIpv4::LEN + UdpHeader::LEN;
}

impl Egress {
    /// Sends a datagram with at most [`INLINE_PAYLOAD_BYTES`] of payload to the neighbour `mac`. If
    /// there is no cell for it, it is lost as on a wire, and counted.
    pub(crate) fn emit_small_udp(
        &mut self,
        iface: IfaceId,
        mac: MacAddr,
        path: &UdpPath,
        payload: &[u8],
    ) {
        debug_assert!(payload.len() <= INLINE_PAYLOAD_BYTES, "not a small datagram");
        let Some(mut cell) = self.data_cell() else { return };
        let Some(iface) = self.ifaces.get_mut(usize::from(iface.0)) else { return };
        let bytes: &mut [u8] = &mut cell;
        let link_len = link::write(&iface.config, mac, ethertype::IPV4, bytes);
        let len = UdpHeader::LEN + payload.len();
        let ip = PlainIpv4 {
            src: path.src,
            dst: path.dst,
            protocol: protocol::UDP,
            tos: path.tos,
            payload_len: len,
        };
        let udp_at = link_len + PlainIpv4::LEN;
        let offload = iface.config.features.contains(Features::TX_CHECKSUM);
        let mut sum = Checksum::new();
        ip.add_pseudo_header(&mut sum);
        let (checksum, left) = if offload {
            let (start, offset) = (udp_at as u16, udp::CHECKSUM_OFFSET as u16);
            (sum.partial(), TxChecksum::Partial { start, offset })
        } else {
            sum.add_u32(u32::from(path.src_port) << 16 | u32::from(path.dst_port));
            sum.add_u16(len as u16);
            sum.add(payload);
            (UdpHeader::checksum_of(&sum), TxChecksum::Complete)
        };
        let (src_port, dst_port) = (path.src_port, path.dst_port);
        let udp = UdpHeader { src_port, dst_port, len: len as u16, checksum };
        ip.emit(path.ttl, path.dont_fragment, &mut bytes[link_len..]);
        udp.emit(&mut bytes[udp_at..]);
        bytes[udp_at + UdpHeader::LEN..udp_at + len].copy_from_slice(payload);
        cell.truncate(udp_at + len);
        self.counters.tx_packets += 1;
        self.pool.count_copied(payload.len());
        iface.burst.push_segment(cell.freeze());
        iface.burst.finish_frame(TxFrame { checksum: left, ..TxFrame::default() });
    }
}

/// A checksum of UDP on Ethernet that is left to the device.
const PARTIAL_UDP: TxChecksum = TxChecksum::Partial {
    start: (ethernet::LEN + PlainIpv4::LEN) as u16,
    offset: udp::CHECKSUM_OFFSET as u16,
};

impl Egress {
    /// What the headers of a socket's small datagrams to one place have in common, on Ethernet.
    pub(crate) fn datagram_common(
        &self,
        iface: IfaceId,
        dst_mac: MacAddr,
        path: &UdpPath,
    ) -> Option<Common> {
        let config = &self.iface(iface)?.config;
        (config.medium == Medium::Ethernet).then_some(Common {
            src_mac: config.mac,
            dst_mac,
            src: path.src,
            dst: path.dst,
            src_port: path.src_port,
            dst_port: path.dst_port,
            ttl: path.ttl,
            tos: path.tos,
        })
    }

    /// Sends a datagram of at most [`INLINE_PAYLOAD_BYTES`] with these headers, which were made for a
    /// way like this; false, and nothing is done, if that has changed or anything is scarce.
    #[inline(always)]
    pub(crate) fn emit_datagram_again(
        &mut self,
        state: &WayState,
        front: &DatagramFront,
        payload: &[u8],
    ) -> bool {
        let Some(iface) = self.ifaces.get_mut(usize::from(state.iface)) else { return false };
        let usual = (self.routing_changes, iface.neighbors.changes())
            == (state.routing, state.neighbors)
            && iface.burst.len() < super::DATAGRAM_BACKLOG_FRAMES
            && iface.takes_whole(UdpPath::HEADERS_LEN + payload.len())
            && self.pool.free_cells() > self.reserved_cells;
        if !usual {
            return false;
        }
        let Some(mut cell) = self.pool.alloc_cell() else { return false };
        let offload = iface.config.features.contains(Features::TX_CHECKSUM);
        let end = DatagramFront::LEN + payload.len();
        if let Some(frame) = cell.get_mut(..end) {
            frame[DatagramFront::LEN..].copy_from_slice(payload);
            front.write(frame, offload);
        }
        cell.truncate(end);
        self.counters.udp_datagrams_sent += 1;
        self.counters.tx_packets += 1;
        self.pool.count_copied(payload.len());
        let checksum = if offload { PARTIAL_UDP } else { TxChecksum::Complete };
        iface.burst.push_single(cell.freeze(), TxFrame { checksum, ..TxFrame::default() });
        true
    }
}
