//! Many cores: two hosts, each with an engine on every core, over a cable with as many queues.
//!
//! ```text
//!   core 0:  client engine 0 ◀─ queue 0 ═ cable ═ queue 0 ─▶ server engine 0
//!   core 1:  client engine 1 ◀─ queue 1 ═ cable ═ queue 1 ─▶ server engine 1
//!                    └─ one address, one registry of ports ─┘
//! ```
//!
//! The engines of a host have its address, its ports and its secrets in common, and the queues of a
//! cable their cable; nothing else. Whatever cores have to wait for each other at is in the figure:
//! with one core and with two the same is done on each of them, so that twice the rate is what there
//! is to reach. The cable hashes under a symmetric key, as a card can be told to, so that the server's
//! engine on a core is the one that the client's engine there talks to: how long a cache line takes
//! from core to core is no property of a stack.
//!
//! Rates are of the time that the threads have run. On a machine that has other things to do it is
//! less than the time that has passed, and [`Rate::share`] says how much.

mod worker;

use std::ops::Add;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use barewire_driver::cable::{self, CableConfig};
use barewire_driver::rss::SYMMETRIC_KEY;
use barewire_driver::{Device, Features, QueueId};
use barewire_stack::Share;

use crate::WIRE_FRAMES;
use worker::{Part, Worker};

/// What each core does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// 64-byte requests and answers over [`IN_FLIGHT`] connections, one in flight on each.
    Echo,
    /// [`IN_FLIGHT`] connections at once: connect, request, answer, close, real TIME-WAIT.
    Connections,
}

/// Connections that a core has at once.
pub const IN_FLIGHT: usize = 32;

/// What cores have done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Operations of all cores together, each in a second that its thread has run.
    pub per_second: f64,
    /// The least part of the time that a thread has run: less than all of it means that a core had
    /// other things to do.
    pub share: f64,
}

impl Add for Rate {
    type Output = Rate;

    fn add(self, other: Rate) -> Rate {
        let per_second = self.per_second + other.per_second;
        Rate { per_second, share: self.share.min(other.share) }
    }
}

/// An order for a worker: do this until then.
type Order = (Load, Instant);

/// Two hosts with an engine each on some cores.
pub struct Fleet {
    orders: Vec<Sender<Order>>,
    rates: Receiver<Rate>,
    threads: Vec<JoinHandle<()>>,
}

impl Fleet {
    /// Two hosts whose engines are on these processors, with connections between them.
    ///
    /// # Panics
    /// As every method, if the hosts stop making progress or a frame reaches an engine that does
    /// not own its flow.
    pub fn new(processors: &[usize]) -> Fleet {
        let count = u16::try_from(processors.len()).expect("no more processors than queues");
        let config = CableConfig {
            queues: count,
            features: Features::SCATTER_GATHER,
            ring_len: WIRE_FRAMES,
            rss_key: SYMMETRIC_KEY,
            ..CableConfig::new("cores")
        };
        let (a, b) = cable::pair(config).expect("a cable");
        let steering = a.steering().map(Arc::new);
        let (clients, servers) = (Share::group(1, count), Share::group(2, count));
        let (posts, boxes): (Vec<_>, Vec<_>) = processors.iter().map(|_| channel()).unzip();
        let (tell, rates) = channel();
        let mut fleet = Fleet { orders: Vec::new(), rates, threads: Vec::new() };
        let shares = clients.into_iter().zip(servers);
        for (((index, &processor), shares), inbox) in
            (0..count).zip(processors).zip(shares).zip(boxes)
        {
            let steered = |share: Share| share.steered_by(steering.clone());
            let part = Part {
                processor,
                queues: [&a, &b].map(|end| end.queue(QueueId(index)).expect("its own queue")),
                shares: [steered(shares.0), steered(shares.1)],
                posts: posts.clone(),
                inbox,
            };
            let (order, orders) = channel();
            let tell = tell.clone();
            fleet.orders.push(order);
            fleet.threads.push(std::thread::spawn(move || Worker::run(part, &orders, &tell)));
        }
        // Each tells when its connections are open.
        for _ in 0..count {
            fleet.next_rate();
        }
        fleet
    }

    /// Has all cores do `load` for `time`.
    pub fn run(&mut self, load: Load, time: Duration) -> Rate {
        let until = Instant::now() + time;
        for order in &self.orders {
            order.send((load, until)).expect("a worker that lives");
        }
        let nothing = Rate { per_second: 0.0, share: 1.0 };
        (0..self.orders.len()).fold(nothing, |sum, _| sum + self.next_rate())
    }

    fn next_rate(&self) -> Rate {
        self.rates.recv().expect("a worker that lives")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_do_their_work_without_a_frame_between_them() {
        let allowed = barewire_driver::sys::allowed_cores().unwrap();
        // Two engines take turns on one processor just as well.
        let processors = [allowed[0], *allowed.last().unwrap()];
        let mut fleet = Fleet::new(&processors);
        for load in [Load::Echo, Load::Connections, Load::Echo] {
            let rate = fleet.run(load, Duration::from_millis(50));
            assert!(rate.per_second > 100.0 && rate.share > 0.0, "{load:?} {rate:?}");
        }
    }
}
