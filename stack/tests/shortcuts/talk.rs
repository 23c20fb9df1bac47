//! Two hosts that talk to each other, and the way on which frames come in to them.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use barewire_driver::device::{RxBurst, RxFrame};
use barewire_driver::{MacAddr, PacketSlice, Pool, PoolConfig};
use barewire_stack::{
    Family, IfaceId, Instant, InterfaceConfig, SocketError, SocketId, SocketKind, Stack,
    StackConfig, StackCounters,
};

/// Turns after which hosts that still talk will never be silent.
const TURNS_MAX: usize = 1000;

/// The smallest frame of Ethernet, without its check sequence.
const FRAME_MIN: usize = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Short,
    Long,
}

/// Two hosts, every frame between them kept.
pub(crate) struct Talk {
    way: Way,
    pub(crate) now: Instant,
    pub(crate) hosts: [(Stack, IfaceId); 2],
    /// Each with the host that it came from.
    pub(crate) sent: Vec<(usize, Vec<u8>)>,
}

pub(crate) fn addr(host: usize, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1 + host as u8], port))
}

/// The link address of a host.
pub(crate) fn mac(host: usize) -> MacAddr {
    MacAddr::local(1 + host as u64)
}

/// Both are the same, or it is said where they begin to differ.
#[track_caller]
pub(crate) fn assert_same<T: PartialEq + Debug>(what: &str, short: &[T], long: &[T]) {
    for (at, (short, long)) in short.iter().zip(long).enumerate() {
        assert_eq!(short, long, "{what} {at}");
    }
    assert_eq!(short.len(), long.len(), "{what}: so many on the short way and on the long one");
}

impl Talk {
    pub(crate) fn new(way: Way) -> Talk {
        Talk::with(way, |_| {})
    }

    /// Hosts with settings of their own.
    pub(crate) fn with(way: Way, change: impl Fn(&mut StackConfig)) -> Talk {
        let hosts = [0, 1].map(|host| {
            let pool = PoolConfig { slots: 256, slot_len: 2048, cells: 256, try_huge: false };
            let mut config = StackConfig::new(1 + host as u128);
            config.tcp.nodelay = true;
            change(&mut config);
            let mut stack = Stack::new(config, Pool::new(pool).unwrap());
            let cidr = format!("{}/24", addr(host, 0).ip()).parse().unwrap();
            let iface = stack.add_interface(InterfaceConfig::ethernet(mac(host), cidr)).unwrap();
            (stack, iface)
        });
        Talk { way, now: Instant::from_millis(1), hosts, sent: Vec::new() }
    }

    pub(crate) fn stack(&mut self, host: usize) -> &mut Stack {
        &mut self.hosts[host].0
    }

    /// What both hosts have counted.
    pub(crate) fn counters(&self) -> [StackCounters; 2] {
        self.hosts.each_ref().map(|(stack, _)| *stack.counters())
    }

    /// Carries frames until none is left, each padded as Ethernet pads it.
    pub(crate) fn settle(&mut self) {
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "the hosts talk for ever");
            self.now += Duration::from_micros(100);
            let moved = [0, 1].map(|host| self.carry(host));
            if moved == [false; 2] {
                return;
            }
        }
    }

    fn carry(&mut self, host: usize) -> bool {
        let frames = self.take_sent(host);
        for frame in &frames {
            self.deliver(1 - host, frame);
        }
        !frames.is_empty()
    }

    /// What a host sends now.
    pub(crate) fn take_sent(&mut self, host: usize) -> Vec<Vec<u8>> {
        let (stack, iface) = &mut self.hosts[host];
        stack.handle_timeout(self.now);
        let burst = stack.poll_transmit(*iface);
        let frames: Vec<Vec<u8>> = burst
            .iter()
            .map(|(_, pieces)| pieces.iter().flat_map(|p| p.to_vec()).collect())
            .collect();
        burst.clear();
        self.sent.extend(frames.iter().map(|frame| (host, frame.clone())));
        frames
    }

    pub(crate) fn deliver(&mut self, host: usize, frame: &[u8]) {
        let (stack, iface) = &mut self.hosts[host];
        let mut bytes = frame.to_vec();
        bytes.resize(bytes.len().max(FRAME_MIN), 0);
        let piece = stack.pool().copy_from(&bytes).unwrap().freeze();
        match self.way {
            Way::Long => {
                let pieces: [PacketSlice; 1] = [piece];
                stack.handle_frame(self.now, *iface, &pieces, &RxFrame::default());
            }
            Way::Short => {
                let mut burst = RxBurst::new();
                burst.push_segment(piece);
                burst.finish_frame(RxFrame::default());
                stack.handle_burst(self.now, *iface, &mut burst);
                assert!(burst.is_empty());
            }
        }
    }

    pub(crate) fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.settle();
    }

    /// Sends `bytes` and reads them at the other end.
    pub(crate) fn send(&mut self, (from, socket): (usize, SocketId), to: SocketId, bytes: &[u8]) {
        assert_eq!(self.stack(from).write(socket, bytes), Ok(bytes.len()));
        self.settle();
        let mut read = vec![0; bytes.len()];
        let mut at = 0;
        while at < read.len() {
            at += self.stack(1 - from).read(to, &mut read[at..]).unwrap();
        }
        assert_eq!(read, bytes);
        self.settle();
    }

    /// A listener of host 1.
    pub(crate) fn listen(&mut self, port: u16, backlog: usize) -> SocketId {
        let listener = self.stack(1).socket(SocketKind::Tcp, Family::V4).unwrap();
        self.stack(1).bind(listener, addr(1, port)).unwrap();
        self.stack(1).listen(listener, backlog).unwrap();
        listener
    }

    /// A connection of host 0 that is only begun.
    pub(crate) fn connect(&mut self, port: u16) -> SocketId {
        let client = self.stack(0).socket(SocketKind::Tcp, Family::V4).unwrap();
        let opening = self.stack(0).connect(client, addr(1, port));
        assert_eq!(opening, Err(SocketError::InProgress));
        client
    }

    /// The ends of a new connection.
    pub(crate) fn connected(&mut self) -> (SocketId, SocketId) {
        let listener = self.listen(80, 4);
        let client = self.connect(80);
        self.settle();
        let (server, _) = self.stack(1).accept(listener).unwrap();
        (client, server)
    }

    /// A UDP socket of each host.
    pub(crate) fn udp_sockets(&mut self, port: u16) -> [SocketId; 2] {
        [0, 1].map(|host| {
            let socket = self.stack(host).socket(SocketKind::Udp, Family::V4).unwrap();
            self.stack(host).bind(socket, addr(host, port)).unwrap();
            socket
        })
    }
}
