//! What a user may lack for driving a card: each lack its own error, with the command that mends it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::bus::BusError;
use crate::device::DeviceError;
use crate::pci::{ConfigError, FindError, PciAddress};

/// Why a function cannot be driven through VFIO.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VfioError {
    /// There is no such function.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Its configuration space cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A kernel driver (or none) holds it, not VFIO.
    #[error("{address} is not bound to vfio-pci ({} has it)", driver.as_deref().unwrap_or("no driver"))]
    NotBound {
        /// The function.
        address: PciAddress,
        /// Who has it.
        driver: Option<String>,
    },
    /// The kernel module is not loaded, or the device nodes are not in this container.
    #[error("VFIO is not there: {} does not exist", .0.display())]
    NoModule(PathBuf),
    /// The kernel has no type 1 IOMMU driver for VFIO.
    #[error("VFIO has no driver for this machine's IOMMU (type 1, version 2)")]
    NoType1,
    /// There is no IOMMU, or it is off.
    #[error("{0} is in no IOMMU group: the IOMMU is off or missing")]
    NoIommu(PciAddress),
    /// The function is in a group without an IOMMU, and that was not asked for.
    #[error(
        "{0} has no IOMMU behind it: driven like that, it could write to any of this machine's memory"
    )]
    NoIommuUnasked(PciAddress),
    /// Driving without an IOMMU was asked for, and the kernel does not offer it for this function.
    #[error("the kernel does not offer {0} without an IOMMU")]
    NoIommuRefused(PciAddress),
    /// Other functions of the group are held by kernel drivers.
    #[error("IOMMU group {group} is not viable: {}", blocked(blockers))]
    NotViable {
        /// The group.
        group: u32,
        /// Which, and by which drivers.
        blockers: Vec<(PciAddress, String)>,
    },
    /// This user may not open the node.
    #[error("{} may not be opened by this user", .0.display())]
    Permission(PathBuf),
    /// Driving without an IOMMU needs more rights than owning the node.
    #[error("driving a device without an IOMMU needs CAP_SYS_RAWIO and CAP_SYS_ADMIN")]
    NoIommuRights,
    /// Another process has the device.
    #[error("{} is in use{}", path.display(), by(holders))]
    Busy {
        /// The node.
        path: PathBuf,
        /// The processes that have it open, as far as this user may see.
        holders: Vec<(u32, String)>,
    },
    /// The process may not lock as much memory as the device is to reach.
    #[error(
        "{bytes} bytes of packet memory cannot be locked: the limit of locked memory is {}",
        .limit.map_or("reached".to_owned(), |limit| format!("{limit} bytes"))
    )]
    MemoryLimit {
        /// Bytes to be locked.
        bytes: u64,
        /// The limit, where it could be read.
        limit: Option<u64>,
    },
    /// Without interrupt remapping a device could forge interrupts, and the kernel refuses.
    #[error("the IOMMU cannot remap interrupts, so VFIO refuses to use it")]
    NoInterruptRemapping,
    /// Driving without an IOMMU needs memory that does not move.
    #[error("without an IOMMU packet memory has to be hugepages, and there were not enough")]
    NoHugepages,
    /// Driving without an IOMMU needs memory in one piece.
    #[error(
        "without an IOMMU packet memory has to be one piece, but page {page} of it lies elsewhere"
    )]
    Scattered {
        /// The first page that does not follow the one before.
        page: u64,
    },
    /// The addresses that the IOMMU allows are used up.
    #[error("the IOMMU has no free range of {0} bytes")]
    NoIova(u64),
    /// The device is none that can be driven.
    #[error("{0}")]
    Unsupported(String),
    /// Any other refusal of the kernel's.
    #[error("{what}: {source}")]
    Kernel {
        /// The step, in words.
        what: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
}

fn blocked(blockers: &[(PciAddress, String)]) -> String {
    match blockers {
        [] => "one of its devices is held by a kernel driver".into(),
        _ => {
            let each =
                blockers.iter().map(|(address, driver)| format!("{address} is with {driver}"));
            each.collect::<Vec<_>>().join(", ")
        }
    }
}

fn by(holders: &[(u32, String)]) -> String {
    match holders {
        [] => " by another process".into(),
        _ => {
            let each = holders.iter().map(|(pid, name)| format!("{name} (process {pid})"));
            format!(" by {}", each.collect::<Vec<_>>().join(", "))
        }
    }
}

impl VfioError {
    /// The command or step that mends it, where there is one.
    pub fn fix(&self) -> Option<String> {
        Some(match self {
            VfioError::NotBound { address, .. } => format!("sudo barewire nic bind {address}"),
            VfioError::NoModule(_) => {
                "sudo modprobe vfio-pci  (in a container: start it with --device /dev/vfio)".into()
            }
            VfioError::NoType1 => "sudo modprobe vfio_iommu_type1".into(),
            VfioError::NoIommu(_) | VfioError::NoIommuUnasked(_) => {
                "switch VT-d or AMD-Vi on in the firmware and add intel_iommu=on (Intel) to the \
                 kernel's command line; `barewire doctor` says more"
                    .into()
            }
            VfioError::NoIommuRefused(address) => format!(
                "with an IOMMU name it pci:{address}; without one: echo Y | sudo tee \
                 /sys/module/vfio/parameters/enable_unsafe_noiommu_mode, then bind it again"
            ),
            VfioError::NotViable { blockers, .. } if !blockers.is_empty() => {
                let each = blockers.iter().map(|(address, _)| format!("sudo barewire nic bind {address}"));
                each.collect::<Vec<_>>().join(" && ")
            }
            VfioError::NotViable { .. } => "bind every device of the group to vfio-pci".into(),
            VfioError::Permission(path) => {
                format!("sudo chown \"$USER\" {}  (or run as root)", path.display())
            }
            VfioError::NoIommuRights => "run it as root".into(),
            VfioError::Busy { holders, .. } => match holders.first() {
                Some((pid, _)) => format!("stop it: kill {pid}"),
                None => "find it with: sudo fuser -v /dev/vfio/*".into(),
            },
            VfioError::MemoryLimit { .. } => {
                "sudo prlimit --memlock=unlimited --pid $$  (in the shell that starts it; for good, \
                 in /etc/security/limits.conf)"
                    .into()
            }
            VfioError::NoInterruptRemapping => {
                "switch interrupt remapping on in the firmware; where devices are trusted: echo Y | \
                 sudo tee /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
                    .into()
            }
            VfioError::NoHugepages => "sudo sysctl vm.nr_hugepages=64".into(),
            VfioError::Scattered { .. } => {
                "boot with hugepagesz=1G hugepages=1 default_hugepagesz=1G, or use smaller pools".into()
            }
            VfioError::Find(_)
            | VfioError::Config(_)
            | VfioError::NoIova(_)
            | VfioError::Unsupported(_)
            | VfioError::Kernel { .. } => return None,
        })
    }

    /// As an operating system's error that keeps this one as its cause, with the remedy beside it.
    fn into_parts(self) -> (io::Error, Option<String>) {
        let fix = self.fix();
        let kind = match &self {
            VfioError::Permission(_) | VfioError::NoIommuRights => io::ErrorKind::PermissionDenied,
            VfioError::Busy { .. } => io::ErrorKind::ResourceBusy,
            VfioError::MemoryLimit { .. } => io::ErrorKind::OutOfMemory,
            VfioError::Find(_) | VfioError::NoModule(_) => io::ErrorKind::NotFound,
            VfioError::Kernel { source, .. } => source.kind(),
            _ => io::ErrorKind::Unsupported,
        };
        (io::Error::new(kind, self), fix)
    }

    /// The same for the bus: `what` was being done.
    pub(super) fn on_bus(self, what: impl Into<String>) -> BusError {
        let (source, fix) = self.into_parts();
        BusError::Os { what: what.into(), source, fix }
    }

    /// The same for opening the device called `name`.
    pub fn on_open(self, name: impl Into<String>) -> DeviceError {
        let (source, fix) = self.into_parts();
        DeviceError::Os { what: format!("opening {}", name.into()), source, fix }
    }
}
