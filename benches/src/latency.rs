//! How long an answer takes: requests at their own pace over a cable between two cores.
//!
//! ```text
//!   schedule ─▶ client, core a ◀══ cable ══▶ server, core b: echo
//!       └─ a request's time begins here, whether it could be sent then or not
//! ```
//!
//! Requests fall due at random times at a fixed mean rate. Each is timed from when it was due: a
//! server that stalls makes all wait that fall due meanwhile, and all of them are counted (no
//! coordinated omission). Both sides spin. What else runs on the two cores is in the figures;
//! [`Figures::share`] says how much of the time was ours.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as WallClock};

use barewire_driver::cable::{self, CableConfig};
use barewire_driver::sys::{Clock, pin_to_core};
use barewire_driver::{Device, Features, Queue, QueueId, QueueSeed};
use barewire_stack::tcp::Readiness;
use barewire_stack::{Event, Instant, Rng, SocketError, SocketId, StackConfig};
use hdrhistogram::Histogram;

use crate::measure::thread_time;
use crate::ours::{CLIENT, Host, SERVER};
use crate::{MESSAGE_BYTES, WIRE_FRAMES};

const PORT: u16 = 7;

/// Connections that requests go over in turn: so many that each request is a segment of its own.
const CONNECTIONS: usize = 64;

/// What is read or written by one call at most.
const CALL_BYTES: usize = 4 << 10;

/// Latencies are told to three digits, up to this many nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;
const DIGITS: u8 = 3;

/// How long the last answers may take.
const LAST: Duration = Duration::from_secs(60);

/// Parts of the most that both can do.
pub const LIGHT: f64 = 0.05;
/// See [`LIGHT`].
pub const HEAVY: f64 = 0.8;

/// What one load has shown.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Requests a second, on average.
    pub per_second: f64,
    /// Nanoseconds from when each request was due until its answer had come.
    pub latencies: Histogram<u64>,
    /// The part of the time that the client's thread has run.
    pub share: f64,
}

/// Both loads, and what they are parts of.
#[derive(Clone, Debug)]
pub struct Latency {
    /// Requests a second with one under way on each connection all the time.
    pub most: f64,
    /// At [`LIGHT`] of it.
    pub light: Figures,
    /// At [`HEAVY`] of it.
    pub heavy: Figures,
}

/// Measures for about `time`: a third each to find the most, light load, and heavy load.
///
/// # Panics
/// If a processor may not be used, or a connection fails.
pub fn measure([here, there]: [usize; 2], time: Duration) -> Latency {
    let config = CableConfig {
        ring_len: WIRE_FRAMES,
        features: Features::SCATTER_GATHER,
        ..CableConfig::new("latency")
    };
    let (a, b) = cable::pair(config).expect("a cable");
    let [near, far] = [&a, &b].map(|end| end.queue(QueueId(0)).expect("its only queue"));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin_to_core(there).expect("a processor that may be used");
            serve(far, &over);
        });
        let client = scope.spawn(|| {
            // Also if this fails: the server ends with it.
            let _over = Ends(&over);
            pin_to_core(here).expect("a processor that may be used");
            let (mut client, part) = (Client::new(near), time / 3);
            let most = client.saturate(part);
            let light = client.offer(LIGHT * most, part);
            Latency { most, light, heavy: client.offer(HEAVY * most, part) }
        });
        client.join().expect("a client that lives")
    })
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn host(addr: Ipv4Addr, queue: Box<dyn QueueSeed>) -> Host<dyn Queue> {
    let mut config = StackConfig::new(u128::from(addr.to_bits()));
    config.tcp.nodelay = true;
    Host::with_config(addr, queue.open(), config)
}

fn clock() -> Instant {
    Instant::from_nanos(Clock::monotonic().now_ns())
}

/// The server's core: answers until it is over.
fn serve(queue: Box<dyn QueueSeed>, over: &AtomicBool) {
    let mut host = host(SERVER, queue);
    let listener = host.tcp();
    host.stack.bind(listener, SocketAddr::from((SERVER, PORT))).expect("a free port");
    host.stack.listen(listener, CONNECTIONS).expect("a bound socket");
    let mut buffer = [0; CALL_BYTES];
    while !over.load(Ordering::Relaxed) {
        let now = clock();
        host.receive(now);
        while let Some(Event { socket, ready }) = host.stack.poll_event() {
            if socket == listener {
                while host.stack.accept(socket).is_ok() {}
            } else if ready.intersects(Readiness::READABLE | Readiness::WRITABLE) {
                // What finds no room for its answer waits unread until there is some.
                while let Ok(room @ 1..) = host.stack.write_room(socket) {
                    let part = &mut buffer[..room.min(CALL_BYTES)];
                    let Ok(len @ 1..) = host.stack.read(socket, part) else { break };
                    assert_eq!(host.stack.write(socket, &buffer[..len]), Ok(len), "room for it");
                }
            }
        }
        host.send(now);
    }
}

/// A connection with its requests under way.
#[derive(Debug, Default)]
struct Lane {
    /// When each was due, oldest first.
    due: VecDeque<Instant>,
    /// Bytes of requests that have found no room yet.
    unsent: usize,
    /// Bytes of the next answer that are there.
    bytes: usize,
}

struct Client {
    host: Host<dyn Queue>,
    ends: Vec<SocketId>,
    lanes: HashMap<SocketId, Lane>,
    /// Connections with bytes that have found no room.
    stuck: Vec<SocketId>,
    /// Which connection is next.
    next: usize,
    rng: Rng,
}

impl Client {
    fn new(queue: Box<dyn QueueSeed>) -> Client {
        let mut host = host(CLIENT, queue);
        // The first frames may find nobody at the other end yet: TCP and ARP send them again.
        let ends: Vec<SocketId> = (0..CONNECTIONS).map(|_| host.tcp()).collect();
        for &end in &ends {
            let connecting = host.stack.connect(end, SocketAddr::from((SERVER, PORT)));
            assert_eq!(connecting, Err(SocketError::InProgress));
        }
        let lanes = ends.iter().map(|&end| (end, Lane::default())).collect();
        let mut client = Client { host, ends, lanes, stuck: Vec::new(), next: 0, rng: Rng::new(1) };
        let mut open = 0;
        while open < CONNECTIONS {
            let now = clock();
            client.host.send(now);
            client.host.receive(now);
            while let Some(Event { ready, .. }) = client.host.stack.poll_event() {
                assert!(!ready.contains(Readiness::ERROR), "a server that answers");
                open += usize::from(ready.contains(Readiness::WRITABLE));
            }
        }
        client
    }

    fn ask(&mut self, socket: SocketId, due: Instant) {
        let lane = self.lanes.entry(socket).or_default();
        lane.due.push_back(due);
        lane.unsent += MESSAGE_BYTES;
        // Else it is among those that are stuck.
        if lane.unsent == MESSAGE_BYTES {
            self.write(socket);
        }
    }

    /// Writes what there is room for; the rest is tried again at the next turn.
    fn write(&mut self, socket: SocketId) {
        let Some(lane) = self.lanes.get_mut(&socket) else { return };
        while lane.unsent > 0 {
            match self.host.stack.write(socket, &[0; CALL_BYTES][..lane.unsent.min(CALL_BYTES)]) {
                Ok(len) => lane.unsent -= len,
                Err(SocketError::WouldBlock) => return self.stuck.push(socket),
                Err(error) => panic!("a connection that lives: {error}"),
            }
        }
    }

    /// Sends, takes in what there is, and calls `heard` for each answer with its socket and the time
    /// that its request was due.
    fn turn(&mut self, now: Instant, mut heard: impl FnMut(SocketId, Instant)) {
        for socket in std::mem::take(&mut self.stuck) {
            self.write(socket);
        }
        self.host.send(now);
        self.host.receive(now);
        let mut buffer = [0; CALL_BYTES];
        while let Some(Event { socket, ready }) = self.host.stack.poll_event() {
            assert!(!ready.contains(Readiness::ERROR), "a connection that lives");
            let Some(lane) = self.lanes.get_mut(&socket) else { continue };
            while let Ok(len @ 1..) = self.host.stack.read(socket, &mut buffer) {
                lane.bytes += len;
                while lane.bytes >= MESSAGE_BYTES {
                    lane.bytes -= MESSAGE_BYTES;
                    heard(socket, lane.due.pop_front().expect("an answer to a request"));
                }
            }
        }
    }

    /// Requests a second with one under way on each connection all the time.
    fn saturate(&mut self, time: Duration) -> f64 {
        let (start, mut answers) = (clock(), 0u64);
        for end in self.ends.clone() {
            self.ask(end, start);
        }
        let mut again = Vec::new();
        loop {
            let now = clock();
            self.turn(now, |socket, _| again.push(socket));
            answers += again.len() as u64;
            let took = now.saturating_since(start);
            if took >= time {
                self.drain(|_, _| {});
                return answers as f64 / took.as_secs_f64();
            }
            again.drain(..).for_each(|socket| self.ask(socket, now));
        }
    }

    /// Has requests fall due at this rate.
    fn offer(&mut self, per_second: f64, time: Duration) -> Figures {
        let mut latencies =
            Histogram::new_with_max(LONGEST_NS, DIGITS).expect("bounds that fit each other");
        let mut record = |due: Instant| {
            let waited = clock().saturating_since(due).as_nanos() as u64;
            latencies.saturating_record(waited.max(1));
        };
        let (begun, ran) = (WallClock::now(), thread_time());
        let start = clock();
        let (mut due, end) = (start, start + time);
        while due < end {
            let now = clock();
            while due <= now && due < end {
                let socket = self.ends[self.next % CONNECTIONS];
                self.next += 1;
                self.ask(socket, due);
                // Uniform in (0, 1]: its logarithm is finite.
                let uniform = ((self.rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
                let gap = -uniform.ln() * 1e9 / per_second;
                due = Instant::from_nanos(due.as_nanos() + gap as u64);
            }
            self.turn(now, |_, due| record(due));
        }
        self.drain(|_, due| record(due));
        let share = (thread_time() - ran).as_secs_f64() / begun.elapsed().as_secs_f64();
        Figures { per_second, latencies, share }
    }

    /// Waits for the answers that are still to come.
    fn drain(&mut self, mut heard: impl FnMut(SocketId, Instant)) {
        let give_up = clock() + LAST;
        while self.lanes.values().any(|lane| !lane.due.is_empty()) {
            let now = clock();
            assert!(now < give_up, "answers are missing");
            self.turn(now, &mut heard);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_has_its_latency() {
        let allowed = barewire_driver::sys::allowed_cores().unwrap();
        let processors = [allowed[0], *allowed.last().unwrap()];
        let latency = measure(processors, Duration::from_millis(150));
        for figures in [&latency.light, &latency.heavy] {
            let count = figures.latencies.len() as f64;
            let wanted = figures.per_second * 0.05;
            // Five standard deviations of a Poisson process.
            assert!((count - wanted).abs() <= 5.0 * wanted.sqrt() + 1.0, "{count} of {wanted}");
            assert!(figures.latencies.value_at_quantile(0.5) > 0);
        }
    }
}
