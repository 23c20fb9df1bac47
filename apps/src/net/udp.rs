//! UDP sockets for any thread.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use barewire_stack::engine::RemoteDatagram;
use barewire_stack::{OptionName, Received, SocketOption};

use super::{Waiting, each_addr, get_timeout, set_timeout, to_io, ttl_of, ttl_option, unexpected};
use crate::runtime::Barewire;

/// A UDP socket, as [`std::net::UdpSocket`]. It is bound on every core of its instance.
pub struct UdpSocket(Arc<Bound>);

struct Bound {
    socket: RemoteDatagram,
    waiting: Waiting,
    /// Keeps the engines running while one of their sockets is open.
    _instance: Barewire,
}

impl UdpSocket {
    pub(super) fn socket(&self) -> &RemoteDatagram {
        &self.0.socket
    }

    pub(super) fn waiting(&self) -> &Waiting {
        &self.0.waiting
    }

    /// Binds to the first address that can be had, on the default instance.
    ///
    /// # Errors
    /// The error of the last address; `NotConnected` if no instance is running.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<UdpSocket> {
        UdpSocket::bind_on(&Barewire::default_instance()?, addr)
    }

    /// As [`UdpSocket::bind`], on `instance`.
    ///
    /// # Errors
    /// The error of the last address.
    pub fn bind_on<A: ToSocketAddrs>(instance: &Barewire, addr: A) -> io::Result<UdpSocket> {
        each_addr(addr, |addr| {
            let socket = instance.engines().bind_udp(addr).map_err(to_io)?;
            let (waiting, _instance) = (Waiting::default(), instance.clone());
            Ok(UdpSocket(Arc::new(Bound { socket, waiting, _instance })))
        })
    }

    /// Receives one datagram and says who sent it. What does not fit `buf` is lost.
    ///
    /// # Errors
    /// `WouldBlock` on a non-blocking socket and after the read timeout.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let received = self.0.socket.recv_from(buf, self.0.waiting.reads()).map_err(to_io)?;
        Ok((received.len, received.from))
    }

    /// As [`UdpSocket::recv_from`], and says how long the datagram was: more than what was copied
    /// if it was cut to `buf`.
    ///
    /// # Errors
    /// As there.
    pub fn recv_datagram(&self, buf: &mut [u8]) -> io::Result<Received> {
        self.0.socket.recv_from(buf, self.0.waiting.reads()).map_err(to_io)
    }

    /// As [`UdpSocket::recv_from`], but leaves the datagram for the next call.
    ///
    /// # Errors
    /// As there.
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let received = self.0.socket.peek_from(buf, self.0.waiting.reads()).map_err(to_io)?;
        Ok((received.len, received.from))
    }

    /// Sends one datagram to the first of the addresses.
    ///
    /// # Errors
    /// `InvalidInput` without an address; an error for a datagram that is too long; what ICMP
    /// answered to an earlier one.
    pub fn send_to<A: ToSocketAddrs>(&self, buf: &[u8], addr: A) -> io::Result<usize> {
        let Some(addr) = addr.to_socket_addrs()?.next() else {
            let told = "no addresses to send data to";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, told));
        };
        self.0.socket.send_to(buf, Some(addr), self.0.waiting.writes()).map_err(to_io)
    }

    /// Sets the peer: only its datagrams are received from now on, and `send` goes there.
    ///
    /// # Errors
    /// The error of the last address.
    pub fn connect<A: ToSocketAddrs>(&self, addr: A) -> io::Result<()> {
        each_addr(addr, |addr| self.0.socket.connect(addr).map_err(to_io))
    }

    /// Sends one datagram to the peer.
    ///
    /// # Errors
    /// As [`UdpSocket::send_to`], and an error if there is no peer.
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.0.socket.send_to(buf, None, self.0.waiting.writes()).map_err(to_io)
    }

    /// Receives one datagram. What does not fit `buf` is lost.
    ///
    /// # Errors
    /// As [`UdpSocket::recv_from`].
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv_from(buf).map(|(len, _)| len)
    }

    /// As [`UdpSocket::recv`], but leaves the datagram for the next call.
    ///
    /// # Errors
    /// As there.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.peek_from(buf).map(|(len, _)| len)
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// None at present; the signature is `std::net`'s.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.socket.local_addr())
    }

    /// The peer that [`UdpSocket::connect`] has set.
    ///
    /// # Errors
    /// `NotConnected` if there is none.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.socket.peer_addr().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Another handle on the same socket, with the same timeouts.
    ///
    /// # Errors
    /// None at present; the signature is `std::net`'s.
    pub fn try_clone(&self) -> io::Result<UdpSocket> {
        Ok(UdpSocket(self.0.clone()))
    }

    /// Limits how long receiving waits; it fails with `WouldBlock` after that.
    ///
    /// # Errors
    /// `InvalidInput` for a zero duration.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        set_timeout(&self.0.waiting.read_timeout, timeout)
    }

    /// Limits how long sending waits; it fails with `WouldBlock` after that.
    ///
    /// # Errors
    /// `InvalidInput` for a zero duration.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        set_timeout(&self.0.waiting.write_timeout, timeout)
    }

    /// The read timeout.
    ///
    /// # Errors
    /// None at present; the signature is `std::net`'s.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(get_timeout(&self.0.waiting.read_timeout))
    }

    /// The write timeout.
    ///
    /// # Errors
    /// None at present; the signature is `std::net`'s.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(get_timeout(&self.0.waiting.write_timeout))
    }

    /// Allows sending to broadcast addresses.
    ///
    /// # Errors
    /// When the engines have stopped.
    pub fn set_broadcast(&self, broadcast: bool) -> io::Result<()> {
        self.set_option(SocketOption::Broadcast(broadcast))
    }

    /// True if sending to broadcast addresses is allowed.
    ///
    /// # Errors
    /// When the engines have stopped.
    pub fn broadcast(&self) -> io::Result<bool> {
        match self.option(OptionName::Broadcast)? {
            SocketOption::Broadcast(broadcast) => Ok(broadcast),
            other => Err(unexpected(other)),
        }
    }

    /// Sets the time to live of its packets, 1 to 255.
    ///
    /// # Errors
    /// `InvalidInput`, and when the engines have stopped.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.set_option(ttl_option(ttl)?)
    }

    /// The time to live of its packets.
    ///
    /// # Errors
    /// When the engines have stopped.
    pub fn ttl(&self) -> io::Result<u32> {
        ttl_of(self.0.socket.option(OptionName::Ttl))
    }

    /// The error that waits (`SO_ERROR`), told once.
    ///
    /// # Errors
    /// None at present; the signature is `std::net`'s.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.0.socket.take_error().map(to_io))
    }

    /// Makes calls fail with `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// None at present; the signature is `std::net`'s.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.waiting.set_nonblocking(nonblocking);
        Ok(())
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket")
            .field("local", &self.0.socket.local_addr())
            .field("peer", &self.0.socket.peer_addr())
            .finish()
    }
}
