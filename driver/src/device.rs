//! What a network device is to the rest of Barewire: [`Device`], the control plane, and [`Queue`],
//! the bursts.
//!
//! ```text
//!   Device (Send + Sync)           Queue (one thread)
//!     link, mac, capabilities        start(pool, wanted) -> granted
//!     queue(i) -> QueueSeed ──open──▶ rx_burst ─▶ RxBurst ─▶ stack ─▶ TxBurst ─▶ tx_burst
//!                (Send)              arm / disarm, reclaim, stop
//! ```
//!
//! # Why one trait fits four kinds of device
//!
//! | | descriptor ring (igb, ixgbe) | virtqueue | AF_XDP | file descriptor (tap) |
//! | --- | --- | --- | --- | --- |
//! | receive memory | posted to the ring before, by IOVA | posted, by guest address | posted to the fill ring, by UMEM offset | allocated when read |
//! | a frame's pieces | descriptors up to EOP | a used chain | one, or `XDP_PKT_CONTD` | what `readv` filled |
//! | sent memory is free | at write-back (DD) | at the used index | at the completion ring | when `writev` returns |
//! | offload metadata | context and data descriptors | `virtio_net_hdr` | metadata area | `virtio_net_hdr` |
//! | doorbell | tail register | notify | `sendto` when asked to | none |
//! | to sleep | MSI-X eventfd, armed | call eventfd, used-event | the socket | the descriptor |
//!
//! So: a queue takes its receive memory itself, from the pool it is given at `start`, whenever it
//! can (posting is its own affair); received frames are runs of slices, never one; sent slices move
//! into the queue and are dropped by it when the device is done ([`Queue::reclaim`]), at once where
//! that is synchronous; metadata is one plain struct a frame; and [`Queue::arm`] gives a file
//! descriptor to sleep on after it has looked once more. A burst ends with one doorbell, whatever a
//! doorbell is. Bursts are flat arrays, reused, so that crossing the trait object costs one dynamic
//! call a burst and no allocation.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use bitflags::bitflags;
use thiserror::Error;

use crate::mem::{PacketSlice, Pool};
use crate::rss::Steering;

/// Most frames that one burst is asked to hold; a queue may give or take fewer.
pub const BURST_FRAMES: usize = 64;

/// The index of a queue pair of one device, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub u16);

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// True if the group bit is set: broadcast or multicast.
    pub fn is_group(&self) -> bool {
        self.0[0] & 1 == 1
    }

    /// A locally administered unicast address made of 40 bits of `seed`.
    pub fn local(seed: u64) -> MacAddr {
        let b = seed.to_be_bytes();
        MacAddr([0x02, b[3], b[4], b[5], b[6], b[7]])
    }

    /// A locally administered unicast address that depends on `name` alone, so that a restarted
    /// program is found under the address that its peers remember.
    pub fn from_name(name: &str) -> MacAddr {
        // FNV-1a, 64 bits: any hash that stays the same between versions would do.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        MacAddr::local(hash ^ hash >> 40)
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

bitflags! {
    /// Work that a device can take over. Offered by [`Capabilities`], asked for and granted at
    /// [`Queue::start`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Features: u32 {
        /// Computes TCP and UDP checksums of sent frames over IPv4 (and IPv6).
        const TX_CHECKSUM = 1 << 0;
        /// Cuts a large TCP segment over IPv4 into frames of the MSS.
        const TSO4 = 1 << 1;
        /// The same over IPv6.
        const TSO6 = 1 << 2;
        /// Tells whether TCP and UDP checksums of received frames are right.
        const RX_CHECKSUM = 1 << 3;
        /// Joins received TCP segments into frames larger than the MTU.
        const LARGE_RECEIVE = 1 << 4;
        /// Takes a frame in several segments. Without it every frame is linearised first.
        const SCATTER_GATHER = 1 << 5;
        /// Gives a hash of the flow with every received frame.
        const RSS_HASH = 1 << 6;
        /// Inserts and strips VLAN tags.
        const VLAN = 1 << 7;
    }
}

/// What a queue offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Features that may be asked for.
    pub features: Features,
    /// Largest frame without the Ethernet header that the device sends and receives unsegmented.
    pub mtu: u16,
    /// Most payload bytes in one TSO frame, headers excluded; 0 without TSO.
    pub tso_max_bytes: u32,
    /// Most segments in one sent frame, the header's included.
    pub tx_max_segs: u16,
}

/// State of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Frames can be sent and received.
    pub up: bool,
    /// Speed in Mbit/s, where the device knows it.
    pub speed_mbps: Option<u32>,
}

/// Verdict on the transport checksum of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RxChecksum {
    /// Nobody looked: software has to verify it.
    #[default]
    Unknown,
    /// Verified by the device, or made by a trusted sender that never filled it in.
    Good,
    /// Found wrong by the device.
    Bad,
}

/// One received frame of an [`RxBurst`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxFrame {
    /// Index of its first segment in the burst.
    pub first: u32,
    /// Number of segments.
    pub count: u16,
    /// Verdict on the transport checksum.
    pub checksum: RxChecksum,
    /// Payload bytes of each joined TCP segment, where the device joined several; else 0.
    pub gso_bytes: u16,
    /// Bytes of the whole frame.
    pub len: u32,
    /// The device's flow hash.
    pub rss_hash: Option<u32>,
    /// The VLAN tag that the device stripped.
    pub vlan: Option<u16>,
}

/// Received frames, flat: the segments of all, and where each frame's begin.
///
/// `clear` keeps the memory, so a burst that is reused allocates only while it grows.
#[derive(Debug, Default)]
pub struct RxBurst {
    segments: Vec<PacketSlice>,
    frames: Vec<RxFrame>,
}

impl RxBurst {
    /// An empty burst.
    pub fn new() -> RxBurst {
        RxBurst::default()
    }

    /// Forgets all frames and lets go of their memory.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.frames.clear();
    }

    /// Gives all frames away, in order, each with its segments, and is empty then. A segment that
    /// `take` leaves in its iterator is dropped. Nothing is counted up and down again, as it is
    /// where segments are cloned and the burst cleared.
    #[inline]
    pub fn drain(&mut self, mut take: impl FnMut(&RxFrame, Segments<'_, '_>)) {
        self.abandon_frame();
        let mut segments = self.segments.drain(..);
        for frame in self.frames.drain(..) {
            take(&frame, Segments { left: usize::from(frame.count), from: &mut segments });
        }
    }

    /// Adds a segment of the frame that the next [`RxBurst::finish_frame`] ends.
    pub fn push_segment(&mut self, segment: PacketSlice) {
        self.segments.push(segment);
    }

    /// Ends a frame made of all segments pushed since the last one; `meta`'s `first`, `count` and
    /// `len` are filled in here.
    pub fn finish_frame(&mut self, meta: RxFrame) {
        let first = self.frames.last().map_or(0, |f| f.first as usize + f.count as usize);
        let len = self.segments[first..].iter().map(|s| s.len() as u32).sum();
        let count = (self.segments.len() - first) as u16;
        self.frames.push(RxFrame { first: first as u32, count, len, ..meta });
    }

    /// Drops the segments pushed since the last whole frame.
    pub fn abandon_frame(&mut self) {
        let end = self.frames.last().map_or(0, |f| f.first as usize + f.count as usize);
        self.segments.truncate(end);
    }

    /// Keeps only the first `count` frames.
    pub fn truncate_frames(&mut self, count: usize) {
        self.frames.truncate(count);
        self.abandon_frame();
    }

    /// The frames.
    pub fn frames(&self) -> &[RxFrame] {
        &self.frames
    }

    /// Metadata of frame `index`, to be corrected by a middleware.
    pub fn frame_mut(&mut self, index: usize) -> &mut RxFrame {
        &mut self.frames[index]
    }

    /// The segments of a frame of this burst.
    pub fn segments(&self, frame: &RxFrame) -> &[PacketSlice] {
        &self.segments[frame.first as usize..frame.first as usize + frame.count as usize]
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// True without frames.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

/// The segments of one frame on their way out of a burst.
#[derive(Debug)]
pub struct Segments<'a, 'b> {
    left: usize,
    from: &'a mut std::vec::Drain<'b, PacketSlice>,
}

impl Segments<'_, '_> {
    /// Those that have not been taken yet.
    #[inline]
    pub fn as_slice(&self) -> &[PacketSlice] {
        &self.from.as_slice()[..self.left]
    }
}

impl Iterator for Segments<'_, '_> {
    type Item = PacketSlice;

    #[inline]
    fn next(&mut self) -> Option<PacketSlice> {
        self.left = self.left.checked_sub(1)?;
        self.from.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl Drop for Segments<'_, '_> {
    /// The next frame begins behind this one, whatever has been taken of it.
    #[inline]
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

/// What is left for the device to do about a transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TxChecksum {
    /// Nothing: the frame is complete.
    #[default]
    Complete,
    /// Sum from byte `start` of the frame to its end and store the result at `start + offset`,
    /// where the pseudo-header's sum stands already.
    Partial {
        /// Offset of the transport header in the frame.
        start: u16,
        /// Offset of the checksum field in the transport header.
        offset: u16,
    },
}

/// One frame to send of a [`TxBurst`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxFrame {
    /// Segments of the frame; the first begins with all headers.
    pub count: u16,
    /// Bytes of the whole frame.
    pub len: u32,
    /// What is left to do about the checksum.
    pub checksum: TxChecksum,
    /// For TSO, payload bytes a wire segment; else 0. With TSO the checksum is `Partial`.
    pub tso_mss: u16,
    /// Bytes of link, network and transport header; needed with TSO.
    pub header_len: u16,
    /// The VLAN tag to insert.
    pub vlan: Option<u16>,
}

/// Frames to send, in order, flat. What a queue did not take stays at the front.
#[derive(Debug, Default)]
pub struct TxBurst {
    segments: Vec<PacketSlice>,
    frames: Vec<TxFrame>,
    /// Segments and frames at the front that the queue has taken.
    taken_segments: usize,
    taken_frames: usize,
    /// Segments that belong to whole frames.
    whole_segments: usize,
}

impl TxBurst {
    /// An empty burst.
    pub fn new() -> TxBurst {
        TxBurst::default()
    }

    /// Adds a segment of the frame that the next [`TxBurst::finish_frame`] ends.
    pub fn push_segment(&mut self, segment: PacketSlice) {
        self.segments.push(segment);
    }

    /// Ends a frame made of all segments pushed since the last one; `meta`'s `count` and `len` are
    /// filled in here.
    pub fn finish_frame(&mut self, meta: TxFrame) {
        let new = &self.segments[self.whole_segments..];
        let len = new.iter().map(|s| s.len() as u32).sum();
        let count = new.len() as u16;
        self.whole_segments = self.segments.len();
        self.frames.push(TxFrame { count, len, ..meta });
    }

    /// Drops the segments pushed since the last whole frame, when memory for the rest ran out.
    pub fn abandon_frame(&mut self) {
        self.segments.truncate(self.whole_segments);
    }

    /// The first frame that no queue has taken yet, with its segments.
    pub fn front(&self) -> Option<(&TxFrame, &[PacketSlice])> {
        let frame = self.frames.get(self.taken_frames)?;
        let end = self.taken_segments + frame.count as usize;
        Some((frame, &self.segments[self.taken_segments..end]))
    }

    /// Takes the first frame; its segments are dropped with the burst's next compaction. To keep
    /// them (a ring does), clone them first: that costs one count each.
    pub fn take_front(&mut self) {
        if let Some(frame) = self.frames.get(self.taken_frames) {
            self.taken_segments += frame.count as usize;
            self.taken_frames += 1;
        }
        if self.taken_frames == self.frames.len() {
            self.clear_taken();
        }
    }

    /// Lets go of everything that has been taken; queues call it once, at the end of a burst.
    pub fn clear_taken(&mut self) {
        if self.taken_segments == self.segments.len() {
            // Nearly always: the queue had room for all of it.
            self.segments.clear();
            self.frames.clear();
        } else {
            self.segments.drain(..self.taken_segments);
            self.frames.drain(..self.taken_frames);
        }
        self.whole_segments -= self.taken_segments;
        (self.taken_segments, self.taken_frames) = (0, 0);
    }

    /// Drops all frames.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.frames.clear();
        (self.taken_segments, self.taken_frames, self.whole_segments) = (0, 0, 0);
    }

    /// Frames not yet taken.
    pub fn len(&self) -> usize {
        self.frames.len() - self.taken_frames
    }

    /// True if every frame has been taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frames not yet taken, with their segments.
    pub fn iter(&self) -> impl Iterator<Item = (&TxFrame, &[PacketSlice])> {
        let mut at = self.taken_segments;
        self.frames[self.taken_frames..].iter().map(move |frame| {
            let first = at;
            at += frame.count as usize;
            (frame, &self.segments[first..at])
        })
    }
}

/// What a queue counts; every drop has a name here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Frames received and handed up.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames given to the device.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Received frames lost because the pool had no slot.
    pub rx_no_buffer: u64,
    /// Received frames that broke the device's contract (length, metadata) and were dropped.
    pub rx_malformed: u64,
    /// Received frames whose transport checksum the device found right.
    pub rx_checksum_good: u64,
    /// Received frames whose transport checksum the device found wrong.
    pub rx_checksum_bad: u64,
    /// Frames that the device refused and that were dropped.
    pub tx_errors: u64,
    /// Times a frame had to wait because the device had no room.
    pub tx_full: u64,
    /// Frames copied into one segment because the device takes only one.
    pub tx_linearised: u64,
    /// System calls made, where the device needs them.
    pub syscalls: u64,
}

/// Result of [`Queue::arm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// Frames have arrived in the meantime: do not sleep.
    Ready,
    /// Nothing there. Sleep until the descriptor is readable, the time has come, or somebody else
    /// wakes the engine, whichever is first.
    Sleep {
        /// Becomes readable when a frame arrives, where the queue has such a descriptor.
        fd: Option<RawFd>,
        /// When the queue has work of its own to do (a delayed frame to deliver), in nanoseconds of
        /// the clock that the queue goes by.
        until_ns: Option<u64>,
    },
}

/// Why a queue no longer works.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The device has gone (unplugged, interface deleted); start over with a new one.
    #[error("the device is gone: {0}")]
    Gone(#[source] io::Error),
    /// The device failed.
    #[error("the device failed: {0}")]
    Io(#[source] io::Error),
}

/// Why a device could not be opened, configured or started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The specification names no device.
    #[error(transparent)]
    Spec(#[from] crate::spec::SpecError),
    /// The operating system refused a step.
    #[error("{what}: {source}{}", .fix.as_deref().map(|f| format!("\n  to mend it: {f}")).unwrap_or_default())]
    Os {
        /// The step, in words.
        what: String,
        /// The kernel's reason.
        source: io::Error,
        /// The command that mends it, where there is one.
        fix: Option<String>,
    },
    /// There is no such queue.
    #[error("queue {0} of {1} does not exist")]
    NoQueue(u16, u16),
    /// Each queue is opened once.
    #[error("queue {0} is open already")]
    QueueTaken(u16),
    /// The configuration does not fit the device.
    #[error("{0}")]
    Config(String),
}

/// The control plane of a network device: shared between threads, never on the hot path.
pub trait Device: Send + Sync + fmt::Debug {
    /// What it is called, as [`crate::spec::DeviceSpec`] prints it.
    fn name(&self) -> String;
    /// The Ethernet address that the stack on top should use.
    fn mac(&self) -> MacAddr;
    /// What its queues offer.
    fn capabilities(&self) -> Capabilities;
    /// Number of queue pairs.
    fn queues(&self) -> u16;
    /// State of the link.
    fn link(&self) -> LinkState;
    /// The link's state if it has changed since the last call; the first call always tells. A
    /// device that does not watch its link tells nothing. Costs a register's read: for every few
    /// hundred milliseconds.
    fn poll_link(&self) -> Option<LinkState> {
        None
    }
    /// The hardware's own counters under their data-sheet names, since the device was opened; none
    /// where there is no hardware. 32-bit ones run over after 2^32 frames or octets unless this is
    /// called before.
    fn statistics(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
    /// The queue on which TCP and UDP frames from `remote` to `local` arrive, where the device
    /// deals flows out by a fixed function. `None` where it is not known: the kernel, for one, lets
    /// the frames of a tap follow the queue that the flow was last sent from.
    fn flow_queue(&self, remote: SocketAddr, local: SocketAddr) -> Option<QueueId> {
        let _ = (remote, local);
        None
    }
    /// How the device deals flows out, where that is fixed and known: engines then take a flow
    /// where it arrives.
    fn steering(&self) -> Option<Steering> {
        None
    }
    /// A queue pair, to be opened on the thread that will use it.
    ///
    /// # Errors
    /// [`DeviceError::NoQueue`] and [`DeviceError::QueueTaken`].
    fn queue(&self, id: QueueId) -> Result<Box<dyn QueueSeed>, DeviceError>;
}

/// A queue on its way to the thread that will use it.
pub trait QueueSeed: Send {
    /// Becomes the queue.
    fn open(self: Box<Self>) -> Box<dyn Queue>;
}

/// One receive and one transmit ring, owned by one thread.
///
/// Order of calls: `start` once, then any of the others, `stop` at the end. A queue that was never
/// started receives and sends nothing.
pub trait Queue {
    /// What the queue offers.
    fn capabilities(&self) -> Capabilities;

    /// Takes the pool that receive memory comes from and the features wanted; gives the features
    /// granted, always a subset of both wanted and offered.
    ///
    /// # Errors
    /// [`DeviceError`] when the device cannot be started.
    fn start(&mut self, pool: &Pool, wanted: Features) -> Result<Features, DeviceError>;

    /// Appends up to `max` received frames to `burst` and returns how many. Never waits.
    ///
    /// # Errors
    /// [`QueueError`] when the device is gone or broken; frames already appended are valid.
    fn rx_burst(&mut self, burst: &mut RxBurst, max: usize) -> Result<usize, QueueError>;

    /// Sends frames from the front of `burst` and returns how many; what did not fit stays. Rings
    /// the doorbell once. Frames that the device refuses are dropped and counted.
    ///
    /// # Errors
    /// [`QueueError`] when the device is gone or broken.
    fn tx_burst(&mut self, burst: &mut TxBurst) -> Result<usize, QueueError>;

    /// How many frames a `tx_burst` would take now, as far as is known.
    fn tx_room(&self) -> usize;

    /// Lets go of frames that the device has finished sending; returns how many. Called when idle,
    /// too, so that a quiet sender does not strand its buffers.
    fn reclaim(&mut self) -> usize;

    /// Frames sent but not yet reclaimed.
    fn pending_tx(&self) -> usize;

    /// Prepares for sleep, and looks once more after doing so.
    fn arm(&mut self) -> Arm;

    /// Ends what `arm` began.
    fn disarm(&mut self);

    /// What has been counted.
    fn counters(&self) -> QueueCounters;

    /// Stops the device and lets go of all memory. Idempotent; dropping does the same.
    fn stop(&mut self);

    /// For callers that know the concrete queue (tests reading a model, a middleware's figures).
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::PoolConfig;

    fn pool() -> Pool {
        Pool::new(PoolConfig { slots: 16, slot_len: 2048, cells: 4, try_huge: false }).unwrap()
    }

    fn slice(pool: &Pool, bytes: &[u8]) -> PacketSlice {
        pool.copy_from(bytes).unwrap().freeze()
    }

    #[test]
    fn a_received_frame_is_a_run_of_segments() {
        let pool = pool();
        let mut burst = RxBurst::new();
        burst.push_segment(slice(&pool, b"one"));
        burst.finish_frame(RxFrame::default());
        burst.push_segment(slice(&pool, b"lost"));
        burst.abandon_frame();
        burst.push_segment(slice(&pool, b"two"));
        burst.push_segment(slice(&pool, b"three"));
        burst.finish_frame(RxFrame { checksum: RxChecksum::Good, ..RxFrame::default() });
        let frame = burst.frames()[1];
        assert_eq!((frame.first, frame.count, frame.len), (1, 2, 8));
        assert_eq!(&burst.segments(&frame)[1][..], b"three");
        burst.truncate_frames(1);
        assert_eq!(pool.audit().held, 1);
        burst.clear();
        assert!(pool.audit().all_free());
    }

    #[test]
    fn what_a_queue_did_not_take_stays_in_order() {
        let pool = pool();
        let mut burst = TxBurst::new();
        for bytes in [&b"a"[..], b"bb", b"ccc"] {
            burst.push_segment(slice(&pool, bytes));
            burst.push_segment(slice(&pool, b"-"));
            burst.finish_frame(TxFrame::default());
        }
        burst.take_front();
        burst.clear_taken();
        assert_eq!(pool.audit().held, 4);
        let lens: Vec<_> = burst.iter().map(|(f, s)| (f.len, s.len())).collect();
        assert_eq!(lens, [(3, 2), (4, 2)]);
        burst.push_segment(slice(&pool, b"dddd"));
        burst.finish_frame(TxFrame::default());
        burst.take_front();
        assert_eq!(burst.front().unwrap().0.len, 4);
        burst.take_front();
        assert_eq!(&burst.front().unwrap().1[0][..], b"dddd");
        burst.take_front();
        assert!(burst.is_empty() && pool.audit().all_free());
    }

    #[test]
    fn mac_addresses_print_and_sort_their_kinds() {
        assert_eq!(MacAddr::local(0x0001_0203_0405).to_string(), "02:01:02:03:04:05");
        assert!(MacAddr::BROADCAST.is_group() && !MacAddr::local(1).is_group());
    }
}
