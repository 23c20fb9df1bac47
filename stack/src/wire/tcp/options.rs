//! TCP options: what the stack understands, read and written.
//!
//! What most segments carry comes first in [`TcpOptions`] and has a short way through reading and
//! writing: nothing at all, or timestamps behind two NOPs (RFC 7323 appendix A).

use super::super::{get_u16, get_u32};
use super::{LEN, MAX_LEN};

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
    pub(super) const FAST_OPEN: u8 = 34;
}

/// Bytes of a timestamps option with the two NOPs that align it.
pub(crate) const PADDED_TIMESTAMPS_LEN: usize = 12;

/// Two NOPs, and kind and length of the timestamps option.
pub(super) const TIMESTAMPS_FRONT: u32 =
    u32::from_be_bytes([option::NOP, option::NOP, option::TIMESTAMPS, option::TIMESTAMPS_LEN]);

/// The timestamps option (RFC 7323 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Timestamps {
    /// The sender's clock.
    pub val: u32,
    /// Echo of the receiver's.
    pub ecr: u32,
}

/// The blocks of a SACK option, in their order on the wire (RFC 2018 §3).
///
/// ```
/// use barewire_stack::wire::tcp::SackBlocks;
///
/// let blocks: SackBlocks = [(100, 200), (300, 400)].into_iter().collect();
/// assert_eq!(blocks.as_slice(), [(100, 200), (300, 400)]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SackBlocks {
    /// Left and right edges; those at `len` and behind are zero.
    blocks: [(u32, u32); SackBlocks::MAX],
    len: u8,
}

impl SackBlocks {
    /// The most blocks that a header without other options has room for (RFC 2018 §3).
    pub const MAX: usize = 4;

    /// No block.
    #[inline]
    pub const fn new() -> SackBlocks {
        SackBlocks { blocks: [(0, 0); SackBlocks::MAX], len: 0 }
    }

    /// Adds a block behind the others, unless there are [`SackBlocks::MAX`] already; says whether
    /// it did. `left` is the first sequence number of the block, `right` the one after its last.
    #[inline]
    pub fn push(&mut self, left: u32, right: u32) -> bool {
        let Some(block) = self.blocks.get_mut(usize::from(self.len)) else { return false };
        *block = (left, right);
        self.len += 1;
        true
    }

    /// How many blocks there are.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The blocks, left and right edge.
    #[inline]
    pub fn as_slice(&self) -> &[(u32, u32)] {
        &self.blocks[..usize::from(self.len)]
    }

    /// The blocks one by one, left and right edge.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u32, u32)> + '_ {
        self.as_slice().iter().copied()
    }
}

impl FromIterator<(u32, u32)> for SackBlocks {
    /// Takes the first [`SackBlocks::MAX`] blocks.
    fn from_iter<I: IntoIterator<Item = (u32, u32)>>(blocks: I) -> SackBlocks {
        let mut taken = SackBlocks::new();
        for (left, right) in blocks.into_iter().take(SackBlocks::MAX) {
            taken.push(left, right);
        }
        taken
    }
}

/// The body of a fast open option: a cookie, or the request for one (RFC 7413 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastOpenCookie {
    /// The cookie; bytes at `len` and behind are zero.
    bytes: [u8; FastOpenCookie::MAX_LEN],
    len: u8,
}

impl FastOpenCookie {
    /// Bytes of the shortest cookie.
    pub const MIN_LEN: usize = 4;
    /// Bytes of the longest cookie.
    pub const MAX_LEN: usize = 16;
    /// The empty option, with which a client asks for a cookie (RFC 7413 §4.1.1).
    pub const REQUEST: FastOpenCookie =
        FastOpenCookie { bytes: [0; FastOpenCookie::MAX_LEN], len: 0 };

    /// A cookie of these bytes, or the request if there are none. `None` for a length that the
    /// option may not have: it is even, and from 4 to 16 (RFC 7413 §2).
    pub fn new(cookie: &[u8]) -> Option<FastOpenCookie> {
        if cookie.is_empty() {
            return Some(FastOpenCookie::REQUEST);
        }
        let legal = (FastOpenCookie::MIN_LEN..=FastOpenCookie::MAX_LEN).contains(&cookie.len());
        if !legal || !cookie.len().is_multiple_of(2) {
            return None;
        }
        let mut bytes = [0; FastOpenCookie::MAX_LEN];
        bytes[..cookie.len()].copy_from_slice(cookie);
        Some(FastOpenCookie { bytes, len: cookie.len() as u8 })
    }

    /// Whether this asks for a cookie instead of carrying one.
    pub const fn is_request(&self) -> bool {
        self.len == 0
    }

    /// The bytes of the cookie; none in a request.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Bytes of the option with the NOPs that fill its last word.
    fn padded_len(&self) -> usize {
        (2 + usize::from(self.len)).next_multiple_of(4)
    }
}

/// The options that the stack understands; others are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TcpOptions {
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// SACK blocks.
    pub sack: SackBlocks,
    /// Maximum segment size (SYN only).
    pub mss: Option<u16>,
    /// Window scale shift as sent, not yet clamped to 14 (SYN only).
    pub window_scale: Option<u8>,
    /// SACK permitted (SYN only).
    pub sack_permitted: bool,
    /// Fast open: a cookie or the request for one (SYN only).
    pub fast_open: Option<FastOpenCookie>,
}

impl TcpOptions {
    /// Bytes of options in the longest header.
    const MAX_LEN: usize = MAX_LEN - LEN;

    /// Reads the options of a header. Unknown ones are skipped (RFC 9293 §3.1, MUST-6). One whose
    /// length is illegal ends the reading, and those before it count (MUST-7): a reset, which the
    /// RFC suggests, would let one damaged segment end a connection.
    #[inline]
    pub(super) fn read_all(&mut self, bytes: &[u8], syn: bool) {
        // RFC 7323 appendix A: the layout of nearly every segment with timestamps.
        if let Ok([1, 1, option::TIMESTAMPS, option::TIMESTAMPS_LEN, clock @ ..]) =
            <&[u8; PADDED_TIMESTAMPS_LEN]>::try_from(bytes)
        {
            self.timestamps = Some(read_timestamps(clock));
        } else if !(bytes.is_empty() || syn && self.read_usual_syn(bytes)) {
            self.read_each(bytes, syn);
        }
    }

    /// Reads the options of a SYN as this stack and Linux lay them out; false if they are others.
    fn read_usual_syn(&mut self, bytes: &[u8]) -> bool {
        use option::*;
        let Some((front, rest)) = bytes.split_first_chunk() else { return false };
        let &[
            MSS,
            MSS_LEN,
            high,
            low,
            SACK_PERMITTED,
            SACK_PERMITTED_LEN,
            TIMESTAMPS,
            TIMESTAMPS_LEN,
        ] = front
        else {
            return false;
        };
        let Some((clock, &[NOP, WINDOW_SCALE, WINDOW_SCALE_LEN, shift])) =
            rest.split_first_chunk::<8>()
        else {
            return false;
        };
        self.mss = Some(u16::from_be_bytes([high, low]));
        self.sack_permitted = true;
        self.timestamps = Some(read_timestamps(clock));
        self.window_scale = Some(shift);
        true
    }

    /// Takes the options one after the other.
    #[inline(never)]
    fn read_each(&mut self, mut rest: &[u8], syn: bool) {
        while let [kind, tail @ ..] = rest {
            match *kind {
                option::END => break,
                option::NOP => rest = tail,
                kind => {
                    let Some(&len) = tail.first() else { break };
                    let Some(body) = rest.get(2..usize::from(len)) else { break };
                    self.read(kind, len, body, syn);
                    rest = &rest[usize::from(len)..];
                }
            }
        }
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
                let edges = body.chunks_exact(option::SACK_BLOCK_LEN);
                self.sack = edges.map(|edges| (get_u32(edges, 0), get_u32(edges, 4))).collect();
            }
            // RFC 7413 §4.1.1: an invalid length or a segment without SYN makes it void.
            (option::FAST_OPEN, _) if syn => {
                self.fast_open = FastOpenCookie::new(body).or(self.fast_open);
            }
            _ => {}
        }
    }

    /// Bytes of the options without the SACK blocks.
    #[inline]
    fn fixed_len(&self, syn: bool) -> usize {
        if syn {
            return self.syn_len();
        }
        if self.timestamps.is_some() { PADDED_TIMESTAMPS_LEN } else { 0 }
    }

    /// Bytes of the options without the SACK blocks, in a SYN.
    fn syn_len(&self) -> usize {
        let mss = if self.mss.is_some() { 4 } else { 0 };
        let timestamps = match (self.timestamps.is_some(), self.sack_permitted) {
            (true, _) => PADDED_TIMESTAMPS_LEN,
            (false, true) => 4,
            (false, false) => 0,
        };
        let window_scale = if self.window_scale.is_some() { 4 } else { 0 };
        let fast_open = self.fast_open.map_or(0, |cookie| cookie.padded_len());
        mss + timestamps + window_scale + fast_open
    }

    /// SACK blocks that are there and fit: two NOPs, kind and length, 8 bytes a block.
    #[inline]
    fn sack_blocks(&self, fixed_len: usize) -> usize {
        if self.sack.is_empty() {
            return 0;
        }
        let room = (Self::MAX_LEN - fixed_len).saturating_sub(4) / option::SACK_BLOCK_LEN;
        self.sack.len().min(room)
    }

    /// Bytes that [`TcpOptions::emit`] writes.
    #[inline]
    pub(super) fn emit_len(&self, syn: bool) -> usize {
        let fixed_len = self.fixed_len(syn);
        match self.sack_blocks(fixed_len) {
            0 => fixed_len,
            blocks => fixed_len + 4 + blocks * option::SACK_BLOCK_LEN,
        }
    }

    /// Writes the options to `out`, which is [`TcpOptions::emit_len`] bytes long.
    #[inline]
    pub(super) fn emit(&self, syn: bool, out: &mut [u8]) {
        if out.is_empty() {
            return;
        }
        match self.aligned_clock(syn) {
            Some(clock) => emit_aligned(clock, out),
            None => self.emit_all(syn, out),
        }
    }

    /// The timestamps of a segment that has no other option.
    #[inline]
    fn aligned_clock(&self, syn: bool) -> Option<Timestamps> {
        if syn || !self.sack.is_empty() { None } else { self.timestamps }
    }

    /// Writes whatever options there are.
    fn emit_all(&self, syn: bool, out: &mut [u8]) {
        const NOPS: [u8; 2] = [option::NOP; 2];
        const SACK_PERMITTED: [u8; 2] = [option::SACK_PERMITTED, option::SACK_PERMITTED_LEN];
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
        if let Some(clock) = self.timestamps {
            let mut option = [0; PADDED_TIMESTAMPS_LEN];
            write_timestamps(
                if sack_permitted { SACK_PERMITTED } else { NOPS },
                clock,
                &mut option,
            );
            put(&option);
        } else if sack_permitted {
            put(&NOPS);
            put(&SACK_PERMITTED);
        }
        if let (true, Some(shift)) = (syn, self.window_scale) {
            put(&[option::NOP, option::WINDOW_SCALE, option::WINDOW_SCALE_LEN, shift]);
        }
        let blocks = self.sack_blocks(self.fixed_len(syn));
        if blocks > 0 {
            put(&NOPS);
            put(&[option::SACK, (2 + blocks * option::SACK_BLOCK_LEN) as u8]);
            for (left, right) in self.sack.iter().take(blocks) {
                put(&left.to_be_bytes());
                put(&right.to_be_bytes());
            }
        }
        if let (true, Some(cookie)) = (syn, self.fast_open) {
            let len = 2 + cookie.as_slice().len();
            put(&NOPS[..cookie.padded_len() - len]);
            put(&[option::FAST_OPEN, len as u8]);
            put(cookie.as_slice());
        }
    }
}

/// Reads the 8 bytes of a timestamps option.
#[inline]
fn read_timestamps(body: &[u8]) -> Timestamps {
    Timestamps { val: get_u32(body, 0), ecr: get_u32(body, 4) }
}

/// Writes a timestamps option behind the two bytes that align it.
#[inline]
fn write_timestamps(front: [u8; 2], clock: Timestamps, out: &mut [u8; PADDED_TIMESTAMPS_LEN]) {
    out[..2].copy_from_slice(&front);
    out[2..4].copy_from_slice(&[option::TIMESTAMPS, option::TIMESTAMPS_LEN]);
    out[4..8].copy_from_slice(&clock.val.to_be_bytes());
    out[8..].copy_from_slice(&clock.ecr.to_be_bytes());
}

/// Writes a timestamps option behind two NOPs: 12 bytes.
#[inline]
fn emit_aligned(clock: Timestamps, out: &mut [u8]) {
    write_timestamps([option::NOP; 2], clock, out.try_into().expect("12 bytes"));
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
