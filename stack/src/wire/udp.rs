//! UDP headers (RFC 768).

use barewire_driver::mem::Checksum;

use super::{WireError, get_u16, put_u16};

/// Bytes of the header.
pub const LEN: usize = 8;
/// Where the checksum lies in the header.
pub const CHECKSUM_OFFSET: usize = field::CHECKSUM;

/// Where the fields begin.
mod field {
    pub(super) const SRC_PORT: usize = 0;
    pub(super) const DST_PORT: usize = 2;
    pub(super) const LEN: usize = 4;
    pub(super) const CHECKSUM: usize = 6;
}

/// A UDP header as plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct UdpHeader {
    /// Source port, or 0 if no answer is expected.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Bytes of the header and the payload.
    pub len: u16,
    /// The checksum as it is on the wire; 0 over IPv4 means that the sender made none.
    pub checksum: u16,
}

impl UdpHeader {
    /// Bytes of the header.
    pub const LEN: usize = LEN;

    /// Reads the header at the front of an IP payload of `segment_len` bytes, of which
    /// `first_segment` is the first piece. The checksum is left to the caller, who has the other
    /// pieces and knows whether the device has verified it.
    ///
    /// # Errors
    /// [`WireError::Truncated`], and [`WireError::BadLength`] if the length is below 8.
    #[inline]
    pub fn parse(first_segment: &[u8], segment_len: usize) -> Result<UdpHeader, WireError> {
        let bytes: &[u8; LEN] = first_segment.first_chunk().ok_or(WireError::Truncated)?;
        let header = UdpHeader {
            src_port: get_u16(bytes, field::SRC_PORT),
            dst_port: get_u16(bytes, field::DST_PORT),
            len: get_u16(bytes, field::LEN),
            checksum: get_u16(bytes, field::CHECKSUM),
        };
        if usize::from(header.len) < LEN {
            return Err(WireError::BadLength);
        }
        if usize::from(header.len) > segment_len {
            return Err(WireError::Truncated);
        }
        Ok(header)
    }

    /// Writes the header to the front of `out`, the checksum as it stands in `self`.
    ///
    /// # Panics
    /// If `out` has fewer than 8 bytes.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) {
        let out = &mut out[..LEN];
        put_u16(out, field::SRC_PORT, self.src_port);
        put_u16(out, field::DST_PORT, self.dst_port);
        put_u16(out, field::LEN, self.len);
        put_u16(out, field::CHECKSUM, self.checksum);
    }

    /// What to write as the checksum of a datagram whose pseudo-header, header and payload sum to
    /// `sum`: a computed zero is sent as all ones, for zero means that there is none (RFC 768).
    #[inline]
    pub fn checksum_of(sum: &Checksum) -> u16 {
        match sum.finish() {
            0 => 0xffff,
            checksum => checksum,
        }
    }

    /// Bytes behind the header.
    #[inline]
    pub fn payload_len(&self) -> usize {
        usize::from(self.len).saturating_sub(LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{protocol, pseudo_header};
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    proptest! {
        #[test]
        fn what_is_written_is_read_back_here_and_by_etherparse(
            src_port: u16, dst_port: u16, len in 8u16.., checksum: u16,
        ) {
            let header = UdpHeader { src_port, dst_port, len, checksum };
            let mut bytes = [0; LEN];
            header.emit(&mut bytes);
            prop_assert_eq!(UdpHeader::parse(&bytes, usize::from(len)), Ok(header));
            let theirs = etherparse::UdpHeader {
                source_port: src_port, destination_port: dst_port, length: len, checksum,
            };
            prop_assert_eq!(&etherparse::UdpHeader::from_slice(&bytes).unwrap().0, &theirs);
            prop_assert_eq!(theirs.to_bytes(), bytes);
        }

        #[test]
        fn checksums_are_those_of_etherparse(
            src: u32, dst: u32, src6: u128, dst6: u128, src_port: u16, dst_port: u16,
            payload in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            let mut header =
                UdpHeader { src_port, dst_port, len: (LEN + payload.len()) as u16, checksum: 0 };
            let mut sum_over = |src: IpAddr, dst: IpAddr| {
                let mut bytes = [0; LEN];
                header.checksum = 0;
                header.emit(&mut bytes);
                let mut sum = pseudo_header(src, dst, protocol::UDP, u32::from(header.len));
                sum.add(&bytes);
                sum.add(&payload);
                header.checksum = UdpHeader::checksum_of(&sum);
                // The receiver's side: the sum over everything is zero.
                header.emit(&mut bytes);
                let mut check = pseudo_header(src, dst, protocol::UDP, u32::from(header.len));
                check.add(&bytes);
                check.add(&payload);
                assert_eq!(check.finish(), 0);
                header.checksum
            };
            let (v4, v4_dst) = (Ipv4Addr::from(src), Ipv4Addr::from(dst));
            let (v6, v6_dst) = (Ipv6Addr::from(src6), Ipv6Addr::from(dst6));
            let ours = sum_over(v4.into(), v4_dst.into());
            let ours6 = sum_over(v6.into(), v6_dst.into());
            let theirs = etherparse::UdpHeader {
                source_port: src_port, destination_port: dst_port, length: header.len, checksum: 0,
            };
            let raw = theirs.calc_checksum_ipv4_raw(v4.octets(), v4_dst.octets(), &payload);
            prop_assert_eq!(ours, raw.unwrap());
            let raw = theirs.calc_checksum_ipv6_raw(v6.octets(), v6_dst.octets(), &payload);
            prop_assert_eq!(ours6, raw.unwrap());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = UdpHeader::parse(&bytes, bytes.len());
        }
    }

    #[test]
    fn every_truncation_is_told() {
        let mut bytes = [0; 12];
        UdpHeader { len: 12, ..UdpHeader::default() }.emit(&mut bytes);
        for len in 0..12 {
            assert_eq!(UdpHeader::parse(&bytes[..len], len), Err(WireError::Truncated));
        }
        assert_eq!(UdpHeader::parse(&bytes[..LEN], 12).map(|h| h.payload_len()), Ok(4));
        bytes[field::LEN + 1] = 7;
        assert_eq!(UdpHeader::parse(&bytes, 12), Err(WireError::BadLength));
    }

    #[test]
    fn a_checksum_of_zero_is_sent_as_all_ones() {
        let mut sum = Checksum::new();
        sum.add_u16(0xffff);
        assert_eq!(UdpHeader::checksum_of(&sum), 0xffff);
        sum.add_u16(1);
        assert_eq!(UdpHeader::checksum_of(&sum), 0xfffe);
    }
}
