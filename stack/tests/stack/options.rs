//! Every option of SOCKETS §4, set and read on live sockets, and what it changes.

use std::time::Duration;

use barewire_stack::sim::Pair;
use barewire_stack::tcp::Readiness;
use barewire_stack::wire::tcp::TcpFlags;
use barewire_stack::{Family, OptionName, SocketError, SocketId, SocketKind, SocketOption};

use super::{error_of, pair_with, pattern, tcp, udp};

const S: fn(u64) -> Duration = Duration::from_secs;

/// The options of a TCP socket with a value that is not the default's.
fn of_tcp() -> Vec<(OptionName, SocketOption)> {
    use OptionName as N;
    use SocketOption as O;
    vec![
        (N::KeepAlive, O::KeepAlive(true)),
        (N::KeepIdle, O::KeepIdle(S(11))),
        (N::KeepInterval, O::KeepInterval(S(12))),
        (N::KeepCount, O::KeepCount(3)),
        (N::Linger, O::Linger(Some(S(5)))),
        (N::SendBuffer, O::SendBuffer(100_000)),
        (N::RecvBuffer, O::RecvBuffer(90_000)),
        (N::RecvTimeout, O::RecvTimeout(Some(S(4)))),
        (N::SendTimeout, O::SendTimeout(Some(S(6)))),
        (N::NoDelay, O::NoDelay(true)),
        (N::Cork, O::Cork(true)),
        (N::QuickAck, O::QuickAck(true)),
        (N::UserTimeout, O::UserTimeout(Some(S(30)))),
        (N::Linger2, O::Linger2(S(7))),
        (N::DeferAccept, O::DeferAccept(S(8))),
        (N::FastOpen, O::FastOpen(9)),
        (N::FastOpenConnect, O::FastOpenConnect(true)),
        (N::Ttl, O::Ttl(9)),
        (N::Tos, O::Tos(0x10)),
    ]
}

#[test]
fn tcp_options_can_be_set_and_read_whatever_the_socket_is_doing() {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 4);
    let (client, server) = pair.connect(listener);
    let fresh = tcp(pair.server());
    for (name, value) in of_tcp() {
        for socket in [fresh, listener, server] {
            pair.server().set_option(socket, value).unwrap();
            assert_eq!(pair.server().option(socket, name), Ok(value), "{name:?} of {socket:?}");
        }
        pair.client().set_option(client, value).unwrap();
        assert_eq!(pair.client().option(client, name), Ok(value));
    }
    // The connection goes on.
    pair.client().write(client, &pattern(5_000)).unwrap();
    pair.run_for(S(1));
    assert_eq!(pair.server().bytes_readable(server), Ok(5_000));
}

#[test]
fn udp_sockets_have_the_options_that_mean_something_to_them() {
    use OptionName as N;
    use SocketOption as O;
    let mut pair = Pair::new();
    let socket = udp(pair.client(), 1000);
    let stack = pair.client();
    for (name, value) in [
        (N::Broadcast, O::Broadcast(true)),
        (N::SendBuffer, O::SendBuffer(9_000)),
        (N::RecvBuffer, O::RecvBuffer(9_000)),
        (N::RecvTimeout, O::RecvTimeout(Some(S(4)))),
        (N::SendTimeout, O::SendTimeout(Some(S(6)))),
        (N::Ttl, O::Ttl(9)),
        (N::Tos, O::Tos(0x10)),
        (N::DontFragment, O::DontFragment(true)),
        (N::ReuseAddr, O::ReuseAddr(true)),
        (N::ReusePort, O::ReusePort(true)),
    ] {
        stack.set_option(socket, value).unwrap();
        assert_eq!(stack.option(socket, name), Ok(value));
    }
    let none = SocketError::NoProtocolOption;
    assert_eq!(stack.set_option(socket, O::NoDelay(true)), Err(none));
    assert_eq!(stack.option(socket, N::FastOpen), Err(none));
    stack.send_to(socket, b"x", Some(Pair::server_addr(9))).unwrap();
    pair.settle();
    let ip =
        &pair.frames().iter().find(|f| f.host == 0 && f.bytes[12..14] == [8, 0]).unwrap().bytes;
    assert_eq!((ip[15], ip[22]), (0x10, 9), "TOS and TTL on the wire");
}

#[test]
fn values_out_of_range_are_refused_and_change_nothing() {
    let mut pair = Pair::new();
    let stack = pair.client();
    let stream = tcp(stack);
    let datagram = stack.socket(SocketKind::Udp, Family::V4).unwrap();
    let bad = Err(SocketError::InvalidInput);
    for socket in [stream, datagram] {
        assert_eq!(stack.set_option(socket, SocketOption::Ttl(0)), bad);
        assert_eq!(stack.set_option(socket, SocketOption::RecvTimeout(Some(Duration::ZERO))), bad);
    }
    assert_eq!(stack.set_option(stream, SocketOption::KeepCount(0)), bad);
    assert_eq!(stack.set_option(stream, SocketOption::MaxSeg(63)), bad);
    assert_eq!(stack.option(stream, OptionName::Ttl), Ok(SocketOption::Ttl(64)));
    let off = SocketOption::UserTimeout(Some(Duration::ZERO));
    stack.set_option(stream, off).unwrap();
    let read = stack.option(stream, OptionName::UserTimeout);
    assert_eq!(read, Ok(SocketOption::UserTimeout(None)), "zero is off, as on Linux");
}

fn open(pair: &mut Pair) -> (SocketId, SocketId) {
    let listener = pair.listen(80, 1);
    let ends = pair.connect(listener);
    pair.run_for(S(1));
    pair.forget();
    ends
}

#[test]
fn a_cork_holds_partial_segments_until_it_is_pulled_or_200_ms_are_over() {
    let mut pair = Pair::new();
    let (client, _server) = open(&mut pair);
    pair.client().set_option(client, SocketOption::Cork(true)).unwrap();
    pair.client().write(client, &pattern(2_000)).unwrap();
    pair.run_for(Duration::from_millis(50));
    let lens = |p: &Pair| p.segments().iter().map(|s| s.len).filter(|&l| l > 0).collect::<Vec<_>>();
    assert_eq!(lens(&pair), [1448]);
    pair.client().set_option(client, SocketOption::Cork(false)).unwrap();
    pair.settle();
    assert_eq!(lens(&pair), [1448, 552]);
    pair.client().set_option(client, SocketOption::Cork(true)).unwrap();
    pair.client().write(client, b"end").unwrap();
    pair.run_for(Duration::from_millis(199));
    assert_eq!(lens(&pair).len(), 2);
    pair.run_for(Duration::from_millis(2));
    assert_eq!(lens(&pair), [1448, 552, 3]);
}

#[test]
fn quick_ack_answers_at_once_and_turned_off_waits_as_configured() {
    let mut pair = pair_with(|tcp| tcp.delayed_ack = Duration::from_millis(25));
    let (client, server) = open(&mut pair);
    // The quick ACKs of the start are used up.
    for _ in 0..40 {
        pair.client().write(client, &[1; 100]).unwrap();
        pair.run_for(S(1));
    }
    let delay = |pair: &mut Pair| {
        pair.forget();
        let begin = pair.now();
        pair.client().write(client, b"ping").unwrap();
        pair.run_for(S(1));
        let ack = pair.segments().into_iter().find(|s| s.host == 1).unwrap();
        (ack.at - begin).as_millis()
    };
    assert_eq!(delay(&mut pair), 25);
    pair.server().set_option(server, SocketOption::QuickAck(true)).unwrap();
    assert_eq!(delay(&mut pair), 0);
    pair.server().set_option(server, SocketOption::QuickAck(false)).unwrap();
    assert_eq!(delay(&mut pair), 25);
    // Turned on while an ACK waits, it leaves.
    pair.forget();
    pair.client().write(client, b"ping").unwrap();
    pair.run_for(Duration::from_millis(5));
    assert_eq!(pair.segments().iter().filter(|s| s.host == 1).count(), 0);
    pair.server().set_option(server, SocketOption::QuickAck(true)).unwrap();
    pair.settle();
    assert_eq!(pair.segments().iter().filter(|s| s.host == 1).count(), 1);
}

#[test]
fn max_seg_is_announced_obeyed_and_read_back() {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 1);
    let socket = tcp(pair.client());
    pair.client().set_option(socket, SocketOption::MaxSeg(1000)).unwrap();
    let answer = pair.client().connect(socket, Pair::server_addr(80));
    assert_eq!(answer, Err(SocketError::InProgress));
    pair.settle();
    let (server, _) = pair.server().accept(listener).unwrap();
    assert_eq!(pair.segments()[0].header.options.mss, Some(1000));
    for (size, end) in [(988, socket), (700 - 12, socket)] {
        if size < 988 {
            pair.client().set_option(end, SocketOption::MaxSeg(700)).unwrap();
        }
        let read = pair.client().option(end, OptionName::MaxSeg);
        assert_eq!(read, Ok(SocketOption::MaxSeg(size)));
    }
    pair.forget();
    pair.client().write(socket, &pattern(3_000)).unwrap();
    pair.server().write(server, &pattern(3_000)).unwrap();
    pair.settle();
    let longest = |host| pair.segments().iter().filter(|s| s.host == host).map(|s| s.len).max();
    assert_eq!((longest(0), longest(1)), (Some(688), Some(988)));
}

#[test]
fn the_user_timeout_ends_a_connection_whose_data_is_not_acknowledged() {
    let mut pair = Pair::new();
    let (client, _server) = open(&mut pair);
    pair.client().set_option(client, SocketOption::UserTimeout(Some(S(7)))).unwrap();
    pair.host(1).deaf = true;
    let begin = pair.now();
    pair.client().write(client, b"anyone?").unwrap();
    assert_eq!(error_of(&mut pair, client), SocketError::TimedOut);
    assert_eq!((pair.now() - begin).as_secs(), 7);
}

#[test]
fn the_user_timeout_decides_about_keepalive() {
    // RFC 5482 §4.2; Linux does the same.
    let mut pair = Pair::new();
    let (client, _server) = open(&mut pair);
    for option in [
        SocketOption::KeepIdle(S(5)),
        SocketOption::KeepInterval(S(1)),
        SocketOption::KeepCount(2),
        SocketOption::KeepAlive(true),
        SocketOption::UserTimeout(Some(S(20))),
    ] {
        pair.client().set_option(client, option).unwrap();
    }
    let begin = pair.now();
    pair.host(1).deaf = true;
    assert_eq!(error_of(&mut pair, client), SocketError::TimedOut);
    let took = (pair.now() - begin).as_secs();
    assert!((18..=21).contains(&took), "{took} s, not 5 + 2 * 1");
}

#[test]
fn linger_2_shortens_the_fin_wait_2_of_a_closed_socket() {
    let mut pair = Pair::new();
    let (client, server) = open(&mut pair);
    pair.client().set_option(client, SocketOption::Linger2(S(3))).unwrap();
    pair.client().close(client).unwrap();
    pair.run_for(Duration::from_millis(2_900));
    assert_eq!(pair.client().orphans(), 1);
    pair.run_for(Duration::from_millis(200));
    assert_eq!(pair.client().orphans(), 0);
    let resets = pair.segments().iter().filter(|s| s.header.flags.contains(TcpFlags::RST)).count();
    assert_eq!(resets, 0, "it leaves without a word");
    pair.server().write(server, b"anybody there?").unwrap();
    pair.run_for(Duration::from_millis(100));
    assert!(pair.server().readiness(server).unwrap().contains(Readiness::ERROR));
}
