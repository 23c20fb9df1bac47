//! [`Stack`]: interfaces, routes and sockets in one object without clock, thread or lock.
//!
//! ```text
//!   frames ──▶ handle_burst / handle_frame / handle_bytes ─┐
//!   time   ──▶ handle_timeout ─────────────────────────────┼─▶ sockets ──▶ poll_event
//!   calls  ──▶ socket, bind, connect, write, read, close … ┘      │
//!                                                    poll_transmit ─▶ TxBurst of an interface
//!                                                    poll_at ─▶ the next deadline
//! ```
//!
//! The order of calls, once round a loop: `handle_burst` with what arrived, the application's
//! calls, `handle_timeout`, `poll_transmit` until its burst stays empty, and then sleep until
//! `poll_at`. Any other order is correct too, only slower. Calls without a time of their own
//! happen at the latest time that was passed in; time never goes back.
//!
//! The simulation, the tests, the benchmarks and the engine drive this same object. It is public:
//! so may you, in virtual time, with a seed of your choice. The same seed and the same calls give
//! the same packets.

mod ahead;
#[cfg(feature = "sim")]
mod audit;
mod calls;
mod coalesce;
mod config;
mod datagram;
mod expected;
mod familiar;
mod fast_open;
mod icmp;
mod input;
mod listen;
mod open;
mod opening;
mod options;
mod overload;
mod pacing;
mod poll_flags;
mod raw;
mod resets;
mod settings;
mod settle;
mod shed;
mod small;
mod turning;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hint::cold_path;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;

use barewire_driver::device::BURST_FRAMES;
use barewire_driver::{PacketSlice, Pool, TxBurst};

use crate::addr::Cidr;
use crate::counters::StackCounters;
use crate::error::SocketError;
use crate::interface::{Egress, IfaceId, InterfaceConfig};
use crate::reassembly::Reassembler;
use crate::rng::Rng;
use crate::socket::block::Blocks;
use crate::socket::conn::Connection;
use crate::socket::demux::{FlowTable, PortMap, Tag};
use crate::socket::line::Line;
use crate::socket::listener::{Fresh, HalfOpenEntry, Listener, TimeWaitEntry};
use crate::socket::ports::PortRegistry;
use crate::socket::slab::Slab;
use crate::socket::udp::DatagramSocket;
use crate::socket::{SocketId, SocketKind};
use crate::tcp::fast_open::Cache;
use crate::tcp::{Memory, Readiness};
use crate::time::Instant;
use crate::timer::Wheel;

pub use config::{Limits, Share, StackConfig};
pub use input::{Forward, ForwardKind};
pub use poll_flags::PollFlags;
pub use raw::{RawError, SentPacket};
pub use settings::{Kind, Setting, SettingError, Settings, Value};

/// One slot in this many is never filled by [`Stack::write`]: whatever is queued for peers that do
/// not acknowledge, their ACKs can still be received.
pub const SEND_RESERVE_PART: usize = 8;

/// While less than half of the pool is free, a connection may have at most its share of the pool
/// unacknowledged: one part in this many, divided by the number of sockets. Peers that stop reading
/// cannot take the memory that all others send from.
pub const SEND_SHARE_PART: usize = 8;

/// The least that a connection's share is, in bytes.
pub const SEND_SHARE_MIN_BYTES: usize = 16 << 10;

/// While fewer than one slot in this many is free, received data that would have to wait, behind a
/// gap or behind data that the application has not read, is dropped (its sender sends it again), so
/// that neither readers that stall nor senders of gaps keep the others from receiving and sending.
pub const RECV_RESERVE_PART: usize = 4;

/// While fewer than one slot in this many is free, no socket buffer grows, and autotuned receive
/// buffers shrink.
pub const GROWTH_RESERVE_PART: usize = 2;

/// Timers that may fire at once without an allocation.
const FIRED_KEPT: usize = 4096;

/// An entry of the socket table. Connections are by far the most, so they lie in the table itself.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly every entry is a connection")]
pub(crate) enum Socket {
    Fresh(Fresh),
    Listener(Box<Listener>),
    Connection(Connection),
    Datagram(Box<DatagramSocket>),
}

/// The readiness of a socket has grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The socket.
    pub socket: SocketId,
    /// All of its readiness now, not only what is new.
    pub ready: Readiness,
}

/// A TCP/IP stack: see the [module](self).
#[derive(Debug)]
pub struct Stack {
    pub(crate) egress: Egress,
    /// The settings that sockets start with.
    pub(crate) tcp: Rc<crate::tcp::TcpConfig>,
    pub(crate) limits: Limits,
    pub(crate) ephemeral: std::ops::RangeInclusive<u16>,
    pub(crate) share: Share,
    pub(crate) sockets: Slab<Socket>,
    pub(crate) blocks: Blocks,
    pub(crate) half_open: Slab<HalfOpenEntry>,
    pub(crate) time_wait: Slab<TimeWaitEntry>,
    pub(crate) flows: FlowTable,
    /// Listeners and datagram sockets by port; several share one only where reuse allows it.
    pub(crate) listeners: PortMap<u16, Vec<SocketId>>,
    /// A listener that has its port to itself, if it was the last that was looked for: the port, the
    /// address that it is bound to, and the listener.
    sole_listener: Option<(u16, Option<Ipv4Addr>, SocketId)>,
    pub(crate) datagrams: PortMap<(SocketKind, u16), Vec<SocketId>>,
    sole_receiver: Option<expected::SoleReceiver>,
    /// Flows whose next frame takes the shortest way.
    familiar: familiar::Familiar,
    pub(crate) wheel: Wheel,
    pub(crate) pacing: pacing::PacingQueue,
    pub(crate) reassembler: Reassembler,
    /// Connections that want to send, in turn.
    pub(crate) tx_list: Line<u32>,
    pub(crate) events: Line<SocketId>,
    /// Datagram sockets whose last send had to wait.
    pub(crate) blocked: Vec<SocketId>,
    pub(crate) forwards: VecDeque<Forward>,
    pub(crate) orphans: usize,
    /// What is dropped when more arrives than can be worked on.
    shedding: overload::Shedding,
    resets: resets::ResetLimit,
    /// Where the search for stalled connections goes on, and when it last did.
    shed_hand: u32,
    shed_at: Option<Instant>,
    /// Cookies that servers have given.
    fast_open: Rc<RefCell<Cache>>,
    /// SYN cookies that have come back.
    spent_cookies: crate::tcp::cookie::Spent,
    /// Count up with each ephemeral port chosen (RFC 6056 §3.3.4).
    port_counters: Box<[u32; open::PORT_COUNTERS]>,
    /// Where the last connection went, and the hash that its port was chosen by.
    last_destination: Option<(open::Destination, u64)>,
    scratch: Vec<PacketSlice>,
    /// Payload of segments that are taken in together; empty between bursts.
    run_pieces: Vec<PacketSlice>,
    fired: Vec<u32>,
}

impl Stack {
    /// A stack without interfaces. All packets are made from, and all received ones should lie
    /// in, slots of `pool`.
    pub fn new(config: StackConfig, pool: Pool) -> Stack {
        let StackConfig { seed, tcp, limits, ephemeral_ports, share } = config;
        Stack {
            egress: Egress::new(pool, Rng::new(seed)),
            tcp: Rc::new(tcp),
            sockets: Slab::new(limits.sockets),
            blocks: Blocks::default(),
            half_open: Slab::new(limits.half_open),
            time_wait: Slab::new(limits.time_wait),
            flows: FlowTable::new(share.secrets.flows),
            limits,
            ephemeral: ephemeral_ports,
            listeners: PortMap::default(),
            sole_listener: None,
            datagrams: PortMap::default(),
            sole_receiver: None,
            familiar: familiar::Familiar::default(),
            wheel: Wheel::new(),
            pacing: pacing::PacingQueue::default(),
            reassembler: Reassembler::new(limits.reassembly),
            tx_list: Line::default(),
            events: Line::default(),
            blocked: Vec::new(),
            forwards: VecDeque::new(),
            orphans: 0,
            shedding: overload::Shedding::default(),
            resets: resets::ResetLimit::default(),
            shed_hand: 0,
            shed_at: None,
            fast_open: Rc::new(RefCell::new(Cache::new(limits.fast_open_cookies))),
            spent_cookies: crate::tcp::cookie::Spent::new(limits.spent_cookies),
            port_counters: Box::new([0; open::PORT_COUNTERS]),
            last_destination: None,
            share,
            scratch: Vec::new(),
            run_pieces: Vec::new(),
            fired: Vec::new(),
        }
    }

    /// Adds an interface, and routes to the networks that its addresses are on.
    ///
    /// # Errors
    /// [`SocketError::NoBuffers`] if there are too many interfaces or routes.
    pub fn add_interface(&mut self, config: InterfaceConfig) -> Result<IfaceId, SocketError> {
        self.egress.add_interface(config)
    }

    /// Adds a route to `to` through `iface`, by way of `gateway` or directly.
    ///
    /// # Errors
    /// [`SocketError::NoBuffers`] if there are too many routes.
    pub fn add_route(
        &mut self,
        to: Cidr,
        gateway: Option<std::net::IpAddr>,
        iface: IfaceId,
    ) -> Result<(), SocketError> {
        self.egress.add_route(to, gateway, iface)
    }

    /// The latest time that was passed in.
    pub fn now(&self) -> Instant {
        self.egress.now
    }

    /// What packet memory allows data that may have to wait for its reader.
    #[inline]
    pub(crate) fn memory(&self) -> Memory {
        memory(&self.egress.pool)
    }

    pub(crate) fn move_clock(&mut self, now: Instant) {
        self.egress.now = self.egress.now.max(now);
    }

    /// Moves the clock and does whatever is due: retransmissions, delayed ACKs, TIME-WAIT, ARP.
    #[inline(always)]
    pub fn handle_timeout(&mut self, now: Instant) {
        self.move_clock(now);
        if self.wheel.would_move(self.egress.now) {
            self.fire_timers();
        }
        self.release_paced();
        self.neighbor_timeouts();
        self.reassembly_timeouts();
        self.drain_loopback();
    }

    #[inline(never)]
    fn fire_timers(&mut self) {
        let mut fired = std::mem::take(&mut self.fired);
        self.wheel.advance(self.egress.now, &mut fired);
        for token in fired.drain(..) {
            match Tag::from_bits(token) {
                Tag::Connection(index) => self.connection_timeout(index),
                Tag::HalfOpen(index) => self.half_open_timeout(index),
                Tag::TimeWait(index) => self.time_wait_timeout(index),
            }
        }
        fired.shrink_to(FIRED_KEPT);
        self.fired = fired;
    }

    /// Does what is due at `now` and says when it wants to be called next.
    pub fn poll(&mut self, now: Instant) -> Option<Instant> {
        self.handle_timeout(now);
        self.poll_at()
    }

    /// When [`Stack::handle_timeout`] is needed next: never, or at this time (which may have
    /// passed).
    pub fn poll_at(&self) -> Option<Instant> {
        let neighbors = self.egress.ifaces.iter().map(|iface| iface.neighbors.poll_at());
        let loopback = (!self.egress.loopback.is_empty()).then_some(self.egress.now);
        neighbors
            .chain([self.wheel.next_deadline(), self.pacing.next()])
            .chain([self.reassembler.poll_at(), loopback])
            .flatten()
            .min()
    }

    /// Fills the burst of `iface` with frames and lends it, for a queue to take them out. What the
    /// queue leaves stays first in line. Call it again while it was full and the queue has room.
    ///
    /// # Panics
    /// If there is no such interface.
    #[inline(always)]
    pub fn poll_transmit(&mut self, iface: IfaceId) -> &mut TxBurst {
        if !self.tx_list.is_empty() {
            self.transmit_connections(iface);
        }
        if !self.blocked.is_empty() || self.egress.has_work() {
            self.transmit_others();
        }
        &mut self.egress.ifaces[iface.0 as usize].burst
    }

    #[inline(never)]
    fn transmit_others(&mut self) {
        self.drain_loopback();
        // Last, because whoever sends may have just found out that it has to ask for a neighbour.
        self.egress.send_due_requests();
        self.wake_blocked();
    }

    /// True if a connection has something to send that no burst has taken yet.
    #[inline(always)]
    pub fn wants_transmit(&self) -> bool {
        !self.tx_list.is_empty() || self.egress.any(|iface| !iface.burst.is_empty())
    }

    /// The next socket whose readiness has grown since it was last told.
    #[inline(always)]
    pub fn poll_event(&mut self) -> Option<Event> {
        // Asked first: most often there is none.
        if self.events.is_empty() {
            return None;
        }
        let socket = self.events.pop_front()?;
        match self.tell_calm(socket) {
            Some(ready) => Some(Event { socket, ready }),
            None => self.other_event(socket),
        }
    }

    #[inline(never)]
    fn other_event(&mut self, mut socket: SocketId) -> Option<Event> {
        loop {
            if let Some(ready) = self.tell(socket) {
                return Some(Event { socket, ready });
            }
            socket = self.events.pop_front()?;
        }
    }

    /// True if [`Stack::poll_event`] may have something to tell.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// A packet that came here and belongs to another engine.
    pub fn poll_forward(&mut self) -> Option<Forward> {
        self.forwards.pop_front()
    }

    /// What has been counted.
    pub fn counters(&self) -> &StackCounters {
        &self.egress.counters
    }

    /// The pool that packets are made from.
    pub fn pool(&self) -> &Pool {
        &self.egress.pool
    }

    /// Entries of the socket table: open handles, connections that wait for `accept`, and closed
    /// ones that end in the background.
    pub fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Connections in SYN-RECEIVED that listeners are opening.
    pub fn half_open(&self) -> usize {
        self.half_open.len()
    }

    /// Connections in TIME-WAIT that no application holds.
    pub fn time_wait(&self) -> usize {
        self.time_wait.len()
    }

    /// Closed connections that still end in the background.
    pub fn orphans(&self) -> usize {
        self.orphans
    }

    /// Timers in the wheel.
    pub fn timers(&self) -> usize {
        self.wheel.len()
    }

    /// The registry of ports.
    pub fn ports(&self) -> &Arc<PortRegistry> {
        &self.share.ports
    }

    #[inline(never)]
    fn transmit_connections(&mut self, iface: IfaceId) {
        // Each connection in the list gets one super-segment a turn. Those of other interfaces
        // keep their turn; the loop ends when only those are left.
        let mut kept = 0;
        while !self.tx_list.is_empty()
            && self.egress.ifaces[iface.0 as usize].burst.len() < BURST_FRAMES
        {
            let Some(index) = self.tx_list.pop_front() else { break };
            if self.transmit_small(index, iface) || self.transmit_one(index, iface) {
                kept = 0;
            } else {
                kept += 1;
                if kept >= self.tx_list.len() {
                    break;
                }
            }
        }
    }

    fn wake_blocked(&mut self) {
        let room = |iface: &crate::interface::Interface| {
            iface.burst.len() < crate::interface::DATAGRAM_BACKLOG_FRAMES
        };
        if self.blocked.is_empty() || !self.egress.ifaces.iter().all(room) {
            return;
        }
        for id in std::mem::take(&mut self.blocked) {
            if let Some(Socket::Datagram(socket)) = self.get_mut(id) {
                socket.blocked = false;
                self.note_event(id);
            }
        }
    }

    pub(crate) fn get(&self, id: SocketId) -> Option<&Socket> {
        self.sockets.get_held(id.index, id.generation)
    }

    pub(crate) fn get_mut(&mut self, id: SocketId) -> Option<&mut Socket> {
        self.sockets.get_held_mut(id.index, id.generation)
    }

    pub(crate) fn connection(&self, index: u32) -> Option<&Connection> {
        match self.sockets.get(index)? {
            Socket::Connection(connection) => Some(connection),
            Socket::Fresh(_) | Socket::Listener(_) | Socket::Datagram(_) => None,
        }
    }

    pub(crate) fn connection_mut(&mut self, index: u32) -> Option<&mut Connection> {
        match self.sockets.get_mut(index)? {
            Socket::Connection(connection) => Some(connection),
            Socket::Fresh(_) | Socket::Listener(_) | Socket::Datagram(_) => None,
        }
    }
}

/// What a pool allows data that may have to wait for its reader.
#[inline]
fn memory(pool: &Pool) -> Memory {
    let (free, total) = (pool.free_slots(), pool.total_slots());
    if free >= total / GROWTH_RESERVE_PART {
        return Memory::Plenty;
    }
    cold_path();
    if free >= total / RECV_RESERVE_PART { Memory::Scarce } else { Memory::Exhausted }
}
