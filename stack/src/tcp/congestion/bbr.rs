//! BBR version 1 (draft-cardwell-iccrg-bbr-congestion-control-00; N. Cardwell et al., "BBR:
//! Congestion-Based Congestion Control", ACM Queue 14-5).
//!
//! ```text
//!   STARTUP ──bandwidth grows no more──▶ DRAIN ──queue gone──▶ PROBE_BW (1.25, 0.75, 1 × 6 …)
//!      ▲                                                          │  ▲
//!      └───────── pipe never filled ◀── PROBE_RTT ◀──10 s without ┘  └── pipe filled ──
//!                                       (4 segments, 200 ms)  a new minimum
//! ```
//!
//! It models the path by two numbers, the bottleneck's bandwidth (the largest delivery rate of ten
//! rounds) and the round trip without queues (the least of ten seconds), paces at the first and
//! keeps about twice their product in flight. Loss and marks say little to it. Gains are fractions
//! of 256, so that a run repeats exactly.

use std::time::Duration;

use super::max_filter::MaxFilter;
use super::{AckSample, CWND_MAX, CongestionControl};
use crate::tcp::rate::PathSample;
use crate::time::Instant;

/// A gain of 1.
const UNIT: u64 = 256;

/// §3.4: 2/ln 2, the smallest gain that doubles the rate each round.
const HIGH_GAIN: u64 = 739;

/// Its inverse: takes out in one round what STARTUP has queued.
const DRAIN_GAIN: u64 = 88;

/// §4.2.3: room for delayed and joined ACKs.
const CWND_GAIN: u64 = 2 * UNIT;

/// §4.3.4: probe for more, drain that, cruise.
const CYCLE: [u64; 8] = [320, 192, UNIT, UNIT, UNIT, UNIT, UNIT, UNIT];

/// §4.1.1.3: rounds that a bandwidth is remembered.
const BW_ROUNDS: u32 = 10;

/// §4.1.2.2 and §4.3.5.
const MIN_RTT_WINDOW: Duration = Duration::from_secs(10);
const PROBE_RTT_TIME: Duration = Duration::from_millis(200);
const MIN_CWND_SEGMENTS: u32 = 4;

/// §4.3.2.2: the pipe is full when the bandwidth grows by less than a quarter in three rounds.
const FULL_BW_ROUNDS: u8 = 3;

/// §4.2.2: what leaves at once is worth at most this time.
const QUANTUM_SHIFT: u32 = 10;
const QUANTUM_MAX: u64 = 64 << 10;

/// The round trip that the first pacing rate assumes (§4.2.1).
const INITIAL_RTT: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Startup,
    Drain,
    /// An index into [`CYCLE`].
    ProbeBw(u8),
    ProbeRtt,
}

/// What a loss has done to the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repair {
    None,
    /// §4.2.3.4: for a round, what is delivered is what may be sent.
    Conserve,
    /// The rest of fast recovery.
    Recovery,
    AfterTimeout,
}

#[derive(Clone, Debug)]
pub(crate) struct Bbr {
    mode: Mode,
    repair: Repair,
    /// STARTUP has found the bandwidth.
    filled_pipe: bool,
    /// Sending has begun again after the application had nothing to send.
    idle_restart: bool,
    /// PROBE_RTT has lasted a round.
    probe_rtt_round: bool,
    full_bw_rounds: u8,
    cwnd: u32,
    /// The window before recovery or PROBE_RTT.
    prior_cwnd: u32,
    initial_cwnd: u32,
    mss: u32,
    round: u32,
    /// The round ends when data sent after this much was delivered arrives.
    round_end: u64,
    bw: MaxFilter,
    full_bw: u64,
    /// Bytes a second; 0 before the first ACK.
    pacing_rate: u64,
    min_rtt: Option<Duration>,
    min_rtt_at: Instant,
    probe_rtt_until: Option<Instant>,
    cycle_at: Instant,
}

impl Bbr {
    pub(crate) fn new(initial_window: u32) -> Bbr {
        Bbr {
            mode: Mode::Startup,
            repair: Repair::None,
            filled_pipe: false,
            idle_restart: false,
            probe_rtt_round: false,
            full_bw_rounds: 0,
            cwnd: initial_window,
            prior_cwnd: CWND_MAX,
            initial_cwnd: initial_window,
            mss: 0,
            round: 0,
            round_end: 0,
            bw: MaxFilter::default(),
            full_bw: 0,
            pacing_rate: gained(per_second(initial_window, INITIAL_RTT), HIGH_GAIN),
            min_rtt: None,
            min_rtt_at: Instant::ZERO,
            probe_rtt_until: None,
            cycle_at: Instant::ZERO,
        }
    }

    fn pacing_gain(&self) -> u64 {
        match self.mode {
            Mode::Startup => HIGH_GAIN,
            Mode::Drain => DRAIN_GAIN,
            Mode::ProbeBw(phase) => CYCLE[usize::from(phase) % CYCLE.len()],
            Mode::ProbeRtt => UNIT,
        }
    }

    fn cwnd_gain(&self) -> u64 {
        match self.mode {
            Mode::Startup | Mode::Drain => HIGH_GAIN,
            Mode::ProbeBw(_) => CWND_GAIN,
            Mode::ProbeRtt => UNIT,
        }
    }

    fn min_cwnd(&self) -> u32 {
        MIN_CWND_SEGMENTS * self.mss
    }

    /// `gain` times the product of bandwidth and round trip (§4.2.3.1).
    fn inflight(&self, gain: u64) -> u32 {
        let Some(min_rtt) = self.min_rtt else { return self.initial_cwnd };
        let bdp = u128::from(self.bw.get()) * min_rtt.as_nanos() / 1_000_000_000;
        (bdp * u128::from(gain) / u128::from(UNIT)).min(u128::from(CWND_MAX)) as u32
    }

    /// §4.2.3.1: so much more, that super-segments and delayed ACKs do not stop the sender.
    fn quantum(&self) -> u32 {
        let worth = (self.pacing_rate >> QUANTUM_SHIFT).min(QUANTUM_MAX) as u32;
        worth.max(2 * self.mss)
    }

    // --- the model -------------------------------------------------------------------------------

    /// §4.1.1.2: true if a round has ended.
    fn update_round(&mut self, d: &PathSample) -> bool {
        if d.prior_delivered < self.round_end {
            return false;
        }
        self.round_end = d.delivered;
        self.round = self.round.wrapping_add(1);
        if self.repair == Repair::Conserve {
            self.repair = Repair::Recovery;
        }
        true
    }

    fn update_bw(&mut self, d: &PathSample) {
        let Some(rate) = d.rate else { return };
        // §4.1.1.4: an application's rate says something only if it is more than was known.
        if !rate.app_limited || rate.per_second() >= self.bw.get() {
            self.bw.update(BW_ROUNDS, self.round, rate.per_second());
        }
    }

    /// §4.3.4.
    fn update_cycle(&mut self, d: &PathSample) {
        let Mode::ProbeBw(phase) = self.mode else { return };
        let lasted = self.min_rtt.is_some_and(|rtt| d.now - self.cycle_at > rtt);
        let gain = self.pacing_gain();
        let before = d.in_flight.saturating_add(d.newly);
        let over = match gain.cmp(&UNIT) {
            std::cmp::Ordering::Equal => lasted,
            std::cmp::Ordering::Greater => {
                lasted && (self.repair != Repair::None || before >= self.inflight(gain))
            }
            std::cmp::Ordering::Less => lasted || before <= self.inflight(UNIT),
        };
        if over {
            self.cycle_at = d.now;
            self.mode = Mode::ProbeBw((phase + 1) % CYCLE.len() as u8);
        }
    }

    /// §4.3.2.2.
    fn update_full_pipe(&mut self, d: &PathSample, round_start: bool) {
        let app_limited = d.rate.is_none_or(|rate| rate.app_limited);
        if self.filled_pipe || !round_start || app_limited {
            return;
        }
        if self.bw.get() >= self.full_bw / 4 * 5 {
            (self.full_bw, self.full_bw_rounds) = (self.bw.get(), 0);
            return;
        }
        self.full_bw_rounds += 1;
        self.filled_pipe = self.full_bw_rounds >= FULL_BW_ROUNDS;
    }

    /// §4.3.3.
    fn update_drain(&mut self, d: &PathSample) {
        if self.mode == Mode::Startup && self.filled_pipe {
            self.mode = Mode::Drain;
        }
        if self.mode == Mode::Drain && d.in_flight <= self.inflight(UNIT) {
            self.enter_probe_bw(d.now);
        }
    }

    /// §4.3.4: at a phase by chance, so that flows do not probe in step, but not the one that
    /// drains. The nanosecond at which this flow gets here is chance enough, and repeats with the
    /// run.
    fn enter_probe_bw(&mut self, now: Instant) {
        let draw = (now.as_nanos() / 1000 % (CYCLE.len() as u64 - 1)) as u8;
        self.mode = Mode::ProbeBw(if draw == 0 { 0 } else { draw + 1 });
        self.cycle_at = now;
    }

    /// §4.1.2 and §4.3.5.
    fn update_min_rtt(&mut self, d: &PathSample, round_start: bool) {
        let expired = self.min_rtt.is_some() && d.now > self.min_rtt_at + MIN_RTT_WINDOW;
        if let Some(rtt) = d.rtt
            && (expired || self.min_rtt.is_none_or(|min| rtt <= min))
        {
            (self.min_rtt, self.min_rtt_at) = (Some(rtt), d.now);
        }
        if expired && !self.idle_restart && self.mode != Mode::ProbeRtt {
            self.save_cwnd();
            self.mode = Mode::ProbeRtt;
            self.probe_rtt_until = None;
        }
        if self.mode != Mode::ProbeRtt {
            return;
        }
        match self.probe_rtt_until {
            None if d.in_flight <= self.min_cwnd() => {
                self.probe_rtt_until = Some(d.now + PROBE_RTT_TIME);
                self.probe_rtt_round = false;
                self.round_end = d.delivered;
            }
            None => {}
            Some(_) => {
                self.probe_rtt_round |= round_start;
                if self.probe_rtt_round {
                    self.leave_probe_rtt_if_done(d.now);
                }
            }
        }
    }

    fn leave_probe_rtt_if_done(&mut self, now: Instant) {
        if self.probe_rtt_until.is_none_or(|until| now <= until) {
            return;
        }
        self.min_rtt_at = now;
        self.restore_cwnd();
        if self.filled_pipe {
            self.enter_probe_bw(now);
        } else {
            self.mode = Mode::Startup;
        }
    }

    // --- what follows from it --------------------------------------------------------------------

    /// §4.2.1. The rate stays a hundredth below the bandwidth, so that the queue does not grow
    /// where the estimate is a little too high.
    fn set_pacing_rate(&mut self, gain: u64) {
        let rate = gained(self.bw.get(), gain) / 100 * 99;
        if self.filled_pipe || rate > self.pacing_rate {
            self.pacing_rate = rate;
        }
    }

    /// §4.2.3.
    fn set_cwnd(&mut self, d: &PathSample) {
        if self.repair == Repair::Conserve {
            self.cwnd = self.cwnd.max(d.in_flight.saturating_add(d.newly));
        } else {
            let target = self.inflight(self.cwnd_gain()).saturating_add(3 * self.quantum());
            let grown = self.cwnd.saturating_add(d.newly);
            if self.filled_pipe {
                self.cwnd = grown.min(target);
            } else if self.cwnd < target || d.delivered < u64::from(self.initial_cwnd) {
                self.cwnd = grown;
            }
        }
        self.cwnd = self.cwnd.clamp(self.min_cwnd(), CWND_MAX);
        if self.mode == Mode::ProbeRtt {
            self.cwnd = self.cwnd.min(self.min_cwnd());
        }
    }

    fn save_cwnd(&mut self) {
        self.prior_cwnd = if self.repair == Repair::None && self.mode != Mode::ProbeRtt {
            self.cwnd
        } else {
            self.prior_cwnd.max(self.cwnd)
        };
    }

    fn restore_cwnd(&mut self) {
        if self.prior_cwnd < CWND_MAX {
            self.cwnd = self.cwnd.max(self.prior_cwnd);
        }
    }

    fn end_repair(&mut self) {
        if self.repair != Repair::None {
            self.repair = Repair::None;
            self.restore_cwnd();
        }
    }
}

impl CongestionControl for Bbr {
    fn cwnd(&self) -> u32 {
        self.cwnd
    }

    /// There is none; this is the window that recovery will come back to.
    fn ssthresh(&self) -> u32 {
        self.prior_cwnd
    }

    fn on_ack(&mut self, ack: &AckSample) {
        if self.repair == Repair::AfterTimeout && !ack.after_timeout {
            self.end_repair();
        }
    }

    fn on_delivery(&mut self, d: &PathSample) {
        if d.newly == 0 {
            return;
        }
        self.mss = d.mss;
        if self.min_rtt.is_none()
            && let Some(rtt) = d.rtt
        {
            // §4.2.1: the first pacing rate, by the first round trip.
            self.pacing_rate = gained(per_second(self.cwnd, rtt), HIGH_GAIN);
        }
        let round_start = self.update_round(d);
        self.update_bw(d);
        self.update_cycle(d);
        self.update_full_pipe(d, round_start);
        self.update_drain(d);
        self.update_min_rtt(d, round_start);
        self.idle_restart = false;
        if self.bw.get() > 0 {
            self.set_pacing_rate(self.pacing_gain());
        }
        self.set_cwnd(d);
    }

    fn on_loss(&mut self, _now: Instant, in_flight: u32, mss: u32) {
        // §4.2.3.4.
        self.save_cwnd();
        self.repair = Repair::Conserve;
        self.mss = mss;
        self.cwnd = in_flight.saturating_add(mss).clamp(self.min_cwnd(), CWND_MAX);
    }

    /// The model has seen what the queue does; version 1 has no answer to marks.
    fn on_mark(&mut self, _now: Instant, _in_flight: u32, _mss: u32) {}

    fn on_recovered(&mut self, _now: Instant, _in_flight: u32, _mss: u32) {
        self.end_repair();
    }

    fn on_rto(&mut self, _now: Instant, _in_flight: u32, mss: u32, _first: bool) {
        // §4.2.3.4: what was learnt of the pipe may be over.
        self.save_cwnd();
        self.repair = Repair::AfterTimeout;
        (self.full_bw, self.full_bw_rounds) = (0, 0);
        self.cwnd = mss;
    }

    fn on_idle(&mut self, now: Instant, _restart_window: Option<u32>) {
        // §4.2.3.5: pacing takes the place of a smaller window.
        self.idle_restart = true;
        match self.mode {
            Mode::ProbeBw(_) => self.set_pacing_rate(UNIT),
            Mode::ProbeRtt => self.leave_probe_rtt_if_done(now),
            Mode::Startup | Mode::Drain => {}
        }
    }

    fn undo(&mut self) {
        (self.full_bw, self.full_bw_rounds) = (0, 0);
        self.end_repair();
    }

    fn pacing_rate(&self) -> Option<u64> {
        Some(self.pacing_rate.max(1))
    }

    fn uses_prr(&self) -> bool {
        false
    }

    fn holds_back(&self) -> bool {
        self.mode == Mode::ProbeRtt
    }
}

fn gained(rate: u64, gain: u64) -> u64 {
    u64::try_from(u128::from(rate) * u128::from(gain) / u128::from(UNIT)).unwrap_or(u64::MAX)
}

fn per_second(bytes: u32, time: Duration) -> u64 {
    let ns = time.as_nanos().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000_000 / ns).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "bbr_tests.rs"]
mod tests;
