//! Congestion control: how much may be in flight, and how fast it may leave.
//!
//! ```text
//!   ACKs, losses, marks, timeouts ──▶ Controller ──▶ cwnd, ssthresh, pacing rate ──▶ output
//!   delivery rate samples (`rate`) ──┘
//! ```
//!
//! Every controller is a [`CongestionControl`]; *what* was lost and when recovery ends is
//! `recovery`'s business. [`Controller`] is an enum of them, so that a call is a branch and not a
//! pointer, and a connection can change its controller while it lives.

mod algorithm;
mod bbr;
mod cubic;
mod hystart;
mod max_filter;
mod newreno;
mod validation;

use std::time::Duration;

use super::rate::PathSample;
use super::seq::SeqNum;
use crate::time::Instant;

pub use algorithm::{Algorithm, UnknownAlgorithm};

use bbr::Bbr;
use cubic::{Cubic, CubicAtRest};
use newreno::NewReno;
use validation::Validation;

/// No window that TCP can advertise is larger (RFC 7323 §2.3).
const CWND_MAX: u32 = 1 << 30;

/// L of RFC 3465 in slow start. That RFC allows 2; RFC 9406 §4.2 has since found 8 safe for senders
/// without pacing, and receivers that join segments answer dozens of them with one ACK.
const ABC_LIMIT_SEGMENTS: u32 = 8;

/// An ACK of new data outside fast recovery, as controllers see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AckSample {
    /// Bytes that it acknowledged.
    pub(crate) acked: u32,
    /// snd.una after it.
    pub(crate) una: SeqNum,
    /// snd.nxt.
    pub(crate) nxt: SeqNum,
    /// When it arrived.
    pub(crate) now: Instant,
    /// The round trip that it measured.
    pub(crate) rtt: Option<Duration>,
    /// The smoothed round trip, zero before the first measurement.
    pub(crate) srtt: Duration,
    /// Bytes in flight before it.
    pub(crate) in_flight: u32,
    /// Bytes that were delivered within the round trip that it ends (RFC 7661 §4.2, a sample of
    /// pipeACK).
    pub(crate) piped: u32,
    /// Payload of a full segment.
    pub(crate) mss: u32,
    /// The window, not the application or the peer, held sending back: one that is not used must not
    /// grow.
    pub(crate) window_limited: bool,
    /// Data sent before a timeout is still being repaired.
    pub(crate) after_timeout: bool,
}

/// An ACK that may leave the window as it is: of an [`AckSample`] what counts then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noted {
    pub(crate) now: Instant,
    /// `snd.una` before it.
    pub(crate) una: SeqNum,
    /// As in [`AckSample`].
    pub(crate) in_flight: u32,
    pub(crate) piped: u32,
    /// The smoothed round trip, or zero.
    pub(crate) srtt_ns: u64,
}

/// What a congestion controller is.
///
/// All sizes are bytes. A method that a controller has no use for does nothing.
pub(crate) trait CongestionControl {
    /// Bytes that may be in flight.
    fn cwnd(&self) -> u32;

    /// The window at which slow start ends.
    fn ssthresh(&self) -> u32;

    /// New data was acknowledged outside fast recovery.
    fn on_ack(&mut self, ack: &AckSample);

    /// An ACK, in recovery or not, says that data has arrived, in order or not.
    fn on_delivery(&mut self, _delivery: &PathSample) {}

    /// A loss was found while ACKs still arrive: fast recovery begins.
    fn on_loss(&mut self, now: Instant, in_flight: u32, mss: u32);

    /// The peer has echoed a congestion mark (RFC 3168 §6.1.2): as a loss, without anything lost.
    fn on_mark(&mut self, now: Instant, in_flight: u32, mss: u32);

    /// Fast recovery has ended with `in_flight` bytes left; `resent` bytes had been lost.
    fn on_recovered(&mut self, now: Instant, in_flight: u32, resent: u32, mss: u32);

    /// The retransmission timer expired; `first` unless this data had been retransmitted before.
    fn on_rto(&mut self, now: Instant, in_flight: u32, mss: u32, first: bool);

    /// Sending begins again with nothing in flight. `restart_window` is given if that lasted for
    /// more than a retransmission timeout (RFC 5681 §4.1).
    fn on_idle(&mut self, now: Instant, restart_window: Option<u32>);

    /// The same after so long a time, if the window is to stay what it was.
    fn on_long_idle(&mut self, _now: Instant) {}

    /// The last loss or timeout was none: takes back what it did (RFC 4015 §3.2).
    fn undo(&mut self);

    /// Bytes a second at which data should leave, if the controller has an opinion.
    fn pacing_rate(&self) -> Option<u64> {
        None
    }

    /// The window in recovery is PRR's (RFC 6937) and ends at ssthresh; a controller that answers
    /// no says by `cwnd` what may be in flight in recovery, too.
    fn uses_prr(&self) -> bool {
        true
    }

    /// It sends less than the path takes, to learn something: rates seen now show its restraint,
    /// and count as the application's.
    fn holds_back(&self) -> bool {
        false
    }
}

/// The controller of one connection. BBR's state is several times the others' and would make every
/// connection larger, so it lies beside the connection; who uses it pays for one allocation.
#[derive(Clone, Debug)]
pub(crate) enum Controller {
    NewReno(NewReno),
    Cubic(Cubic),
    Bbr(Box<Bbr>),
}

/// What is kept of a controller while its connection is at rest.
#[derive(Clone, Debug)]
pub(crate) enum ControllerAtRest {
    NewReno { cwnd: u32, ssthresh: u32, over_s: u32 },
    Cubic(CubicAtRest),
    Bbr(Box<Bbr>),
}

/// Calls a method of whichever controller it is.
macro_rules! each {
    ($self:expr, $c:ident => $call:expr) => {
        match $self {
            Controller::NewReno($c) => $call,
            Controller::Cubic($c) => $call,
            Controller::Bbr($c) => $call,
        }
    };
}

impl Controller {
    /// A controller that starts with `initial_window` bytes.
    pub(crate) fn new(algorithm: Algorithm, initial_window: u32) -> Controller {
        match algorithm {
            Algorithm::NewReno => Controller::NewReno(NewReno::new(initial_window)),
            Algorithm::Cubic => Controller::Cubic(Cubic::new(initial_window)),
            Algorithm::Bbr => Controller::Bbr(Box::new(Bbr::new(initial_window))),
        }
    }

    /// As [`Controller::new`], in place: nothing is freed and moved where the algorithm is the same.
    #[inline(always)]
    pub(crate) fn renew(&mut self, algorithm: Algorithm, initial_window: u32) {
        match (&mut *self, algorithm) {
            (Controller::NewReno(c), Algorithm::NewReno) => *c = NewReno::new(initial_window),
            (Controller::Cubic(c), Algorithm::Cubic) => *c = Cubic::new(initial_window),
            (Controller::NewReno(_) | Controller::Cubic(_) | Controller::Bbr(_), _) => {
                self.replace(algorithm, initial_window);
            }
        }
    }

    #[cold]
    fn replace(&mut self, algorithm: Algorithm, initial_window: u32) {
        *self = Controller::new(algorithm, initial_window);
    }

    /// The part that outlasts a rest.
    pub(crate) fn to_rest(&self) -> ControllerAtRest {
        match self {
            Controller::NewReno(c) => c.to_rest(),
            Controller::Cubic(c) => ControllerAtRest::Cubic(c.to_rest()),
            Controller::Bbr(c) => ControllerAtRest::Bbr(c.clone()),
        }
    }

    /// Goes on after a rest.
    pub(crate) fn from_rest(rest: ControllerAtRest, initial_window: u32) -> Controller {
        match rest {
            ControllerAtRest::NewReno { cwnd, ssthresh, over_s } => {
                let validation = Validation::from_rest(initial_window, over_s);
                let mut c = NewReno::new(cwnd);
                c.continue_at(ssthresh, validation);
                Controller::NewReno(c)
            }
            ControllerAtRest::Cubic(rest) => {
                Controller::Cubic(Cubic::from_rest(rest, initial_window))
            }
            ControllerAtRest::Bbr(c) => Controller::Bbr(c),
        }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Controller::NewReno(_) => Algorithm::NewReno,
            Controller::Cubic(_) => Algorithm::Cubic,
            Controller::Bbr(_) => Algorithm::Bbr,
        }
    }

    /// It wants to be told of every delivery ([`CongestionControl::on_delivery`]).
    #[inline]
    pub(crate) fn models_path(&self) -> bool {
        match self {
            Controller::NewReno(_) | Controller::Cubic(_) => false,
            Controller::Bbr(_) => true,
        }
    }

    /// As [`CongestionControl::on_ack`] of an ACK outside of recovery, while the window was not what
    /// held sending back, if it is not used enough to grow: true then, otherwise nothing is done.
    #[inline(always)]
    pub(crate) fn notes(&mut self, ack: &Noted) -> bool {
        match self {
            Controller::Cubic(c) => c.notes(ack),
            Controller::NewReno(_) | Controller::Bbr(_) => false,
        }
    }

    /// As [`CongestionControl::on_idle`] after a short time.
    #[inline]
    pub(crate) fn resume(&mut self, now: Instant) {
        // The usual one is asked for first: to tell all apart at once takes longer.
        if let Controller::Cubic(c) = self {
            return c.resume(now);
        }
        match self {
            Controller::NewReno(_) | Controller::Cubic(_) => {}
            Controller::Bbr(c) => c.on_idle(now, None),
        }
    }

    /// Another algorithm goes on from here. Windows are kept, so that a change in the middle of a
    /// transfer is no burst; what one has learnt of the path in its own terms is not another's.
    pub(crate) fn switch_to(&mut self, algorithm: Algorithm, initial_window: u32, now: Instant) {
        if algorithm == self.algorithm() {
            return;
        }
        let (cwnd, ssthresh) = (self.cwnd(), self.ssthresh());
        *self = Controller::new(algorithm, cwnd);
        let validation = Validation::new(initial_window, now);
        match self {
            Controller::NewReno(c) => c.continue_at(ssthresh, validation),
            Controller::Cubic(c) => c.continue_at(ssthresh, validation),
            // It finds out by itself whether the pipe is full.
            Controller::Bbr(_) => {}
        }
    }
}

impl CongestionControl for Controller {
    fn cwnd(&self) -> u32 {
        each!(self, c => c.cwnd())
    }

    fn ssthresh(&self) -> u32 {
        each!(self, c => c.ssthresh())
    }

    fn on_ack(&mut self, ack: &AckSample) {
        each!(self, c => c.on_ack(ack));
    }

    fn on_delivery(&mut self, delivery: &PathSample) {
        each!(self, c => c.on_delivery(delivery));
    }

    fn on_loss(&mut self, now: Instant, in_flight: u32, mss: u32) {
        each!(self, c => c.on_loss(now, in_flight, mss));
    }

    fn on_mark(&mut self, now: Instant, in_flight: u32, mss: u32) {
        each!(self, c => c.on_mark(now, in_flight, mss));
    }

    fn on_recovered(&mut self, now: Instant, in_flight: u32, resent: u32, mss: u32) {
        each!(self, c => c.on_recovered(now, in_flight, resent, mss));
    }

    fn on_rto(&mut self, now: Instant, in_flight: u32, mss: u32, first: bool) {
        each!(self, c => c.on_rto(now, in_flight, mss, first));
    }

    fn on_idle(&mut self, now: Instant, restart_window: Option<u32>) {
        each!(self, c => c.on_idle(now, restart_window));
    }

    fn on_long_idle(&mut self, now: Instant) {
        each!(self, c => c.on_long_idle(now));
    }

    fn undo(&mut self) {
        each!(self, c => c.undo());
    }

    fn pacing_rate(&self) -> Option<u64> {
        each!(self, c => c.pacing_rate())
    }

    fn uses_prr(&self) -> bool {
        each!(self, c => c.uses_prr())
    }

    fn holds_back(&self) -> bool {
        each!(self, c => c.holds_back())
    }
}

/// RFC 5681 equation 4 and its kin: some tenths of what was in flight, at least two segments.
fn reduced(in_flight: u32, tenths: u32, mss: u32) -> u32 {
    let part = u64::from(in_flight) * u64::from(tenths) / 10;
    (part.min(u64::from(CWND_MAX)) as u32).max(2 * mss)
}

#[cfg(test)]
mod tests;
