//! What a NIC driver needs of the bus that its device is on: registers, DMA, interrupts.
//!
//! ```text
//!   intel/…  ──▶ Function ──┬─▶ vfio     a real function behind an IOMMU
//!                           └─▶ model    a NIC in software, for tests
//! ```
//!
//! The drivers are written against these traits, so that the same bring-up, rings and error paths
//! run against hardware and against a model that can misbehave on purpose. None of them is called
//! per packet: a doorbell rings once a burst.

use std::fmt;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::mem::Region;

/// An address as the device sees it, behind the IOMMU where there is one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Iova(pub u64);

impl fmt::Debug for Iova {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Iova({:#x})", self.0)
    }
}

/// Why a step on the bus failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BusError {
    /// The operating system refused it.
    #[error("{what}: {source}{}", .fix.as_deref().map(|f| format!("\n  to mend it: {f}")).unwrap_or_default())]
    Os {
        /// The step, in words.
        what: String,
        /// The kernel's reason.
        source: std::io::Error,
        /// The command that mends it, where there is one.
        fix: Option<String>,
    },
    /// A register did not become what it should within its time.
    #[error(
        "register {register} did not show {condition} within {waited:?}: it reads {value:#010x}"
    )]
    Timeout {
        /// The register, by its data-sheet name.
        register: &'static str,
        /// What was waited for.
        condition: &'static str,
        /// How long.
        waited: Duration,
        /// What it read last.
        value: u32,
    },
    /// Every register reads all ones: the device is not there any more.
    #[error("the device is gone: its registers read all ones")]
    Gone,
    /// The device cannot do what was asked, or is not the one that was expected.
    #[error("{0}")]
    Unsupported(String),
}

/// Device registers: one volatile 32-bit access each, in program order with each other.
pub trait Registers: Send + Sync + fmt::Debug {
    /// Reads the register at byte `offset` of the BAR. An offset outside of it reads all ones, as
    /// from a device that is gone.
    fn read(&self, offset: u32) -> u32;
    /// Writes the register at byte `offset`; outside of the BAR nothing happens.
    fn write(&self, offset: u32, value: u32);
}

/// Memory that the device may reach; unmapped when dropped, after the device has been stopped.
pub trait DmaMapping: Send + fmt::Debug {
    /// Where the device finds the region's first byte; the rest follows without gaps.
    fn iova(&self) -> Iova;
}

/// A PCI function that is ours: what a driver is built on.
pub trait Function: Send + Sync + fmt::Debug {
    /// Vendor and device id.
    fn id(&self) -> (u16, u16);
    /// Where it is, such as `0000:01:00.0`.
    fn address(&self) -> String;
    /// BAR 0.
    fn registers(&self) -> Arc<dyn Registers>;
    /// True if [`Function::map`] takes regions of hugepages only: without an IOMMU the device goes
    /// by physical addresses, and only hugepages keep theirs.
    fn needs_hugepages(&self) -> bool {
        false
    }
    /// Makes a region reachable for the device (for reading and writing).
    ///
    /// # Errors
    /// [`BusError::Os`] with what to do about it: the memlock limit, most often.
    fn map(&self, region: &Arc<Region>) -> Result<Box<dyn DmaMapping>, BusError>;
    /// Lets the device reach memory at all (bus master), or forbids it.
    ///
    /// # Errors
    /// [`BusError::Os`].
    fn set_bus_master(&self, on: bool) -> Result<(), BusError>;
    /// Resets the function (FLR where it has it).
    ///
    /// # Errors
    /// [`BusError::Os`].
    fn reset(&self) -> Result<(), BusError>;
    /// Number of MSI-X vectors.
    fn vectors(&self) -> u16;
    /// Routes each vector to an eventfd of its own and gives the descriptors, which live as long
    /// as the function.
    ///
    /// # Errors
    /// [`BusError::Os`].
    fn enable_vectors(&self, count: u16) -> Result<Vec<RawFd>, BusError>;
    /// True once the kernel has asked for the device back or reported an error: stop using it.
    fn is_gone(&self) -> bool;
}
