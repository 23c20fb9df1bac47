//! A learning Ethernet switch whose ports are bad links.
//!
//! ```text
//!   host ─ card ─▶ Faulty (single frames) ─▶ forward ─▶ Link (rate, queue, what lasts) ─▶ host
//!                                               └─ too large: ICMP back to the sender
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use barewire_driver::cable::LocalQueue;
use barewire_driver::device::BURST_FRAMES;
use barewire_driver::middleware::fault::{FaultConfig, FaultFigures, Faulty};
use barewire_driver::sys::Clock;
use barewire_driver::{
    Arm, DeviceError, Features, MacAddr, PacketSlice, Pool, PoolConfig, Queue, RxBurst, TxBurst,
    TxFrame,
};

use super::card::Card;
use super::frames;
use super::link::{Link, LinkConfig, LinkCounters};
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::ethernet::EthernetHeader;

/// Addresses that the switch remembers; beyond it frames to new ones are flooded, as a switch does.
const MAX_ADDRESSES: usize = 256;

/// Frames that wait at one port for its cable before more are dropped.
const MAX_WAITING: usize = 1024;

/// Slots of the switch's own memory, and of each port's ring.
const SLOTS: u32 = 16 << 10;
const RING_LEN: usize = 256;

/// The wire between the switch and one host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wire {
    /// What happens to single frames: those that the host sends (`rx`, for the switch receives
    /// them) and those that are sent to it (`tx`).
    pub faults: FaultConfig,
    /// The way to the host.
    pub down: LinkConfig,
    /// Share of the segments to the host that arrive with URG and an urgent pointer.
    pub urgent: f64,
}

impl From<FaultConfig> for Wire {
    fn from(faults: FaultConfig) -> Wire {
        Wire { faults, ..Wire::default() }
    }
}

/// What the switch has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwitchCounters {
    /// Frames sent on to the port where their destination is.
    pub forwarded: u64,
    /// Frames sent on to every other port.
    pub flooded: u64,
    /// Frames dropped because too many waited at a port.
    pub overflowed: u64,
    /// Frames too short to have a destination.
    pub malformed: u64,
    /// Senders told that their packet is too large for the way (RFC 1191 §4).
    pub told_too_large: u64,
}

struct Port {
    queue: Faulty,
    rx: RxBurst,
    tx: TxBurst,
    link: Link<Vec<PacketSlice>>,
    urgent: f64,
    rng: Rng,
}

impl Port {
    /// Hands over what has come through the link, until too much waits for the cable.
    fn release(&mut self, now: Instant, pool: &Pool) {
        while self.tx.len() < MAX_WAITING
            && let Some((frame, mark)) = self.link.take(now)
        {
            let mut frame = if mark { frames::marked(frame, pool) } else { frame };
            if self.urgent > 0.0 && self.rng.chance(self.urgent) {
                frame = frames::urgent(frame, self.rng.next_u64() as u16, pool);
            }
            for piece in frame {
                self.tx.push_segment(piece);
            }
            self.tx.finish_frame(TxFrame::default());
        }
    }
}

/// Joins the cables of all hosts.
pub struct Switch {
    pool: Pool,
    ports: Vec<Port>,
    learned: BTreeMap<MacAddr, usize>,
    counters: SwitchCounters,
}

impl Switch {
    /// A switch with one port for each cable's end.
    pub(super) fn new(ends: Vec<(LocalQueue, Wire)>, clock: &Clock) -> Result<Switch, DeviceError> {
        let pool = PoolConfig { slots: SLOTS, slot_len: 2048, cells: 1, try_huge: false };
        let pool = Pool::new(pool).map_err(|error| DeviceError::Config(error.to_string()))?;
        let mut ports = Vec::with_capacity(ends.len());
        for (end, Wire { faults, down, urgent }) in ends {
            let rng = Rng::new(u128::from(down.seed) | 1 << 81);
            let card = Card::new(Box::new(end), RING_LEN);
            let figures: Arc<FaultFigures> = Arc::default();
            let mut queue = Faulty::with_clock(Box::new(card), faults, clock.clone(), figures);
            queue.start(&pool, Features::SCATTER_GATHER)?;
            let (rx, tx, link) = (RxBurst::new(), TxBurst::new(), Link::new(down));
            ports.push(Port { queue, rx, tx, link, urgent, rng });
        }
        let (learned, counters) = (BTreeMap::new(), SwitchCounters::default());
        Ok(Switch { pool, ports, learned, counters })
    }

    /// What it has done.
    pub fn counters(&self) -> SwitchCounters {
        self.counters
    }

    /// What the faults of one port have done.
    pub fn faults(&self, port: usize) -> &FaultFigures {
        self.ports[port].queue.figures()
    }

    /// What has become of frames on the way to one port's host.
    pub fn link(&self, port: usize) -> LinkCounters {
        self.ports[port].link.counters()
    }

    /// Moves frames that are due from port to port; says whether there were any.
    pub(super) fn pump(&mut self, now: Instant) -> bool {
        let mut any = false;
        for port in 0..self.ports.len() {
            let mut rx = std::mem::take(&mut self.ports[port].rx);
            // A local cable never fails.
            while self.ports[port].queue.rx_burst(&mut rx, BURST_FRAMES).is_ok() && !rx.is_empty() {
                any = true;
                for frame in rx.frames() {
                    self.forward(now, port, rx.segments(frame));
                }
                rx.clear();
            }
            self.ports[port].rx = rx;
        }
        for port in &mut self.ports {
            port.release(now, &self.pool);
            let Port { queue, tx, .. } = port;
            any |= !tx.is_empty() && queue.tx_burst(tx).is_ok_and(|sent| sent > 0);
            queue.reclaim();
        }
        any
    }

    fn forward(&mut self, now: Instant, from: usize, frame: &[PacketSlice]) {
        let Some(Ok(header)) = frame.first().map(|first| EthernetHeader::parse(first)) else {
            self.counters.malformed += 1;
            return;
        };
        let known = self.learned.contains_key(&header.src);
        if !header.src.is_group() && (known || self.learned.len() < MAX_ADDRESSES) {
            self.learned.insert(header.src, from);
        }
        match self.learned.get(&header.dst).copied().filter(|_| !header.dst.is_group()) {
            Some(to) if to == from => {}
            Some(to) => {
                self.counters.forwarded += 1;
                self.send(now, from, to, frame);
            }
            None => {
                self.counters.flooded += 1;
                for to in (0..self.ports.len()).filter(|&to| to != from) {
                    self.send(now, from, to, frame);
                }
            }
        }
    }

    fn send(&mut self, now: Instant, from: usize, to: usize, frame: &[PacketSlice]) {
        let len = frame.iter().map(|piece| piece.len()).sum();
        if let Some(largest) = self.ports[to].link.largest_frame()
            && len > largest
            && self.ports[to].link.tells()
            && let Some(answer) = frames::too_large(frame, largest, &self.pool)
        {
            self.counters.told_too_large += 1;
            let len = answer.iter().map(|piece| piece.len()).sum();
            self.ports[from].link.offer(now, len, answer);
        }
        if self.ports[to].tx.len() >= MAX_WAITING {
            self.counters.overflowed += 1;
            return;
        }
        self.ports[to].link.offer(now, len, frame.to_vec());
    }

    /// When a delayed frame is due next, in nanoseconds of the clock; the present if one is.
    pub(super) fn next_ns(&mut self, now_ns: u64) -> Option<u64> {
        let next = |port: &mut Port| {
            let damaged = match port.queue.arm() {
                Arm::Ready => Some(now_ns),
                Arm::Sleep { until_ns, .. } => until_ns,
            };
            let link = port.link.next_due().map(Instant::as_nanos);
            damaged.into_iter().chain(link).min()
        };
        self.ports.iter_mut().filter_map(next).min()
    }

    /// Stops all ports; says whether every slot of the switch's own memory has come home.
    pub(super) fn stop(&mut self) -> bool {
        for port in &mut self.ports {
            port.rx.clear();
            port.tx.clear();
            port.link.clear();
            port.queue.stop();
        }
        self.pool.audit().all_free()
    }
}
