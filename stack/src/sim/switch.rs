//! A learning Ethernet switch whose ports are bad links.

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
use crate::wire::ethernet::EthernetHeader;

/// Addresses that the switch remembers; beyond it frames to new ones are flooded, as a switch does.
const MAX_ADDRESSES: usize = 256;

/// Frames that wait at one port for its cable before more are dropped.
const MAX_WAITING: usize = 1024;

/// Slots of the switch's own memory, and of each port's ring.
const SLOTS: u32 = 16 << 10;
const RING_LEN: usize = 256;

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
}

struct Port {
    queue: Faulty,
    rx: RxBurst,
    tx: TxBurst,
}

/// Joins the cables of all hosts.
pub struct Switch {
    pool: Pool,
    ports: Vec<Port>,
    learned: BTreeMap<MacAddr, usize>,
    counters: SwitchCounters,
}

impl Switch {
    /// A switch with one port for each cable's end; the faults of a port hit what its host sends
    /// (`rx`) and what is sent to it (`tx`).
    pub(super) fn new(
        ends: Vec<(LocalQueue, FaultConfig)>,
        clock: &Clock,
    ) -> Result<Switch, DeviceError> {
        let pool = PoolConfig { slots: SLOTS, slot_len: 2048, cells: 1, try_huge: false };
        let pool = Pool::new(pool).map_err(|error| DeviceError::Config(error.to_string()))?;
        let mut ports = Vec::with_capacity(ends.len());
        for (end, faults) in ends {
            let card = Card::new(Box::new(end), RING_LEN);
            let figures: Arc<FaultFigures> = Arc::default();
            let mut queue = Faulty::with_clock(Box::new(card), faults, clock.clone(), figures);
            queue.start(&pool, Features::SCATTER_GATHER)?;
            ports.push(Port { queue, rx: RxBurst::new(), tx: TxBurst::new() });
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

    /// Moves frames that are due from port to port; says whether there were any.
    pub(super) fn pump(&mut self) -> bool {
        let mut any = false;
        for port in 0..self.ports.len() {
            let mut rx = std::mem::take(&mut self.ports[port].rx);
            // A local cable never fails.
            while self.ports[port].queue.rx_burst(&mut rx, BURST_FRAMES).is_ok() && !rx.is_empty() {
                any = true;
                for frame in rx.frames() {
                    self.forward(port, rx.segments(frame));
                }
                rx.clear();
            }
            self.ports[port].rx = rx;
        }
        for Port { queue, tx, .. } in &mut self.ports {
            any |= !tx.is_empty() && queue.tx_burst(tx).is_ok_and(|sent| sent > 0);
            queue.reclaim();
        }
        any
    }

    fn forward(&mut self, from: usize, frame: &[PacketSlice]) {
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
                self.send(to, frame);
            }
            None => {
                self.counters.flooded += 1;
                for to in (0..self.ports.len()).filter(|&to| to != from) {
                    self.send(to, frame);
                }
            }
        }
    }

    fn send(&mut self, to: usize, frame: &[PacketSlice]) {
        let tx = &mut self.ports[to].tx;
        if tx.len() >= MAX_WAITING {
            self.counters.overflowed += 1;
            return;
        }
        for piece in frame {
            tx.push_segment(piece.clone());
        }
        tx.finish_frame(TxFrame::default());
    }

    /// When a delayed frame is due next, in nanoseconds of the clock; the present if one is.
    pub(super) fn next_ns(&mut self, now_ns: u64) -> Option<u64> {
        self.ports
            .iter_mut()
            .filter_map(|port| match port.queue.arm() {
                Arm::Ready => Some(now_ns),
                Arm::Sleep { until_ns, .. } => until_ns,
            })
            .min()
    }

    /// Stops all ports; says whether every slot of the switch's own memory has come home.
    pub(super) fn stop(&mut self) -> bool {
        for port in &mut self.ports {
            port.rx.clear();
            port.tx.clear();
            port.queue.stop();
        }
        self.pool.audit().all_free()
    }
}
