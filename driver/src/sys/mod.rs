//! The safe layer over the operating system: the only callers of libc in the project.
//!
//! | module | what it wraps |
//! | --- | --- |
//! | `memory` | page sizes, `memfd_create` |
//! | `file` | `openat2` beneath a directory, for file servers |
//! | `fd` | `readv`, `writev`, `preadv` over packet buffers, `eventfd`, `ppoll` |
//! | `fence` | the order of memory accesses that a device sees |
//! | `tun` | `/dev/net/tun` and its ioctls |
//! | `interface` | names, flags, MTU, addresses of the kernel's interfaces; network namespaces |
//! | `packet` | packet sockets: whole frames of one of the kernel's interfaces |
//! | `vfio` | containers, groups, device descriptors, iommufd |
//! | `thread` | processor affinity |
//! | `clock` | the monotonic clock, and one that tests turn by hand |
//! | `rights` | effective user, capabilities, the kernel's random numbers |
//!
//! Everything here is safe to call, checks what the kernel answers, and returns `io::Error`.

mod clock;
mod fd;
mod fence;
mod file;
mod interface;
mod memory;
mod packet;
mod rights;
mod thread;
mod tun;
pub(crate) mod vfio;

pub use clock::{Clock, ClockHand};
pub use fd::{
    EventFd, MAX_IOVECS, MAX_POLL_FDS, WaitSet, drain_eventfd, poll_readable, read_at_into, readv,
    writev,
};
pub(crate) use fence::{fence_loads_from_device, fence_stores_for_device};
pub use file::{may_read_and_write, open_beneath, out_of_descriptors};
pub use interface::{
    InterfaceControl, MAX_INTERFACE_NAME, interface_addresses, netmask, unshare_network,
};
pub use memory::{hugepage_size, memfd, page_size};
pub use packet::PacketSocket;
pub use rights::{effective_uid, has_net_admin, random_u128};
pub use thread::{allowed_cores, pin_to_core};
pub use tun::{TUN_PATH, TunFlags, open_tun, tun_attach, tun_set_header_len, tun_set_offload};

/// Error numbers that tell one refusal of the kernel from another where [`std::io::ErrorKind`] does
/// not.
pub mod errno {
    pub use libc::{
        E2BIG, EACCES, EAGAIN, EBADFD, EBUSY, EINVAL, EMFILE, ENODEV, ENOENT, ENOMEM, ENXIO, EPERM,
    };
}
