//! The transmission control block: one connection.
//!
//! Four kinds of method, as everywhere in the stack:
//! - `handle_*` takes input: [`Tcb::handle_segment`], [`Tcb::handle_timeout`], [`Tcb::handle_icmp`];
//! - `poll_*` gives output: [`Tcb::poll_transmit`] until it answers `None`, then [`Tcb::poll_at`];
//! - calls of the application: `write`, `read`, `shutdown_write`, `close` and their kin;
//! - questions: `state`, `readiness`, `info`.
//!
//! After any of the first and third kind ask [`Tcb::wants_transmit`]; after [`Outcome::Closed`] and
//! [`Outcome::TimeWait`], too: a last RST or ACK may be waiting.

use std::hint::cold_path;

use std::rc::Rc;

use bitflags::bitflags;

use super::assembler::Assembler;
use super::autotune::{Tuning, recv_start};
use super::congestion::{CongestionControl, Controller};
use super::ecn::EcnState;
use super::fast_open::FastOpen;
use super::info::Tally;
use super::pacing::Pacer;
use super::path_mtu::PathMtu;
use super::ranges::Range;
use super::recovery::{Flight, Recovery};
use super::recvq::ReceiveQueue;
use super::rtt::Rtt;
use super::sendq::SendQueue;
use super::seq::{SeqNum, WindowScale};
use super::state::State;
use super::time_wait::TimeWait;
use super::timers::{Timer, Timers};
use super::{Cut, DropReason, Figures, Open, Outcome, TcpConfig};
use crate::SocketError;
use crate::hint::rarely;
use crate::time::{Duration, Instant, nanos};
use crate::wire::front::Front;
use crate::wire::tcp::{TcpOptions, Timestamps};

/// RFC 9293 §3.7.1: the segment size of a peer that announces none.
pub(crate) const MSS_DEFAULT: u16 = 536;

/// A peer that announces less is taken to have announced this: with a few bytes a segment it would
/// cost us more than it pays.
pub(crate) const MSS_MIN: u16 = 64;

/// Bytes of each segment that the timestamps option takes, padded.
const TIMESTAMPS_LEN: u16 = 12;

/// How long an idle connection keeps the memory of its empty queues.
pub(crate) const TRIM_AFTER: Duration = Duration::from_secs(1);

bitflags! {
    /// What the next `poll_transmit` calls have to send, new data aside.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Pending: u8 {
        /// RST; the state is CLOSED.
        const RST = 1 << 0;
        /// SYN, or SYN-ACK in SYN-RECEIVED.
        const SYN = 1 << 1;
        /// An ACK, alone or with data.
        const ACK = 1 << 2;
        /// The segment at snd.una, by fast retransmit.
        const FAST = 1 << 3;
        /// A zero-window probe.
        const PROBE = 1 << 4;
        /// A keepalive probe.
        const KEEPALIVE = 1 << 5;
        /// Whatever the window holds, SWS avoidance, Nagle and cork notwithstanding.
        const OVERRIDE = 1 << 6;
        /// A tail loss probe.
        const TAIL = 1 << 7;
    }

    /// What is true of a connection.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Status: u32 {
        /// Timestamps were agreed on.
        const TIMESTAMPS = 1 << 0;
        /// Window scaling was agreed on.
        const SCALING = 1 << 1;
        /// No data will be written any more: FIN follows what is queued.
        const FIN_QUEUED = 1 << 2;
        /// FIN is snd.nxt - 1.
        const FIN_SENT = 1 << 3;
        /// Our SYN was acknowledged; until then it is snd.una.
        const SYN_ACKED = 1 << 4;
        /// The application has let go.
        const APP_CLOSED = 1 << 5;
        /// The application reads no more: what arrives is acknowledged and discarded.
        const READ_SHUT = 1 << 6;
        /// The peer's FIN was reached.
        const EOF = 1 << 7;
        /// Something beyond snd.nxt was sent: a byte as a zero-window probe, or data with the SYN.
        const PROBED = 1 << 8;
        /// A SYN or SYN-ACK of ours had to be sent again.
        const SYN_LOST = 1 << 9;
        /// The congestion window was what held sending back last.
        const CWND_LIMITED = 1 << 10;
        /// As in the configuration; mirrored for the hot path.
        const NODELAY = 1 << 11;
        const CORK = 1 << 12;
        const USER_TIMEOUT = 1 << 13;
        const KEEPALIVE = 1 << 14;
        /// The last segment found packet memory scarce.
        const MEMORY_SCARCE = 1 << 15;
        /// SACK was agreed on.
        const SACK = 1 << 16;
        /// Data leaves at a rate: the configuration or the controller wants it so.
        const PACED = 1 << 17;
        /// Data came with the SYN of the side that opened, and was acknowledged (RFC 7413).
        const SYN_DATA = 1 << 18;
    }
}

/// What follows from the configuration and the controller that it names.
const MIRRORED: Status = Status::NODELAY
    .union(Status::CORK)
    .union(Status::USER_TIMEOUT)
    .union(Status::KEEPALIVE)
    .union(Status::PACED);

pub(super) fn mirrored(config: &TcpConfig, controller: &Controller) -> Status {
    let mut status = Status::empty();
    status.set(Status::NODELAY, config.nodelay);
    status.set(Status::CORK, config.cork);
    status.set(Status::USER_TIMEOUT, config.user_timeout.is_some());
    status.set(Status::KEEPALIVE, config.keepalive.is_some());
    status.set(Status::PACED, config.pacing || controller.pacing_rate().is_some());
    status
}

/// Send sequence variables (RFC 9293 §3.3.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Send {
    pub(super) una: SeqNum,
    pub(super) nxt: SeqNum,
    /// Scaled.
    pub(super) wnd: u32,
    /// The largest window that the peer ever offered.
    pub(super) max_wnd: u32,
    pub(super) wl1: SeqNum,
    pub(super) wl2: SeqNum,
    /// snd.nxt when the congestion window was full last.
    pub(super) full_at: SeqNum,
    /// End of the last segment that was sent smaller than the MSS (Nagle).
    pub(super) small_end: SeqNum,
    /// `SO_SNDBUF`, or what autotuning has made of it.
    pub(super) buffer: u32,
    /// Payload of a full segment.
    pub(super) mss: u16,
    /// What that is at most: what both ends have announced.
    pub(super) mss_limit: u16,
    /// The longest that is known to have arrived.
    pub(super) proven: u16,
    pub(super) scale: WindowScale,
}

/// Receive sequence variables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receive {
    pub(super) nxt: SeqNum,
    /// The right edge of the window as advertised: rcv.nxt + rcv.wnd.
    pub(super) edge: SeqNum,
    /// Last.ACK.sent of RFC 7323.
    pub(super) acked: SeqNum,
    /// `SO_RCVBUF`, or what autotuning has made of it.
    pub(super) buffer: u32,
    pub(super) tuning: Tuning,
    /// The MSS that we announced.
    pub(super) our_mss: u16,
    /// The largest wire segment that the peer has sent: what a full segment of its is.
    pub(super) peer_segment: u16,
    pub(super) scale: WindowScale,
    /// Data segments that are still to be acknowledged at once.
    pub(super) quick_acks: u8,
    /// Duplicate ACKs owed to the peer, one for each segment out of sequence.
    pub(super) dup_acks: u8,
    /// Something that arrived twice and is to be reported (RFC 2883).
    pub(super) dsack: Option<Range>,
}

impl Send {
    /// Nothing has been sent.
    #[inline(always)]
    pub(super) fn new(iss: SeqNum, mss: u16, buffer: u32) -> Send {
        Send {
            una: iss,
            nxt: iss,
            wnd: 0,
            max_wnd: 0,
            wl1: SeqNum::default(),
            wl2: iss,
            full_at: iss,
            small_end: iss,
            buffer,
            mss,
            mss_limit: mss,
            proven: 0,
            scale: WindowScale::NONE,
        }
    }
}

impl Receive {
    /// Bytes from RCV.NXT up to the edge of the window; less than none if that has been passed.
    #[inline(always)]
    pub(super) fn room(&self) -> i64 {
        i64::from(self.edge.get().wrapping_sub(self.nxt.get()) as i32)
    }

    /// Nothing has been received.
    #[inline(always)]
    pub(super) fn new(config: &TcpConfig, our_mss: u16) -> Receive {
        Receive {
            nxt: SeqNum::default(),
            edge: SeqNum::default(),
            acked: SeqNum::default(),
            buffer: recv_start(config),
            tuning: Tuning::default(),
            our_mss,
            peer_segment: MSS_DEFAULT.min(our_mss),
            // Fixed here: the SYN tells it, and what it told holds whatever the buffer becomes.
            scale: WindowScale::for_buffer(config.recv_buffer_bytes),
            quick_acks: config.quick_acks,
            dup_acks: 0,
            dsack: None,
        }
    }
}

/// Challenge ACKs in the current second (RFC 5961 §7).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Challenges {
    pub(super) second: u32,
    pub(super) sent: u16,
}

/// One connection.
#[derive(Debug)]
#[repr(C)]
pub struct Tcb {
    // What every segment and every transmission touches comes first.
    pub(super) state: State,
    pub(super) pending: Pending,
    /// Nothing unusual goes on: see `calm`.
    pub(super) calm: bool,
    pub(super) status: Status,
    pub(super) snd: Send,
    /// How long an ACK may wait, as in the configuration; mirrored for the hot path. RFC 9293 §3.8.6.3
    /// wants less than half a second: 4 s are enough to say so.
    pub(super) ack_delay_ns: u32,
    pub(super) rcv: Receive,
    pub(super) ts_recent: u32,
    pub(super) ts_offset: u32,
    /// While the connection is calm, its [still windows](Tcb::still_windows).
    pub(super) still: (u32, u32),
    pub(super) recovery: Recovery,
    pub(super) last_heard: Instant,
    pub(super) controller: Controller,
    pub(super) ecn: EcnState,
    pub(super) pacer: Pacer,
    /// Retransmissions of what is at snd.una.
    pub(super) retries: u8,
    /// Probes since the peer last answered.
    pub(super) probes: u8,
    /// Zero-window probes since the window closed: their interval doubles also while the peer
    /// answers (RFC 9293 §3.8.6.1).
    pub(super) persist_backoff: u8,
    /// The last write said that more is to come (`MSG_MORE`).
    pub(super) more_to_come: bool,
    /// Who cut the last transmission, and is expected to cut the next.
    pub(super) cut: Cut,
    pub(super) dropped: Option<DropReason>,
    pub(super) error: Option<SocketError>,
    /// RFC 5461: what a timeout is reported as.
    pub(super) soft_error: Option<SocketError>,
    pub(super) recvq: ReceiveQueue,
    pub(super) sendq: SendQueue,
    pub(super) assembler: Option<Box<Assembler>>,
    pub(super) timers: Timers,
    pub(super) rtt: Rtt,
    pub(super) config: Rc<TcpConfig>,
    pub(super) ts_recent_at: Instant,
    pub(super) last_sent: Instant,
    pub(super) bytes_acked: u64,
    pub(super) bytes_received: u64,
    pub(super) retransmissions: u32,
    /// Recoveries and timeouts that turned out to have been needless.
    pub(super) undone: u16,
    pub(super) tally: Tally,
    pub(super) challenges: Challenges,
    /// What is known of the path's MTU, once anything is.
    pub(super) path: Option<Box<PathMtu>>,
    /// Until the handshake has ended.
    pub(super) fast_open: Option<Box<FastOpen>>,
    /// The headers of small messages, kept by those who know the way that they take.
    pub(crate) front: Front,
}

/// The configuration's delay of ACKs, in nanoseconds: none if they are to be sent at once.
pub(super) fn ack_delay(config: &TcpConfig) -> u32 {
    if config.quick_ack {
        return 0;
    }
    u32::try_from(nanos(config.delayed_ack)).unwrap_or(u32::MAX)
}

/// The MSS to announce on a link that takes `our_mss`.
pub(super) fn announced_mss(our_mss: u16, config: &TcpConfig) -> u16 {
    our_mss.min(config.mss_max.unwrap_or(u16::MAX)).max(MSS_MIN)
}

/// Drops what is there, if anything is. Asked first: most connections never have it, and to drop
/// nothing is a call as well.
#[inline(always)]
pub(super) fn forget<T>(rare: &mut Option<Box<T>>) {
    if rarely(rare.is_some()) {
        *rare = None;
    }
}

/// The timestamp clock: one tick a millisecond (RFC 7323 §5.4), from the flow's own offset.
pub(super) fn ts_clock(now: Instant, offset: u32) -> u32 {
    (now.as_millis() as u32).wrapping_add(offset)
}

impl Tcb {
    /// An active open (RFC 9293 §3.10.1): SYN-SENT, the SYN ready to be polled.
    pub fn connect(config: Rc<TcpConfig>, open: Open, now: Instant) -> Tcb {
        let mut tcb = Tcb::new(config, open, now);
        tcb.begin_connect();
        tcb
    }

    /// The active open of a new block.
    pub(crate) fn begin_connect(&mut self) {
        self.state = State::SynSent;
        self.pending = Pending::SYN;
    }

    /// A block in CLOSED with nothing negotiated.
    pub(crate) fn new(config: Rc<TcpConfig>, open: Open, now: Instant) -> Tcb {
        let mut tcb = Tcb::hollow(Rc::clone(&config));
        tcb.renew(config, open, now);
        tcb
    }

    /// Takes over what the peer's SYN said.
    pub(super) fn negotiate(&mut self, irs: SeqNum, options: &TcpOptions, now: Instant) {
        self.rcv.nxt = irs + 1;
        self.rcv.acked = self.rcv.nxt;
        // RFC 7323 §2.2: the window of a SYN is not scaled, so this is what ours offered.
        self.rcv.edge = self.rcv.nxt + self.rcv.buffer.min(u32::from(u16::MAX));
        if let Some(shift) = options.window_scale
            && self.config.window_scale
        {
            self.status |= Status::SCALING;
            self.snd.scale = WindowScale::from_option(shift);
        } else {
            cold_path();
            self.rcv.scale = WindowScale::NONE;
        }
        if let Some(ts) = options.timestamps
            && self.config.timestamps
        {
            self.status |= Status::TIMESTAMPS;
            self.ts_recent = ts.val;
            self.ts_recent_at = now;
        }
        self.status.set(Status::SACK, options.sack_permitted && self.config.sack);
        let peer_mss = options.mss.unwrap_or(MSS_DEFAULT);
        let mss = peer_mss.min(self.rcv.our_mss).max(MSS_MIN);
        self.snd.mss = mss - self.options_len();
        self.snd.mss_limit = self.snd.mss;
        let window = self.initial_window();
        self.controller.renew(self.config.congestion, window);
    }

    /// Takes over a passive open whose SYN-ACK was first sent at `sent_at`.
    pub(super) fn passive_opened(
        &mut self,
        irs: SeqNum,
        window: u32,
        sent_at: Instant,
        deadline: Instant,
    ) {
        self.sendq.records.sent(self.snd.una, 1, self.mss(), sent_at);
        self.snd.nxt = self.snd.una + 1;
        (self.snd.wnd, self.snd.max_wnd, self.snd.wl1) = (window, window, irs);
        self.timers.set(Timer::Retransmit, deadline);
    }

    /// RFC 6928 §2, with the number of segments configurable.
    pub(super) fn initial_window(&self) -> u32 {
        let mss = u32::from(self.snd.mss);
        // RFC 5681 §3.1: one segment if the SYN or SYN-ACK was lost.
        if rarely(self.status.contains(Status::SYN_LOST)) {
            return mss;
        }
        let segments = u32::from(self.config.initial_window_segments.max(1));
        (segments * mss).min((2 * mss).max(segments * 1460))
    }

    /// Our SYN was acknowledged and the peer's has been received. An application that has closed
    /// meanwhile is in FIN-WAIT-1 already, and the connection needs all the rest like any other.
    pub(super) fn establish(&mut self, now: Instant) {
        if self.state.is_opening() {
            let closed = rarely(self.status.contains(Status::FIN_QUEUED));
            let open = State::Established;
            self.state = if closed { open.on_close() } else { open };
        }
        if rarely(self.status.contains(Status::SYN_LOST)) {
            self.rtt.after_lost_syn();
            self.controller = Controller::new(self.config.congestion, self.initial_window());
        }
        self.last_heard = now;
        self.tally.established(now);
        self.soft_error = None;
        self.begin_tuning(now);
        self.arm_keepalive();
        self.trim_later(now);
    }

    /// The state of the connection.
    pub fn state(&self) -> State {
        self.state
    }

    /// The settings.
    pub fn config(&self) -> &TcpConfig {
        &self.config
    }

    /// Changes settings of a live connection; others that share them keep theirs.
    pub fn update_config(&mut self, f: impl FnOnce(&mut TcpConfig)) {
        self.stir();
        f(Rc::make_mut(&mut self.config));
        self.mirror_config();
        if let Some(max) = self.config.mss_max {
            let max = max.max(MSS_MIN) - self.options_len();
            self.snd.mss = self.snd.mss.min(max);
            self.snd.mss_limit = self.snd.mss_limit.min(max);
        }
        self.arm_keepalive();
        self.arm_user_timeout();
        if self.acks_at_once() && self.timers.is_set(Timer::DelayedAck) {
            self.pending |= Pending::ACK;
        }
        if !self.status.contains(Status::CORK) {
            self.timers.clear(Timer::Cork);
        }
    }

    fn mirror_config(&mut self) {
        let since = self.last_sent;
        self.controller.switch_to(self.config.congestion, self.initial_window(), since);
        self.retune();
        self.ack_delay_ns = ack_delay(&self.config);
        self.rtt.mirror(&self.config);
        self.status = (self.status - MIRRORED) | mirrored(&self.config, &self.controller);
        if !self.status.contains(Status::PACED) {
            self.timers.clear(Timer::Pacing);
        }
    }

    pub(super) fn arm_keepalive(&mut self) {
        match self.config.keepalive {
            Some(k) if self.state.is_live() => {
                cold_path();
                self.timers.set(Timer::Keepalive, self.last_heard + k.idle);
            }
            _ => self.timers.clear(Timer::Keepalive),
        }
    }

    /// RFC 5482: the deadline of the oldest byte in flight.
    pub(super) fn arm_user_timeout(&mut self) {
        match (self.config.user_timeout, self.sendq.records.first()) {
            (Some(limit), Some(first)) => self.timers.set(Timer::User, first.first_sent + limit),
            _ => self.timers.clear(Timer::User),
        }
    }

    /// The next time that [`Tcb::handle_timeout`] has something to do.
    pub fn poll_at(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// A time before which [`Tcb::handle_timeout`] has nothing to do, pacing aside. Unlike
    /// [`Tcb::poll_at`] it costs no search, and may be too early after a deadline was cleared or
    /// postponed.
    #[inline]
    pub fn quiet_until(&self) -> Instant {
        self.timers.bound()
    }

    /// The number of the next byte in order, RCV.NXT.
    #[inline]
    pub(crate) fn next_expected(&self) -> u32 {
        self.rcv.nxt.get()
    }

    /// When paced data may leave that is held back now; a matter of microseconds.
    #[inline]
    pub fn paced_until(&self) -> Option<Instant> {
        let paced = rarely(self.timers.is_set(Timer::Pacing));
        if paced { Some(self.timers.get(Timer::Pacing)) } else { None }
    }

    /// Why a segment was dropped, once, if the last one was.
    pub fn take_drop(&mut self) -> Option<DropReason> {
        self.dropped.take()
    }

    /// The block of the connection in TIME-WAIT, if it is in that state: a listener's or the
    /// demultiplexer's entry for the 4-tuple from now on.
    pub fn time_wait(&self) -> Option<TimeWait> {
        let deadline = self.timers.get(Timer::Lifetime);
        (self.state == State::TimeWait).then(|| {
            let recent = self
                .status
                .contains(Status::TIMESTAMPS)
                .then_some(Timestamps { val: self.ts_offset, ecr: self.ts_recent });
            let (nxt, edge) = (self.rcv.nxt, self.rcv.edge);
            let window = self.rcv.scale.field_down(edge.since(nxt));
            let period = self.config.time_wait;
            TimeWait::new(self.snd.nxt, nxt, window, recent, deadline, period)
        })
    }

    /// Figures in bytes and spans of time.
    pub fn info(&self) -> Figures {
        Figures {
            state: self.state,
            srtt: self.rtt.srtt(),
            rttvar: self.rtt.rttvar(),
            rto: self.rtt.rto(),
            congestion: self.controller.algorithm(),
            cwnd_bytes: self.controller.cwnd(),
            ssthresh_bytes: self.controller.ssthresh(),
            snd_wnd_bytes: self.snd.wnd,
            rcv_wnd_bytes: self.rcv.edge.since(self.rcv.nxt),
            mss: self.snd.mss,
            in_flight_bytes: self.snd.nxt.since(self.snd.una),
            pacing_rate: self.pacing_rate(),
            min_rtt: self.sendq.records.rate.min_rtt(),
            delivered_bytes: self.sendq.records.rate.delivered(),
            ecn: self.ecn.agreed,
            retransmissions: self.retransmissions,
            bytes_acked: self.bytes_acked,
            bytes_received: self.bytes_received,
            pipe_bytes: self.pipe(),
            sacked_bytes: self.sendq.records.sacked(),
            lost_bytes: self.sendq.records.lost(),
            undone: self.undone,
            sack: self.has_sack(),
            timestamps: self.status.contains(Status::TIMESTAMPS),
            window_scales: self
                .status
                .contains(Status::SCALING)
                .then(|| (self.snd.scale.shift(), self.rcv.scale.shift())),
            pinned_bytes: self.recvq.pinned() + self.assembler.as_ref().map_or(0, |a| a.pinned()),
        }
    }

    /// Bytes of options in every segment.
    pub(super) fn options_len(&self) -> u16 {
        if self.status.contains(Status::TIMESTAMPS) { TIMESTAMPS_LEN } else { 0 }
    }

    pub(crate) fn mss(&self) -> u32 {
        u32::from(self.snd.mss)
    }

    pub(super) fn flight(&self) -> Flight {
        let (una, nxt) = (self.snd.una, self.snd.nxt);
        Flight { una, nxt, mss: self.mss(), answered: self.ecn_answered() }
    }

    /// The highest acknowledgment number that makes sense: a zero-window probe's byte and the data
    /// of a SYN included.
    pub(super) fn snd_max(&self) -> SeqNum {
        let beyond = rarely(self.status.contains(Status::PROBED));
        self.snd.nxt + if beyond { self.sent_beyond() } else { 0 }
    }

    pub(super) fn fin_acked(&self) -> bool {
        self.status.contains(Status::FIN_SENT) && self.snd.una == self.snd.nxt
    }

    /// Nothing more will be sent. The memory of the queue is of use to the next connection, if no
    /// application keeps this one.
    fn drop_unsent(&mut self) {
        if !self.sendq.is_cleared() {
            self.sendq.clear();
        }
        if !self.status.contains(Status::APP_CLOSED) {
            self.sendq.trim();
        }
    }

    /// Ends the connection without a word. What was received can still be read.
    pub(super) fn finish(&mut self) -> Outcome {
        self.state = State::Closed;
        self.stir();
        self.pending = Pending::empty();
        self.rcv.dup_acks = 0;
        self.drop_unsent();
        forget(&mut self.assembler);
        forget(&mut self.fast_open);
        self.timers = Timers::default();
        Outcome::Closed
    }

    /// Ends the connection with an error for the application, telling the peer nothing.
    pub fn fail(&mut self, error: SocketError) -> Outcome {
        self.error = Some(error);
        self.finish()
    }

    /// Ends the connection with RST; [`Tcb::poll_transmit`] gives it out.
    pub(super) fn reset_peer(&mut self) -> Outcome {
        let _ = self.finish();
        self.pending = Pending::RST;
        Outcome::Closed
    }

    pub(super) fn enter_time_wait(&mut self, now: Instant) -> Outcome {
        self.state = State::TimeWait;
        self.drop_unsent();
        forget(&mut self.assembler);
        self.timers = Timers::default();
        self.timers.set(Timer::Lifetime, now + self.config.time_wait);
        Outcome::TimeWait
    }
}
