//! Serving a TCP connection that a thread holds.

use std::net::Shutdown;
use std::ops::Deref;
use std::time::Duration;

use barewire_driver::{PacketSlice, Pool};

use super::{Entry, Role, Served, into_remote};
use crate::engine::core::Core;
use crate::engine::parcel::{Buffers, Parcel, Small};
use crate::engine::portal::{Status, TX_RING_SLOTS, TX_RING_SMALL, Wishes};
use crate::error::SocketError;
use crate::socket::{OptionName, SocketId, SocketOption};
use crate::stack::Stack;
use crate::tcp::{Readiness, State};

/// Writes up to this size are copied behind the last one's bytes instead of taking a slot of their
/// own: a stream of single bytes costs its length, not a slot a byte.
const COALESCE_BYTES: usize = 512;

impl Entry {
    pub(super) fn serve_stream(&mut self, core: &Core) -> Served {
        if !self.establish(core) {
            return Served::Done;
        }
        if self.portal.wishes().contains(Wishes::CLOSE) {
            return self.close_stream(core);
        }
        let starved = self.pull(core);
        let starved = self.push(core) || starved;
        let stalled = matches!(&self.role, Role::Stream { outbound: Some(_), .. });
        let starved = !stalled && self.grant(core.pool()) || starved;
        if starved { Served::Retry } else { Served::Done }
    }

    /// Tells the thread how its `connect` ended; false while it has not.
    fn establish(&mut self, core: &Core) -> bool {
        let (socket, endpoint) = (self.socket, &self.portal.endpoint);
        let Role::Stream { connected, read_done, write_done, .. } = &mut self.role else {
            return false;
        };
        if *connected {
            return true;
        }
        if self.portal.wishes().contains(Wishes::CLOSE) {
            return true;
        }
        let ready = core.with_stack(|s| s.readiness(socket)).unwrap_or(Readiness::ERROR);
        if ready.contains(Readiness::ERROR) || ready.contains(Readiness::WRITE_CLOSED) {
            let error = core.with_stack(|s| s.take_error(socket)).ok().flatten();
            endpoint.fail(error.unwrap_or(SocketError::ConnectionAborted));
            endpoint.set(Status::READ_END | Status::WRITE_END);
            (*connected, *read_done, *write_done) = (true, true, true);
            self.portal.ring_readable();
            self.portal.ring_writable();
            return true;
        }
        if ready.contains(Readiness::WRITABLE) {
            *connected = true;
            endpoint.set(Status::CONNECTED);
            self.portal.ring_readable();
            self.portal.ring_writable();
        }
        *connected
    }

    /// Moves received data to the thread; true if the pool was empty.
    fn pull(&mut self, core: &Core) -> bool {
        let (socket, endpoint) = (self.socket, &self.portal.endpoint);
        let Role::Stream { inbound, read_done, .. } = &mut self.role else { return false };
        let (mut moved, mut starved) = (false, false);
        while !*read_done && endpoint.reserve_rx(1) {
            let slice = match inbound.take() {
                Some(slice) => Ok(Some(slice)),
                None => core.with_stack(|s| s.read_owned(socket, usize::MAX)),
            };
            match slice.map(|slice| slice.map(|slice| into_parcel(core.pool(), slice))) {
                Ok(Some(Ok(parcel))) => {
                    let small = matches!(&parcel, Parcel::Small(_));
                    self.bytes_copied += if small { parcel.text().len() as u64 } else { 0 };
                    let pushed = endpoint.push_rx(parcel);
                    debug_assert!(pushed.is_ok(), "the engine alone fills the ring");
                }
                Ok(Some(Err(slice))) => {
                    *inbound = Some(slice);
                    starved = true;
                    break;
                }
                Err(SocketError::WouldBlock) => break,
                Ok(None) => {
                    *read_done = true;
                    endpoint.set(Status::READ_END);
                }
                Err(error) => {
                    *read_done = true;
                    endpoint.fail(error);
                    endpoint.set(Status::READ_END);
                    let ready = core.with_stack(|s| s.readiness(socket));
                    if ready.is_ok_and(|ready| ready.contains(Readiness::WRITE_CLOSED)) {
                        endpoint.set(Status::WRITE_END);
                    }
                    self.portal.ring_writable();
                }
            }
            moved = true;
        }
        if moved {
            self.portal.ring_readable();
        }
        starved
    }

    /// Moves the thread's data to the stack; true if the pool was empty.
    pub(super) fn push(&mut self, core: &Core) -> bool {
        let (socket, portal) = (self.socket, &self.portal);
        let Role::Stream { outbound, write_done, spent, .. } = &mut self.role else {
            return false;
        };
        let mut starved = false;
        // A thread may fill the ring again as fast as it is emptied: what comes later is posted anew.
        for _ in 0..TX_RING_SLOTS + TX_RING_SMALL {
            let piece = match outbound.take() {
                Some(piece) => piece,
                None => {
                    let Some(parcel) = portal.pop_tx() else { break };
                    *spent += parcel.slots();
                    match parcel {
                        Parcel::Small(small) => Piece::Small(small),
                        // Only this engine's buffers were granted; another's just goes home.
                        Parcel::Buffers(buffers) => match core.pool().adopt(buffers.front) {
                            Ok(buf) => Piece::Slice(buf.freeze()),
                            Err(_) => continue,
                        },
                    }
                }
            };
            if *write_done {
                continue;
            }
            match core.with_stack(|s| write_piece(s, socket, piece)) {
                Ok(()) => {}
                Err((SocketError::WouldBlock, rest)) => {
                    *outbound = Some(rest);
                    break;
                }
                Err((SocketError::NoBuffers, rest)) => {
                    *outbound = Some(rest);
                    starved = true;
                    break;
                }
                Err((error, _)) => {
                    *write_done = true;
                    // The end of writing says as much by itself, and to writers only: a reader has
                    // been told the reason, and goes on to the end of the stream.
                    if error != SocketError::BrokenPipe {
                        portal.endpoint.fail(error);
                    }
                    portal.endpoint.set(Status::WRITE_END);
                    portal.endpoint.ring_all();
                }
            }
        }
        let wishes = portal.wishes();
        if wishes.contains(Wishes::SHUT_READ) {
            let _ = core.with_stack(|s| s.shutdown(socket, Shutdown::Read));
        }
        let drained = || outbound.is_none() && portal.tx_is_empty();
        if wishes.contains(Wishes::SHUT_WRITE) && !*write_done && drained() {
            *write_done = true;
            portal.endpoint.set(Status::WRITE_END);
            let _ = core.with_stack(|s| s.shutdown(socket, Shutdown::Write));
        }
        starved
    }

    /// What `close(2)` does: unread data or zero linger resets, otherwise what was written is
    /// handed over first.
    fn close_stream(&mut self, core: &Core) -> Served {
        let socket = self.socket;
        let linger = self.linger(core);
        let first = self.closing.is_none();
        let Role::Stream { inbound, .. } = &self.role else { return Served::Gone };
        // RFC 2525 §2.17: data that the application never read is lost, and the peer is told so.
        let unread = inbound.is_some() || self.portal.endpoint.has_unread();
        let abort = self.portal.wishes().contains(Wishes::ABORT);
        if first && (abort || unread || linger == Some(Duration::ZERO)) {
            core.forget(socket);
            let _ = core.with_stack(|s| s.abort(socket));
            return Served::Gone;
        }
        let starved = self.push(core);
        let Role::Stream { outbound, write_done, .. } = &self.role else { return Served::Gone };
        let drained = *write_done || outbound.is_none() && self.portal.tx_is_empty();
        if !drained {
            return if starved { Served::Retry } else { Served::Draining };
        }
        if self.portal.wishes().contains(Wishes::LINGER) && !self.is_acknowledged(core) {
            return Served::Retry;
        }
        core.forget(socket);
        let _ = core.with_stack(|s| s.close(socket));
        Served::Gone
    }

    /// What the application has asked of `close` (`SO_LINGER`).
    pub(super) fn linger(&self, core: &Core) -> Option<Duration> {
        match core.with_stack(|s| s.option(self.socket, OptionName::Linger)) {
            Ok(SocketOption::Linger(linger)) => linger,
            Ok(_) | Err(_) => None,
        }
    }

    /// True once the peer has acknowledged everything and the FIN, which is sent here.
    fn is_acknowledged(&mut self, core: &Core) -> bool {
        let socket = self.socket;
        if let Role::Stream { write_done, .. } = &mut self.role
            && !std::mem::replace(write_done, true)
        {
            let _ = core.with_stack(|s| s.shutdown(socket, Shutdown::Write));
        }
        match core.with_stack(|s| s.tcp_info(socket)).map(|info| info.state) {
            Ok(State::SynSent | State::SynReceived | State::Established | State::CloseWait) => {
                false
            }
            Ok(State::FinWait1 | State::Closing | State::LastAck) => false,
            Ok(State::FinWait2 | State::TimeWait | State::Closed | State::Listen) | Err(_) => true,
        }
    }
}

/// What a thread has written, on its way to the stack.
pub(super) enum Piece {
    Small(Small),
    Slice(PacketSlice),
}

impl Piece {
    fn advance(&mut self, bytes: usize) {
        match self {
            Piece::Small(small) => small.advance(bytes),
            Piece::Slice(slice) => slice.advance(bytes),
        }
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Piece::Small(small) => small,
            Piece::Slice(slice) => slice,
        }
    }
}

/// Makes what has arrived a parcel. It comes back if the pool has no slot for a copy that is needed.
fn into_parcel(pool: &Pool, slice: PacketSlice) -> Result<Parcel, PacketSlice> {
    match Small::copy_of(&slice) {
        Some(small) => Ok(Parcel::Small(small)),
        None => into_remote(pool, slice).map(|buf| Parcel::Buffers(Buffers::piece(buf))),
    }
}

/// Writes all of `piece`, or gives back what is left of it and why.
fn write_piece(
    stack: &mut Stack,
    socket: SocketId,
    piece: Piece,
) -> Result<(), (SocketError, Piece)> {
    let mut piece = match piece {
        Piece::Slice(slice) if slice.len() > COALESCE_BYTES => {
            let rest = stack.write_owned(socket, slice);
            return rest.map_err(|(error, slice)| (error, Piece::Slice(slice)));
        }
        Piece::Slice(_) | Piece::Small(_) => piece,
    };
    while !piece.is_empty() {
        match stack.write(socket, &piece) {
            Ok(n) => piece.advance(n),
            Err(error) => return Err((error, piece)),
        }
    }
    Ok(())
}
