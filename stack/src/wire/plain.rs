//! The headers of nearly every frame below its transport header: Ethernet or nothing, then IPv4
//! without options, whole.
//!
//! What is checked here is what [`EthernetHeader`] and [`Ipv4Header`] check, without numbers that
//! nobody will ask for. Whatever is unusual, legal or not, is left to them: a frame that is not
//! plain has not been judged.
//!
//! [`EthernetHeader`]: super::ethernet::EthernetHeader
//! [`Ipv4Header`]: super::ipv4::Ipv4Header

use std::net::Ipv4Addr;

use barewire_driver::MacAddr;
use barewire_driver::mem::Checksum;

use super::ethernet::{self, ethertype};
use super::{get_u16, ipv4, put_u32};

/// Version 4 and a header of five words.
const VERSION_IHL: u8 = 0x45;
/// More fragments, and the offset of one.
const FRAGMENT: u16 = 0x3fff;
/// The flag that forbids routers to make fragments, in the word that it lies in.
const DONT_FRAGMENT: u32 = 0x4000;

/// An IPv4 packet that is not a fragment and has no options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainIpv4 {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// What follows, see [`super::protocol`].
    pub protocol: u8,
    /// Differentiated services and ECN.
    pub tos: u8,
    /// Bytes behind the header.
    pub payload_len: usize,
}

impl PlainIpv4 {
    /// Bytes of the header.
    pub const LEN: usize = ipv4::LEN;

    /// Reads the header at the front of a packet of `packet_len` bytes, of which `first_segment` is
    /// the first piece; `None` if it is not plain, or not right.
    #[inline(always)]
    pub fn parse(first_segment: &[u8], packet_len: usize) -> Option<PlainIpv4> {
        let bytes: &[u8; ipv4::LEN] = first_segment.first_chunk()?;
        let total_len = usize::from(get_u16(bytes, 2));
        let mut sum = Checksum::new();
        sum.add_header(bytes);
        let plain = bytes[0] == VERSION_IHL
            && get_u16(bytes, 6) & FRAGMENT == 0
            && (ipv4::LEN..=packet_len).contains(&total_len)
            && sum.finish() == 0;
        plain.then(|| PlainIpv4 {
            src: Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]),
            dst: Ipv4Addr::new(bytes[16], bytes[17], bytes[18], bytes[19]),
            protocol: bytes[9],
            tos: bytes[1],
            payload_len: total_len - ipv4::LEN,
        })
    }

    /// Adds the pseudo-header of the transport's checksum (RFC 9293 §3.1, RFC 768).
    #[inline(always)]
    pub fn add_pseudo_header(&self, sum: &mut Checksum) {
        sum.add_u32(self.src.to_bits());
        sum.add_u32(self.dst.to_bits());
        sum.add_u32(u32::from(self.protocol) << 16 | self.payload_len as u32 & 0xffff);
    }

    /// Writes the header to the front of `out`, its checksum made of these numbers.
    ///
    /// # Panics
    /// If `out` has fewer than 20 bytes, and in debug builds if the packet is too long for IPv4.
    #[inline(always)]
    pub fn emit(&self, ttl: u8, dont_fragment: bool, out: &mut [u8]) {
        let total_len = ipv4::LEN + self.payload_len;
        debug_assert!(total_len <= usize::from(u16::MAX), "larger than a datagram");
        let words = [
            u32::from(VERSION_IHL) << 24 | u32::from(self.tos) << 16 | total_len as u32 & 0xffff,
            if dont_fragment { DONT_FRAGMENT } else { 0 },
            u32::from(ttl) << 24 | u32::from(self.protocol) << 16,
            self.src.to_bits(),
            self.dst.to_bits(),
        ];
        // Five words, so the sum of their halves fits 19 bits: two foldings.
        let halves = words.iter().map(|word| (word >> 16) + (word & 0xffff)).sum::<u32>();
        let folded = (halves >> 16) + (halves & 0xffff);
        let sum = !((folded >> 16) + folded) & 0xffff;
        let out: &mut [u8; ipv4::LEN] = out.first_chunk_mut().expect("room for the header");
        for (at, word) in words.into_iter().enumerate() {
            let word = if at == 2 { word | sum } else { word };
            put_u32(out, 4 * at, word);
        }
    }
}

/// The plain IPv4 header, and what it says that follows, of an Ethernet frame for `mac` in one piece,
/// if it is one.
#[inline(always)]
pub fn packet_for(frame: &[u8], mac: MacAddr) -> Option<(PlainIpv4, &[u8])> {
    let head: &[u8; PAYLOAD_AT] = frame.first_chunk()?;
    let (link, header) = head.split_first_chunk::<{ ethernet::LEN }>()?;
    if link[..6] != mac.0 || get_u16(link, 12) != ethertype::IPV4 {
        return None;
    }
    let ip = PlainIpv4::parse(header, frame.len() - ethernet::LEN)?;
    Some((ip, frame.get(PAYLOAD_AT..PAYLOAD_AT + ip.payload_len)?))
}

/// Where the transport's header begins in an Ethernet frame.
const PAYLOAD_AT: usize = ethernet::LEN + ipv4::LEN;

/// True if `frame` is an Ethernet frame with an IPv4 packet for `mac`.
#[inline]
pub fn is_ipv4_for(frame: &[u8], mac: MacAddr) -> bool {
    frame
        .first_chunk::<{ ethernet::LEN }>()
        .is_some_and(|header| header[..6] == mac.0 && get_u16(header, 12) == ethertype::IPV4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ethernet::EthernetHeader;
    use crate::wire::ipv4::Ipv4Header;
    use proptest::prelude::*;

    proptest! {
        /// Arbitrary headers, most of them damaged in one byte, with options and fragments.
        #[test]
        fn what_is_plain_is_what_the_full_parser_reads(
            (src, dst, len, tos, ident) in any::<(u32, u32, u16, u8, u16)>(),
            damage in proptest::option::of((0usize..20, any::<u8>())),
            reseal: bool, padding in 0usize..50,
        ) {
            let len = usize::from(len % 1480);
            let mut header = Ipv4Header::new(src.into(), dst.into(), 6, len);
            (header.tos, header.ident) = (tos, ident);
            let mut bytes = vec![0; Ipv4Header::LEN + len + padding];
            header.emit(&mut bytes);
            if let Some((at, byte)) = damage {
                bytes[at] = byte;
                if reseal {
                    bytes[10..12].fill(0);
                    let mut sum = Checksum::new();
                    sum.add(&bytes[..20]);
                    let sum = sum.finish();
                    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
                }
            }
            let full = Ipv4Header::parse(&bytes, bytes.len());
            match PlainIpv4::parse(&bytes, bytes.len()) {
                Some(plain) => {
                    let full = full.unwrap();
                    prop_assert!(!full.is_fragment() && !full.source_routed);
                    prop_assert_eq!(usize::from(full.header_len), PlainIpv4::LEN);
                    prop_assert_eq!(plain, PlainIpv4 {
                        src: full.src,
                        dst: full.dst,
                        protocol: full.protocol,
                        tos: full.tos,
                        payload_len: full.payload_len(),
                    });
                }
                None => if let Ok(full) = full {
                    let options = usize::from(full.header_len) != PlainIpv4::LEN;
                    prop_assert!(options || full.is_fragment());
                },
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_the_full_writer_writes(
            (src, dst, len, tos, ttl) in any::<(u32, u32, u16, u8, u8)>(),
            dont_fragment: bool, protocol: u8,
        ) {
            let (src, dst, payload_len) = (src.into(), dst.into(), usize::from(len % 65_516));
            let mut full = Ipv4Header::new(src, dst, protocol, payload_len);
            (full.tos, full.ttl, full.dont_fragment) = (tos, ttl, dont_fragment);
            let (mut bytes, mut expected) = ([0xaa; 21], [0xaa; 21]);
            PlainIpv4 { src, dst, protocol, tos, payload_len }.emit(ttl, dont_fragment, &mut bytes);
            full.emit(&mut expected);
            prop_assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn truncated_headers_are_not_plain() {
        let mut bytes = [0; 20];
        Ipv4Header::new(1.into(), 2.into(), 6, 0).emit(&mut bytes);
        assert!(PlainIpv4::parse(&bytes, 20).is_some());
        assert!(PlainIpv4::parse(&bytes[..19], 20).is_none());
        assert!(PlainIpv4::parse(&bytes, 19).is_none());
    }

    #[test]
    fn only_ipv4_frames_for_the_address_are_taken() {
        let (us, other) = (MacAddr::local(1), MacAddr::local(2));
        let frame = |dst, ethertype| {
            let mut bytes = [0; 20];
            EthernetHeader { dst, src: other, ethertype }.emit(&mut bytes);
            bytes
        };
        assert!(is_ipv4_for(&frame(us, ethertype::IPV4), us));
        assert!(!is_ipv4_for(&frame(us, ethertype::IPV4)[..13], us));
        assert!(!is_ipv4_for(&frame(us, ethertype::ARP), us));
        assert!(!is_ipv4_for(&frame(other, ethertype::IPV4), us));
        assert!(!is_ipv4_for(&frame(MacAddr::BROADCAST, ethertype::IPV4), us));
    }
}
