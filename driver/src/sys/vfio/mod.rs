//! VFIO and iommufd: the kernel's calls with typed arguments, and the few places where they meet
//! the real kernel.
//!
//! ```text
//!   vfio (module)  ──▶ container · group · device · iommufd   one function a request
//!                            └─▶ Kernel ──┬─▶ Linux   open, ioctl, mmap
//!                                         └─▶ fake    a kernel for tests that checks every argument
//! ```
//!
//! A request's structure is laid out by offset in a byte buffer ([`Fields`]), as a packet header is:
//! several end in arrays or capability chains, and a buffer of exactly `argsz` bytes is what the
//! kernel checks. Offsets and request numbers are those of `include/uapi/linux/vfio.h` and
//! `iommufd.h`.

mod device;
#[cfg(test)]
pub(crate) mod fake;
mod fields;
mod iommufd;
mod type1;

pub(crate) use device::{
    Interrupt, REGION_BAR0, REGION_CONFIG, device_info, device_reset, disable_interrupts,
    interrupt_count, interrupts_to_eventfds, region_info,
};
pub(crate) use fields::Argument;
pub(crate) use iommufd::{attach, bind, create_address_space, iova_ranges, map, unmap};
pub(crate) use type1::{
    IommuKind, api_version, group_status, iommu_info, map_dma, set_container, set_iommu, supports,
    unmap_dma,
};

use std::ffi::CStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;

use memmap2::{MmapOptions, MmapRaw};

use fields::Form;

/// `_IO(';', number)`: neither direction nor size is coded in VFIO's and iommufd's requests.
const fn request(number: u32) -> u32 {
    (b';' as u32) << 8 | number
}

/// `VFIO_GROUP_GET_DEVICE_FD`.
const GROUP_GET_DEVICE_FD: u32 = request(106);

/// What VFIO needs of an operating system.
pub(crate) trait Kernel: Send + Sync + fmt::Debug {
    /// Opens a device node (or `pagemap`) for reading and, if `write`, for writing.
    fn open(&self, path: &Path, write: bool) -> io::Result<File>;
    /// Makes a request of a descriptor; gives its non-negative answer.
    fn ioctl(&self, file: &File, request: u32, argument: Argument<'_>) -> io::Result<u32>;
    /// The descriptor of the device `name` in a group.
    fn device_of_group(&self, group: &File, name: &CStr) -> io::Result<File>;
    /// Maps a part of a device's descriptor, shared, for reading and writing.
    fn mmap(&self, file: &File, offset: u64, len: usize) -> io::Result<MmapRaw> {
        MmapOptions::new().offset(offset).len(len).map_raw(file)
    }
}

/// The kernel that this process runs on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linux;

impl Kernel for Linux {
    fn open(&self, path: &Path, write: bool) -> io::Result<File> {
        File::options().read(true).write(write).open(path)
    }

    fn ioctl(&self, file: &File, request: u32, argument: Argument<'_>) -> io::Result<u32> {
        let argument = match argument.0 {
            Form::None => 0,
            Form::Value(value) => value as usize,
            Form::Fields(fields) => fields.as_mut_ptr() as usize,
        };
        // SAFETY: only this module makes an `Argument` (its field is private to it), and each of
        // its functions pairs a request with the argument that the request takes: a plain value,
        // or a buffer that is as long as the structure and as its own `argsz` says, exclusively
        // borrowed over the call. A structure that names memory names an array that its function
        // owns, or a `Region`, to which no Rust reference is formed without its owner's leave and
        // which the mapping's owner keeps alive for as long as a device reaches it.
        let answer = unsafe {
            libc::ioctl(file.as_raw_fd(), libc::c_ulong::from(request) as libc::Ioctl, argument)
        };
        u32::try_from(answer).map_err(|_| io::Error::last_os_error())
    }

    fn device_of_group(&self, group: &File, name: &CStr) -> io::Result<File> {
        let request = libc::c_ulong::from(GROUP_GET_DEVICE_FD) as libc::Ioctl;
        // SAFETY: VFIO_GROUP_GET_DEVICE_FD reads a NUL-terminated string, which `name` is.
        let fd = unsafe { libc::ioctl(group.as_raw_fd(), request, name.as_ptr()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor and nobody else knows it.
        Ok(unsafe { File::from_raw_fd(fd) })
    }
}
