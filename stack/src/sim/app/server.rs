//! A server: accepts, and is a sink, a source or an echo to each connection.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::client::close;
use super::endpoint::{Endpoint, Habits};
use super::{App, Context};
use crate::error::SocketError;
use crate::socket::{Family, SocketId, SocketKind, SocketOption};
use crate::stack::Event;
use crate::time::Instant;

/// How a server behaves.
#[derive(Clone, Debug)]
pub(in crate::sim) struct ServerPlan {
    /// Where it listens.
    pub(in crate::sim) port: u16,
    /// Its backlog.
    pub(in crate::sim) backlog: usize,
    /// Most bytes that it writes on one connection as a source.
    pub(in crate::sim) bytes: u64,
    /// The longest time that it takes before it accepts.
    pub(in crate::sim) accept_delay: Duration,
    /// Aborts and leaves early at times.
    pub(in crate::sim) rude: bool,
    /// The receive buffer of its connections, if not the default.
    pub(in crate::sim) recv_buffer: Option<u32>,
}

/// A server.
#[derive(Debug)]
pub(in crate::sim) struct Server {
    plan: ServerPlan,
    listener: Option<SocketId>,
    conns: BTreeMap<SocketId, Endpoint>,
    accept_at: Option<Instant>,
    started: bool,
}

impl Server {
    pub(in crate::sim) fn new(plan: ServerPlan) -> Server {
        Server { plan, listener: None, conns: BTreeMap::new(), accept_at: None, started: false }
    }

    fn start(&mut self, cx: &mut Context<'_>) -> Result<(), SocketError> {
        let socket = cx.stack.socket(SocketKind::Tcp, Family::V4)?;
        if let Some(bytes) = self.plan.recv_buffer {
            cx.stack.set_option(socket, SocketOption::RecvBuffer(bytes))?;
        }
        cx.stack.set_option(socket, SocketOption::NoDelay(cx.rng.chance(0.5)))?;
        cx.stack.bind(socket, SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.plan.port)))?;
        cx.stack.listen(socket, self.plan.backlog)?;
        self.listener = Some(socket);
        Ok(())
    }

    /// Accepts one connection. The next one has its time, too.
    fn accept(&mut self, cx: &mut Context<'_>) {
        self.accept_at = None;
        let Some(listener) = self.listener else { return };
        match cx.stack.accept(listener) {
            Ok((socket, remote)) => {
                let bytes = match cx.rng.below(3) {
                    0 => Some(0),
                    1 => Some(cx.rng.below(self.plan.bytes + 1)),
                    _ => None,
                };
                let habits = Habits::draw(cx.rng, bytes, self.plan.rude);
                if let Some(party) = Endpoint::register(cx, socket, remote) {
                    let mut endpoint = Endpoint::new(cx, socket, party, habits);
                    endpoint.drive(cx);
                    self.keep(socket, endpoint);
                }
                self.accept_soon(cx);
            }
            Err(SocketError::WouldBlock) => {}
            Err(SocketError::ConnectionAborted) => self.accept_soon(cx),
            Err(error) => cx.oracle.complain(format!("accept answers {error}")),
        }
    }

    fn accept_soon(&mut self, cx: &mut Context<'_>) {
        let delay = cx.rng.below(self.plan.accept_delay.as_nanos() as u64 + 1);
        self.accept_at = Some(cx.now + Duration::from_nanos(delay));
    }

    fn keep(&mut self, socket: SocketId, endpoint: Endpoint) {
        if !endpoint.is_over() {
            self.conns.insert(socket, endpoint);
        }
    }
}

impl App for Server {
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) -> bool {
        if self.listener == Some(event.socket) {
            if self.accept_at.is_none() {
                self.accept_soon(cx);
            }
            return true;
        }
        let Some(mut endpoint) = self.conns.remove(&event.socket) else { return false };
        endpoint.on_event(cx, event.ready);
        self.keep(event.socket, endpoint);
        true
    }

    fn on_time(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.started, true)
            && let Err(error) = self.start(cx)
        {
            cx.oracle.complain(format!("cannot listen: {error}"));
        }
        while self.accept_at.is_some_and(|at| at <= cx.now) {
            self.accept(cx);
        }
        let is_due = |e: &Endpoint| e.wake_at().is_some_and(|at| at <= cx.now);
        let due: Vec<_> = self.conns.iter().filter(|(_, e)| is_due(e)).map(|(&id, _)| id).collect();
        for socket in due {
            if let Some(mut endpoint) = self.conns.remove(&socket) {
                endpoint.drive(cx);
                self.keep(socket, endpoint);
            }
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let start = (!self.started).then_some(Instant::ZERO);
        let conns = self.conns.values().filter_map(Endpoint::wake_at);
        conns.chain(self.accept_at).chain(start).min()
    }

    fn is_done(&self) -> bool {
        self.conns.is_empty() && self.accept_at.is_none()
    }

    fn retire(&mut self, cx: &mut Context<'_>) {
        self.accept_at = None;
        if let Some(listener) = self.listener.take() {
            close(cx, listener);
        }
    }

    fn is_gone(&self) -> bool {
        self.listener.is_none() && self.conns.is_empty()
    }

    fn describe(&self) -> String {
        format!("server on {}, {:?}", self.plan.port, self.conns)
    }
}
