//! Blocking sockets for any thread, with the names, signatures and error kinds of `std::net`.
//!
//! A call works on rings that the thread shares with the engine of its connection; bytes are
//! copied once. `bind` and `connect` use the process's default instance of
//! [`Barewire`](crate::Barewire), `bind_on` and `connect_on` the one given.

mod options;
mod tcp;
mod udp;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use barewire_stack::engine::Wait;
use barewire_stack::{SocketError, SocketOption};

pub use tcp::{Incoming, TcpListener, TcpStream};
pub use udp::UdpSocket;

/// The kind that `std::net` would give; a stopped engine aborts what was open.
pub(crate) fn to_io(error: SocketError) -> io::Error {
    match error {
        SocketError::EngineStopped => io::Error::new(io::ErrorKind::ConnectionAborted, error),
        other => other.into(),
    }
}

/// Tries `f` with each address until it succeeds, as `std::net` does.
fn each_addr<A: ToSocketAddrs, T>(
    addr: A,
    mut f: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = None;
    for addr in addr.to_socket_addrs()? {
        match f(addr) {
            Ok(value) => return Ok(value),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "could not resolve to any addresses")
    }))
}

/// How long the calls of a socket wait. Shared by all clones, as a descriptor's flags are.
#[derive(Debug, Default)]
struct Waiting {
    nonblocking: AtomicBool,
    /// In nanoseconds; 0 waits for ever.
    read_timeout: AtomicU64,
    write_timeout: AtomicU64,
}

impl Waiting {
    /// What a connection accepted by a listener begins with: its timeouts (`SO_RCVTIMEO`,
    /// `SO_SNDTIMEO`), as on Linux, not its mode.
    fn inherited(&self) -> Waiting {
        let copy = |timeout: &AtomicU64| AtomicU64::new(timeout.load(Ordering::Relaxed));
        Waiting {
            nonblocking: AtomicBool::new(false),
            read_timeout: copy(&self.read_timeout),
            write_timeout: copy(&self.write_timeout),
        }
    }

    fn set_nonblocking(&self, nonblocking: bool) {
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
    }

    fn reads(&self) -> Wait {
        self.wait(&self.read_timeout)
    }

    fn writes(&self) -> Wait {
        self.wait(&self.write_timeout)
    }

    fn wait(&self, timeout: &AtomicU64) -> Wait {
        if self.nonblocking.load(Ordering::Relaxed) {
            return Wait::Never;
        }
        Wait::for_at_most(get_timeout(timeout))
    }
}

fn get_timeout(timeout: &AtomicU64) -> Option<Duration> {
    let ns = timeout.load(Ordering::Relaxed);
    (ns > 0).then(|| Duration::from_nanos(ns))
}

fn set_timeout(timeout: &AtomicU64, value: Option<Duration>) -> io::Result<()> {
    if value == Some(Duration::ZERO) {
        let told = "cannot set a 0 duration timeout";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, told));
    }
    let ns = value.map_or(0, |value| u64::try_from(value.as_nanos()).unwrap_or(u64::MAX));
    timeout.store(ns, Ordering::Relaxed);
    Ok(())
}

/// A time to live as the stack takes it.
fn ttl_option(ttl: u32) -> io::Result<SocketOption> {
    let ttl = u8::try_from(ttl).map_err(|_| to_io(SocketError::InvalidInput))?;
    Ok(SocketOption::Ttl(ttl))
}

/// The option's value, or what a stack that answers with another option deserves.
fn ttl_of(option: Result<SocketOption, SocketError>) -> io::Result<u32> {
    match option.map_err(to_io)? {
        SocketOption::Ttl(ttl) => Ok(u32::from(ttl)),
        other => Err(unexpected(other)),
    }
}

fn unexpected(option: SocketOption) -> io::Error {
    io::Error::other(format!("asked for another option than {option:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_timeout_is_refused_as_in_std() {
        let waiting = Waiting::default();
        let error = set_timeout(&waiting.read_timeout, Some(Duration::ZERO)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        set_timeout(&waiting.read_timeout, Some(Duration::from_millis(5))).unwrap();
        assert_eq!(get_timeout(&waiting.read_timeout), Some(Duration::from_millis(5)));
        assert!(matches!(waiting.reads(), Wait::Until(_)));
        assert_eq!(waiting.writes(), Wait::Forever);
        waiting.set_nonblocking(true);
        assert_eq!(waiting.reads(), Wait::Never);
    }

    #[test]
    fn the_first_address_that_works_is_taken_and_the_last_error_told() {
        let addrs: [SocketAddr; 2] = [([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 2).into()];
        let second = each_addr(&addrs[..], |addr| {
            if addr.port() == 2 { Ok(addr) } else { Err(io::ErrorKind::AddrInUse.into()) }
        });
        assert_eq!(second.unwrap(), addrs[1]);
        let none = each_addr(&addrs[..0], Ok).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::InvalidInput);
    }
}
