//! The two kinds of blocking sockets as one, so that each test is written once.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};

use super::PATIENCE;

/// A blocking connection: the kernel's or ours.
pub(crate) trait Conn: Read + Write + Send + Sized + 'static {
    fn another(&self) -> Self;
    fn end(&self, how: Shutdown) -> io::Result<()>;
    /// Makes every call fail rather than wait for ever.
    fn patiently(self) -> Self;
}

/// A blocking listener.
pub(crate) trait Listen: Send + Sized + 'static {
    type Conn: Conn;
    fn next(&self) -> io::Result<(Self::Conn, SocketAddr)>;

    /// The next connection, which must come.
    #[track_caller]
    fn take(&self) -> Self::Conn {
        self.next().unwrap().0.patiently()
    }
}

macro_rules! kind {
    ($stream:ty, $listener:ty) => {
        impl Conn for $stream {
            fn another(&self) -> Self {
                self.try_clone().unwrap()
            }
            fn end(&self, how: Shutdown) -> io::Result<()> {
                self.shutdown(how)
            }
            fn patiently(self) -> Self {
                self.set_read_timeout(Some(PATIENCE)).unwrap();
                self.set_write_timeout(Some(PATIENCE)).unwrap();
                self
            }
        }

        impl Listen for $listener {
            type Conn = $stream;
            fn next(&self) -> io::Result<($stream, SocketAddr)> {
                self.accept()
            }
        }
    };
}

kind!(std::net::TcpStream, std::net::TcpListener);
kind!(barewire::TcpStream, barewire::TcpListener);
