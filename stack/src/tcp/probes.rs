//! Segments that ask: is the window still closed, has the tail arrived, does the path take more?

use barewire_driver::PacketSlice;

use super::tcb::{Status, Tcb};
use super::timers::Timer;
use super::{Transmit, TxLimits};
use crate::time::Instant;
use crate::wire::ipv4::Ecn;
use crate::wire::tcp::TcpFlags;

impl Tcb {
    /// RFC 9293 §3.8.6.1: one byte of new data. snd.nxt stays: were the byte refused, later ACKs
    /// with a sequence number beyond it would be, too. Where only FIN waits, a segment before the
    /// window asks instead, which the peer must answer (§3.10.7.4, first step).
    pub(super) fn emit_probe(&mut self, now: Instant, payload: &mut Vec<PacketSlice>) -> Transmit {
        let n = u32::from(self.sendq.unsent() > 0);
        if n > 0 {
            self.sendq.peek_unsent(1, payload);
            self.status |= Status::PROBED;
        }
        self.last_sent = now;
        let wait = self.rtt.rto_after(self.persist_backoff);
        self.timers.set(Timer::Persist, now + wait);
        let header = self.header(now, self.snd.nxt - (1 - n), TcpFlags::ACK, n);
        Transmit { header, payload_len: n, mss: self.snd.mss, ecn: Ecn::NotEct }
    }

    /// RFC 8985 §7.3: a segment of new data, or else the last one again.
    pub(super) fn emit_tail_probe(
        &mut self,
        now: Instant,
        limits: &TxLimits,
        payload: &mut Vec<PacketSlice>,
    ) -> Option<Transmit> {
        let mss = self.mss();
        if self.is_repairing() {
            // What is missing first: its ACK lets all the rest go on.
            let first = self.sendq.records.first()?;
            let (from, len) = (first.start, first.len.min(mss));
            let transmit = self.emit_again(now, from, len, limits, payload);
            self.note_probe(from + len, true);
            return Some(transmit);
        }
        let new = self.sendq.unsent().min(self.peer_room()).min(mss);
        if new > 0 {
            let transmit = self.emit_new(now, new, limits, payload);
            self.note_probe(self.snd.nxt, false);
            return Some(transmit);
        }
        let last = self.sendq.records.last()?;
        let len = (last.len - 1) % mss + 1;
        let from = last.end() - len;
        if from.after_eq(self.snd.una + self.snd.wnd) {
            // The peer has shrunk its window: the retransmission timer sees to that.
            return None;
        }
        let transmit = self.emit_again(now, from, len, limits, payload);
        self.note_probe(self.snd.nxt, true);
        Some(transmit)
    }

    /// One segment that is larger than the others (RFC 4821 §7).
    #[cold]
    pub(super) fn emit_path_probe(
        &mut self,
        now: Instant,
        size: u16,
        limits: &TxLimits,
        payload: &mut Vec<PacketSlice>,
    ) -> Transmit {
        let want = u32::from(size);
        let n = self.sendq.take_unsent(want, limits.max_pieces.max(1), want, payload);
        let seq = self.snd.nxt;
        // What lies in too many pieces leaves as segments like others.
        let whole = n == want;
        if whole {
            self.path_probed(seq, size);
        }
        let flags = self.note_sent(now, n);
        let (header, ecn) = (self.header(now, seq, flags, n), self.ecn_data_mark());
        Transmit { header, payload_len: n, mss: if whole { size } else { self.snd.mss }, ecn }
    }
}
