//! What waits in the headroom before a segment's payload until its headers are written there.
//!
//! ```text
//!   slot   │ sum │ of bytes │ ┄┄┄┄ headers, when it leaves │ payload of one segment │
//!          0     2                                         HEADROOM
//! ```
//!
//! The payload is summed while it is copied in, if software completes checksums: to read it again for
//! that costs as much as the copy. What leaves may be the front of it only, if segments have become
//! smaller since: hence how many bytes the sum is of.

use barewire_driver::mem::{Checksum, HEADROOM};

use super::{get_u16, put_u16};

/// Where the number of bytes lies that the sum is of; 0 if it does not count.
const LEN_AT: usize = 2;

/// Copies `data` behind the `filled` bytes of payload that a slot has, and adds it to their sum if
/// `summed`.
///
/// # Panics
/// If the slot has no room for it.
#[inline]
pub(crate) fn append(slot: &mut [u8], filled: usize, data: &[u8], summed: bool) {
    let (room, payload) = slot.split_at_mut(HEADROOM);
    let payload = &mut payload[filled..];
    let counts = summed && (filled == 0 || usize::from(get_u16(room, LEN_AT)) == filled);
    if counts {
        let mut sum = Checksum::new();
        if filled > 0 {
            sum.add_u16(get_u16(room, 0));
        }
        if filled % 2 == 1 {
            // Its sum has the zero behind its last byte in it already.
            sum.add(&[0]);
        }
        sum.add_copied(payload, data);
        put_u16(room, 0, sum.partial());
    } else {
        payload[..data.len()].copy_from_slice(data);
    }
    put_u16(room, LEN_AT, if counts { (filled + data.len()) as u16 } else { 0 });
}

/// The sum of the first `len` bytes of payload behind this headroom, if that was taken.
#[inline]
pub(crate) fn sum(room: &[u8; HEADROOM], len: usize) -> Option<u16> {
    (len > 0 && usize::from(get_u16(room, LEN_AT)) == len).then(|| get_u16(room, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_sum_is_that_of_what_was_appended(
            pieces in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 1..400), any::<bool>()), 1..6),
            all: bool,
        ) {
            let mut slot = [0xa5; 2048];
            let mut whole = Vec::new();
            let mut counts = true;
            for (piece, summed) in &pieces {
                append(&mut slot, whole.len(), piece, all || *summed);
                counts &= all || *summed;
                whole.extend(piece);
            }
            prop_assert_eq!(&slot[HEADROOM..HEADROOM + whole.len()], &whole[..]);
            prop_assert!(slot[HEADROOM + whole.len()..].iter().all(|byte| *byte == 0xa5));
            let mut expected = Checksum::new();
            expected.add(&whole);
            let expected = counts.then(|| expected.partial());
            let room = slot.first_chunk().unwrap();
            prop_assert_eq!(sum(room, whole.len()), expected);
            for other in [0, whole.len() - 1, whole.len() + 1] {
                prop_assert_eq!(sum(room, other), None, "of {} bytes", other);
            }
        }
    }
}
