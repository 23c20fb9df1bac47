//! What an ACK means where the peer reports gaps: which of its blocks to believe, what is lost,
//! and whether what was taken for lost had only been late.

use super::super::congestion::{AckSample, CongestionControl, Noted};
use super::super::delivery::{Delivery, SentAt};
use super::super::ranges::Range;
use super::super::seq::SeqNum;
use super::super::tcb::{Pending, Status, Tcb, ts_clock};
use super::super::timers::Timer;
use super::super::{DropReason, input};
use super::{DUP_ACK_THRESHOLD, Frto, OnAck, Phase, Probe, Prr};
use crate::time::{Duration, Instant};
use crate::wire::tcp::TcpHeader;

/// RFC 8985 §7.2: how long the peer may delay the ACK of a single segment.
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);

/// RFC 8985 §7.2: the probe timeout before a round trip was measured.
const PTO_UNMEASURED: Duration = Duration::from_secs(1);

/// No probe leaves sooner: a peer on the same link has other things to do, too.
const PTO_MIN: Duration = Duration::from_millis(2);

/// What one ACK has told, as far as recovery asks.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct News {
    pub(in crate::tcp) delivery: Delivery,
    /// A duplicate that the peer reports (RFC 2883).
    dsack: Option<Range>,
    /// The segment is nothing but an ACK with the window of the last one: a duplicate, if its number
    /// is that of the last one, too (RFC 5681 §2).
    pub(in crate::tcp) bare: bool,
}

/// What the acknowledgment number of an ACK did.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct Advance {
    /// Bytes of payload that it acknowledged.
    pub(in crate::tcp) bytes: u32,
    /// Sequence numbers in flight before it.
    pub(in crate::tcp) in_flight: u32,
    /// Bytes delivered within the round trip that it ends.
    pub(in crate::tcp) piped: u32,
    pub(in crate::tcp) rtt: Option<Duration>,
    /// It moved snd.una.
    pub(in crate::tcp) moved: bool,
    /// It echoes a congestion mark.
    pub(in crate::tcp) echo: bool,
}

impl Tcb {
    pub(in crate::tcp) fn has_sack(&self) -> bool {
        self.status.contains(Status::SACK)
    }

    /// SACK was agreed on and RACK-TLP is on.
    pub(in crate::tcp) fn has_rack(&self) -> bool {
        self.has_sack() && self.config.rack_tlp
    }

    /// *Pipe* of RFC 6675: bytes that are in the network as far as we know.
    pub(in crate::tcp) fn pipe(&self) -> u32 {
        let records = &self.sendq.records;
        self.snd.nxt.since(self.snd.una).saturating_sub(records.sacked() + records.lost())
    }

    pub(in crate::tcp) fn no_news(&self) -> News {
        let fack = self.sendq.records.highest_sacked().unwrap_or(self.snd.una);
        News { delivery: Delivery::new(fack.later(self.snd.una)), dsack: None, bare: false }
    }

    // --- blocks ----------------------------------------------------------------------------------

    /// Takes the SACK blocks of an ACK.
    pub(in crate::tcp) fn take_sack(&mut self, h: &TcpHeader) -> News {
        let mut news = self.no_news();
        if !self.has_sack() || h.options.sack.is_empty() {
            return news;
        }
        let ack = SeqNum::new(h.ack);
        let block = |(left, right)| Range { start: SeqNum::new(left), end: SeqNum::new(right) };
        let mut blocks = h.options.sack.iter().map(block).peekable();
        if let Some(first) = blocks.next_if(|b| b.end.before_eq(ack) && b.start.before(b.end)) {
            // RFC 2883 §4: a first block that the acknowledgment number covers is a duplicate.
            news.dsack = Some(first);
        } else if let Some(first) = blocks.next() {
            match blocks.peek() {
                Some(b) if b.start.before_eq(first.start) && first.end.before_eq(b.end) => {
                    news.dsack = Some(first);
                }
                Some(_) | None => self.take_block(first, ack, &mut news.delivery),
            }
        }
        for block in blocks {
            self.take_block(block, ack, &mut news.delivery);
        }
        if !self.config.dsack || self.retransmissions == 0 {
            // Nothing was sent again: the network has doubled it.
            news.dsack = None;
        }
        news
    }

    /// RFC 2018 §3: a block lies in the window behind a gap. Older ones, of an ACK that was
    /// overtaken, are passed over; what was never sent is a forgery, or an optimist's.
    fn take_block(&mut self, block: Range, ack: SeqNum, delivery: &mut Delivery) {
        let Range { start, end } = block;
        let overtaken = start.before_eq(self.snd.una) && start.after(ack);
        let sent = start.before(end) && end.before_eq(self.snd.nxt) && start.after(ack);
        let mss = self.mss();
        if !sent || !(overtaken || self.sendq.records.sack(start, end, mss, delivery)) {
            self.dropped = Some(DropReason::BadSack);
        }
    }

    // --- decisions -------------------------------------------------------------------------------

    /// An ACK that moved snd.una, or told of something that arrived or arrived twice, or that may
    /// be a duplicate. True if the retransmission timer restarts.
    pub(in crate::tcp) fn judge(
        &mut self,
        now: Instant,
        h: &TcpHeader,
        news: &News,
        advance: &Advance,
    ) -> bool {
        if !self.has_sack() {
            return self.judge_by_number(now, h, news, advance);
        }
        let d = &news.delivery;
        if advance.moved {
            self.recovery.dup_acks = 0;
        } else if d.sacked > 0 {
            self.recovery.dup_acks = self.recovery.dup_acks.saturating_add(1);
        }
        let (ts, offset) = (h.options.timestamps, self.ts_offset);
        self.recovery.rack.on_delivery(now, d, |sent| {
            ts.is_some_and(|ts| input::older(ts.ecr, ts_clock(sent, offset)))
        });
        let probed = self.judge_probe(now, h, news);
        if news.dsack.is_some() && !probed {
            self.recovery.rack.on_dsack(self.snd.una, self.snd.nxt);
        }
        if self.is_spurious(h, news, advance) {
            self.undo();
        }
        let lost = self.sendq.records.lost();
        self.find_losses(now);
        let safe = advance.moved && self.sendq.records.lost() <= lost;
        let before = self.is_repairing();
        self.move_on(now, d.bytes, safe, advance);
        // While a reduction is spread over a round trip, its end included, nothing grows.
        let repairing = before || self.is_repairing();
        if !(repairing && self.controller.uses_prr()) && (advance.moved || repairing) {
            self.grow(now, advance, self.recovery.after_timeout());
        }
        true
    }

    /// What [`Tcb::judge`] comes to if snd.una has moved over one transmission that was sent once,
    /// while nothing was or is missing.
    #[inline(always)]
    pub(in crate::tcp) fn judge_plain(&mut self, now: Instant, sent: SentAt, advance: &Advance) {
        if self.has_sack() {
            self.recovery.rack.on_original(now, sent);
            if self.config.rack_tlp {
                self.timers.clear(Timer::Reorder);
            }
        }
        let &Advance { bytes, in_flight, piped, echo, .. } = advance;
        let limited = echo || self.status.contains(Status::CWND_LIMITED);
        let (una, srtt_ns) = (self.snd.una - bytes, self.rtt.srtt_ns());
        let ack = Noted { now, una, in_flight, piped, srtt_ns };
        if limited || !self.controller.notes(&ack) {
            self.grow(now, advance, false);
        }
    }

    /// The same without SACK.
    fn judge_by_number(
        &mut self,
        now: Instant,
        h: &TcpHeader,
        news: &News,
        advance: &Advance,
    ) -> bool {
        if self.is_spurious(h, news, advance) {
            self.undo();
        }
        if let Phase::Loss(frto) = self.recovery.phase {
            self.judge_timeout(frto, advance);
        }
        let f = self.flight();
        let after_timeout = self.recovery.after_timeout();
        match self.recovery.on_ack(now, advance.bytes, &f, &mut self.controller) {
            OnAck::Grow => {
                self.grow(now, advance, after_timeout);
                true
            }
            OnAck::Resend { restart_timer } => {
                self.pending |= Pending::FAST;
                restart_timer
            }
            OnAck::Recovered => true,
        }
    }

    /// RFC 8985 §6.2, of a transmission that was sent once and acknowledged while nothing was missing.
    #[inline(always)]
    pub(in crate::tcp) fn note_rack(&mut self, now: Instant, sent: SentAt) {
        self.recovery.rack.on_original(now, sent);
    }

    pub(in crate::tcp) fn grow(&mut self, now: Instant, advance: &Advance, after_timeout: bool) {
        if advance.echo {
            // RFC 3168 §6.1.2: no growth by an ACK that echoes a mark.
            return;
        }
        self.controller.on_ack(&AckSample {
            acked: advance.bytes,
            una: self.snd.una,
            nxt: self.snd.nxt,
            srtt: self.rtt.srtt().unwrap_or_default(),
            now,
            rtt: advance.rtt,
            in_flight: advance.in_flight,
            piped: advance.piped,
            mss: self.mss(),
            window_limited: self.status.contains(Status::CWND_LIMITED) || after_timeout,
            after_timeout,
        });
        self.tune_send();
    }

    /// Marks what is lost, and sets the timer for what may be.
    fn find_losses(&mut self, now: Instant) {
        let mss = self.mss();
        if self.config.rack_tlp {
            if self.recovery.phase == Phase::Open && self.sendq.records.sacked() == 0 {
                // Nothing has overtaken anything.
                self.timers.clear(Timer::Reorder);
                return;
            }
            let patience = self.patience();
            let latest = self.recovery.rack.latest();
            match self.sendq.records.lose_older(now, latest, patience) {
                Some(at) => self.timers.set(Timer::Reorder, at),
                None => self.timers.clear(Timer::Reorder),
            }
            return;
        }
        self.sendq.records.lose_below_sacked(mss);
        // RFC 6675 §5: three duplicate ACKs are enough, however little they reported.
        let first = self.recovery.phase == Phase::Open
            && self.recovery.dup_acks >= DUP_ACK_THRESHOLD
            && self.sendq.records.lost() == 0;
        if first {
            self.sendq.records.lose_first(mss);
        }
    }

    fn patience(&self) -> Duration {
        let records = &self.sendq.records;
        let enough = u32::from(DUP_ACK_THRESHOLD);
        let settled = match self.recovery.phase {
            Phase::Open => {
                self.recovery.dup_acks >= DUP_ACK_THRESHOLD
                    || records.sacked().div_ceil(self.mss()) >= enough
            }
            Phase::Fast { .. } | Phase::Repair(_) | Phase::Loss(_) => true,
        };
        self.recovery.rack.patience(settled, self.rtt.srtt())
    }

    pub(in crate::tcp) fn is_repairing(&self) -> bool {
        matches!(self.recovery.phase, Phase::Repair(_))
    }

    /// From one phase to the next.
    fn move_on(&mut self, now: Instant, delivered: u32, safe: bool, advance: &Advance) {
        let over = self.snd.una.after_eq(self.recovery.recover);
        match self.recovery.phase {
            Phase::Open => {
                // What may have been spurious is known a round trip after it was repaired.
                if advance.moved && over && self.recovery.episode.is_some() {
                    self.recovery.episode = None;
                }
            }
            Phase::Repair(_) if over => {
                self.recovery.rack.on_recovered();
                let (ssthresh, mss) = (self.controller.ssthresh(), self.mss());
                // RFC 9937 §6.2: recovery ends with cwnd = ssthresh.
                let in_flight = if self.controller.uses_prr() { ssthresh } else { self.pipe() };
                let resent = self.recovery.resent();
                self.controller.on_recovered(now, in_flight, resent, mss);
                self.reopen();
            }
            Phase::Loss(_) if over => {
                self.recovery.rack.on_recovered();
                self.reopen();
            }
            Phase::Loss(frto) => self.judge_timeout(frto, advance),
            Phase::Repair(_) | Phase::Fast { .. } => {}
        }
        if self.recovery.phase == Phase::Open && self.sendq.records.lost() > 0 {
            self.enter_repair(now, delivered, advance.in_flight);
        }
        let pipe = self.pipe();
        let (ssthresh, mss) = (self.controller.ssthresh(), self.mss());
        if let Phase::Repair(prr) = &mut self.recovery.phase {
            prr.on_ack(delivered, pipe, ssthresh, safe, mss);
        }
    }

    /// A recovery is over. What it has sent again may yet turn out to have been late: until one more
    /// round trip has passed, `recover` marks the end of that.
    fn reopen(&mut self) {
        self.recovery.phase = Phase::Open;
        self.recovery.recover = self.snd.nxt;
        self.recovery.dup_acks = 0;
        self.recovery.probe = None;
        self.pending -= Pending::TAIL;
    }

    /// `delivered` and `in_flight` are those of the ACK that told of the loss, 0 if a timer did.
    fn enter_repair(&mut self, now: Instant, delivered: u32, in_flight: u32) {
        let records = &self.sendq.records;
        let outstanding = self.snd.nxt.since(self.snd.una);
        // RFC 9937 §6.2: what was in flight before this ACK.
        let before = (outstanding + delivered).saturating_sub(records.sacked());
        // RFC 5681 §3.1, FlightSize: what this very ACK acknowledges was in flight when the loss
        // happened. What limited transmit sent does not count (RFC 3042 §2).
        let window = self.controller.cwnd().max(self.mss());
        let in_flight = in_flight.max(outstanding).min(window);
        self.recovery.for_mark = self.ecn_answered();
        if !self.recovery.for_mark {
            self.controller.on_loss(now, in_flight, self.mss());
            self.ecn_reduced();
        }
        self.recovery.recover = self.snd.nxt;
        self.recovery.probe = None;
        self.recovery.episode = None;
        self.recovery.phase = Phase::Repair(Prr::new(before));
        self.pending -= Pending::TAIL;
        self.timers.clear(Timer::Probe);
    }

    /// The time has come at which something not acknowledged counts as lost (RFC 8985 §6.3).
    pub(in crate::tcp) fn reorder_due(&mut self, now: Instant) {
        self.find_losses(now);
        let advance =
            Advance { bytes: 0, in_flight: 0, piped: 0, rtt: None, moved: false, echo: false };
        self.move_on(now, 0, false, &advance);
    }

    /// The retransmission timer has expired: what is lost?
    pub(in crate::tcp) fn lose_on_timeout(&mut self, now: Instant, ask: bool) {
        let f = self.flight();
        let records = &mut self.sendq.records;
        if records.first().is_some_and(|first| first.is_sacked()) {
            // RFC 2018 §8: what the peer had reported it does not have any more.
            records.forget_sacks();
        }
        let patience = if self.has_rack() { self.patience() } else { Duration::ZERO };
        self.sendq.records.lose_on_timeout(now, patience);
        self.recovery.on_timeout(&f, ask);
        self.pending -= Pending::TAIL;
        self.timers.clear(Timer::Reorder);
        self.timers.clear(Timer::Probe);
    }

    // --- was it a loss? --------------------------------------------------------------------------

    /// RFC 5682 §2.1 and §3.1, after the ACK of what a timeout has sent again.
    fn judge_timeout(&mut self, frto: Frto, advance: &Advance) {
        let next = match frto {
            Frto::Off => Frto::Off,
            Frto::Waiting if !advance.moved => Frto::Waiting,
            // Step 2a without SACK: not even all that was sent again has arrived.
            Frto::Waiting if !self.has_sack() && !self.recovery.repaired(self.snd.una) => Frto::Off,
            // Step 2b: new data will tell, where there is any. Whether it may leave shows when what
            // is lost leaves instead: see `Recovery::on_resent`.
            Frto::Waiting if self.sendq.unsent() > 0 => Frto::Probing,
            // Step 3a: nothing but what was sent again, or new, has arrived.
            Frto::Waiting | Frto::Probing => Frto::Off,
        };
        self.recovery.phase = Phase::Loss(next);
    }

    fn is_spurious(&mut self, h: &TcpHeader, news: &News, advance: &Advance) -> bool {
        // RFC 5682 step 3b: what was not sent again has arrived. Without SACK (§2.1) the ACK of what
        // was sent again may cover what had arrived behind it before; the one after that tells.
        let told = match self.recovery.phase {
            Phase::Loss(Frto::Probing) => true,
            Phase::Loss(Frto::Waiting) => self.has_sack(),
            Phase::Loss(Frto::Off) | Phase::Open | Phase::Fast { .. } | Phase::Repair(_) => false,
        };
        if told && news.delivery.original.is_some_and(|end| end.before_eq(self.recovery.recover)) {
            return true;
        }
        let recover = self.recovery.recover;
        let Some(episode) = &mut self.recovery.episode else { return false };
        // RFC 3522 §3.2: the ACK answers something that was sent before the first retransmission.
        let repairing = self.recovery.phase != Phase::Open;
        let past_first = repairing && advance.moved && self.snd.una.after(episode.first);
        if let Some(ts) = h.options.timestamps
            && self.status.contains(Status::TIMESTAMPS)
            && past_first
            && ts.ecr != 0
            && input::older(ts.ecr, episode.timestamp)
        {
            return true;
        }
        // RFC 3708 §2: all that was sent again has arrived twice.
        if let Some(twice) = news.dsack
            && twice.start.after_eq(episode.first)
            && twice.end.before_eq(recover)
        {
            let bytes = twice.end.since(twice.start);
            episode.unexplained = episode.unexplained.saturating_sub(bytes);
            return episode.unexplained == 0;
        }
        false
    }

    /// RFC 4015 §3.5: takes back what an imagined loss has cost.
    pub(in crate::tcp) fn undo(&mut self) {
        if !self.recovery.for_mark {
            self.controller.undo();
        }
        if self.recovery.after_timeout() {
            self.rtt.forget_back_off();
        }
        self.sendq.records.forgive();
        self.recovery.undo(self.snd.una);
        self.pending -= Pending::FAST;
        self.undone = self.undone.saturating_add(1);
    }

    // --- probes ----------------------------------------------------------------------------------

    /// RFC 8985 §7.4: has the probe repaired a loss? True if the ACK reports it as a duplicate.
    fn judge_probe(&mut self, now: Instant, h: &TcpHeader, news: &News) -> bool {
        let repairing = self.is_repairing();
        let Some(probe) = &mut self.recovery.probe else { return false };
        let Probe { end, is_retransmission, .. } = *probe;
        if repairing {
            // Whatever it has repaired, the congestion is answered for.
            probe.answered |= news.delivery.bytes > 0;
            return news.dsack.is_some_and(|b| b.end == end);
        }
        let ack = SeqNum::new(h.ack);
        if ack.before(end) {
            return false;
        }
        // Case 1: the original had arrived.
        let twice = news.dsack.is_some_and(|b| b.end == end);
        let bare = news.bare && h.options.sack.is_empty() && news.delivery.bytes == 0;
        let duplicate = ack == end && bare;
        if !is_retransmission || twice || duplicate {
            self.recovery.probe = None;
        } else if ack.after(end) {
            // Case 2: it has, and the congestion that caused the loss is answered for.
            self.recovery.probe = None;
            if self.recovery.phase == Phase::Open && !self.ecn_answered() {
                let mss = self.mss();
                let in_flight = self.controller.cwnd();
                self.controller.on_loss(now, in_flight, mss);
                let ssthresh = self.controller.ssthresh();
                self.controller.on_recovered(now, ssthresh, 0, mss);
            }
        }
        twice
    }

    /// RFC 8985 §7.2: a probe instead of a timeout, while nothing is known to be missing.
    pub(in crate::tcp) fn schedule_probe(&mut self, now: Instant) {
        if self.is_repairing() {
            self.schedule_repair_probe(now);
            return;
        }
        let records = &self.sendq.records;
        let wanted = self.has_rack()
            && self.recovery.phase == Phase::Open
            && self.recovery.probe.is_none()
            && records.sacked() == 0
            && self.snd.una != self.snd.nxt
            && self.status.contains(Status::SYN_ACKED);
        if !wanted {
            self.timers.clear(Timer::Probe);
            return;
        }
        let at = self.probe_at(now).min(self.timers.get(Timer::Retransmit));
        self.timers.set(Timer::Probe, at);
    }

    /// As [`Tcb::schedule_probe`], for a calm connection with something in flight.
    #[inline(always)]
    pub(in crate::tcp) fn probe_calmly(&mut self, now: Instant, flight: u32, mss: u32) {
        if !self.has_rack() || flight >= 2 * mss {
            return self.schedule_probe(now);
        }
        let at = now.after_nanos(2 * self.rtt.srtt_ns() + MAX_ACK_DELAY.as_nanos() as u64);
        self.timers.set(Timer::Probe, at.min(self.timers.get(Timer::Retransmit)));
    }

    /// RFC 8985 §7.2 has no probe in recovery: then what is sent tells what was lost before it. But
    /// nothing is left to tell of a retransmission that was sent last, with a window too small, or
    /// too full of what waits behind it, to send more. The minimum of the retransmission timeout
    /// can be a thousand round trips; where it is many, the probe comes here, too, as RFC 9002 §6.2
    /// has it in every phase. It is one segment, until something arrives again.
    #[cold]
    fn schedule_repair_probe(&mut self, now: Instant) {
        let pto = Duration::from_nanos(self.probe_timeout_ns());
        let wanted = self.has_rack()
            && self.recovery.probe.is_none_or(|probe| probe.answered)
            && self.snd.una != self.snd.nxt
            && 2 * pto <= self.rtt.rto();
        if wanted {
            self.timers.set(Timer::Probe, now + pto);
        } else {
            self.timers.clear(Timer::Probe);
        }
    }

    /// When the probe is due for what is sent now.
    fn probe_at(&self, now: Instant) -> Instant {
        now.after_nanos(self.probe_timeout_ns())
    }

    fn probe_timeout_ns(&self) -> u64 {
        // Only every second full segment is owed an ACK at once (RFC 9293 §3.8.6.3), and one that
        // fills a gap (RFC 5681 §4.2).
        let delayed =
            self.sendq.records.sacked() == 0 && self.snd.nxt.since(self.snd.una) < 2 * self.mss();
        let ns = |span: Duration| span.as_nanos() as u64;
        match self.rtt.srtt_ns() {
            // None was measured.
            0 => ns(PTO_UNMEASURED),
            srtt if delayed => 2 * srtt + ns(MAX_ACK_DELAY),
            srtt => (2 * srtt).max(ns(PTO_MIN)),
        }
    }

    /// The probe timeout is over: a probe is sent, and the retransmission timeout starts anew.
    pub(in crate::tcp) fn probe_due(&mut self, now: Instant) {
        let probing = self.recovery.phase == Phase::Open || self.is_repairing();
        if self.snd.una != self.snd.nxt && probing {
            self.pending |= Pending::TAIL;
            self.timers.set(Timer::Retransmit, now + self.rtt.rto());
        }
    }

    /// A probe leaves, with a segment that ends at `end`.
    pub(in crate::tcp) fn note_probe(&mut self, end: SeqNum, is_retransmission: bool) {
        self.recovery.probe = Some(Probe { end, is_retransmission, answered: false });
        self.timers.clear(Timer::Probe);
    }
}
