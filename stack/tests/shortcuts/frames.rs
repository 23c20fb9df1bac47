//! Frames as neither host sends them: those of others, and what becomes of a frame on its way.

use std::net::Ipv4Addr;
use std::ops::Range;

use barewire_driver::MacAddr;
use barewire_driver::mem::Checksum;
use barewire_stack::wire::arp::{ArpPacket, Operation};
use barewire_stack::wire::ethernet::{EthernetHeader, ethertype};
use barewire_stack::wire::ipv4::{Ecn, Ipv4Header};
use barewire_stack::wire::tcp::{TcpFlags, TcpHeader};
use barewire_stack::wire::{protocol, pseudo_header};

use crate::talk::mac;

/// Where the transport's header begins.
const TRANSPORT_AT: usize = EthernetHeader::LEN + Ipv4Header::LEN;

/// The checksum in a TCP header.
const TCP_CHECKSUM: Range<usize> = 16..18;

/// The length of the packet in an Ethernet frame, and the checksum of its IPv4 header.
const IP_TOTAL_LEN: Range<usize> = EthernetHeader::LEN + 2..EthernetHeader::LEN + 4;
const IP_CHECKSUM: Range<usize> = EthernetHeader::LEN + 10..EthernetHeader::LEN + 12;

/// The addresses of the hosts.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];

/// What host 1 says of itself: that it has another link address now.
pub(crate) fn moved(to: MacAddr) -> Vec<u8> {
    let mut frame = vec![0; 60];
    EthernetHeader { dst: MacAddr::BROADCAST, src: to, ethertype: ethertype::ARP }.emit(&mut frame);
    let [ours, theirs] = ADDRESSES;
    let arp = ArpPacket {
        operation: Operation::Request,
        sender_mac: to,
        sender_ip: theirs,
        target_mac: MacAddr::default(),
        target_ip: ours,
    };
    arp.emit(&mut frame[EthernetHeader::LEN..]);
    frame
}

/// The header and the text of a segment that a host has sent.
pub(crate) fn segment_of(frame: &[u8]) -> (TcpHeader, &[u8]) {
    let packet = &frame[EthernetHeader::LEN..];
    let ip = Ipv4Header::parse(packet, packet.len()).unwrap();
    let segment = &frame[TRANSPORT_AT..][..ip.payload_len()];
    let (header, header_len) = TcpHeader::parse(segment, segment.len()).unwrap();
    (header, &segment[header_len..])
}

/// A segment, with its checksum.
fn segment(src: Ipv4Addr, dst: Ipv4Addr, header: &TcpHeader, text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; header.header_len()];
    header.emit(&mut bytes);
    bytes.extend(text);
    let mut sum = pseudo_header(src.into(), dst.into(), protocol::TCP, bytes.len() as u32);
    sum.add(&bytes);
    bytes[TCP_CHECKSUM].copy_from_slice(&sum.finish().to_be_bytes());
    bytes
}

/// A SYN of host 0.
pub(crate) fn syn(src_port: u16, dst_port: u16) -> Vec<u8> {
    let header = TcpHeader { src_port, dst_port, flags: TcpFlags::SYN, ..TcpHeader::default() };
    let [src, dst] = ADDRESSES;
    let segment = segment(src, dst, &header, &[]);
    let mut frame = vec![0; TRANSPORT_AT];
    EthernetHeader { dst: mac(1), src: mac(0), ethertype: ethertype::IPV4 }.emit(&mut frame);
    let ip = Ipv4Header::new(src, dst, protocol::TCP, segment.len());
    ip.emit(&mut frame[EthernetHeader::LEN..]);
    frame.extend(segment);
    frame
}

/// A segment in a frame whose link addresses, type, IP version, protocol, addresses and ports are
/// zero, and whose sums are right nevertheless.
pub(crate) fn nobodys(header: &TcpHeader, text: &[u8]) -> Vec<u8> {
    let header = TcpHeader { src_port: 0, dst_port: 0, ..*header };
    let segment = segment(Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED, &header, text);
    let mut frame = vec![0; TRANSPORT_AT];
    let total_len = (Ipv4Header::LEN + segment.len()) as u16;
    frame[IP_TOTAL_LEN].copy_from_slice(&total_len.to_be_bytes());
    let mut sum = Checksum::new();
    sum.add(&frame[EthernetHeader::LEN..]);
    frame[IP_CHECKSUM].copy_from_slice(&sum.finish().to_be_bytes());
    frame.extend(segment);
    frame
}

/// The frame after a congested router (RFC 3168 §5), which marks what is ECN-capable.
pub(crate) fn congested(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let packet = &mut frame[EthernetHeader::LEN..];
    // What is no IPv4 packet has no mark.
    if let Ok(ip) = Ipv4Header::parse(packet, packet.len())
        && Ecn::of_tos(ip.tos) != Ecn::NotEct
    {
        Ipv4Header { tos: Ecn::Ce.in_tos(ip.tos), ..ip }.emit(packet);
    }
    frame
}
