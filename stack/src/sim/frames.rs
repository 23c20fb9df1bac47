//! What routers on the way do to packets: a mark, and a word to the sender.

use std::net::Ipv4Addr;

use barewire_driver::mem::Checksum;
use barewire_driver::{PacketSlice, Pool};

use crate::wire::ethernet::{EthernetHeader, ethertype};
use crate::wire::icmpv4::{Icmpv4Message, Unreachable};
use crate::wire::ipv4::Ipv4Header;
use crate::wire::protocol;
use crate::wire::tcp::TcpFlags;

/// Who tells senders that a packet is too large.
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);

/// Bytes of the payload that an ICMP error quotes behind the IP header (RFC 792).
const QUOTED_BYTES: usize = 8;

/// Where the type of service and the header checksum lie in an IPv4 header (RFC 791 §3.1).
const TOS: usize = 1;
const CHECKSUM: std::ops::Range<usize> = 10..12;

/// Where flags, checksum and urgent pointer lie in a TCP header, and the length of its fixed part
/// (RFC 9293 §3.1).
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const TCP_URGENT: usize = 18;
const TCP_FIXED: usize = 20;

/// "Congestion experienced", and the mask of the bits that say it (RFC 3168 §5).
const CE: u8 = 0b11;

fn ipv4_of(frame: &[PacketSlice]) -> Option<(EthernetHeader, Ipv4Header)> {
    let first = frame.first()?;
    let len: usize = frame.iter().map(|piece| piece.len()).sum();
    let link = EthernetHeader::parse(first).ok()?;
    let packet = first.get(EthernetHeader::LEN..)?;
    let ip = Ipv4Header::parse(packet, len.checked_sub(EthernetHeader::LEN)?).ok()?;
    (link.ethertype == ethertype::IPV4).then_some((link, ip))
}

/// The frame marked as having met congestion, where its ends understand that (RFC 3168 §5). The
/// sender may need the original again, so that the mark goes into a copy.
pub(super) fn marked(mut frame: Vec<PacketSlice>, pool: &Pool) -> Vec<PacketSlice> {
    let capable = ipv4_of(&frame).filter(|(_, ip)| ip.tos & CE != 0);
    let Some((_, ip)) = capable else { return frame };
    let Some(mut copy) = frame.first().and_then(|first| pool.copy_from(first)) else {
        return frame;
    };
    let header = &mut copy[EthernetHeader::LEN..][..usize::from(ip.header_len)];
    header[TOS] |= CE;
    header[CHECKSUM].fill(0);
    let mut sum = Checksum::new();
    sum.add(header);
    header[CHECKSUM].copy_from_slice(&sum.finish().to_be_bytes());
    frame[0] = copy.freeze();
    frame
}

/// The segment with URG and this urgent pointer (RFC 9293 §3.8.5), which none of our hosts sends:
/// to the reader it has to be data like any other (RFC 6093 §4). Others stay as they are.
pub(super) fn urgent(mut frame: Vec<PacketSlice>, pointer: u16, pool: &Pool) -> Vec<PacketSlice> {
    let whole = |(_, ip): &(_, Ipv4Header)| ip.protocol == protocol::TCP && !ip.is_fragment();
    let Some((_, ip)) = ipv4_of(&frame).filter(whole) else { return frame };
    let at = EthernetHeader::LEN + usize::from(ip.header_len);
    let Some(mut copy) = frame.first().and_then(|first| pool.copy_from(first)) else {
        return frame;
    };
    // A header that is not in the first piece, or a checksum that is left to a card.
    let Some(header) = copy.get_mut(at..at + TCP_FIXED) else { return frame };
    let word = |header: &[u8], at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    // RFC 1624 §3, equation 3: the sum changes by what the words change.
    let old = [word(header, TCP_FLAGS - 1), word(header, TCP_URGENT)];
    header[TCP_FLAGS] |= TcpFlags::URG.bits();
    header[TCP_URGENT..TCP_URGENT + 2].copy_from_slice(&pointer.to_be_bytes());
    let new = [word(header, TCP_FLAGS - 1), pointer];
    let mut sum = u32::from(!word(header, TCP_CHECKSUM));
    for (old, new) in old.into_iter().zip(new) {
        sum += u32::from(!old) + u32::from(new);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    header[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame[0] = copy.freeze();
    frame
}

/// What a router answers to a packet that it may not cut and that does not fit in a frame of
/// `largest` bytes (RFC 1191 §4). Others vanish, as they do on a way that does not cut.
pub(super) fn too_large(
    frame: &[PacketSlice],
    largest: usize,
    pool: &Pool,
) -> Option<Vec<PacketSlice>> {
    let (link, ip) = ipv4_of(frame).filter(|(_, ip)| ip.dont_fragment && !ip.is_fragment())?;
    let first = frame.first()?;
    let quoted = usize::from(ip.header_len) + QUOTED_BYTES;
    let quoted = first.get(EthernetHeader::LEN..EthernetHeader::LEN + quoted)?;
    let ip_len = Ipv4Header::LEN + Icmpv4Message::LEN + quoted.len();
    let mut answer = pool.alloc()?;
    answer.truncate(EthernetHeader::LEN + ip_len);
    EthernetHeader { dst: link.src, src: link.dst, ..link }.emit(&mut answer);
    let packet = &mut answer[EthernetHeader::LEN..];
    Ipv4Header::new(ROUTER, ip.src, protocol::ICMP, ip_len - Ipv4Header::LEN).emit(packet);
    let (message, payload) = packet[Ipv4Header::LEN..].split_at_mut(Icmpv4Message::LEN);
    payload.copy_from_slice(quoted);
    let next_hop_mtu =
        u16::try_from(largest.saturating_sub(EthernetHeader::LEN)).unwrap_or(u16::MAX);
    let why = Unreachable::FragmentationNeeded { next_hop_mtu };
    Icmpv4Message::Unreachable(why).emit([&*payload], message);
    Some(vec![answer.freeze()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::icmpv4::Quoted;
    use crate::wire::pseudo_header;
    use crate::wire::tcp::TcpHeader;
    use barewire_driver::{MacAddr, PoolConfig};
    use std::net::IpAddr;

    fn frame(pool: &Pool, tos: u8, dont_fragment: bool) -> Vec<PacketSlice> {
        let (src, dst) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let ip = Ipv4Header::new(src, dst, protocol::TCP, 1000);
        let mut bytes = vec![7; EthernetHeader::LEN + usize::from(ip.total_len)];
        let (src, dst) = (MacAddr::local(1), MacAddr::local(2));
        EthernetHeader { src, dst, ethertype: ethertype::IPV4 }.emit(&mut bytes);
        Ipv4Header { tos, dont_fragment, ..ip }.emit(&mut bytes[EthernetHeader::LEN..]);
        let pieces = bytes.chunks(100).map(|piece| pool.copy_from(piece).unwrap().freeze());
        pieces.collect()
    }

    fn pool() -> Pool {
        Pool::new(PoolConfig { slots: 64, slot_len: 2048, cells: 4, try_huge: false }).unwrap()
    }

    #[test]
    fn only_packets_whose_ends_understand_marks_are_marked() {
        let pool = pool();
        for (tos, expected) in [(0b00, 0b00), (0b10, 0b11), (0b01, 0b11), (0xb8 | 2, 0xb8 | 3)] {
            let frame = marked(frame(&pool, tos, true), &pool);
            let (_, ip) = ipv4_of(&frame).expect("the checksum is right again");
            assert_eq!(ip.tos, expected);
        }
    }

    #[test]
    fn a_segment_made_urgent_has_a_right_checksum_and_its_data_as_before() {
        let pool = pool();
        let (src, dst) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let ends = (IpAddr::V4(src), IpAddr::V4(dst));
        for pointer in [0, 1, 0x1234, 0xffff] {
            let flags = TcpFlags::ACK | TcpFlags::PSH;
            let header = TcpHeader { flags, seq: 0xffff_fff0, ..TcpHeader::default() };
            let mut segment = vec![0x5a; 20 + 300];
            header.emit(&mut segment[..20]);
            let len = segment.len();
            let sum = |bytes: &[u8]| {
                let mut sum = pseudo_header(ends.0, ends.1, protocol::TCP, len as u32);
                sum.add(bytes);
                sum.finish()
            };
            let checksum = sum(&segment).to_be_bytes();
            segment[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(&checksum);
            let mut bytes = vec![0; EthernetHeader::LEN + Ipv4Header::LEN];
            let (link_src, link_dst) = (MacAddr::local(1), MacAddr::local(2));
            EthernetHeader { src: link_src, dst: link_dst, ethertype: ethertype::IPV4 }
                .emit(&mut bytes);
            Ipv4Header::new(src, dst, protocol::TCP, len).emit(&mut bytes[EthernetHeader::LEN..]);
            bytes.extend(&segment);
            let pieces = bytes.chunks(100).map(|piece| pool.copy_from(piece).unwrap().freeze());
            let changed: Vec<u8> = urgent(pieces.collect(), pointer, &pool)
                .iter()
                .flat_map(|piece| piece.to_vec())
                .collect();
            let changed = &changed[EthernetHeader::LEN + Ipv4Header::LEN..];
            assert_eq!(sum(changed), 0, "the checksum is right");
            let (header, at) = TcpHeader::parse(changed, len).unwrap();
            assert_eq!((header.flags, header.urgent), (flags | TcpFlags::URG, pointer));
            assert_eq!(changed[at..], segment[20..]);
        }
    }

    #[test]
    fn the_sender_of_a_packet_that_does_not_fit_learns_what_would() {
        let pool = pool();
        assert!(too_large(&frame(&pool, 0, false), 600, &pool).is_none(), "it may be cut");
        let answer = too_large(&frame(&pool, 0, true), 600, &pool).unwrap();
        let (link, ip) = ipv4_of(&answer).unwrap();
        assert_eq!((link.dst, ip.dst.octets()), (MacAddr::local(1), [10, 0, 0, 1]));
        let message = &answer[0][EthernetHeader::LEN + Ipv4Header::LEN..];
        let why = Unreachable::FragmentationNeeded { next_hop_mtu: 586 };
        assert_eq!(Icmpv4Message::parse(message), Ok(Icmpv4Message::Unreachable(why)));
        let quoted = Quoted::parse(&message[Icmpv4Message::LEN..]).unwrap();
        assert_eq!(quoted.dst.octets(), [10, 0, 0, 2]);
    }
}
