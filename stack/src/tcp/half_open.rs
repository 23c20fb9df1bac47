//! A connection in SYN-RECEIVED that a listener's SYN made, in 56 bytes.
//!
//! ```text
//!   SYN ──▶ HalfOpen::new ──▶ syn_ack ──▶ … ACK ──▶ Establish ──▶ into_tcb ──▶ Tcb (same ACK again)
//!   ACK with a cookie ──▶ HalfOpen::from_cookie ─────────────────────┘
//! ```
//!
//! It holds numbers only: no queue, no timer, no packet memory. That is what a flood of SYNs costs.

use std::hint::cold_path;

use std::rc::Rc;

use super::input::older;
use super::seq::{SeqNum, WindowScale};
use super::state::State;
use super::tcb::{MSS_DEFAULT, Status, Tcb, announced_mss, ts_clock};
use super::{Open, Outcome, Segment, TcpConfig, autotune, cookie, reset_with_seq};
use crate::time::{Duration, Instant};
use crate::wire::tcp::{TcpFlags, TcpHeader, TcpOptions, Timestamps};

/// Least time between two answers to what does not complete the handshake. Two ends that disagree,
/// or someone who forges a client's segments, get no more than this out of one entry.
pub(super) const REPLY_INTERVAL: Duration = Duration::from_millis(500);

/// A half-open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfOpen {
    /// When the SYN-ACK was first sent: the start of the round trip that its ACK measures.
    sent_at: Instant,
    /// When it is to be sent again.
    deadline: Instant,
    iss: u32,
    irs: u32,
    ts_recent: u32,
    ts_offset: u32,
    /// What we announce.
    our_mss: u16,
    /// What the peer announced.
    peer_mss: u16,
    /// The peer's window, as in its SYN.
    window: u16,
    /// The peer's shift, if scaling was agreed on.
    window_scale: Option<u8>,
    /// Our shift; what the SYN-ACK told holds, however often the settings change.
    our_scale: WindowScale,
    retries: u8,
    timestamps: bool,
    sack: bool,
    /// Explicit congestion notification was agreed on (RFC 3168 §6.1.1).
    ecn: bool,
    /// When the SYN-ACK left is not known well enough for a round-trip sample without timestamps.
    untimed: bool,
    /// The handshake is complete, and `TCP_DEFER_ACCEPT` waits for data.
    deferred: bool,
    /// When a segment was last answered, in milliseconds modulo 2^32, once one was.
    replied_ms: Option<u32>,
}

/// What a segment does to a half-open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum HalfOpenOutcome {
    /// Nothing.
    Drop,
    /// Answer with this, ports left zero.
    Reply(TcpHeader),
    /// The handshake is complete: make it a `Tcb` and give that the same segment, or, when the
    /// accept queue is full, drop the segment.
    Establish,
    /// Forget it: the peer has reset it.
    Remove,
    /// Answer with this RST; the connection stays half open.
    Reset(TcpHeader),
    /// Nothing: it was answered less than half a second ago.
    Limited,
    /// Nothing yet: the handshake is complete, and the listener waits for data
    /// (`TCP_DEFER_ACCEPT`).
    Deferred,
}

/// What a half-open connection's deadline asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum HalfOpenTimeout {
    /// It is not due.
    NotYet,
    /// Send this SYN-ACK again, ports left zero.
    Resend(TcpHeader),
    /// The peer does not answer: forget it.
    GiveUp,
}

impl HalfOpen {
    /// LISTEN has got `syn` (RFC 9293 §3.10.7.2, third step). Send [`HalfOpen::syn_ack`].
    pub fn new(now: Instant, syn: &TcpHeader, config: &TcpConfig, open: Open) -> HalfOpen {
        let ts = syn.options.timestamps.filter(|_| config.timestamps);
        HalfOpen {
            sent_at: now,
            deadline: now + config.rto_initial,
            iss: open.iss,
            irs: syn.seq,
            ts_recent: ts.map_or(0, |ts| ts.val),
            ts_offset: open.ts_offset,
            our_mss: announced_mss(open.mss, config),
            peer_mss: syn.options.mss.unwrap_or(MSS_DEFAULT),
            window: syn.window,
            window_scale: syn.options.window_scale.filter(|_| config.window_scale),
            our_scale: WindowScale::for_buffer(config.recv_buffer_bytes),
            retries: 0,
            timestamps: ts.is_some(),
            sack: syn.options.sack_permitted && config.sack,
            ecn: config.ecn.agrees(syn.flags),
            untimed: false,
            deferred: false,
            replied_ms: None,
        }
    }

    /// The SYN-ACK that carries a cookie as its sequence number, `open.iss`, and of the SYN's options
    /// those that the cookie's timestamp remembers. Nothing is kept of it.
    pub fn cookie_syn_ack(
        now: Instant,
        syn: &TcpHeader,
        config: &TcpConfig,
        open: Open,
    ) -> TcpHeader {
        let syn = cookie::remembered(syn, config);
        let ts_offset = cookie::ts_offset(&syn, open.ts_offset, now);
        HalfOpen::new(now, &syn, config, Open { ts_offset, ..open }).syn_ack(now, config)
    }

    /// The half-open connection that a checked cookie stands for: `ack` is the segment that brought
    /// it, `mss` what [`cookie::check`] gave. `open.iss` must be `ack.ack - 1`. Give the
    /// segment to the `Tcb` made of it.
    pub fn from_cookie(
        now: Instant,
        ack: &TcpHeader,
        mss: u16,
        config: &TcpConfig,
        open: Open,
    ) -> HalfOpen {
        let (syn, age) = cookie::recall(ack, mss, config, open, now);
        let mut state = HalfOpen::new(now, &syn, config, open);
        let age = age.unwrap_or_default().as_millis() as u64;
        state.sent_at = Instant::from_millis(now.as_millis().saturating_sub(age));
        state.untimed = true;
        state
    }

    /// The SYN-ACK, ports left zero.
    pub fn syn_ack(&self, now: Instant, config: &TcpConfig) -> TcpHeader {
        let buffer = autotune::recv_start(config);
        let mut header = self.ack(now, config);
        header.seq = self.iss;
        header.flags |= TcpFlags::SYN;
        header.flags.set(TcpFlags::ECE, self.ecn);
        header.window = WindowScale::NONE.field_down(buffer);
        header.options.mss = Some(self.our_mss);
        header.options.window_scale = self.window_scale.map(|_| self.our_scale.shift());
        header.options.sack_permitted = self.sack;
        header
    }

    /// An ACK that tells where we are.
    fn ack(&self, now: Instant, config: &TcpConfig) -> TcpHeader {
        let scale = match self.window_scale {
            Some(_) => self.our_scale,
            None => WindowScale::NONE,
        };
        TcpHeader {
            seq: (SeqNum::new(self.iss) + 1).get(),
            ack: (SeqNum::new(self.irs) + 1).get(),
            flags: TcpFlags::ACK,
            window: scale.field_down(self.offered(config)),
            options: TcpOptions {
                timestamps: self.timestamps.then(|| Timestamps {
                    val: ts_clock(now, self.ts_offset),
                    ecr: self.ts_recent,
                }),
                ..TcpOptions::default()
            },
            ..TcpHeader::default()
        }
    }

    /// The window that the SYN-ACK offered.
    fn offered(&self, config: &TcpConfig) -> u32 {
        autotune::recv_start(config).min(u32::from(u16::MAX))
    }

    /// RFC 9293 §3.10.7.4 for SYN-RECEIVED after a passive open, as RFC 5961 amends it.
    pub fn handle_segment(
        &mut self,
        now: Instant,
        h: &TcpHeader,
        payload_len: u32,
        config: &TcpConfig,
    ) -> HalfOpenOutcome {
        let (seq, nxt) = (SeqNum::new(h.seq), SeqNum::new(self.irs) + 1);
        if self.is_completed_by(h, payload_len) && config.defer_accept.is_zero() {
            return HalfOpenOutcome::Establish;
        }
        let (syn, rst) = (h.flags.contains(TcpFlags::SYN), h.flags.contains(TcpFlags::RST));
        if syn && !rst && h.seq == self.irs && !h.flags.contains(TcpFlags::ACK) {
            // The SYN again: the SYN-ACK was lost, or is on its way. RFC 3168 §6.1.1.1: one that
            // no longer asks is the last word.
            self.ecn &= config.ecn.agrees(h.flags);
            let syn_ack = self.syn_ack(now, config);
            return self.reply(now, syn_ack);
        }
        if self.timestamps && !rst {
            // RFC 7323 §3.2 and §5.3, R1.
            match h.options.timestamps {
                None => return HalfOpenOutcome::Drop,
                Some(ts) if older(ts.val, self.ts_recent) => return self.challenge(now, config),
                Some(_) => {}
            }
        }
        // First, check the sequence number.
        if !self.is_acceptable(h, payload_len, config) {
            return if rst { HalfOpenOutcome::Drop } else { self.challenge(now, config) };
        }
        // Second, check the RST bit: back to LISTEN if it matches exactly, else a challenge (RFC
        // 5961 §3.2). Fourth, the SYN bit: a challenge (RFC 5961 §4.2).
        if rst && seq == nxt {
            return HalfOpenOutcome::Remove;
        }
        if rst || syn {
            return self.challenge(now, config);
        }
        // Fifth, check the ACK field.
        if !h.flags.contains(TcpFlags::ACK) {
            return HalfOpenOutcome::Drop;
        }
        if SeqNum::new(h.ack) != SeqNum::new(self.iss) + 1 {
            return HalfOpenOutcome::Reset(reset_with_seq(h.ack));
        }
        let brings_news = payload_len > 0 || h.flags.contains(TcpFlags::FIN);
        if !brings_news && now < self.sent_at + config.defer_accept {
            self.deferred = true;
            return HalfOpenOutcome::Deferred;
        }
        HalfOpenOutcome::Establish
    }

    /// Whether this is the ACK of our SYN-ACK and nothing else: one that passes every check below.
    #[inline(always)]
    fn is_completed_by(&self, h: &TcpHeader, payload_len: u32) -> bool {
        let in_order = match h.options.timestamps {
            Some(ts) => !self.timestamps || !older(ts.val, self.ts_recent),
            None => !self.timestamps,
        };
        h.flags == TcpFlags::ACK
            && payload_len == 0
            && h.seq == self.irs.wrapping_add(1)
            && h.ack == self.iss.wrapping_add(1)
            && in_order
    }

    /// RFC 9293 §3.4 for the window that the SYN-ACK offered.
    fn is_acceptable(&self, h: &TcpHeader, payload_len: u32, config: &TcpConfig) -> bool {
        let (seq, nxt) = (SeqNum::new(h.seq), SeqNum::new(self.irs) + 1);
        let edge = nxt + self.offered(config);
        let len = payload_len
            + u32::from(h.flags.contains(TcpFlags::SYN))
            + u32::from(h.flags.contains(TcpFlags::FIN));
        if len == 0 {
            // What a peer sends that has filled the window stands at its edge; an RST has to lie in
            // the window (RFC 5961 §3.2).
            let at_edge = seq == edge && !h.flags.contains(TcpFlags::RST);
            return seq.after_eq(nxt) && (seq.before(edge) || at_edge);
        }
        seq.before(edge) && (seq + len).after(nxt)
    }

    /// An ACK that tells the peer where we are.
    fn challenge(&mut self, now: Instant, config: &TcpConfig) -> HalfOpenOutcome {
        let ack = self.ack(now, config);
        self.reply(now, ack)
    }

    /// Answers, if the last answer is [`REPLY_INTERVAL`] ago.
    fn reply(&mut self, now: Instant, header: TcpHeader) -> HalfOpenOutcome {
        let now_ms = now.as_millis() as u32;
        let since = self.replied_ms.map(|last| now_ms.wrapping_sub(last));
        if since.is_some_and(|ms| u128::from(ms) < REPLY_INTERVAL.as_millis()) {
            return HalfOpenOutcome::Limited;
        }
        self.replied_ms = Some(now_ms);
        HalfOpenOutcome::Reply(header)
    }

    /// The time of the next [`HalfOpen::handle_timeout`].
    pub fn poll_at(&self) -> Instant {
        self.deadline
    }

    /// Sends the SYN-ACK again, at doubling intervals, or gives up.
    pub fn handle_timeout(&mut self, now: Instant, config: &TcpConfig) -> HalfOpenTimeout {
        if now < self.deadline {
            return HalfOpenTimeout::NotYet;
        }
        if self.deferred {
            let until = self.sent_at + config.defer_accept;
            if now < until {
                // The client has answered: nothing has to be sent again.
                self.deadline = until;
                return HalfOpenTimeout::NotYet;
            }
            // It has said nothing for too long: its next ACK is accepted, and this asks for it.
            (self.deferred, self.untimed) = (false, true);
            self.deadline = now + config.rto_initial;
            return HalfOpenTimeout::Resend(self.syn_ack(now, config));
        }
        if self.retries >= config.syn_ack_retries {
            return HalfOpenTimeout::GiveUp;
        }
        self.retries += 1;
        let wait = config.rto_initial.saturating_mul(1 << self.retries.min(16));
        self.deadline = now + wait.min(config.rto_max).max(Duration::from_millis(1));
        HalfOpenTimeout::Resend(self.syn_ack(now, config))
    }

    /// It is not given up yet, nor is anything sent meanwhile.
    pub(crate) fn wait_on(&mut self, now: Instant, config: &TcpConfig) {
        self.deadline = now + config.rto_max;
    }

    /// What it was opened with.
    pub(crate) fn open(&self) -> Open {
        Open { iss: self.iss, ts_offset: self.ts_offset, mss: self.our_mss }
    }

    /// The full block, still in SYN-RECEIVED: give it the segment that completed the handshake.
    pub fn into_tcb(self, now: Instant, config: Rc<TcpConfig>) -> Tcb {
        let mut tcb = Tcb::new(config, self.open(), now);
        self.complete(&mut tcb, now);
        tcb
    }

    /// Makes a new block, of [`HalfOpen::open`], this connection's, and gives it the segment that
    /// [`HalfOpen::handle_segment`] found to complete the handshake.
    pub(crate) fn establish(&self, tcb: &mut Tcb, now: Instant, segment: Segment<'_>) -> Outcome {
        let h = segment.header;
        let bare =
            h.flags == TcpFlags::ACK && segment.payload_len == 0 && h.options.sack.is_empty();
        let next = SeqNum::new(h.seq) == SeqNum::new(self.irs) + 1;
        if bare && next && self.retries == 0 && !self.untimed && !tcb.controller.models_path() {
            self.negotiated(tcb, now);
            tcb.open_plainly(now, h, u32::from(self.window), self.sent_at);
            return Outcome::Continue;
        }
        cold_path();
        self.complete(tcb, now);
        tcb.handle_unexpected(now, segment)
    }

    /// Makes a new block, of [`HalfOpen::open`], this connection's.
    fn complete(&self, tcb: &mut Tcb, now: Instant) {
        self.negotiated(tcb, now);
        let (irs, window) = (SeqNum::new(self.irs), u32::from(self.window));
        tcb.passive_opened(irs, window, self.sent_at, self.deadline);
        if self.retries > 0 || self.untimed {
            tcb.sendq.records.resent(SeqNum::new(self.iss), 1, self.sent_at, false);
        }
    }

    /// What the two SYNs have said.
    fn negotiated(&self, tcb: &mut Tcb, now: Instant) {
        tcb.state = State::SynReceived;
        tcb.rcv.scale = self.our_scale;
        tcb.status.set(Status::SYN_LOST, self.retries > 0);
        let options = TcpOptions {
            mss: Some(self.peer_mss),
            window_scale: self.window_scale,
            sack_permitted: self.sack,
            timestamps: self.timestamps.then_some(Timestamps { val: self.ts_recent, ecr: 0 }),
            ..TcpOptions::default()
        };
        tcb.negotiate(SeqNum::new(self.irs), &options, now);
        tcb.ecn_agreed(self.ecn);
    }
}
