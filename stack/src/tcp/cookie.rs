//! SYN cookies (RFC 4987 §3.6): when the half-open queue is full, what it would hold is put into
//! the initial sequence number, and the options of the SYN into the timestamp beside it.
//!
//! ```text
//!   sequence number   31        30 .. 28      27 .. 0
//!                     parity    MSS class     SipHash(4-tuple, irs, counter, MSS class)
//!
//!   timestamp         31 .. 6   5     4      3 .. 0
//!                     clock     ECN   SACK   window scale, 15 for none
//! ```
//!
//! The counter is the time in units of [`PERIOD`]; of the current and the last one, which are both
//! accepted, the parity bit tells which it was. A forged ACK is accepted once in 2^28.
//!
//! The client echoes the timestamp with its ACK. Its low bits lie below the flow's secret offset;
//! the clock is set back by less than 64 ms to make room for them, so it still never runs
//! backwards. They are not authenticated: who changes them harms its own connection only. A client
//! without timestamps gets the MSS alone.
//!
//! Nothing in a cookie tells whether it has come back before. A copy of the segment that brought
//! it, late on the wire, would make a second connection of the first one's data once that has ended;
//! [`Spent`] remembers those that are still good.

use std::hash::Hasher;
use std::net::SocketAddr;
use std::time::Duration;

use hashbrown::HashTable;

use super::ecn;
use super::isn::{Purpose, flow_hasher};
use super::tcb::{self, ts_clock};
use super::{Open, TcpConfig};
use crate::time::Instant;
use crate::wire::tcp::{TcpFlags, TcpHeader, TcpOptions};

/// How long one counter value lasts. A cookie is good for one to two of them.
pub const PERIOD: Duration = Duration::from_secs(60);

/// When a listener answers SYNs with cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SynCookies {
    /// Never: what the half-open queue has no room for is dropped.
    Off,
    /// When the half-open queue is full.
    #[default]
    Auto,
    /// Always: no SYN costs memory.
    Always,
}

/// The segment sizes that a cookie can remember: what peers behind common links announce, and the
/// least that any peer is taken to have announced, so that none is sent more than it takes.
const MSS_CLASSES: [u16; 8] = [tcb::MSS_MIN, 216, 536, 1_220, 1_360, 1_400, 1_440, 1_460];

const HASH_MASK: u32 = (1 << 28) - 1;

/// The bits of a timestamp that remember options.
const OPTION_BITS: u32 = 0x3f;
/// Those of the window scale; all ones are none.
const SCALE_BITS: u32 = 0xf;
/// The peer permits SACK.
const SACK_BIT: u32 = 1 << 4;
/// The SYN asked for ECN (RFC 3168 §6.1.1).
const ECN_BIT: u32 = 1 << 5;

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

/// The SYN as a cookie remembers it: without timestamps there is room for the MSS only.
pub(super) fn remembered(syn: &TcpHeader, config: &TcpConfig) -> TcpHeader {
    let TcpOptions { mss, window_scale, sack_permitted, timestamps, .. } = syn.options;
    let carried = timestamps.is_some() && config.timestamps;
    let mut kept = TcpHeader { options: TcpOptions { mss, ..TcpOptions::default() }, ..*syn };
    if carried {
        kept.options = TcpOptions { window_scale, sack_permitted, timestamps, ..kept.options };
    } else {
        kept.flags -= ecn::SETUP;
    }
    kept
}

/// The offset with which the timestamp of the SYN-ACK holds the options of `syn` in its low bits.
pub(super) fn ts_offset(syn: &TcpHeader, offset: u32, now: Instant) -> u32 {
    let scale = syn.options.window_scale.map_or(SCALE_BITS, |shift| u32::from(shift.min(14)));
    let mut bits = scale;
    bits |= if syn.options.sack_permitted { SACK_BIT } else { 0 };
    bits |= if syn.flags.contains(ecn::SETUP) { ECN_BIT } else { 0 };
    let clock = ts_clock(now, 0);
    // How far the clock is set back, less than 64: the low bits' distance on their circle.
    let back = clock.wrapping_sub(bits) & OPTION_BITS;
    offset.wrapping_sub(back)
}

/// The SYN that a cookie's ACK stands for, as far as it is remembered, and how long ago the SYN-ACK
/// left, where the echoed timestamp tells. `mss` is what [`check`] gave, `open` the flow's own
/// values.
pub(super) fn recall(
    ack: &TcpHeader,
    mss: u16,
    config: &TcpConfig,
    open: Open,
    now: Instant,
) -> (TcpHeader, Option<Duration>) {
    let mut syn = TcpHeader {
        seq: ack.seq.wrapping_sub(1),
        window: ack.window,
        flags: TcpFlags::SYN,
        options: TcpOptions { mss: Some(mss), ..TcpOptions::default() },
        ..TcpHeader::default()
    };
    let Some(ts) = ack.options.timestamps.filter(|_| config.timestamps) else {
        return (syn, None);
    };
    let echoed = ts.ecr.wrapping_sub(open.ts_offset);
    let scale = echoed & SCALE_BITS;
    syn.options.timestamps = Some(ts);
    syn.options.window_scale = (scale != SCALE_BITS).then_some(scale as u8);
    syn.options.sack_permitted = echoed & SACK_BIT != 0;
    if echoed & ECN_BIT != 0 {
        syn.flags |= ecn::SETUP;
    }
    let age = Duration::from_millis(u64::from(ts_clock(now, 0).wrapping_sub(echoed)));
    (syn, (age <= 2 * PERIOD).then_some(age))
}

/// The SYNs whose cookies have come back, for as long as these are good: one number of eight bytes
/// each, in a set for the current counter value and one for the last.
#[derive(Debug)]
pub struct Spent {
    counter: u64,
    /// Current, last. A cookie is good for no longer than the period after the one it comes back in.
    marks: [HashTable<u64>; 2],
    limit: usize,
}

/// What a good cookie is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Worth {
    /// A connection. It is remembered that it has come back.
    Connection,
    /// A connection, but there is no room to remember it.
    Unremembered,
    /// Nothing: it has made one before.
    Nothing,
}

impl Spent {
    /// Remembers up to `limit` cookies.
    pub fn new(limit: usize) -> Spent {
        Spent { counter: 0, marks: Default::default(), limit }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.marks.iter().map(HashTable::len).sum()
    }

    /// True if none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Spends the good cookie that answered the SYN with sequence number `irs` on `flow`. The SYN
    /// is what counts: all cookies that its copies have got are spent with the first.
    pub fn spend(
        &mut self,
        secret: u128,
        flow: (SocketAddr, SocketAddr),
        irs: u32,
        now: Instant,
    ) -> Worth {
        self.age(now);
        let mut hasher = flow_hasher(secret, Purpose::SpentCookie, flow.0, flow.1);
        hasher.write_u32(irs);
        let mark = hasher.finish();
        if self.marks.iter().any(|marks| marks.find(mark, |&m| m == mark).is_some()) {
            return Worth::Nothing;
        }
        if self.len() >= self.limit {
            return Worth::Unremembered;
        }
        self.marks[0].insert_unique(mark, mark, |&m| m);
        Worth::Connection
    }

    /// Forgets what has aged.
    fn age(&mut self, now: Instant) {
        let counter = counter(now);
        if counter > self.counter {
            let last = std::mem::take(&mut self.marks[0]);
            self.marks[1] = if counter == self.counter + 1 { last } else { HashTable::new() };
            self.counter = counter;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tcp::Timestamps;

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

    fn syn(shift: Option<u8>, sack: bool, ecn: bool) -> TcpHeader {
        let flags = if ecn { TcpFlags::SYN | ecn::SETUP } else { TcpFlags::SYN };
        let options = TcpOptions {
            mss: Some(1460),
            window_scale: shift,
            sack_permitted: sack,
            timestamps: Some(Timestamps { val: 900, ecr: 0 }),
            ..TcpOptions::default()
        };
        TcpHeader { seq: 77, flags, options, ..TcpHeader::default() }
    }

    #[test]
    fn the_timestamp_brings_every_option_back_and_the_age_of_the_syn_ack() {
        let config = TcpConfig::default();
        for (offset, made_ms) in [(0, 5_000), (u32::MAX - 7, 0), (0x1234_5678, 4_294_967_290)] {
            let made_at = Instant::from_millis(made_ms);
            let open = Open { iss: 0, ts_offset: offset, mss: 1460 };
            for (shift, sack, ecn) in
                [(None, false, false), (Some(0), true, false), (Some(14), false, true)]
            {
                let sent = remembered(&syn(shift, sack, ecn), &config);
                let clock = ts_clock(made_at, ts_offset(&sent, offset, made_at));
                assert!(ts_clock(made_at, offset).wrapping_sub(clock) < 64, "set back a little");
                let now = made_at + Duration::from_millis(300);
                let timestamps = Some(Timestamps { val: 901, ecr: clock });
                let options = TcpOptions { timestamps, ..TcpOptions::default() };
                let ack = TcpHeader { seq: 78, options, ..TcpHeader::default() };
                let (back, age) = recall(&ack, 1460, &config, open, now);
                let recalled = (back.options.window_scale, back.options.sack_permitted);
                assert_eq!(recalled, (shift, sack));
                assert_eq!((back.flags.contains(ecn::SETUP), back.seq), (ecn, 77));
                let age = age.unwrap().as_millis();
                assert!((300..364).contains(&age), "{age}");
            }
        }
    }

    #[test]
    fn without_timestamps_only_the_mss_is_remembered() {
        let mut bare = syn(Some(7), true, true);
        bare.options.timestamps = None;
        let kept = remembered(&bare, &TcpConfig::default());
        let mss = Some(1460);
        assert_eq!(kept.options, TcpOptions { mss, ..TcpOptions::default() });
        assert_eq!(kept.flags, TcpFlags::SYN);
        let off = TcpConfig { timestamps: false, ..TcpConfig::default() };
        assert_eq!(remembered(&syn(Some(7), true, true), &off).options.window_scale, None);
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

    #[test]
    fn a_cookie_is_spent_once_for_as_long_as_it_is_good() {
        let mut spent = Spent::new(10);
        // Made at the very beginning of a period, back at its very end, good until 180 s.
        let back = Instant::from_millis(119_999);
        assert_eq!(spent.spend(SECRET, flow(5), 77, back), Worth::Connection);
        for at in [119_999, 120_000, 179_999] {
            let at = Instant::from_millis(at);
            assert_eq!(spent.spend(SECRET, flow(5), 77, at), Worth::Nothing);
        }
        assert_eq!(spent.spend(SECRET, flow(5), 78, back), Worth::Connection, "another SYN");
        assert_eq!(spent.spend(SECRET, flow(6), 77, back), Worth::Connection, "another flow");
        let later = Instant::from_millis(240_000);
        assert_eq!(spent.spend(SECRET, flow(5), 77, later), Worth::Connection, "another age");
        assert_eq!(spent.len(), 1, "the others are forgotten");
    }

    #[test]
    fn a_cookie_spent_in_one_period_is_known_in_the_next_whenever_it_was_asked_last() {
        let mut spent = Spent::new(10);
        let at = |s: u64| Instant::from_millis(s * 1000);
        assert_eq!(spent.spend(SECRET, flow(1), 1, at(3_600)), Worth::Connection);
        assert_eq!(spent.spend(SECRET, flow(1), 1, at(3_719)), Worth::Nothing);
        assert_eq!(spent.spend(SECRET, flow(2), 1, at(3_720)), Worth::Connection);
        assert_eq!(spent.spend(SECRET, flow(1), 1, at(3_721)), Worth::Connection);
        // A long silence.
        assert_eq!(spent.spend(SECRET, flow(2), 1, at(9_999)), Worth::Connection);
        assert_eq!(spent.len(), 1);
    }

    #[test]
    fn cookies_beyond_the_limit_are_as_good_as_ever_but_not_remembered() {
        let mut spent = Spent::new(3);
        assert!(spent.is_empty());
        let now = Instant::from_millis(90_000);
        for port in 1..=3 {
            assert_eq!(spent.spend(SECRET, flow(port), 77, now), Worth::Connection);
        }
        for _ in 0..2 {
            assert_eq!(spent.spend(SECRET, flow(4), 77, now), Worth::Unremembered);
        }
        assert_eq!(spent.spend(SECRET, flow(1), 77, now), Worth::Nothing);
        assert_eq!((spent.len(), spent.is_empty()), (3, false));
    }
}
