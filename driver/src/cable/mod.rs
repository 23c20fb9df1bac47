//! Two network cards in memory, joined by a cable: for tests, benches and programs that talk to
//! themselves.
//!
//! ```text
//!   a ─ tx_burst ─▶ offloads in "hardware" ─ copy ─▶ slots that b posted ─▶ rx_burst ─ b
//! ```
//!
//! * [`pair()`] gives two [`CableDevice`]s whose queues run on any threads. They behave as cards do:
//!   the receiver posts empty slots of its own pool, the sender's frame is copied into them (the
//!   DMA; it does not count in `bytes_copied`), and a frame that finds no posted slot is lost and
//!   counted in the receiver's `rx_no_buffer`. Frames are dealt out to the receiver's queues by
//!   the hash of [`crate::rss`] under [`CableConfig::rss_key`], and frames without one go to queue 0.
//! * [`local()`] gives two queues for one thread, which hand slices over without a copy and hold the
//!   sender back (`tx_full`) instead of losing frames.
//! * [`open_named`] finds the other end by a name, for `cable:NAME`.
//!
//! Both kinds offer the same offloads, each switchable, and do the same to a frame whose receiver
//! has not been granted what its sender has: they compute the checksum or cut the segment as the
//! hardware would.

mod local;
mod offload;
mod pair;
mod registry;

pub use local::{LocalQueue, local};
pub use pair::{CableDevice, pair};
pub use registry::{MAX_NAMES, open_named};

use crate::device::{Capabilities, DeviceError, Features};
use crate::rss::DEFAULT_KEY;

/// Most queue pairs of one end.
pub const MAX_QUEUES: u16 = 16;

/// Most frames or slots in one ring.
pub const MAX_RING_LEN: usize = 1 << 15;

/// Everything that a cable can do.
pub const FEATURES: Features = Features::TX_CHECKSUM
    .union(Features::TSO4)
    .union(Features::RX_CHECKSUM)
    .union(Features::LARGE_RECEIVE)
    .union(Features::SCATTER_GATHER)
    .union(Features::RSS_HASH);

/// Payload of a TSO frame: the IP packet stays within 65,535 bytes with the longest headers.
const TSO_MAX_BYTES: u32 = 65_535 - 60 - 60;

/// Most segments in one sent frame.
const TX_MAX_SEGS: u16 = 256;

/// How a cable is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CableConfig {
    /// What it is called; the Ethernet addresses of its ends depend on it.
    pub name: String,
    /// Queue pairs of each end, at most [`MAX_QUEUES`].
    pub queues: u16,
    /// Offloads offered at both ends, of [`FEATURES`].
    pub features: Features,
    /// Largest frame without its Ethernet header.
    pub mtu: u16,
    /// Slots that a queue posts, or frames that a local queue holds; at most [`MAX_RING_LEN`].
    pub ring_len: usize,
    /// The key under which flows are dealt out to the queues.
    pub rss_key: [u8; 40],
}

impl CableConfig {
    /// One queue, all offloads, an MTU of 1,500, rings of 512 and the key that most cards have.
    pub fn new(name: &str) -> CableConfig {
        CableConfig {
            name: name.to_owned(),
            queues: 1,
            features: FEATURES,
            mtu: 1500,
            ring_len: 512,
            rss_key: DEFAULT_KEY,
        }
    }

    fn validate(&self) -> Result<(), DeviceError> {
        let told = if self.queues == 0 || self.queues > MAX_QUEUES {
            format!("a cable has 1 to {MAX_QUEUES} queues, not {}", self.queues)
        } else if self.ring_len == 0 || self.ring_len > MAX_RING_LEN {
            format!("a cable's ring has 1 to {MAX_RING_LEN} entries, not {}", self.ring_len)
        } else if !FEATURES.contains(self.features) {
            format!("a cable cannot do {:?}", self.features - FEATURES)
        } else {
            return Ok(());
        };
        Err(DeviceError::Config(told))
    }

    fn capabilities(&self) -> Capabilities {
        let tso = self.features.contains(Features::TSO4);
        Capabilities {
            features: self.features,
            mtu: self.mtu,
            tso_max_bytes: if tso { TSO_MAX_BYTES } else { 0 },
            tx_max_segs: TX_MAX_SEGS,
        }
    }

    /// What is granted of `wanted`: an offload that stands on another needs that one, too.
    fn grant(&self, wanted: Features) -> Features {
        let mut granted = wanted & self.features;
        if !granted.contains(Features::TX_CHECKSUM) {
            granted.remove(Features::TSO4);
        }
        if !granted.contains(Features::RX_CHECKSUM) {
            granted.remove(Features::LARGE_RECEIVE);
        }
        granted
    }
}
