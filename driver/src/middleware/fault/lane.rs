//! One direction of a bad link.
//!
//! ```text
//!   frame ─ lose ─ double ─ corrupt ─ throttle, delay ─▶ due (by time) ─┬─▶ out
//!                                                                       └ hold back ─▶ (overtaken)
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::config::{
    FaultRates, MAX_HELD_FRAMES, MAX_RATE_BACKLOG, MAX_REORDER_FRAMES, MAX_REORDER_HOLD,
};
use crate::mem::{PacketSlice, Pool};

/// What one direction has done so far; read from any thread.
#[derive(Debug, Default)]
pub struct LaneFigures {
    passed: AtomicU64,
    lost: AtomicU64,
    duplicated: AtomicU64,
    reordered: AtomicU64,
    corrupted: AtomicU64,
    throttled: AtomicU64,
    overflowed: AtomicU64,
    no_buffer: AtomicU64,
}

/// A copy of [`LaneFigures`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneCounters {
    /// Frames that came out, duplicates included.
    pub passed: u64,
    /// Frames that were lost on purpose.
    pub lost: u64,
    /// Frames that were sent on twice.
    pub duplicated: u64,
    /// Frames that were held back.
    pub reordered: u64,
    /// Frames of which a bit was flipped.
    pub corrupted: u64,
    /// Frames dropped because the throttled link had too much waiting.
    pub throttled: u64,
    /// Frames dropped because too many were held ([`MAX_HELD_FRAMES`]), or because the queue
    /// stopped while they were under way.
    pub overflowed: u64,
    /// Frames dropped because the pool had no slot to corrupt a copy in.
    pub no_buffer: u64,
}

impl LaneFigures {
    /// What has been counted so far.
    pub fn get(&self) -> LaneCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LaneCounters {
            passed: get(&self.passed),
            lost: get(&self.lost),
            duplicated: get(&self.duplicated),
            reordered: get(&self.reordered),
            corrupted: get(&self.corrupted),
            throttled: get(&self.throttled),
            overflowed: get(&self.overflowed),
            no_buffer: get(&self.no_buffer),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A frame under way, with the metadata of its direction.
#[derive(Clone)]
pub(super) struct Frame<M> {
    pub(super) segments: Vec<PacketSlice>,
    pub(super) meta: M,
}

struct Due<M> {
    at_ns: u64,
    /// Held back when its time has come, until so many frames have overtaken it.
    hold: Option<u64>,
    frame: Frame<M>,
}

struct Held<M> {
    /// Leaves when this many frames have passed in all, or at that time.
    after: u64,
    until_ns: u64,
    frame: Frame<M>,
}

pub(super) struct Lane<M> {
    rates: FaultRates,
    rng: fastrand::Rng,
    figures: Arc<LaneFigures>,
    /// In the order of arrival. A frame whose time has come waits for those before it, so that
    /// jitter does not reorder.
    due: VecDeque<Due<M>>,
    held: VecDeque<Held<M>>,
    /// Frames that have come out.
    passed: u64,
    /// When the throttled link is free again.
    free_at_ns: u64,
}

/// Numbers drawn for a frame: always the same number of draws, so that changing one rate does not
/// move the faults of another to other frames.
struct Fate {
    lost: bool,
    duplicate: bool,
    corrupt: Option<u64>,
    hold: Option<u64>,
    jitter: f64,
}

impl<M: Clone> Lane<M> {
    pub(super) fn new(rates: FaultRates, seed: u64, figures: Arc<LaneFigures>) -> Lane<M> {
        Lane {
            rates,
            rng: fastrand::Rng::with_seed(seed),
            figures,
            due: VecDeque::new(),
            held: VecDeque::new(),
            passed: 0,
            free_at_ns: 0,
        }
    }

    fn fate(&mut self) -> Fate {
        let rates = self.rates;
        let mut chance = |p: f64| self.rng.f64() < p;
        let (lost, duplicate) = (chance(rates.loss), chance(rates.duplicate));
        let (corrupt, hold) = (chance(rates.corrupt), chance(rates.reorder));
        let (bit, span) = (self.rng.u64(..), self.rng.u64(1..=MAX_REORDER_FRAMES));
        Fate {
            lost,
            duplicate,
            corrupt: corrupt.then_some(bit),
            hold: hold.then_some(span),
            jitter: self.rng.f64(),
        }
    }

    /// Lets a frame in; what is left of it comes out of [`Lane::pop`] in its time.
    pub(super) fn push(&mut self, mut frame: Frame<M>, pool: &Pool, now_ns: u64) {
        let fate = self.fate();
        if fate.lost {
            return count(&self.figures.lost);
        }
        let bytes: usize = frame.segments.iter().map(|s| s.len()).sum();
        if let Some(random) = fate.corrupt
            && bytes > 0
        {
            let bit = (random % (bytes as u64 * 8)) as usize;
            if !flip_bit(&mut frame.segments, bit, pool) {
                return count(&self.figures.no_buffer);
            }
            count(&self.figures.corrupted);
        }
        let Some(carried_ns) = self.throttle(bytes, now_ns) else {
            return count(&self.figures.throttled);
        };
        let under_way = self.rates.delay + self.rates.jitter.mul_f64(fate.jitter);
        let at_ns = carried_ns.saturating_add(nanos(under_way));
        if fate.duplicate {
            count(&self.figures.duplicated);
            self.enter(Due { at_ns, hold: None, frame: frame.clone() });
        }
        self.enter(Due { at_ns, hold: fate.hold, frame });
    }

    fn enter(&mut self, due: Due<M>) {
        if self.len() >= MAX_HELD_FRAMES {
            return count(&self.figures.overflowed);
        }
        self.due.push_back(due);
    }

    /// When a throttled link has carried `bytes` more, or `None` if they would wait too long.
    fn throttle(&mut self, bytes: usize, now_ns: u64) -> Option<u64> {
        let Some(rate) = self.rates.rate else { return Some(now_ns) };
        let starts = self.free_at_ns.max(now_ns);
        if starts - now_ns > nanos(MAX_RATE_BACKLOG) {
            return None;
        }
        let takes = (bytes as u64).saturating_mul(1_000_000_000) / rate.max(1);
        self.free_at_ns = starts.saturating_add(takes);
        Some(self.free_at_ns)
    }

    /// The next frame that has come through.
    pub(super) fn pop(&mut self, now_ns: u64) -> Option<Frame<M>> {
        loop {
            let ripe = |held: &Held<M>| held.after <= self.passed || held.until_ns <= now_ns;
            if let Some(at) = self.held.iter().position(ripe) {
                let held = self.held.remove(at)?;
                return Some(self.passes(held.frame));
            }
            let due = self.due.pop_front_if(|due| due.at_ns <= now_ns)?;
            let Some(span) = due.hold else { return Some(self.passes(due.frame)) };
            count(&self.figures.reordered);
            let until_ns = due.at_ns.saturating_add(nanos(MAX_REORDER_HOLD));
            self.held.push_back(Held { after: self.passed + span, until_ns, frame: due.frame });
        }
    }

    fn passes(&mut self, frame: Frame<M>) -> Frame<M> {
        self.passed += 1;
        count(&self.figures.passed);
        frame
    }

    /// When [`Lane::pop`] next has a frame at the latest, or `None` if nothing is under way.
    pub(super) fn next_ns(&self) -> Option<u64> {
        let held = self.held.iter().map(|held| held.until_ns).min();
        self.due.front().map(|due| due.at_ns).into_iter().chain(held).min()
    }

    /// Frames under way.
    pub(super) fn len(&self) -> usize {
        self.due.len() + self.held.len()
    }

    /// Drops all frames under way.
    pub(super) fn clear(&mut self) {
        self.figures.overflowed.fetch_add(self.len() as u64, Ordering::Relaxed);
        self.due.clear();
        self.held.clear();
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Flips one bit of the frame in a copy of the segment that holds it: the sender may need the
/// original to send it again. False if the pool has no slot for the copy.
fn flip_bit(segments: &mut [PacketSlice], bit: usize, pool: &Pool) -> bool {
    let mut byte = bit / 8;
    for segment in segments {
        if byte < segment.len() {
            let Some(mut copy) = pool.copy_from(segment) else { return false };
            copy[byte] ^= 1 << (bit % 8);
            *segment = copy.freeze();
            return true;
        }
        byte -= segment.len();
    }
    true
}
