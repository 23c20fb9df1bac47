//! A device's descriptor: its regions, its interrupts, its reset.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::fields::{Argument, Fields};
use super::{Kernel, request};
use crate::sys::EventFd;

const GET_INFO: u32 = request(107);
const GET_REGION_INFO: u32 = request(108);
const GET_IRQ_INFO: u32 = request(109);
const SET_IRQS: u32 = request(110);
const RESET: u32 = request(111);

const DEVICE_FLAGS_RESET: u32 = 1 << 0;
const DEVICE_FLAGS_PCI: u32 = 1 << 1;
const REGION_FLAG_MMAP: u32 = 1 << 2;
const IRQ_INFO_EVENTFD: u32 = 1 << 0;
const IRQ_SET_DATA_NONE: u32 = 1 << 0;
const IRQ_SET_DATA_EVENTFD: u32 = 1 << 2;
const IRQ_SET_ACTION_TRIGGER: u32 = 1 << 5;

/// Offset of the data in `struct vfio_irq_set`.
const IRQ_SET_DATA: usize = 20;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceInfo {
    /// It can be reset without its neighbours.
    pub(crate) can_reset: bool,
    /// It is a PCI function, with the fixed numbering of regions and interrupts.
    pub(crate) is_pci: bool,
}

/// Asks what a device is.
pub(crate) fn device_info(kernel: &dyn Kernel, device: &File) -> io::Result<DeviceInfo> {
    // `cap_offset`, the fifth field, is newer than some kernels and not needed here.
    let mut info = Fields::sized(16);
    kernel.ioctl(device, GET_INFO, (&mut info).into())?;
    let flags = info.u32(4);
    Ok(DeviceInfo {
        can_reset: flags & DEVICE_FLAGS_RESET != 0,
        is_pci: flags & DEVICE_FLAGS_PCI != 0,
    })
}

/// Where a region of the device lies in its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegionInfo {
    /// Bytes; 0 where the device has no such region.
    pub(crate) len: u64,
    /// Offset for reading, writing and mapping.
    pub(crate) offset: u64,
    /// It may be mapped.
    pub(crate) mappable: bool,
}

/// Index of BAR 0 among the regions of a PCI device.
pub(crate) const REGION_BAR0: u32 = 0;

/// Index of the configuration space among the regions of a PCI device.
pub(crate) const REGION_CONFIG: u32 = 7;

/// Asks where a region lies.
pub(crate) fn region_info(
    kernel: &dyn Kernel,
    device: &File,
    index: u32,
) -> io::Result<RegionInfo> {
    let mut info = Fields::sized(32);
    info.set_u32(8, index);
    kernel.ioctl(device, GET_REGION_INFO, (&mut info).into())?;
    Ok(RegionInfo {
        mappable: info.u32(4) & REGION_FLAG_MMAP != 0,
        len: info.u64(16),
        offset: info.u64(24),
    })
}

/// The kinds of interrupt of a PCI device that are used here, by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// One for each MSI-X vector.
    MsiX = 2,
    /// An uncorrectable error on the link (AER).
    Error = 3,
    /// The kernel asks for the device back: it is being unplugged or unbound.
    Request = 4,
}

/// How many interrupts of a kind there are that can signal an eventfd.
pub(crate) fn interrupt_count(
    kernel: &dyn Kernel,
    device: &File,
    kind: Interrupt,
) -> io::Result<u32> {
    let mut info = Fields::sized(16);
    info.set_u32(8, kind as u32);
    kernel.ioctl(device, GET_IRQ_INFO, (&mut info).into())?;
    let usable = info.u32(4) & IRQ_INFO_EVENTFD != 0;
    Ok(if usable { info.u32(12) } else { 0 })
}

/// Routes the interrupts from `start` on to one eventfd each, which need not outlive the call: the
/// kernel keeps its own reference.
pub(crate) fn interrupts_to_eventfds(
    kernel: &dyn Kernel,
    device: &File,
    kind: Interrupt,
    start: u32,
    eventfds: &[EventFd],
) -> io::Result<()> {
    let mut set = Fields::sized(IRQ_SET_DATA + 4 * eventfds.len());
    set.set_u32(4, IRQ_SET_DATA_EVENTFD | IRQ_SET_ACTION_TRIGGER);
    set.set_u32(8, kind as u32);
    set.set_u32(12, start);
    set.set_u32(16, eventfds.len() as u32);
    for (i, eventfd) in eventfds.iter().enumerate() {
        set.set_fd(IRQ_SET_DATA + 4 * i, eventfd.as_raw_fd());
    }
    kernel.ioctl(device, SET_IRQS, (&mut set).into()).map(drop)
}

/// Switches a kind of interrupt off.
pub(crate) fn disable_interrupts(
    kernel: &dyn Kernel,
    device: &File,
    kind: Interrupt,
) -> io::Result<()> {
    let mut set = Fields::sized(IRQ_SET_DATA);
    set.set_u32(4, IRQ_SET_DATA_NONE | IRQ_SET_ACTION_TRIGGER);
    set.set_u32(8, kind as u32);
    kernel.ioctl(device, SET_IRQS, (&mut set).into()).map(drop)
}

/// Resets the device; its configuration space is saved and restored by the kernel.
pub(crate) fn device_reset(kernel: &dyn Kernel, device: &File) -> io::Result<()> {
    kernel.ioctl(device, RESET, Argument::NONE).map(drop)
}
