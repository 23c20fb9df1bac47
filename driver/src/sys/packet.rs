//! The kernel's packet sockets: whole frames of one interface, beside the kernel's own stack.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};

use super::interface::InterfaceControl;

/// A packet socket (`packet(7)`) of one interface, which never blocks.
#[derive(Debug)]
pub struct PacketSocket(File);

impl PacketSocket {
    /// Opens a socket on the interface of that name. One that `receives` gets a copy of every frame
    /// that arrives there, the kernel's stack the frame itself.
    ///
    /// # Errors
    /// What the kernel answers: that there is no such interface, or that the right is missing
    /// (`CAP_NET_RAW`).
    pub fn open(interface: &str, receives: bool) -> io::Result<PacketSocket> {
        let index = InterfaceControl::new()?.index(interface)?;
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Protocol 0: nothing is received before it is bound to the interface.
        // SAFETY: socket takes no pointer.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor and nobody else knows it.
        let socket = PacketSocket(unsafe { File::from_raw_fd(fd) });
        socket.ignore_outgoing()?;
        socket.bind(index, receives)?;
        Ok(socket)
    }

    /// Frames that leave the interface, its own among them, are no frames that arrive.
    fn ignore_outgoing(&self) -> io::Result<()> {
        let on: libc::c_int = 1;
        // SAFETY: the option is an int, and `on` is one for the length of the call.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_IGNORE_OUTGOING,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn bind(&self, index: i32, receives: bool) -> io::Result<()> {
        let protocol = if receives { libc::ETH_P_ALL as u16 } else { 0 };
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol.to_be(),
            sll_ifindex: index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: `address` is a whole sockaddr_ll of the length that is given.
        let result = unsafe { libc::bind(self.0.as_raw_fd(), (&raw const address).cast(), len) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sends a frame; false if the interface has no room for it, or it is too large for it.
    ///
    /// # Errors
    /// What else `send(2)` answers.
    pub fn send(&self, frame: &[u8]) -> io::Result<bool> {
        match (&self.0).write(frame) {
            // A frame goes whole or not at all.
            Ok(len) => Ok(len == frame.len()),
            Err(error) => match (error.kind(), error.raw_os_error()) {
                (ErrorKind::WouldBlock, _) | (_, Some(libc::ENOBUFS | libc::EMSGSIZE)) => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// The next frame that has arrived, as far as `buffer` holds it, and its length there.
    ///
    /// # Errors
    /// What `recv(2)` answers.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.0).read(buffer) {
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Frames that have arrived and found no room in the socket's buffer since this was last asked;
    /// the kernel counts to 2^32.
    ///
    /// # Errors
    /// What `getsockopt(2)` answers.
    pub fn take_dropped(&self) -> io::Result<u32> {
        let mut counts = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut len = size_of_val(&counts) as libc::socklen_t;
        // SAFETY: the kernel writes `len` bytes at most, which is the size of `counts`, and the length
        // that it has written; any bytes are valid for two integers.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut counts).cast(),
                &raw mut len,
            )
        };
        // Reading them sets them to zero (packet(7)).
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(counts.tp_drops) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_has_no_socket() {
        let error = PacketSocket::open("no-such-link", true).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
