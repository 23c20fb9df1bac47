//! Who may use which port: one registry for all engines of a host.
//!
//! It is locked, and touched only by bind, connect and close, never per packet. Sockets that have
//! bound a port are few, and lie in a map; connections may use every port there is, and are counted
//! in a table with a place for each, which costs them no search and no allocation.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::demux::PortMap;
use crate::error::SocketError;

/// A registry with room for more bound ports than this shrinks when all but one part in so many is
/// unused.
const SHRINK_FROM: usize = 1024;
const SHRINK_PART: usize = 8;

/// Ports of a protocol.
const PORTS: usize = 1 << 16;

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

/// TCP ports, each with the number of connections that use it without a binding of their own:
/// accepted ones, ones in TIME-WAIT, and outgoing ones on an ephemeral port. Memory is touched only
/// where a port is.
struct Connections(Box<[u32]>);

impl Default for Connections {
    fn default() -> Connections {
        Connections(vec![0; PORTS].into_boxed_slice())
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let used = self.0.iter().enumerate().filter(|&(_, &count)| count > 0);
        f.debug_map().entries(used).finish()
    }
}

impl Connections {
    fn on(&mut self, port: u16) -> &mut u32 {
        &mut self.0[usize::from(port)]
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// Never empty.
    bound: PortMap<(Protocol, u16), Vec<Binding>>,
    connections: Connections,
    next_id: u64,
}

/// The ports of one host, shared by its engines.
#[derive(Debug, Default)]
pub struct PortRegistry {
    inner: Mutex<Inner>,
}

impl PortRegistry {
    /// A registry with every port free.
    pub fn new() -> PortRegistry {
        PortRegistry::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete when the lock is let go, so a poisoned lock is still right.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.lock().bind(protocol, addr, port, reuse)
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
        let mut inner = self.lock();
        for port in ports_from(range, start) {
            let free = !inner.bound.contains_key(&(protocol, port))
                && !inner.has_connections(protocol, port);
            if free && allowed(port) {
                return inner.bind(protocol, addr, port, Reuse::default());
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
        let mut inner = self.lock();
        let Some(bindings) = inner.bound.get_mut(&(lease.protocol, lease.port)) else {
            return Err(SocketError::InvalidInput);
        };
        let Some(own) = bindings.iter().position(|b| b.id == lease.id) else {
            return Err(SocketError::InvalidInput);
        };
        let (addr, reuse) = (bindings[own].addr, bindings[own].reuse);
        let blocked =
            bindings.iter().any(|b| b.id != lease.id && b.listening && b.conflicts(addr, reuse));
        if blocked {
            return Err(SocketError::AddrInUse);
        }
        bindings[own].listening = true;
        Ok(())
    }

    /// Gives a port back.
    pub fn release(&self, lease: Lease) {
        let mut inner = self.lock();
        let port = (lease.protocol, lease.port);
        let Some(bindings) = inner.bound.get_mut(&port) else { return };
        bindings.retain(|binding| binding.id != lease.id);
        if bindings.is_empty() {
            inner.bound.remove(&port);
            let (len, capacity) = (inner.bound.len(), inner.bound.capacity());
            if capacity > SHRINK_FROM && len < capacity / SHRINK_PART {
                inner.bound.shrink_to(2 * len);
            }
        }
    }

    /// Counts a connection on `port`; with `unbound`, only if no socket has bound the port
    /// (connections of ephemeral ports keep clear of those). Says whether it did.
    pub fn open_connection(&self, port: u16, unbound: bool) -> bool {
        let mut inner = self.lock();
        if unbound && inner.bound.contains_key(&(Protocol::Tcp, port)) {
            return false;
        }
        *inner.connections.on(port) += 1;
        true
    }

    /// Uncounts a connection on `port`.
    pub fn close_connection(&self, port: u16) {
        let mut inner = self.lock();
        let connections = inner.connections.on(port);
        debug_assert!(*connections > 0, "a connection was closed twice");
        *connections = connections.saturating_sub(1);
    }

    /// Ports that something uses. It looks at all of them.
    pub fn in_use(&self) -> usize {
        let inner = self.lock();
        let unbound = |port: u16| !inner.bound.contains_key(&(Protocol::Tcp, port));
        let counts = (0..=u16::MAX).zip(&inner.connections.0);
        inner.bound.len() + counts.filter(|&(port, &count)| count > 0 && unbound(port)).count()
    }
}

impl Inner {
    fn bind(
        &mut self,
        protocol: Protocol,
        addr: Option<IpAddr>,
        port: u16,
        reuse: Reuse,
    ) -> Result<Lease, SocketError> {
        let id = self.next_id;
        let blocked = match self.bound.get(&(protocol, port)) {
            Some(bindings) => bindings.iter().any(|b| b.conflicts(addr, reuse)),
            None => self.has_connections(protocol, port) && !reuse.addr && !reuse.port,
        };
        if blocked {
            return Err(SocketError::AddrInUse);
        }
        self.next_id += 1;
        let bindings = self.bound.entry((protocol, port)).or_default();
        bindings.push(Binding { id, addr, reuse, listening: false });
        Ok(Lease { protocol, port, id })
    }

    fn has_connections(&mut self, protocol: Protocol, port: u16) -> bool {
        protocol == Protocol::Tcp && *self.connections.on(port) > 0
    }
}

/// All ports of `range`, from the one that `start` falls on, around its end.
pub fn ports_from(range: &RangeInclusive<u16>, start: u64) -> impl Iterator<Item = u16> + use<> {
    let (low, high) = (u64::from(*range.start()), u64::from(*range.end()));
    let count = (high + 1).saturating_sub(low);
    (0..count).map(move |i| (low + (start % count + i) % count) as u16)
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
        let ports = PortRegistry::new();
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
        let ports = PortRegistry::new();
        let first = bind(&ports, A, ADDR).unwrap();
        let second = bind(&ports, None, ADDR).unwrap();
        ports.listen(&first).unwrap();
        assert_eq!(ports.listen(&second), Err(SocketError::AddrInUse));
        assert_eq!(bind(&ports, A, ADDR), Err(SocketError::AddrInUse));
    }

    #[test]
    fn reuse_port_shares_even_a_listener() {
        let ports = PortRegistry::new();
        let first = bind(&ports, A, PORT).unwrap();
        ports.listen(&first).unwrap();
        let second = bind(&ports, A, PORT).unwrap();
        ports.listen(&second).unwrap();
        assert_eq!(bind(&ports, A, ADDR), Err(SocketError::AddrInUse));
    }

    #[test]
    fn lingering_connections_hold_a_port_unless_reuse_is_asked_for() {
        let ports = PortRegistry::new();
        assert!(ports.open_connection(80, true));
        assert_eq!(bind(&ports, A, NONE), Err(SocketError::AddrInUse));
        let lease = bind(&ports, A, ADDR).unwrap();
        assert!(!ports.open_connection(80, true), "ephemeral connections avoid bound ports");
        ports.close_connection(80);
        ports.release(lease);
        assert_eq!(ports.in_use(), 0);
    }

    #[test]
    fn an_ephemeral_port_is_found_anywhere_in_the_range_and_runs_out() {
        let ports = PortRegistry::new();
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
}
