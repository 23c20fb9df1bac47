//! Random conversations, each once on either way in: whatever can be seen of the two is the same.
//!
//! ```text
//!   seed ─▶ settings, calls of both hosts ─▶ frames ─┬─▶ short way ─┬─▶ frames, results, events
//!      └─▶ lost, twice, turned round, marked, damaged ┴─▶ long way ──┘   and counters: equal?
//! ```

use std::fmt::Debug;
use std::time::Duration;

use barewire_stack::tcp::{Algorithm, EcnMode, TcpConfig};
use barewire_stack::{Rng, SocketId, SocketOption, StackCounters};

use crate::frames::congested;
use crate::talk::{Talk, Way, addr, assert_same};

/// Conversations: what a test run has a few seconds for.
const SEEDS: u64 = 500;

/// Calls in a conversation.
const CALLS: usize = 150;

/// Turns after a call in which frames are carried; what is left then waits for the next call.
const TURNS: usize = 40;

/// One frame in so many is lost, and as many each come twice, marked, and behind a damaged copy.
const FRAMES_A_TROUBLE: u64 = 40;

/// What a host sends in a turn arrives from its end to its beginning once in so many turns.
const TURNS_A_REVERSAL: u64 = 12;

/// Connections that are open at a time.
const CONNECTIONS_MAX: usize = 4;

/// The port of the hosts' UDP sockets, and one that nobody has.
const UDP_PORT: u16 = 7;
const NOBODYS_PORT: u16 = 9;

/// The ports of the listeners, each of a single connection, begin here.
const FIRST_PORT: u16 = 1000;

/// What a call gave, or an event, with the bytes that came with it.
#[derive(Debug, PartialEq)]
struct Told {
    what: String,
    bytes: Vec<u8>,
}

/// What can be seen of a conversation.
struct Seen {
    sent: Vec<(usize, Vec<u8>)>,
    told: Vec<Told>,
    counters: [StackCounters; 2],
}

/// A conversation that a seed gives.
struct Chat {
    rng: Rng,
    talk: Talk,
    /// The ends of each connection, host 0's first.
    connections: Vec<[SocketId; 2]>,
    udp: [SocketId; 2],
    /// Connections that were begun.
    begun: u16,
    told: Vec<Told>,
}

/// True once in so many calls.
fn one_in(rng: &mut Rng, calls: u64) -> bool {
    rng.below(calls) == 0
}

/// One of them.
fn any<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.below(of.len() as u64) as usize]
}

fn settings(rng: &mut Rng) -> TcpConfig {
    let mut config = TcpConfig { nodelay: true, ..TcpConfig::default() };
    config.timestamps = one_in(rng, 2);
    config.sack = one_in(rng, 2);
    config.window_scale = one_in(rng, 2);
    config.ecn = any(rng, &[EcnMode::Off, EcnMode::Request]);
    config.congestion = any(rng, &Algorithm::ALL);
    config
}

impl Chat {
    fn run(way: Way, seed: u64) -> Seen {
        let mut rng = Rng::new(seed.into());
        let tcp = settings(&mut rng);
        let mut talk = Talk::with(way, |config| config.tcp = tcp.clone());
        let (client, server) = talk.connected();
        let udp = talk.udp_sockets(UDP_PORT);
        let connections = vec![[client, server]];
        let mut chat = Chat { rng, talk, connections, udp, begun: 0, told: Vec::new() };
        for _ in 0..CALLS {
            chat.call();
            chat.carry();
            chat.note_events();
        }
        let counters = chat.talk.counters();
        Seen { sent: chat.talk.sent, told: chat.told, counters }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    fn note(&mut self, what: impl Debug, bytes: &[u8]) {
        self.told.push(Told { what: format!("{what:?}"), bytes: bytes.to_vec() });
    }

    fn note_events(&mut self) {
        for host in [0, 1] {
            while let Some(event) = self.talk.stack(host).poll_event() {
                self.note((host, event), &[]);
            }
        }
    }

    /// One call of one host, or a while without any.
    fn call(&mut self) {
        let (host, pick) = (self.below(2) as usize, self.below(self.connections.len() as u64));
        let (pick, at) = (pick as usize, self.below(14));
        let socket = self.connections[pick][host];
        match at {
            0..=3 => self.write(host, socket),
            4..=6 => self.read(host, socket),
            7 => self.idle(),
            8 => self.set_option(host, socket),
            9 | 10 => self.send_datagram(host),
            11 => self.receive_datagram(host),
            12 if self.connections.len() > 1 && one_in(&mut self.rng, 3) => self.end(pick),
            12 if self.connections.len() < CONNECTIONS_MAX => self.open(),
            _ => {}
        }
    }

    fn write(&mut self, host: usize, socket: SocketId) {
        let most = any(&mut self.rng, &[64, 200, 3000, 30_000]);
        let len = 1 + self.below(most);
        let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
        let written = self.talk.stack(host).write(socket, &bytes);
        self.note(written, &[]);
    }

    fn read(&mut self, host: usize, socket: SocketId) {
        let mut bytes = vec![0; 1 + self.below(9000) as usize];
        let read = self.talk.stack(host).read(socket, &mut bytes);
        self.note(read, &bytes[..read.unwrap_or(0)]);
    }

    /// Long enough at times for timers that are seldom heard of.
    fn idle(&mut self) {
        let ms = match self.below(6) {
            0 => 3000,
            1 => 40_000,
            _ => self.below(400),
        };
        self.talk.now += Duration::from_millis(ms);
    }

    fn set_option(&mut self, host: usize, socket: SocketId) {
        let option = match self.below(7) {
            0 => SocketOption::Tos(self.below(256) as u8),
            1 => SocketOption::Ttl(1 + self.below(255) as u8),
            2 => SocketOption::QuickAck(one_in(&mut self.rng, 2)),
            3 => SocketOption::NoDelay(one_in(&mut self.rng, 2)),
            4 => SocketOption::Cork(one_in(&mut self.rng, 2)),
            5 => SocketOption::RecvBuffer(4096 + self.below(60_000) as u32),
            _ => SocketOption::UserTimeout(Some(Duration::from_secs(30))),
        };
        let set = self.talk.stack(host).set_option(socket, option);
        self.note(set, &[]);
    }

    /// A datagram to the other host's socket or to nobody's; now and then the sender is connected.
    fn send_datagram(&mut self, host: usize) {
        let port = if one_in(&mut self.rng, 8) { NOBODYS_PORT } else { UDP_PORT };
        let bytes = vec![port as u8; self.below(300) as usize];
        let (socket, to) = (self.udp[host], addr(1 - host, port));
        let sent = self.talk.stack(host).send_to(socket, &bytes, Some(to));
        self.note(sent, &[]);
        if one_in(&mut self.rng, 30) {
            let port = any(&mut self.rng, &[UDP_PORT, NOBODYS_PORT]);
            let connected = self.talk.stack(host).connect(socket, addr(1 - host, port));
            self.note(connected, &[]);
        }
    }

    fn receive_datagram(&mut self, host: usize) {
        let (socket, mut bytes) = (self.udp[host], [0; 200]);
        let got = self.talk.stack(host).recv_from(socket, &mut bytes);
        self.note(got, &bytes);
    }

    /// A connection more, if its handshake comes to an end in spite of everything.
    fn open(&mut self) {
        let port = FIRST_PORT + self.begun;
        self.begun += 1;
        let listener = self.talk.listen(port, 4);
        let client = self.talk.connect(port);
        self.carry();
        let accepted = self.talk.stack(1).accept(listener).map(|(server, _)| server);
        self.note(accepted, &[]);
        match accepted {
            Ok(server) => self.connections.push([client, server]),
            Err(_) => self.close(0, client),
        }
        self.close(1, listener);
    }

    fn end(&mut self, pick: usize) {
        let [client, server] = self.connections.remove(pick);
        if one_in(&mut self.rng, 3) {
            let aborted = self.talk.stack(0).abort(client);
            self.note(aborted, &[]);
        } else {
            self.close(0, client);
        }
        // Closed on both sides at once, or on one after the other.
        if one_in(&mut self.rng, 2) {
            self.carry();
        }
        self.close(1, server);
    }

    fn close(&mut self, host: usize, socket: SocketId) {
        let closed = self.talk.stack(host).close(socket);
        self.note(closed, &[]);
    }

    /// Carries frames, with everything that may happen to them.
    fn carry(&mut self) {
        for _ in 0..TURNS {
            let passed = Duration::from_micros(50 + self.below(500));
            self.talk.now += passed;
            let moved = [0, 1].map(|host| self.carry_from(host));
            if moved == [false; 2] {
                return;
            }
        }
    }

    fn carry_from(&mut self, host: usize) -> bool {
        let mut frames = self.talk.take_sent(host);
        if one_in(&mut self.rng, TURNS_A_REVERSAL) {
            frames.reverse();
        }
        for frame in &frames {
            self.deliver_or_not(1 - host, frame);
        }
        !frames.is_empty()
    }

    fn deliver_or_not(&mut self, to: usize, frame: &[u8]) {
        match self.below(FRAMES_A_TROUBLE) {
            0 => return,
            1 => self.talk.deliver(to, frame),
            2 => return self.talk.deliver(to, &congested(frame)),
            3 => {
                let mut damaged = frame.to_vec();
                damaged[self.below(frame.len() as u64) as usize] ^= 1 << self.below(8);
                self.talk.deliver(to, &damaged);
            }
            _ => {}
        }
        self.talk.deliver(to, frame);
    }
}

#[test]
fn random_conversations_are_the_same_both_ways() {
    for seed in 1..=SEEDS {
        let short = Chat::run(Way::Short, seed);
        let long = Chat::run(Way::Long, seed);
        assert_same(&format!("seed {seed}: frame"), &short.sent, &long.sent);
        assert_same(&format!("seed {seed}: call or event"), &short.told, &long.told);
        assert_eq!(short.counters, long.counters, "seed {seed}");
    }
}
