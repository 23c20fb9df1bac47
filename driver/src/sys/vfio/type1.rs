//! Containers and groups: VFIO's first interface, with the type 1 IOMMU.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::fields::{Argument, Fields};
use super::{Kernel, request};
use crate::mem::Region;

const GET_API_VERSION: u32 = request(100);
const CHECK_EXTENSION: u32 = request(101);
const SET_IOMMU: u32 = request(102);
const GROUP_GET_STATUS: u32 = request(103);
const GROUP_SET_CONTAINER: u32 = request(104);
const IOMMU_GET_INFO: u32 = request(112);
const IOMMU_MAP_DMA: u32 = request(113);
const IOMMU_UNMAP_DMA: u32 = request(114);

const GROUP_FLAGS_VIABLE: u32 = 1 << 0;
const GROUP_FLAGS_CONTAINER_SET: u32 = 1 << 1;
const INFO_PGSIZES: u32 = 1 << 0;
const INFO_CAPS: u32 = 1 << 1;
const CAP_IOVA_RANGE: u16 = 1;
const CAP_DMA_AVAIL: u16 = 3;
const MAP_READ_WRITE: u32 = 1 << 0 | 1 << 1;

/// `sizeof(struct vfio_iommu_type1_info)`, and the offset of its capability chain's first link.
const INFO_LEN: usize = 24;
const INFO_CAP_OFFSET: usize = 16;

/// Most bytes that the IOMMU's description is allowed: a thousand ranges and more.
const MAX_INFO_LEN: usize = 64 * 1024;

/// Most capabilities that are looked at: a chain that is longer runs in a circle.
const MAX_CAPS: usize = 64;

/// The IOMMU models that are driven here, by their extension numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IommuKind {
    /// `VFIO_TYPE1v2_IOMMU`.
    Type1v2 = 3,
    /// `VFIO_NOIOMMU_IOMMU`: none, the device reaches all of memory.
    None = 8,
}

/// The version of the interface; 0 is the only one there has been.
pub(crate) fn api_version(kernel: &dyn Kernel, container: &File) -> io::Result<u32> {
    kernel.ioctl(container, GET_API_VERSION, Argument::NONE)
}

/// True if the kernel has this kind of IOMMU.
pub(crate) fn supports(
    kernel: &dyn Kernel,
    container: &File,
    iommu: IommuKind,
) -> io::Result<bool> {
    Ok(kernel.ioctl(container, CHECK_EXTENSION, Argument::value(iommu as u32))? == 1)
}

/// Chooses the container's IOMMU; a group has to be in it.
pub(crate) fn set_iommu(kernel: &dyn Kernel, container: &File, iommu: IommuKind) -> io::Result<()> {
    kernel.ioctl(container, SET_IOMMU, Argument::value(iommu as u32)).map(drop)
}

/// What a group can do at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupStatus {
    /// Every device in it is held by VFIO or by nobody.
    pub(crate) viable: bool,
    /// It is in a container.
    pub(crate) in_container: bool,
}

/// Asks for a group's status.
pub(crate) fn group_status(kernel: &dyn Kernel, group: &File) -> io::Result<GroupStatus> {
    let mut status = Fields::sized(8);
    kernel.ioctl(group, GROUP_GET_STATUS, (&mut status).into())?;
    let flags = status.u32(4);
    Ok(GroupStatus {
        viable: flags & GROUP_FLAGS_VIABLE != 0,
        in_container: flags & GROUP_FLAGS_CONTAINER_SET != 0,
    })
}

/// Puts a group into a container.
pub(crate) fn set_container(kernel: &dyn Kernel, group: &File, container: &File) -> io::Result<()> {
    let mut fd = Fields::descriptor(container.as_raw_fd());
    kernel.ioctl(group, GROUP_SET_CONTAINER, (&mut fd).into()).map(drop)
}

/// What an IOMMU allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IommuInfo {
    /// One bit for each page size; 0 where the kernel does not tell.
    pub(crate) page_sizes: u64,
    /// Usable addresses, first and last; empty where the kernel does not tell (before 5.4).
    pub(crate) ranges: Vec<(u64, u64)>,
    /// Mappings that may still be made, where the kernel tells (since 5.10).
    pub(crate) mappings_left: Option<u32>,
}

/// Asks what the container's IOMMU allows.
pub(crate) fn iommu_info(kernel: &dyn Kernel, container: &File) -> io::Result<IommuInfo> {
    let mut info = Fields::sized(INFO_LEN);
    kernel.ioctl(container, IOMMU_GET_INFO, (&mut info).into())?;
    // The kernel says in `argsz` how much it would have written.
    let whole = (info.u32(0) as usize).min(MAX_INFO_LEN);
    if whole > INFO_LEN {
        info = Fields::sized(whole);
        kernel.ioctl(container, IOMMU_GET_INFO, (&mut info).into())?;
    }
    let flags = info.u32(4);
    let mut found = IommuInfo::default();
    if flags & INFO_PGSIZES != 0 {
        found.page_sizes = info.u64(8);
    }
    if flags & INFO_CAPS == 0 {
        return Ok(found);
    }
    let mut at = info.u32(INFO_CAP_OFFSET) as usize;
    for _ in 0..MAX_CAPS {
        if at < INFO_LEN || at >= info.len() {
            break;
        }
        match info.u16(at) {
            CAP_IOVA_RANGE => {
                // A count beyond the buffer reads as zeroes there and would be dropped as empty.
                let count = (info.u32(at + 8) as usize).min(info.len() / 16);
                let range = |i: usize| (info.u64(at + 16 + 16 * i), info.u64(at + 24 + 16 * i));
                found.ranges = (0..count).map(range).filter(|(first, last)| first < last).collect();
            }
            CAP_DMA_AVAIL => found.mappings_left = Some(info.u32(at + 8)),
            _ => {}
        }
        at = info.u32(at + 4) as usize;
    }
    Ok(found)
}

/// Lets devices of the container read and write a region at `iova`, and pins its pages.
pub(crate) fn map_dma(
    kernel: &dyn Kernel,
    container: &File,
    region: &Region,
    iova: u64,
) -> io::Result<()> {
    let mut map = Fields::sized(32);
    map.set_u32(4, MAP_READ_WRITE);
    map.set_u64(8, region.address());
    map.set_u64(16, iova);
    map.set_u64(24, region.len() as u64);
    kernel.ioctl(container, IOMMU_MAP_DMA, (&mut map).into()).map(drop)
}

/// Takes `len` bytes at `iova` away from the devices. Gives how many were unmapped.
pub(crate) fn unmap_dma(
    kernel: &dyn Kernel,
    container: &File,
    iova: u64,
    len: u64,
) -> io::Result<u64> {
    let mut unmap = Fields::sized(24);
    unmap.set_u64(8, iova);
    unmap.set_u64(16, len);
    kernel.ioctl(container, IOMMU_UNMAP_DMA, (&mut unmap).into())?;
    Ok(unmap.u64(16))
}
