//! Both drivers against their register models: every test ends with a device that has nothing to
//! complain about and a pool that has all of its slots. What both families can is tested with both
//! (`on_every_kind`).

/// Makes a test of each of these functions for every kind of device.
macro_rules! on_every_kind {
    ($($name:ident),+ $(,)?) => {
        mod i82575 {
            $(#[test] fn $name() { super::$name(crate::model::Kind::I82575) })+
        }
        mod i82576 {
            $(#[test] fn $name() { super::$name(crate::model::Kind::I82576) })+
        }
        mod i82574 {
            $(#[test] fn $name() { super::$name(crate::model::Kind::I82574) })+
        }
    };
}

mod bring_up;
mod e1000e;
mod faults;
mod flow_control;
mod receive;
mod settings;
mod transmit;
mod virtual_function;

use std::sync::Arc;

use super::{Nic, NicConfig, open};
use crate::device::{Features, Queue, QueueId, RxBurst, TxBurst, TxChecksum, TxFrame};
use crate::mem::{PacketSlice, Pool, PoolConfig};
use crate::model::{Kind, NicModel};

const MAC: crate::device::MacAddr = crate::device::MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

/// A model, the device on it, its queues started with a pool each.
struct Rig {
    model: NicModel,
    nic: Arc<dyn Nic>,
    queues: Vec<Box<dyn Queue>>,
    pools: Vec<Pool>,
    burst: RxBurst,
    tx: TxBurst,
}

fn memory(slots: u32) -> PoolConfig {
    PoolConfig { slots, slot_len: 2048, cells: 256, try_huge: false }
}

fn pool(slots: u32) -> Pool {
    Pool::new(memory(slots)).unwrap()
}

fn small(queues: u16) -> NicConfig {
    NicConfig { rx_ring: 64, tx_ring: 64, ..NicConfig::new(queues) }
}

impl Rig {
    fn new(kind: Kind, config: NicConfig) -> Rig {
        Rig::with_slots(kind, config, 256)
    }

    fn with_slots(kind: Kind, config: NicConfig, slots: u32) -> Rig {
        Rig::with_pools(kind, config, memory(slots))
    }

    fn with_pools(kind: Kind, config: NicConfig, memory: PoolConfig) -> Rig {
        let model = NicModel::new(kind, MAC).unwrap();
        let queues = config.queues;
        let nic = open(Arc::new(model.clone()), config).unwrap();
        let mut rig = Rig {
            model,
            nic,
            queues: Vec::new(),
            pools: Vec::new(),
            burst: RxBurst::new(),
            tx: TxBurst::new(),
        };
        for n in 0..queues {
            let pool = Pool::new(memory).unwrap();
            let mut queue = rig.nic.queue(QueueId(n)).unwrap().open();
            queue.start(&pool, Features::all()).unwrap();
            rig.pools.push(pool);
            rig.queues.push(queue);
        }
        rig
    }

    /// Frames that queue 0 has received, joined.
    fn receive(&mut self) -> Vec<Vec<u8>> {
        self.receive_on(0)
    }

    fn receive_on(&mut self, queue: usize) -> Vec<Vec<u8>> {
        self.burst.clear();
        self.queues[queue].rx_burst(&mut self.burst, 64).unwrap();
        let burst = &self.burst;
        burst.frames().iter().map(|frame| join(burst.segments(frame))).collect()
    }

    /// Puts a frame of these segments into the burst for queue 0.
    fn push(&mut self, segments: &[&[u8]], meta: TxFrame) {
        self.push_on(0, segments, meta);
    }

    fn push_on(&mut self, queue: usize, segments: &[&[u8]], meta: TxFrame) {
        for bytes in segments {
            self.tx.push_segment(self.pools[queue].copy_from(bytes).unwrap().freeze());
        }
        self.tx.finish_frame(meta);
    }

    fn send(&mut self) -> usize {
        self.send_on(0)
    }

    fn send_on(&mut self, queue: usize) -> usize {
        self.queues[queue].tx_burst(&mut self.tx).unwrap()
    }

    /// Stops everything and looks at what is left.
    #[track_caller]
    fn end(mut self) {
        assert_eq!(self.model.violations(), Vec::<String>::new());
        self.burst.clear();
        self.tx.clear();
        for queue in &mut self.queues {
            queue.stop();
        }
        for pool in &self.pools {
            let audit = pool.audit();
            assert!(audit.all_free(), "{audit:?}");
        }
        drop((self.queues, self.nic));
        assert_eq!(self.model.violations(), Vec::<String>::new());
        assert_eq!(self.model.mapped_regions(), 0);
    }
}

/// A TCP segment over IPv4 to the device, with right checksums.
fn tcp(source_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([4; 6], MAC.0)
        .ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64)
        .tcp(source_port, 80, 7, 512)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

/// The same frame as a sender hands it over whose checksum the device fills in: the field holds the
/// pseudo-header's sum.
fn partial(mut frame: Vec<u8>, l4_at: usize, field: usize, protocol: u8) -> (Vec<u8>, TxChecksum) {
    let mut sum = crate::mem::Checksum::new();
    let addresses = if l4_at == 54 { 22..54 } else { 26..34 };
    sum.add(&frame[addresses]);
    sum.add_u16(u16::from(protocol));
    sum.add_u16((frame.len() - l4_at) as u16);
    let seed = sum.partial().to_be_bytes();
    frame[l4_at + field..l4_at + field + 2].copy_from_slice(&seed);
    (frame, TxChecksum::Partial { start: l4_at as u16, offset: field as u16 })
}

/// Asserts that lengths and all checksums of a frame are right, by a parser that is not ours.
#[track_caller]
fn assert_valid(frame: &[u8]) {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(transport) = sliced.transport else { panic!("no transport header") };
    match (sliced.net.unwrap(), transport) {
        (NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            let wanted = tcp.calc_checksum_ipv4(header.source, header.destination).unwrap();
            assert_eq!(tcp.checksum(), wanted);
        }
        (NetSlice::Ipv6(ip), TransportSlice::Tcp(tcp)) => {
            let header = ip.header().to_header();
            let wanted = tcp.calc_checksum_ipv6(header.source, header.destination).unwrap();
            assert_eq!(tcp.checksum(), wanted);
        }
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
            let header = ip.header().to_header();
            let wanted = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap();
            assert_eq!(udp.checksum(), wanted);
        }
        other => panic!("not what was sent: {other:?}"),
    }
}

fn join(segments: &[PacketSlice]) -> Vec<u8> {
    segments.iter().flat_map(|segment| segment.to_vec()).collect()
}
