//! A connection in SYN-RECEIVED that a listener's SYN made, in 48 bytes.
//!
//! ```text
//!   SYN ──▶ HalfOpen::new ──▶ syn_ack ──▶ … ACK ──▶ Establish ──▶ into_tcb ──▶ Tcb (same ACK again)
//!   ACK with a cookie ──▶ HalfOpen::from_cookie ─────────────────────┘
//! ```
//!
//! It holds numbers only: no queue, no timer, no packet memory. That is what a flood of SYNs costs.

use std::rc::Rc;

use super::input::older;
use super::seq::{SeqNum, WindowScale};
use super::state::State;
use super::tcb::{MSS_DEFAULT, Status, Tcb, announced_mss, ts_clock};
use super::{Open, TcpConfig, reset_with_seq};
use crate::time::{Duration, Instant};
use crate::wire::tcp::{TcpFlags, TcpHeader, TcpOptions, Timestamps};

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
    /// Explicit congestion notification was agreed on (RFC 3168 §6.1.1).
    ecn: bool,
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
            ecn: config.ecn.agrees(syn.flags),
        }
    }

    /// The half-open connection that a checked cookie stands for: `ack` is the segment that brought
    /// it, `mss` what [`super::cookie::check`] gave. `open.iss` must be `ack.ack - 1`. Give the
    /// segment to the `Tcb` made of it.
    pub fn from_cookie(
        now: Instant,
        ack: &TcpHeader,
        mss: u16,
        config: &TcpConfig,
        open: Open,
    ) -> HalfOpen {
        let syn = TcpHeader {
            seq: (SeqNum::new(ack.seq) - 1).get(),
            window: ack.window,
            options: TcpOptions { mss: Some(mss), ..TcpOptions::default() },
            ..TcpHeader::default()
        };
        HalfOpen::new(now, &syn, config, open)
    }

    /// The SYN-ACK, ports left zero.
    pub fn syn_ack(&self, now: Instant, config: &TcpConfig) -> TcpHeader {
        let buffer = config.recv_buffer_bytes;
        let mut header = self.ack(now, config);
        header.seq = self.iss;
        header.flags |= TcpFlags::SYN;
        header.flags.set(TcpFlags::ECE, self.ecn);
        header.window = WindowScale::NONE.field_down(buffer);
        header.options.mss = Some(self.our_mss);
        header.options.window_scale = self.window_scale.map(|_| self.our_scale.shift());
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
        config.recv_buffer_bytes.min(u32::from(u16::MAX))
    }

    /// RFC 9293 §3.10.7.4 for SYN-RECEIVED after a passive open, as RFC 5961 amends it.
    pub fn handle_segment(
        &mut self,
        now: Instant,
        h: &TcpHeader,
        payload_len: u32,
        config: &TcpConfig,
    ) -> HalfOpenOutcome {
        let (syn, rst) = (h.flags.contains(TcpFlags::SYN), h.flags.contains(TcpFlags::RST));
        let (seq, nxt) = (SeqNum::new(h.seq), SeqNum::new(self.irs) + 1);
        let edge = nxt + self.offered(config);
        if syn && !rst && h.seq == self.irs && !h.flags.contains(TcpFlags::ACK) {
            // The SYN again: the SYN-ACK was lost, or is on its way. RFC 3168 §6.1.1.1: one that
            // no longer asks is the last word.
            self.ecn &= config.ecn.agrees(h.flags);
            return HalfOpenOutcome::Reply(self.syn_ack(now, config));
        }
        if self.timestamps && !rst {
            // RFC 7323 §3.2 and §5.3, R1.
            match h.options.timestamps {
                None => return HalfOpenOutcome::Drop,
                Some(ts) if older(ts.val, self.ts_recent) => {
                    return HalfOpenOutcome::Reply(self.ack(now, config));
                }
                Some(_) => {}
            }
        }
        // First, check the sequence number.
        let len = payload_len + u32::from(syn) + u32::from(h.flags.contains(TcpFlags::FIN));
        let acceptable = if len == 0 {
            seq.after_eq(nxt) && seq.before_eq(edge)
        } else {
            seq.before(edge) && (seq + len).after(nxt)
        };
        if !acceptable {
            return if rst {
                HalfOpenOutcome::Drop
            } else {
                HalfOpenOutcome::Reply(self.ack(now, config))
            };
        }
        // Second, the RST bit: back to LISTEN if it matches exactly, else a challenge (RFC 5961
        // §3.2). Fourth, the SYN bit: a challenge (RFC 5961 §4.2).
        if rst && seq == nxt {
            return HalfOpenOutcome::Remove;
        }
        if rst || syn {
            return HalfOpenOutcome::Reply(self.ack(now, config));
        }
        // Fifth, check the ACK field.
        if !h.flags.contains(TcpFlags::ACK) {
            return HalfOpenOutcome::Drop;
        }
        if SeqNum::new(h.ack) != SeqNum::new(self.iss) + 1 {
            return HalfOpenOutcome::Reset(reset_with_seq(h.ack));
        }
        HalfOpenOutcome::Establish
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
        if self.retries >= config.syn_ack_retries {
            return HalfOpenTimeout::GiveUp;
        }
        self.retries += 1;
        let wait = config.rto_initial.saturating_mul(1 << self.retries.min(16));
        self.deadline = now + wait.min(config.rto_max).max(Duration::from_millis(1));
        HalfOpenTimeout::Resend(self.syn_ack(now, config))
    }

    /// The full block, still in SYN-RECEIVED: give it the segment that completed the handshake.
    pub fn into_tcb(self, now: Instant, config: Rc<TcpConfig>) -> Tcb {
        let open = Open { iss: self.iss, ts_offset: self.ts_offset, mss: self.our_mss };
        let mut tcb = Tcb::new(config, open, now);
        tcb.state = State::SynReceived;
        tcb.rcv.scale = self.our_scale;
        tcb.status.set(Status::SYN_LOST, self.retries > 0);
        let options = TcpOptions {
            mss: Some(self.peer_mss),
            window_scale: self.window_scale,
            timestamps: self.timestamps.then_some(Timestamps { val: self.ts_recent, ecr: 0 }),
            ..TcpOptions::default()
        };
        let irs = SeqNum::new(self.irs);
        tcb.negotiate(irs, &options, now);
        tcb.ecn_agreed(self.ecn);
        tcb.passive_opened(irs, u32::from(self.window), self.sent_at, self.deadline);
        if self.retries > 0 {
            tcb.sendq.record_resent(SeqNum::new(self.iss), 1, self.sent_at);
        }
        tcb
    }
}
