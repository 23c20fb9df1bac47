//! IPv4 headers (RFC 791 §3.1).

use std::net::Ipv4Addr;

use barewire_driver::mem::Checksum;

use super::{WireError, get_u16, put_u16};

/// Bytes of a header without options.
pub const LEN: usize = 20;
/// Time to live of packets that say nothing else (RFC 1340).
pub const DEFAULT_TTL: u8 = 64;
/// Bytes of the longest header.
pub const MAX_LEN: usize = 60;

/// Where the fields begin.
mod field {
    pub(super) const VERSION_IHL: usize = 0;
    pub(super) const TOS: usize = 1;
    pub(super) const TOTAL_LEN: usize = 2;
    pub(super) const IDENT: usize = 4;
    pub(super) const FLAGS_OFFSET: usize = 6;
    pub(super) const TTL: usize = 8;
    pub(super) const PROTOCOL: usize = 9;
    pub(super) const CHECKSUM: usize = 10;
    pub(super) const SRC: usize = 12;
    pub(super) const DST: usize = 16;
    pub(super) const OPTIONS: usize = 20;
}

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// Option types (RFC 791 §3.1).
mod option {
    pub(super) const END: u8 = 0;
    pub(super) const NOP: u8 = 1;
    pub(super) const LOOSE_SOURCE_ROUTE: u8 = 131;
    pub(super) const STRICT_SOURCE_ROUTE: u8 = 137;
}

/// The ECN field of the IP header (RFC 3168 §5): the two low bits of the traffic class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Ecn {
    /// The sender does not take part.
    #[default]
    NotEct = 0b00,
    /// ECN-capable, kept for experiments (RFC 8311).
    Ect1 = 0b01,
    /// ECN-capable.
    Ect0 = 0b10,
    /// Congestion was experienced on the way.
    Ce = 0b11,
}

impl Ecn {
    const MASK: u8 = 0b11;

    /// The field of a header's [`Ipv4Header::tos`].
    #[inline]
    pub const fn of_tos(tos: u8) -> Ecn {
        match tos & Ecn::MASK {
            0b00 => Ecn::NotEct,
            0b01 => Ecn::Ect1,
            0b10 => Ecn::Ect0,
            _ => Ecn::Ce,
        }
    }

    /// `tos` with this field.
    #[inline]
    pub const fn in_tos(self, tos: u8) -> u8 {
        tos & !Ecn::MASK | self as u8
    }
}

/// An IPv4 header as plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Header {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// What follows, see [`super::protocol`].
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Differentiated services and ECN.
    pub tos: u8,
    /// Identification, common to the fragments of a datagram.
    pub ident: u16,
    /// The datagram must not be fragmented.
    pub dont_fragment: bool,
    /// Fragments follow this one.
    pub more_fragments: bool,
    /// Where in its datagram the payload begins, in bytes: always a multiple of 8.
    pub fragment_offset: u16,
    /// Bytes of the header, options included: 20 to 60. Not written by [`Ipv4Header::emit`].
    pub header_len: u8,
    /// Bytes of the header and the payload.
    pub total_len: u16,
    /// An option asks for a source route. Not written by [`Ipv4Header::emit`].
    pub source_routed: bool,
}

impl Ipv4Header {
    /// Bytes of a header without options.
    pub const LEN: usize = LEN;

    /// A header for a datagram of `payload_len` bytes, not fragmented, with a TTL of 64.
    ///
    /// # Panics
    /// If `payload_len` exceeds 65,515 bytes, in debug builds.
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload_len: usize) -> Ipv4Header {
        debug_assert!(payload_len <= usize::from(u16::MAX) - LEN, "larger than a datagram");
        Ipv4Header {
            src,
            dst,
            protocol,
            ttl: DEFAULT_TTL,
            tos: 0,
            ident: 0,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            header_len: LEN as u8,
            total_len: (LEN + payload_len) as u16,
            source_routed: false,
        }
    }

    /// Reads the header at the front of a packet of `packet_len` bytes, of which `first_segment` is
    /// the first piece. The packet may be longer than its header says: Ethernet pads short frames.
    ///
    /// A header with `source_routed` set is to be dropped: this host forwards nothing, and answers
    /// along a route that a stranger chose to no one (RFC 1122 §3.3.5, RFC 6274 §3.13.2.3).
    ///
    /// # Errors
    /// [`WireError`], also for a wrong header checksum (RFC 1122 §3.2.1.2).
    #[inline]
    pub fn parse(first_segment: &[u8], packet_len: usize) -> Result<Ipv4Header, WireError> {
        let bytes: &[u8; LEN] = first_segment.first_chunk().ok_or(WireError::Truncated)?;
        let version_ihl = bytes[field::VERSION_IHL];
        // RFC 1122 §3.2.1.1: another version is dropped silently.
        if version_ihl >> 4 != 4 {
            return Err(WireError::BadVersion);
        }
        let header_len = usize::from(version_ihl & 0xf) * 4;
        let total_len = get_u16(bytes, field::TOTAL_LEN);
        if header_len < LEN || usize::from(total_len) < header_len {
            return Err(WireError::BadLength);
        }
        if usize::from(total_len) > packet_len {
            return Err(WireError::Truncated);
        }
        let header = first_segment.get(..header_len).ok_or(WireError::Truncated)?;
        let mut sum = Checksum::new();
        sum.add(header);
        if sum.finish() != 0 {
            return Err(WireError::BadChecksum);
        }
        let source_routed = if header_len > LEN { walk_options(header)? } else { false };
        let flags_offset = get_u16(bytes, field::FLAGS_OFFSET);
        Ok(Ipv4Header {
            src: addr_at(bytes, field::SRC),
            dst: addr_at(bytes, field::DST),
            protocol: bytes[field::PROTOCOL],
            ttl: bytes[field::TTL],
            tos: bytes[field::TOS],
            ident: get_u16(bytes, field::IDENT),
            dont_fragment: flags_offset & DONT_FRAGMENT != 0,
            more_fragments: flags_offset & MORE_FRAGMENTS != 0,
            fragment_offset: (flags_offset & OFFSET_MASK) * 8,
            header_len: header_len as u8,
            total_len,
            source_routed,
        })
    }

    /// Writes the header without options, checksum included: 20 bytes at the front of `out`.
    ///
    /// # Panics
    /// If `out` has fewer than 20 bytes.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) {
        debug_assert!(self.fragment_offset.is_multiple_of(8), "an offset between two blocks");
        let out = &mut out[..LEN];
        out[field::VERSION_IHL] = 0x45;
        out[field::TOS] = self.tos;
        put_u16(out, field::TOTAL_LEN, self.total_len);
        put_u16(out, field::IDENT, self.ident);
        let df = if self.dont_fragment { DONT_FRAGMENT } else { 0 };
        let mf = if self.more_fragments { MORE_FRAGMENTS } else { 0 };
        put_u16(out, field::FLAGS_OFFSET, df | mf | (self.fragment_offset / 8));
        out[field::TTL] = self.ttl;
        out[field::PROTOCOL] = self.protocol;
        put_u16(out, field::CHECKSUM, 0);
        out[field::SRC..field::DST].copy_from_slice(&self.src.octets());
        out[field::DST..field::OPTIONS].copy_from_slice(&self.dst.octets());
        let mut sum = Checksum::new();
        sum.add(out);
        put_u16(out, field::CHECKSUM, sum.finish());
    }

    /// Bytes behind the header.
    #[inline]
    pub fn payload_len(&self) -> usize {
        usize::from(self.total_len).saturating_sub(usize::from(self.header_len))
    }

    /// True if this is a part of a datagram and not the whole of it.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }
}

#[inline]
fn addr_at(bytes: &[u8; LEN], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}

/// Steps over the options and tells whether one of them is a source route. The others ask a host
/// that does not forward for nothing that it must do (RFC 1122 §3.2.1.8).
fn walk_options(header: &[u8]) -> Result<bool, WireError> {
    let mut rest = &header[field::OPTIONS..];
    let mut source_routed = false;
    while let [kind, tail @ ..] = rest {
        match *kind {
            option::END => break,
            option::NOP => rest = tail,
            kind => {
                // The length counts the type and itself.
                let len = usize::from(*tail.first().ok_or(WireError::BadField)?);
                if len < 2 {
                    return Err(WireError::BadField);
                }
                rest = rest.get(len..).ok_or(WireError::BadField)?;
                source_routed |=
                    matches!(kind, option::LOOSE_SOURCE_ROUTE | option::STRICT_SOURCE_ROUTE);
            }
        }
    }
    Ok(source_routed)
}

#[cfg(test)]
#[path = "ipv4_tests.rs"]
mod tests;
