//! Finding losses without selective acknowledgments: fast retransmit and NewReno's fast recovery
//! (RFC 5681 §3.2, RFC 6582), limited transmit (RFC 3042), and going back after a timeout
//! (RFC 5681 §3.1, RFC 6298 §5.4).
//!
//! ```text
//!   Open ──3 duplicate ACKs──▶ Fast ──ACK of `recover`──▶ Open
//!     └──── timeout ──▶ GoBack ◀── timeout ──┘
//!                         └── everything sent before has been sent again or acknowledged ──▶ Open
//! ```
//!
//! It decides what to send again and how far the window is inflated meanwhile; the window itself is
//! the congestion controller's.

use super::congestion::{CongestionControl, Controller};
use super::seq::SeqNum;
use crate::time::Instant;

/// RFC 5681 §3.2: duplicate ACKs that mean a loss.
const DUP_ACK_THRESHOLD: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Fast recovery; `window` is the controller's, inflated by what has left the network.
    Fast {
        window: u32,
        partial_seen: bool,
    },
    /// After a timeout: everything from `next` up to snd.nxt counts as lost.
    GoBack {
        next: SeqNum,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovery {
    phase: Phase,
    /// RFC 6582: duplicate ACKs start a recovery only after an ACK of more than this.
    recover: SeqNum,
    dup_acks: u8,
}

/// What an ACK of new data asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnAck {
    /// The controller may grow its window.
    Grow,
    /// A partial ACK: send the segment at snd.una again.
    Resend {
        /// RFC 6582 §3.2 step 3: only the first one restarts the retransmission timer.
        restart_timer: bool,
    },
    /// Fast recovery has ended.
    Recovered,
}

/// What both the window and the decision depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    pub(crate) una: SeqNum,
    pub(crate) nxt: SeqNum,
    pub(crate) mss: u32,
}

impl Flight {
    fn bytes(&self) -> u32 {
        self.nxt.since(self.una)
    }
}

impl Recovery {
    pub(crate) fn new(iss: SeqNum) -> Recovery {
        // RFC 6582 §3.2: recover starts as the initial sequence number.
        Recovery { phase: Phase::Open, recover: iss, dup_acks: 0 }
    }

    /// No loss is being repaired and no duplicate ACK has been seen.
    pub(crate) fn is_quiet(&self) -> bool {
        self.phase == Phase::Open && self.dup_acks == 0
    }

    pub(crate) fn after_timeout(&self) -> bool {
        matches!(self.phase, Phase::GoBack { .. })
    }

    /// Where sending again goes on after a timeout.
    pub(crate) fn resend_from(&self) -> Option<SeqNum> {
        match self.phase {
            Phase::Open | Phase::Fast { .. } => None,
            Phase::GoBack { next } => Some(next),
        }
    }

    /// Bytes that may be in flight.
    pub(crate) fn window(&self, controller: &Controller, mss: u32) -> u32 {
        match self.phase {
            Phase::Fast { window, .. } => window,
            Phase::GoBack { .. } => controller.cwnd(),
            // RFC 3042 §2: a new segment for each of the first two duplicate ACKs.
            Phase::Open => controller.cwnd() + u32::from(self.dup_acks.min(2)) * mss,
        }
    }

    /// A duplicate ACK. True if the segment at snd.una is to be sent again.
    pub(crate) fn on_dup_ack(&mut self, now: Instant, f: &Flight, cc: &mut Controller) -> bool {
        match &mut self.phase {
            Phase::Fast { window, .. } => {
                // RFC 5681 §3.2 step 4: a segment has left the network.
                *window = window.saturating_add(f.mss).min(1 << 30);
                false
            }
            // Duplicates of what was sent again needlessly say nothing.
            Phase::GoBack { .. } => false,
            Phase::Open => {
                self.dup_acks = self.dup_acks.saturating_add(1);
                if self.dup_acks < DUP_ACK_THRESHOLD || !f.una.after(self.recover) {
                    return false;
                }
                // RFC 3042 §2: what limited transmit sent does not count in FlightSize.
                let limited = u32::from(DUP_ACK_THRESHOLD - 1) * f.mss;
                let cwnd = cc.cwnd();
                let flight = if f.bytes() > cwnd {
                    f.bytes().saturating_sub(limited).max(cwnd)
                } else {
                    f.bytes()
                };
                cc.on_loss(now, flight, f.mss);
                // RFC 6582 §3.2 step 2, RFC 5681 §3.2 steps 2 and 3.
                self.recover = f.nxt;
                self.dup_acks = 0;
                let window = cc.ssthresh() + u32::from(DUP_ACK_THRESHOLD) * f.mss;
                self.phase = Phase::Fast { window, partial_seen: false };
                true
            }
        }
    }

    /// An ACK moved snd.una forward by `acked`, to `f.una`.
    pub(crate) fn on_ack(
        &mut self,
        now: Instant,
        acked: u32,
        f: &Flight,
        cc: &mut Controller,
    ) -> OnAck {
        self.dup_acks = 0;
        match &mut self.phase {
            Phase::Open => OnAck::Grow,
            Phase::GoBack { next } => {
                *next = next.later(f.una);
                if next.after_eq(f.nxt) {
                    self.phase = Phase::Open;
                }
                OnAck::Grow
            }
            Phase::Fast { window, partial_seen } => {
                if f.una.after_eq(self.recover) {
                    // RFC 6582 §3.2 step 3, full acknowledgment.
                    self.phase = Phase::Open;
                    // Every segment that was sent again has been asked for by an ACK, so duplicate
                    // ACKs at `recover` itself are no echo of this recovery (RFC 6582 §4.1).
                    self.recover = f.una - 1;
                    cc.on_recovered(now, f.bytes(), f.mss);
                    return OnAck::Recovered;
                }
                // RFC 6582 §3.2 step 3, partial acknowledgment: deflate by what was acknowledged,
                // and by one segment less if that was one or more.
                *window = window.saturating_sub(acked);
                if acked >= f.mss {
                    *window += f.mss;
                }
                *window = (*window).max(f.mss);
                let restart_timer = !*partial_seen;
                *partial_seen = true;
                OnAck::Resend { restart_timer }
            }
        }
    }

    /// Everything in flight counts as lost: the retransmission timer has expired, or segments were
    /// too large for the path.
    pub(crate) fn on_timeout(&mut self, f: &Flight) {
        // RFC 6582 §3.2 step 4: no fast retransmit for what was sent before the timeout.
        self.recover = f.nxt;
        self.dup_acks = 0;
        self.phase = Phase::GoBack { next: f.una };
    }

    /// `[.., to)` has been sent again.
    pub(crate) fn resent(&mut self, to: SeqNum, nxt: SeqNum) {
        if let Phase::GoBack { next } = &mut self.phase {
            *next = next.later(to);
            if next.after_eq(nxt) {
                self.phase = Phase::Open;
            }
        }
    }
}
