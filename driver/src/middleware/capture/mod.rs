//! Captures: writes the frames that pass a queue to a pcapng file, for Wireshark and tcpdump.
//!
//! ```text
//!   stack ◀─ rx_burst ─┬─ inner          stack ─ tx_burst ─┬─▶ inner
//!                      └─▶ CaptureFile ◀───────────────────┘ (what was taken)
//! ```
//!
//! Frames are recorded as they cross the queue: a TSO frame as one large frame, a frame whose
//! checksum is left to the device with the unfinished checksum, as tcpdump shows them on a kernel
//! interface with offloads.
//!
//! Writing goes through a buffer of [`BUFFER_BYTES`], which is flushed when a queue is about to sleep
//! or stops. All queues of a device write to one [`CaptureFile`] behind one lock: capturing is for
//! finding faults, not for production. It never disturbs the frames: the first failed write (a full
//! disk) ends the capture, and everything after it is only counted.

mod pcapng;

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Wrapper;
use crate::device::{
    Arm, Capabilities, Device, DeviceError, Features, Queue, QueueCounters, QueueError, QueueId,
    QueueSeed, RxBurst, TxBurst,
};
use crate::mem::{PacketSlice, Pool};
use crate::sys::Clock;
use pcapng::{Direction, Packet};

/// Bytes that are collected before they are written.
pub const BUFFER_BYTES: usize = 1 << 20;

/// Most bytes of a frame that are kept unless less is asked for: every frame whole.
pub const DEFAULT_SNAPLEN: u32 = 1 << 18;

/// Most interfaces (queues) in one file.
pub const MAX_INTERFACES: u32 = 4096;

/// What a capture has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureCounters {
    /// Frames written.
    pub written: u64,
    /// Of them, frames of which only the first bytes were kept.
    pub cut: u64,
    /// Frames not written because the capture had ended.
    pub missed: u64,
    /// Writes that failed; the first one ends the capture.
    pub errors: u64,
}

/// A capture file that any number of queues write to.
pub struct CaptureFile {
    state: Mutex<State>,
    snaplen: u32,
    clock: Clock,
    /// Nanoseconds since 1970 when the clock stood at zero.
    epoch_ns: u64,
}

struct State {
    /// Where it goes, until a write fails.
    out: Option<BufWriter<Box<dyn Write + Send>>>,
    interfaces: u32,
    counters: CaptureCounters,
}

impl State {
    fn write(&mut self, f: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> bool {
        let Some(out) = &mut self.out else { return false };
        if f(out).is_ok() {
            return true;
        }
        self.counters.errors += 1;
        // What the buffer still holds cannot be written either: do not try again when dropping it.
        if let Some(out) = self.out.take() {
            let _ = out.into_parts();
        }
        false
    }
}

impl CaptureFile {
    /// Creates the file, or empties it, and keeps at most `snaplen` bytes of each frame.
    ///
    /// # Errors
    /// What creating the file or writing its first block gives.
    pub fn create(path: &Path, snaplen: u32) -> io::Result<Arc<CaptureFile>> {
        let clock = Clock::monotonic();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch_ns = u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX);
        let epoch_ns = epoch_ns.saturating_sub(clock.now_ns());
        CaptureFile::to_writer(Box::new(File::create(path)?), snaplen, clock, epoch_ns)
    }

    /// Captures to any writer; times are those of `clock` plus `epoch_ns`.
    ///
    /// # Errors
    /// What writing the first block gives.
    pub fn to_writer(
        out: Box<dyn Write + Send>,
        snaplen: u32,
        clock: Clock,
        epoch_ns: u64,
    ) -> io::Result<Arc<CaptureFile>> {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
        pcapng::section_header(&mut out)?;
        // A file that cannot be written should fail here, where somebody reads the error.
        out.flush()?;
        let state = State { out: Some(out), interfaces: 0, counters: CaptureCounters::default() };
        Ok(Arc::new(CaptureFile { state: Mutex::new(state), snaplen, clock, epoch_ns }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Describes one more interface; `None` beyond [`MAX_INTERFACES`] or after the capture ended.
    fn add_interface(&self, name: &str) -> Option<u32> {
        let mut state = self.lock();
        let id = state.interfaces;
        if id >= MAX_INTERFACES {
            return None;
        }
        let written = state.write(|out| pcapng::interface_description(out, name, self.snaplen));
        state.interfaces += u32::from(written);
        written.then_some(id)
    }

    /// Writes frames of one burst, all with the same time.
    fn write<'a>(
        &self,
        interface: Option<u32>,
        direction: Direction,
        frames: impl Iterator<Item = &'a [PacketSlice]>,
    ) {
        let time_ns = self.epoch_ns.saturating_add(self.clock.now_ns());
        let mut state = self.lock();
        for segments in frames {
            let Some(interface) = interface else {
                state.counters.missed += 1;
                continue;
            };
            let packet =
                Packet { interface, time_ns, direction, segments, snaplen: self.snaplen as usize };
            if state.write(|out| pcapng::enhanced_packet(out, &packet)) {
                state.counters.written += 1;
                state.counters.cut += u64::from(packet.is_cut());
            } else {
                state.counters.missed += 1;
            }
        }
    }

    /// Writes what the buffer holds.
    pub fn flush(&self) {
        let mut state = self.lock();
        let pending = state.out.as_ref().is_some_and(|out| !out.buffer().is_empty());
        if pending {
            state.write(|out| out.flush());
        }
    }

    /// What has been done so far.
    pub fn counters(&self) -> CaptureCounters {
        self.lock().counters
    }
}

impl fmt::Debug for CaptureFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureFile").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

/// A queue whose frames are captured.
pub struct Captured {
    inner: Box<dyn Queue>,
    file: Arc<CaptureFile>,
    interface: Option<u32>,
    /// Slices of the frames that are about to be sent, flat, and each frame's number of them: the
    /// inner queue decides how many it takes, and then they are gone from the burst.
    sending: Vec<PacketSlice>,
    counts: Vec<usize>,
}

impl Captured {
    /// Captures the frames of `inner` as interface `name` of the file.
    pub fn new(inner: Box<dyn Queue>, file: Arc<CaptureFile>, name: &str) -> Captured {
        let interface = file.add_interface(name);
        Captured { inner, file, interface, sending: Vec::new(), counts: Vec::new() }
    }

    /// The queue that is captured.
    pub fn inner_mut(&mut self) -> &mut dyn Queue {
        &mut *self.inner
    }
}

impl Queue for Captured {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn start(&mut self, pool: &Pool, wanted: Features) -> Result<Features, DeviceError> {
        self.inner.start(pool, wanted)
    }

    fn rx_burst(&mut self, burst: &mut RxBurst, max: usize) -> Result<usize, QueueError> {
        let before = burst.len();
        let result = self.inner.rx_burst(burst, max);
        if burst.len() > before {
            let frames = burst.frames()[before..].iter().map(|frame| burst.segments(frame));
            self.file.write(self.interface, Direction::Inbound, frames);
        }
        result
    }

    fn tx_burst(&mut self, burst: &mut TxBurst) -> Result<usize, QueueError> {
        let before = burst.len();
        if before == 0 {
            return self.inner.tx_burst(burst);
        }
        for (_, segments) in burst.iter() {
            self.sending.extend_from_slice(segments);
            self.counts.push(segments.len());
        }
        let result = self.inner.tx_burst(burst);
        let taken = before.saturating_sub(burst.len());
        if taken > 0 {
            let mut rest = &self.sending[..];
            let frames = self.counts[..taken].iter().map(|&count| {
                let (frame, behind) = rest.split_at(count);
                rest = behind;
                frame
            });
            self.file.write(self.interface, Direction::Outbound, frames);
        }
        self.sending.clear();
        self.counts.clear();
        result
    }

    fn tx_room(&self) -> usize {
        self.inner.tx_room()
    }

    fn reclaim(&mut self) -> usize {
        self.inner.reclaim()
    }

    fn pending_tx(&self) -> usize {
        self.inner.pending_tx()
    }

    fn arm(&mut self) -> Arm {
        // The engine is about to sleep: whoever looks at the file now should see everything.
        self.file.flush();
        self.inner.arm()
    }

    fn disarm(&mut self) {
        self.inner.disarm();
    }

    fn counters(&self) -> QueueCounters {
        self.inner.counters()
    }

    fn stop(&mut self) {
        self.inner.stop();
        self.file.flush();
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A device all of whose queues are captured, each as an interface of its own.
#[derive(Debug)]
pub struct CapturedDevice {
    inner: Arc<dyn Device>,
    file: Arc<CaptureFile>,
}

impl CapturedDevice {
    /// Captures every queue of `inner` to `file`.
    pub fn new(inner: Arc<dyn Device>, file: Arc<CaptureFile>) -> CapturedDevice {
        CapturedDevice { inner, file }
    }
}

impl Wrapper for CapturedDevice {
    fn inner(&self) -> &dyn Device {
        &*self.inner
    }

    fn wrapped(&self, id: QueueId) -> Result<Box<dyn QueueSeed>, DeviceError> {
        let name = match self.inner.queues() {
            1 => self.inner.name(),
            _ => format!("{} queue {}", self.inner.name(), id.0),
        };
        let (inner, file) = (self.inner.queue(id)?, Arc::clone(&self.file));
        Ok(Box::new(CapturedSeed { inner, file, name }))
    }
}

struct CapturedSeed {
    inner: Box<dyn QueueSeed>,
    file: Arc<CaptureFile>,
    name: String,
}

impl QueueSeed for CapturedSeed {
    fn open(self: Box<Self>) -> Box<dyn Queue> {
        let CapturedSeed { inner, file, name } = *self;
        Box::new(Captured::new(inner.open(), file, &name))
    }
}

#[cfg(test)]
mod tests;
