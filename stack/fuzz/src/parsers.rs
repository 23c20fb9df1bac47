//! Every parser over the same bytes. None may panic, and what one understands it writes back in a
//! form that it understands as the same.

use std::net::{IpAddr, Ipv4Addr};

use barewire_stack::wire::arp::ArpPacket;
use barewire_stack::wire::ethernet::EthernetHeader;
use barewire_stack::wire::icmpv4::{Icmpv4Message, Quoted};
use barewire_stack::wire::ipv4::Ipv4Header;
use barewire_stack::wire::tcp::{TcpFlags, TcpHeader};
use barewire_stack::wire::udp::UdpHeader;
use barewire_stack::wire::{pretty, protocol, pseudo_header};

/// Runs them all.
pub fn run(data: &[u8]) {
    // The text of a frame is for people: it only has to be made.
    let _text = pretty::describe(data);
    ethernet(data);
    arp(data);
    ipv4(data);
    icmp(data);
    udp(data);
    tcp(data);
}

fn ethernet(data: &[u8]) {
    let Ok(header) = EthernetHeader::parse(data) else { return };
    let mut out = [0; EthernetHeader::LEN];
    header.emit(&mut out);
    assert_eq!(out, data[..EthernetHeader::LEN]);
}

fn arp(data: &[u8]) {
    let Ok(packet) = ArpPacket::parse(data) else { return };
    let mut out = [0; ArpPacket::LEN];
    packet.emit(&mut out);
    assert_eq!(ArpPacket::parse(&out), Ok(packet));
}

fn ipv4(data: &[u8]) {
    let Ok(header) = Ipv4Header::parse(data, data.len()) else { return };
    assert!(usize::from(header.total_len) <= data.len(), "{header:?} is longer than its packet");
    assert!(header.header_len >= 20 && header.payload_len() <= data.len() - 20);
    // Options are not written: the header without them is another.
    if header.header_len == 20 && !header.source_routed {
        let mut out = data.to_vec();
        header.emit(&mut out);
        assert_eq!(Ipv4Header::parse(&out, out.len()), Ok(header));
    }
}

fn icmp(data: &[u8]) {
    let _quoted = Quoted::parse(data);
    let Ok(message) = Icmpv4Message::parse(data) else { return };
    let payload = &data[Icmpv4Message::LEN..];
    let mut out = data.to_vec();
    message.emit([payload], &mut out);
    assert_eq!(Icmpv4Message::parse(&out), Ok(message));
}

fn udp(data: &[u8]) {
    let Ok(header) = UdpHeader::parse(data, data.len()) else { return };
    assert!(header.payload_len() <= data.len() - UdpHeader::LEN);
    let mut out = [0; UdpHeader::LEN];
    header.emit(&mut out);
    assert_eq!(UdpHeader::parse(&out, data.len()), Ok(header));
}

fn tcp(data: &[u8]) {
    let Ok((header, len)) = TcpHeader::parse(data, data.len()) else { return };
    assert!((20..=60).contains(&len) && len <= data.len());
    let mut out = [0; 60];
    let written = header.emit(&mut out);
    assert_eq!(written, header.header_len());
    let (again, read) = TcpHeader::parse(&out[..written], written).expect("what is written");
    assert_eq!(read, written);
    let TcpHeader { src_port, dst_port, seq, ack, flags, window, urgent, options: _ } = header;
    let same = TcpHeader { src_port, dst_port, seq, ack, flags, window, urgent, ..again };
    assert_eq!(again, same);
    // Some combinations of options have no room; what is left of them stays as it is.
    let mut twice = [0; 60];
    let written = again.emit(&mut twice);
    let (third, _) = TcpHeader::parse(&twice[..written], written).expect("what is written");
    assert_eq!(third, again);
}

/// Panics unless `packet` is one that a stack may send: lengths and checksums are right. Gives its
/// TCP header and payload if it is a segment.
pub fn check_sent(packet: &[u8]) -> Option<(Ipv4Header, TcpHeader, &[u8])> {
    let ip = Ipv4Header::parse(packet, packet.len()).expect("a right IP header");
    assert_eq!(usize::from(ip.total_len), packet.len());
    let payload = &packet[usize::from(ip.header_len)..];
    if ip.is_fragment() || ip.protocol != protocol::TCP {
        return None;
    }
    let (src, dst) = (IpAddr::V4(ip.src), IpAddr::V4(ip.dst));
    let mut sum = pseudo_header(src, dst, protocol::TCP, payload.len() as u32);
    sum.add(payload);
    assert_eq!(sum.finish(), 0, "a wrong TCP checksum was sent");
    let (tcp, len) = TcpHeader::parse(payload, payload.len()).expect("a right TCP header");
    Some((ip, tcp, &payload[len..]))
}

/// A TCP segment in an IP packet with right checksums.
pub fn segment(src: Ipv4Addr, dst: Ipv4Addr, header: &TcpHeader, payload: &[u8]) -> Vec<u8> {
    let (header_len, flags) = (header.header_len(), header.flags);
    let len = header_len + payload.len();
    let mut out = vec![0; Ipv4Header::LEN + len];
    let ip = Ipv4Header::new(src, dst, protocol::TCP, len);
    Ipv4Header { dont_fragment: !flags.contains(TcpFlags::URG), ..ip }.emit(&mut out);
    let tcp = &mut out[Ipv4Header::LEN..];
    header.emit(tcp);
    tcp[header_len..].copy_from_slice(payload);
    let mut sum = pseudo_header(IpAddr::V4(src), IpAddr::V4(dst), protocol::TCP, len as u32);
    sum.add(tcp);
    tcp[16..18].copy_from_slice(&sum.finish().to_be_bytes());
    out
}
