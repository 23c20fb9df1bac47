//! Initial sequence numbers and timestamp offsets that nobody can predict (RFC 6528, RFC 7323 §5.4).

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use arrayvec::ArrayVec;
use siphasher::sip::SipHasher24;

use crate::time::Instant;

/// What a hash is for: the same key gives unrelated numbers for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Opening = 1,
    Cookie = 2,
    FastOpen = 3,
    SpentCookie = 4,
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
    let mut hasher = SipHasher24::new_with_keys(secret as u64, (secret >> 64) as u64);
    if let (SocketAddr::V4(local), SocketAddr::V4(remote)) = (local, remote) {
        // Their number tells them from what is hashed below.
        words(purpose, local, remote).into_iter().for_each(|word| hasher.write_u64(word));
        return hasher;
    }
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
    hasher.write(&input);
    hasher
}

/// A flow over IPv4 in two words, as the hash takes them.
fn words(purpose: Purpose, local: SocketAddrV4, remote: SocketAddrV4) -> [u64; 2] {
    let addrs = [local.ip().to_bits(), remote.ip().to_bits()].map(u64::from);
    let ports = [local.port(), remote.port()].map(u64::from);
    [addrs[0] << 32 | addrs[1], (purpose as u64) << 32 | ports[0] << 16 | ports[1]]
}

/// The state of SipHash (J.-P. Aumasson and D. J. Bernstein, "SipHash: a fast short-input PRF", §2).
struct Sip([u64; 4]);

impl Sip {
    #[inline(always)]
    fn rounds(&mut self, count: u32) {
        let [v0, v1, v2, v3] = &mut self.0;
        for _ in 0..count {
            (*v0, *v2) = (v0.wrapping_add(*v1), v2.wrapping_add(*v3));
            (*v1, *v3) = (v1.rotate_left(13) ^ *v0, v3.rotate_left(16) ^ *v2);
            *v0 = v0.rotate_left(32);
            (*v2, *v0) = (v2.wrapping_add(*v1), v0.wrapping_add(*v3));
            (*v1, *v3) = (v1.rotate_left(17) ^ *v2, v3.rotate_left(21) ^ *v0);
            *v2 = v2.rotate_left(32);
        }
    }
}

/// SipHash-2-4 of two words: a hasher that takes whatever may come does twice as much.
fn siphash_2_4(key: u128, words: [u64; 2]) -> u64 {
    let (k0, k1) = (key as u64, (key >> 64) as u64);
    let mut sip = Sip([
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ]);
    // The last word holds the length in bytes and what is left over, which is nothing.
    for word in [words[0], words[1], 16 << 56] {
        sip.0[3] ^= word;
        sip.rounds(2);
        sip.0[0] ^= word;
    }
    sip.0[2] ^= 0xff;
    sip.rounds(4);
    let [v0, v1, v2, v3] = sip.0;
    v0 ^ v1 ^ v2 ^ v3
}

/// What nobody can predict about one flow. Halves of one keyed hash: neither tells of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowNumbers {
    isn: u32,
    ts_offset: u32,
}

impl FlowNumbers {
    /// Those of the flow between these two ends, under `secret`.
    pub fn new(secret: u128, local: SocketAddr, remote: SocketAddr) -> FlowNumbers {
        let hash = match (local, remote) {
            (SocketAddr::V4(local), SocketAddr::V4(remote)) => {
                siphash_2_4(secret, words(Purpose::Opening, local, remote))
            }
            _ => flow_hasher(secret, Purpose::Opening, local, remote).finish(),
        };
        FlowNumbers { isn: hash as u32, ts_offset: (hash >> 32) as u32 }
    }

    /// RFC 6528 §3: ISN = M + F(4-tuple, secret), where M is a clock that ticks every 4 microseconds
    /// (RFC 9293 §3.4.1). Numbers of one 4-tuple grow, so that a new connection is told from an old
    /// one in TIME-WAIT; those of different ones are unrelated.
    pub fn isn(&self, now: Instant) -> u32 {
        ((now.as_micros() / 4) as u32).wrapping_add(self.isn)
    }

    /// RFC 7323 §5.4: an offset of the timestamp clock for each flow, so that it tells neither how
    /// long the host has been up nor which flows are of one host. It does not depend on time: the
    /// clock of a 4-tuple never goes back, which RFC 6191 needs.
    pub fn ts_offset(&self) -> u32 {
        self.ts_offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_one_flow_grow_with_time_and_those_of_others_are_unrelated() {
        let ends = |port: u16| (([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], port).into());
        let of = |secret, port| FlowNumbers::new(secret, ends(port).0, ends(port).1);
        let at = |port: u16, ms| of(7, port).isn(Instant::from_millis(ms));
        assert_eq!(at(1, 1000).wrapping_sub(at(1, 0)), 250_000);
        assert_ne!(at(1, 0), at(2, 0));
        assert_ne!(of(7, 1).ts_offset(), of(7, 2).ts_offset());
        assert_ne!(of(7, 1).isn(Instant::ZERO), of(8, 1).isn(Instant::ZERO));
        assert_ne!(of(7, 1).isn(Instant::ZERO), of(7, 1).ts_offset());
    }

    #[test]
    fn two_words_are_hashed_as_whatever_may_come() {
        for n in 0..1000u128 {
            let key = n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834);
            let words = [(n as u64).wrapping_mul(0x0123_4567_89ab_cdef), !(n as u64) << 7];
            let mut hasher = SipHasher24::new_with_keys(key as u64, (key >> 64) as u64);
            words.into_iter().for_each(|word| hasher.write_u64(word));
            assert_eq!(siphash_2_4(key, words), hasher.finish());
        }
    }

    #[test]
    fn what_a_hash_is_for_changes_it_over_either_ip() {
        let v4 = (SocketAddr::from(([10, 0, 0, 1], 80)), SocketAddr::from(([10, 0, 0, 2], 81)));
        let v6 = (SocketAddr::from(([1u16; 8], 80)), SocketAddr::from(([2u16; 8], 81)));
        for (local, remote) in [v4, v6] {
            let hash = |purpose, a, b| flow_hasher(9, purpose, a, b).finish();
            let opening = hash(Purpose::Opening, local, remote);
            assert_ne!(opening, hash(Purpose::Cookie, local, remote));
            assert_ne!(opening, hash(Purpose::Opening, remote, local));
        }
    }
}
