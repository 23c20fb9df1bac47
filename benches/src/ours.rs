//! Our side: two stacks and a local cable.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use barewire_driver::cable::{self, CableConfig, LocalQueue};
use barewire_driver::device::{BURST_FRAMES, Features, Queue, RxBurst};
use barewire_driver::mem::CELL_LEN;
use barewire_driver::{MacAddr, PacketSlice, Pool, PoolConfig};
use barewire_stack::neighbor::NeighborConfig;
use barewire_stack::tcp::Readiness;
use barewire_stack::{
    Cidr, Event, Family, IfaceId, Instant, InterfaceConfig, SocketError, SocketId, SocketKind,
    Stack, StackConfig,
};

use crate::{
    MAX_IDLE_TURNS, MESSAGE_BYTES, PATTERN_BYTES, Setup, WIRE_FRAMES, check_pattern, message,
};

/// The addresses of two hosts on a cable.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const PORT: u16 = 80;
const UDP_PORT: u16 = 7;
const BACKLOG: usize = 16;
/// Packet memory of a host, without header cells.
const SLOT_BYTES: u32 = 8 << 20;
const CELLS: u32 = 8192;

/// Virtual time between two short connections: 60 s of TIME-WAIT hold 12,000 of them, fewer than
/// there are ephemeral ports.
pub(crate) const CONNECTION_INTERVAL_NS: u64 = 5_000_000;

pub(crate) struct Host<Q: Queue + ?Sized = LocalQueue> {
    pub(crate) stack: Stack,
    pub(crate) queue: Box<Q>,
    pub(crate) iface: IfaceId,
    rx: RxBurst,
}

/// What a user sets for a device that cuts segments, for frames of 1,500 bytes, or of 9,000.
fn slot_len_for<Q: Queue + ?Sized>(queue: &Q) -> u32 {
    let device = queue.capabilities();
    match (device.features.contains(Features::TSO4), device.mtu) {
        (true, _) => 4096,
        (false, ..=1500) => 2048,
        (false, _) => 9216,
    }
}

impl Host {
    fn new(addr: Ipv4Addr, queue: LocalQueue, setup: &Setup) -> Host {
        let mut config = StackConfig::new(u128::from(addr.to_bits()));
        config.tcp.nodelay = true;
        config.tcp.recv_buffer_bytes = setup.buffer_bytes as u32;
        config.tcp.send_buffer_bytes = setup.buffer_bytes as u32;
        (config.tcp.recv_autotune, config.tcp.send_autotune) = (false, false);
        // What is lent is a file, or an answer: it is longer than a frame.
        let slot_len =
            if setup.in_place && !setup.segmentation { 9216 } else { slot_len_for(&queue) };
        Host::with_slots(addr, Box::new(queue), config, NeighborConfig::default(), slot_len)
    }
}

impl<Q: Queue + ?Sized> Host<Q> {
    pub(crate) fn with_config(addr: Ipv4Addr, queue: Box<Q>, config: StackConfig) -> Host<Q> {
        Host::with_neighbors(addr, queue, config, NeighborConfig::default())
    }

    pub(crate) fn with_neighbors(
        addr: Ipv4Addr,
        queue: Box<Q>,
        config: StackConfig,
        neighbor: NeighborConfig,
    ) -> Host<Q> {
        let slot_len = slot_len_for(&*queue);
        Host::with_slots(addr, queue, config, neighbor, slot_len)
    }

    fn with_slots(
        addr: Ipv4Addr,
        mut queue: Box<Q>,
        config: StackConfig,
        neighbor: NeighborConfig,
        slot_len: u32,
    ) -> Host<Q> {
        let wanted = queue.capabilities();
        let slots = SLOT_BYTES / slot_len;
        let pool = PoolConfig { slots, slot_len, cells: CELLS, try_huge: true };
        let pool = Pool::new(pool).expect("memory for a pool");
        let features = queue.start(&pool, wanted.features).expect("a cable starts");
        let mut stack = Stack::new(config, pool);
        let cidr = Cidr::new(IpAddr::V4(addr), 24).expect("24 bits of 32");
        let iface = InterfaceConfig {
            mtu: wanted.mtu,
            features,
            tso_max_bytes: wanted.tso_max_bytes,
            tx_max_segs: wanted.tx_max_segs,
            neighbor,
            ..InterfaceConfig::ethernet(MacAddr::local(u64::from(addr.to_bits())), cidr)
        };
        let iface = stack.add_interface(iface).expect("room for an interface");
        Host { stack, queue, iface, rx: RxBurst::new() }
    }

    /// Takes in a burst of what has arrived, and says how many frames.
    pub(crate) fn receive(&mut self, now: Instant) -> usize {
        let frames = self.queue.rx_burst(&mut self.rx, BURST_FRAMES).expect("a cable receives");
        if frames > 0 {
            self.stack.handle_burst(now, self.iface, &mut self.rx);
        }
        frames
    }

    /// Fires timers and sends what there is.
    pub(crate) fn send(&mut self, now: Instant) {
        self.stack.handle_timeout(now);
        loop {
            let burst = self.stack.poll_transmit(self.iface);
            if burst.is_empty() || self.queue.tx_burst(burst).expect("a cable sends") == 0 {
                return;
            }
            if !self.stack.wants_transmit() {
                return;
            }
        }
    }

    /// Accepts, answers with what it has read, and closes what its peer has closed.
    pub(crate) fn serve(&mut self, listeners: &[SocketId]) {
        let mut buffer = [0; MESSAGE_BYTES];
        let stack = &mut self.stack;
        while let Some(Event { socket, ready }) = stack.poll_event() {
            if listeners.contains(&socket) {
                while stack.accept(socket).is_ok() {}
            } else if ready.contains(Readiness::READABLE) {
                match stack.read(socket, &mut buffer) {
                    Ok(0) => stack.close(socket).expect("an open socket"),
                    Ok(len) => assert_eq!(stack.write(socket, &buffer[..len]), Ok(len)),
                    Err(error) => assert_eq!(error, SocketError::WouldBlock),
                }
            }
        }
    }

    pub(crate) fn tcp(&mut self) -> SocketId {
        self.stack.socket(SocketKind::Tcp, Family::V4).expect("room for a socket")
    }

    fn udp(&mut self, addr: Ipv4Addr) -> SocketId {
        let id = self.stack.socket(SocketKind::Udp, Family::V4).expect("room for a socket");
        self.stack.bind(id, at(addr, UDP_PORT)).expect("a free port");
        id
    }

    /// True once the socket can be read.
    #[inline(always)]
    fn readable(&mut self, id: SocketId) -> bool {
        let mut readable = false;
        while let Some(Event { socket, ready }) = self.stack.poll_event() {
            readable |= socket == id && ready.contains(Readiness::READABLE);
        }
        readable
    }
}

/// The next deadline of either host.
pub(crate) fn next_deadline<Q: Queue + ?Sized>(hosts: [&Host<Q>; 2]) -> Option<Instant> {
    hosts.into_iter().filter_map(|host| host.stack.poll_at()).min()
}

fn at(addr: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(addr), port)
}

/// Two of our hosts.
pub struct Pair {
    client: Host,
    server: Host,
    now: Instant,
    listener: SocketId,
    /// The established connection's two ends.
    conn: (SocketId, SocketId),
    datagram: (SocketId, SocketId),
    in_place: bool,
    verify: bool,
    pattern: Vec<u8>,
    /// The pattern in the client's packet memory, a slot each.
    slices: Vec<PacketSlice>,
    /// What is to be written next of them, and how far that goes.
    waiting: VecDeque<PacketSlice>,
    lined_up: u64,
    /// What was read without a copy.
    arrived: VecDeque<PacketSlice>,
    scratch: Vec<u8>,
    sent: u64,
    received: u64,
}

impl Pair {
    /// The figures of both hosts, for people.
    pub fn counters(&self) -> [&barewire_stack::StackCounters; 2] {
        [self.client.stack.counters(), self.server.stack.counters()]
    }

    fn advance(&mut self, ns: u64) {
        self.now = Instant::from_nanos(self.now.as_nanos() + ns);
    }

    /// What the client has to say goes to the server.
    fn there(&mut self) -> usize {
        self.advance(1000);
        self.client.send(self.now);
        self.server.receive(self.now)
    }

    /// The way back.
    fn back(&mut self) -> usize {
        self.server.send(self.now);
        self.client.receive(self.now)
    }

    /// Goes on when nothing moves: to the next deadline.
    fn jump(&mut self, idle: &mut usize) {
        *idle += 1;
        assert!(*idle < MAX_IDLE_TURNS, "our stack stalls");
        let next = next_deadline([&self.client, &self.server]);
        self.now = self.now.max(next.unwrap_or(self.now));
    }

    /// Opens a connection and accepts it.
    fn open(&mut self) -> (SocketId, SocketId) {
        let client = self.client.tcp();
        let connecting = self.client.stack.connect(client, at(SERVER, PORT));
        assert_eq!(connecting, Err(SocketError::InProgress));
        let mut idle = 0;
        loop {
            let moved = self.there() + self.back();
            let ready = self.client.stack.readiness(client).expect("an open socket");
            if ready.contains(Readiness::WRITABLE) {
                break;
            }
            if moved == 0 {
                self.jump(&mut idle);
            }
        }
        // The handshake's last ACK.
        self.there();
        let (server, _) = self.server.stack.accept(self.listener).expect("a completed connection");
        (client, server)
    }

    /// One request and its answer.
    fn exchange(&mut self, (client, server): (SocketId, SocketId), round: u64) {
        let request = message(round);
        let mut buffer = [0; MESSAGE_BYTES];
        let sent = self.client.stack.write(client, &request);
        assert_eq!(sent, Ok(MESSAGE_BYTES), "an empty send buffer has room");
        let mut idle = 0;
        loop {
            let mut moved = self.there();
            if self.server.readable(server) {
                let len = self.server.stack.read(server, &mut buffer).expect("readable");
                assert_eq!(self.server.stack.write(server, &buffer[..len]), Ok(len));
            }
            moved += self.back();
            if self.client.readable(client) {
                let len = self.client.stack.read(client, &mut buffer).expect("readable");
                assert!(buffer[..len] == request, "the answer differs");
                return;
            }
            if moved == 0 {
                self.jump(&mut idle);
            }
        }
    }

    /// Writes as much of the stream as fits, up to `end`.
    fn fill(&mut self, end: u64) {
        while self.sent < end {
            let taken = if self.in_place {
                self.line_up(end);
                self.client.stack.write_slices(self.conn.0, &mut self.waiting)
            } else {
                let at = (self.sent % PATTERN_BYTES as u64) as usize;
                let most = (PATTERN_BYTES - at).min((end - self.sent) as usize);
                self.client.stack.write(self.conn.0, &self.pattern[at..at + most])
            };
            match taken {
                Ok(len) => self.sent += len as u64,
                Err(SocketError::WouldBlock) => return,
                Err(error) => panic!("an open connection: {error}"),
            }
        }
    }

    /// Has the next slices of the stream wait to be written, up to `end`.
    fn line_up(&mut self, end: u64) {
        while self.lined_up < end && self.waiting.len() < self.slices.len() {
            let at = (self.lined_up % PATTERN_BYTES as u64) as usize;
            let slot_len = self.client.stack.pool().slot_len();
            let (slot, skip) = (at / slot_len, at % slot_len);
            let slice = &self.slices[slot];
            let most = (slice.len() - skip).min((end - self.lined_up) as usize);
            self.waiting.push_back(slice.slice(skip..skip + most));
            self.lined_up += most as u64;
        }
    }

    /// Reads what has arrived.
    fn drain(&mut self) {
        loop {
            let stack = &mut self.server.stack;
            let read = if self.in_place {
                stack.read_slices(self.conn.1, usize::MAX, &mut self.arrived)
            } else {
                stack.read(self.conn.1, &mut self.scratch)
            };
            let len = match read {
                Ok(len) => len,
                Err(SocketError::WouldBlock) => return,
                Err(error) => panic!("an open connection: {error}"),
            };
            if self.verify {
                let mut at = self.received;
                let copied = if self.in_place { 0 } else { len };
                let pieces = self.arrived.iter().map(|slice| &**slice);
                for bytes in pieces.chain([&self.scratch[..copied]]) {
                    check_pattern(&self.pattern, at, bytes);
                    at += bytes.len() as u64;
                }
            }
            self.arrived.clear();
            self.received += len as u64;
        }
    }

    /// Closes a connection, the client first, until the server's end is gone.
    fn close(&mut self, (client, server): (SocketId, SocketId)) {
        self.client.stack.close(client).expect("an open socket");
        let sockets = self.server.stack.sockets() - 1;
        let (mut idle, mut closed) = (0, false);
        while self.server.stack.sockets() > sockets {
            let mut moved = self.there();
            if !closed && self.server.readable(server) {
                assert_eq!(self.server.stack.read(server, &mut [0; 1]), Ok(0), "the end");
                self.server.stack.close(server).expect("an open socket");
                closed = true;
            }
            moved += self.back();
            if moved == 0 {
                self.jump(&mut idle);
            }
        }
    }
}

impl crate::Pair for Pair {
    const NAME: &str = "ours";

    fn new(setup: &Setup) -> Pair {
        let mut features = Features::SCATTER_GATHER;
        if !setup.software_checksums {
            features |= Features::TX_CHECKSUM | Features::RX_CHECKSUM;
        }
        if setup.segmentation {
            features |= Features::TSO4 | Features::LARGE_RECEIVE;
        }
        let config = CableConfig {
            mtu: setup.mtu,
            features,
            ring_len: WIRE_FRAMES,
            ..CableConfig::new("bench")
        };
        let (a, b) = cable::local(config).expect("a cable");
        let mut client = Host::new(CLIENT, a, setup);
        let mut server = Host::new(SERVER, b, setup);
        let listener = server.tcp();
        server.stack.bind(listener, at(SERVER, PORT)).expect("a free port");
        server.stack.listen(listener, BACKLOG).expect("a bound socket");
        let datagram = (client.udp(CLIENT), server.udp(SERVER));
        let pattern = crate::pattern();
        let slices = pattern
            .chunks(client.stack.pool().slot_len())
            .map(|chunk| client.stack.pool().copy_from(chunk).expect("a free slot").freeze())
            .collect();
        let mut pair = Pair {
            client,
            server,
            now: Instant::from_millis(1),
            listener,
            conn: (listener, listener),
            datagram,
            in_place: setup.in_place,
            verify: setup.verify,
            pattern,
            slices,
            waiting: VecDeque::new(),
            lined_up: 0,
            arrived: VecDeque::new(),
            scratch: vec![0; PATTERN_BYTES],
            sent: 0,
            received: 0,
        };
        if setup.connected {
            pair.conn = pair.open();
        }
        for _ in 0..setup.idle {
            let _kept_open = pair.open();
        }
        pair
    }

    fn echo(&mut self, rounds: u64) {
        for round in 0..rounds {
            self.exchange(self.conn, round);
        }
    }

    fn datagrams(&mut self, rounds: u64) {
        let (client, server) = self.datagram;
        let to = Some(at(SERVER, UDP_PORT));
        let mut buffer = [0; MESSAGE_BYTES];
        for round in 0..rounds {
            let request = message(round);
            self.client.stack.send_to(client, &request, to).expect("an empty queue has room");
            let mut idle = 0;
            loop {
                let mut moved = self.there();
                if self.server.readable(server) {
                    let got = self.server.stack.recv_from(server, &mut buffer).expect("readable");
                    let answer = &buffer[..got.len];
                    self.server.stack.send_to(server, answer, Some(got.from)).expect("room");
                }
                moved += self.back();
                if self.client.readable(client) {
                    let got = self.client.stack.recv_from(client, &mut buffer).expect("readable");
                    assert!(buffer[..got.len] == request, "the answer differs");
                    break;
                }
                if moved == 0 {
                    self.jump(&mut idle);
                }
            }
        }
    }

    fn connections(&mut self, rounds: u64) {
        for round in 0..rounds {
            let ends = self.open();
            self.exchange(ends, round);
            self.close(ends);
            self.advance(CONNECTION_INTERVAL_NS);
        }
    }

    fn bulk(&mut self, bytes: u64) {
        let end = self.received + bytes;
        let mut idle = 0;
        while self.received < end {
            let before = self.received;
            self.fill(end);
            self.there();
            self.drain();
            self.back();
            if self.received == before {
                self.jump(&mut idle);
            } else {
                idle = 0;
            }
        }
    }
}

impl crate::Resting for Pair {
    fn rest(&mut self) {
        let until = Instant::from_nanos(self.now.as_nanos() + crate::REST.as_nanos() as u64);
        while self.now < until {
            if self.there() + self.back() > 0 {
                continue;
            }
            let next = next_deadline([&self.client, &self.server]);
            self.now = next.unwrap_or(until).max(self.now).min(until);
        }
        self.there();
        self.back();
    }

    fn packet_bytes(&self) -> usize {
        let held = |host: &Host| {
            let pool = host.stack.pool();
            let slots = pool.total_slots() - pool.free_slots();
            let cells = CELLS as usize - pool.free_cells();
            slots * pool.slot_len() + cells * CELL_LEN
        };
        held(&self.client) + held(&self.server)
    }
}
