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
        let mut series = Series { link, fixed: *fixed, option, ident_and_sum: ident_and_sum(fixed) };
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
