//! Congestion window validation (RFC 7661): what a window is worth that is not used.
//!
//! ```text
//!               pipeACK < cwnd / 2                          5 minutes
//!   validated ──────────────────────▶ non-validated ──────────────────────▶ cwnd / 2, at least IW
//!       ▲                                  │   │
//!       └──────── pipeACK ≥ cwnd / 2 ──────┘   └─ loss, mark ─▶ half of what was really used
//! ```
//!
//! *pipeACK* is the most that was delivered within one round trip in the last seconds. While it is
//! less than half of the window, nobody knows whether the path would still take the rest: the window
//! stays as it is, so that an application may go on after a pause, but it does not grow, and a loss
//! leaves what pipeACK says instead of a part of the window.

use std::time::Duration;

use super::AckSample;
use crate::tcp::seq::SeqNum;
use crate::time::Instant;

/// §4.2: no measurement yet, or none since a recovery. The window counts as validated.
const UNDEFINED: u32 = u32::MAX;

/// §4.2: the pipeACK sampling period is at least so long, and three round trips.
const SAMPLING_PERIOD_MIN: Duration = Duration::from_secs(1);

/// §4.4, the non-validated period (NVP).
const NON_VALIDATED_PERIOD: Duration = Duration::from_secs(5 * 60);

#[derive(Clone, Copy, Debug)]
pub(super) struct Validation {
    /// The most that was delivered in a round trip, in the present sampling period and in the one
    /// before that.
    current: u32,
    previous: u32,
    /// When the present one ends; zero if none has begun.
    until: Instant,
    /// When the window will not have been found validated for too long.
    over_at: Instant,
    /// Max(pipeACK, LossFlightSize) of a recovery that began in the non-validated phase; or zero.
    used: u32,
    /// IW of RFC 6928.
    initial_window: u32,
    /// The most bytes in flight at once that were more than half of the window, and snd.nxt then.
    peak: u32,
    peak_until: SeqNum,
}

impl Validation {
    /// Nothing has been measured; the window counts as validated at `since`.
    pub(super) fn new(initial_window: u32, since: Instant) -> Validation {
        Validation {
            current: 0,
            previous: UNDEFINED,
            until: Instant::ZERO,
            over_at: since + NON_VALIDATED_PERIOD,
            used: 0,
            initial_window,
            peak: 0,
            peak_until: SeqNum::default(),
        }
    }

    /// What outlasts a rest: when the window is to be reduced, in seconds.
    pub(super) fn to_rest(self) -> u32 {
        (self.over_at.as_millis() / 1000) as u32
    }

    /// Goes on after a rest, in which nothing came through.
    pub(super) fn from_rest(initial_window: u32, over_s: u32) -> Validation {
        let over_at = Instant::from_millis(u64::from(over_s) * 1000);
        Validation { previous: 0, over_at, ..Validation::new(initial_window, Instant::ZERO) }
    }

    /// Measurements begin anew: the window has.
    pub(super) fn restart(&mut self) {
        (self.current, self.previous, self.until, self.used) = (0, UNDEFINED, Instant::ZERO, 0);
    }

    /// An ACK outside recovery, with a window of `cwnd`. True if the window has to be
    /// [reduced](Validation::reduced), for it was not validated for too long.
    #[inline]
    pub(super) fn on_ack(&mut self, now: Instant, srtt_ns: u64, piped: u32, cwnd: u32) -> bool {
        let over = now >= self.until && self.next_period(now, srtt_ns, cwnd);
        self.current = self.current.max(piped);
        over
    }

    #[cold]
    fn next_period(&mut self, now: Instant, srtt_ns: u64, cwnd: u32) -> bool {
        let period = SAMPLING_PERIOD_MIN.max(3 * Duration::from_nanos(srtt_ns));
        if self.until != Instant::ZERO {
            let recent = now < self.until + period;
            self.previous = if recent { self.current } else { 0 };
            self.current = 0;
        }
        self.until = now + period;
        if self.is_validated(cwnd) {
            self.over_at = now + NON_VALIDATED_PERIOD;
        }
        self.on_idle(now)
    }

    /// Sending goes on after a pause that has left the window as it was. The answer is that of
    /// [`Validation::on_ack`], once in each non-validated period that is over.
    pub(super) fn on_idle(&mut self, now: Instant) -> bool {
        let over = now >= self.over_at;
        if over {
            self.over_at = now + NON_VALIDATED_PERIOD;
        }
        over
    }

    /// Window and threshold after a non-validated period that is over (§4.4.3).
    pub(super) fn reduced(&self, cwnd: u32, ssthresh: u32) -> (u32, u32) {
        let window = (cwnd / 2).max(self.initial_window).min(cwnd);
        (window, ssthresh.max(cwnd / 4 * 3))
    }

    /// The most that was in flight at once of what an ACK of `una` before it, with `in_flight` bytes
    /// out, may have been sent with.
    #[inline]
    pub(super) fn peak(&self, una: SeqNum, in_flight: u32) -> u32 {
        if una.before(self.peak_until) { in_flight.max(self.peak) } else { in_flight }
    }

    /// Slow start: only a window that is used may grow. More than half of it in flight is use enough:
    /// the ACKs of that will double it, however many they are.
    pub(super) fn may_double(&mut self, ack: &AckSample, cwnd: u32) -> bool {
        let una = ack.una - ack.acked;
        let peak = self.peak(una, ack.in_flight);
        let used = peak.saturating_mul(2) > cwnd;
        if !used && !ack.window_limited {
            return false;
        }
        if used && peak == ack.in_flight {
            (self.peak, self.peak_until) = (peak, ack.nxt);
        }
        self.is_validated(cwnd)
    }

    /// §4.3: the path has taken half of the window lately, or nobody knows.
    pub(super) fn is_validated(&self, cwnd: u32) -> bool {
        let pipe_ack = self.current.max(self.previous);
        pipe_ack >= cwnd.div_ceil(2)
    }

    /// A loss was found or a mark has come: of a window of `cwnd`, with `in_flight` under way, so
    /// much counts (§4.4.1).
    pub(super) fn on_loss(&mut self, in_flight: u32, cwnd: u32) -> u32 {
        self.used = 0;
        if self.is_validated(cwnd) {
            return in_flight;
        }
        self.used = in_flight.max(self.current).max(self.previous);
        self.used
    }

    /// Recovery has ended, with `resent` bytes sent again: what its threshold is computed from, if
    /// it began in the non-validated phase (§4.4.1).
    pub(super) fn on_recovered(&mut self, resent: u32) -> Option<u32> {
        let used = self.used;
        self.restart();
        (used > 0).then(|| used.saturating_sub(resent))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{MSS, ack};
    use super::super::{Algorithm, CongestionControl, Controller};
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    /// A window of 40 segments of which `used` a round trip were used for 5 s.
    fn application_limited(algorithm: Algorithm, used: u32) -> Controller {
        let mut c = Controller::new(algorithm, 40 * MSS);
        for i in 0..50 {
            let sample = AckSample { now: at(100 * i), ..ack(used * MSS, used * MSS) };
            c.on_ack(&AckSample { window_limited: false, ..sample });
        }
        assert_eq!(c.cwnd(), 40 * MSS, "it stays");
        c
    }

    const LOSS_BASED: [Algorithm; 2] = [Algorithm::NewReno, Algorithm::Cubic];

    #[test]
    fn a_window_grows_again_once_half_of_it_has_come_through() {
        for algorithm in LOSS_BASED {
            let mut c = application_limited(algorithm, 4);
            let burst = |piped| AckSample { now: at(5001), piped, ..ack(MSS, 40 * MSS) };
            c.on_ack(&burst(19 * MSS));
            assert_eq!(c.cwnd(), 40 * MSS, "{algorithm:?}");
            c.on_ack(&burst(20 * MSS));
            assert_eq!(c.cwnd(), 41 * MSS, "{algorithm:?}");
        }
    }

    #[test]
    fn a_loss_leaves_a_part_of_what_was_used() {
        for (algorithm, tenths) in LOSS_BASED.into_iter().zip([5, 7]) {
            // The application used 10 a round trip; 6 are out when the loss shows, 2 are lost.
            let mut c = application_limited(algorithm, 10);
            c.on_loss(at(5001), 6 * MSS, MSS);
            assert_eq!(c.ssthresh(), 10 * MSS * tenths / 10, "{algorithm:?}");
            c.on_recovered(at(5002), 40 * MSS, 2 * MSS, MSS);
            assert_eq!(c.ssthresh(), 8 * MSS * tenths / 10, "{algorithm:?}");
            assert_eq!(c.cwnd(), c.ssthresh());
            // Of a validated window it is what was in flight.
            let mut c = Controller::new(algorithm, 40 * MSS);
            c.on_loss(at(5001), 16 * MSS, MSS);
            c.on_recovered(at(5002), 40 * MSS, 2 * MSS, MSS);
            assert_eq!(c.ssthresh(), 16 * MSS * tenths / 10, "{algorithm:?}");
        }
    }

    #[test]
    fn five_minutes_of_little_use_halve_the_window_and_again_after_five_more() {
        for algorithm in LOSS_BASED {
            let mut c = application_limited(algorithm, 4);
            c.on_loss(at(5000), 100 * MSS, MSS);
            c.on_recovered(at(5000), 100 * MSS, 0, MSS);
            let (before, mut seen) = (c.cwnd(), vec![c.cwnd()]);
            let ssthresh = c.ssthresh();
            for s in 6..700 {
                let sample = AckSample { now: at(1000 * s), ..ack(MSS, MSS) };
                c.on_ack(&AckSample { window_limited: false, ..sample });
                if seen.last() != Some(&c.cwnd()) {
                    seen.push(c.cwnd());
                }
            }
            // IW, with which the connection began, is 40.
            assert_eq!(seen, [before, (before / 2).max(40 * MSS), 40 * MSS][..seen.len()]);
            assert!(c.ssthresh() >= ssthresh && seen.len() > 1, "{algorithm:?}: {seen:?}");
        }
    }

    #[test]
    fn what_is_measured_is_forgotten_after_two_periods() {
        let mut v = Validation::new(10 * MSS, Instant::ZERO);
        let mut tell = |ms: u64, piped| v.on_ack(at(ms), 0, piped, 1);
        tell(1, 30 * MSS);
        tell(1002, MSS);
        tell(2001, MSS);
        assert!(v.is_validated(60 * MSS) && !v.is_validated(60 * MSS + 1));
        let mut tell = |ms: u64, piped| v.on_ack(at(ms), 0, piped, 1);
        tell(2003, MSS);
        assert!(!v.is_validated(3 * MSS));
        // Nor does what was measured long before a pause count after it.
        let mut tell = |ms: u64, piped| v.on_ack(at(ms), 0, piped, 1);
        tell(2500, 30 * MSS);
        tell(9000, MSS);
        assert!(!v.is_validated(3 * MSS));
    }
}
