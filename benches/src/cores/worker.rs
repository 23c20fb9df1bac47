//! What one core does: it drives an engine of either host in turn.

use std::rc::Rc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use barewire_driver::sys::{ClockHand, pin_to_core};
use barewire_stack::engine::{Engine, Turn};

use super::handlers::{self, Ledger};
use super::{IN_FLIGHT, Load, Order, Rate, Seeds};
use crate::measure::thread_time;

/// How long a worker may be late: what takes longer is a stall.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two turns of a core that has no orders, for others may need an answer from it.
const REST: Duration = Duration::from_millis(1);

/// What a clock that is turned by hand moves with each turn.
const TURN: Duration = Duration::from_micros(1);

/// The engines of one core.
pub(super) struct Worker {
    client: Engine,
    server: Engine,
    ledger: Rc<Ledger>,
    /// Turns the engines' clock, if it does not go by itself.
    hand: Option<ClockHand>,
}

impl Worker {
    /// The worker's thread: opens its connections, tells so, and does what it is ordered to.
    pub(super) fn run(
        seeds: Seeds,
        processor: usize,
        orders: &Receiver<Order>,
        tell: &Sender<Rate>,
    ) {
        pin_to_core(processor).expect("a processor that may be used");
        let mut worker = Worker::open(seeds, None);
        let _ = tell.send(Rate::NOTHING);
        while let Some(order) = worker.next_order(orders) {
            let (begin, ran) = (Instant::now(), thread_time());
            let done = worker.work(order);
            let (took, ran) = (begin.elapsed(), thread_time() - ran);
            let (took, ran) = (took.as_secs_f64(), ran.as_secs_f64());
            worker.check();
            let _ = tell.send(Rate { per_second: done as f64 / ran, share: ran / took });
        }
    }

    /// Does this many operations and nothing else.
    pub(super) fn count(seeds: Seeds, hand: ClockHand, load: Load, operations: u64) {
        let mut worker = Worker::open(seeds, Some(hand));
        let until = Instant::now() + PATIENCE;
        let done = worker.work(Order { load, operations, until });
        assert_eq!(done, operations, "operations that were ordered");
        worker.check();
    }

    /// The engines with their connections that stay. Addresses are asked for here, which other cores
    /// hear.
    fn open(seeds: Seeds, hand: Option<ClockHand>) -> Worker {
        let [client, server] = seeds.map(|seed| seed.open().expect("memory for an engine"));
        let ledger = Rc::new(Ledger::default());
        let mut worker = Worker { client, server, ledger, hand };
        let Worker { client, server, ledger, .. } = &worker;
        // Before a client of this core asks: another core may have told it the server's address.
        let listener = handlers::listen(server.core());
        server.core().spawn(handlers::serve(server.core().clone(), listener));
        for _ in 0..IN_FLIGHT {
            client.core().spawn(handlers::open(client.core().clone(), ledger.clone()));
        }
        worker.finish(Instant::now());
        assert_eq!(worker.ledger.ends().len(), IN_FLIGHT, "connections that stay");
        worker
    }

    /// Waits for an order.
    fn next_order(&mut self, orders: &Receiver<Order>) -> Option<Order> {
        loop {
            match orders.recv_timeout(REST) {
                Ok(order) => return Some(order),
                Err(RecvTimeoutError::Timeout) => self.turn(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Has the clients do what is ordered; says how many operations that were.
    fn work(&mut self, Order { load, operations, until }: Order) -> u64 {
        let before = self.ledger.done();
        self.ledger.allow(operations);
        for end in self.ledger.ends() {
            let (core, ledger) = (self.client.core().clone(), self.ledger.clone());
            match load {
                Load::Echo => self.client.core().spawn(handlers::echo(core, end, ledger)),
                Load::Connections => self.client.core().spawn(handlers::connections(core, ledger)),
            };
        }
        self.finish(until);
        self.ledger.done() - before
    }

    /// Makes turns until all clients have ended, and their connections but those that stay. From
    /// `until` on they begin nothing more; each begins at least one thing, however late its thread
    /// is.
    fn finish(&mut self, until: Instant) {
        let (client, server) = (self.client.core().clone(), self.server.core().clone());
        // One accepts.
        while client.tasks() > 0 || server.tasks() != IN_FLIGHT + 1 {
            self.turn();
            let now = Instant::now();
            if now >= until {
                self.ledger.allow(0);
                assert!(now < until + PATIENCE, "a core stalls");
            }
        }
    }

    /// A turn of each engine. Where neither found anything to do, another core may have to run first.
    fn turn(&mut self) {
        if let Some(hand) = &self.hand {
            hand.advance(TURN);
        }
        let turns = [self.client.turn(), self.server.turn()];
        assert!(!turns.contains(&Turn::Over), "an engine has ended");
        if turns == [Turn::Idle; 2] {
            std::thread::yield_now();
        }
    }

    /// Looks at what must not have happened.
    fn check(&self) {
        for stats in [self.client.stats(), self.server.stats()] {
            assert_eq!(stats.tasks.panicked, 0, "a handler failed");
            let crossed = stats.run.forwarded_in - stats.run.forwarded_arp;
            assert_eq!(crossed, 0, "a flow's frame was at another engine");
            assert_eq!(stats.run.forward_dropped, 0, "a frame was lost between engines");
        }
        // Beside the handler that accepts there is one of each connection.
        let accepted = self.server.stats().tasks.spawned - 1;
        assert_eq!(accepted, self.ledger.opened(), "the server's connections are this core's");
    }
}
