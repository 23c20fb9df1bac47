//! One stack under any sequence of segments, raw packets, calls and pauses.
//!
//! Segments are made relative to what the stack itself has sent last, so that a few bytes of input
//! get deep into a connection. At the end the applications let go of everything, time passes, and
//! nothing may be left: no socket, no timer, no port, no slot of packet memory.

use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use barewire_stack::tcp::{Algorithm, EcnMode, SynCookies, TcpConfig};
use barewire_stack::wire::tcp::{
    FastOpenCookie, SackBlocks, TcpFlags, TcpHeader, TcpOptions, Timestamps,
};
use barewire_stack::{
    Family, Instant, OptionName, Settings, SocketError, SocketId, SocketKind, SocketOption, Stack,
};

use crate::parsers::{check_sent, segment};

/// Most steps of one input.
const MAX_STEPS: usize = 400;

/// Deadlines after the last step within which everything must be over.
const MAX_DEADLINES: usize = 20_000;

/// Packets that one step may make the stack send.
const MAX_PACKETS: usize = 20_000;

const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const PORTS: [u16; 2] = [80, 81];

/// How the stack is set up.
#[derive(Arbitrary, Debug)]
pub(crate) struct Setup {
    seed: u64,
    pub(crate) mtu: u16,
    send_buffer: u16,
    recv_buffer: u16,
    few_slots: bool,
    window_scale: bool,
    timestamps: bool,
    sack: bool,
    dsack: bool,
    rack_tlp: bool,
    pacing: bool,
    algorithm: u8,
    ecn: u8,
    autotune: bool,
    nodelay: bool,
    delayed_ack_ms: u8,
    initial_window: u8,
    rto_min_ms: u8,
    always_cookies: bool,
    fast_open: bool,
    defer_accept: bool,
}

impl Setup {
    /// The settings of the host at `address`.
    pub(crate) fn settings(&self, address: Ipv4Addr) -> Settings {
        let mut settings = Settings::new();
        settings.stack = barewire_stack::StackConfig::new(u128::from(self.seed));
        let tcp = &mut settings.stack.tcp;
        *tcp = TcpConfig {
            send_buffer_bytes: 2048 + u32::from(self.send_buffer),
            recv_buffer_bytes: 2048 + u32::from(self.recv_buffer),
            window_scale: self.window_scale,
            timestamps: self.timestamps,
            sack: self.sack,
            dsack: self.dsack,
            rack_tlp: self.rack_tlp,
            send_autotune: self.autotune,
            recv_autotune: self.autotune,
            nodelay: self.nodelay,
            delayed_ack: Duration::from_millis(u64::from(self.delayed_ack_ms)),
            initial_window_segments: 1 + self.initial_window % 16,
            rto_min: Duration::from_millis(1 + u64::from(self.rto_min_ms)),
            pacing: self.pacing,
            congestion: Algorithm::ALL[usize::from(self.algorithm) % Algorithm::ALL.len()],
            ecn: [EcnMode::Off, EcnMode::WhenAsked, EcnMode::Request][usize::from(self.ecn % 3)],
            syn_cookies: if self.always_cookies { SynCookies::Always } else { SynCookies::Auto },
            fast_open_queue: if self.fast_open { 4 } else { 0 },
            defer_accept: Duration::from_millis(if self.defer_accept { 500 } else { 0 }),
            ..TcpConfig::default()
        };
        let slots = if self.few_slots { 64 } else { 512 };
        (settings.pool.slots, settings.pool.cells) = (slots, slots);
        settings.set("address", format!("{address}/24").as_str()).expect("a network");
        settings.set("mtu", 576 + self.mtu % 1000).expect("an MTU");
        settings
    }
}

#[derive(Arbitrary, Debug)]
struct Forged {
    /// Which of the connections seen, or a new one.
    flow: u8,
    flags: u8,
    /// Relative to what would be in order; most of the time it is.
    seq: Offset,
    ack: Offset,
    window: u16,
    len: u16,
    mss: Option<u16>,
    shift: Option<u8>,
    timestamps: Option<(Offset, Offset)>,
    sack: Option<(Offset, Offset)>,
    sack_permitted: bool,
    urgent: u16,
    /// Asks for a fast open cookie, or brings the last one that the stack has given.
    fast_open: Option<bool>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Offset {
    None,
    Near(i8),
    Far(i16),
    Any(u32),
}

impl Offset {
    fn from(self, number: u32) -> u32 {
        match self {
            Offset::None => number,
            Offset::Near(by) => number.wrapping_add_signed(i32::from(by)),
            Offset::Far(by) => number.wrapping_add_signed(i32::from(by) * 16),
            Offset::Any(other) => other,
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Segment(Forged),
    Packet(&'a [u8]),
    /// Microseconds, or milliseconds.
    Wait(u16, bool),
    Socket(Kind),
    Listen(u8, u8),
    Connect(u8, u8),
    ConnectWith(u8, u8, u16),
    Accept(u8),
    Write(u8, u16),
    WriteMore(u8, u16),
    WriteOwned(u8, u16),
    Read(u8, u16),
    ReadOwned(u8, u16),
    Peek(u8, u16),
    Shutdown(u8, u8),
    Close(u8),
    Abort(u8),
    Option(u8, Choice, u16),
    Ask(u8),
    SendTo(u8, u16),
    RecvFrom(u8),
}

#[derive(Arbitrary, Debug)]
enum Kind {
    Tcp,
    Udp,
    Ping,
}

#[derive(Arbitrary, Debug)]
enum Choice {
    NoDelay,
    Cork,
    QuickAck,
    KeepAlive,
    Linger,
    SendBuffer,
    RecvBuffer,
    MaxSeg,
    UserTimeout,
    Linger2,
    FastOpenConnect,
}

/// A connection that the stack has sent a segment of, as its peer sees it.
struct Flow {
    local_port: u16,
    remote_port: u16,
    /// What the stack would send next, and what it waits for.
    next: u32,
    acked: u32,
}

struct Bench {
    stack: Stack,
    now: Instant,
    sockets: Vec<SocketId>,
    flows: Vec<Flow>,
    ports: u16,
    /// The last fast open cookie that the stack has given.
    cookie: FastOpenCookie,
    scratch: Vec<u8>,
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(setup) = Setup::arbitrary(&mut input) else { return };
    let Ok(stack) = Stack::raw(&setup.settings(LOCAL)) else { return };
    let mut bench = Bench {
        stack,
        now: Instant::from_millis(1),
        sockets: Vec::new(),
        flows: Vec::new(),
        ports: 10_000,
        cookie: FastOpenCookie::REQUEST,
        scratch: vec![0x5a; 1 << 16],
    };
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        bench.step(step);
        bench.collect();
    }
    bench.end();
}

impl Bench {
    fn pick(&self, socket: u8) -> SocketId {
        match self.sockets.len() {
            // A handle that never was.
            0 => SocketId::from_bits(u64::from(socket)),
            count => self.sockets[usize::from(socket) % count],
        }
    }

    fn keep(&mut self, made: Result<SocketId, SocketError>) {
        if let Ok(socket) = made {
            self.sockets.push(socket);
        }
    }

    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Segment(forged) => self.forge(&forged),
            Step::Packet(bytes) => self.deliver(bytes),
            Step::Wait(span, short) => {
                let unit = if short { 1_000 } else { 1_000_000 };
                self.now += Duration::from_nanos(u64::from(span) * unit);
                self.stack.poll(self.now);
            }
            Step::Socket(kind) => {
                let kind = match kind {
                    Kind::Tcp => SocketKind::Tcp,
                    Kind::Udp => SocketKind::Udp,
                    Kind::Ping => SocketKind::Ping,
                };
                let made = self.stack.socket(kind, Family::V4);
                self.keep(made);
            }
            Step::Listen(socket, backlog) => {
                let id = self.pick(socket);
                let port = PORTS[usize::from(socket) % PORTS.len()];
                let _bound = self.stack.bind(id, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
                let _listens = self.stack.listen(id, usize::from(backlog % 8));
            }
            Step::Connect(socket, port) => {
                let to = SocketAddr::from((PEER, u16::from(port)));
                let _answer = self.stack.connect(self.pick(socket), to);
            }
            Step::ConnectWith(socket, port, len) => {
                let (id, to) = (self.pick(socket), SocketAddr::from((PEER, u16::from(port))));
                let _answer = self.stack.connect_with(id, to, &self.scratch[..usize::from(len)]);
            }
            Step::Accept(socket) => {
                let made = self.stack.accept(self.pick(socket)).map(|(socket, _)| socket);
                self.keep(made);
            }
            Step::Option(socket, choice, value) => self.set(socket, &choice, value),
            Step::Close(socket) => {
                let _closed = self.stack.close(self.pick(socket));
            }
            Step::Abort(socket) => {
                let _aborted = self.stack.abort(self.pick(socket));
            }
            other => self.transfer(other),
        }
    }

    /// Calls that move data. What they answer does not matter; that they answer does.
    fn transfer(&mut self, step: Step<'_>) {
        let upto = |len: u16| usize::from(len);
        match step {
            Step::Write(socket, len) => {
                let _ = self.stack.write(self.pick(socket), &self.scratch[..upto(len)]);
            }
            Step::WriteMore(socket, len) => {
                let _ = self.stack.write_more(self.pick(socket), &self.scratch[..upto(len)]);
            }
            Step::WriteOwned(socket, len) => {
                let Some(mut slot) = self.stack.pool().alloc() else { return };
                slot.truncate(upto(len).min(slot.len()));
                let _ = self.stack.write_owned(self.pick(socket), slot.freeze());
            }
            Step::Read(socket, len) => {
                let id = self.pick(socket);
                if let Ok(read) = self.stack.read(id, &mut self.scratch[..usize::from(len)]) {
                    assert!(read <= upto(len));
                }
            }
            Step::ReadOwned(socket, len) => {
                let _ = self.stack.read_owned(self.pick(socket), upto(len));
            }
            Step::Peek(socket, len) => {
                let id = self.pick(socket);
                let peeked = self.stack.peek(id, &mut self.scratch[..usize::from(len)]);
                let (Ok(peeked), Ok(waits)) = (peeked, self.stack.bytes_readable(id)) else {
                    return;
                };
                assert!(peeked <= waits, "{peeked} bytes seen of {waits}");
            }
            Step::Shutdown(socket, how) => {
                let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both][usize::from(how % 3)];
                let _ = self.stack.shutdown(self.pick(socket), how);
            }
            Step::Ask(socket) => {
                let id = self.pick(socket);
                let _ = (self.stack.readiness(id), self.stack.take_error(id));
                let _ = (self.stack.tcp_info(id), self.stack.bytes_unacked(id));
                let _ = self.stack.option(id, OptionName::RecvBuffer);
                while self.stack.poll_event().is_some() {}
            }
            Step::SendTo(socket, len) => {
                let to = SocketAddr::from((PEER, 7));
                let id = self.pick(socket);
                let _ = self.stack.send_to(id, &self.scratch[..usize::from(len)], Some(to));
            }
            Step::RecvFrom(socket) => {
                let _ = self.stack.recv_from(self.pick(socket), &mut self.scratch);
            }
            _ => {}
        }
    }

    fn set(&mut self, socket: u8, choice: &Choice, value: u16) {
        let (on, time) = (value % 2 == 1, Duration::from_millis(u64::from(value)));
        let option = match choice {
            Choice::NoDelay => SocketOption::NoDelay(on),
            Choice::Cork => SocketOption::Cork(on),
            Choice::QuickAck => SocketOption::QuickAck(on),
            Choice::KeepAlive => SocketOption::KeepAlive(on),
            Choice::Linger => SocketOption::Linger(on.then_some(time)),
            Choice::SendBuffer => SocketOption::SendBuffer(u32::from(value)),
            Choice::RecvBuffer => SocketOption::RecvBuffer(u32::from(value)),
            Choice::MaxSeg => SocketOption::MaxSeg(value),
            Choice::UserTimeout => SocketOption::UserTimeout(on.then_some(time)),
            Choice::Linger2 => SocketOption::Linger2(time),
            Choice::FastOpenConnect => SocketOption::FastOpenConnect(on),
        };
        let _set = self.stack.set_option(self.pick(socket), option);
    }

    fn deliver(&mut self, packet: &[u8]) {
        // There may be no memory for it; then nothing happens.
        let _taken = self.stack.handle_packet(self.now, packet);
    }

    fn forge(&mut self, forged: &Forged) {
        let known = usize::from(forged.flow) % (self.flows.len() + 1);
        let (local_port, remote_port, next, acked) = match self.flows.get(known) {
            Some(flow) => (flow.local_port, flow.remote_port, flow.next, flow.acked),
            None => {
                self.ports = self.ports.wrapping_add(1);
                (PORTS[usize::from(forged.flow) % PORTS.len()], self.ports, 0, 1_000_000)
            }
        };
        let (seq, ack) = (forged.seq.from(acked), forged.ack.from(next));
        let clock = self.now.as_millis() as u32;
        let mut sack = SackBlocks::default();
        if let Some((left, right)) = forged.sack {
            sack.push(left.from(next), right.from(next));
        }
        let flags = TcpFlags::from_bits_retain(forged.flags);
        let options = TcpOptions {
            mss: forged.mss,
            window_scale: forged.shift,
            sack_permitted: forged.sack_permitted,
            timestamps: forged
                .timestamps
                .map(|(val, ecr)| Timestamps { val: val.from(clock), ecr: ecr.from(clock) }),
            sack,
            fast_open: forged.fast_open.map(|known| match known {
                true => self.cookie,
                // To a stack that has asked it is one like any other.
                false if flags.contains(TcpFlags::ACK) => {
                    FastOpenCookie::new(&[7; 8]).expect("a length in bounds")
                }
                false => FastOpenCookie::REQUEST,
            }),
        };
        let header = TcpHeader {
            src_port: remote_port,
            dst_port: local_port,
            seq,
            ack,
            flags,
            window: forged.window,
            urgent: forged.urgent,
            options,
        };
        let payload = vec![0xa5; usize::from(forged.len) % 9000];
        self.deliver(&segment(PEER, LOCAL, &header, &payload));
    }

    /// Takes what the stack sends; every packet has to be right.
    fn collect(&mut self) {
        self.stack.poll(self.now);
        for _ in 0..MAX_PACKETS {
            let Some(sent) = self.stack.poll_packet() else { return };
            let Some((ip, tcp, payload)) = check_sent(&sent.bytes) else { continue };
            assert_eq!((ip.src, ip.dst), (LOCAL, PEER));
            self.cookie = tcp.options.fast_open.unwrap_or(self.cookie);
            let flags = u32::from(tcp.flags.contains(TcpFlags::SYN))
                + u32::from(tcp.flags.contains(TcpFlags::FIN));
            let next = tcp.seq.wrapping_add(payload.len() as u32).wrapping_add(flags);
            let acked = if tcp.flags.contains(TcpFlags::ACK) { tcp.ack } else { 2_000_000 };
            let ports = (tcp.src_port, tcp.dst_port);
            self.flows.retain(|flow| (flow.local_port, flow.remote_port) != ports);
            self.flows.push(Flow { local_port: ports.0, remote_port: ports.1, next, acked });
            if self.flows.len() > 8 {
                self.flows.remove(0);
            }
        }
        panic!("the stack sends without end at {:?}", self.now);
    }

    /// Lets go of everything and waits until it is gone.
    fn end(mut self) {
        for socket in std::mem::take(&mut self.sockets) {
            let _closed = self.stack.close(socket);
        }
        self.collect();
        for _ in 0..MAX_DEADLINES {
            let Some(due) = self.stack.poll(self.now) else { break };
            self.now = (self.now + Duration::from_nanos(1)).max(due);
            self.collect();
        }
        while self.stack.poll_event().is_some() {}
        let stack = &self.stack;
        let left = [
            ("sockets", stack.sockets()),
            ("half-open connections", stack.half_open()),
            ("connections in TIME-WAIT", stack.time_wait()),
            ("orphans", stack.orphans()),
            ("timers", stack.timers()),
            ("ports", stack.ports().in_use()),
        ];
        assert!(left.iter().all(|&(_, count)| count == 0), "{left:?} at {:?}", self.now);
        let audit = stack.pool().audit();
        assert!(audit.all_free(), "{audit:?}");
    }
}
