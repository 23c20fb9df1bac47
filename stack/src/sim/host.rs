//! One host: a stack, its memory and its card.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use barewire_driver::device::BURST_FRAMES;
use barewire_driver::{
    DeviceError, Features, MacAddr, PacketSlice, Pool, PoolConfig, Queue, RxBurst, TxFrame,
};

use super::card::Card;
use super::world::Watch;
use crate::addr::Cidr;
use crate::interface::{IfaceId, InterfaceConfig};
use crate::neighbor::NeighborConfig;
use crate::stack::{Stack, StackConfig};
use crate::time::Instant;

/// How a host is set up.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The last byte of its address in 10.0.0.0/24, and of its Ethernet address.
    pub number: u8,
    /// Its stack.
    pub stack: StackConfig,
    /// Its packet memory.
    pub pool: PoolConfig,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Offloads that it asks its card for.
    pub features: Features,
    /// Slots that its card keeps posted.
    pub ring_len: usize,
    /// Its neighbour cache.
    pub neighbor: NeighborConfig,
}

impl HostConfig {
    /// A host with default settings, 8 MiB of packet memory and no offloads.
    pub fn new(number: u8) -> HostConfig {
        HostConfig {
            number,
            stack: StackConfig::new(u128::from(number)),
            pool: PoolConfig { slots: 4096, slot_len: 2048, cells: 4096, try_huge: false },
            mtu: 1500,
            features: Features::SCATTER_GATHER,
            ring_len: 256,
            neighbor: NeighborConfig::default(),
        }
    }

    /// Its address.
    pub fn addr(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, self.number)
    }
}

/// A host of a simulation.
pub struct Host {
    /// Its stack.
    pub stack: Stack,
    /// Its packet memory.
    pub pool: Pool,
    /// Frames that arrive are lost while this is set.
    pub deaf: bool,
    index: usize,
    iface: IfaceId,
    addr: Ipv4Addr,
    mac: MacAddr,
    card: Card,
    rx: RxBurst,
    sending: Vec<(TxFrame, Vec<PacketSlice>)>,
}

impl Host {
    /// Puts a card on one end of a cable and a stack on top of the card.
    pub(super) fn new(
        index: usize,
        config: HostConfig,
        end: Box<dyn Queue>,
    ) -> Result<Host, DeviceError> {
        let told = |error: &dyn std::fmt::Display| DeviceError::Config(error.to_string());
        let addr = config.addr();
        let pool = Pool::new(config.pool).map_err(|error| told(&error))?;
        let mut card = Card::new(end, config.ring_len);
        let granted = card.start(&pool, config.features)?;
        let offers = card.capabilities();
        let mac = MacAddr::local(u64::from(config.number));
        let cidr =
            Cidr::new(IpAddr::V4(addr), 24).ok_or_else(|| told(&"24 bits fit an IPv4 address"))?;
        let mut stack = Stack::new(config.stack, pool.clone());
        let interface = InterfaceConfig {
            mtu: config.mtu,
            features: granted,
            tso_max_bytes: offers.tso_max_bytes,
            tx_max_segs: offers.tx_max_segs,
            neighbor: config.neighbor,
            ..InterfaceConfig::ethernet(mac, cidr)
        };
        let iface = stack.add_interface(interface).map_err(|error| told(&error))?;
        let (rx, sending) = (RxBurst::new(), Vec::new());
        Ok(Host { stack, pool, deaf: false, index, iface, addr, mac, card, rx, sending })
    }

    /// Its interface.
    pub fn iface(&self) -> IfaceId {
        self.iface
    }

    /// Its Ethernet address.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Its address with a port.
    pub fn addr(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.addr), port)
    }

    /// True if the stack has events that no application has been told.
    pub(super) fn has_news(&self) -> bool {
        !self.stack.events.is_empty()
    }

    /// Takes in what has arrived; says whether anything has.
    pub(super) fn receive(&mut self, now: Instant, watch: &mut dyn Watch) -> bool {
        let mut any = false;
        // A local cable never fails, so an error ends the loop like an empty queue does.
        while self.card.rx_burst(&mut self.rx, BURST_FRAMES).is_ok() && !self.rx.is_empty() {
            any = true;
            if self.deaf {
                self.rx.clear();
                continue;
            }
            for frame in self.rx.frames() {
                watch.received(now, self.index, frame, self.rx.segments(frame));
            }
            self.stack.handle_burst(now, self.iface, &mut self.rx);
        }
        any
    }

    /// Sends what the stack has to send and the cable takes; says whether that was anything.
    pub(super) fn transmit(&mut self, now: Instant, watch: &mut dyn Watch) -> bool {
        let mut any = false;
        loop {
            let burst = self.stack.poll_transmit(self.iface);
            if burst.is_empty() {
                return any;
            }
            let frames = burst.iter().map(|(frame, pieces)| (*frame, pieces.to_vec()));
            self.sending.extend(frames);
            let taken = match self.card.tx_burst(burst) {
                Ok(_) => self.sending.len() - burst.len(),
                Err(_) => 0,
            };
            for (frame, pieces) in &self.sending[..taken] {
                watch.sent(now, self.index, frame, pieces);
            }
            self.sending.clear();
            if taken == 0 {
                return any;
            }
            any = true;
        }
    }

    /// Stops the card and gives its slots back to the pool.
    pub fn stop(&mut self) {
        self.rx.clear();
        self.card.stop();
    }
}
