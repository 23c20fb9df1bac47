//! Two cards whose queues run on different threads.
//!
//! ```text
//!   receiver's thread                                 sender's threads
//!   pool ─ post ─▶ posted (slots, any sender) ───────▶ copy the frame into them
//!   burst ◀─ rx_burst ◀─ done[sender's queue] ◀─────── push them, the last one with the metadata
//! ```
//!
//! A receiving queue never has more than `ring_len` slots out, and every ring has room for as many,
//! so that no push can fail. Each sending queue has a completion ring of its own at each receiver:
//! the slots of one frame stay together without a lock.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

use super::CableConfig;
use super::offload::{self, Link, WireFrame};
use crate::device::{
    Arm, BURST_FRAMES, Capabilities, Device, DeviceError, Features, LinkState, MacAddr, Queue,
    QueueCounters, QueueError, QueueId, QueueSeed, RxBurst, RxFrame, TxBurst,
};
use crate::mem::{PacketSlice, Pool, RemoteBuf};
use crate::rss::{FlowHash, Steering, queue_of};
use crate::sys::{Clock, EventFd};

/// How long a stopping receiver waits for senders to finish the burst that they are copying. They
/// take microseconds; a sender that was descheduled in the middle takes a time slice.
const STOP_WAIT: Duration = Duration::from_millis(200);

/// How long to sleep while the pool is too empty to post slots: until then frames are lost, and
/// nobody tells the queue that another thread has let go of a slot.
const NO_BUFFER_WAIT_NS: u64 = 1_000_000;

/// A slot that has been filled; the last one of a frame carries its metadata.
struct Done {
    buf: RemoteBuf,
    last: Option<RxFrame>,
}

/// What a receiving queue shows to the other end's sending queues.
struct Inbox {
    /// Started and not stopped.
    open: AtomicBool,
    /// Features granted to the receiver, as bits.
    granted: AtomicU32,
    /// Empty slots.
    posted: ArrayQueue<RemoteBuf>,
    /// Filled slots, by the sender's queue.
    done: Box<[ArrayQueue<Done>]>,
    /// Frames lost for want of a posted slot.
    no_buffer: AtomicU64,
    /// The receiver sleeps or is about to.
    armed: AtomicBool,
    event: EventFd,
}

impl Inbox {
    fn new(config: &CableConfig) -> io::Result<Inbox> {
        let ring = || ArrayQueue::new(config.ring_len);
        Ok(Inbox {
            open: AtomicBool::new(false),
            granted: AtomicU32::new(0),
            posted: ArrayQueue::new(config.ring_len),
            done: (0..config.queues).map(|_| ring()).collect(),
            no_buffer: AtomicU64::new(0),
            armed: AtomicBool::new(false),
            event: EventFd::new()?,
        })
    }

    /// Wakes the receiver if it sleeps; true if that took a system call.
    fn wake(&self) -> bool {
        // Orders the pushes to `done` before the load of `armed`; pairs with the fence in `arm`,
        // which orders the store of `armed` before the look at `done`. One of the two sees the
        // other's store, so no frame is slept over.
        fence(Ordering::SeqCst);
        let asleep = self.armed.load(Ordering::Relaxed) && self.armed.swap(false, Ordering::AcqRel);
        if asleep {
            self.event.signal();
        }
        asleep
    }
}

/// One end of the cable.
struct End {
    mac: MacAddr,
    inboxes: Box<[CachePadded<Inbox>]>,
    taken: Box<[AtomicBool]>,
    /// Whether the other end's queues, each for itself, are copying a burst into this end's slots
    /// at this moment. One count for all of them would be what they wait for each other at.
    copying: Box<[CachePadded<AtomicBool>]>,
}

struct Wire {
    config: CableConfig,
    hash: FlowHash,
    ends: [End; 2],
}

/// One end of a cable between two threads or more; see the [module](super).
pub struct CableDevice {
    wire: Arc<Wire>,
    end: usize,
}

/// A cable of two ends.
///
/// # Errors
/// [`DeviceError::Config`] for sizes out of range or unknown features, [`DeviceError::Os`] when
/// descriptors run out.
pub fn pair(config: CableConfig) -> Result<(CableDevice, CableDevice), DeviceError> {
    config.validate()?;
    let end = |letter: char| -> io::Result<End> {
        Ok(End {
            mac: MacAddr::from_name(&format!("cable:{}/{letter}", config.name)),
            inboxes: (0..config.queues)
                .map(|_| Inbox::new(&config).map(CachePadded::new))
                .collect::<Result<_, _>>()?,
            taken: (0..config.queues).map(|_| AtomicBool::new(false)).collect(),
            copying: (0..config.queues).map(|_| CachePadded::default()).collect(),
        })
    };
    let ends = end('a').and_then(|a| Ok([a, end('b')?])).map_err(|source| DeviceError::Os {
        what: format!("making cable {}", config.name),
        source,
        fix: Some("ulimit -n 4096".into()),
    })?;
    let hash = FlowHash::new(&config.rss_key);
    let wire = Arc::new(Wire { config, hash, ends });
    Ok((CableDevice { wire: Arc::clone(&wire), end: 0 }, CableDevice { wire, end: 1 }))
}

impl CableDevice {
    /// The configuration that the cable was made with.
    pub fn config(&self) -> &CableConfig {
        &self.wire.config
    }

    /// True while something holds the other end: its device, its queues, or both.
    pub(super) fn other_end_in_use(&self) -> bool {
        Arc::strong_count(&self.wire) > 1
    }

    /// A way to tell, without keeping the cable, whether any part of it is left.
    pub(super) fn watch(&self) -> Watch {
        Watch(Arc::downgrade(&self.wire))
    }
}

/// Tells whether a cable is still in use.
pub(super) struct Watch(Weak<Wire>);

impl Watch {
    pub(super) fn in_use(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Device for CableDevice {
    fn name(&self) -> String {
        format!("cable:{}", self.wire.config.name)
    }

    fn mac(&self) -> MacAddr {
        self.wire.ends[self.end].mac
    }

    fn capabilities(&self) -> Capabilities {
        self.wire.config.capabilities()
    }

    fn queues(&self) -> u16 {
        self.wire.config.queues
    }

    fn link(&self) -> LinkState {
        LinkState { up: true, speed_mbps: None }
    }

    fn flow_queue(&self, remote: SocketAddr, local: SocketAddr) -> Option<QueueId> {
        let hash = match (remote, local) {
            (SocketAddr::V4(remote), SocketAddr::V4(local)) => {
                let ports = Some((remote.port(), local.port()));
                self.wire.hash.v4(*remote.ip(), *local.ip(), ports)
            }
            // No frame over IPv6 has a hash.
            _ => 0,
        };
        Some(QueueId(queue_of(hash, self.queues())))
    }

    fn steering(&self) -> Option<Steering> {
        Some(Steering::in_turn(&self.wire.config.rss_key, self.queues()))
    }

    fn queue(&self, id: QueueId) -> Result<Box<dyn QueueSeed>, DeviceError> {
        let taken = self.wire.ends[self.end]
            .taken
            .get(usize::from(id.0))
            .ok_or(DeviceError::NoQueue(id.0, self.queues()))?;
        if taken.swap(true, Ordering::Relaxed) {
            return Err(DeviceError::QueueTaken(id.0));
        }
        Ok(Box::new(CableSeed {
            wire: Arc::clone(&self.wire),
            end: self.end,
            index: usize::from(id.0),
        }))
    }
}

impl fmt::Debug for CableDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CableDevice")
            .field("name", &self.wire.config.name)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

struct CableSeed {
    wire: Arc<Wire>,
    end: usize,
    index: usize,
}

impl QueueSeed for CableSeed {
    fn open(self: Box<Self>) -> Box<dyn Queue> {
        let CableSeed { wire, end, index } = *self;
        let partial = (0..wire.config.queues).map(|_| Vec::new()).collect();
        Box::new(CableQueue {
            wire,
            end,
            index,
            pool: None,
            stopped: false,
            granted: Features::empty(),
            out: 0,
            limit: 0,
            partial,
            next_source: 0,
            scratch: Vec::new(),
            counters: QueueCounters::default(),
        })
    }
}

struct CableQueue {
    wire: Arc<Wire>,
    end: usize,
    index: usize,
    pool: Option<Pool>,
    stopped: bool,
    granted: Features,
    /// Slots posted and not yet come back, of at most `limit`.
    out: usize,
    limit: usize,
    /// Slots of a frame whose last one has not been seen yet, by the sender's queue.
    partial: Vec<Vec<PacketSlice>>,
    /// Where the next `rx_burst` begins, so that no sender starves another.
    next_source: usize,
    /// The posted slots that the current frame is copied into.
    scratch: Vec<RemoteBuf>,
    counters: QueueCounters,
}

impl CableQueue {
    fn inbox(&self) -> &Inbox {
        &self.wire.ends[self.end].inboxes[self.index]
    }

    /// Posts slots until `limit` are out or the pool is empty.
    fn post(&mut self) {
        let Some(pool) = &self.pool else { return };
        let inbox = &self.wire.ends[self.end].inboxes[self.index];
        while self.out < self.limit {
            let Some(Ok(slot)) = pool.alloc().map(|buf| buf.into_remote()) else { return };
            let pushed = inbox.posted.push(slot);
            debug_assert!(pushed.is_ok(), "the ring holds as many slots as may be out");
            self.out += 1;
        }
    }

    /// Moves up to `max` frames of sending queue `source` into the burst.
    fn drain(&mut self, source: usize, burst: &mut RxBurst, max: usize) -> usize {
        let Some(pool) = &self.pool else { return 0 };
        let inbox = &self.wire.ends[self.end].inboxes[self.index];
        let partial = &mut self.partial[source];
        let mut frames = 0;
        while frames < max {
            let Some(Done { buf, last }) = inbox.done[source].pop() else { break };
            self.out -= 1;
            // Only slots of this pool were posted; one of another would go home by itself.
            let Ok(buf) = pool.adopt(buf) else { continue };
            partial.push(buf.freeze());
            let Some(meta) = last else { continue };
            for segment in partial.drain(..) {
                burst.push_segment(segment);
            }
            burst.finish_frame(meta);
            frames += 1;
            self.counters.rx_frames += 1;
            self.counters.rx_bytes += burst.frames().last().map_or(0, |f| u64::from(f.len));
        }
        frames
    }
}

/// Copies one frame into posted slots of `inbox`, or counts that there were too few.
fn deliver(
    wire: &WireFrame<'_>,
    hash: Option<u32>,
    inbox: &Inbox,
    source: usize,
    slots: &mut Vec<RemoteBuf>,
) {
    let mut room = 0;
    while room < wire.len() {
        let Some(slot) = inbox.posted.pop() else { break };
        room += slot.len();
        slots.push(slot);
    }
    if room < wire.len() {
        inbox.no_buffer.fetch_add(1, Ordering::Relaxed);
        for slot in slots.drain(..) {
            let pushed = inbox.posted.push(slot);
            debug_assert!(pushed.is_ok(), "the ring holds as many slots as may be out");
        }
        return;
    }
    let last_len = wire.copy_into(slots);
    if let Some(last) = slots.last_mut() {
        last.truncate(last_len);
    }
    let (last, meta) = (slots.len() - 1, RxFrame { rss_hash: hash.into(), ..wire.meta });
    for (i, buf) in slots.drain(..).enumerate() {
        let pushed = inbox.done[source].push(Done { buf, last: (i == last).then_some(meta) });
        debug_assert!(pushed.is_ok(), "the ring holds as many slots as may be out");
    }
}

impl Queue for CableQueue {
    fn capabilities(&self) -> Capabilities {
        self.wire.config.capabilities()
    }

    fn start(&mut self, pool: &Pool, wanted: Features) -> Result<Features, DeviceError> {
        if self.stopped {
            return Err(DeviceError::Config("a cable's queue cannot be started again".into()));
        }
        self.granted = self.wire.config.grant(wanted);
        // Half of the pool is left to the sender on the same pool.
        self.limit = self.wire.config.ring_len.min(pool.total_slots().div_ceil(2));
        self.pool = Some(pool.clone());
        self.post();
        let inbox = self.inbox();
        inbox.granted.store(self.granted.bits(), Ordering::Relaxed);
        inbox.open.store(true, Ordering::SeqCst);
        Ok(self.granted)
    }

    fn rx_burst(&mut self, burst: &mut RxBurst, max: usize) -> Result<usize, QueueError> {
        let sources = self.partial.len();
        let mut received = 0;
        for i in 0..sources {
            let source = (self.next_source + i) % sources;
            received += self.drain(source, burst, max - received);
        }
        self.next_source = (self.next_source + 1) % sources;
        self.post();
        Ok(received)
    }

    fn tx_burst(&mut self, burst: &mut TxBurst) -> Result<usize, QueueError> {
        let CableQueue { wire, pool, granted, index, scratch, counters, .. } = self;
        if pool.is_none() {
            return Ok(0);
        }
        let (peer, mtu) = (&wire.ends[1 - self.end], wire.config.mtu);
        let (hasher, copying) = (&wire.hash, &peer.copying[*index]);
        let hashing = peer.inboxes.len() > 1;
        let (mut sent, mut touched) = (0, 0u32);
        // Pairs with `stop`: it closes the inbox, then waits for this to be taken down; we raise it,
        // then look whether the inbox is open. One of the two sees the other's store.
        copying.store(true, Ordering::SeqCst);
        while let Some((frame, segments)) = burst.front() {
            let first = segments.first().map_or(&[][..], |segment| segment);
            let hash = if hashing || granted.contains(Features::RSS_HASH) {
                hasher.frame(first)
            } else {
                None
            };
            let queue = queue_of(hash.unwrap_or(0), peer.inboxes.len() as u16);
            let inbox = &peer.inboxes[usize::from(queue)];
            let receiver = Features::from_bits_retain(inbox.granted.load(Ordering::Relaxed));
            let hash = hash.filter(|_| receiver.contains(Features::RSS_HASH));
            let link = Link { sender: *granted, receiver, mtu };
            let open = inbox.open.load(Ordering::SeqCst);
            let carried = offload::carry(frame, segments, link, |wire| {
                if open {
                    deliver(wire, hash, inbox, *index, scratch);
                } else {
                    inbox.no_buffer.fetch_add(1, Ordering::Relaxed);
                }
            });
            match carried {
                Ok(()) => {
                    counters.tx_frames += 1;
                    counters.tx_bytes += u64::from(frame.len);
                    sent += 1;
                    touched |= 1 << queue;
                }
                Err(offload::Misfit) => counters.tx_errors += 1,
            }
            burst.take_front();
        }
        copying.store(false, Ordering::Release);
        burst.clear_taken();
        for (i, inbox) in peer.inboxes.iter().enumerate() {
            if touched & 1 << i != 0 {
                counters.syscalls += u64::from(inbox.wake());
            }
        }
        Ok(sent)
    }

    fn tx_room(&self) -> usize {
        BURST_FRAMES
    }

    fn reclaim(&mut self) -> usize {
        0
    }

    fn pending_tx(&self) -> usize {
        0
    }

    fn arm(&mut self) -> Arm {
        self.post();
        let inbox = self.inbox();
        inbox.armed.store(true, Ordering::Relaxed);
        // Pairs with the fence in `wake`.
        fence(Ordering::SeqCst);
        if inbox.done.iter().any(|ring| !ring.is_empty()) {
            self.disarm();
            return Arm::Ready;
        }
        let until_ns = (self.out < self.limit.div_ceil(4))
            .then(|| Clock::monotonic().now_ns() + NO_BUFFER_WAIT_NS);
        Arm::Sleep { fd: Some(inbox.event.as_raw_fd()), until_ns }
    }

    fn disarm(&mut self) {
        let inbox = &self.wire.ends[self.end].inboxes[self.index];
        if !inbox.armed.swap(false, Ordering::AcqRel) {
            // A sender has taken the flag down, so it signals, or has done so.
            inbox.event.drain();
            self.counters.syscalls += 1;
        }
    }

    fn counters(&self) -> QueueCounters {
        let rx_no_buffer = self.inbox().no_buffer.load(Ordering::Relaxed);
        QueueCounters { rx_no_buffer, ..self.counters }
    }

    fn stop(&mut self) {
        self.stopped = true;
        if self.pool.is_none() {
            return;
        }
        let inbox = self.inbox();
        inbox.open.store(false, Ordering::SeqCst);
        let deadline = Instant::now() + STOP_WAIT;
        let copying = &self.wire.ends[self.end].copying;
        while copying.iter().any(|flag| flag.load(Ordering::SeqCst)) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        while inbox.posted.pop().is_some() {}
        for ring in &inbox.done {
            while ring.pop().is_some() {}
        }
        self.partial.iter_mut().for_each(Vec::clear);
        self.scratch.clear();
        self.out = 0;
        if let Some(pool) = self.pool.take() {
            pool.collect_returns();
        }
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl Drop for CableQueue {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
#[path = "pair_tests.rs"]
mod tests;
