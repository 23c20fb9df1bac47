//! Time: the kernel's monotonic clock, or one that a test turns by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A source of nanoseconds that never goes back. Cloning it gives the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Monotonic,
    Manual(Arc<AtomicU64>),
}

/// Turns the clock that [`Clock::manual`] made.
#[derive(Clone, Debug)]
pub struct ClockHand(Arc<AtomicU64>);

impl Clock {
    /// The kernel's `CLOCK_MONOTONIC`.
    pub const fn monotonic() -> Clock {
        Clock(Source::Monotonic)
    }

    /// A clock that stands at 0 until its hand is turned.
    pub fn manual() -> (Clock, ClockHand) {
        let now = Arc::new(AtomicU64::new(0));
        (Clock(Source::Manual(Arc::clone(&now))), ClockHand(now))
    }

    /// Nanoseconds since an origin that stays the same while the machine runs.
    pub fn now_ns(&self) -> u64 {
        match &self.0 {
            Source::Monotonic => monotonic_ns(),
            Source::Manual(now) => now.load(Ordering::Relaxed),
        }
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::monotonic()
    }
}

impl ClockHand {
    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Moves the clock forward to `ns`; does nothing if it is later already.
    pub fn advance_to(&self, ns: u64) {
        self.0.fetch_max(ns, Ordering::Relaxed);
    }
}

fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec to write to, for the length of the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    // The call fails only for an unknown clock or a bad address, and neither can be the case.
    debug_assert_eq!(result, 0);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_does_not_go_back() {
        let clock = Clock::monotonic();
        let before = clock.now_ns();
        std::thread::sleep(Duration::from_millis(2));
        assert!(clock.now_ns() >= before + 2_000_000);
    }

    #[test]
    fn a_manual_clock_moves_only_forward_and_only_by_hand() {
        let (clock, hand) = Clock::manual();
        let twin = clock.clone();
        assert_eq!(clock.now_ns(), 0);
        hand.advance(Duration::from_micros(5));
        hand.advance_to(4_000);
        assert_eq!((clock.now_ns(), twin.now_ns()), (5_000, 5_000));
        hand.advance_to(6_000);
        assert_eq!(twin.now_ns(), 6_000);
    }
}
