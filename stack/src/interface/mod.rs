//! Interfaces, and the way out: from a transport's segment to frames in a burst.
//!
//! ```text
//!   TCP super-segment ─▶ emit_tcp ──────┐                       ┌─▶ TxBurst of the interface
//!   UDP, ICMP payload ─▶ emit_datagram ─┼─▶ route ─▶ neighbor ──┼─▶ parked until ARP answers
//!   ARP request, reply ─▶ emit_arp ─────┘                       └─▶ loopback, for own addresses
//! ```
//!
//! Software segmentation happens here, where the burst is written: each wire segment gets a header
//! cell and references to the payload, never a copy of it. Payloads of up to
//! [`INLINE_PAYLOAD_BYTES`] are copied behind their header, so that the frame is one segment.

mod cut;
mod datagram;
mod link;
mod opening;
mod segment;
mod small;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use barewire_driver::device::{BURST_FRAMES, Features};
use barewire_driver::{MacAddr, PacketBuf, PacketSlice, Pool, TxBurst, TxFrame};

use crate::addr::Cidr;
use crate::counters::StackCounters;
use crate::error::SocketError;
use crate::hint::rarely;
use crate::icmp;
use crate::neighbor::{self, Lookup};
use crate::rng::Rng;
pub use crate::route::IfaceId;
use crate::route::{self, Route};
pub(crate) use crate::route::{Hop, PathCache, Way};
use crate::time::Instant;
use crate::wire::ethernet;
use crate::wire::front::Pattern;

pub(crate) use datagram::Datagram;
pub(crate) use segment::TcpPath;
pub(crate) use small::UdpPath;

/// Payloads up to this size are copied behind their header: one descriptor instead of two.
pub const INLINE_PAYLOAD_BYTES: usize = 128;

/// Frames in an interface's burst beyond which replies that nobody would miss (RST, ICMP, ARP) are
/// dropped and counted: a flood of requests cannot make the burst grow for ever.
pub const REPLY_BACKLOG_FRAMES: usize = 4 * BURST_FRAMES;

/// Frames in an interface's burst beyond which `send_to` answers `WouldBlock`.
pub const DATAGRAM_BACKLOG_FRAMES: usize = 2 * BURST_FRAMES;

/// One header cell in this many is never taken for data.
const CONTROL_RESERVE_PART: usize = 16;

/// Destinations whose way is remembered apart from connections and sockets.
const RECENT_WAYS: usize = 16;

/// Packets to own addresses that wait to be taken in again.
pub const LOOPBACK_PACKETS: usize = 256;

/// What an interface speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// Ethernet frames.
    Ethernet,
    /// IP packets without a link header.
    Ip,
}

/// How an interface is set up.
#[derive(Clone, Debug)]
pub struct InterfaceConfig {
    /// Its Ethernet address; unused with [`Medium::Ip`].
    pub mac: MacAddr,
    /// Its addresses, each with the prefix of the network it is on.
    pub addresses: Vec<Cidr>,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// What it speaks.
    pub medium: Medium,
    /// What the queue behind it has granted.
    pub features: Features,
    /// Most payload bytes in a TSO frame.
    pub tso_max_bytes: u32,
    /// Most segments in a sent frame.
    pub tx_max_segs: u16,
    /// The neighbour cache.
    pub neighbor: neighbor::NeighborConfig,
}

impl InterfaceConfig {
    /// An Ethernet interface without offloads and with an MTU of 1,500.
    pub fn ethernet(mac: MacAddr, address: Cidr) -> InterfaceConfig {
        InterfaceConfig {
            mac,
            addresses: vec![address],
            mtu: 1500,
            medium: Medium::Ethernet,
            features: Features::SCATTER_GATHER,
            tso_max_bytes: 0,
            tx_max_segs: 1024,
            neighbor: neighbor::NeighborConfig::default(),
        }
    }

    /// An interface for raw IP packets, without offloads and with an MTU of 1,500.
    pub fn ip(address: Cidr) -> InterfaceConfig {
        InterfaceConfig {
            medium: Medium::Ip,
            ..InterfaceConfig::ethernet(MacAddr::default(), address)
        }
    }
}

/// A packet that waits for its neighbour's link address; the link header is still blank.
#[derive(Debug)]
pub(crate) struct Parked {
    header: PacketBuf,
    pieces: Vec<PacketSlice>,
    meta: TxFrame,
}

#[derive(Debug)]
pub(crate) struct Interface {
    pub(crate) config: InterfaceConfig,
    pub(crate) burst: TxBurst,
    pub(crate) neighbors: neighbor::Cache<Parked>,
    /// What the headers have in common that connections keep.
    pattern: Pattern,
}

impl Interface {
    /// Bytes of link header in front of each packet.
    pub(crate) fn link_len(&self) -> usize {
        match self.config.medium {
            Medium::Ethernet => ethernet::EthernetHeader::LEN,
            Medium::Ip => 0,
        }
    }

    /// True if an IP packet of `len` bytes need not be fragmented.
    #[inline]
    pub(crate) fn takes_whole(&self, len: usize) -> bool {
        len <= usize::from(self.config.mtu)
    }

    fn has_address(&self, addr: IpAddr) -> bool {
        self.config.addresses.iter().any(|cidr| cidr.addr() == addr)
    }

    /// True for sources that nobody could answer (RFC 1122 §3.2.1.3).
    pub(crate) fn is_bad_source(&self, src: Ipv4Addr) -> bool {
        src.is_multicast() || src.is_loopback() || src.is_unspecified() || self.is_broadcast(src)
    }

    /// True for the limited broadcast address and those of the interface's networks.
    pub(crate) fn is_broadcast(&self, addr: Ipv4Addr) -> bool {
        addr.is_broadcast()
            || self.config.addresses.iter().any(|cidr| cidr.broadcast() == Some(IpAddr::V4(addr)))
    }
}

/// Whether a hop's link address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// Send; the address is unused where there is no link header.
    Ready(MacAddr),
    /// Being asked for.
    Pending,
    /// Nobody answers for it.
    Failed,
}

/// The sending half of a stack: interfaces, routes, neighbours, and what it takes to write frames.
#[derive(Debug)]
pub(crate) struct Egress {
    pub(crate) now: Instant,
    pub(crate) pool: Pool,
    /// Header cells that data leaves to control traffic.
    reserved_cells: usize,
    pub(crate) rng: Rng,
    pub(crate) ifaces: Vec<Interface>,
    routes: route::Table,
    /// Counts up whenever [`Egress::route`] may answer otherwise than before.
    routing_changes: u32,
    pub(crate) counters: StackCounters,
    pub(crate) icmp_limits: icmp::Limits,
    /// Packets to own addresses.
    pub(crate) loopback: VecDeque<(IfaceId, Vec<PacketSlice>)>,
    /// Connections that wait for a neighbour; each socket is in at most one list, once.
    pub(crate) waiting: HashMap<(IfaceId, Ipv4Addr), Vec<u32>>,
    /// Ways to the last destinations of packets of no connection, and of new connections.
    recent: [Way; RECENT_WAYS],
}

/// Where a destination is looked for among the recent ones.
#[inline]
fn recent_place(dst: Ipv4Addr) -> usize {
    dst.octets()[3] as usize % RECENT_WAYS
}

impl Egress {
    pub(crate) fn new(pool: Pool, rng: Rng) -> Egress {
        Egress {
            now: Instant::ZERO,
            reserved_cells: pool.total_cells() / CONTROL_RESERVE_PART,
            pool,
            rng,
            ifaces: Vec::new(),
            routes: route::Table::new(),
            routing_changes: 0,
            counters: StackCounters::default(),
            icmp_limits: icmp::Limits::new(icmp::IcmpConfig::default()),
            loopback: VecDeque::new(),
            waiting: HashMap::new(),
            recent: [Way::default(); RECENT_WAYS],
        }
    }

    /// Whether this is so of any interface. Most stacks have one, which takes no loop.
    #[inline(always)]
    pub(crate) fn any(&self, is_so: impl Fn(&Interface) -> bool) -> bool {
        match &self.ifaces[..] {
            [only] => is_so(only),
            all => all.iter().any(is_so),
        }
    }

    pub(crate) fn iface(&self, id: IfaceId) -> Option<&Interface> {
        self.ifaces.get(id.0 as usize)
    }

    pub(crate) fn iface_mut(&mut self, id: IfaceId) -> Option<&mut Interface> {
        self.ifaces.get_mut(id.0 as usize)
    }

    /// Adds an interface and the routes to the networks that its addresses are on.
    pub(crate) fn add_interface(
        &mut self,
        config: InterfaceConfig,
    ) -> Result<IfaceId, SocketError> {
        let id = IfaceId(u16::try_from(self.ifaces.len()).map_err(|_| SocketError::NoBuffers)?);
        for &cidr in &config.addresses {
            self.add_route(cidr, None, id)?;
        }
        let neighbors = neighbor::Cache::new(config.neighbor);
        self.routing_changes += 1;
        let (burst, pattern) = (TxBurst::new(), Pattern::default());
        self.ifaces.push(Interface { config, burst, neighbors, pattern });
        Ok(id)
    }

    pub(crate) fn add_route(
        &mut self,
        to: Cidr,
        gateway: Option<IpAddr>,
        iface: IfaceId,
    ) -> Result<(), SocketError> {
        let route = Route { iface, gateway, metric: 0 };
        self.routing_changes += 1;
        self.routes.add(to, route).map_err(|_| SocketError::NoBuffers)
    }

    /// The interface that has `addr`, if it is one of this host's.
    pub(crate) fn owner_of(&self, addr: Ipv4Addr) -> Option<IfaceId> {
        let at = self.ifaces.iter().position(|i| i.has_address(IpAddr::V4(addr)))?;
        Some(IfaceId(at as u16))
    }

    /// The address that a socket is bound to, if packets may come from it: a socket that is bound to a
    /// broadcast address only receives by it (RFC 1122 §3.2.1.3).
    pub(crate) fn source_bound(&self, addr: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        addr.filter(|&addr| self.owner_of(addr).is_some())
    }

    /// The first step towards `dst`.
    pub(crate) fn route(&self, dst: Ipv4Addr) -> Option<Hop> {
        if let Some(iface) = self.owner_of(dst) {
            return Some(Hop::Local { iface });
        }
        // There is no loopback interface, and no other way leads to "this host" (RFC 1122 §3.2.1.3).
        if dst.is_loopback() || dst.is_unspecified() {
            return None;
        }
        if let Some(at) = self.ifaces.iter().position(|i| i.is_broadcast(dst)) {
            return Some(Hop::Broadcast { iface: IfaceId(at as u16) });
        }
        let hop = self.routes.lookup(IpAddr::V4(dst))?;
        match hop.next_hop {
            IpAddr::V4(next_hop) => Some(Hop::Link { iface: hop.iface, next_hop }),
            IpAddr::V6(_) => None,
        }
    }

    /// As [`Egress::route`], remembered in `path` until an interface or a route is added.
    #[inline]
    pub(crate) fn route_cached(&self, dst: Ipv4Addr, path: &mut PathCache) -> Option<Hop> {
        match path.hop {
            Some((changes, hop)) if changes == self.routing_changes => Some(hop),
            _ => self.route_anew(dst, path),
        }
    }

    #[inline(never)]
    fn route_anew(&self, dst: Ipv4Addr, path: &mut PathCache) -> Option<Hop> {
        let hop = self.route(dst)?;
        path.hop = Some((self.routing_changes, hop));
        Some(hop)
    }

    /// As [`Egress::route`], for those who keep no way of their own: the ways of the last few
    /// destinations are remembered here.
    #[inline]
    pub(crate) fn hop_recent(&mut self, dst: Ipv4Addr) -> Option<Hop> {
        let way = &self.recent[recent_place(dst)];
        match way.path.hop {
            Some((changes, hop)) if way.dst == dst && changes == self.routing_changes => Some(hop),
            Some(_) | None => self.hop_anew(dst),
        }
    }

    #[cold]
    fn hop_anew(&mut self, dst: Ipv4Addr) -> Option<Hop> {
        let mut way = self.recent[recent_place(dst)];
        if !self.find_way(dst, &mut way) {
            return self.route(dst);
        }
        self.recent[recent_place(dst)] = way;
        way.path.hop.map(|(_, hop)| hop)
    }

    /// What is remembered of the way to `dst`, for a connection to begin with.
    pub(crate) fn path_recent(&self, dst: Ipv4Addr) -> PathCache {
        let way = &self.recent[recent_place(dst)];
        if way.dst == dst { way.path } else { PathCache::default() }
    }

    /// A connection has found where its neighbour is in the cache: the next one to `dst` need not
    /// look for it.
    #[cold]
    pub(crate) fn note_place(&mut self, dst: Ipv4Addr, place: u32) {
        let way = &mut self.recent[recent_place(dst)];
        if way.dst == dst {
            way.path.neighbor = place;
        }
    }

    /// The same with the neighbour's link address, where it is known.
    pub(crate) fn route_recent(&mut self, dst: Ipv4Addr) -> Option<(Hop, Option<MacAddr>)> {
        let hop = self.hop_recent(dst)?;
        let mut place = self.recent[recent_place(dst)].path.neighbor;
        let mac = match (hop, self.resolve_at(hop, &mut place)) {
            (Hop::Local { .. }, _) | (_, Resolution::Pending | Resolution::Failed) => None,
            (Hop::Link { .. } | Hop::Broadcast { .. }, Resolution::Ready(mac)) => Some(mac),
        };
        self.recent[recent_place(dst)].path.neighbor = place;
        Some((hop, mac))
    }

    /// Makes `way` the one to `dst`, unless it is already; false if there is none.
    #[inline]
    pub(crate) fn find_way(&self, dst: Ipv4Addr, way: &mut Way) -> bool {
        let known = |(changes, _)| changes == self.routing_changes;
        way.dst == dst && way.path.hop.is_some_and(known) || self.find_way_anew(dst, way)
    }

    #[cold]
    fn find_way_anew(&self, dst: Ipv4Addr, way: &mut Way) -> bool {
        *way = Way { dst, ..Way::default() };
        let source = self.route_cached(dst, &mut way.path).and_then(|hop| self.source_for(hop));
        way.source = source.unwrap_or(Ipv4Addr::UNSPECIFIED);
        source.is_some()
    }

    /// The source address for packets that take `hop`: one on the neighbour's network if there is
    /// one, else the interface's first.
    pub(crate) fn source_for(&self, hop: Hop) -> Option<Ipv4Addr> {
        let iface = self.iface(hop.iface())?;
        let towards = match hop {
            Hop::Link { next_hop, .. } => Some(IpAddr::V4(next_hop)),
            Hop::Broadcast { .. } | Hop::Local { .. } => None,
        };
        let addresses = &iface.config.addresses;
        let near = towards.and_then(|to| addresses.iter().find(|cidr| cidr.contains(to)));
        match near.or_else(|| addresses.iter().find(|cidr| cidr.addr().is_ipv4()))?.addr() {
            IpAddr::V4(addr) => Some(addr),
            IpAddr::V6(_) => None,
        }
    }

    /// The link address of `hop`; starts asking for it where it is unknown.
    pub(crate) fn resolve(&mut self, hop: Hop) -> Resolution {
        let mut nowhere = u32::MAX;
        self.resolve_at(hop, &mut nowhere)
    }

    /// The same, with the place in the neighbour cache to look at first.
    #[inline(always)]
    pub(crate) fn resolve_at(&mut self, hop: Hop, place: &mut u32) -> Resolution {
        let now = self.now;
        let Some(iface) = self.iface_mut(hop.iface()) else { return Resolution::Failed };
        match (iface.config.medium, hop) {
            (Medium::Ip, _) | (_, Hop::Local { .. }) => Resolution::Ready(MacAddr::default()),
            (Medium::Ethernet, Hop::Broadcast { .. }) => Resolution::Ready(MacAddr::BROADCAST),
            (Medium::Ethernet, Hop::Link { next_hop, .. }) => {
                match iface.neighbors.lookup_at(now, IpAddr::V4(next_hop), place) {
                    Lookup::Found(mac) => Resolution::Ready(mac),
                    Lookup::Pending => Resolution::Pending,
                    Lookup::Failed => Resolution::Failed,
                }
            }
        }
    }

    /// Whether another reply still fits the interface's burst; counts the one that does not.
    pub(crate) fn has_reply_room(&mut self, iface: IfaceId) -> bool {
        let room = self.iface(iface).is_some_and(|i| i.burst.len() < REPLY_BACKLOG_FRAMES);
        if rarely(!room) {
            self.counters.tx_reply_overflow += 1;
        }
        room
    }

    /// A header cell for data, or `None`, counted: the last of them are kept for what overload is
    /// ended by, ACKs, RSTs, handshakes and neighbours.
    #[inline(always)]
    fn data_cell(&mut self) -> Option<PacketBuf> {
        if self.pool.free_cells() > self.reserved_cells
            && let Some(cell) = self.pool.alloc_cell()
        {
            return Some(cell);
        }
        self.scarce_data_cell()
    }

    #[inline(never)]
    fn scarce_data_cell(&mut self) -> Option<PacketBuf> {
        // Those that other threads have let go of may be enough.
        self.pool.collect_returns();
        if self.pool.free_cells() > self.reserved_cells {
            return self.header_cell();
        }
        self.counters.tx_no_buffer += 1;
        None
    }

    /// A header cell with room for the link header in front, or `None`, counted.
    fn header_cell(&mut self) -> Option<PacketBuf> {
        let cell = self.pool.alloc_cell();
        if rarely(cell.is_none()) {
            self.counters.tx_no_buffer += 1;
        }
        cell
    }

    /// Sends a packet whose headers stand in `header` behind a blank link header, or parks it
    /// until the neighbour answers.
    fn dispatch(&mut self, hop: Hop, header: PacketBuf, pieces: Vec<PacketSlice>, meta: TxFrame) {
        if let Hop::Local { iface } = hop {
            return self.loop_back(iface, header, pieces);
        }
        match self.resolve(hop) {
            Resolution::Ready(mac) => self.push_frame(hop.iface(), mac, header, pieces, meta),
            Resolution::Failed => self.counters.tx_no_neighbor += 1,
            Resolution::Pending => {
                let Hop::Link { iface, next_hop } = hop else { return };
                let parked = Parked { header, pieces, meta };
                let Some(iface) = self.iface_mut(iface) else { return };
                if iface.neighbors.enqueue(IpAddr::V4(next_hop), parked).is_err() {
                    self.counters.tx_neighbor_queue_full += 1;
                }
            }
        }
    }

    /// Writes the link header and adds the frame to the interface's burst.
    pub(crate) fn push_frame(
        &mut self,
        id: IfaceId,
        mac: MacAddr,
        mut header: PacketBuf,
        pieces: impl IntoIterator<Item = PacketSlice>,
        meta: TxFrame,
    ) {
        let Some(iface) = self.iface(id) else { return };
        link::write(&iface.config, mac, ethernet::ethertype::IPV4, &mut header);
        self.push_written(id, header, pieces, meta);
    }

    /// As [`Egress::push_frame`], with a link header in its place.
    fn push_written(
        &mut self,
        id: IfaceId,
        header: PacketBuf,
        pieces: impl IntoIterator<Item = PacketSlice>,
        meta: TxFrame,
    ) {
        let Some(iface) = self.ifaces.get_mut(usize::from(id.0)) else { return };
        iface.burst.push_segment(header.freeze());
        for piece in pieces {
            iface.burst.push_segment(piece);
        }
        iface.burst.finish_frame(meta);
        self.counters.tx_packets += 1;
    }

    /// Adds a TCP segment with all its headers, in one piece, to the interface's burst.
    fn push_whole(&mut self, id: IfaceId, frame: PacketSlice, meta: TxFrame) {
        let Some(iface) = self.ifaces.get_mut(usize::from(id.0)) else { return };
        iface.burst.push_single(frame, meta);
        self.counters.tcp_segments_sent += 1;
        self.counters.tx_packets += 1;
    }

    /// The same in two pieces.
    #[inline]
    fn push_pair(
        &mut self,
        id: IfaceId,
        headers: PacketSlice,
        payload: PacketSlice,
        meta: TxFrame,
    ) {
        let Some(iface) = self.ifaces.get_mut(usize::from(id.0)) else { return };
        iface.burst.push_pair(headers, payload, meta);
        self.counters.tcp_segments_sent += 1;
        self.counters.tx_packets += 1;
    }

    fn loop_back(&mut self, iface: IfaceId, header: PacketBuf, pieces: Vec<PacketSlice>) {
        if self.loopback.len() >= LOOPBACK_PACKETS {
            self.counters.loopback_full += 1;
            return;
        }
        let link_len = self.iface(iface).map_or(0, Interface::link_len);
        let mut packet = Vec::with_capacity(pieces.len() + 1);
        let mut header = header.freeze();
        header.advance(link_len);
        packet.push(header);
        packet.extend(pieces);
        self.loopback.push_back((iface, packet));
    }

    /// The connection waits for the link address of its next hop.
    #[cold]
    pub(crate) fn wait_for_neighbor(&mut self, hop: (IfaceId, Ipv4Addr), connection: u32) {
        self.waiting.entry(hop).or_default().push(connection);
    }

    /// True if the connection waits for the link address of its next hop.
    pub(crate) fn waits_for_neighbor(&self, connection: u32) -> bool {
        self.waiting.values().any(|waiting| waiting.contains(&connection))
    }

    /// Sends what waited for a neighbour that has answered.
    pub(crate) fn release_parked(&mut self, iface: IfaceId, mac: MacAddr, parked: Vec<Parked>) {
        for Parked { header, pieces, meta } in parked {
            self.push_frame(iface, mac, header, pieces, meta);
        }
    }

    /// Most bytes in one IP packet on the way to `hop`.
    pub(crate) fn mtu(&self, hop: Hop) -> u16 {
        self.iface(hop.iface()).map_or(576, |iface| iface.config.mtu)
    }
}
