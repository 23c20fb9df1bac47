//! The shortest way through a connection, for one on which nothing unusual goes on: *calm*.
//!
//! ```text
//!   wake, with_tcb: whatever may disturb ──▶ calm := false
//!   the next segment or message ──▶ calm? ── no ──▶ looks_calm, once ──▶ the long way if not
//!                                     └──── yes ──▶ a few comparisons, and the state is updated
//! ```
//!
//! What makes a connection calm is asked once and remembered, for none of it is changed by what is
//! done here, by reading and writing, and by sending. Whoever reaches the block by another way has
//! the question asked again ([`Block::wake`](crate::socket::block::Block::wake)). Debug builds ask
//! every time whether the answer still holds.
//!
//! In: text in sequence and ACKs of data in flight (header prediction). Out: a small message, which
//! lies in its cell behind room for the headers, so that the cell becomes the frame.

use std::ops::Range;

use barewire_driver::{PacketSlice, Pool, TxBurst};

use super::congestion::{CongestionControl, Noted};
use super::delivery::SentAt;
use super::recovery::Advance;
use super::recvq;
use super::sendq::SMALL_MAX;
use super::seq::SeqNum;
use super::state::State;
use super::tcb::{Pending, Status, Tcb};
use super::timers::Timer;
use super::window::Growth;
use super::{Memory, Text, input};
use crate::time::{Duration, Instant};
use crate::wire::ipv4::Ecn;
use crate::wire::tcp::{
    self, InPlace, PADDED_TIMESTAMPS_LEN, Plain, PlainTcp, TcpFlags, TcpHeader,
};

/// A connection with one of these is not calm.
const UNUSUAL: Status = Status::APP_CLOSED
    .union(Status::READ_SHUT)
    .union(Status::EOF)
    .union(Status::PROBED)
    .union(Status::FIN_QUEUED)
    .union(Status::FIN_SENT)
    .union(Status::MEMORY_SCARCE);

/// With one of these a message does not leave by the shortest way.
const HELD: Status = Status::PACED.union(Status::USER_TIMEOUT).union(Status::CORK);

impl Tcb {
    /// Something is about to be done that may be unusual.
    #[inline]
    pub(crate) fn stir(&mut self) {
        self.calm = false;
    }

    /// True if nothing unusual goes on.
    #[inline(always)]
    fn is_calm(&mut self) -> bool {
        debug_assert!(!self.calm || self.looks_calm(), "disturbed unnoticed: {self:?}");
        debug_assert!(!self.calm || self.still == self.still_windows(), "{self:?}");
        self.calm || self.has_calmed()
    }

    #[inline(never)]
    fn has_calmed(&mut self) -> bool {
        // First: the ACK of the last FIN asks, too.
        if self.state != State::Established || !self.looks_calm() {
            return false;
        }
        self.calm = true;
        self.still = self.still_windows();
        true
    }

    fn looks_calm(&self) -> bool {
        let usual = self.state == State::Established
            && self.status.contains(Status::SYN_ACKED)
            && !self.status.intersects(UNUSUAL)
            && (self.pending - Pending::ACK).is_empty();
        let records = &self.sendq.records;
        let complete = self.recovery.is_quiet()
            && (records.sacked(), records.lost()) == (0, 0)
            && self.assembler.is_none()
            && self.rcv.dsack.is_none()
            && self.rcv.dup_acks == 0;
        let untroubled = (self.retries, self.probes, self.persist_backoff) == (0, 0, 0)
            && self.rtt.is_settled()
            && self.error.or(self.soft_error).is_none()
            && self.ecn_has_nothing_to_tell();
        usual && complete && untroubled && self.fast_open.is_none() && self.path.is_none()
    }

    // --- in --------------------------------------------------------------------------------------

    /// Header prediction: the next data in sequence, or an ACK of data in flight, and all of it
    /// fits. Such a segment would pass every check of [`Tcb::handle_segment`].
    #[inline(always)]
    pub(crate) fn expects(&mut self, h: &impl Plain, text: &Text) -> bool {
        let len = text.len;
        let stamped = self.status.contains(Status::TIMESTAMPS);
        let in_order = match h.timestamps() {
            Some(ts) => stamped && !input::older(ts.val, self.ts_recent),
            None => !stamped,
        };
        let (una, nxt) = (self.snd.una.get(), self.snd.nxt.get());
        // From snd.una up to snd.nxt.
        let acked = h.ack().wrapping_sub(una);
        acked <= nxt.wrapping_sub(una)
            && (acked > 0 || len > 0)
            && h.flags() - TcpFlags::PSH == TcpFlags::ACK
            && h.seq() == self.rcv.nxt.get()
            && in_order
            && i64::from(len) <= self.rcv.room()
            && recvq::may_pin_more(self.recvq.pinned(), self.rcv.buffer)
            && text.memory == Memory::Plenty
            && (text.ecn != Ecn::Ce || !self.ecn.agreed)
            && self.is_calm()
    }

    /// Takes the segment that lies in this place of a frame, if the connection
    /// [expects](Tcb::expects) it, memory being plentiful; otherwise leaves it, does nothing and says
    /// so.
    // A function of its own, as `send_small` is. The frame stays in memory until it is queued.
    #[inline(always)]
    pub(crate) fn take_next(
        &mut self,
        now: Instant,
        frame: &mut Option<PacketSlice>,
        place: Range<usize>,
        ecn: Ecn,
    ) -> bool {
        if self.status.contains(Status::TIMESTAMPS) {
            self.take_in_place::<{ tcp::LEN + PADDED_TIMESTAMPS_LEN }>(now, frame, place, ecn)
        } else {
            self.take_in_place::<{ tcp::LEN }>(now, frame, place, ecn)
        }
    }

    /// The same of a segment with a header of so many bytes, which is read where it is needed: there
    /// are not registers enough for all of it.
    #[inline(always)]
    fn take_in_place<const HEADER: usize>(
        &mut self,
        now: Instant,
        frame: &mut Option<PacketSlice>,
        place: Range<usize>,
        ecn: Ecn,
    ) -> bool {
        let bytes = frame.as_deref().and_then(|frame| frame.get(place.clone()));
        let Some((header, text)) = bytes.and_then(InPlace::<HEADER>::split) else { return false };
        let len = text.len();
        let text = Text { len: len as u32, wire_segments: 1, ecn, memory: Memory::Plenty };
        if !self.expects(&header, &text) {
            return false;
        }
        self.take_next_header(now, &header, &text);
        if let Some(frame) = frame {
            frame.narrow(place.end - len..place.end);
        }
        self.take_next_text(now, &text, frame.take());
        true
    }

    /// Takes an expected segment.
    #[inline(always)]
    pub(crate) fn take_expected(
        &mut self,
        now: Instant,
        h: &PlainTcp,
        text: &Text,
        payload: impl IntoIterator<Item = PacketSlice>,
    ) {
        self.take_next_header(now, h, text);
        self.take_next_text(now, text, payload);
    }

    #[inline(always)]
    fn take_next_header(&mut self, now: Instant, h: &impl Plain, text: &Text) {
        self.tally.received(now, text.len, text.wire_segments);
        self.last_heard = now;
        if let Some(ts) = h.timestamps() {
            self.take_timestamp(now, SeqNum::new(h.seq()), ts);
        }
        let ack = SeqNum::new(h.ack());
        if ack != self.snd.una && !(ack == self.snd.nxt && self.take_last_ack(now)) {
            self.take_other_ack(now, ack, h.read());
        }
        let (seq, ack) = (SeqNum::new(h.seq()), SeqNum::new(h.ack()));
        if self.snd.wl1.before_eq(seq) {
            // Newer than the last window, as `update_window` has it: what comes next in sequence
            // acknowledges no less than that did.
            self.set_window(seq, ack, self.snd.scale.bytes(h.window()));
        } else {
            self.update_window(seq, ack, h.window());
        }
    }

    #[inline(always)]
    fn take_next_text(
        &mut self,
        now: Instant,
        text: &Text,
        payload: impl IntoIterator<Item = PacketSlice>,
    ) {
        let len = text.len;
        if len > 0 {
            self.note_peer_segment(len, text.wire_segments);
            for piece in payload {
                self.recvq.push(piece);
            }
            self.rcv.nxt += len;
            self.bytes_received += u64::from(len);
            self.tune_receive(now);
            self.schedule_ack(now, false);
        }
        self.trim_later(now);
    }

    /// Takes the ACK of all that was ever written, which left in one transmission, once: as
    /// [`Tcb::take_plain_ack`]. False, and nothing is done, if it is another.
    #[inline(always)]
    fn take_last_ack(&mut self, now: Instant) -> bool {
        let una = self.snd.una;
        let bytes = self.snd.nxt.get().wrapping_sub(una.get());
        let two = 2 * self.mss();
        if bytes > two || self.controller.models_path() {
            return false;
        }
        let Some((sent_at, piped)) = self.sendq.settle_only(bytes) else { return false };
        self.snd.una = self.snd.nxt;
        if bytes >= self.mss() {
            self.path_acked(now, una, bytes);
        }
        self.bytes_acked += u64::from(bytes);
        let rtt_ns = now.nanos_since(sent_at);
        self.rtt.sample_ns(rtt_ns);
        if self.has_sack() {
            self.note_rack(now, SentAt { at: sent_at, end: self.snd.nxt });
        }
        let limited = self.status.contains(Status::CWND_LIMITED);
        let srtt_ns = self.rtt.srtt_ns();
        let ack = Noted { now, una, in_flight: bytes, piped, srtt_ns };
        if limited || !self.controller.notes(&ack) {
            self.grow_calmly(now, bytes, piped, rtt_ns);
        }
        self.sendq.records.rate.count(now, bytes, sent_at, rtt_ns);
        // RFC 6298 §5.2; nothing is left to probe for either.
        self.timers.clear(Timer::Retransmit);
        self.timers.clear(Timer::Reorder);
        self.timers.clear(Timer::Probe);
        if self.status.contains(Status::USER_TIMEOUT) {
            self.arm_user_timeout();
        }
        self.tally.idle(now);
        true
    }

    #[inline(never)]
    fn grow_calmly(&mut self, now: Instant, bytes: u32, piped: u32, rtt_ns: u64) {
        let rtt = Some(Duration::from_nanos(rtt_ns));
        let advance = Advance { bytes, in_flight: bytes, piped, rtt, moved: true, echo: false };
        self.grow(now, &advance, false);
    }

    /// Takes the ACK of something else.
    #[inline(never)]
    fn take_other_ack(&mut self, now: Instant, ack: SeqNum, h: PlainTcp) {
        if !self.take_plain_ack(now, ack, false) {
            self.stir();
            let news = self.no_news();
            self.take_new_ack(now, ack, &TcpHeader::from(h), news);
        }
    }

    /// As [`Tcb::read`], of all that has arrived, if that is in one piece and the connection was calm
    /// the last time: neither its end nor an error has to be looked for.
    #[inline(always)]
    pub(crate) fn read_small(&mut self, out: &mut [u8]) -> Option<usize> {
        if !self.calm {
            return None;
        }
        let len = self.recvq.read_only(out)?;
        if self.rcv.edge.since(self.rcv.nxt) < self.still.0 {
            self.after_read();
        }
        Some(len)
    }

    /// True if [`Tcb::read`] would block, and nothing else would come of it: the connection was calm the
    /// last time.
    #[inline(always)]
    pub(crate) fn has_nothing_to_read(&self) -> bool {
        self.calm && self.recvq.is_empty()
    }

    /// Whether every segment has timestamps, once that is agreed on.
    #[inline(always)]
    pub(crate) fn is_stamped(&self) -> Option<bool> {
        let agreed = self.state == State::Established;
        agreed.then_some(self.status.contains(Status::TIMESTAMPS))
    }

    /// An ACK is to be sent, with data or alone.
    #[inline(always)]
    pub(crate) fn owes_ack(&self) -> bool {
        self.pending.contains(Pending::ACK)
    }

    // --- out -------------------------------------------------------------------------------------

    /// As [`Tcb::write`], of a small message when nothing is queued, if nothing unusual goes on.
    /// Afterwards it still has room for more, as before; false if nothing was done.
    #[inline(always)]
    pub(crate) fn write_small(&mut self, pool: &Pool, data: &[u8]) -> bool {
        let small = (1..=SMALL_MAX).contains(&data.len())
            && self.sendq.len() == 0
            && self.snd.buffer >= 2 * SMALL_MAX as u32
            && !self.status.contains(Status::CORK)
            && self.is_calm();
        if small {
            self.more_to_come = false;
        }
        small && self.sendq.copy_small(pool, data)
    }

    /// Adds all that is unsent to the burst, if it lies in a cell of its own and may leave at once,
    /// with the headers that are [kept](Tcb::front); otherwise does nothing and says false. With
    /// `offload` the device completes the sum.
    // A function of its own: what the caller still needs would take the registers away.
    #[inline(never)]
    pub(crate) fn send_small(&mut self, now: Instant, offload: bool, burst: &mut TxBurst) -> bool {
        let Some(len) = self.sendq.small_len() else { return false };
        let (mss, in_flight) = (self.mss(), self.snd.nxt.get().wrapping_sub(self.snd.una.get()));
        let (idle, flight) = (in_flight == 0, in_flight + len);
        let held = self.more_to_come || self.status.intersects(HELD) || self.ecn.agreed;
        if len > mss || flight > self.snd.wnd || held {
            return false;
        }
        // With nothing in flight, one segment is within every congestion window, and not the second
        // small one.
        if !(idle || self.may_follow(flight)) || !self.is_calm() {
            return false;
        }
        if idle {
            self.restart_calmly(now);
        }
        let seq = self.snd.nxt;
        self.snd.nxt += len;
        self.note_small_sent(now, seq, len, mss);
        self.probe_calmly(now, flight, mss);
        let header = self.small_header(now, seq, len);
        if let Some(frame) = self.sendq.send_small(&self.front, &header, offload) {
            burst.push_single(frame, self.front.describe(offload));
        }
        true
    }

    /// True if a small message may follow what is in flight, which makes it so much.
    #[inline(never)]
    fn may_follow(&self, flight: u32) -> bool {
        // Nagle's algorithm, as in `sendable`.
        let whole = self.snd.small_end.before_eq(self.snd.una)
            || (self.status.contains(Status::NODELAY) && self.crumbs_fit());
        whole && flight <= self.controller.cwnd()
    }

    /// As [`Tcb::restart_after_idle`].
    #[inline(always)]
    fn restart_calmly(&mut self, now: Instant) {
        if now.nanos_since(self.last_sent) > self.rtt.rto_ns() {
            self.restart_after_idle(now);
        } else {
            self.controller.resume(now);
        }
    }

    /// As [`Tcb::note_sent`] and [`Tcb::note_what_limits`], for all that was unsent.
    #[inline(always)]
    fn note_small_sent(&mut self, now: Instant, seq: SeqNum, len: u32, mss: u32) {
        self.timers.clear(Timer::Cork);
        if len < mss {
            self.snd.small_end = self.snd.nxt;
        }
        self.sendq.records.sent(seq, len, mss, now);
        self.last_sent = now;
        // RFC 6298 §5.1.
        if !self.timers.is_set(Timer::Retransmit) {
            self.timers.set(Timer::Retransmit, now.after_nanos(self.rtt.rto_ns()));
        }
        // Data that answers data: an interactive peer, which gains nothing from ACKs of their own.
        if self.rcv.nxt != self.rcv.acked {
            self.rcv.quick_acks = 0;
        }
        if self.snd.una.after_eq(self.snd.full_at) {
            self.status -= Status::CWND_LIMITED;
        }
    }

    /// As [`Tcb::window_field`]: a window that [stands still](Tcb::still_windows) is offered as before,
    /// rounded up to what the field can say.
    #[inline(always)]
    fn window_calmly(&mut self) -> u16 {
        // An edge that has been passed is beyond all windows, and left to the others as well.
        let current = self.rcv.edge.get().wrapping_sub(self.rcv.nxt.get());
        let (least, most) = self.still;
        if current < least || current > most || !self.recvq.is_empty() {
            return self.window_field(Growth::Yes);
        }
        let scale = self.rcv.scale;
        let field = (current + (scale.bytes(1) - 1)) >> scale.shift();
        self.rcv.edge = self.rcv.nxt + scale.bytes(field as u16);
        field as u16
    }

    /// The header of a message that ends what was written, and the note that its ACK was sent.
    #[inline(always)]
    fn small_header(&mut self, now: Instant, seq: SeqNum, len: u32) -> PlainTcp {
        let window = self.window_calmly();
        self.pending = Pending::empty();
        self.timers.clear(Timer::DelayedAck);
        self.rcv.acked = self.rcv.nxt;
        self.tally.sent_one(now, len);
        self.tally.busy(now);
        PlainTcp {
            src_port: 0,
            dst_port: 0,
            seq: seq.get(),
            ack: self.rcv.nxt.get(),
            flags: TcpFlags::ACK | TcpFlags::PSH,
            window,
            timestamps: self.timestamps(now),
        }
    }
}

#[cfg(test)]
#[path = "tests/calm.rs"]
mod tests;
