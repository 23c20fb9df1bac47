//! More connections than a server has time for: what it still gets done.
//!
//! ```text
//!   clients, open loop ─▶ ring of 512 frames ─▶ server: turns that take time ─▶ clients
//!        └ give up after PATIENCE       └ drops what finds no place, counted
//! ```
//!
//! Time is virtual, and only the server's turns take any: as long as a processor really worked on
//! them ([`Cost::Measured`]), or as a model says, which repeats exactly ([`Cost::Modelled`]). Clients
//! connect when it is their time whether the server keeps up or not, send a request, wait for the
//! answer and close. An operator connects now and then to a listener of high priority, and neighbours
//! are asked for all the time.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use barewire_driver::cable::{self, CableConfig};
use barewire_driver::device::BURST_FRAMES;
use barewire_driver::{Device, Features, Queue, QueueId};
use barewire_stack::engine::RX_BURSTS;
use barewire_stack::neighbor::NeighborConfig;
use barewire_stack::tcp::Readiness;
use barewire_stack::{
    Event, Instant, OPERATOR_PRIORITY, Rng, SocketError, SocketId, SocketOption, StackConfig,
    StackCounters,
};

use crate::measure::thread_time;
use crate::ours::{CLIENT, Host, SERVER};
use crate::{MESSAGE_BYTES, message};

/// Ports of the server: so many that clients do not run out of ports of their own.
const LISTENERS: u16 = 16;
const FIRST_PORT: u16 = 1000;
const OPERATOR_PORT: u16 = 22;
const BACKLOG: usize = 1024;

/// Frames that wait before the server; more are lost.
const RING_LEN: usize = 512;

/// How long a client waits for its answer.
pub const PATIENCE: Duration = Duration::from_millis(100);

/// Time between two connections of the operator.
const OPERATOR_INTERVAL: Duration = Duration::from_millis(5);

/// Neighbours are believed for so long, and asked three times at most: without an answer now and
/// then, nothing goes out any more.
const NEIGHBORS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(5));

/// How much more is offered at each step of the search for what a server can carry.
const STEP: f64 = 1.2;

/// A server that answers less than this part of a load has seen its best.
const OVERLOADED: f64 = 0.8;

/// How long a turn of the server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// As long as this thread has worked on it.
    Measured,
    /// So long, in nanoseconds, for a turn, for each frame, and for a request.
    Modelled {
        /// For the turn itself.
        turn_ns: u64,
        /// For each frame that is taken in.
        rx_ns: u64,
        /// For each frame that is sent: a connection's work is in what it has to say.
        tx_ns: u64,
        /// For each request, in the handler.
        request_ns: u64,
    },
}

/// The load that is offered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// Connections a second, at random times.
    pub per_second: f64,
    /// For so long.
    pub time: Duration,
    /// What the server's work costs.
    pub cost: Cost,
    /// The server sheds connections while it is behind.
    pub shedding: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Connections begun a second.
    pub offered: f64,
    /// Connections answered in time, a second.
    pub good: f64,
    /// From SYN to answer, of those, in ascending order.
    pub latencies_ns: Vec<u64>,
    /// The same of the operator's.
    pub operator_ns: Vec<u64>,
    /// Connections of the operator that were not answered in time.
    pub operator_failed: u64,
    /// Frames that found no place before the server.
    pub ring_dropped: u64,
    /// What the server's stack has counted.
    pub server: StackCounters,
}

impl Outcome {
    /// The latency that `part` of the answered connections had at most.
    pub fn latency(&self, part: f64) -> Duration {
        let at = (self.latencies_ns.len() as f64 * part) as usize;
        let at = at.min(self.latencies_ns.len().saturating_sub(1));
        Duration::from_nanos(self.latencies_ns.get(at).copied().unwrap_or(0))
    }
}

struct Server {
    host: Host<dyn Queue>,
    listeners: Vec<SocketId>,
    shedding: bool,
    cost: Cost,
}

impl Server {
    /// A turn at `now`; gives how long it takes, or nothing if there was nothing to do.
    fn turn(&mut self, now: Instant) -> Option<Duration> {
        let begin = thread_time();
        let due = self.host.stack.poll_at().is_some_and(|at| at <= now);
        let sent = self.host.queue.counters().tx_frames;
        let received = self.receive(now);
        if received == 0 && !due {
            return None;
        }
        let requests = self.answer();
        self.host.send(now);
        let sent = self.host.queue.counters().tx_frames - sent;
        Some(match self.cost {
            Cost::Measured => thread_time() - begin,
            Cost::Modelled { turn_ns, rx_ns, tx_ns, request_ns } => {
                let frames = rx_ns * received as u64 + tx_ns * sent;
                Duration::from_nanos(turn_ns + frames + request_ns * requests as u64)
            }
        })
    }

    fn receive(&mut self, now: Instant) -> usize {
        let mut frames = 0;
        for _ in 0..RX_BURSTS {
            let burst = self.host.receive(now);
            frames += burst;
            if burst < BURST_FRAMES {
                break;
            }
        }
        if self.shedding {
            self.host.stack.note_turn(frames, RX_BURSTS * BURST_FRAMES);
        }
        frames
    }

    /// Accepts, answers and closes; gives how many requests there were.
    fn answer(&mut self) -> usize {
        let (mut buffer, mut requests) = ([0; MESSAGE_BYTES], 0);
        let stack = &mut self.host.stack;
        while let Some(Event { socket, ready }) = stack.poll_event() {
            if self.listeners.contains(&socket) {
                while stack.accept(socket).is_ok() {}
            } else if ready.intersects(Readiness::READABLE | Readiness::ERROR) {
                match stack.read(socket, &mut buffer) {
                    Ok(len @ 1..) => {
                        requests += 1;
                        // The client may have given up and gone.
                        let _ = stack.write(socket, &buffer[..len]);
                    }
                    Err(SocketError::WouldBlock) => {}
                    Ok(0) | Err(_) => drop(stack.close(socket)),
                }
            }
        }
        requests
    }
}

/// A connection that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    since: Instant,
    operator: bool,
}

struct Clients {
    host: Host<dyn Queue>,
    waiting: HashMap<SocketId, Waiting>,
    /// When each gives up, in order.
    patience: VecDeque<(Instant, SocketId)>,
    rng: Rng,
    begun: u64,
    next: Instant,
    next_operator: Instant,
    outcome: Outcome,
}

impl Clients {
    fn connect(&mut self, now: Instant, operator: bool) {
        self.begun += u64::from(!operator);
        let spread = self.begun % u64::from(LISTENERS);
        let port = if operator { OPERATOR_PORT } else { FIRST_PORT + spread as u16 };
        let id = self.host.tcp();
        let connecting = self.host.stack.connect(id, SocketAddr::from((SERVER, port)));
        assert_eq!(connecting, Err(SocketError::InProgress), "ports enough");
        self.waiting.insert(id, Waiting { since: now, operator });
        self.patience.push_back((now + PATIENCE, id));
    }

    /// Begins what is due and ends what has taken too long.
    fn begin(&mut self, now: Instant, mean_ns: f64) {
        self.host.stack.handle_timeout(now);
        while self.next <= now {
            self.connect(now, false);
            // Uniform in (0, 1]: its logarithm is finite.
            let uniform = ((self.rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
            let gap = -uniform.ln() * mean_ns;
            self.next = Instant::from_nanos(self.next.as_nanos() + gap as u64);
        }
        while self.next_operator <= now {
            self.connect(now, true);
            self.next_operator += OPERATOR_INTERVAL;
        }
        while let Some(&(deadline, id)) = self.patience.front()
            && deadline <= now
        {
            self.patience.pop_front();
            if let Some(waiting) = self.waiting.remove(&id) {
                self.outcome.operator_failed += u64::from(waiting.operator);
                let _ = self.host.stack.abort(id);
            }
        }
    }

    /// Takes in what the server has sent.
    fn hear(&mut self, now: Instant) {
        while self.host.receive(now) > 0 {}
        let mut buffer = [0; MESSAGE_BYTES];
        while let Some(Event { socket, ready }) = self.host.stack.poll_event() {
            let Some(waiting) = self.waiting.get(&socket).copied() else { continue };
            let stack = &mut self.host.stack;
            if ready.contains(Readiness::READABLE) {
                let read = stack.read(socket, &mut buffer);
                if read != Ok(MESSAGE_BYTES) {
                    continue;
                }
                let latency = now.saturating_since(waiting.since).as_nanos() as u64;
                let list = match waiting.operator {
                    true => &mut self.outcome.operator_ns,
                    false => &mut self.outcome.latencies_ns,
                };
                list.push(latency);
                self.waiting.remove(&socket);
                let _ = stack.close(socket);
            } else if ready.contains(Readiness::WRITABLE) {
                let _ = stack.write(socket, &message(self.begun));
            }
        }
    }

    /// When something happens next without the server.
    fn next_deadline(&self) -> Instant {
        let patience = self.patience.front().map(|(at, _)| *at);
        let due = [self.host.stack.poll_at(), patience].into_iter().flatten();
        due.chain([self.next, self.next_operator]).min().unwrap_or(self.next)
    }
}

/// Offers this load to a fresh server, and says what came of it.
///
/// # Panics
/// If the clients cannot get a connection under way.
pub fn run(offer: &Offer) -> Outcome {
    let (mut clients, mut server) = hosts(offer);
    let mean_ns = 1e9 / offer.per_second;
    let begin = Instant::from_millis(1);
    let (mut now, end) = (begin, begin + offer.time);
    (clients.next, clients.next_operator) = (begin, begin);
    let mut busy_until = begin;
    while now < end {
        clients.begin(now, mean_ns);
        if now >= busy_until {
            clients.hear(now);
        }
        clients.host.send(now);
        let mut next = clients.next_deadline();
        if now >= busy_until {
            match server.turn(now) {
                Some(took) => busy_until = now + took.max(Duration::from_nanos(1)),
                None => {
                    next = server.host.stack.poll_at().into_iter().fold(next, Instant::min);
                }
            }
        }
        if busy_until > now {
            next = next.min(busy_until);
        }
        now = next.max(Instant::from_nanos(now.as_nanos() + 1));
    }
    let mut outcome = clients.outcome;
    let seconds = offer.time.as_secs_f64();
    outcome.latencies_ns.sort_unstable();
    outcome.operator_ns.sort_unstable();
    outcome.offered = clients.begun as f64 / seconds;
    outcome.good = outcome.latencies_ns.len() as f64 / seconds;
    outcome.ring_dropped = server.host.queue.counters().rx_no_buffer;
    outcome.server = *server.host.stack.counters();
    outcome
}

fn hosts(offer: &Offer) -> (Clients, Server) {
    let wire = CableConfig {
        ring_len: RING_LEN,
        features: Features::SCATTER_GATHER,
        ..CableConfig::new("overload")
    };
    let (a, b) = cable::pair(wire).expect("a cable");
    let host = |addr: Ipv4Addr, end: &dyn Device| {
        let mut config = StackConfig::new(u128::from(addr.to_bits()));
        config.tcp.nodelay = true;
        config.ephemeral_ports = 1024..=65_535;
        if addr == CLIENT {
            // A client's port is free again at once; there are too few to wait for.
            config.limits.time_wait = 1;
        }
        let (reachable, retry) = NEIGHBORS;
        let neighbor = NeighborConfig { reachable, retry, ..NeighborConfig::default() };
        let queue = end.queue(QueueId(0)).expect("its only queue").open();
        Host::with_neighbors(addr, queue, config, neighbor)
    };
    let mut server = Server {
        host: host(SERVER, &b),
        listeners: Vec::new(),
        shedding: offer.shedding,
        cost: offer.cost,
    };
    for port in (FIRST_PORT..FIRST_PORT + LISTENERS).chain([OPERATOR_PORT]) {
        let id = server.host.tcp();
        if port == OPERATOR_PORT {
            let high = SocketOption::Priority(OPERATOR_PRIORITY);
            server.host.stack.set_option(id, high).expect("a new socket");
        }
        let addr = SocketAddr::new(IpAddr::V4(SERVER), port);
        server.host.stack.bind(id, addr).expect("a free port");
        server.host.stack.listen(id, BACKLOG).expect("a bound socket");
        server.listeners.push(id);
    }
    let clients = Clients {
        host: host(CLIENT, &a),
        waiting: HashMap::new(),
        patience: VecDeque::new(),
        rng: Rng::new(1),
        begun: 0,
        next: Instant::ZERO,
        next_operator: Instant::ZERO,
        outcome: Outcome::default(),
    };
    (clients, server)
}

/// A server's best: the most that it has answered a second, and what it was offered then.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Best {
    /// Connections answered in time, a second.
    pub good: f64,
    /// Connections offered a second.
    pub offered: f64,
}

/// The most that a server answers, which is offered more and more until it is far from carrying it.
pub fn best(cost: Cost, time: Duration, from: f64) -> Best {
    let (mut per_second, mut best) = (from, Best::default());
    loop {
        let outcome = run(&Offer { per_second, time, cost, shedding: true });
        if outcome.good > best.good {
            best = Best { good: outcome.good, offered: per_second };
        }
        if outcome.good < OVERLOADED * outcome.offered {
            return best;
        }
        per_second *= STEP;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slow server, so that the simulation is short.
    const COST: Cost =
        Cost::Modelled { turn_ns: 2_000, rx_ns: 2_000, tx_ns: 6_000, request_ns: 30_000 };
    const TIME: Duration = Duration::from_millis(200);

    fn at_twice(best: f64, shedding: bool) -> Outcome {
        run(&Offer { per_second: 2.0 * best, time: TIME, cost: COST, shedding })
    }

    #[test]
    fn at_twice_what_it_carries_a_server_does_nearly_its_best() {
        let best = best(COST, TIME, 6_000.0).good;
        let outcome = at_twice(best, true);
        assert!(outcome.good >= 0.9 * best, "{} of {best}", outcome.good);
        assert!(outcome.latency(0.99) < Duration::from_millis(20), "{:?}", outcome.latency(0.99));
        assert!(outcome.server.listen_shed > 0, "{:?}", outcome.server);
        let operator = outcome.operator_ns.len();
        assert!(operator >= 30 && outcome.operator_failed == 0, "{operator} of the operator's");
        assert_eq!(at_twice(best, true).latencies_ns, outcome.latencies_ns, "the same again");
        // Without it the ring drops whatever comes, the operator's frames too.
        let outcome = at_twice(best, false);
        assert!(outcome.ring_dropped > 500, "{} dropped", outcome.ring_dropped);
        assert!(outcome.operator_failed > 0 && outcome.server.listen_shed == 0);
    }

    #[test]
    fn a_server_that_keeps_up_sheds_nothing() {
        let outcome = run(&Offer { per_second: 2_000.0, time: TIME, cost: COST, shedding: true });
        assert!(outcome.good > 0.95 * outcome.offered, "{} of {}", outcome.good, outcome.offered);
        assert_eq!((outcome.server.listen_shed, outcome.ring_dropped), (0, 0));
    }
}
