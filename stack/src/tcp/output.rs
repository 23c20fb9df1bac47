//! What to send next, and why not yet.
//!
//! ```text
//!   RST ▸ SYN ▸ duplicate ACKs owed ▸ fast retransmit ▸ resend after a timeout ▸ new data and FIN
//!       ▸ zero-window probe ▸ keepalive probe ▸ ACK
//! ```
//!
//! The first that applies is the next transmission; everything but RST and SYN carries the newest
//! ACK. Data leaves as super-segments: as much as the windows, the device's limits and the number
//! of pieces allow, cut into wire segments where the burst is written.

use std::hint::cold_path;

use barewire_driver::PacketSlice;

use super::congestion::CongestionControl;
use super::seq::{SeqNum, WindowScale};
use super::state::State;
use super::tcb::{Pending, Status, Tcb, ts_clock};
use super::timers::Timer;
use super::window::Growth;
use super::{RST_ACK, TcpConfig, Transmit, TxLimits};
use crate::hint::rarely;
use crate::time::{Duration, Instant};
use crate::wire::ipv4::Ecn;
use crate::wire::tcp::{SackBlocks, TcpFlags, TcpHeader, TcpOptions, Timestamps};

/// How long `TCP_CORK` and `MSG_MORE` may hold a partial segment back.
pub(crate) const CORK_MAX: Duration = Duration::from_millis(200);

/// Why queued data does not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocked {
    /// Nothing is queued, or an ACK will come that lets it go.
    No,
    /// `TCP_CORK` or `MSG_MORE` waits for a full segment.
    Cork,
    /// The peer's window, with nothing in flight whose ACK could open it.
    Window,
}

impl Tcb {
    /// True if [`Tcb::poll_transmit`] has something to send or a deadline to set.
    #[inline(always)]
    pub fn wants_transmit(&self) -> bool {
        let owes = !self.pending.is_empty() || self.rcv.dup_acks > 0;
        owes || (self.has_queued() && self.queued_may_leave())
    }

    /// False if [`Tcb::wants_transmit`] is; true if that is to be found out.
    #[inline]
    pub fn may_want_transmit(&self) -> bool {
        !self.pending.is_empty() || self.rcv.dup_acks > 0 || self.has_queued()
    }

    /// Data, lost data or FIN is to be sent once it may.
    #[inline(always)]
    fn has_queued(&self) -> bool {
        // What is lost or to be closed is no calm connection's.
        self.sendq.unsent() > 0 || !self.calm && (self.sendq.records.lost() > 0 || self.fin_waits())
    }

    /// Some of what is queued can be sent now, or a deadline is to be set for it.
    #[inline(never)]
    fn queued_may_leave(&self) -> bool {
        self.may_transmit_data()
            && !self.timers.is_set(Timer::Pacing)
            && (self.fin_due(self.sendq.unsent(), 0)
                || self.resendable(self.mss()).is_some()
                || self.sendable() > 0
                || self.blocked_timer().is_some())
    }

    /// Queued data may leave: in the states that allow it, and with fast open before that.
    fn may_transmit_data(&self) -> bool {
        self.state.can_transmit_data() || (self.state == State::SynReceived && self.writes_early())
    }

    /// The next transmission; its payload is appended to `payload`. `None` if nothing may be sent
    /// now: call it until then.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        limits: &TxLimits,
        payload: &mut Vec<PacketSlice>,
    ) -> Option<Transmit> {
        if self.pending.contains(Pending::RST) {
            cold_path();
            self.pending = Pending::empty();
            return Some(self.bare(self.rst(now)));
        }
        if self.pending.contains(Pending::SYN) {
            self.pending -= Pending::SYN;
            return Some(self.emit_syn(now, payload));
        }
        match self.state {
            State::Closed | State::Listen | State::SynSent => {
                self.pending = Pending::empty();
                return None;
            }
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => {}
        }
        if self.rcv.dup_acks > 0 {
            self.rcv.dup_acks -= 1;
            let header = self.header_with(now, self.snd.nxt, TcpFlags::ACK, 0, Growth::No);
            return Some(self.bare(header));
        }
        if self.may_transmit_data()
            && let Some(transmit) = self.poll_data(now, limits, payload)
        {
            return Some(transmit);
        }
        if self.pending.contains(Pending::PROBE) {
            self.pending -= Pending::PROBE;
            return Some(self.emit_probe(now, payload));
        }
        if self.pending.contains(Pending::KEEPALIVE) {
            self.pending -= Pending::KEEPALIVE;
            // RFC 9293 §3.8.4: SEG.SEQ = SND.NXT-1, so that the peer must answer.
            return Some(self.emit_ack(now, self.snd.nxt - 1));
        }
        if self.pending.contains(Pending::ACK) {
            return Some(self.emit_ack(now, self.snd.nxt));
        }
        // Requests that turned out to be moot; left standing they would ask for polls forever.
        self.pending = Pending::empty();
        None
    }

    fn poll_data(
        &mut self,
        now: Instant,
        limits: &TxLimits,
        payload: &mut Vec<PacketSlice>,
    ) -> Option<Transmit> {
        if self.pending.contains(Pending::FAST) {
            self.pending -= Pending::FAST;
            let (una, mss) = (self.snd.una, self.mss());
            if una.before(self.snd.nxt) {
                let lost = self.sendq.records.next_lost(mss).filter(|&(from, _)| from == una);
                let len = lost.map_or(mss, |(_, len)| len);
                return Some(self.emit_again(now, una, len, limits, payload));
            }
        }
        if self.pending.contains(Pending::TAIL) {
            self.pending -= Pending::TAIL;
            if let Some(transmit) = self.emit_tail_probe(now, limits, payload) {
                return Some(transmit);
            }
        }
        self.timers.take_due(Timer::Pacing, now);
        if self.timers.is_set(Timer::Pacing) {
            return None;
        }
        let limits = &self.paced_limits(limits);
        if let Some((from, room)) = self.resendable(limits.max_bytes) {
            self.sendq.records.lost_begins_at(from);
            return Some(self.emit_again(now, from, room, limits, payload));
        }
        if self.sendq.unsent() > 0 && self.snd.una == self.snd.nxt {
            self.restart_after_idle(now);
        }
        let sendable = self.sendable();
        if let Some(size) = self.path_probe_due(now, sendable) {
            return Some(self.emit_path_probe(now, size, limits, payload));
        }
        if sendable > 0 || self.fin_due(self.sendq.unsent(), 0) {
            let transmit = self.emit_new(now, sendable, limits, payload);
            self.note_what_limits();
            return Some(transmit);
        }
        self.note_what_limits();
        self.note_activity(now);
        match self.blocked_timer() {
            Some(Timer::Cork) => self.timers.set(Timer::Cork, now + CORK_MAX),
            Some(timer) => {
                let wait = self.rtt.rto_after(self.persist_backoff);
                self.timers.set(timer, now + wait);
            }
            None => {}
        }
        None
    }

    // --- how much --------------------------------------------------------------------------------

    /// Bytes that the peer's window still takes.
    pub(super) fn peer_room(&self) -> u32 {
        (self.snd.una + self.snd.wnd).since(self.snd.nxt)
    }

    /// Bytes that the congestion window still takes.
    pub(super) fn cwnd_room(&self) -> u32 {
        let (pipe, mss) = (self.pipe(), self.mss());
        let room = self.recovery.room(&self.controller, pipe, mss, self.has_sack());
        // RFC 5681 §3.1: no window is less than a segment. It may have been set when segments were
        // smaller; nothing would ever leave then, and no ACK would make it grow.
        if pipe == 0 { room.max(mss) } else { room }
    }

    /// New data may leave, or must before anything is sent again.
    fn is_new_datas_turn(&self) -> bool {
        self.sendq.records.lost() == 0
            || self.recovery.new_data_first(self.snd.nxt, self.mss()).is_some_and(|left| left > 0)
    }

    /// Bytes of new data that may leave now (RFC 9293 §3.8.6.2.1, and Nagle's algorithm, §3.7.4).
    pub(super) fn sendable(&self) -> u32 {
        let unsent = self.sendq.unsent();
        if unsent == 0 || !self.is_new_datas_turn() {
            return 0;
        }
        let (mss, peer_room, cwnd_room) = (self.mss(), self.peer_room(), self.cwnd_room());
        let room = peer_room.min(cwnd_room);
        if unsent <= room {
            let tail = if unsent < mss { unsent } else { unsent % mss };
            // (2) of §3.8.6.2.1: all that was written fits; the peer is not waiting in vain for
            // more, so only Nagle and cork may hold the last partial segment back.
            if tail == 0 || self.may_send_tail() { unsent } else { unsent - tail }
        } else if room >= mss {
            // (1): a full segment can be sent.
            room - room % mss
        } else if peer_room > cwnd_room {
            0
        } else if self.pending.contains(Pending::OVERRIDE) {
            // (4): the override timeout.
            room
        } else if self.snd.una == self.snd.nxt && room > 0 && room >= self.snd.max_wnd / 2 {
            // (3): Fs = 1/2 of the largest window ever offered.
            room
        } else {
            0
        }
    }

    /// Nagle's algorithm, as refined by Minshall: a partial segment waits only for the ACK of an
    /// earlier partial one, so that a large write never waits for a delayed ACK.
    fn may_send_tail(&self) -> bool {
        if self.status.contains(Status::FIN_QUEUED) || self.pending.contains(Pending::OVERRIDE) {
            return true;
        }
        !self.is_corked()
            && (self.snd.small_end.before_eq(self.snd.una)
                || (self.status.contains(Status::NODELAY) && self.crumbs_fit()))
    }

    /// Small segments without Nagle's algorithm: a network counts packets, whatever is in them, so
    /// there are no more transmissions in flight than the window has segments. What is written
    /// meanwhile leaves together.
    pub(super) fn crumbs_fit(&self) -> bool {
        let out = self.sendq.records.len() as u64;
        out * u64::from(self.mss()) < u64::from(self.controller.cwnd())
    }

    /// FIN is queued and has not been sent.
    pub(super) fn fin_waits(&self) -> bool {
        self.status & (Status::FIN_QUEUED | Status::FIN_SENT) == Status::FIN_QUEUED
    }

    /// FIN is to be sent behind `n` bytes that leave now, with `left` unsent after them. It takes a
    /// sequence number, which has to lie in the peer's window (RFC 9293 §3.4).
    #[inline]
    pub(super) fn fin_due(&self, left: u32, n: u32) -> bool {
        left == 0 && self.fin_waits() && self.peer_room() > n && self.is_new_datas_turn()
    }

    /// Lost bytes that may be sent again now: where they begin, and how many.
    fn resendable(&self, max: u32) -> Option<(SeqNum, u32)> {
        let mss = self.mss();
        let (from, len) = self.sendq.records.next_lost(whole_segments(max, mss))?;
        if self.recovery.new_data_first(self.snd.nxt, mss).is_some() && self.probes_with_new(mss) {
            return None;
        }
        let mut room = self.cwnd_room();
        // RFC 9293 §3.8.6: what is at snd.una is sent again whatever the window has become.
        if from != self.snd.una {
            room = room.min((self.snd.una + self.snd.wnd).since(from));
        }
        if room >= len {
            return Some((from, len));
        }
        (room >= mss).then(|| (from, whole_segments(room, mss)))
    }

    /// F-RTO has new data to send, or waits for what comes back for it.
    fn probes_with_new(&self, mss: u32) -> bool {
        self.snd.nxt.after(self.recovery.recovery_point())
            || (self.sendable() > 0 && self.cwnd_room() >= mss)
    }

    pub(super) fn blocked(&self) -> Blocked {
        let unsent = self.sendq.unsent();
        if (unsent == 0 && !self.fin_waits())
            || self.sendable() > 0
            || self.sendq.records.lost() > 0
        {
            return Blocked::No;
        }
        // FIN without data takes a sequence number, too.
        if self.peer_room() < unsent.clamp(1, self.mss()) {
            let idle = self.snd.una == self.snd.nxt;
            return if idle { Blocked::Window } else { Blocked::No };
        }
        if self.is_corked() { Blocked::Cork } else { Blocked::No }
    }

    /// What is held back until there is more of it leaves now, as far as the windows allow.
    pub fn push(&mut self) {
        let unsent = self.sendq.unsent();
        if unsent > 0 && unsent <= self.peer_room().min(self.cwnd_room()) {
            self.pending |= Pending::OVERRIDE;
        }
    }

    /// The application has said that a partial segment will become a full one.
    fn is_corked(&self) -> bool {
        self.more_to_come || self.status.contains(Status::CORK)
    }

    /// The timer that must run because data is held back, if it does not run yet.
    fn blocked_timer(&self) -> Option<Timer> {
        let timer = match self.blocked() {
            Blocked::No => return None,
            Blocked::Cork => Timer::Cork,
            Blocked::Window => Timer::Persist,
        };
        let probing = self.pending.contains(Pending::PROBE);
        (!self.timers.is_set(timer) && !probing).then_some(timer)
    }

    /// Remembers whether the congestion window is what holds data back: only if it was full within
    /// the last round trip may it grow. If it is the application instead, rates seen from here on are its own,
    /// which only controllers that look at rates ask about. An application that the send buffer
    /// has no room for is not what limits them.
    #[inline]
    pub(super) fn note_what_limits(&mut self) {
        let unsent = self.sendq.unsent();
        if rarely(unsent > 0) && self.cwnd_room() < self.mss() {
            self.status |= Status::CWND_LIMITED;
            self.snd.full_at = self.snd.nxt;
        } else if self.snd.una.after_eq(self.snd.full_at) {
            self.status -= Status::CWND_LIMITED;
        }
        if !self.controller.models_path() {
            return;
        }
        cold_path();
        let dry = unsent < self.mss() && self.sendq.records.lost() == 0 && self.is_roomy();
        if dry && self.cwnd_room() > 0 {
            let pipe = self.pipe();
            self.sendq.records.rate.mark_app_limited(pipe);
        }
    }

    /// RFC 5681 §4.1: after an idle time the window says nothing about the path any more.
    pub(super) fn restart_after_idle(&mut self, now: Instant) {
        let long = now > self.rtt.deadline(self.last_sent);
        let restart = long && self.config.slow_start_after_idle;
        if long && !restart {
            self.controller.on_long_idle(now);
        }
        self.controller.on_idle(now, restart.then(|| self.initial_window()));
    }

    // --- segments --------------------------------------------------------------------------------

    pub(super) fn emit_new(
        &mut self,
        now: Instant,
        sendable: u32,
        limits: &TxLimits,
        payload: &mut Vec<PacketSlice>,
    ) -> Transmit {
        let mss = self.mss();
        let most = limits.max_bytes.min(self.ecn_segment_max());
        let want = sendable.min(whole_segments(most, mss));
        let n = self.sendq.take_unsent(want, limits.max_pieces.max(1), mss, payload);
        self.cut = limits.cut;
        let seq = self.snd.nxt;
        let flags = self.note_sent(now, n);
        let ecn = if n > 0 { self.ecn_data_mark() } else { Ecn::NotEct };
        let header = self.header(now, seq, flags, n);
        Transmit { header, payload_len: n, mss: self.snd.mss, ecn }
    }

    /// Notes that the next `n` bytes, with FIN if it is due, leave now; gives the segment's flags.
    #[inline(never)]
    pub(super) fn note_sent(&mut self, now: Instant, n: u32) -> TcpFlags {
        let fin = self.fin_due(self.sendq.unsent(), n);
        self.note_transmission(now, n, fin)
    }

    /// The same, where it is known whether FIN is due.
    #[inline(always)]
    pub(super) fn note_transmission(&mut self, now: Instant, n: u32, fin: bool) -> TcpFlags {
        let mut flags = TcpFlags::ACK;
        if n > 0 {
            flags |= self.ecn_data_flags();
        }
        if n > 0 && self.sendq.unsent() == 0 {
            flags |= TcpFlags::PSH;
        }
        if fin {
            flags |= TcpFlags::FIN;
            self.status |= Status::FIN_SENT;
        }
        let seq = self.snd.nxt;
        let len = n + u32::from(fin);
        self.snd.nxt += len;
        self.status -= Status::PROBED;
        self.pending -= Pending::OVERRIDE;
        self.timers.clear(Timer::Cork);
        // A division is dear; most messages are less than a segment.
        if n > 0 && (n < self.mss() || !n.is_multiple_of(self.mss())) {
            self.snd.small_end = self.snd.nxt;
        }
        let first = self.sendq.records.is_empty();
        self.sendq.records.sent(seq, len, self.mss(), now);
        self.recovery.on_sent(len);
        if first && rarely(self.status.contains(Status::USER_TIMEOUT)) {
            self.arm_user_timeout();
        }
        self.last_sent = now;
        self.pace(now, n);
        // RFC 6298 §5.1.
        if !self.timers.is_set(Timer::Retransmit) {
            self.timers.set(Timer::Retransmit, self.rtt.deadline(now));
        }
        self.schedule_probe(now);
        // Data that answers data: an interactive peer, which gains nothing from ACKs of their own.
        if n > 0 && self.rcv.nxt != self.rcv.acked {
            self.rcv.quick_acks = 0;
        }
        flags
    }

    /// Sends up to `room` sequence numbers from `from` on again, which are whole segments or all of
    /// what is lost there.
    pub(super) fn emit_again(
        &mut self,
        now: Instant,
        from: SeqNum,
        room: u32,
        limits: &TxLimits,
        payload: &mut Vec<PacketSlice>,
    ) -> Transmit {
        debug_assert!(self.status.contains(Status::SYN_ACKED), "only a SYN leaves again before");
        let mss = self.mss();
        let fin = self.status.contains(Status::FIN_SENT);
        let data_end = self.snd.nxt - u32::from(fin);
        let left = data_end.since(from);
        // RFC 9293 §3.8.6: into a window that the peer has shrunk to nothing goes a probe.
        let most = if self.snd.wnd == 0 { 1 } else { whole_segments(limits.max_bytes, mss) };
        let want = room.min(most).min(left);
        let offset = from.since(self.snd.una);
        let n = self.sendq.again(offset, want, limits.max_pieces.max(1), mss, payload);
        let mut flags = TcpFlags::ACK;
        let with_fin = fin && n == left;
        if with_fin {
            flags |= TcpFlags::FIN;
        }
        if n == left && n > 0 {
            flags |= TcpFlags::PSH;
        }
        let len = n + u32::from(with_fin);
        self.note_resent(now, from, len);
        self.path_resent(now, from, len);
        self.tally.bytes_resent += u64::from(n);
        self.retransmissions = self.retransmissions.saturating_add(n.div_ceil(mss).max(1));
        self.last_sent = now;
        self.pace(now, n);
        if !self.timers.is_set(Timer::Retransmit) {
            self.timers.set(Timer::Retransmit, now + self.rtt.rto());
        }
        let (header, ecn) = (self.header(now, from, flags, n), Ecn::NotEct);
        Transmit { header, payload_len: n, mss: self.snd.mss, ecn }
    }

    /// `[from, from + len)` leaves again.
    fn note_resent(&mut self, now: Instant, from: SeqNum, len: u32) {
        self.sendq.records.resent(from, len, now, self.has_rack());
        self.recovery.on_resent(from, len, ts_clock(now, self.ts_offset));
        if from == self.snd.una && self.has_sack() {
            // The round trip of what the timer waits for begins again.
            self.timers.set(Timer::Retransmit, now + self.rtt.rto());
        }
        if self.is_repairing() {
            self.schedule_probe(now);
        }
    }

    /// True if a SYN with all of the usual options and nothing else is to be sent: what
    /// [`Tcb::poll_transmit`] would give out next.
    #[inline(always)]
    pub(crate) fn sends_usual_syn(&self) -> bool {
        let TcpConfig { window_scale, sack, timestamps, .. } = *self.config;
        self.state == State::SynSent
            && self.pending.contains(Pending::SYN)
            && !self.pending.contains(Pending::RST)
            && self.fast_open.is_none()
            && window_scale
            && sack
            && timestamps
    }

    /// As [`Tcb::poll_transmit`], of [such a SYN](Tcb::sends_usual_syn).
    #[inline]
    pub(crate) fn poll_syn(&mut self, now: Instant) -> TcpHeader {
        self.pending -= Pending::SYN;
        self.emit_syn(now, &mut Vec::new()).header
    }

    #[inline]
    fn emit_syn(&mut self, now: Instant, payload: &mut Vec<PacketSlice>) -> Transmit {
        let seq = self.snd.una;
        let first = self.snd.nxt == seq;
        if first {
            self.snd.nxt += 1;
            self.sendq.records.sent(seq, 1, self.mss(), now);
            // Most handshakes end long before: the first data's deadline comes next.
            self.timers.foresee(now + self.config.rto_min);
        } else {
            cold_path();
            self.sendq.records.resent(seq, 1, now, false);
            self.retransmissions = self.retransmissions.saturating_add(1);
        }
        self.last_sent = now;
        self.timers.set(Timer::Retransmit, self.rtt.deadline(now));
        if rarely(self.status.contains(Status::USER_TIMEOUT)) {
            self.arm_user_timeout();
        }
        let active = !rarely(self.state != State::SynSent);
        let answering = |status| active || self.status.contains(status);
        // What came with the peer's SYN (RFC 7413) may still wait to be read.
        let offered = if active { self.rcv.buffer } else { self.rcv.edge.since(self.rcv.nxt) };
        let mut header = TcpHeader {
            seq: seq.get(),
            flags: TcpFlags::SYN | self.ecn_syn_flags(),
            window: WindowScale::NONE.field_down(offered),
            options: TcpOptions {
                mss: Some(self.rcv.our_mss),
                window_scale: (self.config.window_scale && answering(Status::SCALING))
                    .then(|| self.rcv.scale.shift()),
                sack_permitted: self.config.sack && answering(Status::SACK),
                timestamps: (self.config.timestamps && answering(Status::TIMESTAMPS))
                    .then(|| self.clock(now)),
                ..TcpOptions::default()
            },
            ..TcpHeader::default()
        };
        if !active {
            header.flags |= TcpFlags::ACK;
            header.ack = self.rcv.nxt.get();
            self.rcv.acked = self.rcv.nxt;
        }
        self.pending -= Pending::ACK;
        let payload_len = if active { self.fill_syn(now, &mut header, first, payload) } else { 0 };
        let mss = self.snd.mss.max(payload_len as u16);
        self.tally.sent(now, payload_len, mss);
        Transmit { header, payload_len, mss, ecn: Ecn::NotEct }
    }

    fn emit_ack(&mut self, now: Instant, seq: SeqNum) -> Transmit {
        let header = self.header(now, seq, TcpFlags::ACK, 0);
        self.bare(header)
    }

    fn bare(&self, header: TcpHeader) -> Transmit {
        Transmit { header, payload_len: 0, mss: self.snd.mss, ecn: Ecn::NotEct }
    }

    /// RFC 9293 §3.10.5 (ABORT). The ACK lets peers that check it believe the RST. RFC 7323 §3.2:
    /// it should carry timestamps, too.
    fn rst(&self, now: Instant) -> TcpHeader {
        TcpHeader {
            seq: self.snd.nxt.get(),
            ack: self.rcv.nxt.get(),
            flags: RST_ACK,
            options: TcpOptions { timestamps: self.timestamps(now), ..TcpOptions::default() },
            ..TcpHeader::default()
        }
    }

    pub(super) fn header(
        &mut self,
        now: Instant,
        seq: SeqNum,
        flags: TcpFlags,
        payload_len: u32,
    ) -> TcpHeader {
        self.header_with(now, seq, flags, payload_len, Growth::Yes)
    }

    /// The header of a segment with an ACK, and the note that the ACK has been sent. What it has no
    /// room to report a bare ACK tells.
    fn header_with(
        &mut self,
        now: Instant,
        seq: SeqNum,
        flags: TcpFlags,
        payload_len: u32,
        growth: Growth,
    ) -> TcpHeader {
        let timestamps = self.timestamps(now);
        let window = self.window_field(growth);
        let reports = self.has_reports();
        let sack = if reports { self.sack_blocks(payload_len) } else { SackBlocks::new() };
        if payload_len == 0 || !reports || !sack.is_empty() {
            self.pending -= Pending::ACK;
        }
        self.note_ack_sent(now, payload_len);
        TcpHeader {
            seq: seq.get(),
            ack: self.rcv.nxt.get(),
            flags: flags | self.ecn_echo(),
            window,
            options: TcpOptions { timestamps, sack, ..TcpOptions::default() },
            ..TcpHeader::default()
        }
    }

    /// There is something for SACK blocks to tell.
    #[inline]
    pub(super) fn has_reports(&self) -> bool {
        rarely(self.assembler.is_some() || self.rcv.dsack.is_some()) && self.has_sack()
    }

    /// A segment with the newest ACK and `payload_len` bytes leaves.
    #[inline]
    pub(super) fn note_ack_sent(&mut self, now: Instant, payload_len: u32) {
        self.timers.clear(Timer::DelayedAck);
        self.rcv.acked = self.rcv.nxt;
        self.tally.sent(now, payload_len, self.snd.mss);
        self.note_activity(now);
    }

    /// The timestamps of a segment, if they were agreed on.
    #[inline]
    pub(super) fn timestamps(&self, now: Instant) -> Option<Timestamps> {
        self.status.contains(Status::TIMESTAMPS).then(|| self.clock(now))
    }

    fn clock(&self, now: Instant) -> Timestamps {
        Timestamps { val: ts_clock(now, self.ts_offset), ecr: self.ts_recent }
    }
}

/// `bytes` cut to whole segments, at least one.
fn whole_segments(bytes: u32, mss: u32) -> u32 {
    (bytes - bytes % mss).max(mss)
}
