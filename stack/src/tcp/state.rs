//! The states of a connection and the moves between them.
//!
//! RFC 9293 figure 5, as far as a socket can cause it (POSIX has no SEND on a listening socket):
//!
//! ```text
//!                              +---------+
//!                              |  CLOSED |
//!                              +---------+
//!          passive OPEN          |     ^       active OPEN: snd SYN
//!        +-----------------------+     |  CLOSE       +------------+
//!        V                             |  or timeout  V            |
//!   +---------+  rcv SYN: snd SYN,ACK  |            +---------+    |
//!   |  LISTEN |----------------+       +------------|SYN-SENT |<---+
//!   +---------+  rcv RST       |                    +---------+
//!        ^---------------------|-----+   rcv SYN:   |      |
//!                              V     |  snd SYN,ACK |      | rcv SYN,ACK
//!                          +----------+<------------+      | snd ACK
//!                          | SYN-RCVD |                    |
//!                          +----------+  rcv ACK of SYN    V
//!      CLOSE: snd FIN        |     +-------------->+-------------+
//!     +----------------------+     CLOSE: snd FIN  | ESTABLISHED |
//!     V                    +-----------------------+-------------+
//!   +------------+<--------+                  rcv FIN: snd ACK |
//!   | FIN-WAIT-1 |                                             V
//!   +------------+    rcv FIN: snd ACK                  +------------+
//!     | rcv ACK of FIN    |                             | CLOSE-WAIT |
//!     V                   V                             +------------+
//!   +------------+  +-----------+                CLOSE: snd FIN |
//!   | FIN-WAIT-2 |  |  CLOSING  |                               V
//!   +------------+  +-----------+                        +------------+
//!     | rcv FIN:          | rcv ACK of FIN               |  LAST-ACK  |
//!     | snd ACK           V                              +------------+
//!     |             +-----------+   2 MSL     +--------+        |
//!     +------------>| TIME-WAIT |------------>| CLOSED |<-------+ rcv ACK of FIN
//!                   +-----------+             +--------+
//! ```
//!
//! FIN-WAIT-1 goes straight to TIME-WAIT when one segment brings both the FIN and the ACK of ours.

use std::fmt;

/// A state of RFC 9293 §3.3.2; printed as the RFC names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// No connection.
    Closed,
    /// Waiting for a SYN. A listener's state; a `Tcb` is never in it.
    Listen,
    /// SYN sent, none received.
    SynSent,
    /// SYN sent and received, ours not acknowledged.
    SynReceived,
    /// Open both ways.
    Established,
    /// Closed here; the FIN is not acknowledged.
    FinWait1,
    /// Closed here and acknowledged; the peer may still send.
    FinWait2,
    /// The peer has closed; this side may still send.
    CloseWait,
    /// Both have closed at once; our FIN is not acknowledged.
    Closing,
    /// The peer closed first; our FIN is not acknowledged.
    LastAck,
    /// Closed both ways; old segments may still arrive.
    TimeWait,
}

impl State {
    /// True while the handshake of a connection has not ended.
    pub fn is_opening(self) -> bool {
        match self {
            State::SynSent | State::SynReceived => true,
            State::Closed
            | State::Listen
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => false,
        }
    }

    /// After the application's CLOSE or `shutdown` of writing (RFC 9293 §3.10.4).
    pub(crate) fn on_close(self) -> State {
        match self {
            State::Closed | State::Listen | State::SynSent => State::Closed,
            State::SynReceived | State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck
            | State::TimeWait => self,
        }
    }

    /// After the peer's FIN has been reached in sequence (RFC 9293 §3.10.7.4, eighth step). An ACK
    /// of our FIN in the same segment has been taken account of before.
    pub(crate) fn on_fin_received(self) -> State {
        match self {
            State::SynReceived | State::Established => State::CloseWait,
            State::FinWait1 => State::Closing,
            State::FinWait2 => State::TimeWait,
            State::Closed
            | State::Listen
            | State::SynSent
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => self,
        }
    }

    /// After the peer has acknowledged our FIN (RFC 9293 §3.10.7.4, fifth step).
    pub(crate) fn on_fin_acked(self) -> State {
        match self {
            State::FinWait1 => State::FinWait2,
            State::Closing => State::TimeWait,
            State::LastAck => State::Closed,
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait2
            | State::CloseWait
            | State::TimeWait => self,
        }
    }

    /// The peer may still send data that is wanted.
    pub(crate) fn can_receive(self) -> bool {
        match self {
            State::SynReceived | State::Established | State::FinWait1 | State::FinWait2 => true,
            State::Closed
            | State::Listen
            | State::SynSent
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => false,
        }
    }

    /// The application may still queue data.
    pub(crate) fn can_write(self) -> bool {
        match self {
            State::Established | State::CloseWait => true,
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck
            | State::TimeWait => false,
        }
    }

    /// Queued data and FIN may leave.
    pub(crate) fn can_transmit_data(self) -> bool {
        match self {
            State::Established
            | State::CloseWait
            | State::FinWait1
            | State::Closing
            | State::LastAck => true,
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::FinWait2
            | State::TimeWait => false,
        }
    }

    /// Both SYNs have been exchanged and the connection is not over: what keepalive watches.
    pub(crate) fn is_live(self) -> bool {
        match self {
            State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => true,
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::TimeWait => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Closed => "CLOSED",
            State::Listen => "LISTEN",
            State::SynSent => "SYN-SENT",
            State::SynReceived => "SYN-RECEIVED",
            State::Established => "ESTABLISHED",
            State::FinWait1 => "FIN-WAIT-1",
            State::FinWait2 => "FIN-WAIT-2",
            State::CloseWait => "CLOSE-WAIT",
            State::Closing => "CLOSING",
            State::LastAck => "LAST-ACK",
            State::TimeWait => "TIME-WAIT",
        })
    }
}
