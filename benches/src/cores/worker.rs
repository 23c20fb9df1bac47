//! What one core does: an engine of either host, driven in turns on a virtual clock of the core's
//! own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant as WallClock};

use barewire_driver::sys::pin_to_core;
use barewire_driver::{Queue, QueueSeed};
use barewire_stack::neighbor::NeighborConfig;
use barewire_stack::tcp::Readiness;
use barewire_stack::{
    Event, ForwardKind, Instant, Share, SocketError, SocketId, Stack, StackConfig,
};

use super::{IN_FLIGHT, Load, Order, Rate};
use crate::measure::thread_time;
use crate::ours::{CLIENT, CONNECTION_INTERVAL_NS, Host, SERVER, next_deadline};
use crate::{MAX_IDLE_TURNS, MESSAGE_BYTES, message};

const PORT: u16 = 80;

/// No neighbour is asked for twice: the engine that hears the answer may be on a core that has
/// nothing to do at the time.
const REACHABLE: Duration = Duration::from_secs(1 << 24);

/// How long to wait for the other cores while connections are opened.
const SETUP_LIMIT: Duration = Duration::from_secs(30);

/// What engines hand over to each other: which host's it is, and what.
pub(super) struct Letter {
    host: usize,
    kind: ForwardKind,
    packet: Vec<u8>,
}

/// What a worker begins with. The client's part comes first.
pub(super) struct Part {
    pub(super) processor: usize,
    pub(super) queues: [Box<dyn QueueSeed>; 2],
    pub(super) shares: [Share; 2],
    pub(super) posts: Vec<Sender<Letter>>,
    pub(super) inbox: Receiver<Letter>,
}

/// The engines of one core.
pub(super) struct Worker {
    client: Host<dyn Queue>,
    server: Host<dyn Queue>,
    now: Instant,
    listener: SocketId,
    /// The client's ends of what is open all the time.
    ends: Vec<SocketId>,
    round: u64,
    posts: Vec<Sender<Letter>>,
    inbox: Receiver<Letter>,
}

fn host(addr: Ipv4Addr, queue: Box<dyn QueueSeed>, share: Share) -> Host<dyn Queue> {
    let seed = u128::from(addr.to_bits()) << 16 | u128::from(share.engine());
    let mut config = StackConfig { share, ..StackConfig::new(seed) };
    config.tcp.nodelay = true;
    config.ephemeral_ports = 1024..=65_535;
    let neighbor = NeighborConfig { reachable: REACHABLE, ..NeighborConfig::default() };
    Host::with_neighbors(addr, queue.open(), config, neighbor)
}

impl Worker {
    /// The worker's thread: opens its connections, tells so, and does what it is ordered to.
    pub(super) fn run(part: Part, orders: &Receiver<Order>, tell: &Sender<Rate>) {
        pin_to_core(part.processor).expect("a processor that may be used");
        let mut worker = Worker::new(part);
        worker.open();
        let _ = tell.send(Rate { per_second: 0.0, share: 1.0 });
        while let Some((load, until)) = worker.next_order(orders) {
            let (begin, ran) = (WallClock::now(), thread_time());
            let done = worker.work(load, until);
            let (took, ran) = (begin.elapsed(), thread_time() - ran);
            let (took, ran) = (took.as_secs_f64(), ran.as_secs_f64());
            let _ = tell.send(Rate { per_second: done as f64 / ran, share: ran / took });
        }
    }

    fn new(part: Part) -> Worker {
        let Part { queues: [near, far], shares: [client, server], posts, inbox, .. } = part;
        let client = host(CLIENT, near, client);
        let mut server = host(SERVER, far, server);
        let listener = server.tcp();
        let share_port = barewire_stack::SocketOption::ReusePort(true);
        server.stack.set_option(listener, share_port).expect("a new socket");
        server.stack.bind(listener, at_server()).expect("a free port");
        server.stack.listen(listener, 2 * IN_FLIGHT).expect("a bound socket");
        Worker {
            client,
            server,
            now: Instant::from_millis(1),
            listener,
            ends: Vec::new(),
            round: 0,
            posts,
            inbox,
        }
    }

    /// Waits for an order; meanwhile other cores may need an answer from this one.
    fn next_order(&mut self, orders: &Receiver<Order>) -> Option<Order> {
        loop {
            match orders.recv_timeout(Duration::from_millis(1)) {
                Ok(order) => return Some(order),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    self.turn(&mut |_, _, _| {});
                }
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Opens the connections that stay. Addresses are asked for here, which other cores hear.
    fn open(&mut self) {
        let give_up = WallClock::now() + SETUP_LIMIT;
        let mut open = 0;
        self.ends = (0..IN_FLIGHT).map(|_| self.connect()).collect();
        while open < IN_FLIGHT || self.server.stack.sockets() <= IN_FLIGHT {
            assert!(WallClock::now() < give_up, "the other cores do not answer");
            let moved = self.turn(&mut |_, _, ready| {
                open += usize::from(ready.contains(Readiness::WRITABLE));
            });
            if moved == 0 {
                std::thread::yield_now();
            }
        }
    }

    fn connect(&mut self) -> SocketId {
        let id = self.client.tcp();
        assert_eq!(self.client.stack.connect(id, at_server()), Err(SocketError::InProgress));
        id
    }

    fn work(&mut self, load: Load, until: WallClock) -> u64 {
        let mut done = 0;
        match load {
            Load::Echo => done = self.echo(until),
            Load::Connections => {
                while WallClock::now() < until {
                    done += self.batch();
                }
            }
        }
        done
    }

    /// Requests and answers on all connections that stay, each followed by the next until then.
    fn echo(&mut self, until: WallClock) -> u64 {
        let (mut round, mut answers, mut waiting) = (self.round, 0, self.ends.len());
        for &end in &self.ends {
            round += 1;
            ask(&mut self.client.stack, end, round);
        }
        while waiting > 0 {
            let over = WallClock::now() >= until;
            self.turn_or_jump(&mut |stack, socket, ready| {
                if !ready.contains(Readiness::READABLE) {
                    return;
                }
                take_answer(stack, socket);
                answers += 1;
                if over {
                    waiting -= 1;
                } else {
                    round += 1;
                    ask(stack, socket, round);
                }
            });
        }
        self.round = round;
        answers
    }

    /// A batch of connections from their first SYN until both ends are closed.
    fn batch(&mut self) -> u64 {
        let others = self.server.stack.sockets();
        for _ in 0..IN_FLIGHT {
            self.connect();
        }
        let (mut round, mut answers) = (self.round, 0);
        while answers < IN_FLIGHT || self.server.stack.sockets() > others {
            self.turn_or_jump(&mut |stack, socket, ready| {
                if ready.contains(Readiness::READABLE) {
                    take_answer(stack, socket);
                    stack.close(socket).expect("an open socket");
                    answers += 1;
                } else if ready.contains(Readiness::WRITABLE) {
                    round += 1;
                    ask(stack, socket, round);
                }
            });
        }
        self.round = round;
        let interval = CONNECTION_INTERVAL_NS * IN_FLIGHT as u64;
        self.now = Instant::from_nanos(self.now.as_nanos() + interval);
        IN_FLIGHT as u64
    }

    /// A turn; the clock jumps to the next deadline when nothing moves.
    fn turn_or_jump(&mut self, heard: &mut dyn FnMut(&mut Stack, SocketId, Readiness)) {
        for _ in 0..MAX_IDLE_TURNS {
            if self.turn(heard) > 0 {
                return;
            }
            let next = next_deadline([&self.client, &self.server]);
            self.now = self.now.max(next.unwrap_or(self.now));
        }
        panic!("a core stalls");
    }

    /// What both engines have to say goes over the cable; events of the client's sockets go to
    /// `heard`. Gives how many frames that were.
    fn turn(&mut self, heard: &mut dyn FnMut(&mut Stack, SocketId, Readiness)) -> usize {
        self.now = Instant::from_nanos(self.now.as_nanos() + 1000);
        self.client.send(self.now);
        let there = self.server.receive(self.now);
        self.server.serve(&[self.listener]);
        self.server.send(self.now);
        let back = self.client.receive(self.now);
        while let Some(Event { socket, ready }) = self.client.stack.poll_event() {
            heard(&mut self.client.stack, socket, ready);
        }
        self.exchange_letters();
        there + back
    }

    /// Hands over what other engines of the hosts are to hear, and takes in what they have heard.
    fn exchange_letters(&mut self) {
        for (host, stack) in
            [&mut self.client.stack, &mut self.server.stack].into_iter().enumerate()
        {
            while let Some(forward) = stack.poll_forward() {
                assert_eq!(forward.kind, ForwardKind::Arp, "a flow's frame is at another engine");
                let packet = forward.packet.iter().flat_map(|piece| piece.iter().copied());
                let letter = Letter { host, kind: forward.kind, packet: packet.collect() };
                let _ = self.posts[usize::from(forward.engine)].send(letter);
            }
        }
        while let Ok(Letter { host, kind, packet }) = self.inbox.try_recv() {
            let host = [&mut self.client, &mut self.server].into_iter().nth(host);
            let Some(Host { stack, iface, .. }) = host else { continue };
            let packet = stack.pool().copy_from(&packet).expect("a free slot").freeze();
            stack.handle_forwarded(self.now, *iface, kind, &[packet], true);
        }
    }
}

fn at_server() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(SERVER), PORT)
}

fn ask(stack: &mut Stack, socket: SocketId, round: u64) {
    assert_eq!(stack.write(socket, &message(round)), Ok(MESSAGE_BYTES), "room for a request");
}

fn take_answer(stack: &mut Stack, socket: SocketId) {
    assert_eq!(stack.read(socket, &mut [0; MESSAGE_BYTES]), Ok(MESSAGE_BYTES), "a whole answer");
}
