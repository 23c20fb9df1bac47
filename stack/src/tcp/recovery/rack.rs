//! Recent acknowledgment (RFC 8985): what was sent before something that has arrived, and long
//! enough before it, is lost.
//!
//! ```text
//!   sent          A     B     C     D        A, B and D unacknowledged, C has arrived:
//!   now   ├───────┼─────┼─────┼─────┼──▶     B is lost once rtt(C) + reo_wnd have passed since it
//!                                            was sent; D is too young to say
//! ```

use super::super::delivery::{Delivery, SentAt};
use super::super::seq::SeqNum;
use crate::hint::rarely;
use crate::time::{Duration, Instant};

/// RFC 8985 §6.2, step 4: recoveries without DSACK after which the window is small again.
const REO_WND_PERSIST: u8 = 16;

/// How long a smallest round trip stands. A path that has become longer is believed after at most
/// twice this.
const MIN_RTT_WINDOW_NS: u64 = 150_000_000_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Rack {
    /// RACK.xmit_ts and RACK.end_seq: what was sent last among all that has arrived.
    latest: SentAt,
    /// RACK.rtt, in nanoseconds as all here.
    rtt: u64,
    /// RACK.min_RTT, of this half of the window and of the last.
    min_rtt: [u64; 2],
    min_rtt_since: Instant,
    /// RACK.dsack_round.
    dsack_round: Option<SeqNum>,
    /// RACK.reo_wnd_mult.
    pub(super) reo_wnd_mult: u8,
    /// RACK.reo_wnd_persist.
    reo_wnd_persist: u8,
    /// RACK.reordering_seen.
    pub(super) reordering_seen: bool,
}

/// What is kept of it while a connection is at rest: what the path is like. Round trips are in
/// nanoseconds, and unknown where they took more than four seconds.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct RackAtRest {
    min_rtt: [u32; 2],
    min_rtt_since_s: u32,
    reo_wnd_mult: u8,
    reo_wnd_persist: u8,
    reordering_seen: bool,
}

impl Rack {
    /// The part that outlasts a rest.
    pub(super) fn to_rest(self) -> RackAtRest {
        RackAtRest {
            min_rtt: self.min_rtt.map(|ns| u32::try_from(ns).unwrap_or(u32::MAX)),
            min_rtt_since_s: (self.min_rtt_since.as_millis() / 1000) as u32,
            reo_wnd_mult: self.reo_wnd_mult,
            reo_wnd_persist: self.reo_wnd_persist,
            reordering_seen: self.reordering_seen,
        }
    }

    /// Goes on after a rest with everything up to `una` delivered.
    pub(super) fn from_rest(rest: RackAtRest, una: SeqNum) -> Rack {
        let RackAtRest { min_rtt, min_rtt_since_s, reo_wnd_mult, reo_wnd_persist, reordering_seen } =
            rest;
        Rack {
            min_rtt: min_rtt.map(|ns| if ns == u32::MAX { u64::MAX } else { ns.into() }),
            min_rtt_since: Instant::ZERO + Duration::from_secs(min_rtt_since_s.into()),
            reo_wnd_mult,
            reo_wnd_persist,
            reordering_seen,
            ..Rack::new(una)
        }
    }

    pub(super) fn new(iss: SeqNum) -> Rack {
        Rack {
            latest: SentAt { at: Instant::ZERO, end: iss },
            rtt: 0,
            min_rtt: [u64::MAX; 2],
            min_rtt_since: Instant::ZERO,
            dsack_round: None,
            reo_wnd_mult: 1,
            reo_wnd_persist: 0,
            reordering_seen: false,
        }
    }

    pub(super) fn latest(&self) -> SentAt {
        self.latest
    }

    /// In nanoseconds; `u64::MAX` before the first measurement.
    pub(super) fn min_rtt(&self) -> u64 {
        self.min_rtt[0].min(self.min_rtt[1])
    }

    /// RFC 8985 §6.2, steps 1 to 3. `echoes_older` tells whether the ACK's timestamp echoes a
    /// transmission before the given time.
    pub(super) fn on_delivery(
        &mut self,
        now: Instant,
        d: &Delivery,
        echoes_older: impl Fn(Instant) -> bool,
    ) {
        self.reordering_seen |= d.reordered;
        if let Some(sent) = d.latest_once {
            self.on_original(now, sent);
        }
        if let Some(sent) = d.latest_resent {
            let rtt = now.nanos_since(sent.at);
            // The ACK may be the first transmission's: then nothing is known about the second.
            if rtt >= self.min_rtt() && !echoes_older(sent.at) {
                self.advance(sent, rtt);
            }
        }
    }

    /// What left last among what has arrived was sent only once.
    #[inline(always)]
    pub(super) fn on_original(&mut self, now: Instant, sent: SentAt) {
        let rtt = now.nanos_since(sent.at);
        if rarely(now.nanos_since(self.min_rtt_since) > MIN_RTT_WINDOW_NS) {
            self.min_rtt = [u64::MAX, self.min_rtt[0]];
            self.min_rtt_since = now;
        }
        self.min_rtt[0] = self.min_rtt[0].min(rtt);
        self.advance(sent, rtt);
    }

    fn advance(&mut self, sent: SentAt, rtt: u64) {
        if sent.is_after(self.latest) {
            (self.latest, self.rtt) = (sent, rtt);
        }
    }

    /// RFC 8985 §6.2, step 4: something was sent again that had arrived; it was late, not lost. Once
    /// a round trip that widens the window.
    pub(super) fn on_dsack(&mut self, una: SeqNum, nxt: SeqNum) {
        if self.dsack_round.is_none_or(|round| una.after_eq(round)) {
            self.dsack_round = Some(nxt);
            self.reo_wnd_mult = self.reo_wnd_mult.saturating_add(1);
            self.reo_wnd_persist = REO_WND_PERSIST;
        }
    }

    /// A recovery has ended.
    pub(super) fn on_recovered(&mut self) {
        self.reo_wnd_persist = self.reo_wnd_persist.saturating_sub(1);
        if self.reo_wnd_persist == 0 {
            self.reo_wnd_mult = 1;
        }
    }

    /// RACK.rtt + RACK.reo_wnd: how old what is lost must be. `settled` while a loss is being
    /// repaired or enough has been reported to be sure of one: without any reordering seen, the
    /// window is nothing then.
    pub(super) fn patience(&self, settled: bool, srtt: Option<Duration>) -> Duration {
        let min_rtt = self.min_rtt();
        if (!self.reordering_seen && settled) || min_rtt == u64::MAX {
            return Duration::from_nanos(self.rtt);
        }
        let window = min_rtt.saturating_mul(u64::from(self.reo_wnd_mult)) / 4;
        let window = window.min(srtt.map_or(window, nanos));
        Duration::from_nanos(self.rtt.saturating_add(window))
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_lasts_for_sixteen_recoveries_without_a_duplicate() {
        // RFC 8985 §6.2, step 4.
        let (una, nxt) = (SeqNum::new(0), SeqNum::new(1000));
        let mut rack = Rack::new(una);
        rack.on_dsack(una, nxt);
        rack.on_dsack(una, nxt);
        assert_eq!(rack.reo_wnd_mult, 2, "once a round trip");
        for _ in 1..16 {
            rack.on_recovered();
            assert_eq!(rack.reo_wnd_mult, 2);
        }
        rack.on_dsack(nxt, nxt + 1000);
        assert_eq!(rack.reo_wnd_mult, 3);
        for _ in 1..16 {
            rack.on_recovered();
            assert_eq!(rack.reo_wnd_mult, 3);
        }
        rack.on_recovered();
        assert_eq!(rack.reo_wnd_mult, 1);
    }
}
