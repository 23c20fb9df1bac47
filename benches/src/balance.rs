//! Many engines, simulated: how evenly connections fall to them, and what has to be carried from one
//! to another.
//!
//! ```text
//!   client engines 0 … N-1 ── frames ──▶ the server's queue for the flow ──▶ server engine
//!          ▲                                                                       │
//!          └────────────── the client's queue for the flow ◀── frames ─────────────┘
//! ```
//!
//! Both hosts have so many engines on a device with as many queues, in one thread and in virtual
//! time: nothing here depends on the machine. Every client's engine opens the same number of
//! connections. With a device that tells how it deals flows out (RSS), it chooses ports whose answers
//! come back to it, and no frame of a flow is ever at an engine that does not own it. Where the device
//! does not tell, the engines go by a hash of their own, and most frames have to be handed over.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use barewire_driver::device::Features;
use barewire_driver::rss::{DEFAULT_KEY, Steering};
use barewire_driver::{MacAddr, Pool, PoolConfig};
use barewire_stack::{
    Cidr, Event, Family, ForwardKind, IfaceId, Instant, InterfaceConfig, Share, SocketError,
    SocketId, SocketKind, SocketOption, Stack, StackConfig,
};

use crate::ours::{CLIENT, SERVER};

const PORT: u16 = 80;
const BACKLOG: usize = 256;

/// Connections that an engine opens before the next one does.
const BATCH: usize = 64;

/// Rounds without a frame after which nothing more will move.
const MAX_STILL_ROUNDS: usize = 4;

/// What a simulation has shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Balance {
    /// Connections that each of the server's engines has accepted.
    pub accepted: Vec<usize>,
    /// Frames, and how many of them arrived at an engine that does not own their flow.
    pub frames: u64,
    /// See `frames`.
    pub crossing: u64,
}

impl Balance {
    /// The mean of the connections of an engine.
    pub fn mean(&self) -> f64 {
        self.accepted.iter().sum::<usize>() as f64 / self.accepted.len() as f64
    }
}

struct Engine {
    stack: Stack,
    iface: IfaceId,
    inbox: Vec<Vec<u8>>,
    listener: Option<SocketId>,
    accepted: usize,
}

impl Engine {
    fn new(addr: Ipv4Addr, share: Share) -> Engine {
        let pool = PoolConfig { slots: 1024, slot_len: 2048, cells: 1024, try_huge: false };
        let pool = Pool::new(pool).expect("memory for a pool");
        let seed = u128::from(addr.to_bits()) << 16 | u128::from(share.engine());
        let mut config = StackConfig { share, ..StackConfig::new(seed) };
        config.ephemeral_ports = 1024..=65_535;
        let mut stack = Stack::new(config, pool);
        let cidr = Cidr::new(IpAddr::V4(addr), 24).expect("24 bits of 32");
        let iface = InterfaceConfig {
            features: Features::SCATTER_GATHER,
            ..InterfaceConfig::ethernet(MacAddr::local(u64::from(addr.to_bits())), cidr)
        };
        let iface = stack.add_interface(iface).expect("room for an interface");
        Engine { stack, iface, inbox: Vec::new(), listener: None, accepted: 0 }
    }

    fn listen(&mut self) {
        let id = self.stack.socket(SocketKind::Tcp, Family::V4).expect("room for a socket");
        self.stack.set_option(id, SocketOption::ReusePort(true)).expect("a new socket");
        self.stack.bind(id, SocketAddr::from((SERVER, PORT))).expect("a port to share");
        self.stack.listen(id, BACKLOG).expect("a bound socket");
        self.listener = Some(id);
    }

    fn connect(&mut self) {
        let id = self.stack.socket(SocketKind::Tcp, Family::V4).expect("room for a socket");
        let connecting = self.stack.connect(id, SocketAddr::from((SERVER, PORT)));
        assert_eq!(connecting, Err(SocketError::InProgress));
    }

    /// Takes in what has arrived, accepts, and gives what there is to send.
    fn turn(&mut self, now: Instant) -> Vec<Vec<u8>> {
        for frame in std::mem::take(&mut self.inbox) {
            self.stack.handle_bytes(now, self.iface, &frame).expect("room for a frame");
        }
        while let Some(Event { socket, .. }) = self.stack.poll_event() {
            while self.listener == Some(socket) && self.stack.accept(socket).is_ok() {
                self.accepted += 1;
            }
        }
        self.stack.handle_timeout(now);
        let mut frames = Vec::new();
        loop {
            let burst = self.stack.poll_transmit(self.iface);
            if burst.is_empty() {
                return frames;
            }
            for (_, pieces) in burst.iter() {
                frames.push(pieces.iter().flat_map(|piece| piece.iter().copied()).collect());
            }
            burst.clear();
        }
    }
}

/// Two hosts, the client first, with so many engines each.
struct Hosts {
    engines: [Vec<Engine>; 2],
    steering: Steering,
    now: Instant,
    frames: u64,
    crossing: u64,
}

impl Hosts {
    /// One round; says whether any frame was on its way.
    fn round(&mut self) -> bool {
        self.now = Instant::from_nanos(self.now.as_nanos() + 10_000);
        let mut moved = false;
        for host in 0..2 {
            for engine in 0..self.engines[host].len() {
                for frame in self.engines[host][engine].turn(self.now) {
                    let queue = self.steering.queue_of_frame(&frame);
                    self.engines[1 - host][usize::from(queue)].inbox.push(frame);
                    self.frames += 1;
                    moved = true;
                }
                self.hand_over(host, engine);
            }
        }
        moved
    }

    /// Carries what came to this engine and is for another one there.
    fn hand_over(&mut self, host: usize, engine: usize) {
        while let Some(forward) = self.engines[host][engine].stack.poll_forward() {
            self.crossing += u64::from(forward.kind == ForwardKind::Ip);
            let packet: Vec<u8> =
                forward.packet.iter().flat_map(|piece| piece.iter().copied()).collect();
            let owner = &mut self.engines[host][usize::from(forward.engine)];
            let packet = owner.stack.pool().copy_from(&packet).expect("a free slot").freeze();
            let (now, good) = (self.now, forward.checksum_good);
            owner.stack.handle_forwarded(now, owner.iface, forward.kind, &[packet], good);
        }
    }

    fn settle(&mut self) {
        let mut still = 0;
        while still < MAX_STILL_ROUNDS {
            still = if self.round() { 0 } else { still + 1 };
        }
    }
}

/// Has each of `engines` client engines open `connections` to a server with as many engines, on
/// devices that hash with the usual key; `told` says whether they tell.
///
/// # Panics
/// If a connection is not accepted.
pub fn simulate(engines: u16, connections: usize, told: bool) -> Balance {
    let steering = Steering::in_turn(&DEFAULT_KEY, engines);
    let known = told.then(|| Arc::new(steering.clone()));
    let host = |addr, seed| -> Vec<Engine> {
        let shares = Share::group(seed, engines).into_iter();
        shares.map(|share| Engine::new(addr, share.steered_by(known.clone()))).collect()
    };
    let mut hosts = Hosts {
        engines: [host(CLIENT, 1), host(SERVER, 2)],
        steering,
        now: Instant::from_millis(1),
        frames: 0,
        crossing: 0,
    };
    hosts.engines[1].iter_mut().for_each(Engine::listen);
    let mut opened = 0;
    while opened < connections {
        let batch = BATCH.min(connections - opened);
        for client in 0..usize::from(engines) {
            (0..batch).for_each(|_| hosts.engines[0][client].connect());
            hosts.settle();
        }
        opened += batch;
    }
    let accepted: Vec<usize> = hosts.engines[1].iter().map(|engine| engine.accepted).collect();
    assert_eq!(accepted.iter().sum::<usize>(), connections * usize::from(engines));
    Balance { accepted, frames: hosts.frames, crossing: hosts.crossing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fall_to_all_engines_alike_and_no_frame_crosses() {
        const CONNECTIONS: usize = 200;
        // The hash is linear, and ports are taken in turn: each engine gets its share but for a few,
        // where ports at random would differ by tens.
        const DIFFER_MAX: usize = 4;
        for engines in [4, 16] {
            let balance = simulate(engines, CONNECTIONS, true);
            assert_eq!(balance.crossing, 0);
            let fair = |&n: &usize| n.abs_diff(CONNECTIONS) <= DIFFER_MAX;
            assert!(balance.accepted.iter().all(fair), "{balance:?}");
        }
    }

    #[test]
    fn frames_of_a_device_that_does_not_tell_are_handed_over() {
        let balance = simulate(4, 20, false);
        // Three of four frames are at the wrong engine, more or less.
        let part = balance.crossing as f64 / balance.frames as f64;
        assert!((0.5..0.9).contains(&part), "{balance:?}");
    }
}
