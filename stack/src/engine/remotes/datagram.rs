//! Serving a UDP socket that threads hold.

use barewire_driver::{Pool, RemoteBuf};

use super::{Entry, Role, Served};
use crate::engine::core::Core;
use crate::engine::parcel::{Buffers, Parcel};
use crate::engine::portal::Wishes;
use crate::engine::remote::MAX_DATAGRAM_BYTES;
use crate::error::SocketError;

impl Entry {
    pub(super) fn serve_datagram(&mut self, core: &Core, scratch: &mut [u8]) -> Served {
        if self.portal.wishes().contains(Wishes::CLOSE) {
            let blocked = self.send_datagrams(core, scratch);
            if blocked {
                return Served::Draining;
            }
            core.forget(self.socket);
            let _ = core.with_stack(|s| s.close(self.socket));
            return Served::Gone;
        }
        let starved = self.receive_datagrams(core, scratch);
        let blocked = self.send_datagrams(core, scratch);
        let starved = !blocked && self.grant(core.pool()) || starved;
        if starved { Served::Retry } else { Served::Done }
    }

    /// Moves received datagrams to the thread; true if the pool was empty.
    fn receive_datagrams(&mut self, core: &Core, scratch: &mut [u8]) -> bool {
        let (socket, endpoint) = (self.socket, &self.portal.endpoint);
        let slot_len = core.pool().slot_len();
        let mut moved = false;
        let mut starved = false;
        while endpoint.reserve_rx(MAX_DATAGRAM_BYTES.div_ceil(slot_len)) {
            // Nearly every datagram fits one slot, and is copied straight into it.
            let Some(mut buf) = core.pool().alloc() else {
                starved = true;
                break;
            };
            match core.with_stack(|s| s.peek_from(socket, &mut buf)) {
                Ok(received) if received.full_len <= slot_len => {
                    let _ = core.with_stack(|s| s.recv_from(socket, &mut []));
                    buf.truncate(received.len);
                    let Ok(front) = buf.into_remote() else { break };
                    let address = Some(received.from);
                    let datagram = Buffers { address, ..Buffers::piece(front) };
                    self.portal.deliver(Parcel::Buffers(datagram));
                }
                Ok(_) => {
                    drop(buf);
                    let Ok(received) = core.with_stack(|s| s.recv_from(socket, scratch)) else {
                        break;
                    };
                    let parts = copy_out(core.pool(), &scratch[..received.len]);
                    let Some((front, rest)) = parts else {
                        self.portal.lost_datagram();
                        starved = true;
                        break;
                    };
                    let address = Some(received.from);
                    self.portal.deliver(Parcel::Buffers(Buffers { front, rest, address }));
                }
                Err(SocketError::WouldBlock) => break,
                Err(error) => endpoint.fail(error),
            }
            moved = true;
        }
        if moved {
            self.portal.ring_readable();
        }
        starved
    }

    /// Moves the thread's datagrams to the stack; true if it had no room for one.
    fn send_datagrams(&mut self, core: &Core, scratch: &mut [u8]) -> bool {
        let (socket, portal) = (self.socket, &self.portal);
        let Role::Datagram { outbound } = &mut self.role else { return false };
        loop {
            let datagram = match outbound.take() {
                Some(datagram) => datagram,
                None => match portal.pop_tx() {
                    Some(Parcel::Buffers(datagram)) => datagram,
                    // What is small is of streams.
                    Some(Parcel::Small(_)) => continue,
                    None => break,
                },
            };
            let sent = if datagram.rest.is_empty() {
                core.with_stack(|s| s.send_to(socket, &datagram.front, datagram.address))
            } else {
                let mut len = 0;
                for piece in datagram.pieces() {
                    scratch[len..len + piece.len()].copy_from_slice(piece);
                    len += piece.len();
                }
                core.with_stack(|s| s.send_to(socket, &scratch[..len], datagram.address))
            };
            match sent {
                Ok(_) => {}
                Err(SocketError::WouldBlock) => {
                    *outbound = Some(datagram);
                    return true;
                }
                Err(error) => {
                    portal.endpoint.fail(error);
                    portal.endpoint.ring_all();
                }
            }
        }
        false
    }
}

/// Copies a datagram into slots that may cross threads.
fn copy_out(pool: &Pool, bytes: &[u8]) -> Option<(RemoteBuf, Vec<RemoteBuf>)> {
    let mut parts = bytes
        .chunks(pool.slot_len())
        .map(|chunk| pool.copy_from(chunk).and_then(|buf| buf.into_remote().ok()));
    let front = parts.next()??;
    let rest = parts.collect::<Option<Vec<_>>>()?;
    Some((front, rest))
}
