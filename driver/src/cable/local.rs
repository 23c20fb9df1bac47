//! Two queues of one thread that hand their slices over.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::CableConfig;
use super::offload::{self, Link, WireFrame};
use crate::device::{
    Arm, Capabilities, DeviceError, Features, Queue, QueueCounters, QueueError, RxBurst, RxFrame,
    TxBurst,
};
use crate::mem::{PacketSlice, Pool};
use crate::rss;

/// Two joined queues for one thread. Frames cross as they are, without a copy; only a frame whose
/// receiver lacks an offload that its sender has is copied, into the receiver's pool.
///
/// # Errors
/// [`DeviceError::Config`] for sizes out of range, unknown features, or more than one queue.
pub fn local(config: CableConfig) -> Result<(LocalQueue, LocalQueue), DeviceError> {
    config.validate()?;
    if config.queues != 1 {
        return Err(DeviceError::Config("a local cable has one queue at each end".into()));
    }
    let (a, b) = (Rc::<RefCell<Lane>>::default(), Rc::<RefCell<Lane>>::default());
    let queue = |inbound: &Rc<RefCell<Lane>>, outbound: &Rc<RefCell<Lane>>| LocalQueue {
        config: config.clone(),
        granted: Features::empty(),
        started: false,
        inbound: Rc::clone(inbound),
        outbound: Rc::clone(outbound),
        counters: QueueCounters::default(),
    };
    Ok((queue(&a, &b), queue(&b, &a)))
}

/// Frames on their way in one direction.
#[derive(Default)]
struct Lane {
    frames: VecDeque<RxFrame>,
    segments: VecDeque<PacketSlice>,
    /// Features granted to the receiver, and its pool while it is started.
    granted: Features,
    pool: Option<Pool>,
    /// Frames lost because the receiver had no slot or was not started.
    no_buffer: u64,
}

impl Lane {
    fn accept(&mut self, wire: &WireFrame<'_>, hash: Option<u32>) {
        let before = self.segments.len();
        let Some(pool) = &self.pool else {
            self.no_buffer += 1;
            return;
        };
        if let Some(slices) = wire.untouched() {
            self.segments.extend(slices.iter().cloned());
        } else {
            let slots = wire.len().div_ceil(pool.slot_len());
            let mut bufs: Vec<_> = (0..slots).map_while(|_| pool.alloc()).collect();
            if bufs.len() < slots {
                self.no_buffer += 1;
                return;
            }
            let last_len = wire.copy_into(&mut bufs);
            if let Some(last) = bufs.last_mut() {
                last.truncate(last_len);
            }
            self.segments.extend(bufs.into_iter().map(|buf| buf.freeze()));
        }
        let count = (self.segments.len() - before) as u16;
        self.frames.push_back(RxFrame { count, rss_hash: hash, ..wire.meta });
    }
}

/// One end of a cable within a thread; see [`local`].
pub struct LocalQueue {
    config: CableConfig,
    granted: Features,
    started: bool,
    inbound: Rc<RefCell<Lane>>,
    outbound: Rc<RefCell<Lane>>,
    counters: QueueCounters,
}

impl Queue for LocalQueue {
    fn capabilities(&self) -> Capabilities {
        self.config.capabilities()
    }

    fn start(&mut self, pool: &Pool, wanted: Features) -> Result<Features, DeviceError> {
        self.granted = self.config.grant(wanted);
        self.started = true;
        let mut inbound = self.inbound.borrow_mut();
        inbound.granted = self.granted;
        inbound.pool = Some(pool.clone());
        Ok(self.granted)
    }

    fn rx_burst(&mut self, burst: &mut RxBurst, max: usize) -> Result<usize, QueueError> {
        let mut inbound = self.inbound.borrow_mut();
        let Lane { frames, segments, .. } = &mut *inbound;
        let count = frames.len().min(max);
        for _ in 0..count {
            let Some(meta) = frames.pop_front() else { break };
            for _ in 0..meta.count {
                let Some(segment) = segments.pop_front() else { break };
                self.counters.rx_bytes += segment.len() as u64;
                burst.push_segment(segment);
            }
            burst.finish_frame(meta);
        }
        self.counters.rx_frames += count as u64;
        Ok(count)
    }

    fn tx_burst(&mut self, burst: &mut TxBurst) -> Result<usize, QueueError> {
        if !self.started {
            return Ok(0);
        }
        let mut outbound = self.outbound.borrow_mut();
        let mut sent = 0;
        while let Some((frame, segments)) = burst.front() {
            // A frame that is cut into several may overshoot the ring by one frame's segments:
            // otherwise one of more segments than the ring holds would wait for ever.
            if outbound.frames.len() >= self.config.ring_len {
                self.counters.tx_full += 1;
                break;
            }
            let receiver = outbound.granted;
            let hash = if receiver.contains(Features::RSS_HASH) {
                segments.first().and_then(|first| rss::hash_frame(first))
            } else {
                None
            };
            let link = Link { sender: self.granted, receiver, mtu: self.config.mtu };
            match offload::carry(frame, segments, link, |wire| outbound.accept(wire, hash)) {
                Ok(()) => {
                    self.counters.tx_frames += 1;
                    self.counters.tx_bytes += u64::from(frame.len);
                    sent += 1;
                }
                Err(offload::Misfit) => self.counters.tx_errors += 1,
            }
            burst.take_front();
        }
        burst.clear_taken();
        Ok(sent)
    }

    fn tx_room(&self) -> usize {
        self.config.ring_len.saturating_sub(self.outbound.borrow().frames.len())
    }

    fn reclaim(&mut self) -> usize {
        0
    }

    fn pending_tx(&self) -> usize {
        0
    }

    fn arm(&mut self) -> Arm {
        if self.inbound.borrow().frames.is_empty() {
            Arm::Sleep { fd: None, until_ns: None }
        } else {
            Arm::Ready
        }
    }

    fn disarm(&mut self) {}

    fn counters(&self) -> QueueCounters {
        QueueCounters { rx_no_buffer: self.inbound.borrow().no_buffer, ..self.counters }
    }

    fn stop(&mut self) {
        self.started = false;
        let mut inbound = self.inbound.borrow_mut();
        inbound.frames.clear();
        inbound.segments.clear();
        inbound.granted = Features::empty();
        inbound.pool = None;
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl Drop for LocalQueue {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
