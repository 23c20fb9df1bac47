//! Taking a card from its kernel driver for VFIO, and giving it back.
//!
//! The kernel is told with `driver_override` which driver alone may have the function, the present
//! driver is unbound, and `drivers_probe` lets the kernel choose anew. Unlike `new_id`, this touches
//! no other card of the same kind. Which driver it came from is kept in a file below
//! [`System::run`], so that another process can give the card back; without the file the kernel
//! chooses by the card's id.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::function::directory;
use super::in_use::{Usage, usage};
use super::{FindError, PciAddress, PciFunction, System, find, find_card, text};

/// The kernel driver that hands functions to processes.
pub const VFIO_DRIVER: &str = "vfio-pci";

/// A card that VFIO holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The driver that had it; `None` if none had, or if VFIO had it already.
    pub previous: Option<String>,
    /// Members of its IOMMU group that have to be bound as well (or left without a driver) before
    /// any of them can be used, with the drivers that hold them.
    pub blockers: Vec<(PciAddress, String)>,
    /// The node that a user needs the right to open.
    pub node: Option<PathBuf>,
}

/// Why a card could not be bound or given back.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// There is no such card.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The machine itself needs it.
    #[error(
        "{address} is in use: {usage}. Taking it may cut this machine off\n  to take it all the \
         same: sudo barewire nic bind {address} --take-in-use"
    )]
    InUse {
        /// The function.
        address: PciAddress,
        /// What for.
        usage: Usage,
    },
    /// The kernel module is not loaded.
    #[error("the kernel driver {driver} is not loaded\n  to mend it: sudo modprobe {driver}")]
    NoDriver {
        /// Which.
        driver: String,
    },
    /// Without an IOMMU group VFIO takes no function.
    #[error(
        "{address} is in no IOMMU group: the IOMMU is off or missing\n  to mend it: switch VT-d or \
         AMD-Vi on in the firmware and add intel_iommu=on (Intel) to the kernel's command line; \
         `barewire doctor` says more"
    )]
    NoIommu {
        /// The function.
        address: PciAddress,
    },
    /// A process still drives it; unbinding would wait for it without end.
    #[error("{address} is held by {name} (process {pid})\n  to mend it: stop that process")]
    Held {
        /// The function.
        address: PciAddress,
        /// By whom.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// It is with a kernel driver already, and not with VFIO.
    #[error(
        "{address} is not bound to vfio-pci: {driver} has it, so there is nothing to give back"
    )]
    NotBound {
        /// The function.
        address: PciAddress,
        /// The driver.
        driver: String,
    },
    /// The kernel refused a step.
    #[error("writing {}: {source}{}", path.display(), needs_root(source))]
    Write {
        /// The file of sysfs or the state.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Every step succeeded, and yet another driver (or none) has it.
    #[error(
        "{address} did not go to {wanted}: {} has it\n  to mend it: look into the kernel's log \
         (sudo dmesg | tail)",
        found.as_deref().unwrap_or("no driver")
    )]
    Elsewhere {
        /// The function.
        address: PciAddress,
        /// The driver that should have it.
        wanted: String,
        /// The one that does.
        found: Option<String>,
    },
}

fn needs_root(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "\n  to mend it: run the command with sudo",
        _ => "",
    }
}

/// Gives a network card to VFIO. One that the machine itself uses is refused unless `take_in_use`.
///
/// # Errors
/// [`BindError`], with what to do about it. After a failure the card is offered to the kernel's
/// drivers again.
pub fn bind(system: &System, address: PciAddress, take_in_use: bool) -> Result<Bound, BindError> {
    bind_with(system, address, take_in_use, &mut write)
}

/// Gives a card back to the driver it came from; gives that driver, or `None` if the kernel has
/// none for it.
///
/// # Errors
/// [`BindError`], with what to do about it.
pub fn unbind(system: &System, address: PciAddress) -> Result<Option<String>, BindError> {
    unbind_with(system, address, &mut write)
}

/// How the kernel is told: a test answers in its place.
type Tell<'a> = dyn FnMut(&Path, &str) -> io::Result<()> + 'a;

fn write(path: &Path, content: &str) -> io::Result<()> {
    // One write call, as sysfs wants it; the file is there already.
    use io::Write;
    fs::File::options().write(true).open(path)?.write_all(content.as_bytes())
}

fn tell(write: &mut Tell<'_>, path: PathBuf, content: &str) -> Result<(), BindError> {
    write(&path, content).map_err(|source| BindError::Write { path, source })
}

fn bind_with(
    system: &System,
    address: PciAddress,
    take_in_use: bool,
    write: &mut Tell<'_>,
) -> Result<Bound, BindError> {
    let function = find_card(system, address)?;
    if function.is_bound() {
        return Ok(bound(system, &function, None));
    }
    if let Some(usage) = usage(system, &function)
        && !take_in_use
    {
        return Err(BindError::InUse { address, usage });
    }
    if !system.pci().join("drivers").join(VFIO_DRIVER).exists() {
        return Err(BindError::NoDriver { driver: VFIO_DRIVER.into() });
    }
    if function.group.is_none() && !noiommu_enabled(system) {
        return Err(BindError::NoIommu { address });
    }
    remember(system, address, function.driver.as_deref())?;
    let moved = move_to_vfio(system, &function, write);
    let now = find(system, address)?;
    match moved {
        Ok(()) if now.is_bound() => Ok(bound(system, &now, function.driver)),
        failed => {
            // Left as it is, the card would be with no driver and open to none.
            let _ = release(system, &now, write);
            forget(system, address);
            failed?;
            Err(BindError::Elsewhere { address, wanted: VFIO_DRIVER.into(), found: now.driver })
        }
    }
}

fn bound(system: &System, function: &PciFunction, previous: Option<String>) -> Bound {
    Bound { previous, blockers: function.group_blockers(system), node: function.group_node(system) }
}

fn move_to_vfio(
    system: &System,
    function: &PciFunction,
    write: &mut Tell<'_>,
) -> Result<(), BindError> {
    let address = function.address;
    let dir = directory(system, address);
    tell(write, dir.join("driver_override"), VFIO_DRIVER)?;
    if function.driver.is_some() {
        tell(write, dir.join("driver/unbind"), &address.to_string())?;
    }
    tell(write, system.pci().join("drivers_probe"), &address.to_string())
}

/// Lifts the override and offers the function to every driver.
fn release(system: &System, function: &PciFunction, write: &mut Tell<'_>) -> Result<(), BindError> {
    let address = function.address.to_string();
    let dir = directory(system, function.address);
    // An empty line is what clears it.
    tell(write, dir.join("driver_override"), "\n")?;
    if function.is_bound() {
        tell(write, dir.join("driver/unbind"), &address)?;
    }
    tell(write, system.pci().join("drivers_probe"), &address)
}

fn unbind_with(
    system: &System,
    address: PciAddress,
    write: &mut Tell<'_>,
) -> Result<Option<String>, BindError> {
    let function = find(system, address)?;
    if let Some(driver) = function.driver.clone()
        && !function.is_bound()
    {
        return Err(BindError::NotBound { address, driver });
    }
    for node in nodes(system, &function) {
        if let Some((pid, name)) = system.holders(&node).into_iter().next() {
            return Err(BindError::Held { address, pid, name });
        }
    }
    let previous = text(&state_file(system, address)).filter(|driver| !driver.is_empty());
    release(system, &function, write)?;
    let mut now = find(system, address)?.driver;
    if let (None, Some(driver)) = (&now, &previous) {
        // The kernel did not choose the driver by itself: it was loaded with another id table, or
        // its module has been removed.
        let dir = system.pci().join("drivers").join(driver);
        if !dir.exists() {
            return Err(BindError::NoDriver { driver: driver.clone() });
        }
        tell(write, dir.join("bind"), &address.to_string())?;
        now = find(system, address)?.driver;
    }
    if now.as_deref() == Some(VFIO_DRIVER) || (previous.is_some() && now.is_none()) {
        let wanted = previous.unwrap_or_else(|| "its kernel driver".into());
        return Err(BindError::Elsewhere { address, wanted, found: now });
    }
    forget(system, address);
    Ok(now)
}

/// The nodes through which a process may hold the function.
fn nodes(system: &System, function: &PciFunction) -> Vec<PathBuf> {
    let device = function.vfio_node.as_ref();
    let device = device.map(|node| system.dev.join("vfio/devices").join(node));
    function.group_node(system).into_iter().chain(device).collect()
}

/// True if the kernel gives functions out without an IOMMU.
pub(crate) fn noiommu_enabled(system: &System) -> bool {
    let parameter = system.sys.join("module/vfio/parameters/enable_unsafe_noiommu_mode");
    text(&parameter).is_some_and(|value| value == "Y" || value == "1")
}

fn state_file(system: &System, address: PciAddress) -> PathBuf {
    system.run.join(format!("nic-{address}"))
}

/// Keeps the driver's name. A name of an earlier binding stays: after a crash half way the function
/// may be without a driver, and that is not where it came from.
fn remember(system: &System, address: PciAddress, driver: Option<&str>) -> Result<(), BindError> {
    let Some(driver) = driver else { return Ok(()) };
    let path = state_file(system, address);
    fs::create_dir_all(&system.run)
        .and_then(|()| fs::write(&path, format!("{driver}\n")))
        .map_err(|source| BindError::Write { path, source })
}

fn forget(system: &System, address: PciAddress) {
    // A file that stays behind names the driver that the function went back to: harmless.
    let _ = fs::remove_file(state_file(system, address));
}

#[cfg(test)]
#[path = "bind_tests.rs"]
mod tests;
