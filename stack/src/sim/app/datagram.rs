//! Datagrams beside the connections: a chatter that sends UDP and pings, and an echo.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::client::close;
use super::{App, Context};
use crate::error::SocketError;
use crate::sim::content;
use crate::socket::{Family, SocketId, SocketKind};
use crate::stack::Event;
use crate::time::Instant;

/// The port where every host echoes datagrams (RFC 862).
pub(in crate::sim) const ECHO_PORT: u16 = 7;

/// Largest datagram that is received whole.
const LARGEST: usize = 65_535;

/// How long a chatter waits for answers after its last datagram.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends back what it gets.
#[derive(Debug, Default)]
pub(in crate::sim) struct Echo {
    socket: Option<SocketId>,
    started: bool,
}

impl Echo {
    fn start(&mut self, cx: &mut Context<'_>) -> Result<(), SocketError> {
        let socket = cx.stack.socket(SocketKind::Udp, Family::V4)?;
        cx.stack.bind(socket, SocketAddr::from((Ipv4Addr::UNSPECIFIED, ECHO_PORT)))?;
        self.socket = Some(socket);
        Ok(())
    }
}

/// Takes one datagram and checks it; `None` if there is none.
fn receive(cx: &mut Context<'_>, socket: SocketId) -> Option<SocketAddr> {
    loop {
        cx.scratch.resize(LARGEST, 0);
        match cx.stack.recv_from(socket, cx.scratch) {
            Ok(received) => {
                cx.scratch.truncate(received.len);
                if received.len != received.full_len || !cx.oracle.check_datagram(cx.scratch) {
                    cx.oracle.complain(format!("{received:?} is not whole"));
                }
                return Some(received.from);
            }
            Err(SocketError::WouldBlock) => return None,
            // What ICMP reported about an earlier one.
            Err(SocketError::ConnectionRefused | SocketError::HostUnreachable) => {}
            Err(error) => {
                cx.oracle.complain(format!("recv_from answers {error}"));
                return None;
            }
        }
    }
}

/// True if a datagram may fail to leave in this way: it is lost, as datagrams may be.
fn may_be_lost(error: SocketError) -> bool {
    use SocketError::{ConnectionRefused, HostUnreachable, NoBuffers, WouldBlock};
    matches!(error, ConnectionRefused | HostUnreachable | NoBuffers | WouldBlock)
}

impl App for Echo {
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) -> bool {
        if self.socket != Some(event.socket) {
            return false;
        }
        while let Some(from) = receive(cx, event.socket) {
            match cx.stack.send_to(event.socket, cx.scratch, Some(from)) {
                Ok(_) => {}
                Err(error) if may_be_lost(error) => {}
                Err(error) => cx.oracle.complain(format!("echo to {from}: {error}")),
            }
        }
        true
    }

    fn on_time(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.started, true)
            && let Err(error) = self.start(cx)
        {
            cx.oracle.complain(format!("no echo: {error}"));
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        (!self.started).then_some(Instant::ZERO)
    }

    fn is_done(&self) -> bool {
        true
    }

    fn retire(&mut self, cx: &mut Context<'_>) {
        if let Some(socket) = self.socket.take() {
            close(cx, socket);
        }
    }

    fn is_gone(&self) -> bool {
        self.socket.is_none()
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }
}

/// Sends datagrams or pings to other hosts and checks what comes back.
#[derive(Debug)]
pub(in crate::sim) struct Chatter {
    kind: SocketKind,
    peers: Vec<SocketAddr>,
    left: u32,
    largest: usize,
    socket: Option<SocketId>,
    next: Option<Instant>,
    over: bool,
}

impl Chatter {
    /// Sends `count` datagrams of at most `largest` bytes by `kind` to `peers`.
    pub(in crate::sim) fn new(
        kind: SocketKind,
        peers: Vec<SocketAddr>,
        count: u32,
        largest: usize,
    ) -> Chatter {
        let next = Some(Instant::ZERO);
        Chatter { kind, peers, left: count, largest, socket: None, next, over: false }
    }

    fn send(&mut self, cx: &mut Context<'_>, socket: SocketId) {
        let len = match cx.rng.below(4) {
            0 => cx.rng.below(content::ID_LEN as u64),
            1 => cx.rng.below(self.largest as u64 + 1),
            _ => cx.rng.below(1200),
        };
        let len = len as usize;
        let to = self.peers[cx.rng.below(self.peers.len() as u64) as usize];
        let id = cx.oracle.datagram(len);
        cx.scratch.resize(len, 0);
        content::fill(id, 0, cx.scratch);
        match cx.stack.send_to(socket, cx.scratch, Some(to)) {
            Ok(sent) if sent == len => {}
            Ok(sent) => cx.oracle.complain(format!("{sent} of {len} bytes sent")),
            Err(error) if may_be_lost(error) => {}
            Err(error) => cx.oracle.complain(format!("send_to {to}: {error}")),
        }
    }

    fn end(&mut self, cx: &mut Context<'_>) {
        self.over = true;
        self.next = None;
        if let Some(socket) = self.socket.take() {
            close(cx, socket);
        }
    }
}

impl App for Chatter {
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) -> bool {
        if self.socket != Some(event.socket) {
            return false;
        }
        while receive(cx, event.socket).is_some() {
            match self.kind {
                SocketKind::Ping => cx.oracle.figures.pongs += 1,
                SocketKind::Udp | SocketKind::Tcp => cx.oracle.figures.datagrams_received += 1,
            }
        }
        true
    }

    fn on_time(&mut self, cx: &mut Context<'_>) {
        if self.over || self.next.is_none_or(|at| at > cx.now) {
            return;
        }
        let socket = match self.socket {
            Some(socket) => socket,
            None => match cx.stack.socket(self.kind, Family::V4) {
                Ok(socket) => *self.socket.insert(socket),
                Err(error) => return cx.oracle.complain(format!("socket: {error}")),
            },
        };
        if self.left == 0 {
            return self.end(cx);
        }
        self.left -= 1;
        self.send(cx, socket);
        let pause =
            if self.left == 0 { PATIENCE } else { Duration::from_micros(cx.rng.below(300_000)) };
        self.next = Some(cx.now + pause);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.next
    }

    fn is_done(&self) -> bool {
        self.over
    }

    fn retire(&mut self, cx: &mut Context<'_>) {
        self.end(cx);
    }

    fn is_gone(&self) -> bool {
        self.socket.is_none()
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }
}
