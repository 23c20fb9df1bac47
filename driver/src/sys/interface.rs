//! The kernel's network interfaces: asking and configuring them by name.

use std::ffi::CStr;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Most bytes in an interface's name (`IFNAMSIZ` less its NUL).
pub const MAX_INTERFACE_NAME: usize = libc::IFNAMSIZ - 1;

/// An `ifreq` for interface `name`, its union zeroed.
pub(super) fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_INTERFACE_NAME || bytes.contains(&0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: an ifreq is integers and a union of integers and a pointer, for all of which zero is
    // a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok(request)
}

/// A socket through which interfaces of one network namespace are asked and configured: that of
/// the thread that makes it, whichever thread uses it.
#[derive(Debug)]
pub struct InterfaceControl(OwnedFd);

impl InterfaceControl {
    /// Opens the socket.
    ///
    /// # Errors
    /// What `socket(2)` answers.
    pub fn new() -> io::Result<InterfaceControl> {
        // SAFETY: socket takes no pointer.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor and nobody else knows it.
        Ok(InterfaceControl(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn call(&self, code: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: every SIOC[GS]IF* request that this module makes reads and writes one ifreq.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), code as libc::Ioctl, request) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// True if there is an interface of that name.
    ///
    /// # Errors
    /// What the kernel answers, other than that there is none.
    pub fn exists(&self, name: &str) -> io::Result<bool> {
        match self.call(libc::SIOCGIFINDEX, &mut interface_request(name)?) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The number by which the kernel knows the interface.
    pub(super) fn index(&self, name: &str) -> io::Result<libc::c_int> {
        let mut request = interface_request(name)?;
        self.call(libc::SIOCGIFINDEX, &mut request)?;
        // SAFETY: SIOCGIFINDEX has filled in this member, and any bits are a value of it.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex })
    }

    fn flags(&self, name: &str) -> io::Result<libc::c_short> {
        let mut request = interface_request(name)?;
        self.call(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: SIOCGIFFLAGS has filled in this member, and any bits are a value of it.
        Ok(unsafe { request.ifr_ifru.ifru_flags })
    }

    /// True if the interface has been brought up.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn is_up(&self, name: &str) -> io::Result<bool> {
        Ok(i32::from(self.flags(name)?) & libc::IFF_UP != 0)
    }

    /// True if the interface is up and has its carrier, so that the kernel sends through it.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn is_running(&self, name: &str) -> io::Result<bool> {
        let wanted = libc::IFF_UP | libc::IFF_RUNNING;
        Ok(i32::from(self.flags(name)?) & wanted == wanted)
    }

    /// Brings the interface up or takes it down.
    ///
    /// # Errors
    /// What the kernel answers; `PermissionDenied` without `CAP_NET_ADMIN`.
    pub fn set_up(&self, name: &str, up: bool) -> io::Result<()> {
        let flags = i32::from(self.flags(name)?);
        let flags = if up { flags | libc::IFF_UP } else { flags & !libc::IFF_UP };
        let mut request = interface_request(name)?;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        self.call(libc::SIOCSIFFLAGS, &mut request)
    }

    /// The interface's MTU in bytes.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn mtu(&self, name: &str) -> io::Result<u32> {
        let mut request = interface_request(name)?;
        self.call(libc::SIOCGIFMTU, &mut request)?;
        // SAFETY: SIOCGIFMTU has filled in this member, and any bits are a value of it.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        Ok(u32::try_from(mtu).unwrap_or(0))
    }

    /// Sets the interface's MTU in bytes.
    ///
    /// # Errors
    /// What the kernel answers; `PermissionDenied` without `CAP_NET_ADMIN`.
    pub fn set_mtu(&self, name: &str, mtu: u32) -> io::Result<()> {
        let mut request = interface_request(name)?;
        request.ifr_ifru.ifru_mtu =
            i32::try_from(mtu).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.call(libc::SIOCSIFMTU, &mut request)
    }

    /// The Ethernet address of the kernel's side.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn hardware_address(&self, name: &str) -> io::Result<[u8; 6]> {
        let mut request = interface_request(name)?;
        self.call(libc::SIOCGIFHWADDR, &mut request)?;
        // SAFETY: SIOCGIFHWADDR has filled in this member, and any bits are a value of it.
        let data = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
        Ok(std::array::from_fn(|i| data[i] as u8))
    }

    /// Gives the interface an IPv4 address, in place of the one it may have had.
    ///
    /// # Errors
    /// What the kernel answers; `PermissionDenied` without `CAP_NET_ADMIN`.
    pub fn set_address(&self, name: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()> {
        let mut request = interface_request(name)?;
        request.ifr_ifru.ifru_addr = socket_address(address);
        self.call(libc::SIOCSIFADDR, &mut request)?;
        request.ifr_ifru.ifru_netmask = socket_address(netmask(prefix_len));
        self.call(libc::SIOCSIFNETMASK, &mut request)
    }
}

/// The netmask of a prefix length; lengths over 32 count as 32.
pub fn netmask(prefix_len: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(prefix_len.min(32))).unwrap_or(0))
}

/// A `sockaddr` that holds a `sockaddr_in`: family, port 0, address in network order.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

/// The IPv4 addresses of interface `name` with their prefix lengths, in the network namespace of
/// the calling thread.
///
/// # Errors
/// What `getifaddrs(3)` answers.
pub fn interface_addresses(name: &str) -> io::Result<Vec<(Ipv4Addr, u8)>> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `list` is a valid place for the pointer that the call stores.
    if unsafe { libc::getifaddrs(&mut list) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: the list that getifaddrs made ends with a null pointer and stays as it is until it is
    // freed below.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        // SAFETY: getifaddrs sets every name to a NUL-terminated string that lives in the list.
        let entry_name = unsafe { CStr::from_ptr(entry.ifa_name) };
        if entry_name.to_bytes() != name.as_bytes() {
            continue;
        }
        // SAFETY: address and netmask are null or point to socket addresses of the family that
        // they name, in the list.
        let (address, mask) = unsafe { (ipv4_of(entry.ifa_addr), ipv4_of(entry.ifa_netmask)) };
        if let (Some(address), Some(mask)) = (address, mask) {
            found.push((address, mask.to_bits().count_ones() as u8));
        }
    }
    // SAFETY: `list` came from getifaddrs, nothing borrowed from it is alive, and it is freed once.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

/// The address in a socket address of family `AF_INET`.
///
/// # Safety
/// `address` is null or points to a socket address as large as its family says.
unsafe fn ipv4_of(address: *const libc::sockaddr) -> Option<Ipv4Addr> {
    // SAFETY: by the caller's promise.
    let family = i32::from(unsafe { address.as_ref() }?.sa_family);
    if family != libc::AF_INET {
        return None;
    }
    // SAFETY: an address of this family is a sockaddr_in; the read needs no alignment.
    let address = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
    Some(Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr)))
}

/// Moves the calling thread into a network namespace of its own, empty but for a loopback
/// interface that is down. Threads and processes that it starts inherit it.
///
/// # Errors
/// `PermissionDenied` without `CAP_SYS_ADMIN`.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: unshare takes no pointer; other threads keep their namespace.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_seen_as_it_is() {
        let control = InterfaceControl::new().unwrap();
        assert!(control.exists("lo").unwrap());
        assert!(!control.exists("no-such-link").unwrap());
        assert!(control.mtu("lo").unwrap() > 0);
        assert_eq!(control.hardware_address("lo").unwrap(), [0; 6]);
        if control.is_up("lo").unwrap() {
            assert!(interface_addresses("lo").unwrap().contains(&(Ipv4Addr::LOCALHOST, 8)));
        }
        assert_eq!(interface_addresses("no-such-link").unwrap(), []);
    }

    #[test]
    fn impossible_names_are_refused_before_the_kernel_sees_them() {
        let control = InterfaceControl::new().unwrap();
        for name in ["", "sixteen-bytes-xx", "nul\0"] {
            let error = control.exists(name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }

    #[test]
    fn netmasks_of_all_lengths() {
        for len in 0..=32u8 {
            assert_eq!(netmask(len).to_bits().leading_ones(), u32::from(len));
            assert_eq!(netmask(len).to_bits().count_ones(), u32::from(len));
        }
    }
}
