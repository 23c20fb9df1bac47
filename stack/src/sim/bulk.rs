//! Flows that send as fast as they may through one bottleneck: what congestion control is like.
//!
//! ```text
//!   sender 1 ─┐
//!      …      ├─▶ switch ─▶ Link: rate, queue, loss, half of the RTT ─▶ receiver
//!   sender n ─┘     ◀─ ACKs, the other half ─
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use barewire_driver::cable::CableConfig;
use barewire_driver::{DeviceError, PoolConfig};

use super::host::HostConfig;
use super::link::{LinkConfig, LinkCounters};
use super::switch::Wire;
use super::world::World;
use crate::error::SocketError;
use crate::rng::Rng;
use crate::socket::{Family, SocketId, SocketKind};
use crate::tcp::{Algorithm, EcnMode, TcpConfig};
use crate::time::Instant;

const PORT: u16 = 80;

/// Bytes of a write, and of a read.
const CALL_BYTES: usize = 64 << 10;

/// Bytes on an Ethernet beside each frame: preamble, start, checksum, gap (IEEE 802.3 §4.2).
const ETHERNET_OVERHEAD_BYTES: usize = 24;

/// Senders begin at random within this time, as real ones do.
const START: Duration = Duration::from_millis(200);

/// Longest that the handshakes may take; every lost ARP request or SYN costs one a second or more.
const OPENING_MAX: Duration = Duration::from_secs(60);

/// How often it is asked whether all have connected.
const OPENING_STEP: Duration = Duration::from_millis(1);

/// Rounds at one moment after which the hosts are taken to talk for ever.
const MAX_ROUNDS_AT_ONCE: u32 = 100_000;

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Bulk {
    /// Seeds the hosts and the losses.
    pub seed: u64,
    /// Senders, at most 200.
    pub flows: u8,
    /// Their controller.
    pub algorithm: Algorithm,
    /// Send and receive buffer of each connection.
    pub buffer_bytes: u32,
    /// Bits a second of the bottleneck.
    pub rate_bps: u64,
    /// Bytes that wait before it.
    pub queue_bytes: usize,
    /// Frames that find more bytes than this waiting are marked (RFC 3168 §5), and senders ask for
    /// ECN.
    pub mark_bytes: Option<usize>,
    /// Share of data frames that are lost.
    pub loss: f64,
    /// Time to the receiver and back without waiting.
    pub rtt: Duration,
    /// Time that passes before anything is counted, from the moment that all flows are connected:
    /// a SYN that was lost is not what is measured. Then the time that is counted.
    pub warm_up: Duration,
    /// See there.
    pub measured: Duration,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct BulkReport {
    /// Bits a second that each flow's application has read while it counted.
    pub goodput_bps: Vec<f64>,
    /// What became of frames at the bottleneck.
    pub bottleneck: LinkCounters,
}

impl BulkReport {
    /// Bits a second of all flows together.
    pub fn total_bps(&self) -> f64 {
        self.goodput_bps.iter().sum()
    }

    /// Jain's index of fairness: 1 if all flows get the same, 1/n if one gets all.
    pub fn jain(&self) -> f64 {
        let squares: f64 = self.goodput_bps.iter().map(|flow| flow * flow).sum();
        let sum = self.total_bps();
        if squares == 0.0 { 0.0 } else { sum * sum / (self.goodput_bps.len() as f64 * squares) }
    }
}

impl Bulk {
    /// Runs the flows.
    ///
    /// # Errors
    /// What kept the network from being made, or a call that failed.
    pub fn run(&self) -> Result<BulkReport, BulkError> {
        let mut run = Run::new(self)?;
        run.open()?;
        let start = run.world.now() + self.warm_up;
        run.until(start)?;
        let before = run.received.clone();
        run.until(start + self.measured)?;
        let counted = run.received.iter().zip(before).map(|(after, before)| after - before);
        let seconds = self.measured.as_secs_f64();
        let goodput_bps = counted.map(|bytes| bytes as f64 * 8.0 / seconds).collect();
        let switch = run.world.switch();
        let bottleneck = switch.map(|switch| switch.link(0)).unwrap_or_default();
        run.world.stop();
        Ok(BulkReport { goodput_bps, bottleneck })
    }
}

/// Why flows could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BulkError {
    /// The network could not be made.
    #[error(transparent)]
    Network(#[from] DeviceError),
    /// A call failed that should not.
    #[error("{0} failed: {1}")]
    Call(&'static str, SocketError),
    /// The hosts exchange frames for ever at one moment.
    #[error("time stands still at {0:?}")]
    Stuck(Instant),
    /// Some flow did not get through its handshake.
    #[error("not all flows are connected after {0:?}")]
    Unconnected(Duration),
}

struct Run {
    /// The receiver is host 0, the sender of flow `i` host `i + 1`.
    world: World,
    listener: SocketId,
    /// When each sender begins, and its socket once it has.
    senders: Vec<(Instant, Option<SocketId>)>,
    /// The receiver's sockets, with the flow of each.
    receivers: Vec<(SocketId, usize)>,
    received: Vec<u64>,
    bytes: Vec<u8>,
}

impl Run {
    fn new(bulk: &Bulk) -> Result<Run, BulkError> {
        let half = bulk.rtt / 2;
        let way = |delay| LinkConfig {
            delay,
            seed: bulk.seed,
            overhead_bytes: ETHERNET_OVERHEAD_BYTES,
            ..LinkConfig::default()
        };
        let bottleneck = LinkConfig {
            rate_bps: Some(bulk.rate_bps),
            queue_bytes: Some(bulk.queue_bytes),
            mark_bytes: bulk.mark_bytes,
            loss: bulk.loss,
            ..way(half)
        };
        let wire = |down| Wire { down, ..Wire::default() };
        let mut hosts = vec![(bulk.host(1), wire(bottleneck))];
        hosts.extend((0..bulk.flows).map(|flow| (bulk.host(flow + 2), wire(way(half)))));
        let cable = CableConfig { ring_len: 1024, ..CableConfig::new("bulk") };
        let mut world = World::switched(hosts, &cable, None)?;
        let listener = listen(&mut world).map_err(|error| BulkError::Call("listen", error))?;
        let mut rng = Rng::new(u128::from(bulk.seed));
        let mut begin = || Duration::from_nanos(rng.below(START.as_nanos() as u64));
        let senders = (0..bulk.flows).map(|_| (Instant::ZERO + begin(), None)).collect();
        Ok(Run {
            world,
            listener,
            senders,
            receivers: Vec::new(),
            received: vec![0; usize::from(bulk.flows)],
            bytes: vec![0; CALL_BYTES],
        })
    }

    /// Goes on until every flow is connected.
    fn open(&mut self) -> Result<(), BulkError> {
        while self.receivers.len() < self.senders.len() {
            let step = self.world.now() + OPENING_STEP;
            if step > Instant::ZERO + OPENING_MAX {
                return Err(BulkError::Unconnected(OPENING_MAX));
            }
            self.until(step)?;
        }
        Ok(())
    }

    fn until(&mut self, end: Instant) -> Result<(), BulkError> {
        let mut at_once = 0;
        while self.world.now() < end {
            let delivered = self.world.deliver(&mut ());
            let called = self.call()?;
            if delivered | called | self.world.finish(&mut ()) {
                at_once += 1;
                if at_once > MAX_ROUNDS_AT_ONCE {
                    return Err(BulkError::Stuck(self.world.now()));
                }
                continue;
            }
            at_once = 0;
            let begins = self.senders.iter().filter(|(_, socket)| socket.is_none());
            let next = begins.map(|&(at, _)| at).chain(self.world.next_deadline()).min();
            // A timer that fired early asks for its real time now.
            let soon = self.world.now() + Duration::from_nanos(1);
            self.world.advance_to(next.unwrap_or(end).max(soon).min(end));
        }
        Ok(())
    }

    /// Lets every application go on; says whether one has done anything.
    fn call(&mut self) -> Result<bool, BulkError> {
        let mut any = false;
        let now = self.world.now();
        for flow in 0..self.senders.len() {
            match self.senders[flow] {
                (begin, None) if begin <= now => self.connect(flow)?,
                (_, None) => continue,
                (_, Some(socket)) if self.world.is_active(flow + 1) => {
                    let stack = &mut self.world.hosts[flow + 1].stack;
                    while stack.poll_event().is_some() {}
                    match stack.write(socket, &self.bytes) {
                        Ok(_) => {}
                        Err(SocketError::WouldBlock | SocketError::NoBuffers) => continue,
                        Err(error) => return Err(BulkError::Call("write", error)),
                    }
                }
                (_, Some(_)) => continue,
            }
            any = true;
        }
        if self.world.is_active(0) {
            any |= self.receive()?;
        }
        Ok(any)
    }

    fn connect(&mut self, flow: usize) -> Result<(), BulkError> {
        let to = SocketAddr::new(self.world.hosts[0].addr(PORT).ip(), PORT);
        self.world.activate(flow + 1);
        let stack = &mut self.world.hosts[flow + 1].stack;
        let failed = |error| BulkError::Call("connect", error);
        let socket = stack.socket(SocketKind::Tcp, Family::V4).map_err(failed)?;
        match stack.connect(socket, to) {
            Err(SocketError::InProgress) => {}
            Ok(()) => {}
            Err(error) => return Err(failed(error)),
        }
        self.senders[flow].1 = Some(socket);
        Ok(())
    }

    fn receive(&mut self) -> Result<bool, BulkError> {
        let mut any = false;
        let stack = &mut self.world.hosts[0].stack;
        while stack.poll_event().is_some() {}
        while let Ok((socket, from)) = stack.accept(self.listener) {
            if let IpAddr::V4(ip) = from.ip() {
                self.receivers.push((socket, usize::from(ip.octets()[3]) - 2));
            }
            any = true;
        }
        for &(socket, flow) in &self.receivers {
            loop {
                match stack.read(socket, &mut self.bytes) {
                    Ok(bytes) => self.received[flow] += bytes as u64,
                    Err(SocketError::WouldBlock) => break,
                    Err(error) => return Err(BulkError::Call("read", error)),
                }
                any = true;
            }
        }
        Ok(any)
    }
}

impl Bulk {
    fn host(&self, number: u8) -> HostConfig {
        let mut config = HostConfig::new(number);
        config.stack.seed = u128::from(self.seed) << 8 | u128::from(number);
        config.stack.tcp = TcpConfig {
            congestion: self.algorithm,
            send_buffer_bytes: self.buffer_bytes,
            recv_buffer_bytes: self.buffer_bytes,
            send_autotune: false,
            recv_autotune: false,
            ecn: if self.mark_bytes.is_some() { EcnMode::Request } else { EcnMode::default() },
            ..TcpConfig::default()
        };
        // Scarce memory is not what is measured.
        let slots = (u32::from(self.flows) * self.buffer_bytes / 256).max(4096);
        config.pool = PoolConfig { slots, cells: slots, ..config.pool };
        config.ring_len = 1024;
        config
    }
}

fn listen(world: &mut World) -> Result<SocketId, SocketError> {
    let stack = &mut world.hosts[0].stack;
    let socket = stack.socket(SocketKind::Tcp, Family::V4)?;
    stack.bind(socket, SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)))?;
    stack.listen(socket, usize::from(u8::MAX))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jains_index_tells_equal_shares_from_one_that_takes_all() {
        let index = |goodput_bps: &[f64]| {
            let goodput_bps = goodput_bps.to_vec();
            BulkReport { goodput_bps, bottleneck: LinkCounters::default() }.jain()
        };
        assert_eq!(index(&[5.0, 5.0, 5.0, 5.0]), 1.0);
        assert_eq!(index(&[8.0, 0.0, 0.0, 0.0]), 0.25);
        assert_eq!(index(&[0.0]), 0.0);
    }

    #[test]
    fn one_flow_fills_a_short_link() {
        let bulk = Bulk {
            seed: 1,
            flows: 1,
            algorithm: Algorithm::default(),
            buffer_bytes: 256 << 10,
            rate_bps: 10_000_000,
            queue_bytes: 64 << 10,
            mark_bytes: None,
            loss: 0.0,
            rtt: Duration::from_millis(1),
            warm_up: Duration::from_secs(1),
            measured: Duration::from_secs(1),
        };
        let report = bulk.run().unwrap();
        // 1,448 of 1,538 bytes of each full frame are the application's.
        let share = report.total_bps() / 10e6;
        // A window that waited behind a gap when counting began comes on top.
        assert!((0.92..=1448.0 / 1538.0 + 0.02).contains(&share), "{share}");
        assert_eq!(bulk.run().unwrap(), report);
    }
}
