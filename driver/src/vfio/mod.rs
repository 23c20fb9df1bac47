//! A PCI function taken from the kernel: registers, memory and interrupts in user space.
//!
//! ```text
//!   VfioFunction (bus::Function)
//!     ├─ Bar            BAR 0, mapped
//!     ├─ Config         bus master, through VFIO's region
//!     ├─ eventfds       one a vector; one for errors, one for the kernel's wish to have it back
//!     └─ AddressSpace   where in the device's addresses a Region lies
//!          ├─ group      /dev/vfio/vfio and /dev/vfio/N, type1v2
//!          ├─ iommufd    /dev/iommu and /dev/vfio/devices/vfioN
//!          └─ noiommu    /dev/vfio/noiommu-N: physical addresses, no protection
//! ```
//!
//! Read [`VfioFunction::open`] first, then [`VfioError`]: what a user may lack, each with its
//! remedy.
//!
//! Groups are what Linux distributions offer and what this has been run with. **iommufd and noiommu
//! have not run on a kernel**: they are written from the kernel's documentation and headers, and
//! tested against a fake kernel that checks the size, flags and order of every request.

mod error;
mod function;
mod iova;
mod space;

pub use error::VfioError;
pub use function::VfioFunction;

/// Through which of the kernel's interfaces a function is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Access {
    /// The group where there is one, else iommufd. Never without an IOMMU.
    #[default]
    Auto,
    /// A container and the function's group.
    Group,
    /// iommufd and the function's own node.
    Iommufd,
    /// Without an IOMMU. [`NOIOMMU_WARNING`] says what that means.
    NoIommu,
}

/// What a user has to be told who drives a device without an IOMMU.
pub const NOIOMMU_WARNING: &str = "no IOMMU: the device is given physical addresses and can read and \
    write all of this machine's memory. A fault in the driver or in the device corrupts the kernel \
    and other programs silently, and the kernel is marked as tainted. Not for machines that matter.";

#[cfg(test)]
mod tests;
