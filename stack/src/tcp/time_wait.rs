//! A connection in TIME-WAIT, in 32 bytes.
//!
//! It keeps old segments out of a new connection of the same 4-tuple and answers a repeated FIN,
//! whose ACK was lost (RFC 9293 §3.6). RSTs are ignored, against RFC 9293 and with RFC 1337 §3
//! (F1): one provoked by an old duplicate would end TIME-WAIT early and let the next one through.

use super::half_open::REPLY_INTERVAL;
use super::input::older;
use super::seq::SeqNum;
use super::tcb::ts_clock;
use crate::time::{Duration, Instant};
use crate::wire::tcp::{TcpFlags, TcpHeader, TcpOptions, Timestamps};

/// What is left of a connection: numbers to compare with, and a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeWait {
    snd_nxt: u32,
    rcv_nxt: u32,
    ts_recent: u32,
    ts_offset: u32,
    /// Milliseconds since the clock's origin, modulo 2^32: compared on the circle.
    deadline_ms: u32,
    /// 2 MSL in units of [`PERIOD_UNIT_MS`].
    period: u16,
    /// The window field that the ACK of the FIN carried.
    window: u16,
    timestamps: bool,
    /// When a segment was last answered, in milliseconds modulo 2^32; before the first answer, long
    /// enough ago.
    replied_ms: u32,
}

/// 2 MSL of up to 17 minutes fit.
const PERIOD_UNIT_MS: u64 = 16;

/// What a segment does to a connection in TIME-WAIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum TimeWaitOutcome {
    /// Nothing.
    Drop,
    /// Answer with this ACK, ports left zero. The deadline may have moved.
    Ack(TcpHeader),
    /// Nothing: it was answered less than half a second ago.
    Limited,
    /// A new connection may take its place (RFC 6191, RFC 9293 §3.10.7.4): give the SYN to the
    /// listener, and choose an initial sequence number after this one.
    Reuse {
        /// The next one that the old connection would have used.
        iss_above: u32,
    },
    /// Its time is over: treat the segment as one for no connection.
    Remove,
}

impl TimeWait {
    /// `timestamps` are our clock's offset and TS.Recent, if they were agreed on; `period` is 2 MSL
    /// and began no later than now.
    pub(super) fn new(
        snd_nxt: SeqNum,
        rcv_nxt: SeqNum,
        window: u16,
        timestamps: Option<Timestamps>,
        deadline: Instant,
        period: Duration,
    ) -> TimeWait {
        let ts = timestamps.unwrap_or_default();
        let deadline_ms = deadline.as_nanos().div_ceil(1_000_000) as u32;
        // Two milliseconds more than would do for exact times: both are rounded.
        let long_ago = (period + REPLY_INTERVAL + Duration::from_millis(2)).as_millis() as u32;
        let period = (period.as_millis() as u64).div_ceil(PERIOD_UNIT_MS);
        TimeWait {
            snd_nxt: snd_nxt.get(),
            rcv_nxt: rcv_nxt.get(),
            ts_recent: ts.ecr,
            ts_offset: ts.val,
            deadline_ms,
            period: u16::try_from(period).unwrap_or(u16::MAX),
            window,
            timestamps: timestamps.is_some(),
            replied_ms: deadline_ms.wrapping_sub(long_ago),
        }
    }

    /// When it ends. `now` tells which turn of the millisecond clock is meant; it may be up to 24
    /// days from the deadline.
    pub fn deadline(&self, now: Instant) -> Instant {
        let left = self.deadline_ms.wrapping_sub(now.as_millis() as u32) as i32;
        Instant::from_millis(now.as_millis().saturating_add_signed(i64::from(left)))
    }

    /// Takes a segment (RFC 9293 §3.10.7.4, TIME-WAIT).
    pub fn handle_segment(
        &mut self,
        now: Instant,
        h: &TcpHeader,
        payload_len: u32,
    ) -> TimeWaitOutcome {
        if self.deadline(now) <= now {
            return TimeWaitOutcome::Remove;
        }
        if h.flags.contains(TcpFlags::RST) {
            return TimeWaitOutcome::Drop;
        }
        let syn = h.flags.contains(TcpFlags::SYN);
        if syn && !h.flags.contains(TcpFlags::ACK) && self.is_newer(h) {
            return TimeWaitOutcome::Reuse { iss_above: self.snd_nxt };
        }
        if !syn && !h.flags.contains(TcpFlags::ACK) {
            // Fifth step: "if the ACK bit is off, drop the segment".
            return TimeWaitOutcome::Drop;
        }
        let fin = h.flags.contains(TcpFlags::FIN);
        if fin && !syn {
            // "The only thing that can arrive in this state is a retransmission of the remote FIN.
            // Acknowledge it, and restart the 2 MSL timeout."
            let end = SeqNum::new(h.seq) + payload_len + 1;
            if end == SeqNum::new(self.rcv_nxt) {
                let period = Duration::from_millis(u64::from(self.period) * PERIOD_UNIT_MS);
                self.deadline_ms = (now + period).as_millis() as u32;
                self.note_timestamp(h);
            }
        }
        let empty = payload_len == 0 && !fin && !syn;
        if empty && h.seq == self.rcv_nxt {
            // An ACK as good as any: nothing is to be told.
            self.note_timestamp(h);
            return TimeWaitOutcome::Drop;
        }
        self.answer(now)
    }

    /// RFC 7323 §4.3, of a segment that the peer can have sent last: a SYN must be newer than that
    /// (RFC 6191 §2).
    fn note_timestamp(&mut self, h: &TcpHeader) {
        if let Some(ts) = h.options.timestamps
            && self.timestamps
            && !older(ts.val, self.ts_recent)
        {
            self.ts_recent = ts.val;
        }
    }

    /// TS.Recent, if timestamps were agreed on.
    pub(super) fn ts_recent(&self) -> Option<u32> {
        self.timestamps.then_some(self.ts_recent)
    }

    /// The ACK that tells where we are, if the last is half a second ago: two ends that disagree
    /// must not answer each other for ever. Also for a SYN that could open a new connection, but
    /// finds nobody who wants one (RFC 9293 §3.10.7.4, RFC 5961 §4.2).
    pub fn answer(&mut self, now: Instant) -> TimeWaitOutcome {
        let now_ms = now.as_millis() as u32;
        let since = now_ms.wrapping_sub(self.replied_ms);
        if u128::from(since) < REPLY_INTERVAL.as_millis() {
            return TimeWaitOutcome::Limited;
        }
        self.replied_ms = now_ms;
        TimeWaitOutcome::Ack(self.ack(now))
    }

    /// Is this SYN one of a new connection? RFC 6191 §2 with timestamps; by its sequence number
    /// (RFC 1122 §4.2.2.13) without, or when the timestamps are equal.
    fn is_newer(&self, h: &TcpHeader) -> bool {
        let later_seq = SeqNum::new(h.seq).after(SeqNum::new(self.rcv_nxt));
        match h.options.timestamps {
            Some(ts) if self.timestamps => {
                older(self.ts_recent, ts.val) || (ts.val == self.ts_recent && later_seq)
            }
            _ => later_seq,
        }
    }

    /// The number that a new connection may start above, if this SYN is one of it.
    pub(super) fn reuse(&self, now: Instant, h: &TcpHeader) -> Option<u32> {
        let syn = h.flags & (TcpFlags::SYN | TcpFlags::ACK | TcpFlags::RST) == TcpFlags::SYN;
        (syn && self.deadline(now) > now && self.is_newer(h)).then_some(self.snd_nxt)
    }

    fn ack(&self, now: Instant) -> TcpHeader {
        TcpHeader {
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            flags: TcpFlags::ACK,
            // The peer has sent FIN and needs none, but RFC 9293 §3.8.6 takes back no offer.
            window: self.window,
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
}
