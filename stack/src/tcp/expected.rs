//! The short way out: a small message that may leave whole, or an ACK alone, with nothing else
//! going on.
//!
//! Most segments of a conversation are one of the two. Their payload is lent instead of being
//! counted as slices, for it is copied behind the headers anyway. Whatever else may have to be sent
//! is left to [`Tcb::poll_transmit`], which is to be asked when this says `None`.

use super::state::State;
use super::tcb::{Pending, Status, Tcb};
use super::timers::Timer;
use crate::time::Instant;
use crate::wire::tcp::{TcpFlags, TcpHeader};

impl Tcb {
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
        let (flags, _) = self.note_sent(now, unsent);
        self.note_what_limits();
        let header = self.header(now, seq, flags, unsent);
        Some((header, self.sendq.sent_piece(piece)))
    }
}
