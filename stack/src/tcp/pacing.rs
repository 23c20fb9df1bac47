//! Pacing: data leaves at a rate instead of as fast as the window allows.
//!
//! ```text
//!   sent n bytes ──▶ not before: the last time + n / rate ──▶ Timer::Pacing ──▶ wants to send again
//! ```
//!
//! The block keeps the time in nanoseconds and the stack wakes it at that time, not at the next tick
//! of its wheel (see `stack::pacing`): at 10 Gbit/s a tick of a millisecond is more than a megabyte.
//! Whoever drives the stack may still be late, by a system call or a scheduler. What was not sent
//! meanwhile is made up for, up to [`LATE_MAX`]: without that the mean would be below the rate by as
//! much as the driver is late. What leaves at once is worth at most a millisecond, and a
//! super-segment.

use std::hint::cold_path;

use super::TxLimits;
use super::congestion::CongestionControl;
use super::tcb::{Status, Tcb};
use super::timers::Timer;
use crate::time::{Duration, Instant};

/// Lateness beyond this is taken for idleness, for which nothing is made up.
const LATE_MAX: Duration = Duration::from_millis(1);

/// The part of a second that a super-segment may be worth, as a shift: about a millisecond.
const QUANTUM_SHIFT: u32 = 10;

/// No wait is longer, however low the rate: a wait that a dead connection leaves behind ends soon.
const GAP_MAX: Duration = Duration::from_secs(1);

/// Percentages of a window each round trip at which controllers without a rate of their own are
/// paced: enough to double in slow start, and a little more than the window after it.
const SLOW_START_PERCENT: u128 = 200;
const AVOIDANCE_PERCENT: u128 = 120;

/// When the next data may leave.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pacer {
    next: Instant,
}

impl Pacer {
    /// `bytes` leave now at `rate` bytes a second; gives the time before which no more may.
    fn on_send(&mut self, now: Instant, bytes: u32, rate: u64) -> Instant {
        let start = if now - self.next > LATE_MAX { now } else { self.next };
        let ns = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        let gap = Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX));
        self.next = start + gap.min(GAP_MAX);
        self.next
    }
}

/// Bytes that may leave as one super-segment.
fn quantum(rate: u64, mss: u32) -> u32 {
    let worth = u32::try_from(rate >> QUANTUM_SHIFT).unwrap_or(u32::MAX);
    worth.max(2 * mss)
}

/// The rate for a window: `None` before the round trip is known.
fn rate_of_window(cwnd: u32, ssthresh: u32, srtt: Option<Duration>) -> Option<u64> {
    let percent = if cwnd < ssthresh / 2 { SLOW_START_PERCENT } else { AVOIDANCE_PERCENT };
    let ns = srtt?.as_nanos().max(1);
    u64::try_from(u128::from(cwnd) * percent * 10_000_000 / ns).ok()
}

impl Tcb {
    /// Bytes a second at which data leaves, if not at once.
    pub(super) fn pacing_rate(&self) -> Option<u64> {
        if !self.status.contains(Status::PACED) {
            return None;
        }
        cold_path();
        let c = &self.controller;
        c.pacing_rate().or_else(|| rate_of_window(c.cwnd(), c.ssthresh(), self.rtt.srtt()))
    }

    /// What may leave at once if it is to leave at a rate.
    pub(super) fn paced_limits(&self, limits: &TxLimits) -> TxLimits {
        match self.pacing_rate() {
            Some(rate) => {
                let quantum = quantum(rate, self.mss());
                TxLimits { max_bytes: limits.max_bytes.min(quantum), ..*limits }
            }
            None => *limits,
        }
    }

    /// `bytes` of data leave now: the next wait until it is their turn.
    pub(super) fn pace(&mut self, now: Instant, bytes: u32) {
        if let Some(rate) = self.pacing_rate() {
            let next = self.pacer.on_send(now, bytes, rate);
            if next > now {
                self.timers.set(Timer::Pacing, next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 1_250_000_000;

    fn at(us: u64) -> Instant {
        Instant::from_nanos(5_000_000_000 + us * 1000)
    }

    #[test]
    fn segments_leave_at_the_rate() {
        let mut pacer = Pacer::default();
        // 10 Gbit/s: 62,500 bytes are 50 µs.
        assert_eq!(pacer.on_send(at(0), 62_500, RATE), at(50));
        assert_eq!(pacer.on_send(at(50), 62_500, RATE), at(100));
        assert_eq!(pacer.on_send(at(100), 12_500, RATE), at(110));
    }

    #[test]
    fn lateness_is_made_up_for_and_idleness_is_not() {
        let mut pacer = Pacer::default();
        pacer.on_send(at(0), 62_500, RATE);
        // 30 µs late: the next two come closer together.
        assert_eq!(pacer.on_send(at(80), 62_500, RATE), at(100));
        assert_eq!(pacer.on_send(at(100), 62_500, RATE), at(150));
        assert_eq!(pacer.on_send(at(10_000), 62_500, RATE), at(10_050));
    }

    #[test]
    fn no_wait_is_longer_than_a_second() {
        assert_eq!(Pacer::default().on_send(at(0), 1 << 30, 1), at(1_000_000));
        assert_eq!(Pacer::default().on_send(at(0), 1 << 30, 0), at(1_000_000));
    }

    #[test]
    fn what_leaves_at_once_is_worth_a_millisecond_or_two_segments() {
        assert_eq!(quantum(102_400_000, 1000), 100_000);
        assert_eq!(quantum(1000, 1000), 2000);
        assert_eq!(quantum(u64::MAX, 1000), u32::MAX);
    }

    #[test]
    fn a_window_is_paced_over_its_round_trip() {
        let rtt = Some(Duration::from_millis(100));
        assert_eq!(rate_of_window(100_000, 1 << 30, rtt), Some(2_000_000));
        assert_eq!(rate_of_window(100_000, 100_000, rtt), Some(1_200_000));
        assert_eq!(
            rate_of_window(100_000, 200_000, rtt),
            Some(1_200_000),
            "doubling would pass it"
        );
        assert_eq!(rate_of_window(100_000, 200_002, rtt), Some(2_000_000));
        assert_eq!(rate_of_window(100_000, 100_000, None), None);
        assert!(rate_of_window(1 << 30, 1, Some(Duration::ZERO)).is_some());
    }
}
