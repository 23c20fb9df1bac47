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
//! keeps about twice their product in flight. Losses say little to it: they are conserved for a
//! round and not taken for congestion. Marks bound what is in flight, which is this
//! implementation's own. Gains are fractions of 256, so that a run repeats exactly.
//!
//! Measured where one frame of a hundred is lost: of 100 Mbit/s it gets 94 (all that the link
//! carries) from 0.1 to 100 ms if buffers hold several times what is under way
//! (`stack/tests/golden`), of 10 Gbit/s at 1 ms 9.4 (`scripts/bench loss`). What it does not do well
//! is to share a short link: of two flows at 1 ms one gets six times as much until PROBE_RTT, ten
//! seconds later, makes them equal (Jain's index 0.66, then 1.00); at 0.1 ms, where a window is
//! little but quanta, not even that does (0.68).

use std::time::Duration;

use super::max_filter::MaxFilter;
use super::{AckSample, CWND_MAX, CongestionControl, reduced};
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

/// Tenths of what was in flight that a mark leaves: CUBIC's share, which the others at a router that
/// marks are likely to have, too.
const MARK_TENTHS: u32 = 7;

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
    /// A loss was found; the next ACK says what is left in flight.
    Entered,
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
    /// What marks allow to be in flight; `CWND_MAX` if there were none.
    marked_cwnd: u32,
    /// `PathSample::lost` of the last ACK.
    lost: u32,
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
            marked_cwnd: CWND_MAX,
            lost: 0,
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

    /// §4.2.3.1, `BBRInflight`: `gain` times the product of bandwidth and round trip, and so much
    /// more that super-segments and delayed ACKs do not stop the sender. Where the product is a
    /// segment or two, that is most of it, and a probe for more bandwidth lasts until so much is
    /// under way: for a round trip alone it would be over before anything has changed.
    fn inflight(&self, gain: u64) -> u32 {
        let Some(min_rtt) = self.min_rtt else { return self.initial_cwnd };
        let bdp = u128::from(self.bw.get()) * min_rtt.as_nanos() / 1_000_000_000;
        let gained = (bdp * u128::from(gain) / u128::from(UNIT)).min(u128::from(CWND_MAX)) as u32;
        gained.saturating_add(3 * self.quantum())
    }

    /// §4.2.2: what leaves at once.
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
        if self.marked_cwnd < CWND_MAX {
            self.raise_marked_cwnd();
        }
        true
    }

    /// A round after the mark what may be in flight begins to grow, by a segment a round as RFC 5681
    /// has it, until it is all that the model wants.
    fn raise_marked_cwnd(&mut self) {
        self.marked_cwnd += self.mss;
        if self.marked_cwnd >= self.inflight(CWND_GAIN) {
            self.marked_cwnd = CWND_MAX;
        }
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
        let lost = d.lost.wrapping_sub(std::mem::replace(&mut self.lost, d.lost));
        let conserved = d.in_flight.saturating_add(d.newly.max(d.mss));
        match self.repair {
            // §4.2.3.4: a round of conservation begins.
            Repair::Entered => {
                (self.repair, self.round_end) = (Repair::Conserve, d.delivered);
                self.cwnd = conserved;
            }
            Repair::Conserve => self.cwnd = self.cwnd.saturating_sub(lost).max(conserved),
            Repair::Recovery => self.grow_cwnd(d, self.cwnd.saturating_sub(lost)),
            Repair::None | Repair::AfterTimeout => self.grow_cwnd(d, self.cwnd),
        }
        self.cwnd = self.cwnd.min(self.marked_cwnd).clamp(self.min_cwnd(), CWND_MAX);
        if self.mode == Mode::ProbeRtt {
            self.cwnd = self.cwnd.min(self.min_cwnd());
        }
    }

    /// §4.2.3.6: by what was delivered, up to what the model wants.
    fn grow_cwnd(&mut self, d: &PathSample, cwnd: u32) {
        let target = self.inflight(self.cwnd_gain());
        let grown = cwnd.saturating_add(d.newly);
        self.cwnd = if self.filled_pipe {
            grown.min(target)
        } else if cwnd < target || d.delivered < u64::from(self.initial_cwnd) {
            grown
        } else {
            cwnd
        };
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
        if self.bw.get() == 0 {
            // What was lost before it took over is another controller's.
            self.lost = d.lost;
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
        self.repair = Repair::Entered;
        self.mss = mss;
        let in_flight = in_flight.saturating_add(mss);
        self.cwnd = self.cwnd.min(in_flight).clamp(self.min_cwnd(), CWND_MAX);
    }

    /// Version 1 has no answer to marks, and RFC 3168 §5 asks for one: a sender that takes part in
    /// ECN and went on as if nothing had been said would drive the others out of the queue. What
    /// may be in flight is reduced as CUBIC's window is, and grows as Reno's, until marks no longer
    /// are what bounds it. STARTUP ends: its queue has reached a router that minds.
    fn on_mark(&mut self, _now: Instant, in_flight: u32, mss: u32) {
        self.mss = mss;
        self.filled_pipe = true;
        let in_flight = in_flight.min(self.marked_cwnd);
        self.marked_cwnd = reduced(in_flight, MARK_TENTHS, mss).max(self.min_cwnd());
        self.cwnd = self.cwnd.min(self.marked_cwnd);
    }

    fn on_recovered(&mut self, _now: Instant, _in_flight: u32, _resent: u32, _mss: u32) {
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
