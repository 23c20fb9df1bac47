//! Listeners under their settings: cookies, deferred accept, what accepted sockets inherit.

use std::time::Duration;

use barewire_stack::sim::{Pair, PairConfig};
use barewire_stack::tcp::{State, SynCookies};
use barewire_stack::wire::tcp::TcpFlags;
use barewire_stack::{OptionName, SocketError, SocketId, SocketOption};

use super::{pattern, read_all, tcp};

fn with_cookies(mode: SynCookies) -> Pair {
    let mut config = PairConfig::default();
    config.server.stack.tcp.syn_cookies = mode;
    config.server.stack.limits.half_open = 2;
    Pair::with(config)
}

#[test]
fn with_cookies_always_no_syn_is_remembered_and_no_option_lost() {
    let mut pair = with_cookies(SynCookies::Always);
    let listener = pair.listen(80, 4);
    let (client, server) = pair.connect(listener);
    let counters = *pair.server().counters();
    assert_eq!((counters.cookies_sent, counters.cookies_accepted), (1, 1));
    let (ours, theirs) =
        (pair.client().figures(client).unwrap(), pair.server().figures(server).unwrap());
    assert!(theirs.timestamps && theirs.window_scales.is_some());
    assert_eq!(ours.window_scales.map(|(a, b)| (b, a)), theirs.window_scales);
    assert_eq!((ours.mss, theirs.mss), (1448, 1448));
    // A window beyond 64 KiB is only possible with scaling that both understood alike.
    let (data, mut written, mut got) = (pattern(500_000), 0, Vec::new());
    pair.run_until(|p| {
        written += p.client().write(client, &data[written..]).unwrap_or(0);
        got.extend(read_all(p.server(), server).0);
        got.len() == 500_000
    });
    assert_eq!(got, pattern(500_000));
}

#[test]
fn with_cookies_off_a_full_queue_drops_syns_and_says_so() {
    let mut pair = with_cookies(SynCookies::Off);
    let listener = pair.listen(80, 4);
    pair.connect(listener);
    pair.host(0).deaf = true;
    for _ in 0..5 {
        pair.start_connect(80);
    }
    pair.settle();
    let counters = *pair.server().counters();
    assert_eq!((pair.server().half_open(), counters.half_open_full), (2, 3));
    assert_eq!(counters.cookies_sent, 0);
}

#[test]
fn deferred_accept_gives_a_connection_out_with_its_first_data() {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 4);
    let defer = SocketOption::DeferAccept(Duration::from_secs(10));
    pair.server().set_option(listener, defer).unwrap();
    assert_eq!(pair.server().option(listener, OptionName::DeferAccept), Ok(defer));
    let client = pair.start_connect(80);
    pair.run_for(Duration::from_secs(3));
    assert_eq!(pair.client().figures(client).unwrap().state, State::Established);
    assert_eq!(pair.server().accept(listener), Err(SocketError::WouldBlock));
    assert_eq!(pair.server().counters().accept_deferred, 1);
    assert_eq!(pair.segments().len(), 3, "no SYN-ACK is repeated meanwhile");
    pair.client().write(client, b"GET /").unwrap();
    pair.settle();
    let (server, _) = pair.server().accept(listener).unwrap();
    assert_eq!(read_all(pair.server(), server), (b"GET /".to_vec(), false));
}

#[test]
fn deferred_accept_gives_a_silent_connection_out_when_it_has_waited_enough() {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 4);
    let defer = SocketOption::DeferAccept(Duration::from_secs(10));
    pair.server().set_option(listener, defer).unwrap();
    pair.start_connect(80);
    let mut server = None;
    pair.run_until(|p| {
        server = server.or(p.server().accept(listener).ok());
        server.is_some()
    });
    assert_eq!(pair.now().as_millis() / 1000, 10);
    // A client that goes away while it is waited for leaves nothing.
    let client = pair.start_connect(80);
    pair.settle();
    assert_eq!(pair.server().half_open(), 1);
    pair.client().set_option(client, SocketOption::Linger(Some(Duration::ZERO))).unwrap();
    pair.client().close(client).unwrap();
    pair.settle();
    assert_eq!(pair.server().half_open(), 0);
}

#[test]
fn the_user_timeout_limits_the_handshake_too() {
    // RFC 5482 §3.
    let mut pair = Pair::new();
    let listener = pair.listen(80, 1);
    pair.connect(listener);
    pair.host(1).deaf = true;
    pair.forget();
    let stack = pair.client();
    let socket = tcp(stack);
    let limit = Some(Duration::from_secs(10));
    stack.set_option(socket, SocketOption::UserTimeout(limit)).unwrap();
    let begin = pair.now();
    let answer = pair.client().connect(socket, Pair::server_addr(80));
    assert_eq!(answer, Err(SocketError::InProgress));
    assert_eq!(super::error_of(&mut pair, socket), SocketError::TimedOut);
    assert_eq!((pair.now() - begin).as_secs(), 10);
    assert_eq!(pair.segments().len(), 4, "at 0, 1, 3 and 7 s");
}

#[test]
fn both_ends_may_connect_to_each_other_at_once() {
    // RFC 9293 §3.5, figure 8.
    let mut pair = Pair::new();
    let listener = pair.listen(80, 1);
    pair.connect(listener);
    pair.server().close(listener).unwrap();
    let bound = |stack: &mut barewire_stack::Stack, port: u16| {
        let socket = tcp(stack);
        stack.bind(socket, super::any(port)).unwrap();
        socket
    };
    let (a, b) = (bound(pair.client(), 4000), bound(pair.server(), 5000));
    pair.forget();
    let answer = pair.client().connect(a, Pair::server_addr(5000));
    assert_eq!(answer, Err(SocketError::InProgress));
    let answer = pair.server().connect(b, Pair::client_addr(4000));
    assert_eq!(answer, Err(SocketError::InProgress));
    pair.settle();
    assert_eq!(pair.client().figures(a).unwrap().state, State::Established);
    assert_eq!(pair.server().figures(b).unwrap().state, State::Established);
    pair.client().write(a, b"to b").unwrap();
    pair.server().write(b, b"to a").unwrap();
    pair.settle();
    assert_eq!(read_all(pair.server(), b), (b"to b".to_vec(), false));
    assert_eq!(read_all(pair.client(), a), (b"to a".to_vec(), false));
    let resets = pair.segments().iter().filter(|s| s.header.flags.contains(TcpFlags::RST)).count();
    assert_eq!(resets, 0);
}

#[test]
fn accepted_sockets_and_their_syn_acks_have_the_listeners_settings() {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 4);
    for option in inherited() {
        pair.server().set_option(listener, option).unwrap();
    }
    let (client, server) = pair.connect(listener);
    for (option, name) in inherited().into_iter().zip(names()) {
        assert_eq!(pair.server().option(server, name), Ok(option));
    }
    pair.client().write(client, b"x").unwrap();
    pair.settle();
    let from_server: Vec<_> = pair
        .frames()
        .iter()
        .filter(|f| f.host == 1 && f.bytes[12..14] == [8, 0])
        .map(|f| (f.bytes[15], f.bytes[22]))
        .collect();
    assert!(from_server.len() >= 2 && from_server.iter().all(|&f| f == (0x48, 33)), "TOS and TTL");
}

fn inherited() -> [SocketOption; 6] {
    [
        SocketOption::Ttl(33),
        SocketOption::Tos(0x48),
        SocketOption::NoDelay(true),
        SocketOption::KeepAlive(true),
        SocketOption::RecvTimeout(Some(Duration::from_secs(3))),
        SocketOption::UserTimeout(Some(Duration::from_secs(9))),
    ]
}

fn names() -> [OptionName; 6] {
    [
        OptionName::Ttl,
        OptionName::Tos,
        OptionName::NoDelay,
        OptionName::KeepAlive,
        OptionName::RecvTimeout,
        OptionName::UserTimeout,
    ]
}

/// Opens `count` connections to port 80 of the server and counts who of `listeners` accepts them.
fn spread(pair: &mut Pair, listeners: &[SocketId], count: usize) -> Vec<usize> {
    for _ in 0..count {
        pair.start_connect(80);
        pair.settle();
    }
    let accepted = |stack: &mut barewire_stack::Stack, &listener: &SocketId| {
        std::iter::from_fn(|| stack.accept(listener).ok()).count()
    };
    listeners.iter().map(|listener| accepted(pair.server(), listener)).collect()
}

#[test]
fn listeners_on_one_port_share_its_connections() {
    let mut pair = Pair::new();
    let stack = pair.server();
    let listeners: Vec<_> = (0..3)
        .map(|_| {
            let socket = tcp(stack);
            stack.set_option(socket, SocketOption::ReusePort(true)).unwrap();
            stack.bind(socket, super::any(80)).unwrap();
            stack.listen(socket, 400).unwrap();
            socket
        })
        .collect();
    let plain = tcp(stack);
    assert_eq!(stack.bind(plain, super::any(80)), Err(SocketError::AddrInUse));
    let shares = spread(&mut pair, &listeners, 300);
    assert_eq!(shares.iter().sum::<usize>(), 300);
    assert!(shares.iter().all(|&n| (70..=130).contains(&n)), "{shares:?}");
    pair.server().close(listeners[1]).unwrap();
    let shares = spread(&mut pair, &[listeners[0], listeners[2]], 100);
    assert_eq!(shares.iter().sum::<usize>(), 100, "the others take over: {shares:?}");
}

#[test]
fn a_listener_that_was_found_alone_yields_to_one_on_the_address_until_that_closes() {
    let mut pair = Pair::new();
    let listen = |pair: &mut Pair, addr| {
        let stack = pair.server();
        let socket = tcp(stack);
        stack.set_option(socket, SocketOption::ReusePort(true)).unwrap();
        stack.bind(socket, addr).unwrap();
        stack.listen(socket, 4).unwrap();
        socket
    };
    let wide = listen(&mut pair, super::any(80));
    pair.connect(wide);
    let exact = listen(&mut pair, Pair::server_addr(80));
    pair.connect(exact);
    pair.connect(exact);
    assert_eq!(pair.server().accept(wide).err(), Some(SocketError::WouldBlock));
    pair.server().close(exact).unwrap();
    pair.connect(wide);
    pair.server().close(wide).unwrap();
    let refused = pair.start_connect(80);
    pair.settle();
    assert_eq!(pair.client().take_error(refused), Ok(Some(SocketError::ConnectionRefused)));
}

#[test]
fn a_newer_syn_takes_the_place_of_a_connection_in_time_wait_held_or_not() {
    // RFC 6191. The server closes first, so that the client's port comes again while its TIME-WAIT
    // lasts.
    for held in [false, true] {
        let mut pair = Pair::new();
        let listener = pair.listen(80, 4);
        let bind = |pair: &mut Pair| {
            let socket = tcp(pair.client());
            pair.client().set_option(socket, SocketOption::ReuseAddr(true)).unwrap();
            pair.client().bind(socket, super::any(4000)).unwrap();
            let answer = pair.client().connect(socket, Pair::server_addr(80));
            assert_eq!(answer, Err(SocketError::InProgress));
            pair.settle();
            socket
        };
        let first = bind(&mut pair);
        let (server, _) = pair.server().accept(listener).unwrap();
        pair.client().write(first, b"old").unwrap();
        pair.settle();
        pair.server().shutdown(server, std::net::Shutdown::Write).unwrap();
        pair.settle();
        pair.client().close(first).unwrap();
        pair.settle();
        assert_eq!(pair.server().figures(server).unwrap().state, State::TimeWait);
        if !held {
            assert_eq!(read_all(pair.server(), server), (b"old".to_vec(), true));
            pair.server().close(server).unwrap();
            assert_eq!(pair.server().time_wait(), 1);
        }
        pair.run_for(Duration::from_millis(50));
        let second = bind(&mut pair);
        let (fresh, _) = pair.server().accept(listener).unwrap();
        assert_eq!(pair.server().figures(fresh).unwrap().state, State::Established);
        assert_eq!(pair.server().time_wait(), 0);
        pair.client().write(second, b"new").unwrap();
        pair.settle();
        assert_eq!(read_all(pair.server(), fresh), (b"new".to_vec(), false));
        if held {
            assert_eq!(read_all(pair.server(), server), (b"old".to_vec(), true), "still readable");
            pair.server().close(server).unwrap();
        }
    }
}
