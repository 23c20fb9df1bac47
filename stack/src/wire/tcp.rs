//! TCP headers (RFC 9293 §3.1) and options (RFC 9293 §3.2, RFC 7323, RFC 2018).

use bitflags::bitflags;

use super::{WireError, get_u16, get_u32, put_u16, put_u32};

/// Bytes of a header without options.
pub const LEN: usize = 20;
/// Bytes of the longest header.
pub const MAX_LEN: usize = 60;
/// Where the checksum lies in the header.
pub const CHECKSUM_OFFSET: usize = field::CHECKSUM;

/// Where the fields begin.
mod field {
    pub(super) const SRC_PORT: usize = 0;
    pub(super) const DST_PORT: usize = 2;
    pub(super) const SEQ: usize = 4;
    pub(super) const ACK: usize = 8;
    pub(super) const DATA_OFFSET: usize = 12;
    pub(super) const FLAGS: usize = 13;
    pub(super) const WINDOW: usize = 14;
    pub(super) const CHECKSUM: usize = 16;
    pub(super) const URGENT: usize = 18;
    pub(super) const OPTIONS: usize = 20;
}

/// Option kinds and the lengths that they must have.
mod option {
    pub(super) const END: u8 = 0;
    pub(super) const NOP: u8 = 1;
    pub(super) const MSS: u8 = 2;
    pub(super) const MSS_LEN: u8 = 4;
    pub(super) const WINDOW_SCALE: u8 = 3;
    pub(super) const WINDOW_SCALE_LEN: u8 = 3;
    pub(super) const SACK_PERMITTED: u8 = 4;
    pub(super) const SACK_PERMITTED_LEN: u8 = 2;
    pub(super) const SACK: u8 = 5;
    pub(super) const SACK_BLOCK_LEN: usize = 8;
    pub(super) const TIMESTAMPS: u8 = 8;
    pub(super) const TIMESTAMPS_LEN: u8 = 10;
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

/// The timestamps option (RFC 7323 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Timestamps {
    /// The sender's clock.
    pub val: u32,
    /// Echo of the receiver's.
    pub ecr: u32,
}

/// The options that the stack understands; others are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TcpOptions {
    /// Maximum segment size (SYN only).
    pub mss: Option<u16>,
    /// Window scale shift as sent, not yet clamped to 14 (SYN only).
    pub window_scale: Option<u8>,
    /// SACK permitted (SYN only).
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// SACK blocks, left and right edge; at most four fit. Unused ones are `None`, at the end.
    pub sack: [Option<(u32, u32)>; 4],
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
        let bytes: &[u8; LEN] = first_segment.first_chunk().ok_or(WireError::Truncated)?;
        let header_len = usize::from(bytes[field::DATA_OFFSET] >> 4) * 4;
        if header_len < LEN {
            return Err(WireError::BadLength);
        }
        if header_len > segment_len {
            return Err(WireError::Truncated);
        }
        let options = first_segment.get(LEN..header_len).ok_or(WireError::Truncated)?;
        let flags = TcpFlags::from_bits_retain(bytes[field::FLAGS]);
        let header = TcpHeader {
            src_port: get_u16(bytes, field::SRC_PORT),
            dst_port: get_u16(bytes, field::DST_PORT),
            seq: get_u32(bytes, field::SEQ),
            ack: get_u32(bytes, field::ACK),
            flags,
            window: get_u16(bytes, field::WINDOW),
            urgent: get_u16(bytes, field::URGENT),
            options: TcpOptions::parse(options, flags.contains(TcpFlags::SYN)),
        };
        Ok((header, header_len))
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
    /// window scale, and last as many SACK blocks as 40 bytes have room for. The first three belong
    /// to a SYN (RFC 9293 §3.2, RFC 7323 §2.2, RFC 2018 §2) and are left out of other segments.
    ///
    /// # Panics
    /// If `out` is shorter than [`TcpHeader::header_len`].
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let header_len = self.header_len();
        let out = &mut out[..header_len];
        put_u16(out, field::SRC_PORT, self.src_port);
        put_u16(out, field::DST_PORT, self.dst_port);
        put_u32(out, field::SEQ, self.seq);
        put_u32(out, field::ACK, self.ack);
        out[field::DATA_OFFSET] = ((header_len / 4) << 4) as u8;
        out[field::FLAGS] = self.flags.bits();
        put_u16(out, field::WINDOW, self.window);
        put_u16(out, field::CHECKSUM, 0);
        put_u16(out, field::URGENT, self.urgent);
        self.options.emit(self.flags.contains(TcpFlags::SYN), &mut out[field::OPTIONS..]);
        header_len
    }
}

impl TcpOptions {
    /// Bytes of options in the longest header.
    const MAX_LEN: usize = MAX_LEN - LEN;

    /// Reads the options of a header. Unknown ones are skipped (RFC 9293 §3.1, MUST-6). One whose
    /// length is illegal ends the reading, and those before it count (MUST-7): a reset, which the
    /// RFC suggests, would let one damaged segment end a connection.
    #[inline]
    fn parse(mut rest: &[u8], syn: bool) -> TcpOptions {
        let mut options = TcpOptions::default();
        // RFC 7323 appendix A: the layout of nearly every segment with timestamps.
        if let [1, 1, option::TIMESTAMPS, option::TIMESTAMPS_LEN, clock @ ..] = rest
            && clock.len() == 8
        {
            options.timestamps = Some(read_timestamps(clock));
            return options;
        }
        while let [kind, tail @ ..] = rest {
            match *kind {
                option::END => break,
                option::NOP => rest = tail,
                kind => {
                    let Some(&len) = tail.first() else { break };
                    let Some(body) = rest.get(2..usize::from(len)) else { break };
                    options.read(kind, len, body, syn);
                    rest = &rest[usize::from(len)..];
                }
            }
        }
        options
    }

    /// Takes one option; `body` is what follows its kind and length. An option of the wrong length,
    /// or of a SYN in another segment, is as good as unknown.
    fn read(&mut self, kind: u8, len: u8, body: &[u8], syn: bool) {
        match (kind, len) {
            (option::MSS, option::MSS_LEN) if syn => self.mss = Some(get_u16(body, 0)),
            (option::WINDOW_SCALE, option::WINDOW_SCALE_LEN) if syn => {
                self.window_scale = Some(body[0]);
            }
            (option::SACK_PERMITTED, option::SACK_PERMITTED_LEN) if syn => {
                self.sack_permitted = true;
            }
            (option::TIMESTAMPS, option::TIMESTAMPS_LEN) => {
                self.timestamps = Some(read_timestamps(body));
            }
            (option::SACK, _)
                if !body.is_empty() && body.len().is_multiple_of(option::SACK_BLOCK_LEN) =>
            {
                self.sack = [None; 4];
                for (block, edges) in
                    self.sack.iter_mut().zip(body.chunks_exact(option::SACK_BLOCK_LEN))
                {
                    *block = Some((get_u32(edges, 0), get_u32(edges, 4)));
                }
            }
            _ => {}
        }
    }

    /// Bytes of the options before the SACK blocks.
    #[inline]
    fn fixed_len(&self, syn: bool) -> usize {
        let mss = if syn && self.mss.is_some() { 4 } else { 0 };
        let sack_permitted = syn && self.sack_permitted;
        let timestamps = match (self.timestamps.is_some(), sack_permitted) {
            (true, _) => 12,
            (false, true) => 4,
            (false, false) => 0,
        };
        let window_scale = if syn && self.window_scale.is_some() { 4 } else { 0 };
        mss + timestamps + window_scale
    }

    /// SACK blocks that are there and fit: two NOPs, kind and length, 8 bytes a block.
    #[inline]
    fn sack_blocks(&self, fixed_len: usize) -> usize {
        let there = self.sack.iter().take_while(|block| block.is_some()).count();
        there.min((Self::MAX_LEN - fixed_len).saturating_sub(4) / option::SACK_BLOCK_LEN)
    }

    #[inline]
    fn emit_len(&self, syn: bool) -> usize {
        let fixed_len = self.fixed_len(syn);
        match self.sack_blocks(fixed_len) {
            0 => fixed_len,
            blocks => fixed_len + 4 + blocks * option::SACK_BLOCK_LEN,
        }
    }

    /// Writes [`TcpOptions::emit_len`] bytes.
    #[inline]
    fn emit(&self, syn: bool, out: &mut [u8]) {
        const NOPS: [u8; 2] = [option::NOP; 2];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        if let (true, Some(mss)) = (syn, self.mss) {
            put(&[option::MSS, option::MSS_LEN]);
            put(&mss.to_be_bytes());
        }
        let sack_permitted = syn && self.sack_permitted;
        if let Some(Timestamps { val, ecr }) = self.timestamps {
            if sack_permitted {
                put(&[option::SACK_PERMITTED, option::SACK_PERMITTED_LEN]);
            } else {
                put(&NOPS);
            }
            put(&[option::TIMESTAMPS, option::TIMESTAMPS_LEN]);
            put(&val.to_be_bytes());
            put(&ecr.to_be_bytes());
        } else if sack_permitted {
            put(&NOPS);
            put(&[option::SACK_PERMITTED, option::SACK_PERMITTED_LEN]);
        }
        if let (true, Some(shift)) = (syn, self.window_scale) {
            put(&[option::NOP, option::WINDOW_SCALE, option::WINDOW_SCALE_LEN, shift]);
        }
        let blocks = self.sack_blocks(self.fixed_len(syn));
        if blocks > 0 {
            put(&NOPS);
            put(&[option::SACK, (2 + blocks * option::SACK_BLOCK_LEN) as u8]);
            for (left, right) in self.sack.iter().take(blocks).flatten() {
                put(&left.to_be_bytes());
                put(&right.to_be_bytes());
            }
        }
    }
}

/// Reads the 8 bytes of a timestamps option.
#[inline]
fn read_timestamps(body: &[u8]) -> Timestamps {
    Timestamps { val: get_u32(body, 0), ecr: get_u32(body, 4) }
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
