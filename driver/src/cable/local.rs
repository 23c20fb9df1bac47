//! Two queues of one thread that hand their slices over.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use arrayvec::ArrayVec;

use super::CableConfig;
use super::offload::{self, Link, WireFrame};
use crate::device::{
    Arm, BURST_FRAMES, Capabilities, DeviceError, Features, Queue, QueueCounters, QueueError,
    RxBurst, RxFrame, TxBurst, TxFrame,
};
use crate::mem::{PacketSlice, Pool};
use crate::rss::FlowHash;

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
    let hash = Rc::new(FlowHash::new(&config.rss_key));
    let queue = |inbound: &Rc<RefCell<Lane>>, outbound: &Rc<RefCell<Lane>>| LocalQueue {
        config: config.clone(),
        hash: Rc::clone(&hash),
        granted: Features::empty(),
        started: false,
        inbound: Rc::clone(inbound),
        outbound: Rc::clone(outbound),
        counters: QueueCounters::default(),
    };
    Ok((queue(&a, &b), queue(&b, &a)))
}

/// Frames on their way in one direction, in batches that change hands whole.
#[derive(Default)]
struct Lane {
    /// What is received next; empty if nothing is on its way.
    next: RxBurst,
    /// What comes behind it. None is empty.
    batches: VecDeque<RxBurst>,
    /// Empty bursts, whose memory is used again.
    spare: Vec<RxBurst>,
    /// Frames in all batches, and their bytes.
    frames: usize,
    bytes: u64,
    /// Features granted to the receiver, and its pool while it is started.
    granted: Features,
    pool: Option<Pool>,
    /// Frames lost because the receiver had no slot or was not started.
    no_buffer: u64,
}

impl Lane {
    /// True if frames may go over as they are, with nothing known about them.
    fn takes_untouched(&self) -> bool {
        self.pool.is_some() && !self.receiver_hashes()
    }

    fn receiver_hashes(&self) -> bool {
        self.granted.contains(Features::RSS_HASH)
    }

    /// Takes a whole burst of frames that go as they are, by handing its memory over; gives their
    /// bytes. `None`, and nothing done, if one of them is another.
    fn take_whole(&mut self, burst: &mut TxBurst, link: Link, room: usize) -> Option<u64> {
        let count = burst.len();
        if !self.takes_untouched() || !(1..=room.min(BURST_FRAMES)).contains(&count) {
            return None;
        }
        let mut batch = self.spare.pop().unwrap_or_default();
        let moved =
            burst.move_to(&mut batch, |frame, segments| offload::untouched(frame, segments, link));
        let Some(bytes) = moved else {
            self.spare.push(batch);
            return None;
        };
        self.append(batch);
        self.frames += count;
        self.bytes += bytes;
        Some(bytes)
    }

    /// The same where nothing is on its way, of a burst of one frame in one segment, to be sent as it
    /// is: what a conversation is made of.
    #[inline(always)]
    fn take_only(&mut self, burst: &mut TxBurst, mtu: u16) -> Option<u64> {
        if self.frames > 0 || !self.takes_untouched() {
            return None;
        }
        let len = burst.move_only(offload::untouched_lens(mtu), &mut self.next)?;
        (self.frames, self.bytes) = (1, len.into());
        Some(len.into())
    }

    /// Takes up to `room` frames from the front over that go as they are: no segment is counted up
    /// and down again. What comes behind the first other frame has to wait for it. Says how many
    /// went, and their bytes.
    fn take_untouched(&mut self, burst: &mut TxBurst, link: Link, room: usize) -> (usize, u64) {
        if !self.takes_untouched() {
            return (0, 0);
        }
        let untouched = |(frame, segments): (&TxFrame, &[PacketSlice])| {
            offload::untouched(frame, segments, link).map(offload::meta_of)
        };
        let metas: ArrayVec<RxFrame, BURST_FRAMES> =
            burst.iter().take(room.min(BURST_FRAMES)).map_while(untouched).collect();
        let (count, mut bytes) = (metas.len(), 0);
        let mut metas = metas.into_iter();
        burst.drain_front(count, |frame, segments| {
            bytes += u64::from(frame.len);
            self.push(segments, metas.next().unwrap_or_default());
        });
        (count, bytes)
    }

    /// Adds a frame of these segments.
    #[inline]
    fn push(&mut self, segments: impl Iterator<Item = PacketSlice>, meta: RxFrame) {
        let last = self.batches.back().unwrap_or(&self.next);
        let batch = if last.len() >= BURST_FRAMES {
            self.vacant()
        } else {
            self.batches.back_mut().unwrap_or(&mut self.next)
        };
        for segment in segments {
            batch.push_segment(segment);
        }
        self.bytes += u64::from(batch.finish_frame(meta));
        self.frames += 1;
    }

    /// Puts a batch at the end of the line.
    fn append(&mut self, batch: RxBurst) {
        if self.frames == 0 {
            self.spare.push(std::mem::replace(&mut self.next, batch));
        } else {
            self.batches.push_back(batch);
        }
    }

    /// An empty burst at the end of the line, to be filled.
    #[inline]
    fn vacant(&mut self) -> &mut RxBurst {
        if self.frames == 0 { &mut self.next } else { self.vacant_behind() }
    }

    fn vacant_behind(&mut self) -> &mut RxBurst {
        self.batches.push_back_mut(self.spare.pop().unwrap_or_default())
    }

    /// Moves all frames to `burst`, which is empty, if they are one batch of at most `max`; gives
    /// their number and their bytes.
    #[inline]
    fn take_whole_batch(&mut self, burst: &mut RxBurst, max: usize) -> Option<(usize, u64)> {
        let count = self.frames;
        if self.next.len() != count || count > max || !burst.is_empty() {
            return None;
        }
        // What comes back is empty, and its memory is used again.
        std::mem::swap(burst, &mut self.next);
        self.frames = 0;
        Some((count, std::mem::take(&mut self.bytes)))
    }

    /// Moves up to `max` frames, of one batch at most, to the end of `burst`; says how many, and how
    /// many bytes.
    fn take_some(&mut self, burst: &mut RxBurst, max: usize) -> (usize, u64) {
        let before = burst.len();
        if before == 0 && self.next.len() <= max {
            std::mem::swap(burst, &mut self.next);
        } else {
            self.take_part(burst, max);
        }
        self.advance();
        let taken = &burst.frames()[before..];
        let bytes = taken.iter().map(|frame| u64::from(frame.len)).sum();
        self.frames -= taken.len();
        self.bytes -= bytes;
        (taken.len(), bytes)
    }

    fn take_part(&mut self, burst: &mut RxBurst, max: usize) {
        let (before, mut rest) = (burst.len(), self.spare.pop().unwrap_or_default());
        self.next.drain(|frame, segments| {
            let to = if burst.len() - before < max { &mut *burst } else { &mut rest };
            for segment in segments {
                to.push_segment(segment);
            }
            to.finish_frame(*frame);
        });
        self.spare.push(std::mem::replace(&mut self.next, rest));
    }

    /// Moves the line up if nothing is left at its front.
    fn advance(&mut self) {
        if self.next.is_empty()
            && let Some(batch) = self.batches.pop_front()
        {
            self.spare.push(std::mem::replace(&mut self.next, batch));
        }
    }

    fn accept(&mut self, wire: &WireFrame<'_>, hash: Option<u32>) {
        let Some(pool) = &self.pool else {
            self.no_buffer += 1;
            return;
        };
        let meta = RxFrame { rss_hash: hash.into(), ..wire.meta };
        if let Some(slices) = wire.untouched() {
            self.push(slices.iter().cloned(), meta);
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
            self.push(bufs.into_iter().map(|buf| buf.freeze()), meta);
        }
    }
}

/// One end of a cable within a thread; see [`local`].
pub struct LocalQueue {
    config: CableConfig,
    hash: Rc<FlowHash>,
    granted: Features,
    started: bool,
    inbound: Rc<RefCell<Lane>>,
    outbound: Rc<RefCell<Lane>>,
    counters: QueueCounters,
}

impl LocalQueue {
    /// Sends as much of a burst as the ring has room for, whatever its frames are.
    #[inline(never)]
    fn send_some(&mut self, burst: &mut TxBurst) -> usize {
        let mut outbound = self.outbound.borrow_mut();
        let link = Link { sender: self.granted, receiver: outbound.granted, mtu: self.config.mtu };
        let room = self.config.ring_len.saturating_sub(outbound.frames);
        let count = burst.len();
        if let Some(bytes) = outbound.take_whole(burst, link, room) {
            self.counters.tx_frames += count as u64;
            self.counters.tx_bytes += bytes;
            return count;
        }
        let (mut sent, bytes) = outbound.take_untouched(burst, link, room);
        self.counters.tx_frames += sent as u64;
        self.counters.tx_bytes += bytes;
        while let Some((frame, segments)) = burst.front() {
            // A frame that is cut into several may overshoot the ring by one frame's segments:
            // otherwise one of more segments than the ring holds would wait for ever.
            if outbound.frames >= self.config.ring_len {
                self.counters.tx_full += 1;
                break;
            }
            let hash = if outbound.receiver_hashes() {
                segments.first().and_then(|first| self.hash.frame(first))
            } else {
                None
            };
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
        sent
    }

    /// Receives up to `max` frames, of as many batches as they take.
    #[inline(never)]
    fn receive_some(&mut self, burst: &mut RxBurst, max: usize) -> usize {
        let mut inbound = self.inbound.borrow_mut();
        let mut count = 0;
        // A batch that fits no more stays whole: it then changes hands as one.
        while inbound.frames > 0 && count < max && (count == 0 || inbound.next.len() <= max - count)
        {
            let (taken, bytes) = inbound.take_some(burst, max - count);
            debug_assert!(taken > 0, "frames lie in batches");
            count += taken;
            self.counters.rx_bytes += bytes;
        }
        self.counters.rx_frames += count as u64;
        count
    }
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

    #[inline]
    fn rx_burst(&mut self, burst: &mut RxBurst, max: usize) -> Result<usize, QueueError> {
        let whole = self.inbound.borrow_mut().take_whole_batch(burst, max);
        let Some((count, bytes)) = whole else { return Ok(self.receive_some(burst, max)) };
        self.counters.rx_frames += count as u64;
        self.counters.rx_bytes += bytes;
        Ok(count)
    }

    fn tx_burst(&mut self, burst: &mut TxBurst) -> Result<usize, QueueError> {
        if !self.started {
            return Ok(0);
        }
        let only = self.outbound.borrow_mut().take_only(burst, self.config.mtu);
        match only {
            Some(bytes) => {
                self.counters.tx_frames += 1;
                self.counters.tx_bytes += bytes;
                Ok(1)
            }
            None => Ok(self.send_some(burst)),
        }
    }

    fn tx_room(&self) -> usize {
        self.config.ring_len.saturating_sub(self.outbound.borrow().frames)
    }

    fn reclaim(&mut self) -> usize {
        0
    }

    fn pending_tx(&self) -> usize {
        0
    }

    fn arm(&mut self) -> Arm {
        if self.inbound.borrow().frames == 0 {
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
        inbound.next.clear();
        inbound.batches.clear();
        inbound.spare.clear();
        (inbound.frames, inbound.bytes) = (0, 0);
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
