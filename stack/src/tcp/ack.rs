//! The fifth step of RFC 9293 §3.10.7.4: the ACK field, and all that hangs on it: round-trip
//! samples, recovery, the congestion window, the peer's window, and the ACK of our FIN.

use super::congestion::CongestionControl;
use super::delivery::Delivery;
use super::input::Step;
use super::rate::PathSample;
use super::records::Fate;
use super::recovery::{Advance, News};
use super::seq::SeqNum;
use super::state::State;
use super::tcb::{Pending, Status, Tcb, forget, ts_clock};
use super::timers::Timer;
use super::{DropReason, Outcome, reset_with_seq};
use crate::hint::rarely;
use crate::time::{Duration, Instant};
use crate::wire::tcp::{TcpFlags, TcpHeader};

/// RFC 7765 §4.3, rrthresh.
const RTO_RESTART_SEGMENTS: u32 = 4;

impl Tcb {
    pub(super) fn take_ack(
        &mut self,
        now: Instant,
        h: &TcpHeader,
        flags: TcpFlags,
        len: u32,
    ) -> Step {
        if !flags.contains(TcpFlags::ACK) {
            self.dropped = Some(DropReason::NoAck);
            return Step::Done(Outcome::Continue);
        }
        let ack = SeqNum::new(h.ack);
        let good = ack.after(self.snd.una) && ack.before_eq(self.snd_max());
        // In SYN-RECEIVED, or behind it by a close that came first (RFC 9293 §3.10.4).
        if !self.status.contains(Status::SYN_ACKED) {
            if !good {
                self.dropped = Some(DropReason::BadAck);
                return Step::Done(Outcome::Reset(reset_with_seq(h.ack)));
            }
            self.establish(now);
            self.set_window(SeqNum::new(h.seq), ack, self.snd.scale.bytes(h.window));
        }
        // RFC 5961 §5.2: SND.UNA - MAX.SND.WND <= SEG.ACK <= SND.NXT.
        if ack.after(self.snd_max()) || ack.before(self.snd.una - self.snd.max_wnd) {
            self.dropped = Some(DropReason::BadAck);
            self.challenge(now);
            return Step::Done(Outcome::Continue);
        }
        // RFC 7323 §4.3 would follow the timestamp before the ACK is looked at: whoever guesses a
        // sequence number could then turn the clock of RFC 7323 §5 against all that the peer sends.
        self.last_heard = now;
        self.note_timestamp(now, h);
        let in_flight = self.snd.nxt.since(self.snd.una);
        let plain = good && h.options.sack.is_empty() && self.recovery.is_quiet();
        if !(plain && self.take_plain_ack(now, ack, self.ecn_is_echo(flags))) {
            self.take_any_ack(now, h, flags, len, good);
        }
        if self.ecn_is_echo(flags) {
            self.ecn_take_echo(now, in_flight);
        }
        self.update_window(SeqNum::new(h.seq), ack, h.window);
        self.answered();
        if !self.fin_acked() {
            return Step::Next;
        }
        self.take_fin_ack(now)
    }

    /// An ACK of whatever kind; a good one acknowledges something new.
    fn take_any_ack(&mut self, now: Instant, h: &TcpHeader, flags: TcpFlags, len: u32, good: bool) {
        let ack = SeqNum::new(h.ack);
        let mut news = self.take_sack(h);
        news.bare = self.is_bare(h, flags, len);
        if good {
            self.take_new_ack(now, ack, h, news);
        } else if self.has_sack() {
            self.take_blocks(now, h, &news);
        } else if news.bare && ack == self.snd.una && self.snd.una != self.snd.nxt {
            // RFC 5681 §2: a duplicate, for data is outstanding.
            let f = self.flight();
            if self.recovery.on_dup_ack(now, &f, &mut self.controller) {
                if !f.answered {
                    self.ecn_reduced();
                }
                self.pending |= Pending::FAST;
            }
        }
    }

    /// RFC 5681 §2: no data, no SYN or FIN, the same window.
    fn is_bare(&self, h: &TcpHeader, flags: TcpFlags, len: u32) -> bool {
        len == 0
            && !flags.intersects(TcpFlags::SYN | TcpFlags::FIN)
            && self.snd.scale.bytes(h.window) == self.snd.wnd
    }

    /// Our FIN is acknowledged.
    pub(super) fn take_fin_ack(&mut self, now: Instant) -> Step {
        let before = self.state;
        self.state = before.on_fin_acked();
        match self.state {
            State::TimeWait => Step::Done(self.enter_time_wait(now)),
            State::Closed => Step::Done(self.finish()),
            State::FinWait2 => {
                if before == State::FinWait1 && self.status.contains(Status::APP_CLOSED) {
                    self.timers.set(Timer::Lifetime, now + self.config.fin_wait_2);
                }
                Step::Next
            }
            State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::CloseWait
            | State::Closing
            | State::LastAck => Step::Next,
        }
    }

    /// The peer has answered: what counts silence starts again. An orphan's probes of a closed
    /// window go on counting; only progress saves it.
    pub(super) fn answered(&mut self) {
        if !self.status.contains(Status::APP_CLOSED) {
            self.probes = 0;
            if self.snd.wnd == 0 {
                // Retransmissions into a window that was closed after the fact are probes.
                self.retries = 0;
            }
        }
    }

    /// snd.una moves to `ack`, which lies in (snd.una, snd.max].
    pub(super) fn take_new_ack(
        &mut self,
        now: Instant,
        ack: SeqNum,
        h: &TcpHeader,
        mut news: News,
    ) {
        if ack.after(self.snd.nxt) {
            // The peer took the byte of a zero-window probe, or the data of our SYN.
            self.sendq.skip_unsent(ack.since(self.snd.nxt));
            self.snd.nxt = ack;
            self.status -= Status::PROBED;
        }
        let in_flight = self.snd.nxt.since(self.snd.una);
        let (bytes, _) = self.move_una(now, ack);
        self.sendq.records.ack(ack, &mut news.delivery);
        let rtt = self.measure(now, in_flight, h, &news);
        let echo = self.ecn_is_echo(h.flags);
        let piped = self.sendq.records.rate.piped(&news.delivery.round);
        let advance = Advance { bytes, in_flight, piped, rtt, moved: true, echo };
        let restart = self.judge(now, h, &news, &advance);
        self.tell_delivery(now, &news.delivery);
        // RFC 6298 §5.2 and §5.3.
        if ack == self.snd.nxt {
            self.timers.clear(Timer::Retransmit);
            self.timers.clear(Timer::Reorder);
        } else if restart {
            self.restart_retransmit(now);
        }
        self.schedule_probe(now);
        if self.status.contains(Status::USER_TIMEOUT) {
            self.arm_user_timeout();
        }
        self.note_activity(now);
    }

    /// snd.una moves to `ack`, at most snd.nxt: what that settles whatever else the ACK means. Gives
    /// the bytes of data that it acknowledges, and whether it is our FIN's.
    #[inline(always)]
    pub(super) fn move_una(&mut self, now: Instant, ack: SeqNum) -> (u32, bool) {
        let mut bytes = ack.since(self.snd.una);
        if rarely(!self.status.contains(Status::SYN_ACKED)) {
            self.status |= Status::SYN_ACKED;
            forget(&mut self.fast_open);
            bytes -= 1;
        }
        let fin = self.status.contains(Status::FIN_SENT) && ack == self.snd.nxt;
        bytes -= u32::from(fin && bytes > 0);
        if bytes > 0 {
            self.sendq.ack_bytes(bytes);
        }
        let una = std::mem::replace(&mut self.snd.una, ack);
        self.path_acked(now, una, bytes);
        // What was about to be sent again has arrived.
        self.pending -= Pending::SYN | Pending::FAST;
        self.bytes_acked += u64::from(bytes);
        (self.retries, self.probes, self.persist_backoff) = (0, 0, 0);
        self.soft_error = None;
        (bytes, fin)
    }

    /// A round-trip sample. Our own clock is finer than the timestamps', but where anything
    /// acknowledged was sent more than once only they tell which transmission was answered (Karn's
    /// algorithm, RFC 6298 §3; RFC 7323 §4.1).
    fn measure(
        &mut self,
        now: Instant,
        in_flight: u32,
        h: &TcpHeader,
        news: &News,
    ) -> Option<Duration> {
        let told = &news.delivery;
        let rtt = match (told.resent_at, told.sent_once_at.or(told.sacked_sent_at)) {
            (None, sent) => now - sent?,
            (Some(resent), _) => {
                let ts = h.options.timestamps?;
                let ours = self.status.contains(Status::TIMESTAMPS) && ts.ecr != 0;
                let ms = ts_clock(now, self.ts_offset).wrapping_sub(ts.ecr);
                let rtt = Duration::from_millis(u64::from(ms));
                // The echo of an earlier transmission may come late because the first ACK was lost:
                // it would inflate the timeout that the loss of the next one then adds to.
                if !ours || rtt > now - resent + Duration::from_millis(1) {
                    return None;
                }
                rtt
            }
        };
        // RFC 7323 §4.2: an ACK for every other segment is expected.
        let samples = in_flight.div_ceil(2 * self.mss());
        self.rtt.sample(rtt, samples);
        Some(rtt)
    }

    /// What has arrived, and how fast: for controllers that model the path.
    fn tell_delivery(&mut self, now: Instant, told: &Delivery) {
        // By our own clock: a millisecond of the timestamps' may be the whole round trip.
        let rtt = told.sent_once_at.max(told.sacked_sent_at).map(|sent| now - sent);
        let rate = &mut self.sendq.records.rate;
        if !self.controller.models_path() {
            return rate.pass(now, told.round, rtt);
        }
        let Some(seen) = rate.finish(now, told.round, rtt) else { return };
        let delivered = rate.delivered();
        let in_flight = self.pipe();
        self.controller.on_delivery(&PathSample {
            now,
            newly: told.round.newly(),
            delivered,
            prior_delivered: seen.prior,
            rate: seen.rate,
            rtt,
            in_flight,
            lost: self.sendq.records.lost_ever(),
            mss: self.mss(),
        });
        if self.controller.holds_back() {
            self.sendq.records.rate.mark_app_limited(in_flight);
        }
    }

    /// An ACK that acknowledges nothing new by its number; its blocks may tell of something.
    fn take_blocks(&mut self, now: Instant, h: &TcpHeader, news: &News) {
        if self.snd.una == self.snd.nxt && self.recovery.is_quiet() {
            return;
        }
        let in_flight = self.snd.nxt.since(self.snd.una);
        let rtt = self.measure(now, in_flight, h, news);
        let echo = self.ecn_is_echo(h.flags);
        let piped = self.sendq.records.rate.piped(&news.delivery.round);
        let advance = Advance { bytes: 0, in_flight, piped, rtt, moved: false, echo };
        let _ = self.judge(now, h, news, &advance);
        self.tell_delivery(now, &news.delivery);
        if news.delivery.bytes > 0 {
            self.schedule_probe(now);
        }
    }

    /// RFC 6298 §5.3. With RFC 7765 §4 the time counts from when the oldest segment left, if so few
    /// are out that no loss among them would show otherwise.
    pub(super) fn restart_retransmit(&mut self, now: Instant) {
        let mut rto = self.rtt.rto();
        if self.config.rto_restart {
            let waiting = self.snd.nxt.since(self.snd.una) + self.sendq.unsent();
            let few = waiting.div_ceil(self.mss()) < RTO_RESTART_SEGMENTS;
            let age = self.sendq.records.first().map_or(Duration::ZERO, |r| now - r.last_sent);
            if few && age < rto {
                rto -= age;
            }
        }
        self.timers.set(Timer::Retransmit, now + rto);
    }

    /// RFC 9293 §3.10.7.4: the window of the newest segment counts. One that acknowledges more than
    /// any before counts, too, although its sequence number is an older one's (a retransmission that
    /// later segments have overtaken): the right edge is counted from snd.una, and would move
    /// further than the peer has offered if snd.una moved alone.
    #[inline(always)]
    pub(super) fn update_window(&mut self, seq: SeqNum, ack: SeqNum, field: u16) {
        let wl1 = self.snd.wl1;
        let acks_more = self.snd.wl2.before(ack);
        let newer = wl1.before(seq) || (wl1 == seq && self.snd.wl2.before_eq(ack));
        if (newer || acks_more) && ack.after_eq(self.snd.una) {
            self.set_window(wl1.later(seq), ack, self.snd.scale.bytes(field));
        }
    }

    #[inline(always)]
    pub(super) fn set_window(&mut self, seq: SeqNum, ack: SeqNum, window: u32) {
        let before = std::mem::replace(&mut self.snd.wnd, window);
        self.snd.max_wnd = self.snd.max_wnd.max(window);
        (self.snd.wl1, self.snd.wl2) = (seq, ack);
        let refused = || before == 0 && self.snd.una != self.snd.nxt;
        if before < window && rarely(self.timers.is_set(Timer::Persist) || refused()) {
            self.window_opened();
        }
    }

    #[cold]
    fn window_opened(&mut self) {
        self.stir();
        if self.timers.is_set(Timer::Persist) {
            // If even this is too small, the next poll sets the timer again, from its first value.
            self.timers.clear(Timer::Persist);
            self.persist_backoff = 0;
            self.pending -= Pending::PROBE;
            self.arm_user_timeout();
        }
        if self.sendq.records.first().is_some_and(|first| first.fate == Fate::Resent) {
            // What has probed a window that the peer had shrunk was refused.
            self.pending |= Pending::FAST;
        }
    }
}
