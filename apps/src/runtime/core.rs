//! [`Core`]: an engine as its handlers see it, with sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::time::Duration;

use barewire_stack::engine::{self, Direction};
use barewire_stack::{Family, SocketError, SocketId, SocketKind, SocketOption, Stack};

use super::tcp::{AsyncTcpListener, AsyncTcpStream};
use super::udp::AsyncUdpSocket;
use crate::net::to_io;

/// The engine that the calling handler runs on. It derefs to [`engine::Core`], which has tasks,
/// timers and the stack itself: `spawn`, `sleep`, `timeout`, `stopping`, `pool`, `with_stack`.
#[derive(Clone, Debug)]
pub struct Core(engine::Core);

impl Deref for Core {
    type Target = engine::Core;
    fn deref(&self) -> &engine::Core {
        &self.0
    }
}

/// Closes its socket when it is dropped: gracefully, or with a reset while its task is dropped
/// because of a panic.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) core: Core,
    pub(super) id: SocketId,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.forget(self.id);
        let failing = self.core.is_failing();
        // A socket that has gone already needs no closing.
        let _ = self
            .core
            .with_stack(|stack| if failing { stack.abort(self.id) } else { stack.close(self.id) });
    }
}

impl Core {
    pub(super) fn new(core: engine::Core) -> Core {
        Core(core)
    }

    /// Makes a socket that closes itself.
    pub(super) fn open(&self, kind: SocketKind, addr: IpAddr) -> io::Result<Handle> {
        let family = match addr {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        };
        let id = self.with_stack(|stack| stack.socket(kind, family)).map_err(to_io)?;
        Ok(Handle { core: self.clone(), id })
    }

    /// Lets the same port be taken on every core: a listener of each is one server.
    pub(super) fn share_port(&self, stack: &mut Stack, id: SocketId) -> Result<(), SocketError> {
        if self.engines() > 1 {
            stack.set_option(id, SocketOption::ReusePort(true))?;
        }
        Ok(())
    }

    /// Listens on `addr` on this core, with room for `backlog` connections that wait for `accept`.
    /// With several cores each has to listen; a connection goes to the core that owns its flow.
    ///
    /// # Errors
    /// As a socket's `bind` and `listen`.
    pub fn tcp_listen(&self, addr: SocketAddr, backlog: usize) -> io::Result<AsyncTcpListener> {
        AsyncTcpListener::bind(self, addr, backlog)
    }

    /// Connects to `addr`. The connection's packets come back to this core.
    ///
    /// # Errors
    /// As a socket's `connect`.
    pub async fn tcp_connect(&self, addr: SocketAddr) -> io::Result<AsyncTcpStream> {
        AsyncTcpStream::connect(self, addr).await
    }

    /// Binds a UDP socket on this core. With several cores each has to bind it; a datagram goes to
    /// the core that owns its flow.
    ///
    /// # Errors
    /// As a socket's `bind`.
    pub fn udp_bind(&self, addr: SocketAddr) -> io::Result<AsyncUdpSocket> {
        AsyncUdpSocket::bind(self, addr)
    }

    /// Sends an ICMP echo request with `size` bytes of payload and gives the time until it was
    /// answered.
    ///
    /// # Errors
    /// `TimedOut`; what ICMP or the neighbour's silence say about the way there.
    pub async fn ping(&self, addr: IpAddr, size: usize, timeout: Duration) -> io::Result<Duration> {
        let socket = self.open(SocketKind::Ping, addr)?;
        let payload: Vec<u8> = (0..size).map(|i| i as u8).collect();
        let begin = std::time::Instant::now();
        let to = SocketAddr::new(addr, 0);
        let exchange = async {
            let send = |stack: &mut Stack| stack.send_to(socket.id, &payload, Some(to));
            self.ready(socket.id, Direction::Write, send).await?;
            let mut answer = vec![0; size];
            loop {
                let receive = |stack: &mut Stack| stack.recv_from(socket.id, &mut answer);
                let received = self.ready(socket.id, Direction::Read, receive).await?;
                if received.full_len == size && answer == payload && received.from.ip() == addr {
                    return Ok(begin.elapsed());
                }
            }
        };
        self.timeout(timeout, exchange).await?.map_err(to_io)
    }
}
