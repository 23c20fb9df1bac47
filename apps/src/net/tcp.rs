//! TCP sockets for any thread.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use barewire_stack::engine::{RemoteListener, RemoteStream, Wait};
use barewire_stack::{OptionName, SocketOption};

use super::{Waiting, each_addr, get_timeout, set_timeout, to_io, ttl_of, ttl_option, unexpected};
use crate::runtime::Barewire;

/// Connections that may wait for `accept`, as `std::net` has it.
const BACKLOG: usize = 128;

/// What the clones of a stream share.
pub(super) struct Connection {
    /// `None` only while it is being dropped.
    stream: Option<RemoteStream>,
    waiting: Waiting,
    pub(super) linger: Mutex<Option<Duration>>,
    /// Keeps the engines running while one of their sockets is open.
    instance: Barewire,
}

impl Connection {
    fn stream(&self) -> io::Result<&RemoteStream> {
        self.stream.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let linger = *self.linger.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(time), Some(stream)) = (linger, self.stream.take())
            && !time.is_zero()
        {
            stream.close_lingering(time);
        }
    }
}

/// A TCP connection, as [`std::net::TcpStream`]. Dropping the last clone closes it gracefully.
pub struct TcpStream(Arc<Connection>);

impl TcpStream {
    fn new(stream: RemoteStream, instance: Barewire) -> TcpStream {
        TcpStream::with_waiting(stream, instance, Waiting::default())
    }

    pub(super) fn with_waiting(
        stream: RemoteStream,
        instance: Barewire,
        waiting: Waiting,
    ) -> TcpStream {
        let linger = Mutex::default();
        let connection = Connection { stream: Some(stream), waiting, linger, instance };
        TcpStream(Arc::new(connection))
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.0
    }

    pub(super) fn stream(&self) -> io::Result<&RemoteStream> {
        self.connection().stream()
    }

    pub(super) fn waiting(&self) -> &Waiting {
        &self.connection().waiting
    }

    /// Connects to the first address that answers, through the default instance.
    ///
    /// # Errors
    /// The error of the last address; `NotConnected` if no instance is running.
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<TcpStream> {
        TcpStream::connect_on(&Barewire::default_instance()?, addr)
    }

    /// As [`TcpStream::connect`], through `instance`.
    ///
    /// # Errors
    /// The error of the last address.
    pub fn connect_on<A: ToSocketAddrs>(instance: &Barewire, addr: A) -> io::Result<TcpStream> {
        each_addr(addr, |addr| TcpStream::open(instance, &addr, Wait::Forever))
    }

    /// Connects, for `timeout` at most.
    ///
    /// # Errors
    /// `TimedOut`; `InvalidInput` for a zero timeout; `NotConnected` if no instance is running.
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        TcpStream::connect_timeout_on(&Barewire::default_instance()?, addr, timeout)
    }

    /// As [`TcpStream::connect_timeout`], through `instance`.
    ///
    /// # Errors
    /// As there.
    pub fn connect_timeout_on(
        instance: &Barewire,
        addr: &SocketAddr,
        timeout: Duration,
    ) -> io::Result<TcpStream> {
        if timeout.is_zero() {
            let told = "cannot set a 0 duration timeout";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, told));
        }
        TcpStream::open(instance, addr, Wait::for_at_most(Some(timeout)))
    }

    fn open(instance: &Barewire, addr: &SocketAddr, wait: Wait) -> io::Result<TcpStream> {
        let stream = instance.engines().connect(*addr, wait).map_err(to_io)?;
        Ok(TcpStream::new(stream, instance.clone()))
    }

    /// The peer's address.
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream()?.peer_addr().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// This side's address.
    ///
    /// # Errors
    /// None at present; the signature is `std::net`'s.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.stream()?.local_addr())
    }

    /// Ends one direction or both, whatever other clones exist.
    ///
    /// # Errors
    /// `NotConnected` once both directions have ended.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.stream()?.shutdown(how).map_err(to_io)
    }

    /// Another handle on the same connection, with the same timeouts.
    ///
    /// # Errors
    /// None at present; the signature is `std::net`'s.
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        Ok(TcpStream(self.0.clone()))
    }

    /// Limits how long a read waits; it fails with `WouldBlock` after that.
    ///
    /// # Errors
    /// `InvalidInput` for a zero duration.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        set_timeout(&self.waiting().read_timeout, timeout)
    }

    /// Limits how long a write waits; it fails with `WouldBlock` after that.
    ///
    /// # Errors
    /// `InvalidInput` for a zero duration.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        set_timeout(&self.waiting().write_timeout, timeout)
    }

    /// The read timeout.
    ///
    /// # Errors
    /// None at present; the signature is `std::net`'s.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(get_timeout(&self.waiting().read_timeout))
    }

    /// The write timeout.
    ///
    /// # Errors
    /// None at present; the signature is `std::net`'s.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(get_timeout(&self.waiting().write_timeout))
    }

    /// Reads without taking the data off the queue.
    ///
    /// # Errors
    /// As reading.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream()?.peek(buf, self.waiting().reads()).map_err(to_io)
    }

    /// What closing does with data that is not acknowledged yet: `None` sends it in the background,
    /// zero drops it and resets, a time makes the drop of the last clone wait that long.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        self.set_option(SocketOption::Linger(linger))
    }

    /// What [`TcpStream::set_linger`] has set.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        match self.option(OptionName::Linger)? {
            SocketOption::Linger(linger) => Ok(linger),
            other => Err(unexpected(other)),
        }
    }

    /// Turns Nagle's algorithm off, or on again.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.set_option(SocketOption::NoDelay(nodelay))
    }

    /// True if Nagle's algorithm is off.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub fn nodelay(&self) -> io::Result<bool> {
        match self.option(OptionName::NoDelay)? {
            SocketOption::NoDelay(nodelay) => Ok(nodelay),
            other => Err(unexpected(other)),
        }
    }

    /// Sets the time to live of its packets, 1 to 255.
    ///
    /// # Errors
    /// `InvalidInput`, and when the engine has stopped.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.set_option(ttl_option(ttl)?)
    }

    /// The time to live of its packets.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub fn ttl(&self) -> io::Result<u32> {
        ttl_of(self.stream()?.option(OptionName::Ttl))
    }

    /// The error that waits (`SO_ERROR`), told once.
    ///
    /// # Errors
    /// None at present; the signature is `std::net`'s.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.stream()?.take_error().map(to_io))
    }

    /// Makes calls fail with `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// None at present; the signature is `std::net`'s.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.waiting().set_nonblocking(nonblocking);
        Ok(())
    }

    /// The instance that it is a connection of.
    pub fn instance(&self) -> &Barewire {
        &self.connection().instance
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream()?.read(buf, self.waiting().reads()).map_err(to_io)
    }
}

impl Read for TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }
}

impl Write for &TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream()?.write(buf, self.waiting().writes()).map_err(to_io)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStream")
            .field("local", &self.local_addr().ok())
            .field("peer", &self.peer_addr().ok())
            .finish()
    }
}

/// A TCP listener, as [`std::net::TcpListener`]. It listens on every core of its instance.
pub struct TcpListener(Arc<Listening>);

struct Listening {
    listener: RemoteListener,
    waiting: Waiting,
    instance: Barewire,
}

impl TcpListener {
    pub(super) fn listener(&self) -> &RemoteListener {
        &self.0.listener
    }

    pub(super) fn waiting(&self) -> &Waiting {
        &self.0.waiting
    }

    /// Listens on the first address that can be had, on the default instance.
    ///
    /// # Errors
    /// The error of the last address; `NotConnected` if no instance is running.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        TcpListener::bind_on(&Barewire::default_instance()?, addr)
    }

    /// As [`TcpListener::bind`], on `instance`.
    ///
    /// # Errors
    /// The error of the last address.
    pub fn bind_on<A: ToSocketAddrs>(instance: &Barewire, addr: A) -> io::Result<TcpListener> {
        TcpListener::bind_with_backlog(instance, addr, BACKLOG)
    }

    /// As [`TcpListener::bind_on`], with room for `backlog` connections that wait for `accept`.
    ///
    /// # Errors
    /// As there.
    pub fn bind_with_backlog<A: ToSocketAddrs>(
        instance: &Barewire,
        addr: A,
        backlog: usize,
    ) -> io::Result<TcpListener> {
        each_addr(addr, |addr| {
            let listener = instance.engines().listen(addr, backlog).map_err(to_io)?;
            let (waiting, instance) = (Waiting::default(), instance.clone());
            Ok(TcpListener(Arc::new(Listening { listener, waiting, instance })))
        })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// None at present; the signature is `std::net`'s.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.listener.local_addr())
    }

    /// Another handle on the same listener.
    ///
    /// # Errors
    /// None at present; the signature is `std::net`'s.
    pub fn try_clone(&self) -> io::Result<TcpListener> {
        Ok(TcpListener(self.0.clone()))
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// `WouldBlock` on a non-blocking listener; `ConnectionAborted` when the engines have stopped.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.0.listener.accept(self.0.waiting.reads()).map_err(to_io)?;
        let waiting = self.0.waiting.inherited();
        Ok((TcpStream::with_waiting(stream, self.0.instance.clone(), waiting), peer))
    }

    /// The connections, one after the other, without end.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming(self)
    }

    /// Sets the time to live of the packets of connections accepted from now on.
    ///
    /// # Errors
    /// `InvalidInput`, and when the engines have stopped.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.0.listener.set_option(ttl_option(ttl)?).map_err(to_io)
    }

    /// The time to live that [`TcpListener::set_ttl`] has set.
    ///
    /// # Errors
    /// When the engines have stopped.
    pub fn ttl(&self) -> io::Result<u32> {
        ttl_of(self.0.listener.option(OptionName::Ttl))
    }

    /// The error that waits (`SO_ERROR`), told once.
    ///
    /// # Errors
    /// None at present; the signature is `std::net`'s.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.0.listener.take_error().map(to_io))
    }

    /// Makes `accept` fail with `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// None at present; the signature is `std::net`'s.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.waiting.set_nonblocking(nonblocking);
        Ok(())
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener").field("local", &self.0.listener.local_addr()).finish()
    }
}

/// The connections of a listener; see [`TcpListener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a>(&'a TcpListener);

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        Some(self.0.accept().map(|(stream, _peer)| stream))
    }
}

impl<'a> IntoIterator for &'a TcpListener {
    type Item = io::Result<TcpStream>;
    type IntoIter = Incoming<'a>;

    fn into_iter(self) -> Incoming<'a> {
        self.incoming()
    }
}
