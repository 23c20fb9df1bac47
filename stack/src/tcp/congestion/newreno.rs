//! The window of RFC 5681 with appropriate byte counting (RFC 3465); its companion RFC 6582 is in
//! `recovery`.
//!
//! Measured where one frame of a hundred is lost: of 100 Mbit/s it gets 94, 86, 7.8 and 1.4 at 0.1,
//! 1, 20 and 100 ms (`stack/tests/golden`), of 10 Gbit/s at 1 ms 0.13 (`scripts/bench loss`), which is
//! what MSS / RTT · sqrt(3/2 / p) allows (M. Mathis et al., "The Macroscopic Behavior of the TCP
//! Congestion Avoidance Algorithm").

use super::{
    ABC_LIMIT_SEGMENTS, AckSample, CWND_MAX, CongestionControl, ControllerAtRest, Validation,
    reduced,
};
use crate::time::{Instant, nanos};

/// RFC 5681 equation 4: tenths that a reduction leaves.
const BETA_TENTHS: u32 = 5;

#[derive(Clone, Copy, Debug)]
pub(crate) struct NewReno {
    cwnd: u32,
    ssthresh: u32,
    /// Bytes acknowledged in congestion avoidance since the window last grew.
    acked: u32,
    /// Window and threshold before the last reduction.
    prior: (u32, u32),
    validation: Validation,
}

impl NewReno {
    pub(crate) fn new(initial_window: u32) -> NewReno {
        // RFC 5681 §3.1: the initial ssthresh SHOULD be set arbitrarily high.
        NewReno {
            cwnd: initial_window,
            ssthresh: CWND_MAX,
            acked: 0,
            prior: (initial_window, CWND_MAX),
            validation: Validation::new(initial_window, Instant::ZERO),
        }
    }

    /// The part that outlasts a rest.
    pub(super) fn to_rest(self) -> ControllerAtRest {
        let NewReno { cwnd, ssthresh, validation, .. } = self;
        ControllerAtRest::NewReno { cwnd, ssthresh, over_s: validation.to_rest() }
    }

    /// Takes over from another controller, or goes on after a rest.
    pub(super) fn continue_at(&mut self, ssthresh: u32, validation: Validation) {
        self.ssthresh = ssthresh;
        self.validation = validation;
        self.prior = (self.cwnd, ssthresh);
    }
}

impl CongestionControl for NewReno {
    fn cwnd(&self) -> u32 {
        self.cwnd
    }

    fn ssthresh(&self) -> u32 {
        self.ssthresh
    }

    fn on_ack(&mut self, ack: &AckSample) {
        if self.validation.on_ack(ack.now, nanos(ack.srtt), ack.piped, self.cwnd) {
            (self.cwnd, self.ssthresh) = self.validation.reduced(self.cwnd, self.ssthresh);
        }
        if self.cwnd < self.ssthresh {
            if self.validation.may_double(ack, self.cwnd) {
                self.cwnd = (self.cwnd + slow_start_step(ack)).min(CWND_MAX);
            }
        } else if ack.window_limited && self.validation.is_validated(self.cwnd) {
            // RFC 5681 §3.1: one segment more for each window of bytes acknowledged.
            self.acked = self.acked.saturating_add(ack.acked);
            if self.acked >= self.cwnd {
                self.acked -= self.cwnd;
                self.cwnd = (self.cwnd + ack.mss).min(CWND_MAX);
            }
        }
    }

    fn on_loss(&mut self, _now: Instant, in_flight: u32, mss: u32) {
        self.prior = (self.cwnd, self.ssthresh);
        let used = self.validation.on_loss(in_flight, self.cwnd);
        self.ssthresh = reduced(used, BETA_TENTHS, mss);
        self.cwnd = self.ssthresh;
        self.acked = 0;
    }

    fn on_mark(&mut self, now: Instant, in_flight: u32, mss: u32) {
        self.on_loss(now, in_flight, mss);
        let _ = self.validation.on_recovered(0);
    }

    fn on_recovered(&mut self, _now: Instant, in_flight: u32, resent: u32, mss: u32) {
        if let Some(used) = self.validation.on_recovered(resent) {
            self.ssthresh = reduced(used, BETA_TENTHS, mss);
        }
        // RFC 6582 §3.2, full acknowledgment, option 1: no burst when little is in flight.
        self.cwnd = self.ssthresh.min(in_flight.max(mss) + mss);
    }

    fn on_rto(&mut self, _now: Instant, in_flight: u32, mss: u32, first: bool) {
        // RFC 5681 §3.1: ssthresh is held when the same data is lost again.
        if first {
            self.prior = (self.cwnd, self.ssthresh);
            self.ssthresh = reduced(in_flight, BETA_TENTHS, mss);
        }
        self.cwnd = mss;
        self.acked = 0;
        self.validation.restart();
    }

    fn on_idle(&mut self, _now: Instant, restart_window: Option<u32>) {
        if let Some(window) = restart_window {
            self.cwnd = self.cwnd.min(window);
            self.validation.restart();
        }
    }

    fn on_long_idle(&mut self, now: Instant) {
        if self.validation.on_idle(now) {
            (self.cwnd, self.ssthresh) = self.validation.reduced(self.cwnd, self.ssthresh);
        }
    }

    fn undo(&mut self) {
        self.validation.restart();
        // RFC 4015 §3.2: what had been reached since is not taken back.
        self.cwnd = self.cwnd.max(self.prior.0);
        self.ssthresh = self.ssthresh.max(self.prior.1);
    }
}

/// RFC 3465 §2.2: bytes that an ACK adds in slow start; §2.3: L = 1 while data sent before a timeout
/// is being repaired.
pub(super) fn slow_start_step(ack: &AckSample) -> u32 {
    let limit = if ack.after_timeout { 1 } else { ABC_LIMIT_SEGMENTS };
    ack.acked.min(limit * ack.mss)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{MSS, ack};
    use super::*;

    #[test]
    fn slow_start_doubles_and_congestion_avoidance_adds_a_segment_a_window() {
        let mut c = NewReno::new(10 * MSS);
        for _ in 0..5 {
            c.on_ack(&ack(2 * MSS, 10 * MSS));
        }
        assert_eq!(c.cwnd(), 20 * MSS);
        c.on_loss(Instant::ZERO, 20 * MSS, MSS);
        assert_eq!((c.cwnd(), c.ssthresh()), (10 * MSS, 10 * MSS));
        for _ in 0..9 {
            c.on_ack(&ack(MSS, 10 * MSS));
        }
        assert_eq!(c.cwnd(), 10 * MSS);
        c.on_ack(&ack(MSS, 10 * MSS));
        assert_eq!(c.cwnd(), 11 * MSS);
    }

    #[test]
    fn one_ack_of_many_segments_grows_the_window_by_a_bounded_step() {
        let mut c = NewReno::new(10 * MSS);
        c.on_ack(&ack(45 * MSS, 45 * MSS));
        assert_eq!(c.cwnd(), 18 * MSS);
        c.on_ack(&AckSample { after_timeout: true, ..ack(45 * MSS, 45 * MSS) });
        assert_eq!(c.cwnd(), 19 * MSS);
    }

    #[test]
    fn acks_of_parts_of_a_segment_add_up_to_one_of_the_whole() {
        // RFC 3465 §2.1: dividing an ACK gains nothing.
        let (mut whole, mut parts) = (NewReno::new(10 * MSS), NewReno::new(10 * MSS));
        whole.on_ack(&ack(MSS, 10 * MSS));
        for _ in 0..MSS {
            parts.on_ack(&ack(1, 10 * MSS));
        }
        assert_eq!(parts.cwnd(), whole.cwnd());
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        let mut c = NewReno::new(10 * MSS);
        c.on_ack(&AckSample { window_limited: false, ..ack(MSS, MSS) });
        assert_eq!(c.cwnd(), 10 * MSS);
    }

    #[test]
    fn a_timeout_leaves_one_segment_and_holds_ssthresh_when_repeated() {
        let mut c = NewReno::new(10 * MSS);
        c.on_rto(Instant::ZERO, 10 * MSS, MSS, true);
        assert_eq!((c.cwnd(), c.ssthresh()), (MSS, 5 * MSS));
        c.on_rto(Instant::ZERO, MSS, MSS, false);
        assert_eq!((c.cwnd(), c.ssthresh()), (MSS, 5 * MSS));
        c.undo();
        assert_eq!((c.cwnd(), c.ssthresh()), (10 * MSS, CWND_MAX));
    }
}
