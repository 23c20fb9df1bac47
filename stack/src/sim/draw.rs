//! What a seed becomes: hosts, wires and applications.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use barewire_driver::cable::CableConfig;
use barewire_driver::middleware::fault::{FaultConfig, FaultRates};
use barewire_driver::{Features, PoolConfig};

use super::app::{App, Chatter, Client, ClientPlan, ECHO_PORT, Echo, Server, ServerPlan};
use super::host::HostConfig;
use super::link::{Bursts, Episodes, LinkConfig};
use super::switch::Wire;
use crate::rng::Rng;
use crate::socket::SocketKind;
use crate::stack::StackConfig;
use crate::tcp::{Algorithm, EcnMode, Keepalive, SynCookies, TcpConfig};
use crate::wire::ethernet::EthernetHeader;

/// Ports that every host listens on.
const PORTS: [u16; 2] = [80, 443];

/// A port that no host listens on.
const CLOSED_PORT: u16 = 81;

/// A host with room for fewer closed connections than this runs out of it.
pub(super) const MANY_ORPHANS: usize = 8 << 10;

/// What most connections of a seed are for. The sizes keep nearly all seeds below 20,000 frames; the
/// applications of the others stop there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    /// A few connections of any size, or some dozens of small ones, from each host.
    Mixed,
    /// Megabytes on one connection, in writes of up to a megabyte.
    Bulk,
    /// More than a thousand short connections of one host.
    Crowd,
}

/// A network that has not begun to run.
pub(super) struct Network {
    pub(super) hosts: Vec<(HostConfig, Wire)>,
    pub(super) cable: CableConfig,
    /// Each host's applications.
    pub(super) apps: Vec<Vec<Box<dyn App>>>,
}

/// Draws a network from a seed; the generator that comes with it goes on with what happens later.
pub(super) fn network(seed: u64, calm: bool, hosts: u8, rude: bool) -> (Network, Rng) {
    let mut rng = Rng::new(u128::from(seed) | 1 << 64);
    let ring_len = if calm { 512 } else { 32 << rng.below(5) };
    let cable = CableConfig { ring_len, ..CableConfig::new("sim") };
    let traffic = match rng.below(25) {
        0 if !calm => Traffic::Crowd,
        1..=3 if !calm => Traffic::Bulk,
        _ => Traffic::Mixed,
    };
    let mut made = Vec::new();
    for number in 1..=hosts {
        let wire = match traffic {
            _ if calm => Wire::default(),
            // A thousand connections on a hopeless wire would take hours and show nothing more.
            Traffic::Crowd => Wire { faults: faults(&mut rng, 0.1), ..Wire::default() },
            Traffic::Mixed | Traffic::Bulk => Wire {
                faults: faults(&mut rng, 1.0),
                down: link(&mut rng),
                urgent: if rng.chance(0.1) { 0.1 } else { 0.0 },
            },
        };
        made.push((host(&mut rng, number, calm), wire));
    }
    let addrs: Vec<_> = made.iter().map(|(config, _)| config.addr()).collect();
    let apps = (0..addrs.len())
        .map(|host| {
            let peers = addrs.iter().enumerate().filter(|&(peer, _)| peer != host);
            let peers: Vec<_> = peers.map(|(_, &addr)| addr).collect();
            // One host does what the seed is about, the others are busy with less beside it.
            let own = if host == 0 { traffic } else { Traffic::Mixed };
            Plan { traffic, own, calm, rude }.apps(&mut rng, &peers)
        })
        .collect();
    (Network { hosts: made, cable, apps }, rng)
}

/// Up to `most`, zero often and small mostly.
fn upto(rng: &mut Rng, most: f64) -> f64 {
    let share = rng.below(1 << 20) as f64 / f64::from(1 << 20);
    if rng.chance(0.3) { 0.0 } else { most * share * share }
}

fn millis(rng: &mut Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(from + rng.below(to - from + 1))
}

/// What happens to single frames that one host sends, to a `degree` of how bad it can be. No wire
/// is hopeless.
fn faults(rng: &mut Rng, degree: f64) -> FaultConfig {
    let seed = rng.next_u64();
    let (loss, duplicate) = (upto(rng, 0.15 * degree), upto(rng, 0.1));
    let (reorder, corrupt) = (upto(rng, 0.2 * degree), upto(rng, 0.03 * degree));
    let (delay, jitter) = (upto(rng, 0.1), upto(rng, 0.03));
    let rx = FaultRates {
        loss,
        duplicate,
        reorder,
        corrupt,
        delay: Duration::from_secs_f64(delay),
        jitter: Duration::from_secs_f64(jitter),
        rate: rng.chance(0.3).then(|| 100_000 << rng.below(8)),
    };
    FaultConfig { seed, rx, tx: FaultRates::default() }
}

/// The way to one host: half of them are good, the others have one or more of what lasts.
fn link(rng: &mut Rng) -> LinkConfig {
    let mut config = LinkConfig { seed: rng.next_u64(), ..LinkConfig::default() };
    if rng.chance(0.5) {
        return config;
    }
    if rng.chance(0.4) {
        let queue = 8 << (10 + rng.below(6));
        config.rate_bps = Some(1_000_000 << rng.below(10));
        config.queue_bytes = Some(queue);
        config.mark_bytes = rng.chance(0.5).then_some(queue / 4);
        config.delay = millis(rng, 0, 50);
    }
    if rng.chance(0.3) {
        let begin = upto(rng, 0.01);
        config.bursts = Some(Bursts { begin, frames: 2.0 + rng.below(18) as f64 });
    }
    if rng.chance(0.3) {
        let when = Episodes { every: millis(rng, 1_000, 20_000), lasts: millis(rng, 50, 900) };
        config.spikes = Some((when, millis(rng, 50, 2_000)));
    }
    if rng.chance(0.2) {
        let (every, lasts) = (millis(rng, 10_000, 60_000), millis(rng, 100, 8_000));
        config.outages = Some(Episodes { every, lasts });
    }
    if rng.chance(0.2) {
        let mtu = [576, 1006, 1400][rng.below(3) as usize];
        config.largest_frame = Some(EthernetHeader::LEN + mtu);
        config.silent = rng.chance(0.3);
    }
    config
}

fn host(rng: &mut Rng, number: u8, calm: bool) -> HostConfig {
    let mut config = HostConfig::new(number);
    config.stack.seed = rng.next_u128();
    config.stack.share = crate::stack::Share::alone(rng.next_u128());
    if calm {
        return config;
    }
    stack(rng, &mut config.stack);
    config.mtu = [576, 1006, 1280, 1500, 1500][rng.below(5) as usize];
    config.ring_len = 32 << rng.below(4);
    config.features = Features::SCATTER_GATHER;
    if rng.chance(0.6) {
        config.features |= Features::TX_CHECKSUM;
        if rng.chance(0.6) {
            config.features |= Features::TSO4;
        }
    }
    let slots = if rng.chance(0.2) { 512 } else { 4096 };
    config.pool = PoolConfig { slots, cells: slots, ..config.pool };
    config
}

fn stack(rng: &mut Rng, config: &mut StackConfig) {
    if rng.chance(0.5) {
        // Sequence numbers wrap, or become negative as signed numbers, in the middle of transfers.
        let below = if rng.chance(0.5) { 0 } else { 1 << 31 };
        config.share = config.share.clone().isn_below(below);
    }
    tcp(rng, &mut config.tcp);
    if rng.chance(0.3) {
        // Few ports: connections soon meet their predecessors in TIME-WAIT.
        config.ephemeral_ports = 40_000..=40_000 + rng.below(64) as u16;
    }
    if rng.chance(0.2) {
        config.limits.half_open = 1 + rng.below(4) as usize;
    }
    if rng.chance(0.2) {
        config.limits.time_wait = 1 + rng.below(8) as usize;
    }
    if rng.chance(0.1) {
        config.limits.orphans = 1 + rng.below(4) as usize;
    }
}

fn tcp(rng: &mut Rng, tcp: &mut TcpConfig) {
    // So that whoever waits for a peer that is gone learns of it.
    tcp.keepalive = Some(Keepalive {
        idle: Duration::from_secs(20),
        interval: Duration::from_secs(5),
        count: 8,
    });
    // Some links are black holes.
    tcp.mtu_probing = true;
    tcp.congestion = Algorithm::ALL[rng.below(Algorithm::ALL.len() as u64) as usize];
    tcp.ecn = [EcnMode::Off, EcnMode::WhenAsked, EcnMode::Request][rng.below(3) as usize];
    tcp.pacing = rng.chance(0.2);
    tcp.slow_start_after_idle = rng.chance(0.8);
    tcp.timestamps = rng.chance(0.7);
    tcp.window_scale = rng.chance(0.7);
    (tcp.sack, tcp.dsack) = (rng.chance(0.7), rng.chance(0.7));
    (tcp.rack_tlp, tcp.rto_restart) = (rng.chance(0.7), rng.chance(0.3));
    tcp.quick_ack = rng.chance(0.2);
    if rng.chance(0.2) {
        tcp.syn_cookies = if rng.chance(0.5) { SynCookies::Off } else { SynCookies::Always };
    }
    if rng.chance(0.3) {
        tcp.fast_open_queue = 1 + rng.below(8) as u32;
    }
    if rng.chance(0.2) {
        tcp.defer_accept = millis(rng, 100, 5_000);
    }
    tcp.send_buffer_bytes = 4096 << rng.below(8);
    tcp.recv_buffer_bytes = 4096 << rng.below(8);
    (tcp.send_autotune, tcp.recv_autotune) = (rng.chance(0.5), rng.chance(0.5));
    if rng.chance(0.3) {
        tcp.quick_acks = rng.below(32) as u8;
    }
    if rng.chance(0.3) {
        tcp.initial_window_segments = 1 + rng.below(16) as u8;
    }
    if rng.chance(0.3) {
        tcp.rto_min = millis(rng, 5, 1_000);
    }
    if rng.chance(0.3) {
        tcp.delayed_ack = millis(rng, 0, 200);
    }
    if rng.chance(0.3) {
        tcp.challenge_acks_per_s = 1 + rng.below(20) as u16;
    }
    if rng.chance(0.3) {
        tcp.time_wait = millis(rng, 5_000, 60_000);
        tcp.fin_wait_2 = millis(rng, 5_000, 60_000);
    }
}

/// What the applications of one host are to do.
struct Plan {
    /// What the seed is about, and what this host is.
    traffic: Traffic,
    own: Traffic,
    calm: bool,
    rude: bool,
}

impl Plan {
    fn apps(&self, rng: &mut Rng, peers: &[Ipv4Addr]) -> Vec<Box<dyn App>> {
        let mut apps: Vec<Box<dyn App>> = vec![Box::new(Echo::default())];
        for port in PORTS {
            apps.push(Box::new(Server::new(self.server(rng, port))));
        }
        let at = |port| peers.iter().map(move |&addr| SocketAddr::from((addr, port)));
        let mut servers: Vec<_> = PORTS.into_iter().flat_map(at).collect();
        if !self.calm && rng.chance(0.2) {
            servers.extend(at(CLOSED_PORT));
        }
        let clients = if self.own == Traffic::Mixed { 1 + rng.below(2) } else { 1 };
        for _ in 0..clients {
            apps.push(Box::new(Client::new(self.client(rng, servers.clone()))));
        }
        for kind in [SocketKind::Udp, SocketKind::Ping] {
            let largest = if rng.chance(0.3) { 8_000 } else { 500 };
            let count = rng.below(20) as u32;
            apps.push(Box::new(Chatter::new(kind, at(ECHO_PORT).collect(), count, largest)));
        }
        apps
    }

    fn server(&self, rng: &mut Rng, port: u16) -> ServerPlan {
        ServerPlan {
            port,
            backlog: if self.calm { 16 } else { 1 + rng.below(16) as usize },
            bytes: if self.traffic == Traffic::Crowd { 300 } else { 50_000 },
            accept_delay: Duration::from_millis(if self.calm { 0 } else { rng.below(300) }),
            rude: self.rude,
            recv_buffer: (!self.calm && rng.chance(0.3)).then(|| 2048 << rng.below(6)),
        }
    }

    fn client(&self, rng: &mut Rng, servers: Vec<SocketAddr>) -> ClientPlan {
        let plan = ClientPlan {
            servers,
            connections: 1 + rng.below(4) as u32,
            parallel: 1 + rng.below(6) as usize,
            bytes: 1 << (6 + rng.below(13)),
            pause: Duration::from_millis(rng.below(2_000)),
            rude: self.rude,
            options: !self.calm,
        };
        match self.own {
            Traffic::Bulk => ClientPlan { connections: 1, bytes: 2 << 20, ..plan },
            Traffic::Crowd => ClientPlan {
                connections: 1_000 + rng.below(500) as u32,
                parallel: 8 + rng.below(56) as usize,
                bytes: rng.below(300),
                pause: Duration::from_millis(rng.below(20)),
                ..plan
            },
            Traffic::Mixed if !self.calm && rng.chance(0.3) => ClientPlan {
                connections: 20 + rng.below(60) as u32,
                bytes: rng.below(2_000),
                ..plan
            },
            Traffic::Mixed => plan,
        }
    }
}
