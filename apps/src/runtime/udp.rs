//! UDP on the engine's own core.

use std::io;
use std::net::SocketAddr;

use barewire_stack::engine::Direction;
use barewire_stack::{OptionName, SocketId, SocketKind, SocketOption, Stack};

use super::core::{Core, Handle};
use crate::net::to_io;

/// A UDP socket of one core.
#[derive(Debug)]
pub struct AsyncUdpSocket {
    socket: Handle,
    local: SocketAddr,
}

impl AsyncUdpSocket {
    /// Binds to `addr` on `core`; see [`Core::udp_bind`].
    ///
    /// # Errors
    /// As a socket's `bind`.
    pub fn bind(core: &Core, addr: SocketAddr) -> io::Result<AsyncUdpSocket> {
        let socket = core.open(SocketKind::Udp, addr.ip())?;
        let id = socket.id;
        let bind = |stack: &mut Stack| {
            core.share_port(stack, id)?;
            stack.bind(id, addr)?;
            stack.local_addr(id)
        };
        let local = core.with_stack(bind).map_err(to_io)?;
        Ok(AsyncUdpSocket { socket, local })
    }

    /// Receives one datagram and says who sent it. What does not fit `buf` is lost.
    ///
    /// # Errors
    /// What ICMP answered to an earlier datagram, if the socket is connected.
    pub async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (core, id) = (&self.socket.core, self.socket.id);
        let receive = |stack: &mut Stack| stack.recv_from(id, buf);
        let received = core.ready(id, Direction::Read, receive).await.map_err(to_io)?;
        Ok((received.len, received.from))
    }

    /// Sends one datagram to `to`.
    ///
    /// # Errors
    /// For a datagram that is too long; what ICMP answered to an earlier one.
    pub async fn send_to(&self, buf: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.send_one(buf, Some(to)).await
    }

    /// Sends one datagram to the peer that [`AsyncUdpSocket::connect`] has set.
    ///
    /// # Errors
    /// As [`AsyncUdpSocket::send_to`], and if there is no peer.
    pub async fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.send_one(buf, None).await
    }

    async fn send_one(&self, buf: &[u8], to: Option<SocketAddr>) -> io::Result<usize> {
        let (core, id) = (&self.socket.core, self.socket.id);
        let send = |stack: &mut Stack| stack.send_to(id, buf, to);
        core.ready(id, Direction::Write, send).await.map_err(to_io)
    }

    /// Receives one datagram.
    ///
    /// # Errors
    /// As [`AsyncUdpSocket::recv_from`].
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv_from(buf).await.map(|(len, _)| len)
    }

    /// Sets the peer: only its datagrams are received from now on.
    ///
    /// # Errors
    /// `NetworkUnreachable` and the like.
    pub fn connect(&self, to: SocketAddr) -> io::Result<()> {
        self.socket.core.with_stack(|stack| stack.connect(self.id(), to)).map_err(to_io)
    }

    /// The address that it is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Its handle in the core's stack, for calls that have no method here.
    pub fn id(&self) -> SocketId {
        self.socket.id
    }

    /// Sets an option.
    ///
    /// # Errors
    /// What the stack answers.
    pub fn set_option(&self, option: SocketOption) -> io::Result<()> {
        self.socket.core.with_stack(|stack| stack.set_option(self.id(), option)).map_err(to_io)
    }

    /// The value of an option.
    ///
    /// # Errors
    /// What the stack answers.
    pub fn option(&self, name: OptionName) -> io::Result<SocketOption> {
        self.socket.core.with_stack(|stack| stack.option(self.id(), name)).map_err(to_io)
    }
}
