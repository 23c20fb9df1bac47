//! iommufd: VFIO's second interface, without containers and groups.
//!
//! Written from the kernel's headers and exercised against the fake kernel only: no kernel with the
//! device node has run it yet.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::fields::Fields;
use super::{Kernel, request};
use crate::mem::Region;

const DEVICE_BIND_IOMMUFD: u32 = request(118);
const DEVICE_ATTACH_IOMMUFD_PT: u32 = request(119);
const IOAS_ALLOC: u32 = request(0x81);
const IOAS_IOVA_RANGES: u32 = request(0x84);
const IOAS_MAP: u32 = request(0x85);
const IOAS_UNMAP: u32 = request(0x86);

/// `IOMMU_IOAS_MAP_FIXED_IOVA | WRITEABLE | READABLE`.
const MAP_FLAGS: u32 = 1 << 0 | 1 << 1 | 1 << 2;

/// Most ranges that are asked for. An IOMMU has a handful; more do not fit and are an error.
const MAX_RANGES: usize = 64;

/// Gives the device to an iommufd: before this it can do nothing.
pub(crate) fn bind(kernel: &dyn Kernel, device: &File, iommu: &File) -> io::Result<()> {
    let mut bind = Fields::sized(16);
    bind.set_fd(8, iommu.as_raw_fd());
    kernel.ioctl(device, DEVICE_BIND_IOMMUFD, (&mut bind).into()).map(drop)
}

/// Makes an I/O address space; gives its id.
pub(crate) fn create_address_space(kernel: &dyn Kernel, iommu: &File) -> io::Result<u32> {
    let mut alloc = Fields::sized(12);
    kernel.ioctl(iommu, IOAS_ALLOC, (&mut alloc).into())?;
    Ok(alloc.u32(8))
}

/// Lets the device translate its addresses through the address space.
pub(crate) fn attach(kernel: &dyn Kernel, device: &File, space: u32) -> io::Result<()> {
    let mut attach = Fields::sized(12);
    attach.set_u32(8, space);
    kernel.ioctl(device, DEVICE_ATTACH_IOMMUFD_PT, (&mut attach).into()).map(drop)
}

/// Usable addresses, first and last, and the alignment of mappings. Each device that is attached
/// may narrow them.
pub(crate) fn iova_ranges(
    kernel: &dyn Kernel,
    iommu: &File,
    space: u32,
) -> io::Result<(Vec<(u64, u64)>, u64)> {
    // The kernel fills in an array elsewhere, by address; it lives over the call below.
    let mut array = Fields::zeroed(16 * MAX_RANGES);
    let mut query = Fields::sized(32);
    query.set_u32(4, space);
    query.set_u32(8, MAX_RANGES as u32);
    query.set_u64(16, array.as_mut_ptr() as u64);
    kernel.ioctl(iommu, IOAS_IOVA_RANGES, (&mut query).into())?;
    let count = (query.u32(8) as usize).min(MAX_RANGES);
    let ranges = (0..count).map(|i| (array.u64(16 * i), array.u64(16 * i + 8)));
    Ok((ranges.filter(|(first, last)| first < last).collect(), query.u64(24)))
}

/// Lets the devices of an address space read and write a region at `iova`, and pins its pages.
pub(crate) fn map(
    kernel: &dyn Kernel,
    iommu: &File,
    space: u32,
    region: &Region,
    iova: u64,
) -> io::Result<()> {
    let mut map = Fields::sized(40);
    map.set_u32(4, MAP_FLAGS);
    map.set_u32(8, space);
    map.set_u64(16, region.address());
    map.set_u64(24, region.len() as u64);
    map.set_u64(32, iova);
    kernel.ioctl(iommu, IOAS_MAP, (&mut map).into()).map(drop)
}

/// Takes `len` bytes at `iova` away from the devices. Gives how many were unmapped.
pub(crate) fn unmap(
    kernel: &dyn Kernel,
    iommu: &File,
    space: u32,
    iova: u64,
    len: u64,
) -> io::Result<u64> {
    let mut unmap = Fields::sized(24);
    unmap.set_u32(4, space);
    unmap.set_u64(8, iova);
    unmap.set_u64(16, len);
    kernel.ioctl(iommu, IOAS_UNMAP, (&mut unmap).into())?;
    Ok(unmap.u64(16))
}
