//! A client: many connections, some at once, to servers of the other hosts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::endpoint::{Endpoint, Habits};
use super::{App, Context};
use crate::error::SocketError;
use crate::sim::oracle::Party;
use crate::socket::{Family, SocketId, SocketKind, SocketOption};
use crate::stack::Event;
use crate::tcp::Readiness;
use crate::time::Instant;

/// How a client behaves.
#[derive(Clone, Debug)]
pub(in crate::sim) struct ClientPlan {
    /// Where it connects to, at random.
    pub(in crate::sim) servers: Vec<SocketAddr>,
    /// Connections in all.
    pub(in crate::sim) connections: u32,
    /// Connections at once.
    pub(in crate::sim) parallel: usize,
    /// Most bytes that it writes on one connection.
    pub(in crate::sim) bytes: u64,
    /// Longest pause between two connects.
    pub(in crate::sim) pause: Duration,
    /// Aborts and leaves early at times.
    pub(in crate::sim) rude: bool,
    /// Asks for small buffers, small segments and other options at times.
    pub(in crate::sim) options: bool,
}

#[derive(Debug)]
enum Conn {
    Opening(Party),
    Open(Endpoint),
}

/// A client.
#[derive(Debug)]
pub(in crate::sim) struct Client {
    plan: ClientPlan,
    conns: BTreeMap<SocketId, Conn>,
    left: u32,
    next_connect: Option<Instant>,
}

impl Client {
    pub(in crate::sim) fn new(plan: ClientPlan) -> Client {
        let left = plan.connections;
        Client { plan, conns: BTreeMap::new(), left, next_connect: Some(Instant::ZERO) }
    }

    fn connect(&mut self, cx: &mut Context<'_>) {
        let pause = cx.rng.below(self.plan.pause.as_nanos() as u64 + 1);
        self.next_connect = Some(cx.now + Duration::from_nanos(pause));
        let server = self.plan.servers[cx.rng.below(self.plan.servers.len() as u64) as usize];
        let socket = match cx.stack.socket(SocketKind::Tcp, Family::V4) {
            Ok(socket) => socket,
            // Others may give sockets back.
            Err(SocketError::TooManySockets) => return self.later(cx),
            Err(error) => return cx.oracle.complain(format!("socket: {error}")),
        };
        if self.plan.options {
            set_options(cx, socket, self.plan.bytes);
        }
        match cx.stack.connect(socket, server) {
            Err(SocketError::InProgress) => {
                self.left -= 1;
                if let Some(party) = Endpoint::register(cx, socket, server) {
                    self.conns.insert(socket, Conn::Opening(party));
                }
            }
            // The SYN waits for the first write.
            Ok(()) => {
                self.left -= 1;
                if let Some(party) = Endpoint::register(cx, socket, server) {
                    cx.oracle.opens_with_data(party);
                    self.opened(cx, socket, party, Readiness::WRITABLE);
                }
            }
            other => {
                // All ports to this server are in TIME-WAIT: some will be free again.
                if other != Err(SocketError::AddrNotAvailable) {
                    cx.oracle.complain(format!("connect answers {other:?}"));
                }
                close(cx, socket);
                self.later(cx);
            }
        }
    }

    fn later(&mut self, cx: &Context<'_>) {
        self.next_connect = Some(cx.now + Duration::from_secs(5));
    }

    /// The handshake has ended, one way or the other, or not yet.
    fn opened(&mut self, cx: &mut Context<'_>, socket: SocketId, party: Party, ready: Readiness) {
        match cx.stack.take_error(socket) {
            Ok(Some(error)) => {
                cx.oracle.connect_failed(party, error);
                close(cx, socket);
                self.conns.remove(&socket);
            }
            Ok(None) if ready.contains(Readiness::WRITABLE) => {
                let bytes = cx.rng.below(self.plan.bytes + 1);
                let habits = Habits::draw(cx.rng, Some(bytes), self.plan.rude);
                let mut endpoint = Endpoint::new(cx, socket, party, habits);
                endpoint.drive(cx);
                self.keep(socket, endpoint);
            }
            Ok(None) => {}
            Err(error) => cx.oracle.complain(format!("{socket:?}: {error}")),
        }
    }

    fn keep(&mut self, socket: SocketId, endpoint: Endpoint) {
        if endpoint.is_over() {
            self.conns.remove(&socket);
        } else {
            self.conns.insert(socket, Conn::Open(endpoint));
        }
    }

    fn wants_connect(&self) -> bool {
        self.left > 0 && self.conns.len() < self.plan.parallel
    }
}

/// Options that change how a connection behaves, at random. It writes up to `bytes`: more than a few
/// go in no segments of 64 bytes, which is what a SYN cookie makes of a peer's MSS below 216.
fn set_options(cx: &mut Context<'_>, socket: SocketId, bytes: u64) {
    let mut options = Vec::new();
    if cx.rng.chance(0.5) {
        options.push(SocketOption::NoDelay(true));
    }
    if cx.rng.chance(0.2) {
        options.push(SocketOption::QuickAck(true));
    }
    if cx.rng.chance(0.3) {
        options.push(SocketOption::FastOpenConnect(true));
    }
    if cx.rng.chance(0.3) {
        let least = if bytes < 4_000 { 88 } else { 220 };
        options.push(SocketOption::MaxSeg((least + cx.rng.below(1488 - least)) as u16));
    }
    if cx.rng.chance(0.3) {
        options.push(SocketOption::SendBuffer(2048 << cx.rng.below(8)));
    }
    if cx.rng.chance(0.3) {
        options.push(SocketOption::RecvBuffer(2048 << cx.rng.below(8)));
    }
    for option in options {
        if let Err(error) = cx.stack.set_option(socket, option) {
            cx.oracle.complain(format!("{option:?}: {error}"));
        }
    }
}

pub(super) fn close(cx: &mut Context<'_>, socket: SocketId) {
    if let Err(error) = cx.stack.close(socket) {
        cx.oracle.complain(format!("{socket:?} cannot be closed: {error}"));
    }
}

impl App for Client {
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) -> bool {
        let Event { socket, ready } = event;
        if cx.enough {
            self.left = 0;
        }
        match self.conns.remove(&socket) {
            None => return false,
            Some(Conn::Opening(party)) => {
                self.conns.insert(socket, Conn::Opening(party));
                self.opened(cx, socket, party, ready);
            }
            Some(Conn::Open(mut endpoint)) => {
                endpoint.on_event(cx, ready);
                self.keep(socket, endpoint);
            }
        }
        true
    }

    fn on_time(&mut self, cx: &mut Context<'_>) {
        if cx.enough {
            self.left = 0;
        }
        while self.wants_connect() && self.next_connect.is_some_and(|at| at <= cx.now) {
            self.connect(cx);
            if self.next_connect == Some(cx.now) {
                break;
            }
        }
        let due = |conn: &Conn| match conn {
            Conn::Opening(_) => false,
            Conn::Open(endpoint) => endpoint.wake_at().is_some_and(|at| at <= cx.now),
        };
        let due: Vec<_> = self.conns.iter().filter(|(_, c)| due(c)).map(|(&id, _)| id).collect();
        for socket in due {
            if let Some(Conn::Open(mut endpoint)) = self.conns.remove(&socket) {
                endpoint.drive(cx);
                self.keep(socket, endpoint);
            }
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let connect = self.next_connect.filter(|_| self.wants_connect());
        let conns = self.conns.values().filter_map(|conn| match conn {
            Conn::Opening(_) => None,
            Conn::Open(endpoint) => endpoint.wake_at(),
        });
        conns.chain(connect).min()
    }

    fn is_done(&self) -> bool {
        self.left == 0 && self.conns.is_empty()
    }

    fn retire(&mut self, _: &mut Context<'_>) {
        self.left = 0;
    }

    fn is_gone(&self) -> bool {
        self.conns.is_empty()
    }

    fn describe(&self) -> String {
        format!("client, {} to connect, {:?}", self.left, self.conns)
    }
}
