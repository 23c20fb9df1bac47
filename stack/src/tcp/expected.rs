//! The short ways through a connection.
//!
//! In: text in sequence, with nothing else going on. Out: a small message that may leave whole, or an
//! ACK alone. Most segments of a conversation are one of these. The payload of a small message is
//! lent instead of being counted as slices, for it is copied behind the headers anyway. Whatever
//! else may have to be sent is left to [`Tcb::poll_transmit`], which is to be asked when
//! [`Tcb::poll_expected`] says `None`.

use super::recvq;
use super::state::State;
use super::tcb::{Pending, Status, Tcb};
use super::timers::Timer;
use super::{Memory, Segment};
use crate::time::Instant;
use crate::wire::tcp::{TcpFlags, TcpHeader};

impl Tcb {
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
        let calm = self.state == State::Established
            && (self.pending - Pending::ACK).is_empty()
            && self.rcv.dup_acks == 0
            && self.recovery.is_quiet()
            && !self.ecn.agreed
            && !self.timers.is_set(Timer::Pacing)
            && !self.status.contains(Status::FIN_QUEUED);
        if !calm {
            return None;
        }
        let unsent = self.sendq.unsent();
        if unsent == 0 {
            let ack_is_due = self.pending.contains(Pending::ACK);
            return ack_is_due.then(|| (self.header(now, self.snd.nxt, TcpFlags::ACK, 0), &[][..]));
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
}
