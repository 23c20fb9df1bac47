//! bind, listen, connect and accept (SOCKETS §1).

use std::time::Duration;

use barewire_stack::sim::{Pair, PairConfig};
use barewire_stack::tcp::{Readiness, State};
use barewire_stack::wire::ethernet::{EthernetHeader, ethertype};
use barewire_stack::wire::ipv4::Ipv4Header;
use barewire_stack::wire::tcp::{TcpFlags, TcpHeader, TcpOptions};
use barewire_stack::wire::{protocol, pseudo_header};
use barewire_stack::{Family, Rng, SocketError, SocketKind, SocketOption};

use super::{any, error_of, read_all, tcp};

#[test]
fn a_taken_port_is_refused_in_the_words_of_posix() {
    let mut pair = Pair::new();
    pair.listen(80, 1);
    let stack = pair.server();
    let second = tcp(stack);
    let error = stack.bind(second, any(80)).unwrap_err();
    assert_eq!(error.to_string(), "Address already in use");
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::AddrInUse);
    stack.bind(second, any(81)).unwrap();
    assert_eq!(stack.bind(second, any(82)), Err(SocketError::InvalidInput), "bound twice");
}

#[test]
fn port_zero_takes_a_free_one_and_tells_it() {
    let mut pair = Pair::new();
    let stack = pair.server();
    let (one, two) = (tcp(stack), tcp(stack));
    stack.bind(one, any(0)).unwrap();
    stack.listen(two, 1).unwrap();
    let port = |s| stack.local_addr(s).unwrap().port();
    assert!(port(one) >= 32_768 && port(two) >= 32_768 && port(one) != port(two));
}

#[test]
fn only_own_addresses_can_be_bound() {
    let mut pair = Pair::new();
    let stack = pair.server();
    let socket = tcp(stack);
    let foreign = Pair::client_addr(80);
    assert_eq!(stack.bind(socket, foreign), Err(SocketError::AddrNotAvailable));
    let v6 = "[::1]:80".parse().unwrap();
    assert_eq!(stack.bind(socket, v6), Err(SocketError::AddressFamily));
    stack.bind(socket, Pair::server_addr(80)).unwrap();
}

/// RFC 1122 §3.2.1.3: a broadcast address is nobody's as a source.
#[test]
fn who_is_bound_to_a_broadcast_address_connects_from_the_hosts_own() {
    let mut pair = Pair::new();
    pair.listen(80, 1);
    let stack = pair.client();
    let socket = tcp(stack);
    stack.bind(socket, ([10, 0, 0, 255], 700).into()).unwrap();
    assert_eq!(stack.connect(socket, Pair::server_addr(80)), Err(SocketError::InProgress));
    pair.run_until(|p| p.client().readiness(socket).unwrap().contains(Readiness::WRITABLE));
    assert_eq!(pair.client().local_addr(socket), Ok(Pair::client_addr(700)));
}

#[test]
fn the_socket_limit_answers_with_an_error_and_a_close_makes_room() {
    let mut config = PairConfig::default();
    config.client.stack.limits.sockets = 3;
    let mut pair = Pair::with(config);
    let stack = pair.client();
    let sockets = [tcp(stack), tcp(stack), tcp(stack)];
    let full = stack.socket(SocketKind::Udp, Family::V4);
    assert_eq!(full, Err(SocketError::TooManySockets));
    assert_eq!(stack.counters().sockets_full, 1);
    stack.close(sockets[1]).unwrap();
    tcp(stack);
}

#[test]
fn a_connection_opens_and_both_ends_know_its_addresses() {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 1);
    let (client, server) = pair.connect(listener);
    let local = pair.client().local_addr(client).unwrap();
    assert_eq!(local.ip(), Pair::client_addr(0).ip());
    assert_eq!(pair.client().peer_addr(client), Ok(Pair::server_addr(80)));
    assert_eq!(pair.server().local_addr(server), Ok(Pair::server_addr(80)));
    assert_eq!(pair.server().peer_addr(server), Ok(local));
    assert_eq!(pair.client().figures(client).unwrap().state, State::Established);
    let again = pair.client().connect(client, Pair::server_addr(80));
    assert_eq!(again, Err(SocketError::AlreadyConnected));
}

#[test]
fn a_closed_port_refuses() {
    let mut pair = Pair::new();
    let socket = pair.start_connect(81);
    let again = pair.client().connect(socket, Pair::server_addr(81));
    assert_eq!(again, Err(SocketError::AlreadyInProgress));
    assert_eq!(error_of(&mut pair, socket), SocketError::ConnectionRefused);
    assert_eq!(pair.server().counters().tcp_no_socket, 1);
    assert_eq!(pair.server().counters().tcp_resets_sent, 1);
}

#[test]
fn calling_connect_again_tells_what_the_attempt_came_to() {
    // Programs call it until it says that the socket is connected: a refusal must not read as that.
    let mut pair = Pair::new();
    let socket = pair.start_connect(81);
    pair.run_for(Duration::from_millis(100));
    let mut again = || pair.client().connect(socket, Pair::server_addr(81));
    assert_eq!(again(), Err(SocketError::ConnectionRefused));
    assert_eq!(again(), Err(SocketError::ConnectionAborted));
}

#[test]
fn nobody_at_the_address_is_an_unreachable_host() {
    let mut pair = Pair::new();
    let stack = pair.client();
    let socket = tcp(stack);
    let nobody = "10.0.0.99:80".parse().unwrap();
    assert_eq!(stack.connect(socket, nobody), Err(SocketError::InProgress));
    assert_eq!(error_of(&mut pair, socket), SocketError::HostUnreachable);
    assert!((2..=10).contains(&(pair.now().as_millis() / 1000)), "{:?}", pair.now());
    let arps = pair.frames().iter().filter(|f| f.bytes[12..14] == [0x08, 0x06]).count();
    assert_eq!((arps, pair.segments().len()), (3, 0), "three requests, and nothing without one");
}

#[test]
fn no_route_is_an_unreachable_network() {
    let mut pair = Pair::new();
    let stack = pair.client();
    let socket = tcp(stack);
    let far = "192.0.2.1:80".parse().unwrap();
    assert_eq!(stack.connect(socket, far), Err(SocketError::NetworkUnreachable));
}

#[test]
fn silence_is_a_timeout_after_the_last_syn() {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 1);
    pair.connect(listener);
    pair.forget();
    pair.host(1).deaf = true;
    let before = pair.now();
    let socket = pair.start_connect(80);
    assert_eq!(error_of(&mut pair, socket), SocketError::TimedOut);
    // RFC 6298 §5.5: one second, doubled with each of the six repetitions.
    let syns: Vec<_> = pair.segments().iter().map(|s| (s.at - before).as_secs()).collect();
    assert_eq!(syns, [0, 1, 3, 7, 15, 31, 63]);
    assert_eq!((pair.now() - before).as_secs(), 127, "one more doubling after the last");
}

/// `count` clients connect at once to a listener with a backlog of two that accepts nobody for two
/// seconds. All of them get through in the end, and no RST is sent.
#[track_caller]
fn all_get_through(count: usize, greeting: &[u8]) {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 2);
    let clients: Vec<_> = (0..count).map(|_| pair.start_connect(80)).collect();
    pair.settle();
    for &client in &clients {
        let written = pair.client().write(client, greeting);
        assert!(written.is_ok() || written == Err(SocketError::WouldBlock), "{written:?}");
    }
    pair.run_for(Duration::from_secs(2));
    let counters = *pair.server().counters();
    assert!(counters.listen_overflow + counters.accept_overflow > 0, "{counters:?}");
    let mut accepted = Vec::new();
    pair.run_until(|p| {
        accepted.extend(p.server().accept(listener).ok().map(|(socket, _)| socket));
        accepted.len() == clients.len()
    });
    for client in clients {
        assert_eq!(pair.client().figures(client).unwrap().state, State::Established);
    }
    assert!(pair.segments().iter().all(|s| !s.header.flags.contains(TcpFlags::RST)));
    assert_eq!(pair.server().half_open(), 0);
}

#[test]
fn a_full_accept_queue_makes_clients_wait_and_resets_nobody() {
    all_get_through(4, b"");
}

#[test]
fn clients_beyond_both_queues_get_through_by_what_they_say() {
    all_get_through(20, b"hello");
}

#[test]
fn room_in_the_accept_queue_is_offered_at_once() {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 2);
    let clients: Vec<_> = (0..20).map(|_| pair.start_connect(80)).collect();
    // Beyond the first repetitions: nobody's timer is due for a while.
    pair.run_for(Duration::from_millis(3_500));
    assert!(pair.server().counters().accept_overflow >= 18);
    let begin = pair.now();
    let mut accepted = 0;
    for _ in 0..clients.len() {
        accepted += usize::from(pair.server().accept(listener).is_ok());
        pair.run_for(Duration::from_millis(1));
    }
    assert_eq!(accepted, clients.len());
    assert!((pair.now() - begin).as_millis() <= 40, "no client waited for its own timer");
}

#[test]
fn what_a_client_writes_before_accept_waits_for_it() {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 4);
    let client = pair.start_connect(80);
    pair.run_for(Duration::from_secs(1));
    pair.client().write(client, b"early").unwrap();
    pair.run_for(Duration::from_secs(1));
    let (server, _) = pair.server().accept(listener).unwrap();
    assert!(pair.server().readiness(server).unwrap().contains(Readiness::READABLE));
    assert_eq!(read_all(pair.server(), server), (b"early".to_vec(), false));
}

/// A SYN from a source of which nothing else will ever come.
fn forged_syn(rng: &mut Rng) -> [u8; 58] {
    let src = [172, 16 + rng.below(16) as u8, rng.below(256) as u8, rng.below(256) as u8];
    let (src, dst) = (src.into(), [10, 0, 0, 2].into());
    let mut frame = [0; 58];
    let ether = EthernetHeader {
        dst: barewire_driver::MacAddr::local(2),
        src: barewire_driver::MacAddr::local(1),
        ethertype: ethertype::IPV4,
    };
    ether.emit(&mut frame);
    Ipv4Header::new(src, dst, protocol::TCP, 24).emit(&mut frame[14..]);
    let header = TcpHeader {
        src_port: 1024 + rng.below(60_000) as u16,
        dst_port: 80,
        seq: rng.next_u32(),
        flags: TcpFlags::SYN,
        window: 1024,
        options: TcpOptions { mss: Some(1460), ..TcpOptions::default() },
        ..TcpHeader::default()
    };
    header.emit(&mut frame[34..]);
    let mut sum = pseudo_header(src.into(), dst.into(), protocol::TCP, 24);
    sum.add(&frame[34..]);
    frame[50..52].copy_from_slice(&sum.finish().to_be_bytes());
    frame
}

#[test]
fn a_flood_of_syns_does_not_keep_a_client_out() {
    let mut config = PairConfig::default();
    config.server.stack.limits.half_open = 16;
    let mut pair = Pair::with(config);
    let listener = pair.listen(80, 64);
    let (mut rng, iface) = (Rng::new(1), pair.host(1).iface());
    for _ in 0..2_000 {
        let (syn, now) = (forged_syn(&mut rng), pair.now());
        pair.server().handle_bytes(now, iface, &syn).unwrap();
        pair.settle();
    }
    let before = *pair.server().counters();
    assert_eq!((pair.server().half_open(), before.cookies_sent), (16, 2_000 - 16));
    assert_eq!(pair.server().sockets(), 1, "the listener");

    let (client, server) = pair.connect(listener);
    pair.client().write(client, b"through").unwrap();
    pair.settle();
    assert_eq!(read_all(pair.server(), server), (b"through".to_vec(), false));
    let counters = *pair.server().counters();
    assert_eq!((counters.cookies_accepted, counters.cookies_refused), (1, 0));
    let scales = pair.server().figures(server).unwrap().window_scales;
    assert!(scales.is_some(), "they come back with the timestamp");
}

#[test]
fn ports_in_time_wait_run_out_loudly_and_come_back() {
    let mut config = PairConfig::default();
    config.client.stack.ephemeral_ports = 40_000..=40_003;
    let mut pair = Pair::with(config);
    let listener = pair.listen(80, 4);
    for _ in 0..4 {
        let (client, server) = pair.connect(listener);
        pair.client().close(client).unwrap();
        pair.settle();
        pair.server().close(server).unwrap();
        pair.settle();
    }
    assert_eq!((pair.client().time_wait(), pair.client().sockets()), (4, 0));
    let stack = pair.client();
    let socket = tcp(stack);
    let none = stack.connect(socket, Pair::server_addr(80));
    assert_eq!(none, Err(SocketError::AddrNotAvailable));
    pair.run_for(Duration::from_secs(61));
    assert_eq!((pair.client().time_wait(), pair.client().timers()), (0, 0));
    let again = pair.client().connect(socket, Pair::server_addr(80));
    assert_eq!(again, Err(SocketError::InProgress));
}

#[test]
fn a_listener_keeps_its_port_busy_until_it_closes_and_reuse_addr_outlives_connections() {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 4);
    let (_client, server) = pair.connect(listener);
    pair.server().close(listener).unwrap();
    let stack = pair.server();
    let plain = tcp(stack);
    assert_eq!(stack.bind(plain, any(80)), Err(SocketError::AddrInUse), "a connection is left");
    stack.set_option(plain, SocketOption::ReuseAddr(true)).unwrap();
    stack.bind(plain, any(80)).unwrap();
    stack.listen(plain, 1).unwrap();
    stack.write(server, b"still open").unwrap();
}
