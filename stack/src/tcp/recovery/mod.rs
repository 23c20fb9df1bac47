//! Finding losses and repairing them.
//!
//! ```text
//!               ┌── 3 duplicate ACKs ───▶ Fast ────┐
//!   Open ───────┤   (no SACK)                      ├── ACK of `recover` ──▶ Open
//!    │  ▲       └── RACK or RFC 6675 ──▶ Repair ───┤
//!    │  │           (SACK)                         │
//!    │  └── it was no loss: undo ── any of them    │
//!    └───── timeout, from any of them ─▶ Loss ─────┘
//! ```
//!
//! A peer without SACK gets fast retransmit, limited transmit and NewReno's fast recovery (RFC 5681
//! §3.2, RFC 3042, RFC 6582): that is here. With SACK the scoreboard in `records` says what is lost,
//! judged by time ([`Rack`], RFC 8985) or, with that turned off, by count (RFC 6675); [`Prr`] says
//! how much leaves meanwhile (RFC 9937); `judge` takes the decisions. After a timeout whatever is
//! lost is sent again in slow start (RFC 5681 §3.1, RFC 6298 §5.4), unless the ACKs tell that
//! nothing was (F-RTO, RFC 5682).
//!
//! Where silence would end in a timeout only, a probe asks first (RFC 8985 §7): the tail while all is
//! well, and the first missing segment while a loss is being repaired, if the timeout is far.
//!
//! The window itself is the congestion controller's. It is reduced once for the losses and the marks
//! of a window together (RFC 3168 §6.1.2).

mod judge;
mod prr;
mod rack;

use super::congestion::{CongestionControl, Controller};
use super::seq::SeqNum;
use crate::time::{Duration, Instant};

pub(in crate::tcp) use judge::{Advance, News};
use prr::Prr;
use rack::Rack;
pub(in crate::tcp) use rack::RackAtRest;

/// RFC 5681 §3.2: duplicate ACKs that mean a loss.
const DUP_ACK_THRESHOLD: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Fast recovery without SACK; `window` is the controller's, inflated by what has left the
    /// network.
    Fast {
        window: u32,
        partial_seen: bool,
    },
    /// Fast recovery with SACK.
    Repair(Prr),
    /// After a timeout, until what had been sent before it is acknowledged.
    Loss(Frto),
}

/// Was a timeout spurious? (RFC 5682 §3.1, and §2.1 without SACK)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frto {
    /// It was not, or nobody asks.
    Off,
    /// Step 2: the first ACK of something new will give a hint.
    Waiting,
    /// Step 3: new data is on its way; what comes back for it decides.
    Probing,
}

/// A probe that is out: of the tail (RFC 8985 §7), or of a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Probe {
    /// TLP.end_seq: of a recovery's probe the end of its segment.
    end: SeqNum,
    /// TLP.is_retrans.
    is_retransmission: bool,
    /// Something has arrived since.
    answered: bool,
}

/// What a recovery has sent again, to find out whether it had to.
#[derive(Clone, Copy, Debug)]
struct Episode {
    /// Where the first retransmission begins.
    first: SeqNum,
    /// The timestamp that it carried, were they in use (RFC 3522 §3.2, step 1).
    timestamp: u32,
    /// Bytes sent again and not reported as duplicates yet.
    unexplained: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovery {
    phase: Phase,
    /// RFC 6582: duplicate ACKs start a recovery only after an ACK of more than this. RFC 6675:
    /// RecoveryPoint.
    recover: SeqNum,
    dup_acks: u8,
    probe: Option<Probe>,
    episode: Option<Episode>,
    /// The window was reduced for a mark, too: it stays so, even if nothing was lost.
    for_mark: bool,
    rack: Rack,
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
    /// A mark has reduced the window already in which `una` was sent.
    pub(crate) answered: bool,
}

impl Flight {
    fn bytes(&self) -> u32 {
        self.nxt.since(self.una)
    }
}

impl Recovery {
    pub(crate) fn new(iss: SeqNum) -> Recovery {
        Recovery {
            phase: Phase::Open,
            // RFC 6582 §3.2: recover starts as the initial sequence number.
            recover: iss,
            dup_acks: 0,
            probe: None,
            episode: None,
            for_mark: false,
            rack: Rack::new(iss),
        }
    }

    /// The part that outlasts a rest, if there is nothing to repair. What was sent again last can
    /// no longer be told from its echoes.
    pub(in crate::tcp) fn to_rest(self) -> Option<RackAtRest> {
        let quiet = self.phase == Phase::Open && self.dup_acks == 0 && self.probe.is_none();
        quiet.then(|| self.rack.to_rest())
    }

    /// Goes on after a rest with everything up to `una` acknowledged.
    pub(in crate::tcp) fn from_rest(rest: RackAtRest, una: SeqNum) -> Recovery {
        Recovery { rack: Rack::from_rest(rest, una), ..Recovery::new(una - 1) }
    }

    /// No loss is being repaired or looked for.
    pub(crate) fn is_quiet(&self) -> bool {
        self.phase == Phase::Open
            && self.dup_acks == 0
            && self.probe.is_none()
            && self.episode.is_none()
    }

    /// The state by the kernel's number (`tcpi_ca_state`); `sacked` says that the peer has reported
    /// something behind a gap.
    pub(crate) fn ca_state(&self, sacked: bool) -> u8 {
        match self.phase {
            Phase::Open => u8::from(sacked || self.dup_acks > 0),
            Phase::Fast { .. } | Phase::Repair(_) => 3,
            Phase::Loss(_) => 4,
        }
    }

    /// Quarters of a round trip that RACK waits for what may be late.
    #[cfg(test)]
    pub(crate) fn reo_wnd_mult(&self) -> u8 {
        self.rack.reo_wnd_mult
    }

    /// The smallest round trip of the last minutes, where one was measured.
    pub(crate) fn min_rtt(&self) -> Option<Duration> {
        let ns = self.rack.min_rtt();
        (ns != u64::MAX).then(|| Duration::from_nanos(ns))
    }

    /// Data sent before a timeout is still being repaired.
    pub(crate) fn after_timeout(&self) -> bool {
        matches!(self.phase, Phase::Loss(_))
    }

    /// Bytes that may be sent with `pipe` in flight.
    pub(crate) fn room(&self, controller: &Controller, pipe: u32, mss: u32, sack: bool) -> u32 {
        let window = match self.phase {
            Phase::Fast { window, .. } => window,
            Phase::Repair(prr) if controller.uses_prr() => return prr.quota(),
            Phase::Repair(_) | Phase::Loss(_) => controller.cwnd(),
            // RFC 3042 §2: a new segment for each of the first two duplicate ACKs. With SACK the
            // pipe has become emptier by what they reported.
            Phase::Open if sack => controller.cwnd(),
            Phase::Open => controller.cwnd() + u32::from(self.dup_acks.min(2)) * mss,
        };
        window.saturating_sub(pipe)
    }

    /// F-RTO asks for new data before anything is sent again (RFC 5682 §3.1, step 2b): two segments
    /// of it. Gives how many bytes of them are still to go.
    pub(crate) fn new_data_first(&self, nxt: SeqNum, mss: u32) -> Option<u32> {
        match self.phase {
            Phase::Loss(Frto::Probing) => Some((2 * mss).saturating_sub(nxt.since(self.recover))),
            Phase::Open
            | Phase::Fast { .. }
            | Phase::Repair(_)
            | Phase::Loss(Frto::Off | Frto::Waiting) => None,
        }
    }

    /// What this recovery has sent again lies below `una`.
    fn repaired(&self, una: SeqNum) -> bool {
        self.episode.is_none_or(|e| una.after_eq(e.first + e.unexplained))
    }

    /// Bytes that this recovery has sent again, and not for nothing as far as is known.
    fn resent(&self) -> u32 {
        self.episode.map_or(0, |e| e.unexplained)
    }

    /// What had been sent when recovery began.
    pub(crate) fn recovery_point(&self) -> SeqNum {
        self.recover
    }

    /// `bytes` of new data were sent.
    pub(crate) fn on_sent(&mut self, bytes: u32) {
        if let Phase::Repair(prr) = &mut self.phase {
            prr.on_sent(bytes);
        }
    }

    /// `[start, start + bytes)` was sent again in a segment with this timestamp.
    pub(crate) fn on_resent(&mut self, start: SeqNum, bytes: u32, timestamp: u32) {
        match &mut self.phase {
            // A tail loss probe, or the answer to a repeated SYN.
            Phase::Open => return,
            Phase::Repair(prr) => prr.on_sent(bytes),
            // RFC 5682 §2.1, step 2b: no new data could leave to ask. What arrives now may be what
            // this repair makes the peer acknowledge.
            Phase::Loss(frto @ Frto::Probing) => *frto = Frto::Off,
            Phase::Fast { .. } | Phase::Loss(Frto::Off | Frto::Waiting) => {}
        }
        let episode =
            self.episode.get_or_insert(Episode { first: start, timestamp, unexplained: 0 });
        episode.unexplained = episode.unexplained.saturating_add(bytes);
    }

    // --- without SACK ----------------------------------------------------------------------------

    /// A duplicate ACK. True if the segment at snd.una is to be sent again.
    pub(crate) fn on_dup_ack(&mut self, now: Instant, f: &Flight, cc: &mut Controller) -> bool {
        match &mut self.phase {
            Phase::Fast { window, .. } => {
                // RFC 5681 §3.2 step 4: a segment has left the network.
                *window = window.saturating_add(f.mss).min(1 << 30);
                false
            }
            // Duplicates of what was sent again needlessly say nothing; with SACK its blocks do. But
            // they settle that the timeout was for a loss (RFC 5682 §2.1, steps 2a and 3a).
            Phase::Loss(frto) => {
                *frto = Frto::Off;
                false
            }
            Phase::Repair(_) => false,
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
                self.for_mark = f.answered;
                if !f.answered {
                    cc.on_loss(now, flight, f.mss);
                }
                // RFC 6582 §3.2 step 2, RFC 5681 §3.2 steps 2 and 3.
                self.recover = f.nxt;
                self.dup_acks = 0;
                self.episode = None;
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
            Phase::Open | Phase::Repair(_) => OnAck::Grow,
            Phase::Loss(_) => {
                if f.una.after_eq(self.recover) {
                    self.phase = Phase::Open;
                    self.episode = None;
                }
                OnAck::Grow
            }
            Phase::Fast { window, partial_seen } => {
                if f.una.after_eq(self.recover) {
                    // RFC 6582 §3.2 step 3, full acknowledgment.
                    let resent = self.resent();
                    self.phase = Phase::Open;
                    self.episode = None;
                    // Every segment that was sent again has been asked for by an ACK, so duplicate
                    // ACKs at `recover` itself are no echo of this recovery (RFC 6582 §4.1).
                    self.recover = f.una - 1;
                    cc.on_recovered(now, f.bytes(), resent, f.mss);
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

    // --- both ------------------------------------------------------------------------------------

    /// What has reduced the window was not only a loss.
    pub(in crate::tcp) fn keep_reduction(&mut self) {
        self.for_mark = true;
    }

    /// The retransmission timer has expired, or segments were too large for the path: the records
    /// say what is lost. `ask` whether it was a loss at all.
    pub(crate) fn on_timeout(&mut self, f: &Flight, ask: bool) {
        let frto = match self.phase {
            // RFC 5682 §3.1, step 1: retransmissions of an earlier recovery blur the answer.
            Phase::Open if ask => Frto::Waiting,
            Phase::Open | Phase::Fast { .. } | Phase::Repair(_) | Phase::Loss(_) => Frto::Off,
        };
        // RFC 6582 §3.2 step 4: no fast retransmit for what was sent before the timeout.
        self.recover = f.nxt;
        self.for_mark = f.answered || (self.after_timeout() && self.for_mark);
        self.dup_acks = 0;
        self.probe = None;
        if !self.after_timeout() {
            // RFC 3522 §3.2: of a repeated timeout the first retransmission still counts.
            self.episode = None;
        }
        self.phase = Phase::Loss(frto);
    }

    /// What was repaired had not been lost.
    pub(super) fn undo(&mut self, una: SeqNum) {
        if matches!(self.phase, Phase::Fast { .. } | Phase::Repair(_)) {
            // What was late once will be again: RACK must wait for it.
            self.rack.reordering_seen = true;
        }
        self.phase = Phase::Open;
        self.recover = una - 1;
        self.dup_acks = 0;
        self.probe = None;
        self.episode = None;
    }
}
