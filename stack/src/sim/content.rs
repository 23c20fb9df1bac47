//! The bytes of a stream, as a function of its number and the offset.

/// Bytes at the front of every stream and datagram that say which one it is.
pub(super) const ID_LEN: usize = 8;

/// Mixes 64 bits so that each depends on all (the finalizer of SplitMix64).
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn word(id: u64, index: u64) -> [u8; 8] {
    match index {
        0 => id,
        _ => mix(id ^ mix(index)),
    }
    .to_le_bytes()
}

/// Calls `f` with each run of the stream's bytes from `offset` on, until `len` are done or it
/// answers false.
fn runs(id: u64, offset: u64, len: usize, mut f: impl FnMut(usize, &[u8]) -> bool) -> bool {
    let mut at = 0;
    while at < len {
        let position = offset + at as u64;
        let skip = (position % 8) as usize;
        let take = (8 - skip).min(len - at);
        if !f(at, &word(id, position / 8)[skip..skip + take]) {
            return false;
        }
        at += take;
    }
    true
}

/// Writes the stream's bytes from `offset` on.
pub(super) fn fill(id: u64, offset: u64, out: &mut [u8]) {
    runs(id, offset, out.len(), |at, run| {
        out[at..at + run.len()].copy_from_slice(run);
        true
    });
}

/// True if `bytes` are the stream's from `offset` on.
pub(super) fn matches(id: u64, offset: u64, bytes: &[u8]) -> bool {
    runs(id, offset, bytes.len(), |at, run| bytes[at..at + run.len()] == *run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_of_a_stream_is_the_same_and_differs_from_every_other() {
        let mut whole = [0; 1000];
        fill(42, 0, &mut whole);
        assert_eq!(whole[..ID_LEN], 42u64.to_le_bytes());
        let mut part = [0; 333];
        fill(42, 77, &mut part);
        assert_eq!(part, whole[77..410]);
        assert!(matches(42, 77, &part) && !matches(42, 78, &part) && !matches(43, 77, &part));
        part[332] ^= 1;
        assert!(!matches(42, 77, &part));
    }
}
