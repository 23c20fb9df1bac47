//! Explicit congestion notification (RFC 3168, as RFC 8311 leaves it to TCP without experiments).
//!
//! ```text
//!   sender ──ECT(0) data──▶ router ──CE──▶ receiver        the receiver echoes until it hears
//!     ▲                                       │            that the window was reduced
//!     └──────────────── ECE ◀─────────────────┘
//!   reduces once a window ──────── CWR ──────▶ stops
//! ```
//!
//! Agreed on in the handshake: SYN with ECE and CWR, SYN-ACK with ECE alone (§6.1.1). Only new data is
//! sent as ECN-capable; retransmissions, bare ACKs and window probes are not (§6.1.4 to §6.1.6).

use super::congestion::CongestionControl;
use super::seq::SeqNum;
use super::state::State;
use super::tcb::{Status, Tcb};
use crate::time::Instant;
use crate::wire::ipv4::Ecn;
use crate::wire::tcp::TcpFlags;

/// Whether a connection uses explicit congestion notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum EcnMode {
    /// Never.
    Off,
    /// If the peer asks for it.
    #[default]
    WhenAsked,
    /// It is asked for, too.
    Request,
}

/// ECE and CWR: what a SYN asks with.
pub(super) const SETUP: TcpFlags = TcpFlags::ECE.union(TcpFlags::CWR);

impl EcnMode {
    /// True if a SYN with these flags gets a SYN-ACK that agrees (§6.1.1).
    pub(super) fn agrees(self, syn: TcpFlags) -> bool {
        self != EcnMode::Off && syn.contains(SETUP)
    }
}

/// One connection's part.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EcnState {
    /// Both sides take part.
    pub(super) agreed: bool,
    /// A mark has arrived and the peer has not said that it has reduced: every ACK echoes it.
    echo: bool,
    /// The next new data tells that the window was reduced.
    cwr_due: bool,
    /// snd.nxt when the window was last reduced: marks of what was sent before are one event.
    reduced_at: SeqNum,
    /// It was a mark that reduced it then.
    by_mark: bool,
}

impl Tcb {
    /// What our SYN or SYN-ACK says. A SYN that has to be sent again no longer asks: something on
    /// the way may drop what asks (§6.1.1.1).
    pub(super) fn ecn_syn_flags(&self) -> TcpFlags {
        let lost = self.status.contains(Status::SYN_LOST);
        match self.state {
            State::SynSent if self.config.ecn == EcnMode::Request && !lost => SETUP,
            State::SynSent => TcpFlags::empty(),
            _ if self.ecn.agreed => TcpFlags::ECE,
            State::SynReceived
            | State::Closed
            | State::Listen
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => TcpFlags::empty(),
        }
    }

    /// The peer's SYN or SYN-ACK in SYN-SENT. A SYN-ACK with both flags is an echo of ours by a host
    /// that knows neither (§6.1.1).
    #[inline]
    pub(super) fn ecn_negotiate(&mut self, flags: TcpFlags) {
        let lost = self.status.contains(Status::SYN_LOST);
        let agreed = if flags.contains(TcpFlags::ACK) {
            self.config.ecn == EcnMode::Request && flags.intersection(SETUP) == TcpFlags::ECE
        } else {
            self.config.ecn.agrees(flags)
        };
        // §6.1.1: whoever has sent a SYN that did not ask is not to send ECN-capable data.
        self.ecn_agreed(agreed && !lost);
    }

    pub(super) fn ecn_agreed(&mut self, agreed: bool) {
        self.ecn = EcnState { agreed, reduced_at: self.snd.una, ..EcnState::default() };
    }

    // --- the receiver ----------------------------------------------------------------------------

    /// An acceptable segment with data has arrived (§6.1.3).
    pub(super) fn ecn_arrived(&mut self, mark: Ecn, flags: TcpFlags) {
        if !self.ecn.agreed {
            return;
        }
        if flags.contains(TcpFlags::CWR) {
            self.ecn.echo = false;
        }
        // The segment that tells of a reduction may itself be marked: that is a new event.
        if mark == Ecn::Ce {
            self.ecn.echo = true;
        }
    }

    /// No mark is to be echoed, and no reduction to be told of.
    #[inline]
    pub(super) fn ecn_has_nothing_to_tell(&self) -> bool {
        !self.ecn.echo && !self.ecn.cwr_due
    }

    /// ECE, if this ACK is to echo a mark.
    pub(super) fn ecn_echo(&self) -> TcpFlags {
        if self.ecn.echo { TcpFlags::ECE } else { TcpFlags::empty() }
    }

    // --- the sender ------------------------------------------------------------------------------

    /// True if this ACK echoes a mark: then the window must not grow by it (§6.1.2).
    pub(super) fn ecn_is_echo(&self, flags: TcpFlags) -> bool {
        self.ecn.agreed && flags.intersection(TcpFlags::ECE | TcpFlags::SYN) == TcpFlags::ECE
    }

    /// An ACK up to snd.una echoes a mark (§6.1.2): the window is reduced, once for all that was in
    /// flight when it was reduced last, by a mark or by a loss. `in_flight` were before this ACK.
    pub(super) fn ecn_take_echo(&mut self, now: Instant, in_flight: u32) {
        if self.snd.una.before_eq(self.ecn.reduced_at) {
            // Were the loss that reduced it found to be none, the mark would still ask for it.
            self.recovery.keep_reduction();
            return;
        }
        self.controller.on_mark(now, in_flight, self.mss());
        self.ecn_reduced();
        self.ecn.by_mark = true;
    }

    /// The window has been reduced, for whatever reason (§6.1.2): marks of what is in flight ask for
    /// nothing more, and the peer is told.
    pub(super) fn ecn_reduced(&mut self) {
        self.ecn.reduced_at = self.snd.nxt;
        self.ecn.cwr_due = self.ecn.agreed;
        self.ecn.by_mark = false;
    }

    /// A mark has already reduced the window in which snd.una was sent: a loss there asks for
    /// nothing more (§6.1.2: once for all drops and marks of a window).
    pub(super) fn ecn_answered(&self) -> bool {
        self.ecn.by_mark && self.snd.una.before(self.ecn.reduced_at)
    }

    /// The flags of new data: CWR once after a reduction. It stands in one wire segment (§6.1.2),
    /// and cards that cut super-segments may copy it into all: see [`Tcb::ecn_segment_max`].
    pub(super) fn ecn_data_flags(&mut self) -> TcpFlags {
        let due = std::mem::take(&mut self.ecn.cwr_due);
        if due { TcpFlags::CWR } else { TcpFlags::empty() }
    }

    /// Most bytes of new data to send at once: a single segment if it is to carry CWR.
    pub(super) fn ecn_segment_max(&self) -> u32 {
        if self.ecn.cwr_due { self.mss() } else { u32::MAX }
    }

    /// How new data is marked.
    pub(super) fn ecn_data_mark(&self) -> Ecn {
        if self.ecn.agreed { Ecn::Ect0 } else { Ecn::NotEct }
    }
}
