//! The calls of open sockets: read, write, shutdown, close, and questions.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};

use barewire_driver::{PacketSlice, Pool};

use super::{SEND_RESERVE_PART, SEND_SHARE_MIN_BYTES, SEND_SHARE_PART, Socket, Stack};
use crate::error::SocketError;
use crate::socket::SocketId;
use crate::socket::conn::{Connection, Holder};
use crate::tcp::{Figures, Outcome, Readiness, SendLimit, Tcb, TcpInfo};

/// Bytes that a slot holds at least of a long write: a segment that has a slot for itself fills half of
/// it.
fn slot_bytes(pool: &Pool) -> usize {
    pool.slot_len() / 2
}

/// How a call on a socket that is not a connection is refused.
fn not_a_stream(socket: Option<&Socket>) -> SocketError {
    match socket {
        None => SocketError::BadSocket,
        Some(Socket::Fresh(_) | Socket::Listener(_)) => SocketError::NotConnected,
        Some(Socket::Datagram(_)) => SocketError::NotSupported,
        Some(Socket::Connection(_)) => SocketError::InvalidInput,
    }
}

impl Stack {
    /// The table index of an open connection.
    fn stream(&self, id: SocketId) -> Result<u32, SocketError> {
        match self.get(id) {
            Some(Socket::Connection(_)) => Ok(id.index),
            other => Err(not_a_stream(other)),
        }
    }

    /// Reads received bytes into `out`, copying them once. 0 is the end of the stream (or an empty
    /// `out`).
    ///
    /// # Errors
    /// [`SocketError::WouldBlock`] if nothing has come; what ended the connection, once; then as
    /// POSIX has it. [`SocketError::NotConnected`] before `connect`.
    #[inline(always)]
    pub fn read(&mut self, id: SocketId, out: &mut [u8]) -> Result<usize, SocketError> {
        if let Some(Socket::Connection(connection)) =
            self.sockets.get_held_mut(id.index, id.generation)
            && let Some(tcb) = connection.tcb.whole_calm()
            && let Some(len) = tcb.read_small(out)
        {
            connection.told -= Readiness::READABLE;
            if tcb.owes_ack() && !connection.in_tx_list {
                connection.in_tx_list = true;
                self.tx_list.push_back(id.index);
            }
            self.egress.pool.count_copied(len);
            return Ok(len);
        }
        self.read_any(id, out)
    }

    #[inline(never)]
    fn read_any(&mut self, id: SocketId, out: &mut [u8]) -> Result<usize, SocketError> {
        // Whoever is to wait has tried in vain before.
        if !out.is_empty()
            && let Some(Socket::Connection(connection)) =
                self.sockets.get_held_mut(id.index, id.generation)
            && connection.tcb.whole_calm().is_some_and(|tcb| tcb.has_nothing_to_read())
        {
            connection.told -= Readiness::READABLE;
            return Err(SocketError::WouldBlock);
        }
        let read = self.on_stream(id, |tcb, _| tcb.read(out))?;
        if let Ok(bytes) = read {
            self.egress.pool.count_copied(bytes);
        }
        read
    }

    /// Reads received bytes without taking them.
    ///
    /// # Errors
    /// As [`Stack::read`].
    pub fn peek(&mut self, id: SocketId, out: &mut [u8]) -> Result<usize, SocketError> {
        let index = self.stream(id)?;
        self.connection(index)
            .map_or(Err(SocketError::BadSocket), |c| c.tcb.look(|tcb| tcb.peek(out)))
    }

    /// Takes up to `max` received bytes as they lie in packet memory: no copy. `None` is the end of
    /// the stream.
    ///
    /// # Errors
    /// As [`Stack::read`].
    pub fn read_owned(
        &mut self,
        id: SocketId,
        max: usize,
    ) -> Result<Option<PacketSlice>, SocketError> {
        self.on_stream(id, |tcb, _| tcb.read_owned(max))?
    }

    /// As [`Stack::read_owned`] for all that lies there, up to `max` bytes: appends the slices to
    /// `out` and says how many bytes they hold. 0 is the end of the stream.
    ///
    /// # Errors
    /// As [`Stack::read`].
    pub fn read_slices(
        &mut self,
        id: SocketId,
        max: usize,
        out: &mut VecDeque<PacketSlice>,
    ) -> Result<usize, SocketError> {
        self.on_stream(id, |tcb, _| tcb.read_slices(max, out))?
    }

    /// Applies `f`, which reads or writes, to the connection of a stream socket, and lends it packet
    /// memory.
    #[inline]
    fn on_stream<R>(
        &mut self,
        id: SocketId,
        f: impl FnOnce(&mut Tcb, &Pool) -> R,
    ) -> Result<R, SocketError> {
        let Some(Socket::Connection(connection)) =
            self.sockets.get_held_mut(id.index, id.generation)
        else {
            return Err(not_a_stream(self.get(id)));
        };
        let result = f(connection.tcb.wake_calm(), &self.egress.pool);
        Stack::follow_up_call(&mut self.tx_list, &mut self.wheel, id.index, connection);
        Ok(result)
    }

    /// Queues bytes for sending, copying them once, and says how many fitted.
    ///
    /// # Errors
    /// [`SocketError::WouldBlock`] if the send buffer is full, [`SocketError::NoBuffers`] if only
    /// the pool's [reserve](SEND_RESERVE_PART) is left, [`SocketError::BrokenPipe`] after shutdown,
    /// what ended the connection.
    #[inline(always)]
    pub fn write(&mut self, id: SocketId, data: &[u8]) -> Result<usize, SocketError> {
        if let Some(Socket::Connection(connection)) =
            self.sockets.get_held_mut(id.index, id.generation)
            && let Some(tcb) = connection.tcb.whole_calm()
            && tcb.write_small(&self.egress.pool, data)
        {
            if !connection.in_tx_list {
                connection.in_tx_list = true;
                self.tx_list.push_back(id.index);
            }
            return Ok(data.len());
        }
        self.write_at(id, data, false)
    }

    /// As [`Stack::write`], and says that more will follow (`MSG_MORE`): a partial segment waits
    /// for the next write, as under `TCP_CORK`.
    ///
    /// # Errors
    /// As [`Stack::write`].
    pub fn write_more(&mut self, id: SocketId, data: &[u8]) -> Result<usize, SocketError> {
        self.write_at(id, data, true)
    }

    #[inline(never)]
    fn write_at(&mut self, id: SocketId, data: &[u8], more: bool) -> Result<usize, SocketError> {
        let most = self.writable_bytes(id, data.len())?;
        self.on_stream(id, |tcb, pool| {
            tcb.expect_more(more);
            tcb.write(pool, &data[..most])
        })?
    }

    /// How many of `want` bytes the pool has room for. Only while memory is scarce do the reserve
    /// and the connection's share have to be worked out.
    #[inline]
    fn writable_bytes(&mut self, id: SocketId, want: usize) -> Result<usize, SocketError> {
        let pool = &self.egress.pool;
        let (free, total) = (pool.free_slots(), pool.total_slots());
        let slots = want / slot_bytes(pool);
        let plenty = free >= total / 2 && slots < free - total / SEND_RESERVE_PART;
        if plenty { Ok(want) } else { self.scarce_bytes(id, want) }
    }

    #[cold]
    fn scarce_bytes(&mut self, id: SocketId, want: usize) -> Result<usize, SocketError> {
        let index = self.stream(id)?;
        let spare = self.spare_slots();
        if spare == 0 {
            self.egress.counters.tx_memory_pressure += 1;
            self.shed_stalled();
            return Err(SocketError::NoBuffers);
        }
        let Some(share) = self.claim_share(index) else { return Err(SocketError::WouldBlock) };
        let room = spare.saturating_mul(slot_bytes(&self.egress.pool));
        Ok(want.min(room).min(share))
    }

    /// Bytes that a connection may have unacknowledged while memory is scarce; all of them while it
    /// is not.
    fn send_share(&self) -> usize {
        let pool = &self.egress.pool;
        if pool.free_slots() >= pool.total_slots() / 2 {
            return usize::MAX;
        }
        let bytes = pool.total_slots() * pool.slot_len() / SEND_SHARE_PART;
        (bytes / self.sockets.len().max(1)).max(SEND_SHARE_MIN_BYTES)
    }

    /// What is left of a connection's share. `None`, and an event to come, if nothing is.
    fn claim_share(&mut self, index: u32) -> Option<usize> {
        let share = self.send_share();
        let connection = self.connection_mut(index)?;
        let left = share.saturating_sub(queued_bytes(connection));
        if left == 0 && connection.tcb.look(|tcb| tcb.write_room()) > 0 {
            connection.held_back = true;
            self.egress.counters.tx_memory_pressure += 1;
            self.shed_stalled();
            return None;
        }
        Some(left.max(1))
    }

    /// Tells a connection that was held back that half of its share is free again.
    #[cold]
    pub(super) fn release_held_back(&mut self, index: u32) {
        let share = self.send_share();
        let Some(connection) = self.connection_mut(index) else { return };
        if queued_bytes(connection) <= share / 2 {
            connection.held_back = false;
            let generation = self.sockets.generation(index).unwrap_or_default();
            self.note_event(SocketId { index, generation });
        }
    }

    /// Slots of the pool that writers may fill: all free ones but the
    /// [reserve](SEND_RESERVE_PART). Who allocates slots for [`Stack::write_owned`] itself looks
    /// here first.
    pub fn spare_slots(&self) -> usize {
        let pool = &self.egress.pool;
        pool.free_slots().saturating_sub(pool.total_slots() / SEND_RESERVE_PART)
    }

    /// Queues packet memory for sending: no copy. It stays with the stack until it is acknowledged.
    ///
    /// # Errors
    /// As [`Stack::write`], with the data given back.
    pub fn write_owned(
        &mut self,
        id: SocketId,
        data: PacketSlice,
    ) -> Result<(), (SocketError, PacketSlice)> {
        if let Err(refused) = self.share_of(id) {
            return Err((refused, data));
        }
        // Lent to the call, and taken back if there is no connection for it.
        let mut lent = Some(data);
        let written = self.on_stream(id, |tcb, _| {
            tcb.expect_more(false);
            lent.take().map_or(Ok(()), |data| tcb.write_owned(data))
        });
        match written {
            Ok(result) => result,
            Err(refused) => lent.map_or(Ok(()), |data| Err((refused, data))),
        }
    }

    /// As [`Stack::write_owned`] for slices from the front of `data`, as many as there is room for;
    /// the others stay there. Says how many bytes were taken.
    ///
    /// # Errors
    /// As [`Stack::write`]; nothing is taken then.
    pub fn write_slices(
        &mut self,
        id: SocketId,
        data: &mut VecDeque<PacketSlice>,
    ) -> Result<usize, SocketError> {
        let share = self.share_of(id)?;
        self.on_stream(id, |tcb, _| {
            tcb.expect_more(false);
            tcb.write_slices(data, share)
        })?
    }

    /// Bytes that a connection may take from its application now, its send buffer aside.
    fn share_of(&mut self, id: SocketId) -> Result<usize, SocketError> {
        let index = self.stream(id)?;
        self.claim_share(index).ok_or(SocketError::WouldBlock)
    }

    /// Bytes that a write would take now. After 0 an event tells when there is room, as after a write
    /// that was refused.
    ///
    /// # Errors
    /// [`SocketError::NotConnected`] and the like if this is no connection.
    pub fn write_room(&mut self, id: SocketId) -> Result<usize, SocketError> {
        let index = self.stream(id)?;
        let left = self.claim_share(index).unwrap_or(0);
        let connection = self.connection(index).ok_or(SocketError::BadSocket)?;
        Ok(connection.tcb.look(|tcb| tcb.write_room()).min(left))
    }

    /// Bytes that a read would give now (`SIOCINQ`): of a datagram socket, the length of the first
    /// datagram, and 0 if there is none.
    ///
    /// # Errors
    /// As [`Stack::write_room`].
    pub fn bytes_readable(&self, id: SocketId) -> Result<usize, SocketError> {
        if let Some(Socket::Datagram(socket)) = self.get(id) {
            return Ok(socket.front().map_or(0, |datagram| datagram.len()));
        }
        let index = self.stream(id)?;
        self.connection(index)
            .map(|c| c.tcb.look(|tcb| tcb.bytes_readable()))
            .ok_or(SocketError::BadSocket)
    }

    /// Bytes written that the peer has not acknowledged (`SIOCOUTQ`).
    ///
    /// # Errors
    /// As [`Stack::write_room`].
    pub fn bytes_unacked(&self, id: SocketId) -> Result<usize, SocketError> {
        let index = self.stream(id)?;
        self.connection(index).map(queued_bytes).ok_or(SocketError::BadSocket)
    }

    /// Bytes written that have not been sent yet (`SIOCOUTQNSD`).
    ///
    /// # Errors
    /// As [`Stack::write_room`].
    pub fn bytes_unsent(&self, id: SocketId) -> Result<usize, SocketError> {
        let index = self.stream(id)?;
        self.connection(index)
            .map(|c| c.tcb.look(|tcb| tcb.bytes_unsent()))
            .ok_or(SocketError::BadSocket)
    }

    /// Closes one or both directions, whoever else holds the socket. A connection that is still
    /// being asked for is given up with its sending direction.
    ///
    /// # Errors
    /// [`SocketError::NotConnected`] if the socket is not connected.
    pub fn shutdown(&mut self, id: SocketId, how: Shutdown) -> Result<(), SocketError> {
        let (read, write) = match how {
            Shutdown::Read => (true, false),
            Shutdown::Write => (false, true),
            Shutdown::Both => (true, true),
        };
        if let Some(Socket::Datagram(socket)) = self.get_mut(id) {
            let connected = socket.peer.is_some();
            socket.read_closed |= read;
            socket.write_closed |= write;
            socket.front.forget();
            self.note_event(id);
            return if connected { Ok(()) } else { Err(SocketError::NotConnected) };
        }
        let (index, now) = (self.stream(id)?, self.egress.now);
        self.with_tcb(index, |tcb| {
            if read {
                tcb.shutdown_read();
            }
            let result = if write { tcb.shutdown_write(now) } else { Ok(Outcome::Continue) };
            (result.map(drop), result.unwrap_or(Outcome::Continue))
        })
        .unwrap_or(Err(SocketError::BadSocket))
    }

    /// Lets go of a socket. The handle is gone at once; a connection ends in the background as its
    /// linger option says, and a listener's waiting connections are reset.
    ///
    /// # Errors
    /// [`SocketError::BadSocket`].
    pub fn close(&mut self, id: SocketId) -> Result<(), SocketError> {
        match self.get_mut(id).ok_or(SocketError::BadSocket)? {
            Socket::Connection(_) => self.orphan(id.index),
            Socket::Fresh(_) | Socket::Listener(_) | Socket::Datagram(_) => {
                self.close_unconnected(id)
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn close_unconnected(&mut self, id: SocketId) {
        match self.sockets.remove(id.index) {
            Some(Socket::Fresh(fresh)) => {
                if let Some(bound) = fresh.bound {
                    self.share.ports.release(bound.lease);
                }
            }
            Some(Socket::Datagram(socket)) => {
                if let Some(bound) = socket.bound {
                    let key = (socket.kind, bound.lease.port());
                    self.sole_receiver = None;
                    self.familiar.change_datagrams();
                    if forget(self.datagrams.get_mut(&key), id) {
                        self.datagrams.remove(&key);
                    }
                    self.share.ports.release(bound.lease);
                }
            }
            Some(Socket::Listener(listener)) => {
                let port = listener.bound.lease.port();
                self.sole_listener = None;
                if forget(self.listeners.get_mut(&port), id) {
                    self.listeners.remove(&port);
                }
                self.share.ports.release(listener.bound.lease);
                for waiting in listener.accept_queue {
                    self.abort_index(waiting.index);
                }
            }
            Some(Socket::Connection(_)) | None => {}
        }
    }

    /// Lets go of a socket and resets its connection: what is queued is lost.
    ///
    /// # Errors
    /// [`SocketError::BadSocket`].
    pub fn abort(&mut self, id: SocketId) -> Result<(), SocketError> {
        match self.get(id).ok_or(SocketError::BadSocket)? {
            Socket::Connection(_) => {
                self.sockets.renew(id.index);
                self.abort_index(id.index);
                Ok(())
            }
            Socket::Fresh(_) | Socket::Listener(_) | Socket::Datagram(_) => self.close(id),
        }
    }

    fn abort_index(&mut self, index: u32) {
        if let Some(connection) = self.connection_mut(index) {
            if connection.holder != Holder::Nobody {
                connection.holder = Holder::Nobody;
                self.orphans += 1;
            }
            self.with_tcb(index, |tcb| ((), tcb.abort()));
        }
    }

    /// What the socket is ready for now.
    ///
    /// # Errors
    /// [`SocketError::BadSocket`].
    pub fn readiness(&self, id: SocketId) -> Result<Readiness, SocketError> {
        Ok(match self.get(id).ok_or(SocketError::BadSocket)? {
            Socket::Connection(connection) => connection.tcb.look(|tcb| tcb.readiness()),
            Socket::Listener(listener) if listener.accept_queue.is_empty() => Readiness::empty(),
            Socket::Listener(_) => Readiness::READABLE,
            Socket::Datagram(socket) => socket.readiness(),
            Socket::Fresh(_) => Readiness::empty(),
        })
    }

    /// Takes the pending error (`SO_ERROR`).
    ///
    /// # Errors
    /// [`SocketError::BadSocket`].
    pub fn take_error(&mut self, id: SocketId) -> Result<Option<SocketError>, SocketError> {
        Ok(match self.get_mut(id).ok_or(SocketError::BadSocket)? {
            Socket::Connection(connection) => connection.tcb.wake().take_error(),
            Socket::Datagram(socket) => socket.error.take(),
            Socket::Listener(_) | Socket::Fresh(_) => None,
        })
    }

    /// This end's address and port; unspecified where there is none yet.
    ///
    /// # Errors
    /// [`SocketError::BadSocket`].
    pub fn local_addr(&self, id: SocketId) -> Result<SocketAddr, SocketError> {
        let bound = match self.get(id).ok_or(SocketError::BadSocket)? {
            Socket::Connection(connection) => return Ok(connection.key.local_addr()),
            Socket::Listener(listener) => Some(&listener.bound),
            Socket::Fresh(fresh) => fresh.bound.as_ref(),
            Socket::Datagram(socket) => socket.bound.as_ref(),
        };
        let unbound = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Ok(bound.map_or(unbound, |bound| bound.socket_addr()))
    }

    /// The peer's address and port.
    ///
    /// # Errors
    /// [`SocketError::NotConnected`], also while a connection is being opened.
    pub fn peer_addr(&self, id: SocketId) -> Result<SocketAddr, SocketError> {
        match self.get(id).ok_or(SocketError::BadSocket)? {
            Socket::Connection(connection) if !connection.tcb.look(|tcb| tcb.is_connecting()) => {
                Ok(connection.key.remote_addr())
            }
            Socket::Datagram(socket) => {
                let (addr, port) = socket.peer.ok_or(SocketError::NotConnected)?;
                Ok(SocketAddr::new(IpAddr::V4(addr), port))
            }
            Socket::Connection(_) | Socket::Listener(_) | Socket::Fresh(_) => {
                Err(SocketError::NotConnected)
            }
        }
    }

    /// What the connection tells about itself, with the kernel's names (`TCP_INFO`), and why it is
    /// not sending now.
    ///
    /// # Errors
    /// [`SocketError::NotConnected`] and the like if this is no connection.
    pub fn tcp_info(&self, id: SocketId) -> Result<TcpInfo, SocketError> {
        let index = self.stream(id)?;
        let connection = self.connection(index).ok_or(SocketError::BadSocket)?;
        let mut info = connection.tcb.look(|tcb| tcb.tcp_info(self.egress.now));
        if info.limit != SendLimit::Closed && self.egress.waits_for_neighbor(index) {
            info.limit = SendLimit::Neighbor;
        }
        Ok(info)
    }

    /// The connection's figures in bytes and spans of time.
    ///
    /// # Errors
    /// As [`Stack::tcp_info`].
    pub fn figures(&self, id: SocketId) -> Result<Figures, SocketError> {
        let index = self.stream(id)?;
        self.connection(index).map(|c| c.tcb.look(|tcb| tcb.info())).ok_or(SocketError::BadSocket)
    }
}

/// Bytes that the peer has not acknowledged, sent or not.
pub(super) fn queued_bytes(connection: &Connection) -> usize {
    connection.tcb.whole().map_or(0, |tcb| tcb.bytes_unacked() + tcb.bytes_unsent())
}

/// Takes `id` out of a port's list; true if the list is empty then.
fn forget(ids: Option<&mut Vec<SocketId>>, id: SocketId) -> bool {
    ids.is_some_and(|ids| {
        ids.retain(|&other| other != id);
        ids.is_empty()
    })
}
