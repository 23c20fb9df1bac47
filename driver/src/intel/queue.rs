//! One queue pair: two rings, their memory, and the doorbells.
//!
//! Queue 0 also looks after what belongs to no queue, the link: its engine sleeps on the link's
//! interrupt as well as on its own, and looks when it wakes.
//!
//! No register is read while frames flow. A burst writes RDT once if the ring was refilled, and TDT
//! once if something was put on the ring; whether the device is still there is looked up once in
//! thousands of bursts, before sleeping, and when nothing goes out.

use std::any::Any;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use super::hw::{Hw, Reg};
use super::nic::{Core, Family, RingPlaces};
use super::regs::{RxQueueRegs, TxQueueRegs};
use super::rx::RxRing;
use super::tx::TxRing;
use super::{NicConfig, device_error};
use crate::barrier;
use crate::bus::{DmaMapping, Iova};
use crate::device::{
    Arm, Capabilities, DeviceError, Features, Queue, QueueCounters, QueueError, QueueSeed, RxBurst,
    TxBurst,
};
use crate::mem::{Pool, Region};
use crate::ring::{DESCRIPTOR_LEN, Descriptors, HeaderArea};
use crate::sys::{self, Clock, WaitSet};

/// How often a queue looks whether its device is still there, idle or not: the kernel may want it
/// back under full load, too. One register read in so many bursts is not on the hot path.
const POLLS_PER_LOOK: u32 = 4096;

/// How long to sleep while the pool is too empty to post slots: nobody tells the queue that a slot
/// has come home.
const NO_BUFFER_WAIT_NS: u64 = 1_000_000;

/// How long to sleep while the device has lost its queues: what is said about that may come without
/// an interrupt, whose vector has been lost, too.
const HALTED_WAIT_NS: u64 = 10_000_000;

/// How long to sleep where the device has no interrupt for the queue.
const NO_INTERRUPT_WAIT_NS: u64 = 100_000;

/// Longest sleep: nothing interrupts when the kernel wants the device back or when it is pulled
/// out, so that a queue without traffic has to look.
const LOOK_WAIT_NS: u64 = 1_000_000_000;

/// How long the device may report none of the frames it has before that is counted. Between two
/// reports are 32 descriptors at most, which take 1.7 s at 10 Mbit/s if each is a large segment.
const STALL_NS: u64 = 2_000_000_000;

/// The queue that looks after the link.
const KEEPER: u16 = 0;

/// An address bit that every IOMMU translates (they have 39 at least) and no mapping reaches.
const NOTHING_MAPPED: u64 = 1 << 38;

/// A queue on its way to its thread.
pub(crate) struct NicSeed<F: Family> {
    pub(crate) core: Arc<Core<F>>,
    pub(crate) queue: u16,
}

impl<F: Family> QueueSeed for NicSeed<F> {
    fn open(self: Box<Self>) -> Box<dyn Queue> {
        Box::new(NicQueue {
            hw: self.core.family.hw().clone(),
            tails: [RxQueueRegs(self.queue).rdt(), TxQueueRegs(self.queue).tdt()],
            core: self.core,
            queue: self.queue,
            running: None,
            halted: None,
            losses: 0,
            stopped: false,
            armed: false,
            wait: None,
            woken_by_other: true,
            polls: 0,
            gone: false,
            stall: StallWatch::default(),
            clock: Clock::monotonic(),
            counters: QueueCounters::default(),
        })
    }
}

/// What a started queue holds. The fields are dropped in this order: slices and slots first, then
/// the mappings, by which time the device has been stopped.
struct Running<F: Family> {
    rx: RxRing<F::Format>,
    tx: TxRing<F::Format>,
    places: RingPlaces,
    _mappings: [Box<dyn DmaMapping>; 2],
}

/// Notices that frames wait and the device reports none of them.
#[derive(Debug, Default)]
struct StallWatch {
    /// While frames wait: how many have been reported, and when that was seen first.
    waiting: Option<(usize, u64)>,
}

impl StallWatch {
    /// True once in [`STALL_NS`] in which nothing was reported although frames wait.
    fn is_stalled(&mut self, pending: usize, reported: usize, now_ns: u64) -> bool {
        let still = self.waiting.filter(|&(before, _)| pending > 0 && before == reported);
        let stalled = still.is_some_and(|(_, since)| now_ns.saturating_sub(since) >= STALL_NS);
        if still.is_none() || stalled {
            self.waiting = (pending > 0).then_some((reported, now_ns));
        }
        stalled
    }
}

struct NicQueue<F: Family> {
    hw: Hw,
    core: Arc<Core<F>>,
    queue: u16,
    /// Where RDT and TDT are.
    tails: [Reg; 2],
    running: Option<Running<F>>,
    /// The same while the device has lost its queues: it has nothing of ours.
    halted: Option<Running<F>>,
    /// The device's count of losses (see [`Core::losses`]) when the queue was started.
    losses: u32,
    stopped: bool,
    armed: bool,
    /// Of the keeper: its own interrupt and the link's.
    wait: Option<WaitSet>,
    /// It was not this queue's interrupt that ended the last sleep.
    woken_by_other: bool,
    polls: u32,
    /// The device was found to be gone, or was cut off.
    gone: bool,
    stall: StallWatch,
    clock: Clock,
    counters: QueueCounters,
}

/// Bytes of the region that both rings and the header area lie in.
fn region_len(config: &NicConfig) -> usize {
    (usize::from(config.rx_ring) + usize::from(config.tx_ring)) * DESCRIPTOR_LEN
        + HeaderArea::bytes(config.tx_ring)
}

impl<F: Family> NicQueue<F> {
    fn build(&self, pool: &Pool, granted: Features) -> Result<Running<F>, DeviceError> {
        let config = &self.core.config;
        let function = self.hw.function();
        let region = Region::new(region_len(config), function.needs_hugepages())
            .map_err(|error| DeviceError::Config(error.to_string()))?;
        let region = Arc::new(region);
        let rings = function.map(&region).map_err(device_error)?;
        let packets = function.map(pool.region()).map_err(device_error)?;
        let rx = Descriptors::new(&region, 0, config.rx_ring);
        let tx_offset = usize::from(config.rx_ring) * DESCRIPTOR_LEN;
        let tx = Descriptors::new(&region, tx_offset, config.tx_ring);
        let header_offset = tx_offset + usize::from(config.tx_ring) * DESCRIPTOR_LEN;
        let headers = HeaderArea::new(&region, header_offset, config.tx_ring);
        let places = RingPlaces {
            rx: rings.iova().0 + rx.offset() as u64,
            rx_len: config.rx_ring,
            tx: rings.iova().0 + tx.offset() as u64,
            tx_len: config.tx_ring,
            buffer_len: pool.slot_len() as u32,
        };
        let limits = self.core.tx_limits(self.queue);
        // `send_unmapped` is far from whatever is mapped: addresses are handed out from the lowest.
        let sent = match config.send_unmapped {
            true => Iova(packets.iova().0 | NOTHING_MAPPED),
            false => packets.iova(),
        };
        Ok(Running {
            rx: RxRing::new(rx, pool, packets.iova(), granted),
            tx: TxRing::new(tx, (headers, rings.iova()), (pool, sent), granted, limits),
            places,
            _mappings: [rings, packets],
        })
    }

    /// Looks whether the device is still there and what it has sent: a register read and more, so
    /// not for every burst.
    #[cold]
    fn look(&mut self) -> Result<(), QueueError> {
        self.polls = 0;
        self.gone |= self.core.is_broken() || self.hw.is_gone();
        if self.gone {
            let reason = format!("{} does not answer", self.hw.function().address());
            return Err(QueueError::Gone(io::Error::new(io::ErrorKind::NotConnected, reason)));
        }
        if self.queue == KEEPER {
            self.keep();
        }
        self.follow_losses();
        if let Some(running) = &mut self.running {
            running.tx.reclaim_past_lost();
            let (pending, reported) = (running.tx.pending(), running.tx.reported());
            let stalled = self.stall.is_stalled(pending, reported, self.clock.now_ns());
            self.counters.tx_stalls += u64::from(stalled);
        }
        Ok(())
    }

    /// Looks after the link.
    fn keep(&mut self) {
        if self.wait.is_some() && std::mem::take(&mut self.woken_by_other) {
            self.counters.syscalls += 1;
            self.core.take_link_event();
        }
        self.core.watch();
    }

    /// Lets go of everything when the device has lost its queues, and starts anew when it has them
    /// back.
    fn follow_losses(&mut self) {
        let losses = self.core.losses();
        if losses == self.losses {
            return;
        }
        if let Some(mut running) = self.running.take() {
            let Some(quiet) = self.core.halt_queue(self.queue) else {
                // The core is broken now, which the next look tells.
                self.running = Some(running);
                return;
            };
            self.counters.device_losses += 1;
            self.counters.tx_lost += running.tx.pending() as u64;
            running.rx.abandon(&quiet);
            running.tx.abandon(&quiet);
            self.halted = Some(running);
        }
        let Some(running) = self.halted.as_ref().filter(|_| losses & 1 == 0) else { return };
        // If it fails the device has been lost again, which the next look tells.
        if self.core.resume_queue(self.queue, &running.places).is_ok() {
            self.losses = losses;
            self.running = self.halted.take();
            self.refill();
        }
    }

    /// Posts slots, if there are descriptors for them.
    #[inline]
    fn refill(&mut self) {
        let Some(running) = &mut self.running else { return };
        if let Some(tail) = running.rx.refill(&mut self.counters) {
            self.ring_rx(tail);
        }
    }

    /// A burst while there is nothing to receive from and nothing to send to.
    #[cold]
    fn burst_at_rest(&mut self) -> Result<usize, QueueError> {
        self.polls += 1;
        if self.halted.is_some() && (self.gone || self.polls >= POLLS_PER_LOOK) {
            self.look()?;
        }
        Ok(0)
    }

    /// What becomes readable when there is something to do.
    fn sleep_fd(&self) -> Option<RawFd> {
        let both = self.wait.as_ref().map(WaitSet::as_raw_fd);
        both.or_else(|| self.core.vector(self.queue))
    }

    /// Gives the device the descriptors up to `tail`.
    fn ring_rx(&self, tail: u16) {
        // Orders the descriptors' stores before the tail's: the device reads what it names.
        barrier::publish();
        self.hw.write(self.tails[0], u32::from(tail));
    }

    fn ring_tx(&self, tail: u16) {
        // As in `ring_rx`, and the packets' bytes with them.
        barrier::publish();
        self.hw.write(self.tails[1], u32::from(tail));
    }
}

impl<F: Family> Queue for NicQueue<F> {
    fn capabilities(&self) -> Capabilities {
        self.core.capabilities()
    }

    fn start(&mut self, pool: &Pool, wanted: Features) -> Result<Features, DeviceError> {
        if self.stopped || self.running.is_some() || self.halted.is_some() {
            return Err(DeviceError::Config("a queue is started once".into()));
        }
        let mut granted = wanted & self.capabilities().features;
        if !granted.contains(Features::TX_CHECKSUM) {
            granted.remove(Features::TSO4 | Features::TSO6);
        }
        if let (KEEPER, Some(own), Some(link)) =
            (self.queue, self.core.vector(self.queue), self.core.link_vector())
        {
            let wait = WaitSet::new(&[own, link]).map_err(|source| DeviceError::Os {
                what: "cannot wait for a queue and the link".into(),
                source,
                fix: None,
            })?;
            self.wait = Some(wait);
        }
        let running = self.build(pool, granted)?;
        self.losses = self.core.losses();
        self.core.start_queue(self.queue, &running.places).map_err(device_error)?;
        self.running = Some(running);
        self.refill();
        Ok(granted)
    }

    fn rx_burst(&mut self, burst: &mut RxBurst, max: usize) -> Result<usize, QueueError> {
        let Some(running) = &mut self.running else { return self.burst_at_rest() };
        let received = running.rx.receive(burst, max, &mut self.counters);
        if let Some(tail) = running.rx.refill(&mut self.counters) {
            self.ring_rx(tail);
        }
        self.polls += 1;
        if self.gone || self.polls >= POLLS_PER_LOOK {
            // What has been received is valid even so.
            self.look()?;
        }
        Ok(received)
    }

    fn tx_burst(&mut self, burst: &mut TxBurst) -> Result<usize, QueueError> {
        let Some(running) = &mut self.running else { return Ok(0) };
        if burst.is_empty() {
            return Ok(0);
        }
        let (sent, tail) = running.tx.send(burst, &mut self.counters);
        if let Some(tail) = tail {
            self.ring_tx(tail);
        } else if !burst.is_empty() {
            // A full ring that nobody empties is what a device looks like that is gone, and one
            // whose reports got lost.
            self.look()?;
        }
        Ok(sent)
    }

    fn tx_room(&self) -> usize {
        self.running.as_ref().map_or(0, |running| running.tx.room())
    }

    fn reclaim(&mut self) -> usize {
        self.running.as_mut().map_or(0, |running| running.tx.reclaim())
    }

    fn pending_tx(&self) -> usize {
        self.running.as_ref().map_or(0, |running| running.tx.pending())
    }

    fn arm(&mut self) -> Arm {
        if self.halted.is_some() {
            let woken = self.look().is_err() || self.running.is_some();
            let until_ns = Some(self.clock.now_ns() + HALTED_WAIT_NS);
            return if woken { Arm::Ready } else { Arm::Sleep { fd: None, until_ns } };
        }
        let Some(running) = &mut self.running else {
            return Arm::Sleep { fd: None, until_ns: None };
        };
        self.core.family.arm(self.queue);
        self.armed = true;
        // `arm` has read a register behind its writes: what the device finished before the
        // interrupt was unmasked is in memory now, and what it finishes later interrupts.
        if running.rx.ready() || running.tx.reclaim() > 0 {
            return Arm::Ready;
        }
        let pending = self.pending_tx();
        if self.look().is_err() || self.halted.is_some() || self.pending_tx() < pending {
            // The next burst tells why, or there is something else to do.
            return Arm::Ready;
        }
        let starved = self.running.as_ref().is_some_and(|running| running.rx.starved());
        let fd = self.sleep_fd();
        let wait = match (fd, starved) {
            (None, _) => NO_INTERRUPT_WAIT_NS,
            (Some(_), true) => NO_BUFFER_WAIT_NS,
            (Some(_), false) => LOOK_WAIT_NS,
        };
        Arm::Sleep { fd, until_ns: Some(self.clock.now_ns() + wait) }
    }

    fn disarm(&mut self) {
        if !std::mem::take(&mut self.armed) {
            return;
        }
        self.core.family.disarm(self.queue);
        if let Some(fd) = self.core.vector(self.queue) {
            self.counters.syscalls += 1;
            self.woken_by_other = !sys::drain_eventfd(fd);
        }
    }

    fn counters(&self) -> QueueCounters {
        self.counters
    }

    fn stop(&mut self) {
        self.stopped = true;
        self.disarm();
        let Some(mut running) = self.running.take().or_else(|| self.halted.take()) else { return };
        let Some(quiet) = self.core.stop_queue(self.queue) else {
            // What a device may go on writing to stays as it is: slots, rings and their mappings.
            std::mem::forget(running);
            return;
        };
        running.rx.abandon(&quiet);
        running.tx.abandon(&quiet);
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl<F: Family> Drop for NicQueue<F> {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_frames_that_wait_while_nothing_is_reported() {
        let mut watch = StallWatch::default();
        assert!(!watch.is_stalled(0, 0, 9 * STALL_NS), "nothing waits");
        assert!(!watch.is_stalled(5, 0, 20 * STALL_NS), "it may have been sent just now");
        assert!(!watch.is_stalled(5, 0, 21 * STALL_NS - 1));
        assert!(watch.is_stalled(6, 0, 21 * STALL_NS));
        assert!(!watch.is_stalled(6, 0, 22 * STALL_NS - 1), "once in so long");
        assert!(!watch.is_stalled(3, 3, 22 * STALL_NS), "some went out");
        assert!(watch.is_stalled(3, 3, 23 * STALL_NS));
        assert!(!watch.is_stalled(0, 6, 24 * STALL_NS));
    }
}
