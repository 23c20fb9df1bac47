//! Which segments the path takes: what routers say about it (RFC 1191), what silence says (black
//! holes), and trying larger ones (RFC 4821).
//!
//! ```text
//!   ICMP "too large" ── plausible? ──▶ smaller at once
//!                    └─ not yet ─────▶ remembered; believed if the segment is not acknowledged
//!   timeouts in a row ───────────────▶ smaller: RFC 4821 §7.7's black hole
//!   a while later ───────────────────▶ a probe between what works and what did not: larger
//! ```
//!
//! A forged message can make segments smaller only to 536 bytes, and only until the next search: the
//! bound of RFC 5927 §7. Most connections never need any of this and carry one empty pointer.

use super::seq::SeqNum;
use super::tcb::{Status, Tcb};
use crate::time::{Duration, Instant};

/// RFC 1191 §3: no IPv4 link that TCP must work over has a smaller MTU than 576; a forged message
/// must not make segments smaller than that. Options included.
const MSS_FLOOR: u16 = 536;

/// What a black hole is tried with first: 1,024 bytes of packet (RFC 4821 §7.2), headers aside.
const MSS_BASE: u16 = 1024 - 40;

/// Timeouts in a row after which the size of the segments is suspected.
const BLACK_HOLE_TIMEOUTS: u8 = 3;

/// How soon after a black hole larger segments are tried.
const SEARCH_AFTER: Duration = Duration::from_secs(2);

/// RFC 1191 §6.3, RFC 4821 §7.7: how long a found size is kept before a larger one is tried.
const RAISE_AFTER: Duration = Duration::from_secs(600);

/// A search ends when this little is left to gain.
const SEARCH_STEP: u16 = 32;

/// Segments that must be queued beyond a probe, so that duplicate ACKs tell of its loss
/// (RFC 4821 §7.4).
const SEGMENTS_BEHIND: u32 = 4;

/// What is known of the path when more is known than that everything fits.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathMtu {
    /// A router's claim about the segment at this sequence number that is not believed yet.
    claim: Option<(SeqNum, u16)>,
    /// The largest size that may still work.
    high: u16,
    /// When larger segments are tried.
    search_at: Instant,
    /// The probe in flight: where it begins, and its size.
    probe: Option<(SeqNum, u16)>,
}

impl Tcb {
    fn path(&mut self) -> &mut PathMtu {
        let high = self.snd.mss_limit;
        self.path.get_or_insert_with(|| {
            let search_at = Instant::FAR_FUTURE;
            Box::new(PathMtu { claim: None, high, search_at, probe: None })
        })
    }

    /// A router says that the segment at `seq`, which is in flight, was too large for a link that
    /// takes `mss` bytes, options included.
    pub(super) fn path_claimed(&mut self, now: Instant, seq: SeqNum, mss: u16) {
        let mss = mss.max(MSS_FLOOR) - self.options_len();
        if !self.status.contains(Status::SYN_ACKED) {
            return;
        }
        if mss >= self.snd.mss {
            // About a probe: this much may work.
            if let Some(path) = &mut self.path
                && path.probe.is_some_and(|(start, probed)| start == seq && mss < probed)
            {
                path.high = mss;
            }
            return;
        }
        if self.snd.proven > mss {
            // RFC 5927 §7.2: larger segments have arrived. Either the path has changed or somebody
            // lies; whether this segment arrives will tell.
            self.path().claim = Some((seq, mss));
        } else {
            self.believe(now, mss);
        }
    }

    /// The router's word counts.
    fn believe(&mut self, now: Instant, mss: u16) {
        let high = self.snd.mss_limit;
        let path = self.path();
        (path.claim, path.high, path.probe) = (None, high, None);
        path.search_at = now + RAISE_AFTER;
        self.shrink_segments(now, mss);
    }

    /// RFC 1191 §6.5: smaller segments from now on, and what is in flight at once again.
    fn shrink_segments(&mut self, now: Instant, mss: u16) {
        self.snd.mss = mss;
        self.snd.proven = self.snd.proven.min(mss);
        if self.snd.una != self.snd.nxt {
            self.sendq.records.lose_on_timeout(now, Duration::ZERO);
            self.recovery.on_timeout(&self.flight(), false);
        }
    }

    /// `snd.una` has moved from `una`.
    #[inline]
    pub(super) fn path_acked(&mut self, now: Instant, una: SeqNum, acked: u32) {
        // No partial segment ends in between, so all of them were full ones.
        if acked >= self.mss() && self.snd.small_end.before_eq(una) {
            self.snd.proven = self.snd.proven.max(self.snd.mss);
        }
        if self.path.is_some() {
            self.path_acked_now(now);
        }
    }

    #[cold]
    fn path_acked_now(&mut self, now: Instant) {
        let una = self.snd.una;
        let Some(path) = &mut self.path else { return };
        if path.claim.is_some_and(|(seq, _)| seq.before(una)) {
            path.claim = None;
        }
        if let Some((start, mss)) = path.probe
            && (start + u32::from(mss)).before_eq(una)
        {
            path.probe = None;
            (self.snd.mss, self.snd.proven) = (mss, mss);
            if path.high < mss + SEARCH_STEP {
                (path.high, path.search_at) = (self.snd.mss_limit, now + RAISE_AFTER);
            }
            if mss == self.snd.mss_limit {
                self.path = None;
            }
        }
    }

    /// The retransmission timer has expired `timeouts` times in a row for what is at `snd.una`.
    pub(super) fn path_silent(&mut self, now: Instant, timeouts: u8) {
        let una = self.snd.una;
        if let Some(path) = &self.path
            && let Some((seq, mss)) = path.claim
            && seq == una
        {
            self.believe(now, mss);
        }
        let whole = self.snd.nxt.since(una) >= self.mss();
        let options = self.options_len();
        let smaller = [MSS_BASE - options, MSS_FLOOR - options];
        // A window that takes no whole segment explains the silence better.
        let whole = whole && self.snd.wnd >= self.mss();
        if timeouts < BLACK_HOLE_TIMEOUTS || !whole || !self.config.mtu_probing {
            return;
        }
        if let Some(mss) = smaller.into_iter().find(|&mss| mss < self.snd.mss) {
            let high = self.snd.mss - 1;
            let path = self.path();
            (path.high, path.probe, path.search_at) = (high, None, now + SEARCH_AFTER);
            self.shrink_segments(now, mss);
        }
    }

    /// The size of a probe that may leave now, with `sendable` bytes of data that may.
    #[inline]
    pub(super) fn path_probe_due(&self, now: Instant, sendable: u32) -> Option<u16> {
        self.probe_size(self.path.as_ref()?, now, sendable)
    }

    fn probe_size(&self, path: &PathMtu, now: Instant, sendable: u32) -> Option<u16> {
        if path.probe.is_some() || now < path.search_at || !self.recovery.is_quiet() {
            return None;
        }
        let (low, high) = (self.snd.mss, path.high);
        // The whole way first: what was lost may have been something else, or the path may have
        // healed. Then by halves.
        let size = match high.checked_sub(low)? {
            0 => return None,
            _ if high == self.snd.mss_limit => high,
            step if step < SEARCH_STEP => high,
            step => low + step.div_ceil(2),
        };
        let wanted = u32::from(size) + SEGMENTS_BEHIND * self.mss();
        (sendable >= wanted).then_some(size)
    }

    /// A probe of `mss` bytes leaves at `seq`.
    pub(super) fn path_probed(&mut self, seq: SeqNum, mss: u16) {
        self.path().probe = Some((seq, mss));
    }

    /// `[from, from + len)` has been sent again. If that was the probe and nothing else is lost, the
    /// loss says nothing about congestion (RFC 4821 §7.4).
    #[inline]
    pub(super) fn path_resent(&mut self, now: Instant, from: SeqNum, len: u32) {
        if self.path.is_some() {
            self.path_resent_now(now, from, len);
        }
    }

    #[cold]
    fn path_resent_now(&mut self, now: Instant, from: SeqNum, len: u32) {
        let (small, limit) = (self.snd.mss, self.snd.mss_limit);
        let Some(path) = &mut self.path else { return };
        let Some((start, mss)) = path.probe else { return };
        if start.before(from) || start.after_eq(from + len) {
            return;
        }
        (path.probe, path.high) = (None, path.high.min(mss - 1));
        if path.high < small + SEARCH_STEP {
            // Good enough; and after a while the path may be another one.
            (path.high, path.search_at) = (limit, now + RAISE_AFTER);
        }
        if self.sendq.records.lost() == 0 && !self.recovery.after_timeout() {
            self.undo();
        }
    }
}
