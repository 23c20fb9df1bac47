//! The kernel: sockets of `std::net` on both ends of a veth pair, one thread for both.
//!
//! The client's end is the namespace of the process, the server's that of [`Setup::namespace`]. A
//! socket stays in the namespace where it was made, so one thread can hold both ends; the frames
//! cross within the system call that sends them, and no process is switched. That is the kernel's
//! best case on one core, and the same shape as the other pairs.
//!
//! Congestion control, ports and TIME-WAIT are those of the namespaces, which `scripts/bench` sets.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{MESSAGE_BYTES, PATTERN_BYTES, Setup, check_pattern, message};

/// The server's address on the veth pair.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);

/// Bulk turns in a row that move nothing, after which the two ends are taken to have stalled.
const MAX_STILL_TURNS: u32 = 100_000_000;

/// Runs `make` in a network namespace, and comes back to the thread's own.
pub(crate) fn inside<T>(namespace: Option<&Path>, make: impl FnOnce() -> T) -> T {
    let Some(namespace) = namespace else { return make() };
    let enter = |file: &File| {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("the right to enter a namespace");
    };
    let own = File::open("/proc/thread-self/ns/net").expect("this thread's namespace");
    enter(&File::open(namespace).expect("the server's namespace"));
    let made = make();
    enter(&own);
    made
}

/// Two ends of the kernel's own stack.
#[derive(Debug)]
pub struct Pair {
    listener: TcpListener,
    server: SocketAddr,
    /// The established connection's two ends.
    conn: Option<(TcpStream, TcpStream)>,
    datagram: (UdpSocket, UdpSocket),
    verify: bool,
    pattern: Vec<u8>,
    scratch: Vec<u8>,
    sent: u64,
    received: u64,
}

impl Pair {
    fn open(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.server).expect("a listening server");
        let (server, _) = self.listener.accept().expect("a completed connection");
        (client, server)
    }

    /// True if anything was written or read.
    fn bulk_turn(&mut self, end: u64) -> bool {
        let Some((client, server)) = &mut self.conn else { unreachable!("set up with one") };
        let (sent, received) = (self.sent, self.received);
        while self.sent < end {
            let at = (self.sent % PATTERN_BYTES as u64) as usize;
            let most = (PATTERN_BYTES - at).min((end - self.sent) as usize);
            match client.write(&self.pattern[at..at + most]) {
                Ok(len) => self.sent += len as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("an open connection: {error}"),
            }
        }
        loop {
            match server.read(&mut self.scratch) {
                Ok(0) => panic!("nobody closes"),
                Ok(len) => {
                    if self.verify {
                        check_pattern(&self.pattern, self.received, &self.scratch[..len]);
                    }
                    self.received += len as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("an open connection: {error}"),
            }
        }
        (sent, received) != (self.sent, self.received)
    }
}

/// One request and its answer.
fn exchange((client, server): &mut (TcpStream, TcpStream), round: u64) {
    let request = message(round);
    let mut buffer = [0; MESSAGE_BYTES];
    client.write_all(&request).expect("an empty send buffer has room");
    server.read_exact(&mut buffer).expect("the request");
    server.write_all(&buffer).expect("an empty send buffer has room");
    client.read_exact(&mut buffer).expect("the answer");
    assert!(buffer == request, "the answer differs");
}

impl crate::Pair for Pair {
    const NAME: &str = "kernel";

    fn new(setup: &Setup) -> Pair {
        assert!(setup.idle == 0, "no workload has the kernel hold idle connections");
        let namespace = setup.namespace.as_deref();
        let (there, here) = match namespace {
            Some(_) => (SERVER, Ipv4Addr::UNSPECIFIED),
            None => (Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST),
        };
        let (listener, server_datagram) = inside(namespace, || {
            let listener = TcpListener::bind((there, 0)).expect("a free port");
            (listener, UdpSocket::bind((there, 0)).expect("a free port"))
        });
        let datagram = UdpSocket::bind((here, 0)).expect("a free port");
        let to = server_datagram.local_addr().expect("a bound socket");
        datagram.connect(to).expect("a way to the server");
        let mut pair = Pair {
            server: listener.local_addr().expect("a bound socket"),
            listener,
            conn: None,
            datagram: (datagram, server_datagram),
            verify: setup.verify,
            pattern: crate::pattern(),
            scratch: vec![0; PATTERN_BYTES],
            sent: 0,
            received: 0,
        };
        if setup.connected {
            let conn = pair.open();
            conn.0.set_nodelay(true).expect("a socket's option");
            conn.1.set_nodelay(true).expect("a socket's option");
            pair.conn = Some(conn);
        }
        pair
    }

    fn echo(&mut self, rounds: u64) {
        let Some(conn) = &mut self.conn else { unreachable!("set up with one") };
        for round in 0..rounds {
            exchange(conn, round);
        }
    }

    fn datagrams(&mut self, rounds: u64) {
        let (client, server) = &self.datagram;
        let mut buffer = [0; MESSAGE_BYTES];
        for round in 0..rounds {
            let request = message(round);
            client.send(&request).expect("an empty queue has room");
            let (len, from) = server.recv_from(&mut buffer).expect("the request");
            server.send_to(&buffer[..len], from).expect("room");
            let len = client.recv(&mut buffer).expect("the answer");
            assert!(buffer[..len] == request, "the answer differs");
        }
    }

    fn connections(&mut self, rounds: u64) {
        for round in 0..rounds {
            let mut ends = self.open();
            exchange(&mut ends, round);
            let (client, mut server) = ends;
            // The client closes first and has the TIME-WAIT.
            drop(client);
            assert_eq!(server.read(&mut [0; 1]).expect("the end"), 0);
        }
    }

    fn bulk(&mut self, bytes: u64) {
        let Some((client, server)) = &self.conn else { unreachable!("set up with one") };
        client.set_nonblocking(true).expect("a socket's option");
        server.set_nonblocking(true).expect("a socket's option");
        let (end, mut still) = (self.received + bytes, 0);
        while self.received < end {
            still = if self.bulk_turn(end) { 0 } else { still + 1 };
            assert!(still < MAX_STILL_TURNS, "the kernel stalls");
        }
    }
}
