//! `/dev/net/tun`: attaching to a tap interface and setting its offloads.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use bitflags::bitflags;

use super::interface::interface_request;

/// The device node that makes tap interfaces.
pub const TUN_PATH: &str = "/dev/net/tun";

bitflags! {
    /// How to attach to a tap interface, and what the kernel may leave undone on its frames.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TunFlags: u32 {
        /// Several queues, each with its own descriptor (`IFF_MULTI_QUEUE`).
        const MULTI_QUEUE = 1 << 0;
        /// A `virtio_net_hdr` before every frame (`IFF_VNET_HDR`).
        const VNET_HDR = 1 << 1;
        /// The kernel may give frames without a transport checksum (`TUN_F_CSUM`).
        const CHECKSUM = 1 << 2;
        /// The kernel may give TCP segments larger than the MTU (`TUN_F_TSO4`, `6`, `_ECN`).
        const LARGE = 1 << 3;
    }
}

/// Opens the device node, non-blocking. The descriptor belongs to no interface yet.
///
/// # Errors
/// What `open(2)` answers.
pub fn open_tun() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(TUN_PATH)
}

/// Attaches a descriptor of [`open_tun`] to tap interface `name`, which is made if there is none;
/// made so, it vanishes with its last descriptor. The interface is looked for in the network
/// namespace of the thread that opened the descriptor.
///
/// # Errors
/// What `TUNSETIFF` answers, and `InvalidInput` for a name that no interface can have.
pub fn tun_attach(file: &File, name: &str, flags: TunFlags) -> io::Result<()> {
    let mut bits = libc::IFF_TAP | libc::IFF_NO_PI;
    if flags.contains(TunFlags::MULTI_QUEUE) {
        bits |= libc::IFF_MULTI_QUEUE;
    }
    if flags.contains(TunFlags::VNET_HDR) {
        bits |= libc::IFF_VNET_HDR;
    }
    let mut request = interface_request(name)?;
    request.ifr_ifru.ifru_flags = bits as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) };
    answer(result)
}

/// Sets the length of the `virtio_net_hdr` before every frame.
///
/// # Errors
/// What `TUNSETVNETHDRSZ` answers.
pub fn tun_set_header_len(file: &File, len: usize) -> io::Result<()> {
    let len = i32::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: TUNSETVNETHDRSZ reads one int, which `len` is.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &len) };
    answer(result)
}

/// Sets what the kernel may leave undone on frames that it gives to us: for the whole interface,
/// not for one queue.
///
/// # Errors
/// What `TUNSETOFFLOAD` answers.
pub fn tun_set_offload(file: &File, flags: TunFlags) -> io::Result<()> {
    let mut bits = 0;
    if flags.contains(TunFlags::CHECKSUM) {
        bits |= libc::TUN_F_CSUM;
    }
    if flags.contains(TunFlags::LARGE) {
        bits |= libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    }
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    let result =
        unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(bits)) };
    answer(result)
}

fn answer(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
