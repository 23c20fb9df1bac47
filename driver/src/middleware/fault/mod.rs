//! Faults by a seed: the network as it is on a bad day, in front of any queue.
//!
//! ```text
//!   rx_burst ◀─ lane ◀─ inner.rx_burst          tx_burst ─▶ lane ─▶ inner.tx_burst
//! ```
//!
//! The offloads are withdrawn at `start` (segmentation, large receive, checksums both ways), so
//! that faults hit frames of wire size with real checksums: losing a frame of 64 KiB is another
//! experiment than losing one of 1,500 bytes, and a corrupted frame marked as verified would pass.
//!
//! Frames that are delayed or held back wait here, at most [`MAX_HELD_FRAMES`] a direction. Sent
//! ones leave whenever the queue is called (`tx_burst`, `rx_burst`, `reclaim`), and `arm` gives the
//! time of the next one.

mod config;
mod lane;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

pub use config::{
    FaultConfig, FaultRates, FaultSyntaxError, MAX_HELD_FRAMES, MAX_RATE_BACKLOG,
    MAX_REORDER_FRAMES, MAX_REORDER_HOLD,
};
pub use lane::{LaneCounters, LaneFigures};

use super::Wrapper;
use crate::device::{
    Arm, Capabilities, Device, DeviceError, Features, Queue, QueueCounters, QueueError, QueueId,
    QueueSeed, RxBurst, RxFrame, TxBurst, TxFrame,
};
use crate::mem::Pool;
use crate::sys::Clock;
use lane::{Frame, Lane};

/// Features that faults withdraw.
pub const WITHDRAWN: Features = Features::TSO4
    .union(Features::TSO6)
    .union(Features::LARGE_RECEIVE)
    .union(Features::TX_CHECKSUM)
    .union(Features::RX_CHECKSUM);

/// Most frames that wait for room in the inner queue before `tx_burst` takes no more.
const MAX_WAITING: usize = 256;

/// What the faults of one queue, or of all queues of one device, have done.
#[derive(Debug, Default)]
pub struct FaultFigures {
    /// Received frames.
    pub rx: Arc<LaneFigures>,
    /// Sent frames.
    pub tx: Arc<LaneFigures>,
}

/// A queue behind a bad link.
pub struct Faulty {
    inner: Box<dyn Queue>,
    figures: Arc<FaultFigures>,
    clock: Clock,
    pool: Option<Pool>,
    rx: Lane<RxFrame>,
    tx: Lane<TxFrame>,
    /// Received frames on their way into the lane.
    arrived: RxBurst,
    /// Frames that have come through and wait for room in the inner queue.
    leaving: TxBurst,
    tx_full: u64,
}

impl Faulty {
    /// Puts faults before `inner`, by the monotonic clock.
    pub fn new(inner: Box<dyn Queue>, config: FaultConfig) -> Faulty {
        Faulty::with_clock(inner, config, Clock::monotonic(), Arc::default())
    }

    /// The same by another clock, counting in `figures`.
    pub fn with_clock(
        inner: Box<dyn Queue>,
        config: FaultConfig,
        clock: Clock,
        figures: Arc<FaultFigures>,
    ) -> Faulty {
        // The directions draw from streams of their own, so that the order in which a program
        // sends and receives does not change what happens to either.
        let mut seeds = fastrand::Rng::with_seed(config.seed);
        let (rx_seed, tx_seed) = (seeds.u64(..), seeds.u64(..));
        Faulty {
            inner,
            clock,
            pool: None,
            rx: Lane::new(config.rx, rx_seed, Arc::clone(&figures.rx)),
            tx: Lane::new(config.tx, tx_seed, Arc::clone(&figures.tx)),
            figures,
            arrived: RxBurst::new(),
            leaving: TxBurst::new(),
            tx_full: 0,
        }
    }

    /// What the faults have done.
    pub fn figures(&self) -> &Arc<FaultFigures> {
        &self.figures
    }

    /// The queue behind the faults.
    pub fn inner_mut(&mut self) -> &mut dyn Queue {
        &mut *self.inner
    }

    /// Gives the inner queue what has come through, until it takes no more.
    fn pump(&mut self) -> Result<(), QueueError> {
        let now_ns = self.clock.now_ns();
        loop {
            while self.leaving.len() < MAX_WAITING {
                let Some(frame) = self.tx.pop(now_ns) else { break };
                for segment in frame.segments {
                    self.leaving.push_segment(segment);
                }
                self.leaving.finish_frame(frame.meta);
            }
            if self.leaving.is_empty() {
                return Ok(());
            }
            self.inner.tx_burst(&mut self.leaving)?;
            if !self.leaving.is_empty() {
                return Ok(());
            }
        }
    }
}

impl Queue for Faulty {
    fn capabilities(&self) -> Capabilities {
        let inner = self.inner.capabilities();
        Capabilities { features: inner.features - WITHDRAWN, tso_max_bytes: 0, ..inner }
    }

    fn start(&mut self, pool: &Pool, wanted: Features) -> Result<Features, DeviceError> {
        let granted = self.inner.start(pool, wanted - WITHDRAWN)?;
        self.pool = Some(pool.clone());
        Ok(granted)
    }

    fn rx_burst(&mut self, burst: &mut RxBurst, max: usize) -> Result<usize, QueueError> {
        let Some(pool) = &self.pool else { return Ok(0) };
        let now_ns = self.clock.now_ns();
        let result = self.inner.rx_burst(&mut self.arrived, max);
        for frame in self.arrived.frames() {
            let segments = self.arrived.segments(frame).to_vec();
            self.rx.push(Frame { segments, meta: *frame }, pool, now_ns);
        }
        self.arrived.clear();
        let mut received = 0;
        while received < max {
            let Some(frame) = self.rx.pop(now_ns) else { break };
            for segment in frame.segments {
                burst.push_segment(segment);
            }
            burst.finish_frame(frame.meta);
            received += 1;
        }
        result?;
        self.pump()?;
        Ok(received)
    }

    fn tx_burst(&mut self, burst: &mut TxBurst) -> Result<usize, QueueError> {
        let Some(pool) = self.pool.clone() else { return Ok(0) };
        self.pump()?;
        let now_ns = self.clock.now_ns();
        let mut taken = 0;
        while let Some((frame, segments)) = burst.front() {
            if self.leaving.len() >= MAX_WAITING {
                self.tx_full += 1;
                break;
            }
            let frame = Frame { segments: segments.to_vec(), meta: *frame };
            self.tx.push(frame, &pool, now_ns);
            burst.take_front();
            taken += 1;
        }
        burst.clear_taken();
        self.pump()?;
        Ok(taken)
    }

    fn tx_room(&self) -> usize {
        MAX_WAITING.saturating_sub(self.leaving.len()).min(self.inner.tx_room())
    }

    fn reclaim(&mut self) -> usize {
        // An error shows again at the next burst, whose caller can act on it.
        let _ = self.pump();
        self.inner.reclaim()
    }

    fn pending_tx(&self) -> usize {
        self.tx.len() + self.leaving.len() + self.inner.pending_tx()
    }

    fn arm(&mut self) -> Arm {
        let next_ns = self.rx.next_ns().into_iter().chain(self.tx.next_ns()).min();
        if next_ns.is_some_and(|next| next <= self.clock.now_ns()) || !self.leaving.is_empty() {
            return Arm::Ready;
        }
        match self.inner.arm() {
            Arm::Ready => Arm::Ready,
            Arm::Sleep { fd, until_ns } => {
                Arm::Sleep { fd, until_ns: until_ns.into_iter().chain(next_ns).min() }
            }
        }
    }

    fn disarm(&mut self) {
        self.inner.disarm();
    }

    fn counters(&self) -> QueueCounters {
        let inner = self.inner.counters();
        QueueCounters { tx_full: inner.tx_full + self.tx_full, ..inner }
    }

    fn stop(&mut self) {
        self.rx.clear();
        self.tx.clear();
        self.arrived.clear();
        self.leaving.clear();
        self.pool = None;
        self.inner.stop();
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// A device all of whose queues are behind bad links.
pub struct FaultyDevice {
    inner: Arc<dyn Device>,
    config: FaultConfig,
    clock: Clock,
    figures: Arc<FaultFigures>,
}

impl FaultyDevice {
    /// Puts faults before every queue of `inner`, by the monotonic clock. Queue `i` draws from the
    /// seed plus `i`.
    pub fn new(inner: Arc<dyn Device>, config: FaultConfig) -> FaultyDevice {
        FaultyDevice { inner, config, clock: Clock::monotonic(), figures: Arc::default() }
    }

    /// What the faults of all queues have done.
    pub fn figures(&self) -> Arc<FaultFigures> {
        Arc::clone(&self.figures)
    }
}

impl fmt::Debug for FaultyDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyDevice").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Wrapper for FaultyDevice {
    fn inner(&self) -> &dyn Device {
        &*self.inner
    }

    fn offered(&self, inner: Capabilities) -> Capabilities {
        Capabilities { features: inner.features - WITHDRAWN, tso_max_bytes: 0, ..inner }
    }

    fn wrapped(&self, id: QueueId) -> Result<Box<dyn QueueSeed>, DeviceError> {
        let seed = self.config.seed.wrapping_add(u64::from(id.0));
        Ok(Box::new(FaultySeed {
            inner: self.inner.queue(id)?,
            config: FaultConfig { seed, ..self.config },
            clock: self.clock.clone(),
            figures: Arc::clone(&self.figures),
        }))
    }
}

struct FaultySeed {
    inner: Box<dyn QueueSeed>,
    config: FaultConfig,
    clock: Clock,
    figures: Arc<FaultFigures>,
}

impl QueueSeed for FaultySeed {
    fn open(self: Box<Self>) -> Box<dyn Queue> {
        let FaultySeed { inner, config, clock, figures } = *self;
        Box::new(Faulty::with_clock(inner.open(), config, clock, figures))
    }
}

#[cfg(test)]
mod tests;
