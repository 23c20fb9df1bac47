//! HyStart++ (RFC 9406): slow start that ends where the queue begins to grow, not where it overflows.
//!
//! ```text
//!   slow start ──the round's RTT has risen──▶ CSS ──5 rounds──▶ congestion avoidance
//!        ▲                                     │
//!        └──────── the RTT has fallen again ───┘          (CSS: conservative slow start)
//! ```
//!
//! §4.3: it is for the first slow start of a connection; later ones know ssthresh from a loss.

use std::time::Duration;

use super::AckSample;
use super::newreno::slow_start_step;
use crate::tcp::seq::SeqNum;

/// RFC 9406 §4.3, "Tuning Constants and Variables".
const MIN_RTT_THRESH: Duration = Duration::from_millis(4);
const MAX_RTT_THRESH: Duration = Duration::from_millis(16);
const MIN_RTT_DIVISOR: u32 = 8;
const N_RTT_SAMPLE: u8 = 8;
const CSS_GROWTH_DIVISOR: u32 = 4;
const CSS_ROUNDS: u8 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    SlowStart,
    /// Conservative slow start: rounds of it that are complete, and the RTT that it began with.
    Conservative {
        rounds: u8,
        baseline_us: u32,
    },
    /// It has ended, or a loss has ended it.
    Over,
}

/// What an ACK does to the window in slow start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// So many bytes are added.
    By(u32),
    /// So many bytes are added, and slow start ends.
    Last(u32),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct HyStart {
    phase: Phase,
    /// windowEnd: the round lasts until this is acknowledged; `None` before the first.
    window_end: Option<SeqNum>,
    /// lastRoundMinRTT and currentRoundMinRTT in microseconds; `u32::MAX` is infinity.
    last_min_us: u32,
    current_min_us: u32,
    samples: u8,
}

impl HyStart {
    pub(super) fn new() -> HyStart {
        HyStart {
            phase: Phase::SlowStart,
            window_end: None,
            last_min_us: u32::MAX,
            current_min_us: u32::MAX,
            samples: 0,
        }
    }

    /// Slow start, should there be another, is the standard one from now on.
    pub(super) fn stop(&mut self) {
        self.phase = Phase::Over;
    }

    /// Whether it has ended, or was stopped.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// An ACK in slow start that may let the window grow.
    pub(super) fn on_ack(&mut self, ack: &AckSample) -> Growth {
        let step = slow_start_step(ack);
        if self.phase == Phase::Over {
            return Growth::By(step);
        }
        let over = self.round_over(ack);
        self.sample(ack.rtt);
        match self.phase {
            Phase::Over => Growth::By(step),
            Phase::SlowStart => {
                if self.rtt_has_risen() {
                    self.phase =
                        Phase::Conservative { rounds: 0, baseline_us: self.current_min_us };
                }
                Growth::By(step)
            }
            Phase::Conservative { rounds, baseline_us } => {
                let step = step / CSS_GROWTH_DIVISOR;
                if self.samples >= N_RTT_SAMPLE && self.current_min_us < baseline_us {
                    // §4.2: the rise was spurious.
                    self.phase = Phase::SlowStart;
                    return Growth::By(step);
                }
                let rounds = rounds + u8::from(over);
                self.phase = Phase::Conservative { rounds, baseline_us };
                if rounds >= CSS_ROUNDS {
                    self.phase = Phase::Over;
                    return Growth::Last(step);
                }
                Growth::By(step)
            }
        }
    }

    /// Begins the next round if windowEnd is acknowledged; true if one has ended.
    fn round_over(&mut self, ack: &AckSample) -> bool {
        if self.window_end.is_some_and(|end| ack.una.before(end)) {
            return false;
        }
        let ended = self.window_end.replace(ack.nxt).is_some();
        (self.last_min_us, self.current_min_us) = (self.current_min_us, u32::MAX);
        self.samples = 0;
        ended
    }

    fn sample(&mut self, rtt: Option<Duration>) {
        let Some(rtt) = rtt else { return };
        let us = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX - 1);
        self.current_min_us = self.current_min_us.min(us);
        self.samples = self.samples.saturating_add(1);
    }

    fn rtt_has_risen(&self) -> bool {
        if self.samples < N_RTT_SAMPLE || self.last_min_us == u32::MAX {
            return false;
        }
        let thresh = (self.last_min_us / MIN_RTT_DIVISOR)
            .clamp(MIN_RTT_THRESH.as_micros() as u32, MAX_RTT_THRESH.as_micros() as u32);
        self.current_min_us >= self.last_min_us.saturating_add(thresh)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{MSS, ack};
    use super::*;

    #[test]
    fn a_loss_ends_it() {
        let mut h = HyStart::new();
        assert!(!h.is_over());
        h.stop();
        assert!(h.is_over());
        for (number, rtt_ms) in [(0, 40), (1, 40), (2, 80), (3, 80)] {
            assert_eq!(round(&mut h, number, rtt_ms), (Growth::By(MSS), 10 * MSS));
        }
    }

    /// Ten ACKs of a segment each in round `number`, with this round trip; what the last one gave
    /// and how many bytes all of them added.
    fn round(h: &mut HyStart, number: u32, rtt_ms: u64) -> (Growth, u32) {
        let (mut last, mut sum) = (Growth::By(0), 0);
        for i in 1..=10 {
            last = h.on_ack(&AckSample {
                rtt: Some(Duration::from_millis(rtt_ms)),
                una: SeqNum::new(10 * number + i),
                // What the first ACK of a round lets out is the end of that round.
                nxt: SeqNum::new(10 * number + 10 + i),
                ..ack(MSS, 10 * MSS)
            });
            let (Growth::By(n) | Growth::Last(n)) = last;
            sum += n;
        }
        (last, sum)
    }

    #[test]
    fn a_steady_round_trip_is_slow_start() {
        let mut h = HyStart::new();
        for number in 0..20 {
            // Less than MIN_RTT_THRESH more than 20 ms is no rise.
            assert_eq!(round(&mut h, number, 20 + u64::from(number % 2) * 3).1, 10 * MSS);
        }
    }

    #[test]
    fn five_rounds_after_the_round_trip_has_risen_slow_start_ends() {
        let mut h = HyStart::new();
        assert_eq!(round(&mut h, 0, 40).1, 10 * MSS);
        // The threshold is 40 / 8 = 5 ms; it takes eight samples to believe it.
        assert_eq!(round(&mut h, 1, 45).1, 8 * MSS + 2 * MSS / CSS_GROWTH_DIVISOR);
        for number in 2..6 {
            assert_eq!(round(&mut h, number, 50), (Growth::By(MSS / 4), 10 * MSS / 4));
        }
        // The first ACK of the next round completes the fifth.
        let ended = h.on_ack(&AckSample {
            una: SeqNum::new(61),
            nxt: SeqNum::new(71),
            ..ack(MSS, 10 * MSS)
        });
        assert_eq!(ended, Growth::Last(MSS / 4));
        assert_eq!(round(&mut h, 7, 40).1, 10 * MSS, "the next slow start is the standard one");
    }

    #[test]
    fn a_rise_that_passes_was_none() {
        let mut h = HyStart::new();
        round(&mut h, 0, 40);
        round(&mut h, 1, 45);
        assert_eq!(round(&mut h, 2, 50).1, 10 * MSS / 4);
        // Below the baseline of 45 ms, found with the eighth sample.
        assert_eq!(round(&mut h, 3, 44).1, 8 * MSS / 4 + 2 * MSS);
        assert_eq!(round(&mut h, 4, 44).1, 10 * MSS);
    }

    #[test]
    fn few_samples_say_nothing() {
        let mut h = HyStart::new();
        round(&mut h, 0, 20);
        for i in 0..7 {
            let growth = h.on_ack(&AckSample {
                rtt: Some(Duration::from_millis(80)),
                una: SeqNum::new(11 + i),
                nxt: SeqNum::new(40),
                ..ack(MSS, 10 * MSS)
            });
            assert_eq!(growth, Growth::By(MSS));
        }
    }
}
