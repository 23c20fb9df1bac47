//! A crowd of connections between two stacks: what an idle one costs in memory, and what the others
//! cost the one that is busy.
//!
//! ```text
//!   client, one address ◀── local cable ──▶ server, listening on LISTENERS ports, echoing
//! ```
//!
//! One thread, and a virtual clock that moves a microsecond a turn; rates are in real time. The
//! connections belong to nobody but the two stacks: there is no handler, and the list of their
//! handles is allocated before anything is measured.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant as WallClock};

use barewire_driver::cable::{self, CableConfig};
use barewire_stack::tcp::Readiness;
use barewire_stack::{Event, Instant, SocketError, SocketId, StackConfig};

use crate::ours::{CLIENT, Host, SERVER, next_deadline};
use crate::{MAX_IDLE_TURNS, MESSAGE_BYTES, WIRE_FRAMES, message};

/// Ports of the server: a pair of addresses and one port of the server has only 64,512 connections.
const LISTENERS: u16 = 32;
const FIRST_PORT: u16 = 1000;

/// Connections that are opened, or closed, at the same time.
const BATCH: usize = 128;

/// Connections closed before the clock moves on past their TIME-WAIT.
const CLOSED_AT_ONCE: usize = 16 << 10;

/// Longer than TIME-WAIT.
const AFTERWARDS: Duration = Duration::from_secs(61);

/// Longer than any connection takes to come to rest.
const REST: Duration = Duration::from_secs(5);
const REST_STEP: Duration = Duration::from_millis(100);

/// Two hosts with many connections between them.
pub struct Crowd {
    client: Host,
    server: Host,
    now: Instant,
    listeners: Vec<SocketId>,
    /// The client's end of each.
    ends: Vec<SocketId>,
    /// Those that are asked at the moment.
    asked: Vec<SocketId>,
    round: u64,
    answers: usize,
}

impl Crowd {
    /// Two hosts without connections, and room for `most` of them.
    ///
    /// # Panics
    /// As every method, if the hosts stop making progress.
    pub fn new(most: usize) -> Crowd {
        let wire = CableConfig { ring_len: WIRE_FRAMES, ..CableConfig::new("million") };
        let (a, b) = cable::local(wire).expect("a cable");
        let config = |seed| {
            let mut config = StackConfig::new(seed);
            config.tcp.nodelay = true;
            config.limits.sockets = most + usize::from(LISTENERS) + BATCH;
            config.ephemeral_ports = 1024..=65_535;
            config
        };
        let mut server = Host::with_config(SERVER, Box::new(b), config(2));
        let listeners = (0..LISTENERS).map(|n| {
            let id = server.tcp();
            server.stack.bind(id, at(FIRST_PORT + n)).expect("a free port");
            server.stack.listen(id, BATCH).expect("a bound socket");
            id
        });
        let listeners = listeners.collect();
        Crowd {
            client: Host::with_config(CLIENT, Box::new(a), config(1)),
            server,
            now: Instant::ZERO,
            listeners,
            ends: Vec::with_capacity(most),
            asked: Vec::with_capacity(BATCH),
            round: 0,
            answers: 0,
        }
    }

    /// Connections that are open.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Opens connections until there are `count`.
    pub fn open(&mut self, count: usize) {
        while self.ends.len() < count {
            let batch = BATCH.min(count - self.ends.len());
            for _ in 0..batch {
                let id = self.client.tcp();
                let port = FIRST_PORT + self.ends.len() as u16 % LISTENERS;
                assert_eq!(self.client.stack.connect(id, at(port)), Err(SocketError::InProgress));
                self.ends.push(id);
            }
            let count = self.ends.len() + self.listeners.len();
            self.turn_until(|crowd| crowd.server.stack.sockets() == count);
        }
    }

    /// A request and its answer on each of these connections, all in flight at once.
    pub fn exchange(&mut self, which: impl Iterator<Item = usize>) {
        self.asked.clear();
        self.asked.extend(which.map(|at| self.ends[at]));
        self.answers = 0;
        self.client.stack.look_ahead(&self.asked);
        for &id in &self.asked {
            self.round += 1;
            let written = self.client.stack.write(id, &message(self.round));
            assert_eq!(written, Ok(MESSAGE_BYTES), "an idle connection takes a request");
        }
        self.turn_until(|crowd| crowd.answers == crowd.asked.len());
    }

    /// Lets time pass in which nothing is said.
    pub fn rest(&mut self) {
        self.pass(REST);
    }

    /// Closes all connections, and lets TIME-WAIT pass.
    pub fn close(&mut self) {
        let mut closed = 0;
        while !self.ends.is_empty() {
            for id in self.ends.drain(self.ends.len().saturating_sub(BATCH)..) {
                self.client.stack.close(id).expect("an open socket");
                closed += 1;
            }
            let left = self.ends.len();
            self.turn_until(|crowd| {
                let ends = crowd.server.stack.sockets() - crowd.listeners.len();
                ends == left && crowd.client.stack.sockets() == left
            });
            if closed >= CLOSED_AT_ONCE {
                self.pass(AFTERWARDS);
                closed = 0;
            }
        }
        self.pass(AFTERWARDS);
        assert_eq!(self.client.stack.time_wait(), 0);
    }

    /// True if no packet memory is in use at either host.
    pub fn packet_memory_is_free(&self) -> bool {
        [&self.client, &self.server].iter().all(|host| host.stack.pool().audit().all_free())
    }

    /// Requests a second in real time, with `in_flight` connections at once, each the one `step`
    /// behind the one before.
    pub fn rate(&mut self, step: usize, in_flight: usize, time: Duration) -> f64 {
        let (count, start, mut done) = (self.ends.len(), WallClock::now(), 0);
        while start.elapsed() < time {
            self.exchange((done..done + in_flight).map(|n| n * step % count));
            done += in_flight;
        }
        done as f64 / start.elapsed().as_secs_f64()
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now = (self.now + REST_STEP).min(until);
            while self.turn() > 0 {}
        }
    }

    /// Takes turns until `done`; the clock jumps to the next deadline when nothing moves.
    fn turn_until(&mut self, done: impl Fn(&Crowd) -> bool) {
        let mut idle = 0;
        while !done(self) {
            if self.turn() > 0 {
                continue;
            }
            idle += 1;
            assert!(idle < MAX_IDLE_TURNS, "the crowd stalls");
            let next = next_deadline([&self.client, &self.server]);
            self.now = self.now.max(next.unwrap_or(self.now));
        }
    }

    /// What both have to say goes over the cable. Gives how many frames that were.
    fn turn(&mut self) -> usize {
        self.now = Instant::from_nanos(self.now.as_nanos() + 1000);
        self.client.send(self.now);
        let there = self.server.receive(self.now);
        self.server.serve(&self.listeners);
        self.server.send(self.now);
        let back = self.client.receive(self.now);
        self.collect();
        there + back
    }

    /// The client counts answers.
    fn collect(&mut self) {
        let mut buffer = [0; MESSAGE_BYTES];
        let stack = &mut self.client.stack;
        while let Some(Event { socket, ready }) = stack.poll_event() {
            if ready.contains(Readiness::READABLE) {
                assert_eq!(stack.read(socket, &mut buffer), Ok(MESSAGE_BYTES));
                self.answers += 1;
            }
        }
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(SERVER), port)
}
