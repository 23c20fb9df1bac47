//! A server, a client that means no harm, and an attacker who sends what he likes and sees what
//! comes back to him, all on virtual time and raw IP packets.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use barewire_driver::{Pool, PoolConfig};
use barewire_stack::interface::{IfaceId, InterfaceConfig};
use barewire_stack::wire::ipv4::Ipv4Header;
use barewire_stack::wire::tcp::{TcpFlags, TcpHeader, Timestamps};
use barewire_stack::wire::{protocol, pseudo_header};
use barewire_stack::{
    Cidr, Family, Instant, SocketError, SocketId, SocketKind, Stack, StackConfig,
};

pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// An address whose packets the attacker sees.
pub(crate) const ATTACKER: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);

/// One way between any two hosts.
pub(crate) const DELAY: Duration = Duration::from_millis(5);

/// Packets to the attacker that are kept; the oldest go first.
const SEEN_MAX: usize = 200_000;

/// A packet that a host sent to neither of the others.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) to: Ipv4Addr,
    pub(crate) tcp: Option<TcpHeader>,
    /// Bytes behind the IP header.
    pub(crate) len: usize,
}

pub(crate) struct Bench {
    pub(crate) server: Stack,
    pub(crate) client: Stack,
    pub(crate) now: Instant,
    pub(crate) seen: VecDeque<Seen>,
    /// Packets that the server has sent to anyone, and the client.
    pub(crate) sent: [u64; 2],
    /// The sequence number of the client's last TCP segment.
    pub(crate) last_seq_of_client: u32,
    /// Its timestamps and acknowledgment number.
    pub(crate) last_of_client: (Timestamps, u32),
    ifaces: [IfaceId; 2],
    wire: VecDeque<(Instant, Vec<u8>)>,
}

fn stack(addr: Ipv4Addr, config: StackConfig, slots: u32) -> (Stack, IfaceId) {
    let pool = PoolConfig { slots, slot_len: 2048, cells: slots, try_huge: false };
    let mut stack = Stack::new(config, Pool::new(pool).unwrap());
    let cidr = Cidr::new(addr.into(), 24).unwrap();
    let iface = stack.add_interface(InterfaceConfig::ip(cidr)).unwrap();
    let all = Cidr::new(Ipv4Addr::UNSPECIFIED.into(), 0).unwrap();
    stack.add_route(all, None, iface).unwrap();
    (stack, iface)
}

impl Bench {
    pub(crate) fn new() -> Bench {
        Bench::with(4096, |_| {})
    }

    /// A server with `slots` slots of packet memory and settings of its own.
    pub(crate) fn with(slots: u32, change: impl FnOnce(&mut StackConfig)) -> Bench {
        let mut config = StackConfig::new(2);
        change(&mut config);
        let (server, server_if) = stack(SERVER, config, slots);
        let (client, client_if) = stack(CLIENT, StackConfig::new(1), 4096);
        Bench {
            server,
            client,
            now: Instant::from_millis(10_000),
            seen: VecDeque::new(),
            sent: [0; 2],
            last_seq_of_client: 0,
            last_of_client: Default::default(),
            ifaces: [server_if, client_if],
            wire: VecDeque::new(),
        }
    }

    /// A listener of the server.
    pub(crate) fn listen(&mut self, port: u16, backlog: usize) -> SocketId {
        let socket = self.server.socket(SocketKind::Tcp, Family::V4).unwrap();
        self.server.bind(socket, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).unwrap();
        self.server.listen(socket, backlog).unwrap();
        socket
    }

    /// A packet of the attacker's, in the name of whoever its source is, arrives at the server.
    pub(crate) fn inject(&mut self, packet: &[u8]) {
        let (now, iface) = (self.now, self.ifaces[0]);
        // A pool without room is as good as a wire that loses the packet.
        let _taken = self.server.handle_bytes(now, iface, packet);
        self.flush();
    }

    /// A packet of the attacker's arrives at the client.
    pub(crate) fn inject_client(&mut self, packet: &[u8]) {
        let (now, iface) = (self.now, self.ifaces[1]);
        let _taken = self.client.handle_bytes(now, iface, packet);
        self.flush();
    }

    /// Everything that hosts have to send goes on the wire.
    pub(crate) fn flush(&mut self) {
        for host in 0..2 {
            let stack = [&mut self.server, &mut self.client].into_iter().nth(host).unwrap();
            stack.handle_timeout(self.now);
            loop {
                let burst = stack.poll_transmit(self.ifaces[host]);
                if burst.is_empty() {
                    break;
                }
                while let Some((_, pieces)) = burst.front() {
                    let bytes: Vec<u8> = pieces.iter().flat_map(|p| p.iter().copied()).collect();
                    burst.take_front();
                    self.sent[host] += 1;
                    if host == 1 && bytes[9] == protocol::TCP {
                        let (header, _) = TcpHeader::parse(&bytes[20..], bytes.len() - 20).unwrap();
                        self.last_seq_of_client = header.seq;
                        let timestamps = header.options.timestamps.unwrap_or_default();
                        self.last_of_client = (timestamps, header.ack);
                    }
                    self.wire.push_back((self.now + DELAY, bytes));
                }
                burst.clear_taken();
            }
        }
    }

    fn arrive(&mut self, bytes: &[u8]) {
        let header = Ipv4Header::parse(bytes, bytes.len()).unwrap();
        let now = self.now;
        match header.dst {
            SERVER => {
                let _taken = self.server.handle_bytes(now, self.ifaces[0], bytes);
            }
            CLIENT => {
                let _taken = self.client.handle_bytes(now, self.ifaces[1], bytes);
            }
            to => {
                let body = &bytes[usize::from(header.header_len)..];
                let tcp = (header.protocol == protocol::TCP)
                    .then(|| TcpHeader::parse(body, body.len()).unwrap().0);
                if self.seen.len() == SEEN_MAX {
                    self.seen.pop_front();
                }
                self.seen.push_back(Seen { to, tcp, len: body.len() });
            }
        }
    }

    /// Lets time pass, with everything that happens in it.
    pub(crate) fn run_for(&mut self, span: Duration) {
        let until = self.now + span;
        loop {
            self.flush();
            let wire = self.wire.front().map(|(at, _)| *at);
            let due = [wire, self.server.poll_at(), self.client.poll_at()];
            let Some(at) = due.into_iter().flatten().min().filter(|&at| at <= until) else {
                break;
            };
            self.now = self.now.max(at);
            while self.wire.front().is_some_and(|(at, _)| *at <= self.now) {
                let (_, bytes) = self.wire.pop_front().unwrap();
                self.arrive(&bytes);
            }
        }
        self.now = until;
    }

    /// Opens a connection of the client's; gives both ends and how long it took.
    #[track_caller]
    pub(crate) fn connect(&mut self, listener: SocketId) -> (SocketId, SocketId, Duration) {
        let port = self.server.local_addr(listener).unwrap().port();
        let client = self.client.socket(SocketKind::Tcp, Family::V4).unwrap();
        let begin = self.now;
        let answer = self.client.connect(client, SocketAddr::from((SERVER, port)));
        assert_eq!(answer, Err(SocketError::InProgress));
        for _ in 0..30_000 {
            if let Ok((server, peer)) = self.server.accept(listener) {
                if peer.ip() == CLIENT {
                    return (client, server, self.now - begin);
                }
                self.server.abort(server).unwrap();
                continue;
            }
            self.run_for(Duration::from_millis(1));
        }
        panic!("nobody got through");
    }

    /// As [`Bench::connect`], and what others have opened stays open, not accepted.
    #[track_caller]
    pub(crate) fn connect_beside(&mut self, listener: SocketId) -> (SocketId, SocketId, Duration) {
        let client = self.client.socket(SocketKind::Tcp, Family::V4).unwrap();
        let port = self.server.local_addr(listener).unwrap().port();
        let begin = self.now;
        let answer = self.client.connect(client, SocketAddr::from((SERVER, port)));
        assert_eq!(answer, Err(SocketError::InProgress));
        loop {
            self.run_for(Duration::from_millis(1));
            while let Ok((server, peer)) = self.server.accept(listener) {
                if peer.ip() == CLIENT {
                    return (client, server, self.now - begin);
                }
            }
            assert!(self.now - begin < Duration::from_secs(30), "nobody got through");
        }
    }

    /// Sends `len` bytes from the client to the server while `attack` runs every millisecond; how
    /// long that takes. Panics if the stream is damaged.
    #[track_caller]
    pub(crate) fn upload(
        &mut self,
        (client, server): (SocketId, SocketId),
        len: usize,
        mut attack: impl FnMut(&mut Bench),
    ) -> Duration {
        let begin = self.now;
        let (mut sent, mut got) = (0, 0);
        let byte = |at: usize| (at % 251) as u8;
        let data: Vec<u8> = (0..len).map(byte).collect();
        let mut out = vec![0; 65_536];
        while got < len {
            assert!(self.now - begin < Duration::from_secs(120), "{got} of {len} bytes");
            if sent < len {
                match self.client.write(client, &data[sent..]) {
                    Ok(n) => sent += n,
                    Err(SocketError::WouldBlock | SocketError::NoBuffers) => {}
                    Err(error) => panic!("write: {error}"),
                }
            }
            attack(self);
            self.run_for(Duration::from_millis(1));
            loop {
                match self.server.read(server, &mut out) {
                    Ok(n) => {
                        assert!(n > 0, "the stream ended");
                        assert!(out[..n].iter().enumerate().all(|(i, &b)| b == byte(got + i)));
                        got += n;
                    }
                    Err(SocketError::WouldBlock) => break,
                    Err(error) => panic!("read: {error}"),
                }
            }
        }
        self.now - begin
    }

    /// The packets to `to` since the last call, taken out.
    pub(crate) fn take_seen(&mut self, to: Ipv4Addr) -> Vec<TcpHeader> {
        let (ours, others): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.seen).into_iter().partition(|seen| seen.to == to);
        self.seen = others;
        ours.into_iter().filter_map(|seen| seen.tcp).collect()
    }
}

/// A TCP segment in an IP packet, with checksums.
pub(crate) fn segment(src: Ipv4Addr, dst: Ipv4Addr, header: &TcpHeader, payload: &[u8]) -> Vec<u8> {
    let tcp_len = header.header_len() + payload.len();
    let mut packet = vec![0; 20 + tcp_len];
    Ipv4Header::new(src, dst, protocol::TCP, tcp_len).emit(&mut packet);
    let at = 20 + header.emit(&mut packet[20..]);
    packet[at..].copy_from_slice(payload);
    let mut sum = pseudo_header(src.into(), dst.into(), protocol::TCP, tcp_len as u32);
    sum.add(&packet[20..]);
    packet[36..38].copy_from_slice(&sum.finish().to_be_bytes());
    packet
}

/// A header to port 80 of the server with nothing but these.
pub(crate) fn to_server(src_port: u16, flags: TcpFlags, seq: u32, ack: u32) -> TcpHeader {
    TcpHeader { src_port, dst_port: 80, seq, ack, flags, window: 65_535, ..TcpHeader::default() }
}

/// What the attacker has of a connection of his own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Puppet {
    pub(crate) from: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) snd_nxt: u32,
    pub(crate) rcv_nxt: u32,
}

impl Puppet {
    /// Opens a connection to port 80; the server has still to accept it.
    pub(crate) fn open(bench: &mut Bench, from: Ipv4Addr, port: u16, window: u16) -> Puppet {
        let mut syn = to_server(port, TcpFlags::SYN, 5_000, 0);
        syn.options.mss = Some(1460);
        bench.inject(&segment(from, SERVER, &syn, &[]));
        bench.run_for(2 * DELAY);
        let seen = bench.take_seen(from);
        let syn_ack = seen.iter().find(|h| h.flags.contains(TcpFlags::SYN) && h.dst_port == port);
        let syn_ack = syn_ack.expect("a SYN-ACK");
        let rcv_nxt = syn_ack.seq.wrapping_add(1);
        let mut puppet = Puppet { from, port, snd_nxt: 5_001, rcv_nxt };
        puppet.send(bench, window, &[]);
        puppet
    }

    /// Sends data, or a bare ACK of all that `rcv_nxt` tells.
    pub(crate) fn send(&mut self, bench: &mut Bench, window: u16, data: &[u8]) {
        let mut header = to_server(self.port, TcpFlags::ACK, self.snd_nxt, self.rcv_nxt);
        header.window = window;
        bench.inject(&segment(self.from, SERVER, &header, data));
        self.snd_nxt = self.snd_nxt.wrapping_add(data.len() as u32);
    }
}
