//! PCI functions as the kernel shows them: finding network cards, taking one from the kernel and
//! giving it back.
//!
//! ```text
//!   System (where sysfs, procfs, /dev and /run are)
//!     ├─ list, find ─▶ PciFunction   ids, driver, interfaces, IOMMU group, NUMA node
//!     ├─ config      ─▶ Config       capabilities, through sysfs or VFIO
//!     └─ bind, unbind                driver_override and drivers_probe
//! ```
//!
//! Everything is relative to a [`System`], so that tests run against a tree of their own.

mod address;
mod bind;
mod config;
mod function;
mod in_use;
mod system;

pub use address::{BadAddress, PciAddress};
pub(crate) use bind::noiommu_enabled;
pub use bind::{BindError, Bound, VFIO_DRIVER, bind, unbind};
pub use config::{Config, ConfigError, capability};
pub use function::{FindError, Interface, PciFunction, find, find_card, list};
pub use in_use::{Usage, usage};
pub use system::System;

pub(crate) use system::{hex, link_name, names, number, text};

#[cfg(test)]
pub(crate) mod fake_tree;
