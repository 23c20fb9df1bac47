//! TCP on the engine's own core.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use barewire_driver::sys::read_at_into;
use barewire_driver::{PacketBuf, PacketSlice};
use barewire_stack::engine::Direction;
use barewire_stack::tcp::{Readiness, TcpInfo};
use barewire_stack::{OptionName, SocketError, SocketId, SocketKind, SocketOption, Stack};
use futures_io::{AsyncRead, AsyncWrite};

use super::core::{Core, Handle};
use crate::net::to_io;

/// Slots that one system call of `send_file` fills: 64 KiB of 2 KiB slots.
const FILE_BURST: usize = 32;

/// How soon `send_file` looks again when the pool had nothing to spare.
const POOL_WAIT: Duration = Duration::from_millis(1);

/// A TCP listener of one core.
#[derive(Debug)]
pub struct AsyncTcpListener {
    socket: Handle,
    local: SocketAddr,
}

impl AsyncTcpListener {
    /// Listens on `addr` on `core`; see [`Core::tcp_listen`].
    ///
    /// # Errors
    /// As a socket's `bind` and `listen`.
    pub fn bind(core: &Core, addr: SocketAddr, backlog: usize) -> io::Result<AsyncTcpListener> {
        let socket = core.open(SocketKind::Tcp, addr.ip())?;
        let id = socket.id;
        let listen = |stack: &mut Stack| {
            // As std's listeners have it: a restart does not wait for lingering connections.
            stack.set_option(id, SocketOption::ReuseAddr(true))?;
            core.share_port(stack, id)?;
            stack.bind(id, addr)?;
            stack.listen(id, backlog)?;
            stack.local_addr(id)
        };
        let local = core.with_stack(listen).map_err(to_io)?;
        Ok(AsyncTcpListener { socket, local })
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// `ConnectionAborted` once the engine is stopping.
    pub async fn accept(&self) -> io::Result<(AsyncTcpStream, SocketAddr)> {
        let (core, id) = (&self.socket.core, self.socket.id);
        let accept = |stack: &mut Stack| {
            if core.is_stopping() {
                return Err(SocketError::EngineStopped);
            }
            stack.accept(id)
        };
        let (id, peer) = core.ready(id, Direction::Read, accept).await.map_err(to_io)?;
        let socket = Handle { core: core.clone(), id };
        Ok((AsyncTcpStream { socket }, peer))
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Sets an option; connections accepted from now on inherit it.
    ///
    /// # Errors
    /// What the stack answers.
    pub fn set_option(&self, option: SocketOption) -> io::Result<()> {
        self.socket.core.with_stack(|s| s.set_option(self.socket.id, option)).map_err(to_io)
    }

    /// The value of an option.
    ///
    /// # Errors
    /// What the stack answers.
    pub fn option(&self, name: OptionName) -> io::Result<SocketOption> {
        self.socket.core.with_stack(|s| s.option(self.socket.id, name)).map_err(to_io)
    }
}

/// A TCP connection of one core. Dropping it closes it gracefully; while a panic unwinds it is
/// reset instead, so that the peer does not take half an answer for a whole one.
///
/// All calls take `&self`: one task may read while another writes. [`AsyncTcpStream::split`] gives
/// each a half of its own.
#[derive(Debug)]
pub struct AsyncTcpStream {
    socket: Handle,
}

impl AsyncTcpStream {
    /// Connects to `addr` from `core`.
    ///
    /// # Errors
    /// As a socket's `connect`.
    pub async fn connect(core: &Core, addr: SocketAddr) -> io::Result<AsyncTcpStream> {
        AsyncTcpStream::connect_with(core, addr, &[], &[]).await.map(|(stream, _)| stream)
    }

    /// As [`AsyncTcpStream::connect`], with options that are set before the SYN leaves, and with the
    /// front of `data` in it where the server has given a fast open cookie (RFC 7413). Says how much
    /// of the data was taken; the rest is to be written.
    ///
    /// # Errors
    /// As a socket's `connect`; what the stack answers to an option.
    pub async fn connect_with(
        core: &Core,
        addr: SocketAddr,
        options: &[SocketOption],
        data: &[u8],
    ) -> io::Result<(AsyncTcpStream, usize)> {
        let socket = core.open(SocketKind::Tcp, addr.ip())?;
        let id = socket.id;
        let begun = core.with_stack(|stack| {
            options.iter().try_for_each(|&option| stack.set_option(id, option))?;
            match data {
                [] => stack.connect(id, addr).map(|()| 0),
                data => stack.connect_with(id, addr, data),
            }
        });
        let taken = match begun {
            Ok(taken) => taken,
            Err(SocketError::InProgress) => 0,
            Err(error) => return Err(to_io(error)),
        };
        let opened = |stack: &mut Stack| {
            let ready = stack.readiness(id)?;
            if ready.intersects(Readiness::ERROR | Readiness::WRITE_CLOSED) {
                return Err(stack.take_error(id)?.unwrap_or(SocketError::ConnectionAborted));
            }
            if ready.contains(Readiness::WRITABLE) { Ok(()) } else { Err(SocketError::WouldBlock) }
        };
        core.ready(id, Direction::Write, opened).await.map_err(to_io)?;
        Ok((AsyncTcpStream { socket }, taken))
    }

    async fn when<T>(
        &self,
        direction: Direction,
        attempt: impl FnMut(&mut Stack) -> Result<T, SocketError>,
    ) -> io::Result<T> {
        self.core().ready(self.id(), direction, attempt).await.map_err(to_io)
    }

    /// The core that it lives on.
    pub fn core(&self) -> &Core {
        &self.socket.core
    }

    /// Its handle in the core's stack, for calls that have no method here.
    pub fn id(&self) -> SocketId {
        self.socket.id
    }

    /// Reads what is there, at least one byte; 0 at the end of the stream. Copies once.
    ///
    /// # Errors
    /// As a socket's `read`.
    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let id = self.id();
        self.when(Direction::Read, |stack| stack.read(id, buf)).await
    }

    /// Takes up to `max` bytes as they lie in packet memory, without a copy; `None` at the end of
    /// the stream. While the slice is kept, its slot is, too.
    ///
    /// # Errors
    /// As a socket's `read`.
    pub async fn read_owned(&self, max: usize) -> io::Result<Option<PacketSlice>> {
        let id = self.id();
        self.when(Direction::Read, |stack| stack.read_owned(id, max)).await
    }

    /// As [`AsyncTcpStream::read_owned`] for all that lies there, up to `max` bytes: appends the slices
    /// to `out` and says how many bytes they hold, 0 at the end of the stream. Of bulk data a call
    /// for each slice costs more than the slice does.
    ///
    /// # Errors
    /// As a socket's `read`.
    pub async fn read_slices(
        &self,
        max: usize,
        out: &mut VecDeque<PacketSlice>,
    ) -> io::Result<usize> {
        let id = self.id();
        self.when(Direction::Read, |stack| stack.read_slices(id, max, out)).await
    }

    /// Writes as much as there is room for, at least one byte of a buffer that has any. Copies
    /// once.
    ///
    /// # Errors
    /// As a socket's `write`.
    pub async fn write(&self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            let id = self.id();
            match self.core().ready(id, Direction::Write, |stack| stack.write(id, buf)).await {
                Err(SocketError::NoBuffers) => self.core().sleep(POOL_WAIT).await,
                outcome => return outcome.map_err(to_io),
            }
        }
    }

    /// Writes all of `buf`.
    ///
    /// # Errors
    /// As a socket's `write`.
    pub async fn write_all(&self, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            match self.write(buf).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => buf = &buf[n..],
            }
        }
        Ok(())
    }

    /// Sends packet memory as it is, without a copy, and waits until there is room for it. It stays
    /// with the stack until the peer has acknowledged it.
    ///
    /// # Errors
    /// As a socket's `write`.
    pub async fn write_owned(&self, data: PacketSlice) -> io::Result<()> {
        let id = self.id();
        let mut data = Some(data);
        self.when(Direction::Write, |stack| {
            let Some(slice) = data.take() else { return Ok(()) };
            stack.write_owned(id, slice).map_err(|(error, slice)| {
                data = Some(slice);
                error
            })
        })
        .await
    }

    /// As [`AsyncTcpStream::write_owned`] for all of `data`, which is empty then.
    ///
    /// # Errors
    /// As a socket's `write`; what was not taken is left.
    pub async fn write_slices(&self, data: &mut VecDeque<PacketSlice>) -> io::Result<()> {
        let id = self.id();
        while !data.is_empty() {
            self.when(Direction::Write, |stack| stack.write_slices(id, data)).await?;
        }
        Ok(())
    }

    /// Sends `len` bytes of `file` from `offset`: read by one system call straight into packet
    /// memory, and not copied again.
    ///
    /// Reading a file that is not in the page cache blocks the core meanwhile.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file is shorter; what reading it answers; as a socket's `write`.
    pub async fn send_file(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        let (mut at, end) = (offset, offset.saturating_add(len));
        let mut slots = Vec::with_capacity(FILE_BURST);
        let mut slices = VecDeque::with_capacity(FILE_BURST);
        while at < end {
            let room = self.when_writable().await?;
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(room);
            self.take_slots(wanted, &mut slots);
            if slots.is_empty() {
                self.core().sleep(POOL_WAIT).await;
                continue;
            }
            let mut filled = read_at_into(file, at, &mut slots)?;
            if filled == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at += filled as u64;
            slices.extend(slots.drain(..).map(|mut slot| {
                slot.truncate(filled);
                filled -= slot.len();
                slot.freeze()
            }));
            self.write_slices(&mut slices).await?;
        }
        Ok(())
    }

    /// Waits until the send buffer has room and says how much.
    async fn when_writable(&self) -> io::Result<usize> {
        let id = self.id();
        self.when(Direction::Write, |stack| {
            let ready = stack.readiness(id)?;
            if ready.contains(Readiness::ERROR) {
                return Err(stack.take_error(id)?.unwrap_or(SocketError::BrokenPipe));
            }
            if ready.contains(Readiness::WRITE_CLOSED) {
                return Err(SocketError::BrokenPipe);
            }
            if !ready.contains(Readiness::WRITABLE) {
                return Err(SocketError::WouldBlock);
            }
            stack.write_room(id).map(|room| room.max(1))
        })
        .await
    }

    /// Slots for `bytes` bytes, as far as the pool can spare them.
    fn take_slots(&self, bytes: usize, slots: &mut Vec<PacketBuf>) {
        let spare = self.core().with_stack(|stack| stack.spare_slots());
        let pool = self.core().pool();
        let mut left = bytes;
        while left > 0 && slots.len() < FILE_BURST.min(spare) {
            let Some(mut slot) = pool.alloc() else { break };
            slot.truncate(left);
            left -= slot.len();
            slots.push(slot);
        }
    }

    /// Ends one direction or both. What was written is still delivered.
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.core().with_stack(|stack| stack.shutdown(self.id(), how)).map_err(to_io)
    }

    /// Closes in order: ends this side's stream and waits until the peer has ended its own, so that
    /// whatever was written is known to have been delivered. What still arrives is thrown away.
    ///
    /// A peer may take for ever: put it under [`barewire_stack::engine::Core::timeout`].
    ///
    /// # Errors
    /// If the connection broke, so that delivery is not certain.
    pub async fn close(self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)?;
        while self.read_owned(usize::MAX).await?.is_some() {}
        Ok(())
    }

    /// The peer's address.
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.core().with_stack(|stack| stack.peer_addr(self.id())).map_err(to_io)
    }

    /// This side's address.
    ///
    /// # Errors
    /// None while the stream lives.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.core().with_stack(|stack| stack.local_addr(self.id())).map_err(to_io)
    }

    /// Turns Nagle's algorithm off, or on again.
    ///
    /// # Errors
    /// None while the stream lives.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.set_option(SocketOption::NoDelay(nodelay))
    }

    /// What closing does with data that is not acknowledged yet; zero resets.
    ///
    /// # Errors
    /// None while the stream lives.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        self.set_option(SocketOption::Linger(linger))
    }

    /// Sets any option of SOCKETS.md, by its POSIX name.
    ///
    /// # Errors
    /// What the stack answers.
    pub fn set_option(&self, option: SocketOption) -> io::Result<()> {
        self.core().with_stack(|stack| stack.set_option(self.id(), option)).map_err(to_io)
    }

    /// The value of any option.
    ///
    /// # Errors
    /// What the stack answers.
    pub fn option(&self, name: OptionName) -> io::Result<SocketOption> {
        self.core().with_stack(|stack| stack.option(self.id(), name)).map_err(to_io)
    }

    /// The connection's state and figures.
    ///
    /// # Errors
    /// None while the stream lives.
    pub fn tcp_info(&self) -> io::Result<TcpInfo> {
        self.core().with_stack(|stack| stack.tcp_info(self.id())).map_err(to_io)
    }

    /// A half to read and a half to write, for two tasks. Dropping the write half ends the stream
    /// in that direction; dropping both closes it.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        let stream = Rc::new(self);
        (ReadHalf(stream.clone()), WriteHalf(stream))
    }

    fn poll_read_into(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let id = self.id();
        let read = self.core().poll_ready(cx, id, Direction::Read, |stack| stack.read(id, buf));
        read.map_err(to_io)
    }

    fn poll_write_from(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let id = self.id();
        let written = self.core().poll_ready(cx, id, Direction::Write, |stack| {
            if buf.is_empty() { Ok(0) } else { stack.write(id, buf) }
        });
        written.map_err(to_io)
    }

    fn poll_end(&self) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown(Shutdown::Write))
    }
}

/// Implements `futures_io`'s traits by way of the `&AsyncTcpStream` that `$stream` gives.
macro_rules! futures_io {
    ($name:ty, read) => {
        impl AsyncRead for $name {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                self.stream().poll_read_into(cx, buf)
            }
        }
    };
    ($name:ty, write) => {
        impl AsyncWrite for $name {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                self.stream().poll_write_from(cx, buf)
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.stream().poll_end()
            }
        }
    };
}

impl AsyncTcpStream {
    fn stream(&self) -> &AsyncTcpStream {
        self
    }
}

futures_io!(AsyncTcpStream, read);
futures_io!(AsyncTcpStream, write);
futures_io!(&AsyncTcpStream, read);
futures_io!(&AsyncTcpStream, write);
futures_io!(ReadHalf, read);
futures_io!(WriteHalf, write);

/// The reading half of a stream; see [`AsyncTcpStream::split`].
#[derive(Debug)]
pub struct ReadHalf(Rc<AsyncTcpStream>);

impl ReadHalf {
    /// The whole stream.
    pub fn stream(&self) -> &AsyncTcpStream {
        &self.0
    }

    /// As [`AsyncTcpStream::read`].
    ///
    /// # Errors
    /// As there.
    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf).await
    }

    /// As [`AsyncTcpStream::read_owned`].
    ///
    /// # Errors
    /// As there.
    pub async fn read_owned(&self, max: usize) -> io::Result<Option<PacketSlice>> {
        self.0.read_owned(max).await
    }

    /// As [`AsyncTcpStream::read_slices`].
    ///
    /// # Errors
    /// As there.
    pub async fn read_slices(
        &self,
        max: usize,
        out: &mut VecDeque<PacketSlice>,
    ) -> io::Result<usize> {
        self.0.read_slices(max, out).await
    }
}

/// The writing half of a stream; see [`AsyncTcpStream::split`].
#[derive(Debug)]
pub struct WriteHalf(Rc<AsyncTcpStream>);

impl WriteHalf {
    /// The whole stream.
    pub fn stream(&self) -> &AsyncTcpStream {
        &self.0
    }

    /// As [`AsyncTcpStream::write_all`].
    ///
    /// # Errors
    /// As there.
    pub async fn write_all(&self, buf: &[u8]) -> io::Result<()> {
        self.0.write_all(buf).await
    }

    /// As [`AsyncTcpStream::write_owned`].
    ///
    /// # Errors
    /// As there.
    pub async fn write_owned(&self, data: PacketSlice) -> io::Result<()> {
        self.0.write_owned(data).await
    }

    /// As [`AsyncTcpStream::write_slices`].
    ///
    /// # Errors
    /// As there.
    pub async fn write_slices(&self, data: &mut VecDeque<PacketSlice>) -> io::Result<()> {
        self.0.write_slices(data).await
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        if !self.0.core().is_failing() {
            // Not connected any more: then there is nothing left to end.
            let _ = self.0.shutdown(Shutdown::Write);
        }
    }
}
