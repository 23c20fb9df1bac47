//! Congestion control: how much may be in flight.
//!
//! ```text
//!   ACKs, losses, timeouts ──▶ Controller ──▶ cwnd, ssthresh ──▶ output
//! ```
//!
//! A [`Controller`] decides the window; *what* was lost and when recovery ends is `recovery`'s
//! business. Controllers are an enum: a connection stores its controller inline, and a call is a
//! branch, not a pointer.

mod newreno;

use std::time::Duration;

use super::Algorithm;
use crate::time::Instant;

use newreno::NewReno;

/// An ACK of new data, as controllers see it.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "NewReno counts bytes; controllers that model time need the rest")]
pub(crate) struct AckSample {
    /// Bytes that it acknowledged.
    pub(crate) acked: u32,
    /// When it arrived.
    pub(crate) now: Instant,
    /// The round trip that it measured.
    pub(crate) rtt: Option<Duration>,
    /// Bytes in flight before it.
    pub(crate) in_flight: u32,
    /// Payload of a full segment.
    pub(crate) mss: u32,
    /// The window, not the application or the peer, held sending back. RFC 5681 §4.1 and RFC 7661:
    /// a window that is not used must not grow.
    pub(crate) window_limited: bool,
    /// Data sent before a timeout is still being repaired.
    pub(crate) after_timeout: bool,
}

/// The controller of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Controller {
    NewReno(NewReno),
}

impl Controller {
    /// A controller that starts with `initial_window` bytes.
    pub(crate) fn new(algorithm: Algorithm, initial_window: u32) -> Controller {
        match algorithm {
            Algorithm::NewReno => Controller::NewReno(NewReno::new(initial_window)),
        }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Controller::NewReno(_) => Algorithm::NewReno,
        }
    }

    /// Bytes that may be in flight.
    pub(crate) fn cwnd(&self) -> u32 {
        match self {
            Controller::NewReno(c) => c.cwnd(),
        }
    }

    /// The window at which slow start ends.
    pub(crate) fn ssthresh(&self) -> u32 {
        match self {
            Controller::NewReno(c) => c.ssthresh(),
        }
    }

    /// New data was acknowledged outside fast recovery.
    pub(crate) fn on_ack(&mut self, sample: &AckSample) {
        match self {
            Controller::NewReno(c) => c.on_ack(sample),
        }
    }

    /// A loss was found while ACKs still arrive.
    pub(crate) fn on_loss(&mut self, _now: Instant, in_flight: u32, mss: u32) {
        match self {
            Controller::NewReno(c) => c.on_loss(in_flight, mss),
        }
    }

    /// Fast recovery has ended with `in_flight` bytes left.
    pub(crate) fn on_recovered(&mut self, _now: Instant, in_flight: u32, mss: u32) {
        match self {
            Controller::NewReno(c) => c.on_recovered(in_flight, mss),
        }
    }

    /// The retransmission timer expired; `first` unless this data had been retransmitted before.
    pub(crate) fn on_rto(&mut self, _now: Instant, in_flight: u32, mss: u32, first: bool) {
        match self {
            Controller::NewReno(c) => c.on_rto(in_flight, mss, first),
        }
    }

    /// Nothing was sent for longer than the retransmission timeout (RFC 5681 §4.1).
    pub(crate) fn on_idle(&mut self, restart_window: u32) {
        match self {
            Controller::NewReno(c) => c.on_idle(restart_window),
        }
    }

    /// The last loss or timeout was none: what it took away comes back (RFC 4015 §3.5).
    pub(crate) fn undo(&mut self) {
        match self {
            Controller::NewReno(c) => c.undo(),
        }
    }

    /// Recovery spreads the reduction of the window over a round trip (RFC 9937); otherwise the
    /// window of the controller holds during recovery, too.
    pub(crate) fn uses_prr(&self) -> bool {
        match self {
            Controller::NewReno(_) => true,
        }
    }
}
