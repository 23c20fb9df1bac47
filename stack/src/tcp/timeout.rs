//! What happens when nothing happens: every timer of a connection.

use super::Outcome;
use super::congestion::CongestionControl;
use super::state::State;
use super::tcb::{Pending, Status, Tcb};
use super::timers::Timer;
use crate::SocketError;
use crate::time::Instant;

/// Unanswered or fruitless zero-window probes after which an orphan is given up: nobody is left to
/// wait for the peer's reader.
const ORPHAN_PROBES_MAX: u8 = 8;

impl Tcb {
    /// Does whatever is due at `now`; cheap if nothing is.
    pub fn handle_timeout(&mut self, now: Instant) -> Outcome {
        let due = self.timers.next().is_some_and(|at| at <= now);
        let outcome = if due { self.take_timeouts(now) } else { Outcome::Continue };
        self.timers.tighten();
        outcome
    }

    fn take_timeouts(&mut self, now: Instant) -> Outcome {
        self.stir();
        // It holds data back; that it is no longer set is all that it does.
        self.timers.take_due(Timer::Pacing, now);
        if self.timers.take_due(Timer::DelayedAck, now) {
            self.pending |= Pending::ACK;
        }
        if self.timers.take_due(Timer::Cork, now) {
            self.pending |= Pending::OVERRIDE;
        }
        if self.timers.take_due(Timer::Trim, now) {
            self.trim(now);
        }
        if self.timers.take_due(Timer::Lifetime, now) {
            return self.lifetime_over();
        }
        if self.timers.take_due(Timer::User, now) {
            return self.give_up();
        }
        if self.timers.take_due(Timer::Keepalive, now)
            && let Some(outcome) = self.keepalive_due(now)
        {
            return outcome;
        }
        if self.timers.take_due(Timer::Persist, now)
            && let Some(outcome) = self.persist_due(now)
        {
            return outcome;
        }
        if self.timers.take_due(Timer::Reorder, now) {
            self.reorder_due(now);
        }
        if self.timers.take_due(Timer::Probe, now) {
            self.probe_due(now);
        }
        if self.timers.take_due(Timer::Retransmit, now) {
            return self.retransmit_due(now);
        }
        Outcome::Continue
    }

    /// The peer is gone (RFC 9293 §3.10.8: nothing is sent; should it come back, an RST answers).
    /// RFC 5461 §3.1: an ICMP error heard meanwhile tells more than a timeout.
    fn give_up(&mut self) -> Outcome {
        let error = self.soft_error.unwrap_or(SocketError::TimedOut);
        self.fail(error)
    }

    /// The same, and the peer is told in case that it is there: one that is idle, or whose reader
    /// has stopped, would not find out by itself.
    fn give_up_aloud(&mut self) -> Outcome {
        let outcome = self.give_up();
        self.pending = Pending::RST;
        outcome
    }

    fn lifetime_over(&mut self) -> Outcome {
        match self.state {
            // 2 MSL have passed, or FIN-WAIT-2 of an orphan has lasted long enough. What its peer may
            // still send is answered by RST then, for there is no connection any more.
            State::TimeWait | State::FinWait2 => self.finish(),
            // SO_LINGER's patience is over, and the FIN is not acknowledged.
            State::FinWait1 | State::Closing | State::LastAck => self.reset_peer(),
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::CloseWait => Outcome::Continue,
        }
    }

    /// RFC 6298 §5.4 to §5.7.
    fn retransmit_due(&mut self, now: Instant) -> Outcome {
        if self.snd.una == self.snd.nxt {
            return Outcome::Continue;
        }
        let max = match self.state {
            State::SynSent => self.config.syn_retries,
            State::Closed | State::Listen | State::TimeWait => return Outcome::Continue,
            _ if !self.status.contains(Status::SYN_ACKED) => self.config.syn_ack_retries,
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => self.config.data_retries,
        };
        if self.retries >= max {
            return self.give_up();
        }
        self.rtt.back_off();
        if self.status.contains(Status::SYN_ACKED) {
            self.path_silent(now, self.retries.saturating_add(1));
            let in_flight = self.snd.nxt.since(self.snd.una);
            let (first, answered) = (self.retries == 0, self.ecn_answered());
            self.controller.on_rto(now, in_flight, self.mss(), first && !answered);
            if !answered {
                self.ecn_reduced();
            }
            self.lose_on_timeout(now, first);
            // RFC 6298 §5.4: whatever else is in flight, the first segment leaves now.
            self.pending |= Pending::FAST;
        } else {
            self.status |= Status::SYN_LOST;
            self.pending |= Pending::SYN;
        }
        self.retries = self.retries.saturating_add(1);
        self.timers.set(Timer::Retransmit, now + self.rtt.rto());
        Outcome::Continue
    }

    /// RFC 9293 §3.8.6.1: probes go on for as long as the peer answers them.
    fn persist_due(&mut self, now: Instant) -> Option<Outcome> {
        let waits = self.sendq.unsent() > 0 || self.fin_waits();
        if !waits || self.snd.una != self.snd.nxt {
            return None;
        }
        let orphan = self.status.contains(Status::APP_CLOSED);
        let max = if orphan { ORPHAN_PROBES_MAX } else { self.config.data_retries };
        if self.probes >= max {
            return Some(if orphan { self.give_up_aloud() } else { self.give_up() });
        }
        // RFC 5482 speaks of data that was sent, and a probe is such data: a window that stays closed
        // for so long ends the connection, whether the peer answers or not. So it does in Linux.
        if let Some(limit) = self.config.user_timeout
            && !self.timers.is_set(Timer::User)
        {
            self.timers.set(Timer::User, now + limit);
        }
        self.probes = self.probes.saturating_add(1);
        self.persist_backoff = self.persist_backoff.saturating_add(1);
        let closed = self.snd.wnd == 0;
        self.pending |= if closed { Pending::PROBE } else { Pending::OVERRIDE };
        None
    }

    /// RFC 9293 §3.8.4. The deadline was computed from what had been heard when it was set.
    fn keepalive_due(&mut self, now: Instant) -> Option<Outcome> {
        let keepalive = self.config.keepalive?;
        if !self.state.is_live() {
            return None;
        }
        let idle_until = self.last_heard + keepalive.idle;
        // Data in flight has timers of its own, which notice a dead peer sooner.
        let busy = self.snd.una != self.snd.nxt || self.sendq.unsent() > 0;
        if idle_until > now || busy {
            self.probes = if busy { self.probes } else { 0 };
            let next = if idle_until > now { idle_until } else { now + keepalive.interval };
            self.timers.set(Timer::Keepalive, next);
            return None;
        }
        // RFC 5482 §4.2: the user timeout, where there is one, says when the peer is dead.
        let dead = match self.config.user_timeout {
            Some(limit) => self.probes > 0 && now - self.last_heard >= limit,
            None => self.probes >= keepalive.count,
        };
        if dead {
            return Some(self.give_up_aloud());
        }
        self.probes = self.probes.saturating_add(1);
        self.pending |= Pending::KEEPALIVE;
        self.timers.set(Timer::Keepalive, now + keepalive.interval);
        None
    }

    /// A connection that was used meanwhile is looked at again.
    fn trim(&mut self, now: Instant) {
        let idle_at = self.idle_at();
        if now < idle_at {
            self.timers.set(Timer::Trim, idle_at);
            return;
        }
        self.sendq.trim();
        self.recvq.trim();
    }

    /// When nothing will have happened for long enough to give memory back.
    pub(super) fn idle_at(&self) -> Instant {
        self.last_heard.max(self.last_sent) + super::tcb::TRIM_AFTER
    }

    /// Has the memory of empty queues given back some time after they emptied, and the connection
    /// looked at whether it can [rest](super::rest). Asking again before that costs a comparison.
    #[inline(always)]
    pub(super) fn trim_later(&mut self, now: Instant) {
        if !self.timers.is_set(Timer::Trim) {
            self.set_trim(now);
        }
    }

    #[inline(never)]
    fn set_trim(&mut self, now: Instant) {
        let slack = || self.sendq.has_slack() || self.recvq.has_slack();
        if self.state == State::Established || slack() {
            self.timers.set(Timer::Trim, now + super::tcb::TRIM_AFTER);
        }
    }
}
