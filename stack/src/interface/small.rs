//! Small packets on their way into a burst: headers and payload in one cell, written once.
//!
//! ```text
//!   cell   link │ IPv4 │ TCP or UDP │ payload
//! ```
//!
//! The sums of the headers are made of the numbers that they are written from. Reading wider than
//! was just written would wait for the processor's store buffer.

use barewire_driver::device::{Features, TxChecksum};
use barewire_driver::mem::Checksum;
use barewire_driver::{MacAddr, PacketBuf, TxFrame};

use super::{Egress, INLINE_PAYLOAD_BYTES, Interface, Medium, TcpPath};
use crate::wire::ethernet::{self, EthernetHeader, ethertype};
use crate::wire::plain::PlainIpv4;
use crate::wire::tcp::{self, TcpHeader};
use crate::wire::{protocol, pseudo_header};

impl Egress {
    /// Sends a segment with at most [`INLINE_PAYLOAD_BYTES`] of payload to the neighbour `mac`. If
    /// there is no cell for it, it is lost as on a wire, and counted.
    pub(crate) fn emit_small_tcp(
        &mut self,
        path: &TcpPath,
        mac: MacAddr,
        mut header: TcpHeader,
        payload: &[u8],
    ) {
        debug_assert!(payload.len() <= INLINE_PAYLOAD_BYTES, "not a small segment");
        let Some(mut cell) = self.header_cell() else { return };
        let Some(iface) = self.ifaces.get_mut(usize::from(path.hop.iface().0)) else { return };
        (header.src_port, header.dst_port) = (path.key.local_port, path.key.remote_port);
        let link_len = write_link(iface, mac, &mut cell);
        let tcp_at = link_len + PlainIpv4::LEN;
        let header_len = header.emit(&mut cell[tcp_at..]);
        let payload_at = tcp_at + header_len;
        let end = payload_at + payload.len();
        cell[payload_at..end].copy_from_slice(payload);
        cell.truncate(end);
        let ip = PlainIpv4 {
            src: path.key.local,
            dst: path.key.remote,
            protocol: protocol::TCP,
            tos: path.tos,
            payload_len: header_len + payload.len(),
        };
        ip.emit(path.ttl, true, &mut cell[link_len..]);
        let mut sum = transport_sum(&ip);
        let field = tcp_at + tcp::CHECKSUM_OFFSET;
        let checksum = if iface.config.features.contains(Features::TX_CHECKSUM) {
            put_sum(&mut cell, field, sum.partial());
            TxChecksum::Partial { start: tcp_at as u16, offset: tcp::CHECKSUM_OFFSET as u16 }
        } else {
            header.add_to(&mut sum);
            sum.add(payload);
            put_sum(&mut cell, field, sum.finish());
            TxChecksum::Complete
        };
        self.counters.tcp_segments_sent += 1;
        self.counters.tx_packets += 1;
        self.pool.count_copied(payload.len());
        let header_len = payload_at as u16;
        iface.burst.push_segment(cell.freeze());
        iface.burst.finish_frame(TxFrame { checksum, header_len, ..TxFrame::default() });
    }
}

/// Writes the link header, if the interface has one; gives its length.
#[inline]
pub(super) fn write_link(iface: &Interface, to: MacAddr, cell: &mut PacketBuf) -> usize {
    match iface.config.medium {
        Medium::Ip => 0,
        Medium::Ethernet => {
            let src = iface.config.mac;
            EthernetHeader { dst: to, src, ethertype: ethertype::IPV4 }.emit(cell);
            ethernet::LEN
        }
    }
}

/// The sum that the transport checksum of a packet begins with.
#[inline]
pub(super) fn transport_sum(ip: &PlainIpv4) -> Checksum {
    pseudo_header(ip.src.into(), ip.dst.into(), ip.protocol, ip.payload_len as u32)
}

#[inline]
pub(super) fn put_sum(cell: &mut [u8], at: usize, sum: u16) {
    cell[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}
