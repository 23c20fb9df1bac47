//! A connection at rest: a million of them that say nothing should not take the memory of a million
//! that do.
//!
//! ```text
//!   Tcb ──── nothing under way, nothing heard or sent for a second ────▶ AtRest
//!    ◀─── a segment, a deadline, or a call that changes something ─────────┘
//! ```
//!
//! Left out is what is empty then (queues, scoreboard, deadlines), what follows from the rest
//! (`snd.nxt` is `snd.una`), and what a second of silence has made worthless (when the last segments
//! were sent and delivered, the undo of an old recovery, the count of challenge ACKs in the current
//! second). What has been learnt of the path stays: round trips, the window, reordering, the MTU.

use std::rc::Rc;

use super::congestion::{Controller, ControllerAtRest};
use super::ecn::EcnState;
use super::info::Tally;
use super::path_mtu::PathMtu;
use super::rate::{RateAtRest, RateEstimator};
use super::recovery::{RackAtRest, Recovery};
use super::rtt::{Rtt, RttAtRest};
use super::seq::{SeqNum, WindowScale};
use super::state::State;
use super::tcb::{Pending, Receive, Send, Status, Tcb};
use super::timers::Timer;
use super::{Open, TcpConfig};
use crate::time::Instant;

/// Statuses that a connection in ESTABLISHED may have at rest.
const RESTFUL: Status = Status::TIMESTAMPS
    .union(Status::SCALING)
    .union(Status::SYN_ACKED)
    .union(Status::SYN_LOST)
    .union(Status::CWND_LIMITED)
    .union(Status::NODELAY)
    .union(Status::CORK)
    .union(Status::USER_TIMEOUT)
    .union(Status::KEEPALIVE)
    .union(Status::MEMORY_SCARCE)
    .union(Status::SACK)
    .union(Status::PACED)
    .union(Status::SYN_DATA);

/// What a connection in ESTABLISHED is while nothing happens.
#[derive(Clone, Debug)]
pub(crate) struct AtRest {
    config: Rc<TcpConfig>,
    controller: ControllerAtRest,
    path: Option<Box<PathMtu>>,
    tally: Tally,
    rate: RateAtRest,
    last_heard: Instant,
    last_sent: Instant,
    bytes_acked: u64,
    bytes_received: u64,
    rack: RackAtRest,
    rtt: RttAtRest,
    ecn: EcnState,
    status: Status,
    una: SeqNum,
    snd_wnd: u32,
    max_wnd: u32,
    snd_buffer: u32,
    rcv_nxt: SeqNum,
    rcv_edge: SeqNum,
    rcv_buffer: u32,
    ts_recent: u32,
    ts_offset: u32,
    retransmissions: u32,
    undone: u16,
    mss: u16,
    mss_limit: u16,
    proven: u16,
    our_mss: u16,
    peer_segment: u16,
    snd_scale: WindowScale,
    rcv_scale: WindowScale,
    quick_acks: u8,
}

impl AtRest {
    /// What the connection was set up with.
    pub(crate) fn config(&self) -> &TcpConfig {
        &self.config
    }
}

impl Tcb {
    /// True if [`Tcb::to_rest`] would give something, were it asked: cheap, and false for nearly
    /// every connection that is not idle.
    pub(crate) fn may_rest(&self, now: Instant) -> bool {
        self.state == State::Established && now >= self.idle_at()
    }

    /// What remains of the connection while nothing happens; `None` if something is under way.
    pub(crate) fn to_rest(&self) -> Option<AtRest> {
        let rack = self.recovery.to_rest()?;
        if !self.is_still() {
            return None;
        }
        let Send { una, wnd, max_wnd, buffer, mss, mss_limit, proven, scale, .. } = self.snd;
        Some(AtRest {
            config: Rc::clone(&self.config),
            controller: self.controller.to_rest(),
            path: self.path.clone(),
            tally: self.tally,
            rate: self.sendq.records.rate.to_rest(),
            last_heard: self.last_heard,
            last_sent: self.last_sent,
            bytes_acked: self.bytes_acked,
            bytes_received: self.bytes_received,
            rack,
            rtt: self.rtt.to_rest(),
            ecn: self.ecn,
            status: self.status,
            una,
            snd_wnd: wnd,
            max_wnd,
            snd_buffer: buffer,
            rcv_nxt: self.rcv.nxt,
            rcv_edge: self.rcv.edge,
            rcv_buffer: self.rcv.buffer,
            ts_recent: self.ts_recent,
            ts_offset: self.ts_offset,
            retransmissions: self.retransmissions,
            undone: self.undone,
            mss,
            mss_limit,
            proven,
            our_mss: self.rcv.our_mss,
            peer_segment: self.rcv.peer_segment,
            snd_scale: scale,
            rcv_scale: self.rcv.scale,
            quick_acks: self.rcv.quick_acks,
        })
    }

    /// Nothing is queued, in flight, owed to the peer or to the application, or waited for but a
    /// keepalive's time.
    fn is_still(&self) -> bool {
        let sent = self.snd.una == self.snd.nxt && self.sendq.is_spotless();
        let received = self.recvq.is_empty() && self.assembler.is_none();
        let owed = self.pending != Pending::empty()
            || self.rcv.acked != self.rcv.nxt
            || self.rcv.dup_acks > 0
            || self.rcv.dsack.is_some();
        let errors = self.error.or(self.soft_error).is_some() || self.dropped.is_some();
        let tries = self.retries > 0
            || self.probes > 0
            || self.persist_backoff > 0
            || self.rtt.backoff() > 0;
        self.state == State::Established
            && (self.status - RESTFUL).is_empty()
            && sent
            && received
            && !(owed || errors || tries || self.more_to_come)
            && self.fast_open.is_none()
            && self.timers.none_but(Timer::Keepalive)
    }

    /// Goes on after a rest.
    pub(crate) fn from_rest(rest: AtRest) -> Tcb {
        let open = Open { iss: rest.una.get(), ts_offset: rest.ts_offset, mss: rest.our_mss };
        let mut tcb = Tcb::new(rest.config, open, rest.last_heard);
        tcb.state = State::Established;
        tcb.status = rest.status;
        tcb.snd = Send {
            wnd: rest.snd_wnd,
            max_wnd: rest.max_wnd,
            // RFC 9293 §3.10.7.4: whatever comes next is no older than this, and than snd.wl2, which
            // is snd.una in a new block.
            wl1: rest.rcv_nxt,
            buffer: rest.snd_buffer,
            mss: rest.mss,
            mss_limit: rest.mss_limit,
            proven: rest.proven,
            scale: rest.snd_scale,
            ..tcb.snd
        };
        tcb.rcv = Receive {
            nxt: rest.rcv_nxt,
            edge: rest.rcv_edge,
            acked: rest.rcv_nxt,
            buffer: rest.rcv_buffer,
            our_mss: rest.our_mss,
            peer_segment: rest.peer_segment,
            scale: rest.rcv_scale,
            quick_acks: rest.quick_acks,
            ..tcb.rcv
        };
        // The last segment that was heard is at most an ACK younger than the timestamp kept.
        (tcb.ts_recent, tcb.ts_recent_at) = (rest.ts_recent, rest.last_heard);
        tcb.recovery = Recovery::from_rest(rest.rack, rest.una);
        tcb.controller = Controller::from_rest(rest.controller, tcb.initial_window());
        tcb.ecn = rest.ecn;
        tcb.sendq.records.rate = RateEstimator::from_rest(rest.rate);
        tcb.rtt = Rtt::from_rest(rest.rtt, &tcb.config);
        tcb.last_sent = rest.last_sent;
        (tcb.bytes_acked, tcb.bytes_received) = (rest.bytes_acked, rest.bytes_received);
        (tcb.retransmissions, tcb.undone) = (rest.retransmissions, rest.undone);
        (tcb.tally, tcb.path) = (rest.tally, rest.path);
        tcb.begin_tuning(rest.last_heard);
        tcb.arm_keepalive();
        // Whoever has woken it may leave it as it was.
        tcb.timers.set(Timer::Trim, tcb.idle_at());
        tcb
    }
}

#[cfg(test)]
#[path = "tests/rest.rs"]
mod tests;
