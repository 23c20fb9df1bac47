//! CUBIC (RFC 9438): the window follows a cubic function of the time since it was last reduced.
//!
//! ```text
//!   W_cubic(t) = C (t - K)³ + W_max            §4.2, figure 1
//!
//!   cwnd      W_max ......._______........../   convex: looks for a new W_max
//!                     _--~~   ^    ~~--____/
//!                   /         K                 concave: comes back to where it was lost
//!   β W_max .......|
//! ```
//!
//! Measured where one frame of a hundred is lost: of 100 Mbit/s it gets 94, 91, 8.5 and 1.6 at 0.1,
//! 1, 20 and 100 ms (`stack/tests/golden`), of 10 Gbit/s at 1 ms 0.15 (`scripts/bench loss`): the
//! curve needs windows larger than such losses leave, so that it is Reno's estimate that counts
//! there (§4.3).
//!
//! Times are seconds and windows are bytes, in floating point: addition, multiplication and division
//! of doubles give the same bits on every machine, so runs repeat. The one root, K, is taken in
//! integers for the same reason.

use super::hystart::{Growth, HyStart};
use super::{AckSample, CWND_MAX, CongestionControl, Noted, Validation, reduced};
use crate::hint::rarely;
use crate::time::{Instant, nanos};

/// §4.6: tenths that a reduction leaves.
const BETA_TENTHS: u32 = 7;
const BETA: f64 = BETA_TENTHS as f64 / 10.0;

/// §5.1: segments per second cubed.
const C: f64 = 0.4;

/// §4.3: the additive increase that gives Reno's throughput with this β.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// What a reduction changes, kept to be taken back. Half the precision is enough for what does not
/// grow in small steps.
#[derive(Clone, Copy, Debug)]
struct Curve {
    /// The window, with fractions of a byte.
    cwnd: f64,
    ssthresh: u32,
    /// The window before the last reduction; with fast convergence, a little less. Zero: none.
    w_max: f32,
    /// cwnd_prior of §4.1.2.
    cwnd_prior: f32,
    /// When the present stage of congestion avoidance began; `FAR_FUTURE` before its first ACK.
    epoch: Instant,
    k_s: f32,
    /// What Reno would have.
    w_est: f64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cubic {
    now: Curve,
    prior: Curve,
    /// When the last ACK in congestion avoidance came.
    last_ack: Instant,
    start: HyStart,
    validation: Validation,
}

/// What is kept of it while a connection is at rest: the windows. A new stage of congestion
/// avoidance begins after it, which §4.8 and §4.10 start from them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CubicAtRest {
    cwnd: u32,
    ssthresh: u32,
    w_max: f32,
    cwnd_prior: f32,
    over_s: u32,
    /// The first slow start is over.
    started: bool,
}

impl Cubic {
    /// The part that outlasts a rest.
    pub(super) fn to_rest(self) -> CubicAtRest {
        let Curve { ssthresh, w_max, cwnd_prior, .. } = self.now;
        let (started, over_s) = (self.start.is_over(), self.validation.to_rest());
        CubicAtRest { cwnd: self.cwnd(), ssthresh, w_max, cwnd_prior, over_s, started }
    }

    /// Goes on after a rest.
    pub(super) fn from_rest(rest: CubicAtRest, initial_window: u32) -> Cubic {
        let CubicAtRest { cwnd, ssthresh, w_max, cwnd_prior, over_s, started } = rest;
        let validation = Validation::from_rest(initial_window, over_s);
        let mut cubic = Cubic { validation, ..Cubic::new(cwnd) };
        cubic.now = Curve { ssthresh, w_max, cwnd_prior, ..cubic.now };
        cubic.prior = cubic.now;
        if started {
            cubic.start.stop();
        }
        cubic
    }

    pub(crate) fn new(initial_window: u32) -> Cubic {
        let now = Curve {
            cwnd: f64::from(initial_window),
            ssthresh: CWND_MAX,
            w_max: 0.0,
            cwnd_prior: 0.0,
            epoch: Instant::FAR_FUTURE,
            k_s: 0.0,
            w_est: 0.0,
        };
        let validation = Validation::new(initial_window, Instant::ZERO);
        Cubic { now, prior: now, last_ack: Instant::ZERO, start: HyStart::new(), validation }
    }

    /// Takes over from another controller.
    pub(super) fn continue_at(&mut self, ssthresh: u32, validation: Validation) {
        self.now.ssthresh = ssthresh;
        self.validation = validation;
        self.prior = self.now;
        if ssthresh < CWND_MAX {
            self.start.stop();
        }
    }

    #[inline(never)]
    fn slow_start(&mut self, ack: &AckSample) {
        match self.start.on_ack(ack) {
            Growth::By(n) => self.now.cwnd += f64::from(n),
            Growth::Last(n) => {
                self.now.cwnd += f64::from(n);
                self.now.ssthresh = self.cwnd();
            }
        }
        self.now.cwnd = self.now.cwnd.min(f64::from(CWND_MAX));
    }

    /// Takes an ACK that cannot make the window grow, which was not full: in slow start, while no more
    /// than half of it is used. False, and nothing is done, if it is another.
    #[inline(always)]
    pub(super) fn notes(&mut self, ack: &Noted) -> bool {
        let cwnd = self.now.cwnd;
        let peak = self.validation.peak(ack.una, ack.in_flight);
        let idle = cwnd < f64::from(self.now.ssthresh) && cwnd >= f64::from(peak.saturating_mul(2));
        if idle && self.validation.on_ack(ack.now, ack.srtt_ns, ack.piped, cwnd as u32) {
            self.give_back();
        }
        idle
    }

    /// Sending begins again after a short time with nothing in flight.
    #[inline]
    pub(super) fn resume(&mut self, now: Instant) {
        if self.now.epoch != Instant::FAR_FUTURE {
            self.now.epoch += now - self.last_ack;
        }
        self.last_ack = now;
    }

    #[inline(never)]
    fn congestion_avoidance(&mut self, ack: &AckSample) {
        let (mss, acked) = (f64::from(ack.mss), f64::from(ack.acked));
        let used = ack.window_limited && self.validation.is_validated(self.cwnd());
        let curve = &mut self.now;
        if curve.epoch == Instant::FAR_FUTURE {
            curve.begin_epoch(ack.now, mss);
        } else if !used {
            // §5.8: time in which the window was not used does not count.
            curve.epoch += ack.now - self.last_ack;
        }
        self.last_ack = ack.now;
        if !used {
            return;
        }
        let t = (ack.now - curve.epoch).as_secs_f64();
        // §4.3: once Reno would have come back to the old window, it would go on with α = 1.
        let alpha = if curve.w_est >= f64::from(curve.cwnd_prior) { 1.0 } else { ALPHA };
        let part = (acked / curve.cwnd).min(1.0);
        curve.w_est += alpha * part * mss;
        if curve.w_cubic(t, mss) < curve.w_est {
            curve.cwnd = curve.cwnd.max(curve.w_est);
        } else {
            // §4.4 and §4.5: a round trip ahead on the curve, and at most half as much again.
            let target = curve.w_cubic(t + ack.srtt.as_secs_f64(), mss);
            let target = target.clamp(curve.cwnd, 1.5 * curve.cwnd);
            curve.cwnd += (target - curve.cwnd) * part;
        }
        curve.cwnd = curve.cwnd.min(f64::from(CWND_MAX));
    }

    /// RFC 7661 §4.4.3: nobody knows any more whether the path takes so much. The curve goes on from
    /// what is left.
    #[cold]
    fn give_back(&mut self) {
        let (cwnd, ssthresh) = self.validation.reduced(self.cwnd(), self.now.ssthresh);
        self.now.ssthresh = ssthresh;
        (self.now.cwnd, self.now.epoch) = (f64::from(cwnd), Instant::FAR_FUTURE);
    }

    /// §4.6: what a loss and a mark have in common.
    fn reduce(&mut self, in_flight: u32, mss: u32) {
        self.prior = self.now;
        self.start.stop();
        let in_flight = self.validation.on_loss(in_flight, self.cwnd());
        let curve = &mut self.now;
        // §4.7: a flow that is reduced before it came back gives way to new ones.
        let early = curve.cwnd < f64::from(curve.w_max);
        curve.w_max = (if early { curve.cwnd * (1.0 + BETA) / 2.0 } else { curve.cwnd }) as f32;
        curve.cwnd_prior = curve.cwnd as f32;
        curve.ssthresh = reduced(in_flight, BETA_TENTHS, mss);
        curve.epoch = Instant::FAR_FUTURE;
    }
}

impl Curve {
    fn begin_epoch(&mut self, now: Instant, mss: f64) {
        self.epoch = now;
        self.w_est = self.cwnd;
        let w_max = f64::from(self.w_max);
        if w_max > self.cwnd {
            self.k_s = k_s(w_max - self.cwnd, mss) as f32;
        } else {
            // §4.8 and §4.10: after a timeout, and without a reduction, the curve begins at W_max.
            (self.w_max, self.k_s) = (self.cwnd as f32, 0.0);
        }
    }

    /// Figure 1 of §4.2.
    fn w_cubic(&self, t: f64, mss: f64) -> f64 {
        let d = t - f64::from(self.k_s);
        C * d * d * d * mss + f64::from(self.w_max)
    }
}

impl CongestionControl for Cubic {
    fn cwnd(&self) -> u32 {
        self.now.cwnd as u32
    }

    fn ssthresh(&self) -> u32 {
        self.now.ssthresh
    }

    fn on_ack(&mut self, ack: &AckSample) {
        let cwnd = self.cwnd();
        if rarely(self.validation.on_ack(ack.now, nanos(ack.srtt), ack.piped, cwnd)) {
            self.give_back();
        }
        if cwnd >= self.now.ssthresh {
            self.congestion_avoidance(ack);
        } else if self.validation.may_double(ack, cwnd) {
            self.slow_start(ack);
        }
    }

    fn on_loss(&mut self, _now: Instant, in_flight: u32, mss: u32) {
        self.reduce(in_flight, mss);
        self.now.cwnd = f64::from(self.now.ssthresh);
    }

    fn on_mark(&mut self, now: Instant, in_flight: u32, mss: u32) {
        self.on_loss(now, in_flight, mss);
        let _ = self.validation.on_recovered(0);
    }

    fn on_recovered(&mut self, _now: Instant, in_flight: u32, resent: u32, mss: u32) {
        if let Some(used) = self.validation.on_recovered(resent) {
            self.now.ssthresh = reduced(used, BETA_TENTHS, mss);
        }
        // RFC 6582 §3.2, full acknowledgment, option 1: no burst when little is in flight.
        self.now.cwnd = f64::from(self.now.ssthresh.min(in_flight.max(mss) + mss));
    }

    fn on_rto(&mut self, _now: Instant, in_flight: u32, mss: u32, first: bool) {
        // RFC 5681 §3.1: ssthresh is held when the same data is lost again.
        if first {
            self.reduce(in_flight, mss);
        }
        // §4.8.
        self.validation.restart();
        let curve = &mut self.now;
        (curve.cwnd, curve.w_max, curve.epoch) = (f64::from(mss), 0.0, Instant::FAR_FUTURE);
    }

    fn on_idle(&mut self, now: Instant, restart_window: Option<u32>) {
        if let Some(window) = restart_window {
            self.now.cwnd = self.now.cwnd.min(f64::from(window));
            self.validation.restart();
        }
        self.resume(now);
    }

    fn on_long_idle(&mut self, now: Instant) {
        if self.validation.on_idle(now) {
            self.give_back();
        }
    }

    fn undo(&mut self) {
        // §4.9.1: all that the reduction changed; what had been reached since is kept.
        self.validation.restart();
        let reached = self.now;
        self.now = self.prior;
        self.now.cwnd = self.now.cwnd.max(reached.cwnd);
        self.now.ssthresh = self.now.ssthresh.max(reached.ssthresh);
    }
}

/// Figure 2 of §4.2: the time that the curve needs for `bytes`, the cube root of segments over C.
fn k_s(bytes: f64, mss: f64) -> f64 {
    // In microseconds: the cube of a second is 10^18 of theirs.
    const US_CUBED: u128 = 1_000_000_000_000_000_000;
    let segments_thousandth = (bytes / mss / C * 1000.0) as u128;
    cube_root(segments_thousandth * (US_CUBED / 1000)) as f64 / 1e6
}

/// The largest integer whose cube is at most `n`, for results below 2^42.
fn cube_root(n: u128) -> u64 {
    (0..42).rev().map(|bit| 1u64 << bit).fold(0, |root, bit| {
        let next = root + bit;
        if u128::from(next).pow(3) <= n { next } else { root }
    })
}

#[cfg(test)]
#[path = "cubic_tests.rs"]
mod tests;
