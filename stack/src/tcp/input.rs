//! A segment arrives: RFC 9293 §3.10.7, step by step in its order.
//!
//! ```text
//!   expected? ──yes──────────────────────────────────────▶ ACK, text
//!      │ no
//!      ├─ CLOSED      §3.10.7.1
//!      ├─ SYN-SENT    §3.10.7.3   ACK ▸ RST ▸ SYN
//!      ├─ TIME-WAIT               as its compact form
//!      └─ the others  §3.10.7.4   PAWS ▸ sequence ▸ RST ▸ SYN ▸ ACK ▸ URG ▸ text ▸ FIN
//! ```
//!
//! RFC 5961 replaces the RFC's answers to RST, SYN and unacceptable ACKs by challenge ACKs. Urgent
//! data is data in band (RFC 6093 §4): the URG bit changes nothing. The fifth step is in `ack`, text
//! and FIN are in `receive`.

use std::hint::cold_path;

use super::seq::SeqNum;
use super::state::State;
use super::tcb::{Pending, Status, Tcb};
use super::time_wait::TimeWaitOutcome;
use super::timers::Timer;
use super::{DropReason, IcmpError, Outcome, Segment, Text, reset_for};
use crate::SocketError;
use crate::time::{Duration, Instant};
use crate::wire::tcp::{PlainTcp, TcpFlags, TcpHeader, Timestamps};

/// RFC 7323 §5.5: after this long without a segment TS.Recent is too old to compare with.
const TS_RECENT_VALID: Duration = Duration::from_secs(24 * 24 * 3600);

/// Whether the rest of a segment is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Next,
    Done(Outcome),
}

impl Tcb {
    /// Takes a segment that was addressed to this connection, with a valid checksum.
    pub fn handle_segment(&mut self, now: Instant, segment: Segment<'_>) -> Outcome {
        if let Some(plain) = PlainTcp::of(segment.header) {
            let text = Text::of(&segment);
            if self.expects(&plain, &text) {
                self.dropped = None;
                self.take_expected(now, &plain, &text, segment.payload.drain(..));
                return Outcome::Continue;
            }
            if let Some(outcome) = self.take_ending(now, &plain, &text) {
                self.dropped = None;
                return outcome;
            }
        }
        self.handle_unexpected(now, segment)
    }

    /// As [`Tcb::handle_segment`], for a segment that is known to have no short way.
    pub(crate) fn handle_unexpected(&mut self, now: Instant, segment: Segment<'_>) -> Outcome {
        self.dropped = None;
        self.stir();
        self.tally.received(now, segment.payload_len, segment.wire_segments);
        match self.state {
            State::Closed | State::Listen => {
                cold_path();
                self.dropped = Some(DropReason::Closed);
                match reset_for(segment.header, segment.payload_len) {
                    Some(rst) => Outcome::Reset(rst),
                    None => Outcome::Closed,
                }
            }
            State::SynSent => self.in_syn_sent(now, segment),
            State::TimeWait => self.in_time_wait(now, &segment),
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => self.in_synchronized(now, segment),
        }
    }

    // --- SYN-SENT --------------------------------------------------------------------------------

    /// RFC 9293 §3.10.7.3.
    fn in_syn_sent(&mut self, now: Instant, segment: Segment<'_>) -> Outcome {
        let h = segment.header;
        let has_ack = h.flags.contains(TcpFlags::ACK);
        let ack = SeqNum::new(h.ack);
        // First, check the ACK bit.
        let ack_good = has_ack && ack.after(self.snd.una) && ack.before_eq(self.snd_max());
        if has_ack && !ack_good {
            cold_path();
            self.dropped = Some(DropReason::BadAck);
            let Some(rst) = reset_for(h, segment.payload_len) else { return Outcome::Continue };
            if self.retries == 0 {
                // An earlier connection from these ports has answered, from TIME-WAIT as a rule, and
                // most let it go for the RST. The SYN follows that at once, but one time only.
                self.retries = 1;
                self.pending |= Pending::SYN;
            }
            return Outcome::Reset(rst);
        }
        // Second, check the RST bit. RFC 5961 §3.2: only one that acknowledges our SYN counts.
        if h.flags.contains(TcpFlags::RST) {
            cold_path();
            if ack_good {
                return self.fail(SocketError::ConnectionRefused);
            }
            self.dropped = Some(DropReason::BadReset);
            return Outcome::Continue;
        }
        // Fourth, check the SYN bit; fifth, without SYN or RST drop the segment.
        if !h.flags.contains(TcpFlags::SYN) {
            cold_path();
            self.dropped = Some(DropReason::NoAck);
            return Outcome::Continue;
        }
        let irs = SeqNum::new(h.seq);
        self.negotiate(irs, &h.options, now);
        self.ecn_negotiate(h.flags);
        self.last_heard = now;
        if !ack_good {
            cold_path();
            // A simultaneous open. What the SYN carries besides is left for the peer to send again.
            self.state = State::SynReceived;
            self.retries = 0;
            self.set_window(irs, ack, u32::from(h.window));
            self.pending |= Pending::SYN;
            return Outcome::Continue;
        }
        self.learn_cookie(h);
        if !self.take_plain_ack(now, ack, self.ecn_is_echo(h.flags)) {
            cold_path();
            let news = self.no_news();
            self.take_new_ack(now, ack, h, news);
        }
        // Data of our SYN that this does not acknowledge leaves again (RFC 7413 §4.2.1).
        self.status -= Status::PROBED;
        self.set_window(irs, ack, u32::from(h.window));
        self.establish(now);
        self.pending |= Pending::ACK;
        self.text_and_fin(now, irs + 1, segment)
    }

    // --- TIME-WAIT -------------------------------------------------------------------------------

    /// The socket layer normally gives the 4-tuple to the compact form; this serves until then.
    #[cold]
    fn in_time_wait(&mut self, now: Instant, segment: &Segment<'_>) -> Outcome {
        let Some(mut compact) = self.time_wait() else { return self.finish() };
        let outcome = compact.handle_segment(now, segment.header, segment.payload_len);
        self.ts_recent = compact.ts_recent().unwrap_or(self.ts_recent);
        match outcome {
            TimeWaitOutcome::Drop | TimeWaitOutcome::Limited => {
                self.dropped = Some(DropReason::OutsideWindow)
            }
            TimeWaitOutcome::Ack(_) => {
                self.dropped = Some(DropReason::OutsideWindow);
                self.timers.set(Timer::Lifetime, compact.deadline(now));
                self.challenge(now);
            }
            // Whom it would open a connection to has made room for it before, were there anybody.
            TimeWaitOutcome::Reuse { .. } => {
                self.dropped = Some(DropReason::UnexpectedSyn);
                self.challenge(now);
            }
            TimeWaitOutcome::Remove => return self.finish(),
        }
        Outcome::Continue
    }

    // --- all other states ------------------------------------------------------------------------

    /// RFC 9293 §3.10.7.4.
    #[inline(never)]
    fn in_synchronized(&mut self, now: Instant, segment: Segment<'_>) -> Outcome {
        let h = segment.header;
        let mut seq = SeqNum::new(h.seq);
        let mut flags = h.flags;
        let irs = self.irs_of_opening();
        let opening = !self.status.contains(Status::SYN_ACKED);
        if opening && flags.contains(TcpFlags::SYN) && seq == irs {
            if !flags.contains(TcpFlags::ACK) {
                // The peer's SYN again: our SYN-ACK was lost.
                self.dropped = Some(DropReason::OutsideWindow);
                self.pending |= Pending::SYN;
                return Outcome::Continue;
            }
            // RFC 9293 figure 8, line 6: the SYN-ACK of a simultaneous open. Its SYN is known, its
            // ACK is what is waited for.
            flags -= TcpFlags::SYN;
            seq += 1;
            self.pending |= Pending::ACK;
        }
        let len = segment.payload_len
            + u32::from(flags.contains(TcpFlags::SYN))
            + u32::from(flags.contains(TcpFlags::FIN));
        if let Step::Done(outcome) = self.check_timestamps(now, h, len) {
            return outcome;
        }
        // First, check the sequence number.
        if !self.is_acceptable(seq, len) {
            return self.refuse(now, seq, flags, len, DropReason::OutsideWindow);
        }
        // Second, check the RST bit.
        if flags.contains(TcpFlags::RST) {
            return self.take_reset(now, seq);
        }
        // Fourth, check the SYN bit. RFC 5961 §4.2: a challenge ACK, whatever its number.
        if flags.contains(TcpFlags::SYN) {
            self.dropped = Some(DropReason::UnexpectedSyn);
            self.challenge(now);
            return Outcome::Continue;
        }
        // Fifth, check the ACK field.
        if let Step::Done(outcome) = self.take_ack(now, h, flags, segment.payload_len) {
            return outcome;
        }
        if segment.payload_len > 0 {
            self.ecn_arrived(segment.ecn, flags);
        }
        // Sixth, the URG bit means nothing (RFC 6093 §4). Seventh and eighth, text and FIN.
        let outcome = self.text_and_fin(now, seq, segment);
        self.trim_later(now);
        outcome
    }

    /// RFC 7323 §3.2 and §5.3, R1.
    fn check_timestamps(&mut self, now: Instant, h: &TcpHeader, len: u32) -> Step {
        if !self.status.contains(Status::TIMESTAMPS) || h.flags.contains(TcpFlags::RST) {
            return Step::Next;
        }
        let Some(ts) = h.options.timestamps else {
            if h.flags.contains(TcpFlags::SYN) {
                // RFC 5961 §4.2: whatever else is wrong with it, a SYN is challenged. It may be a
                // peer that has lost its memory, and the answer makes it reset what we have.
                return Step::Next;
            }
            self.dropped = Some(DropReason::MissingTimestamp);
            return Step::Done(Outcome::Continue);
        };
        if older(ts.val, self.ts_recent) {
            if now - self.ts_recent_at > TS_RECENT_VALID {
                self.ts_recent = ts.val;
                return Step::Next;
            }
            let seq = SeqNum::new(h.seq);
            return Step::Done(self.refuse(now, seq, h.flags, len, DropReason::OldTimestamp));
        }
        Step::Next
    }

    /// RFC 7323 §4.3: TS.Recent follows segments at or before the last ACK sent.
    pub(super) fn note_timestamp(&mut self, now: Instant, h: &TcpHeader) {
        if let Some(ts) = h.options.timestamps
            && self.status.contains(Status::TIMESTAMPS)
            && !older(ts.val, self.ts_recent)
        {
            self.take_timestamp(now, SeqNum::new(h.seq), ts);
        }
    }

    /// The same of a segment whose timestamp is not older.
    #[inline]
    pub(super) fn take_timestamp(&mut self, now: Instant, seq: SeqNum, ts: Timestamps) {
        if seq.before_eq(self.rcv.acked) {
            self.ts_recent = ts.val;
            self.ts_recent_at = now;
        }
    }

    /// RFC 9293 §3.4, the acceptance test, with two allowances. An empty segment at the right edge
    /// is what a peer sends that has filled the window; its ACK is needed. And a closed window
    /// still takes the ACK and FIN of what stands at rcv.nxt (§3.10.7.4, first step).
    fn is_acceptable(&self, seq: SeqNum, len: u32) -> bool {
        let (nxt, edge) = (self.rcv.nxt, self.rcv.edge);
        if len == 0 {
            return seq.after_eq(nxt) && seq.before_eq(edge);
        }
        let overlaps = seq.before(edge) && (seq + len).after(nxt);
        overlaps || (seq == nxt && edge.before_eq(nxt))
    }

    /// An unacceptable segment is answered by an ACK unless it is an RST. Without data that answer
    /// is limited like a challenge: two ends that disagree must not keep answering each other. A SYN
    /// is challenged (RFC 5961 §4.2) and is no data to report as a duplicate.
    fn refuse(
        &mut self,
        now: Instant,
        seq: SeqNum,
        flags: TcpFlags,
        len: u32,
        reason: DropReason,
    ) -> Outcome {
        self.dropped = Some(reason);
        // Nor is one without ACK answered: the fifth step would drop it, and no connection sends it.
        if flags.contains(TcpFlags::RST) || !flags.intersects(TcpFlags::ACK | TcpFlags::SYN) {
            return Outcome::Continue;
        }
        if len > 0 && !flags.contains(TcpFlags::SYN) {
            self.note_duplicate(seq, seq + len);
            self.pending |= Pending::ACK;
        } else {
            self.challenge(now);
        }
        Outcome::Continue
    }

    /// RFC 5961 §3.2: only an RST at rcv.nxt exactly resets; another one in the window is challenged.
    fn take_reset(&mut self, now: Instant, seq: SeqNum) -> Outcome {
        if seq != self.rcv.nxt {
            self.dropped = Some(DropReason::BadReset);
            // At the right edge an ACK still counts; for an RST that is outside of the window.
            if seq.before(self.rcv.edge) {
                self.challenge(now);
            }
            return Outcome::Continue;
        }
        match self.state {
            State::SynReceived => {
                let error = self.fast_open_was_reset(now);
                self.fail(error.unwrap_or(SocketError::ConnectionRefused))
            }
            State::Established | State::FinWait1 | State::FinWait2 | State::CloseWait => {
                self.fail(SocketError::ConnectionReset)
            }
            // Both sides have said all: nothing is lost.
            State::Closing | State::LastAck => self.finish(),
            State::Closed | State::Listen | State::SynSent | State::TimeWait => Outcome::Continue,
        }
    }

    /// RFC 5961 §5 and §7: at most so many challenge ACKs a second. The count is the connection's
    /// own: one that all shared would tell an attacker, by what is left of it for a connection of
    /// his, whether he has hit another's numbers.
    pub(super) fn challenge(&mut self, now: Instant) {
        let second = (now.as_millis() / 1000) as u32;
        if self.challenges.second != second {
            self.challenges.second = second;
            self.challenges.sent = 0;
        }
        if self.challenges.sent < self.config.challenge_acks_per_s {
            self.challenges.sent += 1;
            self.pending |= Pending::ACK;
        } else {
            self.dropped = Some(DropReason::ChallengeLimit);
        }
    }

    // --- ICMP ------------------------------------------------------------------------------------

    /// An ICMP error quotes a segment of ours that began at `seq`.
    pub fn handle_icmp(&mut self, now: Instant, error: IcmpError, seq: u32) -> Outcome {
        self.stir();
        let seq = SeqNum::new(seq);
        // RFC 5927 §4.1: only what is in flight can have caused it.
        let in_flight = seq.after_eq(self.snd.una) && seq.before(self.snd_max());
        if !in_flight || self.state == State::Closed {
            return Outcome::Continue;
        }
        match error {
            // RFC 5461 §4: soft, whatever the state.
            IcmpError::HostUnreachable => self.soft_error = Some(SocketError::HostUnreachable),
            IcmpError::NetworkUnreachable => {
                self.soft_error = Some(SocketError::NetworkUnreachable);
            }
            // RFC 5927 §5.2: hard errors abort only what is not yet synchronized.
            IcmpError::PortUnreachable | IcmpError::ProtocolUnreachable => {
                if self.state == State::SynSent {
                    return self.fail(SocketError::ConnectionRefused);
                }
                self.soft_error = Some(SocketError::ConnectionRefused);
            }
            IcmpError::FragmentationNeeded { mss } => self.path_claimed(now, seq, mss),
        }
        Outcome::Continue
    }
}

/// `a < b` on the timestamp clock's circle (RFC 7323 §5.2).
pub(super) fn older(a: u32, b: u32) -> bool {
    SeqNum::new(a).before(SeqNum::new(b))
}
