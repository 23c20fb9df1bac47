//! UDP and echo (SOCKETS §5).

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use barewire_stack::sim::Pair;
use barewire_stack::tcp::Readiness;
use barewire_stack::{Family, SocketError, SocketKind, SocketOption};

use super::{any, pattern, udp};

#[test]
fn one_datagram_a_call_with_its_sender_and_empty_ones_count() {
    let mut pair = Pair::new();
    let (a, b) = (udp(pair.client(), 1000), udp(pair.server(), 53));
    for payload in [&b"first"[..], b"", b"third"] {
        pair.client().send_to(a, payload, Some(Pair::server_addr(53))).unwrap();
    }
    pair.settle();
    let mut out = [0; 100];
    for expected in [&b"first"[..], b"", b"third"] {
        let got = pair.server().recv_from(b, &mut out).unwrap();
        assert_eq!((&out[..got.len], got.full_len), (expected, expected.len()));
        assert_eq!(got.from, Pair::client_addr(1000));
    }
    assert_eq!(pair.server().recv_from(b, &mut out), Err(SocketError::WouldBlock));
}

#[test]
fn a_small_buffer_truncates_and_says_so() {
    let mut pair = Pair::new();
    let (a, b) = (udp(pair.client(), 1000), udp(pair.server(), 53));
    pair.client().send_to(a, &pattern(1000), Some(Pair::server_addr(53))).unwrap();
    pair.settle();
    let mut out = [0; 10];
    let peeked = pair.server().peek_from(b, &mut out).unwrap();
    let got = pair.server().recv_from(b, &mut out).unwrap();
    assert_eq!((got.len, got.full_len, peeked), (10, 1000, got));
    assert_eq!(out, pattern(10)[..]);
    let rest = pair.server().recv_from(b, &mut out);
    assert_eq!(rest, Err(SocketError::WouldBlock), "the rest is gone");
}

#[test]
fn a_connected_socket_hears_its_peer_only() {
    let mut pair = Pair::new();
    let stack = pair.client();
    let (peer, stranger) = (udp(stack, 1000), udp(stack, 1001));
    let b = udp(pair.server(), 53);
    pair.server().connect(b, Pair::client_addr(1000)).unwrap();
    let to = Some(Pair::server_addr(53));
    pair.client().send_to(stranger, b"no", to).unwrap();
    pair.client().send_to(peer, b"yes", to).unwrap();
    pair.settle();
    let mut out = [0; 10];
    assert_eq!(pair.server().recv_from(b, &mut out).unwrap().len, 3);
    assert_eq!(pair.server().recv_from(b, &mut out), Err(SocketError::WouldBlock));
    assert_eq!(pair.server().counters().udp_no_socket, 1);
    pair.server().send_to(b, b"without an address", None).unwrap();
    pair.settle();
    assert_eq!(pair.client().recv_from(peer, &mut out).unwrap().full_len, 18);
}

#[test]
fn a_closed_port_is_told_on_the_next_call_of_a_connected_socket_once() {
    let mut pair = Pair::new();
    let (connected, loose) = (udp(pair.client(), 1000), udp(pair.client(), 1001));
    let to = Pair::server_addr(9);
    pair.client().connect(connected, to).unwrap();
    pair.client().send_to(connected, b"anybody?", None).unwrap();
    pair.client().send_to(loose, b"anybody?", Some(to)).unwrap();
    pair.settle();
    let stack = pair.client();
    assert!(stack.readiness(connected).unwrap().contains(Readiness::ERROR));
    let mut out = [0; 10];
    assert_eq!(stack.recv_from(connected, &mut out), Err(SocketError::ConnectionRefused));
    assert_eq!(stack.recv_from(connected, &mut out), Err(SocketError::WouldBlock));
    stack.send_to(connected, b"again", None).unwrap();
    assert_eq!(stack.recv_from(loose, &mut out), Err(SocketError::WouldBlock), "not connected");
    pair.settle();
    let refused = pair.client().send_to(connected, b"and again", None);
    assert_eq!(refused, Err(SocketError::ConnectionRefused));
}

#[test]
fn a_full_queue_drops_the_newest_and_counts() {
    let mut pair = Pair::new();
    let (a, b) = (udp(pair.client(), 1000), udp(pair.server(), 53));
    pair.server().set_option(b, SocketOption::RecvBuffer(10 * 2048)).unwrap();
    for i in 0..30 {
        pair.client().send_to(a, &[i], Some(Pair::server_addr(53))).unwrap();
        pair.settle();
    }
    assert_eq!(pair.server().counters().udp_queue_full, 20);
    let mut out = [0; 10];
    for i in 0..10 {
        pair.server().recv_from(b, &mut out).unwrap();
        assert_eq!(out[0], i);
    }
    assert_eq!(pair.server().recv_from(b, &mut out), Err(SocketError::WouldBlock));
}

#[test]
fn eight_thousand_bytes_are_fragmented_both_ways() {
    let mut pair = Pair::new();
    let (a, b) = (udp(pair.client(), 1000), udp(pair.server(), 53));
    let whole = pattern(8_000);
    pair.client().send_to(a, &whole, Some(Pair::server_addr(53))).unwrap();
    pair.settle();
    let mut out = vec![0; 10_000];
    let got = pair.server().recv_from(b, &mut out).unwrap();
    assert!(got.full_len == 8_000 && out[..8_000] == whole);
    pair.server().send_to(b, &out[..8_000], Some(got.from)).unwrap();
    pair.settle();
    out.fill(0);
    let got = pair.client().recv_from(a, &mut out).unwrap();
    assert!(got.full_len == 8_000 && out[..8_000] == whole);
    // 8,008 bytes in pieces of 1,480.
    for host in [0, 1] {
        let counters = pair.host(host).stack.counters();
        let counted = (counters.fragments_sent, counters.fragments_received, counters.reassembled);
        assert_eq!(counted, (6, 6, 1));
    }
}

#[test]
fn dont_fragment_refuses_what_does_not_fit() {
    let mut pair = Pair::new();
    let (a, _b) = (udp(pair.client(), 1000), udp(pair.server(), 53));
    let to = Some(Pair::server_addr(53));
    let stack = pair.client();
    stack.set_option(a, SocketOption::DontFragment(true)).unwrap();
    assert_eq!(stack.send_to(a, &pattern(1_473), to), Err(SocketError::MessageTooLong));
    assert_eq!(stack.send_to(a, &pattern(1_472), to), Ok(1_472));
    stack.set_option(a, SocketOption::DontFragment(false)).unwrap();
    assert_eq!(stack.send_to(a, &vec![0; 65_508], to), Err(SocketError::MessageTooLong));
}

#[test]
fn broadcasts_must_be_allowed_and_reach_the_others() {
    let mut pair = Pair::new();
    let (a, b) = (udp(pair.client(), 1000), udp(pair.server(), 53));
    let all = Some(SocketAddr::from((Ipv4Addr::new(10, 0, 0, 255), 53)));
    let stack = pair.client();
    assert_eq!(stack.send_to(a, b"all", all), Err(SocketError::PermissionDenied));
    stack.set_option(a, SocketOption::Broadcast(true)).unwrap();
    stack.send_to(a, b"all", all).unwrap();
    pair.settle();
    let mut out = [0; 10];
    assert_eq!(pair.server().recv_from(b, &mut out).unwrap().from, Pair::client_addr(1000));
    // RFC 1122 §3.2.2: nobody complains about a broadcast.
    let closed = Some(SocketAddr::from((Ipv4Addr::BROADCAST, 54)));
    pair.client().send_to(a, b"nobody there", closed).unwrap();
    pair.settle();
    assert_eq!(pair.client().counters().icmp_received, 0);
}

/// RFC 1122 §3.2.1.3: a broadcast address is nobody's as a source. Who is bound to one hears what is
/// sent to it, and speaks as the host.
#[test]
fn who_is_bound_to_a_broadcast_address_sends_from_the_hosts_own() {
    let mut pair = Pair::new();
    let to = udp(pair.server(), 53);
    for (at, len) in [(Ipv4Addr::new(10, 0, 0, 255), 1), (Ipv4Addr::BROADCAST, 1_000)] {
        let from = pair.client().socket(SocketKind::Udp, Family::V4).unwrap();
        pair.client().bind(from, SocketAddr::from((at, 1000))).unwrap();
        // The second small one leaves with the headers that were kept of the first.
        for _ in 0..2 {
            let sent = pair.client().send_to(from, &pattern(len), Some(Pair::server_addr(53)));
            assert_eq!(sent, Ok(len));
            pair.settle();
            let got = pair.server().recv_from(to, &mut [0; 1_000]).map(|got| got.from);
            assert_eq!(got, Ok(Pair::client_addr(1000)), "bound to {at}");
        }
        pair.client().close(from).unwrap();
    }
    assert_eq!(pair.server().counters().ip_bad_source, 0);
}

#[test]
fn a_host_answers_pings_with_what_they_carried() {
    let mut pair = Pair::new();
    let ping = pair.client().socket(SocketKind::Ping, Family::V4).unwrap();
    for len in [0, 56, 1_472, 4_000] {
        let sent = pattern(len);
        pair.client().send_to(ping, &sent, Some(Pair::server_addr(0))).unwrap();
        pair.settle();
        let mut out = vec![0; 5_000];
        let got = pair.client().recv_from(ping, &mut out).unwrap();
        assert_eq!((got.full_len, got.from), (len, Pair::server_addr(0)));
        assert!(out[..len] == sent);
    }
}

#[test]
fn datagrams_to_an_own_address_do_not_leave_the_host() {
    let mut pair = Pair::new();
    let (a, b) = (udp(pair.client(), 1000), udp(pair.client(), 1001));
    pair.client().send_to(a, &pattern(3_000), Some(Pair::client_addr(1001))).unwrap();
    pair.settle();
    let mut out = vec![0; 4_000];
    assert_eq!(pair.client().recv_from(b, &mut out).unwrap().full_len, 3_000);
    assert!(out[..3_000] == pattern(3_000) && pair.frames().is_empty());
}

#[test]
fn a_sender_that_is_faster_than_the_card_waits_and_is_told() {
    let mut pair = Pair::new();
    let (a, _b) = (udp(pair.client(), 1000), udp(pair.server(), 53));
    let to = Some(Pair::server_addr(53));
    pair.client().send_to(a, b"for ARP", to).unwrap();
    pair.run_for(Duration::from_secs(1));
    while pair.client().poll_event().is_some() {}
    let sent = (0..10_000).take_while(|_| pair.client().send_to(a, b"x", to).is_ok()).count();
    assert!((64..1_000).contains(&sent), "{sent}");
    assert_eq!(pair.client().send_to(a, b"x", to), Err(SocketError::WouldBlock));
    pair.settle();
    let event = pair.client().poll_event().unwrap();
    assert!(event.socket == a && event.ready.contains(Readiness::WRITABLE));
    pair.client().send_to(a, b"x", to).unwrap();
}

#[test]
fn sockets_that_share_a_port_share_its_datagrams_by_sender() {
    let mut pair = Pair::new();
    let stack = pair.server();
    let sharing: Vec<_> = (0..3)
        .map(|_| {
            let socket = stack.socket(SocketKind::Udp, Family::V4).unwrap();
            stack.set_option(socket, SocketOption::ReusePort(true)).unwrap();
            stack.bind(socket, any(53)).unwrap();
            socket
        })
        .collect();
    let mut counts = [0; 3];
    for port in 1000..1150 {
        let from = udp(pair.client(), port);
        for _ in 0..2 {
            pair.client().send_to(from, b"q", Some(Pair::server_addr(53))).unwrap();
        }
        pair.settle();
        let received = sharing.iter().map(|&socket| {
            std::iter::from_fn(|| pair.server().recv_from(socket, &mut [0; 9]).ok()).count()
        });
        let received: Vec<usize> = received.collect();
        let taker = received.iter().position(|&n| n > 0).unwrap();
        assert_eq!(received[taker], 2, "one sender's datagrams stay together: {received:?}");
        counts[taker] += 1;
    }
    assert!(counts.iter().all(|n| (30..=70).contains(n)), "{counts:?}");
}

#[test]
fn a_broadcast_reaches_every_socket_on_its_port() {
    let mut pair = Pair::new();
    let a = udp(pair.client(), 1000);
    pair.client().set_option(a, SocketOption::Broadcast(true)).unwrap();
    let stack = pair.server();
    let listeners: Vec<_> = (0..3)
        .map(|_| {
            let socket = stack.socket(SocketKind::Udp, Family::V4).unwrap();
            stack.set_option(socket, SocketOption::ReuseAddr(true)).unwrap();
            stack.bind(socket, any(53)).unwrap();
            socket
        })
        .collect();
    let all = Some(SocketAddr::from((Ipv4Addr::BROADCAST, 53)));
    pair.client().send_to(a, b"all", all).unwrap();
    pair.client().send_to(a, b"one", Some(Pair::server_addr(53))).unwrap();
    pair.settle();
    let mut out = [0; 9];
    for &socket in &listeners {
        assert_eq!(pair.server().recv_from(socket, &mut out).unwrap().len, 3);
        assert_eq!(&out[..3], b"all");
    }
    assert_eq!(pair.server().recv_from(listeners[2], &mut out).unwrap().len, 3, "the last");
    assert_eq!(pair.server().recv_from(listeners[0], &mut out), Err(SocketError::WouldBlock));
}

#[test]
fn the_send_buffer_bounds_a_datagram() {
    let mut pair = Pair::new();
    let a = udp(pair.client(), 1000);
    let stack = pair.client();
    stack.set_option(a, SocketOption::SendBuffer(4000)).unwrap();
    let to = Some(Pair::server_addr(53));
    assert_eq!(stack.send_to(a, &pattern(4001), to), Err(SocketError::MessageTooLong));
    assert_eq!(stack.send_to(a, &pattern(4000), to), Ok(4000));
}

#[test]
fn an_empty_datagram_is_taken_like_any_after_reading_was_shut() {
    let mut pair = Pair::new();
    let (a, b) = (udp(pair.client(), 1000), udp(pair.server(), 53));
    pair.server().connect(b, Pair::client_addr(1000)).unwrap();
    for data in [&b""[..], b"last"] {
        pair.client().send_to(a, data, Some(Pair::server_addr(53))).unwrap();
    }
    pair.settle();
    pair.server().shutdown(b, std::net::Shutdown::Read).unwrap();
    let mut out = [0; 9];
    let mut lens = || pair.server().recv_from(b, &mut out).unwrap().len;
    assert_eq!([lens(), lens(), lens()], [0, 4, 0]);
}
