//! The header of nearly every segment: no SYN, nothing urgent, and no options but timestamps as
//! RFC 7323 appendix A lays them out.
//!
//! It fits into a few registers, where [`TcpHeader`] is copied from place to place. Whatever is
//! unusual, legal or not, is left to that.

use barewire_driver::mem::Checksum;

use super::options::{PADDED_TIMESTAMPS_LEN, TIMESTAMPS_FRONT};
use super::{LEN, TcpFlags, TcpHeader, TcpOptions, Timestamps, field};
use crate::wire::{get_u16, get_u32, put_u32};

/// Bytes of the header with timestamps.
const LEN_WITH_TIMESTAMPS: usize = LEN + PADDED_TIMESTAMPS_LEN;

/// Flags that a plain header does not have.
const UNUSUAL: TcpFlags = TcpFlags::SYN.union(TcpFlags::URG);

/// A header that is usual in every respect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainTcp {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number of the first byte.
    pub seq: u32,
    /// Acknowledgment number, if ACK is set.
    pub ack: u32,
    /// Control bits; neither SYN nor URG.
    pub flags: TcpFlags,
    /// Window as on the wire, unscaled.
    pub window: u16,
    /// The only option.
    pub timestamps: Option<Timestamps>,
}

/// The numbers of a plain header, read before or still in their segment.
pub(crate) trait Plain {
    fn seq(&self) -> u32;
    fn ack(&self) -> u32;
    fn flags(&self) -> TcpFlags;
    fn window(&self) -> u16;
    fn timestamps(&self) -> Option<Timestamps>;
    /// All of them.
    fn read(&self) -> PlainTcp;
}

impl Plain for PlainTcp {
    #[inline(always)]
    fn seq(&self) -> u32 {
        self.seq
    }

    #[inline(always)]
    fn ack(&self) -> u32 {
        self.ack
    }

    #[inline(always)]
    fn flags(&self) -> TcpFlags {
        self.flags
    }

    #[inline(always)]
    fn window(&self) -> u16 {
        self.window
    }

    #[inline(always)]
    fn timestamps(&self) -> Option<Timestamps> {
        self.timestamps
    }

    #[inline(always)]
    fn read(&self) -> PlainTcp {
        *self
    }
}

/// A header of so many bytes that has nothing but timestamps behind its fields, or nothing. What its
/// flags say is not known yet. The numbers that are needed often have been read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InPlace<'a, const HEADER: usize> {
    bytes: &'a [u8; HEADER],
    seq: u32,
    ack: u32,
    /// The timestamp's value, if there is one.
    val: u32,
}

impl<'a, const HEADER: usize> InPlace<'a, HEADER> {
    /// The header at the front of a segment, and the text behind it; `None` if it is longer, or has
    /// other options.
    #[inline(always)]
    pub(crate) fn split(segment: &'a [u8]) -> Option<(InPlace<'a, HEADER>, &'a [u8])> {
        const { assert!(HEADER == LEN || HEADER == LEN_WITH_TIMESTAMPS) };
        let (bytes, text) = segment.split_first_chunk::<HEADER>()?;
        let fits = usize::from(bytes[field::DATA_OFFSET] >> 4) * 4 == HEADER;
        let stamped = HEADER == LEN || get_u32(bytes, LEN) == TIMESTAMPS_FRONT;
        let val = if HEADER == LEN { 0 } else { get_u32(bytes, LEN + 4) };
        let (seq, ack) = (get_u32(bytes, field::SEQ), get_u32(bytes, field::ACK));
        (fits && stamped).then_some((InPlace { bytes, seq, ack, val }, text))
    }
}

impl<const HEADER: usize> Plain for InPlace<'_, HEADER> {
    #[inline(always)]
    fn seq(&self) -> u32 {
        self.seq
    }

    #[inline(always)]
    fn ack(&self) -> u32 {
        self.ack
    }

    #[inline(always)]
    fn flags(&self) -> TcpFlags {
        TcpFlags::from_bits_retain(self.bytes[field::FLAGS])
    }

    #[inline(always)]
    fn window(&self) -> u16 {
        get_u16(self.bytes, field::WINDOW)
    }

    #[inline(always)]
    fn timestamps(&self) -> Option<Timestamps> {
        (HEADER == LEN_WITH_TIMESTAMPS)
            .then(|| Timestamps { val: self.val, ecr: get_u32(self.bytes, LEN + 8) })
    }

    #[inline(always)]
    fn read(&self) -> PlainTcp {
        PlainTcp {
            src_port: get_u16(self.bytes, field::SRC_PORT),
            dst_port: get_u16(self.bytes, field::DST_PORT),
            seq: self.seq(),
            ack: self.ack(),
            flags: self.flags(),
            window: self.window(),
            timestamps: self.timestamps(),
        }
    }
}

impl PlainTcp {
    /// Reads the header at the front of a segment of `segment_len` bytes, of which `first_segment`
    /// is the first piece; gives it and its length. `None` if it is not plain, or not right. The
    /// checksum is left to the caller.
    #[inline(always)]
    pub fn parse(first_segment: &[u8], segment_len: usize) -> Option<(PlainTcp, usize)> {
        let bytes: &[u8; LEN] = first_segment.first_chunk()?;
        let word = get_u32(bytes, field::DATA_OFFSET);
        let flags = TcpFlags::from_bits_retain((word >> 16) as u8);
        let (header_len, timestamps) = match word >> 28 {
            5 => (LEN, None),
            8 => {
                let bytes: &[u8; LEN_WITH_TIMESTAMPS] = first_segment.first_chunk()?;
                if get_u32(bytes, LEN) != TIMESTAMPS_FRONT {
                    return None;
                }
                let clock =
                    Timestamps { val: get_u32(bytes, LEN + 4), ecr: get_u32(bytes, LEN + 8) };
                (LEN_WITH_TIMESTAMPS, Some(clock))
            }
            _ => return None,
        };
        if flags.intersects(UNUSUAL) || header_len > segment_len {
            return None;
        }
        let ports = get_u32(bytes, field::SRC_PORT);
        let header = PlainTcp {
            src_port: (ports >> 16) as u16,
            dst_port: ports as u16,
            seq: get_u32(bytes, field::SEQ),
            ack: get_u32(bytes, field::ACK),
            flags,
            window: word as u16,
            timestamps,
        };
        Some((header, header_len))
    }

    /// The same header, if it is plain.
    #[inline(always)]
    pub fn of(header: &TcpHeader) -> Option<PlainTcp> {
        let plain = !header.flags.intersects(UNUSUAL) && header.options.sack.is_empty();
        plain.then_some(PlainTcp {
            src_port: header.src_port,
            dst_port: header.dst_port,
            seq: header.seq,
            ack: header.ack,
            flags: header.flags,
            window: header.window,
            timestamps: header.options.timestamps,
        })
    }

    /// Writes the header with a checksum of zero to the front of `out` and adds what it writes to a
    /// checksum; gives the bytes written.
    ///
    /// # Panics
    /// If `out` is too short.
    #[inline(always)]
    pub fn emit_summed(&self, out: &mut [u8], sum: &mut Checksum) -> usize {
        let header_len = match self.timestamps {
            None => LEN,
            Some(clock) => {
                let option = &mut out[LEN..LEN_WITH_TIMESTAMPS];
                for (at, word) in [TIMESTAMPS_FRONT, clock.val, clock.ecr].into_iter().enumerate() {
                    put_u32(option, 4 * at, word);
                    sum.add_u32(word);
                }
                LEN_WITH_TIMESTAMPS
            }
        };
        let fixed: &mut [u8; LEN] = out.first_chunk_mut().expect("room for the header");
        let words = [
            u32::from(self.src_port) << 16 | u32::from(self.dst_port),
            self.seq,
            self.ack,
            (header_len as u32) << 26 | u32::from(self.flags.bits()) << 16 | u32::from(self.window),
            0,
        ];
        for (at, word) in words.into_iter().enumerate() {
            put_u32(fixed, 4 * at, word);
            sum.add_u32(word);
        }
        header_len
    }
}

/// Bytes of the header of a SYN with the usual options.
pub(in crate::wire) const SYN_LEN: usize = LEN + 20;

/// What stands in front of their values: the MSS; SACK permitted and timestamps; a NOP and the window
/// scale.
const SYN_MSS: u32 = 0x0204_0000;
const SYN_CLOCK: u32 = 0x0402_080a;
const SYN_SCALE: u32 = 0x0103_0300;

impl TcpHeader {
    /// True if [`TcpHeader::emit_usual_syn`] writes it.
    #[inline(always)]
    pub fn is_usual_syn(&self) -> bool {
        let &TcpOptions { timestamps, mss, window_scale, sack_permitted, fast_open, .. } =
            &self.options;
        let all = timestamps.is_some() && mss.is_some() && window_scale.is_some() && sack_permitted;
        let more = fast_open.is_some() || !self.options.sack.is_empty();
        self.flags.contains(TcpFlags::SYN) && all && !more
    }

    /// As [`PlainTcp::emit_summed`], with these ports, for a SYN that has the four options that nearly
    /// every one has: the same as [`TcpHeader::emit`] writes. `None`, and nothing written, for others.
    ///
    /// # Panics
    /// If `out` is too short.
    #[inline]
    pub fn emit_usual_syn(
        &self,
        (src_port, dst_port): (u16, u16),
        out: &mut [u8],
        sum: &mut Checksum,
    ) -> Option<usize> {
        let &TcpOptions { timestamps, mss, window_scale, sack_permitted, fast_open, .. } =
            &self.options;
        let (Some(clock), Some(mss), Some(shift)) = (timestamps, mss, window_scale) else {
            return None;
        };
        let usual = self.flags.contains(TcpFlags::SYN) && sack_permitted && fast_open.is_none();
        if !usual || !self.options.sack.is_empty() {
            return None;
        }
        let out: &mut [u8; SYN_LEN] = out.first_chunk_mut().expect("room for the header");
        let words = [
            u32::from(src_port) << 16 | u32::from(dst_port),
            self.seq,
            self.ack,
            (SYN_LEN as u32) << 26 | u32::from(self.flags.bits()) << 16 | u32::from(self.window),
            u32::from(self.urgent),
            SYN_MSS | u32::from(mss),
            SYN_CLOCK,
            clock.val,
            clock.ecr,
            SYN_SCALE | u32::from(shift),
        ];
        for (at, word) in words.into_iter().enumerate() {
            put_u32(out, 4 * at, word);
            sum.add_u32(word);
        }
        Some(SYN_LEN)
    }
}

impl From<PlainTcp> for TcpHeader {
    fn from(plain: PlainTcp) -> TcpHeader {
        TcpHeader {
            src_port: plain.src_port,
            dst_port: plain.dst_port,
            seq: plain.seq,
            ack: plain.ack,
            flags: plain.flags,
            window: plain.window,
            urgent: 0,
            options: TcpOptions { timestamps: plain.timestamps, ..TcpOptions::default() },
        }
    }
}
