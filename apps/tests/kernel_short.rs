//! A hundred thousand short connections with the Linux kernel: each side is the client, and each side
//! ends first, so that TIME-WAIT stays on each.
//!
//! ```text
//!   ends first │ client: its ports are in TIME-WAIT, so it takes another port each time
//!              │ server: the client takes few ports again and again, and the server has to know
//!              │         a new connection from an old one (RFC 6191)
//! ```
//!
//! `BAREWIRE_SHORT_CONNECTIONS=5` makes it 5 % of that.

mod interop;

use std::io::ErrorKind;
use std::net;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use barewire::{Core, TcpConfig, TcpStream};
use interop::conn::{Conn, Listen};
use interop::stream::{Known, exchange_async};
use interop::{Host, in_namespace, join, kernel, linux, ours, start, tell, wait_until};

/// Connections of a test whose number does not depend on ports.
const CONNECTIONS: usize = 20_000;

/// Our ephemeral ports.
const PORTS: usize = 65_536 - 32_768;

/// Those of the first of so many have to be taken again while the kernel keeps them in TIME-WAIT.
const MORE_THAN_PORTS: usize = 40_000;

/// Connections under way at a time.
const AT_ONCE: usize = 4;

/// Bytes that each carries there and back.
const EACH: usize = 100;

/// The kernel's ports where we end first: so few that each is taken many times.
const FEW_PORTS: &str = "40000 40499";
const FEW: usize = 500;

/// The kernel's ports where it is the client and ends first: each is taken once.
const MANY_PORTS: &str = "20000 65535";

/// Who ends a connection first, and keeps it in TIME-WAIT.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Server,
    Client,
}

/// As many of `all` as the environment says, a whole number of percent.
fn share(all: usize) -> usize {
    let percent = match std::env::var("BAREWIRE_SHORT_CONNECTIONS") {
        Ok(percent) => percent.parse().expect("BAREWIRE_SHORT_CONNECTIONS is a number"),
        Err(_) => 100,
    };
    all * percent / 100
}

/// A client's side of one connection.
fn ask<C: Conn>(mut conn: C, seed: u64, first: First) {
    conn.write_all(&Known::new(seed).take(EACH)).unwrap();
    let mut answer = [0; EACH];
    conn.read_exact(&mut answer).unwrap();
    Known::new(seed).check(&answer);
    if first == First::Server {
        assert_eq!(conn.read(&mut [0]).unwrap(), 0, "more than was asked for");
    }
}

/// A server's side of one connection.
fn answer<C: Conn>(mut conn: C, first: First) {
    let mut asked = [0; EACH];
    conn.read_exact(&mut asked).unwrap();
    conn.write_all(&asked).unwrap();
    if first == First::Client {
        assert_eq!(conn.read(&mut [0]).unwrap(), 0, "more than was to be said");
    }
}

/// The number of the connection is the seed of its stream.
fn clients(total: usize, one: impl Fn(u64) + Clone + Send + 'static) {
    let client = |thread: usize| {
        let one = one.clone();
        start(move || (thread..total).step_by(AT_ONCE).for_each(|seed| one(seed as u64)))
    };
    (0..AT_ONCE).map(client).collect::<Vec<_>>().into_iter().for_each(join);
}

/// Serves `total` connections on the kernel's side, [`AT_ONCE`] at a time.
fn kernel_serves(port: u16, total: usize, first: First) -> JoinHandle<()> {
    let listener = linux::listen(port, "reno");
    start(move || {
        let worker = |thread: usize| {
            let listener = listener.try_clone().unwrap();
            start(move || {
                (thread..total).step_by(AT_ONCE).for_each(|_| answer(listener.take(), first));
            })
        };
        (0..AT_ONCE).map(worker).collect::<Vec<_>>().into_iter().for_each(join);
    })
}

/// Serves on the core until it ends.
fn we_serve(host: &Host, port: u16, first: First) {
    let (ready, is_ready) = channel();
    let serve = move |core: Core| async move {
        let listener = core.tcp_listen(ours(port), 1024).unwrap();
        ready.send(()).unwrap();
        while let Ok((stream, _peer)) = listener.accept().await {
            core.spawn(async move {
                let mut left = EACH;
                while left > 0 {
                    let slice = stream.read_owned(left).await.unwrap().expect("it was too short");
                    left -= slice.len();
                    stream.write_owned(slice).await.unwrap();
                }
                if first == First::Client {
                    assert!(stream.read_owned(1).await.unwrap().is_none(), "there was more");
                }
            });
        }
    };
    host.spawn(serve);
    is_ready.recv().unwrap();
}

/// Prints how fast it was, and shows that no connection was given up and none is left but our
/// listeners. Gives how many are in TIME-WAIT, on our side and on the kernel's.
fn finish(host: &Host, total: usize, begin: Instant, listeners: usize) -> (usize, usize) {
    let rate = total as f64 / begin.elapsed().as_secs_f64();
    wait_until("all connections have ended", || host.bw().stats().sockets() == listeners);
    let stats = host.bw().stats();
    let waiting: usize = stats.engines.iter().map(|engine| engine.time_wait).sum();
    let theirs = linux::sockets_in("time-wait");
    tell(&format!("  {total}: {rate:.0} a second, TIME-WAIT: {waiting} ours, {theirs} theirs"));
    let stack = stats.stack();
    let given_up = [stack.sockets_full, stack.orphans_aborted, stack.half_open_expired];
    assert_eq!(given_up, [0; 3], "{stack:?}");
    assert_eq!(stack.time_wait_full, 0, "there is room for all: {stack:?}");
    (waiting, theirs)
}

#[test]
fn short_connections_from_the_kernel_take_ports_again_that_we_keep_in_time_wait() {
    let name = "short_connections_from_the_kernel_take_ports_again_that_we_keep_in_time_wait";
    in_namespace(name, || {
        let host = Host::start();
        linux::set_ipv4(&[("ip_local_port_range", FEW_PORTS)]);
        we_serve(&host, 7001, First::Server);
        let (total, begin) = (share(CONNECTIONS), Instant::now());
        clients(total, |seed| {
            let conn = net::TcpStream::connect(ours(7001)).unwrap().patiently();
            ask(conn, seed, First::Server);
        });
        let (waiting, theirs) = finish(&host, total, begin, 1);
        assert!((1..=FEW).contains(&waiting), "one for each port at most: {waiting}");
        assert_eq!(theirs, 0, "we ended first");
        host.stop();
    });
}

#[test]
fn short_connections_from_the_kernel_that_it_ends_first_succeed() {
    in_namespace("short_connections_from_the_kernel_that_it_ends_first_succeed", || {
        let host = Host::start();
        linux::set_ipv4(&[("ip_local_port_range", MANY_PORTS)]);
        we_serve(&host, 7001, First::Client);
        let (total, begin) = (share(CONNECTIONS), Instant::now());
        clients(total, |seed| {
            let conn = net::TcpStream::connect(ours(7001)).unwrap().patiently();
            ask(conn, seed, First::Client);
        });
        let (waiting, theirs) = finish(&host, total, begin, 1);
        assert_eq!(waiting, 0, "the kernel ended first");
        assert!(theirs > 0, "the kernel ended first");
        host.stop();
    });
}

#[test]
fn short_connections_of_ours_take_ports_again_that_the_kernel_keeps_in_time_wait() {
    let name = "short_connections_of_ours_take_ports_again_that_the_kernel_keeps_in_time_wait";
    in_namespace(name, || {
        let host = Host::start();
        let (total, begin) = (share(MORE_THAN_PORTS), Instant::now());
        let server = kernel_serves(7001, total, First::Server);
        let bw = host.bw().clone();
        clients(total, move |seed| {
            let conn = TcpStream::connect_on(&bw, kernel(7001)).unwrap().patiently();
            ask(conn, seed, First::Server);
        });
        join(server);
        let (waiting, theirs) = finish(&host, total, begin, 0);
        assert_eq!(waiting, 0, "the kernel ended first");
        assert!((1..=PORTS).contains(&theirs), "one for each port at most: {theirs}");
        host.stop();
    });
}

#[test]
fn short_connections_of_ours_take_every_port_before_there_is_none() {
    in_namespace("short_connections_of_ours_take_every_port_before_there_is_none", || {
        // However slow the machine is, no port comes free meanwhile.
        let tcp = TcpConfig { time_wait: Duration::from_secs(600), ..TcpConfig::default() };
        let host = Host::with(|builder| builder.tcp(tcp));
        let (total, begin) = (share(PORTS), Instant::now());
        let server = kernel_serves(7001, total, First::Client);
        let connected = move |core: Core| async move {
            let mut tasks = Vec::new();
            for task in 0..AT_ONCE {
                let (tell, told) = channel();
                tasks.push(told);
                let clients = core.clone();
                core.spawn(async move {
                    for seed in (task..total).step_by(AT_ONCE) {
                        let stream = clients.tcp_connect(kernel(7001)).await.unwrap();
                        exchange_async(&stream, seed as u64, EACH).await;
                    }
                    tell.send(()).unwrap();
                });
            }
            tasks
        };
        for task in host.spawn(connected).join() {
            task.recv().expect("a task has panicked");
        }
        join(server);
        let (waiting, theirs) = finish(&host, total, begin, 0);
        assert_eq!((waiting, theirs), (total, 0), "we ended first");
        if total == PORTS {
            let error = TcpStream::connect_on(host.bw(), kernel(7001)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrNotAvailable, "{error}");
        }
        host.stop();
    });
}
