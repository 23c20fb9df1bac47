//! TCP Fast Open (RFC 7413) with the Linux kernel: the first connection asks for a cookie, later
//! ones carry their first data with the SYN, and a bad wire costs time but no byte.

mod interop;

use std::io::{Read, Write};

use barewire::{SocketOption, TcpListener, TcpStream};
use interop::conn::{Conn, Listen};
use interop::linux::{self, counter};
use interop::stream::{Known, receive_some};
use interop::{Host, in_namespace, join, kernel, ours, start, tell, wire};

/// Connections of each client.
const ROUNDS: u64 = 8;

/// Clients at a time on the bad wire.
const CLIENTS: u64 = 4;

/// Bytes of a request, more than fit into a SYN: the rest follows.
const REQUEST: usize = 4000;

/// Loss of whatever carries the data: the SYN, the SYN-ACK and what follows. Without reordering: a
/// SYN that is late by a whole connection opens another one, as RFC 7413 §2 says it may.
const BAD_WIRE: &str = "seed=4,loss=3%,duplicate=5%";

/// The kernel as a client and as a server, also for listeners that do not ask for it
/// (`ip-sysctl.rst`: 1, 2 and 0x400).
const FAST_OPEN: (&str, &str) = ("tcp_fastopen", "1027");

fn request(seed: u64) -> Vec<u8> {
    Known::new(seed).take(REQUEST)
}

/// Sends back what comes, for as many connections, and calls `opened` for each before it ends.
fn serve<L: Listen>(listener: L, connections: u64, opened: impl Fn(&L::Conn) + Send + 'static) {
    for _ in 0..connections {
        let mut conn = listener.take();
        let mut request = vec![0; REQUEST];
        conn.read_exact(&mut request).unwrap();
        opened(&conn);
        conn.write_all(&request).unwrap();
        assert_eq!(conn.read(&mut [0]).unwrap(), 0, "more than a request");
    }
}

fn check_answer(conn: &mut impl Conn, seed: u64) {
    let mut known = Known::new(seed);
    receive_some(conn, &mut known, REQUEST as u64);
    assert_eq!(known.sum().bytes, REQUEST as u64);
}

fn our_listener(host: &Host) -> TcpListener {
    let listener = TcpListener::bind_on(host.bw(), ours(7001)).unwrap();
    listener.set_option(SocketOption::FastOpen(64)).unwrap();
    listener
}

#[test]
fn the_kernels_data_comes_with_its_syn() {
    in_namespace("the_kernels_data_comes_with_its_syn", || {
        let host = Host::start();
        linux::set_ipv4(&[FAST_OPEN]);
        let listener = our_listener(&host);
        let server = start(move || serve(listener, ROUNDS, |_| ()));
        for seed in 0..ROUNDS {
            let mut conn = linux::connect_with(ours(7001), &request(seed)).patiently();
            check_answer(&mut conn, seed);
            let told = linux::told(&conn);
            assert_eq!(told.fast_open, seed > 0, "connection {seed}: {}", told.text);
        }
        join(server);
        assert_eq!(counter("TcpExtTCPFastOpenActive"), ROUNDS - 1);
        assert_eq!(host.bw().stats().stack().fast_open_accepted, ROUNDS - 1);
        host.stop();
    });
}

#[test]
fn our_data_comes_with_the_syn() {
    in_namespace("our_data_comes_with_the_syn", || {
        let host = Host::start();
        linux::set_ipv4(&[FAST_OPEN]);
        let listener = linux::listen(7002, "reno");
        let server = start(move || {
            let seen = std::sync::atomic::AtomicU64::new(0);
            serve(listener, ROUNDS, move |conn| {
                let round = seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let told = linux::told(conn);
                assert_eq!(told.fast_open, round > 0, "connection {round}: {}", told.text);
            });
        });
        for seed in 0..ROUNDS {
            let conn = TcpStream::connect_with(host.bw(), kernel(7002), &[], &request(seed));
            check_answer(&mut conn.unwrap().patiently(), seed);
        }
        join(server);
        assert_eq!(counter("TcpExtTCPFastOpenPassive"), ROUNDS - 1);
        assert_eq!(counter("TcpExtTCPFastOpenPassiveFail"), 0);
        host.stop();
    });
}

/// Clients on threads, each with connections of its own seeds.
fn clients(one: impl Fn(u64) + Clone + Send + 'static) {
    let client = |number: u64| {
        let one = one.clone();
        start(move || (0..ROUNDS).for_each(|round| one(number * ROUNDS + round)))
    };
    (0..CLIENTS).map(client).collect::<Vec<_>>().into_iter().for_each(join);
}

#[test]
fn data_with_a_syn_bears_a_bad_wire() {
    in_namespace("data_with_a_syn_bears_a_bad_wire", || {
        let host = Host::with(|builder| builder.faults(wire(BAD_WIRE)));
        linux::set_ipv4(&[FAST_OPEN]);
        let listener = our_listener(&host);
        let servers: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let listener = listener.try_clone().unwrap();
                start(move || serve(listener, ROUNDS, |_| ()))
            })
            .collect();
        clients(|seed| {
            let mut conn = linux::connect_with(ours(7001), &request(seed)).patiently();
            check_answer(&mut conn, seed);
        });
        servers.into_iter().for_each(join);

        let listener = linux::listen(7002, "reno");
        let servers: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let listener = listener.try_clone().unwrap();
                start(move || serve(listener, ROUNDS, |_| ()))
            })
            .collect();
        let bw = host.bw().clone();
        clients(move |seed| {
            let conn = TcpStream::connect_with(&bw, kernel(7002), &[], &request(seed));
            check_answer(&mut conn.unwrap().patiently(), seed);
        });
        servers.into_iter().for_each(join);

        let accepted = host.bw().stats().stack().fast_open_accepted;
        let by_kernel = counter("TcpExtTCPFastOpenPassive");
        tell(&format!("  accepted by cookie: {accepted} by us, {by_kernel} by the kernel"));
        // Once we have lost such a SYN we send that server none for a while (RFC 7413 §4.1.3.1), so
        // that on this wire the kernel may have none to accept.
        assert!(accepted > 0, "no SYN with data was taken");
        host.stop();
    });
}
