//! # Barewire's driver layer
//!
//! Everything between the network hardware (or what stands in for it) and the protocol stack:
//!
//! ```text
//!   stack      bursts of frames, each a run of PacketSlices
//!     │            ▲ rx_burst          │ tx_burst
//!   Queue      ────┴───────────────────▼────────────  one per engine, not shared
//!     │        middleware: faults, capture, VLAN   (wrap any Queue)
//!   burst      frames in flat arrays
//!   device     tap · cable                    (Device: the control plane, shared)
//!     │
//!   drivers    which driver fits which PCI device
//!   bus        what such a driver needs: registers, DMA, interrupts
//!   vfio       a function taken from the kernel     pci  finding, binding, giving back
//!   doctor     what this machine lacks for it, and what mends it
//!   rss        which queue a flow arrives on
//!   mem        Region → Pool → PacketBuf / PacketSlice / RemoteBuf
//!   sys        the only callers of the operating system
//! ```
//!
//! Read [`device`] first: it says what a queue promises and why one trait fits descriptor rings,
//! virtqueues, AF_XDP rings and file descriptors. Then [`mem`], which says who owns a packet's
//! bytes at every moment.
//!
//! `unsafe` is confined to `mem`, `sys`, [`mmio`], [`ring`] and the two files of `intel` that write
//! descriptors. What tells a device where to write is unsafe to call, and says what for.

pub mod barrier;
pub mod burst;
pub mod bus;
pub mod cable;
pub mod device;
pub mod doctor;
pub mod drivers;
pub mod intel;
pub mod mem;
pub mod middleware;
pub mod mmio;
#[cfg(any(test, feature = "model"))]
pub mod model;
pub mod pci;
pub mod ring;
pub mod rss;
pub mod settings;
pub mod spec;
pub mod sys;
pub mod tap;
pub mod vfio;

pub use device::{
    Arm, Capabilities, Device, DeviceError, Features, LinkState, MacAddr, Queue, QueueCounters,
    QueueError, QueueId, QueueSeed, RssHash, RxBurst, RxChecksum, RxFrame, TxBurst, TxChecksum,
    TxFrame, VlanTag,
};
pub use mem::{Audit, PacketBuf, PacketSlice, Pool, PoolConfig, PoolError, Region, RemoteBuf};
pub use settings::{NicSettings, SettingError, VlanId};
pub use spec::{DeviceSpec, OpenOptions, PciSpec, SpecError, open_device};
pub use tap::{TapConfig, TapDevice};
