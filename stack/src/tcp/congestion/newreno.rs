//! The window of RFC 5681 with appropriate byte counting (RFC 3465); its companion RFC 6582 is in
//! `recovery`.

use super::AckSample;

/// L of RFC 3465 in slow start. That RFC allows 2; RFC 9406 §4.3 has since found 8 safe for senders
/// without pacing, and receivers that join segments answer dozens of them with one ACK.
const ABC_LIMIT_SEGMENTS: u32 = 8;

/// No window that TCP can advertise is larger (RFC 7323 §2.3).
const CWND_MAX: u32 = 1 << 30;

#[derive(Clone, Copy, Debug)]
pub(crate) struct NewReno {
    cwnd: u32,
    ssthresh: u32,
    /// Bytes acknowledged in congestion avoidance since the window last grew.
    acked: u32,
    /// cwnd and ssthresh before the last loss.
    prior: (u32, u32),
}

impl NewReno {
    pub(crate) fn new(initial_window: u32) -> NewReno {
        // RFC 5681 §3.1: the initial ssthresh SHOULD be set arbitrarily high.
        let prior = (initial_window, CWND_MAX);
        NewReno { cwnd: initial_window, ssthresh: CWND_MAX, acked: 0, prior }
    }

    pub(crate) fn cwnd(&self) -> u32 {
        self.cwnd
    }

    pub(crate) fn ssthresh(&self) -> u32 {
        self.ssthresh
    }

    pub(crate) fn on_ack(&mut self, ack: &AckSample) {
        let slow_start = self.cwnd < self.ssthresh;
        // In slow start, half a window in flight is use enough: the next ACKs will double it.
        let half_used = slow_start && ack.in_flight.saturating_mul(2) >= self.cwnd;
        if !(ack.window_limited || half_used) {
            return;
        }
        if slow_start {
            // RFC 3465 §2.3: L = 1 while data sent before a timeout is being repaired.
            let limit = if ack.after_timeout { 1 } else { ABC_LIMIT_SEGMENTS };
            self.cwnd = (self.cwnd + ack.acked.min(limit * ack.mss)).min(CWND_MAX);
        } else {
            // RFC 5681 §3.1: one segment more for each window of bytes acknowledged.
            self.acked = self.acked.saturating_add(ack.acked);
            if self.acked >= self.cwnd {
                self.acked -= self.cwnd;
                self.cwnd = (self.cwnd + ack.mss).min(CWND_MAX);
            }
        }
    }

    pub(crate) fn on_loss(&mut self, in_flight: u32, mss: u32) {
        self.prior = (self.cwnd, self.ssthresh);
        // RFC 5681 equation 4.
        self.ssthresh = (in_flight / 2).max(2 * mss);
        self.cwnd = self.ssthresh;
        self.acked = 0;
    }

    pub(crate) fn on_recovered(&mut self, in_flight: u32, mss: u32) {
        // RFC 6582 §3.2, full acknowledgment, option 1: no burst when little is in flight.
        self.cwnd = self.ssthresh.min(in_flight.max(mss) + mss);
    }

    pub(crate) fn on_rto(&mut self, in_flight: u32, mss: u32, first: bool) {
        // RFC 5681 §3.1: ssthresh is held when the same data is lost again.
        if first {
            self.prior = (self.cwnd, self.ssthresh);
            self.ssthresh = (in_flight / 2).max(2 * mss);
        }
        self.cwnd = mss;
        self.acked = 0;
    }

    pub(crate) fn undo(&mut self) {
        self.cwnd = self.cwnd.max(self.prior.0);
        self.ssthresh = self.ssthresh.max(self.prior.1);
    }

    pub(crate) fn on_idle(&mut self, restart_window: u32) {
        self.cwnd = self.cwnd.min(restart_window);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;

    const MSS: u32 = 1000;

    fn ack(acked: u32, in_flight: u32) -> AckSample {
        AckSample {
            acked,
            now: Instant::ZERO,
            rtt: None,
            in_flight,
            mss: MSS,
            window_limited: in_flight > 0,
            after_timeout: false,
        }
    }

    #[test]
    fn slow_start_doubles_and_congestion_avoidance_adds_a_segment_a_window() {
        let mut c = NewReno::new(10 * MSS);
        for _ in 0..5 {
            c.on_ack(&ack(2 * MSS, 10 * MSS));
        }
        assert_eq!(c.cwnd(), 20 * MSS);
        c.on_loss(20 * MSS, MSS);
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
    fn an_unused_window_does_not_grow() {
        let mut c = NewReno::new(10 * MSS);
        c.on_ack(&AckSample { window_limited: false, ..ack(MSS, MSS) });
        assert_eq!(c.cwnd(), 10 * MSS);
    }

    #[test]
    fn a_timeout_leaves_one_segment_and_holds_ssthresh_when_repeated() {
        let mut c = NewReno::new(10 * MSS);
        c.on_rto(10 * MSS, MSS, true);
        assert_eq!((c.cwnd(), c.ssthresh()), (MSS, 5 * MSS));
        c.on_rto(MSS, MSS, false);
        assert_eq!((c.cwnd(), c.ssthresh()), (MSS, 5 * MSS));
        c.undo();
        assert_eq!((c.cwnd(), c.ssthresh()), (10 * MSS, CWND_MAX), "what both had been");
    }
}
