//! TCP headers (RFC 9293 §3.1) and options (RFC 9293 §3.2, RFC 7323, RFC 2018, RFC 7413).

use bitflags::bitflags;

use super::{WireError, get_u16, get_u32, put_u16, put_u32};

mod options;
mod plain;

pub(crate) use options::PADDED_TIMESTAMPS_LEN;
pub use options::{FastOpenCookie, SackBlocks, TcpOptions, Timestamps};
pub use plain::PlainTcp;
pub(super) use plain::SYN_LEN;
pub(crate) use plain::{InPlace, Plain};

/// Bytes of a header without options.
pub const LEN: usize = 20;
/// Bytes of the longest header.
pub const MAX_LEN: usize = 60;
/// Where the checksum lies in the header.
pub const CHECKSUM_OFFSET: usize = field::CHECKSUM;

/// Where the sequence number lies in it.
pub(crate) const SEQ_OFFSET: usize = field::SEQ;

/// Where the flags lie in it.
pub(crate) const FLAGS_OFFSET: usize = field::FLAGS;

/// Where the fields begin.
pub(super) mod field {
    pub(super) const SRC_PORT: usize = 0;
    pub(super) const DST_PORT: usize = 2;
    pub(in crate::wire) const SEQ: usize = 4;
    pub(in crate::wire) const ACK: usize = 8;
    pub(in crate::wire) const DATA_OFFSET: usize = 12;
    pub(super) const FLAGS: usize = 13;
    pub(super) const WINDOW: usize = 14;
    pub(super) const CHECKSUM: usize = 16;
    pub(super) const URGENT: usize = 18;
}

bitflags! {
    /// Control bits (RFC 9293 §3.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct TcpFlags: u8 {
        /// No more data from the sender.
        const FIN = 0x01;
        /// Synchronise sequence numbers.
        const SYN = 0x02;
        /// Reset the connection.
        const RST = 0x04;
        /// Push.
        const PSH = 0x08;
        /// The acknowledgment field is significant.
        const ACK = 0x10;
        /// The urgent pointer is significant.
        const URG = 0x20;
        /// ECN echo (RFC 3168).
        const ECE = 0x40;
        /// Congestion window reduced (RFC 3168).
        const CWR = 0x80;
    }
}

/// A TCP header as plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TcpHeader {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number of the first byte (of SYN, if that is set).
    pub seq: u32,
    /// Acknowledgment number, if ACK is set.
    pub ack: u32,
    /// Control bits.
    pub flags: TcpFlags,
    /// Window as on the wire, unscaled.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options.
    pub options: TcpOptions,
}

impl TcpHeader {
    /// Reads the header at the front of a segment of `segment_len` bytes, of which `first_segment`
    /// is the first piece; gives it and its length, options included. The checksum is left to the
    /// caller, who has the other pieces and knows whether the device has verified it.
    ///
    /// # Errors
    /// [`WireError::Truncated`], and [`WireError::BadLength`] for a data offset below 5.
    #[inline]
    pub fn parse(
        first_segment: &[u8],
        segment_len: usize,
    ) -> Result<(TcpHeader, usize), WireError> {
        let mut header = TcpHeader::default();
        let header_len = header.read(first_segment, segment_len)?;
        Ok((header, header_len))
    }

    /// As [`TcpHeader::parse`], into a header that has no options yet: its copies would be seen in
    /// profiles.
    ///
    /// # Errors
    /// As [`TcpHeader::parse`]; what the header is then has no meaning.
    #[inline]
    pub fn read(&mut self, first_segment: &[u8], segment_len: usize) -> Result<usize, WireError> {
        let bytes: &[u8; LEN] = first_segment.first_chunk().ok_or(WireError::Truncated)?;
        let header_len = usize::from(bytes[field::DATA_OFFSET] >> 4) * 4;
        if header_len < LEN {
            return Err(WireError::BadLength);
        }
        if header_len > segment_len {
            return Err(WireError::Truncated);
        }
        let options = first_segment.get(LEN..header_len).ok_or(WireError::Truncated)?;
        self.src_port = get_u16(bytes, field::SRC_PORT);
        self.dst_port = get_u16(bytes, field::DST_PORT);
        self.seq = get_u32(bytes, field::SEQ);
        self.ack = get_u32(bytes, field::ACK);
        self.flags = TcpFlags::from_bits_retain(bytes[field::FLAGS]);
        self.window = get_u16(bytes, field::WINDOW);
        self.urgent = get_u16(bytes, field::URGENT);
        self.options.read_all(options, self.flags.contains(TcpFlags::SYN));
        Ok(header_len)
    }

    /// Bytes that [`TcpHeader::emit`] writes.
    #[inline]
    pub fn header_len(&self) -> usize {
        LEN + self.options.emit_len(self.flags.contains(TcpFlags::SYN))
    }

    /// Writes the header with its options and a checksum of zero to the front of `out`; gives the
    /// bytes written.
    ///
    /// The layout of the options is fixed: MSS, then SACK permitted or two NOPs, timestamps, NOP and
    /// window scale, as many SACK blocks as 40 bytes have room for, and last the fast open cookie.
    /// All but timestamps and SACK blocks belong to a SYN (RFC 9293 §3.2, RFC 7323 §2.2, RFC 2018
    /// §2, RFC 7413 §2) and are left out of other segments.
    ///
    /// # Panics
    /// If `out` is shorter than [`TcpHeader::header_len`].
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let header_len = self.header_len();
        let (fixed, options) = out[..header_len].split_at_mut(LEN);
        self.emit_fixed(fixed, header_len);
        self.options.emit(self.flags.contains(TcpFlags::SYN), options);
        header_len
    }

    /// Writes the part of the header that is always there, with a checksum of zero.
    #[inline]
    fn emit_fixed(&self, fixed: &mut [u8], header_len: usize) {
        let fixed: &mut [u8; LEN] = fixed.try_into().expect("20 bytes");
        put_u16(fixed, field::SRC_PORT, self.src_port);
        put_u16(fixed, field::DST_PORT, self.dst_port);
        put_u32(fixed, field::SEQ, self.seq);
        put_u32(fixed, field::ACK, self.ack);
        fixed[field::DATA_OFFSET] = ((header_len / 4) << 4) as u8;
        fixed[field::FLAGS] = self.flags.bits();
        put_u16(fixed, field::WINDOW, self.window);
        put_u16(fixed, field::CHECKSUM, 0);
        put_u16(fixed, field::URGENT, self.urgent);
    }
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
