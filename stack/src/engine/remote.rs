//! Sockets as threads other than the engine's hold them.
//!
//! Calls work on the rings of the socket's [`Portal`] and wait on its bells; only opening a socket
//! and its options ask the engine for an answer. All calls take `&self` and may be made from
//! several threads at once. `std::net`'s names, timeouts and error kinds are put on top of this by
//! the `barewire` package.

use std::cell::Cell;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::mailbox::{Answer, Op};
use super::portal::{AcceptQueue, Endpoint, Parcel, Portal, Status, Wishes};
use crate::error::SocketError;
use crate::socket::{OptionName, Received, SocketOption};
use crate::tcp::Readiness;

/// The largest payload of a UDP datagram over IPv4 (RFC 768, RFC 791).
pub const MAX_DATAGRAM_BYTES: usize = 65_507;

/// How long a call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: [`SocketError::WouldBlock`] instead.
    Never,
    /// Until it can be done.
    Forever,
    /// Until then, and [`SocketError::WouldBlock`] after that.
    Until(Instant),
}

impl Wait {
    /// Waits for `timeout` from now on, or for ever.
    pub fn for_at_most(timeout: Option<Duration>) -> Wait {
        match timeout.map(|timeout| Instant::now().checked_add(timeout)) {
            Some(Some(deadline)) => Wait::Until(deadline),
            Some(None) | None => Wait::Forever,
        }
    }

    /// Repeats `attempt` until it answers; between attempts it sleeps in `sleep`, which says
    /// whether there is news before the deadline.
    fn retry<T>(
        self,
        mut attempt: impl FnMut() -> Option<Result<T, SocketError>>,
        mut sleep: impl FnMut(Option<Instant>) -> bool,
    ) -> Result<T, SocketError> {
        loop {
            if let Some(outcome) = attempt() {
                return outcome;
            }
            let news = match self {
                Wait::Never => false,
                Wait::Forever => sleep(None),
                Wait::Until(deadline) => sleep(Some(deadline)),
            };
            if !news {
                return Err(SocketError::WouldBlock);
            }
        }
    }
}

fn set_option(portal: &Portal, option: SocketOption) -> Result<(), SocketError> {
    portal.mailbox.call(Op::SetOption { key: portal.key, option }).map(|_| ())
}

fn option(portal: &Portal, name: OptionName) -> Result<SocketOption, SocketError> {
    match portal.mailbox.call(Op::Option { key: portal.key, name })? {
        Answer::Option(option) => Ok(option),
        Answer::Done | Answer::Portal(_) | Answer::Address(_) | Answer::Stats(_) => {
            Err(SocketError::InvalidInput)
        }
    }
}

fn copied(portal: &Portal, bytes: usize) {
    portal.mailbox.thread_bytes_copied.fetch_add(bytes as u64, Ordering::Relaxed);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pushes a filled parcel; false if the ring is full, and then the parcel's slots go home.
fn push_tx(portal: &Portal, parcel: Parcel) -> bool {
    let pushed = portal.push_tx(parcel).is_ok();
    // Orders the push before the look at the status; pairs with the fence in the engine's
    // `Remotes::drop`, which orders STOPPED before its last look at the ring. One side drops it.
    fence(Ordering::SeqCst);
    if portal.endpoint.status().contains(Status::STOPPED) {
        portal.drop_buffers();
    }
    pushed
}

/// What the status says about writing, if it says no.
fn refuse_write(portal: &Portal) -> Option<SocketError> {
    let status = portal.endpoint.status();
    if let Some(error) = portal.endpoint.take_error() {
        return Some(error);
    }
    if status.contains(Status::STOPPED) {
        return Some(SocketError::EngineStopped);
    }
    let closed = portal.wishes().intersects(Wishes::SHUT_WRITE | Wishes::CLOSE);
    if closed || status.contains(Status::WRITE_END) {
        return Some(SocketError::BrokenPipe);
    }
    (!status.contains(Status::CONNECTED)).then_some(SocketError::NotConnected)
}

fn can_write(portal: &Portal, slots: usize) -> bool {
    let ended = Status::FAILED | Status::STOPPED | Status::WRITE_END | Status::CLOSED;
    portal.endpoint.status().intersects(ended)
        || portal.wishes().contains(Wishes::SHUT_WRITE)
        || portal.grants() >= slots && portal.has_tx_room()
}

/// A TCP connection of an engine, held by another thread. Dropping it closes it gracefully.
#[derive(Debug)]
pub struct RemoteStream(Arc<Portal>);

impl RemoteStream {
    pub(crate) fn new(portal: Arc<Portal>) -> RemoteStream {
        RemoteStream(portal)
    }

    /// Waits until the connection is open.
    ///
    /// # Errors
    /// Why it could not be opened; [`SocketError::WouldBlock`] if the wait ended first.
    pub fn wait_connected(&self, wait: Wait) -> Result<(), SocketError> {
        let endpoint = &self.0.endpoint;
        let attempt = || {
            let status = endpoint.status();
            if let Some(error) = endpoint.take_error() {
                return Some(Err(error));
            }
            if status.contains(Status::STOPPED) {
                return Some(Err(SocketError::EngineStopped));
            }
            status.contains(Status::CONNECTED).then_some(Ok(()))
        };
        let told = Status::CONNECTED | Status::FAILED | Status::STOPPED;
        wait.retry(attempt, |deadline| {
            endpoint.writable.wait_until(deadline, || endpoint.status().intersects(told))
        })
    }

    /// Reads what is there, at least one byte; 0 at the end of the stream.
    ///
    /// # Errors
    /// As a socket's `read`; [`SocketError::WouldBlock`] when the wait ended first.
    pub fn read(&self, buf: &mut [u8], wait: Wait) -> Result<usize, SocketError> {
        self.receive(buf, wait, false)
    }

    /// As [`RemoteStream::read`], but leaves the data for the next call.
    ///
    /// # Errors
    /// As [`RemoteStream::read`].
    pub fn peek(&self, buf: &mut [u8], wait: Wait) -> Result<usize, SocketError> {
        self.receive(buf, wait, true)
    }

    fn receive(&self, buf: &mut [u8], wait: Wait, peek: bool) -> Result<usize, SocketError> {
        if buf.is_empty() {
            return Ok(0);
        }
        let endpoint = &self.0.endpoint;
        let ready = || endpoint.has_news() || self.0.wishes().contains(Wishes::SHUT_READ);
        wait.retry(
            || self.try_receive(buf, peek),
            |deadline| endpoint.readable.wait_until(deadline, ready),
        )
    }

    fn try_receive(&self, buf: &mut [u8], peek: bool) -> Option<Result<usize, SocketError>> {
        let endpoint = &self.0.endpoint;
        // Before the ring: what was put down before an end was told is seen after it.
        let status = endpoint.status();
        let n = if peek { self.copy_front(buf) } else { self.take_bytes(buf) };
        if n > 0 {
            copied(&self.0, n);
            return Some(Ok(n));
        }
        if let Some(error) = endpoint.take_error() {
            return Some(Err(error));
        }
        if status.contains(Status::STOPPED) {
            return Some(Err(SocketError::EngineStopped));
        }
        if status.contains(Status::READ_END) || self.0.wishes().contains(Wishes::SHUT_READ) {
            return Some(Ok(0));
        }
        (!status.contains(Status::CONNECTED)).then_some(Err(SocketError::NotConnected))
    }

    fn copy_front(&self, buf: &mut [u8]) -> usize {
        let inbox = self.0.endpoint.inbox();
        let mut done = 0;
        for parcel in inbox.iter() {
            let n = parcel.front.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&parcel.front[..n]);
            done += n;
        }
        done
    }

    fn take_bytes(&self, buf: &mut [u8]) -> usize {
        let endpoint = &self.0.endpoint;
        let mut inbox = endpoint.inbox();
        let (mut done, mut freed) = (0, 0);
        while done < buf.len() {
            let Some(parcel) = inbox.front_mut() else { break };
            let n = parcel.front.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&parcel.front[..n]);
            parcel.front.advance(n);
            done += n;
            if parcel.front.is_empty() {
                freed += parcel.slots();
                inbox.pop_front();
            }
        }
        drop(inbox);
        endpoint.consumed(freed);
        if freed > 0 && endpoint.made_room() {
            self.0.post();
        }
        done
    }

    /// Writes as much as there is room for, at least one byte of a buffer that has any.
    ///
    /// # Errors
    /// As a socket's `write`; [`SocketError::WouldBlock`] when the wait ended first.
    pub fn write(&self, buf: &[u8], wait: Wait) -> Result<usize, SocketError> {
        let attempt = || {
            if let Some(error) = refuse_write(&self.0) {
                return Some(Err(error));
            }
            if buf.is_empty() {
                return Some(Ok(0));
            }
            let n = self.put_bytes(buf);
            if n == 0 {
                self.0.want(buf.len().div_ceil(2048));
            }
            self.0.post();
            (n > 0).then_some(Ok(n))
        };
        let writable = &self.0.endpoint.writable;
        wait.retry(attempt, |deadline| writable.wait_until(deadline, || can_write(&self.0, 1)))
    }

    fn put_bytes(&self, buf: &[u8]) -> usize {
        let _turn = locked(&self.0.writer);
        let mut done = 0;
        while done < buf.len() && self.0.has_tx_room() {
            let Some(mut grant) = self.0.take_grant() else { break };
            let n = grant.len().min(buf.len() - done);
            grant[..n].copy_from_slice(&buf[done..done + n]);
            grant.truncate(n);
            if !push_tx(&self.0, Parcel::piece(grant)) {
                break;
            }
            done += n;
        }
        if done > 0 {
            copied(&self.0, done);
            self.0.want((buf.len() - done).div_ceil(2048) + 1);
        }
        done
    }

    /// Ends one direction or both: FIN follows what has been written, and reads give 0 once what
    /// has arrived is read.
    ///
    /// # Errors
    /// [`SocketError::NotConnected`] and [`SocketError::EngineStopped`].
    pub fn shutdown(&self, how: Shutdown) -> Result<(), SocketError> {
        let status = self.0.endpoint.status();
        if status.contains(Status::STOPPED) {
            return Err(SocketError::EngineStopped);
        }
        let over = status.contains(Status::READ_END | Status::WRITE_END);
        if !status.contains(Status::CONNECTED) || over {
            return Err(SocketError::NotConnected);
        }
        self.0.wish(match how {
            Shutdown::Read => Wishes::SHUT_READ,
            Shutdown::Write => Wishes::SHUT_WRITE,
            Shutdown::Both => Wishes::SHUT_READ | Wishes::SHUT_WRITE,
        });
        self.0.endpoint.ring_all();
        Ok(())
    }

    /// Closes the connection and waits, at most for `time`, until the peer has acknowledged
    /// everything: what `SO_LINGER` asks of `close`.
    pub fn close_lingering(self, time: Duration) {
        let deadline = Instant::now().checked_add(time);
        self.0.wish(Wishes::CLOSE | Wishes::LINGER);
        let closed = || self.0.endpoint.status().contains(Status::CLOSED);
        self.0.endpoint.writable.wait_until(deadline, closed);
    }

    /// What can be done now without waiting.
    pub fn readiness(&self) -> Readiness {
        let status = self.0.endpoint.status();
        let mut ready = Readiness::empty();
        ready.set(Readiness::READABLE, self.0.endpoint.has_news());
        ready.set(Readiness::WRITABLE, can_write(&self.0, 1));
        ready.set(Readiness::READ_CLOSED, status.contains(Status::READ_END));
        ready.set(Readiness::WRITE_CLOSED, status.contains(Status::WRITE_END));
        ready.set(Readiness::ERROR, status.contains(Status::FAILED));
        ready
    }

    /// The error that waits to be told, told once (`SO_ERROR`).
    pub fn take_error(&self) -> Option<SocketError> {
        self.0.endpoint.take_error()
    }

    /// Its address on this side.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.0.peer
    }

    /// Sets an option.
    ///
    /// # Errors
    /// What the stack answers; [`SocketError::EngineStopped`].
    pub fn set_option(&self, option: SocketOption) -> Result<(), SocketError> {
        set_option(&self.0, option)
    }

    /// Reads an option.
    ///
    /// # Errors
    /// What the stack answers; [`SocketError::EngineStopped`].
    pub fn option(&self, name: OptionName) -> Result<SocketOption, SocketError> {
        option(&self.0, name)
    }
}

impl Drop for RemoteStream {
    fn drop(&mut self) {
        if !self.0.wishes().contains(Wishes::CLOSE) {
            self.0.wish(Wishes::CLOSE);
        }
    }
}

/// A TCP listener that threads share; it exists on every engine. Dropping it closes it.
#[derive(Debug)]
pub struct RemoteListener {
    accepts: Arc<AcceptQueue>,
    portals: Vec<Arc<Portal>>,
    local: SocketAddr,
}

impl RemoteListener {
    pub(crate) fn new(
        accepts: Arc<AcceptQueue>,
        portals: Vec<Arc<Portal>>,
        local: SocketAddr,
    ) -> RemoteListener {
        RemoteListener { accepts, portals, local }
    }

    /// Takes a connection that is open, with the peer's address.
    ///
    /// # Errors
    /// [`SocketError::WouldBlock`] when the wait ended first; [`SocketError::EngineStopped`].
    pub fn accept(&self, wait: Wait) -> Result<(RemoteStream, SocketAddr), SocketError> {
        let endpoint = &self.accepts.endpoint;
        let attempt = || {
            let status = endpoint.status();
            if let Some(stream) = self.accepts.take() {
                if endpoint.made_room() {
                    self.portals.iter().for_each(|portal| portal.post());
                }
                let peer = stream.peer_addr()?;
                return Some(Ok((stream, peer)));
            }
            if let Some(error) = endpoint.take_error() {
                return Some(Err(error));
            }
            status.contains(Status::STOPPED).then_some(Err(SocketError::EngineStopped))
        };
        wait.retry(attempt, |deadline| {
            endpoint.readable.wait_until(deadline, || self.accepts.has_news())
        })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// True if `accept` would not have to wait.
    pub fn is_ready(&self) -> bool {
        self.accepts.has_news()
    }

    /// The error that waits to be told, told once (`SO_ERROR`).
    pub fn take_error(&self) -> Option<SocketError> {
        self.accepts.endpoint.take_error()
    }

    /// Sets an option; accepted connections inherit it.
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

impl Drop for RemoteListener {
    fn drop(&mut self) {
        self.portals.iter().for_each(|portal| portal.wish(Wishes::CLOSE));
        self.accepts.clear();
    }
}

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
        let (full_len, from) = (parcel.len(), parcel.address?);
        let mut len = 0;
        for piece in parcel.pieces() {
            let n = piece.len().min(buf.len() - len);
            buf[len..len + n].copy_from_slice(&piece[..n]);
            len += n;
        }
        if !peek {
            self.endpoint.consumed(parcel.slots());
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
    let _turn = locked(&portal.writer);
    let ask_for = |slots| {
        portal.want(slots);
        Err(slots)
    };
    if !portal.has_tx_room() {
        return ask_for(1);
    }
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
    if push_tx(portal, Parcel { front, rest, address: to }) { Ok(()) } else { Err(1) }
}
