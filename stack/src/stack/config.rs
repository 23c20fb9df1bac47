//! How a stack is set up, and what several stacks of one host have in common.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use barewire_driver::rss::Steering;

use crate::reassembly::ReassemblyLimits;
use crate::rng::Rng;
use crate::socket::ports::PortRegistry;
use crate::tcp::TcpConfig;

/// Bounds of every table that the network or the application can fill.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Entries in the socket table; at most 2^30.
    pub sockets: usize,
    /// Half-open connections of all listeners together.
    pub half_open: usize,
    /// Connections in TIME-WAIT. Beyond it they go to CLOSED at once, counted.
    pub time_wait: usize,
    /// Closed connections that still end in the background. Beyond it they are aborted, counted.
    pub orphans: usize,
    /// Largest backlog of a listener; larger requests are cut to it.
    pub backlog: usize,
    /// Packets to other engines that wait.
    pub forwards: usize,
    /// RSTs a second for segments that belong to no connection, about. The exact number differs
    /// from second to second, so that nobody can measure by it what others do.
    pub resets_per_s: u32,
    /// How long a connection may keep packet memory, slower than `stall_bytes_per_s`, while there is
    /// none left for others. Then it is reset, counted.
    pub stall_patience: Duration,
    /// What a connection has to get acknowledged to keep packet memory when that is scarce.
    pub stall_bytes_per_s: u32,
    /// Servers whose fast open cookie is kept (RFC 7413 §4.1.3).
    pub fast_open_cookies: usize,
    /// SYN cookies that have made a connection and are not good for another one. Beyond it they are
    /// not remembered, counted.
    pub spent_cookies: usize,
    /// Reassembly of IP fragments.
    pub reassembly: ReassemblyLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            sockets: 1 << 20,
            half_open: 16 << 10,
            time_wait: 64 << 10,
            orphans: 16 << 10,
            backlog: 4096,
            forwards: 1024,
            resets_per_s: 1000,
            stall_patience: Duration::from_secs(10),
            stall_bytes_per_s: 1024,
            fast_open_cookies: 1024,
            spent_cookies: 64 << 10,
            reassembly: ReassemblyLimits::default(),
        }
    }
}

/// Secrets that all engines of a host must have in common.
#[derive(Clone, Copy)]
pub(crate) struct Secrets {
    /// Spreads flows over tables and engines.
    pub(crate) flows: (u64, u64),
    /// Initial sequence numbers (RFC 6528) and timestamp offsets.
    pub(crate) isn: u128,
    /// SYN cookies.
    pub(crate) cookies: u128,
    /// Ephemeral ports (RFC 6056).
    pub(crate) ports: (u64, u64),
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// What the stacks of one host's engines share: ports, secrets, and who is who.
#[derive(Clone, Debug)]
pub struct Share {
    pub(crate) ports: Arc<PortRegistry>,
    pub(crate) secrets: Secrets,
    pub(crate) engine: u16,
    pub(crate) engines: u16,
    /// Simulations begin where sequence numbers are about to wrap.
    #[cfg(feature = "sim")]
    pub(crate) isn_below: Option<u32>,
    /// How the device deals flows out, where that is known.
    pub(crate) steering: Option<Arc<Steering>>,
}

impl Share {
    /// For a stack that is its host's only one.
    pub fn alone(seed: u128) -> Share {
        Share::new(seed, Arc::new(PortRegistry::new(1)), 0, 1)
    }

    /// For each of a host's `engines` stacks, in order; at least one.
    pub fn group(seed: u128, engines: u16) -> Vec<Share> {
        let engines = engines.max(1);
        let ports = Arc::new(PortRegistry::new(engines));
        (0..engines).map(|engine| Share::new(seed, Arc::clone(&ports), engine, engines)).collect()
    }

    fn new(seed: u128, ports: Arc<PortRegistry>, engine: u16, engines: u16) -> Share {
        let mut rng = Rng::new(seed);
        let secrets = Secrets {
            flows: (rng.next_u64(), rng.next_u64()),
            isn: rng.next_u128(),
            cookies: rng.next_u128(),
            ports: (rng.next_u64(), rng.next_u64()),
        };
        Share {
            ports,
            secrets,
            engine,
            engines,
            steering: None,
            #[cfg(feature = "sim")]
            isn_below: None,
        }
    }

    /// Has connections of the first second begin their sequence numbers within 256 KiB below
    /// `number`, so that short transfers cross it. They are predictable then: for simulations only.
    #[cfg(feature = "sim")]
    pub fn isn_below(self, number: u32) -> Share {
        Share { isn_below: Some(number), ..self }
    }

    /// Flows belong to the engine that the device gives them to. All of a host's stacks have to be
    /// told the same.
    pub fn steered_by(self, steering: Option<Arc<Steering>>) -> Share {
        Share { steering, ..self }
    }

    /// As [`PortRegistry::open_connection`], for this stack.
    pub(crate) fn open_connection(&self, port: u16, unbound: bool) -> bool {
        self.ports.open_connection(self.engine, port, unbound)
    }

    /// As [`PortRegistry::close_connection`], for this stack.
    pub(crate) fn close_connection(&self, port: u16) {
        self.ports.close_connection(self.engine, port);
    }

    /// This stack's place among its host's.
    pub fn engine(&self) -> u16 {
        self.engine
    }

    /// How many there are.
    pub fn engines(&self) -> u16 {
        self.engines
    }
}

/// How a [`Stack`](super::Stack) is set up.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// Seeds everything random. An engine takes it from the operating system.
    pub seed: u128,
    /// Settings that TCP sockets start with.
    pub tcp: TcpConfig,
    /// Bounds.
    pub limits: Limits,
    /// Ports for sockets that do not ask for one (RFC 6056).
    pub ephemeral_ports: RangeInclusive<u16>,
    /// What it has in common with the host's other stacks.
    pub share: Share,
}

impl StackConfig {
    /// The defaults, for a stack that is its host's only one.
    pub fn new(seed: u128) -> StackConfig {
        StackConfig {
            seed,
            tcp: TcpConfig::default(),
            limits: Limits::default(),
            ephemeral_ports: 32_768..=65_535,
            share: Share::alone(seed ^ 0x5eed),
        }
    }

    /// The same configuration with another seed. Secrets follow from it, so this is for a stack
    /// that is its host's only one.
    pub fn reseed(&mut self, seed: u128) {
        self.seed = seed;
        self.share = Share::alone(seed ^ 0x5eed);
    }
}
