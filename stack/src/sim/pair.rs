//! Two hosts and one clock, for tests of one behaviour.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use barewire_driver::cable::CableConfig;
use barewire_driver::middleware::fault::FaultConfig;
use barewire_driver::{PacketSlice, RxFrame, TxFrame};

use super::host::{Host, HostConfig};
use super::window;
use super::world::{Watch, World};
use crate::error::SocketError;
use crate::socket::{Family, SocketId, SocketKind};
use crate::stack::Stack;
use crate::tcp::Readiness;
use crate::time::Instant;
use crate::wire::tcp::TcpHeader;

/// Rounds at one moment after which two hosts are taken to talk for ever.
const MAX_ROUNDS_AT_ONCE: u32 = 100_000;

/// How long a condition may take to come true, in virtual time.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Frames that are kept to be looked at; later ones are only counted.
const MAX_FRAMES: usize = 10_000;

/// How a pair is set up.
#[derive(Clone, Debug)]
pub struct PairConfig {
    /// The host at 10.0.0.1.
    pub client: HostConfig,
    /// The host at 10.0.0.2.
    pub server: HostConfig,
    /// The cable, or each of two cables to a switch.
    pub cable: CableConfig,
    /// With faults the hosts are joined by a switch; these hit what each sends.
    pub faults: Option<FaultConfig>,
}

impl Default for PairConfig {
    /// Two hosts with default settings on one cable.
    fn default() -> Self {
        PairConfig {
            client: HostConfig::new(1),
            server: HostConfig::new(2),
            cable: CableConfig::new("pair"),
            faults: None,
        }
    }
}

/// A frame that a host has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentFrame {
    /// When.
    pub at: Instant,
    /// 0 is the client, 1 the server.
    pub host: usize,
    /// All of it.
    pub bytes: Vec<u8>,
    /// What it asks of the card.
    pub meta: TxFrame,
}

/// A TCP segment that a host has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentSegment {
    /// When.
    pub at: Instant,
    /// 0 is the client, 1 the server.
    pub host: usize,
    /// Its header.
    pub header: TcpHeader,
    /// Bytes of payload.
    pub len: u32,
    /// Payload of each wire segment that the card is to make of it; 0 if it is one.
    pub tso_mss: u16,
}

#[derive(Debug, Default)]
struct Log {
    frames: Vec<SentFrame>,
}

impl Watch for Log {
    fn sent(&mut self, now: Instant, host: usize, frame: &TxFrame, pieces: &[PacketSlice]) {
        if self.frames.len() < MAX_FRAMES {
            let bytes = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
            self.frames.push(SentFrame { at: now, host, bytes, meta: *frame });
        }
    }

    fn received(&mut self, _: Instant, _: usize, _: &RxFrame, _: &[PacketSlice]) {}
}

/// Two hosts, driven by a test. What goes wrong is a panic at the test's line.
pub struct Pair {
    world: World,
    log: Log,
}

impl Default for Pair {
    fn default() -> Pair {
        Pair::new()
    }
}

impl Pair {
    /// Two hosts with default settings.
    pub fn new() -> Pair {
        Pair::with(PairConfig::default())
    }

    /// Two hosts.
    ///
    /// # Panics
    /// If their memory cannot be had.
    #[track_caller]
    pub fn with(config: PairConfig) -> Pair {
        let PairConfig { client, server, cable, faults } = config;
        let world = match faults {
            None => World::direct(client, server, &cable),
            Some(faults) => {
                let other = FaultConfig { seed: faults.seed ^ 1, ..faults };
                World::switched(vec![(client, faults.into()), (server, other.into())], &cable, None)
            }
        };
        match world {
            Ok(world) => Pair { world, log: Log::default() },
            Err(error) => panic!("no pair: {error}"),
        }
    }

    /// The client's stack.
    pub fn client(&mut self) -> &mut Stack {
        &mut self.world.hosts[0].stack
    }

    /// The server's stack.
    pub fn server(&mut self) -> &mut Stack {
        &mut self.world.hosts[1].stack
    }

    /// The client, 0, or the server, 1.
    pub fn host(&mut self, index: usize) -> &mut Host {
        &mut self.world.hosts[index]
    }

    /// An address of the client.
    pub fn client_addr(port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), port))
    }

    /// An address of the server.
    pub fn server_addr(port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(10, 0, 0, 2), port))
    }

    /// The present.
    pub fn now(&self) -> Instant {
        self.world.now()
    }

    /// Lets both hosts act until nothing more happens at this moment; says how many rounds it took.
    ///
    /// # Panics
    /// If they do not come to rest.
    #[track_caller]
    pub fn settle(&mut self) -> u32 {
        for round in 1..=MAX_ROUNDS_AT_ONCE {
            if !self.round() {
                return round;
            }
        }
        panic!("the hosts talk for ever at {:?}", self.now());
    }

    fn round(&mut self) -> bool {
        for host in 0..self.world.hosts.len() {
            self.world.activate(host);
        }
        let delivered = self.world.deliver(&mut self.log);
        delivered | self.world.finish(&mut self.log)
    }

    /// Lets time pass, with everything that happens in it.
    #[track_caller]
    pub fn run_for(&mut self, span: Duration) {
        let until = self.now() + span;
        self.settle();
        while let Some(at) = self.world.next_deadline().filter(|&at| at <= until) {
            self.world.advance_to(at.max(self.now() + Duration::from_nanos(1)));
            self.settle();
        }
        self.world.advance_to(until);
        self.settle();
    }

    /// Lets time pass until `done`.
    ///
    /// # Panics
    /// If nothing will ever happen again, or an hour has passed.
    #[track_caller]
    pub fn run_until(&mut self, mut done: impl FnMut(&mut Pair) -> bool) {
        let until = self.now() + PATIENCE;
        loop {
            self.settle();
            if done(self) {
                // What the condition itself has done, reading for example, is acted on.
                self.settle();
                return;
            }
            match self.world.next_deadline().filter(|&at| at <= until) {
                Some(at) => {
                    self.world.advance_to(at.max(self.now() + Duration::from_nanos(1)));
                }
                None => panic!("it never comes true: nothing is due after {:?}", self.now()),
            }
        }
    }

    /// A listener on the server.
    ///
    /// # Panics
    /// If it cannot listen.
    #[track_caller]
    pub fn listen(&mut self, port: u16, backlog: usize) -> SocketId {
        match self.try_listen(port, backlog) {
            Ok(socket) => socket,
            Err(error) => panic!("cannot listen on {port}: {error}"),
        }
    }

    fn try_listen(&mut self, port: u16, backlog: usize) -> Result<SocketId, SocketError> {
        let stack = self.server();
        let socket = stack.socket(SocketKind::Tcp, Family::V4)?;
        stack.bind(socket, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        stack.listen(socket, backlog)?;
        Ok(socket)
    }

    /// A socket of the client that is being connected to the server.
    ///
    /// # Panics
    /// If `connect` answers something else than that it goes on.
    #[track_caller]
    pub fn start_connect(&mut self, port: u16) -> SocketId {
        let stack = self.client();
        let Ok(socket) = stack.socket(SocketKind::Tcp, Family::V4) else { panic!("no socket") };
        let answer = stack.connect(socket, Pair::server_addr(port));
        assert_eq!(answer, Err(SocketError::InProgress), "connect");
        socket
    }

    /// Opens a connection to a listener of [`Pair::listen`]; gives the client's and the server's
    /// socket.
    ///
    /// # Panics
    /// If it cannot be opened.
    #[track_caller]
    pub fn connect(&mut self, listener: SocketId) -> (SocketId, SocketId) {
        let Ok(addr) = self.server().local_addr(listener) else { panic!("no listener") };
        let client = self.start_connect(addr.port());
        let mut server = None;
        self.run_until(|pair| {
            server = server.or(pair.server().accept(listener).ok().map(|(socket, _)| socket));
            let ready = pair.client().readiness(client).unwrap_or_default();
            assert!(!ready.contains(Readiness::ERROR), "the connection failed");
            server.is_some() && ready.contains(Readiness::WRITABLE)
        });
        let Some(server) = server else { panic!("nothing was accepted") };
        (client, server)
    }

    /// Frames that were sent since the last call of [`Pair::forget`], the first 10,000 of them.
    pub fn frames(&self) -> &[SentFrame] {
        &self.log.frames
    }

    /// The TCP segments among them.
    pub fn segments(&self) -> Vec<SentSegment> {
        let segment = |frame: &SentFrame| {
            let (header, len) = window::segment_of(&frame.bytes)?;
            let SentFrame { at, host, meta, .. } = *frame;
            Some(SentSegment { at, host, header, len, tso_mss: meta.tso_mss })
        };
        self.log.frames.iter().filter_map(segment).collect()
    }

    /// Forgets the frames that were sent.
    pub fn forget(&mut self) {
        self.log.frames.clear();
    }

    /// Takes the cable away, and with it the slots that the cards had posted.
    pub fn stop(&mut self) {
        self.world.stop();
    }
}
