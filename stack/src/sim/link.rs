//! One direction of a link: a rate, a queue before it, a delay behind it, and what goes wrong.
//!
//! ```text
//!   offer ─ too large? ─ down? ─ lost? ─▶ queue (drop-tail, CE mark) ─▶ rate ─▶ delay, spikes ─▶ take
//! ```
//!
//! [`Faulty`](barewire_driver::middleware::fault::Faulty) damages frames one by one, as it does on
//! real devices, too. A link adds what only a model has: a bottleneck whose queue is counted in
//! bytes, and faults that last (bursts of loss, spikes of delay, outages, an MTU on the way). It
//! knows nothing of frames but their length, so that others than [`World`](super::World) can join
//! hosts by it. Frames never overtake each other here.

use std::collections::VecDeque;
use std::time::Duration;

use crate::rng::Rng;
use crate::time::Instant;

/// Most frames under way; beyond it they are dropped and counted as if the queue were full.
pub const MAX_LINK_FRAMES: usize = 8192;

/// Losses that come together: a chain of two states (Gilbert), in one of which all frames are lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bursts {
    /// Probability that a frame is followed by a burst.
    pub begin: f64,
    /// Mean number of frames that a burst takes.
    pub frames: f64,
}

/// Something that happens again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Episodes {
    /// Time from the start of one to the start of the next; the first is one such time away.
    pub every: Duration,
    /// Time that each takes, less than `every`.
    pub lasts: Duration,
}

impl Episodes {
    fn covers(self, now: Instant) -> bool {
        let every = self.every.as_nanos().max(1);
        let now = u128::from(now.as_nanos());
        now >= every && now % every < self.lasts.as_nanos()
    }
}

/// What a link is like. The default one carries everything at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkConfig {
    /// Seeds its losses.
    pub seed: u64,
    /// Bits a second that it carries.
    pub rate_bps: Option<u64>,
    /// Bytes that may wait for the rate; a frame that finds no room is dropped. Without it there is
    /// room for [`MAX_LINK_FRAMES`].
    pub queue_bytes: Option<usize>,
    /// Frames that find more bytes than this waiting ask to be marked (RFC 3168 §5).
    pub mark_bytes: Option<usize>,
    /// Bytes on the wire beside each frame: preamble, checksum, gap.
    pub overhead_bytes: usize,
    /// Time that every frame is under way.
    pub delay: Duration,
    /// Probability that a frame is lost.
    pub loss: f64,
    /// Losses that come together.
    pub bursts: Option<Bursts>,
    /// Times when the delay is longer by so much.
    pub spikes: Option<(Episodes, Duration)>,
    /// Times when nothing gets through.
    pub outages: Option<Episodes>,
    /// The largest frame in bytes.
    pub largest_frame: Option<usize>,
    /// Larger ones vanish without a word to their sender: a black hole.
    pub silent: bool,
}

/// What has become of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Frames that came out.
    pub carried: u64,
    /// Frames that were lost, alone or in a burst.
    pub lost: u64,
    /// Frames that came while the link was down.
    pub down: u64,
    /// Frames that found the queue full.
    pub full: u64,
    /// Frames that found the queue above its mark.
    pub marked: u64,
    /// Frames larger than the link takes.
    pub too_large: u64,
}

struct UnderWay<T> {
    due: Instant,
    mark: bool,
    frame: T,
}

/// One direction of a link that carries `T`.
pub struct Link<T> {
    config: LinkConfig,
    rng: Rng,
    in_burst: bool,
    /// When the last bit of what waits has left.
    free_at: Instant,
    frames: VecDeque<UnderWay<T>>,
    counters: LinkCounters,
}

impl<T> Link<T> {
    /// A link on which nothing is under way.
    pub fn new(config: LinkConfig) -> Link<T> {
        let rng = Rng::new(u128::from(config.seed) | 1 << 80);
        let frames = VecDeque::new();
        let (in_burst, free_at) = (false, Instant::ZERO);
        Link { config, rng, in_burst, free_at, frames, counters: LinkCounters::default() }
    }

    /// What has become of frames.
    pub fn counters(&self) -> LinkCounters {
        self.counters
    }

    /// Whether a sender learns that a frame was too large.
    pub(super) fn tells(&self) -> bool {
        !self.config.silent
    }

    /// The largest frame, if there is one.
    pub fn largest_frame(&self) -> Option<usize> {
        self.config.largest_frame
    }

    /// Lets a frame of `len` bytes in. It comes out of [`Link::take`] in its time, or never.
    pub fn offer(&mut self, now: Instant, len: usize, frame: T) {
        // Drawn for each frame, so that other settings do not move the losses.
        let lost = self.is_lost();
        let waiting = self.waiting_bytes(now);
        let room = self.config.queue_bytes.is_none_or(|room| waiting + len <= room);
        if self.config.largest_frame.is_some_and(|largest| len > largest) {
            self.counters.too_large += 1;
        } else if self.config.outages.is_some_and(|outages| outages.covers(now)) {
            self.counters.down += 1;
        } else if lost {
            self.counters.lost += 1;
        } else if !room || self.frames.len() >= MAX_LINK_FRAMES {
            self.counters.full += 1;
        } else {
            let mark = self.config.mark_bytes.is_some_and(|mark| waiting > mark);
            self.counters.marked += u64::from(mark);
            let due = self.due(now, len);
            self.frames.push_back(UnderWay { due, mark, frame });
        }
    }

    fn is_lost(&mut self) -> bool {
        let alone = self.rng.chance(self.config.loss);
        let Some(Bursts { begin, frames }) = self.config.bursts else { return alone };
        let change = if self.in_burst { 1.0 / frames.max(1.0) } else { begin };
        let was_in_burst = self.in_burst;
        self.in_burst ^= self.rng.chance(change);
        alone || was_in_burst
    }

    /// Bytes that have not left yet, the one that is leaving rounded up.
    fn waiting_bytes(&self, now: Instant) -> usize {
        let Some(rate) = self.config.rate_bps else { return 0 };
        let ns = self.free_at.saturating_since(now).as_nanos();
        (ns * u128::from(rate)).div_ceil(8_000_000_000) as usize
    }

    fn due(&mut self, now: Instant, len: usize) -> Instant {
        let bits = (len + self.config.overhead_bytes) as u128 * 8;
        let takes = self.config.rate_bps.map_or(0, |rate| bits * 1_000_000_000 / u128::from(rate));
        self.free_at = self.free_at.max(now) + Duration::from_nanos(takes as u64);
        let spike = self.config.spikes.filter(|(when, _)| when.covers(now));
        let delay = self.config.delay + spike.map_or(Duration::ZERO, |(_, more)| more);
        let last = self.frames.back().map_or(Instant::ZERO, |last| last.due);
        (self.free_at + delay).max(last)
    }

    /// The next frame that has come through, and whether it is to be marked.
    pub fn take(&mut self, now: Instant) -> Option<(T, bool)> {
        let frame = self.frames.pop_front_if(|frame| frame.due <= now)?;
        self.counters.carried += 1;
        Some((frame.frame, frame.mark))
    }

    /// When [`Link::take`] next has a frame.
    pub fn next_due(&self) -> Option<Instant> {
        self.frames.front().map(|frame| frame.due)
    }

    /// Drops what is under way.
    pub fn clear(&mut self) {
        self.frames.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn a_frame_takes_its_bits_over_the_rate_and_then_the_delay() {
        let config =
            LinkConfig { rate_bps: Some(8_000_000), delay: 5 * MS, ..LinkConfig::default() };
        let mut link = Link::new(config);
        link.offer(at(0), 1000, 'a');
        link.offer(at(0), 2000, 'b');
        assert_eq!(link.next_due(), Some(at(6)));
        assert_eq!(link.take(at(5)), None);
        assert_eq!(link.take(at(6)), Some(('a', false)));
        assert_eq!(link.next_due(), Some(at(8)));
        assert_eq!(link.take(at(8)), Some(('b', false)));
        // The rate rests while there is nothing to carry.
        link.offer(at(20), 1000, 'c');
        assert_eq!(link.next_due(), Some(at(26)));
    }

    #[test]
    fn a_full_queue_drops_what_comes_last_and_marks_before_that() {
        let mut link = Link::new(LinkConfig {
            rate_bps: Some(8_000_000),
            queue_bytes: Some(3000),
            mark_bytes: Some(1500),
            ..LinkConfig::default()
        });
        for frame in 0..5 {
            link.offer(at(0), 1000, frame);
        }
        let out: Vec<_> = std::iter::from_fn(|| link.take(at(10))).collect();
        assert_eq!(out, [(0, false), (1, false), (2, true)]);
        assert_eq!((link.counters().full, link.counters().marked), (2, 1));
        // Half of what waits has left.
        link.offer(at(2), 1000, 5);
        assert_eq!(link.counters().full, 2);
    }

    #[test]
    fn losses_come_alone_or_together_at_the_rates_asked_for() {
        let lost = |config: LinkConfig| {
            let mut link = Link::new(config);
            let mut fate = Vec::new();
            for _ in 0..100_000 {
                let before = link.counters().lost;
                link.offer(at(0), 100, ());
                let _ = link.take(at(0));
                fate.push(link.counters().lost > before);
            }
            let runs = fate.windows(2).filter(|pair| !pair[0] && pair[1]).count();
            (link.counters().lost, runs as u64)
        };
        let (alone, runs) = lost(LinkConfig { loss: 0.01, ..LinkConfig::default() });
        assert!((900..1100).contains(&alone) && runs * 100 > alone * 97, "{alone} in {runs}");
        let bursts = Some(Bursts { begin: 0.001, frames: 10.0 });
        let (together, runs) = lost(LinkConfig { bursts, ..LinkConfig::default() });
        assert!((70..130).contains(&runs), "{runs} bursts");
        assert!((7 * runs..13 * runs).contains(&together), "{together} in {runs}");
    }

    #[test]
    fn episodes_come_again_and_frames_stay_in_order_through_them() {
        let every = |every, lasts| Episodes { every: every * MS, lasts: lasts * MS };
        let mut link = Link::new(LinkConfig {
            outages: Some(every(100, 10)),
            spikes: Some((every(30, 5), 50 * MS)),
            ..LinkConfig::default()
        });
        for ms in [0, 30, 34, 35, 99, 100, 109, 110] {
            link.offer(at(ms), 100, ms);
        }
        assert_eq!(link.counters().down, 2);
        let mut out = Vec::new();
        while let Some(due) = link.next_due() {
            let (sent, _) = link.take(due).unwrap();
            out.push((sent, due.as_millis()));
        }
        assert_eq!(out, [(0, 0), (30, 80), (34, 84), (35, 84), (99, 99), (110, 110)]);
    }

    #[test]
    fn a_frame_larger_than_the_link_takes_is_not_carried() {
        let config = LinkConfig { largest_frame: Some(600), ..LinkConfig::default() };
        let mut link = Link::new(config);
        link.offer(at(0), 600, ());
        link.offer(at(0), 601, ());
        assert_eq!((link.frames.len(), link.counters().too_large), (1, 1));
    }
}
