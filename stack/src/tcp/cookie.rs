//! SYN cookies (RFC 4987 §3.6): when the half-open queue is full, what it would hold is put into
//! the initial sequence number.
//!
//! ```text
//!   31        30 .. 28      27 .. 0
//!   parity    MSS class     SipHash(4-tuple, irs, counter, MSS class)
//! ```
//!
//! The counter is the time in units of [`PERIOD`]; of the current and the last one, which are both
//! accepted, the parity bit tells which it was. A forged ACK is accepted once in 2^28.
//!
//! Window scaling and timestamps do not fit and are given up for these connections; the SYN-ACK
//! offers neither.

use std::hash::Hasher;
use std::net::SocketAddr;
use std::time::Duration;

use super::isn::{Purpose, flow_hasher};
use super::seq::{SeqNum, WindowScale};
use super::{TcpConfig, autotune, tcb};
use crate::time::Instant;
use crate::wire::tcp::{TcpFlags, TcpHeader, TcpOptions};

/// How long one counter value lasts. A cookie is good for one to two of them.
pub const PERIOD: Duration = Duration::from_secs(60);

/// The segment sizes that a cookie can remember: what peers behind common links announce, and the
/// least that any peer is taken to have announced, so that none is sent more than it takes.
const MSS_CLASSES: [u16; 8] = [tcb::MSS_MIN, 216, 536, 1_220, 1_360, 1_400, 1_440, 1_460];

const HASH_MASK: u32 = (1 << 28) - 1;

fn counter(now: Instant) -> u64 {
    now.as_nanos() / PERIOD.as_nanos() as u64
}

fn hash(secret: u128, flow: (SocketAddr, SocketAddr), irs: u32, class: u32, counter: u64) -> u32 {
    let mut hasher = flow_hasher(secret, Purpose::Cookie, flow.0, flow.1);
    hasher.write_u32(irs);
    hasher.write_u32(class);
    hasher.write_u64(counter);
    hasher.finish() as u32 & HASH_MASK
}

/// The initial sequence number that answers a SYN with sequence number `irs` and MSS option `mss`
/// on `flow` (local, remote).
pub fn make(secret: u128, flow: (SocketAddr, SocketAddr), irs: u32, mss: u16, now: Instant) -> u32 {
    // The largest class that the peer can take; the smallest if it can take none.
    let class = MSS_CLASSES.iter().rposition(|&c| c <= mss).unwrap_or(0) as u32;
    let counter = counter(now);
    (counter as u32 & 1) << 31 | class << 28 | hash(secret, flow, irs, class, counter)
}

/// Checks the ACK that ends a handshake begun with [`make`]: `irs` is its sequence number less
/// one, `iss` its acknowledgment number less one. Gives the peer's MSS, rounded down.
pub fn check(
    secret: u128,
    flow: (SocketAddr, SocketAddr),
    irs: u32,
    iss: u32,
    now: Instant,
) -> Option<u16> {
    let (parity, class) = (u64::from(iss >> 31), iss >> 28 & 7);
    let current = counter(now);
    let made = if current & 1 == parity { current } else { current.checked_sub(1)? };
    let genuine = hash(secret, flow, irs, class, made) == iss & HASH_MASK;
    genuine.then_some(MSS_CLASSES[class as usize])
}

/// The SYN-ACK that carries a cookie as its sequence number, ports left zero. It offers the MSS
/// alone.
pub fn syn_ack(syn: &TcpHeader, iss: u32, our_mss: u16, config: &TcpConfig) -> TcpHeader {
    let window = autotune::recv_start(config);
    TcpHeader {
        seq: iss,
        ack: (SeqNum::new(syn.seq) + 1).get(),
        flags: TcpFlags::SYN | TcpFlags::ACK,
        window: WindowScale::NONE.field_down(window),
        options: TcpOptions {
            mss: Some(tcb::announced_mss(our_mss, config)),
            ..TcpOptions::default()
        },
        ..TcpHeader::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;

    fn flow(port: u16) -> (SocketAddr, SocketAddr) {
        (([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], port).into())
    }

    #[test]
    fn a_cookie_comes_back_with_its_mss_rounded_down() {
        let now = Instant::from_millis(90_000);
        for (mss, expected) in
            [(1460, 1460), (9000, 1460), (1459, 1440), (536, 536), (216, 216), (100, 64), (1, 64)]
        {
            let iss = make(SECRET, flow(5), 77, mss, now);
            assert_eq!(check(SECRET, flow(5), 77, iss, now), Some(expected));
        }
    }

    #[test]
    fn a_cookie_ages() {
        let made_at = Instant::from_millis(119_000);
        let iss = make(SECRET, flow(5), 77, 1460, made_at);
        assert!(check(SECRET, flow(5), 77, iss, made_at + PERIOD).is_some());
        assert!(check(SECRET, flow(5), 77, iss, made_at + 2 * PERIOD).is_none());
        assert!(check(SECRET, flow(5), 77, iss, made_at + 3 * PERIOD).is_none());
        assert!(check(SECRET, flow(5), 77, 1 << 31, Instant::ZERO).is_none(), "before the start");
    }

    #[test]
    fn a_forged_or_moved_cookie_is_refused() {
        let now = Instant::from_millis(90_000);
        let iss = make(SECRET, flow(5), 77, 1460, now);
        assert_eq!(check(SECRET, flow(6), 77, iss, now), None, "another flow");
        assert_eq!(check(SECRET, flow(5), 78, iss, now), None, "another irs");
        assert_eq!(check(SECRET + 1, flow(5), 77, iss, now), None, "another secret");
        for bit in 0..32 {
            assert_eq!(check(SECRET, flow(5), 77, iss ^ 1 << bit, now), None, "bit {bit}");
        }
    }
}
