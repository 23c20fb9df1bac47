//! The short ways through a connection.
//!
//! In: text in sequence and the ACK of one transmission, with nothing else going on. Out: a small message that may leave whole, or an
//! ACK alone. Most segments of a conversation are one of these. The payload of a small message is
//! lent instead of being counted as slices, for it is copied behind the headers anyway. Whatever
//! else may have to be sent is left to [`Tcb::poll_transmit`], which is to be asked when
//! [`Tcb::poll_expected`] says `None`.

use super::delivery::SentAt;
use super::recovery::Advance;
use super::recvq;
use super::seq::SeqNum;
use super::state::State;
use super::tcb::{Pending, Status, Tcb};
use super::timers::Timer;
use super::{Memory, Segment};
use crate::time::Instant;
use crate::wire::tcp::{TcpFlags, TcpHeader};

impl Tcb {
    /// Takes the ACK of one transmission, sent once, while nothing is missing: as
    /// [`Tcb::take_new_ack`], which takes all others, but nothing has to be found out first. False if
    /// it is none of these. The ACK lies in (snd.una, snd.max] and comes without SACK blocks, and
    /// recovery is quiet.
    #[inline(always)]
    pub(super) fn take_plain_ack(&mut self, now: Instant, ack: SeqNum, h: &TcpHeader) -> bool {
        if self.controller.models_path() || self.fast_open.is_some() {
            return false;
        }
        let Some(record) = self.sendq.records.ack_first(ack) else { return false };
        let in_flight = self.snd.nxt.since(self.snd.una);
        let mut bytes = record.len;
        if !self.status.contains(Status::SYN_ACKED) {
            self.status |= Status::SYN_ACKED;
            bytes -= 1;
        }
        let fin = self.status.contains(Status::FIN_SENT) && ack == self.snd.nxt;
        bytes -= u32::from(fin && bytes > 0);
        self.sendq.ack_bytes(bytes);
        let una = std::mem::replace(&mut self.snd.una, ack);
        self.path_acked(now, una, bytes);
        self.pending -= Pending::SYN | Pending::FAST;
        self.bytes_acked += u64::from(bytes);
        (self.retries, self.probes, self.persist_backoff) = (0, 0, 0);
        self.soft_error = None;
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
        let samples = in_flight.div_ceil(2 * self.mss());
        self.rtt.sample(rtt, samples, &self.config);
        let echo = self.ecn_is_echo(h.flags);
        let advance = Advance { bytes, in_flight, rtt: Some(rtt), moved: true, echo };
        self.judge_plain(now, SentAt { at: record.last_sent, end: ack }, &advance);
        self.sendq.records.rate.count(now, record.len, record.last_sent, Some(rtt));
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

    /// The same where speed matters less: a second copy would not be worth its place.
    #[inline(never)]
    pub(super) fn take_lone_ack(&mut self, now: Instant, ack: SeqNum, h: &TcpHeader) -> bool {
        self.take_plain_ack(now, ack, h)
    }

    /// Takes the text of an expected segment: all of it is new, within the window and in sequence,
    /// nothing waits behind a gap, and the application still reads.
    pub(super) fn take_expected_text(&mut self, now: Instant, segment: Segment<'_>) {
        let Segment { payload, payload_len, wire_segments, memory, .. } = segment;
        let full = self.recvq.pinned() >= recvq::pinned_max(self.rcv.buffer);
        if full || memory == Memory::Exhausted {
            let segment = Segment { payload, payload_len, wire_segments, memory, ..segment };
            return self.take_text(now, self.rcv.nxt, segment);
        }
        self.note_peer_segment(payload_len, wire_segments);
        self.status.set(Status::MEMORY_SCARCE, memory != Memory::Plenty);
        for piece in payload.drain(..) {
            self.recvq.push(piece);
        }
        self.rcv.nxt += payload_len;
        self.bytes_received += u64::from(payload_len);
        self.tune_receive(now);
        self.schedule_ack(now, false);
    }

    /// The next transmission, if it is all that is unsent, at most `most` bytes and in one piece,
    /// or an ACK without data. It counts as sent then.
    pub(crate) fn poll_expected(
        &mut self,
        now: Instant,
        most: usize,
    ) -> Option<(TcpHeader, &[u8])> {
        let calm = (self.state.is_live() || self.state == State::TimeWait)
            && (self.pending - Pending::ACK).is_empty()
            && self.rcv.dup_acks == 0
            && self.recovery.is_quiet()
            && !self.ecn.agreed
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
        let header = self.header(now, seq, flags, unsent);
        Some((header, self.sendq.sent_piece(piece)))
    }

    /// FIN, or an ACK, if one of them is due when nothing is unsent.
    fn poll_bare(&mut self, now: Instant) -> Option<TcpHeader> {
        let seq = self.snd.nxt;
        if self.state.can_transmit_data() && self.fin_due(0) {
            let flags = self.note_sent(now, 0);
            self.note_what_limits();
            return Some(self.header(now, seq, flags, 0));
        }
        let ack_is_due = self.pending.contains(Pending::ACK);
        ack_is_due.then(|| self.header(now, seq, TcpFlags::ACK, 0))
    }
}
