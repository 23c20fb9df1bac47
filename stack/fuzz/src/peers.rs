//! Two stacks and a wire that loses, doubles, delays, reorders and damages packets as the input
//! says. What one application writes the other reads, in order and whole; a connection may fail,
//! but it may not lie. Once the wire is good again, what has not failed ends in order.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use barewire_stack::{Family, Instant, SocketError, SocketId, SocketKind, Stack};

use crate::parsers::check_sent;
use crate::stack::Setup;

/// Most steps of one input.
const MAX_STEPS: usize = 400;

/// Packets on the wire at a time; more are lost.
const MAX_PACKETS: usize = 256;

/// Bytes that each side writes at most.
const MAX_BYTES: u64 = 256 << 10;

/// Rounds on a good wire within which both streams must have ended.
const MAX_ROUNDS: usize = 60_000;

const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
const PORT: u16 = 80;

#[derive(Arbitrary, Debug)]
enum Step {
    /// The oldest packet to one side, or one behind it, meets a fate.
    Wire(Side, Fate),
    /// All packets to one side arrive.
    Flush(Side),
    /// Milliseconds.
    Wait(u8),
    /// Until the next deadline of either.
    WaitForTimer,
    Write(Side, u16),
    Read(Side, u16),
    Shut(Side),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Side {
    Client,
    Server,
}

#[derive(Arbitrary, Debug)]
enum Fate {
    Arrives,
    Lost,
    Doubled,
    /// Goes behind so many others.
    Late(u8),
    /// One bit is flipped, which every checksum sees.
    Damaged(u16),
}

struct Host {
    stack: Stack,
    conn: Option<SocketId>,
    listener: Option<SocketId>,
    /// Packets on their way to this host.
    wire: VecDeque<Vec<u8>>,
    written: u64,
    read: u64,
    shut: bool,
    eof: bool,
    error: Option<SocketError>,
}

struct Bench {
    hosts: [Host; 2],
    now: Instant,
}

/// The byte at `offset` of the stream that a host writes.
fn byte(host: usize, offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ (host as u8 * 0x55)
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(setups) = <[Setup; 2]>::arbitrary(&mut input) else { return };
    let Some(mut bench) = Bench::new(&setups) else { return };
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        bench.step(&step);
        bench.settle();
    }
    bench.end();
}

impl Bench {
    fn new(setups: &[Setup; 2]) -> Option<Bench> {
        let host = |at: usize| {
            let settings = setups[at].settings(ADDRESSES[at]);
            let stack = Stack::raw(&settings).ok()?;
            let (conn, listener, error) = (None, None, None);
            let (written, read, shut, eof) = (0, 0, false, false);
            let wire = VecDeque::new();
            Some(Host { stack, conn, listener, wire, written, read, shut, eof, error })
        };
        let (mut client, mut server) = (host(0)?, host(1)?);
        let to = SocketAddr::from((ADDRESSES[1], PORT));
        let socket = |host: &mut Host| host.stack.socket(SocketKind::Tcp, Family::V4).ok();
        let (conn, listener) = (socket(&mut client)?, socket(&mut server)?);
        server.stack.bind(listener, to).expect("a free port");
        server.stack.listen(listener, 1).expect("a bound socket");
        server.listener = Some(listener);
        assert_eq!(client.stack.connect(conn, to), Err(SocketError::InProgress));
        client.conn = Some(conn);
        let mut bench = Bench { hosts: [client, server], now: Instant::from_millis(1) };
        bench.settle();
        Some(bench)
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Wire(side, ref fate) => self.wire(side as usize, fate),
            Step::Flush(side) => {
                while let Some(packet) = self.hosts[side as usize].wire.pop_front() {
                    self.deliver(side as usize, &packet);
                }
            }
            Step::Wait(ms) => self.now += Duration::from_millis(u64::from(ms)),
            Step::WaitForTimer => self.jump(),
            Step::Write(side, len) => self.write(side as usize, usize::from(len)),
            Step::Read(side, len) => self.read(side as usize, usize::from(len)),
            Step::Shut(side) => self.shut(side as usize),
        }
    }

    fn deliver(&mut self, to: usize, packet: &[u8]) {
        // Without memory it is lost.
        let _taken = self.hosts[to].stack.handle_packet(self.now, packet);
    }

    fn wire(&mut self, to: usize, fate: &Fate) {
        let Some(mut packet) = self.hosts[to].wire.pop_front() else { return };
        match *fate {
            Fate::Arrives => self.deliver(to, &packet),
            Fate::Lost => {}
            Fate::Doubled => {
                self.deliver(to, &packet);
                self.hosts[to].wire.push_back(packet);
            }
            Fate::Late(by) => {
                let wire = &mut self.hosts[to].wire;
                let at = usize::from(by).min(wire.len());
                wire.insert(at, packet);
            }
            Fate::Damaged(bit) => {
                let bit = usize::from(bit) % (packet.len() * 8);
                packet[bit / 8] ^= 1 << (bit % 8);
                self.deliver(to, &packet);
            }
        }
    }

    fn jump(&mut self) {
        let due = self.hosts.iter().filter_map(|host| host.stack.poll_at()).min();
        self.now = due.unwrap_or(self.now).max(self.now + Duration::from_nanos(1));
    }

    /// Lets both stacks send, and the listener accept.
    fn settle(&mut self) {
        for at in 0..2 {
            let host = &mut self.hosts[at];
            host.stack.poll(self.now);
            while host.stack.poll_event().is_some() {}
            if let Some(listener) = host.listener
                && host.conn.is_none()
            {
                host.conn = host.stack.accept(listener).ok().map(|(conn, _)| conn);
            }
            while let Some(sent) = self.hosts[at].stack.poll_packet() {
                let _ = check_sent(&sent.bytes);
                let wire = &mut self.hosts[1 - at].wire;
                if wire.len() < MAX_PACKETS {
                    wire.push_back(sent.bytes);
                }
            }
        }
    }

    fn write(&mut self, at: usize, len: usize) {
        let host = &mut self.hosts[at];
        let Some(conn) = host.conn else { return };
        let len = len.min((MAX_BYTES - host.written) as usize);
        if host.shut || len == 0 || host.error.is_some() {
            return;
        }
        let bytes: Vec<u8> = (0..len as u64).map(|i| byte(at, host.written + i)).collect();
        match host.stack.write(conn, &bytes) {
            Ok(taken) => host.written += taken as u64,
            Err(SocketError::WouldBlock | SocketError::NoBuffers) => {}
            Err(error) => host.error = Some(error),
        }
    }

    fn read(&mut self, at: usize, len: usize) {
        let written = self.hosts[1 - at].written;
        let host = &mut self.hosts[at];
        let Some(conn) = host.conn else { return };
        if host.eof || host.error.is_some() || len == 0 {
            return;
        }
        let mut bytes = vec![0; len];
        match host.stack.read(conn, &mut bytes) {
            Ok(0) => {
                host.eof = true;
                let (read, ended) = (host.read, self.hosts[1 - at].shut);
                assert!(ended && read == written, "the end after {read} bytes of {written}");
            }
            Ok(read) => {
                for (i, &got) in bytes[..read].iter().enumerate() {
                    let offset = host.read + i as u64;
                    assert_eq!(got, byte(1 - at, offset), "at {offset}");
                }
                host.read += read as u64;
                assert!(host.read <= written, "{} bytes of {written}", host.read);
            }
            Err(SocketError::WouldBlock) => {}
            Err(error) => host.error = Some(error),
        }
    }

    fn shut(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let Some(conn) = host.conn else { return };
        match host.stack.shutdown(conn, Shutdown::Write) {
            Ok(()) => host.shut = true,
            // Still opening, or over.
            Err(_) => {
                if let Ok(Some(error)) = host.stack.take_error(conn) {
                    host.error = Some(error);
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        let failed = self.hosts.iter().any(|host| host.error.is_some());
        failed || self.hosts.iter().all(|host| host.eof)
    }

    /// The wire is good from here on: both streams end, unless the connection has failed.
    fn end(mut self) {
        for _ in 0..MAX_ROUNDS {
            let mut moved = false;
            for at in 0..2 {
                while let Some(packet) = self.hosts[at].wire.pop_front() {
                    self.deliver(at, &packet);
                    moved = true;
                }
                self.read(at, 1 << 16);
                if !self.hosts[at].shut {
                    self.shut(at);
                }
                self.settle();
            }
            if self.is_over() {
                break;
            }
            if !moved && self.hosts.iter().all(|host| host.wire.is_empty()) {
                self.jump();
            }
        }
        let told: Vec<_> =
            self.hosts.iter().map(|h| (h.written, h.read, h.shut, h.eof, h.error)).collect();
        assert!(self.is_over(), "the streams do not end: {told:?} at {:?}", self.now);
        for host in &mut self.hosts {
            for socket in host.conn.into_iter().chain(host.listener) {
                let _gone = host.stack.abort(socket);
            }
            host.stack.poll(self.now);
            while host.stack.poll_packet().is_some() {}
            let audit = host.stack.pool().audit();
            assert!(host.eof || host.error.is_some() || audit.all_free(), "{audit:?}");
        }
    }
}
