//! The Internet checksum (RFC 1071) over data in pieces, alone or fused with a copy.
//!
//! Headers are summed in 64-bit words whose carry goes round, payloads in vectors where the
//! processor has AVX-512 or AVX2: asked at run time, so that one binary serves every x86-64.

/// Below it, asking the processor and adding up the lanes costs more than vectors save.
const VECTOR_MIN_BYTES: usize = 128;

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
    /// than 2^34 a piece and by less than 2^32 per four bytes, so a gigabyte in pieces of any length
    /// would fit.
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
    #[inline(always)]
    pub fn add(&mut self, bytes: &[u8]) {
        self.join(sum_words(bytes), bytes.len());
    }

    /// Adds the next bytes of the data and copies them to the front of `dst`: one pass over them instead
    /// of two.
    ///
    /// # Panics
    /// If `dst` is shorter than `src`.
    #[inline]
    pub fn add_copied(&mut self, dst: &mut [u8], src: &[u8]) {
        self.join(copy_and_sum(&mut dst[..src.len()], src), src.len());
    }

    /// Adds a header of so many 32-bit words, which its length makes cheaper. The data so far must have
    /// an even length.
    #[inline(always)]
    pub fn add_header<const LEN: usize>(&mut self, bytes: &[u8; LEN]) {
        const { assert!(LEN.is_multiple_of(4)) };
        debug_assert!(!self.odd, "a word inside a word");
        for word in bytes.as_chunks::<4>().0 {
            self.sum += u64::from(u32::from_ne_bytes(*word));
        }
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

    /// True if what was added contains its checksum, and that is right: as if [`Checksum::finish`]
    /// gave zero. Of nothing but zeros, which no pseudo-header is, it says so, too.
    #[inline(always)]
    pub fn is_right(&self) -> bool {
        // What 2^16 - 1 divides folds to all ones.
        self.sum.is_multiple_of(0xffff)
    }

    #[inline(always)]
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
fn fold(sum: u64) -> u16 {
    // A carry out of the top is worth one at the bottom, and leaves room for it.
    let (sum, carry) = (sum as u32).overflowing_add((sum >> 32) as u32);
    let sum = sum + u32::from(carry);
    let (sum, carry) = (sum as u16).overflowing_add((sum >> 16) as u16);
    sum + u16::from(carry)
}

/// The sum of 16-bit words in memory order, an odd last byte padded with zero.
#[inline(never)]
fn sum_words(bytes: &[u8]) -> u64 {
    if bytes.len() < VECTOR_MIN_BYTES { sum_carrying(bytes) } else { sum_long(bytes) }
}

#[inline(never)]
fn sum_long(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has just been asked for the one feature that is needed.
        return unsafe { avx512::sum(bytes) };
    } else if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: as above.
        return unsafe { avx2::sum(bytes) };
    }
    sum_carrying(bytes)
}

/// The sum in 64-bit words. A carry out of the top is worth one at the bottom, because 2^64 is 1
/// modulo 2^16 - 1.
#[inline]
fn sum_carrying(bytes: &[u8]) -> u64 {
    let (mut sum, mut rest) = (0u64, bytes);
    // Four at a time, in one chain of carries: of a small message's header and payload half of the
    // work was counting.
    while let Some((words, tail)) = rest.split_first_chunk::<32>() {
        let mut carry = false;
        for word in words.as_chunks().0 {
            (sum, carry) = sum.carrying_add(u64::from_ne_bytes(*word), carry);
        }
        // There is room for it: a sum of which something was carried away is never all ones.
        sum += u64::from(carry);
        rest = tail;
    }
    // One look where there may be four: most messages that come often have a round length.
    if rest.is_empty() {
        return (sum & 0xffff_ffff) + (sum >> 32);
    }
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
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

/// Copies between slices of equal length and gives the sum.
fn copy_and_sum(dst: &mut [u8], src: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if src.len() >= VECTOR_MIN_BYTES {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has just been asked for the one feature that is needed.
            return unsafe { avx512::copy_and_sum(dst, src) };
        } else if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { avx2::copy_and_sum(dst, src) };
        }
    }
    dst.copy_from_slice(src);
    sum_carrying(src)
}

/// Sums of 32-bit words, in 64-bit lanes that four gigabytes of them cannot overflow, two vectors at a
/// time: of whole words modulo 2^64, and of their upper halves, from which those of the lower ones follow
/// at the end.
///
/// Written out, for the compiler makes scalar code of the same loop over arrays; once for all lengths
/// of vectors, for nothing but names differs.
#[cfg(target_arch = "x86_64")]
macro_rules! by_vectors {
    (
        $name:ident, $feature:literal, $vector:ident, $bytes:literal,
        $load:ident, $store:ident, $zero:ident, $down:ident, $up:ident, $add:ident, $sub:ident
    ) => {
        mod $name {
            use std::arch::x86_64::*;

            /// Bytes of one vector.
            const VECTOR: usize = $bytes;

            #[target_feature(enable = $feature)]
            pub(super) fn sum(bytes: &[u8]) -> u64 {
                let (front, bytes) = bytes.split_at(unaligned(bytes));
                let (chunks, rest) = bytes.as_chunks::<{ 2 * VECTOR }>();
                let mut lanes = [$zero(); 4];
                for chunk in chunks {
                    let (first, second) = load(chunk);
                    add(&mut lanes, first, second);
                }
                total(lanes) + super::sum_carrying(front) + super::sum_carrying(rest)
            }

            /// Both slices have the same length.
            #[target_feature(enable = $feature)]
            pub(super) fn copy_and_sum(dst: &mut [u8], src: &[u8]) -> u64 {
                let (front, src) = src.split_at(unaligned(dst));
                let (dst_front, dst) = dst.split_at_mut(front.len());
                dst_front.copy_from_slice(front);
                let (from, rest) = src.as_chunks::<{ 2 * VECTOR }>();
                let (to, dst_rest) = dst.as_chunks_mut::<{ 2 * VECTOR }>();
                let mut lanes = [$zero(); 4];
                for (to, from) in to.iter_mut().zip(from) {
                    let (first, second) = load(from);
                    // SAFETY: `to` is two vectors long, and the stores are of one each, without
                    // alignment.
                    unsafe {
                        $store(to.as_mut_ptr().cast(), first);
                        $store(to.as_mut_ptr().add(VECTOR).cast(), second);
                    }
                    add(&mut lanes, first, second);
                }
                dst_rest.copy_from_slice(rest);
                total(lanes) + super::sum_carrying(front) + super::sum_carrying(rest)
            }

            /// Bytes before the first whole vector in memory, which would each lie in two cache lines
            /// otherwise; none if words would begin in the middle of one behind them.
            #[inline]
            fn unaligned(bytes: &[u8]) -> usize {
                let front = bytes.as_ptr().addr().wrapping_neg() % VECTOR;
                if front % 2 == 0 && front <= bytes.len() { front } else { 0 }
            }

            #[inline]
            #[target_feature(enable = $feature)]
            fn load(chunk: &[u8; 2 * VECTOR]) -> ($vector, $vector) {
                let at = chunk.as_ptr();
                // SAFETY: the chunk is two vectors long, and the loads are of one each, without
                // alignment.
                unsafe { ($load(at.cast()), $load(at.add(VECTOR).cast())) }
            }

            #[inline]
            #[target_feature(enable = $feature)]
            fn add(lanes: &mut [$vector; 4], first: $vector, second: $vector) {
                lanes[0] = $add(lanes[0], first);
                lanes[1] = $add(lanes[1], $down::<32>(first));
                lanes[2] = $add(lanes[2], second);
                lanes[3] = $add(lanes[3], $down::<32>(second));
            }

            /// What the lower halves add up to is what is left of the words without the upper ones,
            /// for it is less than what carries are lost of.
            #[inline]
            #[target_feature(enable = $feature)]
            fn total([a, b, c, d]: [$vector; 4]) -> u64 {
                let (words, upper) = ($add(a, c), $add(b, d));
                let lower = $sub(words, $up::<32>(upper));
                let mut words = [0u64; VECTOR / 8];
                // SAFETY: `words` is as long as a vector, and the store needs no alignment.
                unsafe { $store(words.as_mut_ptr().cast(), $add(lower, upper)) };
                words.iter().sum()
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
by_vectors!(
    avx2,
    "avx2",
    __m256i,
    32,
    _mm256_loadu_si256,
    _mm256_storeu_si256,
    _mm256_setzero_si256,
    _mm256_srli_epi64,
    _mm256_slli_epi64,
    _mm256_add_epi64,
    _mm256_sub_epi64
);

#[cfg(target_arch = "x86_64")]
by_vectors!(
    avx512,
    "avx512f",
    __m512i,
    64,
    _mm512_loadu_si512,
    _mm512_storeu_si512,
    _mm512_setzero_si512,
    _mm512_srli_epi64,
    _mm512_slli_epi64,
    _mm512_add_epi64,
    _mm512_sub_epi64
);

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

    proptest! {
        /// With its checksum in front, right or damaged.
        #[test]
        fn a_sum_is_right_if_nothing_is_left_of_it(
            data in proptest::collection::vec(any::<u8>(), 1..300),
            damage in proptest::option::of((any::<proptest::sample::Index>(), 1u8..)),
        ) {
            let mut sum = Checksum::new();
            sum.add_u16(17);
            sum.add(&data);
            let mut whole = [&[0, 17], &sum.finish().to_be_bytes()[..], &data[..]].concat();
            if let Some((at, bits)) = damage {
                let at = at.index(whole.len());
                whole[at] ^= bits;
            }
            let mut sum = Checksum::new();
            sum.add(&whole);
            if sum.sum != 0 {
                prop_assert_eq!(sum.is_right(), sum.finish() == 0);
                prop_assert!(damage.is_some() || sum.is_right());
            }
        }
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

    /// The sum by one kind of vector, and by that with a copy, where the processor has it.
    #[cfg(target_arch = "x86_64")]
    fn by_all_vectors(src: &[u8]) -> Vec<(&'static str, u64)> {
        let (mut sums, mut dst) = (vec![], vec![0; src.len()]);
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has just been asked for the one feature that is needed.
            sums.push(("AVX2", unsafe { avx2::sum(src) }));
            // SAFETY: as above.
            sums.push(("AVX2 copy", unsafe { avx2::copy_and_sum(&mut dst, src) }));
            assert_eq!(dst, src, "copied by AVX2");
        }
        dst.fill(0);
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has just been asked for the one feature that is needed.
            sums.push(("AVX-512", unsafe { avx512::sum(src) }));
            // SAFETY: as above.
            sums.push(("AVX-512 copy", unsafe { avx512::copy_and_sum(&mut dst, src) }));
            assert_eq!(dst, src, "copied by AVX-512");
        }
        sums
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn by_all_vectors(_: &[u8]) -> Vec<(&'static str, u64)> {
        vec![]
    }

    #[test]
    fn words_and_vectors_agree_at_every_length() {
        let data: Vec<u8> = (0..600u32).map(|n| (n * 37 + n / 7) as u8).collect();
        for len in 0..data.len() {
            let words = sum_carrying(&data[..len]);
            assert_eq!(!u16::from_be(fold(words)), reference(&data[..len]), "{len} bytes");
            for (vectors, sum) in by_all_vectors(&data[..len]) {
                assert_eq!(fold(words), fold(sum), "{len} bytes by {vectors}");
            }
            assert_eq!(fold(words), fold(sum_long(&data[..len])), "{len} bytes");
        }
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
                                     cut in 0usize..4000, spare in 0usize..9) {
            let mut copy = vec![0xa5; data.len() + spare];
            let mut sum = Checksum::new();
            let cut = cut.min(data.len());
            sum.add_copied(&mut copy, &data[..cut]);
            sum.add_copied(&mut copy[cut..], &data[cut..]);
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
