//! UDP and echo datagrams: taking them in, sending and receiving them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use barewire_driver::PacketSlice;

use super::input::Transport;
use super::{Socket, Stack};
use crate::error::SocketError;
use crate::interface::{DATAGRAM_BACKLOG_FRAMES, Datagram, Hop};
use crate::socket::demux::FlowKey;
use crate::socket::udp::{self, DatagramSocket};
use crate::socket::{Received, SocketId, SocketKind};
use crate::wire::icmpv4::Icmpv4Message;
use crate::wire::udp::UdpHeader;

/// Most payload of a UDP datagram over IPv4.
const MAX_PAYLOAD: usize = 65_535 - 20 - 8;

impl Stack {
    pub(super) fn input_udp(&mut self, mut transport: Transport<'_>) {
        self.egress.counters.udp_datagrams_received += 1;
        let parsed = transport.pieces.first().map(|p| UdpHeader::parse(p, transport.len));
        let Some(Ok(header)) = parsed else {
            self.egress.counters.udp_malformed += 1;
            return;
        };
        let key = FlowKey {
            local: transport.header.dst,
            remote: transport.header.src,
            local_port: header.dst_port,
            remote_port: header.src_port,
        };
        let owner = self.owner(&key);
        if self.belongs_elsewhere(&transport, owner) {
            return;
        }
        cut_to(transport.pieces, &mut transport.len, usize::from(header.len));
        // RFC 768: zero means that the sender computed none.
        if header.checksum != 0 && !transport.verify(true) {
            self.egress.counters.udp_bad_checksum += 1;
            return;
        }
        let (to, from) = ((key.local, key.local_port), (key.remote, key.remote_port));
        if self.egress.owner_of(key.local).is_none() {
            transport.advance(UdpHeader::LEN);
            return self.deliver_to_all(&key, transport.pieces);
        }
        let Some(id) = self.find_datagram_socket(SocketKind::Udp, to, from) else {
            self.egress.counters.udp_no_socket += 1;
            return self.port_unreachable(transport);
        };
        transport.advance(UdpHeader::LEN);
        self.deliver(id, from, transport.pieces);
    }

    /// A broadcast is for every socket that it fits (RFC 1122 §4.1.3.5 leaves it to the host; they
    /// have all asked for it by sharing the port).
    fn deliver_to_all(&mut self, key: &FlowKey, pieces: &[PacketSlice]) {
        let ids = self.datagrams.get(&(SocketKind::Udp, key.local_port));
        let from = (key.remote, key.remote_port);
        let fits = |id: &SocketId| self.datagram_score(*id, key.local, from).is_some();
        let ids: Vec<SocketId> = ids.into_iter().flatten().copied().filter(fits).collect();
        if ids.is_empty() {
            self.egress.counters.udp_no_socket += 1;
        }
        for id in ids {
            self.deliver(id, from, &mut pieces.to_vec());
        }
    }

    fn datagram_score(&self, id: SocketId, to: Ipv4Addr, from: (Ipv4Addr, u16)) -> Option<u8> {
        match self.get(id) {
            Some(Socket::Datagram(socket)) => socket.score(to, from),
            Some(Socket::Fresh(_) | Socket::Listener(_) | Socket::Connection(_)) | None => None,
        }
    }

    /// Whose datagram it is: the best match of the sockets on its port. Several that match alike
    /// share by the flow's hash if they have `SO_REUSEPORT`, as listeners do; without it the one
    /// bound last takes all, as on Linux.
    pub(super) fn find_datagram_socket(
        &self,
        kind: SocketKind,
        (to, port): (Ipv4Addr, u16),
        from: (Ipv4Addr, u16),
    ) -> Option<SocketId> {
        let ids = self.datagrams.get(&(kind, port))?;
        if let [only] = ids[..] {
            return self.datagram_score(only, to, from).map(|_| only);
        }
        let scores = || ids.iter().map(|id| self.datagram_score(*id, to, from));
        let best = scores().flatten().max()?;
        let mut alike =
            ids.iter().zip(scores()).filter(|(_, s)| *s == Some(best)).map(|(id, _)| *id);
        let shares = |id: &SocketId| match self.get(*id) {
            Some(Socket::Datagram(socket)) => socket.reuse.port,
            Some(Socket::Fresh(_) | Socket::Listener(_) | Socket::Connection(_)) | None => false,
        };
        let last = alike.clone().next_back()?;
        if !shares(&last) {
            return Some(last);
        }
        let key = FlowKey { local: to, remote: from.0, local_port: port, remote_port: from.1 };
        let pick = key.hash(self.share.secrets.flows) as usize % alike.clone().count();
        alike.nth(pick)
    }

    /// Queues a datagram at its socket.
    pub(super) fn deliver(
        &mut self,
        id: SocketId,
        from: (Ipv4Addr, u16),
        pieces: &mut Vec<PacketSlice>,
    ) {
        let datagram = udp::Datagram::new(from, pieces);
        let Some(Socket::Datagram(socket)) = self.get_mut(id) else { return };
        if socket.deliver(datagram).is_err() {
            self.egress.counters.udp_queue_full += 1;
        } else {
            self.note_event(id);
        }
    }

    fn datagram_socket(&mut self, id: SocketId) -> Result<&mut DatagramSocket, SocketError> {
        match self.get_mut(id).ok_or(SocketError::BadSocket)? {
            Socket::Datagram(socket) => Ok(socket),
            Socket::Fresh(_) | Socket::Listener(_) | Socket::Connection(_) => {
                Err(SocketError::NotSupported)
            }
        }
    }

    /// Sends one datagram, to `to` or to the connected peer, and gives its length. An unbound
    /// socket gets an ephemeral port first.
    ///
    /// # Errors
    /// [`SocketError::WouldBlock`] while the device does not keep up (an event tells when it
    /// does), [`SocketError::MessageTooLong`], [`SocketError::DestinationRequired`],
    /// [`SocketError::NetworkUnreachable`], [`SocketError::PermissionDenied`] for a broadcast
    /// without `SO_BROADCAST`, [`SocketError::NoBuffers`], an error that ICMP reported.
    #[inline]
    pub fn send_to(
        &mut self,
        id: SocketId,
        data: &[u8],
        to: Option<SocketAddr>,
    ) -> Result<usize, SocketError> {
        if self.send_again(id, data, to) {
            return Ok(data.len());
        }
        self.send_any(id, data, to)
    }

    #[inline(never)]
    fn send_any(
        &mut self,
        id: SocketId,
        data: &[u8],
        to: Option<SocketAddr>,
    ) -> Result<usize, SocketError> {
        let socket = self.datagram_socket(id)?;
        if socket.write_closed {
            return Err(SocketError::BrokenPipe);
        }
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        let (dst, dst_port) = match (to, socket.peer) {
            (Some(SocketAddr::V4(to)), _) => (*to.ip(), to.port()),
            (Some(SocketAddr::V6(_)), _) => return Err(SocketError::AddressFamily),
            (None, Some(peer)) => peer,
            (None, None) => return Err(SocketError::DestinationRequired),
        };
        if data.len() > MAX_PAYLOAD.min(socket.send_limit_bytes as usize) {
            return Err(SocketError::MessageTooLong);
        }
        let (broadcast, kind) = (socket.broadcast, socket.kind);
        if dst_port == 0 && kind == SocketKind::Udp {
            return Err(SocketError::InvalidInput);
        }
        if self.send_small(id, (dst, dst_port), data) {
            return Ok(data.len());
        }
        let hop = self.egress.route(dst).ok_or(SocketError::NetworkUnreachable)?;
        if matches!(hop, Hop::Broadcast { .. }) && !broadcast {
            return Err(SocketError::PermissionDenied);
        }
        self.autobind(id)?;
        self.wait_for_room(id, hop)?;
        let payload = self.copy_payload(data)?;
        let datagram = self.make_datagram(id, (dst, dst_port), hop, payload)?;
        self.egress.emit_datagram(datagram)?;
        self.egress.counters.udp_datagrams_sent += u64::from(kind == SocketKind::Udp);
        Ok(data.len())
    }

    fn wait_for_room(&mut self, id: SocketId, hop: Hop) -> Result<(), SocketError> {
        let queued = self.egress.iface(hop.iface()).map_or(0, |iface| iface.burst.len());
        if queued < DATAGRAM_BACKLOG_FRAMES {
            return Ok(());
        }
        let socket = self.datagram_socket(id)?;
        if !std::mem::replace(&mut socket.blocked, true) {
            self.blocked.push(id);
        }
        Err(SocketError::WouldBlock)
    }

    fn copy_payload(&mut self, data: &[u8]) -> Result<Vec<PacketSlice>, SocketError> {
        let pool = &self.egress.pool;
        data.chunks(pool.slot_len())
            .map(|chunk| Ok(pool.copy_from(chunk).ok_or(SocketError::NoBuffers)?.freeze()))
            .collect()
    }

    fn make_datagram(
        &mut self,
        id: SocketId,
        (dst, dst_port): (Ipv4Addr, u16),
        hop: Hop,
        payload: Vec<PacketSlice>,
    ) -> Result<Datagram, SocketError> {
        let source = match hop {
            Hop::Local { .. } => Some(dst),
            Hop::Link { .. } | Hop::Broadcast { .. } => self.egress.source_for(hop),
        };
        let bound = self.datagram_socket(id)?.bound.as_ref().ok_or(SocketError::InvalidInput)?;
        let (addr, port) = (bound.addr, bound.lease.port());
        let own = self.egress.source_bound(addr);
        let socket = self.datagram_socket(id)?;
        let src = own.or(source).ok_or(SocketError::AddrNotAvailable)?;
        let mut datagram = match socket.kind {
            SocketKind::Ping => {
                let message = Icmpv4Message::EchoRequest { id: port, seq: socket.next_seq };
                socket.next_seq = socket.next_seq.wrapping_add(1);
                Datagram::icmp(src, dst, &message, payload)
            }
            SocketKind::Udp | SocketKind::Tcp => {
                Datagram::udp((src, port), (dst, dst_port), payload)
            }
        };
        datagram.ttl = socket.ttl;
        datagram.tos = socket.tos;
        datagram.dont_fragment = socket.dont_fragment;
        Ok(datagram)
    }

    /// Takes the datagram that has waited longest, cut to `out`.
    ///
    /// # Errors
    /// [`SocketError::WouldBlock`] if none waits; an error that ICMP reported, once.
    #[inline(always)]
    pub fn recv_from(&mut self, id: SocketId, out: &mut [u8]) -> Result<Received, SocketError> {
        if let Some(Socket::Datagram(socket)) = self.sockets.get_held_mut(id.index, id.generation)
            && socket.error.is_none()
            && let Some(received) = socket.read_whole(out)
        {
            self.egress.pool.count_copied(received.len);
            return Ok(received);
        }
        self.recv_any(id, out)
    }

    #[inline(never)]
    fn recv_any(&mut self, id: SocketId, out: &mut [u8]) -> Result<Received, SocketError> {
        if let Some(Socket::Datagram(socket)) = self.sockets.get_held_mut(id.index, id.generation)
            && socket.error.is_none()
            && let Some(datagram) = socket.pop()
        {
            let (full_len, from) = (datagram.len(), datagram.from());
            let len = datagram.copy_to(out);
            self.egress.pool.count_copied(len);
            return Ok(Received { len, full_len, from });
        }
        self.peek_from(id, out)
    }

    /// Copies the datagram that has waited longest without taking it.
    ///
    /// # Errors
    /// As [`Stack::recv_from`].
    pub fn peek_from(&mut self, id: SocketId, out: &mut [u8]) -> Result<Received, SocketError> {
        let socket = self.datagram_socket(id)?;
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        let received = match socket.front() {
            Some(datagram) => Received {
                len: datagram.copy_to(out),
                full_len: datagram.len(),
                from: datagram.from(),
            },
            None if socket.read_closed => {
                let nobody = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
                Received { len: 0, full_len: 0, from: nobody }
            }
            None => return Err(SocketError::WouldBlock),
        };
        self.egress.pool.count_copied(received.len);
        Ok(received)
    }
}

/// Cuts the pieces to `keep` bytes in all.
fn cut_to(pieces: &mut Vec<PacketSlice>, len: &mut usize, keep: usize) {
    let mut left = keep;
    pieces.retain_mut(|piece| {
        piece.truncate(left);
        left -= piece.len();
        !piece.is_empty()
    });
    *len = keep - left;
}
