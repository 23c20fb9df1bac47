//! Ping and UDP with the Linux kernel, from nothing to what needs many fragments.

mod interop;

use std::io::{self, ErrorKind};
use std::net::{self, SocketAddr};
use std::process::Command;
use std::sync::mpsc::channel;

use barewire::{Core, UdpSocket};
use interop::stream::Known;
use interop::{Host, KERNEL, OURS, PATIENCE, in_namespace, join, kernel, ours, start};

/// Sizes of pings: nothing, one packet and one byte more than that (1,500 less the headers of IPv4
/// and ICMP), two packets, and six.
const PINGS: [usize; 8] = [0, 1, 56, 1472, 1473, 2952, 2953, 8000];

/// Sizes of datagrams: likewise, and the largest that there are.
const DATAGRAMS: [usize; 8] = [0, 1, 512, 1472, 1473, 4000, 8000, 65_507];

/// Several packets went out, and several came in and were put together.
#[track_caller]
fn assert_fragments(host: &Host) {
    let stack = host.bw().stats().stack();
    assert!(stack.fragments_sent > 0 && stack.fragments_received > 0, "{stack:?}");
    assert!(stack.reassembled > 0 && stack.reassembly_expired == 0, "{stack:?}");
}

#[test]
fn the_kernel_pings_us() {
    in_namespace("the_kernel_pings_us", || {
        let host = Host::start();
        for size in PINGS {
            let ping = format!("ping -n -c 3 -i 0.01 -W 10 -s {size} {OURS}");
            let words: Vec<_> = ping.split(' ').collect();
            let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{ping}: {output:?}");
            assert!(text.contains(" 3 received, 0% packet loss"), "{ping}: {text}");
            assert!(!text.contains("wrong data"), "{ping}: {text}");
        }
        assert_fragments(&host);
        host.stop();
    });
}

#[test]
fn we_ping_the_kernel() {
    in_namespace("we_ping_the_kernel", || {
        let host = Host::start();
        for size in PINGS {
            let answered = host.bw().ping(KERNEL.into(), size, PATIENCE);
            answered.unwrap_or_else(|error| panic!("{size} bytes: {error}"));
        }
        assert_fragments(&host);
        host.stop();
    });
}

/// The two kinds of blocking sockets as one.
trait Datagrams: Send + 'static {
    fn send_to(&self, buf: &[u8], to: SocketAddr) -> io::Result<usize>;
    fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)>;
}

macro_rules! datagrams {
    ($socket:ty) => {
        impl Datagrams for $socket {
            fn send_to(&self, buf: &[u8], to: SocketAddr) -> io::Result<usize> {
                self.send_to(buf, to)
            }
            fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
                self.recv_from(buf)
            }
        }
    };
}

datagrams!(net::UdpSocket);
datagrams!(UdpSocket);

/// Sends one datagram of each size and gets it back as it was.
fn ask(socket: &impl Datagrams, to: SocketAddr) {
    let mut buf = vec![0; 65_536];
    for (seed, size) in DATAGRAMS.into_iter().enumerate() {
        let sent = Known::new(seed as u64).take(size);
        assert_eq!(socket.send_to(&sent, to).unwrap(), size);
        match socket.recv_from(&mut buf) {
            Ok((n, from)) => {
                assert_eq!((n, from), (size, to));
                Known::new(seed as u64).check(&buf[..n]);
            }
            Err(error) => panic!("{size} bytes did not come back: {error}"),
        }
    }
}

/// Sends back as many datagrams as [`ask`] sends.
fn answer(socket: &impl Datagrams) {
    let mut buf = vec![0; 65_536];
    for _ in DATAGRAMS {
        let (n, from) = socket.recv_from(&mut buf).unwrap();
        assert_eq!(socket.send_to(&buf[..n], from).unwrap(), n);
    }
}

fn kernel_socket(port: u16) -> net::UdpSocket {
    let socket = net::UdpSocket::bind((KERNEL, port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn our_socket(host: &Host, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind_on(host.bw(), ours(port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn datagrams_of_every_size_are_echoed_by_us() {
    in_namespace("datagrams_of_every_size_are_echoed_by_us", || {
        let host = Host::start();
        let socket = our_socket(&host, 7001);
        let server = start(move || answer(&socket));
        ask(&kernel_socket(0), ours(7001));
        join(server);

        let (ready, is_ready) = channel();
        let server = host.spawn(|core| async move {
            let socket = core.udp_bind(ours(7002)).unwrap();
            ready.send(()).unwrap();
            let mut buf = vec![0; 65_536];
            for _ in DATAGRAMS {
                let (n, from) = socket.recv_from(&mut buf).await.unwrap();
                assert_eq!(socket.send_to(&buf[..n], from).await.unwrap(), n);
            }
        });
        is_ready.recv().unwrap();
        ask(&kernel_socket(0), ours(7002));
        server.join();
        assert_fragments(&host);
        host.stop();
    });
}

#[test]
fn datagrams_of_every_size_are_echoed_to_us() {
    in_namespace("datagrams_of_every_size_are_echoed_to_us", || {
        let host = Host::start();
        let socket = kernel_socket(7001);
        let server = start(move || {
            answer(&socket);
            answer(&socket);
        });
        ask(&our_socket(&host, 0), kernel(7001));
        let ask_on_core = |core: Core| async move {
            let socket = core.udp_bind(ours(0)).unwrap();
            let mut buf = vec![0; 65_536];
            for (seed, size) in DATAGRAMS.into_iter().enumerate() {
                let sent = Known::new(seed as u64).take(size);
                assert_eq!(socket.send_to(&sent, kernel(7001)).await.unwrap(), size);
                let (n, from) = socket.recv_from(&mut buf).await.unwrap();
                assert_eq!((n, from), (size, kernel(7001)));
                Known::new(seed as u64).check(&buf[..n]);
            }
        };
        host.spawn(ask_on_core).join();
        join(server);
        assert_fragments(&host);
        host.stop();
    });
}

#[test]
fn a_connected_socket_is_told_that_its_peer_is_not_there() {
    in_namespace("a_connected_socket_is_told_that_its_peer_is_not_there", || {
        let host = Host::start();
        let refused = |outcome: io::Result<usize>| {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        };
        // The kernel's socket is told by us.
        let socket = kernel_socket(0);
        socket.connect(ours(9)).unwrap();
        socket.send(b"anybody?").unwrap();
        refused(socket.recv(&mut [0; 8]));
        // Ours are told by the kernel.
        let socket = our_socket(&host, 0);
        socket.connect(kernel(9)).unwrap();
        socket.send(b"anybody?").unwrap();
        refused(socket.recv(&mut [0; 8]));
        let on_core = host.spawn(|core| async move {
            let socket = core.udp_bind(ours(0)).unwrap();
            socket.connect(kernel(9)).unwrap();
            socket.send(b"anybody?").await.unwrap();
            socket.recv(&mut [0; 8]).await
        });
        refused(on_core.join());

        // A connected socket hears its peer and nobody else.
        let (peer, other) = (kernel_socket(7001), kernel_socket(7002));
        let socket = our_socket(&host, 7003);
        socket.connect(kernel(7001)).unwrap();
        other.send_to(b"from another", ours(7003)).unwrap();
        peer.send_to(b"from the peer", ours(7003)).unwrap();
        let mut buf = [0; 32];
        let n = socket.recv(&mut buf).unwrap();
        assert_eq!(&buf[..n], b"from the peer");
        host.stop();
    });
}
