//! TCP connections of threads.

use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Wait, can_write, copied, locked, option, push_tx, refuse_write, set_option};
use crate::engine::executor::on_engine_thread;
use crate::engine::mailbox::Mailbox;
use crate::engine::parcel::{Buffers, Parcel, SMALL_BYTES, Small};
use crate::engine::portal::{Portal, Status, Wishes};
use crate::error::SocketError;
use crate::socket::{OptionName, SocketOption};
use crate::tcp::Readiness;

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
            let text = parcel.text();
            let n = text.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&text[..n]);
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
            let text = parcel.text();
            let n = text.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&text[..n]);
            parcel.advance(n);
            done += n;
            if parcel.text().is_empty() {
                freed += parcel.places();
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
            self.0.post();
            (n > 0).then_some(Ok(n))
        };
        let writable = &self.0.endpoint.writable;
        wait.retry(attempt, |deadline| writable.wait_until(deadline, || can_write(&self.0, 1)))
    }

    fn put_bytes(&self, buf: &[u8]) -> usize {
        let mut turn = locked(&self.0.writers.turn);
        let mut done = 0;
        while done < buf.len() {
            let left = &buf[done..];
            if left.len() <= SMALL_BYTES
                && self.0.take_small_place(&mut turn)
                && let Some(small) = Small::copy_of(left)
            {
                push_tx(&self.0, Parcel::Small(small));
                done = buf.len();
                break;
            }
            let Some(mut grant) = self.0.take_grant() else { break };
            let n = grant.len().min(buf.len() - done);
            grant[..n].copy_from_slice(&buf[done..done + n]);
            grant.truncate(n);
            push_tx(&self.0, Parcel::Buffers(Buffers::piece(grant)));
            done += n;
        }
        if done > 0 {
            copied(&self.0, done);
        }
        // What has been used is granted again without being asked for.
        if done < buf.len() {
            self.0.want((buf.len() - done).div_ceil(2048) + usize::from(done > 0));
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
    /// everything: what `SO_LINGER` asks of `close`. The engine resets what has not ended by the
    /// time that the option has.
    pub fn close_lingering(self, time: Duration) {
        let deadline = Instant::now().checked_add(time);
        self.0.wish(Wishes::CLOSE | Wishes::LINGER);
        if on_engine_thread() {
            return;
        }
        let closed = || self.0.endpoint.status().contains(Status::CLOSED);
        self.0.endpoint.writable.wait_until(deadline, closed);
    }

    /// Closes the connection at once, with a reset.
    pub(crate) fn abort(self) {
        self.0.wish(Wishes::CLOSE | Wishes::ABORT);
    }

    /// The mailbox of its engine.
    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.0.mailbox
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
