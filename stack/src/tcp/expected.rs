//! The short ways through a connection that is not [calm](super::calm), or is about to end.
//!
//! In: the ACK of one transmission, the ACK that ends a handshake, and FINs and their ACKs. Out: a
//! small message that may leave whole, or an ACK alone. Their headers stay in registers
//! ([`PlainTcp`]), and the payload of a small message is lent instead of being counted as slices, for
//! it is copied behind the headers anyway. Whatever else may arrive is [`Tcb::handle_segment`]'s, and
//! whatever else may have to be sent is left to [`Tcb::poll_transmit`], which is to be asked when
//! [`Tcb::poll_expected`] says `None`.

use super::delivery::SentAt;
use super::input::Step;
use super::recovery::Advance;
use super::seq::SeqNum;
use super::state::State;
use super::tcb::{Pending, Status, Tcb};
use super::timers::Timer;
use super::window::Growth;
use super::{Outcome, Text, input};
use crate::hint::{rarely, usually};
use crate::time::Instant;
use crate::wire::tcp::{PlainTcp, TcpFlags, TcpHeader};

impl Tcb {
    /// Timestamps as agreed on, and no older than the last.
    #[inline]
    fn has_timestamps_in_order(&self, h: &PlainTcp) -> bool {
        let agreed = self.status.contains(Status::TIMESTAMPS);
        match h.timestamps {
            Some(ts) => agreed && !input::older(ts.val, self.ts_recent),
            None => !agreed,
        }
    }

    /// Takes the ACK of one transmission, sent once, while nothing is missing: as
    /// [`Tcb::take_new_ack`], which takes all others, but nothing has to be found out first. False if
    /// it is none of these. The ACK lies in (snd.una, snd.max] and comes without SACK blocks, and
    /// recovery is quiet. `echo`: it echoes a congestion mark.
    pub(super) fn take_plain_ack(&mut self, now: Instant, ack: SeqNum, echo: bool) -> bool {
        if rarely(self.controller.models_path() || self.fast_open.is_some()) {
            return false;
        }
        let Some(record) = usually(self.sendq.records.ack_first(ack)) else { return false };
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
        let samples = if rarely(in_flight > two) { in_flight.div_ceil(two) } else { 1 };
        self.rtt.sample(rtt, samples);
        let piped = self.sendq.records.rate.piped_since(&record.stamp, record.len);
        let advance = Advance { bytes, in_flight, piped, rtt: Some(rtt), moved: true, echo };
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
        if rarely(self.status.contains(Status::USER_TIMEOUT)) {
            self.arm_user_timeout();
        }
        self.note_activity(now);
        true
    }

    /// A passive open, by a SYN with this window, is complete by an ACK of our SYN-ACK, sent once at
    /// `sent_at`, and of nothing else. [`Tcb::handle_segment`] would find the same out in
    /// SYN-RECEIVED, from a record of it.
    pub(super) fn open_plainly(
        &mut self,
        now: Instant,
        h: &TcpHeader,
        window: u32,
        sent_at: Instant,
    ) {
        let (seq, ack) = (SeqNum::new(h.seq), SeqNum::new(h.ack));
        self.tally.received(now, 0, 1);
        if let Some(ts) = h.options.timestamps
            && self.status.contains(Status::TIMESTAMPS)
        {
            self.take_timestamp(now, seq, ts);
        }
        self.status |= Status::SYN_ACKED;
        (self.snd.una, self.snd.nxt) = (ack, ack);
        self.establish(now);
        self.snd.max_wnd = window;
        self.set_window(seq, ack, self.snd.scale.bytes(h.window));
        let rtt = now - sent_at;
        self.rtt.sample(rtt, 1);
        let advance =
            Advance { bytes: 0, in_flight: 1, piped: 1, rtt: Some(rtt), moved: true, echo: false };
        self.judge_plain(now, SentAt { at: sent_at, end: ack }, &advance);
        let rate = &mut self.sendq.records.rate;
        let _ = rate.on_send(sent_at, true);
        rate.count(now, 1, sent_at, now.nanos_since(sent_at));
        self.note_activity(now);
    }

    /// Takes a segment without text that ends something and is as expected otherwise: the peer's FIN,
    /// the ACK of ours, or both. `None` if it is another: then it has changed nothing.
    #[inline]
    pub(crate) fn take_ending(
        &mut self,
        now: Instant,
        h: &PlainTcp,
        text: &Text,
    ) -> Option<Outcome> {
        let (seq, ack) = (SeqNum::new(h.seq), SeqNum::new(h.ack));
        let fin = h.flags.contains(TcpFlags::FIN);
        let (una, nxt) = (self.snd.una, self.snd.nxt);
        // As in `expects`: after snd.una, and up to snd.nxt.
        let advances = ack.since(una).wrapping_sub(1) < nxt.since(una);
        let ends = if fin {
            self.state.can_receive() && (advances || (ack == una && una == nxt))
        } else {
            self.status.contains(Status::FIN_SENT) && self.state.is_live() && advances && ack == nxt
        };
        let plain = ends
            && text.len == 0
            && h.flags - TcpFlags::FIN == TcpFlags::ACK
            && seq == self.rcv.nxt
            && self.has_timestamps_in_order(h)
            && self.status & (Status::SYN_ACKED | Status::PROBED) == Status::SYN_ACKED
            && self.recovery.is_quiet()
            && self.sendq.records.sacked() == 0
            && self.assembler.is_none();
        if rarely(!plain) {
            return None;
        }
        self.stir();
        self.tally.received(now, 0, text.wire_segments);
        self.last_heard = now;
        if let Some(ts) = h.timestamps {
            self.take_timestamp(now, seq, ts);
        }
        if ack != una && rarely(!self.take_plain_ack(now, ack, false)) {
            let news = self.no_news();
            self.take_new_ack(now, ack, &TcpHeader::from(*h), news);
        }
        self.update_window(seq, ack, h.window);
        self.answered();
        if self.fin_acked()
            && let Step::Done(outcome) = self.take_fin_ack(now)
        {
            return Some(outcome);
        }
        let outcome = if fin { self.take_fin(now, Some(seq)) } else { Outcome::Continue };
        self.trim_later(now);
        Some(outcome)
    }

    /// True if nothing can have to be sent but unsent data, FIN, or an ACK without gaps to report.
    #[inline(always)]
    fn sends_plainly(&self) -> bool {
        (self.state.is_live() || self.state == State::TimeWait)
            && (self.pending - Pending::ACK).is_empty()
            && self.rcv.dup_acks == 0
            && self.recovery.is_quiet()
            && !self.ecn.agreed
            && !self.has_reports()
            && !self.timers.is_set(Timer::Pacing)
    }

    /// The next transmission, if it is all that is unsent, at most `most` bytes and in one piece,
    /// or an ACK without data. It counts as sent then.
    pub(crate) fn poll_expected(&mut self, now: Instant, most: usize) -> Option<(PlainTcp, &[u8])> {
        if !self.sends_plainly() {
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

    /// The next transmission, if it is FIN or an ACK, without data. It counts as sent then.
    #[inline(always)]
    pub(crate) fn poll_control(&mut self, now: Instant) -> Option<PlainTcp> {
        if self.sendq.unsent() > 0 || rarely(!self.sends_plainly()) {
            return None;
        }
        self.poll_bare(now)
    }

    /// FIN, or an ACK, if one of them is due when nothing is unsent.
    #[inline(always)]
    fn poll_bare(&mut self, now: Instant) -> Option<PlainTcp> {
        let seq = self.snd.nxt;
        let mut flags = TcpFlags::ACK;
        if self.state.can_transmit_data() {
            if self.fin_due(0, 0) {
                flags = self.note_fin_sent(now);
            } else if !self.pending.contains(Pending::ACK) {
                return None;
            }
            self.note_what_limits();
        } else if !self.pending.contains(Pending::ACK) {
            return None;
        }
        Some(self.plain_header(now, seq, flags, 0))
    }

    /// As [`Tcb::note_sent`], of FIN alone.
    #[inline(never)]
    fn note_fin_sent(&mut self, now: Instant) -> TcpFlags {
        self.note_transmission(now, 0, true)
    }

    /// The header of a segment with an ACK that has no gap to report, ports left zero, and the note
    /// that the ACK has been sent.
    #[inline(always)]
    fn plain_header(&mut self, now: Instant, seq: SeqNum, flags: TcpFlags, len: u32) -> PlainTcp {
        let window = self.window_field(Growth::Yes);
        self.pending -= Pending::ACK;
        self.note_ack_sent(now, len);
        let timestamps = self.timestamps(now);
        let (seq, ack) = (seq.get(), self.rcv.nxt.get());
        PlainTcp { src_port: 0, dst_port: 0, seq, ack, flags, window, timestamps }
    }
}

#[cfg(test)]
#[path = "tests/expected.rs"]
mod tests;
