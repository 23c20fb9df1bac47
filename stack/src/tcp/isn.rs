//! Initial sequence numbers and timestamp offsets that nobody can predict (RFC 6528, RFC 7323 §5.4).

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;
use siphasher::sip::SipHasher24;

use crate::time::Instant;

/// What a hash is for: the same key gives unrelated numbers for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Isn = 1,
    Timestamp = 2,
    Cookie = 3,
    FastOpen = 4,
    SpentCookie = 5,
}

/// Purpose, and twice version, address and port.
const FLOW_BYTES_MAX: usize = 1 + 2 * (1 + 16 + 2);

/// The keyed hash of a flow: SipHash-2-4.
pub(crate) fn flow_hasher(
    secret: u128,
    purpose: Purpose,
    local: SocketAddr,
    remote: SocketAddr,
) -> SipHasher24 {
    // In one piece: the hasher does much for every call, whatever its length.
    let mut input = ArrayVec::<u8, FLOW_BYTES_MAX>::new();
    input.push(purpose as u8);
    for end in [local, remote] {
        match end.ip() {
            IpAddr::V4(ip) => {
                input.push(4);
                input.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                input.push(6);
                input.extend(ip.octets());
            }
        }
        input.extend(end.port().to_ne_bytes());
    }
    let mut hasher = SipHasher24::new_with_keys(secret as u64, (secret >> 64) as u64);
    hasher.write(&input);
    hasher
}

/// RFC 6528 §3: ISN = M + F(4-tuple, secret), where M is a clock that ticks every 4 microseconds
/// (RFC 9293 §3.4.1). Numbers of one 4-tuple grow, so that a new connection is told from an old one
/// in TIME-WAIT; those of different ones are unrelated.
pub fn isn(secret: u128, local: SocketAddr, remote: SocketAddr, now: Instant) -> u32 {
    let f = flow_hasher(secret, Purpose::Isn, local, remote).finish();
    ((now.as_micros() / 4) as u32).wrapping_add(f as u32)
}

/// RFC 7323 §5.4: an offset of the timestamp clock for each flow, so that it tells neither how long
/// the host has been up nor which flows are of one host. It does not depend on time: the clock of a
/// 4-tuple never goes back, which RFC 6191 needs.
pub fn timestamp_offset(secret: u128, local: SocketAddr, remote: SocketAddr) -> u32 {
    flow_hasher(secret, Purpose::Timestamp, local, remote).finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_one_flow_grow_with_time_and_those_of_others_are_unrelated() {
        let at = |port: u16, ms| {
            let (l, r) = (([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], port).into());
            isn(7, l, r, Instant::from_millis(ms))
        };
        assert_eq!(at(1, 1000).wrapping_sub(at(1, 0)), 250_000);
        assert_ne!(at(1, 0), at(2, 0));
        let (l, r) = (([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], 1).into());
        assert_ne!(isn(7, l, r, Instant::ZERO), isn(8, l, r, Instant::ZERO));
        assert_ne!(isn(7, l, r, Instant::ZERO), timestamp_offset(7, l, r));
    }
}
