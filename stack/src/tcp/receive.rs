//! The seventh and eighth step of RFC 9293 §3.10.7.4: text and FIN, and when to acknowledge them.

use barewire_driver::PacketSlice;

use super::assembler::{Assembler, Inserted};
use super::ranges::Range;
use super::recvq;
use super::seq::SeqNum;
use super::state::State;
use super::tcb::{Pending, Status, Tcb, forget};
use super::timers::Timer;
use super::{DropReason, Memory, Outcome, Segment};
use crate::time::Instant;
use crate::wire::tcp::{SackBlocks, TcpFlags};

/// Most duplicate ACKs owed at one time. Three mean a loss; a sender that counts more of them needs
/// no more than a few at once to keep its window moving.
const DUP_ACKS_MAX: u8 = 64;

/// Bytes of a SACK option without its blocks, padded, and of each block (RFC 2018 §3).
const SACK_HEAD_LEN: u32 = 4;
const SACK_BLOCK_LEN: u32 = 8;

impl Tcb {
    /// Takes text and FIN of an acceptable segment whose first byte of text is `seq`.
    pub(super) fn text_and_fin(
        &mut self,
        now: Instant,
        seq: SeqNum,
        segment: Segment<'_>,
    ) -> Outcome {
        let fin = segment.header.flags.contains(TcpFlags::FIN);
        let end = seq + segment.payload_len;
        if !self.state.can_receive() {
            // RFC 9293 §3.10.7.4: "This should not occur since a FIN has been received from the remote
            // side. Ignore the segment text." A repeated FIN lies before the window, and was answered.
            if segment.payload_len > 0 || fin {
                self.dropped = Some(DropReason::AfterFin);
            }
            return Outcome::Continue;
        }
        if segment.payload_len > 0 && end.after(self.rcv.nxt) {
            if self.status.contains(Status::APP_CLOSED) {
                // RFC 1122 §4.2.2.13: nobody will read this.
                self.dropped = Some(DropReason::Closed);
                return self.reset_peer();
            }
            self.take_text(now, seq, segment);
        } else if segment.payload_len > 0 {
            self.note_duplicate(seq, end);
            self.pending |= Pending::ACK;
        }
        self.take_fin(now, fin.then_some(end))
    }

    /// The peer's FIN, in this segment or in an earlier one that came out of sequence.
    pub(super) fn take_fin(&mut self, now: Instant, fin: Option<SeqNum>) -> Outcome {
        let reached = match fin {
            Some(at) if at == self.rcv.nxt => true,
            Some(at) if at.after(self.rcv.nxt) && at.before_eq(self.rcv.edge) => {
                self.assembler.get_or_insert_default().set_fin(at);
                self.pending |= Pending::ACK;
                false
            }
            _ => self.assembler.as_ref().is_some_and(|a| a.fin_reached(self.rcv.nxt)),
        };
        if !reached {
            return Outcome::Continue;
        }
        self.rcv.nxt += 1;
        self.rcv.edge = self.rcv.edge.later(self.rcv.nxt);
        forget(&mut self.assembler);
        self.status |= Status::EOF;
        self.pending |= Pending::ACK;
        let before = self.state;
        self.state = before.on_fin_received();
        match self.state {
            State::TimeWait => self.enter_time_wait(now),
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => Outcome::Continue,
        }
    }

    /// Takes text that lies at least partly beyond rcv.nxt.
    pub(super) fn take_text(&mut self, now: Instant, seq: SeqNum, segment: Segment<'_>) {
        let Segment { payload, payload_len, wire_segments, memory, .. } = segment;
        let wire_segments = wire_segments.max(1);
        self.note_peer_segment(payload_len, wire_segments);
        if self.rcv.edge.before_eq(self.rcv.nxt) {
            self.dropped = Some(DropReason::ZeroWindow);
            self.note_duplicate(seq, seq + payload_len);
            self.pending |= Pending::ACK;
            return;
        }
        let limit = recvq::pinned_max(self.rcv.buffer);
        let read_shut = self.status.contains(Status::READ_SHUT);
        self.status.set(Status::MEMORY_SCARCE, memory != Memory::Plenty);
        if memory == Memory::Exhausted && !read_shut {
            self.dropped = Some(DropReason::ReceiveMemory);
            if seq.after(self.rcv.nxt) {
                // What waits behind a gap was never acknowledged: the peer still has it, and the
                // memory is needed by others (RFC 9293 §3.10.7.4 leaves keeping it to choice).
                forget(&mut self.assembler);
            }
            return;
        }
        if seq.after(self.rcv.nxt) {
            self.tally.out_of_order =
                self.tally.out_of_order.wrapping_add(u32::from(wire_segments));
            self.keep_out_of_sequence(seq, payload, limit);
            // RFC 5681 §4.2: a duplicate ACK at once for each, so that the peer counts to three.
            let owed = u32::from(self.rcv.dup_acks) + u32::from(wire_segments);
            self.rcv.dup_acks = owed.min(u32::from(DUP_ACKS_MAX)) as u8;
            return;
        }
        if self.recvq.pinned() >= limit && !read_shut {
            // Like a loss: the peer sends it again, by then the application may have read.
            self.dropped = Some(DropReason::ReceiveMemory);
            return;
        }
        let had_gap = self.assembler.is_some();
        self.note_duplicate(seq, seq + payload_len);
        self.deliver(seq, payload);
        if self.assembler.as_ref().is_some_and(|a| a.is_empty()) {
            forget(&mut self.assembler);
        }
        self.tune_receive(now);
        self.schedule_ack(now, had_gap);
    }

    /// The largest wire segment that the peer has sent, as far as the device tells.
    #[inline]
    pub(super) fn note_peer_segment(&mut self, payload_len: u32, wire_segments: u16) {
        let size = match wire_segments {
            0 | 1 => payload_len,
            joined => payload_len.div_ceil(u32::from(joined)),
        };
        if size > u32::from(self.rcv.peer_segment) {
            self.note_larger_segment(size);
        }
    }

    #[inline(never)]
    fn note_larger_segment(&mut self, size: u32) {
        let size = size.min(u32::from(self.rcv.our_mss)) as u16;
        self.rcv.peer_segment = self.rcv.peer_segment.max(size);
    }

    fn keep_out_of_sequence(&mut self, seq: SeqNum, payload: &mut Vec<PacketSlice>, limit: u64) {
        if self.status.contains(Status::READ_SHUT) {
            // Nobody wants it, and only data in sequence can be acknowledged: the peer repeats it.
            self.dropped = Some(DropReason::ReadShut);
            return;
        }
        let mut room = self.rcv.edge.since(seq) as usize;
        let in_window = payload.drain(..).map(|mut slice| {
            slice.truncate(room);
            room -= slice.len();
            slice
        });
        let assembler = self.assembler.get_or_insert_with(|| Box::new(Assembler::default()));
        if assembler.insert(seq, in_window, limit) == Inserted::Partly {
            self.dropped = Some(DropReason::Reassembly);
        }
        if let Some(duplicate) = assembler.take_duplicate()
            && self.config.dsack
        {
            self.rcv.dsack = Some(duplicate);
        }
        if assembler.is_empty() {
            forget(&mut self.assembler);
        }
    }

    /// RFC 2883 §4: what of `[start, end)` lies before rcv.nxt has arrived before, and the next ACK
    /// says so.
    pub(super) fn note_duplicate(&mut self, start: SeqNum, end: SeqNum) {
        let end = end.earlier(self.rcv.nxt);
        if start.before(end) && self.has_sack() && self.config.dsack {
            self.rcv.dsack = Some(Range { start, end });
            self.pending |= Pending::ACK;
        }
    }

    /// The same of bytes behind a gap that the segment has filled: they were held and came again.
    fn note_held_twice(&mut self, start: SeqNum, end: SeqNum) {
        if !self.has_sack() || !self.config.dsack {
            return;
        }
        match &mut self.rcv.dsack {
            Some(range) if range.end == start => range.end = end,
            // RFC 2883 §4: one range is reported, the first.
            Some(_) => {}
            None => self.rcv.dsack = Some(Range { start, end }),
        }
        self.pending |= Pending::ACK;
    }

    /// What the next ACK reports beyond its number (RFC 2018 §4, RFC 2883 §4): first what arrived
    /// twice, then the runs behind gaps. Nothing if it does not fit behind `payload_len` bytes.
    pub(super) fn sack_blocks(&mut self, payload_len: u32) -> SackBlocks {
        let mut blocks = SackBlocks::new();
        let most = if self.status.contains(Status::TIMESTAMPS) { 3 } else { SackBlocks::MAX };
        let runs = self.assembler.iter().flat_map(|a| a.recent_runs());
        for block in self.rcv.dsack.into_iter().chain(runs).take(most) {
            blocks.push(block.start.get(), block.end.get());
        }
        let room = self.mss().saturating_sub(payload_len);
        if blocks.len() as u32 * SACK_BLOCK_LEN + SACK_HEAD_LEN > room {
            return SackBlocks::new();
        }
        self.rcv.dsack = None;
        blocks
    }

    /// Moves text in sequence to the receive queue, and behind it what had waited for it. Where
    /// both have a byte, the one that waited was received first and wins.
    fn deliver(&mut self, mut at: SeqNum, payload: &mut Vec<PacketSlice>) {
        let before = self.rcv.nxt;
        // Nothing lies behind the peer's FIN, whatever it sends there.
        let fin = self.assembler.as_ref().and_then(|a| a.fin());
        let end = fin.map_or(self.rcv.edge, |fin| fin.earlier(self.rcv.edge));
        for mut slice in payload.drain(..) {
            slice.truncate(end.later(at).since(at) as usize);
            loop {
                let known = (self.rcv.nxt.since(at) as usize).min(slice.len());
                if known > 0 && at.after_eq(before) {
                    self.note_held_twice(at, at + known as u32);
                }
                slice.advance(known);
                at += known as u32;
                if slice.is_empty() {
                    break;
                }
                let gap = match self.assembler.as_ref().and_then(|a| a.first()) {
                    Some(first) => slice.len().min(first.since(self.rcv.nxt) as usize),
                    None => slice.len(),
                };
                at += gap as u32;
                if gap == slice.len() {
                    self.append(slice);
                    self.append_waiting();
                    break;
                }
                self.append(slice.split_to(gap));
                self.append_waiting();
            }
        }
        self.bytes_received += u64::from(self.rcv.nxt.since(before));
    }

    fn append_waiting(&mut self) {
        while let Some(slice) = self.assembler.as_mut().and_then(|a| a.take(self.rcv.nxt)) {
            self.append(slice);
        }
    }

    fn append(&mut self, slice: PacketSlice) {
        self.rcv.nxt += slice.len() as u32;
        if self.status.contains(Status::READ_SHUT) {
            self.dropped = Some(DropReason::ReadShut);
        } else {
            self.recvq.push(slice);
        }
    }

    /// Delaying is off.
    pub(super) fn acks_at_once(&self) -> bool {
        self.ack_delay_ns == 0
    }

    /// RFC 9293 §3.8.6.3, RFC 5681 §4.2: an ACK may wait, but not while there are gaps, not for
    /// more than two full segments, and not at the start, when the peer's window is small.
    #[inline(always)]
    pub(super) fn schedule_ack(&mut self, now: Instant, had_gap: bool) {
        // RCV.NXT never lies before what was acknowledged.
        let unacked = self.rcv.nxt.get().wrapping_sub(self.rcv.acked.get());
        let full = 2 * u32::from(self.rcv.peer_segment);
        if had_gap || unacked >= full || self.rcv.quick_acks > 0 {
            self.rcv.quick_acks = self.rcv.quick_acks.saturating_sub(1);
            self.pending |= Pending::ACK;
        } else if self.acks_at_once() {
            self.pending |= Pending::ACK;
        } else if !self.timers.is_set(Timer::DelayedAck) {
            self.timers.set(Timer::DelayedAck, now.after_nanos(self.ack_delay_ns.into()));
        }
    }
}
