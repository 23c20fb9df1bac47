//! The process's default instance; alone in its process, for there is only one default.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::ToSocketAddrs;
use std::thread;

use barewire::{Barewire, TcpListener, TcpStream, UdpSocket};
use common::{SERVER, at, pair, stop_both};

/// Compiles with `std::net`'s sockets and with ours: that is the promise.
macro_rules! same_program {
    ($name:ident, $listener:ty, $stream:ty, $udp:ty) => {
        fn $name(addr: impl ToSocketAddrs + Clone + Send + 'static) -> std::io::Result<usize> {
            use std::net::{Shutdown, SocketAddr};
            use std::time::Duration;
            let listener = <$listener>::bind(addr)?;
            listener.set_nonblocking(false)?;
            listener.set_ttl(64)?;
            let _: (u32, Option<std::io::Error>) = (listener.ttl()?, listener.take_error()?);
            let local: SocketAddr = listener.local_addr()?;
            let second = listener.try_clone()?;
            let server = thread::spawn(move || -> std::io::Result<()> {
                for stream in second.incoming().take(1) {
                    let mut stream: $stream = stream?;
                    let mut all = Vec::new();
                    stream.read_to_end(&mut all)?;
                    stream.write_all(&all)?;
                }
                let (stream, _peer): ($stream, SocketAddr) = second.accept()?;
                drop(stream);
                Ok(())
            });
            let mut stream = <$stream>::connect(local)?;
            stream.set_nodelay(true)?;
            stream.set_ttl(64)?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            stream.set_write_timeout(Some(Duration::from_secs(20)))?;
            stream.set_nonblocking(false)?;
            let _: (bool, u32) = (stream.nodelay()?, stream.ttl()?);
            let _: (Option<Duration>, Option<Duration>) =
                (stream.read_timeout()?, stream.write_timeout()?);
            let _: (SocketAddr, SocketAddr) = (stream.local_addr()?, stream.peer_addr()?);
            assert!(stream.take_error()?.is_none());
            (&stream).write_all(b"one ")?;
            stream.try_clone()?.write_all(b"two")?;
            stream.flush()?;
            stream.shutdown(Shutdown::Write)?;
            let mut first = [0; 3];
            stream.peek(&mut first)?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            assert_eq!((text.as_str(), &first), ("one two", b"one"));
            drop(<$stream>::connect_timeout(&local, Duration::from_secs(20))?);
            server.join().unwrap()?;
            let udp = <$udp>::bind(SocketAddr::new(local.ip(), 0))?;
            udp.set_broadcast(true)?;
            udp.set_ttl(64)?;
            udp.set_read_timeout(Some(Duration::from_secs(20)))?;
            udp.set_write_timeout(None)?;
            udp.set_nonblocking(false)?;
            let _: (bool, u32) = (udp.broadcast()?, udp.ttl()?);
            let _: (Option<Duration>, Option<Duration>) =
                (udp.read_timeout()?, udp.write_timeout()?);
            assert!(udp.take_error()?.is_none());
            let own = udp.local_addr()?;
            let other = udp.try_clone()?;
            other.send_to(b"datagram", own)?;
            let mut buf = [0; 16];
            assert_eq!(udp.peek_from(&mut buf)?, (8, own));
            assert_eq!(udp.recv_from(&mut buf)?, (8, own));
            udp.connect(own)?;
            assert_eq!(udp.peer_addr()?, own);
            udp.send(b"more")?;
            assert_eq!(udp.peek(&mut buf)?, 4);
            udp.recv(&mut buf)
        }
    };
}

same_program!(with_std, std::net::TcpListener, std::net::TcpStream, std::net::UdpSocket);
same_program!(with_barewire, TcpListener, TcpStream, UdpSocket);

#[test]
fn a_program_for_std_net_runs_on_the_default_instance() {
    let error = TcpListener::bind(at(SERVER, 80)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    assert!(error.to_string().contains("Barewire::builder()"), "{error}");
    let (server, client) = pair("default");
    assert_eq!(with_std("127.0.0.1:0").unwrap(), 4);
    // The instance that was started first is the default one.
    assert_eq!(with_barewire(at(SERVER, 0)).unwrap(), 4);
    client.set_default();
    let listener = TcpListener::bind_on(&server, at(SERVER, 80)).unwrap();
    let stream = TcpStream::connect(at(SERVER, 80)).unwrap();
    assert_eq!(stream.local_addr().unwrap().ip(), common::CLIENT);
    drop((listener, stream));
    stop_both(&server, &client);
    drop((server, client));
    assert!(Barewire::default_instance().is_err(), "a default that is gone is none");
}
