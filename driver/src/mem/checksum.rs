//! The Internet checksum (RFC 1071) over data in pieces, alone or fused with a copy.

/// Bytes summed by one turn of the inner loop: eight 32-bit words in eight independent sums, which
/// the compiler turns into vector additions.
const LANE_BYTES: usize = 32;

/// A running ones'-complement sum (RFC 1071). Pieces may have any length and are joined as if they
/// lay one behind the other.
///
/// ```
/// use barewire_driver::mem::Checksum;
/// let mut sum = Checksum::new();
/// sum.add(&[0x45, 0x00, 0x00]);
/// sum.add(&[0x73]);
/// assert_eq!(sum.finish(), !(0x4500 + 0x0073));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Checksum {
    /// The sum of 16-bit words in memory order. Folding only at the end is exact: it grows by less
    /// than 2^32 per four bytes, so 2^34 bytes would fit.
    sum: u64,
    /// An odd number of bytes has been added: the next byte is a low-order one.
    odd: bool,
}

impl Checksum {
    /// An empty sum.
    pub const fn new() -> Checksum {
        Checksum { sum: 0, odd: false }
    }

    /// Adds the next bytes of the data.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        self.join(sum_words(bytes), bytes.len());
    }

    /// Adds one 16-bit number in network order, as pseudo-headers have them. The data so far must
    /// have an even length.
    #[inline]
    pub fn add_u16(&mut self, word: u16) {
        debug_assert!(!self.odd, "a word inside a word");
        self.sum += u64::from(word.to_be());
    }

    /// Adds one 32-bit number in network order, as [`Checksum::add_u16`] twice would.
    #[inline]
    pub fn add_u32(&mut self, word: u32) {
        debug_assert!(!self.odd, "a word inside a word");
        self.sum += u64::from(word.to_be());
    }

    #[inline]
    fn join(&mut self, piece: u64, len: usize) {
        if self.odd {
            // RFC 1071 §2 (B): a piece at an odd offset contributes its sum with bytes swapped.
            self.sum += u64::from(fold(piece).swap_bytes());
        } else {
            self.sum += piece;
        }
        self.odd ^= len % 2 == 1;
    }

    /// The folded sum before complementing, in host order: what a pseudo-header seed for checksum
    /// offload is.
    #[inline]
    pub fn partial(&self) -> u16 {
        u16::from_be(fold(self.sum))
    }

    /// The checksum to write (big-endian) into the header. Over data that contains a correct
    /// checksum it is zero.
    #[inline]
    pub fn finish(&self) -> u16 {
        !self.partial()
    }
}

#[inline]
fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    let mut sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The sum of 16-bit words in memory order, an odd last byte padded with zero.
#[inline]
fn sum_words(bytes: &[u8]) -> u64 {
    let mut lanes = [0u64; LANE_BYTES / 4];
    let mut chunks = bytes.chunks_exact(LANE_BYTES);
    for chunk in &mut chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    lanes.iter().sum::<u64>() + sum_tail(chunks.remainder())
}

/// The same for less than [`LANE_BYTES`]: headers, and the ends of payloads.
#[inline]
fn sum_tail(bytes: &[u8]) -> u64 {
    let (mut sum, mut rest) = (0u64, bytes);
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
        // The carry goes round, which also keeps the compiler from making vectors of three words.
        let (low, carry) = sum.overflowing_add(u64::from_ne_bytes(*word));
        (sum, rest) = (low + u64::from(carry), tail);
    }
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    if let Some((word, tail)) = rest.split_first_chunk::<4>() {
        (sum, rest) = (sum + u64::from(u32::from_ne_bytes(*word)), tail);
    }
    if let Some((word, tail)) = rest.split_first_chunk::<2>() {
        (sum, rest) = (sum + u64::from(u16::from_ne_bytes(*word)), tail);
    }
    if let [last] = rest {
        sum += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    sum
}

/// Copies `src` to the front of `dst` and returns its sum: one pass over the source instead of two.
///
/// # Panics
/// If `dst` is shorter than `src`.
#[inline]
pub fn copy_and_checksum(dst: &mut [u8], src: &[u8]) -> Checksum {
    let dst = &mut dst[..src.len()];
    let mut lanes = [0u64; LANE_BYTES / 4];
    let mut from = src.chunks_exact(LANE_BYTES);
    let mut to = dst.chunks_exact_mut(LANE_BYTES);
    for (to, from) in (&mut to).zip(&mut from) {
        to.copy_from_slice(from);
        for (lane, word) in lanes.iter_mut().zip(from.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    to.into_remainder().copy_from_slice(from.remainder());
    let mut sum = Checksum::new();
    sum.join(lanes.iter().sum::<u64>() + sum_tail(from.remainder()), src.len());
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §4.1, byte by byte: the definition itself.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn rfc_1071_example() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        let mut sum = Checksum::new();
        sum.add(&data);
        assert_eq!(sum.partial(), 0xddf2);
    }

    #[test]
    fn all_ones_do_not_overflow() {
        let data = vec![0xff; 1 << 20];
        let mut sum = Checksum::new();
        for _ in 0..64 {
            sum.add(&data);
        }
        assert_eq!(sum.finish(), 0);
    }

    proptest! {
        #[test]
        fn pieces_sum_as_the_whole(data in proptest::collection::vec(any::<u8>(), 0..4000),
                                   cuts in proptest::collection::vec(0usize..4000, 0..6)) {
            let mut sum = Checksum::new();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(data.len())).collect();
            cuts.sort_unstable();
            let mut at = 0;
            for cut in cuts.into_iter().chain([data.len()]) {
                sum.add(&data[at..cut]);
                at = cut;
            }
            prop_assert_eq!(sum.finish(), reference(&data));
        }

        #[test]
        fn a_copy_sums_as_its_source(data in proptest::collection::vec(any::<u8>(), 0..4000),
                                     spare in 0usize..9) {
            let mut copy = vec![0xa5; data.len() + spare];
            let sum = copy_and_checksum(&mut copy, &data);
            prop_assert_eq!(&copy[..data.len()], &data[..]);
            prop_assert!(copy[data.len()..].iter().all(|&b| b == 0xa5));
            prop_assert_eq!(sum.finish(), reference(&data));
        }

        #[test]
        fn any_flipped_bit_shows(mut data in proptest::collection::vec(any::<u8>(), 2..200),
                                 bit in any::<usize>()) {
            let before = reference(&data);
            let bit = bit % (data.len() * 8);
            data[bit / 8] ^= 1 << (bit % 8);
            let mut sum = Checksum::new();
            sum.add(&data);
            prop_assert_ne!(sum.finish(), before);
        }
    }
}
