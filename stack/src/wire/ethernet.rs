//! Ethernet II headers (IEEE 802.3 §3.2.6).

use barewire_driver::MacAddr;

use super::{WireError, get_u16, put_u16};

/// Values of the type field.
pub mod ethertype {
    /// IPv4 (RFC 894).
    pub const IPV4: u16 = 0x0800;
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// An IEEE 802.1Q tag follows.
    pub const VLAN: u16 = 0x8100;
    /// IPv6 (RFC 2464).
    pub const IPV6: u16 = 0x86dd;
}

/// Bytes of the header.
pub const LEN: usize = 14;

/// Where the fields begin.
mod field {
    pub(super) const DST: usize = 0;
    pub(super) const SRC: usize = 6;
    pub(super) const ETHERTYPE: usize = 12;
}

/// An Ethernet header as plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EthernetHeader {
    /// Destination.
    pub dst: MacAddr,
    /// Source.
    pub src: MacAddr,
    /// What follows, see [`ethertype`]. Below 1,536 it is the length of an IEEE 802.3 frame, which
    /// nothing in the stack answers to.
    pub ethertype: u16,
}

impl EthernetHeader {
    /// Bytes of the header.
    pub const LEN: usize = LEN;

    /// Reads the header at the front of `frame`.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below 14 bytes.
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<EthernetHeader, WireError> {
        let bytes: &[u8; LEN] = frame.first_chunk().ok_or(WireError::Truncated)?;
        Ok(EthernetHeader {
            dst: mac_at(bytes, field::DST),
            src: mac_at(bytes, field::SRC),
            ethertype: get_u16(bytes, field::ETHERTYPE),
        })
    }

    /// Writes the header to the front of `out`.
    ///
    /// # Panics
    /// If `out` has fewer than 14 bytes.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) {
        let out = &mut out[..LEN];
        out[field::DST..field::SRC].copy_from_slice(&self.dst.0);
        out[field::SRC..field::ETHERTYPE].copy_from_slice(&self.src.0);
        put_u16(out, field::ETHERTYPE, self.ethertype);
    }
}

#[inline]
fn mac_at(bytes: &[u8; LEN], at: usize) -> MacAddr {
    MacAddr(std::array::from_fn(|i| bytes[at + i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{EtherType, Ethernet2Header};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back_here_and_by_etherparse(
            dst: [u8; 6], src: [u8; 6], ethertype: u16,
        ) {
            let header = EthernetHeader { dst: MacAddr(dst), src: MacAddr(src), ethertype };
            let mut bytes = [0xaa; LEN + 3];
            header.emit(&mut bytes);
            prop_assert_eq!(EthernetHeader::parse(&bytes), Ok(header));
            prop_assert_eq!(&bytes[LEN..], &[0xaa; 3]);
            let theirs =
                Ethernet2Header { destination: dst, source: src, ether_type: EtherType(ethertype) };
            prop_assert_eq!(&Ethernet2Header::from_slice(&bytes).unwrap().0, &theirs);
            prop_assert_eq!(EthernetHeader::parse(&theirs.to_bytes()), Ok(header));
        }
    }

    #[test]
    fn a_short_frame_is_truncated() {
        for len in 0..LEN {
            assert_eq!(EthernetHeader::parse(&[0; LEN][..len]), Err(WireError::Truncated));
        }
    }
}
