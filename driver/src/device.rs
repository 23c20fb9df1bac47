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
use std::str::FromStr;

use bitflags::bitflags;
use thiserror::Error;

pub use crate::burst::{
    RssHash, RxBurst, RxChecksum, RxFrame, Segments, TxBurst, TxChecksum, TxFrame, VlanTag,
};
use crate::mem::Pool;
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

/// A string that is no Ethernet address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "`{0}` is not an Ethernet address; write six pairs of hexadecimal digits, such as \
     `02:00:00:00:00:05`"
)]
pub struct BadMacAddr(pub String);

impl FromStr for MacAddr {
    type Err = BadMacAddr;

    fn from_str(text: &str) -> Result<MacAddr, BadMacAddr> {
        let bad = || BadMacAddr(text.to_owned());
        // `from_str_radix` takes a sign.
        let plain = text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
        let mut parts = text.split(':').filter(|_| plain);
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(MacAddr(bytes)) }
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
    /// Received frames without the tag of the VLAN that was asked for.
    pub rx_other_vlan: u64,
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
    /// Times that frames waited for seconds while the device reported none of them sent: its link
    /// is down, its peer asks for a pause, or it is stuck.
    pub tx_stalls: u64,
    /// Times that the device lost its queues by itself, as a virtual function does when its
    /// physical one is reset, and they were started anew.
    pub device_losses: u64,
    /// Frames that were with the device then and may not have gone out.
    pub tx_lost: u64,
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
    /// The device does not take frames that long.
    #[error("{device} takes an MTU of {most} bytes at most, not {wanted}: {why}")]
    Mtu {
        /// Where it is.
        device: String,
        /// What was asked for.
        wanted: u16,
        /// What it takes.
        most: u16,
        /// The reason, in words.
        why: &'static str,
    },
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

    #[test]
    fn mac_addresses_print_and_sort_their_kinds() {
        assert_eq!(MacAddr::local(0x0001_0203_0405).to_string(), "02:01:02:03:04:05");
        assert!(MacAddr::BROADCAST.is_group() && !MacAddr::local(1).is_group());
    }

    #[test]
    fn mac_addresses_are_read_as_they_are_printed() {
        let mac = MacAddr([0x52, 0x54, 0, 0xab, 0xcd, 0xef]);
        assert_eq!((mac.to_string().parse(), "52:54:00:AB:CD:EF".parse()), (Ok(mac), Ok(mac)));
        for bad in ["", ":", "52:54:00:ab:cd", "52:54:00:ab:cd:ef:00", "52:54:0:ab:cd:ef0"] {
            assert_eq!(bad.parse::<MacAddr>(), Err(BadMacAddr(bad.into())));
        }
        for bad in ["+2:54:00:ab:cd:ef", "52-54-00-ab-cd-ef", "52:54:00:ab:cd:é"] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }
}
