//! What the frames of one stream have in common: the next one is told by comparing, not by reading.
//!
//! ```text
//!   link   version…length  identification  flags, TTL, protocol  sum  addresses
//!   same   same            any             same                  with same
//!                                                                identification
//!   ports  seq      ack, offset  flags        window  sum, urgent  timestamps
//!   same   in turn  same         same or PSH  same    any          same
//! ```

use super::tcp::{self, TcpFlags};
use super::{ethernet, get_u16, ipv4, put_u32};

/// Bytes of the headers of IPv4 and TCP without options.
const FIXED_LEN: usize = ipv4::LEN + tcp::LEN;

/// Bytes of the only option, padded.
const OPTION_LEN: usize = 12;

/// The headers of a plain segment, for those behind it.
pub(crate) struct Series {
    /// The link header, if there is one.
    link: Option<[u8; ethernet::LEN]>,
    /// With the sequence number of the next segment.
    fixed: [u8; FIXED_LEN],
    option: Option<[u8; OPTION_LEN]>,
    ident_and_sum: u32,
}

impl Series {
    /// That of a frame whose headers are plain and right, without flags but ACK: so many bytes of
    /// link header, Ethernet's or none, and so many of IPv4 and TCP. `seq` is that of the next.
    pub(crate) fn of(
        frame: &[u8],
        link_len: usize,
        headers_len: usize,
        seq: u32,
    ) -> Option<Series> {
        let (link, headers) = frame.get(..link_len + headers_len)?.split_at(link_len);
        let link = match link {
            [] => None,
            link => Some(<[u8; ethernet::LEN]>::try_from(link).ok()?),
        };
        let (fixed, rest) = headers.split_first_chunk()?;
        let option = match rest {
            [] => None,
            rest => Some(<[u8; OPTION_LEN]>::try_from(rest).ok()?),
        };
        let mut series =
            Series { link, fixed: *fixed, option, ident_and_sum: ident_and_sum(fixed) };
        series.go_on(seq);
        Some(series)
    }

    /// The next segment begins at `seq`.
    #[inline(always)]
    pub(crate) fn go_on(&mut self, seq: u32) {
        put_u32(&mut self.fixed, ipv4::LEN + tcp::SEQ_OFFSET, seq);
    }

    /// Whether `frame` has the headers of the next segment, and if so, whether it says PSH. Its IPv4
    /// checksum is right then, as that of the first is; the transport's has not been looked at.
    #[inline(always)]
    pub(crate) fn next(&self, frame: &[u8]) -> Option<bool> {
        let headers = match &self.link {
            Some(link) => frame.strip_prefix(link)?,
            None => frame,
        };
        let (fixed, rest) = headers.split_first_chunk::<FIXED_LEN>()?;
        let mut differing = 0;
        for (at, may_differ) in MAY_DIFFER.into_iter().enumerate() {
            differing |= (word(fixed, 8 * at) ^ word(&self.fixed, 8 * at)) & !may_differ;
        }
        let same = differing == 0 && agree(ident_and_sum(fixed), self.ident_and_sum);
        let pushed = fixed[ipv4::LEN + tcp::FLAGS_OFFSET] & TcpFlags::PSH.bits() != 0;
        let same = same && self.option.is_none_or(|option| rest.first_chunk() == Some(&option));
        same.then_some(pushed)
    }
}

/// The bits of each eight bytes of the fixed headers that need not be the same: IPv4's identification
/// and checksum, PSH, TCP's checksum and the urgent pointer, which means nothing without its flag.
const MAY_DIFFER: [u64; FIXED_LEN / 8] = [
    u64::from_ne_bytes([0, 0, 0, 0, 0xff, 0xff, 0, 0]),
    u64::from_ne_bytes([0, 0, 0xff, 0xff, 0, 0, 0, 0]),
    0,
    0,
    u64::from_ne_bytes([0, TcpFlags::PSH.bits(), 0, 0, 0xff, 0xff, 0xff, 0xff]),
];

#[inline(always)]
fn word(bytes: &[u8; FIXED_LEN], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The sum of identification and checksum.
#[inline(always)]
fn ident_and_sum(header: &[u8; FIXED_LEN]) -> u32 {
    u32::from(get_u16(header, 4)) + u32::from(get_u16(header, 10))
}

/// Whether both IPv4 headers are right, or neither, if they have these sums of identification and
/// checksum and agree in the rest: the same in one's complement.
#[inline(always)]
fn agree(a: u32, b: u32) -> bool {
    a == b || a % 0xffff == b % 0xffff
}

#[cfg(test)]
mod tests {
    use barewire_driver::MacAddr;
    use barewire_driver::mem::Checksum;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::plain::{PlainIpv4, is_ipv4_for};
    use crate::wire::put_u16;
    use crate::wire::tcp::{PlainTcp, Timestamps};

    const PAYLOAD: usize = 1000;
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);

    /// A frame with an Ethernet header or without, IPv4's checksum right.
    fn frame(linked: bool, header: &PlainTcp, ident: u16) -> Vec<u8> {
        let mut frame = vec![0; 200];
        let link_len = if linked { ethernet::LEN } else { 0 };
        if linked {
            frame[..6].copy_from_slice(&MAC.0);
            put_u16(&mut frame, 12, ethernet::ethertype::IPV4);
        }
        let tcp_at = link_len + ipv4::LEN;
        let len = header.emit_summed(&mut frame[tcp_at..], &mut Checksum::new());
        let ip = PlainIpv4 {
            src: [10, 0, 0, 2].into(),
            dst: [10, 0, 0, 1].into(),
            protocol: 6,
            tos: 0,
            payload_len: len + PAYLOAD,
        };
        ip.emit(64, true, &mut frame[link_len..]);
        put_u16(&mut frame, link_len + 4, ident);
        put_u16(&mut frame, link_len + 10, 0);
        let mut sum = Checksum::new();
        sum.add(&frame[link_len..tcp_at]);
        put_u16(&mut frame, link_len + 10, sum.finish());
        frame
    }

    /// What the parsers read of a frame, but for PSH and what may differ; `None` if it is not plain.
    fn read(linked: bool, frame: &[u8]) -> Option<(PlainIpv4, PlainTcp, usize)> {
        let link_len = if linked { ethernet::LEN } else { 0 };
        if linked && !is_ipv4_for(frame, MAC) {
            return None;
        }
        let ip = PlainIpv4::parse(&frame[link_len..], 2000)?;
        let bytes = &frame[link_len + ipv4::LEN..];
        let (mut header, len) = PlainTcp::parse(bytes, ip.payload_len)?;
        header.flags -= TcpFlags::PSH;
        Some((ip, header, len))
    }

    proptest! {
        /// What is told by comparing is what reading tells, of frames damaged in any byte.
        #[test]
        fn the_next_segment_is_one_that_reads_the_same(
            linked: bool, stamped: bool, pushed: bool, seq: u32, idents: (u16, u16),
            damage in proptest::option::of((0usize..70, 1u8..)),
        ) {
            let timestamps = stamped.then_some(Timestamps { val: 7, ecr: 9 });
            let first = PlainTcp {
                src_port: 80, dst_port: 5000, seq, ack: 77, flags: TcpFlags::ACK, window: 500,
                timestamps,
            };
            let begun = frame(linked, &first, idents.0);
            let link_len = if linked { ethernet::LEN } else { 0 };
            let headers_len = FIXED_LEN + if stamped { OPTION_LEN } else { 0 };
            let next = seq.wrapping_add(PAYLOAD as u32);
            let series = Series::of(&begun, link_len, headers_len, next).unwrap();
            prop_assert_eq!(series.next(&begun), None, "the same again is not the next");
            let flags = if pushed { TcpFlags::ACK | TcpFlags::PSH } else { TcpFlags::ACK };
            let second = PlainTcp { seq: next, flags, ..first };
            let mut frame = frame(linked, &second, idents.1);
            let whole = read(linked, &frame);
            if let Some((at, bits)) = damage {
                frame[at] ^= bits;
            }
            let told = series.next(&frame);
            if damage.is_none() {
                prop_assert_eq!(told, Some(pushed));
            }
            if let Some(pushed) = told {
                prop_assert_eq!(read(linked, &frame), whole);
                let at = link_len + ipv4::LEN + tcp::FLAGS_OFFSET;
                prop_assert_eq!(frame[at] & TcpFlags::PSH.bits() != 0, pushed);
            }
            prop_assert_eq!(series.next(&frame[..link_len + headers_len - 1]), None);
        }
    }

    #[test]
    fn identifications_may_differ_while_checksums_are_right() {
        for (a, b) in [(0, 0xffff), (1, 0xfffe), (0xffff, 0), (0x1234, 0x1235)] {
            let header = PlainTcp {
                src_port: 1,
                dst_port: 2,
                seq: 0,
                ack: 0,
                flags: TcpFlags::ACK,
                window: 0,
                timestamps: None,
            };
            let series = Series::of(&frame(false, &header, a), 0, FIXED_LEN, 0).unwrap();
            assert_eq!(series.next(&frame(false, &header, b)), Some(false), "{a:#x}, {b:#x}");
            let mut wrong = frame(false, &header, b);
            wrong[11] ^= 1;
            assert_eq!(series.next(&wrong), None);
        }
    }

    #[test]
    fn headers_of_another_length_begin_no_series() {
        assert!(Series::of(&[0; 100], ethernet::LEN, FIXED_LEN + 4, 0).is_none());
        assert!(Series::of(&[0; 100], 4, FIXED_LEN, 0).is_none());
        assert!(Series::of(&[0; 30], 0, FIXED_LEN, 0).is_none());
    }
}
