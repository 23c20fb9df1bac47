//! Who may use which port: one registry for all engines of a host, touched by bind, connect and
//! close, never per packet.
//!
//! ```text
//!   bind, listen, release      ─▶ bindings, one lock ──── sets ──▶ bound: a bit a TCP port
//!          └── counts of the port's connections, all ◀─┐            ▲
//!   connect, accept, close ─▶ connections of the engine ┘── reads ──┘
//! ```
//!
//! Connections come and go by the hundred thousand a second, so each engine counts its own. Nobody
//! else writes there, which spares a lock and every locked instruction but one. Whoever binds sets
//! the port's bit before it looks at the counts; whoever takes an ephemeral port counts before it
//! looks at the bit, with a fence between at both. One of the two sees the other.

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::demux::PortMap;
use crate::error::SocketError;

/// A registry with room for more ports than this shrinks when all but one part in so many is unused.
const SHRINK_FROM: usize = 1024;
const SHRINK_PART: usize = 8;

/// The protocols whose ports are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP ports.
    Tcp,
    /// UDP ports.
    Udp,
    /// Identifiers of ICMP echo.
    Ping,
}

/// What a socket allows others on its port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reuse {
    /// `SO_REUSEADDR`.
    pub addr: bool,
    /// `SO_REUSEPORT`.
    pub port: bool,
}

/// A port that a socket holds; given back with [`PortRegistry::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a lease is only given back by PortRegistry::release"]
pub struct Lease {
    protocol: Protocol,
    port: u16,
    id: u64,
}

impl Lease {
    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

#[derive(Debug)]
struct Binding {
    id: u64,
    /// `None` is the wildcard.
    addr: Option<IpAddr>,
    reuse: Reuse,
    listening: bool,
}

impl Binding {
    /// Whether two sockets on one port get in each other's way, as on Linux: their addresses
    /// overlap, and they have not both allowed it.
    fn conflicts(&self, addr: Option<IpAddr>, reuse: Reuse) -> bool {
        let overlap = self.addr.is_none() || addr.is_none() || self.addr == addr;
        let both_reuse_port = self.reuse.port && reuse.port;
        let both_reuse_addr = self.reuse.addr && reuse.addr && !self.listening;
        overlap && !both_reuse_port && !both_reuse_addr
    }
}

/// All that there are.
const PORTS: usize = 1 << 16;

/// Ports that a bit of each word stands for.
const WORD_PORTS: u16 = 64;

/// Words with a bit for every port.
const WORDS: usize = PORTS / WORD_PORTS as usize;

#[derive(Debug, Default)]
struct Bindings {
    ports: PortMap<(Protocol, u16), Vec<Binding>>,
    next_id: u64,
}

/// Ports that are counted side by side.
const PAGE_PORTS: usize = 256;

type Page = [AtomicU32; PAGE_PORTS];

/// TCP ports, each with the number of an engine's connections that use it without a binding of their
/// own: accepted ones, ones in TIME-WAIT, and outgoing ones on an ephemeral port. They may use every
/// port there is, so each has its place: no search, and no allocation but that of a page once. The
/// engine's own stack alone changes them.
struct Counts(Box<[OnceLock<Box<Page>>]>);

impl Default for Counts {
    fn default() -> Counts {
        Counts((0..PORTS / PAGE_PORTS).map(|_| OnceLock::new()).collect())
    }
}

impl std::fmt::Debug for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.used()).finish()
    }
}

impl Counts {
    /// The count of `port`, for the engine that it is of.
    #[inline]
    fn own(&self, port: u16) -> &AtomicU32 {
        let page = self.0[usize::from(port) / PAGE_PORTS].get_or_init(new_page);
        &page[usize::from(port) % PAGE_PORTS]
    }

    /// Connections on `port`.
    fn on(&self, port: u16) -> u32 {
        let page = self.0[usize::from(port) / PAGE_PORTS].get();
        page.map_or(0, |page| page[usize::from(port) % PAGE_PORTS].load(Ordering::Relaxed))
    }

    /// Ports with connections.
    fn used(&self) -> impl Iterator<Item = u16> {
        (0..=u16::MAX).filter(|&port| self.on(port) > 0)
    }
}

#[cold]
fn new_page() -> Box<Page> {
    Box::new([const { AtomicU32::new(0) }; PAGE_PORTS])
}

/// The ports of one host, shared by its engines.
#[derive(Debug)]
pub struct PortRegistry {
    bindings: Mutex<Bindings>,
    /// TCP ports that a socket has bound. Changed under the lock of `bindings`.
    bound: Box<[AtomicU64]>,
    /// By engine.
    connections: Box<[Counts]>,
}

/// What is behind a lock. Every change is complete when the lock is let go, so a poisoned one is
/// still right.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PortRegistry {
    /// A registry with every port free, for so many engines.
    pub fn new(engines: u16) -> PortRegistry {
        PortRegistry {
            bindings: Mutex::default(),
            bound: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
            connections: (0..engines.max(1)).map(|_| Counts::default()).collect(),
        }
    }

    fn bound_bit(&self, port: u16) -> (&AtomicU64, u64) {
        (&self.bound[usize::from(port / WORD_PORTS)], 1 << (port % WORD_PORTS))
    }

    /// True if any engine has a connection on `port`.
    fn has_connections(&self, port: u16) -> bool {
        self.connections.iter().any(|counts| counts.on(port) > 0)
    }

    /// Takes `port` on `addr` (`None` is the wildcard).
    ///
    /// # Errors
    /// [`SocketError::AddrInUse`] if a socket that does not allow it is in the way.
    pub fn bind(
        &self,
        protocol: Protocol,
        addr: Option<IpAddr>,
        port: u16,
        reuse: Reuse,
    ) -> Result<Lease, SocketError> {
        self.bind_among(&mut locked(&self.bindings), protocol, (addr, port), reuse)
    }

    fn bind_among(
        &self,
        bindings: &mut Bindings,
        protocol: Protocol,
        (addr, port): (Option<IpAddr>, u16),
        reuse: Reuse,
    ) -> Result<Lease, SocketError> {
        let id = bindings.next_id;
        let others = bindings.ports.entry((protocol, port)).or_default();
        let mut blocked = others.iter().any(|other| other.conflicts(addr, reuse));
        if others.is_empty() && protocol == Protocol::Tcp {
            let (word, bit) = self.bound_bit(port);
            // Before the counts are looked at: see the head of this file.
            word.fetch_or(bit, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            blocked = !reuse.addr && !reuse.port && self.has_connections(port);
        }
        if blocked {
            self.forget_if_unbound(bindings, protocol, port);
            return Err(SocketError::AddrInUse);
        }
        bindings.next_id += 1;
        others.push(Binding { id, addr, reuse, listening: false });
        Ok(Lease { protocol, port, id })
    }

    fn forget_if_unbound(&self, bindings: &mut Bindings, protocol: Protocol, port: u16) {
        if bindings.ports.get(&(protocol, port)).is_some_and(Vec::is_empty) {
            bindings.ports.remove(&(protocol, port));
            let (len, capacity) = (bindings.ports.len(), bindings.ports.capacity());
            if capacity > SHRINK_FROM && len < capacity / SHRINK_PART {
                bindings.ports.shrink_to(2 * len);
            }
            if protocol == Protocol::Tcp {
                let (word, bit) = self.bound_bit(port);
                word.fetch_and(!bit, Ordering::Relaxed);
            }
        }
    }

    /// Takes a free port of `range`, searching from `start` (a random number: RFC 6056 §3.3.1).
    ///
    /// # Errors
    /// [`SocketError::AddrInUse`] if none is free.
    pub fn bind_ephemeral(
        &self,
        protocol: Protocol,
        addr: Option<IpAddr>,
        range: &RangeInclusive<u16>,
        start: u64,
        mut allowed: impl FnMut(u16) -> bool,
    ) -> Result<Lease, SocketError> {
        let mut bindings = locked(&self.bindings);
        for port in ports_from(range, start) {
            let bound = bindings.ports.contains_key(&(protocol, port));
            if bound || !allowed(port) {
                continue;
            }
            // One that connections use is refused, and the next one tried.
            let lease = self.bind_among(&mut bindings, protocol, (addr, port), Reuse::default());
            if lease.is_ok() {
                return lease;
            }
        }
        Err(SocketError::AddrInUse)
    }

    /// Says that the socket listens now: `SO_REUSEADDR` no longer lets others in.
    ///
    /// # Errors
    /// [`SocketError::AddrInUse`] if another socket listens there and they do not both have
    /// `SO_REUSEPORT`.
    pub fn listen(&self, lease: &Lease) -> Result<(), SocketError> {
        let mut bindings = locked(&self.bindings);
        let Some(port) = bindings.ports.get_mut(&(lease.protocol, lease.port)) else {
            return Err(SocketError::InvalidInput);
        };
        let Some(own) = port.iter().position(|b| b.id == lease.id) else {
            return Err(SocketError::InvalidInput);
        };
        let (addr, reuse) = (port[own].addr, port[own].reuse);
        let blocked =
            port.iter().any(|b| b.id != lease.id && b.listening && b.conflicts(addr, reuse));
        if blocked {
            return Err(SocketError::AddrInUse);
        }
        port[own].listening = true;
        Ok(())
    }

    /// Gives a port back.
    pub fn release(&self, lease: Lease) {
        let mut bindings = locked(&self.bindings);
        if let Some(port) = bindings.ports.get_mut(&(lease.protocol, lease.port)) {
            port.retain(|binding| binding.id != lease.id);
        }
        self.forget_if_unbound(&mut bindings, lease.protocol, lease.port);
    }

    /// Counts a connection of `engine` on `port`; with `unbound`, only if no socket has bound the
    /// port (connections of ephemeral ports keep clear of those). Says whether it did. One thread at
    /// a time may do this for an engine.
    pub fn open_connection(&self, engine: u16, port: u16, unbound: bool) -> bool {
        let (word, bit) = self.bound_bit(port);
        let is_bound = || unbound && word.load(Ordering::Relaxed) & bit != 0;
        // First, so that no bind is refused for a connection that there will not be.
        if is_bound() {
            return false;
        }
        let count = self.connections[usize::from(engine)].own(port);
        let before = count.load(Ordering::Relaxed);
        count.store(before + 1, Ordering::Relaxed);
        if unbound {
            fence(Ordering::SeqCst);
            if is_bound() {
                count.store(before, Ordering::Relaxed);
                return false;
            }
        }
        true
    }

    /// Uncounts a connection of `engine` on `port`. One thread at a time may do this for an engine.
    pub fn close_connection(&self, engine: u16, port: u16) {
        let count = self.connections[usize::from(engine)].own(port);
        let before = count.load(Ordering::Relaxed);
        debug_assert!(before > 0, "a connection was closed twice");
        count.store(before.saturating_sub(1), Ordering::Relaxed);
    }

    /// Ports that something uses. It looks at all of them.
    pub fn in_use(&self) -> usize {
        let bindings = locked(&self.bindings);
        let mut ports: HashSet<(Protocol, u16)> = bindings.ports.keys().copied().collect();
        for counts in &self.connections {
            ports.extend(counts.used().map(|port| (Protocol::Tcp, port)));
        }
        ports.len()
    }
}

/// All ports of `range`, from the one that `start` falls on, around its end.
pub fn ports_from(range: &RangeInclusive<u16>, start: u64) -> impl Iterator<Item = u16> + use<> {
    let (low, high) = (u64::from(*range.start()), u64::from(*range.end()));
    let count = (high + 1).saturating_sub(low);
    let mut next = low + start % count.max(1);
    (0..count).map(move |_| {
        let port = next;
        next = if port == high { low } else { port + 1 };
        port as u16
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const A: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));
    const B: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3)));
    const ADDR: Reuse = Reuse { addr: true, port: false };
    const PORT: Reuse = Reuse { addr: false, port: true };
    const NONE: Reuse = Reuse { addr: false, port: false };

    fn bind(r: &PortRegistry, addr: Option<IpAddr>, reuse: Reuse) -> Result<Lease, SocketError> {
        r.bind(Protocol::Tcp, addr, 80, reuse)
    }

    #[test]
    fn a_taken_port_is_refused_and_free_again_after_release() {
        let ports = PortRegistry::new(1);
        let lease = bind(&ports, A, NONE).unwrap();
        assert_eq!(bind(&ports, A, NONE), Err(SocketError::AddrInUse));
        assert_eq!(bind(&ports, None, NONE), Err(SocketError::AddrInUse));
        let other = bind(&ports, B, NONE).unwrap();
        let udp = ports.bind(Protocol::Udp, A, 80, NONE).unwrap();
        ports.release(lease);
        ports.release(bind(&ports, A, NONE).unwrap());
        ports.release(other);
        ports.release(udp);
        assert_eq!(ports.in_use(), 0);
    }

    #[test]
    fn reuse_addr_shares_until_somebody_listens() {
        let ports = PortRegistry::new(1);
        let first = bind(&ports, A, ADDR).unwrap();
        let second = bind(&ports, None, ADDR).unwrap();
        ports.listen(&first).unwrap();
        assert_eq!(ports.listen(&second), Err(SocketError::AddrInUse));
        assert_eq!(bind(&ports, A, ADDR), Err(SocketError::AddrInUse));
    }

    #[test]
    fn reuse_port_shares_even_a_listener() {
        let ports = PortRegistry::new(1);
        let first = bind(&ports, A, PORT).unwrap();
        ports.listen(&first).unwrap();
        let second = bind(&ports, A, PORT).unwrap();
        ports.listen(&second).unwrap();
        assert_eq!(bind(&ports, A, ADDR), Err(SocketError::AddrInUse));
    }

    #[test]
    fn lingering_connections_hold_a_port_unless_reuse_is_asked_for() {
        let ports = PortRegistry::new(1);
        assert!(ports.open_connection(0, 80, true));
        assert_eq!(bind(&ports, A, NONE), Err(SocketError::AddrInUse));
        let lease = bind(&ports, A, ADDR).unwrap();
        assert!(!ports.open_connection(0, 80, true), "ephemeral connections avoid bound ports");
        ports.close_connection(0, 80);
        ports.release(lease);
        assert_eq!(ports.in_use(), 0);
    }

    #[test]
    fn an_ephemeral_port_is_found_anywhere_in_the_range_and_runs_out() {
        let ports = PortRegistry::new(1);
        let range = 1000..=1003;
        let mut got: Vec<_> = (0..4)
            .map(|_| ports.bind_ephemeral(Protocol::Udp, A, &range, 7, |_| true).unwrap().port())
            .collect();
        assert_eq!(got, [1003, 1000, 1001, 1002]);
        got.sort_unstable();
        assert_eq!(got, [1000, 1001, 1002, 1003]);
        let full = ports.bind_ephemeral(Protocol::Udp, A, &range, 7, |_| true);
        assert_eq!(full, Err(SocketError::AddrInUse));
        assert_eq!(ports_from(&(65535..=65535), 9).collect::<Vec<_>>(), [65535]);
    }

    #[test]
    fn connections_of_any_engine_hold_a_port() {
        let ports = PortRegistry::new(3);
        assert!(ports.open_connection(2, 80, true) && ports.open_connection(1, 80, true));
        assert_eq!(bind(&ports, A, NONE), Err(SocketError::AddrInUse));
        assert!(ports.open_connection(0, 80, true), "a refused bind leaves nothing behind");
        let taken = ports.bind_ephemeral(Protocol::Tcp, A, &(80..=81), 0, |_| true).unwrap();
        assert_eq!(taken.port(), 81);
        (0..3).for_each(|engine| ports.close_connection(engine, 80));
        ports.release(bind(&ports, A, NONE).unwrap());
        ports.release(taken);
        assert_eq!(ports.in_use(), 0);
    }

    #[test]
    fn of_a_bind_and_a_connection_at_once_one_sees_the_other() {
        const ROUNDS: usize = 2_000;
        let ports = PortRegistry::new(2);
        let start = std::sync::Barrier::new(2);
        for _ in 0..ROUNDS {
            let (bound, opened) = std::thread::scope(|scope| {
                let binder = scope.spawn(|| {
                    start.wait();
                    bind(&ports, A, NONE)
                });
                start.wait();
                let opened = ports.open_connection(1, 80, true);
                (binder.join().unwrap(), opened)
            });
            assert!(!(bound.is_ok() && opened), "both have the port");
            if opened {
                ports.close_connection(1, 80);
            }
            if let Ok(lease) = bound {
                ports.release(lease);
            }
        }
        assert_eq!(ports.in_use(), 0);
    }
}
