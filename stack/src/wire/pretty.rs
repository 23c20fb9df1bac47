//! Frames as one line of text, for traces and people. Not for the hot path: it allocates.

use std::fmt::Write;
use std::net::Ipv4Addr;

use barewire_driver::MacAddr;
use etherparse::{
    ArpPacket, Icmpv4Type, IpNumber, Ipv4Header, LaxPacketHeaders, LinkHeader, NetHeaders,
    TcpHeader, TcpOptionElement, TransportHeader,
};

/// An Ethernet frame as one line: addresses, protocol, and what matters of its headers. Whatever
/// the bytes are, the answer says as much as can be read of them.
///
/// ```
/// use barewire_stack::wire::pretty::describe;
/// let mut frame = vec![0xff; 6];
/// frame.extend([2, 0, 0, 0, 0, 1, 0x08, 0x06]);
/// frame.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1]);
/// frame.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
/// assert_eq!(describe(&frame), "ARP who has 10.0.0.2? tell 10.0.0.1 at 02:00:00:00:00:01");
/// ```
pub fn describe(frame: &[u8]) -> String {
    let Ok(headers) = LaxPacketHeaders::from_ethernet(frame) else {
        return format!("{} bytes, too short for Ethernet", frame.len());
    };
    let mut line = String::new();
    let payload = headers.payload.slice().len();
    match (&headers.net, &headers.transport) {
        (Some(NetHeaders::Arp(packet)), _) => line = arp(packet),
        (Some(net), Some(transport)) => {
            let ends = addresses(net);
            match transport {
                TransportHeader::Tcp(tcp) => line = segment(&ends, tcp, payload),
                TransportHeader::Udp(udp) => {
                    line = format!(
                        "{}:{} > {}:{} UDP len {payload}",
                        ends.0, udp.source_port, ends.1, udp.destination_port
                    );
                }
                TransportHeader::Icmpv4(icmp) => {
                    line = format!("{} > {} ICMP {}", ends.0, ends.1, icmp_text(&icmp.icmp_type));
                }
                other => line = format!("{} > {} {other:?}", ends.0, ends.1),
            }
        }
        (Some(net), None) => {
            let ends = addresses(net);
            let protocol = match net {
                NetHeaders::Ipv4(header, _) => header.protocol,
                NetHeaders::Ipv6(header, _) => header.next_header,
                NetHeaders::Arp(_) => IpNumber(0),
            };
            line = format!("{} > {} protocol {} len {payload}", ends.0, ends.1, protocol.0);
        }
        (None, _) => {
            if let Some(LinkHeader::Ethernet2(link)) = &headers.link {
                line = format!(
                    "{} > {} type {:#06x} len {payload}",
                    MacAddr(link.source),
                    MacAddr(link.destination),
                    link.ether_type.0
                );
            }
        }
    }
    if let Some(NetHeaders::Ipv4(header, _)) = &headers.net {
        line += &fragment(header);
    }
    if let Some((error, _)) = &headers.stop_err {
        // Writing to a string cannot fail.
        let _ = write!(line, " [{error}]");
    }
    line
}

fn addresses(net: &NetHeaders) -> (String, String) {
    match net {
        NetHeaders::Ipv4(header, _) => (
            Ipv4Addr::from(header.source).to_string(),
            Ipv4Addr::from(header.destination).to_string(),
        ),
        NetHeaders::Ipv6(header, _) => {
            (format!("[{}]", header.source_addr()), format!("[{}]", header.destination_addr()))
        }
        NetHeaders::Arp(_) => (String::new(), String::new()),
    }
}

fn arp(packet: &ArpPacket) -> String {
    let Ok(packet) = packet.try_eth_ipv4() else {
        return format!("ARP operation {} for other hardware or protocol", packet.operation.0);
    };
    let (sender, target) = (packet.sender_ipv4_addr(), packet.target_ipv4_addr());
    let mac = MacAddr(packet.sender_mac);
    match packet.operation {
        etherparse::ArpOperation::REQUEST => {
            format!("ARP who has {target}? tell {sender} at {mac}")
        }
        etherparse::ArpOperation::REPLY => format!("ARP {sender} is at {mac}, to {target}"),
        other => format!("ARP operation {}", other.0),
    }
}

fn segment(ends: &(String, String), tcp: &TcpHeader, payload: usize) -> String {
    let mut line =
        format!("{}:{} > {}:{} TCP", ends.0, tcp.source_port, ends.1, tcp.destination_port);
    let flags = [
        (tcp.syn, "SYN"),
        (tcp.fin, "FIN"),
        (tcp.rst, "RST"),
        (tcp.psh, "PSH"),
        (tcp.ack, "ACK"),
        (tcp.urg, "URG"),
        (tcp.ece, "ECE"),
        (tcp.cwr, "CWR"),
    ];
    for (_, name) in flags.iter().filter(|(set, _)| *set) {
        line.push(' ');
        line += name;
    }
    let _ = write!(line, " seq {}", tcp.sequence_number);
    if tcp.ack {
        let _ = write!(line, " ack {}", tcp.acknowledgment_number);
    }
    let _ = write!(line, " win {} len {payload}", tcp.window_size);
    for option in tcp.options_iterator() {
        let _ = match option {
            Ok(TcpOptionElement::Noop) => Ok(()),
            Ok(TcpOptionElement::MaximumSegmentSize(mss)) => write!(line, " mss {mss}"),
            Ok(TcpOptionElement::WindowScale(shift)) => write!(line, " wscale {shift}"),
            Ok(TcpOptionElement::SelectiveAcknowledgementPermitted) => write!(line, " sackOK"),
            Ok(TcpOptionElement::SelectiveAcknowledgement(first, rest)) => std::iter::once(first)
                .chain(rest.into_iter().flatten())
                .try_for_each(|(left, right)| write!(line, " sack {left}-{right}")),
            Ok(TcpOptionElement::Timestamp(val, ecr)) => write!(line, " ts {val}/{ecr}"),
            Err(error) => write!(line, " [{error}]"),
        };
    }
    line
}

fn icmp_text(message: &Icmpv4Type) -> String {
    match message {
        Icmpv4Type::EchoRequest(echo) => format!("echo request id {} seq {}", echo.id, echo.seq),
        Icmpv4Type::EchoReply(echo) => format!("echo reply id {} seq {}", echo.id, echo.seq),
        Icmpv4Type::DestinationUnreachable(why) => format!("unreachable: {why:?}"),
        Icmpv4Type::TimeExceeded(why) => format!("time exceeded: {why:?}"),
        Icmpv4Type::Unknown { type_u8, code_u8, .. } => format!("type {type_u8} code {code_u8}"),
        other => format!("{other:?}"),
    }
}

fn fragment(header: &Ipv4Header) -> String {
    if !header.is_fragmenting_payload() {
        return String::new();
    }
    let more = if header.more_fragments { "+" } else { "" };
    format!(" fragment {} at {}{more}", header.identification, header.fragment_offset.byte_offset())
}

#[cfg(test)]
mod tests {
    use super::super::ethernet::{self, EthernetHeader, ethertype};
    use super::super::ipv4::{self, Ipv4Header};
    use super::super::protocol;
    use super::super::tcp::{self, TcpFlags, TcpOptions};
    use super::super::udp::UdpHeader;
    use super::*;
    use proptest::prelude::*;

    fn frame(protocol: u8, change: impl FnOnce(&mut Ipv4Header), payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; ethernet::LEN + ipv4::LEN];
        let (dst, src) = (MacAddr::BROADCAST, MacAddr([2, 0, 0, 0, 0, 1]));
        EthernetHeader { dst, src, ethertype: ethertype::IPV4 }.emit(&mut bytes);
        let mut header =
            Ipv4Header::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), protocol, payload.len());
        change(&mut header);
        header.emit(&mut bytes[ethernet::LEN..]);
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn a_segment_reads_like_a_trace() {
        let syn = tcp::TcpHeader {
            src_port: 4000,
            dst_port: 80,
            seq: 100,
            ack: 7,
            flags: TcpFlags::SYN | TcpFlags::ACK,
            window: 512,
            options: TcpOptions { mss: Some(1460), window_scale: Some(7), ..Default::default() },
            ..Default::default()
        };
        let mut bytes = vec![0; syn.header_len()];
        syn.emit(&mut bytes);
        bytes.extend_from_slice(b"data");
        assert_eq!(
            describe(&frame(protocol::TCP, |_| {}, &bytes)),
            "10.0.0.1:4000 > 10.0.0.2:80 TCP SYN ACK seq 100 ack 7 win 512 len 4 mss 1460 wscale 7"
        );
    }

    #[test]
    fn datagrams_fragments_and_strange_frames_are_told_apart() {
        let mut udp = [0; 12];
        UdpHeader { src_port: 1, dst_port: 2, len: 12, checksum: 0 }.emit(&mut udp);
        let line = describe(&frame(protocol::UDP, |_| {}, &udp));
        assert_eq!(line, "10.0.0.1:1 > 10.0.0.2:2 UDP len 4");
        let part = frame(protocol::UDP, |h| (h.ident, h.fragment_offset) = (9, 1480), &udp);
        assert_eq!(describe(&part), "10.0.0.1 > 10.0.0.2 protocol 17 len 12 fragment 9 at 1480");
        let mut strange = frame(99, |_| {}, &[]);
        strange[12..14].copy_from_slice(&[0x88, 0xb5]);
        let line = describe(&strange);
        assert_eq!(line, "02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff type 0x88b5 len 20");
        assert_eq!(describe(&[1, 2, 3]), "3 bytes, too short for Ethernet");
    }

    #[test]
    fn what_stops_the_decoding_is_named() {
        let cut = &frame(protocol::TCP, |_| {}, &[0; 20])[..40];
        let line = describe(cut);
        assert!(line.starts_with("10.0.0.1 > 10.0.0.2 protocol 6") && line.contains('['), "{line}");
    }

    proptest! {
        #[test]
        fn every_frame_has_a_description(mut bytes in proptest::collection::vec(any::<u8>(), 0..120),
                                         ethertype in prop_oneof![Just(0x0800u16), Just(0x0806),
                                                                  Just(0x86dd), any::<u16>()]) {
            if bytes.len() >= 15 {
                bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
                if ethertype == 0x0800 {
                    bytes[14] = 0x45;
                }
            }
            let line = describe(&bytes);
            prop_assert!(!line.is_empty() && !line.contains('\n'), "{:?}", line);
        }
    }
}
