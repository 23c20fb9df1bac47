//! Many cores: two hosts, each with an engine on every core, over a cable with as many queues.
//!
//! ```text
//!   core 0:  client engine 0 ◀─ queue 0 ═ cable ═ queue 0 ─▶ server engine 0
//!   core 1:  client engine 1 ◀─ queue 1 ═ cable ═ queue 1 ─▶ server engine 1
//!                    └─ one address, one registry of ports ─┘
//! ```
//!
//! The engines are whole ones, executor and mailboxes included, and who asks and answers are their
//! handlers (`handlers`). The engines of a host have its address, its ports and its secrets in common,
//! and the queues of a cable their cable; nothing else. Whatever cores have to wait for each other at
//! is in the figure: with one core and with two the same is done on each of them, so that twice the
//! rate is what there is to reach. A core's thread drives both of its engines in turn (`worker`): two
//! threads would have to wait for the kernel to take turns. The cable hashes under a symmetric key, as
//! a card can be told to, so that the server's engine on a core is the one that the client's engine
//! there talks to: how long a cache line takes from core to core is no property of a stack.
//!
//! Rates are of the time that the threads have run. On a machine that has other things to do it is
//! less than the time that has passed, and [`Rate::share`] says how much.

mod handlers;
mod worker;

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Add;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use barewire_driver::cable::{self, CableConfig, CableDevice};
use barewire_driver::rss::SYMMETRIC_KEY;
use barewire_driver::sys::Clock;
use barewire_driver::{Device, Features, PoolConfig, QueueId};
use barewire_stack::Cidr;
use barewire_stack::engine::{EngineConfig, EngineSeed, EngineStats, Engines, Idle};
use barewire_stack::tcp::TcpConfig;

use crate::WIRE_FRAMES;
use crate::ours::{CLIENT, SERVER};
use worker::Worker;

/// What each core does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// 64-byte requests and answers over [`IN_FLIGHT`] connections, one in flight on each.
    Echo,
    /// [`IN_FLIGHT`] connections at once: connect, request, answer, close, TIME-WAIT.
    Connections,
}

impl Load {
    /// All of them.
    pub const ALL: [Load; 2] = [Load::Echo, Load::Connections];

    /// Its name on the command line and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Load::Echo => "cores-echo",
            Load::Connections => "cores-connect",
        }
    }
}

/// Connections that a core has at once, and handlers of either host that they keep busy.
pub const IN_FLIGHT: usize = 32;

/// Time is real, and so are the ports that it keeps from being used again: at 60 s, a thousand
/// connections a second would use up all of them.
const TIME_WAIT: Duration = Duration::from_millis(20);

/// What cores have done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Operations of all cores together, each in a second that its thread has run.
    pub per_second: f64,
    /// The least part of the time that a thread has run: less than all of it means that a core had
    /// other things to do.
    pub share: f64,
}

impl Rate {
    const NOTHING: Rate = Rate { per_second: 0.0, share: 1.0 };
}

impl Add for Rate {
    type Output = Rate;

    fn add(self, other: Rate) -> Rate {
        let per_second = self.per_second + other.per_second;
        Rate { per_second, share: self.share.min(other.share) }
    }
}

/// An order for a worker.
#[derive(Clone, Copy, Debug)]
struct Order {
    load: Load,
    /// Most operations.
    operations: u64,
    /// None begins later.
    until: Instant,
}

/// Two hosts with an engine each on some cores.
pub struct Fleet {
    hosts: Hosts,
    orders: Vec<Sender<Order>>,
    /// From each worker.
    rates: Vec<Receiver<Rate>>,
    threads: Vec<JoinHandle<()>>,
}

impl Fleet {
    /// Two hosts whose engines are on these processors, with connections between them.
    ///
    /// # Panics
    /// As every method, if the hosts stop making progress, an answer is not what was asked for, or a
    /// frame reaches an engine that does not own its flow.
    pub fn new(processors: &[usize]) -> Fleet {
        let count = u16::try_from(processors.len()).expect("no more processors than queues");
        let (hosts, seeds) = Hosts::new(count, &Clock::monotonic());
        let (tell, rates): (Vec<_>, _) = seeds.iter().map(|_| channel()).unzip();
        let mut fleet = Fleet { hosts, orders: Vec::new(), rates, threads: Vec::new() };
        for ((seeds, &processor), tell) in seeds.into_iter().zip(processors).zip(tell) {
            let (order, orders) = channel();
            fleet.orders.push(order);
            let run = move || Worker::run(seeds, processor, &orders, &tell);
            fleet.threads.push(std::thread::spawn(run));
        }
        // Each tells when its connections are open.
        fleet.rates();
        fleet
    }

    /// Has all cores do `load` for `time`.
    pub fn run(&mut self, load: Load, time: Duration) -> Rate {
        self.order(Order { load, operations: u64::MAX, until: Instant::now() + time })
    }

    /// The figures of the client's engines and of the server's.
    pub fn stats(&self) -> [Vec<EngineStats>; 2] {
        [self.hosts.client.stats(), self.hosts.server.stats()]
    }

    fn order(&mut self, order: Order) -> Rate {
        for orders in &self.orders {
            orders.send(order).expect("a worker that lives");
        }
        self.rates()
    }

    /// What all workers together have to tell next.
    fn rates(&self) -> Rate {
        let next = |rates: &Receiver<Rate>| rates.recv().expect("a worker that lives");
        self.rates.iter().map(next).fold(Rate::NOTHING, Rate::add)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.orders.clear();
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a worker failed");
        }
    }
}

/// Does this many operations of one core on this thread, on a clock of its own: for a tool that counts.
///
/// # Panics
/// As [`Fleet::new`].
pub fn operations(load: Load, operations: u64) {
    let (clock, hand) = Clock::manual();
    let (_hosts, seeds) = Hosts::new(1, &clock);
    for seeds in seeds {
        Worker::count(seeds, hand.clone(), load, operations);
    }
}

/// What other threads hold of two hosts.
struct Hosts {
    client: Engines,
    server: Engines,
}

/// The engines of one core, the client's first.
type Seeds = [EngineSeed; 2];

impl Hosts {
    /// Two hosts of `count` engines, which are still to be opened.
    fn new(count: u16, clock: &Clock) -> (Hosts, Vec<Seeds>) {
        let config = CableConfig {
            queues: count,
            features: Features::SCATTER_GATHER,
            ring_len: WIRE_FRAMES,
            rss_key: SYMMETRIC_KEY,
            ..CableConfig::new("cores")
        };
        let (a, b) = cable::pair(config).expect("a cable");
        let (client, near) = host(CLIENT, &a, clock);
        let (server, far) = host(SERVER, &b, clock);
        let seeds = near.into_iter().zip(far).map(|(near, far)| [near, far]);
        (Hosts { client, server }, seeds.collect())
    }
}

fn host(addr: Ipv4Addr, device: &CableDevice, clock: &Clock) -> (Engines, Vec<EngineSeed>) {
    let config = EngineConfig {
        addresses: vec![Cidr::new(IpAddr::V4(addr), 24).expect("24 bits of 32")],
        idle: Idle::Busy,
        pool: PoolConfig { slots: 4096, slot_len: 2048, cells: 8192, try_huge: true },
        tcp: TcpConfig { nodelay: true, time_wait: TIME_WAIT, ..TcpConfig::default() },
        ephemeral_ports: 1024..=65_535,
        clock: clock.clone(),
        seed: Some(u128::from(addr.to_bits())),
        steering: device.steering().map(Arc::new),
        ..EngineConfig::default()
    };
    let queue = |id| device.queue(QueueId(id)).expect("its own queue");
    let queues = (0..device.queues()).map(queue).collect();
    Engines::prepare(&config, device.mac(), queues).expect("as many engines as queues")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_do_their_work_without_a_frame_between_them() {
        let allowed = barewire_driver::sys::allowed_cores().unwrap();
        // Two threads take turns on one processor just as well.
        let processors = [allowed[0], *allowed.last().unwrap()];
        let mut fleet = Fleet::new(&processors);
        for (load, operations) in [(Load::Echo, 100), (Load::Connections, 200), (Load::Echo, 100)] {
            let until = Instant::now() + Duration::from_secs(20);
            let rate = fleet.order(Order { load, operations, until });
            assert!(rate.per_second > 100.0 && rate.share > 0.0, "{load:?} {rate:?}");
        }
        // Each worker has looked at all answers, at what crossed, and that the server's engine on its
        // core has all connections of the client's there and no others.
        let [clients, servers] = fleet.stats();
        for (client, server) in clients.iter().zip(&servers) {
            // A handler of each connection, and the one that accepts.
            assert_eq!(server.tasks.spawned, 1 + IN_FLIGHT as u64 + 200);
            assert_eq!((client.tasks_alive, server.tasks_alive), (0, 1 + IN_FLIGHT));
        }
        // Who comes too late does something all the same: a rate of nothing is none.
        for load in Load::ALL {
            let rate = fleet.run(load, Duration::ZERO);
            assert!(rate.per_second > 100.0 && rate.share > 0.0, "{load:?} {rate:?}");
        }
    }

    #[test]
    fn operations_are_as_many_as_were_ordered() {
        for load in Load::ALL {
            operations(load, 100);
        }
    }
}
