//! PathSample rate estimation (draft-cheng-iccrg-delivery-rate-estimation-02): how fast data has
//! really come through.
//!
//! ```text
//!   sent ──▶ Stamp: what had been delivered then, and when ──▶ kept in the record
//!   delivered ──▶ Round: the newest stamp among what this ACK delivers ──▶ PathSample
//!
//!                delivered now - delivered when sent
//!      rate = ─────────────────────────────────────────────
//!              the longer of the send and the ACK interval
//! ```
//!
//! The longer interval, because ACKs that were held up and come in a bunch would otherwise show a
//! rate that no link has (§3.2.1 of the draft). A sample is *application limited* if there was a time
//! between the two when nothing waited to be sent: it shows what was written, not what would fit.

use crate::hint::rarely;
use crate::time::{Duration, Instant, nanos};

/// What is remembered with each transmission (§3.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    /// `P.delivered`, bytes.
    delivered: u64,
    /// `P.delivered_time`.
    delivered_at: Instant,
    /// `P.first_sent_time`.
    first_sent_at: Instant,
    /// `P.is_app_limited`.
    app_limited: bool,
}

/// A rate sample: bytes over an interval (§3.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) bytes: u64,
    pub(crate) interval: Duration,
    pub(crate) app_limited: bool,
}

impl Rate {
    /// Bytes a second.
    pub(crate) fn per_second(&self) -> u64 {
        let ns = self.interval.as_nanos().max(1);
        u64::try_from(u128::from(self.bytes) * 1_000_000_000 / ns).unwrap_or(u64::MAX)
    }
}

/// What an ACK has delivered, as controllers see it that model the path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathSample {
    pub(crate) now: Instant,
    /// Bytes that this ACK says have arrived, in order or not.
    pub(crate) newly: u32,
    /// Bytes delivered since the connection began, these included.
    pub(crate) delivered: u64,
    /// What `delivered` was when the newest of these bytes was sent.
    pub(crate) prior_delivered: u64,
    /// The rate that it shows, if it shows one.
    pub(crate) rate: Option<Rate>,
    /// The round trip that it measured.
    pub(crate) rtt: Option<Duration>,
    /// Bytes in flight after it.
    pub(crate) in_flight: u32,
    /// Bytes found lost since the connection began, modulo 2^32.
    pub(crate) lost: u32,
    /// Payload of a full segment.
    pub(crate) mss: u32,
}

/// The transmissions that one ACK delivers. Begin with the default, [`Round::add`] each, and give
/// it to [`RateEstimator::finish`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Round {
    newly: u32,
    newest: Option<(Stamp, Instant)>,
}

impl Round {
    /// `bytes` of a transmission that left at `sent_at` with this stamp are delivered (§3.3,
    /// UpdateRateSample): the one sent last counts.
    pub(crate) fn add(&mut self, bytes: u32, stamp: Stamp, sent_at: Instant) {
        self.newly = self.newly.saturating_add(bytes);
        let later =
            |&(other, at): &(Stamp, Instant)| (stamp.delivered, sent_at) >= (other.delivered, at);
        if self.newest.as_ref().is_none_or(later) {
            self.newest = Some((stamp, sent_at));
        }
    }

    /// Bytes delivered.
    pub(crate) fn newly(&self) -> u32 {
        self.newly
    }
}

/// The connection's state (§3.1.1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateEstimator {
    /// `C.delivered`.
    delivered: u64,
    /// `C.delivered_time`.
    delivered_at: Instant,
    /// `C.first_sent_time`.
    first_sent_at: Instant,
    /// `C.app_limited`: samples are limited until this much is delivered; 0 if they are not.
    app_limited_until: u64,
    /// The shortest round trip yet in nanoseconds, `u64::MAX` before there is one: an interval below
    /// it is none.
    min_rtt_ns: u64,
}

impl Default for RateEstimator {
    fn default() -> RateEstimator {
        RateEstimator {
            delivered: 0,
            delivered_at: Instant::ZERO,
            first_sent_at: Instant::ZERO,
            app_limited_until: 0,
            min_rtt_ns: u64::MAX,
        }
    }
}

/// What is kept of it while a connection is at rest. The round trip is in nanoseconds, and unknown
/// where it took more than four seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateAtRest {
    delivered: u64,
    min_rtt_ns: u32,
}

impl RateEstimator {
    /// The part that outlasts a rest.
    pub(crate) fn to_rest(self) -> RateAtRest {
        let min_rtt_ns = u32::try_from(self.min_rtt_ns).unwrap_or(u32::MAX);
        RateAtRest { delivered: self.delivered, min_rtt_ns }
    }

    /// Goes on after a rest, in which nothing waited to be sent.
    pub(crate) fn from_rest(rest: RateAtRest) -> RateEstimator {
        let RateAtRest { delivered, min_rtt_ns } = rest;
        let known = min_rtt_ns != u32::MAX;
        let mut estimator = RateEstimator {
            delivered,
            min_rtt_ns: if known { min_rtt_ns.into() } else { u64::MAX },
            ..RateEstimator::default()
        };
        estimator.mark_app_limited(0);
        estimator
    }

    /// Something is being sent; `idle` if nothing is under way (§3.2, OnPacketSent).
    #[inline]
    pub(crate) fn on_send(&mut self, now: Instant, idle: bool) -> Stamp {
        if idle {
            (self.first_sent_at, self.delivered_at) = (now, now);
        }
        Stamp {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            app_limited: self.app_limited_until != 0,
        }
    }

    /// Nothing waits to be sent although the window has room (§3.4, OnApplicationWrite).
    pub(crate) fn mark_app_limited(&mut self, in_flight: u32) {
        self.app_limited_until = (self.delivered + u64::from(in_flight)).max(1);
    }

    /// True while what is sent shows the application's rate rather than the path's.
    #[cfg(test)]
    pub(crate) fn is_app_limited(&self) -> bool {
        self.app_limited_until != 0
    }

    /// The shortest round trip yet.
    pub(crate) fn min_rtt(&self) -> Option<Duration> {
        (self.min_rtt_ns != u64::MAX).then(|| Duration::from_nanos(self.min_rtt_ns))
    }

    /// Bytes delivered since the connection began.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Bytes delivered since the newest of `round` was sent, these included: what one round trip has
    /// brought through.
    pub(crate) fn piped(&self, round: &Round) -> u32 {
        round.newest.map_or(0, |(stamp, _)| self.piped_since(&stamp, round.newly))
    }

    /// The same of `newly` bytes that were sent with this stamp.
    #[inline]
    pub(crate) fn piped_since(&self, stamp: &Stamp, newly: u32) -> u32 {
        (self.delivered - stamp.delivered) as u32 + newly
    }

    /// As [`RateEstimator::finish`], for nobody who asks how fast it was.
    pub(crate) fn pass(&mut self, now: Instant, round: Round, rtt: Option<Duration>) {
        if let Some((_, sent_at)) = round.newest {
            self.count(now, round.newly, sent_at, rtt.map_or(u64::MAX, nanos));
        }
    }

    /// `newly` bytes are delivered, the newest of which left at `sent_at`; the round trip is
    /// `u64::MAX` if none was measured.
    #[inline]
    pub(crate) fn count(&mut self, now: Instant, newly: u32, sent_at: Instant, rtt_ns: u64) {
        self.min_rtt_ns = self.min_rtt_ns.min(rtt_ns);
        self.delivered += u64::from(newly);
        self.delivered_at = now;
        if rarely(self.app_limited_until != 0) && self.delivered > self.app_limited_until {
            self.app_limited_until = 0;
        }
        self.first_sent_at = sent_at;
    }

    /// An ACK has been gone through (§3.3, GenerateRateSample). `None` if it delivered nothing: then
    /// there is nothing to tell a controller. The rate is missing where the interval is shorter than
    /// the shortest round trip, which no real path makes (a retransmission whose original arrived).
    pub(crate) fn finish(
        &mut self,
        now: Instant,
        round: Round,
        rtt: Option<Duration>,
    ) -> Option<Delivered> {
        let (stamp, sent_at) = round.newest?;
        self.count(now, round.newly, sent_at, rtt.map_or(u64::MAX, nanos));
        let send = sent_at - stamp.first_sent_at;
        let ack = now - stamp.delivered_at;
        let interval = send.max(ack);
        let real = self.min_rtt_ns == u64::MAX || nanos(interval) >= self.min_rtt_ns;
        let rate = (real && !interval.is_zero()).then_some(Rate {
            bytes: self.delivered - stamp.delivered,
            interval,
            app_limited: stamp.app_limited,
        });
        Some(Delivered { prior: stamp.delivered, rate })
    }
}

/// What [`RateEstimator::finish`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// Bytes that had been delivered when the newest of these was sent.
    pub(crate) prior: u64,
    pub(crate) rate: Option<Rate>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn one(bytes: u32, stamp: Stamp, sent_at: Instant) -> Round {
        let mut round = Round::default();
        round.add(bytes, stamp, sent_at);
        round
    }

    #[test]
    fn a_steady_flow_shows_its_rate() {
        // 1,000 bytes a millisecond over a path of 10 ms.
        let mut r = RateEstimator::default();
        let mut stamps = Vec::new();
        for t in 0..50 {
            if t >= 10 {
                let (stamp, sent) = stamps[t - 10];
                let seen = r.finish(at(t as u64), one(1000, stamp, sent), Some(ms(10))).unwrap();
                if t >= 20 {
                    assert_eq!(seen.rate.unwrap().per_second(), 1_000_000, "at {t} ms");
                }
            }
            let now = at(t as u64);
            stamps.push((r.on_send(now, t == 0), now));
        }
        assert_eq!(r.delivered(), 40_000);
    }

    #[test]
    fn acks_in_a_bunch_show_no_more_than_what_was_sent() {
        // Ten segments leave over 9 ms, and one ACK for all of them comes 1 ms later.
        let mut r = RateEstimator::default();
        let stamps: Vec<_> = (0..10).map(|t| (r.on_send(at(t), t == 0), at(t))).collect();
        let mut round = Round::default();
        for &(stamp, sent) in &stamps {
            round.add(1000, stamp, sent);
        }
        assert_eq!(round.newly(), 10_000);
        let seen = r.finish(at(10), round, Some(ms(1))).unwrap();
        let rate = seen.rate.unwrap();
        assert_eq!((rate.bytes, rate.interval, seen.prior), (10_000, ms(10), 0));
        // The next ones leave at once with the bunch's ACK, and their ACKs come at once, too: the
        // time since the bunch was delivered is what counts.
        let stamp = r.on_send(at(10), true);
        let seen = r.finish(at(20), one(5000, stamp, at(10)), Some(ms(1))).unwrap();
        assert_eq!(seen.rate.unwrap().per_second(), 500_000);
    }

    #[test]
    fn an_interval_shorter_than_the_path_shows_nothing() {
        let mut r = RateEstimator::default();
        let stamp = r.on_send(at(0), true);
        let seen = r.finish(at(5), one(1000, stamp, at(0)), Some(ms(10))).unwrap();
        assert_eq!(seen.rate, None);
        assert_eq!(r.delivered(), 1000, "but it counts as delivered");
    }

    #[test]
    fn what_is_sent_after_the_application_ran_dry_is_marked() {
        let mut r = RateEstimator::default();
        let first = r.on_send(at(0), true);
        r.mark_app_limited(1000);
        assert!(r.is_app_limited());
        let second = r.on_send(at(1), false);
        assert!(
            !r.finish(at(10), one(1000, first, at(0)), Some(ms(1)))
                .unwrap()
                .rate
                .unwrap()
                .app_limited
        );
        assert!(r.is_app_limited(), "the last of what was in flight is not delivered yet");
        assert!(
            r.finish(at(11), one(1000, second, at(1)), Some(ms(1)))
                .unwrap()
                .rate
                .unwrap()
                .app_limited
        );
        assert!(!r.is_app_limited());
    }

    #[test]
    fn an_ack_that_delivers_nothing_shows_nothing() {
        let mut r = RateEstimator::default();
        r.on_send(at(0), true);
        assert_eq!(r.finish(at(10), Round::default(), None), None);
        assert_eq!(r.delivered(), 0);
    }
}
