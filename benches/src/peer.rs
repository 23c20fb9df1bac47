//! The peer: two smoltcp interfaces and a wire of reused buffers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use smoltcp::iface::{
    Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet,
};
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::phy::{RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpEndpoint};

use crate::{
    MAX_IDLE_TURNS, MESSAGE_BYTES, PATTERN_BYTES, Setup, WIRE_FRAMES, check_pattern, message,
};

/// How long it keeps an ACK back: as long as we do.
pub(crate) const ACK_DELAY: Duration = Duration::from_millis(40);

const CLIENT: IpAddress = IpAddress::v4(10, 0, 0, 1);
const SERVER: IpAddress = IpAddress::v4(10, 0, 0, 2);
const PORT: u16 = 80;
const UDP_PORT: u16 = 7;
const ETHERNET_LEN: usize = 14;

/// Connections that are opened at once: it looks at every socket in every turn, so that one after
/// the other would take minutes. Their frames fit the wire.
const OPEN_AT_ONCE: usize = WIRE_FRAMES / 2;

/// Frames on their way in one direction, and buffers to fill.
struct Lane {
    frames: VecDeque<(Box<[u8]>, usize)>,
    spare: Vec<Box<[u8]>>,
}

impl Lane {
    fn new(frame_len: usize) -> Rc<RefCell<Lane>> {
        let spare = (0..WIRE_FRAMES).map(|_| vec![0; frame_len].into_boxed_slice()).collect();
        Rc::new(RefCell::new(Lane { frames: VecDeque::with_capacity(WIRE_FRAMES), spare }))
    }
}

/// One end of the wire. A buffer that was read goes back to the sender, last in, first out, so
/// that a short queue stays in the processor's cache.
struct Wire {
    inbound: Rc<RefCell<Lane>>,
    outbound: Rc<RefCell<Lane>>,
    capabilities: DeviceCapabilities,
}

struct Received<'a>(&'a RefCell<Lane>);
struct Sending<'a>(&'a RefCell<Lane>);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        // The lane is free again while the frame is looked at.
        let front = self.0.borrow_mut().frames.pop_front();
        let Some((buffer, len)) = front else { unreachable!("a token was made for a frame") };
        let result = f(&buffer[..len]);
        self.0.borrow_mut().spare.push(buffer);
        result
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let spare = self.0.borrow_mut().spare.pop();
        let Some(mut buffer) = spare else { unreachable!("a token was made for a buffer") };
        let result = f(&mut buffer[..len]);
        self.0.borrow_mut().frames.push_back((buffer, len));
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        let ready = !self.inbound.borrow().frames.is_empty();
        let room = !self.outbound.borrow().spare.is_empty();
        (ready && room).then(|| (Received(&self.inbound), Sending(&self.outbound)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Sending<'_>> {
        (!self.outbound.borrow().spare.is_empty()).then(|| Sending(&self.outbound))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.clone()
    }
}

struct Host {
    iface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
}

impl Host {
    fn new(addr: IpAddress, mut wire: Wire) -> Host {
        let IpAddress::Ipv4(v4) = addr;
        let mac = EthernetAddress([2, 0, 0, 0, 0, v4.octets()[3]]);
        let mut config = Config::new(HardwareAddress::Ethernet(mac));
        config.random_seed = u64::from(v4.octets()[3]);
        let mut iface = Interface::new(config, &mut wire, Instant::ZERO);
        iface.update_ip_addrs(|addrs| addrs.push(IpCidr::new(addr, 24)).expect("room for one"));
        Host { iface, wire, sockets: SocketSet::new(Vec::new()) }
    }

    /// Takes in what has arrived, and says how many frames.
    fn receive(&mut self, now: Instant) -> usize {
        let mut frames = 0;
        while self.iface.poll_ingress_single(now, &mut self.wire, &mut self.sockets)
            != PollIngressSingleResult::None
        {
            frames += 1;
        }
        frames
    }

    /// Sends what there is.
    fn send(&mut self, now: Instant) {
        while self.iface.poll_egress(now, &mut self.wire, &mut self.sockets) != PollResult::None {}
    }

    fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn udp(&mut self, handle: SocketHandle) -> &mut udp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn add_tcp(&mut self, buffer_bytes: usize) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; buffer_bytes]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        // Its default depends on what else is compiled in.
        socket.set_congestion_control(tcp::CongestionControl::None);
        socket.set_ack_delay(Some(ACK_DELAY));
        self.sockets.add(socket)
    }

    fn add_udp(&mut self) -> SocketHandle {
        let buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 16 << 10]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(UDP_PORT).expect("a free port");
        self.sockets.add(socket)
    }
}

/// Two smoltcp hosts.
pub struct Pair {
    client: Host,
    server: Host,
    now: Instant,
    /// The connection's two ends: established, or those of connections that come and go.
    conn: (SocketHandle, SocketHandle),
    /// Made when first used.
    datagram: Option<(SocketHandle, SocketHandle)>,
    next_port: u16,
    in_place: bool,
    verify: bool,
    pattern: Vec<u8>,
    scratch: Vec<u8>,
    sent: u64,
    received: u64,
}

impl Pair {
    fn tick(&mut self) {
        self.now += Duration::from_micros(1);
    }

    /// What the client has to say goes to the server.
    fn there(&mut self) -> usize {
        self.tick();
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
        assert!(*idle < MAX_IDLE_TURNS, "smoltcp stalls");
        let (now, hosts) = (self.now, [&mut self.client, &mut self.server]);
        let next = hosts.into_iter().filter_map(|h| h.iface.poll_at(now, &h.sockets)).min();
        self.now = self.now.max(next.unwrap_or(self.now));
    }

    fn ephemeral_port(&mut self) -> u16 {
        self.next_port = if self.next_port == u16::MAX { 49_152 } else { self.next_port + 1 };
        self.next_port
    }

    /// Opens a connection between two closed sockets.
    fn open(&mut self, ends: (SocketHandle, SocketHandle)) {
        self.open_all(&[ends]);
    }

    /// The same for several pairs of them.
    fn open_all(&mut self, ends: &[(SocketHandle, SocketHandle)]) {
        for &(client, server) in ends {
            let from = self.ephemeral_port();
            self.server.tcp(server).listen(PORT).expect("a closed socket");
            let Host { iface, sockets, .. } = &mut self.client;
            let socket = sockets.get_mut::<tcp::Socket<'_>>(client);
            socket.connect(iface.context(), (SERVER, PORT), from).expect("a closed socket");
        }
        let mut idle = 0;
        for &(client, _) in ends {
            while !self.client.tcp(client).may_send() {
                if self.there() + self.back() == 0 {
                    self.jump(&mut idle);
                }
            }
        }
    }

    /// One request and its answer.
    fn exchange(&mut self, (client, server): (SocketHandle, SocketHandle), round: u64) {
        let request = message(round);
        let mut buffer = [0; MESSAGE_BYTES];
        let sent = self.client.tcp(client).send_slice(&request);
        assert_eq!(sent, Ok(MESSAGE_BYTES), "an empty send buffer has room");
        let mut idle = 0;
        loop {
            let mut moved = self.there();
            let socket = self.server.tcp(server);
            if socket.can_recv() {
                let len = socket.recv_slice(&mut buffer).expect("readable");
                assert_eq!(socket.send_slice(&buffer[..len]), Ok(len));
            }
            moved += self.back();
            let socket = self.client.tcp(client);
            if socket.can_recv() {
                let len = socket.recv_slice(&mut buffer).expect("readable");
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
        let (verify, in_place) = (self.verify, self.in_place);
        let socket = self.client.sockets.get_mut::<tcp::Socket<'_>>(self.conn.0);
        while self.sent < end && socket.can_send() {
            let at = (self.sent % PATTERN_BYTES as u64) as usize;
            let most = (PATTERN_BYTES - at).min((end - self.sent) as usize);
            let bytes = &self.pattern[at..at + most];
            let taken = if in_place {
                socket.send(|room| {
                    let len = room.len().min(most);
                    if verify {
                        room[..len].copy_from_slice(&bytes[..len]);
                    }
                    (len, len)
                })
            } else {
                socket.send_slice(bytes)
            };
            self.sent += taken.expect("an open connection") as u64;
        }
    }

    /// Reads what has arrived.
    fn drain(&mut self) {
        let (verify, in_place) = (self.verify, self.in_place);
        let socket = self.server.sockets.get_mut::<tcp::Socket<'_>>(self.conn.1);
        while socket.can_recv() {
            let (pattern, offset) = (&self.pattern, self.received);
            let look = |bytes: &[u8]| {
                if verify {
                    check_pattern(pattern, offset, bytes);
                }
                bytes.len()
            };
            let len = if in_place {
                socket.recv(|bytes| (bytes.len(), look(bytes)))
            } else {
                let scratch = &mut self.scratch;
                socket.recv_slice(scratch).map(|len| look(&scratch[..len]))
            };
            self.received += len.expect("readable") as u64;
        }
    }
}

impl crate::Pair for Pair {
    const NAME: &str = "smoltcp";

    fn new(setup: &Setup) -> Pair {
        // It has no segmentation offload that cuts on reception: a large MTU is as good.
        let mtu = if setup.segmentation { 65_535 } else { usize::from(setup.mtu) };
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = mtu + ETHERNET_LEN;
        if !setup.software_checksums {
            // The IPv4 header's is always software's, as at our side.
            let mut checksum = ChecksumCapabilities::default();
            checksum.tcp = Checksum::None;
            checksum.udp = Checksum::None;
            capabilities.checksum = checksum;
        }
        let (a, b) = (Lane::new(mtu + ETHERNET_LEN), Lane::new(mtu + ETHERNET_LEN));
        let wire = |inbound: &Rc<RefCell<Lane>>, outbound: &Rc<RefCell<Lane>>| Wire {
            inbound: Rc::clone(inbound),
            outbound: Rc::clone(outbound),
            capabilities: capabilities.clone(),
        };
        let mut client = Host::new(CLIENT, wire(&a, &b));
        let mut server = Host::new(SERVER, wire(&b, &a));
        let bytes = setup.buffer_bytes;
        // The measured sockets come first in the set, where they are found first.
        let conn = (client.add_tcp(bytes), server.add_tcp(bytes));
        let mut pair = Pair {
            client,
            server,
            now: Instant::ZERO,
            conn,
            datagram: None,
            next_port: 49_151,
            in_place: setup.in_place,
            verify: setup.verify,
            pattern: crate::pattern(),
            scratch: vec![0; PATTERN_BYTES],
            sent: 0,
            received: 0,
        };
        if setup.connected {
            pair.open(conn);
        }
        let mut rest = setup.idle;
        while rest > 0 {
            let many = rest.min(OPEN_AT_ONCE);
            let both = |_| (pair.client.add_tcp(bytes), pair.server.add_tcp(bytes));
            let ends: Vec<_> = (0..many).map(both).collect();
            pair.open_all(&ends);
            rest -= many;
        }
        pair
    }

    fn echo(&mut self, rounds: u64) {
        for round in 0..rounds {
            self.exchange(self.conn, round);
        }
    }

    fn datagrams(&mut self, rounds: u64) {
        let to = IpEndpoint::new(SERVER, UDP_PORT);
        let (client, server) =
            *self.datagram.get_or_insert_with(|| (self.client.add_udp(), self.server.add_udp()));
        let mut buffer = [0; MESSAGE_BYTES];
        for round in 0..rounds {
            let request = message(round);
            let socket = self.client.udp(client);
            socket.send_slice(&request, to).expect("an empty queue has room");
            let mut idle = 0;
            loop {
                let mut moved = self.there();
                let socket = self.server.udp(server);
                if socket.can_recv() {
                    let (len, from) = socket.recv_slice(&mut buffer).expect("readable");
                    socket.send_slice(&buffer[..len], from.endpoint).expect("room");
                }
                moved += self.back();
                let socket = self.client.udp(client);
                if socket.can_recv() {
                    let (len, _from) = socket.recv_slice(&mut buffer).expect("readable");
                    assert!(buffer[..len] == request, "the answer differs");
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
            self.open(self.conn);
            self.exchange(self.conn, round);
            let (client, server) = self.conn;
            self.client.tcp(client).close();
            let mut idle = 0;
            while self.server.tcp(server).is_open() {
                let mut moved = self.there();
                let socket = self.server.tcp(server);
                if !socket.may_recv() {
                    socket.close();
                }
                moved += self.back();
                if moved == 0 {
                    self.jump(&mut idle);
                }
            }
            // The client's socket stands in TIME-WAIT, from where it is opened again at once.
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
        let until = self.now + Duration::from_micros(crate::REST.as_micros() as u64);
        while self.now < until {
            if self.there() + self.back() > 0 {
                continue;
            }
            let (now, hosts) = (self.now, [&mut self.client, &mut self.server]);
            let next = hosts.into_iter().filter_map(|h| h.iface.poll_at(now, &h.sockets)).min();
            self.now = next.unwrap_or(until).max(now).min(until);
        }
    }

    fn packet_bytes(&self) -> usize {
        // Its buffers are the sockets' own, on the heap.
        0
    }
}
