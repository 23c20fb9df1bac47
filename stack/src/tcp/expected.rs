//! The short ways through a connection.
//!
//! In: text in sequence and ACKs of data in flight, with nothing else going on. Out: a small message
//! that may leave whole, or an ACK alone. Most segments of a conversation are one of these. Their
//! headers stay in registers ([`PlainTcp`]), and the payload of a small message is lent instead of
//! being counted as slices, for it is copied behind the headers anyway. Whatever else may arrive is
//! [`Tcb::handle_segment`]'s, and whatever else may have to be sent is left to
//! [`Tcb::poll_transmit`], which is to be asked when [`Tcb::poll_expected`] says `None`.

use super::delivery::SentAt;
use super::output::Growth;
use super::recovery::Advance;
use super::seq::SeqNum;
use super::state::State;
use super::tcb::{Pending, Status, Tcb};
use super::timers::Timer;
use crate::time::Instant;
use crate::wire::tcp::{PlainTcp, TcpFlags};

impl Tcb {
    /// Takes the ACK of one transmission, sent once, while nothing is missing: as
    /// [`Tcb::take_new_ack`], which takes all others, but nothing has to be found out first. False if
    /// it is none of these. The ACK lies in (snd.una, snd.max] and comes without SACK blocks, and
    /// recovery is quiet. `echo`: it echoes a congestion mark.
    pub(super) fn take_plain_ack(&mut self, now: Instant, ack: SeqNum, echo: bool) -> bool {
        if self.controller.models_path() || self.fast_open.is_some() {
            return false;
        }
        let Some(record) = self.sendq.records.ack_first(ack) else { return false };
        let in_flight = self.snd.nxt.since(self.snd.una);
        let (bytes, fin) = self.move_una(now, ack);
        if fin {
            // Nothing will be sent any more: what the path is like is of no interest.
            self.timers.clear(Timer::Retransmit);
            self.timers.clear(Timer::Reorder);
            self.timers.clear(Timer::Probe);
            self.timers.clear(Timer::User);
            self.note_activity(now);
            return true;
        }
        let rtt = now - record.last_sent;
        // RFC 7323 §4.2, as for every sample.
        let two = 2 * self.mss();
        let samples = if in_flight <= two { 1 } else { in_flight.div_ceil(two) };
        self.rtt.sample(rtt, samples, &self.config);
        let advance = Advance { bytes, in_flight, rtt: Some(rtt), moved: true, echo };
        self.judge_plain(now, SentAt { at: record.last_sent, end: ack }, &advance);
        let rtt_ns = now.nanos_since(record.last_sent);
        self.sendq.records.rate.count(now, record.len, record.last_sent, rtt_ns);
        if ack == self.snd.nxt {
            // RFC 6298 §5.2; nothing is left to probe for either.
            self.timers.clear(Timer::Retransmit);
            self.timers.clear(Timer::Reorder);
            self.timers.clear(Timer::Probe);
        } else {
            self.restart_retransmit(now);
            self.schedule_probe(now);
        }
        if self.status.contains(Status::USER_TIMEOUT) {
            self.arm_user_timeout();
        }
        self.note_activity(now);
        true
    }

    /// The next transmission, if it is all that is unsent, at most `most` bytes and in one piece,
    /// or an ACK without data. It counts as sent then.
    pub(crate) fn poll_expected(&mut self, now: Instant, most: usize) -> Option<(PlainTcp, &[u8])> {
        let calm = (self.state.is_live() || self.state == State::TimeWait)
            && (self.pending - Pending::ACK).is_empty()
            && self.rcv.dup_acks == 0
            && self.recovery.is_quiet()
            && !self.ecn.agreed
            && !self.has_reports()
            && !self.timers.is_set(Timer::Pacing);
        if !calm {
            return None;
        }
        let unsent = self.sendq.unsent();
        if unsent == 0 {
            return self.poll_bare(now).map(|header| (header, &[][..]));
        }
        if self.state != State::Established || self.status.contains(Status::FIN_QUEUED) {
            return None;
        }
        let fits = unsent as usize <= most && unsent <= self.mss();
        if !fits || self.sendable() != unsent || !self.sendq.has_unsent_piece() {
            return None;
        }
        if self.snd.una == self.snd.nxt {
            self.restart_after_idle(now);
        }
        let seq = self.snd.nxt;
        let piece = self.sendq.skip_unsent_piece();
        let flags = self.note_sent(now, unsent);
        self.note_what_limits();
        let header = self.plain_header(now, seq, flags, unsent);
        Some((header, self.sendq.sent_piece(piece)))
    }

    /// FIN, or an ACK, if one of them is due when nothing is unsent.
    fn poll_bare(&mut self, now: Instant) -> Option<PlainTcp> {
        let seq = self.snd.nxt;
        if self.state.can_transmit_data() && self.fin_due(0) {
            let flags = self.note_sent(now, 0);
            self.note_what_limits();
            return Some(self.plain_header(now, seq, flags, 0));
        }
        let ack_is_due = self.pending.contains(Pending::ACK);
        ack_is_due.then(|| self.plain_header(now, seq, TcpFlags::ACK, 0))
    }

    /// The header of a segment with an ACK that has no gap to report, ports left zero, and the note
    /// that the ACK has been sent.
    #[inline]
    fn plain_header(&mut self, now: Instant, seq: SeqNum, flags: TcpFlags, len: u32) -> PlainTcp {
        let window = self.window_field(Growth::Yes);
        self.pending -= Pending::ACK;
        self.note_ack_sent(now, len);
        let timestamps = self.timestamps(now);
        let (seq, ack) = (seq.get(), self.rcv.nxt.get());
        PlainTcp { src_port: 0, dst_port: 0, seq, ack, flags, window, timestamps }
    }
}
