//! One queue of a tap interface: a frame is one `readv` or one `writev`.

use std::any::Any;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use super::Shared;
use super::vnet::{self, ETHERNET_LEN, HEADER_LEN};
use crate::device::{
    Arm, BURST_FRAMES, Capabilities, DeviceError, Features, Queue, QueueCounters, QueueError,
    QueueSeed, RxBurst, RxFrame, TxBurst,
};
use crate::mem::{PacketBuf, Pool};
use crate::sys::{self, Clock, TunFlags, errno};

/// Bytes that a received frame may have with large receive: the largest IP packet, the Ethernet
/// header and a VLAN tag. One more is offered to the kernel, so that a frame cut short shows.
const MAX_RX_FRAME: usize = 65_535 + ETHERNET_LEN + VLAN_LEN;

const VLAN_LEN: usize = 4;

/// How long to sleep when the pool is empty while frames wait. The descriptor is readable all that
/// time, so sleeping on it would be spinning; slots come back when the application lets go.
const NO_BUFFER_WAIT_NS: u64 = 1_000_000;

/// A queue on its way to its thread.
pub(super) struct TapSeed {
    pub(super) file: File,
    pub(super) shared: Arc<Shared>,
    pub(super) capabilities: Capabilities,
}

impl QueueSeed for TapSeed {
    fn open(self: Box<Self>) -> Box<dyn Queue> {
        let TapSeed { file, shared, capabilities } = *self;
        Box::new(TapQueue {
            open: Some(file),
            header_len: if shared.offloads { HEADER_LEN } else { 0 },
            shared,
            capabilities,
            granted: Features::empty(),
            pool: None,
            spare: Vec::new(),
            slots_per_read: 0,
            starved: false,
            clock: Clock::monotonic(),
            counters: QueueCounters::default(),
        })
    }
}

struct TapQueue {
    /// The descriptor, until the queue is stopped.
    open: Option<File>,
    shared: Arc<Shared>,
    /// Bytes before every frame: a `virtio_net_hdr` or nothing.
    header_len: usize,
    capabilities: Capabilities,
    granted: Features,
    /// Where receive memory comes from; set by `start`.
    pool: Option<Pool>,
    /// Whole slots for the next read. Those that a frame does not fill stay for the one after it.
    spare: Vec<PacketBuf>,
    slots_per_read: usize,
    /// The last attempt to receive found too few free slots.
    starved: bool,
    clock: Clock,
    counters: QueueCounters,
}

impl TapQueue {
    /// Makes `spare` full; false if the pool cannot.
    fn refill(&mut self) -> bool {
        let Some(pool) = &self.pool else { return false };
        while self.spare.len() < self.slots_per_read {
            match pool.alloc() {
                Some(buf) => self.spare.push(buf),
                None => {
                    self.starved = true;
                    return false;
                }
            }
        }
        self.starved = false;
        true
    }

    /// Turns `len` bytes in the spare slots into a frame of the burst; false if it was malformed.
    fn deliver(&mut self, header: [u8; HEADER_LEN], len: usize, burst: &mut RxBurst) -> bool {
        let slot_len = self.spare.first().map_or(0, |slot| slot.len());
        let capacity = self.spare.len() * slot_len;
        // A full buffer means that the kernel cut the frame: one byte more was offered than a frame
        // can have.
        let whole = len >= ETHERNET_LEN && len < capacity;
        let meta = if self.header_len == 0 {
            Some(RxFrame::default())
        } else {
            vnet::decode(header, len, self.granted)
        };
        let (true, Some(meta)) = (whole, meta) else {
            self.counters.rx_malformed += 1;
            return false;
        };
        let mut rest = len;
        for mut buf in self.spare.drain(..len.div_ceil(slot_len)) {
            buf.truncate(rest);
            rest -= buf.len();
            burst.push_segment(buf.freeze());
        }
        burst.finish_frame(meta);
        self.counters.rx_frames += 1;
        self.counters.rx_bytes += len as u64;
        true
    }

    /// Slots that one read needs for the largest frame that the kernel may give.
    fn slots_for(&self, granted: Features, slot_len: usize) -> usize {
        let frame = if granted.contains(Features::LARGE_RECEIVE) {
            MAX_RX_FRAME
        } else {
            usize::from(self.capabilities.mtu) + ETHERNET_LEN + VLAN_LEN
        };
        (frame + 1).div_ceil(slot_len)
    }
}

/// Sorts what the kernel answers to a read or write of an attached descriptor.
fn queue_error(error: io::Error) -> QueueError {
    match error.raw_os_error() {
        Some(errno::EBADFD | errno::ENODEV | errno::ENXIO) => QueueError::Gone(error),
        _ => QueueError::Io(error),
    }
}

impl Queue for TapQueue {
    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn start(&mut self, pool: &Pool, wanted: Features) -> Result<Features, DeviceError> {
        let Some(file) = &self.open else {
            return Err(DeviceError::Config("a tap queue cannot be started again".into()));
        };
        let granted = super::grant(wanted, self.capabilities.features);
        let slots = self.slots_for(granted, pool.slot_len());
        if pool.total_slots() <= slots {
            return Err(DeviceError::Config(format!(
                "a tap queue reads into {slots} slots at once; a pool of {} is too small",
                pool.total_slots()
            )));
        }
        self.shared.agree(granted)?;
        if self.shared.offloads {
            let mut flags = TunFlags::empty();
            flags.set(TunFlags::CHECKSUM, granted.contains(Features::RX_CHECKSUM));
            flags.set(TunFlags::LARGE, granted.contains(Features::LARGE_RECEIVE));
            sys::tun_set_offload(file, flags).map_err(|source| DeviceError::Os {
                what: format!("setting the offloads of {}", self.shared.name),
                source,
                fix: None,
            })?;
        }
        self.granted = granted;
        self.slots_per_read = slots;
        self.spare.reserve_exact(slots);
        self.pool = Some(pool.clone());
        Ok(granted)
    }

    fn rx_burst(&mut self, burst: &mut RxBurst, max: usize) -> Result<usize, QueueError> {
        if self.pool.is_none() {
            return Ok(0);
        }
        let mut received = 0;
        // Reads are bounded, not frames: a flood of malformed frames does not hold the engine.
        for _ in 0..max {
            if !self.refill() {
                self.counters.rx_no_buffer += 1;
                break;
            }
            let Some(file) = &self.open else { break };
            let mut header = [0; HEADER_LEN];
            self.counters.syscalls += 1;
            match sys::readv(file, &mut header[..self.header_len], &mut self.spare) {
                Ok(n) => {
                    // A read shorter than the header leaves a frame of no bytes: malformed.
                    let len = n.saturating_sub(self.header_len);
                    received += usize::from(self.deliver(header, len, burst));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => break,
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(queue_error(error)),
                },
            }
        }
        Ok(received)
    }

    fn tx_burst(&mut self, burst: &mut TxBurst) -> Result<usize, QueueError> {
        let (Some(file), Some(_)) = (&self.open, &self.pool) else { return Ok(0) };
        let (mut sent, mut result) = (0, Ok(()));
        while let Some((frame, segments)) = burst.front() {
            let first = segments.first().map_or(&[][..], |segment| segment);
            let Some(header) = vnet::encode(frame, first, self.granted) else {
                self.counters.tx_errors += 1;
                burst.take_front();
                continue;
            };
            self.counters.syscalls += 1;
            match sys::writev(file, &header[..self.header_len], segments) {
                Ok(_) => {
                    self.counters.tx_frames += 1;
                    self.counters.tx_bytes += u64::from(frame.len);
                    sent += 1;
                }
                Err(error) => match (error.kind(), queue_error(error)) {
                    (io::ErrorKind::WouldBlock, _) => {
                        self.counters.tx_full += 1;
                        break;
                    }
                    (io::ErrorKind::Interrupted, _) => continue,
                    (_, gone @ QueueError::Gone(_)) => {
                        result = Err(gone);
                        break;
                    }
                    // The interface is down (EIO), the kernel is out of memory, or it does not like
                    // the frame: a cable would have lost it, too.
                    (_, QueueError::Io(_)) => self.counters.tx_errors += 1,
                },
            }
            burst.take_front();
        }
        burst.clear_taken();
        result.map(|()| sent)
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
        let Some(file) = &self.open else { return Arm::Sleep { fd: None, until_ns: None } };
        let fd = file.as_raw_fd();
        if self.starved && !self.refill() {
            let until_ns = Some(self.clock.now_ns() + NO_BUFFER_WAIT_NS);
            return Arm::Sleep { fd: None, until_ns };
        }
        self.counters.syscalls += 1;
        match sys::poll_readable(&[fd], Some(0)) {
            Ok(0) => Arm::Sleep { fd: Some(fd), until_ns: None },
            // Broken or readable: the next `rx_burst` finds out which.
            Ok(_) | Err(_) => Arm::Ready,
        }
    }

    fn disarm(&mut self) {}

    fn counters(&self) -> QueueCounters {
        self.counters
    }

    fn stop(&mut self) {
        self.spare.clear();
        self.pool = None;
        self.open = None;
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
