//! Making, binding and connecting sockets.

use std::hash::Hasher;
use std::hint::cold_path;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;

use siphasher::sip::SipHasher13;

use super::{Socket, Stack};
use crate::error::SocketError;
use crate::hint::rarely;
use crate::interface::Hop;
use crate::socket::conn::{Connection, Holder};
use crate::socket::demux::{FlowKey, Tag};
use crate::socket::listener::{Bound, Fresh, Template};
use crate::socket::ports::{Lease, Protocol, Reuse, ports_from};
use crate::socket::udp::DatagramSocket;
use crate::socket::{Family, SocketId, SocketKind};
use crate::tcp::fast_open::FastConnect;
use crate::tcp::{FlowNumbers, Open, State};
use crate::wire::ipv4::DEFAULT_TTL;

/// What ephemeral ports are chosen by: own address, the peer's, and its port.
pub(super) type Destination = (Ipv4Addr, Ipv4Addr, u16);

/// Counters of ephemeral ports.
pub(super) const PORT_COUNTERS: usize = 256;

impl Stack {
    /// Makes a socket.
    ///
    /// # Errors
    /// [`SocketError::TooManySockets`] at the limit, [`SocketError::AddressFamily`] for IPv6.
    pub fn socket(&mut self, kind: SocketKind, family: Family) -> Result<SocketId, SocketError> {
        if family == Family::V6 {
            return Err(SocketError::AddressFamily);
        }
        let tcp = &self.tcp;
        let placed = self.sockets.insert_with(|| match kind {
            SocketKind::Tcp => Socket::Fresh(Fresh {
                template: Template {
                    config: Rc::clone(tcp),
                    reuse: Reuse::default(),
                    ttl: DEFAULT_TTL,
                    tos: 0,
                    priority: 0,
                },
                bound: None,
            }),
            SocketKind::Udp | SocketKind::Ping => {
                Socket::Datagram(Box::new(DatagramSocket::new(kind)))
            }
        });
        match placed {
            Some((index, generation)) => Ok(SocketId { index, generation }),
            None => {
                self.egress.counters.sockets_full += 1;
                Err(SocketError::TooManySockets)
            }
        }
    }

    /// Gives a socket its local address and port. The unspecified address takes every interface,
    /// port 0 a free ephemeral port.
    ///
    /// # Errors
    /// [`SocketError::AddrInUse`], [`SocketError::AddrNotAvailable`] for an address that is not
    /// this host's, [`SocketError::InvalidInput`] if the socket is bound or connected already.
    pub fn bind(&mut self, id: SocketId, addr: SocketAddr) -> Result<(), SocketError> {
        let IpAddr::V4(ip) = addr.ip() else { return Err(SocketError::AddressFamily) };
        let broadcast = self.egress.ifaces.iter().any(|iface| iface.is_broadcast(ip));
        if !ip.is_unspecified() && !broadcast && self.egress.owner_of(ip).is_none() {
            return Err(SocketError::AddrNotAvailable);
        }
        let (protocol, reuse) = match self.get(id).ok_or(SocketError::BadSocket)? {
            Socket::Fresh(fresh) if fresh.bound.is_none() => (Protocol::Tcp, fresh.template.reuse),
            Socket::Datagram(socket) if socket.bound.is_none() => {
                (protocol_of(socket.kind), socket.reuse)
            }
            Socket::Fresh(_)
            | Socket::Datagram(_)
            | Socket::Listener(_)
            | Socket::Connection(_) => {
                return Err(SocketError::InvalidInput);
            }
        };
        let local = (!ip.is_unspecified()).then_some(ip);
        let bound = self.take_port(protocol, local, addr.port(), reuse)?;
        self.set_bound(id, bound);
        Ok(())
    }

    /// Takes `port`, or an ephemeral one for 0.
    fn take_port(
        &mut self,
        protocol: Protocol,
        addr: Option<Ipv4Addr>,
        port: u16,
        reuse: Reuse,
    ) -> Result<Bound, SocketError> {
        let ip = addr.map(IpAddr::V4);
        let ports = &self.share.ports;
        let lease = if port != 0 {
            ports.bind(protocol, ip, port, reuse)?
        } else {
            let start = self.egress.rng.next_u64();
            let (engine, engines) = (self.share.engine, self.share.engines);
            // An identifier says which engine its echo replies belong to.
            let ours = |port: u16| protocol != Protocol::Ping || port % engines == engine;
            ports.bind_ephemeral(protocol, ip, &self.ephemeral, start, ours)?
        };
        Ok(Bound { addr, lease })
    }

    fn set_bound(&mut self, id: SocketId, bound: Bound) {
        let port = bound.lease.port();
        match self.get_mut(id) {
            Some(Socket::Fresh(fresh)) => fresh.bound = Some(bound),
            Some(Socket::Datagram(socket)) => {
                let kind = socket.kind;
                socket.bound = Some(bound);
                self.sole_receiver = None;
                self.familiar.change_datagrams();
                self.datagrams.entry((kind, port)).or_default().push(id);
            }
            Some(Socket::Listener(_) | Socket::Connection(_)) | None => {
                self.share.ports.release(bound.lease);
            }
        }
    }

    /// Binds a datagram socket that sends or connects before it is bound.
    pub(super) fn autobind(&mut self, id: SocketId) -> Result<(), SocketError> {
        match self.get(id).ok_or(SocketError::BadSocket)? {
            Socket::Datagram(socket) if socket.bound.is_none() => {
                self.bind(id, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
            }
            Socket::Datagram(_)
            | Socket::Fresh(_)
            | Socket::Listener(_)
            | Socket::Connection(_) => Ok(()),
        }
    }

    /// Connects a socket. TCP answers [`SocketError::InProgress`] and tells the end of the
    /// handshake as an event: writable, or an error to take. A datagram socket is given its peer
    /// at once.
    ///
    /// # Errors
    /// `InProgress`, `AlreadyInProgress`, `AlreadyConnected` (a listener counts as connected),
    /// `NetworkUnreachable` (a broadcast or multicast address is reached by no TCP connection),
    /// `AddrNotAvailable` if no port is free, `InvalidInput` for an impossible peer.
    pub fn connect(&mut self, id: SocketId, addr: SocketAddr) -> Result<(), SocketError> {
        match self.get(id).ok_or(SocketError::BadSocket)? {
            Socket::Datagram(_) => {
                let IpAddr::V4(remote) = addr.ip() else { return Err(SocketError::AddressFamily) };
                self.connect_datagram(id, remote, addr.port())
            }
            Socket::Fresh(_) | Socket::Listener(_) | Socket::Connection(_) => {
                let waits_for_data = self.connect_as(id, addr, None)?;
                if waits_for_data { Ok(()) } else { Err(SocketError::InProgress) }
            }
        }
    }

    /// Starts to open a TCP connection, fast if that is wanted; true if data can go with its SYN.
    pub(super) fn connect_as(
        &mut self,
        id: SocketId,
        addr: SocketAddr,
        how: Option<FastConnect>,
    ) -> Result<bool, SocketError> {
        let IpAddr::V4(remote) = addr.ip() else { return Err(SocketError::AddressFamily) };
        let (template, bound) = match self.get(id).ok_or(SocketError::BadSocket)? {
            Socket::Fresh(fresh) => (fresh.template.clone(), fresh.bound_to()),
            Socket::Listener(_) => return Err(SocketError::AlreadyConnected),
            Socket::Datagram(_) => return Err(SocketError::InvalidInput),
            Socket::Connection(connection) => {
                return Err(if connection.tcb.look(|tcb| tcb.is_connecting()) {
                    SocketError::AlreadyInProgress
                } else if connection.tcb.look(|tcb| tcb.state() == State::Closed) {
                    // What the attempt came to, once, as Linux has it; never a success.
                    let error = self.take_error(id)?;
                    error.unwrap_or(SocketError::ConnectionAborted)
                } else {
                    SocketError::AlreadyConnected
                });
            }
        };
        let key = self.key_to(bound, remote, addr.port())?;
        let open = self.open_values(&key);
        let now = self.egress.now;
        let lease = if bound.is_some() { self.take_lease(id) } else { None };
        let mut tcb = self.blocks.take(template.config, open, now);
        tcb.begin_connect();
        let with_data = self.prepare_fast_open(&mut tcb, &key, how);
        let holder = Holder::Application;
        let way = (self.egress.path_recent(key.remote), template.ttl, template.tos);
        // Its SYN is to be sent; unless that may wait for data, nothing else is to be followed up.
        let in_tx_list = !with_data;
        self.sockets.replace_with(id.index, || {
            Socket::Connection(Connection { in_tx_list, ..Connection::new(key, tcb, holder, way) })
        });
        if let Some(lease) = lease {
            // The connection itself counts at the port from here on.
            self.share.ports.release(lease);
        }
        self.flows.add(key, Tag::Connection(id.index));
        if rarely(with_data) {
            self.follow_up(id.index);
        } else {
            self.tx_list.push_back(id.index);
        }
        Ok(with_data)
    }

    #[cold]
    fn take_lease(&mut self, id: SocketId) -> Option<Lease> {
        let Some(Socket::Fresh(fresh)) = self.get_mut(id) else { return None };
        fresh.bound.take().map(|bound| bound.lease)
    }

    /// The 4-tuple of a connection to `remote` from a socket that is bound to this address and port,
    /// counted at its port.
    fn key_to(
        &mut self,
        bound: Option<(Option<Ipv4Addr>, u16)>,
        remote: Ipv4Addr,
        port: u16,
    ) -> Result<FlowKey, SocketError> {
        if port == 0 {
            return Err(SocketError::InvalidInput);
        }
        let own = self.egress.source_bound(bound.and_then(|(addr, _)| addr));
        // The unspecified address is this host, as in Linux: the address that the socket is bound
        // to, or else that of the loopback interface, which this host does not have.
        let remote = own.filter(|_| remote.is_unspecified()).unwrap_or(remote);
        // RFC 9293 §3.9.2.3 (MUST-46): no TCP connection has many ends. The error is Linux's.
        if remote.is_multicast() {
            return Err(SocketError::NetworkUnreachable);
        }
        let hop = self.egress.hop_recent(remote).ok_or(SocketError::NetworkUnreachable)?;
        let source = match hop {
            Hop::Broadcast { .. } => return Err(SocketError::NetworkUnreachable),
            Hop::Local { .. } => {
                cold_path();
                Some(remote)
            }
            Hop::Link { .. } => self.egress.source_for(hop),
        };
        let source = source.ok_or(SocketError::AddrNotAvailable)?;
        let local = own.unwrap_or(source);
        self.claim_flow(local, remote, port, bound.map(|(_, port)| port))
    }

    /// Finds the 4-tuple of a new outgoing connection and counts it at its port: with the port
    /// given, or with an ephemeral one by RFC 6056 §3.3.4 (a keyed hash of the destination plus a
    /// counter, of which destinations share a few hundred: one counter for all would tell each how
    /// many connections go elsewhere), whose answers come back to this engine.
    fn claim_flow(
        &mut self,
        local: Ipv4Addr,
        remote: Ipv4Addr,
        remote_port: u16,
        given: Option<u16>,
    ) -> Result<FlowKey, SocketError> {
        let key_with = |local_port| FlowKey { local, remote, local_port, remote_port };
        if let Some(port) = given {
            cold_path();
            let key = key_with(port);
            if self.flows.find(&key).is_some() {
                return Err(SocketError::AddrNotAvailable);
            }
            self.share.open_connection(port, false);
            return Ok(key);
        }
        let hash = self.destination_hash(local, remote, remote_port);
        // The counter is picked by bits that the range of ports does not see.
        let counter = (hash >> 56) as usize % PORT_COUNTERS;
        let start = (hash & 0xffff_ffff) + u64::from(self.port_counters[counter]);
        for (tried, port) in ports_from(&self.ephemeral, start).enumerate() {
            let key = key_with(port);
            let ours = self.owner(&key) == self.share.engine && self.flows.find(&key).is_none();
            if ours && self.share.open_connection(port, true) {
                let counter = &mut self.port_counters[counter];
                *counter = counter.wrapping_add(tried as u32 + 1);
                return Ok(key);
            }
        }
        Err(SocketError::AddrNotAvailable)
    }

    /// The keyed hash of RFC 6056; that of the last destination is remembered.
    #[inline]
    fn destination_hash(&mut self, local: Ipv4Addr, remote: Ipv4Addr, remote_port: u16) -> u64 {
        let destination = (local, remote, remote_port);
        match self.last_destination {
            Some((last, hash)) if last == destination => hash,
            Some(_) | None => self.hash_destination(destination),
        }
    }

    #[inline(never)]
    fn hash_destination(&mut self, destination: Destination) -> u64 {
        let (local, remote, remote_port) = destination;
        let secret = self.share.secrets.ports;
        let mut hasher = SipHasher13::new_with_keys(secret.0, secret.1);
        hasher.write_u32(local.to_bits());
        hasher.write_u32(remote.to_bits());
        hasher.write_u16(remote_port);
        let hash = hasher.finish();
        self.last_destination = Some((destination, hash));
        hash
    }

    /// The engine that a flow belongs to: every engine computes the same.
    #[inline]
    pub(crate) fn owner(&self, key: &FlowKey) -> u16 {
        if self.share.engines == 1 { 0 } else { self.owner_among(key) }
    }

    #[inline(never)]
    fn owner_among(&self, key: &FlowKey) -> u16 {
        match (self.share.engines, &self.share.steering) {
            (engines, Some(steering)) => {
                let remote = SocketAddrV4::new(key.remote, key.remote_port);
                let local = SocketAddrV4::new(key.local, key.local_port);
                steering.queue_v4(remote, local) % engines
            }
            (engines, None) => (key.hash(self.share.secrets.flows) >> 32) as u16 % engines,
        }
    }

    /// The numbers that a new connection starts with (RFC 6528, RFC 7323 §5.4).
    pub(super) fn open_values(&mut self, key: &FlowKey) -> Open {
        let now = self.egress.now;
        let numbers = FlowNumbers::new(self.share.secrets.isn, key.local_addr(), key.remote_addr());
        let iss = numbers.isn(now);
        #[cfg(feature = "sim")]
        let iss = self.share.isn_below.map_or(iss, |below| {
            // RFC 6528's clock without its hash: still no number twice for one 4-tuple.
            below.wrapping_sub(256 << 10).wrapping_add((now.as_micros() / 4) as u32)
        });
        Open { iss, ts_offset: numbers.ts_offset(), mss: self.egress.tcp_mss(key.remote) }
    }

    fn connect_datagram(
        &mut self,
        id: SocketId,
        remote: Ipv4Addr,
        port: u16,
    ) -> Result<(), SocketError> {
        let hop = self.egress.route(remote).ok_or(SocketError::NetworkUnreachable)?;
        self.autobind(id)?;
        if let Some(Socket::Datagram(socket)) = self.get_mut(id) {
            if matches!(hop, Hop::Broadcast { .. }) && !socket.broadcast {
                return Err(SocketError::PermissionDenied);
            }
            socket.peer = Some((remote, port));
            self.familiar.change_datagrams();
        }
        Ok(())
    }
}

pub(super) fn protocol_of(kind: SocketKind) -> Protocol {
    match kind {
        SocketKind::Tcp => Protocol::Tcp,
        SocketKind::Udp => Protocol::Udp,
        SocketKind::Ping => Protocol::Ping,
    }
}
