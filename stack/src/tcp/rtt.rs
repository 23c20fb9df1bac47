//! The retransmission timeout (RFC 6298).
//!
//! > (2.1) Until a round-trip time (RTT) measurement has been made for a segment sent between the
//! > sender and receiver, the sender SHOULD set RTO <- 1 second.
//! >
//! > (2.2) When the first RTT measurement R is made, the host MUST set
//! > SRTT <- R, RTTVAR <- R/2, RTO <- SRTT + max (G, K*RTTVAR), where K = 4.
//! >
//! > (2.3) When a subsequent RTT measurement R' is made, a host MUST set
//! > RTTVAR <- (1 - beta) * RTTVAR + beta * |SRTT - R'|,
//! > SRTT <- (1 - alpha) * SRTT + alpha * R',
//! > with alpha=1/8 and beta=1/4.
//! >
//! > (5.5) The host MUST set RTO <- RTO * 2 ("back off the timer").
//!
//! Karn's algorithm (RFC 6298 §3) is the caller's: it gives no sample of a retransmitted segment
//! unless the timestamps option tells which transmission was answered (RFC 7323 §4).

use std::time::Duration;

use super::TcpConfig;
use crate::time::{Instant, nanos};

/// G: the clock that deadlines are kept on ticks in milliseconds.
const GRANULARITY_NS: u64 = 1_000_000;

/// K of RFC 6298.
const K: u64 = 4;

/// RFC 6298 §5.7: what a lost SYN sets the timeout to when data begins to flow.
const RTO_AFTER_LOST_SYN_NS: u64 = 3_000_000_000;

/// Doublings after which the timeout no longer grows: every configurable upper bound is reached
/// long before, and the shift cannot overflow.
const BACKOFF_MAX: u8 = 16;

/// Smoothed round-trip time and its variation, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rtt {
    srtt_ns: u64,
    rttvar_ns: u64,
    /// The timeout before backing off.
    rto_ns: u64,
    /// The bounds of that, as in the configuration; mirrored for the hot path.
    min_ns: u64,
    max_ns: u64,
    backoff: u8,
    measured: bool,
}

/// What is kept of it while a connection is at rest, in nanoseconds; a path of more than four seconds
/// comes back as one of four. Zero stands for no measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RttAtRest {
    srtt_ns: u32,
    rttvar_ns: u32,
}

impl Rtt {
    pub(crate) fn new(config: &TcpConfig) -> Rtt {
        Rtt {
            srtt_ns: 0,
            rttvar_ns: 0,
            rto_ns: nanos(config.rto_initial),
            min_ns: nanos(config.rto_min),
            max_ns: nanos(config.rto_max),
            backoff: 0,
            measured: false,
        }
    }

    /// Takes the bounds of the timeout over; the next measurement heeds them.
    pub(crate) fn mirror(&mut self, config: &TcpConfig) {
        (self.min_ns, self.max_ns) = (nanos(config.rto_min), nanos(config.rto_max));
    }

    /// A measurement. RFC 7323 §4.2: with `samples_per_rtt` of them in a round trip each weighs so
    /// much less, so that the filter keeps its length in round trips.
    pub(crate) fn sample(&mut self, rtt: Duration, samples_per_rtt: u32) {
        let r = nanos(rtt).max(1);
        if self.measured {
            let error = self.srtt_ns.abs_diff(r);
            if samples_per_rtt <= 1 {
                // The same with weights that the compiler knows.
                self.rttvar_ns = blend(self.rttvar_ns, error, 4);
                self.srtt_ns = blend(self.srtt_ns, r, 8);
            } else {
                let n = u64::from(samples_per_rtt);
                self.rttvar_ns = blend(self.rttvar_ns, error, 4 * n);
                self.srtt_ns = blend(self.srtt_ns, r, 8 * n);
            }
        } else {
            (self.srtt_ns, self.rttvar_ns, self.measured) = (r, r / 2, true);
        }
        self.update_rto();
        // RFC 6298 §5, last note: a new measurement collapses the backed-off timeout.
        self.backoff = 0;
    }

    /// As [`Rtt::sample`], of one of the few samples in a round trip, in nanoseconds.
    #[inline(always)]
    pub(crate) fn sample_ns(&mut self, rtt_ns: u64) {
        let r = rtt_ns.max(1);
        if !self.measured {
            return self.sample(Duration::from_nanos(r), 1);
        }
        self.rttvar_ns = blend(self.rttvar_ns, self.srtt_ns.abs_diff(r), 4);
        self.srtt_ns = blend(self.srtt_ns, r, 8);
        self.update_rto();
        self.backoff = 0;
    }

    /// There was a measurement, and nothing has expired since.
    pub(crate) fn is_settled(&self) -> bool {
        self.measured && self.backoff == 0 && self.rto_ns <= self.max_ns
    }

    /// The current timeout if the round trip [is settled](Rtt::is_settled).
    #[inline]
    pub(crate) fn rto_ns(&self) -> u64 {
        self.rto_ns
    }

    /// The smoothed round trip if there was a measurement.
    #[inline]
    pub(crate) fn srtt_ns(&self) -> u64 {
        self.srtt_ns
    }

    #[inline(always)]
    fn update_rto(&mut self) {
        let rto_ns = self.srtt_ns + (K * self.rttvar_ns).max(GRANULARITY_NS);
        self.rto_ns = rto_ns.max(self.min_ns).min(self.max_ns);
    }

    /// The part that outlasts a rest.
    pub(crate) fn to_rest(self) -> RttAtRest {
        let short = |ns: u64| u32::try_from(ns).unwrap_or(u32::MAX);
        RttAtRest { srtt_ns: short(self.srtt_ns), rttvar_ns: short(self.rttvar_ns) }
    }

    /// Goes on after a rest, for which nothing was backed off.
    pub(crate) fn from_rest(rest: RttAtRest, config: &TcpConfig) -> Rtt {
        let mut rtt = Rtt::new(config);
        if rest.srtt_ns > 0 {
            (rtt.srtt_ns, rtt.rttvar_ns) = (rest.srtt_ns.into(), rest.rttvar_ns.into());
            rtt.measured = true;
            rtt.update_rto();
        }
        rtt
    }

    /// The timer has expired (RFC 6298 §5.5).
    pub(crate) fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(BACKOFF_MAX);
    }

    /// The timer had expired too early.
    pub(crate) fn forget_back_off(&mut self) {
        self.backoff = 0;
    }

    /// The handshake has ended although a SYN was lost (RFC 6298 §5.7). A measurement by
    /// timestamps is worth more than that guess.
    pub(crate) fn after_lost_syn(&mut self) {
        self.backoff = 0;
        if !self.measured {
            self.rto_ns = self.rto_ns.max(RTO_AFTER_LOST_SYN_NS);
        }
    }

    /// The current timeout, backed off.
    pub(crate) fn rto(&self) -> Duration {
        self.rto_after(self.backoff)
    }

    /// When what is sent now times out.
    #[inline]
    pub(crate) fn deadline(&self, now: Instant) -> Instant {
        let ns = self.rto_ns.saturating_mul(1 << self.backoff);
        Instant::from_nanos(now.as_nanos().saturating_add(ns.min(self.max_ns)))
    }

    /// The timeout after `doublings`, for timers that back off on their own.
    pub(crate) fn rto_after(&self, doublings: u8) -> Duration {
        let ns = self.rto_ns.saturating_mul(1 << doublings.min(BACKOFF_MAX));
        Duration::from_nanos(ns.min(self.max_ns))
    }

    pub(crate) fn srtt(&self) -> Option<Duration> {
        self.measured.then(|| Duration::from_nanos(self.srtt_ns))
    }

    /// Doublings of the timeout since the last measurement.
    pub(crate) fn backoff(&self) -> u8 {
        self.backoff
    }

    pub(crate) fn rttvar(&self) -> Duration {
        Duration::from_nanos(self.rttvar_ns)
    }
}

/// `(1 - 1/weight) * old + 1/weight * new`, without going through negative numbers.
#[inline]
fn blend(old: u64, new: u64, weight: u64) -> u64 {
    if new >= old { old + (new - old) / weight } else { old - (old - new) / weight }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_first_sample_sets_and_later_ones_smooth() {
        let config = TcpConfig { rto_min: ms(1), ..TcpConfig::default() };
        let mut rtt = Rtt::new(&config);
        assert_eq!(rtt.rto(), ms(1000));
        rtt.sample(ms(100), 1);
        assert_eq!((rtt.srtt(), rtt.rttvar(), rtt.rto()), (Some(ms(100)), ms(50), ms(300)));
        rtt.sample(ms(180), 1);
        assert_eq!(rtt.srtt(), Some(ms(110)));
        assert_eq!(rtt.rttvar(), Duration::from_micros(57_500));
        assert_eq!(rtt.rto(), ms(340));
    }

    #[test]
    fn bounds_hold_and_backoff_doubles_up_to_the_upper_one() {
        let config = TcpConfig::default();
        let mut rtt = Rtt::new(&config);
        rtt.sample(ms(1), 1);
        assert_eq!(rtt.rto(), config.rto_min);
        rtt.back_off();
        assert_eq!(rtt.rto(), 2 * config.rto_min);
        for _ in 0..300 {
            rtt.back_off();
        }
        assert_eq!(rtt.rto(), config.rto_max);
        rtt.sample(ms(1), 1);
        assert_eq!(rtt.rto(), config.rto_min, "a sample ends the backoff");
    }

    #[test]
    fn other_bounds_hold_from_the_next_sample_on() {
        let config = TcpConfig::default();
        let mut rtt = Rtt::new(&config);
        rtt.sample(ms(10), 1);
        rtt.mirror(&TcpConfig { rto_min: ms(700), rto_max: ms(900), ..config });
        rtt.sample(ms(10), 1);
        assert_eq!(rtt.rto(), ms(700));
        rtt.back_off();
        assert_eq!(rtt.rto(), ms(900));
    }

    #[test]
    fn a_lost_syn_gives_three_seconds_unless_measured() {
        let config = TcpConfig::default();
        let mut rtt = Rtt::new(&config);
        rtt.back_off();
        rtt.after_lost_syn();
        assert_eq!(rtt.rto(), ms(3000));
        rtt.sample(ms(10), 1);
        rtt.after_lost_syn();
        assert_eq!(rtt.rto(), config.rto_min);
    }

    #[test]
    fn many_samples_a_round_trip_weigh_less_each() {
        let config = TcpConfig::default();
        let mut rtt = Rtt::new(&config);
        rtt.sample(ms(100), 1);
        for _ in 0..10 {
            rtt.sample(ms(200), 10);
        }
        let srtt = rtt.srtt().unwrap();
        assert!(srtt > ms(111) && srtt < ms(113), "{srtt:?}");
        // Ten times a fortieth of the way from 50 ms to an error that goes from 100 ms to 89 ms.
        let rttvar = rtt.rttvar();
        assert!(rttvar > ms(59) && rttvar < ms(60), "{rttvar:?}");
    }
}
