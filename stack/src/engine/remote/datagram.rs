//! UDP sockets of threads.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::{
    MAX_DATAGRAM_BYTES, Wait, can_write, copied, locked, option, push_tx, refuse_write, set_option,
};
use crate::engine::mailbox::Op;
use crate::engine::parcel::{Buffers, Parcel};
use crate::engine::portal::{Endpoint, Portal, Status, Wishes};
use crate::error::SocketError;
use crate::socket::{OptionName, Received, SocketOption};

/// A UDP socket that threads share; it is bound on every engine. Dropping it closes it.
#[derive(Debug)]
pub struct RemoteDatagram {
    endpoint: Arc<Endpoint>,
    portals: Vec<Arc<Portal>>,
    local: SocketAddr,
    peer: Mutex<Option<SocketAddr>>,
}

impl RemoteDatagram {
    pub(crate) fn new(
        endpoint: Arc<Endpoint>,
        portals: Vec<Arc<Portal>>,
        local: SocketAddr,
    ) -> RemoteDatagram {
        RemoteDatagram { endpoint, portals, local, peer: Mutex::default() }
    }

    /// Receives one datagram; what does not fit `buf` is lost, and the result says so.
    ///
    /// # Errors
    /// [`SocketError::WouldBlock`] when the wait ended first; an error that an earlier datagram
    /// met, if the socket is connected; [`SocketError::EngineStopped`].
    pub fn recv_from(&self, buf: &mut [u8], wait: Wait) -> Result<Received, SocketError> {
        self.receive(buf, wait, false)
    }

    /// As [`RemoteDatagram::recv_from`], but leaves the datagram for the next call.
    ///
    /// # Errors
    /// As [`RemoteDatagram::recv_from`].
    pub fn peek_from(&self, buf: &mut [u8], wait: Wait) -> Result<Received, SocketError> {
        self.receive(buf, wait, true)
    }

    fn receive(&self, buf: &mut [u8], wait: Wait, peek: bool) -> Result<Received, SocketError> {
        let endpoint = &self.endpoint;
        let attempt = || {
            let status = endpoint.status();
            if let Some(received) = self.take_datagram(buf, peek) {
                return Some(Ok(received));
            }
            if let Some(error) = endpoint.take_error() {
                return Some(Err(error));
            }
            status.contains(Status::STOPPED).then_some(Err(SocketError::EngineStopped))
        };
        wait.retry(attempt, |deadline| {
            endpoint.readable.wait_until(deadline, || endpoint.has_news())
        })
    }

    fn take_datagram(&self, buf: &mut [u8], peek: bool) -> Option<Received> {
        let mut inbox = self.endpoint.inbox();
        let parcel = inbox.front()?;
        // What is small is of streams.
        let Parcel::Buffers(datagram) = parcel else { return None };
        let (full_len, from) = (datagram.len(), datagram.address?);
        let mut len = 0;
        for piece in datagram.pieces() {
            let n = piece.len().min(buf.len() - len);
            buf[len..len + n].copy_from_slice(&piece[..n]);
            len += n;
        }
        if !peek {
            self.endpoint.consumed(parcel.places());
            inbox.pop_front();
        }
        drop(inbox);
        if let Some(portal) = self.portals.first() {
            copied(portal, len);
        }
        if !peek && self.endpoint.made_room() {
            self.portals.iter().for_each(|portal| portal.post());
        }
        Some(Received { len, full_len, from })
    }

    /// Sends one datagram, to the connected peer if `to` is `None`.
    ///
    /// # Errors
    /// [`SocketError::MessageTooLong`], [`SocketError::DestinationRequired`], and as
    /// [`RemoteDatagram::recv_from`].
    pub fn send_to(
        &self,
        buf: &[u8],
        to: Option<SocketAddr>,
        wait: Wait,
    ) -> Result<usize, SocketError> {
        if buf.len() > MAX_DATAGRAM_BYTES {
            return Err(SocketError::MessageTooLong);
        }
        let peer = to.or(*locked(&self.peer)).ok_or(SocketError::DestinationRequired)?;
        if peer.is_ipv4() != self.local.is_ipv4() {
            return Err(SocketError::AddressFamily);
        }
        // One peer's datagrams all leave through one engine, and so in order.
        let index = usize::from(peer.port()) % self.portals.len().max(1);
        let portal = self.portals.get(index).ok_or(SocketError::BadSocket)?;
        let needed = Cell::new(1);
        let attempt = || {
            if let Some(error) = refuse_write(portal) {
                return Some(Err(error));
            }
            let sent = put_datagram(portal, buf, to);
            portal.post();
            sent.map_err(|slots| needed.set(slots)).ok().map(|()| Ok(buf.len()))
        };
        let writable = &self.endpoint.writable;
        wait.retry(attempt, |deadline| {
            writable.wait_until(deadline, || can_write(portal, needed.get()))
        })
    }

    /// Sets the peer: only its datagrams are received from now on.
    ///
    /// # Errors
    /// What the stack answers; [`SocketError::EngineStopped`].
    pub fn connect(&self, to: SocketAddr) -> Result<(), SocketError> {
        for portal in &self.portals {
            portal.mailbox.call(Op::ConnectUdp { key: portal.key, to })?;
        }
        *locked(&self.peer) = Some(to);
        Ok(())
    }

    /// Its address on this side.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The peer that `connect` set.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        *locked(&self.peer)
    }

    /// The error that waits to be told, told once (`SO_ERROR`).
    pub fn take_error(&self) -> Option<SocketError> {
        self.endpoint.take_error()
    }

    /// Sets an option.
    ///
    /// # Errors
    /// What the stack answers; [`SocketError::EngineStopped`].
    pub fn set_option(&self, value: SocketOption) -> Result<(), SocketError> {
        self.portals.iter().try_for_each(|portal| set_option(portal, value))
    }

    /// Reads an option.
    ///
    /// # Errors
    /// What the stack answers; [`SocketError::EngineStopped`].
    pub fn option(&self, name: OptionName) -> Result<SocketOption, SocketError> {
        option(self.portals.first().ok_or(SocketError::BadSocket)?, name)
    }
}

impl Drop for RemoteDatagram {
    fn drop(&mut self) {
        self.portals.iter().for_each(|portal| portal.wish(Wishes::CLOSE));
    }
}

/// Fills granted buffers with one datagram. Says how many it takes if they are not there yet; the
/// engine has been asked for them then.
fn put_datagram(portal: &Portal, buf: &[u8], to: Option<SocketAddr>) -> Result<(), usize> {
    let _turn = locked(&portal.writers.turn);
    let ask_for = |slots| {
        portal.want(slots);
        Err(slots)
    };
    let Some(mut front) = portal.take_grant() else { return ask_for(1) };
    let needed = buf.len().saturating_sub(1) / front.len();
    let mut rest = Vec::new();
    while rest.len() < needed {
        let Some(grant) = portal.take_grant() else { break };
        rest.push(grant);
    }
    if rest.len() < needed {
        portal.return_grant(front);
        rest.into_iter().for_each(|grant| portal.return_grant(grant));
        return ask_for(needed + 1);
    }
    let mut left = buf;
    for piece in std::iter::once(&mut front).chain(&mut rest) {
        let (now, later) = left.split_at(piece.len().min(left.len()));
        piece[..now.len()].copy_from_slice(now);
        piece.truncate(now.len());
        left = later;
    }
    copied(portal, buf.len());
    portal.want(1);
    push_tx(portal, Parcel::Buffers(Buffers { front, rest, address: to }));
    Ok(())
}
