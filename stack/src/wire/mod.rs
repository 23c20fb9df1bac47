//! Packets as bytes: one file a protocol.
//!
//! ```text
//!   frame ─▶ ethernet::parse ─▶ ipv4::parse ─▶ tcp::parse, udp::parse      plain numbers
//!                │                  └────────▶ icmpv4::parse
//!                └─▶ arp::parse                 …and `emit` the other way
//! ```
//!
//! The hot path (Ethernet, IPv4, TCP, UDP) is parsed here, because it reads each byte once and
//! knows that a packet may lie in several pieces. ARP and ICMP go through etherparse, which also
//! decodes frames for people ([`pretty::describe`]) and is the oracle of the property tests.
//!
//! **What may panic.** `parse` never does, whatever the bytes: it answers with a [`WireError`].
//! `emit` panics only if the buffer that it is given is shorter than the header it writes, which is
//! a bug of the caller and not of the peer.
//!
//! **Pieces.** Where a `parse` takes a length beside the bytes, the bytes are the first piece of the
//! packet and the length is that of the whole. A header has to lie in the first piece entirely;
//! one that does not is [`WireError::Truncated`].

use std::net::IpAddr;

use barewire_driver::mem::Checksum;
use thiserror::Error;

pub mod arp;
pub(crate) mod envelope;
pub mod ethernet;
pub(crate) mod front;
pub(crate) mod headroom;
pub mod icmpv4;
pub mod ipv4;
pub mod plain;
pub mod pretty;
pub(crate) mod series;
pub mod tcp;
pub mod udp;

/// IP protocol numbers that the stack speaks.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
}

/// Why bytes are not the packet that they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum WireError {
    /// Fewer bytes than the header says, or than a header has.
    #[error("the packet is truncated")]
    Truncated,
    /// A length field contradicts itself or another.
    #[error("a length field is wrong")]
    BadLength,
    /// The checksum does not match.
    #[error("the checksum is wrong")]
    BadChecksum,
    /// Another version of the protocol.
    #[error("the protocol version is wrong")]
    BadVersion,
    /// A field has a value that the protocol does not allow, or that the stack does not speak.
    #[error("a field has an illegal value")]
    BadField,
}

/// The sum of the pseudo-header that TCP and UDP checksums begin with (RFC 9293 §3.1, RFC 768,
/// RFC 8200 §8.1). `len` is the length of the transport header and its payload.
///
/// Both addresses have to be of one family; otherwise the sum matches nothing.
#[inline]
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: u32) -> Checksum {
    let mut sum = Checksum::new();
    for addr in [src, dst] {
        match addr {
            IpAddr::V4(addr) => sum.add_u32(addr.to_bits()),
            IpAddr::V6(addr) => sum.add(&addr.octets()),
        }
    }
    sum.add_u16(u16::from(protocol));
    // Over IPv4 the field has 16 bits. Adding a length in two halves gives the same sum.
    sum.add_u16((len >> 16) as u16);
    sum.add_u16(len as u16);
    sum
}

/// Reads a 16-bit field. The caller has checked that it lies within `bytes`.
#[inline]
fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Reads a 32-bit field. The caller has checked that it lies within `bytes`.
#[inline]
fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[inline]
pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
